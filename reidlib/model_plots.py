"""Pictures of models and trainings: the parts that a model sees, its losses, how they were balanced."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from reidlib.plots import BLUE, GREEN, GREY, INK, ORANGE, PALETTE, show_image

# A loss, or what concerns it, keeps its colour.
LOSSES = {"identity": BLUE, "triplet": ORANGE}
_BALANCED, _IN_USE = GREEN, ORANGE
# From a random batch to a balanced one.
_STRIP = LinearSegmentedColormap.from_list("samplers", ["#CCCCCC", _BALANCED])


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

    parts: (first, stop) of ``stripes`` stripes, fine to coarse, as ``models.pyramid.pyramid_parts`` gives.
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
    """For each pyramid the image with its stripes, and beside it a bar for each part, a column a level.

    pyramids: name -> (parts, stripes), parts as in ``part_pictures``. Overlapping parts of a level take turns
    in as many columns as it needs.
    """
    height, width = image_hwc.shape[:2]
    bar, gap = 0.042 * height, 0.035 * height
    figure, panels = plt.subplots(1, len(pyramids), figsize=(1.85 * len(pyramids), 2.6), squeeze=False)
    for axes, (name, (parts, stripes)) in zip(panels[0], pyramids.items(), strict=True):
        show_image(axes, image_hwc)
        edges = [edge * height / stripes - 0.5 for edge in range(1, stripes)]
        axes.hlines(edges, -0.5, width - 0.5, color="white", linewidth=0.8)
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
        axes.set_title(f"{name}\n{len(parts)} part{'s' if len(parts) > 1 else ''}", fontsize=9, loc="left")
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


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the finite values among the ``window`` around each; NaN where there is none. Ends see fewer."""
    padded = np.pad(np.asarray(values, float), (window // 2, (window - 1) // 2), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(windows, axis=1)


def balancing_steps(steps: Mapping[str, np.ndarray], in_use: np.ndarray) -> Figure:
    """Losses, their weights, and which sampler gave each batch, stacked over the steps of one training.

    steps, in_use: ``tables.trace(run)`` and its ``tables.triplet_in_use``. Pale dots: every step; lines:
    running means over a fiftieth of the training, of the batches over a twentieth.
    """
    step = steps["step"]
    figure, (losses, weights, batches) = plt.subplots(
        3, 1, sharex=True, figsize=(9.6, 7.0), height_ratios=(3, 2.2, 1.8)
    )
    for name, colour in LOSSES.items():
        if name in steps:
            _smoothed(losses, step, steps[name], colour, f"{name} loss")
        if f"weight_{name}" in steps:
            _smoothed(weights, step, steps[f"weight_{name}"], colour, f"weight of the {name} loss")
            weights.lines[-1].set_linestyle("-" if name == "identity" else "--")  # both may be 1
    highest = max(np.nanmax(steps[name]) for name in LOSSES if name in steps)
    losses.set(ylabel="sum over the parts", ylim=(0, 1.05 * highest))
    weights.set(ylabel="weight")
    if weights.lines:
        _scale_weights(weights, np.concatenate([steps[f"weight_{name}"] for name in LOSSES]))
    else:
        text = "no triplet loss, so nothing to balance: the identity loss alone, weight 1"
        weights.text(0.5, 0.5, text, ha="center", va="center", transform=weights.transAxes)
        weights.set_yticks([])
    _batches_panel(batches, step, steps["balanced_batches"], in_use)
    batches.set(xlabel="step", xlim=(0.5, step[-1] + 0.5))
    batches.xaxis.set_major_locator(MaxNLocator(integer=True))
    titles = ("Losses, before their weights", "Their weights", "Batches (strip: green balanced, grey random)")
    for axes, title in zip((losses, weights, batches), titles, strict=True):
        axes.set_title(title, loc="left")
        if axes.lines:
            axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 0.97), ncols=2)
    return figure


def balancing_modes(traces: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]]) -> Figure:
    """A column for each training: above its identity loss, below which batches and losses it had.

    traces: name -> (``tables.trace(run)``, its ``tables.triplet_in_use``). All share both scales.
    """
    figure, panels = plt.subplots(
        2, len(traces), sharex=True, sharey="row", squeeze=False,
        figsize=(2.3 * len(traces), 4.3), height_ratios=(1.2, 1),
    )  # fmt: skip
    for index, ((above, below), (name, (steps, in_use))) in enumerate(
        zip(panels.T, traces.items(), strict=True)
    ):
        _smoothed(above, steps["step"], steps["identity"], LOSSES["identity"], "identity loss")
        above.set_title(name, fontsize=10)
        _batches_panel(below, steps["step"], steps["balanced_batches"], in_use)
        below.set_xlabel("step")
        below.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        if index:
            below.set_ylabel("")
    last = max(steps["step"][-1] for steps, _ in traces.values())
    highest = max(steps["identity"].max() for steps, _ in traces.values())
    panels[0][0].set(ylabel="identity loss", ylim=(0, 1.05 * highest), xlim=(0.5, last + 0.5))
    handles, labels = panels[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _smoothed(axes: Axes, step: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    window = max(1, len(step) // 50)
    if window > 1:  # dots, since a line would not show a value between two that were not measured
        axes.plot(step, values, "o", color=colour, alpha=0.25, ms=max(0.9, 55 / len(step) ** 0.5), mew=0)
    axes.plot(step, running_mean(values, window), color=colour, label=label, linewidth=1.8)


def _scale_weights(axes: Axes, weights: np.ndarray) -> None:
    """A logarithmic scale where weights are as small as unscaled focal weights are, else one from 0."""
    positive = weights[np.isfinite(weights) & (weights > 0)]
    if len(positive) and np.median(positive) < 0.01:
        low = 10 ** np.floor(np.log10(np.quantile(positive, 0.02)))
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(max(low, 1e-12), None)
    else:
        axes.set_ylim(-0.05, 1.3 * max(1.0, np.nanmax(weights)))


def _batches_panel(axes: Axes, step: np.ndarray, balanced: np.ndarray, in_use: np.ndarray) -> None:
    """Running shares of balanced batches and of the triplet loss, over a strip with a mark for each batch."""
    # More marks than pixels would be aliased: a cell of the strip is the share of its batches.
    cells = [part.mean() for part in np.array_split(balanced, min(len(balanced), 600))]
    extent = (0.5, step[-1] + 0.5, -28, -12)
    axes.imshow(np.array(cells)[None], aspect="auto", extent=extent, cmap=_STRIP, vmin=0, vmax=1, zorder=2)
    window = max(1, len(step) // 20)
    for values, colour, style, name in (
        (balanced, _BALANCED, "-", "identity-balanced batches"),
        (in_use, _IN_USE, "--", "triplet loss in use"),
    ):
        axes.plot(step, 100 * running_mean(values, window), color=colour, ls=style, label=name, lw=1.8)
    axes.set(ylim=(-28, 106), yticks=(0, 50, 100), ylabel="% of steps")
