"""Check a benchmark's folder against the official counts, and count the images of its splits."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.decoding import (
    TREATMENTS,
    UnreadableImage,
    UnreadableImagesError,
    shown_size,
    treatments,
)
from reidlib.data.images import decode_blocks
from reidlib.data.readers import read, thinning
from reidlib.data.readers.layout import Reading, read_table
from reidlib.data.readers.listing import LEFT_OUT
from reidlib.data.rules import DISTRACTOR, JUNK
from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun
from reidlib.files import find_json, write_json


@dataclass(frozen=True)
class Count:
    """The actual and the expected count of one quantity in a folder, such as images or identities.

    Attributes:
        folder: The folder or list.
        quantity: What is counted: images, identities, cameras, junk or distractors.
        actual: The count in the folder; None if the folder is missing.
        expected: The official count.
    """

    folder: str
    quantity: str
    actual: int | None
    expected: int

    @property
    def agrees(self) -> bool:
        """Whether the actual count is the expected one."""
        return self.actual == self.expected


@dataclass(frozen=True)
class CheckReport:
    """Result of ``check``.

    Attributes:
        name: The benchmark's name.
        root: Its folder.
        counts: Actual and expected counts.
        problems: Messages about everything that makes the check fail.
        remarks: Messages that do not make it fail.
        num_left_out: Number of files, folders and links that look like images and are not read.
    """

    name: str
    root: Path
    counts: tuple[Count, ...]
    problems: tuple[str, ...]
    remarks: tuple[str, ...]
    num_left_out: int = 0

    @property
    def ok(self) -> bool:
        """Whether the folder is complete, readable and within the rules of a benchmark."""
        return not self.problems

    def text(self) -> str:
        """Format the report as a table, followed by one line for each problem and remark."""
        lines = [f"{self.name} in {self.root}", ""]
        if self.counts:
            lines.append(f"{'folder':<20}{'':<14}{'actual':>8}{'expected':>10}")
        for count in self.counts:
            actual = "missing" if count.actual is None else f"{count.actual:,}"
            mark = "" if count.agrees else "  differs"
            lines.append(f"{count.folder:<20}{count.quantity:<14}{actual:>8}{count.expected:>10,}{mark}")
        if self.counts:
            lines.append("")
        lines += [f"problem: {problem}" for problem in self.problems]
        lines += [f"remark: {remark}" for remark in self.remarks]
        left_out = f"readable, but {self.num_left_out:,} left out" if self.num_left_out else ""
        lines.append(
            count_noun(len(self.problems), "problems")
            if self.problems
            else left_out or "complete and readable"
        )
        return "\n".join(lines)


def check(
    name: str, root: str | Path, *, progress: bool = True, reread: bool = False, **options
) -> CheckReport:
    """Decode all images of a benchmark's folder, and compare their counts with the official ones.

    Counts of the synthetic benchmark are compared with the renderer's. Any difference is a problem, because
    scores on a part of a benchmark are not comparable; ``load`` accepts such a folder if it satisfies the
    rules. All problems of all trials are reported at once, except when the wrong folder was given, which is
    then the only problem. An image that an earlier check with the same options could read is skipped if its
    size and times are unchanged.

    Args:
        name: Name of the benchmark, a key of ``BENCHMARKS``.
        root: The benchmark's folder.
        progress: Whether to show a progress bar.
        reread: Whether to read also the images that an earlier check could read.
        **options: Keywords of the benchmark's reader. With ``trial``, the check fails if this trial cannot
            be loaded.

    Returns:
        The report with counts, problems and remarks.

    Raises:
        InputError: If the name or an option is unknown, or the folder does not exist.
    """
    root = Path(root).expanduser().absolute()
    reading, trial_errors = _read(name, root, options)
    problems = list(reading.all_problems)
    if reading.misplaced:
        return CheckReport(name, root, (), tuple(problems), ())
    # For a folder without anything of the benchmark, a table of counts would hide the helpful message.
    counts = compare_counts(reading) if reading.splits else ()
    # The reading may report the same error, preceded by the trial's number.
    problems += [error for error in trial_errors if not any(error in problem for problem in problems)]
    problems += _deviations(counts, fewer=reading.mend, more="remove the files that do not belong there")
    paths = [path for split in reading.splits.values() for path in split.paths]
    # A link that leads nowhere is an image that was listed and is lost; the rest was never read.
    told = "\n".join(problems)  # a set without any image names what is left out as its mend
    others = [reason for reason in LEFT_OUT if reason != "link"]
    links, lines = reading.left_out.describe("link"), reading.left_out.describe(*others)
    problems += [line for line in links if line not in told]
    remarks = [*reading.remarks, *reading.warnings, *(line for line in lines if line not in told)]
    record = _record(name, root, options)
    paths = list(dict.fromkeys(paths))
    unreadable, skipped = _unreadable(paths, record, progress, reread)
    if unreadable:
        problems.append(str(UnreadableImagesError(unreadable)))
    readable = set(paths).difference(image.path for image in unreadable)
    needs = treatments([path for path in paths if path in readable])
    counts_by_key = Counter(chain.from_iterable(needs.values()))
    remarks += [
        f"{count_noun(counts_by_key[key], 'images')} {text}"
        for key, text in TREATMENTS.items()
        if counts_by_key[key]
    ]
    if skipped:
        remarks.append(f"{count_noun(skipped, 'images')} read by an earlier check and not changed since")
    return CheckReport(name, root, counts, tuple(problems), tuple(remarks), len(reading.left_out))


def count_deviations(name: str, root: str | Path, **options) -> list[str]:
    """List the deviations of a benchmark's folder from the official counts, without reading an image.

    Args:
        name: Name of the benchmark, a key of ``BENCHMARKS``.
        root: The benchmark's folder.
        **options: Keywords of the benchmark's reader. With ``trial``, the error of a trial that cannot be
            loaded is listed, too.

    Returns:
        One message for each deviation; empty if the folder is complete. If the wrong folder was given, this
        is the only message.

    Raises:
        InputError: If the name or an option is unknown, or the folder does not exist.
    """
    return deviations_and_warnings(name, root, **options)[0]


def deviations_and_warnings(name: str, root: str | Path, **options) -> tuple[list[str], list[str]]:
    """Return ``count_deviations``, and what the reader warns of, such as images that are left out."""
    reading, trial_errors = _read(name, Path(root).expanduser().absolute(), options)
    if reading.misplaced:
        return reading.all_problems, []
    deviations = [*trial_errors, *_deviations(compare_counts(reading))]
    return deviations, [*reading.warnings, *reading.left_out.describe()]


def _read(name: str, root: Path, options: dict) -> tuple[Reading, list[str]]:
    """Return the reading, and the error of making the ``trial`` of the options, if any."""
    reading = read(name, root, **{key: value for key, value in options.items() if key != "trial"})
    try:
        if {"trial", *thinning.THINNING} & options.keys():
            benchmark = reading.benchmark(options.get("trial", 0))
            if thinning.thinning_of(benchmark.specification) != (0, 0):
                reading.remarks.append(thinning.describe(benchmark))
    except InputError as error:
        return reading, [str(error)]
    return reading, []


def compare_counts(reading: Reading) -> tuple[Count, ...]:
    """Compare every expected count with the actual one."""
    _ = reading.all_problems  # this may add splits to be counted
    splits = reading.splits
    return tuple(
        Count(folder, quantity, _count(splits[folder], quantity) if folder in splits else None, number)
        for folder, row in reading.expected_counts.items()
        for quantity, number in row.items()
    )


def _count(split: Split, quantity: str) -> int:
    ids = split.person_ids
    counts = {
        "images": len(split),
        "identities": len(np.unique(ids[ids > 0])),
        "cameras": len(np.unique(split.camera_ids)),
        "junk": int(np.count_nonzero(ids == JUNK)),
        "distractors": int(np.count_nonzero(ids == DISTRACTOR)),
    }
    if quantity not in counts:
        rule = "a rendering counts images, identities, cameras, junk and distractors"
        raise InputError(rule, quantity, "render the folder again")
    return counts[quantity]


def _deviations(counts: Sequence[Count], **mends: str) -> list[str]:
    """Describe every difference; the mend for "fewer" and "more" follows only the first of its kind."""
    messages = []
    for count in counts:
        if count.actual is None or count.agrees:
            continue
        way = "fewer" if count.actual < count.expected else "more"
        mend = f"; {mends.pop(way)}" if way in mends else ""
        messages.append(
            f"{count.folder} has {count_noun(count.actual, count.quantity)},"
            f" {abs(count.expected - count.actual):,} {way} than expected{mend}"
        )
    return messages


def _record(name: str, root: Path, options: dict[str, str | int | bool]) -> Path:
    """Return the file that records which images could be read, one for each root and set of options."""
    settings = sorted((key, value) for key, value in options.items() if key != "trial")
    key = hashlib.sha256(repr((str(root), name, settings)).encode("utf-8", "surrogateescape")).hexdigest()
    return files.home() / "checked" / f"{key[:16]}.json"


def _unreadable(
    paths: Sequence[Path], record: Path, progress: bool, reread: bool
) -> tuple[list[UnreadableImage], int]:
    """Return the files that cannot be decoded, and the number of files that were skipped."""
    # The record holds sizes and times of the files that could be decoded. A lost record costs only time.
    recorded = {} if reread else find_json(record) or {}
    states = {}
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, for tens of thousands
        except OSError:
            continue  # the decoder reports the reason
        # The time of the last change reveals a damaged copy whose modification time was restored.
        states[str(path)] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    unchecked = [path for path in paths if recorded.get(str(path)) != states.get(str(path), "")]
    # Each image is decoded completely; one pixel of it is kept.
    blocks = decode_blocks(
        unchecked, (1, 1), title="reading every image", progress=progress and bool(unchecked)
    )
    unreadable = [image for block in blocks for image in block if isinstance(image, UnreadableImage)]
    damaged = {str(image.path) for image in unreadable}
    if unchecked:
        with contextlib.suppress(InputError):  # a check needs no writable folder
            write_json(record, {path: state for path, state in states.items() if path not in damaged})
    return unreadable, len(paths) - len(unchecked)


def counts_by_identity(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Count the images and cameras of each identity without junk and distractors: two int64 arrays (K,)."""
    is_person_n = split.person_ids > 0
    persons, cameras = split.person_ids[is_person_n], split.camera_ids[is_person_n]
    images_k = np.unique(persons, return_counts=True)[1]
    sightings = np.unique(np.stack([persons, cameras]), axis=1)
    return images_k, np.unique(sightings[0], return_counts=True)[1]


def counts_by_camera(benchmark: Benchmark) -> tuple[np.ndarray, list[int]]:
    """Count images by split (train, query, gallery) and camera, int64 (3, C); also return the camera ids."""
    splits = (benchmark.train, benchmark.query, benchmark.gallery)
    cameras = np.unique(np.concatenate([split.camera_ids for split in splits])).tolist()
    counts = [[np.count_nonzero(split.camera_ids == camera) for camera in cameras] for split in splits]
    return np.array(counts), cameras


def image_sizes(split: Split, *, most: int = 2000, seed: int = 0) -> np.ndarray:
    """Read the sizes of a split's images, as a viewer shows them, from the headers of the files.

    Args:
        split: The images.
        most: Largest number of files to read, drawn at random if there are more.
        seed: Seed of the draw.

    Returns:
        Height and width in pixels, int64 (N, 2).
    """
    indices = np.random.default_rng(seed).permutation(len(split))[:most]
    return np.array([shown_size(split.paths[index]) for index in np.sort(indices)])


def shared_images(benchmark: Benchmark) -> list[tuple[Path, ...]]:
    """Find groups of identical files that include both a training and a test image."""
    # A query's copy in the gallery, which some benchmarks have, is no leak and is not listed.
    groups: dict[bytes, list[tuple[bool, Path]]] = defaultdict(list)
    for split, training in ((benchmark.train, True), (benchmark.query, False), (benchmark.gallery, False)):
        for path in split.paths:
            with path.open("rb") as file:
                groups[hashlib.file_digest(file, "sha256").digest()].append((training, path))
    return [
        tuple(path for _, path in group)
        for group in groups.values()
        if {training for training, _ in group} == {True, False}
    ]


def rendered_truth(root: Path) -> dict[str, np.ndarray]:
    """Read the columns of a rendered benchmark's ``factors.csv``; numbers as float64, one row per image."""
    # Angles are in radians, lengths in metres.
    rows = read_table(root / "factors.csv")
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        try:
            columns[name] = np.array(values, dtype=float)
        except ValueError:
            columns[name] = np.array(values)
    return columns
