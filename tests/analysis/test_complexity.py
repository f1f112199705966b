"""Operations, parameters, layer tables and measurements of networks, against independent counts."""

import random
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from reidlib.analysis import complexity
from reidlib.analysis.benchmark_tables import published
from reidlib.analysis.complexity import NETWORKS, Network, layer_tables
from reidlib.models.residual import Stages, TrunkShape

PRINTED = {row["model"]: row for row in published("complexity").to_dict("records")}
OTHERS = ("AlexNet", "VGG16", "ResNet50", "GoogLeNet")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def counts():
    return complexity.count_networks(NETWORKS)


@pytest.fixture(scope="module")
def tables():
    return layer_tables.enumerate_tables()


class Grouped(nn.Module):
    """A grouped convolution, a batched product and a classifier."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
        self.weight = nn.Parameter(torch.ones(3, 2, 5))
        self.score = nn.Linear(15, 7)

    def forward(self, images):
        maps = self.convolution(images.new_ones(len(images), 4, 8, 6)).mean((2, 3)).unflatten(1, (3, 2))
        return self.score(torch.bmm(maps.transpose(0, 1), self.weight).transpose(0, 1).flatten(1))


def test_operations_are_those_of_a_naive_loop():
    measured = complexity.complexity(Grouped(), (8, 6))
    naive = sum(
        1 for _ in range(6) for _ in range(4 * 3) for _ in range(2 * 3 * 3)
    )  # outputs, places, inputs
    naive += 3 * 2 * 5 + 15 * 7
    assert (measured.multiply_adds, measured.flops) == (naive, 2 * naive)
    assert measured.parameters == 6 * 2 * 9 + 6 + 3 * 2 * 5
    assert measured.classifier_parameters == 15 * 7 + 7
    assert (measured.weighted_depth, measured.streams) == (3, 1)


@pytest.mark.parametrize("name", OTHERS)
def test_torchvision_publishes_the_same_multiply_adds_and_parameters(counts, name):
    published_by_torchvision = get_model_weights(name.lower()).DEFAULT.meta
    assert counts[name].multiply_adds / 1e9 == pytest.approx(published_by_torchvision["_ops"], abs=6e-4)
    assert (
        counts[name].parameters + counts[name].classifier_parameters == published_by_torchvision["num_params"]
    )


def test_counts_without_memory_are_those_on_the_cpu(counts):
    build, size = NETWORKS["JLML-ResNet39"]
    assert complexity.complexity(build(), size) == counts["JLML-ResNet39"]


def test_depth_and_streams(counts):
    depths = {"AlexNet": 8, "VGG16": 16, "ResNet50": 50, "GoogLeNet": 22, "JLML-ResNet39": 39, "Pyramid": 102}
    assert {name: cost.weighted_depth for name, cost in counts.items()} == depths
    assert {name for name in PRINTED if int(PRINTED[name]["depth"]) != depths[name]} == {"AlexNet"}
    assert all(counts[name].streams == int(row["streams"]) for name, row in PRINTED.items())


def test_only_jlml_is_printed_with_two_operations_each(counts):
    assert list(counts) == [*PRINTED, "Pyramid"]
    for name, row in PRINTED.items():
        ratio = float(row["FLOPs"]) / counts[name].multiply_adds
        assert ratio == pytest.approx(2, rel=0.01) if name == "JLML-ResNet39" else abs(ratio - 1) < 0.1
        assert counts[name].parameters / 1e6 == pytest.approx(float(row["params_million"]), rel=0.07)


def test_in_one_convention_jlml_has_half_of_googlenets_operations(counts):
    assert 0.5 < counts["JLML-ResNet39"].multiply_adds / counts["GoogLeNet"].multiply_adds < 0.53


def test_first_versions_explain_what_is_printed():
    versions = complexity.count_networks(complexity.FIRST_VERSIONS)
    for name, cost in versions.items():
        row = PRINTED[name.split(" (")[0]]
        operations = cost.multiply_adds == pytest.approx(float(row["FLOPs"]), rel=0.016)
        parameters = abs(cost.parameters / 1e6 - float(row["params_million"])) < 0.05
        # AlexNet's row has the operations of one network and the parameters of another.
        assert (operations, parameters) == {
            "AlexNet (2012)": (True, False), "AlexNet (2012), no groups": (False, True)
        }.get(name, (True, True)), name  # fmt: skip


def built_count(table):
    """Count a layer table on layers of torch and of this suite."""
    finer, shared = table["local map"], table["shared stages"]
    pool = finer == (1, 1)
    first = nn.Conv2d(
        3, table["stem channels"], table["stem kernel"], 2, table["stem kernel"] // 2, bias=False
    )
    stem = nn.Sequential(first, nn.BatchNorm2d(table["stem channels"]))
    stride_on = {"1×1": "first", "3×3": "second"}[table["stride on"]]
    strides = ((1, 1) if pool else (2, 2), (2, 2), (2, 2), (2, 2))

    def stages(inputs, width, begin, end, strides, streams=1):
        widths = tuple(round(width * 2**stage) for stage in range(begin, end))
        strides = tuple(1 if stride == (1, 1) else stride for stride in strides)  # 1 may need no shortcut
        shape = TrunkShape((3, 4, 2, 3)[begin:end], widths, table["expansion"], stride_on, strides)
        return Stages(shape, inputs=inputs, streams=streams)

    local_strides = [strides[shared], *strides[shared + 1 :]]
    local_strides[0] = tuple(
        max(1, stride // factor) for stride, factor in zip(strides[shared], finer, strict=True)
    )
    outputs = table["width"] * table["expansion"] if shared else table["stem channels"]
    if shared:
        stem.append(nn.MaxPool2d(3, 2, 1) if pool else nn.Identity())
        stem.append(stages(table["stem channels"], table["width"], 0, 1, strides[:1]))
    elif pool:
        stem.append(nn.MaxPool2d(3, 2, 1))
    whole = stages(outputs, table["width"], shared, 4, strides[shared:])
    local_width = table["width"] * table["local width"]
    local = stages(outputs, local_width, shared, 4, local_strides, streams=4)
    length, local_length = (8 * width * table["expansion"] for width in (table["width"], round(local_width)))
    features = [nn.Linear(length, 512, bias=False)]
    joined = table["local feature"] == "joined"
    features += [nn.Linear(4 * local_length, 512, bias=False)] if joined else [
        nn.Linear(local_length, 128, bias=False) for _ in range(4)
    ]  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        maps = stem(torch.zeros(1, 3, 224, 224))
        features[0](whole(maps).mean((2, 3)))
        pooled = local(torch.cat(maps.chunk(4, dim=2), dim=1)).mean((2, 3))
        inputs = [pooled] if joined else pooled.chunk(4, dim=1)
        for layer, values in zip(features[1:], inputs, strict=True):
            layer(values)
    modules = nn.ModuleList([stem, whole, local, *features, nn.BatchNorm1d(512), nn.BatchNorm1d(512)])
    return sum(p.numel() for p in modules.parameters()), counter.get_total_flops() // 2


def test_layer_tables_are_counted_as_their_layers_are(tables):
    rows = tables.to_dict("records")
    fitting, _ = layer_tables.fitting_tables()
    chosen = [*random.Random(0).sample(rows, 6), *fitting.to_dict("records")]
    assert {row[name] for row in chosen for name in ("local map", "shared stages", "local feature")} == {
        (1, 1), (2, 1), (2, 2), 0, 1, "stripe", "joined",
    }  # fmt: skip
    with torch.device("meta"):
        for row in chosen:
            assert built_count(row) == (row["parameters"], row["multiply-adds"]), row


def test_ten_of_all_layer_tables_fit_and_only_with_two_operations_each(tables, counts):
    assert len(tables.drop_duplicates(list(layer_tables.CHOICES))) == len(tables) == 6048
    fitting, sentence = layer_tables.fitting_tables()
    near = tables[(tables["parameters"] / 7.2e6 - 1).abs() <= 0.02]
    expected = near[(2 * near["multiply-adds"] / 1.54e9 - 1).abs() <= 0.05]
    assert len(expected) == 10
    assert fitting.equals(expected)
    assert near["multiply-adds"].max() < 0.85 * 1.54e9
    assert sentence.startswith(
        "Of 6,048 layer tables, 188 have 7.2 M parameters within 2 %. None of these has"
    )
    own = counts["JLML-ResNet39"]
    without_classifiers = own.multiply_adds - 2 * 512 * 751
    assert [own.parameters, without_classifiers] in fitting[["parameters", "multiply-adds"]].values.tolist()


def test_the_script_prints_the_tables_that_fit():
    command = [sys.executable, "-m", "reidlib.analysis.complexity.layer_tables"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    sentence, heading, *lines = process.stdout.splitlines()
    assert sentence == layer_tables.fitting_tables()[1]
    assert heading.split()[-1] == "multiply-adds"
    assert len(lines) == 10
    assert not process.stderr


class Allocating(nn.Module):
    """Holds at most 6 MiB at a time, and returns 2 MiB."""

    def forward(self, images):
        first, second = torch.ones(2**20), torch.ones(2**19)
        del first
        torch.ones(3 * 2**18)
        return second


@pytest.mark.parametrize("batch", [1, 2])
def test_memory_is_the_most_that_a_pass_holds(batch):
    network = Network(Allocating, (8, 8))
    forward = complexity.measure_forward(network, batch=batch, repetitions=3, device=CPU)
    assert forward.memory == 6 * 2**20
    assert forward.images_per_second > 0
    # The stem's map before and after batch norm, in float32, is the largest pair of JLML's maps.
    jlml = complexity.measure_forward(NETWORKS["JLML-ResNet39"], batch=batch, repetitions=1, device=CPU)
    assert jlml.memory == pytest.approx(batch * 2 * 64 * 112 * 112 * 4, rel=1e-3)
