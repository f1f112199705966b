"""The runs behind a comparison: found or trained, and marked as missing where that failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from reidlib.data.benchmark import Benchmark
from reidlib.errors import InputError
from reidlib.experiments.obtain import check_experiment, configuration, obtain, run_name, with_seeds
from reidlib.experiments.perturbations import Condition, evaluate_under_all
from reidlib.training.device import Execution
from reidlib.training.runs import Run

# What may go wrong with one training and leave the others as they are. Anything else is an error of the
# program and stops it.
FAILURES = (InputError, FloatingPointError, torch.OutOfMemoryError, OSError)


class Missing(NamedTuple):
    """In the place of a run or its scores: why it is not there."""

    reason: str


class Lack(NamedTuple):
    """What is missing of an experiment, and why."""

    experiment: str
    seed: int
    reason: str

    def __str__(self) -> str:
        return f"{self.experiment}, seed {self.seed}: {self.reason}"


@dataclass(frozen=True)
class Runs:
    """Runs by experiment, one for each seed from 0; missing: what is not there and why."""

    runs: Mapping[str, tuple[Run | Missing, ...]]
    seeds: int
    missing: tuple[Lack, ...] = ()
    profile: str = ""
    query_person_ids: tuple[int, ...] | None = None  # for scores of an older version, which lack them

    @property
    def counts(self) -> list[int]:
        """Of each experiment, how many of its seeds are there."""
        return [sum(isinstance(run, Run) for run in runs) for runs in self.runs.values()]

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
        lines = ["No run is there."]
        if count:
            number = "One run" if count == 1 else f"{count} runs"
            lines = [f"{number}, trained in {self.seconds:.0f} s together on {self.device}."]
        return "\n\n".join([*lines, *(f"- **missing**: {reason}" for reason in self.missing)])

    def records(self) -> list[dict]:
        """What a notebook's result keeps of its runs (see ``record``), and what is missing of them."""
        there = [
            record(name, seed, run)
            for name, runs in self.runs.items()
            for seed, run in enumerate(runs)
            if isinstance(run, Run)
        ]
        lacks = [
            {"experiment": lack.experiment, "seed": lack.seed, "missing": lack.reason}
            for lack in self.missing
        ]
        return there + lacks


def record(experiment: str, seed: int, run: Run) -> dict:
    """What a result keeps of a run: folder, device, commit, seconds."""
    kept = {"experiment": experiment, "seed": seed}
    names = ("device", "seconds", "commit", "processes", "precision")
    kept |= {"run": run.folder.name, "folder": str(run.folder.absolute())}
    return kept | {name: run.information.get(name) for name in names}


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
) -> Runs:
    """The runs of some rows of ``EXPERIMENTS`` with the seeds 0 to ``seeds - 1``.

    A run that is not there is trained, if ``may_train``; one that fails is marked as ``Missing`` and leaves
    the others as they are. under: for some of the rows, the conditions to evaluate them under.
    Raises InputError for unknown names and for less than one seed.
    """
    names = tuple(dict.fromkeys(names))
    for name in names:
        check_experiment(name)
    found: dict[str, tuple[Run | Missing, ...]] = {}
    missing: list[Lack] = []
    for name in names:
        row: list[Run | Missing] = []
        for one in with_seeds(configuration(name, profile, benchmark), seeds):
            try:
                run = obtain(
                    one,
                    benchmark,
                    name=run_name(name, profile, benchmark, one.seed),
                    runs=runs,
                    execution=execution,
                    report=report,
                    may_train=may_train,
                )
                _ = run.information, run.configuration  # damaged files are found here and not in a table
            except FAILURES as error:
                run = Missing(in_a_line(error))
                missing.append(Lack(name, one.seed, run.reason))
            row.append(run)
            if isinstance(run, Run) and (wanted := (under or {}).get(name)):
                try:
                    evaluate_under_all(run, wanted, benchmark, execution=execution)
                except FAILURES as error:  # its other scores are as good as ever
                    missing.append(Lack(name, one.seed, f"changed conditions: {in_a_line(error)}"))
        found[name] = tuple(row)
    persons = tuple(benchmark.query.person_ids.tolist())
    return Runs(found, seeds, tuple(missing), profile, persons)


def in_a_line(error: BaseException) -> str:
    """The first line of what went wrong."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].removeprefix("InputError: ")
