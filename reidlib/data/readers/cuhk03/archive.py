"""Extraction of the images of ``cuhk-03.mat``, an HDF5 file with MATLAB's cells of references."""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from reidlib import files
from reidlib.data.splits import Split
from reidlib.errors import InputError, shorten
from reidlib.files import build_once, find_json, write_buffered, write_error, write_json
from reidlib.progress import progress_bar

ARCHIVE = "cuhk-03.mat"
# Name of the boxes here, also in file names and options -> name in the archive.
KINDS = {"labelled": "labeled", "detected": "detected"}
# For each test set, rows of pair and person.
TestSets = tuple[tuple[tuple[int, int], ...], ...]
SLOTS = 10  # images of a person: 1 to 5 are view 1, 6 to 10 are view 2
_AGAIN = "download or copy the file again"
_NAME = re.compile(r"[a-z]+_(\d+)_(\d+)_([12])_(\d+)\.png")
# Maximum number of images in memory; more would only wait for the encoders.
_IN_FLIGHT = 64
_BLOCK = 65_536


@dataclass(frozen=True)
class Extraction:
    """Extracted images of one kind of boxes, and the archive's camera pairs and test sets.

    Attributes:
        identity: The archive's identity, see ``archive_identity``.
        folder: Folder of the image files.
        names: Sorted names of the files, such as ``labelled_1_001_2_06.png``: boxes, camera pair, person in
            that pair, view (1 or 2) and slot (1 to 10), counted from 1.
        persons_of_pairs: Number of persons of each camera pair.
        test_sets: The classic protocol's test sets, each as (pair, person) rows.
    """

    identity: str
    folder: Path
    names: tuple[str, ...]
    persons_of_pairs: tuple[int, ...]
    test_sets: TestSets

    @cached_property
    def numbers(self) -> np.ndarray:
        """Pair, person in the pair, view and slot of every image, int64 (N, 4), parsed from the names."""
        groups = [match.groups() for name in self.names if (match := _NAME.fullmatch(name))]
        if len(groups) != len(self.names):
            raise ValueError("a name without pair, person, view and slot")
        return np.array(groups, dtype=np.int64).reshape(-1, 4)

    @cached_property
    def split(self) -> Split:
        """All images; the camera id is the view."""
        pairs_n, persons_n, views_n, _ = self.numbers.T
        paths = tuple(self.folder / name for name in self.names)
        return Split(paths, self.person_ids(pairs_n, persons_n), views_n)

    def person_ids(self, pairs: np.ndarray, persons: np.ndarray) -> np.ndarray:
        """Return person ids, int64 (N,), counted from 1 through the pairs like the new protocol's labels."""
        offsets = np.cumsum([0, *self.persons_of_pairs])
        return offsets[pairs - 1] + persons


def archive_identity(archive: Path) -> str:
    """Hash a file's size and 16 blocks spread over it, to 12 hexadecimal digits."""
    # A copy of the file has the same identity, and loading does not read the whole gigabyte.
    try:
        size = archive.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with archive.open("rb") as stream:
            for start in np.linspace(0, max(0, size - _BLOCK), 16).astype(int).tolist():
                stream.seek(start)
                digest.update(stream.read(_BLOCK))
    except OSError as error:
        value = f"{archive}: {error.strerror or error}"
        raise InputError(f"{ARCHIVE} is readable", value, "check its access rights") from error
    return digest.hexdigest()[:12]


def extract(archive: Path, boxes: str, *, progress: bool = True) -> Extraction:
    """Write the images of ``boxes`` ("labelled" or "detected") as PNG files, unless they exist already."""
    # The files are under ``files.data()`` in a folder named after the archive's identity. Each is written
    # atomically, the index last: an interrupted extraction continues where it stopped, and missing images are
    # written again. Of several processes, only one writes.
    identity = archive_identity(archive)
    home = files.data() / f"cuhk03-{identity}"
    index, folder = home / f"{boxes}.json", home / boxes

    def build() -> Extraction:
        folder.mkdir(exist_ok=True)
        extraction = _extract(archive, identity, boxes, folder, progress)
        content = {name: getattr(extraction, name) for name in ("persons_of_pairs", "test_sets")}
        write_json(index, {"images": extraction.names, **content})
        return extraction

    try:
        return build_once(home / f"{boxes}.lock", lambda: _find_complete(identity, index, folder), build)
    except OSError as error:
        raise write_error(folder, error) from error


def _find_complete(identity: str, index: Path, folder: Path) -> Extraction | None:
    """Read an extraction from its index; None if an image or the index, which is written last, is missing."""
    content = find_json(index)
    if content is None:
        return None
    try:
        extraction = Extraction(
            identity,
            folder,
            tuple(content["images"]),
            tuple(content["persons_of_pairs"]),
            tuple(tuple((pair, person) for pair, person in rows) for rows in content["test_sets"]),
        )
        _ = extraction.numbers  # raises ValueError for names that were changed
        existing = set(os.listdir(folder))  # noqa: PTH208 - one listing, not one query for each file
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return extraction if existing.issuperset(extraction.names) else None


def _extract(archive: Path, identity: str, boxes: str, folder: Path, progress: bool) -> Extraction:
    """Write the images that do not exist yet; the caller holds the lock."""
    existing = set(os.listdir(folder))  # noqa: PTH208
    for name in existing:
        if name.endswith(".partial"):  # left by a killed process; only the lock's holder writes here
            (folder / name).unlink()
    with open_archive(archive) as file:
        pairs = read_pairs(file, boxes)
        persons_of_pairs = tuple(len(references) for references in pairs)
        test_sets = read_test_sets(file, persons_of_pairs)
        names = []
        bar = progress_bar(
            total=SLOTS * sum(persons_of_pairs), unit="image", desc=f"{boxes} images", disable=not progress
        )
        with bar, ThreadPoolExecutor(min(8, os.cpu_count() or 1), "encode") as threads:
            pending: deque[Future] = deque()
            try:
                for name, place, reference in image_cells(pairs, boxes):
                    if name not in existing:
                        image_hwc = read_image(file, reference, place)
                        if image_hwc is None:  # only this slot is empty, others may follow
                            bar.total -= 1
                            continue
                        if len(pending) >= _IN_FLIGHT:
                            pending.popleft().result()
                        pending.append(threads.submit(_write, folder / name, image_hwc))
                    names.append(name)
                    bar.update()
                for future in pending:
                    future.result()
            finally:
                for future in pending:
                    future.cancel()
    if not names:
        raise archive_error(archive, f"no {KINDS[boxes]} image")
    return Extraction(identity, folder, tuple(sorted(names)), persons_of_pairs, test_sets)


def _write(path: Path, image_hwc: np.ndarray) -> None:
    # Encoded in memory first, because Pillow reports a full disk as an encoder's error without a reason.
    write_buffered(path, lambda buffer: Image.fromarray(image_hwc).save(buffer, "PNG", compress_level=1))


@contextmanager
def open_archive(archive: Path) -> Iterator[h5py.File]:
    """Open the archive as HDF5, and turn all errors of a damaged file into InputError."""
    try:
        _check_format(archive)
        with h5py.File(archive, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        # HDF5 reports "truncated file: eof = …" if the end is missing, and a filter's name for a bad chunk.
        reason = " ".join(str(error).strip("'\"").split())
        raise InputError(f"{ARCHIVE} is readable to its end", f"{archive}: {reason}", _AGAIN) from error


def _check_format(archive: Path) -> None:
    with archive.open("rb") as stream:
        head = stream.read(520)
    # MATLAB writes 512 bytes before the HDF5 signature; a file from another program may have none.
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520]):
        return
    text = head.lstrip()[:200].lower()
    if head.startswith(b"MATLAB 5.0"):
        value, mend = "in version 5 to 7", "use the original file, or save it in MATLAB with '-v7.3'"
    elif text.startswith(b"version https://git-lfs"):
        value, mend = "a pointer of git-lfs and not the file itself", "fetch it with: git lfs pull"
    elif text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        value, mend = "a web page", "download the file itself, not the page that links to it"
    elif text.startswith(b"pk\x03\x04"):
        value, mend = "a ZIP archive", f"unpack it and give the folder that then contains {ARCHIVE}"
    elif not head:
        value, mend = "an empty file", _AGAIN
    else:
        value, mend = "not a MATLAB 7.3 file (damaged, or of another version)", _AGAIN
    raise InputError(f"{ARCHIVE} is in MATLAB's version 7.3, which is HDF5", f"{archive}, {value}", mend)


def archive_error(archive: Path | str, value: str) -> InputError:
    """Make the error for an HDF5 file that is not this archive."""
    rule = f"{ARCHIVE} contains the cells detected, labeled and testsets"
    return InputError(rule, f"{archive}: {value}", _AGAIN)


def _cells(file: h5py.File, key: str) -> list[h5py.Dataset]:
    """Return the data sets to which a row of cells refers."""
    # HDF5 reverses MATLAB's axes, which makes no difference for a row.
    cells = file.get(key)
    if not isinstance(cells, h5py.Dataset):
        names = shorten([name for name in sorted(file) if not name.startswith("#")], 10)
        raise archive_error(file.filename, f"no {key}; it contains {names or 'nothing'}")
    references = enumerate(_references(cells).ravel(), 1)
    return [_dataset(file, reference, f"{key}{{{number}}}") for number, reference in references]


def _dataset(file: h5py.File, reference: h5py.Reference, place: str) -> h5py.Dataset:
    dataset = file[reference]
    if not isinstance(dataset, h5py.Dataset):
        raise archive_error(file.filename, f"{place} is a {type(dataset).__name__.lower()} and not an array")
    return dataset


def _references(cells: h5py.Dataset) -> np.ndarray:
    if h5py.check_ref_dtype(cells.dtype) is not h5py.Reference:
        raise archive_error(cells.file.filename, f"{cells.name} is {cells.dtype} and not a cell array")
    return cells[()]


def read_pairs(file: h5py.File, boxes: str) -> list[np.ndarray]:
    """Read the references to each camera pair's images, each of shape (persons, 10)."""
    pairs = [_references(cells).T for cells in _cells(file, KINDS[boxes])]
    for number, references in enumerate(pairs, 1):
        if references.ndim != 2 or references.shape[1] != SLOTS:
            shape = " by ".join(map(str, references.shape))
            raise archive_error(
                file.filename, f"pair {number} of {KINDS[boxes]} is {shape} instead of persons by {SLOTS}"
            )
    return pairs


def image_cells(pairs: list[np.ndarray], boxes: str) -> Iterator[tuple[str, str, h5py.Reference]]:
    """Iterate over all cells: file name, place in MATLAB's notation, and reference, which may be empty."""
    for pair, references in enumerate(pairs, 1):
        for (row, column), reference in np.ndenumerate(references):
            person, slot = row + 1, column + 1
            view = 1 if slot <= SLOTS // 2 else 2
            name = f"{boxes}_{pair}_{person:03d}_{view}_{slot:02d}.png"
            yield name, f"{KINDS[boxes]}{{{pair}}}{{{person},{slot}}}", reference


def read_image(file: h5py.File, reference: h5py.Reference, place: str) -> np.ndarray | None:
    """Read the image (H, W, 3) of a reference; None for an empty cell."""
    cell = _dataset(file, reference, place) if reference else None
    # MATLAB writes an empty cell as its dimensions, [0 0], with an attribute that some converters drop.
    if cell is None or cell.attrs.get("MATLAB_empty", 0) or not cell.size or cell.ndim == 1:
        return None
    if cell.ndim != 3 or cell.shape[0] != 3 or cell.dtype != np.uint8:
        shape = " by ".join(map(str, reversed(cell.shape)))
        raise archive_error(file.filename, f"{place} is {shape} of {cell.dtype} and not a colour image")
    try:
        stored_cwh = cell[()]
    except OSError as error:
        raise InputError(f"{ARCHIVE} is readable to its end", f"{place}: {error}", _AGAIN) from error
    return np.ascontiguousarray(stored_cwh.T)


def read_test_sets(file: h5py.File, persons_of_pairs: tuple[int, ...]) -> TestSets:
    """Read the classic protocol's test sets, each as (pair, person) rows of persons in the archive."""
    persons = {
        (pair, person) for pair, count in enumerate(persons_of_pairs, 1) for person in range(1, count + 1)
    }
    test_sets = []
    for number, cell in enumerate(_cells(file, "testsets"), 1):
        rows_n2 = cell[()].T
        if rows_n2.ndim != 2 or rows_n2.shape[1] != 2 or not np.array_equal(rows_n2, np.rint(rows_n2)):
            raise archive_error(file.filename, f"test set {number} is not a list of pair and person")
        rows = [(int(pair), int(person)) for pair, person in rows_n2.tolist()]
        if absent := [row for row in rows if row not in persons]:
            raise archive_error(file.filename, f"test set {number} has {shorten(absent)}, not in the archive")
        test_sets.append(tuple(rows))
    return tuple(test_sets)
