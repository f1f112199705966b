"""The whole main job on the `quick` profile, in an empty folder: time, pages, memory, scores, second run.

Run with: pytest tests/benchmarks/test_main_job.py -s
The bounds are those of two CPU cores; a GPU or more cores only make it faster.
"""

import contextlib
import json
import os
import sys
import time
from datetime import datetime
from math import inf

import psutil
import pytest

from reidlib.experiments import EXPERIMENTS

PROFILE = "quick"
MINUTES, TRAINING_MINUTES, SECOND_RUN_SECONDS = 20, 2, 10
PEAK_GIBIBYTES = 4
# JLML's at least (five seeds: 71.3 and 52.9 on 400 test persons), at most, Pyramid's above JLML's.
RANK1, PRECISION, HISTOGRAMS, MARGIN = 67, 49, 5, 0
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
    runs = [watch(command, home) for _ in range(2)]
    return home, [seconds for seconds, _, _ in runs], runs[0][1:]


def watch(command, home) -> tuple[float, dict[str, float], float]:
    """Run a command; return its seconds, those until each page, and its processes' largest memory in GiB."""
    start, peak, pages = time.perf_counter(), 0, {}
    before = set((home / PROFILE).glob("*/index.html"))
    process = psutil.Popen(command, env={**os.environ, "REIDLIB_HOME": str(home)})
    while process.poll() is None:
        time.sleep(0.5)
        used = 0
        with contextlib.suppress(psutil.Error):
            for part in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):  # it has ended
                    used += part.memory_full_info().pss  # what processes share counts once
        peak = max(peak, used)
        for page in set((home / PROFILE).glob("*/index.html")) - before:
            pages.setdefault(page.parent.name, time.perf_counter() - start)
    assert process.returncode == 0
    return time.perf_counter() - start, pages, peak / 2**30


def full_scores(home, row):
    (path,) = home.glob(f"runs/{row}-{PROFILE}-*/scores.json")
    scores = json.loads(path.read_text())["branches"]["full"]
    precision = {kind: 100 * scores[kind]["mean_average_precision"] for kind in ("step", "trapezoid")}
    return 100 * scores["step"]["cmc"]["1"], precision


def test_time(main_job):
    home, (first, second), _ = main_job
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


def test_pages_come_early_and_memory_is_bounded(main_job):
    home, (whole, _), (pages, peak) = main_job
    for name in ("00_start_here", "20_train_jlml"):
        print(f"\n{name}: page after {pages.get(name, inf):.0f} s of {whole:.0f} s")
    print(f"\npeak memory of all processes: {peak:.2f} GiB")
    assert 0 < peak < PEAK_GIBIBYTES
    # A notebook with one training starts before the last training has ended, in the order of the numbers.
    ends = [path.stat().st_mtime for path in home.glob("runs/*/scores.json")]
    statuses = [json.loads(path.read_text()) for path in sorted((home / PROFILE).glob("*/status.json"))]
    started = {
        status["notebook"]: datetime.fromisoformat(status["started"]).timestamp() for status in statuses
    }
    assert started["00_start_here"] <= started["20_train_jlml"] < started["21_train_pyramid"] < max(ends)
    index = (home / PROFILE / "index.html").read_text()
    assert f"{len(statuses)} done" in index and "refresh" not in index


def test_scores(main_job):
    home, _, _ = main_job
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
