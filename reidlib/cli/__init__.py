"""The command line: ``reidlib …`` or ``python -m reidlib …``.

Heavy modules are imported only when they are needed, so that a misspelt argument is reported at once.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import signal
import sys
import warnings
from pathlib import Path

from reidlib.cli.parser import function_of, make_parser
from reidlib.errors import InputError, one_line
from reidlib.text import printable_streams

logger = logging.getLogger("reidlib")


def main(arguments: list[str] | None = None) -> int:
    """Run one command of ``reidlib``.

    Results go to standard output. Progress, messages of the logger ``reidlib`` and one line for each error
    go to standard error. If that logger has a handler, its messages go to this handler instead. They do not
    go to handlers of the root logger meanwhile.

    Args:
        arguments: The words of the command line after ``reidlib``; by default those of this process.

    Returns:
        The exit status: 0 for success, 1 if the command found failures, 2 for bad input, 130 if it was
        interrupted.

    Raises:
        SystemExit: After ``--help`` and ``--version`` (status 0), and if the arguments cannot be parsed
            (status 2).
    """
    try:
        with printable_streams():
            try:
                return _run(sys.argv[1:] if arguments is None else arguments)
            finally:
                _flush()
    finally:
        if arguments is None:  # all is done: Ctrl-C while Python ends is no error to report
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _flush() -> None:
    """Write what standard output still holds; end with an exit status if it takes no more."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try again while it ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader, such as `head`, wants no more
            raise SystemExit(1) from None
        mend = "free some disk space, or redirect the output to another file"
        refusal = InputError("standard output can be written", error.strerror, mend)
        print(f"reidlib: error: {refusal}", file=sys.stderr)
        raise SystemExit(2) from None


def _run(words: list[str]) -> int:
    """Run one command and turn its errors into lines and an exit status."""
    # The report shows this line, without the paths of this machine.
    line = (f"…/{Path(word).name}" if Path(word).is_absolute() else word for word in words)
    parser = make_parser(shlex.join(["reidlib", *line]))
    if nul := [word for word in words if "\0" in word]:  # only a program can pass one
        parser.error(f"no argument contains the character NUL, unlike {nul[0]!r}")
    values = parser.parse_args(words)
    command = vars(values).pop("command")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers = handlers or [logging.StreamHandler()]
    logger.setLevel(level or logging.INFO)
    logger.propagate = False  # a handler of the root logger would write each message again
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # most are of damaged files, which are refused or sound
                warnings.simplefilter("ignore")
                warnings.filterwarnings("default", module=r"torch\.cuda")  # why a GPU is not used
            return function_of(command)(values)
    except InputError as error:
        print(f"reidlib: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except (OSError, RuntimeError, MemoryError) as error:
        if (refusal := _refused_by_system(error)) is None:
            raise
        print(f"reidlib: error: {refusal}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"reidlib: stopped: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"reidlib: {str(error) or 'interrupted; give the same command again'}", file=sys.stderr)
        return 130
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def _refused_by_system(error: Exception) -> InputError | None:
    """Return the refusal of what the system cannot do, mostly with a path; None for other errors."""
    from reidlib.files import LONG_NAME_MEND, writing_mend

    if isinstance(error, MemoryError) or re.search("(not enough|out of|allocate) memory", str(error)):
        mend = "use smaller numbers, such as those of width or batch_size, or another device"
        return InputError("the work fits into memory", str(error).partition("\n")[0] or "no memory", mend)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        name = str(error.filename or "a longer path")
        value = name if len(name) < 100 else f"{name[:60]}…{name[-30:]} of {len(name):,} characters"
        return InputError("a path fits into the file system", value, LONG_NAME_MEND)
    if "home directory" in str(error):  # of ~ or ~NAME
        return InputError(
            "~NAME is the home folder of a user of this machine", "an unknown user", "write out the path"
        )
    if "Symlink loop" in str(error):  # pathlib's, before Python 3.13
        return InputError("a path's links lead to a file or folder", error, "correct the link")
    if isinstance(error, OSError) and error.errno:
        path = Path(str(error.filename or ""))
        value = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        if not error.filename:
            mend = writing_mend(path, error, "remove this cause, and give the command again")
            return InputError("the system can do what a command needs", value, mend)
        mend = writing_mend(path, error, "check that it exists, and its access rights")
        return InputError("a command can read and write its files", value, mend)
    return None
