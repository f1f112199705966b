"""Euclidean distances that are equal on every device, and counts of the images within a distance.

A distance is computed by differences, squares and pairwise summation, all elementwise IEEE operations. Two
vectors therefore have the same distance, bit for bit, at every position in their set, in blocks of any size
and on every device, and copies of an image tie exactly. A matrix product guarantees none of this, because
its rounding depends on the shape and place of a tile, but it is a hundred times faster. It serves as a
filter: only images whose product lies within its rounding error of a threshold are measured exactly.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.threads import parallel_map

Features = Tensor | np.ndarray

# An int32 key holds a quantised distance and a column. The levels are exact in float32.
_LEVELS, _COLUMNS = 2**20, 2**11
ROUNDING = torch.finfo(torch.float32).eps / 2
TINY = 1e-30  # keeps scales finite if all features are zero
_BLOCK_SIZES = {"cpu": (512, 2048), "cuda": (8192, 2048)}  # queries, gallery; a CPU's cache holds one tile


def spans(length: int, size: int) -> Iterator[slice]:
    """Split ``range(length)`` into slices of at most ``size``."""
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def select_rows(features: Features, indices: slice | np.ndarray) -> Tensor:
    """Return some rows of a feature array as a tensor, on its device or (numpy, memmap) in memory."""
    if isinstance(features, Tensor):
        if isinstance(indices, slice):
            return features[indices]
        return features.index_select(0, torch.from_numpy(indices).to(features.device))
    return torch.from_numpy(np.array(features[indices]))  # a copy: a memmap may be read-only


def common_dtype(query: Features, gallery: Features) -> torch.dtype:
    """Return the type in which distances are computed: float64 if either side has it, else float32."""
    types = (select_rows(side, slice(0, 0)).dtype for side in (query, gallery))
    return torch.promote_types(torch.promote_types(*types), torch.float32)


def middle(query: Features, gallery: Features, device: torch.device) -> Tensor:
    """Return a point (D,) amid the queries, for ``rows_from``; the type is that of distances."""
    # Rounding grows with the length of vectors, and a weak network's features are long and nearly equal. From
    # here they are short, so few are within rounding of a limit. The median ignores stray images.
    rows = np.linspace(0, len(query) - 1, min(len(query), 16)).astype(np.int64)
    features_sd = select_rows(query, rows).to(device, common_dtype(query, gallery))
    return features_sd.sort(dim=0).values[len(rows) // 2]


def rows_from(middle_d: Tensor, features: Features, indices: slice | np.ndarray) -> Tensor:
    """Return some rows of a feature array less a point, on the point's device."""
    if isinstance(features, Tensor):
        return select_rows(features, indices).to(middle_d.device) - middle_d
    # Copied and reduced in one pass.
    return torch.from_numpy(features[indices] - middle_d.cpu().numpy()).to(middle_d.device)


def squared_distances(first_nd: Tensor, second_nd: Tensor) -> Tensor:
    """Compute squared Euclidean distances (N,) between corresponding rows; ``first_nd`` may be one row."""
    differences_nd = first_nd - second_nd
    return _pairwise_sums(differences_nd.mul_(differences_nd))


def squared_distances_to_all(queries_qd: Tensor, gallery: Features) -> Tensor:
    """Compute squared distances (Q, G) of a few queries to the gallery, float64 on the queries' device."""
    # For 20,000 images and D = 2,688, each query takes 30 ms on two cores.
    distances_qg = queries_qd.new_empty(len(queries_qd), len(gallery), dtype=torch.float64)
    for span in spans(len(gallery), rows_per_block(queries_qd.shape[1], queries_qd.device)):
        gallery_gd = select_rows(gallery, span).to(queries_qd)
        for row, query_d in enumerate(queries_qd):
            distances_qg[row, span] = squared_distances(query_d, gallery_gd)
    return distances_qg


def rows_per_block(length: int, device: torch.device) -> int:
    """Return how many vectors of a length are best compared with one vector at once."""
    # A CPU's cache holds such a block through all passes, which is four times as fast as a large block.
    return max(1, (2**19 if device.type == "cpu" else 2**25) // length)


def _pairwise_sums(sums_nd: Tensor) -> Tensor:
    """Return the row sums (N,) of (N, D), which is overwritten."""
    # The order of a library's sum depends on shape and device; that of elementwise sums does not.
    while (width := sums_nd.shape[1]) > 1:
        half = width // 2
        folded_nd = sums_nd[:, :half].add_(sums_nd[:, half : 2 * half])
        if width % 2:
            folded_nd[:, 0] += sums_nd[:, -1]
        sums_nd = folded_nd
    return sums_nd[:, 0]


def squared_pair_distances(
    query: Features,
    gallery: Features,
    query_indices: np.ndarray,
    gallery_indices: np.ndarray,
    device: torch.device,
) -> Tensor:
    """Compute squared Euclidean distances (P,) of P pairs of images, float64 on the device."""
    dtype = common_dtype(query, gallery)
    distances_p = torch.empty(len(query_indices), dtype=torch.float64, device=device)
    size = max(1, (2**20 if device.type == "cpu" else 2**25) // query.shape[1])
    for span in spans(len(query_indices), size):
        # Indexing makes a copy, which may be overwritten.
        differences_pd = select_rows(query, query_indices[span]).to(device, dtype)
        differences_pd.sub_(select_rows(gallery, gallery_indices[span]).to(device, dtype))
        distances_p[span] = _pairwise_sums(differences_pd.mul_(differences_pd))
    return distances_p


def float64_device(device: torch.device | str) -> torch.device:
    """Return the device, or the CPU for MPS, which has no float64."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def float32_products(first_md: Tensor, second_nd: Tensor) -> Tensor:
    """Compute the products (M, N) of all pairs of float32 rows within ``full_float32``."""
    # On a CPU with AVX-512 that is not Intel's, oneDNN is twice as fast as the library behind ``torch.mm``.
    if (
        first_md.device.type == "cpu"
        and first_md.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
    ):
        # ``functional.linear`` of ``to_mkldnn`` is public, but each tile's copies cost 2,000 page faults.
        # For columns of a wider matrix, such as one branch's, oneDNN has only a thousand times slower code.
        return torch.ops.mkldnn._linear_pointwise(first_md, second_nd.contiguous(), None, "none", [], "")
    return first_md @ second_nd.T


def squared_distances_by_product(first_md: Tensor, second_nd: Tensor) -> Tensor:
    """Compute squared Euclidean distances (M, N) of all pairs of float64 rows by a matrix product."""
    # This is fast, but the last bits differ between machines; those of ``squared_distances`` do not.
    squares_m = (first_md * first_md).sum(1)
    squares_n = (second_nd * second_nd).sum(1)
    squared_mn = torch.addmm(squares_n, first_md, second_nd.T, alpha=-2).add_(squares_m[:, None])
    return squared_mn.clamp_(min=0)


def count_within(
    query: Features,
    gallery: Features,
    thresholds_qm: Tensor,
    *,
    excluded: np.ndarray,
    excluded_pairs: tuple[np.ndarray, np.ndarray],
    device: torch.device,
    block_sizes: tuple[int, int] | None = None,
) -> Tensor:
    """Count, for each query and threshold, the gallery images within that distance: int64 (Q, M)."""
    # Thresholds are squared distances, each row ascending and padded with infinity (its counts mean nothing).
    # ``excluded`` (G,) marks gallery images that count for no query; ``excluded_pairs`` are (query, gallery)
    # indices of further pairs that do not count. The gallery is read once, in order.
    query_size, gallery_size = block_sizes or _BLOCK_SIZES.get(device.type, _BLOCK_SIZES["cuda"])
    # Equally many equally large blocks for each thread.
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    num_blocks = math.ceil(len(gallery) / min(gallery_size, _COLUMNS) / threads) * threads
    gallery_size = math.ceil(len(gallery) / num_blocks)
    counts_qm = torch.zeros(thresholds_qm.shape, dtype=torch.int64, device=device)
    # A block is as wide as its widest query, so queries with equally many thresholds form blocks.
    num_thresholds_q = thresholds_qm.isfinite().sum(1).cpu().numpy()
    order = np.argsort(num_thresholds_q, kind="stable")
    order = order[num_thresholds_q[order] > 0]
    blocks, middle_d = [], middle(query, gallery, device)
    for span in spans(len(order), query_size):
        indices = order[span]
        thresholds_bm = thresholds_qm[indices, : num_thresholds_q[indices[-1]]]
        blocks.append(_query_block(query, indices, thresholds_bm, excluded_pairs, middle_d))
    # One core computes one tile, from its product to its counts. Cores that shared each operation would wait
    # for the slowest a thousand times, and numpy sorts on one of them.
    memories: list[tuple[Tensor, Tensor]] = []  # for tiles: new memory would cost page faults
    lock = threading.Lock()

    @torch.inference_mode()
    def count(span: slice) -> None:
        features_gd = rows_from(middle_d, gallery, span).float()
        half_norms_g = _pairwise_sums(features_gd * features_gd) / 2
        norm = float((2 * half_norms_g.max()).sqrt())
        half_norms_g[torch.from_numpy(excluded[span]).to(device)] = math.inf
        try:
            products, keys = memories.pop()
        except IndexError:  # more tiles at once than before
            size = min(query_size, len(query)) * gallery_size
            products = torch.empty(size, dtype=torch.float32, device=device)
            keys = torch.empty(size, dtype=torch.int32, device=device)
        for block in blocks:
            shape = len(block.indices), len(features_gd)
            tile_bg = products[: math.prod(shape)].view(shape)
            torch.sub(half_norms_g, float32_products(block.features_bd, features_gd), out=tile_bg)
            pairs = slice(*np.searchsorted(block.excluded_columns, (span.start, span.stop)))
            rows, columns = block.excluded_rows[pairs], block.excluded_columns[pairs]
            tile_bg[rows, columns - span.start] = math.inf
            counts_bm, doubtful_rows, doubtful_columns = _count_tile(
                block, tile_bg, keys[: math.prod(shape)].view(shape), norm
            )
            for doubtful in spans(len(doubtful_rows), 2**15):
                columns = (doubtful_columns[doubtful] + span.start).cpu().numpy()
                counts_bm += _count_exactly(block, query, gallery, doubtful_rows[doubtful], columns)
            with lock:
                counts_qm[block.rows_b, : counts_bm.shape[1]] += counts_bm
        memories.append((products, keys))

    with parallel_map(device) as each:
        list(each(count, spans(len(gallery), gallery_size)))
    return counts_qm


class _QueryBlock(NamedTuple):
    indices: np.ndarray  # (B,) indices of the queries
    rows_b: Tensor  # the same, on the device
    features_bd: Tensor  # float32, less the middle of the queries, like the gallery's
    norms_b: Tensor  # float64
    thresholds_bm: Tensor  # float64, squared, padded with infinity
    excluded_rows: np.ndarray  # excluded pairs by ascending gallery index: row in this block
    excluded_columns: np.ndarray  # and gallery index


def _query_block(query, indices, thresholds_bm, excluded_pairs, middle_d: Tensor) -> _QueryBlock:
    row_by_query = np.full(len(query), -1)
    row_by_query[indices] = np.arange(len(indices))
    rows = row_by_query[excluded_pairs[0]]
    rows, columns = rows[rows >= 0], excluded_pairs[1][rows >= 0]
    by_column = np.argsort(columns, kind="stable")
    features_bd = rows_from(middle_d, query, indices)
    norms_b = torch.linalg.vector_norm(features_bd.double(), dim=1)
    rows_b = torch.from_numpy(indices).to(middle_d.device)
    return _QueryBlock(
        indices, rows_b, features_bd.float(), norms_b, thresholds_bm, rows[by_column], columns[by_column]
    )


def _count_tile(
    block: _QueryBlock, tile_bg: Tensor, keys_bg: Tensor, norm: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return counts (B, M) of the images surely within, and rows and columns of the images to measure."""
    # ``tile_bg`` is ½‖g‖² − q·g, which orders a query's gallery like the distance; it is overwritten. A
    # query's distances are quantised between its extreme thresholds and sorted together with their columns as
    # one integer. Vectorised sorting of short rows costs a tenth of the product. Each threshold is then one
    # binary search, and the doubtful images are neighbours.
    # The product is allowed an error of 2·√D roundings. The error of D roundings of either sign is a random
    # walk with a standard deviation of about √D/3 (Higham and Mary 2019, A new approach to probabilistic
    # rounding error analysis); the largest observed error was 0.2·√D.
    length, dtype = block.features_bd.shape[1], torch.float64
    products_b = block.norms_b[:, None] * norm
    sums_bm = norm**2 / 2 + block.thresholds_bm
    halves = math.ceil(math.log2(length)) + 4
    error_bm = ROUNDING * ((2 * math.sqrt(length) + 8) * products_b + halves * sums_bm) + TINY
    centre_bm = (block.thresholds_bm - block.norms_b[:, None] ** 2) / 2
    lower_bm, upper_bm = centre_bm - error_bm, centre_bm + error_bm
    lower_bm[block.thresholds_bm.isinf()] = math.inf
    # Two levels below the first band, so that it stays above zero when rounded to float32.
    origin_b = (lower_bm - error_bm)[:, :1]
    width_b = upper_bm.masked_fill(upper_bm.isinf(), -math.inf).amax(1, keepdim=True) - origin_b
    origin_b = (origin_b - width_b * (2 / (_LEVELS - 8))).float()
    scale_b = ((_LEVELS - 8) / width_b).float()
    tile_bg.sub_(origin_b).mul_(scale_b).clamp_(0, _LEVELS - 1)
    keys_bg.copy_(tile_bg)
    columns_g = torch.arange(tile_bg.shape[1], dtype=torch.int32, device=tile_bg.device)
    torch.add(columns_g, keys_bg, alpha=_COLUMNS, out=keys_bg)
    keys_bg = sorted_rows(keys_bg)
    # One level of slack on each side of a doubtful band covers the rounding of the scaling.
    first_bm = (((lower_bm - origin_b) * scale_b.to(dtype)).floor() - 1).clamp(0, _LEVELS - 1)
    last_bm = (((upper_bm - origin_b) * scale_b.to(dtype)).floor() + 2).clamp(0, _LEVELS - 1)
    first_bm[:, 1:] = torch.maximum(first_bm[:, 1:], last_bm[:, :-1])  # merge overlapping bands
    begin_bm = torch.searchsorted(keys_bg, first_bm.to(torch.int32) * _COLUMNS)
    length_bm = torch.searchsorted(keys_bg, last_bm.to(torch.int32) * _COLUMNS) - begin_bm
    counts_bm = begin_bm - (length_bm.cumsum(1) - length_bm)  # minus doubtful images before this band
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
    distances = squared_pair_distances(query, gallery, indices, columns, thresholds_bm.device)
    slots = (thresholds_bm[block_rows] < distances[:, None]).sum(1)
    bins = torch.bincount(
        block_rows * (num_thresholds + 1) + slots, minlength=num_rows * (num_thresholds + 1)
    )
    return bins.view(num_rows, num_thresholds + 1)[:, :-1].cumsum(1)


def pairs_within(
    pairs: tuple[np.ndarray, np.ndarray] | None, block: slice, span: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns, within a block, of the (query, gallery) pairs that are in it."""
    if pairs is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    queries, images = pairs
    inside = (queries >= block.start) & (queries < block.stop) & (images >= span.start) & (images < span.stop)
    return queries[inside] - block.start, images[inside] - span.start


def sorted_rows(keys_bg: Tensor) -> Tensor:
    """Sort rows of int32 or float32 in ascending order, on the CPU in place."""
    if keys_bg.device.type == "cpu":
        keys_bg.numpy().sort(axis=1)  # numpy's vectorised sort is ten times as fast as torch's
        return keys_bg
    return keys_bg.sort(dim=1).values


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Compute matrix products and convolutions in true float32 within the context, without autocast."""
    # TF32 and bfloat16 exceed the error that ``count_within`` allows, and differ between machines.
    names = ("cuda.matmul", "cudnn.conv", "mkldnn.matmul", "mkldnn.conv")
    backends = attrgetter(*names)(torch.backends)
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
