"""A user's own crops in folders: one file, a flat folder, or a folder per person, parted or not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from reidlib.data.readers.layout import (
    IMAGE_ENDINGS,
    Reading,
    folder_names,
    list_images,
    misplaced,
    require_folder,
    unpacking,
)
from reidlib.data.readers.market import MARKET_FOLDERS
from reidlib.errors import InputError, counted, shorten

PARTS = ("train", "query", "gallery")
LAYOUT = "own images lie in PERSON/image or PERSON/CAMERA/image"
# Folders of other conventions, which would otherwise be read as persons of these names.
_RESERVED = {*PARTS, "test", "testing", "training", "val", "valid", "validation", "probe"}
_SORT = (
    "sort them into a folder per person; "
    "pictures without persons are for `reidlib search` and `reidlib embed`"
)
# What macOS archives and network drives put beside the images: copies of them, or nothing.
_FOREIGN = {"__MACOSX", "@eaDir"}
_CAMERA_IN_NAME = re.compile(r"_c(\d{1,18})(?!\d)", re.ASCII)


class ListedImage(NamedTuple):
    """One image as it was listed; empty texts are unknown."""

    name: str  # path relative to the folder of all, with /
    person: str = ""
    camera: str = ""
    part: str = ""  # train, query or gallery
    line: int = 0  # of the CSV, from 1


def list_single(image: Path) -> list[ListedImage]:
    """One image file, of an unknown person."""
    if not image.name.lower().endswith(IMAGE_ENDINGS):
        raise InputError(
            "own images are an image file, a folder of them, or a CSV that lists them",
            image,
            f"name one of those (image files end in {', '.join(IMAGE_ENDINGS)})",
        )
    return _with_named_cameras([ListedImage(image.name)])


def list_flat(folder: Path) -> list[ListedImage]:
    """The images of one folder, of unknown persons; cameras where all names tell them."""
    return _with_named_cameras([ListedImage(name) for name in list_images(folder)])


def is_flat(folder: Path) -> bool:
    """Do images lie in the folder itself, and none in folders in it?"""
    return bool(list_images(folder)) and not _folders_with_images(folder)


def list_persons(reading: Reading, root: Path, *, parted: bool = True) -> list[ListedImage]:
    """A folder per person, with or without a folder per camera, in one folder or in train, query and gallery.

    With ``parted=False`` train, query and gallery are refused: one of the three is meant. What is wrong with
    images and folders goes to the reading's problems and remarks. Raises ``InputError`` where the folder is
    none of this form.
    """
    require_folder(root)
    names = folder_names(root)
    if {*MARKET_FOLDERS} <= names:
        mend = f"read it with market1501 instead: `reidlib check market1501 {root}`"
        mend = mend if parted else f"give one of its folders, such as {root / 'query'}"
        raise InputError(LAYOUT, f"{root} in Market-1501's layout", mend)
    if set(PARTS) <= names:
        if not parted:
            mend = f"give one of them, such as {root / 'gallery'}"
            raise InputError(LAYOUT, f"{root}, which is parted into {', '.join(PARTS)}", mend)
        rows = [row for part in PARTS for row in _scan_persons(reading, root / part, f"{part}/")]
        beside = [name for name in _folders_with_images(root) if name not in PARTS]
        if beside or list_images(root):
            reading.problems.append(
                InputError(
                    f"beside {', '.join(PARTS)} there are no other images",
                    f"{root} with images in {shorten(beside) or 'the folder itself'}",
                    "move each image into one of the three, or out of the folder",
                )
            )
        return _with_named_cameras(rows)
    if reserved := sorted(name for name in names if name.lower() in _RESERVED):
        raise InputError(
            f"a set that is parted already lies in the three folders {', '.join(PARTS)}",
            f"{root}, which lacks {', '.join(part for part in PARTS if part not in names)} and holds"
            f" {shorten(reserved)}",
            "rename and complete these folders, or rename the person of that name",
        )
    there = _folders_with_images(root)
    # One folder of folders is no person: one person alone makes no benchmark.
    if parted and not list_images(root) and len(there) == 1 and _holds_persons(root / there[0]):
        mend = f"that is one level too high: give {root / there[0]}"
        raise InputError(LAYOUT, f"{root}, which holds the one folder {there[0]}", mend)
    return _with_named_cameras(_scan_persons(reading, root, ""))


def _scan_persons(reading: Reading, folder: Path, prefix: str) -> list[ListedImage]:
    rows, deeper, empty, problems = [], [], [], []
    part = prefix.rstrip("/")
    for person in _folders(folder):
        there = [
            ListedImage(f"{prefix}{person}/{name}", person, "", part) for name in list_images(folder / person)
        ]
        for camera in _folders(folder / person):
            inside = folder / person / camera
            there += [
                ListedImage(f"{prefix}{person}/{camera}/{n}", person, camera, part)
                for n in list_images(inside)
            ]
            deeper += _images_below(inside)
        rows += there
        if not there:
            empty.append(person)
    if deeper:
        # Deep images never mean one level too low, whatever lies beside the folder.
        hint = misplaced(folder, lambda place: place != folder.parent and _holds_persons(place))
        hint = "" if rows else hint
        mend = hint or "leave out the folders between, or list the images in a CSV"
        problems.append(InputError(LAYOUT, f"images deeper than that, such as {deeper[0]}", mend))
    if loose := list_images(folder):
        mend = "move each into the folder of its person" if rows else _SORT
        if not rows and _mostly(_shows_images, folder.parent):
            above = folder.parent.parent
            level, also = "one level too low", ""
            if among_persons(folder.parent):
                level, also = "too low", f", or {above} if {folder.parent.name} is a person"
            mend += f"; or that is {level}: give {folder.parent}{also}"
        value = f"{counted(len(loose), 'images')} in {folder} itself: {shorten(loose)}"
        problems.append(InputError(LAYOUT, value, mend))
    if not (rows or problems):
        hint = misplaced(folder, _holds_persons) or unpacking(folder)
        value = f"no image ({', '.join(IMAGE_ENDINGS)}) in {folder}"
        problems.append(InputError(LAYOUT, value, hint or "put the images there, or give their folder"))
    if empty and rows:
        reading.remarks.append(
            f"{counted(len(empty), 'folders')} in {folder} without an image: {shorten(empty)}"
        )
    reading.problems += problems
    return rows


def _with_named_cameras(rows: list[ListedImage]) -> list[ListedImage]:
    """Take the cameras of images in no camera folder from their names, where all of these have one."""
    named = [row if row.camera else row._replace(camera=_named_camera(row.name)) for row in rows]
    return named if all(row.camera for row in named) else rows


def _named_camera(name: str) -> str:
    found = _CAMERA_IN_NAME.search(name.rsplit("/", 1)[-1])
    return str(int(found[1])) if found else ""


def _folders(folder: Path) -> list[str]:
    return sorted(folder_names(folder) - _FOREIGN)


def _folders_with_images(root: Path) -> list[str]:
    return [name for name in _folders(root) if list_images(root / name) or _images_below(root / name)]


def _images_below(folder: Path) -> list[Path]:
    """The first image in any folder within ``folder``, as a list of at most one."""
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _FOREIGN and not name.startswith("."))
        if Path(place) != folder and (names := list_images(Path(place))):
            return [Path(place, names[0])]
    return []


def _holds_persons(folder: Path) -> bool:
    """Does the folder look like a set of persons: two folders at least with images in them or one below?"""
    names = _folders(folder)
    return set(PARTS) <= set(names) or sum(_shows_a_person(folder / name) for name in names) > 1


def among_persons(folder: Path) -> bool:
    """Do most of the folders beside this one look like persons, too: with images in them or one below?"""
    return _mostly(_shows_a_person, folder.parent)


def _mostly(holds: Callable[[Path], bool], folder: Path) -> bool:
    # A set's folders hold images nearly all; where anything else lies, only a few happen to.
    names = _folders(folder)
    number = sum(holds(folder / name) for name in names)
    return number > 1 and 2 * number > len(names)


def _shows_a_person(folder: Path) -> bool:
    return _shows_images(folder) or any(_shows_images(folder / name) for name in _folders(folder))


def _shows_images(folder: Path) -> bool:
    try:
        return bool(list_images(folder))
    except InputError:  # a stranger's folder, looked into for a hint alone
        return False
