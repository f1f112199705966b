"""Folders of runs with small files written by hand, for tests of tables and verdicts."""

from __future__ import annotations

import json
from pathlib import Path

from reidlib.analysis import ExperimentScores
from reidlib.analysis.claims.power import power, wanted
from reidlib.experiments.setup import MissingRun, Runs
from reidlib.training.runs import Run

QUERIES, PERSONS = 60, 20


def scores(precisions: dict[str, float], *, spread: float = 0.0) -> dict:
    """Return ``scores.json`` with a mean average precision for each branch, ± ``spread`` for each query."""
    branches = {}
    for branch, mean in precisions.items():
        values = [mean + spread * (1 if query % 2 else -1) for query in range(QUERIES)]
        kind = {
            "cmc": {str(rank): 0.5 for rank in (1, 5, 10, 20)},
            "mean_average_precision": sum(values) / QUERIES,
            "mean_inp": 0.5,
            "average_precision": values,
            "first_match_rank": [1 if query % 2 else 3 for query in range(QUERIES)],
        }
        branches[branch] = {"step": kind, "trapezoid": kind}
    return {
        "branches": branches,
        "query_person_ids": [query * PERSONS // QUERIES for query in range(QUERIES)],
    }


def run(folder: Path, precisions: dict[str, float], **keywords) -> Run:
    """Write a finished run without weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"data": "x", "benchmark": "market1501"}))
    information = {"device": "a device", "seconds": 10.0, "commit": "abc", "steps": 5}
    (folder / "run.json").write_text(json.dumps(information))
    (folder / "scores.json").write_text(json.dumps(scores(precisions, **keywords)))
    return Run(folder)


def write_scored_runs(
    folder: Path, precisions: dict[str, list[dict[str, float] | None]], profile: str = ""
) -> ExperimentScores:
    """Write runs with precisions by experiment, seed and branch (None: missing); return their scores."""
    runs = {
        name: tuple(
            run(folder / f"{name}-{seed}", branches) if branches else MissingRun("not trained", name, seed)
            for seed, branches in enumerate(seeds)
        )
        for name, seeds in precisions.items()
    }
    missing = tuple(entry for seeds in runs.values() for entry in seeds if isinstance(entry, MissingRun))
    return ExperimentScores(Runs(runs, len(next(iter(precisions.values()))), missing, profile))


def seeds_wanted(components, effect, persons, share=0.8):
    """The fewest seeds that show an effect."""
    return wanted(lambda *numbers: power(components, effect, *numbers), persons, share).seeds
