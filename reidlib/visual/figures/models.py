"""Figures of models: their size, the body parts that they pool, input units that training switched off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullLocator

from reidlib.models.jlml import stripe_rows
from reidlib.visual import BLUE, GREEN, INK, ORANGE, PALETTE
from reidlib.visual.figures.images import pack_groups, panel_grid, show_image


def kind_colour(kind: str) -> str:
    """Return the colour that a kind of parts and its branch have in every figure.

    Args:
        kind: "global", "local", "level 1", "level 2" and so on; any other name gets the text colour.

    Returns:
        The colour as a hexadecimal code. The colours of the levels repeat after seven.
    """
    if kind.startswith("level "):
        return PALETTE[(int(kind.removeprefix("level ")) - 1) % len(PALETTE)]
    return {"global": GREEN, "local": ORANGE}.get(kind, INK)


def striped_image(
    image_hwc: np.ndarray, rows: Sequence[tuple[int, int]], map_height: int, names: Sequence[str]
) -> Figure:
    """Draw an image with the stripes that JLML's local streams see.

    Args:
        image_hwc: Image of shape (H, W, 3).
        rows: First row and row past the last of each stripe, on a feature map.
        map_height: Height of that feature map in rows.
        names: Names of the stripes.

    Returns:
        The figure.
    """
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
    """Draw an image with the stripes of JLML's ``parts`` local streams, cut from a map of stride 4."""
    map_height = image_hwc.shape[0] // 4
    names = [f"local stream {part}" for part in range(1, parts + 1)]
    return striped_image(image_hwc, stripe_rows(map_height, parts), map_height, names)


def part_pictures(image_hwc: np.ndarray, parts: Sequence[tuple[int, int]], stripes: int) -> Figure:
    """Draw an image once for each part of a pyramid, with the part framed and the rest pale.

    Args:
        image_hwc: Image of shape (H, W, 3).
        parts: First stripe and stripe past the last of each part, from fine to coarse, as
            ``models.parts.pyramid_parts`` returns them.
        stripes: Number of stripes of the pyramid.

    Returns:
        The figure, with the parts grouped by level.
    """
    levels = dict.fromkeys(stop - first for first, stop in parts)
    rows = pack_groups([[part for part in parts if part[1] - part[0] == level] for level in levels])
    height, width = image_hwc.shape[:2]
    image_height, gap = 2.0, 0.4  # in inches; gap between levels, in widths of an image
    image_width = image_height * width / height
    columns = max(len(row) + gap * (len({stop - first for first, stop in row}) - 1) for row in rows)
    size = (1.12 * columns * image_width + 0.1, len(rows) * (image_height + 0.45))
    figure = plt.figure(figsize=size, layout="none")
    pale = (255 - 0.25 * (255 - image_hwc.astype(float))).astype(np.uint8)
    for number, row in enumerate(rows):
        y = size[1] - (number + 1) * (image_height + 0.45) + 0.05
        x = 0.05
        for index, (first, stop) in enumerate(row):
            level = stop - first
            x += gap * image_width if index and first == 0 else 0
            bounds = (x / size[0], y / size[1], image_width / size[0], image_height / size[1])
            axes = figure.add_axes(bounds)
            x += 1.12 * image_width
            top, bottom = (round(edge * height / stripes) for edge in (first, stop))
            framed = pale.copy()
            framed[top:bottom] = image_hwc[top:bottom]
            show_image(axes, framed)
            colour = kind_colour(f"level {level}")
            frame = {"fill": False, "ec": colour, "lw": 2.5, "clip_on": False}
            box = Rectangle((-0.5, top - 0.5), width, bottom - top, **frame)
            axes.add_patch(box)
            if first == 0:
                axes.set_title(f"level {level}", color=colour, fontsize=10, loc="left", pad=4)
    return figure


def part_diagrams(
    image_hwc: np.ndarray, pyramids: Mapping[str, tuple[Sequence[tuple[int, int]], int]]
) -> Figure:
    """Draw the parts of several pyramids as bars beside an image.

    Args:
        image_hwc: Image of shape (H, W, 3).
        pyramids: Name to parts and number of stripes, both as in ``part_pictures``.

    Returns:
        The figure, with three pyramids in a row. Lines on an image show where parts end. The bars of a level
        share a colour; overlapping parts of a level are in separate columns.
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
            first_stripes = [first for first, stop in parts if stop - first == level]
            columns = min(level, len(first_stripes))  # parts less than ``level`` stripes apart overlap
            colour = kind_colour(f"level {level}")
            for first in first_stripes:
                corner = (left + first % columns * bar, first * height / stripes + 1)
                axes.add_patch(Rectangle(corner, 0.7 * bar, level * height / stripes - 3, color=colour, lw=0))
            left += columns * bar + gap
        axes.set(xlim=(-0.5, width + 0.84 * height), ylim=(height - 0.5, -0.5))
        axes.set_title(f"{name}\n{len(parts)} part{'s' if len(parts) > 1 else ''}", fontsize=10, loc="left")
    return figure


def stripe_diagrams(
    image_hwc: np.ndarray, stripes: Mapping[str, Sequence[tuple[int, int]]], map_height: int
) -> Figure:
    """Draw the stripes of several models as bars beside an image.

    Args:
        image_hwc: Image of shape (H, W, 3).
        stripes: Name to the first row and the row past the last of each stripe, on a feature map.
        map_height: Height of that feature map in rows.

    Returns:
        The figure, with a panel per name. The bars of neighbouring stripes alternate between two columns.
    """
    height, width = image_hwc.shape[:2]
    bar = 0.1 * height
    figure, panels = plt.subplots(1, len(stripes), figsize=(1.75 * len(stripes), 2.9), squeeze=False)
    for axes, (name, rows) in zip(panels[0], stripes.items(), strict=True):
        show_image(axes, image_hwc)
        for index, (first, last) in enumerate(rows):
            top, bottom = (edge * height / map_height for edge in (first, last))
            corner = (width + 0.04 * height + index % 2 * bar, top)
            axes.add_patch(Rectangle(corner, 0.8 * bar, bottom - top - 1, color=PALETTE[index % 2], lw=0))
        axes.set(xlim=(-0.5, width + 0.3 * height), ylim=(height - 0.5, -0.5))
        axes.set_title(name, fontsize=10, loc="left")
    return figure


def input_norm_plot(panels: Mapping[str, Mapping[str, np.ndarray]], *, threshold: float) -> Figure:
    """Draw the sorted weight norms of a layer's input units on a logarithmic scale.

    Args:
        panels: Title of a panel to model to norms of shape (C,), or (P, C) for a layer of P stripes.
        threshold: Share of the layer's largest norm below which a unit counts as switched off.

    Returns:
        The figure. Norms are shares of the largest norm of the layer.
    """
    figure, grid = plt.subplots(1, len(panels), sharey=True, squeeze=False, figsize=(4.6 * len(panels), 4.6))
    for axes, (title, norms_by_model) in zip(grid[0], panels.items(), strict=True):
        for index, (name, norms_c) in enumerate(norms_by_model.items()):
            shares = np.sort(norms_c.ravel() / norms_c.max())[::-1]
            num_off = int((shares < threshold).sum())
            axes.plot(
                100 * (np.arange(len(shares)) + 0.5) / len(shares), np.maximum(shares, 1e-6),
                color=PALETTE[index % len(PALETTE)], linestyle=("-", "--", "-.", ":")[index % 4],
                label=f"{name}: {num_off} of {len(shares)} off",
            )  # fmt: skip
        axes.axhline(threshold, color=INK, linewidth=1, linestyle=":")
        axes.set(title=title, xlabel="input units, strongest first (%)", yscale="log", xlim=(0, 100))
        axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.2))
    grid[0][0].set_ylabel("norm, as a share of the largest")
    return figure


def input_unit_norms(panels: Mapping[str, Mapping[str, np.ndarray]], *, threshold: float) -> Figure:
    """Draw the weight norm of every input unit of a layer as a colour, in the order of the units.

    Args:
        panels: Title of a panel to model to norms of shape (C,), or (P, C) for a layer of P stripes, which
            are drawn side by side.
        threshold: Share of the layer's largest norm below which a unit is grey: it is switched off.

    Returns:
        The figure, with a row of cells per model.
    """
    names = list(next(iter(panels.values())))
    figure, grid = plt.subplots(
        len(panels), 1, squeeze=False, figsize=(9.2, len(panels) * (0.3 * len(names) + 1.2))
    )
    norm = LogNorm(threshold, 1)
    colours = plt.get_cmap("viridis").with_extremes(under="#D9D9D9")
    for axes, (title, norms_by_model) in zip(grid[:, 0], panels.items(), strict=True):
        shares = np.stack([(norms / norms.max()).reshape(-1) for norms in norms_by_model.values()])
        axes.imshow(shares, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
        *stripes, units = next(iter(norms_by_model.values())).shape
        for index in range(stripes[0] if stripes else 0):
            left = index * units - 0.5
            axes.axvline(left, color="white", linewidth=3)
            middle, above = (left + units / 2, -0.5), {"xytext": (0, 2), "textcoords": "offset points"}
            axes.annotate(f"stripe {index + 1}", middle, **above, ha="center", va="bottom", fontsize=9)
        axes.set_title(title, loc="left", pad=18 if stripes else 6)
        axes.set_yticks(range(len(names)), names)
        axes.set_xticks([])
        axes.set_xlabel("input units")
        axes.grid(visible=False)
        for row in range(1, len(names)):
            axes.axhline(row - 0.5, color="white", linewidth=2)
    label = "norm, as a share of the largest"
    figure.colorbar(ScalarMappable(norm, colours), ax=list(grid[:, 0]), extend="min", label=label)
    return figure


def operations_plot(
    counts: Mapping[str, tuple[float, float]], printed: Mapping[str, tuple[float, float]]
) -> Figure:
    """Draw networks' operations over their parameters, in both conventions, with the printed points.

    Args:
        counts: Network to its parameters and multiply-adds.
        printed: Network to its printed parameters and operations.

    Returns:
        The figure, on logarithmic scales in millions and 1e9. Lines connect the two counts of a network.
    """
    figure, axes = plt.subplots(figsize=(7.6, 4.8))
    for name, (parameters, multiply_adds) in counts.items():
        x, low = parameters / 1e6, multiply_adds / 1e9
        axes.plot([x, x], [low, 2 * low], color=INK, linewidth=1, zorder=1)
        middle = (x, 2**0.5 * low)
        axes.annotate(name, middle, (7, 0), textcoords="offset points", va="center", fontsize=10)
    x = np.array([parameters / 1e6 for parameters, _ in counts.values()])
    low = np.array([multiply_adds / 1e9 for _, multiply_adds in counts.values()])
    axes.scatter(x, low, marker="o", s=60, color=BLUE, label="counted, multiply-adds")
    two = "counted, two operations each"
    axes.scatter(x, 2 * low, marker="o", s=60, color="white", edgecolor=ORANGE, linewidth=2, label=two)
    points = np.array(list(printed.values())) / (1e6, 1e9)
    axes.scatter(*points.T, marker="x", s=70, color=INK, linewidth=2, zorder=3, label="printed")
    axes.set(xscale="log", yscale="log", xlabel="parameters without classifiers (millions)")
    axes.set_ylabel("operations for one image (1e9)")
    axes.set(xlim=(min(x) / 1.5, max(x) * 2), ylim=(min(low) / 1.5, max(low) * 3))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
