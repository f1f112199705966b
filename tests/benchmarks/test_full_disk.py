"""Every writer once on a full disk: one clear line, and with room the command completes.

A small tmpfs is filled at the moment when a command opens a file to write: once for each file of a new kind,
found by the interpreter's audit events. Nothing half written may remain. Then the command is given again,
with room, and its files are compared with those of a command that always had it. Notebooks write in
processes of their own: their report is written to disks of several sizes.

``WRITERS`` lists every module that writes, which a test compares with the source.

Run with: pytest tests/benchmarks/test_full_disk.py -s
"""

import ast
import contextlib
import io
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

import test_kills

import reidlib
from reidlib.cli import main
from reidlib.errors import InputError

MIB = 2**20


@pytest.fixture
def disk(tmp_path):
    """A folder that is a file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here (needs root)")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


class Filler:
    """Fills the disk when the chosen file is opened to be written, and lists what is opened."""

    def __init__(self):
        self.disk, self.chosen, self.opened, self.active = "", None, [], False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.active or event not in ("open", "os.mkdir", "pyarrow"):
            return
        path = arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)) or not os.fspath(path):
            return
        path = os.fsdecode(path)
        writes = event == "os.mkdir" or (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if not writes or not path.startswith(self.disk) or path.endswith(".lock"):
            return
        self.opened.append(path)
        if self.chosen == len(self.opened) - 1:
            self.active = False
            fill(Path(self.disk))

    @contextlib.contextmanager
    def watching(self, disk: Path, chosen: int | None):
        self.disk, self.chosen, self.opened, self.active = str(disk), chosen, [], True
        try:
            yield
        finally:
            self.active = False


def fill(disk: Path) -> None:
    """Leave no byte of room."""
    with (disk / "filler").open("ab", buffering=0) as stream:
        with contextlib.suppress(OSError):
            while True:
                stream.write(bytes(MIB))
        with contextlib.suppress(OSError):
            while True:
                stream.write(bytes(4096))


FILLER = Filler()


def kind_of(path: str, disk: Path) -> str:
    """A file's name without numbers, hashes and process numbers: files of one writer have one kind."""
    name = str(Path(path).relative_to(disk))
    return re.sub(r"[0-9a-f]{8,}|\d+|partial-\w+", "#", name)


def run(words: list[str]) -> tuple[int, str, str]:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(words)
    return status, out.getvalue(), err.getvalue()


# The modules that write files, and what shows them on a full disk.
WRITERS = {
    "analysis/complexity/__init__.py": "nothing that stays: a trace in the temporary folder",
    "cli/commands.py": "nothing that stays: evidence in the temporary folder",
    "cli/disk.py": "nothing that stays: a probe without a name",
    "data/check.py": "extraction",
    "data/decoding.py": "train jlml",
    "data/images.py": "train jlml",
    "data/readers/cuhk03/archive.py": "extraction",
    "data/readers/partitions/__init__.py": "test_functions",
    "data/synthetic/render.py": "render",
    "experiments/evaluate.py": "evaluate",
    "experiments/evidence/adding.py": "test_functions",
    "experiments/features.py": "embed",
    "experiments/imports.py": "train jlml, whose functions it calls",
    "experiments/metric_study/kept.py": "test_functions",
    "experiments/metric_study/published.py": "test_functions",
    "experiments/perturbations.py": "test_functions",
    "files.py": "every other",
    "reports/cluster.py": "an empty folder, which a full disk holds",
    "reports/notebook.py": "an empty folder, which a full disk holds",
    "reports/pages/index.py": "test_functions, test_a_report",
    "reports/pages/page.py": "test_a_report",
    "reports/pages/summary.py": "test_a_report",
    "reports/processes.py": "test_a_report",
    "reports/reproduce.py": "test_a_report",
    "reports/result.py": "test_functions, test_a_report",
    "reports/scheduler.py": "test_a_report",
    "analysis/tables.py": "test_functions",
    "search/features.py": "embed, embed parquet",
    "search/report.py": "search",
    "training/checkpoint.py": "train jlml",
    "training/loop.py": "train jlml",
    "training/runs.py": "train jlml",
    "visual/browser/pictures.py": "test_functions",
}
_WRITING = {
    *("write_text", "write_bytes", "write_json", "write_atomically", "write_buffered", "save_tensors"),
    *("TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory", "mkdtemp", "mkdir"),
    *("ParquetWriter", "copyfile", "copytree"),
}


def writes(node: ast.AST) -> bool:
    """Whether a call writes a file, by its name or its mode."""
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    modes = [str(word.value) for word in node.args if isinstance(word, ast.Constant)]
    opens = any(re.fullmatch(r"[rwab+xt]*[wa+x][rwab+xt]*", mode) for mode in modes)
    return name in _WRITING or (name == "open" and opens)


def test_every_module_that_writes_is_listed():
    package = Path(reidlib.__file__).parent
    writing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if any(map(writes, ast.walk(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert writing == WRITERS.keys()


def test_functions_that_no_short_command_calls(inputs, disk, tmp_path):
    """Partitions, a browser's picture, a report's index and figures: each leaves all or nothing."""
    import matplotlib.pyplot as plt
    from rows_with_scores import BENCHMARK, write_run

    from reidlib.analysis.tables import write_tables
    from reidlib.data.readers.partitions import Partitions, write_partitions
    from reidlib.experiments import evidence
    from reidlib.experiments.metric_study.kept import _keep
    from reidlib.experiments.metric_study.published import write_measured
    from reidlib.reports.pages.index import write_index
    from reidlib.reports.result import Result
    from reidlib.training.runs import Run
    from reidlib.visual.browser import pictures

    (disk / "report").mkdir()
    (disk / "run" / "metrics").mkdir(parents=True)
    (disk / "figures").mkdir()
    figure = plt.figure()
    evidence.add(write_run(tmp_path / "runs").folder, disk / "evidence")
    kept = evidence.Evidence.read("quick", BENCHMARK, disk / "evidence")
    other = write_run(tmp_path / "runs", seed=1).folder
    writers = {
        "evidence": lambda: evidence.add(other, disk / "evidence"),
        "partitions": lambda: write_partitions(disk / "p.json", Partitions("viper", 4, ((1, 2),))),
        "metrics": lambda: _keep(Run(disk / "run"), "XQDA", {"x": "x" * 9000}, None),
        "measured": lambda: write_measured(disk / "measured.csv", ()),
        "picture": lambda: pictures.SaveButtons._write(None, disk / "p.png", b"x" * 9000),
        "index": lambda: write_index(disk / "report"),
        "tables": lambda: write_tables(disk / "tables", [kept], "a command"),
        "figure": lambda: Result("20_train_jlml", out=disk / "figures", profile="smoke").figure(
            figure, "name", caption="a caption", alt="a figure"
        ),
    }
    fill(disk)
    before = test_kills.tree(disk).keys()
    for name, write in writers.items():
        with pytest.raises(InputError, match=r"No space left.*free some disk space"):
            write()
        assert test_kills.tree(disk).keys() == before, name
    plt.close(figure)


COMMANDS = (
    "render",
    "train jlml",
    "train pyramid",
    "evaluate",
    "embed",
    "embed parquet",
    "search",
    "extraction",
)
KINDS = None  # of files, at most: all
SMALL = {"KINDS": 2}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name != "embed" else name for name in COMMANDS]
)
def test_every_file_on_a_full_disk(name, inputs, disk, monkeypatch, capsys):
    monkeypatch.setenv("REIDLIB_HOME", str(disk / "home"))
    monkeypatch.chdir(disk)

    def prepare():
        for path in disk.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        words = inputs.command(name.removesuffix(" parquet"), disk)
        if name == "search":  # with a threshold
            words += ["--calibrate", str(inputs.folder / "people"), "--false-match-rate", "0.1"]
        if name.endswith("parquet"):
            words = [word.replace("o.npz", "o.parquet") for word in words]
        inputs.prepare(name.removesuffix(" parquet"), disk)
        return words[words.index("reidlib") + 1 :]

    expected = test_kills.ENDINGS.get(name, 0)
    words = prepare()
    with FILLER.watching(disk, None):
        status, _, err = run(words)
    assert status == expected, err
    reference, opened = test_kills.tree(disk), FILLER.opened
    kinds = {}
    for index, path in enumerate(opened):
        kinds.setdefault(kind_of(path, disk), index)
    kinds = dict(itertools.islice(kinds.items(), KINDS))
    refusals, tolerated = {}, []
    for kind, index in kinds.items():
        words = prepare()
        before = test_kills.tree(disk)
        with FILLER.watching(disk, index):
            status, out, err = run(words)
        (disk / "filler").unlink(missing_ok=True)
        place = f"{name}, full at {kind}"
        assert "Traceback" not in out + err, place
        after = test_kills.tree(disk)
        told = [line for line in out.splitlines() if "No space left" in line]
        if status == expected == 1 and told:  # a check lists this as a problem
            assert len(told) == 1 and told[0].startswith("problem: ") and "free some disk space" in told[0]
            refusals[kind] = told[0]
        elif name == "evaluate" and "scores were not kept" in err:  # but printed
            assert status == 1 and "free space" in err.splitlines()[-1] and "queries have a match" in out
            refusals[kind] = err.splitlines()[-1]
        elif status == expected:
            tolerated.append(kind)  # such as the record of a check, without which the next one reads again
        else:
            lines = [line for line in err.splitlines() if line.startswith("reidlib: error: ")]
            assert status == 2, (place, status, err)
            assert len(lines) == 1 and lines[0] == err.splitlines()[-1], (place, err)
            assert re.search("[Nn]o space left", lines[0]), lines
            assert re.search(r"\bfree (some|space)", lines[0]), lines
            refusals[kind] = lines[0]
        for file, content in after.items():
            whole = content in (reference.get(file), before.get(file))
            part = test_kills.is_part(file, content, reference)
            continued = re.fullmatch(
                r"home/(runs/[^/]+/(checkpoint\.pt|failure\.txt)|features/[^/]+\.partial)", file
            )
            assert whole or part or continued, f"{place} leaves {file}"
        status, _, err = run(words)
        assert status == expected, (place, err)
        assert not test_kills.differences(place, disk, reference)
    assert refusals, f"{name}: no file was refused: {tolerated}"
    with capsys.disabled():
        print(f"\n{name}: {len(opened)} files and folders of {len(kinds)} kinds, {len(refusals)} refused")
        for kind in kinds:
            print(f"  {'tolerated' if kind in tolerated else 'refused':<10}{kind}")


@pytest.mark.full
def test_a_report_on_a_full_disk(inputs, disk, capsys):
    """Kernels and trainings write, too; the command tells in lines, and completes with room."""
    inputs.prepare("reproduce", disk)
    begin = used(disk)
    assert inputs.start("reproduce", disk).wait()[0] == 0
    reference, need, statuses = test_kills.tree(disk), used(disk) - begin, []
    for share in (0.02, 0.4, 0.75, 0.95):
        for path in disk.iterdir():
            shutil.rmtree(path)
        inputs.prepare("reproduce", disk)
        with (disk / "filler").open("wb") as stream:
            stream.write(bytes(max(0, shutil.disk_usage(disk).free - int(share * need))))
        status, err = inputs.start("reproduce", disk).wait()
        statuses.append(status)
        assert status in (0, 1, 2), err
        assert "Traceback" not in err
        (disk / "filler").unlink()
        status, err = inputs.start("reproduce", disk).wait()
        assert status == 0, err
        assert not test_kills.differences(f"reproduce, {share} of its room", disk, reference)
    assert statuses[0] and any(statuses), statuses  # the first disk has room for next to nothing
    with capsys.disabled():
        print(f"\nreproduce on four disks that are too small: exit statuses {statuses}")


@pytest.mark.full
def test_a_queue_of_trainings_on_a_full_disk(inputs, disk, capsys):
    """What is finished stays, and with room the same command goes on; Ctrl-C ends it after a few more."""
    inputs.prepare("train all", disk)
    with (disk / "filler").open("wb") as stream:
        stream.write(bytes(shutil.disk_usage(disk).free - 24 * MIB))
    status, err = inputs.start("train all", disk).wait()
    assert status == 2, err
    (line,) = (line for line in err.splitlines() if line.startswith("reidlib: "))
    assert line == err.splitlines()[-1] and "Traceback" not in err
    assert "No space left" in line and "free some disk space and give the same command again" in line
    finished = {path.parent for path in disk.glob("home/runs/*/run.json")}
    assert 1 <= len(finished) < 20
    before = {path: path.read_bytes() for folder in finished for path in folder.rglob("*")}
    (disk / "filler").unlink()
    command = inputs.start("train all", disk)
    while command.status is None and len(list(disk.glob("home/runs/*/scores.json"))) < len(finished) + 2:
        time.sleep(0.1)
    os.killpg(command.pid, signal.SIGINT)
    status, err = command.wait()
    assert status == 130, err
    # Of those that were finished, some may have lacked their scores.
    assert 1 <= int(re.search(r"(\d+) of 28 trainings are finished", err)[1]) <= len(finished)
    assert {path: path.read_bytes() for path in before} == before
    with capsys.disabled():
        print(f"\n{len(finished)} trainings were finished when the disk was full: {line}")


def used(disk: Path) -> int:
    """Bytes in use."""
    return shutil.disk_usage(disk).used
