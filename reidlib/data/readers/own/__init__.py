"""A user's own crops: as benchmarks, and as images to embed or search."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers.layout import Reading, changed_options, names_in, nearest_path, require_folder
from reidlib.data.readers.own.division import (
    NUM_TRIALS,
    broken_division_rules,
    part,
    searchable_persons,
    to_split,
)
from reidlib.data.readers.own.folders import ListedImage, is_flat, list_flat, list_persons, list_single
from reidlib.data.readers.own.lists import find_csv, list_csv
from reidlib.data.rules import DISTRACTOR, JUNK, queries_without_match, rule_violations
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten


def folder(root: Path, *, same_camera: bool = False, test_persons: int = 0) -> Reading:
    """Own images, a folder per person: ``PERSON/image`` or ``PERSON/CAMERA/image``.

    Cameras of images in no camera folder are taken from ``_cN`` in their names where all have one. Names of
    persons that are positive whole numbers are the ids, ``-1`` or ``junk`` is junk, ``0`` or ``distractors``
    nobody; otherwise persons are numbered from 1 in the order of their names. Cameras likewise. A set that
    lies in ``train``, ``query`` and ``gallery`` is parted so. Any other is parted in one of ten ways
    (``trial``), the same on every machine: of the persons whom two cameras show, ``test_persons`` (0: half
    of them) are for testing, everybody else is for training. Each camera's first image of a test person by
    name is a query, its others are the gallery; where there is no other, the query is in the gallery, too,
    for the queries of the other cameras. Junk and distractors are in the gallery.

    ``same_camera`` allows matches within a camera, for data with one camera or unknown ones: every image of
    query and gallery then counts as a camera of its own, and only the image itself is ignored. Scores are
    then much higher and say less: neighbouring frames are nearly the same picture, and finding them again
    is easy. Training images keep their cameras (1 where unknown).

    Refused are images that lie elsewhere, a folder one level too high or too low, cameras
    that are needed and unknown, and options that contradict the data.
    """
    require_folder(root)
    return _parted(folder, list_persons, root, root, same_camera=same_camera, test_persons=test_persons)


def csv(root: Path, *, same_camera: bool = False, test_persons: int = 0) -> Reading:
    """Own images in a CSV file, or in the only one in a folder.

    Columns are ``path``, ``person``, and if you like ``camera`` and ``split`` (train, query or gallery).
    Paths are relative to the CSV's folder and stay in it. Everything else is as for ``folder``, including
    the parting where there is no column ``split``.

    Refused are missing columns, duplicate, absolute or escaping paths, empty cells, files
    that are not there (with their line numbers), and what ``folder`` refuses.
    """
    file = find_csv(root)
    return _parted(csv, list_csv, root, file, same_camera=same_camera, test_persons=test_persons)


class OwnImages(NamedTuple):
    """Own images with what is known of them, in the order of their names.

    ``split`` holds N paths, person ids (0 where unknown) and camera ids (0 where unknown); ``names`` the
    paths relative to ``root``, with / on every machine; ``persons`` and ``cameras`` the names of person and
    camera, "" where unknown.
    """

    root: Path
    split: Split
    names: tuple[str, ...]
    persons: tuple[str, ...]
    cameras: tuple[str, ...]


def list_own(source: str | Path) -> OwnImages:
    """List own images: one file, a flat folder, a folder per person, or a CSV.

    A folder per person holds ``PERSON/image`` or ``PERSON/CAMERA/image``; in a flat folder persons are
    unknown. A CSV has the column ``path`` and may have ``person`` and ``camera``; cells of those two may be
    empty. Cameras of images in no camera folder are taken from ``_cN`` in their names where all have one.
    Persons and cameras are numbered as ``folder`` does it.

    Raises ``InputError`` where there is nothing of that name, no image, or what a list may not have.
    """
    source = Path(source).expanduser().absolute()
    if not source.exists():
        raise InputError("the images to search or embed exist", source, nearest_path(source, _visible_names))
    reading = Reading("own images")
    root = source.parent if source.is_file() else source
    if source.is_file():
        is_list = source.name.lower().endswith(".csv")
        rows = list_csv(reading, source, labelled=False) if is_list else list_single(source)
    elif source.is_dir() and is_flat(source):
        rows = list_flat(source)
    else:
        rows = list_persons(reading, source, parted=False)
    if reading.problems:
        raise reading.problems[0]
    # An image that a list has as query and as gallery is one image here.
    rows = list({row.name: row for row in _in_order(rows)}.values())
    names, persons, cameras, *_ = zip(*rows, strict=True)
    return OwnImages(root, to_split(root, rows), names, persons, cameras)


def _visible_names(folder: Path) -> list[str]:
    names = [name for name in names_in(folder) if not name.startswith(".")]
    # Comparing spellings takes seconds where a folder holds all of a large set's images.
    return names if len(names) <= 20_000 else []


def _in_order(rows: Sequence[ListedImage]) -> list[ListedImage]:
    """By name, in the same order whether a file system keeps é as one character or as two."""
    return sorted(rows, key=lambda row: (unicodedata.normalize("NFC", row.name), row.name))


def _parted(
    reader: Callable[..., Reading],
    list_rows: Callable[[Reading, Path], list[ListedImage]],
    root: Path,
    source: Path,
    *,
    same_camera: bool,
    test_persons: int,
) -> Reading:
    """The reading of own images that ``list_rows`` finds in ``source``, for the ``reader`` of ``root``."""
    reading = Reading(reader.__name__)
    rows = _in_order(reading.attempt(list_rows, reading, source) or [])
    base = source if source.is_dir() else source.parent
    settings = {"same_camera": same_camera, "test_persons": test_persons}
    options = changed_options(reader, **settings)
    num_trials = 1 if any(row.part for row in rows) else NUM_TRIALS

    def make(trial: int) -> Benchmark:
        splits = part(reading.title, base, rows, trial=trial, **settings)
        for error in broken_division_rules(reading.title, rows, splits, same_camera):
            raise error
        return Benchmark(reading.title, root, *splits, num_trials=num_trials, trial=trial, options=options)

    def examine() -> Iterator[InputError | str]:
        if not rows:
            return
        paths = tuple(dict.fromkeys(base / row.name for row in rows))
        nobody = np.zeros(len(paths), np.int64)
        reading.parts = {"images": Split(paths, nobody, nobody)}
        reading.remarks += _described(base, rows, same_camera)
        # What is wrong with the list would be wrong with its parting: named once is enough.
        if reading.problems:
            return
        splits = part(reading.title, base, rows, trial=0, **settings)
        reading.parts = dict(zip(("train", "query", "gallery"), splits, strict=True))
        reading.remarks += _parting_described(base, splits, num_trials, same_camera)
        own = list(broken_division_rules(reading.title, rows, splits, same_camera))
        rules = {error.rule for error in own}
        yield from own
        yield from (error for error in rule_violations(*splits) if error.rule not in rules)

    reading.make, reading.examine = make, examine
    return reading


def _described(root: Path, rows: Sequence[ListedImage], same_camera: bool) -> list[str]:
    images = to_split(root, rows, unknown_camera=1)
    ids = images.person_ids
    persons = np.unique(ids[ids > 0])
    cameras = {row.camera for row in rows} - {""}
    known = counted(len(cameras), "cameras") if cameras else "cameras unknown"
    said = [f"{counted(len(persons), 'persons')}, {known}, {counted(len(set(images.paths)), 'images')}"]
    if number := np.count_nonzero(ids == JUNK):
        said.append(f"{counted(number, 'images')} of junk (person -1), which count for nothing")
    if number := np.count_nonzero(ids == DISTRACTOR):
        said.append(
            f"{counted(number, 'images')} of nobody (person 0): number persons from 1 if 0 is one of them"
        )
    # Without cameras nobody knows who is seen by one only.
    cameras_known = same_camera or all(row.camera for row in rows)
    if cameras_known and (alone := sorted({*persons.tolist()} - {*searchable_persons(images, same_camera)})):
        why = "one image" if same_camera else "one camera"
        names = {number: row.person for number, row in zip(ids.tolist(), rows, strict=True)}
        named = shorten([names[number] for number in alone])
        said.append(f"{counted(len(alone), 'persons')} with {why} only, who cannot be searched for: {named}")
    return said


def _parting_described(
    root: Path, splits: tuple[Split, Split, Split], num_trials: int, same_camera: bool
) -> list[str]:
    train, query, gallery = splits
    persons = [len(np.unique(split.person_ids[split.person_ids > 0])) for split in splits]
    how = "as train, query and gallery say"
    if num_trials == NUM_TRIALS:
        how = f"by a fixed rule, trial 0 of {NUM_TRIALS}"
    said = [
        f"parted {how}: {counted(persons[0], 'persons')} in {counted(len(train), 'training images')},"
        f" {persons[1]:,} in {counted(len(query), 'queries')},"
        f" {persons[2]:,} in {counted(len(gallery), 'gallery images')}"
    ]
    if unmatched := queries_without_match(query, gallery):
        names = shorten([path.relative_to(root).as_posix() for path in unmatched])
        said.append(f"{len(unmatched):,} of {len(query):,} queries have no match: {names}")
    if same_camera:
        said.append(
            "matches within a camera count: neighbouring frames are nearly the same picture, so that scores"
            " are higher than across cameras"
        )
    return said
