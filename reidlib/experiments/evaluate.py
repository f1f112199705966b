"""A trained run's network on test images: scores by branch and ranked lists, kept with the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from reidlib import files
from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.data.readers import load, load_specified, parse
from reidlib.data.splits import concatenated
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork
from reidlib.files import find_json, write_json, write_whole
from reidlib.ranking.metrics import (
    Embeddings,
    RankedLists,
    evaluate,
    evaluate_each,
    pool_multi_query,
    ranked_list,
)
from reidlib.ranking.protocols import evaluate_protocol
from reidlib.training.device import Execution
from reidlib.training.runs import Run

# Of scores.json: change it with anything that is added to the file or computed in another way.
FORMAT = 2
# Ranks of the CMC curve that is kept with a run.
CMC_RANKS = tuple(range(1, 51))
# And of a row in a table, which is all that is kept of multi-query scores.
TABLE_RANKS = (1, 5, 10, 20)
# Ranked lists that are kept with a run, so that figures need no weights: of this many worst, middle and
# best queries by average precision, this many images.
LISTED_QUERIES, LISTED_IMAGES = 64, 20
AVERAGE_PRECISIONS = ("step", "trapezoid")


def benchmark_of(
    run: Run, data_root: str | Path = "", *, benchmark: str = "", distractors: bool = False
) -> Benchmark:
    """The benchmark that a run was trained on, from ``data_root`` or else from where it lay then.

    benchmark: another one instead, with its options, from ``data_root``. distractors: with half a million
    more gallery images, where it has them. Raises InputError where the folder is not there, and for a run on
    several benchmarks together.
    """
    root = data_root or run.information.get("data_root", "")
    specification = run.configuration["benchmark"]
    if benchmark and benchmark != specification:
        if not data_root:
            rule = "another benchmark than the one that a run was trained on is read from its folder"
            raise InputError(rule, f"{benchmark} and no folder", "name the data folder")
        return load_specified(benchmark, Path(data_root))
    if not (root and Path(root).exists()):
        raise InputError(
            "a run is evaluated on the folder it was trained on", f"no {root or 'folder'}", "give --data-root"
        )
    if "+" in specification:
        raise InputError(
            "a run on one benchmark is evaluated again",
            f"one on {specification} together",
            "evaluate a run that starts from it",
        )
    name, options = parse(specification)
    if distractors and name != "market1501":
        raise InputError("--distractors is for runs on market1501", f"one on {specification}", "leave it out")
    return load(name, Path(root), **options, **({"distractors": True} if distractors else {}))


def evaluate_run(run: Run, benchmark: Benchmark, *, execution: Execution | None = None) -> dict:
    """Scores of a trained run, by branch; also kept as ``scores.json`` and ``rankings.npz``.

    Both definitions of average precision are computed, and where the benchmark has ``boxes`` also
    multi-query scores, under ``multi_query`` of a branch (see ``multi_query_scores``), and for each of its
    ``protocols`` what ``evaluate_protocol`` finds, under ``protocols`` and its title. ``rankings.npz``
    holds ranked lists by the full feature (see ``LISTED_QUERIES``), so that drawing them needs no weights.
    ``query_person_ids`` stands beside, because intervals draw whole persons.
    Raises InputError if the run was trained on other data.
    """
    network = TrainedNetwork.trained_on(benchmark, run, execution)
    device = network.execution.torch_device
    query, gallery = map(network.embed, (benchmark.query, benchmark.gallery))
    boxes = _embed_boxes(network, benchmark, query, gallery)
    branches = {}
    for name, columns in network.model.branches.items():
        branch_query, branch_gallery = (branch_of(side, columns, device) for side in (query, gallery))
        branches[name] = score_record(branch_query, branch_gallery, CMC_RANKS)
        if boxes is not None:
            branch_boxes = branch_of(boxes, columns, device)
            branches[name]["multi_query"] = multi_query_scores(branch_query, branch_gallery, branch_boxes)
        if benchmark.protocols:
            branches[name]["protocols"] = {
                title: evaluate_protocol(branch_query, branch_gallery, protocol, ranks=TABLE_RANKS).to_dict()
                for title, protocol in benchmark.protocols.items()
            }
    listed = _listed_queries(branches["full"]["step"]["average_precision"])
    lists = ranked_list(listed, query, gallery, top=LISTED_IMAGES)
    write_whole(run.folder / "rankings.npz", lambda partial: _save_lists(partial, listed, lists))
    scores = {
        "format": FORMAT,
        "benchmark": benchmark.specification,
        "data": benchmark.fingerprint,
        "protocols": _written_protocols(benchmark),
        "num_boxes": None if benchmark.boxes is None else len(benchmark.boxes),
        "query_person_ids": benchmark.query.person_ids.tolist(),
        "branches": branches,
    }
    write_json(run.folder / "scores.json", scores)
    return scores


def multi_query_scores(query: Embeddings, gallery: Embeddings, boxes: Embeddings) -> dict:
    """Scores with each query's feature pooled over ``boxes`` of its person in its camera.

    "mean" and "max" (over the boxes, of each element), each with "step" and "trapezoid", with what a table
    shows: ``cmc`` at ``TABLE_RANKS``, ``mean_average_precision``, ``mean_inp``, ``num_valid_queries``.

    The pooled features have unit length, so the gallery's are brought to it as well, as the baseline of
    Market-1501 normalises every feature: a Euclidean distance between lengths that differ (a
    concatenation of two unit vectors, an embedding that was never normalised) would not be the protocol's.
    """
    gallery = replace(gallery, features=normalize(gallery.features))
    found = {}
    for how in ("mean", "max"):
        pooled = pool_multi_query(query, boxes, how=how)
        found[how] = score_record(pooled, gallery, TABLE_RANKS)
        for scores in found[how].values():
            for name in ("num_queries", "average_precision", "first_match_rank"):
                del scores[name]
    return found


def evaluate_with_distractors(
    run: Run, benchmark: Benchmark, *, execution: Execution | None = None
) -> dict[str, dict]:
    """Scores of the full feature with ``distractors`` in the gallery, kept as ``distractors.json``.

    "step" and "trapezoid", each as in ``scores.json`` with the ``cmc`` at ``TABLE_RANKS``, and the numbers of
    images. Gallery and distractors pass through memory a few hundred images at a time; their features lie in
    one file under ``files.feature_cache()`` (4·D bytes an image, 2 GB for half a million of JLML's), from
    which they are ranked block by block. An interrupted call goes on from there; the file may be removed
    afterwards. Raises InputError for a benchmark read without distractors and a run of other data.
    """
    if benchmark.distractors is None:
        raise InputError(
            "scores with distractors need the benchmark's distractors",
            f"{benchmark.specification} without",
            "read it with distractors=True",
        )
    network = TrainedNetwork.trained_on(benchmark, run, execution)
    query = network.embed(benchmark.query)
    together = concatenated((benchmark.gallery, benchmark.distractors))
    file = files.feature_cache() / f"{run.folder.name}-distractors.npy"
    gallery = network.embed(together, keep="features", file=file)
    scores = {"num_gallery": len(benchmark.gallery), "num_distractors": len(benchmark.distractors)}
    scores |= score_record(query, gallery, TABLE_RANKS, device=network.execution.torch_device)
    write_json(run.folder / "distractors.json", scores)
    return scores


@dataclass(frozen=True)
class Way:
    """A way to score: rank-1, and how many entries a query was compared with (fewest, most)."""

    name: str
    rank1: float
    gallery: tuple[int, int]


def study_protocols(run: Run, benchmark: Benchmark, *, execution: Execution | None = None) -> list[Way]:
    """A run's rank-1 by the full feature on one benchmark's test images under each protocol.

    What the protocol alone does to a score: the same features, scored in the ways of the papers' tables.
    Query and gallery images of known persons are put together, junk and distractors left out, so that each
    protocol draws from the same images: only what is compared with what changes. Raises InputError for a
    run without weights or of other data.
    """
    network = TrainedNetwork.trained_on(benchmark, run, execution)
    query, gallery = map(network.embed, (benchmark.query, benchmark.gallery))
    known = _some(gallery, gallery.person_ids > 0)
    everyone = Embeddings(
        np.concatenate([np.asarray(side.features) for side in (query, known)]),
        np.concatenate([query.person_ids, known.person_ids]),
        np.concatenate([query.camera_ids, known.camera_ids]),
    )
    persons = np.unique(everyone.person_ids)
    half = np.isin(everyone.person_ids, persons[: len(persons) // 2])
    found = [Way("Market-1501: every image", evaluate(query, known).cmc[1], (len(known), len(known)))]
    own = np.isin(everyone.person_ids, query.person_ids)
    pooled = pool_multi_query(query, _some(everyone, own))
    found.append(Way("the same, multi-query", evaluate(pooled, known).cmc[1], (len(known), len(known))))
    for name, images, protocol in (
        ("single-shot, other cameras", everyone, Protocol("single", draws=10)),
        ("single-shot, all cameras", everyone, Protocol("single", draws=10, across_cameras=False)),
        ("single-shot, half the persons", _some(everyone, half), Protocol("single", draws=10)),
        ("multi-shot, other cameras", everyone, Protocol("multi")),
    ):
        scores = evaluate_protocol(images, images, protocol)
        found.append(Way(name, scores.cmc[1], scores.gallery_size))
    return found


def _some(images: Embeddings, chosen: np.ndarray) -> Embeddings:
    return Embeddings(
        np.asarray(images.features)[chosen], images.person_ids[chosen], images.camera_ids[chosen]
    )


def score_record(
    query: Embeddings, gallery: Embeddings, ranks: Sequence[int], *, device: torch.device | None = None
) -> dict[str, dict]:
    """ "step" and "trapezoid": the scores by each definition of average precision, as they are written."""
    found = evaluate_each(query, gallery, ranks=ranks, device=device)
    return {kind: scores.to_dict() for kind, scores in found.items()}


def scored(run: Run, benchmark: Benchmark) -> bool:
    """Has the run all the scores for this benchmark that it can have, be it without its weights?"""
    return current(run, benchmark) or (usable(run) and not run.has_weights)


def current(run: Run, benchmark: Benchmark) -> bool:
    """Has the run all the scores that ``evaluate_run`` would find today, for this very benchmark?"""
    scores = find_json(run.folder / "scores.json") or {}
    return (
        scores.get("format") == FORMAT
        and scores.get("data") == benchmark.fingerprint
        # Without boxes here, multi-query scores that another machine had boxes for are not in the way.
        and scores.get("protocols", {}) == _written_protocols(benchmark)
        and (benchmark.boxes is None or scores.get("num_boxes") == len(benchmark.boxes))
        and usable(run)
    )


def _written_protocols(benchmark: Benchmark) -> dict:
    """How protocols stand in a run's scores, so that one that was changed since is found out."""
    return json.loads(json.dumps({title: asdict(one) for title, one in benchmark.protocols.items()}))


def usable(run: Run) -> bool:
    """Has the run single-query scores, be they of an older format or without multi-query ones?

    Such a run may lie here without its weights, so that these are the best scores at hand.
    """
    scores = find_json(run.folder / "scores.json") or {}
    branches = scores.get("branches", {})
    same_data = scores.get("data") == run.configuration["data"]
    return (
        same_data
        and "full" in branches
        and all(
            branch.get(kind, {}).keys() >= _SINGLE_QUERY_FIELDS
            for branch in branches.values()
            for kind in AVERAGE_PRECISIONS
        )
    )


_SINGLE_QUERY_FIELDS = {"cmc", "mean_average_precision", "mean_inp", "average_precision", "first_match_rank"}


def ranked_lists_of(run: Run) -> dict[str, np.ndarray]:
    """The kept ranked lists, worst average precision first: query_indices (L,) and, of each query's list,
    gallery_indices, distances and statuses (L, places); see ``ranking.metrics.RankedLists``.
    """
    with np.load(run.folder / "rankings.npz") as file:
        return dict(file)


def branch_of(embeddings: Embeddings, columns: slice, device: torch.device) -> Embeddings:
    """One branch's columns of features, on the device."""
    return replace(embeddings, features=embeddings.features[:, columns].to(device))


def _embed_boxes(
    network: TrainedNetwork, benchmark: Benchmark, query: Embeddings, gallery: Embeddings
) -> Embeddings | None:
    """Features of a benchmark's boxes; those that are query or gallery images are not computed again."""
    boxes = benchmark.boxes
    if boxes is None:
        return None
    row_of = {path: row for row, path in enumerate((*benchmark.query.paths, *benchmark.gallery.paths))}
    rows_n = np.array([row_of.get(path, -1) for path in boxes.paths])
    new, in_gallery = rows_n < 0, rows_n >= len(query)
    in_query = ~new & ~in_gallery
    features_nd = torch.empty(len(boxes), query.features.shape[1])
    features_nd[in_query] = query.features[rows_n[in_query]]
    features_nd[in_gallery] = gallery.features[rows_n[in_gallery] - len(query)]
    if new.any():
        features_nd[new] = network.embed(boxes.select(new), keep="nothing").features
    return Embeddings(features_nd, boxes.person_ids, boxes.camera_ids)


def _listed_queries(average_precision: list[float | None]) -> np.ndarray:
    """Worst, middle and best queries of those that have a match, in ascending order of precision."""
    precision_q = np.array(average_precision, dtype=float)  # None is not a number
    order = np.argsort(precision_q, kind="stable")[: np.count_nonzero(~np.isnan(precision_q))]
    if len(order) <= 3 * LISTED_QUERIES:
        return order
    middle = (len(order) - LISTED_QUERIES) // 2
    return order[np.r_[:LISTED_QUERIES, middle : middle + LISTED_QUERIES, -LISTED_QUERIES:0]]


def _save_lists(path: Path, query_indices: np.ndarray, lists: RankedLists) -> None:
    with path.open("wb") as file:  # a name would be given the ending .npz
        np.savez_compressed(file, query_indices=query_indices, **lists._asdict())
