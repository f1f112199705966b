"""How many seeds each claim needs, and how long that takes (``reidlib plan``)."""

from __future__ import annotations

import argparse
import statistics
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reidlib.errors import InputError, check_choice, count_noun

if TYPE_CHECKING:
    from reidlib.analysis.claims.planning import ClaimPlan, Need
    from reidlib.experiments import Setup
    from reidlib.experiments.evidence.finished import Finished

_WIDTH = 100


def plan(arguments: argparse.Namespace) -> int:
    """Say for each claim how many seeds decide it, and how many minutes these take.

    A claim is shown if the 95 % interval of each of its differences in mAP is above
    zero. Its power is how often that happens if the differences are what one
    thinks: those that the paper prints, where it prints them, or --effect points
    each. For an undecided claim there is a third number: what shows that there is
    no difference of half a point, if there is none at all in the differences that
    leave it open. The table has the fewest seeds whose power is at least --power,
    and the minutes that the missing trainings take.

    How much seeds and persons differ is estimated from finished runs: those of this
    machine in reports/runs or --runs, and where there is none those of the evidence in
    git (reports/evidence). With two or three seeds that is a rough estimate; plan
    again after the first trainings.

    Minutes are of the trainings that neither has, at the median measured duration of
    each row, several at a time as `reidlib reproduce` runs them, without scoring again
    under perturbations. Rows that this machine has not trained take their duration from
    the evidence, another machine's; the table says so.

    `reidlib reproduce --until-decided` looks several times, with wider intervals, and
    may take more seeds than a plan says.

    More seeds do not make up for few persons: where no number of seeds suffices, the
    list below the table says how many persons would. It also names claims that have no
    experiment. CLAIM is a name of the table.

    examples:
      reidlib plan                              all claims
      reidlib plan "four parts" --effect 2      one claim, a difference of 2 points
      reidlib plan --power 0.9 --benchmark market1501,validation=true
      reidlib train all --seeds 5               what a plan may lead to
      reidlib reproduce --until-decided         or: as many seeds as are needed

    files: none are written.
    """
    from reidlib.analysis import ExperimentScores
    from reidlib.analysis.claims import CLAIMS, required_experiments, required_metrics
    from reidlib.analysis.claims.planning import plan_claim
    from reidlib.experiments import Setup
    from reidlib.experiments.evidence.finished import Finished

    claims = {claim.name: claim for claim in CLAIMS}
    for name in arguments.claims:
        planned = ", ".join(name for name, claim in claims.items() if claim.contrasts)
        check_choice(f"a plan is of one of the claims {planned}", name, claims)
        if not claims[name].contrasts:
            rule, mend = "a plan is of a claim that has an experiment", "name another claim"
            raise InputError(rule, f"{name!r}: {claims[name].impossible}", mend)
    if arguments.profile == "smoke":
        rule = "a plan is of trainings that can decide a claim"
        raise InputError(rule, "the profile smoke, whose scores have no meaning", "use --profile quick")
    root, runs = (
        Path(path).expanduser().resolve() if path else None for path in (arguments.data_root, arguments.runs)
    )
    setup = Setup(arguments.profile, arguments.benchmark, root, runs=runs, progress=False)
    finished = Finished.read(setup)
    if not (finished.own or finished.kept):
        rule = "a plan is made from finished runs, at least two of each row"
        value = f"none of {setup.profile.name} on {setup.benchmark}, in {setup.runs} and in the evidence"
        options = f" --profile {setup.profile.name}" if setup.profile.name != "quick" else ""
        options += f" --benchmark {setup.benchmark} --data-root DIR" if setup.benchmark != "synthetic" else ""
        raise InputError(rule, value, f"train them with `reidlib train all --seeds 2{options}`")
    chosen = [claims[name] for name in dict.fromkeys(arguments.claims or claims)]
    rows, perturbations = required_experiments(chosen)
    number = 1 + max((seed for row in rows for seed in finished.seeds(row)), default=0)
    gathered = finished.gather(rows, number, perturbations, required_metrics(chosen))
    scores = ExperimentScores(gathered)
    plans = [plan_claim(claim, scores, arguments.effect, arguments.power) for claim in chosen]
    seconds, jobs, durations = _durations(setup, finished, rows)
    points = f"{arguments.effect:g} {'point' if arguments.effect == 1 else 'points'}"
    about = f"{setup.profile.name}, {setup.benchmark}: seeds for {100 * arguments.power:g} % power, from"
    print(f"{about} {finished.sources(gathered)}", *_lines(durations), "", sep="\n")
    if told := [each for each in plans if not each.problem]:
        print(*_table(told, points, seconds, jobs), sep="\n")
    print(*_notes(plans, points), sep="\n")
    return 0


def _durations(setup: Setup, finished: Finished, rows: Iterable[str]) -> tuple[dict[str, float], int, str]:
    """Return the seconds of a training by row, how many run at a time, and where that is from."""
    from reidlib.reports.processes import usual_jobs
    from reidlib.reports.tasks import measured, training_memory

    own, durations, devices = measured(setup, "seconds"), {}, {}
    for (row, _), run in finished.kept.items():
        durations.setdefault(row, []).append(run.information["seconds"])
        devices[row] = str(run.information["device"])
    # Beside other work a training takes many times as long: the median, not the longest, tells the next one.
    kept = {row: statistics.median(of_row) for row, of_row in durations.items()}
    jobs = usual_jobs(setup.device, training_memory(setup))
    foreign = [row for row in rows if row not in own and row in kept]
    text = f"minutes of the missing trainings, {jobs} at a time"
    if foreign:
        which = (
            "durations" if not own.keys() & set(rows) else f"durations of {count_noun(len(foreign), 'rows')}"
        )
        machine = "; ".join(dict.fromkeys(devices[row] for row in foreign))
        text += f"; {which} are another machine's, from reports/evidence ({machine})"
    else:
        text += "; durations are this machine's"
    return {row: own.get(row) or kept[row] for row in rows if row in own or row in kept}, jobs, text


def _table(plans: list[ClaimPlan], points: str, seconds: Mapping[str, float], jobs: int) -> list[str]:
    """Return the lines of the table."""
    from reidlib.analysis.claims import SIGNS, UNDECIDED
    from reidlib.analysis.statistics import format_difference

    head = ["claim", "now", "present", "points", *["seeds", "minutes"] * 3]
    lines = []
    for each in plans:
        numbers = sorted({len(seeds) for seeds in each.present.values()})
        present = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}–{numbers[-1]}"
        effect = format_difference(each.paper.effect) if each.paper else "–"
        lines.append(
            [
                *(each.claim.name, SIGNS[each.verdict.outcome], present, effect),
                *_cost(each, each.paper, seconds, jobs),
                *_cost(each, each.given, seconds, jobs),
                *_cost(each, each.none, seconds, jobs),
            ]
        )
    undecided = [each for each in plans if each.verdict.outcome == UNDECIDED]
    if len(undecided) > 1:
        totals = [
            *_total(undecided, [each.paper for each in undecided], seconds, jobs),
            *_total(undecided, [each.given for each in undecided], seconds, jobs),
            *_total(undecided, [each.none for each in undecided], seconds, jobs),
        ]
        lines.append(["undecided, shared rows once", "", "", "", *totals])
    widths = [max(len(line[column]) for line in (*lines, head)) for column in range(len(head))]
    first = f"{'':{widths[0]}}  {'':{widths[1]}}  {'seeds':>{widths[2]}}"
    paper = f"{'the paper’s effect':>{sum(widths[3:6]) + 4}}"
    given = f"{points:>{sum(widths[6:8]) + 2}}"
    out = [f"{first}  {paper}  {given}  {'no difference':>{sum(widths[8:]) + 2}}"]
    for line in (head, *lines):
        cells = [f"{line[0]:{widths[0]}}", *(f"{c:>{w}}" for c, w in zip(line[1:], widths[1:], strict=True))]
        out.append("  ".join(cells).rstrip())
    return out


def _cost(plan: ClaimPlan, need: Need | None, seconds: Mapping[str, float], jobs: int) -> list[str]:
    """Return the seeds that an effect takes and the minutes of those that are missing."""
    if need is None:
        return ["–", "–"]
    if need.seeds is None:
        return ["never" if need.persons_wanted else ">1,000", "–"]
    return [f"{need.seeds:,}", _minutes(plan.missing(need.seeds), seconds, jobs)]


def _minutes(missing: Mapping[str, int], seconds: Mapping[str, float], jobs: int) -> str:
    if any(number and row not in seconds for row, number in missing.items()):
        return "?"
    minutes = sum(number * seconds.get(row, 0.0) for row, number in missing.items()) / 60 / jobs
    return f"{minutes:,.0f}" if minutes >= 1 or not minutes else "<1"


def _total(
    plans: list[ClaimPlan], needs: list[Need | None], seconds: Mapping[str, float], jobs: int
) -> list[str]:
    """Return the minutes of all claims' missing trainings; claims share rows, which count once."""
    missing: dict[str, int] = {}
    for plan, need in zip(plans, needs, strict=True):
        for row, number in plan.missing(need.seeds if need and need.seeds else 0).items():
            missing[row] = max(number, missing.get(row, 0))
    return ["", _minutes(missing, seconds, jobs)]


def _notes(plans: list[ClaimPlan], points: str) -> list[str]:
    """Return what the table cannot say: signs, few persons, and claims without a plan."""
    from reidlib.analysis.claims import SIGNS

    signs = {each.verdict.outcome for each in plans if not each.problem}
    notes = [", ".join(f"{sign} {outcome}" for outcome, sign in SIGNS.items() if outcome in signs)]
    for each in plans:
        needs = {"the paper's effect": each.paper, points: each.given, "no difference": each.none}
        for name, need in needs.items():
            if need and need.persons_wanted:
                notes.append(
                    f"{each.claim.name}: {need.persons:,} persons are too few for any number of seeds to "
                    f"show {name}; at least {need.persons_wanted:,} are needed"
                )
    if several := [each.claim.name for each in plans if each.paper and len(each.claim.contrasts) > 1]:
        notes.append(
            f"{', '.join(several)}: all of several differences are to be shown; the table has the smallest "
            "of the paper's"
        )
    notes += [f"{each.claim.name}: {each.problem}" for each in plans if each.problem and each.claim.contrasts]
    none = [each.claim.name for each in plans if not each.claim.contrasts]
    if tables := [name for name in none if name.startswith("state of the art")]:
        none = [name for name in none if name not in tables] + [f"state of the art ({len(tables)} tables)"]
    if none:
        notes.append(f"no experiment: {', '.join(none)}")
    return ["", *(line for note in notes for line in _lines(note))]


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
