"""Folders of generated files, atomic writing, locks, matplotlib's settings, and versions in use."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from reidlib import __version__
from reidlib.errors import InputError, one_line
from reidlib.text import ESCAPE

logger = logging.getLogger("reidlib")

Built = TypeVar("Built")
_PROJECT = Path(__file__).resolve().parent.parent
# Processes of another machine, or of another container, cannot be asked whether they are still writing.
_MACHINE = platform.node()
with contextlib.suppress(OSError):
    _MACHINE += str(Path("/proc/self/ns/pid").readlink())
_PARTIAL = f".{hashlib.sha256(_MACHINE.encode()).hexdigest()[:8]}.partial"
_SWEPT_FOLDERS: set[Path] = set()
_HOME_LOCK: dict[tuple[int, int], int] = {}  # the folder that this process uses -> the descriptor of its lock
# File systems allow names of 255 bytes.
_LONGEST_NAME = 255
LONG_NAME_MEND = f"choose shorter names: a name has at most {_LONGEST_NAME} bytes, a path 4,096"


def home() -> Path:
    """Return the folder of all generated files: ``$REIDLIB_HOME``, or ``reports/`` of the clone."""
    # Independent of the working directory: JupyterLab starts a notebook in notebooks/, papermill wherever
    # it was called. An installed wheel has no clone and uses the user's cache folder.
    if folder := os.environ.get("REIDLIB_HOME"):
        return Path(folder).expanduser().resolve()
    if (_PROJECT / "notebooks").is_dir():
        return _PROJECT / "reports"
    return Path.home() / ".cache" / "reidlib"


def project() -> Path:
    """Return the folder of the clone."""
    return _PROJECT


def notebooks() -> Path:
    """Return the clone's folder of numbered notebooks."""
    return _PROJECT / "notebooks"


def data() -> Path:
    """Return the folder of rendered benchmarks."""
    return home() / "data"


def image_cache() -> Path:
    """Return the folder of decoded images."""
    return home() / "cache"


def feature_cache() -> Path:
    """Return the folder of features of the user's own images."""
    return home() / "features"


def progress_file() -> Path | None:
    """Return the file in which a long job reports its progress to the process that started it, if any."""
    return Path(path) if (path := os.environ.get("REIDLIB_PROGRESS")) else None


def runs() -> Path:
    """Return the folder of trained runs."""
    return home() / "runs"


def evidence() -> Path:
    """Return the clone's folder of the small files of runs that are kept in git."""
    return _PROJECT / "reports" / "evidence"


def use_home(*, alone: bool = False) -> bool:
    """Share the home with other processes until this one ends; False if it is to be ``alone`` and is not."""
    # `reidlib clean` removes what processes share only while it is alone, and others then wait for it. The
    # lock is one of the folder itself, so that a home that cannot be written has it, too.
    if sys.platform == "win32":  # where a file in use cannot be removed
        return True
    import fcntl

    try:
        status = home().stat()
        if (folder := (status.st_dev, status.st_ino)) not in _HOME_LOCK:
            descriptor = os.open(home(), os.O_RDONLY)
            while _HOME_LOCK:
                os.close(_HOME_LOCK.popitem()[1])
            _HOME_LOCK[folder] = descriptor
        fcntl.flock(_HOME_LOCK[folder], fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:  # no home yet, or a file system without such locks
        pass
    return True


def safe_name(text: str) -> str:
    """Replace the characters of a text that a file name may not contain by hyphens; cut a long one."""
    return short_name(re.sub(r"[^\w.=,+-]", "-", text), 120)


def short_name(name: str, most: int) -> str:
    """Cut a name of more than ``most`` bytes, and end it with a hash of the whole."""
    data = name.encode("utf-8", "surrogatepass")
    if len(data) <= most:
        return name
    return f"{data[: most - 13].decode('utf-8', 'ignore')}-{hashlib.sha256(data).hexdigest()[:12]}"


def hidden_file(path: Path, ending: str) -> Path:
    """Return the path of a hidden file beside another: ``.NAME.ENDING``, where a long name is cut."""
    return path.with_name(f".{short_name(path.name, _LONGEST_NAME - len(ending) - 22)}.{ending}")


def write_error(path: Path, error: OSError) -> InputError:
    """Make the error for a file that could not be written."""
    return InputError(
        f"{path.name} must be written to {path.parent}", error.strerror or error, writing_mend(path, error)
    )


def writing_mend(path: Path, error: OSError, mend: str = "choose a folder you can write to") -> str:
    """Return what helps if ``path`` cannot be written; ``mend`` if nothing that is known does."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "free some disk space and run again"
    if error.errno == errno.ENAMETOOLONG:
        return LONG_NAME_MEND
    if Path(os.path.realpath(path)).is_relative_to(home()):
        return "set REIDLIB_HOME to a folder you can write to"
    return mend


def write_json(path: Path, content: object) -> None:
    """Write a JSON file atomically: the file is either complete or unchanged.

    Args:
        path: File to write; missing folders are created.
        content: What ``json.dumps`` accepts.

    Raises:
        InputError: If the disk is full or the folder is not writable.
    """
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place in one step."""
    partial = hidden_file(path, f"{os.getpid()}{_PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_partials(path.parent)
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # a file that cannot be written cannot be removed either
            partial.unlink(missing_ok=True)


def _remove_partials(folder: Path) -> None:
    """Remove what killed processes of this machine were writing in a folder; once in each process."""
    if folder in _SWEPT_FOLDERS or os.name != "posix":
        return
    _SWEPT_FOLDERS.add(folder)
    for partial in folder.glob(f".*{_PARTIAL}"):
        # Of another user's process or file nothing is removed.
        with contextlib.suppress(OSError, ValueError, OverflowError):
            try:
                os.kill(int(partial.name.removesuffix(_PARTIAL).rpartition(".")[2]), 0)
            except ProcessLookupError:
                partial.unlink(missing_ok=True)


def write_buffered(path: Path, fill: Callable[[io.BytesIO], object]) -> None:
    """Write atomically what ``fill`` puts into a buffer; for writers that do not report a full disk."""
    buffer = io.BytesIO()
    fill(buffer)
    write_atomically(path, lambda partial: partial.write_bytes(buffer.getbuffer()))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8; what that lacks is escaped."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8", errors=ESCAPE))


def read_json(path: Path) -> dict:
    """Read an object from a JSON file; raise InputError if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"{type(content).__name__} instead of an object")
        return content
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            "a run's files are readable JSON",
            f"{path}: {error}",
            "restore the file, or remove the run's folder to train or import again",
        ) from error


def find_json(path: Path) -> dict | None:
    """Read an object from a JSON file, or return None if the file is missing or damaged."""
    try:
        return read_json(path)
    except InputError:
        return None


@contextlib.contextmanager
def exclusive_lock(
    lock: Path,
    *,
    on_wait: Callable[[], object] | None = None,
    make_error: Callable[[OSError], InputError] | None = None,
) -> Iterator[None]:
    """Hold a lock file, whose folder is created; other processes wait until it is released."""
    # ``on_wait`` is called once if another process holds the lock; ``make_error`` turns the OSError of a lock
    # that cannot be written into the error to raise.
    file_lock = FileLock(lock)
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=lock.parent):
            pass  # in a folder that is not writable, acquiring the lock would wait forever
        try:
            file_lock.acquire(timeout=0)
        except Timeout:
            if on_wait is not None:
                on_wait()
            file_lock.acquire()
    except OSError as error:
        if make_error is None:
            raise
        raise make_error(error) from error
    try:
        yield
    finally:
        file_lock.release()


def build_once(
    lock: Path,
    find: Callable[[], Built | None],
    build: Callable[[], Built],
    *,
    on_wait: Callable[[], object] | None = None,
    make_error: Callable[[OSError], InputError] | None = None,
) -> Built:
    """Return an existing result, or build it; of several processes, only one builds.

    The other processes wait for the lock and then look again.

    Args:
        lock: Lock file; its folder is created.
        find: Returns the result, or None if it does not exist yet.
        build: Builds and returns the result.
        on_wait: Called once if another process holds the lock.
        make_error: Makes the error that is raised instead of an ``OSError`` while acquiring the lock.

    Returns:
        What ``find`` or ``build`` returned.

    Raises:
        OSError: If the lock file cannot be written and ``make_error`` is None.
    """
    use_home()
    if (existing := find()) is not None:
        return existing
    with exclusive_lock(lock, on_wait=on_wait, make_error=make_error):
        use_home()  # which now exists
        existing = find()
        return build() if existing is None else existing


def load_matplotlib() -> None:
    """Import matplotlib, without its configuration file if that cannot be read."""
    try:
        import matplotlib
    except Exception as error:  # it reads the file while it is imported
        specification = find_spec("matplotlib")
        if specification is None or specification.origin is None:
            raise
        defaults = Path(specification.origin).parent / "mpl-data"
        for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
            del sys.modules[name]  # of the import that failed
        os.environ["MATPLOTLIBRC"] = str(defaults)  # for the processes of a report, too
        with contextlib.chdir(defaults):  # a file in the working directory comes first
            import matplotlib  # noqa: F401
        reason = one_line(f"{type(error).__name__}: {error}")
        logger.warning(
            f"note: matplotlib's defaults are used, because its file matplotlibrc is damaged: {reason}"
        )


def versions() -> dict[str, str]:
    """Return the versions of the software that a result depends on."""
    return {
        "reidlib": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "torchvision", "numpy")},
    }


def commit() -> str | None:
    """Return the clone's commit, with "+" if files differ from it; None outside a clone."""
    package = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ("git", "-C", package, *arguments)
        return (
            subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8", "replace").strip()
        )

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(package))
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
