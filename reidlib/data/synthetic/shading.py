"""Capsules to colours: every visible sample is shaded once, with pattern, cloth, light and shadow.

See ``raycasting`` for why every step is its own elementwise operation.
"""

from __future__ import annotations

import numpy as np
import torch

from reidlib.data.synthetic.bodies import Capsules
from reidlib.data.synthetic.raycasting import FAR, Geometry, Views, nearest, prepare
from reidlib.data.synthetic.repeatable import dot, smooth_noise

SAMPLES = 2  # rays along each side of a pixel: outlines and thin bars need more than one
_VOLUME = 64


def cloth(seed: int) -> np.ndarray:
    """Periodic noise volume (64, 64, 64) float32 in [−1, 1] that folds, weave and leaves are looked up in."""
    return smooth_noise(seed, "cloth", (_VOLUME,) * 3, (16,) * 3).astype(np.float32)


def cast(
    capsules: Capsules, views: Views, volume: torch.Tensor, shape: tuple[int, int], *, culled: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render N images of capsules without their background.

    Returns the colour (N, 3, H, W) float32 of what is covered, multiplied by the covered share of each
    pixel, and that share (N, 1, H, W), on the device of ``volume`` (from :func:`cloth`). ``culled=False``
    tests every capsule against every ray, for comparison: the result is the same.
    """
    device, images = volume.device, len(views.sine)
    height, width = shape
    rows, columns = height * SAMPLES, width * SAMPLES
    geometry = prepare(capsules, views, rows, columns)
    if not culled:
        everywhere = np.broadcast_to([0.0, 0.0, columns - 1.0, rows - 1.0], geometry.bounds.shape)
        geometry = Geometry(geometry.cast, geometry.shade, everywhere)
    # Blocks small enough for a core's cache; a GPU wants few launches instead.
    on_gpu = device.type != "cpu"
    block, patch = (1 << 15, 1 << 21) if on_gpu else (1 << 9, 1 << 15)
    depth, owner = nearest(geometry, capsules, images, rows, columns, block, device)

    covered = depth < FAR
    place = covered.view(-1).nonzero().squeeze(1).int()
    colour = torch.zeros((3, images * rows * columns), device=device)
    table = torch.from_numpy(geometry.shade).to(device)
    ambience, march = _lighting(views, rows, columns, device)
    flat_volume = volume.reshape(-1)
    for first in range(0, len(place), patch):
        here = place[first : first + patch]
        image = here // (rows * columns)
        within = here - image * (rows * columns)
        row_index = within // columns
        row, column = row_index.float(), (within - row_index * columns).float()
        tau = depth.view(-1).index_select(0, here)
        shaded = _march(depth, image, row, column, tau, march.index_select(1, image))
        parameters = table.index_select(1, owner.view(-1).index_select(0, here))
        light = ambience.index_select(1, image)
        for channel, values in enumerate(_shade(parameters, row, column, tau, flat_volume, light, shaded)):
            colour[channel].index_copy_(0, here.long(), values)
    colour_nchw = _gather(colour.view(3, images, height, SAMPLES, width, SAMPLES)).transpose(0, 1)
    covered_nhw = _gather(covered.float().view(images, height, SAMPLES, width, SAMPLES))
    return colour_nchw, covered_nhw[:, None]


def _shade(table, row, column, tau, volume, ambience, shaded) -> list[torch.Tensor]:
    """Red, green, blue of M samples: pattern, cloth, light."""
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
    size = (normal_w * normal_w + u * u + normal_v * normal_v).sqrt().clamp(min=1e-6)
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
    """1 where a walk from the sample towards the light is hidden behind something nearer, else less."""
    rows, columns = depth.shape[1:]
    flat = depth.view(-1)
    by_row, by_column, by_depth = march.unbind(0)
    base = image * (rows * columns)
    hidden = torch.zeros_like(tau)
    for step in (1.0, 2.0, 3.5, 5.5):
        there_row = (row + by_row * step + 0.5).floor().clamp(0, rows - 1).int()
        there_column = (column + by_column * step + 0.5).floor().clamp(0, columns - 1).int()
        there = flat.index_select(0, base + there_row * columns + there_column)
        gap = tau + by_depth * step - there
        hidden = hidden + ((gap > 0.012) & (gap < 0.45)).float()
    return hidden.clamp(max=2) * 0.5


def _lighting(views: Views, rows: int, columns: int, device) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, N) sun and shadow; (3, N) one step towards the light in rows, columns and depth."""
    right, up, ray = views.axes()
    stride = 0.022  # metres: half the thickness of a forearm
    march = np.stack(
        [
            -dot(up, views.light) * stride * rows / views.height,
            dot(right, views.light) * stride * columns / views.width,
            dot(ray, views.light) * stride,
        ]
    )
    ambience = np.stack([views.sun, views.shadow])
    return tuple(torch.from_numpy(a.astype(np.float32)).to(device) for a in (ambience, march))


def _gather(samples: torch.Tensor) -> torch.Tensor:
    """Mean of a pixel's 2 × 2 samples, added in a fixed order."""
    upper = samples[..., 0, :, 0] + samples[..., 0, :, 1]
    return (upper + (samples[..., 1, :, 0] + samples[..., 1, :, 1])) * 0.25
