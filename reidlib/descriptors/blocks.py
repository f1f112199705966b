"""Images in, descriptors out: checks, resizing as MATLAB does, and blocks of images in parallel threads."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reidlib.errors import InputError, shown
from reidlib.progress import progress_bar
from reidlib.threads import parallel_map

logger = logging.getLogger("reidlib")
# Bytes of a block's largest intermediate tensor: what fits a core's cache, or keeps a GPU at work.
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**29}


def describe(
    images: np.ndarray | Tensor,
    describe_block: Callable[[Tensor], Tensor],
    *,
    name: str,
    length: int,
    size: tuple[int, int],
    image_bytes: int,
    device: torch.device | str | None,
    progress: bool,
) -> np.ndarray:
    """Return float32 features (N, length) of images (N, H, W, 3), resized and described block by block."""
    own_size = (images.shape[1], images.shape[2])
    if own_size != size and len(images):
        logger.warning("%s: images of %d×%d pixels are resized to %d×%d", name, *own_size, *size)
    device = _device(device or (images.device if isinstance(images, Tensor) else "cpu"))
    features = np.empty((len(images), length), np.float32)
    step = max(1, BLOCK_BYTES["cpu" if device.type == "cpu" else "cuda"] // image_bytes)
    starts = range(0, len(images), step)

    def work(start: int) -> int:
        with torch.inference_mode():
            part = images[start : start + step]
            block = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
            block_bchw = block.to(device).permute(0, 3, 1, 2)
            described = describe_block(resize(block_bchw, size))
            features[start : start + step] = described.to(torch.float32).cpu().numpy()
        return len(part)

    with (
        progress_bar(total=len(images), desc=name, unit="image", disable=not progress, leave=False) as bar,
        parallel_map(device) as parallel,
    ):
        for count in parallel(work, starts):
            bar.update(count)
    return features


def _device(device: torch.device | str) -> torch.device:
    """Return a device of this machine, or refuse it."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:  # of a build without CUDA, an assertion
        rule = "the device is one of this machine's, such as cpu"
        raise InputError(
            rule, shown(str(device)), "leave device out, or install a driver and torch for it"
        ) from error


def check_images(images: object, name: str) -> tuple[int, int]:
    """Refuse anything but uint8 images (N, H, W, 3), and return their height and width."""
    if not isinstance(images, np.ndarray | Tensor):
        value, mend = type(images).__name__, "stack the images in one array"
    elif images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:]:
        value, mend = f"shape {tuple(images.shape)}", "put the channels last, and one image as images[None]"
    elif images.dtype not in (np.uint8, torch.uint8):
        value, mend = f"type {images.dtype}", "give the levels of the file, 0 to 255, as uint8"
    else:
        return images.shape[1], images.shape[2]
    raise InputError(f"{name} takes RGB images as an array or tensor (N, H, W, 3) of uint8", value, mend)


def check_size(size: object, least: tuple[int, int], name: str) -> tuple[int, int]:
    """Return a size that a descriptor is defined for, or refuse it."""
    rule = f"{name} is defined for a size (H, W) of at least {least[0]}×{least[1]} pixels"
    if (
        not isinstance(size, tuple | list)
        or len(size) != 2
        or not all(isinstance(side, int) for side in size)
    ):
        raise InputError(rule, shown(size), f"write two whole numbers, such as {least}")
    if size[0] < least[0] or size[1] < least[1]:
        raise InputError(rule, shown(size), "name a larger size")
    return size[0], size[1]


def resize(images_bchw: Tensor, size: tuple[int, int]) -> Tensor:
    """Return uint8 images resized by cubic interpolation, as by MATLAB's ``imresize`` as recalled."""
    # The axis that shrinks most comes first, levels are rounded after each axis, and borders are mirrored.
    scales = [size[axis] / images_bchw.shape[2 + axis] for axis in (0, 1)]
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        if scales[axis] != 1:
            weights = _cubic_weights(images_bchw.shape[2 + axis], size[axis]).to(images_bchw.device)
            levels = images_bchw.to(torch.float64)
            levels = weights @ levels if axis == 0 else levels @ weights.T
            images_bchw = (levels + 0.5).floor().clamp(0, 255).to(torch.uint8)
    return images_bchw


@lru_cache(maxsize=16)
def _cubic_weights(length: int, new_length: int) -> Tensor:
    """Return the weights (new, old) of the pixels of one axis."""
    scale = new_length / length
    stretch = min(scale, 1.0)
    centres = (torch.arange(new_length, dtype=torch.float64) + 0.5) / scale - 0.5
    radius = int(np.ceil(2 / stretch)) + 1
    sources = centres.floor().to(torch.int64)[:, None] + torch.arange(-radius, radius + 1)
    distances = (sources - centres[:, None]).abs() * stretch
    near = 1.5 * distances**3 - 2.5 * distances**2 + 1
    far = -0.5 * distances**3 + 2.5 * distances**2 - 4 * distances + 2
    values = torch.where(distances <= 1, near, torch.where(distances <= 2, far, 0.0))
    mirrored = sources.remainder(2 * length)
    mirrored = torch.minimum(mirrored, 2 * length - 1 - mirrored)
    weights = torch.zeros(new_length, length, dtype=torch.float64)
    return weights.scatter_add_(1, mirrored, values / values.sum(1, keepdim=True))
