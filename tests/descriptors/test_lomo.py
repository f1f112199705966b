"""LOMO against direct loops, the authors' code, small cases by hand and what its maximum forgets."""

import math

import numpy as np
import pytest
import torch

from reidlib.descriptors import lomo
from reidlib.descriptors.colours import hsv
from reidlib.descriptors.retinex import multi_scale_retinex
from reidlib.errors import InputError

ROWS = 24 + 11 + 5
PARTS = (slice(0, 512 * ROWS), slice(512 * ROWS, 593 * ROWS), slice(593 * ROWS, 674 * ROWS))


def random_images(count=2, height=128, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def formula_image(height=128, width=48):
    """The image that the authors' code was given."""
    rows, columns, channels = np.ogrid[:height, :width, :3]
    levels = rows // 4 * 7 + columns // 3 * (11 + channels) + rows * columns % 13 * (channels + 2)
    return ((levels + 40 * channels) % 256).astype(np.uint8)


def bins_of(red, green, blue):
    """Bins of hue, saturation and value of a pixel, in MATLAB's order of operations."""
    red, green, blue = red / 255, green / 255, blue / 255
    value, spread = max(red, green, blue), max(red, green, blue) - min(red, green, blue)
    hue = 0.0
    if spread:
        if blue == value:
            hue = (4 + (red - green) / spread) / 6
        elif green == value:
            hue = (2 + (blue - red) / spread) / 6
        else:
            hue = ((green - blue) / spread) / 6
    saturation = spread / value if value else 0.0
    return [min(int(8 * part), 7) for part in (hue + (hue < 0), saturation, value)]


def direct_lomo(image):
    """LOMO without Retinex in loops over pixels, scales, windows and columns."""
    bins = [[bins_of(*map(int, pixel)) for pixel in row] for row in image]
    weights = (0.298936021293776, 0.587043074451121, 0.114020904255103)
    gray = [[math.floor(float(pixel @ weights) + 0.5) / 255 for pixel in row] for row in image.astype(float)]
    parts = [[], [], []]
    for scale in range(3):
        if scale:
            halves = [range(0, len(gray) // 2 * 2, 2), range(0, len(gray[0]) // 2 * 2, 2)]
            bins = [
                [[(a + b + c + d) // 4 for a, b, c, d in zip(bins[y][x], bins[y + 1][x], bins[y][x + 1],
                  bins[y + 1][x + 1], strict=True)] for x in halves[1]] for y in halves[0]
            ]  # fmt: skip
            gray = [
                [(gray[y][x] + gray[y + 1][x] + gray[y][x + 1] + gray[y + 1][x + 1]) / 4 for x in halves[1]]
                for y in halves[0]
            ]
        codes = [[[64 * v + 8 * s + h for h, s, v in row] for row in bins]]
        for radius in (3, 5):
            codes.append(
                [[pattern(gray, y, x, radius) for x in range(len(gray[0]))] for y in range(len(gray))]
            )
        for part, map_hw, length in zip(parts, codes, (512, 81, 81), strict=True):
            for top in range(0, len(map_hw) - 9, 5):
                windows = []
                for left in range(0, len(map_hw[0]) - 9, 5):
                    window = [map_hw[y][x] for y in range(top, top + 10) for x in range(left, left + 10)]
                    windows.append(np.bincount(window, minlength=length))
                part.append(np.max(windows, 0))
    logs = [np.log(1 + np.concatenate(part)) for part in parts]
    return np.concatenate([part / np.linalg.norm(part) for part in logs])


def pattern(gray, y, x, radius):
    """The code of one pixel: right, up, left, down."""
    code = 0
    for place, (down, right) in enumerate(((0, radius), (-radius, 0), (0, -radius), (radius, 0))):
        near = gray[min(max(y + down, 0), len(gray) - 1)][min(max(x + right, 0), len(gray[0]) - 1)]
        darker, lighter = near < (1 - 0.3) * gray[y][x], near > (1 + 0.3) * gray[y][x]
        code += 3**place * (2 if lighter else 1 if darker else 0)
    return code


@pytest.mark.parametrize("size", [(44, 44), (67, 49)])
def test_equals_loops(size):
    images = np.concatenate([random_images(1, *size), formula_image(*size)[None]])
    expected = np.stack([direct_lomo(image) for image in images])
    np.testing.assert_allclose(lomo(images, retinex=False, size=size), expected, atol=1e-6)


def test_equals_the_authors_code():
    """Numbers of LOMO.m and SILTP.m (1.0) in GNU Octave, with MATLAB's ``rgb2hsv`` and no Retinex."""
    features = lomo(formula_image()[None], retinex=False)[0].astype(np.float64)
    expected = (  # numbers above zero; sum; greatest; place and value of the hundredth above zero; mean place
        (755, 25.0961913335, 0.0612602726, 3364, 0.0470587982, 12.5182923619),
        (954, 27.0034785140, 0.0817389078, 378, 0.0389152865, 12.6479985198),
        (1036, 28.3355610116, 0.0748717578, 408, 0.0224900510, 13.5652675125),
    )
    for part, (count, total, greatest, place, value, mean) in zip(PARTS, expected, strict=True):
        numbers = features[part]
        assert np.count_nonzero(numbers) == count
        assert np.flatnonzero(numbers)[99] == place
        places = np.arange(1, len(numbers) + 1)
        found = numbers.sum(), numbers.max(), numbers[place], numbers @ places / len(numbers)
        np.testing.assert_allclose(found, (total, greatest, value, mean), rtol=1e-5)


def test_a_black_image_by_hand():
    """Every window has 100 pixels of colour 0 and pattern 0."""
    features = lomo(np.zeros((1, 128, 48, 3), np.uint8), retinex=False)[0]
    for part, length in zip(PARTS, (512, 81, 81), strict=True):
        numbers = features[part].reshape(ROWS, length)
        np.testing.assert_allclose(numbers[:, 0], 1 / math.sqrt(ROWS), rtol=1e-6)
        assert not numbers[:, 1:].any()


@pytest.mark.parametrize(("size", "length"), [((128, 48), 26_960), ((160, 60), 35_722)])
@pytest.mark.parametrize("retinex", [True, False])
def test_lengths(size, length, retinex):
    features = lomo(random_images(2, *size), retinex=retinex)
    assert features.shape == (2, length)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.square(features.astype(np.float64)).sum(1), 3, rtol=1e-5)
    assert (features >= 0).all()


def test_the_maximum_forgets_where_a_patch_stands_in_its_row():
    left = np.full((1, 128, 48, 3), 30, np.uint8)
    patch = random_images(1, 20, 20)[0]
    right = left.copy()
    left[0, 40:60, :20] = patch
    right[0, 40:60, 20:40] = patch  # by whole windows on every scale
    down = np.roll(left, 20, axis=1)
    first, across, below = lomo(np.concatenate([left, right, down]), retinex=False)[:, PARTS[0]]
    np.testing.assert_array_equal(first, across)
    assert np.abs(first - below).max() > 0.01


def test_the_maximum_forgets_all_but_the_most_of_a_colour():
    """A second, smaller patch of a colour in the same row of windows adds nothing."""
    images = np.zeros((2, 128, 48, 3), np.uint8)
    images[:, 40:50, 5:15] = 255, 0, 0
    images[1, 40:44, 32:34] = 255, 0, 0
    red = 64 * 7 + 8 * 7 + 0
    one, two = lomo(images, retinex=False)[:, PARTS[0]].reshape(2, ROWS, 512)[:, :24, red]
    np.testing.assert_allclose(one / one.max(), two / two.max(), rtol=1e-6)


@pytest.mark.parametrize("retinex", [True, False])
def test_an_image_has_the_same_descriptor_in_every_batch(retinex):
    images = random_images(70)
    together = lomo(images, retinex=retinex)
    alone = np.concatenate([lomo(image[None], retinex=retinex) for image in images[::23]])
    np.testing.assert_array_equal(together[::23], alone)
    np.testing.assert_array_equal(lomo(torch.from_numpy(images), retinex=retinex), together)


def test_memory_maps_and_threads(tmp_path):
    images = random_images(40)
    np.save(tmp_path / "images.npy", images)
    expected, threads = lomo(images), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        np.testing.assert_array_equal(lomo(mapped), expected)
    finally:
        torch.set_num_threads(threads)


def test_no_images():
    assert lomo(np.empty((0, 128, 48, 3), np.uint8)).shape == (0, 26_960)


def test_another_size_is_resized_and_said(caplog):
    small = lomo(random_images(1, 256, 128))
    assert small.shape == (1, 26_960)
    assert "256×128" in caplog.text and "128×48" in caplog.text
    caplog.clear()
    assert lomo(random_images(1, 160, 60)).shape == (1, 35_722)
    assert not caplog.text


def test_images_are_not_changed():
    images = random_images()
    copy = images.copy()
    lomo(images)
    np.testing.assert_array_equal(images, copy)


@pytest.mark.parametrize(
    "images",
    [
        [[0]],
        np.zeros((128, 48, 3), np.uint8),
        np.zeros((1, 3, 128, 48), np.uint8),
        np.zeros((1, 0, 48, 3), np.uint8),
        np.full((1, 128, 48, 3), np.nan, np.float32),
        np.zeros((1, 128, 48, 3), np.int64),
        torch.zeros(1, 128, 48, 3),
    ],
)
def test_other_images_are_refused(images):
    with pytest.raises(InputError, match=r"LOMO takes RGB images .*uint8"):
        lomo(images)


@pytest.mark.parametrize(
    "size, mend",
    [
        *((size, "name a larger size") for size in ((43, 48), (128, 40), [0, 0])),
        *((size, "write two whole numbers") for size in ((128,), (128.0, 48), 128, "128x48", 0, ())),
    ],
)
def test_sizes_without_three_scales_are_refused(size, mend):
    with pytest.raises(InputError, match=f"at least 44×44 .*; {mend}"):
        lomo(random_images(), size=size)


def test_a_size_may_be_a_list_and_retinex_a_word_whose_meaning_is_certain():
    images = random_images(1)
    np.testing.assert_array_equal(
        lomo(images, size=[128, 48], retinex="no"), lomo(images, size=(128, 48), retinex=False)
    )
    with pytest.raises(InputError, match="retinex is True or False; got 'perhaps'; write one of these"):
        lomo(images, retinex="perhaps")


def direct_retinex(image):
    """Retinex in loops over pixels."""
    height, width = image.shape[:2]
    brightness, contrast = image.max(2) + 1.0, np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for scale in (5, 20):
                down = np.exp(-((np.arange(height) - y) ** 2) / (2 * scale**2))[:, None]
                across = np.exp(-((np.arange(width) - x) ** 2) / (2 * scale**2))
                around = (brightness * down * across).sum() / (down * across).sum()
                contrast[y, x] += math.log(brightness[y, x] / around) / 2
    stretched = 0.5 + (contrast - contrast.mean()) / (4 * contrast.std())
    new_brightness = np.clip(np.floor(255 * stretched + 0.5), 0, 255) + 1
    adapted = (image + 1.0) * (new_brightness / brightness)[..., None] - 1
    return np.clip(np.floor(adapted + 0.5), 0, 255)


def channels_first(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_retinex_equals_loops():
    images = random_images(2, 20, 11)
    adapted = multi_scale_retinex(channels_first(images)).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(adapted, np.stack([direct_retinex(image) for image in images]))


def test_retinex_takes_lighting_away_and_keeps_hues():
    image = random_images(1, 64, 48) // 2 + 60
    fading = np.linspace(0.5, 1, 64)[:, None, None]  # the lower half is lit better
    before = np.abs(image * fading - image).mean()
    plain, lit = multi_scale_retinex(
        channels_first(np.concatenate([image, (image * fading).astype(np.uint8)]))
    )
    assert (plain.double() - lit.double()).abs().mean() < 0.5 * before
    assert plain.double().std() > 1.2 * image.std()  # contrast fills the levels
    bright = plain.amax(0) > 128
    hues = [hsv(part[None])[0, 0][bright] for part in (channels_first(image)[0], plain)]
    turns = (hues[0] - hues[1]).abs()
    assert torch.minimum(turns, 1 - turns).quantile(0.9) < 0.02


@pytest.mark.parametrize("level", [0, 77, 255])
def test_retinex_leaves_an_image_of_one_colour(level):
    images = torch.full((2, 3, 50, 44), level, dtype=torch.uint8)
    images[1, 0] = 3  # another channel's level
    images[1, 1:] = level
    torch.testing.assert_close(multi_scale_retinex(images), images)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("retinex", [True, False])
def test_a_gpu_gives_the_same(retinex):
    images = random_images(20)
    expected = lomo(images, retinex=retinex)
    np.testing.assert_allclose(lomo(images, retinex=retinex, device="cuda"), expected, atol=1e-6)
    on_gpu = torch.from_numpy(images).cuda()
    np.testing.assert_allclose(lomo(on_gpu, retinex=retinex), expected, atol=1e-6)
