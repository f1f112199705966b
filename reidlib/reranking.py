"""k-reciprocal re-ranking: images that are each other's neighbours count for more than near ones.

Zhong, Zheng, Cao and Li, "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017. Every
image of query and gallery is encoded by the images that are near it and that it is near to; two images are
alike where their encodings overlap. Nothing here is as large as a matrix over all pairs of images but the
result, because an encoding has some dozens of entries and most pairs share none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from reidlib.errors import InputError
from reidlib.progress import progress_bar
from reidlib.ranking.distances import Features, common_dtype, full_float32, pair_distances, select_rows, spans
from reidlib.ranking.metrics import Embeddings, check_pair, chosen_device
from reidlib.ranking.neighbours import Keeper, Neighbours, as_partners, nearest_neighbours
from reidlib.threads import side_by_side

_QUERIES, _GALLERY = 512, 2048  # distances of the result computed at once
_MEASURED = 2**16  # pairs of images that a thread measures at once
_SHARED = 2**15  # pairs of overlapping entries looked at together, so that they stay in a cache


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
    # ``fit`` refuses what has no length.
    distances_qg = torch.empty(*np.shape(query_features)[:1], *np.shape(gallery_features)[:1])

    def keep(tile_bo: Tensor, block: slice, other: slice) -> None:
        num_queries = len(distances_qg)
        last, first = min(block.stop, num_queries), max(other.start, num_queries)
        if block.start < last and first < other.stop:
            columns = slice(first - num_queries, other.stop - num_queries)
            part = tile_bo[: last - block.start, first - other.start :]
            distances_qg[block.start : last, columns] = part.cpu()

    # The search for neighbours measures every query and gallery image; here its products are not done twice.
    fitted = KReciprocal.fit(
        query_features,
        gallery_features,
        k1=k1,
        k2=k2,
        weight=weight,
        device=device,
        progress=progress,
        keep=keep,
    )
    blocks = list(spans(fitted.num_queries, _QUERIES))

    def measure(block: slice) -> None:
        distances_qg[block] *= torch.from_numpy(fitted._scales(block))[:, None]
        fitted._add_jaccard(block, distances_qg[block])

    with side_by_side(torch.device("cpu")) as each:
        done = each(measure, blocks)
        list(progress_bar(done, "re-ranking", len(blocks), unit="block", disable=not progress, leave=False))
    return distances_qg


@dataclass(frozen=True, eq=False)
class KReciprocal:
    """A query set and a gallery, encoded; gives re-ranked distances of any queries on demand.

    Holds a float32 copy of all N = Q + G features on the device and some dozens of entries (8 bytes each)
    an image for their encodings. ``fit`` needs two such copies more, candidates, some hundred an image, and
    for each thread a tile of 4 MB.
    It takes half a product of all features with each other, O(N²·D), and O(N·k1²) for the sets; features
    that are all nearly equal (a collapsed model) take minutes and up to 2 GB at Market-1501's size. One
    query's distances then take O(G·D), some milliseconds at that size and D = 512. A larger k1 takes memory
    as its square.
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
        keep: Keeper | None = None,
    ) -> KReciprocal:
        """Encode (Q, D) and (G, D) features: tensors on any device, arrays or memory maps, left as they are.

        ``k1`` neighbours make a set, ``k2`` neighbours' encodings are averaged (1: none are), ``weight`` is
        λ in (1 − λ)·Jaccard distance + λ·squared Euclidean distance, the latter divided by the query's
        largest over query and gallery together. Numbers above that of the images mean all of them. The
        smaller set of a neighbour has round(k1/2) + 1 images, itself included, a half rounded to even, as
        in the authors' Python; their MATLAB's round((k1+1)/2) is one less for k1 = 3, 7, 11, …

        Neighbours stand by the distances of ``ranking.distances``, the same on every device, equal ones by
        index, the image itself before its copies. No label is used. Junk and distractor images in the
        gallery are neighbours like others unless the caller leaves them out: the authors' MATLAB keeps
        junk, users of the Python form mostly drop it, and results differ a little. Features (the Pyramid's,
        JLML's) are compared as they are; normalise them first if their model asks for it.

        ``device``: see ``ranking.evaluate``; sets are made on the CPU. ``keep``: see ``nearest_neighbours``.
        Raises InputError for features as ``ranking.Embeddings`` does, for unequal lengths, k1 or k2
        below 1 and a weight outside 0 to 1.
        """
        for name, value in (("k1", k1), ("k2", k2)):
            if not isinstance(value, (int, np.integer)) or value < 1:
                rule = f"{name}, a whole number of neighbours, is at least 1"
                raise InputError(rule, repr(value), "change it")
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
                    images_nd[start + span.start : start + span.stop] = select_rows(features, span)
            num_places = min(max(k1 + 1, k2), num_images)
            neighbours = nearest_neighbours(images_nd, num_places, progress=progress, keep=keep)
            encodings_nn = _encodings(images_nd, neighbours, k1)
        if k2 > 1:
            nearest_nk = neighbours.images_nk[:, :k2]
            encodings_nn = _relation(nearest_nk, np.float32(1 / nearest_nk.shape[1])) @ encodings_nn
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
        device = self.images_nd.device
        with torch.inference_mode(), full_float32(device):
            scale_q = torch.from_numpy(self._scales(wanted)).to(device)
            queries_qd = as_partners(select_rows(self.images_nd, wanted)) * scale_q[:, None]
            for span in spans(self.num_gallery, _GALLERY):
                images = slice(self.num_queries + span.start, self.num_queries + span.stop)
                distances_qg[:, span] = (queries_qd @ self.images_nd[images].T).cpu()
        self._add_jaccard(wanted, distances_qg)
        return distances_qg

    def _scales(self, wanted: slice | np.ndarray) -> np.ndarray:
        """What a query's halved squared distances are multiplied by, float32."""
        return (2 * self.weight / self.largest_q[wanted]).astype(np.float32)

    def _add_jaccard(self, wanted: slice | np.ndarray, distances_qg: Tensor) -> None:
        """Add their share of Jaccard distances 1 − S/(2 − S): encodings sum to 1, and have S in common."""
        query_qn, gallery_gn = self.query_encodings[wanted], self.gallery_encodings
        num_queries, num_gallery = distances_qg.shape
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
            distances_qg.numpy()[start:stop] += (1 - self.weight) * (1 - common_qg / (2 - common_qg))
            start = stop
        distances_qg.clamp_(0, 1)  # above 1, and below 0, by rounding alone


def _checked(features: Features) -> Embeddings:
    """The features, refused where ``Embeddings`` refuses them; its ids are made up and never looked at."""
    nobody_n = np.ones(np.shape(features)[:1], np.int64)
    return Embeddings(features, nobody_n, nobody_n)


def _encodings(images_nd: Tensor, neighbours: Neighbours, k1: int) -> sparse.csr_array:
    """Each image's encoding (N, N): exp(−d) over its expanded reciprocal set, divided by its sum."""
    reciprocal_nn = _reciprocal(neighbours.images_nk[:, : k1 + 1])
    halves_nn = _reciprocal(neighbours.images_nk[:, : round(k1 / 2) + 1])
    size_n = np.diff(halves_nn.indptr)
    # Images j of i's set with how many of j's smaller set are in i's; it joins if they exceed two thirds.
    shared_nn = (reciprocal_nn @ halves_nn.T).multiply(reciprocal_nn).tocsr()
    shared_nn.data = (3 * shared_nn.data > 2 * size_n[shared_nn.indices]).astype(np.float32)
    shared_nn.eliminate_zeros()
    expanded_nn = (reciprocal_nn + shared_nn @ halves_nn).tocsr()
    image_p = np.repeat(np.arange(len(images_nd)), np.diff(expanded_nn.indptr))

    def measured(span: slice) -> np.ndarray:
        pair = image_p[span], expanded_nn.indices[span]
        with torch.inference_mode():
            return pair_distances(images_nd, images_nd, *pair, images_nd.device).cpu().numpy()

    with side_by_side(images_nd.device) as each:
        squared_p = np.concatenate(list(each(measured, spans(len(image_p), _MEASURED))))
    entries_p = np.exp(-squared_p / neighbours.largest_n[image_p])
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
