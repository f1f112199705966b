"""One rendering or training of a sweep, as another process does it; it imports no more than it needs."""

from __future__ import annotations

from collections.abc import Mapping

from reidlib.analysis import benchmark_tables
from reidlib.data import load
from reidlib.data.readers import parse
from reidlib.experiments.obtain import chain, obtain
from reidlib.experiments.perturbations import evaluate_under_all, open_condition
from reidlib.experiments.rows import Condition
from reidlib.experiments.setup import Setup
from reidlib.training.device import Execution


def train(setup: Setup, name: str, seed: int, under: tuple[Condition, ...]) -> None:
    """One training, evaluated, also under changed conditions; whatever is there already is kept."""
    run = setup.obtain(name, seed)
    evaluate_under_all(run, under, setup.data, execution=setup.execution)


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
    name, options = parse(specification)
    benchmark = load(name, benchmark_tables.folder_of(specification, folders), trial=trial, **options)
    before = benchmark_tables.before(specification, folders)
    links = chain(row, setup.profile, benchmark, before=before, seed=seed)
    obtain(links, runs=setup.runs, execution=setup.execution, since=since)


def train_before(setup: Setup, row: str, seed: int, folders: Mapping[str, str], since: float) -> None:
    """The training that those on small benchmarks start from. since: see ``runs.find_or_train``."""
    links = chain(row, setup.profile, benchmark_tables.pretraining(folders), seed=seed)
    obtain(links, runs=setup.runs, execution=setup.execution, since=since)


def render_condition(condition: Condition, size: str, device: str) -> None:
    """The embedded benchmark's test images under a condition, unless they are there."""
    open_condition(condition, size, device=Execution(device=device).rendering_device, progress=False)
