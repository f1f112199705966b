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
from reidlib.models.parts import FeaturePart, PartLinear, PartPooling
from reidlib.models.residual import Stages, Stem, TrunkShape, initialise
from reidlib.models.weights import imagenet_weights

_STRIDE = 16  # input rows for a row of the map
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


class Part(NamedTuple):
    """A stretch of neighbouring stripes, counted from the top: ``first`` to ``stop - 1``."""

    first: int
    stop: int

    @property
    def level(self) -> int:
        """Stripes that the part covers: 1 is the finest level, all stripes are the whole body."""
        return self.stop - self.first


def pyramid_parts(stripes: int, levels: Sequence[int] | None = None) -> tuple[Part, ...]:
    """The parts of a pyramid over ``stripes`` stripes, fine to coarse and top to bottom.

    levels: the levels to take (1 to ``stripes``), or None for all, which are n(n+1)/2 parts. Level ℓ has
    the n−ℓ+1 parts of ℓ neighbouring stripes.
    Raises InputError for levels that select nothing, lie outside the pyramid or repeat.
    """
    if type(stripes) is not int or stripes < 1:
        raise InputError(
            "a pyramid stands on at least one whole stripe", f"stripes={stripes!r}", "use 1 or more"
        )
    if levels is not None and not (
        isinstance(levels, Sequence) and all(type(level) is int for level in levels)
    ):
        raise InputError(
            "levels are a sequence of whole numbers, how many stripes the parts cover",
            repr(levels),
            "write (1, 6), on papermill's command line -y 'levels: [1, 6]'",
        )
    chosen = range(1, stripes + 1) if levels is None else sorted(levels)
    if not chosen:
        raise InputError(
            "levels select at least one part", f"levels={levels}", f"name some of 1 to {stripes}"
        )
    if chosen[0] < 1 or chosen[-1] > stripes:
        raise InputError(
            f"the levels of {stripes} stripes are 1 to {stripes}",
            f"levels={tuple(levels)}",
            "leave out those beyond, or use more stripes",
        )
    if len(set(chosen)) < len(chosen):
        raise InputError("each level counts once", f"levels={tuple(levels)}", "leave out the repetition")
    return tuple(Part(first, first + level) for level in chosen for first in range(stripes - level + 1))


def map_height(input_height: int) -> int:
    """Rows of the trunk's map for images of ``input_height`` rows: every stride rounds up."""
    return -(-input_height // _STRIDE)


def check_input_height(input_height: int, stripes: int) -> None:
    """Raise InputError where ``stripes`` do not divide the map of images of ``input_height`` rows.

    The message names the nearest heights that fit.
    """
    rows = map_height(input_height)
    if rows >= stripes and rows % stripes == 0:
        return
    below = rows - rows % stripes
    fitting = [str(_STRIDE * height) for height in (below, below + stripes) if height > 0]
    raise InputError(
        f"stripes divide the map's height (input height / {_STRIDE})",
        f"an input height of {input_height}: {rows} rows for {stripes} stripes",
        f"use a height of {' or '.join(fitting)}",
    )


class Output(NamedTuple):
    """What one forward pass gives, in every mode."""

    logits: Tensor  # (B, P, K) of each part's classifier
    embeddings: Tensor  # (B, P, D) after ReLU, before dropout, not normalised
    maps: Tensor  # (B, C, H, W), the trunk's last


class Pyramid(nn.Module):
    """The pyramid network.

    ``forward(images) -> Output``; ``embed(images) -> (B, P·D)`` is what matching uses.

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
            self._load_imagenet(imagenet_weights(trunk))

    def _load_imagenet(self, state: dict[str, Tensor]) -> None:
        stem = {name: value for name, value in state.items() if name.startswith(("conv1.", "bn1."))}
        stages = {  # torchvision's layer1 to layer4 are entries 0 to 3 here
            f"{int(name[5]) - 1}{name[6:]}": value
            for name, value in state.items()
            if name.startswith("layer")
        }
        self.stem.load_state_dict(stem)
        self.stages.load_state_dict(stages)

    def forward(self, images_bchw: Tensor) -> Output:
        """``(B, 3, H, W)`` normalised images -> ``Output``."""
        maps_bchw = self._maps(images_bchw)
        return Output(*self.head(maps_bchw), maps_bchw)

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


def check_settings(
    trunk: str, weights: str | None, width: float, embedding_size: int, dropout: float, normalisation: str
) -> None:
    """Raise InputError where settings of ``Pyramid`` contradict each other or make no sense."""
    if trunk not in _TRUNKS:
        raise InputError(f"trunk is one of {', '.join(_TRUNKS)}", repr(trunk), "name one of them")
    if weights is not None and (weights != "imagenet" or trunk == "resnet39"):
        raise InputError(
            "pretrained weights exist for torchvision's trunks as weights='imagenet'",
            f"trunk={trunk!r}, weights={weights!r}",
            "use resnet50 or resnet101 with 'imagenet', or weights=None",
        )
    if not width > 0 or (trunk != "resnet39" and width != 1):
        raise InputError(
            "width is a positive factor on resnet39's channels, and 1 for torchvision's trunks",
            f"width={width} with trunk={trunk!r}",
            "change width or trunk",
        )
    if embedding_size < 1:
        raise InputError(
            "a part's feature has at least one number", f"embedding_size={embedding_size}", "use 1 or more"
        )
    if not 0 <= dropout < 1:
        raise InputError(
            "dropout is a share from 0 to below 1", f"dropout={dropout}", "use 0.2, or 0 for none"
        )
    if normalisation not in ("none", "part", "whole"):
        raise InputError("normalisation is none, part or whole", repr(normalisation), "name one of them")
