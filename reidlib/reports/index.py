"""The report over all notebooks: what it is made from, and its index page."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, select_autoescape

from reidlib.files import write_text

_INDEX_FIGURES = 2

_WORDS = {
    "done": ("✓", "done", "good"),
    "failed": ("✗", "failed", "bad"),
    "blocked": ("✗", "not run", "bad"),
    "interrupted": ("…", "interrupted", "bad"),
    "running": ("…", "not finished", "quiet"),
    "waiting": ("…", "not run yet", "quiet"),
}

# The pages and the summary as templates; only pages are HTML, so only in them everything is escaped.
TEMPLATES = Environment(loader=PackageLoader("reidlib.reports"), autoescape=select_autoescape(["html"]))


def read_json(path: Path) -> dict:
    """A JSON object; empty when the file is missing, damaged or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_index(out: Path) -> Path:
    """Write ``out / "index.html"`` from the notebooks' folders; left alone when nothing has changed."""
    rows = report_rows(out)
    counts = ", ".join(
        f"{number} {_WORDS[state][1]}"
        for state in _WORDS
        if (number := sum(row["state"] == state for row in rows))
    )
    text = TEMPLATES.get_template("index.html").render(rows=rows, facts=facts_of(out), counts=counts)
    path = out / "index.html"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def _folders(out: Path) -> list[Path]:
    found = [path.parent for path in out.glob("*/status.json") if re.match(r"\d+_", path.parent.name)]
    return sorted(found, key=lambda folder: (int(folder.name.split("_")[0]), folder.name))


def report_rows(out: Path) -> list[dict]:
    """What the index says of each notebook; results count only where the status says done."""
    rows = []
    for folder in _folders(out):
        status = read_json(folder / "status.json")
        state = str(status.get("state"))
        state = state if state in _WORDS else "running"
        result = read_json(folder / "result.json") if state == "done" else {}
        sign, word, tone = _WORDS[state]
        figures = _figures(folder, result)
        scores = [row for row in result.get("scores") or [] if isinstance(row, dict)]
        rows.append(
            {
                "name": folder.name,
                "number": folder.name.split("_")[0],
                "title": result.get("title") or status.get("title") or folder.name,
                "question": result.get("question") or "",
                "state": state,
                "sign": sign,
                "word": word,
                "tone": tone,
                "error": status.get("error"),
                "duration": _duration(status),
                "headline": dict(result.get("headline") or {}),
                "figures": figures[:_INDEX_FIGURES],
                "summary_figures": [figure for figure in figures if figure["summary"]],
                "ledger": [row for row in result.get("ledger") or [] if isinstance(row, dict)],
                "runs": [run for run in result.get("runs") or [] if isinstance(run, dict)],
                "seeds": len(result.get("seeds") or []),
                "command": str(status.get("command") or ""),
                "missing": sum("missing" in run for run in result.get("runs") or [] if isinstance(run, dict)),
                "more": len(figures[_INDEX_FIGURES:]),
                "scores": scores,
                "page": f"{quote(folder.name)}/index.html" if (folder / "index.html").is_file() else "",
            }
        )
    return rows


def _figures(folder: Path, result: dict) -> list[dict]:
    """Figures that a result names and that are there, within the notebook's own folder."""
    figures = []
    for figure in result.get("figures") or []:
        file = str(figure.get("file", ""))
        if file and Path(file).name == file and (folder / file).is_file():
            caption = str(figure.get("caption", ""))
            figures.append(
                {
                    "path": folder / file,
                    "source": f"{quote(folder.name)}/{quote(file)}",
                    "caption": caption,
                    "alt": str(figure.get("alt") or caption),
                    "summary": bool(figure.get("summary")),
                }
            )
    return figures


def _duration(status: dict) -> str:
    return clock(status["duration"]) if status.get("duration") is not None else ""


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def cell(value: object) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def facts_of(out: Path) -> dict[str, str]:
    """How the report came about; several values where its notebooks differ."""
    folders = _folders(out)
    statuses = [read_json(folder / "status.json") for folder in folders]
    results = [
        read_json(folder / "result.json")
        for folder, status in zip(folders, statuses, strict=True)
        if status.get("state") == "done"
    ]

    def every(values: list) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in values if value))

    latest = max((status["started"] for status in statuses if status.get("started")), default="")
    benchmarks = [(result.get("configuration") or {}).get("benchmark") for result in results]
    versions = every(
        [" · ".join(f"{k} {v}" for k, v in (result.get("versions") or {}).items()) for result in results]
    )
    seconds = sum(status.get("duration") or 0 for status in statuses)
    return {
        "profile": every([status.get("profile") for status in statuses]),
        "benchmark": every(benchmarks),
        "when": datetime.fromisoformat(latest).strftime("%Y-%m-%d %H:%M") if latest else "",
        "device": every([result.get("device") for result in results]),
        "time of all notebooks": clock(seconds) if seconds else "",
        "commit": every([result.get("commit") for result in results]),
        "versions": versions,
    }


def columns(rows: list[dict]) -> list[str]:
    """The columns of a table, in the order of their first use."""
    return list(dict.fromkeys(column for row in rows for column in row))


TEMPLATES.filters |= {"cell": cell, "clock": clock, "columns": columns}
