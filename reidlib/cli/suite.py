"""All notebooks (``reidlib reproduce``)."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from reidlib.errors import InputError, shorten

if TYPE_CHECKING:
    from reidlib.experiments import Setup
    from reidlib.reports.notebook import Source
    from reidlib.reports.processes import Memory
    from reidlib.reports.reproduce import Cluster

logger = logging.getLogger("reidlib")


def reproduce(arguments: argparse.Namespace) -> int:
    """Run the notebooks and write a report of their pages, scores and figures.

    A notebook runs as soon as its missing trainings are done, each once, in the
    order of the notebooks. Trainings and notebooks run several at a time: on a CPU
    one for each core, at most four; on a GPU one; or --jobs N. With the profile
    quick each needs about 1.1 GiB of memory. Open index.html at once: it shows each
    page when it is finished, and what is coming.

    Only what has changed runs again, so the same command also continues a report
    that was interrupted by Ctrl-C or killed: finished work is kept, and a training
    continues from its checkpoint.

    A run is found by the configuration in its folder's name, wherever it was
    trained. To use runs from another machine, copy their folders into reports/runs
    and add --no-train. Tables, figures and the claims need only the small files;
    results that need the weights say so if the weights are missing.

    To use several machines, install the extra "cluster"
    (pip install -e '.[cluster]') and start a Dask scheduler and its workers. The
    workers must see the same files as this command:

      dask scheduler
      dask worker tcp://HOST:8786 --nworkers 8 --nthreads 1

    The workers or the command may be killed at any time; the same command does the
    rest.

    --evidence makes the ledger (notebook 90) from the evidence that a clone holds, see
    `reidlib evidence --help`: no training, no images, half a minute. So it makes the
    papers' tables (notebook 42), with rows that were measured on photographs, and
    learning curves (notebook 44), which `reidlib train ROW --curve` trains.

    --until-decided makes the ledger with as many seeds as its claims need. It looks
    at 3, at 5 and at 10 seeds, with intervals of 99.75, 99.25 and 98 %, so that all
    three together err in at most 5 of 100 cases. It trains the rows of claims that
    are still undecided, then looks again; a claim's verdict is that of the first
    look that decides it. Runs of the evidence in git count as finished: with ten
    seeds of all rows there, nothing is trained, and looking takes about a minute.
    Where a row has none of the first three seeds and all rows have three others in
    a row, seeds are counted from these. Where this machine has a run of the same
    row and seed, that is used. Where a training fails, the others go on, and the
    ledger says what the claim waits for; the same command tries it again. With
    --no-train it decides by the runs that are present, with --evidence by the
    evidence alone. For a ledger of own trainings alone, give `reidlib reproduce 90
    --seeds 10`. `reidlib plan` says how many seeds a claim is likely to need.

    examples:
      reidlib reproduce                         all notebooks, the profile quick
      reidlib reproduce 90 --evidence           the ledger from the evidence in git
      reidlib reproduce 42 44 90 --evidence --summary   all three, to reports/README.md
      reidlib reproduce 42 --evidence           the papers' tables from the evidence
      reidlib reproduce 44 --evidence           learning curves from the evidence
      reidlib reproduce 20 --profile smoke      notebook 20 alone, in seconds
      reidlib reproduce --seeds 3 --summary     three trainings of each row
      reidlib reproduce --until-decided         the ledger, with 3, 5 or 10 seeds
      reidlib reproduce --no-train              with the runs that are present
      reidlib reproduce --seeds 5 --scheduler tcp://HOST:8786
      reidlib reproduce --profile paper --benchmark market1501 --data-root DIR
      reidlib reproduce 42 --profile paper --folder cuhk03=DIR --folder grid=DIR
      reidlib reproduce 43 --folder market1501=DIR --folder viper=DIR
      reidlib reproduce 40 --suite all --folder viper=DIR --folder cuhk01=DIR

    files, in reports/PROFILE[-BENCHMARK] or --out DIR:
      index.html             the overview, with links to the pages
      NOTEBOOK/              index.html, the executed notebook.ipynb, result.json,
                             figures and status.json; process.log after a failure
      tasks/TASK.log         what a failed training printed
    The trained runs are in reports/runs, or in --runs DIR.
    """
    from reidlib import files
    from reidlib.experiments.evidence import state as evidence_state
    from reidlib.reports.pages.summary import CLAIMS_RULE, check_rendered
    from reidlib.reports.reproduce import Plan, Task, select
    from reidlib.reports.reproduce import reproduce as run_notebooks

    notebooks = select(arguments.numbers or _numbers(arguments), files.notebooks())
    _check_until_decided(arguments, notebooks)
    if arguments.summary:  # refused before hours of training
        check_rendered({"benchmark": arguments.benchmark})
        if arguments.until_decided:
            rule = "the summary in git has the ledger of all seeds of the evidence"
            raise InputError(rule, "--until-decided", "leave --summary out")
        if [path.stem for path in notebooks] == ["90_claims"] and not arguments.evidence:
            raise InputError(*CLAIMS_RULE)
    _check_evidence(arguments, notebooks)
    if arguments.suite and "40_metric_learning" not in [path.stem for path in notebooks]:
        rule = "--suite says how much of notebook 40 is made"
        raise InputError(rule, shorten([path.stem for path in notebooks]), "give 40, or leave --suite out")
    # The papers' tables need no other benchmark than their own.
    tables_alone = bool(arguments.folder) and [path.stem for path in notebooks] == ["42_benchmarks"]
    setup = suite_setup(arguments)
    tables_alone = tables_alone and arguments.benchmark == "synthetic"
    if not (setup.data_root or tables_alone or arguments.evidence or arguments.until_decided):
        setup.check_data_folder()  # looks ask for images when a training does
    if arguments.no_train and arguments.runs and not setup.runs.is_dir():
        raise InputError(
            "--no-train uses the runs of a folder", f"no folder {arguments.runs}", "give an existing one"
        )
    # This needs torch, which takes seconds to import. Workers on other machines have other devices.
    if arguments.device != "auto" and arguments.scheduler is None:
        from reidlib.training.device import Execution

        _ = Execution(device=arguments.device).torch_device
    folders = folders_by_name(arguments.folder)
    # What the notebooks read besides their parameters.
    inputs = {"data": setup.data.fingerprint} if setup.data_root else {}
    if folders:
        from reidlib.analysis.benchmark_tables import check_folders, folder_states, unreadable_benchmarks
        from reidlib.data import load_specified
        from reidlib.data.readers import parse

        of_tables = dict(folders)
        if [path.stem for path in notebooks] == ["40_metric_learning"]:
            # It reads validation persons of one set, too, of whom no table is.
            from reidlib.experiments.metric_study.published import specifications_of

            for text in specifications_of(folders).values():
                if "validation" in parse(text)[1]:
                    inputs[text] = load_specified(text, of_tables.pop(text)).fingerprint
        check_folders(of_tables)
        # Reported now and not after days of training on the others.
        if [path.stem for path in notebooks] != ["43_across_benchmarks"]:
            for specification, reason in unreadable_benchmarks(of_tables).items():
                logger.warning(f"note: without {specification}: {reason}")
        elif "market1501" in folders:  # there its training folder alone is enough
            across = load_specified("market1501,validation=true", folders["market1501"])
            inputs["across"] = across.fingerprint
        inputs["folders"] = json.dumps(folder_states(of_tables, arguments.trials or 0))
    out = (Path(arguments.out) if arguments.out else report_folder(arguments)).resolve()

    def render() -> None:
        # Rendered here, because the progress of a rendering inside a notebook is not visible.
        size = setup.profile.rendered_size
        if size and not setup.data_root and not (files.data() / f"synthetic-{size}").exists():
            # The workers of a scheduler have other devices than this machine.
            local_setup = setup if arguments.scheduler is None else replace(setup, device="auto")
            _ = local_setup.data

    def cluster() -> Cluster | None:
        if arguments.scheduler is None:
            return None
        from reidlib.reports.cluster import dask_pool

        data = [Path(folder) for folder in (setup.data_root, *folders.values()) if folder]
        shared = (files.home(), setup.runs or files.runs())
        return dask_pool(arguments.scheduler, out=out, shared=shared, files=(*notebooks, *data))

    failed: list[str] = []
    if arguments.until_decided:
        from reidlib.reports.looks import train_until_decided

        failed = train_until_decided(
            notebooks[0],
            replace(setup, may_train=not arguments.no_train),
            out,
            jobs=arguments.jobs,
            evidence_alone=arguments.evidence,
            prepare=render,
            cluster=cluster,
        )
    if arguments.no_train or (arguments.until_decided and not arguments.evidence):
        inputs |= {"runs": _runs_state(setup.runs or files.runs())}
    parameters = {
        "benchmark": arguments.benchmark if arguments.benchmark != "synthetic" else None,
        "data_root": str(setup.data_root) if setup.data_root else None,
        "runs": str(setup.runs) if arguments.runs else None,
        "device": arguments.device if arguments.device != "auto" else None,
        "seeds": arguments.seeds,
        "folders": folders or None,
        "trials": arguments.trials,
        "evidence": True if arguments.evidence else None,
        "until_decided": True if arguments.until_decided else None,
        "suite": arguments.suite,
    }

    def memory() -> Memory:
        from reidlib.reports.tasks import training_memory

        return training_memory(setup)

    plan = Plan(
        notebooks=notebooks,
        profile=arguments.profile,
        out=out,
        jobs=arguments.jobs,
        force=arguments.force,
        parameters={name: value for name, value in parameters.items() if value is not None},
        command=arguments.line,
        # A notebook's tasks come before it: it must not repeat a training that failed.
        neutral_parameters={"may_train": False},
        inputs=inputs,
        # Learning curves, the notebook with a target, are of runs that no task of a report trains.
        inputs_by_parameter={
            "evidence": evidence_state(),
            "target": _curve_state(setup.runs or files.runs()),
        },
        memory=memory,
    )

    def prepare(waiting: tuple[Source, ...]) -> list[Task]:
        from reidlib.reports.tasks import benchmark_tasks, tasks

        if arguments.evidence or arguments.until_decided:
            return []
        render()
        if arguments.no_train:
            return []
        table_tasks: list[Task] = []
        if "42_benchmarks" in [source.name for source in waiting]:
            from reidlib.analysis import benchmark_tables

            table_folders = benchmark_tables.add_data_root(folders, setup.benchmark, setup.data_root)
            table_tasks = benchmark_tasks(table_folders, setup, trials=arguments.trials or 0)
        has_images = setup.profile.rendered_size or setup.data_root
        notebook_tasks = tasks(waiting, setup) if has_images else []
        # A training on the report's own benchmark may be among those of the tables, too.
        names = {task.name for task in notebook_tasks}
        return [task for task in table_tasks if task.name not in names] + notebook_tasks

    outcome = run_notebooks(plan, prepare=prepare, cluster=cluster())
    if arguments.summary:
        from reidlib.reports.pages.summary import write_summary

        write_summary(plan.out, files.project() / "reports")
    return 1 if outcome.failed or outcome.failed_tasks or failed else 0


def suite_setup(arguments: argparse.Namespace) -> Setup:
    """Return the setup of all trainings, with folders that other processes find."""
    from reidlib.experiments import Setup

    return Setup(
        arguments.profile,
        arguments.benchmark,
        Path(arguments.data_root).expanduser().resolve() if arguments.data_root else None,
        seeds=arguments.seeds or 1,
        device=arguments.device,
        runs=Path(arguments.runs).expanduser().resolve() if arguments.runs else None,
        progress=False,
    )


def report_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the report that a command's profile and benchmark have."""
    from reidlib import files

    real = "" if arguments.benchmark == "synthetic" else "-" + files.safe_name(arguments.benchmark)
    evidence = "-evidence" if getattr(arguments, "evidence", False) else ""  # not an option of `train all`
    return files.home() / f"{arguments.profile}{real}{evidence}"


def _numbers(arguments: argparse.Namespace) -> list[str]:
    """Return the notebooks that a command without numbers makes; none: all."""
    return ["90"] if arguments.until_decided else []


def _check_until_decided(arguments: argparse.Namespace, notebooks: Sequence[Path]) -> None:
    """Raise InputError if ``--until-decided`` contradicts another argument."""
    if not arguments.until_decided:
        return
    if arguments.seeds:
        rule = "--until-decided chooses the number of seeds"
        raise InputError(rule, f"--seeds {arguments.seeds}", "leave one of the two out")
    if [path.stem for path in notebooks] != ["90_claims"]:
        rule = "--until-decided makes notebook 90, the ledger"
        names = shorten(path.stem for path in notebooks)
        raise InputError(rule, names, "leave the numbers out, or give 90")


def _check_evidence(arguments: argparse.Namespace, notebooks: Sequence[Path]) -> None:
    """Raise InputError if evidence is damaged, does not serve all notebooks, or contradicts an option."""
    from reidlib.experiments.evidence import Evidence, references
    from reidlib.reports.notebook import read_source

    able = [path.stem.partition("_")[0] for path in notebooks if "evidence" in read_source(path).parameters]
    if able:  # told now and not in notebook 90, after hours of training
        references(arguments.profile, arguments.benchmark)
    if not arguments.evidence:
        return
    if len(able) < len(notebooks):
        names = shorten(path.stem for path in notebooks)
        rule = "--evidence makes notebooks 42, 44 and 90, which then need neither weights nor images"
        raise InputError(rule, names, "give `reidlib reproduce 90 --evidence`")
    options = ("data_root", "runs", "seeds", "no_train", "scheduler", "folder", "trials")
    if given := [f"--{name.replace('_', '-')}" for name in options if getattr(arguments, name)]:
        raise InputError("--evidence takes all runs from reports/evidence", given[0], "leave it out")
    if "90" in able:
        Evidence.read_existing(arguments.profile, arguments.benchmark)


def warn_of_deviations(pretraining: list[tuple[str, str]], setup: Setup) -> None:
    """Warn of images that are left out, and that scores on an incomplete benchmark cannot be compared."""
    from reidlib.data.check import deviations_and_warnings
    from reidlib.data.readers import parse

    folders = pretraining if setup.data_root is None else [*pretraining, (setup.benchmark, setup.data_root)]
    for specification, root in folders:
        name, options = parse(specification)
        deviations, warnings = deviations_and_warnings(name, root, **options)
        for warning in warnings:
            logger.warning(f"note: {warning}")
        if deviations and root == setup.data_root and name != "synthetic":
            logger.warning(
                f"note: this is not the whole of {name}, so that its scores cannot be compared: "
                f"{shorten(deviations, 2)} (reidlib check {setup.benchmark} {setup.data_root})"
            )


def pretraining_folders(arguments: argparse.Namespace) -> list[tuple[str, str]]:
    """Return the benchmarks of --pretrain with absolute folders; rendered people are rendered if needed."""
    from reidlib.experiments import Setup

    def folder_of(name: str, folder: str) -> str:
        if folder:
            return str(Path(folder).expanduser().absolute())
        setup = Setup(arguments.profile, name, device=arguments.device)
        if setup.profile.rendered_size is None:
            rule = "people are rendered to pre-train on in the size of a profile that has one"
            raise InputError(rule, f"profile {arguments.profile}", f"give a rendered folder, {name}=DIR")
        return str(setup.data.root)

    return [(name, folder_of(name, folder)) for name, folder in arguments.pretrain]


def folders_by_name(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return the benchmarks' absolute folders by name; InputError if a name is repeated."""
    folders = {name: str(Path(folder).expanduser().absolute()) for name, folder in pairs}
    if len(folders) < len(pairs):
        names = ", ".join(name for name, _ in pairs)
        raise InputError("a benchmark's folder is given once", names, "give one folder for each benchmark")
    return folders


def _curve_state(folder: Path) -> str:
    """Return a fingerprint of a folder's runs on thinned images, and of those that started from others."""
    from reidlib.data.readers.thinning import THINNING

    return _runs_state(folder, [*(f"*{name}=*" for name in THINNING), "*-pretrained*"])


def _runs_state(folder: Path, runs: Iterable[str] = "*") -> str:
    """Return a fingerprint of a folder's runs, by patterns of their names, and of their scores."""
    import hashlib

    files = sorted(
        path
        for run, pattern in product(runs, ("*.json", "*/*.json", "*.npz", "*.jsonl", "weights.pt"))
        for path in folder.glob(f"{run}/{pattern}")
    )
    state = [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(state).encode("utf-8", "surrogateescape")).hexdigest()
