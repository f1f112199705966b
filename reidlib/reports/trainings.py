"""One rendering or training of a sweep, as another process does it; it imports no more than it needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from reidlib.analysis import benchmark_tables
from reidlib.data import load
from reidlib.data.registry import parse
from reidlib.experiments import obtain as experiments
from reidlib.experiments.perturbations import Condition, evaluate_under_all, open_condition
from reidlib.training.device import Execution


def train(
    name: str,
    seed: int,
    profile: str,
    benchmark: str,
    data_root: str | Path | None,
    runs: Path,
    device: str,
    under: tuple[Condition, ...],
) -> None:
    """One training, evaluated, also under changed conditions; whatever is there already is kept."""
    execution = Execution(device=device, progress=False)
    data = experiments.open_benchmark(profile, benchmark, data_root, device=device)
    one = experiments.configuration(name, profile, data, seed=seed)
    title = experiments.run_name(name, profile, data, seed)
    run = experiments.obtain(one, data, name=title, runs=runs, execution=execution)
    evaluate_under_all(run, under, data, execution=execution)


def train_chain(
    row: str,
    specification: str,
    trial: int,
    seed: int,
    folders: Mapping[str, str],
    profile: str,
    runs: Path,
    device: str,
    since: float,
) -> None:
    """One training for the papers' tables, with the one before it where there is such a one, evaluated."""
    name, options = parse(specification)
    benchmark = load(name, benchmark_tables.folder_of(specification, folders), trial=trial, **options)
    links = experiments.chain(
        row, profile, benchmark, before=benchmark_tables.before(specification, folders), seed=seed
    )
    execution = Execution(device=device, progress=False)
    experiments.obtain_chain(links, runs=runs, execution=execution, since=since)


def train_before(
    row: str, seed: int, folders: Mapping[str, str], profile: str, runs: Path, device: str, since: float
) -> None:
    """The training that those on small benchmarks start from. since: see ``runs.find_or_train``."""
    links = experiments.chain(row, profile, benchmark_tables.pretraining(folders), seed=seed)
    execution = Execution(device=device, progress=False)
    experiments.obtain_chain(links, runs=runs, execution=execution, since=since)


def render_condition(condition: Condition, size: str, device: str) -> None:
    """The embedded benchmark's test images under a condition, unless they are there."""
    open_condition(condition, size, device=experiments.rendering_device(device), progress=False)
