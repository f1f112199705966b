"""What is attributed to the papers: one table, which code and pages agree with."""

import ast
import importlib
import inspect
from collections.abc import Mapping

import pytest

from reidlib.analysis.benchmark_tables import constant_status, constants_table, published
from reidlib.errors import InputError

CONSTANTS = published("constants").to_dict("records")
PLACES = [(line, where) for line in CONSTANTS for where in line["where"].split("; ") if where]


def steps_to(where):
    """The objects on the way to a dotted place below ``reidlib``, the module first."""
    names = where.split(".")
    for length in range(len(names), 0, -1):
        try:
            objects = [importlib.import_module(".".join(["reidlib", *names[:length]]))]
        except ModuleNotFoundError:
            continue
        break
    for name in names[length:]:
        owner = objects[-1]
        if isinstance(owner, Mapping):
            objects.append(owner[name])
        elif callable(owner) and (parameter := inspect.signature(owner).parameters.get(name)):
            assert parameter.default is not parameter.empty, where
            objects.append(parameter.default)
        else:
            objects.append(getattr(owner, name))
    return objects


def value_of(cell):
    """The value that a cell states: a number, a division, a tuple or a dictionary of them, or a text."""
    try:
        tree = ast.parse(cell, mode="eval")
    except SyntaxError:
        return cell
    if any(isinstance(node, ast.Name) for node in ast.walk(tree)):
        return cell  # a word
    return eval(compile(tree, "constants.csv", "eval"), {})


@pytest.mark.parametrize(("line", "where"), PLACES, ids=lambda part: part if isinstance(part, str) else "")
def test_every_place_has_the_value_of_the_table(line, where):
    thing = steps_to(where)[-1]
    if inspect.ismodule(thing) or (callable(thing) and not line["value"]):
        return  # its documentation states something, which no constant holds
    assert thing == value_of(line["value"])


def test_every_constant_is_stated_once():
    names = [(line["paper"], line["constant"]) for line in CONSTANTS]
    assert len(set(names)) == len(names)
    statuses = {
        "read",
        "counted",
        "our choice",
        *(f"recalled ({sure})" for sure in ("high", "medium", "low")),
    }
    assert {line["status"] for line in CONSTANTS} == statuses
    assert all(line["source"] for line in CONSTANTS)


def test_a_recalled_constant_names_no_source_and_says_so():
    for line in CONSTANTS:
        is_recalled = line["status"].startswith("recalled")
        assert is_recalled == ("authors of this suite, not confirmed" in line["source"]), line["constant"]


def test_the_table_of_a_paper():
    assert set(constants_table("JLML")["paper"]) == {"JLML"}
    assert len(constants_table()) == len(CONSTANTS)
    assert constant_status("training.config.JLMLConfiguration.sparsity_global") == "recalled (medium)"
    assert constant_status("training.config.PyramidConfiguration.margin") == "read"
    with pytest.raises(InputError, match="'JLLM'"):
        constants_table("JLLM")
    with pytest.raises(InputError, match="0 lines"):
        constant_status("training.config.JLMLConfiguration.lambda")
