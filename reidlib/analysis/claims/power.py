"""The power of more seeds: how often an interval would be above zero, and how many seeds make it so."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.special import stdtrit
from scipy.stats import nct

from reidlib.analysis.statistics import LEVEL, Components, satterthwaite

MOST_SEEDS = 1000  # nobody plans with more


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
    of_seeds = components.rest + persons * components.seeds
    of_persons = components.rest + seeds * components.persons
    variance = of_persons + persons * components.seeds
    parts = (
        (of_seeds, seeds - 1),
        (of_persons, persons - 1),
        (components.rest, (seeds - 1) * (persons - 1)),
    )
    freedom = satterthwaite(variance, parts)
    error = math.sqrt(variance / (seeds * persons))
    if not error:
        return float(effect > 0)
    return float(nct.sf(stdtrit(freedom, (1 + level) / 2), freedom, effect / error))


def seeds_wanted(
    components: Components, effect: float, persons: int, share: float = 0.8, level: float = LEVEL
) -> int | None:
    """Return the fewest seeds with which ``power`` reaches a share.

    Args:
        components: Variances of the difference.
        effect: The true difference, in points; above zero.
        persons: Number of persons, at least two.
        share: The power that is wanted.
        level: The interval's level.

    Returns:
        The number of seeds, at least two; None if a thousand seeds do not suffice, because persons are too
        few.
    """
    return fewest(lambda seeds: power(components, effect, seeds, persons, level), share)


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
