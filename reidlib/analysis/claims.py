"""The ledger: each claim of the two papers, the test that decides it, the evidence and the verdict.

The tests were written before the trainings that decide them, except where ``seen`` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pandas as pd

from reidlib.analysis import ablations
from reidlib.analysis.scores import MISSING, Cell, ExperimentScores, records
from reidlib.analysis.statistics import Interval
from reidlib.data.benchmark import Benchmark
from reidlib.experiments.rows import EXPERIMENTS, PERTURBATIONS, Perturbation

# A gain of less is not worth a claim: where even the upper end of the interval stays below it, the claim
# does not hold, be the gain ever so sure. In points of mAP.
SMALLEST_GAIN = 0.5

HOLDS, FAILS, UNDECIDED = "holds", "does not hold", "undecided here"
SIGNS = {HOLDS: "✓", FAILS: "✗", UNDECIDED: "?"}


class Contrast(NamedTuple):
    """A difference that has to be above nought: the rows ``plus`` together minus the rows ``minus``."""

    label: str
    plus: tuple[Cell, ...]
    minus: tuple[Cell, ...]


@dataclass(frozen=True)
class Claim:
    """What a paper says, and what has to be seen for it to hold here.

    contrasts: the differences in mAP that decide it: all have to be clear of nought. Empty: nothing here can.
    """

    name: str
    paper: Literal["JLML", "Pyramid"]
    statement: str
    notebook: str  # where its experiment is shown; "" if there is none yet
    test: str  # the contrasts in words
    contrasts: tuple[Contrast, ...] = ()
    impossible: str = ""  # why nothing here can decide it
    seen: str = ""  # which results were known when the test was written

    @property
    def measure(self) -> str:
        """mAP by the rule of the paper's tables."""
        return "mAP (trapezoid)" if self.paper == "JLML" else "mAP (step)"

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for contrast in self.contrasts for cell in (*contrast.plus, *contrast.minus))


def _above(label: str, better: Cell, worse: Cell) -> Contrast:
    return Contrast(label, (better,), (worse,))


_JLML, _PYRAMID = Cell("jlml"), Cell("pyramid")
_STRIPES, _STRIPES_SAME_RATE = Cell("pyramid-stripes"), Cell("pyramid-stripes-same-rate")
_ONE_SEED_SEEN = "one seed each"
_FIRST_SEED_SEEN = "the first seed of each, on the embedded benchmark"


def _loses_less(factor: str, stripes: Cell) -> Contrast:
    strongest = Perturbation(factor, PERTURBATIONS[factor][-1])
    rate = ", same rate" if stripes == _STRIPES_SAME_RATE else ""
    return Contrast(
        f"{strongest.name.replace('_', ' ')}: stripes' loss − pyramid's{rate}",
        (_PYRAMID._replace(condition=strongest), stripes),
        (_PYRAMID, stripes._replace(condition=strongest)),
    )


CLAIMS = (
    Claim(
        "branch independence",
        "JLML",
        "A classification loss for each branch (MultiLoss) beats one loss on the joined feature (UniLoss).",
        "30_ablation_losses",
        "mAP of the joined feature: MultiLoss above UniLoss",
        (_above("MultiLoss − UniLoss", _JLML, Cell("jlml-uniloss")),),
        seen="one seed each, of this and of an earlier recipe",
    ),
    Claim(
        "complementary branches",
        "JLML",
        "Global and local features complement each other.",
        "30_ablation_losses",
        "mAP of the MultiLoss network: joined feature above its global and above its local part",
        (
            _above("joined − global", _JLML, Cell("jlml", "global")),
            _above("joined − local", _JLML, Cell("jlml", "local")),
        ),
        seen="one seed, of this and of an earlier recipe",
    ),
    Claim(
        "shared low-level features",
        "JLML",
        "Sharing the low-level layers between the branches helps.",
        "31_ablation_shared_features",
        "mAP: shared above separate low-level layers",
        (_above("shared − separate", _JLML, Cell("jlml-separate")),),
        seen=_FIRST_SEED_SEEN,
    ),
    Claim(
        "selective feature learning",
        "JLML",
        "Selective feature learning by structured sparsity helps.",
        "32_ablation_feature_selection",
        "mAP: the paper's λ above λ = 0",
        (_above("with − without", _JLML, Cell("jlml-sfl-off")),),
        seen=_FIRST_SEED_SEEN,
    ),
    Claim(
        "four parts",
        "JLML",
        "Four body parts are best.",
        "33_ablation_part_counts",
        "mAP: 4 parts above 2, 6, 8 and 10, each",
        tuple(
            _above(f"4 − {label}", _JLML, cell)
            for label, cell in ablations.PART_COUNTS.cells.items()
            if cell != _JLML
        ),
        seen="one seed of 2, 4 and 8 parts in a feasibility trial with an earlier renderer",
    ),
    Claim(
        "generic metric",
        "JLML",
        "A generic L2 metric suffices: metrics learnt on top (KISSME, XQDA, CRAFT) make it worse.",
        "",
        "mAP of JLML's feature: L2 above each learnt metric",
        impossible="the learnt metrics are not built yet",
    ),
    Claim(
        "small for its strength",
        "JLML",
        "The model is small for its strength: fewer parameters and operations than networks that do worse.",
        "20_train_jlml",
        "mAP above that of a larger general-purpose network (ResNet-50) trained in the same way",
        impossible="no general-purpose network is trained in the same way here; "
        "notebook 20 counts parameters and operations beside the paper's",
    ),
    Claim(
        "relaxed alignment",
        "Pyramid",
        "Parts from coarse to fine relax the need for exact bounding boxes.",
        "36_box_misalignment",
        "loss of mAP from the usual boxes to the strongest box jitter, and to the strongest scale error: "
        "smaller for the pyramid than for single stripes alone, with the trunk's learning rate raised for "
        "their fewer parts and with the same rate",
        tuple(
            _loses_less(factor, stripes)
            for stripes in (_STRIPES, _STRIPES_SAME_RATE)
            for factor in ("box_jitter", "box_scale_error")
        ),
        seen="one seed with the raised rate",
    ),
    Claim(
        "dynamic training",
        "Pyramid",
        "Balancing the two losses while training helps.",
        "34_ablation_dynamic_training",
        "mAP: dynamic training as in the paper above the plain sum of the losses",
        (_above("dynamic − plain sum", _PYRAMID, Cell("pyramid-off")),),
        seen=_ONE_SEED_SEEN,
    ),
    Claim(
        "two losses",
        "Pyramid",
        'Identity and triplet losses together beat the identity loss alone (our reading of "multi-loss").',
        "34_ablation_dynamic_training",
        "mAP: both losses, dynamically balanced, above identity alone",
        (_above("both − identity alone", _PYRAMID, Cell("pyramid-identity")),),
        seen=_ONE_SEED_SEEN,
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
            _above("all − whole body", _PYRAMID, Cell("pyramid-global")),
            _above("all − stripes, same rate", _PYRAMID, _STRIPES_SAME_RATE),
            _above("all − whole body, same rate", _PYRAMID, Cell("pyramid-global-same-rate")),
        ),
        seen=f"{_ONE_SEED_SEEN}, and two more of the first difference",
    ),
)


def description_table() -> pd.DataFrame:
    """Return the claims and their tests as a table."""
    columns = ["paper", "claim", "decided by", "seen before the test was written"]
    lines = [(claim.paper, claim.statement, claim.test, claim.seen or "nothing") for claim in CLAIMS]
    return pd.DataFrame(lines, columns=columns)


class Verdict(NamedTuple):
    """A claim, what was found, and what follows."""

    claim: Claim
    word: str  # HOLDS, FAILS or UNDECIDED
    reason: str
    found: Mapping[str, Interval | None]  # of each contrast, in points of mAP; None where a run is missing


def decide(claim: Claim, scores: ExperimentScores) -> Verdict:
    """The verdict on a claim, by its own test.

    It does not hold if the upper end of one contrast's 95 % interval lies below ``SMALLEST_GAIN`` (below
    nought, where there is one seed only). It holds if all contrasts' intervals lie above nought. Else, or if
    a run is missing that could still change that, it is undecided; so is everything in the profile smoke.
    """
    if not claim.contrasts:
        return Verdict(claim, UNDECIDED, claim.impossible, {})
    found = {one.label: scores.difference(one.plus, one.minus, claim.measure) for one in claim.contrasts}
    limits = {1: 0.0}
    against = [label for label, i in found.items() if i and i.high < limits.get(i.seeds, SMALLEST_GAIN)]
    lost = [label for label, i in found.items() if i is None]
    unclear = [label for label, i in found.items() if i and not i.clear]
    seeds = min((i.seeds for i in found.values() if i), default=0)
    basis = {0: "", 1: " (one seed: for these trainings)"}.get(seeds, f" ({seeds} seeds)")
    if scores.runs.profile == "smoke":
        return Verdict(claim, UNDECIDED, "a smoke run only shows that everything runs", found)
    if against:
        return Verdict(claim, FAILS, f"not so: {', '.join(against)}{basis}", found)
    if lost:
        return Verdict(claim, UNDECIDED, f"missing here: {', '.join(lost)}", found)
    if unclear:
        reason = f"the interval holds nought: {', '.join(unclear)}{basis}"
        return Verdict(claim, UNDECIDED, reason, found)
    return Verdict(claim, HOLDS, f"clear of nought{basis}", found)


def of_notebook(notebook: str) -> tuple[Claim, ...]:
    """The claims whose experiment a notebook shows."""
    return tuple(claim for claim in CLAIMS if claim.notebook == notebook)


def verdict_sentence(verdict: Verdict) -> str:
    """A verdict as a line of Markdown."""
    differences = f" {_differences(verdict, ' points')}." if verdict.found else ""
    return (
        f"*{verdict.claim.statement}* Test: {verdict.claim.test}.{differences} "
        f"**{SIGNS[verdict.word]} {verdict.word}**: {verdict.reason}."
    )


def _differences(verdict: Verdict, unit: str = "") -> str:
    return "; ".join(
        f"{label}: {MISSING if interval is None else f'{interval}{unit}'}"
        for label, interval in verdict.found.items()
    )


def result_fields(
    ablation: ablations.Ablation, scores: ExperimentScores, benchmark: Benchmark, verdicts: Iterable[Verdict]
) -> dict:
    """Return what ``Result.finish`` writes of an ablation, as keyword arguments."""
    return {
        "headline": {verdict.claim.name: verdict.word for verdict in verdicts},
        "scores": records(ablations.report_table(ablation, scores)),
        "configuration": {"benchmark": benchmark.name, "rows": ablation.cells},
        "seeds": tuple(range(scores.runs.seeds)),
        "device": scores.runs.device,
        "data": benchmark.fingerprint,
        "runs": scores.runs.records(),
    }


def forest(verdicts: Iterable[Verdict]) -> tuple[dict[str, Interval | None], list[int]]:
    """For ``figures.scores.differences``: every contrast's interval by its label, and the claims' ends."""
    intervals: dict[str, Interval | None] = {}
    ends = []
    for verdict in verdicts:
        title = f"{SIGNS[verdict.word]} {verdict.claim.name}"
        intervals |= {f"{title}: {label}": interval for label, interval in verdict.found.items()}
        if verdict.found:
            ends.append(len(intervals))
    return intervals, ends[:-1]


def ledger(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """The ledger as a table."""
    return pd.DataFrame(
        {
            "claim": f"{verdict.claim.paper}: {verdict.claim.statement}",
            "decided by": verdict.claim.test,
            "found (points of mAP, 95 %)": _differences(verdict) or "–",
            "verdict": f"{SIGNS[verdict.word]} {verdict.word}: {verdict.reason}",
            "notebook": verdict.claim.notebook.partition("_")[0] or "–",
        }
        for verdict in verdicts
    )


def required_experiments(
    claims: Iterable[Claim] = CLAIMS,
) -> tuple[tuple[str, ...], dict[str, tuple[Perturbation, ...]]]:
    """What has to be gathered: the trainings, and the conditions of some of them."""
    cells = [cell for claim in claims for cell in claim.cells]
    names = [name for name in EXPERIMENTS if name in {cell.experiment for cell in cells}]
    turned = dict.fromkeys((cell.experiment, cell.condition) for cell in cells if cell.condition is not None)
    under = {name: tuple(condition for other, condition in turned if other == name) for name, _ in turned}
    return tuple(names), under
