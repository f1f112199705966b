"""Finished runs of rows, those of this machine and those of the evidence, found without reading an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from reidlib import files
from reidlib.errors import InputError, count_noun
from reidlib.experiments.evidence.lines import row_of
from reidlib.experiments.evidence.sets import Evidence, same_images
from reidlib.experiments.rows import Perturbation, configure, get_profile
from reidlib.experiments.setup import MissingRun, Runs, Setup, first_line
from reidlib.training.runs import Run, configuration_hash, find_failure

# How the reason begins that a run whose training failed is missing.
FAILED = "its training failed: "


@dataclass(frozen=True)
class Finished:
    """The finished runs of a profile and a benchmark.

    Where both have a run of a row and a seed, this machine's is used: who trains is judged by own trainings.

    Attributes:
        profile: Name of the profile.
        benchmark: Name and options of the benchmark.
        folder: Folder of this machine's runs.
        data: Fingerprint of the benchmark's images and persons; empty without any run.
        own: (Row, seed) -> the run of this machine.
        kept: (Row, seed) -> the run of the evidence in git.
        notes: What a reader must know: runs that are not used.
    """

    profile: str
    benchmark: str
    folder: Path
    data: str = ""
    own: Mapping[tuple[str, int], Run] = field(default_factory=dict)
    kept: Mapping[tuple[str, int], Run] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, setup: Setup, *, evidence_alone: bool = False) -> Finished:
        """Read the finished runs that serve today's rows, all of the same images.

        Args:
            setup: Profile, benchmark and folder of runs. Its images are read if they are at hand, that is, if
                it has a folder of images or they are rendered already.
            evidence_alone: Whether this machine's runs are left out.

        Returns:
            The runs. Without images at hand, they are those of the evidence's images; without evidence, those
            of the first run's.

        Raises:
            InputError: If evidence is damaged, or the benchmark's folder is not valid.
        """
        evidence = Evidence.read(setup.profile.name, setup.benchmark)
        found = [] if evidence_alone else [*_own_runs(setup)]
        data = setup.data.fingerprint if not evidence_alone and images_at_hand(setup) else evidence.data
        data = data or next((run.configuration["data"] for *_, run in found), "")
        # Of a row and a seed there may be a run on these images and one on those that the folder had before.
        own = {(row, seed): run for row, seed, run in found if run.configuration["data"] == data}
        kept, notes = (evidence.runs, evidence.notes) if same_images(evidence.data, data) else ({}, ())
        if evidence.runs and not kept:
            notes = (f"the evidence is not used: it is of other images (data {evidence.data}, here {data})",)
        if others := sum(run.configuration["data"] != data for *_, run in found):
            notes += (f"{count_noun(others, 'runs')} not used: of other images, in {setup.runs}",)
        return cls(setup.profile.name, setup.benchmark, setup.runs, data, own, kept, notes)

    def run(
        self, row: str, seed: int, perturbations: Sequence[Perturbation] = (), metrics: Sequence[str] = ()
    ) -> Run | None:
        """Return the run of a row and a seed, if there is one rather with all of these further scores."""
        from reidlib.experiments.metric_study.kept import kept_scores
        from reidlib.experiments.perturbations import stored_scores

        def is_complete(run: Run) -> bool:
            further = [stored_scores(run, each) for each in perturbations]
            return all([*further, *(kept_scores(run, each) for each in metrics)])

        runs = [runs[row, seed] for runs in (self.own, self.kept) if (row, seed) in runs]
        return next(filter(is_complete, runs), runs[0] if runs else None)

    def gather(
        self,
        experiments: Iterable[str],
        seeds: int,
        perturbations: Mapping[str, Sequence[Perturbation]] | None = None,
        metrics: Mapping[str, Sequence[str]] | None = None,
    ) -> Runs:
        """Return the runs of several rows with the seeds 0 to ``seeds - 1``, as ``Setup.gather`` does.

        Args:
            experiments: Names of rows of ``EXPERIMENTS``.
            seeds: Number of seeds.
            perturbations: By row, perturbations under which scores are needed.
            metrics: By row, learnt metrics by which scores are needed.

        Returns:
            The runs; a missing one says why its training failed, if it did.
        """
        runs: dict[str, tuple[Run | MissingRun, ...]] = {}
        for name in dict.fromkeys(experiments):
            further = (perturbations or {}).get(name, ()), (metrics or {}).get(name, ())
            found = (self.run(name, seed, *further) for seed in range(seeds))
            runs[name] = tuple(run or self._missing(name, seed) for seed, run in enumerate(found))
        missing = tuple(run for of_row in runs.values() for run in of_row if isinstance(run, MissingRun))
        return Runs(runs, seeds, missing, self.profile, benchmark=self.benchmark)

    def seeds(self, row: str) -> set[int]:
        """Return the seeds of a row's runs."""
        return {seed for name, seed in (*self.own, *self.kept) if name == row}

    def sources(self, runs: Runs) -> str:
        """Say where gathered runs are from, as in "12 runs of this machine, 33 of reports/evidence"."""
        gathered = [run for of_row in runs.runs.values() for run in of_row if isinstance(run, Run)]
        kept = sum(run in gathered for run in self.kept.values())
        return f"{len(gathered) - kept} runs of this machine, {kept} of reports/evidence"

    def _missing(self, row: str, seed: int) -> MissingRun:
        identity = {"benchmark": self.benchmark, "data": self.data, "seed": seed}
        content = configure(row, get_profile(self.profile), **identity)[0].to_json()
        failure = find_failure(content, self.folder)
        return MissingRun(f"{FAILED}{failure}" if failure else "not trained", row, seed)


def images_at_hand(setup: Setup) -> bool:
    """Return whether a setup's images need not be rendered first."""
    size = setup.profile.rendered_size
    rendered = setup.benchmark == "synthetic" and size is not None
    return bool(setup.data_root) or (rendered and (files.data() / f"synthetic-{size}").exists())


def obtain_missing(
    setup: Setup,
    missing: Mapping[str, Iterable[int]],
    perturbations: Mapping[str, Sequence[Perturbation]] | None = None,
    metrics: Mapping[str, Sequence[str]] | None = None,
) -> list[MissingRun]:
    """Find or train runs here, one after another, and evaluate them.

    Args:
        setup: Profile, benchmark and folder of runs.
        missing: Row -> seeds.
        perturbations: By row, perturbations to evaluate.
        metrics: By row, learnt metrics to score runs by.

    Returns:
        What failed; the others are not affected.
    """
    from reidlib.experiments.metric_study.kept import score_run
    from reidlib.experiments.obtain import FAILURES
    from reidlib.experiments.perturbations import evaluate_perturbations

    failed = []
    for name, seed in ((name, seed) for name, seeds in missing.items() for seed in seeds):
        try:
            run = setup.obtain(name, seed)
            under = {run: (perturbations or {}).get(name, ())}
            for error in evaluate_perturbations(under, setup.data, execution=setup.execution).values():
                raise error
            if metrics and name in metrics:
                score_run(run, setup.data, metrics[name], execution=setup.execution)
        except FAILURES as error:
            failed.append(MissingRun(first_line(error), name, seed))
    return failed


def _own_runs(setup: Setup) -> Iterator[tuple[str, int, Run]]:
    """Yield row, seed and run of the scored runs in a setup's folder that are those of a row today."""
    for path in sorted(setup.runs.glob("*/run.json")):
        run = Run(path.parent)
        with suppress(InputError, KeyError, AttributeError, TypeError):  # damaged: it is trained again
            scores, content = run.scores or {}, run.configuration
            profile, row = row_of(content) if content["benchmark"] == setup.benchmark else ("", "")
            # A training finds its run by the hash at the end of the folder's name.
            is_found = path.parent.name.endswith(f"-{configuration_hash(content)}")
            if is_found and profile == setup.profile.name and scores["data"] == content["data"]:
                _ = run.information["device"], run.information["seconds"]
                yield row, content["seed"], run
