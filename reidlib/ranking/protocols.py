"""Single-shot and multi-shot scores, in which the gallery has one entry for each person.

``evaluate`` ranks all images, as on Market-1501. Here an entry is one image of a person, drawn at random
(single-shot), or all images of a person (multi-shot). CUHK01, CUHK03, GRID and VIPeR use these protocols. The
CMC is the only score, because a query has exactly one match.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch

from reidlib.data.benchmark import Protocol
from reidlib.data.rules import DISTRACTOR, is_match
from reidlib.errors import InputError, check_choice, shorten
from reidlib.ranking.distances import (
    common_dtype,
    count_within,
    full_float32,
    select_rows,
    squared_distances_to_all,
    squared_pair_distances,
)
from reidlib.ranking.metrics import Embeddings, check_pair, check_scoring, no_match_error, working_device

_MEAN_ROUNDING = 1e-12  # relative; well above the rounding of a mean, well below that of a distance


class ProtocolScores(NamedTuple):
    """Scores of a protocol, as means over draws and over the queries with a match.

    A query is one image in single-shot scores, and all images of a person in one camera in multi-shot scores.

    Attributes:
        cmc: For each rank, the share of queries whose match is at that rank or before.
        cmc_per_draw: For each rank, the same for each random gallery; multi-shot has one gallery.
        num_queries: Number of queries in the protocol's query cameras (Q).
        num_valid_queries: Number of queries with a match.
        gallery_size: Fewest and most entries that a query is compared with.
        person_ids: Person of each query (Q,), int64.
        rank1_per_query: Share of draws with the match at rank 1 (Q,), float64; NaN without a match.
    """

    cmc: dict[int, float]
    cmc_per_draw: dict[int, tuple[float, ...]]
    num_queries: int
    num_valid_queries: int
    gallery_size: tuple[int, int]
    person_ids: np.ndarray
    rank1_per_query: np.ndarray

    def to_dict(self) -> dict:
        """Return the scores as JSON values: None for NaN, text for the ranks."""
        return self._asdict() | {
            "cmc": {str(rank): share for rank, share in self.cmc.items()},
            "cmc_per_draw": {str(rank): list(shares) for rank, shares in self.cmc_per_draw.items()},
            "gallery_size": list(self.gallery_size),
            "person_ids": self.person_ids.tolist(),
            "rank1_per_query": [None if math.isnan(v) else v for v in self.rank1_per_query.tolist()],
        }

    @classmethod
    def from_dict(cls, values: Mapping) -> ProtocolScores:
        """Read scores that ``to_dict`` wrote; raise InputError if a field is missing."""
        if missing := [name for name in cls._fields if name not in values]:
            raise InputError("a protocol's scores are complete", f"no {', '.join(missing)}", "evaluate again")
        return cls(
            cmc={int(rank): share for rank, share in values["cmc"].items()},
            cmc_per_draw={int(rank): tuple(shares) for rank, shares in values["cmc_per_draw"].items()},
            num_queries=values["num_queries"],
            num_valid_queries=values["num_valid_queries"],
            gallery_size=tuple(values["gallery_size"]),
            person_ids=np.array(values["person_ids"], np.int64),
            rank1_per_query=np.array(values["rank1_per_query"], np.float64),  # None becomes NaN
        )


def evaluate_protocol(
    query: Embeddings,
    gallery: Embeddings,
    protocol: Protocol,
    *,
    ranks: Sequence[int] = (1, 5, 10, 20),
    seed: int = 0,
    average_of: Literal["distance", "squared"] = "distance",
    device: torch.device | str | None = None,
    block_sizes: tuple[int, int] | None = None,
) -> ProtocolScores:
    """Compute single-shot or multi-shot CMC by Euclidean distance.

    The match is made of gallery images of the query's person from other cameras. Other persons are compared
    by their images from other cameras or, without ``protocol.across_cameras``, by all their images (as
    torchreid scores CUHK03). Each distractor (person 0) is one entry under the same rule. Junk (−1) does not
    count. At equal distances, or means within 1e-12, wrong entries rank before the match.

    Single-shot: each of ``protocol.draws`` galleries has one image of each person, the same for all queries
    of a camera. The draw depends only on the seed and on the order of the images of each person in each
    camera, so it is the same on every machine and for any set of persons.

    Multi-shot: a query is all images of a person in a camera, an entry is all allowed images of a person, and
    their distance is the mean over all pairs of their images.

    Args:
        query, gallery: Features (Q, D) and (G, D), persons and cameras; they may be the same images.
        protocol: Shots, draws and cameras.
        ranks: Ranks of the CMC, from 1. They may exceed the gallery.
        seed: Seed of the draws.
        average_of: Multi-shot: the mean of the Euclidean "distance", or of the "squared" distance as in the
            code of GOG. Papers rarely state which.
        device, block_sizes: See ``evaluate``.

    Returns:
        The scores. Queries without a match are counted but do not enter the means.

    Raises:
        InputError: As for ``evaluate``, or if the query cameras have no query.
    """
    check_scoring(ranks, block_sizes=block_sizes)
    check_choice('average_of is "distance" or "squared"', average_of, ("distance", "squared"))
    check_pair(query, gallery)
    selected = np.arange(len(query))
    if protocol.query_cameras is not None:
        selected = np.flatnonzero(np.isin(query.camera_ids, protocol.query_cameras))
    if not len(selected):
        cameras = shorten(np.unique(query.camera_ids).tolist())
        value = f"{protocol.query_cameras}, with queries from {cameras}"
        raise InputError("query_cameras are cameras of the queries", value, "name cameras of the queries")
    device = working_device(device, query, gallery)
    # Memory: one camera's queries and one drawn gallery (single-shot), or the gallery's features and the
    # distances of one query (multi-shot).
    with torch.inference_mode(), full_float32(device):
        if protocol.shots == "single":
            result = _single_shot(query, gallery, selected, protocol, seed, device, block_sizes)
        else:
            result = _multi_shot(query, gallery, selected, protocol.across_cameras, average_of, device)
    # For each query: rank of its match in each draw, from 1 (0: no match), number of entries, person.
    rank_qr, size_q, persons_q = result
    valid_q = rank_qr[:, 0] > 0
    if not valid_q.any():
        raise no_match_error(len(valid_q))
    rank_vr, size_v = rank_qr[valid_q], size_q[valid_q]
    rank1_q = np.full(len(valid_q), np.nan)
    rank1_q[valid_q] = (rank_vr == 1).mean(1)
    return ProtocolScores(
        cmc={int(rank): float((rank_vr <= rank).mean()) for rank in ranks},
        cmc_per_draw={int(rank): tuple((rank_vr <= rank).mean(0).tolist()) for rank in ranks},
        num_queries=len(valid_q),
        num_valid_queries=int(valid_q.sum()),
        gallery_size=(int(size_v.min()), int(size_v.max())),
        person_ids=persons_q,
        rank1_per_query=rank1_q,
    )


def _single_shot(
    query, gallery, selected: np.ndarray, protocol: Protocol, seed, device, block_sizes
) -> tuple[np.ndarray, ...]:
    persons_g, cameras_g = gallery.person_ids, gallery.camera_ids
    orders_rg = [_draw_order(gallery, seed, draw) for draw in range(protocol.draws)]
    rank_qr = np.zeros((len(selected), protocol.draws), np.int64)
    size_q = np.zeros(len(selected), np.int64)
    cameras_q = query.camera_ids[selected]
    for camera, allowed_g in _allowed_images(cameras_q, gallery, protocol.across_cameras):
        places = np.flatnonzero(cameras_q == camera)
        # The possible matches, and so the queries that have one, are the same in every draw.
        is_match_g = is_match(persons_g, camera, persons_g, cameras_g)  # for a query of the image's person
        places = places[np.isin(query.person_ids[selected[places]], persons_g[is_match_g])]
        if not len(places):
            continue
        indices = selected[places]
        features_qd, persons_q = select_rows(query.features, indices), query.person_ids[indices]
        distractors = np.flatnonzero(allowed_g & (persons_g == DISTRACTOR))
        for draw, order in enumerate(orders_rg):
            matches_k = _first_of_each(persons_g, order[is_match_g[order]])
            match_q = matches_k[np.searchsorted(persons_g[matches_k], persons_q)]
            drawn_k = _first_of_each(persons_g, order[allowed_g[order]])
            # The entry of the query's own person is not a wrong entry.
            own_q = np.searchsorted(persons_g[drawn_k], persons_q)
            entries = np.concatenate((drawn_k, distractors))
            match_distance_q = squared_pair_distances(
                query.features, gallery.features, indices, match_q, device
            )
            wrong_q1 = count_within(
                features_qd,
                select_rows(gallery.features, entries),
                match_distance_q[:, None],
                excluded=np.zeros(len(entries), bool),
                excluded_pairs=(np.arange(len(indices)), own_q),
                device=device,
                block_sizes=block_sizes,
            )
            rank_qr[places, draw] = 1 + wrong_q1[:, 0].cpu().numpy()
            size_q[places] = len(entries)
    return rank_qr, size_q, query.person_ids[selected]


def _allowed_images(cameras_q: np.ndarray, gallery: Embeddings, across: bool) -> Iterator[tuple]:
    """Yield each query camera and the gallery images (G,) in which other persons may be compared."""
    for camera in np.unique(cameras_q).tolist():
        other_camera_g = gallery.camera_ids != camera
        yield camera, other_camera_g if across else np.ones_like(other_camera_g)


def _draw_order(gallery: Embeddings, seed: int, draw: int) -> np.ndarray:
    """Return indices of the persons' images, sorted by person, each person's in a random order."""
    images = np.flatnonzero(gallery.person_ids > DISTRACTOR)
    counts: dict[tuple[int, int], int] = {}
    numbers = np.empty(len(images), np.uint64)
    persons, cameras = gallery.person_ids[images], gallery.camera_ids[images]
    for row, key in enumerate(zip(persons.tolist(), cameras.tolist(), strict=True)):
        # The hash holds the image's position among the images of its person in its camera.
        position = counts[key] = counts.get(key, -1) + 1
        digest = hashlib.sha256(f"{seed} {draw} {key[0]} {key[1]} {position}".encode()).digest()
        numbers[row] = int.from_bytes(digest[:8], "big")
    return images[np.lexsort((numbers, persons))]


def _first_of_each(persons_g: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return each person's first index from gallery indices sorted by person."""
    return order[np.unique(persons_g[order], return_index=True)[1]]


def _multi_shot(
    query: Embeddings, gallery: Embeddings, selected: np.ndarray, across: bool, average_of: str, device
) -> tuple[np.ndarray, ...]:
    dtype = common_dtype(query.features, gallery.features)
    rows = []
    for camera, allowed_g in _allowed_images(query.camera_ids[selected], gallery, across):
        images = np.flatnonzero(allowed_g & (gallery.person_ids >= DISTRACTOR))
        persons, cameras = gallery.person_ids[images], gallery.camera_ids[images]
        features_gd = select_rows(gallery.features, images).to(device, dtype)
        groups = _groups(persons)
        queries = selected[query.camera_ids[selected] == camera]
        for person in np.unique(query.person_ids[queries]).tolist():
            matches = np.flatnonzero(is_match(person, camera, persons, cameras))
            rank = int(len(matches) > 0)
            if rank:
                own = queries[query.person_ids[queries] == person]
                own_nd = select_rows(query.features, own).to(device, dtype)
                distances_ng = squared_distances_to_all(own_nd, features_gd)
                if average_of == "distance":
                    distances_ng.sqrt_()
                # The sums of equal means may be rounded differently, which must not favour the match.
                match_mean = distances_ng[:, torch.from_numpy(matches).to(device)].mean()
                threshold = match_mean * (1 + _MEAN_ROUNDING)
                for indices_em in groups:
                    means_e = distances_ng[:, torch.from_numpy(indices_em).to(device)].mean((0, 2))
                    before_e = (means_e <= threshold).cpu().numpy()
                    rank += int((before_e & (persons[indices_em[:, 0]] != person)).sum())
            rows.append((person, rank, sum(map(len, groups))))
    persons_q, rank_q, size_q = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return rank_q[:, None], size_q, persons_q


def _groups(persons: np.ndarray) -> list[np.ndarray]:
    """Group the E entries with equally many images M: indices (E, M); each distractor is an entry."""
    order = np.argsort(persons, kind="stable")
    order = order[persons[order] > DISTRACTOR]
    _, begin_e, length_e = np.unique(persons[order], return_index=True, return_counts=True)
    groups = [np.flatnonzero(persons == DISTRACTOR)[:, None]]
    for length in np.unique(length_e).tolist():
        groups.append(order[begin_e[length_e == length, None] + np.arange(length)])
    return [group for group in groups if len(group)]
