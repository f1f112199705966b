"""A hundred kills at random moments: the same command afterwards gives the bytes of an uninterrupted one.

The moments are spread over each command's own duration without its imports; some kills wait for a file that
is being written. Excused bytes are named in ``EXCUSED``.

Run with: pytest tests/benchmarks/test_kills.py -s
"""

import collections
import contextlib
import json
import os
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from cuhk03_miniature import write_archive

SEED = int(os.environ.get("KILLS_SEED", "15"))
# Seconds that a command may take on a busy machine before it counts as a hang.
WATCHDOG = 600
KILLS = {
    "render": 14,
    "train jlml": 14,
    "train pyramid": 6,
    "evaluate": 12,
    "embed": 16,
    "search": 8,
    "re-ranking": 8,
    "reproduce": 8,
    "extraction": 14,
}
SMALL = {"KILLS": {"embed": 1}, "PROCESSES": 1}
# A check tells by its status that the archive's miniature has other counts than the whole.
ENDINGS = {"extraction": 1}
SIGNALS = (signal.SIGKILL,) * 4 + (signal.SIGINT, signal.SIGTERM)
# Shares of kills that wait for a file being written, and do not go by the clock.
BY_FILE = 0.25
PROCESSES = 2

# What may differ from an uninterrupted command, by the file's name, and why.
EXCUSED = {
    r".*\.lock": "empty; whether a lock remains is nobody's result",
    r".*/run\.json": "seconds of the training, and the memory and speed that were measured",
    r".*/history\.jsonl": "images per second",
    r"home/checked/.*": "times of the images' files, and names that depend on them",
    r".*/(status\.json|result\.json|notebook\.ipynb|index\.html)": "times, durations and process numbers",
}
_MEASURED = ("seconds", "images_per_second", "peak", "memory", "started", "ended", "duration", "finished")

_RERANK = """
import sys
import numpy as np
from reidlib.files import write_buffered
from reidlib.reranking import k_reciprocal
features = np.load(sys.argv[1])
distances = k_reciprocal(features[:300], features[300:])
from pathlib import Path
write_buffered(Path(sys.argv[2]), lambda buffer: np.save(buffer, distances.numpy()))
"""


# Imports take longer than most of these commands, so that each is a fork of a process that has imported.
_LAUNCHER = """
import json, os, sys, signal
import torch, torchvision, h5py, matplotlib.pyplot, pandas
import reidlib.search, reidlib.reranking, reidlib.experiments.obtain
import reidlib.data.check, reidlib.data.synthetic.render
from reidlib.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
print("ready", flush=True)
for line in sys.stdin:
    words, environment, err = json.loads(line)
    if not (child := os.fork()):
        os.setsid()
        os.environ.clear()
        os.environ.update(environment)
        for number, path in enumerate((os.devnull, os.devnull, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        if words[0] == "-c":
            sys.argv = words[:1] + words[2:]
            exec(words[1], {})
            sys.exit()
        sys.argv[1:] = words
        sys.exit(main())
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Launcher:
    """Starts commands, one at a time, as forks of a process that has imported everything."""

    def __init__(self):
        command = [sys.executable, "-c", _LAUNCHER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        assert self._line() == "ready"

    def _line(self) -> str:
        return self.process.stdout.readline().strip()

    def start(self, words: list[str], environment: dict[str, str], err: Path) -> "Command":
        print(json.dumps([words, environment, str(err)]), file=self.process.stdin, flush=True)
        return Command(int(self._line()), self._line, err)


class Command:
    """A running command: its process number, and how it ends."""

    def __init__(self, pid: int, status, err: Path):
        self.pid, self._err, self.status = pid, err, None
        self._thread = threading.Thread(target=self._wait, args=(status,), daemon=True)
        self._thread.start()

    def _wait(self, status) -> None:
        self.status = int(status())

    def wait(self) -> tuple[int, str]:
        """The exit status and standard error; the command has to end."""
        self._thread.join(WATCHDOG)
        if self.status is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._thread.join()
            self.status = 999
        return self.status, self._err.read_text(errors="replace") if self._err.exists() else ""


@dataclass(frozen=True)
class Inputs:
    """What the commands read: made once, and read by all of them."""

    folder: Path

    def command(self, name: str, place: Path) -> list[str]:
        """The words of a command that writes below ``place``."""
        reidlib = [sys.executable, "-m", "reidlib"]
        device = ["--device", "cpu"]
        run = place / "home" / "runs" / next(self.folder.glob("home/runs/jlml-*")).name
        data = ["--data-root", str(self.folder / "rendered")]
        return {
            "render": [*reidlib, "render", "smoke", str(place / "out"), *device],
            "train jlml": [*reidlib, "train", "jlml", "--profile", "smoke", *data, *device],
            "train pyramid": [*reidlib, "train", "pyramid", "--profile", "smoke", *data, *device],
            "evaluate": [*reidlib, "evaluate", str(run), *data, *device, "--distractors"],
            "embed": [*reidlib, "embed", str(run), str(self.folder / "many"), str(place / "o.npz"), *device],
            "search": [
                *reidlib, "search", str(self.folder / "rendered" / "query"), str(self.folder / "many"),
                "--run", str(run), "--out", str(place / "out"), *device,
            ],
            "re-ranking": [
                sys.executable, "-c", _RERANK, str(self.folder / "features.npy"), str(place / "o.npy")
            ],
            "train all": [
                *reidlib, "train", "all", "--profile", "smoke", "--jobs", "2", *device,
                "--benchmark", "market1501", *data,
            ],
            "reproduce": [*reidlib, "reproduce", "20", "--profile", "smoke", *device],
            "extraction": [*reidlib, "check", "cuhk03", str(self.folder / "cuhk03")],
        }[name]  # fmt: skip

    def prepare(self, name: str, place: Path) -> Path:
        """Make the folder in which a command writes."""
        (place / "home").mkdir(parents=True)
        if name in ("evaluate", "embed", "search"):
            shutil.copytree(self.folder / "home" / "runs", place / "home" / "runs")
            for scores in place.glob("home/runs/*/*s.json") if name == "evaluate" else ():
                scores.unlink()
            for rankings in place.glob("home/runs/*/rankings.npz") if name == "evaluate" else ():
                rankings.unlink()
        if name == "reproduce":  # rendering is a command of its own
            shutil.copytree(self.folder / "rendered", place / "home" / "data" / "synthetic-smoke")
        return place

    def start(self, name: str, place: Path, launcher: Launcher | None = None) -> Command:
        """Start a command in a process group of its own."""
        environment = {**os.environ, "REIDLIB_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
        command, err = self.command(name, place), place.with_name(f"{place.name}.err")
        err.unlink(missing_ok=True)
        if launcher and name != "reproduce":  # whose processes are all its own
            words = command[3:] if command[1] == "-m" else command[1:]
            return launcher.start(words, environment, err)
        with err.open("w") as stream:
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stream,
                start_new_session=True,
            )  # fmt: skip
        return Command(process.pid, process.wait, err)


def make_inputs(folder: Path) -> Inputs:
    """Write what the commands read."""
    environment = {**os.environ, "REIDLIB_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    for words in (
        ["render", "smoke", str(folder / "rendered")],
        [
            "train", "jlml", "--profile", "smoke", "--benchmark", "market1501",
            "--data-root", str(folder / "rendered"), "--device", "cpu",
        ],
    ):  # fmt: skip
        subprocess.run([sys.executable, "-m", "reidlib", *words], env=environment, check=True)
    (folder / "many").mkdir()
    images = sorted((folder / "rendered").glob("*/*.jpg"))
    for number in range(8):  # four blocks of images to embed
        for image in images:
            os.link(image, folder / "many" / f"{number}_{image.parent.name}_{image.name}")
    clusters = np.random.default_rng(0).normal(size=(250, 256)).repeat(12, 0)
    features = clusters + np.random.default_rng(1).normal(size=clusters.shape)
    np.save(folder / "features.npy", features.astype(np.float32))
    (folder / "cuhk03").mkdir()
    rng = np.random.default_rng(0)
    show = lambda *_: rng.integers(0, 256, (160, 60, 3), dtype=np.uint8)  # noqa: E731
    write_archive(folder / "cuhk03" / "cuhk-03.mat", persons=(40, 3, 3, 3, 3), show=show)
    from bad_input_kinds import write_people

    write_people(folder)
    (folder / "rendered" / "distractors_500k").mkdir()
    for image in images[:30]:
        os.link(image, folder / "rendered" / "distractors_500k" / image.name)
    return Inputs(folder)


def tree(place: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes; of what is measured, only what is not; no locks."""
    files = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if not path.is_file() or name.endswith(".lock") or name.startswith("home/checked/"):
            continue
        content = path.read_bytes()
        excused = next((pattern for pattern in EXCUSED if re.fullmatch(pattern, name)), None)
        files[name] = _without_measured(name, content, place) if excused else content
    return files


def _without_measured(name: str, content: bytes, place: Path) -> bytes:
    """An excused file without what is excused."""
    if name.endswith(("index.html", "notebook.ipynb", "status.json")):
        return b""  # that they exist is compared, and their content by result.json and the figures

    def plain(value):
        if isinstance(value, dict):
            kept = {key: plain(entry) for key, entry in value.items() if not key.startswith(_MEASURED)}
            return {key: entry for key, entry in kept.items() if key != "commit"}
        if isinstance(value, list):
            return [plain(entry) for entry in value]
        return value.replace(str(place), "") if isinstance(value, str) else value

    try:
        lines = content.decode().splitlines() if name.endswith("jsonl") else [content.decode()]
        return json.dumps([plain(json.loads(line)) for line in lines if line]).encode()
    except ValueError:  # half written
        return content


def differences(name: str, place: Path, reference: dict[str, bytes]) -> list[str]:
    """What differs from the uninterrupted command's files."""
    files = tree(place)
    wrong = [f"missing: {file}" for file in reference.keys() - files.keys()]
    wrong += [f"left over: {file}" for file in files.keys() - reference.keys()]
    wrong += [
        f"other bytes: {file}" for file in files if file in reference and files[file] != reference[file]
    ]
    return [f"{name}: {text}" for text in sorted(wrong)]


def half_written(name: str, place: Path, reference: dict[str, bytes]) -> list[str]:
    """Files under their final names that are neither the uninterrupted command's nor an honest part."""
    if name == "reproduce":  # the notebook's folder is emptied before it runs again
        return []
    wrong = []
    for file, content in tree(place).items():
        if file not in reference or ".partial" in file:
            continue
        if content != reference[file] and not is_part(file, content, reference):
            wrong.append(f"{name}: half written: {file}")
    return wrong


def is_part(file: str, content: bytes, reference: dict[str, bytes]) -> bool:
    """Whether these are the first lines of the uninterrupted command's history, all of them whole."""
    return file.endswith("history.jsonl") and reference[file].startswith(content.removesuffix(b"]"))


def partial_appears(place: Path) -> bool:
    """Whether a file or folder is just being written."""
    return any(".partial" in name for _, folders, files in os.walk(place) for name in (*folders, *files))


def kill_once(inputs, name, place, reference, span, rng, launcher) -> tuple[str, list[str]]:
    """Kill a command at a random moment, give it again, and compare; how it was killed, and what is wrong."""
    number = rng.choice(SIGNALS)
    by_file, share = rng.random() < BY_FILE and name != "re-ranking", rng.random()
    while True:
        inputs.prepare(name, place)
        command = inputs.start(name, place, launcher)
        start = time.perf_counter()
        while command.status is None:
            elapsed = time.perf_counter() - start
            if partial_appears(place) if by_file else elapsed >= share * span:
                break
            time.sleep(0.002)
        if command.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(command.pid, number)
            status, err = command.wait()
            break
        shutil.rmtree(place)  # it ended before: the machine is faster now than when it was measured
        share, by_file = share / 2, False
    how = f"{number.name} {'at a partial file' if by_file else f'after {100 * share:.0f} %'}"
    wrong = []
    # While Python ends, after all is done, Ctrl-C is a signal like any other.
    expected = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15,), signal.SIGINT: (130, -2)}[number]
    if status not in (*expected, ENDINGS.get(name, 0)):
        wrong.append(f"{name}: exit status {status}: {err[-500:]}")
    # Python ignores a Ctrl-C that comes while it removes a weak reference, and says so; the work goes on.
    if "Traceback" in re.sub(r"Exception ignored in: .*?\nKeyboardInterrupt: ?\n", "", err, flags=re.DOTALL):
        wrong.append(f"{name}: {err[-1500:]}")
    wrong += half_written(name, place, reference)
    complete = tree(place) == reference
    status, err = inputs.start(name, place, launcher).wait()
    # `embed` refuses to replace its file, also after a kill that came when all was done.
    done = name == "embed" and complete and status == 2 and "which exists" in err
    if (status != ENDINGS.get(name, 0) and not done) or "Traceback" in err:
        wrong.append(f"{name}: exit status {status} when it was given again: {err[-1500:]}")
    wrong += differences(name, place, reference)
    shutil.rmtree(place)
    return how, [f"{how}: {text}" for text in wrong]


def test_the_same_command_after_a_kill_gives_the_same_bytes(inputs, tmp_path, capsys):
    begin = time.perf_counter()
    launchers = queue.SimpleQueue()
    for _ in range(PROCESSES):
        launchers.put(Launcher())
    references, spans, first = {}, {}, launchers.get()
    for name in KILLS:
        place = inputs.prepare(name, tmp_path / "whole")
        start = time.perf_counter()
        status, err = inputs.start(name, place, first).wait()
        spans[name] = time.perf_counter() - start
        assert status == ENDINGS.get(name, 0), err
        references[name] = tree(place)
        shutil.rmtree(place)
    launchers.put(first)
    rng = random.Random(SEED)
    plan = [(name, random.Random(f"{SEED} {name} {index}")) for name in KILLS for index in range(KILLS[name])]
    rng.shuffle(plan)

    def one(entry):
        index, (name, own) = entry
        launcher = launchers.get()
        try:
            place = tmp_path / f"{index}"
            return name, *kill_once(inputs, name, place, references[name], spans[name], own, launcher)
        finally:
            launchers.put(launcher)

    with ThreadPoolExecutor(PROCESSES) as threads:
        results = list(threads.map(one, enumerate(plan)))
    wrong = [text for _, _, texts in results for text in texts]
    ways = collections.Counter((name, how.split(" ")[0]) for name, how, _ in results)
    with capsys.disabled():
        print(f"\n{'':<16}{'SIGKILL':>9}{'SIGINT':>9}{'SIGTERM':>9}{'seconds':>9}")
        for name in KILLS:
            numbers = [ways[name, way] for way in ("SIGKILL", "SIGINT", "SIGTERM")]
            print(f"{name:<16}" + "".join(f"{n:>9}" for n in numbers) + f"{spans[name]:>9.1f}")
        print(
            f"{len(results)} kills (seed {SEED}) in {(time.perf_counter() - begin) / 60:.1f} minutes: "
            f"{len(wrong)} failures"
        )
    while not launchers.empty():
        launchers.get().process.kill()
    assert not wrong, "\n".join(wrong)
