"""The runs behind a comparison: found or trained, and marked as missing where that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

from reidlib import conditions, experiments
from reidlib.conditions import Condition
from reidlib.data.records import Benchmark
from reidlib.errors import InputError
from reidlib.execution import Execution
from reidlib.intervals import Interval
from reidlib.runs import Run
from reidlib.tables import BranchScores, difference

# What may go wrong with one training and leave the others as they are. Anything else is an error of the
# program and stops it.
_FAILURES = (InputError, FloatingPointError, torch.OutOfMemoryError, OSError)


class Missing(NamedTuple):
    """In the place of a run or its scores: why it is not there."""

    reason: str


class Cell(NamedTuple):
    """A row of scores: a training, a branch of its feature, and the condition if it is not the usual one."""

    experiment: str  # a row of experiments.EXPERIMENTS
    branch: str = "full"
    condition: Condition | None = None


@dataclass(frozen=True)
class Evidence:
    """Runs by experiment, one for each seed from 0; missing: what is not there and why, a line each."""

    runs: Mapping[str, tuple[Run | Missing, ...]]
    seeds: int
    missing: tuple[str, ...] = ()
    _scores: dict = field(default_factory=dict, repr=False, compare=False)  # each file is read once

    def group(self, cell: Cell) -> list[BranchScores | None]:
        """A row's scores, one for each seed, None where its run is missing (``tables.Group``)."""
        if cell not in self._scores:
            self._scores[cell] = [self._of(run, cell) for run in self.runs[cell.experiment]]
        return self._scores[cell]

    def groups(self, cells: Mapping[str, Cell]) -> dict[str, list[BranchScores | None]]:
        """Several rows by their labels."""
        return {label: self.group(cell) for label, cell in cells.items()}

    def difference(self, plus: Sequence[Cell], minus: Sequence[Cell], measure: str) -> Interval | None:
        """See ``tables.difference``."""
        return difference([self.group(c) for c in plus], [self.group(c) for c in minus], measure)

    @property
    def present(self) -> list[Run]:
        """All runs that are there."""
        return [run for runs in self.runs.values() for run in runs if isinstance(run, Run)]

    @property
    def device(self) -> str:
        """On what the runs were trained, in words; several where they differ."""
        return " and ".join(dict.fromkeys(run.information["device"] for run in self.present)) or "none"

    @property
    def seconds(self) -> float:
        """How long the trainings took together."""
        return sum(run.information["seconds"] for run in self.present)

    def summary(self) -> str:
        """What is there and what is not, as Markdown."""
        count = len(self.present)
        lines = [f"{count} runs, trained in {self.seconds:.0f} s together on {self.device}."]
        return "\n\n".join([*lines, *(f"- **missing**: {reason}" for reason in self.missing)])

    def records(self) -> list[dict]:
        """What a notebook's result keeps of its runs: name, device, commit, seconds, whether missing."""
        found = []
        for name, runs in self.runs.items():
            for seed, run in enumerate(runs):
                record = {"experiment": name, "seed": seed}
                if isinstance(run, Run):
                    kept = ("device", "seconds", "commit", "processes", "precision")
                    record |= {"run": run.folder.name} | {key: run.information.get(key) for key in kept}
                else:
                    record["missing"] = run.reason
                found.append(record)
        return found

    def _of(self, run: Run | Missing, cell: Cell) -> BranchScores | None:
        if isinstance(run, Missing):
            return None
        scores = run.scores if cell.condition is None else conditions.found(run, cell.condition)
        if scores is None or cell.branch not in scores["branches"]:
            return None
        return {**scores["branches"][cell.branch], "query_person_ids": scores.get("query_person_ids")}


def gather(
    names: Iterable[str],
    profile: str,
    benchmark: Benchmark,
    *,
    seeds: int = 1,
    runs: str | Path | None = None,
    execution: Execution | None = None,
    may_train: bool = True,
    under: Mapping[str, Sequence[Condition]] | None = None,
    report: Callable[[str], None] = print,
) -> Evidence:
    """The runs of some rows of ``experiments.EXPERIMENTS`` with the seeds 0 to ``seeds - 1``.

    A run that is not there is trained, if ``may_train``; one that fails is reported, marked as ``Missing``
    and leaves the others as they are. under: for some of the rows, the conditions to evaluate them under.
    Raises InputError for unknown names and for less than one seed.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        experiments.check_experiment(name)
    found: dict[str, tuple[Run | Missing, ...]] = {}
    missing: list[str] = []
    for name in names:
        row: list[Run | Missing] = []
        for one in experiments.with_seeds(experiments.configuration(name, profile, benchmark), seeds):
            try:
                run = experiments.obtain(
                    one,
                    benchmark,
                    name=experiments.run_name(name, profile, benchmark, one.seed),
                    runs=runs,
                    execution=execution,
                    report=report,
                    may_train=may_train,
                )
            except _FAILURES as error:
                run = Missing(_in_a_line(error))
                missing.append(f"{name}, seed {one.seed}: {run.reason}")
                report(f"missing: {missing[-1]}")
            row.append(run)
            if isinstance(run, Run) and (wanted := (under or {}).get(name)):
                try:
                    conditions.evaluate_under_all(run, wanted, benchmark, execution=execution)
                except _FAILURES as error:  # its other scores are as good as ever
                    missing.append(f"{name}, seed {one.seed}, changed conditions: {_in_a_line(error)}")
                    report(f"missing: {missing[-1]}")
        found[name] = tuple(row)
    return Evidence(found, seeds, tuple(missing))


def _in_a_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0].removeprefix("InputError: ")
