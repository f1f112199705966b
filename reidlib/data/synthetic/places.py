"""The background of each camera: one picture of ground, wall and things, from which boxes are cut.

A pinhole camera at height ``eye`` with an upright image plane sees the ground point (x, distance) in column
``focal · x / distance`` and row ``focal · eye / distance`` below the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from reidlib.data.synthetic.repeatable import RandomStreams, fold, smooth_noise

ROWS, COLUMNS, HORIZON = 600, 960, 90
_WALLS = ("shop", "facade", "brick", "fence", "hedge")
_GROUNDS = ("plaza", "street", "park")


class Place(NamedTuple):
    """Geometry of one or N camera views; distances in metres, ``focal`` in rows."""

    eye: np.ndarray | float
    focal: np.ndarray | float
    near: np.ndarray | float
    far: np.ndarray | float
    wall: np.ndarray | float


def draw_place(seed: int, camera: np.ndarray | int, pitch: float) -> Place:
    """Draw the cameras' heights and their distances to people and to the wall, (N,) each."""
    draws = RandomStreams(seed, fold(camera))
    eye = 1.3 + pitch * draws.uniform("eye", 0.6, 2.8)
    near = draws.uniform("near", 6.0, 8.5)
    far = near + draws.uniform("depth", 4.0, 7.0)
    wall = far + draws.uniform("wall", 1.0, 5.0)
    return Place(eye, np.minimum(700.0, (ROWS - HORIZON - 30) * near / eye), near, far, wall)


@lru_cache(maxsize=16)  # at most 28 MB; previews of different factors paint the same places
def paint_background(seed: int, camera: int, pitch: float) -> np.ndarray:
    """Paint the background (3, ROWS, COLUMNS) uint8 that all images of a camera share."""
    view = Place(*(float(np.asarray(value)[0]) for value in draw_place(seed, camera, pitch)))
    draws = RandomStreams(seed, fold(camera))
    # Successive cameras have different kinds of places, so that even two cameras differ.
    turn = int(RandomStreams(seed, fold(0)).pick("first kind", [1] * 15)[0]) + camera
    wall_kind, ground_kind = _WALLS[turn * 2 % 5], _GROUNDS[turn % 3]
    noise = _Noise(smooth_noise(seed, f"place {camera}", (256, 256), (64, 64)))
    row = (np.arange(ROWS) + 0.5 - HORIZON)[:, None]
    column = (np.arange(COLUMNS) + 0.5 - COLUMNS / 2)[None, :]
    foot = int(np.floor(HORIZON + view.focal * view.eye / view.wall))
    distance = view.focal * view.eye / row[foot:]
    scale = view.wall / view.focal
    wall = _wall(draws, wall_kind, noise, *np.broadcast_arrays(column * scale, view.eye - row[:foot] * scale))
    ground = _ground(draws, ground_kind, noise, column * distance / view.focal, distance, view)
    # Less light reaches the ground at the foot of the wall.
    ground = ground * (1 - 0.35 * np.clip(1 - (view.wall - distance) / 1.2, 0, 1))
    picture = np.concatenate([wall, ground], 1)
    _furnish(picture, seed, camera, noise, view)
    smooth = (picture[:, 1:] + picture[:, :-1]) * 0.5
    picture[:, 1:, 1:] = (smooth[:, :, 1:] + smooth[:, :, :-1]) * 0.5
    painted = np.floor(np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
    painted.flags.writeable = False
    return painted


@dataclass(frozen=True)
class _Noise:
    table: np.ndarray

    def __call__(self, x: np.ndarray, y: np.ndarray, scale: float) -> np.ndarray:
        """Return noise in [−1, 1] with ``4 · scale`` bumps per metre, bilinear in the table."""
        size = len(self.table)
        u, v = x * (scale * 16), y * (scale * 16)
        left, low = np.floor(u), np.floor(v)
        part_u, part_v = u - left, v - low
        i, j = left.astype(np.int64) % size, low.astype(np.int64) % size
        i1, j1 = (i + 1) % size, (j + 1) % size
        below = self.table[j, i] + (self.table[j, i1] - self.table[j, i]) * part_u
        above = self.table[j1, i] + (self.table[j1, i1] - self.table[j1, i]) * part_u
        return below + (above - below) * part_v


def _fraction(value: np.ndarray) -> np.ndarray:
    return value - np.floor(value)


def _colour(draws: RandomStreams, name: str) -> np.ndarray:
    tone = 1 + 0.10 * float(draws.bell(f"{name} tone")[0])
    return (draws.colour(name, name)[0] * tone)[:, None, None]


def _ground(
    draws: RandomStreams, kind: str, noise: _Noise, x: np.ndarray, d: np.ndarray, view: Place
) -> np.ndarray:
    x, d = np.broadcast_arrays(x, d)
    stains = noise(x, d, 0.25)
    slabs = _colour(draws, "slabs")
    asphalt = _colour(draws, "asphalt")
    size = float(draws.uniform("slab", 0.45, 0.9)[0])
    shifted = x / size + 0.5 * np.floor(_fraction(d / (2 * size)) * 2)
    joint = (_fraction(shifted) < 0.045) | (_fraction(d / size) < 0.06)
    cell = noise(np.floor(x / size) * 3.7, np.floor(d / size) * 5.3, 1.0)
    paved = slabs * (1 + 0.06 * cell + 0.08 * stains) * np.where(joint, 0.72, 1.0)
    tarred = asphalt * (1 + 0.10 * stains + 0.10 * noise(x, d, 4.0))
    if kind == "plaza":
        return np.where(_fraction(x / 4.1) < 0.12, paved * 0.72, paved)  # darker bands
    if kind == "street":
        kerb = view.near + 0.75 * (view.far - view.near)
        line = (np.abs(d - (view.near + 1.6)) < 0.10) & (_fraction(x / 2.4) < 0.55)
        edge = np.abs(d - (kerb - 0.5)) < 0.06
        road = np.where(line | edge, 0.78, tarred)
        stone = np.where((d > kerb) & (d < kerb + 0.22), 0.66 * (1 + 0.05 * stains), paved)
        return np.where(d < kerb, road, stone)
    grass = np.asarray([0.27, 0.39, 0.17])[:, None, None]
    grass = grass * (1 + 0.22 * noise(x, d, 3.0) + 0.25 * stains)
    edge = 0.35 * noise(x, d * 0, 0.5)
    path = (d > view.near - 0.8 + edge) & (d < view.far - 1.0 + edge)
    gravel = np.asarray([0.60, 0.53, 0.42])[:, None, None] * (1 + 0.10 * noise(x, d, 5.0) + 0.08 * stains)
    return np.where(path, gravel, grass)


def _wall(draws: RandomStreams, kind: str, noise: _Noise, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    stains = 1 + 0.06 * noise(x, y, 0.3)
    plaster = _colour(draws, "plaster")
    glass = (0.22 + 0.16 * _fraction(x * 0.31 + y * 0.2)) * np.asarray([0.85, 1.0, 1.12])[:, None, None]
    if kind == "facade":
        period = float(draws.uniform("window period", 1.8, 2.6)[0])
        u, v = _fraction(x / period), _fraction((y - 0.9) / 2.9)
        window = (u > 0.22) & (u < 0.78) & (v > 0.02) & (v < 0.56)
        frame = (u > 0.18) & (u < 0.82) & (v < 0.60)
        bars = (np.abs(u - 0.5) < 0.02) | (np.abs(v - 0.30) < 0.012)
        wall = np.where(frame, plaster * 1.25, plaster * stains)
        wall = np.where(window & ~bars, glass, wall)
        return np.where(y < 0.55, plaster * 0.55 * stains, wall)
    if kind == "shop":
        period = float(draws.uniform("pane", 1.3, 2.2)[0])
        pane = np.floor(x / period)
        u = _fraction(x / period)
        goods = noise(x, y, 0.9) + 0.6 * noise(x * 0 + pane * 7.1, y, 0.4)
        tints = [0.55 + 0.25 * noise(pane * 3.3 + 11.0 * i, y * 0, 1.0) for i in range(3)]
        inside = np.stack(tints) * np.clip(0.55 + 0.45 * goods, 0.1, 1.1)
        shop = np.where((u < 0.07) | (y < 0.35), 0.20, inside)
        board = _colour(draws, "board")
        letters = (noise(x, y * 0, 2.0) > 0.1) & (np.abs(y - 3.05) < 0.17)
        sign = np.where(letters, 0.9, board)
        return np.where(y < 2.6, shop, np.where(y < 3.5, sign, plaster * stains))
    if kind == "brick":
        course = np.floor(y / 0.12)
        along = x / 0.36 + 0.5 * _fraction(course * 0.5) * 2
        mortar = (_fraction(along) < 0.07) | (_fraction(y / 0.12) < 0.16)
        brick = _colour(draws, "brick")
        tone = 1 + 0.16 * noise(np.floor(along) * 2.3, course * 1.7, 1.0)
        wall = np.where(mortar, 0.60 * stains, brick * tone * stains)
        opening = (_fraction(x / 5.2) < 0.24) & (y < 2.3)
        door = _colour(draws, "door")
        return np.where(opening, door * (1 - 0.25 * (_fraction(x / 0.62) < 0.08)), wall)
    leaves = np.asarray([0.21, 0.33, 0.13])[:, None, None]
    depth = 0.55 * noise(x, y, 0.7) + 0.45 * noise(x, y, 2.2)
    leaves = leaves * np.clip(0.95 + 0.75 * depth, 0.25, 2.0)
    sky = np.asarray([0.72, 0.79, 0.88])[:, None, None] * np.ones_like(y)
    crown = 3.6 + 1.6 * noise(x, y * 0, 0.16) + 0.5 * noise(x, y, 0.8)
    beyond = np.where(y < crown, leaves * 0.9, sky)
    if kind == "hedge":
        trunk = (_fraction(x / 3.7) < 0.06) & (y < 2.6)
        return np.where(trunk, 0.24 * stains, beyond)
    post = _fraction(x / 2.5) < 0.05
    bar = (_fraction(x / 0.22) < 0.28) | (np.abs(y - 0.25) < 0.05) | (np.abs(y - 1.65) < 0.06) | post
    rail = _colour(draws, "rail")
    return np.where(bar & (y < 1.8), rail * stains, beyond)


def _furnish(picture: np.ndarray, seed: int, camera: int, noise: _Noise, view: Place) -> None:
    """Paint cars, trees, boards and planters between the people and the wall, far ones first."""
    count = 7
    draws = RandomStreams(seed, fold(camera, np.arange(count)))
    order = np.argsort(-draws.uniform("distance"), kind="stable")
    distances = view.far + 0.4 + draws.uniform("distance") * max(view.wall - view.far - 0.6, 0.2)
    span = COLUMNS / view.focal
    places = (np.arange(count) + draws.uniform("place", -0.35, 0.35) - (count - 1) / 2) / count * span
    kinds = draws.pick("kind", (4, 3, 2, 2))
    red, green, blue = paints = np.stack([draws.uniform(c, 0.12, 0.75) for c in ("red", "green", "blue")])
    paints = (paints + ((red + green + blue) / 3 - paints) * draws.uniform("grey", 0.55, 1.0)).T
    for i in order:
        metre = view.focal / float(distances[i])
        draw, wide, high, base = (
            (_car, 2.2, 1.6, 1.95),
            (_tree, 2.0, 5.2, 0.3),
            (_board, 0.8, 2.4, 0.45),
            (_planter, 1.0, 1.6, 0.6),
        )[kinds[i]]
        middle, ground = COLUMNS / 2 + float(places[i]) * view.focal, HORIZON + view.eye * metre
        left, right = (int(np.clip(middle + way * wide * metre, 0, COLUMNS)) for way in (-1, 1))
        top, bottom = (int(np.clip(ground - y * metre, 0, ROWS)) for y in (high, -0.2))
        x = ((np.arange(left, right) + 0.5 - middle) / metre)[None, :]
        y = ((ground - np.arange(top, bottom) - 0.5) / metre)[:, None]
        x, y = np.broadcast_arrays(x, y)
        patch = picture[:, top:bottom, left:right]
        patch[:] = np.where((np.abs(x) < base) & (y < 0.25) & (y > -0.10), 0.14, patch)
        for colour, mask in draw(x, y, paints[i][:, None, None] * (1 + 0.06 * noise(x, y, 0.5)), noise):
            patch[:] = np.where(mask, colour, patch)


def _car(x, y, paint, noise):
    body = (np.abs(x) < 2.05) & (y > 0.30) & (y < 0.92)
    slope = 0.55 * (y - 0.92)
    cabin = (x > -1.25 + slope) & (x < 1.35 - slope) & (y >= 0.92) & (y < 1.42)
    window = cabin & (y > 0.98) & (y < 1.34) & (np.abs(x - 0.05) > 0.05)
    yield paint * np.clip(0.75 + 0.4 * y, 0, 1.3), body | cabin
    yield 0.17 + 0.10 * y, window
    for centre in (-1.25, 1.25):
        square = (x - centre) * (x - centre) + (y - 0.32) * (y - 0.32)
        yield 0.07, square < 0.10
        yield 0.5, square < 0.03


def _tree(x, y, paint, noise):
    bark = np.asarray([0.27, 0.21, 0.16])[:, None, None] * (1 + 0.2 * noise(x, y, 2.0))
    yield bark, (np.abs(x) < 0.14) & (y > 0) & (y < 2.6)
    edge = 1.4 + 0.5 * noise(x, y, 0.9)
    leaves = np.asarray([0.22, 0.37, 0.15])[:, None, None] * (1 + 0.5 * noise(x, y, 2.0))
    yield leaves, x * x + (y - 3.2) * (y - 3.2) < edge * edge


def _board(x, y, paint, noise):
    yield 0.25, (np.abs(x) < 0.66) & (y > 0.45) & (y < 2.2)
    picture = paint * np.clip(1.2 + 0.8 * noise(x, y, 0.8), 0.3, 1.6)
    yield picture, (np.abs(x) < 0.6) & (y > 0.55) & (y < 2.1)
    yield 0.25, (np.abs(np.abs(x) - 0.5) < 0.05) & (y > 0) & (y <= 0.45)


def _planter(x, y, paint, noise):
    yield paint * 0.8, (np.abs(x) < 0.6) & (y > 0) & (y < 0.5)
    edge = 0.55 + 0.2 * noise(x, y, 1.5)
    leaves = np.asarray([0.23, 0.38, 0.16])[:, None, None] * (1 + 0.5 * noise(x, y, 2.5))
    yield leaves, (x * x * 0.8 + (y - 0.75) * (y - 0.75) < edge * edge) & (y > 0.42)
