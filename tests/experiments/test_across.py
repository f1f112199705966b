"""Scores of a run on another benchmark than its own: kept beside its own, computed once, or refused."""

import json

import pytest
from small_miniatures import write_cuhk01, write_viper
from untrained_runs import JLML, QUIET, untrained_run

from reidlib.cli import main
from reidlib.data import load, load_specified
from reidlib.errors import InputError
from reidlib.experiments import evaluate as evaluation
from reidlib.experiments.evaluate import evaluate_across, evaluate_run, load_benchmark
from reidlib.ranking.protocols import evaluate_protocol
from reidlib.training.checkpoint import save_tensors

VIPER = "viper,test_persons=2"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture
def viper(tmp_path):
    return write_viper(tmp_path / "viper")


@pytest.fixture
def run(market, tmp_path):
    """A scored run on the miniature of Market-1501."""
    benchmark = load("market1501", market)
    run = untrained_run(benchmark, tmp_path / "runs", JLML)
    (run.folder / "run.json").write_text(json.dumps({"data_root": str(market)}))
    evaluate_run(run, benchmark, execution=QUIET)
    return type(run)(run.folder)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def evaluate(run, *words):
    return main(["evaluate", str(run.folder), "--device", "cpu", *map(str, words)])


def refused(capsys, run, *words):
    before = contents(run.folder)
    assert evaluate(run, *words) == 2
    error = capsys.readouterr().err.splitlines()
    assert contents(run.folder) == before
    assert error[-1].startswith("reidlib: error: ")
    return error[-1]


def test_scores_are_those_of_the_other_benchmarks_protocols_and_its_own_stay(run, viper, capsys):
    own = contents(run.folder)
    assert evaluate(run, "--benchmark", f"{VIPER},trial=3", "--data-root", viper) == 0
    printed, messages = capsys.readouterr()
    assert f"on {VIPER},trial=3 in {viper}" in messages and "note: " not in messages
    assert "single-shot (the benchmark's own protocol): R1 " in printed
    assert "2 of 2 queries have a match" in printed
    after = contents(run.folder)
    (added,) = after.keys() - own.keys()
    assert {name: after[name] for name in own} == own
    tested = load_specified(f"{VIPER},trial=3", viper)
    assert str(added) == f"across/{VIPER},trial=3-{tested.fingerprint}.json"
    scores = json.loads(after[added])
    assert (scores["benchmark"], scores["data"]) == (tested.specification, tested.fingerprint)
    assert scores["not_compared"] == [] and scores["training_persons"] == 2
    network = evaluation.TrainedNetwork(run, QUIET)
    sides = [network.embed(split) for split in (tested.query, tested.gallery)]
    expected = evaluate_protocol(*sides, tested.protocols["single-shot"], ranks=evaluation.TABLE_RANKS)
    assert scores["branches"]["full"]["protocols"] == {
        "single-shot": json.loads(json.dumps(expected.to_dict()))
    }


def test_scores_are_computed_once_for_each_data_and_weights(run, viper, monkeypatch):
    computed = []
    compute = evaluation._compute_scores
    monkeypatch.setattr(
        evaluation, "_compute_scores", lambda *words: computed.append(words) or compute(*words)
    )
    tested = load_specified(VIPER, viper)
    first = evaluate_across(run, tested, execution=QUIET)
    assert evaluate_across(run, tested, execution=QUIET) == first and len(computed) == 1
    (file,) = (run.folder / "across").iterdir()
    for damage in (
        file.read_bytes()[:100],
        b'{"branches": 3}',
        b"[]",
        file.read_bytes().replace(b"cmc", b"c"),
    ):
        file.write_bytes(damage)
        assert evaluate_across(run, tested, execution=QUIET) == first
        assert json.loads(file.read_text()) == json.loads(json.dumps(first))
    assert len(computed) == 5
    weights = {name: 2 * tensor for name, tensor in run.weights().items()}  # of another training
    save_tensors(run.folder / "weights.pt", weights)
    assert evaluate_across(run, tested, execution=QUIET)["network"] != first["network"]
    (run.folder / "weights.pt").unlink()  # then what is stored is the best there is
    assert evaluate_across(run, tested, execution=QUIET)["benchmark"] == VIPER and len(computed) == 6
    assert len(list((run.folder / "across").iterdir())) == 1


def test_the_runs_own_benchmark_has_its_own_scores(run, market, capsys):
    before = contents(run.folder)
    assert evaluate(run, "--benchmark", "market1501", "--data-root", market) == 0
    assert "note: market1501 is the run's own benchmark: these are its own scores" in capsys.readouterr().err
    assert contents(run.folder).keys() == before.keys()
    assert json.loads((run.folder / "scores.json").read_text()) == run.scores


def test_what_was_not_compared_is_said_and_kept(run, viper, market, capsys):
    market.rename(market.with_name("away"))
    assert evaluate(run, "--benchmark", VIPER, "--data-root", viper) == 0
    note = capsys.readouterr().err.splitlines()[-1]
    assert note.startswith("note: the training images of ") and "was not compared" in note
    (file,) = (run.folder / "across").iterdir()
    assert json.loads(file.read_text())["not_compared"] == [note.removeprefix("note: ")]
    market.with_name("away").rename(market)
    assert evaluate(run, "--benchmark", VIPER, "--data-root", viper) == 0
    assert json.loads(file.read_text())["not_compared"] == []


def test_scores_that_cannot_be_kept_are_printed(run, viper, capsys):
    (run.folder / "across").write_text("no folder")  # root may write to a folder without rights
    assert evaluate(run, "--benchmark", VIPER, "--data-root", viper) == 1
    printed, messages = capsys.readouterr()
    assert "2 of 2 queries have a match" in printed
    assert "these scores were not kept" in messages.splitlines()[-1]


def test_bad_input_gets_one_line_and_changes_nothing(run, viper, market, tmp_path, capsys):
    def words(*more):
        return refused(capsys, run, *more)

    root = ("--data-root", viper)
    assert "did you mean viper?" in words("--benchmark", "vipr", *root)
    assert "give --data-root" in words("--benchmark", "viper")
    assert "nowhere" in words("--benchmark", "viper", "--data-root", "nowhere")
    assert "a profile is one of" in words("--benchmark", "synthetic", "--profile", "fast")
    for more in ((), ("--benchmark", VIPER, *root), ("--benchmark", "synthetic", *root)):
        assert "--profile is for --benchmark synthetic" in words("--profile", "smoke", *more)
    assert "leave out one" in words("--benchmark", VIPER, *root, "--distractors")
    alone = words("--benchmark", "market1501,training_only=true", "--data-root", market)
    assert "evaluated on query and gallery" in alone
    cuhk01 = write_cuhk01(tmp_path / "cuhk01")
    image = load_specified("cuhk01,test_persons=2", cuhk01).query.paths[0]
    image.write_bytes(image.read_bytes()[:-60])
    assert image.name in words("--benchmark", "cuhk01,test_persons=2", "--data-root", cuhk01)
    (run.folder / "weights.pt").unlink()
    assert "needs the run's weights" in words("--benchmark", VIPER, *root)


def test_a_leak_is_refused_in_one_line(viper, tmp_path, capsys):
    trials = [load_specified(f"{VIPER},trial={trial}", viper) for trial in range(10)]
    run = untrained_run(trials[0], tmp_path / "runs")
    content = {**run.configuration, "benchmark": trials[0].specification}
    (run.folder / "config.json").write_text(json.dumps(content))
    (run.folder / "run.json").write_text(json.dumps({"data_root": str(viper)}))
    trained = {*trials[0].train.person_ids.tolist()}
    leaking = next(trial for trial in trials if trained & {*trial.query.person_ids.tolist()})
    message = refused(capsys, run, "--benchmark", leaking.specification, "--data-root", viper)
    assert "a run is scored on persons that it and the runs before it were not trained on; got " in message
    with pytest.raises(InputError, match="were not trained on"):  # for the ranking browser
        load_benchmark(run, viper, benchmark=leaking.specification)
    assert f"of {leaking.specification}: " in message and message.endswith("by the reader folder or csv")


def test_rendered_people_need_no_folder(run, monkeypatch, capsys, tmp_path):
    from reidlib.data.synthetic import render

    asked = []

    def render_nothing(size, folder, **_):
        asked.append((size, folder))
        raise InputError("a rule", "a value", "a mend")

    monkeypatch.setattr(render, "render", render_nothing)
    assert evaluate(run, "--benchmark", "synthetic", "--profile", "smoke") == 2
    assert asked == [("smoke", tmp_path / "home" / "data" / "synthetic-smoke")]
    assert "give --benchmark and --data-root" in refused(
        capsys, run, "--benchmark", "synthetic", "--profile", "paper"
    )
