"""The summaries that are kept in git: the claims from evidence, and what a whole report's notebooks found."""

import errno
import json
import re
import shutil

import nbformat
import pytest
from miniature import write_image

from reidlib.cli import main
from reidlib.errors import InputError
from reidlib.reports.pages.index import facts, read_heading
from reidlib.reports.pages.summary import summary_markdown, write_summary

TRAINED = {
    "experiment": "jlml",
    "seed": 0,
    "run": "jlml-1",
    "device": "a GPU",
    "seconds": 90.0,
    "commit": "abc",
}
LOST = {"experiment": "jlml", "seed": 1, "missing": "out of memory"}


def notebook(out, name, *, state="done", figures=(), **result):
    folder = out / name
    folder.mkdir(parents=True)
    status = {"state": state, "profile": "quick", "duration": 65.0, "started": "2026-01-02T03:04:05+00:00"}
    status["command"] = "reidlib reproduce 90" if name.startswith("90") else "reidlib reproduce --seeds 2"
    status["error"] = "ValueError: <b>" if state == "failed" else None
    (folder / "status.json").write_text(json.dumps(status))
    for file, *_ in figures:
        (folder / file).write_bytes(b"picture")
    result = {
        "figures": [
            {"file": file, "caption": f"Caption of {file}", "alt": "a picture", "summary": marked}
            for file, marked in figures
        ],
        "seeds": [0, 1],
        "device": "two cores",
        "commit": "abc",
        **result,
    }
    (folder / "result.json").write_text(json.dumps(result))
    first = nbformat.v4.new_markdown_cell(
        f"# About {name}\n\n**Question.** Does it\n*work*?\n\n**In:** nothing."
    )
    nbformat.write(nbformat.v4.new_notebook(cells=[first]), folder / "notebook.ipynb")


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "quick"
    scores = [{"row": "with | bar", "R1": "80.0 ± 1.0"}, {"row": "without", "R1": "missing", "paper": "83.2"}]
    notebook(
        folder,
        "30_one",
        scores=scores,
        runs=[TRAINED, LOST],
        figures=[("a b.png", True), ("unmarked.png", False)],
        headline={"<b>R1</b>": "80.0"},
    )
    ledger = [{"claim": "It helps.", "verdict": "? undecided here: missing"}]
    notebook(folder, "90_ledger", ledger=ledger, scores=ledger, runs=[TRAINED], figures=[("l.png", True)])
    notebook(folder, "95_lost", state="failed", scores=[{"row": "never shown"}], figures=[("x.png", True)])
    return folder


def change_parameters(out, name, **parameters):
    path = out / name / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parameters": parameters}))


@pytest.fixture
def of_evidence(out):
    """The report that notebook 90 alone makes from evidence."""
    for name in ("30_one", "95_lost"):
        shutil.rmtree(out / name)
    change_parameters(out, "90_ledger", evidence=True)
    return out


def test_the_summary_begins_with_how_the_report_was_made(out):
    head = summary_markdown(out).partition("## ")[0]
    assert head.startswith("# The notebooks: profile `quick`, up to 2 seeds\n\nWhat the notebooks found")
    assert "- Command: `reidlib reproduce --seeds 2`\n" in head
    assert "no number here is a score on a real" in head
    assert "Trainings: 1, 1:30 of training together, on a GPU; commit abc\n" in head  # once
    assert "**Missing**: jlml: seed 1\n" in head
    assert "two cores" not in head  # the device is that of the trainings


def test_devices_whose_names_have_commas_stay_apart(out):
    path = out / "30_one" / "result.json"
    result = json.loads(path.read_text())
    result["runs"] = [TRAINED | {"run": f"jlml-{seed}", "device": f"cpu, {seed} threads"} for seed in (2, 3)]
    path.write_text(json.dumps(result))
    assert "together, on cpu, 2 threads; cpu, 3 threads; commit" in summary_markdown(out)
    rows = [{"status": {}, "result": {"device": device}} for device in ("cpu, a", "cpu, a; cpu, b", None)]
    assert facts(rows)["device"] == "cpu, a; cpu, b"


def test_missing_seeds_are_named_once_for_rows_with_the_same(out):
    path = out / "30_one" / "result.json"
    result = json.loads(path.read_text())
    lost = [("jlml", 4), ("a", 4), ("jlml", 3), ("a", 3), ("b", 4), ("b", 4)]
    result["runs"] = [LOST | {"experiment": row, "seed": seed} for row, seed in lost]
    path.write_text(json.dumps(result))
    assert "- **Missing**: a, jlml: seeds 3, 4; b: seed 4\n" in summary_markdown(out)


def test_several_commands_are_named_with_their_notebooks(out):
    path = out / "95_lost" / "status.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"command": "reidlib reproduce 95"}))
    text = summary_markdown(out)
    assert "- Command: `reidlib reproduce --seeds 2` (notebooks 30)\n" in text
    assert "- Command: `reidlib reproduce 95` (notebooks 95)\n" in text


def test_claims_stand_in_the_summary_from_evidence_alone(out, tmp_path):
    folder = tmp_path / "reports"
    whole = write_summary(out, folder)
    assert whole.name == "notebooks.md"
    assert "It helps." not in whole.read_text() and "90_ledger" not in whole.read_text()
    shutil.rmtree(out / "30_one")
    shutil.rmtree(out / "95_lost")
    with pytest.raises(InputError, match=r"made from evidence.*reidlib evidence add FOLDER"):
        write_summary(out, folder)
    change_parameters(out, "90_ledger", evidence=True)
    claims = write_summary(out, folder)
    assert claims.name == "README.md" and "It helps." in claims.read_text()
    assert {path.name for path in folder.iterdir()} == {"README.md", "notebooks.md", "figures"}
    # Each leaves the figures of the other in place.
    assert {path.name for path in (folder / "figures").iterdir()} == {"30_one-a-b.png", "90_ledger-l.png"}
    for text in (whole.read_text(), claims.read_text()):
        links = set(re.findall(r"\]\((\w+\.md)\)", text))
        assert links and all((folder / link).is_file() for link in links)


def test_a_summary_of_the_claims_on_other_runs_is_refused_before_work(tmp_path, capsys):
    assert main(["reproduce", "90", "--summary", "--out", str(tmp_path / "out")]) == 2
    assert "got notebook 90 alone, on runs of this machine" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_tables_of_a_report(out):
    text = summary_markdown(out)
    assert text.index("a-b.png") < text.index("## 30 · About")
    assert "| with \\| bar | 80.0 ± 1.0 |  |" in text
    assert "| without | missing | 83.2 |" in text
    assert "Does it \\*work\\*? ([notebook 30](../notebooks/30_one.ipynb))" in text
    assert "&lt;b&gt;R1&lt;/b&gt;: 80.0" in text


def test_the_ledger_is_above_all_tables(of_evidence):
    text = summary_markdown(of_evidence)
    places = [
        text.index(words) for words in ("## The ledger of claims", "It helps.", "l.png", "## 90 · About")
    ]
    assert places == sorted(places)


def test_the_lesson_and_its_figure_open_the_summary_before_photographs(of_evidence, tmp_path):
    out = of_evidence
    path = out / "90_ledger" / "result.json"
    result = json.loads(path.read_text())
    (out / "90_ledger" / "seeds.png").write_bytes(b"picture")
    caption = {"caption": "Caption of seeds.png", "alt": "bars", "summary": True}
    result["figures"].append({"file": "seeds.png", **caption})
    photographs = {"about": "Set: photographs.", "rows": [{"row": "jlml", "R1": "63.1"}]}
    lesson = {"title": "One run misleads in 40 % of cases", "text": "- **Rendered people**: 40 %."}
    for fields, order in (
        ({}, ["- Command", "## The ledger", "l.png", "seeds.png"]),
        ({"photographs": photographs}, ["## Scores on photographs", "## How this page", "- Command"]),
        ({"lesson": lesson}, ["## One run", "- **Ren", "## How this page", "- Command", "seeds.png"]),
        (
            {"lesson": lesson | {"figure": "seeds.png"}, "photographs": photographs},
            ["## One run misleads in 40 % of cases", "- **Rendered people**: 40 %.", "![bars](figures/90",
             "Caption of seeds.png ([notebook 90]", "## Scores on photographs", "Set: photographs.",
             "| 63.1 |", "## How this page was made", "- Command", "## The ledger", "l.png", "## 90 ·"],
        ),
    ):  # fmt: skip
        path.write_text(json.dumps(result | fields))
        text = write_summary(out, tmp_path / "reports").read_text()
        assert (tmp_path / "reports" / "figures" / "90_ledger-seeds.png").is_file()
        places = [text.index(words) for words in order]
        assert places == sorted(places), (fields, text)
        assert text.count("](figures/90_ledger-seeds.png)") == 1
        assert text.count("## How this page was made") == bool(fields)
        assert "\n\n\n" not in text


def test_a_failed_notebook_shows_its_error_and_none_of_its_scores(out):
    text = summary_markdown(out)
    assert "✗ failed" in text and "ValueError: &lt;b&gt;" in text
    assert "never shown" not in text and "x.png" not in text


def test_only_marked_figures_of_bounded_size_are_copied(out, tmp_path):
    folder = tmp_path / "reports"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "30_one-scores.png").write_bytes(b"")
    (folder / "figures" / "drawing.svg").write_bytes(b"")
    assert write_summary(out, folder).read_text() == summary_markdown(out)
    names = {path.name for path in (folder / "figures").iterdir()}
    # The figure of an earlier summary is gone, another file stays.
    assert names == {"30_one-a-b.png", "drawing.svg"}
    # So does a figure that the other summary shows: a notebook may be in both, as 42 is.
    (folder / "figures" / "30_one-scores.png").write_bytes(b"")
    (folder / "README.md").write_text("![bars](figures/30_one-scores.png)")
    write_summary(out, folder)
    assert (folder / "figures" / "30_one-scores.png").exists()
    (out / "30_one" / "a b.png").write_bytes(bytes(300_000))
    assert "a-b.png" not in summary_markdown(out)


def test_a_report_on_other_images_has_no_summary(out, tmp_path):
    folder = tmp_path / "reports"
    write_summary(out, folder)
    assert "The pictures show rendered people only: `--summary`" in (folder / "notebooks.md").read_text()
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    change_parameters(out, "30_one", benchmark="market1501,validation=true", data_root="photographs")
    with pytest.raises(InputError, match=r"may show real people; got 30_one on market1501,validation=true"):
        write_summary(out, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before


def test_a_real_report_on_a_folder_of_images_has_its_names_and_no_summary(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    for person in range(12):
        for camera in "ab":
            place = tmp_path / "own" / "train" / f"p{person}" / camera
            place.mkdir(parents=True)
            for image in range(4):
                write_image(place / f"{image}.jpg", (64, 32), seed=100 * person + image)
    data = ["--benchmark", "folder,validation=true", "--data-root", str(tmp_path / "own")]
    command = ["reproduce", "20", "--profile", "smoke", "--device", "cpu", *data]
    assert main([*command, "--summary"]) == 2
    assert "may show real people; got the report on folder,validation=true" in capsys.readouterr().err
    assert not (tmp_path / "home" / "runs").exists()  # refused before the training
    assert main(command) == 0
    out = tmp_path / "home" / "smoke-folder,validation=true"
    result = json.loads((out / "20_train_jlml" / "result.json").read_text())
    # A score on validation persons is never called one of the benchmark.
    assert {row["feature"].partition(", ")[2] for row in result["scores"][:3]} == {"folder,validation=true"}
    assert any(figure["summary"] and figure["file"].endswith(".jpg") for figure in result["figures"])
    with pytest.raises(InputError, match="may show real people"):
        write_summary(out, tmp_path / "reports")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize("given", [{"folders": {"viper": "photographs"}}, {"run": "run on photographs"}])
def test_a_notebook_with_other_images_gives_its_charts_alone(out, tmp_path, given):
    for name in ("photo.jpg", "chart.png"):
        (out / "30_one" / name).write_bytes(b"picture")
    path = out / "30_one" / "result.json"
    figures = [
        {"file": name, "caption": name, "alt": name, "summary": True} for name in ("photo.jpg", "chart.png")
    ]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"figures": figures}))
    for parameters, expected in (({}, {"photo.jpg", "chart.png"}), (given, {"chart.png"})):
        change_parameters(out, "30_one", benchmark="synthetic", **parameters)
        write_summary(out, tmp_path / "reports")
        copied = {path.name for path in (tmp_path / "reports" / "figures").glob("30_one*")}
        assert copied == {f"30_one-{name}" for name in expected}


def test_a_figure_is_copied_completely_or_not_at_all(out, tmp_path, monkeypatch):
    write_summary(out, tmp_path / "reports")
    files = {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*.*")}

    def copy_half(source, target):
        target.write_bytes(source.read_bytes()[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", copy_half)
    with pytest.raises(InputError, match="No space left on device; free some disk space"):
        write_summary(out, tmp_path / "reports")
    assert {path: path.read_bytes() for path in (tmp_path / "reports").rglob("*.*")} == files


def test_without_a_report_there_is_no_summary(tmp_path):
    with pytest.raises(InputError, match=r"made from a report.*reidlib reproduce"):
        summary_markdown(tmp_path)


def test_title_and_question_are_those_of_the_first_text_cell(tmp_path):
    notice = nbformat.v4.new_markdown_cell("# failed", metadata={"tags": ["papermill-error-cell-tag"]})
    first = nbformat.v4.new_markdown_cell("# One\n\n**Question.** Which is\nit?\n\n**In:** x.")
    later = nbformat.v4.new_markdown_cell("# Later\n\n**Question.** Not this.")
    path = tmp_path / "notebook.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[notice, first, later]), path)
    assert read_heading(path) == ("One", "Which is it?")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    assert read_heading(path) == ("", "")
    assert read_heading(tmp_path / "none.ipynb") == ("", "")
