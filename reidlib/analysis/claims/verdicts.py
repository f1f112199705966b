"""Verdicts on the papers' claims, and how one is reached.

1. A claim has one or more contrasts. A contrast is a difference in mAP between rows of scores, in points, or
   between the shares of their mAP that two networks keep. A row is an experiment, a branch of its feature,
   and possibly a perturbation of the test images. The claim predicts that every contrast is above zero.
2. A contrast is measured on runs with the same seeds, query by query. ``statistics.paired`` computes its
   mean and its 95 % interval. With two or more seeds the interval covers seeds and persons. With one seed it
   covers persons only: the verdict is then about these trainings. If a network starts from ImageNet weights,
   as Pyramid does in the profile "paper", no trunk's rate is raised, and the contrasts with a raised and with
   the same rate are equal.
3. ``rule.outcome_of`` derives the verdict from the intervals alone. Where it leaves a claim undecided, the
   reason says what power this number of seeds had: for the difference that the paper prints, and for one
   point; and how many seeds, or persons, would show that there is no difference of half a point.

A claim that nothing here can decide gets the verdict "no experiment", with the reason. All others are
undecided in the profile "smoke". A verdict is about this benchmark, this size of network and this recipe. The
papers' printed numbers do not influence it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from reidlib.analysis import ablations
from reidlib.analysis.claims.power import power_text
from reidlib.analysis.claims.rule import (
    FAILS,
    HOLDS,
    NO_DIFFERENCE,
    NO_EXPERIMENT,
    SIGNS,
    SMALLEST_DIFFERENCE,
    UNDECIDED,
    outcome_of,
)
from reidlib.analysis.claims.statements import CLAIMS, Claim, Contrast
from reidlib.analysis.scores import MISSING, ExperimentScores, table_records
from reidlib.analysis.statistics import (
    FEWEST_SIGNS,
    LEVEL,
    Interval,
    Pairs,
    sign_flip,
)
from reidlib.data.benchmark import Benchmark
from reidlib.experiments.rows import EXPERIMENTS, L2, Perturbation

_RENDERED_ALONE = "boxes can be made worse by known amounts only where images are rendered"


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
        outcome: ``HOLDS``, ``FAILS``, ``NO_DIFFERENCE``, ``UNDECIDED`` or ``NO_EXPERIMENT``.
        reason: Why, in a few words.
        intervals: Label of each contrast -> its interval, in points of mAP; None if a run is missing.
        look: Of several looks (``sequential``), the one that this is of; empty for a verdict from all seeds.
        signs: Label of each contrast -> the p-value of ``statistics.sign_flip``, which stands beside the
            interval and decides nothing; None below six seeds.
    """

    claim: Claim
    outcome: str
    reason: str
    intervals: Mapping[str, Interval | None]
    look: str = ""
    signs: Mapping[str, float | None] = MappingProxyType({})


def claim_pairs(claim: Claim, scores: ExperimentScores) -> dict[str, Pairs | None]:
    """Return the paired differences behind a claim's contrasts.

    Args:
        claim: The claim.
        scores: Scores of the experiments that the claim's contrasts need; runs may be missing.

    Returns:
        Label of each contrast -> its differences by seed and person, None without a seed that all of its
        rows have. Empty if nothing can decide the claim, or not on this benchmark.
    """
    if needs_other_images(claim, scores):
        return {}
    return {contrast.label: contrast_pairs(contrast, scores, claim.measure) for contrast in claim.contrasts}


def contrast_pairs(contrast: Contrast, scores: ExperimentScores, measure: str) -> Pairs | None:
    """Return a contrast's differences by seed and person; None without a seed that all of its rows have."""
    estimate = scores.kept_pairs if contrast.relative else scores.pairs
    return estimate(contrast.plus, contrast.minus, measure)


def needs_other_images(claim: Claim, scores: ExperimentScores) -> bool:
    """Return whether a claim's test needs images rendered anew, and these scores are of others."""
    return scores.runs.benchmark.partition(",")[0] not in ("", "synthetic") and claim.needs_rendering


def decide(
    claim: Claim, scores: ExperimentScores, *, seeds: Collection[int] | None = None, level: float = LEVEL
) -> Verdict:
    """Decide a claim by its own test (see ``rule`` for how).

    Args:
        claim: The claim.
        scores: Scores of the experiments that the claim's contrasts need; runs may be missing.
        seeds: Seeds to use; None for all that a contrast's rows have.
        level: Level of the intervals.

    Returns:
        The outcome, its reason, and the interval of each contrast.
    """
    if not claim.contrasts:
        return Verdict(claim, NO_EXPERIMENT, claim.impossible, {})
    if needs_other_images(claim, scores):
        return Verdict(claim, NO_EXPERIMENT, _RENDERED_ALONE, {})
    pairs = claim_pairs(claim, scores)
    if seeds is not None:
        chosen = {label: each and each.of(seeds) for label, each in pairs.items()}
        pairs = {label: each if each and each.seeds else None for label, each in chosen.items()}
    requested = scores.runs.requested if seeds is None else len(seeds)
    intervals = {
        label: None if each is None else each.interval(level)._replace(requested=requested)
        for label, each in pairs.items()
    }
    signs = {label: each and sign_flip(each.sums_sp, each.queries_p) for label, each in pairs.items()}
    outcome, labels = outcome_of(intervals, level)
    fewest_seeds = min((interval.seeds for interval in intervals.values() if interval), default=0)
    one = " (one seed: valid for these trainings only)"
    basis = {0: "", 1: one}.get(fewest_seeds, f" ({fewest_seeds} seeds)")
    if any(each and each.sums_sp.shape[1] == 1 for each in pairs.values()):
        basis += " (one person: says nothing of others)"
    named = "; ".join(labels)
    if scores.runs.profile == "smoke":
        outcome, reason = UNDECIDED, "a smoke run only checks that everything runs"
    elif outcome == FAILS:
        reason = f"below zero: {named}{basis}"
    elif outcome == HOLDS:
        reason = f"every interval is above zero{basis}"
    elif outcome == NO_DIFFERENCE:
        above = "; ".join(label for label in intervals if label not in labels)
        reason = (
            f"within {SMALLEST_DIFFERENCE} points of zero: {named}{basis}{above and f'; above zero: {above}'}"
        )
    elif None in intervals.values():
        reason = f"runs are missing for: {named}"
    else:
        unclear = {
            contrast: pairs[contrast.label] for contrast in claim.contrasts if contrast.label in labels
        }
        reason = f"{_unclear_text(labels, intervals)}{basis}{power_text(unclear, intervals, level)}"
    return Verdict(claim, outcome, reason, intervals, signs=signs)


def _unclear_text(labels: Iterable[str], intervals: Mapping[str, Interval | None]) -> str:
    """Say why contrasts leave a claim open; one of several may be below zero without Holm's correction."""
    kinds: dict[str, list[str]] = {}
    for label in labels:
        interval = intervals[label]
        below = interval is not None and interval.high < 0
        text = "below zero, but not by Holm's correction" if below else "the interval includes zero"
        kinds.setdefault(text, []).append(label)
    return "; ".join(f"{text}: {'; '.join(named)}" for text, named in kinds.items())


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
        The claim's statement, its test, the measured differences in points, what the seeds' signs alone say,
        and the outcome with its reason.
    """
    differences = _differences_text(verdict, " points")
    if any(interval and interval.seeds > 1 for interval in verdict.intervals.values()):
        differences += f". {_signs_text(verdict.signs)}"
    return (
        f"*{verdict.claim.statement}* Test: {verdict.claim.test}. {f'{differences}. ' if differences else ''}"
        f"**{SIGNS[verdict.outcome]} {verdict.outcome}**: {verdict.reason}."
    )


def _signs_text(signs: Mapping[str, float | None]) -> str:
    values = [f"{label}: {_p_text(value)}" for label, value in signs.items() if value is not None]
    if not values:
        return f"A test of the seeds alone cannot speak below {FEWEST_SIGNS} seeds"
    return f"The seeds alone: {'; '.join(values)}"


def _p_text(value: float) -> str:
    return "p < 0.001" if value < 5e-4 else f"p {value:.3f}"


def _differences_text(verdict: Verdict, unit: str = "", *, signs: bool = False) -> str:
    alone = verdict.signs if signs else {}
    values = {
        label: f" (seeds alone: {_p_text(value)})" if (value := alone.get(label)) is not None else ""
        for label in verdict.intervals
    }
    return "; ".join(
        f"{label}: {MISSING if interval is None else f'{interval}{unit}{values[label]}'}"
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
        "configuration": {"benchmark": benchmark.specification, "rows": ablation.cells},
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


def ledger(
    sets: Mapping[str, Iterable[Verdict]], older: Mapping[str, Mapping[str, str]] | None = None
) -> pd.DataFrame:
    """Return the verdicts as a table.

    Args:
        sets: Name of a benchmark -> the verdicts of ``decide`` on it, of the same claims in the same order.
        older: What ``digests.older_than_tests`` returns; None for a table without it.

    Returns:
        A line for each claim: the claim, its test, for each benchmark the differences in points of mAP with
        their 95 % intervals (from six seeds on with the p-value of the seeds' signs) and the verdict, of how
        many seeds the runs are older than the test, and the notebook's number. With several benchmarks, the
        columns of each have its name; a claim without any experiment has its reason once.
    """
    sets = {name: [*verdicts] for name, verdicts in sets.items()}
    looks = any(verdict.look for verdicts in sets.values() for verdict in verdicts)
    level = "intervals of the look" if looks else "95 %"
    lines = []
    for verdicts in zip(*sets.values(), strict=True):
        claim = verdicts[0].claim
        line = {"claim": f"{claim.paper}: {claim.statement}", "decided by": claim.test}
        for name, verdict in zip(sets, verdicts, strict=True):
            of = f", {name}" if len(sets) > 1 else ""
            line[f"measured (points, {level}){of}"] = _differences_text(verdict, signs=True) or "–"
            repeated = not claim.contrasts and verdict is not verdicts[0]
            text = f"{SIGNS[verdict.outcome]} {verdict.outcome}"
            line[f"verdict{of}"] = text if repeated else f"{text}: {verdict.reason}"
        if older:
            texts = [
                "–" if verdict.outcome == NO_EXPERIMENT else older.get(name, {}).get(claim.name, "–")
                for name, verdict in zip(sets, verdicts, strict=True)
            ]
            names = f" ({'; '.join(sets)})" if len(sets) > 1 else ""
            line[f"seeds added before the test{names}"] = "; ".join(texts if set(texts) != {"–"} else ["–"])
        lines.append(line | {"notebook": claim.notebook.partition("_")[0] or "–"})
    return pd.DataFrame(lines)


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


def required_metrics(claims: Iterable[Claim] = CLAIMS) -> dict[str, tuple[str, ...]]:
    """Return the metrics by which runs must be scored to decide claims.

    Args:
        claims: The claims; all by default.

    Returns:
        Name of the experiment -> names of ``LEARNT_METRICS``; L2 of the same features comes with them.
    """
    pairs = dict.fromkeys(
        (cell.experiment, cell.metric)
        for claim in claims
        for cell in claim.cells
        if cell.metric not in ("", L2)
    )
    return {name: tuple(metric for other, metric in pairs if other == name) for name, _ in pairs}
