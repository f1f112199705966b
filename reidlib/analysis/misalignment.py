"""Networks tested with worse boxes and more occlusion than they were trained with: tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from reidlib.analysis import scores as tables
from reidlib.analysis.evidence import Cell, Evidence
from reidlib.analysis.statistics import Interval
from reidlib.data.synthetic.render import Factors
from reidlib.experiments.perturbations import CONDITIONS, Condition

TITLES = {factor: factor.replace("_", " ") for factor in CONDITIONS}
MEANINGS = {
    "box_jitter": "shift of the box, in box heights (one deviation)",
    "box_scale_error": "error of the box's size, relative (one deviation)",
    "occlusion_share": "share of images with something in front",
}


def usual(factor: str) -> float:
    """The value that the benchmark has."""
    return getattr(Factors(), factor)


def _at(cell: Cell, factor: str, value: float) -> Cell:
    """A network's scores at one value; at the usual one they are its ordinary scores on this benchmark."""
    return cell._replace(condition=Condition(factor, value))


def curves(
    networks: Mapping[str, Cell], evidence: Evidence, measure: str
) -> dict[str, dict[str, list[tuple[float, tables.Spread]]]]:
    """Title of a factor -> network -> (value, score over the seeds), for ``figures.scores.turned``."""
    return {
        TITLES[factor]: {
            label: [
                (
                    value,
                    tables.spreads({"": evidence.group(_at(cell, factor, value))}, (measure,))[""][measure],
                )
                for value in values
            ]
            for label, cell in networks.items()
        }
        for factor, values in CONDITIONS.items()
    }


def score_rows(networks: Mapping[str, Cell], evidence: Evidence) -> list[dict[str, str]]:
    """A row for each value of each factor: every network's rank-1 and mAP (step)."""
    found = {name: curves(networks, evidence, name) for name in ("R1", "mAP (step)")}
    return [
        {"factor": TITLES[factor], "value": f"{value:g}" + (" (usual)" if value == usual(factor) else "")}
        | {
            f"{label}: {name}": str(found[name][TITLES[factor]][label][place][1])
            for label in networks
            for name in found
        }
        for factor, values in CONDITIONS.items()
        for place, value in enumerate(values)
    ]


class Loss(NamedTuple):
    """What the strongest value of a factor changes, in points, and how far that is beyond the reference's."""

    change: Interval | None
    beyond: Interval | None  # below nought: loses more than the reference
    kept: float  # share of its usual score that is left; not a number where one is missing


def losses(
    networks: Mapping[str, Cell], evidence: Evidence, measure: str, *, reference: str
) -> dict[str, dict[str, Loss]]:
    """Factor -> network -> its loss from the usual to the strongest value, beside the reference network's."""
    found = {}
    for factor, values in CONDITIONS.items():
        strong = {label: _at(cell, factor, values[-1]) for label, cell in networks.items()}
        plain = {label: _at(cell, factor, usual(factor)) for label, cell in networks.items()}
        found[factor] = {
            label: Loss(
                evidence.difference([strong[label]], [plain[label]], measure),
                None
                if label == reference
                else evidence.difference(
                    [strong[label], plain[reference]], [plain[label], strong[reference]], measure
                ),
                _mean(evidence, strong[label], measure) / _mean(evidence, plain[label], measure),
            )
            for label in networks
        }
    return found


def _mean(evidence: Evidence, cell: Cell, measure: str) -> float:
    return tables.spreads({"": evidence.group(cell)}, (measure,))[""][measure].mean


def loss_rows(found: Mapping[str, Mapping[str, Loss]]) -> list[dict[str, str]]:
    """``losses`` as a table: the change in points, and how much of its usual score each network keeps."""
    rows = []
    for label in next(iter(found.values())):
        row = {"network": label}
        for factor, networks in found.items():
            loss = networks[label]
            title = f"{TITLES[factor]} {usual(factor):g} → {CONDITIONS[factor][-1]:g}"
            row[title] = str(loss.change or tables.MISSING)
            row[f"{TITLES[factor]}: keeps"] = "–" if math.isnan(loss.kept) else f"{100 * loss.kept:.0f} %"
        rows.append(row)
    return rows
