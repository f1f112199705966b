"""Scores by branch and ranked lists of a trained run on test images, stored in the run's folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from reidlib import files
from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.data.readers import load, load_specified, parse
from reidlib.data.splits import concatenate
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.overlap import check_persons
from reidlib.files import find_json, write_atomically, write_json
from reidlib.ranking.distances import select_rows
from reidlib.ranking.metrics import (
    Embeddings,
    RankedLists,
    evaluate,
    evaluate_each,
    pool_multi_query,
    ranked_list,
    unit_rows,
)
from reidlib.ranking.protocols import evaluate_protocol
from reidlib.training.device import Execution
from reidlib.training.runs import Run

# Format of scores.json: increase it if the file gets a new entry or an entry is computed in another way.
FORMAT = 2
# Ranks of the stored CMC curve.
CMC_RANKS = tuple(range(1, 51))
# Ranks of a table's row, and of stored multi-query scores.
TABLE_RANKS = (1, 5, 10, 20)
# Ranked lists are stored so that figures need no weights: for as many worst, middle and best queries by
# average precision, as many images.
LISTED_QUERIES, LISTED_IMAGES = 64, 20
AVERAGE_PRECISIONS = ("step", "trapezoid")


def load_benchmark(
    run: Run, data_root: str | Path = "", *, benchmark: str = "", distractors: bool = False
) -> Benchmark:
    """Read the benchmark of a run, or another one, to evaluate the run on it.

    Args:
        run: The run.
        data_root: The benchmark's folder; by default the folder of the training.
        benchmark: Name and options of another benchmark than the run's.
        distractors: Whether to read Market-1501's 500,000 further distractors, too.

    Returns:
        The benchmark.

    Raises:
        InputError: If the folder is missing or not named for another benchmark, the run was trained on
            several benchmarks together or on persons that the other benchmark tests, or distractors are
            requested of another benchmark than Market-1501.
    """
    root = data_root or run.information.get("data_root", "")
    specification = run.configuration["benchmark"]
    if benchmark and benchmark != specification:
        if not data_root:
            rule = "a benchmark that a run was not trained on is read from a folder"
            raise InputError(rule, f"{benchmark} and no folder", "give the benchmark's folder")
        other = load_specified(benchmark, Path(data_root))
        other.check_scorable()
        if not is_own(run, other):
            check_persons(run, other)
        return other
    if not (root and Path(root).exists()):
        raise InputError(
            "a run is evaluated on the folder it was trained on", f"no {root or 'folder'}", "give --data-root"
        )
    if "+" in specification:
        raise InputError(
            "only a run on one benchmark can be evaluated again",
            f"a run on {specification} together",
            "evaluate a run that starts from this run",
        )
    name, options = parse(specification)
    if distractors and name != "market1501":
        raise InputError(
            "--distractors is for runs on market1501", f"a run on {specification}", "omit the option"
        )
    own = load(name, Path(root), **options, **({"distractors": True} if distractors else {}))
    own.check_scorable()
    return own


def evaluate_run(
    run: Run,
    benchmark: Benchmark,
    *,
    execution: Execution | None = None,
    on_unwritable: Callable[[InputError], object] | None = None,
) -> dict:
    """Compute the scores of each branch of a trained run and store them in its folder.

    ``scores.json`` holds for each branch the scores by both definitions of average precision, with
    ``multi_query`` if the benchmark has boxes (see ``multi_query_scores``), and with ``protocols`` (by title)
    if it has further protocols. It also holds the queries' identities, because confidence intervals take
    whole persons. ``rankings.npz`` holds ranked lists by the full feature.

    Args:
        run: The run, with its weights.
        benchmark: The benchmark that it was trained on.
        execution: Device of the evaluation, and whether progress is shown.
        on_unwritable: Called with the error if the run's folder does not hold these scores and they cannot be
            written to it; by default the error is raised.

    Returns:
        The content of ``scores.json``; shares are between 0 and 1.

    Raises:
        InputError: If the run was trained on other data or has no weights, the benchmark has no test images,
            images cannot be decoded, or the scores cannot be written.
    """
    benchmark.check_scorable()
    network = TrainedNetwork.for_benchmark(benchmark, run, execution)
    scores, query, gallery = _compute_scores(network, benchmark)
    query_indices = _select_queries(scores["branches"]["full"]["step"]["average_precision"])
    lists = ranked_list(query_indices.tolist(), query, gallery, top=LISTED_IMAGES)
    with _stored_unless_present(run.folder / "scores.json", scores, on_unwritable):
        write_atomically(
            run.folder / "rankings.npz", lambda partial: _save_lists(partial, query_indices, lists)
        )
        write_json(run.folder / "scores.json", scores)
    return scores


def evaluate_across(
    run: Run,
    benchmark: Benchmark,
    *,
    execution: Execution | None = None,
    on_unwritable: Callable[[InputError], object] | None = None,
) -> dict:
    """Return the scores of each branch of a run on another benchmark than its own, stored beside its own.

    They are computed once for each benchmark, its data and the run's weights. The run's own scores stay.

    Args:
        run: The run; the runs that it started from are in the folder beside it.
        benchmark: A benchmark of persons that these runs were not trained on.
        execution: Device of the evaluation, and whether progress is shown.
        on_unwritable: As in ``evaluate_run``.

    Returns:
        The content of ``across/NAME-DATA.json`` in the run's folder: that of ``scores.json`` (see
        ``evaluate_run``), with "network", which identifies the weights, the number of "training_persons" of
        the benchmark, and "not_compared", a line for each training whose persons were not compared with those
        of the test.

    Raises:
        InputError: If training persons are tested, or it cannot be known; if the benchmark has no test
            images, the run no weights, images cannot be decoded, or the scores cannot be written.
    """
    benchmark.check_scorable()
    not_compared = check_persons(run, benchmark)
    name = f"{files.safe_name(benchmark.specification)}-{benchmark.fingerprint}.json"
    file, network = run.folder / "across" / name, TrainedNetwork(run, execution or Execution())
    scores = stored = find_json(file) or {}
    if not (_are_complete(stored) and _are_scores_of(stored, benchmark) and _is_network_of(run, stored)):
        scores, _, _ = _compute_scores(network, benchmark)
        persons = len(np.unique(benchmark.train.person_ids))
        scores |= {"network": network.key, "training_persons": persons}
    scores = scores | {"not_compared": not_compared}
    if scores != stored:
        with _stored_unless_present(file, scores, on_unwritable):
            write_json(file, scores)
    return scores


def find_across(run: Run, name: str) -> list[dict]:
    """Return what ``evaluate_across`` has stored of a run and a benchmark, in the order of its partitions."""
    requested, scores = parse(name), []
    for path in (run.folder / "across").glob("*.json"):
        content = find_json(path) or {}
        with contextlib.suppress(InputError):
            benchmark, options = parse(str(content.get("benchmark")))
            trial = options.pop("trial", 0)
            if (benchmark, options) == requested and _are_complete(content) and _is_network_of(run, content):
                scores.append((trial, path.name, content))
    return [content for *_, content in sorted(scores, key=lambda entry: entry[:2])]


def _is_network_of(run: Run, scores: dict) -> bool:
    """Return whether scores are those of the run's weights; without weights nothing contradicts them."""
    return not run.has_weights or scores.get("network") == TrainedNetwork(run).key


def _compute_scores(network: TrainedNetwork, benchmark: Benchmark) -> tuple[dict, Embeddings, Embeddings]:
    """Return the scores of each branch of a network, and the features of query and gallery."""
    device = network.execution.torch_device
    query, gallery = map(network.embed, (benchmark.query, benchmark.gallery))
    boxes = _embed_boxes(network, benchmark, query, gallery)
    branches = {}
    for name, columns in network.model.branches.items():
        branch_query, branch_gallery = (select_branch(side, columns, device) for side in (query, gallery))
        branches[name] = score_record(branch_query, branch_gallery, CMC_RANKS)
        if boxes is not None:
            branch_boxes = select_branch(boxes, columns, device)
            branches[name]["multi_query"] = multi_query_scores(branch_query, branch_gallery, branch_boxes)
        if benchmark.protocols:
            branches[name]["protocols"] = {
                title: evaluate_protocol(branch_query, branch_gallery, protocol, ranks=TABLE_RANKS).to_dict()
                for title, protocol in benchmark.protocols.items()
            }
    scores = {
        "format": FORMAT,
        "benchmark": benchmark.specification,
        "data": benchmark.fingerprint,
        "protocols": _protocols_to_json(benchmark),
        "num_boxes": None if benchmark.boxes is None else len(benchmark.boxes),
        "query_person_ids": benchmark.query.person_ids.tolist(),
        "branches": branches,
    }
    return scores, query, gallery


@contextlib.contextmanager
def _stored_unless_present(
    file: Path, scores: dict, on_unwritable: Callable[[InputError], object] | None
) -> Iterator[None]:
    """Write scores inside the block; in somebody else's folder, that they are there already is enough."""
    try:
        yield
    except InputError as error:
        if find_json(file) == json.loads(json.dumps(scores)):
            return
        if on_unwritable is None:
            raise
        on_unwritable(error)


def multi_query_scores(query: Embeddings, gallery: Embeddings, boxes: Embeddings) -> dict:
    """Return scores of queries pooled over ``boxes`` of their person and camera, by "mean" and by "max"."""
    # Pooled features have unit length, so the gallery's get unit length too, as in Market-1501's baseline,
    # which normalises every feature. Distances between features of different lengths (a concatenation of two
    # unit vectors, an unnormalised embedding) would not follow the protocol.
    gallery = replace(gallery, features=unit_rows(gallery.features))
    scores_by_pooling = {}
    for how in ("mean", "max"):
        pooled_query = pool_multi_query(query, boxes, how=how)
        scores_by_pooling[how] = score_record(pooled_query, gallery, TABLE_RANKS)
        for scores in scores_by_pooling[how].values():
            for name in ("num_queries", "average_precision", "first_match_rank"):  # not shown in tables
                del scores[name]
    return scores_by_pooling


def evaluate_with_distractors(
    run: Run,
    benchmark: Benchmark,
    *,
    execution: Execution | None = None,
    on_unwritable: Callable[[InputError], object] | None = None,
) -> dict:
    """Return the full feature's scores with distractors in the gallery, stored as ``distractors.json``."""
    # Images take memory for a few hundred at a time. The features are written to ``files.feature_cache()``
    # (4·D bytes per image, 2 GB for half a million of JLML's), continued there after an interruption, and
    # ranked block by block. The file may be removed afterwards.
    if benchmark.distractors is None:
        raise InputError(
            "scores with distractors need the benchmark's distractors",
            f"{benchmark.specification} without",
            "read it with distractors=True",
        )
    network = TrainedNetwork.for_benchmark(benchmark, run, execution)
    query = network.embed(benchmark.query)
    images = concatenate((benchmark.gallery, benchmark.distractors))
    file = files.feature_cache() / f"{files.short_name(run.folder.name, 200)}-distractors.npy"
    gallery = network.embed(images, keep="features", file=file)
    scores = {"num_gallery": len(benchmark.gallery), "num_distractors": len(benchmark.distractors)}
    scores |= score_record(query, gallery, TABLE_RANKS, device=network.execution.torch_device)
    with _stored_unless_present(run.folder / "distractors.json", scores, on_unwritable):
        write_json(run.folder / "distractors.json", scores)
    return scores


@dataclass(frozen=True)
class ProtocolRank1:
    """Rank-1 by one protocol.

    Attributes:
        name: Name of the protocol.
        rank1: Share of queries whose first match is at rank 1.
        gallery_sizes: Fewest and most gallery entries of a query.
    """

    name: str
    rank1: float
    gallery_sizes: tuple[int, int]


def compare_protocols(
    run: Run, benchmark: Benchmark, *, execution: Execution | None = None
) -> list[ProtocolRank1]:
    """Compute a run's rank-1 by the full feature under each protocol of the papers' tables.

    This shows the effect of the protocol alone: every protocol draws from the same features, those of all
    query and gallery images without junk and distractors.

    Args:
        run: The run, with its weights.
        benchmark: The benchmark that it was trained on.
        execution: Device of the evaluation, and whether progress is shown.

    Returns:
        The score under each protocol.

    Raises:
        InputError: If the run was trained on other data or has no weights, or images cannot be decoded.
    """
    network = TrainedNetwork.for_benchmark(benchmark, run, execution)
    query, gallery = map(network.embed, (benchmark.query, benchmark.gallery))
    gallery = _select(gallery, gallery.person_ids > 0)
    size = (len(gallery), len(gallery))
    images = Embeddings(
        np.concatenate([np.asarray(split.features) for split in (query, gallery)]),
        np.concatenate([query.person_ids, gallery.person_ids]),
        np.concatenate([query.camera_ids, gallery.camera_ids]),
    )
    persons = np.unique(images.person_ids)
    images_of_half = _select(images, np.isin(images.person_ids, persons[: len(persons) // 2]))
    pooled_query = pool_multi_query(query, _select(images, np.isin(images.person_ids, query.person_ids)))
    results = [
        ProtocolRank1("Market-1501: every image", evaluate(query, gallery).cmc[1], size),
        ProtocolRank1("the same, multi-query", evaluate(pooled_query, gallery).cmc[1], size),
    ]
    for name, candidates, protocol in (
        ("single-shot, other cameras", images, Protocol("single", draws=10)),
        ("single-shot, all cameras", images, Protocol("single", draws=10, across_cameras=False)),
        ("single-shot, half the persons", images_of_half, Protocol("single", draws=10)),
        ("multi-shot, other cameras", images, Protocol("multi")),
    ):
        scores = evaluate_protocol(candidates, candidates, protocol)
        results.append(ProtocolRank1(name, scores.cmc[1], scores.gallery_size))
    return results


def _select(images: Embeddings, mask: np.ndarray) -> Embeddings:
    return Embeddings(np.asarray(images.features)[mask], images.person_ids[mask], images.camera_ids[mask])


def score_record(
    query: Embeddings, gallery: Embeddings, ranks: Sequence[int], *, device: torch.device | None = None
) -> dict[str, dict]:
    """Return the scores by both definitions of average precision, "step" and "trapezoid", as JSON types."""
    scores_by_definition = evaluate_each(query, gallery, ranks=ranks, device=device)
    return {definition: scores.to_dict() for definition, scores in scores_by_definition.items()}


def is_own(run: Run, benchmark: Benchmark) -> bool:
    """Return whether a benchmark is the one that the run was trained on."""
    name = run.configuration["benchmark"].partition(",")[0]
    return (benchmark.name, benchmark.fingerprint) == (name, run.configuration["data"])


def is_scored(run: Run, benchmark: Benchmark) -> bool:
    """Return whether the run's scores are up to date, or the best available for a run without weights."""
    return is_current(run, benchmark) or (has_usable_scores(run) and not run.has_weights)


def is_current(run: Run, benchmark: Benchmark) -> bool:
    """Return whether the stored scores are those that ``evaluate_run`` would compute for this benchmark."""
    scores = find_json(run.folder / "scores.json") or {}
    return _are_scores_of(scores, benchmark) and has_usable_scores(run)


def _are_scores_of(scores: dict, benchmark: Benchmark) -> bool:
    """Return whether stored scores are of these data and protocols, in today's format."""
    return (
        scores.get("format") == FORMAT
        and scores.get("data") == benchmark.fingerprint
        # Multi-query scores may be stored from a machine that has boxes, although this one has none.
        and scores.get("protocols", {}) == _protocols_to_json(benchmark)
        and (benchmark.boxes is None or scores.get("num_boxes") == len(benchmark.boxes))
    )


def _protocols_to_json(benchmark: Benchmark) -> dict:
    """Return the protocols as JSON types; their entry in ``scores.json`` shows if one has changed."""
    protocols = {title: asdict(protocol) for title, protocol in benchmark.protocols.items()}
    return json.loads(json.dumps(protocols))


def has_usable_scores(run: Run) -> bool:
    """Return whether the run has single-query scores, even in an old format or without multi-query scores."""
    scores = find_json(run.folder / "scores.json") or {}
    return scores.get("data") == run.configuration["data"] and _are_complete(scores)


def _are_complete(scores: dict) -> bool:
    """Return whether scores have those of single queries for each branch, the full feature among them."""
    branches = scores.get("branches", {})
    try:
        return "full" in branches and all(
            branch.get(kind, {}).keys() >= _SINGLE_QUERY_FIELDS
            for branch in branches.values()
            for kind in AVERAGE_PRECISIONS
        )
    except (AttributeError, TypeError):  # another structure: a damaged file
        return False


_SINGLE_QUERY_FIELDS = {"cmc", "mean_average_precision", "mean_inp", "average_precision", "first_match_rank"}


def load_ranked_lists(run: Run) -> dict[str, np.ndarray]:
    """Return the stored ranked lists and ``query_indices``, in ascending order of average precision."""
    with np.load(run.folder / "rankings.npz") as file:
        return dict(file)


def select_branch(embeddings: Embeddings, columns: slice, device: torch.device) -> Embeddings:
    """Return embeddings with one branch's columns of the features, on the device."""
    return replace(embeddings, features=select_rows(embeddings.features[:, columns], slice(None)).to(device))


def _embed_boxes(
    network: TrainedNetwork, benchmark: Benchmark, query: Embeddings, gallery: Embeddings
) -> Embeddings | None:
    """Return the boxes' features; those of query and gallery images are copied, not computed again."""
    boxes = benchmark.boxes
    if boxes is None:
        return None
    row_of = {path: row for row, path in enumerate((*benchmark.query.paths, *benchmark.gallery.paths))}
    rows_n = np.array([row_of.get(path, -1) for path in boxes.paths])
    new, in_gallery = rows_n < 0, rows_n >= len(query)
    in_query = ~new & ~in_gallery
    features_nd = np.empty((len(boxes), query.features.shape[1]), np.float32)
    features_nd[in_query] = np.asarray(query.features)[rows_n[in_query]]
    features_nd[in_gallery] = np.asarray(gallery.features)[rows_n[in_gallery] - len(query)]
    if new.any():
        embeddings = network.embed(boxes.select(new), keep="nothing")
        features_nd[new] = np.asarray(embeddings.features)
    return Embeddings(features_nd, boxes.person_ids, boxes.camera_ids)


def _select_queries(average_precision: list[float | None]) -> np.ndarray:
    """Return the worst, middle and best queries with a match, in ascending order of average precision."""
    precision_q = np.array(average_precision, dtype=float)  # None becomes NaN
    order = np.argsort(precision_q, kind="stable")[: np.count_nonzero(~np.isnan(precision_q))]
    if len(order) <= 3 * LISTED_QUERIES:
        return order
    middle = (len(order) - LISTED_QUERIES) // 2
    return order[np.r_[:LISTED_QUERIES, middle : middle + LISTED_QUERIES, -LISTED_QUERIES:0]]


def _save_lists(path: Path, query_indices: np.ndarray, lists: RankedLists) -> None:
    with path.open("wb") as file:  # np.savez_compressed would append .npz to a name
        np.savez_compressed(file, query_indices=query_indices, **lists._asdict())
