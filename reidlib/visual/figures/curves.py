"""The figure of learning curves: scores over training persons, and over images of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reidlib.analysis.learning_curves import MEASURE, Curve, Point
from reidlib.visual import PALETTE

_MARKERS = "osD^v"


def learning_curves(curve: Curve, measure: str = MEASURE) -> Figure:
    """Draw a learning curve, a line for each start.

    Args:
        curve: The curve.
        measure: Rank-k or mAP, in per cent.

    Returns:
        The figure: on the left over the number of training persons, all images of each, on a logarithmic
        scale; on the right over the images of each person, all persons, if there are several such sizes.
        Bars are 95 % intervals over seeds and test persons; with one seed, over test persons.
    """
    persons = sorted({curve.persons(point) for start in curve.starts for point in curve.points(start)})
    images = sorted({point.images or math.inf for point in curve.found if not point.persons})
    widths = (3, 2) if len(images) > 1 else (3,)
    size = (9.6 if len(images) > 1 else 8.0, 4.4)
    figure, axes = plt.subplots(1, len(widths), figsize=size, sharey=True, width_ratios=widths, squeeze=False)
    left, *others = axes[0]
    for number, start in enumerate(curve.starts):
        shift = number - (len(curve.starts) - 1) / 2  # so that bars do not cover each other
        points = curve.points(start)
        places = [curve.persons(point) * 1.04**shift for point in points]
        label = f"from {curve.start_title(start)}"
        _draw(left, places, points, curve, measure, number, label)
        points = [point for point in curve.found if point.start == start and not point.persons]
        points.sort(key=lambda point: point.images or math.inf)
        places = [images.index(point.images or math.inf) + 0.06 * shift for point in points]
        for right in others:
            _draw(right, places, points, curve, measure, number)
    label = "training persons (logarithmic), all images of each"
    left.set(xscale="log", xlabel=label, ylabel=f"{measure} in per cent")
    left.set_xticks(persons, [f"{n}" for n in persons])
    left.minorticks_off()
    for right in others:
        right.set(xlabel="images of each person, all persons", xlim=(-0.4, len(images) - 0.6))
        right.set_xticks(range(len(images)), ["all" if math.isinf(n) else f"{n:g}" for n in images])
    left.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=max(1, len(curve.starts)))
    return figure


def _draw(
    axes: Axes,
    places: Sequence[float],
    points: Sequence[Point],
    curve: Curve,
    measure: str,
    number: int,
    label: str | None = None,
) -> None:
    """Draw a start's scores at their places, with their intervals."""
    scores = [curve.score(point, measure) for point in points]
    known = [(place, score) for place, score in zip(places, scores, strict=True) if score is not None]
    x, means = [place for place, _ in known], [score.mean for _, score in known]
    bars = [[score.mean - score.low for _, score in known], [score.high - score.mean for _, score in known]]
    colour, marker = PALETTE[number % len(PALETTE)], _MARKERS[number % len(_MARKERS)]
    axes.errorbar(x, means, yerr=bars, capsize=3, label=label, color=colour, marker=marker)
