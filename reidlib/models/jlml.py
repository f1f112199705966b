"""JLML: one global and several local streams on shared low-level features.

Li, Zhu, Gong: "Person Re-Identification by Deep Joint Learning of Multi-Loss Classification", IJCAI 2017.

    images ── stem ──┬── global stream ────────────────── pool ── feature (512) ── identity classifier
                     └── m stripes ── m local streams ── pool ── m features (512/m each, concatenated
                                                                  to 512) ── identity classifier

We had neither the text of the paper nor its authors' code. Branches, streams, shared layers and losses were
read on slides about it; ``analysis.benchmark_tables.constants_table`` says how everything else is known. The
layer table is a reconstruction that meets the published budget: 39 weighted layers (counted), 5 streams,
7.2 M parameters and 1.54e9 FLOPs at 224×224, if a multiplication and an addition count as two. The slides'
other networks are in multiply-adds (counted); this network has 0.77e9 of them, half as many as GoogLeNet. Of
6,048 layer tables of the recalled depths, none has 7.2 M parameters and 1.54e9 multiply-adds; ten have these
parameters and operations if each counts as two (``analysis.complexity.layer_tables``).
Recalled, not confirmed:
  - The depths of the stages and the widths of the global stream, of which a local stream has half.
  - The stripes are cut from the map of the shared layers, not from the image.
  - Each branch's feature is scaled to unit length before the two are concatenated for matching.
Our choice:
  - The shared low-level layers are a 7×7 convolution and a 3×3 max-pool, both with stride 2.
  - Each stripe has a feature layer of its own; recalled is only that 512 values follow the joined stripes.
  - Batch norm follows the feature layer (``feature_norm``).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart, check_jlml
from reidlib.models.residual import (
    PartLinear,
    Stages,
    Stem,
    TrunkShape,
    imagenet_weights,
    initialise,
    repeat_streams,
)

# The global stream, as we recall it. A local stream has half of its widths.
# That the first convolution of a stage has its stride is our choice.
# The published 39 layers are stem + 3·(3+4+2+3) + feature + classifier.
_RESNET39 = TrunkShape((3, 4, 2, 3), (32, 64, 128, 256), expansion=2, stride_on="first", strides=(1, 2, 2, 2))
_RESNET39_STEM = 64  # our choice
_LOW_LEVEL_STRIDE = 4  # input rows per row of the shared low-level map
# torchvision's ResNet-50: the stem and layer1 are shared, layer2 to layer4 are the streams.
_RESNET50_SHARED = TrunkShape((3,), (64,), expansion=4, stride_on="second", strides=(1,))
_RESNET50 = TrunkShape((4, 6, 3), (128, 256, 512), expansion=4, stride_on="second", strides=(2, 2, 2))


class JLMLOutput(NamedTuple):
    """Output of one forward pass, the same in training and in evaluation.

    Attributes:
        logits: Scores of the K identities: (B, 2, K) from the global and the local classifier, or
            (B, 1, K) from the joint classifier (``multi_loss=False``).
        embeddings: Features of the global and of the local branch, (B, D) each, not normalised.
        maps: Last maps of the global stream, (B, C, H, W), and of the local streams, (B, P, C, h, w).
    """

    logits: Tensor
    embeddings: tuple[Tensor, Tensor]
    maps: tuple[Tensor, Tensor]


def stripe_rows(height: int, parts: int) -> tuple[tuple[int, int], ...]:
    """Return rows ``(start, stop)`` of ``parts`` equally high stripes that cover ``height`` rows of a map."""
    if not 1 <= parts <= height:
        rule = f"a map of {height} rows can be cut into 1 to {height} stripes"
        raise InputError(rule, f"parts={parts}", "use fewer parts or a higher input image")
    # Stripes of equal height run as one operation. If ``parts`` does not divide the height, they overlap.
    rows = math.ceil(height / parts)
    starts = [round(index * (height - rows) / max(parts - 1, 1)) for index in range(parts)]
    return tuple((start, start + rows) for start in starts)


def _cut_stripes(maps_bchw: Tensor, parts: int) -> Tensor:
    """Cut maps (B, C, H, W) into stripes of h rows, whose channels are concatenated: (B, P·C, h, W)."""
    height = maps_bchw.shape[2]
    if height % parts:
        rows = [row for first, last in stripe_rows(height, parts) for row in range(first, last)]
        maps_bchw = maps_bchw.index_select(2, torch.tensor(rows, device=maps_bchw.device))
    # One gradient of the map for all stripes; slices would write one for each.
    return torch.cat(maps_bchw.unflatten(2, (parts, -1)).unbind(2), dim=1)


class JLML(nn.Module):
    """Joint network of one global and several local streams.

    ``forward(images)`` returns a ``JLMLOutput``; ``embed(images)`` returns the feature for matching.

    Args:
        num_classes: Number of identities in training (K).
        parts: Number of horizontal stripes (P), each with its own local stream; 4 on the slides.
        multi_loss: If true, each branch has its own classifier (MultiLoss of the slides). If false, one
            classifier sees the concatenated feature (UniLoss).
        shared_stem: If true, both branches share the low-level layers. If false, the local branch has its
            own copy (the slides' ablation "without shared feature"; its exact form is unknown).
        trunk: "resnet39" (reconstructed) or "resnet50" (torchvision's: stem and layer1 are shared, each
            stream has its own layer2 to layer4; about 120 M parameters with four parts).
        weights: None for random weights, or "imagenet" (resnet50 only).
        width: Factor on the channels of stem and trunk (resnet39 only).
        local_width: Further factor on the channels of the local streams (resnet39 only).
        feature_size: Length of each branch's feature; 512 is recalled. The stripes share the local feature
            equally, so its length is ``parts * (feature_size // parts)``: 510 for 6 or 10 parts.
        feature_norm: Whether batch norm follows the feature layer; our choice.
        generator: Random generator for the initial weights.

    Raises:
        InputError: If the arguments contradict each other, or if a map has fewer rows than ``parts``.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        parts: int = 4,
        multi_loss: bool = True,
        shared_stem: bool = True,
        trunk: Literal["resnet39", "resnet50"] = "resnet39",
        weights: Literal["imagenet"] | None = None,
        width: float = 1.0,
        local_width: float = 1.0,
        feature_size: int = 512,
        feature_norm: bool = True,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if num_classes < 2:
            rule = "a classifier needs at least two identities"
            raise InputError(rule, f"num_classes={num_classes}", "use a larger set")
        check_jlml(trunk, weights, width, local_width, parts, feature_size)
        self.parts = parts
        self.multi_loss = multi_loss
        self.streams = 1 + parts

        if trunk == "resnet39":
            channels = max(1, round(_RESNET39_STEM * width))
            shape = _RESNET39.scaled(width)
            local_shape = shape.scaled(0.5 * local_width)
            self.shared = Stem(channels)
            local_stem = Stem(channels)
        else:
            shape = local_shape = _RESNET50
            channels = _RESNET50_SHARED.out_channels
            self.shared = nn.Sequential(Stem(64), Stages(_RESNET50_SHARED, inputs=64))
            local_stem = nn.Sequential(Stem(64), Stages(_RESNET50_SHARED, inputs=64))
        self.local_stem = None if shared_stem else local_stem
        self.global_stream = Stages(shape, inputs=channels)
        self.local_streams = Stages(local_shape, inputs=channels, streams=parts)

        stripe_size = feature_size // parts
        local_size = parts * stripe_size
        # Batch norm would subtract a bias again, so there is none before it.
        self.global_feature = nn.Linear(shape.out_channels, feature_size, bias=not feature_norm)
        self.local_feature = PartLinear(parts, local_shape.out_channels, stripe_size, bias=not feature_norm)
        self.global_norm = nn.BatchNorm1d(feature_size) if feature_norm else nn.Identity()
        self.local_norm = nn.BatchNorm1d(local_size) if feature_norm else nn.Identity()

        sizes = (feature_size, local_size) if multi_loss else (feature_size + local_size,)
        self.classifiers = nn.ModuleList(nn.Linear(size, num_classes) for size in sizes)
        # Columns of the matching feature: one embedding gives all three rows of the paper's tables.
        self.branches = {
            "global": slice(0, feature_size),
            "local": slice(feature_size, feature_size + local_size),
            "full": slice(0, feature_size + local_size),
        }
        self._initialise(weights, generator)

    def _initialise(self, weights: str | None, generator: torch.Generator | None) -> None:
        initialise(self, generator)
        for feature in (self.global_feature, self.local_feature):
            nn.init.normal_(feature.weight, std=feature.weight.shape[-1] ** -0.5, generator=generator)
            if feature.bias is not None:
                nn.init.zeros_(feature.bias)
        for classifier in self.classifiers:
            assert isinstance(classifier, nn.Linear)
            nn.init.normal_(classifier.weight, std=0.01, generator=generator)
            nn.init.zeros_(classifier.bias)
        if weights == "imagenet":
            self._load_imagenet(*imagenet_weights("resnet50"))

    def _load_imagenet(self, stem: dict[str, Tensor], stages: dict[str, Tensor]) -> None:
        first = {name: tensor for name, tensor in stages.items() if name.startswith("0.")}
        # The first stage is shared, so the streams' stage 0 is torchvision's stage 1.
        later = {f"{int(name[0]) - 1}{name[1:]}": stages[name] for name in stages.keys() - first.keys()}
        for low_level in (self.shared, self.local_stem):
            if isinstance(low_level, nn.Sequential):
                low_level[0].load_state_dict(stem)
                low_level[1].load_state_dict(first)
        self.global_stream.load_state_dict(later)
        self.local_streams.load_state_dict(repeat_streams(later, self.parts))

    def forward(self, images_bchw: Tensor) -> JLMLOutput:
        """Compute logits, embeddings and maps of normalised RGB images (B, 3, H, W), in every mode."""
        low_level = self.shared(images_bchw)
        local_level = low_level if self.local_stem is None else self.local_stem(images_bchw)
        stripes = _cut_stripes(local_level, self.parts)

        global_map = self.global_stream(low_level)
        local_map = self.local_streams(stripes)
        pooled_bc = global_map.mean((2, 3))
        pooled_bpc = local_map.mean((2, 3)).unflatten(1, (self.parts, -1))

        global_bd = self.global_norm(self.global_feature(pooled_bc))
        local_bd = self.local_norm(self.local_feature(pooled_bpc).flatten(1))

        embeddings = (global_bd, local_bd)
        classified = embeddings if self.multi_loss else (torch.cat(embeddings, dim=1),)
        logits = [classify(x) for classify, x in zip(self.classifiers, classified, strict=True)]
        logits_bpk = torch.stack(logits, dim=1)
        return JLMLOutput(logits_bpk, embeddings, (global_map, local_map.unflatten(1, (self.parts, -1))))

    def embed(self, images_bchw: Tensor) -> Tensor:
        """Compute the feature for matching: each branch scaled to unit length (recalled), then concatenated.

        Args:
            images_bchw: Normalised RGB images (B, 3, H, W).

        Returns:
            Features (B, D), float32. ``branches`` maps "global", "local" and "full" to their columns.
        """
        embeddings = self(images_bchw).embeddings
        return torch.cat([F.normalize(x.float(), dim=1) for x in embeddings], dim=1)

    def feature_parts(self, input_height: int) -> tuple[FeaturePart, ...]:
        """Describe the global stream and, from top to bottom, the local streams for an input height."""
        low_level_rows = -(-input_height // _LOW_LEVEL_STRIDE)
        stripes = stripe_rows(low_level_rows, self.parts)
        begin, size = self.branches["local"].start, self.local_feature.weight.shape[1]
        return (
            FeaturePart("global", "global", self.branches["global"], (0.0, 1.0)),
            *(
                FeaturePart(
                    f"local {index + 1}",
                    "local",
                    slice(begin + index * size, begin + (index + 1) * size),
                    (first / low_level_rows, last / low_level_rows),
                )
                for index, (first, last) in enumerate(stripes)
            ),
        )

    def feature_weights(self) -> tuple[Tensor, Tensor]:
        """Return the weights that feature selection acts on (recalled): global (D, C), local (P, D/P, C)."""
        return self.global_feature.weight, self.local_feature.weight

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters before the feature layers, which may get a lower learning rate."""
        trunk = (self.shared, self.local_stem, self.global_stream, self.local_streams)
        return [parameter for layers in trunk if layers is not None for parameter in layers.parameters()]
