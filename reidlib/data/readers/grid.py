"""QMUL GRID: 250 persons in two views of an underground station's eight cameras, and 775 distractors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.data.readers.layout import Reading, official_counts
from reidlib.data.readers.two_view import divide, problems_of_trials, read_views, unpaired
from reidlib.data.rules import queries_without_match
from reidlib.data.splits import concatenated
from reidlib.errors import InputError, counted, shorten

FOLDERS = ("gallery", "probe")
PARTITIONS = "features_and_partitions.mat"
NUM_PARTITIONS, NUM_TRAINING_PERSONS = 10, 125
# Distractors of the probe's own camera stay: the 900 gallery images are the same for every probe.
PROTOCOLS = {"single-shot": Protocol("single", across_cameras=False)}

_FORM = "GRID's images are named by 4 digits of the person and the camera 1 to 8, as in 0001_1_25004_107.jpeg"
_NAME = re.compile(r"(\d{4})_([1-8])_.*")


def grid(root: Path) -> Reading:
    """QMUL GRID (Loy, Xiang, Gong 2009). ``root`` holds ``probe``, ``gallery`` and the partitions' .mat.

    ``features_and_partitions.mat`` holds ten partitions (``trial``), each with 125 training persons, whose
    images of both folders are the training split. Query are the other persons' probes; gallery are their
    gallery images and, in every trial, all distractors (``0000``).

    Protocol: ``single-shot``. Refused are a folder one level too high or too low, names of another form,
    persons whom only one folder shows, a .mat that cannot be read or is of version 7.3, and partitions whose
    persons are not there.
    """
    reading = read_views(root, FOLDERS, "GRID", _FORM, _read_name)
    reading.title, reading.expected = "grid", official_counts("grid")
    if len(reading.parts) == 2:
        reading.problems += unpaired(*reading.parts.values(), "probe and in gallery")
    training = reading.attempt(training_persons, root / PARTITIONS) or ()
    if not reading.problems:
        reading.num_trials = len(training)
        images = concatenated(list(reading.parts.values()))
        if absent := np.setdiff1d(np.concatenate(training), images.person_ids).tolist():
            reading.problems.append(
                InputError(
                    "the persons of the partitions have images in probe and gallery",
                    f"{counted(len(absent), 'persons')} without: {shorten(absent, 20)}",
                    "unpack the archive completely",
                )
            )

    def make(trial: int) -> Benchmark:
        in_query_n = np.arange(len(images)) >= len(reading.parts["gallery"])
        return Benchmark(
            "grid",
            root,
            *divide(images, in_query_n, ~np.isin(images.person_ids, training[trial])),
            num_trials=len(training),
            trial=trial,
            protocols=PROTOCOLS,
        )

    def examine() -> Iterator[InputError | str]:
        yield from problems_of_trials(reading)
        sizes = [len(persons) for persons in training]
        if training and sizes != [NUM_TRAINING_PERSONS] * NUM_PARTITIONS:
            yield (
                f"{PARTITIONS} holds {counted(len(sizes), 'partitions')} of {shorten(sorted(set(sizes)))}"
                f" training persons; {NUM_PARTITIONS} of {NUM_TRAINING_PERSONS} belong there"
            )
        if len(reading.parts) == 2:
            gallery, probes = reading.parts.values()
            if unmatched := queries_without_match(probes, gallery):
                named = shorten([path.name for path in unmatched])
                reading.remarks.append(f"{len(unmatched)} of {len(probes)} probes have no match: {named}")

    reading.make, reading.examine = make, examine
    return reading


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
            f"{PARTITIONS} holds trainIdxAll, a cell array of structures with the training persons",
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
            f"GRID's partitions lie in {PARTITIONS} beside probe and gallery",
            f"{error.strerror}: {path}",
            "copy it there from the archive",
        ) from None
    # MATLAB's own begin with 512 bytes of text; other programs write HDF5 without them.
    if head.startswith(b"MATLAB 7.3") or b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:]):
        raise InputError(
            f"{PARTITIONS} is a .mat of version 5 to 7",
            f"version 7.3 (HDF5): {path}",
            "take the file of the archive, or save it again in MATLAB with save(…, '-v7')",
        )
    try:
        return loadmat(path, variable_names=["trainIdxAll"])
    except Exception as error:  # scipy answers damaged bytes with IndexError, OSError, zlib.error and others
        raise InputError(
            f"{PARTITIONS} can be read",
            f"{path}: {type(error).__name__}: {' '.join(str(error).split())}",
            "unpack it from the archive again",
        ) from None


def _read_name(folder: str, name: str) -> tuple[int, int] | None:
    match = _NAME.fullmatch(name)
    return match and (int(match[1]), int(match[2]))
