"""JLML against its published budget and against the naive loop over streams."""

import re

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from reidlib.analysis.complexity import complexity, layer_table
from reidlib.errors import InputError
from reidlib.models.jlml import JLML, stripe_rows
from reidlib.models.residual import Stages


def one_stream(grouped: nn.Module, single: nn.Module, stream: int, streams: int) -> nn.Module:
    """Copy one stream's slice of a grouped module's weights into a module of a single stream."""
    state = {
        name: tensor.chunk(streams)[stream] if tensor.dim() else tensor
        for name, tensor in grouped.state_dict().items()
    }
    single.load_state_dict(state)
    return single


def naive_streams(model: JLML, shape) -> list[nn.Module]:
    channels = model.shared.conv1.out_channels
    return [
        one_stream(model.local_streams, Stages(shape, inputs=channels).double(), part, model.parts)
        for part in range(model.parts)
    ]


def naive_forward(model: JLML, streams: list[nn.Module], images_bchw):
    """The plain form of the network: a Python loop over the stripes."""
    low_level = model.shared(images_bchw)
    global_feature = model.global_norm(model.global_feature(model.global_stream(low_level).mean((2, 3))))
    rows = stripe_rows(low_level.shape[2], model.parts)
    stripes = []
    for part, (stream, (first, last)) in enumerate(zip(streams, rows, strict=True)):
        pooled = stream(low_level[:, :, first:last]).mean((2, 3))
        stripes.append(pooled @ model.local_feature.weight[part].T)
    return global_feature, model.local_norm(torch.cat(stripes, dim=1))


def local_shape(width):
    from reidlib.models import jlml

    return jlml._RESNET39.scaled(0.5 * width)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("parts", [2, 4, 5])
def test_grouped_streams_equal_the_naive_loop(parts, training):
    torch.manual_seed(0)
    model = JLML(5, parts=parts, width=0.125, feature_size=40).train(training).double()
    for block in model.modules():  # the last batch norm of a bottleneck starts at zero
        if isinstance(block, nn.BatchNorm2d):
            nn.init.uniform_(block.weight, 0.5, 1.5)
            nn.init.uniform_(block.running_mean, -0.1, 0.1)
    streams = [stream.train(training) for stream in naive_streams(model, local_shape(0.125))]
    images = torch.randn(3, 3, 48, 32, dtype=torch.double)

    expected_global, expected_local = naive_forward(model, streams, images)
    actual_global, actual_local = model(images).embeddings
    torch.testing.assert_close(actual_global, expected_global)
    torch.testing.assert_close(actual_local, expected_local)

    actual_local.square().sum().backward()
    actual = [p.grad.chunk(parts) for p in model.local_streams.parameters()]
    model.zero_grad()
    _, expected_local = naive_forward(model, streams, images)
    expected_local.square().sum().backward()
    for part, stream in enumerate(streams):
        for grouped, single in zip(actual, stream.parameters(), strict=True):
            torch.testing.assert_close(grouped[part], single.grad)


def test_published_budget():
    """JLML, table of model complexity: 7.2 M parameters, 1.54e9 FLOPs at 224×224, depth 39, 5 streams."""
    measured = complexity(JLML(751), (224, 224))
    assert measured.weighted_depth == 39
    assert measured.streams == 5
    assert measured.parameters == pytest.approx(7.2e6, rel=0.02)
    assert measured.flops == pytest.approx(1.54e9, rel=0.01)


def test_layer_table_lists_every_layer_in_order():
    model = JLML(5, width=0.5)
    rows = layer_table(model, (128, 64))
    assert [row["layer"] for row in rows[:3]] == ["shared", "global_stream 1", "global_stream 2"]
    assert {row["layer"]: row["output"] for row in rows}["shared"] == "32 × 32 × 16"
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in model.parameters())


def test_complexity_changes_nothing():
    model = JLML(3, width=0.125).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        complexity(model, (64, 32))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("parts", "size"), [(2, 1024), (4, 1024), (6, 1022), (8, 1024), (10, 1022)]
)  # the part counts of the paper's ablation
def test_features_of_every_part_count(parts, size):
    model = JLML(5, parts=parts, width=0.125).eval()
    with torch.inference_mode():
        features = model.embed(torch.randn(2, 3, 64, 32))
    assert features.shape == (2, size)
    for name in ("global", "local"):
        torch.testing.assert_close(features[:, model.branches[name]].norm(dim=1), torch.ones(2))
    assert features[:, model.branches["full"]].shape == features.shape


@pytest.mark.parametrize(("multi_loss", "sizes"), [(True, [512, 512]), (False, [1024])])
def test_a_classifier_for_each_branch_or_a_joint_one(multi_loss, sizes):
    model = JLML(7, multi_loss=multi_loss, width=0.125)
    assert [classifier.in_features for classifier in model.classifiers] == sizes
    assert model(torch.randn(2, 3, 64, 32)).logits.shape == (2, len(sizes), 7)


def test_each_branch_learns_from_its_own_loss_only():
    """The paper's independence: the local loss sends no gradient into the global stream, and vice versa."""
    model = JLML(4, width=0.125)
    model(torch.randn(4, 3, 64, 32)).logits[:, 1].square().sum().backward()
    assert not any(parameter.grad.any() for parameter in model.global_stream.parameters())
    assert all(parameter.grad.any() for parameter in model.shared.parameters())
    model.zero_grad()
    model(torch.randn(4, 3, 64, 32)).logits[:, 0].square().sum().backward()
    assert not any(parameter.grad.any() for parameter in model.local_streams.parameters())


def test_without_the_shared_stem_the_branches_share_nothing():
    shared = set(map(id, JLML(4, width=0.125).parameters()))
    model = JLML(4, width=0.125, shared_stem=False)
    assert len(list(model.parameters())) == len(shared) + 3  # convolution and batch norm of a second stem
    model(torch.randn(4, 3, 64, 32)).logits[:, 1].square().sum().backward()
    assert not any(parameter.grad.any() for parameter in model.shared.parameters())
    assert all(parameter.grad.any() for parameter in model.local_stem.parameters())


@pytest.mark.parametrize("shared_stem", [True, False])
def test_the_trunk_is_everything_before_the_feature_layers(shared_stem):
    model = JLML(4, width=0.125, shared_stem=shared_stem)
    trunk = set(map(id, model.trunk_parameters()))
    later = {name.split(".")[0] for name, value in model.named_parameters() if id(value) not in trunk}
    assert later == {"global_feature", "local_feature", "global_norm", "local_norm", "classifiers"}
    assert len(model.trunk_parameters()) == len(trunk)


def test_the_same_seed_gives_the_same_weights():
    first, second, other = (
        JLML(4, width=0.125, generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["shared.conv1.weight"], other["shared.conv1.weight"])


@pytest.mark.parametrize("height", [7, 8, 14, 56])
@pytest.mark.parametrize("parts", [1, 2, 3, 4, 6])
def test_stripes_are_equal_and_cover_the_map(height, parts):
    rows = stripe_rows(height, parts)
    assert len(rows) == parts
    assert len({last - first for first, last in rows}) == 1
    assert rows[0][0] == 0
    assert rows[-1][1] == height
    assert set().union(*(range(first, last) for first, last in rows)) == set(range(height))
    if height % parts == 0:
        assert rows == tuple((p * height // parts, (p + 1) * height // parts) for p in range(parts))


def resnet50_checkpoint(folder) -> dict:
    """Save a state with torchvision's names and shapes at the path of its ImageNet weights."""
    state = resnet50(weights=None).state_dict()
    (folder / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state, folder / "hub" / "checkpoints" / "resnet50-0676ba61.pth")
    return state


def test_resnet50_trunk_takes_torchvisions_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    state = resnet50_checkpoint(tmp_path)
    model = JLML(3, parts=2, trunk="resnet50", weights="imagenet").eval().double()
    reference = resnet50(weights=None)
    reference.load_state_dict(state)
    reference.eval().double()
    images = torch.randn(2, 3, 64, 32, dtype=torch.double)
    with torch.inference_mode():
        low_level = reference.layer1(
            reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        )
        expected = reference.layer4(reference.layer3(reference.layer2(low_level)))
        global_map, local_maps = model(images).maps
        torch.testing.assert_close(global_map, expected)
        for part, rows in enumerate((slice(0, 8), slice(8, 16))):
            stripe = low_level[:, :, rows]
            expected = reference.layer4(reference.layer3(reference.layer2(stripe)))
            torch.testing.assert_close(local_maps[:, part], expected)


def test_missing_imagenet_weights_say_where_to_place_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=r"resnet50-0676ba61\.pth.*place it as.*weights=None"):
        JLML(3, trunk="resnet50", weights="imagenet")


def test_a_download_without_a_terminal_is_one_line_on_standard_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    bars = []

    def offline(*_, progress, **__):
        bars.append(progress)
        raise OSError("no connection")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError):
        JLML(3, trunk="resnet50", weights="imagenet")
    results, messages = capsys.readouterr()
    assert (results, bars) == ("", [False])
    assert re.fullmatch(r"Downloading: .*resnet50-0676ba61\.pth\n", messages)


def test_the_local_width_changes_the_local_streams_only():
    usual, narrow = (JLML(3, width=0.5, local_width=factor) for factor in (1.0, 0.5))

    def sizes(layers):
        return [tuple(parameter.shape) for parameter in layers.parameters()]

    assert sizes(usual.global_stream) == sizes(narrow.global_stream)
    assert sizes(usual.shared) == sizes(narrow.shared)
    assert narrow.local_feature.weight.shape == (4, 128, 64)
    assert usual.local_feature.weight.shape == (4, 128, 128)


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"num_classes": 1}, "two identities"),
        ({"parts": 0}, "part"),
        ({"parts": 600}, "part"),
        ({"trunk": "vgg"}, "trunk is"),
        ({"weights": "imagenet"}, "pretrained"),
        ({"width": 0}, "width"),
        ({"trunk": "resnet50", "width": 0.5}, "width"),
        ({"local_width": 0}, "local_width is a positive factor"),
        ({"trunk": "resnet50", "local_width": 0.5}, "local_width"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, rule):
    with pytest.raises(InputError, match=rule):
        JLML(**{"num_classes": 3, **arguments})


def test_more_parts_than_rows_is_refused():
    with pytest.raises(InputError, match="4 rows can be cut into 1 to 4"):
        JLML(3, parts=8, width=0.125)(torch.randn(1, 3, 16, 16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    model = JLML(5, width=0.25).eval()
    images = torch.randn(4, 3, 64, 32)
    with torch.inference_mode():
        expected = model.embed(images)
        actual = model.cuda().to(memory_format=torch.channels_last).embed(images.cuda()).cpu()
    torch.testing.assert_close(actual, expected, rtol=0, atol=5e-3)
