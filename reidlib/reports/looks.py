"""The trainings of ``reidlib reproduce --until-decided``, look by look."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from reidlib.analysis import ExperimentScores
from reidlib.analysis.claims import CLAIMS, SIGNS
from reidlib.analysis.claims.sequential import decide_sequentially, gather_until_decided, waits_for
from reidlib.errors import count_noun
from reidlib.experiments.evidence.finished import Finished
from reidlib.experiments.setup import Setup
from reidlib.reports.notebook import read_source
from reidlib.reports.processes import Memory
from reidlib.reports.reproduce import Cluster, run_tasks
from reidlib.reports.tasks import tasks, training_memory

logger = logging.getLogger("reidlib")


def train_until_decided(
    notebook: Path,
    setup: Setup,
    out: Path,
    *,
    evidence_alone: bool = False,
    jobs: int | None = None,
    prepare: Callable[[], object],
    cluster: Callable[[], Cluster | None] = lambda: None,
) -> list[str]:
    """Train the rows of undecided claims look by look, and say what is decided.

    Args:
        notebook: The ledger's file, which names the rows and perturbations.
        setup: Profile, benchmark and folder of the runs.
        out: The report's folder, which gets the logs.
        evidence_alone: Whether this machine's runs are left out, and nothing is trained.
        jobs: Trainings at a time; see ``reproduce.Plan``.
        prepare: Renders or checks the images; called before the first training, and not if there is none.
        cluster: Returns a pool on other machines, for each look anew; None for this machine.

    Returns:
        The names of the tasks that failed.
    """
    source = read_source(notebook)
    failed: list[str] = []
    notes: dict[str, None] = {}

    def tell(finished: Finished) -> None:
        for note in finished.notes:
            if note not in notes:
                logger.warning(f"note: {note}")
        notes.update(dict.fromkeys(finished.notes))

    def prepare_and_tell() -> None:
        if not setup.data_root:
            setup.check_data_folder()
        prepare()
        tell(Finished.read(setup))  # before hours of training that evidence of other images does not spare

    def train(missing: Mapping[str, tuple[int, ...]]) -> None:
        seeds = {seed for of_row in missing.values() for seed in of_row}
        text = f"the next look is at {max(seeds) + 1} seeds of {count_noun(len(missing), 'rows')}"
        logger.info(f"{text}, of which {count_noun(sum(map(len, missing.values())), 'runs')} are missing")
        pool = cluster()
        states = run_tasks(
            lambda: tasks([source], setup, missing),
            out,
            jobs=jobs,
            device=setup.device,
            memory=Memory() if pool else training_memory(setup),
            cluster=pool,
        )
        failed.extend(name for name, state in states.items() if state == "failed")

    runs, finished = gather_until_decided(
        setup, evidence_alone=evidence_alone, train=train, prepare=prepare_and_tell
    )
    tell(finished)
    scores = ExperimentScores(runs)
    print(finished.sources(runs))
    for claim in CLAIMS:
        verdict = decide_sequentially(claim, scores)
        if verdict.intervals:
            waiting = waits_for(claim, scores)
            text = f"{SIGNS[verdict.outcome]} {claim.name}: {verdict.outcome} ({verdict.look})"
            print(f"{text}; {waiting}" if waiting else text)
    return failed
