"""The command line: ``reidlib …`` or ``python -m reidlib …``.

Nothing heavy is imported before it is needed, so that a misspelt argument is answered at once.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from reidlib import __version__
from reidlib.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Wrong arguments in one line, without the usage that hides it."""

    def error(self, message: str):
        print(f"reidlib: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"a whole number from 1 is needed, not {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isdecimal() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 to 2147483647, not {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="reidlib", description="Experiments on two person re-identification papers.")
    parser.add_argument("--version", action="version", version=f"reidlib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--profile", default="quick", help="smoke, quick (default), full or paper")
    data.add_argument("--benchmark", default="synthetic", help="synthetic (default) or market1501")
    data.add_argument("--data-root", metavar="DIR", help="the benchmark's folder; rendered if not given")
    data.add_argument("--runs", metavar="DIR", help="where trained runs are kept")
    data.add_argument("--device", default="auto", help="auto (default), cuda, mps or cpu")

    reproduce = commands.add_parser("reproduce", parents=[data], help="run the notebooks, write the report")
    reproduce.add_argument("numbers", nargs="*", metavar="NUMBER", help="notebooks, such as 20; none: all")
    reproduce.add_argument(
        "--jobs",
        type=_positive,
        metavar="N",
        help="notebooks and trainings at a time, which need about 1.1 GiB of memory each (quick); "
        "default: one a core, at most 4; one with a GPU; all workers of a scheduler",
    )
    reproduce.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="run on the workers of this Dask scheduler, which share the command's files",
    )
    reproduce.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        help="trainings of each row: one says nothing about others, two little, three or more do",
    )
    reproduce.add_argument(
        "--no-train", action="store_true", help="use the runs that are there; mark missing ones as missing"
    )
    reproduce.add_argument("--force", action="store_true", help="run unchanged notebooks again")
    reproduce.add_argument("--out", metavar="DIR", help="where the report goes (reports/PROFILE[-BENCHMARK])")
    reproduce.add_argument(
        "--summary", action="store_true", help="also renew reports/README.md and its figures from this report"
    )
    reproduce.set_defaults(function=_reproduce)

    train = commands.add_parser("train", parents=[data], help="train a model and evaluate it")
    train.add_argument("model", metavar="MODEL", help="jlml, pyramid, or another row of reidlib.experiments")
    train.add_argument("--seed", type=_seed, default=0, metavar="N")
    train.add_argument("--compile", action="store_true", help="torch.compile: slow start, faster steps")
    train.set_defaults(function=_train)

    evaluate = commands.add_parser("evaluate", help="score a trained run again")
    evaluate.add_argument("run", metavar="RUN", help="a run's folder")
    evaluate.add_argument("--data-root", metavar="DIR", help="the benchmark's folder, if it has moved")
    evaluate.add_argument("--device", default="auto", help="auto (default), cuda, mps or cpu")
    evaluate.set_defaults(function=_evaluate)

    check = commands.add_parser("check", help="compare a benchmark's folder with what belongs there")
    check.add_argument("name", metavar="NAME", help="market1501 or synthetic")
    check.add_argument("root", metavar="ROOT", help="the benchmark's folder")
    check.set_defaults(function=_check)

    render = commands.add_parser("render", help="render the embedded benchmark")
    render.add_argument("size", metavar="SIZE", help="smoke, quick or full")
    render.add_argument("folder", metavar="FOLDER")
    render.add_argument("--seed", type=_seed, default=0, metavar="N")
    render.add_argument("--device", default="auto", help="auto (default), cuda or cpu")
    render.set_defaults(function=_render)
    return parser


def _reproduce(arguments: argparse.Namespace) -> int:
    from reidlib import locations
    from reidlib.cluster import connected
    from reidlib.profiles import SYNTHETIC_SIZES, check_data
    from reidlib.reproduce import Plan, Task, reproduce, select

    check_data(arguments.profile, arguments.benchmark, arguments.data_root)
    if arguments.no_train and arguments.runs and not Path(arguments.runs).is_dir():
        raise InputError(
            "--no-train uses the runs of a folder", f"no folder {arguments.runs}", "name another"
        )
    # Asked of torch, which takes seconds to import; workers elsewhere have other devices.
    if arguments.device != "auto" and arguments.scheduler is None:
        from reidlib.execution import Execution

        _ = Execution(device=arguments.device).torch_device
    parameters = {
        "benchmark": arguments.benchmark if arguments.benchmark != "synthetic" else None,
        "data_root": str(Path(arguments.data_root).resolve()) if arguments.data_root else None,
        "runs": str(Path(arguments.runs).resolve()) if arguments.runs else None,
        "device": arguments.device if arguments.device != "auto" else None,
        "seeds": arguments.seeds,
    }
    real = "" if arguments.benchmark == "synthetic" else f"-{arguments.benchmark}"
    out = Path(arguments.out) if arguments.out else locations.home() / f"{arguments.profile}{real}"
    plan = Plan(
        notebooks=select(arguments.numbers, locations.notebooks()),
        profile=arguments.profile,
        out=out.resolve(),
        jobs=arguments.jobs,
        force=arguments.force,
        parameters={name: value for name, value in parameters.items() if value is not None},
        command=arguments.line,
        # The tasks have trained what could be: a notebook must not try a failed training again.
        settled={"may_train": False},
        inputs=_data_state(arguments) | (_runs_state(arguments) if arguments.no_train else {}),
    )

    def prepare(waiting: tuple[str, ...]) -> list[Task]:
        from reidlib import sweeps

        # Here and not in the first notebook, where nobody would see its progress.
        size = SYNTHETIC_SIZES[arguments.profile]
        if size and not arguments.data_root and not (locations.data() / f"synthetic-{size}").exists():
            from reidlib.experiments import open_benchmark

            open_benchmark(
                arguments.profile, device="auto" if arguments.scheduler is not None else arguments.device
            )
        if arguments.no_train:
            return []
        return sweeps.tasks(
            waiting,
            arguments.profile,
            arguments.benchmark,
            parameters["data_root"],
            seeds=arguments.seeds or 1,
            runs=parameters["runs"],
            device=arguments.device,
        )

    cluster = None
    if arguments.scheduler is not None:
        runs = Path(arguments.runs).resolve() if arguments.runs else locations.runs()
        data = [Path(parameters["data_root"])] if arguments.data_root else []
        cluster = connected(
            arguments.scheduler,
            out=plan.out,
            shared=(locations.home(), runs),
            files=(*plan.notebooks, *data),
        )
    outcome = reproduce(plan, prepare=prepare, cluster=cluster)
    if arguments.summary:
        from reidlib.reporting import summary

        summary.write_summary(plan.out, locations.project() / "reports")
    return 1 if outcome.failed or outcome.failed_tasks else 0


def _train(arguments: argparse.Namespace) -> int:
    from reidlib import distributed
    from reidlib.execution import Execution
    from reidlib.experiments import check_experiment, configuration, obtain, open_benchmark

    check_experiment(arguments.model)
    with distributed.joined(Execution(device=arguments.device, compile=arguments.compile)) as execution:
        first, processes = distributed.world().rank == 0, distributed.world().size
        say = print if first else lambda text: None
        with distributed.first_alone():  # it may have to render
            benchmark = open_benchmark(
                arguments.profile, arguments.benchmark, arguments.data_root, device=execution.device
            )
        wanted = configuration(arguments.model, arguments.profile, benchmark, seed=arguments.seed)
        say(
            f"training {arguments.model} on {benchmark.name} ({len(benchmark.train)} images) "
            f"on {execution.describe()}" + (f" in {processes} processes" if processes > 1 else "")
        )
        run = obtain(
            wanted,
            benchmark,
            name=f"{arguments.model}-{arguments.profile}-{benchmark.name}-seed{arguments.seed}",
            runs=arguments.runs,
            execution=execution,
        )
        say(_score_table(run.scores))
        say(f"run: {run.folder}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from reidlib.data import load
    from reidlib.evaluation import evaluate_run
    from reidlib.execution import Execution
    from reidlib.runs import Run

    run = Run.open(arguments.run)
    root = arguments.data_root or run.information.get("data_root", "")
    if not Path(root).is_dir():
        raise InputError(
            "a run is evaluated on the folder it was trained on", f"no {root or 'folder'}", "give --data-root"
        )
    benchmark = load(run.configuration["benchmark"], Path(root))
    print(f"evaluating {run.folder.name} on {benchmark.name} in {benchmark.root}")
    print(_score_table(evaluate_run(run, benchmark, execution=Execution(device=arguments.device))))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from reidlib.data.checking import check

    report = check(arguments.name, Path(arguments.root))
    print(report.text())
    return 0 if report.ok else 1


def _render(arguments: argparse.Namespace) -> int:
    from reidlib.data.synthetic import render
    from reidlib.experiments import rendering_device

    device = rendering_device(arguments.device)
    folder = render(arguments.size, Path(arguments.folder), seed=arguments.seed, device=device)
    print(f"{arguments.size}: {folder}")
    return 0


def _data_state(arguments: argparse.Namespace) -> dict[str, str]:
    """What the notebooks read besides their parameters: the real data's fingerprint, if there is any."""
    if not arguments.data_root:
        return {}
    from reidlib.data import load

    return {"data": load(arguments.benchmark, Path(arguments.data_root)).fingerprint}


def _runs_state(arguments: argparse.Namespace) -> dict[str, str]:
    """Which runs and scores are there, where what is shown depends on it."""
    import hashlib

    from reidlib import locations

    folder = Path(arguments.runs) if arguments.runs else locations.runs()
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
    full = scores["branches"]["full"]["step"]
    rows.append(f"{full['num_valid_queries']} of {full['num_queries']} queries have a match in the gallery")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> int:
    """Run one command. 0: done; 1: it ran and found failures; 2: bad input; 130: interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    parsed = _parser().parse_args(given)
    # As a report repeats it: without the paths of this machine.
    parsed.line = shlex.join(
        ["reidlib", *(f"…/{Path(word).name}" if Path(word).is_absolute() else word for word in given)]
    )
    try:
        return parsed.function(parsed)
    except InputError as error:
        print(f"reidlib: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"reidlib: stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"reidlib: {str(error) or 'interrupted; the same command goes on'}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
