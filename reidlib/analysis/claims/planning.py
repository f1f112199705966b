"""How many seeds a claim needs, from how much the seeds and persons of its finished runs differ."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count, islice
from typing import NamedTuple

from reidlib.analysis.claims.power import all_of, power, power_of_no_difference, wanted
from reidlib.analysis.claims.rule import SMALLEST_DIFFERENCE, UNDECIDED, outcome_of
from reidlib.analysis.claims.statements import Claim
from reidlib.analysis.claims.verdicts import Verdict, claim_pairs, decide
from reidlib.analysis.scores import ExperimentScores
from reidlib.analysis.statistics import Components, variance_components


class Need(NamedTuple):
    """What it takes to show an effect.

    Attributes:
        effect: The true difference, in points; of several differences the smallest. 0 to show that there is
            none.
        persons: Number of persons.
        seeds: The fewest seeds that show it; None if a thousand do not.
        persons_wanted: Where no number of seeds shows it, because persons are too few: the number of persons
            above which there is one. None otherwise.
    """

    effect: float
    persons: int
    seeds: int | None
    persons_wanted: int | None = None


class ClaimPlan(NamedTuple):
    """A claim with the seeds that it needs.

    Attributes:
        claim: The claim.
        verdict: Its verdict by all finished runs.
        present: Row -> its seeds with all scores that the claim needs.
        paper: What the paper's printed differences take; None if not all are known and above zero.
        given: What the given effect takes.
        none: What it takes to show that there is no difference of half a point, if there is none at all in
            the contrasts that leave the claim undecided; None for other claims.
        problem: Why the runs do not tell what is needed; empty if they do.
    """

    claim: Claim
    verdict: Verdict
    present: Mapping[str, frozenset[int]]
    paper: Need | None = None
    given: Need | None = None
    none: Need | None = None
    problem: str = ""

    def missing(self, seeds: int) -> dict[str, int]:
        """Return how many runs each row lacks until all share so many seeds; the smallest are added."""
        shared = frozenset[int].intersection(*self.present.values())
        added = {*islice((seed for seed in count() if seed not in shared), max(0, seeds - len(shared)))}
        return {row: len(added - there) for row, there in self.present.items()}


def plan_claim(claim: Claim, scores: ExperimentScores, effect: float, share: float = 0.8) -> ClaimPlan:
    """Plan the seeds of a claim.

    A claim of several differences is shown if all are above zero. It takes the fewest seeds with which they
    miss in at most ``1 - share`` of cases together, whether or not they miss at the same time.

    Args:
        claim: The claim.
        scores: Scores of its rows; runs may be missing.
        effect: The true difference of each contrast, in points; above zero.
        share: The power that is wanted, between 0 and 1.

    Returns:
        The plan, or why there is none.
    """
    verdict = decide(claim, scores)
    present = {
        cell.experiment: frozenset[int].intersection(
            *(
                frozenset(seed for seed, branch in enumerate(scores.branch_scores(other)) if branch)
                for other in claim.cells
                if other.experiment == cell.experiment
            )
        )
        for cell in claim.cells
    }
    plan = ClaimPlan(claim, verdict, present)
    pairs = claim_pairs(claim, scores)
    if not pairs:
        return plan._replace(problem=verdict.reason)
    if missing := [label for label, each in pairs.items() if each is None]:
        return plan._replace(problem=f"no seed has all rows of: {'; '.join(missing)}")
    shapes = [each.sums_sp.shape for each in pairs.values() if each]
    seeds, persons = min(seeds for seeds, _ in shapes), min(persons for _, persons in shapes)
    components = [variance_components(each.sums_sp, each.queries_p) for each in pairs.values() if each]
    known = [each for each in components if each]
    labels = outcome_of(verdict.intervals)[1] if verdict.outcome == UNDECIDED else ()
    unclear = [each for label, each in zip(pairs, components, strict=True) if label in labels and each]
    if len(known) < len(components):
        few = "one seed: how much trainings differ" if seeds < 2 else "one person: how much persons differ"
        return plan._replace(problem=f"{few} is not known; two tell")
    printed = [contrast.printed or 0.0 for contrast in claim.contrasts]
    return plan._replace(
        paper=_need(known, printed, persons, share) if min(printed) > 0 else None,
        given=_need(known, [effect] * len(known), persons, share),
        none=_need(unclear, [0.0] * len(unclear), persons, share) if unclear else None,
    )


def _need(components: list[Components], effects: list[float], persons: int, share: float) -> Need:
    def joint(seeds: int, persons: int) -> float:
        pairs = zip(components, effects, strict=True)
        return all_of(_power(each, effect, seeds, persons) for each, effect in pairs)

    return Need(min(effects), persons, *wanted(joint, persons, share))


def _power(components: Components, effect: float, seeds: int, persons: int) -> float:
    if not effect:
        return power_of_no_difference(components, SMALLEST_DIFFERENCE, seeds, persons)
    return power(components, effect, seeds, persons)
