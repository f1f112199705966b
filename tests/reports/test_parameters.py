"""The parameters of a running notebook: every parameter of every notebook, and the cells that set them."""

import ast
import contextlib
import math
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, given, settings
from papermill.translators import PythonTranslator
from strategies import VALUES

from reidlib import experiments
from reidlib.errors import InputError
from reidlib.experiments import metric_study
from reidlib.reports import Result
from reidlib.reports.parameters import SHARED, assigned_names, check_parameters
from reidlib.values import read_value

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def first_cells(path):
    """The sources of the parameters cell and of the one that checks the parameters."""
    code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return code[0], code[1]


class Recorder:
    """Stands in for ``Result`` and only checks the parameters."""

    @staticmethod
    def from_parameters(name, variables, **types):
        assert name == variables["notebook"]
        check_parameters(name, variables, types)
        return types


def check(path, *cells):
    """Run the given cells and then the check of a notebook; return its variables and own types."""
    source = first_cells(path)[1]
    variables = {"In": ["", *cells, source], "notebook": path.stem}
    for cell in cells:
        exec(cell, variables)  # the cells of the notebook and of papermill's translator
    (call,) = [
        node.value for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and "from_parameters" in ast.unparse(node.value)
    ]  # fmt: skip
    environment = {
        "Result": Recorder, "experiments": experiments, "metric_study": metric_study,
        "globals": lambda: variables,
    }  # fmt: skip
    types = eval(compile(ast.Expression(call), "call", "eval"), environment)
    return variables, SHARED | types


def injected(**parameters):
    return PythonTranslator.codify(parameters)


PARAMETERS = [(path, name) for path in NOTEBOOKS for name in sorted(assigned_names(first_cells(path)[0]))]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_defaults_have_their_types(path, capsys):
    cell, _ = first_cells(path)
    defaults = {}
    exec(cell, defaults)
    variables, _ = check(path, cell)
    for name in assigned_names(cell):
        assert variables[name] == defaults[name]
        assert type(variables[name]) is type(defaults[name])
    assert not capsys.readouterr().out
    # After the check no cell replaces a parameter: what the page says it is, is what runs.
    later = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"][1:]
    assert not assigned_names(cell) & frozenset().union(*map(assigned_names, later))


@pytest.mark.parametrize(("path", "name"), PARAMETERS, ids=[f"{p.stem[:2]}-{name}" for p, name in PARAMETERS])
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_any_value_of_papermill_has_the_parameters_type_or_is_refused_by_name(path, name, value, capsys):
    try:
        variables, types = check(path, first_cells(path)[0], injected(**{name: value}))
    except InputError as refusal:
        assert str(refusal).startswith(name) and "\n" not in str(refusal)
        return
    assert read_value(name, variables[name], types[name]) == variables[name]
    if types[name] is bool:
        assert type(variables[name]) is bool
    if isinstance(value, str) and type(variables[name]) is not str:
        assert f"note: {name} {value!r} is read as {variables[name]!r}" in capsys.readouterr().out


@pytest.mark.parametrize(("path", "name"), PARAMETERS, ids=[f"{p.stem[:2]}-{name}" for p, name in PARAMETERS])
def test_a_misspelt_parameter_is_refused_with_the_nearest_name(path, name):
    misspelt = f"{name[:-1]}_" if name != "out" else "outt"
    with pytest.raises(
        InputError, match=rf"a parameter of {path.stem} is one of .*'{misspelt}'; did you mean"
    ):
        check(path, first_cells(path)[0], injected(**{misspelt: 1}))


def test_a_parameter_of_another_notebook_is_refused():
    path = next(path for path in NOTEBOOKS if path.stem == "00_start_here")
    with pytest.raises(InputError, match="is one of profile, benchmark, data_root, device, out; got 'seeds'"):
        check(path, first_cells(path)[0], injected(seeds=3))


JLML = next(path for path in NOTEBOOKS if path.stem == "20_train_jlml")
CELL, CHECK = first_cells(JLML)
MISSPELT = injected(multi_los=False)


@pytest.mark.parametrize(
    ("cells", "multi_loss"),
    [
        ([CELL, injected(multi_loss="false"), CHECK, CELL, injected(multi_loss="false")], False),  # run twice
        ([CELL, MISSPELT, CHECK, injected(multi_loss=False)], False),  # the injected cell corrected
        ([CELL, MISSPELT, CHECK, CELL], True),  # the injected cell removed
        ([CELL, injected(multi_loss=False), "model = parts = 5", "scratch = 1", "def ("], False),
        ([CELL.replace("multi_loss = True", "multi_loss = 'no'")], False),  # edited by hand
        ([f"import os\n{CELL}"], True),
    ],
)
def test_cells_in_the_order_of_a_session(cells, multi_loss):
    source = [cell for cell in cells if cell not in (CHECK, "def (")]
    variables = {"In": ["", *cells, CHECK]}
    for cell in source:
        exec(cell, variables)
    check_parameters(
        "20", variables, {"parts": int, "multi_loss": bool, "shared_stem": bool, "sparsity": float}
    )
    assert variables["multi_loss"] is multi_loss


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (CELL.replace("multi_loss", "multi_los"), "got 'multi_los'; did you mean multi_loss"),
        (CELL.replace("seeds", "sed"), "got 'sed'; did you mean seeds"),
        (
            CELL.replace("parts = 4", ""),
            "assigns profile, out, parts, multi_loss, shared_stem, sparsity; got none for parts",
        ),
    ],
)
def test_an_edited_parameters_cell_is_checked(cell, words):
    """In one kernel the old value of a renamed parameter is still there."""
    variables = {"In": ["", CELL, CHECK, cell, CHECK]}
    exec(CELL + cell, variables)
    with pytest.raises(InputError, match=words):
        check_parameters(
            "20", variables, {"parts": int, "multi_loss": bool, "shared_stem": bool, "sparsity": float}
        )


def test_a_cell_before_the_parameters_cell_is_refused():
    with pytest.raises(InputError, match="the parameters cell of 30 assigns profile, out; got none for prof"):
        Result.from_parameters("30", {"In": ["", "the cell that runs now"]})


def test_a_users_cell_of_parameters_is_not_the_one_of_papermill():
    variables, _ = check(JLML, CELL, "# Parameters of a plot\nsize = 3")
    assert variables["size"] == 3


def test_a_script_without_cells_is_checked(tmp_path):
    variables = {"profile": "smoke", "out": tmp_path, "multi_loss": "off", "other": 1}
    result = Result.from_parameters("20_train_jlml", variables, multi_loss=bool)
    assert variables == {"profile": "smoke", "out": str(tmp_path), "multi_loss": False, "other": 1}
    assert (result.out, result.profile) == (tmp_path, "smoke")


def test_folders_may_be_written_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Result("30", out="~/out", profile="smoke").out == tmp_path / "out"
    assert experiments.Setup("smoke", runs="~/runs").runs == tmp_path / "runs"


def test_not_a_number_reaches_no_notebook():
    for path, name in PARAMETERS:
        with contextlib.suppress(InputError):
            variables, _ = check(path, first_cells(path)[0], injected(**{name: math.nan}))
            pytest.fail(f"{path.stem}: {name}={variables[name]!r}")
