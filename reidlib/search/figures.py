"""Pictures of a search: the contact sheet of ranked images, and the distances behind the threshold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image, ImageDraw, ImageFont

from reidlib.data.decoding import fit_image
from reidlib.errors import count_noun
from reidlib.search.verification import PairHistogram, Threshold
from reidlib.text import drawable
from reidlib.visual import BLUE, GREEN, GREY, INK, RED, STATUS

_BOX = (104, 208)  # width and height of the space for one image, in pixels; crops of persons are upright
_GAP, _FRAME, _LINE = 14, 5, 17
SPACE = (_BOX[1] - 2 * _FRAME, _BOX[0] - 2 * _FRAME)  # largest height and width of an image
VERDICTS = {True: "same", False: "not sure"}  # by whether the distance is within the threshold
_COLOURS = {True: GREEN, False: GREY}


class RankedImage(NamedTuple):
    """One image of a ranked list.

    Attributes:
        image_hwc: The image, uint8 of shape (H, W, 3).
        distance: Its distance from the query.
        match: Whether it shows the query's person; None if unknown.
        verdict: Whether the distance is within the threshold; None if there is no threshold.
    """

    image_hwc: np.ndarray
    distance: float
    match: bool | None = None
    verdict: bool | None = None


class SheetRow(NamedTuple):
    """A query with its ranked list.

    Attributes:
        image_hwc: The query image, uint8 of shape (H, W, 3).
        label: Its name.
        results: The ranked images, nearest first.
    """

    image_hwc: np.ndarray
    label: str
    results: Sequence[RankedImage]


def contact_sheet(rows: Sequence[SheetRow], *, lines: Sequence[str]) -> Image.Image:
    """Draw queries on the left with their ranked images on the right, below some lines of text.

    The colour of a frame repeats the first word below the image: whether it shows the query's person, if that
    is known; otherwise whether the distance is within the threshold.

    Args:
        rows: The queries with their ranked images.
        lines: Lines of text above; the first one is bold.

    Returns:
        The picture.
    """
    # Drawn by Pillow: matplotlib takes minutes for hundreds of images.
    lines = [drawable(line) for line in lines]
    text, bold = (_font(weight) for weight in ("normal", "bold"))
    wide = 1 + max(len(row.results) for row in rows)
    row_height = _BOX[1] + 3 * _LINE + 2 * _GAP
    top = _GAP + (len(lines) + 1) * (_LINE + 3)
    width = max(
        (wide + 0.3) * (_BOX[0] + _GAP) + _GAP, 2 * _GAP + max(text.getlength(line) for line in lines)
    )
    sheet = Image.new("RGB", (round(width), top + len(rows) * row_height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_GAP, _GAP + number * (_LINE + 3)), line, INK, bold if number == 0 else text)
    columns = [_GAP, *(round(_GAP + (column + 0.3) * (_BOX[0] + _GAP)) for column in range(1, wide))]
    for column, heading in zip(columns, ["query", *map(str, range(1, wide))], strict=True):
        _centred(draw, column, top - _LINE - 4, heading, INK, text)
    for number, row in enumerate(rows):
        y = top + number * row_height
        _paste(sheet, row.image_hwc, columns[0], y)
        for place, part in enumerate(_wrapped(drawable(row.label), text)):
            _centred(draw, columns[0], y + _BOX[1] + 6 + place * _LINE, part, INK, text)
        for x, ranked in zip(columns[1:], row.results, strict=False):
            box = _paste(sheet, ranked.image_hwc, x, y)
            words = [] if ranked.match is None else [STATUS["match" if ranked.match else "other"]]
            if ranked.verdict is not None:
                words.append((_COLOURS[ranked.verdict], VERDICTS[ranked.verdict]))
            if words:
                left, upper, right, lower = box
                outer = (left - _FRAME, upper - _FRAME, right + _FRAME - 1, lower + _FRAME - 1)
                draw.rectangle(outer, outline=words[0][0], width=_FRAME)
            below = y + _BOX[1] + 6
            _centred(draw, x, below, f"{ranked.distance:.3f}", INK, text)
            for place, (colour, word) in enumerate(words, 1):
                _centred(draw, x, below + place * _LINE, word, colour, bold if place == 1 else text)
    return sheet


def distance_figure(histogram: PairHistogram, threshold: Threshold, *, bars: int = 80) -> Figure:
    """Plot distances of pairs of one person and of different people, with the threshold.

    Args:
        histogram: The distances of the pairs.
        threshold: The threshold.
        bars: Largest number of bars.

    Returns:
        A figure with two panels. Left: the distribution of distances. Right: the share of pairs up to each
        distance on a logarithmic scale, from which thresholds for other rates can be read.
    """
    same = ("same person", histogram.same, BLUE, "-")
    different = ("different people", histogram.different, RED, "--")
    kinds = [kind for kind in (same, different) if kind[1].any()]
    filled = np.flatnonzero(histogram.same + histogram.different)
    # Every bar covers the same whole number of fine bins.
    step = max(1, -(-(filled[-1] - filled[0] + 1) // bars))
    begins = np.arange(filled[0], filled[-1] + 1, step)
    edges = histogram.width * (np.append(begins, begins[-1] + step) - 1)
    figure = Figure(figsize=(10, 3.6))  # without pyplot, whose backend may need a screen
    distribution, shares = figure.subplots(1, 2)
    for label, counts, colour, style in kinds:
        total = counts.sum()
        bars_n = np.add.reduceat(counts, begins) / total * 100
        distribution.stairs(bars_n, edges, fill=True, color=colour, alpha=0.25)
        distribution.stairs(bars_n, edges, color=colour, linestyle=style, linewidth=1.5, label=label)
        below = counts.cumsum() / total * 100
        visible = slice(max(filled[0] - 1, 0), filled[-1] + 1)
        shares.plot(histogram.edges[visible], below[visible], color=colour, linestyle=style, label=label)
    for axes in (distribution, shares):
        axes.axvline(threshold.distance, color=INK, linewidth=1.2, linestyle=":")
        axes.set_xlabel("Euclidean distance of two images' features")
        axes.set_xlim(edges[0], edges[-1])
    distribution.set_ylim(bottom=0)
    distribution.set(ylabel="share of the pairs of this kind (%)", title="Distribution of distances")
    distribution.annotate(
        f" threshold {threshold.distance:.3f}",
        (threshold.distance, 0.98),
        xycoords=("data", "axes fraction"),
        va="top",
        fontsize=9,
        color=INK,
    )
    shares.set_yscale("log")
    shares.yaxis.set_major_formatter("{x:g}")
    shares.set_ylim(50 / threshold.num_different, 160)
    shares.set(ylabel="pairs up to the distance (%)", title="Pairs that a threshold accepts")
    for rate in (threshold.false_match_rate, threshold.true_match_rate):
        if rate > 0:
            shares.plot(threshold.distance, 100 * rate, "o", color=INK, markersize=4)
            shares.annotate(
                f"{100 * rate:.3g} % ", (threshold.distance, 100 * rate), ha="right", va="bottom", fontsize=9
            )
    handles = [Line2D([], [], color=colour, linestyle=style) for _, _, colour, style in kinds]
    labels = [f"{label}: {count_noun(counts.sum(), 'pairs')}" for label, counts, *_ in kinds]
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _font(weight: str) -> ImageFont.FreeTypeFont:
    # matplotlib installs this font on every machine, and it contains the signs ✓ and ✗.
    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight=weight))
    return ImageFont.truetype(path, 13)


def _wrapped(label: str, font: ImageFont.FreeTypeFont) -> list[str]:
    """Break a label into at most three lines, after a slash if possible; keep the end of a longer one."""
    # File names differ at their end.
    lines = [""]
    for part in re.split("(?<=/)", label):
        if font.getlength(lines[-1] + part) <= _BOX[0]:
            lines[-1] += part
            continue
        while part:
            length = len(part)
            while length > 1 and font.getlength(part[:length]) > _BOX[0]:
                length -= 1
            lines.append(part[:length])
            part = part[length:]
    lines = [line for line in lines if line]
    return lines if len(lines) <= 3 else ["…" + lines[-3][1:], *lines[-2:]]


def _centred(draw: ImageDraw.ImageDraw, x: int, y: int, text: str, colour: str, font) -> None:
    draw.text((x + _BOX[0] / 2, y), text, colour, font, anchor="ma")


def _paste(sheet: Image.Image, image_hwc: np.ndarray, x: int, y: int) -> tuple[int, int, int, int]:
    """Paste an image into the middle of its box, as large as fits, and return its edges."""
    image = fit_image(image_hwc, *SPACE)
    left, upper = x + (_BOX[0] - image.width) // 2, y + (_BOX[1] - image.height) // 2
    sheet.paste(image, (left, upper))
    return left, upper, left + image.width, upper + image.height
