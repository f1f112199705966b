"""Features of images by a run's network: in memory, block by block, or in a file.

A file is written block by block; after an interruption the next call continues it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from reidlib import files
from reidlib.data.augmentation import normalise_images
from reidlib.data.benchmark import Benchmark
from reidlib.data.decoding import file_states
from reidlib.data.images import (
    IMAGES_PER_BLOCK,
    RESIZE_RULE,
    ImageStore,
    array_header,
    decode_complete_blocks,
    open_array,
)
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.files import build_once, find_json, write_error, write_json
from reidlib.ranking.distances import full_float32
from reidlib.ranking.metrics import Embeddings, check_finite
from reidlib.training.config import RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.runs import Run, configuration_hash

if TYPE_CHECKING:
    from reidlib.models import JLML, Pyramid

logger = logging.getLogger("reidlib")

WEIGHTS_MEND = "restore the run's weights.pt, or train the run again: its weights give no usable feature"


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set a model to evaluation mode inside the block and restore its mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.inference_mode()
def embed(
    model: nn.Module,
    images: ImageStore,
    *,
    batch_size: int | None = None,
    autocast: contextlib.AbstractContextManager | None = None,
) -> Tensor:
    """Compute the features of all images of a store.

    The model runs in evaluation mode and by default in float32, whatever the precision of its training, so a
    run's scores do not depend on the precisions that the evaluating machine supports. Its mode is restored.

    Args:
        model: A network with a method ``embed``, on the store's device.
        images: N images at the network's input size, N at least 1.
        batch_size: Images per forward pass; by default 32 on a CPU, whose caches hold the maps of so many,
            and 128 elsewhere.
        autocast: Context of mixed precision; None for float32.

    Returns:
        The features, (N, D), float32 on the CPU.
    """
    batch_size = batch_size or (32 if images.device.type == "cpu" else 128)
    batches = torch.arange(len(images)).split(batch_size)
    network, features_nd = cast("JLML | Pyramid", model), None
    with evaluation_mode(model), full_float32(images.device):
        for indices_b, images_bchw in zip(batches, images.batches(batches), strict=True):
            with autocast or contextlib.nullcontext():
                features_bd = network.embed(normalise_images(images_bchw))
            if features_nd is None:
                features_nd = torch.empty(len(images), features_bd.shape[1])
            features_nd[indices_b] = features_bd.float().cpu()
    return cast("Tensor", features_nd)


def embed_blocks(
    model: nn.Module,
    paths: Sequence[Path],
    size: tuple[int, int],
    execution: Execution,
    *,
    resize: str = "bilinear",
    title: str = "embedding",
) -> Iterator[Tensor]:
    """Yield features in blocks of a few hundred images; InputError for unreadable images after the last."""
    # Always whole blocks, counted from the first image: rounding depends on a batch's size.
    start = 0
    progress = execution.progress
    for block in decode_complete_blocks(paths, size, title=title, resize=resize, progress=progress):
        features_bd = embed(model, ImageStore(np.stack(block), execution.torch_device))
        check_finite(features_bd, paths[start : start + len(block)].__getitem__, WEIGHTS_MEND)
        start += len(block)
        yield features_bd


def embed_to_disk(
    model: nn.Module,
    paths: Sequence[Path],
    size: tuple[int, int],
    execution: Execution,
    file: Path,
    *,
    key: str,
    resize: str = "bilinear",
) -> np.ndarray:
    """Compute the features of images into a file, a few hundred images at a time.

    Memory does not grow with N, and the file is the same, byte for byte, however often its computation was
    interrupted. Of several processes that need the same features, one computes them. Rows of an earlier call
    are kept while key, input size and the images' relative names, sizes and times are the same.

    Args:
        model: The network, on the device of ``execution``.
        paths: Files of the N images.
        size: Height and width of the network's input, in pixels.
        execution: Device and progress.
        file: The file, .npy. Beside it are a .json that describes its content, a .lock, and a .partial until
            it is finished.
        key: Identifies the network; see ``TrainedNetwork.key``.
        resize: Interpolation, a key of ``data.decoding.INTERPOLATIONS``.

    Returns:
        A read-only memory map of the file, float32 (N, D).

    Raises:
        InputError: If images cannot be decoded (all are listed after one pass), the file is not one of this
            function's, or the disk is full or cannot be written.
    """
    file = Path(file)
    if not paths:
        raise InputError("features need at least one image", "none", "give some images")
    content = {
        "key": f"{key} {size[0]}x{size[1]} {RESIZE_RULE.format(resize)}",
        "blocks": _block_digests(file_states(paths)),
    }

    def log_waiting() -> None:
        logger.warning("%s: another process is computing these features; waiting for it", file.name)

    def find() -> np.ndarray | None:
        return _find_features(file, content, len(paths))

    def build() -> np.ndarray:
        description = file.with_suffix(".json")
        old_content = find_json(description)
        if old_content is not None and old_content.keys() != content.keys():
            old_content = None
        if old_content is None and (foreign := [path for path in (file, description) if path.exists()]):
            raise InputError(
                f"{file.name} and {description.name} are new, or were made by this command",
                f"another file in {foreign[0]}",
                "name another file, or move that one away",
            )
        file.unlink(missing_ok=True)  # removed, not rewritten: another process may have it mapped

        def embed_remaining(remaining_paths: Sequence[Path], title: str) -> Iterator[Tensor]:
            return embed_blocks(model, remaining_paths, size, execution, resize=resize, title=title)

        _complete(file, paths, embed_remaining, old_content, content)
        return np.load(file, mmap_mode="r")

    try:
        return build_once(file.with_suffix(".lock"), find, build, on_wait=log_waiting)
    except OSError as error:
        raise write_error(file, error) from error


def _find_features(file: Path, content: dict, count: int) -> np.ndarray | None:
    """Open a file of features without its lock, which cannot be written in somebody else's folder."""

    # A file is removed before its description changes, and replaced after that. So while one and the same
    # file is in place, its description does not change.
    def state() -> tuple[int, int]:
        status = file.stat()
        return status.st_ino, status.st_mtime_ns

    try:
        before = state()
        features_nd = open_array(file, (count, None), np.float32)
        is_complete = find_json(file.with_suffix(".json")) == content and state() == before
    except OSError:
        return None
    return features_nd if is_complete else None


def _complete(
    file: Path, paths: Sequence[Path], embed_remaining: Callable, old_content: dict | None, content: dict
) -> None:
    """Compute and write the missing rows of a file; the caller holds the lock."""
    partial = file.with_suffix(".partial")
    num_valid, length = _valid_rows(partial, old_content, content, len(paths))
    if num_valid:
        header = array_header((len(paths), length), "<f4")
        with partial.open("r+b") as stream:
            stream.write(header)
            stream.truncate(len(header) + 4 * length * num_valid)
    else:
        partial.unlink(missing_ok=True)
    # Written after invalid rows are removed and before new rows are added, so it is never wrong.
    write_json(file.with_suffix(".json"), content)
    title = f"embedding all but {num_valid:,} kept" if num_valid else "embedding"
    try:
        with partial.open("ab" if num_valid else "wb") as stream:
            for features_bd in embed_remaining(paths[num_valid:], title):
                if not stream.tell():
                    stream.write(array_header((len(paths), features_bd.shape[1]), "<f4"))
                stream.write(np.ascontiguousarray(features_bd.numpy(), np.float32).data)
                stream.flush()  # flushed rows survive if this process is killed
        partial.replace(file)
    except InputError:  # images that cannot be read
        if not partial.stat().st_size:
            partial.unlink()
        raise


def _valid_rows(partial: Path, old_content: dict | None, content: dict, count: int) -> tuple[int, int]:
    """Return the number of rows of an unfinished file that are valid, in whole blocks, and their length."""
    if old_content is None or old_content["key"] != content["key"]:
        return 0, 0
    num_blocks = sum(takewhile(bool, map(eq, old_content["blocks"], content["blocks"])))
    try:
        with partial.open("rb") as stream:
            np.lib.format.read_magic(stream)
            (_, length), _, _ = np.lib.format.read_array_header_1_0(stream)
            start = stream.tell()
        num_written = (partial.stat().st_size - start) // (4 * length)
    except (OSError, ValueError):
        return 0, 0
    if start != len(array_header((count, length), "<f4")):
        return 0, 0
    if num_written < count or num_blocks < len(content["blocks"]):
        num_blocks = min(num_blocks, num_written // IMAGES_PER_BLOCK)
    return min(num_blocks * IMAGES_PER_BLOCK, count), length


def _block_digests(states: Sequence[str]) -> list[str]:
    """Return a hash of each block of images."""
    blocks = (states[start : start + IMAGES_PER_BLOCK] for start in range(0, len(states), IMAGES_PER_BLOCK))
    return [
        hashlib.sha256("".join(block).encode("utf-8", "surrogateescape")).hexdigest()[:16] for block in blocks
    ]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained run's network on a device; it is loaded at the first use.

    Attributes:
        run: The run.
        execution: Device of the network, and whether progress is shown.
    """

    run: Run
    execution: Execution = field(default_factory=Execution)

    @classmethod
    def for_benchmark(cls, benchmark: Benchmark, run: Run, execution: Execution | None) -> TrainedNetwork:
        """Return a run's network; InputError if the run was trained on other data."""
        network = cls(run, execution or Execution())
        check_run_data(network.configuration, benchmark)
        return network

    @cached_property
    def configuration(self) -> RunConfiguration:
        """The run's configuration."""
        return RunConfiguration.from_json(self.run.configuration)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the network's input, in pixels."""
        return self.configuration.input_size

    @cached_property
    def model(self) -> JLML | Pyramid:
        """The network with trained weights, on the device, in evaluation mode; InputError without them."""
        # Without pretrained weights, which the run's weights replace and which may not be available here.
        architecture = replace(self.configuration.model, weights=None)
        weights = self.run.weights()
        try:
            # Each classifier has one bias, of as many elements as there were training identities.
            num_classes = next(
                bias.shape[-1]
                for name, bias in weights.items()
                if re.fullmatch(r"classifiers\.(\d+\.)?bias", name)
            )
            model = architecture.build(num_classes, self.configuration.seed)
            model.load_state_dict(weights)
        except (RuntimeError, StopIteration, AttributeError, LookupError, TypeError) as error:
            raise InputError(
                "a run's weights belong to its configuration",
                f"{self.run.folder / 'weights.pt'}: {str(error).partition(chr(10))[0] or 'no classifiers'}",
                "copy the right file there, or remove the run's folder to train or import again",
            ) from error
        # The memory layout decides how sums are rounded, so it is the same everywhere.
        return model.eval().to(self.execution.torch_device).to(memory_format=torch.channels_last)

    @cached_property
    def key(self) -> str:
        """Identifier of the trained network; only features with the same key are comparable."""
        # It includes the weights: two trainings of one configuration on two machines give two networks whose
        # features are unrelated.
        path = self.run.folder / "weights.pt"
        if not self.run.has_weights:
            self.run.weights()  # raises InputError
        with path.open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        return f"{configuration_hash(self.run.configuration)}-{weights}"

    def images(self, split: Split) -> ImageStore:
        """Return a split's images at the input's size, decoded once and then cached on disk."""
        device, progress = self.execution.torch_device, self.execution.progress
        resize = self.configuration.resize
        return ImageStore.open(split.paths, self.input_size, resize=resize, device=device, progress=progress)

    def embed(
        self,
        split: Split,
        *,
        keep: Literal["images", "features", "nothing"] = "images",
        file: Path | None = None,
    ) -> Embeddings:
        """Compute the features of a split.

        Args:
            split: Paths, identities and cameras of N images.
            keep: What is cached on disk. "images": the decoded images, for features that are computed
                again. "features": the features (``embed_to_disk``), which are returned as a memory map.
                "nothing": for features that are needed once. With the last two, images take memory for a few
                hundred at a time.
            file: File for ``keep="features"``; one in ``files.feature_cache()`` by default.

        Returns:
            Features (N, D), float32 on the CPU, with identities and cameras, (N,) each.

        Raises:
            InputError: If images cannot be decoded, or the run has no weights.
        """
        mend = WEIGHTS_MEND
        images = (self.model, split.paths, self.input_size, self.execution)
        resize = self.configuration.resize
        if keep == "images":
            features = embed(self.model, self.images(split))
        elif keep == "features":
            file = file or self._file(split)
            features = embed_to_disk(*images, file, key=self.key, resize=resize)
            mend = f"remove {file}, which is damaged, and give the same command again"
        else:
            features = torch.cat(list(embed_blocks(*images, resize=resize)))
        name = split.paths.__getitem__
        return Embeddings(features, split.person_ids, split.camera_ids, name=name, mend=mend)

    def _file(self, split: Split) -> Path:
        names = "\n".join(map(str, split.paths))
        content = f"{self.key} {self.input_size} {names}".encode(errors="surrogateescape")
        return files.feature_cache() / f"{hashlib.sha256(content).hexdigest()[:32]}.npy"


def check_run_data(configuration: RunConfiguration, benchmark: Benchmark) -> None:
    """Raise InputError if a configuration was made for other data than the benchmark's."""
    if configuration.data != benchmark.fingerprint:
        raise InputError(
            "a run belongs to the data that its configuration names",
            f"data {configuration.data} of {configuration.benchmark!r}, and here {benchmark.fingerprint}",
            "give the folder that it was trained on, or train again",
        )
