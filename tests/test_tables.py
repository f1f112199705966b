"""Rows of score tables, counted by hand."""

import json
import math

import numpy as np
import pytest

from reidlib.errors import InputError
from reidlib.runs import Run
from reidlib.tables import (
    MEASURES,
    Spread,
    batch_rows,
    differences,
    score_rows,
    spreads,
    trace,
    triplet_in_use,
)


def scored(rank1, step, trapezoid=0.5, inp=0.25):
    cmc = {"1": rank1, "5": 0.75, "10": 0.8, "20": 0.9}
    return {
        "step": {"cmc": cmc, "mean_average_precision": step, "mean_inp": inp},
        "trapezoid": {"cmc": cmc, "mean_average_precision": trapezoid, "mean_inp": inp},
    }


GROUPS = {"plain": [scored(0.5, 0.4), scored(0.7, 0.4)], "better": [scored(0.6, 0.3), scored(0.84, 0.32)]}


def written(folder, history, **steps):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"steps": 4}))
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    if steps:
        np.savez(
            folder / "steps.npz", **{name: np.array(values, np.float32) for name, values in steps.items()}
        )
    return Run(folder)


def test_each_measure_is_read_off_its_own_place():
    (row,) = score_rows({"all": [scored(0.5, 0.4, trapezoid=0.45, inp=0.3)]})
    values = ("50.0", "75.0", "80.0", "90.0", "40.0", "45.0", "30.0")
    assert row == {"feature": "all", **dict(zip(MEASURES, values, strict=True))}


def test_means_and_sample_deviations_over_seeds():
    cells = spreads(GROUPS, ("R1",))["plain"]["R1"]
    assert cells.mean == pytest.approx(60)
    assert cells.deviation == pytest.approx(20 / math.sqrt(2))  # of 50 and 70
    assert score_rows(GROUPS, measures=("R1",))[0] == {"feature": "plain", "R1": "60.0 ± 14.1"}


def test_differences_pair_the_seeds():
    gain = differences(GROUPS, "plain", ("R1", "mAP (step)"))
    assert gain.keys() == {"better"}
    assert gain["better"]["R1"].mean == pytest.approx(12)
    assert gain["better"]["R1"].deviation == pytest.approx(
        4 / math.sqrt(2)
    )  # of +10 and +14, not of 60 and 84
    assert gain["better"]["mAP (step)"].signed == "−9.0 ± 1.4"


def test_the_baseline_has_no_difference():
    plain, better = score_rows(
        GROUPS, heading="training", measures=("R1",), baseline="plain", compared=("R1",)
    )
    assert plain == {"training": "plain", "R1": "60.0 ± 14.1", "Δ R1": "baseline"}
    assert better == {"training": "better", "R1": "72.0 ± 17.0", "Δ R1": "+12.0 ± 2.8"}


@pytest.mark.parametrize(
    ("value", "text"), [(3.25, "+3.2"), (-0.04, "0.0"), (0.04, "0.0"), (-1.26, "−1.3"), (math.nan, "–")]
)
def test_a_difference_has_a_sign_unless_it_is_nought(value, text):
    assert Spread(value).signed == text


def test_a_score_without_any_match_is_a_dash():
    lost = scored(0.5, None)
    assert score_rows({"all": [lost]}, measures=("mAP (step)",)) == [{"feature": "all", "mAP (step)": "–"}]


def test_evidence_needs_seeds_and_size():
    assert "one seed" in Spread(9.0).evidence(1)
    assert "two seeds" in Spread(9.0, 0.0).evidence(2)  # two alike by chance are no proof
    assert Spread(2.0, 1.9).evidence(4).startswith("more than")  # 2 > 2 · 1.9 / 2
    assert Spread(2.0, 2.1).evidence(4).startswith("not more than")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: spreads(GROUPS, ("R2",)), "a measure is one of R1, .*'R2'"),
        (lambda: spreads({"plain": []}), "one seed at least.*'plain'"),
        (lambda: differences(GROUPS, "none"), "baseline is one of the rows.*'none'"),
        (lambda: differences({**GROUPS, "one": GROUPS["plain"][:1]}, "plain"), "same seeds.*'one': 1"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_how_often_batches_were_balanced_and_triplets_used(tmp_path):
    balanced = written(
        tmp_path / "paper",
        [{"epoch": 1, "step": 4, "identity": 2.0, "accuracy": 0.5}],
        identity=[4, 3, 2, 1],
        triplet=[2, math.nan, 2, 1],
        weight_identity=[1, 1, 1, 1],
        weight_triplet=[
            1,
            math.nan,
            0,
            0.5,
        ],  # a random batch, and a balanced one whose triplet weighs nothing
        balanced_batches=[1, 0, 1, 1],
    )
    alone = written(
        tmp_path / "identity",
        [{"epoch": 1, "step": 4, "identity": 3.5, "accuracy": 0.5}],
        identity=[5, 4, 3, 2],
        balanced_batches=[0, 0, 0, 0],
    )
    assert trace(balanced)["step"].tolist() == [1, 2, 3, 4]
    assert triplet_in_use(trace(balanced)).tolist() == [1, 0, 0, 1]
    assert trace(alone)["step"].tolist() == [1, 2, 3, 4]
    assert trace(alone)["identity"].tolist() == [5, 4, 3, 2]
    assert batch_rows({"paper": [balanced], "alone": [alone]}, heading="mode") == [
        {"mode": "paper", "steps": "4", "balanced batches": "75.0", "triplet loss in use": "50.0"},
        {"mode": "alone", "steps": "4", "balanced batches": "0.0", "triplet loss in use": "0.0"},
    ]
