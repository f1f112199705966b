"""Search for people in the user's own images, with a measured threshold for the same person."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from reidlib.data.names import doubt_key, name_key
from reidlib.data.rules import JUNK
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork
from reidlib.ranking.metrics import Embeddings
from reidlib.ranking.nearest import nearest_images
from reidlib.search.features import FeatureSet, embed_own_images, is_feature_file, read_features, warnings_of
from reidlib.search.report import (
    SHEET_ROWS,
    SearchRanking,
    describe_search,
    draw_sheet,
    write_search,
)
from reidlib.search.verification import (
    UNKNOWN_CAMERA,
    Doubts,
    VerificationPairs,
    calibrate_threshold,
    check_rate,
)
from reidlib.training.device import Execution
from reidlib.training.runs import Run

FALSE_MATCH_RATE = 0.001


@dataclass(frozen=True, eq=False)
class SearchResult:
    """The result of a search.

    Attributes:
        ranking: Query and gallery sets, the ranked lists, and the threshold.
        files: Paths of the files that were written.
        text: The summary that the command line prints.
    """

    ranking: SearchRanking
    files: tuple[Path, ...]
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
    """Rank gallery images by distance for each query image (``reidlib search``).

    Writes ``ranked.csv``, ``contact_sheet.jpg`` and, if a threshold can be measured, ``distances.png`` and
    ``threshold.json``. A threshold is valid only for the people and cameras on which it was measured.

    Args:
        query: Query images: one image, a folder, a folder per person, a CSV (see ``list_own_images``), or
            features from ``reidlib embed``.
        gallery: Gallery images, in the same forms. An image that is in both sets is not listed for itself.
        out: Output folder. Files of an earlier search in it are replaced.
        run: Folder of a trained run. Required unless all inputs are features.
        top: Largest length of a ranked list, in images.
        false_match_rate: Share of pairs of different people, between 0 and 1, that the threshold may accept
            as one person. None: 0.001, and no threshold if the images are too few for that.
        calibrate: Labelled images, in the same forms, on whose pairs the threshold is measured. None: the
            pairs of query and gallery images with known persons. If only one of the two has known persons,
            pairs within it.
        same_camera: Whether pairs of one person in one camera count, for data with a single camera.
        sheet: Number of queries on the contact sheet, at most 200; 0 for no sheet.
        device: "auto", or a device of this machine: "cpu", "cuda", "cuda:1" or "mps".
        progress: Whether progress bars are shown.

    Returns:
        The ranked lists, the threshold, the files and a summary.

    Raises:
        InputError: If a run has no weights, features come from different runs, an image cannot be read, an
            argument is out of range, or the threshold cannot be measured although ``false_match_rate`` or
            ``calibrate`` requests it.
    """
    out = Path(out).expanduser()
    threshold_requested = false_match_rate is not None or calibrate is not None
    rate = FALSE_MATCH_RATE if false_match_rate is None else false_match_rate
    _check(out, rate, top, sheet)
    execution = Execution(device=device, progress=progress)
    sources = [query, gallery] + ([] if calibrate is None else [calibrate])
    network = None if run is None else TrainedNetwork(Run.open(run), execution)
    sets = _load_sets(sources, network)
    (queries, images, *calibration_images), doubts = _label(sets)
    excluded_pairs = same_images(*sets[:2])
    nearest = nearest_images(
        queries.features,
        images.features,
        top=top,
        excluded_pairs=excluded_pairs,
        device=execution.torch_device,
        progress=progress,
    )
    calibration, remarks = None, warnings_of(*sets)
    has_persons = [bool((side.person_ids != JUNK).any()) for side in (queries, images)]
    source = str(calibrate) if calibration_images else " and ".join(dict.fromkeys(map(str, sources)))
    calibration_sets = sets[2:] or sets[:2]
    if calibration_images:
        pairs = VerificationPairs(calibration_images[0], None, same_camera)
    elif sets[0] is sets[1]:
        pairs = VerificationPairs(queries, None, same_camera)
    elif all(has_persons) or not any(has_persons):
        pairs = VerificationPairs(queries, images, same_camera, excluded_pairs)
    else:
        side = has_persons.index(True)
        pairs = VerificationPairs((queries, images)[side], None, same_camera)
        calibration_sets, source = [sets[side]], str(sources[side])
        remarks.append(f"{sources[1 - side]} has no known persons: the threshold is measured within {source}")
    try:
        pairs = replace(pairs, doubts=doubts)
        calibration = calibrate_threshold(pairs, rate, source, execution.torch_device)
    except InputError as error:
        if threshold_requested:
            raise
        remarks.append(f"no threshold: {error}")
    if calibration is not None and network is not None and _trained_on(network.run, calibration_sets):
        remarks.append(
            "these images are in the folder that the run was trained on: a threshold that is measured on the "
            "people of the training is too high for other people"
        )
    ranking = SearchRanking(sets[0], sets[1], queries, images, nearest, calibration, doubts)
    picture, missing = draw_sheet(ranking, sheet)
    files = write_search(ranking, out, picture)
    remarks += [missing, f"written to {out}: {', '.join(path.name for path in files)}"]
    return SearchResult(ranking, files, "\n".join(filter(None, [*describe_search(ranking, top), *remarks])))


def same_images(query: FeatureSet, gallery: FeatureSet) -> tuple[np.ndarray, np.ndarray]:
    """Find images that are in both sets, by path or by link.

    Args:
        query: The query set.
        gallery: The gallery set.

    Returns:
        Query indices and gallery indices of the pairs, each of shape (P,).
    """
    queries: dict[object, list[int]] = {}
    for index, name in enumerate(query.names):
        for key in _file_keys(query.root, name):
            queries.setdefault(key, []).append(index)
    pairs = {
        (query_index, index)
        for index, name in enumerate(gallery.names)
        for key in _file_keys(gallery.root, name)
        for query_index in queries.get(key, ())
    }
    pairs_p2 = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    return pairs_p2[:, 0], pairs_p2[:, 1]


def _file_keys(root: Path | None, name: str) -> Iterator[object]:
    """Yield the keys that identify a file: its path, and its device and inode."""
    if root is None:
        return
    path = os.path.join(root, name)  # noqa: PTH118 (half a million paths)
    yield path
    with contextlib.suppress(OSError):
        status = os.stat(path)  # noqa: PTH116
        yield status.st_dev, status.st_ino


def _trained_on(run: Run, sets: Sequence[FeatureSet]) -> bool:
    """Return whether any image is in the folder of the run's training images."""
    data_root = run.information.get("data_root")
    if not data_root:
        return False
    data_root = Path(os.path.realpath(data_root))
    if data_root.is_file():  # a CSV list, whose images are all in its folder
        data_root = data_root.parent
    folders = set()
    for feature_set in sets:
        if feature_set.root is None:
            continue
        for name in feature_set.names:
            path = os.path.join(feature_set.root, name)  # noqa: PTH118 (half a million paths)
            path = os.path.realpath(path) if os.path.islink(path) else path  # noqa: PTH114
            folders.add(os.path.dirname(path))  # noqa: PTH120
    return any(Path(os.path.realpath(folder)).is_relative_to(data_root) for folder in folders)


def _check(out: Path, rate: float, top: int, sheet: int) -> None:
    check_rate(rate)
    if top < 1:
        raise InputError("a ranked list has at least one image", f"top {top}", "request at least 1")
    if not 0 <= sheet <= SHEET_ROWS:
        raise InputError(
            f"a contact sheet has at most {SHEET_ROWS} queries",
            f"sheet {sheet}",
            "request fewer; 0 draws no sheet",
        )
    if out.exists() and not out.is_dir():
        raise InputError("a search writes to a folder", f"the file {out}", "name another path")


def _load_sets(sources: Sequence[str | Path], network: TrainedNetwork | None) -> list[FeatureSet]:
    """Return the features of each source, all from one network; equal sources give the same object."""
    own_key = {} if network is None else {str(network.run.folder): network.key}
    if network is None and (images := [source for source in sources if not is_feature_file(source)]):
        raise InputError(
            "images need a trained run that embeds them",
            f"{images[0]} and no run",
            "give its folder with --run",
        )
    sets: dict[Path, FeatureSet] = {}
    paths = [Path(source).expanduser().absolute() for source in sources]
    for path in dict.fromkeys(paths):
        if network is None or is_feature_file(path):
            sets[path] = read_features(path)
        else:
            sets[path] = embed_own_images(network, path)
    keys = {str(path): features.information["network"] for path, features in sets.items()} | own_key
    if len(set(keys.values())) > 1:
        listing = ", ".join(f"{key} of {Path(source).name}" for source, key in keys.items())
        rule = "features can be compared only if one trained run computed them"
        raise InputError(rule, listing, "embed all images with one run")
    lengths = {str(path): features.features.shape[1] for path, features in sets.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{length} of {Path(source).name}" for source, length in lengths.items())
        rule = "all features of one run have the same number of values"
        raise InputError(rule, listing, "write the files again with `reidlib embed`")
    return [sets[path] for path in paths]


def _label(sets: Sequence[FeatureSet]) -> tuple[list[Embeddings], Doubts | None]:
    """Return the sets with persons and cameras as numbers that mean the same in all, and what is in doubt."""
    persons, cameras = {"": JUNK}, {"": UNKNOWN_CAMERA}
    key = cache(name_key)
    # A person whose name may mean unknown, such as N/A, may be anybody.
    person_key = cache(lambda name: name_key(name) if doubt_key(name) else "")
    embeddings: dict[int, Embeddings] = {}
    for feature_set in sets:
        if id(feature_set) not in embeddings:
            person_ids = [persons.setdefault(person_key(name), len(persons)) for name in feature_set.persons]
            camera_ids = [cameras.setdefault(key(name), len(cameras)) for name in feature_set.cameras]
            ids = np.array(person_ids), np.array(camera_ids)
            embeddings[id(feature_set)] = Embeddings(feature_set.features, *ids)
    doubts = Doubts(*(_doubt_ids(names) for names in (persons, cameras)))
    are_all_sure = all((ids == np.arange(len(ids)))[1:-1].all() for ids in doubts)
    return [embeddings[id(feature_set)] for feature_set in sets], None if are_all_sure else doubts


def _doubt_ids(numbers: dict[str, int]) -> np.ndarray:
    """Return, by number, the first number whose name may be the same one; -1 for the number -1."""
    first: dict[str, int] = {}
    ids = [first.setdefault(doubt_key(name) or name, number) for name, number in numbers.items()]
    return np.array([0, *ids[1:], -1])
