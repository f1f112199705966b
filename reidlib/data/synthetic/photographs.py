"""Scenes to pictures: background, shadows on the ground, lens and sensor. Exact operations only.

See ``raycasting`` for why every step is its own elementwise operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from reidlib.data.synthetic.factors import Factors
from reidlib.data.synthetic.places import COLUMNS, HORIZON, ROWS, paint
from reidlib.data.synthetic.repeatable import Draws
from reidlib.data.synthetic.scenes import Scenes, places
from reidlib.data.synthetic.shading import cast, cloth

_GRAIN = 1 << 17


@dataclass(frozen=True)
class Studio:
    """What all images share, on the device: places (cameras, 3, ROWS·COLUMNS) uint8, cloth, grain."""

    backdrops: torch.Tensor
    volume: torch.Tensor
    grain: torch.Tensor

    @classmethod
    def build(cls, factors: Factors, seed: int, device: torch.device | str) -> Studio:
        """Paint the places and fill the noise tables, on the CPU, and bring them to the device."""
        geometry = places(factors, seed)
        backdrops = np.stack([paint(seed, camera, view) for camera, view in enumerate(geometry)])
        grain = Draws(seed, np.arange(_GRAIN, dtype=np.uint64)).bell("grain")
        return cls(
            torch.from_numpy(backdrops).reshape(len(geometry), 3, ROWS * COLUMNS).to(device),
            torch.from_numpy(cloth(seed)).to(device),
            torch.from_numpy(grain.astype(np.float32)).to(device),
        )


def photograph(
    scenes: Scenes, studio: Studio, shape: tuple[int, int], *, culled: bool = True
) -> torch.Tensor:
    """Pictures (N, 3, H, W) uint8 of N scenes, on the studio's device."""
    device = studio.volume.device
    covered_colour, covered = cast(scenes.capsules, scenes.views, studio.volume, shape, culled=culled)
    ground = _backdrop(scenes, studio, shape)
    ground = ground * (1 - _ground_shadow(scenes, shape, device))
    picture = covered_colour + ground * (1 - covered)
    return _expose(picture, scenes, studio)


@contextmanager
def single_threaded(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads that render side by side, each of whose operations runs on one core.

    Operations here are short: split over cores they would spend their time waiting for one another, the more
    so the busier the machine is.
    """
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            yield pool
    finally:
        # The setting belongs to the thread that made it, but is also what threads made later begin with.
        torch.set_num_threads(before)


def _column(values: np.ndarray, device, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device).reshape(shape)


def _pixels(scenes: Scenes, shape: tuple[int, int], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Image-plane metres of pixel centres: across (N, 1, W) and up (N, H, 1)."""
    height, width = shape
    views = scenes.views
    step_x, step_y = views.width / width, views.height / height
    across = (views.left + 0.5 * step_x)[:, None] + step_x[:, None] * np.arange(width)
    up = (views.top - 0.5 * step_y)[:, None] - step_y[:, None] * np.arange(height)
    return _column(across, device, -1, 1, width), _column(up, device, -1, height, 1)


def _backdrop(scenes: Scenes, studio: Studio, shape: tuple[int, int]) -> torch.Tensor:
    """The part of each camera's place that the box shows, (N, 3, H, W) in [0, 1], bilinear."""
    device, (height, width) = studio.volume.device, shape
    across, up = _pixels(scenes, shape, device)
    metre = _column(scenes.metre, device, -1, 1, 1)
    column = (_column(scenes.column + COLUMNS / 2, device, -1, 1, 1) + across * metre).clamp(
        0, COLUMNS - 1.001
    )
    row = (_column(scenes.row + HORIZON, device, -1, 1, 1) - up * metre).clamp(0, ROWS - 1.001)
    left, above = column.floor(), row.floor()
    part_x, part_y = column - left, row - above
    camera = torch.from_numpy(scenes.camera.astype(np.int32)).to(device).reshape(-1, 1, 1)
    flat = studio.backdrops.view(-1)
    corner = (camera * (3 * ROWS * COLUMNS) + above.int() * COLUMNS + left.int()).view(-1)
    channels = []
    for channel in range(3):
        place = corner + channel * (ROWS * COLUMNS)
        taps = [
            flat.index_select(0, place + shift).float().view(-1, height, width)
            for shift in (0, 1, COLUMNS, COLUMNS + 1)
        ]
        upper = taps[0] + (taps[1] - taps[0]) * part_x
        lower = taps[2] + (taps[3] - taps[2]) * part_x
        channels.append(upper + (lower - upper) * part_y)
    return torch.stack(channels, 1) * (1.0 / 255.0)


def _casters(scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Shadows on the ground as segments: image (S,), and start x z, end x z, reach, darkness (S, 6)."""
    capsules, views = scenes.capsules, scenes.views
    thrown = capsules.shades
    image = capsules.image[thrown]
    start, end, radius = capsules.start[thrown], capsules.end[thrown], capsules.radius[thrown].max(1)
    light, sun = views.light[image], views.sun[image]
    lean = light[:, ::2] / light[:, 1:2]
    columns = []
    lowest = np.minimum(start[:, 1], end[:, 1])
    # The sun throws a shadow aside; the whole sky throws a soft one straight down, near the ground only.
    for slope, soft, darkness in (
        (lean, 1.0, np.minimum(1.3 * sun, 1.0)),
        (lean * 0, 1.9, 0.75 * np.clip(1 - lowest / 0.45, 0, 1)),
    ):
        points = [point[:, ::2] - slope * point[:, 1:2] for point in (start, end)]
        columns.append(np.concatenate([*points, (soft * radius + 0.02)[:, None], darkness[:, None]], 1))
    images, table = np.concatenate([image, image]), np.concatenate(columns)
    order = np.argsort(images, kind="stable")
    order = order[table[order, 5] > 0.02]
    return images[order], table[order]


def _ground_shadow(scenes: Scenes, shape: tuple[int, int], device) -> torch.Tensor:
    """Share of light that is missing on the ground, (N, 1, H, W): soft segments, the darkest counts."""
    height, width = shape
    first_row = height // 3  # above it there is hardly ever ground near the feet
    across, up = _pixels(scenes, shape, device)
    sine = _column(scenes.views.sine, device, -1, 1, 1)
    depth = -(up[:, first_row:] / sine)
    image, table = _casters(scenes)
    rank = np.arange(len(image)) - np.searchsorted(image, image)
    shadow = torch.zeros((len(scenes.camera), height - first_row, width), device=device)
    for number in range(int(rank.max(initial=-1)) + 1):
        chosen = rank == number
        index = torch.from_numpy(image[chosen]).to(device)
        x0, z0, x1, z1, reach, darkness = (_column(v, device, -1, 1, 1) for v in table[chosen].T)
        span_x, span_z = x1 - x0, z1 - z0
        square = (span_x * span_x + span_z * span_z).clamp(min=1e-6)
        from_x, from_z = across.index_select(0, index) - x0, depth.index_select(0, index) - z0
        part = ((from_x * (span_x / square)) + (from_z * (span_z / square))).clamp(0, 1)
        away_x, away_z = from_x - part * span_x, from_z - part * span_z
        away = (away_x * away_x + away_z * away_z).sqrt()
        dark = (1.6 - away * (1.1 / reach)).clamp(0, 1) * darkness
        shadow.index_copy_(0, index, torch.maximum(shadow.index_select(0, index), dark))
    wall = _column(-scenes.behind, device, -1, 1, 1)
    strength = _column(scenes.views.shadow, device, -1, 1, 1)
    shadow = torch.where(depth > wall, shadow, 0.0) * strength
    full = torch.zeros((len(scenes.camera), 1, height, width), device=device)
    full[:, 0, first_row:] = shadow
    return full


def _expose(picture: torch.Tensor, scenes: Scenes, studio: Studio) -> torch.Tensor:
    """Colour matrix, tone curve, blur, noise; (N, 3, H, W) uint8."""
    device, sensor = picture.device, scenes.sensor
    count, _, height, width = picture.shape
    red, green, blue = picture.unbind(1)
    bend = _column(sensor.bend, device, -1, 1, 1)
    channels = []
    for i in range(3):
        weights = [_column(sensor.matrix[:, i, j], device, -1, 1, 1) for j in range(3)]
        value = (red * weights[0] + green * weights[1] + blue * weights[2]).clamp(0, 1)
        # Schlick's bias (1994) instead of a power: the same bow, but from exact operations.
        channels.append(value / ((1 - value) * bend + 1))
    image = torch.stack(channels, 1)
    share = _column(sensor.blur, device, -1, 1, 1, 1)
    for _ in range(2):
        for axis in (2, 3):
            size = image.shape[axis]
            before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, size - 1)], axis)
            after = torch.cat([image.narrow(axis, 1, size - 1), image.narrow(axis, size - 1, 1)], axis)
            image = image + (before + after - image * 2) * share
    pixels = torch.arange(3 * height * width, device=device, dtype=torch.int32)
    begin = torch.from_numpy(sensor.grain.astype(np.int32)).to(device)
    # An odd stride walks the whole table, so that two images never share a run of noise.
    place = (begin[:, None] + pixels[None, :] * 5) & (_GRAIN - 1)
    grain = studio.grain.index_select(0, place.view(-1)).view(count, 3, height, width)
    image = image + grain * _column(sensor.noise, device, -1, 1, 1, 1)
    return (image.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)
