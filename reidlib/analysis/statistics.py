"""How sure a difference between trainings is: intervals over the seeds and over the queries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from reidlib.errors import InputError

LEVEL = 0.95
# Bootstrap samples: the ends of an interval then repeat to about a fiftieth of its width.
_REPEATS = 4000


class Interval(NamedTuple):
    """A mean difference and the ends of its 95 % interval, in points (per cent)."""

    mean: float
    low: float
    high: float
    seeds: int
    queries: int
    wanted: int | None = None  # seeds that were asked for, where some are missing

    @property
    def clear(self) -> bool:
        """Whether nought lies outside."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        text = f"{signed(self.mean)} [{signed(self.low)}, {signed(self.high)}]"
        return text if self.wanted in (None, self.seeds) else f"{text} ({self.seeds} of {self.wanted} seeds)"


def signed(points: float) -> str:
    """A difference with one decimal and its sign; none for what rounds to nought."""
    if math.isnan(points):
        return "–"
    rounded = round(points, 1) + 0.0  # no −0.0
    return "0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", "−")


def percent(share: float) -> str:
    """A share as per cent with one decimal, as the papers print scores."""
    return f"{100 * share:.1f}"


def half_width(values: Sequence[float]) -> float | None:
    """Half the interval of a mean over the seeds by Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    quantile = float(student.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def paired(differences_sq: np.ndarray, persons_q: np.ndarray | None = None) -> Interval:
    """The mean of differences over seeds and queries, with an interval that holds for others of both.

    differences_sq: (S, Q), in points, what one row has more than the other for a query, both trained with
        the same seed; not a number where a query has no match.
    persons_q: (Q,) whom each query shows. All queries of a person are drawn together, because they stand or
        fall by the same gallery images: drawn one by one they would promise too much. None: one by one.

    Queries are resampled (bootstrap). Seeds are too few to be: with three, an interval of resampled means
    would miss the true difference a quarter of the time instead of a twentieth. Their share of the
    uncertainty is Student's t instead, drawn anew for each resampled set of queries. With one seed there is
    no such share: the interval is about these two networks and other queries, not about other trainings.
    With two or more it errs on the cautious side, since what single queries scatter counts in both shares: in
    simulations it holds the truth in 96 to 100 of 100 cases, and is wide with two seeds and with three.

    The same arguments give the same interval. Raises InputError for other shapes, or no query with a match.
    """
    differences_sq = np.asarray(differences_sq, dtype=float)
    if differences_sq.ndim != 2 or not differences_sq.shape[0]:
        raise InputError(
            "differences are (seeds, queries)", f"shape {differences_sq.shape}", "stack the seeds"
        )
    persons_q = np.arange(differences_sq.shape[1]) if persons_q is None else np.asarray(persons_q)
    if persons_q.shape != differences_sq.shape[1:]:
        raise InputError(
            "every query shows one person", f"{len(persons_q)} for {differences_sq.shape[1]}", "give one each"
        )
    valid_q = np.isfinite(differences_sq).all(0)
    if not valid_q.any():
        raise InputError("a difference needs a query with a match", "none", "check the scores")
    values_sq = differences_sq[:, valid_q]
    persons, person_q = np.unique(persons_q[valid_q], return_inverse=True)
    seeds, count = len(values_sq), len(persons)
    sums_sp = np.stack([np.bincount(person_q, row, count) for row in values_sq])
    queries_p = np.bincount(person_q, minlength=count)
    generator = np.random.default_rng(0)
    times_rp = generator.multinomial(count, np.full(count, 1 / count), size=_REPEATS)
    means_rs = (times_rp @ sums_sp.T) / (times_rp @ queries_p)[:, None]
    means_r = means_rs.mean(1)
    if seeds > 1:
        errors_r = means_rs.std(1, ddof=1) / math.sqrt(seeds)
        means_r = means_r + generator.standard_t(seeds - 1, size=_REPEATS) * errors_r
    low, high = np.quantile(means_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values_sq.mean()), float(low), float(high), seeds, int(valid_q.sum()))
