"""Scores of rows by what they were trained on and what they are tested on, for notebook 43."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from reidlib.analysis.benchmark_runs.own import OWN_ROWS
from reidlib.analysis.scores import Spread
from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import GUIDES, load_specified, parse
from reidlib.errors import InputError
from reidlib.experiments.evaluate import evaluate_across, find_across
from reidlib.experiments.obtain import FAILURES, run_name
from reidlib.experiments.rows import configure, get_profile
from reidlib.experiments.setup import MissingRun, Runs, Setup, first_line
from reidlib.training.runs import Run, configuration_hash

# The sets of notebook 43. Of Market-1501 the training persons suffice, of whom some are held out.
_RENDERED, _MARKET = "synthetic", "market1501,validation=true"
ACROSS = (_RENDERED, _MARKET, "cuhk01", "viper")
REFUSED, NO_SCORE = "refused", "–"  # in place of scores


@dataclass(frozen=True)
class AcrossScores:
    """Scores of rows by what they were trained on and what they are tested on.

    Attributes:
        titles: Specification of a benchmark -> what a table calls it as a test: set, persons and protocol.
        trainings: Specification of a benchmark -> what a table calls it as a training: set and persons.
        values: (Row, trained on, tested on) -> R1 by the first protocol of the tested benchmark and mAP
            (step), in per cent: for each seed, the means over the partitions.
        refused: (Row, trained on, tested on) -> why there is no score.
        runs: The runs; those that could be trained, and were not, are missing.
    """

    titles: Mapping[str, str]
    trainings: Mapping[str, str]
    values: Mapping[tuple[str, str, str], Sequence[tuple[float, float]]]
    refused: Mapping[tuple[str, str, str], str]
    runs: Runs

    def spreads(self, measure: int = 0) -> pd.DataFrame:
        """Return a line for each row and training, a column for each tested set: R1 (0), or mAP (1).

        Args:
            measure: 0 for R1, 1 for mAP.

        Returns:
            A table with the index (row, title of the training's set). A cell is a ``Spread``, ``REFUSED``, or
            ``NO_SCORE``.
        """
        keys = dict.fromkeys([*self.values, *self.refused])

        def cell(key: tuple[str, str, str]) -> Spread | str:
            if seeds := self.values.get(key):
                return Spread.of([values[measure] for values in seeds], self.runs.seeds)
            return REFUSED if key in self.refused else NO_SCORE

        lines = {
            (row, self.trainings[trained]): {
                title: cell((row, trained, tested)) for tested, title in self.titles.items()
            }
            for row, trained in dict.fromkeys(key[:2] for key in keys)
        }
        return pd.DataFrame.from_dict(lines, orient="index", columns=[*self.titles.values()])

    def table(self) -> pd.DataFrame:
        """Return a table to show: network, training, and R1 / mAP on each tested set."""
        both = [self.spreads(measure).to_numpy() for measure in (0, 1)]
        index = self.spreads().index
        texts = [
            [one if isinstance(one, str) else f"{one} / {other}" for one, other in zip(*rows, strict=True)]
            for rows in zip(*both, strict=True)
        ]
        columns = [f"R1 / mAP on {title}" for title in self.titles.values()]
        names = pd.DataFrame([*index], columns=["network", "trained on"])
        return names.join(pd.DataFrame(texts, columns=columns))

    def lacking(self, profile: str) -> list[str]:
        """Return a line for each row without a run on a set of ``ACROSS``, and each set without a test."""
        lines, known = [], {*self.values, *self.refused}
        trainings = {key[:2] for key in known}
        renders = get_profile(profile).rendered_size
        for name in (name for name in ACROSS if renders or name != _RENDERED):
            options = f"--benchmark {name}" + ("" if name == _RENDERED else " --data-root DIR")
            for row in (row for row in OWN_ROWS if (row, name) not in trainings):
                command = f"reidlib train {row} --profile {profile} {options}"
                lines.append(f"{row} trained on {name}: `{command}`")
            if not trainings or any((*training, name) not in known for training in trainings):
                lines.append(f"tested on {name}: `reidlib evaluate RUN {options}`")
        return lines

    def sentences(self) -> list[str]:
        """Return a sentence for each row and tested set with several trainings: R1 after each, best first."""
        sentences = []
        for row, lines in self.spreads().groupby(level=0):
            for title, cells in lines.droplevel(0).items():
                scores = {name: cell.mean for name, cell in cells.items() if isinstance(cell, Spread)}
                if len(scores) > 1:
                    order = sorted(scores, key=lambda name: -scores[name])
                    texts = [f"{scores[name]:.1f} trained on {name}" for name in order]
                    sentences.append(f"**{row}** tested on {title}: R1 {'; '.join(texts)}.")
        return sentences


def gather_across(
    rows: Sequence[str], setup: Setup, folders: Mapping[str, str | Path], *, trials: int = 1
) -> AcrossScores:
    """Gather what rows reach on the sets that they were trained on, and on others.

    Args:
        rows: Names of experiments.
        setup: Profile, seeds and device, and whether runs may be trained.
        folders: Benchmark -> folder; ``market1501`` stands for its training persons, some of them held out.
            Of ``ACROSS`` and of these, sets without a folder have the runs and scores that are stored.
        trials: Number of partitions, the first ones, of sets that a run was not trained on; 0 for all. A run
            is trained and tested on its own set's first partition.

    Returns:
        The scores.

    Raises:
        InputError: If a benchmark is unknown or cannot be read.
    """
    roots: dict[str, str | Path] = {_RENDERED: ""} if setup.profile.rendered_size else {}
    roots |= {{"market1501": _MARKET}.get(name, name): root for name, root in folders.items() if root}
    setups: dict[str, Setup] = {}
    tests: dict[str, list[Benchmark]] = {}
    for name, root in roots.items():
        own = replace(setup, benchmark=name, data_root=root)
        setups[own.data.specification] = own
        count = 1 if "trial=" in name else min(trials or own.data.num_trials, own.data.num_trials)
        more = [load_specified(f"{name},trial={trial}", root) for trial in range(1, count)]
        tests[own.data.specification] = [own.data, *more]
    names = tuple(dict.fromkeys((*ACROSS, *setups)))
    runs: dict[str, tuple[Run | MissingRun, ...]] = {}
    scores: dict[tuple[str, str, str], list[list[dict]]] = {}
    refused: dict[tuple[str, str, str], str] = {}
    for row, trained, seed in product(rows, names, range(setup.seeds)):
        run = _run_on(row, trained, seed, setups.get(trained), setup)
        if run is None:
            continue
        label = row if trained == _RENDERED else f"{row} on {trained}"
        runs[label] = (*runs.get(label, ()), run)
        if isinstance(run, MissingRun):
            continue
        for tested in names:
            key = row, trained, tested
            try:
                if own_scores := _scores_on(run, trained, tested, tests.get(tested), trials, setup):
                    scores.setdefault(key, []).append(own_scores)
            except FAILURES as error:
                refused[key] = first_line(error)
    named = {
        name: _across_titles(name, setups.get(name), [scores[key] for key in scores if key[2] == name])
        for name in names
        if name in setups or any(name in key[1:] for key in (*scores, *refused))
    }
    values = {key: [_means(of_seed) for of_seed in seeds] for key, seeds in scores.items()}
    missing = tuple(run for seeds in runs.values() for run in seeds if isinstance(run, MissingRun))
    titles, trainings = ({name: pair[side] for name, pair in named.items()} for side in (0, 1))
    return AcrossScores(
        titles, trainings, values, refused, Runs(runs, setup.seeds, missing, setup.profile.name)
    )


def _run_on(row: str, trained: str, seed: int, own: Setup | None, setup: Setup) -> Run | MissingRun | None:
    """Return the run of a row on a set: trained if its folder is given, otherwise a stored one or None."""
    if own is None:
        name = f"{run_name(row, setup.profile, trained)}{seed}-{'?' * 12}"  # with no more than its hash
        for run in (Run(path.parent) for path in sorted(setup.runs.glob(f"{name}/run.json"))):
            with suppress(InputError, KeyError, AttributeError, TypeError):  # damaged
                identity = {name: run.configuration[name] for name in ("benchmark", "data", "seed")}
                today, _ = configure(row, setup.profile, **identity)
                if configuration_hash(today.to_json()) == configuration_hash(run.configuration):
                    return run
        return None
    try:
        return own.obtain(row, seed)
    except FAILURES as error:
        return MissingRun(first_line(error), f"{row} on {trained}", seed)


def _scores_on(
    run: Run, trained: str, tested: str, tests: Sequence[Benchmark] | None, trials: int, setup: Setup
) -> list[dict]:
    """Return the contents of files of scores, one for each partition of the tested set."""
    if trained == tested:
        return [run.scores] if run.scores else []
    if tests is None:
        return find_across(run, tested)[: trials or None]
    # In a folder that cannot be written, scores are computed each time.
    options = {"execution": setup.execution, "on_unwritable": lambda _: None}
    return [evaluate_across(run, benchmark, **options) for benchmark in tests]


def _means(partitions: Sequence[dict]) -> tuple[float, float]:
    """Return R1 by the benchmark's first protocol and mAP (step), in per cent: means over partitions."""
    features = [scores["branches"]["full"] for scores in partitions]
    protocols = [next(iter(full.get("protocols", {}).values()), full["step"]) for full in features]
    return (
        100 * fmean(protocol["cmc"]["1"] for protocol in protocols),
        100 * fmean(full["step"]["mean_average_precision"] for full in features),
    )


def _across_titles(
    name: str, own: Setup | None, seeds: Sequence[Sequence[Sequence[dict]]]
) -> tuple[str, str]:
    """Return a set's name as a test, with its persons and the protocol of its R1, and as a training."""
    benchmark, options = parse(name)
    title = GUIDES[benchmark].title if benchmark in GUIDES else benchmark
    title = "rendered people" if name == _RENDERED else title
    title = ", ".join([title, *(f"{key}={value}" for key, value in options.items() if key != "validation")])
    every = [scores for runs in seeds for partitions in runs for scores in partitions]
    counts = {scores["training_persons"] for scores in every if "training_persons" in scores}
    tested = {len(set(scores["query_person_ids"])) for scores in every if scores.get("query_person_ids")}
    if own is not None:
        counts, tested = ({len(np.unique(split.person_ids))} for split in (own.data.train, own.data.query))
    training, test = (f"{min(numbers)} " if numbers else "" for numbers in (counts, tested))
    protocols = next((scores.get("protocols") for scores in every), own.data.protocols if own else {})
    protocol = f", {next(iter(protocols))}" if protocols else ""
    if options.get("validation"):  # never called by the set's name alone
        title += f", {training}training / {test}validation persons"
        return title + protocol, title
    return f"{title}, {test}test persons{protocol}", f"{title}, {training}training persons"
