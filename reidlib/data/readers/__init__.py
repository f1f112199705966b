"""Readers of all benchmarks by name, and guides to the public ones.

A reader turns a folder into a ``Reading``, which serves both loading and checking.

- ``layout``: ``Reading`` and functions that all readers share.
- ``market``: Market-1501's layout, including rendered folders.
- ``two_view``: the small sets VIPeR, CUHK01 and GRID; ``partitions``: their test persons.
- ``cuhk03``: both protocols of CUHK03.
- ``own``: the user's own images.
- ``thinning``: fewer training persons or images, an option of all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reidlib.data.benchmark import Benchmark, combine, option_text
from reidlib.data.readers import cuhk03, market, own, thinning, two_view
from reidlib.data.readers.layout import Reading, read_table, spelling_hint
from reidlib.errors import InputError, check_choice
from reidlib.values import read_value

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
    """Load a benchmark from a folder.

    Args:
        name: Name of the benchmark, a key of ``BENCHMARKS``.
        root: The benchmark's folder.
        trial: Which of the protocol's partitions to load, from 0.
        **protocol: Further keywords of the benchmark's reader, such as ``boxes="detected"``, and those of
            ``thinning``.

    Returns:
        The benchmark with its train, query and gallery splits.

    Raises:
        InputError: If the name or a keyword is unknown, the folder is incomplete, a file name does not parse,
            or a split violates a rule of ``reidlib.data.rules``.
    """
    return read(name, root, **protocol).benchmark(trial)


def read(name: str, root: str | Path, **protocol) -> Reading:
    """Read everything in a benchmark's folder, and collect its problems instead of raising them.

    Args:
        name: Name of the benchmark, a key of ``BENCHMARKS``.
        root: The benchmark's folder.
        **protocol: Further keywords of the benchmark's reader, such as ``boxes="detected"``.

    Returns:
        The splits by folder, the problems and the remarks.

    Raises:
        InputError: If the name or a keyword is unknown, or the folder does not exist.
    """
    _check_keywords(name, protocol)
    options = {key: _read_option(name, key, value) for key, value in protocol.items()}
    thinned = {key: options.pop(key) for key in thinning.THINNING if key in options}
    reading = BENCHMARKS[name](Path(root).expanduser().absolute(), **options)
    if thinned and (make := reading.make_benchmark):
        reading.make_benchmark = lambda trial: thinning.thin(make(trial), thinned)
    return reading


def load_specified(specification: str, root: str | Path) -> Benchmark:
    """Load a benchmark by its specification, such as ``cuhk03,boxes=detected,trial=3``."""
    name, options = parse(specification)
    return load(name, root, **options)


def load_together(folders: Sequence[tuple[str, str | Path]]) -> Benchmark | None:
    """Load benchmarks by (specification, folder); several are combined into one, none is None."""
    benchmarks = [load_specified(name, folder) for name, folder in folders]
    return combine(benchmarks) if len(benchmarks) > 1 else next(iter(benchmarks), None)


def parse(specification: str) -> tuple[str, dict[str, Any]]:
    """Parse a benchmark's specification.

    Args:
        specification: Text of the form ``NAME[,KEYWORD=VALUE…]``, as ``Benchmark.specification`` returns it;
            ``trial`` is one of the keywords.

    Returns:
        The name, and the keywords with values of the types of the reader's defaults.

    Raises:
        InputError: If the name or a keyword is unknown, or a value has the wrong type.
    """
    name, options = _parse_cached(specification)
    return name, dict(options)


def canonical(specification: str) -> str:
    """Return a specification as ``Benchmark.specification`` writes it: in order, without what is usual."""
    name, given = parse(specification)
    usual = defaults(name)
    keys = [*(key for key in usual if key != "trial"), *thinning.THINNING, "trial"]
    changed = {key: given[key] for key in keys if key in given and given[key] != usual.get(key)}
    return ",".join([name, *(f"{key}={option_text(value)}" for key, value in changed.items())])


@cache
def _parse_cached(specification: str) -> tuple[str, tuple[tuple[str, str | int | bool], ...]]:
    # Cached: the papers' tables parse the same specifications many times.
    name, *settings = specification.split(",")
    _check_keywords(name, ())
    options = {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator or key in options:
            raise InputError(
                "a benchmark's specification has the form NAME,KEYWORD=VALUE,…",
                repr(specification),
                f"write {key} once" if key in options else "write each option as KEYWORD=VALUE",
            )
        _check_keywords(name, {key} - {"trial"})
        options[key] = _read_option(name, key, text)
    return name, tuple(options.items())


def _check_keywords(name: str, options: Iterable[str]) -> None:
    """Raise InputError if a benchmark's reader does not take one of the keywords."""
    keywords = [key for key in (*defaults(name), *thinning.THINNING) if key != "trial"]
    if unknown := sorted(set(options) - set(keywords)):
        raise InputError(
            f"the protocol keywords of {name} are: {', '.join(keywords) or 'none'}",
            ", ".join(unknown),
            spelling_hint(unknown[0], keywords) or "remove the keyword",
        )


def _read_option(name: str, key: str, value: Any) -> Any:
    """Return an option's value as the type of its default; readers check the texts."""
    if key in thinning.THINNING:
        return read_value(key, value, range(thinning.THINNING[key], 2**31))
    default = defaults(name)[key]
    if isinstance(default, str):
        return value
    return read_value(key, value, bool if isinstance(default, bool) else range(2**31))


def defaults(name: str) -> dict[str, str | int | bool]:
    """Return the keywords of a benchmark, including ``trial``, with their defaults."""
    check_choice(f"a benchmark is one of: {', '.join(sorted(BENCHMARKS))}", name, BENCHMARKS)
    parameters = inspect.signature(BENCHMARKS[name]).parameters
    return {"trial": 0} | {key: value.default for key, value in parameters.items() if key != "root"}


@dataclass(frozen=True)
class Guide:
    """How to obtain a public benchmark: title, source, folder layout, conditions of use and check command."""

    # Without web addresses, which disappear more often than the names: search for name and authors.

    title: str
    source: str
    layout: str
    know: str
    command: str


GUIDES: dict[str, Guide] = {
    row.pop("benchmark"): Guide(**row) for row in read_table(Path(__file__).with_name("guides.csv"))
}
