"""Which metric on which feature: learnt on a benchmark's training images, scored on its test images."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.splits import Split
from reidlib.descriptors import gog, lomo, normalise_gog
from reidlib.errors import InputError, check_choice
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.rows import EXPERIMENTS, L2
from reidlib.experiments.validation import hold_out
from reidlib.metric_learning import CRAFT, KISSME, XQDA, Metric, NullSpace
from reidlib.ranking.metrics import Embeddings, Scores, evaluate_each, unit_rows
from reidlib.training.device import Execution

# Height and width in pixels at which images are described.
_DESCRIBED = (128, 48)
_LOMO_ROWS = 24  # rows of windows on the first scale at this height
_LOMO_COLOURS = 512  # numbers of a row of windows in the first part
# Components of the PCA before KISSME and CRAFT: the LOMO paper compares with 100 (recalled). Cameras times
# components is the size of CRAFT's problem.
COMPONENTS = 100
# Name -> a new metric for features of training, and the most components that these have. KISSME from all
# dissimilar pairs, not from a sample, and CRAFT's Bhattacharyya kernel wherever it is defined.
METRICS: Mapping[str, Callable[[np.ndarray, int], Metric]] = {
    "KISSME": lambda features, most: KISSME(components=min(COMPONENTS, most), dissimilar="all"),
    "XQDA": lambda features, most: XQDA(),
    "NFST": lambda features, most: NullSpace(),
    "CRAFT": lambda features, most: CRAFT(
        kernel="linear" if features.min() < 0 else "bhattacharyya", components=min(COMPONENTS, most)
    ),
}
DESCRIPTORS = ("lomo", "gog")
FEATURES = (*DESCRIPTORS, *EXPERIMENTS)  # a network's by its row's name


class Features(NamedTuple):
    """Features of one kind, of training, query and gallery images.

    Attributes:
        training, query, gallery: Features (N, D), (Q, D) and (G, D), with persons and cameras.
        parts: Part of the feature -> its columns: rows of windows, or parts of a network's feature.
        seconds: How long they took to compute, with decoding.
    """

    training: Embeddings
    query: Embeddings
    gallery: Embeddings
    parts: Mapping[str, np.ndarray]
    seconds: float


class MetricScores(NamedTuple):
    """A metric's scores on one kind of feature.

    Attributes:
        scores: Scores on the test images (average precision: step).
        seconds: How long the metric took to learn; 0 for L2.
        directions: Number of dimensions in which images are compared.
        metric: The learnt metric; None for L2, and of scores that are kept with a run.
        trapezoid: The same scores with the other average precision; None if it was not computed.
        notes: What was told while the metric learnt, such as a ridge that was added.
    """

    scores: Scores
    seconds: float
    directions: int
    metric: Metric | None
    trapezoid: Scores | None = None
    notes: tuple[str, ...] = ()


class Learnt(NamedTuple):
    """A learnt metric.

    Attributes:
        metric: The metric.
        seconds: How long it took to learn.
        notes: What was told meanwhile, such as a ridge that was added.
    """

    metric: Metric
    seconds: float
    notes: tuple[str, ...]


def describe(benchmark: Benchmark, name: str, execution: Execution) -> Features:
    """Compute LOMO or GOG of a benchmark's images, at 128×48 pixels.

    Memory: all descriptors in float32, 26,960 (LOMO) or 27,622 (GOG) numbers an image.

    Args:
        benchmark: The benchmark, with training and test images.
        name: "lomo" or "gog".
        execution: Device, and whether progress is shown.

    Returns:
        The features; GOG centred on the training images and scaled.

    Raises:
        InputError: If the name is another, or images cannot be decoded.
    """
    check_choice("hand-crafted descriptors are lomo and gog", name, DESCRIPTORS)
    begin = time.perf_counter()
    compute = lomo if name == "lomo" else gog
    device, progress = execution.torch_device, execution.progress

    def features(split: Split) -> np.ndarray:
        images = ImageStore.open(split.paths, _DESCRIBED, device="cpu", progress=progress)
        return compute(images.array_nhwc, device=device, progress=progress)

    splits = benchmark.train, benchmark.query, benchmark.gallery
    arrays = [features(split) for split in splits]
    if name == "gog":
        mean = arrays[0].mean(0, dtype=np.float64)
        arrays = [normalise_gog(array, mean) for array in arrays]
    training, query, gallery = (
        Embeddings(array, split.person_ids, split.camera_ids)
        for array, split in zip(arrays, splits, strict=True)
    )
    parts = lomo_rows() if name == "lomo" else {}
    return Features(training, query, gallery, parts, time.perf_counter() - begin)


def lomo_rows() -> dict[str, np.ndarray]:
    """Return the colours of each row of LOMO's windows on the first scale, from the top, as columns."""
    return {
        f"{row + 1}": np.arange(row * _LOMO_COLOURS, (row + 1) * _LOMO_COLOURS) for row in range(_LOMO_ROWS)
    }


def embed(benchmark: Benchmark, network: TrainedNetwork) -> Features:
    """Compute a network's full feature of a benchmark's images, scaled to unit length.

    The training images are those that the network was trained on: there its features are tighter than on
    test images, and a metric learns from them as the papers' metrics do.

    Args:
        benchmark: The benchmark of the network's training.
        network: The run's network.

    Returns:
        The features.
    """
    begin = time.perf_counter()
    configuration = network.configuration
    seen, _ = hold_out(benchmark, configuration.validation_persons, configuration.seed)
    training, query, gallery = (
        replace(side, features=unit_rows(side.features))
        for side in map(network.embed, (seen, benchmark.query, benchmark.gallery))
    )
    columns = np.arange(training.features.shape[1])
    described = network.model.feature_parts(network.input_size[0])
    parts = {part.name: columns[part.columns] for part in described}
    return Features(training, query, gallery, parts, time.perf_counter() - begin)


def score_metrics(
    features: Features, metrics: Iterable[str] = METRICS
) -> Iterator[tuple[str, MetricScores | InputError]]:
    """Learn metrics on training features and score them on test features, one after another.

    Args:
        features: The features.
        metrics: Names of ``METRICS``.

    Yields:
        "L2", then each metric, with its scores, or with the error that says why it has none: it cannot be
        learnt from these features, or cannot compare these images. The others go on.

    Raises:
        InputError: If a metric has another name.
    """
    scores = evaluate_each(features.query, features.gallery)
    length = features.training.features.shape[1]
    yield L2, MetricScores(scores["step"], 0.0, length, None, scores["trapezoid"])
    for name in metrics:
        check_choice("metrics are named as in METRICS", name, METRICS)
        try:
            yield name, _score(name, features)
        except InputError as error:
            yield name, error


def _score(name: str, features: Features) -> MetricScores:
    """Learn a metric and score it."""
    metric, seconds, notes = learn(name, features.training)
    scores = evaluate_each(*metric.embeddings(features.query, features.gallery))
    return MetricScores(scores["step"], seconds, len(metric.signs), metric, scores["trapezoid"], notes)


def learn(name: str, training: Embeddings) -> Learnt:
    """Learn a metric with the settings of ``METRICS``.

    Args:
        name: Name of ``METRICS``.
        training: Features of training, with persons and cameras.

    Returns:
        The metric, with what it told as notes in place of warnings.

    Raises:
        InputError: If the metric has another name, or cannot be learnt from these images.
    """
    check_choice("metrics are named as in METRICS", name, METRICS)
    features_nd = np.asarray(training.features)
    metric = METRICS[name](features_nd, min(len(training) - 1, features_nd.shape[1]))
    return fit(metric, training)


def fit(metric: Metric, training: Embeddings) -> Learnt:
    """Fit a metric; what it tells meanwhile becomes notes, as a warning would name a line of this package."""
    begin = time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        metric.fit(training.features, training.person_ids, training.camera_ids)
    notes = tuple(dict.fromkeys(str(each.message) for each in told))
    return Learnt(metric, time.perf_counter() - begin, notes)


def shares_of_distance(features: Features, metric: Metric | None) -> dict[str, float]:
    """Return which share of the mean squared distance of two gallery images each part of a feature makes.

    A quadratic form of differences with covariance C has the mean 2·tr(MC), of which column d contributes
    the d-th diagonal element of MC.

    Args:
        features: Features with parts.
        metric: A metric with linear weights, or None for L2.

    Returns:
        Part -> share of the whole; parts that are not all of the feature make less than 1 together.

    Raises:
        InputError: If the metric has no weights, as with a kernel.
    """
    gallery_gd = np.asarray(features.gallery.features)
    middle_d = gallery_gd.mean(0, dtype=np.float64)
    if metric is None:
        # Some columns at a time: float64 copies are large.
        blocks = np.array_split(gallery_gd, -(-gallery_gd.shape[1] // 2048), axis=1)
        columns_d = np.concatenate([block.var(0, dtype=np.float64) for block in blocks])
    else:
        if (weights_dr := metric.weights) is None:
            rule = "shares of a distance are those of a linear metric"
            raise InputError(rule, f"{type(metric).__name__} without weights", "choose XQDA or KISSME")
        projected_gr = (metric.project(gallery_gd) - middle_d @ weights_dr) * metric.signs
        projected_gr -= projected_gr.mean(0)
        covariances_dr = np.asarray(gallery_gd.T @ projected_gr.astype(gallery_gd.dtype), np.float64)
        columns_d = (covariances_dr * weights_dr).sum(1) / len(gallery_gd)
    total = columns_d.sum()
    return {part: float(columns_d[columns].sum() / total) for part, columns in features.parts.items()}
