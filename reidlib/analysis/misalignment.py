"""Networks tested with worse boxes and more occlusion than they were trained with: tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from reidlib.analysis.scores import Cell, ExperimentScores, Spread
from reidlib.analysis.statistics import Interval
from reidlib.data.synthetic.factors import Factors
from reidlib.experiments.rows import PERTURBATIONS, Perturbation, all_perturbations

TITLES = {factor: factor.replace("_", " ") for factor in PERTURBATIONS}
MEANINGS = {
    "box_jitter": "shift of the box, in box heights (one deviation)",
    "box_scale_error": "error of the box's size, relative (one deviation)",
    "occlusion_share": "share of images with something in front",
}


def usual(factor: str) -> float:
    """The value that the benchmark has."""
    return getattr(Factors(), factor)


def marked(factor: str, value: float) -> str:
    """A value as tables and pictures name it: the usual one says so."""
    return f"{value:g}" + (" (usual)" if value == usual(factor) else "")


def factor_table() -> pd.DataFrame:
    """The factors and the values that are tested."""
    lines = [
        (TITLES[factor], MEANINGS[factor], f"{usual(factor):g}", ", ".join(f"{value:g}" for value in values))
        for factor, values in PERTURBATIONS.items()
    ]
    return pd.DataFrame(lines, columns=["factor", "means", "usual", "tested"])


def _at(cell: Cell, factor: str, value: float) -> Cell:
    """A network's scores at one value; at the usual one they are its ordinary scores on this benchmark."""
    return cell._replace(condition=Perturbation(factor, value))


def _spreads(
    networks: Mapping[str, Cell], scores: ExperimentScores, measures: Sequence[str]
) -> dict[str, dict[tuple[str, str, float], Spread]]:
    """Measure -> (network, factor, value) -> score over the seeds."""
    cells = {
        (label, condition.factor, condition.value): cell._replace(condition=condition)
        for label, cell in networks.items()
        for condition in all_perturbations()
    }
    return scores.spreads(cells, measures).to_dict()


def curves(
    networks: Mapping[str, Cell], scores: ExperimentScores, measure: str
) -> dict[str, dict[str, list[tuple[float, Spread]]]]:
    """Title of a factor -> network -> (value, score over the seeds), for ``figures.scores.turned``."""
    spreads = _spreads(networks, scores, [measure])[measure]
    return {
        TITLES[factor]: {
            label: [(value, spreads[label, factor, value]) for value in values] for label in networks
        }
        for factor, values in PERTURBATIONS.items()
    }


def condition_table(networks: Mapping[str, Cell], scores: ExperimentScores) -> pd.DataFrame:
    """A line for each value of each factor: every network's rank-1 and mAP (step)."""
    spreads = _spreads(networks, scores, ("R1", "mAP (step)"))
    return pd.DataFrame(
        {"factor": TITLES[factor], "value": marked(factor, value)}
        | {f"{label}: {name}": spreads[name][label, factor, value] for label in networks for name in spreads}
        for factor, values in PERTURBATIONS.items()
        for value in values
    )


class Loss(NamedTuple):
    """What the strongest value of a factor changes, in points, and how far that is beyond the reference's."""

    change: Interval | None
    beyond: Interval | None  # below nought: loses more than the reference
    kept: float  # share of its usual score that is left; not a number where one is missing


def losses(
    networks: Mapping[str, Cell], scores: ExperimentScores, measure: str, *, reference: str
) -> dict[str, dict[str, Loss]]:
    """Factor -> network -> its loss from the usual to the strongest value, beside the reference network's."""
    spreads = _spreads(networks, scores, [measure])[measure]
    found: dict[str, dict[str, Loss]] = {factor: {} for factor in PERTURBATIONS}
    for factor, values in PERTURBATIONS.items():
        strong, plain = values[-1], usual(factor)
        other = networks[reference]
        other_plain, other_strong = _at(other, factor, plain), _at(other, factor, strong)
        for label, cell in networks.items():
            plus, minus = _at(cell, factor, strong), _at(cell, factor, plain)
            change = scores.difference([plus], [minus], measure)
            beyond = None
            if label != reference:
                beyond = scores.difference([plus, other_plain], [minus, other_strong], measure)
            kept = spreads[label, factor, strong].mean / spreads[label, factor, plain].mean
            found[factor][label] = Loss(change, beyond, kept)
    return found


def loss_table(found: Mapping[str, Mapping[str, Loss]]) -> pd.DataFrame:
    """``losses`` as a table: the change in points, and how much of its usual score each network keeps."""
    table = pd.DataFrame({"network": list(next(iter(found.values())))})
    for factor, of_networks in found.items():
        title = f"{TITLES[factor]} {usual(factor):g} → {PERTURBATIONS[factor][-1]:g}"
        table[title] = pd.Series([loss.change for loss in of_networks.values()], dtype=object)
        table[f"{TITLES[factor]}: keeps"] = [
            "–" if math.isnan(loss.kept) else f"{100 * loss.kept:.0f} %" for loss in of_networks.values()
        ]
    return table
