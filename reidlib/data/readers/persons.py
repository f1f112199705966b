"""Division of images by person: whom a query can find, which image is one; what training folders serve for.

``validation=true`` divides the training persons: of those with images from two cameras, a third (rounded up)
are validation persons, drawn by a hash of their place among the sorted ids. All others, also those whom one
camera shows, are for training. Of each validation person one image of each camera, chosen by hash, is a
query; the others are the gallery. A camera's only image of a person is also in the gallery, for the queries
from other cameras. Images of query and gallery are neither needed nor read. The share is our choice.

``training_only=true`` reads all training images for pre-training, without query and gallery.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from reidlib.data.readers.layout import seeded_order
from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun

TRAINING_ALONE = "with validation=true or training_only=true"
Splits = tuple[Split, Split, Split]


def training_use(validation: bool, training_only: bool, **tested: object) -> dict[str, bool]:
    """Return which of the two options is on; ``tested`` are options that say nothing of training images."""
    use = {"validation": validation, "training_only": training_only}
    if validation and training_only:
        rule = "a training folder serves for a validation split or for training only"
        raise InputError(rule, "validation=true,training_only=true", "leave out one of the two")
    if training_only and (given := [name for name, value in tested.items() if value]):
        rule = "training_only=true has no test images"
        raise InputError(rule, f"{', '.join(given)} with training_only=true", "leave out one of the two")
    return {name: True for name, value in use.items() if value}


def training_splits(train: Split, use: Mapping[str, object]) -> Splits:
    """Return train, query and gallery that training images serve for."""
    rows = ([*range(len(train))], [], []) if "training_only" in use else validation_rows(train)
    return train.select(rows[0]), train.select(rows[1]), train.select(rows[2])


def validation_rows(train: Split, same_camera: bool = False) -> tuple[list[int], list[int], list[int]]:
    """Return the rows of train, query and gallery into which training images are divided."""
    candidates, persons = searchable_persons(train, same_camera), np.unique(train.person_ids)
    count = -(-len(candidates) // 3)  # a third, rounded up
    if count < 2 or len(persons) - count < 2:
        condition = "with 2 images" if same_camera else "seen by 2 cameras"
        cameras = count_noun(len(np.unique(train.camera_ids)), "cameras")
        raise InputError(
            f"validation takes at least 2 persons, a third of those {condition}, and 2 others",
            f"{count_noun(len(persons), 'training persons')}, {len(candidates)} of them {condition}"
            f" ({cameras}, {count_noun(len(train), 'images')})",
            f"add images of at least 4 persons {condition}, or leave validation out",
        )
    drawn = draw_persons(f"validation persons of {len(candidates)}", candidates, count)
    held_out_n = np.isin(train.person_ids, drawn)

    def choose(person: int, camera: int, number: int) -> int:
        return seeded_order(f"validation query of person {person}, camera {camera}", number)[0] - 1

    query, gallery = one_query_per_camera(train, np.flatnonzero(held_out_n), choose)
    return np.flatnonzero(~held_out_n).tolist(), query, gallery


def describe_splits(rule: str, splits: Splits, use: Mapping[str, object]) -> str:
    """Describe how images are divided, with the numbers of persons and images."""
    train, query, gallery = splits
    persons = [len(np.unique(split.person_ids[split.person_ids > 0])) for split in splits]
    cameras = ""
    if use:
        number = len(np.unique(np.concatenate([split.camera_ids for split in splits])))
        rule, cameras = "of the training persons by a fixed rule", f"; {count_noun(number, 'cameras')}"
    text = f"{count_noun(persons[0], 'persons')} in {count_noun(len(train), 'training images')}"
    if "training_only" in use:
        return f"training only: {text}{cameras}"
    return (
        f"split {rule}: {text}, {persons[1]:,} in {count_noun(len(query), 'queries')},"
        f" {persons[2]:,} in {count_noun(len(gallery), 'gallery images')}{cameras}"
    )


def draw_persons(label: str, candidates: Sequence[int], count: int) -> list[int]:
    """Draw persons by a hash of the label and of each one's place, in the same way on every machine."""
    return [candidates[place - 1] for place in seeded_order(label, len(candidates))[:count]]


def searchable_persons(images: Split, same_camera: bool) -> list[int]:
    """Return the ascending ids of persons with images from two cameras, or with two images."""
    sightings: dict[int, set] = defaultdict(set)
    sources = images.paths if same_camera else images.camera_ids.tolist()
    for person, source in zip(images.person_ids.tolist(), sources, strict=True):
        sightings[person].add(source)
    return sorted(person for person, seen_by in sightings.items() if person > 0 and len(seen_by) > 1)


def one_query_per_camera(
    images: Split, indices: Iterable[int], choose: Callable[[int, int, int], int] = lambda *_: 0
) -> tuple[list[int], list[int]]:
    """Divide images into queries, one of each person and camera, by default the first, and the gallery."""
    # ``choose`` gets person, camera and their number of images.
    sightings: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index in map(int, indices):
        sightings[int(images.person_ids[index]), int(images.camera_ids[index])].append(index)
    query, gallery = [], []
    for sighting, rows in sightings.items():
        chosen = rows[choose(*sighting, len(rows))]
        query.append(chosen)
        # A camera's only image of a person is also in the gallery, for the queries from other cameras.
        gallery += [index for index in rows if index != chosen] or [chosen]
    return sorted(query), sorted(gallery)
