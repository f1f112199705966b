"""The nine perturbed test sets of all networks against the straightforward way.

Run with `pytest tests/benchmarks/test_perturbed_speed.py -s`. The straightforward way renders all test images
of the benchmark's first version (130 persons, 2,140 images) to files, then reads, embeds and scores them for
each run. It is measured on one of the sets. Both ways run on one core, in one process.
"""

import time

import numpy as np
import pytest
import torch
from untrained_runs import QUIET, untrained_run

from reidlib.data import load
from reidlib.data.decoding import decode
from reidlib.data.images import ImageStore
from reidlib.data.synthetic.factors import BenchmarkSize
from reidlib.data.synthetic.render import SIZES, render
from reidlib.experiments import perturbations
from reidlib.experiments.evaluate import TABLE_RANKS, score_record, select_branch
from reidlib.experiments.features import TrainedNetwork, embed
from reidlib.experiments.rows import EXPERIMENTS, PROFILES, Perturbation, all_perturbations
from reidlib.ranking.metrics import Embeddings
from reidlib.training.config import MODELS

PROFILE, LARGEST_RATIO = "quick", 0.3
TEST_SIDE = BenchmarkSize(2, 130, 12, 12, 780, 1170, 110, 80, 0.0)  # with hardly any training image
SMALL = {
    "PROFILE": "smoke",
    "LARGEST_RATIO": float("inf"),
    "TEST_SIDE": BenchmarkSize(2, 4, 6, 6, 12, 14, 4, 4, 0.0),
}
STRONGEST = Perturbation("box_jitter", 0.24)
SCALE = Perturbation("box_scale_error", 0.24)
# What `reidlib reproduce` evaluates: the networks of notebook 36, and the claim's other reading.
REQUESTS = dict.fromkeys(("jlml", "pyramid", "pyramid-global", "pyramid-stripes"), all_perturbations())
REQUESTS["pyramid-stripes-same-rate"] = (Perturbation("box_jitter", 0.06), STRONGEST, SCALE)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def straightforward(run, benchmark) -> None:
    """Decode all files, embed them in batches of 128, and score each branch."""
    network = TrainedNetwork(run, QUIET)
    sides = []
    for split in (benchmark.query, benchmark.gallery):
        images = np.stack([decode(path, network.input_size) for path in split.paths])
        features_nd = embed(network.model, ImageStore(images, torch.device("cpu")), batch_size=128)
        sides.append(Embeddings(features_nd, split.person_ids, split.camera_ids))
    for name in perturbations.BRANCHES:
        if name in network.model.branches:
            columns = network.model.branches[name]
            score_record(*(select_branch(side, columns, torch.device("cpu")) for side in sides), TABLE_RANKS)


def test_nine_perturbed_test_sets(tmp_path, monkeypatch, one_thread):
    monkeypatch.setitem(SIZES, "first", TEST_SIDE)
    benchmark = load("synthetic", render(PROFILE, tmp_path / "benchmark", progress=False))
    requests = {}
    for row, under in REQUESTS.items():
        size = PROFILES[PROFILE].sizes[EXPERIMENTS[row].model]
        model = MODELS[EXPERIMENTS[row].model](**{**size.overrides, **EXPERIMENTS[row].overrides})
        requests[untrained_run(benchmark, tmp_path / row, model, size.input_size)] = under

    start = time.perf_counter()
    root = render("first", tmp_path / "first", factors=STRONGEST.factors, progress=False)
    images = load("synthetic", root)
    rendering = time.perf_counter() - start
    evaluations = []
    for run in requests:
        start = time.perf_counter()
        straightforward(run, images)
        evaluations.append(time.perf_counter() - start)
    sets = [sum(not perturbation.is_default for perturbation in under) for under in requests.values()]
    slow = 9 * rendering + sum(n * seconds for n, seconds in zip(sets, evaluations, strict=True))

    start = time.perf_counter()
    assert perturbations.evaluate_perturbations(requests, benchmark, execution=QUIET) == {}
    fast = time.perf_counter() - start
    print(
        f"\nnine perturbed sets, {len(requests)} networks, one core: {slow:.0f} s in the straightforward way "
        f"on {len(images.query) + len(images.gallery):,} images ({rendering:.1f} s a set for rendering, "
        f"{', '.join(f'{seconds:.1f}' for seconds in evaluations)} s for a network), {fast:.0f} s on "
        f"{len(perturbations.part(PROFILE)):,} images of the part: {fast / slow:.2f} of that"
    )
    assert fast / slow <= LARGEST_RATIO
