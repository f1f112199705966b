"""Progress of long work on a terminal, in a log file and in a pipe."""

import gc
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


def test_work_of_unknown_length_is_counted(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    with progress.progress_bar(desc="reading", unit="image", file=stream) as bar:
        for _ in range(3):
            clock.seconds += 40
            bar.update(500)
    assert stream.getvalue().splitlines() == [
        "reading: 1,000 images in 01:20",
        "reading: 1,500 images in 02:00",
    ]


def test_more_work_than_announced_is_counted(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    with progress.progress_bar(total=2, desc="reading", unit="image", file=stream) as bar:
        clock.seconds += 100
        bar.update(3)
    assert stream.getvalue().splitlines() == ["reading: 3 images in 01:40"] * 2


def test_new_titles_and_postfixes_wait_for_the_next_line(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    with progress.progress_bar(total=4, file=stream) as bar:
        for number in range(4):
            clock.seconds += 40
            bar.set_description(f"part {number}")
            bar.set_postfix(loss=number)
            bar.refresh()
            bar.update()
    assert stream.getvalue().splitlines() == [
        "part 1: 25 % (1 of 4 steps), 04:00 left, loss=0",
        "part 3: 75 % (3 of 4 steps), 00:40 left, loss=2",
        "part 3: 4 of 4 steps in 02:40",
    ]


@pytest.mark.parametrize(("title", "start"), [("y", "y: "), ("y: ", "y: "), ("", ""), (None, "")])
def test_a_title_has_one_colon_and_one_step_no_plural(title, start, monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    with progress.progress_bar(total=1, file=stream) as bar:
        bar.set_description(title, refresh=False)
        clock.seconds += 70
        bar.update()
    assert stream.getvalue().splitlines() == [
        f"{start}100 % (1 of 1 step), 00:00 left",
        f"{start}1 of 1 step in 01:10",
    ]


def test_progress_that_is_switched_off_writes_nothing(monkeypatch):
    clock, stream = Clock(monkeypatch), io.StringIO()
    bar = progress.progress_bar(range(9), desc="training", disable=True, file=stream)
    for _ in bar:
        clock.seconds += 100
    assert "9 steps" in str(bar) or "9 its" in str(bar)
    assert stream.getvalue() == ""


def test_jupyter_gets_its_own_bar(monkeypatch):
    widget = type("widget", (tqdm.tqdm,), {})
    monkeypatch.setattr(tqdm.auto, "tqdm", widget)  # as tqdm.auto does in a kernel
    with progress.progress_bar(total=1, file=io.StringIO()) as bar:
        assert type(bar) is widget


def test_a_bar_that_is_interrupted_while_it_begins_is_closed_in_silence(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    errors = []
    gc.collect()  # garbage of other tests
    monkeypatch.setattr(sys, "unraisablehook", errors.append)
    monkeypatch.setattr(tqdm.std.tqdm, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        progress.LineProgress(range(3))
    gc.collect()
    assert not errors
