"""Search own images for people, and say from what distance on it is the same person."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from reidlib.data.rules import JUNK
from reidlib.errors import InputError
from reidlib.ranking.metrics import Embeddings
from reidlib.search.features import Embedder, FeatureSet, is_feature_file, read_features
from reidlib.search.nearest import nearest_images
from reidlib.search.report import SHEET_ROWS, Searched, described, sheet_of, write_search
from reidlib.search.verification import (
    UNKNOWN_CAMERA,
    Calibration,
    Pairs,
    check_rate,
    false_match_persons,
    pair_distances_histogram,
    threshold_for,
)
from reidlib.training.device import Execution

FALSE_MATCH_RATE = 0.001


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found and wrote; ``text`` is what the command line prints."""

    searched: Searched
    written: tuple[Path, ...]
    text: str


def search(
    query: str | Path,
    gallery: str | Path,
    *,
    out: str | Path,
    run: str | Path | None = None,
    top: int = 10,
    false_match_rate: float | None = None,
    calibrate: str | Path | None = None,
    same_camera: bool = False,
    sheet: int = 20,
    device: str = "auto",
    progress: bool = True,
) -> SearchResult:
    """Rank gallery images by distance for every query image; ``reidlib search``.

    query, gallery, calibrate: one image, a folder, a folder per person, a CSV (see ``list_own``), or
        features that ``reidlib embed`` wrote. An image that is in both never finds itself.
    out: folder for ``ranked.csv``; ``contact_sheet.jpg`` of the first ``sheet`` queries; and, where a
        threshold can be measured, ``distances.png`` and ``threshold.json``. What an earlier search left
        there under these names is replaced.
    run: the trained run; needed unless all are features.
    false_match_rate: the share of pairs of different people that the threshold may take for one person;
        None: one in a thousand, and where the images at hand cannot tell that, there is no threshold.
    calibrate: labelled images on whose pairs the threshold is measured; None: on the pairs of query and
        gallery whose persons are known, or within one of the two where no person is known in the other.
    same_camera: count pairs of one person in one camera, for data with a single one.

    A threshold belongs to the people and cameras that it was measured on. Raises InputError for a run
    without weights, features of two different runs, images that cannot be read, and a threshold that was
    asked for by ``false_match_rate`` or ``calibrate`` and cannot be measured.
    """
    out = Path(out).expanduser()
    asked = false_match_rate is not None or calibrate is not None
    rate = FALSE_MATCH_RATE if false_match_rate is None else false_match_rate
    _check(out, rate, top, sheet)
    execution = Execution(device=device, progress=progress)
    sources = [query, gallery] + ([] if calibrate is None else [calibrate])
    embedder = None if run is None else Embedder(run, execution)
    sets = _opened(sources, embedder)
    queries, images, *others = _labelled(sets)
    left_out = same_images(*sets[:2])
    nearest = nearest_images(
        queries.features,
        images.features,
        top=top,
        left_out=left_out,
        device=execution.torch_device,
        progress=progress,
    )
    calibration, remarks = None, []
    known = [bool((side.person_ids != JUNK).any()) for side in (queries, images)]
    where = str(calibrate) if others else " and ".join(dict.fromkeys(map(str, sources)))
    measured = sets[2:] or sets[:2]
    if others:
        pairs = Pairs(others[0], None, same_camera)
    elif sets[0] is sets[1]:
        pairs = Pairs(queries, None, same_camera)
    elif all(known) or not any(known):
        pairs = Pairs(queries, images, same_camera, left_out)
    else:
        place = known.index(True)
        pairs = Pairs((queries, images)[place], None, same_camera)
        measured, where = [sets[place]], str(sources[place])
        remarks = [
            f"no person is known in {sources[1 - place]}: a threshold is measured within {where} alone"
        ]
    try:
        calibration = _calibrated(pairs, rate, where, execution.torch_device)
    except InputError as error:
        if asked:
            raise
        remarks.append(f"no threshold: {error}")
    if calibration is not None and embedder is not None and _trained_on(embedder, measured):
        remarks.append(
            "these images lie in the folder that the run was trained on: a threshold measured on people it "
            "has seen is too high for strangers"
        )
    searched = Searched(*sets[:2], queries, images, nearest, calibration)
    picture, missing = sheet_of(searched, sheet)
    written = write_search(searched, out, picture)
    where = f"written to {out}: {', '.join(path.name for path in written)}"
    return SearchResult(
        searched, written, "\n".join(filter(None, [*described(searched, top), *remarks, missing, where]))
    )


def same_images(query: FeatureSet, gallery: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Indices (P,) of query and of gallery images that are the same file, by path or by link."""
    queries: dict[object, list[int]] = {}
    for index, name in enumerate(query.names):
        for key in _identities(query.root, name):
            queries.setdefault(key, []).append(index)
    pairs = {
        (one, index)
        for index, name in enumerate(gallery.names)
        for key in _identities(gallery.root, name)
        for one in queries.get(key, ())
    }
    found = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _identities(root: Path | None, name: str) -> Iterator[object]:
    if root is None:
        return
    path = os.path.join(root, name)  # noqa: PTH118 (half a million paths)
    yield path
    with contextlib.suppress(OSError):
        status = os.stat(path)  # noqa: PTH116
        yield status.st_dev, status.st_ino


def _trained_on(embedder: Embedder, sets: Sequence[FeatureSet]) -> bool:
    """Do any of the images lie in the folder that the run's training images came from?"""
    data_root = embedder.run.information.get("data_root")
    if not data_root:
        return False
    data_root = Path(os.path.realpath(data_root))
    if data_root.is_file():  # a list, which holds no images outside its folder
        data_root = data_root.parent
    places = set()
    for one in sets:
        if one.root is None:
            continue
        for name in one.names:
            path = os.path.join(one.root, name)  # noqa: PTH118 (half a million paths)
            path = os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114
            places.add(os.path.dirname(path))  # noqa: PTH120
    return any(Path(os.path.realpath(place)).is_relative_to(data_root) for place in places)


def _check(out: Path, rate: float, top: int, sheet: int) -> None:
    check_rate(rate)
    if top < 1:
        raise InputError("a ranked list has at least one image", f"top {top}", "ask for 1 or more")
    if not 0 <= sheet <= SHEET_ROWS:
        raise InputError(
            f"a contact sheet has at most {SHEET_ROWS} queries",
            f"sheet {sheet}",
            "ask for fewer; 0 draws none",
        )
    if out.exists() and not out.is_dir():
        raise InputError("a search writes a folder", f"the file {out}", "name another")


def _opened(sources: Sequence[str | Path], embedder: Embedder | None) -> list[FeatureSet]:
    """The features of every source, of one and the same network; equal sources give one and the same set."""
    if embedder is None and (images := [source for source in sources if not is_feature_file(source)]):
        raise InputError(
            "images are searched with a trained run", f"{images[0]} and no run", "give its folder with --run"
        )
    found: dict[Path, FeatureSet] = {}
    keys = [Path(source).expanduser().absolute() for source in sources]
    for source in dict.fromkeys(keys):
        found[source] = read_features(source) if is_feature_file(source) else embedder(source)
    networks = {str(source): features.information["network"] for source, features in found.items()}
    if embedder is not None:
        networks[str(embedder.run.folder)] = embedder.key
    if len(set(networks.values())) > 1:
        named = ", ".join(f"{key} of {Path(source).name}" for source, key in networks.items())
        raise InputError(
            "features are compared where one trained run made them", named, "embed all of them with one run"
        )
    return [found[key] for key in keys]


def _labelled(sets: Sequence[FeatureSet]) -> list[Embeddings]:
    """The sets with persons and cameras as numbers that mean the same in all of them."""
    persons, cameras = {"": JUNK}, {"": UNKNOWN_CAMERA}
    made: dict[int, Embeddings] = {}
    for one in sets:
        if id(one) not in made:
            person_ids = [persons.setdefault(_plain(name), len(persons)) for name in one.persons]
            camera_ids = [cameras.setdefault(_plain(name), len(cameras)) for name in one.cameras]
            made[id(one)] = Embeddings(one.features, np.array(person_ids), np.array(camera_ids))
    return [made[id(one)] for one in sets]


def _plain(name: str) -> str:
    """0002 and 2 are one person: a folder's name often has leading zeros, and a table's cell none."""
    return str(int(name)) if name.isascii() and name.isdecimal() else name


def _calibrated(pairs: Pairs, rate: float, where: str, device: torch.device) -> Calibration:
    sides = [pairs.query] if pairs.gallery is None else [pairs.query, pairs.gallery]
    if any((side.person_ids == JUNK).all() for side in sides):
        raise InputError(
            "a threshold is measured on images whose persons are known",
            f"none known in {where}",
            "give some with --calibrate: a folder per person, or a CSV with a column person",
        )
    histogram = pair_distances_histogram(pairs, device=device)
    if not histogram.same.any():
        allow = "" if pairs.same_camera else ", or count pairs within a camera with --same-camera"
        raise InputError(
            "a threshold is measured on pairs of one person"
            + ("" if pairs.same_camera else " in two cameras"),
            f"none in {where}",
            f"give such images with --calibrate{allow}",
        )
    threshold = threshold_for(histogram, rate)
    false_matches = false_match_persons(pairs, histogram, threshold, device=device)
    known = [side.person_ids != JUNK for side in sides]
    once = [mask.copy() for mask in known]
    if pairs.left_out is not None:  # an image of both sets is one image
        queries, images = pairs.left_out
        once[1][images[known[0][queries]]] = False
    persons, cameras = (
        np.unique(
            np.concatenate([getattr(side, name)[kept] for side, kept in zip(sides, known, strict=True)])
        )
        for name in ("person_ids", "camera_ids")
    )
    return Calibration(
        threshold,
        false_matches,
        histogram,
        where,
        int(sum(kept.sum() for kept in once)),
        len(persons),
        int((cameras != UNKNOWN_CAMERA).sum()),
        pairs.same_camera,
    )
