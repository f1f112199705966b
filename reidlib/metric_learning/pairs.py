"""Pairs of images that a metric learns from: the covariances of their differences, and who is in them."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from scipy import linalg, sparse

from reidlib.errors import InputError
from reidlib.metric_learning.coordinates import ROUNDING, check_memory

(_CONDITION,) = linalg.get_lapack_funcs(("pocon",), dtype=np.float64)
_RIDGE = 1e-6  # of the mean variance, for a covariance that has no inverse
_DRAWS = 4  # times that all dissimilar pairs are drawn, before the rest is drawn by number


class Pairs(NamedTuple):
    """Covariances of the differences of pairs, without a mean, and the numbers of pairs."""

    similar_dd: np.ndarray
    dissimilar_dd: np.ndarray
    num_similar: int
    num_dissimilar: int


def pairs_across_cameras(features_nd: np.ndarray, person_ids: np.ndarray, camera_ids: np.ndarray) -> Pairs:
    """Return the covariances of all pairs of images from different cameras; features are centred."""
    # Over all pairs of a group of n images, (x−y)(x−y)ᵀ sums to n·Σxxᵀ − ssᵀ, where s sums the images.
    # Pairs of a person in different cameras: those of the person less those of the person in each camera.
    _, persons_n = np.unique(person_ids, return_inverse=True)
    _, cameras_n = np.unique(camera_ids, return_inverse=True)
    both_n = persons_n * (cameras_n.max() + 1) + cameras_n
    groupings = persons_n, both_n, np.zeros_like(persons_n), cameras_n
    sums, numbers = zip(*(_pairs_within(features_nd, groups_n) for groups_n in groupings), strict=True)
    num_similar = numbers[0] - numbers[1]
    num_dissimilar = numbers[2] - numbers[3] - num_similar
    check_pairs(num_similar, num_dissimilar)
    similar_dd = sums[0] - sums[1]
    dissimilar_dd = sums[2] - sums[3] - similar_dd
    return Pairs(similar_dd / num_similar, dissimilar_dd / num_dissimilar, num_similar, num_dissimilar)


def _pairs_within(features_nd: np.ndarray, groups_n: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the sum (D, D) of outer products of differences of all pairs in groups, and their number."""
    _, groups_n, sizes_g = np.unique(groups_n, return_inverse=True, return_counts=True)
    cells = np.ones(len(groups_n)), groups_n, np.arange(len(groups_n) + 1)
    sums_gd = sparse.csr_array(cells, (len(groups_n), len(sizes_g))).T @ features_nd
    weighted_nd = features_nd * np.sqrt(sizes_g[groups_n])[:, None]
    return weighted_nd.T @ weighted_nd - sums_gd.T @ sums_gd, int((sizes_g * (sizes_g - 1) // 2).sum())


def covariance_of_pairs(features_nd: np.ndarray, first_p: np.ndarray, second_p: np.ndarray) -> np.ndarray:
    """Return the covariance (D, D) of the differences of listed pairs, without a mean."""
    # The sum over pairs is XᵀLX, with the Laplacian L of the graph whose edges are the pairs.
    num_images = len(features_nd)
    edges = sparse.coo_array((np.ones(len(first_p)), (first_p, second_p)), (num_images, num_images)).tocsr()
    edges = edges + edges.T
    laplacian = sparse.diags_array(np.asarray(edges.sum(1)).ravel()) - edges
    return features_nd.T @ (laplacian @ features_nd) / len(first_p)


def similar_pairs(person_ids: np.ndarray, camera_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """List all pairs of images of a person in different cameras."""
    sizes_c = np.unique(person_ids, return_counts=True)[1]
    num_pairs = int((sizes_c * (sizes_c - 1) // 2).sum())
    mend = 'learn from fewer images of a person, or from dissimilar="all", which lists no pairs'
    check_memory(8 * num_pairs, f"{num_pairs:,} pairs of images of one person, listed", mend)
    order = np.argsort(person_ids, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(person_ids[order])) + 1)
    pairs = [group[np.stack(np.triu_indices(len(group), 1))] for group in groups]
    first_p, second_p = np.concatenate(pairs, axis=1)
    across = camera_ids[first_p] != camera_ids[second_p]
    return first_p[across], second_p[across]


def sample_dissimilar_pairs(
    person_ids: np.ndarray, camera_ids: np.ndarray, count: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of images of different persons in different cameras, each independent of the others."""
    drawn = np.empty((2, 0), np.int64)
    for _ in range(_DRAWS):
        if drawn.shape[1] >= count:
            break
        pairs = generator.integers(0, len(person_ids), (2, 2 * count))
        different = (person_ids[pairs[0]] != person_ids[pairs[1]]) & (
            camera_ids[pairs[0]] != camera_ids[pairs[1]]
        )
        drawn = np.concatenate([drawn, pairs[:, different]], axis=1)
    else:  # most images are of one person, or in one camera
        more = _draw_by_number(person_ids, camera_ids, max(0, count - drawn.shape[1]), generator)
        drawn = np.concatenate([drawn, more], axis=1)
    return drawn[0, :count], drawn[1, :count]


def _draw_by_number(
    person_ids: np.ndarray, camera_ids: np.ndarray, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Draw dissimilar pairs (2, count) by their numbers in the list of all, which is not made."""
    # All images of a person in a camera have the same partners, which are listed once.
    _, groups_n = np.unique(np.stack([person_ids, camera_ids]), axis=1, return_inverse=True)
    ends_n = _partners(person_ids, camera_ids).cumsum()
    numbers_p = generator.integers(0, ends_n[-1], count)
    first_p = np.searchsorted(ends_n, numbers_p, side="right")
    order = np.argsort(groups_n[first_p], kind="stable")
    second_p, places_p = np.empty_like(first_p), ends_n[first_p] - 1 - numbers_p
    for pairs in np.split(order, np.flatnonzero(np.diff(groups_n[first_p[order]])) + 1):
        image = first_p[pairs[:1]]
        partners = np.flatnonzero((person_ids != person_ids[image]) & (camera_ids != camera_ids[image]))
        second_p[pairs] = partners[places_p[pairs]]
    return np.stack([first_p, second_p])


def _partners(person_ids: np.ndarray, camera_ids: np.ndarray) -> np.ndarray:
    """Return for each image (N,) how many are of other persons in other cameras."""
    alike_n = [
        np.unique(ids, axis=1, return_inverse=True, return_counts=True)[1:]
        for ids in (person_ids[None], camera_ids[None], np.stack([person_ids, camera_ids]))
    ]
    person_n, camera_n, both_n = (counts[groups] for groups, counts in alike_n)
    return len(person_ids) - person_n - camera_n + both_n


def count_dissimilar(person_ids: np.ndarray, camera_ids: np.ndarray) -> int:
    """Count the pairs of images of different persons in different cameras."""
    return int(_partners(person_ids, camera_ids).sum()) // 2


def pair_halves(
    person_ids: np.ndarray, camera_ids: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw two views of images from several cameras, as was read in code for MARS."""
    # The images of a person are shuffled, and the first half is paired with the second; pairs of one camera
    # are left out.
    views = []
    for person in np.unique(person_ids):
        images = generator.permutation(np.flatnonzero(person_ids == person))
        half = len(images) // 2
        views.append(images[: 2 * half].reshape(2, half))
    first_p, second_p = np.concatenate(views, axis=1)
    across = camera_ids[first_p] != camera_ids[second_p]
    return first_p[across], second_p[across]


def check_pairs(num_similar: int, num_dissimilar: int) -> None:
    """Raise InputError if there is no pair of one kind."""
    rule = "a metric learns from pairs of one person and of two persons, in different cameras"
    if not (num_similar and num_dissimilar):
        value = f"{num_similar:,} of one person and {num_dissimilar:,} of two"
        raise InputError(rule, value, "add persons whose images are from several cameras")


class Inverse(NamedTuple):
    """A covariance to which a ridge is added until it has an inverse, and its Cholesky factor."""

    covariance_dd: np.ndarray
    factor: tuple[np.ndarray, bool]
    ridge: float

    @classmethod
    def of(
        cls, covariance_dd: np.ndarray, name: str, ridge: float = 0.0, *, beside_dd: np.ndarray | None = None
    ) -> Inverse:
        """Add the ridge, and one more, with a warning, if the sum has no inverse yet."""
        size, mean = len(covariance_dd), float(np.trace(covariance_dd)) / len(covariance_dd)
        # A covariance of equal images is zero but for rounding, whose size is seen beside that of others.
        rounding = 0.0 if beside_dd is None else 1000 * ROUNDING * float(np.trace(beside_dd)) / size
        if not mean + ridge > rounding:
            raise InputError(f"{name} differ", "equal features of all pairs", "add other images")
        more, index = 0.0, np.diag_indices(size)
        for _ in range(8):
            total_dd = covariance_dd.copy()
            total_dd[index] += ridge + more
            norm = np.abs(total_dd).sum(0).max()
            try:
                factor = linalg.cho_factor(total_dd, lower=True)
                condition, _ = _CONDITION(factor[0], norm, uplo="L")
            except linalg.LinAlgError:
                condition = 0.0
            if condition > size * ROUNDING:
                if more:
                    warnings.warn(
                        f"the covariance of {name} is singular: a ridge of {more:.3g} was added to its "
                        "diagonal; more pairs, or PCA to fewer components, avoid it",
                        stacklevel=4,
                    )
                return cls(total_dd, factor, ridge + more)
            more = 10 * more or _RIDGE * mean
        raise InputError(
            f"the covariance of {name} has an inverse", "none with any ridge", "scale the features"
        )

    def solve(self, right_dn: np.ndarray) -> np.ndarray:
        """Return the inverse times a matrix."""
        return linalg.cho_solve(self.factor, right_dn)
