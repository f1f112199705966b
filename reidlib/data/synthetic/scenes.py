"""Scenes without pixels: positions of people and things before a camera, and the detector's boxes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reidlib.data.synthetic.bodies import PROPS, CapsuleGroup, Capsules, build_prop, join
from reidlib.data.synthetic.factors import BACKGROUND, JUNK, Factors, Orders
from reidlib.data.synthetic.looks import Look
from reidlib.data.synthetic.pedestrians import Pose, pedestrian
from reidlib.data.synthetic.places import draw_place
from reidlib.data.synthetic.raycasting import Views, axes
from reidlib.data.synthetic.repeatable import RandomStreams, cosine, fold, sine

_STREAMS = {"identity": 1, "camera": 2, "image": 3}


class Sensor:
    """Exposure of N images, one row per image, because light changes between images of one camera."""

    def __init__(self, lens: RandomStreams, draws: RandomStreams, factors: Factors) -> None:
        exposure = 1 + np.clip(0.17 * lens.bell("gain"), -0.35, 0.40) * factors.camera_gain
        weather = 1 + 0.07 * factors.light_change * draws.bell("light")
        matrix = np.empty((len(draws.keys), 3, 3))
        for i, target in enumerate("rgb"):
            for j, source in enumerate("rgb"):
                if i == j:
                    gain = 1 + 0.085 * factors.camera_colour * lens.bell(f"white {target}")
                    matrix[:, i, j] = gain * (1 + 0.02 * factors.light_change * draws.bell(f"tint {target}"))
                else:
                    matrix[:, i, j] = 0.045 * factors.camera_colour * lens.bell(f"crosstalk {target}{source}")
        # Exposure, white balance and crosstalk, (N, 3, 3).
        self.matrix = matrix * np.maximum(exposure * weather, 0.15)[:, None, None] * 1.08
        # Bend of the tone curve, 0 is straight; (N,), as all further fields.
        self.bend = np.clip(lens.uniform("tone", -0.40, 0.55) * factors.camera_gamma, -0.8, 3.0)
        # Share that a pixel gives to each neighbour, applied twice per direction.
        self.blur = np.minimum(lens.uniform("blur", 0.02, 0.17) * factors.camera_blur, 0.30)
        self.noise = lens.uniform("noise", 0.008, 0.026) * factors.camera_noise
        # First entry of the image in the noise table.
        self.grain = np.floor(draws.uniform("grain", 0.0, 2.0**16)).astype(np.int64)


@dataclass(frozen=True)
class Scenes:
    """N images ready to be rendered; ``truth`` holds columns of length N with the facts about each."""

    capsules: Capsules
    views: Views
    sensor: Sensor
    camera: np.ndarray  # (N,)
    column: np.ndarray  # (N,) column of the feet in the background's picture
    row: np.ndarray  # (N,) and row
    metre: np.ndarray  # (N,) columns per metre in the background's picture
    behind: np.ndarray  # (N,) metres from the feet to the wall
    truth: dict[str, np.ndarray]


def compose(orders: Orders, factors: Factors, seed: int) -> Scenes:
    """Compose the scenes of N images from the seed and the factors."""
    draws = RandomStreams(
        seed, fold(_STREAMS["image"], orders.identity, orders.camera, orders.shot, orders.kind)
    )
    person = RandomStreams(seed, fold(_STREAMS["identity"], orders.identity))
    lens = RandomStreams(seed, fold(_STREAMS["camera"], orders.camera))
    eye, focal, near, far, wall = draw_place(seed, orders.camera, factors.camera_pitch)
    distance = near + (far - near) * draws.uniform("distance")
    tangent = (eye - 0.9) / distance
    pitch_cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
    pitch_sine = tangent * pitch_cosine

    yaw = _heading(orders.camera, draws, factors, seed)
    accompanied = draws.chance("company", factors.other_people_share)
    people = _people(person, draws, yaw, np.flatnonzero(accompanied), factors)
    light, sun = _light(lens, draws, factors)
    box = _box(people, draws, orders.kind, factors, axes(pitch_sine, pitch_cosine))
    shadow = np.full(len(orders), factors.shadow)
    views = Views(pitch_sine, pitch_cosine, **box, light=light, sun=sun, shadow=shadow)
    empty = orders.kind == BACKGROUND
    people.remove(np.concatenate([empty, np.zeros(len(people.image) - len(empty), bool)]))
    occluders, occluded = _occluders(draws, factors)
    things = _build_things([occluders, *_clutter(draws, orders.kind, factors)], seed, factors)
    capsules = join([people, *things])
    truth = {
        "yaw": yaw,
        "pitch": tangent,
        "distance": distance,
        "occluded": occluded,
        "accompanied": accompanied,
        **{f"box_{name}": values for name, values in box.items()},
    }
    return Scenes(
        capsules=capsules,
        views=views,
        sensor=Sensor(lens, draws, factors),
        camera=orders.camera,
        column=340.0 * draws.uniform("place", -1.0, 1.0),
        row=focal * eye / distance,
        metre=focal / distance,
        behind=wall - distance,
        truth=truth,
    )


def _heading(camera: np.ndarray, draws: RandomStreams, factors: Factors, seed: int) -> np.ndarray:
    """Draw the yaw in radians, 0 towards the camera: the street's direction, a half turn, and a spread."""
    first = RandomStreams(seed, fold(0)).uniform("street")
    # Steps of the golden ratio spread the directions of any number of cameras evenly.
    street = (first + camera * 0.6180339887498949) * 2 * np.pi
    turned = draws.chance("turned", factors.turned_share)
    yaw = street + turned * np.pi + factors.yaw_spread * draws.bell("yaw")
    return yaw - 2 * np.pi * np.floor(yaw / (2 * np.pi) + 0.5)


def _light(lens: RandomStreams, draws: RandomStreams, factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    azimuth = lens.uniform("sun azimuth", -1.9, 1.9)
    elevation = lens.uniform("sun elevation", 0.65, 1.15)
    level = cosine(elevation)
    light = np.stack([level * sine(azimuth), sine(elevation), level * cosine(azimuth)], -1)
    strength = lens.uniform("sun strength", 0.25, 0.85) * (1 - 0.5 * draws.uniform("clouds"))
    return light, np.minimum(strength * factors.sun, 1.0)


def _box(
    people: CapsuleGroup, draws: RandomStreams, kind: np.ndarray, factors: Factors, axes_
) -> dict[str, np.ndarray]:
    """Draw the detector's box in the image plane, twice as high as wide, with errors (large for junk)."""
    left, right, low, high = people.extent(len(kind), *axes_[:2])
    height = (high - low) * 1.07
    error, jitter = factors.box_scale_error, factors.box_jitter
    size = height * np.clip(1 + error * draws.bell("box height"), 0.6, 1.6)
    width = 0.5 * height * np.clip(1 + error * 1.2 * draws.bell("box width"), 0.6, 1.6)
    shift_x = 0.5 * jitter * draws.bell("box across") * height
    shift_y = 0.6 * jitter * draws.bell("box down") * height
    # A bad detection shows a part of a body, is beside the body, or is too large.
    junk = kind == JUNK
    way = draws.pick("junk", (4, 4, 2))
    one, zero = np.ones_like(size), np.zeros_like(size)
    zoom = np.choose(way, [draws.uniform("part", 0.30, 0.55), one, draws.uniform("wide", 1.5, 2.1)])
    side = np.where(draws.chance("junk side", 0.5), 1.0, -1.0)
    beside = side * draws.uniform("beside", 0.22, 0.36)
    across = np.choose(way, [draws.uniform("off", -0.08, 0.08), beside, zero])
    down = np.choose(way, [draws.uniform("down", -0.32, 0.32), draws.uniform("low", -0.3, 0.3), 0.1 * side])
    size, width = np.where(junk, size * zoom, size), np.where(junk, width * zoom, width)
    centre_x = 0.5 * (left + right) + shift_x + np.where(junk, across * height, 0.0)
    centre_y = 0.5 * (low + high) + shift_y + np.where(junk, down * height, 0.0)
    return {"left": centre_x - 0.5 * width, "top": centre_y + 0.5 * size, "width": width, "height": size}


def _occluders(draws: RandomStreams, factors: Factors) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    occluded = draws.chance("occluded", factors.occlusion_share)
    kind = draws.pick("occluder", (22, 20, 20, 18, 8, 12))
    side = np.where(draws.chance("occluder side", 0.5), 1.0, -1.0)
    across = side * draws.uniform("occluder across", 0.08, 0.45)
    across = np.where((kind == 2) | (kind == 5), across * 1.2, across)
    depth = draws.uniform("occluder depth", 0.5, 1.0)
    return _things(draws, "occluder", kind, across, depth, occluded), occluded


def _clutter(draws: RandomStreams, box: np.ndarray, factors: Factors) -> list[tuple[np.ndarray, ...]]:
    """Draw things behind the person; boxes on background hold more things, which attracted the detector."""
    groups = []
    for number in range(3):
        name = f"clutter {number}"
        share = np.where(box == BACKGROUND, 0.6, 0.22) * factors.clutter
        present = draws.chance(name, share)
        kind = draws.pick(f"{name} kind", (16, 16, 22, 22, 10, 14))
        across, depth = draws.uniform(f"{name} across", -0.8, 0.8), draws.uniform(f"{name} depth", -2.6, -0.7)
        near = np.where(box == BACKGROUND, 0.5, 1.0)
        groups.append(_things(draws, name, kind, across * near, depth * near, present))
    return groups


def _things(
    draws: RandomStreams,
    name: str,
    kind: np.ndarray,
    across: np.ndarray,
    depth: np.ndarray,
    present: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Return image, stream key, kind and position of the things that are present."""
    image = np.flatnonzero(present)
    spot = np.stack([across, np.zeros_like(across), depth], -1)
    return image, draws.child(name, image).keys, kind[image], spot[image]


def _build_things(groups: list[tuple[np.ndarray, ...]], seed: int, factors: Factors) -> list[CapsuleGroup]:
    """Build all things, those of a kind in one call, which is faster."""
    image, keys, kind, spot = map(np.concatenate, zip(*groups, strict=True))
    return [
        build_prop(build, RandomStreams(seed, keys[rows]), spot[rows], image[rows], factors.texture)
        for number, build in enumerate(PROPS)
        if len(rows := np.flatnonzero(kind == number))
    ]


def _people(
    person: RandomStreams, draws: RandomStreams, yaw: np.ndarray, accompanied: np.ndarray, factors: Factors
) -> CapsuleGroup:
    """Build the N people, then a second person in each of the images ``accompanied``."""
    # The second person is partly in the box, more often beside or behind than in front.
    company = draws.child("company", accompanied)
    looks = RandomStreams(draws.seed, np.concatenate([person.keys, company.keys]))
    poses = RandomStreams(draws.seed, np.concatenate([draws.keys, company.keys]))
    side = np.where(company.chance("side", 0.5), 1.0, -1.0)
    nearer, behind = company.uniform("nearer", 0.35, 0.7), company.uniform("behind", -1.8, -0.4)
    depth = np.where(company.chance("before", 0.25), nearer, behind)
    across = side * company.uniform("across", 0.32, 0.62)
    across = np.where(depth > 0, side * 0.5 + 0.3 * across, across)
    heading = yaw[accompanied] + 0.4 * company.bell("heading") + np.pi * company.chance("contrary", 0.35)
    heading = np.concatenate([yaw, heading])
    spot = np.zeros((len(heading), 3))
    spot[len(yaw) :, 0], spot[len(yaw) :, 2] = across, depth
    image = np.concatenate([np.arange(len(yaw)), accompanied])
    people = pedestrian(Look(looks, factors), Pose(poses, factors), factors, image)
    people.stand(sine(heading), cosine(heading), spot)
    return people
