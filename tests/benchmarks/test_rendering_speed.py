"""Images a second of the embedded benchmark, and what culling saves.

Run with: pytest tests/benchmarks/test_rendering_speed.py -s
"""

import time

import numpy as np

from reidlib.data.synthetic.factors import SIZES, Factors, plan
from reidlib.data.synthetic.photographs import Studio, photograph, single_threaded_pool
from reidlib.data.synthetic.render import SHAPE, render
from reidlib.data.synthetic.scenes import compose

SIZE, IMAGES, RATIO = "quick", 32, 3
SMALL = {"SIZE": "smoke", "IMAGES": 4, "RATIO": 0}


def test_rendering_speed(tmp_path):
    """End to end, files written. The goal is 150 images/s on two idle cores; a busy machine reaches less."""
    start = time.perf_counter()
    render("smoke", tmp_path / "smoke", progress=False)
    smoke = time.perf_counter() - start
    start = time.perf_counter()
    render(SIZE, tmp_path / "timed", progress=False)
    seconds = time.perf_counter() - start
    count = len(list((tmp_path / "timed").glob("*/*.jpg")))
    print(
        f"\nsmoke in {smoke:.1f} s; {SIZE}: {count} images in {seconds:.1f} s, {count / seconds:.0f} images/s"
    )
    assert count == len(plan(SIZES[SIZE], 6, 0))


def test_culling_against_every_capsule_on_every_ray():
    """Same pictures, same run, one core each: the culled form has to be several times quicker."""
    factors = Factors(num_cameras=2)
    studio = Studio.build(factors, 0, "cpu")
    scenes = compose(plan(SIZES["quick"], 2, 0)[:IMAGES], factors, 0)
    seconds = {True: [], False: []}

    def once(culled: bool) -> np.ndarray:
        start = time.perf_counter()
        pictures = photograph(scenes, studio, SHAPE, culled=culled).numpy()
        seconds[culled].append(time.perf_counter() - start)
        return pictures

    with single_threaded_pool(1) as pool:
        for _ in range(2):
            quick, naive = (pool.submit(once, culled).result() for culled in (True, False))
            np.testing.assert_array_equal(quick, naive)
    ratio = min(seconds[False]) / min(seconds[True])
    print(
        f"\nculled {IMAGES / min(seconds[True]):.0f} images/s on one core, {ratio:.1f} times the naive form"
    )
    assert ratio > RATIO
