"""From a run to features: the one way, whatever they are wanted for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments.embedding import embed, embed_blocks, embed_to_disk
from reidlib.models.parts import FeaturePart
from reidlib.ranking.metrics import Embeddings, evaluate
from reidlib.training.config import RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.runs import Run, configuration_hash


@dataclass(frozen=True, eq=False)
class Network:
    """A trained run's network on a device, loaded when first needed. Raises InputError without weights."""

    run: Run
    execution: Execution = field(default_factory=Execution)

    @cached_property
    def configuration(self) -> RunConfiguration:
        return RunConfiguration.from_json(self.run.configuration)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels that the network takes."""
        return self.configuration.input_size

    @cached_property
    def model(self) -> nn.Module:
        return trained_model(self.run, self.execution.torch_device)

    @cached_property
    def key(self) -> str:
        """Names the trained network: features are comparable where it is equal.

        The weights count as well as the configuration: trained twice, on two machines, the same
        configuration gives two networks whose features have nothing to do with each other.
        """
        path = self.run.folder / "weights.pt"
        if not self.run.has_weights:
            self.run.weights()  # says what is missing, and what to do
        with path.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        return f"{configuration_hash(self.run.configuration)}-{weights}"

    def check_data(self, benchmark: Benchmark) -> None:
        """Raises InputError where the run was trained on other data."""
        check_data_of(self.configuration, benchmark)

    def images(self, split: Split) -> ImageStore:
        """A split's images at the input's size, decoded once and found again later."""
        device, progress = self.execution.torch_device, self.execution.progress
        return ImageStore.open(split.paths, self.input_size, device=device, progress=progress)

    def embed(
        self,
        split: Split,
        *,
        keep: Literal["images", "features", "nothing"] = "images",
        file: Path | None = None,
    ) -> Embeddings:
        """The features of a split with its identities and cameras.

        keep: what lies on disk afterwards. "images": all of them decoded, for features that are computed
        again. "features": ``embed_to_disk`` in ``file`` (by default one under ``files.feature_cache()``), of
        which these are a memory map. "nothing": for those that are needed once; like features they take
        memory for a few hundred images. Raises InputError for images that cannot be decoded.
        """
        if keep == "images":
            features = embed(self.model, self.images(split))
        elif keep == "features":
            file = file or self._file(split)
            features = embed_to_disk(
                self.model, split.paths, self.input_size, self.execution, file, key=self.key
            )
        else:
            blocks = embed_blocks(self.model, split.paths, self.input_size, self.execution)
            features = torch.cat(list(blocks))
        return Embeddings(features, split.person_ids, split.camera_ids)

    def _file(self, split: Split) -> Path:
        names = "\n".join(map(str, split.paths))
        named = f"{self.key} {self.input_size} {names}".encode(errors="surrogateescape")
        return files.feature_cache() / f"{hashlib.sha256(named).hexdigest()[:32]}.npy"


def check_data_of(wanted: RunConfiguration, benchmark: Benchmark) -> None:
    """Raises InputError where a configuration was made for other data than the benchmark's."""
    if wanted.data != benchmark.fingerprint:
        raise InputError(
            "a run belongs to the data that its configuration names",
            f"data {wanted.data} of {wanted.benchmark!r}, and here {benchmark.fingerprint}",
            "give the folder that it was trained on, or train again",
        )


def trained_model(run: Run, device: torch.device | str = "cpu") -> nn.Module:
    """A run's network with its trained weights, on a device in evaluation mode.

    Its memory is laid out in one way wherever it is used, because the layout decides how sums are rounded.
    """
    wanted = RunConfiguration.from_json(run.configuration)
    # The run's own weights replace any pretrained ones, which may not be at hand here.
    architecture = replace(wanted.model, weights=None)
    weights = run.weights()
    try:
        # The classifiers, which tell how many training identities there were, end in one bias each.
        num_classes = next(
            bias.shape[-1]
            for name, bias in weights.items()
            if re.fullmatch(r"classifiers\.(\d+\.)?bias", name)
        )
        model = architecture.build(num_classes, wanted.seed)
        model.load_state_dict(weights)
    except (RuntimeError, StopIteration) as error:
        raise InputError(
            "a run's weights belong to its configuration",
            f"{run.folder / 'weights.pt'}: {str(error).partition(chr(10))[0] or 'no classifiers'}",
            "copy the right file there, or remove the run's folder to train again",
        ) from error
    return model.eval().to(device, memory_format=torch.channels_last)


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
        if feature not in self.branches:
            known = ", ".join(self.branches)
            raise InputError(f"the feature is one of {known}", repr(feature), "name one of them")
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
) -> tuple[Collection, nn.Module]:
    """A run's features of a benchmark's test images, and its network; the benchmark may be another one.

    Features are computed once and kept in ``files.feature_cache()``; in memory lie (Q + G)·D·4 bytes,
    a quarter of a GiB for 23,100 images and Pyramid's 2,688 numbers. Raises InputError for a run without
    weights and for images that cannot be decoded.
    """
    network = Network(run, execution or Execution())
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
    return np.array([np.nan if value is None else value for value in values])
