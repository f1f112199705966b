"""Evaluation at Market-1501's size against the bare matrix product, in time and memory.

Run with: pytest tests/benchmarks/test_ranking_speed.py -s
"""

import statistics
import subprocess
import sys
import textwrap
import time
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch

from reidlib.ranking.metrics import Embeddings, evaluate

QUERIES, JUNK, DISTRACTORS, TRUE, LENGTH = 3368, 3819, 2798, 13115, 1024
REPETITIONS, RATIO, MEBIBYTES = 9, 1.25, 512
SMALL = {"QUERIES": 60, "JUNK": 70, "DISTRACTORS": 50, "TRUE": 800, "REPETITIONS": 1, "RATIO": inf}


def market_sized(noise: float) -> tuple[Embeddings, Embeddings]:
    """Unit features around 750 persons' centres, in Market-1501's numbers of images."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((751, LENGTH), np.float32)

    def side(person_ids):
        features = noise * generator.standard_normal((len(person_ids), LENGTH), np.float32)
        has_identity = person_ids > 0
        features[has_identity] += centres[person_ids[has_identity]]
        features[~has_identity] += generator.standard_normal((int((~has_identity).sum()), LENGTH), np.float32)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        cameras = generator.integers(1, 7, len(person_ids))
        return Embeddings(torch.from_numpy(features), person_ids, cameras)

    persons = np.concatenate(
        [np.full(JUNK, -1), np.zeros(DISTRACTORS, int), generator.integers(1, 751, TRUE)]
    )
    return side(generator.integers(1, 751, QUERIES)), side(persons)


def seconds(action) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def products(query_qd, gallery_gd, query_block, gallery_block):
    for rows_bd in query_qd.split(query_block):
        for rows_gd in gallery_gd.split(gallery_block):
            rows_bd @ rows_gd.T


def peak_memory(query: Embeddings, gallery: Embeddings, folder: Path) -> float:
    """Return the MiB by which a new process grows during an evaluation (this one reuses freed memory)."""
    for name, side in (("query", query), ("gallery", gallery)):
        np.save(folder / f"{name}.npy", side.features.numpy())
        np.save(folder / f"{name}_ids.npy", np.stack([side.person_ids, side.camera_ids]))
    program = """
        import sys, threading
        from pathlib import Path
        import numpy as np
        from reidlib.ranking.metrics import Embeddings, evaluate

        def memory():
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

        folder = Path(sys.argv[1])
        query, gallery = (
            Embeddings(np.load(folder / f"{name}.npy"), *np.load(folder / f"{name}_ids.npy"))
            for name in ("query", "gallery")
        )
        before, peak, done = memory(), [0.0], threading.Event()

        def watch():
            while not done.wait(0.001):
                peak[0] = max(peak[0], memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        evaluate(query, gallery)
        done.set()
        watcher.join()
        print(peak[0] - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(folder)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize(("name", "noise"), [("a trained model", 3.0), ("an untrained model", 1e6)])
def test_evaluation_against_the_bare_matrix_product(name, noise, tmp_path):
    query, gallery = market_sized(noise)
    scores = evaluate(query, gallery)
    extra = peak_memory(query, gallery, tmp_path)
    sizes = [(QUERIES, len(gallery)), (QUERIES, 512), (1024, 2048)]  # the fastest of them is the yardstick
    ratios = []
    for _ in range(REPETITIONS):
        bare = min(seconds(lambda s=s: products(query.features, gallery.features, *s)) for s in sizes)
        ratios.append(seconds(lambda: evaluate(query, gallery)) / bare)
    ratio = statistics.median(ratios)
    print(
        f"\nevaluation, {name} (R1 {scores.cmc[1]:.1%}, mAP {scores.mean_average_precision:.1%}): "
        f"{ratio:.2f} times the bare matrix product ({min(ratios):.2f} to {max(ratios):.2f}), "
        f"{extra:.0f} MiB beyond its inputs"
    )
    assert extra <= MEBIBYTES
    assert ratio <= RATIO
