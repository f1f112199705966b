"""From scenes to pictures: cloth and light on capsules, background, shadows on the ground, lens, sensor.

``raycasting`` says why every step is a separate elementwise operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from reidlib.data.synthetic.bodies import Capsules
from reidlib.data.synthetic.factors import Factors
from reidlib.data.synthetic.places import COLUMNS, HORIZON, ROWS, paint_background
from reidlib.data.synthetic.raycasting import FAR, Geometry, Views, axes, nearest_hit, prepare, square_root
from reidlib.data.synthetic.repeatable import RandomStreams, dot, smooth_noise
from reidlib.data.synthetic.scenes import Scenes

SAMPLES = 2  # rays along each side of a pixel; outlines and thin bars need more than one
_VOLUME = 64
_GRAIN = 1 << 17


@dataclass(frozen=True)
class Studio:
    """Tensors on the device that all images share."""

    backdrops: torch.Tensor  # (cameras, 3, ROWS·COLUMNS) uint8
    volume: torch.Tensor
    grain: torch.Tensor

    @classmethod
    def build(cls, factors: Factors, seed: int, device: torch.device | str) -> Studio:
        """Paint the backgrounds and fill the noise tables on the CPU, and move them to the device."""
        backdrops = [
            paint_background(seed, camera, factors.camera_pitch) for camera in range(factors.num_cameras)
        ]
        grain = RandomStreams(seed, np.arange(_GRAIN, dtype=np.uint64)).bell("grain")
        return cls(
            torch.from_numpy(np.stack(backdrops)).flatten(2).to(device),
            torch.from_numpy(cloth(seed)).to(device),
            torch.from_numpy(grain.astype(np.float32)).to(device),
        )


def photograph(
    scenes: Scenes, studio: Studio, shape: tuple[int, int], *, culled: bool = True
) -> torch.Tensor:
    """Render pictures (N, 3, H, W) uint8 of N scenes, on the studio's device."""
    device = studio.volume.device
    covered_colour, covered = cast_rays(scenes.capsules, scenes.views, studio.volume, shape, culled=culled)
    ground = _backdrop(scenes, studio, shape)
    ground = ground * (1 - _ground_shadow(scenes, shape, device))
    picture = covered_colour + ground * (1 - covered)
    return _expose(picture, scenes, studio)


@contextmanager
def single_threaded_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Provide a pool of threads in which each torch operation runs on one core."""
    # Operations are short. Split over cores, they would mostly wait for each other on a busy machine.
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        with pool:
            yield pool
    finally:
        # The setting belongs to one thread, but threads that start later inherit it.
        torch.set_num_threads(before)


def cloth(seed: int) -> np.ndarray:
    """Return a periodic noise volume (64, 64, 64) float32 in [−1, 1] for folds, weave and leaves."""
    return smooth_noise(seed, "cloth", (_VOLUME,) * 3, (16,) * 3).astype(np.float32)


def cast_rays(
    capsules: Capsules, views: Views, volume: torch.Tensor, shape: tuple[int, int], *, culled: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render capsules without background: colour (N, 3, H, W) times covered share, and share (N, 1, H, W)."""
    # ``culled=False`` tests every capsule against every ray, for comparison. The result is the same.
    device, images = volume.device, len(views.sine)
    height, width = shape
    rows, columns = height * SAMPLES, width * SAMPLES
    geometry = prepare(capsules, views, rows, columns)
    if not culled:
        everywhere = np.broadcast_to([0.0, 0.0, columns - 1.0, rows - 1.0], geometry.bounds.shape)
        geometry = Geometry(geometry.intersection, geometry.shading, everywhere)
    # Blocks fit a core's cache; on a GPU they are large, for few launches.
    on_gpu = device.type != "cpu"
    block, patch = (1 << 15, 1 << 21) if on_gpu else (1 << 9, 1 << 15)
    depth, owner = nearest_hit(geometry, capsules, images, rows, columns, block, device)

    covered = depth < FAR
    place = covered.view(-1).nonzero().squeeze(1).int()
    colour = torch.zeros((3, images * rows * columns), device=device)
    table = torch.from_numpy(geometry.shading).to(device)
    ambience, march = _lighting(views, rows, columns, device)
    flat_volume = volume.reshape(-1)
    for first in range(0, len(place), patch):
        samples = place[first : first + patch]
        image = samples // (rows * columns)
        within = samples - image * (rows * columns)
        row_index = within // columns
        row, column = row_index.float(), (within - row_index * columns).float()
        tau = depth.view(-1).index_select(0, samples)
        shaded = _march(depth, image, row, column, tau, march.index_select(1, image))
        parameters = table.index_select(1, owner.view(-1).index_select(0, samples))
        light = ambience.index_select(1, image)
        for channel, values in enumerate(_shade(parameters, row, column, tau, flat_volume, light, shaded)):
            colour[channel].index_copy_(0, samples.long(), values)
    colour_nchw = _gather(colour.view(3, images, height, SAMPLES, width, SAMPLES)).transpose(0, 1)
    covered_nhw = _gather(covered.float().view(images, height, SAMPLES, width, SAMPLES))
    return colour_nchw, covered_nhw[:, None]


def _shade(table, row, column, tau, volume, ambience, shaded) -> list[torch.Tensor]:
    """Return red, green and blue of M samples from pattern, cloth and light."""
    (
        p0, pc, pr, q0, qc, qr, t0, tc, tr, speed,
        pw, pu, pv, qw, qu, qv, rw, ru, rv,
        s0, s1, length, thin, light_w, light_u, light_v, up_w, up_u, up_v,
        red, green, blue, red2, green2, blue2, red3, green3, blue3, end_from,
        along_frequency, along_phase, along_share, side_frequency, side_phase, side_share, mixing,
        print_side, print_centre, print_half, fold, weave, offset,
    ) = table.unbind(0)  # fmt: skip
    sun, strength = ambience.unbind(0)
    p = p0 + pc * column + pr * row
    q = q0 + qc * column + qr * row
    t = (tau - (t0 + tc * column + tr * row)) * speed
    w = p * pw + q * qw + t * rw
    u = p * pu + q * qu + t * ru
    v = p * pv + q * qv + t * rv
    centre = (s0 + s1 * w).clamp(0, 1) * length
    normal_w, normal_v = w - centre, v * thin
    size = square_root(normal_w * normal_w + u * u + normal_v * normal_v).clamp(min=1e-6)
    facing = (normal_w * light_w + u * light_u + normal_v * light_v) / size
    upward = (normal_w * up_w + u * up_u + normal_v * up_v) / size

    depth_v = v / thin
    striped = _fraction(w * along_frequency + along_phase) < along_share
    lined = _fraction(u * side_frequency + side_phase) < side_share
    share = (striped.float() + lined.float()) * mixing
    printed = (v > 0) & (u.abs() < print_side) & ((w - print_centre).abs() < print_half)
    share = torch.where(printed, 1.0, share)
    beyond = w > end_from

    folds = _lookup(volume, w * 70 + offset, u * 40 + offset, depth_v * 40)
    grain = _lookup(volume, w * 330, u * 330 + offset, depth_v * 330 + offset)
    relief = 1 + folds * fold + grain * weave
    diffuse = facing.clamp(min=0) * sun * (1 - shaded * strength)
    ambient = (upward * 0.22 + 0.78) * (1 - sun * 0.55) * (1 - shaded * strength * 0.35)
    brightness = (diffuse + ambient) * relief
    colours = []
    for base, second, third in ((red, red2, red3), (green, green2, green3), (blue, blue2, blue3)):
        colour = base + (second - base) * share
        colours.append(torch.where(beyond, third, colour) * brightness)
    return colours


def _fraction(value: torch.Tensor) -> torch.Tensor:
    return value - value.floor()


def _lookup(volume: torch.Tensor, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    i, j, k = (value.floor().int() & (_VOLUME - 1) for value in (x, y, z))
    return volume.index_select(0, (i * _VOLUME + j) * _VOLUME + k)


def _march(depth, image, row, column, tau, march) -> torch.Tensor:
    """Return how far nearer capsules hide the path from each sample to the light: 0, 0.5 or 1."""
    rows, columns = depth.shape[1:]
    flat = depth.view(-1)
    by_row, by_column, by_depth = march.unbind(0)
    base = image * (rows * columns)
    hidden = torch.zeros_like(tau)
    for step in (1.0, 2.0, 3.5, 5.5):
        step_row = (row + by_row * step + 0.5).floor().clamp(0, rows - 1).int()
        step_column = (column + by_column * step + 0.5).floor().clamp(0, columns - 1).int()
        surface = flat.index_select(0, base + step_row * columns + step_column)
        gap = tau + by_depth * step - surface
        hidden = hidden + ((gap > 0.012) & (gap < 0.45)).float()
    return hidden.clamp(max=2) * 0.5


def _lighting(views: Views, rows: int, columns: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sun and shadow (2, N), and a step towards the light in rows, columns and depth (3, N)."""
    right, up, ray = axes(views.sine, views.cosine)
    stride = 0.022  # metres: half the thickness of a forearm
    march = np.stack(
        [
            -dot(up, views.light) * stride * rows / views.height,
            dot(right, views.light) * stride * columns / views.width,
            dot(ray, views.light) * stride,
        ]
    )
    ambience = np.stack([views.sun, views.shadow])
    ambience, march = (torch.from_numpy(a.astype(np.float32)).to(device) for a in (ambience, march))
    return ambience, march


def _gather(samples: torch.Tensor) -> torch.Tensor:
    """Return the mean of each pixel's 2 × 2 samples, added in a fixed order."""
    upper = samples[..., 0, :, 0] + samples[..., 0, :, 1]
    return (upper + (samples[..., 1, :, 0] + samples[..., 1, :, 1])) * 0.25


def _column(values: np.ndarray, device, *shape: int) -> torch.Tensor:
    """Return one number per image on the device, (N, 1, 1), or numbers in another shape."""
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device).reshape(shape or (-1, 1, 1))


def _pixels(scenes: Scenes, shape: tuple[int, int], device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return image-plane positions of pixel centres in metres: across (N, 1, W) and up (N, H, 1)."""
    height, width = shape
    views = scenes.views
    step_x, step_y = views.width / width, views.height / height
    across = (views.left + 0.5 * step_x)[:, None] + step_x[:, None] * np.arange(width)
    up = (views.top - 0.5 * step_y)[:, None] - step_y[:, None] * np.arange(height)
    return _column(across, device, -1, 1, width), _column(up, device, -1, height, 1)


def _backdrop(scenes: Scenes, studio: Studio, shape: tuple[int, int]) -> torch.Tensor:
    """Cut each box from its camera's background, (N, 3, H, W) in [0, 1], bilinear."""
    device = studio.volume.device
    across, up = _pixels(scenes, shape, device)
    metre = _column(scenes.metre, device)
    column = (_column(scenes.column + COLUMNS / 2, device) + across * metre).clamp(0, COLUMNS - 1.001)
    row = (_column(scenes.row + HORIZON, device) - up * metre).clamp(0, ROWS - 1.001)
    left, above = column.floor(), row.floor()
    part_x, part_y = (column - left)[:, None], (row - above)[:, None]
    camera = torch.from_numpy(scenes.camera.astype(np.int32)).to(device).reshape(-1, 1, 1)
    flat = studio.backdrops.view(-1)
    channel = torch.arange(3, device=device, dtype=torch.int32)[:, None, None]
    corner = (camera * (3 * ROWS * COLUMNS) + above.int() * COLUMNS + left.int())[:, None]
    place = corner + channel * (ROWS * COLUMNS)
    taps = [
        flat.index_select(0, (place + shift).view(-1)).float().view_as(place)
        for shift in (0, 1, COLUMNS, COLUMNS + 1)
    ]
    upper = taps[0] + (taps[1] - taps[0]) * part_x
    lower = taps[2] + (taps[3] - taps[2]) * part_x
    return (upper + (lower - upper) * part_y) * (1.0 / 255.0)


def _casters(scenes: Scenes) -> tuple[np.ndarray, np.ndarray]:
    """Return shadows on the ground as segments: image (S,); start x z, end x z, reach, darkness (S, 6)."""
    capsules, views = scenes.capsules, scenes.views
    casters = capsules.shades
    image = capsules.image[casters]
    start, end, radius = capsules.start[casters], capsules.end[casters], capsules.radius[casters].max(1)
    light, sun = views.light[image], views.sun[image]
    lean = light[:, ::2] / light[:, 1:2]
    columns = []
    lowest = np.minimum(start[:, 1], end[:, 1])
    # The sun casts a shadow to the side. The sky casts a soft shadow straight down, only near the ground.
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
    """Return the share of light that shadows take from the ground, (N, 1, H, W); the darkest counts."""
    height, width = shape
    first_row = height // 3  # above it there is rarely ground near the feet
    across, up = _pixels(scenes, shape, device)
    sine = _column(scenes.views.sine, device)
    depth = -(up[:, first_row:] / sine)
    image, table = _casters(scenes)
    rank = np.arange(len(image)) - np.searchsorted(image, image)
    shadow = torch.zeros((len(scenes.camera), height - first_row, width), device=device)
    for number in range(int(rank.max(initial=-1)) + 1):
        rows = rank == number
        index = torch.from_numpy(image[rows]).to(device)
        x0, z0, x1, z1, reach, darkness = (_column(v, device) for v in table[rows].T)
        span_x, span_z = x1 - x0, z1 - z0
        square = (span_x * span_x + span_z * span_z).clamp(min=1e-6)
        from_x, from_z = across.index_select(0, index) - x0, depth.index_select(0, index) - z0
        part = ((from_x * (span_x / square)) + (from_z * (span_z / square))).clamp(0, 1)
        away_x, away_z = from_x - part * span_x, from_z - part * span_z
        away = square_root(away_x * away_x + away_z * away_z)
        dark = (1.6 - away * (1.1 / reach)).clamp(0, 1) * darkness
        shadow.index_copy_(0, index, torch.maximum(shadow.index_select(0, index), dark))
    wall = _column(-scenes.behind, device)
    strength = _column(scenes.views.shadow, device)
    shadow = torch.where(depth > wall, shadow, 0.0) * strength
    return torch.nn.functional.pad(shadow, (0, 0, first_row, 0))[:, None]


def _expose(picture: torch.Tensor, scenes: Scenes, studio: Studio) -> torch.Tensor:
    """Apply colour matrix, tone curve, blur and noise; return (N, 3, H, W) uint8."""
    device, sensor = picture.device, scenes.sensor
    count, _, height, width = picture.shape
    weights = _column(sensor.matrix, device, count, 3, 3, 1, 1)
    red, green, blue = (picture[:, j, None] * weights[:, :, j] for j in range(3))
    value = (red + green + blue).clamp(0, 1)
    # Schlick's bias (1994) instead of a power: a similar curve from exact operations.
    image = value / ((1 - value) * _column(sensor.bend, device, -1, 1, 1, 1) + 1)
    share = _column(sensor.blur, device, -1, 1, 1, 1)
    for _ in range(2):
        for axis in (2, 3):
            size = image.shape[axis]
            before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, size - 1)], axis)
            after = torch.cat([image.narrow(axis, 1, size - 1), image.narrow(axis, size - 1, 1)], axis)
            image = image + (before + after - image * 2) * share
    pixels = torch.arange(3 * height * width, device=device, dtype=torch.int32)
    begin = torch.from_numpy(sensor.grain.astype(np.int32)).to(device)
    # An odd stride visits the whole table, so that two images never share a run of noise.
    place = (begin[:, None] + pixels[None, :] * 5) & (_GRAIN - 1)
    grain = studio.grain.index_select(0, place.view(-1)).view(count, 3, height, width)
    image = image + grain * _column(sensor.noise, device, -1, 1, 1, 1)
    return (image.clamp(0, 1) * 255 + 0.5).floor().to(torch.uint8)
