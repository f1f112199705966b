"""Kernels of pairs of images, whose widths are means over the pairs of training."""

from __future__ import annotations

from typing import NamedTuple, Protocol, Self

import numpy as np

from reidlib.errors import InputError
from reidlib.metric_learning.coordinates import ROUNDING, mean_of, squared_distances

_NUMBERS = 2**18  # numbers of differences that fit a core's cache


class Kernel(Protocol):
    """A kernel of two sets of images, (M, D) and (N, D) to (M, N)."""

    @classmethod
    def fit(cls, training_nd: np.ndarray) -> tuple[Self, np.ndarray]:
        """Return the kernel and its values (N, N) for the pairs of training."""
        ...

    def __call__(self, first_md: np.ndarray, second_nd: np.ndarray) -> np.ndarray: ...


class RadialBasis(NamedTuple):
    """exp(−d² / (2μ²)), with 2μ² the mean d² of all pairs, those of an image and itself too."""

    mean_squared: float
    mean_d: np.ndarray

    @classmethod
    def fit(cls, training_nd: np.ndarray) -> tuple[Self, np.ndarray]:
        """Return the kernel and its values for the pairs of training."""
        mean_d = mean_of(training_nd)
        squared_nn = squared_distances(training_nd, training_nd, mean_d)
        kernel = cls(_width(squared_nn), mean_d)
        return kernel, kernel._values(squared_nn)

    def __call__(self, first_md: np.ndarray, second_nd: np.ndarray) -> np.ndarray:
        return self._values(squared_distances(first_md, second_nd, self.mean_d))

    def _values(self, squared_mn: np.ndarray) -> np.ndarray:
        squared_mn /= -self.mean_squared
        return np.exp(squared_mn, out=squared_mn)


class ChiSquare(NamedTuple):
    """exp(−χ² / (2ω)), with ω the mean of χ² = Σ (x−y)² / (x+y) over all pairs of training."""

    # ω is that of training also for other images; the authors' demonstration computes it anew for each set.

    mean: float

    @classmethod
    def fit(cls, training_nd: np.ndarray) -> tuple[Self, np.ndarray]:
        """Return the kernel and its values for the pairs of training."""
        _check_positive(training_nd)
        chi_nn = _chi_square(training_nd, training_nd)
        kernel = cls(_width(chi_nn))
        return kernel, kernel._values(chi_nn)

    def __call__(self, first_md: np.ndarray, second_nd: np.ndarray) -> np.ndarray:
        _check_positive(first_md)
        return self._values(_chi_square(first_md, second_nd))

    def _values(self, chi_mn: np.ndarray) -> np.ndarray:
        chi_mn /= -2 * self.mean
        return np.exp(chi_mn, out=chi_mn)


def _width(distances_nn: np.ndarray) -> float:
    """Return the mean, which is zero only without any difference."""
    if not (mean := float(distances_nn.mean())) > 0:
        raise InputError("images of training differ", "equal features of all images", "embed them again")
    return mean


def _chi_square(first_md: np.ndarray, second_nd: np.ndarray) -> np.ndarray:
    """Return Σ (x−y)² / (x+y) of all pairs (M, N)."""
    chi_mn = np.empty((len(first_md), len(second_nd)))
    size = max(1, _NUMBERS // first_md.shape[1])
    for start in range(0, len(second_nd), size):
        columns = slice(start, start + size)
        block_nd = second_nd[columns].astype(np.float64)
        for row, first_d in enumerate(first_md):
            if second_nd is first_md and row >= start + size:
                break  # the pairs of a set with itself are computed once
            sums_nd = block_nd + first_d
            sums_nd += ROUNDING
            differences_nd = block_nd - first_d
            differences_nd *= differences_nd
            differences_nd /= sums_nd
            chi_mn[row, columns] = differences_nd.sum(1)
    if second_nd is first_md:
        below = np.tril_indices(len(chi_mn), -1)
        chi_mn[below] = chi_mn.T[below]
    return chi_mn


def _check_positive(features_md: np.ndarray) -> None:
    """Raise InputError at a negative feature."""
    smallest = features_md.min()
    if smallest < 0:
        mend = "choose the kernel rbf or linear"
        raise InputError("the exp-χ² kernel takes features of zero or more", f"{smallest:g}", mend)
