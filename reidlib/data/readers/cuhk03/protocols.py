"""CUHK03: the classic protocol's 20 test sets, and the new one with 767 and 700 persons."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol, check_trial
from reidlib.data.readers.cuhk03.archive import Extraction, extract
from reidlib.data.readers.cuhk03.config import CONFIG_SOURCE, Config, config_files, find_config, read_config
from reidlib.data.readers.cuhk03.mat import ARCHIVE, KINDS
from reidlib.data.readers.layout import (
    Misplaced,
    changed_options,
    folder_names,
    misplaced,
    near_miss,
    one_of,
    require_folder,
    unpacking,
)
from reidlib.data.readers.market import (
    MARKET_FOLDERS,
    note_rules,
    read_market_layout,
    survey_market_layout,
)
from reidlib.data.readers.survey import Counts, Survey
from reidlib.data.rules import queries_with_match, rule_violations
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted, shorten

SPLITS = ("classic", "new")
NUM_TRIALS = 20
TEST_PERSONS = 100
SINGLE_SHOT = {
    "single-shot": Protocol("single", draws=10),
    "single-shot, view 1 to 2": Protocol("single", draws=10, query_cameras=(1,)),
}

# Counted from the new protocol's lists, which name every image of the archive.
PERSONS_OF_PAIRS = (843, 440, 77, 58, 49)
_IMAGES_OF_PAIRS = {"labelled": (8_177, 4_337, 649, 510, 423), "detected": (8_177, 4_337, 650, 510, 423)}
_NEW_IMAGES = {"labelled": (7_368, 1_400, 5_328), "detected": (7_365, 1_400, 5_332)}
_NEW_IDENTITIES = (767, 700, 700)


def cuhk03(root: Path, *, trial: int = 0, split: str = "classic", boxes: str = "labelled") -> Benchmark:
    """CUHK03 (Li et al. 2014): 1,467 persons, each by the two cameras of one of five pairs.

    ``root`` holds ``cuhk-03.mat``, whose images are written to files at the first reading, with progress.
    Person ids count from 1 through the pairs; the camera id is the view, 1 or 2.

    ``split="classic"``: trial k tests on the 100 persons of the archive's test set k, of 20, and trains on
    all others. Query and gallery are all images of the test persons; ``protocols`` has the papers'
    single-shot scores. ``split="new"`` (Zhong et al. 2017): 767 persons for training and 700 for testing,
    scored as Market-1501, from ``cuhk03_new_protocol_config_labeled.mat`` (or ``_detected.mat``) in ``root``
    or above it; or from the ready-made folders ``labeled`` and ``detected`` of CUHK03-NP, without the
    archive. ``boxes``: "labelled" by hand or "detected".

    Raises ``InputError`` for an unknown option, files that are missing or damaged and a full disk.
    """
    _check_options(split, boxes)
    check_trial(f"cuhk03 with split={split}", trial, NUM_TRIALS if split == "classic" else 1)
    options = changed_options(cuhk03, split=split, boxes=boxes)
    if ready_made := _ready_made(root, split, boxes):
        splits = read_market_layout(ready_made, "CUHK03-NP")
        return Benchmark("cuhk03", root, *splits, trial=trial, options=options)
    archive = _archive(root, split, boxes)
    if split == "classic":
        images = extract(archive, boxes)
        check_trial("cuhk03", trial, len(images.test_sets))
        return Benchmark(
            "cuhk03",
            root,
            *_classic(images, trial),
            num_trials=len(images.test_sets),
            trial=trial,
            options=options,
            protocols=SINGLE_SHOT,
            extracted=images.identity,
        )
    config = read_config(find_config(root, boxes))  # before minutes are spent on extracting
    images = extract(archive, boxes)
    splits = _new(images, config)
    return Benchmark("cuhk03", root, *splits, trial=trial, options=options, extracted=images.identity)


def survey_cuhk03(root: Path, *, split: str = "classic", boxes: str = "labelled") -> Survey:
    """CUHK03 against the official counts: of all images and each camera pair, or of CUHK03-NP's folders.

    Images that have not been extracted yet are extracted.
    """
    _check_options(split, boxes)
    require_folder(root)
    if ready_made := _ready_made(root, split, boxes):
        found = survey_market_layout(ready_made, "CUHK03-NP")
        order = ("bounding_box_train", "query", "bounding_box_test")
        found.expected = _new_counts(boxes, order)
        note_rules(found)
        return found
    found = Survey(expected=_archive_counts(boxes))
    try:
        images = extract(_archive(root, split, boxes), boxes)
    except InputError as error:
        found.add(error)
        return found
    everything = _all_images(images)
    pairs_n = images.numbers[:, 0]
    found.parts = {boxes: everything} | {
        f"pair {pair}": everything.select(pairs_n == pair)
        for pair in range(1, len(images.persons_of_pairs) + 1)
    }
    if split == "classic":
        _survey_classic(found, images)
    else:
        _survey_new(found, images, root, boxes)
    views = {}
    for person, view in zip(everything.person_ids.tolist(), everything.camera_ids.tolist(), strict=True):
        views.setdefault(person, set()).add(view)
    if one_sided := [person for person, seen in views.items() if len(seen) == 1]:
        found.remarks.append(
            f"{counted(len(one_sided), 'persons')} with images of one view only: {shorten(one_sided)}"
        )
    return found


def _survey_classic(found: Survey, images: Extraction) -> None:
    sizes = [len(one) for one in images.test_sets]
    if sizes != [TEST_PERSONS] * NUM_TRIALS:
        found.problems.append(
            f"testsets holds {NUM_TRIALS} sets of {TEST_PERSONS} persons; got {counted(len(sizes), 'sets')}"
            f" of {', '.join(map(str, sorted(set(sizes)))) or 'no'} persons; download or copy the file again"
        )
    for trial in range(len(images.test_sets)):
        splits = _classic(images, trial)
        found.problems += [f"trial {trial}: {violation}" for violation in rule_violations(*splits)]
        if unmatched := np.count_nonzero(~queries_with_match(*splits[1:])):
            found.remarks.append(f"trial {trial}: {unmatched} of {len(splits[1])} queries have no match")


def _survey_new(found: Survey, images: Extraction, root: Path, boxes: str) -> None:
    try:
        splits = _new(images, read_config(find_config(root, boxes)))
    except InputError as error:
        found.problems.append(str(error))
        return
    found.parts |= dict(zip(("train", "query", "gallery"), splits, strict=True))
    found.expected = {**found.expected, **_new_counts(boxes, ("train", "query", "gallery"))}
    found.problems += map(str, rule_violations(*splits))


def _archive_counts(boxes: str) -> Counts:
    total = {"images": sum(_IMAGES_OF_PAIRS[boxes]), "identities": sum(PERSONS_OF_PAIRS), "cameras": 2}
    pairs = zip(_IMAGES_OF_PAIRS[boxes], PERSONS_OF_PAIRS, strict=True)
    return {boxes: total} | {
        f"pair {pair}": {"images": images, "identities": persons}
        for pair, (images, persons) in enumerate(pairs, 1)
    }


def _new_counts(boxes: str, parts: tuple[str, str, str]) -> Counts:
    rows = zip(parts, _NEW_IMAGES[boxes], _NEW_IDENTITIES, strict=True)
    return {part: {"images": images, "identities": persons, "cameras": 2} for part, images, persons in rows}


def _check_options(split: str, boxes: str) -> None:
    one_of("the split of cuhk03", split, SPLITS)
    one_of("cuhk03's boxes", boxes, tuple(KINDS))


def _ready_made(root: Path, split: str, boxes: str) -> Path | None:
    """CUHK03-NP's folder of these boxes, where the new split is wanted and the archive cannot give it."""
    folder = root / KINDS[boxes]
    if split != "new" or not set(MARKET_FOLDERS) & folder_names(folder):
        return None
    from_archive = (root / ARCHIVE).is_file() and any(path.is_file() for path in config_files(root, boxes))
    return None if from_archive else folder


def _is_ready_made(folder: Path) -> bool:
    return any(set(MARKET_FOLDERS) <= folder_names(folder / kind) for kind in KINDS.values())


def _archive(root: Path, split: str, boxes: str) -> Path:
    """The archive in ``root``; ``InputError`` says what is there instead and what was probably meant."""
    require_folder(root)
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

    if not _is_ready_made(root) and (near := misplaced(root, holds)):
        raise Misplaced(wanted, value, near)
    raise InputError(wanted, value, _instead(root, split, boxes, files))


def _instead(root: Path, split: str, boxes: str, files: list[str]) -> str:
    if _is_ready_made(root):
        if split == "new":
            return f"unpack CUHK03-NP's folder {KINDS[boxes]} too"
        return "these are CUHK03-NP's folders, which hold the new protocol alone: read them with split=new"
    if mend := unpacking(root):
        return mend
    mats = [name for name in files if name.lower().endswith(".mat") and "protocol" not in name]
    return near_miss(ARCHIVE, mats, rename=True) or "unpack cuhk03_release.zip and give its folder"


def _all_images(images: Extraction) -> Split:
    pairs_n, persons_n, views_n, _ = images.numbers.T
    paths = tuple(images.folder / name for name in images.names)
    return Split(paths, images.person_ids(pairs_n, persons_n), views_n)


def _classic(images: Extraction, trial: int) -> tuple[Split, Split, Split]:
    everything = _all_images(images)
    chosen = np.array(images.test_sets[trial], dtype=np.int64).reshape(-1, 2)
    tested_n = np.isin(everything.person_ids, images.person_ids(*chosen.T))
    test = everything.select(tested_n)
    return everything.select(~tested_n), test, test


def _new(images: Extraction, config: Config) -> tuple[Split, Split, Split]:
    everything = _all_images(images)
    # An extracted file has the list's name behind the kind of its boxes.
    place_of = {name.partition("_")[2]: place for place, name in enumerate(images.names)}
    if absent := [name for name in config.names if name not in place_of]:
        raise InputError(
            f"the images that {config.file.name} names are in {ARCHIVE}",
            f"{len(absent)} that are not: {shorten(absent)}",
            "both belong to the same boxes and the complete archive: download or copy them again",
        )
    places_n = np.array([place_of[name] for name in config.names], dtype=np.int64)
    person_ids_n, camera_ids_n = everything.person_ids[places_n], everything.camera_ids[places_n]
    differs_n = (person_ids_n != config.person_ids) | (camera_ids_n != config.camera_ids)
    if differs_n.any():
        row = int(np.flatnonzero(differs_n)[0])
        raise InputError(
            f"{config.file.name} counts persons and views as {ARCHIVE} does",
            f"person {config.person_ids[row]}, view {config.camera_ids[row]} for {config.names[row]}, which"
            f" is person {person_ids_n[row]}, view {camera_ids_n[row]}",
            CONFIG_SOURCE,
        )
    # By name, whatever the order of the list.
    train, query, gallery = (everything.select(np.sort(places_n[rows])) for rows in config.rows)
    return train, query, gallery
