"""Things that stand in a street, as capsules: in front of a person they hide, behind they distract."""

from __future__ import annotations

import numpy as np

from reidlib.data.synthetic.bodies import Parts, Surface
from reidlib.data.synthetic.repeatable import Draws, cosine, sine

KINDS = ("pole", "bin", "bicycle", "bush", "sign", "railing")

_PAINTS = np.asarray(
    [
        (0.16, 0.17, 0.18), (0.45, 0.46, 0.47), (0.17, 0.30, 0.22), (0.50, 0.15, 0.13),
        (0.16, 0.25, 0.45), (0.62, 0.60, 0.54), (0.58, 0.46, 0.20),
    ]
)  # fmt: skip


def prop(kind: str, draws: Draws, place: np.ndarray, image: np.ndarray, texture: float) -> Parts:
    """Capsules of N things of one kind at ``place`` (N, 3) in the images ``image`` (N,)."""
    parts = Parts(image)
    paint = _PAINTS[draws.pick("paint", [1] * len(_PAINTS))] * draws.uniform("tone", 0.75, 1.25)[:, None]
    size = draws.uniform("size", 0.9, 1.15)
    build = {
        "pole": _pole, "bin": _bin, "bicycle": _bicycle, "bush": _bush, "sign": _sign, "railing": _railing,
    }[kind]  # fmt: skip
    build(parts, draws, paint, size, texture)
    turn = draws.uniform("turn", -0.5, 0.5)
    parts.stand(sine(turn), cosine(turn), place)
    return parts


def _at(size: np.ndarray, x: float, y: float, z: float) -> np.ndarray:
    return size[:, None] * np.asarray([x, y, z])


def _pole(parts, draws, paint, size, texture) -> None:
    coat = Surface(paint, second=paint * 0.6, along_frequency=0.6, along_share=0.3, weave=0.08 * texture)
    parts.add(_at(size, 0, 0, 0), _at(size, 0, 3.4, 0), (0.075 * size, 0.055 * size), coat, shades=True)
    parts.add(_at(size, 0, 0, 0), _at(size, 0, 0.25, 0), (0.12 * size, 0.10 * size), coat)


def _bin(parts, draws, paint, size, texture) -> None:
    coat = Surface(paint, second=paint * 0.7, side_frequency=9.0, side_share=0.2, weave=0.10 * texture)
    lid = Surface(paint * 0.6)
    parts.add(_at(size, 0, 0.20, 0), _at(size, 0, 0.62, 0), (0.20 * size, 0.24 * size), coat, shades=True)
    parts.add(
        _at(size, 0, 0.84, 0),
        _at(size, 0, 0.84, 0),
        (0.27 * size, 0.27 * size),
        lid,
        flatness=0.35,
        front=(0.0, 1.0, 0.0),
    )
    parts.add(_at(size, -0.10, 0.70, 0.22), _at(size, 0.10, 0.70, 0.22), (0.04, 0.04), Surface(paint * 0.2))


def _bicycle(parts, draws, paint, size, texture) -> None:
    tyre, frame = Surface(np.full_like(paint, 0.06)), Surface(paint * 1.2)
    angles = np.arange(13) * (6.283185307179586 / 12)
    xs, ys = 0.33 * cosine(angles), 0.33 * sine(angles)
    for centre in (-0.52, 0.52):
        for i in range(12):
            parts.add(
                _at(size, centre + xs[i], 0.35 + ys[i], 0.0),
                _at(size, centre + xs[i + 1], 0.35 + ys[i + 1], 0.0),
                (0.024, 0.024),
                tyre,
            )
    seat, crank, head, rear, front = (-0.18, 0.82), (-0.06, 0.33), (0.36, 0.80), (-0.52, 0.35), (0.52, 0.35)
    for a, b in ((seat, crank), (seat, head), (crank, head), (crank, rear), (seat, rear), (head, front)):
        parts.add(_at(size, *a, 0.0), _at(size, *b, 0.0), (0.022, 0.022), frame)
    parts.add(_at(size, 0.34, 0.98, -0.26), _at(size, 0.34, 0.98, 0.26), (0.018, 0.018), tyre)
    parts.add(_at(size, 0.36, 0.80, 0.0), _at(size, 0.34, 0.98, 0.0), (0.018, 0.018), frame)
    parts.add(_at(size, -0.28, 0.92, 0.0), _at(size, -0.08, 0.91, 0.0), (0.06, 0.03), tyre)


def _bush(parts, draws, paint, size, texture) -> None:
    green = np.asarray([0.20, 0.33, 0.13]) * draws.uniform("leaves", 0.8, 1.4)[:, None]
    for i in range(9):
        x, y, z = (draws.uniform(f"{i}/{axis}", -1.0, 1.0) for axis in "xyz")
        centre = size[:, None] * np.stack([0.38 * x, 0.42 + 0.30 * y, 0.2 * z], -1)
        radius = size * (0.27 - 0.06 * np.abs(y))
        tone = (0.85 + 0.15 * y)[:, None]
        leaves = Surface(green * tone, fold=0.45 * texture, weave=0.45 * texture, offset=float(i * 9))
        parts.add(centre, centre, (radius, radius), leaves, shades=i < 3)


def _sign(parts, draws, paint, size, texture) -> None:
    grey = np.full_like(paint, 0.5)
    parts.add(_at(size, 0, 0, 0), _at(size, 0, 1.45, 0), (0.035, 0.035), Surface(grey))
    board = Surface(paint * 1.3, second=np.full_like(paint, 0.85), print_side=0.13, print_half=0.12)
    parts.add(_at(size, 0, 1.15, 0.04), _at(size, 0, 1.35, 0.04), (0.24 * size, 0.24 * size), board,
              flatness=0.12)  # fmt: skip


def _railing(parts, draws, paint, size, texture) -> None:
    coat = Surface(paint)
    for height in (0.45, 0.95):
        parts.add(_at(size, -1.2, height, 0), _at(size, 1.2, height, 0), (0.026, 0.026), coat)
    for i in range(7):
        x = -1.2 + 0.4 * i
        parts.add(_at(size, x, 0.0, 0), _at(size, x, 0.95, 0), (0.022, 0.022), coat)
