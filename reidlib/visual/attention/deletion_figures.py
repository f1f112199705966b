"""Pictures of what the deletion test found: curves, and their areas with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from reidlib.visual.attention.deletion import Deletion
from reidlib.visual.attention.figures import kind_colour, number
from reidlib.visual.figures.plots import GREY, INK


def deletion_figure(deletions: Mapping[str, Deletion], *, title: str = "") -> Figure:
    """A panel for each kind of parts: similarity while blanked by attention, a foreign map, at random."""
    columns = min(3, len(deletions))
    lines = -(-len(deletions) // columns)
    size = (3.3 * columns + 0.3, 2.7 * lines + 0.6)
    figure, panels = plt.subplots(lines, columns, figsize=size, squeeze=False, sharex=True, sharey=True)
    for unused in panels.flat[len(deletions) :]:
        unused.remove()
    for axes, (kind, one) in zip(panels.flat, deletions.items(), strict=False):
        shares = 100 * one.shares_s
        curves = [
            (one.random_ns, GREY, "--", "random"),
            (one.attended_ns, kind_colour(kind), "-", "attended"),
        ]
        if one.foreign_ns is not None:
            curves.insert(1, (one.foreign_ns, INK, ":", "another query's"))
        for curves_ns, colour, style, name in curves:
            label = f"{name}: area {number(np.trapezoid(curves_ns.mean(0), one.shares_s))}"
            axes.plot(shares, curves_ns.mean(0), style, color=colour, label=label, linewidth=1.8)
        ends = one.random_ns.mean(0), one.attended_ns.mean(0)
        axes.fill_between(shares, *ends, color=kind_colour(kind), alpha=0.12)
        axes.set_title(kind, color=kind_colour(kind), loc="left")
        axes.legend(frameon=False, loc="upper right", handlelength=1.6, borderaxespad=0.1)
        axes.tick_params(labelbottom=True)
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low, high + 0.4 * (high - low))  # room for the legends
    for axes in panels[:, 0]:
        axes.set_ylabel("similarity of the part")
    for axes in figure.axes:
        axes.set(xlim=(0, 100), xticks=range(0, 101, 25))
    for axes in panels[-1]:
        if axes.figure is not None:
            axes.set_xlabel("patches of the part blanked (%)")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def area_figure(networks: Mapping[str, Mapping[str, Deletion]]) -> Figure:
    """For each network and kind of parts by how much the attended area is smaller, with its interval."""
    rows = [(name, kind, one) for name, kinds in networks.items() for kind, one in kinds.items()]
    figure, axes = plt.subplots(figsize=(7.4, 0.36 * len(rows) + 1.3))
    ends = [0.0]
    for place, (_, kind, one) in enumerate(rows):
        gain, colour = one.gain, kind_colour(kind)
        face = colour if gain.clear else "white"
        axes.plot([gain.low, gain.high], [place, place], color=colour, linewidth=2)
        axes.plot(gain.mean, place, "o", color=colour, markerfacecolor=face, markersize=7)
        ends += [gain.low, gain.high]
    low, high = min(ends), max(ends)
    width = max(high - low, 1e-6)
    for place, (*_, one) in enumerate(rows):
        axes.text(high + 0.05 * width, place, str(one.gain), va="center", fontsize=9)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{name}, {kind}" for name, kind, _ in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(low - 0.05 * width, high + 0.5 * width))
    axes.set_xticks([tick for tick in axes.get_xticks() if low - 0.05 * width <= tick <= high])
    axes.set_xlabel("area at random − area by attention, in hundredths of similarity")
    axes.set_title("What blanking by attention takes away beyond blanking at random", loc="left")
    axes.grid(axis="y", visible=False)
    return figure
