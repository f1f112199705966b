"""Validation persons: who they are, that looking changes nothing, and what the history says."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from miniature import write_image

from reidlib.data import load
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments import obtain as experiments
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.rows import PROFILES, ModelSize
from reidlib.experiments.validation import Validation, hold_out
from reidlib.ranking.metrics import evaluate
from reidlib.training.config import Augmentation, Recipe
from reidlib.training.device import Execution

QUIET = Execution(device="cpu", precision="float32", progress=False)
PYRAMID = {"trunk": "resnet39", "weights": None, "width": 0.125, "stripes": 2, "embedding_size": 8}
RECIPE = Recipe(
    epochs=30,
    batch_size=6,
    images_per_identity=2,
    augmentation=Augmentation(pad=2, erase=0.5),
)
SIZES = {
    "jlml": ModelSize((32, 16), {"width": 0.125, "feature_size": 16}, RECIPE),
    "pyramid": ModelSize((32, 16), {**PYRAMID, "dropout": 0.5}, RECIPE),
}
TRAINING_PERSONS, ONE_CAMERA = range(11, 21), 30


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    for name, size in SIZES.items():
        monkeypatch.setitem(PROFILES["smoke"].sizes, name, size)


@pytest.fixture
def benchmark(market):
    """Ten training persons with three images from two cameras each, and one whom one camera shows."""
    for path in (market / "bounding_box_train").glob("0*.jpg"):
        path.unlink()
    for person in (*TRAINING_PERSONS, ONE_CAMERA):
        cameras = (1, 1) if person == ONE_CAMERA else (1, 2, 2)
        for number, camera in enumerate(cameras):
            name = f"{person:04}_c{camera}s1_{number:06}_00.jpg"
            write_image(market / "bounding_box_train" / name, seed=10 * person + number)
    return load("market1501", market)


def plan(benchmark, model="jlml", persons=4, **more):
    return experiments.plan_training(model, PROFILES["smoke"], benchmark, validation_persons=persons, **more)


def obtain(link, runs):
    return experiments.obtain([link], runs=runs, execution=QUIET)


def without(row, *names):
    return {name: value for name, value in row.items() if name not in ("images_per_second", *names)}


SCORES = ("validation_r1", "validation_map")
IDS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=30)


@given(IDS, st.integers(2, 9), st.integers(0, 5))
def test_persons_of_two_cameras_are_drawn_by_the_seed(pairs, persons, seed):
    ids = np.array(pairs)
    train = Split([f"{number}.jpg" for number in range(len(ids))], ids[:, 0], ids[:, 1])
    benchmark = SimpleNamespace(train=train, specification="own")
    cameras = {person: {camera for each, camera in pairs if each == person} for person, _ in pairs}
    candidates = {person for person, seen_by in cameras.items() if len(seen_by) > 1}
    if persons > min(len(candidates), len(cameras) - 2):
        with pytest.raises(InputError, match="seen by two cameras, and leave two to train on; got"):
            hold_out(benchmark, persons, seed)
        return
    rest, held_out = hold_out(benchmark, persons, seed)
    drawn = set(held_out.person_ids.tolist())
    assert len(drawn) == persons and drawn <= candidates
    assert not drawn & set(rest.person_ids.tolist())
    assert sorted(rest.paths + held_out.paths) == sorted(train.paths)
    assert hold_out(benchmark, persons, seed)[1].paths == held_out.paths
    if persons > 2:  # more persons include the fewer
        assert set(hold_out(benchmark, persons - 1, seed)[1].person_ids.tolist()) < drawn


def test_seeds_hold_out_different_persons(benchmark):
    drawn = {tuple(np.unique(plan(benchmark, seed=seed).divide()[1].person_ids)) for seed in range(8)}
    assert len(drawn) > 4


@pytest.mark.parametrize("model", ["jlml", "pyramid"])
def test_looking_changes_no_bit_of_the_training(benchmark, tmp_path, monkeypatch, model):
    """Batch norm's statistics, dropout, augmentation, samplers: all is equal without looking."""
    link = plan(benchmark, model)
    looking = obtain(link, tmp_path / "looking")
    monkeypatch.setattr(Validation, "__call__", lambda *_: {})
    blind = obtain(link, tmp_path / "blind")
    weights, expected = looking.weights(), blind.weights()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights.items())
    assert all(
        np.array_equal(looking.steps[name], values, equal_nan=True) for name, values in blind.steps.items()
    )
    assert [without(row, *SCORES) for row in looking.history] == [without(row) for row in blind.history]
    assert len([row for row in looking.history if "validation_map" in row]) > 2
    assert looking.scores == blind.scores


def test_no_test_person_trains_or_validates_and_the_last_scores_are_those_of_the_run(
    benchmark, tmp_path, monkeypatch
):
    seen = {}

    def watching(model, objective, images, labels_n, recipe, *, validate, **more):
        seen.update(images=images, labels=labels_n, validate=validate)
        return train(model, objective, images, labels_n, recipe, validate=validate, **more)

    train = experiments.train
    monkeypatch.setattr(experiments, "train", watching)
    link = plan(benchmark)
    run = obtain(link, tmp_path / "runs")
    rest, held_out = link.divide()
    persons = {name: set(split.person_ids.tolist()) for name, split in (("rest", rest), ("held", held_out))}
    assert persons["held"] < set(TRAINING_PERSONS) and len(persons["held"]) == 4
    assert persons["held"] | persons["rest"] == {*TRAINING_PERSONS, ONE_CAMERA}
    test_paths = {*benchmark.query.paths, *benchmark.gallery.paths}
    assert not test_paths & {*rest.paths, *held_out.paths}
    assert (len(seen["images"]), len(seen["labels"].unique())) == (len(rest), 7)
    assert seen["validate"]._split.paths == held_out.paths

    network = TrainedNetwork.for_benchmark(benchmark, run, QUIET)
    # By hand: a person's image of camera 1 and the first of camera 2 are queries; in the gallery are the only
    # image of camera 1 and the second one of camera 2.
    query = held_out.select([index for index in range(len(held_out)) if index % 3 < 2])
    gallery = held_out.select([index for index in range(len(held_out)) if index % 3 != 1])
    scores = evaluate(network.embed(query), network.embed(gallery), ranks=(1,))
    assert scores.num_valid_queries == 8
    last = run.history[-1]
    assert last["epoch"] == 30
    assert (last["validation_r1"], last["validation_map"]) == (scores.cmc[1], scores.mean_average_precision)


def test_a_training_killed_while_looking_continues_with_the_same_bytes(benchmark, tmp_path, monkeypatch):
    link = plan(benchmark, "pyramid")
    whole = obtain(link, tmp_path / "whole")
    expected, score = whole.weights(), 100 * whole.history[-1]["validation_map"]
    look = Validation.__call__
    for call in (1, 2, 4):
        calls, runs, progress = [], tmp_path / f"runs{call}", tmp_path / f"progress{call}"

        def killed(self, model, epoch, calls=calls, call=call):
            if epoch in self.epochs:
                calls.append(epoch)
                if len(calls) == call:
                    raise SystemError("killed")
            return look(self, model, epoch)

        monkeypatch.setattr(Validation, "__call__", killed)
        monkeypatch.setenv("REIDLIB_PROGRESS", str(progress))
        with pytest.raises(SystemError):
            obtain(link, runs)
        resumed = obtain(link, runs)
        assert list(map(without, resumed.history)) == list(map(without, whole.history)), call
        assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.weights().items())
        assert f"images/s, validation mAP {score:.1f}, 0 s left" in progress.read_text()


def test_looking_takes_a_small_share_of_the_images_and_always_sees_the_last_epoch(benchmark, tmp_path):
    link = plan(benchmark)
    rest, held_out = link.divide()
    images, validation_images = experiments._open_images(link, QUIET)
    assert (len(images), len(validation_images)) == (len(rest), len(held_out))

    def epochs(**recipe):
        return Validation(held_out, validation_images, Recipe(batch_size=5, **recipe), rest).epochs

    for number in (1, 2, 7, 40, 333):
        chosen = epochs(epochs=number)  # of 4 steps of 5 images
        assert max(chosen) == number and min(chosen) >= 1
        assert len(chosen) == 1 or len(chosen) * len(held_out) <= 0.05 * 2 * 20 * number
        assert len(chosen) == max(1, int(0.05 * 2 * 20 * number / 12))
    assert epochs(steps=42) == {11}  # the last epoch is half an epoch


def test_a_held_out_training_is_another_run_and_others_keep_their_names(benchmark):
    whole, fewer, more = (plan(benchmark, persons=number) for number in (0, 2, 3))
    assert "validation_persons" not in whole.configuration.to_json()
    assert fewer.configuration.to_json()["validation_persons"] == 2
    assert fewer.name == f"{whole.name}-validate2"
    assert len({json.dumps(link.configuration.to_json()) for link in (whole, fewer, more)}) == 3
    assert whole.divide()[0] is benchmark.train and whole.divide()[1] is None


def test_too_few_images_that_remain_are_refused_before_the_training(benchmark, tmp_path, monkeypatch):
    monkeypatch.setitem(
        PROFILES["smoke"].sizes,
        "jlml",
        ModelSize((32, 16), {"width": 0.125}, Recipe(epochs=1, batch_size=30)),
    )
    with pytest.raises(
        InputError, match="26 images of 9 persons in market1501 without 2 validation persons; use"
    ):
        obtain(plan(benchmark, persons=2), tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))
    with pytest.raises(
        InputError, match=r"got 11 of 11 persons of market1501, 10 with .*; use --validate 9 or"
    ):
        obtain(plan(benchmark, persons=11), tmp_path / "runs")


def test_pretraining_on_validation_persons_is_refused_and_no_others_are_held_out(benchmark):
    options = {"before": (benchmark,), "validation_persons": 4}
    with pytest.raises(InputError, match="no test or validation person; got 4 persons of market1501"):
        experiments.plan_chain("jlml", PROFILES["smoke"], benchmark, **options)
