"""What each command does, once its arguments are read.

Nothing heavy is imported before it is needed, so that a mistake is answered at once.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reidlib.errors import InputError, shorten

if TYPE_CHECKING:
    from reidlib.data import Benchmark
    from reidlib.experiments import Setup
    from reidlib.reports.notebook import Source


def reproduce(arguments: argparse.Namespace) -> int:
    """Run the notebooks and write the report. Returns the exit status."""
    from reidlib import files
    from reidlib.experiments import Setup
    from reidlib.reports.cluster import connected
    from reidlib.reports.reproduce import Plan, Task, select
    from reidlib.reports.reproduce import reproduce as run_notebooks

    notebooks = select(arguments.numbers, files.notebooks())
    # The papers' tables need no benchmark besides their own.
    tables_alone = bool(arguments.folder) and [path.stem for path in notebooks] == ["42_benchmarks"]
    setup = Setup(
        arguments.profile,
        arguments.benchmark,
        Path(arguments.data_root).resolve() if arguments.data_root else None,
        seeds=arguments.seeds or 1,
        device=arguments.device,
        runs=Path(arguments.runs).resolve() if arguments.runs else None,
        progress=False,
    )
    if not setup.data_root and not (tables_alone and arguments.benchmark == "synthetic"):
        setup.check_folder()
    if arguments.no_train and arguments.runs and not Path(arguments.runs).is_dir():
        raise InputError(
            "--no-train uses the runs of a folder", f"no folder {arguments.runs}", "name another"
        )
    # Asked of torch, which takes seconds to import; workers elsewhere have other devices.
    if arguments.device != "auto" and arguments.scheduler is None:
        from reidlib.training.device import Execution

        _ = Execution(device=arguments.device).torch_device
    folders = _folders(arguments.folder)
    if folders:
        from reidlib.analysis.benchmark_tables import check_folders, state, unread

        check_folders(folders)
        # Found out now and not after days of training on the others.
        for specification, reason in unread(folders).items():
            print(f"note: without {specification}: {reason}")
    # What the notebooks read besides their parameters.
    inputs = {"data": setup.data.fingerprint} if setup.data_root else {}
    if folders:
        inputs["folders"] = json.dumps(state(folders, arguments.trials or 0))
    if arguments.no_train:
        inputs |= _runs_state(setup.runs)
    parameters = {
        "benchmark": arguments.benchmark if arguments.benchmark != "synthetic" else None,
        "data_root": str(setup.data_root) if setup.data_root else None,
        "runs": str(setup.runs) if arguments.runs else None,
        "device": arguments.device if arguments.device != "auto" else None,
        "seeds": arguments.seeds,
        "folders": folders or None,
        "trials": arguments.trials,
    }
    real = "" if arguments.benchmark == "synthetic" else "-" + files.safe_name(arguments.benchmark)
    out = Path(arguments.out) if arguments.out else files.home() / f"{arguments.profile}{real}"
    plan = Plan(
        notebooks=notebooks,
        profile=arguments.profile,
        out=out.resolve(),
        jobs=arguments.jobs,
        force=arguments.force,
        parameters={name: value for name, value in parameters.items() if value is not None},
        command=arguments.line,
        # The tasks have trained what could be: a notebook must not try a failed training again.
        settled={"may_train": False},
        inputs=inputs,
    )

    def prepare(waiting: tuple[Source, ...]) -> list[Task]:
        from reidlib.reports.tasks import benchmark_tasks, tasks

        # Here and not in the first notebook, where nobody would see its progress.
        size = setup.profile.rendered
        if size and not setup.data_root and not (files.data() / f"synthetic-{size}").exists():
            # The workers of a scheduler have other devices.
            here = setup if arguments.scheduler is None else replace(setup, device="auto")
            _ = here.data
        if arguments.no_train:
            return []
        on_folders: list[Task] = []
        if "42_benchmarks" in [source.name for source in waiting]:
            from reidlib.analysis import benchmark_tables

            given = benchmark_tables.given(folders, setup.specification[0], setup.data_root)
            on_folders = benchmark_tasks(given, setup, trials=arguments.trials or 0)
        wanted: list[Task] = []
        if size or setup.data_root:
            wanted = tasks(waiting, setup)
        # A training on the benchmark at hand may stand among the tables', too.
        names = {task.name for task in wanted}
        return [task for task in on_folders if task.name not in names] + wanted

    cluster = None
    if arguments.scheduler is not None:
        data = [Path(one) for one in (parameters["data_root"], *folders.values()) if one]
        cluster = connected(
            arguments.scheduler,
            out=plan.out,
            shared=(files.home(), setup.runs),
            files=(*plan.notebooks, *data),
        )
    outcome = run_notebooks(plan, prepare=prepare, cluster=cluster)
    if arguments.summary:
        from reidlib.reports.pages import write_summary

        write_summary(plan.out, files.project() / "reports")
    return 1 if outcome.failed or outcome.failed_tasks else 0


def train(arguments: argparse.Namespace) -> int:
    """Train a model and evaluate it. Returns the exit status."""
    from reidlib.experiments import Setup
    from reidlib.experiments.obtain import chain, obtain
    from reidlib.experiments.rows import experiment_named
    from reidlib.training import distributed
    from reidlib.training.device import Execution

    experiment_named(arguments.model)
    with distributed.process_group(
        Execution(device=arguments.device, compile=arguments.compile)
    ) as execution:
        first, processes = distributed.world().rank == 0, distributed.world().size
        say = print if first else lambda text: None
        with distributed.first_alone():  # it may have to render
            setup = Setup(
                arguments.profile, arguments.benchmark, arguments.data_root, device=execution.device
            )
            benchmark = setup.data
        with distributed.first_alone():  # some readers extract images
            before = _pretraining(arguments.pretrain)
        if first:
            _say_what_lacks(setup)
        links = chain(arguments.model, setup.profile, benchmark, before=before, seed=arguments.seed)
        for data in (*before, benchmark):
            say(
                f"training {arguments.model} on {data.specification} ({len(data.train)} images) "
                f"on {execution.describe()}" + (f" in {processes} processes" if processes > 1 else "")
            )
        run = obtain(links, runs=arguments.runs, execution=execution)
        say(_score_table(run.scores))
        say(f"run: {run.folder}")
    return 0


def _say_what_lacks(setup: Setup) -> None:
    """A part of a benchmark can be trained on, but its scores are not the benchmark's."""
    from reidlib.data.check import count_deviations

    name, options = setup.specification
    if setup.data_root is None or name == "synthetic":
        return
    if found := count_deviations(name, setup.data_root, **options):
        print(
            f"note: this is not the whole of {name}, so that its scores cannot be compared: "
            f"{shorten(found, 2)} (reidlib check {setup.benchmark} {setup.data_root})"
        )


def _pretraining(given: list[tuple[str, str]]) -> tuple[Benchmark, ...]:
    """What is trained on first: one benchmark, several joined, or nothing."""
    from reidlib.data import load_specified
    from reidlib.data.benchmark import combine

    benchmarks = [load_specified(name, Path(folder)) for name, folder in given]
    return (combine(benchmarks),) if len(benchmarks) > 1 else tuple(benchmarks)


def evaluate(arguments: argparse.Namespace) -> int:
    """Score a trained run again. Returns the exit status."""
    from reidlib.experiments.evaluate import benchmark_of, evaluate_run, evaluate_with_distractors
    from reidlib.training.device import Execution
    from reidlib.training.runs import Run

    run = Run.open(arguments.run)
    benchmark = benchmark_of(run, arguments.data_root or "", distractors=arguments.distractors)
    print(f"evaluating {run.folder.name} on {benchmark.specification} in {benchmark.root}")
    execution = Execution(device=arguments.device)
    print(_score_table(evaluate_run(run, benchmark, execution=execution)))
    if arguments.distractors:
        found = evaluate_with_distractors(run, benchmark, execution=execution)
        print(f"with {found['num_distractors']:,} further distractors: {_in_short(found)}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Compare a benchmark's folder with what belongs there. Returns the exit status."""
    from reidlib.data.check import check as check_folder
    from reidlib.data.readers import parse

    name, options = parse(arguments.name)
    report = check_folder(name, Path(arguments.root), again=arguments.again, **options)
    print(report.text())
    return 0 if report.ok else 1


def embed(arguments: argparse.Namespace) -> int:
    """Write features of own images. Returns the exit status."""
    from reidlib.search.features import write_features

    found = write_features(arguments.run, arguments.images, arguments.out, device=arguments.device)
    print(f"{len(found):,} images, {found.features.shape[1]} numbers each: {arguments.out}")
    return 0


def search(arguments: argparse.Namespace) -> int:
    """Find the people of some images among others. Returns the exit status."""
    from reidlib.search import search as search_images

    print(search_images(**vars(arguments)).text)
    return 0


def render(arguments: argparse.Namespace) -> int:
    """Render the embedded benchmark. Returns the exit status."""
    from reidlib.data.synthetic.render import render as render_benchmark
    from reidlib.training.device import Execution

    device = Execution(device=arguments.device).rendering_device
    folder = render_benchmark(arguments.size, Path(arguments.folder), seed=arguments.seed, device=device)
    print(f"{arguments.size}: {folder}")
    return 0


def _folders(given: list[tuple[str, str]]) -> dict[str, str]:
    """Benchmarks' folders by name, absolute; InputError for one that is given twice."""
    folders = {name: str(Path(folder).expanduser().absolute()) for name, folder in given}
    if len(folders) < len(given):
        twice = [name for name, _ in given]
        raise InputError("a benchmark's folder is given once", ", ".join(twice), "leave the others out")
    return folders


def _runs_state(folder: Path) -> dict[str, str]:
    """Which runs and scores are there, where what is shown depends on it."""
    import hashlib

    files = sorted(
        path
        for pattern in ("*/*.json", "*/conditions/*.json", "*/*.npz", "*/*.jsonl", "*/weights.pt")
        for path in folder.glob(pattern)
    )
    state = [f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return {"runs": hashlib.sha256("\n".join(state).encode()).hexdigest()}


def _score_table(scores: dict) -> str:
    """R1, mAP both ways and mINP of each branch in per cent, as text."""
    rows = ["feature   R1    R5    R10   mAP (trapezoid)  mAP (step)  mINP"]
    for name, kinds in scores["branches"].items():
        step, trapezoid = kinds["step"], kinds["trapezoid"]
        rows.append(
            f"{name:7} "
            + " ".join(f"{100 * step['cmc'][rank]:5.1f}" for rank in ("1", "5", "10"))
            + f"  {100 * trapezoid['mean_average_precision']:15.1f}  "
            + f"{100 * step['mean_average_precision']:10.1f} {100 * step['mean_inp']:5.1f}"
        )
    full = scores["branches"]["full"]
    for pooling, kinds in full.get("multi_query", {}).items():
        rows.append(f"multi-query ({pooling} of its boxes): {_in_short(kinds)}")
    for title, found in full.get("protocols", {}).items():
        shares = ", ".join(f"R{rank} {100 * share:.1f}" for rank, share in found["cmc"].items())
        rows.append(f"{title} (the benchmark's own protocol): {shares}")
    step = full["step"]
    rows.append(f"{step['num_valid_queries']} of {step['num_queries']} queries have a match in the gallery")
    return "\n".join(rows)


def _in_short(kinds: dict) -> str:
    """R1 and mAP both ways in per cent, in a line."""
    step, trapezoid = kinds["step"], kinds["trapezoid"]
    return (
        f"R1 {100 * step['cmc']['1']:.1f}, mAP {100 * trapezoid['mean_average_precision']:.1f} (trapezoid), "
        f"{100 * step['mean_average_precision']:.1f} (step)"
    )
