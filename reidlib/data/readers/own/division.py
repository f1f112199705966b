"""Own images as training, query and gallery: numbers for names, the parting, and who can be searched for."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from reidlib.data.readers.layout import seeded_order
from reidlib.data.readers.own.folders import PARTS, ListedImage, among_persons
from reidlib.data.rules import DISTRACTOR, JUNK, queries_with_match, shared_persons
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten

# How many partings there are where the data say none: as many as the papers average over on small sets.
NUM_TRIALS = 10
_WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)
_NOBODY = {"junk": JUNK, "distractors": DISTRACTOR}
_TELL = {
    "folder": "tell them by folders PERSON/CAMERA or by _c1, _c2, … in all names",
    "csv": "tell them in a column camera",
}
_WHY_CAMERAS = "since images of the query's own person from its own camera are ignored"


def person_numbers(names: Iterable[str]) -> dict[str, int]:
    """A person id for each name that occurs; 0 for "".

    -1 and ``junk`` are junk, 0 and ``distractors`` nobody. The other names are the ids where all are
    positive whole numbers; else they are numbered from 1 in their order.
    """
    names = set(names)
    nobody = {name: found for name in names if (found := _nobody(name)) is not None}
    return {**numbers("person", names - nobody.keys()), **nobody}


def numbers(what: str, names: Iterable[str]) -> dict[str, int]:
    """A whole number for each name that occurs: its own value where all are such, else from 1 in order.

    0 for "". Names count in Unicode's composed form, so that they have the same order on every machine.
    Raises ``InputError`` for two names with the same value, such as 7 and 007.
    """
    composed = {name: unicodedata.normalize("NFC", name) for name in names if name}
    different = sorted(set(composed.values()))
    if all(_WHOLE.fullmatch(name) and int(name) >= 0 for name in different):
        number_of = {name: int(name) for name in different}
        first: dict[int, str] = {}
        if twins := [f"{first[n]} and {m}" for m, n in number_of.items() if first.setdefault(n, m) != m]:
            mend = "write the number in the same way everywhere"
            raise InputError(f"the number of a {what} is written in one way", shorten(twins), mend)
    else:
        number_of = {name: place for place, name in enumerate(different, start=1)}
    return {"": 0, **{name: number_of[form] for name, form in composed.items()}}


def to_split(root: Path, rows: Sequence[ListedImage], *, unknown_camera: int = 0) -> Split:
    """Paths, person ids (0 where unknown) and camera ids of the rows, in their order."""
    person_of = person_numbers(row.person for row in rows)
    camera_of = {**numbers("camera", (row.camera for row in rows)), "": unknown_camera}
    return Split(
        tuple(root / row.name for row in rows),
        np.array([person_of[row.person] for row in rows], dtype=np.int64),
        np.array([camera_of[row.camera] for row in rows], dtype=np.int64),
    )


def part(
    name: str, root: Path, rows: Sequence[ListedImage], *, trial: int, same_camera: bool, test_persons: int
) -> tuple[Split, Split, Split]:
    """Training, query and gallery of own images, as ``own.folder`` describes it.

    ``name`` is the reader's, for the mends. Raises ``InputError`` where cameras are needed and unknown,
    where no such parting exists and for options that contradict the data. What else may be wrong is left
    to ``broken_rules``.
    """
    if not same_camera and (unknown := [row for row in rows if not row.camera]):
        known, named, above = "no camera is known", "", ""
        if len(unknown) < len(rows):
            known = f"{counted(len(unknown), 'images')} without one"
            named = f": {shorten([row.name for row in unknown])}"
        elif name == "folder" and not rows[0].part and among_persons(root):
            above = f", or give {root.parent} if the folders in {root.name} are cameras of one person"
        raise InputError(
            f"the camera of every image is known, {_WHY_CAMERAS}",
            f"{known} in {root}{named}",
            f"{_TELL[name]}{above}, or {_within(name)}",
        )
    images = to_split(root, rows, unknown_camera=1)
    if any(row.part for row in rows):
        if test_persons:
            raise InputError(
                "test_persons parts a set that is not parted already",
                f"test_persons={test_persons} for a set with {', '.join(PARTS)}",
                "leave test_persons out",
            )
        train, query, gallery = ([i for i, row in enumerate(rows) if row.part == one] for one in PARTS)
    else:
        train, query, gallery = _by_rule(name, images, trial, same_camera, test_persons)
    test = images
    if same_camera:
        # The same number for the same image, as query and as gallery: it is ignored as its own match.
        number_of = {path: place for place, path in enumerate(dict.fromkeys(images.paths), start=1)}
        test = Split(images.paths, images.person_ids, np.array([number_of[path] for path in images.paths]))
    return images.select(train), test.select(query), test.select(gallery)


def searchable_persons(images: Split, same_camera: bool) -> list[int]:
    """Persons who can be searched for, ascending: those whom two cameras show, or two images."""
    seen: dict[int, set] = defaultdict(set)
    places = images.paths if same_camera else images.camera_ids.tolist()
    for person, place in zip(images.person_ids.tolist(), places, strict=True):
        seen[person].add(place)
    return sorted(person for person, of in seen.items() if person > 0 and len(of) > 1)


def broken_division_rules(
    name: str, rows: Sequence[ListedImage], splits: tuple[Split, Split, Split], same_camera: bool
) -> Iterator[InputError]:
    """Rules of ``reidlib.data.rules`` that a parting breaks, with mends and names that it does not know."""
    train, query, gallery = splits
    if len(query) and len(gallery) and not queries_with_match(query, gallery).any():
        yield _no_match(name, query, gallery, same_camera)
    names = {number: person for person, number in person_numbers(row.person for row in rows).items()}
    yield from shared_persons(train, query, gallery, names)


def _no_match(name: str, query: Split, gallery: Split, same_camera: bool) -> InputError:
    """Why no query has a match, with what helps own images."""
    cameras = np.union1d(query.camera_ids, gallery.camera_ids)
    if len(cameras) == 1 and not same_camera:
        rule, value = "query and gallery show at least two cameras", f"only camera {cameras[0]}"
        mend = f"with one camera no query can have a match, {_WHY_CAMERAS}: add another, or {_within(name)}"
        return InputError(rule, value, mend)
    persons = np.unique(query.person_ids)
    there = int(np.isin(persons, gallery.person_ids).sum())
    mend = "list images of the same persons in query and gallery"
    if there and same_camera:
        mend = "put other images of them into the gallery, since an image does not match itself"
    elif there:
        mend = f"put images from other cameras into the gallery, {_WHY_CAMERAS}; or {_within(name)}"
    return InputError(
        "at least one query has a match: its person in the gallery from another camera",
        f"none of {counted(len(query), 'queries')};"
        f" {there} of their {counted(len(persons), 'persons')} in the gallery",
        mend,
    )


def _by_rule(
    name: str, images: Split, trial: int, same_camera: bool, test_persons: int
) -> tuple[list[int], list[int], list[int]]:
    persons = np.unique(images.person_ids[images.person_ids > 0])
    searchable = searchable_persons(images, same_camera)
    how = "with two images" if same_camera else "whom two cameras show"
    mend = "add images of them" if same_camera else f"add images from other cameras, or {_within(name)}"
    if not searchable:
        why = "" if same_camera else f", {_WHY_CAMERAS}"
        cameras = counted(len(np.unique(images.camera_ids)), "cameras")
        value = f"none of {counted(len(persons), 'persons')} ({cameras}, {counted(len(images), 'images')})"
        raise InputError(f"there are persons to search for: those {how}{why}", value, mend)
    count = test_persons or max(1, len(searchable) // 2)
    if not 0 < count <= min(len(searchable), len(persons) - 1):
        largest = min(len(searchable), len(persons) - 1)
        raise InputError(
            f"test persons are some of those {how}, and leave at least one person for training",
            f"{count} of {counted(len(searchable), 'such persons')},"
            f" {counted(len(persons), 'persons')} in all",
            f"use test_persons={largest} or fewer"
            if largest and count > 0
            else "add images of other persons",
        )
    label = f"own images {len(searchable)} persons, {count} for testing, trial {trial}"
    chosen = {searchable[place - 1] for place in seeded_order(label, len(searchable))[:count]}
    train, query, gallery = [], [], []
    seen: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, pair in enumerate(zip(images.person_ids.tolist(), images.camera_ids.tolist(), strict=True)):
        if pair[0] in chosen:
            seen[pair].append(index)
        else:
            (train if pair[0] > 0 else gallery).append(index)
    for first, *others in seen.values():
        query.append(first)
        # A camera's only image of a person is in the gallery, too, for the queries of the other cameras.
        gallery += others or [first]
    return train, sorted(query), sorted(gallery)


def _within(name: str) -> str:
    return f"allow matches within a camera: {name},same_camera=true (same_camera=True in a notebook)"


def _nobody(name: str) -> int | None:
    if name.lower() in _NOBODY:
        return _NOBODY[name.lower()]
    number = int(name) if _WHOLE.fullmatch(name) else None
    return number if number in (JUNK, DISTRACTOR) else None
