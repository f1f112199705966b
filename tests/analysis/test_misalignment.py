"""Losses under worse boxes, from scores written by hand."""

import pytest
from written import gathered, scores

from reidlib.analysis import misalignment
from reidlib.analysis.scores import Cell, records
from reidlib.experiments.rows import PERTURBATIONS, Perturbation

NETWORKS = {"Pyramid": Cell("pyramid"), "JLML": Cell("jlml")}


@pytest.fixture
def turned(tmp_path):
    """Pyramid falls from 80 by 10 points a value, JLML from 60 by 5; one value is missing."""
    found = gathered(tmp_path, {"pyramid": [{"full": 0.8}], "jlml": [{"full": 0.6}]})
    for factor, values in PERTURBATIONS.items():
        for place, value in enumerate(values):
            for name, best, step in (("pyramid", 0.8, 0.1), ("jlml", 0.6, 0.05)):
                cell = Cell(name, condition=Perturbation(factor, value))
                found._scores[cell] = [scores({"full": best - step * (place - 1)})["branches"]["full"]]
    lost = Perturbation("occlusion_share", PERTURBATIONS["occlusion_share"][-1])
    found._scores[Cell("jlml", condition=lost)] = [None]
    return found


def test_every_factor_has_a_meaning_and_its_usual_value_among_those_tested():
    assert misalignment.MEANINGS.keys() == PERTURBATIONS.keys()
    for factor, values in PERTURBATIONS.items():
        assert misalignment.usual(factor) in values[1:-1]
        assert list(values) == sorted(values)
    assert records(misalignment.factor_table())[0] == {
        "factor": "box jitter",
        "means": "shift of the box, in box heights (one deviation)",
        "usual": "0.06",
        "tested": "0, 0.06, 0.12, 0.24",
    }


def test_nothing_is_found_on_another_benchmark(tmp_path):
    """Its ordinary scores are not those at a value of the renderer's factor."""
    found = gathered(tmp_path, {"pyramid": [{"full": 0.8}], "jlml": [{"full": 0.6}]})
    rows = records(misalignment.condition_table(NETWORKS, found))
    assert {row["JLML: R1"] for row in rows} == {"missing"}


def test_a_curve_for_each_network(turned):
    line = misalignment.curves(NETWORKS, turned, "mAP (step)")["box jitter"]["Pyramid"]
    assert [value for value, _ in line] == list(PERTURBATIONS["box_jitter"])
    assert [spread.mean for _, spread in line] == pytest.approx([90, 80, 70, 60])


def test_losses_and_what_goes_beyond_the_reference(turned):
    found = misalignment.losses(NETWORKS, turned, "mAP (step)", reference="Pyramid")
    assert found["box_jitter"]["Pyramid"].change.mean == pytest.approx(-20)
    assert found["box_jitter"]["Pyramid"].beyond is None
    assert found["box_jitter"]["JLML"].change.mean == pytest.approx(-10)
    assert found["box_jitter"]["JLML"].beyond.mean == pytest.approx(10)  # loses ten points less
    assert found["box_jitter"]["JLML"].kept == pytest.approx(50 / 60)
    assert found["occlusion_share"]["JLML"][:2] == (None, None)
    rows = records(misalignment.loss_table(found))
    assert [row["network"] for row in rows] == ["Pyramid", "JLML"]
    assert rows[0]["box jitter 0.06 → 0.24"] == "−20.0 [−20.0, −20.0]"
    assert rows[0]["box jitter: keeps"] == "75 %"
    assert list(rows[1].values())[-2:] == ["missing", "–"]


def test_a_row_for_each_value(turned):
    rows = records(misalignment.condition_table(NETWORKS, turned))
    assert len(rows) == sum(map(len, PERTURBATIONS.values()))
    assert rows[1]["value"] == "0.06 (usual)"
    assert rows[1]["JLML: mAP (step)"] == "60.0"
    assert rows[-1]["JLML: mAP (step)"] == "missing"
