"""The user's own images: as benchmarks (``folder``, ``csv``), or to embed and search (``list_own_images``).

Format of ``folder``: a folder per person, ``PERSON/image`` or ``PERSON/CAMERA/image``. For images without a
camera folder, cameras are taken from ``_cN`` in their names if all names have one. If all names of persons
are positive whole numbers, these are the person ids; otherwise persons are numbered from 1 in the order of
their names. ``-1`` or ``junk`` is junk, ``0`` or ``distractors`` are distractors. Cameras are numbered
likewise. ``reidlib.data.names`` says which spellings are one name.

Format of ``csv``: a CSV file, or a folder that contains exactly one, with the columns ``path``, ``person``
and, optionally, ``camera`` and ``split`` (train, query or gallery). Paths are relative to the CSV's folder
and must not leave it. Separators are commas, semicolons or tabs, or what a first line ``sep=;`` names.

Splits: folders ``train``, ``query`` and ``gallery``, or the column ``split``, define them. Any other set is
split by a fixed rule in ten ways (``trial``), the same on every machine. Of the persons seen by two cameras,
``test_persons`` (0: half of them) are test persons; all other persons are for training. The first image by
name of each test person and camera is a query, the others are in the gallery; if there is no other, the query
is also in the gallery, for the queries of the other cameras. Junk and distractors are in the gallery.
``validation`` and ``training_only``, of ``reidlib.data.readers.persons``, read only the folder ``train`` or
the rows with that split. In a set without splits, validation divides each trial's training persons, and all
persons are for training with ``training_only``.

``same_camera=True`` allows matches within a camera, for data with one camera or unknown ones. Each image of
query and gallery then has its own camera, so only the image itself is ignored. Scores are much higher and
less meaningful, because neighbouring frames are nearly identical and easy to find. Training images keep their
cameras (1 if unknown).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.names import describe_spellings, known_names, name_key, printable
from reidlib.data.readers.layout import Reading, non_default_options, path_hint, require_folder
from reidlib.data.readers.listing import entry_names
from reidlib.data.readers.own.division import NUM_TRIALS, divide, division_errors, to_split
from reidlib.data.readers.own.folders import (
    ListedImage,
    is_flat,
    list_file,
    list_flat_folder,
    list_person_folders,
)
from reidlib.data.readers.own.lists import find_csv, list_csv
from reidlib.data.readers.persons import Splits, describe_splits, searchable_persons, training_use
from reidlib.data.rules import DISTRACTOR, JUNK, queries_without_match, rule_violations
from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun, shorten


def folder(
    root: Path,
    *,
    same_camera: bool = False,
    test_persons: int = 0,
    validation: bool = False,
    training_only: bool = False,
) -> Reading:
    """Read own images in one folder for each person: ``PERSON/image`` or ``PERSON/CAMERA/image``."""
    use = training_use(validation, training_only, test_persons=test_persons, same_camera=same_camera)
    require_folder(root)
    settings = {"same_camera": same_camera, "test_persons": test_persons}
    return _read(folder, list_person_folders, root, root, settings, use)


def csv(
    root: Path,
    *,
    same_camera: bool = False,
    test_persons: int = 0,
    validation: bool = False,
    training_only: bool = False,
) -> Reading:
    """Read own images of a CSV file: columns ``path``, ``person``, optionally ``camera`` and ``split``."""
    use = training_use(validation, training_only, test_persons=test_persons, same_camera=same_camera)
    settings = {"same_camera": same_camera, "test_persons": test_persons}
    return _read(csv, list_csv, root, find_csv(root), settings, use)


class OwnImages(NamedTuple):
    """Own images in the order of their names, with persons and cameras as far as they are known.

    Attributes:
        root: Folder of all images.
        split: N paths, person ids and camera ids; ids are 0 if unknown.
        names: N paths relative to ``root``, with / on every machine.
        persons: N names of persons; "" if unknown. Junk and distractors count as unknown.
        cameras: N names of cameras; "" if unknown.
        warnings: Messages about images that were left out and names that mean unknown.
    """

    root: Path
    split: Split
    names: tuple[str, ...]
    persons: tuple[str, ...]
    cameras: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def list_own_images(source: str | Path) -> OwnImages:
    """List own images to embed or search.

    Args:
        source: An image file; a folder of images, whose persons are unknown; a folder per person; or a CSV
            with the column ``path`` and, optionally, ``person`` and ``camera``, whose cells may be empty.

    Returns:
        The images, sorted by name.

    Raises:
        InputError: If the source does not exist, contains no image or is malformed.
    """
    source = Path(source).expanduser().absolute()
    if not source.exists():
        mend = path_hint(source, _visible_names, "an image, a folder of images or a CSV file")
        raise InputError("the images to search or embed exist", source, mend)
    reading = Reading("own images")
    root = source.parent if source.is_file() else source
    if source.is_file():
        is_list = source.name.lower().endswith(".csv")
        rows = list_csv(reading, source, labelled=False) if is_list else list_file(source)
    elif source.is_dir() and is_flat(source):
        rows = list_flat_folder(reading, source)
    else:
        rows = list_person_folders(reading, source, allow_splits=False)
        if rows and len(persons := {row.person for row in rows}) == 1:
            place = source / persons.pop()
            text = f"all images are taken for one person, {printable(place.name)}"
            reading.warnings.append(f"{text}; give {place} if this is no person")
    if reading.problems:
        raise reading.problems[0]
    # An image that a CSV lists as query and as gallery is one image here.
    rows = list({row.name: row for row in _in_order(rows)}.values())
    names = tuple(row.name for row in rows)
    persons, unknown_persons = known_names("person", [row.person for row in rows])
    cameras, unknown_cameras = known_names("camera", [row.camera for row in rows])
    warnings = (*reading.warnings, *reading.left_out.describe(), *unknown_persons, *unknown_cameras)
    return OwnImages(root, to_split(root, rows), names, persons, cameras, warnings)


def _visible_names(folder: Path) -> list[str]:
    names = [name for name in entry_names(folder) if not name.startswith(".")]
    # Comparing spellings takes seconds in a folder with all images of a large set.
    return names if len(names) <= 20_000 else []


def _in_order(rows: Sequence[ListedImage]) -> list[ListedImage]:
    """Sort by name, in the same order whether a file system stores é as one character or as two."""
    return sorted(rows, key=lambda row: (unicodedata.normalize("NFC", row.name), row.name))


def _read(
    reader: Callable[..., Reading],
    list_rows: Callable[..., list[ListedImage]],
    root: Path,
    source: Path,
    settings: dict[str, Any],
    use: dict[str, bool],
) -> Reading:
    """Read the images that ``list_rows`` lists in ``source``; ``reader`` is the public reader of ``root``."""
    reading = Reading(reader.__name__)
    list_rows = partial(list_rows, train_alone=True) if use else list_rows
    rows = _with_names(reading, _in_order(reading.attempt(list_rows, reading, source) or []))
    base = source if source.is_dir() else source.parent
    same_camera = settings["same_camera"]
    options = non_default_options(reader, **settings) | use
    num_trials = 1 if "training_only" in use or any(row.split for row in rows) else NUM_TRIALS

    def make_benchmark(trial: int) -> Benchmark:
        splits = divide(reading.title, base, rows, use, trial=trial, **settings)
        for error in division_errors(reading.title, rows, splits, same_camera):
            raise error
        return Benchmark(reading.title, root, *splits, num_trials=num_trials, trial=trial, options=options)

    def examine() -> Iterator[InputError | str]:
        if not rows:
            return
        paths = tuple(dict.fromkeys(base / row.name for row in rows))
        zeros = np.zeros(len(paths), np.int64)
        reading.splits = {"images": Split(paths, zeros, zeros)}
        reading.remarks += _describe_images(reading, base, rows, same_camera)
        # Problems of the list would be problems of its division, too; they are reported once.
        if reading.problems:
            return
        splits = divide(reading.title, base, rows, use, trial=0, **settings)
        reading.splits = dict(zip(("train", "query", "gallery"), splits, strict=True))
        reading.remarks += _describe_division(base, splits, num_trials, same_camera, use)
        errors = list(division_errors(reading.title, rows, splits, same_camera))
        rules = {error.rule for error in errors}
        yield from errors
        violations = rule_violations(*splits, training_only="training_only" in use)
        yield from (error for error in violations if error.rule not in rules)

    reading.make_benchmark, reading.examine = make_benchmark, examine
    return reading


def _with_names(reading: Reading, rows: list[ListedImage]) -> list[ListedImage]:
    """Refuse persons without a name, let such cameras be unknown, and warn of spellings."""
    nameless = sorted({row.person for row in rows if not name_key(row.person)})
    if nameless:
        places = [row.name for row in rows if row.person in nameless]
        rule = "each person has a name: nan, None, null and such mean that it is unknown"
        value = f"{count_noun(len(places), 'images')} of {shorten(map(repr, nameless))}: {shorten(places, 2)}"
        mend = "rename the folder: to the person, or to junk to ignore its images"
        reading.problems.append(InputError(rule, value, mend))
    cameras, warnings = known_names("camera", [row.camera for row in rows])
    reading.warnings += warnings
    for noun in ("person", "camera"):
        reading.warnings += describe_spellings(noun, {getattr(row, noun) for row in rows})
    return [row._replace(camera=camera) for row, camera in zip(rows, cameras, strict=True)]


def _describe_images(
    reading: Reading, root: Path, rows: Sequence[ListedImage], same_camera: bool
) -> list[str]:
    images = to_split(root, rows, unknown_camera=1)
    ids = images.person_ids
    persons = np.unique(ids[ids > 0])
    cameras = {name_key(row.camera) for row in rows} - {""}
    camera_text = count_noun(len(cameras), "cameras") if cameras else "cameras unknown"
    num_images = count_noun(len(set(images.paths)), "images")
    remarks = [f"{count_noun(len(persons), 'persons')}, {camera_text}, {num_images}"]
    if number := int(np.count_nonzero(ids == JUNK)):
        remarks.append(
            f"{count_noun(number, 'images')} of junk (person -1), which are ignored in every score"
        )
    if number := int(np.count_nonzero(ids == DISTRACTOR)):
        reading.warnings.append(
            f"{count_noun(number, 'images')} of distractors (person 0); number persons from 1 if 0 is one"
        )
    # Without cameras it is unknown which persons are seen by only one.
    cameras_known = same_camera or all(row.camera for row in rows)
    if cameras_known and (single := sorted({*persons.tolist()} - {*searchable_persons(images, same_camera)})):
        reason = "one image" if same_camera else "one camera"
        names = {number: row.person for number, row in zip(ids.tolist(), rows, strict=True)}
        examples = shorten([names[number] for number in single])
        remarks.append(
            f"{count_noun(len(single), 'persons')} with only {reason}, who cannot be searched for: {examples}"
        )
    return remarks


def _describe_division(
    root: Path, splits: Splits, num_trials: int, same_camera: bool, use: Mapping[str, object]
) -> list[str]:
    _, query, gallery = splits
    rule = "as given in train, query and gallery"
    if num_trials == NUM_TRIALS:
        rule = f"by a fixed rule, trial 0 of {NUM_TRIALS}"
    remarks = [describe_splits(rule, splits, use)]
    if unmatched := queries_without_match(query, gallery):
        names = shorten([path.relative_to(root).as_posix() for path in unmatched])
        remarks.append(f"{len(unmatched):,} of {len(query):,} queries have no match: {names}")
    if same_camera:
        remarks.append(
            "matches within a camera count: neighbouring frames are nearly identical, so scores are higher"
            " than across cameras"
        )
    return remarks
