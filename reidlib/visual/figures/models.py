"""Pictures of models: the parts that they see, and the units that a training switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from reidlib.models.jlml import stripe_rows
from reidlib.visual import GREEN, INK, ORANGE, PALETTE
from reidlib.visual.figures.images import in_lines, panel_grid, show_image


def kind_colour(kind: str) -> str:
    """The colour of a kind of parts, and of its branch, in every figure; beyond seven levels they repeat."""
    if kind.startswith("level "):
        return PALETTE[(int(kind.removeprefix("level ")) - 1) % len(PALETTE)]
    return {"global": GREEN, "local": ORANGE}.get(kind, INK)


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


def local_stream_stripes(image_hwc: np.ndarray, parts: int) -> Figure:
    """An image with the stripes of JLML's ``parts`` local streams, cut from a map of stride 4."""
    map_height = image_hwc.shape[0] // 4
    names = [f"local stream {part}" for part in range(1, parts + 1)]
    return striped_image(image_hwc, stripe_rows(map_height, parts), map_height, names)


def part_pictures(image_hwc: np.ndarray, parts: Sequence[tuple[int, int]], stripes: int) -> Figure:
    """An image once for each part of a pyramid: the part framed, the rest pale, grouped by level.

    parts: (first, stop) of ``stripes`` stripes, fine to coarse, as ``models.parts.pyramid_parts`` gives.
    """
    levels = dict.fromkeys(stop - first for first, stop in parts)
    lines = in_lines([[part for part in parts if part[1] - part[0] == level] for level in levels])
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
            colour = kind_colour(f"level {level}")
            box = Rectangle((-0.5, top - 0.5), width, low - top, fill=False, ec=colour, lw=2.5, clip_on=False)
            axes.add_patch(box)
            if first == 0:
                axes.set_title(f"level {level}", color=colour, fontsize=10, loc="left", pad=4)
    return figure


def part_diagrams(
    image_hwc: np.ndarray, pyramids: Mapping[str, tuple[Sequence[tuple[int, int]], int]]
) -> Figure:
    """For each pyramid the image, cut where a part ends, and beside it a bar for each part, a column a level.

    pyramids: name -> (parts, stripes), parts as in ``part_pictures``. Overlapping parts of a level take turns
    in as many columns as it needs. Three pyramids stand in a line.
    """
    height, width = image_hwc.shape[:2]
    bar, gap = 0.042 * height, 0.035 * height
    figure, panels = panel_grid(len(pyramids), (3.1, 3.2))
    for axes, (name, (parts, stripes)) in zip(panels.flat, pyramids.items(), strict=False):
        show_image(axes, image_hwc)
        cuts = {edge for part in parts for edge in part} - {0, stripes}
        edges = [edge * height / stripes - 0.5 for edge in sorted(cuts)]
        axes.hlines(edges, -0.5, width - 0.5, color="white", linewidth=1.2)
        left = width + gap
        for level in dict.fromkeys(stop - first for first, stop in parts):
            of_level = [first for first, stop in parts if stop - first == level]
            turns = min(level, len(of_level))  # parts nearer than ``level`` stripes overlap
            colour = kind_colour(f"level {level}")
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


def input_norm_plot(panels: Mapping[str, Mapping[str, np.ndarray]], *, threshold: float) -> Figure:
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
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2))
    grid[0][0].set_ylabel("norm, as a share of the largest")
    return figure


def which_switched_off(panels: Mapping[str, Mapping[str, np.ndarray]], *, threshold: float) -> Figure:
    """Every input unit in its place: its norm as a share of the layer's largest, as a colour; grey: off.

    panels: title -> row -> norms (C,), or (P, C) for a layer of P stripes, which then stand side by side.
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
            axes.text(left + shape[1] / 2, -0.65, f"stripe {index + 1}", ha="center", va="bottom", fontsize=9)
        axes.set_title(title, loc="left", pad=18 if len(shape) > 1 else 6)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks([])
        axes.set_xlabel("input units")
        axes.grid(visible=False)
        for line in range(1, len(rows)):
            axes.axhline(line - 0.5, color="white", linewidth=2)
    figure.colorbar(drawn, ax=list(grid[:, 0]), extend="min", label="norm, as a share of the largest")
    return figure
