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
