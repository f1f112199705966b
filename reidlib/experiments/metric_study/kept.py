"""Scores of a run's full feature by L2 and by learnt metrics, kept with the run: ``metrics/NAME.json``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.errors import InputError, check_choice
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.metric_study import MetricScores, embed, score_metrics
from reidlib.experiments.rows import L2, LEARNT_METRICS
from reidlib.files import exclusive_lock, write_json
from reidlib.ranking.metrics import Scores
from reidlib.training.device import Execution
from reidlib.training.runs import Run, configuration_hash

logger = logging.getLogger("reidlib")

# Increase it if a metric gets other settings, or an entry is computed in another way.
FORMAT = 1


def kept_scores(run: Run, metric: str) -> dict | None:
    """Return a run's kept scores by a metric, or None without valid ones."""
    # Needs neither weights nor images. With weights, the scores must be those of these weights.
    scores = run.find(f"metrics/{metric}.json") or {}
    if scores | _header(run, metric) != scores or "full" not in scores.get("branches", {}):
        return None
    if run.has_weights and scores.get("network") != TrainedNetwork(run).key:
        return None
    return scores


def _header(run: Run, metric: str) -> dict:
    """Return the entries that identify a run's scores by a metric."""
    return {"format": FORMAT, "metric": metric, "data": run.configuration["data"]}


def score_run(
    run: Run,
    benchmark: Benchmark,
    metrics: Sequence[str] = LEARNT_METRICS,
    *,
    execution: Execution | None = None,
    on_unwritable: Callable[[InputError], object] | None = None,
) -> dict[str, dict | InputError]:
    """Return a run's scores by L2 and by learnt metrics; those that are missing are computed and kept.

    The metrics learn from the images that the network was trained on. L2 is that of the same features, on the
    same machine. Of several processes, one computes.

    Args:
        run: The run; weights are needed only for what is missing.
        benchmark: The benchmark that it was trained on.
        metrics: Names of ``LEARNT_METRICS``.
        execution: Device of the network, and whether progress is shown.
        on_unwritable: Called with the error if scores cannot be written; by default the error is raised.

    Returns:
        "L2", then each metric, with the content of ``metrics/NAME.json``: "seconds" to learn, "directions" in
        which images are compared, "settings", "notes" that were told while it learnt (not in older files),
        and "branches" as in ``scores.json``. Or with the error that says why there are no scores: the metric
        cannot be learnt, or the run has no weights.

    Raises:
        InputError: If a metric has another name, or scores cannot be written.
    """
    names = (L2, *dict.fromkeys(metrics))
    for name in names[1:]:
        check_choice(f"a learnt metric is one of {', '.join(LEARNT_METRICS)}", name, LEARNT_METRICS)

    def find() -> dict[str, dict | InputError]:
        return {name: scores for name in names if (scores := kept_scores(run, name))}

    if len(results := find()) < len(names):
        lock = run.folder.with_name(f".{configuration_hash(run.configuration)}.lock")
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # where nothing can be written, nobody waits
                stack.enter_context(exclusive_lock(lock, on_wait=lambda: _tell_waiting(run)))
            results = find()
            missing = [name for name in names if name not in results]
            for name, result in _compute(run, benchmark, missing, execution):
                if not isinstance(result, InputError):
                    _keep(run, name, result, on_unwritable)
                results[name] = result
    return {name: results[name] for name in names}


def _tell_waiting(run: Run) -> None:
    logger.warning(f"{run.folder.name}: another process works on this run; waiting")


def _compute(
    run: Run, benchmark: Benchmark, missing: Sequence[str], execution: Execution | None
) -> Iterable[tuple[str, dict | InputError]]:
    """Yield the scores of what is missing, or the error."""
    if not missing:
        return
    try:
        network = TrainedNetwork.for_benchmark(benchmark, run, execution)
        features, key = embed(benchmark, network), network.key
    except InputError as error:
        yield from ((name, error) for name in missing)
        return
    for name, result in score_metrics(features, [name for name in missing if name != L2]):
        if name not in missing:
            continue
        if isinstance(result, InputError):
            yield name, result
            continue
        assert result.trapezoid is not None
        both = {"step": result.scores.to_dict(), "trapezoid": result.trapezoid.to_dict()}
        yield (
            name,
            _header(run, name)
            | {
                "network": key,
                "settings": repr(result.metric) if result.metric else "",
                "seconds": round(result.seconds, 3),
                "directions": result.directions,
                "notes": list(result.notes),
                "query_person_ids": benchmark.query.person_ids.tolist(),
                "branches": {"full": both},
            },
        )


def _keep(run: Run, name: str, scores: dict, on_unwritable: Callable[[InputError], object] | None) -> None:
    try:
        write_json(run.folder / "metrics" / f"{name}.json", scores)
    except InputError as error:
        if on_unwritable is None:
            raise
        on_unwritable(error)


def as_metric_scores(content: dict) -> MetricScores:
    """Return kept scores as ``score_metrics`` yields them, without the metric itself."""
    step, trapezoid = (_read(content["branches"]["full"][kind]) for kind in ("step", "trapezoid"))
    notes = tuple(content.get("notes", ()))
    return MetricScores(step, content["seconds"], content["directions"], None, trapezoid, notes)


def _read(content: dict) -> Scores:
    """Return scores from the values of ``Scores.to_dict``."""
    arrays = {
        "cmc": {int(rank): share for rank, share in content["cmc"].items()},
        "average_precision": np.array(content["average_precision"], dtype=float),  # None becomes NaN
        "first_match_rank": np.array(content["first_match_rank"]),
    }
    return Scores(**content | arrays)
