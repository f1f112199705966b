"""Histograms of pairs against a naive loop, thresholds computed by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.errors import InputError
from reidlib.ranking.metrics import Embeddings
from reidlib.search import verification
from reidlib.search.verification import (
    Doubts,
    PairHistogram,
    VerificationPairs,
    count_false_match_persons,
    pair_distances_histogram,
    threshold_for,
)


def naive(query, gallery, same_camera=False, excluded_pairs=(), within=False, doubts=None):
    """Distances of pairs of the same and of different people, pair by pair."""
    persons, cameras = doubts or (np.array([*range(9), -1]),) * 2
    same, different = [], []
    for q in range(len(query)):
        for g in range(q + 1 if within else 0, len(gallery)):
            person, other = query.person_ids[q], gallery.person_ids[g]
            camera, other_camera = query.camera_ids[q], gallery.camera_ids[g]
            if -1 in (person, other) or (person == other == 0) or (q, g) in excluded_pairs:
                continue
            distance = math.dist(query.features[q].tolist(), gallery.features[g].tolist())
            if person != other:
                if persons[person] != persons[other]:
                    different.append(distance)
            elif same_camera or cameras[camera] != cameras[other_camera] or camera < 0:
                same.append(distance)
    return np.array(same), np.array(different)


def counted(distances, histogram):
    """Distances put into bins one by one."""
    places = np.ceil(distances / histogram.width).astype(int)
    return np.bincount(places, minlength=len(histogram.same))


def random_embeddings(seed, count, persons=4, cameras=3, length=3):
    random = np.random.default_rng(seed)
    features = random.normal(size=(count, length)).astype(np.float32)
    return Embeddings(features, random.integers(-1, persons, count), random.integers(-1, cameras, count))


@given(
    seed=st.integers(0, 10_000), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    same_camera=st.booleans(), blocks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    doubts=st.sampled_from([None, Doubts(np.array([0, 1, 2, 1, -1]), np.array([0, 1, 1, -1]))]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_counts_equal_a_naive_loop_for_any_block_size(seed, sizes, same_camera, blocks, doubts):
    query, gallery = random_embeddings(seed, sizes[0]), random_embeddings(seed + 1, sizes[1])
    excluded_pairs = (np.array([0]), np.array([sizes[1] - 1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_QUERIES", blocks[0])
        patch.setattr(verification, "_GALLERY", blocks[1])
        between = pair_distances_histogram(
            VerificationPairs(query, gallery, same_camera, excluded_pairs, doubts), bins=50
        )
        within = pair_distances_histogram(VerificationPairs(query, None, same_camera, doubts=doubts), bins=50)
    same, different = naive(query, gallery, same_camera, {(0, sizes[1] - 1)}, doubts=doubts)
    assert np.array_equal(between.same, counted(same, between))
    assert np.array_equal(between.different, counted(different, between))
    same, different = naive(query, query, same_camera, within=True, doubts=doubts)
    assert np.array_equal(within.same, counted(same, within))
    assert np.array_equal(within.different, counted(different, within))


@given(
    seed=st.integers(0, 10_000), sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    groups=st.sampled_from([(1, 2, 3), (1, 2, 1), (1, 1, 1)]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_pairs_of_images_of_both_sets_count_once(seed, sizes, groups):
    """Some images are in both sets, at any place; some of those have a known person on one side only."""
    random = np.random.default_rng(seed)
    shared = int(random.integers(0, min(sizes) + 1))
    everyone = random_embeddings(seed, sum(sizes) - shared)
    columns = [random.permutation(sizes[0]), random.permutation(sizes[1]) + sizes[0] - shared]
    query, gallery = (
        Embeddings(everyone.features[column], everyone.person_ids[column].copy(), everyone.camera_ids[column])
        for column in columns
    )
    query.person_ids[random.random(sizes[0]) < 0.2] = -1
    excluded_pairs = tuple(np.nonzero(columns[0][:, None] == columns[1][None]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verification, "_QUERIES", 3)
        patch.setattr(verification, "_GALLERY", 2)
        group = np.array([0, *groups, -1])  # persons of one group may be one person
        pairs_counted = VerificationPairs(query, gallery, True, excluded_pairs, Doubts(group, group))
        histogram = pair_distances_histogram(pairs_counted, bins=50)
        pairs = {}
        for q, image in enumerate(columns[0].tolist()):
            for g, other_image in enumerate(columns[1].tolist()):
                persons = query.person_ids[q], gallery.person_ids[g]
                is_doubtful = persons[0] != persons[1] and group[persons[0]] == group[persons[1]]
                if image != other_image and -1 not in persons and persons != (0, 0) and not is_doubtful:
                    distance = math.dist(query.features[q].tolist(), gallery.features[g].tolist())
                    pairs[frozenset((image, other_image))] = distance, persons
        for counts, same in ((histogram.same, True), (histogram.different, False)):
            distances = [distance for distance, persons in pairs.values() if (len({*persons}) == 1) == same]
            assert np.array_equal(counts, counted(np.array(distances), histogram))
        if histogram.different.sum() and histogram.different[0] == 0:
            threshold = threshold_for(histogram, 0.6 if histogram.different.sum() > 1 else 0.9999999999)
            false_matches = count_false_match_persons(pairs_counted, histogram, threshold)
            near = {
                frozenset(map(int, persons))
                for distance, persons in pairs.values()
                if distance <= threshold.distance and len({*persons}) == 2
            }
            assert false_matches.num_person_pairs == len(near)
            assert false_matches.num_persons == len(frozenset().union(*near))
            ids_by_side = [{*side.person_ids.tolist()} - {-1} for side in (query, gallery)]
            possible = {
                frozenset((a, b)) for a in ids_by_side[0] for b in ids_by_side[1] if group[a] != group[b]
            }
            assert false_matches.num_possible_pairs == len(possible)


def test_people_behind_false_matches_within_one_set():
    # Persons 1 and 2 are near each other with three images each, 3 to 6 far from all.
    features = np.array([[0.0], [0.1], [0.2], [1], [1.1], [1.2], [50], [90], [140], [200]], np.float32)
    images = Embeddings(features, np.array([1, 1, 1, 2, 2, 2, 3, 4, 5, 6]), np.full(10, -1))
    histogram = pair_distances_histogram(VerificationPairs(images))
    threshold = threshold_for(histogram, 0.24)
    assert threshold.num_false_matches == 9
    assert count_false_match_persons(VerificationPairs(images), histogram, threshold) == (2, 1, 15)
    assert count_false_match_persons(
        VerificationPairs(images), histogram, threshold_for(histogram, 0.03)
    ) == (
        2,
        1,
        15,
    )


def test_which_pairs_count():
    # One image in each camera; the features' differences name the pair: 1, 2, 4 … apart along one axis.
    persons = [1, 1, 1, 2, 0, 0, -1]
    cameras = [1, 1, 2, 1, 1, 2, 2]
    features = np.array([[0.0], [1], [3], [7], [15], [31], [63]], np.float32)
    embeddings = Embeddings(features, np.array(persons), np.array(cameras))
    histogram = pair_distances_histogram(VerificationPairs(embeddings), bins=126)  # bins one wide
    assert histogram.width == pytest.approx(1)

    def distances(counts):
        # A distance of 3 lies at the edge between two bins, where the bound's last digit decides.
        return sorted(
            round(histogram.width * (i - 0.01)) for i in np.flatnonzero(counts).repeat(counts[counts > 0])
        )

    # 1–2 share person and camera; the distractors 5–6 may be one person; the last is junk.
    assert distances(histogram.same) == [2, 3]
    assert distances(histogram.different) == [4, 6, 7, 8, 12, 14, 15, 24, 28, 30, 31]
    allowed = pair_distances_histogram(VerificationPairs(embeddings, same_camera=True), bins=126)
    assert allowed.same.sum() == 3
    assert np.array_equal(allowed.different, histogram.different)


def test_unknown_cameras_are_never_the_same():
    features = np.array([[0.0], [1]], np.float32)
    known_cameras = Embeddings(features, np.array([5, 5]), np.array([0, 0]))
    unknown = Embeddings(features, np.array([5, 5]), np.array([-1, -1]))
    assert pair_distances_histogram(VerificationPairs(known_cameras)).same.sum() == 0
    assert pair_distances_histogram(VerificationPairs(unknown)).same.sum() == 1


def test_a_memory_map_gives_the_same_counts_and_is_not_changed(tmp_path):
    whole = random_embeddings(3, 40)
    np.save(tmp_path / "f.npy", whole.features)
    mapped = Embeddings(np.load(tmp_path / "f.npy", mmap_mode="r"), whole.person_ids, whole.camera_ids)
    before = whole.features.copy()
    array_histogram, map_histogram = (
        pair_distances_histogram(VerificationPairs(whole)),
        pair_distances_histogram(VerificationPairs(mapped)),
    )
    assert np.array_equal(array_histogram.same, map_histogram.same)
    assert np.array_equal(array_histogram.different, map_histogram.different)
    assert np.array_equal(whole.features, before)


def test_copies_are_at_distance_0_whatever_their_length():
    features = np.repeat(np.random.default_rng(0).normal(size=(1, 300)) * 1e4, 20, 0).astype(np.float32)
    features[10:] += 1
    histogram = pair_distances_histogram(
        VerificationPairs(Embeddings(features, np.arange(1, 21), np.zeros(20, int)))
    )
    assert histogram.different[0] == 90  # 45 pairs in each half
    assert histogram.different.sum() == 190


def histogram_of(same, different, width=0.5, bins=20):
    counts = [
        np.bincount(np.ceil(np.array(distances) / width).astype(int), minlength=bins + 1)
        for distances in (same, different)
    ]
    return PairHistogram(width, *counts)


def test_a_threshold_by_hand():
    # Ten pairs of different people; one in five may be let through: two, at 2.0 and 3.0. The third is at 4.0.
    different = [2.0, 3.0, 4.0, 5.0, 5.0, 6.0, 6.0, 7.0, 8.0, 9.0]
    histogram = histogram_of([0.0, 1.0, 3.5, 4.0], different)
    threshold = threshold_for(histogram, 0.2)
    assert threshold == (3.5, 0.2, 0.2, 0.75, 2, 10, 4)
    assert threshold_for(histogram, 0.29).distance == 3.5
    assert threshold_for(histogram, 0.1).distance == 2.5
    # Two pairs at 5.0: neither fits alone under 0.4, both under 0.5.
    assert threshold_for(histogram, 0.4)[:3] == (4.5, 0.4, 0.3)
    assert threshold_for(histogram, 0.5)[:3] == (5.5, 0.5, 0.5)


@given(seed=st.integers(0, 1000), rate=st.floats(0.02, 0.9))
@settings(max_examples=40, deadline=None)
def test_the_threshold_is_the_largest_that_keeps_the_rate(seed, rate):
    query = random_embeddings(seed, 40, persons=9)
    histogram = pair_distances_histogram(VerificationPairs(query, same_camera=True), bins=4096)
    threshold = threshold_for(histogram, rate)
    same, different = naive(query, query, same_camera=True, within=True)
    below = np.mean(different <= threshold.distance)
    assert below == threshold.false_match_rate <= rate + 1e-9  # as much as a product's rounding needs
    assert threshold.true_match_rate == np.mean(same <= threshold.distance)
    assert np.mean(different <= threshold.distance + histogram.width) > rate


def test_a_rate_finer_than_one_pair_is_refused_with_a_measurable_one():
    histogram = histogram_of([1.0], list(np.linspace(1, 9, 49)))
    with pytest.raises(
        InputError, match=r"at least 1,000 pairs .*; got 49 pairs; request a rate of at least 0\.021"
    ):
        threshold_for(histogram, 0.001)
    assert threshold_for(histogram, 0.021).num_false_matches == 1
    with pytest.raises(InputError, match="got 0 pairs; give more persons"):
        threshold_for(histogram_of([1.0], []), 0.5)
    assert threshold_for(histogram_of([1.0], [5.0] * 1000), 0.001).distance == 4.5


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, math.nan])
def test_a_rate_is_a_share(rate):
    with pytest.raises(InputError, match="between 0 and 1"):
        threshold_for(histogram_of([1.0], [5.0]), rate)


def test_equal_features_of_different_people_are_refused():
    with pytest.raises(InputError, match=r"6 of 10 pairs at distance 0; look for copies"):
        threshold_for(histogram_of([1.0], [0.0] * 6 + [1.0] * 4), 0.5)


def test_without_a_pair_of_one_person_the_true_match_rate_is_unknown():
    assert math.isnan(threshold_for(histogram_of([], [1.0, 2.0]), 0.5).true_match_rate)


def test_features_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="equally long; got 3 and 4; use one model"):
        pair_distances_histogram(
            VerificationPairs(random_embeddings(0, 3), random_embeddings(0, 3, length=4))
        )


def test_counts_of_different_shapes_are_refused():
    with pytest.raises(InputError, match="same bins"):
        PairHistogram(1.0, np.zeros(3, int), np.zeros(4, int))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_counts():
    query = random_embeddings(0, 300, persons=20, length=64)
    on_cpu, on_gpu = (
        pair_distances_histogram(VerificationPairs(query), device=device, bins=200)
        for device in ("cpu", "cuda")
    )
    assert np.abs(on_cpu.different.cumsum() - on_gpu.different.cumsum()).max() <= 1
    assert on_cpu.same.sum() == on_gpu.same.sum()
