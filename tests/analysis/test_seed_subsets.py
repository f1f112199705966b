"""Verdicts from any one seed, any three and all, on differences whose verdicts are known by hand."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scored_runs import write_scored_runs

from reidlib.analysis.claims import (
    FAILS,
    HOLDS,
    NO_EXPERIMENT,
    UNDECIDED,
    Claim,
    Contrast,
    compare_with_all,
    seed_lesson,
    verdicts_by_seeds,
)
from reidlib.analysis.claims.seed_subsets import subset_outcomes
from reidlib.analysis.scores import Cell
from reidlib.analysis.statistics import Pairs
from reidlib.experiments.rows import Perturbation

PERSONS, QUERIES = 20, 3
# A tenth of a point above and below the seed's difference: a single seed's interval is narrow.
DEVIATIONS = np.tile([0.1, -0.1], PERSONS // 2)


def pairs(*points, seeds=None):
    """Differences of the seeds, in points, nearly the same for every person."""
    seeds = tuple(range(len(points))) if seeds is None else seeds
    return Pairs(QUERIES * np.add.outer(points, DEVIATIONS), np.full(PERSONS, QUERIES), seeds)


def outcomes(*contrasts, sizes=(1, 3)):
    return [*subset_outcomes({f"contrast {n}": each for n, each in enumerate(contrasts)}, sizes)]


def test_three_seeds_whose_verdicts_are_known():
    # +10 ± 24.8 (t of two degrees of freedom 4.30, deviation 10, √3): no verdict, but each seed has one.
    assert outcomes(pairs(10, 0.9, 20)) == [
        ((0,), HOLDS, HOLDS),
        ((1,), HOLDS, HOLDS),
        ((2,), HOLDS, HOLDS),
        ((0, 1, 2), UNDECIDED, None),
    ]
    assert outcomes(pairs(10, -10, 9))[:3] == [
        ((0,), HOLDS, HOLDS),
        ((1,), FAILS, FAILS),
        ((2,), HOLDS, HOLDS),
    ]
    assert outcomes(pairs(10, 10.1, 9.9))[3] == ((0, 1, 2), HOLDS, None)
    assert outcomes(pairs(-10, -10.1, -9.9))[3] == ((0, 1, 2), FAILS, None)


def test_every_choice_of_three_of_four_seeds_is_counted_once():
    lines = outcomes(pairs(10, 10.1, 9.9, -10, seeds=(2, 3, 5, 7)))
    assert [seeds for seeds, *_ in lines] == [
        (2,),
        (3,),
        (5,),
        (7,),
        *combinations((2, 3, 5, 7), 3),
        (2, 3, 5, 7),
    ]
    # Only the three equal seeds decide; all four have +5 ± 15.9.
    assert [outcome for _, outcome, _ in lines[4:]] == [HOLDS, UNDECIDED, UNDECIDED, UNDECIDED, UNDECIDED]
    assert len(outcomes(pairs(*range(10)))) == 10 + 120 + 1


def test_a_claim_needs_all_its_differences():
    lines = outcomes(pairs(10, 10), pairs(10, -10))
    assert lines[:2] == [((0,), HOLDS, HOLDS), ((1,), FAILS, FAILS)]


def test_a_difference_of_zero_is_no_gain_by_its_sign():
    zero = Pairs(np.zeros((2, PERSONS)), np.full(PERSONS, QUERIES), (0, 1))
    assert [sign for *_, sign in outcomes(zero)] == [FAILS, FAILS, None]
    assert outcomes(zero)[0][1] != HOLDS


def test_only_seeds_that_all_contrasts_have_count():
    lines = outcomes(pairs(10, 10, 10, seeds=(0, 1, 4)), pairs(10, 10, 10, 10, seeds=(1, 2, 4, 5)))
    assert [seeds for seeds, *_ in lines] == [(1,), (4,), (1, 4)]


def test_without_a_choice_there_is_only_the_whole():
    assert outcomes(pairs(10)) == [((0,), HOLDS, HOLDS)]
    assert [seeds for seeds, *_ in outcomes(pairs(1, 2, 3))] == [
        (0,),
        (1,),
        (2,),
        (0, 1, 2),
    ]  # not three of three
    assert outcomes(pairs(10), None) == []
    assert outcomes(pairs(10), pairs(10, seeds=(1,))) == []


ABOVE = Contrast("a − b", (Cell("jlml"),), (Cell("jlml-2"),))
ALSO = Contrast("a − c", (Cell("jlml"),), (Cell("jlml-6"),))
WORSE = Contrast("worse", (Cell("jlml", "full", Perturbation("box_jitter", 0.24)),), (Cell("jlml-2"),))


def claim(name, *contrasts, **keywords):
    return Claim(name, "JLML", "It helps.", "", "a above b", contrasts, **keywords)


CLAIMS = (claim("one", ABOVE), claim("two", ABOVE, ALSO), claim("none", impossible="no row"))


def frame_of(folder, a, b, c, profile="", claims=CLAIMS):
    rows = {"jlml": a, "jlml-2": b, "jlml-6": c}
    values = {name: [v if v is None else {"full": v} for v in vs] for name, vs in rows.items()}
    return verdicts_by_seeds({"rendered people": write_scored_runs(folder, values, profile)}, claims)


def test_the_frame_has_a_line_for_each_choice(tmp_path):
    frame = frame_of(tmp_path, [0.6, 0.62, 0.5, 0.61], [0.5, 0.5, 0.6, 0.5], [0.5, 0.5, None, 0.5])
    assert list(frame["claim"].unique()) == ["one", "two"]  # a claim without contrasts has no seeds
    assert frame.groupby("claim")["size"].agg(list).to_dict() == {
        "one": [1, 1, 1, 1, 3, 3, 3, 3, 4],
        "two": [1, 1, 1, 3],
    }
    lines = frame.to_dict("records")
    assert [line["seeds"] for line in lines if line["whole"]] == [(0, 1, 2, 3), (0, 1, 3)]
    signs = [line["sign"] for line in lines if line["size"] == 1]
    assert signs == [HOLDS, HOLDS, FAILS, HOLDS, HOLDS, HOLDS, HOLDS]
    assert all(pd.isna(line["sign"]) for line in lines if line["size"] > 1)


def test_a_claim_without_a_common_seed_has_one_line(tmp_path):
    frame = frame_of(tmp_path, [0.6, 0.6], [0.5, None], [None, 0.5], claims=(CLAIMS[1], claim("far", WORSE)))
    assert frame["size"].tolist() == [0, 0]
    assert frame["whole"].tolist() == [True, True]
    assert frame["outcome"].tolist() == [UNDECIDED, UNDECIDED]
    assert compare_with_all(frame).empty and seed_lesson(frame) == {}


def test_what_needs_rendering_has_no_experiment_on_photographs(tmp_path):
    scores = write_scored_runs(tmp_path, {"jlml": [{"full": 0.6}], "jlml-2": [{"full": 0.5}]})
    scores.runs = replace(scores.runs, benchmark="market1501,validation=true")
    (line,) = verdicts_by_seeds({"photographs": scores}, (claim("far", WORSE),)).to_dict("records")
    assert (line["size"], line["outcome"]) == (0, NO_EXPERIMENT)


def test_a_smoke_run_decides_nothing_from_any_seed(tmp_path):
    frame = frame_of(tmp_path, [0.6, 0.6], [0.5, 0.5], [0.5, 0.5], profile="smoke")
    assert set(frame["outcome"]) == {UNDECIDED}


def test_shares_of_choices_with_another_verdict(tmp_path):
    # Seeds 0, 1 and 3 are above, seed 2 is below: all four are undecided, and three decide in one of four.
    frame = frame_of(tmp_path, [0.6, 0.6, 0.5, 0.6], [0.5, 0.5, 0.6, 0.5], [0.5, 0.5, None, 0.5])
    one, two = compare_with_all(frame).to_dict("records")
    assert one["outcome"] == UNDECIDED and (one["seeds"], one["one"], one["more"]) == (4, 1.0, 1.0)
    assert (one["less"], one["contrary"], one["three"], one["gain"]) == (0.0, 0.0, 0.25, 0.75)
    assert math.isnan(one["sign"])
    assert two["outcome"] == HOLDS and (two["seeds"], two["one"], two["gain"], two["sign"]) == (3, 0, 1, 0)
    assert math.isnan(two["three"])
    lesson = seed_lesson(frame)
    assert lesson["title"].endswith("than all trainings in 50 % (rendered people) of cases")
    (point,) = [line for line in lesson["text"].splitlines() if line.startswith("- ")]
    assert "(2 claims, 3 to 4 seeds)" in point
    assert "than all seeds in **50 %** of cases: it decides what all seeds leave open; none decides" in point
    assert "Three seeds give another one in **25 %** (1 claim with more than three seeds)." in point
    assert "depends on the seed for **1 of 2 claims** (one); where all seeds decide" in point
    assert point.endswith("it contradicts them in 0 % of cases.")


@pytest.mark.parametrize(
    ("signs", "whole", "shares"),
    [
        ([HOLDS, UNDECIDED, FAILS], HOLDS, {"one": 2 / 3, "more": 0, "less": 1 / 3, "contrary": 1 / 3}),
        ([HOLDS, UNDECIDED, FAILS], UNDECIDED, {"one": 2 / 3, "more": 2 / 3, "less": 0, "contrary": 0}),
        ([FAILS, FAILS, FAILS], FAILS, {"one": 0, "more": 0, "less": 0, "contrary": 0}),
    ],
)
def test_kinds_of_another_verdict(tmp_path, signs, whole, shares):
    frame = frame_of(tmp_path, [0.6] * 3, [0.5] * 3, [0.5] * 3, claims=CLAIMS[:1])
    frame["outcome"] = [*signs, whole]
    (line,) = compare_with_all(frame).to_dict("records")
    assert {name: line[name] for name in shares} == pytest.approx(shares)


def test_without_four_seeds_nothing_is_said_of_three(tmp_path):
    text = seed_lesson(frame_of(tmp_path, [0.6] * 3, [0.5] * 3, [0.5] * 3))["text"]
    assert "No claim has more than three seeds yet" in text and "Three seeds give" not in text
    assert "than all seeds in **0 %** of cases; none decides the opposite of what all decide. " in text
