"""Scores of gathered runs as tables: means and intervals over seeds, paired differences, and their text."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from reidlib.analysis.statistics import Interval, Pairs, half_width, keep_together, kept_shares
from reidlib.errors import InputError, check_choice
from reidlib.experiments.evidence import BY_PERSON, sums_by_person
from reidlib.experiments.rows import Perturbation
from reidlib.experiments.setup import Runs
from reidlib.training.runs import Run

# The scores of one branch of a run (see evaluate.evaluate_run), with "query_person_ids" added if known.
BranchScores = Mapping[str, Any]
MISSING = "missing"


class Cell(NamedTuple):
    """Address of one row of scores: an experiment, a branch of its feature, a perturbation, a metric.

    Attributes:
        experiment: Name of an experiment among the gathered runs.
        branch: Part of the feature that is compared, such as "full", "global" or "local".
        perturbation: Perturbation of the test images; None for the unperturbed benchmark.
        metric: Metric of the scores that are kept beside a run's own, "L2" or a name of ``LEARNT_METRICS``;
            empty for the run's own.
    """

    experiment: str
    branch: str = "full"
    perturbation: Perturbation | None = None
    metric: str = ""


class Spread(NamedTuple):
    """A mean with half its 95 % interval, in per cent or points.

    Attributes:
        mean: Mean of the values; NaN if there is none.
        half_width: Half the width of the mean's 95 % interval; None for fewer than two values.
        num_values: Number of values.
        requested: Number of values that were requested; more than ``num_values`` if runs are missing.
        over: What the mean is taken over: "seeds" or "trials" (partitions of a benchmark).
    """

    mean: float
    half_width: float | None = None
    num_values: int = 1
    requested: int = 1
    over: str = "seeds"

    @classmethod
    def of(cls, values: Sequence[float], requested: int | None = None, over: str = "seeds") -> Spread:
        """Compute the spread of one value per seed; ``requested`` is None if no value is missing."""
        requested = len(values) if requested is None else requested
        mean = statistics.fmean(values) if values else math.nan
        return cls(mean, half_width(values), len(values), requested, over)

    def __str__(self) -> str:
        if not self.num_values:
            return MISSING
        if math.isnan(self.mean):
            return "–"
        text = f"{self.mean:.1f}" if self.half_width is None else f"{self.mean:.1f} ± {self.half_width:.1f}"
        missing = self.num_values != self.requested
        return f"{text} ({self.num_values} of {self.requested} {self.over})" if missing else text


# Path of keys to each measure within the scores of a branch.
_PATHS: dict[str, tuple[str, ...]] = {
    **{f"R{rank}": ("step", "cmc", str(rank)) for rank in (1, 5, 10, 20)},
    "mAP (step)": ("step", "mean_average_precision"),
    "mAP (trapezoid)": ("trapezoid", "mean_average_precision"),
    "mINP": ("step", "mean_inp"),
}
SINGLE_QUERY = tuple(_PATHS)
_PATHS |= {  # multi-query: the features of a query's boxes are pooled by their mean or maximum
    f"MQ{suffix} {name}": ("multi_query", pooling, *_PATHS[name])
    for suffix, pooling in (("", "mean"), (" (max)", "max"))
    for name in ("R1", "mAP (step)", "mAP (trapezoid)")
}
MEASURES = tuple(_PATHS)


def _key_path(measure: str) -> tuple[str, ...]:
    check_choice(f"a measure is one of {', '.join(MEASURES)}", measure, _PATHS)
    return _PATHS[measure]


def _per_cent(scores: BranchScores, path: Sequence[str]) -> float:
    """Return a branch's score in per cent; NaN if it has no such score."""
    if path[0] == "multi_query" and path[0] not in scores:
        return math.nan
    share: Any = reduce(getitem, path, scores)
    return math.nan if share is None else 100 * share


class ExperimentScores:
    """Scores of gathered runs, as tables with one line per row of an experiment.

    Each file is read once. The tables hold numbers (``Spread``, ``Interval``, or None for a missing run);
    ``style_table`` and ``table_records`` turn them into text.

    Args:
        runs: The runs: for each experiment one run or ``MissingRun`` per seed.
        protocol: Title of one of the benchmark's own protocols, whose CMC ranks replace those of
            Market-1501's protocol. Empty for Market-1501's protocol.

    Raises:
        InputError: If an experiment has no seeds, or if experiments have different numbers of seeds.
    """

    def __init__(self, runs: Runs, protocol: str = ""):
        self.runs, self.protocol = runs, protocol
        self._scores: dict[Cell, list[BranchScores | None]] = {}
        counts = [len(seed_runs) for seed_runs in runs.runs.values()]
        if 0 in counts or len(set(counts)) > 1:
            raise InputError(
                "rows are compared over the same seeds, at least one",
                f"{', '.join(map(str, counts))} seeds",
                "gather the same seeds for each row, with MissingRun in place of a run that is not trained",
            )

    def branch_scores(self, cell: Cell) -> list[BranchScores | None]:
        """Return the scores of one row, one entry per seed.

        Args:
            cell: The row's experiment, branch and perturbation.

        Returns:
            A branch's scores for each seed, as stored in ``scores.json``; None for a seed without them.
        """
        if cell not in self._scores:
            self._scores[cell] = [self._branch(run, cell) for run in self.runs.runs[cell.experiment]]
        return self._scores[cell]

    def tidy(self, cells: Mapping[Any, Cell], measures: Sequence[str] = SINGLE_QUERY) -> pd.DataFrame:
        """Return the scores in long form: one line per row, available seed and measure.

        Args:
            cells: Label -> row.
            measures: Names from ``MEASURES``.

        Returns:
            A table with the columns row, experiment, branch, perturbation, metric, seed, measure and value.
            ``value`` is in per cent; NaN if a row has no such score.

        Raises:
            InputError: If a measure is not in ``MEASURES``.
        """
        paths = {name: _key_path(name) for name in measures}
        lines = [
            (label, *cell, seed, name, _per_cent(scores, path))
            for label, cell in cells.items()
            for seed, scores in enumerate(self.branch_scores(cell))
            if scores is not None
            for name, path in paths.items()
        ]
        return pd.DataFrame(lines, columns=["row", *Cell._fields, "seed", "measure", "value"])

    def spreads(self, cells: Mapping[Any, Cell], measures: Sequence[str] = SINGLE_QUERY) -> pd.DataFrame:
        """Return means and intervals over the seeds.

        Args:
            cells: Label -> row.
            measures: Names from ``MEASURES``.

        Returns:
            A table with a line for each label and a column for each measure; each entry is a ``Spread`` in
            per cent.

        Raises:
            InputError: If a measure is not in ``MEASURES``.
        """
        values = self.tidy(cells, measures).groupby(["row", "measure"])["value"].agg(list).to_dict()
        return pd.DataFrame(
            {
                name: [Spread.of(values.get((label, name), []), self.runs.requested) for label in cells]
                for name in measures
            },
            index=list(cells),
        )

    def pairs(self, plus: Sequence[Cell], minus: Sequence[Cell], measure: str) -> Pairs | None:
        """Return the differences of rows ``plus`` minus rows ``minus``, paired by seed and query.

        One row on each side gives an ordinary difference, two rows each a difference of differences.

        Args:
            plus: Rows that are added.
            minus: Rows that are subtracted.
            measure: A measure with a value for each query: rank-k or mAP, single query.

        Returns:
            The differences of the seeds that are available in all rows, in points; None without such a seed.

        Raises:
            InputError: If the measure has no value for each query, or if rows have different numbers of
                queries.
        """
        aligned = self._sums((*plus, *minus), measure)
        if aligned is None:
            return None
        sums_rsp, queries_p, seeds = aligned
        total_sp = sums_rsp[: len(plus)].sum(0) - sums_rsp[len(plus) :].sum(0)
        return Pairs(100 * total_sp, queries_p, seeds)

    def kept_pairs(self, plus: Sequence[Cell], minus: Sequence[Cell], measure: str) -> Pairs | None:
        """Return differences of the shares of its usual score that each of two networks keeps.

        See ``statistics.kept_shares``.

        Args:
            plus: Rows of the first network: its score when perturbed, its usual score.
            minus: The same of the second network.
            measure: As in ``pairs``.

        Returns:
            As ``pairs`` does, in points of a share: 100 is all of the usual score.

        Raises:
            InputError: As ``pairs`` does, and if a usual score is zero.
        """
        aligned = self._sums((*plus, *minus), measure)
        if aligned is None:
            return None
        return kept_shares(*aligned)

    def _sums(
        self, cells: Sequence[Cell], measure: str
    ) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]] | None:
        """Return sums by row, seed and person, the persons' queries, and the seeds that all rows have."""
        if measure not in BY_PERSON:
            _key_path(measure)
            raise InputError("a paired difference needs a value for each query", measure, "choose R1 or mAP")
        sums: dict[int, list[np.ndarray]] = {}
        first: np.ndarray | None = None  # persons and their numbers of queries
        numbers = self.runs.seed_numbers or range(self.runs.seeds)
        for seed, scores in zip(numbers, zip(*map(self.branch_scores, cells), strict=True), strict=True):
            available = [branch for branch in scores if branch is not None]
            if len(available) < len(scores):
                continue
            sums[seed] = []
            for of_person in map(sums_by_person, available):
                queries = np.stack([of_person["persons"], of_person["queries"]])
                first = queries if first is None else first
                if not np.array_equal(queries, first):
                    counts = f"{first[1].sum()} and {queries[1].sum()} queries with a match"
                    rule = "rows are compared over the same queries"
                    raise InputError(rule, counts, "evaluate the runs again")
                sums[seed].append(of_person[measure])
        if first is None:
            return None
        if not first.size:
            raise InputError("a difference needs a query with a match", "none", "check the scores")
        return np.stack([*sums.values()], axis=1), first[1], tuple(sums)

    def difference(self, plus: Sequence[Cell], minus: Sequence[Cell], measure: str) -> Interval | None:
        """Estimate the mean of ``pairs``.

        Args:
            plus: Rows that are added.
            minus: Rows that are subtracted.
            measure: A measure with a value for each query: rank-k or mAP, single query.

        Returns:
            The mean difference with its interval, in points (see ``statistics.paired``); None if no seed is
            available in all rows.
        """
        pairs = self.pairs(plus, minus, measure)
        return None if pairs is None else pairs.interval()._replace(requested=self.runs.requested)

    def differences(self, cells: Mapping[str, Cell], baseline: str, measures: Sequence[str]) -> pd.DataFrame:
        """Return the difference of each row to a baseline row (see ``difference``).

        Args:
            cells: Label -> row, the baseline among them.
            baseline: Label of the row that is subtracted.
            measures: Measures with a value for each query.

        Returns:
            A table with a line for each label except the baseline and a column for each measure; each entry
            is an ``Interval`` in points, or None if no seed is available in both rows.

        Raises:
            InputError: If the baseline is not a label of ``cells``.
        """
        check_choice("the baseline is one of the rows", baseline, cells, f"use one of {', '.join(cells)}")
        labels = [label for label in cells if label != baseline]
        intervals = {
            name: [self.difference([cells[label]], [cells[baseline]], name) for label in labels]
            for name in measures
        }
        return pd.DataFrame(intervals, index=labels, dtype=object)

    def table(
        self,
        cells: Mapping[str, Cell],
        measures: Sequence[str] = SINGLE_QUERY,
        *,
        heading: str = "feature",
        baseline: str | None = None,
        compared: Sequence[str] = (),
    ) -> pd.DataFrame:
        """Return a score table to show: ``spreads``, with differences to a baseline if one is given.

        Args:
            cells: Label -> row.
            measures: Names from ``MEASURES``. A multi-query column without any score is left out.
            heading: Name of the column of labels.
            baseline: Label of the row for the differences; None for a table without differences.
            compared: Measures whose differences to the baseline are added as columns "Δ …".

        Returns:
            A table with the column of labels first, then one column per measure and per difference.

        Raises:
            InputError: If a measure is unknown, or if the baseline is not a label of ``cells``.
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
        intervals = self.differences(cells, baseline, compared).rename(columns="Δ {}".format)
        intervals.loc[baseline] = "baseline"
        return table.join(intervals, on=heading)

    def seed_count(self, experiments: Iterable[str] | None = None) -> str:
        """Return the number of seeds as text: "one seed", "3 seeds", "1 to 3 seeds" or "no runs".

        Args:
            experiments: Of these alone, as far as there are runs of them; default: of all.
        """
        counts = dict(zip(self.runs.runs, self.runs.counts, strict=True))
        asked = [counts[name] for name in experiments or counts if name in counts] or self.runs.counts
        min_seeds, max_seeds = min(asked), max(asked)
        if max_seeds == 0:
            return "no runs"
        if min_seeds != max_seeds:
            return f"{min_seeds} to {max_seeds} seeds"
        return "one seed" if max_seeds == 1 else f"{max_seeds} seeds"

    def interval_basis(self) -> str:
        """Say in a sentence how many seeds there are and what the intervals of a page cover."""
        seeds = self.seed_count()
        queries_only = "cover queries only, and say nothing about other trainings of the same rows"
        min_seeds, max_seeds = min(self.runs.counts), max(self.runs.counts)
        if max_seeds == 0:
            return seeds
        if max_seeds == 1:
            return f"{seeds}: the intervals {queries_only}"
        if min_seeds < max_seeds:
            return (
                f"{seeds}: the intervals cover queries and the seeds that both rows have; with one such seed "
                f"they {queries_only}"
            )
        few = "; two seeds say very little, use at least three" if max_seeds == 2 else ""
        return f"{seeds}: the intervals cover seeds and queries{few}"

    def _branch(self, run: object, cell: Cell) -> BranchScores | None:
        if not isinstance(run, Run):
            return None
        if cell.metric:
            from reidlib.experiments.metric_study.kept import kept_scores

            scores = kept_scores(run, cell.metric)
        elif cell.perturbation is None:
            scores = run.scores
        else:
            from reidlib.experiments.perturbations import stored_scores

            scores = stored_scores(run, cell.perturbation)
        if scores is None or cell.branch not in scores["branches"]:
            return None
        persons = scores.get("query_person_ids") or self.runs.query_person_ids
        branch = scores["branches"][cell.branch]
        if self.protocol:
            branch = branch | {"step": branch["protocols"][self.protocol]}
        return branch | {"query_person_ids": persons}


def style_table(table: pd.DataFrame | Iterable[Mapping[str, object]]) -> Styler:
    """Style a table for a notebook: without the index, texts on the left, intervals unbroken.

    Args:
        table: A table of ``Spread``, ``Interval``, numbers, text or None (a missing run), or its rows; what a
            row leaves out is blank.

    Returns:
        A pandas ``Styler``, which JupyterLab shows as an HTML table.
    """
    if not isinstance(table, pd.DataFrame):
        table = pd.DataFrame(table).fillna("")
    styler = table.style.hide(axis="index")
    styler.format(lambda cell: keep_together(_cell_text(cell)))
    texts = [name for name, column in table.items() if any(map(_has_words, column))]
    styler.set_properties(subset=texts, **{"text-align": "left"})
    headers: dict[Any, Any] = {
        name: [{"selector": "th", "props": [("text-align", "left")]}] for name in texts
    }
    return styler.set_table_styles(headers, overwrite=False)


def table_records(table: pd.DataFrame) -> list[dict[str, str]]:
    """Convert a table to the records that ``result.json`` keeps.

    Args:
        table: A table of ``Spread``, ``Interval``, text or None (a missing run).

    Returns:
        One dictionary per line, column -> the text that ``style_table`` shows.
    """
    return table.map(_cell_text).to_dict("records")


def bullet_list(sentences: Iterable[str]) -> str:
    """Return sentences as a list in Markdown."""
    return "\n".join(f"- {sentence}" for sentence in sentences)


def _cell_text(cell: object) -> str:
    return MISSING if cell is None else str(cell)


def _has_words(cell: object) -> bool:
    """Return whether a cell is a text, not a number, an interval, or a word in place of one."""
    return (
        isinstance(cell, str) and cell not in (MISSING, "baseline") and bool(re.search(r"[^\W\d]{3}", cell))
    )
