"""The nearest images of each query, of any number of queries and images, streamed."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from tqdm.auto import tqdm

from reidlib.distances import Features, full_float32, pair_distances, rows, spans
from reidlib.verification import distances_by_product

# Candidates beyond those asked for: a product's rounding may change the order of images equally far away.
_SPARE = 16
_QUERIES, _GALLERY = 1024, 2048


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
    gallery) indices of pairs that do not count. A product in float64 finds candidates, whose distances
    are then measured as ``reidlib.distances`` does.
    """
    device = torch.device(device)
    device = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    wanted, places = min(top + _SPARE, len(gallery)), min(top, len(gallery))
    lists = Nearest(np.full((len(query), places), -1), np.full((len(query), places), np.nan))
    blocks = list(spans(len(query), _QUERIES))
    with torch.inference_mode(), full_float32(device):
        for block in tqdm(blocks, desc="searching", unit="block", disable=not progress, leave=False):
            query_qd = rows(query, block).to(device, torch.float64)
            best_qk = torch.empty(len(query_qd), 0, dtype=torch.float64, device=device)
            indices_qk = torch.empty(len(query_qd), 0, dtype=torch.int64, device=device)
            for span in spans(len(gallery), _GALLERY):
                distances_qg = distances_by_product(query_qd, rows(gallery, span).to(device, torch.float64))
                distances_qg[_within(left_out, block, span)] = math.inf
                columns_g = torch.arange(span.start, span.stop, device=device).expand(len(query_qd), -1)
                both_qk = torch.cat([best_qk, distances_qg], dim=1)
                best_qk, chosen = both_qk.topk(min(wanted, both_qk.shape[1]), dim=1, largest=False)
                indices_qk = torch.cat([indices_qk, columns_g], dim=1).gather(1, chosen)
            row_n, place_n = best_qk.isfinite().nonzero(as_tuple=True)
            indices_n = indices_qk[row_n, place_n].cpu().numpy()
            row_n = row_n.cpu().numpy()
            squared_n = pair_distances(query, gallery, block.start + row_n, indices_n, device).cpu().numpy()
            order = np.lexsort((indices_n, squared_n, row_n))
            row_n, indices_n, squared_n = row_n[order], indices_n[order], squared_n[order]
            place_n = np.arange(len(row_n)) - np.searchsorted(row_n, row_n)
            kept = place_n < places
            where = block.start + row_n[kept], place_n[kept]
            lists.gallery_indices[where] = indices_n[kept]
            lists.distances[where] = np.sqrt(squared_n[kept])
    return lists


def _within(
    pairs: tuple[np.ndarray, np.ndarray] | None, block: slice, span: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of those pairs that lie in a block."""
    if pairs is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    queries, images = pairs
    here = (queries >= block.start) & (queries < block.stop) & (images >= span.start) & (images < span.stop)
    return queries[here] - block.start, images[here] - span.start
