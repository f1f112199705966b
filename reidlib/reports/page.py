"""An executed notebook as one page that opens offline: figures first, code one click away."""

from __future__ import annotations

import base64
import html
import io
import logging
import re
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from reidlib.files import write_text
from reidlib.reports.style import POLICY, STYLE

_PAGE_STYLE = """
body { max-width: 60rem; } p, li { max-width: 44rem; } .anchor-link { display: none; }
pre { overflow-x: auto; margin: 0; } .output_area { margin: .6rem 0; overflow-x: auto; }
details { margin: .4rem 0; } summary { color: var(--quiet); font-size: .85rem; cursor: pointer; }
.highlight { background: var(--code); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem;
  overflow-x: auto; }
.output_png img, .output_jpeg img { background: #fff; border-radius: 4px; }
.output_stderr, .output_error { color: var(--quiet); } .output_error pre { border-left: 4px solid var(--bad);
  padding-left: .8rem; } img.math { display: inline; max-width: none; } p > img.display { display: block;
  margin: .6rem 0; max-width: 100%; } table.dataframe { border: 0; }
.ansi-red-fg, .ansi-red-intense-fg { color: var(--bad); } .ansi-bold { font-weight: 600; }
.ansi-green-fg, .ansi-cyan-fg, .ansi-blue-fg { color: var(--accent); }
@media (prefers-color-scheme: dark) { img.math { filter: invert(1); } }
"""

# nbconvert's own frame loads scripts from the web; only its cells are used.
_CELLS = """{%- extends 'classic/base.html.j2' -%}
{% block input_group %}{% if cell.source.strip() %}
<details{% if cell.metadata.get('failed') %} open{% endif %}>
<summary>code{% if cell.execution_count %} [{{ cell.execution_count }}]{% else %}, not executed{% endif %}
</summary>
{{ cell.source | highlight_code(metadata=cell.metadata) | clean_html }}</details>{% endif %}
{% endblock input_group %}
{% block output_area_prompt %}{% endblock %}{% block empty_in_prompt %}{% endblock %}
{% block error %}<div id="failure">{{ super() }}</div>{% endblock error %}"""

_INTERACTIVE = "*An interactive part: open the notebook in JupyterLab to use it.*"


def write_page(folder: Path, *, title: str, error: str | None) -> Path:
    """Convert ``folder / "notebook.ipynb"`` to ``folder / "index.html"``; return that path.

    error: why the notebook failed, shown on top. Raises ValueError when the copy is damaged.
    """
    notebook = nbformat.read(folder / "notebook.ipynb", as_version=4)
    _prepare(notebook)
    settings = Config()
    settings.NbConvertBase.display_data_priority = [
        "text/html",
        "text/markdown",
        "image/svg+xml",
        "image/png",
        "image/jpeg",
        "text/latex",
        "text/plain",
    ]
    settings.CoalesceStreamsPreprocessor.enabled = True
    exporter = HTMLExporter(config=settings, raw_template=_CELLS, log=_quiet_log())
    body, _ = exporter.from_notebook_node(notebook)
    write_text(folder / "index.html", _frame(_offline(body), title=title, error=error))
    return folder / "index.html"


def _quiet_log() -> logging.Logger:
    """nbconvert's remarks on missing alternative texts are no concern of the command's user."""
    log = logging.getLogger("reidlib.reports.page")
    log.setLevel(logging.ERROR)
    return log


def _prepare(notebook: nbformat.NotebookNode) -> None:
    """Leave out what a still page cannot show, and papermill's own notices of a failure."""
    notebook.cells = [
        cell for cell in notebook.cells if "papermill-error-cell-tag" not in cell.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        outputs = []
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                cell.metadata["failed"] = True
            data = output.get("data", {})
            if "application/vnd.jupyter.widget-view+json" in data:
                if re.search(r"\d%\|", data.get("text/plain", "")):
                    continue  # a progress bar
                output["data"] = nbformat.from_dict({"text/markdown": _INTERACTIVE})
            outputs.append(output)
        if cell.cell_type == "code":
            cell.outputs = outputs


def _offline(body: str) -> str:
    """Remove what would load from the web, set formulas, and point at pages instead of notebooks."""
    soup = BeautifulSoup(body, "html.parser")
    for element in soup(["script", "link", "iframe"]):
        element.decompose()
    for picture in soup("img"):
        source = str(picture.get("src", ""))
        if re.match(r"(?:https?:)?//", source):
            picture.replace_with(f"[picture on the web: {source}]")
    for link in soup("a"):
        if found := re.fullmatch(r"(?:\./)?(\w+)\.ipynb(#.*)?", str(link.get("href", ""))):
            link["href"] = f"../{found[1]}/index.html{found[2] or ''}"
    for text in soup.select(".text_cell_render")[:]:
        for string in list(text.find_all(string=re.compile(r"\$"))):
            if string.find_parent(["code", "pre"]) is None:
                string.replace_with(BeautifulSoup(_formulas(string), "html.parser"))
    for table in soup("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    return str(soup)


def _formulas(text: str) -> str:
    """HTML of a text in which ``$…$`` and ``$$…$$`` are set as pictures, as far as they can be set."""
    parts, end = [], 0
    for found in re.finditer(r"\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)", text, re.DOTALL):
        formula = (found[1] or found[2]).strip()
        parts += [html.escape(text[end : found.start()]), _formula(formula, display=bool(found[1]))]
        end = found.end()
    return "".join([*parts, html.escape(text[end:])])


def _formula(formula: str, *, display: bool) -> str:
    import matplotlib
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser, math_to_image

    properties = FontProperties(size=14 if display else 12, math_fontfamily="cm")
    text = f"${' '.join(formula.split())}$"
    try:
        depth = MathTextParser("path").parse(text, dpi=72, prop=properties)[2]
        buffer = io.BytesIO()
        with matplotlib.rc_context({"savefig.transparent": True}):
            math_to_image(text, buffer, prop=properties, dpi=72, format="svg")
    except (ValueError, RuntimeError):
        return f"<code>{html.escape(formula)}</code>"  # beyond matplotlib's share of TeX: readable source
    picture = base64.b64encode(buffer.getvalue()).decode()
    kind = "math display" if display else "math"
    return (
        f'<img class="{kind}" alt="{html.escape(formula)}" style="vertical-align:-{depth:.1f}pt" '
        f'src="data:image/svg+xml;base64,{picture}">'
    )


def _frame(body: str, *, title: str, error: str | None) -> str:
    traceback = ' · <a href="#failure">to the traceback</a>' if 'id="failure"' in body else ""
    banner = (
        f'<p class="banner"><span class="bad">✗ failed</span> — {html.escape(error)}{traceback}</p>'
        if error
        else ""
    )
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    # Ground colours come from the page's own style.
    light, dark = (re.sub(r"\.highlight \{[^}]*\}", "", style) for style in (light, dark))
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}{_PAGE_STYLE}
@media (prefers-color-scheme: light) {{ {light} }}
@media (prefers-color-scheme: dark) {{ {dark} }}</style></head>
<body><nav><a href="../index.html">← back to the index</a></nav>
{banner}
<main>{body}</main>
<nav><a href="../index.html">← back to the index</a></nav></body></html>
"""
