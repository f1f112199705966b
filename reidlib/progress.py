"""Progress of long work: a bar on a terminal and in Jupyter, otherwise one line a minute."""

from __future__ import annotations

import math
import sys

import tqdm.asyncio
import tqdm.auto

# Seconds between two lines in a log file or a pipe.
LOG_INTERVAL = 60.0
_LINE = "{desc}: {percentage:.0f} % ({n:,} of {total:,} {unit}s), {remaining} left{postfix}"
_LAST_LINE = "{desc}: {n:,} of {total:,} {unit}s in {elapsed}"


class LineProgress(tqdm.std.tqdm):
    """Whole lines without carriage returns; work that ends before the first line is due writes nothing."""

    def __init__(self, *arguments, **settings):
        lines = {"bar_format": _LINE, "mininterval": LOG_INTERVAL, "delay": LOG_INTERVAL, "miniters": 1}
        super().__init__(*arguments, **{"unit": "step"} | settings | lines)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print the present state as a line."""
        print(self, file=self.fp, flush=True)

    def clear(self, nolock: bool = False) -> None:
        """Do nothing: a line that is written stays."""

    def close(self) -> None:
        """Print how far the work came and how long it took, if it has printed any line before."""
        if not self.disable and self.last_print_t >= self.start_t + self.delay:
            self.bar_format = _LAST_LINE
            self.display()
        self.delay = math.inf  # for tqdm, nothing was displayed that would need an end
        super().close()


def progress_bar(*arguments, **settings) -> tqdm.std.tqdm:
    """Return ``tqdm(*arguments, **settings)`` for a terminal or Jupyter, otherwise a ``LineProgress``."""
    in_console = tqdm.auto.tqdm is tqdm.asyncio.tqdm
    stream = settings.get("file") or sys.stderr
    return (LineProgress if in_console and not stream.isatty() else tqdm.auto.tqdm)(*arguments, **settings)
