"""Scores of runs as rows of a table: mean and spread over seeds, and differences to a baseline row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reidlib.errors import InputError
from reidlib.runs import Run

# What a run's scores hold for one branch: "step" and "trapezoid", each with "cmc", "mean_average_precision" …
BranchScores = Mapping[str, Mapping]


class Spread(NamedTuple):
    """Mean over the seeds, and standard deviation where there are two or more; in per cent or points."""

    mean: float
    deviation: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value a seed."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def __str__(self) -> str:
        return self._text(f"{self.mean:.1f}")

    @property
    def signed(self) -> str:
        """The same with its sign, for a difference."""
        rounded = round(self.mean, 1) + 0.0  # no −0.0
        return self._text("0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", "−"))

    def _text(self, mean: str) -> str:
        if math.isnan(self.mean):
            return "–"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.1f}"

    def evidence(self, seeds: int) -> str:
        """How far this difference, a mean over ``seeds``, can be told from chance, in words."""
        if self.deviation is None:
            return "from one seed, so chance is not excluded"
        if seeds == 2:
            return "from two seeds, too few to tell it from chance"
        beyond = abs(self.mean) > 2 * self.deviation / math.sqrt(seeds)
        return f"{'more' if beyond else 'not more'} than twice its standard error over {seeds} seeds"


# How a measure is read off a branch's scores. A share there, per cent in a table.
_MEASURES = {
    "R1": lambda scores: scores["step"]["cmc"]["1"],
    "R5": lambda scores: scores["step"]["cmc"]["5"],
    "R10": lambda scores: scores["step"]["cmc"]["10"],
    "R20": lambda scores: scores["step"]["cmc"]["20"],
    "mAP (step)": lambda scores: scores["step"]["mean_average_precision"],
    "mAP (trapezoid)": lambda scores: scores["trapezoid"]["mean_average_precision"],
    "mINP": lambda scores: scores["step"]["mean_inp"],
}
MEASURES = tuple(_MEASURES)


def spreads(
    groups: Mapping[str, Sequence[BranchScores]], measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, Spread]]:
    """Row -> measure -> spread over the seeds, in per cent.

    groups: of each row, one branch's scores for each seed (``run.scores["branches"]["full"]``).
    measures: some of ``MEASURES``. Raises InputError for an unknown one and for a row without scores.
    """
    _check(groups, measures)
    return {
        row: {name: Spread.of(_values(scores, name)) for name in measures} for row, scores in groups.items()
    }


def differences(
    groups: Mapping[str, Sequence[BranchScores]], baseline: str, measures: Sequence[str] = MEASURES
) -> dict[str, dict[str, Spread]]:
    """Row -> measure -> spread of (row − baseline) over the seeds, in points; the baseline is left out.

    Rows are paired seed by seed, so that what a seed does to both falls out of the difference.
    Raises InputError for a baseline that is no row, or rows with different numbers of seeds.
    """
    _check(groups, measures)
    if baseline not in groups:
        raise InputError("the baseline is one of the rows", repr(baseline), f"use one of {', '.join(groups)}")
    counts = {row: len(scores) for row, scores in groups.items()}
    if len(set(counts.values())) > 1:
        raise InputError("rows are compared over the same seeds", counts, "train the missing ones")
    found = {}
    for row, scores in groups.items():
        if row != baseline:
            pairs = {
                name: zip(_values(scores, name), _values(groups[baseline], name), strict=True)
                for name in measures
            }
            found[row] = {name: Spread.of([a - b for a, b in both]) for name, both in pairs.items()}
    return found


def score_rows(
    groups: Mapping[str, Sequence[BranchScores]],
    *,
    heading: str = "feature",
    measures: Sequence[str] = MEASURES,
    baseline: str | None = None,
    compared: Sequence[str] = ("R1", "mAP (step)"),
) -> list[dict[str, str]]:
    """Rows of a table, formatted: each measure's mean ± deviation in per cent.

    heading: the first column's name. baseline: the row to which the measures ``compared`` are given as
    differences in points, in columns of their own (see ``differences``).
    """
    table = [
        {heading: row, **{name: str(spread) for name, spread in cells.items()}}
        for row, cells in spreads(groups, measures).items()
    ]
    if baseline is not None:
        apart = differences(groups, baseline, compared)
        for row in table:
            cells = apart.get(row[heading])
            row |= {f"Δ {name}": cells[name].signed if cells else "baseline" for name in compared}
    return table


def batch_rows(groups: Mapping[str, Sequence[Run]], *, heading: str = "row") -> list[dict[str, str]]:
    """How often trainings had identity-balanced batches and the triplet loss in use, in per cent of steps."""
    names = ("balanced batches", "triplet loss in use")
    table = []
    for row, runs in groups.items():
        traces = [trace(run) for run in runs]
        values = [
            [100 * float(np.mean(found)) for found in map(measure, traces)]
            for measure in (lambda steps: steps["balanced_batches"], triplet_in_use)
        ]
        cells = {name: str(Spread.of(found)) for name, found in zip(names, values, strict=True)}
        table.append({heading: row, "steps": f"{runs[0].information['steps']:,}", **cells})
    return table


def trace(run: Run) -> dict[str, np.ndarray]:
    """What a Pyramid's training measured over its steps, with ``step`` (from 1): see ``Run.steps``."""
    return {"step": np.arange(1, len(run.steps["identity"]) + 1), **run.steps}


def triplet_in_use(steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """1 for each step of a ``trace`` whose triplet loss was measured and had a weight above 0, else 0."""
    if "triplet" not in steps:
        return np.zeros(len(steps["step"]))
    return (np.nan_to_num(steps["weight_triplet"]) > 0).astype(float)


def _values(scores: Sequence[BranchScores], measure: str) -> list[float]:
    shares = [_MEASURES[measure](one) for one in scores]
    return [math.nan if share is None else 100 * share for share in shares]


def _check(groups: Mapping[str, Sequence[BranchScores]], measures: Sequence[str]) -> None:
    for name in measures:
        if name not in _MEASURES:
            raise InputError(f"a measure is one of {', '.join(MEASURES)}", repr(name), "name one of them")
    for row, scores in groups.items():
        if not scores:
            raise InputError("every row has the scores of one seed at least", repr(row), "train it first")
