"""What there is to do, and where it is done."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from reidlib.errors import InputError
from reidlib.reports.notebook import Source
from reidlib.reports.processes import Processes

# More at once would need more memory than a machine of so many cores usually has.
_MOST = 4


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
class Job:
    """A notebook to run, the parameters to inject, the hash of all that its result stands on, the command."""

    source: Source
    parameters: dict
    digest: str
    command: str = ""


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
