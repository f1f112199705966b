"""The command line: ``reidlib …`` or ``python -m reidlib …``.

Nothing heavy is imported before it is needed, so that a misspelt argument is answered at once.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from reidlib import __version__
from reidlib.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Wrong arguments in one line, without the usage that hides it."""

    def error(self, message: str):
        print(f"reidlib: error: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)

    def value(self, name: str, metavar: str, about: str, **settings) -> None:
        self.add_argument(name, metavar=metavar, help=about, **settings)

    def flag(self, name: str, about: str) -> None:
        self.add_argument(name, action="store_true", help=about)

    def number(self, name: str, about: str, least: int = 1, default: int | None = None) -> None:
        read = _whole_number(f"a whole number from {least} is needed", least)
        self.value(name, "N", about, type=read, default=default)

    def folders(self, name: str, about: str) -> None:
        """Folders of benchmarks, one each time that the option is given."""
        self.value(name, "NAME=DIR", about, type=_named_folder, action="append", default=[])


def _whole_number(rule: str, least: int = 0, below: float = math.inf) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) < below):
            raise argparse.ArgumentTypeError(f"{rule}, not {text!r}")
        return int(text)

    return read


_seed = _whole_number("a seed is a whole number from 0 to 2147483647", below=2**31)


def _share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a share such as 0.001 is needed, not {text!r}") from None


def _named_folder(text: str) -> tuple[str, str]:
    from reidlib.data.readers import parse

    # Options have an = in them, and so may the folder: the first one before which all is a benchmark's name.
    pieces = text.split("=")
    parts = [("=".join(pieces[:end]), "=".join(pieces[end:])) for end in range(1, len(pieces))]
    if not parts or not parts[0][0] or not parts[0][1]:
        raise argparse.ArgumentTypeError(f"a benchmark and its folder are needed, NAME=DIR, not {text!r}")
    for name, folder in parts:
        with contextlib.suppress(InputError):
            parse(name)
            return name, folder
    return parts[0]


def _option(name: str, **settings) -> argparse.ArgumentParser:
    """A parser of one option, which several commands have in common."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(name, **settings)
    return parser


def _parser(line: str) -> argparse.ArgumentParser:
    parser = _Parser(prog="reidlib", description="Experiments on two person re-identification papers.")
    parser.add_argument("--version", action="version", version=f"reidlib {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, about: str, *parents: argparse.ArgumentParser) -> _Parser:
        return commands.add_parser(name, help=about, parents=parents)

    device = _option("--device", default="auto", help="auto (default), cuda, mps or cpu")
    seed = _option("--seed", type=_seed, default=0, metavar="N")
    run = _option("run", metavar="RUN", help="a trained run's folder")
    data = _Parser(add_help=False)
    data.add_argument("--profile", default="quick", help="smoke, quick (default), full or paper")
    data.value(
        "--benchmark",
        "NAME",
        "synthetic (default), or NAME[,OPTION=VALUE…] such as cuhk03,boxes=detected,trial=3",
        default="synthetic",
    )
    data.value("--data-root", "DIR", "the benchmark's folder; rendered if not given")
    data.value("--runs", "DIR", "where trained runs are kept")

    reproduce = command("reproduce", "run the notebooks, write the report", data, device)
    reproduce.set_defaults(line=line)
    reproduce.value("numbers", "NUMBER", "notebooks, such as 20; none: all", nargs="*")
    reproduce.number(
        "--jobs",
        "notebooks and trainings at a time, which need about 1.1 GiB of memory each (quick); "
        "default: one a core, at most 4; one with a GPU; all workers of a scheduler",
    )
    reproduce.value(
        "--scheduler", "ADDRESS", "run on the workers of this Dask scheduler, which share the command's files"
    )
    reproduce.number(
        "--seeds", "trainings of each row: one says nothing about others, two little, three or more do"
    )
    reproduce.flag("--no-train", "use the runs that are there; mark missing ones as missing")
    reproduce.folders(
        "--folder", "a benchmark's folder for the papers' tables (42_benchmarks); may be given for several"
    )
    reproduce.number(
        "--trials", "of the benchmarks in the papers' tables the first N partitions; default: all"
    )
    reproduce.flag("--force", "run unchanged notebooks again")
    reproduce.value("--out", "DIR", "where the report goes (reports/PROFILE[-BENCHMARK])")
    reproduce.flag("--summary", "also renew reports/README.md and its figures from this report")

    train = command("train", "train a model and evaluate it", data, device, seed)
    train.value("model", "MODEL", "jlml, pyramid, or another row of reidlib.experiments")
    train.folders(
        "--pretrain",
        "train on this benchmark first, and start from there; given several times: on all together",
    )
    train.flag("--compile", "torch.compile: slow start, faster steps")

    evaluate = command("evaluate", "score a trained run again", run, device)
    evaluate.value("--data-root", "DIR", "the benchmark's folder, if it has moved")
    evaluate.flag("--distractors", "also with the further distractors of Market-1501")

    check = command("check", "compare a benchmark's folder with what belongs there")
    check.value("name", "NAME", "a benchmark, NAME[,OPTION=VALUE…]")
    check.value("root", "ROOT", "the benchmark's folder")
    check.flag("--again", "read images again that could be read and have not changed since")

    embed = command("embed", "write features of own images to a file", run, device)
    embed.value("images", "IMAGES", "an image, a folder, a folder per person, or a CSV")
    embed.value("out", "OUT", "a new file, .npz or .parquet")

    search = command("search", "find the people of some images among others", device)
    search.value(
        "query", "QUERY", "an image, a folder, a folder per person, a CSV, or a file of `reidlib embed`"
    )
    search.value("gallery", "GALLERY", "where to look, given in the same way")
    search.value("--run", "RUN", "a trained run's folder; not needed for files of features")
    search.value("--out", "DIR", "where lists, sheet and histogram go", required=True)
    search.number("--top", "images a list (default %(default)s)", default=10)
    search.value(
        "--false-match-rate",
        "SHARE",
        "pairs of different people that the threshold may take for one person (default 0.001)",
        type=_share,
    )
    search.value(
        "--calibrate",
        "IMAGES",
        "images of known people to measure the threshold on; default: those among QUERY and GALLERY",
    )
    search.flag(
        "--same-camera", "also measure on pairs of one person in one camera, for images of a single camera"
    )
    search.number("--sheet", "queries on the contact sheet (default %(default)s)", least=0, default=20)

    render = command("render", "render the embedded benchmark", seed)
    render.value("size", "SIZE", "smoke, quick or full")
    render.add_argument("folder", metavar="FOLDER")
    render.add_argument("--device", default="auto", help="auto (default), cuda or cpu")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command. 0: done; 1: it ran and found failures; 2: bad input; 130: interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    # As a report repeats it: without the paths of this machine.
    words = (f"…/{Path(word).name}" if Path(word).is_absolute() else word for word in given)
    parsed = _parser(shlex.join(["reidlib", *words])).parse_args(given)
    command = vars(parsed).pop("command")
    try:
        return getattr(import_module("reidlib.cli.commands"), command)(parsed)
    except InputError as error:
        print(f"reidlib: error: {error}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"reidlib: stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"reidlib: {str(error) or 'interrupted; the same command goes on'}", file=sys.stderr)
        return 130
