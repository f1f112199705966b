"""The public interface is documented in Google form; everything else by one line."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "reidlib"
# What readers of the notebooks and programs of their own call.
PUBLIC = ("data.load",)


def public_object(name: str):
    """The object that a dotted name below ``reidlib`` means."""
    parts = ("reidlib." + name).split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(name)


def documented_parameters(docstring: str, section: str) -> set[str]:
    """Names in a section of a docstring in Google form."""
    block = re.search(rf"^{section}:\n((?:(?: +.*)?\n?)*)", docstring, re.MULTILINE)
    return set(re.findall(r"^    (\*{0,2}\w+)(?: \([^)]*\))?:", block[1], re.MULTILINE)) if block else set()


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstring_is_in_google_form(name):
    thing = public_object(name)
    docstring = inspect.getdoc(thing)
    first = docstring.splitlines()[0]
    assert first.endswith("."), first
    assert docstring.splitlines()[1:2] in ([], [""]), "a blank line follows the summary"
    if inspect.isclass(thing):
        fields = list(getattr(thing, "_fields", ())) or list(getattr(thing, "__dataclass_fields__", ()))
        own = fields or list(inspect.signature(thing).parameters)
        sections = documented_parameters(docstring, "Args") | documented_parameters(docstring, "Attributes")
    else:
        own = list(inspect.signature(thing).parameters)
        sections = documented_parameters(docstring, "Args")
        returned = inspect.signature(thing).return_annotation
        if returned not in ("None", None, inspect.Signature.empty):
            assert re.search("^(Returns|Yields):", docstring, re.MULTILINE)
    wanted = {parameter for parameter in own if parameter != "self" and not parameter.startswith("_")}
    assert wanted <= {parameter.lstrip("*") for parameter in sections}, wanted - sections


def other_docstrings():
    public = {name.rpartition(".")[2] for name in PUBLIC}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in public:
                docstring = ast.get_docstring(node) or ""
                yield f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}", docstring


def test_other_docstrings_are_one_line():
    long = [where for where, docstring in other_docstrings() if "\n" in docstring]
    assert not long, long
