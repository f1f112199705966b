"""What all learnt metrics share: checked input, a projection of images, and distances in it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, TypeAlias, get_type_hints

import numpy as np

from reidlib.errors import InputError, shorten
from reidlib.values import read_value

if TYPE_CHECKING:
    from torch import Tensor

    from reidlib.ranking import Embeddings

Features: TypeAlias = "Tensor | np.ndarray"
_NUMBERS = 2**22  # numbers of features that are projected at once
_LARGEST = 1e15  # as in ``ranking.Embeddings``


class Projection(Protocol):
    """Projects images in blocks: features (B, D) and cameras (B,) to (B, R)."""

    @property
    def length(self) -> int:
        """Return the length of a feature (D)."""
        ...

    def __call__(self, features_bd: np.ndarray, camera_ids: np.ndarray | None) -> np.ndarray: ...

    def in_float32(self) -> Self:
        """Return the projection of float32 features, which takes half the time in float32."""
        ...


class LinearProjection(NamedTuple):
    """A linear map of features less a mean."""

    mean_d: np.ndarray
    weights_dr: np.ndarray

    @property
    def length(self) -> int:
        """Return the length of a feature (D)."""
        return len(self.mean_d)

    def __call__(self, features_bd: np.ndarray, camera_ids: np.ndarray | None) -> np.ndarray:
        return (features_bd - self.mean_d) @ self.weights_dr

    def in_float32(self) -> Self:
        """Return the projection in float32, whose rounding is about that of the features themselves."""
        return self._replace(mean_d=as_float32(self.mean_d), weights_dr=as_float32(self.weights_dr))


class Training(NamedTuple):
    """Checked images of training."""

    features_nd: np.ndarray
    person_ids: np.ndarray
    camera_ids: np.ndarray


@dataclass(kw_only=True, eq=False)
class Metric(ABC):
    """A metric learnt from features of images whose persons and cameras are known.

    The metric is a projection and a sign for each of its dimensions: the squared distance of two images is
    the sum of their signed squared differences. Without negative signs it is Euclidean in the projection.

    After one projection of the gallery, a query costs what it costs by L2 in as many dimensions (R). The
    projection costs about as much as R queries by L2 of D numbers; with a kernel, N·(1 + R/D) queries, for N
    images of training. So 1,000 queries by NFST with a kernel of 1,940 images cost three times those by L2.

    Attributes:
        signs: +1 or −1 for each dimension of the projection, shape (R,), after ``fit``.
    """

    signs: np.ndarray = field(init=False, repr=False)
    _projection: Projection | None = field(init=False, repr=False, default=None)

    @abstractmethod
    def fit(self, features: Features, person_ids: np.ndarray, camera_ids: np.ndarray) -> Self:
        """Learn the metric; see each class."""

    @property
    def weights(self) -> np.ndarray | None:
        """Return the weights (D, R) of a linear projection; None for a kernel, or a map for each camera."""
        projection = self._fitted()
        return projection.weights_dr if isinstance(projection, LinearProjection) else None

    def project(self, features: Features, camera_ids: np.ndarray | None = None) -> np.ndarray:
        """Project images into the space in which the metric compares them.

        Features of float16 and float32 are projected in float32, unless a kernel's weights magnify rounding.

        Args:
            features: Floats (N, D): a tensor, an array or a memory map, which is read in blocks.
            camera_ids: Cameras of the images (N,); only CRAFT, which projects each camera differently, needs
                them.

        Returns:
            Projected features (N, R), float64.

        Raises:
            InputError: If the metric is not fitted, was fitted on features of another length, or a feature is
                not finite; for CRAFT if cameras are missing or were not in training.
        """
        projection = self._fitted()
        features_nd = as_array(features)
        if features_nd.dtype != np.float64:
            projection = projection.in_float32()
        if features_nd.shape[1] != projection.length:
            rule = f"features have {projection.length:,} numbers, as those that the metric was fitted on"
            raise InputError(
                rule, f"{features_nd.shape[1]:,}", "pass features of the same kind, or fit again"
            )
        if camera_ids is not None:
            camera_ids = _ids("camera_ids", camera_ids, len(features_nd))
        projected_nr = np.empty((len(features_nd), len(self.signs)))
        for rows in _blocks(features_nd):
            check_finite(features_nd[rows], rows.start)
            projected_nr[rows] = projection(
                features_nd[rows], None if camera_ids is None else camera_ids[rows]
            )
        return projected_nr

    def distances(
        self,
        query: Features,
        gallery: Features,
        query_cameras: np.ndarray | None = None,
        gallery_cameras: np.ndarray | None = None,
    ) -> np.ndarray:
        """Compute the distances of all pairs, for sets of which memory holds all pairs.

        Args:
            query, gallery: Features (Q, D) and (G, D).
            query_cameras, gallery_cameras: Cameras (Q,) and (G,), for CRAFT.

        Returns:
            Distances (Q, G), float64, as the metric's source computes them: the quadratic form, which is a
            squared distance and for XQDA may be negative; for ``NullSpace`` Euclidean distances.

        Raises:
            InputError: As for ``project``.
        """
        query_qr, gallery_gr = self.project(query, query_cameras), self.project(gallery, gallery_cameras)
        middle_r = gallery_gr.mean(0)  # near it rounding is smallest
        query_qr, gallery_gr = query_qr - middle_r, gallery_gr - middle_r
        distances_qg = (query_qr * (-2 * self.signs)) @ gallery_gr.T
        distances_qg += (query_qr**2 @ self.signs)[:, None]
        distances_qg += gallery_gr**2 @ self.signs
        if (self.signs > 0).all():
            np.maximum(distances_qg, 0, out=distances_qg)
        return distances_qg

    def embeddings(self, query: Embeddings, gallery: Embeddings) -> tuple[Embeddings, Embeddings]:
        """Return features whose Euclidean distances rank as the metric does, for ``ranking.evaluate``.

        No matrix of all pairs is needed. If all signs are positive, these are the projections. Otherwise the
        squared Euclidean distance is the metric's plus a number for each query, which changes no ranked list:
        the dimensions with negative signs are negated in the gallery, and one more dimension, zero in
        queries, gives each gallery image what it lacks to the longest.

        Args:
            query, gallery: Features (Q, D) and (G, D), persons and cameras.

        Returns:
            Queries (Q, R) and gallery (G, R), one dimension more with negative signs; float64, the same ids.

        Raises:
            InputError: As for ``project``.
        """
        from reidlib.ranking import Embeddings  # it loads torch, which nothing else here needs

        projected = [self.project(side.features, side.camera_ids) for side in (query, gallery)]
        negative = self.signs < 0
        if negative.any():
            middle_r = projected[1].mean(0)  # near it rounding is smallest
            longer = [np.zeros((len(side), len(middle_r) + 1)) for side in projected]
            for side, longer_nr in zip(projected, longer, strict=True):
                np.subtract(side, middle_r, out=longer_nr[:, :-1])
            # −|x−z|² = |x+z|² − 2|x|² − 2|z|²: the last term moves to the further dimension, as its square.
            projected, gallery_gr = longer, longer[1]
            squares_g = 2 * (gallery_gr[:, :-1][:, negative] ** 2).sum(1)
            gallery_gr[:, :-1] *= self.signs
            gallery_gr[:, -1] = np.sqrt(squares_g.max() - squares_g)
        (query_qr, gallery_gr), sides = projected, (query, gallery)
        return tuple(
            Embeddings(features, side.person_ids, side.camera_ids)
            for features, side in zip((query_qr, gallery_gr), sides, strict=True)
        )  # pyright: ignore[reportReturnType]

    def _fitted(self) -> Projection:
        """Return the projection, or refuse if there is none yet."""
        if self._projection is None:
            raise InputError("a metric is fitted before it is used", "no fit", "call fit first")
        return self._projection

    def _learnt(self, projection: Projection, signs_r: np.ndarray) -> Self:
        """Set what was learnt."""
        self._projection, self.signs = projection, signs_r.astype(np.float64)
        return self


def as_float32(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float32)


def check_settings(metric: Metric) -> None:
    """Read a metric's settings as their declared types and within their fields' bounds, or refuse them."""
    kinds = get_type_hints(type(metric))
    for setting in (each for each in fields(metric) if each.init):
        value = read_value(setting.name, getattr(metric, setting.name), kinds[setting.name])
        least, most = (
            setting.metadata.get(name, end) for name, end in (("least", -math.inf), ("most", math.inf))
        )
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not least <= number <= most:
                rule = f"{setting.name} is at least {least}" + (
                    f" and at most {most}" if most < math.inf else ""
                )
                raise InputError(rule, number, f"choose for example {setting.default}")
        setattr(metric, setting.name, value)


def check_training(
    features: Features, person_ids: Iterable, camera_ids: Iterable, *, cameras: int = 2
) -> Training:
    """Check images of training, from so many cameras at least, or raise InputError."""
    features_nd = check_features(features)
    ids = [
        _ids(title, values, len(features_nd))
        for title, values in (("person_ids", person_ids), ("camera_ids", camera_ids))
    ]
    images = Training(features_nd, *ids)
    if (unknown := images.person_ids[images.person_ids < 1]).size:
        rule = "images of training show known persons, whose ids are above 0"
        raise InputError(rule, shorten(np.unique(unknown)), "leave junk and distractors out")
    if len(known := np.unique(images.camera_ids)) < cameras:
        rule = "images of training are from at least two cameras"
        raise InputError(rule, f"camera {known[0]} only", "add images from another camera")
    if len(persons := np.unique(images.person_ids)) < 2:
        rule = "images of training show at least two persons"
        raise InputError(rule, f"person {persons[0]} only", "add images of another person")
    if not any((features_nd[rows] != features_nd[0]).any() for rows in _blocks(features_nd)):
        raise InputError("images of training differ", "equal features of all images", "embed them again")
    return images


def check_features(features: Features) -> np.ndarray:
    """Return finite features (N, D) as a numpy array, or refuse them."""
    features_nd = as_array(features)
    for rows in _blocks(features_nd):
        check_finite(features_nd[rows], rows.start)
    return features_nd


def _blocks(features_nd: np.ndarray) -> list[slice]:
    """Return blocks of rows."""
    size = max(1, _NUMBERS // features_nd.shape[1])
    return [slice(start, start + size) for start in range(0, len(features_nd), size)]


def as_array(features: Features) -> np.ndarray:
    """Return features (N, D) as a numpy array of floats, or refuse them."""
    if hasattr(features, "detach"):
        features = features.detach().cpu()  # pyright: ignore[reportAttributeAccessIssue]
        # numpy has no bfloat16.
        features = (features.float() if str(features.dtype) == "torch.bfloat16" else features).numpy()
    dtype = getattr(features, "dtype", type(features).__name__)
    if dtype not in (np.float16, np.float32, np.float64) or features.ndim != 2 or 0 in features.shape:
        value = f"{tuple(np.shape(features))} {dtype}"
        raise InputError("features are a non-empty (N, D) array of floats", value, "convert them")
    return np.asarray(features)


def check_finite(features_nd: np.ndarray, first_row: int) -> None:
    """Raise InputError at a feature that is not finite or too large; rows are counted from ``first_row``."""
    largest_n = np.abs(features_nd).max(1).astype(np.float64)
    if (invalid_n := ~(largest_n <= _LARGEST)).any():  # NaN too
        row = int(invalid_n.argmax())
        value = f"{largest_n[row]:g} in row {first_row + row}"
        raise InputError(f"features are finite and at most {_LARGEST:g}", value, "embed that image again")


def _ids(title: str, ids: Iterable, count: int) -> np.ndarray:
    """Return ids (N,) as int64, or refuse them."""
    ids = ids.cpu().numpy() if hasattr(ids, "cpu") else np.asarray(ids)  # pyright: ignore[reportAttributeAccessIssue]
    if ids.shape != (count,) or ids.dtype.kind not in "iu":
        rule = f"{title} hold one whole number for each of the {count} rows of features"
        raise InputError(rule, f"{ids.shape} {ids.dtype}", "pass features and ids of the same images")
    return ids.astype(np.int64)
