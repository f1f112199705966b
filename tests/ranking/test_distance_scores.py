"""Scores of a distance matrix against a plain loop, scores of embeddings and cases worked by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.ranking import metrics
from reidlib.ranking.metrics import Embeddings, evaluate, evaluate_distances


def split(person_ids, camera_ids):
    return Split(tuple(Path(f"{index}.jpg") for index in range(len(person_ids))), person_ids, camera_ids)


def oracle(distances_qg, query, gallery, trapezoid):
    """Return each query's average precision, inverse negative penalty and rank of the first match."""
    rows = []
    for row, (person, camera) in enumerate(zip(query.person_ids, query.camera_ids, strict=True)):
        order = []
        for index, (other, place) in enumerate(zip(gallery.person_ids, gallery.camera_ids, strict=True)):
            if other != -1 and not (other == person and place == camera):
                order.append((float(distances_qg[row][index]), bool(other == person)))
        hits = [rank for rank, (_, match) in enumerate(sorted(order), 1) if match]  # False sorts before True
        total = 0.0
        for count, rank in enumerate(hits, 1):
            before = 1.0 if rank == 1 else (count - 1) / (rank - 1)
            total += (before + count / rank) / 2 if trapezoid else count / rank
        rows.append((total / len(hits), len(hits) / hits[-1], hits[0]) if hits else (math.nan, math.nan, 0))
    return (np.array(column) for column in zip(*rows, strict=True))


@st.composite
def cases(draw):
    """Coarse distances of either sign: many are equal; junk, distractors, queries without a match."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_queries, num_gallery = draw(st.integers(1, 7)), draw(st.integers(1, 40))
    distances_qg = generator.integers(-2, draw(st.integers(0, 9)), (num_queries, num_gallery)) / 4
    query = split(generator.integers(1, 4, num_queries), generator.integers(1, 3, num_queries))
    gallery = split(generator.integers(-1, 4, num_gallery), generator.integers(1, 3, num_gallery))
    return distances_qg, query, gallery


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from([np.float16, np.float32, np.float64]), st.integers(1, 100))
def test_equals_a_plain_loop(case, dtype, block):
    distances_qg, query, gallery = case
    distances_qg = distances_qg.astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_BLOCK", block)
        for kind in ("step", "trapezoid"):
            average, penalty, first = oracle(distances_qg, query, gallery, kind == "trapezoid")
            valid = first > 0
            if not valid.any():
                with pytest.raises(InputError, match="from another camera"):
                    evaluate_distances(distances_qg, query, gallery, average_precision=kind)
                continue
            for values_qg in (distances_qg, torch.from_numpy(distances_qg)):
                scores = evaluate_distances(
                    values_qg, query, gallery, average_precision=kind, ranks=(1, 3, 1000)
                )
                np.testing.assert_allclose(scores.average_precision, average, rtol=1e-12)
                np.testing.assert_array_equal(scores.first_match_rank, first)
                assert scores.mean_inp == pytest.approx(penalty[valid].mean(), rel=1e-12)
                assert scores.cmc == {
                    rank: pytest.approx((first[valid] <= rank).mean()) for rank in (1, 3, 1000)
                }
                assert (scores.num_queries, scores.num_valid_queries) == (len(query.paths), valid.sum())


@pytest.mark.parametrize("kind", ["step", "trapezoid"])
def test_euclidean_distances_score_like_their_embeddings(kind):
    generator = np.random.default_rng(0)
    features = generator.integers(0, 3, (230, 4)).astype(np.float32)  # many images have the same feature
    persons, cameras = generator.integers(-1, 12, 230), generator.integers(1, 5, 230)
    persons[:30] = generator.integers(1, 12, 30)
    query = Embeddings(features[:30], persons[:30], cameras[:30])
    gallery = Embeddings(features[30:], persons[30:], cameras[30:])
    squared_qg = ((query.features[:, None] - gallery.features) ** 2).sum(2)
    scores = evaluate_distances(squared_qg, query, gallery, average_precision=kind)
    assert scores.to_dict() == evaluate(query, gallery, average_precision=kind).to_dict()


def test_by_hand():
    query = split([1, 2], [1, 1])
    #                 own camera, junk, distractor, wrong, match, match
    gallery = split([1, -1, 0, 7, 1, 1], [1, 2, 2, 1, 2, 3])
    scores = evaluate_distances(
        np.array([[-9.0, -8, 1, 3, 3, 0.5], [0, 0, 0, 0, 0, 0]]), query, gallery, ranks=(1, 3, 4)
    )
    # 0.5 is a match, 1 a distractor, 3 a wrong image before a match: matches are at ranks 1 and 4.
    assert scores.average_precision[0] == pytest.approx((1 / 1 + 2 / 4) / 2)
    assert np.isnan(scores.average_precision[1])
    assert scores.first_match_rank.tolist() == [1, 0]
    assert (scores.num_queries, scores.num_valid_queries) == (2, 1)
    assert scores.mean_inp == pytest.approx(2 / 4)


def test_distances_stay_as_they_were_and_may_be_a_memory_map(tmp_path):
    generator = np.random.default_rng(0)
    distances_qg = generator.random((6, 50), np.float32)
    query, gallery = (
        split(generator.integers(1, 5, 6), [1] * 6),
        split(generator.integers(-1, 5, 50), [2] * 50),
    )
    np.save(tmp_path / "distances.npy", distances_qg)
    mapped_qg = np.load(tmp_path / "distances.npy", mmap_mode="r")
    tensor_qg = torch.from_numpy(distances_qg.copy())
    expected = evaluate_distances(mapped_qg, query, gallery).to_dict()
    assert evaluate_distances(tensor_qg, query, gallery).to_dict() == expected
    np.testing.assert_array_equal(tensor_qg, distances_qg)


def test_bad_input_is_refused():
    query, gallery = split([1, 2], [1, 1]), split([1, 2, 3], [2, 2, 2])
    good_qg = np.zeros((2, 3))
    unbounded_qg = good_qg.copy()
    unbounded_qg[1, 2] = math.inf
    for distances_qg, message in [
        (good_qg.T, r"\(3, 2\) float64"),
        (good_qg.astype(int), "int64"),
        (torch.zeros(2, 3, dtype=torch.long), "int64"),
        (good_qg.tolist(), "list"),
        (unbounded_qg, "inf between query 1 and image 2"),
        (good_qg * math.nan, "nan between query 0 and image 0"),
    ]:
        with pytest.raises(InputError, match=message):
            evaluate_distances(distances_qg, query, gallery)
    with pytest.raises(InputError, match="area"):
        evaluate_distances(good_qg, query, gallery, average_precision="area")
    with pytest.raises(InputError, match="ranks"):
        evaluate_distances(good_qg, query, gallery, ranks=(0,))
    with pytest.raises(InputError, match="0 in row 1"):
        evaluate_distances(good_qg, split([1, 0], [1, 1]), gallery)
