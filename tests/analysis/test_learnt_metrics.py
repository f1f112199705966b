"""Tables and the verdict of learnt metrics against L2, from scores written by hand."""

import numpy as np
import pytest
from rows_with_scores import write_metrics, write_run

from reidlib.analysis.claims.learnt_metrics import ShownMetric, Study, description_table, verdict
from reidlib.experiments.metric_study import METRICS, MetricScores
from reidlib.experiments.setup import Runs
from reidlib.ranking.metrics import Scores

PERSONS = np.repeat(np.arange(1, 41), 2)


def scores(mean, seed=0, length=12):
    """Average precisions around a mean, the same for every mean but for it."""
    noise = 0.02 * np.random.default_rng(seed).normal(size=len(PERSONS))
    precisions = np.clip(mean + noise, 0, 1)
    result = Scores(
        cmc={1: mean}, mean_average_precision=float(precisions.mean()), mean_inp=0.1,
        num_queries=len(PERSONS), num_valid_queries=len(PERSONS),
        average_precision=precisions, first_match_rank=np.ones(len(PERSONS), int),
    )  # fmt: skip
    return MetricScores(result, 1.5, length, None)


def study(**jlml):
    of = {name: [scores(mean, 1), scores(mean, 2)] for name, mean in jlml.items()}
    lomo = {"L2": [scores(0.02)], "XQDA": [scores(0.4)]}
    return Study({"lomo": lomo, "jlml": of}, PERSONS, 2, None)


def test_a_line_for_each_feature_and_metric():
    table = study(L2=0.5, XQDA=0.6).table()
    assert table[["feature", "metric"]].values.tolist() == [
        ["LOMO", "L2"],
        ["LOMO", "XQDA"],
        ["JLML", "L2"],
        ["JLML", "XQDA"],
    ]
    last = table.iloc[-1]
    assert (last["R1"], last["directions"]) == ("60.0", "12")
    assert last["mAP − L2"].mean == pytest.approx(10) and last["mAP − L2"].seeds == 2
    assert table.iloc[0]["mAP − L2"] == "baseline"
    assert table.iloc[1]["mAP − L2"].seeds == 1


def test_changes_of_lists_are_counted_in_queries_in_the_mean_over_seeds():
    """Two seeds, four queries, the last without a match: (rank of the first match, average precision)."""

    def of(*lists):
        ranks, precisions = np.array(lists).T
        plain = scores(0.5).scores
        changed = {"average_precision": precisions, "first_match_rank": ranks.astype(int)}
        return MetricScores(plain._replace(**changed), 1.0, 12, None)

    none = (0, np.nan)
    before = of((1, 0.9), (3, 0.2), (5, 0.1), none), of((1, 0.8), (1, 0.7), (5, 0.1), none)
    after = of((2, 0.6), (1, 0.5), (1, 0.4), none), of((1, 0.8), (1, 0.9), (1, 0.3), none)
    both = Study({"jlml": {"L2": before, "NFST": after}}, np.array([1, 1, 2, 3]), 2, None)
    assert both.changes() == [
        {
            "feature": "JLML",
            "metric": "NFST",
            "first becomes right": "1.5",  # of the seeds 2 and 1
            "first becomes wrong": "0.5",  # 1 and 0
            "precision rises": "2.0",  # 2 and 2
            "precision falls": "0.5",  # 1 and 0
        }
    ]
    assert study().changes() == [
        {
            "feature": "LOMO",
            "metric": "XQDA",
            "first becomes right": "0",
            "first becomes wrong": "0",
            "precision rises": "80",
            "precision falls": "0",
        }
    ]


def test_the_verdict_is_the_ledgers(tmp_path):
    means = {"L2": 0.5, "KISSME": 0.45, "XQDA": 0.6, "CRAFT": 0.3}
    runs = [write_metrics(write_run(tmp_path, seed=seed), means=means, names=means) for seed in range(2)]
    line, headline = verdict(Runs({"jlml": tuple(runs)}, 2, profile="quick"))
    assert headline == {"generic metric": "does not hold (2 seeds)"}
    assert "**✗ does not hold**: below zero: L2 − XQDA (2 seeds)" in line and "L2 − XQDA: −10.0" in line
    without = Runs({"jlml": (write_run(tmp_path, seed=2),)}, 1, profile="quick")
    assert "runs are missing for: L2 − KISSME; L2 − XQDA; L2 − CRAFT" in verdict(without)[0]
    assert verdict(Runs({}, 1)) == ("**Not decided:** JLML is not among the features.", {})


def test_a_network_without_runs_has_a_line_and_no_difference():
    empty = study()
    assert empty.table().iloc[-1]["metric"] == "no run with weights"
    assert empty.difference("jlml", "XQDA") is None
    assert list(empty.headline()) == ["LOMO: largest of 1 metrics"]


def test_a_metric_without_scores_has_its_reason_and_the_others_stand():
    refused = study(L2=0.5, XQDA=0.6)._replace(refused={("jlml", "NFST"): "images are from two cameras"})
    lines = refused.table().set_index("metric")
    assert lines.loc["NFST: images are from two cameras", "feature"] == "JLML"
    assert lines["R1"].tolist().count("60.0") == 1


def test_what_was_told_while_learning_has_a_column_only_if_there_is_any():
    plain = study(L2=0.5, XQDA=0.6)
    assert "told while learning" not in plain.table()
    told = [
        each._replace(notes=notes)
        for each, notes in zip(plain.scores["jlml"]["XQDA"], ((), ("a ridge",)), strict=True)
    ]
    noted = plain._replace(scores={"lomo": plain.scores["lomo"], "jlml": {"L2": told, "XQDA": told}})
    assert noted.table()["told while learning"].tolist() == ["", ""] + ["a ridge (one of 1 of 2 seeds)"] * 2


def test_every_metric_is_described():
    assert [row["metric"] for row in description_table([*METRICS, "XQDA"])] == ["L2", *METRICS]


def test_what_xqda_gives_and_takes_is_said_only_where_it_is():
    shares = {"L2": {"global": 0.5, "local 1": 0.3}, "XQDA": {"global": 0.6, "local 1": 0.2}}
    shown = ShownMetric("JLML", "part", np.ones((3, 3)), np.array([1, 1, -1]), shares)
    assert shown.sentence == (
        "XQDA on JLML compares in 3 directions, of which 1 subtract. It gives most to part global (+10.0 "
        "points of the mean squared distance) and takes most from part local 1 (−10.0)."
    )
    gaining = {"L2": shares["L2"], "XQDA": {"global": 0.6, "local 1": 0.35}}
    assert shown._replace(shares=gaining).sentence.endswith("distance) and takes from none.")
