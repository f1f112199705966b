"""Chains of trainings: runs that start from another run's weights."""

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from miniature import write_image
from small_miniatures import write_cuhk01

from reidlib.data import load
from reidlib.data.benchmark import combine
from reidlib.data.decoding import decode
from reidlib.data.readers.partitions import Partitions, write_partitions
from reidlib.errors import InputError
from reidlib.experiments import Setup
from reidlib.experiments import obtain as experiments
from reidlib.experiments.evaluate import evaluate_run, load_benchmark
from reidlib.experiments.rows import PROFILES, ModelSize
from reidlib.training.checkpoint import save_tensors
from reidlib.training.config import Augmentation, Recipe, RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.runs import find

QUIET = Execution(device="cpu", progress=False)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    # A rate so low that what training changes is far below what a new network would differ by.
    recipe = Recipe(steps=1, batch_size=4, learning_rate=1e-7, augmentation=Augmentation(pad=1))
    small = {"width": 0.125, "feature_size": 16}
    monkeypatch.setitem(PROFILES["smoke"].sizes, "jlml", ModelSize((32, 16), small, recipe))


@pytest.fixture
def benchmarks(market, tmp_path):
    other = tmp_path / "other"
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        (other / folder).mkdir(parents=True)
    for index, name in enumerate(
        ("0012_c1s1_1_1.jpg", "0012_c2s1_1_1.jpg", "0014_c1s1_1_1.jpg", "0016_c2s1_1_1.jpg")
    ):
        write_image(other / "bounding_box_train" / name, seed=700 + index)
    write_image(other / "query" / "0021_c1s1_1_1.jpg", seed=1)
    write_image(other / "bounding_box_test" / "0021_c2s1_1_1.jpg", seed=2)
    return load("market1501", market), load("market1501", other)


def chain(benchmark, *before, seed=0):
    return experiments.plan_chain("jlml", PROFILES["smoke"], benchmark, before=before, seed=seed)


def obtain(links, **more):
    return experiments.obtain(links, execution=QUIET, **more)


def test_a_chain_of_one_is_the_plain_run(benchmarks):
    (link,) = chain(benchmarks[0])
    assert link == experiments.plan_training("jlml", PROFILES["smoke"], benchmarks[0])
    assert "start" not in link.configuration.to_json()  # so that its hash is what it always was


def test_the_second_run_starts_from_the_first_ones_weights(benchmarks):
    target, before = benchmarks
    links = chain(target, before)
    first = obtain(links[:1])
    # Trained for one small step it is all but a new network, which has the same seed: made another one here.
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: tensor + 0.1 * torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.weights().items()
    }
    torch.save(weights, first.folder / "weights.pt")
    run = obtain(links)
    assert RunConfiguration.from_json(run.configuration) == links[-1].configuration
    started = run.weights()
    assert weights.keys() == started.keys()
    new = links[-1].configuration.model.build(2, links[-1].configuration.seed).state_dict()
    compared = 0
    for name, tensor in started.items():
        if "num_batches" in name or "running" in name:
            continue
        if name.startswith("classifiers."):
            assert len(tensor) == 2  # the target's two persons, and not the three of before
            assert torch.allclose(tensor, new[name], atol=1e-5)
        else:
            assert torch.allclose(tensor, weights[name], atol=1e-5)
            compared += not torch.allclose(tensor, new[name], atol=1e-3)
    assert compared > 20
    # Another start is another run, and so is none.
    assert len({link.configuration.start for link in (*links, *chain(target, before, seed=1))}) == 3


def test_classifiers_are_new_even_if_they_would_fit(benchmarks, tmp_path):
    target, _ = benchmarks
    shutil.copytree(target.root, tmp_path / "copy")
    links = chain(target, load("market1501", tmp_path / "copy"))
    first = obtain(links[:1])
    weights = first.weights()
    weights["classifiers.0.bias"] += 100
    torch.save(weights, first.folder / "weights.pt")
    assert obtain(links).weights()["classifiers.0.bias"].abs().max() < 1


def test_a_profile_may_fine_tune_by_another_recipe(benchmarks, monkeypatch):
    target, before = benchmarks
    changes = {"steps": 2, "trunk_rate": 0.5, "frozen": 0.5}
    tuned = replace(PROFILES["smoke"], fine_tuning={"jlml": changes})
    monkeypatch.setitem(PROFILES, "smoke", tuned)
    first, last = chain(target, before)
    (alone,) = chain(target)
    assert first.recipe == alone.recipe == tuned.sizes["jlml"].recipe
    assert last.recipe == replace(alone.recipe, **changes)
    # A recipe that a user sets is the last training's: the start is one for all that are compared.
    settings = {"recipe.steps": "3", "model.parts": "2"}
    set_by_user = experiments.plan_chain("jlml", tuned, target, before=[before], settings=settings)
    steps = first.recipe.steps
    assert [(link.recipe.steps, link.recipe.frozen) for link in set_by_user] == [(steps, 0.0), (3, 0.5)]
    assert {link.configuration.model.parts for link in set_by_user} == {2}
    assert obtain(set_by_user).information["steps"] == 3


def test_a_finished_run_needs_no_earlier_run(benchmarks, tmp_path):
    target, before = benchmarks
    links = chain(target, before)
    run = obtain(links)
    (first,) = (path for path in run.folder.parent.iterdir() if path.is_dir() and path != run.folder)
    moved = first.rename(tmp_path / "moved")
    assert obtain(links).folder == run.folder
    assert obtain(links, may_train=False).folder == run.folder
    # Where it is to be trained again it does, and says so where it cannot be had.
    (run.folder / "run.json").unlink()
    with pytest.raises(InputError, match="needs that run"):
        obtain(links[1:])
    moved.rename(first)
    assert obtain(links).folder == run.folder


def test_a_start_from_another_network_is_refused(benchmarks, monkeypatch):
    target, before = benchmarks
    links = chain(target, before)
    obtain(links[:1])
    other = replace(links[1].configuration, model=replace(links[1].configuration.model, parts=2))
    with pytest.raises(InputError, match="starts from a run of the same network"):
        obtain([experiments.TrainingPlan("other", other, target)])


def test_a_chain_of_three(benchmarks):
    target, before = benchmarks
    run = obtain(chain(target, before, combine((target, before))))
    assert run.scores is not None
    assert len([path for path in run.folder.parent.iterdir() if (path / "run.json").exists()]) == 3


def test_pretraining_on_test_images_is_refused(benchmarks):
    target, before = benchmarks
    turned = replace(before, query=target.query, gallery=target.gallery, train=before.train)
    assert chain(turned, before)  # its training images may be trained on twice
    leaking = replace(before, train=target.gallery.select(target.gallery.person_ids > 0))
    with pytest.raises(InputError, match="no test or validation person; got 2 persons of market1501: 1, 3"):
        chain(target, leaking)


def test_a_failing_training_is_tried_by_one_process(benchmarks, monkeypatch):
    target, before = benchmarks
    links = chain(target, before)
    tried = []

    def fail(*_, **__):
        tried.append(1)
        raise FloatingPointError("identity is nan at step 7")

    monkeypatch.setattr(experiments, "train", fail)
    since = time.time() - 1
    with pytest.raises(FloatingPointError):
        obtain(links[:1], since=since)
    for _ in range(3):
        with pytest.raises(InputError, match=r"not tried again at once.*identity is nan at step 7"):
            obtain(links, since=since)
    assert len(tried) == 1
    with pytest.raises(FloatingPointError):  # the next command tries
        obtain(links, since=time.time() + 1)
    assert len(tried) == 2


def test_a_set_smaller_than_a_batch_is_refused_before_anything_is_trained(benchmarks, monkeypatch, tmp_path):
    market, other = benchmarks  # 4 training images in the other
    recipe = Recipe(steps=1, batch_size=5)
    monkeypatch.setitem(PROFILES["smoke"].sizes, "jlml", ModelSize((32, 16), {"width": 0.125}, recipe))
    with pytest.raises(
        InputError, match=r"one batch, 5, and 2 persons; got 4 images of 3 persons in market1501"
    ):
        obtain(chain(other, market), runs=tmp_path / "runs")
    with pytest.raises(InputError, match="one batch, 5"):
        obtain(chain(other), runs=tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*"))


def test_unreadable_images_of_all_splits_are_named_at_once(benchmarks):
    target, _ = benchmarks
    damaged = [split.paths[0] for split in (target.train, target.query, target.gallery)]
    box = target.root / "gt_bbox" / "0001_c1s1_001051_00.jpg"
    box.parent.mkdir()
    write_image(box.with_name("0003_c2s1_000001_00.jpg"), seed=5)
    box.write_bytes(b"")
    for path in damaged:
        path.write_bytes(path.read_bytes()[:40])
    benchmark = load("market1501", target.root)
    with pytest.raises(InputError, match="4 unreadable") as caught:
        obtain(chain(benchmark))
    assert all(str(path) in str(caught.value) for path in (*damaged, box))


@pytest.fixture
def partitioned(tmp_path):
    """A miniature CUHK01 with a file of partitions."""
    root = tmp_path / "cuhk01"
    write_cuhk01(root)
    write_partitions(root / "mine.json", Partitions("cuhk01", 4, ((1, 4), (2, 3))))
    return root


def test_partitions_have_one_run_however_their_path_is_written(partitioned, tmp_path, monkeypatch):
    root = partitioned
    (tmp_path / "link").symlink_to(root)
    first = obtain(chain(load("cuhk01", root, partitions="mine.json")))
    monkeypatch.setattr(experiments, "train", lambda *_, **__: pytest.fail("trained again"))
    for path in ("./mine.json", "../cuhk01/mine.json", root / "mine.json", tmp_path / "link" / "mine.json"):
        benchmark = load("cuhk01", root, partitions=str(path))
        assert obtain(chain(benchmark)).folder == first.folder
        assert obtain(chain(benchmark), may_train=False).folder == first.folder
    for other in (
        chain(load("cuhk01", root, partitions="mine.json", trial=1)),
        chain(load("cuhk01", root, partitions="mine.json"), seed=1),
        chain(load("cuhk01", root, test_persons=1)),
    ):
        with pytest.raises(InputError, match="must exist"):
            obtain(other, may_train=False)
    # The same path with other content is another run.
    write_partitions(root / "mine.json", Partitions("cuhk01", 4, ((1, 2), (2, 3))))
    with pytest.raises(InputError, match="must exist"):
        obtain(chain(load("cuhk01", root, partitions=str(root / "mine.json"))), may_train=False)


def test_a_chain_starts_from_a_run_whose_partitions_are_written_in_another_way(partitioned, benchmarks):
    relative = load("cuhk01", partitioned, partitions="mine.json")
    absolute = load("cuhk01", partitioned, partitions=str(partitioned / "mine.json"))
    first = obtain(chain(relative))
    # Otherwise a new network, which has the same seed, would have all but the same weights.
    changed = {n: t + 0.1 if t.is_floating_point() else t for n, t in first.weights().items()}
    save_tensors(first.folder / "weights.pt", changed)
    last = obtain(chain(benchmarks[0], absolute))
    name, weight = next((name, weight) for name, weight in last.weights().items() if weight.ndim == 4)
    assert torch.allclose(weight, changed[name], atol=1e-3)
    assert {path.parent for path in first.folder.parent.glob("*/run.json")} == {first.folder, last.folder}


@pytest.mark.parametrize("relative_first", [True, False])
def test_a_chain_has_one_run_however_the_partitions_before_are_written(
    partitioned, benchmarks, monkeypatch, relative_first
):
    paths = ["mine.json", str(partitioned / "mine.json"), "./mine.json"][:: 1 if relative_first else -1]
    links = [chain(benchmarks[0], load("cuhk01", partitioned, partitions=path)) for path in paths]
    first = obtain(links[0])
    monkeypatch.setattr(experiments, "train", lambda *_, **__: pytest.fail("trained again"))
    for link in links[1:]:
        assert obtain(link).folder == first.folder
        assert obtain(link, may_train=False).folder == first.folder
    assert len(list(first.folder.parent.glob("*/run.json"))) == 2


def test_training_images_are_resized_as_the_configuration_says(market):
    benchmark = load("market1501", market)
    plan = experiments.plan_training("pyramid", PROFILES["smoke"], benchmark)
    configuration = plan.configuration
    arrays = []
    for resize in ("bilinear", "bicubic"):
        resized = plan._replace(configuration=replace(configuration, resize=resize))
        images, _ = experiments._open_images(resized, Execution(device="cpu", progress=False))
        paths = benchmark.train.paths
        expected = np.stack([decode(path, configuration.input_size, resize) for path in paths])
        assert np.array_equal(images.array_nhwc, expected)
        arrays.append(expected)
    assert not np.array_equal(*arrays)


@pytest.mark.parametrize("folder", ["x" * 249, "é" * 120, "/".join(["folder" * 20] * 6), "J\udcfcrgen" * 20])
def test_partitions_of_a_long_path_are_trained(partitioned, tmp_path, folder):
    path = tmp_path / folder / "mine.json"
    path.parent.mkdir(parents=True)
    shutil.move(partitioned / "mine.json", path)
    run = obtain(chain(load("cuhk01", partitioned, partitions=str(path))))
    assert run.configuration["benchmark"] == f"cuhk01,partitions={path}"
    assert len(run.folder.name) < 200
    names = {
        chain(load("cuhk01", partitioned, partitions=str(path), trial=trial))[0].name for trial in (0, 1)
    }
    assert len(names) == 2  # tasks are told apart by these names


def test_a_training_folder_alone_pretrains_and_is_not_scored(benchmarks, tmp_path):
    alone = load("market1501", benchmarks[1].root, training_only=True)
    links = chain(benchmarks[0], alone)
    assert links[0].name == "jlml-smoke-market1501,training_only=true-seed0"
    run = obtain(links, runs=tmp_path)
    assert run.scores["data"] == benchmarks[0].fingerprint
    first = find(links[0].configuration.to_json(), tmp_path)
    assert first is not None and not (first.folder / "scores.json").exists()
    assert obtain(links, runs=tmp_path).folder == run.folder
    mend = "use it with --pretrain"
    for evaluate in (
        lambda: obtain(chain(alone), runs=tmp_path / "none"),
        lambda: evaluate_run(first, alone),
        lambda: load_benchmark(first),
        lambda: load_benchmark(run, alone.root, benchmark=alone.specification),
        lambda: Setup("smoke", alone.specification, alone.root).data,
    ):
        with pytest.raises(InputError, match=mend):
            evaluate()
    assert not (tmp_path / "none").exists()


def test_validation_persons_are_refused_in_pretraining(benchmarks, tmp_path):
    root = benchmarks[1].root
    for person in range(30, 36):
        for camera in (1, 2):
            write_image(
                root / "bounding_box_train" / f"{person:04}_c{camera}s1_1_1.jpg", seed=person + camera
            )
    alone, validation = (load("market1501", root, **{use: True}) for use in ("training_only", "validation"))
    with pytest.raises(InputError, match="pre-training uses no test or validation person"):
        chain(validation, alone)
    assert obtain(chain(validation), runs=tmp_path).scores["benchmark"] == "market1501,validation=true"
