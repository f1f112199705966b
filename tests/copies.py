"""Commands of reidlib in copies of a process that has imported what they import, as that takes seconds."""

import multiprocessing
import os
import sys
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch._dynamo", "pandas", "matplotlib.pyplot", "reidlib.cli"])


def status_of_a_copy(
    words: list[str], folder: Path, environment: dict[str, str], log: Path, seconds: float
) -> int | None:
    """The exit status of a command, whose output goes to a file; None if it takes longer."""
    copy = _CONTEXT.Process(target=_run, args=(words, folder, environment, log))
    copy.start()
    copy.join(seconds)
    status = copy.exitcode
    copy.kill()
    return status


def _run(words: list[str], folder: Path, environment: dict[str, str], log: Path) -> None:
    from reidlib.cli import main

    with log.open("w", encoding="utf-8") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    sys.exit(main(words[1:]))
