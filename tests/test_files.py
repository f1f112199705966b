"""One of several processes builds a result; a folder that cannot be written is refused."""

import subprocess
import sys
import threading

import pytest

from reidlib.errors import InputError
from reidlib.files import build_once, exclusive_lock


def test_of_several_processes_one_builds(tmp_path):
    program = """
import sys, time
from pathlib import Path
from reidlib.files import build_once
folder = Path(sys.argv[1])
def find():
    return (folder / "made").read_text() if (folder / "made").is_file() else None
def build():
    (folder / f"builder-{sys.argv[2]}").touch()
    time.sleep(0.5)
    (folder / "made").write_text("it")
    return "it"
print(build_once(folder / "locks" / "made.lock", find, build))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True) for number in range(3)
    ]
    assert [process.communicate(timeout=600)[0].strip() for process in processes] == ["it"] * 3
    assert len(list(tmp_path.glob("builder-*"))) == 1


def test_an_existing_result_needs_no_lock(tmp_path):
    assert build_once(tmp_path / "absent" / "lock", lambda: 7, lambda: pytest.fail("built again")) == 7
    assert list(tmp_path.iterdir()) == []


def test_a_waiting_process_is_informed(tmp_path):
    calls, is_held, release = [], threading.Event(), threading.Event()

    def hold():
        with exclusive_lock(tmp_path / "lock"):
            is_held.set()
            release.wait(600)

    holder = threading.Thread(target=hold)
    holder.start()
    assert is_held.wait(600)

    def waiting():
        calls.append("waits")
        release.set()

    with exclusive_lock(tmp_path / "lock", on_wait=waiting):
        pass
    holder.join()
    assert calls == ["waits"]


def test_a_failed_build_lets_the_next_one_try(tmp_path):
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        build_once(tmp_path / "lock", lambda: None, fail)
    held = []
    assert build_once(tmp_path / "lock", lambda: None, lambda: 3, on_wait=lambda: held.append(True)) == 3
    assert not held


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        build_once(tmp_path / "file" / "lock", lambda: None, lambda: 1)
    refusal = InputError("the folder can be written", "a file", "name another")
    with pytest.raises(InputError, match="name another"):
        build_once(tmp_path / "file" / "lock", lambda: None, lambda: 1, make_error=lambda error: refusal)
