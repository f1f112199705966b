"""Tables of networks tested with worse boxes and more occlusion than in training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from reidlib.analysis.scores import Cell, ExperimentScores, Spread
from reidlib.analysis.statistics import Interval
from reidlib.data.benchmark import Benchmark
from reidlib.data.synthetic.factors import Factors
from reidlib.errors import InputError
from reidlib.experiments.rows import PERTURBATIONS, Perturbation, all_perturbations

# Names of the factors of the renderer that perturbations change, and what the factors mean.
FACTOR_TITLES = {factor: factor.replace("_", " ") for factor in PERTURBATIONS}
FACTOR_MEANINGS = {
    "box_jitter": "shift of the box, in box heights (std. dev.)",
    "box_scale_error": "relative error of the box's size (std. dev.)",
    "occlusion_share": "share of images with an occluder in front",
}


def default_value(factor: str) -> float:
    """Return the value of a factor on the unperturbed benchmark."""
    return getattr(Factors(), factor)


def value_label(factor: str, value: float) -> str:
    """Return a factor's value as text, with "(usual)" if it is that of the unperturbed benchmark."""
    return f"{value:g}" + (" (usual)" if value == default_value(factor) else "")


def factor_table() -> pd.DataFrame:
    """Return a table of the factors, their meaning, and the values that are tested."""
    lines = [
        (
            FACTOR_TITLES[factor],
            FACTOR_MEANINGS[factor],
            f"{default_value(factor):g}",
            ", ".join(f"{value:g}" for value in values),
        )
        for factor, values in PERTURBATIONS.items()
    ]
    return pd.DataFrame(lines, columns=["factor", "means", "usual", "tested"])


def part_sentence(benchmark: Benchmark) -> str:
    """Return on which of a benchmark's test images the scores are measured."""
    from reidlib.experiments.perturbations import describe_part, rendered_size

    try:
        return f"Measured on {describe_part(rendered_size(benchmark))}."
    except InputError as error:
        return f"Nothing is measured: {error}."


def _perturbed(cell: Cell, factor: str, value: float) -> Cell:
    """Return a network's row at one value of a factor, the usual one too, on the part of the images."""
    return cell._replace(perturbation=Perturbation(factor, value))


def _spreads(
    networks: Mapping[str, Cell], scores: ExperimentScores, measures: Sequence[str]
) -> dict[str, dict[tuple[str, str, float], Spread]]:
    """Return measure -> (network, factor, value) -> score over the seeds."""
    cells = {
        (label, perturbation.factor, perturbation.value): cell._replace(perturbation=perturbation)
        for label, cell in networks.items()
        for perturbation in all_perturbations()
    }
    return scores.spreads(cells, measures).to_dict()


def perturbation_curves(
    networks: Mapping[str, Cell], scores: ExperimentScores, measure: str
) -> dict[str, dict[str, list[tuple[float, Spread]]]]:
    """Return each network's scores at all values of each factor, for ``visual.figures.scores.score_curves``.

    Args:
        networks: Label -> row of scores without a perturbation.
        scores: Scores of the networks with their perturbations.
        measure: A name from ``scores.MEASURES``.

    Returns:
        Title of a factor -> label of a network -> pairs of a value and the score there, in per cent.
    """
    spreads = _spreads(networks, scores, [measure])[measure]
    return {
        FACTOR_TITLES[factor]: {
            label: [(value, spreads[label, factor, value]) for value in values] for label in networks
        }
        for factor, values in PERTURBATIONS.items()
    }


def perturbation_table(networks: Mapping[str, Cell], scores: ExperimentScores) -> pd.DataFrame:
    """Return rank-1 and mAP of all networks at all values of all factors.

    Args:
        networks: Label -> row of scores without a perturbation.
        scores: Scores of the networks with their perturbations.

    Returns:
        A line for each value of each factor. The columns "LABEL: R1" and "LABEL: mAP (step)" of each network
        hold a ``Spread`` in per cent.
    """
    spreads = _spreads(networks, scores, ("R1", "mAP (step)"))
    return pd.DataFrame(
        {"factor": FACTOR_TITLES[factor], "value": value_label(factor, value)}
        | {f"{label}: {name}": spreads[name][label, factor, value] for label in networks for name in spreads}
        for factor, values in PERTURBATIONS.items()
        for value in values
    )


def with_grouped_header(table: pd.DataFrame) -> pd.DataFrame:
    """Give the table of ``perturbation_table`` two rows of headers: networks above their measures.

    Args:
        table: A table with columns "LABEL: MEASURE" and others.

    Returns:
        The same table with the columns (LABEL, MEASURE), where a measure names no rule of mAP.
    """
    columns = [name.removesuffix(" (step)").rpartition(": ")[::2] for name in table]
    return table.set_axis(pd.MultiIndex.from_tuples(columns), axis="columns")


class ScoreDrop(NamedTuple):
    """What the strongest value of a factor changes in a network's score.

    Attributes:
        change: Score at the strongest value minus score at the usual one, in points; None if a run is
            missing.
        beyond_reference: ``change`` minus that of the reference network, in points. A value below zero means
            that the network loses more than the reference. None for the reference and for missing runs.
        remaining_share: Score at the strongest value divided by the score at the usual one; NaN if a run is
            missing.
    """

    change: Interval | None
    beyond_reference: Interval | None
    remaining_share: float


def score_drops(
    networks: Mapping[str, Cell], scores: ExperimentScores, measure: str, *, reference: str
) -> dict[str, dict[str, ScoreDrop]]:
    """Compute what each network loses from the usual to the strongest value of each factor.

    Args:
        networks: Label -> row of scores without a perturbation.
        scores: Scores of the networks with their perturbations.
        measure: A measure with a value for each query: rank-k or mAP, single query.
        reference: Label of the network to which the others are compared.

    Returns:
        Factor -> label of a network -> the change of its score.
    """
    spreads = _spreads(networks, scores, [measure])[measure]
    drops: dict[str, dict[str, ScoreDrop]] = {factor: {} for factor in PERTURBATIONS}
    for factor, values in PERTURBATIONS.items():
        strongest, default = values[-1], default_value(factor)
        reference_default = _perturbed(networks[reference], factor, default)
        reference_strongest = _perturbed(networks[reference], factor, strongest)
        for label, cell in networks.items():
            plus, minus = _perturbed(cell, factor, strongest), _perturbed(cell, factor, default)
            change = scores.difference([plus], [minus], measure)
            beyond = None
            if label != reference:
                beyond = scores.difference([plus, reference_default], [minus, reference_strongest], measure)
            share = spreads[label, factor, strongest].mean / spreads[label, factor, default].mean
            drops[factor][label] = ScoreDrop(change, beyond, share)
    return drops


def score_drop_table(drops: Mapping[str, Mapping[str, ScoreDrop]]) -> pd.DataFrame:
    """Return a table of the changes in points, and of the share of its usual score that a network keeps.

    Args:
        drops: The result of ``score_drops``.

    Returns:
        A line for each network with two columns for each factor.
    """
    table = pd.DataFrame({"network": list(next(iter(drops.values())))})
    for factor, network_drops in drops.items():
        title = f"{FACTOR_TITLES[factor]} {default_value(factor):g} → {PERTURBATIONS[factor][-1]:g}"
        table[title] = pd.Series([drop.change for drop in network_drops.values()], dtype=object)
        table[f"{FACTOR_TITLES[factor]}: keeps"] = [
            "–" if math.isnan(drop.remaining_share) else f"{100 * drop.remaining_share:.0f} %"
            for drop in network_drops.values()
        ]
    return table
