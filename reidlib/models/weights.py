"""torchvision's ImageNet weights, with a clear word where they cannot be downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import ResNet50_Weights, ResNet101_Weights

from reidlib.errors import InputError

# The first version of each: the later ones come from a longer recipe than either paper had.
_WEIGHTS = {"resnet50": ResNet50_Weights.IMAGENET1K_V1, "resnet101": ResNet101_Weights.IMAGENET1K_V1}


def imagenet_weights(trunk: Literal["resnet50", "resnet101"]) -> dict[str, Tensor]:
    """State of torchvision's trunk trained on ImageNet, without its classifier ``fc``.

    It is downloaded once into torch's hub folder (``$TORCH_HOME``). Raises InputError where neither the
    file nor a connection is there; the message says which file belongs where.
    """
    chosen = _WEIGHTS[trunk]
    file = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rsplit("/", 1)[-1]
    try:
        state = chosen.get_state_dict(progress=True, map_location="cpu", weights_only=True)
    except (URLError, OSError) as error:
        raise InputError(
            f"weights='imagenet' needs torchvision's {file.name}",
            f"no such file and no download ({error})",
            f"fetch it elsewhere and place it as {file}, or train with weights=None",
        ) from error
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
