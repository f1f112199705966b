"""Colour histograms of horizontal stripes."""

from __future__ import annotations

import numpy as np


def stripe_histograms(images_nhwc: np.ndarray, *, stripes: int = 6, bins: int = 8) -> np.ndarray:
    """Compute colour histograms of horizontal stripes.

    Each stripe has a histogram of each RGB channel. The square root of the histogram (Hellinger map) makes
    Euclidean distances compare distributions. This is the simplest descriptor that locates colours on the
    body; a benchmark on which it scores high needs no learning.

    Args:
        images_nhwc: RGB images (N, H, W, 3), uint8; may be a memory map.
        stripes: Number of stripes of equal height.
        bins: Number of bins of a histogram.

    Returns:
        Features (N, stripes·3·bins), float32, of unit length.
    """
    count, height = images_nhwc.shape[:2]
    edges = np.linspace(0, height, stripes + 1).round().astype(int)
    features = np.empty((count, stripes, 3, bins), np.float32)
    for index, image_hwc in enumerate(images_nhwc):  # one at a time, because the images may be a memory map
        levels_hwc = image_hwc.astype(np.int64) * bins // 256 + bins * np.arange(3)
        for stripe in range(stripes):
            rows = levels_hwc[edges[stripe] : edges[stripe + 1]]
            counts = np.bincount(rows.ravel(), minlength=3 * bins).reshape(3, bins)
            features[index, stripe] = np.sqrt(counts / rows[..., 0].size)
    return features.reshape(count, -1) / np.sqrt(np.float32(3 * stripes))
