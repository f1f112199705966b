import hashlib

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from reidlib.data.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    augment,
    draw_variations,
    normalise_images,
)

SIZE = (12, 6)
EVERYTHING = {"flip": 0.5, "pad": 2, "erase": 0.5, "colour_jitter": 0.4}


def batch(count=32, size=SIZE, seed=0):
    values = torch.randint(
        0, 256, (count, *size, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8
    )
    return values.permute(0, 3, 1, 2)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def naive(image_chw, draws, index):
    """One image, pixel by pixel for the moves, torchvision's functions for the rest."""
    _, height, width = image_chw.shape
    down, right = draws.shift_b2[index].tolist()
    moved = torch.empty_like(image_chw)
    for row in range(height):
        for column in range(width):
            source_row = min(max(row - down, 0), height - 1)
            unflipped_column = width - 1 - column if draws.flipped_b[index] else column
            source_column = min(max(unflipped_column - right, 0), width - 1)
            moved[:, row, column] = image_chw[:, source_row, source_column]
    values = moved.float() / 255
    brightness, contrast, saturation = draws.colour_b3[index].tolist()
    values = functional.adjust_brightness(values, brightness)
    values = functional.adjust_contrast(values, contrast)
    values = functional.adjust_saturation(values, saturation)
    values = functional.normalize(values, list(IMAGENET_MEAN), list(IMAGENET_STD))
    if draws.erased_b[index]:
        top, left, bottom, right_edge = draws.box_b4[index].tolist()
        values = functional.erase(values, top, left, bottom - top, right_edge - left, torch.zeros(1))
    return values


@pytest.mark.parametrize(
    "augmentation",
    [
        EVERYTHING,
        {"flip": 0.5, "pad": 4},
        {"pad": 3},
        {"flip": 1},
        {"erase": 1},
        {"erase": 1, "erasing": "zhong"},
        {"colour_jitter": 0.9},
    ],
)
def test_a_batch_is_what_each_image_alone_would_be(augmentation):
    images = batch()
    before = images.clone()
    result = augment(images, generator(), **augmentation)
    draws = draw_variations(len(images), SIZE, generator(), **augmentation)
    expected = torch.stack([naive(image, draws, i) for i, image in enumerate(images)])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(images, before)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_images_in_another_memory_format_give_the_same():
    images = batch()
    assert torch.equal(
        augment(images, generator(), **EVERYTHING), augment(images.contiguous(), generator(), **EVERYTHING)
    )


def test_normalisation_equals_torchvisions():
    images = batch()
    scaled = functional.to_dtype(images, torch.float32, scale=True)
    expected = functional.normalize(scaled, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(normalise_images(images), expected, rtol=1e-5, atol=1e-5)
    assert normalise_images(images).is_contiguous(memory_format=torch.channels_last)


def test_without_variations_images_do_not_change():
    images = batch()
    assert torch.equal(augment(images, generator()), normalise_images(images))


def test_each_image_has_its_own_draws_in_the_stated_ranges():
    draws = draw_variations(4000, SIZE, generator(), **EVERYTHING)
    assert abs(draws.flipped_b.float().mean() - 0.5) < 0.04  # five standard deviations
    for axis in (0, 1):
        shifts, counts = draws.shift_b2[:, axis].unique(return_counts=True)
        assert shifts.tolist() == [-2, -1, 0, 1, 2]
        assert (counts / 4000 - 0.2).abs().max() < 0.033
    assert draws.colour_b3.min() >= 0.6 and draws.colour_b3.max() <= 1.4
    assert (draws.colour_b3.mean(0) - 1).abs().max() < 0.02
    assert not torch.equal(draws.colour_b3[:, 0], draws.colour_b3[:, 1])


def test_default_draws_are_those_of_the_first_version():
    """Trained runs keep their identity only if the same seed gives the same batches."""
    draws = draw_variations(64, (128, 64), generator(7), flip=0.5, pad=4, erase=0.5, colour_jitter=0.2)
    content = b"".join(numbers.numpy().tobytes() for numbers in draws)
    assert hashlib.sha256(content).hexdigest()[:16] == "2b766e0b9958404b"


@pytest.mark.parametrize("size", [(128, 64), (384, 128), (40, 40)])
def test_zhongs_rectangles_equal_a_loop_over_the_published_rule(size):
    """Compared by distribution: the area is uniform and so is the aspect ratio, until a rectangle fits."""
    height, width = size
    draws = draw_variations(3000, size, generator(), erase=1, erasing="zhong")
    assert draws.erased_b.all()  # a hundred tries always find one
    top, left, bottom, right = (edges.numpy() for edges in draws.box_b4.unbind(1))
    numbers, naive_boxes = np.random.default_rng(0), []
    while len(naive_boxes) < 3000:
        area = numbers.uniform(0.02, 0.4) * height * width
        aspect = numbers.uniform(0.3, 1 / 0.3)
        high, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if high < height and wide < width:
            naive_boxes.append(
                (numbers.integers(height - high + 1), numbers.integers(width - wide + 1), high, wide)
            )
    naive_columns = np.array(naive_boxes).T
    for drawn, naive_column in zip((top, left, bottom - top, right - left), naive_columns, strict=True):
        levels = np.linspace(0.05, 0.95, 19)
        shares = [(drawn <= np.quantile(naive_column, level)).mean() for level in levels]
        naive_shares = [(naive_column <= np.quantile(naive_column, level)).mean() for level in levels]
        # The largest difference of two empirical distributions of 3,000 that one seed in a million exceeds.
        assert np.abs(np.subtract(shares, naive_shares)).max() < 0.07
    aspects = np.log((bottom - top) / (right - left))
    torchvisions = draw_variations(3000, size, generator(), erase=1).box_b4.numpy()
    high, wide = (torchvisions[:, 2] - torchvisions[:, 0]), (torchvisions[:, 3] - torchvisions[:, 1])
    # Uniform ratios have a larger mean than uniform logarithms.
    assert aspects.mean() > np.log(high / wide).mean() + 0.1


@pytest.mark.parametrize(("rule", "tries"), [("torchvision", 10), ("zhong", 100)])
def test_the_number_of_tries_is_the_rules(rule, tries):
    """In so narrow an image a rectangle rarely fits: the share of images without one tells the tries."""
    size = height, width = {"torchvision": (384, 24), "zhong": (384, 6)}[rule]
    numbers = np.random.default_rng(0)
    areas, aspects = numbers.uniform(0.02, 0.4, 10**6) * height * width, numbers.uniform(0.3, 1 / 0.3, 10**6)
    if rule == "torchvision":
        aspects = np.exp(numbers.uniform(np.log(0.3), np.log(1 / 0.3), 10**6))
    fits = (np.round((areas * aspects) ** 0.5) < height) & (np.round((areas / aspects) ** 0.5) < width)
    expected = (1 - fits.mean()) ** tries
    assert 0.02 < expected < 0.9
    erased_b = draw_variations(20_000, size, generator(), erase=1, erasing=rule).erased_b
    assert 1 - erased_b.double().mean() == pytest.approx(expected, abs=0.02)


def test_erased_rectangles_keep_to_area_and_aspect():
    height, width = 128, 64
    draws = draw_variations(4000, (height, width), generator(), erase=1)
    assert draws.erased_b.float().mean() > 0.99
    top, left, bottom, right = draws.box_b4[draws.erased_b].unbind(1)
    assert top.min() == 0 and left.min() == 0  # touching each border is possible, crossing it is not
    assert bottom.max() == height and right.max() == width
    high, wide = (bottom - top).double(), (right - left).double()
    area, aspect = high * wide / (height * width), high / wide
    assert area.min() > 0.015 and area.max() < 0.41
    assert aspect.min() > 0.27 and aspect.max() < 3.7
    assert area.max() > 0.35 and area.min() < 0.03


def test_a_variation_does_not_change_the_draws_of_others():
    moved = {"flip": 0.5, "pad": 4}
    plain = draw_variations(50, SIZE, generator(), **moved)
    for change in ({"erase": 0.7}, {"colour_jitter": 0.3}):
        changed = draw_variations(50, SIZE, generator(), **moved, **change)
        assert torch.equal(changed.flipped_b, plain.flipped_b)
        assert torch.equal(changed.shift_b2, plain.shift_b2)


def test_the_generators_state_repeats_and_continues():
    source = generator()
    images = batch()
    augment(images, source, **EVERYTHING)
    state = source.get_state()
    second = augment(images, source, **EVERYTHING)
    source.set_state(state)
    assert torch.equal(augment(images, source, **EVERYTHING), second)
    assert not torch.equal(augment(images, source, **EVERYTHING), second)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_varies_images_as_the_cpu_does():
    images = batch()
    on_gpu = augment(images.cuda(), generator(), **EVERYTHING)
    torch.testing.assert_close(on_gpu.cpu(), augment(images, generator(), **EVERYTHING), rtol=1e-5, atol=1e-4)
