"""Readers of benchmarks in Market-1501's layout, in which the synthetic benchmark is rendered, too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import layout
from reidlib.data.readers.layout import Counts, MisplacedFolder, Reading, official_counts, require_folder
from reidlib.data.readers.listing import LeftOut, folder_names, list_images
from reidlib.data.readers.persons import (
    TRAINING_ALONE,
    Splits,
    describe_splits,
    training_splits,
    training_use,
)
from reidlib.data.rules import (
    DISTRACTOR,
    NO_EMPTY_SPLIT,
    in_query_sightings,
    queries_without_match,
    rule_violations,
)
from reidlib.data.splits import Split, concatenate
from reidlib.errors import InputError, count_noun, shorten

MARKET_FOLDERS: tuple[str, ...] = ("bounding_box_train", "query", "bounding_box_test")
BOXES_FOLDER = "gt_bbox"
# Folders into which users unpack the archive of further distractors.
DISTRACTOR_FOLDERS = ("distractors_500k/images", "distractors_500k", "images")
RENDERING_FILE = "rendering.json"
_RENDER_AGAIN = "remove the folder and render it again: reidlib render SIZE FOLDER"
# `0002_c1s1_000451_03.jpg`: person before the first underscore (-1 junk, 0000 distractor), camera after c.
_NAME = re.compile(r"(-1|\d{1,18})_c(\d{1,18})(?!\d)")

# Numbers of hand-drawn boxes and of further distractors. They were not counted in the files themselves, so a
# different number is a remark and not a problem.
APPROXIMATE_BOXES, APPROXIMATE_DISTRACTORS = 25_259, 500_000


def market1501(
    root: Path, *, distractors: bool = False, validation: bool = False, training_only: bool = False
) -> Reading:
    """Read Market-1501 (Zheng et al. 2015).

    Images are .jpg, .jpeg, .png or .bmp, sorted by name. A check names other pictures; other files (a
    readme) are ignored. If ``gt_bbox`` with the hand-drawn boxes exists, those of a query's person in that
    query's camera become ``boxes``, over which the multi-query protocol pools.

    Args:
        root: Folder with ``bounding_box_train``, ``query`` and ``bounding_box_test``.
        distractors: Whether to read the 500,000 further distractors, too, from ``distractors_500k/images``,
            ``distractors_500k`` or ``images``.
        validation: Whether to divide the persons of ``bounding_box_train`` into training and validation, as
            ``reidlib.data.readers.persons`` says. Of query and test no folder is needed or read.
        training_only: Whether to read only ``bounding_box_train``, for pre-training.

    Returns:
        The reading.

    Raises:
        InputError: If the folder does not exist, or options contradict each other.
    """
    use = training_use(validation, training_only, distractors=distractors)
    reading = read_market_layout("market1501", root, "Market-1501", official_counts("market1501"), use)

    def make(trial: int) -> Benchmark:
        more = read_distractors(root) if distractors else None
        boxes = read_boxes(root, reading.splits.get("query"))
        splits = market_splits(reading)
        return Benchmark("market1501", root, *splits, trial=trial, boxes=boxes, distractors=more, options=use)

    def examine() -> Iterator[InputError | str]:
        # The 751 training and 750 test identities together have all numbers from 1 to 1501.
        present = [split.person_ids for split in reading.splits.values()]
        if len(present) == 3 and len(absent := np.setdiff1d(np.arange(1, 1502), np.concatenate(present))):
            yield f"identities from 1 to 1501 without any image: {shorten(absent.tolist(), 20)}"
        boxes = None
        try:
            boxes = read_boxes(root, reading.splits.get("query"), reading.left_out)
        except InputError as error:
            yield error
        yield from rule_problems(reading, boxes)
        if boxes is not None:
            reading.splits[BOXES_FOLDER] = boxes
            total = _about(len(list_images(root / BOXES_FOLDER)), "images", APPROXIMATE_BOXES)
            reading.remarks.append(
                f"{BOXES_FOLDER} contains {count_noun(len(boxes), 'boxes')} of the queries, for multi-query,"
                f" among {total}"
            )
        if distractors:
            more = reading.splits["distractors_500k"] = read_distractors(root, reading.left_out)
            reading.remarks.append(_about(len(more), "further distractors", APPROXIMATE_DISTRACTORS))

    reading.make_benchmark, reading.examine = make, examine
    return reading


def dukemtmc(root: Path, *, validation: bool = False, training_only: bool = False) -> Reading:
    """Read DukeMTMC-reID (Zheng et al. 2017), which has Market-1501's layout, without junk and boxes."""
    # Names are ``0001_c2_f0046182.jpg``. The authors withdrew the set: see the README about responsible use.
    use = training_use(validation, training_only)
    return read_market_layout("dukemtmc", root, "DukeMTMC-reID", official_counts("dukemtmc"), use)


def synthetic(root: Path) -> Reading:
    """Read the synthetic benchmark, as ``reidlib render SIZE FOLDER`` wrote it in Market-1501's layout."""
    # Its ``boxes`` are the query images, and the gallery images that show a query's person in that query's
    # camera. The protocol ignores the latter for that query, so pooling over them leaks no match. A folder is
    # refused if ``rendering.json`` is missing, or counts other images than the folder contains.
    require_folder(root)
    reading = Reading("synthetic")
    counts = reading.attempt(rendering_counts, root)
    if counts is None and not set(MARKET_FOLDERS) & folder_names(root):
        # Folders of this layout nearby are no rendering without that file.
        return reading
    counting_problems = reading.problems
    reading = read_market_layout("synthetic", root, "Market-1501", counts or {})
    reading.problems[:0] = counting_problems
    reading.mend = _RENDER_AGAIN

    def make(trial: int) -> Benchmark:
        splits = _, query, gallery = market_splits(reading)
        assert counts is not None  # otherwise the reading has a problem
        for folder, split in zip(MARKET_FOLDERS, splits, strict=True):
            check_rendered_count(root / folder, split, counts)
        boxes = concatenate([query, gallery.select(in_query_sightings(gallery, query))])
        return Benchmark("synthetic", root, *splits, trial=trial, boxes=boxes)

    reading.make_benchmark = make
    return reading


def read_market_layout(
    title: str,
    folder: Path,
    layout_name: str,
    expected: Counts,
    use: Mapping[str, bool] | None = None,
    training_folders: Sequence[str] = MARKET_FOLDERS[:1],
) -> Reading:
    """Read a folder in Market-1501's layout, with the expected counts of the benchmark ``title``."""
    # ``use``, of ``training_use``, says that only the training folders are read.
    folders = training_folders if use else MARKET_FOLDERS
    reading = layout.read_folders(folder, folders, layout_name, _read_name, _name_error)
    reading.title, reading.use = title, use or {}
    if reading.problems and not use and folder_names(folder) & {*folders} == {folders[0]}:
        first = reading.problems[0]
        mend = f"{first.mend}; or read {folders[0]} alone, {TRAINING_ALONE}"
        reading.problems[0] = InputError(first.rule, first.value, mend)
    reading.expected_counts = {name: counts for name, counts in expected.items() if name in folders}
    reading.make_benchmark = lambda trial: Benchmark(
        title, folder, *market_splits(reading), trial=trial, options=reading.use
    )
    reading.examine = lambda: rule_problems(reading)
    return reading


def market_splits(reading: Reading) -> Splits:
    """Return train, query and gallery of a reading of this layout that has no problem."""
    if reading.use:
        train = [split for name, split in reading.splits.items() if name.endswith(MARKET_FOLDERS[0])]
        return training_splits(concatenate(train), reading.use)
    train, query, gallery = (reading.splits[folder] for folder in MARKET_FOLDERS)
    return train, query, gallery


def rule_problems(reading: Reading, boxes: Split | None = None) -> list[InputError]:
    """List the rules that the splits of this layout violate, and remark on queries without a match."""
    if not (any(reading.splits.values()) if reading.use else {*MARKET_FOLDERS} <= reading.splits.keys()):
        return []
    _, query, gallery = splits = market_splits(reading)
    if reading.use:
        reading.remarks.append(describe_splits("", splits, reading.use))
    if unmatched := queries_without_match(query, gallery):
        named = shorten([path.name for path in unmatched])
        reading.remarks.append(f"{len(unmatched)} of {len(query)} queries have no match: {named}")
    # Reading the layout has reported an empty folder already.
    violations = rule_violations(*splits, boxes, training_only="training_only" in reading.use)
    return [error for error in violations if error.rule != NO_EMPTY_SPLIT]


def index_market_folder(folder: Path, left_out: LeftOut | None = None) -> tuple[Split, list[Path]]:
    """List a folder's images that are named as in Market-1501, and the paths of all others."""
    return layout.index_folder(folder, _read_name, left_out)


def _read_name(folder: str, name: str) -> tuple[int, int] | None:
    match = _NAME.match(name)
    return match and (int(match[1]), int(match[2]))


def _read_distractor(_: str, name: str) -> tuple[int, int]:
    match = _NAME.match(name)
    return DISTRACTOR, int(match[2]) if match else 0


def _name_error(unparsed: Iterable[Path]) -> InputError:
    return InputError(
        "an image's name starts with PERSON_cCAMERA, as in 0002_c1s1_000451_03.jpg or -1_c1s1_000401_03.jpg",
        shorten(unparsed),
        "rename the file or move it out of the folder",
    )


def read_boxes(root: Path, query: Split | None, left_out: LeftOut | None = None) -> Split | None:
    """Read the boxes of ``gt_bbox`` that share person and camera with a query; None if there are none."""
    # The folder also contains training persons, which no query shows.
    if query is None or not (root / BOXES_FOLDER).is_dir():
        return None
    boxes, unparsed = index_market_folder(root / BOXES_FOLDER, left_out)
    if unparsed:
        raise _name_error(unparsed)
    return boxes.select(in_query_sightings(boxes, query))


def read_distractors(root: Path, left_out: LeftOut | None = None) -> Split:
    """Read the distractors that extend Market-1501's own: person 0, and the camera in the name or 0."""
    for name in DISTRACTOR_FOLDERS:
        # An outer folder without images is skipped, so that the archive's nested folder is found.
        if (root / name).is_dir() and list_images(root / name):
            return layout.index_folder(root / name, _read_distractor, left_out)[0]
    raise InputError(
        f"further distractors are in one of {', '.join(DISTRACTOR_FOLDERS)}",
        f"no such images in {root}, which contains {shorten(sorted(folder_names(root)), 10)}",
        "unpack distractors_500k.zip beside the other folders, or leave the option out",
    )


def _about(number: int, noun: str, expected: int) -> str:
    return count_noun(number, noun) + ("" if number == expected else f"; about {expected:,} are expected")


def check_rendered_count(folder: Path, split: Split, counts: dict[str, dict[str, int]]) -> None:
    """Raise InputError unless a folder's split has as many images as its rendering counted."""
    if len(split) != counts[folder.name]["images"]:
        raise InputError(
            f"a rendered folder contains as many images as {RENDERING_FILE} counts",
            f"{count_noun(len(split), 'images')} instead of {counts[folder.name]['images']} in {folder}",
            _RENDER_AGAIN,
        )


def rendering_counts(root: Path) -> dict[str, dict[str, int]]:
    """Read the renderer's counts, by folder and quantity, from ``rendering.json``, which is written last."""
    require_folder(root)
    file = root / RENDERING_FILE
    try:
        counts = json.loads(file.read_text(encoding="utf-8"))["counts"]
        return {folder: {name: int(n) for name, n in counts[folder].items()} for folder in MARKET_FOLDERS}
    except FileNotFoundError:
        rule, value = f"a rendered folder contains {RENDERING_FILE}", f"no such file in {root}"
        if near := layout.misplaced_hint(root, lambda folder: (folder / RENDERING_FILE).is_file()):
            raise MisplacedFolder(rule, value, near) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        rule, value = (
            f"{RENDERING_FILE} has the counts of a rendering",
            f"{type(error).__name__} in {file}",
        )
    mend = "render the folder: reidlib render SIZE FOLDER; or read it as market1501 if its images are real"
    raise InputError(rule, value, mend) from None
