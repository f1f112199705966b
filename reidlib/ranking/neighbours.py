"""The nearest neighbours of every image, without a matrix over all pairs.

Products of float32 find the candidates: all images within rounding of the last neighbour. These are measured
as in ``ranking.distances``, so neighbours and their order are the same on every device. A tile of products
fits a CPU's cache and holds the distances between two blocks; it serves both blocks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from reidlib.progress import progress_bar
from reidlib.ranking.distances import ROUNDING, TINY, sorted_rows, spans, squared_pair_distances
from reidlib.threads import parallel_map

_TILE = {"cpu": 1024, "cuda": 8192}  # images of a block; a tile is the product of two blocks
_WAITING = 2**24  # largest number of stored candidates


class Neighbours(NamedTuple):
    """Nearest neighbours of N images."""

    images_nk: np.ndarray  # (N, K) int32: the image itself, then the nearest, equally near ones by index
    largest_n: np.ndarray  # float64, largest squared distance to any image, or 1 if that is 0
    centred_nd: Tensor  # (N, D + 2) float32: features minus their mean, 1, half the squared norm


# Receives a tile of halved squared distances and the images of its rows and of its columns.
TileFunction = Callable[[Tensor, slice, slice], None]


def nearest_neighbours(
    images_nd: Tensor, count: int, *, progress: bool = False, on_tile: TileFunction | None = None
) -> Neighbours:
    """Find the ``count`` nearest neighbours of every image (N, D), at most N, itself included."""
    # The caller enters ``inference_mode`` and ``full_float32``. Memory: two float32 copies of the features,
    # and about a hundred candidates for each image. ``on_tile`` receives every tile of float32 products
    # before its memory is reused. Each pair of images occurs at least once, the earlier one in the rows.
    search = _Search(images_nd, count, on_tile)
    numbers, one_sided, finish = range(len(search.blocks)), False, []
    with parallel_map(images_nd.device) as each:
        for number in progress_bar(numbers, desc="neighbours", disable=not progress, leave=False):
            others = numbers if one_sided else numbers[number:]
            # The previous block is finished at the same time.
            compare = [partial(search.compare, number, other, not one_sided) for other in others]
            list(each(_run, finish + compare))
            finish = [partial(search.finish, number)]
            # Candidates of later blocks are stored until their turn. If they are too many, because nearly all
            # images are alike, every later block is compared with all blocks instead.
            if not one_sided and search.num_waiting() > _WAITING:
                one_sided = True
                search.restart(number + 1)
        list(map(_run, finish))
    return Neighbours(search.neighbours_nk, search.squared_n, search.right_nd)


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
        self.images_nd, self.on_tile = images_nd, on_tile
        tile_size = _TILE.get(images_nd.device.type, _TILE["cuda"])
        self.blocks = list(spans(num_images, tile_size))
        centre_d = images_nd.mean(0, dtype=torch.float64).to(images_nd.dtype)
        centred_nd = (images_nd - centre_d).float()
        halves_n1 = (centred_nd * centred_nd).sum(1, keepdim=True) / 2
        ones_n1 = torch.ones_like(halves_n1)
        self.right_nd = torch.cat([centred_nd, ones_n1, halves_n1], dim=1)
        self.norms_n = (2 * halves_n1[:, 0]).sqrt()
        self.longest = self.norms_n.max()
        # Twice the rounding that ``distances.count_within`` allows: of the bound and of the candidate.
        self.rounding = (2 * math.sqrt(length) + 4 * (math.ceil(math.log2(length)) + 8)) * ROUNDING
        # The least distance in each of K groups of images: their maximum bounds that of the last neighbour.
        self.least_nk = images_nd.new_full((num_images, count), math.inf, dtype=torch.float32)
        self.largest_n = torch.full_like(self.norms_n, -math.inf)
        self.farthest_n = torch.zeros(num_images, dtype=torch.int64, device=images_nd.device)
        self.waiting: list[list[tuple[np.ndarray, ...]]] = [[] for _ in self.blocks]
        self.locks = [threading.Lock() for _ in self.blocks]  # two tiles may update one block at once
        self.memories: list[Tensor] = []  # for tiles: new memory would cost page faults
        self.neighbours_nk = np.empty((num_images, count), np.int32)
        self.squared_n = np.empty(num_images)  # distance of the farthest image

    def compare(self, number: int, other: int, for_both: bool) -> None:
        """Compute the tile of two blocks and collect candidates of the first or of both."""
        block, other_block = self.blocks[number], self.blocks[other]
        try:
            memory = self.memories.pop()
        except IndexError:  # more tiles at once than before
            memory = self.norms_n.new_empty(self.blocks[0].stop ** 2)
        shape = block.stop - block.start, other_block.stop - other_block.start
        tile_bo = memory[: math.prod(shape)].view(shape)
        torch.mm(partner_rows(self.right_nd[block]), self.right_nd[other_block].T, out=tile_bo)
        if self.on_tile is not None:
            self.on_tile(tile_bo, block, other_block)
        self._collect(tile_bo, number, other_block)
        if for_both and other != number:
            self._collect(tile_bo.T, other, block)
        self.memories.append(memory)

    def _collect(self, tile_bo: Tensor, number: int, other: slice) -> None:
        """Store the images of another block that may be near this block's images, and the farthest ones."""
        block, count, width = self.blocks[number], self.least_nk.shape[1], tile_bo.shape[1]
        # A group takes every ``num_groups``-th column. Most groups contain no near image.
        num_groups = min(width, 4 * count)
        groups_bm = tile_bo[:, :num_groups].clone()
        for start in range(num_groups, width, num_groups):
            part_bm = tile_bo[:, start : start + num_groups]
            groups_bm[:, : part_bm.shape[1]].clamp_(max=part_bm)
        largest_b = tile_bo.amax(1)
        with self.locks[number]:
            least_bm = sorted_rows(torch.cat([self.least_nk[block], groups_bm], dim=1))
            self.least_nk[block] = least_bm[:, :count]
            limits_b = self._limits(block)
            # Of equally far images the first, whatever the order of the tiles.
            farther_b = largest_b > self.largest_n[block]
            farther_b |= (largest_b == self.largest_n[block]) & (other.start < self.farthest_n[block])
            farther_f = farther_b.nonzero()[:, 0]
            self.largest_n[block.start + farther_f] = largest_b[farther_f]
            self.farthest_n[block.start + farther_f] = tile_bo[farther_f].argmax(1) + other.start
        row_p, group_p = (groups_bm <= limits_b[:, None]).nonzero(as_tuple=True)
        column_pm = group_p[:, None] + torch.arange(0, width, num_groups, device=tile_bo.device)
        half_pm = tile_bo[row_p[:, None], column_pm.clamp(max=width - 1)]
        near_pm = (half_pm <= limits_b[row_p, None]) & (column_pm < width)
        near, member = near_pm.nonzero(as_tuple=True)
        image_p, other_p = row_p[near] + block.start, column_pm[near, member] + other.start
        candidates = image_p, other_p, half_pm[near, member]
        self.waiting[number].append(tuple(column.cpu().numpy() for column in candidates))

    def _limits(self, block: slice) -> Tensor:
        """Return the current bounds on the halved squared distance of a candidate."""
        last_b, norms_b = self.least_nk[block, -1], self.norms_n[block]
        reach_b = torch.minimum(self.longest, 2 * (norms_b + (2 * last_b).clamp(min=0).sqrt()))
        return last_b + self.rounding * (norms_b + reach_b) ** 2 + TINY

    def num_waiting(self) -> int:
        """Return the number of stored candidates."""
        return sum(len(images_p) for candidates in self.waiting for images_p, _, _ in candidates)

    def restart(self, number: int) -> None:
        """Discard the candidates of later blocks, which will be collected again: none may count twice."""
        for later in range(number, len(self.blocks)):
            self.waiting[later] = []
            self.least_nk[self.blocks[later]] = math.inf

    def finish(self, number: int) -> None:
        """Measure a block's candidates and farthest images exactly, and sort the candidates."""
        block, device, count = self.blocks[number], self.images_nd.device, self.least_nk.shape[1]
        image_p, other_p, half_p = map(np.concatenate, zip(*self.waiting[number], strict=True))
        self.waiting[number] = []
        near = (half_p <= self._limits(block).cpu().numpy()[image_p - block.start]) & (image_p != other_p)
        own_b, farthest_b = np.arange(block.start, block.stop), self.farthest_n[block].cpu().numpy()
        image_p = np.concatenate([own_b, image_p[near]])
        other_p = np.concatenate([farthest_b, other_p[near]])
        squared_p = (
            squared_pair_distances(self.images_nd, self.images_nd, image_p, other_p, device).cpu().numpy()
        )
        largest_b, squared_p[: len(own_b)] = squared_p[: len(own_b)].copy(), -1
        self.squared_n[block] = np.where(largest_b > 0, largest_b, 1)
        other_p[: len(own_b)] = own_b  # the image itself precedes its copies
        order = np.lexsort((other_p, squared_p, image_p))
        first_b = np.searchsorted(image_p[order], own_b)
        order_bk = order[first_b[:, None] + np.arange(count)]
        self.neighbours_nk[block] = other_p[order_bk]
