"""What a model costs: parameters, floating-point operations, weighted depth, streams."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reidlib.experiments.features import evaluating
from reidlib.models import Pyramid
from reidlib.training.config import PyramidConfiguration

# Names of autograd nodes that belong to a layer with weights.
_WEIGHTED_NODES = (
    "ConvolutionBackward0",
    "AddmmBackward0",
    "MmBackward0",
    "BmmBackward0",
    "BaddbmmBackward0",
)


class Complexity(NamedTuple):
    """The figures of the JLML paper's table of model complexity."""

    parameters: int  # without the identity classifiers, as a re-identification network is counted
    flops: int  # of one image; a multiplication and an addition count as two
    weighted_depth: int  # layers with weights on the longest path from image to identity
    streams: int


def complexity(model: nn.Module, input_size: tuple[int, int]) -> Complexity:
    """Measure a model by one forward pass of one image of ``input_size`` (height, width).

    The model returns a NamedTuple with ``logits`` and has ``classifiers`` and ``streams``. Its mode,
    weights and batch statistics are left as they were.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *input_size, device=device)
    classifiers = sum(parameter.numel() for parameter in model.classifiers.parameters())
    parameters = sum(parameter.numel() for parameter in model.parameters()) - classifiers
    with evaluating(model), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        output = model(image)
    return Complexity(
        parameters,
        counter.get_total_flops(),
        _weighted_depth(output.logits),
        model.streams,
    )


def _weighted_depth(output: Tensor) -> int:
    """Most weighted layers on any path through the autograd graph that made ``output``."""
    depth: dict = {}
    stack = [output.grad_fn]
    while stack:  # post-order without recursion: the graph is hundreds of nodes deep
        node = stack[-1]
        inputs = [next_node for next_node, _ in node.next_functions if next_node is not None]
        waiting = [next_node for next_node in inputs if next_node not in depth]
        if waiting:
            stack.extend(waiting)
            continue
        stack.pop()
        deepest = max((depth[next_node] for next_node in inputs), default=0)
        depth[node] = deepest + (node.name() in _WEIGHTED_NODES)
    return depth[output.grad_fn]


def layer_table(model: nn.Module, input_size: tuple[int, int]) -> list[dict[str, str | int]]:
    """The model's layers in the order in which they run on one image of ``input_size`` (height, width).

    One row for each direct child, or for each entry of a child that is a sequence (the stages of a trunk):
    ``layer``, the shape that it gives without the batch, and its ``parameters``.
    """
    rows: list[dict[str, str | int]] = []

    def note(name: str, layer: nn.Module, _, output: Tensor) -> None:
        shape = " × ".join(map(str, output.shape[1:]))
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        rows.append({"layer": name, "output": shape, "parameters": parameters})

    with ExitStack() as hooks, evaluating(model), torch.inference_mode():
        for name, child in model.named_children():
            sequence = isinstance(child, (nn.Sequential, nn.ModuleList))
            for index, layer in enumerate(child if sequence else (child,), start=1):
                title = f"{name} {index}" if sequence else name
                hooks.enter_context(layer.register_forward_hook(partial(note, title)))
        model(torch.zeros(1, 3, *input_size, device=next(model.parameters()).device))
    return rows


# Parameters of the released Pyramid code at 384×128 with 751 identities, without its second, unused set of
# 21 branches.
RELEASED_PYRAMID = {"trunk": 42_500_160, "embeddings": 5_513_088, "classifiers": 2_034_459}


def pyramid_parameters(model: Pyramid) -> dict[str, int]:
    """The parameters of a Pyramid network's trunk, embeddings and classifiers."""
    embeddings = [*model.embedding.parameters(), *model.norm.parameters()]
    groups = model.trunk_parameters(), embeddings, model.classifiers.parameters()
    return {
        name: sum(weight.numel() for weight in weights)
        for name, weights in zip(RELEASED_PYRAMID, groups, strict=True)
    }


def pyramid_budget(model: Pyramid) -> list[dict[str, str | int]]:
    """The parameters of the released code, of this suite's paper-sized Pyramid and of ``model`` as rows."""
    paper_sized = PyramidConfiguration().build(751, seed=0)
    return [
        {"network": "released code, 384×128", **RELEASED_PYRAMID},
        {"network": "this suite's, paper-sized", **pyramid_parameters(paper_sized)},
        {"network": "this run", **pyramid_parameters(model)},
    ]
