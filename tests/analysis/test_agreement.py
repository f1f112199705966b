"""Differences on two benchmarks: which are compared, their rank correlation, and the sentences."""

import numpy as np
import pytest
from rows_with_scores import write_run
from scipy.stats import spearmanr
from scored_runs import write_scored_runs

from reidlib.analysis import Cell, claims
from reidlib.analysis.claims.agreement import Difference
from reidlib.analysis.statistics import Interval
from reidlib.experiments import evidence
from reidlib.experiments.evidence import Evidence


def interval(mean, half=0.5):
    return Interval(mean, mean - half, mean + half, 3, 60)


def pairs(values):
    return [Difference(f"row {n}", "JLML", interval(x), interval(y)) for n, (x, y) in enumerate(values)]


def test_every_row_is_compared_with_its_baseline_where_both_benchmarks_have_runs(tmp_path):
    rows = {"jlml": 0.6, "jlml-2": 0.5, "jlml-6": 0.65, "pyramid": 0.8, "pyramid-off": 0.75}
    here = {name: [{"full": value, "global": value - 0.1}] for name, value in rows.items()}
    there = {name: [{"full": value - 0.2, "global": value - 0.1}] for name, value in rows.items()}
    there["jlml-2"] = [None]
    here["jlml-8"] = [{"full": 0.7}]
    first, second = write_scored_runs(tmp_path / "a", here), write_scored_runs(tmp_path / "b", there)
    compared = claims.agreement(first, second)
    assert [pair.label for pair in compared] == ["6 parts − 4 parts", "losses: our reading − plain sum"]
    assert [(round(pair.first.mean, 6), round(pair.second.mean, 6)) for pair in compared] == [(5, 5), (5, 5)]
    assert [pair.paper for pair in compared] == ["JLML", "Pyramid"]
    both = claims.agreement(first, first)
    assert len({pair.label for pair in both}) == len(both)  # a pair of rows in two tables is compared once
    table = claims.agreement_table(compared, "rendered people", "photographs")
    assert list(table) == ["number", "difference in mAP (points, 95 %)", "rendered people", "photographs"]


def test_rank_correlation_and_signs():
    values = [(5, 4), (3, 6), (-4, -1), (0.2, 3), (-8, 2), (1, 1.5)]
    rated = claims.rate_agreement(pairs(values))
    assert rated.correlation == pytest.approx(spearmanr(*np.array(values).T).statistic)
    assert rated.low < rated.correlation < rated.high
    assert (rated.count, rated.clear, rated.same_sign) == (6, 5, 4)  # one is not clear, one has another sign
    assert rated == claims.rate_agreement(pairs(values))  # repeatable
    sentence = rated.sentence("rendered people", "photographs")
    assert sentence.startswith(
        "6 differences to a baseline are measured on rendered people and photographs; "
    )
    assert "on 5 of them both intervals exclude zero, and 4 of these have the same sign" in sentence


def test_small_differences_are_rated_by_themselves():
    large = [(20, 15), (-30, -12), (12, 9), (-15, -11)]
    small = [(1, -1.1), (2, -2.1), (3, -3.1), (-1, 1.3), (-2, 2.2)]  # the opposite of each other
    rated = claims.rate_agreement(pairs(large + small))
    assert rated.correlation > 0.5 and rated.small == claims.rate_agreement(pairs(small))
    assert rated.small.correlation == pytest.approx(-1)
    assert (rated.small.clear, rated.small.same_sign) == (5, 0)
    sentence = rated.sentence("rendered people", "photographs")
    assert "of the 5 below 5 points on rendered people it is **−1.00 [−1.00, −1.00]**; on 5" in sentence
    assert "the true uncertainty is larger" in sentence and "one seed" not in sentence
    assert "below" not in rated.small.sentence("a", "b")


def test_intervals_of_one_seed_are_told():
    differences = pairs([(1, 2), (3, 4)])
    differences[0] = differences[0]._replace(second=Interval(2, 1.5, 2.5, 1, 60, 3))
    assert "(1 have one seed on one of the two" in claims.rate_agreement(differences).sentence("a", "b")


def test_resampled_rows_that_are_equal_have_no_order():
    rated = claims.rate_agreement(pairs([(1, 1), (1, 1), (1, 1), (1, 1), (2, 2)]))
    assert rated.correlation == pytest.approx(1) and 0 <= rated.low <= rated.high <= 1.0001


def test_few_differences_have_no_correlation():
    few = claims.rate_agreement(pairs([(1, 2), (3, -4)]))
    assert few.correlation is None and few.sentence("a", "b").endswith("Too few for a rank correlation.")
    assert claims.rate_agreement([]).sentence("a", "b") == "No difference is measured on both a and b yet."


def test_equal_differences_have_no_correlation():
    rated = claims.rate_agreement(pairs([(1, 2)] * 6))
    assert rated.correlation is None and "Too few" not in rated.sentence("a", "b")


def test_scores_stand_beside_each_other(tmp_path):
    first = write_scored_runs(tmp_path / "a", {"jlml": [{"full": 0.6}, {"full": 0.5}]})
    second = write_scored_runs(tmp_path / "b", {"jlml": [{"full": 0.3}, None], "pyramid": [None, None]})
    sets = {"rendered people": first, "photographs": second}
    table = claims.scores_beside(sets, [Cell("jlml"), Cell("pyramid")], ("mAP (step)",))
    assert table["mAP (step), rendered people"].tolist()[0].startswith("55.0 [")
    assert table["mAP (step), photographs"].tolist() == ["30.0 [30.0, 30.0] (1 of 2 seeds)", None]


def test_the_scores_that_open_a_report_name_set_protocol_seeds_and_command(tmp_path):
    for seed in (0, 3):
        evidence.add(write_run(tmp_path / "runs", "jlml", seed).folder, tmp_path / "evidence")
    evidence.add(write_run(tmp_path / "runs", "pyramid", 0).folder, tmp_path / "evidence")
    kept = Evidence.read("quick", "market1501,validation=true", tmp_path / "evidence")
    content = claims.photographs(kept, ["jlml", "jlml-2", "pyramid"])
    assert [(row["row"], row["feature"], row["seeds"]) for row in content["rows"]] == [
        ("jlml", "full", "0, 3"), ("jlml", "global", "0, 3"), ("jlml", "local", "0, 3"),
        ("pyramid", "full", "0"),
    ]  # fmt: skip
    assert all("[" in row["R1"] for row in content["rows"])
    for words in (
        "market1501,validation=true",
        "is a query, the others are the gallery",
        "`reidlib train ROW --profile quick",
        "95 % interval",
        "not the benchmark's own test",
    ):
        assert words in content["about"], words
