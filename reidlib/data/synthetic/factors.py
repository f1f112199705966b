"""What a rendered benchmark holds: which images, and what varies between them, every cause as one number."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np

from reidlib.data.synthetic.repeatable import RandomStreams, fold
from reidlib.errors import InputError

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
_USUAL_CAMERAS = 6
_STRANGERS = 1_000_000  # identity numbers from here on belong to people in no split
KINDS = ("person", "junk", "background")
PERSON, JUNK, BACKGROUND = range(3)
"""Kinds of boxes: a person, a person's badly placed box, a box on nobody."""


def _to(largest: float, default: float) -> float:
    """A factor from 0 to the largest value that still renders something recognisable."""
    return field(default=default, metadata={"largest": largest})


def largest_value(factor: str) -> float:
    """The upper end of a factor's range."""
    return Factors.__dataclass_fields__[factor].metadata["largest"]


@dataclass(frozen=True)
class Factors:
    """Strength of each cause of variation; 0 switches a cause off, and no cause moves another's draws.

    Raises InputError for a value out of range, so that an experiment with a slip of the keyboard stops
    before it renders.
    """

    num_cameras: int = 6
    """Market-1501 has six; with fewer the cross-camera question becomes easier."""
    yaw_spread: float = _to(3.2, 0.7)
    """Radians around the street's direction: how differently a camera sees people turned."""
    turned_share: float = _to(1.0, 0.25)
    """Share of people who walk the street the other way: front seen by one camera, back by another."""
    gait: float = _to(3.0, 1.0)
    """Length of the steps and swing of the arms; 0 is everybody standing with arms hanging."""
    standing_share: float = _to(1.0, 0.2)
    """Share of images in which the person stands: cities hold people who wait."""
    palette_spread: float = _to(3.0, 1.0)
    """Spread of garment colours around the ten common ones: small makes people harder to tell apart."""
    pattern: float = _to(1.0, 1.0)
    """Contrast of stripes, checks, prints: the details that a histogram of the whole cannot use."""
    bag_share: float = _to(1.0, 0.5)
    """Share of people with a bag, which changes the outline and hides the back or a side."""
    body_variety: float = _to(3.0, 1.0)
    """Spread of height, girth and proportions between people."""
    camera_colour: float = _to(3.0, 1.0)
    """White balance and colour matrix of each camera: why colours alone do not carry across cameras."""
    camera_gain: float = _to(3.0, 1.0)
    """Exposure differences between cameras."""
    camera_gamma: float = _to(3.0, 1.0)
    """Differences of the tone curve between cameras."""
    camera_blur: float = _to(3.0, 1.0)
    """Softness of each camera's lens and motion."""
    camera_noise: float = _to(3.0, 1.0)
    """Sensor noise."""
    camera_pitch: float = _to(3.0, 1.0)
    """How high the cameras hang: looks down on people, and near ones more than far ones."""
    light_change: float = _to(3.0, 1.0)
    """Exposure and colour of the light from image to image in one camera: clouds, time of day."""
    sun: float = _to(3.0, 1.0)
    """Strength of directed light against light from the whole sky; 0 is an overcast day everywhere."""
    box_jitter: float = _to(0.5, 0.06)
    """Shift of the detector's box, in box heights (one deviation): what alignment has to cope with."""
    box_scale_error: float = _to(0.5, 0.06)
    """Error of the detector's box size, relative (one deviation)."""
    occlusion_share: float = _to(1.0, 0.15)
    """Share of images with something standing in front of the person."""
    other_people_share: float = _to(1.0, 0.2)
    """Share of images with another person partly in the box."""
    clutter: float = _to(4.0, 1.0)
    """Number of things in the background: parked bicycles, bins, signs, bushes."""
    shadow: float = _to(1.0, 0.6)
    """Darkness of shadows, on the ground and of limbs on the body."""
    texture: float = _to(3.0, 1.0)
    """Folds and weave of cloth, leaves of bushes."""

    def __post_init__(self) -> None:
        if not isinstance(self.num_cameras, int) or not 2 <= self.num_cameras <= 16:
            raise InputError(
                "num_cameras is a whole number from 2 to 16: a query needs a match from another camera",
                repr(self.num_cameras),
                "choose for example 6",
            )
        for factor in fields(self)[1:]:
            value, largest = getattr(self, factor.name), factor.metadata["largest"]
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= largest:
                raise InputError(
                    f"the factor {factor.name} is a number from 0 to {largest:g}",
                    repr(value),
                    f"the default is {factor.default:g}",
                )


@dataclass(frozen=True)
class BenchmarkSize:
    """Numbers of identities and images, for six cameras; with more or fewer the images change in step.

    A sighting is an identity seen by a camera. Raises InputError for numbers that contradict one another.
    """

    train_identities: int
    test_identities: int
    train_sightings: int
    train_images: int
    queries: int  # one for each sighting of a test identity
    gallery_images: int  # of test identities
    junk: int
    distractors: int
    uneven: float  # 0: as many images of each sighting as possible alike; 1: as different as in Market-1501

    def __post_init__(self) -> None:
        checks = (
            (self.train_identities, self.train_sightings, self.train_images),
            (self.test_identities, self.queries, self.gallery_images),
        )
        for identities, sightings, images in checks:
            if not 2 * identities <= sightings <= min(_USUAL_CAMERAS * identities, images):
                raise InputError(
                    "each identity is seen by two to six cameras and each sighting has an image",
                    f"{identities} identities, {sightings} sightings, {images} images",
                    "choose sightings between twice and six times the identities, and more images",
                )


SIZES = {
    "smoke": BenchmarkSize(12, 12, 60, 96, 60, 90, 16, 12, 0.0),
    "quick": BenchmarkSize(130, 130, 780, 1560, 780, 1170, 338, 248, 0.0),
    # Market-1501's own counts; how many cameras see a training identity is not published.
    "full": BenchmarkSize(751, 750, 3400, 12936, 3368, 13115, 3819, 2798, 1.0),
}


@dataclass(frozen=True)
class Orders:
    """What N images are to show; identity numbers are keys of looks, not the labels in file names."""

    identity: np.ndarray  # (N,) int64
    camera: np.ndarray  # (N,) int64 from 0
    shot: np.ndarray  # (N,) int64 number of the image of this identity by this camera
    kind: np.ndarray  # (N,) PERSON, JUNK or BACKGROUND

    def __getitem__(self, chosen: slice | np.ndarray) -> Self:
        return type(self)(*(getattr(self, column.name)[chosen] for column in fields(self)))

    def __len__(self) -> int:
        return len(self.identity)


@dataclass(frozen=True)
class BenchmarkOrders(Orders):
    """Every image of a benchmark: what to render, under which name, in which split."""

    person: np.ndarray  # (N,) int64 label in the file name: −1 junk, 0 distractor
    split: np.ndarray  # (N,) folder
    name: np.ndarray  # (N,) file


def plan(size: BenchmarkSize, num_cameras: int, seed: int) -> BenchmarkOrders:
    """The images of a benchmark, in the order in which they are rendered."""
    everyone = np.arange(1, size.train_identities + size.test_identities + 1)
    order = np.argsort(RandomStreams(seed, fold(everyone)).uniform("split"), kind="stable")
    train = np.sort(everyone[order[: size.train_identities]])
    test = np.sort(everyone[order[size.train_identities :]])

    learnt = _sightings(train, size.train_sightings, num_cameras, seed)
    asked = _sightings(test, size.queries, num_cameras, seed)
    learnt_images, gallery_images, junk, distractors = (
        _in_step(count, num_cameras)
        for count in (size.train_images, size.gallery_images, size.junk, size.distractors)
    )
    bad, number = np.arange(junk), np.arange(distractors)
    which = (RandomStreams(seed, fold(bad, 1)).uniform("sighting") * len(asked[0])).astype(np.int64)
    camera = (RandomStreams(seed, fold(number, 2)).uniform("camera") * num_cameras).astype(np.int64)
    # Half show nobody, half somebody whom no query asks for; a stranger comes three times.
    empty = number % 2 == 0
    blocks = [
        (TRAIN, *_shots(learnt, learnt_images, size.uneven, seed, first=0), PERSON),
        (QUERY, *_shots(asked, len(asked[0]), 0.0, seed, first=0), PERSON),
        (GALLERY, *_shots(asked, gallery_images, size.uneven, seed, first=1), PERSON),
        (GALLERY, asked[0][which], asked[1][which], bad + 1000, JUNK),
        (GALLERY, _STRANGERS + number[empty], camera[empty], number[empty], BACKGROUND),
        (GALLERY, _STRANGERS + number[~empty] // 6, camera[~empty], number[~empty], PERSON),
    ]
    columns = zip(*(np.broadcast_arrays(*block) for block in blocks), strict=True)
    split, identity, camera, shot, kind = map(np.concatenate, columns)
    person = np.where(kind == JUNK, -1, np.where(identity >= _STRANGERS, 0, identity))
    names = [
        f"{'-1' if label < 0 else f'{label:04d}'}_c{place + 1}s1_{frame:06d}_{1 + frame % 4:02d}.jpg"
        for frame, (label, place) in enumerate(zip(person.tolist(), camera.tolist(), strict=True), 1)
    ]
    return BenchmarkOrders(identity, camera, shot, kind, person, split, np.asarray(names))


def _in_step(count: int, num_cameras: int) -> int:
    return count * num_cameras // _USUAL_CAMERAS


def _sightings(
    identities: np.ndarray, usual: int, num_cameras: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Identity and camera of each sighting: two cameras at least for everybody, the rest by draw."""
    count = min(max(_in_step(usual, num_cameras), 2 * len(identities)), num_cameras * len(identities))
    identity = np.repeat(identities, num_cameras)
    camera = np.tile(np.arange(num_cameras), len(identities))
    luck = RandomStreams(seed, fold(identity, camera)).uniform("sighting").reshape(-1, num_cameras)
    rank = np.argsort(np.argsort(luck, 1, kind="stable"), 1, kind="stable")
    priority = np.where(rank < 2, luck - 2.0, luck).reshape(-1)
    chosen = np.sort(np.argsort(priority, kind="stable")[:count])
    return identity[chosen], camera[chosen]


def _shots(
    seen: tuple[np.ndarray, np.ndarray], images: int, uneven: float, seed: int, *, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identity, camera and shot of ``images`` images, one at least of each sighting."""
    identity, camera = seen
    draws = RandomStreams(seed, fold(identity, camera))
    luck = draws.uniform(f"order {first}")
    weight = 1 + uneven * (4 * luck * luck * luck - 1)
    order = np.argsort(draws.uniform(f"turn {first}"), kind="stable")
    reached = np.cumsum(weight[order])
    extra = max(images - len(identity), 0)
    more = np.diff(np.floor(reached * (extra / reached[-1]) + 1e-6).astype(np.int64), prepend=0)
    count = np.ones(len(identity), np.int64)
    count[order] += more
    start = np.cumsum(count) - count
    shot = first + np.arange(int(count.sum())) - np.repeat(start, count)
    return np.repeat(identity, count), np.repeat(camera, count), shot
