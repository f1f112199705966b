"""The gallery images nearest to each query, from features in memory or in a file.

Products of float32 find the candidates: all images within rounding of the last one of a list. These are
measured as in ``ranking.distances``, so lists are equal on every device and for blocks of any size.
"""

from __future__ import annotations

import math
import threading
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.progress import progress_bar
from reidlib.ranking.distances import (
    ROUNDING,
    TINY,
    Features,
    float32_products,
    float64_device,
    full_float32,
    middle,
    pairs_within,
    rows_from,
    sorted_rows,
    spans,
    squared_pair_distances,
)
from reidlib.threads import parallel_map

_QUERIES = 8192  # queries that are compared with the gallery while it is read once
TILE = {"cpu": 1024, "cuda": 8192}  # images of a block; a tile is the product of two blocks
_MEASURED = 2**20  # candidates of a block of queries that are stored before they are measured
_LONGEST = 1e18  # float32 has room for the squares of norms up to this


class Nearest(NamedTuple):
    """The nearest gallery images of each query.

    Attributes:
        gallery_indices: Indices, int64 of shape (Q, L) for lists of length L; −1 beyond the end of a list.
        distances: Euclidean distances, float64 of shape (Q, L); NaN beyond the end of a list.
    """

    gallery_indices: np.ndarray
    distances: np.ndarray


def nearest_images(
    query: Features,
    gallery: Features,
    *,
    top: int,
    excluded_pairs: tuple[np.ndarray, np.ndarray] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Nearest:
    """Find the gallery features nearest to each query by Euclidean distance; ties by gallery index.

    The lists are equal, bit for bit, for blocks of any size and on every device. The gallery is read once for
    every 8,192 queries.

    Args:
        query: Query features, shape (Q, D). Tensors, arrays or memory maps, which are streamed.
        gallery: Gallery features, shape (G, D).
        top: Largest number of gallery features per query.
        excluded_pairs: Query and gallery indices, each of shape (P,), of pairs that are not listed.
        device: Torch device for the computation.
        progress: Whether a progress bar is shown.

    Returns:
        Gallery indices and distances, each of shape (Q, min(top, G)).
    """
    device, places = float64_device(device), min(top, len(gallery))
    lists = Nearest(np.full((len(query), places), -1), np.full((len(query), places), np.nan))
    if not (places and len(query)):
        return lists
    middle_d = middle(query, gallery, device)
    pairs = excluded_pairs or (np.empty(0, np.int64), np.empty(0, np.int64))
    by_image = np.argsort(pairs[1], kind="stable")
    pairs = pairs[0][by_image], pairs[1][by_image]
    size = TILE.get(device.type, TILE["cuda"])
    blocks, images = list(spans(len(query), size)), list(spans(len(gallery), size))
    parts = [blocks[part] for part in spans(len(blocks), max(1, _QUERIES // size))]
    bar = progress_bar(desc="searching", total=len(parts) * len(images), disable=not progress, leave=False)
    with torch.inference_mode(), full_float32(device), bar:
        for part in parts:
            for dtype in (torch.float32, torch.float64):
                searches = [_BlockSearch(query, gallery, block, places, middle_d, dtype) for block in part]

                def compare(span: slice, searches=searches, dtype=dtype) -> float:
                    within = slice(*np.searchsorted(pairs[1], (span.start, span.stop)))
                    excluded = pairs[0][within], pairs[1][within]
                    with torch.inference_mode():
                        images_gd = rows_from(middle_d, gallery, span).to(dtype)
                        halves_g = (images_gd * images_gd).sum(1) / 2
                        longest = float((2 * halves_g.max()).sqrt())
                        for search in searches:
                            search.compare(images_gd, halves_g, longest, span, excluded)
                    return longest

                with parallel_map(device) as each:
                    longest = 0.0
                    for norm in each(compare, images):
                        bar.update()
                        longest = max(longest, norm)
                if max(longest, *(float(search.norms_b.max()) for search in searches)) < _LONGEST:
                    break
            for search in searches:
                row_n, index_n, squared_n = search.measure()
                place_n = np.arange(len(row_n)) - np.searchsorted(row_n, row_n)
                lists.gallery_indices[search.block.start + row_n, place_n] = index_n
                lists.distances[search.block.start + row_n, place_n] = np.sqrt(squared_n)
    return lists


def least_of_groups(tile_bo: Tensor, count: int) -> Tensor:
    """Return the least value (B, M) in each of up to ``4 * count`` groups of columns."""
    # A group takes every ``num_groups``-th column. Most groups contain no near image.
    width = tile_bo.shape[1]
    num_groups = min(width, 4 * count)
    groups_bm = tile_bo[:, :num_groups].clone()
    for start in range(num_groups, width, num_groups):
        part_bm = tile_bo[:, start : start + num_groups]
        groups_bm[:, : part_bm.shape[1]].clamp_(max=part_bm)
    return groups_bm


def product_rounding(last, norms, longest: float, length: int):
    """Return how far a product may exceed that of the last image of a list: arrays, or tensors, of rows."""
    # ``last`` is the halved squared distance; no image that may be nearer is longer than ``reach``. Twice the
    # rounding that ``distances.count_within`` allows: of the bound and of the candidate.
    reach = (2 * (norms + (2 * last.clip(min=0)) ** 0.5)).clip(max=longest)
    roundings = 2 * math.sqrt(length) + 4 * (math.ceil(math.log2(length)) + 8)
    return roundings * ROUNDING * (norms + reach) ** 2 + TINY


def _candidates(tile_bo: Tensor, groups_bm: Tensor, limits_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, column and value of the entries of a tile up to each row's limit."""
    width, num_groups = tile_bo.shape[1], groups_bm.shape[1]
    row_p, group_p = (groups_bm <= limits_b[:, None]).nonzero(as_tuple=True)
    column_pm = group_p[:, None] + torch.arange(0, width, num_groups, device=tile_bo.device)
    half_pm = tile_bo[row_p[:, None], column_pm.clamp(max=width - 1)]
    near_pm = (half_pm <= limits_b[row_p, None]) & (column_pm < width)
    near, member = near_pm.nonzero(as_tuple=True)
    return row_p[near], column_pm[near, member], half_pm[near, member]


class _BlockSearch:
    """Search for the nearest images of a block of queries."""

    def __init__(self, query: Features, gallery: Features, block: slice, places: int, middle_d, dtype):
        self.query, self.gallery, self.block = query, gallery, block
        self.opposite_bd = -rows_from(middle_d, query, block).to(dtype)
        self.halves_b = (self.opposite_bd * self.opposite_bd).sum(1) / 2
        self.norms_b = (2 * self.halves_b).sqrt()
        self.longest = 0.0
        # Values are ½‖g‖² − q·g, the halved squared distance less ½‖q‖². These are the least of K groups of
        # images: their maximum bounds that of the last of a list.
        self.least_bk = self.norms_b.new_full((len(self.norms_b), places), math.inf)
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.nearest = [np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)]  # row, image, squared
        self.lock = threading.Lock()

    def compare(self, images_gd: Tensor, halves_g: Tensor, longest: float, span: slice, excluded) -> None:
        """Compute the tile of this block and some images, and collect candidates."""
        tile_bg = float32_products(self.opposite_bd, images_gd).add_(halves_g)
        tile_bg[pairs_within(excluded, self.block, span)] = math.inf
        places = self.least_bk.shape[1]
        groups_bm = least_of_groups(tile_bg, places)
        with self.lock:
            self.longest = max(self.longest, longest)
            self.least_bk = sorted_rows(torch.cat([self.least_bk, groups_bm], dim=1))[:, :places].clone()
            limits_b = self._limits()
        row_p, column_p, half_p = _candidates(tile_bg, groups_bm, limits_b)
        with self.lock:
            self.waiting.append((row_p, column_p + span.start, half_p))
            if sum(len(candidates[0]) for candidates in self.waiting) > _MEASURED:
                self.measure()

    def _limits(self) -> Tensor:
        """Return the current bounds of a candidate's value, finite."""
        last_b, length = self.least_bk[:, -1], self.opposite_bd.shape[1]
        limits_b = last_b + product_rounding(last_b + self.halves_b, self.norms_b, self.longest, length)
        return limits_b.clamp(max=torch.finfo(limits_b.dtype).max)  # excluded images are infinitely far

    def measure(self) -> list[np.ndarray]:
        """Measure the waiting candidates exactly; return row, image and squared distance of the nearest."""
        if self.waiting:
            row_p, image_p, half_p = map(torch.cat, zip(*self.waiting, strict=True))
            near_p = half_p <= self._limits()[row_p]  # the limits have decreased since
            row_p, image_p = row_p[near_p].cpu().numpy(), image_p[near_p].cpu().numpy()
            pairs = self.block.start + row_p, image_p
            squared_p = squared_pair_distances(self.query, self.gallery, *pairs, self.norms_b.device)
            candidates = row_p, image_p, squared_p.cpu().numpy()
            row_n, image_n, squared_n = map(np.concatenate, zip(self.nearest, candidates, strict=True))
            order = np.lexsort((image_n, squared_n, row_n))  # ties by index
            row_n = row_n[order]
            kept_n = np.arange(len(row_n)) - np.searchsorted(row_n, row_n) < self.least_bk.shape[1]
            self.nearest = [row_n[kept_n], image_n[order][kept_n], squared_n[order][kept_n]]
            self.waiting = []
        return self.nearest
