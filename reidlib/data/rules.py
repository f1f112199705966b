"""The rules of a benchmark, the check for violations, and which gallery images a query matches or ignores."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun, shorten

JUNK = -1
DISTRACTOR = 0
NO_EMPTY_SPLIT = "no split of a benchmark is empty"


def is_ignored(query_persons, query_cameras, persons, cameras):
    """Tell which gallery images have no influence on a query's ranks.

    These are junk images, and images of the query's person from the query's own camera.

    Args:
        query_persons: Person ids of the queries; a number, numpy array or torch tensor, for example (Q, 1).
        query_cameras: Camera ids of the queries, of the same shape.
        persons: Person ids of the gallery images, for example (G,); broadcast against the queries'.
        cameras: Camera ids of the gallery images, of the same shape.

    Returns:
        A boolean of the same kind as the ids and of the broadcast shape, for example (Q, G).
    """
    return (persons == JUNK) | ((persons == query_persons) & (cameras == query_cameras))


def is_match(query_persons, query_cameras, persons, cameras):
    """Tell which gallery images match a query: the query's person from another camera.

    Args:
        query_persons: Person ids of the queries, which are positive; a number, numpy array or torch tensor,
            for example (Q, 1).
        query_cameras: Camera ids of the queries, of the same shape.
        persons: Person ids of the gallery images, for example (G,); broadcast against the queries'.
        cameras: Camera ids of the gallery images, of the same shape.

    Returns:
        A boolean of the same kind as the ids and of the broadcast shape, for example (Q, G).
    """
    return (persons == query_persons) & (cameras != query_cameras)


def queries_with_match(query: Split, gallery: Split) -> np.ndarray:
    """Return a boolean (Q,): which queries have a match in the gallery (``is_match``)."""
    sightings = set(_sightings(gallery))
    num_cameras = Counter(person for person, _ in sightings)
    # A match exists if more cameras show the person than the query's own. No pair of images is compared.
    has_match = [num_cameras[pair[0]] > (pair in sightings) for pair in _sightings(query)]
    return np.array(has_match, dtype=bool)


def queries_without_match(query: Split, gallery: Split) -> list[Path]:
    """Return the image files of the queries that have no match in the gallery."""
    return list(query.select(~queries_with_match(query, gallery)).paths)


def in_query_sightings(split: Split, query: Split) -> np.ndarray:
    """Return a boolean (N,): which images show a query's person in that query's camera."""
    sightings = set(_sightings(query))
    return np.array([pair in sightings for pair in _sightings(split)], dtype=bool)


def _sightings(split: Split) -> Iterator[tuple[int, int]]:
    """Iterate over the pairs of person and camera of all images."""
    return zip(split.person_ids.tolist(), split.camera_ids.tolist(), strict=True)


def rule_violations(
    train: Split, query: Split, gallery: Split, boxes: Split | None = None, *, training_only: bool = False
) -> Iterator[InputError]:
    """Yield an error, not raised, for each rule of a benchmark that these splits violate."""
    # The rules: no split is empty, except query and gallery with ``training_only``; files exist and none is
    # listed twice in a split; persons of training and query have positive ids; no person is in both training
    # and test; the test has at least two cameras; at least one query has a match from another camera. Boxes,
    # if any, show queries' persons in the queries' cameras and leave no query without a box; they may be
    # images of query and gallery.
    splits = {"train": train, "query": query, "gallery": gallery}
    for title, split in splits.items():
        if not len(split) and (title == "train" or not training_only):
            yield InputError(NO_EMPTY_SPLIT, f"an empty {title} split", "check its folder or list")
    for title, split in (splits if boxes is None else {**splits, "boxes": boxes}).items():
        if missing := _missing_files(split.paths):
            yield InputError(
                "every listed image exists",
                f"{len(missing)} missing in {title}: {shorten(missing)}",
                "put the files back or remove them from the list",
            )
        if duplicates := sorted(path for path, number in Counter(split.paths).items() if number > 1):
            yield InputError(
                "no image is in a split twice",
                f"{len(duplicates)} listed twice in {title}: {shorten(duplicates)}",
                "remove the second entry",
            )
    for title, lowest, mend in (
        ("train", 1, "keep junk (-1) and distractors (0) out of training"),
        ("query", 1, "every query shows a known person: move junk (-1) and distractors (0) to the gallery"),
        ("gallery", JUNK, "use -1 for junk, 0 for distractors and positive ids for persons"),
    ):
        ids = splits[title].person_ids
        if (ids < lowest).any():
            invalid = shorten(np.unique(ids[ids < lowest]).tolist())
            yield InputError(f"person ids of the {title} split are at least {lowest}", invalid, mend)
    test_paths = {*query.paths, *gallery.paths, *(boxes.paths if boxes else ())}
    if shared := list(shared_person_errors(train, query, gallery)):
        yield from shared
    elif shared_paths := test_paths & set(train.paths):
        yield InputError(
            "no image is in both training and test",
            f"{len(shared_paths)} in both: {shorten(sorted(shared_paths))}",
            "list each image in only one of them",
        )
    yield from () if boxes is None else _box_violations(query, boxes)
    cameras = np.union1d(query.camera_ids, gallery.camera_ids)
    if len(cameras) == 1:
        yield InputError(
            "query and gallery show at least two cameras",
            f"only camera {cameras[0]}",
            "add another camera, or give the images their true camera ids: images of the query's person from"
            " the query's camera are ignored, so with one camera no query has a match",
        )
    elif len(query) and len(gallery) and not queries_with_match(query, gallery).any():
        yield InputError(
            "at least one query has a match: its person in the gallery from another camera",
            f"{count_noun(len(query), 'queries')}, none with a match",
            "check that query and gallery belong together and that the camera ids are correct",
        )


def _box_violations(query: Split, boxes: Split) -> Iterator[InputError]:
    if unrelated := boxes.select(~in_query_sightings(boxes, query)).paths:
        yield InputError(
            "a box for multi-query shows a query's person in that query's camera",
            f"{count_noun(len(unrelated), 'other boxes')}: {shorten(unrelated)}",
            "remove them from the list",
        )
    if without_box := query.select(~in_query_sightings(query, boxes)).paths:
        yield InputError(
            "if a benchmark has boxes for multi-query, each query has a box of its person in its camera",
            f"{count_noun(len(without_box), 'queries')} without a box: {shorten(without_box)}",
            "add the missing boxes (a query's own image is one of its boxes), or remove all boxes",
        )


def shared_person_errors(
    train: Split, query: Split, gallery: Split, names: Mapping[int, str] | None = None
) -> Iterator[InputError]:
    """Yield an error if persons are in both training and test; ``names`` maps their ids to names."""
    test_ids = np.union1d(query.person_ids, gallery.person_ids)
    if shared := np.intersect1d(train.person_ids, test_ids[test_ids > 0]).tolist():
        yield InputError(
            "no person is in both training and test",
            f"{len(shared)} in both: {shorten([names[number] for number in shared] if names else shared)}",
            "move each person to one of them: scores on persons seen in training are meaningless",
        )


def _missing_files(paths: tuple[Path, ...]) -> list[Path]:
    # One listing for each folder instead of one query for each file: on a network drive that takes seconds
    # instead of minutes.
    names_by_folder = {}
    for folder in {path.parent for path in paths}:
        names_by_folder[folder] = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208
    return [path for path in paths if path.name not in names_by_folder[path.parent]]
