"""The embedded benchmark: rendered pedestrians, written in Market-1501's layout."""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from reidlib.data.synthetic.factors import (
    GALLERY,
    KINDS,
    PERSON,
    QUERY,
    SIZES,
    TRAIN,
    BenchmarkOrders,
    BenchmarkSize,
    Factors,
    Orders,
    plan,
)
from reidlib.data.synthetic.photographs import Studio, photograph, single_threaded_pool
from reidlib.data.synthetic.scenes import compose
from reidlib.errors import InputError, check_choice
from reidlib.files import build_once, hidden_file, writing_mend
from reidlib.progress import progress_bar
from reidlib.threads import map_ahead

__all__ = ["SIZES", "BenchmarkSize", "Factors", "fingerprint", "preview", "render", "render_in_memory"]

SHAPE = (128, 64)  # height and width of every image in pixels, as in Market-1501
_SPLITS = (TRAIN, QUERY, GALLERY)
_FORMAT = 1
_QUALITY = 95
_CHUNK = 64  # images rendered at once: large against the overhead of calls, small enough for the cache
_RECORD = "rendering.json"
_TRUTH = "factors.csv"


def render(
    size: str,
    folder: str | os.PathLike,
    *,
    seed: int = 0,
    factors: Factors | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Path:
    """Render the embedded benchmark into a folder, unless the folder already holds it.

    Writes ``bounding_box_train``, ``query`` and ``bounding_box_test`` with Market-1501's file names (128 × 64
    pixels), ``factors.csv`` (the truth about every image; yaw in radians, pitch as its tangent, lengths in
    metres) and finally ``rendering.json``. The folder appears only when it is complete. The same arguments
    give the same pixels on every machine.

    Args:
        size: A key of ``SIZES``: "smoke", "quick" or "full".
        folder: Folder to write, new or empty.
        seed: Seed of all random draws, 0 to 2147483647.
        factors: Strengths of the causes of variation; None means the defaults.
        device: Device that renders.
        progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        InputError: If the size or the device does not exist, the folder holds other files, or the disk is
            full or not writable.
    """
    factors = Factors() if factors is None else factors
    folder = Path(folder).expanduser().absolute()
    _check(size, seed, device)
    record = {"format": _FORMAT, "size": size, "seed": seed, "factors": asdict(factors)}
    images = plan(SIZES[size], factors.num_cameras, seed)
    record["counts"] = _counts(images)  # a size may have had other counts in an earlier version

    def build() -> Path:
        # Only the holder of the lock writes, so any other partial folder is from a killed process.
        prefix = hidden_file(folder, "partial-").name
        for stale in folder.parent.glob(f"{glob.escape(prefix)}*"):
            shutil.rmtree(stale)
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            _write(partial, images, record, factors, device, progress)
            partial.chmod(0o755)
            return partial.replace(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    try:
        return build_once(
            hidden_file(folder, "lock"), lambda: folder if _is_finished(folder, record) else None, build
        )
    except OSError as error:
        raise InputError(
            "the folder of a rendered benchmark must be writable and have room",
            f"{folder} ({error.strerror or error})",
            writing_mend(folder, error, "name another folder"),
        ) from error


def fingerprint(size: str, factors: Factors, *, seed: int = 0) -> str:
    """Return 16 hexadecimal digits that identify the images of a rendering, without rendering them."""
    counts = {name: value for name, value in asdict(SIZES[size]).items() if value is not None}
    arguments = {"format": _FORMAT, "size": counts, "seed": seed, "factors": asdict(factors)}
    return hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:16]


def preview(
    identity: int,
    camera: int,
    factors: Factors | None = None,
    *,
    seed: int = 0,
    count: int = 1,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Render the first images of an identity by a camera, without writing files.

    If one factor changes, the same images return with only that cause changed.

    Args:
        identity: Number of the identity, from 1.
        camera: Number of the camera, from 1 to ``factors.num_cameras``.
        factors: Strengths of the causes of variation; None means the defaults.
        seed: Seed of all random draws.
        count: Number of images (N).
        device: Device that renders.

    Returns:
        Images (N, 3, 128, 64), uint8.

    Raises:
        InputError: If the camera does not exist, or ``count`` is below 1.
    """
    factors = Factors() if factors is None else factors
    if not 1 <= camera <= factors.num_cameras:
        raise InputError(
            "camera is a number from 1 to num_cameras", camera, f"choose one from 1 to {factors.num_cameras}"
        )
    if count < 1:
        raise InputError("count is a positive number of images", count, "choose 1 or more")
    column = np.ones(count, np.int64)
    orders = Orders(column * identity, column * (camera - 1), np.arange(count), column * PERSON)
    studio = Studio.build(factors, seed, device)

    def develop(first: int) -> np.ndarray:
        return photograph(compose(orders[first : first + _CHUNK], factors, seed), studio, SHAPE).cpu().numpy()

    with single_threaded_pool(1) as pool:
        return np.concatenate(list(pool.map(develop, range(0, count, _CHUNK))))


def _check(size: str, seed: int, device: str | torch.device) -> None:
    rule = f"the size of a rendered benchmark is one of {', '.join(SIZES)}"
    check_choice(rule, size, SIZES)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise InputError("a seed is a whole number from 0 to 2147483647", repr(seed), "choose for example 0")
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("the device must exist", f"{str(device)!r} ({reason})", "choose cpu") from error


def _is_finished(folder: Path, requested: dict) -> bool:
    """Return whether the folder holds exactly this rendering; raise InputError if it holds other files."""
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError("a benchmark is rendered into a folder", f"the file {folder}", "name another folder")
    file = folder / _RECORD
    if not file.exists():
        if any(folder.iterdir()):
            raise InputError(
                "a benchmark is rendered into a separate folder",
                f"{folder}, which holds other files",
                "name a new or an empty folder",
            )
        return False
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        pairs = ((name, record.get(name), value) for name, value in requested.items())
        differences = [_difference(*pair) for pair in pairs if pair[1] != pair[2]]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(
            f"{_RECORD} describes the contents of a folder",
            f"{file}, which is damaged",
            "remove the folder, render again",
        ) from error
    if differences:
        raise InputError(
            "a folder holds one rendering",
            f"{folder} with {'; '.join(differences)}",
            "name another folder, or remove this one",
        )
    return True


def _difference(name: str, actual: object, requested: object) -> str:
    if isinstance(actual, dict) and isinstance(requested, dict):
        names = [key for key in requested if actual.get(key) != requested[key]]
        return ", ".join(_difference(key, actual.get(key), requested[key]) for key in names)
    return f"{name} {actual} where {requested} was requested"


def _write(
    folder: Path,
    images: BenchmarkOrders,
    record: dict,
    factors: Factors,
    device: str | torch.device,
    progress: bool,
) -> None:
    for split in _SPLITS:
        (folder / split).mkdir()
    truths = []
    paths = (folder / split / name for split, name in zip(images.split, images.name, strict=True))
    title = f"rendering {record['size']}" if progress else ""
    with ThreadPoolExecutor(os.cpu_count() or 1) as disk_pool:
        for pictures_nhwc, truth in _develop(images, factors, record["seed"], device, title):
            list(disk_pool.map(_save, pictures_nhwc, paths))
            truths.append(truth)
    truth = {name: np.concatenate([chunk[name] for chunk in truths]) for name in truths[0]}
    _write_truth(folder / _TRUTH, images, truth)
    (folder / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _develop(
    images: BenchmarkOrders, factors: Factors, seed: int, device: str | torch.device, title: str
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Yield chunks of pictures (M, H, W, 3) with their truth; a title shows a progress bar."""
    studio = Studio.build(factors, seed, device)
    on_gpu = studio.volume.device.type != "cpu"
    chunk = 8 * _CHUNK if on_gpu else _CHUNK
    # One thread feeds a GPU; on a CPU every core renders its own chunks.
    renderers = 1 if on_gpu else min(os.cpu_count() or 1, torch.get_num_threads())

    def develop(orders: BenchmarkOrders) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        scenes = compose(orders, factors, seed)
        return photograph(scenes, studio, SHAPE).permute(0, 2, 3, 1).cpu().numpy(), scenes.truth

    chunks = (images[first : first + chunk] for first in range(0, len(images), chunk))
    bar = progress_bar(total=len(images), unit="image", desc=title, disable=not title)
    with bar, single_threaded_pool(renderers) as pool:
        for pictures_nhwc, truth in map_ahead(pool, develop, chunks, renderers + 2):
            yield pictures_nhwc, truth
            bar.update(len(pictures_nhwc))


def _save(picture_hwc: np.ndarray, file: Path | BinaryIO) -> None:
    Image.fromarray(picture_hwc).save(file, "JPEG", quality=_QUALITY)


def render_in_memory(
    images: BenchmarkOrders,
    factors: Factors,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    title: str = "",
) -> np.ndarray:
    """Render some images of a benchmark (N, 128, 64, 3) uint8, with the pixels of the files of ``render``."""
    # JPEG loses a little of each picture, and networks are trained on what is left.
    rendered = [np.empty((0, *SHAPE, 3), np.uint8)]
    if not len(images):
        return rendered[0]
    for pictures_nhwc, _ in _develop(images, factors, seed, device, title):
        for picture_hwc in pictures_nhwc:
            with io.BytesIO() as file:
                _save(picture_hwc, file)
                rendered.append(np.array(Image.open(file))[None])
    return np.concatenate(rendered)


def _write_truth(path: Path, images: BenchmarkOrders, truth: dict[str, np.ndarray]) -> None:
    columns = {
        "split": images.split,
        "file": images.name,
        "person_id": images.person,
        "identity": images.identity,
        "camera_id": images.camera + 1,
        "kind": np.asarray(KINDS)[images.kind],
    }
    for name, values in truth.items():
        columns[name] = values.astype(int) if values.dtype == bool else np.round(values, 5)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


def _counts(images: BenchmarkOrders) -> dict[str, dict[str, int]]:
    counts = {}
    for split in [name for name in _SPLITS if name in images.split]:
        rows = images[images.split == split]
        counts[split] = {
            "images": len(rows),
            "identities": len(np.unique(rows.person[rows.person > 0])),
            "cameras": len(np.unique(rows.camera)),
        }
    person = images.person[images.split == GALLERY]
    counts[GALLERY] |= {"junk": int((person == -1).sum()), "distractors": int((person == 0).sum())}
    return counts
