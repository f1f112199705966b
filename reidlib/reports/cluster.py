"""The workers of a Dask cluster as a pool of processes.

This needs the extra ``cluster``. The user starts a scheduler and its workers, for instance with
``dask scheduler`` and, on every machine, ``dask worker ADDRESS --nworkers 4 --nthreads 1``. They must see the
same files as the command. Numerical libraries use ``OMP_NUM_THREADS`` threads of the worker's environment;
Dask sets it to one.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from reidlib.errors import InputError
from reidlib.reports.notebook import environment_digest
from reidlib.reports.processes import STOPPED, Pool, run_in_process

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("reidlib")

_TOKEN = ".cluster-"


@contextmanager
def dask_pool(
    address: str,
    *,
    out: Path,
    shared: Iterable[Path] = (),
    files: Iterable[Path] = (),
    timeout: float = 10.0,
    patience: float = 30.0,
    say: Callable[[str], None] = logger.warning,
) -> Iterator[Pool]:
    """Connect to a Dask scheduler and yield a pool of its present and future workers."""
    # out, shared: folders that the workers must see; they are created if they are missing. files: other files
    # that they must see. timeout: seconds for the scheduler to answer. patience: seconds for a first worker
    # to connect, which `say` announces.
    # Work whose future is cancelled or lost is stopped. The work of a lost worker is repeated by another.
    # Refused (InputError): no scheduler, no worker, and a worker with several threads, other versions of this
    # package or its dependencies, or without the files. `Pool.capacity` refuses a scheduler that has ended.
    try:
        import distributed
        from distributed.comm.addressing import parse_address, parse_host_port
        from distributed.utils import silence_logging_cmgr
    except ImportError as error:
        raise InputError(
            "a cluster needs the package distributed", "none", "pip install 'reidlib[cluster]'"
        ) from error
    with ExitStack() as stack:
        # Without the library's messages about lost and closed connections.
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        try:
            # Checked first: a client with an invalid address prints errors when it is deleted.
            parse_host_port(parse_address(address)[1])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about versions: relevant differences are refused below
                client = distributed.Client(address, timeout=timeout, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # Dask's own timeout is an OSError
            raise InputError(
                "a Dask scheduler answers at the given address",
                f"{address} ({type(error).__name__})",
                "start one with `dask scheduler` and give the address that it prints",
            ) from error
        stack.callback(client.close)
        _await_worker(client, address, patience, say)
        for worker, threads in cast(dict[str, int], client.nthreads()).items():
            if threads > 1:
                raise InputError(
                    "a worker has one thread",
                    f"{worker} with {threads} threads",
                    "start workers with --nthreads 1, and --nworkers N for N of them on a machine",
                )
        for stale in out.glob(f"{_TOKEN}*"):
            shutil.rmtree(stale, ignore_errors=True)  # from a command that was killed
        requirements = environment_digest(), stack.enter_context(_token(out))
        with ExitStack() as temporary:
            tokens = [temporary.enter_context(_token(folder)) for folder in shared]
            _check_workers(client, (*requirements, *tokens, *map(str, files)))
        start = partial(client.get_executor(pure=False).submit, _run_on_worker, *requirements)
        yield Pool(start, lambda: _num_workers(client, address))


def _token(folder: Path) -> TemporaryDirectory:
    """Return a temporary folder with a new name, which a worker sees only if it shares ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    return TemporaryDirectory(prefix=_TOKEN, dir=folder, ignore_cleanup_errors=True)


def _await_worker(client: Client, address: str, patience: float, say: Callable[[str], None]) -> None:
    if client.nthreads():
        return
    say(f"waiting up to {patience:.0f} s for a worker of {address}")
    try:
        client.wait_for_workers(1, timeout=patience)
    except TimeoutError as error:
        raise InputError(
            "a cluster has workers",
            f"none at {address} after {patience:.0f} s",
            f"start some with `dask worker {address} --nworkers N --nthreads 1`",
        ) from error


def _check_workers(client: Client, requirements: tuple[str, ...]) -> None:
    assert client.scheduler is not None  # it is connected
    try:
        client.run_on_scheduler(_check_import)
    except Exception as error:
        raise InputError(
            "the scheduler has the command's version of reidlib",
            f"{client.scheduler.address} ({type(error).__name__}: {error})",
            "start it again in the environment of the workers",
        ) from error
    try:
        problems = cast(dict, client.run(_mismatch, *requirements, on_error="return"))
    except (ImportError, AttributeError, OSError) as error:  # it lacks this module
        problems = {"a worker": f"{_OTHER_VERSION} ({type(error).__name__}: {error})"}
    for worker, problem in problems.items():
        if problem is not None:
            problem = f"{_OTHER_VERSION} ({problem})" if isinstance(problem, Exception) else problem
            raise InputError(
                "workers have the command's files and versions",
                f"{worker}, {problem}",
                "install the same there and share the folder (REIDLIB_HOME and --out choose it)",
            )


_OTHER_VERSION = "which has another version of reidlib, Python, torch or numpy"


def _check_import() -> bool:
    """On the scheduler: return True, which shows that it can import this module."""
    return True


@lru_cache(maxsize=8)
def _mismatch(digest: str, *files: str) -> str | None:
    """On a worker: return why it cannot do this command's work, or None; computed once in each process."""
    if environment_digest() != digest:
        return _OTHER_VERSION
    missing = [file for file in files if not Path(file).exists()]
    return f"which does not see {missing[0]}" if missing else None


def _run_on_worker(
    digest: str, token: str, call: bytes, environment: dict[str, str], log: Path
) -> str | None:
    """On a worker: check it, as it may be a later one, and do work that can be stopped."""
    # Dask cannot end a running call. It marks work whose future is cancelled or whose client has ended, and a
    # worker that is retired or has lost its scheduler waits for the work that it has begun.
    from distributed import Reschedule, Status, get_worker

    worker = get_worker()
    if problem := _mismatch(digest, token):
        return f"given to {worker.address}, {problem}"
    task = worker.state.tasks[worker.get_current_task()]

    def stopping() -> bool:
        return task.state == "cancelled" or worker.status not in (Status.running, Status.paused)

    result = run_in_process(call, environment, log, stopping)
    if result == STOPPED:
        raise Reschedule  # to another worker, if its result is still needed
    return result


def _num_workers(client: Client, address: str) -> int:
    if client.status not in ("running", "connecting"):
        raise InputError(
            "the scheduler runs until the work is done",
            f"none at {address} any longer",
            "start it and its workers again, then the same command: finished work is kept",
        )
    try:
        threads = cast(dict[str, int], client.nthreads())  # a coroutine only in an asynchronous client
        return sum(threads.values()) if client.status == "running" else 0
    except (OSError, TimeoutError):  # the connection is lost; the client tries to restore it
        return 0
