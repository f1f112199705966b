"""CUHK03: the classic protocol's 20 test sets, and the new one with 767 and 700 persons."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol, check_trial
from reidlib.data.readers.cuhk03.archive import ARCHIVE, KINDS, Extraction, extract
from reidlib.data.readers.layout import (
    Counts,
    Misplaced,
    Reading,
    changed_options,
    folder_names,
    misplaced,
    near_miss,
    official_counts,
    one_of,
    require_folder,
    unpacking,
)
from reidlib.data.readers.market import MARKET_FOLDERS, market_splits, read_market_layout
from reidlib.data.rules import queries_without_match, rule_violations
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten

SPLITS = ("classic", "new")
NUM_TRIALS = 20
TEST_PERSONS = 100
SINGLE_SHOT = {
    "single-shot": Protocol("single", draws=10),
    "single-shot, view 1 to 2": Protocol("single", draws=10, query_cameras=(1,)),
}

CONFIG_SOURCE = (
    "take it from zhunzhong07/person-re-ranking on GitHub, evaluation/data/CUHK03, and put it beside"
    f" {ARCHIVE}"
)
_KEYS = ("filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx")


def cuhk03(root: Path, *, split: str = "classic", boxes: str = "labelled") -> Reading:
    """CUHK03 (Li et al. 2014): 1,467 persons, each by the two cameras of one of five pairs.

    ``root`` holds ``cuhk-03.mat``, whose images are written to files at the first reading, with progress.
    Person ids count from 1 through the pairs; the camera id is the view, 1 or 2.

    ``split="classic"``: trial k tests on the 100 persons of the archive's test set k, of 20, and trains on
    all others. Query and gallery are all images of the test persons; ``protocols`` has the papers'
    single-shot scores. ``split="new"`` (Zhong et al. 2017): 767 persons for training and 700 for testing,
    scored as Market-1501, from ``cuhk03_new_protocol_config_labeled.mat`` (or ``_detected.mat``) in ``root``
    or above it; or from the ready-made folders ``labeled`` and ``detected`` of CUHK03-NP, without the
    archive. ``boxes``: "labelled" by hand or "detected".

    Refused are an unknown option, files that are missing or damaged and a full disk.
    """
    one_of("the split of cuhk03", split, SPLITS)
    one_of("cuhk03's boxes", boxes, tuple(KINDS))
    require_folder(root)
    options = changed_options(cuhk03, split=split, boxes=boxes)
    title = f"cuhk03 with split={split}"
    if ready_made := _ready_made(root, split, boxes):
        counts = dict(zip(MARKET_FOLDERS, _official(boxes, "new").values(), strict=True))
        reading = read_market_layout(title, ready_made, "CUHK03-NP", counts)
        reading.num_trials = 1
        reading.make = lambda trial: Benchmark(
            "cuhk03", root, *market_splits(reading), trial=trial, options=options
        )
        return reading
    classic = split == "classic"
    reading = Reading(title, NUM_TRIALS if classic else 1, expected=_official(boxes))
    archive = reading.attempt(_archive, root, split, boxes)
    lists = None if classic or archive is None else reading.attempt(_read_lists, root, boxes)
    images = cache(lambda: extract(archive, boxes))  # takes minutes: not before a trial is known to exist

    def make(trial: int) -> Benchmark:
        if classic:
            check_trial("cuhk03", trial, len(images().test_sets))
        return Benchmark(
            "cuhk03",
            root,
            *(_classic(images(), trial) if classic else _new(images(), *lists)),
            num_trials=len(images().test_sets) if classic else 1,
            trial=trial,
            options=options,
            protocols=SINGLE_SHOT if classic else {},
            extracted=images().identity,
        )

    def examine() -> Iterator[InputError | str]:
        if archive is None:
            return
        everything = images().split
        pairs_n = images().numbers[:, 0]
        reading.parts = {boxes: everything} | {
            f"pair {pair}": everything.select(pairs_n == pair)
            for pair in range(1, len(images().persons_of_pairs) + 1)
        }
        if classic:
            yield from _broken_trials(reading, images())
        by_view = (everything.person_ids[everything.camera_ids == view] for view in (1, 2))
        if one_sided := np.setxor1d(*by_view).tolist():
            reading.remarks.append(
                f"{counted(len(one_sided), 'persons')} with images of one view only: {shorten(one_sided)}"
            )
        if lists is not None:
            splits = _new(images(), *lists)
            reading.parts |= dict(zip(("train", "query", "gallery"), splits, strict=True))
            reading.expected = {**reading.expected, **_official(boxes, "new")}
            yield from rule_violations(*splits)

    reading.make, reading.examine = make, examine
    return reading


def _broken_trials(reading: Reading, images: Extraction) -> Iterator[InputError | str]:
    """What is wrong with the test sets, trial by trial; queries without a match become remarks."""
    sizes = [len(one) for one in images.test_sets]
    if sizes != [TEST_PERSONS] * NUM_TRIALS:
        yield (
            f"testsets holds {NUM_TRIALS} sets of {TEST_PERSONS} persons; got {counted(len(sizes), 'sets')}"
            f" of {', '.join(map(str, sorted(set(sizes)))) or 'no'} persons; download or copy the file again"
        )
    for trial in range(len(images.test_sets)):
        splits = _classic(images, trial)
        for violation in rule_violations(*splits):
            yield f"trial {trial}: {violation}"
        if unmatched := queries_without_match(*splits[1:]):
            reading.remarks.append(
                f"trial {trial}: {len(unmatched)} of {len(splits[1])} queries have no match"
            )


def _official(boxes: str, split: str = "") -> Counts:
    """The counts of an archive's boxes and camera pairs, or of the three parts of a split."""
    return official_counts(f"cuhk03,boxes={boxes}" + (f",split={split}" if split else ""))


def _ready_made(root: Path, split: str, boxes: str) -> Path | None:
    """CUHK03-NP's folder of these boxes, where the new split is wanted and the archive cannot give it."""
    folder = root / KINDS[boxes]
    if split != "new" or not set(MARKET_FOLDERS) & folder_names(folder):
        return None
    from_archive = (root / ARCHIVE).is_file() and any(path.is_file() for path in _files_of_lists(root, boxes))
    return None if from_archive else folder


def _is_ready_made(folder: Path) -> bool:
    return any(set(MARKET_FOLDERS) <= folder_names(folder / kind) for kind in KINDS.values())


def _archive(root: Path, split: str, boxes: str) -> Path:
    """The archive in ``root``; ``InputError`` says what is there instead and what was probably meant."""
    if (archive := root / ARCHIVE).is_file():
        return archive
    wanted = "cuhk03 is read from a folder that holds " + ARCHIVE
    if split == "new":
        wanted += " or CUHK03-NP's folders labeled and detected"
    files = sorted(path.name for path in root.iterdir() if path.is_file() and not path.name.startswith("."))
    there = shorten([*sorted(folder_names(root)), *files], 10) or "nothing"
    value = f"{root}, which holds {there}"

    def holds(folder: Path) -> bool:
        return (folder / ARCHIVE).is_file() or (split == "new" and _is_ready_made(folder))

    if _is_ready_made(root):
        mend = "these are CUHK03-NP's folders, which hold the new protocol alone: read them with split=new"
        if split == "new":
            mend = f"unpack CUHK03-NP's folder {KINDS[boxes]} too"
    elif near := misplaced(root, holds):
        raise Misplaced(wanted, value, near)
    else:
        mats = [name for name in files if name.lower().endswith(".mat") and "protocol" not in name]
        mend = unpacking(root) or near_miss(ARCHIVE, mats, rename=True)
    raise InputError(wanted, value, mend or "unpack cuhk03_release.zip and give its folder")


def _classic(images: Extraction, trial: int) -> tuple[Split, Split, Split]:
    chosen = np.array(images.test_sets[trial], dtype=np.int64).reshape(-1, 2)
    tested_n = np.isin(images.split.person_ids, images.person_ids(*chosen.T))
    test = images.split.select(tested_n)
    return images.split.select(~tested_n), test, test


def _new(images: Extraction, file: Path, lists: Split, *rows: np.ndarray) -> tuple[Split, Split, Split]:
    """The new protocol's splits by the lists that ``_read_lists`` found."""
    names = list(map(str, lists.paths))
    # An extracted file has the list's name behind the kind of its boxes.
    place_of = {name.partition("_")[2]: place for place, name in enumerate(images.names)}
    if absent := [name for name in names if name not in place_of]:
        raise InputError(
            f"the images that {file.name} names are in {ARCHIVE}",
            f"{len(absent)} that are not: {shorten(absent)}",
            "both belong to the same boxes and the complete archive: download or copy them again",
        )
    places_n = np.array([place_of[name] for name in names], dtype=np.int64)
    everything = images.split
    found = everything.select(places_n)
    differs_n = (found.person_ids != lists.person_ids) | (found.camera_ids != lists.camera_ids)
    if differs_n.any():
        row = int(np.flatnonzero(differs_n)[0])
        raise InputError(
            f"{file.name} counts persons and views as {ARCHIVE} does",
            f"person {lists.person_ids[row]}, view {lists.camera_ids[row]} for {names[row]}, which"
            f" is person {found.person_ids[row]}, view {found.camera_ids[row]}",
            CONFIG_SOURCE,
        )
    # By name, whatever the order of the list.
    train, query, gallery = (everything.select(np.sort(places_n[one])) for one in rows)
    return train, query, gallery


def _files_of_lists(root: Path, boxes: str) -> list[Path]:
    """Where the lists may lie: beside the archive or, as torchreid has its users put them, above it."""
    name = f"cuhk03_new_protocol_config_{KINDS[boxes]}.mat"
    return [root / name, root.parent / name]


def _read_lists(root: Path, boxes: str) -> tuple[Path, Split, np.ndarray, np.ndarray, np.ndarray]:
    """The file of these boxes, its list of images, and the rows of training, query and gallery, sorted.

    ``InputError`` for a file that is absent, damaged or in version 7.3.
    """
    # Slow to import, and only this protocol needs it.
    from scipy.io import loadmat

    places = _files_of_lists(root, boxes)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(
            f"cuhk03's new split needs {places[0].name}", f"no such file in {root} or above it", CONFIG_SOURCE
        )
    rule = f"{file.name} holds the new protocol's lists, in MATLAB's version 5 to 7"
    try:
        content = loadmat(file)
    except NotImplementedError:
        raise InputError(
            rule, f"{file}, in version 7.3", f"{CONFIG_SOURCE}, or save it in MATLAB with '-v7'"
        ) from None
    except Exception as error:  # scipy reports damage as any of half a dozen types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(rule, f"{file}: {reason}", CONFIG_SOURCE) from error
    if missing := [key for key in _KEYS if key not in content]:
        raise InputError(rule, f"{file}, which lacks {', '.join(missing)}", CONFIG_SOURCE)
    try:
        names = tuple(Path(str(np.asarray(cell).item())) for cell in content["filelist"].ravel())
        numbers = [content[key].ravel().astype(np.int64) for key in _KEYS[1:]]
    except (ValueError, TypeError) as error:
        raise InputError(rule, f"{file}: {' '.join(str(error).split())}", CONFIG_SOURCE) from error
    labels, cameras, *rows = numbers
    if not len(names) == len(labels) == len(cameras):
        lengths = f"{len(names)} names, {len(labels)} labels, {len(cameras)} cameras"
        raise InputError(rule, f"{file} with {lengths}", CONFIG_SOURCE)
    for key, one in zip(_KEYS[3:], rows, strict=True):
        if wrong := one[(one < 1) | (one > len(names))].tolist():
            value = f"{file}, whose {key} names rows {shorten(wrong)} of {len(names)}"
            raise InputError(rule, value, CONFIG_SOURCE)
    train, query, gallery = (np.sort(one - 1) for one in rows)  # MATLAB counts from 1
    return file, Split(names, labels, cameras), train, query, gallery
