"""What is attributed to the papers: one table, which code and pages agree with."""

import ast
import importlib
import inspect
import re
from collections.abc import Mapping
from itertools import pairwise

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


# How a text says each status; code that was read is named in place of the word.
WORDS = {
    "read": r"\bread\b|(released|authors'|official) code|\bslides\b",
    "counted": r"\bcounted\b",
    "recalled": r"\brecall(ed)?\b",
    "our choice": r"\bour choice\b|\b[Ww]e assume\b|\bis not known\b|\bno source\b",
}


def statuses_in(text):
    """The statuses that a text names."""
    return {status for status, words in WORDS.items() if re.search(words, text, re.IGNORECASE)}


def entry(thing, name):
    """What a docstring says of a name; if it says no status there, what it says of all names."""
    docstring = inspect.getdoc(thing) or ""
    general, *sections = re.split(r"^(?:Args|Attributes):\n", docstring, flags=re.MULTILINE)
    for section in sections:
        for names, text in re.findall(r"^    ([\w, ]+): ((?:.|\n     )+)", section, re.MULTILINE):
            if name in names.split(", ") and statuses_in(text):
                return text
    return re.split(r"^(?:Returns|Raises):\n", general, flags=re.MULTILINE)[0]


def comments(module, name):
    """The comments at a module's assignment to a name: on its first line and directly above it."""
    lines = inspect.getsource(module).splitlines()
    place = next((at for at, line in enumerate(lines) if re.match(rf"{name}\b.* = ", line)), None)
    if place is None:
        return ""
    above = place
    while lines[above - 1].startswith("#"):
        above -= 1
    return " ".join([*lines[above:place], lines[place].partition("  # ")[2]])


def documentation(where):
    """What the package says beside a dotted place: its docstring, or the comments at its assignment."""
    module, *objects = steps_to(where)
    names = where.split(".")[-len(objects) :] if objects else []
    if ".pyramid-youreid." in where:  # the comment above the row, or above its size in the profile
        row = (
            r'"pyramid-youreid": Experiment'
            if names[0] == "EXPERIMENTS"
            else r'_PAPER\["pyramid-youreid"\] ='
        )
        return re.search(rf"((?: *#.*\n)+) *{row}", inspect.getsource(module))[1]
    if where.startswith("experiments.rows.PROFILES.paper."):
        # The comment above a model's recipe has a sentence for each status, with the names.
        block = re.search(
            rf'((?: *#.*\n)+) *"{names[3]}": ModelSize', inspect.getsource(module).split("_PAPER =")[1]
        )
        sentences = re.split(r"(?<=[.:]) ", re.sub(r"\s+#? *", " ", block[1]))
        return " ".join(
            head for head, listed in pairwise(sentences) if names[-1] in re.split(r"[ ,.]+", listed)
        )
    if not objects:
        return inspect.getdoc(module)
    if callable(objects[-1]) and (inspect.getdoc(objects[-1]) or "").strip():
        return re.sub(r"(?m)^(Args|Returns):\n(?:(?: .*)?\n)*", "", inspect.getdoc(objects[-1]))
    texts = [comments(module, names[0])]
    for owner in [module, *objects][:-1]:
        if not inspect.ismodule(owner):
            texts.append(entry(owner if callable(owner) else type(owner), names[-1]))
    return " ".join(texts)


@pytest.mark.parametrize("where", dict.fromkeys(where for _, where in PLACES))
def test_the_documentation_at_every_place_says_how_its_constants_are_known(where):
    text = documentation(where)
    # Several places may have one text, as a field that two tables set.
    expected = {line["status"].split(" (")[0] for line, other in PLACES if documentation(other) == text}
    assert statuses_in(text) == expected, text


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
    values = constants_table().set_index("constant")["value"]
    assert values["training steps"] == "50,000"
    assert values["levels: all, which are 21 parts"] == "all"
    assert values["triplets compare features of unit length"] == "no"
    assert values["sets for pre-training before a small set"] == "cuhk03, market1501"
    assert not values.str.contains(r"[(){}']|True|False|None").any()  # text, not Python
    assert constant_status("training.config.JLMLConfiguration.sparsity_global") == "recalled (medium)"
    assert constant_status("training.config.PyramidConfiguration.margin") == "read"
    with pytest.raises(InputError, match="'JLLM'"):
        constants_table("JLLM")
    with pytest.raises(InputError, match="0 lines"):
        constant_status("training.config.JLMLConfiguration.lambda")
