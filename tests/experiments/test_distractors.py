"""Scores with distractors from streamed features equal those with all features in memory."""

import json

import numpy as np
import pytest
from miniature import write_image
from untrained_runs import QUIET, untrained_run

from reidlib.cli import main
from reidlib.data import load
from reidlib.data.splits import concatenate
from reidlib.errors import InputError
from reidlib.experiments import evaluate as evaluation
from reidlib.experiments.evaluate import evaluate_with_distractors
from reidlib.experiments.features import TrainedNetwork
from reidlib.ranking.metrics import evaluate


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture
def crowded(market):
    folder = market / "distractors_500k" / "images"
    folder.mkdir(parents=True)
    for index in range(20):
        # As in the archive, and with an arbitrary name: both are of no identity.
        name = f"0000_c{1 + index % 6}s1_{index:06d}_00.jpg" if index % 2 else f"{index:06d}.JPG"
        write_image(folder / name, seed=3000 + index)
    (folder / "Thumbs.db").write_bytes(b"not an image")
    return market


def test_distractors_are_read_on_request(crowded):
    assert load("market1501", crowded).distractors is None
    benchmark = load("market1501", crowded, distractors=True)
    assert len(benchmark.distractors) == 20
    assert not benchmark.distractors.person_ids.any()
    assert benchmark.distractors.camera_ids.tolist() == [0] * 10 + [2] * 4 + [4] * 3 + [6] * 3
    # They change no training and no other score.
    assert benchmark.fingerprint == load("market1501", crowded).fingerprint
    assert benchmark.specification == "market1501"


@pytest.mark.parametrize("place", ["distractors_500k", "images"])
def test_distractors_are_found_in_the_archives_folders(crowded, place):
    images = crowded / "distractors_500k" / "images"
    images.rename(crowded / "moved")
    (crowded / "distractors_500k").rmdir()
    (crowded / "moved").rename(crowded / place)
    assert len(load("market1501", crowded, distractors=True).distractors) == 20


def test_scores_are_those_of_the_whole_gallery(crowded, tmp_path):
    benchmark = load("market1501", crowded, distractors=True)
    run = untrained_run(benchmark, tmp_path / "runs")
    scores = evaluate_with_distractors(run, benchmark, execution=QUIET)
    assert json.loads((run.folder / "distractors.json").read_text()) == scores
    together = concatenate((benchmark.gallery, benchmark.distractors))
    query, standard_gallery, gallery = (
        TrainedNetwork(run, QUIET).embed(split, keep="nothing")
        for split in (benchmark.query, benchmark.gallery, together)
    )
    for kind in ("step", "trapezoid"):
        expected = evaluate(query, gallery, average_precision=kind)
        assert scores[kind]["mean_average_precision"] == expected.mean_average_precision
        assert scores[kind]["first_match_rank"] == expected.first_match_rank.tolist()
    without = evaluate(query, standard_gallery)
    assert scores["step"]["mean_average_precision"] < without.mean_average_precision
    assert (scores["num_gallery"], scores["num_distractors"]) == (7, 20)


def test_the_features_are_read_from_disk_and_reused(crowded, tmp_path, monkeypatch):
    benchmark = load("market1501", crowded, distractors=True)
    run = untrained_run(benchmark, tmp_path / "runs")
    calls = []
    real = evaluation.evaluate_each
    monkeypatch.setattr(
        evaluation, "evaluate_each", lambda q, g, **more: calls.append(g.features) or real(q, g, **more)
    )
    first = evaluate_with_distractors(run, benchmark, execution=QUIET)
    assert isinstance(calls[0], np.memmap)
    monkeypatch.setattr(
        "reidlib.experiments.features.decode_complete_blocks", None
    )  # nothing is decoded again
    assert evaluate_with_distractors(run, benchmark, execution=QUIET) == first


def test_the_command_scores_with_distractors(crowded, tmp_path, capsys):
    run = untrained_run(load("market1501", crowded), tmp_path / "runs")
    (run.folder / "run.json").write_text(json.dumps({"data_root": str(crowded)}))
    assert main(["evaluate", str(run.folder), "--distractors", "--device", "cpu"]) == 0
    assert "with 20 further distractors: R1 " in capsys.readouterr().out


def test_missing_distractors_are_named(market, tmp_path):
    with pytest.raises(InputError, match="unpack distractors_500k"):
        load("market1501", market, distractors=True)
    benchmark = load("market1501", market)
    with pytest.raises(InputError, match="distractors=True"):
        evaluate_with_distractors(untrained_run(benchmark, tmp_path / "runs"), benchmark, execution=QUIET)
