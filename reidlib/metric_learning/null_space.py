"""NFST: directions in which the images of a person coincide, and persons do not.

Zhang, Xiang and Gong, "Learning a Discriminative Null Space for Person Re-identification", CVPR 2016; the
slides of JLML print NFST and NSFT. Formulas: read in the authors' code, whose kernel null space is by
Bodesheim et al., CVPR 2013.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from scipy import linalg

from reidlib.errors import InputError
from reidlib.metric_learning.coordinates import ROUNDING, Coordinates, Span, check_memory
from reidlib.metric_learning.kernels import ChiSquare, Kernel, RadialBasis
from reidlib.metric_learning.metric import (
    Features,
    LinearProjection,
    Metric,
    as_float32,
    check_settings,
    check_training,
)

_SMALLEST = 1e-12  # of a kernel's eigenvalues, as in the authors' code
_NOISE = 1e-4  # of the spread of images, which rounding may add
_KERNELS: dict[str, type[Kernel]] = {"rbf": RadialBasis, "chi-square": ChiSquare}


class KernelProjection(NamedTuple):
    """Sums of an image's kernel values with the images of training, times weights."""

    kernel: Kernel
    training_nd: np.ndarray
    spread: float  # root mean squared length of a projected image of training, from their mean
    weights_nr: np.ndarray

    @property
    def length(self) -> int:
        """Return the length of a feature (D)."""
        return self.training_nd.shape[1]

    def __call__(self, features_bd: np.ndarray, camera_ids: np.ndarray | None) -> np.ndarray:
        return self.kernel(features_bd, self.training_nd) @ self.weights_nr

    def in_float32(self) -> Self:
        """Return the projection in float32 if its rounding moves no image noticeably."""
        kernel = self.kernel
        # Rounding of kernel values, which are at most 1, is that of each alone, unlike that of a feature.
        noise = np.finfo(np.float32).eps * float(np.linalg.norm(self.weights_nr))
        if not isinstance(kernel, RadialBasis) or noise > _NOISE * self.spread:
            return self
        kernel = kernel._replace(mean_d=as_float32(kernel.mean_d))
        return self._replace(kernel=kernel, weights_nr=as_float32(self.weights_nr))


@dataclass(kw_only=True, eq=False)
class NullSpace(Metric):
    """NFST (also NSFT): the null space of the scatter within persons, of images centred in a kernel's space.

    With at least as many independent dimensions as images, all images of a person in training coincide, in a
    space of one dimension less than persons. With fewer there may be no null space; then the one direction
    with the smallest scatter is kept, as in the authors' code, and a warning says so: a kernel gives more
    dimensions. Cameras are not used; one is enough.

    Args:
        kernel: "linear"; "rbf", exp(−d²/2μ²) with 2μ² the mean squared distance of training, which the
            authors' code uses with LOMO; or "chi-square", exp(−χ²/2ω) with ω the mean χ², for features of
            zero or more.

    Attributes:
        dimensions: Dimensions of the null space (R); 1 if it is empty.
    """

    kernel: Literal["linear", "rbf", "chi-square"] = "rbf"

    @property
    def dimensions(self) -> int:
        """Return the dimensions of the projection."""
        self._fitted()
        return len(self.signs)

    def fit(self, features: Features, person_ids: np.ndarray, camera_ids: np.ndarray) -> Self:
        """Learn from all images of training.

        Args:
            features: Features of training (N, D). With a kernel they are kept, not copied.
            person_ids, camera_ids: Persons, above 0, and cameras, whole numbers (N,).

        Returns:
            The metric itself.

        Raises:
            InputError: If an input is not allowed, no person has two images, or memory does not hold the
                (N, N) kernel.
        """
        check_settings(self)
        images = check_training(features, person_ids, camera_ids, cameras=1)
        _, persons_n, sizes_c = np.unique(images.person_ids, return_inverse=True, return_counts=True)
        if sizes_c.max() < 2:
            rule = "a person of training has at least two images"
            raise InputError(rule, f"one image of each of {len(sizes_c):,}", "add images")
        projection = (self._linear if self.kernel == "linear" else self._kernel)(
            images.features_nd, persons_n
        )
        return self._learnt(projection, np.ones(projection[-1].shape[1]))  # of the weights

    def distances(self, *sides, **cameras) -> np.ndarray:
        """Compute Euclidean distances (Q, G) of all pairs; see ``Metric.distances``."""
        return np.sqrt(super().distances(*sides, **cameras))

    def _linear(self, features_nd: np.ndarray, persons_n: np.ndarray) -> LinearProjection:
        coordinates = Coordinates.fit(features_nd, "learn from fewer images, or from shorter features")
        return LinearProjection(
            coordinates.mean_d, coordinates.weights(null_space(coordinates.values_nk, persons_n))
        )

    def _kernel(self, features_nd: np.ndarray, persons_n: np.ndarray) -> KernelProjection:
        count = len(features_nd)
        mend = "learn from fewer images, or choose the linear kernel"
        check_memory(6 * count**2, f"the kernel of {count:,} images and five matrices of its size", mend)
        kernel, kernel_nn = _KERNELS[self.kernel].fit(features_nd)
        means_n = kernel_nn.mean(0)
        kernel_nn += means_n.mean() - means_n - means_n[:, None]
        span = Span.of(kernel_nn, _SMALLEST)
        vectors_kr = null_space(span.values_nk, persons_n)
        spread = float(np.linalg.norm(span.values_nk @ vectors_kr)) / count**0.5
        weights_nr = span.basis_nk @ vectors_kr
        weights_nr -= weights_nr.mean(0)  # so that kernel values of other images need no centring
        return KernelProjection(kernel, features_nd, spread, weights_nr)


def null_space(coordinates_nk: np.ndarray, persons_n: np.ndarray) -> np.ndarray:
    """Return orthonormal vectors (K, R) along which images (N, K) of a person coincide, or one vector."""
    sums_ck = np.zeros((persons_n.max() + 1, coordinates_nk.shape[1]))
    np.add.at(sums_ck, persons_n, coordinates_nk)
    means_ck = sums_ck / np.bincount(persons_n)[:, None]
    within_nk = coordinates_nk - means_ck[persons_n]
    scatter_kk = within_nk.T @ within_nk
    size = len(scatter_kk)
    # MATLAB's limit, with Frobenius's norm in place of the largest singular value, which takes long.
    norm, rounding = float(np.linalg.norm(scatter_kk)), size * ROUNDING
    # Where the images of each person coincide, the scatter is rounding itself; all is in the null space.
    limit = norm if norm <= rounding * float(np.linalg.norm(coordinates_nk)) ** 2 else rounding * norm
    _, vectors_kr = linalg.eigh(scatter_kk, subset_by_value=(-np.inf, limit))
    if vectors_kr.shape[1]:
        return vectors_kr
    warnings.warn(
        f"{len(coordinates_nk):,} images have {size:,} independent dimensions and differ within persons in "
        "all of them: there is no null space, and the one direction with the smallest scatter is kept; "
        "choose a kernel or longer features",
        stacklevel=4,
    )
    return linalg.eigh(scatter_kk, subset_by_index=(0, 0))[1]
