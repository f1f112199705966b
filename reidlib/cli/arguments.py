"""What the values of arguments may be: their types, and the lists of them at the end of a command's help."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import math
import textwrap
from collections.abc import Callable

from reidlib.errors import InputError


def whole_number(rule: str, least: int = 0, below: float = math.inf) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isdecimal() and least <= int(text) < below):
            raise argparse.ArgumentTypeError(f"{rule}, not {text!r}")
        return int(text)

    return read


seed = whole_number("a seed is a whole number from 0 to 2147483647", below=2**31)


def share(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a share such as 0.001 is needed, not {text!r}") from None


def points(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (points := float(text)) < math.inf:
            return points
    raise argparse.ArgumentTypeError(f"an effect is a number of points above zero, such as 1, not {text!r}")


def power(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (share := float(text)) < 1:
            return share
    raise argparse.ArgumentTypeError(f"a power is a share between 0 and 1, such as 0.8, not {text!r}")


def setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"a field and its value are needed, FIELD=VALUE, not {text!r}")
    return name.strip(), value


def trials(text: str) -> tuple[str, int]:
    name, _, number = text.rpartition("=")
    return name, whole_number("a number of partitions, [NAME=]N, is a whole number from 1", 1)(number)


def named_folder(text: str) -> tuple[str, str]:
    from reidlib.data.readers import parse

    # Options contain =, and the folder may, too: split at the first = that follows a valid specification.
    pieces = text.split("=")
    candidates = [("=".join(pieces[:end]), "=".join(pieces[end:])) for end in range(1, len(pieces))]
    if not candidates or not candidates[0][0] or not candidates[0][1]:
        raise argparse.ArgumentTypeError(f"a benchmark and its folder are needed, NAME=DIR, not {text!r}")
    for name, folder in candidates:
        with contextlib.suppress(InputError):
            parse(name)
            return name, folder
    return candidates[0]


def pretraining(text: str) -> tuple[str, str]:
    return (text, "") if text == "synthetic" else named_folder(text)


def benchmarks() -> str:
    """List the registered benchmarks, their options with defaults, and the content of their folders."""
    from reidlib.data.readers import BENCHMARKS, GUIDES

    lines = ["benchmarks: NAME[,OPTION=VALUE…], here with the defaults; trial=N selects a partition;"]
    lines += ["train_persons=N and images_per_person=K keep fewer training images of any of them"]
    for name, reader in BENCHMARKS.items():
        parameters = list(inspect.signature(reader).parameters.values())[1:]
        options = (
            f",{parameter.name}={parameter.default if parameter.default != '' else 'FILE'}"
            for parameter in parameters
        )
        summary = (inspect.getdoc(reader) or "").partition("\n")[0]
        content = f"DIR holds {GUIDES[name].layout}" if name in GUIDES else summary
        lines += [f"  {name}{''.join(options).replace('False', 'false')}"]
        lines += _wrapped(content.replace("``", "`"), indent=6)
    return "\n".join(lines) + "\n"


def models() -> str:
    """List the rows of the experiments."""
    from reidlib.experiments.rows import EXPERIMENTS

    heading = "models, and their variants in the papers' ablations:"
    return "\n".join([heading, *_wrapped(", ".join(EXPERIMENTS))]) + "\n"


def kinds() -> str:
    """List the kinds of generated files."""
    from reidlib.cli.disk import KINDS

    lines = [f"  {name:12} {kind.about}; again: {kind.again}" for name, kind in KINDS.items()]
    return "\n".join(["kinds, and what makes them again:", *lines]) + "\n"


def fields() -> str:
    """List the fields of ``--set``."""
    from reidlib.experiments.rows import configure, get_profile, settable_fields

    both = {}
    for model in ("jlml", "pyramid"):
        fields = settable_fields(configure(model, get_profile("quick"), benchmark="", data="")[0])
        both |= {name: f"{name} ({model})" if name not in both else name for name in fields}
    return "\n".join(["fields of --set:", *_wrapped(", ".join(both.values()))]) + "\n"


def spellings() -> str:
    """List which spellings of a person or a camera are one name."""
    from reidlib.data.names import SPELLINGS

    return SPELLINGS


def _wrapped(text: str, indent: int = 2) -> list[str]:
    space = " " * indent
    return textwrap.wrap(text, 84, initial_indent=space, subsequent_indent=space, break_on_hyphens=False)
