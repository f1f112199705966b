"""Notebooks on their way from waiting to done: in processes, in order, stopped when asked."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path

from reidlib.files import write_json
from reidlib.reporting import notebook as notebooks
from reidlib.reporting import report
from reidlib.reporting.display import Display, clock
from reidlib.reporting.notebook import Source


@dataclass(frozen=True)
class Job:
    """A notebook to run, the parameters to inject, and the hash of all that its result stands on."""

    source: Source
    parameters: dict
    digest: str


class Session:
    """Runs jobs, at most so many at a time, and records in ``out`` what becomes of each.

    A notebook that fails blocks those that depend on it and nothing else.
    """

    def __init__(self, out: Path, jobs: list[Job], at_a_time: int, display: Display):
        self._out, self._at_a_time, self._display = out, at_a_time, display
        self._jobs = {job.source.name: job for job in jobs}
        self._states: dict[str, str] = {}
        self._started: dict[str, float] = {}
        for name in self._jobs:
            (out / name).mkdir(exist_ok=True)
            self._settle(name, "waiting")

    def run(self, executor: Executor | None) -> dict[str, str]:
        """Run all that is waiting; return each notebook's final state."""
        running: dict[Future, str] = {}
        bystanders = set(multiprocessing.active_children())
        try:
            while "waiting" in self._states.values() or running:
                self._start_ready(running, executor)
                finished, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in finished:
                    # Dropped at once: a cluster re-runs finished work whose future is still held when
                    # a worker dies.
                    self._finish(running.pop(future), future)
                self._display.live(lambda: [self._running_line(name) for name in running.values()])
        except BaseException as error:
            _stop(set(multiprocessing.active_children()) - bystanders, running)
            if isinstance(error, KeyboardInterrupt):
                for name in running.values():
                    self._settle(name, "interrupted")
                report.write_index(self._out)
                self._display.line("")
                raise KeyboardInterrupt(
                    f"interrupted with {', '.join(running.values()) or 'nothing'} running; finished "
                    "notebooks are kept; run the same command again to go on"
                ) from error
            raise
        report.write_index(self._out)
        return self._states

    def _start_ready(self, running: dict[Future, str], executor: Executor | None) -> None:
        progressed = True
        while progressed:  # a notebook blocked now may block one seen earlier
            progressed = False
            for name in [name for name, state in self._states.items() if state == "waiting"]:
                needed = [self._states.get(other, "done") for other in self._jobs[name].source.depends_on]
                if "failed" in needed or "blocked" in needed:
                    lost = [
                        other
                        for other in self._jobs[name].source.depends_on
                        if self._states.get(other) in ("failed", "blocked")
                    ]
                    self._settle(name, "blocked", error=f"not run, because {', '.join(lost)} failed")
                    progressed = True
                elif set(needed) <= {"done"} and len(running) < self._at_a_time:
                    running[self._submit(name, executor)] = name

    def _submit(self, name: str, executor: Executor | None) -> Future:
        folder, job = self._out / name, self._jobs[name]
        # Nothing of an earlier execution may pass for this one's.
        for stale in ("result.json", "index.html", "notebook.ipynb", notebooks.PARTIAL, notebooks.PROGRESS):
            (folder / stale).unlink(missing_ok=True)
        self._started[name] = time.time()
        self._settle(name, "running")
        report.write_index(self._out)
        threads = max(1, _cores() // self._at_a_time) if self._at_a_time > 1 else None
        if executor is not None:
            return executor.submit(notebooks.execute, job.source.path, folder, job.parameters, threads)
        # A pool for each: a worker that is killed takes no sibling with it.
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        future = pool.submit(notebooks.execute_guarded, job.source.path, folder, job.parameters, threads)
        pool.shutdown(wait=False)
        return future

    def _finish(self, name: str, future: Future) -> None:
        folder = self._out / name
        failure = future.exception()
        error = f"{type(failure).__name__}: its process ended abruptly" if failure else future.result()
        (folder / notebooks.PROGRESS).unlink(missing_ok=True)
        if error is None and not report.read_json(folder / "result.json"):
            error = "it ended without writing result.json, which its last cell must write"
        if (folder / notebooks.PARTIAL).is_file():
            (folder / notebooks.PARTIAL).replace(folder / "notebook.ipynb")
            try:
                report.write_page(folder, title=self._jobs[name].source.title, error=error)
            except OSError:  # a full disk stops all
                raise
            except Exception as problem:  # a page that cannot be made must not stop the other notebooks
                error = error or f"its page could not be made: {type(problem).__name__}: {problem}"
        elif error is None:
            error = "its executed copy is missing"
        self._settle(name, "failed" if error else "done", error=error)
        report.write_index(self._out)

    def _settle(self, name: str, state: str, *, error: str | None = None) -> None:
        """Record a notebook's state; the status is the last file of a notebook that is written."""
        self._states[name] = state
        started = self._started.get(name)
        duration = round(time.time() - started, 1) if started and state != "running" else None
        when = datetime.fromtimestamp(started).astimezone().isoformat(timespec="seconds") if started else None
        status = {
            "notebook": name,
            "title": self._jobs[name].source.title,
            "state": state,
            "error": error,
            "profile": self._jobs[name].parameters["profile"],
            "parameters": self._jobs[name].parameters,
            "digest": self._jobs[name].digest,
            "started": when,
            "duration": duration,
        }
        write_json(self._out / name / "status.json", status)
        if state != "waiting":
            self._display.state(name, state, duration, error)

    def _running_line(self, name: str) -> str:
        cells = notebooks.progress(self._out / name)
        cell = f"  cell {min(cells[0] + 1, cells[1])}/{cells[1]}" if cells else ""
        try:
            inside = f"  ({(self._out / name / notebooks.PROGRESS).read_text()})"
        except OSError:
            inside = ""
        return f"{name}{cell}  {clock(time.time() - self._started[name])}{inside}"


def _cores() -> int:
    """Cores this process may use; a container or batch system may grant fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _stop(workers: set[BaseProcess], running: Iterable[Future]) -> None:
    """End workers, which end their kernels; by force those that do not."""
    for future in running:
        future.cancel()
    for worker in workers:
        worker.terminate()
    for worker in workers:
        worker.join(12)
        if worker.is_alive():
            worker.kill()
            worker.join()
