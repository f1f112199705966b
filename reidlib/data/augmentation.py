"""Augmentation of whole batches on the device, with different random numbers for each image."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from reidlib.data.images import to_device

# ImageNet's mean and standard deviation of each RGB channel, in 0..1, which torchvision's weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Random erasing (Zhong et al. 2017): area as a share of the image, aspect ratio as height over width. The
# numbers are those of Pyramid's released code.
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)  # read there, too


class ErasingRule(NamedTuple):
    """How the erased rectangle is drawn: is the aspect ratio uniform or its logarithm, and how many tries?"""

    uniform_aspect: bool
    tries: int


# The first rectangle that fits inside is erased, or none: torchvision's RandomErasing, and Zhong's own code.
ERASING_RULES = {"torchvision": ErasingRule(False, 10), "zhong": ErasingRule(True, 100)}


class Variations(NamedTuple):
    """The random variations of B images.

    Attributes:
        flipped_b: Whether each image is mirrored, bool (B,).
        shift_b2: Shifts down and right in pixels, int64 (B, 2).
        erased_b: Whether a rectangle of each image is erased, bool (B,).
        box_b4: Top, left, bottom and right of the erased rectangle in pixels, int64 (B, 4).
        colour_b3: Factors of brightness, contrast and saturation, around 1, float32 (B, 3).
    """

    flipped_b: Tensor
    shift_b2: Tensor
    erased_b: Tensor
    box_b4: Tensor
    colour_b3: Tensor


def draw_variations(
    count: int,
    size: tuple[int, int],
    generator: torch.Generator,
    *,
    flip: float = 0.0,
    pad: int = 0,
    erase: float = 0.0,
    colour_jitter: float = 0.0,
    erasing: str = "torchvision",
) -> Variations:
    """Draw the random variations of a batch of images.

    Every image takes the same number of random numbers, so that turning on one variation does not change the
    draws of the others.

    Args:
        count: Number of images, B.
        size: Height and width (H, W) of the images in pixels.
        generator: Generator on the CPU.
        flip: Probability that an image is mirrored.
        pad: Largest shift in pixels, in each direction.
        erase: Probability that a rectangle is erased.
        colour_jitter: Largest deviation of a colour factor from 1.
        erasing: Rule of the erased rectangle, a key of ``ERASING_RULES``.

    Returns:
        The variations of the B images.
    """
    height, width = size
    rule = ERASING_RULES[erasing]
    uniform = torch.rand((count, 9 + 2 * rule.tries), generator=generator, dtype=torch.float64)
    flip_b, erase_b, shift_b2, place_b2, colour_b3, area_bt, aspect_bt = uniform.split(
        [1, 1, 2, 2, 3, rule.tries, rule.tries], dim=1
    )
    low, high = ERASED_AREA
    area_bt = (low + (high - low) * area_bt) * height * width
    low, high = ERASED_ASPECT if rule.uniform_aspect else map(math.log, ERASED_ASPECT)
    aspect_bt = low + (high - low) * aspect_bt
    if not rule.uniform_aspect:
        aspect_bt = torch.exp(aspect_bt)
    high_bt = (area_bt * aspect_bt).sqrt().round().long()
    wide_bt = (area_bt / aspect_bt).sqrt().round().long()
    fits_bt = (high_bt < height) & (wide_bt < width)
    first_b1 = fits_bt.int().argmax(1, keepdim=True)
    edges_b2 = torch.cat([high_bt.gather(1, first_b1), wide_bt.gather(1, first_b1)], dim=1)
    corner_b2 = (place_b2 * (torch.tensor(size) - edges_b2 + 1)).floor().long()
    return Variations(
        flipped_b=flip_b[:, 0] < flip,
        shift_b2=(shift_b2 * (2 * pad + 1)).floor().long() - pad,
        erased_b=(erase_b[:, 0] < erase) & fits_bt.any(1),
        box_b4=torch.cat([corner_b2, corner_b2 + edges_b2], dim=1),
        colour_b3=(1 + colour_jitter * (2 * colour_b3 - 1)).float(),
    )


def augment(
    images_bchw: Tensor, generator: torch.Generator, *, share: tuple[int, int] = (0, 1), **strengths: Any
) -> Tensor:
    """Vary a batch of images at random, and normalise it.

    Each image is shifted, mirrored, jittered in brightness, contrast and saturation (in this order, whereas
    torchvision draws an order), normalised, and a rectangle is set to 0, the mean colour.

    Args:
        images_bchw: Images, uint8 (B, 3, H, W).
        generator: Generator on the CPU, so that the same state gives the same variations on every device.
        share: (rank, processes), if these images are one process's share of a larger batch. Numbers are drawn
            for the whole batch, so that an image's variation does not depend on the number of processes.
        **strengths: ``flip``, ``pad``, ``erase``, ``colour_jitter`` (0 turns one off) and ``erasing``; see
            ``draw_variations``.

    Returns:
        The images, float32 (B, 3, H, W), normalised, channels last in memory.
    """
    count, _, height, width = images_bchw.shape
    device = images_bchw.device
    rank, processes = share
    draws = draw_variations(processes * count, (height, width), generator, **strengths)
    draws = Variations(*(numbers[rank * count : (rank + 1) * count] for numbers in draws))
    images_bhwc = images_bchw.permute(0, 2, 3, 1)
    if draws.shift_b2.any() or draws.flipped_b.any():
        images_bhwc = _move(
            images_bhwc, to_device(draws.shift_b2, device), to_device(draws.flipped_b, device)
        )
    if (draws.colour_b3 != 1).any():
        images_bchw = _jitter(images_bhwc.permute(0, 3, 1, 2), to_device(draws.colour_b3, device))
        images_bhwc = images_bchw.permute(0, 2, 3, 1)
    normalised_bchw = normalise_images(images_bhwc.permute(0, 3, 1, 2))
    if draws.erased_b.any():
        top, left, bottom, right = to_device(draws.box_b4, device)[:, :, None].unbind(1)  # each (B, 1)
        rows_h, columns_w = torch.arange(height, device=device), torch.arange(width, device=device)
        rows_bh = (rows_h >= top) & (rows_h < bottom) & to_device(draws.erased_b, device)[:, None]
        columns_bw = (columns_w >= left) & (columns_w < right)
        inside_bhw = rows_bh[:, :, None] & columns_bw[:, None, :]
        normalised_bchw.masked_fill_(inside_bhw[:, None], 0.0)
    return normalised_bchw


def normalise_images(images_bchw: Tensor) -> Tensor:
    """Normalise images by ImageNet's mean and standard deviation.

    Args:
        images_bchw: Images (B, 3, H, W), uint8 or float in 0..255.

    Returns:
        The images, float32 (B, 3, H, W), with mean 0 and standard deviation 1 over ImageNet.
    """
    # Equal to ``v2.functional.normalize`` after ``to_dtype(scale=True)``, which takes 25 times as long on
    # channels-last images, because an innermost dimension of 3 is too short for vector instructions. Here a
    # row of pixels and channels is one dimension.
    images_bhwc = images_bchw.permute(0, 2, 3, 1)
    batch, height, width, channels = images_bhwc.shape
    scale, offset = _scale_and_offset(width, images_bchw.device)
    rows = images_bhwc.reshape(batch, height, width * channels).float()
    return torch.addcmul(offset, rows, scale).view(batch, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=8)
def _scale_and_offset(width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the factors and offsets of a row of pixels, each (width·3,)."""
    mean_c, std_c = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return (1 / (255 * std_c)).repeat(width).to(device), (-mean_c / std_c).repeat(width).to(device)


def _move(images_bhwc: Tensor, shift_b2: Tensor, flipped_b: Tensor) -> Tensor:
    """Shift each image by whole pixels, repeat its border, then mirror some images."""
    batch, height, width, channels = images_bhwc.shape
    device = images_bhwc.device
    columns_bw = torch.arange(width, device=device).expand(batch, width)
    columns_bw = torch.where(flipped_b[:, None], columns_bw.flip(1), columns_bw)
    columns_bw = (columns_bw - shift_b2[:, 1:]).clamp(0, width - 1)
    rows_bh = (torch.arange(height, device=device) - shift_b2[:, :1]).clamp(0, height - 1)
    rows_bh = rows_bh + height * torch.arange(batch, device=device)[:, None]
    pixels_bhw = rows_bh[:, :, None] * width + columns_bw[:, None, :]
    # One index for each pixel is five times as fast on a CPU as indices of image, row and column.
    moved = images_bhwc.reshape(-1, channels).index_select(0, pixels_bhw.flatten())
    return moved.view(images_bhwc.shape)


def _jitter(images_bchw: Tensor, colour_b3: Tensor) -> Tensor:
    """Change brightness, contrast and saturation by a factor for each image; float (B, 3, H, W) in 0..255."""
    from torchvision.transforms.v2 import functional  # takes as long to import as torch

    # The rules of ``v2.functional.adjust_brightness``, ``adjust_contrast`` and ``adjust_saturation``, which
    # take one factor for a whole batch.
    brightness, contrast, saturation = colour_b3[:, :, None, None, None].unbind(1)  # each (B, 1, 1, 1)
    images_bchw = (images_bchw.float() * brightness).clamp_(0, 255)
    grey_b111 = functional.rgb_to_grayscale(images_bchw).mean((1, 2, 3), keepdim=True)
    images_bchw = torch.lerp(grey_b111, images_bchw, contrast).clamp_(0, 255)
    return torch.lerp(functional.rgb_to_grayscale(images_bchw), images_bchw, saturation).clamp_(0, 255)
