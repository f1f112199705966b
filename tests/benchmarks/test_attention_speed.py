"""Seconds for sixteen attention maps at 256×128, of each network in its larger size, and for a pair's figure.

Run with: pytest tests/benchmarks/test_attention_speed.py -s
The trunk's pass over the sixteen images is part of it. A map is one image's for one part; "all parts" are as
many maps for each image as the network has parts.
"""

import statistics
import time
from math import inf

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from reidlib.data.augmentation import normalise_images
from reidlib.models import JLML, Pyramid
from reidlib.models.parts import FeaturePart, pyramid_parts
from reidlib.training.device import Execution
from reidlib.visual import set_style
from reidlib.visual.attention.figures import pair_figure
from reidlib.visual.attention.maps import part_attention

IMAGES, HEIGHT, WIDTH, IDENTITIES, ROUNDS = 16, 256, 128, 751, 5
SECONDS, SECONDS_FIGURE = 2, 0.5
SMALL = {"IMAGES": 2, "HEIGHT": 128, "WIDTH": 64, "ROUNDS": 1, "SECONDS": inf, "SECONDS_FIGURE": inf}


def networks():
    """JLML as in its paper, and a Pyramid whose stripes divide the map of sixteen rows."""
    return {
        "JLML": JLML(IDENTITIES),
        "Pyramid": Pyramid(IDENTITIES, stripes=4, trunk="resnet50", weights=None, normalisation="part"),
    }


@pytest.mark.parametrize("name", ["JLML", "Pyramid"])
def test_sixteen_maps(name):
    execution = Execution(progress=False)
    device = execution.torch_device
    threads = torch.get_num_threads()
    torch.manual_seed(0)
    model = networks()[name].eval().to(device, memory_format=torch.channels_last)
    images = torch.randint(0, 256, (IMAGES, HEIGHT, WIDTH, 3), dtype=torch.uint8, device=device)
    images = images.permute(0, 3, 1, 2)
    parts = model.feature_parts(HEIGHT)
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            others = model.embed(normalise_images(images)).roll(1, 0)

        def seconds(requested_parts) -> list[float]:
            durations = []
            for _ in range(ROUNDS + 1):
                start = time.perf_counter()
                maps = part_attention(model, images, others, parts=requested_parts)
                durations.append(time.perf_counter() - start)
                assert maps.shape == (IMAGES, len(requested_parts), HEIGHT, WIDTH)
            return durations[1:]  # the first round warms up

        one_part, all_parts = seconds(parts[:1]), seconds(parts)
    finally:
        torch.set_num_threads(threads)
    print(
        f"\n{name}, two threads, {execution.describe()}: {IMAGES} images of {HEIGHT}×{WIDTH}, "
        f"one part each {statistics.median(one_part):.2f} s ({min(one_part):.2f} to {max(one_part):.2f}), "
        f"all {len(parts)} parts {statistics.median(all_parts):.2f} s "
        f"({min(all_parts):.2f} to {max(all_parts):.2f})"
    )
    assert statistics.median(one_part) <= SECONDS


def test_the_largest_pairs_figure():
    height, width = 96, 32
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    parts = [
        FeaturePart(f"{first + 1}–{stop}", f"level {stop - first}", slice(i, i + 1), (first / 6, stop / 6))
        for i, (first, stop) in enumerate(pyramid_parts(6))
    ]
    maps_phw = np.ones((len(parts), height, width), np.float32)
    durations = []
    with mpl.rc_context(), plt.ioff():
        plt.switch_backend("agg")
        set_style()
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            pair_figure(*images, maps_phw, maps_phw, parts, similarities_p=[0.5] * len(parts))
            durations.append(time.perf_counter() - start)
        plt.close("all")
    print(f"\nfigure of a pair with {len(parts)} parts: {statistics.median(durations[1:]):.2f} s")
    assert min(durations) < SECONDS_FIGURE
