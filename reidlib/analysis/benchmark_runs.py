"""The papers' tables of whole benchmarks, with this suite's rows inside them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reidlib.analysis.benchmark_tables import Table
from reidlib.analysis.evidence import FAILURES, Missing, in_a_line, record
from reidlib.analysis.scores import MISSING, Spread, branch_scores, spreads
from reidlib.analysis.table_folders import before, differences_of, folder_of, trials_of
from reidlib.errors import shorten
from reidlib.experiments import obtain as experiments
from reidlib.training.device import Execution
from reidlib.training.runs import Run

# The rows that this suite adds to every table.
OWN = ("jlml", "pyramid")


@dataclass(frozen=True)
class OwnRuns:
    """This suite's runs on one benchmark: of each row, one tuple a trial with a run for each seed.

    ``num_trials``: what the protocol has, of which fewer may have been asked for. ``pretrained``: they start
    from ``table_folders.pretraining``. ``lack``: why there are none at all, where the folder could not be
    read. ``differences``: in what the folder is not the official one.
    """

    specification: str
    profile: str
    num_trials: int = 0
    runs: Mapping[str, tuple[tuple[Run | Missing, ...], ...]] = field(default_factory=dict)
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
        if row in self.runs and len(self.runs[row]) < self.num_trials:
            apart.append(f"{len(self.runs[row])} of {self.num_trials} partitions")
        return "this suite: " + ", ".join(apart)

    def missing(self) -> list[str]:
        """What is not there, each with its reason."""
        if self.lack:
            return [f"{self.specification}: {self.lack}"]
        return [
            f"{label}, seed {seed}: {run.reason}"
            for label, seed, run in self._each()
            if isinstance(run, Missing)
        ]

    def records(self) -> list[dict]:
        """For a result: what is there and what is missing; a page with something missing is made again."""
        if self.lack:
            return [{"experiment": self.specification, "seed": 0, "missing": self.lack}]
        return [
            record(label, seed, run)
            if isinstance(run, Run)
            else {"experiment": label, "seed": seed, "missing": run.reason}
            for label, seed, run in self._each()
        ]

    def _each(self) -> Iterator[tuple[str, int, Run | Missing]]:
        for name, trials in self.runs.items():
            for trial, seeds in enumerate(trials):
                for seed, run in enumerate(seeds):
                    yield f"{name}, {self.specification}, trial {trial}", seed, run


def chains(
    specification: str,
    folders: Mapping[str, str | Path],
    profile: str,
    *,
    names: Sequence[str] = OWN,
    trials: int = 0,
    seeds: int = 1,
) -> dict[str, tuple[tuple[tuple[experiments.Link, ...], ...], ...]]:
    """Of each row, trial and seed: its chain of trainings on a benchmark whose folder is given.

    trials: how many of the benchmark's; 0 for all. Raises InputError like ``load``.
    """
    benchmarks = trials_of(specification, folders, trials)
    start = before(specification, folders)
    return {
        row: tuple(
            tuple(
                experiments.chain(row, profile, benchmark, before=start, seed=seed) for seed in range(seeds)
            )
            for benchmark in benchmarks
        )
        for row in names
    }


def obtain(
    specification: str,
    folders: Mapping[str, str | Path],
    profile: str,
    *,
    trials: int = 0,
    seeds: int = 1,
    runs: str | Path | None = None,
    execution: Execution | None = None,
    may_train: bool = True,
    report: Callable[[str], None] = print,
) -> OwnRuns | None:
    """This suite's runs on a benchmark; None where its folder is not given.

    A run that is not there is trained, if ``may_train``; one that fails is marked as ``Missing``.
    """
    if folder_of(specification, folders) is None:
        return None
    try:
        lacking = differences_of(specification, folders)
        wanted = chains(specification, folders, profile, trials=trials, seeds=seeds)
    except FAILURES as error:
        return OwnRuns(specification, profile, lack=in_a_line(error))

    def one(links: Sequence[experiments.Link]) -> Run | Missing:
        try:
            return experiments.obtain_chain(
                links, runs=runs, execution=execution, may_train=may_train, report=report
            )
        except FAILURES as error:
            return Missing(in_a_line(error))

    found = {
        row: tuple(tuple(one(links) for links in of_seeds) for of_seeds in of_trials)
        for row, of_trials in wanted.items()
    }
    first = wanted[OWN[0]][0][0]
    count = first[-1].benchmark.num_trials
    return OwnRuns(specification, profile, count, found, len(first) > 1, differences=tuple(lacking))


def own_rows(table: Table, own: OwnRuns) -> list[dict[str, str]]:
    """This suite's rows of a table: each measure's mean ± half its 95 % interval, in per cent.

    A trial's value is the mean over its seeds. The interval is over the trials where a benchmark has several
    (they share identities, which makes it somewhat too narrow), else over seeds.
    """
    rows = []
    for name, of_trials in own.runs.items():
        row = {"method": own.title(name)}
        for measure in table.columns:
            trials = [[_value(run, table, measure) for run in seeds] for seeds in of_trials]
            if len(trials) == 1:
                row[measure] = str(Spread.of(trials[0]))
                continue
            row[measure] = str(Spread.of([_mean(seeds) for seeds in trials])).replace("seeds", "trials")
        rows.append(row)
    if own.lack:
        rows = [{"method": own.title(name), **dict.fromkeys(table.columns, MISSING)} for name in OWN]
    return rows


def rows(table: Table, own: OwnRuns | None) -> list[dict[str, str]]:
    """The printed rows, and this suite's below them where the benchmark's folder is given."""
    return table.printed() + ([] if own is None else own_rows(table, own))


def _value(run: Run | Missing, table: Table, measure: str) -> float | None:
    if isinstance(run, Missing):
        return None
    scores = branch_scores(run)
    if table.protocol is not None:
        return 100 * scores["protocols"][table.protocol]["cmc"][measure.removeprefix("R")]
    return spreads({"": [scores]}, [measure])[""][measure].mean


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(there) if there else None


def rank1_rows(table: Table, own: OwnRuns | None) -> dict[str, tuple[float, str]]:
    """Rank-1 in per cent of each row of a table, and whose it is: see ``figures.scores.printed_rank1``.

    The paper is the one that the table stands in; rows without a number are left out.
    """
    found = {row["method"]: (row["R1"], "other") for row in table.printed()}
    for name in found.keys() & {"JLML", "Pyramid"}:
        found[name] = (found[name][0], "paper")
    if own is not None:
        aside = "" if own.profile == "paper" and not own.differences else " (not comparable)"
        rank1 = {row["method"]: row["R1"] for row in own_rows(table, own)}
        found |= {own.title(name): (rank1[own.title(name)], name + aside) for name in own.runs}
    return {
        name: (float(text.split(" ")[0]), whose)
        for name, (text, whose) in found.items()
        if text and text not in (MISSING, "–")
    }
