"""GOG: Gaussians of the Gaussians of patches (Matsukawa et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from reidlib.descriptors import colours
from reidlib.descriptors.blocks import check_images, describe
from reidlib.errors import InputError, shown

SIZE = (128, 48)
COLOUR_SPACES = {"RGB": 3, "Lab": 3, "HSV": 3, "nRnG": 2}  # with the number of channels that are used
STEP, RADIUS = 2, 2  # patches of 5×5 pixels
STRIPS, ORIENTATIONS = 7, 4
RIDGE, LEAST_TRACE = 0.001, 0.01
_ROOT = 1.4142  # as in the authors' code


def gog(
    images: np.ndarray | Tensor,
    *,
    spaces: Sequence[str] = tuple(COLOUR_SPACES),
    device: torch.device | str | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Compute GOG descriptors: seven strips of the body as Gaussians of the Gaussians of their patches.

    A pixel has its height, its gradient in four orientations and its colour. A 5×5 patch every 2 pixels is a
    Gaussian of these, a strip (a quarter of the height, half overlapping the next) one of its patches, which
    weigh more in the middle. A Gaussian of mean μ and covariance S is the matrix |S|^(−1/(d+1)) ·
    [[S + μμᵀ, μ], [μᵀ, 1]], and its vector the upper half of that matrix's logarithm.

    Distances and XQDA want ``normalise_gog`` first.

    Args:
        images: RGB images (N, H, W, 3), uint8: an array, a memory map or a tensor. Images of another size
            than 128×48 are resized to it (cubic), as in the authors' released code, which is reported to
            ``logging.getLogger("reidlib")``.
        spaces: Colour spaces, some of "RGB", "Lab", "HSV", "nRnG" (red and green as shares of the sum). The
            default is the fusion of all four.
        device: Where to compute; None means the images' device. Memory beyond images and features: a few
            dozen MiB for each thread, two GiB on a GPU.
        progress: Whether to show a progress bar.

    Returns:
        Features (N, D), float32: 7,567 numbers for each colour space of three channels and 4,921 for nRnG, in
        the order of ``spaces``; D is 27,622 for all four. An image's descriptor does not depend on others.

    Raises:
        InputError: If the images are no such array, a colour space is unknown or named twice, or this machine
            lacks the device.

    Source: Matsukawa, Okabe, Suzuki and Sato, "Hierarchical Gaussian descriptor for person
    re-identification", CVPR 2016; details read in the authors' released code (1.01).
    """
    check_images(images, "GOG")
    lengths = space_lengths(spaces)
    return describe(
        images,
        lambda block_bchw: _describe(block_bchw, tuple(lengths)),
        name="GOG",
        length=sum(lengths.values()),
        size=SIZE,
        image_bytes=8 * 44 * SIZE[0] * SIZE[1],
        device=device,
        progress=progress,
    )


def normalise_gog(
    features: np.ndarray | Tensor,
    training: np.ndarray | Tensor,
    *,
    spaces: Sequence[str] = tuple(COLOUR_SPACES),
) -> np.ndarray:
    """Centre GOG features on the training images' mean and scale each colour space's part to unit length.

    Args:
        features: GOG features (N, D) of ``spaces``, floats.
        training: Those of the training images (M, D), or their mean (D,).
        spaces: The colour spaces of both, in order.

    Returns:
        Features (N, D), float32. A part that equals the mean is zero.

    Raises:
        InputError: If the features are no floats, have another length than those of the colour spaces, or are
            not finite.
    """
    lengths = space_lengths(spaces)
    total = sum(lengths.values())
    features, training = (
        each.detach().cpu().double().numpy() if isinstance(each, Tensor) else each
        for each in (features, training)
    )
    for name, given in (("features", features), ("training features", training)):
        if not isinstance(given, np.ndarray) or given.dtype.kind != "f":
            value = str(given.dtype) if isinstance(given, np.ndarray) else type(given).__name__
            raise InputError(f"GOG {name} are an array of floats", value, "pass what descriptors.gog returns")
        if given.ndim not in (1, 2) or given.shape[-1] != total or not len(given):
            rule = f"GOG {name} of {', '.join(lengths)} have {total:,} numbers an image"
            raise InputError(rule, f"shape {given.shape}", "name their colour spaces with spaces=")
        if not np.isfinite(given).all():
            raise InputError(f"GOG {name} are finite", "NaN or infinity", "compute them with descriptors.gog")
    mean = training if training.ndim == 1 else training.mean(0, dtype=np.float64)
    centred = (features - mean).astype(np.float32)
    for end, length in zip(np.cumsum([*lengths.values()]), lengths.values(), strict=True):
        part = centred[..., end - length : end]
        norms = np.linalg.norm(part, axis=-1, keepdims=True)
        part /= np.where(norms == 0, 1, norms)
    return centred


def space_lengths(spaces: Sequence[str]) -> dict[str, int]:
    """Return colour spaces with the length of their parts; an unknown or repeated one is refused."""
    names = [spaces] if isinstance(spaces, str) else list(spaces) if isinstance(spaces, Sequence) else []
    if (
        not names
        or not all(isinstance(name, str) for name in names)
        or len({*names}) < len(names)
        or not {*names} <= COLOUR_SPACES.keys()
    ):
        rule = f"spaces are some of {', '.join(COLOUR_SPACES)}, each once"
        raise InputError(rule, shown(spaces), "name some of these")
    sizes = {name: _vector_length(1 + ORIENTATIONS + COLOUR_SPACES[name]) for name in names}
    return {name: STRIPS * _vector_length(size) for name, size in sizes.items()}


def _vector_length(dimension: int) -> int:
    """Return the length of the vector of a Gaussian."""
    return (dimension + 1) * (dimension + 2) // 2


def _describe(images_bchw: Tensor, spaces: Sequence[str]) -> Tensor:
    """Return the descriptors of images of the right size."""
    count, _, height, width = images_bchw.shape
    places = torch.arange(1, height + 1, dtype=torch.float64, device=images_bchw.device) / height
    place_1bhw = places[:, None].expand(1, count, height, width)
    gradients_cbhw = _gradients(images_bchw).transpose(0, 1)
    shared_cbhw = torch.cat((torch.ones_like(place_1bhw), place_1bhw, gradients_cbhw))
    shared_sums = _patch_sums(shared_cbhw, 0)
    parts = []
    for space in spaces:
        pixels_cbhw = torch.cat((shared_cbhw, _colours(images_bchw, space).transpose(0, 1)))
        sums = torch.cat((shared_sums, _patch_sums(pixels_cbhw, len(shared_cbhw))))
        strips_bsm = _strip_vectors(_patch_vectors(sums))
        parts.append(strips_bsm.transpose(1, 2).flatten(1))  # strips vary fastest
    return torch.cat(parts, 1)


def _colours(images_bchw: Tensor, space: str) -> Tensor:
    """Return the channels of a colour space, each about from 0 to 1."""
    levels_bchw = images_bchw.to(torch.float64)
    if space == "RGB":
        return levels_bchw / 255
    if space == "Lab":
        lightness, red, yellow = colours.lab(images_bchw).unbind(1)
        return torch.stack((lightness, red + 50, yellow + 50), 1) / 100
    if space == "HSV":
        return colours.hsv(images_bchw)
    return levels_bchw[:, :2] / levels_bchw.sum(1, keepdim=True).clamp_(min=1)


def _gradients(images_bchw: Tensor) -> Tensor:
    """Return gradient magnitudes (B, 4, H, W), each shared by the two nearest of four orientations."""
    luma_bhw = (colours.luma(images_bchw) - 16) / 235
    padded = torch.nn.functional.pad(luma_bhw, (1, 1, 1, 1))
    across, up = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, :-2, 1:-1] - padded[:, 2:, 1:-1]
    turns = (torch.atan2(across, up) / math.pi + 1) / 2 * ORIENTATIONS
    lower = turns.floor()
    share, magnitude = turns - lower, (across**2 + up**2).sqrt()
    lower = lower.to(torch.int64) % ORIENTATIONS
    gradients = magnitude.new_zeros(len(magnitude), ORIENTATIONS, *magnitude.shape[1:])
    gradients.scatter_(1, lower[:, None], ((1 - share) * magnitude)[:, None])
    return gradients.scatter_(1, (lower[:, None] + 1) % ORIENTATIONS, (share * magnitude)[:, None])


def _patch_sums(pixels_cbhw: Tensor, first: int) -> Tensor:
    """Return patches' sums of products of two channels: those from ``first`` on, with each up to itself."""
    # As products with matrices of zeros and ones: sums of shifted maps take five times as long.
    down, across = (_patch_places(length).to(pixels_cbhw) for length in pixels_cbhw.shape[2:])
    rows = range(first, len(pixels_cbhw))
    return down @ torch.cat([(pixels_cbhw[row] * pixels_cbhw[: row + 1]) @ across.T for row in rows])


@lru_cache(maxsize=4)
def _patch_places(length: int) -> Tensor:
    """Return for each patch of one axis, around every second pixel, which pixels it has."""
    places = torch.arange(length)
    return ((places[::STEP, None] - places).abs() <= RADIUS).to(torch.float64)


def _patch_vectors(sums_kbhw: Tensor) -> Tensor:
    """Return the vectors (B, H/2, W/2, M) of patches' Gaussians; a patch ends at the image's border."""
    size = math.isqrt(2 * len(sums_kbhw))
    order = torch.arange(1, size + 1, device=sums_kbhw.device) % size  # the channel of ones comes last
    later, earlier = torch.maximum(order[:, None], order), torch.minimum(order[:, None], order)
    matrices = sums_kbhw[later * (later + 1) // 2 + earlier]
    means = matrices[-1] / sums_kbhw[0]
    matrices.addcmul_(means[:, None], means, value=-1)  # divided by the pixels less one, S + μμᵀ
    return _gaussian_vectors(matrices.permute(2, 3, 4, 0, 1), LEAST_TRACE)


def _strip_vectors(patches_bhwm: Tensor) -> Tensor:
    """Return the vectors (B, 7, M) of the Gaussians of strips of patches."""
    height, width, length = patches_bhwm.shape[1:]
    places = torch.arange(1, width + 1, dtype=torch.float64, device=patches_bhwm.device)
    weights = (-((places - width / 2) ** 2) / (2 * (width / 4) ** 2)).exp()
    weights = weights.repeat(height // 8)[:, None]
    # Moments of eighths of the height, of which a strip has two; the last entry of a patch is a one.
    patches_bepm = patches_bhwm.reshape(len(patches_bhwm), 8, -1, length)
    patches_bepm = torch.cat((patches_bepm, torch.ones_like(patches_bepm[..., :1])), -1)
    moments = patches_bepm.mT @ (weights * patches_bepm)
    moments = moments[:, :-1] + moments[:, 1:]
    return _gaussian_vectors(moments, 0.0)


def _gaussian_vectors(matrices: Tensor, least_trace: float) -> Tensor:
    """Return the upper halves of the logarithms of Gaussians' matrices, row by row; changes ``matrices``."""
    # They come as any multiple of [[S + μμᵀ, μ], [μᵀ, 1]], without the ridge, a share of S's trace.
    diagonal, multiples = matrices.diagonal(dim1=-2, dim2=-1)[..., :-1], matrices[..., -1, -1:]
    traces = (diagonal - matrices[..., -1, :-1] ** 2 / multiples).sum(-1, keepdim=True)
    diagonal += RIDGE * torch.maximum(traces, least_trace * multiples)
    # Three fifths of GOG's time on a CPU. Not faster: numpy, float32, rational logarithms of many at once.
    values, vectors = torch.linalg.eigh(matrices)
    # The matrix without its factor has S's determinant, so its logarithms sum to log |S|.
    logs = values.log_()
    logs -= logs.mean(-1, keepdim=True)
    logarithms = (vectors * logs[..., None, :]) @ vectors.mT
    size = matrices.shape[-1]
    rows, columns = torch.triu_indices(size, size, device=matrices.device)
    entries = logarithms.flatten(-2).index_select(-1, rows * size + columns)
    return entries.mul_(torch.where(rows == columns, 1.0, _ROOT))
