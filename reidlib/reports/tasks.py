"""Which trainings the notebooks want, and those that are missing as work that several processes can share."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from reidlib.analysis import ablations, benchmark_runs, benchmark_tables, claims
from reidlib.errors import InputError
from reidlib.experiments import perturbations
from reidlib.experiments.evaluate import scored
from reidlib.experiments.obtain import FAILURES, Link, link
from reidlib.experiments.rows import EXPERIMENTS, Condition, all_conditions
from reidlib.experiments.setup import Setup
from reidlib.reports import trainings
from reidlib.reports.reproduce import Task
from reidlib.training.runs import Run, find

_ALIGNMENT = claims.wanted(claims.of_notebook("36_box_misalignment"))
# Of each notebook: its trainings.
TRAININGS: dict[str, tuple[str, ...]] = {
    "20_train_jlml": ("jlml",),
    "21_train_pyramid": ("pyramid",),
    "30_ablation_losses": ablations.LOSSES.experiments,
    "31_ablation_shared_features": ablations.SHARED_FEATURES.experiments,
    "32_ablation_feature_selection": ablations.FEATURE_SELECTION.experiments,
    "33_ablation_part_counts": ablations.PART_COUNTS.experiments,
    "34_ablation_dynamic_training": ablations.DYNAMIC_TRAINING.experiments,
    "35_ablation_pyramid_levels": (
        *ablations.PYRAMID_LEVELS.experiments,
        *ablations.PYRAMID_LEVELS_SAME_RATE.experiments,
    ),
    "36_box_misalignment": (
        *(cell.experiment for cell in ablations.MISALIGNMENT.values()),
        *_ALIGNMENT[0],
    ),
    "42_benchmarks": benchmark_runs.OWN,
    "50_ranking_browser": ("jlml",),
    "51_part_attention": ("jlml", "pyramid"),
    "90_claims": claims.wanted()[0],
}
# And the conditions under which some of them are evaluated.
CONDITIONS: dict[str, dict[str, tuple[Condition, ...]]] = {
    "36_box_misalignment": _ALIGNMENT[1]
    | {cell.experiment: all_conditions() for cell in ablations.MISALIGNMENT.values()},
    "90_claims": claims.wanted()[1],
}


def tasks(notebooks: Iterable[str], setup: Setup) -> list[Task]:
    """The renderings and trainings that these notebooks would do and that are not done yet.

    Changed conditions are rendered first, so that no two evaluations wait for the same; then come the
    trainings with their evaluations, those of the first seed before those of the next.
    """
    wanted_by: dict[str, list[str]] = {name: [] for name in EXPERIMENTS}
    under: dict[str, dict[Condition, None]] = {name: {} for name in EXPERIMENTS}
    for notebook in notebooks:
        for name in dict.fromkeys(TRAININGS.get(notebook, ())):
            wanted_by[name].append(notebook)
        if setup.benchmark == "synthetic":
            for name, turned in CONDITIONS.get(notebook, {}).items():
                under[name] |= dict.fromkeys(turned)
    wanted_by = {name: waiting for name, waiting in wanted_by.items() if waiting}
    if not wanted_by:
        return []
    wanted, renderings = [], {}
    for seed in range(setup.seeds):
        for name, waiting in wanted_by.items():
            training = link(name, setup.profile, setup.data, seed=seed)
            run = _found(training, setup.runs)
            changed = tuple(c for c in under[name] if run is None or perturbations.found(run, c) is None)
            if run is not None and not run.has_weights:
                changed = ()  # cannot be evaluated here; its row says so
            if run is not None and scored(run, setup.data) and not changed:
                continue
            for condition in changed:
                if not condition.is_default:
                    renderings.setdefault(condition, []).extend(waiting)
            wanted.append(Task(training.name, trainings.train, (setup, name, seed, changed), tuple(waiting)))
    size = perturbations.size_of(setup.data) if renderings else ""
    first = [
        Task(
            f"rendering {condition.name}",
            trainings.render_condition,
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
            for of_trials in wanted.values():
                for links in (links for of_seeds in of_trials for links in of_seeds):
                    links[-1].check_set()  # else what comes before it would be trained for nothing
        except FAILURES:
            continue
        for row, of_trials in wanted.items():
            for trial, of_seeds in enumerate(of_trials):
                for seed, links in enumerate(of_seeds):
                    *earlier, last = links
                    if _done(last, setup.runs):
                        continue
                    for one in earlier:
                        if not _done(one, setup.runs):
                            arguments = (setup, row, seed, folders, since)
                            first[one.name] = Task(
                                one.name, trainings.train_before, arguments, ("42_benchmarks",)
                            )
                    arguments = (setup, row, specification, trial, seed, folders, since)
                    then.append(Task(last.name, trainings.train_chain, arguments, ("42_benchmarks",)))
    return [*first.values(), *then]


def _found(training: Link, runs: Path) -> Run | None:
    try:
        return find(training.wanted.to_json(), runs)
    except InputError:
        return None  # a damaged folder: its own training says so


def _done(training: Link, runs: Path) -> bool:
    run = _found(training, runs)
    return run is not None and scored(run, training.benchmark)
