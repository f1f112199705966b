"""The embedded benchmark, as it was rendered to a folder in Market-1501's layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers.layout import Misplaced, folder_names, misplaced, require_folder
from reidlib.data.readers.market import (
    MARKET_FOLDERS,
    note_rules,
    read_market_layout,
    survey_market_layout,
)
from reidlib.data.readers.survey import Survey
from reidlib.data.rules import in_sightings
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted

RENDERING_FILE = "rendering.json"
_AGAIN = "remove the folder and render it again: reidlib render SIZE FOLDER"


def synthetic(root: Path, *, trial: int = 0) -> Benchmark:
    """The embedded benchmark, as ``reidlib render SIZE FOLDER`` wrote it in Market-1501's layout.

    Its ``boxes`` are the query images and those gallery images that show a query's person in that query's
    camera. The protocol ignores the latter for that query, so that pooling over them leaks no match.

    Raises ``InputError`` where ``rendering.json`` is absent or counts other images than are there.
    """
    counts = rendering_counts(root)
    train, query, gallery = splits = read_market_layout(root)
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
            f"{counted(len(split), 'images')} instead of {counts[folder.name]['images']} in {folder}",
            _AGAIN,
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
        if near := misplaced(root, lambda folder: (folder / RENDERING_FILE).is_file()):
            raise Misplaced(rule, value, near) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule, value = f"{RENDERING_FILE} holds the counts of a rendering", f"{type(error).__name__} in {file}"
    mend = "render the folder: reidlib render SIZE FOLDER; or read it as market1501 if it is a real one"
    raise InputError(rule, value, mend) from None


def survey_synthetic(root: Path) -> Survey:
    """A rendered folder against what the renderer wrote."""
    require_folder(root)
    expected, lacking = {}, None
    try:
        expected = rendering_counts(root)
    except InputError as error:
        lacking = error
    if lacking and not set(MARKET_FOLDERS) & folder_names(root):
        # The folders of the layout, which may lie near it, are no rendering without that file.
        found = Survey()
        found.add(lacking)
        return found
    found = survey_market_layout(root)
    found.expected, found.again = expected, _AGAIN
    found.problems += [str(lacking)] if lacking else []
    note_rules(found)
    return found
