"""A whole training step of Pyramid with the ResNet-50 trunk at 384 × 128: images/s, share of the peak.

Run with `pytest tests/benchmarks/test_pyramid_training_speed.py -s` on a machine with a GPU. The step is what
the loop does: augmentation from resident uint8 images, forward, both losses, the balance, backward, SGD.
Operations are counted on the network (a multiplication and an addition as two); the peak is what one large
matrix product reaches in the same precision on the same device, in the same run.
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

# An input of None is the profile's.
IDENTITIES, BATCHES, INPUT, WIDTH, REPETITIONS, PRODUCT = 751, (64, 256), None, 1.0, 10, 8192
TRUNK, NEEDS_GPU = "resnet50", True
SMALL = {
    "IDENTITIES": 9, "BATCHES": (16,), "INPUT": (192, 32), "WIDTH": 0.25, "REPETITIONS": 1, "PRODUCT": 64,
    "TRUNK": "resnet39", "NEEDS_GPU": False,
}  # fmt: skip


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


def measure(execution: Execution, batch: int, mode: str) -> str:
    device = execution.torch_device
    settings = PyramidConfiguration(trunk=TRUNK, width=WIDTH, balancing=Balancing(mode))
    profile = PROFILES["full"].size_of("pyramid")
    height, width = INPUT or profile.input_size
    model: Pyramid = settings.build(IDENTITIES, seed=0)
    model.to(device, memory_format=torch.channels_last).train()
    forward = torch.compile(model) if execution.compile else model
    images_bchw = torch.randint(256, (batch, height, width, 3), dtype=torch.uint8, device=device).permute(
        0, 3, 1, 2
    )
    labels_b = torch.arange(batch, device=device) // profile.recipe.images_per_identity
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, fused=True)
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

    seconds = seconds_of(step, device, repetitions=REPETITIONS)
    with FlopCounterMode(display=False) as counter:
        with execution.autocast():
            output = model(augment(images_bchw, generator, **asdict(profile.recipe.augmentation)))
        settings.objective(model, output, labels_b, balance._replace(balanced=True))[0].total.backward()
    rate = counter.get_total_flops() / seconds
    peak = reached_by_a_product(device, execution.dtype, PRODUCT)
    dtype = str(execution.dtype).removeprefix("torch.")
    return (
        f"training Pyramid ({TRUNK}, {height} × {width}, batch {batch}, "
        f"balancing {mode}{', compiled' if execution.compile else ''}) on {execution.describe()}, {dtype}: "
        f"{batch / seconds:.0f} images/s, {rate / 1e12:.1f} TFLOP/s, {100 * rate / peak:.0f} % of a large "
        f"product's {peak / 1e12:.0f} TFLOP/s"
    )


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("mode", ["off", "paper"])
def test_whole_step(mode, compiled):
    if NEEDS_GPU and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    if compiled and not torch.cuda.is_available():
        pytest.skip("torch.compile needs a compiler on a CPU")
    for batch in BATCHES:
        print("\n" + measure(Execution(progress=False, compile=compiled), batch, mode))
