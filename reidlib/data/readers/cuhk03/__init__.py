"""Reader of CUHK03 (Li et al. 2014): 1,467 persons, each seen by the two cameras of one of five pairs.

``split="classic"``: trial k tests the 100 persons of the archive's test set k, of 20, and trains on all
others. Query and gallery are all images of the test persons; ``protocols`` has the papers' single-shot
scores.

``split="new"`` (Zhong et al. 2017): 767 persons for training and 700 for testing, scored like Market-1501.
The splits come from ``cuhk03_new_protocol_config_labeled.mat`` (or ``_detected.mat``) in the folder or above
it; or the images come from the ready-made folders ``labeled`` and ``detected`` of CUHK03-NP, without the
archive.

With ``validation`` and ``training_only`` (``reidlib.data.readers.persons``) only training images are read:
those of the split, or without the archive those in ``bounding_box_train`` of the folders ``labelled`` (or
``labeled``) and ``detected``. These may show whatever persons; ``split="new"`` expects that protocol's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol, check_trial
from reidlib.data.readers.cuhk03.archive import ARCHIVE, KINDS, Extraction, TestSets, extract
from reidlib.data.readers.layout import (
    Counts,
    MisplacedFolder,
    Reading,
    check_option,
    misplaced_hint,
    non_default_options,
    official_counts,
    require_folder,
    spelling_hint,
    unpack_hint,
)
from reidlib.data.readers.listing import folder_names
from reidlib.data.readers.market import MARKET_FOLDERS, market_splits, read_market_layout
from reidlib.data.readers.persons import (
    TRAINING_ALONE,
    Splits,
    describe_splits,
    training_splits,
    training_use,
)
from reidlib.data.rules import queries_without_match, rule_violations
from reidlib.data.splits import Split, concatenate
from reidlib.errors import InputError, count_noun, shorten

SPLITS = ("classic", "new")
BOTH = "both"  # both kinds of boxes, as the value of the option
NUM_TRIALS = 20  # all test sets of the archive; that JLML used all is recalled
TEST_PERSONS = 100  # read in the archive
SINGLE_SHOT = {  # ten draws are our choice
    "single-shot": Protocol("single", draws=10),
    "single-shot, view 1 to 2": Protocol("single", draws=10, query_cameras=(1,)),
}

CONFIG_SOURCE = (
    "get it from zhunzhong07/person-re-ranking on GitHub, evaluation/data/CUHK03, and put it beside"
    f" {ARCHIVE}"
)
_KEYS = ("filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx")


def cuhk03(
    root: Path,
    *,
    split: str = "classic",
    boxes: str = "labelled",
    validation: bool = False,
    training_only: bool = False,
) -> Reading:
    """Read CUHK03 (Li et al. 2014).

    The archive's images are written to files when they are first read. Person ids count from 1 through the
    camera pairs; the camera id is the view, 1 or 2.

    Args:
        root: Folder with ``cuhk-03.mat``, or for the new split with CUHK03-NP's ``labeled`` and ``detected``.
        split: "classic": trial k, of 20, tests the 100 persons of the archive's test set k; ``protocols`` has
            the papers' single-shot scores. "new": one trial with 767 persons for training and 700 for
            testing, scored like Market-1501.
        boxes: "labelled" by hand, or "detected"; for ``training_only`` also "both", with the same persons.
        validation: Whether to divide the training persons into training and validation.
        training_only: Whether to read only training images, for pre-training.

    Returns:
        The reading.

    Raises:
        InputError: If an option is unknown, options contradict each other, or the folder does not exist.
    """
    use = training_use(validation, training_only)
    check_option("the split of cuhk03", split, SPLITS)
    if boxes == BOTH and not training_only:
        rule = "boxes=both is for pre-training: query and gallery would have each image twice"
        raise InputError(rule, "boxes=both", "add training_only=true, or choose labelled or detected")
    check_option("cuhk03's boxes", boxes, (*KINDS, BOTH))
    require_folder(root)
    options = non_default_options(cuhk03, split=split, boxes=boxes) | use
    title = f"cuhk03 with split={split}"
    kinds = tuple(KINDS) if boxes == BOTH else (boxes,)
    if ready_made := [folder for kind in kinds if (folder := _ready_made(root, split, kind, use))]:
        return _read_ready_made(title, root, split, kinds, ready_made, options, use)
    classic = split == "classic"
    reading = Reading(title, NUM_TRIALS if classic else 1, use=use)
    archive = reading.attempt(_find_archive, root, split, boxes, use)
    lists = {}
    for kind in kinds:
        counts = _official_counts(kind)  # a check of both kinds does not count camera pairs
        reading.expected_counts = {
            **reading.expected_counts,
            **(counts if kind == boxes else {kind: counts[kind]}),
        }
        if not (classic or archive is None):
            lists[kind] = reading.attempt(_read_lists, root, kind)

    @cache  # called only when a trial is known to exist, because this takes minutes
    def images(kind: str = kinds[0]) -> Extraction:
        assert archive is not None  # otherwise the reading has a problem
        return extract(archive, kind)

    def splits_of(trial: int) -> Splits:
        if classic:
            check_trial("cuhk03", trial, len(images().test_sets))
        all_splits = [
            _classic_splits(images(kind), trial) if classic else _new_splits(images(kind), *lists[kind])
            for kind in kinds
        ]
        return training_splits(concatenate([s[0] for s in all_splits]), use) if use else all_splits[0]

    def make_benchmark(trial: int) -> Benchmark:
        return Benchmark(
            "cuhk03",
            root,
            *splits_of(trial),
            num_trials=len(images().test_sets) if classic else 1,
            trial=trial,
            options=options,
            protocols=SINGLE_SHOT if classic and not training_only else {},
            extracted=images().identity,
        )

    def examine() -> Iterator[InputError | str]:
        if archive is None:
            return
        reading.splits = {}
        for kind in kinds:
            all_images, pairs_n = images(kind).split, images(kind).numbers[:, 0]
            reading.splits |= {kind: all_images} | {
                f"pair {pair}": all_images.select(pairs_n == pair)
                for pair in range(1, len(images(kind).persons_of_pairs) + 1)
            }
            first, second = (all_images.person_ids[all_images.camera_ids == view] for view in (1, 2))
            if persons := np.setxor1d(first, second).tolist():
                views = f"{count_noun(len(persons), 'persons')} with images from only one view"
                reading.remarks.append(f"{views}: {shorten(persons)}")
        if classic:
            yield from _trial_problems(reading, images().test_sets, splits_of)
        if use and not reading.problems and (images().test_sets or not classic):
            text = describe_splits("", splits_of(0), use)
            reading.remarks.append(f"trial 0: {text}" if classic else text)
        if all(lists.values()) and lists:
            splits = splits_of(0)
            yield from rule_violations(*splits, training_only=training_only)
            if not use:
                reading.splits |= dict(zip(("train", "query", "gallery"), splits, strict=True))
                reading.expected_counts = {**reading.expected_counts, **_official_counts(boxes, "new")}

    reading.make_benchmark, reading.examine = make_benchmark, examine
    return reading


def _read_ready_made(
    title: str,
    root: Path,
    split: str,
    kinds: Sequence[str],
    folders: Sequence[Path],
    options: Mapping[str, str | int | bool],
    use: dict[str, bool],
) -> Reading:
    """Read the folders of CUHK03-NP of these kinds of boxes, or others with a training folder."""
    counts = {}
    if split == "new":
        counts = dict(zip(MARKET_FOLDERS, _official_counts(kinds[0], "new").values(), strict=True))
    if len(kinds) == 1:
        reading = read_market_layout(title, folders[0], "CUHK03-NP", counts, use)
    else:
        names = {kind: f"{_folder_name(root, kind)}/{MARKET_FOLDERS[0]}" for kind in kinds}
        if counts:
            counts = {name: _official_counts(kind, "new")["train"] for kind, name in names.items()}
        reading = read_market_layout(title, root, "CUHK03-NP", counts, use, tuple(names.values()))
        first, *others = (split.person_ids for split in reading.splits.values())
        if others and len(odd := np.setxor1d(first, others[0])):
            value = f"{count_noun(len(odd), 'persons')} in only one of them: {shorten(odd.tolist())}"
            mend = "unpack both completely, or choose boxes=labelled or boxes=detected"
            reading.problems.append(
                InputError("labelled and detected boxes show the same persons", value, mend)
            )
    reading.num_trials = 1
    reading.make_benchmark = lambda trial: Benchmark(
        "cuhk03", root, *market_splits(reading), trial=trial, options=options
    )
    return reading


def _trial_problems(
    reading: Reading, test_sets: TestSets, splits_of: Callable[[int], Splits]
) -> Iterator[InputError | str]:
    """Yield the problems of all test sets, and remark on queries without a match."""
    sizes = [len(test_set) for test_set in test_sets]
    if sizes != [TEST_PERSONS] * NUM_TRIALS:
        yield (
            f"testsets has {NUM_TRIALS} sets of {TEST_PERSONS} persons; got {count_noun(len(sizes), 'sets')}"
            f" of {', '.join(map(str, sorted(set(sizes)))) or 'no'} persons; download or copy the file again"
        )
    for trial in range(len(test_sets)):
        splits = splits_of(trial)
        for violation in rule_violations(*splits, training_only="training_only" in reading.use):
            yield f"trial {trial}: {violation}"
        if unmatched := queries_without_match(*splits[1:]):
            reading.remarks.append(
                f"trial {trial}: {len(unmatched)} of {len(splits[1])} queries have no match"
            )


def _official_counts(boxes: str, split: str = "") -> Counts:
    """Return the counts of the archive's boxes and camera pairs, or those of train, query and gallery."""
    return official_counts(f"cuhk03,boxes={boxes}" + (f",split={split}" if split else ""))


def _ready_made(root: Path, split: str, boxes: str, use: Mapping[str, bool]) -> Path | None:
    """Return the folder of these boxes, if the split or the use needs it because the archive is missing."""
    folder = root / (_folder_name(root, boxes) if use else KINDS[boxes])
    if not (use or split == "new") or not set(MARKET_FOLDERS[: 1 if use else 3]) & folder_names(folder):
        return None
    if split == "classic":
        return None if (root / ARCHIVE).is_file() else folder
    from_archive = (root / ARCHIVE).is_file() and any(path.is_file() for path in _config_files(root, boxes))
    return None if from_archive else folder


def _folder_name(root: Path, boxes: str) -> str:
    """Return the option's name of the folder of these boxes if it has training images, or CUHK03-NP's."""
    return boxes if MARKET_FOLDERS[0] in folder_names(root / boxes) else KINDS[boxes]


def _is_ready_made(folder: Path) -> bool:
    return any(set(MARKET_FOLDERS) <= folder_names(folder / kind) for kind in KINDS.values())


def _find_archive(root: Path, split: str, boxes: str, use: Mapping[str, bool]) -> Path:
    """Return the archive in ``root``, or raise an error with the folder's content and a hint."""
    if (archive := root / ARCHIVE).is_file():
        return archive
    rule = "cuhk03 is read from a folder that contains " + ARCHIVE
    if split == "new":
        rule += " or CUHK03-NP's folders labeled and detected"
    files = sorted(path.name for path in root.iterdir() if path.is_file() and not path.name.startswith("."))
    content = shorten([*sorted(folder_names(root)), *files], 10) or "nothing"
    value = f"{root}, which contains {content}"

    def is_readable(folder: Path) -> bool:
        return (folder / ARCHIVE).is_file() or (split == "new" and _is_ready_made(folder))

    if _is_ready_made(root) and not use:
        mend = "read CUHK03-NP's folders, which only have the new protocol, with split=new"
        if split == "new":
            mend = f"unpack CUHK03-NP's folder {KINDS[boxes]} too"
    elif present := [k for k in KINDS if MARKET_FOLDERS[0] in folder_names(root / _folder_name(root, k))]:
        mend = f"read {MARKET_FOLDERS[0]} alone, {TRAINING_ALONE} and boxes={' or '.join(present)}"
    elif near := misplaced_hint(root, is_readable):
        raise MisplacedFolder(rule, value, near)
    else:
        mats = [name for name in files if name.lower().endswith(".mat") and "protocol" not in name]
        mend = unpack_hint(root) or spelling_hint(ARCHIVE, mats, rename=True)
    raise InputError(rule, value, mend or "unpack cuhk03_release.zip and give its folder")


def _classic_splits(images: Extraction, trial: int) -> tuple[Split, Split, Split]:
    test_set = np.array(images.test_sets[trial], dtype=np.int64).reshape(-1, 2)
    in_test_n = np.isin(images.split.person_ids, images.person_ids(*test_set.T))
    test = images.split.select(in_test_n)
    return images.split.select(~in_test_n), test, test


def _new_splits(
    images: Extraction, file: Path, lists: Split, *rows: np.ndarray
) -> tuple[Split, Split, Split]:
    """Return the new protocol's train, query and gallery from the lists of ``_read_lists``."""
    names = list(map(str, lists.paths))
    # The name of an extracted file is the kind of boxes followed by the name in the list.
    indices = {name.partition("_")[2]: index for index, name in enumerate(images.names)}
    if absent := [name for name in names if name not in indices]:
        raise InputError(
            f"all images listed in {file.name} are in {ARCHIVE}",
            f"{len(absent)} missing: {shorten(absent)}",
            "download or copy both files again, for the same boxes and from the complete archive",
        )
    indices_n = np.array([indices[name] for name in names], dtype=np.int64)
    selected = images.split.select(indices_n)
    differs_n = (selected.person_ids != lists.person_ids) | (selected.camera_ids != lists.camera_ids)
    if differs_n.any():
        row = int(np.flatnonzero(differs_n)[0])
        raise InputError(
            f"{file.name} numbers persons and views like {ARCHIVE}",
            f"person {lists.person_ids[row]}, view {lists.camera_ids[row]} for {names[row]}, which"
            f" is person {selected.person_ids[row]}, view {selected.camera_ids[row]}",
            CONFIG_SOURCE,
        )
    # Sorted by name, independently of the list's order.
    train, query, gallery = (images.split.select(np.sort(indices_n[split_rows])) for split_rows in rows)
    return train, query, gallery


def _config_files(root: Path, boxes: str) -> list[Path]:
    """Return the possible paths of the lists: beside the archive or, as for torchreid, above it."""
    name = f"cuhk03_new_protocol_config_{KINDS[boxes]}.mat"
    return [root / name, root.parent / name]


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "iuf" or not (np.abs(values) < 2**31).all() or (values % 1).any():
        raise ValueError(f"{values.dtype} instead of a list of whole numbers")
    return values.ravel().astype(np.int64)


def _read_lists(root: Path, boxes: str) -> tuple[Path, Split, np.ndarray, np.ndarray, np.ndarray]:
    """Read the list of images and the sorted rows of train, query and gallery; also return their file."""
    # Its import is slow, and only this protocol needs it.
    from scipy.io import loadmat

    candidates = _config_files(root, boxes)
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        raise InputError(
            f"cuhk03's new split needs {candidates[0].name}",
            f"no such file in {root} or above it",
            CONFIG_SOURCE,
        )
    rule = f"{file.name} contains the new protocol's lists, in MATLAB's version 5 to 7"
    try:
        content = loadmat(file)
    except NotImplementedError:
        raise InputError(
            rule, f"{file}, in version 7.3", f"{CONFIG_SOURCE}, or save it in MATLAB with '-v7'"
        ) from None
    except Exception as error:  # for damaged files, scipy raises one of half a dozen types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(rule, f"{file}: {reason}", CONFIG_SOURCE) from error
    if missing := [key for key in _KEYS if key not in content]:
        raise InputError(rule, f"{file}, which lacks {', '.join(missing)}", CONFIG_SOURCE)
    try:
        names = tuple(Path(str(np.asarray(cell).item())) for cell in content["filelist"].ravel())
        numbers = [_whole_numbers(content[key]) for key in _KEYS[1:]]
    except (ValueError, TypeError) as error:
        raise InputError(rule, f"{file}: {' '.join(str(error).split())}", CONFIG_SOURCE) from error
    labels, cameras, *rows = numbers
    if not len(names) == len(labels) == len(cameras):
        lengths = f"{len(names)} names, {len(labels)} labels, {len(cameras)} cameras"
        raise InputError(rule, f"{file} with {lengths}", CONFIG_SOURCE)
    for key, indices in zip(_KEYS[3:], rows, strict=True):
        if invalid := indices[(indices < 1) | (indices > len(names))].tolist():
            value = f"{file}, whose {key} names rows {shorten(invalid)} of {len(names)}"
            raise InputError(rule, value, CONFIG_SOURCE)
    train, query, gallery = (np.sort(indices - 1) for indices in rows)  # MATLAB counts from 1
    return file, Split(names, labels, cameras), train, query, gallery
