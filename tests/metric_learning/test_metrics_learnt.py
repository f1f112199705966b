"""Each metric against a slow, direct form, small cases worked by hand, and properties."""

import warnings
from collections import Counter
from itertools import combinations

import made_persons as made
import numpy as np
import pytest
from scipy import linalg
from scipy.stats import ortho_group

from reidlib.metric_learning import CRAFT, KISSME, XQDA, NullSpace
from reidlib.metric_learning.craft import camera_correlation
from reidlib.metric_learning.pairs import (
    count_dissimilar,
    pair_halves,
    sample_dissimilar_pairs,
    similar_pairs,
)

# Two persons in two cameras by one number: differences of one person are −1, those of two are −5 and 3.
LINE = np.array([[0.0], [1.0], [4.0], [5.0]]), np.array([1, 1, 2, 2]), np.array([1, 2, 1, 2])


def pair_covariances(features, persons, cameras):
    """Mean outer products of differences over pairs across cameras, of one person and of two."""
    sums = {True: [], False: []}
    for first, second in combinations(range(len(features)), 2):
        if cameras[first] != cameras[second]:
            difference = features[first] - features[second]
            sums[persons[first] == persons[second]].append(np.outer(difference, difference))
    return np.mean(sums[True], axis=0), np.mean(sums[False], axis=0)


def quadratic(matrix, query, gallery):
    return np.array([[(q - g) @ matrix @ (q - g) for g in gallery] for q in query])


def subspace_matrix(directions, similar, dissimilar):
    inverses = (np.linalg.inv(directions.T @ each @ directions) for each in (similar, dissimilar))
    return directions @ (next(inverses) - next(inverses)) @ directions.T


@pytest.mark.parametrize("cameras, shots", [(2, 1), (3, 2)])
def test_kissme_equals_its_direct_form(cameras, shots):
    training = made.images(20, 6, cameras=cameras, shots=shots)
    similar, dissimilar = pair_covariances(*training)
    matrix = np.linalg.inv(similar) - np.linalg.inv(dissimilar)
    query, gallery = made.numbers(3, (4, 6)), made.numbers(99, (5, 6))
    metric = KISSME(dissimilar="all", semidefinite=False).fit(*training)
    np.testing.assert_allclose(metric.distances(query, gallery), quadratic(matrix, query, gallery), rtol=1e-9)
    np.testing.assert_allclose(metric.weights * metric.signs @ metric.weights.T, matrix, rtol=1e-9, atol=1e-9)


def test_kissme_after_pca_equals_kissme_of_principal_components():
    features, persons, cameras = made.images(20, 30)
    centred = features - features.mean(0)
    axes = np.linalg.svd(centred)[2][:4].T
    query, gallery = made.numbers(3, (4, 30)), made.numbers(99, (5, 30))
    metric = KISSME(components=4).fit(features, persons, cameras)
    same = KISSME().fit(centred @ axes, persons, cameras)
    distances = same.distances(query @ axes, gallery @ axes)
    np.testing.assert_allclose(metric.distances(query, gallery), distances, rtol=1e-9)


def test_kissme_and_xqda_of_one_number_by_hand():
    # 1/1 − 1/17: the mean square is 1 for one person and (25 + 9) / 2 for two.
    query, gallery = np.array([[0.0]]), np.array([[2.0], [-3.0]])
    expected = np.array([[4, 9]]) * 16 / 17
    np.testing.assert_allclose(KISSME(dissimilar="all").fit(*LINE).distances(query, gallery), expected)
    for values in ("svd", "generalised"):
        metric = XQDA(ridge=0, values=values).fit(*LINE)
        np.testing.assert_allclose(metric.distances(query, gallery), expected)
        np.testing.assert_allclose(metric.spectrum, [17])
    ridged = XQDA(ridge=1).fit(*LINE)
    np.testing.assert_allclose(ridged.distances(query, gallery), np.array([[4, 9]]) * (1 / 2 - 1 / 17))


def test_kissme_is_positive_semidefinite_only_after_its_projection():
    training = made.images(24, 8)
    before, after = (KISSME(semidefinite=each).fit(*training) for each in (False, True))
    values = np.linalg.eigvalsh(before.weights * before.signs @ before.weights.T)
    assert values[0] < 0 and (before.signs < 0).sum() == (values < 0).sum()
    clipped = np.linalg.eigvalsh(after.weights * after.signs @ after.weights.T)
    np.testing.assert_allclose(clipped, np.sort(np.where(values <= 1e-10, 1e-6, values)), rtol=1e-6)
    assert (after.signs > 0).all() and (after.distances(training[0], training[0]) >= 0).all()


@pytest.mark.parametrize("length", [7, 60])  # fewer numbers than images, and more
@pytest.mark.parametrize("values", ["svd", "generalised"])
@pytest.mark.parametrize("cameras", [2, 3])
def test_xqda_equals_its_direct_form(length, values, cameras):
    training = made.images(12, length, cameras=cameras)
    similar, dissimilar = pair_covariances(*training)
    similar += 0.001 * np.eye(length)
    if values == "svd":
        directions, spectrum, _ = np.linalg.svd(np.linalg.inv(similar) @ dissimilar)
    else:
        spectrum, directions = linalg.eigh(dissimilar, similar)
        spectrum, directions = spectrum[::-1], directions[:, ::-1]
    kept = (spectrum > 1).sum()
    matrix = subspace_matrix(directions[:, :kept], similar, dissimilar)
    query, gallery = made.numbers(3, (4, length)), made.numbers(99, (5, length))
    metric = XQDA(values=values, pairs="all").fit(*training)
    np.testing.assert_allclose(metric.spectrum, spectrum[:kept], rtol=1e-9)
    np.testing.assert_allclose(metric.distances(query, gallery), quadratic(matrix, query, gallery), rtol=1e-8)


def test_xqda_of_two_cameras_is_that_of_two_views():
    features, persons, cameras = made.images(12, 20)
    by_camera = XQDA().fit(features, persons, cameras)
    views = [cameras == 2, cameras == 1]
    by_view = XQDA().fit_views(*(features[view] for view in views), *(persons[view] for view in views))
    np.testing.assert_allclose(
        by_view.distances(features, features), by_camera.distances(features, features), atol=1e-9
    )


@pytest.mark.parametrize("length", [20, 60])
def test_xqda_is_invariant_to_rotations_and_shifts(length):
    features, persons, cameras = made.images(12, length)
    rotation = ortho_group.rvs(length, random_state=0)
    distances = XQDA().fit(features, persons, cameras).distances(features, features)
    turned = features @ rotation + 3
    turned_distances = XQDA().fit(turned, persons, cameras).distances(turned, turned)
    np.testing.assert_allclose(turned_distances, distances, rtol=1e-7, atol=1e-7)


def test_xqda_keeps_one_direction_if_none_has_a_value_above_one():
    features, persons, cameras = LINE
    with pytest.warns(UserWarning, match="in no direction do two persons differ more .* ridge of 100"):
        assert len(XQDA(ridge=100).fit(features, persons, cameras).signs) == 1


def test_xqda_counts_as_many_dimensions_as_are_asked_for_but_no_more_than_have_large_values():
    training = made.images(12, 20)
    most = len(XQDA().fit(*training).signs)
    assert [len(XQDA(dimensions=each).fit(*training).signs) for each in (3, 1000)] == [3, most]


def test_learning_ignores_columns_that_are_constant_or_repeated():
    features, persons, cameras = made.images(20, 6)
    wider = np.column_stack([features, np.full(len(features), 5.0)])
    for metric in (XQDA(), KISSME(dissimilar="all"), NullSpace()):
        plain = metric.fit(features, persons, cameras).distances(features, features)
        np.testing.assert_allclose(
            metric.fit(wider, persons, cameras).distances(wider, wider), plain, atol=1e-9
        )


def direct_null_space(kernel, persons, test_kernel):
    """The authors' formulas, matrix by matrix; test kernel (N, M) to projections (M, R)."""
    count = len(kernel)
    centring = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(centring @ kernel @ centring)
    kept = values > 1e-10
    basis = centring @ vectors[:, kept] / np.sqrt(values[kept])
    block = (persons[:, None] == persons) / (persons[:, None] == persons).sum(1)
    within = basis.T @ kernel @ (np.eye(count) - block)
    return test_kernel.T @ basis @ linalg.null_space(within @ within.T, rcond=1e-10)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "chi-square"])
@pytest.mark.parametrize("length", [25, 60])
def test_null_space_equals_its_direct_form(kernel, length):
    features, persons, cameras = made.images(12, length, cameras=3)
    test = made.numbers(77, (5, length))

    def kernels(first, second):
        if kernel == "linear":
            return first @ second.T
        squared = (first[:, None] - second) ** 2
        if kernel == "chi-square":
            squared = squared / (first[:, None] + second)
        return squared.sum(2)

    values, test_values = kernels(features, features), kernels(features, test)
    if kernel != "linear":
        width = values.mean() * (1 if kernel == "rbf" else 2)
        values, test_values = np.exp(-values / width), np.exp(-test_values / width)
    projected = direct_null_space(values, persons, test_values)
    expected = np.linalg.norm(projected[:, None] - projected, axis=2)
    metric = NullSpace(kernel=kernel)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 25 numbers cannot hold 24 differences within and 11 between persons
        distances = metric.fit(features, persons, cameras).distances(test, test)
    assert metric.dimensions == projected.shape[1]
    np.testing.assert_allclose(distances, expected, rtol=1e-7, atol=1e-7)


def test_null_space_by_hand():
    # Persons differ across, and their images along; only what lies across is left.
    features = np.array([[0.0, 0], [0, 2], [3, 0], [3, 2]])
    metric = NullSpace(kernel="linear").fit(features, LINE[1], LINE[2])
    distances = metric.distances(np.array([[1.0, 7]]), np.array([[4.0, -5], [1, 0]]))
    np.testing.assert_allclose(distances, [[3, 0]], atol=1e-7)


@pytest.mark.parametrize("kernel, length", [("linear", 60), ("rbf", 10), ("chi-square", 10)])
def test_training_images_of_a_person_coincide_in_the_null_space(kernel, length):
    features, persons, cameras = made.images(12, length, cameras=3)
    metric = NullSpace(kernel=kernel).fit(features, persons, cameras)
    assert metric.dimensions == 11
    distances = metric.distances(features, features)
    same = persons[:, None] == persons
    assert distances[same].max() < 1e-6 * distances[~same].min()


@pytest.mark.parametrize("kernel", ["linear", "rbf", "chi-square"])
def test_persons_whose_training_images_coincide_have_a_null_space(kernel):
    features, persons, cameras = made.images(20, 30)
    metric = NullSpace(kernel=kernel).fit(features[::2].repeat(2, axis=0), persons, cameras)
    assert metric.dimensions == 19


def test_without_a_null_space_one_direction_is_kept_and_said():
    training = made.images(30, 5)
    with pytest.warns(UserWarning, match="60 images have 5 independent dimensions .* one direction"):
        metric = NullSpace(kernel="linear").fit(*training)
    assert metric.dimensions == 1


def direct_craft(features, persons, cameras, test, test_cameras, discrepancy, correlation):
    """The authors' formulas with stacks as long as cameras times features, and the linear kernel."""
    count, length = len(correlation), features.shape[1]

    def stack(images, ids):
        return np.array(
            [
                np.concatenate([row * w for w in correlation[:, i - 1]])
                for row, i in zip(images, ids, strict=True)
            ]
        )

    blocks = np.kron((1 + discrepancy) * np.eye(count) - discrepancy, np.eye(length))
    values, axes = np.linalg.eigh(blocks)
    whiten = axes / np.sqrt(values)
    training, others = stack(features, cameras) @ whiten, stack(test, test_cameras) @ whiten
    scatters = []
    for kind, number in ((True, 10), (False, 30)):
        joined = np.zeros((len(features), len(features)))
        for image, row in enumerate(features):
            allowed = [
                k for k in range(len(features)) if k != image and (persons[k] == persons[image]) == kind
            ]
            nearest = sorted(allowed, key=lambda k: ((features[k] - row) ** 2).sum())[:number]
            joined[image, nearest] = joined[nearest, image] = 1
        scatters.append(training.T @ (np.diag(joined.sum(1)) - joined) @ training)
    within, between = scatters
    share = 1e-8
    within = (1 - share) * within + share * np.trace(within) / len(within) * np.eye(len(within))
    directions = linalg.eigh(between, within)[1][:, ::-1][:, :100]
    return others @ directions


@pytest.mark.parametrize("persons, cameras, length", [(20, 3, 8), (10, 2, 5)])
def test_craft_equals_its_direct_form(persons, cameras, length):
    training = made.images(persons, length, cameras=cameras, shots=2)
    test, _, test_cameras = made.images(4, length, first=51, cameras=cameras)
    metric = CRAFT(kernel="linear", discrepancy=0.3).fit(*training)
    projected = direct_craft(*training, test, test_cameras, 0.3, metric.correlation)
    expected = ((projected[:, None] - projected) ** 2).sum(2)
    distances = metric.distances(test, test, test_cameras, test_cameras)
    np.testing.assert_allclose(distances, expected, rtol=1e-6, atol=1e-9 * expected.max())


def test_craft_by_kernel_and_by_stacks_are_the_same_but_for_the_share_of_the_ridge():
    # 40 images with stacks of 36 numbers, then with zeros, so that stacks are longer than their kernel.
    features, persons, cameras = made.images(20, 18)
    wider = np.column_stack([features, np.zeros((40, 6))])
    both = [
        CRAFT(kernel="linear", scatter_ridge=1e-12)
        .fit(each, persons, cameras)
        .distances(each, each, cameras, cameras)
        for each in (features, wider)
    ]
    np.testing.assert_allclose(both[1], both[0], rtol=1e-4, atol=1e-6 * both[0].max())


def test_camera_correlation_by_hand():
    # Two images a camera have one axis; the axes of these cameras are at 60 degrees.
    axis = np.array([np.cos(np.pi / 3), np.sin(np.pi / 3)])
    features = np.array([[0.0, 0], [1, 0], 5 * axis, 7 * axis])
    weights = camera_correlation(features, np.array([0, 0, 1, 1]), np.random.default_rng(0))
    np.testing.assert_allclose(weights, np.array([[1.5, 0.5], [0.5, 1.5]]) / np.sqrt(2.5))
    # A single image has no axis, and its camera counts as equal to all others.
    weights = camera_correlation(features[:3], np.array([0, 0, 1]), np.random.default_rng(0))
    np.testing.assert_allclose(weights, np.full((2, 2), np.sqrt(0.5)))


def test_pairs_by_hand():
    persons, cameras = np.array([7, 8, 7, 7, 8, 9]), np.array([1, 1, 2, 2, 2, 3])
    first, second = similar_pairs(persons, cameras)
    assert {frozenset(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)} == {
        frozenset(pair) for pair in [(0, 2), (0, 3), (1, 4)]
    }
    generator = np.random.default_rng(0)
    first, second = sample_dissimilar_pairs(persons, cameras, 500, generator)
    assert len(first) == 500
    assert (persons[first] != persons[second]).all() and (cameras[first] != cameras[second]).all()
    assert count_dissimilar(persons, cameras) == 8
    for _ in range(20):
        first, second = pair_halves(persons, cameras, generator)
        assert len({*first, *second}) == 2 * len(first)
        assert (persons[first] == persons[second]).all() and (cameras[first] != cameras[second]).all()


def test_dissimilar_pairs_are_drawn_evenly_where_few_draws_would_be_accepted():
    # A person with 1,000 images in one camera: of 1,000 draws of two images, 4 are of such a pair.
    persons = np.concatenate([np.full(1000, 1), [2, 3, 4, 4]])
    cameras = np.concatenate([np.full(1000, 1), [1, 2, 2, 1]])
    allowed = {
        (first, second)
        for first in range(len(persons))
        for second in range(first)
        if persons[first] != persons[second] and cameras[first] != cameras[second]
    }
    assert count_dissimilar(persons, cameras) == len(allowed) == 2003
    draws = [
        sample_dissimilar_pairs(persons, cameras, 200_000, np.random.default_rng(seed)) for seed in (5, 5)
    ]
    np.testing.assert_array_equal(*draws)
    first, second = draws[0]
    found = Counter(zip(np.maximum(first, second).tolist(), np.minimum(first, second).tolist(), strict=True))
    assert found.keys() == allowed  # about 100 draws of each
    assert max(found.values()) < 160 and min(found.values()) > 55
    assert abs((first < second).mean() - 0.5) < 0.01
