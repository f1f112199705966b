"""Which persons are tested in each trial: GRID's official partitions, and those of sets that have none.

Where there is no official partition, persons go by their place among the sorted person ids, counted from 1,
so that no file names a path. A partition follows from SHA-256 alone: no random library, whose numbers may
change with its version, has a part in it. Those of the official sizes also lie here as
``NAME_TESTPERSONS.json``.

A file of your own, for a reader's ``partitions=FILE``, has the same form. This one is for a VIPeR cut down to
six persons, with two trials that test three of them each; everybody else is trained on::

    {
     "benchmark": "viper",
     "persons": 6,
     "test": [
      [1, 2, 6],
      [1, 3, 5]
     ]
    }

``write_partitions(Path("mine.json"), Partitions("viper", 6, ((1, 2, 6), (1, 3, 5))))`` writes it, with
``"sha256"``, a checksum that a file made by hand may go without. With all of a set's person ids sorted
(VIPeR's are the numbers in its files' names plus one), a person's place is
``sorted_ids.index(person_id) + 1``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, pairwise
from pathlib import Path

import numpy as np

from reidlib.data.readers.layout import near_miss, seeded_order
from reidlib.errors import InputError, shorten
from reidlib.files import write_text

TRIALS = 10
GRID_FILE = "features_and_partitions.mat"


@dataclass(frozen=True)
class Partitions:
    """Test persons of every trial of a benchmark.

    ``persons``: how many there are in all. ``test``: by trial, the places of the test persons among the
    sorted person ids, 1 to ``persons``; kept ascending. Who is not tested is trained on.

    Raises ``InputError`` unless each trial tests equally many persons, none of them twice, and leaves some.
    """

    benchmark: str
    persons: int
    test: tuple[tuple[int, ...], ...]

    def __post_init__(self):
        object.__setattr__(self, "test", tuple(tuple(sorted(places)) for places in self.test))
        sizes = sorted({len(places) for places in self.test})
        if len(sizes) != 1 or not 0 < sizes[0] < self.persons:
            raise InputError(
                "every trial tests equally many persons and leaves at least one for training",
                f"{shorten(sizes)} of {self.persons} persons in {len(self.test)} trials",
                "list at least one trial, and as many persons in each",
            )
        for trial, places in enumerate(self.test):
            if repeated := sorted({one for one, other in pairwise(places) if one == other}):
                raise InputError(
                    "a trial tests a person once",
                    f"{shorten(repeated)} twice in trial {trial}",
                    "list each test person once",
                )
        if absent := sorted({one for one in chain(*self.test) if not 1 <= one <= self.persons}):
            raise InputError(
                f"a test person is a place among the {self.persons} sorted person ids, counted from 1",
                shorten(absent),
                "list the persons' places, not the numbers in their files' names",
            )

    @property
    def test_persons(self) -> int:
        """How many persons each trial tests."""
        return len(self.test[0])

    def person_ids(self, trial: int, persons_k: np.ndarray) -> np.ndarray:
        """Ids of a trial's test persons, ascending, from all the sorted ids (K,)."""
        return persons_k[np.array(self.test[trial]) - 1]

    @property
    def checksum(self) -> str:
        """SHA-256 of the content in one canonical form, 64 hexadecimal digits."""
        content = {"benchmark": self.benchmark, "persons": self.persons, "test": self.test}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def draw_partitions(benchmark: str, persons: int, test_persons: int) -> Partitions:
    """Ten random partitions, the same on every machine.

    In trial k the persons are ordered by the SHA-256 of
    ``BENCHMARK P persons, T for testing, trial k: PLACE``, and the first T are tested. Raises
    ``InputError`` unless there is at least one person on each side.
    """
    if type(test_persons) is not int or not 0 < test_persons < persons:
        raise InputError(
            f"{benchmark} is divided into at least 1 person for training and 1 for testing",
            f"test_persons={test_persons!r} of the {persons} persons that are there",
            f"unpack the archive completely, or choose test_persons from 1 to {persons - 1}"
            if persons > 1
            else "unpack the archive completely",
        )

    def drawn(trial: int) -> tuple[int, ...]:
        label = f"{benchmark} {persons} persons, {test_persons} for testing, trial {trial}"
        return tuple(seeded_order(label, persons)[:test_persons])

    return Partitions(benchmark, persons, tuple(map(drawn, range(TRIALS))))


def partitions_for(benchmark: str, persons: int, test_persons: int) -> Partitions:
    """The stored partitions of this size; else those that ``draw_partitions`` draws by the same rule."""
    stored = files(__name__) / f"{benchmark}_{test_persons}.json"
    if stored.is_file():
        partitions = _parsed(stored.read_bytes(), stored.name, checked=True)
        if partitions.persons == persons:
            return partitions
    return draw_partitions(benchmark, persons, test_persons)


def choose_partitions(
    benchmark: str, root: Path, persons: int, test_persons: int, options: Mapping[str, str | int]
) -> Partitions:
    """What a reader's keywords ask for: the user's file, or ``test_persons`` of those that are there.

    ``options`` are the keywords that were changed: ``partitions`` names the file, whose own number
    ``test_persons`` gives way to unless it is among them, too. Raises ``InputError`` like
    ``read_partitions`` and ``draw_partitions``, and where file and ``test_persons`` contradict each other.
    """
    if not (file := options.get("partitions")):
        return partitions_for(benchmark, persons, test_persons)
    if "," in file:
        raise InputError(
            "the path of a file of partitions holds no comma, which separates options in a run's name",
            repr(file),
            "rename the file or its folder",
        )
    partitions = read_partitions(root / Path(file).expanduser(), benchmark, persons)
    if options.get("test_persons", partitions.test_persons) != partitions.test_persons:
        raise InputError(
            "a file of partitions says itself how many persons are tested",
            f"test_persons={test_persons} and {file} with {partitions.test_persons}",
            "leave one of the two out",
        )
    return partitions


def read_partitions(path: Path, benchmark: str, persons: int) -> Partitions:
    """A user's own partitions of ``benchmark`` with that many persons.

    Raises ``InputError`` for a file that is absent, damaged, of another benchmark or of another number of
    persons, and for what ``Partitions`` refuses.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        there = [file.name for file in path.parent.glob("*.json")] if path.parent.is_dir() else []
        raise InputError(
            "a file of partitions can be read",
            f"{error.strerror}: {path}",
            near_miss(path.name, there, prefix=path.parent)
            or "give its path, relative to the benchmark's folder",
        ) from None
    partitions = _parsed(content, str(path), checked=False)
    if (partitions.benchmark, partitions.persons) != (benchmark, persons):
        raise InputError(
            f"partitions for this folder are those of {benchmark} with its {persons} persons",
            f"{path} for {partitions.benchmark} with {partitions.persons}",
            "unpack the archive completely, or give a file made for this folder",
        )
    return partitions


def write_partitions(path: Path, partitions: Partitions) -> None:
    """Write partitions with their checksum as JSON, a trial a line; whole or not at all."""
    trials = ",\n".join(f"  {json.dumps(places)}" for places in partitions.test)
    head = f' "benchmark": {json.dumps(partitions.benchmark)},\n "persons": {partitions.persons},\n'
    write_text(path, f'{{\n{head} "test": [\n{trials}\n ],\n "sha256": "{partitions.checksum}"\n}}\n')


def _parsed(content: bytes, name: str, *, checked: bool) -> Partitions:
    try:
        found = json.loads(content)
        if not (isinstance(found, dict) and {"benchmark", "persons", "test"} <= found.keys()):
            raise ValueError("no object with benchmark, persons and test")
        benchmark, persons, test = found["benchmark"], found["persons"], found["test"]
        if not (isinstance(benchmark, str) and type(persons) is int and _is_table(test)):
            raise ValueError("benchmark is no text, or persons and test are no whole numbers")
        partitions = Partitions(benchmark, persons, tuple(map(tuple, test)))
    except InputError as error:
        raise InputError(error.rule, f"{error.value}, in {name}", error.mend) from None
    except ValueError as error:
        raise InputError(
            'a file of partitions is JSON: {"benchmark": NAME, "persons": NUMBER, "test": [[PLACE, …], …]}',
            f"{name}: {error}",
            "write the file again",
        ) from None
    given = found.get("sha256", None if checked else partitions.checksum)
    if given != partitions.checksum:
        raise InputError(
            "a file of partitions holds what its checksum says",
            f"{name} with {partitions.checksum} instead of {given}",
            "install reidlib again"
            if checked
            else "restore the file, or take its sha256 out if you changed it",
        )
    return partitions


def _is_table(test: object) -> bool:
    return isinstance(test, list) and all(
        isinstance(places, Sequence) and all(type(place) is int for place in places) for places in test
    )


def training_persons(path: Path) -> tuple[np.ndarray, ...]:
    """Training persons of each official partition, ascending int64, from ``features_and_partitions.mat``.

    Its ``trainIdxAll`` is a 1×10 cell array of structures with the fields ``probeImIdx``,
    ``galleryImIdx`` and ``personIdx``. Raises ``InputError`` for a file that is absent, damaged, of
    MATLAB's version 7.3 or of another structure.
    """
    cells = _load_mat(path).get("trainIdxAll")
    try:
        if cells is None:
            raise ValueError("no trainIdxAll in it")
        if cells.dtype != object:
            raise ValueError(f"trainIdxAll is an array of {cells.dtype} and no cell array")
        persons = tuple(map(_training_persons, cells.ravel()))
        if not persons:
            raise ValueError("trainIdxAll is empty")
        return persons
    except ValueError as error:
        raise InputError(
            f"{GRID_FILE} holds trainIdxAll, a cell array of structures with the training persons",
            f"{path}: {error}",
            "take the file of the archive",
        ) from None


def _training_persons(cell: np.ndarray) -> np.ndarray:
    fields = cell.dtype.names or ()
    if cell.size != 1 or len(fields) < 3:
        raise ValueError(f"a cell of {cell.size} with the fields {', '.join(fields) or 'none'}")
    # Other readers know the field by its place alone, the third.
    name = "personIdx" if "personIdx" in fields else fields[2]
    numbers = np.asarray(cell.ravel()[0][name]).ravel()
    if not (numbers.dtype.kind in "iuf" and numbers.size):
        raise ValueError("a cell without persons")
    persons = np.unique(np.where(np.isfinite(numbers), numbers, 0).astype(np.int64))
    if len(persons) != len(numbers) or (persons != np.sort(numbers)).any() or persons[0] < 1:
        raise ValueError("a cell with persons who are repeated or no positive whole numbers")
    return persons


def _load_mat(path: Path) -> dict:
    from scipy.io import loadmat  # takes 0.15 s to import, which other benchmarks need not wait for

    try:
        with path.open("rb") as file:
            head = file.read(520)
    except OSError as error:
        raise InputError(
            f"GRID's partitions lie in {GRID_FILE} beside probe and gallery",
            f"{error.strerror}: {path}",
            "copy it there from the archive",
        ) from None
    # MATLAB's own begin with 512 bytes of text; other programs write HDF5 without them.
    if head.startswith(b"MATLAB 7.3") or b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:]):
        raise InputError(
            f"{GRID_FILE} is a .mat of version 5 to 7",
            f"version 7.3 (HDF5): {path}",
            "take the file of the archive, or save it again in MATLAB with save(…, '-v7')",
        )
    try:
        return loadmat(path, variable_names=["trainIdxAll"])
    except Exception as error:  # scipy answers damaged bytes with IndexError, OSError, zlib.error and others
        raise InputError(
            f"{GRID_FILE} can be read",
            f"{path}: {type(error).__name__}: {' '.join(str(error).split())}",
            "unpack it from the archive again",
        ) from None
