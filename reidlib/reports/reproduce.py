"""The numbered notebooks, executed headless into a report.

A notebook's folder in the report holds ``notebook.ipynb`` (the executed copy), ``index.html`` (its page),
``result.json`` and figures (written by its last cell) and ``status.json`` (written last, by this module).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from reidlib.errors import InputError
from reidlib.files import alone
from reidlib.reports import notebook, pages
from reidlib.reports.notebook import Source
from reidlib.reports.processes import Pool, Task, pool_here
from reidlib.reports.scheduler import Display, Job, Session

__all__ = ["Outcome", "Plan", "Task", "reproduce", "select"]

# Where work runs instead of here; connected when entered.
Cluster = AbstractContextManager[Pool]


@dataclass(frozen=True)
class Plan:
    """What to run and where the report goes.

    out: the report's folder. jobs: notebooks and tasks at a time; None for as many as fit: on a cluster one
    for each of its workers, here one a core, at most four, and one on a GPU. force: run unchanged notebooks
    again too.
    parameters: given by the user, injected where a notebook declares them; a ``Path`` is made absolute.
    inputs: fingerprints of whatever else the notebooks read, such as a benchmark's files.
    command: the line that asked for this, for the report.
    settled: parameters injected where they are declared that do not change what a result says.

    Raises InputError for contradictory values.
    """

    notebooks: tuple[Path, ...]
    profile: str
    out: Path
    jobs: int | None = None
    force: bool = False
    parameters: dict = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    command: str = ""
    settled: dict = field(default_factory=dict)

    def __post_init__(self):
        if not self.notebooks:
            raise InputError("a plan needs at least one notebook", "none", "select some")
        names = [path.stem for path in self.notebooks]
        if len(set(names)) < len(names):
            raise InputError(
                "every notebook of a plan has its own name", ", ".join(names), "name each notebook once"
            )
        if self.jobs is not None and self.jobs < 1:
            raise InputError(
                "at least one notebook must run at a time", f"jobs {self.jobs}", "give 1 or more"
            )
        if own := {"profile", "out"} & self.parameters.keys():
            raise InputError(
                "profile and out are set by the plan, not among its parameters",
                ", ".join(sorted(own)),
                "use the plan's own fields",
            )
        # A notebook's working directory is not the user's.
        plain = {
            name: str(value.expanduser().absolute()) if isinstance(value, Path) else value
            for name, value in self.parameters.items()
        }
        object.__setattr__(self, "parameters", plain)
        for name, value in plain.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"parameter {name} must be a number, text, truth value, list or path",
                    repr(value),
                    "pass a plain value",
                ) from error


@dataclass(frozen=True)
class Outcome:
    """Names of notebooks by what became of them.

    done: executed now. skipped: unchanged, not executed again. failed: ended with an error. blocked: not
    run because a notebook they depend on failed. failed_tasks: names of the tasks that ended with an error.
    """

    done: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]
    blocked: tuple[str, ...]
    failed_tasks: tuple[str, ...] = ()


def select(numbers: Iterable[str | int], folder: Path) -> tuple[Path, ...]:
    """Notebooks by number (``20``, ``"20"``) or name (``"20_train_jlml"``), in order; none given: all.

    Raises InputError when the folder holds no numbered notebook or one asked for is unknown.
    """
    numbered = notebook.numbered(folder.glob("*.ipynb"))
    if not numbered:
        raise InputError(
            "notebooks are numbered files such as 20_train_jlml.ipynb",
            f"none in {folder}",
            "run from a clone of the project",
        )
    chosen: set[Path] = set()
    for wanted in map(str, numbers):
        name = wanted.removesuffix(".ipynb")
        found = [
            p
            for p in numbered
            if p.stem == name or (name.isdecimal() and notebook.notebook_number(p) == int(name))
        ]
        if not found:
            raise InputError(
                "a notebook is chosen by its number or name",
                repr(wanted),
                f"choose from {', '.join(path.stem for path in numbered)}",
            )
        chosen.update(found)
    return tuple(path for path in numbered if path in chosen or not chosen)


def reproduce(
    plan: Plan,
    *,
    prepare: Callable[[tuple[Source, ...]], Sequence[Task] | None] | None = None,
    cluster: Cluster | None = None,
    progress: bool = True,
) -> Outcome:
    """Run what has changed and write the report.

    prepare: called once before anything starts, with the notebooks that are to run, if there are any;
    returns tasks to be done first. cluster: gets the work instead of processes here; connected if anything
    is to run, such as `reports.cluster.connected`. progress: print one line per notebook and task as it
    starts and ends.

    Raises InputError before anything runs when a notebook or parameter is wrong or the folder cannot be
    written; KeyboardInterrupt, with a message that says how to go on, after stopping all kernels.
    """
    out = plan.out.expanduser().absolute()
    sources = {path.stem: notebook.read_source(path) for path in plan.notebooks}
    _check_parameters(plan, sources.values())
    digests = notebook.digests(
        plan.inputs, sources, lambda source: _injected(plan, source, Path(), plan.parameters)
    )
    current = {name for name in sources if _unchanged(out / name, digests[name])}
    waiting = tuple(name for name in sources if plan.force or name not in current)
    display = Display(enabled=progress)
    display.line(
        f"{len(sources)} notebooks, profile {plan.profile}: {len(waiting)} to run, "
        f"{len(sources) - len(waiting)} unchanged"
    )
    if not waiting:
        pages.write_index(out)
        display.line(f"report: {out / 'index.html'}")
        return Outcome((), tuple(sources), (), ())
    _probe(out)
    jobs = [
        Job(
            sources[name],
            _injected(plan, sources[name], out, plan.parameters | plan.settled),
            digests[name],
            plan.command,
        )
        for name in waiting
    ]
    with alone(out / ".lock", waiting=lambda: _refuse(out)), cluster or nullcontext() as connected:
        tasks = tuple((prepare and prepare(tuple(sources[name] for name in waiting))) or ())
        workers = connected or pool_here(
            len(tasks) + len(jobs), plan.jobs, plan.parameters.get("device", "auto")
        )
        pool = replace(workers, capacity=lambda: min(plan.jobs or sys.maxsize, workers.capacity()))
        if tasks:
            display.line(f"tasks to be done first: {len(tasks)}; at a time: {pool.capacity()}")
        try:
            states = Session(out, jobs, tasks, pool, display).run()
        except OSError as error:
            raise _unwritable(out, error) from error

    def having(state: str, names: Iterable[str] = waiting) -> tuple[str, ...]:
        return tuple(name for name in names if states[name] == state)

    outcome = Outcome(
        having("done"),
        tuple(name for name in sources if name not in waiting),
        having("failed"),
        having("blocked"),
        having("failed", [task.name for task in tasks]),
    )
    lost = len(outcome.failed_tasks)
    display.line(
        f"{len(outcome.done)} done, {len(outcome.skipped)} unchanged, {len(outcome.failed)} failed, "
        f"{len(outcome.blocked)} not run" + (f", {lost} task{'s' if lost > 1 else ''} failed" if lost else "")
    )
    display.line(f"report: {out / 'index.html'}")
    return outcome


def _refuse(out: Path) -> None:
    raise InputError(
        "one command at a time writes a report", out, "wait for the other, or choose another --out"
    )


def _check_parameters(plan: Plan, sources: Iterable[Source]) -> None:
    """papermill only warns of a parameter that a notebook does not declare."""
    declared = frozenset().union(*(source.declared for source in sources))
    if unknown := sorted(plan.parameters.keys() - declared):
        raise InputError(
            "a parameter must be declared by one of the notebooks",
            ", ".join(unknown),
            f"choose from {', '.join(sorted(declared - {'out'}))}, or other notebooks",
        )


def _injected(plan: Plan, source: Source, out: Path, parameters: dict) -> dict:
    declared = {name: value for name, value in parameters.items() if name in source.declared}
    return {"profile": plan.profile, "out": str(out / source.name), **declared}


def _unchanged(folder: Path, digest: str) -> bool:
    """Whether a notebook's result stands: of this digest, whole, its runs where they were, none missing."""
    status = pages.read_object(folder / "status.json")
    runs = pages.read_object(folder / "result.json").get("runs") or []
    return (
        status.get("state") == "done"
        and status.get("digest") == digest
        and all((folder / name).is_file() for name in ("notebook.ipynb", "index.html", "result.json"))
        and not any("missing" in run for run in runs)
        and all(Path(run["folder"]).is_dir() for run in runs if run.get("folder"))
    )


def _probe(out: Path) -> None:
    """Find out that the report cannot be written before hours of work, not after."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(bytes(2**20))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(out, error) from error


def _unwritable(out: Path, error: OSError) -> InputError:
    return InputError(
        "the report's folder must be writable and its disk not full",
        f"{out} ({error.strerror or error})",
        "free some space or choose another folder with --out, then run the same command again",
    )
