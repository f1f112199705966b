"""The order in which tasks and notebooks run, and the record of their states."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass
from datetime import datetime
from math import inf
from pathlib import Path
from shutil import get_terminal_size
from typing import TextIO

from reidlib import files
from reidlib.errors import InputError, count_noun
from reidlib.files import write_json
from reidlib.progress import LOG_INTERVAL, progress_bar
from reidlib.reports import notebook
from reidlib.reports.notebook import Source
from reidlib.reports.pages.index import Live, clock, read_object, write_index
from reidlib.reports.pages.page import write_page
from reidlib.reports.processes import Pool, Task, error_summary

# Seconds between two checks of the running work.
_POLL_INTERVAL = 0.5
# What the system says of a full disk.
_FULL = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
# The folder of the tasks' logs in the report.
TASKS = "tasks"
# About how long a notebook takes in relation to a training, if no notebook has been measured.
_NOTEBOOK_WEIGHT = 0.25
# How many of the next pieces of work the index names.
_NEXT = 6


@dataclass(frozen=True)
class Job:
    """A notebook to run, its parameters, the digest of all that its result depends on, and the command."""

    source: Source
    parameters: dict
    digest: str
    command: str = ""

    def status(self, state: str, **values: object) -> dict:
        """Return the content of the notebook's ``status.json``."""
        names = ("error", "started", "duration")
        return {
            "notebook": self.source.name,
            "title": self.source.title,
            "state": state,
            "profile": self.parameters["profile"],
            "parameters": self.parameters,
            "digest": self.digest,
            "command": self.command,
            **{name: values.get(name) for name in names},
        }


class Display:
    """Prints results to standard output; each change of state and what is running, to standard error."""

    # On a terminal, the running work is one last line, which is overwritten. Elsewhere it is a line a minute,
    # without carriage returns.

    def __init__(self, *, enabled: bool = True, stream: TextIO | None = None):
        self._enabled, self._stream, self._logged = enabled, stream or sys.stderr, time.monotonic()
        self._last_line = progress_bar(
            bar_format="{desc}",
            file=self._stream,
            leave=False,
            ncols=get_terminal_size().columns,
            disable=not (enabled and self._stream.isatty()),
        )

    def line(self, text: str, *, file: TextIO | None = None) -> None:
        """Print a line that stays."""
        if self._enabled:
            self._last_line.clear()
            print(text, file=file or self._stream, flush=True)

    def result(self, text: str) -> None:
        """Print a line of the command's result to standard output."""
        self.line(text, file=sys.stdout)

    def show_running(self, running: Callable[[], list[str]]) -> None:
        """Show the running work; ``running`` returns short texts and is called only if they are due."""
        terminal = not self._last_line.disable
        if not terminal and not (self._enabled and time.monotonic() - self._logged >= LOG_INTERVAL):
            return
        self._logged = time.monotonic()
        text = " · ".join(running())
        if text and terminal:
            self._last_line.set_description_str(text[: get_terminal_size().columns - 1])
        elif text:
            self.line(text)


class Session:
    """Runs tasks and notebooks in a pool, and records the state of each notebook in ``out``."""

    # A notebook starts as soon as its tasks have ended; one that measures speed runs alone at the end. Tasks
    # start in the order of the notebooks that wait for them. A failed notebook blocks only those that depend
    # on it. A failed task blocks nothing: the notebooks mark what is missing.

    def __init__(self, out: Path, jobs: Sequence[Job], tasks: Sequence[Task], pool: Pool, display: Display):
        self._out, self._pool, self._display = out, pool, display
        self._jobs = {job.source.name: job for job in jobs}
        self._tasks = {task.name: task for task in tasks}
        if len(self._tasks) < len(tasks) or self._tasks.keys() & self._jobs.keys():
            raise InputError(
                "all tasks and notebooks have different names",
                ", ".join(task.name for task in tasks),
                "give each task and notebook its own name",
            )
        self._states = dict.fromkeys((*self._tasks, *self._jobs), "waiting")
        self._running: dict[Future, str] = {}
        self._started: dict[str, float] = {}
        self._durations: dict[str, float] = {}  # of what is done
        self._capacity = 0
        numbers = {name: number for number, name in enumerate(self._jobs)}
        # The first notebook that waits for a task; without notebooks, tasks run in their order.
        self._ranks = numbers | {
            task.name: min((numbers[name] for name in task.notebooks if name in numbers), default=-1)
            for task in tasks
        }
        self._index_time = -inf  # when the index was written; before all time if it has to be
        for name in self._jobs:
            (out / name).mkdir(exist_ok=True)
            self._set_state(name, "waiting")

    def run(self) -> dict[str, str]:
        """Run all waiting work and return the final state of each task and notebook by name."""
        try:
            while self._waiting() or self._running:
                self._capacity = self._pool.capacity()
                self._start_ready()
                if time.monotonic() - self._index_time >= LOG_INTERVAL:
                    self._write_index(running=True)
                self._collect()
                self._display.show_running(self._lines)
        except BaseException as error:
            self._stop()
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(
                    f"interrupted with {', '.join(self._running.values()) or 'nothing'} running; finished "
                    "work is kept; run the same command again to continue"
                ) from error
            raise
        self._write_index()
        with contextlib.suppress(OSError):  # logs of failed tasks stay
            (self._out / TASKS).rmdir()
        return self._states

    def _waiting(self) -> list[str]:
        return [name for name, state in self._states.items() if state == "waiting"]

    def _start_ready(self) -> None:
        for name in self._waiting():
            required = self._jobs[name].source.depends_on if name in self._jobs else ()
            if failed := [other for other in required if self._states.get(other) in ("failed", "blocked")]:
                self._set_state(name, "blocked", error=f"not run, because {', '.join(failed)} failed")
        while len(self._running) < self._capacity and (queue := self._queue()):
            self._running[self._submit(queue[0])] = queue[0]

    def _required(self, name: str) -> list[str]:
        """Return the tasks and notebooks that a piece of work needs."""
        if name in self._tasks:
            return [other for other in self._tasks[name].after if other in self._tasks]
        alone = [other for other, job in self._jobs.items() if job.source.alone]
        if name in alone:  # several of them run one after another
            return [other for other in self._states if other not in alone[alone.index(name) :]]
        tasks = [task.name for task in self._tasks.values() if name in task.notebooks]
        return tasks + [other for other in self._jobs[name].source.depends_on if other in self._jobs]

    def _unfinished(self, name: str) -> list[str]:
        """Return what a piece of work waits for."""
        return [other for other in self._required(name) if self._states[other] in ("waiting", "running")]

    def _queue(self) -> list[str]:
        """Return what can start now, in the order in which it does."""
        ready = [name for name in self._waiting() if not self._unfinished(name)]
        notebooks = [name for name in ready if name in self._jobs]
        tasks = sorted((name for name in ready if name in self._tasks), key=self._ranks.__getitem__)
        waiting = [name for name in self._waiting() if name in self._tasks]
        known = self._measured()
        seconds = {name: self._expected(name, known) or self._kind(name)[1] for name in waiting}
        longest = max((seconds[name] for name in tasks), default=0.0)
        if sum(seconds.values()) <= 2 * self._capacity * longest:
            tasks.sort(key=seconds.__getitem__, reverse=True)  # a long task that comes last would run alone
        # Pages come first, but one place is for the tasks of an earlier notebook.
        idle = self._capacity > 1 and not self._tasks.keys() & set(self._running.values())
        if idle and tasks and notebooks and self._ranks[tasks[0]] < self._ranks[notebooks[0]]:
            return [tasks[0], *notebooks, *tasks[1:]]
        return notebooks + tasks

    def _submit(self, name: str) -> Future:
        self._started[name] = time.time()
        self._log(name).unlink(missing_ok=True)
        self._progress(name).unlink(missing_ok=True)
        if name in self._jobs:
            folder, job = self._out / name, self._jobs[name]
            notebook.remove_outputs(folder)
            function, arguments = notebook.execute, (job.source.path, folder, job.parameters)
        else:
            function, arguments = self._tasks[name].function, self._tasks[name].arguments
            (self._out / TASKS).mkdir(exist_ok=True)
        self._set_state(name, "running")
        environment = {
            # The work uses this command's folders, on whatever machine it runs.
            "REIDLIB_HOME": str(files.home()),
            "REIDLIB_PROGRESS": str(self._progress(name)),
        }
        if self._pool.threads is not None and "OMP_NUM_THREADS" not in os.environ:
            environment["OMP_NUM_THREADS"] = str(self._pool.threads)
        call = pickle.dumps((function, arguments))
        return self._pool.start(call, environment, self._log(name))

    def _collect(self) -> None:
        """Wait a moment for work to end, and record its outcome."""
        # No future is kept after this: when a worker dies, a cluster repeats its finished work whose futures
        # still exist.
        if not self._running:
            if self._waiting():  # for the workers of a cluster, or for notebooks that are about to be blocked
                time.sleep(_POLL_INTERVAL)
            return
        finished, _ = wait(self._running, timeout=_POLL_INTERVAL, return_when=FIRST_COMPLETED)
        for future in finished:
            name = self._running.pop(future)
            try:
                failure = future.exception()
            except CancelledError:  # the connection to the cluster was lost, and may be back
                self._display.line(f"{name}  lost with the connection to the scheduler; it starts again")
                self._set_state(name, "waiting")
                continue
            error = error_summary(type(failure).__name__, str(failure)) if failure else future.result()
            self._progress(name).unlink(missing_ok=True)
            if name in self._jobs:
                self._finish(name, error)
            else:
                log = f" (see {self._log(name)})" if self._log(name).is_file() else ""
                self._set_state(name, "failed" if error else "done", error=error and error + log)
                # All others would fail, too.
                if full := next((text for text in _FULL if error and text in error), ""):
                    mend = "free some disk space and give the same command again: finished work is kept"
                    raise InputError("the disk has room for the trainings", f"{full}: {name}", mend)

    def _finish(self, name: str, error: str | None) -> None:
        """Write a notebook's page and record its final state."""
        folder = self._out / name
        if error is None and not read_object(folder / "result.json"):
            error = "it ended without writing result.json, which its last cell must write"
        if (folder / notebook.PARTIAL).is_file():
            (folder / notebook.PARTIAL).replace(folder / "notebook.ipynb")
            try:
                write_page(folder, title=self._jobs[name].source.title, error=error)
            except OSError:  # a full disk stops the whole command
                raise
            except Exception as problem:  # a failure of one page must not stop the other notebooks
                error = error or f"its page could not be made: {type(problem).__name__}: {problem}"
        elif error is None:
            error = "its executed copy is missing"
        self._set_state(name, "failed" if error else "done", error=error)

    def _write_index(self, *, running: bool = False) -> None:
        """Write the index; with ``running``, it says what is coming and reloads itself."""
        self._index_time = time.monotonic()
        if not self._jobs:  # trainings alone have no pages
            return
        if not running:
            write_index(self._out)
            return
        words = {name: self._word(name) for name in self._jobs}
        queue = self._queue()
        queue += sorted(set(self._waiting()) - set(queue), key=self._ranks.__getitem__)
        lines = [self._counts(), *(f"running: {self._running_line(name)}" for name in self._running.values())]
        if queue:
            more = f" and {len(queue) - _NEXT} more" if len(queue) > _NEXT else ""
            lines.append(f"next: {', '.join(queue[:_NEXT])}{more}")
        command = next(iter(self._jobs.values())).command
        write_index(self._out, Live(words, lines, command, {}))

    def _word(self, name: str) -> str:
        """Return what the index says of a notebook that waits or runs."""
        if self._states[name] != "waiting":
            return "running" if self._states[name] == "running" else ""
        missing, required = self._unfinished(name), self._required(name)
        if not missing:
            return "next"
        if self._jobs[name].source.alone:
            return "measures speed when all else is done"
        tasks = [other for other in missing if other in self._tasks]
        of = [other for other in required if other in self._tasks]
        if not tasks:
            return f"waiting for {', '.join(missing)}"
        return f"waiting for {len(tasks)} of {count_noun(len(of), 'tasks')}"

    def _set_state(self, name: str, state: str, *, error: str | None = None) -> None:
        """Record and print a state; the status of a notebook is the last of its files to be written."""
        self._states[name] = state
        self._index_time = -inf
        started = self._started.get(name) if state != "waiting" else None
        duration = round(time.time() - started, 1) if started and state != "running" else None
        if state == "done" and duration:
            self._durations[name] = duration
        start_time = (
            datetime.fromtimestamp(started).astimezone().isoformat(timespec="seconds") if started else None
        )
        if name in self._jobs:
            status = self._jobs[name].status(state, error=error, started=start_time, duration=duration)
            write_json(self._out / name / "status.json", status)
        if state != "waiting":
            elapsed = "" if duration is None else f"  {clock(duration)}"
            self._display.line(f"{name}  {state}{elapsed}" + (f"  {error}" if error else ""))

    def _stop(self) -> None:
        """Stop the running work and record that, if the disk is not full."""
        for future in self._running:
            future.cancel()
        self._pool.stop()
        with contextlib.suppress(OSError, InputError):
            for name in self._running.values():
                self._progress(name).unlink(missing_ok=True)
                self._set_state(name, "interrupted")
            self._write_index()
            self._display.line("")

    def _progress(self, name: str) -> Path:
        """Return the file in which long work writes its progress."""
        if name in self._jobs:
            return self._out / name / notebook.PROGRESS
        return self._out / TASKS / f"{name}.progress"

    def _log(self, name: str) -> Path:
        if name in self._jobs:
            return self._out / name / "process.log"
        return self._out / TASKS / f"{name}.log"

    def _lines(self) -> list[str]:
        """Return how much work there is and how long it takes, then a text for each running piece."""
        counts = [self._counts()]
        if not self._capacity:
            counts.append("no worker is connected")
        return counts + [self._running_line(name) for name in self._running.values()]

    def _counts(self) -> str:
        running, waiting = len(self._running), len(self._waiting())
        finished = len(self._states) - running - waiting
        return f"{finished} finished, {running} running, {waiting} waiting{self.time_left()}"

    def time_left(self) -> str:
        """Return how long all work takes by measured durations; empty if too little is known."""
        known, now = self._measured(), time.time()
        left_n = []
        for name in (*self._running.values(), *self._waiting()):
            seconds = self._expected(name, known)
            if not seconds:
                return ""
            since = self._started[name] if self._states[name] == "running" else now
            left_n.append(max(0.0, seconds - (now - since)))
        if not left_n:
            return ""
        seconds = max(*left_n, sum(left_n) / max(1, self._pool.capacity()))
        return f", about {clock(seconds)} left"

    def _kind(self, name: str) -> tuple[str, float]:
        """Return the kind of a piece of work and its weight."""
        task = self._tasks.get(name)
        return (task.kind, task.weight) if task else ("notebook", _NOTEBOOK_WEIGHT)

    def _measured(self) -> dict[tuple[str, float], float]:
        """Return the seconds of each kind of which something is known."""
        earlier, measured = {}, {}
        for name in self._states:
            task, seconds = self._tasks.get(name), self._durations.get(name, 0.0)
            running = task and self._states[name] == "running"
            if running and (left := re.search(r"(\d+) s left", self._progress_text(name))):
                seconds = time.time() - self._started[name] + int(left[1])
            if seconds:  # the longest, because a training that was continued took less
                measured[self._kind(name)] = max(seconds, measured.get(self._kind(name), 0.0))
            if task and task.seconds:
                earlier[self._kind(name)] = task.seconds
        return earlier | measured

    def _expected(self, name: str, known: dict[tuple[str, float], float]) -> float:
        """Return a piece of work's seconds by its kind, or by heavier kinds; 0 if that is not known."""
        # Light work says nothing about trainings: the durations of renderings were once taken for theirs.
        kind, weight = self._kind(name)
        rates = [seconds / other for (_, other), seconds in known.items() if other >= min(weight, 1.0)]
        return known.get((kind, weight)) or (weight * sum(rates) / len(rates) if rates else 0.0)

    def _running_line(self, name: str) -> str:
        cells = notebook.cell_progress(self._out / name) if name in self._jobs else None
        cell = f"  cell {min(cells[0] + 1, cells[1])}/{cells[1]}" if cells else ""
        progress = self._progress_text(name)
        elapsed = clock(time.time() - self._started[name])
        return f"{name}{cell}  {elapsed}" + (f"  ({progress})" if progress else "")

    def _progress_text(self, name: str) -> str:
        try:
            return self._progress(name).read_text(encoding="utf-8")
        except OSError:
            return ""
