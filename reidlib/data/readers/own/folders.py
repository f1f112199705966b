"""Own images in folders: one file, a flat folder, or a folder per person, with or without splits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from reidlib.data.readers.cuhk03.archive import KINDS
from reidlib.data.readers.layout import Reading, misplaced_hint, require_folder, unpack_hint
from reidlib.data.readers.listing import OWN_ENDINGS, folder_names, list_images, scan, walk_images
from reidlib.data.readers.market import MARKET_FOLDERS
from reidlib.data.readers.persons import TRAINING_ALONE
from reidlib.data.readers.two_view import CUHK01_FOLDER, VIPER_CAMERAS
from reidlib.errors import InputError, count_noun, shorten

SPLIT_NAMES = ("train", "query", "gallery")
LAYOUT = "own images are stored as PERSON/image or PERSON/CAMERA/image"
# Folders of other conventions, which would otherwise be read as persons with these names.
_RESERVED = {*SPLIT_NAMES, "test", "testing", "training", "val", "valid", "validation", "probe"}
_SORT = (
    "sort them into a folder per person; "
    "for images without person labels, use `reidlib search` or `reidlib embed`"
)
# Folders of public benchmarks, which would otherwise be read as persons or their cameras.
_PUBLIC = {"market1501": MARKET_FOLDERS[::2], "viper": tuple(VIPER_CAMERAS), "cuhk01": (CUHK01_FOLDER,)}
_ENDINGS = f"{', '.join(OWN_ENDINGS[:7])} and others"
_CAMERA_IN_NAME = re.compile(r"_c(\d{1,18})(?!\d)", re.ASCII)


class ListedImage(NamedTuple):
    """One image of a folder or a CSV; an empty text means unknown."""

    name: str  # path relative to the folder of all images, with /
    person: str = ""
    camera: str = ""
    split: str = ""  # train, query or gallery
    line: int = 0  # line of the CSV, from 1


def list_file(image: Path) -> list[ListedImage]:
    """List one image file, whose person is unknown."""
    if not image.name.lower().endswith(OWN_ENDINGS):
        raise InputError(
            "own images are an image file, a folder of them, or a CSV that lists them",
            image,
            f"name one of these (image files end in {_ENDINGS})",
        )
    return _add_cameras_in_names([ListedImage(image.name)])


def list_flat_folder(reading: Reading, folder: Path) -> list[ListedImage]:
    """List the images of one folder, whose persons are unknown; cameras are set if all names have one."""
    images = walk_images(folder, OWN_ENDINGS, reading.left_out)  # none is below: the folder is flat
    return _add_cameras_in_names([ListedImage(path.name) for path in images])


def is_flat(folder: Path) -> bool:
    """Tell whether a folder contains images, and its subfolders contain none."""
    return bool(list_images(folder, OWN_ENDINGS)) and not _folders_with_images(folder)


def list_person_folders(
    reading: Reading, root: Path, *, allow_splits: bool = True, train_alone: bool = False
) -> list[ListedImage]:
    """List images in a folder per person, and add what is wrong to the reading's problems and remarks."""
    # With ``allow_splits``, the folders of persons may be in train, query and gallery; with ``train_alone``,
    # the last two are neither needed nor read.
    require_folder(root)
    names = folder_names(root)
    splits = SPLIT_NAMES[:1] if train_alone else SPLIT_NAMES
    _refuse_benchmark(root, names, allow_splits)
    if set(splits) <= names:
        if not allow_splits:
            mend = f"give one of them, such as {root / 'gallery'}"
            raise InputError(LAYOUT, f"{root}, which is split into {', '.join(SPLIT_NAMES)}", mend)
        rows = [row for split in splits for row in _scan_persons(reading, root / split, f"{split}/")]
        others = [name for name in _folders_with_images(root) if name not in SPLIT_NAMES]
        if others or scan(root, OWN_ENDINGS, reading.left_out)[0]:
            reading.problems.append(
                InputError(
                    f"all images of a set with splits are in {', '.join(SPLIT_NAMES)}",
                    f"{root} with images in {shorten(others) or 'the folder itself'}",
                    "move each image into one of the three, or out of the folder",
                )
            )
        return _add_cameras_in_names(rows)
    if reserved := sorted(name for name in names if name.lower() in _RESERVED):
        absent = ", ".join(name for name in splits if name not in names)
        mend = "rename and complete these folders, or rename the person with this name"
        raise InputError(
            f"a set with splits has the {'folders' if len(splits) > 1 else 'folder'} {', '.join(splits)}",
            f"{root}, which lacks {absent} and contains {shorten(reserved)}",
            f"{mend}; or read train alone, {TRAINING_ALONE}" if reserved == [SPLIT_NAMES[0]] else mend,
        )
    folders = _folders_with_images(root)
    for name in folders:
        _refuse_benchmark(root / name, folder_names(root / name), allow_splits)
    # A single folder of folders is no person, because one person alone makes no benchmark.
    if (
        allow_splits
        and not list_images(root, OWN_ENDINGS)
        and len(folders) == 1
        and _has_persons(root / folders[0])
    ):
        mend = f"this folder is one level too high: give {root / folders[0]}"
        raise InputError(LAYOUT, f"{root}, which contains only the folder {folders[0]}", mend)
    return _add_cameras_in_names(_scan_persons(reading, root, ""))


def _refuse_benchmark(root: Path, names: set[str], allow_splits: bool) -> None:
    """Raise InputError if the names of a folder's folders are those of a public benchmark."""
    for reader, folders in _PUBLIC.items():
        if present := [name for name in folders if name in names]:
            place = root
            if root.name in (*KINDS, *KINDS.values()):
                reader, place = "cuhk03", root.parent
            mend = f"read it with {reader} instead: `reidlib check {reader} {place}`"
            mend = mend if allow_splits else f"give one of its folders, such as {root / present[0]}"
            raise InputError(LAYOUT, f"{root} with the public benchmark's {' and '.join(present)}", mend)


def _scan_persons(reading: Reading, folder: Path, prefix: str) -> list[ListedImage]:
    rows, deeper, empty, problems = [], [], [], []
    split = prefix.rstrip("/")
    loose, persons = scan(folder, OWN_ENDINGS, reading.left_out)
    for person in persons:
        names, cameras = scan(folder / person, OWN_ENDINGS, reading.left_out)
        images = [ListedImage(f"{prefix}{person}/{name}", person, "", split) for name in names]
        for camera in cameras:
            place, start = folder / person / camera, f"{prefix}{person}/{camera}"
            for path in walk_images(place, OWN_ENDINGS, reading.left_out):
                if path.parent == place:
                    images.append(ListedImage(f"{start}/{path.name}", person, camera, split))
                else:
                    deeper.append(path)
        rows += images
        if not images:
            empty.append(person)
    if deeper:
        # With images this deep, the folder cannot be one level too low, so its parent is not suggested.
        hint = misplaced_hint(folder, lambda near: near != folder.parent and _has_persons(near))
        hint = "" if rows else hint
        mend = hint or "remove the folders between, or list the images in a CSV"
        value = f"{count_noun(len(deeper), 'images')} in deeper folders, such as {deeper[0]}"
        problems.append(InputError(LAYOUT, value, mend))
    if loose:
        mend = "move each into the folder of its person" if rows else _SORT
        if not rows and _mostly(_has_images, folder.parent):
            grandparent = folder.parent.parent
            level, alternative = "one level too low", ""
            if has_person_siblings(folder.parent):
                level, alternative = "too low", f", or {grandparent} if {folder.parent.name} is a person"
            mend += f"; or this folder is {level}: give {folder.parent}{alternative}"
        value = f"{count_noun(len(loose), 'images')} in {folder} itself: {shorten(loose)}"
        problems.append(InputError(LAYOUT, value, mend))
    if not (rows or problems):
        # What is left out is probably what was meant, even if the folder above has images, too.
        mend = "; ".join(filter(None, [*reading.left_out.describe(), unpack_hint(folder)]))
        mend = mend or misplaced_hint(folder, _has_persons) or "put the images there, or give their folder"
        problems.append(InputError(LAYOUT, f"no image ({_ENDINGS}) in {folder}", mend))
    if empty and rows:
        reading.remarks.append(
            f"{count_noun(len(empty), 'folders')} in {folder} without an image: {shorten(empty)}"
        )
    reading.problems += problems
    return rows


def _add_cameras_in_names(rows: list[ListedImage]) -> list[ListedImage]:
    """Set cameras from ``_cN`` in the names of images without a camera folder, if all names have one."""
    with_cameras = [row if row.camera else row._replace(camera=_camera_in_name(row.name)) for row in rows]
    return with_cameras if all(row.camera for row in with_cameras) else rows


def _camera_in_name(name: str) -> str:
    match = _CAMERA_IN_NAME.search(name.rsplit("/", 1)[-1])
    return str(int(match[1])) if match else ""


def _folders(folder: Path) -> list[str]:
    try:
        return scan(folder, OWN_ENDINGS)[1]
    except InputError:  # an unrelated folder, which is searched only for a hint
        return []


def _folders_with_images(root: Path) -> list[str]:
    return [name for name in scan(root, OWN_ENDINGS)[1] if any(walk_images(root / name, OWN_ENDINGS))]


def _has_persons(folder: Path) -> bool:
    """Tell whether at least two folders in this one look like persons, or it has splits."""
    names = _folders(folder)
    return set(SPLIT_NAMES) <= set(names) or sum(_is_person(folder / name) for name in names) > 1


def has_person_siblings(folder: Path) -> bool:
    """Tell whether most of the folders beside this one look like persons, too."""
    return _mostly(_is_person, folder.parent)


def _mostly(condition: Callable[[Path], bool], folder: Path) -> bool:
    # Nearly all folders of a set contain images; of other folders, only a few do.
    names = _folders(folder)
    number = sum(condition(folder / name) for name in names)
    return number > 1 and 2 * number > len(names)


def _is_person(folder: Path) -> bool:
    # A person's folder has images, or camera folders with images.
    return _has_images(folder) or any(_has_images(folder / name) for name in _folders(folder))


def _has_images(folder: Path) -> bool:
    try:
        return bool(list_images(folder, OWN_ENDINGS))
    except InputError:  # an unrelated folder, which is searched only for a hint
        return False
