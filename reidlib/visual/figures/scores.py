"""Figures of comparisons: differences with their intervals, scores over a setting that is turned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reidlib.analysis.scores import Spread
from reidlib.analysis.statistics import Interval
from reidlib.visual.figures.plots import BLUE, GREY, INK, PALETTE, RED

_MARKERS = "osD^vPX"
_LOGARITHMIC_TICKS = (-50, -20, -5, -2, 0, 2, 5, 20, 50)


def differences(
    panels: Mapping[str, Mapping[str, Interval | None]],
    *,
    printed: Mapping[str, Mapping[str, float]] | None = None,
    groups: Sequence[int] = (),
    logarithmic: bool = False,
    share_x: bool = False,
) -> Figure:
    """A panel for each measure, a line for each row: the difference and its 95 % interval, in points.

    panels: measure -> row -> interval, or None where a run is missing. Colour and marker say on which side of
    nought an interval lies: blue disc above, red cross below, grey ring on both. printed: measure -> row ->
    the paper's difference, a diamond. groups: numbers of rows after each of which a line is drawn.
    logarithmic: beyond 5 points either way, so that small differences are seen beside large ones.
    share_x: one scale for all panels.
    """
    rows = list(next(iter(panels.values())))
    figure, grid = plt.subplots(
        1, len(panels), sharey=True, squeeze=False,
        figsize=(2.4 + 0.055 * max(map(len, rows)) + 3.4 * len(panels), 0.4 * len(rows) + 1.5),
    )  # fmt: skip
    printed = printed or {}
    every = [_ends(intervals, printed.get(measure, {})) for measure, intervals in panels.items()]
    widest = min(low for low, _ in every), max(high for _, high in every)
    for axes, (measure, intervals), ends in zip(grid[0], panels.items(), every, strict=True):
        beside = printed.get(measure, {})
        if logarithmic:
            axes.set_xscale("symlog", linthresh=5, linscale=1.5)
        _intervals(axes, rows, intervals, beside, widest if share_x else ends, logarithmic)
        unit = "difference in points" + (" (logarithmic beyond 5)" if logarithmic else "")
        axes.set(title=measure, xlabel=unit)
        for place in groups:
            axes.axhline(place - 0.5, color="#CCCCCC", linewidth=1)
    grid[0][0].set_yticks(range(len(rows)), rows)
    grid[0][0].set_ylim(len(rows) - 0.4, -0.6)
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, mfc=fill, linewidth=1.6, label=text)
        for colour, marker, fill, text in (
            (BLUE, "o", BLUE, "interval above 0"),
            (RED, "X", RED, "below 0"),
            (GREY, "o", "white", "on both sides of 0"),
        )
    ]
    if any(printed.values()):
        handles.append(
            plt.Line2D(
                [], [], color=INK, marker="D", mfc="white", linestyle="", label="the paper's, elsewhere"
            )
        )
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _intervals(
    axes: Axes,
    rows: Sequence[str],
    intervals: Mapping[str, Interval | None],
    printed: Mapping[str, float],
    ends: tuple[float, float],
    logarithmic: bool,
) -> None:
    low, high = ends
    margin = 0.06 * max(high - low, 1.0)
    for place, row in enumerate(rows):
        if (diamond := printed.get(row)) is not None:
            axes.plot(diamond, place, "D", color=INK, mfc="white", ms=6, zorder=2)
        found = intervals[row]
        if found is not None:
            drawn = GREY if not found.clear else BLUE if found.mean > 0 else RED
            axes.plot([found.low, found.high], [place, place], color=drawn, linewidth=2, zorder=3)
            marker = "X" if drawn == RED else "o"
            axes.plot(
                found.mean, place, marker, color=drawn, mfc="white" if drawn == GREY else drawn, zorder=4
            )
        # The numbers stand in a column of their own at the right.
        axes.annotate(
            str(found or "missing"), (1.02, place), xycoords=("axes fraction", "data"), va="center",
            fontsize=8.5, annotation_clip=False,
        )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.set_xlim(low - margin, (high + margin) * (1.3 if logarithmic else 1))
    ticks = _LOGARITHMIC_TICKS if logarithmic else MaxNLocator(5).tick_values(low, high)
    shown = [tick for tick in ticks if low - margin <= tick <= high + margin]
    axes.set_xticks(shown, [f"{tick:g}".replace("-", "−") for tick in shown])
    axes.minorticks_off()
    axes.grid(axis="y", visible=False)


def _ends(intervals: Mapping[str, Interval | None], printed: Mapping[str, float]) -> tuple[float, float]:
    """From where to where a panel's marks reach, nought among them."""
    ends = [end for i in intervals.values() if i for end in (i.low, i.high)] + list(printed.values())
    return min([0.0, *ends]), max([0.0, *ends])


def turned(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Spread]]]],
    *,
    xlabels: Mapping[str, str] | str,
    ylabel: str,
    dashed: Sequence[str] = (),
    usual: Mapping[str, float] | None = None,
    evenly: bool = False,
    share_y: bool = True,
) -> Figure:
    """A panel for each title, a line for each series: scores over a setting, with intervals over the seeds.

    panels: title -> series -> (setting, score) in order; a missing score leaves a gap. xlabels: of each
    panel, or of all. dashed: series that are printed elsewhere and were not measured here. usual: the
    setting to mark in each panel. evenly: settings at equal distances whatever they are, as for λ.
    """
    titles, names = list(panels), list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure, grid = plt.subplots(
        1, len(panels), sharey=share_y, squeeze=False, figsize=(3.3 * len(panels) + 0.9, 3.4)
    )
    solid = [name for name in names if name not in dashed]
    colours = dict(zip(solid, PALETTE * len(names), strict=False)) | dict.fromkeys(dashed, GREY)
    for axes, title in zip(grid[0], titles, strict=True):
        settings = sorted({setting for line in panels[title].values() for setting, _ in line})
        places = {setting: place if evenly else setting for place, setting in enumerate(settings)}
        for index, name in enumerate(names):
            if not (line := panels[title].get(name)):
                continue
            means = np.array([spread.mean for _, spread in line])
            errors = np.array([spread.half_width or 0.0 for _, spread in line])
            axes.errorbar(
                [places[setting] for setting, _ in line], means,
                yerr=errors if errors.any() else None,
                color=colours[name], marker=_MARKERS[index % len(_MARKERS)], capsize=3, ms=5,
                linestyle="--" if name in dashed else "-", linewidth=1.6,
                label=name, mfc="white" if name in dashed else None,
            )  # fmt: skip
        axes.set_xticks(list(places.values()), [f"{setting:g}" for setting in settings])
        if usual and title in usual:
            axes.axvline(places[usual[title]], color=INK, linestyle=(0, (1, 1.5)), linewidth=1.6, zorder=0.9)
        axes.set(title=title, xlabel=xlabels if isinstance(xlabels, str) else xlabels[title])
    grid[0][0].set_ylabel(ylabel)
    handles, texts = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(texts), 4), frameon=False)
    return figure


def switched_off(panels: Mapping[str, Mapping[str, np.ndarray]], *, threshold: float) -> Figure:
    """Norms of a layer's input units, as shares of the largest, sorted; on a logarithmic scale.

    panels: title -> row -> norms (C,) or (P, C). What lies below ``threshold`` counts as switched off.
    """
    figure, grid = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(4.6 * len(panels), 4.6))
    for axes, (title, lines) in zip(grid[0], panels.items(), strict=True):
        for index, (name, norms_c) in enumerate(lines.items()):
            shares = np.sort(norms_c.ravel() / norms_c.max())[::-1]
            off = int((shares < threshold).sum())
            axes.plot(
                100 * (np.arange(len(shares)) + 0.5) / len(shares), np.maximum(shares, 1e-6),
                color=PALETTE[index % len(PALETTE)], linestyle=("-", "--", "-.", ":")[index % 4],
                label=f"{name}: {off} of {len(shares)} off",
            )  # fmt: skip
        axes.axhline(threshold, color=INK, linewidth=1, linestyle=":")
        axes.set(title=title, xlabel="input units, strongest first (%)", yscale="log", xlim=(0, 100))
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(-0.02, -0.2))
    grid[0][0].set_ylabel("norm, as a share of the largest")
    return figure


def which_switched_off(
    panels: Mapping[str, Mapping[str, np.ndarray]], *, threshold: float, part: str = "stripe"
) -> Figure:
    """Every input unit in its place: its norm as a share of the layer's largest, as a colour; grey: off.

    panels: title -> row -> norms (C,), or (P, C) for a layer of P parts, which then stand side by side.
    """
    rows = list(next(iter(panels.values())))
    figure, grid = plt.subplots(
        len(panels), 1, squeeze=False, figsize=(9.2, len(panels) * (0.3 * len(rows) + 1.2))
    )
    colours = plt.get_cmap("viridis").with_extremes(under="#D9D9D9")
    for axes, (title, lines) in zip(grid[:, 0], panels.items(), strict=True):
        shares = np.stack([(norms / norms.max()).reshape(-1) for norms in lines.values()])
        drawn = axes.imshow(
            shares, cmap=colours, norm=LogNorm(threshold, 1), aspect="auto", interpolation="nearest"
        )
        shape = next(iter(lines.values())).shape
        for index in range(shape[0] if len(shape) > 1 else 0):
            left = index * shape[1] - 0.5
            axes.axvline(left, color="white", linewidth=3)
            axes.text(left + shape[1] / 2, -0.65, f"{part} {index + 1}", ha="center", va="bottom", fontsize=9)
        axes.set_title(title, loc="left", pad=18 if len(shape) > 1 else 6)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks([])
        axes.set_xlabel("input units")
        axes.grid(visible=False)
        for line in range(1, len(rows)):
            axes.axhline(line - 0.5, color="white", linewidth=2)
    figure.colorbar(drawn, ax=list(grid[:, 0]), extend="min", label="norm, as a share of the largest")
    return figure
