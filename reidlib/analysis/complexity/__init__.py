"""Complexity of a model: parameters, operations, weighted depth and streams; speed and memory of its passes.

``layer_tables`` enumerates the layer tables that JLML may have had.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.resnet import Bottleneck

from reidlib.experiments.features import evaluation_mode
from reidlib.models import Pyramid
from reidlib.models.parts import pyramid_parts
from reidlib.ranking.distances import full_float32
from reidlib.training.config import JLMLConfiguration, PyramidConfiguration, RunConfiguration

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
        flops: Operations of all convolutions and matrix products for one image, those of the classifiers
            included; a multiplication and an addition count as two. Biases, batch norm, activations and
            pooling are not counted.
        weighted_depth: Layers with weights on the longest path from the image to the identity.
        streams: Number of parallel streams.
        classifier_parameters: Number of parameters of the identity classifiers.
    """

    parameters: int
    flops: int
    weighted_depth: int
    streams: int
    classifier_parameters: int

    @property
    def multiply_adds(self) -> int:
        """The operations in the other convention: a multiplication with its addition counts as one."""
        return self.flops // 2


def complexity(model: nn.Module, input_size: tuple[int, int]) -> Complexity:
    """Measure a model's complexity by one forward pass of one image.

    The model's mode, weights and batch statistics do not change.

    Args:
        model: A JLML or Pyramid model, or a module with one stream that returns scores of classes, computed
            by its last linear layer. On the device "meta" it needs neither memory nor time.
        input_size: Height and width of the image, in pixels.

    Returns:
        The model's complexity.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *input_size, device=device)
    linear_layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    classifiers = cast(nn.Module, getattr(model, "classifiers", None) or linear_layers[-1])
    in_classifiers = sum(parameter.numel() for parameter in classifiers.parameters())
    parameters = sum(parameter.numel() for parameter in model.parameters()) - in_classifiers
    with evaluation_mode(model), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        output = model(image)
    depth = _weighted_depth(getattr(output, "logits", output))
    streams = cast(int, getattr(model, "streams", 1))
    return Complexity(parameters, counter.get_total_flops(), depth, streams, in_classifiers)


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


def format_operations(count: float) -> str:
    """Format a number of operations as the JLML paper does, such as 1.54e9."""
    digits, exponent = f"{count:.2e}".split("e")
    return f"{digits}e{int(exponent)}"


class Network(NamedTuple):
    """An untrained network that can be built here and in another process.

    Attributes:
        build: Returns the network.
        input_size: Height and width of its images, in pixels.
    """

    build: Callable[[], nn.Module]
    input_size: tuple[int, int] = (224, 224)


# The networks of JLML's table of model complexity, named as in published/complexity.csv, and Pyramid.
NETWORKS = {
    "AlexNet": Network(models.alexnet),
    "VGG16": Network(partial(models.vgg16, init_weights=False)),
    "ResNet50": Network(models.resnet50),
    "GoogLeNet": Network(partial(models.googlenet, aux_logits=False, init_weights=False)),
    "JLML-ResNet39": Network(partial(JLMLConfiguration().build, 751, 0)),
    "Pyramid": Network(partial(PyramidConfiguration().build, 751, 0), (384, 128)),
}


def _first_alexnet(groups: int) -> nn.Module:
    """Return AlexNet with the widths of 2012, and layers 2, 4 and 5 in ``groups`` groups of channels."""
    network, inputs = models.alexnet(), 3
    layers = [index for index, layer in enumerate(network.features) if isinstance(layer, nn.Conv2d)]
    widths, splits = (96, 256, 384, 384, 256), (1, groups, 1, groups, groups)
    for index, width, split in zip(layers, widths, splits, strict=True):
        layer = cast(Any, network.features[index])
        sizes = layer.kernel_size, layer.stride, layer.padding
        network.features[index] = nn.Conv2d(inputs, width, *sizes, groups=split)
        inputs = width
    return network


def _first_resnet50() -> nn.Module:
    """Return ResNet-50 with the stride on the first 1×1 convolution of a stage."""
    network = models.resnet50()
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return network


def _first_googlenet() -> nn.Module:
    """Return GoogLeNet with 5×5 convolutions where torchvision has 3×3 ones."""
    network = NETWORKS["GoogLeNet"][0]()
    for module in network.modules():
        if isinstance(module, Inception):
            layer = cast(BasicConv2d, module.branch3[1])
            inputs, outputs = layer.conv.in_channels, layer.conv.out_channels
            layer.conv = nn.Conv2d(inputs, outputs, 5, padding=2, bias=False)
    return network


# Three of them as they were first published, from which torchvision's differ: recalled, not read again.
FIRST_VERSIONS = {
    "AlexNet (2012)": Network(partial(_first_alexnet, 2)),
    "AlexNet (2012), no groups": Network(partial(_first_alexnet, 1)),
    "ResNet50 (2015)": Network(_first_resnet50),
    "GoogLeNet (2014)": Network(_first_googlenet),
}


def count_networks(networks: Mapping[str, Network]) -> dict[str, Complexity]:
    """Return the complexity of each network, without memory for its weights."""
    with torch.device("meta"):
        return {name: complexity(build(), size) for name, (build, size) in networks.items()}


class ForwardPass(NamedTuple):
    """What forward passes took on this machine.

    Attributes:
        images_per_second: Batch divided by the median time of the timed passes.
        memory: Most bytes that torch's allocator held at a time beyond weights and images: the network's maps
            and the allocations inside operations. None on devices whose allocator does not say.
    """

    images_per_second: float
    memory: int | None


def measure_forward(network: Network, *, batch: int, repetitions: int, device: torch.device) -> ForwardPass:
    """Build a network and measure its forward passes in float32 and evaluation mode.

    Args:
        network: The network.
        batch: Images of a pass.
        repetitions: Timed passes; one before them is not timed.
        device: Device of the passes.

    Returns:
        The measurement.
    """
    model = network.build().eval().to(device)
    images = torch.rand(batch, 3, *network.input_size, device=device)
    with torch.inference_mode(), full_float32(device):
        memory = peak_memory(lambda: model(images), device)
        seconds = median_seconds(lambda: model(images), repetitions, device, warm=True)
    return ForwardPass(batch / seconds, memory)


def median_seconds(
    action: Callable[[], object], repetitions: int, device: torch.device, *, warm: bool = False
) -> float:
    """Return the median duration of an action on a device; unless it is warm, after one that is not timed."""
    wait = torch.accelerator.synchronize if device.type != "cpu" else lambda: None
    seconds = []
    for _ in range(repetitions + (not warm)):
        wait()
        start = time.perf_counter()
        action()
        wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[-repetitions:])


def peak_memory(action: Callable[[], object], device: torch.device) -> int | None:
    """Run an action and return the most memory of torch's allocator, less that from before it."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler writes notes for its authors to stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        action()
    if device.type != "cpu":
        return None
    with tempfile.TemporaryDirectory() as folder:
        profiler.export_chrome_trace(str(file := Path(folder) / "trace.json"))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted((event for event in events if event["name"] == "[memory]"), key=itemgetter("ts"))
    return max(accumulate(event["args"]["Bytes"] for event in changes), default=0)


def row_costs(
    configurations: Mapping[str, RunConfiguration], num_classes: int = 751
) -> dict[str, Complexity]:
    """Return the complexity of each row's network, built without training, with so many identities."""
    networks = {
        row: Network(partial(configuration.model.build, num_classes, 0), configuration.input_size)
        for row, configuration in configurations.items()
    }
    return count_networks(networks)


def cost_table(costs: Mapping[str, Complexity], heading: str, baseline: str) -> pd.DataFrame:
    """Return parameters without and with classifiers, and operations for one image, as a table."""
    lines = []
    for row, cost in costs.items():
        share = f"{100 * cost.parameters / costs[baseline].parameters:.1f} %"
        total = f"{cost.parameters + cost.classifier_parameters:,}"
        lines.append((row, f"{cost.parameters:,}", share, total, format_operations(cost.flops)))
    columns = [heading, "parameters", f"against {baseline}", "with classifiers", "operations (two each)"]
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
