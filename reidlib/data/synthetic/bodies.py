"""Building blocks of a scene: capsules, their surfaces, and things made of capsules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import pairwise

import numpy as np

from reidlib.data.synthetic.repeatable import RandomStreams, cosine, dot, sine

_NEVER = 1.0e3  # metres, beyond every part of a body


@dataclass(frozen=True)
class Capsules:
    """M tapered, flattened capsules in metres of their image's scene; y is up, z points to the viewer."""

    image: np.ndarray  # (M,) int64, ascending
    start: np.ndarray  # (M, 3)
    end: np.ndarray  # (M, 3)
    radius: np.ndarray  # (M, 2) at start and end
    flatness: np.ndarray  # (M,) thickness along ``front`` relative to the radius, at most 1
    front: np.ndarray  # (M, 3) direction that the print faces, not along the axis
    surface: np.ndarray  # (M, 23), see ``Surface.columns``
    shades: np.ndarray  # (M,) bool: casts a shadow on the ground
    hollow: np.ndarray  # (M,) bool: no cap at the end


@dataclass(frozen=True)
class Surface:
    """Surfaces of N capsules of one kind: colours (N, 3), other fields (N,) or one number for all."""

    base: np.ndarray
    second: np.ndarray | None = None  # colour of the pattern
    end: np.ndarray | None = None  # colour from ``end_from`` on
    end_from: np.ndarray | float = _NEVER  # metres along the axis
    along_frequency: np.ndarray | float = 0.0  # stripes along the axis: per metre, phase, share of the period
    along_phase: np.ndarray | float = 0.0
    along_share: np.ndarray | float = -1.0
    side_frequency: np.ndarray | float = 0.0  # the same across the axis
    side_phase: np.ndarray | float = 0.0
    side_share: np.ndarray | float = -1.0
    mixing: np.ndarray | float = 1.0  # opacity of the stripes
    print_side: np.ndarray | float = -1.0  # print on the front: half width, centre, half height in metres
    print_centre: np.ndarray | float = 0.0
    print_half: np.ndarray | float = -1.0
    fold: np.ndarray | float = 0.0  # strengths of folds and weave
    weave: np.ndarray | float = 0.0
    offset: np.ndarray | float = 0.0  # into the noise

    def columns(self, count: int) -> np.ndarray:
        """Return the fields as (N, 23) float64, in their order, with three columns for a colour."""
        table = np.empty((count, 23))
        for item, part in zip(fields(self), np.split(table, (3, 6, *range(9, 23)), 1), strict=True):
            value = getattr(self, item.name)
            value = np.asarray(self.base if value is None else value, np.float64)
            part[:] = value if part.shape[1] == 3 else value[..., None]
        return table


@dataclass
class CapsuleGroup:
    """Growing collection of the capsules of one kind of thing in N images; ``join`` drops absent ones."""

    image: np.ndarray  # (N,) image of each row
    # (N, 37) each: start, end, front (three columns each), radii, flatness, shades, hollow, surface.
    tables: list[np.ndarray] = field(default_factory=list)
    present: list[np.ndarray] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Return the number of rows (N)."""
        return len(self.image)

    def add(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radius: tuple[np.ndarray | float, np.ndarray | float],
        surface: Surface,
        *,
        flatness: np.ndarray | float = 1.0,
        front: np.ndarray | tuple[float, float, float] = (0.0, 0.0, 1.0),
        present: np.ndarray | bool = True,
        shades: bool = False,
        hollow: bool = False,
    ) -> None:
        """Add one capsule to each of the N images; end points are (N, 3), ``radius`` is that at both ends."""
        # ``hollow`` leaves the far end open, for skirts, hems and trouser legs, which are seen from above.
        table = np.empty((self.count, 37))
        table[:, 0:3], table[:, 3:6], table[:, 6:9] = start, end, front
        table[:, 9], table[:, 10] = radius
        table[:, 11], table[:, 12], table[:, 13] = flatness, shades, hollow
        table[:, 14:] = surface.columns(self.count)
        self.tables.append(table)
        self.present.append(np.broadcast_to(np.asarray(present, bool), (self.count,)))

    def stand(self, yaw_sine: np.ndarray, yaw_cosine: np.ndarray, place: np.ndarray) -> None:
        """Turn all capsules about the upright axis and move them to ``place`` (N, 3)."""
        for table in self.tables:
            for first, shift in ((0, place), (3, place), (6, 0.0)):
                x, y, z = (table[:, first + i] for i in range(3))
                vector = np.stack([x * yaw_cosine + z * yaw_sine, y, z * yaw_cosine - x * yaw_sine], -1)
                table[:, first : first + 3] = vector + shift

    def remove(self, absent: np.ndarray) -> None:
        """Remove all capsules of the rows where ``absent`` (N,) is true."""
        self.present[:] = [column & ~absent for column in self.present]

    def extent(self, count: int, right: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the least and largest coordinates along ``right``, then ``up``, of the first rows."""
        geometry = np.stack([table[:count, :12] for table in self.tables], 1)
        present = np.stack([column[:count] for column in self.present], 1)
        sides = []
        for axis in (right, up):
            for sign in (-1.0, 1.0):
                ends = [
                    sign * dot(geometry[..., i : i + 3], axis[:, None]) + geometry[..., radius]
                    for i, radius in ((0, 9), (3, 10))
                ]
                sides.append(sign * np.where(present, np.maximum(*ends), -np.inf).max(1))
        return tuple(sides)


def point(x: np.ndarray | float, y: np.ndarray | float, z: np.ndarray | float) -> np.ndarray:
    """Return points (N, 3) float64 from coordinates, each (N,) or one number for all."""
    return np.stack(np.broadcast_arrays(x, y, z), -1).astype(np.float64)


def join(groups: list[CapsuleGroup]) -> Capsules:
    """Join all present capsules, ordered by image and within an image as they were added."""
    images, tables = [], []
    for group in groups:
        present = np.stack(group.present, 1)
        images.append(group.image[np.nonzero(present)[0]])
        tables.append(np.stack(group.tables, 1)[present])
    image = np.concatenate(images)
    order = np.argsort(image, kind="stable")
    table = np.concatenate(tables)[order]
    start, end, front, radius, rest, surface = np.split(table, (3, 6, 9, 11, 14), axis=1)
    flatness, shades, hollow = rest.T
    return Capsules(image[order], start, end, radius, flatness, front, surface, shades > 0, hollow > 0)


def build_prop(
    build: Callable, draws: RandomStreams, place: np.ndarray, image: np.ndarray, texture: float
) -> CapsuleGroup:
    """Build N things of one of the ``PROPS`` at ``place`` (N, 3) in the images ``image`` (N,)."""
    group = CapsuleGroup(image)
    paint = draws.colour("paint", "things") * draws.uniform("tone", 0.75, 1.25)[:, None]
    size = draws.uniform("size", 0.9, 1.15)

    def add(start, end, radius, surface: Surface, **options) -> None:
        start, end = (size[:, None] * np.asarray(point) for point in (start, end))
        group.add(start, end, radius, surface, **options)

    build(add, draws, paint, size, texture)
    turn = draws.uniform("turn", -0.5, 0.5)
    group.stand(sine(turn), cosine(turn), place)
    return group


def _pole(add, draws, paint, size, texture) -> None:
    coat = Surface(paint, second=paint * 0.6, along_frequency=0.6, along_share=0.3, weave=0.08 * texture)
    add((0, 0, 0), (0, 3.4, 0), (0.075 * size, 0.055 * size), coat, shades=True)
    add((0, 0, 0), (0, 0.25, 0), (0.12 * size, 0.10 * size), coat)


def _bin(add, draws, paint, size, texture) -> None:
    coat = Surface(paint, second=paint * 0.7, side_frequency=9.0, side_share=0.2, weave=0.10 * texture)
    lid, wide = Surface(paint * 0.6), 0.27 * size
    add((0, 0.20, 0), (0, 0.62, 0), (0.20 * size, 0.24 * size), coat, shades=True)
    add((0, 0.84, 0), (0, 0.84, 0), (wide, wide), lid, flatness=0.35, front=(0.0, 1.0, 0.0))
    add((-0.10, 0.70, 0.22), (0.10, 0.70, 0.22), (0.04, 0.04), Surface(paint * 0.2))


def _bicycle(add, draws, paint, size, texture) -> None:
    tyre, frame = Surface(np.full_like(paint, 0.06)), Surface(paint * 1.2)
    angles = np.arange(13) * (6.283185307179586 / 12)
    for centre in (-0.52, 0.52):
        rim = np.stack([centre + 0.33 * cosine(angles), 0.35 + 0.33 * sine(angles), 0 * angles], -1)
        for start, end in pairwise(rim):
            add(start, end, (0.024, 0.024), tyre)
    seat, crank, head = (-0.18, 0.82, 0), (-0.06, 0.33, 0), (0.36, 0.80, 0)
    rear, front, stem = (-0.52, 0.35, 0), (0.52, 0.35, 0), (0.34, 0.98, 0)
    for a, b in ((seat, crank), (seat, head), (crank, head), (crank, rear), (seat, rear), (head, front)):
        add(a, b, (0.022, 0.022), frame)
    add((0.34, 0.98, -0.26), (0.34, 0.98, 0.26), (0.018, 0.018), tyre)
    add(head, stem, (0.018, 0.018), frame)
    add((-0.28, 0.92, 0), (-0.08, 0.91, 0), (0.06, 0.03), tyre)


def _bush(add, draws, paint, size, texture) -> None:
    green = np.asarray([0.20, 0.33, 0.13]) * draws.uniform("leaves", 0.8, 1.4)[:, None]
    for i in range(9):
        x, y, z = (draws.uniform(f"{i}/{axis}", -1.0, 1.0) for axis in "xyz")
        centre = np.stack([0.38 * x, 0.42 + 0.30 * y, 0.2 * z], -1)
        radius = size * (0.27 - 0.06 * np.abs(y))
        tone = (0.85 + 0.15 * y)[:, None]
        leaves = Surface(green * tone, fold=0.45 * texture, weave=0.45 * texture, offset=float(i * 9))
        add(centre, centre, (radius, radius), leaves, shades=i < 3)


def _sign(add, draws, paint, size, texture) -> None:
    add((0, 0, 0), (0, 1.45, 0), (0.035, 0.035), Surface(np.full_like(paint, 0.5)))
    board = Surface(paint * 1.3, second=np.full_like(paint, 0.85), print_side=0.13, print_half=0.12)
    add((0, 1.15, 0.04), (0, 1.35, 0.04), (0.24 * size, 0.24 * size), board, flatness=0.12)


def _railing(add, draws, paint, size, texture) -> None:
    coat = Surface(paint)
    for height in (0.45, 0.95):
        add((-1.2, height, 0), (1.2, height, 0), (0.026, 0.026), coat)
    for i in range(7):
        x = -1.2 + 0.4 * i
        add((x, 0, 0), (x, 0.95, 0), (0.022, 0.022), coat)


# Things of a street: in front of a person they occlude, behind a person they distract.
PROPS = (_pole, _bin, _bicycle, _bush, _sign, _railing)
