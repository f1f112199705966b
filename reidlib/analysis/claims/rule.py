"""The rule of verdicts: which outcome follows from the intervals of a claim's contrasts.

A claim predicts that each of its contrasts, differences in points, is above zero. In this order:

1. Every interval is above zero: the claim *holds*. All must be; that needs no correction for their number.
2. A contrast is below zero: it *does not hold*. One is enough, and of many one is soon below zero by chance;
   so they are tested by Holm's (1979) procedure. With one contrast, that is the upper end below zero.
3. Each interval that is not above zero is within half a point of zero: it *makes no difference of half a
   point*.
4. Otherwise, and if a run is missing, it is *undecided here*.
"""

from __future__ import annotations

from collections.abc import Mapping

from reidlib.analysis.statistics import LEVEL, Interval

# Smallest difference that counts, in points.
SMALLEST_DIFFERENCE = 0.5
# Counts the versions of this rule; a part of the tests' digests.
VERSION = 2

HOLDS, FAILS, UNDECIDED, NO_EXPERIMENT = "holds", "does not hold", "undecided here", "no experiment"
NO_DIFFERENCE = "makes no difference of half a point"
SIGNS = {HOLDS: "✓", FAILS: "✗", NO_DIFFERENCE: "=", UNDECIDED: "?", NO_EXPERIMENT: "–"}


def outcome_of(intervals: Mapping[str, Interval | None], level: float = LEVEL) -> tuple[str, tuple[str, ...]]:
    """Return the outcome that follows from intervals.

    Args:
        intervals: Label of each contrast -> its interval at ``level``; None if a run is missing.
        level: The intervals' level.

    Returns:
        ``HOLDS``, ``FAILS``, ``NO_DIFFERENCE`` or ``UNDECIDED``, and the labels of the contrasts that decide
        it, or for ``UNDECIDED`` that leave it open.
    """
    measured = {label: interval for label, interval in intervals.items() if interval is not None}
    below = _below_zero(measured, len(intervals), (1 - level) / 2)
    if below:
        return FAILS, below
    if len(measured) < len(intervals):
        return UNDECIDED, tuple(label for label in intervals if label not in measured)
    unclear = {label: i for label, i in measured.items() if i.low <= 0}
    if not unclear:
        return HOLDS, tuple(measured)
    wide = tuple(label for label, i in unclear.items() if max(-i.low, i.high) > SMALLEST_DIFFERENCE)
    return (UNDECIDED, wide) if wide else (NO_DIFFERENCE, tuple(unclear))


def _below_zero(intervals: Mapping[str, Interval], contrasts: int, error: float) -> tuple[str, ...]:
    """Return the contrasts below zero by Holm's procedure: in all claims without one, ``error`` of fails."""
    below = []
    for rank, label in enumerate(sorted(intervals, key=lambda label: intervals[label].below_zero_p)):
        if intervals[label].below_zero_p >= error / (contrasts - rank):
            break
        below.append(label)
    return tuple(label for label in intervals if label in below)
