"""Search own images for people, and say from what distance on it is the same person."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
    pair_distances,
    select_rows,
    spans,
    squared_by_product,
)
from reidlib.ranking.metrics import Embeddings
from reidlib.search.features import FeatureSet, embed_own, is_feature_file, read_features
from reidlib.search.report import SHEET_ROWS, Nearest, Searched, described, sheet_of, write_search
from reidlib.search.verification import (
    UNKNOWN_CAMERA,
    VerificationPairs,
    calibration_of,
    check_rate,
    pairs_within,
)
from reidlib.training.device import Execution
from reidlib.training.runs import Run

FALSE_MATCH_RATE = 0.001
_QUERIES, _GALLERY = 1024, 2048
# Candidates of a block of queries that wait to be measured.
_WAITING = 2**20


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
    network = None if run is None else TrainedNetwork(Run.open(run), execution)
    sets = _opened(sources, network)
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
        pairs = VerificationPairs(others[0], None, same_camera)
    elif sets[0] is sets[1]:
        pairs = VerificationPairs(queries, None, same_camera)
    elif all(known) or not any(known):
        pairs = VerificationPairs(queries, images, same_camera, left_out)
    else:
        place = known.index(True)
        pairs = VerificationPairs((queries, images)[place], None, same_camera)
        measured, where = [sets[place]], str(sources[place])
        remarks = [
            f"no person is known in {sources[1 - place]}: a threshold is measured within {where} alone"
        ]
    try:
        calibration = calibration_of(pairs, rate, where, execution.torch_device)
    except InputError as error:
        if asked:
            raise
        remarks.append(f"no threshold: {error}")
    if calibration is not None and network is not None and _trained_on(network.run, measured):
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


def nearest_images(
    query: Features,
    gallery: Features,
    *,
    top: int,
    left_out: tuple[np.ndarray, np.ndarray] | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> Nearest:
    """The ``top`` gallery features nearest to each query's, by Euclidean distance; ties by gallery index.

    query (Q, D), gallery (G, D): tensors, arrays or memory maps, which are streamed. left_out: (query,
    gallery) indices of pairs that do not count. A product in float64 finds candidates: all that lie within
    the rounding of both ways of measuring from the ``top``-th. Their distances are then measured as
    ``reidlib.ranking.distances`` does, so that any number of copies stand in their order.
    """
    device = float64_device(device)
    places = min(top, len(gallery))
    lists = Nearest(np.full((len(query), places), -1), np.full((len(query), places), np.nan))
    blocks = list(spans(len(query), _QUERIES))
    with torch.inference_mode(), full_float32(device):
        for block in progress_bar(blocks, desc="searching", unit="block", disable=not progress, leave=False):
            row_n, index_n, squared_n = _nearest_of_block(query, gallery, block, places, left_out, device)
            place_n = np.arange(len(row_n)) - np.searchsorted(row_n, row_n)
            lists.gallery_indices[block.start + row_n, place_n] = index_n
            lists.distances[block.start + row_n, place_n] = np.sqrt(squared_n)
    return lists


def _nearest_of_block(
    query: Features,
    gallery: Features,
    block: slice,
    places: int,
    left_out: tuple[np.ndarray, np.ndarray] | None,
    device: torch.device,
) -> list[np.ndarray]:
    """Row in the block, gallery index and squared distance of what is nearest, row after row."""
    query_qd = select_rows(query, block).to(device, torch.float64)
    norms_q = torch.linalg.vector_norm(query_qd, dim=1)
    length = query_qd.shape[1]
    # A measured distance is a sum by halves of rounded squares of rounded differences: each term is off by
    # some roundings of its own size. A product's errors are roundings of the vectors' lengths.
    relative = 2 * (math.ceil(math.log2(length)) + 8) * torch.finfo(common_dtype(query, gallery)).eps
    absolute = 4 * (length + 8) * torch.finfo(torch.float64).eps
    best_qk = torch.empty(len(query_qd), 0, dtype=torch.float64, device=device)
    longest = 0.0
    measured = [np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)]  # row, gallery index, squared
    waiting: list[tuple[Tensor, Tensor, Tensor]] = []
    num_waiting = 0
    for span in spans(len(gallery), _GALLERY):
        gallery_gd = select_rows(gallery, span).to(device, torch.float64)
        longest = max(longest, float(torch.linalg.vector_norm(gallery_gd, dim=1).max()))
        squared_qg = squared_by_product(query_qd, gallery_gd)
        squared_qg[pairs_within(left_out, block, span)] = math.inf
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
            near_n = squared_n <= limit_q[row_n]  # the limit has come nearer since
            row_n, index_n = row_n[near_n].cpu().numpy(), index_n[near_n].cpu().numpy()
            squared_n = pair_distances(query, gallery, block.start + row_n, index_n, device).cpu().numpy()
            fresh = row_n, index_n, squared_n
            measured = _first(*map(np.concatenate, zip(measured, fresh, strict=True)), places)
            waiting, num_waiting = [], 0
    return measured


def _first(row_n: np.ndarray, index_n: np.ndarray, squared_n: np.ndarray, places: int) -> list[np.ndarray]:
    """The nearest of each row, equally near ones by index, row after row."""
    order = np.lexsort((index_n, squared_n, row_n))
    row_n = row_n[order]
    kept = np.arange(len(row_n)) - np.searchsorted(row_n, row_n) < places
    return [row_n[kept], index_n[order][kept], squared_n[order][kept]]


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


def _trained_on(run: Run, sets: Sequence[FeatureSet]) -> bool:
    """Do any of the images lie in the folder that the run's training images came from?"""
    data_root = run.information.get("data_root")
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


def _opened(sources: Sequence[str | Path], network: TrainedNetwork | None) -> list[FeatureSet]:
    """The features of every source, of one and the same network; equal sources give one and the same set."""
    own = {} if network is None else {str(network.run.folder): network.key}
    if network is None and (images := [source for source in sources if not is_feature_file(source)]):
        raise InputError(
            "images are searched with a trained run", f"{images[0]} and no run", "give its folder with --run"
        )
    found: dict[Path, FeatureSet] = {}
    keys = [Path(source).expanduser().absolute() for source in sources]
    for source in dict.fromkeys(keys):
        found[source] = read_features(source) if is_feature_file(source) else embed_own(network, source)
    networks = {str(source): features.information["network"] for source, features in found.items()} | own
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
