"""The images of a rendered benchmark, and the causes of variation between them as one number each."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Self

import numpy as np

from reidlib.data.synthetic.repeatable import RandomStreams, fold
from reidlib.errors import InputError

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
_USUAL_CAMERAS = 6
_OTHER_PEOPLE = 1_000_000  # larger identity numbers belong to people outside all splits
KINDS = ("person", "junk", "background")
PERSON, JUNK, BACKGROUND = range(3)  # kinds of boxes: on a person, badly placed, without a person


def _to(largest: float, default: float) -> float:
    """Return a field from 0 to the largest value whose images are recognisable."""
    return field(default=default, metadata={"largest": largest})


def largest_value(factor: str) -> float:
    """Return the upper end of a factor's range."""
    return Factors.__dataclass_fields__[factor].metadata["largest"]


@dataclass(frozen=True)
class Factors:
    """Strengths of the causes of variation in a rendered benchmark.

    0 switches a cause off. No cause changes the random draws of another. ``largest_value`` returns the upper
    end of a factor's range.

    Args:
        num_cameras: Number of cameras, 2 to 16. Market-1501 has six; fewer make the task easier.
        yaw_spread: Spread of people's yaw around the direction of the street, radians.
        turned_share: Share of images in which the person walks the other way, so that one camera sees the
            front and another the back.
        gait: Length of the steps and swing of the arms; at 0 all people stand with hanging arms.
        standing_share: Share of images in which the person stands, as waiting people do.
        palette_spread: Spread of garment colours around the common ones; a small spread makes people harder
            to tell apart.
        pattern: Contrast of stripes, checks and prints, which a histogram of the whole image cannot use.
        bag_share: Share of people with a bag, which changes the outline and hides the back or a side.
        body_variety: Spread of height, girth and proportions.
        camera_colour: Differences of white balance and colour matrix between cameras. They prevent matching
            by colour alone.
        camera_gain: Differences of exposure between cameras.
        camera_gamma: Differences of the tone curve between cameras.
        camera_blur: Blur of each camera's lens and motion.
        camera_noise: Noise of the sensors.
        camera_pitch: Height of the cameras. High cameras look down on people, and more so on near ones.
        light_change: Changes of exposure and light colour between images of one camera (clouds, time of day).
        sun: Strength of directed light relative to light from the whole sky; 0 is an overcast day.
        box_jitter: Shift of the detector's box, in box heights (one standard deviation).
        box_scale_error: Relative error of the box's size (one standard deviation).
        occlusion_share: Share of images with a thing in front of the person.
        other_people_share: Share of images with another person partly in the box.
        clutter: Amount of things in the background: bicycles, bins, signs, bushes.
        shadow: Darkness of shadows, on the ground and of limbs on the body.
        texture: Strength of folds and weave of cloth and of leaves of bushes.

    Raises:
        InputError: If a value is out of range.
    """

    num_cameras: int = 6
    yaw_spread: float = _to(3.2, 0.7)
    turned_share: float = _to(1.0, 0.25)
    gait: float = _to(3.0, 1.0)
    standing_share: float = _to(1.0, 0.2)
    palette_spread: float = _to(3.0, 1.0)
    pattern: float = _to(1.0, 1.0)
    bag_share: float = _to(1.0, 0.5)
    body_variety: float = _to(3.0, 1.0)
    camera_colour: float = _to(3.0, 1.0)
    camera_gain: float = _to(3.0, 1.0)
    camera_gamma: float = _to(3.0, 1.0)
    camera_blur: float = _to(3.0, 1.0)
    camera_noise: float = _to(3.0, 1.0)
    camera_pitch: float = _to(3.0, 1.0)
    light_change: float = _to(3.0, 1.0)
    sun: float = _to(3.0, 1.0)
    box_jitter: float = _to(0.5, 0.06)
    box_scale_error: float = _to(0.5, 0.06)
    occlusion_share: float = _to(1.0, 0.15)
    other_people_share: float = _to(1.0, 0.2)
    clutter: float = _to(4.0, 1.0)
    shadow: float = _to(1.0, 0.6)
    texture: float = _to(3.0, 1.0)

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
    """Numbers of identities and images for six cameras; for other numbers of cameras, images are scaled.

    A sighting is an identity seen by a camera.

    Args:
        train_identities: Identities of the training split.
        test_identities: Identities of the query and gallery splits.
        train_sightings: Sightings in the training split.
        train_images: Images of the training split.
        queries: Queries, one for each sighting of a test identity.
        gallery_images: Gallery images of test identities.
        junk: Junk boxes in the gallery.
        distractors: Distractor boxes in the gallery.
        uneven: Variation of the images per sighting, from 0 (as equal as possible) to 1 (as in Market-1501).
        drawn_identities: Number of the first identities that the training split is drawn from; None
            means all. All others are test identities, so more of them leave the training split as it is.

    Raises:
        InputError: If the numbers contradict each other.
    """

    train_identities: int
    test_identities: int
    train_sightings: int
    train_images: int
    queries: int
    gallery_images: int
    junk: int
    distractors: int
    uneven: float
    drawn_identities: int | None = None

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
        total, drawn = self.train_identities + self.test_identities, self.drawn_identities
        if drawn is not None and not self.train_identities <= drawn <= total:
            raise InputError(
                "training identities are drawn from at least as many identities, at most from all",
                f"drawn_identities {drawn} for {self.train_identities} of {total} identities",
                f"choose {self.train_identities} to {total}, or None for all",
            )


SIZES = {
    "smoke": BenchmarkSize(12, 12, 60, 96, 60, 90, 16, 12, 0.0),
    # 400 test identities: a claim's interval gets narrower with the test persons; training time grows with
    # the training images only.
    "quick": BenchmarkSize(130, 400, 780, 1560, 2400, 3600, 338, 248, 0.0, drawn_identities=260),
    # The counts of Market-1501; its number of training sightings is not published.
    "full": BenchmarkSize(751, 750, 3400, 12936, 3368, 13115, 3819, 2798, 1.0),
}


@dataclass(frozen=True)
class Orders:
    """Contents of N images; identity numbers are keys of looks, not the labels in file names."""

    identity: np.ndarray  # (N,) int64
    camera: np.ndarray  # (N,) int64 from 0
    shot: np.ndarray  # (N,) int64 number among the images of this identity by this camera
    kind: np.ndarray  # (N,) PERSON, JUNK or BACKGROUND

    def __getitem__(self, rows: slice | np.ndarray) -> Self:
        return type(self)(*(getattr(self, column.name)[rows] for column in fields(self)))

    def __len__(self) -> int:
        return len(self.identity)


@dataclass(frozen=True)
class BenchmarkOrders(Orders):
    """All images of a benchmark: contents, label, split and file name."""

    person: np.ndarray  # (N,) int64 label in the file name: −1 junk, 0 distractor
    split: np.ndarray  # (N,) folder
    name: np.ndarray  # (N,) file


def plan(size: BenchmarkSize, num_cameras: int, seed: int) -> BenchmarkOrders:
    """List the images of a benchmark in the order in which they are rendered."""
    identities = np.arange(1, size.train_identities + size.test_identities + 1)
    drawn = identities[: size.drawn_identities]
    order = np.argsort(RandomStreams(seed, fold(drawn)).uniform("split"), kind="stable")
    train = np.sort(drawn[order[: size.train_identities]])
    test = np.setdiff1d(identities, train)

    train_sightings = _sightings(train, size.train_sightings, num_cameras, seed)
    test_sightings = _sightings(test, size.queries, num_cameras, seed)
    train_images, gallery_images, num_junk, num_distractors = (
        _scale(count, num_cameras)
        for count in (size.train_images, size.gallery_images, size.junk, size.distractors)
    )
    junk, number = np.arange(num_junk), np.arange(num_distractors)
    num_queries = len(test_sightings[0])
    index = (RandomStreams(seed, fold(junk, 1)).uniform("sighting") * num_queries).astype(np.int64)
    camera = (RandomStreams(seed, fold(number, 2)).uniform("camera") * num_cameras).astype(np.int64)
    # Half of the distractors show background, half people outside all splits, with three images each.
    empty = number % 2 == 0
    blocks = [
        (TRAIN, *_shots(train_sightings, train_images, size.uneven, seed, first=0), PERSON),
        (QUERY, *_shots(test_sightings, num_queries, 0.0, seed, first=0), PERSON),
        (GALLERY, *_shots(test_sightings, gallery_images, size.uneven, seed, first=1), PERSON),
        (GALLERY, test_sightings[0][index], test_sightings[1][index], junk + 1000, JUNK),
        (GALLERY, _OTHER_PEOPLE + number[empty], camera[empty], number[empty], BACKGROUND),
        (GALLERY, _OTHER_PEOPLE + number[~empty] // 6, camera[~empty], number[~empty], PERSON),
    ]
    columns = zip(*(np.broadcast_arrays(*block) for block in blocks), strict=True)
    split, identity, camera, shot, kind = map(np.concatenate, columns)
    person = np.where(kind == JUNK, -1, np.where(identity >= _OTHER_PEOPLE, 0, identity))
    names = [
        f"{'-1' if label < 0 else f'{label:04d}'}_c{place + 1}s1_{frame:06d}_{1 + frame % 4:02d}.jpg"
        for frame, (label, place) in enumerate(zip(person.tolist(), camera.tolist(), strict=True), 1)
    ]
    return BenchmarkOrders(identity, camera, shot, kind, person, split, np.asarray(names))


def _scale(count: int, num_cameras: int) -> int:
    return count * num_cameras // _USUAL_CAMERAS


def _sightings(
    identities: np.ndarray, usual: int, num_cameras: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return identity and camera of each sighting: at least two cameras per identity, the rest at random."""
    count = min(max(_scale(usual, num_cameras), 2 * len(identities)), num_cameras * len(identities))
    identity = np.repeat(identities, num_cameras)
    camera = np.tile(np.arange(num_cameras), len(identities))
    luck = RandomStreams(seed, fold(identity, camera)).uniform("sighting").reshape(-1, num_cameras)
    rank = np.argsort(np.argsort(luck, 1, kind="stable"), 1, kind="stable")
    priority = np.where(rank < 2, luck - 2.0, luck).reshape(-1)
    rows = np.sort(np.argsort(priority, kind="stable")[:count])
    return identity[rows], camera[rows]


def _shots(
    sightings: tuple[np.ndarray, np.ndarray], images: int, uneven: float, seed: int, *, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return identity, camera and shot of ``images`` images, at least one of each sighting."""
    identity, camera = sightings
    draws = RandomStreams(seed, fold(identity, camera))
    luck = draws.uniform(f"order {first}")
    weight = 1 + uneven * (4 * luck * luck * luck - 1)
    order = np.argsort(draws.uniform(f"turn {first}"), kind="stable")
    cumulative_weight = np.cumsum(weight[order])
    extra = max(images - len(identity), 0)
    more = np.diff(
        np.floor(cumulative_weight * (extra / cumulative_weight[-1]) + 1e-6).astype(np.int64), prepend=0
    )
    count = np.ones(len(identity), np.int64)
    count[order] += more
    start = np.cumsum(count) - count
    shot = first + np.arange(int(count.sum())) - np.repeat(start, count)
    return np.repeat(identity, count), np.repeat(camera, count), shot
