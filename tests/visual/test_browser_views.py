"""Views of a ranked gallery: ranks, filters, orders, re-ranking and the contributions of the parts."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize
from untrained_runs import PYRAMID, QUIET, untrained_run

from reidlib.data import load
from reidlib.errors import InputError
from reidlib.experiments.metric_study import learn
from reidlib.experiments.rows import LEARNT_METRICS
from reidlib.models.parts import FeaturePart
from reidlib.ranking.metrics import Embeddings, Status, evaluate, evaluate_distances, ranked_list
from reidlib.reranking import k_reciprocal
from reidlib.visual.browser.collection import BenchmarkFeatures, embed_benchmark
from reidlib.visual.browser.views import (
    Options,
    format_rank_gain,
    most_changed,
    query_order,
    reranker,
    view,
    view_scores,
    write_csv,
)

PARTS = (
    FeaturePart("global", "global", slice(0, 3), (0.0, 1.0)),
    FeaturePart("local 1", "local", slice(3, 5), (0.0, 0.5)),
    FeaturePart("local 2", "local", slice(5, 8), (0.5, 1.0)),
)
BRANCHES = {"global": slice(0, 3), "local": slice(3, 8), "full": slice(0, 8)}


def make_collection(seed=0, queries=12, gallery=40, persons=6) -> BenchmarkFeatures:
    """Create random features; the gallery contains persons −1 (junk) and 0 (distractors)."""
    generator = np.random.default_rng(seed)
    sides = []
    for count, lowest in ((queries, 1), (gallery, -1)):
        features = torch.from_numpy(generator.standard_normal((count, 8)).astype(np.float32))
        sides.append(
            Embeddings(features, generator.integers(lowest, persons, count), generator.integers(1, 4, count))
        )
    paths = [
        tuple(Path(f"{name}{index}.jpg") for index in range(len(side)))
        for name, side in zip("qg", sides, strict=True)
    ]
    return BenchmarkFeatures("random", *sides, *paths, PARTS, BRANCHES, (16, 8))


def with_training(collection, persons=30, cameras=(1, 2, 3)):
    """Add training images of other persons, which the first three numbers tell badly apart."""
    generator, ids = np.random.default_rng(2), np.repeat(np.arange(100, 100 + persons), 6)
    features = generator.standard_normal((130, 8))[ids] + 0.2 * generator.standard_normal((len(ids), 8))
    features[:, :3] += 3 * generator.standard_normal((len(ids), 3))
    training = Embeddings(
        torch.from_numpy(features.astype(np.float32)),
        ids,
        np.tile(np.repeat(cameras, 6 // len(cameras)), persons),
    )
    return replace(collection, training=lambda: ("a set", training)), training


def test_a_list_computed_by_hand():
    query = Embeddings(torch.zeros(1, 2), np.array([7]), np.array([1]))
    features = torch.tensor([[3.0, 4.0], [0.0, 1.0], [2.0, 0.0], [0.0, 2.0], [1.0, 0.0], [6.0, 0.0]])
    gallery = Embeddings(features, np.array([7, 7, 7, 5, -1, 0]), np.array([2, 1, 2, 2, 2, 3]))
    parts = (FeaturePart("a", "a", slice(0, 1), (0, 1)), FeaturePart("b", "b", slice(1, 2), (0, 1)))
    collection = BenchmarkFeatures(
        "hand", query, gallery, (Path("q"),), tuple(map(Path, "abcdef")), parts, {"full": slice(0, 2)}, (1, 1)
    )
    query_view = view(collection, 0, Options(top=9))
    # Images 1 (own camera) and 4 (junk) are ignored. 2 and 3 have equal distances: the wrong one is first.
    assert [(entry.rank, entry.gallery_index, entry.distance) for entry in query_view.entries] == [
        (1, 3, 2.0), (2, 2, 2.0), (3, 0, 5.0), (4, 5, 6.0),
    ]  # fmt: skip
    assert [entry.status for entry in query_view.entries] == [
        Status.OTHER, Status.MATCH, Status.MATCH, Status.DISTRACTOR,
    ]  # fmt: skip
    assert (query_view.num_matches, query_view.first_match_rank) == (2, 2)
    assert query_view.average_precision == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert query_view.entries[2].contributions.tolist() == [9, 16]
    with_ignored = view(collection, 0, Options(top=9, show_ignored=True))
    assert [(entry.rank, entry.gallery_index) for entry in with_ignored.entries] == [
        (None, 1), (None, 4), (1, 3), (2, 2), (3, 0), (4, 5),
    ]  # fmt: skip
    assert view(collection, 0, Options(top=1)).num_candidates == 4


@pytest.mark.parametrize("feature", BRANCHES)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_views_agree_with_scores(feature, metric):
    collection, options = make_collection(), Options(feature, metric, top=40)
    sides = [
        Embeddings(features, side.person_ids, side.camera_ids)
        for side, features in zip(
            (collection.query, collection.gallery),
            [
                normalize(side.features[:, BRANCHES[feature]])
                if metric == "cosine"
                else side.features[:, BRANCHES[feature]].contiguous()
                for side in (collection.query, collection.gallery)
            ],
            strict=True,
        )
    ]
    scores = evaluate(*sides)
    lists = ranked_list(range(len(collection.query)), *sides, top=40)
    for query in range(len(collection.query)):
        query_view = view(collection, query, options)
        assert [entry.gallery_index for entry in query_view.entries] == [
            index for index in lists.gallery_indices[query].tolist() if index >= 0
        ]
        np.testing.assert_equal(query_view.first_match_rank, scores.first_match_rank[query])
        np.testing.assert_allclose(query_view.average_precision, scores.average_precision[query])
        for entry in query_view.entries:
            distance = entry.distance * 2 if metric == "cosine" else entry.distance**2
            np.testing.assert_allclose(entry.contributions.sum(), distance, rtol=1e-5)
    assert view_scores(collection, options).mean_average_precision == pytest.approx(
        scores.mean_average_precision
    )


# Learnt from few persons, XQDA subtracts in some directions.
@pytest.mark.parametrize(("metric", "persons"), [*((name, 30) for name in LEARNT_METRICS), ("XQDA", 4)])
@pytest.mark.parametrize("feature", ["full", "local"])
def test_a_learnt_metric_ranks_by_its_own_distances_and_has_no_bars(feature, metric, persons):
    collection, training = with_training(make_collection(), persons)
    sides = [
        replace(side, features=normalize(side.features[:, BRANCHES[feature]]))
        for side in (training, collection.query, collection.gallery)
    ]
    learnt, _, notes = learn(metric, sides[0])
    distances = learnt.distances(
        sides[1].features, sides[2].features, sides[1].camera_ids, sides[2].camera_ids
    )
    direct = evaluate_distances(distances, collection.query, collection.gallery)
    options = Options(feature, metric, top=40)
    assert view_scores(collection, options).mean_average_precision == pytest.approx(
        direct.mean_average_precision
    )
    query_view = view(collection, 3, options)
    assert query_view.average_precision == pytest.approx(direct.average_precision[3])
    shown = np.array([entry.distance for entry in query_view.entries])
    expected = distances[3, [entry.gallery_index for entry in query_view.entries]]
    # NFST's source takes the root.
    np.testing.assert_allclose(shown, expected**2 if metric == "NFST" else expected, rtol=1e-6, atol=1e-9)
    assert (np.diff(shown) >= 0).all()
    assert not any(len(entry.contributions) for entry in query_view.entries)
    assert "squared distance of" not in write_csv(query_view, collection)
    assert query_view.options.description == f"{feature} feature, {metric} (learnt) distance"
    note = collection.learnt_distance(feature, metric).note
    assert note.startswith(
        f"{metric} was learnt from {6 * persons} training images of {persons} persons of a set, in "
    )
    assert note.endswith("; ".join([" s", *notes]))


def test_a_ridge_is_told_where_a_learnt_metric_is_shown():
    collection, training = with_training(make_collection(), 12, cameras=(1, 2))
    # One image from each camera of two persons, and from one camera of ten.
    rows = np.flatnonzero((training.person_ids < 102) | (training.camera_ids == 1))[::3]
    few = Embeddings(training.features[rows], training.person_ids[rows], training.camera_ids[rows])
    collection = replace(collection, training=lambda: ("a set", few))
    note = collection.learnt_distance("full", "KISSME").note
    assert re.search(r" s; the covariance of similar pairs is singular: a ridge of [-.e\d]+ was added", note)


@pytest.mark.parametrize("persons", [30, 4])
def test_a_learnt_metrics_ranks_are_compared_with_cosine(persons):
    collection, _ = with_training(make_collection(), persons)
    for feature in ("full", "local"):
        options = {name: Options(feature, name, top=40) for name in ("cosine", "XQDA")}
        plain, learnt = (view(collection, 3, each) for each in options.values())
        before = {entry.gallery_index: entry.rank for entry in plain.entries}
        assert {e.gallery_index: e.rank_gain for e in learnt.entries} == {
            e.gallery_index: before[e.gallery_index] - e.rank for e in learnt.entries
        }
        assert any(entry.rank_gain for entry in learnt.entries)
        assert not any(entry.rank_gain for entry in plain.entries)


def test_the_most_changed_queries_are_shown_before_and_after():
    collection, _ = with_training(make_collection(), 30)
    before, after = Options(metric="cosine", top=5), Options(metric="KISSME", top=5)
    views = most_changed(collection, before, after)
    gain_q = (
        view_scores(collection, after).average_precision - view_scores(collection, before).average_precision
    )
    raised, lowered = int(np.nanargmax(gain_q)), int(np.nanargmin(gain_q))
    assert [(each.query_index, each.options) for each in views] == [
        (raised, before),
        (raised, after),
        (lowered, before),
        (lowered, after),
    ]


def test_a_metric_is_learnt_once_for_each_feature():
    collection, _ = with_training(make_collection())
    assert collection.learnt_distance("full", "XQDA") is collection.learnt_distance("full", "XQDA")
    assert collection.learnt_distance("local", "XQDA") is not collection.learnt_distance("full", "XQDA")


def test_re_ranking_takes_a_learnt_metric_only_if_it_never_subtracts():
    collection, _ = with_training(make_collection())
    options = Options(metric="KISSME", top=40, reranked=True)
    query_view = view(collection, 3, options, reranking=reranker(collection, options))
    assert query_view.average_precision == pytest.approx(
        view_scores(collection, options).average_precision[3]
    )
    options, (collection, _) = Options(metric="XQDA", reranked=True), with_training(make_collection(), 4)
    assert (collection.learnt_distance("full", "XQDA").offsets != 0).any()
    for function in (reranker, view_scores):
        with pytest.raises(InputError, match="got XQDA, which subtracts in some directions; choose another"):
            function(collection, options)


def test_a_metric_that_cannot_be_learnt_is_refused_in_one_line():
    with pytest.raises(InputError, match="got features without a run; open a run that has weights"):
        view(make_collection(), 0, Options(metric="XQDA"))
    two_cameras, _ = with_training(make_collection(), cameras=(1, 2))
    with pytest.raises(InputError, match=r"from the cameras of training: 1, 2; got 3"):
        view(two_cameras, 0, Options(metric="CRAFT"))
    assert view(two_cameras, 0, Options(metric="KISSME")).entries
    one_camera, _ = with_training(make_collection(), cameras=(1,))
    for metric in LEARNT_METRICS:
        if metric == "NFST":  # it does not use them
            assert view(one_camera, 0, Options(metric=metric)).entries
            continue
        with pytest.raises(InputError, match="at least two cameras"):
            view(one_camera, 0, Options(metric=metric))


def test_re_ranked_lists_have_rank_gains():
    collection, options = make_collection(), Options(top=40, reranked=True)
    reranking = reranker(collection, options)
    distances_qg = k_reciprocal(collection.query.features, collection.gallery.features)
    plain = view(collection, 3, Options(top=40))
    query_view = view(collection, 3, options, reranking=reranking)
    before = {entry.gallery_index: entry.rank for entry in plain.entries}
    assert {entry.gallery_index for entry in query_view.entries} == before.keys()
    for entry in query_view.entries:
        assert entry.rank_gain == before[entry.gallery_index] - entry.rank
        assert entry.distance == pytest.approx(float(distances_qg[3, entry.gallery_index]), abs=1e-6)
    assert any(entry.rank_gain for entry in query_view.entries)
    precisions = [
        view(collection, query, options, reranking=reranking).average_precision for query in range(12)
    ]
    np.testing.assert_allclose(precisions, view_scores(collection, options).average_precision, rtol=1e-9)


def test_filters_remove_images_and_keep_ranks():
    collection = make_collection()
    ranks = {entry.gallery_index: entry.rank for entry in view(collection, 0, Options(top=40)).entries}
    query_view = view(collection, 0, Options(top=40, cameras=(2,), persons=(1, 2, 0)))
    assert query_view.entries
    assert {entry.camera for entry in query_view.entries} == {2}
    assert {entry.person for entry in query_view.entries} <= {0, 1, 2}
    assert all(ranks[entry.gallery_index] == entry.rank for entry in query_view.entries)
    empty = view(collection, 0, Options(cameras=(99,), persons=(77,)))
    assert not empty.entries
    assert "got none of camera 99 and person 77; relax the filters" in empty.message


def test_a_query_without_a_match_has_a_list_and_a_message():
    collection = make_collection()
    unmatched = Embeddings(collection.query.features, np.full(12, 99), collection.query.camera_ids)
    query_view = view(replace(collection, query=unmatched), 0, Options())
    assert len(query_view.entries) == 10
    assert "no such image for person 99" in query_view.message
    assert np.isnan(query_view.average_precision)
    assert query_view.first_match_rank == 0


def test_a_gallery_of_one_image():
    collection = make_collection(gallery=1)
    for reranked in (False, True):
        options = Options(reranked=reranked, show_ignored=True)
        query_view = view(collection, 0, options, reranking=reranker(collection, options))
        assert len(query_view.entries) == 1


@given(st.integers(0, 50), st.sampled_from(["index", "worst", "median", "best", "random"]))
def test_every_order_contains_every_query_once(seed, order):
    collection = make_collection(seed)
    indices = query_order(collection, order)
    assert sorted(indices.tolist()) == list(range(12))
    filtered = query_order(collection, order, cameras=(1, 3), persons=(1, 2, 3))
    mask = np.isin(collection.query.camera_ids, (1, 3)) & np.isin(collection.query.person_ids, (1, 2, 3))
    assert filtered.tolist() == [index for index in indices.tolist() if mask[index]]


def test_orders_by_average_precision():
    collection = replace(make_collection(queries=5), known_precision=np.array([0.375, np.nan, 0.9, 0.1, 0.5]))
    assert query_order(collection, "worst").tolist() == [3, 0, 4, 2, 1]
    assert query_order(collection, "best").tolist() == [2, 4, 0, 3, 1]
    assert query_order(collection, "median").tolist()[:2] == [0, 4]  # the median is 0.4375
    assert query_order(collection, "index").tolist() == [0, 1, 2, 3, 4]


def test_a_view_as_csv():
    collection = make_collection()
    query_view = view(collection, 2, Options("local", top=3))
    lines = list(csv.DictReader(io.StringIO(write_csv(query_view, collection))))
    assert [line["rank"] for line in lines] == ["1", "2", "3"]
    for line, entry in zip(lines, query_view.entries, strict=True):
        assert line["image"] == f"g{entry.gallery_index}.jpg"
        assert float(line["distance"]) == pytest.approx(entry.distance, rel=1e-5)
        assert float(line["squared distance of local 2"]) == pytest.approx(entry.contributions[1], rel=1e-5)
        assert "squared distance of global" not in line


def test_rank_gains_have_a_sign():
    assert [format_rank_gain(ranks) for ranks in (3, 0, -12)] == ["▲3", "=", "▼12"]


def test_invalid_options_are_refused():
    collection = make_collection()
    for arguments, message in (
        ({"metric": "manhattan"}, "the metric is one of euclidean, cosine, KISSME.*got 'manhattan'"),
        ({"top": 0}, "at least one image; got top=0"),
    ):
        with pytest.raises(InputError, match=message):
            Options(**arguments)
    with pytest.raises(InputError, match="feature is one of global, local, full; got 'level 3'"):
        view(collection, 0, Options("level 3"))
    with pytest.raises(InputError, match="from 0 to 11; got 12"):
        view(collection, 12, Options())
    with pytest.raises(InputError, match="ordered by one of index"):
        query_order(collection, "hardest")


def test_features_of_a_run_are_computed_once(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    benchmark = load("market1501", market)
    run = untrained_run(benchmark, tmp_path / "runs", PYRAMID)
    collection, model = embed_benchmark(run, benchmark, execution=QUIET)
    assert collection.branches == model.branches
    assert (len(collection.query), len(collection.gallery)) == (2, 7)
    with torch.inference_mode():
        cached = sorted((tmp_path / "home" / "features").glob("*.npy"))
    assert len(cached) == 2
    again, _ = embed_benchmark(run, benchmark, execution=QUIET)
    assert torch.equal(again.gallery.features, collection.gallery.features)
    assert sorted((tmp_path / "home" / "features").glob("*.npy")) == cached
    assert view(collection, 0, Options()).entries
    learnt = view(collection, 0, Options(metric="XQDA", top=7))
    assert learnt.entries and "persons of market1501, in" in collection.learnt_distance("full", "XQDA").note
    assert len(sorted((tmp_path / "home" / "features").glob("*.npy"))) == 3  # of the training images, too
