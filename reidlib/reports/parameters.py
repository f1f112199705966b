"""The parameters of a running notebook: their names, and their values as the declared types."""

from __future__ import annotations

import contextlib
import symtable
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reidlib.errors import InputError, check_choice
from reidlib.experiments.rows import PROFILES
from reidlib.values import read_value

# The parameters that mean the same in every notebook, with their types; see ``values.read_value``.
SHARED = {
    "profile": tuple(PROFILES),
    "benchmark": str,
    "data_root": Path,
    "folders": dict[str, Path],
    "trials": range(2**31),
    "run": Path,
    "seeds": range(1, 2**31),
    "may_train": bool,
    "evidence": bool,
    "until_decided": bool,
    "device": str,
    "runs": Path,
    "out": Path,
}
REQUIRED = ("profile", "out")
# The first line of the cell that papermill inserts after the parameters cell.
_INJECTED = "# Parameters\n"


def check_parameters(notebook: str, variables: dict[str, Any], own: dict[str, Any]) -> None:
    """Convert a notebook's parameters in place to their types, ``SHARED`` and its own, or refuse one."""
    kinds = SHARED | own
    # IPython keeps the sources of the executed cells; the last one is the cell that runs now.
    sources = [str(source) for source in variables.get("In", ())][:-1]
    # A script has no history of cells.
    assigned, injected = kinds.keys() & variables.keys(), frozenset()
    for source in sources:
        names = frozenset()
        with contextlib.suppress(SyntaxError, ValueError):
            names = assigned_names(source)
        if source.startswith(_INJECTED):
            injected = names
        elif names >= set(REQUIRED):  # the parameters cell, which replaces the values of cells before it
            assigned, injected = names, frozenset()
    _check_known(notebook, assigned, kinds)
    _check_known(notebook, injected, [name for name in kinds if name in assigned])
    expected = [*REQUIRED, *own]
    if missing := [name for name in expected if name not in assigned]:
        raise InputError(
            f"the parameters cell of {notebook} assigns {', '.join(expected)}",
            f"none for {missing[0]}",
            "add the parameter, and run the cell",
        )
    for name, kind in kinds.items():
        if name in assigned:
            value = variables[name]
            variables[name] = read_value(name, value, kind)
            if (list(variables[name]) if isinstance(value, list) else variables[name]) != value:
                print(f"note: {name} {value!r} is read as {variables[name]!r}")


def _check_known(notebook: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise InputError for the first unknown name, with the most similar known one."""
    for name in sorted(names):
        check_choice(f"a parameter of {notebook} is one of {', '.join(known)}", name, known)


def assigned_names(code: str) -> frozenset[str]:
    """Return the names that a cell assigns at its top level; SyntaxError if it is no valid Python."""
    symbols = symtable.symtable(code, "cell", "exec").get_symbols()
    return frozenset(
        symbol.get_name() for symbol in symbols if symbol.is_assigned() and not symbol.is_imported()
    )
