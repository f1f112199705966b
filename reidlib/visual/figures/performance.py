"""Figures of speed: a roofline, growth with the gallery, and other projects beside this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from reidlib.visual import BLUE, INK, ORANGE, PALETTE


def roofline(roof: tuple[float, float], steps: Mapping[str, tuple[float, float]]) -> Figure:
    """Draw what a machine reaches at most over the operations for each byte, and what training steps reach.

    Args:
        roof: Operations and bytes a second that the machine reaches.
        steps: Name of a step to its operations for each byte and its operations a second.

    Returns:
        The figure, on logarithmic scales. The distance of a point to the line above it is what is left.
    """
    operations, bandwidth = roof
    figure, axes = plt.subplots(figsize=(7.6, 4.6))
    ridge, places = operations / bandwidth, [intensity for intensity, _ in steps.values()]
    left, right = min(*places, ridge) / 3, max(*places, ridge) * 5
    x = np.array([left, ridge, right])
    axes.plot(x, np.minimum(bandwidth * x, operations) / 1e9, color=INK, linewidth=2)
    label = {"textcoords": "offset points", "fontsize": 10, "color": INK}
    text = f"large product: {operations / 1e9:,.0f} GFLOP/s"
    axes.annotate(text, (right, operations / 1e9), (0, 5), ha="right", va="bottom", **label)
    middle = (left * ridge) ** 0.5
    text = f"copy: {bandwidth / 1e9:,.0f} GB/s"
    axes.annotate(text, (middle, bandwidth * middle / 1e9), (6, -4), ha="left", va="top", **label)
    for index, (name, (intensity, rate)) in enumerate(steps.items()):
        colour, limit = PALETTE[index % len(PALETTE)], min(operations, bandwidth * intensity)
        axes.plot([intensity, intensity], [rate / 1e9, limit / 1e9], color=colour, linewidth=1, linestyle=":")
        text = f"{name}: {rate / 1e9:,.0f} GFLOP/s, {100 * rate / limit:.0f} % of the roof"
        axes.plot(intensity, rate / 1e9, "o", color=colour, markersize=9, label=text)
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte moved", xlim=(left, right))
    lowest = min(rate for _, rate in steps.values())
    axes.set(ylabel="operations a second (1e9)", ylim=(lowest / 4e9, operations * 2.5 / 1e9))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def growth_plot(seconds: pd.DataFrame) -> Figure:
    """Draw seconds over the size of the gallery, a line for each column, on logarithmic scales.

    Args:
        seconds: Sizes as the index, and a column for each measured action.

    Returns:
        The figure, with a thin line that grows in proportion to the gallery.
    """
    figure, axes = plt.subplots(figsize=(7.6, 4.6))
    for index, (name, column) in enumerate(seconds.items()):
        colour, marker = PALETTE[index % len(PALETTE)], "osD^v"[index % 5]
        axes.plot(seconds.index, column, label=str(name), color=colour, marker=marker)
    first = seconds.iloc[0].min()
    sizes = np.array(seconds.index, float)
    axes.plot(
        sizes, 0.6 * first * sizes / sizes[0], color=INK, linewidth=1, linestyle=":", label="in proportion"
    )
    axes.set(xscale="log", yscale="log", xlabel="gallery images", ylabel="seconds (median)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def ratio_bars(ratios: Mapping[str, Sequence[tuple[str, float]]]) -> Figure:
    """Draw how many times as long, or as much memory, others take as this suite.

    Args:
        ratios: Title of a panel to names and ratios; one is this suite.

    Returns:
        The figure, a panel for each title, with bars from one on a logarithmic scale.
    """
    most = max(len(pairs) for pairs in ratios.values())
    figure, grid = plt.subplots(1, len(ratios), squeeze=False, figsize=(5.2 * len(ratios), 0.42 * most + 1.5))
    for axes, (title, pairs) in zip(grid[0], ratios.items(), strict=True):
        values = np.array([ratio for _, ratio in pairs])
        colours = [BLUE if ratio >= 1 else ORANGE for ratio in values]
        axes.barh(range(len(pairs)), values - 1, left=1, color=colours)
        for row, value in enumerate(values):
            axes.annotate(
                f"{value:.3g} ×", (max(value, 1), row), (4, 0), textcoords="offset points", va="center"
            )
        axes.axvline(1, color=INK, linewidth=1)
        axes.set_yticks(range(len(pairs)), [name for name, _ in pairs])
        low, high = min(0.7, *values / 1.5), max(2, *values * 3)
        axes.set(title=title, xscale="log", xlabel="times this suite's", xlim=(low, high))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return figure
