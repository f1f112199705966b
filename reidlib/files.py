"""Where the suite keeps what it generates and what made it; files written whole, built once, read back."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from reidlib import __version__
from reidlib.errors import InputError

Built = TypeVar("Built")
_PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Folder of everything generated: ``$REIDLIB_HOME``, else ``reports/`` of the clone.

    It does not depend on the working directory, because JupyterLab starts a notebook in ``notebooks/``
    and papermill starts the same notebook wherever it was called. Outside a clone (an installed wheel)
    it is ``~/.cache/reidlib``.
    """
    if chosen := os.environ.get("REIDLIB_HOME"):
        return Path(chosen).expanduser().resolve()
    if (_PROJECT / "notebooks").is_dir():
        return _PROJECT / "reports"
    return Path.home() / ".cache" / "reidlib"


def project() -> Path:
    """The clone's folder."""
    return _PROJECT


def notebooks() -> Path:
    """Folder of the numbered notebooks: that of the clone."""
    return _PROJECT / "notebooks"


def data() -> Path:
    """Folder of rendered benchmarks."""
    return home() / "data"


def image_cache() -> Path:
    """Folder of decoded images."""
    return home() / "cache"


def feature_cache() -> Path:
    """Folder of features of own images."""
    return home() / "features"


def progress_file() -> Path | None:
    """Where long work leaves a line on how far it is, for whoever started this process and shows it."""
    return Path(chosen) if (chosen := os.environ.get("REIDLIB_PROGRESS")) else None


def runs() -> Path:
    """Folder of trained runs."""
    return home() / "runs"


def safe_name(text: str) -> str:
    """A text as part of a file's name, which may hold less: a benchmark's options, say."""
    return re.sub(r"[^\w.=,+-]", "-", text)


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


def write_filled(path: Path, fill: Callable[[io.BytesIO], object]) -> None:
    """Write whole or not at all what ``fill`` puts into a buffer; for writers that hide a full disk."""
    buffer = io.BytesIO()
    fill(buffer)
    write_whole(path, lambda partial: partial.write_bytes(buffer.getbuffer()))


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


def find_json(path: Path) -> dict | None:
    """A JSON file's content; None where there is none, or a damaged one, which writing it again mends."""
    try:
        return read_json(path)
    except InputError:
        return None


@contextlib.contextmanager
def alone(
    lock: Path,
    *,
    waiting: Callable[[], object] | None = None,
    refused: Callable[[OSError], InputError] | None = None,
) -> Iterator[None]:
    """Hold the file ``lock``, whose folder is made; other processes that want it wait until this one is done.

    waiting: called once where another process holds it. refused: what is raised in place of the OSError where
    it cannot be written.
    """
    held = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=lock.parent):
            pass  # a lock waits for ever where no file can be made
        try:
            held.acquire(timeout=0)
        except Timeout:
            if waiting is not None:
                waiting()
            held.acquire()
    except OSError as error:
        if refused is None:
            raise
        raise refused(error) from error
    try:
        yield
    finally:
        held.release()


def built_once(
    lock: Path,
    find: Callable[[], Built | None],
    build: Callable[[], Built],
    *,
    waiting: Callable[[], object] | None = None,
    refused: Callable[[OSError], InputError] | None = None,
) -> Built:
    """What ``find`` finds, else what ``build`` makes; of several processes that want it one builds.

    The others wait for the file ``lock`` and look again. See ``alone`` for the other arguments.
    """
    if (there := find()) is not None:
        return there
    with alone(lock, waiting=waiting, refused=refused):
        there = find()
        return build() if there is None else there


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {
        "reidlib": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy")},
    }


def commit() -> str | None:
    """The clone's commit, with "+" where files differ from it; None outside a clone."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(("git", "-C", here, *arguments), capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
