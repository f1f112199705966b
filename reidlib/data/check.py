"""What is in a benchmark: its folder against what belongs there, image by image, and its splits counted."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.images import Unreadable, UnreadableError, decode_blocks
from reidlib.data.readers import read
from reidlib.data.readers.layout import Reading, table
from reidlib.data.rules import DISTRACTOR, JUNK
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted
from reidlib.files import find_json, write_json


@dataclass(frozen=True)
class Count:
    """How many of something a part holds, and how many belong there (None found: the part is missing)."""

    folder: str
    what: str
    found: int | None
    expected: int

    @property
    def agrees(self) -> bool:
        """Is there exactly what belongs there?"""
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
        if self.counts:
            lines.append(f"{'folder':<20}{'':<14}{'found':>8}{'belongs':>10}")
        for count in self.counts:
            found = "missing" if count.found is None else f"{count.found:,}"
            mark = "" if count.agrees else "  differs"
            lines.append(f"{count.folder:<20}{count.what:<14}{found:>8}{count.expected:>10,}{mark}")
        if self.counts:
            lines.append("")
        lines += [f"problem: {problem}" for problem in self.problems]
        lines += [f"remark: {remark}" for remark in self.remarks]
        lines.append("complete and readable" if self.ok else counted(len(self.problems), "problems"))
        return "\n".join(lines)


def check(
    name: str, root: str | Path, *, progress: bool = True, again: bool = False, **options
) -> CheckReport:
    """Count, decode and compare everything in the folder ``root`` of the benchmark ``name``.

    Counts are compared with the official ones (``market1501``) or the renderer's (``synthetic``). Any
    difference is a problem, because scores on a part of a benchmark are not comparable; ``load`` takes such
    a folder all the same where it keeps the rules. All problems are reported at once, but for a folder that
    lies one level off, which is the only one then. All trials are looked at; a ``trial`` among the
    ``options`` must be one that can be loaded. An image that an earlier check with the same options could
    read is not read ``again`` while its size and times stay the same.

    Raises ``InputError`` for an unknown name and where there is no such folder.
    """
    root = Path(root).expanduser().absolute()
    reading, refused = _reading(name, root, options)
    problems = list(reading.all_problems)
    if reading.misplaced:
        return CheckReport(name, root, (), tuple(problems), ())
    # Beside a folder that holds nothing of the benchmark, a table of what lacks hides the one helpful line.
    counts = counts_of(reading) if reading.parts else ()
    # The reading may have said the same, with the trial's number before it.
    problems += [problem for problem in refused if not any(problem in said for said in problems)]
    problems += _differing(counts, fewer=reading.again, more="take out what does not belong there")
    paths = [path for split in reading.parts.values() for path in split.paths]
    remarks = list(reading.remarks)
    record = _record(name, root, options)
    unreadable, spared = _unreadable(list(dict.fromkeys(paths)), record, progress, again)
    if unreadable:
        problems.append(str(UnreadableError(unreadable)))
    if spared:
        remarks.append(f"{counted(spared, 'images')} read by an earlier check and not changed since")
    return CheckReport(name, root, counts, tuple(problems), tuple(remarks))


def count_deviations(name: str, root: str | Path, **options) -> list[str]:
    """In what the folder of a benchmark differs from the official counts; empty where it is whole.

    With a ``trial`` among the ``options``, that it cannot be loaded is a difference too, and so is a folder
    that lies one level off. No image is read. Raises ``InputError`` like ``check``.
    """
    reading, refused = _reading(name, Path(root).expanduser().absolute(), options)
    return reading.all_problems if reading.misplaced else [*refused, *_differing(counts_of(reading))]


def _reading(name: str, root: Path, options: dict[str, str | int | bool]) -> tuple[Reading, list[str]]:
    """The reading, and what making the ``trial`` of the ``options`` raises."""
    reading = read(name, root, **{key: value for key, value in options.items() if key != "trial"})
    try:
        if "trial" in options:
            reading.benchmark(options["trial"])
    except InputError as error:
        return reading, [str(error)]
    return reading, []


def counts_of(reading: Reading) -> tuple[Count, ...]:
    """Every expected count beside what was found."""
    _ = reading.all_problems  # whose search may find parts to be counted
    return tuple(
        Count(part, what, _count(reading.parts[part], what) if part in reading.parts else None, number)
        for part, row in reading.expected.items()
        for what, number in row.items()
    )


def _count(split: Split, what: str) -> int:
    ids = split.person_ids
    counts = {
        "images": len(split),
        "identities": len(np.unique(ids[ids > 0])),
        "cameras": len(np.unique(split.camera_ids)),
        "junk": int(np.count_nonzero(ids == JUNK)),
        "distractors": int(np.count_nonzero(ids == DISTRACTOR)),
    }
    if what not in counts:
        rule = "a rendering counts images, identities, cameras, junk and distractors"
        raise InputError(rule, what, "render the folder again")
    return counts[what]


def _differing(counts: Sequence[Count], **mends: str) -> list[str]:
    """Every difference; ``mends`` for "fewer" and "more" stand behind the first of either kind alone."""
    said = []
    for count in counts:
        if count.found is None or count.agrees:
            continue
        way = "fewer" if count.found < count.expected else "more"
        mend = f"; {mends.pop(way)}" if way in mends else ""
        said.append(
            f"{count.folder} holds {counted(count.found, count.what)},"
            f" {abs(count.expected - count.found):,} {way} than belong there{mend}"
        )
    return said


def _record(name: str, root: Path, options: dict[str, str | int | bool]) -> Path:
    """Where it is noted which images could be read: by root and what is read there."""
    read = sorted((key, value) for key, value in options.items() if key != "trial")
    key = hashlib.sha256(repr((str(root), name, read)).encode("utf-8", "surrogateescape")).hexdigest()
    return files.home() / "checked" / f"{key[:16]}.json"


def _unreadable(
    paths: Sequence[Path], record: Path, progress: bool, again: bool
) -> tuple[list[Unreadable], int]:
    """The files that cannot be decoded, and how many were not tried, because they could be before.

    What could be decoded is kept in ``record``, with sizes and times; one that is lost costs time alone.
    """
    known = {} if again else find_json(record) or {}
    states = {}
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, tens of thousands
        except OSError:
            continue  # the decoder says what is wrong with it
        # The time of the last change tells of a damaged copy whose time of writing was put back.
        states[str(path)] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    waiting = [path for path in paths if known.get(str(path)) != states.get(str(path), "")]
    blocks = decode_blocks(waiting, None, title="reading every image", progress=progress and bool(waiting))
    unreadable = [image for block in blocks for image in block if isinstance(image, Unreadable)]
    damaged = {str(image.path) for image in unreadable}
    if waiting:
        with contextlib.suppress(InputError):  # a check needs no folder that can be written
            write_json(record, {path: state for path, state in states.items() if path not in damaged})
    return unreadable, len(paths) - len(waiting)


def counts_by_identity(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Images and cameras of each identity of a split, junk and distractors left out: two int64 (K,)."""
    known = split.person_ids > 0
    persons, cameras = split.person_ids[known], split.camera_ids[known]
    images_k = np.unique(persons, return_counts=True)[1]
    sightings = np.unique(np.stack([persons, cameras]), axis=1)
    return images_k, np.unique(sightings[0], return_counts=True)[1]


def counts_by_camera(benchmark: Benchmark) -> tuple[np.ndarray, list[int]]:
    """Images of each split and camera, int64 (3, cameras) in the order train, query, gallery; the cameras."""
    splits = (benchmark.train, benchmark.query, benchmark.gallery)
    cameras = np.unique(np.concatenate([split.camera_ids for split in splits])).tolist()
    counts = [[np.count_nonzero(split.camera_ids == camera) for camera in cameras] for split in splits]
    return np.array(counts), cameras


def image_sizes(split: Split, *, most: int = 2000, seed: int = 0) -> np.ndarray:
    """Height and width in pixels of a split's files, int64 (N, 2); of ``most`` drawn ones if there are more.

    Only the headers are read.
    """
    chosen = np.random.default_rng(seed).permutation(len(split))[:most]
    sizes = []
    for index in np.sort(chosen):
        with Image.open(split.paths[index]) as image:
            sizes.append((image.height, image.width))
    return np.array(sizes)


def shared_images(benchmark: Benchmark) -> list[tuple[Path, ...]]:
    """Groups of files with the very same bytes, of which one is a training and another a test image.

    The query's own copy in the gallery, which some sets have, is no leak and not listed.
    """
    groups: dict[bytes, list[tuple[bool, Path]]] = defaultdict(list)
    for split, training in ((benchmark.train, True), (benchmark.query, False), (benchmark.gallery, False)):
        for path in split.paths:
            groups[hashlib.sha256(path.read_bytes()).digest()].append((training, path))
    return [
        tuple(path for _, path in group)
        for group in groups.values()
        if {training for training, _ in group} == {True, False}
    ]


def rendered_truth(root: Path) -> dict[str, np.ndarray]:
    """The columns of a rendered benchmark's ``factors.csv``: text as it stands, numbers as float64.

    Angles are in radians, lengths in metres; one row for each image.
    """
    rows = table(root / "factors.csv")
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        try:
            columns[name] = np.array(values, dtype=float)
        except ValueError:
            columns[name] = np.array(values)
    return columns
