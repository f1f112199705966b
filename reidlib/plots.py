"""Arrays in, figure out: every picture of the notebooks. Colours are safe for colour-blind readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette. A meaning keeps its colour in every figure; a sign or word always stands beside it.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#777777",
)  # fmt: skip
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
STATUS = {
    "match": (BLUE, "✓ match"),
    "other": (RED, "✗ other"),
    "distractor": (PURPLE, "– distractor"),
    "ignored": (GREY, "○ ignored"),
}


def set_style() -> None:
    """The suite's look: a light grid, no box, text sizes that survive a report's column."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=PALETTE,
        rc={
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "grid.color": "#E5E5E5",
            "figure.constrained_layout.use": True,
        },
    )


def _show(axes: Axes, image_hwc: np.ndarray) -> None:
    axes.imshow(image_hwc, interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def image_grid(
    images: Sequence[Sequence[np.ndarray]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    title: str = "",
    height: float = 1.3,
    blocks: int = 1,
) -> Figure:
    """Images (H, W, 3) uint8 in rows and columns, labelled at their left and top.

    images: one sequence a row; rows may differ in length. height: of one image, in inches.
    blocks: equal groups of columns with a gap between them.
    """
    wide = max(map(len, images))
    ratio = images[0][0].shape[1] / images[0][0].shape[0]
    margin = 0.09 * max((len(row) for row in rows), default=0)
    gap = 0.25 * height * ratio
    # A gap between blocks is a narrow column of its own, which stays empty.
    slots, widths = [], []
    for column in range(wide):
        if column and column % (wide // blocks) == 0:
            widths.append(gap)
        slots.append(len(widths))
        widths.append(height * ratio)
    figure, cells = plt.subplots(
        len(images),
        len(widths),
        figsize=(1.06 * sum(widths) + margin, len(images) * height * 1.05 + 0.5),
        squeeze=False,
        width_ratios=widths,
    )
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    for axes in cells.flat:
        axes.set_visible(False)
    grid = cells[:, slots]
    for line, row in zip(grid, images, strict=True):
        for axes, image_hwc in zip(line, row, strict=False):
            axes.set_visible(True)
            _show(axes, image_hwc)
    for line, label in zip(grid, rows, strict=False):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    for axes, label in zip(grid[0], columns, strict=False):
        axes.set_title(label, fontsize=9, fontweight="normal")
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def bars(groups: Mapping[str, Mapping[str, float]], *, xlabel: str, ylabel: str, title: str = "") -> Figure:
    """Grouped bars: an outer entry is a colour, an inner one a place on the axis."""
    places = list(dict.fromkeys(place for values in groups.values() for place in values))
    figure, axes = plt.subplots(figsize=(max(4.5, 0.5 * len(places) * len(groups) + 2), 3.2))
    width = 0.8 / len(groups)
    for index, ((label, values), colour) in enumerate(zip(groups.items(), PALETTE, strict=False)):
        positions = np.arange(len(places)) + (index - (len(groups) - 1) / 2) * width
        axes.bar(positions, [values.get(place, 0) for place in places], width, label=label, color=colour)
    axes.set_xticks(np.arange(len(places)), places)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.grid(axis="x", visible=False)
    if len(groups) > 1:
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def heatmap(
    values: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str, label: str
) -> Figure:
    """A table (rows, columns) of counts as colours with the numbers written in."""
    figure, axes = plt.subplots(figsize=(0.75 * len(columns) + 2.5, 0.42 * len(rows) + 1.3))
    sns.heatmap(
        values, annot=True, fmt="d", cmap="Blues", linewidths=1, ax=axes,
        xticklabels=columns, yticklabels=rows, cbar_kws={"label": label},
    )  # fmt: skip
    axes.set_title(title)
    axes.tick_params(axis="y", rotation=0)
    return figure


def histograms(
    panels: Mapping[str, Mapping[str, np.ndarray]], *, ylabel: str = "share of images", bins: int = 24
) -> Figure:
    """One panel for each quantity, one outline for each group; every group's bars add up to one."""
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure, grid = plt.subplots(lines, columns, figsize=(3.5 * columns, 2.5 * lines), squeeze=False)
    for axes, (name, groups) in zip(grid.flat, panels.items(), strict=False):
        values = np.concatenate([np.asarray(group, dtype=float) for group in groups.values()])
        low, high = float(values.min()), float(values.max())
        whole = np.allclose(values, np.round(values)) and high - low <= 40
        edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high or 1.0, bins + 1)
        for (label, group), colour in zip(groups.items(), PALETTE, strict=False):
            share = np.full(len(group), 1 / max(len(group), 1))
            axes.hist(group, edges, weights=share, histtype="stepfilled", alpha=0.25, color=colour)
            axes.hist(group, edges, weights=share, histtype="step", color=colour, label=label, linewidth=1.5)
        axes.set_xlabel(name)
        if whole:
            axes.set_xlim(min(low, high - 4) - 0.7, high + 0.7)  # a single value is still a bar, not a wall
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in list(grid.flat)[len(panels) :]:
        axes.set_visible(False)
    for line in grid:
        line[0].set_ylabel(ylabel)
    if any(len(groups) > 1 for groups in panels.values()):
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    return figure


def training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss terms, training accuracy and learning rate over the epochs of a run's history."""
    epochs = [row["epoch"] for row in history]
    terms = [key for key in history[0] if key.startswith(("identity", "triplet"))]
    norms = [key for key in history[0] if key.startswith("sparsity")]
    figure, (losses, sparsity, accuracy) = plt.subplots(1, 3, figsize=(11.5, 3.1))
    for axes, names in ((losses, terms), (sparsity, norms)):
        for name, colour in zip(names, PALETTE, strict=False):
            label = name.replace("_", " ")
            axes.plot(epochs, [row[name] for row in history], color=colour, label=label, marker=".")
        if names:
            axes.legend(frameon=False)
        else:
            axes.text(0.5, 0.5, "switched off", ha="center", va="center", transform=axes.transAxes)
    losses.set(title="Identity losses", xlabel="epoch", ylabel="mean cross-entropy (nats)")
    sparsity.set(title="Sparsity terms, weighted", xlabel="epoch", ylabel="λ × norm")
    if norms:
        sparsity.set_yscale("log")
    accuracy.plot(epochs, [100 * row["accuracy"] for row in history], color=GREEN, marker=".")
    accuracy.set(title="Training accuracy and learning rate", xlabel="epoch", ylim=(0, 104))
    accuracy.set_ylabel("right identity (%)", color=GREEN)
    rate = accuracy.twinx()
    rate.plot(epochs, [row["learning_rate"] for row in history], color=GREY, linestyle="--")
    rate.set_ylabel("learning rate (dashed)", color=GREY)
    rate.grid(visible=False)
    for axes in (losses, sparsity, accuracy):
        axes.set_xlim(left=1 - 0.02 * len(epochs))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def cmc_curves(curves: Mapping[str, Mapping[int, float]]) -> Figure:
    """Cumulative match characteristic of several features: rank -> share of queries with a match by then."""
    figure, axes = plt.subplots(figsize=(5.6, 3.6))
    for (label, curve), colour in zip(curves.items(), PALETTE, strict=False):
        ranks = sorted(curve)
        axes.step(ranks, [100 * curve[rank] for rank in ranks], where="post", color=colour, label=label)
    axes.set(xlabel="rank", ylabel="queries with a match by this rank (%)", title="CMC curve")
    axes.set_ylim(top=100.8)
    last = max(max(curve) for curve in curves.values())
    axes.set_xticks([rank for rank in (1, 5, 10, 20, 30, 40, 50, 100) if rank <= last])
    axes.set_xlim(0.5, last + 0.5)
    axes.legend(frameon=False, loc="lower right")
    return figure


def ranked_lists(
    queries: Sequence[np.ndarray],
    lists: Sequence[Sequence[np.ndarray]],
    statuses: Sequence[Sequence[str]],
    *,
    labels: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    title: str = "",
) -> Figure:
    """Queries at the left, their ranked gallery images at the right, each framed by what it is.

    queries: images (H, W, 3); lists: of each query, the ranked images; statuses: "match", "other",
    "distractor" or "ignored" for each, drawn as colour, sign and word; labels: beside each query;
    captions: below each image (distance, camera).
    """
    wide = max(map(len, lists))
    ratio = queries[0].shape[1] / queries[0].shape[0]
    height = 1.5
    figure, grid = plt.subplots(
        len(queries),
        wide + 1,
        figsize=((wide + 1.4) * max(height * ratio, 0.92) + 1.2, len(queries) * (height + 0.55) + 0.4),
        squeeze=False,
        gridspec_kw={"width_ratios": [1.25] + [1] * wide},
    )
    for line, query, row, states in zip(grid, queries, lists, statuses, strict=True):
        _show(line[0], query)
        for rank, (axes, image, state) in enumerate(zip(line[1:], row, states, strict=False), start=1):
            colour, words = STATUS[state]
            _show(axes, image)
            frame = Rectangle(
                (0, 0), 1, 1, transform=axes.transAxes, fill=False, lw=4, ec=colour, clip_on=False
            )
            axes.add_patch(frame)
            axes.set_title(f"{rank}", fontsize=9, fontweight="normal", pad=3)
            axes.set_xlabel(words, fontsize=8, color=colour, fontweight="bold", labelpad=3)
        for axes in line[1 + len(row) :]:
            axes.set_visible(False)
    for line, label in zip(grid, labels, strict=True):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    for line, texts in zip(grid, captions or [[]] * len(queries), strict=True):
        for axes, text in zip(line[1:], texts, strict=False):
            axes.set_xlabel(f"{axes.get_xlabel()}\n{text}", fontsize=8, labelpad=3)
    grid[0][0].set_title("query", fontsize=9, pad=3)
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold")
    return figure


def striped_image(
    image_hwc: np.ndarray, rows: Sequence[tuple[int, int]], map_height: int, names: Sequence[str]
) -> Figure:
    """An image with the stripes that the local streams see, given as rows of a map of ``map_height`` rows."""
    height, width = image_hwc.shape[:2]
    figure, axes = plt.subplots(figsize=(4.2, 3.6))
    _show(axes, image_hwc)
    for (first, last), name, colour in zip(rows, names, PALETTE * 3, strict=False):
        top, bottom = first / map_height * height, last / map_height * height
        box = Rectangle((-0.5, top - 0.5), width, bottom - top, fill=False, edgecolor=colour, linewidth=2.5)
        axes.add_patch(box)
        axes.text(
            width + 1, (top + bottom) / 2, name, color=colour, va="center", fontsize=10, fontweight="bold"
        )
    return figure
