"""The whole main job on the `quick` profile, in an empty folder: its time, its scores, its second run.

Run with: pytest tests/benchmarks/test_main_job.py -s
The bounds are those of two CPU cores; a GPU or more cores only make it faster.
"""

import json
import os
import subprocess
import sys
import time
from math import inf

import pytest

from reidlib.experiments import EXPERIMENTS

PROFILE = "quick"
MINUTES, TRAINING_MINUTES, SECOND_RUN_SECONDS = 20, 2, 10
RANK1, PRECISION, HISTOGRAMS, MARGIN = 80, 62, 5, 0  # JLML's at least; at most; Pyramid's above JLML's
SMALL = {
    **{"PROFILE": "smoke", "MINUTES": inf, "TRAINING_MINUTES": inf, "SECOND_RUN_SECONDS": inf},
    **{"RANK1": 0, "PRECISION": 0, "HISTOGRAMS": 101, "MARGIN": -100},
}


@pytest.fixture(scope="module")
def main_job(tmp_path_factory, request):
    command = [sys.executable, "-m", "reidlib", "reproduce"]
    if PROFILE == "quick":
        home = tmp_path_factory.mktemp("home")
    else:  # the report that other tests read, too
        report, _, command = request.getfixturevalue("report")
        home = report.parent
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(command, env={**os.environ, "REIDLIB_HOME": str(home)}, check=True)
        seconds.append(time.perf_counter() - start)
    return home, seconds


def full_scores(home, row):
    (path,) = home.glob(f"runs/{row}-{PROFILE}-*/scores.json")
    scores = json.loads(path.read_text())["branches"]["full"]
    precision = {kind: 100 * scores[kind]["mean_average_precision"] for kind in ("step", "trapezoid")}
    return 100 * scores["step"]["cmc"]["1"], precision


def test_time(main_job):
    home, (first, second) = main_job
    runs = [json.loads(path.read_text()) for path in home.glob("runs/*/run.json")]
    longest = max(run["seconds"] for run in runs)
    assert len(runs) == len(EXPERIMENTS)  # every row once, whichever notebooks want it
    print(
        f"\nmain job ({PROFILE}) on {runs[0]['device']}, {runs[0]['precision']}: {first:.0f} s, {len(runs)} "
        f"trainings of at most {longest:.0f} s among it; unchanged, again: {second:.1f} s"
    )
    assert first <= 60 * MINUTES
    assert longest <= 60 * TRAINING_MINUTES
    assert second <= SECOND_RUN_SECONDS


def test_scores(main_job):
    home, _ = main_job
    start_here = json.loads((home / PROFILE / "00_start_here" / "result.json").read_text())
    histograms = float(start_here["scores"][0]["R1"])
    jlml, pyramid = full_scores(home, "jlml"), full_scores(home, "pyramid")
    for name, (rank1, precision) in (("JLML", jlml), ("Pyramid", pyramid)):
        print(
            f"\n{name} ({PROFILE}, seed 0): R1 {rank1:.1f}, mAP {precision['trapezoid']:.1f} (trapezoid), "
            f"{precision['step']:.1f} (step)"
        )
    print(f"\nstripe colour histograms: R1 {histograms}")
    assert jlml[0] >= RANK1
    assert jlml[1]["trapezoid"] >= PRECISION
    assert histograms < HISTOGRAMS
    assert pyramid[0] >= jlml[0] + MARGIN
    assert pyramid[1]["step"] >= jlml[1]["step"] + MARGIN
