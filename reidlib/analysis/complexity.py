"""What a model costs: parameters, floating-point operations, weighted depth, streams."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reidlib.experiments.features import evaluating
from reidlib.models.parts import pyramid_parts
from reidlib.training.config import PyramidConfiguration, RunConfiguration

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


def cost_table(configurations: Mapping[str, RunConfiguration], heading: str) -> pd.DataFrame:
    """Return parameters (without classifiers) and operations for one image of each row, as a table."""
    costs = {row: complexity(one.model.build(751, 0), one.input_size) for row, one in configurations.items()}
    lines = [(row, f"{cost.parameters:,}", f"{cost.flops:.3g}") for row, cost in costs.items()]
    return pd.DataFrame(lines, columns=[heading, "parameters", "operations"])


def pyramid_table(configurations: Mapping[str, RunConfiguration]) -> pd.DataFrame:
    """Return parts, feature length and the trunk's learning rate of each pyramid, as a table."""
    lines = []
    for row, one in configurations.items():
        assert isinstance(one.model, PyramidConfiguration)
        parts = len(pyramid_parts(one.model.stripes, one.model.levels))
        rate = one.recipe.learning_rate * one.recipe.trunk_rate
        lines.append((row, parts, parts * one.model.embedding_size, f"{rate:.3g}"))
    return pd.DataFrame(lines, columns=["parts of", "parts", "feature", "trunk's learning rate"])


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
