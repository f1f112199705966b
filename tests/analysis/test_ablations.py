"""The rows of the ablations, their tables, and the sentences about them."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scored_runs import write_scored_runs

from reidlib.analysis import ExperimentScores, ablations, benchmark_tables, complexity
from reidlib.analysis.ablations import Ablation, sparsity
from reidlib.analysis.ablations.sparsity import input_norms, norm_cells, switched_off_sentence
from reidlib.analysis.scores import table_records
from reidlib.data import load
from reidlib.errors import InputError
from reidlib.experiments import EXPERIMENTS
from reidlib.experiments.obtain import obtain, plan_chain
from reidlib.experiments.rows import PROFILES, ModelSize
from reidlib.experiments.setup import MissingRun, Runs
from reidlib.training.config import MODELS, JLMLConfiguration, Recipe, RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.runs import Run

ALL = [value for value in vars(ablations).values() if isinstance(value, Ablation)]
SHARED, COUNTS = ablations.SHARED_FEATURES, ablations.PART_COUNTS


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


def test_part_counts_are_the_papers_and_one_more():
    networks = [configurations("quick")[row] for row in COUNTS.cells]
    assert [network.model.parts for network in networks] == [2, 4, 6, 8, 10, 8]
    assert [network.model.local_width for network in networks] == [1, 1, 1, 1, 1, 0.71]


def configurations(profile):
    """The configuration of each row of the part counts in a profile."""
    size = PROFILES[profile].sizes["jlml"]
    return {
        row: RunConfiguration(
            MODELS["jlml"](**EXPERIMENTS[cell.experiment].overrides, **size.overrides),
            size.recipe, size.input_size, "synthetic", "0" * 16,
        )
        for row, cell in COUNTS.cells.items()
    }  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
def test_eight_narrow_parts_are_as_large_as_four_parts(profile):
    """Within 2 % in parameters, without and with classifiers, while the counts of the paper differ by far."""
    rows = {row: configurations(profile)[row] for row in ("4 parts", "8 parts", "8 narrow parts")}
    costs = complexity.row_costs(rows, num_classes=130)
    for classifiers in (False, True):
        four, eight, narrow = (
            cost.parameters + classifiers * cost.classifier_parameters for cost in costs.values()
        )
        assert abs(narrow / four - 1) < 0.02
        assert eight / four > 1.25
    (row, parameters, share, total, _), *_ = complexity.cost_table(costs, "parts", "8 parts").to_numpy()
    network = rows["4 parts"].model.build(130, 0)
    by_hand = {
        kind: sum(
            tensor.numel() for name, tensor in network.named_parameters()
            if kind == "all" or not name.startswith("classifiers.")
        )
        for kind in ("features", "all")
    }  # fmt: skip
    assert (row, parameters, total) == ("4 parts", f"{by_hand['features']:,}", f"{by_hand['all']:,}")
    assert share == f"{100 * costs['4 parts'].parameters / costs['8 parts'].parameters:.1f} %"


def test_labels_with_parameters_keep_rows_and_baseline():
    parameters = {row: 1_000_000 * number for number, row in enumerate(COUNTS.cells, 1)}
    sized = COUNTS.with_sizes(parameters)
    assert list(sized.cells)[:2] == ["2 parts (1.00 M)", "4 parts (2.00 M)"]
    assert sized.baseline == "4 parts (2.00 M)"
    assert list(sized.cells.values()) == list(COUNTS.cells.values())
    assert (
        sized.printed_differences.to_numpy().tolist()[0] == COUNTS.printed_differences.to_numpy().tolist()[0]
    )


def test_sentences_about_sizes_say_difference_and_parameters(tmp_path):
    runs = {name: [{"full": 0.6}] for name in COUNTS.experiments}
    runs |= {"jlml-8": [{"full": 0.65}], "jlml-8-equal": [None]}
    parameters = dict.fromkeys(COUNTS.cells, 1000) | {"8 parts": 1450, "8 narrow parts": 990}
    pairs = [("8 parts", "4 parts"), ("8 narrow parts", "4 parts"), ("8 parts", "8 narrow parts")]
    sentences = ablations.size_sentences(COUNTS, write_scored_runs(tmp_path, runs), parameters, pairs)
    assert sentences == [
        "**8 parts** against *4 parts*: mAP +5.0 [+5.0, +5.0] points, with 145 % of its parameters.",
        "**8 narrow parts** against *4 parts*: no run is available, with 99 % of its parameters.",
        "**8 parts** against *8 narrow parts*: no run is available, with 146 % of its parameters.",
    ]


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
    assert mixed.seed_count(["jlml", "unknown"]) == "one seed" and mixed.seed_count() == "1 to 2 seeds"
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
    lines = benchmark_tables.lines_of("ablations/ablations")
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
    with pytest.raises(InputError, match="needs the run's weights"):
        input_norms(Run(tmp_path / "run"))


# --- the strength of sparsity beside weight decay -----------------------------------------------------------


def feature_layers(weight_dc, weight_pdc):
    return {"global_feature.weight": weight_dc, "local_feature.weight": weight_pdc}


def configured(decay=5e-4, **fields):
    recipe = Recipe(steps=1, weight_decay=decay)
    return RunConfiguration(JLMLConfiguration(**fields), recipe, (224, 224), "synthetic", "0" * 16)


def rms(values):
    return np.sqrt(np.mean(np.square(values)))


@pytest.mark.parametrize("over", ["output", "input"])
def test_gradients_are_those_of_the_formulas(over):
    generator = torch.Generator().manual_seed(5)
    weight_dc = torch.randn(4, 7, generator=generator)
    weight_pdc = torch.randn(2, 3, 7, generator=generator)
    configuration = configured(1e-3, sparsity_global=0.2, sparsity_local=0.3, exclusive_over=over)
    sizes = sparsity.gradient_sizes(configuration, feature_layers(weight_dc, weight_pdc))
    of_columns = [0.2 * column / np.linalg.norm(column) for column in weight_dc.numpy().T]
    of_groups = []
    for stripe in weight_pdc.numpy():
        groups = stripe if over == "output" else stripe.T
        of_groups += [2 * 0.3 * np.abs(group).sum() * np.sign(group) for group in groups]
    assert sizes["global"] == pytest.approx((rms(of_columns), rms(1e-3 * weight_dc.numpy())))
    assert sizes["local"] == pytest.approx((rms(of_groups), rms(1e-3 * weight_pdc.numpy())))


def test_at_full_width_the_local_term_is_410_times_weight_decay():
    """At the start the global term is as strong as weight decay, 2.2e-5 each."""
    configuration = configured()
    sizes = sparsity.gradient_sizes(configuration, configuration.model.build(2, 0).state_dict())
    assert sizes["global"] == pytest.approx((2.2e-5, 2.2e-5), rel=0.02)
    assert sizes["local"][0] / sizes["local"][1] == pytest.approx(410, rel=0.01)


@pytest.fixture
def selected(market, tmp_path, monkeypatch):
    """Scores of the feature selection whose rows "with" and "without" are trained, for two large steps."""
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    recipe = Recipe(steps=2, batch_size=4, learning_rate=0.5)
    size = ModelSize((32, 16), {"width": 0.125, "feature_size": 16}, recipe)
    monkeypatch.setitem(PROFILES["smoke"].sizes, "jlml", size)
    runs = {name: (MissingRun("not trained", name, 3),) for name in ablations.FEATURE_SELECTION.experiments}
    for name in ("jlml", "jlml-sfl-off"):
        links = plan_chain(name, PROFILES["smoke"], load("market1501", market), seed=3)
        runs[name] = (obtain(links, execution=Execution(device="cpu", progress=False)),)
    return ExperimentScores(Runs(runs, 1, (), "smoke"))


def test_strengths_are_those_of_the_training_that_ran(selected):
    """Initial weights are made again: their norms are the terms of the first step, which a run records."""
    gradients = sparsity.sparsity_gradients(ablations.FEATURE_SELECTION, selected)
    assert list(gradients["row"].unique()) == ["with"]  # the others have λ = 0 or no run
    lines = gradients.set_index(["layer", "time"])[["sparsity", "weight decay", "ratio"]]
    assert len(lines) == 4
    (run,) = selected.runs.runs["jlml"]
    initial = RunConfiguration.from_json(run.configuration).model.build(2, 3).state_dict()
    norm = 5e-4 * torch.linalg.vector_norm(initial["global_feature.weight"], dim=0).sum()
    assert run.steps["sparsity_global"][0] == pytest.approx(float(norm))
    assert run.steps["sparsity_local"][0] == pytest.approx(
        5e-4 * float(initial["local_feature.weight"].abs().sum(2).square().sum())
    )
    configuration = RunConfiguration.from_json(run.configuration)
    for time, weights in (("start", initial), ("end", run.weights())):
        for layer, sizes in sparsity.gradient_sizes(configuration, weights).items():
            assert lines.loc[layer, time].tolist() == [*sizes, sizes[0] / sizes[1]]
    assert lines["ratio"].nunique() == 4


def test_rows_without_weights_are_left_out(selected):
    assert [*sparsity.norms_by_row(ablations.FEATURE_SELECTION, selected)] == ["without", "with"]
    (run,) = selected.runs.runs["jlml"]
    (run.folder / "weights.pt").unlink()
    assert [*sparsity.norms_by_row(ablations.FEATURE_SELECTION, selected)] == ["without"]
    assert sparsity.sparsity_gradients(ablations.FEATURE_SELECTION, selected).empty


def test_strengths_are_written_as_a_table_and_as_sentences():
    gradients = pd.DataFrame(
        [
            ("with", "global", "start", 2.2e-5, 2.2e-5, 1.0),
            ("with", "global", "end", 3e-5, 2e-5, 1.5),
            ("with", "local", "start", 1.279e-2, 3.12e-5, 409.9),
            ("with", "local", "end", 1e-2, 5e-6, 2000.0),
        ],
        columns=["row", "layer", "time", "sparsity", "weight decay", "ratio"],
    )
    assert sparsity.gradient_table(gradients).iloc[2].tolist() == [
        "with", "local", "start", "1.3e-02", "3.1e-05", "409.9"
    ]  # fmt: skip
    assert sparsity.gradient_sentences(gradients) == [
        "**with**: sparsity's gradient is 1.0 times weight decay's in the global layer at the start and 1.5 "
        "times at the end, in the local layers 409.9 and 2,000.0 times."
    ]
    assert sparsity.gradient_sentences(gradients.iloc[:0]) == ["No run with weights is available."]
