"""The command line: what each command does, and one line for every bad input."""

import inspect
import io
import json
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from miniature import MINIATURE, write_image
from PIL import Image

from reidlib.cli import commands, main
from reidlib.data import BENCHMARKS, load
from reidlib.data.synthetic import render
from reidlib.experiments.obtain import plan_training
from reidlib.experiments.rows import EXPERIMENTS, PROFILES, ModelSize, configure, settable_fields
from reidlib.reports import reproduce
from reidlib.training.config import MODELS, Augmentation, Recipe, RunConfiguration
from reidlib.training.runs import Run


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def tiny(monkeypatch):
    """Profiles of two steps for the miniature's five training images of two people."""
    recipe = Recipe(steps=2, batch_size=4, augmentation=Augmentation(pad=1))
    monkeypatch.setitem(PROFILES["smoke"].sizes, "jlml", ModelSize((32, 16), {"width": 0.125}, recipe))
    scaled = {"trunk": "resnet39", "width": 0.125, "stripes": 2, "embedding_size": 8}
    size = ModelSize((32, 16), scaled, replace(recipe, images_per_identity=2))
    monkeypatch.setitem(PROFILES["smoke"].sizes, "pyramid", size)


def refused(capsys, *arguments) -> str:
    """Run a command that must be refused; return its one line."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("reidlib")]
    assert code == 2
    assert len(error) == 1, error
    return error[0]


def train(market, *more) -> list:
    return ["train", "jlml", "--profile", "smoke", "--benchmark", "market1501", "--data-root", market, *more]


def test_train_and_evaluate_a_pyramid(market, tiny, capsys, tmp_path):
    arguments = train(market, "--runs", tmp_path / "runs", "--device", "cpu")
    arguments[1] = "pyramid"
    assert main(list(map(str, arguments))) == 0
    trained, messages = capsys.readouterr()
    assert "\ntraining pyramid on market1501 (5 images) on cpu" in messages
    folder = next((tmp_path / "runs").glob("pyramid-smoke-market1501-seed0-*"))
    run = Run.open(folder)
    assert set(run.scores["branches"]) == {"full", "level 1", "level 2"}
    assert run.steps.keys() >= {"identity", "triplet", "weight_triplet", "balanced_batches"}
    assert RunConfiguration.from_json(run.configuration).to_json() == run.configuration
    (folder / "scores.json").unlink()
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
    scores = [line for line in trained.splitlines() if line.startswith(("full", "level"))]
    printed, messages = capsys.readouterr()
    again = printed.splitlines()
    assert f"evaluating {folder.name} on market1501 in {market}" in messages.splitlines()
    assert len(scores) == 3
    assert set(scores) <= set(again)


def test_more_identities_a_batch_than_the_data_have_are_refused(market, tiny, monkeypatch, capsys, tmp_path):
    size = PROFILES["smoke"].sizes["pyramid"]
    recipe = replace(size.recipe, batch_size=6, steps=None, epochs=1)
    monkeypatch.setitem(PROFILES["smoke"].sizes, "pyramid", replace(size, recipe=recipe))
    arguments = train(market, "--runs", tmp_path / "runs", "--device", "cpu")
    arguments[1] = "pyramid"
    assert "6, and 3 persons; got 5 images of 2 persons" in refused(capsys, *arguments)
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_height_that_the_stripes_do_not_divide_is_refused_before_anything_else(
    market, tiny, monkeypatch, capsys
):
    size = PROFILES["smoke"].sizes["pyramid"]
    monkeypatch.setitem(PROFILES["smoke"].sizes, "pyramid", replace(size, input_size=(48, 16)))
    arguments = train(market, "--device", "cpu")
    arguments[1] = "pyramid"
    assert "use a height of 32 or 64" in refused(capsys, *arguments)


def test_torchrun_trains_and_finds_the_run_again(tmp_path_factory):
    """Two processes of the real command make one run, one history and one table; then the run is found.

    Pyramid's command is among the README's, and its trainings are among those of test_distributed.py.
    """
    home = tmp_path_factory.getbasetemp() / "torchrun-home"  # that of the next test
    environment = {**os.environ, "REIDLIB_HOME": str(home), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "-m", "reidlib", "train", "jlml", "--profile", "smoke", "--device", "cpu"]
    command += ["--validate", "4"]
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stderr.count("in 2 processes") == 1
    assert first.stdout.count("60 of 60 queries have a match") == 1
    assert second.stdout == first.stdout
    (folder,) = (home / "runs").glob("jlml-smoke-synthetic-seed0-validate4-*")
    run = Run.open(folder)
    assert run.information["processes"] == 2
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert 0 < run.history[-1]["validation_map"] <= 1


def test_a_refusal_of_the_first_process_is_one_line(tmp_path_factory, tmp_path):
    """The other process waits for its answer meanwhile, and ends without a message."""
    (tmp_path / "file").touch()
    home = tmp_path_factory.getbasetemp() / "torchrun-home"
    environment = {**os.environ, "REIDLIB_HOME": str(home), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, "-m", "reidlib", "train", "jlml", "--profile", "smoke", "--device", "cpu"]
    command += ["--runs", str(tmp_path / "file" / "runs")]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert process.returncode != 0
    assert process.stderr.count("reidlib: error: the folder of runs can be written") == 1
    assert "broadcast_from_first" not in process.stderr


def test_train_and_evaluate(market, tiny, capsys, tmp_path):
    arguments = [str(a) for a in train(market, "--runs", tmp_path / "runs", "--device", "cpu")]
    assert main(arguments) == 0
    printed, messages = capsys.readouterr()
    assert "training jlml on market1501 (5 images) on cpu" in messages
    assert "training" not in printed
    assert "2 of 2 queries have a match" in printed
    folder = next((tmp_path / "runs").glob("jlml-smoke-market1501-seed0-*"))
    files = {path.name for path in folder.iterdir()}
    assert files == {
        "config.json", "history.jsonl", "run.json", "scores.json", "rankings.npz", "steps.npz", "weights.pt"
    }  # fmt: skip
    before = json.loads((folder / "scores.json").read_text())
    (folder / "scores.json").unlink()
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
    assert json.loads((folder / "scores.json").read_text()) == before
    assert len(before["branches"]["full"]["step"]["average_precision"]) == 2
    # A second training of the same finds the first.
    started = (folder / "weights.pt").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (folder / "weights.pt").stat().st_mtime_ns == started


def test_set_fields_give_a_run_of_their_own(market, tiny, capsys, tmp_path):
    arguments = [str(a) for a in train(market, "--runs", tmp_path / "runs", "--device", "cpu")]
    settings = ["--set", "recipe.steps=3", "--set", "model.parts=2"]
    assert main([*arguments, *settings]) == 0
    folder = Path(re.search("^run: (.+)$", capsys.readouterr().out, re.MULTILINE)[1])
    assert folder.name.startswith("jlml-smoke-market1501-seed0-model.parts=2,recipe.steps=3-")
    run = Run.open(folder)
    assert (run.information["steps"], run.configuration["model"]["parts"]) == (3, 2)
    assert main(arguments) == 0
    own = re.search("^run: (.+)$", capsys.readouterr().out, re.MULTILINE)[1]
    assert main([*arguments, "--set", "recipe.steps=2", "--set", "model.width=0.1250"]) == 0
    assert f"run: {own}\n" in capsys.readouterr().out  # the row's own values: no training
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 2


def test_pretraining_and_training_have_the_same_set_fields(market, tiny, tmp_path):
    shutil.copytree(market, other := tmp_path / "other")
    write_image(other / "bounding_box_train" / "0002_c2s1_000001_00.jpg")
    shutil.rmtree(other / "query")
    before = f"market1501,training_only=true={other}"
    words = train(market, "--runs", tmp_path / "runs", "--device", "cpu", "--pretrain", before)
    assert main([*map(str, words), "--set", "model.parts=2"]) == 0
    assert len(runs := list((tmp_path / "runs").glob("*-model.parts=2-*/config.json"))) == 2
    assert all(json.loads(path.read_text())["model"]["parts"] == 2 for path in runs)


def test_a_network_that_no_memory_holds_is_told_in_one_line(market, tiny, capsys, monkeypatch):
    def build(*_):
        raise RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 9 bytes.\nmore")

    monkeypatch.setattr("reidlib.experiments.obtain._initial_model", build)
    words = "fits into memory; got [enforce fail] can't allocate memory: you tried to allocate 9 bytes.; use"
    assert words in refused(capsys, *train(market, "--device", "cpu"))


def test_evaluate_refuses_an_unfinished_run(market, tiny, capsys, tmp_path):
    assert "holds config.json" in refused(capsys, "evaluate", tmp_path)
    assert main([str(a) for a in train(market, "--runs", tmp_path / "runs", "--device", "cpu")]) == 0
    folder = next((tmp_path / "runs").glob("jlml-*"))
    write_image(market / "query" / "0001_c2s1_001051_00.jpg")
    assert "give the folder that it was trained on" in refused(capsys, "evaluate", folder)
    (market / "query" / "0001_c2s1_001051_00.jpg").unlink()
    weights = (folder / "weights.pt").read_bytes()
    (folder / "weights.pt").write_bytes(weights[:100])
    assert "readable by torch.load" in refused(capsys, "evaluate", folder)
    (folder / "weights.pt").unlink()
    assert "needs the run's weights" in refused(capsys, "evaluate", folder)
    (folder / "run.json").unlink()
    assert "continues from its checkpoint" in refused(capsys, "evaluate", folder)


def test_a_run_of_another_configuration_is_refused(market, tiny, capsys, tmp_path):
    arguments = train(market, "--runs", tmp_path / "runs", "--device", "cpu")
    assert main([str(a) for a in arguments]) == 0
    folder = next((tmp_path / "runs").glob("jlml-*"))
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**configuration, "seed": 7}))
    assert "whose seed differ" in refused(capsys, *arguments)
    assert Run.open(folder).configuration["seed"] == 7  # nothing was overwritten


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "jmlm"], "a model is one of jlml"),
        (["train", "jlml", "--profile", "quik"], "did you mean quick?"),
        (["train", "jlml", "--benchmark", "market1051"], "did you mean market1501"),
        (["train", "jlml", "--benchmark", "market1501"], "--data-root"),
        (["train", "jlml", "--profile", "paper"], "real benchmark's folder"),
        (["train", "al"], "did you mean all?"),
        (["train", "jlml-7"], "did you mean jlml-"),
        (["train", "jlml", "--set", "model.parts"], "FIELD=VALUE, not 'model.parts'"),
        (["train", "jlml", "--set", "model.part=6"], "got 'model.part'; name model.parts;"),
        (["train", "jlml", "--set", "model.parts=six"], "model.parts is a whole number; got 'six'"),
        (["train", "jlml", "--set", "recipe.epochs=0"], "a training has a positive length"),
        (["train", "jlml", "--set", "recipe.epochs=3", "--set", "recipe.epochs=3"], "a field is set once"),
        (["train", "jlml", "--seeds", "2"], "--seeds, --jobs, --folder and --trials are for all rows"),
        (["train", "jlml", "--jobs", "2"], "--seeds, --jobs, --folder and --trials are for all rows"),
        (["train", "all", "--set", "recipe.epochs=3"], "as notebooks compare them"),
        (["train", "all", "--seed", "3"], "got --seed"),
        (["train", "all", "--validate", "30"], "got --validate"),
        (["train", "jlml", "--validate", "1"], "a whole number from 2 is needed, not '1'"),
        (["train", "jlml", "--set", "validation_persons=30"], "--validate are other options"),
        (["train", "all", "--compile", "--pretrain", "grid=DIR"], "got --pretrain, --compile"),
        (["train", "all", "--profile", "paper"], "real benchmark's folder"),
        (["train", "all", "--curve"], "got --curve"),
        (
            ["train", "jlml", "--curve", "--profile", "paper", "--data-root", ".", "--pretrain", "synthetic"],
            "=DIR",
        ),
        (["train", "jlml", "--curve", "--seed", "1", "--trials", "2"], "got --seed, --trials"),
        (["train", "jlml", "--curve", "--benchmark", "market1501"], "give --data-root"),
        (["train", "jlml", "--curve", "--benchmark", "synthetic,train_persons=3"], "give synthetic"),
        (["train", "all", "--seeds", "0"], "--seeds"),
        (["train", "all", "--jobs", "5000"], "use --jobs "),
        (["reproduce", "20", "--jobs", "5000"], "use --jobs "),
        (["train", "jlml", "--seed", "one"], "a seed is a whole number"),
        (["trian", "jlml"], "invalid choice: 'trian'"),
        ([], "required: COMMAND"),
        (["check", "market1501"], "required: ROOT"),
        (["check", "market1501", "no/such/folder"], "no/such/folder"),
        (["check", "market", "."], "market1501"),
        (["render", "quik", "folder"], "quick"),
        (["reproduce", "--profile", "fast"], "a profile is one of"),
        (["reproduce", "77"], "77"),
        (["reproduce", "--profile", "paper"], "real benchmark's folder"),
        (["reproduce", "--benchmark", "market1501"], "give --data-root"),
        (["reproduce", "--device", "tpu"], "the device is one of this machine's"),
        (["reproduce", "--jobs", "0", "--profile", "smoke"], "--jobs"),
        (["reproduce", "20", "--seeds", "0"], "--seeds"),
        (["train", "jlml", "--device", "cpu:x"], "the device is one of"),
        (["reproduce", "--profile", "smoke", "00", "--seeds", "2"], "seeds"),
        (["reproduce", "--benchmark", "market1501", "--data-root", "nowhere"], "nowhere"),
        (["reproduce", "40", "42", "--folder", "market1501,validation=true=."], "exact options of one of"),
        (["reproduce", "40", "--folder", "viper,validation=true=."], "exact options of one of"),
        (["reproduce", "40", "--folder", "market1501,validation=true=nowhere"], "nowhere"),
        (["evaluate", "no/such/run"], "holds config.json"),
    ],
)
def test_bad_arguments_get_one_line(arguments, words, capsys, monkeypatch, tmp_path, home):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(render, "_write", lambda *_, **__: pytest.fail("rendered before checking"))
    assert words in refused(capsys, *arguments)


def test_torchrun_does_not_train_all(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "starts its own processes; got torchrun" in refused(capsys, "train", "all", "--profile", "smoke")


def test_train_all_says_what_failed_as_what_it_is(monkeypatch, capsys):
    states = {"jlml-smoke-1": "done", "pyramid-smoke-2": "failed", "perturbed box_jitter": "failed"}
    monkeypatch.setattr(reproduce, "run_tasks", lambda *_, **__: states)
    assert main(["train", "all", "--profile", "smoke"]) == 1
    trainings, failed, runs = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d+ trainings, 1 failed", trainings) and runs.startswith("runs: ")
    assert failed == "perturbed box_jitter: failed"


def test_a_missing_device_is_refused(market, tiny, capsys):
    absent = "mps" if sys.platform != "darwin" else "cuda"
    assert "the device is one of this machine's" in refused(capsys, *train(market, "--device", absent))


def damage_truncated(market, folder="bounding_box_train"):
    path = market / folder / MINIATURE[folder][0]
    path.write_bytes(path.read_bytes()[:-60])
    return path.name


def damage_truncated_query(market):
    return damage_truncated(market, "query")


def damage_truncated_gallery(market):
    return damage_truncated(market, "bounding_box_test")


def damage_misnamed(market):
    shutil.copy(market / "query" / MINIATURE["query"][0], market / "query" / "holiday.jpg")
    return "holiday.jpg"


def damage_missing_folder(market):
    (market / "query").rename(market / "querys")
    return "querys"


def damage_empty(market):
    for path in (market / "query").glob("*.jpg"):
        path.unlink()
    return "query"


def damage_overlap(market):
    write_image(market / "bounding_box_train" / "0001_c3s1_000001_01.jpg")
    return "both"


def damage_single_camera(market):
    for folder in ("query", "bounding_box_test"):
        for path in (market / folder).glob("[0-]*.jpg"):
            person, rest = path.name.split("_c", 1)
            path.rename(path.with_name(f"{person}_c1{rest[1:]}"))
    return "camera"


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncated,
        damage_truncated_query,
        damage_truncated_gallery,
        damage_misnamed,
        damage_missing_folder,
        damage_empty,
        damage_overlap,
        damage_single_camera,
    ],
)
def test_a_damaged_benchmark_is_refused_before_training(damage, market, tiny, capsys, tmp_path):
    words = damage(market)
    line = refused(capsys, *train(market, "--runs", tmp_path / "runs", "--device", "cpu"))
    assert words in line
    assert not list(tmp_path.glob("runs/*/*"))  # nothing was trained


def test_check_lists_everything_that_is_wrong(market, capsys):
    damage_truncated(market)
    damage_misnamed(market)
    assert main(["check", "market1501", str(market)]) == 1
    printed = capsys.readouterr().out
    assert "0002_c1s1_000451_03.jpg" in printed
    assert "holiday.jpg" in printed
    assert "12936" in printed.replace(",", "")  # the official count


def test_an_unwritable_output_is_refused(capsys, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "report"
    line = refused(capsys, "reproduce", "--profile", "smoke", "--out", out)
    assert str(out) in line or str(out.parent) in line


def test_every_profile_has_a_name_and_a_size():
    assert list(PROFILES) == [profile.name for profile in PROFILES.values()]
    for profile in PROFILES.values():
        assert MODELS.keys() <= profile.sizes.keys() <= MODELS.keys() | EXPERIMENTS.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_row_has_a_configuration_in_every_profile(name, profile, market):
    configuration = plan_training(name, PROFILES[profile], load("market1501", market)).configuration
    assert RunConfiguration.from_json(json.loads(json.dumps(configuration.to_json()))) == configuration


def rates(recipe, batches):
    """The learning rate in the first step of each epoch."""
    steps = recipe.num_steps(batches)
    return [recipe.learning_rate_at(epoch * batches, steps) for epoch in range(recipe.epochs)]


@pytest.mark.parametrize("name", ["pyramid", "pyramid-official"])
def test_the_papers_recipe_for_pyramid(name, market):
    """The released code: 8 × 8 bicubic images of 384 × 128, 94 batches an epoch, halved at five of 120."""
    configuration = plan_training(name, PROFILES["paper"], load("market1501", market)).configuration
    recipe, model = configuration.recipe, configuration.model
    assert (configuration.input_size, configuration.resize) == ((384, 128), "bicubic")
    assert (model.trunk, model.weights, model.stripes, model.levels) == ("resnet101", "imagenet", 6, None)
    assert (model.embedding_size, model.dropout, model.margin, model.normalisation) == (128, 0.2, 1.4, "none")
    assert (model.normalise_triplet, model.triplet_on) == (False, "parts")
    assert (recipe.batch_size, recipe.images_per_identity, recipe.epochs) == (64, 8, 120)
    assert (recipe.momentum, recipe.nesterov, recipe.weight_decay) == (0.9, False, 5e-4)
    assert recipe.augmentation == Augmentation(flip=0.5, pad=0, erase=0.2, erasing="zhong")
    batches = recipe.steps_per_epoch(12_936, 751)  # Market-1501
    assert (batches, recipe.num_steps(batches)) == (94, 11_280)
    by_epoch = rates(recipe, batches)
    halvings = [epoch for epoch in range(1, 120) if by_epoch[epoch] != by_epoch[epoch - 1]]
    assert halvings == [60, 70, 80, 90, 100]
    assert by_epoch[0] == 0.1
    assert by_epoch[119] == pytest.approx(0.1 / 32)
    assert recipe.trunk_rate * by_epoch[0] == pytest.approx(0.01)


def test_youreids_recipe_for_pyramid(market):
    """One rate of 0.02 for all layers, halved four times; shifts of 10 pixels; unit length; the gate."""
    configuration = plan_training(
        "pyramid-youreid", PROFILES["paper"], load("market1501", market)
    ).configuration
    recipe, model = configuration.recipe, configuration.model
    assert (configuration.input_size, configuration.resize) == ((384, 128), "bilinear")
    assert (model.trunk, model.weights, model.margin) == ("resnet101", "imagenet", 1.4)
    assert (model.normalise_triplet, model.normalisation, model.balancing.mode) == (True, "part", "official")
    assert (recipe.learning_rate, recipe.trunk_rate) == (0.02, 1.0)
    assert recipe.augmentation == Augmentation(flip=0.5, pad=10, erase=0.5, erasing="zhong")
    batches = recipe.steps_per_epoch(12_936, 751)
    by_epoch = rates(recipe, batches)
    assert [epoch for epoch in range(1, 120) if by_epoch[epoch] < by_epoch[epoch - 1]] == [60, 70, 80, 90]
    assert (batches, by_epoch[119]) == (202, 0.02 / 16)


@pytest.mark.parametrize("profile", ["smoke", "quick", "full"])
def test_other_profiles_take_youreids_rate_and_erasing_only(profile, market):
    benchmark = load("market1501", market)
    own, official = (
        plan_training(name, PROFILES[profile], benchmark).configuration
        for name in ("pyramid-youreid", "pyramid-official")
    )
    augmentation = replace(official.recipe.augmentation, erase=0.5)
    changes = {"learning_rate": 0.02, "trunk_rate": 1.0, "augmentation": augmentation}
    assert own == replace(official, recipe=replace(official.recipe, **changes))


def test_module_and_command_are_the_same():
    environment = {**os.environ, "COLUMNS": "100"}
    command = Path(sys.executable).with_name("reidlib")
    outputs = [
        subprocess.run([*start, "--help"], capture_output=True, text=True, env=environment, check=True).stdout
        for start in ([sys.executable, "-m", "reidlib"], [command])
    ]
    assert outputs[0] == outputs[1]
    assert all(name in outputs[0] for name in ("reproduce", "train", "evaluate", "check", "render"))


COMMANDS = (
    "reproduce", "train", "plan", "import", "evaluate", "check", "embed", "search", "render", "disk", "clean",
)  # fmt: skip


def help_text(capsys, *command: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_says_what_the_command_does_and_writes(command, capsys):
    text = help_text(capsys, command)
    description = text.split("\n\n")[1]
    assert description[0].isupper() and description.rstrip().endswith(".")
    assert "\nfiles" in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_example_of_a_help_text_is_a_command(command, capsys, monkeypatch):
    """Each example reaches its command with arguments that the parser accepts."""
    lines = help_text(capsys, *command).partition("\nexamples:\n")[2].partition("\n\n")[0]
    examples = re.findall(r"^  .*?reidlib (\w.*?)(?:   .*)?$", lines, re.MULTILINE)
    assert len(examples) >= 2
    names = []
    for name in COMMANDS:
        function = "import_" if name == "import" else name  # a keyword names no function
        monkeypatch.setattr(commands, function, lambda arguments, name=name: names.append(name) or 0)
    for example in examples:
        assert main(shlex.split(example)) == 0, example
    assert names == [example.split()[0] for example in examples]


@pytest.mark.parametrize("command", ["train", "check"])
def test_the_help_lists_every_benchmark_with_its_options(command, capsys):
    lines = help_text(capsys, command).splitlines()
    for name, reader in BENCHMARKS.items():
        (line,) = (line for line in lines if re.match(rf"  {name}(,|$)", line))
        assert all(f",{option}=" in line for option in list(inspect.signature(reader).parameters)[1:])


def test_the_help_of_train_lists_every_row_and_field(capsys):
    words = re.split(r"[,\s]+", help_text(capsys, "train").partition("\nmodels")[2])
    assert set(EXPERIMENTS) <= set(words)
    for model in ("jlml", "pyramid"):
        fields = configure(model, PROFILES["quick"], benchmark="", data="")[0]
        assert settable_fields(fields).keys() <= set(words)


def test_messages_go_to_standard_error_as_they_are(market, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "check", lambda _: logging.getLogger("reidlib.data").warning("a note") or 0)
    for _ in range(2):  # a second command does not repeat them
        assert main(["check", "market1501", str(market)]) == 0
        assert capsys.readouterr() == ("", "a note\n")


def test_messages_are_not_written_by_handlers_of_the_root_logger_as_well(market, capsys, monkeypatch):
    """As after ``logging.basicConfig()``; the logger is as before afterwards."""
    root, logger = logging.getLogger(), logging.getLogger("reidlib")
    root.addHandler(handler := logging.StreamHandler(sys.stderr))
    before = (logger.handlers, logger.level, logger.propagate)
    monkeypatch.setattr(commands, "check", lambda _: logger.warning("a note") or 0)
    try:
        assert main(["check", "market1501", str(market)]) == 0
        assert capsys.readouterr().err == "a note\n"
        assert (logger.handlers, logger.level, logger.propagate) == before
        logger.warning("afterwards")
        assert "afterwards" in capsys.readouterr().err
    finally:
        root.removeHandler(handler)


def test_messages_go_to_a_handler_that_the_logger_has(market, capsys, monkeypatch):
    logger, stream = logging.getLogger("reidlib"), io.StringIO()
    logger.addHandler(handler := logging.StreamHandler(stream))
    monkeypatch.setattr(commands, "check", lambda _: logger.warning("a note") or 0)
    try:
        assert main(["check", "market1501", str(market)]) == 0
    finally:
        logger.removeHandler(handler)
    assert (stream.getvalue(), capsys.readouterr().err) == ("a note\n", "")


def test_the_help_shows_the_format_of_own_images(capsys):
    text = " ".join(help_text(capsys, "check").split())
    assert "one folder for each person: `PERSON/image` or `PERSON/CAMERA/image`" in text
    assert "columns `path`, `person`, optionally `camera` and `split`" in text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/a/b"), "Permission denied: /a/b; check that it exists"),
        (OSError(28, "No space left on device", "/a/b"), "device: /a/b; free some disk space"),
        (OSError(5, "Input/output error"), "needs; got Input/output error; remove this cause"),
    ],
)
def test_a_file_that_fails_is_told_in_one_line(error, words, capsys, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr(commands, "check", fail)
    assert words in refused(capsys, "check", "market1501", "somewhere")


def test_warnings_about_damaged_files_do_not_leak(market, capsys, recwarn):
    damaged = market / "query" / MINIATURE["query"][0]
    with Image.open(damaged) as image:
        image.save(damaged, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(40)))
    assert main(["check", "market1501", str(market)]) == 1
    # Garbage of other tests may warn, too.
    assert not [each for each in recwarn.list if not issubclass(each.category, ResourceWarning)]
    assert not capsys.readouterr().err


def test_links_in_a_circle_are_told_in_one_line(capsys, monkeypatch, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "loop"))
    line = refused(capsys, "train", "jlml", "--profile", "smoke", "--device", "cpu")
    assert str(tmp_path / "loop") in line


def test_an_argument_without_end_or_with_control_characters_is_told_in_one_line(capsys):
    for word in ("9" * 50_000, "a\nb\rc\x1b[31m", "a\0b"):
        line = refused(capsys, "check", "market1501", word)
        assert len(line) < 3_300 and line.isprintable()


@pytest.fixture
def unprintable(tmp_path):
    """A folder for each of four persons, whose names are Chinese, bytes that are not UTF-8, or ASCII."""
    for person in ("张伟", os.fsdecode(b"J\xfcrgen"), "a", "b"):
        for number in range(1 if len(person) > 1 else 4):
            path = tmp_path / "own" / person / f"{number}_c{number % 2 + 1}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, seed=number)
    return tmp_path / "own"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "shift_jis", "utf-8", "utf-16"])
@pytest.mark.parametrize("damage", [False, True])
def test_a_report_is_printed_in_any_encoding(unprintable, monkeypatch, encoding, damage):
    if damage:
        (unprintable / "a" / "é_c1.jpg").write_bytes(b"no image")
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    assert main(["check", "folder", str(unprintable)]) == int(damage)
    streams[0].flush()
    text = streams[0].buffer.getvalue().decode(encoding)
    assert "J\\xfcrgen" in text and ("张伟" in text or "\\u4f1f" in text)
    assert ("is unreadable" in text or "not an image" in text) == damage
    assert main(["check", "folder", str(unprintable / "张")]) == 2  # the status is that of the refusal
    streams[1].flush()
    refusal = [line for line in streams[1].buffer.getvalue().decode(encoding).splitlines() if "error" in line]
    assert len(refusal) == 1 and ("张" in refusal[0] or "\\u5f20" in refusal[0])


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_an_unprintable_name_ends_no_command(unprintable, environment):
    command = [sys.executable, "-m", "reidlib", "check", "folder", str(unprintable)]
    environment = {**os.environ, "PYTHONCOERCECLOCALE": "0", **environment}
    completed = subprocess.run(command, env=environment, capture_output=True, timeout=600)
    assert completed.returncode == 0 and b"Traceback" not in completed.stderr
    assert b"complete and readable" in completed.stdout


# An empty PYTHONUNBUFFERED means that output is written when the command ends.
@pytest.mark.parametrize(("command", "unbuffered"), [("--help", ""), ("folder", ""), ("folder", "1")])
def test_output_that_cannot_be_written_is_no_traceback(unprintable, command, unbuffered):
    words = [sys.executable, "-m", "reidlib", "check", command, str(unprintable)]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    reading, closed = os.pipe()
    os.close(reading)
    full = os.open("/dev/full", os.O_WRONLY)
    for stream, status, lines in ((closed, 1, 0), (full, 2, 1)):
        completed = subprocess.run(
            words, env=environment, stdout=stream, stderr=subprocess.PIPE, timeout=600, check=False
        )
        assert b"Traceback" not in completed.stderr
        assert (completed.returncode, completed.stderr.count(b"\n")) == (status, lines)
        os.close(stream)


@pytest.mark.parametrize(
    ("word", "mend"),
    [
        ("x" * 300, "choose shorter names"),
        ("é" * 140, "choose shorter names"),
        ("/".join(["folder" * 40] * 20), "choose shorter names"),
        ("~nosuchuser/own", "write out the path"),
    ],
)
def test_a_path_that_no_file_system_has_is_refused(word, mend, market, tiny, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ["check", "folder", word],
        ["render", "smoke", word],
        ["evaluate", word],
        train(market, "--runs", f"{word}/{'x' * 300}"),
        ["train", "jlml", "--profile", "smoke", "--benchmark", "folder", "--data-root", word],
    ):
        line = refused(capsys, *arguments)
        assert line.split("; ")[2].startswith(mend)
    assert {path.name for path in tmp_path.iterdir()} <= {"market", "home"}


def test_an_interruption_while_python_ends_is_silent():
    program = """
import atexit, os, signal, sys
from reidlib.cli import main
atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.argv = ["reidlib", "--version"]
main()
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert process.stdout.startswith("reidlib ")
    assert (process.returncode, process.stderr) == (-signal.SIGINT, "")
