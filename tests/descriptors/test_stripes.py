"""Colour histograms against hand-counted stripes."""

import numpy as np
import pytest

from reidlib.descriptors import stripe_histograms


def test_counts_by_stripe_and_channel():
    image = np.zeros((4, 2, 3), np.uint8)
    image[:2, :, 0] = 255  # upper half red: red's top bin, green's and blue's bottom bin
    image[2, 0, 2] = 200  # one of four pixels of the lower half is blue
    features = stripe_histograms(image[None], stripes=2, bins=2).reshape(2, 3, 2)
    expected = np.array([[[0, 1], [1, 0], [1, 0]], [[1, 0], [1, 0], [0.75, 0.25]]]) / 6
    np.testing.assert_allclose(features**2, expected, atol=1e-6)


@pytest.mark.parametrize("stripes", [1, 3, 6])
def test_every_descriptor_has_unit_length(stripes):
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 8, 3), dtype=np.uint8)
    lengths = np.linalg.norm(stripe_histograms(images, stripes=stripes), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
