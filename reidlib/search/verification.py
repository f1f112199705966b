"""From what distance on is it the same person? Distances of same and of different people, and a threshold."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.data.rules import DISTRACTOR, JUNK
from reidlib.errors import InputError, counted
from reidlib.ranking.distances import float64_device, full_float32, select_rows, spans, squared_by_product
from reidlib.ranking.metrics import Embeddings

UNKNOWN_CAMERA = -1
BINS = 2**16
_QUERIES, _GALLERY = 1024, 2048
# Below this share of the largest possible distance two vectors count as equal: that is rounding.
_EQUAL = 1e-6


@dataclass(frozen=True, eq=False)
class PairHistogram:
    """Euclidean distances of image pairs, counted in fine bins.

    width: of a bin. same, different: int64 (bins + 1,), pairs of one person and of two. Entry 0 counts
        distances of 0, entry i those above (i − 1)·width and at most i·width.

    Raises InputError for counts that do not fit together.
    """

    width: float
    same: np.ndarray
    different: np.ndarray

    def __post_init__(self):
        if self.same.shape != self.different.shape or self.same.ndim != 1 or not self.width > 0:
            found = f"{self.same.shape} and {self.different.shape}, width {self.width}"
            raise InputError("both kinds of pairs are counted in the same bins", found, "count them together")

    @property
    def edges(self) -> np.ndarray:
        """Upper edge of each bin, (bins + 1,)."""
        return self.width * np.arange(len(self.same))


class Threshold(NamedTuple):
    """Up to ``distance`` two images are taken for the same person's, and how often that was right.

    Shares are between 0 and 1, of the pairs that the histogram counts; ``true_match_rate`` is NaN where no
    pair of one person was counted.
    """

    distance: float
    requested_rate: float
    false_match_rate: float
    true_match_rate: float
    num_false_matches: int
    num_different: int
    num_same: int


class FalseMatches(NamedTuple):
    """How many people the false matches at a threshold come from: many false matches may be of one pair."""

    num_persons: int
    num_person_pairs: int
    num_possible_pairs: int  # pairs of persons of whom image pairs were counted


@dataclass(frozen=True, eq=False)
class Calibration:
    """A threshold and what it was measured on."""

    threshold: Threshold
    false_matches: FalseMatches
    histogram: PairHistogram
    source: str
    num_images: int
    num_persons: int
    num_cameras: int  # 0: unknown
    same_camera: bool


class _Block(NamedTuple):
    """Pairs of some queries and some gallery images, on the device."""

    query_span: slice
    gallery_span: slice
    places_qg: Tensor  # bins
    counted_qg: Tensor  # bool: does the pair count
    same_qg: Tensor  # bool: does it show one person


@dataclass(frozen=True, eq=False)
class VerificationPairs:
    """Which pairs are counted: of a query and a gallery image, or without a gallery all within ``query``.

    Pairs with junk are left out, and those of two distractors (who may be one person); a person and a
    distractor are different people. Pairs of one person in one camera are left out unless ``same_camera``:
    frames of one moment are nearly the same picture and say little about recognising anybody. Cameras
    below 0 are unknown, and never the same as another.
    left_out: (query, gallery) indices of images that are in both sets. Such an image makes no pair with
        itself, and of two such images' pairs (a, b) and (b, a) one counts.
    """

    query: Embeddings
    gallery: Embeddings | None = None
    same_camera: bool = False
    left_out: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def sides(self) -> tuple[Embeddings, Embeddings]:
        """The two sets that pairs are of; within one set twice the same."""
        return self.query, self.query if self.gallery is None else self.gallery

    def blocks(self, device: torch.device, width: float, bins: int) -> Iterator[_Block]:
        """All pairs, block by block."""
        within, (query, gallery) = self.gallery is None, self.sides
        orders = None if self.left_out is None else self._orders(*self.left_out)
        for query_span in spans(len(query), _QUERIES):
            query_qd = select_rows(query.features, query_span).to(device, torch.float64)
            for gallery_span in spans(len(gallery), _GALLERY):
                if within and gallery_span.stop - 1 <= query_span.start:
                    continue  # each pair of a set with itself once
                counted_qg, same_qg = self._counted(query_span, gallery_span)
                if within:
                    columns_g = np.arange(gallery_span.start, gallery_span.stop)
                    counted_qg &= columns_g > np.arange(query_span.start, query_span.stop)[:, None]
                if orders is not None:
                    order_q, order_g = orders[0][query_span, None], orders[1][None, gallery_span]
                    counted_qg &= (order_q < 0) | (order_g < 0) | (order_q < order_g)
                gallery_gd = select_rows(gallery.features, gallery_span).to(device, torch.float64)
                distances_qg = squared_by_product(query_qd, gallery_gd).sqrt_()
                distances_qg[distances_qg <= _EQUAL * width * bins] = 0
                places_qg = (distances_qg / width).ceil_().long().clamp_(max=bins)
                counted_qg, same_qg = (torch.from_numpy(one).to(device) for one in (counted_qg, same_qg))
                yield _Block(query_span, gallery_span, places_qg, counted_qg, same_qg)

    def _orders(self, queries: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A number for each image that is in both sets, the same in both, else −1: (Q,) and (G,)."""
        query, gallery = self.sides
        # Where the person is known on one side only, pairs count in one direction only, and none is double.
        known = (query.person_ids[queries] != JUNK) & (gallery.person_ids[images] != JUNK)
        queries, images = queries[known], images[known]
        order_q, order_g = (np.full(len(one), np.iinfo(np.int64).max) for one in (query, gallery))
        np.minimum.at(order_q, queries, images)
        np.minimum.at(order_g, images, order_q[queries])
        for order in (order_q, order_g):
            order[order == np.iinfo(np.int64).max] = -1
        return order_q, order_g

    def _counted(self, query_span: slice, gallery_span: slice) -> tuple[np.ndarray, np.ndarray]:
        """Boolean (Q, G) of a block: which pairs count, and which show one person."""
        query, gallery = self.sides
        persons_q, persons_g = query.person_ids[query_span, None], gallery.person_ids[None, gallery_span]
        cameras_q, cameras_g = query.camera_ids[query_span, None], gallery.camera_ids[None, gallery_span]
        same_qg = (persons_q == persons_g) & (persons_q > DISTRACTOR)
        counted_qg = (persons_q != JUNK) & (persons_g != JUNK)
        counted_qg &= (persons_q != DISTRACTOR) | (persons_g != DISTRACTOR)
        if not self.same_camera:
            counted_qg &= ~(same_qg & (cameras_q == cameras_g) & (cameras_q > UNKNOWN_CAMERA))
        counted_qg[pairs_within(self.left_out, query_span, gallery_span)] = False
        return counted_qg, same_qg


def pairs_within(
    pairs: tuple[np.ndarray, np.ndarray] | None, block: slice, span: slice
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, in a block, of those (query, gallery) pairs that lie in it."""
    if pairs is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    queries, images = pairs
    here = (queries >= block.start) & (queries < block.stop) & (images >= span.start) & (images < span.stop)
    return queries[here] - block.start, images[here] - span.start


def pair_distances_histogram(
    pairs: VerificationPairs, *, device: torch.device | str = "cpu", bins: int = BINS
) -> PairHistogram:
    """Count the distances of pairs.

    device: where distances are computed, in float64; CPU instead of MPS, which lacks it.
    Features are streamed: memory beyond them is some blocks and the counts. Raises InputError where
    feature lengths differ.
    """
    lengths = [side.features.shape[1] for side in pairs.sides]
    if lengths[0] != lengths[1]:
        found = f"{lengths[0]} and {lengths[1]}"
        raise InputError("both sets' features are equally long", found, "use one model for both")
    device = float64_device(device)
    with torch.inference_mode(), full_float32(device):
        # No distance is longer than two vectors end to end.
        width = max(sum(map(_largest_norm, pairs.sides)), 1e-30) * (1 + 1e-9) / bins
        counts = torch.zeros(2 * (bins + 1), dtype=torch.int64, device=device)
        for block in pairs.blocks(device, width, bins):
            places_qg = block.places_qg + block.same_qg * (bins + 1)
            counts += torch.bincount(places_qg[block.counted_qg], minlength=len(counts))
    different, same = counts.cpu().numpy().reshape(2, bins + 1)
    return PairHistogram(width, same, different)


def count_false_match_persons(
    pairs: VerificationPairs,
    histogram: PairHistogram,
    threshold: Threshold,
    *,
    device: torch.device | str = "cpu",
) -> FalseMatches:
    """Count the people behind the false matches at a threshold, in a second pass over the same pairs.

    histogram: of these pairs, and device as for it. Memory beyond the features is some blocks and one
    number for each pair of persons with a false match. All distractors count as one person.
    """
    device = float64_device(device)
    query, gallery = pairs.sides
    queried, searched = (np.unique(side.person_ids[side.person_ids != JUNK]) for side in pairs.sides)
    shared = len(np.intersect1d(queried, searched))
    # Ordered pairs of two people, less one of the two orders where both people are on both sides.
    possible = len(queried) * len(searched) - shared - shared * (shared - 1) // 2
    found, fresh, num_fresh = np.empty(0, np.int64), [], 0
    persons = np.union1d(queried, searched)
    place, bins = round(threshold.distance / histogram.width), len(histogram.different) - 1
    if threshold.num_false_matches:
        with torch.inference_mode(), full_float32(device):
            for block in pairs.blocks(device, histogram.width, bins):
                chosen_qg = block.counted_qg & ~block.same_qg & (block.places_qg <= place)
                row_n, column_n = (one.cpu().numpy() for one in chosen_qg.nonzero(as_tuple=True))
                shown = (
                    query.person_ids[block.query_span][row_n],
                    gallery.person_ids[block.gallery_span][column_n],
                )
                numbers = [np.searchsorted(persons, ids) for ids in shown]
                fresh.append(np.unique(np.minimum(*numbers) * len(persons) + np.maximum(*numbers)))
                num_fresh += len(fresh[-1])
                if num_fresh > len(found) + 2**20:
                    found, fresh, num_fresh = np.unique(np.concatenate([found, *fresh])), [], 0
        found = np.unique(np.concatenate([found, *fresh]))
    people = np.unique(np.concatenate(np.divmod(found, max(len(persons), 1))))
    return FalseMatches(len(people), len(found), possible)


def threshold_for(histogram: PairHistogram, false_match_rate: float) -> Threshold:
    """The largest distance at which at most this share of pairs of different people lie at or below it.

    To the width of a bin. Raises InputError for a rate that is not between 0 and 1, one that is finer than
    one pair of the different ones counted, and features by which even that share of different people are
    the same (distance 0).
    """
    check_rate(false_match_rate)
    num_different, num_same = int(histogram.different.sum()), int(histogram.same.sum())
    allowed = num_different * false_match_rate + 1e-9  # 0.07 of 100 pairs are 7, not 7.000000000000001
    if allowed < 1:
        mend = "give more persons"
        if num_different > 1:
            mend = f"ask for {_rounded_up(1 / num_different)} or more, or {mend}"
        raise InputError(
            f"a false-match rate of {false_match_rate:g} is measured on {math.ceil(1 / false_match_rate):,} "
            "pairs of different people or more",
            counted(num_different, "pairs"),
            mend,
        )
    false_matches = histogram.different.cumsum()
    within = np.flatnonzero(false_matches <= allowed)
    if not len(within):
        raise InputError(
            "different people have different features",
            f"{false_matches[0]:,} of {counted(num_different, 'pairs')} at distance 0",
            "look for copies of an image under two persons' names, or train the model longer",
        )
    place = within[-1]
    true_matches = int(histogram.same[: place + 1].sum())
    return Threshold(
        float(histogram.edges[place]),
        false_match_rate,
        int(false_matches[place]) / num_different,
        true_matches / num_same if num_same else math.nan,
        int(false_matches[place]),
        num_different,
        num_same,
    )


def calibrate_threshold(
    pairs: VerificationPairs, rate: float, where: str, device: torch.device
) -> Calibration:
    """The threshold of a rate, measured on pairs of images from ``where``; errors as ``threshold_for``.

    Raises InputError, too, where no person is known or no pair of one person is counted.
    """
    sides = [pairs.query] if pairs.gallery is None else [pairs.query, pairs.gallery]
    if any((side.person_ids == JUNK).all() for side in sides):
        raise InputError(
            "a threshold is measured on images whose persons are known",
            f"none known in {where}",
            "give some with --calibrate: a folder per person, or a CSV with a column person",
        )
    histogram = pair_distances_histogram(pairs, device=device)
    if not histogram.same.any():
        rule = "a threshold is measured on pairs of one person"
        mend = "give such images with --calibrate"
        if not pairs.same_camera:
            rule += " in two cameras"
            mend += ", or count pairs within a camera with --same-camera"
        raise InputError(rule, f"none in {where}", mend)
    threshold = threshold_for(histogram, rate)
    false_matches = count_false_match_persons(pairs, histogram, threshold, device=device)
    known = [side.person_ids != JUNK for side in sides]
    once = [mask.copy() for mask in known]
    if pairs.left_out is not None:  # an image of both sets is one image
        queries, images = pairs.left_out
        once[1][images[known[0][queries]]] = False
    persons, cameras = (
        np.unique(
            np.concatenate([getattr(side, name)[kept] for side, kept in zip(sides, known, strict=True)])
        )
        for name in ("person_ids", "camera_ids")
    )
    return Calibration(
        threshold,
        false_matches,
        histogram,
        where,
        int(sum(kept.sum() for kept in once)),
        len(persons),
        int((cameras != UNKNOWN_CAMERA).sum()),
        pairs.same_camera,
    )


def check_rate(false_match_rate: float) -> None:
    """Raises InputError for a false-match rate that is not between 0 and 1."""
    if not 0 < false_match_rate < 1:
        rule = "a false-match rate is a share of pairs between 0 and 1"
        raise InputError(rule, f"{false_match_rate:g}", "0.001 is one pair in a thousand")


def _largest_norm(embeddings: Embeddings) -> float:
    return max(
        float(torch.linalg.vector_norm(select_rows(embeddings.features, span).double(), dim=1).max())
        for span in spans(len(embeddings), _GALLERY)
    )


def _rounded_up(share: float) -> str:
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits - 1e-9) / 10**digits:g}"
