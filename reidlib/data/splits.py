"""Lists of images with person and camera ids, and the class labels that training takes from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reidlib.errors import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """Image files with the person id and the camera id of each.

    A split may be empty, but a benchmark's train, query and gallery may
    not, except for query and gallery if it is ``training_only``.

    Attributes:
        paths: N image files; stored as a tuple of ``Path``.
        person_ids: Person ids (N,); stored as a read-only int64 copy. -1 is junk, 0 a distractor.
        camera_ids: Camera ids (N,); stored as a read-only int64 copy.

    Raises:
        InputError: If the lengths differ, or ids are not whole numbers.
    """

    paths: tuple[Path, ...]
    person_ids: np.ndarray
    camera_ids: np.ndarray

    def __post_init__(self):
        # Path(path) would copy a path that is a Path already, and there may be half a million.
        paths = tuple(path if isinstance(path, Path) else Path(path) for path in self.paths)
        object.__setattr__(self, "paths", paths)
        for name in ("person_ids", "camera_ids"):
            object.__setattr__(self, name, _read_only_ids(name, getattr(self, name)))
        lengths = (len(self.paths), len(self.person_ids), len(self.camera_ids))
        if len(set(lengths)) > 1:
            raise InputError(
                "a split has as many paths as person ids and camera ids",
                "{} paths, {} person ids, {} camera ids".format(*lengths),
                "give one person and one camera for every image",
            )

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, rows: np.ndarray | Sequence[int]) -> Split:
        """Select images by a boolean mask (N,) or by indices, whose order is kept."""
        indices = np.arange(len(self))[rows]
        return Split(
            tuple(self.paths[index] for index in indices), self.person_ids[indices], self.camera_ids[indices]
        )


def training_labels(person_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class labels, int64 (N,) in 0..K-1, and each label's person id, ascending int64 (K,)."""
    # Sorted ids give the same classifier rows in every process. Enumerating a set (as torchreid) does not.
    identities_k, labels_n = np.unique(person_ids, return_inverse=True)
    return labels_n.astype(np.int64), identities_k


def concatenate(splits: Sequence[Split]) -> Split:
    """Concatenate several splits in the given order."""
    return Split(
        tuple(path for split in splits for path in split.paths),
        np.concatenate([split.person_ids for split in splits]),
        np.concatenate([split.camera_ids for split in splits]),
    )


def _read_only_ids(field: str, values: object) -> np.ndarray:
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise InputError(
            f"{field} is a one-dimensional array of whole numbers",
            f"shape {ids.shape} of {ids.dtype}",
            "pass integers, one for each image",
        )
    ids = ids.astype(np.int64)  # a copy, so that freezing it leaves the caller's array writable
    ids.flags.writeable = False
    return ids
