"""A run's features of a benchmark's query and gallery images, with all that the browser needs of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

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


@dataclass(frozen=True, eq=False)
class Collection:
    """A run's features of a benchmark's query and gallery images, with all that a view needs besides.

    query, gallery: features as tensors on the CPU, float32 (N, D), with persons and cameras.
    query_paths, gallery_paths: the images behind them. parts: of the feature. branches: columns by name,
    "full" among them. input_size: height and width in pixels that the network takes.
    average_precision: (Q,) by the full feature's Euclidean distance, step rule, NaN where a query has no
    match; ``known_precision`` where it was scored before, else it takes some seconds at Market-1501's size.
    """

    title: str
    query: Embeddings
    gallery: Embeddings
    query_paths: tuple[Path, ...]
    gallery_paths: tuple[Path, ...]
    parts: tuple[FeaturePart, ...]
    branches: dict[str, slice]
    input_size: tuple[int, int]
    known_precision: np.ndarray | None = None
    _compared: dict[tuple[str, str], tuple[Tensor, Tensor]] = field(
        init=False, default_factory=dict, repr=False
    )

    @cached_property
    def average_precision(self) -> np.ndarray:
        """(Q,) by the full feature's Euclidean distance, step rule; NaN where a query has no match."""
        if self.known_precision is not None:
            return self.known_precision
        try:
            return evaluate(self.query, self.gallery).average_precision
        except InputError:  # no query has a match, which is no reason not to look at the lists
            return np.full(len(self.query), np.nan)

    def columns(self, feature: str) -> slice:
        """A branch's columns. Raises InputError for one that is not there."""
        check_choice(f"the feature is one of {', '.join(self.branches)}", feature, self.branches)
        return self.branches[feature]

    def compared(self, feature: str, metric: str) -> tuple[Tensor, Tensor]:
        """The features (Q, d) and (G, d) that a feature and a metric compare by Euclidean distance.

        The last pair that was scaled is kept, so that the next query need not scale a whole gallery.
        """
        columns = self.columns(feature)
        sides = self.query.features[:, columns], self.gallery.features[:, columns]
        if metric != "cosine":
            return sides
        if (feature, metric) not in self._compared:
            self._compared.clear()
            self._compared[feature, metric] = tuple(map(normalize, sides))
        return self._compared[feature, metric]


def open_collection(
    run: Run, benchmark: Benchmark, *, execution: Execution | None = None
) -> tuple[Collection, torch.nn.Module]:
    """A run's features of a benchmark's test images, and its network; the benchmark may be another one.

    Features are computed once and kept in ``files.feature_cache()``; in memory lie (Q + G)·D·4 bytes,
    a quarter of a GiB for 23,100 images and Pyramid's 2,688 numbers. Raises InputError for a run without
    weights and for images that cannot be decoded.
    """
    network = TrainedNetwork(run, execution or Execution())
    kept = (network.embed(split, keep="features") for split in (benchmark.query, benchmark.gallery))
    collection = Collection(
        f"{run.folder.resolve().name} on {benchmark.specification}",
        *(replace(side, features=torch.from_numpy(np.array(side.features))) for side in kept),
        benchmark.query.paths,
        benchmark.gallery.paths,
        network.model.feature_parts(network.input_size[0]),
        dict(network.model.branches),
        network.input_size,
        _kept_precision(run, benchmark),
    )
    return collection, network.model


def _kept_precision(run: Run, benchmark: Benchmark) -> np.ndarray | None:
    scores = run.scores or {}
    if scores.get("data") != benchmark.fingerprint:
        return None
    values = scores["branches"]["full"]["step"]["average_precision"]
    return np.array(values, dtype=float)  # None is not a number
