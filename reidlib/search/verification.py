"""Verification: distances of pairs of the same and of different people, and a threshold between them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.data.rules import DISTRACTOR, JUNK
from reidlib.errors import InputError, count_noun
from reidlib.ranking.distances import (
    float64_device,
    full_float32,
    pairs_within,
    select_rows,
    spans,
    squared_distances_by_product,
)
from reidlib.ranking.metrics import Embeddings

UNKNOWN_CAMERA = -1
BINS = 2**16
_QUERIES, _GALLERY = 1024, 2048
# Two vectors count as equal if their distance is below this share of the largest possible one (rounding).
_EQUAL = 1e-6


@dataclass(frozen=True, eq=False)
class PairHistogram:
    """Histogram of Euclidean distances of image pairs, in fine bins.

    Entry 0 counts pairs at distance 0. Entry i counts distances above (i − 1)·width and up to i·width.

    Attributes:
        width: Width of a bin.
        same: Pairs of one person, int64 of shape (bins + 1,).
        different: Pairs of two people, int64 of shape (bins + 1,).

    Raises:
        InputError: If the shapes differ, or the width is not positive.
    """

    width: float
    same: np.ndarray
    different: np.ndarray

    def __post_init__(self):
        if self.same.shape != self.different.shape or self.same.ndim != 1 or not self.width > 0:
            shapes = f"{self.same.shape} and {self.different.shape}, width {self.width}"
            raise InputError("both kinds of pairs share the same bins", shapes, "count them together")

    @property
    def edges(self) -> np.ndarray:
        """Upper edge of each entry, shape (bins + 1,)."""
        return self.width * np.arange(len(self.same))


class Threshold(NamedTuple):
    """A distance up to which two images are accepted as one person, and how often that is right.

    Attributes:
        distance: The threshold.
        requested_rate: The false-match rate that was requested, a share between 0 and 1.
        false_match_rate: Share of the pairs of different people that are accepted.
        true_match_rate: Share of the pairs of one person that are accepted; NaN if there are no such pairs.
        num_false_matches: Number of accepted pairs of different people.
        num_different: Number of pairs of different people.
        num_same: Number of pairs of one person.
    """

    distance: float
    requested_rate: float
    false_match_rate: float
    true_match_rate: float
    num_false_matches: int
    num_different: int
    num_same: int


class FalseMatches(NamedTuple):
    """Number of people behind the false matches; many false matches may come from one pair of people.

    Attributes:
        num_persons: Persons with a false match.
        num_person_pairs: Pairs of persons with a false match.
        num_possible_pairs: Pairs of persons of whom image pairs were counted.
    """

    num_persons: int
    num_person_pairs: int
    num_possible_pairs: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """A threshold and the images on which it was measured.

    Attributes:
        threshold: The threshold.
        false_matches: The people behind its false matches.
        histogram: The distances of all pairs.
        source: Where the images come from.
        num_images: Number of images with a known person.
        num_persons: Number of persons.
        num_cameras: Number of cameras; 0 if unknown.
        same_camera: Whether pairs of one person in one camera were counted.
    """

    threshold: Threshold
    false_matches: FalseMatches
    histogram: PairHistogram
    source: str
    num_images: int
    num_persons: int
    num_cameras: int
    same_camera: bool


class _Block(NamedTuple):
    """Pairs of some queries and some gallery images, on the device."""

    query_span: slice
    gallery_span: slice
    places_qg: Tensor  # the pair's bin
    counted_qg: Tensor  # bool: whether the pair counts
    same_qg: Tensor  # bool: whether both images show one person


class Doubts(NamedTuple):
    """Which persons and cameras may be one, because only the spelling of their names differs.

    Attributes:
        persons: By person id, a number that is equal for all persons who may be one; -1 at -1.
        cameras: The same by camera id.
    """

    persons: np.ndarray
    cameras: np.ndarray


@dataclass(frozen=True, eq=False)
class VerificationPairs:
    """The image pairs that a histogram counts.

    Pairs with junk are left out. So are pairs of two distractors, who may be one person. A person and a
    distractor are different people. Pairs of one person in one camera are left out unless ``same_camera`` is
    set: frames of one moment are nearly the same image and say little about recognition. Negative camera ids
    are unknown, and never equal to another. Pairs of persons who may be one person are left out, and so are
    pairs of one person in cameras that may be one.

    Attributes:
        query: Features (Q, D), person ids and camera ids of the query images.
        gallery: The same of the gallery images. None: all pairs within ``query`` are counted.
        same_camera: Whether pairs of one person in one camera count.
        excluded_pairs: Query and gallery indices, each of shape (P,), of images that are in both sets. Such
            an image makes no pair with itself. Of the pairs (a, b) and (b, a) of two such images one counts.
        doubts: Which persons and cameras may be one; None if all names are certain.
    """

    query: Embeddings
    gallery: Embeddings | None = None
    same_camera: bool = False
    excluded_pairs: tuple[np.ndarray, np.ndarray] | None = None
    doubts: Doubts | None = None

    @property
    def sides(self) -> tuple[Embeddings, Embeddings]:
        """Query and gallery; the query set twice if there is no gallery."""
        return self.query, self.query if self.gallery is None else self.gallery

    def blocks(self, device: torch.device, width: float, bins: int) -> Iterator[_Block]:
        """Yield all pairs, block by block."""
        within, (query, gallery) = self.gallery is None, self.sides
        orders = None if self.excluded_pairs is None else self._orders(*self.excluded_pairs)
        for query_span in spans(len(query), _QUERIES):
            query_qd = select_rows(query.features, query_span).to(device, torch.float64)
            for gallery_span in spans(len(gallery), _GALLERY):
                if within and gallery_span.stop - 1 <= query_span.start:
                    continue  # within one set, each pair counts once
                counted_qg, same_qg = self._counted(query_span, gallery_span)
                if within:
                    columns_g = np.arange(gallery_span.start, gallery_span.stop)
                    counted_qg &= columns_g > np.arange(query_span.start, query_span.stop)[:, None]
                if orders is not None:
                    order_q, order_g = orders[0][query_span, None], orders[1][None, gallery_span]
                    counted_qg &= (order_q < 0) | (order_g < 0) | (order_q < order_g)
                gallery_gd = select_rows(gallery.features, gallery_span).to(device, torch.float64)
                distances_qg = squared_distances_by_product(query_qd, gallery_gd).sqrt_()
                distances_qg[distances_qg <= _EQUAL * width * bins] = 0
                places_qg = (distances_qg / width).ceil_().long().clamp_(max=bins)
                masks = (torch.from_numpy(mask_qg).to(device) for mask_qg in (counted_qg, same_qg))
                yield _Block(query_span, gallery_span, places_qg, *masks)

    def _orders(self, queries: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number the images that are in both sets, equally in both; −1 for others. Shapes (Q,) and (G,)."""
        query, gallery = self.sides
        # If the person is known on one side only, pairs count in one direction only, and none counts twice.
        is_known = (query.person_ids[queries] != JUNK) & (gallery.person_ids[images] != JUNK)
        queries, images = queries[is_known], images[is_known]
        order_q, order_g = (np.full(len(side), np.iinfo(np.int64).max) for side in (query, gallery))
        np.minimum.at(order_q, queries, images)
        np.minimum.at(order_g, images, order_q[queries])
        for order in (order_q, order_g):
            order[order == np.iinfo(np.int64).max] = -1
        return order_q, order_g

    def _counted(self, query_span: slice, gallery_span: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return two masks (Q, G) of a block: pairs that count, and pairs that show one person."""
        query, gallery = self.sides
        persons_q, persons_g = query.person_ids[query_span, None], gallery.person_ids[None, gallery_span]
        cameras_q, cameras_g = query.camera_ids[query_span, None], gallery.camera_ids[None, gallery_span]
        same_qg = (persons_q == persons_g) & (persons_q > DISTRACTOR)
        counted_qg = (persons_q != JUNK) & (persons_g != JUNK)
        counted_qg &= (persons_q != DISTRACTOR) | (persons_g != DISTRACTOR)
        if self.doubts is not None:
            counted_qg &= same_qg | (self.doubts.persons[persons_q] != self.doubts.persons[persons_g])
            cameras_q, cameras_g = self.doubts.cameras[cameras_q], self.doubts.cameras[cameras_g]
        if not self.same_camera:
            counted_qg &= ~(same_qg & (cameras_q == cameras_g) & (cameras_q > UNKNOWN_CAMERA))
        counted_qg[pairs_within(self.excluded_pairs, query_span, gallery_span)] = False
        return counted_qg, same_qg


def pair_distances_histogram(
    pairs: VerificationPairs, *, device: torch.device | str = "cpu", bins: int = BINS
) -> PairHistogram:
    """Count the distances of pairs in bins.

    Features are streamed: beyond them, memory holds a few blocks and the counts.

    Args:
        pairs: The pairs to count.
        device: Device on which distances are computed in float64; the CPU replaces MPS, which lacks it.
        bins: Number of bins up to the largest possible distance.

    Returns:
        The histogram of pairs of one person and of different people.

    Raises:
        InputError: If the features of query and gallery have different lengths.
    """
    lengths = [side.features.shape[1] for side in pairs.sides]
    if lengths[0] != lengths[1]:
        numbers = f"{lengths[0]} and {lengths[1]}"
        raise InputError("features of both sets are equally long", numbers, "use one model for both")
    device = float64_device(device)
    with torch.inference_mode(), full_float32(device):
        # No distance is larger than the sum of the two largest norms.
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
    """Count the people behind the false matches at a threshold, in a second pass over the pairs.

    Beyond the features, memory holds a few blocks and one number for each pair of persons with a false match.

    Args:
        pairs: The pairs.
        histogram: Their histogram.
        threshold: The threshold of that histogram.
        device: The device on which the histogram was computed.

    Returns:
        The numbers of persons and of pairs of persons. All distractors count as one person.
    """
    device = float64_device(device)
    query, gallery = pairs.sides
    query_persons, gallery_persons = (
        np.unique(side.person_ids[side.person_ids != JUNK]) for side in pairs.sides
    )
    possible = _person_pairs(query_persons, gallery_persons)
    if pairs.doubts is not None:  # no pair of two people who may be one counts
        query_groups, gallery_groups = (
            pairs.doubts.persons[persons] for persons in (query_persons, gallery_persons)
        )
        for group in np.intersect1d(query_groups, gallery_groups):
            possible -= _person_pairs(
                query_persons[query_groups == group], gallery_persons[gallery_groups == group]
            )
    # A pair of persons is one number. New numbers are collected and merged from time to time.
    person_pairs, new_pairs, num_new_pairs = np.empty(0, np.int64), [], 0
    persons = np.union1d(query_persons, gallery_persons)
    place, bins = round(threshold.distance / histogram.width), len(histogram.different) - 1
    if threshold.num_false_matches:
        with torch.inference_mode(), full_float32(device):
            for block in pairs.blocks(device, histogram.width, bins):
                false_qg = block.counted_qg & ~block.same_qg & (block.places_qg <= place)
                row_n, column_n = (index_n.cpu().numpy() for index_n in false_qg.nonzero(as_tuple=True))
                person_ids = (
                    query.person_ids[block.query_span][row_n],
                    gallery.person_ids[block.gallery_span][column_n],
                )
                numbers = [np.searchsorted(persons, ids_n) for ids_n in person_ids]
                new_pairs.append(np.unique(np.minimum(*numbers) * len(persons) + np.maximum(*numbers)))
                num_new_pairs += len(new_pairs[-1])
                if num_new_pairs > len(person_pairs) + 2**20:
                    person_pairs = np.unique(np.concatenate([person_pairs, *new_pairs]))
                    new_pairs, num_new_pairs = [], 0
        person_pairs = np.unique(np.concatenate([person_pairs, *new_pairs]))
    people = np.unique(np.concatenate(np.divmod(person_pairs, max(len(persons), 1))))
    return FalseMatches(len(people), len(person_pairs), possible)


def _person_pairs(query_persons: np.ndarray, gallery_persons: np.ndarray) -> int:
    """Count the pairs of two people; without one of the two orders if both people are on both sides."""
    shared = len(np.intersect1d(query_persons, gallery_persons))
    return len(query_persons) * len(gallery_persons) - shared - shared * (shared - 1) // 2


def threshold_for(histogram: PairHistogram, false_match_rate: float) -> Threshold:
    """Find the largest distance at which the false-match rate does not exceed a given one.

    Args:
        histogram: The distances of the pairs.
        false_match_rate: Share of the pairs of different people that may be accepted, between 0 and 1.

    Returns:
        The threshold, exact to the width of a bin.

    Raises:
        InputError: If the rate is not between 0 and 1, if it is finer than one of the counted pairs, or if
            more pairs of different people than that are at distance 0.
    """
    check_rate(false_match_rate)
    num_different, num_same = int(histogram.different.sum()), int(histogram.same.sum())
    allowed = num_different * false_match_rate + 1e-9  # 0.07 of 100 pairs is 7, not 7.000000000000001
    if allowed < 1:
        mend = "give more persons"
        if num_different > 1:
            mend = f"request a rate of at least {_round_up(1 / num_different)}, or {mend}"
        raise InputError(
            f"a false-match rate of {false_match_rate:g} needs at least {math.ceil(1 / false_match_rate):,} "
            "pairs of different people",
            count_noun(num_different, "pairs"),
            mend,
        )
    false_matches = histogram.different.cumsum()
    within = np.flatnonzero(false_matches <= allowed)
    if not len(within):
        raise InputError(
            "different people have different features",
            f"{false_matches[0]:,} of {count_noun(num_different, 'pairs')} at distance 0",
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
    pairs: VerificationPairs, rate: float, source: str, device: torch.device
) -> Calibration:
    """Measure the threshold for a false-match rate.

    Args:
        pairs: Pairs of images with known persons.
        rate: Share of the pairs of different people that may be accepted, between 0 and 1.
        source: Where the images come from, for messages.
        device: Device on which distances are computed.

    Returns:
        The threshold and what it was measured on.

    Raises:
        InputError: If no person is known, no pair of one person is counted, or ``threshold_for`` refuses the
            rate.
    """
    sides = [pairs.query] if pairs.gallery is None else [pairs.query, pairs.gallery]
    if any((side.person_ids == JUNK).all() for side in sides):
        raise InputError(
            "a threshold is measured on images whose persons are known",
            f"none known in {source}",
            "give some with --calibrate: a folder per person, or a CSV with a column person",
        )
    histogram = pair_distances_histogram(pairs, device=device)
    if not histogram.same.any():
        rule = "a threshold is measured on pairs of one person"
        mend = "give such images with --calibrate"
        if not pairs.same_camera:
            rule += " in two cameras"
            mend += ", or count pairs within a camera with --same-camera"
        raise InputError(rule, f"none in {source}", mend)
    threshold = threshold_for(histogram, rate)
    false_matches = count_false_match_persons(pairs, histogram, threshold, device=device)
    person_masks = [side.person_ids != JUNK for side in sides]
    image_masks = [mask.copy() for mask in person_masks]
    if pairs.excluded_pairs is not None:  # an image of both sets is one image
        queries, images = pairs.excluded_pairs
        image_masks[1][images[person_masks[0][queries]]] = False
    persons, cameras = (
        np.unique(
            np.concatenate(
                [getattr(side, name)[mask] for side, mask in zip(sides, person_masks, strict=True)]
            )
        )
        for name in ("person_ids", "camera_ids")
    )
    return Calibration(
        threshold,
        false_matches,
        histogram,
        source,
        int(sum(mask.sum() for mask in image_masks)),
        len(persons),
        int((cameras != UNKNOWN_CAMERA).sum()),
        pairs.same_camera,
    )


def check_rate(false_match_rate: float) -> None:
    """Raise InputError for a false-match rate that is not between 0 and 1."""
    if not 0 < false_match_rate < 1:
        rule = "a false-match rate is a share of pairs between 0 and 1"
        raise InputError(rule, f"{false_match_rate:g}", "0.001 is one pair in a thousand")


def _largest_norm(embeddings: Embeddings) -> float:
    return max(
        float(torch.linalg.vector_norm(select_rows(embeddings.features, span).double(), dim=1).max())
        for span in spans(len(embeddings), _GALLERY)
    )


def _round_up(share: float) -> str:
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits - 1e-9) / 10**digits:g}"
