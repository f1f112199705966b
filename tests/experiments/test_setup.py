"""Setup.gather: runs are loaded, trained, used from another machine, or marked as missing."""

import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scored_runs import write_scored_runs
from torchvision.transforms import Resize

from reidlib import files
from reidlib.analysis import Cell, ExperimentScores
from reidlib.data.images import ImageStore
from reidlib.errors import InputError
from reidlib.experiments import obtain as experiments
from reidlib.experiments import perturbations
from reidlib.experiments.rows import EXPERIMENTS, PROFILES, Perturbation
from reidlib.experiments.setup import MissingRun, Setup
from reidlib.training.device import Execution

QUIET = Execution(device="cpu", progress=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REIDLIB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def smoke(home):
    return Setup("smoke", device="cpu").data


@pytest.fixture(scope="module")
def trained(smoke, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, gather(folder, seeds=2)


def gather(folder, names=("jlml",), *, under=None, **keywords):
    setup = Setup("smoke", runs=folder, device="cpu", progress=False, **keywords)
    return setup.gather(names, perturbations=under)


def test_a_run_for_each_seed(trained):
    _, result = trained
    assert [run.configuration["seed"] for run in result.runs["jlml"]] == [0, 1]
    assert result.missing == ()
    first, second = ExperimentScores(result).branch_scores(Cell("jlml"))
    assert first["step"]["cmc"].keys() == second["step"]["cmc"].keys()
    assert len(first["query_person_ids"]) == 60
    assert ExperimentScores(result).branch_scores(Cell("jlml", "global"))[0] != first
    assert ExperimentScores(result).branch_scores(Cell("jlml", "level 3")) == [None, None]
    assert re.match(
        rf"\d runs, trained in \d+ s together on {re.escape(QUIET.describe())}\.$", result.summary()
    )
    assert all(record["seconds"] > 0 for record in result.records())
    assert result.records()[1].keys() >= {"experiment", "seed", "run", "device", "commit", "seconds"}


def test_nothing_is_trained_if_may_train_is_false(smoke, trained):
    folder, _ = trained
    before = sorted(folder.iterdir())
    result = gather(folder, ("jlml", "jlml-2"), seeds=3, may_train=False)
    assert sorted(folder.iterdir()) == before
    assert [isinstance(run, MissingRun) for run in result.runs["jlml"]] == [False, False, True]
    assert ExperimentScores(result).branch_scores(Cell("jlml-2")) == [None] * 3
    assert len(result.missing) == 4
    assert "the run must exist" in str(result.missing[0])
    assert result.records()[-1].keys() == {"experiment", "seed", "missing"}
    assert "missing" in result.summary()


def test_one_failure_does_not_affect_the_others(smoke, trained, tmp_path, monkeypatch):
    folder = tmp_path / "runs"
    shutil.copytree(trained[0], folder)
    obtain = experiments.obtain

    def diverging(links, **keywords):
        if links[0].configuration.model.parts == 2:
            raise FloatingPointError("identity_global is not finite in step 7\nmore")
        return obtain(links, **keywords)

    monkeypatch.setattr(experiments, "obtain", diverging)
    result = gather(folder, ("jlml-2", "jlml"))
    reason = "FloatingPointError: identity_global is not finite in step 7"
    assert str(result.missing[0]) == f"jlml-2, seed 0: {reason}"
    assert len(result.missing) == 1
    assert ExperimentScores(result).branch_scores(Cell("jlml"))[0] is not None
    assert ExperimentScores(result).difference([Cell("jlml")], [Cell("jlml-2")], "R1") is None


def test_why_a_training_failed_is_known_afterwards(smoke, tmp_path, monkeypatch):
    def diverging(*arguments, **keywords):
        raise FloatingPointError("identity_local is not finite in step 3\nmore")

    with monkeypatch.context() as patch:
        patch.setattr(experiments, "train", diverging)
        assert "not finite in step 3" in gather(tmp_path).missing[0].reason
    result = gather(tmp_path, may_train=False)
    assert "its training failed: FloatingPointError: identity_local is not finite in step 3" in str(
        result.missing[0]
    )
    assert not gather(tmp_path).missing
    assert not list(tmp_path.glob("*/failure.txt"))


def test_scores_of_other_data_are_not_used(smoke, trained, tmp_path):
    carried = tmp_path / "runs"
    shutil.copytree(trained[0], carried)
    for path in carried.glob("*seed0*/scores.json"):
        path.write_text(path.read_text().replace(smoke.fingerprint, "0" * 16))
        (path.parent / "weights.pt").unlink()
    assert isinstance(gather(carried).runs["jlml"][0], MissingRun)


def test_a_damaged_record_does_not_affect_the_others(smoke, trained, tmp_path):
    carried = tmp_path / "runs"
    shutil.copytree(trained[0], carried)
    for path in carried.glob("*seed0*/run.json"):
        path.write_text("[]")
    result = gather(carried, seeds=2)
    assert [isinstance(run, MissingRun) for run in result.runs["jlml"]] == [True, False]
    assert result.summary() and result.records()


def test_an_error_of_the_program_is_not_a_missing_row(smoke, tmp_path, monkeypatch):
    def broken(*arguments, **keywords):
        raise AttributeError("no such thing")

    monkeypatch.setattr(experiments, "obtain", broken)
    with pytest.raises(AttributeError):
        gather(tmp_path)


def test_a_run_from_another_machine_is_used_with_or_without_weights(smoke, trained, tmp_path):
    _, original = trained
    carried = tmp_path / "runs"
    for run, name in zip(original.runs["jlml"], ("from-the-gpu", "also"), strict=True):
        shutil.copytree(run.folder, carried / run.folder.name.replace("jlml-smoke-synthetic", name))
    for weights in carried.glob("also*/weights.pt"):
        weights.unlink()
    before = {path: path.stat().st_mtime_ns for path in carried.rglob("*")}
    result = gather(carried, seeds=2)
    assert [run.folder.name.partition("-seed")[0] for run in result.runs["jlml"]] == ["from-the-gpu", "also"]
    assert ExperimentScores(result).branch_scores(Cell("jlml")) == ExperimentScores(original).branch_scores(
        Cell("jlml")
    )
    assert {path: path.stat().st_mtime_ns for path in carried.rglob("*")} == before


def test_scores_of_an_older_version_are_renewed_if_the_run_has_weights(smoke, trained, tmp_path):
    folder, original = trained
    carried = tmp_path / "runs"
    shutil.copytree(folder, carried)
    for number, path in enumerate(sorted(carried.glob("*/scores.json"))):
        text = path.read_text()
        assert '"format"' in text
        path.write_text(text.replace('"format"', '"formerly"'))
        if number:
            (path.parent / "weights.pt").unlink()
    result = gather(carried, seeds=2)
    assert result.missing == ()
    assert result.runs["jlml"][0].scores == original.runs["jlml"][0].scores
    assert "formerly" in result.runs["jlml"][1].scores  # without weights they cannot be renewed


def test_damaged_scores_are_computed_again(trained, tmp_path):
    carried = tmp_path / "runs"
    shutil.copytree(trained[0], carried)
    for number, path in enumerate(sorted(carried.glob("*/scores.json"))):
        path.write_text(path.read_text()[:1000])
        if number:
            (path.parent / "weights.pt").unlink()
    result = gather(carried, seeds=2, may_train=False)
    assert result.runs["jlml"][0].scores == trained[1].runs["jlml"][0].scores
    assert isinstance(result.runs["jlml"][1], MissingRun)  # neither scores nor weights
    assert len(result.missing) == 1


def test_old_scores_use_the_persons_of_the_benchmark(smoke, trained, tmp_path):
    carried = tmp_path / "runs"
    shutil.copytree(trained[0], carried)
    for path in carried.glob("*seed0*/scores.json"):
        path.write_text(path.read_text().replace('"query_person_ids"', '"formerly"'))
        (path.parent / "weights.pt").unlink()
    result = gather(carried)
    assert (
        list(ExperimentScores(result).branch_scores(Cell("jlml"))[0]["query_person_ids"])
        == smoke.query.person_ids.tolist()
    )


def test_without_weights_and_scores_it_is_missing(smoke, trained, tmp_path):
    carried = tmp_path / "runs"
    shutil.copytree(trained[0], carried)
    for name in ("weights.pt", "scores.json"):
        for path in carried.glob(f"*seed0*/{name}"):
            path.unlink()
    result = gather(carried, seeds=2)
    assert [isinstance(run, MissingRun) for run in result.runs["jlml"]] == [True, False]
    assert "weights" in result.missing[0].reason


def test_perturbations_that_cannot_be_evaluated_do_not_affect_the_run(smoke, trained, tmp_path):
    carried = tmp_path / "runs"
    shutil.copytree(trained[0], carried)
    for path in carried.glob("*/weights.pt"):
        path.unlink()
    perturbation = Perturbation("box_jitter", 0.24)
    result = gather(carried, under={"jlml": (perturbation,)})
    assert ExperimentScores(result).branch_scores(Cell("jlml"))[0] is not None
    assert ExperimentScores(result).branch_scores(Cell("jlml", perturbation=perturbation)) == [None]
    assert "perturbations: " in result.missing[0].reason
    assert result.records()[-1].keys() == {"experiment", "seed", "missing"}  # so that it is tried again


def test_perturbations_are_evaluated_once(smoke, trained, monkeypatch):
    folder, _ = trained
    perturbation = Perturbation("box_jitter", 0.24)
    cell = Cell("jlml", perturbation=perturbation)
    scores = ExperimentScores(gather(folder, under={"jlml": (perturbation,)})).branch_scores(cell)
    assert scores[0]["step"]["average_precision"]

    def never(*arguments, **keywords):
        raise AssertionError("rendered again")

    monkeypatch.setattr(perturbations, "perturbed_images", never)
    assert ExperimentScores(gather(folder, under={"jlml": (perturbation,)})).branch_scores(cell) == scores


def test_each_file_of_scores_is_read_once(tmp_path):
    result = write_scored_runs(tmp_path, {"jlml": [{"full": 0.5}]})
    first = result.branch_scores(Cell("jlml"))
    (tmp_path / "jlml-0" / "scores.json").unlink()
    assert result.branch_scores(Cell("jlml")) is first


@pytest.mark.parametrize(
    ("names", "keywords", "words"),
    [
        (["jlm"], {}, "a model is one of.*'jlm'; did you mean jlml"),
        (["jlml"], {"seeds": 0}, "seeds is a whole number of at least 1; got 0"),
    ],
)
def test_bad_input_is_named(smoke, tmp_path, names, keywords, words):
    with pytest.raises(InputError, match=words):
        gather(tmp_path, names, **keywords)


# --- setups -------------------------------------------------------------------------------------------------


def test_a_setup_reads_nothing_and_loads_no_torch():
    program = (
        "import sys\n"
        "from reidlib import experiments\n"
        "experiments.Setup('paper', 'cuhk03,boxes=detected', 'nowhere', seeds=3)\n"
        "print(len(experiments.EXPERIMENTS), 'torch' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == f"{len(EXPERIMENTS)} False"


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_no_profile_changes_what_a_row_varies(profile):
    # A profile's field wins over a row's: that row would be the baseline under another name.
    for name, row in EXPERIMENTS.items():
        overrides = profile.size_of(name).overrides
        assert all(overrides.get(field, value) == value for field, value in row.overrides.items()), name


def test_the_papers_images_are_resized_as_by_the_released_code(smoke):
    """That code calls torchvision's Resize with interpolation 3, which is bicubic."""
    paths, size = smoke.query.paths[:4], PROFILES["paper"].sizes["pyramid"]
    images = ImageStore.open(paths, size.input_size, resize=size.resize)
    for path, image in zip(paths, images.array_nhwc, strict=True):
        assert np.array_equal(image, np.asarray(Resize(size.input_size, interpolation=3)(Image.open(path))))


def test_names_are_looked_up_once():
    setup = Setup("quick", "cuhk03,boxes=detected,trial=3", "nowhere")
    assert setup.profile is PROFILES["quick"]
    assert setup.specification == ("cuhk03", {"boxes": "detected", "trial": 3})
    assert setup.runs == files.runs()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("quik",), "smoke, quick, full, photographs, paper; got 'quik'; did you mean quick"),
        (("smoke", "market1051"), "did you mean market1501"),
        (("smoke", "market1501,boxes=detected"), "the protocol keywords of market1501 are"),
    ],
)
def test_unknown_names_are_refused_at_once(arguments, words):
    with pytest.raises(InputError, match=words):
        Setup(*arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("smoke", "market1501"), "benchmark 'market1501' is read from a folder"),
        (("paper",), "profile 'paper' trains on a real benchmark's folder"),
    ],
)
def test_a_missing_data_folder_is_named(arguments, words):
    with pytest.raises(InputError, match=words):
        Setup(*arguments).check_data_folder()
    with pytest.raises(InputError, match=words):
        _ = Setup(*arguments).data


def test_the_benchmark_is_opened_once_and_not_pickled(smoke):
    setup = Setup("smoke", device="cpu")
    assert setup.data is setup.data
    carried = pickle.dumps(setup)
    assert len(carried) < 5000
    copy = pickle.loads(carried)
    assert copy == setup and "data" not in vars(copy)
    assert copy.data.fingerprint == smoke.fingerprint
