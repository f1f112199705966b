"""The nearest images of each query, of any number of queries and images, streamed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from reidlib.ranking.distances import (
    Features,
    common_dtype,
    float64_device,
    full_float32,
    pair_distances,
    rows,
    spans,
    squared_by_product,
)

_QUERIES, _GALLERY = 1024, 2048
# Candidates of a block of queries that wait to be measured.
_WAITING = 2**20
_TINY = 1e-30


class Nearest(NamedTuple):
    """The nearest gallery images of each query, both fields (Q, places)."""

    gallery_indices: np.ndarray  # int64, −1 where the list ended
    distances: np.ndarray  # float64, Euclidean, NaN where the list ended


def nearest_images(
    query: Features,
    gallery: Features,
    *,
    top: int,
    left_out: tuple[np.ndarray, np.ndarray] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Nearest:
    """The ``top`` gallery features nearest to each query's, by Euclidean distance; ties by gallery index.

    query (Q, D), gallery (G, D): tensors, arrays or memory maps, which are streamed. left_out: (query,
    gallery) indices of pairs that do not count. A product in float64 finds candidates: all that lie within
    the rounding of both ways of measuring from the ``top``-th. Their distances are then measured as
    ``reidlib.ranking.distances`` does, so that any number of copies stand in their order.
    """
    device = float64_device(device)
    places = min(top, len(gallery))
    lists = Nearest(np.full((len(query), places), -1), np.full((len(query), places), np.nan))
    blocks = list(spans(len(query), _QUERIES))
    with torch.inference_mode(), full_float32(device):
        for block in tqdm(blocks, desc="searching", unit="block", disable=not progress, leave=False):
            found = _nearest_of_block(query, gallery, block, places, left_out, device)
            lists.gallery_indices[block], lists.distances[block] = found
    return lists


def _nearest_of_block(
    query: Features,
    gallery: Features,
    block: slice,
    places: int,
    left_out: tuple[np.ndarray, np.ndarray] | None,
    device: torch.device,
) -> Nearest:
    query_qd = rows(query, block).to(device, torch.float64)
    norms_q = torch.linalg.vector_norm(query_qd, dim=1)
    length = query_qd.shape[1]
    # A measured distance is a sum by halves of rounded squares of rounded differences: each term is off by
    # some roundings of its own size. A product's errors are roundings of the vectors' lengths.
    relative = 2 * (math.ceil(math.log2(length)) + 8) * torch.finfo(common_dtype(query, gallery)).eps
    absolute = 4 * (length + 8) * torch.finfo(torch.float64).eps
    best_qk = torch.empty(len(query_qd), 0, dtype=torch.float64, device=device)
    longest = 0.0
    measured = [np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)]  # row, gallery index, squared
    waiting: list[tuple[Tensor, Tensor, Tensor]] = []
    num_waiting = 0
    for span in spans(len(gallery), _GALLERY):
        gallery_gd = rows(gallery, span).to(device, torch.float64)
        longest = max(longest, float(torch.linalg.vector_norm(gallery_gd, dim=1).max()))
        squared_qg = squared_by_product(query_qd, gallery_gd)
        squared_qg[pairs_within(left_out, block, span)] = math.inf
        both_qk = torch.cat([best_qk, squared_qg], dim=1)
        best_qk = both_qk.topk(min(places, both_qk.shape[1]), dim=1, largest=False).values
        limit_q = torch.full_like(norms_q, math.inf)
        if best_qk.shape[1] == places:
            limit_q = best_qk.amax(1) * (1 + relative) + absolute * (norms_q + longest) ** 2 + _TINY
        row_n, column_n = ((squared_qg <= limit_q[:, None]) & squared_qg.isfinite()).nonzero(as_tuple=True)
        waiting.append((row_n, column_n + span.start, squared_qg[row_n, column_n]))
        num_waiting += len(row_n)
        if num_waiting > _WAITING or span.stop == len(gallery):
            row_n, index_n, squared_n = map(torch.cat, zip(*waiting, strict=True))
            near_n = squared_n <= limit_q[row_n]  # the limit has come nearer since
            row_n, index_n = row_n[near_n].cpu().numpy(), index_n[near_n].cpu().numpy()
            squared_n = pair_distances(query, gallery, block.start + row_n, index_n, device).cpu().numpy()
            fresh = row_n, index_n, squared_n
            measured = _first(*map(np.concatenate, zip(measured, fresh, strict=True)), places)
            waiting, num_waiting = [], 0
    row_n, index_n, squared_n = measured
    found = Nearest(np.full((len(query_qd), places), -1), np.full((len(query_qd), places), np.nan))
    place_n = np.arange(len(row_n)) - np.searchsorted(row_n, row_n)
    found.gallery_indices[row_n, place_n] = index_n
    found.distances[row_n, place_n] = np.sqrt(squared_n)
    return found


def _first(row_n: np.ndarray, index_n: np.ndarray, squared_n: np.ndarray, places: int) -> list[np.ndarray]:
    """The nearest of each row, equally near ones by index, row after row."""
    order = np.lexsort((index_n, squared_n, row_n))
    row_n = row_n[order]
    kept = np.arange(len(row_n)) - np.searchsorted(row_n, row_n) < places
    return [row_n[kept], index_n[order][kept], squared_n[order][kept]]


def pairs_within(
    pairs: tuple[np.ndarray, np.ndarray] | None, block: slice, span: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in a block, of those (query, gallery) pairs that lie in it."""
    if pairs is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    queries, images = pairs
    here = (queries >= block.start) & (queries < block.stop) & (images >= span.start) & (images < span.stop)
    return queries[here] - block.start, images[here] - span.start
