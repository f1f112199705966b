"""The parser of the command line: every command with its arguments, and the texts of the help."""

from __future__ import annotations

import argparse
import inspect
import keyword
import sys
from collections.abc import Callable

from reidlib import __version__
from reidlib.cli import arguments, commands
from reidlib.errors import one_line

_ABOUT = """Experiments on two person re-identification papers, JLML and Pyramid."""
_EPILOG = """\
`reidlib COMMAND --help` describes a command, with examples and the files that it writes.

profiles (--profile):
  smoke    does it run? seconds
  quick    the default: small networks on the embedded benchmark; two CPU cores
  full     full widths and inputs, on an embedded benchmark of Market-1501's size; one GPU
  photographs
           the networks of quick, trained for longer, and fine-tuned after --pretrain by a recipe that was
           chosen on photographs; on a real benchmark's folder; two CPU cores
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
        read = arguments.whole_number(f"a whole number from {least} is needed", least)
        self.value(name, "N", about, type=read, default=default)

    def folders(self, name: str, about: str) -> None:
        """Add an option for a benchmark's folder that can be repeated."""
        self.value(name, "NAME=DIR", about, type=arguments.named_folder, action="append", default=[])


def _option(name: str, **settings) -> _Parser:
    """Return a parser of one option that several commands share."""
    parser = _Parser(add_help=False)
    parser.add_argument(name, **settings)
    return parser


def function_of(command: str) -> Callable[[argparse.Namespace], int]:
    """The function that carries out a command."""
    return getattr(commands, f"{command}_" if keyword.iskeyword(command) else command)


def make_parser(line: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter  # keeps the lines of descriptions and epilogs
    parser = _Parser(prog="reidlib", description=_ABOUT, epilog=_EPILOG, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"reidlib {__version__}")
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, about: str, *parents: _Parser) -> _Parser:
        text = inspect.getdoc(function_of(name)) or ""
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
        "--seed", type=arguments.seed, default=0, metavar="N", help="seed of all random numbers (default 0)"
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
    train.lists = (arguments.models, arguments.fields, arguments.benchmarks)
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
        type=arguments.setting,
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
        type=arguments.pretraining,
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
        type=arguments.trials,
        action="append",
        default=[],
    )
    train.flag("--compile", "use torch.compile: slower start, faster steps")

    plan = command("plan", "say how many seeds each claim needs, and how long they take", data)
    plan.value("claims", "CLAIM", "claims by name (default: all)", nargs="*")
    plan.value(
        "--effect",
        "POINTS",
        "a true difference in points of mAP (default 1)",
        type=arguments.points,
        default=1.0,
    )
    plan.value(
        "--power",
        "SHARE",
        "how often such a difference is to be shown (default 0.8)",
        type=arguments.power,
        default=0.8,
    )

    imports = command("import", "make a run of a checkpoint that other code wrote", data)
    imports.lists = (arguments.benchmarks,)
    imports.value("checkpoint", "CHECKPOINT", "the file, which torch.save wrote")
    imports.value("--as", "NETWORK", "the network: pyramid", dest="network", required=True)

    evaluate = command("evaluate", "score a trained run again", run, device)
    evaluate.lists = (arguments.benchmarks,)
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
    check.lists = (arguments.benchmarks, arguments.spellings)
    check.value("name", "NAME", "a benchmark, NAME[,OPTION=VALUE…]")
    check.value("root", "ROOT", "the benchmark's folder, or the file of csv")
    check.flag("--again", "also read unchanged images that an earlier check could read")

    embed = command("embed", "write features of your own images to a file", run, device)
    embed.value("images", "IMAGES", "an image, a folder, a folder for each person, or a CSV")
    embed.value("out", "OUT", "a new file, .npz or .parquet")

    search = command("search", "search images for the people of some query images", device)
    search.lists = (arguments.spellings,)
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
        type=arguments.share,
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
        either.lists = (arguments.kinds,)
        either.value("what", "WHAT", "a kind of the list below, or an entry of one", nargs="*")
    clean.number("--older", "only what is unchanged for N days (default 0)", least=0, default=0)
    clean.flag("--yes", "remove it")
    return parser
