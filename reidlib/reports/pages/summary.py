"""The summary of a report, which is kept in git: how it was made, claims, marked figures and tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from reidlib.errors import InputError
from reidlib.files import write_atomically, write_text
from reidlib.reports.pages.index import TEMPLATES, facts, notebook_rows, url

# In bytes: larger pictures do not belong in a repository.
_LARGEST_FIGURE = 300_000
_CLAIMS = (
    "The claims",
    "This page is made from the [evidence](evidence) in git: any clone makes it again in minutes. "
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


def summary_markdown(out: Path) -> str:
    """Return the summary of a report: how it was made, the claims, the marked figures and all tables."""
    return _summary(out)[1]


def _summary(out: Path) -> tuple[str, str, list[dict]]:
    """Return the name of a summary's file, its text, and what it shows of each notebook."""
    rows = notebook_rows(out)
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
    text = TEMPLATES.get_template("summary.md").render(
        title=title,
        about=about,
        claims=claims,
        rows=rows,
        facts=facts(rows),
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
        url(f"{row['name']}-{figure['path'].name}".replace(" ", "-")): (row, figure)
        for row in sorted(rows, key=lambda row: not row["ledger"])
        for figure in row["figures"]
        if is_shown(row, figure)
    }
