"""Re-ranking at Market-1501's size against the usual dense form, in time and memory.

The sparse form is the median of three processes. Run with: pytest tests/benchmarks/test_reranking_speed.py -s
Takes a few minutes, two cores and 8 GB for the dense form. Each form runs in a separate process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from reidlib.ranking.metrics import Embeddings, evaluate, evaluate_distances

QUERIES, GALLERY, LENGTH, PERSONS, CAMERAS = 3368, 15913, 512, 751, 6
THREADS = "2"
SMALLER, FASTER = 8, 15
SMALL = {"QUERIES": 60, "GALLERY": 400, "PERSONS": 20, "SMALLER": 0, "FASTER": 0}
PRELUDE = """
import json, sys, time
from pathlib import Path
import numpy as np

def memory(which):  # MiB, of this process: VmRSS now, VmHWM at most
    return int(Path("/proc/self/status").read_text().split(which + ":")[1].split()[0]) / 1024

folder = Path(sys.argv[1])
query, gallery = np.load(folder / "query.npy"), np.load(folder / "gallery.npy")

def measure(name, rerank):
    before, begin = memory("VmRSS"), time.perf_counter()
    distances = rerank(query, gallery)
    seconds = time.perf_counter() - begin
    used = memory("VmHWM") - before
    np.save(folder / f"{name}.npy", distances)
    return {"seconds": seconds, "MiB": used}
"""
SPARSE = """
import torch
from reidlib.reranking import KReciprocal, k_reciprocal

torch.ones(1)
result = measure("sparse", lambda query, gallery: k_reciprocal(query, gallery).numpy())
fitted, rows = KReciprocal.fit(query, gallery), []
for index in range(0, min(2000, len(query)), 100):
    begin = time.perf_counter()
    fitted.distances(index)
    rows.append(time.perf_counter() - begin)
print(json.dumps(result | {"row": sorted(rows)[len(rows) // 2], "slowest row": max(rows)}))
"""
DENSE = """
def rerank(query, gallery, k1=20, k2=6, weight=0.3):
    num_queries = len(query)
    images = np.concatenate([query, gallery])
    number = len(images)
    squares = (images**2).sum(1)
    distances = images @ images.T
    distances *= -2
    distances += squares
    distances += squares[:, None]
    distances /= distances.max(1, keepdims=True)
    order = np.argsort(distances, axis=1).astype(np.int32)

    def reciprocal(image, count):
        forward = order[image, :count]
        return forward[(order[forward, :count] == image).any(1)]

    encodings = np.zeros((number, number), np.float32)
    for image in range(number):
        near = reciprocal(image, k1 + 1)
        expanded = [near]
        for candidate in near:
            half = reciprocal(candidate, round(k1 / 2) + 1)
            if len(np.intersect1d(half, near)) > 2 / 3 * len(half):
                expanded.append(half)
        expanded = np.unique(np.concatenate(expanded))
        entries = np.exp(-distances[image, expanded])
        encodings[image, expanded] = entries / entries.sum()
    distances = distances[:num_queries, num_queries:].copy()
    averaged = np.empty_like(encodings)
    for image in range(number):
        averaged[image] = encodings[order[image, :k2]].mean(0)
    encodings = averaged
    del averaged, order
    holders = [np.flatnonzero(encodings[:, image]) for image in range(number)]
    for image in range(num_queries):
        common = np.zeros(number, np.float32)
        for entry in np.flatnonzero(encodings[image]):
            others = holders[entry]
            common[others] += np.minimum(encodings[image, entry], encodings[others, entry])
        common = common[num_queries:]
        distances[image] *= weight
        distances[image] += (1 - weight) * (1 - common / (2 - common))
    return distances

print(json.dumps(measure("dense", rerank)))
"""


def market_sized(folder: Path) -> tuple[Embeddings, Embeddings]:
    """Unit features around persons' centres, which look a little different to each camera."""
    generator = np.random.default_rng(0)
    persons = generator.integers(1, PERSONS + 1, QUERIES + GALLERY)
    cameras = generator.integers(0, CAMERAS, len(persons))
    features = generator.standard_normal((PERSONS + 1, LENGTH), np.float32)[persons]
    features += generator.standard_normal((PERSONS + 1, CAMERAS, LENGTH), np.float32)[persons, cameras]
    features += 2.5 * generator.standard_normal(features.shape, np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.save(folder / "query.npy", features[:QUERIES])
    np.save(folder / "gallery.npy", features[QUERIES:])
    query, gallery = slice(QUERIES), slice(QUERIES, None)
    return tuple(Embeddings(features[side], persons[side], cameras[side]) for side in (query, gallery))


def run(program: str, folder: Path) -> dict:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, THREADS)
    command = [sys.executable, "-c", PRELUDE + program, str(folder)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_re_ranking_against_the_dense_form(tmp_path):
    query, gallery = market_sized(tmp_path)
    dense = run(DENSE, tmp_path)
    sparse = sorted((run(SPARSE, tmp_path) for _ in range(3)), key=lambda result: result["seconds"])[1]
    sparse_qg, dense_qg = (np.load(tmp_path / f"{name}.npy", "r") for name in ("sparse", "dense"))
    different = float(np.mean(np.abs(sparse_qg - dense_qg) > 1e-4))
    plain = evaluate(query, gallery).mean_average_precision
    scores = [evaluate_distances(distances_qg, query, gallery) for distances_qg in (sparse_qg, dense_qg)]
    maps = [score.mean_average_precision for score in scores]
    faster, smaller = dense["seconds"] / sparse["seconds"], dense["MiB"] / sparse["MiB"]
    print(
        f"\n{QUERIES:,} queries, {GALLERY:,} gallery images of {PERSONS} persons and {CAMERAS} cameras, "
        f"{LENGTH} numbers a feature, {THREADS} threads; mAP {plain:.1%} without re-ranking"
        f"\ndense:  {dense['seconds']:6.1f} s, {dense['MiB']:6.0f} MiB beyond its inputs, mAP {maps[1]:.2%}"
        f"\nsparse: {sparse['seconds']:6.1f} s, {sparse['MiB']:6.0f} MiB beyond its inputs, mAP {maps[0]:.2%}"
        f"\n{faster:.1f} times as fast, {smaller:.1f} times as small; {different:.1e} of distances differ "
        f"by more than 1e-4\none query's row: {1000 * sparse['row']:.0f} ms in the median, "
        f"{1000 * sparse['slowest row']:.0f} ms at most"
    )
    # Nearest neighbours whose distances differ by less than rounding may stand the other way round.
    assert different < 1e-3
    assert smaller >= SMALLER
    assert faster >= FASTER
