"""A trained run's network on test images: features, scores by branch, ranked lists kept with the run."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore, Unreadable, UnreadableError, decode_blocks
from reidlib.data.registry import load, load_specified, parse
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments.embedding import embed, embed_split
from reidlib.files import write_json, write_whole
from reidlib.ranking.metrics import Embeddings, RankedLists, evaluate_each, pool_multi_query, ranked_list
from reidlib.ranking.protocols import evaluate_protocol
from reidlib.training.config import RunConfiguration
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


def open_images(split: Split, size: tuple[int, int], execution: Execution) -> ImageStore:
    """A split's images at the network's input size, decoded once and found again later."""
    return ImageStore.open(split.paths, size, device=execution.torch_device, progress=execution.progress)


def trained_model(run: Run, device: torch.device | str = "cpu") -> torch.nn.Module:
    """A run's network with its trained weights, on a device in evaluation mode.

    Its memory is laid out in one way wherever it is used, because the layout decides how sums are rounded.
    """
    wanted = RunConfiguration.from_json(run.configuration)
    # The run's own weights replace any pretrained ones, which may not be at hand here.
    architecture = replace(wanted.model, weights=None)
    weights = run.weights()
    try:
        # The classifiers, which tell how many training identities there were, end in one bias each.
        num_classes = next(
            bias.shape[-1]
            for name, bias in weights.items()
            if re.fullmatch(r"classifiers\.(\d+\.)?bias", name)
        )
        model = architecture.build(num_classes, wanted.seed)
        model.load_state_dict(weights)
    except (RuntimeError, StopIteration) as error:
        raise InputError(
            "a run's weights belong to its configuration",
            f"{run.folder / 'weights.pt'}: {str(error).partition(chr(10))[0] or 'no classifiers'}",
            "copy the right file there, or remove the run's folder to train again",
        ) from error
    return model.eval().to(device, memory_format=torch.channels_last)


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
    execution = execution or Execution()
    wanted = RunConfiguration.from_json(run.configuration)
    check_data_of(wanted, benchmark)
    device = execution.torch_device
    model = trained_model(run, device)
    query, gallery = (
        embed_split(model, split, open_images(split, wanted.input_size, execution))
        for split in (benchmark.query, benchmark.gallery)
    )
    boxes = _embed_boxes(model, benchmark, query, gallery, wanted.input_size, execution)
    branches = {}
    for name, columns in model.branches.items():
        branch_query, branch_gallery = (branch_of(side, columns, device) for side in (query, gallery))
        branches[name] = {
            kind: scores.to_dict()
            for kind, scores in evaluate_each(branch_query, branch_gallery, ranks=CMC_RANKS).items()
        }
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
        found[how] = {}
        for kind, scores in evaluate_each(pooled, gallery, ranks=TABLE_RANKS).items():
            scores = scores.to_dict()
            for name in ("num_queries", "average_precision", "first_match_rank"):
                del scores[name]
            found[how][kind] = scores
    return found


def current(run: Run, benchmark: Benchmark) -> bool:
    """Has the run all the scores that ``evaluate_run`` would find today, for this very benchmark?"""
    scores = _readable_scores(run)
    return (
        scores is not None
        and scores.get("format") == FORMAT
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
    scores = _readable_scores(run) or {}
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


def _readable_scores(run: Run) -> dict | None:
    """A run's scores; a damaged file is as good as none, since evaluating again mends it."""
    try:
        return run.scores
    except InputError:
        return None


_SINGLE_QUERY_FIELDS = {"cmc", "mean_average_precision", "mean_inp", "average_precision", "first_match_rank"}


def ranked_lists_of(run: Run) -> dict[str, np.ndarray]:
    """The kept ranked lists, worst average precision first: query_indices (L,) and, of each query's list,
    gallery_indices, distances and statuses (L, places); see ``ranking.RankedLists``.
    """
    with np.load(run.folder / "rankings.npz") as file:
        return dict(file)


def embed_streamed(
    model: torch.nn.Module, split: Split, size: tuple[int, int], execution: Execution
) -> Embeddings:
    """The features of a split whose decoded images are not kept: for those that are needed once.

    They pass through memory a few hundred at a time, and nothing is written. The model lies on
    ``execution``'s device. Raises InputError for files that cannot be decoded.
    """
    features, unreadable = [], []
    for block in decode_blocks(split.paths, size, title="embedding", progress=execution.progress):
        unreadable += [image for image in block if isinstance(image, Unreadable)]
        if not unreadable:  # else the rest is looked through for others
            features.append(embed(model, ImageStore(np.stack(block), execution.torch_device)))
    if unreadable:
        raise UnreadableError(unreadable)
    return Embeddings(torch.cat(features), split.person_ids, split.camera_ids)


def branch_of(embeddings: Embeddings, columns: slice, device: torch.device) -> Embeddings:
    """One branch's columns of features, on the device."""
    return replace(embeddings, features=embeddings.features[:, columns].to(device))


def _embed_boxes(
    model: torch.nn.Module,
    benchmark: Benchmark,
    query: Embeddings,
    gallery: Embeddings,
    size: tuple[int, int],
    execution: Execution,
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
        features_nd[new] = embed_streamed(model, boxes.select(new), size, execution).features
    return Embeddings(features_nd, boxes.person_ids, boxes.camera_ids)


def _listed_queries(average_precision: list[float | None]) -> np.ndarray:
    """Worst, middle and best queries of those that have a match, in ascending order of precision."""
    precision_q = np.array([np.nan if value is None else value for value in average_precision])
    order = np.argsort(precision_q, kind="stable")[: np.count_nonzero(~np.isnan(precision_q))]
    if len(order) <= 3 * LISTED_QUERIES:
        return order
    middle = (len(order) - LISTED_QUERIES) // 2
    return np.concatenate(
        [order[:LISTED_QUERIES], order[middle : middle + LISTED_QUERIES], order[-LISTED_QUERIES:]]
    )


def _save_lists(path: Path, query_indices: np.ndarray, lists: RankedLists) -> None:
    with path.open("wb") as file:  # a name would be given the ending .npz
        np.savez_compressed(file, query_indices=query_indices, **lists._asdict())


def check_data_of(wanted: RunConfiguration, benchmark: Benchmark) -> None:
    """Raises InputError where a configuration was made for other data than the benchmark's."""
    if wanted.data != benchmark.fingerprint:
        raise InputError(
            "a run belongs to the data that its configuration names",
            f"data {wanted.data} of {wanted.benchmark!r}, and here {benchmark.fingerprint}",
            "give the folder that it was trained on, or train again",
        )
