"""The images of ``cuhk-03.mat``, written to files once and found again.

The file is HDF5 with MATLAB's cells of references.
"""

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
from reidlib.files import built_once, find_json, unwritable, write_filled, write_json
from reidlib.progress import progress_bar

ARCHIVE = "cuhk-03.mat"
# How the boxes are called here (in file names and options too), and in the file.
KINDS = {"labelled": "labeled", "detected": "detected"}
# Rows of pair and person, a set each.
TestSets = tuple[tuple[tuple[int, int], ...], ...]
SLOTS = 10  # images of a person: 1 to 5 of view 1, 6 to 10 of view 2
_AGAIN = "download or copy the file again"
_NAME = re.compile(r"[a-z]+_(\d+)_(\d+)_([12])_(\d+)\.png")
# Images kept in memory at most: more would only wait for the encoders.
_IN_FLIGHT = 64
_BLOCK = 65_536


@dataclass(frozen=True)
class Extraction:
    """Images of one kind of boxes as files, and what else the archive says.

    ``folder`` holds ``names``, sorted, such as ``labelled_1_001_2_06.png``: boxes, camera pair, person in
    that pair, view (1 or 2) and slot (1 to 10), counted from 1. ``persons_of_pairs``: how many persons each
    camera pair has. ``test_sets``: the classic protocol's, each as (pair, person) rows. ``identity``: the
    archive's.
    """

    identity: str
    folder: Path
    names: tuple[str, ...]
    persons_of_pairs: tuple[int, ...]
    test_sets: TestSets

    @cached_property
    def numbers(self) -> np.ndarray:
        """Pair, person in the pair, view and slot of every image: int64 (N, 4).

        Raises ``ValueError`` for a name that does not hold them.
        """
        matches = [_NAME.fullmatch(name) for name in self.names]
        if not all(matches):
            raise ValueError("a name without pair, person, view and slot")
        return np.array([match.groups() for match in matches], dtype=np.int64).reshape(-1, 4)

    @cached_property
    def split(self) -> Split:
        """All images; a camera is the view."""
        pairs_n, persons_n, views_n, _ = self.numbers.T
        paths = tuple(self.folder / name for name in self.names)
        return Split(paths, self.person_ids(pairs_n, persons_n), views_n)

    def person_ids(self, pairs: np.ndarray, persons: np.ndarray) -> np.ndarray:
        """Person ids from 1, counted on from pair to pair as the new protocol's labels are: int64 (N,)."""
        before = np.cumsum([0, *self.persons_of_pairs])
        return before[pairs - 1] + persons


def identity(archive: Path) -> str:
    """12 hexadecimal digits of a file's size and of blocks spread over it.

    A copy is recognised wherever it lies, and reading all of a gigabyte at each load is avoided. Raises
    ``InputError`` for a file that cannot be read.
    """
    try:
        size = archive.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with archive.open("rb") as stream:
            for start in np.linspace(0, max(0, size - _BLOCK), 16).astype(int).tolist():
                stream.seek(start)
                digest.update(stream.read(_BLOCK))
    except OSError as error:
        value = f"{archive}: {error.strerror or error}"
        raise InputError(f"{ARCHIVE} can be read", value, "check its access rights") from error
    return digest.hexdigest()[:12]


def extract(archive: Path, boxes: str, *, progress: bool = True) -> Extraction:
    """Images of ``boxes`` ("labelled" or "detected") as PNG files, written unless they are there already.

    They lie under ``files.data()`` in a folder named after the archive's ``identity``, each written
    whole, the index last; a killed extraction goes on where it stopped, and images that were lost since are
    written again. Two processes that want the same images write them once.

    Raises ``InputError`` for a file that is damaged or no such archive, and for a full disk.
    """
    known = identity(archive)
    home = files.data() / f"cuhk03-{known}"
    index, folder = home / f"{boxes}.json", home / boxes

    def build() -> Extraction:
        folder.mkdir(exist_ok=True)
        found = _extract(archive, known, boxes, folder, progress)
        persons_of_pairs, test_sets = found.persons_of_pairs, found.test_sets
        content = {"images": found.names, "persons_of_pairs": persons_of_pairs, "test_sets": test_sets}
        write_json(index, content)
        return found

    try:
        return built_once(home / f"{boxes}.lock", lambda: _complete(known, index, folder), build)
    except OSError as error:
        raise unwritable(folder, error) from error


def _complete(known: str, index: Path, folder: Path) -> Extraction | None:
    """What the index names, if all of it is there; the index is written last."""
    try:
        content = find_json(index)
        found = Extraction(
            known,
            folder,
            tuple(content["images"]),
            tuple(content["persons_of_pairs"]),
            tuple(tuple((pair, person) for pair, person in one) for one in content["test_sets"]),
        )
        _ = found.numbers  # names that were tampered with are no index
        there = set(os.listdir(folder))  # noqa: PTH208 - one listing, not one question a file
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if there.issuperset(found.names) else None


def _extract(archive: Path, known: str, boxes: str, folder: Path, progress: bool) -> Extraction:
    """Write the images that are not there yet; the caller holds the lock."""
    there = set(os.listdir(folder))  # noqa: PTH208
    for name in there:
        if name.endswith(".partial"):  # what a killed process was writing; nobody else writes here
            (folder / name).unlink()
    with opened(archive) as file:
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
                for name, place, reference in planned(pairs, boxes):
                    if name not in there:
                        image_hwc = read_image(file, reference, place)
                        if image_hwc is None:  # only this one is missing: others may follow
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
        raise no_archive(archive, f"no {KINDS[boxes]} image in it")
    return Extraction(known, folder, tuple(sorted(names)), persons_of_pairs, test_sets)


def _write(path: Path, image_hwc: np.ndarray) -> None:
    # Encoded in memory first: Pillow reports a full disk as an encoder's error, without saying what it is.
    write_filled(path, lambda buffer: Image.fromarray(image_hwc).save(buffer, "PNG", compress_level=1))


@contextmanager
def opened(archive: Path) -> Iterator[h5py.File]:
    """The archive as HDF5, with everything that HDF5 reports about damage as one ``InputError``."""
    try:
        _check_format(archive)
        with h5py.File(archive, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        # HDF5 says "truncated file: eof = …" where the end is missing, and a filter's name for a bad chunk.
        reason = " ".join(str(error).strip("'\"").split())
        raise InputError(f"{ARCHIVE} can be read to its end", f"{archive}: {reason}", _AGAIN) from error


def _check_format(archive: Path) -> None:
    with archive.open("rb") as stream:
        head = stream.read(520)
    # MATLAB puts 512 bytes of its own before the HDF5 signature; a file from another program may have none.
    if b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520]):
        return
    text = head.lstrip()[:200].lower()
    if head.startswith(b"MATLAB 5.0"):
        found, mend = "in version 5 to 7", "take the original file, or save it in MATLAB with '-v7.3'"
    elif text.startswith(b"version https://git-lfs"):
        found, mend = "a pointer of git-lfs and not the file itself", "fetch it with: git lfs pull"
    elif text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        found, mend = "a web page", "download again: the link led to a page and not to the file"
    elif text.startswith(b"pk\x03\x04"):
        found, mend = "a ZIP archive", f"unpack it and give the folder that then holds {ARCHIVE}"
    elif not head:
        found, mend = "an empty file", _AGAIN
    else:
        found, mend = "no MATLAB 7.3 file (damaged, or of another version)", _AGAIN
    raise InputError(f"{ARCHIVE} is in MATLAB's version 7.3, which is HDF5", f"{archive}, {found}", mend)


def no_archive(archive: Path | str, found: str) -> InputError:
    """The error for a file that is HDF5 and yet not this archive."""
    return InputError(
        f"{ARCHIVE} holds the cells detected, labeled and testsets", f"{archive}: {found}", _AGAIN
    )


def _cells(file: h5py.File, key: str) -> list[h5py.Dataset]:
    """What the cells of a row refer to. HDF5 has MATLAB's axes in reverse, which a row does not notice."""
    cells = file.get(key)
    if not isinstance(cells, h5py.Dataset):
        there = shorten([name for name in sorted(file) if not name.startswith("#")], 10)
        raise no_archive(file.filename, f"no {key}; it holds {there or 'nothing'}")
    references = enumerate(_references(cells).ravel(), 1)
    return [_dataset(file, reference, f"{key}{{{number}}}") for number, reference in references]


def _dataset(file: h5py.File, reference: h5py.Reference, place: str) -> h5py.Dataset:
    found = file[reference]
    if not isinstance(found, h5py.Dataset):
        raise no_archive(file.filename, f"{place} is a {type(found).__name__.lower()} and no array")
    return found


def _references(cells: h5py.Dataset) -> np.ndarray:
    if h5py.check_ref_dtype(cells.dtype) is not h5py.Reference:
        raise no_archive(cells.file.filename, f"{cells.name} is {cells.dtype} and no cell array")
    return cells[()]


def read_pairs(file: h5py.File, boxes: str) -> list[np.ndarray]:
    """References of each camera pair's images: (persons, 10) each."""
    pairs = [_references(cells).T for cells in _cells(file, KINDS[boxes])]
    for number, references in enumerate(pairs, 1):
        if references.ndim != 2 or references.shape[1] != SLOTS:
            shape = " by ".join(map(str, references.shape))
            raise no_archive(
                file.filename, f"pair {number} of {KINDS[boxes]} is {shape} instead of persons by {SLOTS}"
            )
    return pairs


def planned(pairs: list[np.ndarray], boxes: str) -> Iterator[tuple[str, str, h5py.Reference]]:
    """File name, place in MATLAB's notation and reference of every cell, empty ones included."""
    for pair, references in enumerate(pairs, 1):
        for (row, column), reference in np.ndenumerate(references):
            person, slot = row + 1, column + 1
            view = 1 if slot <= SLOTS // 2 else 2
            name = f"{boxes}_{pair}_{person:03d}_{view}_{slot:02d}.png"
            yield name, f"{KINDS[boxes]}{{{pair}}}{{{person},{slot}}}", reference


def read_image(file: h5py.File, reference: h5py.Reference, place: str) -> np.ndarray | None:
    """The image (H, W, 3) behind a reference; None for an empty cell."""
    cell = _dataset(file, reference, place) if reference else None
    # MATLAB writes an empty cell as its dimensions, [0 0], with a mark that not every converter keeps.
    if cell is None or cell.attrs.get("MATLAB_empty", 0) or not cell.size or cell.ndim == 1:
        return None
    if cell.ndim != 3 or cell.shape[0] != 3 or cell.dtype != np.uint8:
        shape = " by ".join(map(str, reversed(cell.shape)))
        raise no_archive(file.filename, f"{place} is {shape} of {cell.dtype} and no colour image")
    try:
        stored_cwh = cell[()]
    except OSError as error:
        raise InputError(f"{ARCHIVE} can be read to its end", f"{place}: {error}", _AGAIN) from error
    return np.ascontiguousarray(stored_cwh.T)


def read_test_sets(file: h5py.File, persons_of_pairs: tuple[int, ...]) -> TestSets:
    """The classic protocol's test sets, each as (pair, person) rows, all of them persons of the archive."""
    known = {(pair, person) for pair, most in enumerate(persons_of_pairs, 1) for person in range(1, most + 1)}
    test_sets = []
    for number, cell in enumerate(_cells(file, "testsets"), 1):
        rows_n2 = cell[()].T
        if rows_n2.ndim != 2 or rows_n2.shape[1] != 2 or not np.array_equal(rows_n2, np.rint(rows_n2)):
            raise no_archive(file.filename, f"test set {number} is no list of pair and person")
        rows = [(int(pair), int(person)) for pair, person in rows_n2.tolist()]
        if wrong := [row for row in rows if row not in known]:
            raise no_archive(file.filename, f"test set {number} names {shorten(wrong)}, who is not there")
        test_sets.append(tuple(rows))
    return tuple(test_sets)
