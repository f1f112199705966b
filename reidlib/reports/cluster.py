"""The workers of a Dask cluster as a pool of processes.

Needs the extra ``cluster``. A scheduler and its workers are started by the user, for instance with
``dask scheduler`` and, on every machine, ``dask worker ADDRESS --nworkers 4 --nthreads 1``. They see the same
files as the command. Numerical libraries use as many threads as ``OMP_NUM_THREADS`` says where a worker is
started; Dask sets it to one.
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
from typing import TYPE_CHECKING

from reidlib.errors import InputError
from reidlib.reports.notebook import environment_digest
from reidlib.reports.processes import STOPPED, Pool, apart

if TYPE_CHECKING:
    from distributed import Client

_TOKEN = ".cluster-"


@contextmanager
def connected(
    address: str,
    *,
    out: Path,
    shared: Iterable[Path] = (),
    files: Iterable[Path] = (),
    timeout: float = 10.0,
    patience: float = 30.0,
    say: Callable[[str], None] = print,
) -> Iterator[Pool]:
    """The workers of the scheduler at ``address``, as many as there are at present.

    out, shared: folders that the workers must see as this machine does; they are made if they are missing.
    files: what else they must see. timeout: seconds for the scheduler to answer. patience: seconds for a
    first worker to come, of which ``say`` tells.

    Work that nobody waits for any longer is stopped. When workers come or go, their number changes; what a
    lost one was doing is done again by another.

    Raises InputError where there is no such scheduler or no worker, where a worker that is there has
    several threads, another version of this package or of what it stands on, or does not see the files; the
    pool's capacity raises it when the scheduler has gone for good.
    """
    try:
        import distributed
        from distributed.comm.addressing import parse_address, parse_host_port
        from distributed.utils import silence_logging_cmgr
    except ImportError as error:
        raise InputError(
            "a cluster needs the package distributed", "none", "pip install 'reidlib[cluster]'"
        ) from error
    with ExitStack() as stack:
        # The library's chatter about lost and closed connections stays out of the display.
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        try:
            # Asked first: a client that cannot read its address is loud when it goes.
            parse_host_port(parse_address(address)[1])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of versions: what matters is refused below
                client = distributed.Client(address, timeout=timeout, set_as_default=False)
        except (OSError, ValueError, TypeError) as error:  # its own type of timeout is an OSError
            raise InputError(
                "a Dask scheduler answers at the given address",
                f"{address} ({type(error).__name__})",
                "start one with `dask scheduler` and give the address that it prints",
            ) from error
        stack.callback(client.close)
        _await_worker(client, address, patience, say)
        for worker, threads in client.nthreads().items():
            if threads > 1:
                raise InputError(
                    "a worker does one thing at a time",
                    f"{worker} with {threads} threads",
                    "start workers with --nthreads 1, and --nworkers N for N of them on a machine",
                )
        for stale in out.glob(f"{_TOKEN}*"):
            shutil.rmtree(stale, ignore_errors=True)  # of a command that was killed
        requirements = environment_digest(), stack.enter_context(_token(out))
        with ExitStack() as at_first:
            tokens = [at_first.enter_context(_token(folder)) for folder in shared]
            _check_workers(client, (*requirements, *tokens, *map(str, files)))
        start = partial(client.get_executor(pure=False).submit, _on_worker, *requirements)
        yield Pool(start, lambda: _count(client, address))


def _token(folder: Path) -> TemporaryDirectory:
    """A folder whose name nobody can have seen before, for as long as it is needed."""
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
    try:
        client.run_on_scheduler(_is_here)
    except Exception as error:
        raise InputError(
            "the scheduler has this version of reidlib, too",
            f"{client.scheduler.address} ({type(error).__name__}: {error})",
            "start it again in the environment of the workers",
        ) from error
    try:
        problems = client.run(_unfit, *requirements, on_error="return")
    except (ImportError, AttributeError, OSError) as error:  # what runs there is without this module
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


def _is_here() -> bool:
    """On the scheduler, which unpickles the names of this module's functions."""
    return True


@lru_cache(maxsize=8)
def _unfit(digest: str, *files: str) -> str | None:
    """On a worker: why it cannot do this command's work, or None. Asked once by each process of a worker."""
    if environment_digest() != digest:
        return _OTHER_VERSION
    missing = [file for file in files if not Path(file).exists()]
    return f"which does not see {missing[0]}" if missing else None


def _on_worker(digest: str, token: str, *work) -> str | None:
    """On a worker, which may have come after the first check: do work that can be told to stop.

    Dask cannot end a running call. It marks what nobody wants any longer, be it cancelled or its client gone,
    and a worker that is sent away or has lost its scheduler waits for what it has begun.
    """
    from distributed import Reschedule, Status, get_worker

    worker = get_worker()
    if problem := _unfit(digest, token):
        return f"given to {worker.address}, {problem}"
    task = worker.state.tasks[worker.get_current_task()]

    def stopping() -> bool:
        return task.state == "cancelled" or worker.status not in (Status.running, Status.paused)

    result = apart(*work, stopping)
    if result == STOPPED:
        raise Reschedule  # to another worker, if anybody still wants it
    return result


def _count(client: Client, address: str) -> int:
    if client.status not in ("running", "connecting"):
        raise InputError(
            "the scheduler stays where it is until the work is done",
            f"none at {address} any longer",
            "start it and its workers again, then the same command: finished work is kept",
        )
    try:
        return sum(client.nthreads().values()) if client.status == "running" else 0
    except (OSError, TimeoutError):  # lost at this moment; the client tries to find it again
        return 0
