"""What is read of a report: the index over all notebooks, a page of each, and the summary kept in git."""

from __future__ import annotations

import base64
import html
import io
import logging
import re
import shutil
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import nbformat
from jinja2 import Environment, PackageLoader, select_autoescape

from reidlib import files
from reidlib.errors import InputError
from reidlib.files import write_text
from reidlib.reports.notebook import numbered

_CELLS = Path(__file__).with_name("templates") / "cells.html.j2"
_INTERACTIVE = "*An interactive part: open the notebook in JupyterLab to use it.*"
# Larger pictures do not belong into a repository.
_LARGEST_FIGURE = 300_000

_SHOWN = {
    "done": {"sign": "✓", "word": "done", "tone": "good"},
    "failed": {"sign": "✗", "word": "failed", "tone": "bad"},
    "blocked": {"sign": "✗", "word": "not run", "tone": "bad"},
    "interrupted": {"sign": "…", "word": "interrupted", "tone": "bad"},
    "running": {"sign": "…", "word": "not finished", "tone": "quiet"},
    "waiting": {"sign": "…", "word": "not run yet", "tone": "quiet"},
}


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cell(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _columns(rows: list[dict]) -> list[str]:
    """The columns of a table, in the order of their first use."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line of a table too."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line).replace("<", "&lt;").replace(">", "&gt;")


# Only pages are HTML, so only in them everything is escaped.
_TEMPLATES = Environment(loader=PackageLoader("reidlib.reports"), autoescape=select_autoescape(["html"]))
_TEMPLATES.filters |= {"cell": _cell, "clock": clock, "columns": _columns, "markdown": _markdown}


def read_object(path: Path) -> dict:
    """A JSON object; empty when the file is missing, damaged or holds something else."""
    try:
        return files.read_json(path)
    except InputError:
        return {}


def read_heading(path: Path) -> tuple[str, str]:
    """Read a notebook's title and question from its first text cell; empty if the cell has none."""
    cells = [cell for cell in read_object(path).get("cells", []) if cell.get("cell_type") == "markdown"]
    # papermill puts a notice of a failure before the first cell.
    own = (cell for cell in cells if "papermill-error-cell-tag" not in cell["metadata"].get("tags", []))
    text = "".join(next(own, {}).get("source", ""))
    title = re.search(r"^# +(.+)$", text, re.MULTILINE)
    question = re.search(r"\*\*Question\.\*\*\s+(.+?)(?:\n\s*\n|\Z)", text, re.DOTALL)
    return title[1].strip() if title else "", " ".join(question[1].split()) if question else ""


def write_index(out: Path) -> Path:
    """Write ``out / "index.html"`` from the notebooks' folders; left alone when nothing has changed."""
    rows = _rows(out)
    states = [row["state"] for row in rows]
    counts = ", ".join(f"{states.count(name)} {_SHOWN[name]['word']}" for name in _SHOWN if name in states)
    text = _TEMPLATES.get_template("index.html").render(rows=rows, facts=_facts(rows), counts=counts)
    path = out / "index.html"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def _rows(out: Path) -> list[dict]:
    """What is shown of each notebook, in order; results count only where the status says done."""
    rows = []
    for folder in numbered(path.parent for path in out.glob("*/status.json")):
        status = read_object(folder / "status.json")
        state = str(status.get("state"))
        state = state if state in _SHOWN else "running"
        result = read_object(folder / "result.json") if state == "done" else {}
        duration = status.get("duration")
        title, question = read_heading(folder / "notebook.ipynb")
        tables = {
            name: [row for row in result.get(name) or [] if isinstance(row, dict)]
            for name in ("scores", "ledger", "runs")
        }
        rows.append(
            {
                "name": folder.name,
                "number": folder.name.split("_")[0],
                "title": title or status.get("title") or folder.name,
                "question": question,
                "state": state,
                "status": status,
                "result": result,
                "duration": "" if duration is None else clock(duration),
                "headline": dict(result.get("headline") or {}),
                "figures": _figures(folder, result),
                "page": f"{quote(folder.name)}/index.html" if (folder / "index.html").is_file() else "",
                **_SHOWN[state],
                **tables,
            }
        )
    return rows


def _figures(folder: Path, result: dict) -> list[dict]:
    """Figures that a result names and that are there, within the notebook's own folder."""
    return [
        {**figure, "path": folder / file, "source": f"{quote(folder.name)}/{quote(file)}"}
        for figure in result.get("figures") or []
        if Path(file := str(figure.get("file", ""))).name == file and (folder / file).is_file()
    ]


def _facts(rows: list[dict]) -> dict[str, str]:
    """How the report came about; several values where its notebooks differ."""
    statuses, results = [row["status"] for row in rows], [row["result"] for row in rows]

    def every(values: list) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value))

    latest = max((status["started"] for status in statuses if status.get("started")), default="")
    versions = [" · ".join(f"{k} {v}" for k, v in (row.get("versions") or {}).items()) for row in results]
    seconds = sum(status.get("duration") or 0 for status in statuses)
    return {
        "profile": every([status.get("profile") for status in statuses]),
        "benchmark": every([(result.get("configuration") or {}).get("benchmark") for result in results]),
        "when": datetime.fromisoformat(latest).strftime("%Y-%m-%d %H:%M") if latest else "",
        "device": every([result.get("device") for result in results]),
        "time of all notebooks": clock(seconds) if seconds else "",
        "commit": every([result.get("commit") for result in results]),
        "versions": every(versions),
    }


def summary_markdown(out: Path) -> str:
    """Summary of a report: how it was made, the ledger, a few figures, and every notebook's table.

    Figures are those that a notebook marked for it, named as `write_summary` places them. Raises InputError
    when there is no report in ``out``.
    """
    rows = _rows(out)
    if not rows:
        raise InputError("a summary is made from a report", f"none in {out}", "run `reidlib reproduce` first")
    commands: dict[str, list[str]] = {}
    for row in rows:
        commands.setdefault(str(row["status"].get("command") or ""), []).append(row["number"])
    runs = [run for row in rows for run in row["runs"]]
    text = _TEMPLATES.get_template("summary.md").render(
        rows=rows,
        facts=_facts(rows),
        seeds=max(len(row["result"].get("seeds") or []) for row in rows),
        commands=commands,
        runs=list({run["run"]: run for run in runs if "run" in run}.values()),
        missing=sorted({f"{run['experiment']}, seed {run['seed']}" for run in runs if "missing" in run}),
        ledger=[line for row in rows for line in row["ledger"]],
        figures=_summary_figures(rows),
    )
    return text + "\n"  # which a template drops at its end


def write_summary(out: Path, readme_folder: Path) -> Path:
    """Write ``readme_folder / "README.md"`` and copy its figures to ``readme_folder / "figures"``.

    Figures of an earlier summary are removed. Raises InputError when there is no report in ``out``.
    """
    text = summary_markdown(out)
    folder = readme_folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    kept = _summary_figures(_rows(out))
    for name, (_, figure) in kept.items():
        shutil.copyfile(figure["path"], folder / name)
    for stale in folder.iterdir():
        # Only what a summary puts there: NUMBER_name-figure.png.
        if stale.name not in kept and re.fullmatch(r"\d+_[\w%.-]+\.(png|jpg)", stale.name):
            stale.unlink()
    write_text(readme_folder / "README.md", text)
    return readme_folder / "README.md"


def _summary_figures(rows: list[dict]) -> dict[str, tuple[dict, dict]]:
    """By the name that it gets: each figure for the summary that is small enough, with its notebook's row.

    The ledger's own stand first.
    """
    return {
        quote(f"{row['name']}-{figure['path'].name}".replace(" ", "-")): (row, figure)
        for row in sorted(rows, key=lambda row: not row["ledger"])
        for figure in row["figures"]
        if figure.get("summary") and figure["path"].stat().st_size < _LARGEST_FIGURE
    }


def write_page(folder: Path, *, title: str, error: str | None) -> Path:
    """Convert ``folder / "notebook.ipynb"`` to ``folder / "index.html"``; return that path.

    error: why the notebook failed, shown on top. Raises ValueError when the copy is damaged.
    """
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
    # Remarks on missing alternative texts are no concern of the command's user.
    log = logging.getLogger(__name__)
    log.setLevel(logging.ERROR)
    exporter = HTMLExporter(config=settings, raw_template=_CELLS.read_text(), log=log)
    body, _ = exporter.from_notebook_node(notebook)
    write_text(folder / "index.html", _page(_offline(body), title=title, error=error))
    return folder / "index.html"


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
    from bs4 import BeautifulSoup

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


def _page(body: str, *, title: str, error: str | None) -> str:
    from pygments.formatters import HtmlFormatter

    # Ground colours come from the page's own style.
    light, dark = (
        re.sub(r"\.highlight \{[^}]*\}", "", HtmlFormatter(style=style).get_style_defs(".highlight"))
        for style in ("default", "github-dark")
    )
    return _TEMPLATES.get_template("page.html").render(
        body=body,
        title=title,
        error=error,
        traceback='id="failure"' in body,
        light=light,
        dark=dark,
    )
