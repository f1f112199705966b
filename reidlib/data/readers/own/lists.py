"""Own images in a CSV with the columns path and, as far as they are known, person, camera and split."""

from __future__ import annotations

import csv
import io
import posixpath
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path, PureWindowsPath

from reidlib.data.names import name_key, printable
from reidlib.data.readers.layout import Reading, require_folder, spelling_hint
from reidlib.data.readers.listing import UnreachablePath, entry_names, folder_names
from reidlib.data.readers.own.folders import SPLIT_NAMES, ListedImage
from reidlib.errors import InputError, count_noun, shorten

COLUMNS = ("path", "person", "camera", "split")


def find_csv(root: Path) -> Path:
    """Return ``root`` if it is a file, or the only CSV file in the folder ``root``."""
    if root.is_file():
        return root
    require_folder(root)
    paths = sorted(path for path in root.iterdir() if _is_csv(path))
    if len(paths) != 1:
        raise InputError(
            "a list of own images is a CSV file, or a folder that contains exactly one",
            f"{len(paths)} in {root}" + (f": {shorten([path.name for path in paths])}" if paths else ""),
            "give the file itself",
        )
    return paths[0]


def list_csv(
    reading: Reading, file: Path, *, labelled: bool = True, train_alone: bool = False
) -> list[ListedImage]:
    """List the images of a CSV, and add one problem for each kind of faulty row to the reading."""
    # The text is UTF-8. The columns ``path``, ``person``, ``camera`` and ``split`` have any order and case,
    # and are separated by commas, semicolons or tabs; other columns are ignored. Paths are relative to the
    # CSV's folder, with / or \, so that list and images can be moved together. With ``labelled=False`` only
    # paths are required. An image may be listed twice only as query and as gallery. With ``train_alone``,
    # files of query and gallery are not needed.
    line, names, records = _read_records(file)
    _check_columns(file, line, names, COLUMNS[: 2 if labelled else 1])
    rows, faulty = _rows(file, records, names, labelled)
    if not (rows or faulty):
        value, mend = f"only column names in {file}", "write a line for each image"
        raise InputError("a CSV of own images lists images", value, mend)
    if train_alone:
        rows = [row for row in rows if row.split in ("", SPLIT_NAMES[0])]
        if not (rows or faulty):
            rule, mend = "a CSV of training images lists some", "give training images the split train"
            raise InputError(rule, f"no row with split train in {file}", mend)
    rows, missing = _find_files(file, rows)
    reading.problems += [*faulty, *missing]
    if extra := [name for name in names if name and name not in COLUMNS]:
        reading.remarks.append(f"columns that are not read: {shorten([*map(printable, extra)])}")
    return rows


# The line before the column names in which Excel declares the separator, quoted by some writers.
_SEPARATOR_LINE = re.compile(r'"?sep=(\\t|[^"\r\n])"?(?:\r\n?|\n|\Z)', re.IGNORECASE)
# The line in which a record starts, and its cells.
_Record = tuple[int, list[str]]
# The kind of fault of a row, and its line.
_Fault = tuple[str, str]


def _read_records(file: Path) -> tuple[int, list[str], list[_Record]]:
    """Return the columns' line and names in lower case, and the records that are not blank."""
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UnreachablePath(
            "a CSV can be read", f"{file}: {error.strerror}", "check its access rights"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        value = f"byte {error.object[error.start]:#04x} in line {line} of {file}"
        mend = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"
        raise InputError("a CSV of own images is UTF-8 text", value, mend) from None
    declared = _SEPARATOR_LINE.match(text)
    begin = 2 if declared else 1
    text = text[declared.end() :] if declared else text
    first = next(io.StringIO(text.lstrip(), newline=""), "").lower()
    # The separator is the one that yields the most known column names; csv.Sniffer would guess from the data.
    score = {s: len({c.strip(' "\r\n') for c in first.split(s)} & {*COLUMNS}) for s in (",", ";", "\t")}
    separator = max(score, key=lambda s: (score[s], first.count(s)))
    if declared:
        separator = declared[1].replace("\\t", "\t")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    records, line = [], begin
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((line, cells))
            line = reader.line_num + begin
    except csv.Error as error:
        mend = "close each quotation mark, and double quotation marks inside quotes"
        raise InputError("a CSV's quotes are paired", f"{error} from line {line} of {file}", mend) from None
    if not records:
        raise InputError(
            "a CSV starts with its column names", f"an empty file {file}", f"add them in line {begin}"
        )
    return records[0][0], [name.strip().lower() for name in records[0][1]], records[1:]


def _check_columns(file: Path, line: int, names: list[str], required: tuple[str, ...]) -> None:
    rule = f"a CSV of own images has the columns {', '.join(required)} (and may have camera, split)"
    if missing := [name for name in required if name not in names]:
        value = f"{file}, which lacks {', '.join(missing)} and has {shorten([repr(n) for n in names], 10)}"
        others = [name for name in names if name not in COLUMNS]
        hints = [hint for name in missing if (hint := spelling_hint(name, others, rename=True))]
        raise InputError(rule, value, "; ".join(hints) or "write the column names in the first line")
    if duplicates := sorted({name for name in names if name in COLUMNS and names.count(name) > 1}):
        raise InputError(
            rule, f"{', '.join(duplicates)} twice in line {line} of {file}", "remove one of the two"
        )


# Kinds of faulty rows in the order of the report, each with the violated rule and the mend.
_FAULTS = {
    "cells": ("a CSV's rows have a cell for each column", "quote cells that hold the separator"),
    "empty": (
        "no cell of a listed image is empty or nan, None, null",
        "fill in these cells, or remove their rows or column",
    ),
    "absolute": (
        "paths are relative to the CSV's folder, so that list and images can be moved together",
        "shorten these paths to what follows the CSV's folder",
    ),
    "escaping": (
        "images are in the CSV's folder or below, so that list and images can be moved together",
        "move the CSV up to a folder that contains all its images",
    ),
    "split": (f"split is one of: {', '.join(SPLIT_NAMES)}", "write one of these, or remove the column"),
    "twice": ("an image is listed once, or once each as query and gallery", "remove the second row"),
    "contradiction": ("an image has one person and one camera", "write the same ones in both rows"),
}


def _rows(
    file: Path, records: list[_Record], names: list[str], labelled: bool
) -> tuple[list[ListedImage], list[InputError]]:
    """Return the rows without a fault, and one error for each kind of fault with all its lines."""
    rows: list[ListedImage] = []
    faults: dict[str, list[str]] = {kind: [] for kind in _FAULTS}
    rows_by_path: dict[str, list[ListedImage]] = {}
    for record in records:
        row = _parse_row(record, names, labelled)
        if isinstance(row, ListedImage):
            earlier = rows_by_path.setdefault(unicodedata.normalize("NFC", row.name), [])
            if (fault := _conflict(earlier, row)) is None:
                earlier.append(row)
                rows.append(row)
                continue
        else:
            fault = row
        faults[fault[0]].append(fault[1])
    problems = [
        InputError(
            rule, f"{count_noun(len(faults[kind]), 'faulty rows')} in {file}: {shorten(faults[kind])}", mend
        )
        for kind, (rule, mend) in _FAULTS.items()
        if faults[kind]
    ]
    return rows, problems


def _parse_row(record: _Record, names: list[str], labelled: bool) -> ListedImage | _Fault:
    line, cells = record
    if len(cells) < len(names) or any(cell.strip() for cell in cells[len(names) :]):
        return "cells", f"line {line} has {len(cells)} of {len(names)}"
    cell = {name: cells[names.index(name)].strip() for name in COLUMNS if name in names}
    required = cell if labelled else ("path",)
    if empty := [name for name in required if not (cell[name] if name == "path" else name_key(cell[name]))]:
        described = [f"{name} {cell[name]}".strip() for name in empty]
        return "empty", f"line {line} ({', '.join(described)})"
    place = f"line {line}: {printable(cell['path'])}"
    path = posixpath.normpath(cell["path"].replace("\\", "/"))
    # A drive makes a path absolute on every machine, so that all machines refuse the same list.
    if path.startswith("/") or PureWindowsPath(path).drive:
        return "absolute", place
    if path.split("/")[0] == "..":
        return "escaping", place
    split = cell.get("split", "").lower()
    if split and split not in SPLIT_NAMES:
        return "split", f"line {line}: {printable(cell['split'])}"
    return ListedImage(path, cell.get("person", ""), cell.get("camera", ""), split, line)


def _conflict(earlier: list[ListedImage], row: ListedImage) -> _Fault | None:
    """Return the fault of a row that conflicts with earlier rows of the same path."""
    if not earlier:
        return None
    place = f"lines {earlier[0].line} and {row.line}: {printable(row.name)}"
    # A query may be in the gallery, too, because an image is never its own match.
    if {row.split, *(other.split for other in earlier)} != {"query", "gallery"} or len(earlier) > 1:
        return "twice", place
    if any(
        name_key(getattr(earlier[0], noun)) != name_key(getattr(row, noun)) for noun in ("person", "camera")
    ):
        return "contradiction", place
    return None


def _existing_name(name: str, names: Callable[[str], set[str]]) -> str | None:
    """Return the name of an existing file, which may store é as one character or as two; else None."""
    # ``names`` lists a folder. A listing distinguishes A.JPG from a.jpg even if the file system does not, so
    # a list that is wrong on another machine is wrong on this one.
    forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
    for form in forms:
        folder, _, last = form.rpartition("/")
        if last in names(folder):
            return form
    return None


def _find_files(file: Path, rows: list[ListedImage]) -> tuple[list[ListedImage], list[InputError]]:
    # Each folder is listed once, because a query for each file is slow on a network drive.
    list_names = cache(lambda folder: entry_names(file.parent / folder))
    names = [_existing_name(row.name, list_names) for row in rows]
    missing = [row for row, name in zip(rows, names, strict=True) if name is None]
    rows = [row._replace(name=name) for row, name in zip(rows, names, strict=True) if name is not None]
    if not missing:
        return rows, []
    named = shorten([f"line {row.line}: {printable(row.name)}" for row in missing])
    return rows, [
        InputError(
            "every listed image exists, at a path relative to the CSV's folder",
            f"{len(missing)} of {len(missing) + len(rows)} missing in {file}: {named}",
            _hint_at_files(file, missing[0].name),
        )
    ]


def _hint_at_files(file: Path, name: str) -> str:
    """Make the mend for missing files from the first of them."""
    folder, _, last = name.rpartition("/")
    if same := [
        entry for entry in sorted(entry_names(file.parent / folder)) if entry.lower() == last.lower()
    ]:
        return f"write names with their capital letters: the file is {posixpath.join(folder, same[0])}"
    children = [file.parent / child for child in sorted(folder_names(file.parent))]
    for place in (file.parent.parent, *children, Path.cwd()):
        if _existing_name(name, lambda folder, place=place: entry_names(place / folder)):
            value = f"{printable(last)} is in {place / folder}"
            return f"{value}: write the paths relative to {file.parent}, or move the CSV to {place}"
    return "put the files back or remove them from the list"


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(".csv") and not path.name.startswith(".") and path.is_file()
