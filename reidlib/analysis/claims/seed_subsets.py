"""What fewer trainings would have said: each claim's verdict from any one seed, from any three, and from all.

Every subset of the seeds is counted; nothing is drawn, so the same runs always give the same numbers. The
smaller subsets are parts of the whole set, whose verdict they are compared with: with only a few seeds more
than three, "three" and "all" share most of their runs, and the whole set is not the truth either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import fmean
from typing import Any

import pandas as pd

from reidlib.analysis.claims.rule import FAILS, HOLDS, NO_EXPERIMENT, UNDECIDED, outcome_of
from reidlib.analysis.claims.statements import CLAIMS, Claim
from reidlib.analysis.claims.verdicts import claim_pairs
from reidlib.analysis.scores import ExperimentScores, bullet_list
from reidlib.analysis.statistics import Pairs
from reidlib.errors import count_noun

SIZES = (1, 3)
_INTRODUCTION = (
    "The claims are those of two papers, JLML and Pyramid; the ledger below has each. Every training starts "
    "from a random seed. Here one rule decides each claim from any one seed, from any three and from all "
    "seeds that its rows share: it *holds* if the 95 % intervals of all its differences in mAP are above "
    "zero, *does not hold* if one is below, *makes no difference* if what is not above zero lies within half "
    "a point of it, and otherwise stays *undecided*. A case is a claim and one such choice of seeds; all "
    "claims have the same weight. The interval of one training covers other persons, but not other "
    "trainings, so it decides too much; with three it covers both and is wide, so it may leave open what "
    "more would decide. All seeds are few, too: with more, a verdict may change."
)
_COLUMNS = ["benchmark", "paper", "claim", "size", "seeds", "whole", "outcome", "sign"]


def subset_outcomes(
    contrasts: Mapping[str, Pairs | None], sizes: Sequence[int] = SIZES
) -> Iterator[tuple[tuple[int, ...], str, str | None]]:
    """Decide a claim from each subset of the seeds that all its contrasts share.

    Args:
        contrasts: Label of a contrast -> its paired differences (see ``verdicts.claim_pairs``).
        sizes: Numbers of seeds of the subsets. One that is not below the number of shared seeds is left out:
            three of three seeds are no choice.

    Yields:
        The numbers of the seeds, the outcome by ``rule.outcome_of``, and for a single seed also what the
        mere signs of its differences say: ``HOLDS`` if all are above zero, else ``FAILS`` (a difference of
        exactly zero is no gain); None for several seeds. The set of all shared seeds comes last. Nothing if
        the contrasts share no seed.
    """
    pairs = {label: each for label, each in contrasts.items() if each is not None}
    if not pairs or len(pairs) < len(contrasts):
        return
    shared = sorted(set.intersection(*(set(each.seeds) for each in pairs.values())))
    smaller = [subset for size in sizes if size < len(shared) for subset in combinations(shared, size)]
    for subset in [*smaller, tuple(shared)] if shared else []:
        parts = {label: each.of(subset) for label, each in pairs.items()}
        outcome, _ = outcome_of({label: part.interval() for label, part in parts.items()})
        gains = all(part.sums_sp.sum() > 0 for part in parts.values())
        yield subset, outcome, (HOLDS if gains else FAILS) if len(subset) == 1 else None


def verdicts_by_seeds(
    sets: Mapping[str, ExperimentScores], claims: Iterable[Claim] = CLAIMS, sizes: Sequence[int] = SIZES
) -> pd.DataFrame:
    """Return the verdicts on all claims from each subset of their seeds, as a tidy table.

    Args:
        sets: Name of a benchmark -> scores on it.
        claims: The claims; those without contrasts are left out.
        sizes: Numbers of seeds of the subsets.

    Returns:
        A line for each benchmark, claim and subset (see ``subset_outcomes``), with the columns benchmark,
        paper, claim, size, seeds, whole (whether these are all seeds that the claim's rows share), outcome
        and sign. A claim whose rows share no seed has one line of size 0, undecided or without experiment. In
        the profile "smoke" every outcome is undecided.
    """
    lines = []
    for name, scores in sets.items():
        for claim in claims:
            if not claim.contrasts:
                continue
            contrasts = claim_pairs(claim, scores)
            subsets = [*subset_outcomes(contrasts, sizes)]
            if not subsets:
                subsets = [((), UNDECIDED if contrasts else NO_EXPERIMENT, None)]
            elif scores.runs.profile == "smoke":
                subsets = [(seeds, UNDECIDED, sign) for seeds, _, sign in subsets]
            for seeds, outcome, sign in subsets:
                whole = seeds == subsets[-1][0]
                lines.append((name, claim.paper, claim.name, len(seeds), seeds, whole, outcome, sign))
    return pd.DataFrame(lines, columns=_COLUMNS)


def lines_by_claim(frame: pd.DataFrame) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the lines of ``verdicts_by_seeds`` by benchmark and claim."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in frame.to_dict("records"):
        groups.setdefault((line["benchmark"], line["claim"]), []).append(line)
    return groups


def compare_with_all(frame: pd.DataFrame) -> pd.DataFrame:
    """Return for each claim how often fewer seeds give another verdict than all seeds.

    Args:
        frame: What ``verdicts_by_seeds`` returns.

    Returns:
        A line for each benchmark and claim with two or more seeds, with the columns benchmark, claim, seeds
        (their number) and outcome (from all of them), and these shares, between 0 and 1:

        - "one", of the single seeds: those with another verdict, which is the sum of "more" (it decides what
          all leave open), "less" (it leaves open what all decide) and "contrary" (it decides otherwise);
        - "three", of the choices of three seeds: those with another verdict; NaN without a choice;
        - "gain", of the single seeds: those whose signs say that the claim holds;
        - "sign": those whose signs contradict the verdict of all; NaN where that is undecided.
    """
    lines = []
    for (benchmark, claim), group in lines_by_claim(frame).items():
        (whole,) = (line for line in group if line["whole"])
        if whole["size"] < 2:
            continue
        smaller = [line for line in group if not line["whole"]]
        three = [line["outcome"] != whole["outcome"] for line in smaller if line["size"] == 3]
        one = [line for line in smaller if line["size"] == 1]
        other = [line["outcome"] for line in one if line["outcome"] != whole["outcome"]]
        gains = [line["sign"] == HOLDS for line in one]
        less, contrary = other.count(UNDECIDED), len(other) - other.count(UNDECIDED)
        more, contrary = (contrary, 0) if whole["outcome"] == UNDECIDED else (0, contrary)
        wrong = [gain != (whole["outcome"] == HOLDS) for gain in gains]
        lines.append(
            {"benchmark": benchmark, "claim": claim, "seeds": whole["size"], "outcome": whole["outcome"]}
            | {"one": len(other) / len(one), "more": more / len(one), "less": less / len(one)}
            | {"contrary": contrary / len(one), "three": fmean(three) if three else math.nan}
            | {"gain": fmean(gains), "sign": math.nan if whole["outcome"] == UNDECIDED else fmean(wrong)}
        )
    columns = ["benchmark", "claim", "seeds", "outcome", "one", "more", "less", "contrary", "three"]
    return pd.DataFrame(lines, columns=[*columns, "gain", "sign"])


def seed_lesson(frame: pd.DataFrame) -> dict[str, str]:
    """Say how often fewer trainings would have given another verdict, as ``Result.finish`` keeps it.

    Args:
        frame: What ``verdicts_by_seeds`` returns.

    Returns:
        "title", the finding over all benchmarks in a line, and "text" in Markdown, with a point for each
        benchmark. Empty if no claim has two seeds.
    """
    lines = compare_with_all(frame).to_dict("records")
    if not lines:
        return {}
    benchmarks: dict[str, list] = {}
    for line in lines:
        benchmarks.setdefault(line["benchmark"], []).append(line)
    shares = [f"{_mean(line['one'] for line in group)} ({name})" for name, group in benchmarks.items()]
    points = [_lesson(name, group) for name, group in benchmarks.items()]
    return {
        "title": f"One training gives another verdict than all trainings in {' and '.join(shares)} of cases",
        "text": f"{_INTRODUCTION}\n\n{bullet_list(points)}",
    }


def _lesson(benchmark: str, lines: Sequence[Mapping[str, Any]]) -> str:
    fewest, most = (end(line["seeds"] for line in lines) for end in (min, max))
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    shares = {name: [line[name] for line in lines] for name in ("one", "more", "less", "contrary")}
    kinds = {
        "more": "it decides what all seeds leave open",
        "less": "it leaves open what they decide",
        "contrary": "it decides otherwise",
    }
    parts = {words: _mean(shares[kind]) for kind, words in kinds.items() if any(shares[kind])}
    why = (
        ", ".join(f"in {share} {words}" for words, share in parts.items())
        if len(parts) > 1
        else "".join(parts)
    )
    text = (
        f"**{benchmark[0].upper()}{benchmark[1:]}** ({count_noun(len(lines), 'claims')}, {seeds}). One seed, "
        "with an interval over persons, gives another verdict than all seeds in "
        f"**{_mean(shares['one'])}** of cases{': ' if why else ''}{why}"
    )
    text += ". " if any(shares["contrary"]) else "; none decides the opposite of what all decide. "
    three, signs = (
        [line[name] for line in lines if not math.isnan(line[name])] for name in ("three", "sign")
    )
    if not three:
        text += "No claim has more than three seeds yet, so nothing can be said of three. "
    else:
        some = len(three) < len(lines)
        of = f" ({count_noun(len(three), 'claims')} with more than three seeds)" if some else ""
        text += f"Three seeds give another one in **{_mean(three)}**{of}. "
    depends = [line["claim"] for line in lines if 0 < line["gain"] < 1]
    text += (
        "Without an interval, as a paper with one run prints it, whether all differences of a claim are "
        f"above zero depends on the seed for **{len(depends)} of {count_noun(len(lines), 'claims')}**"
    )
    text += f" ({', '.join(depends)})" if depends else ""
    if signs:
        text += f"; where all seeds decide, it contradicts them in {_mean(signs)} of cases"
    return f"{text}."


def _mean(shares: Iterable[float]) -> str:
    return f"{100 * fmean(shares):.0f} %"
