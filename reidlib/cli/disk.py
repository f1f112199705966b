"""What is in the home, the folder of generated files, and what of it may go."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from reidlib import files
from reidlib.errors import InputError, check_choice, count_noun, one_line

logger = logging.getLogger("reidlib")

_HEX = "[0-9a-f]"
_WRITTEN = rf"\.[^/]+\.{_HEX}{{8}}\.partial"  # how ``files.write_atomically`` ends its temporary names
_NEXT_USE = "whatever needs it next"


class Kind(NamedTuple):
    """Entries of one kind: what they are, what makes them again, and how they are recognised."""

    about: str
    again: str
    pattern: str = r"(?!)"  # paths of their files; the group is the entry
    mark: str = ""  # the end of a file that an entry has
    days: int | None = None  # goes without being named if unchanged for so long
    shared: bool = True  # processes use it without a lock of its own


_RUN_FILES = (
    r"(?:config|run|scores|distractors)\.json|history\.jsonl|(?:steps|rankings)\.npz|(?:weights|checkpoint)\.pt"
    rf"|failure\.txt|(?:conditions|across|metrics)/[^/]+\.json|(?:(?:conditions|across|metrics)/)?{_WRITTEN}"
)
_RUN = rf"(runs/[^/]+-{_HEX}{{12}})/(?:{_RUN_FILES})"
_IMAGES = rf"(cache/{_HEX}{{32}})\.(?:npy|partial)"
_FEATURES = rf"(features/(?:{_HEX}{{32}}|[^/]+-distractors))\.(?:npy|json|partial)"
_RECORD = rf"(checked/{_HEX}{{16}}(?:{_HEX}{{16}})?)\.json"
_SPLITS = "(?:bounding_box_train|bounding_box_test|query)"
_RENDERED = rf"(data/synthetic-[^/]+)/(?:factors\.csv|rendering\.json|{_SPLITS}/[^/]+\.jpg)"
_BOXES = rf"(?:labelled|detected)(?:\.json|/[^/]+\.png|/{_WRITTEN})"
_EXTRACTED = rf"(data/cuhk03-{_HEX}{{12}})/(?:{_BOXES}|{_WRITTEN})"
_PARTIAL = rf"((?:[^/]+/)?\.[^/]+\.partial-[^/]+)/.+|((?:[^/]+/)?{_WRITTEN})"
_SUMMARY = r"(README\.md|notebooks\.md|figures|evidence)(?:/[^/]+){0,2}"
_OTHERS = "(?:runs|cache|features|checked|data|explored|evidence)/"
_PAGE = r"\d\d_\w+/(?:progress\.txt|.+\.(?:html|ipynb|json|csv|jpg|png|log|partial))"
_REPORT = rf"((?!{_OTHERS})[^/]+)/(?:index\.html|tasks/[^/]+\.(?:log|progress)|{_PAGE})"
# `reidlib train all` leaves the logs of failed or interrupted trainings, in the folder of a profile's report.
_LOG = re.compile(r"(?:smoke|quick|full|photographs|paper)(?:-[^/]+)?/tasks/[^/]+\.(?:log|progress)")
_TRAIN, _REPRODUCE = "`reidlib train`", "`reidlib reproduce`"
# A file is of the first kind whose pattern its path matches.
KINDS = {
    "runs": Kind("finished trainings and imports", _TRAIN, _RUN, "/config.json"),
    "unfinished": Kind("unfinished or failed trainings", _TRAIN, shared=False),
    "checkpoints": Kind("states of finished trainings", "nothing needs them", days=0, shared=False),
    "images": Kind("decoded images", _NEXT_USE, _IMAGES, days=0),
    "features": Kind("features", _NEXT_USE, _FEATURES, ".json"),
    "records": Kind("records of images that were read", _NEXT_USE, _RECORD),
    "rendered": Kind("rendered images", _NEXT_USE, _RENDERED, "/rendering.json"),
    "extracted": Kind("images of cuhk-03.mat", _NEXT_USE, _EXTRACTED),
    "explored": Kind("results of notebooks run by hand", "the notebook", r"(explored/\d\d_\w+)/.+"),
    "partial": Kind("what killed processes were writing", "nothing needs it", _PARTIAL, days=1),
    "summary": Kind("the clone's summary and evidence", "git, or what wrote it", _SUMMARY),
    "reports": Kind("reports", _REPRODUCE, _REPORT, "/status.json", days=30, shared=False),
    "foreign": Kind("not made by reidlib", "not by reidlib"),
}
REMOVABLE = [kind for kind in KINDS if kind not in ("summary", "foreign")]
_PATTERNS = {kind: re.compile(pattern) for kind, (_, _, pattern, *_) in KINDS.items()}
_LATER = "give the command again when it has ended"


@dataclass
class Entry:
    """What stays or goes as a whole: a folder, or the files of one name."""

    kind: str
    name: str  # its path in the home
    remark: str = ""
    sizes: dict[str, int] = field(default_factory=dict)  # allocated bytes of each file
    changed: float = 0.0  # the last change of a file, in seconds since 1970

    @property
    def size(self) -> int:
        """Allocated bytes."""
        return sum(self.sizes.values())

    @property
    def age(self) -> float:
        """Days since the last change of a file."""
        return max(0.0, time.time() - self.changed) / 86400

    @property
    def digest(self) -> str:
        """The hash in the name of a run's folder."""
        return self.name.removesuffix("/checkpoint.pt")[-12:]

    def add(self, path: str, size: int, changed: float) -> None:
        """Add a file."""
        self.sizes[path] = size
        self.changed = max(self.changed, changed)

    def may_go(self) -> bool:
        """Return whether it goes without being named."""
        days = 0 if self.kind == "features" and self.remark else KINDS[self.kind].days
        return days is not None and self.age >= days


def _walk(home: Path) -> Iterator[tuple[str, os.stat_result | None, str]]:
    """Yield path and state of each file, or a remark on what cannot be read or is no file; follow no link."""
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            items = list(os.scandir(home / folder))
        except FileNotFoundError:
            continue  # removed meanwhile
        except OSError as error:
            yield folder or ".", None, f"cannot be read ({error.strerror})"
            continue
        for item in items:
            path = f"{folder}/{item.name}" if folder else item.name
            with suppress(FileNotFoundError):
                if item.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif item.is_file(follow_symlinks=False):
                    yield path, item.stat(follow_symlinks=False), ""
                elif item.is_symlink() and not os.path.exists(item):  # noqa: PTH110
                    yield path, None, "a link that leads nowhere"
                else:
                    yield path, None, "a link, not followed" if item.is_symlink() else "no file"


def take_stock(home: Path) -> list[Entry]:
    """List all that is in a home by kinds and names; what reidlib has not made is foreign."""
    entries: dict[tuple[str, str], Entry] = {}
    states: dict[str, tuple[int, float]] = {}  # allocated bytes and time of the last change
    foreign: dict[str, str] = {}
    linked: set[tuple[int, int]] = set()
    for path, status, remark in _walk(home):
        if status is None:
            states[path], foreign[path] = (0, time.time()), remark
            continue
        if path.endswith(".lock") and not status.st_size:
            continue  # it stays: if a lock is removed while a process waits for it, two may hold it
        size = getattr(status, "st_blocks", -(-status.st_size // 512)) * 512
        if status.st_nlink > 1:
            identity = (status.st_dev, status.st_ino)
            size = 0 if identity in linked else size
            linked.add(identity)
        states[path] = size, status.st_mtime
        for kind, pattern in _PATTERNS.items():
            if match := pattern.fullmatch(path):
                name = match[match.lastindex or 0]
                entries.setdefault((kind, name), Entry(kind, name)).add(path, *states[path])
                break
        else:
            foreign[path] = ""
    for entry in list(entries.values()):
        mark = KINDS[entry.kind].mark
        if not any(path.endswith(mark) or _LOG.fullmatch(path) for path in entry.sizes):
            foreign |= dict.fromkeys(entry.sizes, f"without a file …{mark}")
            del entries[entry.kind, entry.name]
        elif entry.kind == "runs" and f"{entry.name}/run.json" not in entry.sizes:
            entry.kind, failed = "unfinished", f"{entry.name}/failure.txt" in entry.sizes
            entry.remark = "failed" if failed else ""
        elif entry.kind == "runs" and (path := f"{entry.name}/checkpoint.pt") in entry.sizes:
            del entry.sizes[path]
            entries["checkpoints", path] = Entry("checkpoints", path)
            entries["checkpoints", path].add(path, *states[path])
    digests = {entry.digest for entry in entries.values() if entry.kind in ("runs", "unfinished")}
    for entry in entries.values():
        if entry.kind == "features":
            key = (files.find_json(home / f"{entry.name}.json") or {}).get("key")
            entry.remark = "" if str(key)[:12] in digests else f"of no run in {home / 'runs'}"
    return [*entries.values(), *_foreign_entries(foreign, states, entries.values())]


def _foreign_entries(
    foreign: dict[str, str], states: dict[str, tuple[int, float]], entries: Iterable[Entry]
) -> Iterable[Entry]:
    """Return an entry for each folder of foreign files alone, and for each other foreign file."""
    parents: set[str] = set()
    for path in [path for entry in entries for path in entry.sizes]:
        while (path := path.rpartition("/")[0]) and path not in parents:
            parents.add(path)
    groups: dict[str, Entry] = {}
    for path, remark in foreign.items():
        ways = [path[: end.start()] for end in re.finditer("/|$", path)]
        name = next((way for way in ways if way not in parents), path)
        groups.setdefault(name, Entry("foreign", name, remark)).add(path, *states[path])
    return groups.values()


def _select(entries: Iterable[Entry], names: Sequence[str], kinds: Sequence[str], home: Path) -> list[Entry]:
    """Return the entries of the named kinds, and those named; InputError for a name of neither."""
    paths = {os.path.relpath(home / name, home) for name in names}
    entries = [entry for entry in entries if entry.kind in kinds]
    labels = [{entry.kind, entry.name, Path(entry.name).name} for entry in entries]
    rule = f"what is named is one of {', '.join(kinds)}, or an entry that `reidlib disk KIND` lists"
    for path in paths:
        check_choice(rule, path, {*kinds}.union(*labels))
    return [entry for entry, words in zip(entries, labels, strict=True) if words & paths]


def _print(title: str, entries: Sequence[Entry], *, each: bool) -> None:
    """Print sizes and ages of entries, one in a line, or all of a kind and remark."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(entries, key=lambda entry: (list(KINDS).index(entry.kind), -entry.size, entry.name)):
        about, again, *_ = KINDS[entry.kind]
        parts = [entry.name if each else about, entry.remark if each or entry.kind == "features" else ""]
        text = ", ".join(filter(None, parts)) + ("" if each else f"; {again}")
        groups.setdefault((entry.kind, one_line(text)), []).append(entry)
    last = "entry" if each else "what it is; what makes it again"
    rows = [("kind", "entries", "files", "size", "unchanged", last)]
    for (kind, text), own in groups.items():
        ages = dict.fromkeys(f"{pick(entry.age for entry in own):,.0f}" for pick in (min, max))
        counts = (f"{len(own):,}", f"{sum(len(entry.sizes) for entry in own):,}")
        rows.append((kind, *counts, _size(own), f"{' to '.join(ages)} days", text))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows if groups]
    print("\n".join([f"{title}: {_size(entries)}", *lines]))


def _size(entries: Iterable[Entry]) -> str:
    mebibytes = sum(entry.size for entry in entries) / 2**20
    return f"{mebibytes:,.1f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:,.1f} GiB"


def show(names: Sequence[str]) -> int:
    """Print what is in the home by kinds, or the entries of the named kinds; return the exit status."""
    home, entries, status = _open_home()
    _print(str(home), _select(entries, names, [*KINDS], home) if names else entries, each=bool(names))
    return status


def _open_home() -> tuple[Path, list[Entry], int]:
    """Return the home, what is in it, and the exit status: 1, after a line for each problem, or 0."""
    home = files.home().resolve()
    if not home.is_dir():
        mend = "the first training makes it; REIDLIB_HOME names another"
        logger.warning(str(InputError("the home is a folder", f"none at {home}", mend)))
        return home, [], 1
    entries = take_stock(home)
    foreign = sorted((entry for entry in entries if entry.kind == "foreign"), key=lambda entry: entry.name)
    for entry in foreign:
        remark = entry.remark or KINDS["foreign"].about
        logger.warning(one_line(f"foreign: {home / entry.name} ({_size([entry])}): {remark}; it stays"))
    return home, entries, int(bool(foreign))


def clean(names: Sequence[str], older: int, *, yes: bool) -> int:
    """Print what may go, or remove it, and why the rest of what was chosen stays; return the exit status."""
    home, entries, status = _open_home()
    chosen = _select(entries, names, REMOVABLE, home) if names else [e for e in entries if e.may_go()]
    chosen = [entry for entry in chosen if entry.age >= older]
    problems: Counter[tuple[str, Path, str]] = Counter()
    gone: list[Entry] = []
    try:
        if chosen:
            with tempfile.TemporaryFile(dir=home):
                pass  # a home that cannot be written has one line
            user = _find_user(home, entries)
        for entry in chosen:
            if (problem := _problem(entry, home, user, yes)) is None:
                gone.append(entry)
            else:
                problems[problem] += 1
    except OSError as error:
        problems[error.strerror or str(error), home, files.writing_mend(home, error)] = len(chosen)
    finally:
        files.use_home()  # with others again
    _print(f"removed from {home}" if yes else f"may go from {home}, with --yes", gone, each=bool(names))
    for (reason, place, mend), number in problems.items():
        value = f"{place}, {count_noun(number, 'entries')}: {reason}"
        logger.warning(str(InputError("what goes is reidlib's alone, and not in use", value, mend)))
    return status or int(bool(problems))


def _find_user(home: Path, entries: Iterable[Entry]) -> str:
    """Return what uses the home besides this process; if nothing does, "", and others wait from now on."""
    if not files.use_home(alone=True):
        return "another process uses the home, such as a training or an open notebook"
    # On another machine, the lock of the home may not be seen, but those of trainings and reports are.
    finished = {f".{entry.digest}.lock" for entry in entries if entry.kind == "runs"}
    for lock in (*home.glob("runs/.*.lock"), *home.glob("*/.lock")):
        with ExitStack() as stack, suppress(OSError):
            if lock.name not in finished and not _hold(stack, lock):
                return f"a training or a report holds {lock}"
    return ""


def _hold(stack: ExitStack, lock: Path) -> bool:
    """Hold a lock file until the stack closes; False if another process holds it."""
    try:
        stack.enter_context(FileLock(lock).acquire(timeout=0))
        return True
    except Timeout:
        return False


def _problem(entry: Entry, home: Path, user: str, yes: bool) -> tuple[str, Path, str] | None:
    """Remove an entry if ``yes``; return why it stays, where, and what helps, or None if it goes."""
    path = home / entry.name
    if user and KINDS[entry.kind].shared:
        return user, home, _LATER
    # The lock of a run is made if it does not exist; others exist if a process holds them.
    locks = [path.with_name(f"{path.name}.lock"), files.hidden_file(path, "lock")]
    locks = [lock for lock in (*locks, *path.glob("*.lock"), *path.glob("*/.lock")) if lock.is_file()]
    if entry.kind in ("runs", "unfinished", "checkpoints"):
        locks = [home / "runs" / f".{entry.digest}.lock"]
    try:
        with ExitStack() as stack:
            if not all(_hold(stack, lock) for lock in locks if yes or lock.exists()):
                return "another process is writing it", path, _LATER
            if _holds_others(entry, path):
                mend = "move foreign files to another place, or give the command again"
                return "it holds foreign files, or has changed since it was listed", path, mend
            if yes:
                _remove(entry, home)
    except OSError as error:
        return (
            error.strerror or str(error),
            path.parent,
            "check the access rights, and give the command again",
        )
    return None


def _holds_others(entry: Entry, path: Path) -> bool:
    """Return whether a folder holds foreign files, or newer ones, such as those of a training's end."""
    known = {*entry.sizes, f"{entry.name}/checkpoint.pt"}  # which is an entry of its own in a finished run
    return any(
        status is None or f"{entry.name}/{file}" not in known or status.st_mtime > entry.changed
        for file, status, _ in (_walk(path) if path.is_dir() else ())
        if not file.endswith(".lock")
    )


def _remove(entry: Entry, home: Path) -> None:
    """Remove an entry; what is gone already is no error."""
    path = home / entry.name
    if os.path.realpath(path.parent) != str(path.parent):
        raise OSError(errno.ELOOP, "a link has taken the place of a folder", str(path))
    if any(file.startswith(f"{entry.name}/") for file in entry.sizes):
        with suppress(FileNotFoundError):
            if entry.kind != "partial":  # in one step: what a kill leaves does not look complete
                path = path.rename(files.hidden_file(path, f"partial-{os.getpid()}"))
            shutil.rmtree(path)
        return
    # Features go before their description, without which they would be foreign.
    for file in sorted(entry.sizes, key=lambda file: file.endswith(".json")):
        (home / file).unlink(missing_ok=True)
