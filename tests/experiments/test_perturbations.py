"""Runs under perturbed test images: one factor changes, and scores are computed once."""

import json
from dataclasses import asdict, replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import pytest
import torch
from untrained_runs import JLML, PYRAMID, QUIET, untrained_run

from reidlib.data import load
from reidlib.data.decoding import decode
from reidlib.data.synthetic import render as synthetic
from reidlib.data.synthetic.factors import Factors, plan
from reidlib.data.synthetic.render import SIZES, BenchmarkSize, fingerprint, render, render_in_memory
from reidlib.errors import InputError
from reidlib.experiments import perturbations
from reidlib.experiments.evaluate import TABLE_RANKS, evaluate_run, score_record, select_branch
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.perturbations import (
    PERSONS,
    describe_part,
    evaluate_perturbations,
    part,
    perturbed_images,
    stored_scores,
)
from reidlib.experiments.rows import PERTURBATIONS, Perturbation, all_perturbations
from reidlib.training.runs import Run

TINY = BenchmarkSize(4, 4, 16, 16, 12, 14, 4, 4, 0.0)
DEFAULT, FAR = Perturbation("box_jitter", 0.06), Perturbation("box_jitter", 0.24)
HIDDEN = Perturbation("occlusion_share", 0.8)


@pytest.fixture(scope="module")
def tiny_home(tmp_path_factory):
    """A home folder with the tiny benchmark."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", TINY)
        render("tiny", home / "data" / "synthetic-tiny", progress=False)
    return home


@pytest.fixture(autouse=True)
def home(tiny_home, monkeypatch):
    """One thread, because short operations on several busy cores wait for each other."""
    monkeypatch.setenv("REIDLIB_HOME", str(tiny_home))
    monkeypatch.setitem(SIZES, "tiny", TINY)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tiny_home
    torch.set_num_threads(before)


@pytest.fixture
def benchmark(home):
    return load("synthetic", home / "data" / "synthetic-tiny")


@pytest.fixture
def run(benchmark, tmp_path):
    return untrained_run(benchmark, tmp_path / "runs")


def evaluate_under(run, perturbation, benchmark):
    for error in evaluate_perturbations({run: [perturbation]}, benchmark, execution=QUIET).values():
        raise error
    return stored_scores(run, perturbation)


def never(*arguments, **options):
    raise AssertionError("done a second time")


# --- perturbations ------------------------------------------------------------------------------------------


def test_each_factors_values_rise_from_zero_and_include_the_default():
    for factor, values in PERTURBATIONS.items():
        assert len(values) == 4 and values[0] == 0 and list(values) == sorted(set(values))
        assert getattr(Factors(), factor) in values
    assert len(all_perturbations()) == 12
    assert sum(perturbation.is_default for perturbation in all_perturbations()) == 3


def test_a_perturbation_has_a_name_and_turns_one_factor():
    perturbation = Perturbation("box_jitter", 0.12)
    assert perturbation.name == "box_jitter 0.12"
    assert perturbation.factors == replace(Factors(), box_jitter=0.12)
    assert Perturbation("occlusion_share", 0) == Perturbation("occlusion_share", 0.0)
    assert asdict(Perturbation("occlusion_share", 1)) == {"factor": "occlusion_share", "value": 1.0}


@pytest.mark.parametrize(
    "factor, value, words",
    [
        ("gait", 0.5, "box_jitter, box_scale_error, occlusion_share; got 'gait'"),
        ("box_jitter", 0.6, "box_jitter is a number from 0 to 0.5; got 0.6"),
        ("box_jitter", -0.1, "from 0 to 0.5"),
        ("occlusion_share", float("nan"), "from 0 to 1; got nan"),
        ("box_scale_error", "0.1", "got '0.1'"),
    ],
)
def test_other_factors_and_values_are_refused(factor, value, words):
    with pytest.raises(InputError, match=words):
        Perturbation(factor, value)


# --- the images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("perturbation", all_perturbations(), ids=attrgetter("name"))
def test_only_the_images_that_a_perturbation_changes_are_rendered(benchmark, perturbation):
    """The same bits as from rendering all of them; the others are those of the benchmark."""
    images = part("tiny")
    changed_n, changed_nhwc = perturbed_images(perturbation, "tiny", progress=False)
    all_nhwc = render_in_memory(images, perturbation.factors)
    usual_nhwc = np.stack([decode(benchmark.root / "query" / name) for name in images.name])
    np.testing.assert_array_equal(changed_nhwc, all_nhwc[changed_n])
    np.testing.assert_array_equal(usual_nhwc[~changed_n], all_nhwc[~changed_n])
    differing_n = (changed_nhwc != usual_nhwc[changed_n]).any((1, 2, 3))
    assert differing_n.sum() >= 0.7 * changed_n.sum()  # an occluder may be outside the box
    if perturbation.factor == "occlusion_share":
        assert changed_n.mean() < 0.9  # 0.8 of them are occluded, 0.15 were before
    else:
        assert changed_n.all() or perturbation.is_default
    assert not (perturbation.is_default and changed_n.any())


def test_the_part_is_the_queries_of_the_first_persons(monkeypatch):
    images = part("quick")
    size = SIZES["quick"]
    persons = np.unique(images.identity)
    everyone = plan(size, 6, 0)
    assert len(persons) == PERSONS["quick"] == 170 and set(images.split) == {"query"}
    assert not np.isin(persons, everyone.identity[everyone.split == "bounding_box_train"]).any()
    # The test persons of the benchmark's first version, and more.
    assert persons[129] <= size.drawn_identities < persons[130]
    pairs = set(zip(images.identity.tolist(), images.camera.tolist(), strict=True))
    assert len(pairs) == len(images) == 1020  # one image from each camera: a query's only exclusion is itself
    assert describe_part("quick").startswith("1,020 images of the first 170 of 400 test persons")
    assert len(np.unique(part("full").identity)) == 750
    whole = part("tiny")
    monkeypatch.setitem(PERSONS, "tiny", 3)
    assert set(part("tiny").name) == set(whole.name[whole.identity < np.unique(whole.identity)[3]])


def test_fingerprints_tell_perturbations_apart():
    examples = (DEFAULT, FAR, Perturbation("occlusion_share", 0.15))
    prints = [fingerprint("tiny", example.factors) for example in examples]
    assert prints[0] == prints[2] != prints[1]


# --- the scores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, branches", [(JLML, {"full", "global", "local"}), (PYRAMID, {"full"})], ids=["jlml", "pyramid"]
)
def test_scores_under_perturbations(benchmark, tmp_path, model, branches):
    run = untrained_run(benchmark, tmp_path / "runs", model)
    plain_scores = evaluate_run(run, benchmark, execution=QUIET)
    assert evaluate_perturbations({run: (DEFAULT, FAR, HIDDEN)}, benchmark, execution=QUIET) == {}
    scores = {perturbation: stored_scores(run, perturbation) for perturbation in (DEFAULT, FAR, HIDDEN)}
    for perturbation, under in scores.items():
        assert under["condition"] == (None if perturbation == DEFAULT else asdict(perturbation))
        assert under["query_person_ids"] == benchmark.query.person_ids.tolist()
        assert under["branches"].keys() == branches
        for branch in under["branches"].values():
            assert branch.keys() == {"step", "trapezoid"}
            for record in branch.values():
                assert record.keys() == plain_scores["branches"]["full"]["step"].keys()
                assert list(record["cmc"]) == ["1", "5", "10", "20"]
                assert (
                    len(record["average_precision"])
                    == len(record["first_match_rank"])
                    == len(benchmark.query)
                )
    usual, far = (scores[name]["branches"]["full"]["step"]["average_precision"] for name in (DEFAULT, FAR))
    assert usual != far
    assert len({under["data"] for under in scores.values()}) == 3
    assert stored_scores(run, Perturbation("occlusion_share", 0.15)) == scores[DEFAULT]
    stored = sorted((run.folder / "conditions").iterdir())
    names = ["box_jitter-0.24.json", "occlusion_share-0.8.json", "usual.json"]
    assert [path.name for path in stored] == names
    assert json.loads(stored[0].read_text()) == scores[FAR]


@pytest.mark.parametrize("perturbation", [DEFAULT, FAR, HIDDEN], ids=attrgetter("name"))
def test_scores_are_those_of_a_benchmark_of_the_changed_images(benchmark, run, tmp_path, perturbation):
    """Render everything, index and decode the folder, and embed all: the straightforward way."""
    exact = replace(QUIET, precision="float32")
    assert evaluate_perturbations({run: [perturbation]}, benchmark, execution=exact) == {}
    under = stored_scores(run, perturbation)
    root = render("tiny", tmp_path / "changed", factors=perturbation.factors, progress=False)
    images = load("synthetic", root).query
    embeddings = TrainedNetwork(run, QUIET).embed(images)
    columns = TrainedNetwork(run, QUIET).model.branches
    assert under["branches"].keys() == columns.keys()
    for name in columns:
        branch = select_branch(embeddings, columns[name], torch.device("cpu"))
        expected = json.loads(json.dumps(score_record(branch, branch, TABLE_RANKS)))
        assert under["branches"][name] == expected


@pytest.mark.parametrize("model", [JLML, PYRAMID], ids=["jlml", "pyramid"])
def test_folded_batch_norms_change_features_by_rounding_only(benchmark, tmp_path, model):
    network = TrainedNetwork(untrained_run(benchmark, tmp_path / "runs", model), QUIET).model
    generator = torch.Generator().manual_seed(0)
    norms = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for norm in norms:  # untrained, each is nearly the identity
        for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
    images = torch.rand(4, 3, 32, 16, generator=generator)
    with torch.no_grad():
        features = network.embed(images)
        perturbations._fold_batch_norms(network)
        folded = network.embed(images)
    assert norms and not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in network.modules())
    torch.testing.assert_close(folded, features, rtol=1e-4, atol=1e-4 * features.abs().max().item())


def test_scores_are_found_without_weights_images_and_data(benchmark, run, tmp_path, monkeypatch):
    scores = {perturbation: evaluate_under(run, perturbation, benchmark) for perturbation in (DEFAULT, FAR)}
    (run.folder / "weights.pt").unlink()
    carried = run.folder.rename(tmp_path / "carried")
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "empty"))
    for name in ("render_in_memory", "TrainedNetwork"):
        monkeypatch.setattr(perturbations, name, never)
    carried = Run(carried)
    assert {perturbation: stored_scores(carried, perturbation) for perturbation in scores} == scores
    assert evaluate_perturbations({carried: (DEFAULT, FAR)}, None) == {}
    assert stored_scores(carried, HIDDEN) is None
    assert not (tmp_path / "empty").exists()


def test_missing_scores_of_a_run_without_weights_are_refused(benchmark, run):
    (run.folder / "weights.pt").unlink()
    for perturbation in (DEFAULT, HIDDEN):
        with pytest.raises(InputError, match="needs the run's weights"):
            evaluate_under(run, perturbation, benchmark)
    assert not (run.folder / "conditions").exists()


def test_a_run_that_cannot_be_evaluated_does_not_stop_the_others(benchmark, run, tmp_path):
    other = untrained_run(benchmark, tmp_path / "other", PYRAMID)
    (other.folder / "weights.pt").unlink()
    errors = evaluate_perturbations({other: [FAR], run: [FAR]}, benchmark, execution=QUIET)
    assert list(errors) == [other] and stored_scores(run, FAR)


def test_scores_of_an_earlier_version_are_not_used(benchmark, run):
    """Format 1 had all test images, and the run's own scores as those of the default value."""
    scores = evaluate_under(run, FAR, benchmark)
    path = run.folder / "conditions" / "box_jitter-0.24.json"
    del scores["persons"]
    path.write_text(json.dumps(scores | {"format": 1}))
    evaluate_run(run, benchmark, execution=QUIET)
    assert stored_scores(run, FAR) is stored_scores(run, DEFAULT) is None


def test_images_are_rendered_and_networks_loaded_once_for_all_runs(benchmark, run, tmp_path, monkeypatch):
    loaded, rendered, real, real_render = [], [], Run.weights, perturbations.render_in_memory
    monkeypatch.setattr(Run, "weights", lambda run: loaded.append(run) or real(run))
    monkeypatch.setattr(
        perturbations, "render_in_memory", lambda *a, **o: rendered.append(1) or real_render(*a, **o)
    )
    other = untrained_run(benchmark, tmp_path / "other", PYRAMID)
    requests = {run: (FAR, HIDDEN), other: (HIDDEN, FAR)}
    assert evaluate_perturbations(requests, benchmark, execution=QUIET) == {}
    assert set(loaded) == {run, other} and len(loaded) == len(rendered) == 2
    assert stored_scores(run, FAR) and stored_scores(other, HIDDEN)
    monkeypatch.setattr(perturbations, "TrainedNetwork", never)
    assert evaluate_perturbations(requests, benchmark, execution=QUIET) == {}


def test_scores_before_a_failure_are_kept(benchmark, run, monkeypatch):
    real = perturbations.perturbed_images

    def failing(perturbation, *arguments, **options):
        if perturbation == HIDDEN:
            raise KeyboardInterrupt
        return real(perturbation, *arguments, **options)

    monkeypatch.setattr(perturbations, "perturbed_images", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_perturbations({run: (FAR, HIDDEN)}, benchmark, execution=QUIET)
    assert [path.name for path in (run.folder / "conditions").iterdir()] == ["box_jitter-0.24.json"]
    assert stored_scores(run, FAR) and not stored_scores(run, HIDDEN)


@pytest.mark.parametrize(
    "change",
    [
        {"run_data": "of another training"},
        {"data": "of another rendering"},
        {"size": "huge"},
        {"persons": 3},
        {"format": 0},
        {"condition": {"factor": "box_jitter", "value": 0.12}},
    ],
)
def test_scores_of_another_perturbation_or_run_are_not_used(benchmark, run, change):
    scores = evaluate_under(run, FAR, benchmark)
    path = run.folder / "conditions" / "box_jitter-0.24.json"
    path.write_text(json.dumps({**scores, **change}))
    assert stored_scores(run, FAR) is None
    assert evaluate_under(run, FAR, benchmark) == scores
    assert json.loads(path.read_text()) == scores


def test_scores_of_a_former_renderer_are_not_used(benchmark, run, monkeypatch):
    evaluate_under(run, FAR, benchmark)
    monkeypatch.setattr(synthetic, "_FORMAT", synthetic._FORMAT + 1)
    assert stored_scores(run, FAR) is None


def test_a_damaged_file_of_scores_is_written_again(benchmark, run):
    whole = evaluate_under(run, FAR, benchmark)
    path = run.folder / "conditions" / "box_jitter-0.24.json"
    path.write_text(path.read_text()[:100])
    assert stored_scores(run, FAR) is None
    assert evaluate_under(run, FAR, benchmark) == whole
    assert stored_scores(run, FAR) == whole


def test_images_are_not_kept(benchmark, run, home):
    before = set(home.rglob("*"))
    evaluate_under(run, Perturbation("box_scale_error", 0.12), benchmark)
    assert set(home.rglob("*")) - before <= set((home / "checked").rglob("*"))


def test_other_benchmarks_are_refused(benchmark, run, tmp_path):
    real = replace(benchmark, name="market1501")
    with pytest.raises(InputError, match=r"embedded benchmark.*got market1501"):
        evaluate_under(run, FAR, real)
    other = load("synthetic", render("tiny", tmp_path / "other", factors=Factors(gait=0.5), progress=False))
    with pytest.raises(InputError, match="belongs to the data"):
        evaluate_under(run, FAR, other)
    with pytest.raises(InputError, match="with the default factors and seed 0"):
        evaluate_under(untrained_run(other, tmp_path / "runs"), FAR, other)
    assert not list(Path(tmp_path).glob("runs/*/conditions"))
