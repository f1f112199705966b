"""Marginal Fisher analysis: neighbours of a person come close, neighbours of other persons move away."""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse

from reidlib.metric_learning.pairs import Inverse

_ROWS = 512  # images whose neighbours are sorted at once


def marginal_fisher(
    coordinates_nk: np.ndarray,
    kernel_nn: np.ndarray,
    persons_n: np.ndarray,
    *,
    dimensions: int,
    neighbours: tuple[int, int],
    ridge: float,
    length: int,
) -> np.ndarray:
    """Return the directions (K, R) of marginal Fisher analysis; R is at most ``dimensions``."""
    # Read in the code of CRAFT's authors: each image is joined with its nearest images of the same person,
    # and with its nearest images of others, by distances in the kernel. The ridge is a share of the scatter
    # within persons, spread over the ``length`` of the vectors whose coordinates are given.
    same, other = (
        _neighbour_graph(kernel_nn, persons_n, kind, count) for kind, count in enumerate(neighbours)
    )
    within_kk, between_kk = (_scatter(coordinates_nk, graph) for graph in (same, other))
    share = ridge * np.trace(within_kk) / length
    within_kk = Inverse.of(
        (1 - ridge) * within_kk, "neighbours of one person", share, beside_dd=between_kk
    ).covariance_dd
    size = len(within_kk)
    subset = max(0, size - dimensions), size - 1
    return linalg.eigh(between_kk, within_kk, subset_by_index=subset)[1][:, ::-1]


def _scatter(coordinates_nk: np.ndarray, graph: sparse.csr_array) -> np.ndarray:
    """Return the sum (K, K) of outer products of the differences of all joined pairs."""
    laplacian = sparse.diags_array(np.asarray(graph.sum(1)).ravel()) - graph
    return coordinates_nk.T @ (laplacian @ coordinates_nk)


def _neighbour_graph(
    kernel_nn: np.ndarray, persons_n: np.ndarray, other: int, count: int
) -> sparse.csr_array:
    """Join each image with its nearest images of the same person, or with ``other`` of other persons."""
    squares_n, rows, columns = np.diag(kernel_nn), [], []
    for start in range(0, len(persons_n), _ROWS):
        block = slice(start, start + _ROWS)
        distances_bn = squares_n - 2 * kernel_nn[block]  # the image's own square changes no order
        same_bn = persons_n[block, None] == persons_n
        distances_bn[same_bn if other else ~same_bn] = np.inf
        places = np.arange(len(distances_bn))
        distances_bn[places, places + start] = np.inf
        order_bc = np.argsort(distances_bn, axis=1, kind="stable")[:, :count]
        joined_bc = np.isfinite(np.take_along_axis(distances_bn, order_bc, 1))
        rows.append(np.repeat(places + start, joined_bc.sum(1)))
        columns.append(order_bc[joined_bc])
    edges = np.concatenate(rows), np.concatenate(columns)
    graph = sparse.coo_array((np.ones(len(edges[0])), edges), kernel_nn.shape).tocsr()
    return graph.maximum(graph.T).tocsr()
