"""The claims of the two papers, and the test that decides each claim.

For every claim that can be decided here, some results were known when its test was written;
``Claim.known_results`` names them. Only seeds beyond those are new evidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Literal, NamedTuple

from reidlib.analysis import ablations
from reidlib.analysis.benchmark_tables import TABLES, published_row
from reidlib.analysis.misalignment import default_value
from reidlib.analysis.scores import Cell
from reidlib.experiments.rows import L2, PERTURBATIONS, Perturbation


class Contrast(NamedTuple):
    """A difference in mAP that a claim predicts to be above zero.

    Attributes:
        label: Name of the difference in tables and figures.
        plus: Rows that are added; one for an ordinary difference, two for a difference of differences.
        minus: Rows that are subtracted, as many as ``plus``.
        relative: Whether the difference is between shares: the mAP of the first row of ``plus`` as a share of
            the second's, minus the same of ``minus``.
        printed: The difference that the paper prints, in points; None if it is not known.
    """

    label: str
    plus: tuple[Cell, ...]
    minus: tuple[Cell, ...]
    relative: bool = False
    printed: float | None = None


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, and the test that decides it here.

    Attributes:
        name: Short name.
        paper: "JLML" or "Pyramid".
        statement: What the paper says, in a sentence.
        notebook: Name of the notebook that shows the claim's experiment; empty if there is none yet.
        test: The contrasts in words.
        contrasts: Differences in mAP that must all be above zero. Empty if nothing here can decide the claim.
        impossible: Why nothing here can decide the claim; empty if there are contrasts.
        known_results: Results that were known when the test was written; empty if there were none.
    """

    name: str
    paper: Literal["JLML", "Pyramid"]
    statement: str
    notebook: str
    test: str
    contrasts: tuple[Contrast, ...] = ()
    impossible: str = ""
    known_results: str = ""

    @property
    def measure(self) -> str:
        """mAP by the rule of the paper's tables: recalled of JLML, read in Pyramid's released code."""
        return "mAP (trapezoid)" if self.paper == "JLML" else "mAP (step)"

    @property
    def needs_rendering(self) -> bool:
        """Whether the test needs images that are rendered again with a perturbation."""
        return any(cell.perturbation is not None for cell in self.cells)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All rows of scores that the contrasts need."""
        return tuple(cell for contrast in self.contrasts for cell in (*contrast.plus, *contrast.minus))


def _above(label: str, better: Cell, worse: Cell) -> Contrast:
    return Contrast(label, (better,), (worse,), printed=_printed(better, worse))


@cache
def _printed(better: Cell, worse: Cell) -> float | None:
    """Return the difference in mAP that JLML's tables print, in points; None if they do not."""
    for ablation in ablations.PRINTED:
        labels = {cell: label for label, cell in ablation.cells.items()}
        if better in labels and worse in labels:
            scores = ablation.printed_scores[f"mAP ({ablation.average_precision})"].to_dict()
            difference = scores[labels[better]] - scores[labels[worse]]
            return None if math.isnan(difference) else round(difference, 1)
    return None


_JLML, _PYRAMID = Cell("jlml"), Cell("pyramid")
_STRIPES, _STRIPES_SAME_RATE = Cell("pyramid-stripes"), Cell("pyramid-stripes-same-rate")
_WHOLE_BODY = Cell("pyramid-global")
# Those that the claim of a generic metric names.
CLAIMED_METRICS = ("KISSME", "XQDA", "CRAFT")
_ONE_SEED_RESULT = "one seed each"
_FIRST_SEED_RESULT = "the first seed of each, on the embedded benchmark"


def _under_errors(factor: str, other: Cell, name: str) -> tuple[Contrast, Contrast]:
    """Build two contrasts at a factor's strongest value: points of mAP lost, and the share of it kept."""
    # At the usual value, scores on the same images as at the strongest, which are a part of the benchmark.
    values = default_value(factor), PERTURBATIONS[factor][-1]
    usual, strongest = (Perturbation(factor, value) for value in values)
    factor_value = strongest.name.replace("_", " ")
    pyramid_usual, pyramid_strongest, other_usual, other_strongest = (
        cell._replace(perturbation=perturbation)
        for cell in (_PYRAMID, other)
        for perturbation in (usual, strongest)
    )
    rate = " (same rate)" if other == _STRIPES_SAME_RATE else ""
    return (
        Contrast(
            f"{factor_value}: {name}' loss − pyramid's{rate}",
            (pyramid_strongest, other_usual),
            (pyramid_usual, other_strongest),
        ),
        Contrast(
            f"{factor_value}: share kept, pyramid − {name}{rate}",
            (pyramid_strongest, pyramid_usual),
            (other_strongest, other_usual),
            relative=True,
        ),
    )


def _generic() -> Iterator[Contrast]:
    """Yield what L2 is above each learnt metric on the same feature, and what the paper prints of it."""
    printed = {
        row: float(published_row("jlml_ablations", table="metric", row=row)["SQ_mAP"])
        for row in (L2, *CLAIMED_METRICS)
    }
    for name in CLAIMED_METRICS:
        plus, minus = (_JLML._replace(metric=metric) for metric in (L2, name))
        yield Contrast(f"L2 − {name}", (plus,), (minus,), printed=round(printed[L2] - printed[name], 1))


def _alignment() -> tuple[Contrast, ...]:
    """Return relaxed alignment's contrasts: to stripes by points and share, to the whole body by share."""
    # A network with half of the mAP has half as much to lose: points say nothing of the whole body.
    factors = ("box_jitter", "box_scale_error")
    stripes = [
        _under_errors(factor, cell, "stripes")
        for cell in (_STRIPES, _STRIPES_SAME_RATE)
        for factor in factors
    ]
    whole = [_under_errors(factor, _WHOLE_BODY, "whole body")[1] for factor in factors]
    return (*(lost for lost, _ in stripes), *(kept for _, kept in stripes), *whole)


def _state_of_the_art() -> Iterator[Claim]:
    """Yield a claim for each printed table: that the paper's method has the highest rank-1 of it."""
    for (file, _), group in groupby(TABLES, key=lambda table: (table.file, table.benchmark)):
        tables = [*group]
        name = tables[0].title.partition(",")[0]
        paper: Literal["JLML", "Pyramid"] = "Pyramid" if file == "pyramid_details" else "JLML"
        printed, above = "no other method's row is at hand", []
        for table in tables if paper == "JLML" else ():  # other rows of Pyramid's tables are Pyramid's, too
            others = table.printed().set_index("method").to_dict("index")
            own = others.pop(paper)
            setting = table.title.partition(", ")[2].partition(" (")[0]
            if others:
                printed = f"as printed, no method is above {paper} in any column"
            above += [
                f"{method} {line[measure]} against {own[measure]} ({measure}, {setting})"
                for method, line in others.items()
                for measure in own
                if line[measure] and float(line[measure]) > float(own[measure])
            ]
        if above:
            printed = f"as printed, {paper} is not the best of every column: {', '.join(above)}"
        yield Claim(
            f"state of the art on {name}, {paper}",
            paper,
            f"State of the art on {name} ({tables[0].title.rpartition('(')[2]}.",
            "42_benchmarks",
            "rank-1 above that of every method of the table, trained and scored by one protocol",
            impossible="of the compared methods only LOMO and GOG with learnt metrics are built here, not "
            "the other networks; " + printed,
        )


# One entry per claim. To add a claim: add an entry here, with contrasts between rows of ``EXPERIMENTS``
# (``experiments/rows.py``), and its notebook. Write the test before the trainings that decide it, and name in
# ``known_results`` the results that are already known.
CLAIMS = (
    Claim(
        "branch independence",
        "JLML",
        "A classification loss for each branch (MultiLoss) beats one loss on the joined feature (UniLoss).",
        "30_ablation_losses",
        "mAP of the joined feature: MultiLoss above UniLoss",
        (_above("MultiLoss − UniLoss", _JLML, Cell("jlml-uniloss")),),
        known_results="one seed each, of this and of an earlier recipe",
    ),
    Claim(
        "complementary branches",
        "JLML",
        "Global and local features complement each other.",
        "30_ablation_losses",
        "mAP of the MultiLoss network: joined feature above its global and above its local feature",
        (
            _above("joined − global", _JLML, Cell("jlml", "global")),
            _above("joined − local", _JLML, Cell("jlml", "local")),
        ),
        known_results="one seed, of this and of an earlier recipe",
    ),
    Claim(
        "complementary under UniLoss",
        "JLML",
        "Global and local features complement each other also under one loss on the joined feature.",
        "30_ablation_losses",
        "mAP of the UniLoss network: joined feature above its global and above its local feature",
        (
            _above("joined − global", Cell("jlml-uniloss"), Cell("jlml-uniloss", "global")),
            _above("joined − local", Cell("jlml-uniloss"), Cell("jlml-uniloss", "local")),
        ),
        known_results="three seeds: joined − global +26.4 [+20.0, +32.7], joined − local +11.4 [−1.2, +23.4]",
    ),
    Claim(
        "classification without pairs",
        "JLML",
        "A classification loss alone, without pairs of images, generalises to new persons.",
        "",
        "mAP on persons that no training saw: JLML above JLML with a loss of pairs or triplets as well",
        impossible="no row trains JLML with a loss of pairs or triplets. All test persons are new to every "
        "row, so each of its scores shows that it generalises, but not whether pairs would help",
    ),
    Claim(
        "shared low-level features",
        "JLML",
        "Sharing the low-level layers between the branches helps.",
        "31_ablation_shared_features",
        "mAP: shared above separate low-level layers",
        (_above("shared − separate", _JLML, Cell("jlml-separate")),),
        known_results=_FIRST_SEED_RESULT,
    ),
    Claim(
        "selective feature learning",
        "JLML",
        "Selective feature learning by structured sparsity helps.",
        "32_ablation_feature_selection",
        "mAP: λ = 0.0005, as recalled of the paper, above λ = 0",
        (_above("with − without", _JLML, Cell("jlml-sfl-off")),),
        known_results=_FIRST_SEED_RESULT,
    ),
    Claim(
        "four parts",
        "JLML",
        "Four body parts are best.",
        "33_ablation_part_counts",
        "mAP: 4 parts above 2, 6, 8 and 10, each; networks with more parts are larger",
        tuple(
            _above(f"4 − {label}", _JLML, cell)
            for label, cell in ablations.PART_COUNTS.cells.items()
            if cell != _JLML and ablations.PART_COUNTS.rows.at[label, "printed"]  # a row of the paper
        ),
        known_results="one seed of 2, 4 and 8 parts in a feasibility trial with an earlier renderer",
    ),
    Claim(
        "generic metric",
        "JLML",
        "A generic L2 metric suffices: metrics learnt on top (KISSME, XQDA, CRAFT) make it worse.",
        "40_metric_learning",
        "mAP of JLML's joined feature: L2 above KISSME, XQDA and CRAFT, each learnt from the images that the "
        "network was trained on",
        tuple(_generic()),
        known_results="one seed on the embedded benchmark, not in the evidence, by mAP (step): L2 − KISSME "
        "+0.7 [+0.1, +1.4], L2 − XQDA −0.4 [−0.9, +0.2], L2 − CRAFT +16.9 [+15.8, +18.0]",
    ),
    Claim(
        "small for its strength",
        "JLML",
        "The model is small for its strength: fewer parameters and operations than networks that do worse.",
        "41_model_complexity",
        "mAP above that of a larger general-purpose network (ResNet-50) trained in the same way",
        impossible="no general-purpose network is trained in the same way here; notebook 41 counts the "
        "paper's table, in which JLML's operations are in another convention than the others'",
    ),
    Claim(
        "relaxed alignment",
        "Pyramid",
        "Parts from coarse to fine relax the need for exact bounding boxes.",
        "36_box_misalignment",
        "from the usual boxes to the strongest box jitter, and to the strongest scale error: the pyramid "
        "loses less mAP than single stripes alone and keeps a larger share of it (with the trunk's learning "
        "rate raised for their fewer parts and with the same rate), and keeps a larger share than the whole "
        "body alone; measured on an image from each camera of the first test persons (in quick 170 of 400), "
        "each a query against the others",
        _alignment(),
        known_results="three seeds of the points lost; of the shares and of the whole body the tables of "
        "notebook 36",
    ),
    Claim(
        "dynamic training",
        "Pyramid",
        "Balancing the two losses while training helps.",
        "34_ablation_dynamic_training",
        "mAP: dynamic training as we read the paper (weights: we assume) above the plain sum of the losses",
        (_above("dynamic − plain sum", _PYRAMID, Cell("pyramid-off")),),
        known_results=_ONE_SEED_RESULT,
    ),
    Claim(
        "two losses",
        "Pyramid",
        'Identity and triplet losses together beat the identity loss alone (our reading of "multi-loss").',
        "34_ablation_dynamic_training",
        "mAP: both losses, balanced as we read the paper, above identity alone",
        (_above("both − identity alone", _PYRAMID, Cell("pyramid-identity")),),
        known_results=_ONE_SEED_RESULT,
    ),
    Claim(
        "complementary levels",
        "Pyramid",
        "Levels from coarse to fine complement each other.",
        "35_ablation_pyramid_levels",
        "mAP: all levels above single stripes alone and above the whole body alone, each with the trunk's "
        "learning rate raised for its fewer parts and with the same rate",
        (
            _above("all − stripes", _PYRAMID, _STRIPES),
            _above("all − whole body", _PYRAMID, _WHOLE_BODY),
            _above("all − stripes (same rate)", _PYRAMID, _STRIPES_SAME_RATE),
            _above("all − whole body (same rate)", _PYRAMID, Cell("pyramid-global-same-rate")),
        ),
        known_results=f"{_ONE_SEED_RESULT}, and two more of the first difference",
    ),
    *_state_of_the_art(),
)
