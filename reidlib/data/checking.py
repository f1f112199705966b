"""What is in a benchmark's folder against what belongs there, image by image."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reidlib import locations
from reidlib.data.benchmarks import SURVEYS, check_options, reader_of
from reidlib.data.images import Unreadable, decode_blocks, unreadable_error
from reidlib.data.readers.survey import Count, counts_of
from reidlib.errors import InputError
from reidlib.files import read_json, write_json


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
        lines.append("complete and readable" if self.ok else f"{len(self.problems)} problems")
        return "\n".join(lines)


def check(
    name: str, root: str | Path, *, progress: bool = True, again: bool = False, **options
) -> CheckReport:
    """Count, decode and compare everything in the folder ``root`` of the benchmark ``name``.

    Counts are compared with the official ones (``market1501``) or the renderer's (``synthetic``). Any
    difference is a problem, because scores on a part of a benchmark are not comparable; ``load`` takes such
    a folder all the same where it keeps the rules. All problems are reported at once. An image that an
    earlier check could read is not read ``again`` while its size and time stay the same.

    Raises ``InputError`` for an unknown name and where there is no such folder.
    """
    reader_of(name)
    check_options(name, options)
    root = Path(root).expanduser().absolute()
    survey = SURVEYS[name](root, **options)
    counts = counts_of(survey)
    problems = [*survey.problems, *_differing(counts)]
    paths = [path for split in survey.parts.values() for path in split.paths]
    remarks = list(survey.remarks)
    unreadable, spared = _unreadable(list(dict.fromkeys(paths)), root, progress, again)
    if unreadable:
        problems.append(str(unreadable_error(unreadable)))
    if spared:
        remarks.append(f"{spared:,} images were read by an earlier check and have not changed since")
    return CheckReport(name, root, counts, tuple(problems), tuple(remarks))


def differences(name: str, root: str | Path, **options) -> list[str]:
    """In what the folder of a benchmark differs from the official counts; empty where it is whole.

    No image is read. Raises ``InputError`` like ``check``.
    """
    reader_of(name)
    check_options(name, options)
    return _differing(counts_of(SURVEYS[name](Path(root).expanduser().absolute(), **options)))


def _differing(counts: Sequence[Count]) -> list[str]:
    return [
        f"{count.folder} holds {count.found:,} {count.what}, {abs(count.expected - count.found):,}"
        f" {'fewer' if count.found < count.expected else 'more'} than belong there"
        for count in counts
        if count.found is not None and not count.agrees
    ]


def _unreadable(
    paths: Sequence[Path], root: Path, progress: bool, again: bool
) -> tuple[list[Unreadable], int]:
    """The files that cannot be decoded, and how many were not tried, because they could be before.

    What could be decoded is kept by root, with sizes and times; a lost or foreign record costs time alone.
    """
    record = locations.home() / "checked" / f"{hashlib.sha256(str(root).encode()).hexdigest()[:16]}.json"
    try:
        known = {} if again or not record.is_file() else read_json(record)
    except InputError:
        known = {}
    states = {}
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat, tens of thousands
        except OSError:
            continue  # the decoder says what is wrong with it
        states[str(path)] = [status.st_size, status.st_mtime_ns]
    waiting = [path for path in paths if known.get(str(path)) != states.get(str(path), "")]
    blocks = decode_blocks(waiting, None, title="reading every image", progress=progress and bool(waiting))
    unreadable = [image for block in blocks for image in block if isinstance(image, Unreadable)]
    damaged = {str(image.path) for image in unreadable}
    if waiting:
        with contextlib.suppress(InputError):  # a check needs no folder that can be written
            write_json(record, {path: state for path, state in states.items() if path not in damaged})
    return unreadable, len(paths) - len(waiting)
