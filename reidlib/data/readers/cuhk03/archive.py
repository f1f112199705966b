"""The images of ``cuhk-03.mat``, written to files once and found again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from reidlib import files
from reidlib.data.readers.cuhk03.mat import (
    ARCHIVE,
    KINDS,
    SLOTS,
    TestSets,
    no_archive,
    opened,
    planned,
    read_image,
    read_pairs,
    read_test_sets,
)
from reidlib.errors import InputError
from reidlib.files import built_once, unwritable, write_json, write_whole

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
        write_json(index, _written(found))
        return found

    try:
        return built_once(home / f"{boxes}.lock", lambda: _complete(known, index, folder), build)
    except OSError as error:
        raise unwritable(folder, error) from error


def _complete(known: str, index: Path, folder: Path) -> Extraction | None:
    """What the index names, if all of it is there; the index is written last."""
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
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


def _written(extraction: Extraction) -> dict:
    return {
        "images": extraction.names,
        "persons_of_pairs": extraction.persons_of_pairs,
        "test_sets": extraction.test_sets,
    }


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
        bar = tqdm(
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
    encoded = io.BytesIO()
    Image.fromarray(image_hwc).save(encoded, "PNG", compress_level=1)
    # Encoded in memory first: Pillow reports a full disk as an encoder's error, without saying what it is.
    write_whole(path, lambda partial: partial.write_bytes(encoded.getbuffer()))
