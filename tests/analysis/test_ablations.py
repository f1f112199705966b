"""The rows of the ablations, their tables, and the sentences about them."""

import json

import numpy as np
import pytest
import torch
from scored_runs import write_scored_runs

from reidlib.analysis import ablations, benchmark_tables
from reidlib.analysis.ablations import Ablation, has_weights, input_norms, norm_cells, switched_off_sentence
from reidlib.analysis.scores import table_records
from reidlib.errors import InputError
from reidlib.experiments import EXPERIMENTS
from reidlib.experiments.setup import MissingRun
from reidlib.training.config import MODELS
from reidlib.training.runs import Run

ALL = [value for value in vars(ablations).values() if isinstance(value, Ablation)]
SHARED = ablations.SHARED_FEATURES


def test_there_are_seven_ablations():
    assert len(ALL) == 7


@pytest.mark.parametrize("ablation", ALL, ids=lambda ablation: ablation.heading)
def test_every_row_is_an_experiment_with_its_printed_row(ablation):
    for label, row in ablation.rows.iterrows():
        assert row["experiment"] in EXPERIMENTS
        if row["printed"]:
            assert ablation.printed_scores.at[label, "R1"] > 20
    if ablation.table:  # every row of the paper's table is one of ours
        rows = benchmark_tables.published("jlml_ablations", table=ablation.table)["row"]
        assert sorted(rows) == sorted(filter(None, ablation.rows["printed"]))


def test_two_trainings_fill_the_six_rows_of_the_losses():
    assert set(ablations.LOSSES.experiments) == {"jlml", "jlml-uniloss"}
    assert len(ablations.LOSSES.rows) == 6


def test_part_counts_are_the_papers():
    rows = [EXPERIMENTS[name] for name in ablations.PART_COUNTS.experiments]
    assert [MODELS[row.model](**row.overrides).parts for row in rows] == [2, 4, 6, 8, 10]


def test_score_table_has_the_papers_row(tmp_path):
    scores = write_scored_runs(
        tmp_path, {"jlml": [{"full": 0.6}, {"full": 0.62}], "jlml-separate": [{"full": 0.5}, None]}
    )
    without, shared = table_records(ablations.score_table(SHARED, scores))
    assert without == {
        "low-level layers": "without shared features",
        "R1": "50.0 (1 of 2 seeds)",
        "mAP (trapezoid)": "50.0 (1 of 2 seeds)",
        "paper: R1 / mAP": "83.2 / 63.1",
        "paper: MQ": "88.3 / 72.1",
    }
    assert shared["mAP (trapezoid)"] == "61.0 ± 12.7"  # 1.414 / √2 · 12.706


def test_differences_use_the_seeds_of_both_rows(tmp_path):
    scores = write_scored_runs(
        tmp_path, {"jlml": [{"full": 0.6}, {"full": 0.9}], "jlml-separate": [{"full": 0.5}, None]}
    )
    (line,) = table_records(ablations.difference_table(SHARED, scores))
    assert line == {
        "low-level layers, against without shared features": "with shared features",
        "Δ R1 [95 %]": "0.0 [0.0, 0.0] (1 of 2 seeds)",
        "Δ mAP (trapezoid) [95 %]": "+10.0 [+10.0, +10.0] (1 of 2 seeds)",
        "paper: Δ R1 / Δ mAP": "+1.9 / +2.4",
    }
    base, other = table_records(ablations.report_table(SHARED, scores))
    assert base["Δ R1 [95 %]"] == "baseline"
    assert other["Δ mAP (trapezoid) [95 %]"] == line["Δ mAP (trapezoid) [95 %]"]


@pytest.mark.parametrize(
    ("shared", "separate", "words"),
    [
        (0.6, 0.5, ["is above", "+10.0", "In the paper: mAP +2.4", "these runs confirm its direction"]),
        (0.5, 0.6, ["is below", "−10.0", "these runs reverse its direction"]),
        (0.5, 0.5, ["does not differ clearly from", "these runs do not decide its direction"]),
        (None, 0.5, ["no run is available"]),
    ],
)
def test_the_sentence_follows_the_interval(tmp_path, shared, separate, words):
    rows = {
        name: [None if value is None else {"full": value}]
        for name, value in (("jlml", shared), ("jlml-separate", separate))
    }
    (sentence,) = ablations.difference_sentences(SHARED, write_scored_runs(tmp_path, rows))
    assert all(word in sentence for word in words), sentence


def test_figures_get_measured_and_printed_differences(tmp_path):
    scores = write_scored_runs(tmp_path, {"jlml": [{"full": 0.6}], "jlml-separate": [None]})
    measured, printed = ablations.difference_panels(SHARED, scores)
    assert measured == {name: {"with shared features": None} for name in ("R1", "mAP (trapezoid)")}
    assert printed["R1"]["with shared features"] == pytest.approx(1.9)
    assert printed["mAP (trapezoid)"]["with shared features"] == pytest.approx(2.4)


def test_without_printed_numbers_there_are_no_paper_columns(tmp_path):
    dynamic = ablations.DYNAMIC_TRAINING
    scores = write_scored_runs(tmp_path, {name: [{"full": 0.6}] for name in dynamic.experiments})
    measured, printed = ablations.difference_panels(dynamic, scores)
    assert list(measured) == list(printed) == ["R1", "mAP (step)"]
    assert not any(printed.values())
    (line, *_) = table_records(ablations.report_table(dynamic, scores))
    assert list(line) == ["training", "R1", "mAP (step)", "Δ R1 [95 %]", "Δ mAP (step) [95 %]"]
    assert "the paper" not in " ".join(ablations.difference_sentences(dynamic, scores))


def test_the_basis_names_the_number_of_seeds(tmp_path):
    assert (
        "cover queries only" in write_scored_runs(tmp_path / "1", {"jlml": [{"full": 0.6}]}).interval_basis()
    )
    seeds_by_case = {
        "2": [{"full": 0.6}, {"full": 0.7}],
        "mixed": [{"full": 0.6}, None],
        "none": [None, None],
    }
    two, mixed, none = (
        write_scored_runs(
            tmp_path / name, {"jlml": seeds, "jlml-2": seeds_by_case["2"] if name != "none" else seeds}
        )
        for name, seeds in seeds_by_case.items()
    )
    assert two.interval_basis().startswith("2 seeds") and "very little" in two.interval_basis()
    assert mixed.interval_basis().startswith("1 to 2 seeds")
    assert none.interval_basis() == "no runs"


def test_a_baseline_has_to_be_a_row():
    with pytest.raises(InputError, match=r"baseline is one of the rows.*'b'"):
        Ablation("row", ablations.LOSSES.rows, "b", "step")


def test_a_printed_row_has_to_be_in_its_table():
    rows = ablations.FEATURE_SELECTION.rows.replace("with SFL", "with SLF")
    misspelt = Ablation("row", rows, "with", "trapezoid", "sfl")
    with pytest.raises(InputError, match=r"'with SLF'.*fits 0 rows"):
        _ = misspelt.printed_scores


def test_every_line_of_the_file_is_a_row_of_a_table():
    lines = benchmark_tables.lines_of("ablations")
    assert list(lines) == ["ablation", "row", "experiment", "branch", "printed", "about"]
    assert len(lines) == sum(len(ablation.rows) for ablation in ALL)
    assert all(len(ablation.rows) for ablation in ALL)


def with_weights(folder, weight_dc, weight_pdc):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({}))
    torch.save(
        {"global_feature.weight": weight_dc, "local_feature.weight": weight_pdc}, folder / "weights.pt"
    )
    return Run(folder)


@pytest.fixture
def norms(tmp_path):
    # Input units 0 to 2 of the global layer: norms 5, 0.04 (off) and 1.
    weight_dc = torch.tensor([[3.0, 0.04, 1.0], [4.0, 0.0, 0.0]])
    # Two stripes with one output unit each; unit 1 of the second is off, and with it one of six weights.
    weight_pdc = torch.tensor([[[1.0, -2.0, 0.5]], [[1.0, 0.005, -1.0]]])
    return input_norms(with_weights(tmp_path / "run", weight_dc, weight_pdc))


def test_norms_are_over_the_weights_that_leave_an_input_unit(norms):
    assert norms.global_c == pytest.approx([5, 0.04, 1])
    assert norms.local_pc == pytest.approx(np.array([[1, 2, 0.5], [1, 0.005, 1]]))
    assert norms.local_weights_off == pytest.approx(1 / 6)


def test_cells_of_the_table(norms):
    cells = norm_cells(norms)
    assert cells["global units off"] == "33.3 % of 3"
    assert cells["local units off"] == "16.7 % of 6"
    assert cells["local weights off"] == "16.7 %"
    assert cells["mean norm, global"] == "2.01"


def test_the_sentence_names_rows_and_shares(norms):
    half = norms._replace(global_c=np.array([1.0, 1.0, 1.0]))
    text = switched_off_sentence({"strong": norms, "none": half})
    assert text.startswith(
        "Input units of the global layer are switched off in *strong* (33 %), and in no other row."
    )
    assert switched_off_sentence({"none": half}).startswith("No row switches off units of the global layer.")
    assert switched_off_sentence({}) == "No run with weights is available."


def test_input_norms_need_weights(tmp_path):
    (tmp_path / "run").mkdir()
    run = Run(tmp_path / "run")
    assert not has_weights(run)
    assert not has_weights(MissingRun("failed"))
    with pytest.raises(InputError, match="needs the run's weights"):
        input_norms(run)
