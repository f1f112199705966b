"""k-reciprocal re-ranking: images that are each other's neighbours count for more than near ones.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. Every
image of query and gallery is encoded by the images that are near it and that it is near to; two images are
alike where their encodings overlap. Nothing here is as large as a matrix over all pairs of images but the
result, because an encoding has some dozens of entries and most pairs share none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from tqdm.auto import tqdm

from reidlib.distances import (
    Features,
    common_dtype,
    full_float32,
    pair_distances,
    rows,
    spans,
)
from reidlib.errors import InputError
from reidlib.ranking import Embeddings, check_pair, chosen_device

_TILE = {"cpu": 1024, "cuda": 8192}  # images whose distances to as many are held at once
_WAITING = 2**24  # candidates kept for later images
_QUERIES, _GALLERY = 512, 2048  # distances of the result computed at once
_SHARED = 2**15  # pairs of overlapping entries looked at together, so that they stay in a cache
_ROUNDING = torch.finfo(torch.float32).eps / 2
_TINY = 1e-30


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
    """Re-ranked distances (Q, G) between queries and gallery, float32 on the CPU, from 0 to 1.

    See ``KReciprocal.fit`` for the arguments and errors, and ``KReciprocal`` for what it costs; the result
    takes 4·Q·G bytes more.
    """
    fitted = KReciprocal.fit(
        query_features, gallery_features, k1=k1, k2=k2, weight=weight, device=device, progress=progress
    )
    distances_qg = torch.empty(fitted.num_queries, fitted.num_gallery)
    blocks = list(spans(fitted.num_queries, _QUERIES))
    for block in tqdm(blocks, desc="re-ranking", unit="block", disable=not progress, leave=False):
        fitted._measure(np.arange(block.start, block.stop), distances_qg[block])
    return distances_qg


@dataclass(frozen=True, eq=False)
class KReciprocal:
    """A query set and a gallery, encoded; gives re-ranked distances of any queries on demand.

    Holds a float32 copy of all N = Q + G features on the device and some dozens of entries (8 bytes each)
    an image for their encodings. ``fit`` needs two such copies more and candidates, some hundred an image.
    It takes half a product of all features with each other, O(N²·D), and O(N·k1²) for the sets; features
    that are all nearly equal (a collapsed model) take minutes and up to 2 GB at Market-1501's size. One
    query's distances then take O(G·D), about five milliseconds at that size.
    """

    images_nd: Tensor  # (N, D + 2) float32: queries, then gallery, about their centre; 1; half the square
    num_queries: int
    largest_q: np.ndarray  # float64, each query's largest squared distance to any image, or 1 if that is 0
    query_encodings: sparse.csr_array  # (Q, N) float32, rows sum to 1
    gallery_encodings: sparse.csc_array  # (G, N) by column: which images have an entry in common
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
    ) -> KReciprocal:
        """Encode (Q, D) and (G, D) features: tensors on any device, arrays or memory maps, left as they are.

        ``k1`` neighbours make a set, ``k2`` neighbours' encodings are averaged (1: none are), ``weight`` is
        λ in (1 − λ)·Jaccard distance + λ·squared Euclidean distance, the latter divided by the query's
        largest over query and gallery together. Numbers above that of the images mean all of them. The
        smaller set of a neighbour has round(k1/2) + 1 images, itself included, a half rounded to even, as
        in the authors' Python; their MATLAB's round((k1+1)/2) is one less for k1 = 3, 7, 11, …

        Neighbours stand by the distances of ``reidlib.distances``, the same on every device, equal ones by
        index, the image itself before its copies. No label is used. Junk and distractor images in the
        gallery are neighbours like others unless the caller leaves them out: the authors' MATLAB keeps
        junk, users of the Python form mostly drop it, and results differ a little. Features (the Pyramid's,
        JLML's) are compared as they are; normalise them first if their model asks for it.

        ``device``: see ``ranking.evaluate``; sets are made on the CPU. Raises InputError for features as
        ``ranking.Embeddings`` does, for unequal lengths, k1 or k2 below 1 and a weight outside 0 to 1.
        """
        for name, value in (("k1", k1), ("k2", k2)):
            if value < 1:
                raise InputError(f"{name}, a number of neighbours, is at least 1", value, "ask for more")
        if not 0 <= weight <= 1:
            raise InputError("weight, the share of the plain distance, is from 0 to 1", weight, "change it")
        query, gallery = _checked(query_features), _checked(gallery_features)
        check_pair(query, gallery)
        device = chosen_device(device, query, gallery)
        dtype = common_dtype(query.features, gallery.features)
        num_queries, num_images = len(query), len(query) + len(gallery)
        with torch.inference_mode(), full_float32(device):
            images_nd = torch.empty(num_images, query.features.shape[1], dtype=dtype, device=device)
            for start, features in ((0, query.features), (num_queries, gallery.features)):
                for span in spans(len(features), 4096):
                    images_nd[start + span.start : start + span.stop] = rows(features, span)
            num_places = min(max(k1 + 1, k2), num_images)
            neighbours_nk, largest_n, centred_nd = _neighbours(images_nd, num_places, progress)
            encodings_nn = _encodings(images_nd, neighbours_nk, largest_n, k1)
        if k2 > 1:
            nearest_nk = neighbours_nk[:, :k2]
            encodings_nn = _relation(nearest_nk, np.float32(1 / nearest_nk.shape[1])) @ encodings_nn
        return cls(
            images_nd=centred_nd,
            num_queries=num_queries,
            largest_q=largest_n[:num_queries],
            query_encodings=encodings_nn[:num_queries],
            gallery_encodings=encodings_nn[num_queries:].tocsc(),
            weight=float(weight),
        )

    @property
    def num_gallery(self) -> int:
        return len(self.images_nd) - self.num_queries

    def distances(self, query_indices: int | Sequence[int] | np.ndarray) -> Tensor:
        """Re-ranked distances (n, G) of n queries to the whole gallery, float32 on the CPU, from 0 to 1.

        Plain distances are products of float32 about the features' centre, whose rounding is that of the
        result. Raises InputError for an index that no query has.
        """
        wanted = np.atleast_1d(np.asarray(query_indices, np.int64))
        if wanted.size and not (wanted.min() >= 0 and wanted.max() < self.num_queries):
            rule = f"query indices run from 0 to {self.num_queries - 1}"
            raise InputError(rule, query_indices, "choose others")
        distances_qg = torch.empty(len(wanted), self.num_gallery)
        self._measure(wanted, distances_qg)
        return distances_qg

    def _measure(self, wanted: np.ndarray, distances_qg: Tensor) -> None:
        device = self.images_nd.device
        _jaccard(self.query_encodings[wanted], self.gallery_encodings, distances_qg.numpy())
        distances_qg *= 1 - self.weight
        scale_q = torch.from_numpy(2 * self.weight / self.largest_q[wanted]).to(device, torch.float32)
        with torch.inference_mode(), full_float32(device):
            queries_qd = _partners(rows(self.images_nd, wanted)) * scale_q[:, None]
            for span in spans(self.num_gallery, _GALLERY):
                images = slice(self.num_queries + span.start, self.num_queries + span.stop)
                distances_qg[:, span] += (queries_qd @ self.images_nd[images].T).cpu()
        distances_qg.clamp_(0, 1)  # above 1 by rounding alone


def _checked(features: Features) -> Embeddings:
    """The features, refused where ``Embeddings`` refuses them; its ids are made up and never looked at."""
    nobody_n = np.ones(np.shape(features)[:1], np.int64)
    return Embeddings(features, nobody_n, nobody_n)


def _neighbours(images_nd: Tensor, num_places: int, progress: bool) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """The nearest images of each (N, places), itself first; its largest squared distance (N,) or 1.

    Also returns the features as ``KReciprocal.images_nd``. Products of them find candidates: all that lie
    within float32's rounding of the last place. Those are measured. A tile of products, small enough for
    a cache, holds the distances of a block to a later one and serves both; what it says of the later waits
    for its turn, unless too much does (of images that are nearly all alike), and then every block is held
    against all.
    """
    num_images, device = len(images_nd), images_nd.device
    tile_size = _TILE.get(device.type, _TILE["cuda"])
    search = _Search(images_nd, num_places, tile_size)
    neighbours_nk = np.empty((num_images, num_places), np.int32)
    blocks = list(spans(num_images, tile_size))
    waiting: list[list[tuple[np.ndarray, ...]]] = [[] for _ in blocks]
    crowded = False
    for number, block in enumerate(tqdm(blocks, desc="neighbours", disable=not progress, leave=False)):
        partners_bd = _partners(search.right_nd[block])
        for other in range(0 if crowded else number, len(blocks)):
            tile_bo = search.tile(partners_bd, blocks[other])
            waiting[number].append(search.candidates(tile_bo, block, blocks[other]))
            if other != number and not crowded:
                waiting[other].append(search.candidates(tile_bo.T, blocks[other], block))
        if not crowded and sum(len(part[0]) for parts in waiting for part in parts) > _WAITING:
            crowded, waiting[number + 1 :] = True, [[] for _ in blocks[number + 1 :]]
            search.least_nk[block.stop :] = math.inf  # later blocks begin anew, and nothing may count twice
        image_p, other_p, half_p = map(np.concatenate, zip(*waiting[number], strict=True))
        waiting[number] = []
        kept = (half_p <= search.limits(block).cpu().numpy()[image_p - block.start]) & (image_p != other_p)
        image_p, other_p = image_p[kept], other_p[kept]
        squared_p = pair_distances(images_nd, images_nd, image_p, other_p, device).cpu().numpy()
        # The image itself goes in front of its copies.
        own_b = np.arange(block.start, block.stop)
        image_p, other_p = np.concatenate([own_b, image_p]), np.concatenate([own_b, other_p])
        order = np.lexsort((other_p, np.concatenate([np.full(len(own_b), -1.0), squared_p]), image_p))
        first_b = np.searchsorted(image_p[order], own_b)
        neighbours_nk[block] = other_p[order][first_b[:, None] + np.arange(num_places)]
    everyone, farthest_n = np.arange(num_images), search.farthest_n.cpu().numpy()
    largest_n = pair_distances(images_nd, images_nd, everyone, farthest_n, device).cpu().numpy()
    return neighbours_nk, np.where(largest_n > 0, largest_n, 1.0), search.right_nd


class _Search:
    """Halved squared distances by float32 products, and how far each image's last place can be."""

    def __init__(self, images_nd: Tensor, num_places: int, tile_size: int):
        num_images, length = images_nd.shape
        centre_d = images_nd.mean(0, dtype=torch.float64).to(images_nd.dtype)
        centred_nd = (images_nd - centre_d).float()
        halves_n1 = (centred_nd * centred_nd).sum(1, keepdim=True) / 2
        ones_n1 = torch.ones_like(halves_n1)
        self.right_nd = torch.cat([centred_nd, ones_n1, halves_n1], dim=1)
        self.norms_n = (2 * halves_n1[:, 0]).sqrt()
        self.longest = self.norms_n.max()
        # Twice the rounding that ``distances.count_within`` allows for: the place's and the candidate's.
        self.rounding = (2 * math.sqrt(length) + 4 * (math.ceil(math.log2(length)) + 8)) * _ROUNDING
        # The least of each of several groups of images: the largest of them bounds the last place from above.
        self.least_nk = images_nd.new_full((num_images, num_places), math.inf, dtype=torch.float32)
        self.largest_n = torch.full_like(self.norms_n, -math.inf)
        self.memory = self.norms_n.new_empty(min(num_images, tile_size) ** 2)
        self.farthest_n = torch.zeros(num_images, dtype=torch.int64, device=images_nd.device)

    def tile(self, partners_bd: Tensor, other: slice) -> Tensor:
        """Halved squared distances (B, O) of two blocks, in memory that the next tile overwrites."""
        shape = len(partners_bd), other.stop - other.start
        tile_bo = self.memory[: math.prod(shape)].view(shape)
        return torch.mm(partners_bd, self.right_nd[other].T, out=tile_bo)

    def limits(self, block: slice) -> Tensor:
        """Up to which halved squared distance an image may be among the nearest, as far as is known."""
        last_b, norms_b = self.least_nk[block, -1], self.norms_n[block]
        reach_b = torch.minimum(self.longest, 2 * (norms_b + (2 * last_b).clamp(min=0).sqrt()))
        return last_b + self.rounding * (norms_b + reach_b) ** 2 + _TINY

    def candidates(self, tile_bo: Tensor, block: slice, other: slice) -> tuple[np.ndarray, ...]:
        """Images of a block, those of another that may be near them, and how far; learns from the tile."""
        least_bm = tile_bo
        while least_bm.shape[1] >= 4 * self.least_nk.shape[1]:  # so that groups outnumber the places
            half = least_bm.shape[1] // 2
            least_bm = torch.minimum(least_bm[:, :half], least_bm[:, half : 2 * half])
        least_bm = torch.cat([self.least_nk[block], least_bm], dim=1)
        self.least_nk[block] = least_bm.topk(self.least_nk.shape[1], dim=1, largest=False).values
        largest_b = tile_bo.amax(1)
        farther_f = (largest_b > self.largest_n[block]).nonzero()[:, 0]
        self.largest_n[block.start + farther_f] = largest_b[farther_f]
        self.farthest_n[block.start + farther_f] = tile_bo[farther_f].argmax(1) + other.start
        near_bo = (tile_bo <= self.limits(block)[:, None]).cpu().numpy()
        near_bo, flipped = (near_bo, False) if near_bo.flags.c_contiguous else (near_bo.T, True)
        places_p = np.flatnonzero(near_bo)
        row_p, column_p = np.divmod(places_p, near_bo.shape[1])
        if flipped:
            row_p, column_p = column_p, row_p
        half_p = tile_bo[torch.from_numpy(row_p), torch.from_numpy(column_p)].cpu().numpy()
        return row_p + block.start, column_p + other.start, half_p


def _partners(images_nd: Tensor) -> Tensor:
    """Rows (−a, ½‖a‖², 1) for rows (a, 1, ½‖a‖²): one times another's is ½‖a − b‖² = ½‖a‖² + ½‖b‖² − a·b."""
    return torch.cat([-images_nd[:, :-2], images_nd[:, -1:], images_nd[:, -2:-1]], dim=1)


def _encodings(
    images_nd: Tensor, neighbours_nk: np.ndarray, largest_n: np.ndarray, k1: int
) -> sparse.csr_array:
    """Each image's encoding (N, N): exp(−d) over its expanded reciprocal set, divided by its sum."""
    reciprocal_nn = _reciprocal(neighbours_nk[:, : k1 + 1])
    halves_nn = _reciprocal(neighbours_nk[:, : round(k1 / 2) + 1])
    size_n = np.diff(halves_nn.indptr)
    # Images j of i's set with how many of j's smaller set are in i's; it joins if they exceed two thirds.
    shared_nn = (reciprocal_nn @ halves_nn.T).multiply(reciprocal_nn).tocsr()
    shared_nn.data = (3 * shared_nn.data > 2 * size_n[shared_nn.indices]).astype(np.float32)
    shared_nn.eliminate_zeros()
    expanded_nn = (reciprocal_nn + shared_nn @ halves_nn).tocsr()
    image_p = np.repeat(np.arange(len(images_nd)), np.diff(expanded_nn.indptr))
    squared_p = pair_distances(images_nd, images_nd, image_p, expanded_nn.indices, images_nd.device)
    entries_p = np.exp(-squared_p.cpu().numpy() / largest_n[image_p])
    entries_p /= np.bincount(image_p, entries_p)[image_p]  # no set is empty: it holds the image itself
    return sparse.csr_array(
        (entries_p.astype(np.float32), expanded_nn.indices, expanded_nn.indptr), expanded_nn.shape
    )


def _relation(images_nk: np.ndarray, value: np.float32) -> sparse.csr_array:
    """(N, N) with a value where an image is listed."""
    num_images, num_places = images_nk.shape
    ends = np.arange(0, images_nk.size + 1, num_places, dtype=np.int64)
    entries = np.full(images_nk.size, value)
    return sparse.csr_array((entries, images_nk.ravel(), ends), (num_images, num_images))


def _reciprocal(neighbours_nk: np.ndarray) -> sparse.csr_array:
    """(N, N) with 1 where two images list each other."""
    listed_nn = _relation(neighbours_nk, np.float32(1))
    return listed_nn.multiply(listed_nn.T.tocsr()).tocsr()


def _jaccard(query_qn: sparse.csr_array, gallery_gn: sparse.csc_array, distances_qg: np.ndarray) -> None:
    """Write Jaccard distances of encodings that sum to 1: 1 − S/(2 − S), where S is their common part."""
    num_queries, num_gallery = query_qn.shape[0], gallery_gn.shape[0]
    # Each entry of a query meets all gallery entries of its column; a few queries' meetings at a time.
    length_e = np.diff(gallery_gn.indptr)[query_qn.indices].astype(np.int64)
    ends_e = length_e.cumsum()
    before_q = np.concatenate([[0], ends_e])[query_qn.indptr]
    start = 0
    while start < num_queries:
        stop = max(start + 1, int(np.searchsorted(before_q, before_q[start] + _SHARED, "right")) - 1)
        entries = slice(query_qn.indptr[start], query_qn.indptr[stop])
        length, columns = length_e[entries], query_qn.indices[entries]
        row = np.repeat(np.arange(stop - start), np.diff(query_qn.indptr[start : stop + 1]))
        begins = gallery_gn.indptr[columns] - (ends_e[entries] - length - before_q[start])
        places_s = np.arange(length.sum()) + begins.repeat(length)
        common_s = np.minimum(query_qn.data[entries].repeat(length), gallery_gn.data[places_s])
        cells_s = (row * num_gallery).repeat(length) + gallery_gn.indices[places_s]
        common_qg = np.bincount(cells_s, common_s, minlength=(stop - start) * num_gallery)
        common_qg = common_qg.reshape(stop - start, num_gallery)
        distances_qg[start:stop] = 1 - common_qg / (2 - common_qg)
        start = stop
