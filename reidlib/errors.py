"""The one form in which bad input is refused, and its words for lists and numbers."""

from __future__ import annotations

from collections.abc import Container, Iterable

_IRREGULAR = {"identities": "identity", "boxes": "box", "queries": "query"}


class InputError(ValueError):
    """Bad input in one line: the rule, the value received, and the mend.

    The command line prints the message alone and exits with status 2; in a notebook or a program it
    is an ordinary ``ValueError``.
    """

    def __init__(self, rule: str, value: object, mend: str):
        self.rule, self.value, self.mend = rule, value, mend
        super().__init__(f"{rule}; got {value}; {mend}")


def check_choice(rule: str, value: object, known: Container, mend: str = "name one of them") -> None:
    """Raise InputError for a value that is none of the known ones."""
    if value not in known:
        raise InputError(rule, repr(value), mend)


def shorten(values: Iterable[object], limit: int = 5) -> str:
    """The first few values, separated by commas, and how many more there are."""
    values = list(values)
    more = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(str(value) for value in values[:limit]) + more


def counted(number: int, plural: str) -> str:
    """A number and its noun, as in "1 identity" or "3,884 images"."""
    *adjectives, noun = plural.split(" ")
    if number == 1:
        noun = _IRREGULAR.get(noun, noun.removesuffix("s"))
    return " ".join([f"{number:,}", *adjectives, noun])
