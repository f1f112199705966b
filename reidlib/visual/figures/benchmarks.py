"""Figures of scores on benchmarks: the papers' tables, protocols, sets a network was not trained on, curves.

Learning curves are over training persons, and over images of each.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reidlib.analysis.learning_curves import MEASURE, Curve, Point
from reidlib.analysis.scores import Spread
from reidlib.experiments.evaluate import ProtocolRank1
from reidlib.visual import BLUE, GREEN, GREY, INK, PALETTE, RED
from reidlib.visual.figures.scores import NETWORKS

_MARKERS = "osD^v"


def protocol_scores(studies: Mapping[str, Sequence[ProtocolRank1]]) -> Figure:
    """Draw rank-1 of the same features under each evaluation protocol.

    Args:
        studies: "jlml" or "pyramid" to the result of ``experiments.evaluate.compare_protocols``; all
            results have the same protocols.

    Returns:
        The figure, with a line per protocol and a marker per network.
    """
    labels = [
        f"{score.name}\n{_gallery_size(*score.gallery_sizes)}" for score in next(iter(studies.values()))
    ]
    figure, axes = plt.subplots(figsize=(8.2, 0.5 * len(labels) + 1.2))
    for order, (row, scores) in enumerate(studies.items()):
        marker, colour, title = NETWORKS[row]
        shares = [100 * score.rank1 for score in scores]
        axes.plot(
            shares, range(len(labels)), marker, color=colour, markersize=8, label=title,
            clip_on=False, zorder=3,
        )  # fmt: skip
        rise = 7 if order == 0 else -13  # above and below the marker, for networks with equal scores
        for y, share in enumerate(shares):
            # A centred label would cross the y axis if the score is near zero.
            shift, side = (4, "left") if share < 4 else (0, "center")
            axes.annotate(
                f"{share:.1f}", (share, y), (shift, rise), textcoords="offset points", ha=side,
                fontsize=8, color=INK,
            )  # fmt: skip
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.7)
    _scale_rank1(axes, min(100 * way.rank1 for ways in studies.values() for way in ways))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(studies))
    return figure


def published_rank1(tables: Mapping[str, Mapping[str, tuple[float, str]]]) -> Figure:
    """Draw rank-1 of every row of the papers' tables, with a line per table and a marker per row.

    Args:
        tables: Title of a table to row to rank-1 in per cent and its origin: "paper" (JLML or Pyramid),
            "other", "measured" (a learnt metric of notebook 40), or a row of this suite
            (``benchmark_runs.own_rows``), with " (not comparable)" appended for a small profile or for a part
            of the benchmark.

    Returns:
        The figure.
    """
    looks = {  # marker, its size, edge colour, face colour, legend
        # Under the diamond of a nearly equal score, beyond which its ends are seen.
        "other": ("|", 15, GREY, GREY, "other published rows"),
        "paper": ("D", 7, BLUE, BLUE, "JLML or Pyramid, published"),
        "measured": ("o", 8, GREEN, "none", "learnt metrics, measured here (notebook 40)"),
    }
    for row, marker, size, title in (
        ("jlml", "*", 12, "JLML"),
        ("pyramid", "^", 9, "Pyramid"),
        ("pyramid-official", "v", 9, "Pyramid (official)"),
        ("pyramid-youreid", "<", 9, "Pyramid (YouReID)"),
    ):
        legend = f"{title} of this suite"
        looks[row] = (marker, size, RED, RED, legend)
        looks[f"{row} (not comparable)"] = (marker, size, RED, "white", f"{legend}, not comparable")
    figure, axes = plt.subplots(figsize=(8.2, 0.42 * len(tables) + 1.6))
    markers = {}
    for y, rows in enumerate(tables.values()):
        values = [value for value, _ in rows.values()]
        axes.plot([min(values), max(values)], [y, y], color="#DDDDDD", linewidth=1, zorder=1)
        for value, origin in rows.values():
            marker, size, colour, face, _ = looks[origin]
            (markers[origin],) = axes.plot(
                value, y, marker, color=colour, markersize=size, markerfacecolor=face,
                markeredgewidth=1.5, clip_on=False, zorder=2 if origin == "other" else 3,
            )  # fmt: skip
    axes.set_yticks(range(len(tables)), list(tables))
    axes.set_ylim(len(tables) - 0.5, -0.5)
    _scale_rank1(axes, min(value for rows in tables.values() for value, _ in rows.values()))
    handles = [markers[origin] for origin in looks if origin in markers]
    texts = [looks[origin][-1] for origin in looks if origin in markers]
    figure.legend(handles, texts, loc="outside upper center", ncols=min(2, len(texts)))
    return figure


def across_scores(rank1: pd.DataFrame, precision: pd.DataFrame) -> Figure:
    """Draw R1 and mAP of networks by what they were trained on and what they are tested on.

    Args:
        rank1: R1 as ``analysis.benchmark_runs.AcrossScores.spreads`` returns it: a line for each network and
            training, a column for each tested set.
        precision: mAP in the same form.

    Returns:
        The figure: a table for each network, its cells coloured by R1.
    """
    networks = list(dict.fromkeys(rank1.index.get_level_values(0)))
    size = (1.75 * rank1.shape[1] + 2.2, 0.95 * len(rank1) + 1.2 * len(networks) + 0.4)
    heights = [max(1, len(rank1.loc[network])) for network in networks]
    figure, grid = plt.subplots(len(networks), 1, squeeze=False, figsize=size, height_ratios=heights)
    for axes, network in zip(grid.flat, networks, strict=True):
        both = [frame.loc[network] for frame in (rank1, precision)]
        values_rc = both[0].map(lambda cell: cell.mean if isinstance(cell, Spread) else np.nan)
        for (y, x), cell in np.ndenumerate(both[0].to_numpy()):
            if isinstance(cell, Spread):
                other = both[1].iloc[y, x].mean
                text, colour = f"R1 {cell.mean:.1f}\nmAP {other:.1f}", "white" if cell.mean > 60 else INK
            else:
                text, colour = cell, INK
            axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)
        axes.imshow(values_rc.to_numpy(float), cmap="Blues", vmin=0, vmax=100, aspect="auto")
        axes.set_xticks(
            range(len(values_rc.columns)), [textwrap.fill(name, 20) for name in values_rc.columns]
        )
        axes.set_yticks(range(len(values_rc)), [textwrap.fill(name, 24) for name in values_rc.index])
        axes.tick_params(labelsize=8)
        axes.grid(visible=False)
        title = NETWORKS[network][2] if network in NETWORKS else network
        axes.set(title=title, xlabel="tested on", ylabel="trained on")
    return figure


def _scale_rank1(axes: Axes, smallest: float) -> None:
    """Scale the x axis up to 100, from 0 if values come near it, else from slightly below all values."""
    axes.set_xlim(0 if smallest < 20 else smallest - 2 - 0.05 * (100 - smallest), 100)
    axes.set_xlabel("rank-1 (%)")


def _gallery_size(smallest: int, largest: int) -> str:
    numbers = f"{largest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    return f"gallery of {numbers} entries"


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
    both = len(images) > 1
    figure, grid = plt.subplots(
        1, 1 + both, figsize=(9.6 if both else 8.0, 4.4), sharey=True, width_ratios=(3, 2)[: 1 + both],
        squeeze=False,
    )  # fmt: skip
    left, *right = grid[0]
    for number, start in enumerate(curve.starts):
        shift = number - (len(curve.starts) - 1) / 2  # so that bars do not cover each other
        points = curve.points(start)
        places = [curve.persons(point) * 1.04**shift for point in points]
        label = f"from {curve.start_title(start)}"
        _draw(left, places, points, curve, measure, number, label)
        points = [point for point in curve.found if point.start == start and not point.persons]
        points.sort(key=lambda point: point.images or math.inf)
        places = [images.index(point.images or math.inf) + 0.06 * shift for point in points]
        for axes in right:
            _draw(axes, places, points, curve, measure, number)
    left.set(xscale="log", xlabel="training persons (logarithmic), all images of each")
    left.set_ylabel(f"{measure} in per cent")
    left.set_xticks(persons, [f"{n}" for n in persons])
    left.minorticks_off()
    for axes in right:
        axes.set(xlabel="images of each person, all persons", xlim=(-0.4, len(images) - 0.6))
        axes.set_xticks(range(len(images)), ["all" if math.isinf(n) else f"{n:g}" for n in images])
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
