"""Folders of runs of rows, each with random scores by query, for tests of evidence."""

import json

import numpy as np

from reidlib.experiments.rows import L2, LEARNT_METRICS, configure, get_profile
from reidlib.training.runs import Run, configuration_hash

BENCHMARK, DATA = "market1501,validation=true", "0123456789abcdef"
QUERIES = 40
PERSONS = np.arange(QUERIES) // 3  # the last of 14 persons has one query


def branch(generator):
    """Scores of a branch of two queries without a match, as ``evaluate_run`` writes them."""
    first = generator.integers(1, 30, QUERIES)
    first[[4, 39]] = 0
    valid = first > 0
    kinds = {}
    for kind in ("step", "trapezoid"):
        precisions = generator.random(QUERIES)
        kinds[kind] = {
            "cmc": {str(rank): float((first[valid] <= rank).mean()) for rank in range(1, 51)},
            "mean_average_precision": float(precisions[valid].mean()),
            "mean_inp": 0.25,
            "num_queries": QUERIES,
            "num_valid_queries": int(valid.sum()),
            "average_precision": [p if v else None for p, v in zip(precisions.tolist(), valid, strict=True)],
            "first_match_rank": first.tolist(),
        }
    return kinds


def scores(seed, names=("full", "global", "local"), data=DATA):
    generator = np.random.default_rng(seed)
    branches = {name: branch(generator) for name in names}
    return {"format": 2, "benchmark": BENCHMARK, "data": data, "query_person_ids": PERSONS.tolist()} | {
        "branches": branches
    }


def write_run(
    folder, row="jlml", seed=0, data=DATA, draw=None, settings=None, benchmark=BENCHMARK, start="", **stage
):
    """Write a finished run of a row without weights."""
    identity = {"benchmark": benchmark, "data": data, "seed": seed, "start": start}
    content = configure(row, get_profile("quick"), settings, **stage, **identity)[0].to_json()
    run = folder / f"{row}-{seed}-{configuration_hash(content)}"
    (run / "conditions").mkdir(parents=True)
    information = {"device": "cpu", "seconds": 9.5, "commit": "abc", "data_root": str(folder), "steps": 5}
    values = scores(len(row) * 10 + seed if draw is None else draw, data=data)
    for name, part in (
        ("config", content),
        ("run", information),
        ("scores", values),
        ("conditions/usual", {"condition": None, **scores(9, ("full",))}),
    ):
        (run / f"{name}.json").write_text(json.dumps(part))
    (run / "history.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n{"epoch": 2, "loss": 1.0}\n')
    return Run(run)


def write_metrics(run, names=(L2, *LEARNT_METRICS), draw=0, means=None):
    """Write scores by learnt metrics into a run's folder, random ones, or with mean average precisions."""
    (run.folder / "metrics").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        content = scores(draw + number, ("full",)) | {"format": 1, "metric": name, "settings": "made"}
        content |= {"data": run.configuration["data"], "seconds": 1.5, "directions": 12}
        for kind in content["branches"]["full"].values() if means else ():
            kind["average_precision"] = [
                p if p is None else means[name] + 0.01 * np.sin(q)
                for q, p in enumerate(kind["average_precision"])
            ]
            values = [p for p in kind["average_precision"] if p is not None]
            kind["mean_average_precision"] = float(np.mean(values))
        (run.folder / "metrics" / f"{name}.json").write_text(json.dumps(content))
    return run
