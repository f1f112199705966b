"""Text that an encoding lacks: shown with escapes, in place of an error."""

from __future__ import annotations

import codecs
import contextlib
import io
import sys
from collections.abc import Iterator

from reidlib.errors import one_line


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Replace a character that an encoding lacks: \xfc for a byte of a file name, \u5f20 for any other."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if "\udc80" <= character <= "\udcff":  # a byte that is not valid in the encoding of file names
        return f"\\x{ord(character) - 0xDC00:02x}", error.start + 1
    return character.encode("ascii", "backslashreplace").decode("ascii"), error.start + 1


def _keep_bytes(error: UnicodeError) -> tuple[str | bytes, int]:
    """Write the bytes of a file name unchanged, and escape all else that an encoding lacks."""
    if isinstance(error, UnicodeEncodeError) and "\udc80" <= error.object[error.start] <= "\udcff":
        return bytes([ord(error.object[error.start]) - 0xDC00]), error.start + 1
    return _escape(error)


# Names for the argument ``errors`` of whatever writes text.
ESCAPE, KEEP_BYTES = "reidlib.escape", "reidlib.keep_bytes"
codecs.register_error(ESCAPE, _escape)
codecs.register_error(KEEP_BYTES, _keep_bytes)


@contextlib.contextmanager
def printable_streams() -> Iterator[None]:
    """Let standard output and error escape, inside the block, what their encoding lacks, and not fail."""
    handlers = {"strict": ESCAPE, "backslashreplace": ESCAPE, "surrogateescape": KEEP_BYTES}
    streams = [
        (stream, stream.errors)
        for stream in (sys.stdout, sys.stderr)
        if isinstance(stream, io.TextIOWrapper) and stream.errors in handlers
    ]
    for stream, errors in streams:
        stream.reconfigure(errors=handlers[errors])
    try:
        yield
    finally:
        for stream, errors in streams:
            if not stream.closed:
                stream.reconfigure(errors=errors)


def drawable(text: str) -> str:
    """Return a text as one line that a picture can show."""
    return one_line(text).encode("utf-8", ESCAPE).decode("utf-8")
