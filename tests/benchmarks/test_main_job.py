"""The whole main job on the `quick` profile, in an empty folder: time, pages, memory, scores, second run.

Run with: pytest tests/benchmarks/test_main_job.py -s
The job runs to its end and prints all that is measured; only then are bounds compared, each in a test.
The bounds are those of two CPU cores; a GPU or more cores only make it faster.
"""

import contextlib
import json
import os
import sys
import time
from datetime import datetime
from math import inf
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from reidlib.experiments import EXPERIMENTS

PROFILE = "quick"
MINUTES, TRAINING_MINUTES, SECOND_RUN_SECONDS = 20, 2, 10
FIRST_PAGE_SECONDS, JLML_PAGE_SECONDS, PEAK_GIBIBYTES = 60, 180, 4
JLML = "20_train_jlml"
# JLML's at least (five seeds: 71.3 and 52.9 on 400 test persons), at most, Pyramid's above JLML's.
RANK1, PRECISION, HISTOGRAMS, MARGIN = 67, 49, 5, 0
SMALL = {
    **{"PROFILE": "smoke", "MINUTES": inf, "TRAINING_MINUTES": inf, "SECOND_RUN_SECONDS": inf},
    **{"FIRST_PAGE_SECONDS": inf, "JLML_PAGE_SECONDS": inf},
    **{"RANK1": 0, "PRECISION": 0, "HISTOGRAMS": 101, "MARGIN": -100},
}


@pytest.fixture(scope="module")
def main_job(tmp_path_factory, request):
    command = [sys.executable, "-m", "reidlib", "reproduce"]
    if PROFILE == "quick":
        home = tmp_path_factory.mktemp("home")
        first = watch(command, home)
    else:  # the report that other tests read, too, so that only its second run is watched
        report, _, command = request.getfixturevalue("report")
        home, first = report.parent, None
    second = watch(command, home)
    job = Job(home, first or second, second)
    pages = job.first.pages
    print(
        f"\nmain job ({PROFILE}): {job.first.seconds:.0f} s with {len(job.runs)} trainings, of which the "
        f"longest takes {job.longest:.0f} s; unchanged, again: {job.second.seconds:.1f} s\n"
        f"first page after {min(pages.values(), default=inf):.0f} s, "
        f"JLML's after {pages.get(JLML, inf):.0f} s\n"
        f"peak memory of all processes: {job.first.gibibytes:.2f} GiB\n"
        f"exit status: {job.first.status}, again: {job.second.status}"
    )
    return job


class Watched(NamedTuple):
    """A command's exit status and seconds, those until each page, and its processes' largest memory."""

    status: int
    seconds: float
    pages: dict[str, float]
    gibibytes: float


class Job(NamedTuple):
    """The folder of a main job, and its two commands."""

    home: Path
    first: Watched
    second: Watched

    @property
    def runs(self) -> list[dict]:
        return [json.loads(path.read_text()) for path in self.home.glob("runs/*/run.json")]

    @property
    def longest(self) -> float:
        return max((run["seconds"] for run in self.runs), default=inf)


def watch(command, home) -> Watched:
    """Run a command to its end, whatever it ends with."""
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
    return Watched(process.returncode, time.perf_counter() - start, pages, peak / 2**30)


def full_scores(home, row):
    (path,) = home.glob(f"runs/{row}-{PROFILE}-*/scores.json")
    scores = json.loads(path.read_text())["branches"]["full"]
    precision = {kind: 100 * scores[kind]["mean_average_precision"] for kind in ("step", "trapezoid")}
    return 100 * scores["step"]["cmc"]["1"], precision


def test_every_training_once_without_failure(main_job):
    assert main_job.first.status == main_job.second.status == 0
    assert len(main_job.runs) == len(EXPERIMENTS)  # whichever notebooks want them


@pytest.mark.parametrize("name", ["whole", "training", "again", "first page", "JLML's page", "memory"])
def test_bounds(main_job, name):
    pages = main_job.first.pages
    value, bound = {
        "whole": (main_job.first.seconds, 60 * MINUTES),
        "training": (main_job.longest, 60 * TRAINING_MINUTES),
        "again": (main_job.second.seconds, SECOND_RUN_SECONDS),
        "first page": (min(pages.values(), default=inf), FIRST_PAGE_SECONDS),
        "JLML's page": (pages.get(JLML, inf), JLML_PAGE_SECONDS),
        "memory": (main_job.first.gibibytes, PEAK_GIBIBYTES),
    }[name]
    assert 0 < value <= bound


def test_pages_come_early(main_job):
    home = main_job.home
    # A notebook with one training starts before the last training has ended, in the order of the numbers.
    ends = [path.stat().st_mtime for path in home.glob("runs/*/scores.json")]
    statuses = [json.loads(path.read_text()) for path in sorted((home / PROFILE).glob("*/status.json"))]
    started = {
        status["notebook"]: datetime.fromisoformat(status["started"]).timestamp() for status in statuses
    }
    assert started["00_start_here"] <= started[JLML] < started["21_train_pyramid"] < max(ends)
    index = (home / PROFILE / "index.html").read_text()
    assert f"{len(statuses)} done" in index and "refresh" not in index


def test_scores(main_job):
    home = main_job.home
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
