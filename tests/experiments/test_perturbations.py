"""Runs under perturbed test images: one factor changes, and scores are computed once."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from untrained_runs import JLML, PYRAMID, QUIET, untrained_run

from reidlib.data import load
from reidlib.data.synthetic import render as synthetic
from reidlib.data.synthetic.factors import Factors
from reidlib.data.synthetic.render import SIZES, TEST_SPLITS, BenchmarkSize, fingerprint, render
from reidlib.errors import InputError
from reidlib.experiments import evaluate as evaluation
from reidlib.experiments import perturbations
from reidlib.experiments.evaluate import evaluate_run
from reidlib.experiments.perturbations import evaluate_perturbations, open_perturbed, stored_scores
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
    return evaluate_perturbations(run, [perturbation], benchmark, execution=QUIET)[perturbation]


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


def names(split):
    return [path.name for path in split.paths]


@pytest.mark.parametrize("perturbation", [FAR, Perturbation("box_scale_error", 0.24), HIDDEN])
def test_only_the_perturbed_factor_changes(benchmark, perturbation, home):
    """Names, order and labels are the same; pixels differ in as many images as the factor affects."""
    query, gallery = open_perturbed(perturbation, "tiny", progress=False)
    folder = query.paths[0].parent.parent
    assert folder == home / "data" / f"synthetic-tiny-{perturbation.factor}-{perturbation.value:g}"
    assert not (folder / "bounding_box_train").exists()
    changed = []
    for mine, theirs in ((query, benchmark.query), (gallery, benchmark.gallery)):
        assert names(mine) == names(theirs)
        assert mine.person_ids.tolist() == theirs.person_ids.tolist()
        assert mine.camera_ids.tolist() == theirs.camera_ids.tolist()
        changed += [a.read_bytes() != b.read_bytes() for a, b in zip(mine.paths, theirs.paths, strict=True)]
    if perturbation is HIDDEN:
        assert 0.4 < sum(changed) / len(changed) < 0.9  # 0.8 of them are occluded, 0.15 were before
    else:
        assert all(changed)
    truths = [(root / "factors.csv").read_text().splitlines() for root in (folder, benchmark.root)]
    rows = [
        {row.split(",")[1]: row.split(",") for row in truth if not row.startswith("bounding_box_train")}
        for truth in truths
    ]
    columns = rows[0]["file"]
    expected_columns = (
        {"occluded"}
        if perturbation is HIDDEN
        else {column for column in columns if column.startswith("box_")}
    )
    for name, row in rows[0].items():
        differing = {column for column, a, b in zip(columns, row, rows[1][name], strict=True) if a != b}
        assert differing <= expected_columns


def test_the_default_value_is_the_benchmark_itself(benchmark, tmp_path, monkeypatch):
    rendered = render("tiny", tmp_path / "again", factors=DEFAULT.factors, splits=TEST_SPLITS, progress=False)
    monkeypatch.setattr(synthetic, "_write", never)
    for perturbation in (DEFAULT, Perturbation("occlusion_share", 0.15)):
        query, gallery = open_perturbed(perturbation, "tiny", progress=False)
        assert query.paths == benchmark.query.paths and gallery.paths == benchmark.gallery.paths
    for path in (*query.paths, *gallery.paths):
        assert path.read_bytes() == (rendered / path.parent.name / path.name).read_bytes()


def test_fingerprints_tell_perturbations_apart():
    examples = (DEFAULT, FAR, Perturbation("occlusion_share", 0.15))
    prints = [fingerprint("tiny", example.factors) for example in examples]
    assert prints[0] == prints[2] != prints[1]


def test_a_folder_that_lost_an_image_is_refused(tmp_path):
    folder = tmp_path / "far"
    query, gallery = open_perturbed(FAR, "tiny", folder, progress=False)
    assert query.paths[0].parent.parent == folder
    gallery.paths[3].unlink()
    with pytest.raises(InputError, match="render it again"):
        open_perturbed(FAR, "tiny", folder, progress=False)
    with pytest.raises(InputError, match=r"one rendering.*box_jitter 0.24 where 0.06"):
        open_perturbed(HIDDEN, "tiny", folder, progress=False)


def test_a_killed_rendering_leaves_no_partial_folder(tmp_path):
    """A real kill -9 of a real process in the middle of its images; the next call renders them all."""
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from PIL import Image
        from reidlib.experiments.perturbations import open_perturbed
        from reidlib.experiments.rows import Perturbation
        save = Image.Image.save
        def slow(self, path, *arguments, **options):
            save(self, path, *arguments, **options)
            time.sleep(2)
        Image.Image.save = slow
        print("ready", flush=True)
        open_perturbed(Perturbation("box_jitter", 0.12), "smoke", Path(sys.argv[1]), progress=False)
    """)
    folder = tmp_path / "data" / "perturbed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", script, folder], env=environment)
    try:
        deadline = time.monotonic() + 600
        while not list(tmp_path.glob("data/.perturbed.partial-*/*/*.jpg")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not folder.exists()
    query, gallery = open_perturbed(Perturbation("box_jitter", 0.12), "smoke", folder, progress=False)
    assert (len(query), len(gallery)) == (60, 118)
    assert sorted(path.name for path in folder.parent.iterdir()) == [".perturbed.lock", "perturbed"]


# --- the scores ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model, branches", [(JLML, {"full", "global", "local"}), (PYRAMID, {"full"})], ids=["jlml", "pyramid"]
)
def test_scores_under_perturbations(benchmark, tmp_path, model, branches):
    run = untrained_run(benchmark, tmp_path / "runs", model)
    plain_scores = evaluate_run(run, benchmark, execution=QUIET)
    scores = evaluate_perturbations(run, (DEFAULT, FAR, HIDDEN), benchmark, execution=QUIET)
    assert list(scores) == [DEFAULT, FAR, HIDDEN]
    for perturbation, under in scores.items():
        assert under["condition"] == {"factor": perturbation.factor, "value": perturbation.value}
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
    full = plain_scores["branches"]["full"]["step"]
    assert scores[DEFAULT]["branches"]["full"]["step"]["average_precision"] == full["average_precision"]
    assert scores[FAR]["branches"]["full"]["step"]["average_precision"] != full["average_precision"]
    assert len({under["data"] for under in scores.values()}) == 3
    stored = sorted((run.folder / "conditions").iterdir())
    assert [path.name for path in stored] == ["box_jitter-0.24.json", "occlusion_share-0.8.json"]
    assert json.loads(stored[0].read_text()) == scores[FAR]


def test_perturbed_images_are_scored_as_unperturbed_ones(benchmark, run, tmp_path):
    """The same network on a benchmark of the changed images gives the same scores."""
    under = evaluate_under(run, FAR, benchmark)
    query, gallery = open_perturbed(FAR, "tiny", progress=False)
    changed = replace(benchmark, query=query, gallery=gallery, boxes=None)
    other = untrained_run(changed, tmp_path / "other")
    scores = evaluate_run(other, changed, execution=QUIET)
    for name, branch in under["branches"].items():
        for kind in ("step", "trapezoid"):
            expected = scores["branches"][name][kind]
            assert branch[kind] == {
                **expected,
                "cmc": {r: expected["cmc"][r] for r in ("1", "5", "10", "20")},
            }


def test_scores_are_found_without_weights_images_and_data(benchmark, run, tmp_path, monkeypatch):
    evaluate_run(run, benchmark, execution=QUIET)
    scores = evaluate_perturbations(run, (DEFAULT, FAR), benchmark, execution=QUIET)
    (run.folder / "weights.pt").unlink()
    carried = run.folder.rename(tmp_path / "carried")
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "empty"))
    for name in ("open_perturbed", "TrainedNetwork", "evaluate_run"):
        monkeypatch.setattr(perturbations, name, never)
    carried = Run(carried)
    assert {perturbation: stored_scores(carried, perturbation) for perturbation in scores} == scores
    assert evaluate_perturbations(carried, (DEFAULT, FAR), None) == scores
    assert stored_scores(carried, HIDDEN) is None
    assert not (tmp_path / "empty").exists()


def test_missing_scores_of_a_run_without_weights_are_refused(benchmark, run):
    (run.folder / "weights.pt").unlink()
    for perturbation in (DEFAULT, HIDDEN):
        with pytest.raises(InputError, match="needs the run's weights"):
            evaluate_under(run, perturbation, benchmark)
    assert not (run.folder / "conditions").exists()


def test_the_default_takes_older_scores_of_a_run_without_weights(benchmark, run):
    scores = evaluate_run(run, benchmark, execution=QUIET)
    del scores["format"], scores["query_person_ids"]
    (run.folder / "scores.json").write_text(json.dumps(scores))
    (run.folder / "weights.pt").unlink()
    assert stored_scores(run, DEFAULT) is None  # only the data tell the persons of these scores
    under = evaluate_under(run, DEFAULT, benchmark)
    assert under["query_person_ids"] == benchmark.query.person_ids.tolist()
    assert under["data"] == benchmark.fingerprint


def test_the_default_is_evaluated_if_the_run_was_not(benchmark, run):
    under = evaluate_under(run, DEFAULT, benchmark)
    assert evaluation.is_current(run, benchmark)
    assert under == stored_scores(run, DEFAULT)


def test_a_network_is_loaded_once_for_several_perturbations(benchmark, run, monkeypatch):
    loaded, real = [], Run.weights
    monkeypatch.setattr(Run, "weights", lambda run: loaded.append(1) or real(run))
    evaluate_perturbations(run, (FAR, HIDDEN), benchmark, execution=QUIET)
    assert loaded == [1]
    monkeypatch.setattr(perturbations, "TrainedNetwork", never)
    evaluate_perturbations(run, (HIDDEN, FAR), benchmark, execution=QUIET)
    assert loaded == [1]


def test_scores_before_a_failure_are_kept(benchmark, run, monkeypatch):
    real = perturbations.open_perturbed

    def failing(perturbation, *arguments, **options):
        if perturbation == HIDDEN:
            raise KeyboardInterrupt
        return real(perturbation, *arguments, **options)

    monkeypatch.setattr(perturbations, "open_perturbed", failing)
    with pytest.raises(KeyboardInterrupt):
        evaluate_perturbations(run, (FAR, HIDDEN), benchmark, execution=QUIET)
    assert [path.name for path in (run.folder / "conditions").iterdir()] == ["box_jitter-0.24.json"]
    assert stored_scores(run, FAR) and not stored_scores(run, HIDDEN)


@pytest.mark.parametrize(
    "change",
    [
        {"run_data": "of another training"},
        {"data": "of another rendering"},
        {"size": "huge"},
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


def test_decoded_images_are_not_kept(benchmark, run, home):
    before = set(home.rglob("*.npy"))
    evaluate_under(run, Perturbation("box_scale_error", 0.12), benchmark)
    assert set(home.rglob("*.npy")) == before


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
