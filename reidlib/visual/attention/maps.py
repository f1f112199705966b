"""What supports the similarity of two images, part by part: HiResCAM maps on one scale, over ``grad-cam``.

Attributed is the cosine similarity of a part's columns of the matching feature, this image's and the other's.
A cell of the network's map gets its share of it: gradient × activation, summed over the channels. Where only
pooling and the feature layer follow (the network's last map) HiResCAM is exact: the shares add up to the
similarity, but for what biases and batch norm's shifts give whatever the image shows. At an earlier, finer
map the layers between are not linear, and the shares are an approximation of first order.

The other image's feature is taken as given, and so is the length of this image's own: with the gradient of
the cosine itself, at a right angle to the feature, the shares would add up to nothing.
Values are raw. grad-cam scales every map to 0..1: what contributes nothing looks like what decides.
Source: Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
networks", 2020. Grad-CAM pools the gradient over the whole map and so shows heat outside the part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

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

_STEM_STRIDE, STRIDES = 4, (4, 8, 16, 32)
# What the deletion test chose on training images of the embedded benchmark (`quick`); notebook 51 repeats it.
# The finest that it did not tell from the best. 16: Pyramid's last map, and one of JLML's global stream; in
# a local stream's only two cells would count.
DEFAULT_STRIDE, LOCAL_STRIDE = 16, 4


class Grid(NamedTuple):
    """What each cell of a map contributes to a part's similarity, on each of B images."""

    shares_bhw: np.ndarray  # float32, signed
    cell: int  # image rows for a row, as columns for a column


def part_attention(
    model: nn.Module,
    images_bchw: Tensor,
    others_bd: Tensor,
    *,
    parts: Sequence[FeaturePart] | None = None,
    signed: bool = False,
    stride: int | None = None,
) -> np.ndarray:
    """Maps of what supports each part's similarity to another image: float32 ``(B, P, H, W)``, raw.

    model: JLML or Pyramid, left as it was. images_bchw: uint8, as ``ImageStore.batch`` gives them.
    others_bd: the matching features (``model.embed``) of the images that they are compared with.
    parts: of ``model.feature_parts(H)``, all of them by default. stride, errors: as ``attention_grids``.
    signed: keep what speaks against the similarity as negative values; else it is clipped at zero.
    Pixels have their cell's share for 16×16 pixels (``drawn``), and zero outside the part's rows.
    """
    grids = attention_grids(model, images_bchw, others_bd, parts=parts, stride=stride)
    height, width = images_bchw.shape[2:]
    parts = model.feature_parts(height) if parts is None else parts
    maps_bphw = np.zeros((len(images_bchw), len(parts), height, width), np.float32)
    for place, (part, grid) in enumerate(zip(parts, grids, strict=True)):
        first, stop = pixel_rows(part, height)
        shares_bhw = grid.shares_bhw if signed else np.maximum(grid.shares_bhw, 0)
        maps_bphw[:, place, first:stop] = drawn(shares_bhw, grid.cell)[:, : stop - first, :width]
    return maps_bphw


def drawn(shares_bhw: np.ndarray, cell: int) -> np.ndarray:
    """Cells as pixels, ``(B, h·cell, w·cell)``, in shares for 16×16 pixels: cells of all sizes on one scale.

    What a cell sees is centred on the first of its pixels, as every strided layer here on its first input:
    interpolated from the middle of its square, heat would lie half a cell right and down. So half of what a
    first cell sees lies beyond the image, and behind the last cell's pixel none is centred. With the last
    one's value there it would have three times the room of the first, and right and lower edges would glow.
    Maps fade instead: rightwards to the first column, as both sides are alike, so that all have the same
    room; downwards to the column's mean, as the first row's heat would be a ghost of heads at the feet.
    """
    shares_b1hw = F.pad(torch.from_numpy(shares_bhw)[:, None], (0, 1, 0, 0), mode="circular")
    shares_b1hw = torch.cat([shares_b1hw, shares_b1hw.mean(2, keepdim=True)], 2)
    size = [cells * cell + 1 for cells in shares_bhw.shape[1:]]
    scaled = F.interpolate(shares_b1hw, size, mode="bilinear", align_corners=True)
    return scaled[:, 0, :-1, :-1].numpy() * (DEFAULT_STRIDE / cell) ** 2


def attention_grids(
    model: nn.Module,
    images_bchw: Tensor,
    others_bd: Tensor,
    *,
    parts: Sequence[FeaturePart] | None = None,
    stride: int | None = None,
) -> list[Grid]:
    """Each part's cells as they come, signed, covering the part's rows.

    stride: 4, 8, 16 or 32: attributed is the last map of at most so many image rows for a row. None: default.
    Where the next layer takes every second row and column only, as JLML's, a cell is twice as large.
    The trunk runs once, without a gradient; a part then costs a pass forth and back through what follows the
    map, and all local streams of JLML share one. Memory beyond a forward pass of B images: three such maps
    (activation, gradient, product) and the activations behind the map. B of 16 to 32 is fastest on a CPU.
    Raises InputError for another kind of network, other shapes, and parts that are not the model's there.
    """
    all_parts = _checked_parts(model, images_bchw, others_bd)
    parts = all_parts if parts is None else parts
    if foreign := [part for part in parts if part not in all_parts]:
        rule = f"parts are those of model.feature_parts({images_bchw.shape[2]})"
        named = shorten(getattr(part, "name", part) for part in foreign)
        raise InputError(rule, named, "ask the model for its parts at the images' height")
    rule = f"stride is one of {', '.join(map(str, STRIDES))}"
    check_choice(rule, stride, (None, *STRIDES), "choose one")
    wanted = tuple(all_parts.index(part) for part in parts)
    device = next(model.parameters()).device
    grids: dict[int, Grid] = {}
    # Also where the caller is inside inference_mode, whose tensors take part in no gradient unless copied.
    with torch.inference_mode(False), torch.enable_grad(), full_float32(device), _frozen(model):
        others_bd = others_bd.detach().to(device, torch.float32, copy=True)
        cut_at = _jlml_cuts if isinstance(model, JLML) else _pyramid_cuts
        for cut in cut_at(model, normalise_images(images_bchw.to(device)), wanted, stride):
            others_bpd = torch.stack([others_bd[:, all_parts[place].columns] for place in cut.parts], 1)
            shares_rhw = _shares(cut, F.normalize(others_bpd, dim=2).flatten(0, 1))
            counted_rhw = shares_rhw[:, :: cut.step, :: cut.step][:, slice(*cut.rows)]
            for index, place in enumerate(cut.parts):
                shares_bhw = np.ascontiguousarray(counted_rhw[index :: len(cut.parts)])
                grids[place] = Grid(shares_bhw, cut.cell)
    return [grids[place] for place in wanted]


def pixel_rows(part: FeaturePart, height: int) -> tuple[int, int]:
    """A part's rows ``(first, past the last)`` of an image of ``height`` pixels."""
    return round(part.rows[0] * height), round(part.rows[1] * height)


def places_by_kind(parts: Sequence[FeaturePart]) -> dict[str, list[int]]:
    """The places of the parts of each kind, in the parts' order."""
    kinds = [part.kind for part in parts]
    return {kind: [place for place, own in enumerate(kinds) if own == kind] for kind in dict.fromkeys(kinds)}


class _Cut(NamedTuple):
    """A network cut at a map. The batch's entries are images, or several parts of each image."""

    maps_rchw: Tensor
    rest: Callable[[Tensor], Tensor]  # (R, C, h, w) -> a part's feature for each entry, (R, d)
    parts: tuple[int, ...]  # those of each image, which follow one another
    rows: tuple[int, int]  # of the cells that count, those that the parts cover
    step: int  # cells from one that counts to the next
    cell: int  # image rows from one that counts to the next


@torch.no_grad()
def _jlml_cuts(model: JLML, images_bchw: Tensor, wanted: tuple[int, ...], stride: int | None) -> list[_Cut]:
    shared = model.shared(images_bchw)
    cuts = []
    if 0 in wanted:
        before, after, *sizes = _split(model.global_stream, stride or DEFAULT_STRIDE)
        maps_bchw = before(shared)

        def rest(maps_bchw: Tensor) -> Tensor:
            return model.global_norm(model.global_feature(after(maps_bchw).mean((2, 3))))

        cuts.append(_Cut(maps_bchw, rest, (0,), (0, maps_bchw.shape[2]), *sizes))
    if any(wanted):
        low_level = shared if model.local_stem is None else model.local_stem(images_bchw)
        rows = stripe_rows(low_level.shape[2], model.parts)
        stripes = torch.cat([low_level[:, :, first:stop] for first, stop in rows], dim=1)  # (B, P·C, h, w)
        local_before, local_after, *local_sizes = _split(model.local_streams, stride or LOCAL_STRIDE)
        maps_rchw = local_before(stripes).unflatten(1, (model.parts, -1)).flatten(0, 1)  # (B·P, C, h, w)

        def local_rest(maps_rchw: Tensor) -> Tensor:
            maps = local_after(maps_rchw.unflatten(0, (-1, model.parts)).flatten(1, 2))  # (B, P·C, h, w)
            pooled_bpc = maps.mean((2, 3)).unflatten(1, (model.parts, -1))
            return model.local_norm(model.local_feature(pooled_bpc).flatten(1)).view(len(maps_rchw), -1)

        places = tuple(range(1, 1 + model.parts))
        cuts.append(_Cut(maps_rchw, local_rest, places, (0, maps_rchw.shape[2]), *local_sizes))
    return cuts


@torch.no_grad()
def _pyramid_cuts(
    model: Pyramid, images_bchw: Tensor, wanted: tuple[int, ...], stride: int | None
) -> list[_Cut]:
    before, after, step, cell = _split(model.stages, stride or DEFAULT_STRIDE)
    maps_bchw = before(model.stem(images_bchw))
    height = -(-maps_bchw.shape[2] // step)

    def cut(place: int) -> _Cut:
        rows = tuple(round(edge * height / model.stripes) for edge in model.parts[place])
        return _Cut(maps_bchw, lambda maps: model.head(after(maps))[1][:, place], (place,), rows, step, cell)

    return [cut(place) for place in dict.fromkeys(wanted)]


def _split(stages: Stages, stride: int) -> tuple[nn.Module, nn.Module, int, int]:
    """The stages up to the last map of at most ``stride``, those behind it, and ``step`` and ``cell`` there.

    Where the next stage begins with a strided 1×1 convolution, only every second row and column of the map
    goes on: the others' shares are nought, and the cells that count are twice as far apart.
    """
    layers, reached = list(stages), _STEM_STRIDE  # a list: a slice of Stages would call its constructor
    for count, stage in enumerate(layers):
        step, later = stage[0].conv1.stride[0], stage[0].conv2.stride[0]
        if reached * step * later > stride:
            return nn.Sequential(*layers[:count]), nn.Sequential(*layers[count:]), step, reached * step
        reached *= step * later
    return stages, nn.Identity(), 1, reached


def _shares(cut: _Cut, others_rd: Tensor) -> np.ndarray:
    """Gradient × activation of every cell, summed over the channels: ``(R, h, w)``, signed."""
    target = nn.Identity()
    recorded = ActivationsAndGradients(lambda maps_rchw: cut.rest(target(maps_rchw)), [target], None)
    # A leaf of its own: on a shared one the hooks of all parts would gather.
    features_rd = recorded(cut.maps_rchw.detach().requires_grad_())
    lengths_r = features_rd.detach().norm(dim=1).clamp_min(1e-12)
    ((features_rd * others_rd).sum(1) / lengths_r).sum().backward()
    shares_rhw = (recorded.gradients[0].numpy() * recorded.activations[0].numpy()).sum(axis=1)
    recorded.release()  # it and its hooks refer to each other, and would keep the maps
    return shares_rhw


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, no gradient wanted for its weights; then everything as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.eval()
        for weight, _ in wanted:
            weight.requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, requires_grad in wanted:
            weight.requires_grad_(requires_grad)


def _checked_parts(model: nn.Module, images_bchw: Tensor, others_bd: Tensor) -> tuple[FeaturePart, ...]:
    """The model's parts at the images' height; InputError where something does not fit."""
    if not isinstance(model, JLML | Pyramid):
        raise InputError("attention is shown for JLML and Pyramid", type(model).__name__, "give one of them")
    shape = tuple(images_bchw.shape)
    if len(shape) != 4 or shape[1] != 3 or images_bchw.dtype != torch.uint8:
        found = f"{shape} {images_bchw.dtype}"
        raise InputError("images are uint8 (B, 3, H, W)", found, "take them from ImageStore.batch")
    wanted = (shape[0], model.branches["full"].stop)
    if tuple(others_bd.shape) != wanted or not shape[0]:
        rule = f"one or more images, each compared with one feature of the same model: {wanted}"
        raise InputError(rule, tuple(others_bd.shape), "embed the other images with model.embed")
    return model.feature_parts(shape[2])
