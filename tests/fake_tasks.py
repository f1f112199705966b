"""Trainings that only take time, and commands with such trainings that a test can kill."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from reidlib import files
from reidlib.files import write_error, write_text
from reidlib.training.runs import CHECKPOINT, find_or_train

_EPOCH = 0.1  # seconds


def train(name: str, epochs: int) -> None:
    """Find or train a run as a real one: with a checkpoint after each epoch, from which it continues."""

    def take_time(run_folder: Path) -> dict:
        checkpoint = run_folder / CHECKPOINT
        first = int(checkpoint.read_text()) if checkpoint.is_file() else 0
        note(f"{name} begins {os.getpid()} {os.getppid()}")
        for epoch in range(first, epochs):
            time.sleep(_EPOCH)
            while epoch > 3 and pause(files.home(), name).exists():
                time.sleep(_EPOCH)
            # The note comes first: after a kill between the two lines, an epoch is noted twice, not never.
            note(f"{name} epoch {epoch}")
            write_text(checkpoint, str(epoch + 1))
        return {"epochs": epochs}

    print(f"{name} is being trained")
    find_or_train({"pretended": name}, take_time, name=name, folder=files.runs())
    note(f"{name} found")


def pause(home: Path, name: str) -> Path:
    """A file for which a training waits after its fourth epoch, so that a test can kill it in time."""
    return home / f"{name} pauses"


def fail(name: str) -> None:
    print(f"a word before {name} fails")
    raise ValueError(f"{name} cannot be\ntrained")


def train_with_room(full: str) -> None:
    """Fail as a training does on a full disk, while a file exists and another training has begun."""
    until(lambda: not Path(full).exists() or notes(files.home(), "b epoch 1"), "an epoch of b")
    if Path(full).exists():
        raise write_error(Path("weights.pt"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def print_name(name: str) -> None:
    print(f"{name} is trained")
    raise ValueError(f"{name} cannot be trained")


def listen(folder: str) -> None:
    """Stop after SIGINT as the loop of a training does: after the step, with a saved state."""
    signals = []
    signal.signal(signal.SIGINT, lambda *_: signals.append(True))
    Path(folder, "listening").touch()
    while not signals:
        time.sleep(0.1)
    time.sleep(0.3)
    Path(folder, "saved").touch()
    raise KeyboardInterrupt


def note_process(name: str, module: str) -> None:
    """Note the id of the process that this one is a copy of, whether it has a module, and a variable."""
    server = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1]
    note(f"{name} {server} {module in sys.modules} {os.environ.get('COLOUR')!a}")


def note(text: str) -> None:
    """Write a line for the test, from any process."""
    with (files.home() / "notes").open("a") as file:
        file.write(text + "\n")


def notes(home: Path, beginning: str) -> list[str]:
    """Return the rests of the noted lines that have this beginning."""
    file = home / "notes"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [line.removeprefix(beginning).strip() for line in lines if line.startswith(beginning)]


def processes(home: Path, name: str) -> tuple[int, int]:
    """Return the ids of the training process and of its parent; 0 before it has started."""
    begun = notes(home, f"{name} begins")
    process, parent = begun[-1].split() if begun else (0, 0)
    return int(process), int(parent)


def check_trained_once(home: Path, **epochs: int) -> None:
    """Assert that each epoch was trained, and only the epoch of a kill was repeated."""
    for name, number in epochs.items():
        assert len(list((home / "runs").glob(f"{name}-*/run.json"))) == 1
        trained = [int(epoch) for epoch in notes(home, f"{name} epoch")]
        begun = len(notes(home, f"{name} begins"))
        assert sorted(set(trained)) == list(range(number))
        assert len(trained) <= number + begun - 1, f"{name} was trained from the start again: {trained}"


def start_command(
    home: Path, notebooks: Path | None, tasks: dict[str, int], arguments: str
) -> subprocess.Popen:
    """Start a process that runs trainings with these numbers of epochs, then the notebooks, if any."""
    # Without notebooks, ``arguments`` is the call that runs the tasks.
    program = (
        "import fake_tasks\nfrom pathlib import Path\nfrom reidlib.reports.cluster import dask_pool\n"
        "from reidlib.reports.reproduce import *\n"
        f"home, tasks = Path({str(home)!r}), {tasks!r}\n"
        "tasks = [Task(name, fake_tasks.train, (name, n)) for name, n in tasks.items()]\n"
        + (
            f"plan = Plan(select([], Path({str(notebooks)!r})), 'smoke', home / 'out', jobs=2)\n"
            f"print(reproduce(plan, prepare=lambda waiting: tasks, {arguments}))"
            if notebooks
            else f"from reidlib.reports.processes import Memory\nprint({arguments})"
        )
    )
    python_path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "REIDLIB_HOME": str(home), "PYTHONPATH": python_path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until(condition, event: str) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, f"timed out waiting for {event}"
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # An ended process remains in the table until process 1 collects it.
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
