"""Euclidean distances that are the same everywhere, and how many gallery images lie within them.

Every distance is made of differences, squares and sums by halves, each an elementwise IEEE operation. So
the same two vectors have the same distance, bit for bit, wherever they stand in their set, in blocks of
any size and on every device, and copies of an image tie exactly. A matrix product promises none of this
(its rounding depends on a tile's shape and place) but is a hundred times faster; it serves as a filter
here, and only the images that it puts within its own rounding error of a threshold are measured again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Features = Tensor | np.ndarray

_LEVELS = 2**20  # of quantised distances: exact in float32, and leave room for 11 bits of column in an int32
_COLUMNS = 2**11
ROUNDING = torch.finfo(torch.float32).eps / 2
TINY = 1e-30  # keeps scales finite where features are all zero
_BLOCK_SIZES = {"cpu": (1152, 2048), "cuda": (8192, 2048)}  # a CPU's tile stays in its cache


def spans(length: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``range(length)``."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def select_rows(features: Features, indices: slice | np.ndarray) -> Tensor:
    """Some rows of a feature array as a tensor, on the tensor's device or (numpy, memmap) in memory."""
    if isinstance(features, Tensor):
        if isinstance(indices, slice):
            return features[indices]
        return features.index_select(0, torch.from_numpy(indices).to(features.device))
    return torch.from_numpy(np.array(features[indices]))  # a copy: a memmap may be read-only


def common_dtype(query: Features, gallery: Features) -> torch.dtype:
    """The type distances are computed in: float32, or float64 if either side is."""
    types = (select_rows(side, slice(0, 0)).dtype for side in (query, gallery))
    return torch.promote_types(torch.promote_types(*types), torch.float32)


def squared_distances(first_nd: Tensor, second_nd: Tensor) -> Tensor:
    """Squared Euclidean distances (N,) of rows (N, D), or of one vector (D,) and rows (N, D)."""
    differences_nd = first_nd - second_nd
    return _summed_by_halves(differences_nd.mul_(differences_nd))


def squared_distances_to_all(queries_qd: Tensor, gallery: Features) -> Tensor:
    """Squared Euclidean distances (Q, G) of vectors to a gallery's rows, float64 on the vectors' device.

    Those of ``squared_distances``. Made for a few queries at a time: 20,000 rows of 2,688 numbers take some
    30 ms each on two cores.
    """
    distances_qg = queries_qd.new_empty(len(queries_qd), len(gallery), dtype=torch.float64)
    for span in spans(len(gallery), block_rows(queries_qd.shape[1], queries_qd.device)):
        gallery_gd = select_rows(gallery, span).to(queries_qd)
        for place, query_d in enumerate(queries_qd):
            distances_qg[place, span] = squared_distances(query_d, gallery_gd)
    return distances_qg


def block_rows(length: int, device: torch.device) -> int:
    """How many vectors of a length are best compared with another at once.

    A CPU's cache holds such a block through all of its passes, which makes it four times as fast as a large
    one.
    """
    return max(1, (2**19 if device.type == "cpu" else 2**25) // length)


def _summed_by_halves(sums_nd: Tensor) -> Tensor:
    """Row sums (N,) of (N, D), which is overwritten."""
    # A library's sum may add in another order for another shape or device; elementwise sums cannot.
    while (width := sums_nd.shape[1]) > 1:
        half = width // 2
        folded_nd = sums_nd[:, :half].add_(sums_nd[:, half : 2 * half])
        if width % 2:
            folded_nd[:, 0] += sums_nd[:, -1]
        sums_nd = folded_nd
    return sums_nd[:, 0]


def pair_distances(
    query: Features,
    gallery: Features,
    query_indices: np.ndarray,
    gallery_indices: np.ndarray,
    device: torch.device,
) -> Tensor:
    """Squared distances (P,) of P pairs of images, float64 on the device."""
    dtype = common_dtype(query, gallery)
    distances_p = torch.empty(len(query_indices), dtype=torch.float64, device=device)
    size = max(1, (2**20 if device.type == "cpu" else 2**25) // query.shape[1])
    for span in spans(len(query_indices), size):
        differences_pd = select_rows(query, query_indices[span]).to(
            device, dtype
        )  # a copy: indexing makes one
        differences_pd.sub_(select_rows(gallery, gallery_indices[span]).to(device, dtype))
        distances_p[span] = _summed_by_halves(differences_pd.mul_(differences_pd))
    return distances_p


def float64_device(device: torch.device | str) -> torch.device:
    """The device itself, or the CPU for MPS, which has no float64."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def squared_by_product(first_md: Tensor, second_nd: Tensor) -> Tensor:
    """Squared Euclidean distances (M, N) of rows of float64, by a matrix product.

    Fast and nearly exact; those of ``squared_distances`` are the same on every machine.
    """
    squares_m = (first_md * first_md).sum(1)
    squares_n = (second_nd * second_nd).sum(1)
    squared_mn = torch.addmm(squares_n, first_md, second_nd.T, alpha=-2).add_(squares_m[:, None])
    return squared_mn.clamp_(min=0)


def count_within(
    query: Features,
    gallery: Features,
    thresholds_qm: Tensor,
    *,
    left_out: np.ndarray,
    left_out_pairs: tuple[np.ndarray, np.ndarray],
    device: torch.device,
    block_sizes: tuple[int, int] | None = None,
) -> Tensor:
    """For each query and threshold, the number of gallery images at most that far away: int64 (Q, M).

    ``thresholds_qm``: squared distances, ascending, each row padded with infinity (whose counts mean
    nothing). ``left_out`` (G,) bool marks gallery images that count for no query, ``left_out_pairs`` are
    (query, gallery) indices of further ones that do not count. The gallery is read once, in order.

    The product is allowed an error of 2·√D roundings. That of D roundings of either sign is a random walk
    whose standard deviation is about a third of √D (Higham and Mary 2019, A new approach to probabilistic
    rounding error analysis), and the largest error seen was 0.2·√D.
    """
    query_size, gallery_size = block_sizes or _BLOCK_SIZES.get(device.type, _BLOCK_SIZES["cuda"])
    gallery_size = min(gallery_size, _COLUMNS)
    counts_qm = torch.zeros(thresholds_qm.shape, dtype=torch.int64, device=device)
    # Queries with equally many thresholds stand together, because a block is as wide as its widest query.
    num_thresholds_q = thresholds_qm.isfinite().sum(1).cpu().numpy()
    order = np.argsort(num_thresholds_q, kind="stable")
    order = order[num_thresholds_q[order] > 0]
    blocks = []
    for span in spans(len(order), query_size):
        indices = order[span]
        thresholds_bm = thresholds_qm[indices, : num_thresholds_q[indices[-1]]]
        blocks.append(_query_block(query, indices, thresholds_bm, left_out_pairs, device))
    # Fresh memory for every tile would cost a tenth of the product in page faults.
    size = min(query_size, len(query)) * min(gallery_size, len(gallery))
    products = torch.empty(size, dtype=torch.float32, device=device)
    keys = torch.empty(size, dtype=torch.int32, device=device)
    for span in spans(len(gallery), gallery_size):
        features_gd = select_rows(gallery, span).to(device, torch.float32)
        half_norms_g = _summed_by_halves(features_gd * features_gd) / 2
        norm = float((2 * half_norms_g.max()).sqrt())
        half_norms_g[torch.from_numpy(left_out[span]).to(device)] = math.inf
        for block in blocks:
            shape = len(block.indices), len(features_gd)
            tile_bg = products[: math.prod(shape)].view(shape)
            torch.addmm(half_norms_g, block.features_bd, features_gd.T, alpha=-1, out=tile_bg)
            own = slice(*np.searchsorted(block.own_columns, (span.start, span.stop)))
            tile_bg[block.own_rows[own], block.own_columns[own] - span.start] = math.inf
            counts_bm, doubtful_rows, doubtful_columns = _count_tile(
                block, tile_bg, keys[: math.prod(shape)].view(shape), norm
            )
            indices = torch.from_numpy(block.indices).to(device)
            counts_qm[indices, : counts_bm.shape[1]] += counts_bm
            for part in spans(len(doubtful_rows), 2**15):
                part_rows, columns = doubtful_rows[part], doubtful_columns[part] + span.start
                counts_qm[indices, : counts_bm.shape[1]] += _count_exactly(
                    block, query, gallery, part_rows, columns.cpu().numpy()
                )
    return counts_qm


class _QueryBlock(NamedTuple):
    indices: np.ndarray  # (B,) of these queries
    features_bd: Tensor  # float32
    norms_b: Tensor  # float64
    thresholds_bm: Tensor  # float64, squared, padded with infinity
    own_rows: np.ndarray  # left-out pairs, by ascending gallery index: the row in this block
    own_columns: np.ndarray  # and the gallery index


def _query_block(query, indices, thresholds_bm, left_out_pairs, device) -> _QueryBlock:
    row_of_query = np.full(len(query), -1)
    row_of_query[indices] = np.arange(len(indices))
    own_rows = row_of_query[left_out_pairs[0]]
    own_rows, own_columns = own_rows[own_rows >= 0], left_out_pairs[1][own_rows >= 0]
    by_column = np.argsort(own_columns, kind="stable")
    features_bd = select_rows(query, indices).to(device)
    norms_b = torch.linalg.vector_norm(features_bd.double(), dim=1)
    return _QueryBlock(
        indices, features_bd.float(), norms_b, thresholds_bm, own_rows[by_column], own_columns[by_column]
    )


def _count_tile(
    block: _QueryBlock, tile_bg: Tensor, keys_bg: Tensor, norm: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts (B, M) of the images certainly within, and rows and columns of those that must be measured.

    ``tile_bg`` is ½‖g‖² − q·g, which orders a query's gallery like the distance; it is overwritten. Each
    query's distances are quantised between its extreme thresholds and sorted together with their column
    in one integer: vectorised sorting of short rows costs a tenth of the product, and then every
    threshold is one binary search and the doubtful images stand side by side.
    """
    length, dtype = block.features_bd.shape[1], torch.float64
    products_b = block.norms_b[:, None] * norm
    sums_bm = norm**2 / 2 + block.thresholds_bm
    halves = math.ceil(math.log2(length)) + 4
    error_bm = ROUNDING * ((2 * math.sqrt(length) + 8) * products_b + halves * sums_bm) + TINY
    centre_bm = (block.thresholds_bm - block.norms_b[:, None] ** 2) / 2
    lower_bm, upper_bm = centre_bm - error_bm, centre_bm + error_bm
    lower_bm[block.thresholds_bm.isinf()] = math.inf
    # Two levels below the first band, which then stays above zero even when rounded to float32.
    origin_b = (lower_bm - error_bm)[:, :1]
    width_b = upper_bm.masked_fill(upper_bm.isinf(), -math.inf).amax(1, keepdim=True) - origin_b
    origin_b = (origin_b - width_b * (2 / (_LEVELS - 8))).float()
    scale_b = ((_LEVELS - 8) / width_b).float()
    tile_bg.sub_(origin_b).mul_(scale_b).clamp_(0, _LEVELS - 1)
    keys_bg.copy_(tile_bg)
    columns_g = torch.arange(tile_bg.shape[1], dtype=torch.int32, device=tile_bg.device)
    torch.add(columns_g, keys_bg, alpha=_COLUMNS, out=keys_bg)
    keys_bg = sorted_rows(keys_bg)
    # One level of slack on either side of a doubtful band, for the rounding of the scaling itself.
    first_bm = (((lower_bm - origin_b) * scale_b.to(dtype)).floor() - 1).clamp(0, _LEVELS - 1)
    last_bm = (((upper_bm - origin_b) * scale_b.to(dtype)).floor() + 2).clamp(0, _LEVELS - 1)
    first_bm[:, 1:] = torch.maximum(first_bm[:, 1:], last_bm[:, :-1])  # overlapping bands are joined
    begin_bm = torch.searchsorted(keys_bg, first_bm.to(torch.int32) * _COLUMNS)
    length_bm = torch.searchsorted(keys_bg, last_bm.to(torch.int32) * _COLUMNS) - begin_bm
    counts_bm = begin_bm - (length_bm.cumsum(1) - length_bm)  # doubtful ones before this band are not certain
    band_rows, band_slots = length_bm.nonzero(as_tuple=True)
    lengths = length_bm[band_rows, band_slots]
    ends = lengths.cumsum(0)
    places = torch.arange(int(lengths.sum()), device=tile_bg.device)
    places += (begin_bm[band_rows, band_slots] - ends + lengths).repeat_interleave(lengths)
    doubtful_rows = band_rows.repeat_interleave(lengths)
    return counts_bm, doubtful_rows, (keys_bg[doubtful_rows, places] % _COLUMNS).long()


def _count_exactly(block: _QueryBlock, query, gallery, block_rows: Tensor, columns: np.ndarray) -> Tensor:
    thresholds_bm = block.thresholds_bm
    num_rows, num_thresholds = thresholds_bm.shape
    indices = block.indices[block_rows.cpu().numpy()]
    distances = pair_distances(query, gallery, indices, columns, thresholds_bm.device)
    slots = (thresholds_bm[block_rows] < distances[:, None]).sum(1)
    bins = torch.bincount(
        block_rows * (num_thresholds + 1) + slots, minlength=num_rows * (num_thresholds + 1)
    )
    return bins.view(num_rows, num_thresholds + 1)[:, :-1].cumsum(1)


def sorted_rows(keys_bg: Tensor) -> Tensor:
    """Rows of int32 or float32 in ascending order; on the CPU sorted in place."""
    if keys_bg.device.type == "cpu":
        keys_bg.numpy().sort(axis=1)  # numpy sorts these with vector instructions, torch ten times slower
        return keys_bg
    return keys_bg.sort(dim=1).values


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Matrix products and convolutions in float32 proper, not TF32, bfloat16 or autocast.

    Those err more than the filter of ``count_within`` allows for, and differ from machine to machine.
    """
    backends = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,
        torch.backends.mkldnn.matmul,
        torch.backends.mkldnn.conv,
    )
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
