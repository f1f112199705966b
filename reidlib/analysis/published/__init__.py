"""The papers' numbers as they are printed: one CSV file a table, and one reader for all of them.

``notes.csv`` holds what is odd about them: misprints, other protocols, lost headers. Its ``table`` is empty
where a note holds in all of them, its ``row`` where it holds for the whole table; rows are parted by ``; ``.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.resources import files

import pandas as pd

from reidlib.errors import InputError


@cache
def table(name: str) -> pd.DataFrame:
    """The rows of ``NAME.csv`` as printed, all text. Raises InputError for a table that is not there."""
    file = files(__name__) / f"{name}.csv"
    if not file.is_file():
        known = sorted(path.name[:-4] for path in files(__name__).iterdir() if path.name.endswith(".csv"))
        raise InputError(
            "a table of printed numbers is one of the package's",
            repr(name),
            f"choose from {', '.join(known)}",
        )
    with file.open(encoding="utf-8") as lines:
        return pd.read_csv(lines, dtype=str, keep_default_na=False)


def row(name: str, **keys: str) -> dict[str, str]:
    """The one row of a table whose columns have these values. Raises InputError for none or several."""
    found = [
        line
        for line in table(name).to_dict("records")
        if all(line.get(column) == value for column, value in keys.items())
    ]
    if len(found) != 1:
        raise InputError(
            "a printed row is named by columns that only it has",
            f"{keys} in {name}.csv, which fits {len(found)} rows",
            f"its columns are {', '.join(table(name))}",
        )
    return found[0]


def ablation(name: str) -> pd.DataFrame:
    """JLML's rows of an ablation on Market-1501 by their names, in numbers; not a number: nothing is printed.

    Columns: rank-1 and mAP (by the official, trapezoid rule) of single query, then of multi-query.
    """
    lines = table("jlml_ablations")
    lines = lines[lines["table"] == name].set_index("row")
    return lines[["SQ_R1", "SQ_mAP", "MQ_R1", "MQ_mAP"]].replace("", "nan").astype(float)


def notes(name: str, rows: Collection[str] | None = None) -> tuple[str, ...]:
    """What is odd about a table's numbers, each with the rows it concerns; those on all tables last.

    rows: names of the rows that are shown; notes on others are left out. None: all that the table has.
    """
    if rows is None:
        rows = set(table(name).to_numpy().flat)
    found = []
    for wanted in (name, ""):
        for _, of_table, concerning, note in table("notes").itertuples():
            concerned = [row for row in concerning.split("; ") if row and row in rows]
            if of_table == wanted and (concerned or not concerning):
                found.append(f"{', '.join(concerned)}: {note}" if concerned else note)
    return tuple(found)
