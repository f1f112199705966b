"""Reports on a Dask cluster: a real scheduler and two workers in separate processes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import fake_tasks
import pytest
from fake_tasks import alive, check_trained_once, notes, processes, until
from test_reproduce import FINISH, build, meet, status

from reidlib.cli import main
from reidlib.errors import InputError
from reidlib.reports import cluster
from reidlib.reports.cluster import dask_pool
from reidlib.reports.reproduce import Plan, Task, reproduce, select


@contextmanager
def scheduler(folder: Path):
    """Yield a scheduler's address and a function that starts its workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, started = f"tcp://127.0.0.1:{port}", []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            map(str, (*Path(__file__).parents[:2], os.environ.get("PYTHONPATH", "")))
        ),
        # The workers must use the command's folder, not that of their own environment.
        "REIDLIB_HOME": str(folder / "elsewhere"),
        "DASK_TEMPORARY_DIRECTORY": str(folder),
    }

    def start(part: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.dask_{part}", *arguments, "--no-dashboard"]
        with (folder / f"{part}{len(started)}.log").open("w") as log:
            process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            started.append(process)

    def start_workers(number: int, threads: int = 1) -> None:
        start("worker", address, "--nworkers", str(number), "--nthreads", str(threads), "--host", "127.0.0.1")

    start("scheduler", "--host", "127.0.0.1", "--port", str(port))
    try:
        yield address, start_workers
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGKILL)  # an orderly end takes seconds
            process.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with scheduler(tmp_path_factory.mktemp("cluster")) as (address, start_workers):
        start_workers(2)
        yield address


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def workers(address, home):
    return dask_pool(address, out=home / "out", shared=(home,), timeout=300, patience=300)


def plan(home: Path) -> Plan:
    return Plan(select([], home / "notebooks"), "smoke", home / "out")


def test_notebooks_run_at_once_and_wait_for_their_task(home, workers, capfd):
    build(home / "notebooks", "10_left", meet("left", "right"), FINISH)
    build(home / "notebooks", "11_right", meet("right", "left"), FINISH)
    check_runs = "from reidlib import files\nassert len(list(files.runs().glob('one-*/run.json'))) == 1"
    build(home / "notebooks", "20_waits", check_runs, FINISH)
    tasks = [
        Task("one", fake_tasks.train, ("one", 6), notebooks=("20_waits",)),
        Task("two", fake_tasks.fail, ("two",)),
    ]
    prepared = []
    outcome = reproduce(
        plan(home),
        prepare=lambda names: prepared.append(tuple(source.name for source in names)) or tasks,
        cluster=workers,
    )
    assert prepared == [("10_left", "11_right", "20_waits")]
    assert outcome.done == prepared[0]
    assert outcome.failed_tasks == ("two",)
    printed, complaints = capfd.readouterr()
    log = home / "out" / "tasks" / "two.log"
    assert f"ValueError: two cannot be (see {log})" in complaints
    assert "a word before two fails" in log.read_text()
    # Nothing but the states: the libraries of the cluster print nothing.
    names = "|".join(["one", "two", *prepared[0]])
    states = rf"tasks to be done: 2; at a time: \d+|.*shows each page .*|({names})  (running|done|failed)\b.*"
    states += r"|\d+ finished, \d+ running, \d+ waiting\b.*"  # once a minute, on a busy machine
    assert [line for line in complaints.splitlines() if not re.fullmatch(states, line)] == []
    assert printed.splitlines() == [
        "3 notebooks, profile smoke: 3 to run, 0 unchanged",
        "3 done, 0 unchanged, 0 failed, 0 not run, 1 task failed",
        f"report: {home / 'out' / 'index.html'}",
    ]
    assert not (home.parent / "elsewhere").exists()
    assert not list(home.glob(".cluster-*")) + list((home / "out").glob(".cluster-*"))
    assert reproduce(plan(home), cluster=workers, progress=False).skipped == outcome.done  # not connected


def test_a_killed_worker_loses_no_finished_work(home, workers):
    """A worker dies during its second training, then another one during a notebook."""
    # The first attempt leaves a result that the second must not use.
    code = """
import psutil, time
from reidlib import files
notes = files.home() / "notes"
with notes.open("a") as file:
    file.write(f"notebook begins 0 {psutil.Process().parent().parent().pid}\\n")
if notes.read_text().count("notebook begins") == 1:
    Path(out, "result.json").write_text("{}")
    time.sleep(600)
"""
    build(home / "notebooks", "10_dies", "from pathlib import Path" + code, FINISH)
    tasks = [Task(name, fake_tasks.train, (name, n)) for name, n in {"a": 1, "b": 30, "c": 20}.items()]
    fake_tasks.pause(home, "c").touch()
    killed = []

    def kill(name: str, mark: str) -> None:
        until(lambda: notes(home, mark), mark)
        killed.append(processes(home, name)[1])
        os.kill(killed[-1], signal.SIGKILL)

    def kill_both() -> None:
        kill("c", "c epoch 3")
        fake_tasks.pause(home, "c").unlink()
        kill("notebook", "notebook begins")

    killer = threading.Thread(target=kill_both)
    killer.start()
    outcome = reproduce(plan(home), prepare=lambda _: tasks, cluster=workers, progress=False)
    killer.join()
    assert len(killed) == 2
    assert outcome.done == ("10_dies",)
    assert outcome.failed_tasks == ()
    check_trained_once(home, a=1, b=30, c=20)
    begun = {name: len(notes(home, f"{name} begins")) for name in ("a", "b", "c", "notebook")}
    assert begun == {"a": 1, "b": 1, "c": 2, "notebook": 2}
    assert notes(home, "a found") == [""]  # the finished training was not requested again
    assert status(plan(home), "10_dies")["state"] == "done"


def test_a_killed_command_leaves_no_work_and_continues(home, address):
    build(home / "notebooks", "10_after", FINISH)
    arguments = f"cluster=dask_pool({address!r}, out=home / 'out', shared=(home,), timeout=300, patience=300)"
    trainings = {"a": 1, "b": 8, "c": 8}
    (paused := fake_tasks.pause(home, "b")).touch()
    command = fake_tasks.start_command(home, home / "notebooks", trainings, arguments)
    until(lambda: notes(home, "a found") and notes(home, "b epoch 2"), "a and a part of b")
    training = processes(home, "b")[0]
    command.kill()
    command.communicate(timeout=600)
    until(lambda: not alive(training), "the cluster to stop")
    assert not notes(home, "b found")
    paused.unlink()
    again = fake_tasks.start_command(home, home / "notebooks", trainings, arguments)
    printed, complaints = again.communicate(timeout=600)
    assert again.returncode == 0, complaints
    assert "done=('10_after',)" in printed
    check_trained_once(home, **trainings)
    assert len(notes(home, "a begins")) == 1
    assert not list((home / "out").glob(".cluster-*"))


def test_later_workers_count_and_those_with_several_threads_are_refused(tmp_path):
    with scheduler(tmp_path) as (address, start_workers):
        messages = []
        with (
            pytest.raises(InputError, match=r"a cluster has workers.*dask worker"),
            dask_pool(address, out=tmp_path, timeout=300, patience=1, say=messages.append),
        ):
            pass
        assert messages == [f"waiting up to 1 s for a worker of {address}"]
        start_workers(1)
        with dask_pool(address, out=tmp_path, timeout=300, patience=300, say=messages.append) as pool:
            assert pool.capacity() == 1
            start_workers(1, threads=3)
            until(lambda: pool.capacity() == 4, "another worker")
        with (
            pytest.raises(InputError, match=r"one thread; got .* with 3 threads; .*--nthreads 1"),
            dask_pool(address, out=tmp_path, timeout=300),
        ):
            pass


def refusal(address: str, home: Path, **more) -> str:
    patient = {"timeout": 300, "patience": 300} | more
    with pytest.raises(InputError) as refused, dask_pool(address, out=home / "out", **patient):
        pass
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_workers_with_other_files_or_versions_are_refused(home, address, monkeypatch):
    (home / "out").mkdir()
    absent = home / "notebooks" / "10_absent.ipynb"
    assert f"which does not see {absent}; " in refusal(address, home, files=(absent,))
    monkeypatch.setattr(cluster, "environment_digest", lambda: "another")
    assert "another version of reidlib" in refusal(address, home)
    assert not list((home / "out").iterdir())


def test_a_later_worker_is_checked_too(home, workers):
    (home / "out").mkdir()
    with workers as pool:
        next((home / "out").glob(".cluster-*")).rmdir()
        assert "which does not see" in pool.start(b"", {}, home / "late.log").result()


def test_a_missing_scheduler_or_library_is_refused(home, monkeypatch, capsys):
    (home / "out").mkdir()
    assert "scheduler answers" in refusal("tcp://127.0.0.1:1", home, timeout=0.5)
    assert "scheduler answers" in refusal("no address at all", home, timeout=0.5)
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["reproduce", "00", "--profile", "smoke", "--device", "cpu", "--scheduler", "tcp://127.0.0.1:1"]
    assert main(command) == 2
    assert "pip install 'reidlib[cluster]'" in capsys.readouterr().err
    assert not list(home.glob("smoke/*/status.json"))
