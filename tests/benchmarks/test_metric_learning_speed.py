"""Learning a metric from LOMO of CUHK01's training images, and what ranking by a learnt metric costs.

Run with: pytest tests/benchmarks/test_metric_learning_speed.py -s
"""

import json
import statistics
import subprocess
import sys
import textwrap
import time
from math import inf

import numpy as np
import pytest

from reidlib.metric_learning import CRAFT, KISSME, XQDA, NullSpace
from reidlib.ranking import Embeddings, evaluate

# 485 persons with two images from each of two cameras; 160 × 60 pixels give LOMO 35,722 numbers.
PERSONS, LENGTH, SECONDS, GIBIBYTES = 485, 35_722, 30.0, 2.0
QUERIES, GALLERY, FEATURE, REPETITIONS = 1000, 19_732, 1024, 3
RATIO, FIXED = 1.1, 0.1  # to L2; seconds to read and check the features
SMALL = {
    "PERSONS": 20, "LENGTH": 300, "SECONDS": inf, "GIBIBYTES": inf,
    "QUERIES": 20, "GALLERY": 200, "FEATURE": 60, "REPETITIONS": 1, "RATIO": inf, "FIXED": inf,
}  # fmt: skip

LEARN = """
    import json, resource, sys, time
    import numpy as np
    from reidlib.metric_learning import CRAFT, KISSME, XQDA, NullSpace

    persons, length = int(sys.argv[2]), int(sys.argv[3])
    generator = np.random.default_rng(0)
    ids, cameras = np.repeat(np.arange(1, persons + 1), 4), np.tile([1, 1, 2, 2], persons)
    features = 0.3 * generator.random((len(ids), length), np.float32)
    for person in range(persons):
        features[4 * person : 4 * person + 4] += generator.random(length, np.float32)
    features *= np.sqrt(3) / np.linalg.norm(features, axis=1, keepdims=True)  # as long as LOMO
    metric = eval(sys.argv[1])
    begin, worked = time.perf_counter(), time.process_time()
    metric.fit(features, ids, cameras)
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    print(json.dumps([seconds, worked, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20]))
"""


@pytest.mark.parametrize(
    "metric",
    [
        "XQDA()",
        "XQDA(values='generalised')",
        "NullSpace()",
        "NullSpace(kernel='linear')",
        "CRAFT()",
        "KISSME(components=10)",
    ],
)
def test_learning_from_lomo(metric):
    command = [sys.executable, "-c", textwrap.dedent(LEARN), metric, str(PERSONS), str(LENGTH)]
    seconds, worked, gibibytes = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    print(
        f"\n{metric}, {4 * PERSONS:,} images of {LENGTH:,} numbers: {seconds:.1f} s "
        f"({worked:.1f} s of all cores), {gibibytes:.2f} GiB"
    )
    assert seconds < SECONDS and gibibytes < GIBIBYTES


def features(generator: np.random.Generator, count: int) -> Embeddings:
    """Features around the centres of persons."""
    ids = generator.integers(1, PERSONS + 1, count)
    centres = np.random.default_rng(1).standard_normal((PERSONS + 1, FEATURE), np.float32)
    noise = generator.standard_normal((count, FEATURE), np.float32)
    return Embeddings(centres[ids] + 2 * noise, ids, generator.integers(1, 7, count))


@pytest.mark.parametrize(
    "metric, shots",
    [
        (XQDA(), 4),
        (KISSME(components=20), 4),
        (NullSpace(), 4),
        (NullSpace(kernel="linear"), 2),  # with four there are more images than numbers, and no null space
        (CRAFT(kernel="linear", components=20), 4),
    ],
    ids=str,
)
def test_ranking_by_a_learnt_metric(metric, shots):
    """One projection of the gallery, and then each query, against ranking by L2, one after the other."""
    generator, count = np.random.default_rng(0), shots * PERSONS
    query, gallery, training = (features(generator, each) for each in (QUERIES, GALLERY, count))
    metric.fit(training.features, training.person_ids, training.camera_ids)

    def seconds(action) -> float:
        begin = time.process_time()  # of all cores, whatever else they do
        action()
        return time.process_time() - begin

    sides = metric.embeddings(query, gallery)
    times = [
        (
            seconds(lambda: metric.embeddings(query, gallery)),
            seconds(lambda: evaluate(*sides)),
            seconds(lambda: evaluate(query, gallery)),
        )
        for _ in range(REPETITIONS)
    ]
    projecting, learnt, euclidean = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(own / other for _, own, other in times)
    directions = len(metric.signs)
    # The projection's products, as queries that L2 compares with the gallery.
    kernel = isinstance(metric, NullSpace) and metric.weights is None
    queries = count * (1 + directions / FEATURE) if kernel else directions
    allowed = queries * euclidean / QUERIES
    print(
        f"\n{metric} of {count:,} images, to {directions} of {FEATURE:,} numbers: {GALLERY:,} images are "
        f"projected in {projecting:.2f} s ({queries:,.0f} queries by L2: {allowed:.2f} s); then {QUERIES:,} "
        f"queries take {learnt:.2f} s, {ratio:.2f} times L2's {euclidean:.2f} s"
    )
    assert ratio < RATIO and projecting < RATIO * allowed + FIXED
