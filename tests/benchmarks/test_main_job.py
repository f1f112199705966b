"""The whole main job on the `quick` profile, in an empty folder: its time, its scores, its second run.

The bounds are those of two CPU cores; a GPU or more cores only make it faster.
"""

import json
import os
import subprocess
import sys
import time

import pytest

MINUTES, TRAINING_MINUTES, SECOND_RUN_SECONDS = 6, 2, 10


@pytest.fixture(scope="module")
def main_job(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "reidlib", "reproduce"]
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(command, env={**os.environ, "REIDLIB_HOME": str(home)}, check=True)
        seconds.append(time.perf_counter() - start)
    return home, seconds


def test_time(main_job):
    home, (first, second) = main_job
    run = json.loads(next(home.glob("runs/*/run.json")).read_text())
    print(
        f"\nmain job (quick) on {run['device']}, {run['precision']}: {first:.0f} s, of which training "
        f"{run['seconds']:.0f} s; unchanged, again: {second:.1f} s"
    )
    assert first <= 60 * MINUTES
    assert run["seconds"] <= 60 * TRAINING_MINUTES
    assert second <= SECOND_RUN_SECONDS


def test_scores(main_job):
    home, _ = main_job
    scores = json.loads(next(home.glob("runs/*/scores.json")).read_text())["branches"]["full"]
    rank1 = 100 * scores["step"]["cmc"]["1"]
    precision = {kind: 100 * scores[kind]["mean_average_precision"] for kind in ("step", "trapezoid")}
    start_here = json.loads((home / "quick" / "00_start_here" / "result.json").read_text())
    histograms = float(start_here["scores"][0]["R1"])
    print(
        f"\nJLML full (quick, seed 0): R1 {rank1:.1f}, mAP {precision['trapezoid']:.1f} (trapezoid), "
        f"{precision['step']:.1f} (step); stripe colour histograms: R1 {histograms}"
    )
    assert rank1 >= 80
    assert precision["trapezoid"] >= 62
    assert histograms < 5
