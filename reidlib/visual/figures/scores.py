"""Figures of scores: bars, differences with intervals, and curves over a setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reidlib.analysis.claims.agreement import Difference
from reidlib.analysis.scores import Spread
from reidlib.analysis.statistics import Interval, format_difference
from reidlib.visual import BLUE, GREY, INK, ORANGE, PALETTE, RED
from reidlib.visual.figures.images import panel_grid

_MARKERS = "osD^vPX"
# Marker, colour and title of each network.
NETWORKS = {"jlml": ("o", BLUE, "JLML"), "pyramid": ("s", ORANGE, "Pyramid")}
# Colour, marker, face colour of the marker, and legend of an interval, by its position relative to zero.
_ABOVE, _BELOW, _BOTH = (
    (BLUE, "o", BLUE, "interval above 0"),
    (RED, "X", RED, "below 0"),
    (GREY, "o", "white", "contains 0"),
)
_LOGARITHMIC_TICKS = (-50, -20, -5, -2, 0, 2, 5, 20, 50)


def cmc_curves(curves: Mapping[str, Mapping[int, float]], colours: Mapping[str, str] | None = None) -> Figure:
    """Draw the cumulative match characteristic (CMC) of several features.

    Args:
        curves: Name of a feature to rank to share of queries with a match up to this rank, between 0 and 1.
        colours: Colour of each curve; by default the colours of the palette in their order.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    colours = colours or dict(zip(curves, PALETTE * len(curves), strict=False))
    # Many curves cannot be told apart by colour alone.
    styles = ("-", "--", "-.", ":") if len(curves) > 3 else ("-",)
    for index, (label, curve) in enumerate(curves.items()):
        ranks = sorted(curve)
        axes.step(
            ranks, [100 * curve[rank] for rank in ranks], where="post", label=label,
            color=colours[label], linestyle=styles[index % len(styles)],
        )  # fmt: skip
    axes.set(xlabel="rank", ylabel="queries with a match up to this rank (%)", title="CMC curve")
    axes.set_ylim(top=100.8)
    last = max(max(curve) for curve in curves.values())
    axes.set_xticks([rank for rank in (1, 5, 10, 20, 30, 40, 50, 100) if rank <= last])
    axes.set_xlim(0.5, last + 0.5)
    axes.legend(loc="lower right", ncols=1 + (len(curves) > 4))
    return figure


def score_bars(
    rows: Mapping[str, Mapping[str, Spread]],
    *,
    baseline: str | None = None,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Draw scores as bars, with a panel per measure and a bar per row.

    Args:
        rows: Row to measure to its mean (the bar's length) and half its interval (the whisker), in per cent.
        baseline: Row whose difference to every other row is written beside the bars, in points. A dashed
            line marks its score.
        colours: Colour of each row; by default grey for the baseline and blue for the others.

    Returns:
        The figure.
    """
    measures = list(next(iter(rows.values())))
    colours = colours or {row: GREY if row == baseline else BLUE for row in rows}
    size, count = (3.1, 0.42 * len(rows) + 1.1), len(measures)
    figure, panels = panel_grid(count, size, (2.2, 0), max_columns=count, sharey=True)
    for axes, measure in zip(panels[0], measures, strict=True):
        means = {row: cells[measure].mean for row, cells in rows.items()}
        # The numbers form a column to the right of the longest bar, where no line crosses them.
        ends = [cells[measure].mean + (cells[measure].half_width or 0) for cells in rows.values()]
        longest = np.nanmax([1.0, *ends])
        for y, (row, cells) in enumerate(rows.items()):
            mean, half_width = cells[measure][:2]
            if not np.isfinite(mean):
                axes.text(1.04 * longest, y, str(cells[measure]), va="center", fontsize=9)
                continue
            axes.barh(y, mean, 0.66, color=colours[row], xerr=half_width, error_kw={"lw": 1.2})
            text = f"{mean:.1f}"
            if baseline is not None and row != baseline:
                text += f" ({format_difference(mean - means[baseline])})"
            axes.text(1.04 * longest, y, text, va="center", fontsize=9)
        if baseline is not None and np.isfinite(means[baseline]):
            axes.axvline(means[baseline], color=INK, linestyle="--", linewidth=1, zorder=0.5)
        axes.set(title=measure, xlabel="per cent", xlim=(0, 1.4 * longest))
        # Ticks end at the longest bar: a tick under the numbers could read 120 per cent.
        ticks = MaxNLocator(5, integer=True).tick_values(0, longest)
        axes.set_xticks([tick for tick in ticks if tick <= longest])
        axes.grid(axis="y", visible=False)
    panels[0][0].set_yticks(range(len(rows)), list(rows))
    panels[0][0].set_ylim(len(rows) - 0.5, -0.5)  # also where the first or last row is missing
    return figure


def difference_plot(
    panels: Mapping[str, Mapping[str, Interval | None]],
    *,
    published: Mapping[str, Mapping[str, float]] | None = None,
    groups: Sequence[int] = (),
    logarithmic: bool = False,
    share_x: bool = False,
) -> Figure:
    """Draw differences with their 95 % intervals, with a panel per measure and a line per row.

    A blue disc marks an interval above zero, a red cross one below zero, a grey ring one that contains zero.

    Args:
        panels: Measure to row to interval in points; None if a run is missing.
        published: Measure to row to the difference that the paper published, in points; drawn as a diamond.
        groups: Numbers of rows, from 1, after which a separating line is drawn.
        logarithmic: Whether the scale is logarithmic beyond ±5 points, which keeps small differences
            visible beside large ones.
        share_x: Whether all panels have the same limits.

    Returns:
        The figure.
    """
    rows = list(next(iter(panels.values())))
    size, margin = (3.4, 0.4 * len(rows)), (2.4 + 0.055 * max(map(len, rows)), 1.5)
    figure, grid = panel_grid(len(panels), size, margin, max_columns=len(panels), sharey=True)
    published = published or {}
    all_limits = [_limits(intervals, published.get(measure, {})) for measure, intervals in panels.items()]
    widest = min(low for low, _ in all_limits), max(high for _, high in all_limits)
    for axes, (measure, intervals), limits in zip(grid[0], panels.items(), all_limits, strict=True):
        if logarithmic:
            axes.set_xscale("symlog", linthresh=5, linscale=1.5)
        limits = widest if share_x else limits
        _draw_intervals(axes, rows, intervals, published.get(measure, {}), limits, logarithmic)
        unit = "difference in points" + (" (logarithmic beyond ±5)" if logarithmic else "")
        axes.set(title=measure, xlabel=unit)
        for count in groups:
            axes.axhline(count - 0.5, color="#CCCCCC", linewidth=1)
    grid[0][0].set_yticks(range(len(rows)), rows)
    grid[0][0].set_ylim(len(rows) - 0.4, -0.6)
    handles = [
        Line2D([], [], color=colour, marker=marker, mfc=face, linewidth=1.6, label=text)
        for colour, marker, face, text in (_ABOVE, _BELOW, _BOTH)
    ]
    if any(published.values()):
        label = "published by the paper"
        handles.append(Line2D([], [], color=INK, marker="D", mfc="white", ls="", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


def agreement_plot(differences: Sequence[Difference], first: str, second: str) -> Figure:
    """Draw differences on one benchmark over those on another, each with both intervals.

    Blue discs are JLML's rows, orange squares Pyramid's; a number beside each is its line in the list on the
    right. Differences on the dashed diagonal are equal on both benchmarks.

    Args:
        differences: The differences, in points (``analysis.claims.agreement``).
        first: Name of the first benchmark.
        second: Name of the second one.

    Returns:
        The figure.
    """
    lines = [f"{number}  {pair.label}" for number, pair in enumerate(differences, 1)]
    width = 5.6 + 0.068 * max(map(len, lines), default=0)
    figure, axes = plt.subplots(figsize=(width, max(5.4, 0.6 + 0.24 * len(lines))))
    values = [end for pair in differences for i in pair[2:] for end in (i.low, i.mean, i.high)]
    values = [*filter(math.isfinite, values)]
    low, high = min([-1.0, *values]), max([1.0, *values])
    limits = 1.25 * low, 1.25 * high
    axes.axhline(0, color=INK, linewidth=1)
    axes.axvline(0, color=INK, linewidth=1)
    axes.plot(limits, limits, color=GREY, linestyle="--", linewidth=1)
    colours = {title: (marker, colour) for marker, colour, title in NETWORKS.values()}
    for pair in differences:
        marker, colour = colours[pair.paper]
        x, y = pair.first, pair.second
        axes.plot([x.low, x.high], [y.mean, y.mean], color=colour, linewidth=1, alpha=0.6)
        axes.plot([x.mean, x.mean], [y.low, y.high], color=colour, linewidth=1, alpha=0.6)
        axes.plot(x.mean, y.mean, marker, color=colour, ms=7)
    for axis, name in (("x", first), ("y", second)):
        getattr(axes, f"set_{axis}scale")("symlog", linthresh=5, linscale=1.5)
        ticks = [tick for tick in _LOGARITHMIC_TICKS if limits[0] <= tick <= limits[1]]
        getattr(axes, f"set_{axis}ticks")(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
        getattr(axes, f"set_{axis}lim")(*limits)
        getattr(axes, f"set_{axis}label")(f"difference on {name},\nin points of mAP")
    axes.minorticks_off()
    axes.set_box_aspect(1)
    shown = {pair.paper for pair in differences}
    handles = [
        Line2D([], [], color=colour, marker=marker, ls="", label=title)
        for title, (marker, colour) in colours.items()
        if title in shown
    ]
    handles.append(Line2D([], [], color=GREY, ls="--", label="equal on both"))
    axes.legend(handles=handles, loc="lower right", fontsize=9)
    axes.annotate(
        "\n".join(lines), (1.04, 1), xycoords="axes fraction", va="top", fontsize=9, annotation_clip=False,
        linespacing=1.5,
    )  # fmt: skip
    figure.draw_without_rendering()  # so that the places of points are known
    _number(axes, [(pair.first.mean, pair.second.mean) for pair in differences], figure.dpi / 72)
    return figure


def _number(axes: Axes, points: Sequence[tuple[float, float]], points_to_pixels: float) -> None:
    """Write each point's number at the corner that is farthest from other points and numbers."""
    taken = [*axes.transData.transform(points)] if points else []
    for number, (point, place) in enumerate(zip(points, taken[:], strict=True), 1):
        corners = [(9, 9), (-9, 9), (9, -9), (-9, -9)]  # the first of equally good ones
        free = [min(math.dist(place + points_to_pixels * np.array(c), t) for t in taken) for c in corners]
        corner = corners[int(np.argmax(np.minimum(free, 11 * points_to_pixels)))]
        taken.append(place + points_to_pixels * np.array(corner))
        axes.annotate(
            str(number), point, corner, textcoords="offset points", fontsize=9, ha="center", va="center"
        )


def _draw_intervals(
    axes: Axes,
    rows: Sequence[str],
    intervals: Mapping[str, Interval | None],
    printed: Mapping[str, float],
    limits: tuple[float, float],
    logarithmic: bool,
) -> None:
    low, high = limits
    margin = 0.06 * max(high - low, 1.0)
    for y, row in enumerate(rows):
        if (published := printed.get(row)) is not None:
            axes.plot(published, y, "D", color=INK, mfc="white", ms=6, zorder=2)
        interval = intervals[row]
        if interval is not None:
            look = _BOTH if not interval.excludes_zero else _ABOVE if interval.mean > 0 else _BELOW
            colour, marker, face, _ = look
            if math.isfinite(interval.low):  # one person and one seed have a mean alone
                axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=2, zorder=3)
            axes.plot(interval.mean, y, marker, color=colour, mfc=face, zorder=4)
        # The numbers form a column to the right of the axes.
        axes.annotate(
            str(interval or "missing"), (1.02, y), xycoords=("axes fraction", "data"), va="center",
            fontsize=8.5, annotation_clip=False,
        )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=1, zorder=1)
    axes.set_xlim(low - margin, (high + margin) * (1.3 if logarithmic else 1))
    ticks = _LOGARITHMIC_TICKS if logarithmic else MaxNLocator(5).tick_values(low, high)
    ticks = [tick for tick in ticks if low - margin <= tick <= high + margin]
    axes.set_xticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="y", visible=False)


def _limits(intervals: Mapping[str, Interval | None], printed: Mapping[str, float]) -> tuple[float, float]:
    """Return the smallest and the largest value of a panel, zero included."""
    values = [end for i in intervals.values() if i for end in (i.low, i.mean, i.high)] + list(
        printed.values()
    )
    finite = [0.0, *filter(math.isfinite, values)]
    return min(finite), max(finite)


def score_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, Spread]]]],
    *,
    xlabels: Mapping[str, str] | str,
    ylabel: str,
    dashed: Sequence[str] = (),
    default: Mapping[str, float] | None = None,
    equal_spacing: bool = False,
    share_y: bool = True,
    notes: Mapping[float, str] | None = None,
) -> Figure:
    """Draw scores over the values of a setting, with 95 % intervals over the seeds.

    Args:
        panels: Title of a panel to series to (value of the setting, score), in the order of the values. A
            missing score leaves a gap.
        xlabels: Label of the x axis, for each panel or for all.
        ylabel: Label of the y axis.
        dashed: Series that were published and not measured here; they are grey and dashed.
        default: Value of the setting that a vertical line marks, for each panel.
        equal_spacing: Whether the values are drawn at equal distances, as for the strength of a loss.
        share_y: Whether all panels share one y axis.
        notes: Text below a value on the x axis.

    Returns:
        The figure.
    """
    titles, names = list(panels), list(dict.fromkeys(name for series in panels.values() for name in series))
    figure, grid = panel_grid(len(panels), (3.3, 3.4), (0.9, 0), max_columns=len(panels), sharey=share_y)
    measured = [name for name in names if name not in dashed]
    colours = dict(zip(measured, PALETTE * len(names), strict=False)) | dict.fromkeys(dashed, GREY)
    for axes, title in zip(grid[0], titles, strict=True):
        settings = sorted({setting for line in panels[title].values() for setting, _ in line})
        positions = {setting: index if equal_spacing else setting for index, setting in enumerate(settings)}
        for index, name in enumerate(names):
            if not (line := panels[title].get(name)):
                continue
            means = np.array([spread.mean for _, spread in line])
            errors = np.array([spread.half_width or 0.0 for _, spread in line])
            axes.errorbar(
                [positions[setting] for setting, _ in line], means,
                yerr=errors if errors.any() else None,
                color=colours[name], marker=_MARKERS[index % len(_MARKERS)], capsize=3, ms=5,
                linestyle="--" if name in dashed else "-", linewidth=1.6,
                label=name, mfc="white" if name in dashed else None,
            )  # fmt: skip
        labels = [f"{setting:g}\n{(notes or {}).get(setting, '')}".rstrip() for setting in settings]
        axes.set_xticks(list(positions.values()), labels)
        if default and title in default:
            axes.axvline(
                positions[default[title]], color=INK, linestyle=(0, (1, 1.5)), linewidth=1.6, zorder=0.9
            )
        axes.set(title=title, xlabel=xlabels if isinstance(xlabels, str) else xlabels[title])
    grid[0][0].set_ylabel(ylabel)
    handles, texts = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(texts), 4))
    return figure
