"""Hand-crafted descriptors: what an image says without any training."""

from __future__ import annotations

import numpy as np


def stripe_histograms(images_nhwc: np.ndarray, *, stripes: int = 6, bins: int = 8) -> np.ndarray:
    """Colour histograms of horizontal stripes: ``(N, H, W, 3)`` uint8 -> ``(N, stripes·3·bins)`` float32.

    One histogram of each RGB channel in each stripe, Hellinger-mapped (its square root has unit length),
    so that Euclidean distance compares distributions. The plainest descriptor that knows where on the body
    a colour is; a benchmark on which it does well asks for no learning.
    """
    count, height = images_nhwc.shape[:2]
    edges = np.linspace(0, height, stripes + 1).round().astype(int)
    features = np.empty((count, stripes, 3, bins), np.float32)
    for index, image_hwc in enumerate(images_nhwc):  # one image at a time: the set may be a memory map
        levels_hwc = image_hwc.astype(np.int64) * bins // 256 + bins * np.arange(3)
        for stripe in range(stripes):
            rows = levels_hwc[edges[stripe] : edges[stripe + 1]]
            counts = np.bincount(rows.ravel(), minlength=3 * bins).reshape(3, bins)
            features[index, stripe] = np.sqrt(counts / rows[..., 0].size)
    return features.reshape(count, -1) / np.sqrt(np.float32(3 * stripes))
