"""Verdicts after a few looks at a growing number of seeds, and the trainings that the next look needs.

``LOOKS`` are at 3, 5 and 10 seeds. Who looks several times and stops when a result is clear errs more often
than the level of one look says, so the error of 5 % is divided: 0.25, 0.75 and 2 %, intervals of 99.75, 99.25
and 98 %. Errors of looks add up at most (Bonferroni), whatever they have in common: the persons and the first
seeds; boundaries of group-sequential trials would use that, but need to know how much. 2 % are kept back,
because intervals at such levels from few seeds miss more often than they say where seeds make most of the
difference, up to four times as often at the first look. Simulated with seeds that make from nothing to nearly
all of a difference, the three looks together err in 2.1 to 4.7 of 100 cases (± 0.2;
``tests/analysis/test_sequential.py``). Most of the error is for the last look, which has the most power, and
least for the first, where a wrong verdict would end the trainings that could correct it.

A look is made when every row of a claim has all of its seeds: 0 to 2, 0 to 4, 0 to 9. Where a row has none
of the first three and all rows have three others in a row, seeds are counted from these: a run without
weights, say, gets no scores by learnt metrics. A claim's verdict is that of the first look that decides it.
Later seeds, trained for another claim that shares its rows, do not change it: they would be further looks,
with an error of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from reidlib.analysis.claims.rule import UNDECIDED
from reidlib.analysis.claims.statements import CLAIMS, Claim
from reidlib.analysis.claims.verdicts import (
    Verdict,
    decide,
    needs_other_images,
    required_experiments,
    required_metrics,
)
from reidlib.analysis.scores import ExperimentScores
from reidlib.errors import InputError
from reidlib.experiments.evidence.finished import FAILED, Finished, obtain_missing
from reidlib.experiments.setup import Runs, Setup
from reidlib.training.runs import Run


class Look(NamedTuple):
    """A look at some seeds of a claim's rows, with its share of the error."""

    seeds: int
    error: float

    @property
    def level(self) -> float:
        """The level of the look's intervals."""
        return 1 - self.error

    @property
    def name(self) -> str:
        """The look's number, such as "look 1 of 3"."""
        return f"look {[look.seeds for look in LOOKS].index(self.seeds) + 1} of {len(LOOKS)}"


LOOKS = (Look(3, 0.0025), Look(5, 0.0075), Look(10, 0.02))


def looks_text() -> str:
    """Say in a sentence what the looks are."""
    seeds = ", ".join(str(look.seeds) for look in LOOKS)
    levels = ", ".join(f"{100 * look.level:g}" for look in LOOKS)
    return (
        f"Looks at {seeds} seeds, with intervals of {levels} %, so that all err in at most 5 of 100 "
        "cases. A claim's verdict is that of the first look that decides it."
    )


def decide_sequentially(claim: Claim, scores: ExperimentScores) -> Verdict:
    """Decide a claim by the first look that decides it.

    Args:
        claim: The claim.
        scores: Scores of the experiments that the claim's contrasts need; runs may be missing.

    Returns:
        The verdict of the first look that is not undecided, or of the last look that can be made; its reason
        says which look that was, and what the next one waits for.
    """
    verdict, _ = _last_look(claim, scores)
    reasons = filter(None, (verdict.reason, waits_for(claim, scores)))
    return verdict._replace(reason="; ".join(reasons))


def missing_seeds(scores: ExperimentScores, claims: Iterable[Claim] = CLAIMS) -> dict[str, tuple[int, ...]]:
    """Return what the next look of each undecided claim lacks, which may be the first.

    Args:
        scores: Scores of the experiments that the claims' contrasts need.
        claims: The claims; all by default.

    Returns:
        Row -> the seeds, ascending, of which a run or its further scores are missing.
    """
    missing: dict[str, set[int]] = {}
    for claim in claims:
        for row, seeds in _last_look(claim, scores)[1].items():
            missing.setdefault(row, set()).update(seeds)
    return {row: tuple(sorted(missing[row])) for row in scores.runs.runs if row in missing}


def gather_until_decided(
    setup: Setup,
    *,
    evidence_alone: bool = False,
    train: Callable[[Mapping[str, tuple[int, ...]]], object] | None = None,
    prepare: Callable[[], object] | None = None,
) -> tuple[Runs, Finished]:
    """Return the runs of the claims' rows, trained until every claim is decided or has had its last look.

    Args:
        setup: Profile, benchmark and folder of runs. Runs of the evidence in git count as finished.
        evidence_alone: Whether only the evidence is used, and nothing is trained; all its rows are returned.
        train: Trains rows with seeds, where it can. By default they are trained here, one after another, if
            ``setup.may_train``.
        prepare: Gets the images, before the first training; by default ``setup.data`` does.

    Returns:
        The runs, and where they are from.

    Raises:
        InputError: If the profile is "smoke", whose scores decide nothing; if the setup has several seeds; if
            evidence is damaged; or if a training is needed and the benchmark cannot be read.
    """
    if setup.profile.name == "smoke":
        rule = "looks are at runs that can decide a claim"
        raise InputError(rule, "the profile smoke, whose scores have no meaning", "use the profile quick")
    if setup.seeds != 1:
        rule = "until a claim is decided, looks choose the number of seeds"
        raise InputError(rule, f"seeds {setup.seeds}", "leave seeds at 1")
    rows, perturbations = required_experiments()
    metrics = required_metrics()
    finished: list[Finished] = []

    def read(seeds: int) -> Runs:
        finished.append(Finished.read(setup, evidence_alone=evidence_alone))
        others = [row for row, _ in finished[-1].kept] if evidence_alone else []
        later = (seed + 1 for row in rows for seed in finished[-1].seeds(row))
        return finished[-1].gather([*rows, *others], max([seeds, *later]), perturbations, metrics)

    def train_here(missing: Mapping[str, tuple[int, ...]]) -> None:
        obtain_missing(setup, missing, perturbations, metrics)

    if setup.may_train and not evidence_alone:
        runs = until_decided(read, train or train_here, prepare=prepare or (lambda: setup.data))
    else:
        runs = until_decided(read, lambda missing: None)
    return runs, finished[-1]


def until_decided(
    read: Callable[[int], Runs],
    train: Callable[[Mapping[str, tuple[int, ...]]], object],
    claims: Iterable[Claim] = CLAIMS,
    prepare: Callable[[], object] = lambda: None,
) -> Runs:
    """Train until every claim is decided, has had its last look, or waits for a run that cannot be had.

    Args:
        read: Returns the claims' runs of the first seeds, at least so many as its argument says.
        train: Trains rows with seeds, where it can; called once for what the next looks lack.
        claims: The claims; all by default.
        prepare: Called once, before the first training, after which runs are read again: only when images are
            at hand is it known which runs are of them.

    Returns:
        The runs of all seeds that there are, up to the last one of a look. Of those that a look waits for,
        only failed ones are missing: the verdicts name the others.
    """
    claims, tried, prepared = tuple(claims), set(), False
    while True:
        runs = read(LOOKS[-1].seeds)
        waiting = missing_seeds(ExperimentScores(runs), claims)
        untried = {
            row: rest
            for row, seeds in waiting.items()
            if (rest := tuple(seed for seed in seeds if (row, seed) not in tried))
        }
        if not untried:
            break
        if not prepared:
            prepare()
            prepared = True
            continue
        train(untried)
        tried |= {(row, seed) for row, seeds in untried.items() for seed in seeds}
    there = (seed for of_row in runs.runs.values() for seed, run in enumerate(of_row) if isinstance(run, Run))
    last = max((_first_seed(claim, ExperimentScores(runs)) for claim in claims), default=0) + LOOKS[-1].seeds
    number = min(1 + max(there, default=0), last)
    failed = tuple(
        each
        for each in runs.missing
        if each.seed in waiting.get(each.experiment, ()) and each.reason.startswith(FAILED)
    )
    rows = {row: of_row[:number] for row, of_row in runs.runs.items()}
    return replace(runs, runs=rows, seeds=number, missing=failed)


def waits_for(claim: Claim, scores: ExperimentScores) -> str:
    """Say which runs the next look of an undecided claim waits for; empty if there is no next look."""
    _, lacking = _last_look(claim, scores)
    first = _first_seed(claim, scores)
    look = next((look for look in LOOKS if lacking and _lacking(claim, scores, first, look)), None)
    return f"{look.name} waits for {_awaited_text(scores, lacking)}" if look else ""


def _last_look(claim: Claim, scores: ExperimentScores) -> tuple[Verdict, dict[str, set[int]]]:
    """Return the verdict of the deciding or last possible look, and what the next look lacks, by row."""
    if not claim.contrasts or needs_other_images(claim, scores) or scores.runs.profile == "smoke":
        return decide(claim, scores), {}
    earlier: Verdict | None = None
    first = _first_seed(claim, scores)
    for look in LOOKS:
        lacking = _lacking(claim, scores, first, look)
        if lacking and earlier is not None:
            return earlier, lacking
        basis = f"{look.name}, {100 * look.level:g} %"
        verdict = decide(claim, scores, seeds=range(first, first + look.seeds), level=look.level)
        if lacking:
            return verdict._replace(outcome=UNDECIDED, reason="", look=basis), lacking
        earlier = verdict._replace(reason=f"{verdict.reason}, at {basis}", look=basis)
        if verdict.outcome != UNDECIDED:
            break
    assert earlier is not None
    return earlier, {}


def _seeds_there(claim: Claim, scores: ExperimentScores) -> list[tuple[str, set[int]]]:
    """Return for each cell of a claim its row and the seeds of which there are scores."""
    numbers = scores.runs.seed_numbers or range(scores.runs.seeds)
    return [
        (
            cell.experiment,
            {seed for seed, branch in zip(numbers, scores.branch_scores(cell), strict=True) if branch},
        )
        for cell in dict.fromkeys(claim.cells)
    ]


def _first_seed(claim: Claim, scores: ExperimentScores) -> int:
    """Return the first seed of a claim's looks: 0, unless a row has none of the first look's seeds."""
    if not claim.contrasts or needs_other_images(claim, scores):
        return 0
    of_cells = [there for _, there in _seeds_there(claim, scores)]
    if all(there & {*range(LOOKS[0].seeds)} for there in of_cells):
        return 0
    shared = set.intersection(*of_cells)
    complete = (seed for seed in sorted(shared) if shared.issuperset(range(seed, seed + LOOKS[0].seeds)))
    return next(complete, 0)


def _lacking(claim: Claim, scores: ExperimentScores, first: int, look: Look) -> dict[str, set[int]]:
    """Return the seeds of a look that a claim's rows have no scores of, by row."""
    lacking: dict[str, set[int]] = {}
    for row, there in _seeds_there(claim, scores):
        if absent := {*range(first, first + look.seeds)} - there:
            lacking.setdefault(row, set()).update(absent)
    return lacking


def _awaited_text(scores: ExperimentScores, lacking: Mapping[str, set[int]]) -> str:
    """Say which runs a look waits for, and why they are not there where that is known."""
    failures = {
        (each.experiment, each.seed): each.reason
        for each in scores.runs.missing
        if each.reason.startswith(FAILED)
    }
    rows: dict[tuple[tuple[int, ...], str], list[str]] = {}
    for row, seeds in lacking.items():
        known = (failures.get((row, seed), "") for seed in sorted(seeds))
        why = "; ".join(dict.fromkeys(filter(None, known)))
        rows.setdefault((tuple(sorted(seeds)), why), []).append(row)
    return "; ".join(
        f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))} of {', '.join(names)}"
        + (f" ({why})" if why else "")
        for (seeds, why), names in rows.items()
    )
