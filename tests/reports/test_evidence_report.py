"""A fresh clone makes both columns of the ledger from the evidence in git, and finds the report's numbers."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rows_with_scores import write_run

from reidlib import files
from reidlib.analysis import ExperimentScores, benchmark_runs, benchmark_tables, claims, table_records
from reidlib.analysis.learning_curves.curve import Curve
from reidlib.cli import main
from reidlib.experiments import evidence
from reidlib.experiments.evidence import NAMES, Evidence
from reidlib.experiments.evidence.lines import lines_of
from reidlib.reports.pages.index import _cell, _markdown

ROOT = Path(__file__).parents[2]
SUMMARY = ROOT / "reports" / "README.md"
LARGEST = 12 * 2**20


def rows_of(records):
    """Lines of a table as the summary prints them."""
    return [" | ".join(_markdown(_cell(value)) for value in record.values()) for record in records]


def test_the_summary_holds_the_numbers_of_the_evidence():
    kept = {name: Evidence.read("quick", benchmark) for benchmark, name in NAMES.items()}
    names, _ = claims.required_experiments()
    sets = {name: ExperimentScores(each.gather([*names, *each.rows])) for name, each in kept.items()}
    verdicts = {
        name: [claims.decide(claim, scores) for claim in claims.CLAIMS] for name, scores in sets.items()
    }
    text = SUMMARY.read_text(encoding="utf-8")
    lines = rows_of(table_records(claims.ledger(verdicts, claims.older_than_tests(sets))))
    assert len(lines) == len(claims.CLAIMS)
    assert [line for line in lines if f"| {line} |" not in text] == []
    lesson = claims.seed_lesson(claims.verdicts_by_seeds(sets))
    assert f"## {lesson['title']}\n\n{lesson['text']}\n\n![" in text
    assert text.index(lesson["title"]) < text.index("## Scores on photographs")
    opening = claims.photographs(kept["photographs"], names)
    assert text.index(_markdown("## Scores on photographs")) < text.index("## The ledger of claims")
    assert opening["about"] in text
    assert [line for line in rows_of(opening["rows"]) if f"| {line} |" not in text] == []


def test_a_fresh_clone_makes_the_ledger_without_training_and_images(tmp_path):
    clone = tmp_path / "clone"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    environment = {name: value for name, value in os.environ.items() if name != "REIDLIB_HOME"}
    environment |= {"PYTHONPATH": str(clone), "OMP_NUM_THREADS": "1"}
    (line,) = set(re.findall("`(reidlib reproduce 90 .*?)` [|]", (clone / "README.md").read_text("utf-8")))
    subprocess.run(
        [sys.executable, "-m", *line.split()], cwd=clone, env=environment, check=True, capture_output=True
    )
    folder = clone / "reports" / "quick-evidence" / "90_claims"
    result = json.loads((folder / "result.json").read_text())
    text = SUMMARY.read_text(encoding="utf-8")
    assert [line for line in rows_of(result["ledger"]) if f"| {line} |" not in text] == []
    assert result["photographs"]["about"] in text
    assert {figure["file"] for figure in result["figures"]} == {
        "ledger.png", "ledger-photographs.png", "agreement.png", "seeds.png",
    }  # fmt: skip
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert re.search(r"Spearman's rank correlation is <strong>", page)
    made = {path.name for path in (clone / "reports").iterdir()}
    assert made == {
        "README.md",
        "notebooks.md",
        "figures",
        "evidence",
        "quick-evidence",
    }  # no runs, no images


def test_the_summary_holds_the_papers_tables_and_the_curves():
    text = SUMMARY.read_text(encoding="utf-8")
    own = {name: benchmark_runs.kept_runs(name) for name in benchmark_tables.specifications()}
    tables = rows_of(benchmark_runs.measured_tables(own))
    assert any("this suite: jlml" in line for line in tables)
    curve = Curve.read("jlml", "quick", "market1501,validation=true", evidence_alone=True)
    assert len(curve.found) > 5
    lines = [*tables, *rows_of(table_records(curve.table()))]
    assert [line for line in lines if f"| {line} |" not in text] == []


def test_a_report_on_a_third_benchmark_stands_beside_both(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "evidence")
    for number, benchmark in enumerate(("market1501", *NAMES)):
        for row in ("jlml", "jlml-2", "jlml-6"):
            run = write_run(tmp_path / f"runs-{number}", row, benchmark=benchmark, data=str(number) * 16)
            assert evidence.add(run.folder).added
    cells = json.loads((ROOT / "notebooks" / "90_claims.ipynb").read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    given = {"benchmark": "market1501", "evidence": True, "out": str(tmp_path / "out")}
    namespace = {}
    exec(codes[0], namespace)  # the parameters
    for code in ("", *codes[1:]):
        exec(code, namespace := namespace | given)
        given = {}
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert len(result["figures"]) == 5
    assert {"verdict, market1501", "verdict, rendered people", "verdict, photographs"} <= set(
        result["ledger"][0]
    )
    # Its own scores are of its test images, so that the validation persons' stand at the beginning.
    assert "--benchmark market1501,validation=true " in result["photographs"]["about"]


def test_evidence_in_git_is_small_and_without_paths():
    files = sorted((ROOT / "reports" / "evidence").glob("*/*"))
    assert sum(path.stat().st_size for path in files) < LARGEST
    for path in files:
        if path.name != ".lock":
            text = path.read_text(encoding="utf-8")
            packed = json.dumps([line.run.contents for _, line in lines_of(path)])
            for content in (text, packed):
                assert path.suffix == ".jsonl" and not re.search(r'"/|data_root|file:', content), path.name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["20", "--evidence"], "makes notebooks 42, 44 and 90.*20_train_jlml.*reproduce 90 --evidence"),
        (["--evidence"], "makes notebooks 42, 44 and 90"),
        (["90", "--evidence", "--seeds", "3"], "takes all runs from reports/evidence; got --seeds"),
        (["90", "--evidence", "--no-train"], "got --no-train"),
        (
            ["90", "--evidence", "--summary", "--benchmark", "market1501,validation=true"],
            "may show real people",
        ),
    ],
)
def test_evidence_and_other_options(words, message, capsys):
    assert main(["reproduce", *words]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_profile_without_evidence_is_refused_before_work(tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["reproduce", "90", "--evidence", "--profile", "full", "--out", str(out)]) == 2
    assert "holds runs; got none in" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("words", [["90", "--evidence"], []])
def test_damaged_evidence_is_told_before_work(tmp_path, monkeypatch, capsys, words):
    monkeypatch.setattr(files, "evidence", lambda: tmp_path)
    file = evidence.set_folder("quick", "market1501,validation=true") / "jlml.jsonl"
    file.parent.mkdir()
    file.write_text("{")
    assert main(["reproduce", *words, "--out", str(tmp_path / "out")]) == 2
    assert "jlml.jsonl, line 1" in capsys.readouterr().err and not (tmp_path / "out").exists()
