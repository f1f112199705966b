"""KISSME: a Mahalanobis distance from two covariances, without iterations.

Köstinger, Hirzer, Wohlhart, Roth and Bischof, "Large Scale Metric Learning from Equivalence Constraints",
CVPR 2012. The difference of two images of a person, and that of two persons, are each Gaussian with mean
zero; the distance is the logarithm of their ratio. Formulas and pairs: read in the authors' code and in code
for MARS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from scipy import linalg

from reidlib.errors import InputError
from reidlib.metric_learning.coordinates import Coordinates
from reidlib.metric_learning.metric import (
    Features,
    LinearProjection,
    Metric,
    check_features,
    check_settings,
    check_training,
)
from reidlib.metric_learning.pairs import (
    Inverse,
    Pairs,
    check_pairs,
    count_dissimilar,
    covariance_of_pairs,
    pairs_across_cameras,
    sample_dissimilar_pairs,
    similar_pairs,
)

_SMALLEST, _REPLACEMENT = (
    1e-10,
    1e-6,
)  # eigenvalues up to the first become the second, as in the authors' code


@dataclass(kw_only=True, eq=False)
class KISSME(Metric):
    """KISSME, after PCA if its number of components is named.

    The matrix is the inverse of the covariance of similar pairs less that of dissimilar pairs. A covariance
    without inverse gets a ridge, and a warning tells which. PCA to 200 components was read in code for MARS;
    the authors' demonstration speaks of 34.

    Args:
        components: Principal components of the features before KISSME; None means no PCA.
        dissimilar_weight: λ, the weight of dissimilar pairs.
        dissimilar: "sampled" draws as many dissimilar pairs as there are similar ones; "all" takes all of
            them, by sums of images, without drawing.
        semidefinite: Whether eigenvalues up to 1e-10 become 1e-6 if not all are positive.
        seed: Seed of the drawn pairs.

    Attributes:
        ridge: What was added to the diagonals of both covariances.
    """

    components: int | None = None
    dissimilar_weight: float = 1.0
    dissimilar: Literal["sampled", "all"] = "sampled"
    semidefinite: bool = True
    seed: int = field(default=0, metadata={"least": 0})
    ridge: tuple[float, float] = field(init=False, repr=False)

    def fit(self, features: Features, person_ids: np.ndarray, camera_ids: np.ndarray) -> Self:
        """Learn from all pairs of a person in different cameras, and pairs of two persons.

        Args:
            features: Features of training (N, D).
            person_ids, camera_ids: Persons, above 0, and cameras, whole numbers (N,).

        Returns:
            The metric itself.

        Raises:
            InputError: If an input is not allowed, there are no pairs, or memory holds no (D, D) covariance.
        """
        check_settings(self)
        images = check_training(features, person_ids, camera_ids)
        coordinates = self._coordinates(images.features_nd)
        values_nc = coordinates.values_nk
        if self.dissimilar == "all":
            return self._learn(coordinates, pairs_across_cameras(values_nc, *images[1:]))
        first_p, second_p = similar_pairs(*images[1:])
        check_pairs(len(first_p), count_dissimilar(*images[1:]))
        different = sample_dissimilar_pairs(*images[1:], len(first_p), np.random.default_rng(self.seed))
        return self._learn(coordinates, self._listed(values_nc, (first_p, second_p), different))

    def fit_pairs(
        self,
        features: Features,
        similar: tuple[np.ndarray, np.ndarray],
        dissimilar: tuple[np.ndarray, np.ndarray],
    ) -> Self:
        """Learn from listed pairs, as the authors' code does.

        Args:
            features: Features of training (N, D).
            similar: Rows, each of shape (P,), of the first and the second images of P pairs of one person.
            dissimilar: The same for pairs of two persons.

        Returns:
            The metric itself.

        Raises:
            InputError: If there are no pairs of a kind, or as for ``fit``.
        """
        check_settings(self)
        features_nd = check_features(features)
        similar, dissimilar = (_listed_rows(each, len(features_nd)) for each in (similar, dissimilar))
        check_pairs(len(similar[0]), len(dissimilar[0]))
        coordinates = self._coordinates(features_nd)
        return self._learn(coordinates, self._listed(coordinates.values_nk, similar, dissimilar))

    def _coordinates(self, features_nd: np.ndarray) -> Coordinates:
        return Coordinates.fit(features_nd, "learn from fewer images", self.components)

    @staticmethod
    def _listed(values_nc: np.ndarray, similar: tuple, dissimilar: tuple) -> Pairs:
        one, two = (covariance_of_pairs(values_nc, *pairs) for pairs in (similar, dissimilar))
        return Pairs(one, two, len(similar[0]), len(dissimilar[0]))

    def _learn(self, coordinates: Coordinates, pairs: Pairs) -> Self:
        similar = Inverse.of(pairs.similar_dd, "similar pairs", beside_dd=pairs.dissimilar_dd)
        dissimilar = Inverse.of(pairs.dissimilar_dd, "dissimilar pairs", beside_dd=pairs.similar_dd)
        self.ridge = similar.ridge, dissimilar.ridge
        identity = np.eye(len(pairs.similar_dd))
        matrix_cc = similar.solve(identity) - self.dissimilar_weight * dissimilar.solve(identity)
        values_c, vectors = linalg.eigh(matrix_cc)
        if self.semidefinite and not values_c[0] > 0:
            values_c[values_c <= _SMALLEST] = _REPLACEMENT
        weights_dr = coordinates.weights(vectors * np.sqrt(np.abs(values_c)))
        return self._learnt(LinearProjection(coordinates.mean_d, weights_dr), np.where(values_c < 0, -1, 1))


def _listed_rows(pairs: tuple[np.ndarray, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of listed pairs, or refuse them."""
    first_p, second_p = (np.asarray(rows) for rows in (pairs if len(pairs) == 2 else (pairs, ())))
    whole = all((rows.ndim == 1 and rows.dtype.kind in "iu") or not rows.size for rows in (first_p, second_p))
    if not whole or len(first_p) != len(second_p):
        value = f"{first_p.shape} {first_p.dtype} and {second_p.shape} {second_p.dtype}"
        rule = "pairs are two equally long lists of rows, whole numbers"
        raise InputError(rule, value, "list the first and the second image of each pair")
    for rows in (first_p, second_p):
        if (unknown := rows[(rows < 0) | (rows >= count)]).size:
            rule = f"pairs are of rows from 0 to {count - 1:,}, as there are features"
            raise InputError(rule, unknown[0], "pass the features of all listed images")
    return first_p, second_p
