"""Every command in README.md runs, at the smallest size that there is.

Those of notebooks/README.md run in ``test_documented_notebook_commands.py``, which another process may take.

A command is a line of a block marked ``sh``, or an entry in the last column of the table of measurements. It
runs as it is written, with these substitutions: the profile ``smoke``, the CPU, one seed, three epochs, free
ports, and small folders in place of RUN, DIR, QUERIES, GALLERY and IMAGES. A report that names no notebook
runs one, except the plain ``reidlib reproduce``; notebook 40 gets one folder, notebooks 40 and 42 one
partition, and the queue for photographs no CUHK01. Benchmarks take minutes: they are only collected, and the
run without names takes their small form. The ledger from evidence is made in a fresh clone, by another test.
Commands of reidlib itself run in copies of a process that has imported torch, except the first one of all.
"""

import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.request
from contextlib import contextmanager
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import torch
from copies import status_of_a_copy
from cuhk03_miniature import write_archive
from miniature import write_image
from naive_pyramid import random_pyramid
from packaging.requirements import Requirement
from screens import free_port

from reidlib.experiments.rows import EXPERIMENTS

ROOT = Path(__file__).parent.parent
TIMEOUT = 1800  # a guard against hanging, not a bound on speed


def documented_commands(document: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    in_tables = re.findall(r"\| `((?:reidlib|pytest|python) [^`]+)` \|$", text, re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line] + in_tables


COMMANDS = {
    document: list(dict.fromkeys(documented_commands(document)))
    for document in ("README.md", "notebooks/README.md")
}
ALL = list(dict.fromkeys(command for commands in COMMANDS.values() for command in commands))


def test_programs_run(capsys):
    """All but that of faiss, which the suite does not depend on."""
    text = (ROOT / "notebooks/README.md").read_text(encoding="utf-8")
    programs = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (program,) = (each for each in programs if "import faiss" not in each)
    exec(program, {})
    assert re.fullmatch(r"R1 [01]\.\d\d\n", capsys.readouterr().out)


def test_commands_are_found():
    assert {command.split()[0] for command in ALL} == {
        "python3", "jupyter", "reidlib", "torchrun", "papermill", "pip", "dask", "voila", "nbstripout",
        "pytest",
    }  # fmt: skip
    for document, commands in COMMANDS.items():
        text = (ROOT / document).read_text(encoding="utf-8")
        unmarked = re.findall(r"^```\n", text, re.MULTILINE)  # a closing fence, never an opening one
        assert len(unmarked) <= text.count("```") / 2, document
        assert commands, document


@pytest.fixture(scope="module")
def benchmarks() -> str:
    """The names of the tests that README's commands run, in the form that these commands run."""
    lines = [shlex.split(line) for line in COMMANDS["README.md"] if line.startswith("pytest tests/")]
    files = {word.partition("::")[0] for line in lines for word in line[1:-1]}
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", *files]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


class Sandbox:
    """Folders for the placeholders, and the environment in which commands run."""

    def __init__(self, folder: Path, home: Path):
        self.folder, self.home = folder, folder / "home"
        for name in ("data", "runs", "smoke"):
            shutil.copytree(home / name, self.home / name)
        self.environment = {
            **os.environ,
            "REIDLIB_HOME": str(self.home),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.rendered = self.home / "data" / "synthetic-smoke"

    def run(self, words: list[str], *, statuses: tuple[int, ...] = (0,)) -> str:
        log = self.folder / "command.log"
        if words[0] == "reidlib" and log.exists():
            status = status_of_a_copy(words, ROOT, self.environment, log, TIMEOUT)
        else:
            with log.open("w") as file:
                settings = {"cwd": ROOT, "env": self.environment, "timeout": TIMEOUT, "stdout": file}
                status = subprocess.run(words, **settings, stderr=subprocess.STDOUT).returncode
        printed = log.read_text()
        assert status in statuses, f"{shlex.join(words)}\n{printed[-3000:]}"
        return printed

    def serves(self, words: list[str], address: str) -> None:
        """Start a server, ask it for a page, and end it as Ctrl-C does."""
        log = self.folder / "server.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                words, cwd=ROOT, env=self.environment, stdout=file, stderr=file, start_new_session=True
            )
        try:
            end = time.monotonic() + TIMEOUT
            while True:
                try:
                    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
                        assert answer.status == 200
                    return
                except OSError:
                    assert process.poll() is None, log.read_text()[-3000:]
                    assert time.monotonic() < end, log.read_text()[-3000:]
                    time.sleep(0.2)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(TIMEOUT)

    def trained(self, model: str, benchmark: str = "synthetic") -> Path:
        return next((self.home / "runs").glob(f"{model}-smoke-{benchmark}-seed0-*"))

    def checkpoint(self) -> Path:
        """A checkpoint as Pyramid's authors' code saves it."""
        path = self.folder / "checkpoint.pth"
        torch.save({"state_dicts": [random_pyramid().state_dict()], "ep": 119, "scores": 0}, path)
        return path

    def benchmark(self, name: str) -> Path:
        """A folder that a benchmark's reader accepts, written once."""
        root = self.folder / name
        if root.exists():
            return root
        if name == "market1501":
            shutil.copytree(self.rendered, root)
            (root / "distractors_500k").mkdir()
            for image in sorted((root / "bounding_box_test").glob("0000_*"))[:4]:
                shutil.copy(image, root / "distractors_500k")
        elif name == "folder":
            for path in self.rendered.glob("bounding_box_train/*.jpg"):
                person, camera = path.name.split("_")[:2]
                target = root / person / camera[:2] / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        elif name == "viper":
            for camera in ("cam_a", "cam_b"):
                (root / camera).mkdir(parents=True)
                for person in range(632):
                    write_image(root / camera / f"{person:03}_0.bmp", seed=person)
        elif name == "cuhk01":
            (root / "campus").mkdir(parents=True)
            for person, image in itertools.product(range(1, 972), range(1, 5)):
                write_image(root / "campus" / f"{person:04}{image:03}.png", seed=person)
        elif name == "cuhk03":
            root.mkdir()
            write_archive(root / "cuhk-03.mat")
        return root


@pytest.fixture(scope="module")
def sandbox(untouched_report, tmp_path_factory):
    return Sandbox(tmp_path_factory.mktemp("documented"), untouched_report)


def small(words: list[str], sandbox: Sandbox) -> list[str]:
    """A command of reidlib at the smallest size: see the module's docstring."""
    out = [words[0]]
    name = "market1501"
    for before, word in itertools.pairwise(words):
        if before == "--benchmark" or words[1] == "check":
            name = word.partition(",")[0] if word != "DIR" else name
        if before == "--profile":
            word = "smoke"
        elif before == "--seeds":
            word = "1"
        elif before == "--validate":
            word = "4"
        elif before == "render":
            word = "smoke"
        elif word == "RUN":
            word = str(sandbox.trained("jlml", "market1501" if "--distractors" in words else "synthetic"))
        elif word == "CHECKPOINT":
            word = str(sandbox.checkpoint())
        elif word in ("QUERIES", "GALLERY", "IMAGES"):
            word = str(sandbox.rendered / ("bounding_box_test" if word == "GALLERY" else "query"))
        elif before == "--out" or (words[1] == "render" and word == "DIR"):
            word = str(sandbox.folder / "out" / words[1])
        elif word == "DIR":
            word = str(sandbox.benchmark(name))
        elif word.endswith("=DIR"):
            other = word.removesuffix("=DIR")
            word = f"{other}={sandbox.benchmark(other.partition(',')[0])}"
        elif word == "features.parquet":
            word = str(sandbox.folder / word)
        out.append(word)
    if words[1] in ("reproduce", "train") and "--profile" not in words:
        out += ["--profile", "smoke"]
    if words[1] not in ("check", "import", "render") and "--device" not in words:
        out += ["--device", "cpu"]
    return out


@pytest.mark.parametrize("command", COMMANDS["README.md"])
def test_command_runs(command, sandbox, benchmarks):
    run_command(command, sandbox, benchmarks)


def run_command(command: str, sandbox: Sandbox, benchmarks: str = "") -> None:
    """Run a command at the smallest size, and check what it leaves."""
    words = shlex.split(command.rpartition("&& ")[2] if command.startswith("python3 -m venv") else command)
    words = ["recipe.epochs=3" if word == "recipe.epochs=40" else word for word in words]
    match words:
        case ["pytest", "-n", "3", "--dist", "loadfile"]:
            assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text()  # there this very line is run
        case ["pytest", *names, "-s"]:
            assert all(name in benchmarks for name in names)
            assert "small form" not in benchmarks  # which is what the run without names takes
        case ["pip", "install", "-e", target]:
            assert_extra_is_installed(target)
        case ["jupyter", "lab", notebook]:
            port = free_port()
            assert (ROOT / notebook).is_file()
            settings = [
                "--no-browser",
                "--allow-root",
                "--ip=127.0.0.1",
                f"--port={port}",
                "--ServerApp.token=x",
            ]
            page = f"http://127.0.0.1:{port}/lab/tree/{notebook}?token=x"
            sandbox.serves([sys.executable, "-m", "jupyter", "lab", notebook, *settings], page)
        case ["voila", notebook]:
            port = free_port()
            settings = ["--no-browser", f"--port={port}"]
            sandbox.serves([sys.executable, "-m", "voila", notebook, *settings], f"http://127.0.0.1:{port}/")
        case ["papermill", notebook, output, *parameters]:
            parameters = ["smoke" if word == "quick" else "1" if word == "3" else word for word in parameters]
            output = sandbox.folder / output
            sandbox.run([sys.executable, "-m", "papermill", notebook, str(output), *parameters])
            assert output.is_file()
        case ["nbstripout", _]:
            copies = shutil.copytree(ROOT / "notebooks", sandbox.folder / "notebooks")
            sandbox.run([sys.executable, "-m", "nbstripout", *map(str, copies.glob("*.ipynb"))])
            for path in copies.glob("*.ipynb"):
                assert path.read_bytes() == (ROOT / "notebooks" / path.name).read_bytes(), path.name
        case ["torchrun", "--nproc_per_node", number, *rest]:
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", number]
            output = sandbox.run([sys.executable, *launcher, "-m", *small(rest[1:], sandbox)])
            assert_trained(rest[2:], output, sandbox)
        case ["dask", *_]:
            pytest.skip("runs together with the command that uses the cluster")
        case ["reidlib", "reproduce", *_] if "--scheduler" in words:
            with cluster(sandbox) as address:
                words = [address if word == "tcp://HOST:8786" else word for word in words]
                sandbox.run([*small(words, sandbox), "20", "--force"])
        case ["reidlib", "reproduce", *numbers, "--evidence", "--summary", "--force"]:
            # Its notebooks run alone below; it would write to this clone, whose page it has made.
            assert {f"reidlib reproduce {number} --evidence" for number in numbers} <= {*ALL}
            page = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
            assert f"- Command: `{shlex.join(words)}`\n" in page
        case ["reidlib", "reproduce", "42", "--evidence"]:
            sandbox.run([*words, "--out", str(sandbox.folder / "tables")])
            page = (sandbox.folder / "tables" / "42_benchmarks" / "index.html").read_text()
            assert "partitions of CRAFT (published), from evidence" in page
        case ["reidlib", "reproduce", "44", "--evidence"]:
            sandbox.run([*words, "--out", str(sandbox.folder / "curves")])
            assert (sandbox.folder / "curves" / "44_learning_curves" / "curves.png").is_file()
        case ["reidlib", "reproduce", "90", "--evidence"]:
            pytest.skip("runs in a fresh clone, in test_evidence_report.py, which reads it in the README")
        case ["reidlib", "reproduce", "--until-decided"]:  # in quick, as in smoke nothing is decided
            out = sandbox.folder / "looks"
            printed = sandbox.run([*words, "--evidence", "--out", str(out)])
            assert "(look 1 of 3, 99.75 %)" in printed and (out / "90_claims" / "result.json").is_file()
        case ["reidlib", "plan", *_]:
            assert "undecided, shared rows once" in sandbox.run(words)
        case ["reidlib", "evidence"]:
            assert "market1501,validation=true: Market-1501, 500 training" in sandbox.run(words)
        case ["reidlib", "tables", *_]:
            own = "--runs" in words
            words = [str(sandbox.home / "runs") if word == "reports/runs" else word for word in words[3:]]
            words += ["--profile", "smoke"] if own else []
            printed = sandbox.run(["reidlib", "tables", str(sandbox.folder / "tables"), *words])
            assert "ledger.tex" in printed and "differences-rendered-people.csv" in printed
        case ["reidlib", "evidence", "add", "reports/runs"]:  # 1: some are not a row's own
            words[-1:] = [str(sandbox.home / "runs"), "--to", str(sandbox.folder / "kept")]
            assert " added, " in sandbox.run(words, statuses=(0, 1)).splitlines()[-1]
        case ["reidlib", "reproduce", "40", "--suite", "all", *folders] if "market1501" in "".join(folders):
            # README's command and one more folder, which at the smallest size README's is measured on.
            known = {frozenset(shlex.split(line)) for line in COMMANDS["README.md"]}
            assert frozenset(words) - {"market1501,validation=true=DIR"} in known, command
        case ["reidlib", "reproduce", "40", *rest] if rest:  # the other folders have thousands of images
            suite = ["--suite", "all"] if "--suite" in rest else []  # GOG takes 0.2 s for an image
            market = "market1501,validation=true=DIR"
            folder = market if market in rest or suite else "viper=DIR"
            words = ["reidlib", "reproduce", "40", *suite, "--folder", folder, "--trials", "1"]
            sandbox.run(small(words, sandbox))
        case ["reidlib", "reproduce", "42", *_]:
            sandbox.run([*small(words, sandbox), "--trials", "1"])
        case ["reidlib", "reproduce", *rest]:
            alone = any(word.isdecimal() and len(word) == 2 for word in rest) or not rest
            sandbox.run(small(words, sandbox) + ([] if alone else ["20"]))
        case ["reidlib", "check", *_]:  # 1: the folder deviates from the official counts
            assert "differs" in sandbox.run(small(words, sandbox), statuses=(1,))
        case ["reidlib", "train", "all", *_] if "--folder" in words:
            pairs = zip(words[3::2], words[4::2], strict=True)
            # CUHK01's 3,884 images take minutes, and the published partitions are of VIPeR's own images.
            kept = [word for pair in pairs if "cuhk01" not in pair[1] for word in pair]
            kept = ["viper=DIR" if word == "viper,partitions=FILE=DIR" else word for word in kept]
            printed = sandbox.run([*small([*words[:3], *kept], sandbox), "--trials", "1"])
            assert "4 trainings, 0 failed" in printed.splitlines()
            assert any((sandbox.home / "runs").glob("pyramid-smoke-viper-seed0-pretrained-*/scores.json"))
        case ["reidlib", "train", "all", *_]:
            printed = sandbox.run(small(words, sandbox)).splitlines()
            assert printed[-2:] == [
                f"{len(EXPERIMENTS)} trainings, 0 failed",
                f"runs: {sandbox.home / 'runs'}",
            ]
        case ["reidlib", "train", "jlml", "--curve", *_]:
            # Not the copies of rendered images: their persons are those of the start.
            for person, camera, number in itertools.product(range(24), (1, 2), range(5)):
                path = sandbox.folder / "own" / f"{person}" / f"c{camera}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, seed=100 * person + 10 * camera + number)
            words = [str(sandbox.folder / "own") if word == "DIR" else word for word in words]
            assert ", 0 failed" in sandbox.run([*small(words, sandbox), "--jobs", "1"])
            assert any((sandbox.home / "runs").glob("jlml-smoke-folder,*_person*-pretrained-*/scores.json"))
        case ["reidlib", "train", *_]:
            assert_trained(words[1:], sandbox.run(small(words, sandbox)), sandbox)
        case ["reidlib", "disk" | "clean" as name, *_]:
            heading = {"disk": f"{sandbox.home}: ", "clean": " from "}[name]
            assert heading in sandbox.run(words).partition("\n")[0]
            assert sandbox.trained("jlml").is_dir()
        case ["reidlib", *_]:
            sandbox.run(small(words, sandbox))
        case _:
            pytest.fail(f"no test knows how to run `{command}`: teach run_command")


def assert_trained(words: list[str], output: str, sandbox: Sandbox) -> None:
    """The run that the command prints is of its model and benchmark, complete and with scores."""
    command, model, *options = words
    assert command == "train"
    name = options[options.index("--benchmark") + 1] if "--benchmark" in options else "synthetic"
    (folder,) = map(Path, re.findall(r"^run: (.+)$", output, re.MULTILINE))
    assert folder.parent == sandbox.home / "runs"
    settings = [word for before, word in itertools.pairwise(options) if before == "--set"]
    stages = "validate4-" if "--validate" in options else ""
    stages += "pretrained-" if "--pretrain" in options else ""
    assert folder.name.startswith(f"{model}-smoke-{name}-seed0-{stages}{','.join(sorted(settings))}")
    assert ("validation_map" in (folder / "history.jsonl").read_text()) == ("--validate" in options)
    assert {"run.json", "weights.pt", "scores.json"} <= {path.name for path in folder.iterdir()}


def assert_extra_is_installed(target: str) -> None:
    """The tests run in an installation with all extras: one of them must name what is installed."""
    extra = re.fullmatch(r"\.(?:\[(\w+)\])?", target)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extra is None or extra in project["optional-dependencies"]
    for line in requires("reidlib"):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra or ""}):
            assert version(requirement.name) in requirement.specifier


@contextmanager
def cluster(sandbox: Sandbox):
    """The documented scheduler and worker, at a free port and with one worker."""
    scheduler, worker = (line for line in COMMANDS["notebooks/README.md"] if line.startswith("dask "))
    address = f"tcp://127.0.0.1:{free_port()}"
    started = []
    places = ["--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--dashboard-address", ":0"]
    worker = worker.replace("tcp://HOST:8786", address).replace("--nworkers 8", "--nworkers 1")
    lines = [
        [*shlex.split(scheduler), *places],
        [
            *shlex.split(worker),
            "--local-directory",
            str(sandbox.folder / "dask"),
            "--dashboard-address",
            ":0",
        ],
    ]
    settings = {"cwd": ROOT, "env": sandbox.environment, "start_new_session": True}
    try:
        for line in lines:
            log = (sandbox.folder / f"{line[1]}.log").open("w")
            started.append(subprocess.Popen(line, stdout=log, stderr=log, **settings))
        yield address
        assert all(process.poll() is None for process in started)
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(TIMEOUT)
