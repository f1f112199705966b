"""Many trainings in one queue: of the notebooks, of the papers' tables, or of a learning curve."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from reidlib.cli.suite import (
    folders_by_name,
    pretraining_folders,
    report_folder,
    suite_setup,
    warn_of_deviations,
)
from reidlib.errors import InputError, check_choice, count_noun

if TYPE_CHECKING:
    from reidlib.experiments import Setup
    from reidlib.reports.processes import Task

logger = logging.getLogger("reidlib")


def train_all(arguments: argparse.Namespace) -> int:
    """Train every row that a notebook shows, with each seed."""
    from reidlib import files
    from reidlib.experiments.rows import EXPERIMENTS
    from reidlib.reports.notebook import read_source
    from reidlib.reports.reproduce import select
    from reidlib.reports.tasks import METRIC_TASK, tasks

    # With set fields no notebook would find the runs, and rows would become equal that differ in these.
    refused = ("seed", "set", "validate", "pretrain", "compile", "curve")
    if given := [f"--{name}" for name in refused if getattr(arguments, name)]:
        rule = "`train all` trains the rows as notebooks compare them, with the seeds 0 to N - 1 of --seeds"
        raise InputError(rule, ", ".join(given), "leave that out, or name one row in place of all")
    _check_single("all")
    setup = suite_setup(arguments)
    if arguments.folder:
        return _train_tables(arguments, setup)
    if arguments.trials:
        rule, value = "--trials chooses partitions of the papers' tables", "no --folder"
        raise InputError(rule, value, "give the benchmarks' folders with --folder")
    if not setup.data_root:
        setup.check_data_folder()
    notebooks = [read_source(path) for path in select((), files.notebooks())]
    rows = [name for name in EXPERIMENTS if any(name in notebook.trainings for notebook in notebooks)]
    trainings = len(rows) * setup.seeds

    def make_tasks() -> list[Task]:
        warn_of_deviations([], setup)
        missing = tasks(notebooks, setup)
        left = sum(task.kind in rows for task in missing)
        counts = f"{count_noun(len(rows), 'rows')}, {count_noun(setup.seeds, 'seeds')}, {setup.profile.name}"
        text = f"{counts}: {trainings - left} of {trainings} trainings are finished, {left} left"
        scored = sum(task.kind == METRIC_TASK for task in missing)
        further = (
            [count_noun(perturbed, "perturbed factors")]
            if (perturbed := len(missing) - left - scored)
            else []
        )
        further += [f"{METRIC_TASK}{count_noun(scored, 'runs')}"] if scored else []
        logger.info(text + (f", then {' and '.join(further)}" if further else ""))
        return missing

    failed = _failed_tasks(make_tasks, arguments, setup)
    sets = [f"{name}: failed" for name in failed if name.startswith(("perturbed ", METRIC_TASK))]
    print(f"{trainings} trainings, {len(failed) - len(sets)} failed", *sets, f"runs: {setup.runs}", sep="\n")
    return 1 if failed else 0


def _train_tables(arguments: argparse.Namespace, setup: Setup) -> int:
    """Train the rows of the papers' tables on every partition of the given folders."""
    from reidlib.analysis import benchmark_tables
    from reidlib.reports.tasks import benchmark_tasks

    if setup.benchmark != "synthetic" or setup.data_root:
        rule = "the papers' tables are trained on the folders of --folder"
        raise InputError(rule, f"--benchmark {setup.benchmark}", "leave --benchmark and --data-root out")
    folders = folders_by_name(arguments.folder)
    benchmark_tables.check_folders(folders)
    tables = benchmark_tables.specifications()
    of_all = next((number for name, number in reversed(arguments.trials) if not name), 0)
    trials = {name: int(of_all) for name in tables}
    for name, number in arguments.trials:
        if name:
            check_choice(f"--trials names a benchmark of a table: {', '.join(tables)}", name, tables)
            trials[name] = number
    refused = benchmark_tables.unreadable_benchmarks(folders)
    remaining: list[Task] = []

    def make_tasks() -> list[Task]:
        remaining.extend(benchmark_tasks(folders, setup, trials=trials, refused=refused))
        for specification, reason in refused.items():
            logger.warning(f"note: without {specification}: {reason}")
        logger.info(
            f"the papers' tables, {setup.profile.name}: {count_noun(len(remaining), 'trainings')} left"
        )
        return remaining

    failed = _failed_tasks(make_tasks, arguments, setup)
    print(f"{len(remaining)} trainings, {len(failed)} failed", f"runs: {setup.runs}", sep="\n")
    return 1 if failed or refused else 0


def train_curve(arguments: argparse.Namespace) -> int:
    """Train a row on fewer persons, and fewer images of each, from each start."""
    from reidlib.reports.tasks import curve_tasks

    refused = ("seed", "set", "validate", "compile", "folder", "trials")
    if given := [f"--{name}" for name in refused if getattr(arguments, name)]:
        rule = "--curve trains a row with its own values and the seeds 0 to N - 1 of --seeds"
        raise InputError(rule, ", ".join(given), "leave that out, or train one size without --curve")
    _check_single(f"{arguments.model} --curve")
    setup = suite_setup(arguments)
    if not setup.data_root:
        setup.check_data_folder()
    others = pretraining_folders(arguments)
    warn_of_deviations(others, setup)
    missing: list[Task] = []

    def make_tasks() -> list[Task]:
        refused: dict[str, str] = {}
        missing.extend(curve_tasks(arguments.model, setup, others, refused=refused))
        for specification, reason in refused.items():
            logger.warning(f"note: without {specification}: {reason}")
        logger.info(f"learning curve of {arguments.model}: {count_noun(len(missing), 'trainings')} left")
        return missing

    failed = _failed_tasks(make_tasks, arguments, setup)
    print(f"{len(missing)} trainings, {len(failed)} failed", f"runs: {setup.runs}", sep="\n")
    return 1 if failed else 0


def _check_single(model: str) -> None:
    """Raise InputError under torchrun: a queue of trainings starts its own processes."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        mend = "give the command without torchrun, or name one row in place of all"
        raise InputError(f"`train {model}` starts its own processes", "torchrun", mend)


def _failed_tasks(
    make_tasks: Callable[[], list[Task]], arguments: argparse.Namespace, setup: Setup
) -> list[str]:
    """Run tasks as the command says, and return the names of those that failed."""
    from reidlib.reports.reproduce import run_tasks
    from reidlib.reports.tasks import training_memory

    states = run_tasks(
        make_tasks,
        report_folder(arguments),
        jobs=arguments.jobs,
        device=arguments.device,
        memory=training_memory(setup),
    )
    return [name for name, state in states.items() if state == "failed"]
