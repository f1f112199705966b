"""Runs are found by their configuration, trained once, and never confused."""

import json
import math
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from reidlib.errors import InputError
from reidlib.files import exclusive_lock, write_atomically
from reidlib.training.config import (
    Augmentation,
    JLMLConfiguration,
    PyramidConfiguration,
    Recipe,
    RunConfiguration,
)
from reidlib.training.runs import Run, configuration_hash, find_failure, find_or_train

CONFIGURATION = {"model": {"kind": "jlml", "parts": 4}, "seed": 0}


def trained(folder: Path) -> dict:
    torch.save({"weight": torch.ones(2)}, folder / "weights.pt")
    (folder / "history.jsonl").write_text('{"epoch": 1}\n')
    return {"seconds": 1.0}


def never(folder: Path) -> dict:
    raise AssertionError("trained twice")


def test_a_run_is_trained_once_and_found_again(tmp_path):
    run = find_or_train(CONFIGURATION, trained, name="jlml", folder=tmp_path)
    again = find_or_train(dict(reversed(CONFIGURATION.items())), never, name="other name", folder=tmp_path)
    assert again.folder == run.folder
    assert run.folder.name == f"jlml-{configuration_hash(CONFIGURATION)}"
    assert run.configuration == CONFIGURATION
    assert run.history == [{"epoch": 1}]
    assert torch.equal(run.weights()["weight"], torch.ones(2))
    assert run.information["seconds"] == 1.0
    assert run.information["versions"]["torch"]
    assert run.scores is None


def test_a_failed_training_is_not_a_run(tmp_path):
    def failing(folder):
        (folder / "checkpoint.pt").touch()
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        find_or_train(CONFIGURATION, failing, name="jlml", folder=tmp_path)
    folder = next(tmp_path.glob("jlml-*"))
    with pytest.raises(InputError, match=r"has no run\.json.*continues from its checkpoint"):
        Run.open(folder)
    folders = []
    find_or_train(
        CONFIGURATION, lambda f: folders.append(list(f.iterdir())) or trained(f), name="jlml", folder=tmp_path
    )
    assert folder / "checkpoint.pt" in folders[0]
    assert not (folder / "checkpoint.pt").exists()  # removed after run.json was written


def test_a_refused_training_leaves_no_files(tmp_path):
    def refused(folder):
        raise InputError("rule", "value", "mend")

    with pytest.raises(InputError, match="mend"):
        find_or_train(CONFIGURATION, refused, name="jlml", folder=tmp_path)
    assert not list(tmp_path.glob("jlml-*"))


@pytest.mark.parametrize("name", ["J\udcfcrgen", "张伟 ✓", "\ud800", "one\ntwo"])
def test_the_note_of_a_failure_holds_any_name(tmp_path, monkeypatch, name):
    """Whatever the note cannot hold must not replace the failure itself."""

    def failing(folder):
        (folder / "checkpoint.pt").touch()
        raise InputError("every image can be decoded", name, "remove it")

    monkeypatch.setattr("locale.getencoding", lambda: "ascii")
    with pytest.raises(InputError, match="can be decoded"):
        find_or_train(CONFIGURATION, failing, name="jlml", folder=tmp_path)
    failure = find_failure(CONFIGURATION, tmp_path)
    assert failure.startswith("InputError: every image can be decoded; got ")
    assert failure.endswith("; remove it")  # on one line
    with pytest.raises(InputError, match="not tried again at once"):
        find_or_train(CONFIGURATION, never, name="jlml", folder=tmp_path, since=0)


def test_partial_files_of_a_killed_process_are_removed(tmp_path):
    folder = tmp_path / f"jlml-{configuration_hash(CONFIGURATION)}"
    folder.mkdir()
    (folder / ".checkpoint.pt.123.partial").touch()
    find_or_train(CONFIGURATION, trained, name="jlml", folder=tmp_path)
    assert not list(folder.glob(".*.partial"))


def slow_training(folder: Path) -> dict:
    time.sleep(0.5)
    with (folder / "trainings.txt").open("a") as file:
        file.write("trained\n")
    return trained(folder)


def want(folder: Path) -> None:
    find_or_train(CONFIGURATION, slow_training, name="jlml", folder=folder)


def test_two_processes_that_want_the_same_run_train_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=want, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0
    assert next(tmp_path.glob("jlml-*/trainings.txt")).read_text() == "trained\n"


def test_a_process_that_waits_for_a_run_says_so(tmp_path, caplog):
    digest = configuration_hash(CONFIGURATION)
    is_held = threading.Event()

    def hold_until_message() -> None:
        with exclusive_lock(tmp_path / f".{digest}.lock"):
            is_held.set()
            deadline = time.monotonic() + 60
            while not caplog.messages and time.monotonic() < deadline:
                time.sleep(0.01)

    holder = threading.Thread(target=hold_until_message)
    holder.start()
    assert is_held.wait(60)
    find_or_train(CONFIGURATION, trained, name="jlml", folder=tmp_path)
    holder.join()
    assert caplog.messages == [f"jlml-{digest}: another process is training this run; waiting"]


def test_a_run_copied_without_weights_is_used(tmp_path):
    original = find_or_train(CONFIGURATION, trained, name="jlml", folder=tmp_path / "there")
    (original.folder / "weights.pt").unlink()
    shutil.copytree(original.folder, tmp_path / "here" / original.folder.name)
    local_run = find_or_train(CONFIGURATION, never, name="jlml", folder=tmp_path / "here")
    assert local_run.history == [{"epoch": 1}]
    with pytest.raises(InputError, match=r"needs the run's weights.*copy weights\.pt"):
        local_run.weights()


def test_a_folder_with_another_configuration_is_refused(tmp_path):
    run = find_or_train(CONFIGURATION, trained, name="jlml", folder=tmp_path)
    (run.folder / "config.json").write_text(json.dumps({**CONFIGURATION, "seed": 1}))
    with pytest.raises(InputError, match=r"whose seed differ.*move the folder away"):
        find_or_train(CONFIGURATION, never, name="jlml", folder=tmp_path)
    (run.folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"readable JSON.*config\.json"):
        find_or_train(CONFIGURATION, never, name="jlml", folder=tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds config\.json"):
        Run.open(tmp_path)


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")

    def breaks(partial):
        partial.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match="free some disk space"):
        write_atomically(path, breaks)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_unwritable_folder_of_runs_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="choose another with --runs"):
        find_or_train(CONFIGURATION, never, name="jlml", folder=tmp_path / "file")


def configuration(**changes) -> RunConfiguration:
    values = {
        "model": JLMLConfiguration(parts=6),
        "recipe": Recipe(
            steps=9, schedule="steps", milestones=(0.5,), augmentation=Augmentation(colour_jitter=0.1)
        ),
        "input_size": (64, 32),
        "benchmark": "market1501",
        "data": "0123",
        "seed": 2,
    }
    return RunConfiguration(**{**values, **changes})


def test_a_configuration_survives_its_file():
    expected = configuration()
    content = json.loads(json.dumps(expected.to_json()))
    assert content == expected.to_json()
    assert RunConfiguration.from_json(content) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"model": JLMLConfiguration(parts=5)},
        {"input_size": (32, 64)},
        {"data": "4567"},
        {"seed": 0},
        {"recipe": Recipe(steps=10)},
    ],
)
def test_every_setting_is_part_of_the_identity(change):
    hashes = {configuration_hash(c.to_json()) for c in (configuration(), configuration(**change))}
    assert len(hashes) == 2


@pytest.mark.parametrize("damage", [{"format": 0}, {"model": {"kind": "vgg"}}, {"recipe": {"epochs": 1}}])
def test_a_configuration_of_another_version_is_refused(damage):
    with pytest.raises(InputError, match="of this version"):
        RunConfiguration.from_json({**configuration().to_json(), **damage})


@pytest.mark.parametrize("key", ["model", "recipe", "input_size", "benchmark", "data", "seed", "format"])
def test_a_file_without_a_value_is_refused(key):
    content = configuration().to_json()
    del content[key]
    with pytest.raises(InputError, match="of this version"):
        RunConfiguration.from_json(content)


def test_the_values_of_a_file_have_types():
    expected = configuration(model=PyramidConfiguration(triplet=False), input_size=(192, 64))
    content = json.loads(json.dumps(expected.to_json()))
    content["model"] |= {"triplet": "no", "stripes": 6.0}
    assert RunConfiguration.from_json(content).to_json() == expected.to_json()
    for wrong in ({"triplet": "perhaps"}, {"stripes": 6.5}, {"margin": math.nan}, {"trippet": False}):
        with pytest.raises(InputError, match=f"of this version.*{next(iter(wrong))}"):
            RunConfiguration.from_json({**content, "model": {**content["model"], **wrong}})


def test_a_run_is_found_by_its_name_wherever_a_notebook_is_started(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "runs" / "some-run"
    folder.mkdir(parents=True)
    for name in ("config.json", "run.json"):
        (folder / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert Run.open("some-run").folder == folder
    assert Run.open("home/runs/some-run").folder == folder
    with pytest.raises(InputError, match=f"got {tmp_path}/other"):
        Run.open("other")
