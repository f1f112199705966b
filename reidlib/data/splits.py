"""Images of persons: a list with person and camera of each, and the labels that training takes from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reidlib.errors import InputError


@dataclass(frozen=True, eq=False)
class Split:
    """Images of persons: equally long paths, person ids and camera ids.

    ``paths`` becomes a tuple of ``Path``; ``person_ids`` and ``camera_ids`` become read-only int64 arrays
    (N,), copies of what was given. Person id -1 is junk, 0 a distractor. A split may be empty; a
    benchmark's may not.

    Raises ``InputError`` for unequal lengths or ids that are not whole numbers.
    """

    paths: tuple[Path, ...]
    person_ids: np.ndarray
    camera_ids: np.ndarray

    def __post_init__(self):
        # Path(path) would make a copy of what is one already, and there may be half a million.
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

    def select(self, chosen: np.ndarray) -> Split:
        """The split's rows that ``chosen`` names: a boolean mask (N,) or indices in the wanted order."""
        indices = np.arange(len(self))[chosen]
        return Split(
            tuple(self.paths[index] for index in indices), self.person_ids[indices], self.camera_ids[indices]
        )


def training_labels(person_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Class labels of images, int64 (N,) in 0..K-1, and the person behind each label, ascending int64 (K,).

    An image's label is its person's place among the sorted person ids. They are sorted, so that the same
    folder gives the same classifier rows in every process: enumerating a set (as torchreid does) does not.
    """
    identities_k, labels_n = np.unique(person_ids, return_inverse=True)
    return labels_n.astype(np.int64), identities_k


def concatenated(splits: Sequence[Split]) -> Split:
    """The images of several splits in one, in their order."""
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
            "pass integers, one an image",
        )
    ids = ids.astype(np.int64)  # a copy, so that freezing it leaves the caller's array writable
    ids.flags.writeable = False
    return ids
