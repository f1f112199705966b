"""Complexity of a model: parameters, floating-point operations, weighted depth and streams."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from reidlib.experiments.features import evaluation_mode
from reidlib.models import Pyramid
from reidlib.models.parts import pyramid_parts
from reidlib.training.config import PyramidConfiguration, RunConfiguration

# Names of the autograd nodes of layers with weights.
_WEIGHTED_NODES = (
    "ConvolutionBackward0",
    "AddmmBackward0",
    "MmBackward0",
    "BmmBackward0",
    "BaddbmmBackward0",
)


class Complexity(NamedTuple):
    """The numbers of the JLML paper's table of model complexity.

    Attributes:
        parameters: Number of parameters without the identity classifiers, which a re-identification network
            does not need after training.
        flops: Floating-point operations for one image; a multiplication and an addition count as two.
        weighted_depth: Layers with weights on the longest path from the image to the identity.
        streams: Number of parallel streams.
        classifier_parameters: Number of parameters of the identity classifiers.
    """

    parameters: int
    flops: int
    weighted_depth: int
    streams: int
    classifier_parameters: int


def complexity(model: nn.Module, input_size: tuple[int, int]) -> Complexity:
    """Measure a model's complexity by one forward pass of one image.

    The model's mode, weights and batch statistics do not change.

    Args:
        model: A JLML or Pyramid model. Any other module needs the attributes ``classifiers`` and ``streams``
            and returns a NamedTuple with ``logits``.
        input_size: Height and width of the image, in pixels.

    Returns:
        The model's complexity.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *input_size, device=device)
    classifiers = sum(parameter.numel() for parameter in cast(nn.Module, model.classifiers).parameters())
    parameters = sum(parameter.numel() for parameter in model.parameters()) - classifiers
    with evaluation_mode(model), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        output = model(image)
    return Complexity(
        parameters,
        counter.get_total_flops(),
        _weighted_depth(output.logits),
        cast(int, model.streams),
        classifiers,
    )


def _weighted_depth(output: Tensor) -> int:
    """Return the most layers with weights on any path through the autograd graph of ``output``."""
    depth: dict[Any, int] = {}
    stack: list[Any] = [output.grad_fn]
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


def format_operations(count: int) -> str:
    """Format a number of operations as the JLML paper does, such as 1.54e9."""
    digits, exponent = f"{count:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


def row_costs(
    configurations: Mapping[str, RunConfiguration], num_classes: int = 751
) -> dict[str, Complexity]:
    """Return the complexity of each row's network, built without training, with so many identities."""
    return {
        row: complexity(configuration.model.build(num_classes, 0), configuration.input_size)
        for row, configuration in configurations.items()
    }


def cost_table(costs: Mapping[str, Complexity], heading: str, baseline: str) -> pd.DataFrame:
    """Return parameters without and with classifiers, and operations for one image, as a table."""
    lines = []
    for row, cost in costs.items():
        share = f"{100 * cost.parameters / costs[baseline].parameters:.1f} %"
        total = f"{cost.parameters + cost.classifier_parameters:,}"
        lines.append((row, f"{cost.parameters:,}", share, total, format_operations(cost.flops)))
    columns = [heading, "parameters", f"against {baseline}", "with classifiers", "operations"]
    return pd.DataFrame(lines, columns=columns)


def pyramid_table(configurations: Mapping[str, RunConfiguration]) -> pd.DataFrame:
    """Return parts, feature length and the trunk's learning rate of each pyramid, as a table."""
    lines = []
    for row, configuration in configurations.items():
        assert isinstance(configuration.model, PyramidConfiguration) and configuration.recipe
        parts = len(pyramid_parts(configuration.model.stripes, configuration.model.levels))
        rate = configuration.recipe.learning_rate * configuration.recipe.trunk_rate
        lines.append((row, parts, parts * configuration.model.embedding_size, f"{rate:.3g}"))
    return pd.DataFrame(lines, columns=["row", "parts", "length of feature", "trunk's learning rate"])


def layer_table(model: nn.Module, input_size: tuple[int, int]) -> list[dict[str, str | int]]:
    """List a model's layers in the order in which they run.

    Args:
        model: The model.
        input_size: Height and width of the image, in pixels.

    Returns:
        A row for each direct child, or for each entry of a child that is a sequence (the stages of a trunk):
        its name (``layer``), the shape of its output without the batch (``output``), and its number of
        ``parameters``.
    """
    rows: list[dict[str, str | int]] = []

    def add_row(name: str, layer: nn.Module, _, output: Tensor) -> None:
        shape = " × ".join(map(str, output.shape[1:]))
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        rows.append({"layer": name, "output": shape, "parameters": parameters})

    with ExitStack() as hooks, evaluation_mode(model), torch.inference_mode():
        for name, child in model.named_children():
            sequence = isinstance(child, (nn.Sequential, nn.ModuleList))
            for index, layer in enumerate(child if sequence else (child,), start=1):
                title = f"{name} {index}" if sequence else name
                hooks.enter_context(layer.register_forward_hook(partial(add_row, title)))
        model(torch.zeros(1, 3, *input_size, device=next(model.parameters()).device))
    return rows


# Counted: parameters of the released Pyramid at 384×128 with 751 identities, without its second, unused set
# of 21 branches.
RELEASED_PYRAMID = {"trunk": 42_500_160, "embeddings": 5_513_088, "classifiers": 2_034_459}


def pyramid_parameters(model: Pyramid) -> dict[str, int]:
    """Count the parameters of a Pyramid network's trunk, embeddings and classifiers."""
    embeddings = [*model.embedding.parameters(), *model.norm.parameters()]
    groups = model.trunk_parameters(), embeddings, model.classifiers.parameters()
    return {
        name: sum(weight.numel() for weight in weights)
        for name, weights in zip(RELEASED_PYRAMID, groups, strict=True)
    }


def pyramid_budget(model: Pyramid) -> list[dict[str, str | int]]:
    """Return the parameters of the released code, of this suite's paper-sized Pyramid and of ``model``."""
    paper_sized = PyramidConfiguration().build(751, seed=0)
    assert isinstance(paper_sized, Pyramid)
    return [
        {"network": "released code, 384×128", **RELEASED_PYRAMID},
        {"network": "this suite's, paper-sized", **pyramid_parameters(paper_sized)},
        {"network": "this run", **pyramid_parameters(model)},
    ]
