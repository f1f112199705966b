"""The features of a benchmark's query and gallery images, and everything else that the browser needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from reidlib.data.benchmark import Benchmark
from reidlib.errors import InputError, check_choice, count_noun
from reidlib.experiments.evaluate import is_own, load_benchmark
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.metric_study import learn
from reidlib.experiments.rows import LEARNT_METRICS
from reidlib.models.parts import FeaturePart
from reidlib.ranking.metrics import Embeddings, evaluate, unit_rows
from reidlib.training.device import Execution
from reidlib.training.runs import Run
from reidlib.visual.attention.maps import PartModel


class LearntDistance(NamedTuple):
    """Features whose Euclidean distances rank as a learnt metric does.

    Attributes:
        queries, gallery: Features (Q, R) and (G, R), float64.
        offsets: What the squared distances of a query exceed the metric's by, shape (Q,); zeros unless the
            metric subtracts in some directions.
        note: What the metric was learnt from, how long that took, and what was told meanwhile.
    """

    queries: Tensor
    gallery: Tensor
    offsets: np.ndarray
    note: str


@dataclass(frozen=True, eq=False)
class BenchmarkFeatures:
    """A benchmark embedded by a run: features of query and gallery images, with files, parts and branches.

    Attributes:
        title: Name of the run and of the benchmark.
        query: Features of the Q query images on the CPU, float32 of shape (Q, D), with persons and cameras.
        gallery: Features of the G gallery images, float32 of shape (G, D), with persons and cameras.
        query_paths: Files of the query images.
        gallery_paths: Files of the gallery images.
        parts: The parts of the feature.
        branches: Name of a branch, such as "full", to its columns.
        input_size: Height and width of the network's input in pixels.
        resize: Interpolation with which images are brought to that size.
        known_precision: Average precision of shape (Q,), if the run has been scored on this benchmark.
        training: Returns the title of the benchmark that the run was trained on, and the features of its
            training images; None if no metric can be learnt.
    """

    title: str
    query: Embeddings
    gallery: Embeddings
    query_paths: tuple[Path, ...]
    gallery_paths: tuple[Path, ...]
    parts: tuple[FeaturePart, ...]
    branches: dict[str, slice]
    input_size: tuple[int, int]
    resize: str = "bilinear"
    known_precision: np.ndarray | None = None
    training: Callable[[], tuple[str, Embeddings]] | None = None
    _learnt: dict[tuple[str, str], LearntDistance] = field(init=False, default_factory=dict, repr=False)
    _normalised_features: dict[tuple[str, str], tuple[Tensor, Tensor]] = field(
        init=False, default_factory=dict, repr=False
    )

    @cached_property
    def average_precision(self) -> np.ndarray:
        """Average precision (Q,) of the full feature's Euclidean distance, step rule; NaN without a match."""
        # Without known values, this takes some seconds at the size of Market-1501.
        if self.known_precision is not None:
            return self.known_precision
        try:
            return evaluate(self.query, self.gallery).average_precision
        except InputError:  # no query has a match; the lists can be browsed nevertheless
            return np.full(len(self.query), np.nan)

    def columns(self, feature: str) -> slice:
        """Return the columns of a branch."""
        check_choice(f"the feature is one of {', '.join(self.branches)}", feature, self.branches)
        return self.branches[feature]

    def compared_features(self, feature: str, metric: str) -> tuple[Tensor, Tensor]:
        """Return the features (Q, d) and (G, d) whose Euclidean distances a feature and a metric compare."""
        if metric in LEARNT_METRICS:
            return self.learnt_distance(feature, metric)[:2]
        columns = self.columns(feature)
        queries = cast(Tensor, self.query.features)[:, columns]
        gallery = cast(Tensor, self.gallery.features)[:, columns]
        if metric != "cosine":
            return queries, gallery
        # The last normalised features are cached, because the next query needs the same gallery.
        if (feature, metric) not in self._normalised_features:
            self._normalised_features.clear()
            self._normalised_features[feature, metric] = normalize(queries), normalize(gallery)
        return self._normalised_features[feature, metric]

    def learnt_distance(self, feature: str, metric: str) -> LearntDistance:
        """Learn a metric on a feature of unit length, once.

        Args:
            feature: Name of a branch.
            metric: A name of ``LEARNT_METRICS``.

        Returns:
            What the metric compares.

        Raises:
            InputError: If the training images are not at hand, or the metric cannot be learnt from them or
                cannot compare the benchmark's images.
        """
        columns, key = self.columns(feature), (feature, metric)
        if key not in self._learnt:
            if self.training is None:
                rule = "a metric is learnt from the images that a run was trained on"
                raise InputError(rule, "features without a run", "open a run that has weights")
            title, training = self.training()
            training, query, gallery = (
                replace(side, features=unit_rows(side.features[:, columns]))
                for side in (training, self.query, self.gallery)
            )
            learnt, seconds, notes = learn(metric, training)
            sides = [torch.from_numpy(side.features) for side in learnt.embeddings(query, gallery)]
            offsets_q = np.zeros(len(query))
            if (learnt.signs < 0).any():  # such a metric needs no cameras
                distances_q = learnt.distances(query.features, gallery.features[:1])[:, 0]
                offsets_q = (sides[0] - sides[1][0]).square().sum(1).numpy() - distances_q
            persons = count_noun(len(np.unique(training.person_ids)), "persons")
            note = (
                f"{metric} was learnt from {count_noun(len(training), 'training images')} of {persons} of "
                f"{title}, in {seconds:.1f} s"
            )
            note = "; ".join([note, *notes])
            self._learnt[key] = LearntDistance(sides[0], sides[1], offsets_q, note)
        return self._learnt[key]


def embed_benchmark(
    run: Run, benchmark: Benchmark, *, execution: Execution | None = None
) -> tuple[BenchmarkFeatures, PartModel]:
    """Compute a run's features of a benchmark's query and gallery images, or load them from the cache.

    The features take (Q + G)·D·4 bytes of memory: a quarter of a GiB for 23,100 images and Pyramid's 2,688
    dimensions. The cache is ``files.feature_cache()``.

    Args:
        run: A trained run with weights.
        benchmark: The benchmark to search; it may differ from the one of the training.
        execution: Device and settings of the computation.

    Returns:
        The embedded benchmark and the run's network.

    Raises:
        InputError: If the run has no weights or an image cannot be decoded.
    """
    network = TrainedNetwork(run, execution or Execution())
    model = cast(PartModel, network.model)
    query, gallery = (
        replace(side, features=torch.from_numpy(np.array(side.features)))
        for side in (network.embed(split, keep="features") for split in (benchmark.query, benchmark.gallery))
    )
    collection = BenchmarkFeatures(
        f"{run.folder.resolve().name} on {benchmark.specification}",
        query,
        gallery,
        benchmark.query.paths,
        benchmark.gallery.paths,
        model.feature_parts(network.input_size[0]),
        dict(model.branches),
        network.input_size,
        network.configuration.resize,
        _stored_precision(run, benchmark),
        lambda: _embed_training(network, benchmark),
    )
    return collection, model


def _embed_training(network: TrainedNetwork, benchmark: Benchmark) -> tuple[str, Embeddings]:
    """Return the title of a run's own benchmark and the features of its training images."""
    own = benchmark if is_own(network.run, benchmark) else load_benchmark(network.run)
    return own.specification, network.embed(own.train, keep="features")


def _stored_precision(run: Run, benchmark: Benchmark) -> np.ndarray | None:
    scores = run.scores or {}
    if scores.get("data") != benchmark.fingerprint:
        return None
    values = scores["branches"]["full"]["step"]["average_precision"]
    return np.array(values, dtype=float)  # None becomes NaN
