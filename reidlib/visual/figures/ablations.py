"""Figures of the ablations, each with its caption and alternative text: what notebooks 30 to 36 share.

A notebook hands what these functions return to ``Result.figure``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from matplotlib.figure import Figure

from reidlib.analysis.ablations import Ablation, difference_panels
from reidlib.analysis.scores import Cell, ExperimentScores, Spread
from reidlib.data.images import ImageStore
from reidlib.errors import count_noun
from reidlib.experiments.setup import Setup
from reidlib.models.jlml import stripe_rows
from reidlib.models.parts import pyramid_parts
from reidlib.training.config import JLMLConfiguration, PyramidConfiguration
from reidlib.visual.figures import models
from reidlib.visual.figures import scores as score_figures

_Network = TypeVar("_Network", JLMLConfiguration, PyramidConfiguration)


class CaptionedFigure(NamedTuple):
    """A figure with its texts.

    Attributes:
        figure: The figure.
        caption: Text below it in the report.
        alt: Text for readers who cannot see it.
    """

    figure: Figure
    caption: str
    alt: str


def ablation_score_bars(ablation: Ablation, scores: ExperimentScores, benchmark: str) -> CaptionedFigure:
    """Draw rank-1 and mAP of each row as bars, with the difference to the baseline row.

    Args:
        ablation: The ablation whose rows are drawn.
        scores: The scores of the rows.
        benchmark: Name of the benchmark, for the caption.

    Returns:
        The figure, with caption and alternative text.
    """
    rows = scores.spreads(ablation.cells, ablation.compared_measures).to_dict("index")
    return CaptionedFigure(
        score_figures.score_bars(rows, baseline=ablation.baseline),
        f"{' and '.join(ablation.compared_measures)} of each row, on {benchmark}; "
        f"dashed: {ablation.baseline}.",
        "Two panels of horizontal bars, one bar for each row, with values and differences written on.",
    )


def ablation_difference_plot(ablation: Ablation, scores: ExperimentScores, benchmark: str) -> CaptionedFigure:
    """Draw each row's difference to the baseline row with its interval, and the paper's if it is known.

    Args:
        ablation: The ablation whose rows are drawn.
        scores: The scores of the rows.
        benchmark: Name of the benchmark, for the caption.

    Returns:
        The figure, with caption and alternative text.
    """
    differences, printed = difference_panels(ablation, scores)
    paper = "; diamonds: the paper's on Market-1501" if ablation.table else ""
    return CaptionedFigure(
        score_figures.difference_plot(differences, published=printed),
        f"Differences to {ablation.baseline} in points with 95 % intervals, on {benchmark}, "
        f"{scores.seed_count()}{paper}.",
        "Two panels; in each a line for each row with a dot and its interval beside a line at zero.",
    )


def pair_plot(
    pairs: Mapping[str, tuple[str, str]],
    cells: Mapping[str, Cell],
    scores: ExperimentScores,
    measures: Sequence[str],
    *,
    groups: Sequence[int] = (),
) -> Figure:
    """Draw the differences between pairs of rows.

    Args:
        pairs: For each line its label and two rows; the difference is the first row minus the second.
        cells: The rows by their labels.
        scores: The scores of the rows.
        measures: The measures, one panel each.
        groups: Numbers of lines after each of which a rule is drawn.

    Returns:
        The figure, with a panel per measure and a line per pair.
    """
    differences = {
        name: {
            label: scores.difference([cells[more]], [cells[less]], name)
            for label, (more, less) in pairs.items()
        }
        for name in measures
    }
    return score_figures.difference_plot(differences, groups=groups)


def setting_plot(
    ablation: Ablation,
    scores: ExperimentScores,
    lines: Mapping[str, Mapping[float, str]],
    *,
    xlabel: str,
    default: float | None = None,
    equal_spacing: bool = False,
    printed: str = "",
    notes: Mapping[float, str] | None = None,
) -> Figure:
    """Draw rank-1 and mAP over a setting.

    Args:
        ablation: The table whose rows are drawn.
        scores: The scores of the rows.
        lines: For each line its label and the row of each value of the setting.
        xlabel: The name of the setting.
        default: The value to mark.
        equal_spacing: Whether the values are drawn at equal distances.
        printed: The label of a dashed line with the paper's scores of the first line's rows; "" draws none.
        notes: Text below a value on the x axis.

    Returns:
        The figure, with a panel each for rank-1 and mAP.
    """
    spreads = scores.spreads(ablation.cells, ablation.compared_measures)
    curves: dict[str, dict] = {}
    for name in ablation.compared_measures:
        curves[name] = {
            label: [(value, spreads.at[row, name]) for value, row in rows.items()]
            for label, rows in lines.items()
        }
        if printed:
            rows, paper = next(iter(lines.values())), ablation.printed_scores.to_dict()[name]
            curves[name][printed] = [(value, Spread(paper[row])) for value, row in rows.items()]
    marks = None if default is None else dict.fromkeys(ablation.compared_measures, default)
    return score_figures.score_curves(
        curves,
        xlabels=xlabel,
        ylabel="per cent",
        dashed=(printed,),
        default=marks,
        equal_spacing=equal_spacing,
        share_y=False,
        notes=notes,
    )


def local_stream_diagrams(ablation: Ablation, setup: Setup) -> CaptionedFigure:
    """Draw the stripes of each JLML row on a training image."""
    image, networks = _training_image(ablation, setup), _networks(ablation, setup, JLMLConfiguration)
    map_height = len(image) // 4  # of the map behind the shared layers
    stripes = {row: stripe_rows(map_height, network.parts) for row, network in networks.items()}
    counts = [network.parts for network in networks.values()]
    return CaptionedFigure(
        models.stripe_diagrams(image, stripes, map_height),
        "The local streams of each training: one bar beside the image for each stripe.",
        f"The same pedestrian {count_noun(len(stripes), 'times')} with bars beside it for "
        f"{min(counts)} to {max(counts)} stripes.",
    )


def pyramid_part_diagrams(ablation: Ablation, setup: Setup) -> CaptionedFigure:
    """Draw the parts of each pyramid on a training image."""
    networks = _networks(ablation, setup, PyramidConfiguration)
    parts = {
        row: (pyramid_parts(network.stripes, network.levels), network.stripes)
        for row, network in networks.items()
    }
    return CaptionedFigure(
        models.part_diagrams(_training_image(ablation, setup), parts),
        "The parts of each training: bars beside the image, coloured by how many stripes they cover.",
        f"The same pedestrian {count_noun(len(parts), 'times')}, cut into stripes, with vertical bars "
        "for the parts beside it.",
    )


def _networks(ablation: Ablation, setup: Setup, kind: type[_Network]) -> dict[str, _Network]:
    networks = {row: configuration.model for row, configuration in ablation.configurations(setup).items()}
    return {row: network for row, network in networks.items() if isinstance(network, kind)}


def _training_image(ablation: Ablation, setup: Setup) -> np.ndarray:
    size = setup.configuration(ablation.cells[ablation.baseline].experiment).input_size
    return ImageStore.open(setup.data.train.paths, size).array_nhwc[0]
