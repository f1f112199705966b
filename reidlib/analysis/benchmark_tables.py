"""The papers' printed numbers, their tables of whole benchmarks, and how and where this suite scores those.

``published/`` holds one CSV file a printed table. Its ``notes.csv`` says what is odd about them: misprints,
other protocols, lost headers. There ``table`` is empty where a note holds in all of them, ``row`` where it
holds for the whole table; rows are parted by ``; ``. ``benchmark_tables.csv`` lists ``TABLES``.

The functions at the end find the benchmarks of the tables in the folders that are given for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import pandas as pd

from reidlib.data import load
from reidlib.data.benchmark import Benchmark, combine
from reidlib.data.readers import GUIDES, parse
from reidlib.errors import InputError
from reidlib.experiments.rows import profile_named

# What JLML was trained on before it was trained on a set too small for it (sets and order as in the paper;
# which boxes and which of CUHK03's partitions is not known: we assume these).
BEFORE = ("cuhk03", "market1501")
SMALL = ("cuhk01", "grid", "viper")


@cache
def lines_of(name: str) -> pd.DataFrame:
    """The rows of ``NAME.csv`` beside this module, all text. Raises InputError for one that is not there."""
    folder = files("reidlib.analysis")
    file = folder / f"{name}.csv"
    if not file.is_file():
        known = sorted(path.name[:-4] for path in (folder / "published").iterdir())
        raise InputError(
            "a table of printed numbers is one of the package's",
            repr(name.removeprefix("published/")),
            f"choose from {', '.join(known)}",
        )
    with file.open(encoding="utf-8") as lines:
        return pd.read_csv(lines, dtype=str, keep_default_na=False)


def published(name: str, **keys: str) -> pd.DataFrame:
    """The rows of a printed table whose columns have these values, as printed, all text."""
    lines = lines_of(f"published/{name}")
    return lines[(lines.reindex(columns=list(keys)) == list(keys.values())).all(axis="columns")]


def published_row(name: str, **keys: str) -> dict[str, str]:
    """The one row of a printed table that has these values. Raises InputError for none or several."""
    found = published(name, **keys)
    if len(found) != 1:
        raise InputError(
            "a printed row is named by columns that only it has",
            f"{keys} in {name}.csv, which fits {len(found)} rows",
            f"its columns are {', '.join(found)}",
        )
    return found.iloc[0].to_dict()


@dataclass(frozen=True)
class Table:
    """One of the papers' tables, or the half of it that one protocol fills.

    specification: what to read, without a trial, such as ``cuhk03,boxes=detected``. protocol: a title among
    ``Benchmark.protocols``; empty for Market-1501's way, with the measures of ``scores.MEASURES``. file: in
    ``published/``. keys: columns that choose rows of it, with their values. columns: measure -> its column.
    """

    title: str
    specification: str
    protocol: str
    file: str
    keys: Mapping[str, str]
    columns: Mapping[str, str]

    @property
    def benchmark(self) -> str:
        """The benchmark's name alone."""
        return parse(self.specification)[0]

    @property
    def lines(self) -> pd.DataFrame:
        """The lines of its file that the table shows, with all that stands in them."""
        lines = published(self.file, **self.keys)
        return lines[(lines[list(self.columns.values())] != "").any(axis="columns")]

    def printed(self) -> pd.DataFrame:
        """The table's rows as printed; those with nothing in these columns are left out."""
        shown = self.lines[["method", *self.columns.values()]]
        return shown.set_axis(["method", *self.columns], axis="columns")


def _listed(
    title: str, specification: str, protocol: str, file: str, key: str, value: str, **columns: str
) -> Table:
    named = {measure: column for measure, column in columns.items() if column}
    return Table(title, specification, protocol, file, {key: value} if key else {}, named)


TABLES = tuple(_listed(**line) for line in lines_of("benchmark_tables").to_dict("records"))


def notes(tables: Sequence[Table]) -> tuple[str, ...]:
    """What is odd about the rows that these tables show, all of one file, each with the rows it concerns.

    Notes that hold in all of the papers' tables come last.
    """
    shown = {cell for table in tables for cell in table.lines.to_numpy().flat}
    found = []
    for wanted in (tables[0].file, ""):
        for concerning, note in published("notes", table=wanted)[["row", "note"]].to_numpy():
            concerned = [row for row in concerning.split("; ") if row and row in shown]
            if concerned or not concerning:
                found.append(f"{', '.join(concerned)}: {note}" if concerned else note)
    return tuple(found)


def folder_of(specification: str, folders: Mapping[str, str | Path]) -> Path | None:
    """The folder given for a benchmark, by its whole specification or else by its name; None if none is."""
    by_options = [folder for name, folder in folders.items() if parse(name) == parse(specification)]
    given = next(filter(None, by_options), None) or folders.get(parse(specification)[0])
    return Path(given).expanduser().absolute() if given else None


def folders_of(benchmark: str, folders: Mapping[str, str | Path]) -> list[str]:
    """The folders given for tables about a benchmark, each once; ``benchmark`` without options."""
    found = [str(folder) for name, folder in folders.items() if folder and parse(name)[0] == benchmark]
    return list(dict.fromkeys(found))


def given(
    folders: Mapping[str, str | Path], benchmark: str = "synthetic", data_root: str | Path | None = None
) -> dict[str, str]:
    """The folders given for the tables, and that of the benchmark at hand where a table is about it."""
    name = parse(benchmark)[0]
    if not data_root or name not in {table.benchmark for table in TABLES}:
        return dict(folders)
    return {name: str(data_root), **folders}


def at_hand(
    profile: str, folders: Mapping[str, str | Path], benchmark: str = "synthetic", data_root: str = ""
) -> tuple[str, str] | None:
    """On which benchmark, in which folder, the last section of notebook 42 compares protocols; None: on none.

    The one at hand; where a profile needs a real one and none is, Market-1501 or else DukeMTMC-reID among the
    tables' folders. An empty folder stands for the embedded benchmark.
    """
    if data_root or profile_named(profile).rendered is not None:
        return benchmark, str(data_root)
    found = [(name, str(folders[name])) for name in ("market1501", "dukemtmc") if folders.get(name)]
    return found[0] if found else None


def specifications() -> tuple[str, ...]:
    """What the tables read, each once."""
    return tuple(dict.fromkeys(table.specification for table in TABLES))


def check_folders(folders: Mapping[str, str | Path]) -> None:
    """Raise InputError for a folder of what no table is about, given twice, or not there."""
    known = sorted({table.benchmark for table in TABLES})
    for place, (name, folder) in enumerate(folders.items()):
        benchmark, options = parse(name)
        if benchmark not in known:
            raise InputError(
                f"the papers' tables are about {', '.join(known)}", repr(name), "name one of them"
            )
        read = [one for one in specifications() if parse(one)[0] == benchmark]
        if options and (benchmark, options) not in map(parse, read):
            raise InputError(
                "a folder is given for a benchmark, or with its options for one of the tables about it",
                repr(name),
                f"write {' or '.join(dict.fromkeys([benchmark, *read]))}",
            )
        if twice := [other for other in [*folders][:place] if parse(other) == (benchmark, options)]:
            raise InputError("a benchmark's folder is given once", f"{twice[0]} and {name}", "leave one out")
        if folder and not Path(folder).expanduser().is_dir():
            raise InputError(f"the folder of {name} exists", folder, "check the path")


def state(folders: Mapping[str, str | Path], trials: int = 0) -> dict[str, list[str]]:
    """Of each benchmark whose folder is given: what in it the tables depend on, or why it cannot be read.

    The fingerprints of the partitions (of the first ``trials``; 0: all), and what is no part of them.
    """
    found = {}
    for specification in specifications():
        if folder_of(specification, folders) is not None:
            try:
                benchmarks = trials_of(specification, folders, trials)
            except InputError as error:
                found[specification] = [str(error)]
                continue
            boxes = benchmarks[0].boxes
            found[specification] = [
                *(benchmark.fingerprint for benchmark in benchmarks),
                f"{0 if boxes is None else len(boxes)} boxes",
                repr(benchmarks[0].protocols),
                *differences_of(specification, folders),
            ]
    return found


def unread(folders: Mapping[str, str | Path]) -> dict[str, str]:
    """Of the tables whose folders are given, those whose benchmark cannot be read there, with the reason.

    Raises InputError for a folder in which no table's benchmark can be read.
    """
    found = {}
    for name in folders:
        wanted = [one for one in specifications() if parse(name) in (parse(one), (parse(one)[0], {}))]
        refusals = {}
        for specification in wanted:
            try:
                load_trial(specification, folders)
            except InputError as error:
                refusals[specification] = error
        if len(refusals) == len(wanted):
            raise refusals[wanted[0]]
        found |= {specification: str(error) for specification, error in refusals.items()}
    return found


def pretraining(folders: Mapping[str, str | Path]) -> Benchmark | None:
    """CUHK03 and Market-1501 together, or None where the folder of either is not given."""
    roots = [folder_of(name, folders) for name in BEFORE]
    if None in roots:
        return None
    return combine([load(name, root) for name, root in zip(BEFORE, roots, strict=True)])


def before(specification: str, folders: Mapping[str, str | Path]) -> tuple[Benchmark, ...]:
    """What is trained on before a benchmark: ``pretraining`` before a small one, else nothing."""
    if parse(specification)[0] not in SMALL:
        return ()
    try:
        together = pretraining(folders)
    except InputError as error:
        raise InputError(f"pre-training: {error.rule}", error.value, error.mend) from error
    return () if together is None else (together,)


def load_trial(specification: str, folders: Mapping[str, str | Path], trial: int = 0) -> Benchmark:
    """A benchmark's partition from the folder given for it. Raises InputError like ``load``."""
    name, options = parse(specification)
    return load(name, folder_of(specification, folders), trial=trial, **options)


def trials_of(specification: str, folders: Mapping[str, str | Path], trials: int) -> list[Benchmark]:
    """A benchmark's partitions, all (0) or the first few. Raises InputError like ``load``."""
    first = load_trial(specification, folders)
    count = min(trials, first.num_trials) if trials else first.num_trials
    return [first, *(load_trial(specification, folders, trial) for trial in range(1, count))]


def differences_of(specification: str, folders: Mapping[str, str | Path]) -> list[str]:
    """In what the given folder is not the official one."""
    from reidlib.data.check import count_deviations  # which loads torch, to read images

    name, options = parse(specification)
    return count_deviations(name, folder_of(specification, folders), **options)


def overview(folders: Mapping[str, str | Path]) -> pd.DataFrame:
    """Each public benchmark with the folders given for it and what such a folder holds."""
    rows = [
        (guide.title, "; ".join(folders_of(name, folders)) or "not given", guide.layout)
        for name, guide in GUIDES.items()
    ]
    return pd.DataFrame(rows, columns=["benchmark", "folder", "what the folder holds"])


def guidance(benchmark: str) -> str:
    """How to get a public benchmark and where to give its folder, as Markdown."""
    guide = GUIDES[benchmark]
    return (
        f"*{guide.title} is not given here.* {guide.source} **Place:** {guide.layout}. {guide.know} "
        f"Then `{guide.command}`, and give the folder above."
    )
