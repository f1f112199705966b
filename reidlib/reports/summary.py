"""The report in short, as Markdown that is kept in git: ledger, figures, tables, and how it was made."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from reidlib.errors import InputError
from reidlib.files import write_text
from reidlib.reports.index import TEMPLATES, facts_of, report_rows

# Larger pictures do not belong into a repository.
_LARGEST_FIGURE = 300_000


def summary_markdown(out: Path) -> str:
    """Summary of a report: how it was made, the ledger, a few figures, and every notebook's table.

    Figures are those that a notebook marked for it, named as `write_summary` places them. Raises InputError
    when there is no report in ``out``.
    """
    rows = report_rows(out)
    if not rows:
        raise InputError("a summary is made from a report", f"none in {out}", "run `reidlib reproduce` first")
    commands: dict[str, list[str]] = {}
    for row in rows:
        commands.setdefault(row["command"], []).append(row["number"])
    runs = [run for row in rows for run in row["runs"]]
    trained = {run["run"]: run for run in runs if "run" in run}.values()
    text = TEMPLATES.get_template("summary.md").render(
        rows=rows,
        facts=facts_of(out),
        seeds=max(row["seeds"] for row in rows),
        commands=commands,
        runs=trained,
        devices=_each_once(run["device"] for run in trained),
        commits=_each_once(run["commit"] for run in trained),
        missing=sorted({f"{run['experiment']}, seed {run['seed']}" for run in runs if "missing" in run}),
        ledger=[line for row in rows for line in row["ledger"]],
        figures=_figures(rows),
    )
    return text + "\n"  # which a template drops at its end


def write_summary(out: Path, readme_folder: Path) -> Path:
    """Write ``readme_folder / "README.md"`` and copy its figures to ``readme_folder / "figures"``.

    Figures of an earlier summary are removed. Raises InputError when there is no report in ``out``.
    """
    text = summary_markdown(out)
    folder = readme_folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    kept = _figures(report_rows(out))
    for name, (_, figure) in kept.items():
        shutil.copyfile(figure["path"], folder / name)
    for stale in folder.iterdir():
        # Only what a summary puts there: NUMBER_name-figure.png.
        if stale.name not in kept and re.fullmatch(r"\d+_[\w%.-]+\.(png|jpg)", stale.name):
            stale.unlink()
    write_text(readme_folder / "README.md", text)
    return readme_folder / "README.md"


def _each_once(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))


def _figures(rows: list[dict]) -> dict[str, tuple[dict, dict]]:
    """By the name that it gets: each figure for the summary that is small enough, with its notebook's row.

    The ledger's own stand first.
    """
    return {
        quote(f"{row['name']}-{figure['path'].name}".replace(" ", "-")): (row, figure)
        for row in sorted(rows, key=lambda row: not row["ledger"])
        for figure in row["summary_figures"]
        if figure["path"].stat().st_size < _LARGEST_FIGURE
    }


def _markdown(text: object) -> str:
    """Text that Markdown shows as it is, on one line of a table too."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line).replace("<", "&lt;").replace(">", "&gt;")


TEMPLATES.filters["markdown"] = _markdown
