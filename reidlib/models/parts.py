"""Layers for all parts of the body at once: pooling, and a linear layer for each part; what a part is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.errors import InputError


class FeaturePart(NamedTuple):
    """A part of the body and its columns of the matching feature.

    The parts of a network share out the columns, so that the squared distances of two images' parts add up
    to that of their whole features.
    """

    name: str  # "local 2", "stripes 2–4"
    kind: str  # parts of one kind are alike but for their place: "local", "level 3"
    columns: slice
    rows: tuple[float, float]  # where the part begins and ends, as shares of the image's height


class PartLinear(nn.Module):
    """A linear layer for each part, all at once: ``(B, P, C) -> (B, P, D)``.

    ``weight`` is ``(P, D, C)``, ``bias`` ``(P, D)`` or None. Whoever builds it sets both: they come
    uninitialised, since the two papers start them differently.
    """

    def __init__(self, parts: int, inputs: int, outputs: int, *, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(parts, outputs)) if bias else None

    def forward(self, inputs_bpc: Tensor) -> Tensor:
        # The weight comes first, so that its gradient has its own layout and is not copied once more.
        inputs_pcb = inputs_bpc.permute(1, 2, 0)
        if self.bias is None:
            outputs_pdb = torch.bmm(self.weight, inputs_pcb)
        else:
            outputs_pdb = torch.baddbmm(self.bias.unsqueeze(2), self.weight, inputs_pcb)
        return outputs_pdb.permute(2, 0, 1)


class _StripePooling(torch.autograd.Function):
    """Average and maximum of every stripe of ``(B, C, H, W)``: two times ``(B, C, n, 1)``.

    Autograd would write a whole map's gradient for each of them and add the two; one write serves both,
    and the map itself need not be kept. Sums run in float32 inside and are rounded once to the map's
    precision, as the product that follows rounds what it gets.
    """

    @staticmethod
    def forward(ctx, maps_bchw: Tensor, stripes: int) -> tuple[Tensor, Tensor]:
        stripe = (maps_bchw.shape[2] // stripes, maps_bchw.shape[3])
        averages_bcn1 = F.avg_pool2d(maps_bchw, stripe)
        maxima_bcn1, places_bcn1 = F.max_pool2d(maps_bchw, stripe, return_indices=True)
        ctx.save_for_backward(places_bcn1)
        ctx.size, ctx.dtype = maps_bchw.shape, maps_bchw.dtype
        # Any change of precision is left to the caller: with a ``to`` here that changes nothing,
        # torch.compile of torch 2.11 gives zero as the map's gradient.
        return averages_bcn1, maxima_bcn1

    @staticmethod
    def backward(ctx, averages_bcn1: Tensor, maxima_bcn1: Tensor) -> tuple[Tensor, None]:
        places_bnc, averages_bnc, maxima_bnc = (
            pooled_bcn1.squeeze(3).transpose(1, 2)
            for pooled_bcn1 in (*ctx.saved_tensors, averages_bcn1, maxima_bcn1)
        )
        batch, channels, height, width = ctx.size
        pixels, stripe = height * width, height * width // averages_bnc.shape[1]
        everywhere_bnc = averages_bnc / stripe
        maps_bnsc = everywhere_bnc.to(ctx.dtype).unsqueeze(2).expand(-1, -1, stripe, -1)  # s: its pixels
        maps = maps_bnsc.clone(memory_format=torch.contiguous_format).view(-1)
        # By flat index: scatter_ converts a whole bfloat16 map on the CPU, and put_ may be refused on CUDA.
        images_b11 = torch.arange(batch, device=maps.device).view(-1, 1, 1)
        columns_c = torch.arange(channels, device=maps.device)
        flat_bnc = (images_b11 * pixels + places_bnc) * channels + columns_c
        maps[flat_bnc.flatten()] = (everywhere_bnc + maxima_bnc).to(ctx.dtype).flatten()
        return maps.view(batch, height, width, channels).permute(0, 3, 1, 2), None


class PartPooling(nn.Module):
    """Average plus maximum of every part of a pyramid: ``(B, C, H, W) -> (B, P, C)``, float32 at least.

    stripes: equal stripes of the map, which must divide its height. levels: how many neighbouring stripes
    the parts cover, ascending; the parts come out fine to coarse and top to bottom.
    The map is read once for the stripes' averages and once for their maxima; wider parts come from those.
    """

    def __init__(self, stripes: int, levels: tuple[int, ...]):
        super().__init__()
        self.stripes, self.levels = stripes, levels

    def forward(self, maps_bchw: Tensor) -> Tensor:
        height, stripes = maps_bchw.shape[2], self.stripes
        if height < stripes or height % stripes:
            below = height - height % stripes
            raise InputError(
                "stripes divide the map's height",
                f"a map of {height} rows for {stripes} stripes",
                f"use a map of {f'{below} or ' if below else ''}{below + stripes} rows",
            )
        precision = torch.promote_types(maps_bchw.dtype, torch.float32)
        averages_bnc, maxima_bnc = (
            pooled_bcn1.squeeze(3).transpose(1, 2).to(precision)
            for pooled_bcn1 in _StripePooling.apply(maps_bchw, self.stripes)
        )
        sums_bpc, maxima_bpc, pooled = averages_bnc, maxima_bnc, []
        for level in range(1, self.levels[-1] + 1):
            if level > 1:  # a part is the part one stripe shorter and the stripe below it
                sums_bpc = sums_bpc[:, :-1] + averages_bnc[:, level - 1 :]
                maxima_bpc = torch.maximum(maxima_bpc[:, :-1], maxima_bnc[:, level - 1 :])
            if level in self.levels:
                pooled.append(sums_bpc / level + maxima_bpc)
        return torch.cat(pooled, dim=1)
