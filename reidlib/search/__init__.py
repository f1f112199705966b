"""Search for people in the user's own images, with a measured threshold for the same person."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reidlib.data.names import doubt_key, name_key
from reidlib.data.rules import JUNK
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork
from reidlib.progress import progress_bar
from reidlib.ranking.distances import (
    TINY,
    Features,
    common_dtype,
    float64_device,
    full_float32,
    select_rows,
    spans,
    squared_distances_by_product,
    squared_pair_distances,
)
from reidlib.ranking.metrics import Embeddings
from reidlib.search.features import FeatureSet, embed_own_images, is_feature_file, read_features, warnings_of
from reidlib.search.report import (
    SHEET_ROWS,
    Nearest,
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
    pairs_within,
)
from reidlib.training.device import Execution
from reidlib.training.runs import Run

FALSE_MATCH_RATE = 0.001
_QUERIES, _GALLERY = 1024, 2048
# Number of candidates of a block of queries that are collected before their distances are computed.
_WAITING = 2**20


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


def nearest_images(
    query: Features,
    gallery: Features,
    *,
    top: int,
    excluded_pairs: tuple[np.ndarray, np.ndarray] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Nearest:
    """Find the gallery features nearest to each query by Euclidean distance; ties by gallery index.

    Args:
        query: Query features, shape (Q, D). Tensors, arrays or memory maps, which are streamed.
        gallery: Gallery features, shape (G, D).
        top: Largest number of gallery features per query.
        excluded_pairs: Query and gallery indices, each of shape (P,), of pairs that are not listed.
        device: Torch device for the computation in float64.
        progress: Whether a progress bar is shown.

    Returns:
        Gallery indices and distances, each of shape (Q, min(top, G)).
    """
    # A product in float64 finds candidates: all that are within the rounding of both ways to compute a
    # distance from the ``top``-th. Their distances are then computed as in ``reidlib.ranking.distances``, so
    # that any number of copies keep their order.
    device = float64_device(device)
    places = min(top, len(gallery))
    lists = Nearest(np.full((len(query), places), -1), np.full((len(query), places), np.nan))
    blocks = list(spans(len(query), _QUERIES))
    with torch.inference_mode(), full_float32(device):
        for block in progress_bar(blocks, desc="searching", unit="block", disable=not progress, leave=False):
            row_n, index_n, squared_n = _nearest_of_block(
                query, gallery, block, places, excluded_pairs, device
            )
            place_n = np.arange(len(row_n)) - np.searchsorted(row_n, row_n)
            lists.gallery_indices[block.start + row_n, place_n] = index_n
            lists.distances[block.start + row_n, place_n] = np.sqrt(squared_n)
    return lists


def _nearest_of_block(
    query: Features,
    gallery: Features,
    block: slice,
    places: int,
    excluded_pairs: tuple[np.ndarray, np.ndarray] | None,
    device: torch.device,
) -> list[np.ndarray]:
    """Return row in the block, gallery index and squared distance of the nearest images, row by row."""
    query_qd = select_rows(query, block).to(device, torch.float64)
    norms_q = torch.linalg.vector_norm(query_qd, dim=1)
    length = query_qd.shape[1]
    # A direct distance is a pairwise sum of rounded squares of rounded differences: the error of each term is
    # a few roundings of its size. The errors of a product are roundings of the vectors' lengths.
    relative = 2 * (math.ceil(math.log2(length)) + 8) * torch.finfo(common_dtype(query, gallery)).eps
    absolute = 4 * (length + 8) * torch.finfo(torch.float64).eps
    best_qk = torch.empty(len(query_qd), 0, dtype=torch.float64, device=device)
    longest = 0.0
    nearest = [np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)]  # row, gallery index, squared
    waiting: list[tuple[Tensor, Tensor, Tensor]] = []
    num_waiting = 0
    for span in spans(len(gallery), _GALLERY):
        gallery_gd = select_rows(gallery, span).to(device, torch.float64)
        longest = max(longest, float(torch.linalg.vector_norm(gallery_gd, dim=1).max()))
        squared_qg = squared_distances_by_product(query_qd, gallery_gd)
        squared_qg[pairs_within(excluded_pairs, block, span)] = math.inf
        both_qk = torch.cat([best_qk, squared_qg], dim=1)
        best_qk = both_qk.topk(min(places, both_qk.shape[1]), dim=1, largest=False).values
        limit_q = torch.full_like(norms_q, math.inf)
        if best_qk.shape[1] == places:
            limit_q = best_qk.amax(1) * (1 + relative) + absolute * (norms_q + longest) ** 2 + TINY
        row_n, column_n = ((squared_qg <= limit_q[:, None]) & squared_qg.isfinite()).nonzero(as_tuple=True)
        waiting.append((row_n, column_n + span.start, squared_qg[row_n, column_n]))
        num_waiting += len(row_n)
        if num_waiting > _WAITING or span.stop == len(gallery):
            row_n, index_n, squared_n = map(torch.cat, zip(*waiting, strict=True))
            near_n = squared_n <= limit_q[row_n]  # the limit has decreased since
            row_n, index_n = row_n[near_n].cpu().numpy(), index_n[near_n].cpu().numpy()
            squared_n = (
                squared_pair_distances(query, gallery, block.start + row_n, index_n, device).cpu().numpy()
            )
            candidates = row_n, index_n, squared_n
            nearest = _nearest(places, *map(np.concatenate, zip(nearest, candidates, strict=True)))
            waiting, num_waiting = [], 0
    return nearest


def _nearest(places: int, row_n: np.ndarray, index_n: np.ndarray, squared_n: np.ndarray) -> list[np.ndarray]:
    """Keep the nearest images of each row, row by row; ties by index."""
    order = np.lexsort((index_n, squared_n, row_n))
    row_n = row_n[order]
    mask_n = np.arange(len(row_n)) - np.searchsorted(row_n, row_n) < places
    return [row_n[mask_n], index_n[order][mask_n], squared_n[order][mask_n]]


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
