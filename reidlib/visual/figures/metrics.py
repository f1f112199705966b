"""The figure of a learnt metric: its spectrum, and what each part of a feature contributes to a distance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reidlib.visual import BLUE, GREY, ORANGE

_STYLES = {"L2": (GREY, "o"), "XQDA": (BLUE, "s")}
_MOST_LABELS = 24


def learnt_metric(
    weights_dr: np.ndarray, signs_r: np.ndarray, shares: Mapping[str, Mapping[str, float]], *, part: str
) -> Figure:
    """Draw a learnt metric: the sizes of its directions, and the parts' shares of the mean squared distance.

    Args:
        weights_dr: Weights of its linear projection, shape (D, R).
        signs_r: Sign of each direction, shape (R,).
        shares: Name of a metric -> part of the feature, from the top -> share of the mean squared distance.
        part: What a part is, for the axis, such as "row, from the top".

    Returns:
        The figure: directions on the left, in the order of their size; parts on the right, downwards.
    """
    names = list(next(iter(shares.values())))
    height = min(max(3.0, 0.2 * len(names) + 1.0), 5.8)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.2, height), width_ratios=(1, 1.15), gridspec_kw={"wspace": 0.08}
    )
    sizes_r = (np.asarray(weights_dr, np.float64) ** 2).sum(0)
    order = np.argsort(-sizes_r)
    ranks = 1 + np.arange(len(order))
    for sign, colour, marker, label in ((1, BLUE, "o", "adds"), (-1, ORANGE, "X", "subtracts")):
        chosen = np.asarray(signs_r)[order] == sign
        if chosen.any():
            left.plot(
                ranks[chosen], sizes_r[order][chosen], marker, color=colour, markersize=4.5, label=label
            )
    left.set(
        yscale="log", xlabel="direction", ylabel="size (squared length of its weights)", title="Spectrum"
    )
    left.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    left.legend(title="to the distance", title_fontsize=9)
    _draw_shares(right, shares, names)
    right.set(
        xlabel="share of the mean squared distance (%)",
        ylabel=part,
        title="What a distance is made of",
    )
    right.set_ylim(len(names) - 0.5, -0.5)
    return figure


def _draw_shares(axes: Axes, shares: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> None:
    """Draw a marker for each metric and part, and a line between those of a part."""
    places = np.arange(len(names))
    values_mp = np.array([[100 * share[name] for name in names] for share in shares.values()])
    axes.hlines(places, values_mp.min(0), values_mp.max(0), color=GREY, linewidth=1, zorder=1)
    for metric, values_p in zip(shares, values_mp, strict=True):
        colour, marker = _STYLES.get(metric, (ORANGE, "D"))
        axes.plot(values_p, places, marker, color=colour, markersize=5, label=metric, zorder=2)
    step = -(-len(names) // _MOST_LABELS)
    axes.set_yticks(places[::step], names[::step])
    axes.set_xlim(left=min(0.0, values_mp.min()))
    axes.legend(loc="lower right")
