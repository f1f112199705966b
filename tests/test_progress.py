"""Progress of long work on a terminal, in a log file and in a pipe."""

import io
import os
import re
import subprocess
import sys
import termios

import pytest
import tqdm.auto

from reidlib import progress

PROGRAM = """
import time
from reidlib import progress
progress.LOG_INTERVAL = {interval}
for _ in progress.progress_bar(range(5), desc="counting", unit="image"):
    time.sleep(0.02)
"""


class Clock:
    """A clock for tqdm that a test turns."""

    def __init__(self, monkeypatch):
        self.seconds = 1000.0
        monkeypatch.setattr(tqdm.std, "time", lambda: self.seconds)


def run(interval: float, stderr: int) -> subprocess.CompletedProcess:
    """Count to five in another process, with a line every ``interval`` seconds."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(interval=interval)], stderr=stderr, check=True
    )


def test_a_pipe_gets_whole_lines():
    lines = run(0.0, subprocess.PIPE).stderr.decode().split("\n")
    assert "\r" not in "".join(lines)
    assert lines.pop() == ""
    assert re.fullmatch(r"counting: 5 of 5 images in \d\d:\d\d", lines.pop())
    assert len(lines) == 6
    for number, line in enumerate(lines):
        pattern = rf"counting: {20 * number} % \({number} of 5 images\), (\d\d:\d\d|\?) left"
        assert re.fullmatch(pattern, line), line


def test_short_work_writes_nothing_to_a_pipe():
    assert run(60.0, subprocess.PIPE).stderr == b""


def test_a_terminal_gets_a_bar():
    terminal, shown = os.openpty()
    termios.tcsetwinsize(shown, (24, 100))
    try:
        run(60.0, shown)
        printed = os.read(terminal, 100_000).decode()
    finally:
        os.close(terminal)
        os.close(shown)
    assert "\r" in printed
    assert "counting: 100%|" in printed
    assert "images)" not in printed


def test_long_work_writes_a_line_a_minute(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    with progress.progress_bar(total=5000, desc="rendering quick", unit="image", file=stream) as bar:
        for _ in range(50):
            clock.seconds += 2
            bar.set_postfix_str("loss 0.50", refresh=False)
            bar.update(100)
    assert stream.getvalue().splitlines() == [
        "rendering quick: 60 % (3,000 of 5,000 images), 00:40 left, loss 0.50",
        "rendering quick: 5,000 of 5,000 images in 01:40",
    ]


def test_interrupted_work_says_how_far_it_came(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    with (
        pytest.raises(KeyboardInterrupt),
        progress.progress_bar(total=10, desc="training", file=stream) as bar,
    ):
        for step in range(10):
            clock.seconds += 50
            if step == 3:
                raise KeyboardInterrupt
            bar.update()
    assert stream.getvalue().splitlines() == [
        "training: 20 % (2 of 10 steps), 06:40 left",
        "training: 3 of 10 steps in 03:20",
    ]


def test_progress_that_is_switched_off_writes_nothing(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    for _ in progress.progress_bar(range(9), desc="training", disable=True, file=stream):
        clock.seconds += 100
    assert stream.getvalue() == ""


def test_jupyter_gets_its_own_bar(monkeypatch):
    widget = type("widget", (tqdm.tqdm,), {})
    monkeypatch.setattr(tqdm.auto, "tqdm", widget)  # as tqdm.auto does in a kernel
    with progress.progress_bar(total=1, file=io.StringIO()) as bar:
        assert type(bar) is widget
