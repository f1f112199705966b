"""Score drops under worse boxes, from hand-written scores."""

import pytest
from scored_runs import scores, write_scored_runs

from reidlib.analysis import misalignment
from reidlib.analysis.scores import Cell, style_table, table_records
from reidlib.experiments.rows import PERTURBATIONS, Perturbation

NETWORKS = {"Pyramid": Cell("pyramid"), "JLML": Cell("jlml")}


@pytest.fixture
def perturbed_scores(tmp_path):
    """Pyramid falls from 80 by 10 points a value, JLML from 60 by 5; one value is missing."""
    scored_runs = write_scored_runs(tmp_path, {"pyramid": [{"full": 0.8}], "jlml": [{"full": 0.6}]})
    for factor, values in PERTURBATIONS.items():
        for place, value in enumerate(values):
            for name, best, step in (("pyramid", 0.8, 0.1), ("jlml", 0.6, 0.05)):
                cell = Cell(name, perturbation=Perturbation(factor, value))
                scored_runs._scores[cell] = [scores({"full": best - step * (place - 1)})["branches"]["full"]]
    lost = Perturbation("occlusion_share", PERTURBATIONS["occlusion_share"][-1])
    scored_runs._scores[Cell("jlml", perturbation=lost)] = [None]
    return scored_runs


def test_every_factor_has_a_meaning_and_its_usual_value_among_those_tested():
    assert misalignment.FACTOR_MEANINGS.keys() == PERTURBATIONS.keys()
    for factor, values in PERTURBATIONS.items():
        assert misalignment.default_value(factor) in values[1:-1]
        assert list(values) == sorted(values)
    assert table_records(misalignment.factor_table())[0] == {
        "factor": "box jitter",
        "means": "shift of the box, in box heights (std. dev.)",
        "usual": "0.06",
        "tested": "0, 0.06, 0.12, 0.24",
    }


def test_scores_of_another_benchmark_are_missing(tmp_path):
    """Its ordinary scores are not those at a value of the renderer's factor."""
    scored_runs = write_scored_runs(tmp_path, {"pyramid": [{"full": 0.8}], "jlml": [{"full": 0.6}]})
    rows = table_records(misalignment.perturbation_table(NETWORKS, scored_runs))
    assert {row["JLML: R1"] for row in rows} == {"missing"}


def test_there_is_a_curve_for_each_network(perturbed_scores):
    line = misalignment.perturbation_curves(NETWORKS, perturbed_scores, "mAP (step)")["box jitter"]["Pyramid"]
    assert [value for value, _ in line] == list(PERTURBATIONS["box_jitter"])
    assert [spread.mean for _, spread in line] == pytest.approx([90, 80, 70, 60])


def test_score_drops_and_their_difference_to_the_reference(perturbed_scores):
    drops = misalignment.score_drops(NETWORKS, perturbed_scores, "mAP (step)", reference="Pyramid")
    assert drops["box_jitter"]["Pyramid"].change.mean == pytest.approx(-20)
    assert drops["box_jitter"]["Pyramid"].beyond_reference is None
    assert drops["box_jitter"]["JLML"].change.mean == pytest.approx(-10)
    assert drops["box_jitter"]["JLML"].beyond_reference.mean == pytest.approx(10)  # loses ten points less
    assert drops["box_jitter"]["JLML"].remaining_share == pytest.approx(50 / 60)
    assert drops["occlusion_share"]["JLML"][:2] == (None, None)
    rows = table_records(misalignment.score_drop_table(drops))
    assert [row["network"] for row in rows] == ["Pyramid", "JLML"]
    assert rows[0]["box jitter 0.06 → 0.24"] == "−20.0 [−20.0, −20.0]"
    assert rows[0]["box jitter: keeps"] == "75 %"
    assert list(rows[1].values())[-2:] == ["missing", "–"]


def test_the_table_has_a_row_for_each_value(perturbed_scores):
    rows = table_records(misalignment.perturbation_table(NETWORKS, perturbed_scores))
    assert len(rows) == sum(map(len, PERTURBATIONS.values()))
    assert rows[1]["value"] == "0.06 (usual)"
    assert rows[1]["JLML: mAP (step)"] == "60.0"
    assert rows[-1]["JLML: mAP (step)"] == "missing"


def test_the_shown_header_has_two_rows(perturbed_scores):
    table = misalignment.perturbation_table(NETWORKS, perturbed_scores)
    shown = misalignment.with_grouped_header(table)
    assert list(shown)[:4] == [("", "factor"), ("", "value"), ("Pyramid", "R1"), ("Pyramid", "mAP")]
    assert "box&nbsp;jitter" in style_table(shown).to_html().replace("\u00a0", "&nbsp;")
