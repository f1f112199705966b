"""Figures of trainings: curves over the epochs, and the balancing of the losses over the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from reidlib.visual import BLUE, GREEN, GREY, INK, ORANGE, PALETTE

# The colours of each loss and of everything that belongs to it.
LOSS_STYLES = {"identity": BLUE, "triplet": ORANGE}
_BALANCED, _IN_USE = GREEN, ORANGE
# From random batches (grey) to balanced ones.
_STRIP = LinearSegmentedColormap.from_list("samplers", ["#CCCCCC", _BALANCED])


def training_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw loss terms, training accuracy, learning rate and validation scores over the epochs of a run.

    Args:
        history: One record per epoch, as ``Run.history`` has them. A term that an epoch did not measure
            leaves a gap.

    Returns:
        The figure. It has a panel of weighted sparsity terms, and one of the scores on validation persons, if
        the history contains any.
    """
    table = pd.DataFrame(history)
    terms = [name for name in table if name.startswith(("identity", "triplet"))]
    norms = [name for name in table if name.startswith("sparsity")]
    epochs = table["epoch"]
    validated = "validation_map" in table
    count = 2 + bool(norms) + validated
    figure, panels = plt.subplots(1, count, figsize=(2.8 + 2.9 * count, 3.1))
    losses, accuracy = panels[0], panels[-1 - validated]
    for axes, group in ((losses, terms), (panels[1], norms)):
        for name, colour in zip(group, PALETTE, strict=False):
            axes.plot(epochs, table[name], color=colour, label=name.replace("_", " "), marker=".")
        if group:
            axes.legend()
    if "triplet" in terms:
        losses.set(title="Losses before weighting", ylabel="sum over the parts")
    elif terms == ["identity"]:
        losses.set(title="Identity loss", ylabel="sum over the parts")
    else:
        losses.set(title="Identity losses", ylabel="cross-entropy (nats)")
    if norms:
        panels[1].set(title="Sparsity terms, weighted", ylabel="λ × norm", yscale="log")
    accuracy.plot(epochs, 100 * table["accuracy"], color=GREEN, marker=".")
    accuracy.set(title="Training accuracy and learning rate", ylim=(0, 104))
    accuracy.set_ylabel("training accuracy (%)", color=GREEN)
    rate = accuracy.twinx()
    rate.plot(epochs, table["learning_rate"], color=GREY, linestyle="--")
    rate.set_ylabel("learning rate (dashed)", color=GREY)
    rate.grid(visible=False)
    if validated:
        scores = table.dropna(subset="validation_map")  # of a few epochs
        for name, label, colour in (("r1", "R1", BLUE), ("map", "mAP", ORANGE)):
            panels[-1].plot(
                scores["epoch"], 100 * scores[f"validation_{name}"], label=label, color=colour, marker="."
            )
        panels[-1].set(title="Scores on validation persons", ylabel="score (%)", ylim=(0, 104))
        panels[-1].legend(loc="lower right")
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.set_xlim(left=1 - 0.02 * len(epochs))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Compute a centred running mean that ignores missing values.

    Args:
        values: Values of shape (N,); NaN if a value is missing.
        window: Number of values around each; fewer at both ends.

    Returns:
        Means of shape (N,); NaN if a window has no finite value.
    """
    means = pd.Series(values, dtype=float).rolling(window, center=True, min_periods=1).mean()
    return np.asarray(means)


def balancing_steps(steps: Mapping[str, np.ndarray], in_use: np.ndarray, threshold: float) -> Figure:
    """Draw losses, ratio of the focal weights, loss weights and samplers over the steps of one training.

    Args:
        steps: What each of the S steps measured, arrays of shape (S,), from ``ablations.traces.trace``.
        in_use: Shape (S,), 1 for each step that used the triplet loss, from
            ``ablations.traces.triplet_in_use``.
        threshold: Threshold δ of the ratio, below which the triplet loss is switched off.

    Returns:
        The figure. Dots are single steps. Lines are running means over a fiftieth of the training for the
        losses and over a twentieth for the rest.
    """
    step = steps["step"]
    figure, panels = plt.subplots(4, 1, sharex=True, figsize=(9.6, 9.2), height_ratios=(2.8, 2.6, 2, 1.8))
    losses, ratio, weights, batches = panels
    for name, colour in LOSS_STYLES.items():
        if name in steps:
            _plot_smoothed(losses, step, steps[name], colour, f"{name} loss")
        if f"weight_{name}" in steps:
            values = steps[f"weight_{name}"]
            _plot_smoothed(weights, step, values, colour, f"weight of the {name} loss", strong=True)
            weights.lines[-1].set_linestyle("-" if name == "identity" else "--")  # both weights may be 1
    highest = max(np.nanmax(steps[name]) for name in LOSS_STYLES if name in steps)
    losses.set(ylabel="sum over the parts", ylim=(0, 1.05 * highest))
    weights.set(ylabel="weight")
    if weights.lines:
        _scale_weights(weights, np.concatenate([steps[f"weight_{name}"] for name in LOSS_STYLES]))
    else:
        _write_note(weights, "no triplet loss: training used the identity loss alone, with weight 1")
    if "focal_triplet" in steps:
        _ratio_panel(ratio, steps, threshold)
    elif weights.lines:
        _write_note(ratio, "no focal weights and no gate: training used the plain sum of both losses")
    else:
        _write_note(ratio, "no focal weights and no gate: training used the identity loss alone")
    _batches_panel(batches, step, steps["balanced_batches"], in_use)
    batches.set(xlabel="step", xlim=(0.5, step[-1] + 0.5))
    batches.xaxis.set_major_locator(MaxNLocator(integer=True))
    marker_scale = 1 if len(step) < 2000 else 3
    titles = (
        "Losses before weighting",
        "FL(triplet) / FL(identity)",
        "Weights of the losses",
        "Batches (strip: green balanced, grey random)",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, loc="left")
        if axes.lines:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 0.97), ncols=3, markerscale=marker_scale)
    return figure


def balancing_modes(traces: Mapping[str, tuple[Mapping[str, np.ndarray], np.ndarray]]) -> Figure:
    """Draw several trainings side by side: the identity loss above, batches and losses in use below.

    Args:
        traces: Name to the results of ``ablations.traces.trace`` and ``ablations.traces.triplet_in_use``.

    Returns:
        The figure, with a column per training and at most four in a row; all share both scales.
    """
    columns = min(len(traces), 4)
    bands = -(-len(traces) // columns)  # rows of trainings, each of two rows of panels
    figure, panels = plt.subplots(
        2 * bands, columns, sharex=True, squeeze=False,
        figsize=(2.3 * columns, 4.3 * bands), height_ratios=(1.2, 1) * bands,
    )  # fmt: skip
    pairs = panels.reshape(bands, 2, columns).transpose(0, 2, 1).reshape(bands * columns, 2)
    for unused in pairs[len(traces) :].flat:
        unused.remove()
    last = max(steps["step"][-1] for steps, _ in traces.values())
    highest = max(steps["identity"].max() for steps, _ in traces.values())
    for number, (name, (steps, in_use)) in enumerate(traces.items()):
        above, below = pairs[number]
        _plot_smoothed(above, steps["step"], steps["identity"], LOSS_STYLES["identity"], "identity loss")
        above.set_title(name, fontsize=10)
        above.set(ylabel="identity loss", ylim=(0, 1.05 * highest), xlim=(0.5, last + 0.5))
        _batches_panel(below, steps["step"], steps["balanced_batches"], in_use)
        below.set_xlabel("step")
        below.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        below.tick_params(labelbottom=True)
        for axes in (above, below) if number % columns else ():
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
    handles, labels = pairs[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure


def _plot_smoothed(
    axes: Axes, step: np.ndarray, values: np.ndarray, colour: str, label: str, strong: bool = False
) -> None:
    window = max(1, len(step) // (20 if strong else 50))
    if window > 1:  # dots: a line would not show a value between two missing ones
        alpha, area = (0.5, 80) if strong else (0.25, 55)
        axes.plot(step, values, "o", color=colour, alpha=alpha, ms=max(1.0, area / len(step) ** 0.5), mew=0)
    axes.plot(step, running_mean(values, window), color=colour, label=label, linewidth=1.8)


def _write_note(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
    axes.set_yticks([])


def _ratio_panel(axes: Axes, steps: Mapping[str, np.ndarray], threshold: float) -> None:
    """Draw the ratio that the gate compares with its threshold, with marks at the edges for ∞ and 0."""
    step, balanced = steps["step"], steps["balanced_batches"] > 0
    identity, triplet = (steps[f"focal_{name}"].astype(float) for name in ("identity", "triplet"))
    infinite, zero = identity == 0, (identity > 0) & (triplet == 0)
    finite = ~infinite & ~zero
    ratio = np.divide(triplet, identity, out=np.ones(len(step)), where=finite)
    low, high = np.quantile(ratio[finite], (0.02, 0.98)) if finite.any() else (1, 1)
    # Decades that contain nearly all points and the threshold; points beyond them are drawn at the ends.
    low, high = np.floor(np.log10(min(low, threshold / 2))), np.ceil(np.log10(max(high, 10 * threshold)))
    margin = 0.13 * (high - low)
    axes.set(yscale="log", ylim=(10 ** (low - margin), 10 ** (high + margin)), ylabel="ratio")
    size = float(np.clip(80 / len(step) ** 0.5, 1.2, 6))
    for kind, colour, name in ((balanced, _BALANCED, "balanced batch"), (~balanced, GREY, "random batch")):
        selected = kind & finite
        if selected.any():
            clipped = np.clip(ratio[selected], 10**low, 10**high)
            label = f"after a {name}"
            axes.plot(step[selected], clipped, "o", color=colour, alpha=0.6, ms=size, mew=0, label=label)
    axes.axhline(threshold, color=INK, linewidth=1.2, linestyle="--", label=f"δ = {threshold:g}")
    rug = {"ls": "", "color": INK, "ms": 5, "alpha": float(np.clip(300 / len(step), 0.05, 0.8)), "mew": 0.8}
    for selected, edge, text in (
        (infinite, high + margin / 2, "∞: identity loss\ndoes not fall"),
        (zero, low - margin / 2, "0: triplet loss\ndoes not fall"),
    ):
        axes.plot(step[selected], np.full(selected.sum(), 10**edge), marker="|", **rug)
        axes.text(1.005, 10**edge, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.yaxis.set_major_locator(FixedLocator(10.0 ** np.arange(low, high + 1, max(1, (high - low) // 5))))
    axes.yaxis.set_minor_locator(NullLocator())


def _scale_weights(axes: Axes, weights: np.ndarray) -> None:
    """Use a logarithmic scale for weights as small as unscaled focal weights, else a linear one from 0."""
    positive = weights[np.isfinite(weights) & (weights > 0)]
    if len(positive) and np.median(positive) < 0.01:
        low = 10 ** np.floor(np.log10(np.quantile(positive, 0.02)))
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(max(low, 1e-12), None)
    else:
        axes.set_ylim(-0.05, 1.3 * max(1.0, np.nanmax(weights)))


def _batches_panel(axes: Axes, step: np.ndarray, balanced: np.ndarray, in_use: np.ndarray) -> None:
    """Draw the running shares of balanced batches and of the triplet loss, over a strip of the batches."""
    # A mark per batch would be aliased, so each cell of the strip shows the share of balanced batches.
    cells = [part.mean() for part in np.array_split(balanced, min(len(balanced), 600))]
    extent = (0.5, step[-1] + 0.5, -28, -12)
    axes.imshow(np.array(cells)[None], aspect="auto", extent=extent, cmap=_STRIP, vmin=0, vmax=1, zorder=2)
    window = max(1, len(step) // 20)
    for values, colour, style, name in (
        (balanced, _BALANCED, "-", "balanced batches"),
        (in_use, _IN_USE, "--", "triplet loss in use"),
    ):
        axes.plot(step, 100 * running_mean(values, window), color=colour, ls=style, label=name, lw=1.8)
    axes.set(ylim=(-28, 106), yticks=(0, 50, 100), ylabel="steps (%)")
