"""k-reciprocal re-ranking: mutual neighbours count more than images that are merely near.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. Each
image of query and gallery is encoded by its mutual neighbours, and two images are similar if their encodings
overlap. An encoding has a few dozen entries and most pairs of images share none, so only the result is as
large as a matrix over all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from reidlib.errors import InputError
from reidlib.progress import progress_bar
from reidlib.ranking.distances import (
    Features,
    common_dtype,
    full_float32,
    select_rows,
    spans,
    squared_pair_distances,
)
from reidlib.ranking.metrics import Embeddings, check_pair, working_device
from reidlib.ranking.neighbours import Neighbours, TileFunction, nearest_neighbours, partner_rows
from reidlib.threads import parallel_map

_QUERIES, _GALLERY = 256, 2048  # block of the result that is computed at once
_PAIRS = 2**16  # pairs of images that a thread measures at once
_SHARED = 2**16  # pairs of overlapping entries at once: with fewer, threads wait for each other's Python
_UNKNOWN = 2.0**-30  # in place of an entry, which is at least 1/e


def k_reciprocal(
    query_features: Features,
    gallery_features: Features,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Tensor:
    """Compute re-ranked distances between queries and gallery by k-reciprocal encoding.

    ``KReciprocal`` states time and memory; the result takes 4·Q·G bytes more. Defaults: the authors' code.

    Args:
        query_features, gallery_features: Features (Q, D) and (G, D): tensors, arrays or memory maps.
        k1: Neighbours of each image from which its encoding is made.
        k2: Neighbours whose encodings are averaged; 1 averages none.
        weight: λ in (1 − λ)·Jaccard distance + λ·squared Euclidean distance, from 0 to 1.
        device: Where distances are computed; see ``ranking.evaluate``.
        progress: Whether to show a progress bar.

    Returns:
        Distances (Q, G) from 0 to 1, float32, on the CPU.

    Raises:
        InputError: As for ``ranking.Embeddings``, and if feature lengths differ, k1 or k2 is below 1, or
            weight is outside 0 to 1.
    """
    # ``fit`` reports features without a length.
    shape = *np.shape(query_features)[:1], *np.shape(gallery_features)[:1]
    distances_qg = torch.from_numpy(np.empty(shape, np.float32))  # numpy asks for large pages: fewer faults

    def store(tile_bo: Tensor, block: slice, other: slice) -> None:
        num_queries = len(distances_qg)
        last, first = min(block.stop, num_queries), max(other.start, num_queries)
        if block.start < last and first < other.stop:
            columns = slice(first - num_queries, other.stop - num_queries)
            tile_qg = tile_bo[: last - block.start, first - other.start :]
            distances_qg[block.start : last, columns] = tile_qg.cpu()

    # The search for neighbours computes the products of all pairs, which are stored here for reuse.
    options: dict[str, Any] = {"k1": k1, "k2": k2, "weight": weight, "device": device, "progress": progress}
    encoding = KReciprocal.fit(query_features, gallery_features, **options, on_tile=store)
    blocks = list(spans(encoding.num_queries, _QUERIES))

    def rerank(block: slice) -> None:
        encoding._rerank(block, distances_qg[block])

    with parallel_map(torch.device("cpu")) as each:
        results = each(rerank, blocks)
        list(
            progress_bar(results, "re-ranking", len(blocks), unit="block", disable=not progress, leave=False)
        )
    return distances_qg


@dataclass(frozen=True, eq=False)
class KReciprocal:
    """Encoded queries and gallery, which give re-ranked distances of any queries on demand.

    Memory: a float32 copy of all N = Q + G features on the device and a few dozen entries of 8 bytes for each
    image. ``fit`` needs one more copy, about a hundred candidates for each image and 4 MB for each thread.
    Memory grows with the square of k1.
    Time: ``fit`` takes half a product of all features, O(N²·D), and O(N·k1²) for the sets. If all features
    are nearly equal (a collapsed model), Market-1501 takes minutes and up to 2 GB. The distances of a query
    take O(G·D), a few milliseconds on Market-1501 with D = 512.

    Attributes:
        images_nd: (N, D + 2) float32, queries before gallery, centred as in ``Neighbours``.
        num_queries: Number of queries (Q).
        largest_q: Each query's largest squared distance to any image, float64, or 1 if that is 0.
        query_encodings, gallery_encodings: (Q, N) and (G, N) float32; rows sum to 1.
        weight: Share of the plain distance.
    """

    images_nd: Tensor
    num_queries: int
    largest_q: np.ndarray
    query_encodings: sparse.csr_array
    gallery_encodings: sparse.csc_array
    weight: float

    @classmethod
    def fit(
        cls,
        query_features: Features,
        gallery_features: Features,
        *,
        k1: int = 20,
        k2: int = 6,
        weight: float = 0.3,
        device: torch.device | str | None = None,
        progress: bool = False,
        on_tile: TileFunction | None = None,
    ) -> KReciprocal:
        """Encode queries and gallery; for arguments and errors see ``k_reciprocal``."""
        # Features are compared as they are, and no label is used. Junk and distractors in the gallery are
        # neighbours unless the caller removes them: the authors' MATLAB code keeps junk, users of the Python
        # code mostly remove it, and the results differ a little. The squared distance is divided by the
        # query's largest. A k1 or k2 above the number of images means all images.
        for name, value in (("k1", k1), ("k2", k2)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                rule = f"{name}, a whole number of neighbours, is at least 1"
                raise InputError(rule, repr(value), "change it")
        if not 0 <= weight <= 1:
            raise InputError("weight, the share of the plain distance, is from 0 to 1", weight, "change it")
        query, gallery = _embeddings(query_features), _embeddings(gallery_features)
        check_pair(query, gallery)
        device = working_device(device, query, gallery)
        dtype = common_dtype(query.features, gallery.features)
        num_queries, num_images = len(query), len(query) + len(gallery)
        with torch.inference_mode(), full_float32(device):
            images_nd = torch.empty(num_images, query.features.shape[1], dtype=dtype, device=device)
            for start, features in ((0, query.features), (num_queries, gallery.features)):
                for span in spans(len(features), 4096):
                    images_nd[start + span.start : start + span.stop] = select_rows(features, span)
            count = min(max(k1 + 1, k2), num_images)
            neighbours = nearest_neighbours(images_nd, count, progress=progress, on_tile=on_tile)
            encodings_nn = _encodings(images_nd, neighbours, k1)
        if k2 > 1:
            nearest_nk = neighbours.images_nk[:, :k2]
            means_nn = _relation(nearest_nk, np.full(nearest_nk.shape, 1 / nearest_nk.shape[1], np.float32))
            encodings_nn = cast(sparse.csr_array, means_nn @ encodings_nn)
        return cls(
            images_nd=neighbours.centred_nd,
            num_queries=num_queries,
            largest_q=neighbours.largest_n[:num_queries],
            query_encodings=encodings_nn[:num_queries],
            gallery_encodings=encodings_nn[num_queries:].tocsc(),
            weight=float(weight),
        )

    @property
    def num_gallery(self) -> int:
        """Return the number of gallery images (G)."""
        return len(self.images_nd) - self.num_queries

    def distances(self, query_indices: int | Sequence[int] | np.ndarray) -> Tensor:
        """Compute re-ranked distances (queries, G) of some queries, float32 on the CPU, from 0 to 1."""
        rows = np.atleast_1d(np.asarray(query_indices, np.int64))
        if rows.size and not (rows.min() >= 0 and rows.max() < self.num_queries):
            rule = f"query indices are from 0 to {self.num_queries - 1}"
            raise InputError(rule, query_indices, "choose others")
        distances_qg = torch.empty(len(rows), self.num_gallery)
        device = self.images_nd.device
        with torch.inference_mode(), full_float32(device):
            queries_qd = partner_rows(select_rows(self.images_nd, rows))
            for span in spans(self.num_gallery, _GALLERY):
                images = slice(self.num_queries + span.start, self.num_queries + span.stop)
                distances_qg[:, span] = (queries_qd @ self.images_nd[images].T).cpu()
        self._rerank(rows, distances_qg)
        return distances_qg

    def _rerank(self, rows: slice | np.ndarray, distances_qg: Tensor) -> None:
        """Scale halved squared distances; add (1 − λ)·(1 − S/(2 − S)), S the overlap of two encodings."""
        query_qn, gallery_ng = self.query_encodings[rows], self.gallery_encodings.T
        num_queries, num_gallery = distances_qg.shape
        scale_q = torch.from_numpy((2 * self.weight / self.largest_q[rows]).astype(np.float32))
        # Each entry of a query is paired with all gallery entries of its column, for a few queries at a time.
        length_e = np.diff(gallery_ng.indptr)[query_qn.indices]
        before_q = np.concatenate([[0], length_e.cumsum(dtype=np.int64)])[query_qn.indptr]
        start = 0
        while start < num_queries:
            stop = max(start + 1, int(np.searchsorted(before_q, before_q[start] + _SHARED, "right")) - 1)
            entries = slice(query_qn.indptr[start], query_qn.indptr[stop])
            pairs_eg, length = gallery_ng[query_qn.indices[entries]], length_e[entries]
            row_e = np.repeat(np.arange(stop - start), np.diff(query_qn.indptr[start : stop + 1]))
            common_s = np.minimum(query_qn.data[entries].repeat(length), pairs_eg.data)
            cells_s = (row_e * num_gallery).repeat(length) + pairs_eg.indices
            part_qg, factor = distances_qg[start:stop], 2 * (1 - self.weight)
            # 1 − S/(2 − S) = 2 − 2/(2 − S).
            rest_c = torch.full((part_qg.numel(),), 2, dtype=torch.float64)
            rest_c.index_add_(0, torch.from_numpy(cells_s), torch.from_numpy(common_s).double(), alpha=-1)
            jaccard_c = rest_c.reciprocal_().mul_(-factor).add_(factor).float()
            # Only rounding leads below 0 or above 1.
            part_qg.mul_(scale_q[start:stop, None]).add_(jaccard_c.view(part_qg.shape)).clamp_(0, 1)
            start = stop


def _embeddings(features: Features) -> Embeddings:
    """Check the features as ``Embeddings`` does, with ids that are not used."""
    ids_n = np.ones(np.shape(features)[:1], np.int64)
    return Embeddings(features, ids_n, ids_n)


def _encodings(images_nd: Tensor, neighbours: Neighbours, k1: int) -> sparse.csr_array:
    """Return each image's encoding (N, N): exp(−d) over its expanded reciprocal set, divided by its sum."""
    # The smaller set has round(k1/2) + 1 images, itself included, with a half rounded to even, as in the
    # authors' Python code. In their MATLAB code, round((k1+1)/2) is one less for k1 = 3, 7, 11, …
    largest_n, count = neighbours.largest_n, round(k1 / 2) + 1
    entries_nk = np.exp(-2 * neighbours.halves_nk / largest_n[:, None])
    reciprocal_nn = _reciprocal(neighbours.images_nk[:, : k1 + 1], entries_nk[:, : k1 + 1])
    halves_nn = _reciprocal(neighbours.images_nk[:, :count], np.ones_like(entries_nk[:, :count]))
    size_n = np.diff(halves_nn.indptr)
    # For each j in i's set: how much of j's smaller set is in i's set. Over two thirds: it joins i's set.
    # The relation is mutual, so ``halves_nn`` is its own transpose.
    paths_nn = cast(sparse.csr_array, _ones(reciprocal_nn) @ halves_nn)
    shared_nn = cast(sparse.csr_array, paths_nn.multiply(_ones(reciprocal_nn)).tocsr())
    shared_nn.data = (3 * shared_nn.data > 2 * size_n[shared_nn.indices]).astype(np.float32)
    shared_nn.eliminate_zeros()
    joining_nn = _ones(cast(sparse.csr_array, shared_nn @ halves_nn), _UNKNOWN)
    expanded_nn = reciprocal_nn.maximum(joining_nn).tocsr()
    # Of the few joining images that are no neighbours, distances are unknown.
    size_n = np.diff(expanded_nn.indptr)
    image_p = np.repeat(np.arange(len(images_nd), dtype=np.int32), size_n)
    unknown = np.flatnonzero(expanded_nn.data == _UNKNOWN)

    def measure(span: slice) -> None:
        places = unknown[span]
        pairs = image_p[places], expanded_nn.indices[places]
        with torch.inference_mode():
            squared_p = squared_pair_distances(images_nd, images_nd, *pairs, images_nd.device).cpu().numpy()
        expanded_nn.data[places] = np.exp(-squared_p / largest_n[pairs[0]])

    with parallel_map(images_nd.device) as each:
        list(each(measure, spans(len(unknown), _PAIRS)))
    # No set is empty: each contains its image.
    expanded_nn.data /= np.add.reduceat(expanded_nn.data, expanded_nn.indptr[:-1]).repeat(size_n)
    return expanded_nn.astype(np.float32)


def _ones(matrix_nn: sparse.csr_array, value: float = 1) -> sparse.csr_array:
    """Return a matrix with one value at all entries of another."""
    entries = np.full(matrix_nn.nnz, value, np.float32)
    return sparse.csr_array((entries, matrix_nn.indices, matrix_nn.indptr), matrix_nn.shape)


def _relation(images_nk: np.ndarray, entries_nk: np.ndarray) -> sparse.csr_array:
    """Return a matrix (N, N) with entries at the K images of each row."""
    num_images, count = images_nk.shape
    # Indices of 32 bits take half the memory of scipy's default.
    ends = np.arange(0, images_nk.size + 1, count, dtype=np.int32 if images_nk.size < 2**31 else np.int64)
    return sparse.csr_array((entries_nk.ravel(), images_nk.ravel(), ends), (num_images, num_images))


def _reciprocal(images_nk: np.ndarray, entries_nk: np.ndarray) -> sparse.csr_array:
    """Return a matrix (N, N) with entries at mutual neighbours."""
    neighbours_nn = _relation(images_nk, entries_nk)
    return neighbours_nn.multiply(_ones(neighbours_nn).T.tocsr()).tocsr()
