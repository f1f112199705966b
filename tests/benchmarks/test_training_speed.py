"""A training step of JLML against its naive form: five streams in a loop, NCHW, float32.

Run with `pytest tests/benchmarks -s`. Both forms run in turn in one process, so that their ratio holds on a
machine whose speed drifts.
"""

import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.experiments.rows import PROFILES
from reidlib.models.jlml import _RESNET39, _RESNET39_STEM, stripe_rows
from reidlib.models.residual import Stages, Stem
from reidlib.training.config import JLMLConfiguration
from reidlib.training.device import Execution
from reidlib.training.losses import exclusive_sparsity, group_sparsity

IDENTITIES, ROUNDS, STEPS = 130, 7, 3


class NaiveJLML(nn.Module):
    """The same network as one writes it down first: a module and a loop turn for every stream."""

    def __init__(self, width: float, parts: int):
        super().__init__()
        channels = round(_RESNET39_STEM * width)
        shape, local_shape = _RESNET39.scaled(width), _RESNET39.scaled(0.5 * width)
        self.shared = Stem(channels)
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

    def objective(self, images_bchw: Tensor, labels_b: Tensor) -> Tensor:
        identity = sum(F.cross_entropy(logits, labels_b) for logits in self(images_bchw))
        local = torch.stack([feature.weight for feature in self.local_features])
        return identity + 5e-4 * (group_sparsity(self.global_feature.weight) + exclusive_sparsity(local))


def test_training_images_per_second():
    profile = PROFILES["quick"].sizes["jlml"]
    width = profile.overrides["width"]
    execution = Execution(progress=False)
    device, batch = execution.torch_device, profile.recipe.batch_size
    images_bchw = torch.randn(batch, 3, *profile.input_size, device=device)
    labels_b = torch.randint(IDENTITIES, (batch,), device=device)

    naive = NaiveJLML(width, parts=4).to(device)
    settings = JLMLConfiguration(width=width)
    ours = settings.build(IDENTITIES, seed=0).to(device, memory_format=torch.channels_last)
    assert sum(p.numel() for p in naive.parameters()) == sum(p.numel() for p in ours.parameters())
    fast_images = images_bchw.contiguous(memory_format=torch.channels_last)

    def our_loss() -> Tensor:
        with execution.autocast():
            output = ours(fast_images)
        return settings.objective(ours, output, labels_b)[0].total

    def seconds(model: nn.Module, loss) -> float:
        optimiser = torch.optim.SGD(
            model.parameters(), lr=1e-4, momentum=0.9, nesterov=True, foreach=model is ours or None
        )
        start = time.perf_counter()
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss().backward()
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / STEPS

    pairs = [
        (seconds(naive, lambda: naive.objective(images_bchw, labels_b)), seconds(ours, our_loss))
        for _ in range(ROUNDS + 1)
    ][1:]  # the first round warms up
    ratio = statistics.median(slow / fast for slow, fast in pairs)
    rate = batch / statistics.median(fast for _, fast in pairs)
    precision = str(execution.dtype).removeprefix("torch.")
    print(
        f"\ntraining JLML (quick) on {execution.describe()}, {precision}: {rate:.0f} images/s, "
        f"{ratio:.2f} times the naive form (five streams in a loop, NCHW, float32)"
    )
    # Without bfloat16 instructions only the grouping and the memory format are left to gain from.
    assert ratio >= (2.0 if execution.dtype == torch.bfloat16 else 1.0)
