"""The papers' numbers as they are printed: one CSV file a table, and one reader for all of them.

``notes.csv`` holds what is odd about them: misprints, other protocols, lost headers. Its ``table`` is empty
where a note holds in all of them, its ``row`` where it holds for the whole table; rows are parted by ``; ``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from reidlib.errors import InputError


class Scores(NamedTuple):
    """A printed row in per cent: single query and multi-query; None where nothing is printed."""

    rank1: float | None
    mean_average_precision: float | None
    multi_query_rank1: float | None = None
    multi_query_map: float | None = None


@cache
def table(name: str) -> tuple[dict[str, str], ...]:
    """The rows of ``NAME.csv`` as printed, all text. Raises InputError for a table that is not there."""
    file = files(__name__) / f"{name}.csv"
    if not file.is_file():
        known = sorted(path.name[:-4] for path in files(__name__).iterdir() if path.name.endswith(".csv"))
        raise InputError(
            "a table of printed numbers is one of the package's",
            repr(name),
            f"choose from {', '.join(known)}",
        )
    return tuple(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))


def row(name: str, **keys: str) -> dict[str, str]:
    """The one row of a table whose columns have these values. Raises InputError for none or several."""
    found = [line for line in table(name) if all(line.get(column) == value for column, value in keys.items())]
    if len(found) != 1:
        raise InputError(
            "a printed row is named by columns that only it has",
            f"{keys} in {name}.csv, which fits {len(found)} rows",
            f"its columns are {', '.join(table(name)[0])}",
        )
    return found[0]


def number(text: str) -> float | None:
    """A printed number; None for an empty cell."""
    return float(text) if text else None


def market1501(ablation: str, name: str) -> Scores:
    """A row of JLML's ablations on Market-1501 (mAP by the official, trapezoid rule)."""
    line = row("jlml_ablations", table=ablation, row=name)
    return Scores(*(number(line[column]) for column in ("SQ_R1", "SQ_mAP", "MQ_R1", "MQ_mAP")))


def notes(name: str, rows: Collection[str] | None = None) -> tuple[str, ...]:
    """What is odd about a table's numbers, each with the rows it concerns; those on all tables last.

    rows: names of the rows that are shown; notes on others are left out. None: all that the table has.
    """
    if rows is None:
        rows = {cell for line in table(name) for cell in line.values()}
    found = []
    for line in (line for wanted in (name, "") for line in table("notes") if line["table"] == wanted):
        concerned = [row for row in line["row"].split("; ") if row and row in rows]
        if concerned or not line["row"]:
            found.append(f"{', '.join(concerned)}: {line['note']}" if concerned else line["note"])
    return tuple(found)
