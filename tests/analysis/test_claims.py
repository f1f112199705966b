"""The claims' tests, and verdicts that follow from intervals alone."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rows_with_scores import write_metrics, write_run
from scored_runs import scores, seeds_wanted, write_scored_runs

from reidlib.analysis import ablations, claims
from reidlib.analysis.benchmark_tables import methods_table, published
from reidlib.analysis.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    NO_DIFFERENCE,
    NO_EXPERIMENT,
    UNDECIDED,
    Claim,
    Contrast,
    decide,
    outcome_of,
)
from reidlib.analysis.claims.power import power
from reidlib.analysis.scores import Cell, ExperimentScores, table_records
from reidlib.analysis.statistics import Interval, paired, variance_components
from reidlib.experiments import EXPERIMENTS
from reidlib.experiments.setup import Runs

NOTEBOOKS = {path.stem for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")}
ABOVE = Contrast("a − b", (Cell("jlml"),), (Cell("jlml-2"),))
ALSO = Contrast("a − c", (Cell("jlml"),), (Cell("jlml-6"),))


def claim(*contrasts, **keywords):
    return Claim("name", "JLML", "It helps.", "", "a above b", contrasts, **keywords)


def scores_of(folder, a, b, c=None, profile=""):
    rows = {"jlml": a, "jlml-2": b} | ({} if c is None else {"jlml-6": c})
    values = {name: [v if v is None else {"full": v} for v in vs] for name, vs in rows.items()}
    return write_scored_runs(folder, values, profile)


def test_all_claims_are_listed():
    assert [entry.name for entry in CLAIMS] == [
        "branch independence",
        "complementary branches",
        "complementary under UniLoss",
        "classification without pairs",
        "shared low-level features",
        "selective feature learning",
        "four parts",
        "generic metric",
        "small for its strength",
        "relaxed alignment",
        "dynamic training",
        "two losses",
        "complementary levels",
        "state of the art on CUHK01, JLML",
        "state of the art on CUHK03, JLML",
        "state of the art on CUHK03, Pyramid",
        "state of the art on GRID, JLML",
        "state of the art on VIPeR, JLML",
        "state of the art on Market-1501, JLML",
        "state of the art on Market-1501, Pyramid",
        "state of the art on DukeMTMC-reID, Pyramid",
    ]


@pytest.mark.parametrize("entry", CLAIMS, ids=lambda entry: entry.name)
def test_a_claim_has_contrasts_or_a_reason(entry):
    assert bool(entry.contrasts) != bool(entry.impossible)
    assert entry.notebook in NOTEBOOKS or not entry.notebook
    assert entry.test
    for cell in entry.cells:
        assert cell.experiment in EXPERIMENTS
    # JLML's tables use the official rule, Pyramid's the one of its code.
    assert entry.measure == ("mAP (trapezoid)" if entry.paper == "JLML" else "mAP (step)")


def test_four_parts_are_compared_with_all_other_counts():
    (four,) = [entry for entry in CLAIMS if entry.name == "four parts"]
    assert {cell.experiment for contrast in four.contrasts for cell in contrast.minus} == {
        "jlml-2", "jlml-6", "jlml-8", "jlml-10",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        ([0.6, 0.61, 0.62], [0.5, 0.5, 0.5], HOLDS),
        ([0.5, 0.5, 0.5], [0.6, 0.61, 0.62], FAILS),
        ([0.503, 0.503, 0.503], [0.5, 0.5, 0.5], HOLDS),  # sure, though less than half a point
        ([0.5, 0.502, 0.501], [0.5, 0.5, 0.5], NO_DIFFERENCE),  # 0.1 ± 0.25
        ([0.5, 0.508, 0.504], [0.5, 0.5, 0.5], UNDECIDED),  # 0.4 ± 0.99
        ([0.5, 0.6, 0.55], [0.5, 0.5, 0.5], UNDECIDED),
        ([0.6], [0.5], HOLDS),
        ([0.5], [0.6], FAILS),
        ([0.5], [0.5], NO_DIFFERENCE),
        ([None], [0.5], UNDECIDED),
        ([0.6, None, 0.61], [0.5, 0.5, None], HOLDS),  # one seed that both have
    ],
)
def test_the_verdict_follows_from_the_interval(tmp_path, a, b, word):
    verdict = decide(claim(ABOVE), scores_of(tmp_path, a, b))
    assert verdict.outcome == word, verdict
    (interval,) = verdict.intervals.values()
    assert ("one seed" in verdict.reason) == (interval is not None and interval.seeds == 1)
    if word == FAILS:
        assert verdict.reason.startswith("below zero: a − b (")


def test_all_intervals_have_to_be_above_zero(tmp_path):
    verdict = decide(
        claim(ABOVE, ALSO), scores_of(tmp_path, [0.6, 0.6, 0.65], [0.5, 0.5, 0.5], [0.6, 0.62, 0.58])
    )
    assert verdict.outcome == UNDECIDED
    assert "a − c" in verdict.reason
    assert "a − b" not in verdict.reason


def test_a_negligible_difference_beside_a_clear_one_makes_no_difference(tmp_path):
    verdict = decide(claim(ABOVE, ALSO), scores_of(tmp_path, [0.6], [0.5], [0.6]))
    assert verdict.outcome == NO_DIFFERENCE
    assert verdict.reason.startswith("within 0.5 points of zero: a − c (one seed")
    assert verdict.reason.endswith("); above zero: a − b")


def test_holms_correction_is_named_where_it_keeps_a_claim_from_failing(tmp_path):
    verdict = decide(
        claim(ABOVE, ALSO), scores_of(tmp_path, [0.5, 0.53, 0.48], [0.573, 0.573, 0.573], [0.4, 0.4, 0.4])
    )
    assert verdict.outcome == UNDECIDED and verdict.intervals["a − b"].high < 0
    assert verdict.reason.startswith("below zero, but not by Holm's correction: a − b (3 seeds); power")


def test_one_contrast_below_zero_is_enough(tmp_path):
    verdict = decide(claim(ABOVE, ALSO), scores_of(tmp_path, [0.5], [0.6], [None]))
    assert verdict.outcome == FAILS
    verdict = decide(claim(ABOVE, ALSO), scores_of(tmp_path / "2", [0.6], [0.5], [None]))
    assert verdict.outcome == UNDECIDED
    assert verdict.reason == "runs are missing for: a − c"


def interval(mean, error=1.0, freedom=100.0):
    half = 1.98397 * error
    return Interval(mean, mean - half, mean + half, 5, 400, error=error, freedom=freedom)


def test_holms_procedure_by_hand():
    """Of four contrasts the lowest needs a p-value below 0.025 / 4: t with 100 degrees below −2.55."""
    others = dict.fromkeys("bcd", interval(0.0))
    assert outcome_of({"a": interval(-2.5), **others}) == (UNDECIDED, ("a", "b", "c", "d"))
    assert outcome_of({"a": interval(-2.6), **others}) == (FAILS, ("a",))
    assert outcome_of({"a": interval(-2.5)}) == (FAILS, ("a",))  # alone it is enough
    # After the first, the second is tested at 0.025 / 3 (−2.44), the third at 0.025 / 2 (−2.28).
    several = {"a": interval(-2.3), "b": interval(-2.6), "c": interval(-2.5), "d": interval(0.0)}
    assert outcome_of(several) == (FAILS, ("a", "b", "c"))
    # One that is not below its limit ends it, also for those after it.
    assert outcome_of(several | {"c": interval(-2.3)}) == (FAILS, ("b",))
    # A contrast without a run is counted: it could be the one by chance.
    assert outcome_of({"a": interval(-2.5), "b": None, "c": None, "d": None}) == (UNDECIDED, ("b", "c", "d"))


def test_a_wider_level_needs_more():
    assert outcome_of({"a": interval(-2.1)}) == (FAILS, ("a",))
    assert outcome_of({"a": interval(-2.1)}, level=0.99)[0] == UNDECIDED


def test_four_true_zeros_fail_in_at_most_five_of_a_hundred():
    """Of independent differences; without correction it would be one in ten."""
    generator = np.random.default_rng(0)
    trials, failed, uncorrected = 1500, 0, 0
    for _ in range(trials):
        seed_s1 = generator.normal(0, 1, (4, 5, 1))
        values = seed_s1 + generator.normal(0, 8, (4, 5, 60)) + generator.normal(0, 5, (4, 1, 60))
        intervals = {str(number): paired(each) for number, each in enumerate(values)}
        failed += outcome_of(intervals)[0] == FAILS
        uncorrected += any(each.high < 0 for each in intervals.values())
    margin = 3 * math.sqrt(0.05 * 0.95 / trials)
    assert failed / trials <= 0.05 + margin
    assert failed / trials >= 0.01  # a test that never fails a claim would say nothing
    assert uncorrected / trials > 0.07


def test_the_power_of_an_undecided_claim_is_named(tmp_path):
    """For the paper's effect where it prints one, and for a point; for several contrasts a lower bound."""
    scores = scores_of(tmp_path, [0.5, 0.508, 0.504], [0.5, 0.5, 0.5], [0.5, 0.51, 0.49])
    pairs = scores.pairs(ABOVE.plus, ABOVE.minus, "mAP (trapezoid)")
    components = variance_components(pairs.sums_sp, pairs.queries_p)
    share = [100 * power(components, effect, *pairs.sums_sp.shape) for effect in (2.4, 1)]
    reason = decide(claim(ABOVE._replace(printed=2.4)), scores).reason
    wanted = [seeds_wanted(components, effect, pairs.sums_sp.shape[1]) for effect in (2.4, 1)]
    assert (
        f"(3 seeds); power {share[0]:.0f} % for the paper's +2.4 ({wanted[0]} seeds have 80 %), "
        f"{share[1]:.0f} % for one point ({wanted[1]} seeds have 80 %); to show no difference of half a "
        "point if there is none, " in reason
    )
    inside = decide(claim(ABOVE._replace(printed=0.1)), scores).reason
    assert "above the interval" not in inside
    outside = decide(claim(ABOVE._replace(printed=9.5)), scores).reason
    assert outside.endswith("; the paper's +9.5 is above the interval")
    both = decide(claim(*(each._replace(printed=9.5) for each in (ABOVE, ALSO))), scores).reason
    assert re.search(r"power at least \d+ % for the paper's \+9.5, \+9.5 \(", both)
    # A lower bound of zero would say nothing: then it is what the weaker contrast has.
    assert re.search(r", at most \d+ % for one point \(\d+ seeds have 80 %\); to show no", both)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("branch independence", [13.3]),
        ("shared low-level features", [2.4]),
        ("selective feature learning", [1.7]),
        ("complementary branches", [9.5, 7.7]),
        ("dynamic training", [None]),
    ],
)
def test_the_papers_effects_are_those_that_it_prints(name, printed):
    (entry,) = [entry for entry in CLAIMS if entry.name == name]
    assert [contrast.printed for contrast in entry.contrasts] == printed


def test_the_seeds_signs_stand_beside_the_interval(tmp_path):
    few = decide(claim(ABOVE), scores_of(tmp_path / "a", [0.6] * 5, [0.5] * 5))
    assert few.signs == {"a − b": None}
    assert ". A test of the seeds alone cannot speak below 6 seeds. **✓" in claims.verdict_sentence(few)
    six = decide(claim(ABOVE, ALSO), scores_of(tmp_path / "b", [0.6] * 6, [0.5] * 6, [0.7] * 5 + [0.5]))
    assert six.signs["a − b"] == 2 / 64
    assert "The seeds alone: a − b: p 0.031; a − c: p 0.219. **" in claims.verdict_sentence(six)
    one = claims.verdict_sentence(decide(claim(ABOVE), scores_of(tmp_path / "c", [0.6], [0.5])))
    assert "seeds alone" not in one


def test_chosen_seeds_alone_are_used(tmp_path):
    scores = scores_of(tmp_path, [0.6, 0.5, 0.6], [0.5, 0.6, 0.5])
    assert decide(claim(ABOVE), scores, seeds=(0,)).outcome == HOLDS
    assert decide(claim(ABOVE), scores, seeds=(1,)).outcome == FAILS
    assert decide(claim(ABOVE), scores, seeds=(7,)).reason == "runs are missing for: a − b"
    (interval,) = decide(claim(ABOVE), scores, seeds=(0, 2)).intervals.values()
    assert (interval.seeds, interval.requested) == (2, 2)


def test_the_fewest_seeds_of_all_contrasts_are_named(tmp_path):
    partial = scores_of(tmp_path, [0.6, 0.6, 0.6], [0.5, 0.5, 0.5], [0.5, None, None])
    assert "one seed" in decide(claim(ABOVE, ALSO), partial).reason


def test_a_claim_without_contrasts_has_no_experiment(tmp_path):
    verdict = decide(claim(impossible="no metric yet"), scores_of(tmp_path, [0.6], [0.5]))
    assert (verdict.outcome, verdict.reason) == (NO_EXPERIMENT, "no metric yet")
    assert claims.verdict_sentence(verdict).endswith("Test: a above b. **– no experiment**: no metric yet.")


def test_a_smoke_run_decides_nothing(tmp_path):
    assert decide(claim(ABOVE), scores_of(tmp_path, [0.6], [0.5], profile="smoke")).outcome == UNDECIDED


def test_two_seeds_are_too_few_to_be_sure(tmp_path):
    verdict = decide(claim(ABOVE), scores_of(tmp_path, [0.6, 0.55], [0.5, 0.5]))
    assert verdict.outcome == UNDECIDED


def test_the_sentence_of_a_missing_run_has_no_number(tmp_path):
    missing = claims.verdict_sentence(decide(claim(ABOVE), scores_of(tmp_path, [None], [0.5])))
    assert "a − b: missing" in missing
    assert "? undecided here" in missing
    assert not re.search(r"[+−]\d", missing)


def test_the_ledger_has_a_row_for_each_claim(tmp_path):
    everything = {
        name: [{"full": 0.6, "global": 0.5, "local": 0.5}] for name in claims.required_experiments()[0]
    }
    everywhere = write_scored_runs(tmp_path, everything)
    verdicts = [decide(entry, everywhere) for entry in CLAIMS]
    rows = table_records(claims.ledger({"one": verdicts}))
    assert [row["claim"] for row in rows] == [f"{entry.paper}: {entry.statement}" for entry in CLAIMS]
    by_name = {verdict.claim.name: verdict.outcome for verdict in verdicts}
    assert by_name["complementary branches"] == HOLDS
    assert by_name["relaxed alignment"] == UNDECIDED  # its perturbations were not evaluated
    (relaxed,) = [row for row in rows if "exact bounding boxes" in row["claim"]]
    assert "missing" in relaxed["measured (points, 95 %)"]
    assert {by_name[entry.name] for entry in CLAIMS if entry.impossible} == {NO_EXPERIMENT}
    intervals, ends = claims.forest(verdicts)
    assert len(intervals) == sum(len(entry.contrasts) for entry in CLAIMS)
    assert ends == sorted(ends)
    assert ends[-1] < len(intervals)


def test_a_ledger_of_two_benchmarks_has_columns_of_each(tmp_path):
    names, _ = claims.required_experiments()
    rendered = write_scored_runs(tmp_path / "a", {name: [{"full": 0.6, "local": 0.4}] for name in names})
    photographs = write_scored_runs(tmp_path / "b", {name: [{"full": 0.5, "local": 0.3}] for name in names})
    photographs = ExperimentScores(replace(photographs.runs, benchmark="market1501,validation=true"))
    sets = {
        name: [decide(entry, scores) for entry in CLAIMS]
        for name, scores in (("rendered", rendered), ("photographs", photographs))
    }
    rows = {row["claim"]: row for row in table_records(claims.ledger(sets))}
    assert list(next(iter(rows.values()))) == [
        "claim", "decided by", "measured (points, 95 %), rendered", "verdict, rendered",
        "measured (points, 95 %), photographs", "verdict, photographs", "notebook",
    ]  # fmt: skip
    boxes = next(row for claim, row in rows.items() if "exact bounding boxes" in claim)
    assert boxes["verdict, photographs"].startswith("– no experiment: boxes can be made worse")
    assert "missing" in boxes["measured (points, 95 %), rendered"]
    small = next(row for claim, row in rows.items() if "small for its strength" in claim)
    assert (small["verdict, photographs"], small["verdict, rendered"][:16]) == (
        "– no experiment",
        "– no experiment:",
    )
    metric = next(row for claim, row in rows.items() if "generic L2 metric" in claim)
    assert metric["verdict, photographs"].startswith("? undecided here: runs are missing for: L2 − KISSME")


def test_required_experiments():
    names, perturbations = claims.required_experiments()
    assert set(names) >= {"jlml", "jlml-10", "pyramid", "pyramid-off", "pyramid-stripes-same-rate"}
    stripes = {"pyramid-stripes", "pyramid-stripes-same-rate"}
    assert set(perturbations) == {"pyramid", "pyramid-global", *stripes}
    assert {perturbation.factor for perturbation in perturbations["pyramid"]} == {
        "box_jitter",
        "box_scale_error",
    }
    assert claims.claims_of_notebook("33_ablation_part_counts")[0].name == "four parts"
    assert claims.required_metrics() == {"jlml": ("KISSME", "XQDA", "CRAFT")}


def test_l2_suffices_if_it_is_above_each_learnt_metric(tmp_path):
    (entry,) = [entry for entry in CLAIMS if entry.name == "generic metric"]
    assert [contrast.printed for contrast in entry.contrasts] == [4.1, 2.3, 9.1]

    def verdict(place, **means):
        runs = tuple(
            write_metrics(
                write_run(tmp_path / place, seed=seed), means={"L2": 0.5, **means}, names=("L2", *means)
            )
            for seed in range(3)
        )
        return decide(entry, ExperimentScores(Runs({"jlml": runs}, 3, profile="quick")))

    assert verdict("a", KISSME=0.4, XQDA=0.3, CRAFT=0.2).outcome == HOLDS
    worse = verdict("b", KISSME=0.4, XQDA=0.6, CRAFT=0.2)
    assert (worse.outcome, worse.reason) == (FAILS, "below zero: L2 − XQDA (3 seeds)")
    assert worse.intervals["L2 − CRAFT"].mean == pytest.approx(30)
    few = verdict("c", KISSME=0.4)
    assert (few.outcome, few.reason) == (UNDECIDED, "runs are missing for: L2 − XQDA; L2 − CRAFT")


def test_relaxed_alignment_is_a_smaller_loss(tmp_path):
    """Pyramid 60 → 50, stripes 70 → 40, whole body 30 → 20: points against stripes, shares against both."""
    (entry,) = [entry for entry in CLAIMS if entry.name == "relaxed alignment"]
    assert all(cell.perturbation for cell in entry.cells)  # before and after on the same images
    values = {"pyramid": (0.6, 0.5), "pyramid-global": (0.3, 0.2)}
    values |= dict.fromkeys(("pyramid-stripes", "pyramid-stripes-same-rate"), (0.7, 0.4))
    both = write_scored_runs(tmp_path, {name: [{"full": 0.9}] for name in values})
    for cell in {cell for cell in entry.cells if cell.perturbation}:
        assert both.branch_scores(cell) == [None]
        value = values[cell.experiment][0 if cell.perturbation.is_default else 1]
        both._scores[cell] = [scores({"full": value})["branches"]["full"]]
    verdict = decide(entry, both)
    assert verdict.outcome == HOLDS
    kept = 100 * (5 / 6 - 4 / 7), 100 * (5 / 6 - 2 / 3)
    assert [interval.mean for interval in verdict.intervals.values()] == pytest.approx(
        [20] * 4 + [kept[0]] * 4 + [kept[1]] * 2
    )
    assert [contrast.relative for contrast in entry.contrasts] == [False] * 4 + [True] * 6


def test_labels_of_part_counts_come_from_the_ablation():
    assert ablations.PART_COUNTS.cells["10 parts"].experiment == "jlml-10"


def test_no_decidable_claim_was_written_before_all_results():
    """Notebooks 00 and 90 say so in words."""
    assert all(claim.known_results for claim in CLAIMS if claim.contrasts)
    assert [*claims.claim_table().iloc[:, -1]].count(NO_EXPERIMENT) == sum(not c.contrasts for c in CLAIMS)
    # A claim holds or fails by chance in 2.5 of 100 cases each: about one wrong verdict in two ledgers.
    assert 0.05 * sum(bool(claim.contrasts) for claim in CLAIMS) == pytest.approx(0.5, abs=0.06)


def test_what_is_said_of_the_printed_tables_is_so():
    state = {entry.name: entry.impossible for entry in CLAIMS if "state of the art" in entry.name}
    assert state["state of the art on CUHK01, JLML"].endswith(
        "not the best of every column: X-Corr 89.7 against 88.4 (R5, 485/486 identities, single-shot), "
        "X-Corr 97.3 against 97.2 (R5, 871/100 identities, single-shot)"
    )
    for name in ("CUHK03", "GRID", "Market-1501"):
        assert state[f"state of the art on {name}, JLML"].endswith("no method is above JLML in any column")
    for name in ("CUHK03, Pyramid", "VIPeR, JLML", "DukeMTMC-reID, Pyramid"):
        assert state[f"state of the art on {name}"].endswith("no other method's row is at hand")
    built = methods_table().set_index("method")["built here"]
    methods = {method for method, text in built.items() if "; not " in text or text == "not built here"}
    assert methods == set(published("methods")["method"]) - {"JLML", "XQDA", "GOG"}
