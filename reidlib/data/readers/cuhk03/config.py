"""The lists of CUHK03's new protocol (Zhong et al. 2017), from the authors' two files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from reidlib.data.readers.cuhk03.mat import ARCHIVE, KINDS
from reidlib.errors import InputError, shorten

CONFIG_SOURCE = (
    "take it from zhunzhong07/person-re-ranking on GitHub, evaluation/data/CUHK03, and put it beside"
    f" {ARCHIVE}"
)
_KEYS = ("filelist", "labels", "camId", "train_idx", "query_idx", "gallery_idx")


class Config(NamedTuple):
    """The new protocol's lists: N images, and the rows of each split, sorted."""

    file: Path
    names: tuple[str, ...]
    person_ids: np.ndarray
    camera_ids: np.ndarray
    rows: tuple[np.ndarray, np.ndarray, np.ndarray]


def config_files(root: Path, boxes: str) -> list[Path]:
    """Where the lists may lie: beside the archive or, as torchreid has its users put them, above it."""
    name = f"cuhk03_new_protocol_config_{KINDS[boxes]}.mat"
    return [root / name, root.parent / name]


def find_config(root: Path, boxes: str) -> Path:
    """The lists' file; ``InputError`` says where to get it."""
    files = config_files(root, boxes)
    if found := [file for file in files if file.is_file()]:
        return found[0]
    raise InputError(
        f"cuhk03's new split needs {files[0].name}", f"no such file in {root} or above it", CONFIG_SOURCE
    )


def read_config(file: Path) -> Config:
    """Read one of the two files; ``InputError`` for what is damaged, incomplete or in version 7.3."""
    # Slow to import, and only this protocol needs it.
    from scipy.io import loadmat

    rule = f"{file.name} holds the new protocol's lists, in MATLAB's version 5 to 7"
    try:
        content = loadmat(file)
    except NotImplementedError:
        raise InputError(
            rule, f"{file}, in version 7.3", f"{CONFIG_SOURCE}, or save it in MATLAB with '-v7'"
        ) from None
    except Exception as error:  # scipy reports damage as any of half a dozen types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(rule, f"{file}: {reason}", CONFIG_SOURCE) from error
    if missing := [key for key in _KEYS if key not in content]:
        raise InputError(rule, f"{file}, which lacks {', '.join(missing)}", CONFIG_SOURCE)
    try:
        names = tuple(str(np.asarray(cell).item()) for cell in content["filelist"].ravel())
        numbers = [content[key].ravel().astype(np.int64) for key in _KEYS[1:]]
    except (ValueError, TypeError) as error:
        raise InputError(rule, f"{file}: {' '.join(str(error).split())}", CONFIG_SOURCE) from error
    labels, cameras, *rows = numbers
    if not len(names) == len(labels) == len(cameras):
        lengths = f"{len(names)} names, {len(labels)} labels, {len(cameras)} cameras"
        raise InputError(rule, f"{file} with {lengths}", CONFIG_SOURCE)
    for key, one in zip(_KEYS[3:], rows, strict=True):
        if wrong := one[(one < 1) | (one > len(names))].tolist():
            value = f"{file}, whose {key} names rows {shorten(wrong)} of {len(names)}"
            raise InputError(rule, value, CONFIG_SOURCE)
    train, query, gallery = (np.sort(one - 1) for one in rows)  # MATLAB counts from 1
    return Config(file, names, labels, cameras, (train, query, gallery))
