"""The papers' printed numbers, and their tables of whole benchmarks.

``published/`` holds one CSV file per printed table. ``published/notes.csv`` lists what a reader must know
about them: misprints, other protocols, lost headers. In it, an empty ``table`` means that a note holds for
all tables, and an empty ``row`` that it holds for the whole table; several rows are separated by ``; ``.
``published/constants.csv`` says of every constant that is attributed to a paper how it is known, and where in
this package it is. ``tables.csv`` defines ``TABLES``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec

import pandas as pd

from reidlib.data.readers import parse
from reidlib.errors import InputError, check_choice


@cache
def lines_of(name: str) -> pd.DataFrame:
    """Read ``NAME.csv`` of ``reidlib.analysis``, all cells as text; InputError if there is no such file."""
    folder = files("reidlib.analysis")
    file = folder / f"{name}.csv"
    if not file.is_file():
        names = sorted(path.name[:-4] for path in (folder / "published").iterdir())
        raise InputError(
            "a table of printed numbers is one of the package's",
            repr(name.removeprefix("published/")),
            f"choose from {', '.join(names)}",
        )
    with file.open(encoding="utf-8") as lines:
        return pd.read_csv(lines, dtype=str, keep_default_na=False)


def published(name: str, **keys: str) -> pd.DataFrame:
    """Return rows of a printed table.

    Args:
        name: Name of a file in ``published/``, without ".csv".
        keys: Column -> value. Only rows with these values are returned; all rows if no key is given.

    Returns:
        The rows as printed, all cells as text.

    Raises:
        InputError: If there is no such table.
    """
    lines = lines_of(f"published/{name}")
    return lines.loc[(lines.reindex(columns=list(keys)) == list(keys.values())).all(axis="columns")]


def published_row(name: str, **keys: str) -> dict[str, str]:
    """Return the only row of a printed table that has some values.

    Args:
        name: Name of a file in ``published/``, without ".csv".
        keys: Column -> value.

    Returns:
        Column -> cell as printed.

    Raises:
        InputError: If there is no such table, or if no row or several rows have these values.
    """
    rows = published(name, **keys)
    if len(rows) != 1:
        raise InputError(
            "the values of a printed row's columns identify it",
            f"{keys} in {name}.csv, which fits {len(rows)} rows",
            f"its columns are {', '.join(rows)}",
        )
    return {str(column): cell for column, cell in rows.iloc[0].items()}


def constants_table(*papers: str) -> pd.DataFrame:
    """Return what this suite attributes to the papers, and how each constant and statement is known.

    We had no paper's text. "Read" and "counted" name a public source, for most of Pyramid the released code.
    "Recalled" is from memory and not confirmed, with our confidence. "Our choice" is no paper's.

    Args:
        papers: "JLML", "Pyramid", "re-ranking" or "protocols"; all if none is given.

    Returns:
        A table with a line for each constant or statement, values in words and not in Python; no value of the
        code holds it if "value" is empty.

    Raises:
        InputError: If nothing is attributed to a paper of that name.
    """
    table = published("constants")
    for paper in papers:
        check_choice("a paper of the table of constants", paper, table["paper"].unique())
    table = table.loc[table["paper"].isin(papers)] if papers else table
    table = table.assign(value=table["value"].map(_in_words))
    return table.drop(columns="where").rename(columns={"status": "how it is known"})


def _in_words(value: str) -> str:
    """Write a Python value of the table of constants as text writes it."""
    text = re.sub(r"\d{5,}", lambda number: f"{int(number[0]):,}", value)
    return {"True": "yes", "False": "no", "None": "all"}.get(text, re.sub(r"[(){}']", "", text))


def constant_status(where: str) -> str:
    """Say how a constant is known.

    Args:
        where: Its dotted place below ``reidlib``, as in "training.config.JLMLConfiguration.sparsity_global".

    Returns:
        "read", "counted", "our choice" or "recalled" with our confidence, as in "recalled (medium)".

    Raises:
        InputError: If the table of constants does not have this place exactly once.
    """
    lines = published("constants").to_dict("records")
    statuses = [line["status"] for line in lines if where in line["where"].split("; ")]
    if len(statuses) != 1:
        rule = "a constant's place is in one line of constants.csv"
        raise InputError(rule, f"{where} in {len(statuses)} lines", "write it as there")
    return statuses[0]


def methods_table() -> pd.DataFrame:
    """Return the slides' table of methods, and Pyramid: and what of each is built here.

    Returns:
        The printed columns, and "built here", which names a feature or a metric only if this package has it.
    """
    pyramid = {"cat": "–", "method": "Pyramid (not on the slide)", "deep": "Pyramid", "generic_metric": "L2"}
    lines = []
    for line in [*published("methods").to_dict("records"), pyramid]:
        kinds = ("hand_crafted", "deep", "camera_pair_specific_metric", "generic_metric")
        parts = ", ".join(line.get(kind, "-") for kind in kinds).split(", ")
        places = {part: _place(part) for part in parts if part != "-"}
        built = ", ".join(f"{part} ({place})" for part, place in places.items() if place)
        missing = ", ".join(part for part, place in places.items() if not place)
        text = f"{built}; not {missing}" if missing else built
        lines.append(line | {"built here": text if built else "not built here"})
    table = pd.DataFrame(lines).fillna("-").replace("-", "").rename(columns={"cat": "category"})
    return table.rename(columns=lambda name: name.replace("_", " "))


def _place(part: str) -> str:
    """Return the dotted name below ``reidlib`` of a feature or metric; empty if this package has none."""
    name = {"L2": "evaluate", "NSFT": "NullSpace"}.get(part, part).lower()
    for room in ("models", "descriptors", "metric_learning", "ranking"):
        if find_spec(f"reidlib.{room}"):
            module = import_module(f"reidlib.{room}")
            names = {public.lower(): public for public in getattr(module, "__all__", dir(module))}
            if name in names:
                return f"{room}.{names[name]}"
    return ""


def pyramid_results() -> pd.DataFrame:
    """Return every published score of Pyramid: the paper's, and those of others.

    Returns:
        A line for each score, those on one benchmark together: benchmark, rank-1 and mAP in per cent as
        printed, the rule of mAP, who trained the network, and the source of the score.
    """
    lines = published("pyramid_details")
    trained_by = lines["trained by"] + lines["weights"].map(lambda text: f"; {text}" if text else "")
    names = [*lines["benchmark"].unique()]
    order = sorted(lines.index, key=lambda place: names.index(lines.at[place, "benchmark"]))
    columns = ["benchmark", "R1", "mAP", "mAP rule", "trained by", "source"]
    return lines.assign(**{"trained by": trained_by}).loc[order, columns]


@dataclass(frozen=True)
class Table:
    """One of the papers' benchmark tables, or the half of it that belongs to one protocol.

    Attributes:
        title: The table's title.
        specification: The benchmark with its options, without a trial, such as "cuhk03,boxes=detected".
        protocol: Title of one of ``Benchmark.protocols``. Empty for Market-1501's protocol.
        file: Name of a file in ``published/``, without ".csv".
        keys: Column of the file -> value, which select the table's rows.
        columns: Measure (a name from ``scores.MEASURES``) -> column of the file.
    """

    title: str
    specification: str
    protocol: str
    file: str
    keys: Mapping[str, str]
    columns: Mapping[str, str]

    @property
    def benchmark(self) -> str:
        """The benchmark's name without options."""
        return parse(self.specification)[0]

    @property
    def lines(self) -> pd.DataFrame:
        """The lines of the file that the table shows, with all columns."""
        lines = published(self.file, **self.keys)
        return lines.loc[(lines[list(self.columns.values())] != "").any(axis="columns")]

    def printed(self) -> pd.DataFrame:
        """Return the table as printed, without rows that are empty in its columns."""
        lines = self.lines.loc[:, ["method", *self.columns.values()]]
        return lines.set_axis(["method", *self.columns], axis="columns")


def _table(
    title: str, specification: str, protocol: str, file: str, key: str, value: str, **columns: str
) -> Table:
    """Build a table from a line of ``tables.csv``."""
    measures = {measure: column for measure, column in columns.items() if column}
    return Table(title, specification, protocol, file, {key: value} if key else {}, measures)


TABLES = tuple(_table(**line) for line in lines_of("benchmark_tables/tables").to_dict("records"))


def notes(tables: Sequence[Table]) -> tuple[str, ...]:
    """Return the notes on the rows that tables show.

    Args:
        tables: Tables of one file.

    Returns:
        The notes, each with the rows that it concerns. Those that hold for all of the papers' tables come
        last.
    """
    cells = {cell for table in tables for cell in table.lines.to_numpy().flat}
    texts = []
    for file in (tables[0].file, ""):
        for names, note in published("notes", table=file)[["row", "note"]].to_numpy():
            rows = [row for row in names.split("; ") if row and row in cells]
            if rows or not names:
                texts.append(f"{', '.join(rows)}: {note}" if rows else note)
    return tuple(texts)


def specifications() -> tuple[str, ...]:
    """Return the specifications of the tables' benchmarks, each once."""
    return tuple(dict.fromkeys(table.specification for table in TABLES))
