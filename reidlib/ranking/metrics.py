"""Scores of a ranking (CMC, mAP, mINP), multi-query pooling and ranked lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from reidlib.data.rules import DISTRACTOR, JUNK, is_ignored, is_match
from reidlib.data.splits import Split
from reidlib.errors import InputError, check_choice
from reidlib.ranking.distances import (
    common_dtype,
    count_within,
    float64_device,
    full_float32,
    rows_per_block,
    select_rows,
    spans,
    squared_distances,
    squared_pair_distances,
)

_BLOCK = 2**22  # distances that ``evaluate_distances`` copies at once
_LARGEST = 1e15  # its square, summed over any realistic feature length, is finite in float32
_Ids = Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True, eq=False, init=False)
class Embeddings:
    """Features of N images with their person and camera ids.

    Args:
        features: Floats (N, D): a tensor on any device, or a numpy array. A ``numpy.memmap`` is streamed.
        person_ids, camera_ids: Whole numbers (N,); the attributes are int64 arrays. Person −1 is junk, 0 is a
            distractor.
        name, mend: How the error about a row's feature names the row, and what the user should do.

    Raises:
        InputError: If a shape or type is wrong, a person id is below −1, or a feature is not finite or
            exceeds 1e15 (its distances would overflow).
    """

    features: Tensor | np.ndarray
    person_ids: np.ndarray
    camera_ids: np.ndarray

    def __init__(
        self, features: Tensor | np.ndarray, person_ids: _Ids, camera_ids: _Ids, *,
        name: Callable[[int], object] = "row {}".format, mend: str = "embed that image again",
    ):  # fmt: skip
        if isinstance(features, Tensor):
            features, floating = features.detach(), features.is_floating_point()
        else:
            floating = getattr(features, "dtype", None) in (np.float16, np.float32, np.float64)
        if not floating or features.ndim != 2 or 0 in features.shape:
            value = f"{tuple(np.shape(features))} {getattr(features, 'dtype', type(features).__name__)}"
            raise InputError("features are a non-empty (N, D) array of floats", value, "convert them")
        object.__setattr__(self, "features", features)
        for title, ids in (("person_ids", person_ids), ("camera_ids", camera_ids)):
            ids = ids.cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
            if ids.shape != (len(features),) or ids.dtype.kind not in "iu":
                rule = f"{title} hold one whole number for each of the {len(features)} rows of features"
                raise InputError(rule, f"{ids.shape} {ids.dtype}", "pass features and ids of the same images")
            object.__setattr__(self, title, ids.astype(np.int64))
        if self.person_ids.min() < JUNK:
            rule = "person ids are −1 (junk), 0 (distractor) or positive"
            raise InputError(rule, self.person_ids.min(), "renumber the persons")
        check_finite(features, name, mend)

    def __len__(self) -> int:
        return len(self.person_ids)


def check_finite(features: Tensor | np.ndarray, name: Callable[[int], object], mend: str) -> None:
    """Raise InputError, with ``name(row)``, at a feature (N, D) that is not finite or too large."""
    for span in spans(len(features), 4096):
        largest_n = select_rows(features, span).abs().amax(1)
        invalid_n = ~(largest_n <= _LARGEST)  # NaN too
        if invalid_n.any():
            row = int(invalid_n.nonzero()[0, 0])
            value = f"{largest_n[row]:g} in {name(span.start + row)}"
            raise InputError(f"features are finite and at most {_LARGEST:g}", value, mend)


class Scores(NamedTuple):
    """Scores of a ranking. Shares are between 0 and 1; means are over the queries with a match.

    Attributes:
        cmc: For each rank, the share of queries whose first match is at that rank or before.
        mean_average_precision: Mean of ``average_precision`` (mAP).
        mean_inp: Mean inverse negative penalty (mINP): number of matches / rank of the last match.
        num_queries: Number of queries (Q).
        num_valid_queries: Number of queries with a match.
        average_precision: Average precision of each query (Q,), float64; NaN if it has no match.
        first_match_rank: Rank of each query's first match (Q,), int64, from 1; 0 if it has no match.
    """

    cmc: dict[int, float]
    mean_average_precision: float
    mean_inp: float
    num_queries: int
    num_valid_queries: int
    average_precision: np.ndarray
    first_match_rank: np.ndarray

    def to_dict(self) -> dict:
        """Return the scores as JSON values: None for NaN, text for the ranks of ``cmc``."""
        return self._asdict() | {
            "cmc": {str(rank): share for rank, share in self.cmc.items()},
            "average_precision": [None if math.isnan(v) else v for v in self.average_precision.tolist()],
            "first_match_rank": self.first_match_rank.tolist(),
        }


class Status(IntEnum):
    """Relation of an image in a ranked list to its query.

    Attributes:
        MATCH, OTHER, DISTRACTOR: The query's person, another person, an image of no person (id 0).
        IGNORED: Junk (person −1), or the query's person from the query's camera.
        NONE: No image, because the list is shorter.
    """

    MATCH = 0
    OTHER = 1
    DISTRACTOR = 2
    IGNORED = 3
    NONE = 4


def statuses(person: int, camera: int, persons_g: np.ndarray, cameras_g: np.ndarray) -> np.ndarray:
    """Return the status of each gallery image for a query of a person and a camera: int8 (G,)."""
    ids = person, camera, persons_g, cameras_g
    conditions = [is_ignored(*ids), is_match(*ids), persons_g == DISTRACTOR]
    values = [Status.IGNORED, Status.MATCH, Status.DISTRACTOR]
    return np.select(conditions, values, Status.OTHER).astype(np.int8)


class RankedLists(NamedTuple):
    """The nearest gallery images of each query, nearest first; all fields have shape (queries, top).

    Attributes:
        gallery_indices: Indices of the images, int64; −1 after the end of a list.
        distances: Euclidean distances to the query, float64; NaN after the end of a list.
        statuses: Values of ``Status``, int8.
    """

    gallery_indices: np.ndarray
    distances: np.ndarray
    statuses: np.ndarray


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    *,
    average_precision: Literal["step", "trapezoid"] = "step",
    ranks: Sequence[int] = (1, 5, 10, 20),
    device: torch.device | str | None = None,
    block_sizes: tuple[int, int] | None = None,
) -> Scores:
    """Compute CMC, mAP and mINP of a ranking by Euclidean distance; protocol of Market-1501's official code.

    Junk (person −1) and images of the query's person from the query's camera are ignored: they influence
    no rank. Distractors (person 0) are wrong for every query. At equal distances, wrong images rank before
    matches. Queries without a match do not count in the means; Market-1501 has none.

    The scores are equal on every device. Memory beyond the inputs: a few blocks, the query features, and
    O(N) ids and pairs of one person. If all features are nearly equal (a collapsed model), Market-1501
    takes minutes instead of seconds.

    Args:
        query, gallery: Features (Q, D) and (G, D), persons and cameras of queries and gallery images.
        average_precision: "step" is the mean precision at the matches. "trapezoid" averages the precisions
            before and at each match (1 before rank 1), as Market-1501's MATLAB code does.
        ranks: Ranks of the CMC, from 1. They may exceed the gallery.
        device: Where distances are computed. None means the device of the gallery's or the query's tensor;
            the CPU for numpy arrays and instead of MPS, which has no float64.
        block_sizes: Queries and gallery images compared at once. This affects speed and memory, but no score.

    Returns:
        The scores.

    Raises:
        InputError: If feature lengths differ, a query is junk or a distractor, no query has a match, or an
            argument is not allowed.
    """
    return evaluate_each(
        query, gallery, (average_precision,), ranks=ranks, device=device, block_sizes=block_sizes
    )[average_precision]


def evaluate_each(
    query: Embeddings,
    gallery: Embeddings,
    average_precisions: Sequence[Literal["step", "trapezoid"]] = ("step", "trapezoid"),
    *,
    ranks: Sequence[int] = (1, 5, 10, 20),
    device: torch.device | str | None = None,
    block_sizes: tuple[int, int] | None = None,
) -> dict[str, Scores]:
    """Compute ``evaluate`` for several definitions of average precision, which share the distances."""
    check_scoring(ranks, average_precisions, block_sizes)
    check_pair(query, gallery)
    device = working_device(device, query, gallery)
    pair_queries, pair_gallery, is_match_p, is_match_qm = _same_person_pairs(query, gallery)
    with torch.inference_mode(), full_float32(device):
        matches = pair_queries[is_match_p], pair_gallery[is_match_p]
        squared_p = squared_pair_distances(query.features, gallery.features, *matches, device)
        wrong_qm = count_within(
            query.features,
            gallery.features,
            _by_query(squared_p, is_match_qm),
            excluded=gallery.person_ids == JUNK,
            excluded_pairs=(pair_queries, pair_gallery),
            device=device,
            block_sizes=block_sizes,
        )
    return {kind: _scores(wrong_qm.cpu().numpy(), is_match_qm, kind, ranks) for kind in average_precisions}


def evaluate_distances(
    distances_qg: Tensor | np.ndarray,
    query: Embeddings | Split,
    gallery: Embeddings | Split,
    *,
    average_precision: Literal["step", "trapezoid"] = "step",
    ranks: Sequence[int] = (1, 5, 10, 20),
) -> Scores:
    """Compute the scores of ``evaluate`` for other distances, for example re-ranked or learned ones.

    At equal distances, wrong images rank before matches.

    Args:
        distances_qg: Finite floats (Q, G) of any sign: a tensor on any device, an array or a memory map.
        query, gallery: Persons and cameras of queries and gallery images; features are not used.
        average_precision, ranks: See ``evaluate``.

    Returns:
        The scores.

    Raises:
        InputError: As for ``evaluate``, or if the distances have another shape or type or are not finite.
    """
    check_scoring(ranks, (average_precision,))
    query, gallery = _identities(query), _identities(gallery)
    check_pair(query, gallery)
    shape, dtype = (len(query), len(gallery)), getattr(distances_qg, "dtype", type(distances_qg).__name__)
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    if not (floating or dtype in (np.float16, np.float32, np.float64)) or distances_qg.shape != shape:
        value = f"{tuple(np.shape(distances_qg))} {dtype}"
        raise InputError(f"distances are floats of shape {shape}, like the ids", value, "pass all pairs")
    pair_queries, pair_gallery, is_match_p, is_match_qm = _same_person_pairs(query, gallery)
    wrong_qm = np.empty(is_match_qm.shape, np.int64)
    junk_g = torch.from_numpy(gallery.person_ids == JUNK)
    for block in spans(len(query), max(1, _BLOCK // len(gallery))):
        block_bg = select_rows(distances_qg, block).to("cpu", copy=True).contiguous()
        invalid_bg = ~block_bg.isfinite()
        if invalid_bg.any():
            row, column = invalid_bg.nonzero()[0].tolist()
            value = f"{block_bg[row, column]:g} between query {block.start + row} and image {column}"
            raise InputError("distances are finite", value, "check the features of that pair")
        pairs = slice(*np.searchsorted(pair_queries, (block.start, block.stop)))
        row_p, image_p, match_p = pair_queries[pairs] - block.start, pair_gallery[pairs], is_match_p[pairs]
        matches_bm = _by_query(block_bg[row_p[match_p], image_p[match_p]], is_match_qm[block])
        # Keep the distances of wrong images and set the others to infinity.
        block_bg[row_p, image_p] = torch.inf
        block_bg[:, junk_g] = torch.inf
        wrong_qm[block] = torch.searchsorted(block_bg.sort(dim=1).values, matches_bm, right=True).numpy()
    return _scores(wrong_qm, is_match_qm, average_precision, ranks)


def _identities(side: Embeddings | Split) -> Embeddings:
    """Return the ids as embeddings, which checks them."""
    return Embeddings(np.zeros((len(side.person_ids), 1), np.float32), side.person_ids, side.camera_ids)


def _scores(
    wrong_qm: np.ndarray, is_match_qm: np.ndarray, average_precision: str, ranks: Sequence[int]
) -> Scores:
    """Compute the scores from the numbers (Q, M) of wrong images that rank before each match."""
    if not is_match_qm.any():
        raise no_match_error(len(wrong_qm))
    num_queries, most_matches = wrong_qm.shape
    num_matches_q = is_match_qm.sum(1)
    valid = num_matches_q > 0
    match_m = np.arange(1, most_matches + 1)
    rank_qm = wrong_qm + match_m
    precision_qm = match_m / rank_qm
    if average_precision == "trapezoid":
        before_qm = np.where(rank_qm == 1, 1.0, (match_m - 1) / np.maximum(rank_qm - 1, 1))
        precision_qm = (precision_qm + before_qm) / 2
    average = np.full(num_queries, np.nan)
    average[valid] = np.where(is_match_qm, precision_qm, 0).sum(1)[valid] / num_matches_q[valid]
    first = np.where(valid, rank_qm[:, 0], 0)
    last = rank_qm[np.arange(num_queries), num_matches_q - 1]
    return Scores(
        cmc={int(rank): float((first[valid] <= rank).mean()) for rank in ranks},
        mean_average_precision=float(average[valid].mean()),
        mean_inp=float((num_matches_q[valid] / last[valid]).mean()),
        num_queries=num_queries,
        num_valid_queries=int(valid.sum()),
        average_precision=average,
        first_match_rank=first,
    )


def pool_multi_query(
    query: Embeddings, boxes: Embeddings, *, how: Literal["mean", "max"] = "mean"
) -> Embeddings:
    """Pool each query's feature over all boxes of its person in its camera (multi-query protocol).

    Boxes are L2-normalised, pooled element by element, and L2-normalised again, as was read in code for
    Market-1501.

    Args:
        query: Persons and cameras of Q queries. Features are not used: a query's own image counts only if
            it is among ``boxes``.
        boxes: Features (N, D), persons and cameras of all boxes, in Market-1501 those of ``gt_bbox``.
        how: "mean" or "max". Which of them JLML took is not known.

    Returns:
        The queries with pooled features (Q, D), float32 or wider, on the boxes' device (CPU for numpy).

    Raises:
        InputError: If a query has no box, or for another ``how``.
    """
    check_choice('multi-query features are pooled by "mean" or "max"', how, ("mean", "max"))
    groups: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(boxes.person_ids.tolist(), boxes.camera_ids.tolist(), strict=True)):
        groups.setdefault(key, []).append(index)
    pooled = []
    for person, camera in zip(query.person_ids.tolist(), query.camera_ids.tolist(), strict=True):
        if (person, camera) not in groups:
            rule = "every query has a box of its person from its camera"
            raise InputError(rule, f"none for person {person}, camera {camera}", "add the query's own image")
        boxes_nd = unit_rows(boxes.features, np.array(groups[person, camera]))
        pooled.append(boxes_nd.mean(0) if how == "mean" else boxes_nd.amax(0))
    return Embeddings(normalize(torch.stack(pooled)), query.person_ids, query.camera_ids)


def unit_rows(features: Tensor | np.ndarray, indices: slice | np.ndarray = slice(None)) -> Tensor:
    """Return rows of features scaled to unit length, float32 or wider, on a tensor's device or the CPU."""
    rows_nd = select_rows(features, indices)
    return normalize(rows_nd.to(torch.promote_types(rows_nd.dtype, torch.float32)))


def ranked_list(
    query_indices: int | Sequence[int],
    query: Embeddings,
    gallery: Embeddings,
    *,
    top: int,
    show_ignored: bool = False,
    device: torch.device | str | None = None,
) -> RankedLists:
    """List the nearest gallery images of some queries, in the order that ``evaluate`` scores.

    At equal distances, wrong images come first, then lower gallery indices. Every distance is computed
    exactly, which takes about a microsecond each: this is meant for figures.

    Args:
        query_indices: Index of a query, or indices of several.
        query, gallery: Features, persons and cameras, as for ``evaluate``.
        top: Number of images in a list.
        show_ignored: Whether images that ``evaluate`` ignores are listed, with ``Status.IGNORED``.
        device: See ``evaluate``.

    Returns:
        A list for each index, in their order.

    Raises:
        InputError: As for ``evaluate``, or if an index or ``top`` is out of range.
    """
    rows = np.atleast_1d(np.asarray(query_indices, np.int64))
    if not rows.size or rows.min() < 0 or rows.max() >= len(query):
        raise InputError(f"query indices are from 0 to {len(query) - 1}", query_indices, "choose others")
    if top < 1:
        raise InputError("a ranked list has at least one image", top, "choose a larger top")
    check_pair(query, gallery)
    device = working_device(device, query, gallery)
    dtype = common_dtype(query.features, gallery.features)
    best: list[tuple] = [(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8)) for _ in rows]
    queries_qd = select_rows(query.features, rows).to(device, dtype)
    for span in spans(len(gallery), rows_per_block(queries_qd.shape[1], device)):
        gallery_gd = select_rows(gallery.features, span).to(device, dtype)
        persons, cameras = gallery.person_ids[span], gallery.camera_ids[span]
        for place, row in enumerate(rows.tolist()):
            status = statuses(int(query.person_ids[row]), int(query.camera_ids[row]), persons, cameras)
            columns = np.flatnonzero(show_ignored | (status != Status.IGNORED))
            squared = squared_distances(queries_qd[place], gallery_gd).double().cpu().numpy()
            new = (span.start + columns, squared[columns], status[columns])
            indices, squared, status = (np.concatenate(both) for both in zip(best[place], new, strict=True))
            order = np.lexsort((indices, status == Status.MATCH, squared))[:top]
            best[place] = indices[order], squared[order], status[order]
    shape = len(rows), top
    lists = RankedLists(
        np.full(shape, -1, np.int64), np.full(shape, np.nan), np.full(shape, Status.NONE, np.int8)
    )
    for place, (indices, squared, status) in enumerate(best):
        lists.gallery_indices[place, : len(indices)] = indices
        lists.distances[place, : len(indices)] = np.sqrt(squared)
        lists.statuses[place, : len(indices)] = status
    return lists


def check_scoring(
    ranks: Sequence[int], average_precisions: Sequence[str] = (), block_sizes: tuple[int, int] | None = None
) -> None:
    """Raise InputError for invalid arguments of ``evaluate``."""
    for kind in average_precisions:
        check_choice('average_precision is "step" or "trapezoid"', kind, ("step", "trapezoid"))
    if not ranks or min(ranks) < 1:
        raise InputError("ranks are counted from 1", tuple(ranks), "choose positive ranks")
    if block_sizes is not None and not (block_sizes[0] >= 1 and 1 <= block_sizes[1] <= 2048):
        raise InputError("blocks have at least 1 query and 1 to 2048 images", block_sizes, "change it")


def no_match_error(num_queries: int) -> InputError:
    """Return the error for queries without any match."""
    rule = "a query needs a gallery image of its person from another camera"
    return InputError(rule, f"none for any of {num_queries} queries", "check the person and camera ids")


def check_pair(query: Embeddings, gallery: Embeddings) -> None:
    """Raise InputError if the feature lengths differ or a query is junk or a distractor."""
    if query.features.shape[1] != gallery.features.shape[1]:
        lengths = f"{query.features.shape[1]} and {gallery.features.shape[1]}"
        raise InputError("query and gallery features are equally long", lengths, "use one model for both")
    for row in np.flatnonzero(query.person_ids <= DISTRACTOR):
        value = f"{query.person_ids[row]} in row {row}"
        raise InputError("a query shows a person, whose id is positive", value, "remove it from the queries")


def working_device(device: torch.device | str | None, query: Embeddings, gallery: Embeddings) -> torch.device:
    """Return the device for distances: ``device``, or else that of the features."""
    devices = [side.features.device for side in (gallery, query) if isinstance(side.features, Tensor)]
    return float64_device(device or (devices or ["cpu"])[0])


def _same_person_pairs(query: Embeddings, gallery: Embeddings) -> tuple[np.ndarray, ...]:
    """Return indices of queries (P,) and images (P,) of each person, is match (P,) and is match (Q, M)."""
    order = np.argsort(gallery.person_ids, kind="stable")
    persons = gallery.person_ids[order]
    begin_q = np.searchsorted(persons, query.person_ids, "left")
    length_q = np.searchsorted(persons, query.person_ids, "right") - begin_q
    before_q = length_q.cumsum() - length_q
    places_p = np.arange(length_q.sum()) + (begin_q - before_q).repeat(length_q)
    queries_p, images_p = np.arange(len(query)).repeat(length_q), order[places_p]
    is_match_p = is_match(
        query.person_ids[queries_p],
        query.camera_ids[queries_p],
        gallery.person_ids[images_p],
        gallery.camera_ids[images_p],
    )
    num_matches_q = np.bincount(queries_p[is_match_p], minlength=len(query))
    # Row q begins with as many True as the query has matches.
    is_match_qm = np.arange(max(1, num_matches_q.max())) < num_matches_q[:, None]
    return queries_p, images_p, is_match_p, is_match_qm


def _by_query(distances_p: Tensor, is_match_qm: np.ndarray) -> Tensor:
    """Arrange the matches' distances by query, (Q, M), ascending and padded with infinity."""
    distances_qm = distances_p.new_full(is_match_qm.shape, math.inf)
    distances_qm[torch.from_numpy(is_match_qm).to(distances_p.device)] = distances_p
    return distances_qm.sort(dim=1).values
