"""Execute the numbered notebooks without a browser and write a report.

The folder of a notebook in the report contains ``notebook.ipynb`` (the executed copy), ``index.html`` (its
page), ``result.json`` and figures (written by the notebook) and ``status.json`` (written last).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from reidlib.errors import InputError, check_choice, count_noun
from reidlib.files import exclusive_lock, writing_mend
from reidlib.reports import notebook
from reidlib.reports.notebook import Source
from reidlib.reports.pages.index import Live, read_object, write_index
from reidlib.reports.processes import Memory, Pool, Task, local_pool
from reidlib.reports.scheduler import Display, Job, Session

__all__ = ["Outcome", "Plan", "Task", "reproduce", "run_tasks", "select"]

# A pool on other machines; it is connected when the context is entered.
Cluster = AbstractContextManager[Pool]


@dataclass(frozen=True)
class Plan:
    """Which notebooks to run, how, and where to write the report.

    Args:
        notebooks: The notebooks' files, at least one, with different names.
        profile: The value of each notebook's parameter ``profile``, such as "quick".
        out: The report's folder.
        jobs: Notebooks and tasks at a time. None: on a cluster one for each worker; on this machine one for
            each core, at most four; on a GPU one.
        force: Whether unchanged notebooks run again.
        parameters: The user's parameters by name; a notebook gets those that it declares. A ``Path`` is made
            absolute.
        inputs: Fingerprints of other data that the notebooks read, such as a benchmark's files.
        inputs_by_parameter: Fingerprints of data that only notebooks with a parameter of this name read.
        command: The command line, which the report shows.
        neutral_parameters: More parameters of the notebooks, which do not change their results.
        memory: Returns what each piece of work needs of this machine's memory; called only if there is work.

    Raises:
        InputError: If the values contradict each other, or a parameter cannot be written as JSON.
    """

    notebooks: tuple[Path, ...]
    profile: str
    out: Path
    jobs: int | None = None
    force: bool = False
    parameters: dict = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    inputs_by_parameter: dict[str, str] = field(default_factory=dict)
    command: str = ""
    neutral_parameters: dict = field(default_factory=dict)
    memory: Callable[[], Memory] = Memory

    def __post_init__(self):
        if not self.notebooks:
            raise InputError("a plan needs at least one notebook", "none", "select a notebook")
        names = [path.stem for path in self.notebooks]
        if len(set(names)) < len(names):
            raise InputError(
                "every notebook of a plan has its own name", ", ".join(names), "name each notebook once"
            )
        if self.jobs is not None and self.jobs < 1:
            raise InputError(
                "at least one notebook must run at a time", f"jobs {self.jobs}", "give 1 or more"
            )
        if reserved := {"profile", "out"} & self.parameters.keys():
            raise InputError(
                "profile and out are set by the plan, not among its parameters",
                ", ".join(sorted(reserved)),
                "give them as profile= and out= of the plan",
            )
        # Relative paths do not hold in a notebook, whose working directory is another one.
        absolute = {
            name: str(value.expanduser().absolute()) if isinstance(value, Path) else value
            for name, value in self.parameters.items()
        }
        object.__setattr__(self, "parameters", absolute)
        for name, value in absolute.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"parameter {name} must be a number, text, truth value, list or path",
                    repr(value),
                    "pass a value of one of these types",
                ) from error


@dataclass(frozen=True)
class Outcome:
    """Names of notebooks by their final state.

    Attributes:
        done: Executed by this call.
        skipped: Unchanged, and so not executed again.
        failed: Ended with an error.
        blocked: Not run, because a notebook that they depend on failed.
        failed_tasks: Names of the tasks that ended with an error.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]
    blocked: tuple[str, ...]
    failed_tasks: tuple[str, ...] = ()


def select(numbers: Iterable[str | int], folder: Path) -> tuple[Path, ...]:
    """Select notebooks of a folder by number or name.

    Args:
        numbers: Numbers (``20`` or ``"20"``) or names (``"20_train_jlml"``); none: all notebooks.
        folder: The folder of the numbered notebooks.

    Returns:
        The notebooks' files in the order of their numbers.

    Raises:
        InputError: If the folder contains no numbered notebook, or a number or name is unknown.
    """
    notebooks = notebook.sorted_by_number(folder.glob("*.ipynb"))
    if not notebooks:
        raise InputError(
            "notebooks are numbered files such as 20_train_jlml.ipynb",
            f"none in {folder}",
            "run from a clone of the project",
        )
    selected: set[Path] = set()
    for number in map(str, numbers):
        name = number.removesuffix(".ipynb")
        matches = [
            path
            for path in notebooks
            if path.stem == name or (name.isdecimal() and notebook.notebook_number(path) == int(name))
        ]
        if not matches:
            raise InputError(
                "a notebook is chosen by its number or name",
                repr(number),
                f"choose from {', '.join(path.stem for path in notebooks)}",
            )
        selected.update(matches)
    return tuple(path for path in notebooks if path in selected or not selected)


def reproduce(
    plan: Plan,
    *,
    prepare: Callable[[tuple[Source, ...]], Sequence[Task] | None] | None = None,
    cluster: Cluster | None = None,
    progress: bool = True,
) -> Outcome:
    """Run the notebooks that have changed and write the report.

    Args:
        plan: The notebooks, their parameters and the report's folder.
        prepare: Called once before any work starts, with the notebooks that will run, if there are any;
            returns the tasks, each of which names the notebooks that wait for it.
        cluster: A context manager that returns a pool, such as ``reports.cluster.dask_pool``. It replaces
            the processes of this machine, and is entered only if a notebook has to run.
        progress: Whether to print the counts and the report's location (to standard output), and a line when
            a notebook or task starts or ends, and what is running (to standard error).

    Returns:
        The names of the notebooks by their final state, and of the failed tasks.

    Raises:
        InputError: Before any work, if a notebook or parameter is wrong, the folder cannot be written or
            memory does not allow as many jobs; later, if the disk is full.
        KeyboardInterrupt: After Ctrl-C, when all kernels have stopped; its message says how to continue.
    """
    out = plan.out.expanduser().absolute()
    sources = {path.stem: notebook.read_source(path) for path in plan.notebooks}
    _check_parameters(plan, sources.values())
    digests = notebook.result_digests(plan.inputs, sources, lambda source: _inputs_of(plan, source))
    current = {name for name in sources if _unchanged(out / name, digests[name])}
    waiting = tuple(name for name in sources if plan.force or name not in current)
    display = Display(enabled=progress)
    display.result(
        f"{count_noun(len(sources), 'notebooks')}, profile {plan.profile}: {len(waiting)} to run, "
        f"{len(sources) - len(waiting)} unchanged"
    )
    if not waiting:
        write_index(out)
        display.result(f"report: {out / 'index.html'}")
        return Outcome((), tuple(sources), (), ())
    jobs = [
        Job(
            sources[name],
            _injected(plan, sources[name], out, plan.parameters | plan.neutral_parameters),
            digests[name],
            plan.command,
        )
        for name in waiting
    ]
    states = run_tasks(
        lambda: (prepare and prepare(tuple(sources[name] for name in waiting))) or (),
        out,
        jobs=plan.jobs,
        device=plan.parameters.get("device", "auto"),
        memory=Memory() if cluster else plan.memory(),
        notebooks=jobs,
        cluster=cluster,
        display=display,
    )
    tasks = [name for name in states if name not in sources]

    def in_state(state: str, names: Iterable[str] = waiting) -> tuple[str, ...]:
        return tuple(name for name in names if states[name] == state)

    outcome = Outcome(
        in_state("done"),
        tuple(name for name in sources if name not in waiting),
        in_state("failed"),
        in_state("blocked"),
        in_state("failed", tasks),
    )
    failed_tasks = count_noun(len(outcome.failed_tasks), "tasks")
    display.result(
        f"{len(outcome.done)} done, {len(outcome.skipped)} unchanged, {len(outcome.failed)} failed, "
        f"{len(outcome.blocked)} not run" + (f", {failed_tasks} failed" if outcome.failed_tasks else "")
    )
    display.result(f"report: {out / 'index.html'}")
    return outcome


def run_tasks(
    make_tasks: Callable[[], Sequence[Task]],
    out: Path,
    *,
    jobs: int | None,
    device: str,
    memory: Memory,
    notebooks: Sequence[Job] = (),
    cluster: Cluster | None = None,
    display: Display | None = None,
) -> dict[str, str]:
    """Run tasks, and each notebook after its tasks; return their final states by name."""
    # ``out`` is the report's folder, which gets the tasks' logs.
    memory.check(jobs)
    other = "choose another folder with --out" if notebooks else ""  # trainings alone have no such option
    _probe(out, other)
    with (
        exclusive_lock(out / ".lock", on_wait=lambda: _refuse(out, other)),
        cluster or nullcontext() as cluster_pool,
    ):
        display = display or Display()
        with _preparing(out, notebooks):
            if notebooks:
                display.line(f"{out / 'index.html'} shows each page when it is finished, and what is coming")
            tasks = make_tasks()
        if not tasks and not notebooks:
            return {}
        imports = [f"import {task.function.__module__}" for task in tasks]
        # torch imports it in a training, when that makes its optimiser, which takes seconds.
        imports += ["import torch._dynamo"] if tasks else []
        imports += [statement for job in notebooks for statement in job.source.imports]
        imports = list(dict.fromkeys(imports))
        workers = cluster_pool or local_pool(len(tasks) + len(notebooks), jobs, device, memory, imports)
        pool = replace(workers, capacity=lambda: min(jobs or sys.maxsize, workers.capacity()))
        try:
            session = Session(out, notebooks, tasks, pool, display)
            if tasks:
                text = f"tasks to be done: {len(tasks)}"
                display.line(f"{text}; at a time: {pool.capacity()}{session.time_left()}")
            return session.run()
        except OSError as error:
            raise _unwritable(out, error, other) from error
        finally:
            workers.stop()


@contextmanager
def _preparing(out: Path, jobs: Sequence[Job]) -> Iterator[None]:
    """Write an index of the notebooks that are going to run; after an error, restore the earlier one."""
    index = out / "index.html"
    earlier = index.read_bytes() if index.is_file() else None
    if jobs:
        statuses = {job.source.name: job.status("waiting") for job in jobs}
        lines = ["Images are prepared, and the trainings are counted."]
        write_index(out, Live(dict.fromkeys(statuses, "waiting"), lines, jobs[0].command, statuses))
    try:
        yield
    except BaseException:
        if jobs and earlier is None:
            index.unlink(missing_ok=True)
        elif earlier is not None:
            index.write_bytes(earlier)
        raise


def _refuse(out: Path, other: str) -> None:
    mend = " or ".join(filter(None, ("wait until the other has ended", other)))
    raise InputError("one command at a time writes to a report's folder", out, mend)


def _check_parameters(plan: Plan, sources: Iterable[Source]) -> None:
    """Refuse a parameter that no notebook declares, of which papermill would only warn."""
    declared = frozenset().union(*(source.parameters for source in sources))
    known = sorted(declared - {"out"})
    for name in plan.parameters:
        check_choice(f"a parameter of these notebooks is one of {', '.join(known)}", name, known)


def _inputs_of(plan: Plan, source: Source) -> dict:
    """Return what changes a notebook's result, but for its text and the environment."""
    own = {name: value for name, value in plan.inputs_by_parameter.items() if name in source.parameters}
    return _injected(plan, source, Path(), plan.parameters) | ({"inputs": own} if own else {})


def _injected(plan: Plan, source: Source, out: Path, parameters: dict) -> dict:
    declared = {name: value for name, value in parameters.items() if name in source.parameters}
    return {"profile": plan.profile, "out": str(out / source.name), **declared}


def _unchanged(folder: Path, digest: str) -> bool:
    """Return whether a notebook's result is complete and has this digest, and all of its runs are present."""
    status = read_object(folder / "status.json")
    runs = read_object(folder / "result.json").get("runs") or []
    return (
        status.get("state") == "done"
        and status.get("digest") == digest
        and all((folder / name).is_file() for name in ("notebook.ipynb", "index.html", "result.json"))
        and not any("missing" in run for run in runs)
        and all(Path(run["folder"]).is_dir() for run in runs if run.get("folder"))
    )


def _probe(out: Path, other: str) -> None:
    """Check that the report can be written, before hours of work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(out, error, other) from error


def _unwritable(out: Path, error: OSError, other: str) -> InputError:
    mends = dict.fromkeys(filter(None, (writing_mend(out, error, other), other)))
    return InputError(
        "the report's folder must be writable and its disk not full",
        f"{out} ({error.strerror or error})",
        ", or ".join(mends),
    )
