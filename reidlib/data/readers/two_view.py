"""Sets of persons in two views, an image or two in each: VIPeR, CUHK01 and QMUL GRID."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.data.readers.layout import (
    Reading,
    ReadName,
    changed_options,
    list_images,
    official_counts,
    read_folders,
)
from reidlib.data.readers.partitions import GRID_FILE, choose_partitions, training_persons
from reidlib.data.rules import DISTRACTOR, queries_without_match
from reidlib.data.splits import Split, concatenated
from reidlib.errors import InputError, counted, shorten

VIPER_CAMERAS = {"cam_a": 1, "cam_b": 2}
VIPER_PROTOCOLS = {"single-shot": Protocol("single")}
_VIPER_FORM = "VIPeR's images are named by 3 digits of the person and the angle, as in 000_45.bmp"
# Some copies name the camera once more, as in `000_45_a.bmp`.
_VIPER_NAME = re.compile(r"(\d{3})_\d{1,3}(_[ab])?\.[A-Za-z]+")

CUHK01_FOLDER = "campus"
CUHK01_PROTOCOLS = {"single-shot": Protocol("single", draws=10), "multi-shot": Protocol("multi")}
# `0001001.png`: four digits of the person (from 1), three of the image: 1 and 2 by camera 1, 3 and 4 by 2.
_CUHK01_FORM = "CUHK01's images are named by 4 digits of the person and 001 to 004, as in 0001001.png"
_CUHK01_NAME = re.compile(r"(?!0000)(\d{4})00([1-4])\.[A-Za-z]+")


GRID_FOLDERS = ("gallery", "probe")
GRID_PARTITIONS, GRID_TRAINING_PERSONS = 10, 125
# Distractors of the probe's own camera stay: the 900 gallery images are the same for every probe.
GRID_PROTOCOLS = {"single-shot": Protocol("single", across_cameras=False)}
_GRID_FORM = (
    "GRID's images are named by 4 digits of the person and the camera 1 to 8, as in 0001_1_25004_107.jpeg"
)
_GRID_NAME = re.compile(r"(\d{4})_([1-8])_.*")


def viper(root: Path, *, test_persons: int = 316, partitions: str = "") -> Reading:
    """VIPeR (Gray, Brennan, Tao 2007). ``root`` holds ``cam_a`` and ``cam_b``.

    A person's id is the number in the name plus one (the numbers begin with 0 and have gaps). Query are the
    images of ``cam_a`` (camera 1) that show test persons, gallery those of ``cam_b`` (camera 2); everybody
    else is for training. There is no official partition: of the persons that are there, ``test_persons``
    are drawn in ten ways (``trial``), the same on every machine; the papers test 316 of 632. ``partitions``
    is a file of other ones (see ``reidlib.data.readers.partitions``), its path relative to ``root``.

    Protocol: ``single-shot``. Refused are a folder one level too high or too low, names of another form,
    persons whom only one camera shows, and partitions that do not fit.
    """
    reading = read_views(root, tuple(VIPER_CAMERAS), "VIPeR", _VIPER_FORM, _read_viper)
    if len(reading.parts) == 2:
        reading.problems += unpaired(*reading.parts.values(), "cam_a and in cam_b")
    return _partitioned(reading, viper, root, VIPER_PROTOCOLS, test_persons, partitions)


def cuhk01(root: Path, *, test_persons: int = 486, partitions: str = "") -> Reading:
    """CUHK01 (Li, Zhao, Wang 2012). ``root`` holds ``campus``.

    Query are the camera-1 images of the test persons, gallery those of camera 2; everybody else is for
    training. There is no official partition: of the persons that are there, ``test_persons`` are drawn in
    ten ways (``trial``), the same on every machine; the papers test 486 or 100 of 971. ``partitions`` is a
    file of other ones (see ``reidlib.data.readers.partitions``), its path relative to ``root``.

    Protocols: ``single-shot`` (a random camera-2 image of each person, ten draws) and ``multi-shot`` (one
    entry a person and camera, the mean over pairs of images).

    Refused are a folder one level too high or too low, names of another form, persons whom only one camera
    shows, and partitions that do not fit.
    """
    reading = read_views(root, (CUHK01_FOLDER,), "CUHK01", _CUHK01_FORM, _read_cuhk01)
    if (images := reading.parts.get(CUHK01_FOLDER)) is not None:
        by_camera = [images.select(images.camera_ids == camera) for camera in (1, 2)]
        reading.problems += unpaired(*by_camera, "both cameras (001 or 002, and 003 or 004)")
    elif not (root.parent / CUHK01_FOLDER).is_dir() and (
        names := [name for name in list_images(root) if _read_cuhk01("", name)]
    ):
        found = f"{counted(len(names), 'images')} in {root}"
        mend = f"move them into a folder {CUHK01_FOLDER} in there"
        reading.problems = [InputError(f"CUHK01's images lie in {CUHK01_FOLDER}", found, mend)]
    return _partitioned(reading, cuhk01, root, CUHK01_PROTOCOLS, test_persons, partitions)


def grid(root: Path) -> Reading:
    """QMUL GRID (Loy, Xiang, Gong 2009). ``root`` holds ``probe``, ``gallery`` and the partitions' .mat.

    ``features_and_partitions.mat`` holds ten partitions (``trial``), each with 125 training persons, whose
    images of both folders are the training split. Query are the other persons' probes; gallery are their
    gallery images and, in every trial, all distractors (``0000``).

    Protocol: ``single-shot``. Refused are a folder one level too high or too low, names of another form,
    persons whom only one folder shows, a .mat that cannot be read or is of version 7.3, and partitions whose
    persons are not there.
    """
    reading = read_views(root, GRID_FOLDERS, "GRID", _GRID_FORM, _read_grid)
    if len(reading.parts) == 2:
        reading.problems += unpaired(*reading.parts.values(), "probe and in gallery")
    training = reading.attempt(training_persons, root / GRID_FILE) or ()
    if not reading.problems:
        reading.num_trials = len(training)
        images = concatenated(list(reading.parts.values()))
        in_query_n = np.arange(len(images)) >= len(reading.parts["gallery"])

        def in_test(trial: int) -> np.ndarray:
            return ~np.isin(images.person_ids, training[trial])

        divide(reading, root, images, in_query_n, in_test, GRID_PROTOCOLS)
        if absent := np.setdiff1d(np.concatenate(training), images.person_ids).tolist():
            reading.problems.append(
                InputError(
                    "the persons of the partitions have images in probe and gallery",
                    f"{counted(len(absent), 'persons')} without: {shorten(absent, 20)}",
                    "unpack the archive completely",
                )
            )

    def examine() -> Iterator[InputError | str]:
        yield from problems_of_trials(reading)
        sizes = [len(persons) for persons in training]
        if training and sizes != [GRID_TRAINING_PERSONS] * GRID_PARTITIONS:
            yield (
                f"{GRID_FILE} holds {counted(len(sizes), 'partitions')} of {shorten(sorted(set(sizes)))}"
                f" training persons; {GRID_PARTITIONS} of {GRID_TRAINING_PERSONS} belong there"
            )
        if len(reading.parts) == 2:
            gallery, probes = reading.parts.values()
            if unmatched := queries_without_match(probes, gallery):
                named = shorten([path.name for path in unmatched])
                reading.remarks.append(f"{len(unmatched)} of {len(probes)} probes have no match: {named}")

    reading.examine = examine
    return reading


def read_views(root: Path, folders: Sequence[str], layout: str, form: str, read: ReadName) -> Reading:
    """``read_folders`` for the benchmark of the layout's name, with names of a ``form`` told in words."""

    def strange(unparsed: Sequence[Path]) -> InputError:
        return InputError(
            form,
            f"{counted(len(unparsed), 'other names')}: {shorten(unparsed, 20)}",
            "rename the files or move them out of the folder",
        )

    reading = read_folders(root, folders, layout, read, strange)
    reading.title = layout.lower()
    reading.expected = official_counts(reading.title)
    return reading


def unpaired(first: Split, second: Split, views: str) -> Iterator[InputError]:
    """The error for persons whom only one of two views shows, if there are any."""
    images = concatenated([first, second])
    in_one_n = np.isin(images.person_ids, np.setxor1d(first.person_ids, second.person_ids))
    if alone := images.select(in_one_n & (images.person_ids != DISTRACTOR)).paths:
        yield InputError(
            f"every person has an image in {views}",
            f"{counted(len(alone), 'images')} of persons whom only one of them shows: {shorten(alone)}",
            "unpack the archive completely, or take these images out",
        )


def divide(
    reading: Reading,
    root: Path,
    images: Split,
    in_query_n: np.ndarray,
    in_test: Callable[[int], np.ndarray],
    protocols: Mapping[str, Protocol],
    **options: str | int,
) -> None:
    """Have the reading make its trials of these images.

    ``in_query_n``: which are of the query's view; ``in_test``: which show a trial's test persons (boolean
    (N,)). All others are for training.
    """

    def make(trial: int) -> Benchmark:
        in_test_n = in_test(trial)
        return Benchmark(
            reading.title,
            root,
            images.select(~in_test_n),
            images.select(in_test_n & in_query_n),
            images.select(in_test_n & ~in_query_n),
            num_trials=reading.num_trials,
            trial=trial,
            options=options,
            protocols=protocols,
        )

    reading.make, reading.examine = make, lambda: problems_of_trials(reading)


def problems_of_trials(reading: Reading) -> Iterator[InputError]:
    """What making each trial raises, where the folder itself has no problem."""
    for trial in range(0 if reading.problems else reading.num_trials):
        try:
            reading.make(trial)
        except InputError as error:
            yield error


def _partitioned(
    reading: Reading,
    reader: Callable[..., Reading],
    root: Path,
    protocols: Mapping[str, Protocol],
    test_persons: int,
    partitions: str,
) -> Reading:
    """The reading of a set without an official partition, for the ``reader`` that is named after it.

    ``test_persons`` and ``partitions`` are the reader's keywords. Query are the test persons' images of
    camera 1, gallery those of camera 2; everybody else is for training. Partitions that do not fit are a
    problem.
    """
    if reading.problems:
        return reading
    images = concatenated(list(reading.parts.values()))
    persons_k = np.unique(images.person_ids)
    options = changed_options(reader, test_persons=test_persons, partitions=partitions)
    if chosen := reading.attempt(
        choose_partitions, reading.title, root, len(persons_k), test_persons, options
    ):
        reading.num_trials = len(chosen.test)

    def in_test(trial: int) -> np.ndarray:
        return np.isin(images.person_ids, chosen.person_ids(trial, persons_k))

    divide(reading, root, images, images.camera_ids == 1, in_test, protocols, **options)
    return reading


def _read_viper(folder: str, name: str) -> tuple[int, int] | None:
    match = _VIPER_NAME.fullmatch(name)
    return match and (int(match[1]) + 1, VIPER_CAMERAS[folder])


def _read_cuhk01(folder: str, name: str) -> tuple[int, int] | None:
    match = _CUHK01_NAME.fullmatch(name)
    return match and (int(match[1]), (int(match[2]) + 1) // 2)


def _read_grid(folder: str, name: str) -> tuple[int, int] | None:
    match = _GRID_NAME.fullmatch(name)
    return match and (int(match[1]), int(match[2]))
