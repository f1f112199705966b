"""A training step of Pyramid's 21-branch head against the loop over 21 branches.

Run with: pytest tests/benchmarks/test_pyramid_head_speed.py -s
Both forms run in turn in one process on the same map and weights of equal shapes, so that their ratio holds
on a machine whose speed drifts. A step is pooling, embeddings, classifiers, both losses, and their gradients
for the map and all weights; the trunk is not part of it.
"""

import statistics
import time

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reidlib.models.parts import Part
from reidlib.models.pyramid import Pyramid
from reidlib.training.device import Execution
from reidlib.training.losses import batch_hard_triplet, multi_branch_cross_entropy

PERSONS, IMAGES, IDENTITIES = 8, 8, 751
CHANNELS, HEIGHT, WIDTH = 2048, 24, 8
MARGIN, ROUNDS, STEPS = 1.4, 5, 2
RATIO, RATIO_CUDA = 2.0, 3.0
SMALL = {"PERSONS": 2, "IMAGES": 2, "ROUNDS": 1, "STEPS": 1, "RATIO": 0, "RATIO_CUDA": 0}


class NaiveBranch(nn.Module):
    """One part as one writes it down first."""

    def __init__(self, part: Part, stripes: int):
        super().__init__()
        rows = HEIGHT // stripes
        self.rows = slice(part.first * rows, part.stop * rows)
        self.convolution = nn.Conv2d(CHANNELS, 128, 1)
        self.norm = nn.BatchNorm2d(128)
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(128, IDENTITIES)

    def forward(self, maps_bchw: Tensor) -> tuple[Tensor, Tensor]:
        part = maps_bchw[:, :, self.rows]
        pooled = F.adaptive_avg_pool2d(part, 1) + F.adaptive_max_pool2d(part, 1)
        embedding_bd = F.relu(self.norm(self.convolution(pooled))).flatten(1)
        return self.classifier(self.dropout(embedding_bd)), embedding_bd


def naive_triplet(embedding_bd: Tensor, labels_b: Tensor) -> Tensor:
    """Batch-hard triplet loss of one branch, from all pairwise distances."""
    lengths_b1 = embedding_bd.square().sum(1, keepdim=True)
    squares_bb = lengths_b1 + lengths_b1.T - 2 * embedding_bd @ embedding_bd.T
    distances_bb = squares_bb.clamp_min(1e-12).sqrt()
    same_bb = labels_b[:, None] == labels_b
    positive_b = distances_bb.masked_fill(~same_bb, 0).amax(1)
    negative_b = distances_bb.masked_fill(same_bb, float("inf")).amin(1)
    return F.relu(positive_b - negative_b + MARGIN).mean()


def naive_loss(branches: nn.ModuleList, maps_bchw: Tensor, labels_b: Tensor, execution: Execution) -> Tensor:
    total = maps_bchw.new_zeros((), dtype=torch.float32)
    for branch in branches:
        with execution.autocast():
            logits_bk, embedding_bd = branch(maps_bchw)
        total = total + F.cross_entropy(logits_bk.float(), labels_b)
        total = total + naive_triplet(embedding_bd.float(), labels_b)
    return total


def our_loss(model: Pyramid, maps_bchw: Tensor, labels_b: Tensor, execution: Execution) -> Tensor:
    with execution.autocast():
        logits_bpk, embeddings_bpd = model.head(maps_bchw)
    identity_p = multi_branch_cross_entropy(logits_bpk, labels_b)
    return (identity_p + batch_hard_triplet(embeddings_bpd, labels_b, margin=MARGIN)).sum()


@pytest.mark.parametrize("precision", ["auto", "float32"])
def test_head_step(precision):
    execution = Execution(precision=precision, progress=False)
    device = execution.torch_device
    torch.manual_seed(0)
    labels_b = torch.arange(PERSONS, device=device).repeat_interleave(IMAGES)
    ours = Pyramid(IDENTITIES).to(device)
    naive = nn.ModuleList(NaiveBranch(part, ours.stripes) for part in ours.parts).to(device)
    head = [ours.embedding, ours.norm, ours.classifiers]
    assert sum(p.numel() for layer in head for p in layer.parameters()) == sum(
        p.numel() for p in naive.parameters()
    )
    # What a trunk hands over in this precision after its last ReLU: NCHW for the naive form, as it comes
    # when nobody asks for another format and as its pools run faster; channels last for ours.
    map_nchw = torch.randn(len(labels_b), CHANNELS, HEIGHT, WIDTH, device=device).relu().to(execution.dtype)
    map_last = map_nchw.contiguous(memory_format=torch.channels_last)

    def seconds(loss, module: nn.Module, maps_bchw: Tensor) -> float:
        maps_bchw.requires_grad_()
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(STEPS):
            module.zero_grad()
            maps_bchw.grad = None
            loss(module, maps_bchw, labels_b, execution).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / STEPS

    pairs = [
        (seconds(naive_loss, naive, map_nchw), seconds(our_loss, ours, map_last)) for _ in range(ROUNDS + 1)
    ][1:]  # the first round warms up
    ratios = [slow / fast for slow, fast in pairs]
    ratio = statistics.median(ratios)
    milliseconds = 1e3 * statistics.median(fast for _, fast in pairs)
    dtype = str(execution.dtype).removeprefix("torch.")
    print(
        f"\nstep of Pyramid's head on {execution.describe()}, {dtype}: {milliseconds:.1f} ms, "
        f"{ratio:.2f} times as fast as the loop over {len(naive)} branches "
        f"({min(ratios):.2f} to {max(ratios):.2f})"
    )
    if precision == "auto":
        assert ratio >= (RATIO_CUDA if device.type == "cuda" else RATIO)
