"""Images decoded once into one array on disk, and batches of them on the device."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from reidlib import files
from reidlib.errors import InputError, shorten
from reidlib.progress import progress_bar
from reidlib.threads import worked_ahead

# Part of the cache's key: change it with anything that changes a decoded pixel.
RESIZE_RULE = "Pillow bilinear, antialiased, aspect not kept"
# Room for the model and its activations, which matter more than sparing a copy over the bus.
RESIDENT_SHARE = 0.4
# Images of a block of ``decode_blocks``.
DECODED_AT_ONCE = 512


class Unreadable(NamedTuple):
    """A file that is not a whole image, and what the decoder said."""

    path: Path
    reason: str


class UnreadableError(InputError):
    """Files that could not be decoded, all in one line; ``images`` has each with its reason."""

    def __init__(self, images: Sequence[Unreadable]):
        self.images = tuple(images)
        named = shorten([f"{path} ({reason})" for path, reason in images], 20)
        super().__init__(
            "every image can be decoded whole",
            f"{len(images)} unreadable: {named}",
            "unpack or copy these files again, or remove them",
        )


def decode(path: Path, size: tuple[int, int] | None = None) -> np.ndarray | Unreadable:
    """Decode one file to uint8 RGB (H, W, 3), resized to ``size`` = (H, W) in pixels where given.

    Pillow does both: torchvision's decoders are to be removed, and Pillow's resizing is integer arithmetic,
    the same pixels on every machine. A truncated file is unreadable: its missing rows are not made up.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
    except Exception as error:  # decoders report damage as any of half a dozen types
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        return Unreadable(path, reason or type(error).__name__)
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)  # antialiased when it shrinks
    return np.array(image)


def fitted(image_hwc: np.ndarray, height: int, width: int) -> Image.Image:
    """An image as large as fits in so many pixels with its proportions, for people to look at."""
    own_height, own_width = image_hwc.shape[:2]
    scale = min(height / own_height, width / own_width)
    size = max(1, round(own_width * scale)), max(1, round(own_height * scale))
    return Image.fromarray(image_hwc).resize(size, Image.Resampling.LANCZOS)


def decode_blocks(
    paths: Sequence[Path], size: tuple[int, int] | None, *, title: str, progress: bool = True
) -> Iterator[list[np.ndarray | Unreadable]]:
    """Decode files in parallel threads, in order, a few hundred at a time, under a progress bar."""
    with (
        ThreadPoolExecutor(min(16, os.cpu_count() or 1), "decode") as threads,
        progress_bar(total=len(paths), desc=title, unit="image", disable=not progress, leave=False) as bar,
    ):
        for start in range(0, len(paths), DECODED_AT_ONCE):
            block = paths[start : start + DECODED_AT_ONCE]
            yield list(threads.map(decode, block, [size] * len(block)))
            bar.update(len(block))


def whole_blocks(
    paths: Sequence[Path], size: tuple[int, int] | None, *, title: str, progress: bool = True
) -> Iterator[list[np.ndarray]]:
    """``decode_blocks`` up to the first file that cannot be decoded.

    The others are then decoded all the same, and UnreadableError names all that cannot.
    """
    unreadable: list[Unreadable] = []
    for block in decode_blocks(paths, size, title=title, progress=progress):
        unreadable += [image for image in block if isinstance(image, Unreadable)]
        if not unreadable:
            yield block
    if unreadable:
        raise UnreadableError(unreadable)


def file_states(paths: Sequence[Path]) -> list[str]:
    """A line for each file that tells whether it is the same later: relative name, bytes and time.

    Raises UnreadableError for files that are not there, all of them named.
    """
    # Relative names, so that a folder that was moved with its times keeps what was made of it.
    common = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    lines, missing = [], []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 (half the time of Path.stat, of half a million)
            lines.append(f"{str(path)[len(common) :]}|{status.st_size}|{status.st_mtime_ns}\n")
        except OSError as error:
            missing.append(Unreadable(path, error.strerror or str(error)))
    if missing:
        raise UnreadableError(missing)
    return lines


def array_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """The beginning of an array's file (.npy), behind which its rows are written one after the other."""
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def opened_array(file: Path, shape: tuple[int | None, ...], dtype: type) -> np.ndarray | None:
    """A read-only memory map of an array's file; None where it is damaged or another (None: any length)."""
    try:
        array = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    fits = array.ndim == len(shape) and all(
        length in (None, found) for length, found in zip(shape, array.shape, strict=True)
    )
    return array if fits and array.dtype == dtype else None


@dataclass(frozen=True, eq=False)
class ImageStore:
    """Images of one size as one uint8 array, and batches of them on a device; made by ``open``.

    ``array_nhwc`` uint8 (N, H, W, 3) is a read-only memory map, so a set larger than memory streams;
    ``resident_nhwc`` is its copy on the device, or None where batches are streamed there.
    """

    array_nhwc: np.ndarray
    device: torch.device
    resident_nhwc: Tensor | None = None

    @classmethod
    def open(
        cls,
        paths: Sequence[Path],
        size: tuple[int, int],
        *,
        cache_folder: Path | None = None,
        device: torch.device | str = "cpu",
        resident: bool | Literal["auto"] = "auto",
        progress: bool = True,
    ) -> ImageStore:
        """Decode ``paths`` to ``size`` = (H, W) in pixels, or find them decoded by an earlier call.

        The cache lies in ``cache_folder`` (default: ``files.image_cache()``), N·H·W·3 bytes under a
        name that depends on the files' relative names, sizes and times, the size and the resize rule; it
        may be deleted at any time. Two processes that want the same images decode them once.
        ``resident``: keep all images on the device; "auto" does so on an accelerator where they take at
        most ``RESIDENT_SHARE`` of its free memory.

        Raises ``InputError`` for a file that cannot be decoded (all of them named, nothing kept), a full
        disk, and a folder that is not writable.
        """
        height, width = size
        if min(height, width) < 1 or not len(paths):
            raise InputError(
                "an image store holds at least one image of at least one pixel",
                f"{len(paths)} images of {height} by {width}",
                "give paths and a size (height, width)",
            )
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            # The current device belongs to a thread: the prefetching one would take the first instead.
            device = torch.device("cuda", torch.cuda.current_device())
        folder = Path(cache_folder or files.image_cache())
        array_nhwc = _cached(list(map(Path, paths)), (height, width), folder, progress)
        if resident == "auto":
            resident = device.type != "cpu" and array_nhwc.nbytes <= RESIDENT_SHARE * _free_memory(device)
        return cls(array_nhwc, device, _copy_to(array_nhwc, device) if resident else None)

    def __len__(self) -> int:
        return len(self.array_nhwc)

    def batch(self, indices_b: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """The images at ``indices_b`` as uint8 (B, 3, H, W) on the device, channels last in memory.

        Raises ``IndexError`` for an index outside 0..N-1.
        """
        return self._arrive(self._depart(self._checked(indices_b)))

    def batches(
        self, index_batches: Iterable[Tensor | np.ndarray | Sequence[int]], *, ahead: int = 2
    ) -> Iterator[Tensor]:
        """Yield ``batch(indices)`` for every entry of ``index_batches``, assembled ``ahead`` of its use.

        A thread gathers the next batches, and on a GPU a stream of its own copies them, while the model
        computes. ``index_batches`` is therefore read up to ``ahead`` entries further than was yielded: give
        it a list, or tell a sampler how many of its batches were used (``state_dict(used=…)``).
        """
        # A new thread starts on the first GPU, and would open a context there in every process.
        on_gpu = self.device.type == "cuda"
        started = {"initializer": torch.cuda.set_device, "initargs": (self.device,)} if on_gpu else {}
        with ThreadPoolExecutor(1, "batches", **started) as thread:
            depart = partial(self._depart, stream=torch.cuda.Stream(self.device) if on_gpu else None)
            checked = map(self._checked, index_batches)
            yield from map(self._arrive, worked_ahead(thread, depart, checked, ahead + 1))

    def _checked(self, indices_b: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        indices_b = torch.as_tensor(indices_b, dtype=torch.int64, device="cpu")
        if indices_b.numel() and not 0 <= int(indices_b.min()) <= int(indices_b.max()) < len(self):
            raise IndexError(f"image indices lie in 0..{len(self) - 1}")
        return indices_b

    def _depart(
        self, indices_b: Tensor, stream: torch.cuda.Stream | None = None
    ) -> tuple[Tensor, torch.cuda.Event | None]:
        """Gather a batch (B, H, W, 3) and start its copy to the device; the event marks the copy's end.

        On a GPU the copy has ``stream`` for its own, so that it does not queue behind the model's kernels.

        With the images resident nothing is left to do ahead of time: the indices pass through.
        """
        if self.resident_nhwc is not None:
            return indices_b, None
        streamed = stream is not None
        shape = (len(indices_b), *self.array_nhwc.shape[1:])
        images_bhwc = torch.empty(shape, dtype=torch.uint8, pin_memory=streamed)
        # Indices were checked: mode "raise" would gather into a second buffer first.
        np.take(self.array_nhwc, indices_b.numpy(), axis=0, out=images_bhwc.numpy(), mode="clip")
        if not streamed:
            return images_bhwc.to(self.device), None
        copied = torch.cuda.Event()
        with torch.cuda.stream(stream):
            images_bhwc = images_bhwc.to(self.device, non_blocking=True)
            copied.record(stream)
        return images_bhwc, copied

    def _arrive(self, departed: tuple[Tensor, torch.cuda.Event | None]) -> Tensor:
        images_bhwc, event = departed
        if self.resident_nhwc is not None:
            images_bhwc = self.resident_nhwc.index_select(0, to_device(departed[0], self.device))
        elif event is not None:
            # The memory belongs to the copying stream: without the record it could be reused too early.
            torch.cuda.current_stream(self.device).wait_event(event)
            images_bhwc.record_stream(torch.cuda.current_stream(self.device))
        return images_bhwc.permute(0, 3, 1, 2)  # (B, 3, H, W) without a copy: channels last


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on the device, without waiting for what the device is computing.

    A plain ``.to`` of ordinary memory waits for the copy, and the copy for every kernel before it.
    """
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _cached(paths: list[Path], size: tuple[int, int], folder: Path, progress: bool) -> np.ndarray:
    digest = hashlib.sha256(f"{size[0]}x{size[1]} {RESIZE_RULE}\n".encode())
    for line in file_states(paths):
        digest.update(line.encode("utf-8", "surrogateescape"))
    file = folder / f"{digest.hexdigest()[:32]}.npy"
    shape = (len(paths), *size, 3)

    def build() -> np.ndarray:
        _decode_into(file, paths, size, progress)
        return np.load(file, mmap_mode="r")

    try:
        return files.built_once(file.with_suffix(".lock"), lambda: opened_array(file, shape, np.uint8), build)
    except OSError as error:
        needed = f"{np.prod(shape) / 2**20:.0f} MiB"
        raise InputError(
            f"the folder of decoded images can be written and has room for {needed}",
            f"{error.strerror or error}: {folder}",
            "free space there, or set REIDLIB_HOME to a folder on another disk that you may write to",
        ) from error


def _decode_into(file: Path, paths: list[Path], size: tuple[int, int], progress: bool) -> None:
    """Write the decoded images to ``file``, whole or not at all; the caller holds the lock."""
    shape = (len(paths), *size, 3)
    if shutil.disk_usage(file.parent).free < np.prod(shape):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # One name per cache entry: what a killed process left is overwritten by the next one with the lock.
    partial = file.with_suffix(".partial")
    try:
        # Written, not mapped: a full disk is then an error here and not a bus error in some later store.
        with partial.open("wb") as stream:
            stream.write(array_header(shape, "|u1"))
            for block in whole_blocks(paths, size, title="decoding", progress=progress):
                stream.write(np.stack(block).data)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0


def _copy_to(array_nhwc: np.ndarray, device: torch.device) -> Tensor:
    resident_nhwc = torch.empty(array_nhwc.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(array_nhwc), DECODED_AT_ONCE):
        # A copy of the block, because torch wants to be able to write to what it shares memory with.
        block = np.array(array_nhwc[start : start + DECODED_AT_ONCE])
        resident_nhwc[start : start + len(block)] = torch.from_numpy(block)
    return resident_nhwc
