"""A learning curve read from runs: scores with intervals, what a start gains, and how many persons it saves.

A point is compared with others over the seeds that both have, by the crossed model of
``analysis.statistics``; with one seed an interval speaks of other test persons, not of other trainings.

How many persons a start saves: its score is held against a line through the scores from random weights,
straight between neighbouring sizes over the logarithm of the number of persons. Where the difference is zero
is the estimate, and the sizes at which its 95 % interval contains zero are the interval (Fieller's way).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from reidlib import files
from reidlib.analysis.learning_curves.planning import IMAGES, Point, sizes
from reidlib.analysis.scores import Cell, ExperimentScores
from reidlib.analysis.statistics import Interval, Pairs
from reidlib.data.readers import GUIDES, canonical, parse
from reidlib.data.readers.thinning import without_thinning
from reidlib.errors import InputError, count_noun
from reidlib.experiments.evidence import Evidence
from reidlib.experiments.evidence.lines import pretraining_of, row_of, start_of
from reidlib.experiments.rows import RENDERED, get_experiment, get_profile
from reidlib.experiments.setup import MissingRun, Runs
from reidlib.training.runs import Run

MEASURE = "mAP (step)"
# Sizes between two neighbours at which a score is held against the line from random weights; our choice.
_STEPS = 32


class Equivalent(NamedTuple):
    """The number of persons with which training from random weights has a start's score.

    Attributes:
        persons: The estimate; NaN if the score is outside the line.
        low: Lower end of the 95 % interval; 0 if it is below the smallest size.
        high: Upper end; infinity if it is above the largest size.
        seeds: Fewest seeds behind a comparison.
        smallest, largest: Ends of the line from random weights.
    """

    persons: float
    low: float
    high: float
    seeds: int
    smallest: int
    largest: int

    def __str__(self) -> str:
        ends = f"{self.smallest} or fewer" if not self.low else f"{self.low:.0f}"
        last = f"{self.largest} or more" if math.isinf(self.high) else f"{self.high:.0f}"
        if not math.isnan(self.persons):
            return f"{self.persons:.0f} [{ends}, {last}]"
        if math.isinf(self.high):
            return f"more than {self.largest}" if math.isinf(self.low) else f"{last} [{ends} or more]"
        return f"fewer than {self.smallest}" if not self.high else f"{ends} [{last} or fewer]"


@dataclass(frozen=True)
class Curve:
    """The finished runs of a learning curve.

    Attributes:
        row: Name of the experiment.
        profile: Name of the profile.
        target: Name and options of the benchmark whose training images are thinned.
        title: The benchmark in words.
        found: Point -> seed -> run.
        notes: What a reader must know: runs that are not used.
    """

    row: str
    profile: str
    target: str
    title: str
    found: Mapping[Point, Mapping[int, Run]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        row: str,
        profile: str,
        target: str,
        *,
        runs: str | Path | None = None,
        evidence_alone: bool = False,
        evidence: str | Path | None = None,
    ) -> Curve:
        """Read a curve's runs of this machine and of the evidence in git; nothing is trained.

        Args:
            row: Name of an experiment.
            profile: Name of a profile.
            target: Name and options of a benchmark, without those that thin it.
            runs: Folder of this machine's runs; ``files.runs()`` by default.
            evidence_alone: Whether this machine's runs are left out. Otherwise they come first.
            evidence: The folder of all sets of evidence; by default ``reports/evidence`` of the clone.

        Returns:
            The curve, empty if there is no run.

        Raises:
            InputError: If a name is unknown, the benchmark is thinned already, or evidence is damaged.
        """
        get_experiment(row)
        name, _ = parse(target)
        if without_thinning(target) != target:
            rule = "a curve is of a whole benchmark, whose training images it thins"
            raise InputError(rule, target, f"give {without_thinning(target)}")
        target = canonical(target)  # as runs have it
        sets = [
            each
            for each in Evidence.read_all(profile, evidence, benchmark=name)
            if without_thinning(each.benchmark) == target
        ]
        folder = Path(runs).expanduser() if runs else files.runs()
        own = [] if evidence_alone else list(_own_runs(row, profile, target, folder))
        kept = [
            (Point.of(each.benchmark, each.pretraining), seed, run)
            for each in sets
            for (name, seed), run in each.runs.items()
            if name == row
        ]
        found: dict[Point, dict[int, Run]] = {}
        data: dict[Point, str] = {}  # fingerprints; the first run's counts
        refused = 0
        for point, seed, run in [*own, *kept]:
            content = run.configuration["data"]
            if data.setdefault(point._replace(start=""), content) == content:
                found.setdefault(point, {}).setdefault(seed, run)
            else:
                refused += 1
        notes = (f"{count_noun(refused, 'runs')} not used: of other images",) if refused else ()
        # Sizes are compared on equal terms: another seed moves a point, and a second one widens its interval.
        shared = set.intersection(*map(set, found.values())) if found else set()
        left_out = sum(len(of_point.keys() - shared) for of_point in found.values())
        if shared and left_out:
            seeds = ", ".join(map(str, sorted(shared)))
            notes += (f"{count_noun(left_out, 'runs')} not used: all points share only seed {seeds}",)
            found = {point: {seed: of_point[seed] for seed in shared} for point, of_point in found.items()}
        title = next((each.title for each in sets if each.benchmark == target), target)
        return cls(row, profile, target, title, found, notes)

    @property
    def starts(self) -> list[str]:
        """The starts with runs, random weights first and rendered people next."""
        order = {"": 0, RENDERED: 1}
        return sorted({point.start for point in self.found}, key=lambda name: (order.get(name, 2), name))

    @cached_property
    def all_persons(self) -> int:
        """Number of training persons of the whole benchmark; 0 if no run says so."""
        of_whole = (run for point, runs in self.found.items() if not point.persons for run in runs.values())
        counts = (run.information.get("training_persons") for run in of_whole)
        told = re.search(r"(\d+) training", self.title)  # of runs from before that was kept with each
        return next(filter(None, counts), int(told[1]) if told else 0)

    @cached_property
    def runs(self) -> Runs:
        """The runs by point, for scores and records."""
        seeds = sorted({seed for runs in self.found.values() for seed in runs})
        by_name = {
            _name(point): tuple(
                runs.get(seed) or MissingRun("not trained", _name(point), seed) for seed in seeds
            )
            for point, runs in self.found.items()
        }
        return Runs(by_name, len(seeds), (), self.profile, benchmark=self.target, seed_numbers=tuple(seeds))

    @cached_property
    def _scores(self) -> ExperimentScores:
        return ExperimentScores(self.runs)

    def score(self, point: Point, measure: str = MEASURE) -> Interval | None:
        """Return a point's mean with its interval over seeds and persons, in per cent; None without runs."""
        return self._scores.difference([Cell(_name(point))], [], measure) if point in self.found else None

    def gain(self, point: Point, measure: str = MEASURE) -> Interval | None:
        """Return a start's score less that from random weights on the same images, in points."""
        pairs = self._pairs(point, point._replace(start=""), measure)
        return pairs and pairs.interval()

    def _pairs(self, plus: Point, minus: Point, measure: str) -> Pairs | None:
        if not {plus, minus} <= self.found.keys() or plus == minus:
            return None
        return self._scores.pairs([Cell(_name(plus))], [Cell(_name(minus))], measure)

    def persons(self, point: Point) -> int:
        """Return a point's number of training persons."""
        return point.persons or self.all_persons

    def points(self, start: str) -> list[Point]:
        """Return a start's points with all images of each person, few persons first."""
        found = [point for point in self.found if point.start == start and not point.images]
        return sorted((point for point in found if self.persons(point)), key=self.persons)

    def _points_by_size(self, start: str) -> dict[str, Point]:
        """Return a start's points by their sizes in words, few persons first, then few images of each."""
        images = sorted(point for point in self.found if point.start == start and point.images)
        return {
            f"{point.images} images of each" if point.images else f"{self.persons(point)} persons": point
            for point in [*self.points(start), *images]
        }

    def equivalent(self, point: Point, measure: str = MEASURE) -> Equivalent | None:
        """Return the number of persons that gives a start's score from random weights.

        Args:
            point: A point with another start than random weights.
            measure: Rank-k or mAP.

        Returns:
            The number with its interval; None with fewer than two sizes from random weights whose seeds the
            point has.
        """
        line = [
            (self.persons(other), pairs)
            for other in self.points("")
            if (pairs := self._pairs(point, other, measure)) is not None
        ]
        held: list[tuple[float, Interval]] = []
        for (persons, first), (more, second) in pairwise(line):
            seeds = set(first.seeds) & set(second.seeds)
            if not seeds:
                return None
            one, other = first.of(seeds), second.of(seeds)
            for share in np.linspace(0, 1, _STEPS + 1):
                sums_sp = (1 - share) * one.sums_sp + share * other.sums_sp
                mixed = Pairs(sums_sp, one.queries_p, one.seeds).interval()
                held.append((persons ** (1 - share) * more**share, mixed))
        if not held:
            return None
        return _equivalent(held)

    def table(self) -> pd.DataFrame:
        """Return a line for each point: start, persons, images, seeds, scores, gain in mAP and equivalent."""
        lines = []
        for start in self.starts:
            for point in self._points_by_size(start).values():
                line: dict[str, object] = {"start": self.start_title(start)}
                line |= {"persons": self.persons(point), "images of each": point.images or "all"}
                line |= {"seeds": len(self.found[point])}
                line |= {measure: _level(self.score(point, measure)) for measure in ("R1", MEASURE)}
                gain = self.gain(point)
                line[f"Δ {MEASURE}"] = "" if gain is None else gain
                worth = self.equivalent(point) if start and not point.images else None
                lines.append(line | {"persons from random weights": "" if worth is None else str(worth)})
        return pd.DataFrame(lines, dtype=object)

    def start_title(self, start: str) -> str:
        """Return what a start is called: random weights, rendered people, or the sets trained on before."""
        if not start:
            return "random weights"
        if start == RENDERED:
            return "rendered people"
        names = []
        for specification in start.split("+"):
            name, options = parse(specification)
            title = GUIDES[name].title if name in GUIDES else name
            kept = [f"{key}={value}" for key, value in options.items() if key != "training_only"]
            names.append(f"{title} ({', '.join(kept)})" if kept else title)
        return "photographs of " + " + ".join(names)

    def missing(self) -> list[str]:
        """Return what the curve lacks and the command that trains it; empty if nothing is lacking."""
        every = sizes(self.all_persons) if self.all_persons else [(0, images) for images in (*IMAGES, 0)]
        rendered = get_profile(self.profile).rendered_size and self.target != RENDERED
        usual = ["", *([RENDERED] if rendered else [])]
        lines: list[str] = []
        for start in [*usual, *(name for name in self.starts if name not in usual)]:
            lacking = sum(Point(start, *size) not in self.found for size in every)
            if lacking:
                lines.append(f"from {self.start_title(start)}: no run of {lacking} of {len(every)} sizes")
        if lines or len(self.starts) <= len(usual):
            options = "" if self.target == RENDERED else f" --benchmark {self.target} --data-root DIR"
            command = f"reidlib train {self.row} --curve --profile {self.profile}{options}"
            lines.append(f"`{command} --pretrain NAME=DIR` trains what is lacking, and resumes")
        return lines

    def sentences(self) -> list[str]:
        """Say what fewer images cost, what each start gains, and how many persons it saves."""
        lines = []
        if any(len(runs) == 1 for runs in self.found.values()):
            lines.append(
                "Where a size has **one seed**, its interval covers other test persons and says nothing of "
                "other trainings: what is told apart here may not be with the next seed. Of twenty "
                "intervals, about one excludes zero by chance."
            )
        for start in self.starts:
            steps = {point: self._steps(point) for point in self.found if point.start == start}
            whole = steps.get(Point(start), 0)
            if 0 < whole < (most := max(steps.values())):
                lines.append(
                    f"**From {self.start_title(start)}**, a training on all images has {whole:,} steps and "
                    f"one on a part of them up to {most:,}: what a part costs here may be too small, as it "
                    "is not that of its images alone."
                )
        for start in self.starts:
            if texts := self._costs(start):
                title = self.start_title(start)
                whole = f"all {self.all_persons} persons and all their images"
                lines.append(
                    f"**From {title}**, {MEASURE} in points less that of {whole}: {', '.join(texts)}."
                )
        for start in filter(None, self.starts):
            points = self._points_by_size(start)
            gains = {size: gain for size, point in points.items() if (gain := self.gain(point)) is not None}
            if not gains:
                continue
            verdicts = {
                "above random weights": [name for name, gain in gains.items() if gain.low > 0],
                "below them": [name for name, gain in gains.items() if gain.high < 0],
                "not told apart": [name for name, gain in gains.items() if not gain.excludes_zero],
            }
            texts = [
                f"{verdict} with {_and([f'{name} ({gains[name]})' for name in names])}"
                for verdict, names in verdicts.items()
                if names
            ]
            title = self.start_title(start)
            lines.append(f"**From {title}**, {MEASURE} in points on the same images: {'; '.join(texts)}.")
            worth = {point: self.equivalent(point) for point in self.points(start)}
            texts = [
                f"{self.persons(point)} persons are worth {each}"
                for point, each in worth.items()
                if each is not None
            ]
            if texts:
                lines.append(f"In persons from random weights: {'; '.join(texts)}.")
        return lines

    def _steps(self, point: Point) -> int:
        """Return the most steps of a point's trainings; 0 if they do not say."""
        return max(int(run.information.get("steps") or 0) for run in self.found[point].values())

    def _costs(self, start: str) -> list[str]:
        """Say how much lower a start's score is with fewer persons, and with fewer images of each."""
        costs = {
            size: pairs.interval()
            for size, point in self._points_by_size(start).items()
            if (pairs := self._pairs(point, Point(start), MEASURE))
        }
        return [f"{cost} with {size}" for size, cost in costs.items()]


def _own_runs(row: str, profile: str, target: str, folder: Path) -> Iterator[tuple[Point, int, Run]]:
    """Yield the scored runs of a curve in a folder, with their points and seeds."""
    for path in sorted(folder.glob("*/run.json")):
        run = Run(path.parent)
        with suppress(InputError, KeyError, AttributeError, TypeError):  # damaged, or its start is gone
            content = run.configuration
            if without_thinning(content["benchmark"]) != target or not run.scores:
                continue
            start = start_of(run) if content.get("start") else {}
            if row_of(content, start) == (profile, row) and run.scores["data"] == content["data"]:
                yield Point.of(content["benchmark"], pretraining_of(content, start)), content["seed"], run


def _name(point: Point) -> str:
    """Return a name of a point for records: start, persons and images."""
    thinned = [f"{point.persons} persons"] if point.persons else []
    thinned += [f"{point.images} images of each"] if point.images else []
    return ", ".join([f"from {point.start or 'random weights'}", *(thinned or ["all images"])])


def _equivalent(held: Sequence[tuple[float, Interval]]) -> Equivalent:
    """Return where differences to a line are zero, given them by the line's number of persons."""
    sizes_n = np.array([persons for persons, _ in held])
    means_n = np.array([interval.mean for _, interval in held])
    inside = [persons for persons, interval in held if interval.low <= 0 <= interval.high]
    smallest, largest = round(sizes_n[0]), round(sizes_n[-1])
    persons = math.nan
    falls = np.flatnonzero((means_n[:-1] >= 0) & (means_n[1:] < 0))
    if len(falls):
        n = falls[0]
        share = means_n[n] / (means_n[n] - means_n[n + 1])
        persons = float(sizes_n[n] ** (1 - share) * sizes_n[n + 1] ** share)
    low, high = (inside[0], inside[-1]) if inside else (persons, persons)
    if held[0][1].low <= 0:
        low = 0.0
    if held[-1][1].high >= 0:
        high = math.inf
    if not inside and math.isnan(persons):  # the whole line is below the score, or above it
        low, high = (math.inf, math.inf) if means_n[-1] > 0 else (0.0, 0.0)
    seeds = min(interval.seeds for _, interval in held)
    return Equivalent(persons, float(low), float(high), seeds, smallest, largest)


def _level(interval: Interval | None) -> str:
    """Write a score with its interval, without signs."""
    if interval is None:
        return ""
    ends = f" [{interval.low:.1f}, {interval.high:.1f}]" if math.isfinite(interval.low) else ""
    return f"{interval.mean:.1f}{ends}"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
