"""The page of a notebook: its cells as HTML that needs no connection."""

from __future__ import annotations

import base64
import html
import io
import logging
import re
from pathlib import Path

import nbformat

from reidlib import files
from reidlib.files import write_text
from reidlib.reports.pages.index import TEMPLATES

_CELLS = Path(__file__).with_name("templates") / "cells.html.j2"
_INTERACTIVE = "*An interactive part: open the notebook in JupyterLab to use it.*"


def write_page(folder: Path, *, title: str, error: str | None) -> Path:
    """Convert ``folder / "notebook.ipynb"`` to ``folder / "index.html"``, with the error on top."""
    from nbconvert import HTMLExporter  # takes seconds to import
    from traitlets.config import Config

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
    # Without nbconvert's warnings about missing alternative texts.
    log = logging.getLogger(__name__)
    log.setLevel(logging.ERROR)
    exporter = HTMLExporter(config=settings, raw_template=_CELLS.read_text(encoding="utf-8"), log=log)
    body, _ = exporter.from_notebook_node(notebook)
    write_text(folder / "index.html", _page(_offline(body), title=title, error=error))
    return folder / "index.html"


def _prepare(notebook: nbformat.NotebookNode) -> None:
    """Remove outputs that a static page cannot show, and papermill's notices of a failure."""
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
    """Remove links to external resources, typeset formulas, and link pages instead of notebooks."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(body, "html.parser")
    for element in soup(["script", "link", "iframe"]):
        element.decompose()
    for picture in soup("img"):
        source = str(picture.get("src", ""))
        if re.match(r"(?:https?:)?//", source):
            picture.replace_with(f"[picture on the web: {source}]")
    for link in soup("a"):
        if match := re.fullmatch(r"(?:\./)?(\w+)\.ipynb(#.*)?", str(link.get("href", ""))):
            link["href"] = f"../{match[1]}/index.html{match[2] or ''}"
    for text in soup.select(".text_cell_render")[:]:
        for string in list(text.find_all(string=re.compile(r"\$"))):
            if string.find_parent(["code", "pre"]) is None:
                string.replace_with(BeautifulSoup(_formulas(string), "html.parser"))
    for table in soup("table"):
        table.wrap(soup.new_tag("div", attrs={"class": "scroll"}))
    return str(soup)


def _formulas(text: str) -> str:
    """Return a text as HTML with pictures of its formulas ``$…$`` and ``$$…$$``."""
    parts, end = [], 0
    for match in re.finditer(r"\$\$(.+?)\$\$|\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)", text, re.DOTALL):
        formula = (match[1] or match[2]).strip()
        parts += [html.escape(text[end : match.start()]), _formula(formula, display=bool(match[1]))]
        end = match.end()
    return "".join([*parts, html.escape(text[end:])])


def _formula(formula: str, *, display: bool) -> str:
    files.load_matplotlib()
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
        return f"<code>{html.escape(formula)}</code>"  # matplotlib knows only a part of TeX
    picture = base64.b64encode(buffer.getvalue()).decode()
    kind = "math display" if display else "math"
    return (
        f'<img class="{kind}" alt="{html.escape(formula)}" style="vertical-align:-{depth:.1f}pt" '
        f'src="data:image/svg+xml;base64,{picture}">'
    )


def _page(body: str, *, title: str, error: str | None) -> str:
    from pygments.formatters import HtmlFormatter

    # The background colours come from the page's style sheet.
    light, dark = (
        re.sub(r"\.highlight \{[^}]*\}", "", HtmlFormatter(style=style).get_style_defs(".highlight"))
        for style in ("default", "github-dark")
    )
    return TEMPLATES.get_template("page.html").render(
        body=body,
        title=title,
        error=error,
        traceback='id="failure"' in body,
        light=light,
        dark=dark,
    )
