"""The power of more seeds: how often an interval would be above zero, and how many seeds make it so."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit
from scipy.stats import chi2, nct

from reidlib.analysis.claims.rule import SMALLEST_DIFFERENCE
from reidlib.analysis.claims.statements import Contrast
from reidlib.analysis.statistics import (
    LEVEL,
    Components,
    Interval,
    Pairs,
    format_difference,
    satterthwaite,
    variance_components,
)

MOST_SEEDS = 1000  # nobody plans with more
_ENOUGH_POWER = 0.8  # what is usually asked for
_ENDLESS_SEEDS = 10**6  # whose own share of the uncertainty has vanished
_MOST_PERSONS = 10**6
_QUANTILES = (np.arange(100) + 0.5) / 100  # of the variance that a trial estimates


class Wanted(NamedTuple):
    """The fewest seeds that suffice, or else the fewest persons.

    Attributes:
        seeds: The fewest seeds; None if a thousand do not suffice.
        persons: Where no number of seeds suffices, because persons are too few: the number of persons above
            which there is one. None otherwise, and if a million do not suffice.
    """

    seeds: int | None
    persons: int | None = None


def power(components: Components, effect: float, seeds: int, persons: int, level: float = LEVEL) -> float:
    """Return how often an interval's lower end would be above zero.

    Args:
        components: Variances of the difference.
        effect: The true difference, in points.
        seeds: Number of seeds, at least two.
        persons: Number of persons, at least two.
        level: The interval's level.

    Returns:
        The probability, by the noncentral t distribution with the degrees of freedom that the variances give.
    """
    error, freedom = _error(components, seeds, persons)
    if not error:
        return float(effect > 0)
    return float(nct.sf(stdtrit(freedom, (1 + level) / 2), freedom, effect / error))


def power_of_no_difference(
    components: Components, margin: float, seeds: int, persons: int, level: float = LEVEL
) -> float:
    """Return how often an interval would lie within a margin of zero if the true difference were zero.

    Args:
        components: Variances of the difference.
        margin: The largest difference that counts as none, in points.
        seeds, persons, level: As in ``power``.

    Returns:
        The probability, over the mean and the variance that a trial estimates.
    """
    error, freedom = _error(components, seeds, persons)
    if not error:
        return 1.0
    estimated = np.sqrt(chi2.ppf(_QUANTILES, freedom) / freedom)
    room = margin / error - stdtrit(freedom, (1 + level) / 2) * estimated
    return float(np.where(room > 0, 2 * ndtr(room) - 1, 0).mean())


def _error(components: Components, seeds: int, persons: int) -> tuple[float, float]:
    """Return the standard error of the mean and its degrees of freedom."""
    of_seeds = components.rest + persons * components.seeds
    of_persons = components.rest + seeds * components.persons
    variance = of_persons + persons * components.seeds
    parts = (
        (of_seeds, seeds - 1),
        (of_persons, persons - 1),
        (components.rest, (seeds - 1) * (persons - 1)),
    )
    return math.sqrt(variance / (seeds * persons)), satterthwaite(variance, parts)


def fewest(power_of: Callable[[int], float], share: float, most: int = MOST_SEEDS) -> int | None:
    """Return the smallest number, from two, whose power reaches a share; None if ``most`` does not."""
    low, high = 1, 2
    while power_of(high) < share:
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= share else (middle, high)
    return high


def wanted(power_of: Callable[[int, int], float], persons: int, share: float) -> Wanted:
    """Return what it takes to reach a share.

    Args:
        power_of: The power of a number of seeds and of persons.
        persons: The number of persons that there are.
        share: The power that is wanted.

    Returns:
        The fewest seeds with these persons, or the persons without which no number of seeds suffices.
    """
    seeds = fewest(lambda number: power_of(number, persons), share)
    if seeds is not None or power_of(_ENDLESS_SEEDS, persons) >= share:
        return Wanted(seeds)
    return Wanted(None, fewest(lambda number: power_of(_ENDLESS_SEEDS, number), share, _MOST_PERSONS))


def all_of(shares: Iterable[float]) -> float:
    """Return how often all of several happen at least, whatever they have in common."""
    return max(0.0, 1 - sum(1 - share for share in shares))


def power_text(
    pairs: Mapping[Contrast, Pairs | None], intervals: Mapping[str, Interval | None], level: float
) -> str:
    """Say what power some contrasts had that leave a claim undecided, and what has enough.

    Args:
        pairs: Their differences by seed and person.
        intervals: Their intervals, by label.
        level: The intervals' level.

    Returns:
        The power for the paper's effect and for one point, with the seeds or persons that have enough of it;
        how many show that there is no difference of half a point if there is none; and whether the paper's
        effect is above the intervals. It begins with a semicolon; empty if nothing tells the power.
    """
    known = {}
    for contrast, each in pairs.items():
        components = each and variance_components(each.sums_sp, each.queries_p)
        if not each or not components:
            return ""
        known[contrast] = components, each.sums_sp.shape
    seeds, persons = (min(shape[axis] for _, shape in known.values()) for axis in (0, 1))
    printed = {contrast: contrast.printed or 0.0 for contrast in pairs}
    effects = {"one point": dict.fromkeys(pairs, 1.0)}
    values = ", ".join(format_difference(value) for value in printed.values())
    if min(printed.values()) > 0:
        effects = {f"the paper's {values}": printed} | effects
    texts = []
    for name, of_contrast in effects.items():

        def shares(seeds: int, persons: int, effects: Mapping[Contrast, float] = of_contrast) -> list[float]:
            return [power(each, effects[name], seeds, persons, level) for name, (each, _) in known.items()]

        now = shares(seeds, persons)
        text = f"{100 * now[0]:.0f} %"
        if len(now) > 1:  # several contrasts need not be missed together: a lower bound, and an upper one
            low = all_of(now)
            text = f"at least {100 * low:.0f} %" if low >= 0.005 else f"at most {100 * min(now):.0f} %"
        enough = wanted(lambda *numbers, shares=shares: all_of(shares(*numbers)), persons, _ENOUGH_POWER)
        texts.append(f"{text} for {name} ({_enough_text(enough, persons)})")

    def show_none(seeds: int, persons: int) -> float:
        margin = SMALLEST_DIFFERENCE
        return all_of(
            power_of_no_difference(each, margin, seeds, persons, level) for each, _ in known.values()
        )

    none = _enough_text(wanted(show_none, persons, _ENOUGH_POWER), persons)
    text = f"; power {', '.join(texts)}; to show no difference of half a point if there is none, {none}"
    highest = {each: interval.high for each in pairs if (interval := intervals[each.label])}
    if all(0 < highest[each] < printed[each] for each in pairs):
        place = "is above the interval" if len(pairs) == 1 else "are above the intervals"
        text += f"; the paper's {values} {place}"
    return text


def _enough_text(enough: Wanted, persons: int) -> str:
    """Say how many seeds, or persons, have the power that is usually asked for."""
    power_text = f"{100 * _ENOUGH_POWER:.0f} %"
    if enough.seeds:
        return f"{enough.seeds} seeds have {power_text}"
    if enough.persons:
        return f"no number of seeds has {power_text} with {persons:,} persons, but from {enough.persons:,} on"
    return f"not even {MOST_SEEDS:,} seeds have {power_text}"
