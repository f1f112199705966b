"""The nearest gallery images against a naive search by exact distances."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.ranking import distances, nearest
from reidlib.ranking.distances import float32_products, full_float32, squared_distances_to_all
from reidlib.ranking.metrics import Embeddings, evaluate
from reidlib.ranking.nearest import nearest_images


def naive(query, gallery, top, pairs):
    """Sort all gallery images by their exact distance, then by index."""
    squared_qg = squared_distances_to_all(torch.from_numpy(query).float(), gallery).numpy()
    indices, distances = (np.full((len(query), min(top, len(gallery))), fill) for fill in (-1, np.nan))
    for row, squared_g in enumerate(squared_qg):
        listed = np.setdiff1d(np.arange(len(gallery)), pairs[1][pairs[0] == row])
        order = listed[np.lexsort((listed, squared_g[listed]))][:top]
        indices[row, : len(order)], distances[row, : len(order)] = order, np.sqrt(squared_g[order])
    return indices, distances


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    size=st.integers(1, 40),
    length=st.integers(1, 20),
    top=st.integers(1, 50),
    kinds=st.integers(1, 40),
    offset=st.sampled_from([0, 1, 1000]),
    scale=st.sampled_from([1, 1e-18, 1e15, 1e18]),
    dtype=st.sampled_from([np.float16, np.float32]),
    blocks=st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 5, 2**20])),
)
def test_lists_equal_a_naive_search_bit_for_bit(
    tmp_path_factory, seed, size, length, top, kinds, offset, scale, dtype, blocks
):
    """With copies, excluded pairs, 16-bit and memory-mapped features, large norms and blocks of any size."""
    random = np.random.default_rng(seed)
    gallery = (random.normal(size=(kinds, length)) + offset)[random.integers(0, kinds, size)]
    query = np.concatenate([gallery[:3], random.normal(size=(4, length)) + offset])
    if dtype is np.float32:
        gallery, query = gallery * scale, query * scale
    gallery, query = gallery.astype(dtype), query.astype(dtype)
    file = tmp_path_factory.mktemp("features") / "gallery.npy"
    np.save(file, gallery)
    pairs = random.integers(0, len(query), 9), random.integers(0, size, 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "_QUERIES", blocks[0])
        patch.setattr(nearest, "TILE", {"cpu": blocks[1], "cuda": blocks[1]})
        patch.setattr(nearest, "_MEASURED", blocks[2])
        lists = nearest_images(query, np.load(file, mmap_mode="r"), top=top, excluded_pairs=pairs)
    indices, distances = naive(query, gallery, top, pairs)
    np.testing.assert_array_equal(lists.gallery_indices, indices)
    np.testing.assert_array_equal(lists.distances, distances)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_all_features_share_adds_no_candidates(monkeypatch, dtype):
    """Such as an untrained network's features, of which all pairs have a cosine near one."""
    random = np.random.default_rng(0)
    query, gallery = ((random.normal(size=(size, 32)) + 1000).astype(dtype) for size in (20, 400))
    ids = [(np.arange(len(side)) % 10 + 1, np.full(len(side), len(side))) for side in (query, gallery)]
    numbers = []
    for module in (nearest, distances):

        def measured(*pairs, measure=module.squared_pair_distances):
            numbers.append(len(pairs[2]))
            return measure(*pairs)

        monkeypatch.setattr(module, "squared_pair_distances", measured)
    nearest_images(query, gallery, top=5)
    evaluate(Embeddings(query, *ids[0]), Embeddings(gallery, *ids[1]))
    assert 20 * 5 <= sum(numbers) < 20 * 20  # of 8,000 pairs each


@pytest.mark.parametrize("columns", [slice(0, 256), slice(256, 512), slice(0, 512, 2)])
def test_products_of_columns_take_no_thousand_times_as_long(columns):
    generator = torch.Generator().manual_seed(0)
    first_md, second_nd = (torch.randn(number, 512, generator=generator) for number in (200, 300))
    pairs = [(first_md[:, columns], second_nd[:, columns])]
    pairs.append(tuple(features.contiguous() for features in pairs[0]))
    seconds = []
    with full_float32(torch.device("cpu")):
        for first, second in pairs:
            torch.testing.assert_close(float32_products(first, second), first @ second.T, rtol=0, atol=1e-3)
            times = []
            for _ in range(5):
                begin = time.perf_counter()
                float32_products(first, second)
                times.append(time.perf_counter() - begin)
            seconds.append(min(times))
    assert seconds[0] < 100 * seconds[1]
