"""Pictures of part-wise attention: maps on images, all parts on one scale; and what blanking them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine

from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart
from reidlib.visual import GREY, INK
from reidlib.visual.attention.deletion import Deletion
from reidlib.visual.attention.maps import pixel_rows, places_by_kind
from reidlib.visual.attention.pairs import AnswerPairs
from reidlib.visual.figures.images import in_lines, panel_grid
from reidlib.visual.figures.models import kind_colour

# Of an image, at least, in inches: a part's name fits over it, and a square one is not a stamp.
_WIDTH, _HEIGHT = 0.66, 1.3
_HEAT = 0.65  # share of the map's colour in a pixel; the rest is the image in grey
# Small values count: a wide part spreads its similarity over many cells.
_ROOT = 0.5
_COLOURS = colormaps["magma"](np.linspace(0, 1, 256))[:, :3]
# A density: cells of all sizes have one scale, and a small spot may have more than 1.
_SCALE_LABEL = "similarity per 256 pixels (root scale, the same for all maps; at its end: or more)"


class MapRow(NamedTuple):
    """A line of images: one plain, then the same with each part's map."""

    label: str
    image_hwc: np.ndarray  # uint8
    maps_phw: np.ndarray  # raw, of part_attention
    captions: Sequence[str] = ()  # under each part's


def pair_figure(
    query_hwc: np.ndarray,
    gallery_hwc: np.ndarray,
    query_maps_phw: np.ndarray,
    gallery_maps_phw: np.ndarray,
    parts: Sequence[FeaturePart],
    *,
    similarities_p: Sequence[float] | None = None,
    title: str = "",
) -> Figure:
    """What in each of two images supports their similarity: a row of images for either, a column a part.

    Images are uint8 ``(H, W, 3)``, maps raw ``(P, H, W)`` (``part_attention``; below zero counts as zero).
    similarities_p: of each part, written under its column.
    All maps have one scale, which the bar at the foot explains. What a part does not see is pale.
    Raises InputError where shapes do not fit.
    """
    captions = () if similarities_p is None else [format_number(value) for value in similarities_p]
    rows = (
        MapRow("query", query_hwc, query_maps_phw),
        MapRow("gallery", gallery_hwc, gallery_maps_phw, captions),
    )
    return sheet(rows, parts, title=title)


def sheet(rows: Sequence[MapRow], parts: Sequence[FeaturePart], *, title: str = "") -> Figure:
    """Rows of images with the maps of all parts on one scale; many parts are wrapped, each kind whole.

    Raises InputError where shapes do not fit.
    """
    _check(rows, parts)
    height, width = rows[0].image_hwc.shape[:2]
    lines = in_lines(places_by_kind(parts).values())
    inch = min(width / _WIDTH, height / _HEIGHT)  # pixels of an image for an inch
    gap, name, level, caption = 0.05 * inch, 0.17 * inch, 0.2 * inch, 0.19 * inch
    longest = max(len(words) for row in rows for words in row.label.split("\n"))
    margin = (0.075 * longest + 0.1) * inch
    # Of each row and of the end, below the names.
    tops = np.cumsum([0, *(height + gap + (caption if row.captions else 0) for row in rows)])
    tall = level + name + tops[-1]
    columns = 1 + max(len(line) for line in lines)
    breaks = max(len({parts[place].kind for place in line}) for line in lines)
    size = (round(margin + columns * (width + gap) + breaks * 3 * gap), round(len(lines) * tall))
    canvas = np.full((size[1], size[0], 3), 255, np.uint8)
    supporting = np.concatenate([row.maps_phw[row.maps_phw > 0] for row in rows])
    # Single peaks of a fine map would leave all else dark: the brightest hundredth has one colour.
    scale = float(np.quantile(supporting, 0.99)) if supporting.size else 1e-9
    painted = [_painted(row, parts, scale) for row in rows]
    texts = []  # x, y, words, alignment, and more
    for number, line in enumerate(lines):
        top = number * tall + level + name
        left, before = margin, None
        for place in (None, *line):  # None: the plain image
            kind = None if place is None else parts[place].kind
            if kind != before:
                left += 3 * gap
                bold = {"fontsize": 9, "fontweight": "bold", "color": kind_colour(kind), "ha": "left"}
                texts.append((left, top - name, kind, bold))
            before = kind
            words = "image" if place is None else parts[place].name
            if words != kind:
                texts.append((left + width / 2, top - 0.02 * inch, words, {"ha": "center"}))
            for index, row in enumerate(rows):
                y = round(top + tops[index])
                shown = row.image_hwc if place is None else painted[index][place]
                canvas[y : y + height, round(left) : round(left) + width] = shown
                if place is None:
                    side = {"ha": "right", "va": "center", "fontsize": 9, "linespacing": 1.1}
                    texts.append((left - 2 * gap, y + height / 2, row.label, side))
                elif row.captions:
                    under = {"ha": "center", "va": "top", "color": INK}
                    texts.append((left + width / 2, y + height + 0.02 * inch, row.captions[place], under))
            left += width + gap
    return _draw(canvas, texts, inch, scale, title)


def averages(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    parts: Sequence[FeaturePart],
    *,
    similarities: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> Figure:
    """Average maps of groups of images, such as right and wrong matches, each on the group's average image.

    groups: name -> images uint8 ``(N, H, W, 3)`` and their maps ``(N, P, H, W)``. similarities: name -> the
    average of each part, written under it. All groups have one scale.
    """
    rows = []
    for name, (images_nhwc, maps_nphw) in groups.items():
        numbers = [] if similarities is None else [format_number(value) for value in similarities[name]]
        image_hwc = images_nhwc.mean(0).round().astype(np.uint8)
        # What speaks against the similarity is no support, in single maps or in their average.
        rows.append(MapRow(name, image_hwc, np.maximum(maps_nphw, 0).mean(0), numbers))
    return sheet(rows, parts, title=title)


def wrong_answer(found: AnswerPairs, place: int, kinds: Sequence[str], *, title: str = "") -> Figure:
    """A query with its wrong answer, and the same query with its right one, for the parts of some kinds."""
    places = [index for index, part in enumerate(found.parts) if part.kind in kinds]
    rows = []
    for answer, word in (("other", "wrong"), ("match", "right")):
        numbers = [format_number(value) for value in found.similarities("query", answer)[place, places]]
        for role, other, label, captions in (
            ("query", answer, f"query, beside\nthe {word} answer", ()),
            (answer, "query", f"{word} answer", numbers),
        ):
            maps_phw = found.maps(role, other, at=place)[0, places]
            rows.append(MapRow(label, found.array(role)[place], maps_phw, captions))
    return sheet(rows, [found.parts[index] for index in places], title=title)


def deletion_figure(deletions: Mapping[str, Deletion], *, title: str = "") -> Figure:
    """A panel for each kind of parts: similarity while blanked by attention, a foreign map, at random."""
    figure, panels = panel_grid(len(deletions), (3.3, 2.7), (0.3, 0.6), sharex=True, sharey=True)
    for axes, (kind, one) in zip(panels.flat, deletions.items(), strict=False):
        shares = 100 * one.shares_s
        for curves_ns, colour, style, name in (
            (one.random_ns, GREY, "--", "random"),
            (one.foreign_ns, INK, ":", "another query's"),
            (one.attended_ns, kind_colour(kind), "-", "attended"),
        ):
            if curves_ns is not None:
                label = f"{name}: area {format_number(np.trapezoid(curves_ns.mean(0), one.shares_s))}"
                axes.plot(shares, curves_ns.mean(0), style, color=colour, label=label, linewidth=1.8)
        ends = one.random_ns.mean(0), one.attended_ns.mean(0)
        axes.fill_between(shares, *ends, color=kind_colour(kind), alpha=0.12)
        axes.set_title(kind, color=kind_colour(kind), loc="left")
        axes.legend(loc="upper right", handlelength=1.6, borderaxespad=0.1)
        axes.tick_params(labelbottom=True)
        axes.set(xlim=(0, 100), xticks=range(0, 101, 25))
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low, high + 0.4 * (high - low))  # room for the legends
    for axes in panels[:, 0]:
        axes.set_ylabel("similarity of the part")
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


def format_number(value: float) -> str:
    """A similarity or an area as figures have it."""
    return f"{value:.2f}".replace("-", "−")


def _draw(canvas: np.ndarray, texts: Sequence, inch: float, scale: float, title: str) -> Figure:
    """The composed picture with its words, and the bar that explains the colours."""
    wide, tall = canvas.shape[1] / inch, canvas.shape[0] / inch
    head, foot, edge = (0.3 if title else 0.05), 0.62, 0.05
    size = (wide + 2 * edge, tall + head + foot)
    # layout="none" would be lost on saving (matplotlib 3.11): the style's layout would come back.
    figure = plt.figure(figsize=size, layout=PlaceHolderLayoutEngine(True, False))
    axes = figure.add_axes((edge / size[0], foot / size[1], wide / size[0], tall / size[1]))
    axes.imshow(canvas, interpolation="bilinear", aspect="auto")
    axes.set_axis_off()
    for x, y, words, style in texts:
        axes.text(x, y, words, **{"fontsize": 7.5, "va": "bottom", **style})
    bar = figure.add_axes((0.3, 0.42 / size[1], 0.4, 0.12 / size[1]))
    # As the colours come out on a grey of middling brightness.
    mixed = ListedColormap(_HEAT * _COLOURS + (1 - _HEAT) * 0.5)
    figure.colorbar(ScalarMappable(PowerNorm(_ROOT, 0, scale), mixed), cax=bar, orientation="horizontal")
    bar.set_xticks([share * scale for share in (0, 0.1, 0.3, 0.6, 1)])
    bar.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    bar.tick_params(labelsize=7.5, length=2, pad=1)
    bar.set_xlabel(_SCALE_LABEL, fontsize=8, labelpad=1)
    if title:
        figure.text(0.5, 1 - 0.06 / size[1], title, ha="center", va="top", fontsize=11, fontweight="bold")
    return figure


def _painted(row: MapRow, parts: Sequence[FeaturePart], scale: float) -> list[np.ndarray]:
    """The image once for each part, uint8: the map in the part's rows, pale elsewhere."""
    height = len(row.image_hwc)
    grey_hw = row.image_hwc @ np.array([0.299, 0.587, 0.114])
    pale_hwc = np.repeat((255 - 0.3 * (255 - grey_hw)).astype(np.uint8)[..., None], 3, axis=2)
    found = []
    for part, map_hw in zip(parts, row.maps_phw, strict=True):
        first, stop = pixel_rows(part, height)
        shares = np.clip(map_hw[first:stop] / scale, 0, 1) ** _ROOT
        heat = 255 * _COLOURS[(255 * shares).round().astype(np.int64)]
        shown = pale_hwc.copy()
        shown[first:stop] = _HEAT * heat + (1 - _HEAT) * grey_hw[first:stop, :, None]
        found.append(shown)
    return found


def _check(rows: Sequence[MapRow], parts: Sequence[FeaturePart]) -> None:
    for row in rows:
        expected = (len(parts), *rows[0].image_hwc.shape[:2])
        if row.maps_phw.shape != expected or row.image_hwc.shape != rows[0].image_hwc.shape or not parts:
            rule = "all images are of one size (H, W, 3), with a map of it for each of one or more parts"
            found = f"{row.label}: image {row.image_hwc.shape}, maps {row.maps_phw.shape}, {len(parts)} parts"
            raise InputError(rule, found, "give both images' maps for the same parts")
        if row.captions and len(row.captions) != len(parts):
            found = f"{len(row.captions)} for {len(parts)} parts"
            raise InputError("a caption or similarity belongs to each part", found, "give one each")
