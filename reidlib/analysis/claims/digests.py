"""The digest of a claim's test, and which runs are older than the test that judges them.

Lines of evidence keep the digests that stood when they were made. A test that was written or changed after
its runs has another digest than their lines, and the ledger says so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from reidlib.analysis.claims.rule import SMALLEST_DIFFERENCE, VERSION
from reidlib.analysis.claims.statements import CLAIMS, Claim, Contrast
from reidlib.analysis.scores import Cell, ExperimentScores
from reidlib.analysis.statistics import LEVEL
from reidlib.experiments.evidence import Evidence
from reidlib.training.runs import Run

# Fields of a contrast that decide nothing.
_WORDS = ("label", "printed")


def digest(claim: Claim) -> str:
    """Return the digest of what decides a claim.

    Args:
        claim: The claim.

    Returns:
        The first 12 hexadecimal digits of the SHA-256 of its measure, its contrasts' rows with their signs,
        in any order, and the rule with its constants. Names, labels and sentences change nothing.
    """
    content = {
        "measure": claim.measure,
        "contrasts": sorted(map(_canonical, claim.contrasts)),
        "rule": [VERSION, LEVEL, SMALLEST_DIFFERENCE],
    }
    return hashlib.sha256(_json(content).encode()).hexdigest()[:12]


def _canonical(contrast: Contrast) -> str:
    fields = contrast._asdict()
    return _json(
        {
            name: _rows(value, ordered=contrast.relative) if name in ("plus", "minus") else value
            for name, value in fields.items()
            if name not in _WORDS
        }
    )


def _rows(cells: Sequence[Cell], *, ordered: bool) -> list[list[str]]:
    rows = [[c.experiment, c.branch, c.perturbation.name if c.perturbation else ""] for c in cells]
    # Left out where there is none, so that digests from before there were metrics stand.
    rows = [row + [c.metric] * bool(c.metric) for row, c in zip(rows, cells, strict=True)]
    return rows if ordered else sorted(rows)


def _json(content: object) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def digests_by_row(claims: Iterable[Claim] = CLAIMS) -> dict[str, dict[str, str]]:
    """Return what ``experiments.evidence.add`` keeps in lines.

    Args:
        claims: The claims; all by default.

    Returns:
        Row -> the digests of the claims that compare it, by the claim's name.
    """
    rows: dict[str, dict[str, str]] = {}
    for claim in claims:
        for cell in claim.cells:
            rows.setdefault(cell.experiment, {})[claim.name] = digest(claim)
    return rows


def older_seeds(claim: Claim, scores: ExperimentScores, evidence: Evidence) -> str:
    """Say of how many seeds a claim's runs are older than its test of today.

    Args:
        claim: A claim.
        scores: Scores on a benchmark.
        evidence: Evidence on the same benchmark. A run that is not in it has no digest.

    Returns:
        How many of the seeds that the claim's differences use, and why, as in "3 of 10 (no digest)"; "–"
        without any. "test is newer": a run's line names no test such as today's, which was changed or is new.
    """
    today = digest(claim)
    reasons: dict[int, set[str]] = {}
    for contrast in claim.contrasts:
        cells = (*contrast.plus, *contrast.minus)
        rows = [cell.experiment for cell in cells]
        by_seed = zip(*(scores.runs.runs[row] for row in rows), strict=True)
        has_scores = (None not in each for each in zip(*map(scores.branch_scores, cells), strict=True))
        for runs, complete in zip(by_seed, has_scores, strict=True):
            if complete and all(isinstance(run, Run) for run in runs):
                seed = runs[0].configuration["seed"]
                pairs = zip(rows, runs, strict=True)
                reasons.setdefault(seed, set()).update(_reason(today, *pair, evidence) for pair in pairs)
    worst = [next((reason for reason in _REASONS if reason in of_seed), "") for of_seed in reasons.values()]
    counts = {reason: worst.count(reason) for reason in _REASONS if reason in worst}
    if not worst:
        return "–"
    texts = counts if len(counts) == 1 else (f"{count} {reason}" for reason, count in counts.items())
    why = f" ({', '.join(texts)})" if counts else ""
    return f"{sum(counts.values())} of {len(worst)}{why}"


_REASONS = "no digest", "test is newer"


def _reason(today: str, row: str, run: Run, evidence: Evidence) -> str:
    """Say why a run is older than a test with the digest ``today``; empty if it is not."""
    kept = evidence.runs.get((row, run.configuration["seed"]))
    if kept is None or kept.tests is None or kept.configuration != run.configuration:
        return _REASONS[0]
    return "" if today in kept.tests.values() else _REASONS[1]


def older_than_tests(sets: Mapping[str, ExperimentScores]) -> dict[str, dict[str, str]]:
    """Return what ``ledger`` tells of runs that are older than their claims' tests of today.

    Args:
        sets: Name of a benchmark -> scores on it.

    Returns:
        Name of the benchmark -> claim -> what ``older_seeds`` says; without the benchmarks of which the clone
        keeps no evidence.
    """
    texts = {}
    for name, scores in sets.items():
        evidence = Evidence.read(scores.runs.profile, scores.runs.benchmark)
        if evidence.runs:
            texts[name] = {claim.name: older_seeds(claim, scores, evidence) for claim in CLAIMS}
    return texts
