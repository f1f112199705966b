"""Figures of images: grids, ranked lists and perturbations; and of their counts and sizes."""

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

from reidlib.analysis.misalignment import FACTOR_TITLES, value_label
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.synthetic.factors import Factors, largest_value
from reidlib.data.synthetic.render import preview
from reidlib.errors import check_choice
from reidlib.experiments.evaluate import load_ranked_lists
from reidlib.experiments.rows import PERTURBATIONS, Perturbation
from reidlib.training.runs import Run
from reidlib.visual import PALETTE, STATUS

_BINS = 24  # of a histogram of values that are not integers
_IMAGES_PER_QUERY = 9


def show_image(axes: Axes, image_hwc: np.ndarray) -> None:
    """Draw an image without ticks and frame.

    Args:
        axes: The axes to draw on.
        image_hwc: Image of shape (H, W, 3).
    """
    axes.imshow(image_hwc, interpolation="lanczos")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def panel_grid(
    count: int,
    size: tuple[float, float],
    margin: tuple[float, float] = (0, 0),
    *,
    max_columns: int = 3,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, np.ndarray]:
    """Create a figure with a grid of panels.

    Args:
        count: Number of panels.
        size: Width and height of one panel in inches.
        margin: Width and height in inches that are added to the figure.
        max_columns: Largest number of panels in a row.
        sharex: Whether all panels share one x axis.
        sharey: Whether all panels share one y axis.

    Returns:
        The figure and its axes of shape (rows, columns). Axes beyond ``count`` are removed.
    """
    columns = min(max_columns, count)
    rows = -(-count // columns)
    inches = (size[0] * columns + margin[0], size[1] * rows + margin[1])
    figure, grid = plt.subplots(rows, columns, figsize=inches, squeeze=False, sharex=sharex, sharey=sharey)
    for unused in grid.flat[count:]:
        unused.remove()
    return figure, grid


def pack_groups(groups: Iterable[list], max_length: int = 11) -> list[list]:
    """Join consecutive groups to rows of at most ``max_length`` entries, without ever splitting a group."""
    rows: list[list] = []
    for group in groups:
        if rows and len(rows[-1]) + len(group) <= max_length:
            rows[-1] = rows[-1] + group
        else:
            rows.append(group)
    return rows


def image_grid(
    images: Sequence[Sequence[np.ndarray]],
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    titles: Sequence[Sequence[str]] = (),
    height: float = 1.3,
    blocks: int = 1,
) -> Figure:
    """Draw images in rows and columns with labels at the left and at the top.

    Args:
        images: One sequence of uint8 images of shape (H, W, 3) per row; rows may differ in length.
        rows: A label per row, at its left.
        columns: A label per column, at its top.
        titles: Instead of ``columns``, the titles of the images, one sequence per row.
        height: Height of an image in inches.
        blocks: Number of equal groups of columns, which are separated by gaps.

    Returns:
        The figure.
    """
    num_columns = max(map(len, images))
    ratio = images[0][0].shape[1] / images[0][0].shape[0]
    margin = 0.09 * max((len(row) for row in rows), default=0)
    # A gap between blocks is a narrow, empty column.
    block = [height * ratio] * (num_columns // blocks)
    widths = block + [0.25 * height * ratio, *block] * (blocks - 1)
    slots = [column + column // len(block) for column in range(num_columns)]
    figure, cells = plt.subplots(
        len(images),
        len(widths),
        figsize=(1.06 * sum(widths) + margin, len(images) * height * 1.05 + 0.5),
        squeeze=False,
        width_ratios=widths,
        layout="constrained",
    )
    figure.set_layout_engine("constrained", w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)
    for axes in cells.flat:
        axes.set_visible(False)
    grid = cells[:, slots]
    for axes_row, image_row in zip(grid, images, strict=True):
        for axes, image_hwc in zip(axes_row, image_row, strict=False):
            axes.set_visible(True)
            show_image(axes, image_hwc)
    for axes_row, label in zip(grid, rows, strict=False):
        axes_row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    for axes_row, labels in zip(grid, titles or [columns], strict=False):
        for axes, label in zip(axes_row, labels, strict=False):
            axes.set_title(label, fontsize=9, fontweight="normal", loc="left" if titles else "center")
    return figure


def factor_sheet(*, identity: int = 2, cameras: Sequence[int] = (4, 2, 3)) -> Figure:
    """Draw images of one person under every perturbation of the embedded benchmark.

    Args:
        identity: Number of the rendered person.
        cameras: Numbers of the cameras; each contributes one image per value of a factor.

    Returns:
        The figure: a row per factor and a block of images per value.
    """
    images, titles = [], []
    for factor, values in PERTURBATIONS.items():
        perturbed = [Perturbation(factor, value).factors for value in values]
        previews = [preview(identity, camera, factors)[0] for factors in perturbed for camera in cameras]
        images.append([image_chw.transpose(1, 2, 0) for image_chw in previews])
        labels = [value_label(factor, value) for value in values]
        titles.append([text for label in labels for text in (label, *[""] * (len(cameras) - 1))])
    blocks = len(next(iter(PERTURBATIONS.values())))
    return image_grid(images, rows=list(FACTOR_TITLES.values()), titles=titles, blocks=blocks)


def factor_strengths(
    factors: Sequence[str], *, identity: int = 35, cameras: Sequence[int] = (1, 2, 5)
) -> Figure:
    """Draw one person with each factor off, as usual, and doubled (at most at its largest value)."""
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
    """Draw queries at the left and their ranked gallery images at the right.

    The frame, the symbol and the word at a gallery image show its status.

    Args:
        queries: An image of shape (H, W, 3) per row; None if the row continues the list of the row before.
        lists: The ranked images of each row, of shape (H, W, 3).
        statuses: "match", "other", "distractor" or "ignored" for each ranked image.
        labels: A label per row, beside the query.
        captions: Text below each ranked image, such as its distance and camera.
        ranks: Text above each ranked image; by default its position in the row, from 1.
        bars: Values of shape (P,) for a bar chart below each ranked image; all charts have one scale.
        bar_names: Names of the P bars.
        bar_colours: Colours of the P bars.
        title: Title of the figure.

    Returns:
        The figure.
    """
    num_columns = max(1, *map(len, lists))
    first_query = queries[0]
    assert first_query is not None, "the first row cannot continue another row"
    ratio = first_query.shape[1] / first_query.shape[0]
    height = 1.5
    bar_height = 0 if bars is None else max(0.5, 0.075 * len(bar_names))
    rows_per_query = 1 if bars is None else 2
    width = (num_columns + 1.4) * max(height * ratio, 0.92) + 1.2
    size = (width, len(queries) * (height + 0.55 + bar_height) + 0.4)
    figure, grid = plt.subplots(
        rows_per_query * len(queries),
        num_columns + 1,
        figsize=size,
        squeeze=False,
        width_ratios=[1.25] + [1] * num_columns,
        height_ratios=[height, bar_height][:rows_per_query] * len(queries),
        layout="constrained",
    )
    longest = max((float(np.max(values)) for row in bars or () for values in row), default=0) or 1
    for number, (query, images, row_statuses) in enumerate(zip(queries, lists, statuses, strict=True)):
        axes_row = grid[rows_per_query * number]
        if query is None:
            axes_row[0].set_visible(False)
        else:
            show_image(axes_row[0], query)
        axes_row[0].set_ylabel(labels[number], rotation=0, ha="right", va="center", fontsize=9)
        for index, (axes, image, status) in enumerate(zip(axes_row[1:], images, row_statuses, strict=False)):
            colour, text = STATUS[status]
            show_image(axes, image)
            frame = Rectangle(
                (0, 0), 1, 1, transform=axes.transAxes, fill=False, lw=4, ec=colour, clip_on=False
            )
            axes.add_patch(frame)
            rank = ranks[number][index] if ranks else str(index + 1)
            axes.set_title(rank, fontsize=9, fontweight="normal", pad=3)
            text += f"\n{captions[number][index]}" if captions else ""
            axes.set_xlabel(text, fontsize=8, color=colour, fontweight="bold", labelpad=3)
        for axes in axes_row[1 + len(images) :]:
            axes.set_visible(False)
        if bars is not None:
            _draw_bars(grid[2 * number + 1], bars[number], longest, bar_names, bar_colours)
    grid[0][0].set_title("query", fontsize=9, pad=3)
    if title:
        figure.suptitle(title, fontsize=11, fontweight="bold", parse_math=False)  # a path may contain $
    return figure


def _draw_bars(
    axes_row: Sequence[Axes],
    values: Sequence[np.ndarray],
    longest: float,
    names: Sequence[str],
    colours: Sequence[str],
) -> None:
    """Draw a bar chart under each image of a row, with the names at the left of the first chart."""
    for column, axes in enumerate(axes_row):
        if not 1 <= column <= len(values):
            axes.set_visible(False)
            continue
        axes.barh(range(len(names)), values[column - 1], 0.8, color=list(colours))
        axes.set(xlim=(0, longest), xticks=[], ylim=(len(names) - 0.4, -0.6))
        for side in ("top", "right", "bottom"):
            axes.spines[side].set_visible(False)
        axes.set_yticks(range(len(names)), names if column == 1 else [""] * len(names), fontsize=7)
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
    """Draw some of the ranked lists that are stored with a run, with up to nine images each.

    Args:
        places: Positions in ``lists``, which are sorted from the worst to the best average precision.
        lists: The lists of L queries, from ``experiments.evaluate.load_ranked_lists``.
        query_nhwc: All Q query images of the benchmark, of shape (Q, H, W, 3).
        gallery_nhwc: All G gallery images of the benchmark, of shape (G, H, W, 3).
        average_precision: Average precision of all Q queries, between 0 and 1.
        title: Title of the figure.

    Returns:
        The figure, with a row per list.
    """
    images, statuses = [], []
    for place in places:
        indices = lists["gallery_indices"][place, :_IMAGES_PER_QUERY]
        valid = indices >= 0  # −1: the list has ended
        images.append(gallery_nhwc[indices[valid]])
        codes = lists["statuses"][place, :_IMAGES_PER_QUERY][valid]
        statuses.append([tuple(STATUS)[code] for code in codes])
    queries = [lists["query_indices"][place] for place in places]
    labels = [f"AP {100 * average_precision[query]:.0f}" for query in queries]
    return ranked_lists(
        [query_nhwc[query] for query in queries], images, statuses, labels=labels, title=title
    )


def stored_ranked_lists(
    run: Run, benchmark: Benchmark, order: Literal["hardest", "median", "easiest"]
) -> Figure:
    """Draw the hardest, median or easiest of the ranked lists that are stored with a run.

    Args:
        run: An evaluated run.
        benchmark: The benchmark of its scores.
        order: "hardest" for the four lists with the lowest average precision, "median" for three around the
            median, "easiest" for the three with the highest.

    Returns:
        The figure, with a row per list.

    Raises:
        InputError: If ``order`` is unknown or an image cannot be decoded.
    """
    lists = load_ranked_lists(run)
    count = len(lists["query_indices"])
    places_and_titles = {
        "hardest": (range(min(4, count)), "Hardest queries (lowest average precision first)"),
        "median": (range(count // 2, min(count // 2 + 3, count)), "Median queries"),
        "easiest": (range(max(count - 3, 0), count), "Easiest queries (highest average precision last)"),
    }
    check_choice(f"the order is one of {', '.join(places_and_titles)}", order, places_and_titles)
    places, title = places_and_titles[order]
    size, resize = tuple(run.configuration["input_size"]), run.configuration.get("resize", "bilinear")
    query_nhwc, gallery_nhwc = (
        ImageStore.open(split.paths, size, resize=resize).array_nhwc
        for split in (benchmark.query, benchmark.gallery)
    )
    assert run.scores is not None  # stored together with the lists
    average_precision = run.scores["branches"]["full"]["step"]["average_precision"]
    return ranked_lists_at(places, lists, query_nhwc, gallery_nhwc, average_precision, title=title)


def heatmap(
    values: np.ndarray, *, rows: Sequence[str], columns: Sequence[str], title: str, label: str
) -> Figure:
    """Draw a table of counts as coloured cells with the numbers written in.

    Args:
        values: Counts as integers of shape (R, C).
        rows: Names of the R rows.
        columns: Names of the C columns.
        title: Title of the figure.
        label: Label of the colour bar.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(0.75 * len(columns) + 2.5, 0.42 * len(rows) + 1.3))
    sns.heatmap(
        values, annot=True, fmt="d", cmap="Blues", linewidths=1, ax=axes,
        xticklabels=columns, yticklabels=rows, cbar_kws={"label": label},
    )  # fmt: skip
    axes.set_title(title)
    axes.tick_params(axis="y", rotation=0)
    return figure


def histograms(panels: Mapping[str, Mapping[str, np.ndarray]], *, ylabel: str = "share of images") -> Figure:
    """Draw the distribution of several quantities over groups of images.

    Args:
        panels: Quantity to group to values of shape (N,). Each quantity has a panel, each group an outline.
        ylabel: Label of the y axis.

    Returns:
        The figure. The bars of a group add up to 1. Integers within a range of 40 have a bar each.
    """
    figure, grid = panel_grid(len(panels), (3.5, 2.5))
    for axes, (name, groups) in zip(grid.flat, panels.items(), strict=False):
        values = np.concatenate([np.asarray(group, dtype=float) for group in groups.values()])
        low, high = float(values.min()), float(values.max())
        are_integers = np.allclose(values, np.round(values)) and high - low <= 40
        edges = np.arange(low - 0.5, high + 1) if are_integers else np.linspace(low, high or 1.0, _BINS + 1)
        for (label, group), colour in zip(groups.items(), PALETTE, strict=False):
            share = np.full(len(group), 1 / max(len(group), 1))
            axes.hist(group, edges, weights=share, histtype="stepfilled", alpha=0.25, color=colour)
            axes.hist(group, edges, weights=share, histtype="step", color=colour, label=label, linewidth=1.5)
        axes.set_xlabel(name)
        if are_integers:
            axes.set_xlim(min(low, high - 4) - 0.7, high + 0.7)  # keeps the bar of a single value narrow
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes_row in grid:
        axes_row[0].set_ylabel(ylabel)
    if any(len(groups) > 1 for groups in panels.values()):
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return figure
