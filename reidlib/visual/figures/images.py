"""Images in rows: grids, ranked lists, one person under worse boxes; and what counts and sizes they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from reidlib.analysis.misalignment import TITLES, marked
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.synthetic.factors import Factors, largest_value
from reidlib.data.synthetic.render import preview
from reidlib.errors import check_choice
from reidlib.experiments.evaluate import ranked_lists_of
from reidlib.experiments.rows import PERTURBATIONS, Perturbation
from reidlib.training.runs import Run
from reidlib.visual import PALETTE, STATUS

_BINS = 24  # of a histogram whose values are not whole
_SHOWN = 9  # images of a kept list


def show_image(axes: Axes, image_hwc: np.ndarray) -> None:
    """An image (H, W, 3) without ticks or frame."""
    axes.imshow(image_hwc, interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def panel_grid(
    count: int,
    size: tuple[float, float],
    margin: tuple[float, float] = (0, 0),
    *,
    most: int = 3,
    **shared: bool,
) -> tuple[Figure, np.ndarray]:
    """A figure of ``count`` panels, at most ``most`` in a line, and its axes (lines, columns).

    size: of a panel, margin: of the figure around them, in inches. shared: ``sharex`` and ``sharey``.
    """
    columns = min(most, count)
    lines = -(-count // columns)
    inches = (size[0] * columns + margin[0], size[1] * lines + margin[1])
    figure, grid = plt.subplots(lines, columns, figsize=inches, squeeze=False, **shared)
    for unused in grid.flat[count:]:
        unused.remove()
    return figure, grid


def in_lines(groups: Iterable[list], longest: int = 11) -> list[list]:
    """Groups joined to lines of at most ``longest`` entries where that is possible: none is ever broken."""
    lines: list[list] = []
    for group in groups:
        if lines and len(lines[-1]) + len(group) <= longest:
            lines[-1] = lines[-1] + group
        else:
            lines.append(group)
    return lines


def image_grid(
    images: Sequence[Sequence[np.ndarray]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    titles: Sequence[Sequence[str]] = (),
    height: float = 1.3,
    blocks: int = 1,
) -> Figure:
    """Images (H, W, 3) uint8 in rows and columns, labelled at their left and top.

    images: one sequence a row; rows may differ in length. titles: over each image, a sequence a row.
    height: of one image, in inches.
    blocks: equal groups of columns with a gap between them.
    """
    wide = max(map(len, images))
    ratio = images[0][0].shape[1] / images[0][0].shape[0]
    margin = 0.09 * max((len(row) for row in rows), default=0)
    # A gap between blocks is a narrow column of its own, which stays empty.
    block = [height * ratio] * (wide // blocks)
    widths = block + [0.25 * height * ratio, *block] * (blocks - 1)
    slots = [column + column // len(block) for column in range(wide)]
    figure, cells = plt.subplots(
        len(images),
        len(widths),
        figsize=(1.06 * sum(widths) + margin, len(images) * height * 1.05 + 0.5),
        squeeze=False,
        width_ratios=widths,
        layout="constrained",
    )
    figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    for axes in cells.flat:
        axes.set_visible(False)
    grid = cells[:, slots]
    for line, row in zip(grid, images, strict=True):
        for axes, image_hwc in zip(line, row, strict=False):
            axes.set_visible(True)
            show_image(axes, image_hwc)
    for line, label in zip(grid, rows, strict=False):
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    for line, labels in zip(grid, titles or [columns], strict=False):
        for axes, label in zip(line, labels, strict=False):
            axes.set_title(label, fontsize=9, fontweight="normal", loc="left" if titles else "center")
    return figure


def factor_sheet(*, identity: int = 2, cameras: Sequence[int] = (4, 2, 3)) -> Figure:
    """The same images of one person, a row for each factor and a block for each of its values."""
    images, titles = [], []
    for factor, values in PERTURBATIONS.items():
        conditions = [Perturbation(factor, value).factors for value in values]
        shown = [preview(identity, camera, factors)[0] for factors in conditions for camera in cameras]
        images.append([image_chw.transpose(1, 2, 0) for image_chw in shown])
        marks = [marked(factor, value) for value in values]
        titles.append([text for mark in marks for text in (mark, *[""] * (len(cameras) - 1))])
    blocks = len(next(iter(PERTURBATIONS.values())))
    return image_grid(images, rows=list(TITLES.values()), titles=titles, blocks=blocks)


def factor_strengths(
    factors: Sequence[str], *, identity: int = 35, cameras: Sequence[int] = (1, 2, 5)
) -> Figure:
    """One person with each factor off, as usual, and at twice its default (at most its largest value)."""
    usual = Factors()
    rows = []
    for factor in factors:
        doubled = min(2 * getattr(usual, factor), largest_value(factor))
        strong = 1.0 if factor.endswith("share") else doubled
        row = replace(usual, **{factor: 0.0}), usual, replace(usual, **{factor: strong})
        rows.append([preview(identity, camera, values)[0] for values in row for camera in cameras])
    return image_grid(
        [[image_chw.transpose(1, 2, 0) for image_chw in row] for row in rows],
        rows=[factor.replace("_", " ") for factor in factors],
        columns=[
            name if place == len(cameras) // 2 else ""
            for name in ("off", "usual", "strong")
            for place in range(len(cameras))
        ],
        height=1.15,
        blocks=3,
    )


def ranked_lists(
    queries: Sequence[np.ndarray | None],
    lists: Sequence[Sequence[np.ndarray]],
    statuses: Sequence[Sequence[str]],
    *,
    labels: Sequence[str],
    captions: Sequence[Sequence[str]] | None = None,
    ranks: Sequence[Sequence[str]] | None = None,
    bars: Sequence[Sequence[np.ndarray]] | None = None,
    bar_names: Sequence[str] = (),
    bar_colours: Sequence[str] = (),
    title: str = "",
) -> Figure:
    """Queries at the left, their ranked gallery images at the right, each framed by what it is.

    queries: images (H, W, 3), None where the row before is continued; lists: of each row, the ranked
    images; statuses: "match", "other", "distractor" or "ignored" for each, drawn as colour, sign and word;
    labels: beside each query; captions: below each image (distance, camera); ranks: above each, its place
    where that is not its rank; bars: below each, values (P,) of as many names and colours, all on one scale.
    """
    wide = max(1, *map(len, lists))
    ratio = queries[0].shape[1] / queries[0].shape[0]
    height = 1.5
    bar_height = 0 if bars is None else max(0.5, 0.075 * len(bar_names))
    lines = 1 if bars is None else 2
    across = (wide + 1.4) * max(height * ratio, 0.92) + 1.2
    size = (across, len(queries) * (height + 0.55 + bar_height) + 0.4)
    figure, grid = plt.subplots(
        lines * len(queries),
        wide + 1,
        figsize=size,
        squeeze=False,
        width_ratios=[1.25] + [1] * wide,
        height_ratios=[height, bar_height][:lines] * len(queries),
        layout="constrained",
    )
    longest = max((float(np.max(values)) for row in bars or () for values in row), default=0) or 1
    for number, (query, row, states) in enumerate(zip(queries, lists, statuses, strict=True)):
        line = grid[lines * number]
        if query is None:
            line[0].set_visible(False)
        else:
            show_image(line[0], query)
        line[0].set_ylabel(labels[number], rotation=0, ha="right", va="center", fontsize=9)
        for place, (axes, image, state) in enumerate(zip(line[1:], row, states, strict=False)):
            colour, words = STATUS[state]
            show_image(axes, image)
            frame = Rectangle(
                (0, 0), 1, 1, transform=axes.transAxes, fill=False, lw=4, ec=colour, clip_on=False
            )
            axes.add_patch(frame)
            rank = ranks[number][place] if ranks else str(place + 1)
            axes.set_title(rank, fontsize=9, fontweight="normal", pad=3)
            words += f"\n{captions[number][place]}" if captions else ""
            axes.set_xlabel(words, fontsize=8, color=colour, fontweight="bold", labelpad=3)
        for axes in line[1 + len(row) :]:
            axes.set_visible(False)
        if bars is not None:
            _bars_below(grid[2 * number + 1], bars[number], longest, bar_names, bar_colours)
    grid[0][0].set_title("query", fontsize=9, pad=3)
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", parse_math=False)  # a folder's name may hold $
    return figure


def _bars_below(
    line: Sequence[Axes],
    values: Sequence[np.ndarray],
    longest: float,
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    """A row of bar charts under a row of images, with names at the left of the first."""
    for place, axes in enumerate(line):
        if not 1 <= place <= len(values):
            axes.set_visible(False)
            continue
        axes.barh(range(len(names)), values[place - 1], 0.8, color=list(colours))
        axes.set(xlim=(0, longest), xticks=[], ylim=(len(names) - 0.4, -0.6))
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_yticks(range(len(names)), names if place == 1 else [""] * len(names), fontsize=7)
        axes.tick_params(axis="y", length=0, pad=2)
        axes.grid(visible=False)


def ranked_lists_at(
    places: Sequence[int],
    lists: Mapping[str, np.ndarray],
    query_nhwc: np.ndarray,
    gallery_nhwc: np.ndarray,
    average_precision: Sequence[float],
    *,
    title: str = "",
) -> Figure:
    """The kept ranked lists of a run at ``places`` in their order, which goes from the worst to the best.

    lists: ``evaluate.ranked_lists_of(run)``; query_nhwc, gallery_nhwc: the splits' images;
    average_precision: of each query. Nine images a query, fewer where the list ends before.
    """
    images, statuses = [], []
    for place in places:
        indices = lists["gallery_indices"][place, :_SHOWN]
        there = indices >= 0  # −1: the list ended
        images.append(gallery_nhwc[indices[there]])
        statuses.append([tuple(STATUS)[status] for status in lists["statuses"][place, :_SHOWN][there]])
    queries = [lists["query_indices"][place] for place in places]
    labels = [f"AP {100 * average_precision[query]:.0f}" for query in queries]
    return ranked_lists(
        [query_nhwc[query] for query in queries], images, statuses, labels=labels, title=title
    )


def stored_ranked_lists(
    run: Run, benchmark: Benchmark, order: Literal["hardest", "median", "easiest"]
) -> Figure:
    """The four hardest, three median or three easiest of a run's stored queries, by average precision."""
    lists = ranked_lists_of(run)
    count = len(lists["query_indices"])
    places_and_titles = {
        "hardest": (range(min(4, count)), "Hardest queries (lowest average precision first)"),
        "median": (range(count // 2, min(count // 2 + 3, count)), "Median queries"),
        "easiest": (range(max(count - 3, 0), count), "Easiest queries (highest average precision last)"),
    }
    check_choice(f"the order is one of {', '.join(places_and_titles)}", order, places_and_titles)
    places, title = places_and_titles[order]
    size = tuple(run.configuration["input_size"])
    query_nhwc, gallery_nhwc = (
        ImageStore.open(split.paths, size).array_nhwc for split in (benchmark.query, benchmark.gallery)
    )
    assert run.scores is not None  # stored together with the lists
    average_precision = run.scores["branches"]["full"]["step"]["average_precision"]
    return ranked_lists_at(places, lists, query_nhwc, gallery_nhwc, average_precision, title=title)


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


def histograms(panels: Mapping[str, Mapping[str, np.ndarray]], *, ylabel: str = "share of images") -> Figure:
    """One panel for each quantity, one outline for each group; every group's bars add up to one."""
    figure, grid = panel_grid(len(panels), (3.5, 2.5))
    for axes, (name, groups) in zip(grid.flat, panels.items(), strict=False):
        values = np.concatenate([np.asarray(group, dtype=float) for group in groups.values()])
        low, high = float(values.min()), float(values.max())
        whole = np.allclose(values, np.round(values)) and high - low <= 40
        edges = np.arange(low - 0.5, high + 1) if whole else np.linspace(low, high or 1.0, _BINS + 1)
        for (label, group), colour in zip(groups.items(), PALETTE, strict=False):
            share = np.full(len(group), 1 / max(len(group), 1))
            axes.hist(group, edges, weights=share, histtype="stepfilled", alpha=0.25, color=colour)
            axes.hist(group, edges, weights=share, histtype="step", color=colour, label=label, linewidth=1.5)
        axes.set_xlabel(name)
        if whole:
            axes.set_xlim(min(low, high - 4) - 0.7, high + 0.7)  # a single value is still a bar, not a wall
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for line in grid:
        line[0].set_ylabel(ylabel)
    if any(len(groups) > 1 for groups in panels.values()):
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
