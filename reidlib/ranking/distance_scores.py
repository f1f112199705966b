"""Scores of any matrix of distances: re-ranked ones, or those of a learned metric.

``ranking.evaluate`` measures Euclidean distances itself and never holds them all. Here they are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from reidlib.data.rules import JUNK
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.ranking.distances import rows, spans
from reidlib.ranking.metrics import (
    Embeddings,
    Scores,
    check_pair,
    check_scoring,
    same_person_pairs,
    scores_from_ranks,
)

_BLOCK = 2**22  # distances copied at once


def evaluate_distances(
    distances_qg: Tensor | np.ndarray,
    query: Embeddings | Split,
    gallery: Embeddings | Split,
    *,
    average_precision: Literal["step", "trapezoid"] = "step",
    ranks: Sequence[int] = (1, 5, 10, 20),
) -> Scores:
    """Score a ranking of the gallery by given distances (Q, G), under the protocol of ``ranking.evaluate``.

    Of ``query`` and ``gallery`` only ``person_ids`` and ``camera_ids`` are used. The distances are floats of
    any width and sign on any device, or a memory map, taken as they are: where they are equal, a wrong
    image stands before a match. They are copied some queries at a time, and otherwise left alone.

    Raises InputError like ``ranking.evaluate``, and for distances of another shape or type or not finite.
    """
    check_scoring((average_precision,), ranks)
    query, gallery = _identities(query), _identities(gallery)
    check_pair(query, gallery)
    shape, dtype = (len(query), len(gallery)), getattr(distances_qg, "dtype", type(distances_qg).__name__)
    floating = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    if not (floating or dtype in (np.float16, np.float32, np.float64)) or distances_qg.shape != shape:
        found = f"{tuple(np.shape(distances_qg))} {dtype}"
        raise InputError(f"distances are floats of shape {shape}, as there are ids", found, "give all pairs")
    pair_queries, pair_gallery = same_person_pairs(query, gallery)
    is_match_p = query.camera_ids[pair_queries] != gallery.camera_ids[pair_gallery]
    length_q = np.bincount(pair_queries[is_match_p], minlength=len(query))
    is_match_qm = np.arange(max(1, length_q.max())) < length_q[:, None]
    rank_qm = np.ones(is_match_qm.shape, np.int64)
    junk_g = torch.from_numpy(gallery.person_ids == JUNK)
    for block in spans(len(query), max(1, _BLOCK // len(gallery))):
        block_bg = rows(distances_qg, block).to("cpu", copy=True).contiguous()
        refused_bg = ~block_bg.isfinite()
        if refused_bg.any():
            row, column = refused_bg.nonzero()[0].tolist()
            found = f"{block_bg[row, column]:g} between query {block.start + row} and image {column}"
            raise InputError("distances are finite", found, "look at that pair's features")
        pairs = slice(*np.searchsorted(pair_queries, (block.start, block.stop)))
        row_p, image_p, of_match_p = pair_queries[pairs] - block.start, pair_gallery[pairs], is_match_p[pairs]
        matches_bm = torch.full(is_match_qm[block].shape, torch.inf, dtype=block_bg.dtype)
        filled_bm = torch.from_numpy(is_match_qm[block])
        matches_bm[filled_bm] = block_bg[row_p[of_match_p], image_p[of_match_p]]  # pairs stand by query
        matches_bm = matches_bm.sort(dim=1).values
        # What is left are the wrong images, with infinity in place of the others.
        block_bg[row_p, image_p] = torch.inf
        block_bg[:, junk_g] = torch.inf
        wrong_bm = torch.searchsorted(block_bg.sort(dim=1).values, matches_bm, right=True)
        rank_bm = wrong_bm.numpy() + np.arange(1, matches_bm.shape[1] + 1)
        rank_qm[block] = np.where(is_match_qm[block], rank_bm, 1)
    return scores_from_ranks(rank_qm, is_match_qm, average_precision, ranks)


def _identities(side: Embeddings | Split) -> Embeddings:
    """The ids alone, checked as those of embeddings are."""
    return Embeddings(np.zeros((len(side.person_ids), 1), np.float32), side.person_ids, side.camera_ids)
