"""Values that users give, read as a declared type: one rule for notebooks' parameters and configurations.

A value is converted only if its meaning is certain. Any other value is refused by name.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import lru_cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from reidlib.errors import InputError, check_choice, shown

_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.ASCII | re.IGNORECASE)
_LARGEST_EXACT = 2**53  # a larger float may stand for several whole numbers
_AS_TEXT = "write it in quotes, with papermill as -r in place of -p"
_TOO_LARGE = 2**31  # for torch
_UNLIMITED = 10**6  # a rule does not name a larger bound


def read_value(name: str, value: object, kind: Any) -> Any:
    """Return a value as its declared type.

    Args:
        name: Name of the parameter or field, for the error.
        value: The value received.
        kind: ``bool``, ``int``, ``float``, ``str``, a dataclass, a ``range`` of whole numbers, the allowed
            values as ``Literal`` or tuple, ``Path`` for the text of a path that may be empty, ``tuple[…]`` or
            ``dict[str, …]`` of these, or one of these ``| None``.

    Returns:
        The value. Only these are converted: to a ``bool`` 1, 0 and "true", "yes", "on", "false", "no", "off"
        in any case (also to a choice "on" or "off"); to a number its decimal text, and to a whole number 4.0;
        to a path a whole number, unless a file has another spelling of it as its name, and None to the empty
        path; to a tuple or dictionary its JSON text, and to a dataclass a dictionary.

    Raises:
        InputError: If the value is of another type, not finite or not among the allowed values.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if isinstance(kind, tuple) or origin is Literal:
        return _read_choice(name, value, arguments or kind)
    if origin in (Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        own = [each for each in arguments if type(value) is each]  # of several dataclasses
        return read_value(name, value, (own or arguments)[0])
    if origin is tuple:
        return _read_tuple(name, value, arguments)
    if origin is dict:
        entries = _from_json(value) if isinstance(value, str) else value
        if not (isinstance(entries, dict) and all(isinstance(key, str) for key in entries)):
            _refuse(name, "a dictionary with texts as names", value, 'write {"NAME": VALUE}')
        return {key: read_value(f"{name}[{key!r}]", each, arguments[1]) for key, each in entries.items()}
    if is_dataclass(kind):
        return _read_dataclass(name, value, kind)
    if kind is bool:
        if (truth := _truth(value)) is None:
            _refuse(name, "True or False", value, "write one of these")
        return truth
    if kind is str:
        return value if isinstance(value, str) else _refuse(name, "a text", value, _AS_TEXT)
    if kind is Path:
        return _read_path(name, value)
    return _read_number(name, value, kind)


def check_fields(instance: Any) -> None:
    """Convert the values of a new dataclass's fields to their declared types, or refuse them by name."""
    for name, kind in _field_kinds(type(instance)).items():
        object.__setattr__(instance, name, read_value(name, getattr(instance, name), kind))


def dotted_fields(instance: Any, prefix: str = "") -> dict[str, object]:
    """Return the values of a dataclass's fields and of the dataclasses in it, by names with dots."""
    values: dict[str, object] = {}
    for field in fields(instance):
        name, value = prefix + field.name, getattr(instance, field.name)
        values |= dotted_fields(value, f"{name}.") if is_dataclass(value) else {name: value}
    return values


def set_fields(instance: Any, settings: Mapping[str, str], prefix: str = "") -> Any:
    """Return a dataclass with some of its ``dotted_fields`` read from texts; others are ignored."""
    changes = {}
    for name, kind in _field_kinds(type(instance)).items():
        current, dotted = getattr(instance, name), prefix + name
        if is_dataclass(current):
            changes[name] = set_fields(current, settings, f"{dotted}.")
        elif dotted in settings:
            changes[name] = _read_text(dotted, settings[dotted], kind, current)
    return replace(instance, **changes)


def _read_text(name: str, text: str, kind: Any, current: object) -> object:
    """Return the value of a text in its one spelling, because spellings are part of a run's identity."""
    kinds = get_args(kind)
    if types.NoneType in kinds and text.strip().lower() in ("none", "null"):
        return None
    try:
        value = read_value(name, text, kind)
    except InputError as error:  # for a list, its mend is about papermill's command line
        if get_origin(kind) is not tuple:
            raise
        example = json.dumps(current or (0.5,))
        raise InputError(error.rule, error.value, f"write a list such as {example}") from error
    if kind is float:
        value = float(value)
    elif isinstance(value, tuple) and kinds[0] is float:
        value = tuple(map(float, value))
    return current if value == current else value


@lru_cache
def _field_kinds(dataclass: Any) -> dict[str, Any]:
    """Return the declared types of a dataclass's fields by name."""
    kinds = get_type_hints(dataclass)
    return {field.name: kinds[field.name] for field in fields(dataclass)}


def _refuse(name: str, rule: str, value: object, mend: str) -> NoReturn:
    raise InputError(f"{name} is {rule}", shown(value), mend)


def _number(value: object) -> int | float | None:
    """Return a finite number, also from its decimal text; None for anything else."""
    if isinstance(value, str):
        text = value.strip()
        if len(value) > 30 or not _DECIMAL.fullmatch(text):
            return None
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    if isinstance(value, Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def _truth(value: object) -> bool | None:
    """Return the truth value that a value certainly stands for, or None."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (text := value.strip().lower()) in _TRUTH:
        return _TRUTH[text]
    number = _number(value)
    return bool(number) if number in (0, 1) else None


def _read_number(name: str, value: object, kind: Any) -> int | float:
    number = _number(value)
    if kind is float:
        # A whole number remains one: it is part of a run's identity.
        if number is None or abs(number) > 1e300:
            _refuse(name, "a finite number", value, "write it as 0.1, 5e-4 or 2")
        return number
    if isinstance(number, float) and number.is_integer() and abs(number) < _LARGEST_EXACT:
        number = int(number)
    allowed, rule = kind if isinstance(kind, range) else None, "a whole number"
    if allowed is not None:
        least, most = allowed[0], allowed[-1]
        rule += f" of at least {least:,}" if most > _UNLIMITED else f" from {least:,} to {most:,}"
    if isinstance(number, int) and abs(number) >= _TOO_LARGE:
        _refuse(name, f"a whole number below {_TOO_LARGE:,}", value, "write a number such as 4")
    if not isinstance(number, int) or (allowed is not None and number not in allowed):
        _refuse(name, rule, value, f"write a number such as {allowed[0] if allowed else 4}")
    return number


def _read_choice(name: str, value: object, choices: tuple) -> object:
    if isinstance(value, str) and value in choices:
        return value
    truth = _truth(value)  # YAML makes truth values of on and off
    if truth is not None and (switch := "on" if truth else "off") in choices:
        return switch
    listed = ", ".join(str(choice) or "empty" for choice in choices)
    check_choice(f"{name} is one of {listed}", value, choices)
    return value


def _read_path(name: str, value: object) -> str:
    if value is None or isinstance(value, str | Path):
        return str(value or "")
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 0:
        _refuse(name, "the path of a file or folder", value, _AS_TEXT)
    # papermill and YAML make the number 7 of 7, but also of 007.
    number = int(value)
    with contextlib.suppress(OSError):
        names = [path.name for path in Path().iterdir()]
        if others := [each for each in names if each != str(number) and _spells(each, number)]:
            _refuse(name, f"the path of a file or folder, and may be {others[0]}", value, _AS_TEXT)
    return str(number)


def _spells(text: str, number: int) -> bool:
    """Return whether papermill or YAML makes the number of a text."""
    for base in (10, 8, 0) if text.startswith("0") else (10,):
        with contextlib.suppress(ValueError):
            if int(text, base) == number:
                return True
    return False


def _read_tuple(name: str, value: object, kinds: tuple) -> tuple:
    entries = _from_json(value) if isinstance(value, str) else value
    endless = kinds[-1] is Ellipsis
    if not isinstance(entries, list | tuple) or not (endless or len(entries) == len(kinds)):
        rule = "a sequence of whole numbers" if kinds[0] is int else "a sequence of numbers"
        example = "[1, 6]"
        if isinstance(kinds[0], tuple):
            rule, example = f"a list of some of {', '.join(kinds[0])}", f'["{kinds[0][0]}"]'
        mend = f"write {example}, on papermill's command line -y '{name}: {example}'"
        _refuse(name, rule if endless else f"{rule}, {len(kinds)} of them", value, mend)
    kinds = kinds[:1] * len(entries) if endless else kinds
    pairs = enumerate(zip(entries, kinds, strict=True))
    return tuple(read_value(f"{name}[{place}]", entry, kind) for place, (entry, kind) in pairs)


def _read_dataclass(name: str, value: object, kind: Any) -> object:
    if not isinstance(value, dict):
        rule = f"of type {kind.__name__}"
        return value if isinstance(value, kind) else _refuse(name, rule, value, "create one")
    names = [field.name for field in fields(kind)]
    if unknown := [key for key in value if key not in names]:
        check_choice(f"a field of {kind.__name__} is one of {', '.join(names)}", unknown[0], names)
    return kind(**value)


def _from_json(text: str) -> object:
    """Return the content of a JSON text in which no name is repeated, or None."""

    def unique(pairs: list[tuple[str, object]]) -> dict:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a name is repeated")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None
