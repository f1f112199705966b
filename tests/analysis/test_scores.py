"""Score tables and differences against values computed by hand."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest

from reidlib.analysis.ablations.traces import batch_table, trace, triplet_in_use
from reidlib.analysis.scores import (
    SINGLE_QUERY,
    Cell,
    ExperimentScores,
    style_table,
    table_records,
)
from reidlib.errors import InputError
from reidlib.experiments.setup import MissingRun, Runs
from reidlib.training.runs import Run


class Scored(Run):
    """A run whose one branch has these scores."""

    def __init__(self, branch):
        self.__dict__["branch"] = branch

    @property
    def scores(self):
        return {"branches": {"full": self.branch}, "query_person_ids": self.branch.get("persons")}


def of(groups):
    """Label -> of each seed the scores, None for a missing run; and the rows by the same labels."""
    runs = {
        name: tuple(MissingRun("lost") if one is None else Scored(one) for one in seeds)
        for name, seeds in groups.items()
    }
    return ExperimentScores(Runs(runs, max(map(len, groups.values())))), {name: Cell(name) for name in groups}


def score_rows(groups, *arguments, **keywords):
    scores, cells = of(groups)
    return table_records(scores.table(cells, *arguments, **keywords))


def difference(plus, minus, measure):
    """Of rows given by their scores."""
    scores, cells = of(dict(enumerate([*plus, *minus])))
    cells = list(cells.values())
    return scores.difference(cells[: len(plus)], cells[len(plus) :], measure)


def differences(groups, baseline, measures):
    scores, cells = of(groups)
    return scores.differences(cells, baseline, measures)


def scored(rank1, step, trapezoid=0.5, inp=0.25, first=(1, 2, 1, 0), precision=(1.0, 0.5, 0.25, None)):
    cmc = {"1": rank1, "5": 0.75, "10": 0.8, "20": 0.9}
    queries = {"first_match_rank": list(first), "average_precision": list(precision)}
    return {
        "step": {"cmc": cmc, "mean_average_precision": step, "mean_inp": inp, **queries},
        "trapezoid": {"cmc": cmc, "mean_average_precision": trapezoid, "mean_inp": inp, **queries},
        "persons": [1, 1, 2, 3],
    }


def pooled(rank1, precision):
    scores = {"cmc": {"1": rank1}, "mean_average_precision": precision}
    return {how: {"step": scores, "trapezoid": scores} for how in ("mean", "max")}


GROUPS = {"plain": [scored(0.5, 0.4), scored(0.7, 0.4)], "better": [scored(0.6, 0.3), scored(0.84, 0.32)]}


def run_with_history(folder, history, **steps):
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"steps": 4}))
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
    if steps:
        np.savez(
            folder / "steps.npz", **{name: np.array(values, np.float32) for name, values in steps.items()}
        )
    return Run(folder)


def test_each_measure_has_its_own_key_path():
    (row,) = score_rows({"all": [scored(0.5, 0.4, trapezoid=0.45, inp=0.3)]})
    values = ("50.0", "75.0", "80.0", "90.0", "40.0", "45.0", "30.0")
    assert row == {"feature": "all", **dict(zip(SINGLE_QUERY, values, strict=True))}


def test_multi_query_columns_appear_only_with_scores():
    measures = ("R1", "MQ R1", "MQ mAP (trapezoid)", "MQ (max) R1")
    without = {"one": [scored(0.5, 0.4)]}
    assert score_rows(without, measures=measures) == [{"feature": "one", "R1": "50.0"}]
    one, two = score_rows(
        {**without, "two": [{**scored(0.5, 0.4), "multi_query": pooled(0.75, 0.625)}]}, measures=measures
    )
    assert one == {"feature": "one", "R1": "50.0", **dict.fromkeys(measures[1:], "–")}
    assert two == {
        "feature": "two",
        "R1": "50.0",
        **dict(zip(measures[1:], ("75.0", "62.5", "75.0"), strict=True)),
    }


def test_means_and_intervals_over_seeds():
    scores, cells = of(GROUPS)
    spread = scores.spreads(cells, ("R1",)).at["plain", "R1"]
    assert spread.mean == pytest.approx(60)
    # Of 50 and 70: deviation 14.14, divided by √2, times Student's t with one degree of freedom.
    assert spread.half_width == pytest.approx(12.7062 * 10, rel=1e-4)
    assert score_rows(GROUPS, measures=("R1",))[0] == {"feature": "plain", "R1": "60.0 ± 127.1"}


def test_a_missing_run_is_marked():
    groups = {"none": [None, None], "half": [None, scored(0.7, 0.4)], "both": GROUPS["plain"]}
    table = score_rows(groups, measures=("R1",), baseline="both", compared=("R1",))
    assert [row["R1"] for row in table] == ["missing", "70.0 (1 of 2 seeds)", "60.0 ± 127.1"]
    assert table[0]["Δ R1"] == "missing"
    # Paired over the seed that both have, which differ in no query.
    assert table[1]["Δ R1"] == "0.0 [0.0, 0.0] (1 of 2 seeds)"
    assert table[2]["Δ R1"] == "baseline"


def test_a_difference_is_paired_query_by_query():
    base = [scored(0, 0, first=(1, 2, 2, 0), precision=(0.5, 0.5, 0.5, None))]
    more = [scored(0, 0, first=(1, 1, 2, 0), precision=(0.6, 0.8, 0.4, None))]
    table = differences({"base": base, "more": more}, "base", ("R1", "mAP (step)"))
    assert list(table.index) == ["more"]
    assert table.at["more", "R1"].mean == pytest.approx(100 / 3)  # one of the three queries with a match
    assert table.at["more", "R1"].queries == 3
    assert table.at["more", "mAP (step)"].mean == pytest.approx(10)
    # Two persons, with the sums +40 of two queries and −10 of one: their deviations from 10 a query are ±20,
    # with a variance of 800. The standard error of the sum is √(2 · 800), of the mean a third of it.
    interval = table.at["more", "mAP (step)"]
    assert interval.high - 10 == pytest.approx(12.7062 * 40 / 3, rel=1e-5)
    assert interval.low == pytest.approx(20 - interval.high)


def test_the_share_of_a_score_that_two_networks_keep():
    """50 → 25 keeps half, 80 → 60 three quarters; deviations are those of the ratios' linearisation."""
    rows = {
        "a": (0.2, 0.2, 0.2, 0.4),
        "b": (0.4, 0.5, 0.5, 0.6),
        "c": (0.6, 0.6, 0.6, 0.6),
        "d": (0.8, 0.8, 0.8, 0.8),
    }
    branches = {name: scored(0, 0, first=(1, 1, 1, 1), precision=values) for name, values in rows.items()}
    scores, cells = of({name: [branch | {"persons": [1, 2, 2, 3]}] * 3 for name, branch in branches.items()})
    pairs = scores.kept_pairs([cells["a"], cells["b"]], [cells["c"], cells["d"]], "mAP (step)")
    interval = pairs.interval()
    assert interval.mean == pytest.approx(100 * (0.5 - 0.75))
    # Person by person: (worse − ½ · usual) / ½, per cent: 0, two of −10, +20; the other network's are zero.
    deviations = np.array([0, -20, 20])
    assert interval.error == pytest.approx(math.sqrt((deviations**2).sum() / 2 * 3) / 4)
    assert pairs.seeds == (0, 1, 2)


def test_shares_of_some_seeds_do_not_know_the_other_seeds():
    """Not even the ratio at which they are linearised: a look has only its own seeds."""
    generator = np.random.default_rng(0)
    rows = {
        name: [scored(0, 0, precision=(*generator.uniform(0.2, 0.9, 3), None)) for _ in range(4)]
        for name in "abcd"
    }
    scores, cells = of(rows)
    first, cells_of_first = of({name: row[:2] for name, row in rows.items()})
    pairs, alone = (
        each.kept_pairs([of_each["a"], of_each["b"]], [of_each["c"], of_each["d"]], "mAP (step)")
        for each, of_each in ((scores, cells), (first, cells_of_first))
    )
    assert pairs.of(range(2)).interval() == pytest.approx(alone.interval())
    assert pairs.of([]).seeds == ()
    assert np.abs(pairs.sums_sp[:2] - alone.sums_sp).max() > 0.1  # of all four seeds they are others


def test_a_share_of_nothing_is_refused():
    nothing = [scored(0, 0, precision=(0.0, 0.0, 0.0, 0.0))]
    scores, cells = of({"a": nothing})
    with pytest.raises(InputError, match="a share is of a score above zero"):
        scores.kept_pairs([cells["a"]] * 2, [cells["a"]] * 2, "mAP (step)")


def test_seeds_that_a_row_lacks_are_left_out_by_number():
    scores, cells = of({"a": [scored(0.5, 0.4)] * 4, "b": [None, scored(0.5, 0.4), None, scored(0.5, 0.4)]})
    assert scores.pairs([cells["a"]], [cells["b"]], "R1").seeds == (1, 3)
    assert scores.difference([cells["a"]], [cells["b"]], "R1").requested == 4


def test_a_difference_of_differences_needs_all_four_rows():
    rows = [[scored(0, 0, precision=(value, value, value, None))] for value in (0.9, 0.5, 0.6, 0.4)]
    interval = difference([rows[0], rows[3]], [rows[1], rows[2]], "mAP (step)")
    assert interval.mean == pytest.approx(100 * (0.9 + 0.4 - 0.5 - 0.6))
    assert difference([rows[0], [None]], [rows[1], rows[2]], "mAP (step)") is None


def test_without_person_ids_queries_are_resampled_one_by_one():
    first, second = ({k: v for k, v in scored(0, 0).items() if k != "persons"} for _ in range(2))
    assert difference([[first]], [[second]], "R1").queries == 3


def test_a_score_without_any_match_is_a_dash():
    no_match = scored(0.5, None)
    assert score_rows({"all": [no_match]}, measures=("mAP (step)",)) == [
        {"feature": "all", "mAP (step)": "–"}
    ]


def test_the_tidy_table_has_a_line_for_each_available_score():
    scores, cells = of({"half": [None, scored(0.7, 0.4)]})
    table = scores.tidy(cells, ("R1", "mAP (step)", "MQ R1"))
    cell = ["experiment", "branch", "perturbation", "metric"]
    assert list(table.columns) == ["row", *cell, "seed", "measure", "value"]
    assert table["value"].tolist()[:2] == pytest.approx([70, 40])
    assert math.isnan(table["value"][2])
    assert table["seed"].tolist() == [1, 1, 1]


def test_a_protocols_ranks_replace_the_default_ones():
    branch = {**scored(0.5, 0.4), "protocols": {"single-shot": {"cmc": {"1": 0.25}}}}
    runs = Runs({"a": (Scored(branch),)}, 1)
    assert ExperimentScores(runs, "single-shot").spreads({"a": Cell("a")}, ("R1",)).at["a", "R1"].mean == 25


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: score_rows(GROUPS, ("R2",)), "a measure is one of R1, .*'R2'"),
        (lambda: score_rows({"plain": []}), "at least one.*0 seeds"),
        (lambda: differences(GROUPS, "none", ("R1",)), "baseline is one of the rows.*'none'"),
        (lambda: differences(GROUPS, "plain", ("mINP",)), "a value for each query.*mINP"),
        (
            lambda: differences({**GROUPS, "one": GROUPS["plain"][:1]}, "plain", ("R1",)),
            "same seeds.*2, 2, 1 seeds",
        ),
        (
            lambda: difference([[scored(0, 0)]], [[scored(0, 0, first=(1,))]], "R1"),
            "same queries.*4, 1 queries",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_how_often_batches_were_balanced_and_triplets_used(tmp_path):
    balanced = run_with_history(
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
        focal_identity=[0, 1, 1, 2],
        focal_triplet=[1, 2, 0, 1],
        balanced_batches=[1, 0, 1, 1],
    )
    alone = run_with_history(
        tmp_path / "identity",
        [{"epoch": 1, "step": 4, "identity": 3.5, "accuracy": 0.5}],
        identity=[5, 4, 3, 2],
        balanced_batches=[0, 0, 0, 0],
    )
    assert trace(balanced)["step"].tolist() == [1, 2, 3, 4]
    assert triplet_in_use(trace(balanced)).tolist() == [1, 0, 0, 1]
    assert trace(alone)["step"].tolist() == [1, 2, 3, 4]
    assert trace(alone)["identity"].tolist() == [5, 4, 3, 2]
    columns = [
        "balanced batches",
        "triplet loss in use",
        "its mean weight",
        "weight exactly 1",
        "ratio above 1",
    ]
    # Two steps use the triplet loss, with weights 1 and 0.5; one of three balanced ones has a ratio above 1.
    assert table_records(
        batch_table({"paper": [balanced], "alone": [None, alone], "lost": [None]}, heading="mode")
    ) == [
        {"mode": "paper", "steps": "4"}
        | dict(zip(columns, ("75.0", "50.0", "75.0", "50.0", "33.3"), strict=True)),
        {"mode": "alone", "steps": "4"} | dict(zip(columns, ("0.0", "0.0", "–", "–", "–"), strict=True)),
        {"mode": "lost", "steps": "missing"} | dict.fromkeys(columns, "missing"),
    ]


def test_texts_of_a_table_are_on_the_left():
    rows = [{"name": "global", "R1": "50.0"}, {"name": "local", "R1": None, "note": "less"}]
    page = style_table(rows).to_html(uuid="t")
    left = re.findall(r"#T_t ([^{]+?) *\{\s*text-align: left", page)
    assert "th.col0" in left and "th.col2" in left and "th.col1" not in left
    assert table_records(pd.DataFrame(rows))[0]["name"] == "global"
