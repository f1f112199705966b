"""The error for bad input, and helpers that format lists and numbers in its message."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST = 3000
_IRREGULAR = {"identities": "identity", "boxes": "box", "queries": "query", "entries": "entry"}


class InputError(ValueError):
    """Error for bad input, whose message is one line: the rule, the value received and the mend.

    The command line prints only the message and exits with status 2. In a notebook or a program this is an
    ordinary ``ValueError``.

    Args:
        rule: What every valid input satisfies.
        value: The value received, or a description of it.
        mend: What the user should do.
    """

    def __init__(self, rule: str, value: object, mend: str):
        self.rule, self.value, self.mend = rule, value, mend
        super().__init__(one_line(f"{rule}; got {value}; {mend}"))


def one_line(message: str) -> str:
    """Escape line breaks and control characters of a message, and leave out the middle of an endless one."""
    # A path or a cell may contain both.
    if len(message) > _LONGEST:
        message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), message)


def check_choice(rule: str, value: object, choices: Iterable, mend: str = "") -> None:
    """Check that a value is one of the allowed choices.

    Args:
        rule: The rule that the error states, usually with all choices in it.
        value: The value to check.
        choices: The allowed values.
        mend: What the user should do; part of the error's message. By default the most similar choice, if
            one is similar.

    Raises:
        InputError: If the value is not one of the choices.
    """
    choices = list(choices)
    if value not in choices:
        similar = nearest(str(value), map(str, choices))
        mend = mend or (f"did you mean {similar}?" if similar else "name one of them")
        raise InputError(rule, shown(value), mend)


def shown(value: object) -> str:
    """Return a value's representation on one line, cut after 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the name that is most similar, whatever its case; empty if none is similar."""
    by_lower = {known.lower(): known for known in names}
    matches = difflib.get_close_matches(name.lower(), by_lower, 1)
    return by_lower[matches[0]] if matches else ""


def shorten(values: Iterable[object], limit: int = 5) -> str:
    """Join the first values with commas and add the number of the remaining ones."""
    values = list(values)
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(str(value) for value in values[:limit]) + more


def count_noun(number: int, plural: str) -> str:
    """Format a number with its noun, as in "1 identity" or "3,884 images"."""
    *adjectives, noun = plural.split(" ")
    if number == 1:
        noun = _IRREGULAR.get(noun, noun.removesuffix("s"))
    return " ".join([f"{number:,}", *adjectives, noun])
