"""This suite's runs on the benchmarks of the papers' tables, for notebook 42."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from reidlib.analysis.benchmark_tables import (
    TABLES,
    Table,
    folder_deviations,
    folder_of,
    pretraining_stages,
    trials_of,
)
from reidlib.analysis.scores import Cell
from reidlib.data.benchmark import Benchmark
from reidlib.data.check import count_deviations
from reidlib.data.readers import GUIDES, parse
from reidlib.errors import count_noun, shorten
from reidlib.experiments.evidence import Evidence
from reidlib.experiments.obtain import FAILURES, TrainingPlan, obtain, plan_chain
from reidlib.experiments.rows import PROFILES, configure, get_profile
from reidlib.experiments.setup import MissingRun, Runs, Setup, first_line
from reidlib.training.config import Recipe
from reidlib.training.runs import Run

# The experiments whose rows this suite adds to every table, and those that stand beside a printed row of
# Pyramid, by that row's source. The released code's balancing is the only one that is public; "pyramid" is
# trained by our reading of the paper's.
OWN_ROWS = ("jlml", "pyramid")
OWN_PARTITIONS = ("cuhk01", "viper")  # no partitions are official: this suite's, or a file's
# Published partitions, by the fingerprint of the first one's data.
PUBLISHED_PARTITIONS = {
    "c6a0ffc07c153ff2": "CRAFT (published)",
    "80b526fa8ad30b7a": "salience_match (published)",
}
# Sets that runs start from, by the fingerprint of their data: for a title, and at length.
PRETRAINING = {
    "b684d02e41382ccd": (
        "Market-1501 + part of CUHK03",
        "743 of CUHK03's 1,467 persons (its first camera pair, both boxings as one set) and the 751 training "
        "persons of Market-1501",
    )
}
# Sets on whose validation persons the recipe of "photographs" was chosen.
_CHOSEN_ON = ("cuhk01", "viper")
BESIDE = {"paper": "pyramid-official", "YouReID": "pyramid-youreid"}


def own_rows(tables: Iterable[Table]) -> tuple[str, ...]:
    """Return this suite's rows of some of the papers' tables.

    Args:
        tables: The tables.

    Returns:
        Names of experiments, each once: ``OWN_ROWS``, and those that stand beside a printed row of Pyramid.
    """
    sources = {line.get("source") for table in tables for line in table.lines.to_dict("records")}
    return OWN_ROWS + tuple(row for source, row in BESIDE.items() if source in sources)


@dataclass(frozen=True)
class OwnRuns:
    """This suite's runs on one benchmark.

    Attributes:
        specification: The benchmark with its options, such as "cuhk03,boxes=detected".
        profile: Name of the profile.
        num_trials: Number of partitions of the benchmark's protocol; fewer may have been requested. 0 if it
            is not known, as of evidence.
        runs: (Row, trial) -> one run or ``MissingRun`` per seed.
        pretraining: The sets that the runs start from, for a title; empty if none.
        read_error: Why there are no runs at all, if the folder cannot be read; otherwise empty.
        deviations: How the folder deviates from the official benchmark; empty if it does not.
        partitions: Whose partitions they are, for a title; empty if they are official.
        kept: Whether the runs are those of the evidence in git.
    """

    specification: str
    profile: str
    num_trials: int = 0
    runs: Mapping[tuple[str, int], Sequence[Run | MissingRun]] = field(default_factory=dict)
    pretraining: str = ""
    read_error: str = ""
    deviations: tuple[str, ...] = ()
    partitions: str = ""
    kept: bool = False

    @property
    def deviation_summary(self) -> str:
        """How the folder deviates from the official counts, in a line; empty if it is complete."""
        return shorten(self.deviations, 3)

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows with runs."""
        return tuple(dict.fromkeys(row for row, _ in self.runs))

    def title(self, row: str) -> str:
        """Return a row's name in a table, with everything that distinguishes it from a printed row."""
        profile = get_profile(self.profile)
        configuration, _ = configure(row, profile, benchmark="", data="")
        height, width = configuration.input_size
        parts = [row, f"profile {self.profile}", f"{height}×{width}"]
        if configuration.model.width != 1:
            parts.append(f"width {configuration.model.width:g}")
        if configuration.model.weights is None:
            parts.append("no ImageNet")
        if self.deviations:
            parts.append("incomplete benchmark")
        if self.pretraining:
            parts.append(f"pre-trained on {self.pretraining}")
        trials = sum(name == row for name, _ in self.runs)
        if self.kept or 0 < trials < self.num_trials:
            number = f"{trials} of {self.num_trials} partitions"
            number = count_noun(trials, "partitions") if self.kept else number
            parts.append(f"{number} {self.partitions}".strip())
        elif self.partitions:
            parts.append(f"partitions {self.partitions}")
        if self.kept:
            parts.append("from evidence")
        return "this suite: " + ", ".join(parts)

    def notes(self) -> list[str]:
        """Say at length what a row's title says in short: recipe, pre-training, partitions and source."""
        if not self.runs:
            return []
        profile, before = get_profile(self.profile), bool(self.pretraining)
        lengths = []
        for row in self.rows:
            stages = ({"pretraining": True}, {"fine_tuned": True}) if before else ({},)
            recipes = [profile.size_of(row, **stage).recipe for stage in stages]
            lengths.append(f"{row} {', then '.join(map(_length, recipes))}")
        about = f"This suite's rows, profile {self.profile}: {'; '.join(lengths)}"
        if before:
            long = dict(PRETRAINING.values()).get(self.pretraining, self.pretraining)
            about += f". Pre-trained on {long}, then on the training persons of each partition"
        if (trials := len({trial for _, trial in self.runs})) > 1:
            about += f". Mean and interval over {count_noun(trials, 'partitions')} {self.partitions}".rstrip()
            name, options = parse(self.specification)
            if self.profile == "photographs" and name in _CHOSEN_ON:
                share = "a tenth" if options.get("test_persons") == 100 else "half"
                about += f". Recipe chosen on validation persons: each partition tests about {share} of them"
        if self.kept:
            runs = [run for of_seeds in self.runs.values() for run in of_seeds if isinstance(run, Run)]
            commits = dict.fromkeys(str(run.information.get("commit")) for run in runs)
            about += f". From `reports/evidence`: {count_noun(len(runs), 'runs')}, commit {shorten(commits)}"
        return [f"{about}."]

    @property
    def cells(self) -> dict[tuple[str, int], Cell]:
        """(Row, trial) -> row of scores in ``experiment_runs``."""
        return {(row, trial): Cell(_name(row, self.specification, trial)) for row, trial in self.runs}

    @property
    def experiment_runs(self) -> Runs:
        """The runs of all rows and trials; its ``missing`` makes a report run an incomplete page again."""
        runs = {cell.experiment: tuple(self.runs[key]) for key, cell in self.cells.items()}
        missing = [MissingRun(self.read_error, self.specification)] if self.read_error else []
        missing += [run for seed_runs in runs.values() for run in seed_runs if isinstance(run, MissingRun)]
        return Runs(runs, len(next(iter(runs.values()), ())), tuple(missing), self.profile)

    def missing(self) -> list[str]:
        """Return a line for each missing run, with its reason."""
        if self.read_error:
            return [f"{self.specification}: {self.read_error}"]
        return [str(missing) for missing in self.experiment_runs.missing]


def _length(recipe: Recipe) -> str:
    if not recipe.epochs:
        return f"{recipe.steps:,} steps"
    least = f" or {recipe.least_steps:,} steps, whichever is more" if recipe.least_steps else ""
    return f"{recipe.epochs} passes{least}"


def _name(row: str, specification: str, trial: int) -> str:
    return f"{row}, {specification}, trial {trial}"


def training_chains(
    specification: str, folders: Mapping[str, str | Path], setup: Setup, *, trials: int = 0
) -> dict[tuple[str, int, int], tuple[TrainingPlan, ...]]:
    """Return the chain of trainings for each row, trial and seed of a benchmark.

    Args:
        specification: The benchmark with its options.
        folders: Name or specification of a benchmark -> folder.
        setup: Gives the profile and the number of seeds.
        trials: Number of the benchmark's partitions; 0 for all.

    Returns:
        (Row, trial, seed) -> its trainings in order: pre-training, if there is one, and the benchmark.

    Raises:
        InputError: If a folder cannot be read (see ``load``).
    """
    benchmarks = trials_of(specification, folders, trials)
    start = pretraining_stages(specification, folders)
    return {
        (row, trial, seed): plan_chain(row, setup.profile, benchmark, before=start, seed=seed)
        for row in own_rows(table for table in TABLES if table.specification == specification)
        for trial, benchmark in enumerate(benchmarks)
        for seed in range(setup.seeds)
    }


def gather_own_runs(
    specification: str,
    folders: Mapping[str, str | Path],
    setup: Setup,
    *,
    trials: int = 0,
) -> OwnRuns | None:
    """Load this suite's runs on a benchmark, and train those that do not exist yet.

    Args:
        specification: The benchmark with its options.
        folders: Name or specification of a benchmark -> folder.
        setup: Gives profile, seeds and device, and whether runs may be trained.
        trials: Number of the benchmark's partitions; 0 for all.

    Returns:
        The runs; a run that fails, or may not be trained, is a ``MissingRun`` with its reason. None if no
        folder is given for the benchmark.
    """
    if folder_of(specification, folders) is None:
        return None
    try:
        deviations = folder_deviations(specification, folders)
        chain_by_run = training_chains(specification, folders, setup, trials=trials)
    except FAILURES as error:
        return OwnRuns(specification, setup.profile.name, read_error=first_line(error))
    runs: dict[tuple[str, int], list[Run | MissingRun]] = {}
    for (row, trial, seed), links in chain_by_run.items():
        try:
            run = obtain(links, **setup.obtain_options)
        except FAILURES as error:
            run = MissingRun(first_line(error), _name(row, specification, trial), seed)
        runs.setdefault((row, trial), []).append(run)
    *before, last = chain_by_run[OWN_ROWS[0], 0, 0]
    return OwnRuns(
        specification,
        setup.profile.name,
        last.benchmark.num_trials,
        runs,
        pretraining=_pretraining_title(before[-1].benchmark) if before else "",
        deviations=tuple(deviations),
        partitions=_partitions_title(last.benchmark.specification, last.benchmark.fingerprint),
    )


def _pretraining_title(benchmark: Benchmark) -> str:
    """Return what a title calls the sets that runs start from."""
    if benchmark.fingerprint in PRETRAINING:
        return PRETRAINING[benchmark.fingerprint][0]
    names = []
    for member in benchmark.members or (benchmark,):
        options = {key: value for key, value in member.options.items() if key != "trial"}
        part = "part of " if count_deviations(member.name, member.root, **options) else ""
        names.append(part + _title(member.name))
    return " + ".join(names)


def _title(name: str) -> str:
    other = "rendered people" if name == "synthetic" else "own images"
    return GUIDES[name].title if name in GUIDES else other


def _partitions_title(specification: str, data: str) -> str:
    """Say whose partitions those of a benchmark are, given the data of the first; empty if official."""
    name, options = parse(specification)
    if name not in OWN_PARTITIONS:
        return ""
    if data in PUBLISHED_PARTITIONS:
        return f"of {PUBLISHED_PARTITIONS[data]}"
    return f"of {Path(str(options['partitions'])).stem}" if "partitions" in options else "of this suite"


def kept_runs(specification: str, folder: str | Path | None = None) -> tuple[OwnRuns, ...]:
    """Return the runs of the evidence in git on a table's benchmark.

    Args:
        specification: The benchmark with its options.
        folder: The folder of all sets of evidence; by default ``reports/evidence`` of the clone.

    Returns:
        The runs of each profile, file of partitions and pre-training; empty if there are none.

    Raises:
        InputError: If evidence is damaged.
    """
    name, wanted = parse(specification)
    kept = []
    for profile in PROFILES:
        sets: dict[tuple, dict[int, Evidence]] = {}
        for each in Evidence.read_all(profile, folder, benchmark=name):
            own_name, options = parse(each.benchmark)
            trial, file = options.pop("trial", 0), options.pop("partitions", "")
            if each.runs and (own_name, options) == (name, wanted):
                sets.setdefault((file, each.pretraining), {})[trial] = each
        for (_, pretraining), by_trial in sets.items():
            seeds = sorted({seed for each in by_trial.values() for _, seed in each.runs})
            rows = dict.fromkeys(row for each in by_trial.values() for row, _ in each.runs)
            runs = {
                (row, trial): [
                    each.runs.get((row, seed))
                    or MissingRun("no evidence", _name(row, each.benchmark, trial), seed)
                    for seed in seeds
                ]
                for row, (trial, each) in product(rows, sorted(by_trial.items()))
                if any(of_row == row for of_row, _ in each.runs)
            }
            first = by_trial[min(by_trial)]
            start = next(iter(first.runs.values())).start
            names = [_title(parse(text)[0]) for text in re.split(r"\+|, then ", pretraining) if text]
            short = PRETRAINING.get(start["config.json"]["data"] if start else "", (" + ".join(names),))[0]
            partitions = _partitions_title(first.benchmark, first.data if 0 in by_trial else "")
            kept.append(
                OwnRuns(specification, profile, 0, runs, pretraining=short, partitions=partitions, kept=True)
            )
    return tuple(kept)
