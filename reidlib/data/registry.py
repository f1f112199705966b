"""Every benchmark by name: a folder in, a ``Benchmark`` out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import cuhk01, grid, rendered, viper
from reidlib.data.readers import market as market_layout
from reidlib.data.readers.cuhk03 import protocols as cuhk03
from reidlib.data.readers.layout import near_miss
from reidlib.data.readers.own import benchmarks as own
from reidlib.data.readers.survey import Survey
from reidlib.errors import InputError

BENCHMARKS: dict[str, Callable[..., Benchmark]] = {
    "market1501": market_layout.market1501,
    "dukemtmc": market_layout.dukemtmc,
    "cuhk01": cuhk01.cuhk01,
    "cuhk03": cuhk03.cuhk03,
    "grid": grid.grid,
    "viper": viper.viper,
    "synthetic": rendered.synthetic,
    "folder": own.folder,
    "csv": own.csv,
}
SURVEYS: dict[str, Callable[..., Survey]] = {
    "market1501": market_layout.survey_market1501,
    "dukemtmc": market_layout.survey_dukemtmc,
    "cuhk01": cuhk01.survey_cuhk01,
    "cuhk03": cuhk03.survey_cuhk03,
    "grid": grid.survey_grid,
    "viper": viper.survey_viper,
    "synthetic": rendered.survey_synthetic,
    "folder": own.survey_folder,
    "csv": own.survey_csv,
}


def load(name: str, root: str | Path, *, trial: int = 0, **protocol) -> Benchmark:
    """Read the benchmark ``name`` from the folder ``root``.

    ``trial`` chooses one of the protocol's partitions; ``protocol`` holds what the reader of this
    benchmark takes besides, such as ``boxes="detected"``.

    Raises ``InputError`` for an unknown name or protocol keyword, a folder that lacks something, a file
    name that does not parse, and a split that breaks a rule of ``reidlib.data.rules``.
    """
    reader = reader_of(name)
    check_options(name, protocol)
    return reader(Path(root).expanduser().absolute(), trial=trial, **protocol)


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
        check_options(name, {key: text} if key != "trial" else {})
        options[key] = _typed(key, text, defaults[key])
    return name, options


def check_options(name: str, options: dict) -> None:
    """Raise ``InputError`` for a keyword that a benchmark's reader does not take."""
    known = [key for key in _defaults(name) if key != "trial"]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"{name} is read with the protocol keywords: {', '.join(known) or 'none'}",
            ", ".join(unknown),
            near_miss(unknown[0], known) or "leave the keyword out",
        )


def reader_of(name: str) -> Callable[..., Benchmark]:
    """The reader of the benchmark ``name``; ``InputError`` lists the known ones."""
    if name not in BENCHMARKS:
        raise InputError(
            f"a benchmark is one of: {', '.join(sorted(BENCHMARKS))}",
            repr(name),
            near_miss(name, BENCHMARKS) or "choose one of those",
        )
    return BENCHMARKS[name]


def _defaults(name: str) -> dict[str, str | int | bool]:
    parameters = inspect.signature(reader_of(name)).parameters
    return {key: one.default for key, one in parameters.items() if key != "root"}


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
