"""From a run to features, the one way, whatever they are wanted for.

In memory, of images that pass by once, or in a file, which is written block by block and continued where a
killed process stopped.
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
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from reidlib import files
from reidlib.data.augmentation import normalise_images
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import (
    DECODED_AT_ONCE,
    RESIZE_RULE,
    ImageStore,
    array_header,
    file_states,
    opened_array,
    whole_blocks,
)
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.files import alone, find_json, unwritable, write_json
from reidlib.ranking.distances import full_float32
from reidlib.ranking.metrics import Embeddings
from reidlib.training.config import RunConfiguration
from reidlib.training.device import Execution
from reidlib.training.runs import Run, configuration_hash

logger = logging.getLogger("reidlib")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; its own mode is restored."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@torch.inference_mode()
def embed(model: nn.Module, images: ImageStore, *, batch_size: int = 128) -> Tensor:
    """Features of all images of a store: ``(N, D)`` float32 on the CPU.

    The model's ``embed`` is run in evaluation mode, in float32 whatever it was trained in, so that the
    scores of a run do not depend on what the machine that evaluates it is good at. Its mode is restored.
    """
    order = torch.arange(len(images)).split(batch_size)
    features = None
    with evaluating(model), full_float32(images.device):
        for indices_b, images_bchw in zip(order, images.batches(order), strict=True):
            features_bd = model.embed(normalise_images(images_bchw))
            if features is None:
                features = torch.empty(len(images), features_bd.shape[1])
            features[indices_b] = features_bd.float().cpu()
    return features


def embed_blocks(
    model: nn.Module,
    paths: Sequence[Path],
    size: tuple[int, int],
    execution: Execution,
    *,
    title: str = "embedding",
) -> Iterator[Tensor]:
    """Features of a few hundred images at a time, which are decoded, embedded and forgotten.

    The model lies on ``execution``'s device. Raises InputError for files that cannot be decoded, all of them
    named once every image was looked at.
    """
    # A whole block at a time, counted from the first image: rounding depends on a batch's size.
    for block in whole_blocks(paths, size, title=title, progress=execution.progress):
        yield embed(model, ImageStore(np.stack(block), execution.torch_device))


def embed_to_disk(
    model: nn.Module,
    paths: Sequence[Path],
    size: tuple[int, int],
    execution: Execution,
    file: Path,
    *,
    key: str,
) -> np.ndarray:
    """Features of images, float32 (N, D), kept in ``file`` (.npy): a read-only memory map of it.

    Images pass through memory a few hundred at a time, so that memory does not grow with N. The model lies
    on ``execution``'s device. ``key`` names the network (``Network.key``); together with the images'
    relative names, sizes and times and the input size it tells whether what lies there already is this.
    A finished file is found again; of an unfinished one, every block of images that is still the same is
    kept, and the rest continued. The result is the same, byte for byte, however often it was interrupted.
    Two processes that want the same features compute them once. Beside the file lie ``.json`` (what is in
    it), ``.lock``, and while it is not finished ``.partial``.

    Raises InputError for images that cannot be decoded (all of them named after one pass), a file there
    that this function did not make, and a disk that is full or not writable.
    """
    file = Path(file)
    if not paths:
        raise InputError("features are computed of one image or more", "none", "give some images")
    wanted = {"key": f"{key} {size[0]}x{size[1]} {RESIZE_RULE}", "blocks": _block_digests(file_states(paths))}

    def waiting() -> None:
        logger.warning(f"{file.name}: another process is computing these features; waiting for it")

    try:
        with alone(file.with_suffix(".lock"), waiting=waiting):
            described = file.with_suffix(".json")
            before = find_json(described)
            if before is not None and before.keys() != wanted.keys():
                before = None
            if before is None and (foreign := [path for path in (file, described) if path.exists()]):
                raise InputError(
                    f"{file.name} and {described.name} are new, or were made by this command",
                    f"another file in {foreign[0]}",
                    "name another file, or move that one away",
                )
            if (
                before != wanted
                or (features_nd := opened_array(file, (len(paths), None), np.float32)) is None
            ):
                file.unlink(missing_ok=True)  # removed, not rewritten: another process may have it mapped

                def blocks(rest: Sequence[Path], title: str) -> Iterator[Tensor]:
                    return embed_blocks(model, rest, size, execution, title=title)

                _continue(blocks, paths, file, before, wanted)
                features_nd = np.load(file, mmap_mode="r")
    except OSError as error:
        raise unwritable(file, error) from error
    return features_nd


def _continue(blocks: Callable, paths: Sequence[Path], file: Path, before: dict | None, wanted: dict) -> None:
    """Write what ``file`` lacks; the caller holds the lock. blocks: ``embed_blocks`` of some paths."""
    partial = file.with_suffix(".partial")
    kept, length = _kept_rows(partial, before, wanted, len(paths))
    if kept:
        header = array_header((len(paths), length), "<f4")
        with partial.open("r+b") as stream:
            stream.write(header)
            stream.truncate(len(header) + 4 * length * kept)
    else:
        partial.unlink(missing_ok=True)
    # After the rows that it no longer describes are gone, and before new ones come.
    write_json(file.with_suffix(".json"), wanted)
    title = f"embedding all but {kept:,} kept" if kept else "embedding"
    with partial.open("ab" if kept else "wb") as stream:
        for features_bd in blocks(paths[kept:], title):
            if not stream.tell():
                stream.write(array_header((len(paths), features_bd.shape[1]), "<f4"))
            stream.write(np.ascontiguousarray(features_bd.numpy(), np.float32).data)
            stream.flush()  # what the system has survives the death of this process
    partial.replace(file)


def _kept_rows(partial: Path, before: dict | None, wanted: dict, count: int) -> tuple[int, int]:
    """How many rows of an unfinished file still hold, always whole blocks, and their length."""
    if before is None or before["key"] != wanted["key"]:
        return 0, 0
    same = sum(takewhile(bool, map(eq, before["blocks"], wanted["blocks"])))
    try:
        with partial.open("rb") as stream:
            np.lib.format.read_magic(stream)
            (_, length), _, _ = np.lib.format.read_array_header_1_0(stream)
            begin = stream.tell()
        written = (partial.stat().st_size - begin) // (4 * length)
    except (OSError, ValueError):
        return 0, 0
    if begin != len(array_header((count, length), "<f4")):
        return 0, 0
    if written < count or same < len(wanted["blocks"]):
        same = min(same, written // DECODED_AT_ONCE)
    return min(same * DECODED_AT_ONCE, count), length


def _block_digests(states: Sequence[str]) -> list[str]:
    """What tells each block of images from any other."""
    blocks = (states[start : start + DECODED_AT_ONCE] for start in range(0, len(states), DECODED_AT_ONCE))
    return [
        hashlib.sha256("".join(block).encode("utf-8", "surrogateescape")).hexdigest()[:16] for block in blocks
    ]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A trained run's network on a device, loaded when first needed. Raises InputError without weights."""

    run: Run
    execution: Execution = field(default_factory=Execution)

    @classmethod
    def trained_on(cls, benchmark: Benchmark, run: Run, execution: Execution | None) -> TrainedNetwork:
        """A run's network. Raises InputError where it was trained on other data."""
        network = cls(run, execution or Execution())
        check_data_of(network.configuration, benchmark)
        return network

    @cached_property
    def configuration(self) -> RunConfiguration:
        return RunConfiguration.from_json(self.run.configuration)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels that the network takes."""
        return self.configuration.input_size

    @cached_property
    def model(self) -> nn.Module:
        """With its trained weights, on the device in evaluation mode.

        Its memory is laid out in one way everywhere, because the layout decides how sums are rounded.
        """
        # The run's own weights replace any pretrained ones, which may not be at hand here.
        architecture = replace(self.configuration.model, weights=None)
        weights = self.run.weights()
        try:
            # The classifiers, which tell how many training identities there were, end in one bias each.
            num_classes = next(
                bias.shape[-1]
                for name, bias in weights.items()
                if re.fullmatch(r"classifiers\.(\d+\.)?bias", name)
            )
            model = architecture.build(num_classes, self.configuration.seed)
            model.load_state_dict(weights)
        except (RuntimeError, StopIteration) as error:
            raise InputError(
                "a run's weights belong to its configuration",
                f"{self.run.folder / 'weights.pt'}: {str(error).partition(chr(10))[0] or 'no classifiers'}",
                "copy the right file there, or remove the run's folder to train again",
            ) from error
        return model.eval().to(self.execution.torch_device, memory_format=torch.channels_last)

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
