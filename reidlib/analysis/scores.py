"""Scores of gathered runs: one tidy table of numbers, what is read off it, and how its cells are written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from reidlib.analysis.statistics import Interval, half_width, paired
from reidlib.errors import InputError, check_choice
from reidlib.experiments.rows import Perturbation
from reidlib.experiments.setup import Runs
from reidlib.training.runs import Run

# What a run's scores hold for one branch (see evaluate.evaluate_run), with "query_person_ids" beside it where
# they are known. None: the run is missing.
BranchScores = Mapping[str, Mapping]
MISSING = "missing"


class Cell(NamedTuple):
    """A row of scores: a training, a branch of its feature, and the condition if it is not the usual one."""

    experiment: str  # a name among the gathered runs
    branch: str = "full"
    condition: Perturbation | None = None


class Spread(NamedTuple):
    """Mean over the seeds, and half its 95 % interval where there are two or more; in per cent or points."""

    mean: float
    half_width: float | None = None
    seeds: int = 1
    wanted: int = 1  # seeds that were asked for
    over: str = "seeds"  # or trials: what the mean is over

    @classmethod
    def of(cls, values: Sequence[float], wanted: int | None = None, over: str = "seeds") -> Spread:
        """The spread of one value a seed, of which there are fewer than ``wanted`` where some are missing."""
        wanted = len(values) if wanted is None else wanted
        mean = statistics.fmean(values) if values else math.nan
        return cls(mean, half_width(values), len(values), wanted, over)

    def __str__(self) -> str:
        if not self.seeds:
            return MISSING
        if math.isnan(self.mean):
            return "–"
        text = f"{self.mean:.1f}" if self.half_width is None else f"{self.mean:.1f} ± {self.half_width:.1f}"
        return text if self.seeds == self.wanted else f"{text} ({self.seeds} of {self.wanted} {self.over})"


# Where a measure stands in a branch's scores.
_PLACES: dict[str, tuple[str, ...]] = {
    **{f"R{rank}": ("step", "cmc", str(rank)) for rank in (1, 5, 10, 20)},
    "mAP (step)": ("step", "mean_average_precision"),
    "mAP (trapezoid)": ("trapezoid", "mean_average_precision"),
    "mINP": ("step", "mean_inp"),
}
SINGLE_QUERY = tuple(_PLACES)
_PLACES |= {  # multi-query, its boxes pooled by their mean or maximum
    f"MQ{suffix} {name}": ("multi_query", pooling, *_PLACES[name])
    for suffix, pooling in (("", "mean"), (" (max)", "max"))
    for name in ("R1", "mAP (step)", "mAP (trapezoid)")
}
MEASURES = tuple(_PLACES)


def _place(measure: str) -> tuple[str, ...]:
    check_choice(f"a measure is one of {', '.join(MEASURES)}", measure, _PLACES)
    return _PLACES[measure]


def _per_cent(scores: BranchScores, place: Sequence[str]) -> float:
    """A branch's score; not a number where it has none."""
    if place[0] == "multi_query" and place[0] not in scores:
        return math.nan
    share = reduce(getitem, place, scores)
    return math.nan if share is None else 100 * share


def _of_queries(scores: BranchScores, measure: str) -> np.ndarray:
    """What a branch's score is the mean of: a share of each query, not a number where it has no match."""
    kind, name, *rank = _place(measure)
    if name == "mean_average_precision":
        return np.array(scores[kind]["average_precision"], dtype=float)
    if name != "cmc":  # only the means are kept
        raise InputError("a paired difference needs a value for each query", measure, "choose R1 or mAP")
    first_q = np.array(scores[kind]["first_match_rank"])
    return np.where(first_q == 0, np.nan, first_q <= int(rank[0]))


class ExperimentScores:
    """The scores of gathered runs, read row by row, each file once.

    Tables have a line for each of some cells, by its label, and keep numbers (``Spread``, ``Interval``, or
    None where a run is missing) up to ``style_table`` and ``records``. protocol: a title among the protocols
    of the runs' benchmark, whose ranks stand for Market-1501's. Raises InputError for an unknown measure, and
    for runs without seeds or with different numbers of them.
    """

    def __init__(self, runs: Runs, protocol: str = ""):
        self.runs, self.protocol = runs, protocol
        self._scores: dict[Cell, list[BranchScores | None]] = {}
        counts = [len(of_seeds) for of_seeds in runs.runs.values()]
        if 0 in counts or len(set(counts)) > 1:
            raise InputError(
                "rows are compared over the same seeds, one at least",
                f"{', '.join(map(str, counts))} seeds",
                "train them first, and give Missing for a missing one",
            )

    def of(self, cell: Cell) -> list[BranchScores | None]:
        """A row's scores, one branch's for each seed, None where they are missing."""
        if cell not in self._scores:
            self._scores[cell] = [self._branch(run, cell) for run in self.runs.runs[cell.experiment]]
        return self._scores[cell]

    def tidy(self, cells: Mapping[str, Cell], measures: Sequence[str] = SINGLE_QUERY) -> pd.DataFrame:
        """A line for each row, seed that is there and measure; ``value`` is in per cent.

        measures: some of ``MEASURES``. A value is not a number where a row has no such score.
        """
        places = {name: _place(name) for name in measures}
        lines = [
            (row, *cell, seed, name, _per_cent(scores, place))
            for row, cell in cells.items()
            for seed, scores in enumerate(self.of(cell))
            if scores is not None
            for name, place in places.items()
        ]
        return pd.DataFrame(lines, columns=["row", *Cell._fields, "seed", "measure", "value"])

    def spreads(self, cells: Mapping[str, Cell], measures: Sequence[str] = SINGLE_QUERY) -> pd.DataFrame:
        """A line for each row, a column for each measure: its ``Spread`` over the seeds."""
        values = self.tidy(cells, measures).groupby(["row", "measure"])["value"].agg(list).to_dict()
        return pd.DataFrame(
            {
                name: [Spread.of(values.get((row, name), []), self.runs.seeds) for row in cells]
                for name in measures
            },
            index=list(cells),
        )

    def difference(self, plus: Sequence[Cell], minus: Sequence[Cell], measure: str) -> Interval | None:
        """What the rows ``plus`` together have more than the rows ``minus``, seed by seed and query by query.

        One row each for an ordinary difference, two each for a difference of differences. measure: one with a
        value for each query (rank-k or mAP, single query). None where no seed is there in all rows. See
        ``statistics.paired``. Raises InputError for rows with different numbers of queries.
        """
        signs = [1] * len(plus) + [-1] * len(minus)
        differences, persons_q = [], None
        for scores in zip(*(self.of(cell) for cell in (*plus, *minus)), strict=True):
            if any(one is None for one in scores):
                continue
            values = [_of_queries(one, measure) for one in scores]
            if len({len(value) for value in values}) > 1:
                counts = ", ".join(str(len(value)) for value in values)
                raise InputError(
                    "rows are compared over the same queries", f"{counts} queries", "evaluate again"
                )
            differences.append(100 * sum(sign * value for sign, value in zip(signs, values, strict=True)))
            known = (one.get("query_person_ids") for one in scores)
            persons_q = persons_q or next((ids for ids in known if ids), None)
        if not differences:
            return None
        return paired(np.stack(differences), persons_q)._replace(wanted=self.runs.seeds)

    def differences(self, cells: Mapping[str, Cell], baseline: str, measures: Sequence[str]) -> pd.DataFrame:
        """A line for each row but the baseline, a column for each measure: row − baseline (``difference``).

        Raises InputError for a baseline that is no row.
        """
        check_choice("the baseline is one of the rows", baseline, cells, f"use one of {', '.join(cells)}")
        rows = [row for row in cells if row != baseline]
        found = {
            name: [self.difference([cells[row]], [cells[baseline]], name) for row in rows]
            for name in measures
        }
        return pd.DataFrame(found, index=rows, dtype=object)

    def table(
        self,
        cells: Mapping[str, Cell],
        measures: Sequence[str] = SINGLE_QUERY,
        *,
        heading: str = "feature",
        baseline: str | None = None,
        compared: Sequence[str] = (),
    ) -> pd.DataFrame:
        """``spreads`` with the rows' labels under ``heading``.

        A multi-query column is left out where no row has its scores. baseline: the row to which the measures
        ``compared`` are given as differences in columns of their own (see ``differences``).
        """
        spreads = self.spreads(cells, measures)
        empty = [
            name
            for name in measures
            if name.startswith("MQ") and all(math.isnan(spread.mean) for spread in spreads[name])
        ]
        table = spreads.drop(columns=empty).rename_axis(heading).reset_index()
        if baseline is None:
            return table
        apart = self.differences(cells, baseline, compared).rename(columns="Δ {}".format)
        apart.loc[baseline] = "baseline"
        return table.join(apart, on=heading)

    def seeds_in_words(self) -> str:
        """How many seeds there are of the runs: "one seed", "3 seeds", "1 to 3 seeds" or "no runs"."""
        fewest, most = min(self.runs.counts), max(self.runs.counts)
        if most == 0:
            return "no runs"
        if fewest != most:
            return f"{fewest} to {most} seeds"
        return "one seed" if most == 1 else f"{most} seeds"

    def basis(self) -> str:
        """On what the intervals of a page stand, in words."""
        words, alone = self.seeds_in_words(), "over queries alone, and say nothing about other trainings"
        most = max(self.runs.counts)
        if most == 0:
            return words
        if most == 1:
            return f"{words}: the intervals are {alone} of the same rows"
        if min(self.runs.counts) < most:
            both = "an interval is over the seeds that both rows have and over queries"
            return f"{words}: {both}; from one, {alone}"
        few = "; two seeds tell almost nothing, three or more are wanted" if most == 2 else ""
        return f"{words}: the intervals are over seeds and queries{few}"

    def _branch(self, run: object, cell: Cell) -> BranchScores | None:
        if not isinstance(run, Run):
            return None
        if cell.condition is None:
            scores = run.scores
        else:
            from reidlib.experiments.perturbations import stored_scores

            scores = stored_scores(run, cell.condition)
        if scores is None or cell.branch not in scores["branches"]:
            return None
        persons = scores.get("query_person_ids") or self.runs.query_person_ids
        branch = scores["branches"][cell.branch]
        if self.protocol:
            branch = branch | {"step": branch["protocols"][self.protocol]}
        return branch | {"query_person_ids": persons}


def style_table(table: pd.DataFrame) -> Styler:
    """A table as a notebook shows it."""
    return table.style.format(_cell_text).hide(axis="index")


def records(table: pd.DataFrame) -> list[dict[str, str]]:
    """The same lines as a result keeps them."""
    return table.map(_cell_text).to_dict("records")


def bullet_list(sentences: Iterable[str]) -> str:
    """Return sentences as a list in Markdown."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _cell_text(cell: object) -> str:
    return MISSING if cell is None else str(cell)


def batch_table(groups: Mapping[str, Sequence[object]], *, heading: str = "row") -> pd.DataFrame:
    """How often trainings had identity-balanced batches and the triplet loss in use, in per cent of steps.

    groups: of each row, its runs; whatever is no ``Run`` stands for a missing one.
    """
    lines = []
    for row, wanted in groups.items():
        runs = [run for run in wanted if isinstance(run, Run)]
        traces = [trace(run) for run in runs]
        shares = {
            "balanced batches": [100 * float(np.mean(steps["balanced_batches"])) for steps in traces],
            "triplet loss in use": [100 * float(np.mean(triplet_in_use(steps))) for steps in traces],
        }
        steps = f"{runs[0].information['steps']:,}" if runs else None
        lines.append({heading: row, "steps": steps} | {name: Spread.of(of) for name, of in shares.items()})
    return pd.DataFrame(lines, dtype=object)


def trace(run: Run) -> dict[str, np.ndarray]:
    """What a Pyramid's training measured over its steps, with ``step`` (from 1): see ``Run.steps``."""
    return {"step": np.arange(1, len(run.steps["identity"]) + 1), **run.steps}


def triplet_in_use(steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """1 for each step of a ``trace`` whose triplet loss was measured and had a weight above 0, else 0."""
    if "triplet" not in steps:
        return np.zeros(len(steps["step"]))
    return (np.nan_to_num(steps["weight_triplet"]) > 0).astype(float)
