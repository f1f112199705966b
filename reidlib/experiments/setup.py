"""From a notebook's parameters to runs: found or trained, and marked as missing where that failed.

Torch is imported when something is to be read or trained, so that a mistake is answered at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from reidlib import files
from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import load, parse
from reidlib.errors import InputError
from reidlib.experiments.rows import Perturbation, Profile, profile_named
from reidlib.training.config import ModelConfiguration, RunConfiguration
from reidlib.training.runs import Run

if TYPE_CHECKING:
    from reidlib.training.device import Execution

logger = logging.getLogger("reidlib")


class Missing(NamedTuple):
    """In the place of a run or its scores: why it is not there."""

    reason: str
    experiment: str = ""
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.experiment}, seed {self.seed}: {self.reason}"


@dataclass(frozen=True)
class Runs:
    """Runs by experiment, one for each seed from 0; missing: what is not there and why."""

    runs: Mapping[str, tuple[Run | Missing, ...]]
    seeds: int
    missing: tuple[Missing, ...] = ()
    profile: str = ""
    query_person_ids: tuple[int, ...] | None = None  # for scores of an older version, which lack them

    @property
    def counts(self) -> list[int]:
        """Of each experiment, how many of its seeds are there."""
        return [sum(isinstance(run, Run) for run in runs) for runs in self.runs.values()]

    @property
    def device(self) -> str:
        """On what the runs were trained, in words; several where they differ."""
        return " and ".join(dict.fromkeys(one["device"] for one in self._trained)) or "none"

    @property
    def _trained(self) -> list[dict]:
        return [run.information for runs in self.runs.values() for run in runs if isinstance(run, Run)]

    def summary(self) -> str:
        """What is there and what is not, as Markdown."""
        trained = self._trained
        lines = ["No run is there."]
        if trained:
            number = "One run" if len(trained) == 1 else f"{len(trained)} runs"
            seconds = sum(one["seconds"] for one in trained)
            lines = [f"{number}, trained in {seconds:.0f} s together on {self.device}."]
        return "\n\n".join([*lines, *(f"- **missing**: {reason}" for reason in self.missing)])

    def records(self) -> list[dict]:
        """What a notebook's result keeps of its runs (see ``record``), and what is missing of them."""
        there = [
            record(name, seed, run)
            for name, runs in self.runs.items()
            for seed, run in enumerate(runs)
            if isinstance(run, Run)
        ]
        lacks = [
            {"experiment": lack.experiment, "seed": lack.seed, "missing": lack.reason}
            for lack in self.missing
        ]
        return there + lacks


def record(experiment: str, seed: int, run: Run) -> dict:
    """What a result keeps of a run: folder, device, commit, seconds."""
    folder = str(run.folder.absolute())
    kept = {"experiment": experiment, "seed": seed, "run": run.folder.name, "folder": folder}
    names = ("device", "seconds", "commit", "processes", "precision")
    return kept | {name: run.information.get(name) for name in names}


@dataclass(frozen=True)
class Setup:
    """What a notebook's parameters or a command's arguments choose, each looked up once.

    profile: given by its name. benchmark: its name and options, as in cuhk03,boxes=detected. data_root: its
    folder; without one the embedded benchmark is used, and rendered if it is not there yet. seeds: trainings
    of each row, with the seeds 0 to ``seeds - 1``. device: see ``Execution``. runs: where trained runs are
    kept (``files.runs()``). may_train: False refuses to train a run that is not there.

    Nothing is read, rendered or trained before it is asked for. Raises InputError for an unknown profile or
    benchmark and for less than one seed.
    """

    profile: Profile
    benchmark: str = "synthetic"
    data_root: str | Path | None = None
    _: KW_ONLY
    seeds: int = 1
    device: str = "auto"
    runs: Path | None = None
    may_train: bool = True
    progress: bool = True
    specification: tuple[str, dict] = field(init=False, repr=False)  # the benchmark's name and its options

    def __post_init__(self):
        if not isinstance(self.profile, Profile):
            object.__setattr__(self, "profile", profile_named(self.profile))
        object.__setattr__(self, "specification", parse(self.benchmark))
        object.__setattr__(self, "runs", Path(self.runs) if self.runs else files.runs())
        if not isinstance(self.seeds, int) or self.seeds < 1:
            raise InputError(
                "a configuration is trained at least once", f"seeds={self.seeds!r}", "use seeds=1 or more"
            )

    def __getstate__(self) -> dict:
        """Another process reads the benchmark itself."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def check_folder(self) -> None:
        """Raises InputError where the benchmark's folder is not given and it cannot be rendered."""
        if self.specification[0] != "synthetic":
            raise InputError(
                f"benchmark {self.benchmark!r} is read from a folder",
                "none",
                "give --data-root (in a notebook: data_root)",
            )
        if self.profile.rendered is None:
            raise InputError(
                f"profile {self.profile.name!r} trains on a real benchmark's folder",
                "none",
                "give --benchmark and --data-root (in a notebook: benchmark and data_root)",
            )

    @cached_property
    def execution(self) -> Execution:
        from reidlib.training.device import Execution

        return Execution(device=self.device, progress=self.progress)

    @cached_property
    def data(self) -> Benchmark:
        """The benchmark. Raises InputError like ``load``, and where a folder is needed and not given."""
        root = self.data_root
        if not root:
            self.check_folder()
            from reidlib.data.synthetic.render import render

            size = self.profile.rendered
            root = render(size, files.data() / f"synthetic-{size}", device=self.execution.rendering_device)
        name, options = self.specification
        return load(name, root, **options)

    @property
    def obtaining(self) -> dict:
        """For ``experiments.obtain.obtain``: where runs are, on what they are trained and whether."""
        return {"runs": self.runs, "execution": self.execution, "may_train": self.may_train}

    def configuration(self, experiment: str) -> RunConfiguration:
        """What the first run of a row of ``EXPERIMENTS`` depends on: the row in the profile's size."""
        from reidlib.experiments.obtain import link

        return link(experiment, self.profile, self.data).wanted

    def obtain(
        self,
        experiment: str,
        seed: int = 0,
        *,
        model: ModelConfiguration | None = None,
        report: Callable[[str], None] = logger.warning,
    ) -> Run:
        """A row's run with its scores, trained where it is not there yet; see ``experiments.obtain``.

        model: in place of the row's own.
        """
        from reidlib.experiments.obtain import link, obtain

        training = link(experiment, self.profile, self.data, seed=seed)
        if model is not None:
            training = training._replace(wanted=replace(training.wanted, model=model))
        return obtain([training], report=report, **self.obtaining)

    def gather(
        self,
        experiments: Iterable[str],
        *,
        under: Mapping[str, Sequence[Perturbation]] | None = None,
        report: Callable[[str], None] = logger.warning,
    ) -> Runs:
        """The runs of some rows, one for each seed.

        A run that is not there is trained, if it may be; one that fails is marked as ``Missing`` and leaves
        the others as they are. under: for some of the rows, the conditions to evaluate them under.
        Raises InputError for unknown names.
        """
        from reidlib.experiments.obtain import FAILURES
        from reidlib.experiments.perturbations import evaluate_under_all

        names = tuple(dict.fromkeys(experiments))
        for name in names:
            self.configuration(name)  # what it refuses is no failure of a training
        found: dict[str, tuple[Run | Missing, ...]] = dict.fromkeys(names, ())
        missing: list[Missing] = []
        for name, seed in product(names, range(self.seeds)):
            try:
                run = self.obtain(name, seed, report=report)
                _ = run.information, run.configuration  # damaged files are found here, not in a table
            except FAILURES as error:
                run = Missing(first_line(error), name, seed)
                missing.append(run)
            found[name] += (run,)
            if isinstance(run, Run) and (wanted := (under or {}).get(name)):
                try:
                    evaluate_under_all(run, wanted, self.data, execution=self.execution)
                except FAILURES as error:  # its other scores are as good as ever
                    missing.append(Missing(f"changed conditions: {first_line(error)}", name, seed))
        persons = tuple(self.data.query.person_ids.tolist())
        return Runs(found, self.seeds, tuple(missing), self.profile.name, persons)


def first_line(error: BaseException) -> str:
    """The first line of what went wrong."""
    return f"{type(error).__name__}: {error}".partition("\n")[0].removeprefix("InputError: ")
