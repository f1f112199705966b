"""Random draws and trigonometry that are equal bit for bit on every machine.

A library's sine, power, normal deviate or sum may differ in the last bit between vector widths. This module
uses only integer arithmetic and the exact IEEE operations + − × ÷, square root and floor.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def scramble(values: np.ndarray) -> np.ndarray:
    """Hash 64-bit integers elementwise, by the finaliser of SplitMix64 (Steele et al. 2014)."""
    mixed = np.atleast_1d(values).astype(np.uint64) + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


def fold(*columns: np.ndarray | int) -> np.ndarray:
    """Return a key (N,) uint64 for each row of integer columns; a scalar counts for all rows."""
    arrays = np.broadcast_arrays(*[np.atleast_1d(np.asarray(column)) for column in columns])
    key = np.zeros(arrays[0].shape, np.uint64)
    for array in arrays:
        key = scramble(key ^ array.astype(np.int64).view(np.uint64))
    return key


@dataclass(frozen=True)
class RandomStreams:
    """Independent random streams for N things with keys, one stream for each name."""

    # A draw depends only on the seed, its name and the key. The draws of one factor therefore never change
    # those of another, and the order of the calls does not matter.

    seed: int
    keys: np.ndarray  # (N,) uint64

    def child(self, name: str, indices: np.ndarray) -> RandomStreams:
        """Return streams of things that belong to the things at the indices (M,)."""
        return RandomStreams(self.seed, scramble(self.keys[indices] ^ fold(zlib.crc32(name.encode()))))

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Draw (N,) float64 from [low, high)."""
        bits = scramble(self.keys ^ _stream(self.seed, name)) >> np.uint64(11)
        return low + (high - low) * (bits.astype(np.float64) * 2.0**-53)

    def bell(self, name: str) -> np.ndarray:
        """Draw (N,) float64, nearly normal, with mean 0 and deviation 1: a sum of four uniform draws."""
        first, second, third, fourth = (self.uniform(f"{name}/{i}", -1.0, 1.0) for i in range(4))
        return (first + second + third + fourth) * 0.8660254037844386

    def chance(self, name: str, share: float | np.ndarray) -> np.ndarray:
        """Draw (N,) bool, true for about that share; a larger share adds things and removes none."""
        return self.uniform(name) < share

    def pick(self, name: str, odds: Sequence[float]) -> np.ndarray:
        """Draw indices (N,) int64 into ``odds``, which need not add up to one."""
        total, index = 0.0, np.zeros(len(self.keys), np.int64)
        position = self.uniform(name, 0.0, float(sum(odds)))
        for weight in odds[:-1]:
            total += weight
            index = index + (position >= total)
        return index

    def colour(self, name: str, palette: str) -> np.ndarray:
        """Draw colours (N, 3) float64, red, green and blue, by the odds of ``palettes.csv``."""
        # The odds of garments are unequal, as in a street: many people wear black, navy or white.
        colours = palettes()[palette]
        return colours[self.pick(name, colours[:, 3].tolist()), :3]


@lru_cache(4096)  # half of the time in which a few scenes are composed
def _stream(seed: int, name: str) -> np.ndarray:
    return fold(seed, zlib.crc32(name.encode()))


@cache
def palettes() -> dict[str, np.ndarray]:
    """Read the colours of each palette, (K, 4): red, green and blue from 0 to 1, and odds."""
    rows: dict[str, list[list[str]]] = {}
    with Path(__file__).with_name("palettes.csv").open(encoding="utf-8", newline="") as file:
        for name, *colour in islice(csv.reader(file), 1, None):
            rows.setdefault(name, []).append(colour)
    return {name: np.asarray(colours, np.float64) for name, colours in rows.items()}


def sine(angle: np.ndarray | float) -> np.ndarray:
    """Compute the sine of an angle in radians, float64, with an error below 1e-9."""
    # A polynomial, after reduction to a quarter of a turn.
    turns = np.asarray(angle, np.float64) * 0.15915494309189535
    turns = turns - np.floor(turns + 0.5)
    turns = np.where(turns > 0.25, 0.5 - turns, np.where(turns < -0.25, -0.5 - turns, turns))
    x = turns * 6.283185307179586
    square = x * x
    value = np.full_like(x, 1.0 / 6227020800)
    for factorial in (-39916800, 362880, -5040, 120, -6, 1):
        value = value * square + 1.0 / factorial
    return value * x


def cosine(angle: np.ndarray | float) -> np.ndarray:
    """Compute the cosine of an angle in radians, as exactly as ``sine``."""
    return sine(np.asarray(angle, np.float64) + 1.5707963267948966)


def dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute inner products over the last axis, of length 3, in a fixed order (unlike einsum)."""
    return first[..., 0] * second[..., 0] + first[..., 1] * second[..., 1] + first[..., 2] * second[..., 2]


def cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute vector products over the last axis, of length 3."""
    a, b, c = (first[..., i] for i in range(3))
    x, y, z = (second[..., i] for i in range(3))
    return np.stack(np.broadcast_arrays(b * z - c * y, c * x - a * z, a * y - b * x), -1)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors over the last axis, of length 3, to length one; a zero vector stays zero."""
    length = np.sqrt(dot(vectors, vectors))
    return vectors / np.where(length > 0, length, 1.0)[..., None]


def smooth_noise(seed: int, name: str, shape: tuple[int, ...], cells: tuple[int, ...]) -> np.ndarray:
    """Return periodic value noise in [−1, 1], float64, with ``cells`` bumps along each axis."""
    field = (
        RandomStreams(seed, np.arange(np.prod(cells), dtype=np.uint64))
        .uniform(name, -1.0, 1.0)
        .reshape(cells)
    )
    for axis, (length, number) in enumerate(zip(shape, cells, strict=True)):
        position = np.arange(length) * (number / length)
        lower = np.floor(position).astype(np.int64)
        part = position - lower
        part = part * part * (3.0 - 2.0 * part)
        part = part.reshape([-1 if i == axis else 1 for i in range(len(shape))])
        left, right = np.take(field, lower % number, axis), np.take(field, (lower + 1) % number, axis)
        field = left + (right - left) * part
    return field
