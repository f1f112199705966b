"""What the protocol alone does to a score: the same features, scored in the ways of the papers' tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.experiments.features import Network
from reidlib.ranking.metrics import Embeddings, evaluate, pool_multi_query
from reidlib.ranking.protocols import evaluate_protocol
from reidlib.training.device import Execution
from reidlib.training.runs import Run

STANDARD = "Market-1501: every image"


@dataclass(frozen=True)
class Way:
    """A way to score: rank-1, and how many entries a query was compared with (fewest, most)."""

    name: str
    rank1: float
    gallery: tuple[int, int]


def study(run: Run, benchmark: Benchmark, *, execution: Execution | None = None) -> list[Way]:
    """A run's rank-1 on one benchmark's test images under each protocol.

    Query and gallery images of known persons are put together, junk and distractors left out, so that each
    protocol draws from the same images: only what is compared with what changes. Raises InputError for a
    run without weights or of other data.
    """
    network = Network.trained_on(benchmark, run, execution)
    query, gallery = map(network.embed, (benchmark.query, benchmark.gallery))
    return ways(query, gallery)


def ways(query: Embeddings, gallery: Embeddings, *, draws: int = 10) -> list[Way]:
    """Rank-1 of the same features under each protocol; ``study`` says what is compared."""
    known = _some(gallery, gallery.person_ids > 0)
    everyone = Embeddings(
        np.concatenate([np.asarray(side.features) for side in (query, known)]),
        np.concatenate([query.person_ids, known.person_ids]),
        np.concatenate([query.camera_ids, known.camera_ids]),
    )
    persons = np.unique(everyone.person_ids)
    half = np.isin(everyone.person_ids, persons[: len(persons) // 2])
    found = [Way(STANDARD, evaluate(query, known).cmc[1], (len(known), len(known)))]
    own = np.isin(everyone.person_ids, query.person_ids)
    pooled = pool_multi_query(query, _some(everyone, own))
    found.append(Way("the same, multi-query", evaluate(pooled, known).cmc[1], (len(known), len(known))))
    for name, images, protocol in (
        ("single-shot, other cameras", everyone, Protocol("single", draws=draws)),
        ("single-shot, all cameras", everyone, Protocol("single", draws=draws, across_cameras=False)),
        ("single-shot, half the persons", _some(everyone, half), Protocol("single", draws=draws)),
        ("multi-shot, other cameras", everyone, Protocol("multi")),
    ):
        scores = evaluate_protocol(images, images, protocol)
        found.append(Way(name, scores.cmc[1], scores.gallery_size))
    return found


def _some(images: Embeddings, chosen: np.ndarray) -> Embeddings:
    return Embeddings(
        np.asarray(images.features)[chosen], images.person_ids[chosen], images.camera_ids[chosen]
    )
