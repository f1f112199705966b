"""A piece of work in a process of its own, which ends when whoever started it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reidlib.errors import InputError

# Seconds between two looks at a process, and those that it gets to end when asked: enough for a training's
# step and its checkpoint, or for a kernel's end.
_LOOK = 0.2
_GRACE = 15.0
# What `apart` returns for work that it was told to stop.
STOPPED = "stopped"
# More at once would need more memory than a machine of so many cores usually has.
_MOST = 4
# Beyond it somebody's whole data would travel in an error.
_LONGEST = 2000


class Failure(Exception):
    """A failure whose message says everything; its type is not shown."""


@dataclass(frozen=True)
class Task:
    """Work that notebooks would otherwise do themselves, one after another, such as a training.

    name: shown, and the name of its log. function: importable, called as ``function(*arguments)`` in another
    process; what it returns is dropped. notebooks: names of those that wait until it has ended, well or
    badly. Raises InputError for a name that is no file name and a function that cannot be imported.
    """

    name: str
    function: Callable[..., object]
    arguments: tuple = ()
    notebooks: tuple[str, ...] = ()

    def __post_init__(self):
        if not re.fullmatch(r"[\w+=,@ -][\w+=,@. -]*", self.name):
            raise InputError("a task's name is a file name too", repr(self.name), "use letters and digits")
        module = getattr(self.function, "__module__", None)
        name = getattr(self.function, "__qualname__", repr(self.function))
        found = getattr(sys.modules.get(module), name, None)
        if found is not self.function or module == "__main__":
            raise InputError(
                "a task's function can be imported by another process",
                f"{module}.{name}",
                "define it at the top level of a module",
            )


@dataclass(frozen=True)
class Work:
    """A call, and the process in which it is made.

    call: an importable function and its arguments, pickled, so that nobody on the way (a cluster's scheduler)
    has to import them; what the function returns is dropped. environment: added to that of whoever starts
    the process. threads: limit for numerical libraries, unless the environment sets one already; None for
    all cores. log: what the process prints, kept only if the work fails.
    """

    name: str
    call: bytes
    environment: dict[str, str]
    threads: int | None
    log: Path


def one_line(name: str, message: str) -> str:
    """An error as ``name: first line of its message``."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", message).splitlines() if line.strip()]
    return (f"{name}: {lines[0]}" if lines else name)[:_LONGEST]


class Processes(ThreadPoolExecutor):
    """An executor here: threads, each of which watches over one process (`apart`) and can be told to stop."""

    def __init__(self, at_a_time: int):
        super().__init__(at_a_time)
        self._stopping = threading.Event()

    def submit(self, function: Callable, /, *arguments) -> Future:
        return super().submit(function, *arguments, self._stopping.is_set)

    def stop(self) -> None:
        """End all processes; returns when they have ended."""
        self._stopping.set()
        self.shutdown(wait=True, cancel_futures=True)


@dataclass(frozen=True)
class Pool:
    """Where work runs.

    executor: gets `apart` and its work. capacity: how many pieces it can do at a time at present. threads:
    for the numerical libraries of each. stop: end what is running, and return when it has ended if that can
    be known.
    """

    executor: Executor
    capacity: Callable[[], int]
    threads: int | None = None
    stop: Callable[[], None] = lambda: None


def pool_here(pieces: int, jobs: int | None, device: str, executor: Executor | None) -> Pool:
    """So many pieces of work on this machine, ``jobs`` at a time; None: as many as fit.

    device: on which they compute, as in `Execution`; a GPU is for one at a time. executor: given by the
    user instead of new threads.
    """
    at_a_time = min(pieces, jobs or _MOST)
    if at_a_time > 1 and jobs is None:
        from reidlib.training.device import Execution  # torch takes seconds to import

        on_gpu = Execution(device=device).torch_device.type != "cpu"
        at_a_time = 1 if on_gpu else min(at_a_time, _cores())
    threads = max(1, _cores() // at_a_time) if at_a_time > 1 else None
    if executor is not None:
        return Pool(executor, lambda: at_a_time, threads)
    here = Processes(at_a_time)
    return Pool(here, lambda: at_a_time, threads, here.stop)


def _cores() -> int:
    """Cores this process may use; a container or batch system may grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def apart(work: Work, stopping: Callable[[], bool] = lambda: False) -> str | None:
    """Do work in a new process. Returns None or, in one line, why it failed; STOPPED if it was to stop.

    A process each, on a cluster's worker too: papermill changes the working directory, memory is given back,
    one that is killed takes nothing else with it, and a training has a main thread that signals reach.
    stopping: asked all the time; once true, the process is ended, by force if it does not end itself.
    """
    environment = {**os.environ, **work.environment}
    if work.threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(work.threads))
    # The path is that of this process, so that the new one finds the same modules in the same places.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
    work.log.parent.mkdir(parents=True, exist_ok=True)
    with work.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Ctrl-C at a terminal reaches the whole group; only the command decides what it means.
            start_new_session=True,
        )
    with process:
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended already: its exit status says why
                process.stdin.write(len(work.call).to_bytes(8) + work.call)
                process.stdin.flush()
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK)
                    break
                if stopping():
                    return STOPPED
            failure = _answer(process)
        finally:
            _end(process)
    if failure is None or not work.log.stat().st_size:
        work.log.unlink(missing_ok=True)
    return failure


def _answer(process: subprocess.Popen) -> str | None:
    """What an ended process said of its work."""
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"its process was ended by {name}" + (" (no memory left?)" if name == "SIGKILL" else "")
    try:
        return json.loads(process.stdout.read())
    except ValueError:
        return f"its process ended abruptly, with exit status {process.returncode}"


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> None:
    """The new process: read the call from standard input, make it, answer on standard output.

    Standard input stays open as long as the process that started this one lives: that is how its end is
    noticed, even if it was killed.
    """
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # whatever is printed goes to the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    call = calls.read(int.from_bytes(calls.read(8)))
    threading.Thread(target=_end_with, args=(calls,), daemon=True).start()
    failure = None
    try:
        function, arguments = pickle.loads(call)
        function(*arguments)
    except Failure as error:
        failure = one_line(str(error), "")
    except BaseException as error:  # an interrupted training, too, says what is to be done
        traceback.print_exc()
        failure = one_line(type(error).__name__, str(error))
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps(failure))
        answers.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a thread that somebody left behind must not keep the process


def _stop(*_) -> None:
    """SIGTERM becomes an exception, so that papermill stops its kernel.

    Only a training's loop listens to SIGINT here: it saves a checkpoint behind its step.
    """
    if callable(signal.getsignal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)
    else:
        raise SystemExit("stopped by SIGTERM")


def _end_with(calls: BinaryIO) -> None:
    calls.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(1)
