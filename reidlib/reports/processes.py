"""Work in a separate process, which ends when the process that started it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from reidlib.errors import InputError
from reidlib.text import printable_streams

# Seconds between two checks of a process.
_POLL_INTERVAL = 0.2
# Seconds that a process gets to end after SIGTERM: enough for a training's step and its checkpoint, or for a
# kernel's end.
_GRACE_PERIOD = 15.0
# What `run_in_process` returns for work that it was told to stop.
STOPPED = "stopped"
_NOT_STARTED = "its process was not started: the one that it is a copy of was ended by force"
# More processes would need more memory than a machine with that many cores usually has.
_MAX_PROCESSES = 4
# Fork servers that may be killed before a piece of work fails, which each of them would have started.
_STARTS = 3
# Characters of an error message, which may contain large data.
_MAX_MESSAGE = 2000


class Failure(Exception):
    """A failure whose message is complete without the exception's type."""


@dataclass(frozen=True)
class Task:
    """Work that is done before the notebooks that need it, such as a training.

    Args:
        name: The name that is displayed, also the file name of the task's log.
        function: A function at the top level of a module, called as ``function(*arguments)`` in another
            process. Its return value is ignored.
        arguments: The function's arguments, which can be pickled.
        notebooks: Names of the notebooks that wait until the task has ended, with or without an error.
        kind: Tasks of one kind take about the same time.
        seconds: The measured duration of an earlier task of this kind; None if there was none.
        after: Names of the tasks that end before this one starts, with or without an error.
        weight: About how long it takes in relation to a training, for a kind of which nothing is measured.

    Raises:
        InputError: If the name is no file name, or the function cannot be imported.
    """

    name: str
    function: Callable[..., object]
    arguments: tuple = ()
    notebooks: tuple[str, ...] = ()
    kind: str = ""
    seconds: float | None = None
    after: tuple[str, ...] = ()
    weight: float = 1.0

    def __post_init__(self):
        if not re.fullmatch(r"[\w+=,@ -][\w+=,@. -]*", self.name):
            raise InputError("a task's name is a file name too", repr(self.name), "use letters and digits")
        module = str(getattr(self.function, "__module__", None))
        name = getattr(self.function, "__qualname__", repr(self.function))
        importable = getattr(sys.modules.get(module), name, None)
        if importable is not self.function or module == "__main__":
            raise InputError(
                "a task's function can be imported by another process",
                f"{module}.{name}",
                "define it at the top level of a module",
            )


def error_summary(name: str, message: str) -> str:
    """Return an error as ``name: first line of its message``."""
    lines = [line.strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", message).splitlines() if line.strip()]
    return (f"{name}: {lines[0]}" if lines else name)[:_MAX_MESSAGE]


@dataclass(frozen=True)
class Pool:
    """Where work runs: on this machine (``local_pool``) or on a cluster (``cluster.dask_pool``)."""

    # Takes the first three arguments of `run_in_process`: ``partial(executor.submit, run_in_process)`` of any
    # executor of `concurrent.futures` whose workers see this machine's files.
    start: Callable[[bytes, dict[str, str], Path], Future]
    # How many pieces of work it can do at a time at present.
    capacity: Callable[[], int]
    # Threads of the numerical libraries in each process, unless the environment sets them; None: all cores.
    threads: int | None = None
    # Ends the running work and all processes, and returns when they have ended if that can be known.
    stop: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Memory:
    """What a piece of work needs, in bytes, how that is known, and how much there is; 0 if not known."""

    needed: int = 0
    source: str = ""
    available: int = 0

    @property
    def jobs(self) -> int:
        """How many pieces fit; one may always try."""
        return max(1, self.available // self.needed) if self.needed and self.available else sys.maxsize

    def check(self, jobs: int | None) -> None:
        """Raise InputError if ``jobs`` pieces at a time do not fit."""
        if jobs is not None and jobs > self.jobs:
            needed, available = (f"{size / 2**30:.1f} GiB" for size in (self.needed, self.available))
            raise InputError(
                "what runs at a time fits into memory",
                f"{jobs} jobs of {needed} each ({self.source}) in {available} of free memory",
                f"use --jobs {self.jobs} or less",
            )


def local_pool(
    pieces: int, jobs: int | None, device: str, memory: Memory = Memory(), imports: Sequence[str] = ()
) -> Pool:
    """Return a pool of processes on this machine for ``jobs`` pieces at a time; None: as many as fit."""
    # ``imports`` are import statements of the work, which are executed once for all pieces.
    at_a_time = min(pieces, jobs or min(_MAX_PROCESSES, memory.jobs))
    if at_a_time > 1 and jobs is None:
        at_a_time = min(at_a_time, usual_jobs(device, memory))
    threads = max(1, _cores() // at_a_time) if at_a_time > 1 else None
    executor, stopping, server = ThreadPoolExecutor(at_a_time), threading.Event(), _ForkServer(imports)
    # On macOS, the copy of a process cannot use all libraries.
    start_process = server.start if sys.platform == "linux" else _start_process

    def stop() -> None:
        stopping.set()
        executor.shutdown(cancel_futures=True)
        server.stop()

    def start(call: bytes, environment: dict[str, str], log: Path) -> Future:
        return executor.submit(work, call, environment, log, stopping.is_set, start_process)

    def work(*arguments) -> str | None:
        for _ in range(_STARTS):
            if (failure := run_in_process(*arguments)) != _NOT_STARTED:
                break
        return failure

    return Pool(start, lambda: at_a_time, threads, stop)


def usual_jobs(device: str, memory: Memory) -> int:
    """Return how many pieces of work run at a time if no number is given; a GPU computes one."""
    from reidlib.training.device import Execution  # torch takes seconds to import

    on_gpu = Execution(device=device).torch_device.type != "cpu"
    return 1 if on_gpu else min(_MAX_PROCESSES, memory.jobs, _cores())


def _cores() -> int:
    """Return the number of cores that this process may use, which a container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_process(environment: dict[str, str], errors: BinaryIO) -> subprocess.Popen:
    """Start a new interpreter for one piece of work."""
    return _start_interpreter("main()", environment, subprocess.PIPE, subprocess.PIPE, errors)


def _start_interpreter(
    call: str, environment: dict[str, str], stdin: int, stdout: int, stderr: int | BinaryIO
) -> subprocess.Popen:
    # With the path of this process, the new one finds the same modules.
    program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main, serve; {call}"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        # Ctrl-C on a terminal reaches the whole process group, but the command has to handle it.
        start_new_session=True,
    )


class _ForkServer:
    """A process that has imported what the work needs, which takes seconds, and is copied for each piece."""

    # It starts with the first piece, and again if it was killed. It ends when its socket is closed, also by
    # the end of this process.

    def __init__(self, imports: Sequence[str]):
        self._imports, self._lock = list(imports), threading.Lock()
        self._server: subprocess.Popen | None = None
        self._control = socket.socket()

    def start(self, environment: dict[str, str], errors: BinaryIO) -> _Copy:
        """Start a copy for one piece of work; the server's own environment is that of the first piece."""
        with self._lock:
            # A killed server's socket ends a moment before the server has an exit status. It never sends.
            if self._server is None or select.select([self._control], [], [], 0)[0]:
                if self._server is not None:
                    self._server.wait()
                self._control.close()
                self._control, served = socket.socketpair()
                with served:
                    streams = served.fileno(), subprocess.DEVNULL, subprocess.DEVNULL
                    self._server = _start_interpreter(f"serve({self._imports!r})", environment, *streams)
            return _Copy(self._control, environment, errors)

    def stop(self) -> None:
        """End the server; its copies go on."""
        self._control.close()
        if self._server is not None:
            self._server.kill()  # it may be importing
            self._server.wait()
            self._server = None


class _Copy(contextlib.ExitStack):
    """A copy of a fork server, used like ``subprocess.Popen``."""

    def __init__(self, control: socket.socket, environment: dict[str, str], errors: BinaryIO):
        super().__init__()
        self.returncode: int | None = None
        self.pid = 0  # until the server has made it
        (calls, to_calls), (from_answers, answers), (self._states, states) = os.pipe(), os.pipe(), os.pipe()
        self.callback(os.close, self._states)
        self.stdin = os.fdopen(to_calls, "wb")
        self.callback(self.terminate)
        self.stdout = self.enter_context(os.fdopen(from_answers, "rb"))
        with contextlib.suppress(ConnectionError):  # the server has just been killed
            socket.send_fds(control, [b"."], [calls, answers, errors.fileno(), states])
        for file in (calls, answers, states):
            os.close(file)
        content = json.dumps(environment).encode()
        with contextlib.suppress(BrokenPipeError):
            self.stdin.write(len(content).to_bytes(8) + content)

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, negative for a signal's number; TimeoutExpired if it takes longer."""
        while self.returncode is None:  # the copy's number comes first, then its status
            if not select.select([self._states], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a piece of work", timeout or 0)
            state = os.read(self._states, 8)
            if state and not self.pid:
                self.pid = int.from_bytes(state)
            else:  # nothing, if the process that waits for the copy was killed
                self.returncode = int.from_bytes(state, signed=True) if state else 1
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit status; None before the end."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def terminate(self) -> None:
        """Ask the copy to end."""
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()
        if self.poll() is None and not self.pid:
            self.returncode = 1  # its server is importing; a copy that is made now reads no call, and ends

    def kill(self) -> None:
        """End the copy by force."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def serve(imports: Sequence[str]) -> None:
    """In a fork server: execute the import statements, then copy this process until its socket is closed."""
    # As a kernel has it: matplotlib reads this when it is imported.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for statement in imports:
        with contextlib.suppress(BaseException):  # the work that needs it fails, and says why
            exec(statement, {})
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the copies' parents need not be waited for
    with socket.socket(fileno=0) as control:
        while files := socket.recv_fds(control, 1, 4)[1]:
            if not os.fork():
                _serve_one(control, *files)
            for file in files:
                os.close(file)
    os._exit(0)


def _serve_one(control: socket.socket, calls: int, answers: int, errors: int, states: int) -> None:
    """In a copy of the fork server: copy it again for the work, tell the number and the exit status, end."""
    control.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if not process:
        os.setsid()  # as for Popen
        for number, file in enumerate((calls, answers, errors)):
            os.dup2(file, number)
            os.close(file)
        os.close(states)
        main(copied=True)
    try:
        os.write(states, process.to_bytes(8))
        for file in (calls, answers, errors):
            os.close(file)
        os.write(states, os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]).to_bytes(8, signed=True))
    finally:
        os._exit(0)


def run_in_process(
    call: bytes,
    environment: dict[str, str],
    log: Path,
    stopping: Callable[[], bool] = lambda: False,
    start_process: Callable[[dict[str, str], BinaryIO], subprocess.Popen | _Copy] = _start_process,
) -> str | None:
    """Do work in a new process; return None, an error in one line, or ``STOPPED`` after ``stopping()``."""
    # Each piece of work has its own process, also on a cluster's worker: papermill changes the working
    # directory, the memory is released, a killed process ends no other work, and a training has a main thread
    # that signals reach.
    # `call` is an importable function with its arguments, pickled, so that a cluster's scheduler need not
    # import them. `environment` is added to that of this process. `log` gets what the process prints, and
    # stays only after a failure. Once `stopping()` is true, the process is ended, by force if necessary.
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as errors:
        process = start_process({**os.environ, **environment}, errors)
    with process:
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):  # it has ended, and its exit status says why
                process.stdin.write(len(call).to_bytes(8) + call)
                process.stdin.flush()
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL_INTERVAL)
                    break
                if stopping():
                    return STOPPED
            failure = _answer(process)
        finally:
            _end(process)
    if failure is None or not log.stat().st_size:
        log.unlink(missing_ok=True)
    return failure


def _answer(process: subprocess.Popen | _Copy) -> str | None:
    """Return the answer of a process that has ended: None or an error."""
    assert process.returncode is not None and process.stdout is not None
    if not process.pid:
        return _NOT_STARTED
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        return f"its process was ended by {name}" + (" (no memory left?)" if name == "SIGKILL" else "")
    try:
        return json.loads(process.stdout.read())
    except ValueError:
        return f"its process ended abruptly, with exit status {process.returncode}"


def _end(process: subprocess.Popen | _Copy) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_GRACE_PERIOD)
        except subprocess.TimeoutExpired:
            process.kill()


def main(*, copied: bool = False) -> None:
    """In the new process: read the call from standard input, make it, and answer on standard output."""
    # Standard input stays open as long as the process that started this one lives, so its end is noticed
    # even if it was killed.
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # all output goes to the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    if copied:
        os.environ.clear()
        os.environ.update(json.loads(calls.read(int.from_bytes(calls.read(8)))))
    call = calls.read(int.from_bytes(calls.read(8)))
    threading.Thread(target=_end_with, args=(calls,), daemon=True).start()
    failure = None
    try:
        with printable_streams():
            function, arguments = pickle.loads(call)
            function(*arguments)
    except Failure as error:
        failure = error_summary(str(error), "")
    except BaseException as error:  # the message of an interrupted training is reported, too
        traceback.print_exc()
        failure = error_summary(type(error).__name__, str(error))
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps(failure))
        answers.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # a remaining thread must not keep the process alive


def _stop(*_) -> None:
    """Turn SIGTERM into an exception, so that papermill stops its kernel."""
    # Only the loop of a training handles SIGINT here: it saves a checkpoint after the current step.
    if callable(signal.getsignal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)
    else:
        raise SystemExit("stopped by SIGTERM")


def _end_with(calls: BinaryIO) -> None:
    calls.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_PERIOD)
    os._exit(1)
