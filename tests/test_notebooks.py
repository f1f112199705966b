"""The notebooks: their form, that all of them run, and that the README tells the truth about them."""

import ast
import json
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import matplotlib as mpl
import nbformat
import pytest
from IPython.display import Markdown
from markupsafe import escape
from miniature import write_image
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from reidlib.analysis.claims import CLAIMS
from reidlib.cli import main
from reidlib.experiments import EXPERIMENTS
from reidlib.reports.notebook import read_source
from reidlib.reports.pages.index import read_heading

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
README = (ROOT / "README.md").read_text()


def names(paths):
    return [path.stem for path in paths]


def texts(path):
    """All text cells of a notebook, one below the other."""
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names(NOTEBOOKS))
def test_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = notebook.cells
    first = cells[0]
    assert first.cell_type == "markdown"
    assert all(word in first.source for word in ("**Question.**", "**In:**", "**Out:**", "**Run time:**"))
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert code[0].metadata.tags == ["parameters"]
    assert [cell for cell in code if "parameters" in cell.metadata.get("tags", [])] == code[:1]
    for statement in ast.parse(code[0].source).body:  # literals only: injected values come after them
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)
    functions = 0
    for position, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        assert not cell.outputs
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 25, cell.source
        before = cells[position - 1]
        assert before.cell_type == "markdown", f"no sentence before: {cell.source[:60]}"
        assert not before.source.splitlines()[-1].startswith("#"), f"a heading alone: {before.source}"
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
        functions += sum(isinstance(node, ast.FunctionDef) for node in tree.body)
        if "result.figure(" in cell.source:
            assert cells[position + 1].cell_type == "markdown", f"no reading after: {cell.source[:60]}"
    assert functions <= 2
    assert "result.finish(" in code[-1].source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names(NOTEBOOKS))
def test_text_cells_are_short_and_imports_few(path):
    cells = nbformat.read(path, as_version=4).cells
    words = [len(cell.source.split()) for cell in cells if cell.cell_type == "markdown"]
    assert max(words) <= 80
    assert statistics.median(words) < 30
    trees = [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    assert sum(len(node.names) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)) <= 10


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names(NOTEBOOKS))
def test_links_between_notebooks_lead_to_headings(path):
    for name, heading in re.findall(r"\]\((\w*)(?:\.ipynb)?(?:#([^)]+))?\)", texts(path)):
        name = name or path.stem
        headings = re.findall(r"^#+ +(.+)$", texts(path.with_name(f"{name}.ipynb")), re.MULTILINE)
        assert not heading or heading in [line.strip().replace(" ", "-") for line in headings]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names(NOTEBOOKS))
def test_links_into_notebook_00_name_the_section(path):
    """JupyterLab opens a notebook at its top on the first click, so the reader must know the section."""
    for heading, text in re.findall(r"\]\(00_start_here\.ipynb#([^)]+)\)(.{,50})", texts(path)):
        assert f"notebook 00, *{heading.replace('-', ' ')}*" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=names(NOTEBOOKS))
def test_every_notebook_leaves_its_result(path, report):
    folder = report[0] / path.stem
    result = json.loads((folder / "result.json").read_text())
    assert result["notebook"] == path.stem
    assert result["profile"] == "smoke"
    circumstances = {"configuration", "seeds", "versions", "commit", "device", "duration"}
    assert {"scores", *circumstances} <= result.keys()
    if path.stem == "90_claims" or path.stem in {claim.notebook for claim in CLAIMS if claim.contrasts}:
        assert "(one seed)" in str(result["headline"])  # a verdict never stands without it in the index
    for figure in result["figures"]:
        size = (folder / figure["file"]).stat().st_size
        assert 1000 < size < 300_000
        assert figure["caption"]
        assert figure["alt"]
    executed = nbformat.read(folder / "notebook.ipynb", as_version=4)
    outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
    pictures = [o for o in outputs if {"image/png", "image/jpeg"} & o.get("data", {}).keys()]
    assert len(pictures) == len(result["figures"])  # every figure is shown where it was made
    page = (folder / "index.html").read_text()
    assert not re.search(r"(src|href)=.https?://", page)
    assert "Traceback (most recent call last)" not in page


def test_the_index_shows_every_notebook(report):
    index = (report[0] / "index.html").read_text(encoding="utf-8")
    for path in NOTEBOOKS:
        assert f'href="{path.stem}/index.html"' in index
        title, question = read_heading(path)
        assert title and question
        assert escape(title) in index and escape(question) in index
    assert "failed" not in index


def test_a_second_reproduction_changes_nothing(report):
    out, environment, command = report
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0
    assert "0 to run" in process.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_the_explorers_run_is_the_reports_run(report, tmp_path):
    """papermill alone, from another folder, finds the run that the report trained and trains no other."""
    _, environment, _ = report
    runs = Path(environment["REIDLIB_HOME"]) / "runs"
    before = sorted(runs.iterdir())
    notebook = ROOT / "notebooks" / "20_train_jlml.ipynb"
    parameters = ["-p", "profile", "smoke", "-p", "device", "cpu"]
    command = [sys.executable, "-m", "papermill", notebook, tmp_path / "out.ipynb", *parameters]
    process = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert sorted(runs.iterdir()) == before
    assert (Path(environment["REIDLIB_HOME"]) / "explored" / "20_train_jlml" / "result.json").is_file()


@pytest.mark.parametrize("name", ["20_train_jlml", "50_ranking_browser"])
def test_all_cells_run_twice_in_one_kernel(report, tmp_path, monkeypatch, name):
    """Unknown parameters are those of papermill's cell: a second run finds the variables of the first."""
    monkeypatch.setenv("REIDLIB_HOME", report[1]["REIDLIB_HOME"])
    notebook = load_notebook_node(str(ROOT / "notebooks" / f"{name}.ipynb"))
    parameters = {"profile": "smoke", "device": "cpu", "out": str(tmp_path / "out"), "may_train": "no"}
    notebook = parameterize_notebook(notebook, parameters, kernel_name="python3", language="python")
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    with client.setup_kernel():
        for _ in range(2):
            (tmp_path / "out" / "result.json").unlink(missing_ok=True)
            for position, cell in enumerate(notebook.cells):
                client.execute_cell(cell, position)
            assert (tmp_path / "out" / "result.json").is_file()
        # The user writes another line into papermill's cell, and runs it and the check again.
        position = next(place for place, cell in enumerate(notebook.cells) if "# Parameters" in cell.source)
        notebook.cells[position].source += "\nmay_trian = False"
        client.execute_cell(notebook.cells[position], position)
        with pytest.raises(CellExecutionError, match="got 'may_trian'; did you mean may_train"):
            client.execute_cell(notebook.cells[position + 2], position + 2)


# Options of papermill, and words of its only line, or what the configuration then holds.
BY_HAND = {
    "20_train_jlml -p multi_loss false -p parts 4.0 -r seeds 1": {"multi_loss": False, "parts": 4},
    "20_train_jlml -p multi_los false": "did you mean multi_loss",
    "20_train_jlml -p may_train False -r shared_stem maybe": "shared_stem is True or False; got 'maybe'",
    "21_train_pyramid -p triplet No -y levels:[1,x]": "levels[1] is a whole number; got 'x'",
    "42_benchmarks -r folders {viper": "folders is a dictionary with texts as names; got '{viper'",
    "50_ranking_browser -r top 5 -p browse false": {"top": 5},
}


@pytest.mark.parametrize("line", BY_HAND)
def test_parameters_that_papermill_passes(report, tmp_path, line):
    """What a page says of a parameter is what ran; anything else is refused in one line by name."""
    name, *options = line.split(" ")
    options = [option.replace("levels:[1,x]", "levels: [1, x]") for option in options]
    notebook, output = ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out.ipynb"
    fixed = ["-p", "profile", "smoke", "-p", "device", "cpu", "-p", "out", "7"]
    command = [sys.executable, "-m", "papermill", notebook, output, *fixed, *options]
    process = subprocess.run(command, env=report[1], cwd=tmp_path, capture_output=True, text=True)
    last = process.stderr.strip().splitlines()[-1]
    if isinstance(BY_HAND[line], str):
        assert process.returncode == 1
        assert last.startswith("InputError: ") and BY_HAND[line] in last
        assert not (tmp_path / "7").exists()
        return
    assert process.returncode == 0, process.stderr
    configuration = json.loads((tmp_path / "7" / "result.json").read_text())["configuration"]
    assert (configuration.get("model", configuration)).items() >= BY_HAND[line].items()
    assert "is read as" in output.read_text()


def test_notebook_51_leaves_out_what_unknown_cameras_do_not_allow(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    for person in range(8):
        (tmp_path / "own" / f"p{person}").mkdir(parents=True)
        for image in range(8):  # no _c1 or _c2 in the names
            write_image(tmp_path / "own" / f"p{person}" / f"{image}.jpg", (64, 32), seed=10 * person + image)
    notebook = nbformat.read(ROOT / "notebooks" / "51_part_attention.ipynb", as_version=4)
    parameters, *cells = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    shown = []
    values = {"profile": "smoke", "benchmark": "folder,same_camera=true", "device": "cpu", "pairs": 2}
    values |= {"data_root": str(tmp_path / "own"), "out": str(tmp_path / "out"), "orders": 1}
    variables = {"display": lambda *objects: shown.extend(objects)}
    with mpl.rc_context():
        for source in (
            parameters,
            "\n".join(f"{name} = {value!r}" for name, value in values.items()),
            *cells,
        ):
            exec(source, variables)
    sentences = [output.data for output in shown if isinstance(output, Markdown)]
    (left_out,) = (text for text in sentences if "left out, because" in text)
    assert left_out.count("at least one training person is seen by two cameras") == 2  # for both networks
    result = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert result["scores"] and len(result["figures"]) >= 5  # all that needs no cameras is shown


def test_every_training_was_done_once_and_is_where_it_is_said_to_be(report):
    out, environment, _ = report
    trained = sorted((Path(environment["REIDLIB_HOME"]) / "runs").glob("*/run.json"))
    assert len(trained) == len(EXPERIMENTS)
    for source in filter(lambda source: source.trainings, map(read_source, NOTEBOOKS)):
        name, requested = source.name, source.trainings
        runs = json.loads((out / name / "result.json").read_text())["runs"]
        assert not [run for run in runs if "missing" in run]
        named = {run["experiment"] for run in runs}
        any_settings = name in ("20_train_jlml", "21_train_pyramid")
        assert named == ({name} if any_settings else set(requested))


def test_six_figures_stand_for_the_suite(report):
    results = [json.loads(path.read_text()) for path in report[0].glob("*/result.json")]
    marked = [figure["file"] for result in results for figure in result["figures"] if figure.get("summary")]
    assert len(marked) == 6


def test_what_is_not_there_is_missing_and_nothing_else(report, tmp_path):
    """Runs carried here without weights, one of them not at all; nothing may be trained."""
    _, environment, command = report
    home = Path(environment["REIDLIB_HOME"])
    shutil.copytree(home / "data", tmp_path / "data")
    shutil.copytree(home / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("weights.pt"))
    shutil.rmtree(next((tmp_path / "runs").glob("jlml-separate-*")))
    before = sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir())
    process = subprocess.run(
        [*command, "30", "31", "32", "36", "90", "--no-train"],
        env={**environment, "REIDLIB_HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    assert sorted(path.name for path in (tmp_path / "runs").iterdir() if path.is_dir()) == before
    old, new = (
        {path.parent.name: json.loads(path.read_text()) for path in (folder / "smoke").glob("*/result.json")}
        for folder in (home, tmp_path)
    )
    for name in ("30_ablation_losses", "32_ablation_feature_selection", "36_box_misalignment"):
        assert new[name]["scores"] == old[name]["scores"]  # small files are all they need
    without, shared = new["31_ablation_shared_features"]["scores"]
    assert without["R1"] == without["mAP (trapezoid)"] == "missing"
    assert shared["R1"] == old["31_ablation_shared_features"]["scores"][1]["R1"]
    assert shared["Δ mAP (trapezoid) [95 %]"] == "missing"
    (claim,) = [row for row in new["90_claims"]["ledger"] if "low-level layers" in row["claim"]]
    assert claim["verdict"].startswith("? undecided here")
    assert claim["measured (points, 95 %)"] == "shared − separate: missing"
    others = [
        [row for row in results["90_claims"]["ledger"] if row["notebook"] != "31"] for results in (old, new)
    ]
    assert others[0] == others[1]


def test_unknown_notebook_number_names_the_known(capsys):
    assert main(["reproduce", "99"]) == 2
    assert "20_train_jlml" in capsys.readouterr().err


def test_readme_maps_every_notebook():
    table = re.findall(r"\| \[`(\w+)`\]\(notebooks/(\w+)\.ipynb\)", README)
    assert [name for name, _ in table] == names(NOTEBOOKS)
    assert all(name == file for name, file in table)


def test_readme_has_no_placeholders_and_is_short():
    assert not re.search("@[A-Z]+@|TODO", README)
    assert len(README.splitlines()) <= 181  # one for the row of notebook 44
    assert len(README.split()) <= 3600  # long lines are not short, either


def test_readme_lines_and_links():
    lines = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    installed = "python3 -m venv .venv && . .venv/bin/activate && pip install -e"
    assert lines == [
        f"{installed} . && reidlib reproduce",
        f"{installed} '.[test]' && pytest -n 3 --dist loadfile",
    ]
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_conda_installs_what_pyproject_names():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    body = [line for line in lines if line and not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = ",".join(project["optional-dependencies"])
    assert body[-1] == f"- -e .[{extras}]"
    packages = body[body.index("dependencies:") + 1 : -1]
    assert packages == [f"- python{project['requires-python']}", "- pip", "- pip:"]


def test_training_and_ranking_import_without_the_notebook_packages():
    code = (
        "import sys; import reidlib.experiments.obtain, reidlib.cli; "
        "import reidlib.descriptors, reidlib.analysis.complexity; "
        "import reidlib.reports.tasks; "
        "print([m for m in ('papermill', 'nbconvert', 'nbformat', 'IPython', 'ipywidgets', 'matplotlib') "
        "if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
