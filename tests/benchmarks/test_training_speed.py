"""A training step of JLML and of Pyramid (profile "quick") against its naive form, on this machine's device.

The naive form is what one writes down first: a module and a turn of a loop for each stream or part, NCHW,
float32, one loss at a time, torch's default optimiser. Both forms run in turn in one process, so that their
ratio holds on a machine whose speed drifts. Run with `pytest tests/benchmarks/test_training_speed.py -s`.
"""

import statistics
import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.experiments.rows import PROFILES
from reidlib.models.jlml import _RESNET39, _RESNET39_STEM, stripe_rows
from reidlib.models.parts import pyramid_parts
from reidlib.models.residual import Stages
from reidlib.training.config import MODELS
from reidlib.training.device import Execution
from reidlib.training.losses import exclusive_sparsity, group_sparsity

IDENTITIES, ROUNDS, STEPS = 130, 7, 3
# Two thirds of what two cores reach. Without bfloat16 instructions only grouping and memory format are left.
RATIO = 1.5
SMALL = {"IDENTITIES": 9, "ROUNDS": 1, "STEPS": 1, "RATIO": 0}
STRIPES, EMBEDDING, DROPOUT, MARGIN = 6, 128, 0.2, 1.4


def naive_stem(channels: int) -> nn.Sequential:
    """Return the first layers in the order in which they are described."""
    convolution = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
    return nn.Sequential(
        convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)
    )


class NaiveJLML(nn.Module):
    """JLML with a loop over its streams."""

    def __init__(self, width: float, parts: int = 4):
        super().__init__()
        channels = round(_RESNET39_STEM * width)
        shape, local_shape = _RESNET39.scaled(width), _RESNET39.scaled(0.5 * width)
        self.shared = naive_stem(channels)
        self.global_stream = Stages(shape, inputs=channels)
        self.local_streams = nn.ModuleList(Stages(local_shape, inputs=channels) for _ in range(parts))
        self.global_feature = nn.Linear(shape.out_channels, 512, bias=False)
        self.local_features = nn.ModuleList(
            nn.Linear(local_shape.out_channels, 512 // parts, bias=False) for _ in range(parts)
        )
        self.norms = nn.ModuleList([nn.BatchNorm1d(512), nn.BatchNorm1d(512)])
        self.classifiers = nn.ModuleList([nn.Linear(512, IDENTITIES), nn.Linear(512, IDENTITIES)])

    def forward(self, images_bchw: Tensor) -> list[Tensor]:
        low_level = self.shared(images_bchw)
        local = []
        rows = stripe_rows(low_level.shape[2], len(self.local_streams))
        streams = zip(rows, self.local_streams, self.local_features, strict=True)
        for (first, last), stream, feature in streams:
            local.append(feature(stream(low_level[:, :, first:last]).mean((2, 3))))
        features = [self.global_feature(self.global_stream(low_level).mean((2, 3))), torch.cat(local, 1)]
        heads = zip(self.classifiers, self.norms, features, strict=True)
        return [classify(norm(x)) for classify, norm, x in heads]

    def loss(self, images_bchw: Tensor, labels_b: Tensor) -> Tensor:
        identity = sum(F.cross_entropy(logits, labels_b) for logits in self(images_bchw))
        local = torch.stack([feature.weight for feature in self.local_features])
        return identity + 5e-4 * (group_sparsity(self.global_feature.weight) + exclusive_sparsity(local))


class NaivePyramid(nn.Module):
    """Pyramid with a loop over its 21 branches, each of which pools its part of the map."""

    def __init__(self, width: float):
        super().__init__()
        channels, shape = round(_RESNET39_STEM * width), _RESNET39.scaled(width)
        self.stem = naive_stem(channels)
        self.stages = Stages(shape, inputs=channels)
        for layers in (self.stages[3][0].conv1, self.stages[3][0].downsample[0]):
            layers.stride = (1, 1)  # the last stage keeps its rows
        self.parts = pyramid_parts(STRIPES, None)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(shape.out_channels, EMBEDDING, 1), nn.BatchNorm2d(EMBEDDING), nn.ReLU())
            for _ in self.parts
        )
        self.classifiers = nn.ModuleList(nn.Linear(EMBEDDING, IDENTITIES) for _ in self.parts)

    def loss(self, images_bchw: Tensor, labels_b: Tensor) -> Tensor:
        maps = self.stages(self.stem(images_bchw))
        rows, total = maps.shape[2] // STRIPES, torch.zeros(())
        same_bb = labels_b[:, None] == labels_b
        for (first, stop), branch, classify in zip(self.parts, self.branches, self.classifiers, strict=True):
            part = maps[:, :, first * rows : stop * rows]
            pooled = F.adaptive_avg_pool2d(part, 1) + F.adaptive_max_pool2d(part, 1)
            embedding_bd = branch(pooled).flatten(1)
            identity = F.cross_entropy(classify(F.dropout(embedding_bd, DROPOUT)), labels_b)
            unit_bd = F.normalize(embedding_bd)
            distances_bb = torch.cdist(unit_bd, unit_bd)
            hardest_b = distances_bb.masked_fill(~same_bb, 0).amax(1)
            nearest_b = distances_bb.masked_fill(same_bb, torch.inf).amin(1)
            total = total + identity + F.relu(hardest_b - nearest_b + MARGIN).mean()
        return total


@pytest.mark.parametrize(("row", "naive_network"), [("jlml", NaiveJLML), ("pyramid", NaivePyramid)])
def test_training_step_against_its_naive_form(row, naive_network):
    size = PROFILES["quick"].size_of(row)
    execution = Execution(progress=False)
    device, batch = execution.torch_device, size.recipe.batch_size
    images_bchw = torch.randn(batch, 3, *size.input_size, device=device)
    labels_b = torch.arange(batch, device=device) // 4

    naive = naive_network(size.overrides["width"]).to(device)
    settings = MODELS[row](**size.overrides)
    ours = settings.build(IDENTITIES, seed=0).to(device, memory_format=torch.channels_last)
    assert sum(p.numel() for p in naive.parameters()) == sum(p.numel() for p in ours.parameters())
    fast_images = images_bchw.contiguous(memory_format=torch.channels_last)
    # The dearer steps of Pyramid are those with a triplet loss.
    balance = settings.balance and settings.balance._replace(balanced=True)

    def our_loss() -> Tensor:
        with execution.autocast():
            output = ours(fast_images)
        return settings.objective(ours, output, labels_b, balance)[0].total

    def seconds(model: nn.Module, loss) -> float:
        fused = True if model is ours else None
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, fused=fused)
        start = time.perf_counter()
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / STEPS

    pairs = [
        (seconds(naive, lambda: naive.loss(images_bchw, labels_b)), seconds(ours, our_loss))
        for _ in range(ROUNDS + 1)
    ][1:]  # the first round warms up
    ratio = statistics.median(slow / fast for slow, fast in pairs)
    rate = batch / statistics.median(fast for _, fast in pairs)
    precision = str(execution.dtype).removeprefix("torch.")
    print(
        f"\ntraining {row} (quick) on {execution.describe()}, {precision}: {rate:.0f} images/s, "
        f"{ratio:.2f} times the naive form (loop over streams or parts, NCHW, float32)"
    )
    assert ratio >= (RATIO if execution.dtype == torch.bfloat16 else min(1.0, RATIO))
