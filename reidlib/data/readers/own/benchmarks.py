"""A user's own crops: as benchmarks, and as images to embed or search."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers.layout import changed_options, near_miss
from reidlib.data.readers.own.csv import find_csv, list_csv
from reidlib.data.readers.own.division import (
    NUM_TRIALS,
    Parted,
    match_errors,
    part,
    person_numbers,
    searchable_persons,
    to_split,
)
from reidlib.data.readers.own.folder import Listing, is_flat, list_flat, list_persons, list_single
from reidlib.data.readers.survey import Survey
from reidlib.data.rules import DISTRACTOR, JUNK, queries_with_match, rule_violations
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten


def folder(root: Path, *, trial: int = 0, same_camera: bool = False, test_persons: int = 0) -> Benchmark:
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

    Raises ``InputError`` for images that lie elsewhere, a folder one level too high or too low, cameras
    that are needed and unknown, and options that contradict the data.
    """
    listing = list_persons(root)
    options = changed_options(folder, same_camera=same_camera, test_persons=test_persons)
    return _benchmark("folder", root, listing, trial, options)


def csv(root: Path, *, trial: int = 0, same_camera: bool = False, test_persons: int = 0) -> Benchmark:
    """Own images in a CSV file, or in the only one in a folder.

    Columns are ``path``, ``person``, and if you like ``camera`` and ``split`` (train, query or gallery).
    Paths are relative to the CSV's folder and stay in it. Everything else is as for ``folder``, including
    the parting where there is no column ``split``.

    Raises ``InputError`` for missing columns, duplicate, absolute or escaping paths, empty cells, files
    that are not there (with their line numbers), and for what ``folder`` refuses.
    """
    listing = list_csv(find_csv(root))
    options = changed_options(csv, same_camera=same_camera, test_persons=test_persons)
    return _benchmark("csv", root, listing, trial, options)


def survey_folder(root: Path, *, same_camera: bool = False, test_persons: int = 0) -> Survey:
    """What is in a folder of own images: persons, cameras, parting, and everything that is wrong."""
    return _survey("folder", list_persons(root), same_camera, test_persons)


def survey_csv(root: Path, *, same_camera: bool = False, test_persons: int = 0) -> Survey:
    """What a CSV of own images lists: persons, cameras, parting, and everything that is wrong."""
    return _survey("csv", list_csv(find_csv(root)), same_camera, test_persons)


@dataclass(frozen=True, eq=False)
class OwnImages:
    """Own images with what is known of them, in the order of their names.

    ``split`` holds N paths, person ids (0 where unknown) and camera ids (0 where unknown); ``names`` the
    paths relative to ``root``, with / on every machine; ``persons`` and ``cameras`` the names of person and
    camera, "" where unknown. Raises ``InputError`` for unequal lengths.
    """

    root: Path
    split: Split
    names: tuple[str, ...]
    persons: tuple[str, ...]
    cameras: tuple[str, ...]

    def __post_init__(self):
        lengths = (len(self.split), len(self.names), len(self.persons), len(self.cameras))
        if len(set(lengths)) > 1:
            rule = "own images have a path, a name, a person and a camera each"
            raise InputError(rule, f"{lengths} of them", "give all four of every image")


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
        raise _nothing_there(source)
    if source.is_file():
        is_list = source.name.lower().endswith(".csv")
        listing = list_csv(source, labelled=False) if is_list else list_single(source)
    elif source.is_dir() and is_flat(source):
        listing = list_flat(source)
    else:
        listing = list_persons(source, parted=False)
    if listing.problems:
        raise listing.problems[0]
    # An image that a list has as query and as gallery is one image here.
    rows = list({row.name: row for row in listing.rows}.values())
    return OwnImages(
        listing.root,
        to_split(listing.root, rows),
        tuple(row.name for row in rows),
        tuple(row.person for row in rows),
        tuple(row.camera for row in rows),
    )


def _nothing_there(source: Path) -> InputError:
    ancestor = next(parent for parent in source.parents if parent.is_dir())
    lost = source.relative_to(ancestor).parts[0]
    try:
        there = sorted(name for name in os.listdir(ancestor) if not name.startswith("."))  # noqa: PTH208
    except OSError:
        there = []
    # Comparing spellings takes seconds where a folder holds all of a large set's images.
    hint = near_miss(lost, there, prefix=ancestor) if len(there) <= 20_000 else ""
    return InputError(
        "the images to search or embed exist", source, hint or f"there is no {lost} in {ancestor}"
    )


def _benchmark(name: str, root: Path, listing: Listing, trial: int, options: dict) -> Benchmark:
    if listing.problems:
        raise listing.problems[0]
    settings = {"same_camera": False, "test_persons": 0, **options}
    parted = part(name, listing.root, listing.rows, trial=trial, **settings)
    for error in [*match_errors(name, parted, settings["same_camera"]), *_on_both_sides(listing, parted)]:
        raise error
    return Benchmark(
        name,
        root,
        parted.train,
        parted.query,
        parted.gallery,
        num_trials=parted.num_trials,
        trial=trial,
        options=options,
    )


def _on_both_sides(listing: Listing, parted: Parted) -> list[InputError]:
    """The rule of ``reidlib.data.rules`` with the persons' own names, which it does not know."""
    tested = np.union1d(parted.query.person_ids, parted.gallery.person_ids)
    shared = np.intersect1d(parted.train.person_ids, tested[tested > 0]).tolist()
    if not shared:
        return []
    number_of = person_numbers(row.person for row in listing.rows)
    names = {number: name for name, number in number_of.items()}
    return [
        InputError(
            "no person is in both training and test",
            f"{len(shared)} in both: {shorten([names[number] for number in shared])}",
            "scores on persons seen in training mean nothing: move each person to one side",
        )
    ]


def _survey(name: str, listing: Listing, same_camera: bool, test_persons: int) -> Survey:
    found = Survey(problems=[str(problem) for problem in listing.problems], remarks=list(listing.remarks))
    if not listing.rows:
        return found
    paths = tuple(dict.fromkeys(listing.root / row.name for row in listing.rows))
    found.parts = {"images": Split(paths, np.zeros(len(paths), np.int64), np.zeros(len(paths), np.int64))}
    try:
        found.remarks += _described(listing, same_camera)
        # What is wrong with the list would be wrong with its parting: named once is enough.
        if listing.problems:
            return found
        parted = part(
            name, listing.root, listing.rows, trial=0, same_camera=same_camera, test_persons=test_persons
        )
    except InputError as error:
        found.problems.append(str(error))
        return found
    found.parts = {"train": parted.train, "query": parted.query, "gallery": parted.gallery}
    found.remarks += _parting_described(listing.root, parted, same_camera)
    own = [*match_errors(name, parted, same_camera), *_on_both_sides(listing, parted)]
    rules = {error.rule for error in own}
    others = rule_violations(parted.train, parted.query, parted.gallery)
    found.problems += map(str, [*own, *(error for error in others if error.rule not in rules)])
    return found


def _described(listing: Listing, same_camera: bool) -> list[str]:
    images = to_split(listing.root, listing.rows, unknown_camera=1)
    ids = images.person_ids
    persons = np.unique(ids[ids > 0])
    cameras = {row.camera for row in listing.rows} - {""}
    known = counted(len(cameras), "cameras") if cameras else "cameras unknown"
    said = [f"{counted(len(persons), 'persons')}, {known}, {counted(len(set(images.paths)), 'images')}"]
    if number := np.count_nonzero(ids == JUNK):
        said.append(f"{counted(number, 'images')} of junk (person -1), which count for nothing")
    if number := np.count_nonzero(ids == DISTRACTOR):
        said.append(
            f"{counted(number, 'images')} of nobody (person 0): number persons from 1 if 0 is one of them"
        )
    # Without cameras nobody knows who is seen by one only.
    cameras_known = same_camera or all(row.camera for row in listing.rows)
    if cameras_known and (alone := sorted({*persons.tolist()} - {*searchable_persons(images, same_camera)})):
        why = "one image" if same_camera else "one camera"
        names = {number: row.person for number, row in zip(ids.tolist(), listing.rows, strict=True)}
        named = shorten([names[number] for number in alone])
        said.append(f"{counted(len(alone), 'persons')} with {why} only, who cannot be searched for: {named}")
    return said


def _parting_described(root: Path, parted: Parted, same_camera: bool) -> list[str]:
    train, query, gallery = (len(np.unique(one.person_ids[one.person_ids > 0])) for one in parted[:3])
    how = "as train, query and gallery say"
    if parted.num_trials == NUM_TRIALS:
        how = f"by a fixed rule, trial 0 of {NUM_TRIALS}"
    said = [
        f"parted {how}: {counted(train, 'persons')} in {counted(len(parted.train), 'training images')},"
        f" {query:,} in {counted(len(parted.query), 'queries')},"
        f" {gallery:,} in {counted(len(parted.gallery), 'gallery images')}"
    ]
    if unmatched := np.flatnonzero(~queries_with_match(parted.query, parted.gallery)).tolist():
        names = [parted.query.paths[index].relative_to(root).as_posix() for index in unmatched]
        said.append(f"{len(unmatched):,} of {len(parted.query):,} queries have no match: {shorten(names)}")
    if same_camera:
        said.append(
            "matches within a camera count: neighbouring frames are nearly the same picture, so that scores"
            " are higher than across cameras"
        )
    return said
