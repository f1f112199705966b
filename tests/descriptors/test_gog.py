"""GOG against direct loops, the authors' code and what follows from its definition."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from reidlib.descriptors import gog, normalise_gog
from reidlib.descriptors.gaussians import COLOUR_SPACES
from reidlib.errors import InputError

LENGTHS = {"RGB": 7567, "Lab": 7567, "HSV": 7567, "nRnG": 4921}


def random_images(count=2, height=128, width=48, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def formula_image():
    """The image that the authors' code was given."""
    rows, columns, channels = np.ogrid[:128, :48, :3]
    levels = rows // 4 * 7 + columns // 3 * (11 + channels) + rows * columns % 13 * (channels + 2)
    return ((levels + 40 * channels) % 256).astype(np.uint8)


def gaussian_vector(mean, covariance):
    """The upper half of the logarithm of a Gaussian's matrix, with its factor, row by row."""
    size = len(mean)
    matrix = np.block([[covariance + np.outer(mean, mean), mean[:, None]], [mean, np.ones(1)]])
    logarithm = scipy.linalg.logm(np.linalg.det(covariance) ** (-1 / (size + 1)) * matrix)
    return np.array(
        [logarithm[i, j] * (1 if i == j else 1.4142) for i in range(size + 1) for j in range(i, size + 1)]
    )


def direct_gog(image):
    """GOG in red and green as shares of the sum, in loops over pixels, patches and strips."""
    height, width = image.shape[:2]
    levels = image.astype(float)
    luma = np.floor(16.5 + levels @ (65.481, 128.553, 24.966) / 255)
    luma = np.pad((luma - 16) / 235, 1)
    pixels = np.zeros((height, width, 7))
    for y in range(height):
        for x in range(width):
            across, up = luma[y + 1, x + 2] - luma[y + 1, x], luma[y, x + 1] - luma[y + 2, x + 1]
            degrees = (math.atan2(across, up) + math.pi) * 180 / math.pi
            lower = int(degrees // 90)
            share = (degrees - 90 * lower) / 90
            pixels[y, x, 0] = (y + 1) / height
            pixels[y, x, 1 + lower % 4] += (1 - share) * math.hypot(across, up)
            pixels[y, x, 1 + (lower + 1) % 4] += share * math.hypot(across, up)
            pixels[y, x, 5:] = levels[y, x, :2] / max(levels[y, x].sum(), 1)
    patches = np.zeros((height // 2, width // 2, 36))
    for row in range(height // 2):
        for column in range(width // 2):
            near = pixels[max(2 * row - 2, 0) : 2 * row + 3, max(2 * column - 2, 0) : 2 * column + 3]
            near = near.reshape(-1, 7)
            covariance = np.cov(near.T)
            covariance += 0.001 * max(np.trace(covariance), 0.01) * np.eye(7)
            patches[row, column] = gaussian_vector(near.mean(0), covariance)
    weights = np.exp(-((np.arange(1, width // 2 + 1) - width / 4) ** 2) / (2 * (width / 8) ** 2))
    strips = []
    for top in range(0, 49, 8):
        near, shares = patches[top : top + 16].reshape(-1, 36), np.tile(weights, 16)
        covariance = np.cov(near.T, aweights=shares, ddof=0)
        covariance += 0.001 * np.trace(covariance) * np.eye(36)
        strips.append(gaussian_vector(np.average(near, 0, shares), covariance))
    return np.stack(strips, 1).ravel()


@pytest.mark.filterwarnings("ignore:logm result")
def test_equals_loops():
    image = random_images(1)[0]
    image[40:80, 10:30] = 90, 30, 200  # patches without variance, too
    image[:20] = 0
    features = gog(image[None], spaces=["nRnG"])[0]
    np.testing.assert_allclose(features, direct_gog(image), atol=2e-5)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("RGB", (0.17538220, 3.80131955, -4.58654518, 0.48360674, 0.06347986, 57.98780434)),
        ("Lab", (0.17771927, 3.43474220, -4.73966964, 0.34101142, 0.03809773, 58.37717969)),
        ("HSV", (0.18108625, 2.99975284, -5.06916303, 0.38399544, 0.04834606, 69.36518422)),
        ("nRnG", (0.20848871, 4.09758344, -4.88518100, 1.11947463, -0.85510213, -28.51766535)),
    ],
)
def test_equals_the_authors_code(space, expected):
    """Numbers of GOG.m (1.01) in GNU Octave, with its compiled helpers and MATLAB's colours written anew."""
    numbers = gog(formula_image()[None], spaces=[space])[0].astype(np.float64)
    mean_place = numbers @ np.arange(1, len(numbers) + 1) / len(numbers)
    found = (np.abs(numbers).mean(), numbers.max(), numbers.min(), numbers[0], numbers[999], mean_place)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_lengths_and_order():
    images = random_images()
    fused = gog(images)
    assert fused.shape == (2, 27_622)
    assert fused.dtype == np.float32
    parts = [gog(images, spaces=space) for space in COLOUR_SPACES]  # a name alone, too
    assert {name: part.shape[1] for name, part in zip(COLOUR_SPACES, parts, strict=True)} == LENGTHS
    np.testing.assert_array_equal(np.concatenate(parts, 1), fused)
    np.testing.assert_array_equal(
        gog(images, spaces=["nRnG", "RGB"]), np.concatenate([parts[3], parts[0]], 1)
    )


def test_logarithms_have_no_trace():
    """The factor makes a Gaussian's matrix one of determinant 1."""
    rows, columns = np.triu_indices(46)
    vectors = gog(random_images(), spaces="RGB").reshape(2, 1081, 7)
    np.testing.assert_allclose(vectors[:, rows == columns].sum(1), 0, atol=1e-4)


def test_an_image_of_one_colour_is_finite():
    features = gog(np.stack([np.zeros((128, 48, 3)), np.full((128, 48, 3), 255)]).astype(np.uint8))
    assert np.isfinite(features).all()


def test_a_strip_sees_its_rows_and_their_neighbours():
    first = random_images(1)
    second = first.copy()
    second[:, :24] = random_images(1, 24, 48, seed=1)  # patches reach two pixels further, gradients one more
    strips = [gog(images, spaces="RGB").reshape(1081, 7) for images in (first, second)]
    changed = (strips[0] != strips[1]).any(0)
    assert changed.tolist() == [True, True, False, False, False, False, False]


def test_an_image_has_the_same_descriptor_in_every_batch():
    images = random_images(9)
    alone = np.concatenate([gog(image[None], spaces="HSV") for image in images[::4]])
    np.testing.assert_allclose(gog(images, spaces="HSV")[::4], alone, atol=1e-5)
    np.testing.assert_allclose(gog(torch.from_numpy(images[::4]), spaces="HSV"), alone, atol=1e-5)


def test_another_size_is_resized_and_said(caplog):
    assert gog(random_images(1, 160, 60), spaces="RGB").shape == (1, 7567)
    assert "GOG: images of 160×60 pixels are resized to 128×48" in caplog.text


@pytest.mark.parametrize("spaces", [[], "rgb", ["RGB", "RGB"], ["RGB", "XYZ"], None, 3, [["RGB"]]])
def test_other_colour_spaces_are_refused(spaces):
    with pytest.raises(InputError, match="RGB, Lab, HSV, nRnG, each once"):
        gog(random_images(), spaces=spaces)


def test_other_images_are_refused():
    with pytest.raises(InputError, match=r"GOG takes RGB images .*uint8"):
        gog(np.full((1, 128, 48, 3), np.nan))


def test_normalised_parts_by_hand():
    training = np.zeros((2, 7567 + 4921), np.float32)
    training[0] = 2  # the mean is 1
    features = np.ones((2, 7567 + 4921), np.float32)
    features[0, [0, 7567]] = 4, -1
    features[1, 7568:7570] = 4, 5
    parts = normalise_gog(features, training, spaces=["RGB", "nRnG"])
    expected = np.zeros_like(parts)
    expected[0, [0, 7567]] = 1, -1
    expected[1, 7568:7570] = 0.6, 0.8
    np.testing.assert_allclose(parts, expected, atol=1e-6)
    np.testing.assert_array_equal(parts, normalise_gog(features, training.mean(0), spaces=["RGB", "nRnG"]))
    assert features[0, 0] == 4


@pytest.mark.parametrize("which", [0, 1])
def test_other_features_are_refused(which):
    given = [np.ones((2, 7567), np.float32), np.ones((2, 7567), np.float32)]
    with pytest.raises(InputError, match="27,622 numbers"):
        normalise_gog(*given)
    given[which][0, 0] = np.nan
    with pytest.raises(InputError, match="are finite"):
        normalise_gog(*given, spaces="RGB")


def test_features_in_other_forms():
    features = np.random.default_rng(0).random((3, 7567), np.float32)
    expected = normalise_gog(features, features, spaces="RGB")
    given = torch.from_numpy(features)
    np.testing.assert_array_equal(normalise_gog(given, given, spaces="RGB"), expected)
    with pytest.raises(InputError, match="GOG features are an array of floats; got list; pass what"):
        normalise_gog(features.tolist(), features, spaces="RGB")
    with pytest.raises(
        InputError, match="GOG training features are an array of floats; got int64; pass what"
    ):
        normalise_gog(features, features.astype(int), spaces="RGB")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", 1.5])
def test_a_device_that_the_machine_lacks_is_refused(device):
    with pytest.raises(InputError, match=rf"one of this machine's, .*; got '{device}'; leave device out"):
        gog(random_images(1), device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same():
    images = random_images(20)
    np.testing.assert_allclose(gog(images, device="cuda"), gog(images), atol=1e-4)
