"""Progress that reads well on a terminal and in a log file."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

# A log file gets a line about what is running this often; a terminal is refreshed all the time.
_LOG_INTERVAL = 60.0


def clock(seconds: float) -> str:
    """Seconds as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display:
    """Prints a line for each change of state, and between them what is running.

    On a terminal what is running is one last line that is overwritten; elsewhere they are ordinary
    lines, one a minute, without carriage returns.
    """

    def __init__(self, *, enabled: bool = True, stream: TextIO | None = None):
        self._enabled, self._stream = enabled, stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._shown = ""
        self._logged = time.monotonic()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if self._enabled:
            self._clear()
            print(text, file=self._stream, flush=True)

    def state(self, name: str, state: str, duration: float | None, error: str | None) -> None:
        """Print what became of a notebook or task."""
        elapsed = "" if duration is None else f"  {clock(duration)}"
        self.line(f"{name}  {state}{elapsed}" + (f"  {error}" if error else ""))

    def live(self, running: Callable[[], list[str]]) -> None:
        """Show what is running, as short texts; asked for only when it is time to show."""
        if not self._enabled or not (self._terminal or self._due()):
            return
        text = " · ".join(running())
        if not self._terminal:
            self._logged = time.monotonic()
            if text:
                self.line(text)
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        if text and text != self._shown:
            self._clear()
            self._stream.write(text)
            self._stream.flush()
            self._shown = text

    def _due(self) -> bool:
        return time.monotonic() - self._logged >= _LOG_INTERVAL

    def _clear(self) -> None:
        if self._shown:
            self._stream.write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""
