"""What is in a benchmark's folder against what belongs there, image by image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reidlib.data.benchmarks import (
    BOXES_FOLDER,
    MARKET_FOLDERS,
    hand_drawn_boxes,
    index_folder,
    missing_folders,
    name_error,
    reader_of,
    rendering_counts,
    require_folder,
)
from reidlib.data.images import Unreadable, decode_blocks, unreadable_error
from reidlib.data.records import (
    DISTRACTOR,
    JUNK,
    Split,
    queries_with_match,
    rule_violations,
    shorten,
)
from reidlib.errors import InputError

# The official package (Zheng et al. 2015), counted; its web page says 2,793 distractors.
MARKET_COUNTS = {
    "bounding_box_train": {"images": 12_936, "identities": 751, "cameras": 6},
    "query": {"images": 3_368, "identities": 750, "cameras": 6},
    "bounding_box_test": {
        "images": 19_732,
        "identities": 750,
        "cameras": 6,
        "junk": 3_819,
        "distractors": 2_798,
    },
}


@dataclass(frozen=True)
class Count:
    """How many of something a folder holds, and how many belong there (None where the folder is missing)."""

    folder: str
    what: str
    found: int | None
    expected: int

    @property
    def agrees(self) -> bool:
        return self.found == self.expected


@dataclass(frozen=True)
class CheckReport:
    """The outcome of ``check``: counts, problems that make it fail, and remarks that do not."""

    name: str
    root: Path
    counts: tuple[Count, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Is everything there that belongs there, readable and within the rules?"""
        return not self.problems

    def text(self) -> str:
        """The report for people: a table, then each problem and remark in a line of its own."""
        lines = [f"{self.name} in {self.root}", ""]
        lines += [f"{'folder':<20}{'':<14}{'found':>8}{'belongs':>10}"]
        for count in self.counts:
            found = "missing" if count.found is None else f"{count.found:,}"
            mark = "" if count.agrees else "  differs"
            lines.append(f"{count.folder:<20}{count.what:<14}{found:>8}{count.expected:>10,}{mark}")
        lines.append("")
        lines += [f"problem: {problem}" for problem in self.problems]
        lines += [f"remark: {remark}" for remark in self.remarks]
        lines.append("complete and readable" if self.ok else f"{len(self.problems)} problems")
        return "\n".join(lines)


def check(name: str, root: str | Path, *, progress: bool = True) -> CheckReport:
    """Count, decode and compare everything in the folder ``root`` of the benchmark ``name``.

    Counts are compared with the official ones (``market1501``) or the renderer's (``synthetic``). Any
    difference is a problem, because scores on a part of a benchmark are not comparable; ``load`` takes such
    a folder all the same where it keeps the rules. All problems are reported at once.

    Raises ``InputError`` for an unknown name and where there is no such folder.
    """
    reader_of(name)
    root = Path(root).expanduser().absolute()
    require_folder(root)
    problems, remarks = [], []
    if error := missing_folders(root):
        problems.append(str(error))
    indexes = {f: index_folder(root / f) for f in MARKET_FOLDERS if (root / f).is_dir()}
    splits = {folder: index.split for folder, index in indexes.items()}
    if unparsed := [path for index in indexes.values() for path in index.unparsed]:
        problems.append(str(name_error(unparsed)))
    try:
        expected = MARKET_COUNTS if name == "market1501" else rendering_counts(root)
        counts = _compared(splits, expected)
    except InputError as error:
        counts = ()
        problems.append(str(error))
    problems += [
        f"{count.folder} holds {count.found:,} {count.what}, {abs(count.expected - count.found):,}"
        f" {'fewer' if count.found < count.expected else 'more'} than belong there"
        for count in counts
        if count.found is not None and not count.agrees
    ]
    if name == "market1501" and (absent := _absent_identities(splits)):
        problems.append(f"identities 1 to 1501 of which nothing is there: {shorten(absent, 20)}")
    boxes = None
    if name == "market1501" and "query" in splits:
        try:
            boxes = hand_drawn_boxes(root, splits["query"])
        except InputError as error:
            problems.append(str(error))
        if boxes is not None:
            remarks.append(f"{BOXES_FOLDER} holds {len(boxes):,} boxes of the queries, for multi-query")
    if len(splits) == len(MARKET_FOLDERS):
        train, query, gallery = splits.values()
        problems += map(str, rule_violations(train, query, gallery, boxes))
        if unmatched := int(np.count_nonzero(~queries_with_match(query, gallery))):
            names = [query.paths[index].name for index in np.flatnonzero(~queries_with_match(query, gallery))]
            remarks.append(f"{unmatched} of {len(query)} queries have no match: {shorten(names)}")
    listed = [*splits.values(), *([] if boxes is None else [boxes])]
    if unreadable := _unreadable([path for split in listed for path in split.paths], progress):
        problems.append(str(unreadable_error(unreadable)))
    return CheckReport(name, root, counts, tuple(problems), tuple(remarks))


def _compared(splits: dict[str, Split], expected: dict[str, dict[str, int]]) -> tuple[Count, ...]:
    return tuple(
        Count(folder, what, _count(splits[folder], what) if folder in splits else None, number)
        for folder in MARKET_FOLDERS
        for what, number in expected[folder].items()
    )


def _count(split: Split, what: str) -> int:
    ids = split.person_ids
    match what:
        case "images":
            return len(split)
        case "identities":
            return len(np.unique(ids[ids > 0]))
        case "cameras":
            return len(np.unique(split.camera_ids))
        case "junk":
            return int(np.count_nonzero(ids == JUNK))
        case "distractors":
            return int(np.count_nonzero(ids == DISTRACTOR))
    raise InputError(
        "a rendering counts images, identities, cameras, junk and distractors",
        what,
        "render the folder again",
    )


def _absent_identities(splits: dict[str, Split]) -> list[int]:
    # 751 training and 750 test identities share the numbers 1 to 1501, each of which therefore occurs.
    there = [split.person_ids for split in splits.values()]
    present = np.unique(np.concatenate(there)) if there else []
    return np.setdiff1d(np.arange(1, 1502), present).tolist()


def _unreadable(paths: list[Path], progress: bool) -> list[Unreadable]:
    blocks = decode_blocks(paths, None, title="reading every image", progress=progress)
    return [image for block in blocks for image in block if isinstance(image, Unreadable)]
