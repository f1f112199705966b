"""Attention maps are compared with sums computed by hand, and leave the model unchanged."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reidlib.data.augmentation import normalise_images
from reidlib.errors import InputError
from reidlib.models import JLML, Pyramid
from reidlib.models.residual import Stages, TrunkShape
from reidlib.visual.attention import maps
from reidlib.visual.attention.maps import (
    STRIDES,
    attention_grids,
    interpolate_shares,
    part_attention,
    pixel_rows,
)

HEIGHT, WIDTH = 96, 32
SHAPE = TrunkShape((1, 1, 1), (2, 2, 2), expansion=2, stride_on="first", strides=(1, 2, 2))
NAMES = ["jlml", "separate", "overlapping", "pyramid"]


def build(name, *, shifts=True):
    """Build a small network in which every layer matters; without shifts it is linear behind the last map."""
    torch.manual_seed(0)
    small = {"width": 0.125}
    model = {
        "jlml": lambda: JLML(5, feature_size=32, **small),
        "separate": lambda: JLML(5, feature_size=32, shared_stem=False, **small),
        "overlapping": lambda: JLML(5, parts=5, feature_size=30, **small),
        "pyramid": lambda: Pyramid(
            5, stripes=3, trunk="resnet39", weights=None, embedding_size=8, normalisation="part", **small
        ),
    }[name]()
    for layer in model.modules():  # the scale of the last batch norm of a bottleneck starts at zero
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            if shifts:
                nn.init.uniform_(layer.running_mean, -0.1, 0.1)
                nn.init.uniform_(layer.bias, -0.1, 0.1)
    if isinstance(model, Pyramid):
        nn.init.uniform_(model.embedding.bias, 0, 0.1 if shifts else 0)
    return model.eval()


def pictures(count=3, height=HEIGHT, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images_bhwc = torch.randint(0, 256, (count, height, WIDTH, 3), dtype=torch.uint8, generator=generator)
    return images_bhwc.permute(0, 3, 1, 2)  # channels last in memory, as in ImageStore


@torch.inference_mode()
def features_of(model, images_bchw):
    return model.embed(normalise_images(images_bchw))


def cosines(model, images_bchw, others_bd):
    features_bd = features_of(model, images_bchw)
    return [
        F.cosine_similarity(features_bd[:, part.columns], others_bd[:, part.columns])
        for part in model.feature_parts(images_bchw.shape[2])
    ]


@pytest.fixture(params=NAMES)
def model(request):
    return build(request.param)


def test_a_map_is_zero_outside_its_parts_rows_only(model):
    images = pictures()
    maps_bphw = part_attention(model, images, features_of(model, images.flip(0)), signed=True)
    parts = model.feature_parts(HEIGHT)
    assert maps_bphw.shape == (3, len(parts), HEIGHT, WIDTH)
    assert maps_bphw.dtype == "float32"
    for index, part in enumerate(parts):
        first, stop = pixel_rows(part, HEIGHT)
        assert maps_bphw[:, index, first:stop].any(axis=(1, 2)).all()
        assert not maps_bphw[:, index, :first].any()
        assert not maps_bphw[:, index, stop:].any()


@pytest.mark.parametrize(
    ("name", "stride"), [("jlml", 32), ("separate", 32), ("overlapping", 32), ("pyramid", 16)]
)
def test_shares_of_the_last_map_add_up_to_the_similarity(name, stride):
    model = build(name, shifts=False)
    images = pictures()
    others = features_of(model, pictures(seed=2))
    grids = attention_grids(model, images, others, stride=stride)
    for (shares_bhw, cell), cosine_b in zip(grids, cosines(model, images, others), strict=True):
        assert cell == stride
        torch.testing.assert_close(torch.from_numpy(shares_bhw).sum((1, 2)), cosine_b, rtol=1e-4, atol=1e-5)


def linear_cut(images=2, channels=4, size=3):
    """Create a network that is linear behind its map: the mean of all cells times a matrix."""
    torch.manual_seed(0)
    maps_bchw = torch.randn(images, channels, 5, 2)
    weight_dc = torch.randn(size, channels)
    cut = maps._Cut(maps_bchw, lambda maps: maps.mean((2, 3)) @ weight_dc.T, (0,), (0, 5), 1, 32)
    return cut, weight_dc, torch.randn(images, size)


def test_shares_are_exact_contributions_if_the_head_is_linear():
    cut, weight_dc, others_bd = linear_cut()
    shares_bhw = maps._shares(cut, others_bd)
    feature_bd = cut.embed(cut.maps_rchw)
    for image in range(2):
        for row in range(5):
            for column in range(2):
                contribution_d = weight_dc @ cut.maps_rchw[image, :, row, column] / 10
                share = contribution_d @ others_bd[image] / feature_bd[image].norm()
                assert shares_bhw[image, row, column] == pytest.approx(float(share), rel=1e-5)
    sums_b = (feature_bd * others_bd).sum(1) / feature_bd.norm(dim=1)
    torch.testing.assert_close(torch.from_numpy(shares_bhw).sum((1, 2)), sums_b)


def test_doubled_features_double_the_map():
    cut, _, others_bd = linear_cut()
    once, twice = maps._shares(cut, others_bd), maps._shares(cut, 2 * others_bd)
    torch.testing.assert_close(torch.from_numpy(twice), 2 * torch.from_numpy(once))


@pytest.mark.parametrize("stride", STRIDES)
def test_layers_behind_the_cut_are_the_rest_of_the_network(model, stride):
    images = pictures()
    parts = model.feature_parts(HEIGHT)
    cut_at = maps._jlml_cuts if isinstance(model, JLML) else maps._pyramid_cuts
    features_bd = features_of(model, images)
    cut_parts = []
    for cut in cut_at(model, normalise_images(images), tuple(range(len(parts))), stride):
        with torch.no_grad():
            rest_bpd = cut.embed(cut.maps_rchw).unflatten(0, (3, -1))
        for offset, index in enumerate(cut.parts):
            expected = F.normalize(features_bd[:, parts[index].columns], dim=1)
            torch.testing.assert_close(F.normalize(rest_bpd[:, offset], dim=1), expected)
            cut_parts.append(index)
    assert sorted(cut_parts) == list(range(len(parts)))


@pytest.mark.parametrize("stride", STRIDES)
def test_only_counted_cells_are_kept_if_the_next_layer_skips_rows(model, stride):
    images = pictures()
    others = features_of(model, images.flip(0))
    parts = model.feature_parts(HEIGHT)
    cut_at = maps._jlml_cuts if isinstance(model, JLML) else maps._pyramid_cuts
    last = 32 if isinstance(model, JLML) else 16
    cell = min(2 * stride, last)  # these trunks have the stride in the first 1×1 convolution of a stage
    grids = attention_grids(model, images, others, stride=stride)
    assert {grid.cell for grid in grids} == {cell}
    for part, grid in zip(parts, grids, strict=True):
        first, stop = pixel_rows(part, HEIGHT)
        assert grid.shares_bhw.shape[1:] == (-(-(stop - first) // cell), WIDTH // cell)
    for cut in cut_at(model, normalise_images(images), tuple(range(len(parts))), stride):
        # As in attention_grids: with gradients of the weights, torch 2.15 corrupts its memory here (narrow
        # grouped convolutions).
        with maps._frozen(model):
            shares_rhw = maps._shares(cut, torch.ones_like(cut.embed(cut.maps_rchw).detach()))
        counted = shares_rhw[:, :: cut.step, :: cut.step]
        assert counted.any()
        assert np.count_nonzero(shares_rhw) == np.count_nonzero(counted)  # the others are zero


def test_a_trunk_with_strided_3x3_convolutions_skips_no_cell():
    stages = Stages(replace(SHAPE, stride_on="second"), inputs=4)
    *_, step, cell = maps._split(stages, 8)
    assert (step, cell) == (1, 8)
    *_, step, cell = maps._split(Stages(SHAPE, inputs=4), 8)
    assert (step, cell) == (2, 16)


def test_the_first_pixel_of_a_cell_has_its_share(model):
    images = pictures()
    others = features_of(model, images.flip(0))
    grids = attention_grids(model, images, others, stride=8)
    maps_bphw = part_attention(model, images, others, signed=True, stride=8)
    clipped_bphw = part_attention(model, images, others, stride=8)
    for index, (part, grid) in enumerate(zip(model.feature_parts(HEIGHT), grids, strict=True)):
        first, stop = pixel_rows(part, HEIGHT)
        assert grid.cell == 16  # then the value of a pixel is a share
        shares_bhw = torch.from_numpy(grid.shares_bhw)
        torch.testing.assert_close(torch.from_numpy(maps_bphw[:, index, first:stop:16, ::16]), shares_bhw)
        torch.testing.assert_close(
            torch.from_numpy(clipped_bphw[:, index, first:stop:16, ::16]), shares_bhw.clamp_min(0)
        )
    negative_bphw = part_attention(model, images, -others, signed=True, stride=8)
    torch.testing.assert_close(torch.from_numpy(negative_bphw), -torch.from_numpy(maps_bphw))


@pytest.mark.parametrize("cell", [8, 16, 32])
def test_a_constant_grid_gives_a_constant_map_and_no_edge_is_preferred(cell):
    constant = interpolate_shares(np.full((1, 4, 5), 0.5, np.float32), cell)
    assert constant.shape == (1, 4 * cell, 5 * cell)
    assert constant == pytest.approx(0.5 * (16 / cell) ** 2)
    columns_nhw = np.eye(5, dtype=np.float32)[:, None].repeat(4, axis=1)  # each has one column of ones
    rows_nhw = np.eye(4, dtype=np.float32)[:, :, None].repeat(5, axis=2)
    # The total shares of a column of 4 cells and of a row of 5 cells.
    column_totals = interpolate_shares(columns_nhw, cell).sum((1, 2)) / 256
    row_totals = interpolate_shares(rows_nhw, cell).sum((1, 2)) / 256
    assert column_totals == pytest.approx(4, rel=1e-5)
    assert row_totals.sum() == pytest.approx(20, rel=1e-5)
    assert row_totals[1:] == pytest.approx(row_totals[1], rel=1e-5)  # the last row has as much as the others
    assert row_totals[0] < row_totals[1]  # half of its receptive field is above the image


def test_default_strides_depend_on_the_kind_of_parts(model):
    images = pictures()
    others = features_of(model, images.flip(0))
    defaults = part_attention(model, images, others)
    for index, part in enumerate(model.feature_parts(HEIGHT)):
        stride = maps.LOCAL_STRIDE if part.kind == "local" else maps.DEFAULT_STRIDE
        explicit = part_attention(model, images, others, parts=[part], stride=stride)
        assert (explicit[:, 0] == defaults[:, index]).all()


def test_a_batch_gives_the_same_maps_as_single_images(model):
    images = pictures()
    others = features_of(model, images.flip(0))
    batch = part_attention(model, images, others)
    single = [part_attention(model, images[i : i + 1], others[i : i + 1])[0] for i in range(3)]
    torch.testing.assert_close(
        torch.from_numpy(batch), torch.stack([torch.from_numpy(maps_phw) for maps_phw in single])
    )


def test_maps_are_in_the_order_of_the_requested_parts(model):
    images = pictures()
    others = features_of(model, images.flip(0))
    parts = model.feature_parts(HEIGHT)
    all_maps = part_attention(model, images, others)
    requested = part_attention(model, images, others, parts=[parts[2], parts[0]])
    torch.testing.assert_close(torch.from_numpy(requested), torch.from_numpy(all_maps[:, [2, 0]].copy()))


def test_an_image_has_a_map_for_itself_also_in_inference_mode(model):
    images = pictures()
    others = features_of(model, images)
    outside = part_attention(model, images, others)
    assert outside.any(axis=(2, 3)).all()
    with torch.inference_mode():
        inside = part_attention(model, pictures(), others)
    assert (inside == outside).all()


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_unchanged(model, fails, monkeypatch):
    model.train()
    frozen, *_, with_gradient = model.parameters()
    frozen.requires_grad_(False)
    with_gradient.grad = torch.ones_like(with_gradient)
    images = pictures()
    model.eval()
    others = features_of(model, images.flip(0))
    model.train()
    norm = next(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d))
    norm.eval()  # a layer that the caller has put into another mode
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [layer.training for layer in model.modules()]
    requires_grad = [weight.requires_grad for weight in model.parameters()]
    if fails:

        def broken(*_):
            raise IndexError("an error that grad-cam would suppress")

        monkeypatch.setattr(maps.ActivationsAndGradients, "__call__", broken)
        with pytest.raises(IndexError, match="would suppress"):
            part_attention(model, images, others)
    else:
        part_attention(model, images, others)
    assert [layer.training for layer in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == requires_grad
    assert [weight.grad is not None for weight in model.parameters()] == [
        weight is with_gradient for weight in model.parameters()
    ]
    assert (with_gradient.grad == 1).all()
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in model.modules())
    assert all((model.state_dict()[name] == tensor).all() for name, tensor in before.items())
    assert torch.is_grad_enabled()


def test_bad_input_is_refused_with_one_line(model):
    images = pictures()
    others = features_of(model, images)
    other_network = build("pyramid" if isinstance(model, JLML) else "jlml")
    part = other_network.feature_parts(HEIGHT)[0]
    cases = [
        ((nn.Linear(2, 2), images, others), {}, "JLML and Pyramid"),
        ((model, images.float(), others), {}, "uint8"),
        ((model, images[0], others), {}, "uint8"),
        ((model, images, others[:2]), {}, "one feature of the same model"),
        ((model, images, others[:, 1:]), {}, "one feature of the same model"),
        ((model, images[:0], others[:0]), {}, "at least one image"),
        ((model, images, others), {"parts": [part]}, f"feature_parts\\({HEIGHT}\\)"),
        ((model, images, others), {"stride": 5}, "stride is one of"),
    ]
    for arguments, settings, rule in cases:
        with pytest.raises(InputError, match=rule) as error:
            part_attention(*arguments, **settings)
        assert "\n" not in str(error.value)


def test_parts_and_images_of_another_height_are_refused():
    model = build("pyramid")
    images = pictures(height=64)  # the map has four rows for three stripes
    with pytest.raises(InputError, match="stripes divide"):
        part_attention(model, images, torch.ones(3, model.branches["full"].stop))
    model = build("overlapping")
    images = pictures(height=128)
    with pytest.raises(InputError, match=r"feature_parts\(128\); got local"):
        others = features_of(model, images)
        part_attention(model, images, others, parts=model.feature_parts(HEIGHT))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_same_maps(name):
    images = pictures()
    model = build(name)
    others = features_of(model, images.flip(0))
    expected = part_attention(model, images, others)
    model.cuda()
    maps_bphw = part_attention(model, images.cuda(), others)
    torch.testing.assert_close(torch.from_numpy(maps_bphw), torch.from_numpy(expected), rtol=1e-3, atol=1e-4)
