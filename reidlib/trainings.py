"""One rendering or training of a sweep, as another process does it; it imports no more than it needs."""

from __future__ import annotations

from pathlib import Path

from reidlib import experiments
from reidlib.conditions import Condition, evaluate_under_all, open_condition
from reidlib.execution import Execution


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


def render_condition(condition: Condition, size: str, device: str) -> None:
    """The embedded benchmark's test images under a condition, unless they are there."""
    open_condition(condition, size, device=experiments.rendering_device(device), progress=False)
