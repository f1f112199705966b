"""Benchmarks in Market-1501's layout: its folders, and names that begin with person and camera.

The embedded benchmark is rendered in it, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import layout
from reidlib.data.readers.layout import (
    Counts,
    Misplaced,
    Reading,
    folder_names,
    list_images,
    official_counts,
    require_folder,
)
from reidlib.data.rules import (
    DISTRACTOR,
    NO_EMPTY_SPLIT,
    in_sightings,
    queries_without_match,
    rule_violations,
)
from reidlib.data.splits import Split, concatenated
from reidlib.errors import InputError, counted, shorten

MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
BOXES_FOLDER = "gt_bbox"
# Where the archive of further distractors is put or unpacks to.
DISTRACTOR_FOLDERS = ("distractors_500k/images", "distractors_500k", "images")
RENDERING_FILE = "rendering.json"
_RENDER_AGAIN = "remove the folder and render it again: reidlib render SIZE FOLDER"
# `0002_c1s1_000451_03.jpg`: person before the first underscore (-1 junk, 0000 distractor), camera after c.
_NAME = re.compile(r"(-1|\d{1,18})_c(\d{1,18})(?!\d)")

# Of all hand-drawn boxes and of the further distractors, not counted in the files themselves: what is known
# of them is this much, so that other numbers are worth a remark and no problem.
BOXES_ABOUT, DISTRACTORS_ABOUT = 25_259, 500_000


def market1501(root: Path, *, distractors: bool = False) -> Reading:
    """Market-1501 (Zheng et al. 2015).

    ``root`` holds ``bounding_box_train``, ``query`` and ``bounding_box_test``. Images are ``.jpg``,
    ``.jpeg``, ``.png`` or ``.bmp``; other files (``Thumbs.db``, a readme) and hidden ones are ignored. Paths
    are sorted by name. Where the hand-drawn boxes of ``gt_bbox`` are there too, those of a query's person in
    that query's camera become ``boxes``, over which the multi-query protocol pools. ``distractors`` reads
    half a million further ones as well, from ``distractors_500k``, ``distractors_500k/images`` or
    ``images``.
    """
    reading = read_market_layout("market1501", root, "Market-1501", official_counts("market1501"))

    def make(trial: int) -> Benchmark:
        more = further_distractors(root) if distractors else None
        boxes = hand_drawn_boxes(root, reading.parts["query"])
        return Benchmark(
            "market1501", root, *market_splits(reading), trial=trial, boxes=boxes, distractors=more
        )

    def examine() -> Iterator[InputError | str]:
        # 751 training and 750 test identities share the numbers 1 to 1501, each of which therefore occurs.
        present = [split.person_ids for split in reading.parts.values()]
        if present and len(absent := np.setdiff1d(np.arange(1, 1502), np.concatenate(present))):
            yield f"identities 1 to 1501 of which nothing is there: {shorten(absent.tolist(), 20)}"
        drawn = None
        try:
            drawn = hand_drawn_boxes(root, reading.parts.get("query"))
        except InputError as error:
            yield error
        yield from broken_rules(reading, drawn)
        if drawn is not None:
            reading.parts[BOXES_FOLDER] = drawn
            everything = _about(len(list_images(root / BOXES_FOLDER)), "images", BOXES_ABOUT)
            reading.remarks.append(
                f"{BOXES_FOLDER} holds {counted(len(drawn), 'boxes')} of the queries, for multi-query, among"
                f" {everything}"
            )
        if distractors:
            more = reading.parts["distractors_500k"] = further_distractors(root)
            reading.remarks.append(_about(len(more), "further distractors", DISTRACTORS_ABOUT))

    reading.make, reading.examine = make, examine
    return reading


def dukemtmc(root: Path) -> Reading:
    """DukeMTMC-reID (Zheng et al. 2017), in Market-1501's layout, without junk and without boxes.

    Names are ``0001_c2_f0046182.jpg``. The set was withdrawn by its authors: see the README's section on
    responsible use.
    """
    return read_market_layout("dukemtmc", root, "DukeMTMC-reID", official_counts("dukemtmc"))


def synthetic(root: Path) -> Reading:
    """The embedded benchmark, as ``reidlib render SIZE FOLDER`` wrote it in Market-1501's layout.

    Its ``boxes`` are the query images and those gallery images that show a query's person in that query's
    camera. The protocol ignores the latter for that query, so that pooling over them leaks no match.
    Refused where ``rendering.json`` is absent or counts other images than are there.
    """
    require_folder(root)
    reading = Reading("synthetic")
    counts = reading.attempt(rendering_counts, root)
    if counts is None and not set(MARKET_FOLDERS) & folder_names(root):
        # The folders of the layout, which may lie near it, are no rendering without that file.
        return reading
    lacking = reading.problems
    reading = read_market_layout("synthetic", root, "Market-1501", counts or {})
    reading.problems[:0] = lacking
    reading.again = _RENDER_AGAIN

    def make(trial: int) -> Benchmark:
        splits = _, query, gallery = tuple(market_splits(reading))
        for folder, split in zip(MARKET_FOLDERS, splits, strict=True):
            check_rendered_count(root / folder, split, counts)
        boxes = concatenated([query, gallery.select(in_sightings(gallery, query))])
        return Benchmark("synthetic", root, *splits, trial=trial, boxes=boxes)

    reading.make = make
    return reading


def read_market_layout(title: str, folder: Path, layout_name: str, expected: Counts) -> Reading:
    """A folder in Market-1501's layout against official counts, for the benchmark ``title``.

    Raises ``InputError`` where there is no such folder.
    """
    reading = layout.read_folders(folder, MARKET_FOLDERS, layout_name, _read_name, _name_error)
    reading.title, reading.expected = title, expected
    reading.make = lambda trial: Benchmark(title, folder, *market_splits(reading), trial=trial)
    reading.examine = lambda: broken_rules(reading)
    return reading


def market_splits(reading: Reading) -> Iterator[Split]:
    """Train, query and gallery of a reading of this layout without a problem."""
    return (reading.parts[folder] for folder in MARKET_FOLDERS)


def broken_rules(reading: Reading, boxes: Split | None = None) -> list[InputError]:
    """Every rule that the splits of this layout break; queries without a match become a remark."""
    if not set(MARKET_FOLDERS) <= reading.parts.keys():
        return []
    train, query, gallery = market_splits(reading)
    if unmatched := queries_without_match(query, gallery):
        named = shorten([path.name for path in unmatched])
        reading.remarks.append(f"{len(unmatched)} of {len(query)} queries have no match: {named}")
    # An empty folder is named already, by the reading of the layout.
    broken = rule_violations(train, query, gallery, boxes)
    return [error for error in broken if error.rule != NO_EMPTY_SPLIT]


def index_market_folder(folder: Path) -> tuple[Split, list[Path]]:
    """A folder's images named as in Market-1501, sorted by name, and the paths that are named otherwise."""
    return layout.index_folder(folder, _read_name)


def _read_name(folder: str, name: str) -> tuple[int, int] | None:
    match = _NAME.match(name)
    return match and (int(match[1]), int(match[2]))


def _read_distractor(_: str, name: str) -> tuple[int, int]:
    match = _NAME.match(name)
    return DISTRACTOR, int(match[2]) if match else 0


def _name_error(unparsed: Iterable[Path]) -> InputError:
    return InputError(
        "an image's name begins with PERSON_cCAMERA, as in 0002_c1s1_000451_03.jpg or -1_c1s1_000401_03.jpg",
        shorten(unparsed),
        "rename the file or move it out of the folder",
    )


def hand_drawn_boxes(root: Path, query: Split | None) -> Split | None:
    """The boxes of ``gt_bbox`` whose person and camera a query has, sorted by name; None without the two.

    The folder holds training persons too, whom no query asks for. Raises ``InputError`` for a name that
    does not parse.
    """
    if query is None or not (root / BOXES_FOLDER).is_dir():
        return None
    boxes, unparsed = index_market_folder(root / BOXES_FOLDER)
    if unparsed:
        raise _name_error(unparsed)
    return boxes.select(in_sightings(boxes, query))


def further_distractors(root: Path) -> Split:
    """The distractors beside Market-1501's own, whatever their names: person 0, camera of the name or 0.

    Raises ``InputError`` where there is no such folder or no image in it.
    """
    for name in DISTRACTOR_FOLDERS:
        # An empty outer folder is passed by, so that the nested one of the archive is found.
        if (root / name).is_dir() and list_images(root / name):
            return layout.index_folder(root / name, _read_distractor)[0]
    raise InputError(
        f"further distractors lie in one of {', '.join(DISTRACTOR_FOLDERS)}",
        f"no images there in {root}, which holds {shorten(sorted(folder_names(root)), 10)}",
        "unpack distractors_500k.zip beside the other folders, or do without",
    )


def _about(number: int, what: str, belong: int) -> str:
    return counted(number, what) + ("" if number == belong else f"; about {belong:,} belong there")


def check_rendered_count(folder: Path, split: Split, counts: dict[str, dict[str, int]]) -> None:
    """Raise ``InputError`` unless a folder's split has as many images as its rendering counted."""
    if len(split) != counts[folder.name]["images"]:
        raise InputError(
            f"a rendered folder holds what its {RENDERING_FILE} says",
            f"{counted(len(split), 'images')} instead of {counts[folder.name]['images']} in {folder}",
            _RENDER_AGAIN,
        )


def rendering_counts(root: Path, folders: tuple[str, ...] = MARKET_FOLDERS) -> dict[str, dict[str, int]]:
    """What the renderer says that it wrote: folder -> what -> how many.

    Raises ``InputError`` where ``rendering.json`` is absent (it is written last) or is not one.
    """
    require_folder(root)
    file = root / RENDERING_FILE
    try:
        counts = json.loads(file.read_text())["counts"]
        return {folder: {what: int(n) for what, n in counts[folder].items()} for folder in folders}
    except FileNotFoundError:
        rule, value = f"a rendered folder holds {RENDERING_FILE}, written last", f"no such file in {root}"
        if near := layout.misplaced(root, lambda folder: (folder / RENDERING_FILE).is_file()):
            raise Misplaced(rule, value, near) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule, value = f"{RENDERING_FILE} holds the counts of a rendering", f"{type(error).__name__} in {file}"
    mend = "render the folder: reidlib render SIZE FOLDER; or read it as market1501 if it is a real one"
    raise InputError(rule, value, mend) from None
