"""From a notebook's parameters to runs, which are loaded, trained, or marked as missing.

Torch is imported only to read or train something, so errors in the parameters appear at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import canonical, load, parse
from reidlib.errors import InputError
from reidlib.experiments.rows import Perturbation, Profile, get_profile
from reidlib.training.config import ModelConfiguration, RunConfiguration
from reidlib.training.runs import Run
from reidlib.values import read_value

if TYPE_CHECKING:
    from reidlib.training.device import Execution


class MissingRun(NamedTuple):
    """A placeholder for a run, or for its scores, that is not available.

    Attributes:
        reason: Why it is missing, in one line.
        experiment: Name of the row of ``EXPERIMENTS``.
        seed: Seed of the run.
    """

    reason: str
    experiment: str = ""
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.experiment}, seed {self.seed}: {self.reason}"


@dataclass(frozen=True)
class Runs:
    """The runs of several experiments.

    Attributes:
        runs: The runs of each experiment, one for each of the same seeds.
        seeds: Number of seeds.
        missing: Runs and scores that are not available.
        profile: Name of the profile.
        query_person_ids: Identities of the Q query images, for stored scores of an old format without them.
        benchmark: Name and options of the benchmark; empty if not known.
        seed_numbers: The seeds, ascending; empty for those from 0 to ``seeds - 1``.
    """

    runs: Mapping[str, tuple[Run | MissingRun, ...]]
    seeds: int
    missing: tuple[MissingRun, ...] = ()
    profile: str = ""
    query_person_ids: tuple[int, ...] | None = None
    benchmark: str = ""
    seed_numbers: tuple[int, ...] = ()

    @property
    def requested(self) -> int | None:
        """Number of seeds that were asked for; None of gathered evidence, which holds what there is."""
        return None if self.seed_numbers else self.seeds

    @property
    def counts(self) -> list[int]:
        """The number of available runs of each experiment."""
        return [sum(isinstance(run, Run) for run in runs) for runs in self.runs.values()]

    @property
    def device(self) -> str:
        """The names of the devices on which the runs were trained."""
        return "; ".join(dict.fromkeys(record["device"] for record in self._information)) or "none"

    @property
    def _information(self) -> list[dict]:
        return [run.information for runs in self.runs.values() for run in runs if isinstance(run, Run)]

    def summary(self) -> str:
        """Return the number of runs, their duration and device, and the missing runs, as Markdown."""
        information = self._information
        lines = ["No run is available."]
        if information:
            number = "One run" if len(information) == 1 else f"{len(information)} runs"
            seconds = sum(record["seconds"] for record in information)
            lines = [f"{number}, trained in {seconds:.0f} s together on {self.device}."]
        return "\n\n".join([*lines, *(f"- **missing**: {missing}" for missing in self.missing)])

    def records(self) -> list[dict]:
        """Return the entry of each run (see ``record``) and of each missing run in ``result.json``."""
        available = [
            record(name, run.configuration["seed"], run)
            for name, runs in self.runs.items()
            for run in runs
            if isinstance(run, Run)
        ]
        missing = [
            {"experiment": missing.experiment, "seed": missing.seed, "missing": missing.reason}
            for missing in self.missing
        ]
        return available + missing


def record(experiment: str, seed: int, run: Run) -> dict:
    """Return a run's entry in ``result.json``: folder, device, seconds, commit, processes, precision."""
    folder = str(run.folder.absolute()) if run.folder.is_dir() else ""  # evidence has none
    entry = {"experiment": experiment, "seed": seed, "run": run.folder.name, "folder": folder}
    names = ("device", "seconds", "commit", "processes", "precision")
    return entry | {name: run.information.get(name) for name in names}


@dataclass(frozen=True, init=False)
class Setup:
    """Profile, benchmark and seeds of a notebook or a command, and the way from them to runs.

    Nothing is read, rendered or trained before a method or property needs it.

    Args:
        profile: The profile or its name, a key of ``rows.PROFILES``. The attribute is the profile.
        benchmark: Name and options of the benchmark, as in "cuhk03,boxes=detected".
        data_root: The benchmark's folder. Only the embedded benchmark ("synthetic") needs none: it is
            rendered if needed.
        seeds: Number of trainings of each experiment, with seeds 0 to ``seeds - 1``.
        device: Device of trainings and evaluations; see ``Execution``.
        runs: Folder of trained runs; ``files.runs()`` by default.
        may_train: Whether a missing run is trained; with False it is an InputError.
        progress: Whether to show progress bars.

    Raises:
        InputError: If the profile or the benchmark is unknown, or ``seeds`` is less than 1.
    """

    profile: Profile
    benchmark: str
    data_root: str | Path | None
    seeds: int
    device: str
    runs: Path
    may_train: bool
    progress: bool
    specification: tuple[str, dict] = field(init=False, repr=False)  # name and options of the benchmark

    def __init__(
        self,
        profile: Profile | str,
        benchmark: str = "synthetic",
        data_root: str | Path | None = None,
        *,
        seeds: int = 1,
        device: str = "auto",
        runs: str | Path | None = None,
        may_train: bool = True,
        progress: bool = True,
    ):
        vars(self).update(  # the attributes themselves are frozen
            profile=profile if isinstance(profile, Profile) else get_profile(profile),
            benchmark=canonical(benchmark),  # as trainings write it, so that their runs are found
            data_root=data_root,
            seeds=read_value("seeds", seeds, range(1, 2**31)),
            device=device,
            runs=Path(runs).expanduser() if runs else files.runs(),
            may_train=read_value("may_train", may_train, bool),
            progress=progress,
            specification=parse(benchmark),
        )

    def __getstate__(self) -> dict:
        """Return the fields only; another process reads the benchmark itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def check_data_folder(self) -> None:
        """Raise InputError if the benchmark cannot be rendered, for the case that no folder is given."""
        if self.specification[0] != "synthetic":
            raise InputError(
                f"benchmark {self.benchmark!r} is read from a folder",
                "none",
                "give --data-root (in a notebook: data_root)",
            )
        if self.profile.rendered_size is None:
            raise InputError(
                f"profile {self.profile.name!r} trains on a real benchmark's folder",
                "none",
                "give --benchmark and --data-root (in a notebook: benchmark and data_root)",
            )

    @cached_property
    def execution(self) -> Execution:
        """Device and progress of trainings and evaluations."""
        from reidlib.training.device import Execution

        return Execution(device=self.device, progress=self.progress)

    @cached_property
    def data(self) -> Benchmark:
        """The benchmark, read or rendered at the first access.

        Raises:
            InputError: If the folder is missing, or is not a valid copy of the benchmark.
        """
        root = self.data_root
        if not root:
            self.check_data_folder()
            from reidlib.data.synthetic.render import render

            size = self.profile.rendered_size
            assert size is not None  # see check_data_folder
            root = render(size, files.data() / f"synthetic-{size}", device=self.execution.rendering_device)
        name, options = self.specification
        benchmark = load(name, root, **options)
        benchmark.check_scorable()
        return benchmark

    @property
    def obtain_options(self) -> dict:
        """Keyword arguments ``runs``, ``execution`` and ``may_train`` of ``experiments.obtain.obtain``."""
        return {"runs": self.runs, "execution": self.execution, "may_train": self.may_train}

    def configuration(self, experiment: str) -> RunConfiguration:
        """Return the configuration of an experiment's run with seed 0, in this profile and on this benchmark.

        Args:
            experiment: Name of a row of ``EXPERIMENTS``.

        Returns:
            The configuration.

        Raises:
            InputError: If the name is unknown, or the benchmark cannot be read.
        """
        from reidlib.experiments.obtain import plan_training

        return plan_training(experiment, self.profile, self.data).configuration

    def obtain(
        self,
        experiment: str,
        seed: int = 0,
        *,
        model: ModelConfiguration | None = None,
    ) -> Run:
        """Return an experiment's run with its scores; train and evaluate it if necessary.

        Args:
            experiment: Name of a row of ``EXPERIMENTS``.
            seed: Seed of the training.
            model: Configuration to use instead of the row's.

        Returns:
            The finished and evaluated run.

        Raises:
            InputError: If the name is unknown, the benchmark cannot be read, its training images fill no
                batch, an image cannot be decoded, or the run is missing and ``may_train`` is False.
            FloatingPointError: If a loss becomes infinite or NaN.
        """
        from reidlib.experiments.obtain import TrainingPlan, obtain, plan_training

        name, configuration, benchmark = plan_training(experiment, self.profile, self.data, seed=seed)
        if model is not None:
            configuration = replace(configuration, model=model)
        return obtain([TrainingPlan(name, configuration, benchmark)], **self.obtain_options)

    def gather(
        self,
        experiments: Iterable[str],
        *,
        perturbations: Mapping[str, Sequence[Perturbation]] | None = None,
        metrics: Mapping[str, Sequence[str]] | None = None,
    ) -> Runs:
        """Return the runs of several experiments, one for each seed.

        A missing run is trained if ``may_train`` allows it. A run that fails is marked as ``MissingRun``; the
        other runs are not affected.

        Args:
            experiments: Names of rows of ``EXPERIMENTS``.
            perturbations: Perturbations to evaluate, by the experiment's name.
            metrics: Learnt metrics to score runs by, by the experiment's name (``metric_study.kept``).

        Returns:
            The runs.

        Raises:
            InputError: If a name is unknown, or the benchmark cannot be read.
        """
        from reidlib.experiments.metric_study.kept import score_run
        from reidlib.experiments.obtain import FAILURES
        from reidlib.experiments.perturbations import evaluate_perturbations

        names = tuple(dict.fromkeys(experiments))
        for name in names:
            self.configuration(name)  # errors here concern the arguments, not a training
        runs: dict[str, tuple[Run | MissingRun, ...]] = dict.fromkeys(names, ())
        missing: list[MissingRun] = []
        requests: dict[Run, tuple[str, int]] = {}
        for name, seed in product(names, range(self.seeds)):
            try:
                run = self.obtain(name, seed)
                _ = run.information, run.configuration  # damaged files are reported here, not in a table
            except FAILURES as error:
                run = MissingRun(first_line(error), name, seed)
                missing.append(run)
            runs[name] += (run,)
            if isinstance(run, Run) and perturbations and name in perturbations:
                requests[run] = name, seed
            if isinstance(run, Run) and metrics and name in metrics:
                try:
                    results = score_run(run, self.data, metrics[name], execution=self.execution).values()
                except FAILURES as error:
                    results = (error,)
                errors = dict.fromkeys(first_line(each) for each in results if isinstance(each, Exception))
                missing += [MissingRun(f"learnt metrics: {error}", name, seed) for error in errors]
        under = {run: perturbations[name] for run, (name, _) in requests.items()} if perturbations else {}
        try:
            errors = evaluate_perturbations(under, self.data, execution=self.execution)
        except FAILURES as error:
            errors = dict.fromkeys(under, error)
        for run, error in errors.items():  # the runs' other scores remain valid
            missing.append(MissingRun(f"perturbations: {first_line(error)}", *requests[run]))
        persons = tuple(self.data.query.person_ids.tolist())
        return Runs(runs, self.seeds, tuple(missing), self.profile.name, persons, self.data.specification)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the type unless it is InputError."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].removeprefix("InputError: ")
