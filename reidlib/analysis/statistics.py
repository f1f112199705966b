"""Differences of scores over training seeds and persons: intervals and tests.

Seeds and persons are crossed: each training is tested on the same persons. The difference that seed s shows
on person p is modelled as mu + a_s + b_p + e_sp, with independent effects of the seed, of the person and of
both together (a two-way random model; Searle, Casella, McCulloch, *Variance Components*, 1992). ``paired``
estimates mu and the variance of its estimate from the mean squares of that model; its degrees of freedom
follow Satterthwaite (1946). A person counts by its queries, so that the mean is that over all queries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import t as student

from reidlib.errors import InputError

LEVEL = 0.95
# Fewest seeds with which a test by signs can fall below 5 %: all of 2^6 signs, of which two are as extreme.
FEWEST_SIGNS = 6

NO_BREAK_SPACE = "\u00a0"
# Texts of at most this length, such as "box scale error", have one line in a table.
_SHORT = 20


class Interval(NamedTuple):
    """A mean difference with its confidence interval; all values in points (per cent).

    Attributes:
        mean: Mean difference over seeds and queries, in points.
        low: Lower end of the interval, in points; minus infinity if a single value says nothing of its error.
        high: Upper end of the interval, in points.
        seeds: Number of seeds that entered the difference.
        queries: Number of queries with a match in every seed.
        requested: Number of seeds that were requested; more than ``seeds`` if runs are missing. None if not
            known.
        error: Standard error of the mean, in points; NaN if nothing varies that could tell it.
        freedom: Degrees of freedom of ``error``; NaN without it.
        persons: Number of persons with such queries.
    """

    mean: float
    low: float
    high: float
    seeds: int
    queries: int
    requested: int | None = None
    error: float = math.nan
    freedom: float = math.nan
    persons: int = 0

    @property
    def excludes_zero(self) -> bool:
        """Whether zero is outside the interval."""
        return self.low > 0 or self.high < 0

    @property
    def below_zero_p(self) -> float:
        """One-sided p-value of "the true difference is at least zero"; 1 without a standard error."""
        if math.isnan(self.error):
            return 1.0
        if not self.error:
            return float(self.mean >= 0)
        return float(stdtr(self.freedom, self.mean / self.error))

    def __str__(self) -> str:
        ends = f"[{self._end(self.low)}, {self._end(self.high)}]"
        text = f"{format_difference(self.mean)} {ends if math.isfinite(self.low) else '[no interval]'}"
        complete = self.requested in (None, self.seeds)
        return text if complete else f"{text} ({self.seeds} of {self.requested} seeds)"

    def _end(self, points: float) -> str:
        """Format an end: one that excludes zero must not be read as zero."""
        text = format_difference(points)
        return _more_decimals(points) if text == "0.0" and self.excludes_zero else text


def _more_decimals(points: float) -> str:
    """Format a small difference with as many decimals as show that it is not zero, at most four."""
    digits = next((n for n in (2, 3) if round(points, n)), 4)
    return f"{points:+.{digits}f}".replace("-", "−")


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


class Pairs(NamedTuple):
    """Paired differences of a contrast: what intervals, tests and subsets of seeds are computed from.

    Attributes:
        sums_sp: Sums of the differences over the queries of each person, shape (S, P), in points.
        queries_p: Number of queries of each person with a match, shape (P,).
        seeds: The S seeds.
        rows_rsp: Of a difference of shares the sums that it is computed from, shape (4, S, P): see
            ``kept_shares``. None of a plain difference.
    """

    sums_sp: np.ndarray
    queries_p: np.ndarray
    seeds: tuple[int, ...]
    rows_rsp: np.ndarray | None = None

    def of(self, seeds: Collection[int]) -> Pairs:
        """Return the differences of those seeds that are among ``seeds``, from these seeds alone."""
        kept = [index for index, seed in enumerate(self.seeds) if seed in seeds]
        numbers = tuple(self.seeds[index] for index in kept)
        if self.rows_rsp is not None and kept:
            return kept_shares(self.rows_rsp[:, kept], self.queries_p, numbers)
        return Pairs(self.sums_sp[kept], self.queries_p, numbers)

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the mean difference with its interval; see ``paired_sums``."""
        return paired_sums(self.sums_sp, self.queries_p, level)


def kept_shares(rows_rsp: np.ndarray, queries_p: np.ndarray, seeds: tuple[int, ...]) -> Pairs:
    """Return differences of the shares of its usual score that each of two networks keeps.

    A share is a ratio of two means. Its deviations by seed and person are those of its linearisation at the
    ratio over these seeds (the delta method), so that intervals are computed as of any difference.

    Args:
        rows_rsp: Sums over each person's queries, shape (4, S, P): of the first network perturbed and usual,
            of the second perturbed and usual.
        queries_p: Number of queries of each person with a match, shape (P,).
        seeds: The S seeds.

    Returns:
        The differences in points of a share: 100 is all of the usual score.

    Raises:
        InputError: If a usual score is zero.
    """
    means_r = rows_rsp.sum((1, 2)) / (len(seeds) * queries_p.sum())
    if not means_r[1::2].all():
        rule = "a share is of a score above zero"
        raise InputError(rule, "a score of 0", "compare points in place of shares")
    kept = [
        queries_p * (means_r[n] / means_r[n + 1])
        + (rows_rsp[n] - means_r[n] / means_r[n + 1] * rows_rsp[n + 1]) / means_r[n + 1]
        for n in (0, 2)
    ]
    return Pairs(100 * (kept[0] - kept[1]), queries_p, seeds, rows_rsp)


class Components(NamedTuple):
    """Variances of the crossed model, in squared points.

    Attributes:
        seeds: Variance of a seed's effect, which is common to all persons.
        persons: Variance of a person's effect, which is common to all seeds.
        rest: Variance of what is left for one person and one seed.
    """

    seeds: float
    persons: float
    rest: float


def paired(differences_sq: np.ndarray, persons_q: np.ndarray | None = None, level: float = LEVEL) -> Interval:
    """Estimate the mean of paired differences with an interval over seeds and persons.

    With one seed the interval covers other persons for these two networks, not other trainings. With more,
    it contains the true difference in about 95 of 100 cases (tests/analysis/test_coverage.py).

    Args:
        differences_sq: Differences between two rows of scores, shape (S, Q), in points. In each of the S
            seeds both rows were trained with the same seed. NaN marks a query without a match.
        persons_q: Person id of each query, shape (Q,). The queries of a person are one observation, because
            their scores depend on the same gallery images; as many independent ones they would make the
            interval too narrow. None takes each query for a person.
        level: Share of cases in which the interval is to contain the true difference.

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
    return paired_sums(sums_sp, np.bincount(person_q, minlength=len(persons)), level)


def paired_sums(sums_sp: np.ndarray, queries_p: np.ndarray, level: float = LEVEL) -> Interval:
    """Estimate the mean of paired differences as ``paired`` does, from their sums over each person's queries.

    Args:
        sums_sp: Sum of the differences over the queries of each person, shape (S, P), in points.
        queries_p: Number of queries of each person with a match, shape (P,); not all zero.
        level: Share of cases in which the interval is to contain the true difference.

    Returns:
        The mean over seeds and queries with the ends of its interval, in points.
    """
    seeds, persons = sums_sp.shape
    mean = float(sums_sp.sum() / (seeds * queries_p.sum()))
    of_seeds, of_persons, rest = _mean_squares(sums_sp, queries_p)
    if persons == 1:
        variance, freedom = of_seeds, seeds - 1.0
    elif seeds == 1:
        variance, freedom = of_persons, persons - 1.0
    else:
        # The seeds' share is at least zero, also where its estimate is not: the interval is then that over
        # persons, with fewer degrees of freedom.
        variance = of_persons + max(of_seeds - rest, 0.0)
        parts = ((of_seeds, seeds - 1), (of_persons, persons - 1), (rest, (seeds - 1) * (persons - 1)))
        freedom = satterthwaite(variance, parts)
    queries = int(queries_p.sum())
    if not freedom:  # one person and one seed
        return Interval(mean, -math.inf, math.inf, seeds, queries, persons=persons)
    error = math.sqrt(variance / (seeds * persons))
    half = float(stdtrit(freedom, (1 + level) / 2)) * error if error else 0.0
    return Interval(
        mean, mean - half, mean + half, seeds, queries, error=error, freedom=freedom, persons=persons
    )


def _mean_squares(sums_sp: np.ndarray, queries_p: np.ndarray) -> tuple[float, float, float]:
    """Return the mean squares of seeds, of persons and of the rest; zero where there is only one."""
    seeds, persons = sums_sp.shape
    total = queries_p.sum()
    # The mean is a ratio of sums. Its deviations, scaled so that those of a person with an average number of
    # queries are unchanged, behave as the deviations of a plain mean do.
    deviations_sp = (sums_sp - sums_sp.sum() / (seeds * total) * queries_p) * (persons / total)
    of_seed_s, of_person_p = deviations_sp.mean(1), deviations_sp.mean(0)
    rest_sp = deviations_sp - of_seed_s[:, None] - of_person_p
    degrees = seeds - 1, persons - 1, (seeds - 1) * (persons - 1)
    squares = persons * (of_seed_s**2).sum(), seeds * (of_person_p**2).sum(), (rest_sp**2).sum()
    first, second, third = (float(s) / d if d else 0.0 for s, d in zip(squares, degrees, strict=True))
    return first, second, third


def satterthwaite(variance: float, parts: Sequence[tuple[float, int]]) -> float:
    """Return the degrees of freedom of a sum of mean squares, each with its own; at least the fewest."""
    spread = sum(square**2 / degrees for square, degrees in parts)
    fewest = float(min(degrees for _, degrees in parts))
    return max(variance**2 / spread, fewest) if spread else fewest


def variance_components(sums_sp: np.ndarray, queries_p: np.ndarray) -> Components | None:
    """Estimate the variances of the crossed model from the arguments of ``paired_sums``.

    Returns:
        The estimates, none below zero; None with fewer than two seeds or persons, which cannot be told apart.
    """
    seeds, persons = sums_sp.shape
    if seeds < 2 or persons < 2:
        return None
    of_seeds, of_persons, rest = _mean_squares(sums_sp, queries_p)
    return Components(max(of_seeds - rest, 0.0) / persons, max(of_persons - rest, 0.0) / seeds, rest)


def sign_flip(sums_sp: np.ndarray, queries_p: np.ndarray) -> float | None:
    """Test by flipping signs whether the seeds' mean differences lie about zero.

    It assumes that they are symmetric, and speaks about other trainings on these persons: the intervals speak
    about other persons, too, so that p can be small where one includes zero.

    Args:
        sums_sp: As in ``paired_sums``.
        queries_p: As in ``paired_sums``.

    Returns:
        The two-sided p-value: the share of all 2^S signs of the seeds' means with a sum at least as far from
        zero. None below six seeds: two of at most 32 signs are as extreme as any result, more than 5 %. Above
        sixteen seeds, of 65,536 signs that always are the same.
    """
    means_s = sums_sp.sum(1) / queries_p.sum()
    if len(means_s) < FEWEST_SIGNS:
        return None
    if len(means_s) <= 16:
        signs_rs = np.array([*product((1.0, -1.0), repeat=len(means_s))])
    else:
        signs_rs = np.random.default_rng(0).choice((1.0, -1.0), (2**16, len(means_s)))
        signs_rs[0] = 1.0  # the observed signs are among them
    observed = abs(means_s.sum())
    return float((np.abs(signs_rs @ means_s) >= observed * (1 - 1e-12)).mean())
