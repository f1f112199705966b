"""Every benchmark by name: a folder in, a ``Benchmark`` out; how each public one is got; and their readers.

A reader makes a ``Reading`` of a folder, for loading it and for checking it. ``layout`` the reading and what
all share · ``market`` Market-1501's layout, rendered folders too · ``two_view`` the small sets ·
``partitions`` who is tested there · ``cuhk03`` · ``own`` images.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import cuhk03, market, own, two_view
from reidlib.data.readers.layout import Reading, near_miss, table
from reidlib.errors import InputError, check_choice

BENCHMARKS: dict[str, Callable[..., Reading]] = {
    "market1501": market.market1501,
    "dukemtmc": market.dukemtmc,
    "cuhk01": two_view.cuhk01,
    "cuhk03": cuhk03.cuhk03,
    "grid": two_view.grid,
    "viper": two_view.viper,
    "synthetic": market.synthetic,
    "folder": own.folder,
    "csv": own.csv,
}


def load(name: str, root: str | Path, *, trial: int = 0, **protocol) -> Benchmark:
    """Read the benchmark ``name`` from the folder ``root``.

    ``trial`` chooses one of the protocol's partitions; ``protocol`` holds what the reader of this
    benchmark takes besides, such as ``boxes="detected"``.

    Raises ``InputError`` for an unknown name or protocol keyword, a folder that lacks something, a file
    name that does not parse, and a split that breaks a rule of ``reidlib.data.rules``.
    """
    return read(name, root, **protocol).benchmark(trial)


def read(name: str, root: str | Path, **protocol) -> Reading:
    """What the reader of the benchmark ``name`` finds in the folder ``root``, and what is wrong there.

    Raises ``InputError`` for an unknown name or protocol keyword and where there is no such folder.
    """
    _check_options(name, protocol)
    return BENCHMARKS[name](Path(root).expanduser().absolute(), **protocol)


def load_specified(specification: str, root: str | Path) -> Benchmark:
    """Read a benchmark from name and options in one word, such as ``cuhk03,boxes=detected,trial=3``.

    That word is ``Benchmark.specification``. Raises ``InputError`` like ``load`` and ``parse``.
    """
    name, options = parse(specification)
    return load(name, root, **options)


def parse(specification: str) -> tuple[str, dict[str, str | int | bool]]:
    """Name and keywords of ``NAME[,KEYWORD=VALUE…]``, the values in the types of the reader's defaults.

    ``trial`` is one of the keywords. Raises ``InputError`` for an unknown name or keyword and for a value
    that is none of its keyword's type.
    """
    name, options = _parsed(specification)
    return name, dict(options)


@cache
def _parsed(specification: str) -> tuple[str, tuple[tuple[str, str | int | bool], ...]]:
    """``parse``, once for each text: the folders given for the papers' tables are asked for many times."""
    name, *settings = specification.split(",")
    defaults = _defaults(name)
    options = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found:
            raise InputError(
                "a benchmark is written NAME,KEYWORD=VALUE,…",
                repr(specification),
                "write an = in each option",
            )
        _check_options(name, {key: text} if key != "trial" else {})
        options[key] = _typed(key, text, defaults[key])
    return name, tuple(options.items())


def _check_options(name: str, options: dict) -> None:
    """Raise ``InputError`` for a keyword that a benchmark's reader does not take."""
    known = [key for key in _defaults(name) if key != "trial"]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"{name} is read with the protocol keywords: {', '.join(known) or 'none'}",
            ", ".join(unknown),
            near_miss(unknown[0], known) or "leave the keyword out",
        )


def _defaults(name: str) -> dict[str, str | int | bool]:
    """The keywords of a benchmark with their defaults, ``trial`` among them."""
    hint = near_miss(name, BENCHMARKS) or "choose one of those"
    check_choice(f"a benchmark is one of: {', '.join(sorted(BENCHMARKS))}", name, BENCHMARKS, hint)
    parameters = inspect.signature(BENCHMARKS[name]).parameters
    return {"trial": 0} | {key: one.default for key, one in parameters.items() if key != "root"}


def _typed(key: str, text: str, default: str | int | bool) -> str | int | bool:
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"{key} is true or false", repr(text), f"write {key}=true")
    if text.isdecimal():
        return int(text)
    raise InputError(f"{key} is a whole number from 0", repr(text), f"write {key}={default}")


@dataclass(frozen=True)
class Guide:
    """How a public benchmark is got: title, source, what lies in its folder, what to know, and its check.

    No addresses: those of data sets have died more often than their names. Search for name and authors.
    """

    title: str
    source: str
    layout: str
    know: str
    command: str


GUIDES: dict[str, Guide] = {
    row.pop("benchmark"): Guide(**row) for row in table(Path(__file__).with_name("guides.csv"))
}
