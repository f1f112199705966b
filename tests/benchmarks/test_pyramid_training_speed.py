"""A whole training step of Pyramid with the ResNet-50 trunk at 384 × 128: images/s, share of the peak.

Run with `pytest tests/benchmarks -s` on a machine with a GPU. The step is what the loop does: augmentation
from resident uint8 images, forward, both losses, the balance, backward, SGD. Operations are counted on the
network (a multiplication and an addition as two); the peak is what one large matrix product reaches in the
same precision on the same device, in the same run.
"""

import statistics
import time
from dataclasses import asdict

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reidlib.data.augmentation import augment
from reidlib.experiments.rows import PROFILES
from reidlib.models.pyramid import Pyramid
from reidlib.training.config import PyramidConfiguration
from reidlib.training.device import Execution
from reidlib.training.dynamic import Balancing

IDENTITIES = 751


def seconds_of(step, device: torch.device, *, repetitions: int, rounds: int = 5) -> float:
    """Median over rounds of the time of one step; the first round warms up."""
    times = []
    for _ in range(rounds + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repetitions):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / repetitions)
    return statistics.median(times[1:])


def reached_by_a_product(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of a square matrix product."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds_of(lambda: left @ right, device, repetitions=10)


def measure(
    execution: Execution, batch: int, mode: str, *, repetitions: int = 10, product: int = 8192
) -> str:
    device = execution.torch_device
    settings = PyramidConfiguration(trunk="resnet50", balancing=Balancing(mode))
    profile = PROFILES["full"].sizes["pyramid"]
    model: Pyramid = settings.build(IDENTITIES, seed=0)
    model.to(device, memory_format=torch.channels_last).train()
    forward = torch.compile(model) if execution.compile else model
    size = (batch, *profile.input_size, 3)
    images_bchw = torch.randint(256, size, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    labels_b = torch.arange(batch, device=device) // profile.recipe.images_per_identity
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, foreach=True)
    generator = torch.Generator().manual_seed(0)
    balance = settings.balance

    def step() -> None:
        nonlocal balance
        inputs_bchw = augment(images_bchw, generator, **asdict(profile.recipe.augmentation))
        with execution.autocast():
            output = forward(inputs_bchw)
        # Every step with triplets, which is the dearer one.
        terms, balance = settings.objective(model, output, labels_b, balance._replace(balanced=True))
        optimiser.zero_grad(set_to_none=True)
        terms.total.backward()
        optimiser.step()

    seconds = seconds_of(step, device, repetitions=repetitions)
    with FlopCounterMode(display=False) as counter:
        with execution.autocast():
            output = model(augment(images_bchw, generator, **asdict(profile.recipe.augmentation)))
        settings.objective(model, output, labels_b, balance._replace(balanced=True))[0].total.backward()
    rate = counter.get_total_flops() / seconds
    peak = reached_by_a_product(device, execution.dtype, product)
    dtype = str(execution.dtype).removeprefix("torch.")
    return (
        f"training Pyramid (ResNet-50, {profile.input_size[0]} × {profile.input_size[1]}, batch {batch}, "
        f"balancing {mode}{', compiled' if execution.compile else ''}) on {execution.describe()}, {dtype}: "
        f"{batch / seconds:.0f} images/s, {rate / 1e12:.1f} TFLOP/s, {100 * rate / peak:.0f} % of a large "
        f"product's {peak / 1e12:.0f} TFLOP/s"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mode", ["off", "paper"])
@pytest.mark.parametrize("batch", [64, 256])
def test_whole_step(batch, mode, compiled):
    print("\n" + measure(Execution(progress=False, compile=compiled), batch, mode))
