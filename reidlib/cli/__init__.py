"""The command line: ``reidlib …`` or ``python -m reidlib …``.

Heavy modules are imported only when they are needed, so that a misspelt argument is reported at once.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import inspect
import keyword
import logging
import math
import os
import re
import shlex
import signal
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path

from reidlib import __version__
from reidlib.cli import commands
from reidlib.errors import InputError, one_line
from reidlib.text import printable_streams

logger = logging.getLogger("reidlib")

_ABOUT = """Experiments on two person re-identification papers, JLML and Pyramid."""
_EPILOG = """\
`reidlib COMMAND --help` describes a command, with examples and the files that it writes.

profiles (--profile):
  smoke    does it run? seconds
  quick    the default: small networks on the embedded benchmark; two CPU cores
  full     full widths and inputs, on an embedded benchmark of Market-1501's size; one GPU
  photographs
           full widths and small inputs for photographs, and a recipe for fine-tuning after --pretrain, on a
           real benchmark's folder; two CPU cores
  paper    the papers' recipes as far as known, on a real benchmark's folder

examples:
  reidlib reproduce
  reidlib train jlml
  reidlib check market1501 DIR
  reidlib search queries/ images/ --run reports/runs/NAME --out found
  reidlib clean

Long work shows its progress: a bar on a terminal, one line a minute in a log file.
After Ctrl-C or a kill, give the same command again: trainings, reports, features and
extractions continue where they stopped, other work starts again. Generated files are
in reports/, or in $REIDLIB_HOME if it is set. Results go to standard output, progress
and messages to standard error.

exit status: 0 success; 1 it ran and found failures; 2 bad input; 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """A parser that reports wrong arguments in one line, without the usage."""

    lists: tuple[Callable[[], str], ...] = ()  # what the help ends with; called only when it is printed

    def format_help(self) -> str:
        return "\n".join([super().format_help(), *(text() for text in self.lists)])

    def error(self, message: str):
        print(f"reidlib: error: {one_line(message)}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)

    def value(self, name: str, metavar: str, about: str, **settings) -> None:
        self.add_argument(name, metavar=metavar, help=about, **settings)

    def flag(self, name: str, about: str) -> None:
        self.add_argument(name, action="store_true", help=about)

    def number(self, name: str, about: str, least: int = 1, default: int | None = None) -> None:
        read = _whole_number(f"a whole number from {least} is needed", least)
        self.value(name, "N", about, type=read, default=default)

    def folders(self, name: str, about: str) -> None:
        """Add an option for a benchmark's folder that can be repeated."""
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


def _points(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (points := float(text)) < math.inf:
            return points
    raise argparse.ArgumentTypeError(f"an effect is a number of points above zero, such as 1, not {text!r}")


def _power(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (share := float(text)) < 1:
            return share
    raise argparse.ArgumentTypeError(f"a power is a share between 0 and 1, such as 0.8, not {text!r}")


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"a field and its value are needed, FIELD=VALUE, not {text!r}")
    return name.strip(), value


def _trials(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    return name, _whole_number("a number of partitions, [NAME=]N, is a whole number from 1", 1)(number)


def _named_folder(text: str) -> tuple[str, str]:
    from reidlib.data.readers import parse

    # Options contain =, and the folder may, too: split at the first = that follows a valid specification.
    pieces = text.split("=")
    candidates = [("=".join(pieces[:end]), "=".join(pieces[end:])) for end in range(1, len(pieces))]
    if not candidates or not candidates[0][0] or not candidates[0][1]:
        raise argparse.ArgumentTypeError(f"a benchmark and its folder are needed, NAME=DIR, not {text!r}")
    for name, folder in candidates:
        with contextlib.suppress(InputError):
            parse(name)
            return name, folder
    return candidates[0]


def _pretraining(text: str) -> tuple[str, str]:
    return (text, "") if text == "synthetic" else _named_folder(text)


def _benchmarks() -> str:
    """List the registered benchmarks, their options with defaults, and the content of their folders."""
    from reidlib.data.readers import BENCHMARKS, GUIDES

    lines = ["benchmarks: NAME[,OPTION=VALUE…], here with the defaults; trial=N selects a partition;"]
    lines += ["train_persons=N and images_per_person=K keep fewer training images of any of them"]
    for name, reader in BENCHMARKS.items():
        parameters = list(inspect.signature(reader).parameters.values())[1:]
        options = (
            f",{parameter.name}={parameter.default if parameter.default != '' else 'FILE'}"
            for parameter in parameters
        )
        summary = (inspect.getdoc(reader) or "").partition("\n")[0]
        content = f"DIR holds {GUIDES[name].layout}" if name in GUIDES else summary
        lines += [f"  {name}{''.join(options).replace('False', 'false')}"]
        lines += _wrapped(content.replace("``", "`"), indent=6)
    return "\n".join(lines) + "\n"


def _models() -> str:
    """List the rows of the experiments."""
    from reidlib.experiments.rows import EXPERIMENTS

    heading = "models, and their variants in the papers' ablations:"
    return "\n".join([heading, *_wrapped(", ".join(EXPERIMENTS))]) + "\n"


def _kinds() -> str:
    """List the kinds of generated files."""
    from reidlib.cli.disk import KINDS

    lines = [f"  {name:12} {kind.about}; again: {kind.again}" for name, kind in KINDS.items()]
    return "\n".join(["kinds, and what makes them again:", *lines]) + "\n"


def _fields() -> str:
    """List the fields of ``--set``."""
    from reidlib.experiments.rows import configure, get_profile, settable_fields

    both = {}
    for model in ("jlml", "pyramid"):
        fields = settable_fields(configure(model, get_profile("quick"), benchmark="", data="")[0])
        both |= {name: f"{name} ({model})" if name not in both else name for name in fields}
    return "\n".join(["fields of --set:", *_wrapped(", ".join(both.values()))]) + "\n"


def _spellings() -> str:
    """List which spellings of a person or a camera are one name."""
    from reidlib.data.names import SPELLINGS

    return SPELLINGS


def _wrapped(text: str, indent: int = 2) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, 84, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)


def _option(name: str, **settings) -> _Parser:
    """Return a parser of one option that several commands share."""
    parser = _Parser(add_help=False)
    parser.add_argument(name, **settings)
    return parser


def _function(command: str) -> Callable[[argparse.Namespace], int]:
    return getattr(commands, f"{command}_" if keyword.iskeyword(command) else command)


def _parser(line: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter  # keeps the lines of descriptions and epilogs
    parser = _Parser(prog="reidlib", description=_ABOUT, epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"reidlib {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, about: str, *parents: _Parser) -> _Parser:
        text = inspect.getdoc(_function(name)) or ""
        description, heading, examples = text.partition("examples:\n")
        return parsers.add_parser(
            name,
            help=about,
            description=description,
            epilog=heading + examples,
            formatter_class=raw,
            parents=parents,
        )

    device = _option("--device", default="auto", help="auto (default), cuda, mps or cpu")
    seed = _option(
        "--seed", type=_seed, default=0, metavar="N", help="seed of all random numbers (default 0)"
    )
    run = _option("run", metavar="RUN", help="a trained run's folder")
    data = _Parser(add_help=False)
    profiles = "smoke, quick (default), full, photographs or paper"
    data.add_argument("--profile", default="quick", help=profiles)
    data.value(
        "--benchmark",
        "NAME",
        "synthetic (default), or NAME[,OPTION=VALUE…] such as cuhk03,boxes=detected,trial=3; "
        "`reidlib check --help` lists the names",
        default="synthetic",
    )
    data.value("--data-root", "DIR", "the benchmark's folder; without it, synthetic is rendered")
    data.value("--runs", "DIR", "the folder of trained runs (default: reports/runs)")

    reproduce = command("reproduce", "run the notebooks and write the report", data, device)
    reproduce.set_defaults(line=line)
    reproduce.value("numbers", "NUMBER", "notebooks, such as 20 (default: all)", nargs="*")
    reproduce.number(
        "--jobs",
        "notebooks and trainings at a time, as many as memory allows, each about 1.1 GiB (quick); default: "
        "one for each core, at most 4; one on a GPU; all workers of a scheduler",
    )
    reproduce.value(
        "--scheduler", "ADDRESS", "run on the workers of this Dask scheduler, which see this command's files"
    )
    reproduce.number(
        "--seeds",
        "trainings of each row, with the seeds 0 to N − 1: one shows nothing of the spread over seeds, two "
        "little; use three or more",
    )
    reproduce.flag("--no-train", "use the runs that are present, and mark the others as missing")
    reproduce.flag("--evidence", "make notebooks 42, 44 or 90 from reports/evidence alone, without training")
    reproduce.flag(
        "--until-decided",
        "make notebook 90 with 3, 5 or 10 trainings of each row, as many as its claims need",
    )
    reproduce.folders(
        "--folder", "a benchmark's folder for notebooks 40, 42 (the papers' tables) and 43; repeatable"
    )
    reproduce.value(
        "--suite",
        "NAME",
        "all: in notebook 40 also GOG, and other settings of the papers' rows, which take minutes "
        "(default: usual)",
        choices=("usual", "all"),
    )
    reproduce.number("--trials", "in the papers' tables, use the first N partitions (default: all)")
    reproduce.flag("--force", "run unchanged notebooks again")
    reproduce.value("--out", "DIR", "the report's folder (default: reports/PROFILE[-BENCHMARK])")
    reproduce.flag(
        "--summary",
        "also write reports/notebooks.md (with --evidence reports/README.md) and figures from this report",
    )

    train = command("train", "train a model and evaluate it", data, device, seed)
    train.lists = (_models, _fields, _benchmarks)
    train.value(
        "model",
        "MODEL",
        "jlml, pyramid or another row of reidlib.experiments.EXPERIMENTS, or all: each row of a notebook",
    )
    train.flag("--curve", "train on fewer persons, and fewer images of each, from several starts")
    train.number("--seeds", "with all, --curve: trainings of each row, with the seeds 0 to N − 1 (default 1)")
    train.number(
        "--jobs",
        "with all, --curve: trainings at a time, as many as memory allows; default: one for each core, at "
        "most 4; one on a GPU",
    )
    train.value(
        "--set",
        "FIELD=VALUE",
        "set a field of the configuration, such as recipe.epochs=40; repeatable, and listed below",
        type=_setting,
        action="append",
        default=[],
    )
    train.number(
        "--validate",
        "hold N training persons out, drawn by the seed, to score the network on them while it trains",
        least=2,
    )
    train.value(
        "--pretrain",
        "NAME=DIR",
        "train on this benchmark first and start from there; repeated: on all of them together; synthetic "
        "alone is rendered people",
        type=_pretraining,
        action="append",
        default=[],
    )
    train.folders(
        "--folder", "with all: a benchmark's folder, for the rows of the papers' tables; repeatable"
    )
    train.value(
        "--trials",
        "[NAME=]N",
        "with --folder: the first N partitions of this or of every benchmark (default: all); repeatable",
        type=_trials,
        action="append",
        default=[],
    )
    train.flag("--compile", "use torch.compile: slower start, faster steps")

    plan = command("plan", "say how many seeds each claim needs, and how long they take", data)
    plan.value("claims", "CLAIM", "claims by name (default: all)", nargs="*")
    plan.value(
        "--effect", "POINTS", "a true difference in points of mAP (default 1)", type=_points, default=1.0
    )
    plan.value(
        "--power",
        "SHARE",
        "how often such a difference is to be shown (default 0.8)",
        type=_power,
        default=0.8,
    )

    imports = command("import", "make a run of a checkpoint that other code wrote", data)
    imports.lists = (_benchmarks,)
    imports.value("checkpoint", "CHECKPOINT", "the file, which torch.save wrote")
    imports.value("--as", "NETWORK", "the network: pyramid", dest="network", required=True)

    evaluate = command("evaluate", "score a trained run again", run, device)
    evaluate.lists = (_benchmarks,)
    evaluate.value(
        "--benchmark", "NAME", "score it on another benchmark, NAME[,OPTION=VALUE…] of the list below"
    )
    evaluate.value("--data-root", "DIR", "that benchmark's folder, or the run's own if it has moved")
    evaluate.value(
        "--profile", "PROFILE", "the size to render --benchmark synthetic in: smoke, quick (default) or full"
    )
    evaluate.flag("--distractors", "also score with the additional distractors of Market-1501")
    evaluate.value(
        "--metrics",
        "NAME[,NAME…]",
        "score it by learnt metrics instead, and keep the scores: all, or of KISSME, XQDA, NFST, CRAFT",
    )

    evidence = command("evidence", "list or add the small files of runs that are kept in git")
    evidence.value("action", "add", "add runs; without it, list what there is", nargs="?")
    evidence.value("source", "FOLDER", "a run, a folder of runs, or a folder of evidence", nargs="?")
    evidence.value("--to", "DIR", "the folder of evidence (default: reports/evidence of the clone)")

    tables = command("tables", "write the ledger and tables as CSV and LaTeX")
    tables.set_defaults(line=line)
    tables.value("folder", "DIR", "the folder of the tables")
    tables.add_argument("--profile", default="quick", help=profiles)
    tables.value(
        "--benchmark",
        "NAME",
        "this benchmark alone, NAME[,OPTION=VALUE…] (default: rendered people and photographs)",
    )
    tables.value("--runs", "DIR", "a folder of runs, or of evidence, in place of reports/evidence")

    check = command("check", "compare a benchmark's folder with the official counts and rules")
    check.lists = (_benchmarks, _spellings)
    check.value("name", "NAME", "a benchmark, NAME[,OPTION=VALUE…]")
    check.value("root", "ROOT", "the benchmark's folder, or the file of csv")
    check.flag("--again", "also read unchanged images that an earlier check could read")

    embed = command("embed", "write features of your own images to a file", run, device)
    embed.value("images", "IMAGES", "an image, a folder, a folder for each person, or a CSV")
    embed.value("out", "OUT", "a new file, .npz or .parquet")

    search = command("search", "search images for the people of some query images", device)
    search.lists = (_spellings,)
    search.value(
        "query", "QUERY", "an image, a folder, a folder for each person, a CSV, or a file of `reidlib embed`"
    )
    search.value("gallery", "GALLERY", "the images to search, in one of the same forms")
    search.value("--run", "RUN", "a trained run's folder; not needed for files of features")
    search.value("--out", "DIR", "the folder of the results", required=True)
    search.number("--top", "images in each ranked list (default %(default)s)", default=10)
    search.value(
        "--false-match-rate",
        "SHARE",
        "share of the pairs of different people that the threshold may take for one person (default 0.001)",
        type=_share,
    )
    search.value(
        "--calibrate",
        "IMAGES",
        "images of known people to measure the threshold on (default: those in QUERY and GALLERY)",
    )
    search.flag(
        "--same-camera", "also measure on pairs of one person in one camera, for images from a single camera"
    )
    search.number("--sheet", "queries on the contact sheet (default %(default)s)", least=0, default=20)

    render = command("render", "render the embedded benchmark", seed)
    render.value("size", "SIZE", "smoke, quick or full")
    render.value("folder", "FOLDER", "the folder to write")
    render.add_argument("--device", default="auto", help="auto (default), cuda or cpu")

    disk = command("disk", "say what is in the folder of generated files")
    clean = command("clean", "remove generated files that may go")
    for either in (disk, clean):
        either.lists = (_kinds,)
        either.value("what", "WHAT", "a kind of the list below, or an entry of one", nargs="*")
    clean.number("--older", "only what is unchanged for N days (default 0)", least=0, default=0)
    clean.flag("--yes", "remove it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command of ``reidlib``.

    Results go to standard output. Progress, messages of the logger ``reidlib`` and one line for each error
    go to standard error. If that logger has a handler, its messages go to this handler instead. They do not
    go to handlers of the root logger meanwhile.

    Args:
        arguments: The words of the command line after ``reidlib``; by default those of this process.

    Returns:
        The exit status: 0 for success, 1 if the command found failures, 2 for bad input, 130 if it was
        interrupted.

    Raises:
        SystemExit: After ``--help`` and ``--version`` (status 0), and if the arguments cannot be parsed
            (status 2).
    """
    try:
        with printable_streams():
            try:
                return _run(sys.argv[1:] if arguments is None else arguments)
            finally:
                _flush()
    finally:
        if arguments is None:  # all is done: Ctrl-C while Python ends is no error to report
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _flush() -> None:
    """Write what standard output still holds; end with an exit status if it takes no more."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try again while it ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, wants no more
            raise SystemExit(1) from None
        mend = "free some disk space, or redirect the output to another file"
        refusal = InputError("standard output can be written", error.strerror, mend)
        print(f"reidlib: error: {refusal}", file=sys.stderr)
        raise SystemExit(2) from None


def _run(words: list[str]) -> int:
    """Run one command and turn its errors into lines and an exit status."""
    # The report shows this line, without the paths of this machine.
    line = (f"…/{Path(word).name}" if Path(word).is_absolute() else word for word in words)
    parser = _parser(shlex.join(["reidlib", *line]))
    if nul := [word for word in words if "\0" in word]:  # only a program can pass one
        parser.error(f"no argument contains the character NUL, unlike {nul[0]!r}")
    values = parser.parse_args(words)
    command = vars(values).pop("command")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers = handlers or [logging.StreamHandler()]
    logger.setLevel(level or logging.INFO)
    logger.propagate = False  # a handler of the root logger would write each message again
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # most are of damaged files, which are refused or sound
                warnings.simplefilter("ignore")
                warnings.filterwarnings("default", module=r"torch\.cuda")  # why a GPU is not used
            return _function(command)(values)
    except InputError as error:
        print(f"reidlib: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except (OSError, RuntimeError, MemoryError) as error:
        if (refusal := _refused_by_system(error)) is None:
            raise
        print(f"reidlib: error: {refusal}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"reidlib: stopped: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"reidlib: {str(error) or 'interrupted; give the same command again'}", file=sys.stderr)
        return 130
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def _refused_by_system(error: Exception) -> InputError | None:
    """Return the refusal of what the system cannot do, mostly with a path; None for other errors."""
    from reidlib.files import LONG_NAME_MEND, writing_mend

    if isinstance(error, MemoryError) or re.search("(not enough|out of|allocate) memory", str(error)):
        mend = "use smaller numbers, such as those of width or batch_size, or another device"
        return InputError("the work fits into memory", str(error).partition("\n")[0] or "no memory", mend)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = str(error.filename or "a longer path")
        value = name if len(name) < 100 else f"{name[:60]}…{name[-30:]} of {len(name):,} characters"
        return InputError("a path fits into the file system", value, LONG_NAME_MEND)
    if "home directory" in str(error):  # of ~ or ~NAME
        return InputError(
            "~NAME is the home folder of a user of this machine", "an unknown user", "write out the path"
        )
    if "Symlink loop" in str(error):  # pathlib's, before Python 3.13
        return InputError("a path's links lead to a file or folder", error, "correct the link")
    if isinstance(error, OSError) and error.errno:
        path = Path(str(error.filename or ""))
        value = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        if not error.filename:
            mend = writing_mend(path, error, "remove this cause, and give the command again")
            return InputError("the system can do what a command needs", value, mend)
        mend = writing_mend(path, error, "check that it exists, and its access rights")
        return InputError("a command can read and write its files", value, mend)
    return None
