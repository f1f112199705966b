"""Images of one size: decoded in blocks, with a cache on disk, and batches of them on the device."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reidlib import files
from reidlib.data.decoding import UnreadableImage, UnreadableImagesError, decode, file_states
from reidlib.errors import InputError
from reidlib.progress import progress_bar
from reidlib.threads import map_ahead

# Part of the cache's key, with the interpolation: change this text whenever a pixel of every image changes.
RESIZE_RULE = "Pillow {}, antialiased, aspect not kept"
# The rest of the free memory is for the model and its activations, which need it more.
RESIDENT_SHARE = 0.4
# Number of images in a block of ``decode_blocks``, which is halved, down to a batch, while it has more bytes.
IMAGES_PER_BLOCK, BLOCK_BYTES = 512, 2**26


def decode_blocks(
    paths: Sequence[Path],
    size: tuple[int, int],
    *,
    title: str,
    resize: str = "bilinear",
    progress: bool = True,
) -> Iterator[list[np.ndarray | UnreadableImage]]:
    """Decode image files in parallel threads.

    Args:
        paths: The files.
        size: Height and width (H, W) in pixels. Memory holds images of this size and few of their own size.
        title: Title of the progress bar.
        resize: Interpolation, a key of ``decoding.INTERPOLATIONS``.
        progress: Whether to show a progress bar.

    Yields:
        Blocks of up to ``IMAGES_PER_BLOCK`` images in the order of the files, each uint8 of shape (H, W, 3)
        or the reason why the file is unreadable.
    """
    with (
        ThreadPoolExecutor(min(16, os.cpu_count() or 1), "decode") as threads,
        progress_bar(total=len(paths), desc=title, unit="image", disable=not progress, leave=False) as bar,
    ):
        length = IMAGES_PER_BLOCK
        while length > 128 and 3 * length * size[0] * size[1] > BLOCK_BYTES:
            length //= 2
        for start in range(0, len(paths), length):
            block = paths[start : start + length]
            yield list(threads.map(partial(decode, size=size, resize=resize), block))
            bar.update(len(block))


def decode_complete_blocks(
    paths: Sequence[Path], size: tuple[int, int], *, title: str, resize: str, progress: bool
) -> Iterator[list[np.ndarray]]:
    """Decode files like ``decode_blocks``, and raise UnreadableImagesError with all unreadable files."""
    unreadable: list[UnreadableImage] = []
    for block in decode_blocks(paths, size, title=title, resize=resize, progress=progress):
        unreadable += [image for image in block if isinstance(image, UnreadableImage)]
        if not unreadable:
            yield [image for image in block if not isinstance(image, UnreadableImage)]
    if unreadable:
        raise UnreadableImagesError(unreadable)


def array_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the header of an array file (.npy), after which its rows are written one by one."""
    buffer = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def open_array(file: Path, shape: tuple[int | None, ...], dtype: type) -> np.ndarray | None:
    """Map an array file to memory; None if it is damaged or has another shape (None: any) or type."""
    try:
        array = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    fits = array.ndim == len(shape) and all(
        expected in (None, length) for expected, length in zip(shape, array.shape, strict=True)
    )
    return array if fits and array.dtype == dtype else None


@dataclass(frozen=True, eq=False)
class ImageStore:
    """N images of one size in one array, and batches of them on a device; created by ``open``.

    Attributes:
        array_nhwc: All images, uint8 (N, H, W, 3), as a read-only memory map, which may exceed the memory.
        device: Device of the batches.
        resident_nhwc: Copy of all images on the device; None if batches are copied to it one by one.
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
        resize: str = "bilinear",
        cache_folder: Path | None = None,
        device: torch.device | str = "cpu",
        resident: bool | Literal["auto"] = "auto",
        progress: bool = True,
    ) -> ImageStore:
        """Decode images to one size, or open the images that an earlier call decoded.

        The cache takes N·H·W·3 bytes. Its name depends on the files' relative names, sizes and times, on
        ``size``, the resize rule and the ``TREATMENTS`` that the files need. It may be deleted at any time.
        Several processes that open the same images decode them once.

        Args:
            paths: N image files.
            size: Height and width (H, W) in pixels.
            resize: Interpolation, a key of ``decoding.INTERPOLATIONS``.
            cache_folder: Folder of the cache; default: ``files.image_cache()``.
            device: Device of the batches.
            resident: Whether to keep all images on the device; "auto" does so on an accelerator if they take
                at most ``RESIDENT_SHARE`` of its free memory.
            progress: Whether to show a progress bar.

        Returns:
            The store.

        Raises:
            InputError: If there are no paths or pixels, files cannot be decoded (the message names all of
                them, and nothing is cached), the disk is full, or the cache folder is not writable.
        """
        height, width = size
        if min(height, width) < 1 or not len(paths):
            raise InputError(
                "an image store has at least one image of at least one pixel",
                f"{len(paths)} images of {height} by {width}",
                "give paths and a size (height, width)",
            )
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            # Each thread has its own current device; the prefetching thread would use the first one.
            device = torch.device("cuda", torch.cuda.current_device())
        folder = Path(cache_folder or files.image_cache())
        array_nhwc = _open_cache(list(map(Path, paths)), (height, width), resize, folder, progress)
        if resident == "auto":
            resident = device.type != "cpu" and array_nhwc.nbytes <= RESIDENT_SHARE * _free_memory(device)
        return cls(array_nhwc, device, _copy_to(array_nhwc, device) if resident else None)

    def __len__(self) -> int:
        return len(self.array_nhwc)

    def batch(self, indices_b: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        """Assemble one batch.

        Args:
            indices_b: Indices of the images, whole numbers in 0..N-1 of shape (B,).

        Returns:
            The images, uint8 (B, 3, H, W), on the device and channels last in memory.

        Raises:
            IndexError: If an index is outside 0..N-1.
        """
        return self._finish(self._start(self._check_indices(indices_b)))

    def batches(
        self, index_batches: Iterable[Tensor | np.ndarray | Sequence[int]], *, ahead: int = 2
    ) -> Generator[Tensor, None, None]:
        """Assemble batches in a thread ahead of their use, while the model computes.

        Args:
            index_batches: Indices of each batch, whole numbers of shape (B,). Up to ``ahead`` entries are
                read before their batches are used. Pass a list, or tell a sampler how many of its batches
                were used (``state_dict(num_used=…)``).
            ahead: Number of batches assembled ahead of their use.

        Yields:
            For each entry the images, uint8 (B, 3, H, W), on the device and channels last in memory.

        Raises:
            IndexError: If an index is outside 0..N-1.
        """
        # A new thread starts on the first GPU, and would create a context there in every process.
        on_gpu = self.device.type == "cuda"
        initializer = {"initializer": torch.cuda.set_device, "initargs": (self.device,)} if on_gpu else {}
        with ThreadPoolExecutor(1, "batches", **initializer) as thread:
            start = partial(self._start, stream=torch.cuda.Stream(self.device) if on_gpu else None)
            batches = map(self._check_indices, index_batches)
            yield from map(self._finish, map_ahead(thread, start, batches, ahead + 1))

    def _check_indices(self, indices_b: Tensor | np.ndarray | Sequence[int]) -> Tensor:
        indices_b = torch.as_tensor(indices_b, dtype=torch.int64, device="cpu")
        if indices_b.numel() and not 0 <= int(indices_b.min()) <= int(indices_b.max()) < len(self):
            raise IndexError(f"image indices are in 0..{len(self) - 1}")
        return indices_b

    def _start(
        self, indices_b: Tensor, stream: torch.cuda.Stream | None = None
    ) -> tuple[Tensor, torch.cuda.Event | None]:
        """Gather a batch (B, H, W, 3) and start its copy to the device; the event marks the copy's end."""
        # On a GPU, the copy uses its own ``stream``, so that it does not queue behind the model's kernels. If
        # the images are resident, only the indices are returned.
        if self.resident_nhwc is not None:
            return indices_b, None
        shape = (len(indices_b), *self.array_nhwc.shape[1:])
        images_bhwc = torch.empty(shape, dtype=torch.uint8, pin_memory=stream is not None)
        # Mode "raise" would gather into a second buffer first; the indices are checked already.
        np.take(self.array_nhwc, indices_b.numpy(), axis=0, out=images_bhwc.numpy(), mode="clip")
        if stream is None:
            return images_bhwc.to(self.device), None
        copy_end = torch.cuda.Event()
        with torch.cuda.stream(stream):
            images_bhwc = images_bhwc.to(self.device, non_blocking=True)
            copy_end.record(stream)
        return images_bhwc, copy_end

    def _finish(self, started: tuple[Tensor, torch.cuda.Event | None]) -> Tensor:
        images_bhwc, event = started
        if self.resident_nhwc is not None:
            images_bhwc = self.resident_nhwc.index_select(0, to_device(started[0], self.device))
        elif event is not None:
            # The memory belongs to the copying stream; without this record it could be reused too early.
            torch.cuda.current_stream(self.device).wait_event(event)
            images_bhwc.record_stream(torch.cuda.current_stream(self.device))
        return images_bhwc.permute(0, 3, 1, 2)  # (B, 3, H, W) without a copy: channels last


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small CPU tensor to the device without waiting for the device's kernels."""
    # A plain ``.to`` from ordinary memory waits for the copy, and the copy waits for every kernel before it.
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _open_cache(
    paths: list[Path], size: tuple[int, int], resize: str, folder: Path, progress: bool
) -> np.ndarray:
    digest = hashlib.sha256(f"{size[0]}x{size[1]} {RESIZE_RULE.format(resize)}\n".encode())
    for line in file_states(paths):
        digest.update(line.encode("utf-8", "surrogateescape"))
    file = folder / f"{digest.hexdigest()[:32]}.npy"
    shape = (len(paths), *size, 3)

    def build() -> np.ndarray:
        _decode_into(file, paths, size, resize, progress)
        return np.load(file, mmap_mode="r")

    try:
        return files.build_once(file.with_suffix(".lock"), lambda: open_array(file, shape, np.uint8), build)
    except OSError as error:
        needed = f"{np.prod(shape) / 2**20:.0f} MiB"
        raise InputError(
            f"the folder of decoded images is writable and has room for {needed}",
            f"{error.strerror or error}: {folder}",
            "free space there, or set REIDLIB_HOME to a writable folder on another disk",
        ) from error


def _decode_into(file: Path, paths: list[Path], size: tuple[int, int], resize: str, progress: bool) -> None:
    """Write the decoded images to ``file`` atomically; the caller holds the lock."""
    shape = (len(paths), *size, 3)
    if shutil.disk_usage(file.parent).free < np.prod(shape):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # One name for each cache entry: the next process with the lock overwrites the file of a killed one.
    partial = file.with_suffix(".partial")
    try:
        # Written, not mapped, so that a full disk is an error here and not a bus error at a later store.
        with partial.open("wb") as stream:
            stream.write(array_header(shape, "|u1"))
            blocks = decode_complete_blocks(paths, size, title="decoding", resize=resize, progress=progress)
            for block in blocks:
                stream.writelines(image.data for image in block)
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
    for start in range(0, len(array_nhwc), IMAGES_PER_BLOCK):
        # The block is copied, because torch requires writable memory to share it.
        block = np.array(array_nhwc[start : start + IMAGES_PER_BLOCK])
        resident_nhwc[start : start + len(block)] = torch.from_numpy(block)
    return resident_nhwc
