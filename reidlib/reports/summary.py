"""The report in short, as Markdown that is kept in git: ledger, figures, tables, and how it was made."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from urllib.parse import quote

from reidlib.errors import InputError
from reidlib.files import write_text
from reidlib.reports.display import clock
from reidlib.reports.index import cell, facts_of, report_rows

# Larger pictures do not belong into a repository.
_LARGEST_FIGURE = 300_000
_READING = """\
A number in brackets behind a difference is its 95 % interval, in points (per cent): over queries alone where
there is one seed, else over seeds and queries. ± is half the 95 % interval of a mean over the seeds. MQ:
multi-query. `synthetic` is the embedded benchmark of rendered people: no number here is a score on a real
benchmark, except in columns and rows marked as the paper's. A claim *does not hold* if the upper end of one
of its differences lies below half a point (from one seed: below 0), else *holds* if all are clear of 0, and
is *undecided here* otherwise."""


def summary_markdown(out: Path) -> str:
    """Summary of a report: how it was made, the ledger, a few figures, and every notebook's table.

    Figures are those that a notebook marked for it, named as `write_summary` places them. Raises InputError
    when there is no report in ``out``.
    """
    rows, facts = report_rows(out), facts_of(out)
    if not rows:
        raise InputError("a summary is made from a report", f"none in {out}", "run `reidlib reproduce` first")
    seeds = max(row["seeds"] for row in rows)
    profile = facts["profile"]
    lines = [
        f"# What holds here: the `{profile}` report, {_count(seeds, 'seed')}",
        "",
        *_made(rows, facts),
        "",
        _READING,
    ]
    ledgers = [line for row in rows for line in row["ledger"]]
    if ledgers:
        lines += ["", "## The ledger of claims", *_markdown_table(ledgers)]
    figures = [(row, figure) for row in rows for figure in _kept_figures(row)]
    figures.sort(key=lambda pair: not pair[0]["ledger"])  # the ledger's own first
    for row, figure in figures:
        lines += ["", f"![{_escape(figure['alt'])}](figures/{_kept_name(row, figure)})", ""]
        lines += [f"{_escape(figure['caption'])} ({_link(row)})"]
    for row in rows:
        if row["scores"] and not row["ledger"]:
            lines += ["", f"## {row['number']} · {_escape(row['title'])}", ""]
            lines += [f"{_escape(row['question'])} ({_link(row)})"]
            lines += _markdown_table(row["scores"])
    lines += ["", "## Notebooks", "", "| notebook | state | time | result |", "|---|---|---|---|"]
    for row in rows:
        result = row["error"] or ", ".join(f"{label}: {value}" for label, value in row["headline"].items())
        lines.append(
            f"| {row['number']} · {_escape(row['title'])} | {row['sign']} {row['word']} | {row['duration']} "
            f"| {_escape(result)} |"
        )
    return "\n".join(lines) + "\n"


def write_summary(out: Path, readme_folder: Path) -> Path:
    """Write ``readme_folder / "README.md"`` and copy its figures to ``readme_folder / "figures"``.

    Figures of an earlier summary are removed. Raises InputError when there is no report in ``out``.
    """
    text = summary_markdown(out)
    folder = readme_folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        _kept_name(row, figure): figure["path"] for row in report_rows(out) for figure in _kept_figures(row)
    }
    for name, path in kept.items():
        shutil.copyfile(path, folder / name)
    for stale in folder.iterdir():
        # Only what a summary puts there: NUMBER_name-figure.png.
        if stale.name not in kept and re.fullmatch(r"\d+_[\w%.-]+\.(png|jpg)", stale.name):
            stale.unlink()
    write_text(readme_folder / "README.md", text)
    return readme_folder / "README.md"


def _made(rows: list[dict], facts: dict[str, str]) -> list[str]:
    """Command, commit, device and durations, as a list."""
    commands: dict[str, list[str]] = {}
    for row in rows:
        commands.setdefault(row["command"], []).append(row["number"])
    runs = {run["run"]: run for row in rows for run in row["runs"] if "run" in run}
    missing = {
        f"{run['experiment']}, seed {run['seed']}" for row in rows for run in row["runs"] if "missing" in run
    }
    lines = []
    for command, numbers in commands.items():
        if command:
            of = "" if len(commands) == 1 else f" (notebooks {', '.join(numbers)})"
            lines.append(f"- Command: `{command}`{of}")
    if runs:
        seconds = sum(run["seconds"] for run in runs.values())
        devices = ", ".join(dict.fromkeys(str(run["device"]) for run in runs.values()))
        commits = ", ".join(dict.fromkeys(str(run["commit"]) for run in runs.values()))
        lines.append(
            f"- Trainings: {len(runs)}, {clock(seconds)} of training together, on {_escape(devices)}; "
            f"commit {_escape(commits)} (+: with changes)"
        )
    if missing:
        lines.append(f"- **Missing**: {_escape('; '.join(sorted(missing)))}")
    lines.append(f"- Notebooks: {_escape(facts['time of all notebooks'] or '–')} together")
    lines += [
        f"- {name[0].upper()}{name[1:]}: {_escape(value)}"
        for name, value in facts.items()
        if value and name not in ("profile", "time of all notebooks", *(["device"] if runs else []))
    ]
    return lines


def _link(row: dict) -> str:
    return f"[notebook {row['number']}](../notebooks/{quote(row['name'])}.ipynb)"


def _count(number: int, noun: str) -> str:
    return f"one {noun}" if number == 1 else f"{number} {noun}s"


def _markdown_table(rows: list[dict]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [[_escape(column) for column in columns], ["---"] * len(columns)]
    lines += [[_escape(cell(row.get(column, ""))) for column in columns] for row in rows]
    return ["", *(f"| {' | '.join(line)} |" for line in lines)]


def _kept_figures(row: dict) -> list[dict]:
    """A notebook's figures for the summary that are small enough for the repository."""
    return [figure for figure in row["summary_figures"] if figure["path"].stat().st_size < _LARGEST_FIGURE]


def _kept_name(row: dict, figure: dict) -> str:
    return quote(f"{row['name']}-{figure['path'].name}".replace(" ", "-"))


def _escape(text: object) -> str:
    """Text that Markdown shows as it is, on one line of a table too."""
    line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line).replace("<", "&lt;").replace(">", "&gt;")
