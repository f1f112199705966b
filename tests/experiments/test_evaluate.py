"""Scores of a run: multi-query against a plain loop, stored files, and when they are computed again."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from miniature import write_image
from untrained_runs import JLML, PYRAMID, QUIET, untrained_run

from reidlib.cli.runs import _score_table
from reidlib.data import load
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import decode
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments import evaluate as evaluation
from reidlib.experiments import features
from reidlib.experiments.evaluate import evaluate_run, has_usable_scores, is_current, multi_query_scores
from reidlib.experiments.features import TrainedNetwork, embed_blocks
from reidlib.ranking.metrics import Embeddings
from reidlib.training.runs import Run


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture
def boxed(market):
    """The miniature with hand-drawn boxes: two of the first query's sighting, one of the second's."""
    (market / "gt_bbox").mkdir()
    names = ("0001_c1s1_001051_00", "0001_c1s2_038021_00", "0003_c2s1_000001_00", "0002_c1s1_000451_00")
    for index, name in enumerate(names):
        write_image(market / "gt_bbox" / f"{name}.jpg", seed=900 + index)
    return market


# --- multi-query --------------------------------------------------------------------------------------------


def unit(vector):
    return vector / math.sqrt(sum(value * value for value in vector))


def naive_multi_query(query, gallery, boxes, how, kind):
    """The protocol by its definition: box by box, query by query, image by image."""
    precisions, penalties, firsts = [], [], []
    for person, camera in zip(query.person_ids, query.camera_ids, strict=True):
        box_features = [
            unit(np.asarray(boxes.features[i], float))
            for i in range(len(boxes))
            if boxes.person_ids[i] == person and boxes.camera_ids[i] == camera
        ]
        pooled = unit(np.mean(box_features, 0) if how == "mean" else np.max(box_features, 0))
        order = []
        for i in range(len(gallery)):
            match = gallery.person_ids[i] == person
            if gallery.person_ids[i] == -1 or (match and gallery.camera_ids[i] == camera):
                continue
            order.append((((pooled - unit(np.asarray(gallery.features[i], float))) ** 2).sum(), match))
        ranks = [rank for rank, (_, match) in enumerate(sorted(order), 1) if match]
        if not ranks:
            continue
        total = 0
        for num_matches, rank in enumerate(ranks, 1):
            before = 1 if rank == 1 else (num_matches - 1) / (rank - 1)
            total += num_matches / rank if kind == "step" else (num_matches / rank + before) / 2
        precisions.append(total / len(ranks))
        penalties.append(len(ranks) / ranks[-1])
        firsts.append(ranks[0])
    return {
        "cmc": {str(r): np.mean([first <= r for first in firsts]) for r in (1, 5, 10, 20)},
        "mean_average_precision": np.mean(precisions),
        "mean_inp": np.mean(penalties),
        "num_valid_queries": len(precisions),
    }


def random_embeddings(generator, person_ids, camera_ids):
    """Random features of different lengths, which must not affect the protocol."""
    features = generator.normal(size=(len(person_ids), 6)) + np.array(person_ids)[:, None] % 3
    features *= generator.uniform(0.1, 5, (len(person_ids), 1))
    return Embeddings(features.astype(np.float32), person_ids, camera_ids)


@pytest.mark.parametrize("seed", range(5))
def test_multi_query_agrees_with_a_plain_loop(seed):
    generator = np.random.default_rng(seed)
    query = random_embeddings(generator, [1, 1, 2, 3, 4], [1, 2, 1, 3, 1])  # 4 is without a match
    boxes = random_embeddings(generator, [3, 1, 1, 2, 1, 4, 2, 2], [3, 1, 2, 1, 1, 1, 1, 1])
    gallery = random_embeddings(
        generator, [1, 2, 3, -1, 0, *generator.integers(-1, 4, 40)], [3, 2, 1, *[1, 2] * 21]
    )
    features = gallery.features.copy()
    scores = multi_query_scores(query, gallery, boxes)
    assert np.array_equal(gallery.features, features)
    kinds = {"step", "trapezoid"}
    assert {how: set(actual) for how, actual in scores.items()} == {"mean": kinds, "max": kinds}
    for how, kinds in scores.items():
        for kind, actual in kinds.items():
            expected = naive_multi_query(query, gallery, boxes, how, kind)
            assert actual.keys() == expected.keys()
            assert actual["cmc"] == pytest.approx(expected["cmc"])
            for name in ("mean_average_precision", "mean_inp", "num_valid_queries"):
                assert actual[name] == pytest.approx(expected[name])
    assert scores["mean"] != scores["max"]


def as_memory_map(features_nd, folder):
    np.save(folder / "features.npy", features_nd)
    return np.load(folder / "features.npy", mmap_mode="r")


# What users have as features: arrays of every kind that ``Embeddings`` takes.
KINDS = {
    "array": lambda features_nd, _: features_nd,
    "read-only": lambda features_nd, _: np.broadcast_to(features_nd, features_nd.shape),
    "reversed": lambda features_nd, _: features_nd[::-1].copy()[::-1],
    "columns of a wider array": lambda features_nd, _: np.repeat(features_nd, 2, axis=1)[:, ::2],
    "memory map": as_memory_map,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_multi_query_scores_of_arrays_are_those_of_tensors(request, tmp_path, kind, dtype):
    """Arrays and tensors of the same numbers, mixed or not, have the same scores, bit for bit."""
    torch.set_warn_always(True)  # otherwise torch warns of a read-only array once in a process
    request.addfinalizer(lambda: torch.set_warn_always(False))
    generator = np.random.default_rng(7)
    query = random_embeddings(generator, [1, 2, 3], [1, 1, 2])
    boxes = random_embeddings(generator, [3, 1, 1, 2], [2, 1, 1, 1])
    gallery = random_embeddings(generator, [-1, 0, *generator.integers(1, 4, 60)], [1, 2] * 31)
    tensors, arrays = [], []
    for number, side in enumerate((query, gallery, boxes)):
        features_nd = side.features.astype(dtype)
        folder = tmp_path / str(number)
        folder.mkdir()
        tensors.append(replace(side, features=torch.from_numpy(features_nd)))
        arrays.append(replace(side, features=KINDS[kind](features_nd.copy(), folder)))
        columns = slice(1, 4)
        selected = [
            evaluation.select_branch(sides[-1], columns, torch.device("cpu")) for sides in (tensors, arrays)
        ]
        assert torch.equal(*(branch.features for branch in selected))
    scores = multi_query_scores(*tensors)
    assert multi_query_scores(*arrays) == scores
    assert multi_query_scores(query, arrays[1], tensors[2]) == scores  # the query's features are not used
    assert multi_query_scores(query, tensors[1], arrays[2]) == scores


def test_half_precision_loses_nothing_more_in_multi_query_scores():
    """Features of 16 bits are scaled to unit length in 32 bits, in which their distances are computed."""
    generator = np.random.default_rng(3)
    features_of_sides = (1 + 0.02 * generator.normal(size=(3, 80, 6))).astype(np.float16)  # near ties
    halves = [Embeddings(features, [1, 2] * 40, [1, 1, 2, 2] * 20) for features in features_of_sides]
    singles = [replace(side, features=side.features.astype(np.float32)) for side in halves]
    assert multi_query_scores(*halves) == multi_query_scores(*singles)


# --- stored scores ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [JLML, PYRAMID])
def test_evaluation_writes_scores_and_ranked_lists(boxed, tmp_path, model):
    benchmark = load("market1501", boxed)
    run = untrained_run(benchmark, tmp_path / "runs", model)
    scores = evaluate_run(run, benchmark, execution=QUIET)
    assert json.loads((run.folder / "scores.json").read_text()) == scores == run.scores
    assert {name: value for name, value in scores.items() if name != "branches"} == {
        "format": evaluation.FORMAT,
        "benchmark": "market1501",
        "data": benchmark.fingerprint,
        "protocols": {},
        "num_boxes": 3,
        "query_person_ids": [1, 3],
    }
    network = TrainedNetwork(run, QUIET)
    assert scores["branches"].keys() == network.model.branches.keys()
    # Each branch again by hand, from features that are computed in another way.
    query, gallery, boxes = (
        network.embed(split, keep="nothing")
        for split in (benchmark.query, benchmark.gallery, benchmark.boxes)
    )
    for name, branch in scores["branches"].items():
        assert branch.keys() == {"step", "trapezoid", "multi_query"}
        assert len(branch["step"]["average_precision"]) == len(branch["trapezoid"]["first_match_rank"]) == 2
        columns = network.model.branches[name]
        sides = [replace(side, features=side.features[:, columns]) for side in (query, gallery, boxes)]
        for how in ("mean", "max"):
            expected = naive_multi_query(*sides, how, "step")
            assert branch["multi_query"][how]["step"]["mean_average_precision"] == pytest.approx(
                expected["mean_average_precision"]
            )
    table = _score_table(scores)
    for how in ("mean", "max"):
        kinds = scores["branches"]["full"]["multi_query"][how]
        assert (
            f"multi-query ({how} of its boxes): R1 {100 * kinds['step']['cmc']['1']:.1f}, "
            f"mAP {100 * kinds['trapezoid']['mean_average_precision']:.1f} (trapezoid)"
        ) in table
    assert set(evaluation.load_ranked_lists(run)) == {
        "query_indices",
        "gallery_indices",
        "distances",
        "statuses",
    }


def test_without_boxes_there_is_no_multi_query(market, tmp_path):
    benchmark = load("market1501", market)
    scores = evaluate_run(untrained_run(benchmark, tmp_path / "runs"), benchmark, execution=QUIET)
    assert scores["num_boxes"] is None
    assert all(branch.keys() == {"step", "trapezoid"} for branch in scores["branches"].values())


def test_boxes_that_are_test_images_are_not_embedded_again(market, tmp_path, monkeypatch):
    """One box is a query image, one a gallery image of its camera, one is new: only that is decoded."""
    plain = load("market1501", market)
    new = market / "0003_c2_new.jpg"
    write_image(new, seed=77)
    gallery_row = [path.name for path in plain.gallery.paths].index("0001_c1s1_001051_02.jpg")
    boxes = Split(
        (new, plain.gallery.paths[gallery_row], plain.query.paths[1], plain.query.paths[0]),
        [3, 1, 3, 1],
        [2, 1, 2, 1],
    )
    benchmark = Benchmark("market1501", market, plain.train, plain.query, plain.gallery, boxes=boxes)
    run = untrained_run(benchmark, tmp_path / "runs")
    streamed, pooled_over = [], []

    def watched(model, paths, *arguments, **options):
        streamed.extend(paths)
        return embed_blocks(model, paths, *arguments, **options)

    monkeypatch.setattr(features, "embed_blocks", watched)
    monkeypatch.setattr(
        evaluation,
        "multi_query_scores",
        lambda query, gallery, boxes: pooled_over.append(boxes) or multi_query_scores(query, gallery, boxes),
    )
    evaluate_run(run, benchmark, execution=QUIET)
    assert streamed == [new]
    expected = TrainedNetwork(run, QUIET).embed(boxes, keep="nothing")
    whole = pooled_over[-1]  # of the branch "full"
    torch.testing.assert_close(whole.features, expected.features)
    assert whole.person_ids.tolist() == [3, 1, 3, 1]


def test_a_broken_box_is_named_and_leaves_the_old_scores(boxed, tmp_path):
    benchmark = load("market1501", boxed)
    run = untrained_run(benchmark, tmp_path / "runs")
    scores = evaluate_run(run, benchmark, execution=QUIET)
    broken = boxed / "gt_bbox" / "0001_c1s2_038021_00.jpg"
    broken.write_bytes(broken.read_bytes()[:-20])
    assert not isinstance(decode(broken), np.ndarray)
    with pytest.raises(InputError, match=broken.name):
        evaluate_run(run, benchmark, execution=QUIET)
    assert run.scores == scores


# --- when scores are computed again -------------------------------------------------------------------------


def rewritten(run, **change):
    """Change fields of the run's stored scores; None removes a field."""
    scores = {name: value for name, value in {**run.scores, **change}.items() if value is not None}
    (run.folder / "scores.json").write_text(json.dumps(scores))


def test_scores_are_current_or_usable_or_neither(boxed, tmp_path):
    benchmark = load("market1501", boxed)
    run = untrained_run(benchmark, tmp_path / "runs")
    assert not is_current(run, benchmark) and not has_usable_scores(run)
    scores = evaluate_run(run, benchmark, execution=QUIET)
    assert is_current(run, benchmark) and has_usable_scores(run)

    rewritten(run, format=None, query_person_ids=None)  # as they were written before multi-query
    assert not is_current(run, benchmark) and has_usable_scores(run)
    rewritten(run, **scores)
    rewritten(run, data="0" * 16)
    assert not is_current(run, benchmark) and not has_usable_scores(run)  # scores of other data
    rewritten(run, **scores)
    short = {kind: {**scores["branches"]["full"][kind], "cmc": None} for kind in ("step", "trapezoid")}
    del short["trapezoid"]["average_precision"]
    rewritten(run, branches={**scores["branches"], "full": short})
    assert not is_current(run, benchmark) and not has_usable_scores(run)
    rewritten(run, branches={"global": scores["branches"]["global"]})
    assert not has_usable_scores(run)
    rewritten(run, branches=None)
    assert not has_usable_scores(run)

    rewritten(run, **scores)
    assert is_current(run, benchmark)
    write_image(boxed / "gt_bbox" / "0003_c2s1_000777_00.jpg")
    assert not is_current(run, load("market1501", boxed))  # one box more
    shutil.rmtree(boxed / "gt_bbox")
    assert is_current(run, load("market1501", boxed))  # nothing is missing for what is here


def test_scores_without_boxes_are_not_current_once_there_are_some(boxed, tmp_path):
    benchmark = load("market1501", boxed)
    run = untrained_run(benchmark, tmp_path / "runs")
    evaluate_run(run, replace(benchmark, boxes=None), execution=QUIET)
    assert is_current(run, replace(benchmark, boxes=None))
    assert not is_current(run, benchmark) and has_usable_scores(run)
    evaluate_run(run, benchmark, execution=QUIET)
    assert is_current(run, benchmark)


def test_a_run_without_weights_and_scores_says_what_is_missing(market, tmp_path):
    benchmark = load("market1501", market)
    run = untrained_run(benchmark, tmp_path / "runs")
    (run.folder / "weights.pt").unlink()
    assert not has_usable_scores(run)
    with pytest.raises(InputError, match=r"needs the run's weights.*copy weights\.pt"):
        evaluate_run(run, benchmark, execution=QUIET)


def test_a_run_on_other_data_is_refused(market, tmp_path):
    run = untrained_run(load("market1501", market), tmp_path / "runs")
    write_image(market / "query" / "0001_c2s1_001051_00.jpg")
    with pytest.raises(InputError, match="belongs to the data"):
        evaluate_run(Run(run.folder), load("market1501", market), execution=QUIET)
    assert not (run.folder / "scores.json").exists()
