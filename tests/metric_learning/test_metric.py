"""Learnt metrics in ranking, and what they refuse."""

import warnings

import made_persons as made
import numpy as np
import pytest
import torch

from reidlib.errors import InputError
from reidlib.metric_learning import CRAFT, KISSME, XQDA, NullSpace, coordinates, pairs
from reidlib.ranking import Embeddings, evaluate
from reidlib.ranking.metrics import evaluate_distances

METRICS = (
    KISSME(components=12), KISSME(components=12, semidefinite=False), XQDA(), NullSpace(),
    NullSpace(kernel="linear"), NullSpace(kernel="chi-square"), CRAFT(),
    CRAFT(kernel="linear", components=12),
)  # fmt: skip
EACH = pytest.mark.parametrize("metric", METRICS, ids=str)
TRAINING = made.images(24, 60)


def sides(length=60):
    features, persons, cameras = made.images(40, length, first=51, shots=2)
    images = Embeddings(features, persons, cameras)
    return (
        Embeddings(images.features[cameras == camera], persons[cameras == camera], cameras[cameras == camera])
        for camera in (1, 2)
    )


@EACH
def test_ranking_streams_what_all_distances_rank(metric):
    metric.fit(*TRAINING)
    query, gallery = sides()
    distances = metric.distances(query.features, gallery.features, query.camera_ids, gallery.camera_ids)
    by_distances = evaluate_distances(distances, query, gallery)
    streamed = evaluate(*metric.embeddings(query, gallery))
    np.testing.assert_array_equal(streamed.average_precision, by_distances.average_precision)
    assert 0.1 < streamed.cmc[1] < 1


def test_the_case_with_negative_signs_is_among_them():
    metric = KISSME(components=12, semidefinite=False).fit(*TRAINING)
    query, gallery = sides()
    assert (metric.signs < 0).any()
    query_r, gallery_r = (side.features for side in metric.embeddings(query, gallery))
    squared = ((query_r[:, None] - gallery_r) ** 2).sum(2)
    lifted = squared - metric.distances(query.features, gallery.features)
    np.testing.assert_allclose(lifted, np.repeat(lifted[:, :1], len(gallery), axis=1), rtol=1e-9)


@EACH
def test_features_are_read_in_blocks_from_memory_maps_and_tensors(metric, tmp_path, monkeypatch):
    features, persons, cameras = TRAINING
    expected = metric.fit(*TRAINING).project(features, cameras)
    monkeypatch.setattr("reidlib.metric_learning.metric._NUMBERS", 250)  # four images
    monkeypatch.setattr(coordinates, "_COLUMNS", 7)
    np.save(tmp_path / "features.npy", features)
    stored = np.load(tmp_path / "features.npy", mmap_mode="r")
    for form in (stored, torch.from_numpy(features)):
        projected = metric.fit(form, persons, torch.from_numpy(cameras)).project(form, cameras)
        gram, same = (each * metric.signs @ each.T for each in (projected, expected))
        np.testing.assert_allclose(gram, same, rtol=1e-6, atol=1e-6 * np.abs(same).max())


@EACH
def test_fitting_changes_no_input_and_repeats(metric):
    features, persons, cameras = (each.copy() for each in TRAINING)
    first = metric.fit(features, persons, cameras).project(features, cameras)
    np.testing.assert_array_equal(metric.fit(features, persons, cameras).project(features, cameras), first)
    for before, after in zip(TRAINING, (features, persons, cameras), strict=True):
        np.testing.assert_array_equal(before, after)


@EACH
@pytest.mark.parametrize(
    "change, rule",
    [
        (
            lambda f, p, c: (np.where(f == f[3, 4], np.nan, f), p, c),
            "features are finite .*; got nan in row 3;",
        ),
        (lambda f, p, c: (f.astype(int), p, c), r"array of floats; got \(48, 60\) int64;"),
        (lambda f, p, c: (f, p[1:], c), "person_ids hold one whole number for each of the 48 rows"),
        (lambda f, p, c: (f, p, c / 2), "camera_ids hold one whole number"),
        (lambda f, p, c: (f, p * 0 + 5, c), "at least two persons; got person 5 only;"),
        (lambda f, p, c: (f, p - 2, c), "known persons, whose ids are above 0; got -1, 0;"),
        (lambda f, p, c: (f * 0 + 1, p, c), "images of training differ; got equal features"),
    ],
)
def test_training_that_no_metric_takes(metric, change, rule):
    with pytest.raises(InputError, match=rule):
        metric.fit(*change(*TRAINING))


@pytest.mark.parametrize(
    "metric, change, rule",
    [
        (
            KISSME(),
            lambda f, p, c: (f, np.arange(1, 49), c),
            "pairs of one person .*; got 0 of one person and 576",
        ),
        (
            XQDA(),
            lambda f, p, c: (f, np.arange(1, 49), c),
            "pairs of one person .*; got 0 of one person and 576",
        ),
        (
            XQDA(),
            lambda f, p, c: (f, np.arange(1, 49), np.arange(48)),
            "pairs of one person .*; got 0 of one person and 1,128",
        ),
        *(
            (metric, lambda f, p, c: (f, p, c * 0 + 5), "at least two cameras; got camera 5 only;")
            for metric in (KISSME(components=12), XQDA(), CRAFT())
        ),
        (
            NullSpace(),
            lambda f, p, c: (f, np.arange(1, 49), c),
            "at least two images; got one image of each of 48",
        ),
        (CRAFT(), lambda f, p, c: (f, np.arange(1, 49), c), "at least two images"),
        (
            CRAFT(),
            lambda f, p, c: (f - 1, p, c),
            "Bhattacharyya kernel takes features of zero or more; got -",
        ),
        (NullSpace(kernel="chi-square"), lambda f, p, c: (f - 1, p, c), "exp-χ² kernel takes .*; got -"),
        (
            KISSME(components=48),
            lambda *t: t,
            "48 images of training have 1 to 47 principal components; got 48;",
        ),
        (CRAFT(kernel="linear", components=0), lambda *t: t, "1 to 47 principal components; got 0;"),
        (
            CRAFT(discrepancy=1.0),
            lambda *t: t,
            "with 2 cameras, the discrepancy is from 0 to below 1; got 1.0; choose None, which means 0.6",
        ),
        (CRAFT(discrepancy=-1), lambda *t: t, "from 0 to below 1; got -1; choose None, which means 0.6"),
        (
            CRAFT(kernel="linear"),
            lambda f, p, c: (f[::2].repeat(2, axis=0), p, c),
            "neighbours of one person differ; got equal features of all pairs; add other images",
        ),
        (
            KISSME(components=12),
            lambda f, p, c: (f[::2].repeat(2, axis=0), p, c),
            "similar pairs differ; got equal features of all pairs; add other images",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),  # the same in every process
)
def test_training_that_one_metric_does_not_take(metric, change, rule):
    with pytest.raises(InputError, match=rule):
        metric.fit(*change(*TRAINING))


@pytest.mark.parametrize(
    "metric, settings, rule",
    [
        (XQDA, {"dimensions": 0}, "dimensions is at least 1; got 0; choose for example None"),
        (XQDA, {"dimensions": 2.5}, "dimensions is a whole number; got 2.5;"),
        (XQDA, {"ridge": -1}, "ridge is at least 0; got -1; choose for example 0.001"),
        (XQDA, {"ridge": np.inf}, "ridge is a finite number; got inf;"),
        (XQDA, {"values": "eig"}, "values is one of svd, generalised; got 'eig'"),
        (XQDA, {"pairs": "some"}, "pairs is one of halves, all"),
        (XQDA, {"seed": -1}, "seed is at least 0; got -1; choose for example 0"),
        (KISSME, {"dissimilar": "some"}, "dissimilar is one of sampled, all"),
        (KISSME, {"dissimilar_weight": np.nan}, "dissimilar_weight is a finite number; got nan;"),
        (KISSME, {"components": "a"}, "components is a whole number; got 'a';"),
        (KISSME, {"components": 2.5}, "components is a whole number; got 2.5;"),
        (KISSME, {"semidefinite": "perhaps"}, "semidefinite is True or False; got 'perhaps';"),
        (NullSpace, {"kernel": "cosine"}, "kernel is one of linear, rbf, chi-square"),
        (CRAFT, {"kernel": "rbf"}, "kernel is one of bhattacharyya, linear"),
        (CRAFT, {"dimensions": 0}, "dimensions is at least 1; got 0; choose for example 100"),
        (CRAFT, {"scatter_ridge": -1}, "scatter_ridge is at least 0 and at most 1; got -1;"),
        (CRAFT, {"neighbours": 10}, "neighbours is a sequence of whole numbers, 2 of them; got 10;"),
        (CRAFT, {"neighbours": (10, 0)}, r"neighbours is at least 1; got 0; choose for example \(10, 30\)"),
        (CRAFT, {"seed": 1.5}, "seed is a whole number; got 1.5;"),
    ],
    ids=str,
)
def test_settings_that_a_metric_does_not_take(metric, settings, rule):
    with pytest.raises(InputError, match=rule):
        metric(**settings).fit(*TRAINING)
    features, persons, _ = TRAINING
    others = {
        KISSME: lambda: KISSME(**settings).fit_pairs(features, ([0], [1]), ([0], [2])),
        XQDA: lambda: XQDA(**settings).fit_views(features, features, persons, persons),
    }
    if metric in others:
        with pytest.raises(InputError, match=rule):
            others[metric]()


@EACH
@pytest.mark.parametrize("dtype", [np.float16, np.float32, torch.float16, torch.bfloat16])
def test_short_floats_are_projected_in_float32_without_a_warning(metric, dtype):
    features, persons, cameras = TRAINING
    torch_dtype = dtype if isinstance(dtype, torch.dtype) else torch.float64
    short = torch.from_numpy(features).to(torch_dtype)
    if torch_dtype == torch.float64:
        short = features.astype(dtype)
    exact = short.double().numpy() if isinstance(short, torch.Tensor) else short.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.fit(short, persons, cameras)
        distances, expected = (
            metric.distances(each[:9], each, cameras[:9], cameras) for each in (short, exact)
        )
    np.testing.assert_allclose(distances, expected, atol=3e-5 * np.abs(expected).max())


def test_a_kernel_whose_weights_magnify_rounding_is_projected_in_float64():
    features, persons, cameras = made.images(12, 25)
    nearly = (features[::2].repeat(2, axis=0) + 1e-5 * features).astype(np.float32)
    metric = NullSpace().fit(nearly, persons, cameras)
    same = persons[:, None] == persons
    distances = metric.distances(nearly, nearly)
    np.testing.assert_array_equal(distances, metric.distances(*[nearly.astype(np.float64)] * 2))
    assert distances[same].max() < 1e-6 * distances[~same].min()


def test_one_camera_is_enough_for_the_null_space():
    features, persons, cameras = TRAINING
    one, two = (NullSpace().fit(features, persons, each).project(features) for each in (cameras * 0, cameras))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "similar, rule",
    [
        (([0, 2], [1, 48]), "rows from 0 to 47, as there are features; got 48;"),
        (([0, -1], [1, 3]), "rows from 0 to 47, .*; got -1;"),
        (([0, 2], [1]), r"two equally long lists of rows, whole numbers; got \(2,\) int64 and \(1,\) int64;"),
        (([0.0], [1.0]), r"two equally long lists .*; got \(1,\) float64 and"),
        (([[0]], [[1]]), r"two equally long lists .*; got \(1, 1\) int64 and"),
        (([0], [1], [2]), "two equally long lists of rows"),
        (([], []), "pairs of one person .*; got 0 of one person and 1 of two"),
    ],
)
def test_listed_pairs_that_kissme_does_not_take(similar, rule):
    with pytest.raises(InputError, match=rule):
        KISSME(components=12).fit_pairs(TRAINING[0], similar, ([0], [2]))


@EACH
def test_images_that_a_fitted_metric_does_not_take(metric):
    with pytest.raises(InputError, match="a metric is fitted before it is used; got no fit; call fit"):
        type(metric)().project(TRAINING[0])
    metric.fit(*TRAINING)
    with pytest.raises(InputError, match=r"features have 60 numbers, as those .* fitted on; got 59;"):
        metric.project(TRAINING[0][:, 1:])
    broken = TRAINING[0].copy()
    broken[7, 3] = np.inf
    with pytest.raises(InputError, match="got inf in row 7; embed that image again"):
        metric.project(broken, TRAINING[2])


def test_craft_asks_for_cameras_that_it_knows():
    metric = CRAFT().fit(*TRAINING)
    with pytest.raises(InputError, match="projects an image as its camera asks; got no cameras;"):
        metric.distances(TRAINING[0], TRAINING[0])
    with pytest.raises(InputError, match="cameras of training: 1, 2; got 4;"):
        metric.project(TRAINING[0], TRAINING[2] * 2)
    with pytest.raises(InputError, match="Bhattacharyya kernel"):
        metric.project(-TRAINING[0], TRAINING[2])
    with pytest.raises(InputError, match="exp-χ² kernel"):
        NullSpace(kernel="chi-square").fit(*TRAINING).project(-TRAINING[0])


@EACH
def test_a_kernel_that_memory_does_not_hold_is_refused(metric, monkeypatch):
    monkeypatch.setattr(coordinates, "available_memory", lambda: 2000)
    with pytest.raises(
        InputError, match=r"memory holds what a metric learns from; got .* in 0\.0 GiB of free"
    ):
        metric.fit(*TRAINING)


def test_listed_pairs_that_memory_does_not_hold_are_refused(monkeypatch):
    monkeypatch.setattr(coordinates, "available_memory", lambda: 4 * 10**6)
    persons = np.repeat([1, 2], 400)
    with pytest.raises(InputError, match=r'159,600 pairs of images of one person, .* dissimilar="all"'):
        pairs.similar_pairs(persons, np.tile([1, 2], 400))


@pytest.mark.parametrize("metric", [KISSME(), XQDA(ridge=0)], ids=str)
def test_a_ridge_that_is_added_to_a_singular_covariance_is_told(metric):
    # 24 pairs of one person span 24 of 47 dimensions.
    with pytest.warns(UserWarning, match="covariance of similar pairs is singular: a ridge of .* was added"):
        metric.fit(*TRAINING)
    ridge = metric.ridge[0] if isinstance(metric, KISSME) else metric.ridge_used
    assert ridge > 0 and np.isfinite(metric.project(TRAINING[0])).all()


def test_views_that_differ_in_length_or_ids_are_refused():
    features, persons, _ = TRAINING
    with pytest.raises(InputError, match="both views are equally long; got 60 and 59 numbers;"):
        XQDA().fit_views(features, features[:, 1:], persons, persons)
    with pytest.raises(InputError, match="person_ids hold one whole number for each of the 96 rows"):
        XQDA().fit_views(features, features, persons, persons[1:])
