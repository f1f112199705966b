"""Re-ranking against naive loops over full matrices and a case worked by hand."""

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib import reranking
from reidlib.errors import InputError
from reidlib.ranking import neighbours
from reidlib.ranking.distances import squared_pair_distances
from reidlib.ranking.metrics import Embeddings, evaluate, evaluate_distances
from reidlib.reranking import KReciprocal, k_reciprocal


def dense_reference(query_features, gallery_features, k1, k2, weight):
    """Compute the paper's steps with loops over images, sets, and matrices over all pairs in float64."""
    images = np.concatenate([query_features, gallery_features])
    number, indices = len(images), range(len(images))
    squared = np.empty((number, number))
    for i in indices:
        squared[i] = squared_pair_distances(
            images, images, np.full(number, i), np.arange(number), torch.device("cpu")
        ).numpy()
    normalised = np.array([row / row.max() if row.max() > 0 else row for row in squared])
    order = [sorted(indices, key=lambda j, i=i: (j != i, squared[i, j], j)) for i in indices]

    def reciprocal(i, count):
        return {j for j in order[i][:count] if i in order[j][:count]}

    encodings = np.zeros((number, number))
    for i in indices:
        near = reciprocal(i, k1 + 1)
        expanded = set(near)
        for j in near:
            half = reciprocal(j, round(k1 / 2) + 1)
            if len(half & near) > Fraction(2, 3) * len(half):
                expanded |= half
        for j in expanded:
            encodings[i, j] = math.exp(-normalised[i, j])
        encodings[i] /= encodings[i].sum()
    if k2 > 1:
        encodings = np.array([encodings[order[i][:k2]].mean(0) for i in indices])
    num_queries = len(query_features)
    final = np.empty((num_queries, number - num_queries))
    for i in range(num_queries):
        for j in range(num_queries, number):
            common = np.minimum(encodings[i], encodings[j]).sum()
            jaccard = 1 - common / (2 - common)
            final[i, j - num_queries] = (1 - weight) * jaccard + weight * normalised[i, j]
    return final


def clustered(num_queries, num_gallery, length, *, seed=0, persons=6, noise=1.0):
    """Return features around persons' centres, with persons and cameras."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((persons, length))
    persons_n = generator.integers(0, persons, num_queries + num_gallery)
    features = centres[persons_n] + noise * generator.standard_normal((len(persons_n), length))
    features, cameras = features.astype(np.float32), generator.integers(1, 4, len(persons_n))
    return (
        Embeddings(features[:num_queries], persons_n[:num_queries] + 1, cameras[:num_queries]),
        Embeddings(features[num_queries:], persons_n[num_queries:] + 1, cameras[num_queries:]),
    )


def assert_equals_reference(query, gallery, k1=20, k2=6, weight=0.3):
    distances = k_reciprocal(query, gallery, k1=k1, k2=k2, weight=weight)
    assert (distances.dtype, distances.device.type) == (torch.float32, "cpu")
    expected = dense_reference(query, gallery, k1, k2, weight)
    np.testing.assert_allclose(distances, expected, atol=2e-6)


@pytest.mark.parametrize("k1", [1, 2, 3, 6, 7, 20, 500])
@pytest.mark.parametrize("k2", [1, 2, 6, 500])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 2), (12, 70, 16), (40, 25, 7)])
def test_equals_a_dense_reference(shape, k1, k2):
    query, gallery = clustered(*shape)
    assert_equals_reference(query.features, gallery.features, k1, k2)


@pytest.mark.parametrize("weight", [0, 0.3, 1])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_equals_a_dense_reference_with_any_weight_and_far_from_the_origin(weight, shift):
    query, gallery = clustered(15, 80, 33)
    shift = np.float32(shift)  # at 1000, neighbours differ by less than the rounding of a plain product
    assert_equals_reference(query.features + shift, gallery.features + shift, weight=weight)


@pytest.mark.parametrize("waiting", [2**24, 200])  # never too many candidates, or soon too many
def test_equals_a_dense_reference_with_several_tiles_of_neighbours(monkeypatch, waiting):
    monkeypatch.setattr(neighbours, "_WAITING", waiting)
    monkeypatch.setitem(neighbours.TILE, "cpu", 37)
    monkeypatch.setattr(reranking, "_SHARED", 100)
    monkeypatch.setattr(reranking, "_GALLERY", 37)
    query, gallery = clustered(30, 270, 8)
    assert_equals_reference(query.features, gallery.features, 3, 2)


def test_equals_a_dense_reference_with_copies_and_with_an_outlier():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((30, 5)).astype(np.float32)
    copied = features[generator.integers(0, 30, 110)]
    copied[17] = 1e4
    for k1, k2 in ((1, 1), (3, 2), (8, 6)):
        assert_equals_reference(copied[:20], copied[20:], k1, k2)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 8), st.floats(0, 1))
def test_equals_a_dense_reference_on_a_coarse_grid(seed, k1, k2, weight):
    generator = np.random.default_rng(seed)
    features = generator.integers(0, 3, (generator.integers(2, 30), generator.integers(1, 4))) / 4
    num_queries = generator.integers(1, len(features))
    features = features.astype(generator.choice([np.float32, np.float64]))
    assert_equals_reference(features[:num_queries], features[num_queries:], k1, k2, weight)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 16, 1024]), st.sampled_from([0, 1e-7, 1e-6, 1e-3]))
def test_neighbours_that_differ_by_less_than_rounding_are_in_the_exact_order(seed, tile, spread):
    generator = np.random.default_rng(seed)
    number, count = int(generator.integers(2, 60)), int(generator.integers(1, 12))
    centres = generator.standard_normal((4, 17))[generator.integers(0, 4, number)]
    images = (3 + centres + spread * generator.standard_normal((number, 17))).astype(np.float32)
    everyone = np.arange(number)
    squared_nn = squared_pair_distances(
        images, images, everyone.repeat(number), np.tile(everyone, number), torch.device("cpu")
    ).numpy()
    squared_nn = squared_nn.reshape(number, number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(neighbours.TILE, "cpu", tile)
        result = neighbours.nearest_neighbours(torch.from_numpy(images), min(count, number))
    for image in everyone:
        order = sorted(everyone, key=lambda j, i=image: (j != i, squared_nn[i, j], j))
        assert result.images_nk[image].tolist() == order[: min(count, number)]
    largest_n = squared_nn.max(1)
    np.testing.assert_allclose(result.largest_n, np.where(largest_n > 0, largest_n, 1), rtol=1e-4)


def test_an_image_is_before_its_copies():
    features = np.zeros((5, 2), np.float32)
    result = neighbours.nearest_neighbours(torch.from_numpy(features), 3)
    assert result.images_nk.tolist() == [[0, 1, 2], [1, 0, 2], [2, 0, 1], [3, 0, 1], [4, 0, 1]]
    assert result.largest_n.tolist() == [1] * 5


@pytest.mark.parametrize("value", [0.0, 0.3, 1e14, 1e-22])
def test_equal_features_give_numbers(value):
    features = np.full((30, 10), value, np.float32)
    result = k_reciprocal(features[:5], features[5:], k1=4)
    assert result.isfinite().all()
    assert_equals_reference(features[:5], features[5:], 4)


def test_by_hand():
    # On a line: query 0; gallery 1, 3 and 10. With k1 = 1 an image and its nearest are a set if each is the
    # other's nearest: 0 and 1 are; 3 (whose nearest is 1) and 10 (whose nearest is 3) are single sets.
    query, gallery = np.array([[0.0]]), np.array([[1.0], [3.0], [10.0]])
    own, first, second = 1.0, math.exp(-1 / 100), math.exp(-1 / 81)  # squared, by the row's largest: 100, 81
    of_query = [own / (own + first), first / (own + first)]
    of_first = [second / (own + second), own / (own + second)]
    common = min(of_query[0], of_first[0]) + min(of_query[1], of_first[1])
    expected = [0.7 * (1 - common / (2 - common)) + 0.3 / 100, 0.7 + 0.3 * 9 / 100, 0.7 + 0.3]
    result = k_reciprocal(query, gallery, k1=1, k2=1, weight=0.3)
    np.testing.assert_allclose(result, [expected], rtol=1e-6)


def test_the_smaller_sets_are_those_of_the_python_form(monkeypatch):
    # round(k1/2) + 1, a half to even; MATLAB's round((k1 + 1)/2) is 11 for 20 too, but 10 for 19 and 2 for 3.
    sizes = []
    real = reranking._reciprocal
    monkeypatch.setattr(
        reranking,
        "_reciprocal",
        lambda listed, of: sizes.append(listed.shape[1]) or real(listed, of),
    )
    query, gallery = clustered(3, 40, 4)
    for k1 in (20, 19, 3, 1):
        k_reciprocal(query.features, gallery.features, k1=k1)
    assert sizes == [21, 11, 20, 11, 4, 3, 2, 1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 25), st.integers(1, 8), st.floats(0, 1))
def test_range_and_permutation_of_the_gallery(seed, k1, k2, weight):
    query, gallery = clustered(6, 50, 12, seed=seed)
    result = k_reciprocal(query.features, gallery.features, k1=k1, k2=k2, weight=weight)
    assert result.min() >= 0
    assert result.max() <= 1
    order = np.random.default_rng(seed).permutation(50)
    shuffled = k_reciprocal(query.features, gallery.features[order], k1=k1, k2=k2, weight=weight)
    np.testing.assert_allclose(shuffled, result[:, order], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weight_1_keeps_the_order_of_plain_distances(seed):
    query, gallery = clustered(6, 50, 12, seed=seed)
    result = k_reciprocal(query.features, gallery.features, weight=1).double().numpy()
    squared = ((query.features[:, None].astype(float) - gallery.features) ** 2).sum(2)
    # Distances and products are float32.
    np.testing.assert_array_less(-5e-7, np.diff(np.take_along_axis(result, squared.argsort(1), 1)))


def test_re_ranking_raises_mean_average_precision_of_clustered_features():
    query, gallery = clustered(60, 600, 32, persons=40, noise=1.3)
    plain = evaluate(query, gallery)
    reranked = evaluate_distances(k_reciprocal(query.features, gallery.features), query, gallery)
    assert plain.mean_average_precision < 0.8
    assert reranked.mean_average_precision > plain.mean_average_precision + 0.05


def test_rows_on_demand_are_those_of_the_matrix():
    query, gallery = clustered(40, 300, 16)
    whole = k_reciprocal(query.features, gallery.features)
    fitted = KReciprocal.fit(query.features, gallery.features)
    assert (fitted.num_queries, fitted.num_gallery) == (40, 300)
    for indices in (7, [3, 39, 3], np.arange(40), []):
        result = fitted.distances(indices)
        assert result.shape == (np.size(indices), 300)
        np.testing.assert_allclose(result, whole[np.atleast_1d(np.array(indices, int))], atol=2e-7)
    for wrong in (40, -1, [0, 40]):
        with pytest.raises(InputError, match="from 0 to 39"):
            fitted.distances(wrong)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_gives_the_same(dtype):
    query, gallery = (torch.from_numpy(side.features).to(dtype) for side in clustered(8, 60, 9))
    result = k_reciprocal(query, gallery)
    expected = k_reciprocal(query.double().numpy(), gallery.double().numpy())
    np.testing.assert_allclose(result, expected, atol=2e-6)


def test_memory_maps_and_tensors_give_the_same_and_are_not_changed(tmp_path):
    query, gallery = (side.features for side in clustered(8, 60, 9))
    np.save(tmp_path / "gallery.npy", gallery)
    mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    tensors = torch.from_numpy(query.copy()), torch.from_numpy(gallery.copy())
    expected = k_reciprocal(*tensors)
    assert torch.equal(k_reciprocal(query, mapped), expected)
    np.testing.assert_array_equal(tensors[0], query)
    np.testing.assert_array_equal(tensors[1], gallery)


def test_a_coarse_matrix_product_and_autocast_change_nothing():
    query, gallery = (side.features for side in clustered(20, 200, 64))
    expected = k_reciprocal(query, gallery)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(k_reciprocal(query, gallery), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_progress_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    query, gallery = (side.features for side in clustered(3, 30, 4))
    k_reciprocal(query, gallery)
    assert not capsys.readouterr().err
    k_reciprocal(query, gallery, progress=True)
    assert "neighbours" in capsys.readouterr().err


FEATURES = np.ones((4, 3), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k1": 0}, "k1.*got 0"),
        ({"k2": 0}, "k2.*got 0"),
        ({"weight": 1.1}, "weight.*got 1.1"),
        ({"weight": math.nan}, "weight.*got nan"),
        ({"gallery_features": np.ones((4, 2), np.float32)}, "3 and 2"),
        ({"gallery_features": FEATURES * np.inf}, "inf in row 0"),
        ({"query_features": FEATURES * np.nan}, "nan in row 0"),
        ({"query_features": FEATURES[:0]}, r"\(0, 3\)"),
        ({"gallery_features": FEATURES.astype(int)}, "int64"),
        ({"gallery_features": [[1.0, 2.0, 3.0]]}, "list"),
        ({"query_features": FEATURES[0]}, r"\(3,\)"),
        ({"query_features": None}, "NoneType"),
    ],
)
def test_bad_input_is_refused_in_one_line(changed, message):
    with pytest.raises(InputError, match=message) as raised:
        k_reciprocal(**{"query_features": FEATURES, "gallery_features": FEATURES} | changed)
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same():
    query, gallery = clustered(100, 2000, 128, persons=60)
    copied = np.concatenate([gallery.features, gallery.features[::3]])
    expected = KReciprocal.fit(query.features, copied)
    on_gpu = KReciprocal.fit(query.features, torch.from_numpy(copied).cuda())
    for one, other in (
        (on_gpu.query_encodings, expected.query_encodings),
        (on_gpu.gallery_encodings, expected.gallery_encodings),
    ):
        np.testing.assert_array_equal(one.indices, other.indices)  # the same sets, near-ties and copies too
        np.testing.assert_allclose(one.data, other.data, rtol=1e-5)
    everyone = np.arange(100)
    np.testing.assert_allclose(on_gpu.distances(everyone), expected.distances(everyone), atol=2e-6)
    on_device = k_reciprocal(query.features, copied, device="cuda")
    np.testing.assert_allclose(on_device, expected.distances(everyone), atol=2e-6)
