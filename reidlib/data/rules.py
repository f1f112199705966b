"""The rules that a benchmark keeps, and which of them some splits break."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten

JUNK = -1
DISTRACTOR = 0
NO_EMPTY_SPLIT = "a benchmark's split holds images"


def is_ignored(query_persons, query_cameras, persons, cameras):
    """Which images have no influence on a query's ranks: junk, and its own person from its own camera.

    Here and in ``is_match`` the ids are numbers, numpy arrays or torch tensors that broadcast against each
    other, and the answer is a boolean of that kind and their common shape.
    """
    return (persons == JUNK) | ((persons == query_persons) & (cameras == query_cameras))


def is_match(query_persons, query_cameras, persons, cameras):
    """Which images are right answers to a query (a known person): its person from another camera."""
    return (persons == query_persons) & (cameras != query_cameras)


def queries_with_match(query: Split, gallery: Split) -> np.ndarray:
    """Boolean (Q,): has the query a match in the gallery? As ``is_match``, without comparing all pairs."""
    sightings = set(_sightings(gallery))
    cameras_of = Counter(person for person, _ in sightings)
    # Another camera than the query's shows the person if there are more than its own.
    matched = [cameras_of[pair[0]] > (pair in sightings) for pair in _sightings(query)]
    return np.array(matched, dtype=bool)


def queries_without_match(query: Split, gallery: Split) -> list[Path]:
    """The images of the queries that have no match in the gallery."""
    return list(query.select(~queries_with_match(query, gallery)).paths)


def in_sightings(split: Split, query: Split) -> np.ndarray:
    """Boolean (N,): which images of a split show a query's person in that query's camera?"""
    sightings = set(_sightings(query))
    return np.array([pair in sightings for pair in _sightings(split)], dtype=bool)


def _sightings(split: Split) -> Iterator[tuple[int, int]]:
    """Person and camera of each image."""
    return zip(split.person_ids.tolist(), split.camera_ids.tolist(), strict=True)


def rule_violations(
    train: Split, query: Split, gallery: Split, boxes: Split | None = None
) -> Iterator[InputError]:
    """Every rule of a benchmark that these splits break, as errors that have not been raised.

    The rules: no empty split; files exist and none is listed twice; persons of training and query have
    positive ids; nobody is in both training and test; the test shows at least two cameras; at least one
    query has a match from another camera. Where there are boxes, they show queries' persons in the queries'
    cameras and leave no query without one; they may be images of query and gallery.
    """
    splits = {"train": train, "query": query, "gallery": gallery}
    for title, split in splits.items():
        if not len(split):
            yield InputError(NO_EMPTY_SPLIT, f"an empty {title} split", "check its folder or list")
    for title, split in (splits if boxes is None else {**splits, "boxes": boxes}).items():
        if missing := _missing_files(split.paths):
            yield InputError(
                "every listed image exists",
                f"{len(missing)} missing in {title}: {shorten(missing)}",
                "put the files back or take them off the list",
            )
        if twice := sorted(path for path, number in Counter(split.paths).items() if number > 1):
            yield InputError(
                "an image stands in a split once",
                f"{len(twice)} listed twice in {title}: {shorten(twice)}",
                "remove the second entry",
            )
    for title, lowest, mend in (
        ("train", 1, "keep junk (-1) and distractors (0) out of training"),
        ("query", 1, "a query is a known person: keep junk (-1) and distractors (0) in the gallery"),
        ("gallery", JUNK, "use -1 for junk, 0 for distractors and positive ids for persons"),
    ):
        ids = splits[title].person_ids
        if (ids < lowest).any():
            wrong = shorten(np.unique(ids[ids < lowest]).tolist())
            yield InputError(f"person ids of the {title} split are at least {lowest}", wrong, mend)
    test_paths = {*query.paths, *gallery.paths, *(boxes.paths if boxes else ())}
    if shared := list(shared_persons(train, query, gallery)):
        yield from shared
    elif shared_paths := test_paths & set(train.paths):
        yield InputError(
            "no image is in both training and test",
            f"{len(shared_paths)} in both: {shorten(sorted(shared_paths))}",
            "list each image on one side only",
        )
    yield from () if boxes is None else _wrong_boxes(query, boxes)
    cameras = np.union1d(query.camera_ids, gallery.camera_ids)
    if len(cameras) == 1:
        yield InputError(
            "query and gallery show at least two cameras",
            f"only camera {cameras[0]}",
            "with one camera no query can have a match, since images of the query's own person from its"
            " own camera are ignored: add another camera, or give the images their true camera ids",
        )
    elif len(query) and len(gallery) and not queries_with_match(query, gallery).any():
        yield InputError(
            "at least one query has a match: its person in the gallery from another camera",
            f"{counted(len(query), 'queries')}, none with a match",
            "check that query and gallery belong together and that camera ids are right",
        )


def _wrong_boxes(query: Split, boxes: Split) -> Iterator[InputError]:
    if strange := boxes.select(~in_sightings(boxes, query)).paths:
        yield InputError(
            "a box for multi-query shows a query's person in that query's camera",
            f"{counted(len(strange), 'other boxes')}: {shorten(strange)}",
            "take them off the list",
        )
    if without := query.select(~in_sightings(query, boxes)).paths:
        yield InputError(
            "with boxes for multi-query, every query has one of its person in its camera",
            f"{counted(len(without), 'queries')} without: {shorten(without)}",
            "complete the boxes (each query's own image is one of them), or do without any",
        )


def shared_persons(
    train: Split, query: Split, gallery: Split, names: Mapping[int, str] | None = None
) -> Iterator[InputError]:
    """The error for persons who are in both training and test, if any; by their names where given."""
    test_ids = np.union1d(query.person_ids, gallery.person_ids)
    if shared := np.intersect1d(train.person_ids, test_ids[test_ids > 0]).tolist():
        yield InputError(
            "no person is in both training and test",
            f"{len(shared)} in both: {shorten([names[number] for number in shared] if names else shared)}",
            "scores on persons seen in training mean nothing: move each person to one side",
        )


def _missing_files(paths: tuple[Path, ...]) -> list[Path]:
    # One listing a folder instead of one question a file: on a network drive that is seconds against minutes.
    names_of = {}
    for folder in {path.parent for path in paths}:
        names_of[folder] = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    return [path for path in paths if path.name not in names_of[path.parent]]
