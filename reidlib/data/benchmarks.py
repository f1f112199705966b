"""Readers of public benchmark layouts: a folder in, a ``Benchmark`` out."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidlib.data.records import Benchmark, Split, in_sightings, shorten
from reidlib.errors import InputError

MARKET_FOLDERS = ("bounding_box_train", "query", "bounding_box_test")
BOXES_FOLDER = "gt_bbox"
RENDERING_FILE = "rendering.json"
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
# `0002_c1s1_000451_03.jpg`: person before the first underscore (-1 junk, 0000 distractor), camera after c.
_MARKET_NAME = re.compile(r"(-1|\d{1,18})_c(\d{1,18})(?!\d)")


def load(name: str, root: str | Path, *, trial: int = 0, **protocol) -> Benchmark:
    """Read the benchmark ``name`` from the folder ``root``.

    ``trial`` chooses one of the protocol's partitions; ``protocol`` holds what the reader of this
    benchmark takes besides (nothing, for the readers of Market-1501's layout).

    Raises ``InputError`` for an unknown name or protocol keyword, a folder that lacks something, a file
    name that does not parse, and a split that breaks a rule of ``reidlib.data.records``.
    """
    reader = reader_of(name)
    known = [key for key in inspect.signature(reader).parameters if key not in ("root", "trial")]
    if unknown := sorted(set(protocol) - set(known)):
        raise InputError(
            f"{name} is read with the protocol keywords: {', '.join(known) or 'none'}",
            ", ".join(unknown),
            near_miss(unknown[0], known) or "leave the keyword out",
        )
    return reader(Path(root).expanduser().absolute(), trial=trial, **protocol)


def market1501(root: Path, *, trial: int = 0) -> Benchmark:
    """Market-1501 (Zheng et al. 2015).

    ``root`` holds ``bounding_box_train``, ``query`` and ``bounding_box_test``. Images are ``.jpg``,
    ``.jpeg`` or ``.png``; other files (``Thumbs.db``, a readme) and hidden ones are ignored. Paths are
    sorted by name. Where the hand-drawn boxes of ``gt_bbox`` are there too, those of a query's person in
    that query's camera become ``boxes``, over which the multi-query protocol pools.
    """
    train, query, gallery = _read_market_layout(root)
    boxes = hand_drawn_boxes(root, query)
    return Benchmark("market1501", root, train, query, gallery, trial=trial, boxes=boxes)


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


def synthetic(root: Path, *, trial: int = 0) -> Benchmark:
    """The embedded benchmark, as ``reidlib render SIZE FOLDER`` wrote it in Market-1501's layout.

    Its ``boxes`` are the query images and those gallery images that show a query's person in that query's
    camera. The protocol ignores the latter for that query, so that pooling over them leaks no match.

    Raises ``InputError`` where ``rendering.json`` is absent or counts other images than are there.
    """
    counts = rendering_counts(root)
    train, query, gallery = splits = _read_market_layout(root)
    for folder, split in zip(MARKET_FOLDERS, splits, strict=True):
        check_rendered_count(root / folder, split, counts)
    own = in_sightings(gallery, query)
    boxes = Split(
        (*query.paths, *gallery.select(own).paths),
        np.concatenate([query.person_ids, gallery.person_ids[own]]),
        np.concatenate([query.camera_ids, gallery.camera_ids[own]]),
    )
    return Benchmark("synthetic", root, train, query, gallery, trial=trial, boxes=boxes)


def check_rendered_count(folder: Path, split: Split, counts: dict[str, dict[str, int]]) -> None:
    """Raise ``InputError`` unless a folder's split has as many images as its rendering counted."""
    if len(split) != counts[folder.name]["images"]:
        raise InputError(
            f"a rendered folder holds what its {RENDERING_FILE} says",
            f"{len(split)} images instead of {counts[folder.name]['images']} in {folder}",
            "remove the folder and render it again: reidlib render SIZE FOLDER",
        )


BENCHMARKS: dict[str, Callable[..., Benchmark]] = {"market1501": market1501, "synthetic": synthetic}


def reader_of(name: str) -> Callable[..., Benchmark]:
    """The reader of the benchmark ``name``; ``InputError`` lists the known ones."""
    if name not in BENCHMARKS:
        raise InputError(
            f"a benchmark is one of: {', '.join(sorted(BENCHMARKS))}",
            repr(name),
            near_miss(name, BENCHMARKS) or "choose one of those",
        )
    return BENCHMARKS[name]


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
        near = [
            file
            for file in (root.parent / RENDERING_FILE, *root.glob(f"*/{RENDERING_FILE}"))
            if file.is_file()
        ]
        if near:
            raise InputError(rule, value, f"there is one in {near[0].parent}: give that folder") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule, value = f"{RENDERING_FILE} holds the counts of a rendering", f"{type(error).__name__} in {file}"
    mend = "render the folder: reidlib render SIZE FOLDER; or read it as market1501 if it is a real one"
    raise InputError(rule, value, mend) from None


class FolderIndex(NamedTuple):
    """Images of one folder, and the names among them that say no person and camera."""

    split: Split
    unparsed: tuple[Path, ...]


def index_folder(folder: Path) -> FolderIndex:
    """List a folder of images named as in Market-1501, sorted by name, with one directory scan."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(_IMAGE_ENDINGS)
                # macOS archives hold `._0002_c1s1_….jpg` beside every image: hidden files are never images.
                and not entry.name.startswith(".")
                and entry.is_file()
            )
    except OSError as error:
        raise InputError(
            "a benchmark's folders can be listed", f"{error.strerror}: {folder}", "check its access rights"
        ) from None
    matches = [_MARKET_NAME.match(name) for name in names]
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


def require_folder(root: Path) -> None:
    """Raise ``InputError`` unless ``root`` is a folder, with what lies nearest to it."""
    if root.is_dir():
        return
    if root.exists():
        raise InputError("a benchmark is a folder", f"the file {root}", "unpack it and name the folder")
    ancestor = next(parent for parent in root.parents if parent.is_dir())
    lost = root.relative_to(ancestor).parts[0]
    there = sorted(_folder_names(ancestor))
    raise InputError(
        "a benchmark's folder exists",
        root,
        near_miss(lost, there, prefix=ancestor) or f"there is no {lost} in {ancestor}",
    )


def missing_folders(root: Path) -> InputError | None:
    """What a folder lacks of Market-1501's layout, what is there instead and what was probably meant."""
    require_folder(root)
    there = sorted(_folder_names(root))
    missing = [folder for folder in MARKET_FOLDERS if folder not in there]
    if not missing:
        return None
    rule = f"a folder in Market-1501's layout holds {', '.join(MARKET_FOLDERS)}"
    value = f"{root}, which lacks {', '.join(missing)} and holds {shorten(there, 10) or 'no folder'}"
    if root.name in MARKET_FOLDERS and set(MARKET_FOLDERS) <= _folder_names(root.parent):
        return InputError(rule, value, f"that is one level too low: give {root.parent}")
    for child in there:
        if set(MARKET_FOLDERS) <= _folder_names(root / child):
            return InputError(rule, value, f"that is one level too high: give {root / child}")
    # A folder that rightly bears its name is nobody's misspelling, however near (…_train and …_test are).
    spare = [name for name in there if name not in MARKET_FOLDERS]
    hints = [near_miss(folder, spare, rename=True) for folder in missing]
    mend = "; ".join(hint for hint in hints if hint) or "unpack the archive completely, or give its folder"
    return InputError(rule, value, mend)


def near_miss(wanted: str, known: Iterable[str], *, prefix: Path | None = None, rename: bool = False) -> str:
    """A question after the known name nearest to ``wanted``; empty where none is near."""
    by_lower = {name.lower(): name for name in known}
    if not (near := difflib.get_close_matches(wanted.lower(), by_lower, n=1)):
        return ""
    name = by_lower[near[0]]
    if rename:
        return f"rename {name} to {wanted} if that is what it is"
    return f"did you mean {prefix / name if prefix else name}?"


def _read_market_layout(root: Path) -> tuple[Split, Split, Split]:
    """Train, query and gallery of a folder in Market-1501's layout."""
    if error := missing_folders(root):
        raise error
    indexes = [index_folder(root / folder) for folder in MARKET_FOLDERS]
    if unparsed := [path for index in indexes for path in index.unparsed]:
        raise name_error(unparsed)
    for folder, index in zip(MARKET_FOLDERS, indexes, strict=True):
        if not len(index.split):
            raise InputError(
                f"each of a benchmark's folders holds images ({', '.join(_IMAGE_ENDINGS)})",
                f"none in {root / folder}",
                "unpack the archive completely",
            )
    train, query, gallery = (index.split for index in indexes)
    return train, query, gallery


def _folder_names(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:
        return set()
