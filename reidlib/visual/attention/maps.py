"""Attention maps: HiResCAM maps of what supports the similarity of two images, for each part of a model.

The maps attribute the cosine similarity between a part's columns of the matching features of two images. Each
cell of a feature map gets its share of the similarity: gradient × activation, summed over the channels. At
the network's last map, only pooling and the feature layer follow, and HiResCAM is exact: the shares add up to
the similarity, except for what biases and the shifts of batch norm contribute to any image. At an earlier,
finer map, the layers in between are not linear, and the shares are a first-order approximation.

The other image's feature and the length of this image's feature are treated as constants. The gradient of the
cosine itself is perpendicular to the feature, so the shares would add up to zero.
The maps keep their raw values: grad-cam rescales every map to 0..1, which makes a part without any
contribution look like a decisive one.
Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
networks", 2020. Grad-CAM averages the gradient over the whole map and therefore highlights areas outside the
part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_grad_cam.activations_and_gradients import ActivationsAndGradients
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.data.augmentation import normalise_images
from reidlib.errors import InputError, check_choice, shorten
from reidlib.models import JLML, Pyramid
from reidlib.models.jlml import stripe_rows
from reidlib.models.parts import FeaturePart
from reidlib.models.residual import Stages
from reidlib.ranking.distances import full_float32

PartModel = JLML | Pyramid  # the networks whose features consist of parts
_STEM_STRIDE, STRIDES = 4, (4, 8, 16, 32)
# Chosen by the deletion test on training images of the embedded benchmark (`quick`): the finest stride whose
# result cannot be told apart from the best one. Notebook 51 repeats this test. Stride 16 is Pyramid's last
# map and one of the maps of JLML's global stream; in a local stream, only two cells would count.
DEFAULT_STRIDE, LOCAL_STRIDE = 16, 4


class Grid(NamedTuple):
    """The contribution of each cell of a feature map to a part's similarity, for B images.

    Attributes:
        shares_bhw: Signed shares of the similarity, float32 of shape (B, h, w).
        cell: Height and width of a cell in pixels of the image.
    """

    shares_bhw: np.ndarray
    cell: int


def part_attention(
    model: PartModel,
    images_bchw: Tensor,
    others_bd: Tensor,
    *,
    parts: Sequence[FeaturePart] | None = None,
    signed: bool = False,
    stride: int | None = None,
) -> np.ndarray:
    """Compute maps of what supports each part's similarity to another image.

    Args:
        model: A JLML or Pyramid network; it is not changed.
        images_bchw: uint8 images of shape (B, 3, H, W), as ``ImageStore.batch`` returns them.
        others_bd: Matching features (``model.embed``) of the images to compare with, of shape (B, D).
        parts: P parts out of ``model.feature_parts(H)``; by default all.
        signed: Whether contributions against the similarity stay negative; else they are clipped at zero.
        stride: Stride of the feature map in pixels: 4, 8, 16 or 32; by default ``DEFAULT_STRIDE``, and
            ``LOCAL_STRIDE`` for JLML's local streams.

    Returns:
        Raw maps, float32 of shape (B, P, H, W). A pixel has the share of its cell per 16×16 pixels. Pixels
        outside the part's rows are zero.

    Raises:
        InputError: As ``attention_grids``.
    """
    grids = attention_grids(model, images_bchw, others_bd, parts=parts, stride=stride)
    height, width = images_bchw.shape[2:]
    map_parts: Sequence[FeaturePart] = model.feature_parts(height) if parts is None else parts
    maps_bphw = np.zeros((len(images_bchw), len(map_parts), height, width), np.float32)
    for index, (part, grid) in enumerate(zip(map_parts, grids, strict=True)):
        first, stop = pixel_rows(part, height)
        shares_bhw = grid.shares_bhw if signed else np.maximum(grid.shares_bhw, 0)
        maps_bphw[:, index, first:stop] = interpolate_shares(shares_bhw, grid.cell)[:, : stop - first, :width]
    return maps_bphw


def interpolate_shares(shares_bhw: np.ndarray, cell: int) -> np.ndarray:
    """Interpolate the shares of cells to pixels, on one scale for cells of all sizes.

    Args:
        shares_bhw: Shares of the cells, float32 of shape (B, h, w).
        cell: Height and width of a cell in pixels.

    Returns:
        Maps of shape (B, h·cell, w·cell): shares per 16×16 pixels.
    """
    # The receptive field of a cell is centred on the first pixel of the cell, since every strided layer here
    # is centred on its first input. Interpolation from the middle of the cell would move the map by half a
    # cell to the right and down. Half of the receptive field of a first cell is therefore outside the image,
    # and no receptive field is centred beyond the last cell's first pixel. Repeating the last cell there
    # would give it three times the area of a first cell, and the right and lower edges would be too bright.
    # Instead, the maps fade on the right to the first column, because left and right are alike, so that all
    # columns get the same area. They fade at the bottom to the column's mean: the first row would show a copy
    # of the head at the feet.
    shares_b1hw = F.pad(torch.from_numpy(shares_bhw)[:, None], (0, 1, 0, 0), mode="circular")
    shares_b1hw = torch.cat([shares_b1hw, shares_b1hw.mean(2, keepdim=True)], 2)
    size = [cells * cell + 1 for cells in shares_bhw.shape[1:]]
    scaled = F.interpolate(shares_b1hw, size, mode="bilinear", align_corners=True)
    return scaled[:, 0, :-1, :-1].numpy() * (DEFAULT_STRIDE / cell) ** 2


def attention_grids(
    model: PartModel,
    images_bchw: Tensor,
    others_bd: Tensor,
    *,
    parts: Sequence[FeaturePart] | None = None,
    stride: int | None = None,
) -> list[Grid]:
    """Compute the signed contribution of every cell of a feature map to each part's similarity.

    The trunk runs once, without gradients. Each part then needs a forward and a backward pass through the
    layers behind the feature map; all local streams of JLML share one. Beyond a forward pass of B images,
    memory holds three feature maps (activation, gradient, product) and the activations behind them. A batch
    of 16 to 32 images is fastest on a CPU.

    Args:
        model: A JLML or Pyramid network; it is not changed.
        images_bchw: uint8 images of shape (B, 3, H, W).
        others_bd: Matching features (``model.embed``) of the images to compare with, of shape (B, D).
        parts: P parts out of ``model.feature_parts(H)``; by default all.
        stride: 4, 8, 16 or 32: the last feature map of at most this stride in pixels is attributed. By
            default ``DEFAULT_STRIDE``, and ``LOCAL_STRIDE`` for JLML's local streams. If the next layer skips
            every second row and column, as in JLML, a cell is twice as large.

    Returns:
        A grid per part, whose cells cover the part's rows.

    Raises:
        InputError: If the network is of another class, a shape does not fit, the stride is unknown or a part
            does not belong to the model at the images' height.
    """
    all_parts = _checked_parts(model, images_bchw, others_bd)
    parts = all_parts if parts is None else parts
    if foreign := [part for part in parts if part not in all_parts]:
        rule = f"parts are those of model.feature_parts({images_bchw.shape[2]})"
        names = shorten(getattr(part, "name", part) for part in foreign)
        raise InputError(rule, names, "use the model's parts for the height of the images")
    rule = f"stride is one of {', '.join(map(str, STRIDES))}"
    check_choice(rule, stride, (None, *STRIDES), "use one of these")
    indices = tuple(all_parts.index(part) for part in parts)
    device = next(model.parameters()).device
    grids: dict[int, Grid] = {}
    # The caller may be inside inference_mode, whose tensors must be copied before they can have gradients.
    with torch.inference_mode(False), torch.enable_grad(), full_float32(device), _frozen(model):
        others_bd = others_bd.detach().to(device, torch.float32, copy=True)
        cut_at = _jlml_cuts if isinstance(model, JLML) else _pyramid_cuts
        for cut in cut_at(model, normalise_images(images_bchw.to(device)), indices, stride):
            others_bpd = torch.stack([others_bd[:, all_parts[index].columns] for index in cut.parts], 1)
            shares_rhw = _shares(cut, F.normalize(others_bpd, dim=2).flatten(0, 1))
            counted_rhw = shares_rhw[:, :: cut.step, :: cut.step][:, slice(*cut.rows)]
            for offset, index in enumerate(cut.parts):
                shares_bhw = np.ascontiguousarray(counted_rhw[offset :: len(cut.parts)])
                grids[index] = Grid(shares_bhw, cut.cell)
    return [grids[index] for index in indices]


def pixel_rows(part: FeaturePart, height: int) -> tuple[int, int]:
    """Return a part's first row and the row past its last in an image.

    Args:
        part: The part.
        height: Height of the image in pixels.

    Returns:
        The two rows in pixels.
    """
    return round(part.rows[0] * height), round(part.rows[1] * height)


def indices_by_kind(parts: Sequence[FeaturePart]) -> dict[str, list[int]]:
    """Group the indices of parts by their kind.

    Args:
        parts: The parts of a model.

    Returns:
        Kind ("global", "local", "level 2") to the indices of its parts, in their order.
    """
    groups: dict[str, list[int]] = {}
    for index, part in enumerate(parts):
        groups.setdefault(part.kind, []).append(index)
    return groups


class _Cut(NamedTuple):
    """A network cut at a feature map, whose R batch entries are images or several parts of each image."""

    maps_rchw: Tensor
    embed: Callable[[Tensor], Tensor]  # (R, C, h, w) -> a part's feature for each entry, (R, d)
    parts: tuple[int, ...]  # indices of the parts that are consecutive entries for each image
    rows: tuple[int, int]  # rows of counted cells that the parts cover: first, past the last
    step: int  # distance between counted cells, in cells
    cell: int  # distance between counted cells, in pixels


@torch.no_grad()
def _jlml_cuts(model: JLML, images_bchw: Tensor, indices: tuple[int, ...], stride: int | None) -> list[_Cut]:
    shared = model.shared(images_bchw)
    cuts = []
    if 0 in indices:
        lower_stages, upper_stages, *sizes = _split(model.global_stream, stride or DEFAULT_STRIDE)
        maps_bchw = lower_stages(shared)

        def embed(maps_bchw: Tensor) -> Tensor:
            return model.global_norm(model.global_feature(upper_stages(maps_bchw).mean((2, 3))))

        cuts.append(_Cut(maps_bchw, embed, (0,), (0, maps_bchw.shape[2]), *sizes))
    if any(indices):
        low_level = shared if model.local_stem is None else model.local_stem(images_bchw)
        rows = stripe_rows(low_level.shape[2], model.parts)
        stripes = torch.cat([low_level[:, :, first:stop] for first, stop in rows], dim=1)  # (B, P·C, h, w)
        lower_streams, upper_streams, *local_sizes = _split(model.local_streams, stride or LOCAL_STRIDE)
        maps_rchw = lower_streams(stripes).unflatten(1, (model.parts, -1)).flatten(0, 1)  # (B·P, C, h, w)

        def embed_local(maps_rchw: Tensor) -> Tensor:
            maps = upper_streams(maps_rchw.unflatten(0, (-1, model.parts)).flatten(1, 2))  # (B, P·C, h, w)
            pooled_bpc = maps.mean((2, 3)).unflatten(1, (model.parts, -1))
            return model.local_norm(model.local_feature(pooled_bpc).flatten(1)).view(len(maps_rchw), -1)

        local_parts = tuple(range(1, 1 + model.parts))
        cuts.append(_Cut(maps_rchw, embed_local, local_parts, (0, maps_rchw.shape[2]), *local_sizes))
    return cuts


@torch.no_grad()
def _pyramid_cuts(
    model: Pyramid, images_bchw: Tensor, indices: tuple[int, ...], stride: int | None
) -> list[_Cut]:
    lower_stages, upper_stages, step, cell = _split(model.stages, stride or DEFAULT_STRIDE)
    maps_bchw = lower_stages(model.stem(images_bchw))
    height = -(-maps_bchw.shape[2] // step)

    def cut(index: int) -> _Cut:
        first, stop = (round(edge * height / model.stripes) for edge in model.parts[index])
        return _Cut(
            maps_bchw,
            lambda maps: model.head(upper_stages(maps))[1][:, index],
            (index,),
            (first, stop),
            step,
            cell,
        )

    return [cut(index) for index in dict.fromkeys(indices)]


def _split(stages: Stages, stride: int) -> tuple[nn.Module, nn.Module, int, int]:
    """Split stages behind the last map of at most ``stride``, and return ``step`` and ``cell`` of the cut."""
    # If the next stage begins with a strided 1×1 convolution, it uses only every second row and column of the
    # map: the shares of the others are zero, and the counted cells are twice as far apart.
    layers: list[Any] = list(stages)  # a list: a slice of Stages would call its constructor
    total_stride = _STEM_STRIDE
    for count, stage in enumerate(layers):
        step, second_stride = stage[0].conv1.stride[0], stage[0].conv2.stride[0]
        if total_stride * step * second_stride > stride:
            return nn.Sequential(*layers[:count]), nn.Sequential(*layers[count:]), step, total_stride * step
        total_stride *= step * second_stride
    return stages, nn.Identity(), 1, total_stride


def _shares(cut: _Cut, others_rd: Tensor) -> np.ndarray:
    """Compute gradient × activation of every cell, summed over the channels, of shape (R, h, w)."""
    target = nn.Identity()
    recorded = ActivationsAndGradients(lambda maps_rchw: cut.embed(target(maps_rchw)), [target], None)
    # A separate leaf per call: a shared one would collect the hooks of all parts.
    features_rd = recorded(cut.maps_rchw.detach().requires_grad_())
    lengths_r = features_rd.detach().norm(dim=1).clamp_min(1e-12)
    ((features_rd * others_rd).sum(1) / lengths_r).sum().backward()
    shares_rhw = (recorded.gradients[0].numpy() * recorded.activations[0].numpy()).sum(axis=1)
    recorded.release()  # it and its hooks refer to each other, which would keep the maps in memory
    return shares_rhw


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Keep the model in evaluation mode without gradients of its weights, then restore its state."""
    modes = [(module, module.training) for module in model.modules()]
    weights = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.eval()
        for weight, _ in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, requires_grad in weights:
            weight.requires_grad_(requires_grad)


def _checked_parts(model: PartModel, images_bchw: Tensor, others_bd: Tensor) -> tuple[FeaturePart, ...]:
    """Check the arguments, and return the model's parts at the height of the images."""
    if not isinstance(model, JLML | Pyramid):
        rule = "attention is available for JLML and Pyramid"
        raise InputError(rule, type(model).__name__, "pass a model of one of these classes")
    shape = tuple(images_bchw.shape)
    if len(shape) != 4 or shape[1] != 3 or images_bchw.dtype != torch.uint8:
        value = f"{shape} {images_bchw.dtype}"
        raise InputError("images are uint8 (B, 3, H, W)", value, "take them from ImageStore.batch")
    expected = (shape[0], model.branches["full"].stop)
    if tuple(others_bd.shape) != expected or not shape[0]:
        rule = f"at least one image, each compared with one feature of the same model: {expected}"
        raise InputError(rule, tuple(others_bd.shape), "embed the other images with model.embed")
    return model.feature_parts(shape[2])
