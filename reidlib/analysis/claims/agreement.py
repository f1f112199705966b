"""Two benchmarks side by side: scores of the same rows, and whether their differences agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, spearmanr

from reidlib.analysis import ablations
from reidlib.analysis.scores import Cell, ExperimentScores
from reidlib.analysis.statistics import LEVEL, Interval
from reidlib.errors import count_noun
from reidlib.experiments.evidence import Evidence
from reidlib.training.runs import Run

# All tables of rows against a baseline, each with the paper of its rows and what a label needs to be clear.
_ABLATIONS = {
    ablations.LOSSES: ("JLML", ""),
    ablations.SHARED_FEATURES: ("JLML", ""),
    ablations.FEATURE_SELECTION: ("JLML", "feature selection: "),
    ablations.PART_COUNTS: ("JLML", ""),
    ablations.DYNAMIC_TRAINING: ("Pyramid", "losses: "),
    ablations.PYRAMID_LEVELS: ("Pyramid", ""),
    ablations.PYRAMID_LEVELS_SAME_RATE: ("Pyramid", ""),
}
# Fewer differences than this have no rank correlation worth a number.
_FEWEST = 5
# Differences below this, in points, are small. Larger ones are seldom in doubt, and they set the order.
_SMALL = 5
_MEASURES = ("R1", "mAP (step)")
_PRINTED = ("R1", "R5", "mAP (step)", "mAP (trapezoid)")


class Difference(NamedTuple):
    """A row's difference in mAP to its baseline on two benchmarks, in points.

    Attributes:
        label: The row and its baseline, in words.
        paper: "JLML" or "Pyramid".
        first: The difference on the first benchmark.
        second: The difference on the second benchmark.
    """

    label: str
    paper: str
    first: Interval
    second: Interval


class Agreement(NamedTuple):
    """How far the differences on one benchmark foretell those on another.

    Attributes:
        correlation: Spearman's rank correlation of the differences; None for fewer than five or equal ones.
        low: Lower end of its 95 % interval, over other sets of independent rows; None without a correlation.
        high: Upper end of that interval.
        clear: Number of differences whose intervals exclude zero on both benchmarks.
        same_sign: Number of those with the same sign on both.
        count: Number of differences.
        one_seed: Number of those with one seed on a benchmark, whose interval there covers queries only.
        small: The same of the differences below five points on the first benchmark, if there are larger ones.
    """

    correlation: float | None
    low: float | None
    high: float | None
    clear: int
    same_sign: int
    count: int
    one_seed: int = 0
    small: Agreement | None = None

    def sentence(self, first: str, second: str) -> str:
        """Say in Markdown how far differences on the benchmark ``first`` foretell those on ``second``."""
        if not self.count:
            return f"No difference is measured on both {first} and {second} yet."
        text = f"{count_noun(self.count, 'differences')} to a baseline are measured on {first} and {second}"
        text += f"; {self._signs()}"
        if self.one_seed:
            text += (
                f" ({self.one_seed} have one seed on one of the two, where an interval covers queries only)"
            )
        if self.correlation is None:
            reason = "Too few" if self.count < _FEWEST else "Too many are equal"
            return f"{text}. {reason} for a rank correlation."
        text += (
            f". Spearman's rank correlation is **{self._rank()}** (95 %, rows resampled as if they were "
            "independent; they share baselines, so the true uncertainty is larger)."
        )
        if self.small and self.small.correlation is not None:
            text += (
                f" Large differences may carry it: of the {self.small.count} below {_SMALL} points on "
                f"{first} it is **{self.small._rank()}**; {self.small._signs()}."
            )
        return text

    def _rank(self) -> str:
        return f"{self.correlation:.2f} [{self.low:.2f}, {self.high:.2f}]".replace("-", "−")

    def _signs(self) -> str:
        return (
            f"on {self.clear} of them both intervals exclude zero, and {self.same_sign} of these have the "
            "same sign"
        )


def agreement(first: ExperimentScores, second: ExperimentScores) -> list[Difference]:
    """Return the differences of all ablation rows to their baselines that two benchmarks share.

    Args:
        first: Scores on one benchmark.
        second: Scores on another one.

    Returns:
        The differences in mAP, by the rule of the rows' table, in the order of the tables; each pair of a row
        and a baseline once. A difference that one of the benchmarks has no runs for is left out.
    """
    differences = []
    for label, paper, cell, baseline, measure in _contrasts():
        here, there = (_difference(scores, cell, baseline, measure) for scores in (first, second))
        if here is not None and there is not None:
            differences.append(Difference(label, paper, here, there))
    return differences


def _contrasts() -> Iterator[tuple[str, str, Cell, Cell, str]]:
    seen = set()
    for table, (paper, topic) in _ABLATIONS.items():
        baseline = table.cells[table.baseline]
        for label, cell in table.cells.items():
            if cell != baseline and (cell, baseline) not in seen:
                seen.add((cell, baseline))
                text = f"{topic}{label} − {table.baseline}"
                yield text, paper, cell, baseline, table.compared_measures[1]


def _difference(scores: ExperimentScores, cell: Cell, baseline: Cell, measure: str) -> Interval | None:
    if not {cell.experiment, baseline.experiment} <= scores.runs.runs.keys():
        return None
    return scores.difference([cell], [baseline], measure)


def rate_agreement(differences: Iterable[Difference]) -> Agreement:
    """Return how far the differences on the first benchmark foretell those on the second.

    Args:
        differences: What ``agreement`` returns.

    Returns:
        The rank correlation with its interval, and the signs of the differences that are clear on both.
    """
    differences = list(differences)
    clear = [pair for pair in differences if pair.first.excludes_zero and pair.second.excludes_zero]
    same = sum((pair.first.mean > 0) == (pair.second.mean > 0) for pair in clear)
    one_seed = sum(1 in (pair.first.seeds, pair.second.seeds) for pair in differences)
    below = [pair for pair in differences if abs(pair.first.mean) < _SMALL]
    small = rate_agreement(below) if len(below) < len(differences) else None
    counts = len(clear), same, len(differences), one_seed, small
    means = np.array([[pair.first.mean, pair.second.mean] for pair in differences]).reshape(-1, 2)
    if len(differences) < _FEWEST or not np.ptp(means, axis=0).all():
        return Agreement(None, None, None, *counts)

    def correlation(x: np.ndarray, y: np.ndarray) -> float:
        # Resampled rows may all be equal: they have no order.
        return cast("float", spearmanr(x, y)[0]) if np.ptp(x) and np.ptp(y) else 0.0

    interval = bootstrap(
        tuple(means.T),
        correlation,
        paired=True,
        vectorized=False,
        n_resamples=2000,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Agreement(correlation(*means.T), float(interval.low), float(interval.high), *counts)


def agreement_table(differences: Iterable[Difference], first: str, second: str) -> pd.DataFrame:
    """Return differences on two benchmarks as a table.

    Args:
        differences: What ``agreement`` returns.
        first: Name of the first benchmark.
        second: Name of the second one.

    Returns:
        A line for each difference, numbered as in the figure, with an ``Interval`` in points for each
        benchmark.
    """
    columns = ["number", "difference in mAP (points, 95 %)", first, second]
    lines = [(str(n), pair.label, pair.first, pair.second) for n, pair in enumerate(differences, 1)]
    return pd.DataFrame(lines, columns=columns, dtype=object)


def scores_beside(
    sets: Mapping[str, ExperimentScores], cells: Iterable[Cell], measures: Sequence[str] = _MEASURES
) -> pd.DataFrame:
    """Return scores of rows on several benchmarks, each with its interval over seeds and queries.

    Args:
        sets: Name of a benchmark -> scores on it.
        cells: The rows.
        measures: Names from ``analysis.scores.MEASURES``.

    Returns:
        A line for each row, with a column for each benchmark and measure: text in per cent with the 95 %
        interval, as in "62.6 [58.9, 66.2]"; None if no run is available.
    """
    lines = []
    for cell in cells:
        line: dict[str, object] = {"row": cell.experiment, "feature": cell.branch}
        for (name, scores), measure in product(sets.items(), measures):
            line[f"{measure}, {name}"] = score_text(scores, cell, measure)
        lines.append(line)
    return pd.DataFrame(lines, dtype=object)


def score_text(scores: ExperimentScores, cell: Cell, measure: str, *, note: bool = True) -> str | None:
    """Write a row's score in per cent with its 95 % interval over seeds and queries.

    Args:
        scores: Scores on a benchmark.
        cell: The row.
        measure: A measure with a value for each query.
        note: Whether to note that the row has fewer seeds than others.

    Returns:
        The text, as in "62.6 [58.9, 66.2]"; None if no run is available.
    """
    if cell.experiment not in scores.runs.runs or (value := scores.difference([cell], [], measure)) is None:
        return None
    of_all = f" of {scores.runs.requested}" if scores.runs.requested else ""
    seeds = f" ({value.seeds}{of_all} seeds)" if note and value.seeds != scores.runs.seeds else ""
    return f"{value.mean:.1f} [{value.low:.1f}, {value.high:.1f}]{seeds}"


def photographs(evidence: Evidence, names: Iterable[str]) -> dict:
    """Return the scores of evidence as ``Result.finish`` keeps them for the beginning of a report.

    Args:
        evidence: Evidence on validation persons of a benchmark of photographs.
        names: Names of the rows.

    Returns:
        "about", in words what was measured and by which command, and "rows", a line for each row with runs.
    """
    scores = ExperimentScores(evidence.gather(names))
    lines, start = [], "without pretrained weights"
    for name in names:
        runs = [run for run in scores.runs.runs[name] if isinstance(run, Run)]
        if any(run.configuration["model"]["weights"] for run in runs):
            start = "with its pretrained weights"
        if runs:
            cells = [Cell(name, branch) for branch in ("full", "global", "local")]
            lines += [
                {"row": name, "feature": cell.branch}
                | {measure: score_text(scores, cell, measure, note=False) for measure in _PRINTED}
                | {"seeds": ", ".join(str(run.configuration["seed"]) for run in runs)}
                for cell in (cells if name == "jlml" else cells[:1])
            ]
    profile, benchmark = evidence.profile, evidence.benchmark
    commits = dict.fromkeys(str(run.information.get("commit")) for run in evidence.runs.values())
    trained = scores.runs.summary().partition("\n")[0].removesuffix(".")
    command = f"reidlib train ROW --profile {profile} --benchmark {benchmark} --data-root DIR --seed N"
    about = (
        f"Set: {evidence.title}. The validation persons are a third of the training persons, drawn by a "
        "hash: this is not the benchmark's own test, on which nothing here was scored. Protocol: an image of "
        "each person and camera is a query, the others are the gallery; images of the query's person from "
        f"its camera are ignored. Networks and recipes of the profile {profile}, {start}. "
        "In brackets the 95 % interval, over queries and seeds (with one seed, over queries only). Command, "
        f"for each ROW and seed N: `{command}`; from the evidence in git: `reidlib reproduce 90 --evidence`. "
        f"{trained}; commit {', '.join(commits)}."
    )
    return {"about": about, "rows": lines}
