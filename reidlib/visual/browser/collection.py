"""The features of a benchmark's query and gallery images, and everything else that the browser needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from reidlib.data.benchmark import Benchmark
from reidlib.errors import InputError, check_choice
from reidlib.experiments.features import TrainedNetwork
from reidlib.models.parts import FeaturePart
from reidlib.ranking.metrics import Embeddings, evaluate
from reidlib.training.device import Execution
from reidlib.training.runs import Run
from reidlib.visual.attention.maps import PartModel


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
    )
    return collection, model


def _stored_precision(run: Run, benchmark: Benchmark) -> np.ndarray | None:
    scores = run.scores or {}
    if scores.get("data") != benchmark.fingerprint:
        return None
    values = scores["branches"]["full"]["step"]["average_precision"]
    return np.array(values, dtype=float)  # None becomes NaN
