"""Readers of sets with two views of each person: VIPeR, CUHK01 and QMUL GRID."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.data.readers.layout import Reading, ReadName, non_default_options, official_counts, read_folders
from reidlib.data.readers.listing import list_images
from reidlib.data.readers.partitions import GRID_FILE, choose_partitions, training_persons
from reidlib.data.readers.persons import describe_splits, training_splits
from reidlib.data.rules import DISTRACTOR, queries_without_match
from reidlib.data.splits import Split, concatenate
from reidlib.errors import InputError, count_noun, shorten

VIPER_CAMERAS = {"cam_a": 1, "cam_b": 2}
VIPER_PROTOCOLS = {"single-shot": Protocol("single")}
_VIPER_FORM = "VIPeR's images are named by 3 digits of the person and the angle, as in 000_45.bmp"
# Some copies repeat the camera in the name, as in `000_45_a.bmp`.
_VIPER_NAME = re.compile(r"(\d{3})_\d{1,3}(_[ab])?\.[A-Za-z]+")

CUHK01_FOLDER = "campus"
# Ten draws are our choice: the number in the papers is not known.
CUHK01_PROTOCOLS = {"single-shot": Protocol("single", draws=10), "multi-shot": Protocol("multi")}
# `0001001.png`: four digits of the person (from 1), three of the image: 1 and 2 by camera 1, 3 and 4 by 2.
_CUHK01_FORM = "CUHK01's images are named by 4 digits of the person and 001 to 004, as in 0001001.png"
_CUHK01_NAME = re.compile(r"(?!0000)(\d{4})00([1-4])\.[A-Za-z]+")

GRID_FOLDERS = ("gallery", "probe")
# The official partitions; that JLML used them is recalled.
GRID_PARTITIONS, GRID_TRAINING_PERSONS = 10, 125
# Distractors from the probe's own camera are kept: every probe is compared with the same 900 gallery images.
GRID_PROTOCOLS = {"single-shot": Protocol("single", across_cameras=False)}
_GRID_FORM = (
    "GRID's images are named by 4 digits of the person and the camera 1 to 8, as in 0001_1_25004_107.jpeg"
)
_GRID_NAME = re.compile(r"(\d{4})_([1-8])_.*")


def viper(root: Path, *, test_persons: int = 316, partitions: str = "", validation: bool = False) -> Reading:
    """Read VIPeR (Gray, Brennan, Tao 2007); protocol "single-shot".

    Queries are the test persons' images in ``cam_a`` (camera 1), gallery those in ``cam_b`` (camera 2).
    There is no official partition: in each of ten trials, ``test_persons`` of the persons in the folder are
    drawn, the same on every machine. All other persons are for training.
    A person's id is the number in the name plus one; the numbers start from 0 and have gaps.

    Args:
        root: Folder with ``cam_a`` and ``cam_b``.
        test_persons: Number of test persons in each trial: recalled of JLML, 316 of 632.
        partitions: File of other partitions, relative to ``root``; see ``reidlib.data.readers.partitions``.
        validation: Whether to divide a trial's training persons into training and validation, as
            ``reidlib.data.readers.persons`` says, and to read no test person.

    Returns:
        The reading. Its problems name folders one level too high or too low, names of another form, persons
        that only one camera shows, and partitions that do not fit.

    Raises:
        InputError: If the folder does not exist.
    """
    reading = read_views(root, tuple(VIPER_CAMERAS), "VIPeR", _VIPER_FORM, _read_viper)
    if len(reading.splits) == 2:
        reading.problems += unpaired_errors(reading.splits.values(), "cam_a and in cam_b")
    return _partitioned(reading, viper, root, VIPER_PROTOCOLS, test_persons, partitions, validation)


def cuhk01(root: Path, *, test_persons: int = 486, partitions: str = "", validation: bool = False) -> Reading:
    """Read CUHK01 (Li, Zhao, Wang 2012); protocols "single-shot" and "multi-shot".

    Queries are the test persons' images of camera 1, gallery those of camera 2. Single-shot takes a random
    camera-2 image of each person, in ten draws. Multi-shot has one entry for each person and camera, with the
    mean distance over pairs of images.

    There is no official partition: in each of ten trials, ``test_persons`` of the persons in the folder are
    drawn, the same on every machine. All other persons are for training.

    Args:
        root: Folder with ``campus``.
        test_persons: Number of test persons in each trial; 486 or 100 of 971 on slides on JLML.
        partitions: File of other partitions, relative to ``root``; see ``reidlib.data.readers.partitions``.
        validation: Whether to divide a trial's training persons into training and validation, as
            ``reidlib.data.readers.persons`` says, and to read no test person.

    Returns:
        The reading. Its problems name folders one level too high or too low, names of another form, persons
        that only one camera shows, and partitions that do not fit.

    Raises:
        InputError: If the folder does not exist.
    """
    reading = read_views(root, (CUHK01_FOLDER,), "CUHK01", _CUHK01_FORM, _read_cuhk01)
    if (images := reading.splits.get(CUHK01_FOLDER)) is not None:
        by_camera = [images.select(images.camera_ids == camera) for camera in (1, 2)]
        reading.problems += unpaired_errors(by_camera, "both cameras (001 or 002, and 003 or 004)")
    elif not (root.parent / CUHK01_FOLDER).is_dir() and (
        names := [name for name in list_images(root) if _read_cuhk01("", name)]
    ):
        value = f"{count_noun(len(names), 'images')} in {root}"
        mend = f"move them into a new folder {root / CUHK01_FOLDER}"
        reading.problems = [InputError(f"CUHK01's images are in a folder {CUHK01_FOLDER}", value, mend)]
    return _partitioned(reading, cuhk01, root, CUHK01_PROTOCOLS, test_persons, partitions, validation)


def grid(root: Path) -> Reading:
    """Read QMUL GRID (Loy, Xiang, Gong 2009); protocol "single-shot".

    ``features_and_partitions.mat`` has ten partitions (trials) with 125 training persons each, whose images
    in both folders are the training split. Queries are the other persons' probes. The gallery has their
    gallery images and, in every trial, all distractors (``0000``).

    Args:
        root: Folder with ``probe``, ``gallery`` and ``features_and_partitions.mat``.

    Returns:
        The reading. Its problems name folders one level too high or too low, names of another form, persons
        that only one folder shows, and a .mat that is missing,
        unreadable or of version 7.3, or lists persons without images.

    Raises:
        InputError: If the folder does not exist.
    """
    reading = read_views(root, GRID_FOLDERS, "GRID", _GRID_FORM, _read_grid)
    if len(reading.splits) == 2:
        reading.problems += unpaired_errors(reading.splits.values(), "probe and in gallery")
    training = reading.attempt(training_persons, root / GRID_FILE) or ()
    if not reading.problems:
        reading.num_trials = len(training)
        images = concatenate(list(reading.splits.values()))
        in_query_n = np.arange(len(images)) >= len(reading.splits["gallery"])

        def in_test(trial: int) -> np.ndarray:
            return ~np.isin(images.person_ids, training[trial])

        set_trials(reading, root, images, in_query_n, in_test, GRID_PROTOCOLS)
        if absent := np.setdiff1d(np.concatenate(training), images.person_ids).tolist():
            reading.problems.append(
                InputError(
                    "the persons of the partitions have images in probe and gallery",
                    f"{count_noun(len(absent), 'persons')} without images: {shorten(absent, 20)}",
                    "unpack the archive completely",
                )
            )

    def examine() -> Iterator[InputError | str]:
        yield from trial_problems(reading)
        sizes = [len(persons) for persons in training]
        if training and sizes != [GRID_TRAINING_PERSONS] * GRID_PARTITIONS:
            yield (
                f"{GRID_FILE} contains {count_noun(len(sizes), 'partitions')} "
                f"of {shorten(sorted(set(sizes)))} training persons; "
                f"{GRID_PARTITIONS} of {GRID_TRAINING_PERSONS} are expected"
            )
        if len(reading.splits) == 2:
            gallery, probes = reading.splits.values()
            if unmatched := queries_without_match(probes, gallery):
                named = shorten([path.name for path in unmatched])
                reading.remarks.append(f"{len(unmatched)} of {len(probes)} probes have no match: {named}")

    reading.examine = examine
    return reading


def read_views(root: Path, folders: Sequence[str], layout: str, form: str, read: ReadName) -> Reading:
    """Read the folders of the benchmark ``layout``, whose image names have the form described by ``form``."""

    def make_name_error(unparsed: Sequence[Path]) -> InputError:
        return InputError(
            form,
            f"{count_noun(len(unparsed), 'other names')}: {shorten(unparsed, 20)}",
            "rename the files or move them out of the folder",
        )

    reading = read_folders(root, folders, layout, read, make_name_error)
    reading.title = layout.lower()
    reading.expected_counts = official_counts(reading.title)
    return reading


def unpaired_errors(splits: Iterable[Split], views: str) -> Iterator[InputError]:
    """Yield an error if some persons are in only one of the two views."""
    first, second = splits
    images = concatenate([first, second])
    in_one_view_n = np.isin(images.person_ids, np.setxor1d(first.person_ids, second.person_ids))
    if paths := images.select(in_one_view_n & (images.person_ids != DISTRACTOR)).paths:
        yield InputError(
            f"every person has an image in {views}",
            f"{count_noun(len(paths), 'images')} of persons who are in only one of them: {shorten(paths)}",
            "unpack the archive completely, or remove these images",
        )


def set_trials(
    reading: Reading,
    root: Path,
    images: Split,
    in_query_n: np.ndarray,
    in_test: Callable[[int], np.ndarray],
    protocols: Mapping[str, Protocol],
    **options: str | int | bool,
) -> None:
    """Let the reading divide these images into train, query and gallery in each trial."""
    # ``in_query_n``, boolean (N,): which images are from the query's view. ``in_test`` returns a boolean
    # (N,): which show a trial's test persons. All other images are for training.

    def make_benchmark(trial: int) -> Benchmark:
        in_test_n = in_test(trial)
        return Benchmark(
            reading.title,
            root,
            *(
                training_splits(images.select(~in_test_n), reading.use)
                if reading.use
                else map(images.select, (~in_test_n, in_test_n & in_query_n, in_test_n & ~in_query_n))
            ),
            num_trials=reading.num_trials,
            trial=trial,
            options=options,
            protocols=protocols,
        )

    reading.make_benchmark, reading.examine = make_benchmark, lambda: trial_problems(reading)


def trial_problems(reading: Reading) -> Iterator[InputError]:
    """Yield the errors of making each trial, if the folder itself has no problem."""
    for trial in range(0 if reading.problems else reading.num_trials):
        try:
            reading.benchmark(trial)
        except InputError as error:
            yield error


def _partitioned(
    reading: Reading,
    reader: Callable[..., Reading],
    root: Path,
    protocols: Mapping[str, Protocol],
    test_persons: int,
    partitions: str,
    validation: bool,
) -> Reading:
    """Set the trials of a benchmark without an official partition; ``reader`` is its reader."""
    if reading.problems:
        return reading
    images = concatenate(list(reading.splits.values()))
    persons_k = np.unique(images.person_ids)
    options = non_default_options(reader, test_persons=test_persons, partitions=partitions)
    test_sets = reading.attempt(choose_partitions, reading.title, root, len(persons_k), test_persons, options)
    if test_sets is None:
        return reading
    reading.num_trials = len(test_sets.test)

    def in_test(trial: int) -> np.ndarray:
        return np.isin(images.person_ids, test_sets.person_ids(trial, persons_k))

    if validation:  # queries are from both cameras, and the papers' from the first; each is one shot
        reading.use = {"validation": True}
        single = {title: protocol for title, protocol in protocols.items() if protocol.shots == "single"}
        protocols = {title: replace(protocol, query_cameras=(1,)) for title, protocol in single.items()}
    set_trials(reading, root, images, images.camera_ids == 1, in_test, protocols, **options, **reading.use)

    def examine() -> Iterator[InputError]:
        yield from trial_problems(reading)
        if validation:
            first = reading.benchmark(0)
            splits = (first.train, first.query, first.gallery)
            reading.remarks.append(f"trial 0: {describe_splits('', splits, reading.use)}")

    reading.examine = examine
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
