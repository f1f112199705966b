"""Figures of scores: of rows, of differences with their intervals, over a setting, under each protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reidlib.analysis.scores import Spread
from reidlib.analysis.statistics import Interval, signed
from reidlib.experiments.evaluate import Way
from reidlib.visual import BLUE, GREY, INK, ORANGE, PALETTE, RED
from reidlib.visual.figures.images import panel_grid

_MARKERS = "osD^vPX"
_NETWORKS = {"jlml": ("o", BLUE, "JLML"), "pyramid": ("s", ORANGE, "Pyramid")}
# On which side of nought an interval lies: colour, marker, its face, words.
_ABOVE, _BELOW, _BOTH = (
    (BLUE, "o", BLUE, "interval above 0"),
    (RED, "X", RED, "below 0"),
    (GREY, "o", "white", "on both sides of 0"),
)
_LOGARITHMIC_TICKS = (-50, -20, -5, -2, 0, 2, 5, 20, 50)


def cmc_curves(curves: Mapping[str, Mapping[int, float]], colours: Mapping[str, str] | None = None) -> Figure:
    """Cumulative match characteristic of several features: rank -> share of queries with a match by then.

    colours: of each curve, where its meaning has one in other figures too; else the palette's in turn.
    """
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    colours = colours or dict(zip(curves, PALETTE * len(curves), strict=False))
    # Colour alone does not tell many curves apart.
    styles = ("-", "--", "-.", ":") if len(curves) > 3 else ("-",)
    for index, (label, curve) in enumerate(curves.items()):
        ranks = sorted(curve)
        axes.step(
            ranks, [100 * curve[rank] for rank in ranks], where="post", label=label,
            color=colours[label], linestyle=styles[index % len(styles)],
        )  # fmt: skip
    axes.set(xlabel="rank", ylabel="queries with a match by this rank (%)", title="CMC curve")
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
    """A panel for each measure and a bar for each row, with its value written on.

    rows: row -> measure -> mean in per cent and half its interval (or None), a bar's length and whisker.
    baseline: the row to which the others' differences are written, too; a dashed line carries its value down.
    """
    measures = list(next(iter(rows.values())))
    colours = colours or {row: GREY if row == baseline else BLUE for row in rows}
    size, count = (3.1, 0.42 * len(rows) + 1.1), len(measures)
    figure, panels = panel_grid(count, size, (2.2, 0), most=count, sharey=True)
    for axes, measure in zip(panels[0], measures, strict=True):
        means = {row: cells[measure].mean for row, cells in rows.items()}
        # The numbers stand in a column behind the longest bar, where no line crosses them.
        ends = [cells[measure].mean + (cells[measure].half_width or 0) for cells in rows.values()]
        longest = np.nanmax([1.0, *ends])
        for place, (row, cells) in enumerate(rows.items()):
            mean, half_width = cells[measure][:2]
            if not np.isfinite(mean):
                axes.text(1.04 * longest, place, str(cells[measure]), va="center", fontsize=9)
                continue
            axes.barh(place, mean, 0.66, color=colours[row], xerr=half_width, error_kw={"lw": 1.2})
            text = f"{mean:.1f}"
            if baseline is not None and row != baseline:
                text += f" ({signed(mean - means[baseline])})"
            axes.text(1.04 * longest, place, text, va="center", fontsize=9)
        if baseline is not None and np.isfinite(means[baseline]):
            axes.axvline(means[baseline], color=INK, linestyle="--", linewidth=1, zorder=0.5)
        axes.set(title=measure, xlabel="per cent", xlim=(0, 1.4 * longest))
        # No ticks under the numbers: a share has no 120 per cent.
        ticks = MaxNLocator(5, integer=True).tick_values(0, longest)
        axes.set_xticks([tick for tick in ticks if tick <= longest])
        axes.grid(axis="y", visible=False)
    panels[0][0].set_yticks(range(len(rows)), list(rows))
    panels[0][0].invert_yaxis()
    return figure


def difference_plot(
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
    size, margin = (3.4, 0.4 * len(rows)), (2.4 + 0.055 * max(map(len, rows)), 1.5)
    figure, grid = panel_grid(len(panels), size, margin, most=len(panels), sharey=True)
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
        plt.Line2D([], [], color=colour, marker=marker, mfc=face, linewidth=1.6, label=text)
        for colour, marker, face, text in (_ABOVE, _BELOW, _BOTH)
    ]
    if any(printed.values()):
        look = {"color": INK, "marker": "D", "mfc": "white", "ls": ""}
        handles.append(plt.Line2D([], [], label="the paper's, elsewhere", **look))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
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
            colour, marker, face, _ = _BOTH if not found.clear else _ABOVE if found.mean > 0 else _BELOW
            axes.plot([found.low, found.high], [place, place], color=colour, linewidth=2, zorder=3)
            axes.plot(found.mean, place, marker, color=colour, mfc=face, zorder=4)
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
    figure, grid = panel_grid(len(panels), (3.3, 3.4), (0.9, 0), most=len(panels), sharey=share_y)
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
    figure.legend(handles, texts, loc="outside lower center", ncols=min(len(texts), 4))
    return figure


def protocols(studies: Mapping[str, Sequence[Way]]) -> Figure:
    """Rank-1 of the same features under each protocol, one sign for each row's features.

    studies: row -> ``evaluate.study_protocols`` of it, all of the same ways.
    """
    labels = [f"{way.name}\n{_entries(*way.gallery)}" for way in next(iter(studies.values()))]
    figure, axes = plt.subplots(figsize=(8.2, 0.5 * len(labels) + 1.2))
    for order, (row, ways) in enumerate(studies.items()):
        marker, colour, title = _NETWORKS[row]
        shares = [100 * way.rank1 for way in ways]
        axes.plot(
            shares, range(len(labels)), marker, color=colour, markersize=8, label=title,
            clip_on=False, zorder=3,
        )  # fmt: skip
        rise = 7 if order == 0 else -13  # labels of equal scores stand above and below
        for place, share in enumerate(shares):
            # A label in the middle over a sign at 0 would lie across the axis.
            shift, side = (4, "left") if share < 4 else (0, "center")
            axes.annotate(
                f"{share:.1f}", (share, place), (shift, rise), textcoords="offset points", ha=side,
                fontsize=8, color=INK,
            )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.7)
    _per_cent(axes, min(100 * way.rank1 for ways in studies.values() for way in ways))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(studies))
    return figure


def printed_rank1(tables: Mapping[str, Mapping[str, tuple[float, str]]]) -> Figure:
    """Rank-1 of every row of some tables: a line a table, a sign a row.

    tables: title -> row -> rank-1 in per cent and whose it is: "paper" (JLML or Pyramid), "other", or the
    name of this suite's row, with " (not comparable)" for a small profile or a part of the benchmark.
    """
    looks = {  # marker, its size, edge, face, words
        "other": ("|", 11, GREY, GREY, "other methods, as printed"),
        "paper": ("D", 7, BLUE, BLUE, "JLML or Pyramid, as printed"),
    }
    for row, marker, size, title in (("jlml", "*", 12, "JLML"), ("pyramid", "^", 9, "Pyramid")):
        words = f"this suite's {title}"
        looks[row] = (marker, size, RED, RED, words)
        looks[f"{row} (not comparable)"] = (marker, size, RED, "white", f"{words}, not comparable")
    figure, axes = plt.subplots(figsize=(8.2, 0.42 * len(tables) + 1.6))
    used = {}
    for place, rows in enumerate(tables.values()):
        values = [value for value, _ in rows.values()]
        axes.plot([min(values), max(values)], [place, place], color="#DDDDDD", linewidth=1, zorder=1)
        for value, kind in rows.values():
            marker, size, colour, face, _ = looks[kind]
            (used[kind],) = axes.plot(
                value, place, marker, color=colour, markersize=size, markerfacecolor=face,
                markeredgewidth=1.5, clip_on=False, zorder=3,
            )  # fmt: skip
    axes.set_yticks(range(len(tables)), list(tables))
    axes.set_ylim(len(tables) - 0.5, -0.5)
    _per_cent(axes, min(value for rows in tables.values() for value, _ in rows.values()))
    handles = [used[kind] for kind in looks if kind in used]
    texts = [looks[kind][-1] for kind in looks if kind in used]
    figure.legend(handles, texts, loc="outside upper center", ncols=min(2, len(texts)))
    return figure


def _per_cent(axes: Axes, smallest: float) -> None:
    """An axis of rank-1 up to 100: from 0 where values come near it, else from a little below all of them."""
    axes.set_xlim(0 if smallest < 20 else smallest - 2 - 0.05 * (100 - smallest), 100)
    axes.set_xlabel("rank-1, per cent")


def _entries(fewest: int, most: int) -> str:
    return f"against {most:,} entries" if fewest == most else f"against {fewest:,} to {most:,} entries"
