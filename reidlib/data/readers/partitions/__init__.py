"""Partitions into training and test persons for each trial: GRID's official ones, and those of other sets.

For a set without official partitions, a person is named by its position among the sorted person ids, counted
from 1, so that no file contains a path. A partition depends only on SHA-256 and not on a random library,
whose numbers may change with its version. Those of the official sizes are also stored here as
``NAME_TESTPERSONS.json``.

Your own file, for a reader's ``partitions=FILE``, has the same format. This example is for a VIPeR reduced to
six persons, with two trials of three test persons each; all other persons are for training::

    {
     "benchmark": "viper",
     "persons": 6,
     "test": [
      [1, 2, 6],
      [1, 3, 5]
     ]
    }

``write_partitions(Path("mine.json"), Partitions("viper", 6, ((1, 2, 6), (1, 3, 5))))`` writes it, with a
checksum ``"sha256"``, which is optional in a file made by hand. With the sorted person ids of a set (VIPeR's
are the numbers in its file names plus one), a person's position is ``sorted_ids.index(person_id) + 1``.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from reidlib.data.readers.layout import seeded_order, spelling_hint
from reidlib.errors import InputError, shorten
from reidlib.files import LONG_NAME_MEND, write_text

TRIALS = 10  # recalled of JLML for VIPeR, our choice for CUHK01
GRID_FILE = "features_and_partitions.mat"


@dataclass(frozen=True)
class Partitions:
    """The test persons of every trial of a benchmark; all other persons are for training.

    Attributes:
        benchmark: The benchmark's name.
        persons: Total number of persons.
        test: For each trial, the ascending positions of the test persons among the sorted person ids, from 1.

    Raises:
        InputError: If the trials differ in size, test a person twice, or leave no person for training.
    """

    benchmark: str
    persons: int
    test: tuple[tuple[int, ...], ...]

    def __post_init__(self):
        object.__setattr__(self, "test", tuple(tuple(sorted(positions)) for positions in self.test))
        sizes = sorted({len(positions) for positions in self.test})
        if len(sizes) != 1 or not 0 < sizes[0] < self.persons:
            raise InputError(
                "all trials have the same number of test persons, and at least one person for training",
                f"{shorten(sizes)} of {self.persons} persons in {len(self.test)} trials",
                "list at least one trial, with the same number of persons in each",
            )
        for trial, positions in enumerate(self.test):
            if repeated := sorted({first for first, second in pairwise(positions) if first == second}):
                raise InputError(
                    "a trial tests each person once",
                    f"{shorten(repeated)} twice in trial {trial}",
                    "list each test person once",
                )
        if invalid := sorted({n for n in chain(*self.test) if not 1 <= n <= self.persons}):
            raise InputError(
                f"a test person is a position among the {self.persons} sorted person ids, counted from 1",
                shorten(invalid),
                "list the persons' positions, not the numbers in their file names",
            )

    @property
    def test_persons(self) -> int:
        """Number of test persons in each trial."""
        return len(self.test[0])

    def person_ids(self, trial: int, persons_k: np.ndarray) -> np.ndarray:
        """Return the ascending ids of a trial's test persons, given all sorted ids (K,)."""
        return persons_k[np.array(self.test[trial]) - 1]

    @property
    def checksum(self) -> str:
        """SHA-256 of the content in a canonical form, 64 hexadecimal digits."""
        content = {"benchmark": self.benchmark, "persons": self.persons, "test": self.test}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def draw_partitions(benchmark: str, persons: int, test_persons: int) -> Partitions:
    """Draw ten partitions, the same on every machine."""
    # Trial k orders the persons by the SHA-256 of ``BENCHMARK P persons, T for testing, trial k: POSITION``,
    # and tests the first T.
    if type(test_persons) is not int or not 0 < test_persons < persons:
        raise InputError(
            f"{benchmark} has at least 1 person for training and 1 for testing",
            f"test_persons={test_persons!r} of {persons} persons in the folder",
            f"unpack the archive completely, or choose test_persons from 1 to {persons - 1}"
            if persons > 1
            else "unpack the archive completely",
        )

    def draw_trial(trial: int) -> tuple[int, ...]:
        label = f"{benchmark} {persons} persons, {test_persons} for testing, trial {trial}"
        return tuple(seeded_order(label, persons)[:test_persons])

    return Partitions(benchmark, persons, tuple(map(draw_trial, range(TRIALS))))


def standard_partitions(benchmark: str, persons: int, test_persons: int) -> Partitions:
    """Return the stored partitions of this size, or draw them by the same rule."""
    stored = files(__name__) / f"{benchmark}_{test_persons}.json"
    if stored.is_file():
        partitions = _parse(stored.read_bytes(), stored.name, checked=True)
        if partitions.persons == persons:
            return partitions
    return draw_partitions(benchmark, persons, test_persons)


def choose_partitions(
    benchmark: str, root: Path, persons: int, test_persons: int, options: Mapping[str, str | int]
) -> Partitions:
    """Return the partitions that a reader's keywords request: the user's file, or the standard ones."""
    # ``options`` has the keywords that differ from their defaults. The number of test persons in the file
    # ``partitions`` replaces a default ``test_persons`` and must equal any other.
    if not (file := str(options.get("partitions", ""))):
        return standard_partitions(benchmark, persons, test_persons)
    if "," in file:
        raise InputError(
            "the path of a partitions file has no comma, which separates options in a run's name",
            repr(file),
            "rename the file or its folder",
        )
    partitions = read_partitions(root / Path(file).expanduser(), benchmark, persons)
    if options.get("test_persons", partitions.test_persons) != partitions.test_persons:
        raise InputError(
            "a partitions file defines the number of test persons",
            f"test_persons={test_persons} and {file} with {partitions.test_persons}",
            "leave out one of the two",
        )
    return partitions


def read_partitions(path: Path, benchmark: str, persons: int) -> Partitions:
    """Read a user's partitions of a benchmark with this number of persons."""
    try:
        content = path.read_bytes()
    except OSError as error:
        mend = "give its path, relative to the benchmark's folder"
        if error.errno == errno.ENAMETOOLONG:
            mend = LONG_NAME_MEND
        elif path.parent.is_dir():
            names = [file.name for file in path.parent.glob("*.json")]
            mend = spelling_hint(path.name, names, prefix=path.parent) or mend
        raise InputError("a partitions file is readable", f"{error.strerror}: {path}", mend) from None
    partitions = _parse(content, str(path), checked=False)
    if (partitions.benchmark, partitions.persons) != (benchmark, persons):
        raise InputError(
            f"partitions for this folder are for {benchmark} with {persons} persons",
            f"{path} for {partitions.benchmark} with {partitions.persons}",
            "unpack the archive completely, or give a file made for this folder",
        )
    return partitions


def write_partitions(path: Path, partitions: Partitions) -> None:
    """Write partitions with their checksum as JSON, atomically, with one line for each trial."""
    trials = ",\n".join(f"  {json.dumps(positions)}" for positions in partitions.test)
    head = f' "benchmark": {json.dumps(partitions.benchmark)},\n "persons": {partitions.persons},\n'
    write_text(path, f'{{\n{head} "test": [\n{trials}\n ],\n "sha256": "{partitions.checksum}"\n}}\n')


def _parse(content: bytes, name: str, *, checked: bool) -> Partitions:
    try:
        data = json.loads(content)
        if not (isinstance(data, dict) and {"benchmark", "persons", "test"} <= data.keys()):
            raise ValueError("not an object with benchmark, persons and test")
        benchmark, persons, test = data["benchmark"], data["persons"], data["test"]
        if not (isinstance(benchmark, str) and type(persons) is int and _is_table(test)):
            raise ValueError("benchmark is not a text, or persons and test are not whole numbers")
        partitions = Partitions(benchmark, persons, tuple(map(tuple, test)))
    except InputError as error:
        raise InputError(error.rule, f"{error.value}, in {name}", error.mend) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            'a partitions file is JSON: {"benchmark": NAME, "persons": NUMBER, "test": [[POSITION, …], …]}',
            f"{name}: {error}",
            "write the file again",
        ) from None
    checksum = data.get("sha256", None if checked else partitions.checksum)
    if checksum != partitions.checksum:
        raise InputError(
            "the content of a partitions file matches its checksum",
            f"{name} with {partitions.checksum} instead of {checksum}",
            "install reidlib again"
            if checked
            else "restore the file, or remove its sha256 if you changed it",
        )
    return partitions


def _is_table(test: object) -> bool:
    return isinstance(test, list) and all(
        isinstance(positions, Sequence) and all(type(n) is int for n in positions) for positions in test
    )


def training_persons(path: Path) -> tuple[np.ndarray, ...]:
    """Read the training persons, ascending int64, of each official partition of GRID."""
    # In ``features_and_partitions.mat``, ``trainIdxAll`` is a 1×10 cell array of structures with the fields
    # ``probeImIdx``, ``galleryImIdx`` and ``personIdx``.
    cells = _load_mat(path).get("trainIdxAll")
    try:
        if cells is None:
            raise ValueError("no trainIdxAll in the file")
        if cells.dtype != object:
            raise ValueError(f"trainIdxAll is an array of {cells.dtype} and not a cell array")
        persons = tuple(map(_training_persons, cells.ravel()))
        if not persons:
            raise ValueError("trainIdxAll is empty")
        return persons
    except ValueError as error:
        raise InputError(
            f"{GRID_FILE} contains trainIdxAll, a cell array of structures with the training persons",
            f"{path}: {error}",
            "use the file from the archive",
        ) from None


def _training_persons(cell: np.ndarray) -> np.ndarray:
    fields = cell.dtype.names or ()
    if cell.size != 1 or len(fields) < 3:
        raise ValueError(f"a cell of {cell.size} with the fields {', '.join(fields) or 'none'}")
    # Other readers identify the field only by its position, the third.
    name = "personIdx" if "personIdx" in fields else fields[2]
    numbers = np.asarray(cell.ravel()[0][name]).ravel()
    if not (numbers.dtype.kind in "iuf" and numbers.size):
        raise ValueError("a cell without persons")
    persons = np.unique(np.where(np.abs(numbers) < 2**31, numbers, 0).astype(np.int64))
    if len(persons) != len(numbers) or (persons != np.sort(numbers)).any() or persons[0] < 1:
        raise ValueError("a cell with persons that are repeated or not positive whole numbers")
    return persons


def _load_mat(path: Path) -> dict:
    from scipy.io import loadmat  # its import takes 0.15 s, which other benchmarks avoid

    try:
        with path.open("rb") as file:
            head = file.read(520)
    except OSError as error:
        raise InputError(
            f"GRID's partitions are in {GRID_FILE} beside probe and gallery",
            f"{error.strerror}: {path}",
            "copy it there from the archive",
        ) from None
    # MATLAB's own files start with 512 bytes of text; other programs write HDF5 without them.
    if head.startswith(b"MATLAB 7.3") or b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:]):
        raise InputError(
            f"{GRID_FILE} is a .mat file of version 5 to 7",
            f"version 7.3 (HDF5): {path}",
            "use the file from the archive, or save it again in MATLAB with save(…, '-v7')",
        )
    try:
        return loadmat(path, variable_names=["trainIdxAll"])
    except Exception as error:  # for damaged bytes, scipy raises IndexError, OSError, zlib.error and others
        raise InputError(
            f"{GRID_FILE} is readable",
            f"{path}: {type(error).__name__}: {' '.join(str(error).split())}",
            "unpack it from the archive again",
        ) from None
