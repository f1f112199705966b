"""What the readers of all layouts share: listing folders, and saying what was probably meant."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from reidlib.errors import InputError, shorten

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")
ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")


class Misplaced(InputError):
    """The folder that was given holds nothing of a layout, and the one that was meant lies near it."""


def list_images(folder: Path, endings: Sequence[str] = IMAGE_ENDINGS) -> list[str]:
    """Names of a folder's image files, sorted, from one directory scan; endings in any case.

    Hidden files are never images: macOS archives hold ``._0002_c1s1_….jpg`` beside every image. Raises
    ``InputError`` where the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(tuple(endings))
                and not entry.name.startswith(".")
                and entry.is_file()
            )
    except OSError as error:
        raise InputError(
            "a benchmark's folders can be listed", f"{error.strerror}: {folder}", "check its access rights"
        ) from None


def folder_names(folder: Path) -> set[str]:
    """Names of the visible folders in a folder; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")}
    except OSError:
        return set()


def unpacking(folder: Path) -> str:
    """The mend that names the archives lying in a folder; empty where there is none."""
    try:
        with os.scandir(folder) as entries:
            packed = sorted(
                entry.name
                for entry in entries
                if entry.name.lower().endswith(ARCHIVE_ENDINGS)
                and not entry.name.startswith(".")
                and entry.is_file()
            )
    except OSError:
        return ""
    if len(packed) > 1:
        return f"unpack the one that is meant: {shorten(packed)}"
    return f"unpack {packed[0]}" if packed else ""


def require_folder(root: Path) -> None:
    """Raise ``InputError`` unless ``root`` is a folder, with what lies nearest to it."""
    if root.is_dir():
        return
    if root.exists():
        packed = root.name.lower().endswith(ARCHIVE_ENDINGS)
        mend = "unpack it and name the folder" if packed else f"give the folder it lies in: {root.parent}"
        raise InputError("a benchmark is a folder", f"the file {root}", mend)
    ancestor = next(parent for parent in root.parents if parent.is_dir())
    lost = root.relative_to(ancestor).parts[0]
    there = sorted(folder_names(ancestor))
    raise InputError(
        "a benchmark's folder exists",
        root,
        near_miss(lost, there, prefix=ancestor) or f"there is no {lost} in {ancestor}",
    )


def misplaced(root: Path, holds: Callable[[Path], bool]) -> str:
    """Where the folder that was meant lies, as a mend; empty where nothing near ``holds`` it.

    Looked at are the parent (the folder given is one level too low), the folders in it (one too high) and
    those in them, as an archive unpacked into a folder of its own leaves them. All that fit are named: one
    of them may be another benchmark of the same layout.
    """
    if holds(root.parent):
        return f"that is one level too low: give {root.parent}"
    children = [root / name for name in sorted(folder_names(root))]
    if fitting := [child for child in children if holds(child)]:
        level = "one level"
    else:
        grandchildren = [child / name for child in children for name in sorted(folder_names(child))]
        fitting, level = [place for place in grandchildren if holds(place)], "two levels"
    if not fitting:
        return ""
    return f"that is {level} too high: give {'one of ' if len(fitting) > 1 else ''}{shorten(fitting)}"


def missing_folders(root: Path, wanted: Sequence[str], layout: str) -> InputError | None:
    """What a folder lacks of a layout, what is there instead and what was probably meant; None if nothing.

    It is ``Misplaced`` where nothing of the layout is there and all of it is nearby.
    """
    require_folder(root)
    there = sorted(folder_names(root))
    missing = [folder for folder in wanted if folder not in there]
    if not missing:
        return None
    rule = f"a folder in {layout}'s layout holds {', '.join(wanted)}"
    value = f"{root}, which lacks {', '.join(missing)} and holds {shorten(there, 10) or 'no folder'}"
    if mend := misplaced(root, lambda folder: set(wanted) <= folder_names(folder)):
        return (Misplaced if len(missing) == len(wanted) else InputError)(rule, value, mend)
    # A folder that rightly bears its name is nobody's misspelling, however near (…_train and …_test are).
    spare = [name for name in there if name not in wanted]
    hints = [near_miss(folder, spare, rename=True) for folder in missing]
    mend = "; ".join(hint for hint in hints if hint) or unpacking(root)
    return InputError(rule, value, mend or "unpack the archive completely, or give its folder")


def empty_error(folder: Path) -> InputError:
    """The error for a folder without any image."""
    return InputError(
        f"each of a benchmark's folders holds images ({', '.join(IMAGE_ENDINGS)})",
        f"none in {folder}",
        "unpack the archive completely",
    )


def near_miss(wanted: str, known: Iterable[str], *, prefix: Path | None = None, rename: bool = False) -> str:
    """A question after the known name nearest to ``wanted``; empty where none is near."""
    by_lower = {name.lower(): name for name in known}
    if not (near := difflib.get_close_matches(wanted.lower(), by_lower, n=1)):
        return ""
    name = by_lower[near[0]]
    if rename:
        return f"rename {name} to {wanted} if that is what it is"
    return f"did you mean {prefix / name if prefix else name}?"


def changed_options(reader: Callable, **given: str | int | bool) -> dict[str, str | int | bool]:
    """Those of a reader's keywords that differ from their defaults, for ``Benchmark.options``."""
    defaults = {name: one.default for name, one in inspect.signature(reader).parameters.items()}
    return {name: value for name, value in given.items() if value != defaults[name]}


def one_of(what: str, value: str, known: Sequence[str]) -> None:
    """Raise ``InputError`` unless an option's value is one of the known ones."""
    if value not in known:
        hint = near_miss(str(value), known) or "name one of them"
        raise InputError(f"{what} is one of: {', '.join(known)}", repr(value), hint)
