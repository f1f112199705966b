"""The index of a report, and what it and the summary show of each notebook."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, select_autoescape

from reidlib import files
from reidlib.errors import InputError
from reidlib.files import write_text
from reidlib.reports.notebook import sorted_by_number

url = partial(quote, errors="surrogateescape")  # a file name may have bytes that are not UTF-8

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


# Only the HTML pages escape all text automatically.
TEMPLATES = Environment(loader=PackageLoader("reidlib.reports.pages"), autoescape=select_autoescape(["html"]))
TEMPLATES.filters |= {"cell": _cell, "clock": clock, "columns": _columns, "markdown": _markdown}


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
    rows = notebook_rows(out, live.statuses if live else None)
    states = [row["state"] for row in rows]
    words = {name: state["word"] for name, state in _STATES.items()}
    if live:
        words |= {"running": "running", "waiting": "waiting"}
        for row in rows:
            usual = "unchanged" if row["state"] == "done" else row["word"]
            row["word"] = live.words.get(row["name"], usual) or row["word"]
    counts = ", ".join(f"{states.count(name)} {word}" for name, word in words.items() if name in states)
    text = TEMPLATES.get_template("index.html").render(
        rows=rows,
        facts=facts(rows),
        counts=counts,
        live=live,
        seconds=_RELOAD,
        now=datetime.now().astimezone().strftime("%H:%M:%S %Z"),
    )
    path = out / "index.html"
    if not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != text:
        write_text(path, text)
    return path


def notebook_rows(out: Path, statuses: Mapping[str, dict] | None = None) -> list[dict]:
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
                "page": f"{url(folder.name)}/index.html" if (folder / "index.html").is_file() else "",
                **_STATES[state],
                **tables,
            }
        )
    return rows


def _figures(folder: Path, result: dict) -> list[dict]:
    """Return the figures that a result names, if their files are in the notebook's folder."""
    return [
        {**figure, "path": folder / file, "source": f"{url(folder.name)}/{url(file)}"}
        for figure in result.get("figures") or []
        if Path(file := str(figure.get("file", ""))).name == file and (folder / file).is_file()
    ]


def facts(rows: list[dict]) -> dict[str, str]:
    """Return how the report was made, with several values if its notebooks differ."""
    statuses, results = [row["status"] for row in rows], [row["result"] for row in rows]

    def distinct(values: list) -> str:
        return "; ".join(dict.fromkeys(str(value) for value in values if value))

    latest = max((status["started"] for status in statuses if status.get("started")), default="")
    versions = [" · ".join(f"{k} {v}" for k, v in (row.get("versions") or {}).items()) for row in results]
    seconds = sum(status.get("duration") or 0 for status in statuses)
    return {
        "profile": distinct([status.get("profile") for status in statuses]),
        "benchmark": distinct([(result.get("configuration") or {}).get("benchmark") for result in results]),
        "when": datetime.fromisoformat(latest).strftime("%Y-%m-%d %H:%M") if latest else "",
        # A notebook names all devices of its runs.
        "device": distinct([each for result in results for each in (result.get("device") or "").split("; ")]),
        "time of all notebooks": clock(seconds) if seconds else "",
        "commit": distinct([result.get("commit") for result in results]),
        "versions": distinct(versions),
    }
