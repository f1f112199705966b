"""Files that are written whole or not at all, and read with a clear word when they are damaged."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

from reidlib.errors import InputError


def unwritable(path: Path, error: OSError) -> InputError:
    """The one line for a file that could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return InputError(
        f"{path.name} must be written to {path.parent}",
        error.strerror or error,
        "free some disk space and run again" if full else "choose a folder you can write to",
    )


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then put it in place in one step.

    Raises InputError when the disk is full or the folder cannot be written; the old file stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # what could not be written cannot be removed either
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict:
    """A JSON file's content; a damaged one is an InputError that names it."""
    try:
        content = json.loads(path.read_text())
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} instead of an object")
        return content
    except (OSError, ValueError) as error:
        raise InputError(
            "a run's files are readable JSON",
            f"{path}: {error}",
            "restore the file, or remove the run's folder to train again",
        ) from error
