"""How fast training and ranking are on this machine, beside what the machine can do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from reidlib.analysis.complexity import median_seconds, peak_memory
from reidlib.data.augmentation import augment, normalise_images
from reidlib.experiments.rows import EXPERIMENTS, Profile, configure
from reidlib.ranking.metrics import Embeddings
from reidlib.training.config import RunConfiguration
from reidlib.training.device import Execution

# A copy of this many bytes leaves every cache; a product of this size keeps all cores of its device busy.
_COPY = {"cuda": 2**30}
_PRODUCT = {"cuda": 8192}


class Roof(NamedTuple):
    """What this machine reaches at most, measured: both roofs of a roofline.

    Attributes:
        operations: Operations a second of a large square matrix product in the training's precision, a
            multiplication and an addition as two.
        bytes: Bytes a second that a copy of a large tensor reads and writes.
    """

    operations: float
    bytes: float


class Step(NamedTuple):
    """A training step and the embedding of the same images, measured.

    Attributes:
        images: Images of the batch.
        parameters: Weights of the network, with its classifiers.
        seconds: Median duration of a step.
        embedding_seconds: Median duration of the embedding of as many images.
        operations: Operations of the step's convolutions and matrix products (torch's ``FlopCounterMode``).
        bytes: Bytes of all tensors that the step's operations read and write, each operation by itself: what
            would move between memory and processor if no cache kept anything from one operation to the next.
        memory: Most bytes that torch's allocator held in a step beyond what it held before; None if unknown.
    """

    images: int
    parameters: int
    seconds: float
    embedding_seconds: float
    operations: int
    bytes: int
    memory: int | None


def measure_roof(execution: Execution, *, repetitions: int = 5, scale: float = 1) -> Roof:
    """Measure a large matrix product and a large copy on a device.

    Args:
        execution: Device and precision.
        repetitions: Timed products and copies.
        scale: Factor on the product's rows and the copy's bytes, for a first look.

    Returns:
        Operations and bytes a second.
    """
    device, dtype = execution.torch_device, execution.dtype
    size = round(scale * _PRODUCT.get(device.type, 2048))
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    product = median_seconds(lambda: left @ right, repetitions, device)
    source = torch.zeros(round(scale * _COPY.get(device.type, 2**28)), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = median_seconds(lambda: target.copy_(source), repetitions, device)
    return Roof(2 * size**3 / product, 2 * len(source) / copy)


def configuration(row: str, profile: Profile) -> RunConfiguration:
    """Return a row's configuration in a profile, from random weights: weights change no time."""
    configured, _ = configure(row, profile, benchmark="", data="")
    return replace(configured, model=replace(configured.model, weights=None))


def distinct_networks(profile: Profile) -> list[str]:
    """Return the first row of each network: rows that differ in losses only have the same."""
    first: dict[tuple, str] = {}
    with torch.device("meta"):
        for row in EXPERIMENTS:
            configured = configuration(row, profile)
            weights = configured.model.build(2, 0).state_dict()
            shapes = tuple((name, tensor.shape) for name, tensor in weights.items())
            first.setdefault((configured.input_size, shapes), row)
    return list(first.values())


def measure_step(
    configuration: RunConfiguration, execution: Execution, *, num_classes: int = 130, repetitions: int = 5
) -> Step:
    """Measure training steps of a network on random images: augmentation, forward, losses, backward, SGD.

    Args:
        configuration: Network, objective, recipe and size of the images.
        execution: Device, precision and compilation.
        num_classes: Number of identities.
        repetitions: Timed steps; one before them is not timed.

    Returns:
        The measurement.
    """
    recipe, device = configuration.recipe, execution.torch_device
    settings: Any = configuration.model  # each has the objective of its own balance
    assert recipe is not None
    batch, augmentation = recipe.batch_size, asdict(recipe.augmentation)
    model = settings.build(num_classes, 0).to(device).to(memory_format=torch.channels_last)
    forward = torch.compile(model) if execution.compile else model
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, fused=True)
    generator = torch.Generator().manual_seed(0)
    size = (batch, *configuration.input_size, 3)
    images_bchw = torch.randint(256, size, dtype=torch.uint8, generator=generator).to(device)
    images_bchw = images_bchw.permute(0, 3, 1, 2)
    labels_b = torch.arange(batch, device=device) // max(1, recipe.images_per_identity) % num_classes
    balance = settings.balance
    if balance is not None:
        balance = balance._replace(balanced=True)  # the dearer of the steps, with triplets

    def step() -> None:
        inputs_bchw = augment(images_bchw, generator, **augmentation)
        with execution.autocast():
            output = forward(inputs_bchw)
        terms, _ = settings.objective(model, output, labels_b, balance)
        optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        optimiser.step()

    def embed() -> None:
        with torch.inference_mode(), execution.autocast():
            model.embed(normalise_images(images_bchw))

    model.train()
    seconds = median_seconds(step, repetitions, device)
    with FlopCounterMode(display=False) as counter, _Traffic() as traffic:
        step()
    optimiser.zero_grad(set_to_none=True)
    memory = peak_memory(step, device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    model.eval()
    embedding = median_seconds(embed, repetitions, device)
    operations = counter.get_total_flops()
    return Step(batch, parameters, seconds, embedding, operations, traffic.bytes, memory)


class _Traffic(TorchDispatchMode):
    """Sums the bytes of every operation's inputs and outputs; views move nothing."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return output


def random_embeddings(count: int, length: int, *, persons: int = 750, seed: int = 0) -> Embeddings:
    """Draw unit features (count, length) around one centre for each person, with persons and six cameras."""
    centres = np.random.default_rng(0).standard_normal((persons + 1, length), np.float32)
    generator = np.random.default_rng(seed)
    person_ids = generator.integers(1, persons + 1, count)
    features = centres[person_ids]
    features += 2 * generator.standard_normal(features.shape, np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return Embeddings(features, person_ids, generator.integers(1, 7, count))


def measure_growth(
    actions: Mapping[str, Callable[[Embeddings], object]],
    sizes: Sequence[int],
    *,
    length: int = 512,
    repetitions: int = 3,
) -> pd.DataFrame:
    """Time actions on galleries of several sizes, each smaller one the beginning of the larger ones.

    Args:
        actions: Name to a function of the gallery.
        sizes: Numbers of gallery images.
        length: Numbers of a feature.
        repetitions: Timed calls; one before them is not timed.

    Returns:
        Median seconds, with a row for each size and a column for each action.
    """
    whole, rows, cpu = random_embeddings(max(sizes), length, seed=1), {}, torch.device("cpu")
    sides = (whole.features, whole.person_ids, whole.camera_ids)
    for size in sizes:
        calls = {
            name: partial(action, Embeddings(*(side[:size] for side in sides)))
            for name, action in actions.items()
        }
        rows[size] = {name: median_seconds(call, repetitions, cpu) for name, call in calls.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("gallery images")
