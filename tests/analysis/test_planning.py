"""How many seeds a claim needs: one contrast, several, too few persons, and runs that cannot tell."""

import numpy as np
import pytest
from scored_runs import seeds_wanted, write_scored_runs

from reidlib.analysis.claims import UNDECIDED, Claim, Contrast, decide
from reidlib.analysis.claims.planning import plan_claim
from reidlib.analysis.claims.power import fewest, power, power_of_no_difference
from reidlib.analysis.scores import Cell, ExperimentScores
from reidlib.analysis.statistics import Components, variance_components
from reidlib.experiments.setup import Runs

ROWS = ("jlml", "jlml-2", "jlml-6")


def contrast(minus="jlml-2", printed=None):
    return Contrast(f"a − {minus}", (Cell("jlml"),), (Cell(minus),), printed=printed)


def claim(*contrasts):
    return Claim("it", "JLML", "It helps.", "", "a above b", contrasts or (contrast(),))


def noisy_scores(folder, seeds=3, spread=4.0, persons=20, rows=ROWS):
    """Scores of rows that differ by chance between seeds and persons, in points."""
    generator = np.random.default_rng(3)
    everything = write_scored_runs(folder, {row: [{"full": 0.5}] * seeds for row in rows}, "quick")
    ids = [query * persons // 60 for query in range(60)]
    for row in rows:
        of_persons = generator.normal(0, spread / 200, persons)[ids]
        for scores in everything.branch_scores(Cell(row)):
            scores["query_person_ids"] = ids
            for kind in ("step", "trapezoid"):
                shift = generator.normal(0, spread / 200)
                noise = of_persons + generator.normal(0, spread / 100, 60)
                scores[kind] = scores[kind] | {"average_precision": (0.5 + shift + noise).tolist()}
    return everything


def test_the_plan_of_one_contrast_is_the_power_of_its_components(tmp_path):
    scores = noisy_scores(tmp_path)
    entry = claim(contrast("jlml-6", printed=7.5))
    plan = plan_claim(entry, scores, 3.0)
    pairs = scores.pairs(*entry.contrasts[0][1:3], entry.measure)
    components = variance_components(*pairs[:2])
    assert plan.given.seeds == seeds_wanted(components, 3.0, 20)
    assert plan.paper.seeds == seeds_wanted(components, 7.5, 20) < plan.given.seeds
    assert (plan.given.effect, plan.paper.effect, plan.given.persons) == (3.0, 7.5, 20)
    assert (
        power(components, 3.0, plan.given.seeds, 20) >= 0.8 > power(components, 3.0, plan.given.seeds - 1, 20)
    )
    assert plan_claim(entry, scores, 3.0, 0.9).given.seeds > plan.given.seeds
    assert plan.verdict == decide(entry, scores)


def test_all_of_several_contrasts_are_to_be_shown(tmp_path):
    scores = noisy_scores(tmp_path)
    first = contrast("jlml-6", printed=8.0)
    second = first._replace(label="again", printed=6.0)
    single = [plan_claim(claim(each), scores, 4.0).given.seeds for each in (first, second)]
    both = plan_claim(claim(first, second), scores, 4.0)
    assert both.given.seeds > max(single)
    assert both.paper.effect == 6.0
    # As many as needed for both together to miss in a fifth of cases, and not one more.
    components = [
        variance_components(*scores.pairs(*each[1:3], "mAP (trapezoid)")[:2]) for each in (first, second)
    ]
    misses = [
        sum(1 - power(each, 4.0, seeds, 20) for each in components)
        for seeds in (both.given.seeds - 1, both.given.seeds)
    ]
    assert misses[0] > 0.2 >= misses[1]


def test_an_effect_that_is_not_printed_or_not_above_zero_is_no_effect_of_the_paper(tmp_path):
    scores = noisy_scores(tmp_path)
    for printed in (None, 0.0, -1.0):
        assert (
            plan_claim(claim(contrast(printed=5.0), contrast("jlml-6", printed)), scores, 2.0).paper is None
        )


def test_too_few_persons_for_any_number_of_seeds(tmp_path):
    scores = noisy_scores(tmp_path)
    need = plan_claim(claim(), scores, 0.2).given
    assert need.seeds is None and need.persons_wanted > need.persons == 20
    pairs = scores.pairs((Cell("jlml"),), (Cell("jlml-2"),), "mAP (trapezoid)")
    components = variance_components(*pairs[:2])
    assert power(components, 0.2, 10**6, need.persons_wanted) >= 0.8
    assert power(components, 0.2, 10**6, need.persons_wanted - 1) < 0.8


def test_seeds_that_differ_much_are_no_lack_of_persons():
    components = Components(seeds=10_000.0, persons=0.0, rest=1.0)
    assert fewest(lambda seeds: power(components, 1.0, seeds, 100), 0.8) is None
    assert power(components, 1.0, 10**6, 100) > 0.8


def test_missing_seeds_are_those_until_all_rows_share_so_many(tmp_path):
    present = {"jlml": [{"full": 0.5}, None, {"full": 0.6}, {"full": 0.6}], "jlml-2": [{"full": 0.5}] * 4}
    plan = plan_claim(claim(), write_scored_runs(tmp_path, present, "quick"), 1.0)
    assert plan.present == {"jlml": {0, 2, 3}, "jlml-2": {0, 1, 2, 3}}
    assert plan.missing(3) == {"jlml": 0, "jlml-2": 0}  # seeds 0, 2 and 3 are three, too
    assert plan.missing(4) == {"jlml": 1, "jlml-2": 0} and plan.missing(6) == {"jlml": 3, "jlml-2": 2}


def test_an_undecided_claim_has_what_shows_that_there_is_no_difference(tmp_path):
    scores = noisy_scores(tmp_path, persons=60)
    plan = plan_claim(claim(), scores, 1.0)
    assert plan.verdict.outcome == UNDECIDED and plan.none.effect == 0.0
    pairs = scores.pairs((Cell("jlml"),), (Cell("jlml-2"),), "mAP (trapezoid)")
    components = variance_components(*pairs[:2])
    if plan.none.seeds is None:
        seeds, (fewer, enough) = 10**6, (plan.none.persons_wanted - 1, plan.none.persons_wanted)
        shares = [power_of_no_difference(components, 0.5, seeds, persons) for persons in (fewer, enough)]
    else:
        shares = [power_of_no_difference(components, 0.5, plan.none.seeds - less, 60) for less in (1, 0)]
    assert shares[0] < 0.8 <= shares[1]
    clear = write_scored_runs(
        tmp_path / "clear", {"jlml": [{"full": 0.9}] * 3, "jlml-2": [{"full": 0.1}] * 3}, "quick"
    )
    assert plan_claim(claim(), clear, 1.0).none is None


def test_what_the_runs_cannot_tell_is_said(tmp_path):
    one_seed = plan_claim(claim(), noisy_scores(tmp_path / "1", seeds=1), 1.0)
    assert one_seed.problem.startswith("one seed: how much trainings differ") and one_seed.given is None
    one_person = plan_claim(claim(), noisy_scores(tmp_path / "2", persons=1), 1.0)
    assert one_person.problem.startswith("one person: how much persons differ")
    none = plan_claim(
        claim(), write_scored_runs(tmp_path / "3", {"jlml": [{"full": 0.5}], "jlml-2": [None]}), 1.0
    )
    assert none.problem == "no seed has all rows of: a − jlml-2" and none.present["jlml-2"] == set()
    entry = Claim("x", "JLML", "It.", "", "t", impossible="not built")
    assert plan_claim(entry, ExperimentScores(Runs({}, 1)), 1.0).problem == "not built"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_the_fewest_is_the_fewest(share):
    for most in (2, 7, 1000):
        numbers = [number for number in range(2, most + 1) if 1 - 1 / number >= share]
        assert fewest(lambda number: 1 - 1 / number, share, most) == (numbers[0] if numbers else None)
