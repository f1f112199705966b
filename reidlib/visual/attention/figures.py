"""Figures of part attention: maps on images with one scale for all parts, and the deletion test."""

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
from reidlib.visual.attention.maps import indices_by_kind, pixel_rows
from reidlib.visual.attention.pairs import AnswerPairs
from reidlib.visual.figures.images import pack_groups, panel_grid
from reidlib.visual.figures.models import kind_colour

# Smallest size of an image in inches: the name of a part fits over it, and square images are not tiny.
_WIDTH, _HEIGHT = 0.66, 1.3
_HEAT = 0.65  # share of the map's colour in a pixel; the rest is the image in grey
# The root makes small values visible: a wide part spreads its similarity over many cells.
_ROOT = 0.5
_COLOURS = colormaps["magma"](np.linspace(0, 1, 256))[:, :3]
# A density, so that cells of all sizes have one scale. A small area may have more than 1. Larger values than
# the last one have its colour.
_SCALE_LABEL = "similarity per 256 pixels (square-root scale, same for all maps, clipped)"


class MapRow(NamedTuple):
    """A row of a figure: an image, and the same image with the map of each part.

    Attributes:
        label: Text at the left of the row.
        image_hwc: uint8 image of shape (H, W, 3).
        maps_phw: Raw maps of shape (P, H, W), from ``maps.part_attention``.
        captions: A text below each part's map, or none.
    """

    label: str
    image_hwc: np.ndarray
    maps_phw: np.ndarray
    captions: Sequence[str] = ()


def pair_figure(
    query_hwc: np.ndarray,
    gallery_hwc: np.ndarray,
    query_maps_phw: np.ndarray,
    gallery_maps_phw: np.ndarray,
    parts: Sequence[FeaturePart],
    *,
    similarities_p: Sequence[float] | np.ndarray | None = None,
    title: str = "",
) -> Figure:
    """Draw what in each of two images supports their similarity, with a column per part.

    Args:
        query_hwc: uint8 query image of shape (H, W, 3).
        gallery_hwc: uint8 gallery image of the same shape.
        query_maps_phw: Raw maps of the query, of shape (P, H, W), from ``maps.part_attention``; negative
            values count as zero.
        gallery_maps_phw: Raw maps of the gallery image, of shape (P, H, W).
        parts: The P parts.
        similarities_p: Similarity of each part, written below its column.
        title: Title of the figure.

    Returns:
        The figure, with a row for the query and one for the gallery image. All maps have one scale, which a
        colour bar explains. Rows that a part does not see are pale.

    Raises:
        InputError: If shapes do not fit.
    """
    captions = () if similarities_p is None else [format_number(value) for value in similarities_p]
    rows = (
        MapRow("query", query_hwc, query_maps_phw),
        MapRow("gallery", gallery_hwc, gallery_maps_phw, captions),
    )
    return sheet(rows, parts, title=title)


def sheet(rows: Sequence[MapRow], parts: Sequence[FeaturePart], *, title: str = "") -> Figure:
    """Draw rows of images with the maps of all parts on one scale.

    Args:
        rows: The rows; all images have one size.
        parts: The P parts. Many parts are wrapped to several blocks of rows; a kind of parts is never split.
        title: Title of the figure.

    Returns:
        The figure.

    Raises:
        InputError: If shapes do not fit.
    """
    _check(rows, parts)
    height, width = rows[0].image_hwc.shape[:2]
    blocks = pack_groups(indices_by_kind(parts).values())
    inch = min(width / _WIDTH, height / _HEIGHT)  # pixels of an image per inch
    gap, name, level, caption = 0.05 * inch, 0.17 * inch, 0.2 * inch, 0.19 * inch
    longest = max(len(line) for row in rows for line in row.label.split("\n"))
    margin = (0.075 * longest + 0.1) * inch
    # The tops of the rows and the bottom of the last one, below the names.
    tops = np.cumsum([0, *(height + gap + (caption if row.captions else 0) for row in rows)])
    block_height = level + name + tops[-1]
    columns = 1 + max(len(block) for block in blocks)
    breaks = max(len({parts[index].kind for index in block}) for block in blocks)
    size = (round(margin + columns * (width + gap) + breaks * 3 * gap), round(len(blocks) * block_height))
    canvas = np.full((size[1], size[0], 3), 255, np.uint8)
    supporting = np.concatenate([row.maps_phw[row.maps_phw > 0] for row in rows])
    # Single peaks of a fine map would make everything else dark, so the highest hundredth has one colour.
    scale = float(np.quantile(supporting, 0.99)) if supporting.size else 1e-9
    overlays = [_overlay_maps(row, parts, scale) for row in rows]
    texts = []  # x, y, text, style
    for number, block in enumerate(blocks):
        top = number * block_height + level + name
        left, previous_kind = margin, None
        for index in (None, *block):  # None: the image without a map
            kind = None if index is None else parts[index].kind
            if kind is not None and kind != previous_kind:
                left += 3 * gap
                bold = {"fontsize": 9, "fontweight": "bold", "color": kind_colour(kind), "ha": "left"}
                texts.append((left, top - name, kind, bold))
            previous_kind = kind
            text = "image" if index is None else parts[index].name
            if text != kind:
                texts.append((left + width / 2, top - 0.02 * inch, text, {"ha": "center"}))
            for row_number, row in enumerate(rows):
                y = round(top + tops[row_number])
                image = row.image_hwc if index is None else overlays[row_number][index]
                canvas[y : y + height, round(left) : round(left) + width] = image
                if index is None:
                    style = {"ha": "right", "va": "center", "fontsize": 9, "linespacing": 1.1}
                    texts.append((left - 2 * gap, y + height / 2, row.label, style))
                elif row.captions:
                    style = {"ha": "center", "va": "top", "color": INK}
                    texts.append((left + width / 2, y + height + 0.02 * inch, row.captions[index], style))
            left += width + gap
    return _draw(canvas, texts, inch, scale, title)


def average_figure(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    parts: Sequence[FeaturePart],
    *,
    similarities: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    title: str = "",
) -> Figure:
    """Draw the average maps of groups of images, each on the average image of its group.

    Args:
        groups: Name of a group, such as "right answers", to uint8 images of shape (N, H, W, 3) and their maps
            of shape (N, P, H, W).
        parts: The P parts.
        similarities: Name of a group to the average similarity of each part, written below its map.
        title: Title of the figure.

    Returns:
        The figure, with a row per group. All maps have one scale.
    """
    rows = []
    for name, (images_nhwc, maps_nphw) in groups.items():
        numbers = [] if similarities is None else [format_number(value) for value in similarities[name]]
        image_hwc = images_nhwc.mean(0).round().astype(np.uint8)
        # Negative contributions do not support the similarity, so they are removed before averaging.
        rows.append(MapRow(name, image_hwc, np.maximum(maps_nphw, 0).mean(0), numbers))
    return sheet(rows, parts, title=title)


def wrong_answer_figure(pairs: AnswerPairs, index: int, kinds: Sequence[str], *, title: str = "") -> Figure:
    """Draw a query with its wrong answer, and the same query with its right answer.

    Args:
        pairs: Queries and their answers.
        index: Index of the query in ``pairs``.
        kinds: Kinds of the parts to draw, such as "global" and "level 1".
        title: Title of the figure.

    Returns:
        The figure, with four rows: query and wrong answer, query and right answer.
    """
    indices = [index for index, part in enumerate(pairs.parts) if part.kind in kinds]
    rows = []
    for answer, word in (("other", "wrong"), ("match", "right")):
        numbers = [format_number(value) for value in pairs.similarities("query", answer)[index, indices]]
        for role, other, label, captions in (
            ("query", answer, f"query, against\n{word} answer", ()),
            (answer, "query", f"{word} answer", numbers),
        ):
            maps_phw = pairs.maps(role, other, at=index)[0, indices]
            rows.append(MapRow(label, pairs.image_array(role)[index], maps_phw, captions))
    return sheet(rows, [pairs.parts[index] for index in indices], title=title)


def deletion_figure(deletions: Mapping[str, Deletion], *, title: str = "") -> Figure:
    """Draw the curves of the deletion test, with a panel per kind of parts.

    Args:
        deletions: Kind of parts to its similarities, from ``deletion.deletion_by_kind``.
        title: Title of the figure.

    Returns:
        The figure. The legends give the areas under the mean curves; the area between random order and
        attention is shaded.
    """
    figure, panels = panel_grid(len(deletions), (3.3, 2.7), (0.3, 0.6), sharex=True, sharey=True)
    for axes, (kind, deletion) in zip(panels.flat, deletions.items(), strict=False):
        shares = 100 * deletion.shares_s
        for curves_ns, colour, style, name in (
            (deletion.random_ns, GREY, "--", "random order"),
            (deletion.foreign_ns, INK, ":", "another query's map"),
            (deletion.attended_ns, kind_colour(kind), "-", "attention"),
        ):
            if curves_ns is not None:
                area = float(np.trapezoid(curves_ns.mean(0), deletion.shares_s))
                label = f"{name}: area {format_number(area)}"
                axes.plot(shares, curves_ns.mean(0), style, color=colour, label=label, linewidth=1.8)
        curves = deletion.random_ns.mean(0), deletion.attended_ns.mean(0)
        axes.fill_between(shares, *curves, color=kind_colour(kind), alpha=0.12)
        axes.set_title(kind, color=kind_colour(kind), loc="left")
        axes.legend(loc="upper right", handlelength=1.6, borderaxespad=0.1)
        axes.tick_params(labelbottom=True)
        axes.set(xlim=(0, 100), xticks=range(0, 101, 25))
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low, high + 0.4 * (high - low))  # room for the legends
    for axes in panels[:, 0]:
        axes.set_ylabel("cosine similarity of the part")
    for axes in panels[-1]:
        if axes.figure is not None:
            axes.set_xlabel("blanked patches of the part (%)")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def area_figure(networks: Mapping[str, Mapping[str, Deletion]]) -> Figure:
    """Draw by how much the area under the curve is smaller for attention than for random orders.

    Args:
        networks: Name of a network to the result of ``deletion.deletion_by_kind``.

    Returns:
        The figure: a difference with its 95 % interval per network and kind of parts. A hollow marker means
        that the interval contains zero.
    """
    rows = [
        (name, kind, deletion.gain) for name, kinds in networks.items() for kind, deletion in kinds.items()
    ]
    figure, axes = plt.subplots(figsize=(7.4, 0.36 * len(rows) + 1.3))
    for y, (_, kind, gain) in enumerate(rows):
        colour = kind_colour(kind)
        face = colour if gain.excludes_zero else "white"
        axes.plot([gain.low, gain.high], [y, y], color=colour, linewidth=2)
        axes.plot(gain.mean, y, "o", color=colour, markerfacecolor=face, markersize=7)
    low = min([0.0, *(gain.low for *_, gain in rows)])
    high = max([0.0, *(gain.high for *_, gain in rows)])
    width = max(high - low, 1e-6)
    for y, (*_, gain) in enumerate(rows):
        axes.text(high + 0.05 * width, y, str(gain), va="center", fontsize=9)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{name}, {kind}" for name, kind, _ in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(low - 0.05 * width, high + 0.5 * width))
    axes.set_xticks([tick for tick in axes.get_xticks() if low - 0.05 * width <= tick <= high])
    axes.set_xlabel("area of random order − area of attention (hundredths of similarity)")
    axes.set_title("Deletion test: blanking by attention against blanking in random order", loc="left")
    axes.grid(axis="y", visible=False)
    return figure


def format_number(value: float) -> str:
    """Format a similarity or an area with two decimals and a proper minus sign."""
    return f"{value:.2f}".replace("-", "−")


def _draw(canvas: np.ndarray, texts: Sequence, inch: float, scale: float, title: str) -> Figure:
    """Draw the composed image, its texts and the colour bar."""
    width, height = canvas.shape[1] / inch, canvas.shape[0] / inch
    top, bottom, edge = (0.3 if title else 0.05), 0.62, 0.05
    size = (width + 2 * edge, height + top + bottom)
    # layout="none" would be replaced by the style's layout on saving (matplotlib 3.11).
    figure = plt.figure(figsize=size, layout=PlaceHolderLayoutEngine(True, False))
    axes = figure.add_axes((edge / size[0], bottom / size[1], width / size[0], height / size[1]))
    axes.imshow(canvas, interpolation="bilinear", aspect="auto")
    axes.set_axis_off()
    for x, y, text, style in texts:
        axes.text(x, y, text, **{"fontsize": 7.5, "va": "bottom", **style})
    bar = figure.add_axes((0.3, 0.42 / size[1], 0.4, 0.12 / size[1]))
    # The colours as they look on a grey of medium brightness.
    mixed = ListedColormap(_HEAT * _COLOURS + (1 - _HEAT) * 0.5)
    figure.colorbar(ScalarMappable(PowerNorm(_ROOT, 0, scale), mixed), cax=bar, orientation="horizontal")
    bar.set_xticks([share * scale for share in (0, 0.1, 0.3, 0.6, 1)])
    bar.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    bar.tick_params(labelsize=7.5, length=2, pad=1)
    bar.set_xlabel(_SCALE_LABEL, fontsize=8, labelpad=1)
    if title:
        figure.text(0.5, 1 - 0.06 / size[1], title, ha="center", va="top", fontsize=11, fontweight="bold")
    return figure


def _overlay_maps(row: MapRow, parts: Sequence[FeaturePart], scale: float) -> list[np.ndarray]:
    """Return a uint8 image per part: the image with the map in the part's rows, and pale elsewhere."""
    height = len(row.image_hwc)
    grey_hw = row.image_hwc @ np.array([0.299, 0.587, 0.114])
    pale_hwc = np.repeat((255 - 0.3 * (255 - grey_hw)).astype(np.uint8)[..., None], 3, axis=2)
    overlays = []
    for part, map_hw in zip(parts, row.maps_phw, strict=True):
        first, stop = pixel_rows(part, height)
        shares = np.clip(map_hw[first:stop] / scale, 0, 1) ** _ROOT
        heat = 255 * _COLOURS[(255 * shares).round().astype(np.int64)]
        overlay = pale_hwc.copy()
        overlay[first:stop] = _HEAT * heat + (1 - _HEAT) * grey_hw[first:stop, :, None]
        overlays.append(overlay)
    return overlays


def _check(rows: Sequence[MapRow], parts: Sequence[FeaturePart]) -> None:
    for row in rows:
        expected = (len(parts), *rows[0].image_hwc.shape[:2])
        if row.maps_phw.shape != expected or row.image_hwc.shape != rows[0].image_hwc.shape or not parts:
            rule = "all images have one size (H, W, 3) and a map of this size for each of at least one part"
            value = f"{row.label}: image {row.image_hwc.shape}, maps {row.maps_phw.shape}, {len(parts)} parts"
            raise InputError(rule, value, "pass maps of all images for the same parts")
        if row.captions and len(row.captions) != len(parts):
            value = f"{len(row.captions)} for {len(parts)} parts"
            raise InputError("every part has a caption or similarity", value, "pass one per part")
