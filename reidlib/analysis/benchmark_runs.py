"""The papers' tables of whole benchmarks, with this suite's rows inside them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import pandas as pd

from reidlib.analysis.benchmark_tables import (
    TABLES,
    Table,
    before,
    differences_of,
    folder_of,
    folders_of,
    guidance,
    notes,
    trials_of,
)
from reidlib.analysis.scores import Cell, ExperimentScores, Spread
from reidlib.errors import shorten
from reidlib.experiments.obtain import FAILURES, Link, chain, obtain
from reidlib.experiments.setup import Missing, Runs, Setup, first_line
from reidlib.training.runs import Run

# The rows that this suite adds to every table.
OWN = ("jlml", "pyramid")


@dataclass(frozen=True)
class OwnRuns:
    """This suite's runs on one benchmark: of each row and trial, one for each seed.

    ``num_trials``: what the protocol has, of which fewer may have been asked for. ``pretrained``: they start
    from ``benchmark_tables.pretraining``. ``lack``: why there are none at all, where the folder could not be
    read. ``differences``: in what the folder is not the official one.
    """

    specification: str
    profile: str
    num_trials: int = 0
    runs: Mapping[tuple[str, int], Sequence[Run | Missing]] = field(default_factory=dict)
    pretrained: bool = False
    lack: str = ""
    differences: tuple[str, ...] = ()

    @property
    def incomplete(self) -> str:
        """In what the folder differs from the official counts, in a line; empty where it is whole."""
        return shorten(self.differences, 3)

    def title(self, row: str) -> str:
        """What a table calls a row of this suite: with what sets it apart from a printed one."""
        apart = [row, f"profile {self.profile}"]
        if self.differences:
            apart.append("not the whole benchmark")
        if self.pretrained:
            apart.append("pre-trained")
        trials = sum(name == row for name, _ in self.runs)
        if 0 < trials < self.num_trials:
            apart.append(f"{trials} of {self.num_trials} partitions")
        return "this suite: " + ", ".join(apart)

    @property
    def cells(self) -> dict[tuple[str, int], Cell]:
        """(Row, trial) -> under which name its runs are gathered."""
        return {(row, trial): Cell(_name(row, self.specification, trial)) for row, trial in self.runs}

    @property
    def gathered(self) -> Runs:
        """The runs of all rows and trials, and what is missing: a page that lacks something is made again."""
        runs = {cell.experiment: tuple(self.runs[place]) for place, cell in self.cells.items()}
        missing = [Missing(self.lack, self.specification)] if self.lack else []
        missing += [run for of_seeds in runs.values() for run in of_seeds if isinstance(run, Missing)]
        return Runs(runs, len(next(iter(runs.values()), ())), tuple(missing), self.profile)

    def missing(self) -> list[str]:
        """What is not there, each with its reason."""
        if self.lack:
            return [f"{self.specification}: {self.lack}"]
        return [str(lack) for lack in self.gathered.missing]


def _name(row: str, specification: str, trial: int) -> str:
    return f"{row}, {specification}, trial {trial}"


def chains(
    specification: str, folders: Mapping[str, str | Path], setup: Setup, *, trials: int = 0
) -> dict[tuple[str, int, int], tuple[Link, ...]]:
    """Of each row, trial and seed: its chain of trainings on a benchmark whose folder is given.

    setup: for its profile and seeds. trials: how many of the benchmark's; 0 for all. Raises InputError like
    ``load``.
    """
    benchmarks = trials_of(specification, folders, trials)
    start = before(specification, folders)
    return {
        (row, trial, seed): chain(row, setup.profile, benchmark, before=start, seed=seed)
        for row in OWN
        for trial, benchmark in enumerate(benchmarks)
        for seed in range(setup.seeds)
    }


def gather_own_runs(
    specification: str,
    folders: Mapping[str, str | Path],
    setup: Setup,
    *,
    trials: int = 0,
    report: Callable[[str], None] = print,
) -> OwnRuns | None:
    """This suite's runs on a benchmark; None where its folder is not given.

    A run that is not there is trained, if it may be; one that fails is marked as ``Missing``.
    """
    if folder_of(specification, folders) is None:
        return None
    try:
        lacking = differences_of(specification, folders)
        wanted = chains(specification, folders, setup, trials=trials)
    except FAILURES as error:
        return OwnRuns(specification, setup.profile.name, lack=first_line(error))
    found: dict[tuple[str, int], list[Run | Missing]] = {}
    for (row, trial, seed), links in wanted.items():
        try:
            run = obtain(links, report=report, **setup.obtaining)
        except FAILURES as error:
            run = Missing(first_line(error), _name(row, specification, trial), seed)
        found.setdefault((row, trial), []).append(run)
    first = wanted[OWN[0], 0, 0]
    return OwnRuns(
        specification,
        setup.profile.name,
        first[-1].benchmark.num_trials,
        found,
        pretrained=len(first) > 1,
        differences=tuple(lacking),
    )


def spreads(table: Table, own: OwnRuns) -> dict[str, dict[str, Spread]]:
    """Of this suite's rows of a table each measure's mean and half its 95 % interval, in per cent.

    A trial's value is the mean over its seeds. The interval is over the trials where a benchmark has several
    (they share identities, which makes it somewhat too narrow), else over seeds.
    """
    if own.lack:
        return {row: dict.fromkeys(table.columns, Spread.of([])) for row in OWN}
    found = ExperimentScores(own.gathered, table.protocol).spreads(own.cells, tuple(table.columns))
    return {
        row: {name: _over_trials(list(of_trials[name])) for name in table.columns}
        for row, of_trials in found.groupby(lambda place: place[0], sort=False)
    }


def _over_trials(trials: Sequence[Spread]) -> Spread:
    if len(trials) == 1:
        return trials[0]
    return Spread.of([trial.mean for trial in trials if trial.seeds], len(trials), over="trials")


def rows_with_own(table: Table, own: OwnRuns | None) -> pd.DataFrame:
    """The printed rows, and this suite's below them where the benchmark's folder is given."""
    printed = table.printed()
    if own is None:
        return printed
    ours = [{"method": own.title(row), **cells} for row, cells in spreads(table, own).items()]
    return pd.concat([printed, pd.DataFrame(ours, dtype=object)], ignore_index=True)


def rank1(table: Table, own: OwnRuns | None) -> dict[str, tuple[float, str]]:
    """Rank-1 in per cent of each row of a table, and whose it is: see ``figures.scores.printed_rank1``.

    The paper is the one that the table stands in; rows without a number are left out.
    """
    paper = {"JLML": "paper", "Pyramid": "paper"}
    found = {
        name: (float(value), paper.get(name, "other"))
        for name, value in table.printed().set_index("method")["R1"].items()
        if value
    }
    if own is not None and not own.lack:
        aside = "" if own.profile == "paper" and not own.differences else " (not comparable)"
        for row, of_measures in spreads(table, own).items():
            if of_measures["R1"].seeds:
                found[own.title(row)] = (of_measures["R1"].mean, row + aside)
    return found


def sections(
    benchmarks: Sequence[str], own: Mapping[str, OwnRuns | None], folders: Mapping[str, str | Path]
) -> Iterator[str | pd.DataFrame]:
    """The tables about some benchmarks in reading order: titles and notes as Markdown, rows as frames.

    Guidance follows for each benchmark without a folder.
    """
    tables = [table for table in TABLES if table.benchmark in benchmarks]
    for _, group in groupby(tables, key=lambda table: table.file):
        for table in (of_file := list(group)):
            yield f"**{table.title}**"
            yield rows_with_own(table, own[table.specification])
        yield "\n".join(f"- {note}" for note in notes(of_file))
    yield from (guidance(name) for name in benchmarks if not folders_of(name, folders))
