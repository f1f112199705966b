"""Progress of long work: a bar on a terminal and in Jupyter, otherwise one line a minute."""

from __future__ import annotations

import math
import sys

import tqdm.asyncio
import tqdm.auto

from reidlib.errors import count_noun

# Seconds between two lines in a log file or a pipe.
LOG_INTERVAL = 60.0
# ``work`` is added to tqdm's fields by ``LineProgress.format_dict``.
_LINE = "{desc}{percentage:.0f} % ({work}), {remaining} left{postfix}"
_LINE_WITHOUT_TOTAL = "{desc}{work} in {elapsed}{postfix}"
_LAST_LINE = "{desc}{work} in {elapsed}"


class LineProgress(tqdm.std.tqdm):
    """Whole lines without carriage returns; work that ends before the first line is due writes nothing."""

    _due = -math.inf  # seconds after the start; tqdm's constructor displays the bar only without a delay
    _has_line = False
    disable = True  # until the constructor is done: one that Ctrl-C interrupts is closed, too

    def __init__(self, *arguments, **settings):
        lines = {"bar_format": None, "mininterval": LOG_INTERVAL, "delay": LOG_INTERVAL, "miniters": 1}
        super().__init__(*arguments, **{"unit": "step"} | settings | lines)
        self._due = LOG_INTERVAL

    @property
    def format_dict(self) -> dict:
        """Return tqdm's fields of a line, with the title and the work as text."""
        fields = super().format_dict
        title = (fields["prefix"] or "").rstrip(": ")  # ``set_description`` appends a colon
        number, total, units = fields["n"], fields["total"], f"{fields['unit']}s"
        if total is not None and number <= total:
            line, work = _LINE, f"{number:,} of {count_noun(total, units)}"
        else:
            line, work = _LINE_WITHOUT_TOTAL, count_noun(number, units)
        line = fields["bar_format"] or line
        return {**fields, "prefix": title and f"{title}: ", "work": work, "bar_format": line}

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the present state as a line if one is due; a new title or postfix waits for that."""
        elapsed = self.format_dict["elapsed"]
        if elapsed >= self._due:
            # A little early: ``update`` has waited for the whole interval since its last line.
            self._due, self._has_line = elapsed + 0.95 * LOG_INTERVAL, True
            print(self, file=self.fp, flush=True)

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: a line that is written stays."""

    def close(self) -> None:
        """Print how far the work came and how long it took, if it has printed any line before."""
        if not self.disable and self._has_line:
            self.bar_format = _LAST_LINE
            print(self, file=self.fp, flush=True)
        self.delay = math.inf  # for tqdm, nothing was displayed that would need an end
        super().close()


def progress_bar(*arguments, **settings) -> tqdm.std.tqdm:
    """Return ``tqdm(*arguments, **settings)`` for a terminal or Jupyter, otherwise a ``LineProgress``."""
    in_console = tqdm.auto.tqdm is tqdm.asyncio.tqdm
    stream = settings.get("file") or sys.stderr
    return (LineProgress if in_console and not stream.isatty() else tqdm.auto.tqdm)(*arguments, **settings)
