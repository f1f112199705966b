"""Training images in the space that they span, which is smaller than that of their features.

LOMO describes an image by up to 35,722 numbers, and there are fewer images. All that a metric learns lies in
what they span. Their coordinates in it follow from products of all pairs of images, in blocks of columns, so
no float64 copy of the features is made. XQDA's authors use a QR decomposition for this: another basis of the
same space, with the same distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import linalg

from reidlib.errors import InputError
from reidlib.memory import available_memory

_COLUMNS = 1024  # columns of features that are copied to float64 at once
_CHOLESKY, _INVERSE = linalg.get_lapack_funcs(("pstrf", "trtri"), dtype=np.float64)
ROUNDING = np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Centred images in an orthonormal basis of the space that they span."""

    values_nk: np.ndarray  # the coordinates of N images, float64
    features_nd: np.ndarray
    mean_d: np.ndarray
    _basis: np.ndarray | None  # (N, K): the basis is sums of centred images; (D, K); or None: it is the axes

    @classmethod
    def fit(cls, features_nd: np.ndarray, mend: str, components: int | None = None) -> Coordinates:
        """Find the basis; with ``components``, that of so many principal components."""
        # ``mend`` is what to do if memory does not hold the products of all pairs.
        num_images, length = features_nd.shape
        size = min(num_images, length)
        check_memory(6 * size**2 + 2 * num_images * _COLUMNS, f"{size:,} × {size:,} products", mend)
        mean_d = mean_of(features_nd)
        if length > num_images:
            span = Span.of(products_of_pairs(features_nd, features_nd, mean_d))
            images = cls(span.values_nk, features_nd, mean_d, span.basis_nk)
        else:
            centred_nd = features_nd - mean_d
            span = Span.of(centred_nd.T @ centred_nd)
            if span.values_nk.shape[1] == length:
                images = cls(centred_nd, features_nd, mean_d, None)
            else:
                basis_dk = np.linalg.qr(span.values_nk)[0]
                images = cls(centred_nd @ basis_dk, features_nd, mean_d, basis_dk)
        return images if components is None else images._principal(components)

    def _principal(self, components: int) -> Coordinates:
        """Return the coordinates along the axes of largest variance."""
        num_images, size = self.values_nk.shape
        if not 1 <= components <= size:
            rule = f"{num_images:,} images of training have 1 to {size:,} principal components"
            raise InputError(rule, components, "choose another number")
        products_kk = self.values_nk.T @ self.values_nk
        axes_kc = linalg.eigh(products_kk, subset_by_index=(size - components, size - 1))[1][:, ::-1]
        basis = axes_kc if self._basis is None else self._basis @ axes_kc
        return Coordinates(self.values_nk @ axes_kc, self.features_nd, self.mean_d, basis)

    def weights(self, vectors_kr: np.ndarray) -> np.ndarray:
        """Return vectors of these coordinates as weights (D, R) of centred features."""
        if self._basis is None:
            return vectors_kr
        if len(self._basis) == self.features_nd.shape[1]:
            return self._basis @ vectors_kr
        return weighted_sums(self.features_nd, self.mean_d, self._basis @ vectors_kr)


class Span(NamedTuple):
    """Vectors in an orthonormal basis of their span, from their inner products."""

    values_nk: np.ndarray  # the coordinates of N vectors
    basis_nk: np.ndarray  # each basis vector as a sum of the vectors

    @classmethod
    def of(cls, products_nn: np.ndarray, smallest: float = 0.0) -> Span:
        """Compute the basis by a pivoted Cholesky decomposition, a tenth of the time of an eigenbasis."""
        # Directions whose squared length is rounding, or at most ``smallest``, are left out.
        count, largest = len(products_nn), products_nn.diagonal().max()
        if not largest > 0:
            raise InputError("images of training differ", "equal features of all images", "embed them again")
        limit = max(smallest, count * ROUNDING * largest)
        factor_nn, pivots, rank, _ = _CHOLESKY(products_nn, tol=limit, lower=1)
        order, lower_nk = pivots - 1, np.tril(factor_nn[:, :rank])
        values_nk, basis_nk = np.empty((count, rank)), np.zeros((count, rank))
        values_nk[order] = lower_nk
        inverse_kk, _ = _INVERSE(lower_nk[:rank], lower=1)
        basis_nk[order[:rank]] = inverse_kk.T
        return cls(values_nk, basis_nk)


def mean_of(features_nd: np.ndarray) -> np.ndarray:
    """Return the mean (D,) of features in float64."""
    return np.asarray(np.mean(features_nd, axis=0, dtype=np.float64))


def weighted_sums(features_nd: np.ndarray, mean_d: np.ndarray, weights_nr: np.ndarray) -> np.ndarray:
    """Return the sums (D, R) of centred images, each times its weights."""
    sums_dr = np.empty((features_nd.shape[1], weights_nr.shape[1]))
    for columns in _spans(len(sums_dr)):
        sums_dr[columns] = (features_nd[:, columns] - mean_d[columns]).T @ weights_nr
    return sums_dr


def products_of_pairs(first_md: np.ndarray, second_nd: np.ndarray, mean_d: np.ndarray) -> np.ndarray:
    """Compute the inner products (M, N) of all pairs of centred images in the type of the mean."""
    products_mn = np.zeros((len(first_md), len(second_nd)), mean_d.dtype)
    for columns in _spans(len(mean_d)):
        block_mc = first_md[:, columns] - mean_d[columns]
        other_nc = block_mc if second_nd is first_md else second_nd[:, columns] - mean_d[columns]
        products_mn += block_mc @ other_nc.T  # of an array by itself numpy computes one half
    return products_mn


def squared_distances(first_md: np.ndarray, second_nd: np.ndarray, mean_d: np.ndarray) -> np.ndarray:
    """Compute the squared Euclidean distances (M, N) of all pairs; near ``mean_d`` rounding is smallest."""
    squared_mn = products_of_pairs(first_md, second_nd, mean_d)
    squared_mn *= -2
    squared_mn += _squares(first_md, mean_d)[:, None]
    squared_mn += _squares(second_nd, mean_d)
    if second_nd is first_md:
        np.fill_diagonal(squared_mn, 0)
    return np.maximum(squared_mn, 0, out=squared_mn)


def _squares(features_nd: np.ndarray, mean_d: np.ndarray) -> np.ndarray:
    """Return the squared length (N,) of each centred image."""
    blocks = ((features_nd[:, columns] - mean_d[columns]) ** 2 for columns in _spans(len(mean_d)))
    return sum((block.sum(1) for block in blocks), np.zeros(len(features_nd), mean_d.dtype))


def _spans(length: int) -> list[slice]:
    """Return blocks of columns."""
    return [slice(start, start + _COLUMNS) for start in range(0, length, _COLUMNS)]


def check_memory(numbers: int, what: str, mend: str) -> None:
    """Raise InputError if free memory does not hold so many numbers of float64."""
    needed, available = 8 * numbers, available_memory()
    if available and needed > available:
        value = f"{what}, {needed / 2**30:.1f} GiB, in {available / 2**30:.1f} GiB of free memory"
        raise InputError("memory holds what a metric learns from", value, mend)
