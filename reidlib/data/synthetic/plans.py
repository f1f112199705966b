"""Which images a rendered benchmark holds: sizes, and the labels, cameras and file names of every image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reidlib.data.synthetic.repeatable import Draws, fold
from reidlib.data.synthetic.scenes import BACKGROUND, JUNK, PERSON, Orders
from reidlib.errors import InputError

TRAIN, QUERY, GALLERY = "bounding_box_train", "query", "bounding_box_test"
_USUAL_CAMERAS = 6
_STRANGERS = 1_000_000  # identity numbers from here on belong to people in no split


@dataclass(frozen=True)
class Size:
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
    "smoke": Size(12, 12, 60, 96, 60, 90, 16, 12, 0.0),
    "quick": Size(130, 130, 780, 1560, 780, 1170, 338, 248, 0.0),
    # Market-1501's own counts; how many cameras see a training identity is not published.
    "full": Size(751, 750, 3400, 12936, 3368, 13115, 3819, 2798, 1.0),
}


@dataclass(frozen=True)
class Plan:
    """Every image of a benchmark: what to render, under which name, in which split."""

    orders: Orders
    person: np.ndarray  # (N,) int64 label in the file name: −1 junk, 0 distractor
    split: np.ndarray  # (N,) folder
    name: np.ndarray  # (N,) file

    def __len__(self) -> int:
        return len(self.person)

    def of(self, splits: tuple[str, ...]) -> Plan:
        """The images of some splits alone, the same as in the whole plan."""
        chosen = np.isin(self.split, splits)
        return Plan(self.orders[chosen], self.person[chosen], self.split[chosen], self.name[chosen])


def plan(size: Size, num_cameras: int, seed: int) -> Plan:
    """The images of a benchmark, in the order in which they are rendered."""
    everyone = np.arange(1, size.train_identities + size.test_identities + 1)
    order = np.argsort(Draws(seed, fold(everyone)).uniform("split"), kind="stable")
    train = np.sort(everyone[order[: size.train_identities]])
    test = np.sort(everyone[order[size.train_identities :]])

    blocks = []  # (split, label, identity, camera, shot, kind)
    seen = _sightings(train, size.train_sightings, num_cameras, seed)
    images = _in_step(size.train_images, num_cameras)
    blocks.append((TRAIN, *_shots(seen, images, size.uneven, seed, first=0), PERSON))
    seen = _sightings(test, size.queries, num_cameras, seed)
    blocks.append((QUERY, *_shots(seen, len(seen[0]), 0.0, seed, first=0), PERSON))
    images = _in_step(size.gallery_images, num_cameras)
    blocks.append((GALLERY, *_shots(seen, images, size.uneven, seed, first=1), PERSON))

    number = np.arange(_in_step(size.junk, num_cameras))
    draws = Draws(seed, fold(number, 1))
    which = (draws.uniform("sighting") * len(seen[0])).astype(np.int64)
    blocks.append((GALLERY, seen[0][which], seen[1][which], number + 1000, JUNK))
    number = np.arange(_in_step(size.distractors, num_cameras))
    camera = (Draws(seed, fold(number, 2)).uniform("camera") * num_cameras).astype(np.int64)
    # Half show nobody, half somebody whom no query asks for; a stranger comes three times.
    empty = number % 2 == 0
    blocks.append((GALLERY, _STRANGERS + number[empty], camera[empty], number[empty], BACKGROUND))
    blocks.append((GALLERY, _STRANGERS + number[~empty] // 6, camera[~empty], number[~empty], PERSON))

    split = np.concatenate([np.full(len(block[1]), block[0]) for block in blocks])
    identity, camera, shot = (np.concatenate([block[i] for block in blocks]) for i in (1, 2, 3))
    kind = np.concatenate([np.full(len(block[1]), block[4]) for block in blocks])
    person = np.where(kind == JUNK, -1, np.where(identity >= _STRANGERS, 0, identity))
    names = [
        f"{'-1' if label < 0 else f'{label:04d}'}_c{place + 1}s1_{frame:06d}_{1 + frame % 4:02d}.jpg"
        for frame, (label, place) in enumerate(zip(person.tolist(), camera.tolist(), strict=True), 1)
    ]
    return Plan(Orders(identity, camera, shot, kind), person, split, np.asarray(names))


def _in_step(count: int, num_cameras: int) -> int:
    return count * num_cameras // _USUAL_CAMERAS


def _sightings(
    identities: np.ndarray, usual: int, num_cameras: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Identity and camera of each sighting: two cameras at least for everybody, the rest by draw."""
    count = min(max(_in_step(usual, num_cameras), 2 * len(identities)), num_cameras * len(identities))
    identity = np.repeat(identities, num_cameras)
    camera = np.tile(np.arange(num_cameras), len(identities))
    luck = Draws(seed, fold(identity, camera)).uniform("sighting").reshape(-1, num_cameras)
    rank = np.argsort(np.argsort(luck, 1, kind="stable"), 1, kind="stable")
    priority = np.where(rank < 2, luck - 2.0, luck).reshape(-1)
    chosen = np.sort(np.argsort(priority, kind="stable")[:count])
    return identity[chosen], camera[chosen]


def _shots(
    seen: tuple[np.ndarray, np.ndarray], images: int, uneven: float, seed: int, *, first: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Identity, camera and shot of ``images`` images, one at least of each sighting."""
    identity, camera = seen
    draws = Draws(seed, fold(identity, camera))
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
