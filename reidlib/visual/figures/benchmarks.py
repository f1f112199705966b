"""Figures of the papers' tables and of what a protocol does to a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reidlib.experiments.protocol_study import Way
from reidlib.visual.figures.plots import BLUE, GREY, INK, ORANGE, RED

_MARKERS = {"jlml": ("o", BLUE, "JLML"), "pyramid": ("s", ORANGE, "Pyramid")}


def protocols(studies: Mapping[str, Sequence[Way]]) -> Figure:
    """Rank-1 of the same features under each protocol, one sign for each row's features.

    studies: row -> ``protocol_study.study`` of it, all of the same ways.
    """
    names = [way.name for way in next(iter(studies.values()))]
    entries = [way.gallery for way in next(iter(studies.values()))]
    figure, axes = plt.subplots(figsize=(8.2, 0.5 * len(names) + 1.2))
    for order, (row, ways) in enumerate(studies.items()):
        marker, colour, title = _MARKERS[row]
        shares = [100 * way.rank1 for way in ways]
        axes.plot(
            shares, range(len(names)), marker, color=colour, markersize=8, label=title,
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
    labels = [f"{name}\n{_entries(*sizes)}" for name, sizes in zip(names, entries, strict=True)]
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.5, -0.7)
    _per_cent(axes, min(100 * way.rank1 for ways in studies.values() for way in ways))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(studies), frameon=False)
    return figure


def printed_rank1(tables: Mapping[str, Mapping[str, tuple[float, str]]]) -> Figure:
    """Rank-1 of every row of some tables: a line a table, a sign a row.

    tables: title -> row -> rank-1 in per cent and whose it is: "paper" (JLML or Pyramid), "other", or the
    name of this suite's row, with " (not comparable)" for a small profile or a part of the benchmark.
    """
    looks = {
        "other": ("|", GREY, "other methods, as printed"),
        "paper": ("D", BLUE, "JLML or Pyramid, as printed"),
    }
    for row, marker, title in (("jlml", "*", "JLML"), ("pyramid", "^", "Pyramid")):
        looks[row] = (marker, RED, f"this suite's {title}")
        looks[f"{row} (not comparable)"] = (marker, RED, f"this suite's {title}, not comparable")
    figure, axes = plt.subplots(figsize=(8.2, 0.42 * len(tables) + 1.6))
    used = {}
    for place, rows in enumerate(tables.values()):
        values = [value for value, _ in rows.values()]
        axes.plot([min(values), max(values)], [place, place], color="#DDDDDD", linewidth=1, zorder=1)
        for value, kind in rows.values():
            marker, colour, _ = looks[kind]
            size = {"|": 11, "D": 7, "*": 12, "^": 9}[marker]
            face = "white" if kind.endswith("(not comparable)") else colour
            (used[kind],) = axes.plot(
                value, place, marker, color=colour, markersize=size, markerfacecolor=face,
                markeredgewidth=1.5, clip_on=False, zorder=3,
            )  # fmt: skip
    axes.set_yticks(range(len(tables)), list(tables))
    axes.set_ylim(len(tables) - 0.5, -0.5)
    _per_cent(axes, min(value for rows in tables.values() for value, _ in rows.values()))
    handles = [used[kind] for kind in looks if kind in used]
    texts = [looks[kind][2] for kind in looks if kind in used]
    figure.legend(handles, texts, loc="outside upper center", ncols=min(2, len(texts)), frameon=False)
    return figure


def _per_cent(axes: Axes, smallest: float) -> None:
    """An axis of rank-1 up to 100: from 0 where values come near it, else from a little below all of them."""
    axes.set_xlim(0 if smallest < 20 else smallest - 2 - 0.05 * (100 - smallest), 100)
    axes.set_xlabel("rank-1, per cent")


def _entries(fewest: int, most: int) -> str:
    return f"against {most:,} entries" if fewest == most else f"against {fewest:,} to {most:,} entries"
