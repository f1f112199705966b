"""The nearest gallery images against faiss; one query in galleries of up to a million images in a file.

Run with: pytest tests/benchmarks/test_nearest_speed.py -s
The comparison asks for `pip install faiss-cpu`. `REIDLIB_GROWTH=growth.csv` before the command also writes
the table of the growth to that file.
"""

import csv
import importlib
import json
import os
import statistics
import subprocess
import sys
import textwrap
import time
from math import inf
from pathlib import Path

import numpy as np
import pytest

from reidlib.ranking.nearest import nearest_images

QUERIES, GALLERY, LENGTHS, TOP, REPETITIONS, RATIO = 1000, 19732, (512, 2688), 10, 7, 1.25
IMAGES, SECONDS, GROWTH_LENGTH = (10_000, 100_000, 1_000_000), 1.0, 512
SMALL = {
    "QUERIES": 20, "GALLERY": 300, "LENGTHS": (16, 33), "REPETITIONS": 1, "RATIO": inf,
    "IMAGES": (1000, 2000), "SECONDS": inf, "GROWTH_LENGTH": 16,
}  # fmt: skip


def unit_features(generator: np.random.Generator, count: int, length: int) -> np.ndarray:
    """Unit features around the centres of 750 persons."""
    centres = np.random.default_rng(1).standard_normal((750, length), np.float32)
    features = 3 * generator.standard_normal((count, length), np.float32)
    features += centres[generator.integers(0, 750, count)]
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def seconds(action) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


@pytest.mark.parametrize("place", [0, 1])
def test_nearest_images_against_faiss(place):
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        pytest.skip("the comparison needs faiss: pip install faiss-cpu")
    generator, length = np.random.default_rng(0), LENGTHS[place]
    query, gallery = (unit_features(generator, count, length) for count in (QUERIES, GALLERY))
    ours = nearest_images(query, gallery, top=TOP)
    _, indices = faiss.knn(query, gallery, TOP)
    assert (ours.gallery_indices == indices).mean() > 0.99  # the rest are its ties
    times = [
        (
            seconds(lambda: nearest_images(query, gallery, top=TOP)),
            seconds(lambda: faiss.knn(query, gallery, TOP)),
        )
        for _ in range(REPETITIONS)
    ]
    ratio = statistics.median(own / other for own, other in times)
    own, other = (statistics.median(column) for column in zip(*times, strict=True))
    print(
        f"\nnearest, {QUERIES:,} queries and {GALLERY:,} images of {length:,} numbers: {own:.3f} s, "
        f"{ratio:.2f} times faiss.knn's {other:.3f} s"
    )
    assert ratio <= RATIO


def test_one_query_in_a_growing_gallery_on_disk(tmp_path):
    rows = []
    for count in IMAGES:
        file = tmp_path / "gallery.npy"
        generator = np.random.default_rng(2)
        stored = np.lib.format.open_memmap(file, "w+", np.float32, (count, GROWTH_LENGTH))
        for start in range(0, count, 50_000):
            rows_nd = stored[start : start + 50_000]
            rows_nd[:] = unit_features(generator, len(rows_nd), GROWTH_LENGTH)
        stored.flush()
        del stored
        rows.append({"images": count} | measured(file))
        file.unlink()
    print(f"\none query, {GROWTH_LENGTH} numbers, from a memory-mapped file")
    for row in rows:
        print(
            f"{row['images']:>9,} images: {row['cold_seconds']:.2f} s cold, {row['seconds']:.3f} s with the "
            f"file in the page cache, {row['extra_mebibytes']:.0f} MiB beyond the file"
        )
    if target := os.environ.get("REIDLIB_GROWTH"):
        with Path(target).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    assert rows[-1]["seconds"] < SECONDS


def measured(file: Path) -> dict[str, float]:
    """Return times, and memory beyond the mapped file, of one query in a new process."""
    program = """
        import json, os, statistics, sys, threading, time
        import numpy as np
        from reidlib.ranking.nearest import nearest_images

        def memory():  # without the pages of mapped files
            lines = open("/proc/self/status").read().splitlines()
            return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

        def timed():
            begin = time.perf_counter()
            nearest_images(query, np.load(sys.argv[1], mmap_mode="r"), top=10)
            return time.perf_counter() - begin

        query = np.load(sys.argv[1], mmap_mode="r")[7:8] + np.float32(0.01)
        nearest_images(query, query, top=1)  # libraries are loaded
        with open(sys.argv[1], "rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before, peak, done = memory(), [0.0], threading.Event()

        def watch():
            while not done.wait(0.002):
                peak[0] = max(peak[0], memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        cold = timed()  # the first call, whose memory no earlier call has left
        done.set()
        watcher.join()
        times = [timed() for _ in range(5)]
        print(json.dumps({"cold_seconds": cold, "seconds": statistics.median(times),
            "extra_mebibytes": max(0.0, peak[0] - before)}))
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
