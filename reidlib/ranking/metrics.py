"""Ranks and scores of embeddings: CMC, mAP, mINP, multi-query pooling, ranked lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    block_rows,
    common_dtype,
    count_within,
    float64_device,
    full_float32,
    pair_distances,
    select_rows,
    spans,
    squared_distances,
)

_BLOCK = 2**22  # given distances copied at once
_LARGEST = 1e15  # its square, summed over any real feature length, is still finite in float32


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Features of a set of images, with who they show and which camera took them.

    ``features``: (N, D) floating point, a tensor on any device or a numpy array; a ``numpy.memmap`` is
    streamed from disk. ``person_ids``, ``camera_ids``: (N,) whole numbers, kept as int64 numpy arrays.
    Person −1 is junk, 0 a distractor. Raises InputError for other shapes and types, for person ids below
    −1, and for features that are not finite or beyond 1e15, whose distances would overflow.
    """

    features: Tensor | np.ndarray
    person_ids: np.ndarray
    camera_ids: np.ndarray

    def __post_init__(self):
        features = self.features
        if isinstance(features, Tensor):
            object.__setattr__(self, "features", features.detach())
            floating = features.is_floating_point()
        else:
            floating = getattr(features, "dtype", None) in (np.float16, np.float32, np.float64)
        if not floating or features.ndim != 2 or 0 in features.shape:
            found = f"{tuple(np.shape(features))} {getattr(features, 'dtype', type(features).__name__)}"
            raise InputError("features are a non-empty (N, D) array of floats", found, "convert them")
        for name in ("person_ids", "camera_ids"):
            ids = getattr(self, name)
            ids = ids.cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
            if ids.shape != (len(features),) or ids.dtype.kind not in "iu":
                rule = f"{name} hold one whole number for each of the {len(features)} rows of features"
                raise InputError(rule, f"{ids.shape} {ids.dtype}", "give both from the same images")
            object.__setattr__(self, name, ids.astype(np.int64))
        if self.person_ids.min() < JUNK:
            rule = "person ids are −1 (junk), 0 (distractor) or positive"
            raise InputError(rule, self.person_ids.min(), "renumber the persons")
        for span in spans(len(features), 4096):
            largest_n = select_rows(features, span).abs().amax(1)
            refused_n = ~(largest_n <= _LARGEST)  # true of NaN too
            if refused_n.any():
                row = int(refused_n.nonzero()[0, 0])
                rule = f"features are finite and at most {_LARGEST:g}"
                found = f"{largest_n[row]:g} in row {span.start + row}"
                raise InputError(rule, found, "embed that image again")

    def __len__(self) -> int:
        return len(self.person_ids)


class Scores(NamedTuple):
    """What ``evaluate`` found. Shares are between 0 and 1; means run over the queries that have a match."""

    cmc: dict[int, float]  # rank -> share of queries whose first match stands at that rank or before
    mean_average_precision: float
    mean_inp: float  # mean inverse negative penalty: matches / rank of the last match
    num_queries: int
    num_valid_queries: int  # those with a match
    average_precision: np.ndarray  # (Q,) float64, NaN where a query has no match
    first_match_rank: np.ndarray  # (Q,) int64 from 1, 0 where a query has no match

    def to_dict(self) -> dict:
        """The same as plain JSON values, with None for NaN and the ranks of ``cmc`` as text."""
        return self._asdict() | {
            "cmc": {str(rank): share for rank, share in self.cmc.items()},
            "average_precision": [None if math.isnan(v) else v for v in self.average_precision.tolist()],
            "first_match_rank": self.first_match_rank.tolist(),
        }


class Status(IntEnum):
    """What an entry of a ranked list is to its query."""

    MATCH = 0
    OTHER = 1
    DISTRACTOR = 2
    IGNORED = 3  # junk, or the query's own person from its own camera
    NONE = 4  # the list ended before this place


def statuses(person: int, camera: int, persons_g: np.ndarray, cameras_g: np.ndarray) -> np.ndarray:
    """What gallery images are to a query of a person and a camera: int8 (G,), values of Status."""
    asked = person, camera, persons_g, cameras_g
    conditions = [is_ignored(*asked), is_match(*asked), persons_g == DISTRACTOR]
    kinds = [Status.IGNORED, Status.MATCH, Status.DISTRACTOR]
    return np.select(conditions, kinds, Status.OTHER).astype(np.int8)


class RankedLists(NamedTuple):
    """The head of the gallery's order for each query, nearest first; all fields (queries, places)."""

    gallery_indices: np.ndarray  # int64, −1 where the list ended
    distances: np.ndarray  # float64, Euclidean, NaN where the list ended
    statuses: np.ndarray  # int8, values of Status


def evaluate(
    query: Embeddings,
    gallery: Embeddings,
    *,
    average_precision: Literal["step", "trapezoid"] = "step",
    ranks: Sequence[int] = (1, 5, 10, 20),
    device: torch.device | str | None = None,
    block_sizes: tuple[int, int] | None = None,
) -> Scores:
    """Score a ranking of the gallery by Euclidean distance for every query, Market-1501's way.

    Ignored, with no influence on any rank: gallery images of person −1, and of the query's person from the
    query's camera. Person 0 is a wrong answer to every query. Among equal distances a wrong image stands
    before a match. ``average_precision``: "step" is the mean precision at the matches; "trapezoid" is that
    of Market-1501's MATLAB code, which averages the precisions just before and at each match (precision
    before rank 1 is 1). A rank in ``ranks`` may exceed the gallery. Means leave out queries without a
    match and so differ from "divide by all queries" where there are some; Market-1501 has none.

    ``device`` is where distances are computed (default: where the gallery's or else the query's tensor
    lives; CPU for numpy, and instead of MPS, which lacks float64). ``block_sizes`` are the numbers of
    queries and of gallery images compared at once: they change speed and memory, never a score. Memory
    beyond the inputs: some blocks, the query features, and O(N) for ids and pairs of the same person.

    Ranks follow the distances of ``ranking.distances``, which are the same on every device. Features that
    are all nearly equal (a collapsed model) take minutes instead of seconds at Market-1501's size.

    Raises InputError where feature lengths differ, a query is junk or a distractor, no query has a match,
    or an argument is not one of those above.
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
    """``evaluate`` for several definitions of average precision, for the price of one.

    The distances are what takes time, and the definitions share them. Raises InputError like ``evaluate``.
    """
    check_scoring(ranks, average_precisions, block_sizes)
    check_pair(query, gallery)
    device = chosen_device(device, query, gallery)
    pair_queries, pair_gallery, is_match_p, is_match_qm = _same_person_pairs(query, gallery)
    with torch.inference_mode(), full_float32(device):
        matches = pair_queries[is_match_p], pair_gallery[is_match_p]
        squared_p = pair_distances(query.features, gallery.features, *matches, device)
        wrong_qm = count_within(
            query.features,
            gallery.features,
            _by_query(squared_p, is_match_qm),
            left_out=gallery.person_ids == JUNK,
            left_out_pairs=(pair_queries, pair_gallery),
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
    """Score a ranking of the gallery by given distances (Q, G), under the protocol of ``evaluate``.

    For re-ranked distances, or those of a learned metric: ``evaluate`` measures Euclidean distances itself
    and never holds them all. Of ``query`` and ``gallery`` only ``person_ids`` and ``camera_ids`` are used.
    The distances are floats of any width and sign on any device, or a memory map, taken as they are: where
    they are equal, a wrong image stands before a match. They are copied some queries at a
    time, and otherwise left alone.

    Raises InputError like ``evaluate``, and for distances of another shape or type or not finite.
    """
    check_scoring(ranks, (average_precision,))
    query, gallery = _identities(query), _identities(gallery)
    check_pair(query, gallery)
    shape, dtype = (len(query), len(gallery)), getattr(distances_qg, "dtype", type(distances_qg).__name__)
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    if not (floating or dtype in (np.float16, np.float32, np.float64)) or distances_qg.shape != shape:
        found = f"{tuple(np.shape(distances_qg))} {dtype}"
        raise InputError(f"distances are floats of shape {shape}, as there are ids", found, "give all pairs")
    pair_queries, pair_gallery, is_match_p, is_match_qm = _same_person_pairs(query, gallery)
    wrong_qm = np.empty(is_match_qm.shape, np.int64)
    junk_g = torch.from_numpy(gallery.person_ids == JUNK)
    for block in spans(len(query), max(1, _BLOCK // len(gallery))):
        block_bg = select_rows(distances_qg, block).to("cpu", copy=True).contiguous()
        refused_bg = ~block_bg.isfinite()
        if refused_bg.any():
            row, column = refused_bg.nonzero()[0].tolist()
            found = f"{block_bg[row, column]:g} between query {block.start + row} and image {column}"
            raise InputError("distances are finite", found, "look at that pair's features")
        pairs = slice(*np.searchsorted(pair_queries, (block.start, block.stop)))
        row_p, image_p, of_match_p = pair_queries[pairs] - block.start, pair_gallery[pairs], is_match_p[pairs]
        matches_bm = _by_query(block_bg[row_p[of_match_p], image_p[of_match_p]], is_match_qm[block])
        # What is left are the wrong images, with infinity in place of the others.
        block_bg[row_p, image_p] = torch.inf
        block_bg[:, junk_g] = torch.inf
        wrong_qm[block] = torch.searchsorted(block_bg.sort(dim=1).values, matches_bm, right=True).numpy()
    return _scores(wrong_qm, is_match_qm, average_precision, ranks)


def _identities(side: Embeddings | Split) -> Embeddings:
    """The ids alone, checked as those of embeddings are."""
    return Embeddings(np.zeros((len(side.person_ids), 1), np.float32), side.person_ids, side.camera_ids)


def _scores(
    wrong_qm: np.ndarray, is_match_qm: np.ndarray, average_precision: str, ranks: Sequence[int]
) -> Scores:
    """Scores from how many wrong images stand before each match, in order. Raises InputError for none."""
    if not is_match_qm.any():
        raise no_match(len(wrong_qm))
    num_queries, num_places = wrong_qm.shape
    num_matches_q = is_match_qm.sum(1)
    valid = num_matches_q > 0
    place_m = np.arange(1, num_places + 1)
    rank_qm = wrong_qm + place_m
    precision_qm = place_m / rank_qm
    if average_precision == "trapezoid":
        before_qm = np.where(rank_qm == 1, 1.0, (place_m - 1) / np.maximum(rank_qm - 1, 1))
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
    """Replace each query's feature by one pooled over all boxes of its person in its camera.

    Each box is L2-normalised, the boxes are pooled element by element, and the result is L2-normalised, as
    Market-1501's multi-query protocol does with ``gt_bbox``. ``query`` gives persons, cameras and order
    alone: its own images must be among ``boxes`` to count. Returns (Q, D) features, float32 or wider, on
    the boxes' device (CPU for numpy). Raises InputError where a query has no box, or for another ``how``.
    """
    rule = 'multi-query features are pooled by "mean" or "max"'
    check_choice(rule, how, ("mean", "max"), "choose one")
    groups: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(boxes.person_ids.tolist(), boxes.camera_ids.tolist(), strict=True)):
        groups.setdefault(key, []).append(index)
    pooled = []
    for person, camera in zip(query.person_ids.tolist(), query.camera_ids.tolist(), strict=True):
        if (person, camera) not in groups:
            rule = "every query has a box of its person from its camera"
            raise InputError(rule, f"none for person {person}, camera {camera}", "add the query's own image")
        boxes_nd = select_rows(boxes.features, np.array(groups[person, camera]))
        boxes_nd = normalize(boxes_nd.to(torch.promote_types(boxes_nd.dtype, torch.float32)))
        pooled.append(boxes_nd.mean(0) if how == "mean" else boxes_nd.amax(0))
    return Embeddings(normalize(torch.stack(pooled)), query.person_ids, query.camera_ids)


def ranked_list(
    query_indices: int | Sequence[int],
    query: Embeddings,
    gallery: Embeddings,
    *,
    top: int,
    show_ignored: bool = False,
    device: torch.device | str | None = None,
) -> RankedLists:
    """The first ``top`` gallery images for some queries, in the order that ``evaluate`` scores.

    Ignored images (see ``evaluate``) are left out, or with ``show_ignored`` stand at their distance with
    Status.IGNORED. Among equal distances wrong images come first, then the lower gallery index. Made for
    figures: every distance is measured exactly, about a microsecond each. Raises InputError like
    ``evaluate``, and for a query index or a ``top`` out of range.
    """
    wanted = np.atleast_1d(np.asarray(query_indices, np.int64))
    if not wanted.size or wanted.min() < 0 or wanted.max() >= len(query):
        raise InputError(f"query indices run from 0 to {len(query) - 1}", query_indices, "choose others")
    if top < 1:
        raise InputError("a ranked list has at least one place", top, "ask for more")
    check_pair(query, gallery)
    device = chosen_device(device, query, gallery)
    dtype = common_dtype(query.features, gallery.features)
    best = [(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8)) for _ in wanted]
    queries_qd = select_rows(query.features, wanted).to(device, dtype)
    for span in spans(len(gallery), block_rows(queries_qd.shape[1], device)):
        rows_gd = select_rows(gallery.features, span).to(device, dtype)
        persons, cameras = gallery.person_ids[span], gallery.camera_ids[span]
        for place, index in enumerate(wanted):
            status = statuses(query.person_ids[index], query.camera_ids[index], persons, cameras)
            kept = np.flatnonzero(show_ignored | (status != Status.IGNORED))
            squared = squared_distances(queries_qd[place], rows_gd).double().cpu().numpy()
            new = (span.start + kept, squared[kept], status[kept])
            indices, squared, status = (np.concatenate(both) for both in zip(best[place], new, strict=True))
            order = np.lexsort((indices, status == Status.MATCH, squared))[:top]
            best[place] = indices[order], squared[order], status[order]
    lists = RankedLists(
        np.full((len(wanted), top), -1, np.int64),
        np.full((len(wanted), top), np.nan),
        np.full((len(wanted), top), Status.NONE, np.int8),
    )
    for place, (indices, squared, status) in enumerate(best):
        lists.gallery_indices[place, : len(indices)] = indices
        lists.distances[place, : len(indices)] = np.sqrt(squared)
        lists.statuses[place, : len(indices)] = status
    return lists


def check_scoring(
    ranks: Sequence[int],
    average_precisions: Sequence[str] = (),
    block_sizes: tuple[int, int] | None = None,
) -> None:
    """Raise InputError for arguments of ``evaluate`` that it does not know."""
    for kind in average_precisions:
        check_choice('average_precision is "step" or "trapezoid"', kind, ("step", "trapezoid"), "choose one")
    if not ranks or min(ranks) < 1:
        raise InputError("ranks are counted from 1", tuple(ranks), "ask for positive ranks")
    if block_sizes is not None and not (block_sizes[0] >= 1 and 1 <= block_sizes[1] <= 2048):
        raise InputError("blocks have from 1 query and 1 to 2048 gallery images", block_sizes, "change them")


def no_match(num_queries: int) -> InputError:
    """What is raised where no query has a match."""
    rule = "a query needs a gallery image of its person from another camera"
    return InputError(rule, f"none for any of {num_queries} queries", "check the person and camera ids")


def check_pair(query: Embeddings, gallery: Embeddings) -> None:
    """Raise InputError where feature lengths differ or a query is junk or a distractor."""
    if query.features.shape[1] != gallery.features.shape[1]:
        lengths = f"{query.features.shape[1]} and {gallery.features.shape[1]}"
        raise InputError("query and gallery features are equally long", lengths, "use one model for both")
    for row in np.flatnonzero(query.person_ids <= DISTRACTOR):
        found = f"{query.person_ids[row]} in row {row}"
        raise InputError("a query shows a person, whose id is positive", found, "leave it out of the queries")


def chosen_device(device: torch.device | str | None, query: Embeddings, gallery: Embeddings) -> torch.device:
    """The device that distances are computed on: the one asked for, or where the features live."""
    lives = [side.features.device for side in (gallery, query) if isinstance(side.features, Tensor)]
    return float64_device(device or (lives or ["cpu"])[0])


def _same_person_pairs(query: Embeddings, gallery: Embeddings) -> tuple[np.ndarray, ...]:
    """Of all pairs that show one person, by query: indices (P,) of queries and images, which are matches.

    Last a table (Q, M) with True for each match of a query, from the left.
    """
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
    is_match_qm = np.arange(max(1, num_matches_q.max())) < num_matches_q[:, None]
    return queries_p, images_p, is_match_p, is_match_qm


def _by_query(distances_p: Tensor, is_match_qm: np.ndarray) -> Tensor:
    """Distances of matches that stand by query as a table (Q, M): ascending, infinity behind the last."""
    distances_qm = distances_p.new_full(is_match_qm.shape, math.inf)
    distances_qm[torch.from_numpy(is_match_qm).to(distances_p.device)] = distances_p
    return distances_qm.sort(dim=1).values
