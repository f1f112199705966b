"""What the readers of all layouts share: a reading, listing folders, and saying what was probably meant."""

from __future__ import annotations

import csv
import difflib
import hashlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from reidlib.data.benchmark import Benchmark, check_trial
from reidlib.data.splits import Split
from reidlib.errors import InputError, check_choice, shorten

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

# What is counted of a benchmark's parts, in the order in which it is told.
COUNTED = ("images", "identities", "cameras", "junk", "distractors")
# Of each part of a benchmark: what is counted -> how many belong there.
Counts = Mapping[str, Mapping[str, int]]
# Person and camera from a folder's and an image's name; None for a name of another form.
ReadName = Callable[[str, str], tuple[int, int] | None]
Answer = TypeVar("Answer")


class Misplaced(InputError):
    """The folder that was given holds nothing of a layout, and the one that was meant lies near it."""


class Unreachable(InputError):
    """What was given cannot be opened, so that nothing can be said of it: raised by a check, too."""


@dataclass
class Reading:
    """What a reader found in a folder: everything that is there and, not raised, everything that is wrong.

    ``title`` names what has ``num_trials`` trials, 0 where only the benchmark knows. ``problems`` keep the
    folder from being loaded; the first is what loading raises. ``make`` gives the benchmark of a trial; it is
    asked only where there is no problem and may raise another. ``parts``: images found, by folder or list; a
    check decodes all of them. ``expected``: the official counts of these and other parts, of what is
    ``COUNTED``. ``again``: the mend where something lacks. ``remarks``
    make no check fail. ``examine`` looks at what only a check asks after, such as all trials: it answers
    with further problems, may add parts and remarks, and ends with what it raises as its last problem.
    """

    title: str
    num_trials: int = 0
    parts: dict[str, Split] = field(default_factory=dict)
    problems: list[InputError] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    expected: Counts = field(default_factory=dict)
    again: str = "unpack or copy the archive again, completely"
    make: Callable[[int], Benchmark] | None = None
    examine: Callable[[], Iterable[InputError | str]] = tuple

    def attempt(self, read: Callable[..., Answer], *arguments: object) -> Answer | None:
        """What ``read`` returns; None where it raises ``InputError``, which becomes a problem.

        ``Unreachable`` is raised.
        """
        try:
            return read(*arguments)
        except Unreachable:
            raise
        except InputError as error:
            self.problems.append(error)
            return None

    @property
    def misplaced(self) -> str:
        """The problem that another folder was meant, beside which nothing is worth saying; empty if none."""
        return next((str(problem) for problem in self.problems if isinstance(problem, Misplaced)), "")

    @cached_property
    def all_problems(self) -> list[str]:
        """Each problem once, with those that ``examine`` finds; of a misplaced folder that alone."""
        if self.misplaced:
            return [self.misplaced]
        found = list(self.problems)
        try:
            found.extend(self.examine())
        except InputError as error:
            found.append(error)
        return list(dict.fromkeys(map(str, found)))

    def benchmark(self, trial: int) -> Benchmark:
        """One trial; raises ``InputError``, the first problem where there is one."""
        if self.num_trials:
            check_trial(self.title, trial, self.num_trials)
        if self.problems:
            raise self.problems[0]
        return self.make(trial)


def table(file: Path) -> list[dict[str, str]]:
    """The rows of a table with its columns' names in the first line."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@cache
def official_counts(specification: str) -> Counts:
    """How much belongs in each part of a public benchmark: its rows of ``official_counts.csv``.

    The column ``source`` there says who counted.
    """
    return {
        row["part"]: {what: int(row[what]) for what in COUNTED if row[what]}
        for row in table(Path(__file__).with_name("official_counts.csv"))
        if row["benchmark"] == specification
    }


def read_folders(
    root: Path, folders: Sequence[str], layout: str, read: ReadName, strange: Callable[..., InputError]
) -> Reading:
    """The images of a layout's folders, and everything wrong with folders and names.

    ``strange``: the error for paths whose names say no person and camera. Raises ``InputError`` only where
    there is no folder ``root`` at all.
    """
    missing = missing_folders(root, folders, layout)
    reading = Reading(layout, problems=[missing] if missing else [])
    unparsed, empty = [], []
    for folder in folders:
        if (root / folder).is_dir():
            reading.parts[folder], others = index_folder(root / folder, read)
            unparsed += others
            if not (len(reading.parts[folder]) or others):
                rule = f"each of a benchmark's folders holds images ({', '.join(IMAGE_ENDINGS)})"
                empty.append(InputError(rule, f"none in {root / folder}", "unpack the archive completely"))
    reading.problems += [strange(unparsed), *empty] if unparsed else empty
    return reading


def index_folder(folder: Path, read: ReadName) -> tuple[Split, list[Path]]:
    """A folder's images, sorted by name, from one directory scan; and the paths that ``read`` cannot read."""
    rows, unparsed = [], []
    for name in list_images(folder):
        if found := read(folder.name, name):
            rows.append((folder / name, *found))
        else:
            unparsed.append(folder / name)
    paths, persons, cameras = zip(*rows, strict=True) if rows else ((), (), ())
    return Split(paths, np.array(persons, np.int64), np.array(cameras, np.int64)), unparsed


def list_images(folder: Path) -> list[str]:
    """Names of a folder's image files; see ``list_files``."""
    return list_files(folder, IMAGE_ENDINGS)


def list_files(folder: Path, endings: tuple[str, ...]) -> list[str]:
    """Names of a folder's files, sorted, from one directory scan; endings in any case.

    Hidden files do not count: macOS archives hold ``._0002_c1s1_….jpg`` beside every image. Raises
    ``InputError`` where the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(endings) and not entry.name.startswith(".") and entry.is_file()
            )
    except OSError as error:
        raise Unreachable(
            "a benchmark's folders can be listed", f"{error.strerror}: {folder}", "check its access rights"
        ) from None


def folder_names(folder: Path) -> set[str]:
    """Names of the visible folders in a folder; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:
        return set()


def names_in(folder: Path) -> set[str]:
    """Names of all that lies in a folder; none where it cannot be listed."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):
        return set()


def unpacking(folder: Path) -> str:
    """The mend that names the archives lying in a folder; empty where there is none."""
    try:
        packed = list_files(folder, ARCHIVE_ENDINGS)
    except InputError:
        return ""
    if len(packed) > 1:
        return f"unpack the one that is meant: {shorten(packed)}"
    return f"unpack {packed[0]}" if packed else ""


def require_folder(root: Path) -> None:
    """Raise ``InputError`` unless ``root`` is a folder, with what lies nearest to it."""
    if root.is_dir():
        return
    if root.exists():
        packed = root.name.lower().endswith(ARCHIVE_ENDINGS)
        mend = "unpack it and name the folder" if packed else f"give the folder it lies in: {root.parent}"
        raise InputError("a benchmark is a folder", f"the file {root}", mend)
    raise InputError("a benchmark's folder exists", root, nearest_path(root, folder_names))


def nearest_path(absent: Path, names: Callable[[Path], Iterable[str]]) -> str:
    """The mend for a path that is not there; ``names`` lists what may be meant in its nearest folder."""
    ancestor = next(parent for parent in absent.parents if parent.is_dir())
    lost = absent.relative_to(ancestor).parts[0]
    return near_miss(lost, sorted(names(ancestor)), prefix=ancestor) or f"there is no {lost} in {ancestor}"


def misplaced(root: Path, holds: Callable[[Path], bool]) -> str:
    """Where the folder that was meant lies, as a mend; empty where nothing near ``holds`` it.

    Looked at are the parent (the folder given is one level too low), the folders in it (one too high) and
    those in them, as an archive unpacked into a folder of its own leaves them. All that fit are named: one
    of them may be another benchmark of the same layout.
    """
    if holds(root.parent):
        return f"that is one level too low: give {root.parent}"
    places = [root]
    for level in ("one level", "two levels"):
        places = [place / name for place in places for name in sorted(folder_names(place))]
        if fitting := [place for place in places if holds(place)]:
            return f"that is {level} too high: give {'one of ' if len(fitting) > 1 else ''}{shorten(fitting)}"
    return ""


def missing_folders(root: Path, wanted: Sequence[str], layout: str) -> InputError | None:
    """What a folder lacks of a layout, what is there instead and what was probably meant; None if nothing.

    It is ``Misplaced`` where nothing of the layout is there and all of it is nearby.
    """
    require_folder(root)
    there = sorted(folder_names(root))
    missing = [folder for folder in wanted if folder not in there]
    if not missing:
        return None
    rule = f"a folder in {layout}'s layout holds {', '.join(wanted)}"
    value = f"{root}, which lacks {', '.join(missing)} and holds {shorten(there, 10) or 'no folder'}"
    if mend := misplaced(root, lambda folder: set(wanted) <= folder_names(folder)):
        return (Misplaced if len(missing) == len(wanted) else InputError)(rule, value, mend)
    # A folder that rightly bears its name is nobody's misspelling, however near (…_train and …_test are).
    spare = [name for name in there if name not in wanted]
    hints = [near_miss(folder, spare, rename=True) for folder in missing]
    mend = "; ".join(hint for hint in hints if hint) or unpacking(root)
    return InputError(rule, value, mend or "unpack the archive completely, or give its folder")


def near_miss(wanted: str, known: Iterable[str], *, prefix: Path | None = None, rename: bool = False) -> str:
    """A question after the known name nearest to ``wanted``; empty where none is near."""
    by_lower = {name.lower(): name for name in known}
    if not (near := difflib.get_close_matches(wanted.lower(), by_lower, n=1)):
        return ""
    name = by_lower[near[0]]
    if rename:
        return f"rename {name} to {wanted} if that is what it is"
    return f"did you mean {prefix / name if prefix else name}?"


def seeded_order(label: str, count: int) -> list[int]:
    """The numbers from 1 to ``count`` in an order that only the label decides, on every machine the same."""
    return sorted(range(1, count + 1), key=lambda one: hashlib.sha256(f"{label}: {one}".encode()).digest())


def changed_options(reader: Callable, **given: str | int | bool) -> dict[str, str | int | bool]:
    """Those of a reader's keywords that differ from their defaults, for ``Benchmark.options``."""
    defaults = {name: one.default for name, one in inspect.signature(reader).parameters.items()}
    return {name: value for name, value in given.items() if value != defaults[name]}


def one_of(what: str, value: str, known: Sequence[str]) -> None:
    """Raise ``InputError`` unless an option's value is one of the known ones."""
    hint = near_miss(str(value), known) or "name one of them"
    check_choice(f"{what} is one of: {', '.join(known)}", value, known, hint)
