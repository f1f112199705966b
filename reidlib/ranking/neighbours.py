"""The nearest neighbours of every image, without a matrix over all pairs.

Products of float32 find the candidates: all images within rounding of the last neighbour. These are measured
as in ``ranking.distances`` where rounding could change their order, so neighbours and their order are the
same on every device. A tile of products fits a CPU's cache and holds the distances between two blocks; it
serves both blocks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.progress import progress_bar
from reidlib.ranking.distances import float32_products, spans, squared_pair_distances
from reidlib.ranking.nearest import TILE, least_of_groups, product_rounding
from reidlib.threads import parallel_map

_WAITING = 2**24  # largest number of stored candidates


class Neighbours(NamedTuple):
    """Nearest neighbours of N images."""

    images_nk: np.ndarray  # (N, K) int32: the image itself, then the nearest, equally near ones by index
    halves_nk: np.ndarray  # (N, K) float32: their halved squared distances, within the rounding of a product
    largest_n: np.ndarray  # float64, largest squared distance to any image, or 1 if that is 0
    centred_nd: Tensor  # (N, D + 2) float32: features minus their mean, 1, half the squared norm


# Receives a tile of halved squared distances and the images of its rows and of its columns.
TileFunction = Callable[[Tensor, slice, slice], None]


def nearest_neighbours(
    images_nd: Tensor, count: int, *, progress: bool = False, on_tile: TileFunction | None = None
) -> Neighbours:
    """Find the ``count`` nearest neighbours of every image (N, D), at most N, itself included."""
    # The caller enters ``inference_mode`` and ``full_float32``. Memory: one float32 copy of the features and
    # about a hundred candidates for each image. ``on_tile`` receives every tile of float32 products. Each
    # pair of images occurs at least once, the earlier one in the rows.
    search = _Search(images_nd, count, on_tile)
    numbers, one_sided, finish = range(len(search.blocks)), False, []
    with parallel_map(images_nd.device) as each:
        for number in progress_bar(numbers, desc="neighbours", disable=not progress, leave=False):
            others = numbers if one_sided else numbers[number:]
            left_bd = partner_rows(search.right_nd[search.blocks[number]])
            compare = [partial(search.compare, left_bd, number, other, not one_sided) for other in others]
            # The previous block is finished at the same time: last, while other threads end their tiles.
            list(each(_run, compare + finish))
            finish = [partial(search.finish, number)]
            # Candidates of later blocks are stored until their turn. If they are too many, because nearly all
            # images are alike, every later block is compared with all blocks instead.
            if not one_sided and search.num_waiting() > _WAITING:
                one_sided = True
                search.restart(number + 1)
        list(map(_run, finish))
    return Neighbours(search.neighbours_nk, search.halves_nk, search.squared_n, search.right_nd)


def partner_rows(images_nd: Tensor) -> Tensor:
    """Return (−a, ½‖a‖², 1) for rows (a, 1, ½‖a‖²): its product with row b is ½‖a‖² + ½‖b‖² − a·b."""
    return torch.cat([-images_nd[:, :-2], images_nd[:, -1:], images_nd[:, -2:-1]], dim=1)


def _run(task) -> None:
    with torch.inference_mode():
        task()


class _Search:
    """State of the search: candidates, and bounds on the distance of each image's last neighbour."""

    def __init__(self, images_nd: Tensor, count: int, on_tile: TileFunction | None):
        num_images, length = images_nd.shape
        self.images_nd, self.on_tile, self.count = images_nd, on_tile, count
        self.blocks = list(spans(num_images, TILE.get(images_nd.device.type, TILE["cuda"])))
        centre_d = images_nd.mean(0)
        self.right_nd = images_nd.new_ones(num_images, length + 2, dtype=torch.float32)
        for block in self.blocks:
            centred_bd = (images_nd[block] - centre_d).float()
            self.right_nd[block, :length] = centred_bd
            self.right_nd[block, -1] = centred_bd.mul_(centred_bd).sum(1) / 2
        self.norms_n = (2 * self.right_nd[:, -1]).sqrt().cpu().numpy()
        self.longest = self.norms_n.max()
        self.least_nk = np.full((num_images, count), np.inf, np.float32)  # of the candidates, ascending
        self.largest_n = np.full(num_images, -np.inf, np.float32)
        self.farthest_n = np.zeros(num_images, np.int64)
        # Image in its block, other image, halved squared distance.
        self.waiting: list[list[tuple[np.ndarray, ...]]] = [[] for _ in self.blocks]
        self.locks = [threading.Lock() for _ in self.blocks]  # two tiles may update one block at once
        self.neighbours_nk = np.empty((num_images, count), np.int32)
        self.halves_nk = np.zeros((num_images, count), np.float32)
        self.squared_n = np.empty(num_images)  # distance of the farthest image

    def compare(self, left_bd: Tensor, number: int, other: int, for_both: bool) -> None:
        """Compute the tile of two blocks and collect candidates of the first or of both."""
        block, other_block = self.blocks[number], self.blocks[other]
        tile_bo = float32_products(left_bd, self.right_nd[other_block])
        if self.on_tile is not None:
            self.on_tile(tile_bo, block, other_block)
        limits_b = self._limits(number, tile_bo)
        limits_o = self._limits(other, tile_bo.T) if for_both and other != number else None
        row_p, column_p, half_p = _near(tile_bo, limits_b, limits_o)
        near = half_p <= limits_b[row_p]
        self._collect(number, row_p[near], column_p[near] + other_block.start, half_p[near])
        self._keep_farthest(number, other_block.start, *_farthest_columns(tile_bo))
        if limits_o is not None:
            near = np.flatnonzero(half_p <= limits_o[column_p])
            near = near[np.argsort(column_p[near].astype(np.int16), kind="stable")]
            self._collect(other, column_p[near], row_p[near] + block.start, half_p[near])
            self._keep_farthest(other, block.start, *_farthest_rows(tile_bo))

    def _limits(self, number: int, tile_bo: Tensor | None = None) -> np.ndarray:
        """Return the current bounds on the halved squared distance of a candidate."""
        block = self.blocks[number]
        last_b, norms_b = self.least_nk[block, -1], self.norms_n[block]
        if tile_bo is not None and tile_bo.shape[1] >= self.count and last_b.max() == np.inf:
            # Before there are candidates, the K-th of the groups bounds the last neighbour.
            least_bm = least_of_groups(tile_bo, self.count).cpu().numpy()
            last_b = np.minimum(last_b, np.partition(least_bm, self.count - 1, axis=1)[:, self.count - 1])
        rounding_b = product_rounding(last_b, norms_b, self.longest, self.images_nd.shape[1])
        return (last_b + rounding_b).astype(np.float32)

    def _collect(self, number: int, row_p: np.ndarray, other_p: np.ndarray, half_p: np.ndarray) -> None:
        """Store candidates, ordered by row of the block, and update the block's least distances."""
        block, count = self.blocks[number], self.count
        counts_b = np.bincount(row_p, minlength=block.stop - block.start)
        place_p = np.arange(count, count + len(row_p)) - (counts_b.cumsum() - counts_b)[row_p]
        least_bm = np.full((len(counts_b), count + counts_b.max()), np.inf, np.float32)
        least_bm[row_p, place_p] = half_p
        candidates = row_p.astype(np.int32), other_p.astype(np.int32), half_p
        with self.locks[number]:
            least_bm[:, :count] = self.least_nk[block]
            least_bm.sort(axis=1)
            self.least_nk[block] = least_bm[:, :count]
            self.waiting[number].append(candidates)

    def _keep_farthest(self, number: int, start: int, largest_b: np.ndarray, place_b: np.ndarray) -> None:
        """Keep the farthest image of each image of a block; ``start`` is the first of the other block."""
        block = self.blocks[number]
        with self.locks[number]:
            # Of equally far images the first, whatever the order of the tiles.
            farther_b = largest_b > self.largest_n[block]
            farther_b |= (largest_b == self.largest_n[block]) & (start < self.farthest_n[block])
            self.largest_n[block][farther_b] = largest_b[farther_b]
            self.farthest_n[block][farther_b] = place_b[farther_b] + start

    def num_waiting(self) -> int:
        """Return the number of stored candidates."""
        return sum(len(row_p) for candidates in self.waiting for row_p, _, _ in candidates)

    def restart(self, number: int) -> None:
        """Discard the candidates of later blocks, which will be collected again: none may count twice."""
        for later in range(number, len(self.blocks)):
            self.waiting[later] = []
            self.least_nk[self.blocks[later]] = np.inf

    def finish(self, number: int) -> None:
        """Sort a block's candidates, exactly where rounding could change the order; measure the farthest."""
        block = self.blocks[number]
        own_b = np.arange(block.start, block.stop)
        largest_b = self._measure(own_b, self.farthest_n[block])
        self.squared_n[block] = np.where(largest_b > 0, largest_b, 1)
        row_p, other_p, half_p = map(np.concatenate, zip(*self.waiting[number], strict=True))
        self.waiting[number] = []
        limits_b = self._limits(number)
        near = (half_p <= limits_b[row_p]) & (row_p + block.start != other_p)
        row_p, other_p, half_p = row_p[near], other_p[near], half_p[near].clip(min=0)
        # The bits of such a float are ordered as the float is.
        order = np.argsort((row_p.astype(np.int64) << 32) | half_p.view(np.int32))
        row_p, other_p, half_p = row_p[order], other_p[order], half_p[order]
        # Candidates whose distances differ by less than rounding form a cluster.
        slack_b = limits_b - self.least_nk[block, -1]
        joined_p = (np.diff(row_p) == 0) & (np.diff(half_p) <= slack_b[row_p[1:]])
        doubtful = np.flatnonzero(np.append(joined_p, False) | np.append(False, joined_p))
        cluster_p = np.append(0, np.cumsum(~joined_p))[doubtful]
        squared_p = self._measure(row_p[doubtful] + block.start, other_p[doubtful])
        order = doubtful[np.lexsort((other_p[doubtful], squared_p, cluster_p))]
        other_p[doubtful], half_p[doubtful] = other_p[order], half_p[order]
        nearest_bk = np.searchsorted(row_p, own_b - block.start)[:, None] + np.arange(self.count - 1)
        self.neighbours_nk[block, 0] = own_b  # the image itself precedes its copies
        self.neighbours_nk[block, 1:] = other_p[nearest_bk]
        self.halves_nk[block, 1:] = half_p[nearest_bk]

    def _measure(self, image_p: np.ndarray, other_p: np.ndarray) -> np.ndarray:
        """Return exact squared distances (P,) of pairs of images."""
        images_nd = self.images_nd
        return squared_pair_distances(images_nd, images_nd, image_p, other_p, images_nd.device).cpu().numpy()


def _near(
    tile_bo: Tensor, limits_b: np.ndarray, limits_o: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and value of what is within its row's or its column's limit, row by row."""
    if tile_bo.device.type == "cpu":  # numpy is several times as fast as torch
        tile = tile_bo.numpy()
        near_bo = tile <= limits_b[:, None]
        if limits_o is not None:
            near_bo |= tile <= limits_o
        place_p = np.flatnonzero(near_bo)
        half_p = tile.ravel()[place_p]
    else:
        limits = torch.from_numpy(limits_b).to(tile_bo.device)[:, None]
        near_bo = tile_bo <= limits
        if limits_o is not None:
            near_bo |= tile_bo <= torch.from_numpy(limits_o).to(tile_bo.device)
        places = near_bo.view(-1).nonzero()[:, 0]
        place_p, half_p = places.cpu().numpy(), tile_bo.view(-1)[places].cpu().numpy()
    row_p = place_p // tile_bo.shape[1]
    return row_p, place_p - row_p * tile_bo.shape[1], half_p


def _farthest_columns(tile_bo: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest value of each row and its column."""
    if tile_bo.device.type != "cpu":
        largest_b, column_b = tile_bo.max(1)
        return largest_b.cpu().numpy(), column_b.cpu().numpy()
    column_b = tile_bo.numpy().argmax(1)
    return tile_bo.numpy()[np.arange(len(column_b)), column_b], column_b


def _farthest_rows(tile_bo: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the largest value of each column and its row."""
    if tile_bo.device.type != "cpu":
        return _farthest_columns(tile_bo.T)
    tile = tile_bo.numpy()
    largest_o = tile.max(0)  # numpy's argmax along columns takes fifty times as long
    place_p = np.flatnonzero(tile == largest_o)[::-1]
    row_o = np.empty(len(largest_o), np.int64)
    row_o[place_p % len(largest_o)] = place_p // len(largest_o)  # of equal ones the first is written last
    return largest_o, row_o
