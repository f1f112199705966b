"""Scores of runs as rows of a table: mean and interval over seeds, differences to a baseline row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reidlib.analysis.statistics import Interval, half_width, paired
from reidlib.errors import InputError
from reidlib.training.runs import Run

# What a run's scores hold for one branch (see evaluation.evaluate_run), with "query_person_ids" beside it
# where they are known. None: the run is missing.
BranchScores = Mapping[str, Mapping]
Group = Sequence[BranchScores | None]  # a row's scores, one for each seed


class Spread(NamedTuple):
    """Mean over the seeds, and half its 95 % interval where there are two or more; in per cent or points."""

    mean: float
    half_width: float | None = None
    seeds: int = 1
    wanted: int = 1  # seeds that were asked for

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread:
        """The spread of one value a seed; None where a seed is missing."""
        there = [value for value in values if value is not None]
        if not there:
            return cls(math.nan, None, 0, len(values))
        return cls(statistics.fmean(there), half_width(there), len(there), len(values))

    def __str__(self) -> str:
        if not self.seeds:
            return MISSING
        if math.isnan(self.mean):
            return "–"
        text = f"{self.mean:.1f}" if self.half_width is None else f"{self.mean:.1f} ± {self.half_width:.1f}"
        return text if self.seeds == self.wanted else f"{text} ({self.seeds} of {self.wanted} seeds)"


MISSING = "missing"


class _Measure(NamedTuple):
    """How a measure is read off a branch's scores: its mean, and of each query what it is the mean of."""

    kind: str  # step or trapezoid
    name: str  # in the scores
    rank: int | None = None
    pooling: str | None = None  # of multi-query

    def mean(self, scores: BranchScores) -> float | None:
        if self.pooling is not None:
            if "multi_query" not in scores:
                return None
            scores = scores["multi_query"][self.pooling]
        value = scores[self.kind][self.name]
        return value[str(self.rank)] if self.rank is not None else value

    def of_queries(self, scores: BranchScores) -> np.ndarray | None:
        if self.pooling is not None or self.name == "mean_inp":
            return None  # only the means are kept
        first_q = np.array(scores[self.kind]["first_match_rank"])
        if self.rank is None:
            values = [math.nan if v is None else v for v in scores[self.kind]["average_precision"]]
            return np.array(values)
        return np.where(first_q == 0, np.nan, (first_q <= self.rank).astype(float))


_MEASURES = {
    **{f"R{rank}": _Measure("step", "cmc", rank) for rank in (1, 5, 10, 20)},
    "mAP (step)": _Measure("step", "mean_average_precision"),
    "mAP (trapezoid)": _Measure("trapezoid", "mean_average_precision"),
    "mINP": _Measure("step", "mean_inp"),
    # Multi-query, its boxes pooled by their mean or maximum.
    **{
        f"MQ{suffix} {name}": _Measure(kind, of, rank, pooling)
        for suffix, pooling in (("", "mean"), (" (max)", "max"))
        for name, kind, of, rank in (
            ("R1", "step", "cmc", 1),
            ("mAP (step)", "step", "mean_average_precision", None),
            ("mAP (trapezoid)", "trapezoid", "mean_average_precision", None),
        )
    },
}
MEASURES = tuple(_MEASURES)
SINGLE_QUERY = tuple(name for name in MEASURES if not name.startswith("MQ"))


def branch_scores(run: Run, branch: str = "full") -> BranchScores:
    """A run's scores of one branch, with whom each query shows (where that is known)."""
    scores = run.scores
    return {**scores["branches"][branch], "query_person_ids": scores.get("query_person_ids")}


def spreads(
    groups: Mapping[str, Group], measures: Sequence[str] = SINGLE_QUERY
) -> dict[str, dict[str, Spread]]:
    """Row -> measure -> spread over the seeds, in per cent.

    groups: of each row, one branch's scores for each seed, None where its run is missing. measures: some of
    ``MEASURES``. Raises InputError for an unknown one and for a row without seeds.
    """
    _check(groups, measures)
    return {
        row: {name: Spread.of([_percent(one, name) for one in group]) for name in measures}
        for row, group in groups.items()
    }


def difference(plus: Sequence[Group], minus: Sequence[Group], measure: str) -> Interval | None:
    """What the rows ``plus`` together have more than the rows ``minus``, seed by seed and query by query.

    One row each for an ordinary difference, two each for a difference of differences. measure: one with a
    value for each query (rank-k or mAP, single query). None where no seed is there in all rows. See
    ``intervals.paired``. Raises InputError for rows with different numbers of seeds or queries.
    """
    rows = [*plus, *minus]
    _check({str(place): group for place, group in enumerate(rows)}, (measure,))
    if len({len(group) for group in rows}) > 1:
        counts = ", ".join(str(len(group)) for group in rows)
        raise InputError("rows are compared over the same seeds", f"{counts} seeds", "give None for missing")
    signs = [1] * len(plus) + [-1] * len(minus)
    differences, persons_q = [], None
    for scores in zip(*rows, strict=True):
        if any(one is None for one in scores):
            continue
        values = [_MEASURES[measure].of_queries(one) for one in scores]
        if any(value is None for value in values):
            raise InputError("a paired difference needs a value for each query", measure, "choose R1 or mAP")
        if len({len(value) for value in values}) > 1:
            counts = ", ".join(str(len(value)) for value in values)
            raise InputError("rows are compared over the same queries", f"{counts} queries", "evaluate again")
        differences.append(100 * sum(sign * value for sign, value in zip(signs, values, strict=True)))
        known = (one.get("query_person_ids") for one in scores)
        persons_q = persons_q or next((ids for ids in known if ids), None)
    if not differences:
        return None
    return paired(np.stack(differences), persons_q)._replace(wanted=len(rows[0]))


def differences(
    groups: Mapping[str, Group], baseline: str, measures: Sequence[str]
) -> dict[str, dict[str, Interval | None]]:
    """Row -> measure -> (row − baseline) as ``difference`` gives it; the baseline is left out.

    Raises InputError for a baseline that is no row.
    """
    _check(groups, measures)
    if baseline not in groups:
        raise InputError("the baseline is one of the rows", repr(baseline), f"use one of {', '.join(groups)}")
    return {
        row: {name: difference([group], [groups[baseline]], name) for name in measures}
        for row, group in groups.items()
        if row != baseline
    }


def score_rows(
    groups: Mapping[str, Group],
    *,
    heading: str = "feature",
    measures: Sequence[str] = SINGLE_QUERY,
    baseline: str | None = None,
    compared: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Rows of a table, formatted: each measure's mean ± half its interval over the seeds, in per cent.

    heading: the first column's name. A multi-query column is left out where no row has its scores.
    baseline: the row to which the measures ``compared`` are given as differences in points with their
    intervals, in columns of their own (see ``differences``).
    """
    found = spreads(groups, measures)
    shown = [
        name
        for name in measures
        if not name.startswith("MQ") or any(not math.isnan(cells[name].mean) for cells in found.values())
    ]
    table = [{heading: row, **{name: str(cells[name]) for name in shown}} for row, cells in found.items()]
    if baseline is not None:
        apart = differences(groups, baseline, compared)
        for row in table:
            cells = apart.get(row[heading])
            for name in compared:
                row[f"Δ {name}"] = "baseline" if cells is None else str(cells[name] or MISSING)
    return table


def batch_rows(groups: Mapping[str, Sequence[object]], *, heading: str = "row") -> list[dict[str, str]]:
    """How often trainings had identity-balanced batches and the triplet loss in use, in per cent of steps.

    groups: of each row, its runs; whatever is no ``Run`` stands for a missing one.
    """
    names = ("balanced batches", "triplet loss in use")
    table = []
    for row, wanted in groups.items():
        runs = [run for run in wanted if isinstance(run, Run)]
        if not runs:
            table.append({heading: row, "steps": MISSING, **dict.fromkeys(names, MISSING)})
            continue
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


def _percent(scores: BranchScores | None, measure: str) -> float | None:
    if scores is None:
        return None
    share = _MEASURES[measure].mean(scores)
    return math.nan if share is None else 100 * share


def _check(groups: Mapping[str, Group], measures: Sequence[str]) -> None:
    for name in measures:
        if name not in _MEASURES:
            raise InputError(f"a measure is one of {', '.join(MEASURES)}", repr(name), "name one of them")
    for row, group in groups.items():
        if not len(group):
            raise InputError("every row has one seed at least", repr(row), "train it first")
