"""Pyramid: overlapping body parts, from single stripes to the whole body, each with its own branch.

Zheng et al.: "Pyramidal Person Re-IDentification via Multi-Loss Dynamic Training", CVPR 2019.

    images ── trunk (stride 16) ── map ── n stripes ── level 1: n parts of 1 stripe ─┐
                                                       level 2: n−1 parts of 2       ├ P = n(n+1)/2 parts
                                                       …                             │
                                                       level n: 1 part, the body ────┘
    each part ── average + maximum ── linear, batch norm, ReLU ──┬── feature (128): matching, triplet loss
                                                                 └── dropout ── identity classifier

We did not have the text of the paper. The architecture was read in its authors' released code
(PersonReID-Pyramid). The name of a level is the number of stripes in each of its parts, 1 to n.
We assume:
  - The released code is the paper's network. The paper's figure shows the same levels, but not the sizes.
We differ:
  - All parts run as one batched operation. Each stripe is pooled once, and wider parts are built from
    narrower ones. The released code pools the map again for each of its 21 branches.
  - We omit the second set of 21 branches, which the released code builds and never uses.
  - The dynamic weighting of the two losses is in the losses, not in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart, check_input_height, check_pyramid, pyramid_parts
from reidlib.models.residual import PartLinear, Stages, Stem, TrunkShape, imagenet_weights, initialise

# As in the released code. The last stage keeps its rows: an input of 384 rows gives six stripes of four rows.
_STRIDES = (1, 2, 2, 1)
_BOTTLENECKS = (64, 128, 256, 512)
# resnet39 is the small trunk of JLML's global stream. It suits a CPU and has no pretrained weights.
_TRUNKS = {
    "resnet39": TrunkShape(
        (3, 4, 2, 3), (32, 64, 128, 256), expansion=2, stride_on="first", strides=_STRIDES
    ),
    "resnet50": TrunkShape((3, 4, 6, 3), _BOTTLENECKS, expansion=4, stride_on="second", strides=_STRIDES),
    "resnet101": TrunkShape((3, 4, 23, 3), _BOTTLENECKS, expansion=4, stride_on="second", strides=_STRIDES),
}
_STEM = 64


class PyramidOutput(NamedTuple):
    """Output of one forward pass, the same in training and in evaluation.

    Attributes:
        logits: Scores of the K identities from each part's classifier, (B, P, K).
        embeddings: Features of the parts, (B, P, D), after ReLU, before dropout, not normalised.
        maps: Last map of the trunk, (B, C, H, W).
    """

    logits: Tensor
    embeddings: Tensor
    maps: Tensor


class _StripePooling(torch.autograd.Function):
    """Average and maximum of every stripe of a map (B, C, H, W), each (B, C, n, 1)."""

    # Autograd would write one gradient of the whole map for each of the two and add them. Here one write
    # serves both, and the map need not be stored. Sums run in float32 and are rounded once.

    @staticmethod
    def forward(ctx, maps_bchw: Tensor, stripes: int) -> tuple[Tensor, Tensor]:
        stripe = (maps_bchw.shape[2] // stripes, maps_bchw.shape[3])
        averages_bcn1 = F.avg_pool2d(maps_bchw, stripe)
        maxima_bcn1, places_bcn1 = F.max_pool2d(maps_bchw, stripe, return_indices=True)
        ctx.save_for_backward(places_bcn1)
        ctx.size, ctx.dtype = maps_bchw.shape, maps_bchw.dtype
        # The caller changes the precision: with a ``to`` here, even one without effect, torch.compile of
        # torch 2.11 gives zero as the map's gradient.
        return averages_bcn1, maxima_bcn1

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx, averages_bcn1: Tensor, maxima_bcn1: Tensor
    ) -> tuple[Tensor, None]:
        places_bnc, averages_bnc, maxima_bnc = (
            pooled_bcn1.squeeze(3).transpose(1, 2)
            for pooled_bcn1 in (*ctx.saved_tensors, averages_bcn1, maxima_bcn1)
        )
        batch, channels, height, width = ctx.size
        pixels, stripe = height * width, height * width // averages_bnc.shape[1]
        shares_bnc = averages_bnc / stripe  # the average's gradient at each pixel of a stripe
        maps_bnsc = shares_bnc.to(ctx.dtype).unsqueeze(2).expand(-1, -1, stripe, -1)  # s: pixels of a stripe
        maps = maps_bnsc.clone(memory_format=torch.contiguous_format).view(-1)
        # A flat index, because scatter_ converts a whole bfloat16 map on the CPU and CUDA may refuse put_.
        images_b11 = torch.arange(batch, device=maps.device).view(-1, 1, 1)
        columns_c = torch.arange(channels, device=maps.device)
        flat_bnc = (images_b11 * pixels + places_bnc) * channels + columns_c
        maps[flat_bnc.flatten()] = (shares_bnc + maxima_bnc).to(ctx.dtype).flatten()
        return maps.view(batch, height, width, channels).permute(0, 3, 1, 2), None


class PartPooling(nn.Module):
    """Pool each part by average plus maximum, as the released code: maps (B, C, H, W) to (B, P, C).

    The result is float32 or wider, and its parts run fine to coarse and top to bottom. Only the stripes are
    pooled from the map; wider parts are built from their averages and maxima.

    Args:
        stripes: Number of equal horizontal stripes, which must divide the map's height.
        levels: Stripes per part of each level, ascending.
    """

    def __init__(self, stripes: int, levels: tuple[int, ...]):
        super().__init__()
        self.stripes, self.levels = stripes, levels

    def forward(self, maps_bchw: Tensor) -> Tensor:
        height, stripes = maps_bchw.shape[2], self.stripes
        if height < stripes or height % stripes:
            below = height - height % stripes
            value = f"a map of {height} rows for {stripes} stripes"
            mend = f"use a map of {f'{below} or ' if below else ''}{below + stripes} rows"
            raise InputError("stripes divide the map's height", value, mend)
        precision = torch.promote_types(maps_bchw.dtype, torch.float32)
        averages_bnc, maxima_bnc = (
            pooled_bcn1.squeeze(3).transpose(1, 2).to(precision)
            for pooled_bcn1 in _StripePooling.apply(maps_bchw, self.stripes)
        )
        sums_bpc, maxima_bpc, pooled = averages_bnc, maxima_bnc, []
        for level in range(1, self.levels[-1] + 1):
            if level > 1:  # a part = the part that is one stripe shorter + the stripe below it
                sums_bpc = sums_bpc[:, :-1] + averages_bnc[:, level - 1 :]
                maxima_bpc = torch.maximum(maxima_bpc[:, :-1], maxima_bnc[:, level - 1 :])
            if level in self.levels:
                pooled.append(sums_bpc / level + maxima_bpc)
        return torch.cat(pooled, dim=1)


class Pyramid(nn.Module):
    """Pyramid network: one trunk, and one branch for each of P overlapping body parts.

    ``forward(images)`` returns a ``PyramidOutput``; ``embed(images)`` returns the feature for matching.
    ``parts`` lists the body parts.

    Args:
        num_classes: Number of identities in training (K).
        stripes: Number of equal horizontal stripes, a divisor of the map's height; 6 in the released code.
        levels: Stripes per part of each level, from 1 to ``stripes``. None means all levels, as in the
            released code: 21 parts of 6 stripes.
        trunk: "resnet50", "resnet101" (in the released code) or "resnet39" (JLML's small trunk).
        weights: None for random weights, or "imagenet" (torchvision's trunks only).
        width: Factor on the channels of stem and trunk (resnet39 only).
        embedding_size: Length of each part's feature (D); 128 in the released code.
        dropout: Share of a part's feature set to zero before its classifier in training; released code: 0.2.
        normalisation: What ``embed`` scales to unit length: "none" (as in the released code), each "part"
            (as in YouReID) or the "whole" feature.
        generator: Random generator for the initial weights.

    Raises:
        InputError: If the arguments contradict each other, or, in ``forward`` and ``embed``, if the
            stripes do not divide the map's height.
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
            rule = "a classifier needs at least two identities"
            raise InputError(rule, f"num_classes={num_classes}", "use a larger set")
        check_pyramid(trunk, weights, width, embedding_size, dropout, normalisation)
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
        # Columns of the matching feature. Those of a level are neighbours: parts run from fine to coarse.
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
        # The released code has a 1×1 convolution for each part; this is PyTorch's default for it.
        bound = self.embedding.weight.shape[-1] ** -0.5
        for parameter in self.embedding.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        nn.init.normal_(self.classifiers.weight, std=0.001, generator=generator)
        assert self.classifiers.bias is not None
        nn.init.zeros_(self.classifiers.bias)
        if weights == "imagenet":
            stem, stages = imagenet_weights(trunk)
            self.stem.load_state_dict(stem)
            self.stages.load_state_dict(stages)

    def forward(self, images_bchw: Tensor) -> PyramidOutput:
        """Compute logits, embeddings and maps of normalised RGB images (B, 3, H, W), in every mode."""
        maps_bchw = self._maps(images_bchw)
        return PyramidOutput(*self.head(maps_bchw), maps_bchw)

    def head(self, maps_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits (B, P, K) and embeddings (B, P, D) from the trunk's map (B, C, H, W)."""
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
        """Compute the feature for matching: the parts' features, concatenated.

        Args:
            images_bchw: Normalised RGB images (B, 3, H, W).

        Returns:
            Features (B, P·D), float32, scaled according to ``normalisation``. ``branches`` maps "full" and
            the name of each level, such as "level 2", to their columns.
        """
        embeddings_bpd = self._embeddings(self._maps(images_bchw)).float()
        if self.normalisation == "part":
            embeddings_bpd = F.normalize(embeddings_bpd, dim=2)
        features_bd = embeddings_bpd.flatten(1)
        return F.normalize(features_bd, dim=1) if self.normalisation == "whole" else features_bd

    def feature_parts(self, input_height: int) -> tuple[FeaturePart, ...]:
        """Describe the parts, fine to coarse and top to bottom, for an input height that the stripes fit."""
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
        """Return the parameters before the parts, which may get a lower learning rate."""
        return [*self.stem.parameters(), *self.stages.parameters()]
