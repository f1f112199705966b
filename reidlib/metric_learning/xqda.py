"""XQDA: cross-view quadratic discriminant analysis, a subspace and a metric in it at once.

Liao, Hu, Zhu and Li, "Person Re-identification by Local Maximal Occurrence Representation and Metric
Learning", CVPR 2015. Formulas: read in the authors' code.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from scipy import linalg

from reidlib.errors import InputError
from reidlib.metric_learning.coordinates import Coordinates, check_memory
from reidlib.metric_learning.metric import (
    Features,
    LinearProjection,
    Metric,
    as_array,
    check_settings,
    check_training,
)
from reidlib.metric_learning.pairs import (
    Inverse,
    check_pairs,
    count_dissimilar,
    pair_halves,
    pairs_across_cameras,
)


@dataclass(kw_only=True, eq=False)
class XQDA(Metric):
    """XQDA: the directions in which persons differ more than views, and KISSME's matrix in them.

    A distance may be negative. The ridge was tuned for features of about unit length; they are not scaled
    here. With more numbers than images, all is computed in the space that the images span, as in the authors'
    code, which takes an orthonormal basis of it by QR; here it is found by the products of all pairs, so
    memory holds no float64 copy of the features.

    Args:
        ridge: λ, which is added to the diagonal of the covariance of similar pairs.
        dimensions: Largest number of directions; never more than have a value above 1. None: all of these.
            If there are none, the one with the largest value is kept, as in the authors' code, and a warning
            says so.
        values: "svd" takes singular vectors of the product of the inverse covariance of similar pairs and
            that of dissimilar ones, as the authors' code does. "generalised" takes the eigenvectors that
            discriminant analysis asks for. Directions, and sometimes their number, differ.
        pairs: With more than two cameras: "halves" pairs a random half of each person's images with the
            other, as was read in code for MARS, and takes them as two views; "all" learns from all pairs
            across cameras. With two cameras both are the same: the cameras are the views.
        seed: Seed of the halves.

    Attributes:
        spectrum: The values of the directions (R,), descending.
        ridge_used: The ridge and what was added beyond it because the covariance had no inverse.
    """

    ridge: float = field(default=0.001, metadata={"least": 0})
    dimensions: int | None = field(default=None, metadata={"least": 1})
    values: Literal["svd", "generalised"] = "svd"
    pairs: Literal["halves", "all"] = "halves"
    seed: int = field(default=0, metadata={"least": 0})
    spectrum: np.ndarray = field(init=False, repr=False)
    ridge_used: float = field(init=False, repr=False)

    def fit(self, features: Features, person_ids: np.ndarray, camera_ids: np.ndarray) -> Self:
        """Learn from pairs of images in different cameras.

        Args:
            features: Features of training (N, D).
            person_ids, camera_ids: Persons, above 0, and cameras, whole numbers (N,).

        Returns:
            The metric itself.

        Raises:
            InputError: If an input is not allowed, there are no pairs, or memory does not hold a covariance.
        """
        check_settings(self)
        images = check_training(features, person_ids, camera_ids)
        if self.pairs == "all" or len(np.unique(images.camera_ids)) == 2:
            return self._learn(*images)
        first_p, second_p = pair_halves(*images[1:], np.random.default_rng(self.seed))
        check_pairs(len(first_p), count_dissimilar(*images[1:]))
        rows, views = np.concatenate([first_p, second_p]), np.repeat([0, 1], len(first_p))
        # An image is in one view and in one pair at most, so it is copied once.
        return self._learn(images.features_nd[rows], images.person_ids[rows], views)

    def fit_views(
        self, gallery: Features, probe: Features, gallery_ids: np.ndarray, probe_ids: np.ndarray
    ) -> Self:
        """Learn from all pairs of a gallery and a probe image, the form of the authors' code.

        Args:
            gallery, probe: Features of the two views (N, D) and (M, D).
            gallery_ids, probe_ids: Their persons, above 0, whole numbers (N,) and (M,).

        Returns:
            The metric itself.

        Raises:
            InputError: As for ``fit``, or if the views' features have different lengths.
        """
        check_settings(self)
        gallery_nd, probe_md = as_array(gallery), as_array(probe)
        if gallery_nd.shape[1] != probe_md.shape[1]:
            value = f"{gallery_nd.shape[1]:,} and {probe_md.shape[1]:,} numbers"
            raise InputError("features of both views are equally long", value, "compute both in the same way")
        views = np.repeat([0, 1], [len(gallery_nd), len(probe_md)])
        persons = np.concatenate([np.asarray(gallery_ids), np.asarray(probe_ids)])
        return self._learn(*check_training(np.concatenate([gallery_nd, probe_md]), persons, views))

    def _learn(self, features_nd: np.ndarray, person_ids: np.ndarray, camera_ids: np.ndarray) -> Self:
        mend = "learn from fewer images, or from shorter features"
        coordinates = Coordinates.fit(features_nd, mend)
        size = coordinates.values_nk.shape[1]
        check_memory(8 * size**2, f"eight {size:,} × {size:,} covariances", mend)
        pairs = pairs_across_cameras(coordinates.values_nk, person_ids, camera_ids)
        similar = Inverse.of(pairs.similar_dd, "similar pairs", self.ridge, beside_dd=pairs.dissimilar_dd)
        self.ridge_used = similar.ridge
        self.spectrum, vectors_kr = self._directions(similar, pairs.dissimilar_dd)
        covariances = [
            vectors_kr.T @ each @ vectors_kr for each in (similar.covariance_dd, pairs.dissimilar_dd)
        ]
        # The form XQDA's authors and KISSME's share; turned to its axes, it is a signed Euclidean distance.
        inverses = [
            Inverse.of(each, f"{kind} pairs").solve(np.eye(len(each)))
            for each, kind in zip(covariances, ("similar", "dissimilar"), strict=True)
        ]
        values_r, axes_rr = linalg.eigh(inverses[0] - inverses[1])
        weights_dr = coordinates.weights(vectors_kr @ (axes_rr * np.sqrt(np.abs(values_r))))
        return self._learnt(LinearProjection(coordinates.mean_d, weights_dr), np.where(values_r < 0, -1, 1))

    def _directions(self, similar: Inverse, dissimilar_kk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return values above 1 (R,), descending, and their directions (K, R); the largest if none is."""
        if self.values == "generalised":
            problem = dissimilar_kk, similar.covariance_dd
        else:
            # Left singular vectors are the eigenvectors of AAᵀ, of which only some are needed.
            product_kk = similar.solve(dissimilar_kk)
            problem = (product_kk @ product_kk.T,)
        last = len(dissimilar_kk) - 1
        values_r, vectors_kr = linalg.eigh(*problem, subset_by_value=(1, np.inf))
        if not len(values_r):
            warnings.warn(
                "in no direction do two persons differ more than two images of one, with the ridge of "
                f"{similar.ridge:.3g}: the one direction with the largest value is kept; scale the features "
                "to about unit length, or choose a smaller ridge",
                stacklevel=4,
            )
            values_r, vectors_kr = linalg.eigh(*problem, subset_by_index=(last, last))
        if self.values == "svd":
            values_r = np.sqrt(values_r)
        return values_r[::-1][: self.dimensions], vectors_kr[:, ::-1][:, : self.dimensions]
