"""What a benchmark is: three lists of images with persons and cameras, and the rules that they must keep."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidlib.errors import InputError

JUNK = -1
DISTRACTOR = 0


@dataclass(frozen=True, eq=False)
class Split:
    """Images of persons: equally long paths, person ids and camera ids.

    ``paths`` becomes a tuple of ``Path``; ``person_ids`` and ``camera_ids`` become read-only int64 arrays
    (N,), copies of what was given. Person id -1 is junk, 0 a distractor. A split may be empty; a
    benchmark's may not.

    Raises ``InputError`` for unequal lengths or ids that are not whole numbers.
    """

    paths: tuple[Path, ...]
    person_ids: np.ndarray
    camera_ids: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "paths", tuple(map(Path, self.paths)))
        for field in ("person_ids", "camera_ids"):
            object.__setattr__(self, field, _read_only_ids(field, getattr(self, field)))
        lengths = (len(self.paths), len(self.person_ids), len(self.camera_ids))
        if len(set(lengths)) > 1:
            raise InputError(
                "a split has as many paths as person ids and camera ids",
                "{} paths, {} person ids, {} camera ids".format(*lengths),
                "give one person and one camera for every image",
            )

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, chosen: np.ndarray) -> Split:
        """The split's rows that ``chosen`` names: a boolean mask (N,) or indices in the wanted order."""
        indices = np.arange(len(self))[chosen]
        return Split(
            tuple(self.paths[index] for index in indices), self.person_ids[indices], self.camera_ids[indices]
        )


class TrainingLabels(NamedTuple):
    """Class labels of training images.

    ``labels_n`` int64 (N,) in 0..K-1; ``identities_k`` int64 (K,), the person behind each label, ascending.
    """

    labels_n: np.ndarray
    identities_k: np.ndarray


def training_labels(person_ids: np.ndarray) -> TrainingLabels:
    """Label every image with its person's place among the sorted person ids.

    Sorted, so that the same folder gives the same classifier rows in every process: enumerating a set
    (as torchreid does) does not.
    """
    identities_k, labels_n = np.unique(person_ids, return_inverse=True)
    return TrainingLabels(labels_n.astype(np.int64), identities_k)


@dataclass(frozen=True, eq=False)
class Benchmark:
    """Training, query and gallery images of one trial of one benchmark.

    ``num_trials`` is how many random or official partitions the protocol has, ``trial`` which one this is.
    ``boxes``: for the multi-query protocol, images of the queries' persons in the queries' cameras, over
    which a query's feature is pooled; None where the benchmark has none. They may be images of query and
    gallery, and no part of the fingerprint: they change no training and no single-query score.
    The splits keep the rules of ``rule_violations``; ``InputError`` names the first that is broken.
    Queries without a match are counted (``num_queries_without_match``), not refused, unless none has one.
    """

    name: str
    root: Path
    train: Split
    query: Split
    gallery: Split
    num_trials: int = 1
    trial: int = 0
    boxes: Split | None = None

    def __post_init__(self):
        object.__setattr__(self, "root", Path(self.root))
        if not 0 <= self.trial < self.num_trials:
            trials = "trial 0 only" if self.num_trials == 1 else f"trials 0 to {self.num_trials - 1}"
            raise InputError(f"{self.name} has {trials}", f"trial {self.trial}", "choose one of those")
        for violation in rule_violations(self.train, self.query, self.gallery, self.boxes):
            raise violation

    @cached_property
    def num_queries_without_match(self) -> int:
        """Queries whose person the gallery does not show from another camera."""
        return int(np.count_nonzero(~queries_with_match(self.query, self.gallery)))

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this data from any other.

        A hash of names relative to the root, ids, cameras and file sizes of the three splits, in their
        order: the same on every machine and wherever the folder lies.
        """
        digest = hashlib.sha256()
        prefix = str(self.root) + os.sep
        for title, split in (("train", self.train), ("query", self.query), ("gallery", self.gallery)):
            digest.update(f"{title} {len(split)}\n".encode())
            for path, person_id, camera_id in zip(
                split.paths, split.person_ids.tolist(), split.camera_ids.tolist(), strict=True
            ):
                text = str(path)
                # A path outside the root (a list of own images) counts by its name, never by its folder.
                name = text[len(prefix) :].replace(os.sep, "/") if text.startswith(prefix) else path.name
                size = os.stat(text).st_size  # noqa: PTH116 - half the time of Path.stat, tens of thousands
                digest.update(f"{name}|{person_id}|{camera_id}|{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def queries_with_match(query: Split, gallery: Split) -> np.ndarray:
    """Boolean (Q,): does the gallery show the query's person from another camera?"""
    persons_k, person_of_image = np.unique(gallery.person_ids, return_inverse=True)
    if not len(persons_k):
        return np.zeros(len(query), dtype=bool)
    # Another camera than the query's exists unless the person's smallest and largest camera are both its own.
    smallest_k = np.full(len(persons_k), np.iinfo(np.int64).max)
    largest_k = np.full(len(persons_k), np.iinfo(np.int64).min)
    np.minimum.at(smallest_k, person_of_image, gallery.camera_ids)
    np.maximum.at(largest_k, person_of_image, gallery.camera_ids)
    place_q = np.searchsorted(persons_k, query.person_ids).clip(max=len(persons_k) - 1)
    known_q = persons_k[place_q] == query.person_ids
    own_camera_only_q = (smallest_k[place_q] == query.camera_ids) & (largest_k[place_q] == query.camera_ids)
    return known_q & ~own_camera_only_q


def in_sightings(split: Split, query: Split) -> np.ndarray:
    """Boolean (N,): which images of a split show a query's person in that query's camera?"""
    sightings = set(zip(query.person_ids.tolist(), query.camera_ids.tolist(), strict=True))
    pairs = zip(split.person_ids.tolist(), split.camera_ids.tolist(), strict=True)
    return np.array([pair in sightings for pair in pairs], dtype=bool)


def rule_violations(
    train: Split, query: Split, gallery: Split, boxes: Split | None = None
) -> list[InputError]:
    """Every rule of a benchmark that these splits break, as errors that have not been raised.

    The rules: no empty split; files exist and none is listed twice; persons of training and query have
    positive ids; nobody is in both training and test; the test shows at least two cameras; at least one
    query has a match from another camera. Where there are boxes, they show queries' persons in the queries'
    cameras and leave no query without one; they may be images of query and gallery.
    """
    splits = {"train": train, "query": query, "gallery": gallery}
    found = [
        InputError("a benchmark's split holds images", f"an empty {title} split", "check its folder or list")
        for title, split in splits.items()
        if not len(split)
    ]
    for title, split in (splits if boxes is None else {**splits, "boxes": boxes}).items():
        if missing := _missing_files(split.paths):
            found.append(
                InputError(
                    "every listed image exists",
                    f"{len(missing)} missing in {title}: {shorten(missing)}",
                    "put the files back or take them off the list",
                )
            )
        if len(set(split.paths)) < len(split):
            seen: set[Path] = set()
            twice = sorted({path for path in split.paths if path in seen or seen.add(path)})
            found.append(
                InputError(
                    "an image stands in a split once",
                    f"{len(twice)} listed twice in {title}: {shorten(twice)}",
                    "remove the second entry",
                )
            )
    for title, lowest, mend in (
        ("train", 1, "keep junk (-1) and distractors (0) out of training"),
        ("query", 1, "a query is a known person: keep junk (-1) and distractors (0) in the gallery"),
        ("gallery", JUNK, "use -1 for junk, 0 for distractors and positive ids for persons"),
    ):
        ids = splits[title].person_ids
        if (ids < lowest).any():
            wrong = shorten(np.unique(ids[ids < lowest]).tolist())
            found.append(InputError(f"person ids of the {title} split are at least {lowest}", wrong, mend))
    found += _overlap(train, query, gallery, () if boxes is None else boxes.paths)
    found += [] if boxes is None else _wrong_boxes(query, boxes)
    cameras = np.union1d(query.camera_ids, gallery.camera_ids)
    if len(cameras) == 1:
        found.append(
            InputError(
                "query and gallery show at least two cameras",
                f"only camera {cameras[0]}",
                "with one camera no query can have a match, since images of the query's own person from its"
                " own camera are ignored: add another camera, or give the images their true camera ids",
            )
        )
    elif len(query) and len(gallery) and not queries_with_match(query, gallery).any():
        found.append(
            InputError(
                "at least one query has a match: its person in the gallery from another camera",
                f"{len(query)} queries, none with a match",
                "check that query and gallery belong together and that camera ids are right",
            )
        )
    return found


def _wrong_boxes(query: Split, boxes: Split) -> list[InputError]:
    found = []
    strange = ~in_sightings(boxes, query)
    if strange.any():
        found.append(
            InputError(
                "a box for multi-query shows a query's person in that query's camera",
                f"{np.count_nonzero(strange)} others: {_paths(boxes, strange)}",
                "take them off the list",
            )
        )
    without = ~in_sightings(query, boxes)
    if without.any():
        found.append(
            InputError(
                "with boxes for multi-query, every query has one of its person in its camera",
                f"{np.count_nonzero(without)} queries without: {_paths(query, without)}",
                "complete the boxes (each query's own image is one of them), or do without any",
            )
        )
    return found


def _paths(split: Split, chosen: np.ndarray) -> str:
    return shorten([split.paths[index] for index in np.flatnonzero(chosen)])


def shorten(values: Iterable[object], limit: int = 5) -> str:
    """The first few values, separated by commas, and how many more there are."""
    values = list(values)
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(str(value) for value in values[:limit]) + more


def _overlap(train: Split, query: Split, gallery: Split, box_paths: tuple[Path, ...]) -> list[InputError]:
    test_ids = np.union1d(query.person_ids, gallery.person_ids)
    shared_ids = np.intersect1d(train.person_ids, test_ids[test_ids > 0])
    if len(shared_ids):
        return [
            InputError(
                "no person is in both training and test",
                f"{len(shared_ids)} in both: {shorten(shared_ids.tolist())}",
                "scores on persons seen in training mean nothing: move each person to one side",
            )
        ]
    if shared_paths := set(train.paths) & {*query.paths, *gallery.paths, *box_paths}:
        return [
            InputError(
                "no image is in both training and test",
                f"{len(shared_paths)} in both: {shorten(sorted(shared_paths))}",
                "list each image on one side only",
            )
        ]
    return []


def _missing_files(paths: tuple[Path, ...]) -> list[Path]:
    # One listing a folder instead of one question a file: on a network drive that is seconds against minutes.
    names_of = {}
    for folder in {path.parent for path in paths}:
        names_of[folder] = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    return [path for path in paths if path.name not in names_of[path.parent]]


def _read_only_ids(field: str, values: object) -> np.ndarray:
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise InputError(
            f"{field} is a one-dimensional array of whole numbers",
            f"shape {ids.shape} of {ids.dtype}",
            "pass integers, one an image",
        )
    ids = ids.astype(np.int64)  # a copy, so that freezing it leaves the caller's array writable
    ids.flags.writeable = False
    return ids
