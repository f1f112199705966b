"""What is in a benchmark's folder against what belongs there, image by image."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reidlib import files
from reidlib.data.images import Unreadable, UnreadableError, decode_blocks
from reidlib.data.readers.survey import Count, Survey, counts_of
from reidlib.data.registry import SURVEYS, check_options, load, reader_of
from reidlib.errors import InputError, counted
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
    survey, trial = _survey(name, root, options)
    if survey.misplaced:
        return CheckReport(name, root, (), (survey.misplaced,), ())
    # Beside a folder that holds nothing of the benchmark, a table of what lacks hides the one helpful line.
    counts = counts_of(survey) if survey.parts else ()
    problems = list(survey.problems)
    # The survey may have said the same, with the trial's number before it.
    problems += [problem for problem in trial if not any(problem in said for said in problems)]
    problems += _differing(counts, fewer=survey.again, more="take out what does not belong there")
    paths = [path for split in survey.parts.values() for path in split.paths]
    remarks = list(survey.remarks)
    record = _record(name, root, options)
    unreadable, spared = _unreadable(list(dict.fromkeys(paths)), record, progress, again)
    if unreadable:
        problems.append(str(UnreadableError(unreadable)))
    if spared:
        remarks.append(f"{counted(spared, 'images')} read by an earlier check and not changed since")
    return CheckReport(name, root, counts, tuple(problems), tuple(remarks))


def differences(name: str, root: str | Path, **options) -> list[str]:
    """In what the folder of a benchmark differs from the official counts; empty where it is whole.

    With a ``trial`` among the ``options``, that it cannot be loaded is a difference too, and so is a folder
    that lies one level off. No image is read. Raises ``InputError`` like ``check``.
    """
    survey, trial = _survey(name, Path(root).expanduser().absolute(), options)
    return [survey.misplaced] if survey.misplaced else [*trial, *_differing(counts_of(survey))]


def _survey(name: str, root: Path, options: dict[str, str | int | bool]) -> tuple[Survey, list[str]]:
    """The survey, which looks at all trials, and what loading the ``trial`` of the ``options`` raises."""
    reader_of(name)
    keywords = {key: value for key, value in options.items() if key != "trial"}
    check_options(name, keywords)
    survey = SURVEYS[name](root, **keywords)
    if "trial" in options and not survey.misplaced:
        try:
            load(name, root, **options)
        except InputError as error:
            return survey, [str(error)]
    return survey, []


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
