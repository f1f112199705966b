"""Building blocks of a scene: capsules collected part by part, with the surface each one wears."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from reidlib.data.synthetic.repeatable import dot

_NEVER = 1.0e3  # metres or share that no part of a body reaches


SURFACE = (
    *("red", "green", "blue", "red2", "green2", "blue2", "red3", "green3", "blue3", "end_from"),
    *(
        "along_frequency",
        "along_phase",
        "along_share",
        "side_frequency",
        "side_phase",
        "side_share",
        "mixing",
    ),
    *("print_side", "print_centre", "print_half", "fold", "weave", "offset"),
)
"""Columns of ``Capsules.surface``: base, pattern and end colour; where along the axis the end colour begins
(metres); stripes along and across the axis (per metre, phase, share of the period); a print on the front
(half width, centre and half height in metres); strengths of folds and weave; offset into the noise."""


@dataclass(frozen=True)
class Capsules:
    """M tapered, flattened capsules in the metres of their image's scene; y is up, z points to the viewer."""

    image: np.ndarray  # (M,) int64, ascending
    start: np.ndarray  # (M, 3)
    end: np.ndarray  # (M, 3)
    radius: np.ndarray  # (M, 2) at start and end
    flatness: np.ndarray  # (M,) thickness along `front` relative to the radius, at most 1
    front: np.ndarray  # (M, 3) the direction that the print faces, not along the axis
    surface: np.ndarray  # (M, len(SURFACE))
    shades: np.ndarray  # (M,) bool: throws a shadow on the ground
    hollow: np.ndarray  # (M,) bool: no cap at the end


@dataclass(frozen=True)
class Surface:
    """What N capsules of one kind wear: colours (N, 3) and pattern; see ``SURFACE``."""

    base: np.ndarray
    second: np.ndarray | None = None
    end: np.ndarray | None = None
    end_from: np.ndarray | float = _NEVER
    along_frequency: np.ndarray | float = 0.0
    along_phase: np.ndarray | float = 0.0
    along_share: np.ndarray | float = -1.0
    side_frequency: np.ndarray | float = 0.0
    side_phase: np.ndarray | float = 0.0
    side_share: np.ndarray | float = -1.0
    mixing: np.ndarray | float = 1.0
    print_side: np.ndarray | float = -1.0
    print_centre: np.ndarray | float = 0.0
    print_half: np.ndarray | float = -1.0
    fold: np.ndarray | float = 0.0
    weave: np.ndarray | float = 0.0
    offset: np.ndarray | float = 0.0

    def columns(self, count: int) -> np.ndarray:
        """(N, len(SURFACE)) float64, in the order of the fields above."""
        values = []
        for item in fields(self):
            value = getattr(self, item.name)
            value = self.base if value is None else value
            value = np.asarray(value, np.float64)
            if item.name in ("base", "second", "end"):
                values.append(np.broadcast_to(value, (count, 3)))
            else:
                values.append(np.broadcast_to(value, (count,))[:, None])
        return np.concatenate(values, 1)


@dataclass
class Parts:
    """Capsules of one kind of thing in N images while they are collected; ``join`` drops the absent ones."""

    image: np.ndarray  # (N,) number of the image that each row stands in
    geometry: list[np.ndarray] = field(default_factory=list)
    surfaces: list[np.ndarray] = field(default_factory=list)
    present: list[np.ndarray] = field(default_factory=list)
    shades: list[bool] = field(default_factory=list)  # whether the part throws a shadow on the ground
    hollow: list[bool] = field(default_factory=list)

    @property
    def count(self) -> int:
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
        """Add one capsule to each of the N images: end points (N, 3), radii at both, thickness, front.

        ``hollow`` leaves the far end open: skirts, hems, trouser legs, which are seen from above only.
        """
        columns = [start, end, front]
        wide = [np.broadcast_to(np.asarray(column, np.float64), (self.count, 3)) for column in columns]
        scalars = [*radius, flatness]
        narrow = [np.broadcast_to(np.asarray(v, np.float64), (self.count,))[:, None] for v in scalars]
        self.geometry.append(np.concatenate(wide + narrow, 1))
        self.surfaces.append(surface.columns(self.count))
        self.present.append(np.broadcast_to(np.asarray(present, bool), (self.count,)))
        self.shades.append(shades)
        self.hollow.append(hollow)

    def stand(self, yaw_sine: np.ndarray, yaw_cosine: np.ndarray, place: np.ndarray) -> None:
        """Turn everything collected about the upright axis and move it to ``place`` (N, 3)."""
        turned = []
        for part in self.geometry:
            moved = part.copy()
            for first, shift in ((0, place), (3, place), (6, 0.0)):
                x, y, z = (part[:, first + i] for i in range(3))
                vector = np.stack([x * yaw_cosine + z * yaw_sine, y, z * yaw_cosine - x * yaw_sine], -1)
                moved[:, first : first + 3] = vector + shift
            turned.append(moved)
        self.geometry[:] = turned

    def remove(self, absent: np.ndarray) -> None:
        """Drop everything in the images where ``absent`` (N,) is true."""
        self.present[:] = [part & ~absent for part in self.present]

    def extent(self, count: int, right: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, ...]:
        """Least and largest coordinate along ``right``, then along ``up``, of the first ``count`` rows.

        The axes are (count, 3), the four results (count,).
        """
        geometry = np.stack([part[:count] for part in self.geometry], 1)
        present = np.stack([part[:count] for part in self.present], 1)
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
    """Points (N, 3) float64 from coordinates, of which some may be the same for all."""
    return np.stack(np.broadcast_arrays(x, y, z), -1).astype(np.float64)


def join(groups: list[Parts]) -> Capsules:
    """All present capsules, ordered by image and within an image as they were added."""
    images, geometries, surfaces, shades, hollow = [], [], [], [], []
    for group in groups:
        present = np.stack(group.present, 1)
        images.append(group.image[np.nonzero(present)[0]])
        geometries.append(np.stack(group.geometry, 1)[present])
        surfaces.append(np.stack(group.surfaces, 1)[present])
        shades.append(np.broadcast_to(np.asarray(group.shades), present.shape)[present])
        hollow.append(np.broadcast_to(np.asarray(group.hollow), present.shape)[present])
    image = np.concatenate(images)
    order = np.argsort(image, kind="stable")
    geometry = np.concatenate(geometries)[order]
    return Capsules(
        image=image[order],
        start=geometry[:, 0:3],
        end=geometry[:, 3:6],
        radius=geometry[:, 9:11],
        flatness=geometry[:, 11],
        front=geometry[:, 6:9],
        surface=np.concatenate(surfaces)[order],
        shades=np.concatenate(shades)[order],
        hollow=np.concatenate(hollow)[order],
    )
