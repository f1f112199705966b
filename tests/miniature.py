"""A miniature benchmark in Market-1501's exact layout, small enough to count by hand."""

import numpy as np
from PIL import Image

# Names of a miniature: two training persons, two test persons, junk, a distractor, three cameras.
MINIATURE = {
    "bounding_box_train": (
        "0002_c1s1_000451_03.jpg",
        "0002_c2s1_000301_01.jpg",
        "0002_c2s1_000326_01.jpg",
        "0007_c1s6_028546_01.jpg",
        "0007_c3s3_077419_03.jpg",
    ),
    "query": ("0001_c1s1_001051_00.jpg", "0003_c2s1_000001_00.jpg"),
    "bounding_box_test": (
        "-1_c1s1_000401_03.jpg",
        "-1_c2s1_000501_02.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c1s1_001051_02.jpg",
        "0001_c2s1_000801_01.jpg",
        "0003_c1s1_000051_01.jpg",
        "0003_c3s1_000076_02.jpg",
    ),
}


def write_image(path, size=(16, 8), seed=0):
    """Write a JPEG of smooth colours; ``size`` is (height, width) in pixels."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 2, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BILINEAR).save(path, quality=95)
