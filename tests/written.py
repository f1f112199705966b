"""Runs as folders of small files, written by hand: what tables and verdicts read."""

from __future__ import annotations

import json
from pathlib import Path

from reidlib.analysis import ExperimentScores
from reidlib.experiments.setup import Missing, Runs
from reidlib.training.runs import Run

QUERIES, PERSONS = 60, 20


def scores(precisions: dict[str, float], *, spread: float = 0.0) -> dict:
    """scores.json with a mean average precision for each branch; queries differ by ``spread`` around it."""
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
    """A finished run without weights."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"data": "x", "benchmark": "market1501"}))
    information = {"device": "a device", "seconds": 10.0, "commit": "abc", "steps": 5}
    (folder / "run.json").write_text(json.dumps(information))
    (folder / "scores.json").write_text(json.dumps(scores(precisions, **keywords)))
    return Run(folder)


def gathered(
    folder: Path, wanted: dict[str, list[dict[str, float] | None]], profile: str = ""
) -> ExperimentScores:
    """Scores of runs. wanted: experiment -> of each seed its branches' precisions, None for a missing run."""
    runs = {
        name: tuple(
            Missing("not trained", name, seed) if one is None else run(folder / f"{name}-{seed}", one)
            for seed, one in enumerate(seeds)
        )
        for name, seeds in wanted.items()
    }
    missing = tuple(one for of_seeds in runs.values() for one in of_seeds if isinstance(one, Missing))
    return ExperimentScores(Runs(runs, len(next(iter(wanted.values()))), missing, profile))
