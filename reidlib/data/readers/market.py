"""Benchmarks in Market-1501's layout: its folders, and names that begin with person and camera."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers.layout import (
    empty_error,
    folder_names,
    list_images,
    missing_folders,
    require_folder,
)
from reidlib.data.readers.survey import Counts, Survey
from reidlib.data.rules import DISTRACTOR, NO_EMPTY_SPLIT, in_sightings, queries_with_match, rule_violations
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten

MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
BOXES_FOLDER = "gt_bbox"
# Where the archive of further distractors is put or unpacks to.
DISTRACTOR_FOLDERS = ("distractors_500k/images", "distractors_500k", "images")
# `0002_c1s1_000451_03.jpg`: person before the first underscore (-1 junk, 0000 distractor), camera after c.
_NAME = re.compile(r"(-1|\d{1,18})_c(\d{1,18})(?!\d)")

# The official package (Zheng et al. 2015), counted; its web page says 2,793 distractors.
MARKET_COUNTS: Counts = {
    "bounding_box_train": {"images": 12_936, "identities": 751, "cameras": 6},
    "query": {"images": 3_368, "identities": 750, "cameras": 6},
    "bounding_box_test": {
        "images": 19_732,
        "identities": 750,
        "cameras": 6,
        "junk": 3_819,
        "distractors": 2_798,
    },
}
# Of all hand-drawn boxes and of the further distractors, not counted in the files themselves: what is known
# of them is this much, so that other numbers are worth a remark and no problem.
BOXES_ABOUT, DISTRACTORS_ABOUT = 25_259, 500_000
# torchreid's counts; the 408 persons of the gallery whom no query asks for are known less surely.
DUKE_COUNTS: Counts = {
    "bounding_box_train": {"images": 16_522, "identities": 702, "cameras": 8},
    "query": {"images": 2_228, "identities": 702, "cameras": 8},
    "bounding_box_test": {"images": 17_661, "identities": 1_110, "cameras": 8},
}


def market1501(root: Path, *, trial: int = 0, distractors: bool = False) -> Benchmark:
    """Market-1501 (Zheng et al. 2015).

    ``root`` holds ``bounding_box_train``, ``query`` and ``bounding_box_test``. Images are ``.jpg``,
    ``.jpeg``, ``.png`` or ``.bmp``; other files (``Thumbs.db``, a readme) and hidden ones are ignored. Paths
    are sorted by name. Where the hand-drawn boxes of ``gt_bbox`` are there too, those of a query's person in
    that query's camera become ``boxes``, over which the multi-query protocol pools. ``distractors`` reads
    half a million further ones as well, from ``distractors_500k``, ``distractors_500k/images`` or
    ``images``.
    """
    train, query, gallery = read_market_layout(root)
    boxes = hand_drawn_boxes(root, query)
    more = further_distractors(root) if distractors else None
    return Benchmark("market1501", root, train, query, gallery, trial=trial, boxes=boxes, distractors=more)


def dukemtmc(root: Path, *, trial: int = 0) -> Benchmark:
    """DukeMTMC-reID (Zheng et al. 2017), in Market-1501's layout, without junk and without boxes.

    Names are ``0001_c2_f0046182.jpg``. The set was withdrawn by its authors: see the README's section on
    responsible use.
    """
    return Benchmark("dukemtmc", root, *read_market_layout(root, "DukeMTMC-reID"), trial=trial)


def hand_drawn_boxes(root: Path, query: Split) -> Split | None:
    """The boxes of ``gt_bbox`` whose person and camera a query has, sorted by name; None without the folder.

    The folder holds training persons too, whom no query asks for. Raises ``InputError`` for a name that
    does not parse.
    """
    if not (root / BOXES_FOLDER).is_dir():
        return None
    index = index_folder(root / BOXES_FOLDER)
    if index.unparsed:
        raise name_error(index.unparsed)
    return index.split.select(in_sightings(index.split, query))


def further_distractors(root: Path) -> Split:
    """The distractors beside Market-1501's own, whatever their names: person 0, camera of the name or 0.

    Raises ``InputError`` where there is no such folder or no image in it.
    """
    for name in DISTRACTOR_FOLDERS:
        # An empty outer folder is passed by, so that the nested one of the archive is found.
        if (root / name).is_dir() and (names := list_images(root / name)):
            cameras = [int(match[2]) if (match := _NAME.match(one)) else 0 for one in names]
            folder = root / name
            return Split(
                tuple(folder / one for one in names),
                np.full(len(names), DISTRACTOR, dtype=np.int64),
                np.array(cameras, dtype=np.int64),
            )
    raise InputError(
        f"further distractors lie in one of {', '.join(DISTRACTOR_FOLDERS)}",
        f"no images there in {root}, which holds {shorten(sorted(folder_names(root)), 10)}",
        "unpack distractors_500k.zip beside the other folders, or do without",
    )


class FolderIndex(NamedTuple):
    """Images of one folder, and the names among them that say no person and camera."""

    split: Split
    unparsed: tuple[Path, ...]


def index_folder(folder: Path) -> FolderIndex:
    """List a folder of images named as in Market-1501, sorted by name, with one directory scan."""
    names = list_images(folder)
    matches = [_NAME.match(name) for name in names]
    parsed = [(name, match) for name, match in zip(names, matches, strict=True) if match]
    split = Split(
        tuple(folder / name for name, _ in parsed),
        np.array([int(match[1]) for _, match in parsed], dtype=np.int64),
        np.array([int(match[2]) for _, match in parsed], dtype=np.int64),
    )
    return FolderIndex(split, tuple(folder / n for n, m in zip(names, matches, strict=True) if not m))


def name_error(unparsed: Iterable[Path]) -> InputError:
    """The error for image files whose names say no person and camera."""
    return InputError(
        "an image's name begins with PERSON_cCAMERA, as in 0002_c1s1_000451_03.jpg or -1_c1s1_000401_03.jpg",
        shorten(unparsed),
        "rename the file or move it out of the folder",
    )


def read_market_layout(root: Path, layout: str = "Market-1501") -> tuple[Split, Split, Split]:
    """Train, query and gallery of a folder in Market-1501's layout.

    Raises ``InputError`` for folders that are missing or empty and for names that do not parse.
    """
    if error := missing_folders(root, MARKET_FOLDERS, layout):
        raise error
    indexes = [index_folder(root / folder) for folder in MARKET_FOLDERS]
    if unparsed := [path for index in indexes for path in index.unparsed]:
        raise name_error(unparsed)
    for folder, index in zip(MARKET_FOLDERS, indexes, strict=True):
        if not len(index.split):
            raise empty_error(root / folder)
    train, query, gallery = (index.split for index in indexes)
    return train, query, gallery


def survey_market_layout(root: Path, layout: str = "Market-1501") -> Survey:
    """What is in a folder of this layout, by folder; without expected counts.

    Raises ``InputError`` where there is no such folder at all.
    """
    require_folder(root)
    found = Survey()
    if error := missing_folders(root, MARKET_FOLDERS, layout):
        found.add(error)
    indexes = {f: index_folder(root / f) for f in MARKET_FOLDERS if (root / f).is_dir()}
    found.parts = {folder: index.split for folder, index in indexes.items()}
    if unparsed := [path for index in indexes.values() for path in index.unparsed]:
        found.problems.append(str(name_error(unparsed)))
    found.add(
        *(empty_error(root / f) for f, index in indexes.items() if not (len(index.split) or index.unparsed))
    )
    return found


def note_rules(found: Survey, boxes: Split | None = None) -> None:
    """Add to a survey of this layout every rule that its splits break, and queries without a match."""
    if not set(MARKET_FOLDERS) <= found.parts.keys():
        return
    train, query, gallery = (found.parts[folder] for folder in MARKET_FOLDERS)
    # An empty folder is named already, by the survey of the layout.
    broken = rule_violations(train, query, gallery, boxes)
    found.problems += [str(error) for error in broken if error.rule != NO_EMPTY_SPLIT]
    if unmatched := np.flatnonzero(~queries_with_match(query, gallery)).tolist():
        names = [query.paths[index].name for index in unmatched]
        found.remarks.append(f"{len(unmatched)} of {len(query)} queries have no match: {shorten(names)}")


def survey_market1501(root: Path, *, distractors: bool = False) -> Survey:
    """Market-1501's folders against the official package."""
    found = survey_market_layout(root)
    found.expected = MARKET_COUNTS
    if found.parts and (absent := _absent_identities(found.parts)):
        found.problems.append(f"identities 1 to 1501 of which nothing is there: {shorten(absent, 20)}")
    boxes = None
    if "query" in found.parts:
        try:
            boxes = hand_drawn_boxes(root, found.parts["query"])
        except InputError as error:
            found.problems.append(str(error))
    note_rules(found, boxes)
    if boxes is not None:
        found.parts[BOXES_FOLDER] = boxes
        everything = _about(len(list_images(root / BOXES_FOLDER)), "images", BOXES_ABOUT)
        found.remarks.append(
            f"{BOXES_FOLDER} holds {counted(len(boxes), 'boxes')} of the queries, for multi-query, among"
            f" {everything}"
        )
    if distractors:
        try:
            found.parts["distractors_500k"] = further_distractors(root)
            number = len(found.parts["distractors_500k"])
            found.remarks.append(_about(number, "further distractors", DISTRACTORS_ABOUT))
        except InputError as error:
            found.problems.append(str(error))
    return found


def survey_dukemtmc(root: Path) -> Survey:
    """DukeMTMC-reID's folders against its counts."""
    found = survey_market_layout(root, "DukeMTMC-reID")
    found.expected = DUKE_COUNTS
    note_rules(found)
    return found


def _about(number: int, what: str, belong: int) -> str:
    return counted(number, what) + ("" if number == belong else f"; about {belong:,} belong there")


def _absent_identities(parts: dict[str, Split]) -> list[int]:
    # 751 training and 750 test identities share the numbers 1 to 1501, each of which therefore occurs.
    present = np.unique(np.concatenate([split.person_ids for split in parts.values()]))
    return np.setdiff1d(np.arange(1, 1502), present).tolist()
