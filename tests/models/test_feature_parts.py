"""Parts of the matching feature: their columns cover it, and their rows are those the network uses."""

import pytest
import torch
from torch import nn

from reidlib.models.jlml import JLML
from reidlib.models.pyramid import Pyramid
from reidlib.models.residual import Bottleneck

NETWORKS = {
    "jlml, 4 parts": lambda: JLML(3, width=0.125, feature_size=32),
    "jlml, 3 parts of 16 rows": lambda: JLML(3, parts=3, width=0.125, feature_size=32),
    "pyramid": lambda: Pyramid(3, trunk="resnet39", width=0.125, embedding_size=32, stripes=4),
    "pyramid, two levels": lambda: Pyramid(
        3, trunk="resnet39", width=0.125, embedding_size=32, stripes=4, levels=(4, 1)
    ),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_columns_partition_the_feature(network):
    model = NETWORKS[network]().eval()
    parts = model.feature_parts(64)
    covered = [column for part in parts for column in range(part.columns.start, part.columns.stop)]
    features_bd = model.embed(torch.randn(2, 3, 64, 32))
    assert covered == list(range(features_bd.shape[1]))
    assert len({part.name for part in parts}) == len(parts)
    for kind in {part.kind for part in parts}:
        columns = [part.columns for part in parts if part.kind == kind]
        branch = model.branches.get(kind, model.branches["full"])
        assert (columns[0].start, columns[-1].stop) == (branch.start, branch.stop)


@pytest.mark.parametrize("network", NETWORKS)
def test_a_part_is_computed_from_its_rows(network):
    torch.manual_seed(0)
    model = NETWORKS[network]().eval()
    for layer in model.modules():
        if isinstance(layer, Bottleneck):  # else an untrained one passes on only its strided input
            nn.init.ones_(layer.bn3.weight)
    maps = {}
    layer = model.shared if isinstance(model, JLML) else model.stages
    layer.register_forward_hook(lambda module, inputs, output: maps.update(last=output))
    output = model(torch.randn(16, 3, 64, 32))
    # Before any normalisation, which makes the parts of a branch depend on each other.
    embeddings = output.embeddings
    features_bd = torch.cat(embeddings, 1) if isinstance(embeddings, tuple) else embeddings.flatten(1)
    height = maps["last"].shape[2]
    for part in model.feature_parts(64):
        (gradient,) = torch.autograd.grad(features_bd[:, part.columns].sum(), maps["last"], retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero()[:, 0].tolist()
        first, last = (round(share * height) for share in part.rows)
        assert rows == list(range(first, last)), part
