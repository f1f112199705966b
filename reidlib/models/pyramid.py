"""Pyramid: overlapping body parts from single stripes to the whole body, each with a branch of its own.

Zheng et al.: "Pyramidal Person Re-IDentification via Multi-Loss Dynamic Training", CVPR 2019.

    images ── trunk (stride 16) ── map ── n stripes ── level 1: n parts of 1 stripe ─┐
                                                       level 2: n−1 parts of 2       ├ P = n(n+1)/2 parts
                                                       …                             │
                                                       level n: 1 part, the body ────┘
    each part ── average + maximum ── linear, batch norm, ReLU ──┬── feature (128): matching, triplet loss
                                                                 └── dropout ── identity classifier

No text of the paper was at hand; the architecture follows its authors' released code
(PersonReID-Pyramid). A level is named by the number of stripes that its parts cover, 1 to n.
We assume:
  - the released code is the paper's network: its figure shows the same levels, not the sizes.
We differ:
  - all parts run as one batched operation; stripes are summed and their maxima taken once, and wider
    parts are built from narrower ones, where the released code pools the map anew for each of 21 branches;
  - the second set of 21 branches, which it builds and never uses, is left out;
  - the dynamic weighting of the two losses belongs to the losses, not to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart, check_input_height, check_settings, pyramid_parts
from reidlib.models.residual import PartLinear, Stages, Stem, TrunkShape, imagenet_weights, initialise

_STRIDES = (1, 2, 2, 1)  # the last stage keeps its rows, so that six stripes of 384 have four rows each
_BOTTLENECKS = (64, 128, 256, 512)
# resnet39 is the small trunk of JLML's global stream: for a CPU, and without pretrained weights.
_TRUNKS = {
    "resnet39": TrunkShape(
        (3, 4, 2, 3), (32, 64, 128, 256), expansion=2, stride_on="first", strides=_STRIDES
    ),
    "resnet50": TrunkShape((3, 4, 6, 3), _BOTTLENECKS, expansion=4, stride_on="second", strides=_STRIDES),
    "resnet101": TrunkShape((3, 4, 23, 3), _BOTTLENECKS, expansion=4, stride_on="second", strides=_STRIDES),
}
_STEM = 64


class PyramidOutput(NamedTuple):
    """What one forward pass gives, in every mode."""

    logits: Tensor  # (B, P, K) of each part's classifier
    embeddings: Tensor  # (B, P, D) after ReLU, before dropout, not normalised
    maps: Tensor  # (B, C, H, W), the trunk's last


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


class Pyramid(nn.Module):
    """The pyramid network.

    ``forward(images) -> PyramidOutput``; ``embed(images) -> (B, P·D)`` is what matching uses.

    num_classes: identities in training (K).
    stripes: equal horizontal stripes of the map (paper: 6); they divide the map's height.
    levels: numbers of stripes that parts cover, of 1 to ``stripes``; None for all (paper), 21 parts of
        6 stripes. ``parts`` lists them.
    trunk: "resnet50", "resnet101" (the released code's) or "resnet39" (JLML's small one).
    weights: None, or "imagenet" for torchvision's trunks.
    width: factor on the channels of stem and trunk (resnet39 only).
    embedding_size: length of each part's feature (D).
    dropout: share of a feature's numbers that its classifier does not see in training.
    normalisation: what ``embed`` scales to unit length: "none" (the released code's), each "part"
        (YouReID's) or the "whole".
    generator: source of the initial weights.

    Raises InputError when the arguments contradict each other, and in ``forward`` where the stripes do not
    divide the map's height.
    """

    streams = 1

    def __init__(
        self,
        num_classes: int,
        *,
        stripes: int = 6,
        levels: Sequence[int] | None = None,
        trunk: Literal["resnet50", "resnet101", "resnet39"] = "resnet50",
        weights: Literal["imagenet"] | None = None,
        width: float = 1.0,
        embedding_size: int = 128,
        dropout: float = 0.2,
        normalisation: Literal["none", "part", "whole"] = "none",
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if num_classes < 2:
            raise InputError(
                "a classifier needs at least two identities", f"num_classes={num_classes}", "use a larger set"
            )
        check_settings(trunk, weights, width, embedding_size, dropout, normalisation)
        self.stripes = stripes
        self.parts = pyramid_parts(stripes, levels)
        self.dropout = dropout
        self.normalisation = normalisation

        shape = _TRUNKS[trunk].scaled(width)
        channels = max(1, round(_STEM * width))
        self.stem = Stem(channels)
        self.stages = Stages(shape, inputs=channels)
        self.pooling = PartPooling(stripes, tuple(dict.fromkeys(part.level for part in self.parts)))
        num_parts = len(self.parts)
        self.embedding = PartLinear(num_parts, shape.out_channels, embedding_size, bias=True)
        self.norm = nn.BatchNorm1d(num_parts * embedding_size)
        self.classifiers = PartLinear(num_parts, embedding_size, num_classes, bias=True)
        # Columns of the matching feature; a level's are neighbours, since the parts run from fine to coarse.
        self.branches = {"full": slice(0, num_parts * embedding_size), **self._level_columns(embedding_size)}
        self._initialise(trunk, weights, generator)

    def _level_columns(self, size: int) -> dict[str, slice]:
        levels = [part.level for part in self.parts]
        if len(set(levels)) == 1:
            return {}
        first = {level: levels.index(level) for level in levels}
        return {
            f"level {level}": slice(first[level] * size, (first[level] + levels.count(level)) * size)
            for level in first
        }

    def _initialise(self, trunk: str, weights: str | None, generator: torch.Generator | None) -> None:
        initialise(self, generator)
        # What PyTorch gives the 1×1 convolution that the released code has for each part.
        bound = self.embedding.weight.shape[-1] ** -0.5
        for parameter in self.embedding.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        nn.init.normal_(self.classifiers.weight, std=0.001, generator=generator)
        nn.init.zeros_(self.classifiers.bias)
        if weights == "imagenet":
            stem, stages = imagenet_weights(trunk)
            self.stem.load_state_dict(stem)
            self.stages.load_state_dict(stages)

    def forward(self, images_bchw: Tensor) -> PyramidOutput:
        """``(B, 3, H, W)`` normalised images -> ``PyramidOutput``."""
        maps_bchw = self._maps(images_bchw)
        return PyramidOutput(*self.head(maps_bchw), maps_bchw)

    def head(self, maps_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's map ``(B, C, H, W)`` -> logits ``(B, P, K)`` and embeddings ``(B, P, D)``."""
        embeddings_bpd = self._embeddings(maps_bchw)
        logits_bpk = self.classifiers(F.dropout(embeddings_bpd, self.dropout, self.training))
        return logits_bpk, embeddings_bpd

    def _maps(self, images_bchw: Tensor) -> Tensor:
        check_input_height(images_bchw.shape[2], self.stripes)
        return self.stages(self.stem(images_bchw))

    def _embeddings(self, maps_bchw: Tensor) -> Tensor:
        linear_bpd = self.embedding(self.pooling(maps_bchw))
        return F.relu(self.norm(linear_bpd.flatten(1))).unflatten(1, (len(self.parts), -1))

    def embed(self, images_bchw: Tensor) -> Tensor:
        """The matching feature, ``(B, P·D)`` float32, scaled as ``normalisation`` says.

        The columns of each level are named by ``branches``.
        """
        embeddings_bpd = self._embeddings(self._maps(images_bchw)).float()
        if self.normalisation == "part":
            embeddings_bpd = F.normalize(embeddings_bpd, dim=2)
        features_bd = embeddings_bpd.flatten(1)
        return F.normalize(features_bd, dim=1) if self.normalisation == "whole" else features_bd

    def feature_parts(self, input_height: int) -> tuple[FeaturePart, ...]:
        """The parts, fine to coarse and top to bottom; they cover the same shares of images of any height.

        Raises InputError where the stripes do not divide the map of images of that height.
        """
        check_input_height(input_height, self.stripes)
        size = self.embedding.weight.shape[1]
        return tuple(
            FeaturePart(
                f"stripe {first + 1}" if stop == first + 1 else f"stripes {first + 1}–{stop}",
                f"level {stop - first}",
                slice(index * size, (index + 1) * size),
                (first / self.stripes, stop / self.stripes),
            )
            for index, (first, stop) in enumerate(self.parts)
        )

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Parameters before the parts: what a recipe may train at a lower rate than the rest."""
        return [*self.stem.parameters(), *self.stages.parameters()]
