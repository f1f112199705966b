"""Pyramid against the naive network with a branch for each part, and its part table by hand."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet50

from reidlib.analysis.complexity import complexity, layer_table, pyramid_budget
from reidlib.errors import InputError
from reidlib.models.parts import Part, check_input_height, map_height, pyramid_parts
from reidlib.models.pyramid import PartPooling, Pyramid


def small_pyramid(num_classes=5, **arguments) -> Pyramid:
    """Build a pyramid with few channels and a fixed seed."""
    settings = {"trunk": "resnet39", "width": 0.03, "embedding_size": 6, **arguments}
    return Pyramid(num_classes, generator=torch.Generator().manual_seed(0), **settings)


def random_maps(model: Pyramid, *, batch=5, dtype=torch.float32):
    """Return a map with stripes of 2×3 and without equal numbers, so that every maximum is unique."""
    channels = model.embedding.weight.shape[2]
    return torch.randn(batch, channels, 2 * model.stripes, 3, dtype=dtype, requires_grad=True)


class NaiveBranch(nn.Module):
    """The plain form of one part: slice, two pools, 1×1 convolution, batch norm, classifier."""

    def __init__(self, model: Pyramid, index: int):
        super().__init__()
        self.part, self.stripes = model.parts[index], model.stripes
        outputs, inputs = model.embedding.weight.shape[1:]
        self.convolution = nn.Conv2d(inputs, outputs, 1)
        self.norm = nn.BatchNorm2d(outputs)
        self.classifier = nn.Linear(outputs, model.classifiers.weight.shape[1])
        columns = slice(index * outputs, (index + 1) * outputs)
        with torch.no_grad():
            self.convolution.weight.copy_(model.embedding.weight[index, :, :, None, None])
            self.convolution.bias.copy_(model.embedding.bias[index])
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(self.norm, name).copy_(getattr(model.norm, name)[columns])
            self.classifier.weight.copy_(model.classifiers.weight[index])
            self.classifier.bias.copy_(model.classifiers.bias[index])

    def forward(self, maps_bchw):
        rows = maps_bchw.shape[2] // self.stripes
        part = maps_bchw[:, :, self.part.first * rows : self.part.stop * rows]
        pooled = F.adaptive_avg_pool2d(part, 1) + F.adaptive_max_pool2d(part, 1)
        embedding_bd = F.relu(self.norm(self.convolution(pooled))).flatten(1)
        return self.classifier(embedding_bd), embedding_bd


def naive_head(branches, maps_bchw):
    logits, embeddings = zip(*(branch(maps_bchw) for branch in branches), strict=True)
    return torch.stack(logits, 1), torch.stack(embeddings, 1)


def with_random_norm(model: Pyramid) -> Pyramid:
    """Give the norm and the classifiers random values, as after some training."""
    with torch.no_grad():
        for tensor in (model.norm.weight, model.norm.running_var):
            tensor.uniform_(0.5, 1.5)
        for tensor in (model.norm.bias, model.norm.running_mean):
            tensor.uniform_(-0.5, 0.5)
        model.classifiers.weight.normal_()
        model.classifiers.bias.normal_()
    return model


def assert_equals_naive(model: Pyramid, maps_bchw, **tolerance):
    """Check that outputs, all gradients and running statistics of both forms agree."""
    branches = nn.ModuleList(NaiveBranch(model, index) for index in range(len(model.parts)))
    branches.to(maps_bchw).train(model.training)
    sizes = (layer.bias.shape for layer in (model.classifiers, model.embedding))
    # A random weight for every value of both outputs, so that no terms of the loss cancel.
    weights = [torch.randn(len(maps_bchw), *size).to(maps_bchw) for size in sizes]

    def differentiate(head, module):
        output = head(maps_bchw)
        maps_bchw.grad = None
        module.zero_grad()
        sum((x * weight).sum() for x, weight in zip(output, weights, strict=True)).backward()
        return output, maps_bchw.grad

    actual, actual_gradient = differentiate(model.head, model)
    expected, expected_gradient = differentiate(lambda maps: naive_head(branches, maps), branches)

    def stack(get):
        return torch.stack([get(branch) for branch in branches])

    def close(ours, naive):
        torch.testing.assert_close(ours.reshape(naive.shape), naive, **tolerance)

    close(actual[0], expected[0])
    close(actual[1], expected[1])
    close(actual_gradient, expected_gradient)
    close(model.embedding.weight.grad, stack(lambda b: b.convolution.weight.grad))
    close(model.embedding.bias.grad, stack(lambda b: b.convolution.bias.grad))
    close(model.norm.weight.grad, stack(lambda b: b.norm.weight.grad))
    close(model.norm.bias.grad, stack(lambda b: b.norm.bias.grad))
    close(model.classifiers.weight.grad, stack(lambda b: b.classifier.weight.grad))
    close(model.classifiers.bias.grad, stack(lambda b: b.classifier.bias.grad))
    close(model.norm.running_mean, stack(lambda b: b.norm.running_mean))
    close(model.norm.running_var, stack(lambda b: b.norm.running_var))


PYRAMIDS = [{}, {"levels": (1, 6)}, {"levels": (3,)}, {"stripes": 4}, {"stripes": 1}, {"levels": (5, 2)}]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("arguments", PYRAMIDS, ids=str)
def test_batched_parts_equal_the_naive_branches(arguments, memory_format, training):
    torch.manual_seed(0)
    model = with_random_norm(small_pyramid(dropout=0.0, **arguments)).double().train(training)
    maps = random_maps(model, dtype=torch.double).detach().contiguous(memory_format=memory_format)
    assert_equals_naive(model, maps.requires_grad_(), rtol=1e-9, atol=1e-9)


def test_batched_parts_equal_the_naive_branches_in_float32():
    torch.manual_seed(0)
    model = with_random_norm(small_pyramid(dropout=0.0))
    assert_equals_naive(model, random_maps(model, batch=32), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_batched_parts_equal_the_naive_branches_on_cuda(memory_format):
    torch.manual_seed(0)
    model = with_random_norm(small_pyramid(dropout=0.0)).double().cuda()
    maps = random_maps(model, dtype=torch.double).detach().cuda()
    assert_equals_naive(
        model, maps.contiguous(memory_format=memory_format).requires_grad_(), rtol=1e-9, atol=1e-9
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_equals_cpu():
    model = small_pyramid().eval()
    images = torch.randn(4, 3, 96, 32)
    with torch.inference_mode():
        expected = model.embed(images)
        actual = model.cuda().to(memory_format=torch.channels_last).embed(images.cuda()).cpu()
    torch.testing.assert_close(actual, expected, rtol=0, atol=5e-3)


def test_pooling_by_hand():
    """Two stripes of two rows and one column: 1 2 | 5 3."""
    maps = torch.tensor([1.0, 2.0, 5.0, 3.0]).view(1, 1, 4, 1).requires_grad_()
    pooled = PartPooling(2, (1, 2))(maps)
    assert pooled.flatten().tolist() == [1.5 + 2, 4 + 5, 2.75 + 5]
    (pooled.flatten() * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert maps.grad.flatten().tolist() == [25.5, 26.5, 5 + 25 + 110, 30]


def test_the_gradient_of_a_tie_goes_to_one_place_of_a_stripe():
    maps = torch.ones(1, 1, 4, 2, requires_grad=True)
    PartPooling(1, (1,))(maps).sum().backward()
    assert sorted(maps.grad.flatten().tolist()) == [0.125] * 7 + [1.125]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_pooling_gradient_against_finite_differences(memory_format):
    torch.manual_seed(0)
    maps = torch.randn(2, 2, 6, 2, dtype=torch.double).contiguous(memory_format=memory_format)
    assert torch.autograd.gradcheck(PartPooling(3, (1, 2, 3)), maps.requires_grad_())


def test_pooling_of_a_bfloat16_map_is_float32_and_near():
    torch.manual_seed(0)
    maps = torch.rand(2, 8, 24, 8).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    pooling = PartPooling(6, (1, 2, 3, 4, 5, 6))
    low, exact = maps.clone().requires_grad_(), maps.double().requires_grad_()
    pooled, expected = pooling(low), pooling(exact)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled.double(), expected, rtol=2**-9, atol=0)
    pooled.square().sum().backward()
    expected.square().sum().backward()
    assert low.grad.dtype == torch.bfloat16
    # Equal maxima of two stripes share a wider part's gradient in the same way in both.
    torch.testing.assert_close(low.grad.double(), exact.grad, rtol=0.01, atol=0)


def test_parts_of_three_stripes_by_hand():
    fine, middle, body = [(0, 1), (1, 2), (2, 3)], [(0, 2), (1, 3)], [(0, 3)]
    assert pyramid_parts(3) == tuple(fine + middle + body)
    assert pyramid_parts(3, [3, 1]) == tuple(fine + body)
    assert Part(1, 3).level == 2
    assert len(pyramid_parts(6)) == 21


@given(st.integers(1, 12), st.data())
def test_part_tables(stripes, data):
    levels = data.draw(st.none() | st.lists(st.integers(1, stripes), min_size=1, unique=True))
    parts = pyramid_parts(stripes, levels)
    assert len(set(parts)) == len(parts)
    assert list(parts) == sorted(parts, key=lambda part: (part.level, part.first))
    assert all(0 <= part.first < part.stop <= stripes for part in parts)
    for level in levels or range(1, stripes + 1):
        level_parts = [part for part in parts if part.level == level]
        assert len(level_parts) == stripes - level + 1
        assert set().union(*(range(part.first, part.stop) for part in level_parts)) == set(range(stripes))
    if levels is None:
        assert len(parts) == stripes * (stripes + 1) // 2


def test_published_sizes():
    """The released network with 751 identities: trunk, heads, classifiers; map and feature at 384×128."""
    with torch.device("meta"):
        model = Pyramid(751, trunk="resnet101")
        output = model.eval()(torch.empty(1, 3, 384, 128))
        assert model.embed(torch.empty(1, 3, 384, 128)).shape == (1, 2688)

    def count(parameters):
        return sum(parameter.numel() for parameter in parameters)

    assert count(model.trunk_parameters()) == 42_500_160
    assert count([*model.embedding.parameters(), *model.norm.parameters()]) == 5_513_088
    assert count(model.classifiers.parameters()) == 2_034_459
    assert count(model.parameters()) == 42_500_160 + 5_513_088 + 2_034_459
    assert output.maps.shape == (1, 2048, 24, 8)
    assert output.logits.shape == (1, 21, 751)
    assert output.embeddings.shape == (1, 21, 128)


def test_every_parameter_learns():
    model = small_pyramid()
    model(torch.randn(4, 3, 96, 32)).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_complexity_counts_one_stream_and_every_weighted_layer():
    model = small_pyramid(levels=(1, 2))
    measured = complexity(model, (96, 32))
    assert measured.streams == 1
    assert measured.weighted_depth == 1 + 3 * (3 + 4 + 2 + 3) + 2
    rows = layer_table(model, (96, 32))
    assert [row["layer"] for row in rows[-4:]] == ["pooling", "embedding", "norm", "classifiers"]
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in model.parameters())


def test_the_budget_of_the_paper_sized_network_is_the_released_ones():
    model = small_pyramid()
    released, paper_sized, this_run = pyramid_budget(model)
    assert {**released, "network": ""} == {**paper_sized, "network": ""}
    this_run.pop("network")
    assert sum(this_run.values()) == sum(parameter.numel() for parameter in model.parameters())


def test_initial_weights():
    model = Pyramid(50, trunk="resnet39", width=0.25)
    bound = model.embedding.weight.shape[2] ** -0.5
    for parameter in model.embedding.parameters():
        assert 0.99 * bound < parameter.abs().max() <= bound
    assert model.classifiers.weight.std().item() == pytest.approx(0.001, rel=0.02)
    assert not model.classifiers.bias.any()


def test_the_same_seed_gives_the_same_weights():
    def state(seed):
        generator = torch.Generator().manual_seed(seed)
        return Pyramid(4, trunk="resnet39", width=0.05, generator=generator).state_dict()

    first, second, other = state(3), state(3), state(4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("stem.conv1.weight", "embedding.weight", "embedding.bias", "classifiers.weight"):
        assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("normalisation", ["none", "part", "whole"])
def test_matching_feature(normalisation):
    model = small_pyramid(normalisation=normalisation).eval()
    images = torch.randn(2, 3, 96, 32)
    with torch.inference_mode():
        features = model.embed(images)
        embeddings = model(images).embeddings
    assert features.dtype == torch.float32
    assert features.shape == (2, 21 * 6)
    expected = {
        "none": embeddings.flatten(1),
        "part": (embeddings / embeddings.norm(dim=2, keepdim=True).clamp_min(1e-12)).flatten(1),
        "whole": embeddings.flatten(1) / embeddings.flatten(1).norm(dim=1, keepdim=True),
    }
    torch.testing.assert_close(features, expected[normalisation])
    assert len({tuple(x[0].tolist()) for x in expected.values()}) == 3


def test_branches_name_the_columns_of_each_level():
    model = small_pyramid(stripes=4, levels=(2, 4, 1)).eval()
    assert list(model.branches) == ["full", "level 1", "level 2", "level 4"]
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 32)
        features, embeddings = model.embed(images), model(images).embeddings
    torch.testing.assert_close(features[:, model.branches["full"]], features)
    for level in (1, 2, 4):
        rows = [index for index, part in enumerate(model.parts) if part.level == level]
        columns = features[:, model.branches[f"level {level}"]]
        torch.testing.assert_close(columns, embeddings[:, rows].flatten(1))
    assert list(small_pyramid(levels=(2,)).branches) == ["full"]


def test_dropout_acts_on_the_logits_in_training_only():
    model = with_random_norm(small_pyramid(dropout=0.5))
    maps = random_maps(model)

    def dropped(seed):
        torch.manual_seed(seed)
        return model.head(maps)

    first, second = dropped(0), dropped(1)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    model.eval()
    first, second = dropped(0), dropped(1)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[0], model.classifiers(first[1]))


def test_compiles_as_one_graph_with_the_same_gradients():
    torch.manual_seed(0)
    model = with_random_norm(small_pyramid(dropout=0.0, stripes=3))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    images = torch.randn(2, 3, 48, 32)

    def differentiate(network):
        model.zero_grad()
        output = network(images)
        (output.logits.square().sum() + output.embeddings.sum()).backward()
        return [*output, *(parameter.grad.clone() for parameter in model.parameters())]

    for actual, expected in zip(differentiate(compiled), differentiate(model), strict=True):
        torch.testing.assert_close(actual, expected)


def with_last_stride_1(network: nn.Module) -> nn.Module:
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
    return network


def test_resnet50_trunk_takes_torchvisions_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    reference = resnet50(weights=None)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(reference.state_dict(), tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth")
    model = Pyramid(3, stripes=2, weights="imagenet").eval()
    reference = with_last_stride_1(reference).eval()
    images = torch.randn(1, 3, 64, 32)
    with torch.inference_mode():
        expected = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
            expected = layer(expected)
        torch.testing.assert_close(model(images).maps, expected)


@pytest.mark.parametrize(
    ("trunk", "file"), [("resnet50", "resnet50-0676ba61"), ("resnet101", "resnet101-63fe2227")]
)
def test_missing_imagenet_weights_say_where_to_place_the_file(trunk, file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def offline(*_, **__):
        raise OSError("no connection")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(InputError, match=rf"{file}\.pth.*place it as.*weights=None"):
        Pyramid(3, trunk=trunk, weights="imagenet")


@pytest.mark.parametrize("height", range(1, 80, 3))
def test_map_height_equals_that_of_the_trunk(height):
    model = small_pyramid(stripes=1)
    assert model(torch.randn(2, 3, height, 32)).maps.shape[2] == map_height(height)


@pytest.mark.parametrize(
    ("height", "stripes", "mend"),
    [
        (320, 6, "20 rows for 6 stripes; use a height of 288 or 384$"),
        (313, 6, "20 rows for 6 stripes; use a height of 288 or 384$"),
        (64, 6, "4 rows for 6 stripes; use a height of 96$"),
        (128, 3, "8 rows for 3 stripes; use a height of 96 or 144$"),
    ],
)
def test_errors_name_the_nearest_heights_that_fit(height, stripes, mend):
    with pytest.raises(InputError, match=f"got an input height of {height}: {mend}"):
        check_input_height(height, stripes)
    model = small_pyramid(stripes=stripes)
    with pytest.raises(InputError, match=f"got an input height of {height}: {mend}"):
        model(torch.randn(1, 3, height, 16))
    rows = map_height(height)
    fitting = " or ".join(str(int(word) // 16) for word in re.findall(r"\d+", mend.split("height of")[1]))
    words = f"got a map of {rows} rows for {stripes} stripes; use a map of {fitting} rows"
    with pytest.raises(InputError, match=words):
        model.head(torch.randn(1, model.embedding.weight.shape[2], map_height(height), 2))


@given(st.integers(1, 600), st.integers(1, 9))
def test_named_heights_fit(height, stripes):
    try:
        check_input_height(height, stripes)
        assert map_height(height) % stripes == 0
    except InputError as error:
        assert map_height(height) % stripes
        for word in error.mend.removeprefix("use a height of ").split(" or "):
            check_input_height(int(word), stripes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 1}, "two identities; got num_classes=1"),
        ({"stripes": 0}, "one whole stripe, at most 256; got stripes=0"),
        ({"levels": ()}, r"select at least one part; got levels=\(\); name some of 1 to 6"),
        ({"levels": (0, 1)}, r"1 to 6; got levels=\(0, 1\)"),
        ({"levels": (7,)}, r"1 to 6; got levels=\(7,\)"),
        ({"levels": (2, 1, 2)}, r"counts once; got levels=\(2, 1, 2\)"),
        ({"trunk": "vgg"}, "trunk is one of resnet39, resnet50, resnet101; got 'vgg'"),
        ({"weights": "imagenet"}, "pretrained.*trunk='resnet39'"),
        ({"weights": "imagenet"}, "write weights=None, or 'imagenet' with resnet50 or resnet101$"),
        (
            {"trunk": "resnet50", "width": 1, "weights": "imagnet"},
            "weights='imagnet'; write weights=None, or 'imagenet' with resnet50 or resnet101$",
        ),
        ({"width": 0}, "width is.*got width=0.*; use width=1"),
        ({"trunk": "resnet50", "width": 0.5}, "width is.*got width=0.5 with trunk='resnet50'"),
        ({"embedding_size": 0}, "at least one number; got embedding_size=0"),
        ({"dropout": 1.0}, "below 1; got dropout=1.0"),
        ({"dropout": -0.1}, "below 1; got dropout=-0.1"),
        ({"normalisation": "all"}, "none, part or whole; got 'all'"),
    ],
)
def test_contradictory_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        small_pyramid(**arguments)
