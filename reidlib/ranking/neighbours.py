"""Every image's nearest images among all, without a matrix over all pairs.

Products of float32 find candidates: all that lie within its rounding of the last place. Those are measured
as in ``ranking.distances``, so that neighbours and their order are the same on every device. A tile of
products, small enough for a cache, holds the distances of a block to a later one and serves both.
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
from reidlib.ranking.distances import ROUNDING, TINY, pair_distances, sorted_rows, spans
from reidlib.threads import side_by_side

_TILE = {"cpu": 1024, "cuda": 8192}  # images whose distances to as many are held at once
_WAITING = 2**24  # candidates kept for later images


class Neighbours(NamedTuple):
    images_nk: np.ndarray  # (N, K) int32: itself, then the nearest, equally near ones by index
    largest_n: np.ndarray  # float64, the largest squared distance to any image, or 1 if that is 0
    centred_nd: Tensor  # (N, D + 2) float32 on the device: about their centre; 1; half the square


# Is given a tile of halved squared distances, and which images its rows and its columns are.
Keeper = Callable[[Tensor, slice, slice], None]


def nearest_neighbours(
    images_nd: Tensor, num_places: int, *, progress: bool = False, keep: Keeper | None = None
) -> Neighbours:
    """The nearest images of each of (N, D), itself included; needs ``inference_mode`` and ``full_float32``.

    keep: gets every tile, by float32 products, for whoever needs distances once more; each pair of images
    comes at least once, the earlier one in the rows, and the tile's memory is used again.

    What a tile says of the later block waits for its turn, unless too much does (of images that are nearly
    all alike), and then every block is held against all. Holds two float32 copies of the features and some
    hundred candidates an image.
    """
    search = _Search(images_nd, num_places, keep)
    numbers, crowded, finish = range(len(search.blocks)), False, []
    with side_by_side(images_nd.device) as each:
        for number in progress_bar(numbers, desc="neighbours", disable=not progress, leave=False):
            others = numbers if crowded else numbers[number:]
            # The block before is finished meanwhile.
            look = [partial(search.look, number, other, not crowded) for other in others]
            list(each(_called, finish + look))
            finish = [partial(search.finish, number)]
            if not crowded and search.num_waiting() > _WAITING:
                crowded = True
                search.begin_anew(number + 1)
        list(map(_called, finish))
    return Neighbours(search.neighbours_nk, search.squared_n, search.right_nd)


def as_partners(images_nd: Tensor) -> Tensor:
    """Rows (−a, ½‖a‖², 1) for rows (a, 1, ½‖a‖²): one times another's is ½‖a − b‖² = ½‖a‖² + ½‖b‖² − a·b."""
    return torch.cat([-images_nd[:, :-2], images_nd[:, -1:], images_nd[:, -2:-1]], dim=1)


def _called(task) -> None:
    with torch.inference_mode():
        task()


class _Search:
    """Halved squared distances by float32 products, and how far each image's last place can be."""

    def __init__(self, images_nd: Tensor, num_places: int, keep: Keeper | None):
        num_images, length = images_nd.shape
        self.images_nd, self.keep = images_nd, keep
        tile_size = _TILE.get(images_nd.device.type, _TILE["cuda"])
        self.blocks = list(spans(num_images, tile_size))
        centre_d = images_nd.mean(0, dtype=torch.float64).to(images_nd.dtype)
        centred_nd = (images_nd - centre_d).float()
        halves_n1 = (centred_nd * centred_nd).sum(1, keepdim=True) / 2
        ones_n1 = torch.ones_like(halves_n1)
        self.right_nd = torch.cat([centred_nd, ones_n1, halves_n1], dim=1)
        self.norms_n = (2 * halves_n1[:, 0]).sqrt()
        self.longest = self.norms_n.max()
        # Twice the rounding that ``distances.count_within`` allows for: the place's and the candidate's.
        self.rounding = (2 * math.sqrt(length) + 4 * (math.ceil(math.log2(length)) + 8)) * ROUNDING
        # The least of each of several groups of images: the largest of them bounds the last place from above.
        self.least_nk = images_nd.new_full((num_images, num_places), math.inf, dtype=torch.float32)
        self.largest_n = torch.full_like(self.norms_n, -math.inf)
        self.farthest_n = torch.zeros(num_images, dtype=torch.int64, device=images_nd.device)
        self.waiting: list[list[tuple[np.ndarray, ...]]] = [[] for _ in self.blocks]
        self.locks = [threading.Lock() for _ in self.blocks]  # two tiles may tell of one block at once
        self.memories: list[Tensor] = []  # for tiles: fresh memory would cost page faults
        self.neighbours_nk = np.empty((num_images, num_places), np.int32)
        self.squared_n = np.empty(num_images)  # of the farthest

    def look(self, number: int, other: int, at_both: bool) -> None:
        """Compute the tile of two blocks; keep candidates of the first, and maybe of the other."""
        block, other_block = self.blocks[number], self.blocks[other]
        try:
            memory = self.memories.pop()
        except IndexError:  # as many tiles at once as never before
            memory = self.norms_n.new_empty(self.blocks[0].stop ** 2)
        shape = block.stop - block.start, other_block.stop - other_block.start
        tile_bo = memory[: math.prod(shape)].view(shape)
        torch.mm(as_partners(self.right_nd[block]), self.right_nd[other_block].T, out=tile_bo)
        if self.keep is not None:
            self.keep(tile_bo, block, other_block)
        self._learn(tile_bo, number, other_block)
        if at_both and other != number:
            self._learn(tile_bo.T, other, block)
        self.memories.append(memory)

    def _learn(self, tile_bo: Tensor, number: int, other: slice) -> None:
        """Keep the images of another block that may be near those of this one, and the farthest."""
        block, num_places, width = self.blocks[number], self.least_nk.shape[1], tile_bo.shape[1]
        # Columns in groups: of those as far apart as there are groups. Most groups have nothing near.
        num_groups = min(width, 4 * num_places)
        groups_bm = tile_bo[:, :num_groups].clone()
        for start in range(num_groups, width, num_groups):
            part_bm = tile_bo[:, start : start + num_groups]
            groups_bm[:, : part_bm.shape[1]].clamp_(max=part_bm)
        largest_b = tile_bo.amax(1)
        with self.locks[number]:
            least_bm = sorted_rows(torch.cat([self.least_nk[block], groups_bm], dim=1))
            self.least_nk[block] = least_bm[:, :num_places]
            limits_b = self._limits(block)
            # Of equally far ones the first, in whatever order tiles come.
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
        found = tuple(part.cpu().numpy() for part in (image_p, other_p, half_pm[near, member]))
        self.waiting[number].append(found)

    def _limits(self, block: slice) -> Tensor:
        """Up to which halved squared distance an image may be among the nearest, as far as is known."""
        last_b, norms_b = self.least_nk[block, -1], self.norms_n[block]
        reach_b = torch.minimum(self.longest, 2 * (norms_b + (2 * last_b).clamp(min=0).sqrt()))
        return last_b + self.rounding * (norms_b + reach_b) ** 2 + TINY

    def num_waiting(self) -> int:
        return sum(len(part[0]) for parts in self.waiting for part in parts)

    def begin_anew(self, number: int) -> None:
        """Forget what later blocks were told: they will hear it again, and nothing may count twice."""
        for later in range(number, len(self.blocks)):
            self.waiting[later] = []
            self.least_nk[self.blocks[later]] = math.inf

    def finish(self, number: int) -> None:
        """Measure a block's candidates and farthest images, and put the candidates in order."""
        block, device, num_places = self.blocks[number], self.images_nd.device, self.least_nk.shape[1]
        image_p, other_p, half_p = map(np.concatenate, zip(*self.waiting[number], strict=True))
        self.waiting[number] = []
        kept = (half_p <= self._limits(block).cpu().numpy()[image_p - block.start]) & (image_p != other_p)
        own_b, farthest_b = np.arange(block.start, block.stop), self.farthest_n[block].cpu().numpy()
        image_p = np.concatenate([own_b, image_p[kept]])
        other_p = np.concatenate([farthest_b, other_p[kept]])
        squared_p = pair_distances(self.images_nd, self.images_nd, image_p, other_p, device).cpu().numpy()
        largest_b, squared_p[: len(own_b)] = squared_p[: len(own_b)].copy(), -1
        self.squared_n[block] = np.where(largest_b > 0, largest_b, 1)
        other_p[: len(own_b)] = own_b  # the image itself goes in front of its copies
        order = np.lexsort((other_p, squared_p, image_p))
        first_b = np.searchsorted(image_p[order], own_b)
        order_bk = order[first_b[:, None] + np.arange(num_places)]
        self.neighbours_nk[block] = other_p[order_bk]
