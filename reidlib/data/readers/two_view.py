"""What the small sets share: a few folders of named images, and every person in two views."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol, check_trial
from reidlib.data.readers.layout import changed_options, empty_error, list_images, missing_folders
from reidlib.data.readers.partitions import choose_partitions
from reidlib.data.readers.survey import Counts, Survey
from reidlib.data.rules import DISTRACTOR
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten


class Naming(NamedTuple):
    """How a set's images are named: ``form`` in words, ``read`` from folder and name to person and camera.

    ``read`` answers None for a name that is not of this form.
    """

    form: str
    read: Callable[[str, str], tuple[int, int] | None]


class Found(NamedTuple):
    """Images of each folder that is there, sorted by name, and everything wrong with folders and names."""

    parts: dict[str, Split]
    problems: list[InputError]

    def images(self) -> Split:
        """All images, folder after folder. Raises the first problem where there is one."""
        if self.problems:
            raise self.problems[0]
        return Split(
            tuple(path for split in self.parts.values() for path in split.paths),
            np.concatenate([split.person_ids for split in self.parts.values()]),
            np.concatenate([split.camera_ids for split in self.parts.values()]),
        )


def find(root: Path, folders: Sequence[str], layout: str, naming: Naming) -> Found:
    """List a set's folders. Raises ``InputError`` only where there is no folder ``root`` at all."""
    missing = missing_folders(root, folders, layout)
    parts, problems, unparsed = {}, [missing] if missing else [], []
    for folder in folders:
        if not (root / folder).is_dir():
            continue
        rows = []
        for name in list_images(root / folder):
            if read := naming.read(folder, name):
                rows.append((root / folder / name, *read))
            else:
                unparsed.append(root / folder / name)
        paths, persons, cameras = zip(*rows, strict=True) if rows else ((), (), ())
        parts[folder] = Split(paths, np.array(persons, np.int64), np.array(cameras, np.int64))
    if unparsed:
        problems.append(
            InputError(
                naming.form,
                f"{counted(len(unparsed), 'other names')}: {shorten(unparsed, 20)}",
                "rename the files or move them out of the folder",
            )
        )
    problems += [
        empty_error(root / folder)
        for folder, split in parts.items()
        if not len(split) and not any(path.parent.name == folder for path in unparsed)
    ]
    return Found(parts, problems)


def unpaired_error(first: Split, second: Split, views: str) -> InputError | None:
    """The error for persons whom only one of two views shows; None where there are none."""
    shared = set(np.intersect1d(first.person_ids, second.person_ids).tolist())
    alone = [
        path
        for split in (first, second)
        for path, person in zip(split.paths, split.person_ids.tolist(), strict=True)
        if person != DISTRACTOR and person not in shared
    ]
    if not alone:
        return None
    return InputError(
        f"every person has an image in {views}",
        f"{counted(len(alone), 'images')} of persons whom only one of them shows: {shorten(alone)}",
        "unpack the archive completely, or take these images out",
    )


def divide(images: Split, in_query_n: np.ndarray, in_test_n: np.ndarray) -> tuple[Split, Split, Split]:
    """Train, query and gallery: images outside the test, and those of the test by view (boolean (N,))."""
    return (
        images.select(~in_test_n),
        images.select(in_test_n & in_query_n),
        images.select(in_test_n & ~in_query_n),
    )


def partitioned(
    reader: Callable[..., Benchmark],
    root: Path,
    images: Split,
    protocols: Mapping[str, Protocol],
    trial: int,
    test_persons: int,
    partitions: str,
) -> Benchmark:
    """One trial of a set without an official partition, as the ``reader`` that is named after it returns it.

    ``images`` are all of the set, ``trial``, ``test_persons`` and ``partitions`` the reader's keywords. Query
    are the test persons' images of camera 1, gallery those of camera 2; everybody else is for training.

    Raises ``InputError`` for partitions that do not fit and a trial that they do not have.
    """
    name, default = reader.__name__, inspect.signature(reader).parameters["test_persons"].default
    persons_k = np.unique(images.person_ids)
    chosen = choose_partitions(name, root, len(persons_k), test_persons, default, partitions)
    check_trial(name, trial, len(chosen.test))
    in_test_n = np.isin(images.person_ids, chosen.person_ids(trial, persons_k))
    return Benchmark(
        name,
        root,
        *divide(images, images.camera_ids == 1, in_test_n),
        num_trials=len(chosen.test),
        trial=trial,
        options=changed_options(reader, test_persons=test_persons, partitions=partitions),
        protocols=protocols,
    )


def survey_of(found: Found, counts: Counts, read: Callable[[int], Benchmark]) -> Survey:
    """What was found against the whole set's ``counts``, with every problem of folders, names and trials.

    ``read`` reads one trial.
    """
    survey = Survey(found.parts, counts)
    survey.add(*found.problems, *_problems_of_trials(read))
    return survey


def _problems_of_trials(read: Callable[[int], Benchmark]) -> list[InputError]:
    """What reading each trial in turn raises; only the first where that cannot be read."""
    try:
        num_trials = read(0).num_trials
    except InputError as error:
        return [error]
    found = []
    for trial in range(1, num_trials):
        try:
            read(trial)
        except InputError as error:
            found.append(error)
    return found
