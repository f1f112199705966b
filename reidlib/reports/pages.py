"""The pages of a report: the index of all notebooks, a page of each, and the summary kept in git."""

from __future__ import annotations

import base64
import html
import io
import logging
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import quote

import nbformat
from jinja2 import Environment, PackageLoader, select_autoescape

from reidlib import files
from reidlib.errors import InputError
from reidlib.files import write_atomically, write_text
from reidlib.reports.notebook import sorted_by_number

_CELLS = Path(__file__).with_name("templates") / "cells.html.j2"
_url = partial(quote, errors="surrogateescape")  # a file name may have bytes that are not UTF-8
_INTERACTIVE = "*An interactive part: open the notebook in JupyterLab to use it.*"
# In bytes: larger pictures do not belong in a repository.
_LARGEST_FIGURE = 300_000

_STATES = {
    "done": {"sign": "✓", "word": "done", "tone": "good"},
    "failed": {"sign": "✗", "word": "failed", "tone": "bad"},
    "blocked": {"sign": "✗", "word": "not run", "tone": "bad"},
    "interrupted": {"sign": "…", "word": "interrupted", "tone": "bad"},
    "running": {"sign": "…", "word": "not finished", "tone": "quiet"},
    "waiting": {"sign": "…", "word": "not run yet", "tone": "quiet"},
}


# Seconds after which the index of a running command reloads itself.
_RELOAD = 10


@dataclass(frozen=True)
class Live:
    """What the index says while a command runs: the state of each of its notebooks, lines of text, itself."""

    words: Mapping[str, str]  # empty: the usual word for the notebook's state
    lines: Sequence[str]
    command: str
    statuses: Mapping[str, dict]  # in place of ``status.json``, as long as that is not written


def clock(seconds: float) -> str:
    """Format seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, remainder = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{remainder:02}" if hours else f"{minutes}:{remainder:02}"


def _cell(value: object) -> str:
    """Format a value for a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    from reidlib.analysis.statistics import (
        keep_together,  # imports pandas, which an unchanged report does not need
    )

    return keep_together(f"{value:.4g}" if isinstance(value, float) else str(value))


def _columns(rows: list[dict]) -> list[str]:
    """Return the columns of a table in the order of their first use."""
    return list(dict.fromkeys(column for row in rows for column in row))


def _markdown(text: object) -> str:
    """Escape a text for Markdown and put it on one line, for tables."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line).replace("<", "&lt;").replace(">", "&gt;")


_CLAIMS = (
    "The claims",
    "This page is made from the [evidence](evidence) in git, which any clone can repeat in minutes. "
    "What the other notebooks found stands in [their summary](notebooks.md).",
)
_NOTEBOOKS = (
    "The notebooks",
    "What the notebooks found in the last whole report. The claims and their verdicts stand in [the other "
    "summary](README.md), which is made from evidence.",
)
# Rule, value and mend of the refusal to summarise claims on other runs than those in git.
CLAIMS_RULE = (
    "the summary of the claims is made from evidence, so that every clone finds its numbers",
    "notebook 90 alone, on runs of this machine",
    "add the runs with `reidlib evidence add FOLDER`, then give `reidlib reproduce 42 44 90 --evidence "
    "--summary`",
)

# Only the HTML pages escape all text automatically.
_TEMPLATES = Environment(loader=PackageLoader("reidlib.reports"), autoescape=select_autoescape(["html"]))
_TEMPLATES.filters |= {"cell": _cell, "clock": clock, "columns": _columns, "markdown": _markdown}


def read_object(path: Path) -> dict:
    """Read a JSON object; empty if the file is missing, damaged or holds another value."""
    try:
        return files.read_json(path)
    except InputError:
        return {}


def read_heading(path: Path) -> tuple[str, str]:
    """Read a notebook's title and question from its first text cell; empty if the cell has none."""
    cells = [cell for cell in read_object(path).get("cells", []) if cell.get("cell_type") == "markdown"]
    # papermill puts a notice of a failure before the first cell.
    notebook_cells = (
        cell for cell in cells if "papermill-error-cell-tag" not in cell["metadata"].get("tags", [])
    )
    text = "".join(next(notebook_cells, {}).get("source", ""))
    title = re.search(r"^# +(.+)$", text, re.MULTILINE)
    question = re.search(r"\*\*Question\.\*\*\s+(.+?)(?:\n\s*\n|\Z)", text, re.DOTALL)
    return title[1].strip() if title else "", " ".join(question[1].split()) if question else ""


@lru_cache(100)
def _heading(path: Path, modified: int) -> tuple[str, str]:
    """Read the heading of an executed notebook, which may be large, once after each change."""
    return read_heading(path)


def write_index(out: Path, live: Live | None = None) -> Path:
    """Write ``out / "index.html"`` from the notebooks' folders if its text has changed."""
    rows = _rows(out, live.statuses if live else None)
    states = [row["state"] for row in rows]
    words = {name: state["word"] for name, state in _STATES.items()}
    if live:
        words |= {"running": "running", "waiting": "waiting"}
        for row in rows:
            usual = "unchanged" if row["state"] == "done" else row["word"]
            row["word"] = live.words.get(row["name"], usual) or row["word"]
    counts = ", ".join(f"{states.count(name)} {word}" for name, word in words.items() if name in states)
    text = _TEMPLATES.get_template("index.html").render(
        rows=rows,
        facts=_facts(rows),
        counts=counts,
        live=live,
        seconds=_RELOAD,
        now=datetime.now().astimezone().strftime("%H:%M:%S %Z"),
    )
    path = out / "index.html"
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)
    return path


def _rows(out: Path, statuses: Mapping[str, dict] | None = None) -> list[dict]:
    """Return what a page shows of each notebook, in order; a result counts only if the state is done."""
    rows, statuses = [], statuses or {}
    folders = {path.parent for path in out.glob("*/status.json")} | {out / name for name in statuses}
    for folder in sorted_by_number(folders):
        status = statuses.get(folder.name) or read_object(folder / "status.json")
        state = str(status.get("state"))
        state = state if state in _STATES else "running"
        result = read_object(folder / "result.json") if state == "done" else {}
        duration = status.get("duration")
        executed = folder / "notebook.ipynb"
        title, question = _heading(executed, executed.stat().st_mtime_ns if executed.is_file() else 0)
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
                "page": f"{_url(folder.name)}/index.html" if (folder / "index.html").is_file() else "",
                **_STATES[state],
                **tables,
            }
        )
    return rows


def _figures(folder: Path, result: dict) -> list[dict]:
    """Return the figures that a result names, if their files are in the notebook's folder."""
    return [
        {**figure, "path": folder / file, "source": f"{_url(folder.name)}/{_url(file)}"}
        for figure in result.get("figures") or []
        if Path(file := str(figure.get("file", ""))).name == file and (folder / file).is_file()
    ]


def _facts(rows: list[dict]) -> dict[str, str]:
    """Return how the report was made, with several values if its notebooks differ."""
    statuses, results = [row["status"] for row in rows], [row["result"] for row in rows]

    def distinct(values: list) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value))

    latest = max((status["started"] for status in statuses if status.get("started")), default="")
    versions = [" · ".join(f"{k} {v}" for k, v in (row.get("versions") or {}).items()) for row in results]
    seconds = sum(status.get("duration") or 0 for status in statuses)
    return {
        "profile": distinct([status.get("profile") for status in statuses]),
        "benchmark": distinct([(result.get("configuration") or {}).get("benchmark") for result in results]),
        "when": datetime.fromisoformat(latest).strftime("%Y-%m-%d %H:%M") if latest else "",
        "device": distinct([result.get("device") for result in results]),
        "time of all notebooks": clock(seconds) if seconds else "",
        "commit": distinct([result.get("commit") for result in results]),
        "versions": distinct(versions),
    }


def summary_markdown(out: Path) -> str:
    """Return the summary of a report: how it was made, the claims, the marked figures and all tables."""
    return _summary(out)[1]


def _summary(out: Path) -> tuple[str, str, list[dict]]:
    """Return the name of a summary's file, its text, and what it shows of each notebook."""
    rows = _rows(out)
    if not rows:
        raise InputError("a summary is made from a report", f"none in {out}", "run `reidlib reproduce` first")
    claims = all((row["status"].get("parameters") or {}).get("evidence") for row in rows)
    if not claims:
        rows = [row for row in rows if not row["ledger"]]
        if not rows:
            raise InputError(*CLAIMS_RULE)
    commands: dict[str, list[str]] = {}
    for row in rows:
        commands.setdefault(str(row["status"].get("command") or ""), []).append(row["number"])
    runs = [run for row in rows for run in row["runs"]]
    name, (title, about) = ("README.md", _CLAIMS) if claims else ("notebooks.md", _NOTEBOOKS)
    text = _TEMPLATES.get_template("summary.md").render(
        title=title,
        about=about,
        claims=claims,
        rows=rows,
        facts=_facts(rows),
        seeds=max(len(row["result"].get("seeds") or []) for row in rows),
        commands=commands,
        runs=list({run["run"]: run for run in runs if "run" in run}.values()),
        missing=_missing_text(run for run in runs if "missing" in run),
        ledger=[line for row in rows for line in row["ledger"]],
        figures=_summary_figures(rows),
    )
    return name, text + "\n", rows  # a template drops the last line's end


def _missing_text(runs: Iterable[dict]) -> str:
    """Return which seeds of which rows are missing, rows with the same seeds together."""
    seeds: dict[str, set[int]] = {}
    for run in runs:
        seeds.setdefault(run["experiment"], set()).add(run["seed"])
    rows: dict[tuple[int, ...], list[str]] = {}
    for row, numbers in sorted(seeds.items()):
        rows.setdefault(tuple(sorted(numbers)), []).append(row)
    return "; ".join(
        f"{', '.join(names)}: {'seed' if len(numbers) == 1 else 'seeds'} {', '.join(map(str, numbers))}"
        for numbers, names in sorted(rows.items())
    )


def check_rendered(parameters: Mapping[str, object], notebook: str = "the report") -> None:
    """Raise InputError if a notebook with these parameters may show images that were not rendered."""
    benchmark = parameters.get("benchmark") or "synthetic"
    if benchmark != "synthetic":
        rule = "the summary kept in git is of a report on the embedded benchmark: others may show real people"
        mend = "leave out --summary; in git keep numbers alone, such as those of `reidlib evidence`"
        raise InputError(rule, f"{notebook} on {benchmark}", mend)


def write_summary(out: Path, folder: Path) -> Path:
    """Write a report's summary and its figures.

    Args:
        out: The report's folder.
        folder: The folder of summaries, with ``figures`` in it.

    Returns:
        The summary's path: ``README.md`` with the claims of a report from evidence, ``notebooks.md`` of any
        other report, without claims.

    Raises:
        InputError: If there is no report, if it shows other than rendered images, or if its only notebook is
            that of the claims, made from other runs than the evidence.
    """
    name, text, rows = _summary(out)
    for row in rows:
        check_rendered(row["status"].get("parameters") or {}, row["name"])
    figures = _summary_figures(rows)
    for file, (_, figure) in figures.items():
        write_atomically(folder / "figures" / file, partial(shutil.copyfile, figure["path"]))
    write_text(folder / name, text)
    names = {row["name"] for row in rows}
    shown = "".join(path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("*.md"))
    for stale in (folder / "figures").glob("*"):
        # Figures of these notebooks, NUMBER_name-figure.png, that no summary shows any more.
        if stale.name.partition("-")[0] in names and f"](figures/{stale.name})" not in shown:
            stale.unlink()
    return folder / name


def _summary_figures(rows: list[dict]) -> dict[str, tuple[dict, dict]]:
    """Return the summary's figures by file name, each with its notebook's row; those of the claims first."""

    def is_shown(row: dict, figure: dict) -> bool:
        # With folders or a run of its own a notebook may show photographs: only its charts are taken.
        given = row["status"].get("parameters") or {}
        is_allowed = figure["path"].suffix == ".png" or not (given.get("folders") or given.get("run"))
        return is_allowed and figure.get("summary", False) and figure["path"].stat().st_size < _LARGEST_FIGURE

    return {
        _url(f"{row['name']}-{figure['path'].name}".replace(" ", "-")): (row, figure)
        for row in sorted(rows, key=lambda row: not row["ledger"])
        for figure in row["figures"]
        if is_shown(row, figure)
    }


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
    return _TEMPLATES.get_template("page.html").render(
        body=body,
        title=title,
        error=error,
        traceback='id="failure"' in body,
        light=light,
        dark=dark,
    )
