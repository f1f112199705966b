"""Reports of notebooks of a few lines, which run in real kernels."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import fake_tasks
import nbformat
import pytest
from fake_tasks import alive, check_trained_once, notes, processes, until
from filelock import FileLock

from reidlib.cli import main
from reidlib.errors import InputError
from reidlib.memory import available_memory
from reidlib.reports import notebook
from reidlib.reports.pages.index import clock, read_object
from reidlib.reports.processes import STOPPED, Memory, Pool, local_pool, run_in_process
from reidlib.reports.reproduce import Outcome, Plan, Task, reproduce, run_tasks, select
from reidlib.reports.scheduler import Display, Job, Session
from reidlib.training.device import Execution

PARAMETERS = 'profile = "quick"\nout = ""\nseeds = 1\ndata_root = ""'
# A one-pixel PNG.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
FINISH = f"""
import base64, json, os, sys
from pathlib import Path
Path(out, "curve 1.png").write_bytes(base64.b64decode("{PIXEL}"))
Path(out, "result.json").write_text(json.dumps(dict(
    headline={{"R1": "82.8", "<b>mAP</b>": "67.4"}},
    scores=[{{"branch": "full", "R1": 82.8123, "valid": True}}, {{"branch": "<i>local</i>", "mAP": None}}],
    figures=[{{"file": "curve 1.png", "caption": "A curve", "alt": "one pixel"}},
             {{"file": "../outside.png", "caption": "not mine", "alt": ""}}],
    configuration=dict(benchmark="tiny", executable=sys.executable, data_root=data_root, seeds=seeds,
                       threads=os.environ.get("OMP_NUM_THREADS"), folder=os.getcwd()),
    versions={{"python": "3"}}, commit="abc1234", device="2 cores", duration=0.1)))
"""


def build(folder: Path, name: str, *cells: str, parameters: str | None = PARAMETERS, **metadata) -> Path:
    """Write a notebook of a heading, a parameters cell and code cells."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells.append(
        nbformat.v4.new_markdown_cell(
            f"# About {name}\n\n**Question.** Does <img src=x onerror=alert(1)> work?\n\n"
            "The loss $\\sum_i \\alpha_i x^2$ of [the other](10_good.ipynb)."
            "\n\n<script src='https://example.org/x.js'></script> ![far](https://example.org/far.png)"
        )
    )
    if parameters is not None:
        cell = nbformat.v4.new_code_cell(parameters)
        cell.metadata["tags"] = ["parameters"]
        notebook.cells.append(cell)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in cells]
    notebook.metadata["reidlib"] = metadata
    folder.mkdir(exist_ok=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")
    return folder / f"{name}.ipynb"


def meet(mine: str, other: str) -> str:
    """Return code that ends only if the other notebook runs at the same time."""
    return f"""
import time
from pathlib import Path
(Path(out).parent / "{mine}").touch()
end = time.time() + 600
while not (Path(out).parent / "{other}").exists():
    assert time.time() < end, "alone"
    time.sleep(0.05)
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Plan, Outcome, str]:
    """A report with notebooks of every final state, two at a time, its results and its messages."""
    root = tmp_path_factory.mktemp("reproduce")
    folder = root / "notebooks"
    build(folder, "5_blocked", "raise SystemError('never run')", FINISH, depends_on=["20_fails"])
    build(
        folder,
        "10_good",
        "import ipywidgets\nfrom IPython.display import display, HTML\nprint('10%\\r100%')\n"
        "display(ipywidgets.IntSlider())\ndisplay(HTML('<script src=\"https://example.org/y.js\"></script>hi'))",
        FINISH,
    )
    build(folder, "20_fails", "x = 1", "raise ValueError('first line\\nsecond <u>line</u>')", FINISH)
    build(folder, "30_dies", "import os; os._exit(1)", FINISH)
    build(folder, "40_silent", "x = 1")
    build(folder, "50_left", meet("left", "right"), FINISH)
    build(folder, "51_right", meet("right", "left"), FINISH, depends_on=["10_good"])
    build(folder, "60_blocked_too", FINISH, depends_on=["5_blocked"])
    kernels = root / "jupyter" / "kernels" / "python3"
    kernels.mkdir(parents=True)
    (kernels / "kernel.json").write_text(
        json.dumps({"argv": ["/nowhere/python"], "display_name": "x", "language": "python"})
    )
    # Braces in the folder's name: papermill would take them for placeholders.
    plan = Plan(
        notebooks=select([], folder),
        profile="smoke",
        out=root / "report {1}",
        jobs=2,
        parameters={"seeds": 3, "data_root": Path("some/data")},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(root / "jupyter"))
        patch.delenv("OMP_NUM_THREADS", raising=False)
        patch.setattr(sys, "stdout", results := io.StringIO())
        patch.setattr(sys, "stderr", messages := io.StringIO())
        outcome = reproduce(plan)
    return plan, outcome, (results.getvalue(), messages.getvalue())


def status(plan: Plan, name: str) -> dict:
    return json.loads((plan.out / name / "status.json").read_text())


def stamps(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_final_state_is_recorded(report):
    plan, outcome, _ = report
    assert outcome.done == ("10_good", "50_left", "51_right")  # left and right end only side by side
    assert outcome.failed == ("20_fails", "30_dies", "40_silent")
    assert outcome.blocked == ("5_blocked", "60_blocked_too")
    assert outcome.skipped == ()
    assert status(plan, "20_fails")["error"] == "ValueError: first line"
    assert status(plan, "30_dies")["error"].startswith("DeadKernelError")
    assert "result.json" in status(plan, "40_silent")["error"]
    assert status(plan, "5_blocked")["error"] == "not run, because 20_fails failed"
    assert not (plan.out / "5_blocked" / "notebook.ipynb").exists()


def test_parameters_reach_the_notebook_in_this_python_in_its_own_folder(report):
    plan, _, _ = report
    used = read_object(plan.out / "10_good" / "result.json")["configuration"]
    assert used["executable"] == sys.executable
    assert used["seeds"] == 3
    assert used["data_root"] == str(Path("some/data").absolute())
    assert used["folder"] == str(plan.notebooks[0].parent)
    assert used["threads"] == str(max(1, len(os.sched_getaffinity(0)) // 2))


def test_a_failed_page_shows_the_traceback_and_what_ran(report):
    plan, _, _ = report
    page = (plan.out / "20_fails" / "index.html").read_text()
    assert "second &lt;u&gt;line&lt;/u&gt;" in page and "Traceback" in page
    assert "failed</span> — ValueError: first line" in page
    assert 'href="#failure"' in page and 'id="failure"' in page and "not executed" in page
    dead = (plan.out / "30_dies" / "index.html").read_text()
    assert "DeadKernelError" in dead and 'href="#failure"' not in dead


def test_pages_load_nothing_from_the_web(report):
    plan, _, _ = report
    pages = [plan.out / "index.html", *plan.out.glob("*/index.html")]
    assert len(pages) == 7
    for path in pages:
        text = path.read_text()
        assert "default-src 'none'" in text
        assert not re.search(r"<(?:script|link|iframe)\b", text)
        assert not re.search(r"<img[^>]*src=[\"']?(?:https?:)?//", text)
        assert not re.search(r"url\(|@import", text)


def test_a_page_needs_no_scripts(report):
    plan, _, _ = report
    page = (plan.out / "10_good" / "index.html").read_text()
    assert 'alt="\\sum_i \\alpha_i x^2"' in page and "$\\sum" not in page
    assert 'href="../10_good/index.html"' in page and 'href="../index.html"' in page
    assert "open the notebook in JupyterLab" in page and "IntSlider" not in page.split("<main>")[1].replace(
        'ipywidgets</span><span class="o">.</span><span class="n">IntSlider', ""
    )
    assert "100%" in page and not re.search(r">10%", page)
    assert "<details>" in page


def test_the_index_shows_results_and_escapes_everything(report):
    plan, _, _ = report
    index = (plan.out / "index.html").read_text()
    assert "3 done, 3 failed, 2 not run" in index
    assert "<img src=x" not in index and "Does &lt;img src=x onerror=alert(1)&gt; work?" in index
    assert "&lt;b&gt;mAP&lt;/b&gt;" in index and "&lt;i&gt;local&lt;/i&gt;" in index
    assert 'src="10_good/curve%201.png" alt="one pixel"' in index and "outside" not in index
    assert "82.81" in index and "abc1234" in index and "2 cores" in index
    assert "✗&nbsp;failed" in index and "ValueError: first line" in index
    names = re.findall(r'<section id="(\w+)"', index)
    assert names == ["5_blocked", "10_good", "20_fails", "30_dies", "40_silent", "50_left", "51_right",
                     "60_blocked_too"]  # fmt: skip


def test_the_log_has_a_line_for_each_change_and_no_carriage_returns(report):
    plan, _, (results, messages) = report
    assert results.splitlines() == [
        "8 notebooks, profile smoke: 8 to run, 0 unchanged",
        "3 done, 0 unchanged, 3 failed, 2 not run",
        f"report: {plan.out / 'index.html'}",
    ]
    lines = messages.splitlines()
    assert "20_fails  running" in lines
    assert any(re.fullmatch(r"20_fails  failed  \d:\d\d  ValueError: first line", line) for line in lines)
    assert "\r" not in messages


def test_a_second_run_changes_no_file(report):
    plan, outcome, _ = report
    again = replace(plan, notebooks=tuple(p for p in plan.notebooks if p.stem in outcome.done))
    before = stamps(plan.out)
    assert reproduce(again, progress=False) == Outcome((), outcome.done, (), ())
    assert stamps(plan.out) == before


class Recorder:
    """Stands in for kernels where only the decision to run counts: writes what a notebook would."""

    def __init__(self, failing: tuple[str, ...] = ()):
        self.ran: list[str] = []
        self.failing = failing

    def start(self, call, environment, log):
        _, (path, folder, _) = pickle.loads(call)
        self.ran.append(path.stem)
        (folder / "notebook.partial.ipynb").write_text(path.read_text())
        if path.stem not in self.failing:
            (folder / "result.json").write_text(json.dumps({"title": path.stem}))
        future = Future()
        future.set_result(None)
        return future


@pytest.fixture
def rerun(tmp_path):
    """Two notebooks, the second depending on the first; a function that tells which of them run."""
    folder = tmp_path / "notebooks"
    first = build(folder, "10_first", "1", parameters='profile = "quick"\nout = ""')
    second = build(folder, "11_second", "2", depends_on=["10_first"])

    def run(*, failing=(), prepare=None, **changes) -> list[str]:
        plan = {"notebooks": (first, second), "profile": "smoke", "out": tmp_path / "out", **changes}
        pool = Pool((recorder := Recorder(failing)).start, lambda: 2)
        reproduce(Plan(**plan), prepare=prepare, cluster=nullcontext(pool), progress=False)
        return recorder.ran

    run.folder, run.first, run.second, run.out = folder, first, second, tmp_path / "out"
    return run


BOTH = ["10_first", "11_second"]


def test_changed_notebooks_run_again(rerun):
    assert rerun() == BOTH
    assert rerun() == []
    assert rerun(parameters={"seeds": 2}) == ["11_second"]  # the first does not declare it
    assert rerun(parameters={"seeds": 2}) == []
    assert rerun(inputs={"data": "other"}) == BOTH
    assert rerun(profile="quick") == BOTH
    assert rerun(profile="quick", force=True) == BOTH
    (rerun.out / "11_second" / "index.html").unlink()
    assert rerun(profile="quick") == ["11_second"]
    build(rerun.folder, "10_first", "1 + 1")
    assert rerun(profile="quick", notebooks=(rerun.second,)) == ["11_second"]
    assert rerun(profile="quick") == ["10_first"]


def test_outputs_of_a_source_notebook_do_not_count_as_a_change(rerun):
    rerun()
    notebook = nbformat.read(rerun.first, as_version=4)
    notebook.cells[-1].outputs = [nbformat.v4.new_output("stream", text="ran by hand")]
    notebook.cells[-1].execution_count = 7
    nbformat.write(notebook, rerun.first)
    assert rerun() == []


def test_a_failed_notebook_runs_again_and_an_old_result_does_not_count(rerun):
    rerun()
    assert rerun(force=True, failing=["10_first"]) == ["10_first"]
    assert json.loads((rerun.out / "10_first" / "status.json").read_text())["state"] == "failed"
    assert rerun() == BOTH


def test_a_new_version_of_torch_or_of_the_package_counts_as_a_change(rerun, monkeypatch):
    rerun()
    monkeypatch.setattr(notebook, "version", lambda name: "99")
    assert rerun() == BOTH
    assert rerun() == []


def test_deciding_that_nothing_has_changed_imports_nothing_heavy():
    heavy = "{'torch', 'papermill', 'nbconvert', 'matplotlib', 'pandas'}"
    code = f"import sys, reidlib.reports.reproduce; print(sorted({heavy} & set(sys.modules)))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "[]\n"


def test_notebooks_are_selected_by_number_or_name_in_order(tmp_path):
    for name in ("00_start", "10_data", "20_train", "9_early"):
        build(tmp_path, name)
    (tmp_path / "scratch.ipynb").write_text("")

    def names(*numbers):
        return [path.stem for path in select(numbers, tmp_path)]

    assert names() == ["00_start", "9_early", "10_data", "20_train"]
    assert names("20", 0, "10_data") == ["00_start", "10_data", "20_train"]
    with pytest.raises(InputError, match=r"'2'.*00_start, 9_early, 10_data, 20_train"):
        names("2")
    with pytest.raises(InputError, match="none in"):
        select([], tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        ({}, {"parameters": {"benchmark": "x"}}, "one of data_root, profile, seeds; got 'benchmark'; name"),
        ({}, {"parameters": {"out": "x"}}, "set by the plan"),
        ({}, {"parameters": {"seeds": object()}}, "parameter seeds must be"),
        ({}, {"jobs": 0}, "at least one notebook must run at a time"),
        ({"parameters": None}, {}, "0 of them in 10_one.ipynb"),
        ({"parameters": "out = 1"}, {}, "10_one.ipynb without profile"),
        ({"parameters": "out = = 1"}, {}, "line 1 of it in 10_one.ipynb"),
        ({"depends_on": ["99_none"]}, {}, "99_none in 10_one"),
        ({"depends_on": ["10_one"]}, {}, "10_one → 10_one"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, make, changes, message):
    path = build(tmp_path / "notebooks", "10_one", **make)
    with pytest.raises(InputError) as error:
        plan = Plan(**{"notebooks": (path,), "profile": "smoke", "out": tmp_path / "out", **changes})
        reproduce(plan, progress=False)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_no_notebook_waits_for_one_that_waits_for_all(tmp_path):
    """Otherwise both would wait without end."""
    build(tmp_path, "10_one", depends_on=["20_two"])
    build(tmp_path, "20_two", alone=True)
    for numbers in ([], ["10_one"]):
        with pytest.raises(InputError, match=r"no notebook depends on one that runs alone.*20_two in 10_one"):
            reproduce(Plan(select(numbers, tmp_path), "smoke", tmp_path / "out"), progress=False)


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    (tmp_path / "10_one.ipynb").write_text("{")
    with pytest.raises(InputError, match=r"valid Jupyter JSON; got .*10_one\.ipynb"):
        reproduce(Plan((tmp_path / "10_one.ipynb",), "smoke", tmp_path / "out"), progress=False)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(rerun, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"must be writable.*Not a directory.*--out"):
        rerun(out=tmp_path / "file" / "out")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left.*free some disk space"):
        rerun()
    assert not list(rerun.out.iterdir())


def test_two_commands_do_not_write_one_report(rerun):
    rerun.out.mkdir()
    with FileLock(rerun.out / ".lock"), pytest.raises(InputError, match="one command at a time"):
        rerun()


def stop(command, number):
    """Stop a command; return what it printed to standard output and to standard error."""
    if number == signal.SIGINT:
        os.killpg(command.pid, number)  # as a terminal does: the workers get it too
    else:
        command.send_signal(number)
    return command.communicate(timeout=600)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_leaves_no_kernel_and_no_complete_result(tmp_path, number):
    folder, out = tmp_path / "notebooks", tmp_path / "out"
    busy = "import os, pathlib, time\npathlib.Path(out, 'pid').write_text(str(os.getpid()))\ntime.sleep(3000)"
    build(folder, "10_busy", busy, FINISH)
    build(folder, "20_never", FINISH)
    program = (
        "from pathlib import Path; from reidlib.reports.reproduce import *\n"
        f"reproduce(Plan(select([], Path({str(folder)!r})), 'smoke', Path({str(out)!r}), jobs=1))"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    mark = out / "10_busy" / "pid"
    until(lambda: mark.is_file() and mark.read_text(), "the kernel to start")
    kernel = int(mark.read_text())
    printed, complaints = stop(command, number)
    until(lambda: not alive(kernel), "the kernel to end")
    states = [
        json.loads((out / name / "status.json").read_text())["state"] for name in ("10_busy", "20_never")
    ]
    index = (out / "index.html").read_text()
    assert not list(out.rglob("result.json"))
    if number == signal.SIGINT:
        assert states == ["interrupted", "waiting"]
        assert "10_busy  interrupted" in complaints and "1 interrupted, 1 not run yet" in index
        assert 'http-equiv="refresh"' not in index
        assert printed == "2 notebooks, profile smoke: 2 to run, 0 unchanged\n"
        assert complaints.splitlines()[-1] == (
            "KeyboardInterrupt: interrupted with 10_busy running; finished work is kept; "
            "run the same command again to continue"
        )
        assert "TCP" not in complaints
    else:
        assert states == ["running", "waiting"] and "1 running, 1 waiting" in index
        assert re.search(
            r"Written at \d\d:\d\d:\d\d .*If this time stands still, the command has ended", index, re.S
        )


def test_a_kernel_ends_with_the_process_that_executes_its_notebook(tmp_path):
    dies = (
        "import os, pathlib, signal, time\npathlib.Path(out, 'pid').write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(3000)"
    )
    build(tmp_path / "notebooks", "10_dies", dies, FINISH)
    plan = Plan(select([], tmp_path / "notebooks"), "smoke", tmp_path / "out")
    assert reproduce(plan, progress=False).failed == ("10_dies",)
    assert "SIGKILL" in status(plan, "10_dies")["error"]
    kernel = int((tmp_path / "out" / "10_dies" / "pid").read_text())
    until(lambda: not alive(kernel), "the kernel to end")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path))
    return tmp_path


def test_a_failed_task_blocks_nothing(home):
    check_runs = "from reidlib import files\nassert bool(list(files.runs().glob('{}-*/run.json'))) == {}"
    build(home / "notebooks", "10_left", meet("left", "right"), FINISH)
    build(home / "notebooks", "11_right", meet("right", "left"), FINISH)
    build(home / "notebooks", "20_waits", check_runs.format("good", True), FINISH)
    build(home / "notebooks", "30_finds_nothing", check_runs.format("killed", False), FINISH)
    fake_tasks.pause(home, "killed").touch()
    tasks = [
        Task("killed", fake_tasks.train, ("killed", 5), notebooks=("30_finds_nothing",)),
        Task("bad", fake_tasks.fail, ("bad",), notebooks=("20_waits",)),
        Task("good", fake_tasks.train, ("good", 10), notebooks=("20_waits", "99_not_in_the_plan")),
        Task("dies", os._exit, (3,)),
        Task("unknown", fake_tasks.train, ("too", "many", "arguments")),
    ]

    def kill() -> None:
        until(lambda: notes(home, "killed epoch 2"), "the training")
        os.kill(processes(home, "killed")[0], signal.SIGKILL)

    (killer := threading.Thread(target=kill)).start()
    prepared = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", results := io.StringIO())
        patch.setattr(sys, "stderr", messages := io.StringIO())
        outcome = reproduce(
            Plan(select([], home / "notebooks"), "smoke", home / "out", jobs=2),
            prepare=lambda waiting: prepared.append(tuple(source.name for source in waiting)) or tasks,
        )
    killer.join()
    assert prepared == [("10_left", "11_right", "20_waits", "30_finds_nothing")]
    assert outcome == Outcome(prepared[0], (), (), (), ("killed", "bad", "dies", "unknown"))
    lines = messages.getvalue().splitlines()
    assert lines[1] == "tasks to be done: 5; at a time: 2"
    logs = home / "out" / "tasks"
    ends = {line.split()[0]: line.split("  ", 3)[3] for line in lines if "  failed  " in line}
    assert ends["killed"].startswith("its process was ended by SIGKILL")
    assert ends["killed"].endswith(f"(see {logs / 'killed.log'})")
    assert ends["bad"] == f"ValueError: bad cannot be (see {logs / 'bad.log'})"
    assert ends["dies"] == "its process ended abruptly, with exit status 3"
    assert ends["unknown"].startswith("TypeError: train() takes 2 positional arguments")
    assert results.getvalue().splitlines()[-2] == "4 done, 0 unchanged, 0 failed, 0 not run, 4 tasks failed"
    assert "a word before bad fails" in (logs / "bad.log").read_text()
    assert {path.name for path in logs.iterdir()} == {"bad.log", "killed.log", "unknown.log"}
    order = [line for line in lines if line.split()[0] in ("good", "20_waits")]
    assert [line.split()[1] for line in order] == ["running", "done", "running", "done"]


class Finisher:
    """A pool of two whose work ends when a test says so; notebooks leave what a real one does."""

    def __init__(self, out: Path):
        self.out, self.running, self.started = out, {}, []
        self.pool = Pool(self.start, lambda: 2)

    def start(self, call, environment, log) -> Future:
        name = log.stem if log.parent.name == "tasks" else log.parent.name
        self.started.append(name)
        self.running[name] = Future()
        return self.running[name]

    def end(self, session: Session, name: str, error: str | None = None) -> list[str]:
        """End a piece of work; return what starts."""
        if (self.out / name).is_dir() and not error:
            nbformat.write(nbformat.v4.new_notebook(), self.out / name / "notebook.partial.ipynb")
            (self.out / name / "result.json").write_text('{"headline": {}}')
        self.running.pop(name).set_result(error)
        self.started.clear()
        session._collect()
        session._start_ready()
        session._write_index(running=True)
        return self.started


def waiting_session(home, trainings: dict[str, tuple[str, ...]], metadata=None, **tasks):
    """Start a session of fake notebooks and of the trainings that they wait for."""
    jobs = []
    for name in ("00_start", "10_data", "20_jlml", "21_pyramid", "36_box", "41_size", "90_claims"):
        path = build(home / "notebooks", name, "1", **(metadata or {}).get(name, {}))
        jobs.append(Job(notebook.read_source(path), {"profile": "smoke"}, "digest", "reidlib reproduce"))
    queue = [
        Task(name, fake_tasks.train, (), notebooks, kind=name, **tasks.get(name, {}))
        for name, notebooks in trainings.items()
    ]
    (home / "out").mkdir()
    finisher = Finisher(home / "out")
    session = Session(home / "out", jobs, queue, finisher.pool, Display(enabled=False))
    session._capacity = 2
    session._start_ready()
    session._write_index(running=True)
    return session, finisher


def index_words(home) -> dict[str, str]:
    """Return the state of each notebook in the index."""
    text = (home / "out" / "index.html").read_text()
    rows = re.findall(r"<tr><td>(\d+)</td>.*?<span class=\"\w+\">.&nbsp;(.*?)</span>", text, re.S)
    return dict(rows)


ROWS = {
    "perturbed": ("36_box", "90_claims"),
    "pyramid": ("21_pyramid", "36_box", "90_claims"),
    "stripes": ("36_box", "90_claims"),
    "jlml": ("20_jlml", "36_box", "90_claims"),
}


def test_each_notebook_runs_as_soon_as_its_trainings_are_done(home):
    after = {"after": ("jlml", "pyramid", "stripes"), "weight": 0.5}
    session, finisher = waiting_session(home, ROWS, perturbed=after)
    assert finisher.started == ["00_start", "10_data"]
    assert index_words(home) == {
        **{
            "00": "running",
            "10": "running",
            "20": "waiting for 1 of 1 task",
            "21": "waiting for 1 of 1 task",
        },
        **{"36": "waiting for 4 of 4 tasks", "41": "next", "90": "waiting for 4 of 4 tasks"},
    }
    text = (home / "out" / "index.html").read_text()
    assert '<meta http-equiv="refresh" content="10">' in text and "2 running, 5 waiting" in text
    assert "running: 00_start" in text and "next: jlml, 41_size, pyramid, stripes, 20_jlml," in text
    assert "the same command continues: <code>reidlib reproduce</code>" in text
    # One of the two is for the training of an earlier notebook; then the notebook that waits for nothing.
    assert finisher.end(session, "00_start") == ["jlml"]
    assert index_words(home)["00"] == "done"
    assert finisher.end(session, "10_data") == ["41_size"]
    # The notebook comes before all other trainings.
    assert finisher.end(session, "jlml") == ["20_jlml"]
    assert index_words(home)["36"] == "waiting for 3 of 4 tasks"
    assert finisher.end(session, "41_size") == ["pyramid"]
    assert finisher.end(session, "20_jlml") == ["stripes"]
    assert finisher.end(session, "pyramid", "a failure") == ["21_pyramid"]  # it marks what is missing
    assert finisher.end(session, "21_pyramid") == []  # the perturbed images wait for the last training
    assert finisher.end(session, "stripes") == ["perturbed"]
    assert finisher.end(session, "perturbed") == ["36_box", "90_claims"]
    assert finisher.end(session, "36_box", "a failure") == []
    assert index_words(home)["36"] == "failed" and index_words(home)["90"] == "running"
    finisher.end(session, "90_claims")
    assert set(session.run().values()) == {"done", "failed"}
    text = (home / "out" / "index.html").read_text()
    assert "refresh" not in text and "Written at" not in text and "6 done, 1 failed" in text


def test_a_notebook_waits_for_the_notebooks_it_depends_on(home):
    session, finisher = waiting_session(home, {}, {"10_data": {"depends_on": ["90_claims"]}})
    assert finisher.started == ["00_start", "20_jlml"]
    assert index_words(home)["10"] == "waiting for 90_claims"
    for name in ("00_start", "20_jlml", "21_pyramid", "36_box", "41_size"):
        finisher.end(session, name)
    assert finisher.end(session, "90_claims", "a failure") == []
    assert index_words(home)["10"] == "not run"


def test_notebooks_that_measure_speed_run_alone_at_the_end(home):
    alone = {name: {"alone": True} for name in ("00_start", "41_size")}
    session, finisher = waiting_session(home, {"jlml": ("90_claims",)}, alone)
    assert index_words(home)["00"] == "measures speed when all else is done"
    for name in ("10_data", "20_jlml", "21_pyramid", "36_box"):
        assert not alone.keys() & set(finisher.started)
        finisher.end(session, name)
    assert finisher.end(session, "jlml", "a failure") == ["90_claims"]
    assert finisher.end(session, "90_claims", "a failure") == ["00_start"]
    assert finisher.end(session, "00_start") == ["41_size"]
    finisher.end(session, "41_size")
    assert set(session.run().values()) == {"done", "failed"}


def test_the_longest_training_does_not_come_last(home):
    rows = dict.fromkeys(("a", "b", "c", "long"), ("20_jlml",))
    known = {name: {"seconds": 90.0 if name == "long" else 30.0} for name in rows}
    session, finisher = waiting_session(home, rows, **known)
    assert finisher.end(session, "00_start") == ["long"]


def test_the_time_left_is_unknown_rather_than_guessed_from_light_work(home, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("reidlib.reports.scheduler.time.time", lambda: now[0])
    session, finisher = waiting_session(home, ROWS, perturbed={"weight": 0.5})
    now[0] += 10
    finisher.end(session, "00_start")
    finisher.end(session, "10_data")
    assert session.time_left() == ""  # notebooks of ten seconds say nothing about trainings
    (home / "out" / "tasks" / "jlml.progress").write_text("step 1/9, 40 s left")
    now[0] += 20
    # A training takes 60 s, of which jlml has had 20; the images half of that; a notebook 10 s, which 41 has
    # had: (40 + 60 + 60 + 30 + 4 * 10) / 2.
    assert session.time_left() == ", about 1:55 left"


def test_the_first_page_is_there_before_the_last_training(home):
    """In real processes: a training goes on only when the page of another notebook is there."""
    build(home / "notebooks", "10_first", FINISH)
    build(home / "notebooks", "20_second", FINISH)
    (paused := fake_tasks.pause(home, "b")).touch()
    tasks = [
        Task("b", fake_tasks.train, ("b", 8), notebooks=("20_second",)),
        Task("a", fake_tasks.train, ("a", 1), notebooks=("10_first",)),
    ]
    index, seen = home / "out" / "index.html", []

    def release() -> None:
        until((home / "out" / "10_first" / "index.html").is_file, "the first page")
        until(lambda: "1 done, 1 waiting" in index.read_text(), "the index")
        seen.append((index.read_text(), notes(home, "b found")))
        paused.unlink()

    def prepare(waiting):
        assert "2 waiting" in index.read_text() and "are prepared" in index.read_text()
        return tasks

    (releaser := threading.Thread(target=release)).start()
    plan = Plan(select([], home / "notebooks"), "smoke", home / "out", jobs=2)
    outcome = reproduce(plan, prepare=prepare, progress=False)
    releaser.join()
    assert outcome.done == ("10_first", "20_second")
    ((text, trained),) = seen
    assert not trained and "running: b" in text and "waiting for 1 of 1 task" in text
    assert 'href="10_first/index.html"' in text and "refresh" in text
    assert "refresh" not in index.read_text() and "2 done" in index.read_text()


def test_a_refused_command_leaves_the_index_as_it_was(rerun):
    def refuse(waiting):
        assert "refresh" in (rerun.out / "index.html").read_text()
        raise InputError("a rule", "a value", "a mend")

    with pytest.raises(InputError, match="a rule"):
        rerun(prepare=refuse)
    assert not (rerun.out / "index.html").exists()
    rerun()
    before = stamps(rerun.out)
    with pytest.raises(InputError, match="a rule"):
        rerun(prepare=refuse, force=True)
    assert stamps(rerun.out).keys() == before.keys()
    assert "refresh" not in (rerun.out / "index.html").read_text()


def test_unchanged_notebooks_are_said_to_be_unchanged_while_others_run(rerun):
    rerun()
    words = []
    build(rerun.folder, "11_second", "3", depends_on=["10_first"])
    rerun(prepare=lambda waiting: words.append((rerun.out / "index.html").read_text()))
    assert "✓&nbsp;unchanged" in words[0] and "…&nbsp;waiting" in words[0]
    assert "unchanged" not in (rerun.out / "index.html").read_text()


def stop_in_b(command, number, home):
    """Stop a command after the training "a", in the midst of "b"; return its messages."""
    until(lambda: notes(home, "a found") and notes(home, "b epoch 2"), "a and a part of b")
    training = processes(home, "b")[0]
    messages = stop(command, number)[1]
    until(lambda: not alive(training), "the trainings to end")
    assert not notes(home, "b found")
    return messages


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_command_continues_where_it_stopped(home, number):
    build(home / "notebooks", "10_after", FINISH)
    trainings = {"a": 1, "b": 8, "c": 8}
    (paused := fake_tasks.pause(home, "b")).touch()
    command = fake_tasks.start_command(home, home / "notebooks", trainings, "")
    stop_in_b(command, number, home)
    paused.unlink()
    again = fake_tasks.start_command(home, home / "notebooks", trainings, "")
    printed, complaints = again.communicate(timeout=600)
    assert again.returncode == 0, complaints
    assert "done=('10_after',)" in printed
    check_trained_once(home, **trainings)
    assert len(notes(home, "a begins")) == 1


SETTINGS = {"jobs": 2, "device": "cpu", "memory": Memory()}


def test_tasks_run_without_notebooks(home, capsys):
    tasks = [Task("good", fake_tasks.train, ("good", 1)), Task("bad", fake_tasks.fail, ("bad",))]
    assert run_tasks(lambda: tasks, home / "out", **SETTINGS) == {"good": "done", "bad": "failed"}
    assert {path.name for path in (home / "out").rglob("*")} == {".lock", "tasks", "bad.log"}
    assert "tasks to be done: 2; at a time: 2\n" in capsys.readouterr().err
    assert run_tasks(list, home / "out", **SETTINGS) == {}


def test_a_full_disk_stops_the_queue_and_the_same_command_goes_on(home, capsys):
    """Every other training would fail as well; what is finished stays, what runs keeps its checkpoint."""
    full = home / "full"
    full.touch()

    def queue() -> list[Task]:
        names = {"a": 1, "b": 200, "full": 1, "d": 1}
        functions = {"full": (fake_tasks.train_with_room, (str(full),))}
        return [Task(name, *functions.get(name, (fake_tasks.train, (name, n)))) for name, n in names.items()]

    with pytest.raises(InputError, match=r"the disk has room.*No space left.*the same command again"):
        run_tasks(queue, home / "out", **SETTINGS)
    assert "d  running" not in capsys.readouterr().err
    assert notes(home, "a found") and not notes(home, "b found") and not notes(home, "d begins")
    epochs = len(notes(home, "b epoch"))
    full.unlink()
    fake_tasks.note("again")
    shortened = [replace(task, arguments=("b", epochs + 2)) if task.name == "b" else task for task in queue()]
    assert set(run_tasks(lambda: shortened, home / "out", **SETTINGS).values()) == {"done"}
    check_trained_once(home, a=1, b=epochs + 2, d=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_queue_continues_where_it_stopped(home, number):
    trainings = {"a": 1, "b": 8, "c": 8}
    (paused := fake_tasks.pause(home, "b")).touch()
    queue = f"run_tasks(lambda: tasks, home / 'out', **{SETTINGS!r})"
    command = fake_tasks.start_command(home, None, trainings, queue)
    complaints = stop_in_b(command, number, home)
    assert number == signal.SIGKILL or "finished work is kept; run the same command again" in complaints
    paused.unlink()
    again = fake_tasks.start_command(home, None, trainings, queue)
    printed, complaints = again.communicate(timeout=600)
    assert again.returncode == 0, complaints
    assert printed == "{'a': 'done', 'b': 'done', 'c': 'done'}\n"
    check_trained_once(home, **trainings)
    assert len(notes(home, "a begins")) == 1


def test_the_time_left_comes_from_measured_durations(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("reidlib.reports.scheduler.time.time", lambda: now[0])
    started = []

    def start(*_):
        started.append(Future())
        return started[-1]

    tasks = [Task(f"{kind}{n}", fake_tasks.train, (), (), kind) for n in (0, 1) for kind in ("x", "y", "z")]
    pool = Pool(start, lambda: 2)
    session = Session(tmp_path, (), tasks, pool, Display(enabled=False))
    assert session.time_left() == ""  # nothing is known
    known = [replace(task, seconds=100.0 if task.kind == "x" else None) for task in tasks]
    assert Session(tmp_path, (), known, pool, Display(enabled=False)).time_left() == ", about 5:00 left"
    session._capacity = 2
    session._start_ready()
    (tmp_path / "tasks" / "x0.progress").write_text("step 20/100, loss 3.1, 30 s left")
    now[0] += 10
    # x takes 40 s, and so others of which nothing is known: (30 + 30 + 4 * 40) / 2.
    assert session._lines()[0] == "0 finished, 2 running, 4 waiting, about 1:50 left"
    now[0] += 50
    started[1].set_result(None)
    session._collect()
    session._start_ready()
    (tmp_path / "tasks" / "x0.progress").write_text("")
    # y took 60 s; nothing else is measured, x should have ended: (0 + 60 + 60 + 60 + 60) / 2.
    assert session._lines()[0] == "1 finished, 2 running, 3 waiting, about 2:00 left"
    started[0].set_exception(ValueError("x"))
    session._collect()
    assert session._lines()[0].startswith("2 finished, 1 running, 3 waiting")


def test_no_more_jobs_than_memory_allows(tmp_path):
    memory = Memory(2**30, "measured", 3 * 2**30 + 1)
    memory.check(3), memory.check(None), Memory().check(10**6)
    with pytest.raises(
        InputError, match=r"4 jobs of 1\.0 GiB each \(measured\) in 3\.0 GiB of free memory; "
    ):
        memory.check(4)
    with pytest.raises(InputError, match="use --jobs 3 or less"):
        run_tasks(pytest.fail, tmp_path / "out", jobs=4, device="cpu", memory=memory)
    assert not (tmp_path / "out").exists()
    assert replace(memory, available=5).jobs == 1  # one may always try
    assert local_pool(9, None, "cpu", replace(memory, available=5)).capacity() == 1
    with pytest.raises(InputError, match="use --jobs 3 or less"):
        notebook = build(tmp_path / "notebooks", "10_never", FINISH)
        reproduce(Plan((notebook,), "smoke", tmp_path / "out", jobs=4, memory=lambda: memory), progress=False)
    assert not (tmp_path / "out").exists()
    if sys.platform == "linux":
        assert 2**20 < available_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_stopped_training_saves_a_checkpoint_before_it_ends(home):
    """Work that handles Ctrl-C, as a training's loop does, stops after its step."""
    call = pickle.dumps((fake_tasks.listen, (str(home),)))
    stopping = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_in_process, call, {}, home / "log", stopping.is_set)
        until((home / "listening").is_file, "the process")
        stopping.set()
        assert future.result(600) == STOPPED
    assert (home / "saved").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each piece of work imports for itself")
def test_copies_of_one_process_share_its_imports_only(home):
    """Each has its environment and its end; the process is replaced if it was killed, and ends at the end."""
    pool = local_pool(2, 2, "cpu", imports=["import no_such_module", "import fake_tasks, this"])

    def run(function, *arguments, **environment):
        return pool.start(pickle.dumps((function, arguments)), environment, home / "log").result(60)

    assert run(fake_tasks.note_process, "first", "this", COLOUR="\udcff red") is None
    assert run(fake_tasks.note_process, "second", "this") is None
    assert run(os._exit, 3) == "its process ended abruptly, with exit status 3"
    assert run(os.abort) == "its process was ended by SIGABRT"
    (first, *rest), second = (notes(home, name)[0].split() for name in ("first", "second"))
    assert rest == ["True", "'\\udcff", "red'"] and second == [first, "True", "None"]
    os.kill(int(first), signal.SIGKILL)
    until(lambda: not alive(int(first)), "the end of the process that is copied")
    assert run(fake_tasks.note_process, "third", "this") is None
    third = int(notes(home, "third")[0].split()[0])
    assert third != int(first) and alive(third)
    pool.stop()
    assert not alive(third)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each piece of work imports for itself")
def test_work_that_was_not_started_is_started_again(home, monkeypatch):
    """The process that is copied may be killed while it imports, and Ctrl-C does not wait for its imports."""

    def run(*imports):
        pool = local_pool(1, 1, "cpu", imports=imports)
        future = pool.start(pickle.dumps((fake_tasks.note_process, ("done", "this"))), {}, home / "log")
        return pool, future

    killed = home / "killed"
    kills = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    pool, future = run("raise SystemExit", f"import os; os.mkdir({str(killed)!r}); {kills}")
    assert future.result(60) is None and killed.is_dir() and len(notes(home, "done")) == 1
    pool.stop()
    pool, future = run(kills)
    assert "not started" in future.result(60)
    pool.stop()
    monkeypatch.setattr("reidlib.reports.processes._GRACE_PERIOD", 500)
    pool, future = run("import time; time.sleep(400)")
    until(future.running, "the start")
    start = time.monotonic()
    pool.stop()
    assert future.result() == STOPPED and time.monotonic() - start < 300
    assert len(notes(home, "done")) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere kernels are new processes")
def test_a_kernel_begins_with_the_imports_of_its_notebook(tmp_path):
    begins = "import os, sys\nassert {'reidlib.progress', 'papermill'} <= sys.modules.keys()"
    bars = (
        "from reidlib.progress import progress_bar\nimport tqdm.notebook\n"
        "assert isinstance(progress_bar(), tqdm.notebook.tqdm)\n"  # chosen in the kernel
        "assert os.getcwd() == os.path.dirname(os.path.dirname(out)) + '/notebooks'"
    )
    build(tmp_path / "notebooks", "10_imports", begins, bars, FINISH)
    plan = Plan(select([], tmp_path / "notebooks"), "smoke", tmp_path / "out")
    outcome = reproduce(plan, progress=False)
    assert outcome.done == ("10_imports",), status(plan, "10_imports")["error"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no files of sockets")
@pytest.mark.parametrize(("name", "transport"), [("", "ipc"), ("long" * 25, "tcp")])
def test_a_kernel_takes_no_port_that_another_program_could_take(home, monkeypatch, name, transport):
    with tempfile.TemporaryDirectory() as short:  # tmp_path is longer than a socket's file may be
        folder = Path(short) / name
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", None)  # what was read from TMPDIR before
        asked = "from ipykernel.kernelapp import IPKernelApp\n"
        asked += f"assert IPKernelApp.instance().transport == '{transport}'"
        build(home / "notebooks", "10_transport", asked, FINISH)
        plan = Plan(select([], home / "notebooks"), "smoke", home / "out")
        outcome = reproduce(plan, progress=False)
        assert outcome.done == ("10_transport",), status(plan, "10_transport")["error"]
        assert not list(folder.glob("reidlib-*"))


def test_the_local_pool_has_a_process_for_each_core():
    code = (
        "import sys; from reidlib.reports.processes import local_pool\n"
        "print([local_pool(pieces, jobs, 'cpu').capacity() for pieces, jobs in [(1, None), (9, 3)]], "
        "'torch' in sys.modules)\n"
        "print(local_pool(9, None, 'cpu').capacity())"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.splitlines() == ["[1, 3] False", str(min(4, len(os.sched_getaffinity(0))))]


def test_one_at_a_time_on_a_gpu(monkeypatch):
    import torch

    monkeypatch.setattr(Execution, "torch_device", property(lambda self: torch.device("cuda")))
    pool = local_pool(9, None, "auto")
    assert (pool.capacity(), pool.threads) == (1, None)
    assert local_pool(9, 2, "auto").capacity() == 2


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("../x", fake_tasks.fail, "a file name too"),
        ("", fake_tasks.fail, "a file name too"),
        ("x", lambda: 1, "imported by another process; got test_reproduce.<lambda>"),
        ("x", fake_tasks.Path.exists, "imported by another process"),
    ],
)
def test_a_task_that_cannot_be_imported_is_refused(name, function, message):
    with pytest.raises(InputError, match=message):
        Task(name, function)


def test_tasks_and_notebooks_need_different_names(rerun):
    for name in ("10_first", "twice"):
        tasks = [Task(name, fake_tasks.fail), Task("twice", fake_tasks.fail)]
        with pytest.raises(InputError, match="all tasks and notebooks have different names; got"):
            rerun(prepare=lambda _, tasks=tasks: tasks)


def test_a_failed_task_changes_the_exit_status(monkeypatch, home, capsys):
    outcomes = [Outcome((), ("00",), (), (), ("training",)), Outcome((), ("00",), (), ())]
    monkeypatch.setattr("reidlib.reports.reproduce.reproduce", lambda *_, **__: outcomes.pop(0))
    assert [main(["reproduce", "00", "--profile", "smoke"]) for _ in range(2)] == [1, 0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_running_notebooks_in_one_line_that_is_cleared():
    display = Display(stream=(stream := Terminal()))
    display.show_running(lambda: ["20_train  cell 1/9  0:02"])
    display.show_running(lambda: ["20_train  cell 2/9  0:03"])
    display.line("20_train  done  0:04")
    display.show_running(lambda: [])
    assert "cell 1/9" in stream.getvalue() and stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\r20_train  done  0:04\n")


def test_results_go_to_standard_output_and_clear_the_running_line(capsys):
    display = Display(stream=(stream := Terminal()))
    display.show_running(lambda: ["20_train  cell 1/9  0:02"])
    display.result("report: index.html")
    assert capsys.readouterr().out == "report: index.html\n"
    assert stream.getvalue().endswith("\r")
    Display(enabled=False).result("report: index.html")
    assert capsys.readouterr() == ("", "")


def test_durations_are_formatted_as_clocks():
    assert [clock(seconds) for seconds in (0.4, 59.6, 3599, 3661)] == ["0:00", "1:00", "59:59", "1:01:01"]


def test_every_file_of_the_package_counts_for_a_report(tmp_path, monkeypatch):
    """Published numbers, templates, style sheets and partitions count as code does; caches do not."""
    package = Path(notebook.__file__).parents[1]
    copy = tmp_path / "reidlib"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(notebook, "__file__", str(copy / "reports" / "notebook.py"))
    digests = {notebook.environment_digest()}
    for ending in ("py", "csv", "json", "html", "css", "mplstyle"):
        path = sorted(copy.rglob(f"*.{ending}"))[-1]
        path.write_bytes(path.read_bytes() + b" ")
        digest = notebook.environment_digest()
        assert digest not in digests, path
        digests.add(digest)
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "x.pyc").touch()
    assert notebook.environment_digest() == digest


def test_a_process_prints_any_name(tmp_path):
    log = tmp_path / "log"
    call = pickle.dumps((fake_tasks.print_name, ("J\udcfcrgen 张伟",)))
    python_path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": python_path}
    failure = run_in_process(call, environment, log)
    assert failure == "ValueError: J\udcfcrgen 张伟 cannot be trained"
    assert b"J\\xfcrgen \\u5f20\\u4f1f is trained" in log.read_bytes()


def test_a_report_of_names_that_are_not_utf8(tmp_path):
    """papermill writes no such name; the report's own copy does."""
    name = os.fsdecode(b"J\xfcrgen")
    finish = FINISH + "\nprint(data_root)\nassert data_root.endswith(chr(0xdcfc) + 'rgen')\n"
    notebooks = tmp_path / "notebooks"
    build(notebooks, "10_good", finish)
    build(notebooks, "20_bad", "raise ValueError(data_root)")
    parameters = {"data_root": str(tmp_path / name)}
    plan = Plan(select([], notebooks), "smoke", tmp_path / f"out {name}", parameters=parameters)
    outcome = reproduce(plan, progress=False)
    assert (outcome.done, outcome.failed) == (("10_good",), ("20_bad",))
    assert status(plan, "10_good")["parameters"]["data_root"] == parameters["data_root"]
    for page in ("10_good/index.html", "20_bad/index.html"):
        text = (plan.out / page).read_text(encoding="utf-8")
        assert "\\udcfc" in text  # the parameter, which the cells below spell in another way
        assert "J\ufffdrgen" in text  # what they print and raise
    index = (plan.out / "index.html").read_text(encoding="utf-8")
    assert "J\ufffdrgen" in index and "20_bad" in index
    assert reproduce(plan, progress=False).skipped == ("10_good",)
