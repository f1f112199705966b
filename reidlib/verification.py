"""From what distance on is it the same person? Distances of same and of different people, and a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.data.rules import DISTRACTOR, JUNK
from reidlib.distances import full_float32, rows, spans
from reidlib.errors import InputError
from reidlib.ranking import Embeddings

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
    asked_rate: float
    false_match_rate: float
    true_match_rate: float
    num_false_matches: int
    num_different: int
    num_same: int


@dataclass(frozen=True, eq=False)
class Calibration:
    """A threshold and what it was measured on."""

    threshold: Threshold
    histogram: PairHistogram
    where: str
    num_images: int
    num_persons: int
    num_cameras: int  # 0: unknown
    same_camera: bool


def pair_distances_histogram(
    query: Embeddings,
    gallery: Embeddings | None = None,
    *,
    same_camera: bool = False,
    left_out: tuple[np.ndarray, np.ndarray] | None = None,
    device: torch.device | str = "cpu",
    bins: int = BINS,
) -> PairHistogram:
    """Count the distances of all pairs of a query and a gallery image, or of all pairs within ``query``.

    Pairs with junk are left out, and those of two distractors (who may be one person); a person and a
    distractor are different people. Pairs of one person in one camera are left out unless ``same_camera``:
    frames of one moment are nearly the same picture and say little about recognising anybody. Cameras
    below 0 are unknown, and never the same as another.
    left_out: (query, gallery) indices of further pairs, such as an image and itself in both sets.
    device: where distances are computed, in float64; CPU instead of MPS, which lacks it.

    Features are streamed: memory beyond them is some blocks and the counts. Raises InputError where
    feature lengths differ.
    """
    within, gallery = gallery is None, query if gallery is None else gallery
    if query.features.shape[1] != gallery.features.shape[1]:
        found = f"{query.features.shape[1]} and {gallery.features.shape[1]}"
        raise InputError("both sets' features are equally long", found, "use one model for both")
    device = torch.device(device)
    device = torch.device("cpu") if device.type == "mps" else device
    with torch.inference_mode(), full_float32(device):
        # No distance is longer than two vectors end to end.
        bound = max(_largest_norm(query) + _largest_norm(gallery), 1e-30) * (1 + 1e-9)
        width = bound / bins
        counts = torch.zeros(2 * (bins + 1), dtype=torch.int64, device=device)
        for query_span in spans(len(query), _QUERIES):
            query_qd = rows(query.features, query_span).to(device, torch.float64)
            for gallery_span in spans(len(gallery), _GALLERY):
                if within and gallery_span.stop - 1 <= query_span.start:
                    continue  # each pair of a set with itself once
                counted_qg, same_qg = _counted(
                    query, gallery, query_span, gallery_span, same_camera, left_out
                )
                if within:
                    columns_g = np.arange(gallery_span.start, gallery_span.stop)
                    counted_qg &= columns_g > np.arange(query_span.start, query_span.stop)[:, None]
                gallery_gd = rows(gallery.features, gallery_span).to(device, torch.float64)
                distances_qg = distances_by_product(query_qd, gallery_gd)
                distances_qg[distances_qg <= _EQUAL * bound] = 0
                places_qg = (distances_qg / width).ceil_().long().clamp_(max=bins)
                places_qg += torch.from_numpy(same_qg).to(device) * (bins + 1)
                chosen = places_qg[torch.from_numpy(counted_qg).to(device)]
                counts += torch.bincount(chosen, minlength=len(counts))
    different, same = counts.cpu().numpy().reshape(2, bins + 1)
    return PairHistogram(width, same, different)


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
        least = 1 / num_different if num_different else math.inf
        mend = (
            f"ask for {_rounded_up(least)} or more, or give more persons"
            if least < 1
            else "give more persons"
        )
        raise InputError(
            f"a false-match rate of {false_match_rate:g} is measured on {math.ceil(1 / false_match_rate):,} "
            "pairs of different people or more",
            f"{num_different:,} pairs",
            mend,
        )
    false_matches = histogram.different.cumsum()
    within = np.flatnonzero(false_matches <= allowed)
    if not len(within):
        raise InputError(
            "different people have different features",
            f"{false_matches[0]:,} of {num_different:,} pairs at distance 0",
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


def check_rate(false_match_rate: float) -> None:
    """Raises InputError for a false-match rate that is not between 0 and 1."""
    if not 0 < false_match_rate < 1:
        rule = "a false-match rate is a share of pairs between 0 and 1"
        raise InputError(rule, f"{false_match_rate:g}", "0.001 is one pair in a thousand")


def distances_by_product(first_md: Tensor, second_nd: Tensor) -> Tensor:
    """Euclidean distances (M, N) of rows of float64, by a matrix product.

    Fast and nearly exact; those of ``reidlib.distances`` are the same on every machine.
    """
    squares_m = (first_md * first_md).sum(1)
    squares_n = (second_nd * second_nd).sum(1)
    squared_mn = torch.addmm(squares_n, first_md, second_nd.T, alpha=-2).add_(squares_m[:, None])
    return squared_mn.clamp_(min=0).sqrt_()


def _largest_norm(embeddings: Embeddings) -> float:
    return max(
        float(torch.linalg.vector_norm(rows(embeddings.features, span).double(), dim=1).max())
        for span in spans(len(embeddings), _GALLERY)
    )


def _counted(
    query: Embeddings,
    gallery: Embeddings,
    query_span: slice,
    gallery_span: slice,
    same_camera: bool,
    left_out: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Boolean (Q, G) of a block: which pairs count, and which show one person."""
    persons_q, persons_g = query.person_ids[query_span, None], gallery.person_ids[None, gallery_span]
    cameras_q, cameras_g = query.camera_ids[query_span, None], gallery.camera_ids[None, gallery_span]
    same_qg = (persons_q == persons_g) & (persons_q > DISTRACTOR)
    counted_qg = (persons_q != JUNK) & (persons_g != JUNK)
    counted_qg &= (persons_q != DISTRACTOR) | (persons_g != DISTRACTOR)
    if not same_camera:
        counted_qg &= ~(same_qg & (cameras_q == cameras_g) & (cameras_q > UNKNOWN_CAMERA))
    if left_out is not None:
        queries, images = left_out
        here = (queries >= query_span.start) & (queries < query_span.stop)
        here &= (images >= gallery_span.start) & (images < gallery_span.stop)
        counted_qg[queries[here] - query_span.start, images[here] - gallery_span.start] = False
    return counted_qg, same_qg


def _rounded_up(share: float) -> str:
    digits = 1 - math.floor(math.log10(share))
    return f"{math.ceil(share * 10**digits - 1e-9) / 10**digits:g}"
