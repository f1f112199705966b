"""Layers of both networks: a ResNet trunk that computes S independent streams at once.

A stream is a trunk with its own weights. Streams whose maps have the same shape run as one grouped
convolution: their channels are concatenated, (B, S·C, H, W), and ``groups=S`` separates them. The result
equals that of a Python loop over the streams, with fewer and larger operations.

Sources: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (bottleneck, table 1);
Li, Zhu, Gong, IJCAI 2017 (JLML-ResNet39's depths 3, 4, 2, 3).
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn

from reidlib.errors import InputError, count_noun


@dataclass(frozen=True)
class TrunkShape:
    """Layer table of a residual trunk."""

    depths: tuple[int, ...]  # bottlenecks in each stage
    widths: tuple[int, ...]  # channels of the 3×3 convolutions in each stage
    expansion: int  # output channels of a bottleneck / width
    stride_on: Literal["first", "second"]  # the first 1×1 (He et al.) or the 3×3 (torchvision)
    strides: tuple[int, ...]  # of each stage's first bottleneck; 2 halves the map

    def __post_init__(self):
        for name, values in (("width", self.widths), ("stride", self.strides)):
            if len(values) != len(self.depths):
                value = f"{count_noun(len(values), f'{name}s')} for {count_noun(len(self.depths), 'stages')}"
                mend = f"give {count_noun(len(self.depths), f'{name}s')}"
                raise InputError(f"a trunk has one {name} for each stage", value, mend)

    @property
    def out_channels(self) -> int:
        """Return the channels of one stream's last map."""
        return self.widths[-1] * self.expansion

    def scaled(self, factor: float) -> TrunkShape:
        """Return the same trunk with ``factor`` times the channels, at least one."""
        return replace(self, widths=tuple(max(1, round(channels * factor)) for channels in self.widths))


def _convolution(streams: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    inputs, outputs, padding = streams * inputs, streams * outputs, kernel // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=streams, bias=False)


class Bottleneck(nn.Module):
    """Residual block 1×1 – 3×3 – 1×1 for S streams: (B, S·inputs, H, W) to (B, S·width·expansion, h, w)."""

    # The names of the layers are torchvision's, so that its ImageNet weights load by name.

    def __init__(self, streams: int, inputs: int, width: int, expansion: int, stride: int, stride_on: str):
        super().__init__()
        outputs = width * expansion
        first, second = (stride, 1) if stride_on == "first" else (1, stride)
        self.conv1 = _convolution(streams, inputs, width, 1, first)
        self.bn1 = nn.BatchNorm2d(streams * width)
        self.conv2 = _convolution(streams, width, width, 3, second)
        self.bn2 = nn.BatchNorm2d(streams * width)
        self.conv3 = _convolution(streams, width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(streams * outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                _convolution(streams, inputs, outputs, 1, stride), nn.BatchNorm2d(streams * outputs)
            )

    def forward(self, maps_bchw: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(maps_bchw)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        shortcut = maps_bchw if self.downsample is None else self.downsample(maps_bchw)
        return self.relu(residual.add_(shortcut))


class Stages(nn.Sequential):
    """Residual stages of S independent streams: maps (B, S·inputs, H, W) to (B, S·out_channels, h, w)."""

    def __init__(self, shape: TrunkShape, *, inputs: int, streams: int = 1):
        stages = []
        for depth, width, stride in zip(shape.depths, shape.widths, shape.strides, strict=True):
            blocks = []
            for block_stride in (stride, *[1] * (depth - 1)):
                blocks.append(
                    Bottleneck(streams, inputs, width, shape.expansion, block_stride, shape.stride_on)
                )
                inputs = width * shape.expansion
            stages.append(nn.Sequential(*blocks))
        super().__init__(*stages)


class Stem(nn.Module):
    """7×7/2 convolution, batch norm, ReLU and 3×3/2 max-pool: (B, 3, H, W) to (B, channels, H/4, W/4)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, images_bchw: Tensor) -> Tensor:
        # ReLU and maximum commute, and after pooling there is a quarter of the values.
        return self.relu(self.maxpool(self.bn1(self.conv1(images_bchw))))


class PartLinear(nn.Module):
    """Linear layers of all parts as one batched product: (B, P, C) to (B, P, D).

    ``weight`` (P, D, C) and ``bias`` (P, D) are not initialised, because the two papers initialise them
    differently. The caller sets them.

    Args:
        parts: Number of parts (P).
        inputs, outputs: Input and output length of each part (C and D).
        bias: Whether the layers have a bias; if not, ``bias`` is None.
    """

    def __init__(self, parts: int, inputs: int, outputs: int, *, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(parts, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(parts, outputs)) if bias else None

    def forward(self, inputs_bpc: Tensor) -> Tensor:
        # The weight is the first factor, so that its gradient has the weight's layout and is not copied.
        inputs_pcb = inputs_bpc.permute(1, 2, 0)
        if self.bias is None:
            outputs_pdb = torch.bmm(self.weight, inputs_pcb)
        else:
            outputs_pdb = torch.baddbmm(self.bias.unsqueeze(2), self.weight, inputs_pcb)
        return outputs_pdb.permute(2, 0, 1)


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Initialise every convolution by He's method and every batch norm as the identity, in place.

    Args:
        module: The network or a part of it.
        generator: Random generator. With one, the weights depend on nothing else.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    # The last batch norm of each bottleneck starts at zero, so that a deep trunk without pretrained weights
    # starts like a shallow one (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1).
    for layer in module.modules():
        if isinstance(layer, Bottleneck):
            nn.init.zeros_(layer.bn3.weight)


def repeat_streams(state: dict[str, Tensor], streams: int) -> dict[str, Tensor]:
    """Copy one stream's weights to several streams, as their initial weights."""
    # Grouped convolutions and batch norm store the streams' channels one after another in dimension 0.
    return {
        name: tensor.repeat(streams, *[1] * (tensor.dim() - 1)) if tensor.dim() else tensor.clone()
        for name, tensor in state.items()
    }


def imagenet_weights(trunk: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Load torchvision's ImageNet weights of a trunk.

    Args:
        trunk: "resnet50" or "resnet101"; downloaded once, into torch's hub folder (``$TORCH_HOME``).

    Returns:
        The states of the ``Stem`` and of the four ``Stages``.

    Raises:
        InputError: If there is neither the file nor a connection; the message names file and folder.
    """
    from torchvision.models import get_model_weights  # takes as long to import as torch

    # The first version: the later ones come from a longer recipe and are younger than both papers.
    weights = get_model_weights(trunk)["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    settings = {"map_location": "cpu", "weights_only": True}
    try:
        with contextlib.redirect_stdout(sys.stderr):  # for torch's line about a download, which is no result
            state = weights.get_state_dict(progress=sys.stderr.isatty(), **settings)
    except (URLError, OSError) as error:
        rule = f"weights='imagenet' needs torchvision's {file.name}"
        mend = f"download it elsewhere and place it as {file}, or train with weights=None"
        raise InputError(rule, f"no such file and no download ({error})", mend) from error
    stem, stages = {}, {}
    for name, tensor in state.items():
        if name.startswith("layer"):
            stages[f"{int(name[5]) - 1}{name[6:]}"] = tensor  # layer1 to layer4 become entries 0 to 3
        elif not name.startswith("fc."):
            stem[name] = tensor
    return stem, stages
