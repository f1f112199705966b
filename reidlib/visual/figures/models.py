"""Pictures of models and trainings: the parts that a model sees, its losses over the epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from reidlib.visual.figures.plots import GREEN, GREY, INK, PALETTE, show_image


def level_colours(levels: Sequence[int]) -> dict[str, str]:
    """The colours of the branches "full" and "level ℓ" in every figure; beyond seven they repeat."""
    return {"full": INK, **{f"level {level}": PALETTE[(level - 1) % len(PALETTE)] for level in levels}}


def striped_image(
    image_hwc: np.ndarray, rows: Sequence[tuple[int, int]], map_height: int, names: Sequence[str]
) -> Figure:
    """An image with the stripes that the local streams see, given as rows of a map of ``map_height`` rows."""
    height, width = image_hwc.shape[:2]
    figure, axes = plt.subplots(figsize=(4.2, 3.6))
    show_image(axes, image_hwc)
    for (first, last), name, colour in zip(rows, names, PALETTE * 3, strict=False):
        top, bottom = first / map_height * height, last / map_height * height
        box = Rectangle((-0.5, top - 0.5), width, bottom - top, fill=False, edgecolor=colour, linewidth=2.5)
        axes.add_patch(box)
        axes.text(
            width + 1, (top + bottom) / 2, name, color=colour, va="center", fontsize=10, fontweight="bold"
        )
    return figure


def part_pictures(image_hwc: np.ndarray, parts: Sequence[tuple[int, int]], stripes: int) -> Figure:
    """An image once for each part of a pyramid: the part framed, the rest pale, grouped by level.

    parts: (first, stop) of ``stripes`` stripes, fine to coarse, as ``models.parts.pyramid_parts`` gives.
    """
    lines = _lines_of_levels(parts, longest=11)
    height, width = image_hwc.shape[:2]
    tall, gap = 2.0, 0.4  # of an image and between levels, in inches and widths
    wide = tall * width / height
    columns = max(len(line) + gap * (len({stop - first for first, stop in line}) - 1) for line in lines)
    size = (1.12 * columns * wide + 0.1, len(lines) * (tall + 0.45))
    figure = plt.figure(figsize=size, layout="none")
    pale = (255 - 0.25 * (255 - image_hwc.astype(float))).astype(np.uint8)
    for number, line in enumerate(lines):
        bottom = size[1] - (number + 1) * (tall + 0.45) + 0.05
        left = 0.05
        for place, (first, stop) in enumerate(line):
            level = stop - first
            left += gap * wide if place and first == 0 else 0
            axes = figure.add_axes((left / size[0], bottom / size[1], wide / size[0], tall / size[1]))
            left += 1.12 * wide
            top, low = (round(edge * height / stripes) for edge in (first, stop))
            shown = pale.copy()
            shown[top:low] = image_hwc[top:low]
            show_image(axes, shown)
            colour = level_colours([level])[f"level {level}"]
            box = Rectangle((-0.5, top - 0.5), width, low - top, fill=False, ec=colour, lw=2.5, clip_on=False)
            axes.add_patch(box)
            if first == 0:
                axes.set_title(f"level {level}", color=colour, fontsize=10, loc="left", pad=4)
    return figure


def _lines_of_levels(parts: Sequence[tuple[int, int]], longest: int) -> list[list[tuple[int, int]]]:
    """Parts in lines of at most ``longest`` where the levels allow it: a level is never broken."""
    lines: list[list[tuple[int, int]]] = []
    for level in dict.fromkeys(stop - first for first, stop in parts):
        of_level = [part for part in parts if part[1] - part[0] == level]
        if lines and len(lines[-1]) + len(of_level) <= longest:
            lines[-1] += of_level
        else:
            lines.append(of_level)
    return lines


def part_diagrams(
    image_hwc: np.ndarray, pyramids: Mapping[str, tuple[Sequence[tuple[int, int]], int]]
) -> Figure:
    """For each pyramid the image, cut where a part ends, and beside it a bar for each part, a column a level.

    pyramids: name -> (parts, stripes), parts as in ``part_pictures``. Overlapping parts of a level take turns
    in as many columns as it needs. Three pyramids stand in a line.
    """
    height, width = image_hwc.shape[:2]
    bar, gap = 0.042 * height, 0.035 * height
    columns = min(3, len(pyramids))
    lines = -(-len(pyramids) // columns)
    figure, panels = plt.subplots(lines, columns, figsize=(3.1 * columns, 3.2 * lines), squeeze=False)
    for unused in panels.flat[len(pyramids) :]:
        unused.remove()
    for axes, (name, (parts, stripes)) in zip(panels.flat, pyramids.items(), strict=False):
        show_image(axes, image_hwc)
        cuts = {edge for part in parts for edge in part} - {0, stripes}
        edges = [edge * height / stripes - 0.5 for edge in sorted(cuts)]
        axes.hlines(edges, -0.5, width - 0.5, color="white", linewidth=1.2)
        left = width + gap
        for level in dict.fromkeys(stop - first for first, stop in parts):
            of_level = [first for first, stop in parts if stop - first == level]
            turns = min(level, len(of_level))  # parts nearer than ``level`` stripes overlap
            colour = level_colours([level])[f"level {level}"]
            for first in of_level:
                corner = (left + first % turns * bar, first * height / stripes + 1)
                axes.add_patch(Rectangle(corner, 0.7 * bar, level * height / stripes - 3, color=colour, lw=0))
            left += turns * bar + gap
        axes.set(xlim=(-0.5, width + 0.84 * height), ylim=(height - 0.5, -0.5))
        axes.set_title(f"{name}\n{len(parts)} part{'s' if len(parts) > 1 else ''}", fontsize=10, loc="left")
    return figure


def stripe_diagrams(
    image_hwc: np.ndarray, stripes: Mapping[str, Sequence[tuple[int, int]]], map_height: int
) -> Figure:
    """For each name the image and beside it a bar for each stripe, neighbours in turn in two columns.

    stripes: name -> rows (first, past the last) of a map of ``map_height`` rows.
    """
    height, width = image_hwc.shape[:2]
    bar = 0.1 * height
    figure, panels = plt.subplots(1, len(stripes), figsize=(1.75 * len(stripes), 2.9), squeeze=False)
    for axes, (name, rows) in zip(panels[0], stripes.items(), strict=True):
        show_image(axes, image_hwc)
        for index, (first, last) in enumerate(rows):
            top, low = (edge * height / map_height for edge in (first, last))
            corner = (width + 0.04 * height + index % 2 * bar, top)
            axes.add_patch(Rectangle(corner, 0.8 * bar, low - top - 1, color=PALETTE[index % 2], lw=0))
        axes.set(xlim=(-0.5, width + 0.3 * height), ylim=(height - 0.5, -0.5))
        axes.set_title(name, fontsize=10, loc="left")
    return figure


def training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss terms, training accuracy and learning rate over the epochs of a run's history.

    A term that an epoch did not measure leaves a gap. Weighted sparsity terms have a panel if there are any.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    terms = [name for name in names if name.startswith(("identity", "triplet"))]
    norms = [name for name in names if name.startswith("sparsity")]
    epochs = [row["epoch"] for row in history]
    figure, panels = plt.subplots(1, 3 if norms else 2, figsize=(11.5 if norms else 8.6, 3.1))
    losses, accuracy = panels[0], panels[-1]
    for axes, group in ((losses, terms), (panels[1], norms)):
        for name, colour in zip(group, PALETTE, strict=False):
            values = [row.get(name, np.nan) for row in history]
            axes.plot(epochs, values, color=colour, label=name.replace("_", " "), marker=".")
        if group:
            axes.legend(frameon=False)
    if "triplet" in terms:
        losses.set(title="Losses, before their weights", ylabel="sum over the parts")
    elif terms == ["identity"]:
        losses.set(title="Identity loss", ylabel="sum over the parts")
    else:
        losses.set(title="Identity losses", ylabel="cross-entropy (nats)")
    if norms:
        panels[1].set(title="Sparsity terms, weighted", ylabel="λ × norm", yscale="log")
    accuracy.plot(epochs, [100 * row["accuracy"] for row in history], color=GREEN, marker=".")
    accuracy.set(title="Training accuracy and learning rate", ylim=(0, 104))
    accuracy.set_ylabel("right identity (%)", color=GREEN)
    rate = accuracy.twinx()
    rate.plot(epochs, [row["learning_rate"] for row in history], color=GREY, linestyle="--")
    rate.set_ylabel("learning rate (dashed)", color=GREY)
    rate.grid(visible=False)
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.set_xlim(left=1 - 0.02 * len(epochs))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
