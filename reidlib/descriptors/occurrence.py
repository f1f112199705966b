"""LOMO: the local maximal occurrence of colours and textures (Liao et al. 2015)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from reidlib.descriptors import colours
from reidlib.descriptors.blocks import check_images, check_size, describe
from reidlib.descriptors.retinex import multi_scale_retinex
from reidlib.values import read_value

# The authors' released code: its comment calls the defaults good for both sizes.
SIZES = ((128, 48), (160, 60))
LEAST = (44, 44)  # on the third scale, the neighbours at distance 5 ask for 11 pixels
LEVELS, CELL, SCALES = 8, 5, 3  # a window is 2×2 cells
RADII, THRESHOLD = (3, 5), 0.3
_COLOURS, _PATTERNS = LEVELS**3, 3**4


def lomo(
    images: np.ndarray | Tensor,
    *,
    retinex: bool = True,
    size: tuple[int, int] | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Compute LOMO descriptors: local maximal occurrence of joint HSV colours and of SILTP textures.

    Windows of 10×10 pixels, 5 apart, count colours (8×8×8 bins) and patterns (3⁴, neighbours at distances 3
    and 5, threshold 0.3) on three scales. Of all windows of a row, each bin keeps its greatest count: the
    descriptor says how high on the body something is, not how far left or right. Each of the three parts is
    the logarithm of 1 + count, scaled to unit length, so a descriptor's length is √3. Without Retinex the
    numbers are those of the authors' released code (1.0) within float32, checked in GNU Octave.

    Args:
        images: RGB images (N, H, W, 3), uint8: an array, a memory map or a tensor.
        retinex: Whether colours are those of the image after ``retinex.multi_scale_retinex``, a variant of
            our own: the authors withheld theirs. Textures are always those of the image itself.
        size: Height and width in pixels at which images are described, at least 44×44. None means their own
            size if it is 128×48 or 160×60, the two that the authors' released code recommends; otherwise
            128×48. Resizing (cubic) is reported to ``logging.getLogger("reidlib")``.
        device: Where to compute; None means the images' device. Memory beyond images and features: a few
            MiB for each thread, half a GiB on a GPU.
        progress: Whether to show a progress bar.

    Returns:
        Features (N, D), float32, not negative: D is 26,960 at 128×48 and 35,722 at 160×60. The order is
        part (colours, distance 3, distance 5), scale, row of windows, bin. An image's descriptor does not
        depend on the others.

    Raises:
        InputError: If the images are no such array, the size is too small, or this machine lacks the device.

    Source: Liao, Hu, Zhu and Li, "Person re-identification by local maximal occurrence representation and
    metric learning", CVPR 2015; details read in the authors' released code.
    """
    own_size = check_images(images, "LOMO")
    if size is None:
        size = own_size if own_size in SIZES else SIZES[0]
    size, retinex = check_size(size, LEAST, "LOMO"), read_value("retinex", retinex, bool)
    cells = [(size[0] >> scale) // CELL - 1 for scale in range(SCALES)]
    return describe(
        images,
        lambda block_bchw: _describe(block_bchw, retinex),
        name="LOMO",
        length=sum(cells) * (_COLOURS + len(RADII) * _PATTERNS),
        size=size,
        image_bytes=8 * 3 * size[0] * size[1],
        device=device,
        progress=progress,
    )


def _describe(images_bchw: Tensor, retinex: bool) -> Tensor:
    """Return the descriptors of images of the right size."""
    adapted_bchw = multi_scale_retinex(images_bchw) if retinex else images_bchw
    levels_bchw = (colours.hsv(adapted_bchw) * LEVELS).to(torch.int64).clamp_(max=LEVELS - 1)
    gray_bhw = colours.gray(images_bchw) / 255
    counts: list[list[Tensor]] = [[], [], []]
    for scale in range(SCALES):
        if scale:  # bins are averaged, not colours
            levels_bchw = _square_sums(levels_bchw) // 4
            gray_bhw = _square_sums(gray_bhw) / 4
        hue, saturation, value = levels_bchw.unbind(1)
        counts[0].append(_maximal_counts((value * LEVELS + saturation) * LEVELS + hue, _COLOURS))
        for part, radius in zip(counts[1:], RADII, strict=True):
            part.append(_maximal_counts(_ternary_patterns(gray_bhw, radius), _PATTERNS))
    parts = [torch.cat(part, 1).log1p_() for part in counts]
    return torch.cat([part / part.norm(dim=1, keepdim=True) for part in parts], 1)


def _square_sums(maps: Tensor) -> Tensor:
    """Return the sums of the four pixels of each 2×2 square, without an odd last row or column."""
    maps = maps[..., : maps.shape[-2] // 2 * 2, : maps.shape[-1] // 2 * 2]
    upper, lower = maps[..., ::2, :], maps[..., 1::2, :]
    return upper[..., ::2] + lower[..., ::2] + upper[..., 1::2] + lower[..., 1::2]  # MATLAB's order


def _ternary_patterns(gray_bhw: Tensor, radius: int) -> Tensor:
    """Return SILTP codes: right, up, left, down at a distance: similar (0), darker (1), lighter (2)."""
    height, width = gray_bhw.shape[1:]
    rows, columns = torch.arange(height), torch.arange(width)
    lower, upper = (1 - THRESHOLD) * gray_bhw, (1 + THRESHOLD) * gray_bhw
    codes = torch.zeros_like(gray_bhw, dtype=torch.int64)
    for place, (down, right) in enumerate(((0, radius), (-radius, 0), (0, -radius), (radius, 0))):
        near_rows = (rows + down).clamp(0, height - 1).to(gray_bhw.device)
        near_columns = (columns + right).clamp(0, width - 1).to(gray_bhw.device)
        near = gray_bhw[:, near_rows] if down else gray_bhw[:, :, near_columns]
        codes += 3**place * ((near < lower).to(torch.int64) + 2 * (near > upper))
    return codes


def _maximal_counts(codes_bhw: Tensor, num_codes: int) -> Tensor:
    """Return for each row of windows how often each code occurs in the window that has most of it."""
    count, height, width = codes_bhw.shape
    rows, columns = height // CELL, width // CELL
    cells = torch.arange(rows)[:, None] * columns + torch.arange(columns)
    cells_hw = cells.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1).to(codes_bhw.device)
    codes_bhw = codes_bhw[:, : rows * CELL, : columns * CELL] + num_codes * cells_hw
    counts = torch.zeros(count, rows * columns * num_codes, device=codes_bhw.device)
    codes_bp = codes_bhw.flatten(1)
    counts.scatter_add_(1, codes_bp, torch.ones((), device=codes_bhw.device).expand_as(codes_bp))
    counts = counts.reshape(count, rows, columns, num_codes)
    counts = counts[:, :-1] + counts[:, 1:]
    return (counts[:, :, :-1] + counts[:, :, 1:]).amax(2).flatten(1)
