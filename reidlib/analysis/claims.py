"""The claims of the two papers, the test that decides each claim, and the verdict.

How a verdict is reached:

1. A claim has one or more contrasts. A contrast is a difference in mAP between rows of scores, in points. A
   row is an experiment, a branch of its feature, and possibly a perturbation of the test images. The claim
   predicts that every contrast is above zero.
2. A contrast is measured on runs with the same seeds, query by query. ``statistics.paired`` computes its
   mean and its 95 % interval. With two or more seeds the interval covers seeds and queries. With one seed it
   covers queries only: the verdict is then about these trainings. If a network starts from ImageNet weights,
   as Pyramid does in the profile "paper", no trunk's rate is raised, and the contrasts with a raised and with
   the same rate are equal.
3. ``decide`` derives the verdict from the intervals alone:

   - "does not hold" if the upper end of at least one interval is below ``SMALLEST_GAIN`` (with one seed:
     below zero),
   - otherwise "undecided here" if a run is missing or an interval includes zero,
   - otherwise "holds": all intervals are above zero.

A claim that nothing here can decide gets the verdict "no experiment", with the reason. All others are
undecided in the profile "smoke". A verdict is about this benchmark, this size of network and this recipe. The
papers' printed numbers do not influence it.

For every claim that can be decided here, some results were known when its test was written;
``Claim.known_results`` names them. Only seeds beyond those are new evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import pandas as pd

from reidlib.analysis import ablations
from reidlib.analysis.benchmark_tables import TABLES
from reidlib.analysis.misalignment import default_value
from reidlib.analysis.scores import MISSING, Cell, ExperimentScores, table_records
from reidlib.analysis.statistics import Interval
from reidlib.data.benchmark import Benchmark
from reidlib.experiments.rows import EXPERIMENTS, PERTURBATIONS, Perturbation

# Smallest gain that counts, in points of mAP. A claim does not hold if the upper end of an interval is below
# it, even if the interval is above zero.
SMALLEST_GAIN = 0.5

HOLDS, FAILS, UNDECIDED, NO_EXPERIMENT = "holds", "does not hold", "undecided here", "no experiment"
SIGNS = {HOLDS: "✓", FAILS: "✗", UNDECIDED: "?", NO_EXPERIMENT: "–"}


class Contrast(NamedTuple):
    """A difference in mAP that a claim predicts to be above zero.

    Attributes:
        label: Name of the difference in tables and figures.
        plus: Rows that are added; one for an ordinary difference, two for a difference of differences.
        minus: Rows that are subtracted, as many as ``plus``.
    """

    label: str
    plus: tuple[Cell, ...]
    minus: tuple[Cell, ...]


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
    def cells(self) -> tuple[Cell, ...]:
        """All rows of scores that the contrasts need."""
        return tuple(cell for contrast in self.contrasts for cell in (*contrast.plus, *contrast.minus))


def _above(label: str, better: Cell, worse: Cell) -> Contrast:
    return Contrast(label, (better,), (worse,))


_JLML, _PYRAMID = Cell("jlml"), Cell("pyramid")
_STRIPES, _STRIPES_SAME_RATE = Cell("pyramid-stripes"), Cell("pyramid-stripes-same-rate")
_ONE_SEED_RESULT = "one seed each"
_FIRST_SEED_RESULT = "the first seed of each, on the embedded benchmark"


def _loses_less(factor: str, stripes: Cell) -> Contrast:
    """Build the contrast: the stripes' loss of mAP at a factor's strongest value, minus Pyramid's."""
    # At the usual value, scores on the same images as at the strongest, which are a part of the benchmark.
    values = default_value(factor), PERTURBATIONS[factor][-1]
    usual, strongest = (Perturbation(factor, value) for value in values)
    rate = " (same rate)" if stripes == _STRIPES_SAME_RATE else ""
    return Contrast(
        f"{strongest.name.replace('_', ' ')}: stripes' loss − pyramid's{rate}",
        (_PYRAMID._replace(perturbation=strongest), stripes._replace(perturbation=usual)),
        (_PYRAMID._replace(perturbation=usual), stripes._replace(perturbation=strongest)),
    )


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
            impossible="the compared methods are not built here and no real benchmark was scored; " + printed,
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
        "",
        "mAP of JLML's feature: L2 above each learnt metric",
        impossible="the learnt metrics are not implemented yet",
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
        "loss of mAP from the usual boxes to the strongest box jitter, and to the strongest scale error: "
        "smaller for the pyramid than for single stripes alone, with the trunk's learning rate raised for "
        "their fewer parts and with the same rate; measured on an image from each camera of the first test "
        "persons (in quick 170 of 400), each a query against the others",
        tuple(
            _loses_less(factor, stripes)
            for stripes in (_STRIPES, _STRIPES_SAME_RATE)
            for factor in ("box_jitter", "box_scale_error")
        ),
        known_results="one seed with the raised rate",
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
            _above("all − whole body", _PYRAMID, Cell("pyramid-global")),
            _above("all − stripes (same rate)", _PYRAMID, _STRIPES_SAME_RATE),
            _above("all − whole body (same rate)", _PYRAMID, Cell("pyramid-global-same-rate")),
        ),
        known_results=f"{_ONE_SEED_RESULT}, and two more of the first difference",
    ),
    *_state_of_the_art(),
)


def claim_table() -> pd.DataFrame:
    """Return the claims and their tests as a table."""
    columns = ["paper", "claim", "decided by", "known before the test was written"]
    lines = [
        (claim.paper, claim.statement, claim.test, claim.known_results or NO_EXPERIMENT) for claim in CLAIMS
    ]
    return pd.DataFrame(lines, columns=columns)


class Verdict(NamedTuple):
    """A claim with its outcome.

    Attributes:
        claim: The claim.
        outcome: The outcome: ``HOLDS``, ``FAILS``, ``UNDECIDED`` or ``NO_EXPERIMENT``.
        reason: Why, in a few words.
        intervals: Label of each contrast -> its interval, in points of mAP; None if a run is missing.
    """

    claim: Claim
    outcome: str
    reason: str
    intervals: Mapping[str, Interval | None]


def decide(claim: Claim, scores: ExperimentScores) -> Verdict:
    """Decide a claim by its own test (see the module's docstring for the rule).

    Args:
        claim: The claim.
        scores: Scores of the experiments that the claim's contrasts need; runs may be missing.

    Returns:
        The outcome, its reason, and the interval of each contrast.
    """
    if not claim.contrasts:
        return Verdict(claim, NO_EXPERIMENT, claim.impossible, {})
    intervals = {c.label: scores.difference(c.plus, c.minus, claim.measure) for c in claim.contrasts}
    too_small: dict[str, list[str]] = {}  # labels by the limit that the interval is below
    for label, i in intervals.items():
        limit, name = (0.0, "zero") if i and i.seeds == 1 else (SMALLEST_GAIN, "the smallest gain")
        if i and i.high < limit:
            too_small.setdefault(name, []).append(label)
    missing = [label for label, i in intervals.items() if i is None]
    unclear = [label for label, i in intervals.items() if i and not i.excludes_zero]
    seeds = min((i.seeds for i in intervals.values() if i), default=0)
    basis = {0: "", 1: " (one seed: valid for these trainings only)"}.get(seeds, f" ({seeds} seeds)")
    if scores.runs.profile == "smoke":
        return Verdict(claim, UNDECIDED, "a smoke run only checks that everything runs", intervals)
    if too_small:
        reasons = (f"below {name}: {'; '.join(labels)}" for name, labels in too_small.items())
        return Verdict(claim, FAILS, f"{'; '.join(reasons)}{basis}", intervals)
    if missing:
        return Verdict(claim, UNDECIDED, f"runs are missing for: {'; '.join(missing)}", intervals)
    if unclear:
        reason = f"the interval includes zero: {'; '.join(unclear)}{basis}"
        return Verdict(claim, UNDECIDED, reason, intervals)
    return Verdict(claim, HOLDS, f"every interval is above zero{basis}", intervals)


def claims_of_notebook(notebook: str) -> tuple[Claim, ...]:
    """Return the claims whose experiment a notebook shows.

    Args:
        notebook: The notebook's name, such as "30_ablation_losses".

    Returns:
        Its claims, in the order of ``CLAIMS``.
    """
    return tuple(claim for claim in CLAIMS if claim.notebook == notebook)


def verdict_sentence(verdict: Verdict) -> str:
    """Write a verdict as a line of Markdown.

    Args:
        verdict: The verdict of ``decide``.

    Returns:
        The claim's statement, its test, the measured differences in points, and the outcome with its reason.
    """
    differences = _differences_text(verdict, " points")
    return (
        f"*{verdict.claim.statement}* Test: {verdict.claim.test}. {f'{differences}. ' if differences else ''}"
        f"**{SIGNS[verdict.outcome]} {verdict.outcome}**: {verdict.reason}."
    )


def _differences_text(verdict: Verdict, unit: str = "") -> str:
    return "; ".join(
        f"{label}: {MISSING if interval is None else f'{interval}{unit}'}"
        for label, interval in verdict.intervals.items()
    )


def result_fields(
    ablation: ablations.Ablation, scores: ExperimentScores, benchmark: Benchmark, verdicts: Iterable[Verdict]
) -> dict:
    """Return what ``Result.finish`` writes of an ablation, as keyword arguments.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.
        scores: Scores of the ablation's experiments.
        benchmark: The benchmark of the runs.
        verdicts: Verdicts on the ablation's claims.

    Returns:
        The arguments by name: outcomes, scores, configuration, seeds, device, data and runs.
    """
    return {
        "headline": {each.claim.name: f"{each.outcome} ({scores.seed_count()})" for each in verdicts},
        "scores": table_records(ablations.report_table(ablation, scores)),
        "configuration": {"benchmark": benchmark.name, "rows": ablation.cells},
        "seeds": tuple(range(scores.runs.seeds)),
        "device": scores.runs.device,
        "data": benchmark.fingerprint,
        "runs": scores.runs.records(),
    }


def forest(verdicts: Iterable[Verdict]) -> tuple[dict[str, Interval | None], list[int]]:
    """Return the intervals of all contrasts for a forest plot (``visual.figures.scores.difference_plot``).

    Args:
        verdicts: The verdicts of ``decide``.

    Returns:
        Label -> interval of each contrast in points of mAP, and after how many lines each claim but the last
        one ends.
    """
    intervals: dict[str, Interval | None] = {}
    ends = []
    for verdict in verdicts:
        title = f"{SIGNS[verdict.outcome]} {verdict.claim.name}"
        intervals |= {f"{title}: {label}": interval for label, interval in verdict.intervals.items()}
        if verdict.intervals:
            ends.append(len(intervals))
    return intervals, ends[:-1]


def ledger(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """Return the verdicts as a table.

    Args:
        verdicts: The verdicts of ``decide``.

    Returns:
        A line for each claim: the claim, its test, the differences in points of mAP with their 95 %
        intervals, the verdict, and the notebook's number.
    """
    return pd.DataFrame(
        {
            "claim": f"{verdict.claim.paper}: {verdict.claim.statement}",
            "decided by": verdict.claim.test,
            "measured (points of mAP, 95 %)": _differences_text(verdict) or "–",
            "verdict": f"{SIGNS[verdict.outcome]} {verdict.outcome}: {verdict.reason}",
            "notebook": verdict.claim.notebook.partition("_")[0] or "–",
        }
        for verdict in verdicts
    )


def required_experiments(
    claims: Iterable[Claim] = CLAIMS,
) -> tuple[tuple[str, ...], dict[str, tuple[Perturbation, ...]]]:
    """Return what must be trained and evaluated to decide claims.

    Args:
        claims: The claims; all by default.

    Returns:
        The names of the experiments in the order of ``EXPERIMENTS``, and for some of them the perturbations
        under which they are evaluated.
    """
    cells = [cell for claim in claims for cell in claim.cells]
    names = [name for name in EXPERIMENTS if name in {cell.experiment for cell in cells}]
    pairs = dict.fromkeys(
        (cell.experiment, cell.perturbation) for cell in cells if cell.perturbation is not None
    )
    perturbations = {name: tuple(value for other, value in pairs if other == name) for name, _ in pairs}
    return tuple(names), perturbations
