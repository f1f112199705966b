"""A thousand bad inputs, each made of a valid one by its number, and what must be true after each of them.

``python tests/bad_inputs.py NUMBER …`` runs some of them again and prints what came out.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import faulthandler
import hashlib
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import bad_input_kinds
from bad_input_kinds import Case, Seeds

SEED = int(os.environ.get("BAD_INPUTS_SEED", "15"))  # another one makes another thousand
# How many inputs of each kind; the kinds alternate in an order that the seed decides.
KINDS = {
    "command lines": 200,
    "settings": 120,
    "folders": 180,
    "lists": 150,
    "features": 120,
    "runs": 100,
    "archives": 110,
    "notebooks": 20,
}
_ORDER = [kind for kind, count in KINDS.items() for _ in range(count)]
random.Random(SEED).shuffle(_ORDER)
COUNT = len(_ORDER)
# Seconds after which an input counts as a hang; the slowest takes seconds.
WATCHDOG = 120
NOBODY = 65534
_ENVIRONMENT = dict(os.environ)  # an input that runs in this process changes it for a while
PAYLOAD = bad_input_kinds.PAYLOAD

# Files of the suite's own that a refusal may leave: locks, and caches that are complete or continued.
_MAY_REMAIN = re.compile(
    r"(.*\.lock$)|home/runs/[^/]+/(failure\.txt|config\.json)$|home/(cache/\w+\.npy|features/[^/]+\.(npy|json)|checked/\w+\.json)$"
    r"|home/data/cuhk03-\w+/\w+(\.json|/\w+\.png)$"
    r"|home/data/synthetic-smoke/.*"
)
# What the suite says on standard error besides an error.
_MESSAGE = re.compile(
    r"$|training \S+ on |evaluating \S+ on |note: |tasks to be done: |.*: another process is |"
    r"\S.*index\.html shows each page |"
    r"\S.*: [\d,]+ (images?|steps?) in \d\d:\d\d|reading |searching "
)


@dataclass(frozen=True)
class Ending:
    """How an input ended: exit status, both streams, and the tree of files before and after."""

    status: int | str  # "hang", or an exception's traceback
    out: str
    err: str
    before: dict[str, tuple]
    after: dict[str, tuple]
    warnings: tuple[str, ...] = ()


def kind_of(number: int) -> str:
    return _ORDER[number]


def make(number: int, folder: Path, seeds: Seeds) -> Case:
    """The input of a number, with its files in an empty folder."""
    folder.mkdir(parents=True)
    (folder / "home").mkdir()
    return bad_input_kinds.make(kind_of(number), number, random.Random(f"{SEED} {number}"), folder, seeds)


def tree(folder: Path) -> dict[str, tuple]:
    """Every entry below a folder: its kind, and for a file the hash of its bytes."""
    entries = {}
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            kind = stat.S_IFMT(path.lstat().st_mode)
            try:
                content = path.read_bytes() if kind == stat.S_IFREG else b""
            except PermissionError:  # for all but root
                content = b"unreadable"
            entries[str(path.relative_to(folder))] = kind, hashlib.md5(content).digest()
    return entries


class Hang(BaseException):
    """Raised by the watchdog."""


def _hang(*_):
    raise Hang


@contextlib.contextmanager
def _captured(folder: Path):
    """Both streams of this process, also of libraries in C, as two files."""
    sys.stdout.flush(), sys.stderr.flush()
    kept, streams = [os.dup(1), os.dup(2)], (sys.stdout, sys.stderr)
    files = [open(folder / name, "w+b") for name in ("out", "err")]  # noqa: SIM115, PTH123
    for number, file in enumerate(files, 1):
        os.dup2(file.fileno(), number)
    options = {"encoding": "utf-8", "errors": "backslashreplace", "buffering": 1, "closefd": False}
    sys.stdout, sys.stderr = (open(number, "w", **options) for number in (1, 2))  # noqa: PTH123, SIM115
    try:
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        sys.stdout, sys.stderr = streams
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for file in files:
            file.close()


def run_here(case: Case, streams: Path) -> Ending:
    """Run an input in this process."""
    from reidlib.cli import main

    streams.mkdir(exist_ok=True)
    before, environment, place = tree(case.folder), dict(os.environ), Path.cwd()
    os.environ.update(case.environment)
    os.chdir(case.folder)
    file_user = ctypes.CDLL(None).setfsuid  # of this thread and those that it starts
    status: int | str
    signal.signal(signal.SIGALRM, _hang)
    with warnings.catch_warnings(record=True) as caught, _captured(streams):
        warnings.resetwarnings()
        for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", category)  # as in a process of its own
        faulthandler.dump_traceback_later(3 * WATCHDOG, exit=True, file=sys.__stderr__)
        signal.alarm(WATCHDOG)
        try:
            if case.as_nobody:
                file_user(NOBODY)
            status = main(case.words)
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else f"SystemExit: {stop.code}"
        except Hang:
            status = "hang\n" + traceback.format_exc()
        except BaseException:
            status = traceback.format_exc()
        finally:
            signal.alarm(0)
            faulthandler.cancel_dump_traceback_later()
            file_user(0)
            os.chdir(place)
            os.environ.clear()
            os.environ.update(environment)
    leaked = tuple(f"{one.category.__name__}: {one.message}" for one in caught)
    out, err = ((streams / name).read_bytes().decode(errors="backslashreplace") for name in ("out", "err"))
    return Ending(status, out, err, before, tree(case.folder), leaked)


def run_process(case: Case) -> Ending:
    """Run an input as a process of its own."""
    before = tree(case.folder)
    # No process can get the character NUL, so that this input gets it from a program.
    program = f"import sys; from reidlib.cli import main; sys.exit(main({case.words!r}))"
    nul = any("\0" in word for word in case.words)
    start = ["-c", program] if nul else ["-m", "reidlib", *case.words]
    command = case.command or [sys.executable, *start]
    environment = {**_ENVIRONMENT, "OMP_NUM_THREADS": "1", **case.environment}
    try:
        process = subprocess.run(
            command, env=environment, cwd=case.folder, capture_output=True, timeout=WATCHDOG,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Ending("hang", "", "", before, tree(case.folder))
    out, err = (stream.decode(errors="backslashreplace") for stream in (process.stdout, process.stderr))
    return Ending(process.returncode, out, err, before, tree(case.folder))


def faults(case: Case, end: Ending) -> list[str]:
    """What is wrong with the way an input ended; empty if nothing is."""
    if case.command:
        return bad_input_kinds.notebook_faults(case, end.status, end.err)
    if isinstance(end.status, str):
        return [end.status]
    wrong = [f"warning leaked: {text}" for text in end.warnings]
    wrong += [f"executed code of an input: {path}" for path in case.folder.rglob(PAYLOAD)]
    everything = end.out + end.err
    wrong += [
        f"{word} in the output" for word in ("Traceback", "Warning:", "HDF5-DIAG") if word in everything
    ]
    errors = [
        line for line in end.err.splitlines() if line.startswith(("reidlib: error:", "reidlib: stopped:"))
    ]
    if end.status not in (0, 1, 2):
        wrong.append(f"exit status {end.status}")
    elif end.status == 2:
        lines = end.err.splitlines()
        if len(errors) != 1 or lines[-1:] != errors:
            wrong.append(f"{len(errors)} lines of error, or not the last line")
        elif "; see `reidlib" not in errors[0] and errors[0].count("; ") < 2:
            wrong.append("an error without rule, value and mend")
        elif len(errors[0]) > 3200:
            wrong.append(f"an error of {len(errors[0])} characters")
        if end.out and case.words[:1] != ["reproduce"]:  # which counts notebooks first
            wrong.append("results before a refusal")
    elif errors and end.status == 0:
        wrong.append("an error line, and exit status 0")
    elif end.status == 1 and not (
        errors
        or re.search(r"^problem: ", end.out, re.MULTILINE)
        or "note: these scores were not kept" in end.err
    ):
        wrong.append("exit status 1 without a problem or a reason")
    strange = [line for line in end.err.splitlines() if line not in errors and not _MESSAGE.match(line)]
    wrong += [f"on standard error: {line[:200]}" for line in strange[:3]]
    wrong += [f"not refused: {case.note}"] * (end.status == 0 and case.refused)
    new = sorted(end.after.keys() - end.before.keys())
    wrong += [f"half written: {name}" for name in new if ".partial" in name]
    if end.status == 2:
        wrong += [f"left by a refusal: {name}" for name in new if not _may_remain(name, case, end)]
    changed = [name for name, state in end.before.items() if end.after.get(name, ()) != state]
    # The ranked lists are written before the scores, both completely.
    allowed = case.may_change if end.status == 0 else (r".*/(rankings\.npz|failure\.txt)", *case.may_remain)
    wrong += [f"changed: {name}" for name in changed if not any(re.fullmatch(one, name) for one in allowed)]
    if end.status == 0 and not wrong:
        wrong += case.incomplete(end.out)
    return wrong


def _may_remain(name: str, case: Case, end: Ending) -> bool:
    is_folder = end.after[name][0] == stat.S_IFDIR
    known = any(re.fullmatch(one, name) for one in case.may_remain)
    return known or bool(_MAY_REMAIN.match(name)) or (is_folder and name.startswith(("home/", "runs")))


def ending_name(case: Case, end: Ending) -> str:
    """The column of the table."""
    if case.command and end.status == 1:  # papermill's status after any error
        return "refused"
    if isinstance(end.status, str):
        return "hang" if end.status.startswith("hang") else "traceback"
    return {0: "result", 1: "problems listed", 2: "refused"}.get(end.status, f"status {end.status}")


def table(endings: dict[int, str]) -> str:
    """Counts by kind and ending."""
    columns = sorted(set(endings.values()), reverse=True)
    counts = collections.Counter((kind_of(number), ending) for number, ending in endings.items())
    lines = [f"{'':<16}" + "".join(f"{column:>17}" for column in columns)]
    for kind in KINDS:
        lines.append(f"{kind:<16}" + "".join(f"{counts[kind, column]:>17}" for column in columns))
    total = collections.Counter(endings.values())
    return "\n".join([*lines, f"{'all':<16}" + "".join(f"{total[column]:>17}" for column in columns)])


@contextlib.contextmanager
def prepared():
    """A folder that other users can enter, with the valid inputs."""
    root = Path(tempfile.mkdtemp(prefix="bad-inputs-"))
    root.chmod(0o755)
    try:
        seeds = Seeds.prepare(root / "seeds")
        state = seeds.digest()
        yield root, seeds
        assert seeds.digest() == state, "an input changed the valid inputs that all are made of"
    finally:
        shutil.rmtree(root, ignore_errors=True)


def check(number: int, root: Path, seeds: Seeds, *, alone: bool = False) -> tuple[Case, Ending, list[str]]:
    """Make an input, run it (``alone``: as a process of its own), judge it, and remove it."""
    folder = root / f"{number}"
    try:
        case = make(number, folder, seeds)
        end = run_process(case) if alone or case.command else run_here(case, root / "streams")
        return case, end, faults(case, end)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def describe(number: int, case: Case, end: Ending, wrong: list[str]) -> str:
    """An input and its ending for a failure's message."""
    words = json.dumps(case.command or case.words, ensure_ascii=True)[:600]
    lines = [
        f"input {number} ({kind_of(number)}: {case.note})",
        f"  {words}",
        f"  ended: {ending_name(case, end)}",
    ]
    lines += [f"  FAULT {text}" for text in wrong]
    return "\n".join([*lines, *(f"  | {line[:300]}" for line in (end.out + end.err).splitlines()[-6:])])


def _main() -> None:
    endings = {}
    with prepared() as (root, seeds):
        for argument in sys.argv[1:]:
            first, _, last = argument.partition("-")
            for number in range(int(first), int(last or first) + 1):
                try:
                    case, end, wrong = check(number, root, seeds)
                except Exception:
                    print("MAKER", number, traceback.format_exc())
                    continue
                endings[number] = ending_name(case, end)
                if wrong or not last:
                    print(describe(number, case, end, wrong), flush=True)
    print(table(endings))


if __name__ == "__main__":
    _main()
