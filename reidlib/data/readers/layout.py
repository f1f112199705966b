"""What all readers share: ``Reading``, and hints at what the user probably meant."""

from __future__ import annotations

import csv
import hashlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from reidlib.data.benchmark import Benchmark, check_trial
from reidlib.data.readers.listing import (
    IMAGE_ENDINGS,
    LeftOut,
    UnreachablePath,
    folder_names,
    list_images,
    scan,
    walk_images,
)
from reidlib.data.splits import Split
from reidlib.errors import InputError, check_choice, nearest, shorten

ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")

# What is counted in each folder or split of a benchmark, in the order of the report.
QUANTITIES = ("images", "identities", "cameras", "junk", "distractors")
# Folder or split -> quantity -> expected number.
Counts = Mapping[str, Mapping[str, int]]
# Parses person and camera from the names of a folder and an image; None for a name of another form.
ReadName = Callable[[str, str], tuple[int, int] | None]
Value = TypeVar("Value")


class MisplacedFolder(InputError):
    """Error for a folder without anything of a layout, if a folder near it has that layout."""


@dataclass
class Reading:
    """What a reader found in a folder: images, and problems that are not raised yet.

    Attributes:
        title: Name for the error about a trial that does not exist.
        num_trials: Number of trials; 0 if only the benchmark knows it.
        splits: Images by folder or list; a check decodes all of them.
        problems: Errors because of which the folder cannot be loaded; loading raises the first.
        remarks: Messages that do not make a check fail.
        warnings: Remarks that also a training tells.
        left_out: What looks like an image and is not read; all of it is told like ``warnings``.
        expected_counts: Official counts of ``QUANTITIES``, by folder or split.
        mend: What the user should do if images are missing.
        use: What a training folder alone serves for, as ``persons.training_use`` returns it.
        make_benchmark: Makes the benchmark of a trial. It is called only if there are no problems, and may
            raise another one.
        examine: Returns problems that only a check looks for, such as those of all trials. It may add splits
            and remarks; an error that it raises is its last problem.
    """

    title: str
    num_trials: int = 0
    splits: dict[str, Split] = field(default_factory=dict)
    problems: list[InputError] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)
    expected_counts: Counts = field(default_factory=dict)
    mend: str = "unpack or copy the archive again, completely"
    use: Mapping[str, bool] = field(default_factory=dict)
    make_benchmark: Callable[[int], Benchmark] | None = None
    examine: Callable[[], Iterable[InputError | str]] = tuple

    def attempt(self, read: Callable[..., Value], *arguments: object) -> Value | None:
        """Call ``read``; turn an InputError other than ``UnreachablePath`` into a problem and return None."""
        try:
            return read(*arguments)
        except UnreachablePath:
            raise
        except InputError as error:
            self.problems.append(error)
            return None

    @property
    def misplaced(self) -> str:
        """The problem that another folder was meant, which hides all others; empty if there is none."""
        return next((str(problem) for problem in self.problems if isinstance(problem, MisplacedFolder)), "")

    @cached_property
    def all_problems(self) -> list[str]:
        """All problems, including those that ``examine`` finds, or only that of a misplaced folder."""
        if self.misplaced:
            return [self.misplaced]
        problems: list[InputError | str] = list(self.problems)
        try:
            problems.extend(self.examine())
        except InputError as error:
            problems.append(error)
        return list(dict.fromkeys(map(str, problems)))

    def benchmark(self, trial: int) -> Benchmark:
        """Make the benchmark of a trial; raise the first problem if there is one."""
        if self.num_trials:
            check_trial(self.title, trial, self.num_trials)
        if self.problems:
            raise self.problems[0]
        assert self.make_benchmark is not None  # set by every reader without a problem
        return self.make_benchmark(trial)


def read_table(file: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file whose first line names the columns."""
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@cache
def official_counts(specification: str) -> Counts:
    """Read a public benchmark's counts from ``official_counts.csv``, whose column ``source`` cites them."""
    return {
        row["part"]: {quantity: int(row[quantity]) for quantity in QUANTITIES if row[quantity]}
        for row in read_table(Path(__file__).with_name("official_counts.csv"))
        if row["benchmark"] == specification
    }


def read_folders(
    root: Path,
    folders: Sequence[str],
    layout: str,
    read: ReadName,
    make_name_error: Callable[..., InputError],
) -> Reading:
    """Read the folders of a layout; raise InputError only if the folder ``root`` does not exist."""
    # ``make_name_error`` makes the error for paths whose names ``read`` cannot parse.
    missing = missing_folders_error(root, folders, layout)
    reading = Reading(layout, problems=[missing] if missing else [])
    unparsed, empty = [], []
    for folder in folders:
        if (root / folder).is_dir():
            reading.splits[folder], others = index_folder(root / folder, read, reading.left_out)
            unparsed += others
            if not (len(reading.splits[folder]) or others):
                rule = f"each of a benchmark's folders contains images ({', '.join(IMAGE_ENDINGS)})"
                empty.append(InputError(rule, f"none in {root / folder}", "unpack the archive completely"))
    reading.problems += [make_name_error(unparsed), *empty] if unparsed else empty
    return reading


def index_folder(folder: Path, read: ReadName, left_out: LeftOut | None = None) -> tuple[Split, list[Path]]:
    """List a folder's images, sorted by name, and the paths whose names ``read`` cannot parse."""
    rows, unparsed = [], []
    names, folders = scan(folder, IMAGE_ENDINGS, left_out)
    if left_out is not None:
        for name in folders:
            left_out.paths["deep"] |= {*walk_images(folder / name, IMAGE_ENDINGS, left_out)}
    for name in names:
        if person_and_camera := read(folder.name, name):
            rows.append((folder / name, *person_and_camera))
        else:
            unparsed.append(folder / name)
    paths, persons, cameras = zip(*rows, strict=True) if rows else ((), (), ())
    return Split(paths, np.array(persons, np.int64), np.array(cameras, np.int64)), unparsed


def unpack_hint(folder: Path) -> str:
    """Make a mend that names the archives in a folder; empty if there are none."""
    try:
        archives = list_images(folder, ARCHIVE_ENDINGS)
    except InputError:
        return ""
    if len(archives) > 1:
        return f"unpack the right one of: {shorten(archives)}"
    return f"unpack {archives[0]}" if archives else ""


def require_folder(root: Path) -> None:
    """Raise InputError, with the nearest existing path, unless ``root`` is a folder."""
    if root.is_dir():
        return
    if root.exists():
        is_archive = root.name.lower().endswith(ARCHIVE_ENDINGS)
        mend = "unpack it and give the folder" if is_archive else f"give the folder it is in: {root.parent}"
        raise InputError("a benchmark is a folder", f"the file {root}", mend)
    expected = "the folder that contains the benchmark's files"
    raise InputError("a benchmark's folder exists", root, path_hint(root, folder_names, expected))


def path_hint(absent: Path, names: Callable[[Path], Iterable[str]], expected: str) -> str:
    """Make a mend for a missing path; ``names`` lists the candidates in the nearest existing folder."""
    # If no candidate is similar, the mend says to give ``expected``.
    ancestor = next(parent for parent in absent.parents if parent.is_dir())
    missing = absent.relative_to(ancestor).parts[0]
    hint = spelling_hint(missing, sorted(names(ancestor)), prefix=ancestor)
    return hint or f"there is no {missing} in {ancestor}: give {expected}"


def misplaced_hint(root: Path, holds: Callable[[Path], bool]) -> str:
    """Make a mend that names the folders near ``root`` for which ``holds`` is true; empty if none is."""
    # It searches the parent (``root`` is one level too low), the folders in ``root`` (one level too high) and
    # the folders in those, because archives are often unpacked into one more folder. It names all matches,
    # because one of them may be another benchmark of the same layout.
    if holds(root.parent):
        return f"this folder is one level too low: give {root.parent}"
    folders = [root]
    for level in ("one level", "two levels"):
        folders = [folder / name for folder in folders for name in sorted(folder_names(folder))]
        if matches := [folder for folder in folders if holds(folder)]:
            one_of = "one of " if len(matches) > 1 else ""
            return f"this folder is {level} too high: give {one_of}{shorten(matches)}"
    return ""


def missing_folders_error(root: Path, required: Sequence[str], layout: str) -> InputError | None:
    """Make the error for a folder that lacks folders of a layout; None if it has all of them."""
    # It is ``MisplacedFolder`` if the folder has nothing of the layout, and a folder nearby has all of it.
    require_folder(root)
    present = sorted(folder_names(root))

    def lacking(place: Path) -> list[str]:  # a required folder may be in another one, with / between
        return [name for name in required if Path(name).name not in folder_names((place / name).parent)]

    if not (missing := lacking(root)):
        return None
    rule = f"a folder in {layout}'s layout contains {', '.join(required)}"
    value = f"{root}, which lacks {', '.join(missing)} and contains {shorten(present, 10) or 'no folder'}"
    if mend := misplaced_hint(root, lambda folder: not lacking(folder)):
        return (MisplacedFolder if len(missing) == len(required) else InputError)(rule, value, mend)
    # A required folder is no misspelling of another one, although …_train and …_test are similar.
    others = [name for name in present if name not in required]
    hints = [spelling_hint(folder, others, rename=True) for folder in missing]
    mend = "; ".join(hint for hint in hints if hint) or unpack_hint(root)
    return InputError(rule, value, mend or "unpack the archive completely, or give its folder")


def spelling_hint(
    name: str, candidates: Iterable[str], *, prefix: Path | None = None, rename: bool = False
) -> str:
    """Suggest the candidate most similar to ``name``; empty if none is similar."""
    if not (match := nearest(name, candidates)):
        return ""
    if rename:
        return f"rename {match} to {name} if this is its content"
    return f"did you mean {prefix / match if prefix else match}?"


def seeded_order(label: str, count: int) -> list[int]:
    """Order the numbers 1 to ``count`` by a hash of the label, in the same way on every machine."""
    return sorted(range(1, count + 1), key=lambda n: hashlib.sha256(f"{label}: {n}".encode()).digest())


def non_default_options(reader: Callable, **options: str | int | bool) -> dict[str, str | int | bool]:
    """Return the keywords of a reader that differ from their defaults, for ``Benchmark.options``."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(reader).parameters.items()}
    return {name: value for name, value in options.items() if value != defaults[name]}


def check_option(title: str, value: str, choices: Sequence[str]) -> None:
    """Raise InputError unless an option's value is one of the choices."""
    check_choice(f"{title} is one of: {', '.join(choices)}", value, choices)
