"""A shared home that only its owner can write to: what is complete is used, and what is not is refused."""

import builtins
import errno
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from miniature import write_image

from reidlib import files
from reidlib.cli import main
from reidlib.errors import InputError
from reidlib.experiments.rows import PROFILES, ModelSize
from reidlib.reports import Result
from reidlib.training.config import Augmentation, Recipe


@pytest.fixture
def make_read_only(monkeypatch):
    """Let everything that writes to a folder fail as on a read-only file system, also for root."""
    folders = []

    def refuse(path, writes=True):
        if writes and isinstance(path, str | os.PathLike):
            absolute = os.path.realpath(path)
            if any(absolute == folder or absolute.startswith(folder + os.sep) for folder in folders):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))

    def patch(module, name, writes=lambda *_, **__: True):
        original = getattr(module, name)

        def patched(path, *arguments, **keywords):
            refuse(path, writes(*arguments, **keywords))
            return original(path, *arguments, **keywords)

        monkeypatch.setattr(module, name, patched)

    for name in ("mkdir", "unlink", "rmdir", "rename", "replace", "remove"):
        patch(os, name)
    patch(os, "open", lambda flags=0, *_, **__: flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    for module in (builtins, io):
        patch(module, "open", lambda mode="r", *_, **__: bool({*mode} & {*"wax+"}))
    return lambda folder: folders.append(os.path.realpath(folder))


@pytest.fixture
def shared(market, tmp_path, monkeypatch):
    """A home with a run and everything that was computed from it, with a folder of own images."""
    recipe = Recipe(steps=2, batch_size=4, augmentation=Augmentation(pad=1))
    monkeypatch.setitem(PROFILES["smoke"].sizes, "jlml", ModelSize((32, 16), {"width": 0.125}, recipe))
    home, own = tmp_path / "home", tmp_path / "own"
    monkeypatch.setenv("REIDLIB_HOME", str(home))
    for number in range(8):
        (own / f"p{number // 2}").mkdir(parents=True, exist_ok=True)
        write_image(own / f"p{number // 2}" / f"{number}_c{number % 2}.jpg", seed=number)
    assert main(training(market)) == 0
    (run,) = (home / "runs").glob("jlml-*")
    assert main(["embed", str(run), str(own), str(tmp_path / "first.npz"), "--device", "cpu"]) == 0
    assert main(["check", "folder", str(own)]) == 0
    return run, own


def training(market, *more):
    options = ["--profile", "smoke", "--benchmark", "market1501", "--data-root", str(market)]
    return ["train", "jlml", *options, "--device", "cpu", *more]


def searching(run, own, out):
    return ["search", str(own), str(own), "--run", str(run), "--out", str(out), "--device", "cpu"]


def state(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_is_complete_is_used(shared, market, tmp_path, make_read_only, capsys, decoded):
    run, own = shared
    before = state(files.home())
    make_read_only(files.home())
    decoded.clear()
    assert main(training(market)) == 0
    assert main(["embed", str(run), str(own), str(tmp_path / "again.npz"), "--device", "cpu"]) == 0
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "first.npz").read_bytes()
    assert main(["check", "folder", str(own)]) == 0
    assert main(searching(run, own, tmp_path / "out")) == 0
    assert not decoded  # no image was read again
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0  # the same scores are there already
    assert "not kept" not in capsys.readouterr().err
    assert state(files.home()) == before


def test_scores_that_cannot_be_kept_are_printed(shared, market, tmp_path, make_read_only, capsys):
    run, _ = shared
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    (run / "scores.json").write_text(json.dumps({**scores, "format": 1}), encoding="utf-8")
    make_read_only(run)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--device", "cpu"]) == 1
    printed, messages = capsys.readouterr()
    assert "2 of 2 queries have a match" in printed
    (line,) = (line for line in messages.splitlines() if "not kept" in line)
    assert str(run) in line and "Read-only file system" in line and "evaluate a copy" in line
    # The mend helps.
    shutil.copytree(run, tmp_path / "copy")
    assert main(["evaluate", str(tmp_path / "copy"), "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "copy" / "scores.json").read_text(encoding="utf-8")) == scores


def test_a_home_that_cannot_be_written_is_listed_and_keeps_everything(shared, make_read_only, capsys):
    before = state(files.home())
    make_read_only(files.home())
    capsys.readouterr()
    assert main(["disk"]) == 0
    for words in (["clean"], ["clean", "--yes"], ["clean", "runs", "images", "records", "features", "--yes"]):
        assert main(words) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "Read-only file system; set REIDLIB_HOME to a folder you can write to" in line
    assert state(files.home()) == before


@pytest.mark.parametrize("kind", ["train", "embed", "search", "render", "reproduce"])
def test_what_is_not_complete_is_refused_with_what_helps(
    shared, market, tmp_path, make_read_only, capsys, monkeypatch, kind
):
    run, own = shared
    write_image(own / "p0" / "new_c1.jpg", seed=77)
    words = {
        "train": training(market, "--seed", "1"),
        "embed": ["embed", str(run), str(own), str(tmp_path / "new.npz"), "--device", "cpu"],
        "search": searching(run, own, tmp_path / "out"),
        "render": ["train", "jlml", "--profile", "smoke", "--device", "cpu"],
        "reproduce": ["reproduce", "00", "--profile", "smoke", "--device", "cpu"],
    }[kind]
    make_read_only(files.home())
    capsys.readouterr()
    assert main(words) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("reidlib: error"))
    assert "Read-only file system" in line and "set REIDLIB_HOME to a folder you can write to" in line
    if kind in ("train", "embed", "search"):
        monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "mine"))
        assert main(words) == 0


def test_a_notebook_in_a_shared_home_writes_elsewhere(tmp_path, monkeypatch, make_read_only, caplog):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "explored" / "20_one").mkdir(parents=True)
    (tmp_path / "home" / "explored" / "20_one" / "result.json").write_text("{}")
    make_read_only(tmp_path / "home")
    result = Result("20_one", profile="smoke")
    result.finish()
    assert (result.out / "result.json").is_file() and str(result.out) in caplog.text
    shutil.rmtree(result.out)
    with pytest.raises(InputError, match="set REIDLIB_HOME"):
        Result("20_one", out=Path(tmp_path / "home" / "explored"), profile="smoke")
