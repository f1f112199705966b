"""Division of own images into train, query and gallery, and the numbering of persons and cameras."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from reidlib.data.names import name_key, special_person
from reidlib.data.readers.own.folders import SPLIT_NAMES, ListedImage, has_person_siblings
from reidlib.data.readers.persons import (
    TRAINING_ALONE,
    Splits,
    draw_persons,
    one_query_per_camera,
    searchable_persons,
    validation_rows,
)
from reidlib.data.rules import queries_with_match, shared_person_errors
from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun, shorten

# Number of random divisions: as many as is customary on small sets.
NUM_TRIALS = 10
_WHOLE_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_ADD_CAMERAS = {
    "folder": "add cameras as folders PERSON/CAMERA or as _c1, _c2, … in all names",
    "csv": "add a column camera",
}
_WHY_CAMERAS = "because images of the query's person from the query's camera are ignored"


def number_persons(names: Iterable[str]) -> dict[str, int]:
    """Assign person ids to names: -1 to ``junk``, 0 to ``distractors`` and "", else by ``number_names``."""
    names = set(names)
    special = {name: number for name in names if (number := special_person(name)) is not None}
    return {**number_names(names - special.keys()), **special}


def number_names(names: Iterable[str]) -> dict[str, int]:
    """Assign numbers to names: their values if all are whole numbers, else from 1 in order; 0 for ""."""
    # The order is that of the first spelling of each name, so that it is the same on every machine.
    names, first = {*names, ""}, {}
    for name in sorted(unicodedata.normalize("NFC", name) for name in names):
        if key := name_key(name):
            first.setdefault(key, name)
    # Sets whose names are digits of other scripts have always been numbered in order.
    are_numbers = "".join(first.values()).isascii() and all(map(_WHOLE_NUMBER.fullmatch, first))
    numbers = {key: int(key) if are_numbers else place for place, key in enumerate(first, start=1)}
    return {name: numbers.get(name_key(name), 0) for name in names}


def to_split(root: Path, rows: Sequence[ListedImage], *, unknown_camera: int = 0) -> Split:
    """Make a split of the rows; unknown persons have the id 0."""
    person_ids = number_persons(row.person for row in rows)
    camera_ids = {**number_names(row.camera for row in rows), "": unknown_camera}
    return Split(
        tuple(root / row.name for row in rows),
        np.array([person_ids[row.person] for row in rows], dtype=np.int64),
        np.array([camera_ids[row.camera] for row in rows], dtype=np.int64),
    )


def divide(
    name: str,
    root: Path,
    rows: Sequence[ListedImage],
    use: Mapping[str, object],
    *,
    trial: int,
    same_camera: bool,
    test_persons: int,
) -> Splits:
    """Divide own images into train, query and gallery, as the package ``own`` describes it."""
    # ``name`` is the reader's, for the mends; ``use`` is that of ``training_use``. ``division_errors`` checks
    # the result.
    unknown = [row for row in rows if not row.camera]
    if unknown and not same_camera and "training_only" not in use:
        value, examples, alternative = "no camera is known", "", ""
        if len(unknown) < len(rows):
            value = f"{count_noun(len(unknown), 'images')} without a camera"
            examples = f": {shorten([row.name for row in unknown])}"
        elif name == "folder" and not rows[0].split and has_person_siblings(root):
            alternative = f", or give {root.parent} if the folders in {root.name} are cameras of one person"
        raise InputError(
            f"the camera of every image is known, {_WHY_CAMERAS}",
            f"{value} in {root}{examples}",
            f"{_ADD_CAMERAS[name]}{alternative}, or {_same_camera(name)}",
        )
    images = to_split(root, rows, unknown_camera=1)
    if any(row.split for row in rows):
        if test_persons:
            raise InputError(
                "test_persons is for sets without splits",
                f"test_persons={test_persons} for a set with {', '.join(SPLIT_NAMES)}",
                "leave test_persons out",
            )
        train, query, gallery = (
            [i for i, row in enumerate(rows) if row.split == split] for split in SPLIT_NAMES
        )
        if not (use or query or gallery):
            rule, mend = f"a set with splits has {', '.join(SPLIT_NAMES)}", "give the others their split"
            raise InputError(rule, f"train alone in {root}", f"{mend}, or read train alone, {TRAINING_ALONE}")
    elif "training_only" in use:
        train, query, gallery = np.flatnonzero(images.person_ids > 0).tolist(), [], []
    else:
        train, query, gallery = _by_rule(name, images, trial, same_camera, test_persons)
    if "validation" in use:
        places = validation_rows(images.select(train), same_camera)
        train, query, gallery = ([train[place] for place in each] for each in places)
    test = images
    if same_camera:
        # An image has the same camera as query and as gallery image, so that it does not match itself.
        cameras = {path: number for number, path in enumerate(dict.fromkeys(images.paths), start=1)}
        test = Split(images.paths, images.person_ids, np.array([cameras[path] for path in images.paths]))
    return images.select(train), test.select(query), test.select(gallery)


def division_errors(
    name: str, rows: Sequence[ListedImage], splits: Splits, same_camera: bool
) -> Iterator[InputError]:
    """Yield violated rules of ``reidlib.data.rules``, with mends and names for own images."""
    train, query, gallery = splits
    if len(query) and len(gallery) and not queries_with_match(query, gallery).any():
        yield _no_match(name, query, gallery, same_camera)
    names = {number: person for person, number in number_persons(row.person for row in rows).items()}
    yield from shared_person_errors(train, query, gallery, names)


def _no_match(name: str, query: Split, gallery: Split, same_camera: bool) -> InputError:
    """Make the error for a division in which no query has a match."""
    cameras = np.union1d(query.camera_ids, gallery.camera_ids)
    if len(cameras) == 1 and not same_camera:
        rule, value = "query and gallery show at least two cameras", f"only camera {cameras[0]}"
        mend = f"add another camera, or {_same_camera(name)}; with one camera no query has a match"
        mend += f", {_WHY_CAMERAS}"
        return InputError(rule, value, mend)
    persons = np.unique(query.person_ids)
    num_shared = int(np.isin(persons, gallery.person_ids).sum())
    mend = "put images of the same persons into query and gallery"
    if num_shared and same_camera:
        mend = "put other images of them into the gallery, because an image does not match itself"
    elif num_shared:
        mend = f"put images from other cameras into the gallery, {_WHY_CAMERAS}; or {_same_camera(name)}"
    return InputError(
        "at least one query has a match: its person in the gallery from another camera",
        f"none of {count_noun(len(query), 'queries')};"
        f" {num_shared} of their {count_noun(len(persons), 'persons')} in the gallery",
        mend,
    )


def _by_rule(
    name: str, images: Split, trial: int, same_camera: bool, test_persons: int
) -> tuple[list[int], list[int], list[int]]:
    persons = np.unique(images.person_ids[images.person_ids > 0])
    searchable = searchable_persons(images, same_camera)
    condition = "with two images" if same_camera else "with images from two cameras"
    mend = "add images of them" if same_camera else f"add images from other cameras, or {_same_camera(name)}"
    if not searchable:
        reason = "" if same_camera else f", {_WHY_CAMERAS}"
        cameras = count_noun(len(np.unique(images.camera_ids)), "cameras")
        value = (
            f"none of {count_noun(len(persons), 'persons')} ({cameras}, {count_noun(len(images), 'images')})"
        )
        raise InputError(f"test persons are persons {condition}{reason}", value, mend)
    count = test_persons or max(1, len(searchable) // 2)
    if not 0 < count <= min(len(searchable), len(persons) - 1):
        largest = min(len(searchable), len(persons) - 1)
        raise InputError(
            f"test persons are persons {condition}, and at least one person is left for training",
            f"{count} of {count_noun(len(searchable), 'such persons')},"
            f" {count_noun(len(persons), 'persons')} in total",
            f"use test_persons={largest} or fewer"
            if largest and count > 0
            else "add images of other persons",
        )
    label = f"own images {len(searchable)} persons, {count} for testing, trial {trial}"
    in_test = np.isin(images.person_ids, draw_persons(label, searchable, count))
    query, gallery = one_query_per_camera(images, np.flatnonzero(in_test))
    gallery += np.flatnonzero(images.person_ids <= 0).tolist()
    return np.flatnonzero(~in_test & (images.person_ids > 0)).tolist(), query, sorted(gallery)


def _same_camera(name: str) -> str:
    return f"allow matches within a camera: {name},same_camera=true (same_camera=True in a notebook)"
