"""Confidence intervals of score differences, over training seeds and over queries."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from reidlib.errors import InputError

LEVEL = 0.95
# Number of bootstrap samples: the ends of an interval then repeat to about a fiftieth of its width.
_REPEATS = 4000

NO_BREAK_SPACE = "\u00a0"
# Texts of at most this length, such as "box scale error", have one line in a table.
_SHORT = 20


class Interval(NamedTuple):
    """A mean difference with its 95 % confidence interval; all values in points (per cent).

    Attributes:
        mean: Mean difference over seeds and queries, in points.
        low: Lower end of the interval, in points.
        high: Upper end of the interval, in points.
        seeds: Number of seeds that entered the difference.
        queries: Number of queries with a match in every seed.
        requested: Number of seeds that were requested; more than ``seeds`` if runs are missing. None if not
            known.
    """

    mean: float
    low: float
    high: float
    seeds: int
    queries: int
    requested: int | None = None

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        text = (
            f"{format_difference(self.mean)} [{format_difference(self.low)}, {format_difference(self.high)}]"
        )
        complete = self.requested in (None, self.seeds)
        return text if complete else f"{text} ({self.seeds} of {self.requested} seeds)"


def keep_together(text: str) -> str:
    """Put no-break spaces where a table should not break a text: inside intervals and in short texts."""
    if "[" not in text and len(text) <= _SHORT:
        return text.replace(" ", NO_BREAK_SPACE)
    # "[−4.8, +5.3]", "[95 %]" and "± 1.1"; a longer text in brackets may break.
    return re.sub(r"\[[^\[\]]{,20}\]| ± ", lambda match: match[0].replace(" ", NO_BREAK_SPACE), text)


def format_difference(points: float) -> str:
    """Format a difference with one decimal and its sign; a value that rounds to zero has no sign."""
    if math.isnan(points):
        return "–"
    rounded = round(points, 1) + 0.0  # no −0.0
    return "0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", "−")


def format_percent(share: float) -> str:
    """Format a share between 0 and 1 as per cent with one decimal, as the papers print scores."""
    return f"{100 * share:.1f}"


def half_width(values: Sequence[float]) -> float | None:
    """Return half the width of a mean's interval by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    quantile = float(student.ppf((1 + LEVEL) / 2, len(values) - 1))
    return quantile * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def paired(differences_sq: np.ndarray, persons_q: np.ndarray | None = None) -> Interval:
    """Estimate the mean of paired differences with a 95 % interval over seeds and queries.

    With one seed the interval covers other queries for these two networks, not other trainings. With two or
    more seeds it is conservative: in simulations it contains the true difference in 96 to 100 of 100 cases,
    and it is wide with two or three seeds. The same arguments always give the same interval.

    Args:
        differences_sq: Differences between two rows of scores, shape (S, Q), in points. In each of the S
            seeds both rows were trained with the same seed. NaN marks a query without a match.
        persons_q: Person id of each query, shape (Q,). All queries of a person are resampled together,
            because their scores depend on the same gallery images. Resampling them one by one would make the
            interval too narrow. None resamples each query by itself.

    Returns:
        The mean over seeds and queries with the ends of its interval, in points.

    Raises:
        InputError: If the shapes do not fit, or if no query has a match in every seed.
    """
    differences_sq = np.asarray(differences_sq, dtype=float)
    if differences_sq.ndim != 2 or not differences_sq.shape[0]:
        rule = "differences have the shape (seeds, queries)"
        raise InputError(rule, f"shape {differences_sq.shape}", "stack one row per seed")
    persons_q = np.arange(differences_sq.shape[1]) if persons_q is None else np.asarray(persons_q)
    if persons_q.shape != differences_sq.shape[1:]:
        numbers = f"{len(persons_q)} person ids for {differences_sq.shape[1]} queries"
        raise InputError("every query shows one person", numbers, "give one id per query")
    valid_q = np.isfinite(differences_sq).all(0)
    if not valid_q.any():
        raise InputError("a difference needs a query with a match", "none", "check the scores")
    persons, person_q = np.unique(persons_q[valid_q], return_inverse=True)
    sums_sp = np.stack([np.bincount(person_q, row, len(persons)) for row in differences_sq[:, valid_q]])
    return paired_sums(sums_sp, np.bincount(person_q, minlength=len(persons)))


def paired_sums(sums_sp: np.ndarray, queries_p: np.ndarray) -> Interval:
    """Estimate the mean of paired differences as ``paired`` does, from their sums over each person's queries.

    Args:
        sums_sp: Sum of the differences over the queries of each person, shape (S, P), in points.
        queries_p: Number of queries of each person with a match, shape (P,); not all zero.

    Returns:
        The mean over seeds and queries with the ends of its interval, in points.
    """
    # Queries are resampled (bootstrap). Seeds are too few for that: with three seeds, an interval of
    # resampled means misses the true difference a quarter of the time instead of a twentieth. The seeds'
    # share of the uncertainty follows Student's t instead, drawn anew for each resampled set of queries. The
    # variation of single queries enters both shares, which makes the interval conservative.
    seeds, count = sums_sp.shape
    generator = np.random.default_rng(0)
    times_rp = generator.multinomial(count, np.full(count, 1 / count), size=_REPEATS)
    means_rs = (times_rp @ sums_sp.T) / (times_rp @ queries_p)[:, None]
    means_r = means_rs.mean(1)
    if seeds > 1:
        errors_r = means_rs.std(1, ddof=1) / math.sqrt(seeds)
        means_r = means_r + generator.standard_t(seeds - 1, size=_REPEATS) * errors_r
    low, high = np.quantile(means_r, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    mean = float(sums_sp.sum() / (seeds * queries_p.sum()))
    return Interval(mean, float(low), float(high), seeds, int(queries_p.sum()))
