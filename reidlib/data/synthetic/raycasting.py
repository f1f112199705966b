"""The first capsule that each ray meets: orthographic rays, closed-form intersection, culling by tiles.

Samples are computed only by exact elementwise IEEE operations. Each is a separate call, so that none is
fused into a multiply-add and every CPU and GPU gives the same bits. A capsule is a sphere that moves along a
segment while its radius changes linearly. The intersection follows Quilez, "Rounded cone – intersection",
2019, rearranged so that values that are constant for a capsule are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from reidlib.data.synthetic.bodies import Capsules
from reidlib.data.synthetic.repeatable import cross, dot, unit_vectors

TILE = 8
FAR = 1.0e4


def square_root(values: torch.Tensor) -> torch.Tensor:
    """Compute square roots elementwise, correctly rounded."""
    # On a CPU torch takes them from MKL, whose last bit depends on the processor. NumPy and CUDA are exact.
    if values.device.type != "cpu":
        return values.sqrt()
    return torch.from_numpy(np.sqrt(values.numpy()))


@dataclass(frozen=True)
class Views:
    """N orthographic cameras: pitch downwards, box in the image plane (metres), light."""

    sine: np.ndarray  # (N,) of the pitch
    cosine: np.ndarray  # (N,)
    left: np.ndarray  # (N,) metres along the right vector
    top: np.ndarray  # (N,) metres along the up vector
    width: np.ndarray  # (N,)
    height: np.ndarray  # (N,)
    light: np.ndarray  # (N, 3) unit vector to the light
    sun: np.ndarray  # (N,) share of directed light, 0 to 1
    shadow: np.ndarray  # (N,) darkness of shadows, 0 to 1


def axes(sine: np.ndarray, cosine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the right, up and ray directions, (N, 3) each, of cameras that look down by a pitch."""
    zero, one = np.zeros_like(sine), np.ones_like(sine)
    right, up = np.stack([one, zero, zero], -1), np.stack([zero, cosine, -sine], -1)
    return right, up, np.stack([zero, -sine, -cosine], -1)


@dataclass(frozen=True)
class Geometry:
    """Values of M capsules that are constant for all rays."""

    intersection: np.ndarray  # (23, M) for the intersection
    shading: np.ndarray  # (52, M) for shading, the surface last
    bounds: np.ndarray  # (M, 4) left, top, right, bottom


def prepare(capsules: Capsules, views: Views, rows: int, columns: int) -> Geometry:
    """Transform each capsule to a frame in which it is round and every ray follows the third axis."""
    right, up, ray = (axis[capsules.image] for axis in axes(views.sine, views.cosine))
    of_image = capsules.image
    step_x = (views.width / columns)[of_image]
    step_y = (views.height / rows)[of_image]
    first_x = views.left[of_image] + 0.5 * step_x
    first_y = views.top[of_image] - 0.5 * step_y

    span = capsules.end - capsules.start
    length = np.sqrt(dot(span, span))
    fallback = np.where(np.abs(capsules.front[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    along = np.where(length[:, None] > 1e-9, unit_vectors(span), fallback)
    front = capsules.front - along * dot(capsules.front, along)[:, None]
    # A front along the axis is invalid. It is replaced by a direction across the axis.
    aligned = dot(front, front) < 1e-6
    spare = np.eye(3)[np.argmin(np.abs(along), 1)]
    front = np.where(aligned[:, None], spare - along * dot(spare, along)[:, None], front)
    front = unit_vectors(front)
    side = cross(along, front)

    def local(vector: np.ndarray) -> np.ndarray:
        coordinates = [dot(along, vector), dot(side, vector), dot(front, vector) / capsules.flatness]
        return np.stack(coordinates, -1)

    ray_local = local(ray)
    speed = np.sqrt(dot(ray_local, ray_local))
    ray_local = ray_local / speed[:, None]
    right_local, up_local, start_local = local(right), local(up), local(capsules.start)
    pole = np.where(np.abs(ray_local[:, :1]) < 0.9999, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    p_axis = unit_vectors(pole - ray_local * dot(pole, ray_local)[:, None])
    q_axis = cross(ray_local, p_axis)

    def affine(axis: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        by_x, by_y = dot(axis, right_local), dot(axis, up_local)
        constant = by_x * first_x + by_y * first_y - dot(axis, start_local)
        return constant, by_x * step_x, -(by_y * step_y)

    p = affine(p_axis)
    q = affine(q_axis)
    depth = tuple(-(value / speed) for value in affine(ray_local))

    ra, rb = capsules.radius[:, 0], capsules.radius[:, 1]
    taper = ra - rb
    slope = length * p_axis[:, 0]
    drift = length * ray_local[:, 0]
    d2 = length * length - taper * taper
    k2 = d2 - drift * drift
    # Seen nearly along the axis, one end hides the side, and the quadratic does not describe a cone.
    sided = (d2 > 1e-8) & (k2 > 1e-7)
    safe_k2, safe_d2 = np.where(sided, k2, 1.0), np.where(sided, d2, 1.0)
    bend = drift * taper * ra
    scale = 1.0 / (safe_k2 * safe_k2)
    h0 = np.where(sided, (bend * bend + k2 * length * length * ra * ra) * scale, -1.0)
    h1 = np.where(sided, -2.0 * slope * (bend * drift + k2 * taper * ra) * scale, 0.0)
    h2 = np.where(sided, (drift * drift * slope * slope - k2 * (d2 - slope * slope)) * scale, 0.0)
    h3 = np.where(sided, d2 / safe_k2, 0.0)
    intersection = np.stack(
        [
            *p, *q, *depth, 1.0 / speed,
            h0, h1, h2, h3,
            -bend / safe_k2, drift * slope / safe_k2,
            -(ra * taper) / safe_d2, slope / safe_d2, drift / safe_d2,
            ra * ra, np.where(capsules.hollow, -1.0, rb * rb), slope, drift,
        ]
    )  # fmt: skip
    light = views.light[of_image]
    shading = np.stack(
        [
            *p, *q, *depth, speed,
            *p_axis.T, *q_axis.T, *ray_local.T,
            np.where(sided, -(ra * taper) / safe_d2, 0.0), np.where(sided, length / safe_d2, 0.0),
            length, 1.0 / capsules.flatness,
            dot(along, light), dot(side, light), dot(front, light),
            along[:, 1], side[:, 1], front[:, 1],
            *capsules.surface.T,
        ]
    )  # fmt: skip

    x = np.stack([dot(capsules.start, right), dot(capsules.end, right)], -1)
    y = np.stack([dot(capsules.start, up), dot(capsules.end, up)], -1)
    bounds = np.stack(
        [
            ((x - capsules.radius).min(-1) - first_x) / step_x,
            (first_y - (y + capsules.radius).max(-1)) / step_y,
            ((x + capsules.radius).max(-1) - first_x) / step_x,
            (first_y - (y - capsules.radius).min(-1)) / step_y,
        ],
        -1,
    )
    return Geometry(intersection.astype(np.float32), shading.astype(np.float32), bounds)


def _tiles(capsules: Capsules, bounds: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, ...]:
    """Return pairs of capsules and tiles that overlap, ordered by the capsules' ranks in their images."""
    high, wide = rows // TILE, columns // TILE
    left, top = (np.floor(bounds[:, i] / TILE).astype(np.int64) for i in (0, 1))
    right, bottom = (np.floor(np.ceil(bounds[:, i]) / TILE).astype(np.int64) for i in (2, 3))
    left, top = np.maximum(left, 0), np.maximum(top, 0)
    across = np.maximum(np.minimum(right, wide - 1) - left + 1, 0)
    down = np.maximum(np.minimum(bottom, high - 1) - top + 1, 0)
    count = across * down

    first_of_image = np.searchsorted(capsules.image, capsules.image)
    rank = np.arange(len(count)) - first_of_image
    order = np.argsort(rank, kind="stable")
    order = order[count[order] > 0]
    capsule = np.repeat(order, count[order])
    within = np.arange(len(capsule)) - np.repeat(np.cumsum(count[order]) - count[order], count[order])
    row = top[capsule] + within // across[capsule]
    column = left[capsule] + within % across[capsule]
    return capsule, row, column, rank[capsule]


def nearest_hit(
    geometry: Geometry, capsules: Capsules, images: int, rows: int, columns: int, block: int, device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return depth and capsule of each sample's first hit, (N, rows, columns) each; no hit is FAR, 0."""
    high, wide = rows // TILE, columns // TILE
    capsule, tile_row, tile_column, rank = _tiles(capsules, geometry.bounds, rows, columns)
    place = (capsules.image[capsule] * high + tile_row) * wide + tile_column
    table = torch.from_numpy(geometry.intersection).to(device)
    depth_tl = torch.full((images * high * wide, TILE * TILE), FAR, device=device)
    owner_tl = torch.zeros((images * high * wide, TILE * TILE), dtype=torch.int32, device=device)
    lane = torch.arange(TILE * TILE, device=device)
    lanes = (lane // TILE).float(), (lane % TILE).float()
    corners = ((tile * TILE).astype(np.float32) for tile in (tile_row, tile_column))
    pair_capsule, pair_place, pair_row, pair_column = (
        torch.from_numpy(array).to(device) for array in (capsule, place, *corners)
    )

    # Pairs of one rank contain each tile at most once, so writing needs no atomic operation.
    edges = np.flatnonzero(np.diff(rank, prepend=-1, append=-1))
    for begin, end in pairwise(edges):
        for first in range(begin, end, block):
            pairs = slice(first, min(first + block, end))
            tiles, parameters = pair_place[pairs], table.index_select(1, pair_capsule[pairs])
            tau = _intersect(parameters, pair_row[pairs], pair_column[pairs], *lanes)
            before = depth_tl.index_select(0, tiles)
            nearer = tau < before
            owner = torch.where(nearer, pair_capsule[pairs, None].int(), owner_tl.index_select(0, tiles))
            depth_tl.index_copy_(0, tiles, torch.minimum(tau, before))
            owner_tl.index_copy_(0, tiles, owner)

    def unfold(values_tl: torch.Tensor) -> torch.Tensor:
        tiles = values_tl.view(images, high, wide, TILE, TILE)
        return tiles.permute(0, 1, 3, 2, 4).reshape(images, rows, columns)

    return unfold(depth_tl), unfold(owner_tl)


def _intersect(table, row, column, lane_row, lane_column) -> torch.Tensor:
    """Return the depths (T, 64) at which T capsules meet the 64 rays of a tile each; FAR is no hit."""
    (
        p0, pc, pr, q0, qc, qr, t0, tc, tr, pace, h0, h1, h2, h3, b0, b1, c0, c1, c2, ra, rb, slope, drift,
    ) = table.unsqueeze(-1).unbind(0)  # fmt: skip
    row, column = row.unsqueeze(-1), column.unsqueeze(-1)

    def affine(constant, by_column, by_row):
        corner = constant + by_column * column + by_row * row
        return corner + by_column * lane_column + by_row * lane_row

    p, q = affine(p0, pc, pr), affine(q0, qc, qr)
    q_square = q * q
    inside_a = ra - p * p - q_square
    beyond = p - slope
    inside_b = rb - beyond * beyond - q_square
    inside_side = h0 + p * (h1 + p * h2) - h3 * q_square
    t_side = b0 + b1 * p - square_root(inside_side.clamp(min=0))
    part = c0 + c1 * p + c2 * t_side
    on_side = (inside_side > 0) & (part > 0) & (part < 1)
    t_a = torch.where(inside_a > 0, -square_root(inside_a.clamp(min=0)), FAR)
    t_b = torch.where(inside_b > 0, drift - square_root(inside_b.clamp(min=0)), FAR)
    t = torch.minimum(torch.minimum(t_a, t_b), torch.where(on_side, t_side, FAR))
    return torch.where(t < FAR, t * pace + affine(t0, tc, tr), FAR)
