"""A user's own crops in a CSV: path, and as far as they are known person, camera and split."""

from __future__ import annotations

import csv
import io
import posixpath
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path, PureWindowsPath

from reidlib.data.readers.layout import (
    Reading,
    Unreachable,
    folder_names,
    names_in,
    near_miss,
    require_folder,
)
from reidlib.data.readers.own.folders import PARTS, ListedImage
from reidlib.errors import InputError, counted, shorten

COLUMNS = ("path", "person", "camera", "split")


def find_csv(root: Path) -> Path:
    """The CSV file that is meant: ``root`` itself, or the only one in that folder.

    Raises ``InputError`` where there is none or more than one.
    """
    if root.is_file():
        return root
    require_folder(root)
    there = sorted(path for path in root.iterdir() if _is_csv(path))
    if len(there) != 1:
        raise InputError(
            "a list of own images is a CSV file, or a folder that holds exactly one",
            f"{len(there)} in {root}" + (f": {shorten([path.name for path in there])}" if there else ""),
            "give the file itself",
        )
    return there[0]


def list_csv(reading: Reading, file: Path, *, labelled: bool = True) -> list[ListedImage]:
    """The images that a CSV lists; what is wrong with rows goes to the reading, each kind in one line.

    Columns are ``path``, ``person``, ``camera`` and ``split`` (train, query or gallery), in any order and
    case, separated by commas, semicolons or tabs; further ones are not read. The text is UTF-8. Paths are
    relative to the CSV's folder, with / or \\, so that list and images can be moved together.
    With ``labelled=False`` only paths are needed. An image may be listed twice only as query and as gallery.
    Raises ``InputError`` for a file that is no such list.
    """
    names, records = _table(file)
    _check_columns(file, names, COLUMNS[: 2 if labelled else 1])
    rows, faulty = _rows(file, records, names, labelled)
    rows, missing = _existing(file, rows)
    reading.problems += [*faulty, *missing]
    if not (rows or faulty or missing):
        value, mend = f"only column names in {file}", "write a line for each image"
        raise InputError("a CSV of own images lists images", value, mend)
    if extra := [name for name in names if name and name not in COLUMNS]:
        reading.remarks.append(f"columns that are not read: {shorten([*map(_shown, extra)])}")
    return rows


# The line in which a record begins, and its cells.
_Record = tuple[int, list[str]]
# The kind of a faulty row, and where it stands.
_Fault = tuple[str, str]


def _table(file: Path) -> tuple[list[str], list[_Record]]:
    """The columns' names in lower case, and the records that are not blank with the lines they begin in."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Unreachable(
            "a CSV can be read", f"{file}: {error.strerror}", "check its access rights"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        value = f"byte {error.object[error.start]:#04x} in line {line} of {file}"
        mend = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
        raise InputError("a CSV of own images is UTF-8 text", value, mend) from None
    first = next(io.StringIO(text.lstrip(), newline=""), "").lower()
    # The separator is the one that makes most of the header known names; a Sniffer guesses from the data.
    known = {s: len({c.strip(' "\r\n') for c in first.split(s)} & {*COLUMNS}) for s in (",", ";", "\t")}
    separator = max(known, key=lambda one: (known[one], first.count(one)))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records, line = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        mend = "close each quotation mark, and double those within quotes"
        raise InputError("a CSV's quotes are in pairs", f"{error} from line {line} of {file}", mend) from None
    if not records:
        raise InputError("a CSV begins with its columns' names", f"nothing in {file}", "write them")
    return [name.strip().lower() for name in records[0][1]], records[1:]


def _check_columns(file: Path, names: list[str], wanted: tuple[str, ...]) -> None:
    rule = f"a CSV of own images has the columns {', '.join(wanted)} (and may have camera, split)"
    if missing := [name for name in wanted if name not in names]:
        value = f"{file}, which lacks {', '.join(missing)} and has {shorten([repr(n) for n in names], 10)}"
        spare = [name for name in names if name not in COLUMNS]
        hints = [hint for name in missing if (hint := near_miss(name, spare, rename=True))]
        raise InputError(rule, value, "; ".join(hints) or "write the columns' names in the first line")
    if twice := sorted({name for name in names if name in COLUMNS and names.count(name) > 1}):
        raise InputError(rule, f"{', '.join(twice)} twice in line 1 of {file}", "remove one of the two")


# Kinds of faulty rows, in the order in which they are reported: the rule that they break, and the mend.
_FAULTS = {
    "cells": ("a CSV's rows have a cell for each column", "quote cells that hold the separator"),
    "empty": ("no cell of a listed image is empty", "fill in these cells, or take out their rows or column"),
    "absolute": (
        "a list names its images relative to its own folder, so that both can be moved together",
        "shorten these paths to what follows the CSV's folder",
    ),
    "escaping": (
        "a list's images lie in the CSV's folder or below, so that both can be moved together",
        "move the CSV up to a folder that holds all its images",
    ),
    "split": (f"split is one of: {', '.join(PARTS)}", "write one of these, or take the column out"),
    "twice": ("an image is listed once (or once each as query and gallery)", "remove the second row"),
    "contradiction": ("an image shows one person, seen by one camera", "write the same in both rows"),
}


def _rows(
    file: Path, records: list[_Record], names: list[str], labelled: bool
) -> tuple[list[ListedImage], list[InputError]]:
    """The rows without a fault, and one error for each kind of fault with all the lines that have it."""
    rows: list[ListedImage] = []
    faults: dict[str, list[str]] = {kind: [] for kind in _FAULTS}
    listed: dict[str, list[ListedImage]] = {}
    for record in records:
        found = _row(record, names, labelled)
        if isinstance(found, ListedImage):
            earlier = listed.setdefault(unicodedata.normalize("NFC", found.name), [])
            found = _against(earlier, found) or found
        if isinstance(found, ListedImage):
            earlier.append(found)
            rows.append(found)
        else:
            kind, place = found
            faults[kind].append(place)
    problems = [
        InputError(
            rule, f"{counted(len(faults[kind]), 'faulty rows')} in {file}: {shorten(faults[kind])}", mend
        )
        for kind, (rule, mend) in _FAULTS.items()
        if faults[kind]
    ]
    return rows, problems


def _row(record: _Record, names: list[str], labelled: bool) -> ListedImage | _Fault:
    line, cells = record
    if len(cells) < len(names) or any(cell.strip() for cell in cells[len(names) :]):
        return "cells", f"line {line} has {len(cells)} of {len(names)}"
    cell = {name: cells[names.index(name)].strip() for name in COLUMNS if name in names}
    if lacks := [name for name in (cell if labelled else ("path",)) if not cell[name]]:
        return "empty", f"line {line} ({', '.join(lacks)})"
    place = f"line {line}: {_shown(cell['path'])}"
    path = posixpath.normpath(cell["path"].replace("\\", "/"))
    # A drive makes a Windows path absolute on every machine, so that the same list is refused on all.
    if path.startswith("/") or PureWindowsPath(path).drive:
        return "absolute", place
    if path.split("/")[0] == "..":
        return "escaping", place
    part = cell.get("split", "").lower()
    if part and part not in PARTS:
        return "split", f"line {line}: {_shown(cell['split'])}"
    return ListedImage(path, cell.get("person", ""), cell.get("camera", ""), part, line)


def _against(earlier: list[ListedImage], row: ListedImage) -> _Fault | None:
    """What makes a row impossible after the rows of the same path before it."""
    if not earlier:
        return None
    place = f"lines {earlier[0].line} and {row.line}: {_shown(row.name)}"
    # A query may be in the gallery, too: an image is never counted as its own match.
    if {row.part, *(one.part for one in earlier)} != {"query", "gallery"} or len(earlier) > 1:
        return "twice", place
    if (earlier[0].person, earlier[0].camera) != (row.person, row.camera):
        return "contradiction", place
    return None


def _spelled(name: str, names: Callable[[str], set[str]]) -> str | None:
    """The name under which a file exists, which may spell é as one character or as two.

    ``names`` lists a folder. Listing also tells A.JPG from a.jpg where the file system does not, so that a
    list that is wrong elsewhere is wrong here.
    """
    forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
    for form in forms:
        folder, _, last = form.rpartition("/")
        if last in names(folder):
            return form
    return None


def _existing(file: Path, rows: list[ListedImage]) -> tuple[list[ListedImage], list[InputError]]:
    # Each folder is listed once: one question a file is slow on a network drive.
    names = cache(lambda folder: names_in(file.parent / folder))
    found = [_spelled(row.name, names) for row in rows]
    missing = [row for row, name in zip(rows, found, strict=True) if name is None]
    rows = [row._replace(name=name) for row, name in zip(rows, found, strict=True) if name is not None]
    if not missing:
        return rows, []
    named = shorten([f"line {row.line}: {_shown(row.name)}" for row in missing])
    return rows, [
        InputError(
            "every listed image exists, its path counting from the CSV's folder",
            f"{len(missing)} of {len(missing) + len(rows)} missing in {file}: {named}",
            _where_they_are(file, missing[0].name),
        )
    ]


def _where_they_are(file: Path, name: str) -> str:
    """The mend for missing files, judged by the first of them."""
    folder, _, last = name.rpartition("/")
    if same := [one for one in sorted(names_in(file.parent / folder)) if one.lower() == last.lower()]:
        return f"write names with their capital letters: there is {posixpath.join(folder, same[0])}"
    above, below = file.parent.parent, [file.parent / one for one in sorted(folder_names(file.parent))]
    for place in (above, *below, Path.cwd()):
        if _spelled(name, lambda folder, place=place: names_in(place / folder)):
            there = f"{_shown(last)} lies in {place / folder}"
            return f"{there}: write the paths from {file.parent}, or move the CSV to {place}"
    return "put the files back or take them off the list"


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(".csv") and not path.name.startswith(".") and path.is_file()


def _shown(text: str) -> str:
    """A cell in one line."""
    return text if text.isprintable() else repr(text)
