"""Scores of the protocols with one entry for each person: single-shot and multi-shot.

``ranking`` ranks images, all of them, Market-1501's way. Here a person's entry is one image, drawn at random
(single-shot), or all the person's images at once (multi-shot). CUHK01, CUHK03, GRID and VIPeR are scored so,
by CMC alone: with one match a query, the match's rank is all there is to say.
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
    pair_distances,
    select_rows,
    squared_distances_to_all,
)
from reidlib.ranking.metrics import Embeddings, check_pair, check_scoring, chosen_device, no_match

_MEAN_ROUNDING = 1e-12  # relative; well above the rounding of a mean, well below that of a distance


class ProtocolScores(NamedTuple):
    """What ``evaluate_protocol`` found. Means run over draws and over the queries that have a match.

    A query is an image in single-shot scores, and all images of a person in one camera in multi-shot ones.
    """

    cmc: dict[int, float]  # rank -> share of queries whose match stands at that rank or before
    cmc_per_draw: dict[int, tuple[float, ...]]  # the same for each random gallery; one in multi-shot
    num_queries: int  # in the protocol's query cameras
    num_valid_queries: int  # those with a match
    gallery_size: tuple[int, int]  # entries that a query is compared with: fewest and most
    person_ids: np.ndarray  # (Q,) int64, whom each query shows
    rank1_per_query: np.ndarray  # (Q,) float64, share of draws with the match first; NaN without a match

    def to_dict(self) -> dict:
        """The same as plain JSON values, with None for NaN and ranks as text."""
        return self._asdict() | {
            "cmc": {str(rank): share for rank, share in self.cmc.items()},
            "cmc_per_draw": {str(rank): list(shares) for rank, shares in self.cmc_per_draw.items()},
            "gallery_size": list(self.gallery_size),
            "person_ids": self.person_ids.tolist(),
            "rank1_per_query": [None if math.isnan(v) else v for v in self.rank1_per_query.tolist()],
        }

    @classmethod
    def from_dict(cls, values: Mapping) -> ProtocolScores:
        """Scores from what ``to_dict`` wrote; raises InputError where a field is missing."""
        if missing := [name for name in cls._fields if name not in values]:
            raise InputError("a protocol's scores are whole", f"no {', '.join(missing)}", "evaluate again")
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
    """Score single-shot or multi-shot, by Euclidean distance, the queries of ``protocol.query_cameras``.

    A query's match is made of its person's gallery images from other cameras; those from its own camera
    are never compared with it. Other persons are compared by their images from other cameras than the
    query's or, without ``protocol.across_cameras``, by all their images (which is how torchreid scores
    CUHK03). Distractors (person 0) stand by themselves and are all there, under the same rule of cameras.
    Junk (−1) is left out. Query and gallery may be the same images.

    Single-shot: in each of ``protocol.draws`` galleries a person is one of these images, the same for all
    queries of a camera. Which one follows from ``seed``, the draw, the person, the camera and the image's
    place among the images of that person in that camera, by SHA-256: the same on every machine, whatever
    stands in between and whoever else is there. Keep the images of a person in a camera in one order
    (sorted by file name, as readers do) to keep the draws.

    Multi-shot: a query is all query images of a person in a camera, an entry is all gallery images of a
    person that may be compared with it, and their distance is the mean over all pairs of an image of
    either. ``average_of``: of the Euclidean distance, or of its square, as GOG's code sums it; papers
    seldom say which. (Between two images both rank alike, so that it changes no single-shot score.)

    Among equal distances (or means within 1e-12 of each other) a wrong entry stands before the match.
    Queries without a match are counted, and left out of the means. A rank in ``ranks`` may exceed the
    gallery.

    ``device`` and ``block_sizes`` are those of ``ranking.evaluate`` and change no score. Memory beyond the
    inputs: single-shot, one camera's queries and one drawn gallery with its distractors; multi-shot, the
    gallery's features and the distances (I, G) of one query of I images.

    Raises InputError where feature lengths differ, a query is junk or a distractor, the query cameras have
    no query, no query has a match, or an argument is not one of those above.
    """
    check_scoring(ranks, block_sizes=block_sizes)
    known = ("distance", "squared")
    check_choice('average_of is "distance" or "squared"', average_of, known, "choose one")
    check_pair(query, gallery)
    asked = np.arange(len(query))
    if protocol.query_cameras is not None:
        asked = np.flatnonzero(np.isin(query.camera_ids, protocol.query_cameras))
    if not len(asked):
        cameras = shorten(np.unique(query.camera_ids).tolist())
        found = f"{protocol.query_cameras} where queries are of {cameras}"
        raise InputError("query_cameras are cameras of the queries", found, "name one of those")
    device = chosen_device(device, query, gallery)
    with torch.inference_mode(), full_float32(device):
        if protocol.shots == "single":
            found = _single_shot(query, gallery, asked, protocol, seed, device, block_sizes)
        else:
            found = _multi_shot(query, gallery, asked, protocol.across_cameras, average_of, device)
    # Of each query: where its match stands in each draw, from 1 (0: it has none), and among how many.
    rank_qr, size_q, persons_q = found
    valid_q = rank_qr[:, 0] > 0
    if not valid_q.any():
        raise no_match(len(valid_q))
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
    query, gallery, asked: np.ndarray, protocol: Protocol, seed, device, block_sizes
) -> tuple[np.ndarray, ...]:
    persons_g, cameras_g = gallery.person_ids, gallery.camera_ids
    orders_rg = [_drawing_order(gallery, seed, draw) for draw in range(protocol.draws)]
    rank_qr = np.zeros((len(asked), protocol.draws), np.int64)
    size_q = np.zeros(len(asked), np.int64)
    cameras_q = query.camera_ids[asked]
    for camera, compared_g in _compared(cameras_q, gallery, protocol.across_cameras):
        places = np.flatnonzero(cameras_q == camera)
        # A person's matches are the same in every draw, and so are the queries that have one.
        is_match_g = is_match(persons_g, camera, persons_g, cameras_g)  # of a query of the image's person
        places = places[np.isin(query.person_ids[asked[places]], persons_g[is_match_g])]
        if not len(places):
            continue
        indices = asked[places]
        features_qd, persons_q = select_rows(query.features, indices), query.person_ids[indices]
        distractors = np.flatnonzero(compared_g & (persons_g == DISTRACTOR))
        for draw, order in enumerate(orders_rg):
            matches_k = _first_of_each(persons_g, order[is_match_g[order]])
            match_q = matches_k[np.searchsorted(persons_g[matches_k], persons_q)]
            drawn_k = _first_of_each(persons_g, order[compared_g[order]])
            # The query's own person may be drawn among the others from the query's camera.
            own_q = np.searchsorted(persons_g[drawn_k], persons_q)
            entries = np.concatenate((drawn_k, distractors))
            match_distance_q = pair_distances(query.features, gallery.features, indices, match_q, device)
            wrong_q1 = count_within(
                features_qd,
                select_rows(gallery.features, entries),
                match_distance_q[:, None],
                left_out=np.zeros(len(entries), bool),
                left_out_pairs=(np.arange(len(indices)), own_q),
                device=device,
                block_sizes=block_sizes,
            )
            rank_qr[places, draw] = 1 + wrong_q1[:, 0].cpu().numpy()
            size_q[places] = len(entries)
    return rank_qr, size_q, query.person_ids[asked]


def _compared(cameras_q: np.ndarray, gallery: Embeddings, across: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Each camera of the queries, and which gallery images (G,) its queries' strangers may be seen in."""
    for camera in np.unique(cameras_q).tolist():
        compared_g = gallery.camera_ids != camera
        yield camera, compared_g if across else np.ones_like(compared_g)


def _drawing_order(gallery: Embeddings, seed: int, draw: int) -> np.ndarray:
    """Indices of the gallery's persons' images, by person, each person's in a random order."""
    shown = np.flatnonzero(gallery.person_ids > DISTRACTOR)
    place_of: dict[tuple[int, int], int] = {}
    numbers = np.empty(len(shown), np.uint64)
    persons, cameras = gallery.person_ids[shown], gallery.camera_ids[shown]
    for row, key in enumerate(zip(persons.tolist(), cameras.tolist(), strict=True)):
        place = place_of[key] = place_of.get(key, -1) + 1
        digest = hashlib.sha256(f"{seed} {draw} {key[0]} {key[1]} {place}".encode()).digest()
        numbers[row] = int.from_bytes(digest[:8], "big")
    return shown[np.lexsort((numbers, persons))]


def _first_of_each(persons_g: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Of gallery indices ordered by person, each person's first."""
    return order[np.unique(persons_g[order], return_index=True)[1]]


def _multi_shot(
    query: Embeddings, gallery: Embeddings, asked: np.ndarray, across: bool, average_of: str, device
) -> tuple[np.ndarray, ...]:
    dtype = common_dtype(query.features, gallery.features)
    found = []
    for camera, compared_g in _compared(query.camera_ids[asked], gallery, across):
        compared = np.flatnonzero(compared_g & (gallery.person_ids >= DISTRACTOR))
        persons, cameras = gallery.person_ids[compared], gallery.camera_ids[compared]
        features_gd = select_rows(gallery.features, compared).to(device, dtype)
        groups = _groups(persons)
        here = asked[query.camera_ids[asked] == camera]
        for person in np.unique(query.person_ids[here]).tolist():
            matches = np.flatnonzero(is_match(person, camera, persons, cameras))
            rank = int(len(matches) > 0)
            if rank:
                images_nd = select_rows(query.features, here[query.person_ids[here] == person]).to(
                    device, dtype
                )
                distances_ng = squared_distances_to_all(images_nd, features_gd)
                if average_of == "distance":
                    distances_ng.sqrt_()
                # Equal means may differ by the rounding of their sums, which must not favour the match.
                threshold = distances_ng[:, torch.from_numpy(matches).to(device)].mean() * (
                    1 + _MEAN_ROUNDING
                )
                for indices_em in groups:
                    means_e = distances_ng[:, torch.from_numpy(indices_em).to(device)].mean((0, 2))
                    before_e = (means_e <= threshold).cpu().numpy()
                    rank += int((before_e & (persons[indices_em[:, 0]] != person)).sum())
            found.append((person, rank, sum(map(len, groups))))
    persons_q, rank_q, size_q = (np.array(column, np.int64) for column in zip(*found, strict=True))
    return rank_q[:, None], size_q, persons_q


def _groups(persons: np.ndarray) -> list[np.ndarray]:
    """Entries of equally many images M together: for each M, indices (E, M); each distractor by itself."""
    order = np.argsort(persons, kind="stable")
    order = order[persons[order] > DISTRACTOR]
    _, begin_e, length_e = np.unique(persons[order], return_index=True, return_counts=True)
    groups = [np.flatnonzero(persons == DISTRACTOR)[:, None]]
    for length in np.unique(length_e).tolist():
        groups.append(order[begin_e[length_e == length, None] + np.arange(length)])
    return [group for group in groups if len(group)]
