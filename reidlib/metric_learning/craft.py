"""CRAFT: features are augmented by how much cameras have in common, and then analysed by marginal Fisher.

Chen, Zhu, Zheng and Lai, "Person Re-Identification by Camera Correlation Aware Feature Augmentation", PAMI
2017. Formulas and defaults: read in the authors' code.

The authors' code stacks a scaled copy of a feature for each camera and whitens the stack. The inner product
of two such vectors is the kernel of the two images times one number for their two cameras. So no stack is
made: a kernel matrix is multiplied elementwise, it needs no inverse, and each camera gets one linear map.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

import numpy as np
from scipy import linalg

from reidlib.errors import InputError, shorten
from reidlib.metric_learning.coordinates import (
    ROUNDING,
    Coordinates,
    Span,
    check_memory,
    products_of_pairs,
    weighted_sums,
)
from reidlib.metric_learning.fisher import marginal_fisher
from reidlib.metric_learning.metric import Features, Metric, as_float32, check_settings, check_training

_SAMPLE = 100  # images of a camera whose principal axes are compared, as in the authors' code


class CameraProjection(NamedTuple):
    """A linear map for each camera, of features or of their roots."""

    cameras: np.ndarray  # (V,), ascending
    mean_d: np.ndarray
    weights_vdr: np.ndarray
    root: bool

    @property
    def length(self) -> int:
        """Return the length of a feature (D)."""
        return len(self.mean_d)

    def __call__(self, features_bd: np.ndarray, camera_ids: np.ndarray | None) -> np.ndarray:
        if camera_ids is None:
            rule = "CRAFT projects an image as its camera asks"
            raise InputError(rule, "no cameras", "pass the cameras of queries and gallery")
        if (unknown := np.setdiff1d(camera_ids, self.cameras)).size:
            rule = f"images are from the cameras of training: {shorten(self.cameras, 20)}"
            raise InputError(rule, shorten(unknown), "train with images of that camera, or leave it out")
        projected_br = np.empty((len(features_bd), self.weights_vdr.shape[2]), self.weights_vdr.dtype)
        for camera, weights_dr in zip(self.cameras, self.weights_vdr, strict=True):
            rows = camera_ids == camera
            if rows.any():
                values_bd = roots(features_bd[rows]) if self.root else features_bd[rows]
                projected_br[rows] = (values_bd - self.mean_d) @ weights_dr
        return projected_br

    def in_float32(self) -> Self:
        """Return the projection in float32, whose rounding is about that of the features themselves."""
        return self._replace(mean_d=as_float32(self.mean_d), weights_vdr=as_float32(self.weights_vdr))


@dataclass(kw_only=True, eq=False)
class CRAFT(Metric):
    """CRAFT, with the linear or the Bhattacharyya kernel, and its marginal Fisher analysis.

    Time and memory grow with the smaller of the number of images, and cameras times the length of features,
    so many images from many cameras ask for PCA: name its components. A query or a gallery image has its
    camera's map: ``project`` and ``distances`` need cameras.

    Args:
        kernel: "bhattacharyya", inner products of the roots of features of zero or more, or "linear".
        components: Principal components, of the roots or the features, before CRAFT; None means no PCA.
        discrepancy: β, how strongly cameras' maps are kept alike; from 0 to below 1 / (cameras − 1). None
            means 0.6 / (cameras − 1), our choice, which for two cameras is 0.6, as in the authors' code.
        dimensions: Largest number of dimensions.
        neighbours: Nearest images of the same person, and of others, that are joined.
        scatter_ridge: Share of the scatter within persons that is spread over its diagonal.
        seed: Seed of the 100 images of a camera by which cameras are compared, if it has more.

    Attributes:
        correlation: Weights (V, V) of the copies for each camera; column j is that of the j-th camera.
    """

    kernel: Literal["bhattacharyya", "linear"] = "bhattacharyya"
    components: int | None = None
    discrepancy: float | None = None
    dimensions: int = field(default=100, metadata={"least": 1})
    neighbours: tuple[int, int] = field(default=(10, 30), metadata={"least": 1})
    scatter_ridge: float = field(default=1e-8, metadata={"least": 0, "most": 1})
    seed: int = field(default=0, metadata={"least": 0})
    correlation: np.ndarray = field(init=False, repr=False)

    def fit(self, features: Features, person_ids: np.ndarray, camera_ids: np.ndarray) -> Self:
        """Learn from all images of training.

        Args:
            features: Features of training (N, D).
            person_ids, camera_ids: Persons, above 0, and cameras, whole numbers (N,).

        Returns:
            The metric itself.

        Raises:
            InputError: If an input is not allowed, ``discrepancy`` is too large for the number of cameras, a
                feature is negative for the Bhattacharyya kernel, or memory does not hold the kernel.
        """
        check_settings(self)
        images = check_training(features, person_ids, camera_ids)
        cameras, cameras_n = np.unique(images.camera_ids, return_inverse=True)
        _, persons_n, sizes_c = np.unique(images.person_ids, return_inverse=True, return_counts=True)
        if sizes_c.max() < 2:
            rule = "a person of training has at least two images"
            raise InputError(rule, f"one image of each of {len(sizes_c):,}", "add images")
        limit = 1 / (len(cameras) - 1)
        discrepancy = 0.6 * limit if self.discrepancy is None else self.discrepancy
        if not 0 <= discrepancy < limit:
            rule = f"with {len(cameras)} cameras, the discrepancy is from 0 to below {limit:.3g}"
            raise InputError(rule, self.discrepancy, f"choose None, which means {0.6 * limit:.3g}")
        values_nd = (
            roots(images.features_nd) if (root := self.kernel == "bhattacharyya") else images.features_nd
        )
        self.correlation = camera_correlation(images.features_nd, cameras_n, np.random.default_rng(self.seed))
        # Inner products of the stacks of two cameras, without the features: ΩᵀB⁻¹Ω.
        alike_vv = (1 + discrepancy) * np.eye(len(cameras)) - discrepancy
        whitened_vv = linalg.solve_triangular(
            linalg.cholesky(alike_vv, lower=True), self.correlation, lower=True
        )
        mean_d, coordinates = np.zeros(values_nd.shape[1]), None
        if self.components is not None:
            coordinates = Coordinates.fit(values_nd, "learn from fewer images", self.components)
            mean_d, values_nd = coordinates.mean_d, coordinates.values_nk
        weights_vdr = self._maps(values_nd, persons_n, cameras_n, whitened_vv)
        if coordinates is not None:
            weights_vdr = np.stack([coordinates.weights(each) for each in weights_vdr])
        projection = CameraProjection(cameras, mean_d, weights_vdr, root)
        return self._learnt(projection, np.ones(weights_vdr.shape[2]))

    def _maps(
        self, values_nd: np.ndarray, persons_n: np.ndarray, cameras_n: np.ndarray, whitened_vv: np.ndarray
    ) -> np.ndarray:
        """Return a linear map (D, R) for each camera, (V, D, R)."""
        (count, length), num_cameras = values_nd.shape, len(whitened_vv)
        size = min(count, num_cameras * length)
        mend = "name components, or learn from fewer images"
        check_memory(3 * count**2 + 6 * size**2, f"the kernel of {count:,} images and others like it", mend)
        origin_d = np.zeros(length)
        kernel_nn = products_of_pairs(values_nd, values_nd, origin_d)
        options = {
            "dimensions": self.dimensions, "neighbours": self.neighbours, "ridge": self.scatter_ridge,
        }  # fmt: skip
        if num_cameras * length < count:  # the stacks are shorter than their kernel
            stacks_ns = (whitened_vv.T[cameras_n][:, :, None] * values_nd[:, None]).reshape(count, -1)
            directions = marginal_fisher(
                stacks_ns, kernel_nn, persons_n, length=stacks_ns.shape[1], **options
            )
            directions_vdr = directions.reshape(num_cameras, length, -1)
            return np.einsum("uv,udr->vdr", whitened_vv, directions_vdr)
        products_vv = whitened_vv.T @ whitened_vv
        span = Span.of(kernel_nn * products_vv[cameras_n][:, cameras_n])
        # In the authors' code columns of the kernel are features: a stack has cameras times images numbers.
        length = num_cameras * count
        directions = marginal_fisher(span.values_nk, kernel_nn, persons_n, length=length, **options)
        weights_nr = span.basis_nk @ directions
        return np.stack(
            [
                weighted_sums(values_nd, origin_d, weights_nr * products_vv[cameras_n, camera, None])
                for camera in range(num_cameras)
            ]
        )


def camera_correlation(
    features_nd: np.ndarray, cameras_n: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return the weights (V, V) of copies: how near the principal axes of two cameras' images are."""
    axes = []
    for camera in range(cameras_n.max() + 1):
        rows = np.flatnonzero(cameras_n == camera)
        if len(rows) > _SAMPLE:
            rows = np.sort(generator.choice(rows, _SAMPLE, replace=False))
        images_sd = features_nd[rows].astype(np.float64)
        _, sizes_s, axes_sd = np.linalg.svd(images_sd - images_sd.mean(0), full_matrices=False)
        axes.append(axes_sd[sizes_s > max(images_sd.shape) * ROUNDING * sizes_s[0]])
    count = len(axes)
    correlation_vv = np.ones((count, count))
    for first in range(count):
        for second in range(first):
            if len(axes[first]) and len(axes[second]):  # else 1: one image has no axes
                cosines = np.linalg.svd(axes[first] @ axes[second].T, compute_uv=False)
                correlation_vv[first, second] = correlation_vv[second, first] = cosines.mean()
    mean_v = (correlation_vv.sum(0) - 1) / (count - 1)
    np.fill_diagonal(correlation_vv, 2 - mean_v)
    return correlation_vv / np.linalg.norm(correlation_vv, axis=0)


def roots(features_nd: np.ndarray) -> np.ndarray:
    """Return the square roots of features, or refuse negative ones."""
    if (smallest := features_nd.min()) < 0:
        mend = "choose the linear kernel"
        raise InputError("the Bhattacharyya kernel takes features of zero or more", f"{smallest:g}", mend)
    return np.sqrt(features_nd, dtype=np.promote_types(features_nd.dtype, np.float32))
