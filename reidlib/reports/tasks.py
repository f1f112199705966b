"""The missing trainings of the notebooks, as tasks that several processes share.

The last six functions do the work in another process, which needs no notebook packages.
"""

from __future__ import annotations

import contextlib
import re
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from reidlib import files
from reidlib.data.readers import load_together
from reidlib.errors import InputError
from reidlib.experiments import perturbations
from reidlib.experiments.evaluate import is_scored
from reidlib.experiments.evidence import Evidence
from reidlib.experiments.metric_study.kept import kept_scores, score_run
from reidlib.experiments.obtain import FAILURES, TrainingPlan, obtain, plan_chain, plan_training, run_name
from reidlib.experiments.rows import EXPERIMENTS, Perturbation, all_perturbations
from reidlib.experiments.setup import Setup
from reidlib.memory import available_memory
from reidlib.reports.processes import Memory, Task
from reidlib.training.runs import Run, configuration_hash, find

if TYPE_CHECKING:
    from reidlib.analysis.learning_curves import Point
    from reidlib.reports.notebook import Source

METRIC_TASK = "learnt metrics of "  # how the name of such a task begins
# GiB of a training's process. Those of "full" and "paper" are estimates; the others were measured on a CPU.
_USUAL_MEMORY = {"smoke": 0.9, "quick": 1.1, "full": 8.0, "photographs": 2.2, "paper": 12.0}


def measured(setup: Setup, quantity: str) -> dict[str, float]:
    """Return each row's median "seconds", or largest "memory" or "gpu_memory", of its finished runs."""
    device = setup.execution.torch_device.type
    numbers: dict[str, list[float]] = {}
    for name in EXPERIMENTS:
        beginning = run_name(name, setup.profile, setup.benchmark)
        for file in setup.runs.glob(f"{escape(beginning)}*/run.json"):
            information = files.find_json(file) or {}
            on_cpu = str(information.get("device")).startswith(f"{device},")
            number = information.get(quantity)
            # A name that goes on is of a run with set fields, or pretrained.
            own = re.fullmatch(r"\d+-[0-9a-f]{12}", file.parent.name.removeprefix(beginning))
            if own and isinstance(number, int | float) and on_cpu == (device != "cuda"):
                numbers.setdefault(name, []).append(number)
    # Beside other work a training takes many times as long: the longest tells nothing of the next one.
    choose = statistics.median if quantity == "seconds" else max
    return {name: choose(of_row) for name, of_row in numbers.items()}


def training_memory(setup: Setup) -> Memory:
    """Return what one training of the suite needs at most: as measured of each model, or an estimate."""
    device, usual = setup.execution.torch_device, _USUAL_MEMORY[setup.profile.name]
    on_gpu = device.type == "cuda"
    largest = dict.fromkeys((row.model for row in EXPERIMENTS.values()), 0.0)
    for name, mebibytes in measured(setup, "gpu_memory" if on_gpu else "memory").items():
        model = EXPERIMENTS[name].model
        largest[model] = max(largest[model], mebibytes * 2**20)
    needed = int(max(number or usual * 2**30 for number in largest.values()))
    source = "measured" if all(largest.values()) else f"estimated for {setup.profile.name}"
    available = torch.cuda.mem_get_info(device)[0] if on_gpu else available_memory()
    return Memory(needed, source, available)


def tasks(
    notebooks: Iterable[Source], setup: Setup, wanted: Mapping[str, Collection[int]] | None = None
) -> list[Task]:
    """Return tasks for the missing trainings of these notebooks, and then for further scores of the runs."""
    # ``wanted`` has the seeds by row; by default those of the setup, of every row. Trainings of the first
    # seed come before those of the next. A task for each perturbed factor renders its images once for all
    # runs, after their trainings. Each run that is scored by learnt metrics has a task for them.
    notebooks = tuple(notebooks)
    since = time.time()
    training_tasks: list[Task] = []
    metric_tasks: list[Task] = []
    seconds = measured(setup, "seconds")
    names: dict[tuple[str, int], str] = {}
    requests: dict[str, dict[tuple[str, int], list[Perturbation]]] = {}
    seeds = {*range(setup.seeds)} if wanted is None else {seed for row in wanted.values() for seed in row}
    for seed in sorted(seeds):
        for name in EXPERIMENTS:
            waiting = tuple(notebook.name for notebook in notebooks if name in notebook.trainings)
            if not waiting or (wanted is not None and seed not in wanted.get(name, ())):
                continue
            training = plan_training(name, setup.profile, setup.data, seed=seed)
            names[name, seed] = training.name
            run = _find(training, setup.runs)
            requested = [notebook.perturbations.get(name, ()) for notebook in notebooks]
            missing = [
                perturbation
                for perturbation in (all_perturbations() if setup.benchmark == "synthetic" else ())
                if any(under == "all" or perturbation.name in under for under in requested)
                and (run is None or perturbations.stored_scores(run, perturbation) is None)
            ]
            if run is None or run.has_weights:  # otherwise it cannot be evaluated here; its row says so
                for perturbation in missing:
                    # The unperturbed images are needed for occlusion, which leaves many as they are.
                    factor = "occlusion_share" if perturbation.is_default else perturbation.factor
                    requests.setdefault(factor, {}).setdefault((name, seed), []).append(perturbation)
            metrics = _missing_metrics(run, [each.metrics.get(name, ()) for each in notebooks])
            if metrics:
                metric_tasks.append(
                    Task(
                        f"{METRIC_TASK}{training.name}",
                        run_metrics,
                        (setup, name, seed, metrics, since),
                        tuple(notebook.name for notebook in notebooks if name in notebook.metrics),
                        METRIC_TASK,
                        after=(training.name,),
                        weight=0.5,  # our choice
                    )
                )
            if run is None or not is_scored(run, setup.data):
                arguments = (setup, name, seed)
                training_tasks.append(
                    Task(training.name, run_training, arguments, waiting, name, seconds.get(name))
                )
    waiting = tuple(notebook.name for notebook in notebooks if notebook.perturbations)
    perturbation_tasks = [
        Task(
            f"perturbed {factor}",
            run_perturbations,
            (setup, rows, since),
            waiting,
            "perturbed",
            after=tuple(names[row] for row in rows),
            weight=sum(map(len, rows.values())) / 16,  # our choice
        )
        for factor, rows in requests.items()
    ]
    return [*training_tasks, *metric_tasks, *perturbation_tasks]


def _missing_metrics(run: Run | None, requested: Iterable[Iterable[str]]) -> list[str]:
    """Return the learnt metrics by which a run, or one that will be trained, has yet to be scored here."""
    names = dict.fromkeys(metric for of_notebook in requested for metric in of_notebook)
    if run is None:
        return [*names]
    return [name for name in names if run.has_weights and kept_scores(run, name) is None]


def benchmark_tasks(
    folders: Mapping[str, str | Path],
    setup: Setup,
    *,
    trials: int | Mapping[str, int] = 0,
    refused: dict[str, str] | None = None,
) -> list[Task]:
    """Return tasks for the missing trainings of 42_benchmarks, given its parameters."""
    # ``trials``: for all benchmarks, or by specification. ``refused`` gets why a benchmark has no task.
    # Not at the top of the module: a training's process need not wait for pandas and scipy.stats.
    from reidlib.analysis import benchmark_runs, benchmark_tables

    # A benchmark that cannot be read or trained on has no task, and the notebook gives the reason.
    since = time.time()  # if a training fails that many others start from, only one of them tries it
    work: list[_Chain] = []
    for specification in benchmark_tables.specifications():
        if benchmark_tables.folder_of(specification, folders) is None:
            continue
        count = trials if isinstance(trials, int) else trials.get(specification, 0)
        try:
            chains = benchmark_runs.training_chains(specification, folders, setup, trials=count)
        except FAILURES as error:
            if refused is not None:
                refused[specification] = str(error)
            continue
        for (row, trial, seed), links in chains.items():
            try:
                links[-1].check_set()  # before the links that it starts from are trained
            except InputError as error:
                if refused is not None:
                    refused[f"{row} on {specification}"] = str(error)
                continue
            arguments = (setup, row, specification, trial, seed, folders, since)
            first = (setup, row, seed, folders, since)
            work.append(_Chain(row, links, (train_chain, arguments), (train_pretraining, first)))
    return _chain_tasks(work, setup, ("42_benchmarks",))


def curve_tasks(
    row: str,
    setup: Setup,
    others: Sequence[tuple[str, str]] = (),
    *,
    refused: dict[str, str] | None = None,
) -> list[Task]:
    """Return tasks for the missing trainings of a learning curve; ``others`` are benchmarks and folders."""
    from reidlib.analysis.learning_curves import curve_chains

    # Runs of the evidence in git count as finished; their start names a whole chain of configurations.
    sets = Evidence.read_all(setup.profile.name, benchmark=setup.specification[0])
    kept = {configuration_hash(run.configuration) for each in sets for run in each.runs.values()}
    since = time.time()
    work: dict[int, list[_Chain]] = {}
    chains = curve_chains(row, setup, load_together(others), refused=refused)
    for (point, seed), links in chains.items():
        arguments = (setup, row, others, point, seed, since)
        start = files.short_name(files.safe_name(point.start), 80) if point.start else ""
        if configuration_hash(links[-1].configuration.to_json()) not in kept:
            last, first = ((train_curve, (*arguments, first)) for first in (False, True))
            work.setdefault(seed, []).append(_Chain(row, links, last, first, start))
    return [task for of_seed in work.values() for task in _chain_tasks(of_seed, setup)]


class _Chain(NamedTuple):
    """Trainings of a row, each starting from the last, and the tasks of the last one and of those before."""

    row: str
    links: Sequence[TrainingPlan]
    task: tuple[Callable, tuple]  # function and arguments
    earlier: tuple[Callable, tuple]
    start: str = ""  # where a row has several, for the task's name


def _chain_tasks(chains: Iterable[_Chain], setup: Setup, notebooks: tuple[str, ...] = ()) -> list[Task]:
    """Return tasks for the missing trainings of chains; those that others start from come first."""
    pretraining_tasks: dict[str, Task] = {}
    training_tasks: list[Task] = []
    by_step: dict[str, float | None] = {}
    for row, (*earlier, last), of_last, of_earlier, start in chains:
        if _is_complete(last, setup.runs):
            continue
        if row not in by_step:
            by_step[row] = _seconds_per_step(setup, row)

        def task(
            training: TrainingPlan,
            work: tuple[Callable, tuple],
            row: str = row,
            after: tuple[str, ...] = (),
        ) -> Task:
            # Trainings of a row on sets of other sizes are of other kinds: time goes by steps.
            steps, speed = training.num_steps, by_step[row]
            seconds = steps * speed if speed else None
            return Task(
                training.name, *work, notebooks, f"{row}, {steps} steps", seconds, after, steps / 1000
            )

        before = [training for training in earlier if not _is_complete(training, setup.runs)]
        pretraining_tasks |= {training.name: task(training, of_earlier) for training in before}
        names = tuple(training.name for training in before)
        named = last._replace(name=f"{last.name} from {start}") if start else last
        training_tasks.append(task(named, of_last, after=names))
    return [*pretraining_tasks.values(), *training_tasks]


def _seconds_per_step(setup: Setup, row: str) -> float | None:
    """Return the median of the mean durations of a step in a row's finished runs, on any benchmark."""
    cuda = setup.execution.torch_device.type == "cuda"
    speeds = []
    for file in setup.runs.glob(f"{escape(row)}-{setup.profile.name}-*/run.json"):
        information = files.find_json(file) or {}
        seconds, steps = (information.get(name) for name in ("seconds", "steps"))
        if seconds and steps and str(information.get("device")).startswith("cpu") != cuda:
            speeds.append(seconds / steps)
    return statistics.median(speeds) if speeds else None


def _find(training: TrainingPlan, runs: Path | None) -> Run | None:
    try:
        return find(training.configuration.to_json(), runs or files.runs())
    except InputError:
        return None  # a damaged folder: its training reports that


def _is_complete(training: TrainingPlan, runs: Path | None) -> bool:
    run = _find(training, runs)
    return run is not None and (training.benchmark.training_only or is_scored(run, training.benchmark))


def run_training(setup: Setup, name: str, seed: int) -> None:
    """Find or train the run of a row and a seed."""
    setup.obtain(name, seed)


def run_perturbations(
    setup: Setup, requests: Mapping[tuple[str, int], list[Perturbation]], since: float
) -> None:
    """Find or train the runs of rows and seeds, and evaluate them under perturbations."""
    missing: dict[Run, list[Perturbation]] = {}
    for (name, seed), of_run in requests.items():
        training = plan_training(name, setup.profile, setup.data, seed=seed)
        with contextlib.suppress(*FAILURES):  # of a training that failed the row says so
            missing[obtain([training], since=since, **setup.obtain_options)] = of_run
    errors = perturbations.evaluate_perturbations(missing, setup.data, execution=setup.execution)
    for error in errors.values():
        raise error


def run_metrics(setup: Setup, name: str, seed: int, metrics: list[str], since: float) -> None:
    """Find or train the run of a row and a seed, and score it by learnt metrics."""
    training = plan_training(name, setup.profile, setup.data, seed=seed)
    try:
        run = obtain([training], since=since, **setup.obtain_options)
    except FAILURES:  # of a training that failed the row says so
        return
    # A metric that cannot be learnt has its reason in the notebooks.
    score_run(run, setup.data, metrics, execution=setup.execution)


def train_chain(
    setup: Setup,
    row: str,
    specification: str,
    trial: int,
    seed: int,
    folders: Mapping[str, str | Path],
    since: float,
) -> None:
    """Find or train the run of a row of the papers' tables, after the training that it starts from."""
    from reidlib.analysis import benchmark_tables

    benchmark = benchmark_tables.load_trial(specification, folders, trial)
    before = benchmark_tables.pretraining_stages(specification, folders)
    links = plan_chain(row, setup.profile, benchmark, before=before, seed=seed)
    obtain(links, runs=setup.runs, execution=setup.execution, since=since)


def train_pretraining(
    setup: Setup, row: str, seed: int, folders: Mapping[str, str | Path], since: float
) -> None:
    """Find or train the run that trainings on small benchmarks start from."""
    from reidlib.analysis import benchmark_tables

    benchmark = benchmark_tables.pretraining_benchmark(folders)
    assert benchmark is not None  # `benchmark_tasks` makes a task only if there is one
    links = plan_chain(row, setup.profile, benchmark, seed=seed)
    obtain(links, runs=setup.runs, execution=setup.execution, since=since, scorable=False)


def train_curve(
    setup: Setup,
    row: str,
    others: Sequence[tuple[str, str]],
    point: Point,
    seed: int,
    since: float,
    first: bool,
) -> None:
    """Find or train the run of a learning curve's point, or only the first one, from which it starts."""
    from reidlib.analysis.learning_curves import curve_chains

    links = curve_chains(row, replace(setup, seeds=seed + 1), load_together(others))[point, seed]
    obtain(
        links[:1] if first else links,
        runs=setup.runs,
        execution=setup.execution,
        since=since,
        scorable=not first,
    )
