"""Features of many images in one file: written block by block, continued where a killed process stopped."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from reidlib.data.images import (
    DECODED_AT_ONCE,
    RESIZE_RULE,
    ImageStore,
    Unreadable,
    UnreadableError,
    decode_blocks,
)
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments.embedding import embed
from reidlib.files import alone, unwritable, write_json
from reidlib.training.device import Execution
from reidlib.training.runs import Run, configuration_hash


def features_key(run: Run) -> str:
    """Names a trained network: features are comparable where it is equal.

    The weights count as well as the configuration: trained twice, on two machines, the same configuration
    gives two networks whose features have nothing to do with each other. Raises InputError without weights.
    """
    path = run.folder / "weights.pt"
    if not run.has_weights:
        run.weights()  # says what is missing, and what to do
    with path.open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return f"{configuration_hash(run.configuration)}-{weights}"


def embed_to_disk(
    model: torch.nn.Module,
    split: Split,
    size: tuple[int, int],
    execution: Execution,
    file: Path,
    *,
    key: str,
) -> np.ndarray:
    """Features of a split's images, float32 (N, D), kept in ``file`` (.npy): a read-only memory map of it.

    Images pass through memory a few hundred at a time, so that memory does not grow with N. The model lies
    on ``execution``'s device. ``key`` names the network (``features_key``); together with the images'
    relative names, sizes and times and the input size it tells whether what lies there already is this.
    A finished file is found again; of an unfinished one, every block of images that is still the same is
    kept, and the rest continued. The result is the same, byte for byte, however often it was interrupted.
    Two processes that want the same features compute them once. Beside the file lie ``.json`` (what is in
    it), ``.lock``, and while it is not finished ``.partial``.

    Raises InputError for images that cannot be decoded (all of them named after one pass), a file there
    that this function did not make, and a disk that is full or not writable.
    """
    file = Path(file)
    if not len(split):
        raise InputError("features are computed of one image or more", "none", "give some images")
    wanted = {"key": f"{key} {size[0]}x{size[1]} {RESIZE_RULE}", "blocks": _block_digests(split.paths)}

    def waiting() -> None:
        print(f"{file.name}: another process is computing these features; waiting for it", file=sys.stderr)

    try:
        with alone(file.with_suffix(".lock"), waiting=waiting):
            described = file.with_suffix(".json")
            before = _read_description(described)
            if before is None and (foreign := [path for path in (file, described) if path.exists()]):
                raise InputError(
                    f"{file.name} and {described.name} are new, or were made by this command",
                    f"another file in {foreign[0]}",
                    "name another file, or move that one away",
                )
            if before != wanted or (features_nd := _opened(file, len(split))) is None:
                file.unlink(missing_ok=True)  # removed, not rewritten: another process may have it mapped
                _continue(model, split.paths, size, execution, file, before, wanted)
                features_nd = np.load(file, mmap_mode="r")
    except OSError as error:
        raise unwritable(file, error) from error
    return features_nd


def _continue(
    model: torch.nn.Module,
    paths: Sequence[Path],
    size: tuple[int, int],
    execution: Execution,
    file: Path,
    before: dict | None,
    wanted: dict,
) -> None:
    """Write what ``file`` lacks; the caller holds the lock."""
    partial = file.with_suffix(".partial")
    kept, length = _kept_rows(partial, before, wanted, len(paths))
    if kept:
        header = _header(len(paths), length)
        with partial.open("r+b") as stream:
            stream.write(header)
            stream.truncate(len(header) + 4 * length * kept)
    else:
        partial.unlink(missing_ok=True)
    # After the rows that it no longer describes are gone, and before new ones come.
    write_json(file.with_suffix(".json"), wanted)
    unreadable: list[Unreadable] = []
    title = f"embedding all but {kept:,} kept" if kept else "embedding"
    blocks = decode_blocks(paths[kept:], size, title=title, progress=execution.progress)
    with partial.open("ab" if kept else "wb") as stream:
        for block in blocks:
            unreadable += [image for image in block if isinstance(image, Unreadable)]
            if unreadable:  # the others are still looked for, so that all are mended at once
                continue
            # A whole block at a time, counted from the first image: rounding depends on a batch's size.
            features_bd = embed(model, ImageStore(np.stack(block), execution.torch_device)).numpy()
            if not stream.tell():
                stream.write(_header(len(paths), features_bd.shape[1]))
            stream.write(np.ascontiguousarray(features_bd, np.float32).data)
            stream.flush()  # what the system has survives the death of this process
    if unreadable:
        raise UnreadableError(unreadable)
    partial.replace(file)


def _kept_rows(partial: Path, before: dict | None, wanted: dict, count: int) -> tuple[int, int]:
    """How many rows of an unfinished file still hold, always whole blocks, and their length."""
    if before is None or before["key"] != wanted["key"]:
        return 0, 0
    same = 0
    for old, new in zip(before["blocks"], wanted["blocks"], strict=False):
        if old != new:
            break
        same += 1
    try:
        with partial.open("rb") as stream:
            np.lib.format.read_magic(stream)
            (_, length), _, _ = np.lib.format.read_array_header_1_0(stream)
            begin = stream.tell()
        written = (partial.stat().st_size - begin) // (4 * length)
    except (OSError, ValueError):
        return 0, 0
    if begin != len(_header(count, length)):
        return 0, 0
    if written < count or same < len(wanted["blocks"]):
        same = min(same, written // DECODED_AT_ONCE)
    return min(same * DECODED_AT_ONCE, count), length


def _header(count: int, length: int) -> bytes:
    buffer = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": (count, length)}
    np.lib.format.write_array_header_1_0(buffer, form)
    return buffer.getvalue()


def _opened(file: Path, count: int) -> np.ndarray | None:
    try:
        features_nd = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    fits = features_nd.ndim == 2 and len(features_nd) == count and features_nd.dtype == np.float32
    return features_nd if fits else None


def _read_description(path: Path) -> dict | None:
    try:
        content = json.loads(path.read_text())
        return content if content.keys() == {"key", "blocks"} else None
    except (OSError, ValueError, AttributeError):
        return None


def _block_digests(paths: Sequence[Path]) -> list[str]:
    """What tells each block of images from any other: relative names, sizes in bytes and times."""
    # Relative, so that a folder that was moved with its times keeps its features.
    common = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    digests, missing = [], []
    for start in range(0, len(paths), DECODED_AT_ONCE):
        digest = hashlib.sha256()
        for path in paths[start : start + DECODED_AT_ONCE]:
            try:
                status = os.stat(path)  # noqa: PTH116 (half the time of Path.stat, of half a million)
            except OSError as error:
                missing.append(Unreadable(path, error.strerror or str(error)))
                continue
            name = str(path)[len(common) :]
            line = f"{name}|{status.st_size}|{status.st_mtime_ns}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
        digests.append(digest.hexdigest()[:16])
    if missing:
        raise UnreadableError(missing)
    return digests
