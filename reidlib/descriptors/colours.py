"""Colours as MATLAB calculates them, in float64 and its order of operations, which decides ties of bins."""

from __future__ import annotations

import torch
from torch import Tensor


def gray(images_bchw: Tensor) -> Tensor:
    """Return the gray levels (B, H, W) of RGB levels, rounded (``rgb2gray`` of uint8)."""
    red, green, blue = images_bchw.to(torch.float64).unbind(1)
    # The first row of the inverse of NTSC's matrix.
    return (0.298936021293776 * red + 0.587043074451121 * green + 0.114020904255103 * blue + 0.5).floor()


def hsv(images_bchw: Tensor) -> Tensor:
    """Return hue, saturation and value, each from 0 to 1, of RGB levels from 0 to 255 (``rgb2hsv``)."""
    levels = images_bchw.to(torch.float64) / 255
    red, green, blue = levels.unbind(1)
    value, spread = levels.amax(1), levels.amax(1) - levels.amin(1)
    gray_pixels = spread == 0
    safe = torch.where(gray_pixels, 1.0, spread)
    # Where several channels are greatest, the last one decides.
    hue = torch.where(green == value, 2 + (blue - red) / safe, (green - blue) / safe)
    hue = torch.where(blue == value, 4 + (red - green) / safe, hue) / 6
    hue = torch.where(hue < 0, hue + 1, hue).masked_fill_(gray_pixels, 0)
    saturation = spread / torch.where(value == 0, 1.0, value)
    return torch.stack((hue, saturation, value), 1)


def luma(images_bchw: Tensor) -> Tensor:
    """Return the luma (B, H, W) from 16 to 235 of RGB levels, rounded (``rgb2ycbcr`` of uint8)."""
    red, green, blue = images_bchw.to(torch.float64).unbind(1)
    return (16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 0.5).floor()


def lab(images_bchw: Tensor) -> Tensor:
    """Return L*, a* and b* of sRGB levels (CIE 1976, white point D65)."""
    levels = torch.arange(256, dtype=torch.float64, device=images_bchw.device) / 255
    linear = torch.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    red, green, blue = linear[images_bchw.to(torch.int64)].unbind(1)
    ratios = torch.stack(
        (
            (0.4124564 * red + 0.3575761 * green + 0.1804375 * blue) / 0.95047,
            0.2126729 * red + 0.7151522 * green + 0.0721750 * blue,
            (0.0193339 * red + 0.1191920 * green + 0.9503041 * blue) / 1.08883,
        )
    )
    edge = 6 / 29
    x, y, z = torch.where(ratios > edge**3, ratios ** (1 / 3), ratios / (3 * edge**2) + 4 / 29)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), 1)
