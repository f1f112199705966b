"""The trainings that notebooks want and that are missing, as work that several processes can share.

The last four functions are that work, done by another process, which needs no notebook packages.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reidlib.analysis import benchmark_runs, benchmark_tables
from reidlib.errors import InputError
from reidlib.experiments import perturbations
from reidlib.experiments.evaluate import scored
from reidlib.experiments.obtain import FAILURES, Link, chain, link, obtain
from reidlib.experiments.rows import EXPERIMENTS, Perturbation, all_perturbations
from reidlib.experiments.setup import Setup
from reidlib.reports.processes import Task
from reidlib.training.device import Execution
from reidlib.training.runs import Run, find

if TYPE_CHECKING:
    from reidlib.reports.notebook import Source


def tasks(notebooks: Iterable[Source], setup: Setup) -> list[Task]:
    """The renderings and trainings that these notebooks would do and that are not done yet.

    Changed conditions are rendered first, so that no two evaluations wait for the same; then come the
    trainings with their evaluations, those of the first seed before those of the next.
    """
    notebooks = tuple(notebooks)
    wanted, renderings = [], {}
    for seed in range(setup.seeds):
        for name in EXPERIMENTS:
            waiting = tuple(notebook.name for notebook in notebooks if name in notebook.trainings)
            if not waiting:
                continue
            training = link(name, setup.profile, setup.data, seed=seed)
            run = _found(training, setup.runs)
            turned = [notebook.perturbed.get(name, ()) for notebook in notebooks]
            changed = tuple(
                condition
                for condition in (all_perturbations() if setup.benchmark == "synthetic" else ())
                if any(names == "all" or condition.name in names for names in turned)
                and (run is None or perturbations.stored_scores(run, condition) is None)
            )
            if run is not None and not run.has_weights:
                changed = ()  # cannot be evaluated here; its row says so
            if run is not None and scored(run, setup.data) and not changed:
                continue
            for condition in changed:
                if not condition.is_default:
                    renderings.setdefault(condition, []).extend(waiting)
            wanted.append(Task(training.name, run_training, (setup, name, seed, changed), waiting))
    size = perturbations.size_of(setup.data) if renderings else ""
    first = [
        Task(
            f"rendering {condition.name}",
            render_condition,
            (condition, size, setup.device),
            tuple(dict.fromkeys(waiting)),
        )
        for condition, waiting in renderings.items()
        if not perturbations.is_rendered(condition, size)
    ]
    return [*first, *wanted]


def benchmark_tasks(folders: Mapping[str, str], setup: Setup, *, trials: int = 0) -> list[Task]:
    """The trainings on real benchmarks that 42_benchmarks would do and that are not done yet.

    folders, trials: as the notebook has them. Those that several others start from stand first; a benchmark
    that cannot be read or trained on has none, and the notebook says why.
    """
    since = time.time()  # of many that start from one training that fails, one is to try it
    first: dict[str, Task] = {}
    then = []
    for specification in benchmark_tables.specifications():
        if benchmark_tables.folder_of(specification, folders) is None:
            continue
        try:
            wanted = benchmark_runs.chains(specification, folders, setup, trials=trials)
            for links in wanted.values():
                links[-1].check_set()  # else what comes before it would be trained for nothing
        except FAILURES:
            continue
        for (row, trial, seed), (*earlier, last) in wanted.items():
            if _done(last, setup.runs):
                continue
            for one in earlier:
                if not _done(one, setup.runs):
                    arguments = (setup, row, seed, folders, since)
                    first[one.name] = Task(one.name, train_before, arguments, ("42_benchmarks",))
            arguments = (setup, row, specification, trial, seed, folders, since)
            then.append(Task(last.name, train_chain, arguments, ("42_benchmarks",)))
    return [*first.values(), *then]


def _found(training: Link, runs: Path) -> Run | None:
    try:
        return find(training.wanted.to_json(), runs)
    except InputError:
        return None  # a damaged folder: its own training says so


def _done(training: Link, runs: Path) -> bool:
    run = _found(training, runs)
    return run is not None and scored(run, training.benchmark)


def run_training(setup: Setup, name: str, seed: int, under: tuple[Perturbation, ...]) -> None:
    """One training, evaluated, also under changed conditions; whatever is there already is kept."""
    run = setup.obtain(name, seed)
    perturbations.evaluate_under_all(run, under, setup.data, execution=setup.execution)


def train_chain(
    setup: Setup,
    row: str,
    specification: str,
    trial: int,
    seed: int,
    folders: Mapping[str, str],
    since: float,
) -> None:
    """One training for the papers' tables, with the one before it where there is such a one, evaluated."""
    benchmark = benchmark_tables.load_trial(specification, folders, trial)
    before = benchmark_tables.before(specification, folders)
    links = chain(row, setup.profile, benchmark, before=before, seed=seed)
    obtain(links, runs=setup.runs, execution=setup.execution, since=since)


def train_before(setup: Setup, row: str, seed: int, folders: Mapping[str, str], since: float) -> None:
    """The training that those on small benchmarks start from. since: see ``runs.find_or_train``."""
    links = chain(row, setup.profile, benchmark_tables.pretraining(folders), seed=seed)
    obtain(links, runs=setup.runs, execution=setup.execution, since=since)


def render_condition(condition: Perturbation, size: str, device: str) -> None:
    """The embedded benchmark's test images under a condition, unless they are there."""
    perturbations.open_perturbed(
        condition, size, device=Execution(device=device).rendering_device, progress=False
    )
