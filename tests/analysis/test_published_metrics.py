"""Tables of published and measured scores of learnt metrics, and what notebooks 40 and 42 show of them."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from reidlib import analysis, experiments
from reidlib.analysis import benchmark_runs, benchmark_tables
from reidlib.analysis.claims import published_metrics
from reidlib.experiments.metric_study import published
from reidlib.experiments.metric_study.published import CASES, Measured

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "40_metric_learning.ipynb"
ROWS = [case for case in CASES if case.published]


def measured(case, *rank1, partitions="mine"):
    scores = {rank: tuple(value + rank - 1 for value in rank1) for rank in published.RANKS}
    return Measured(case, partitions, scores, date="2026-11-28")


@pytest.fixture
def kept(monkeypatch):
    """The first row is near its published 40.0, the second far from its 42.3; a choice has two partitions."""
    choice = next(case for case in CASES if case.row == ROWS[0].row and case.choice)
    values = [measured(ROWS[0], 40, 42, 38), measured(ROWS[1], 30, 31, 32), measured(choice, 45, 44)]
    monkeypatch.setattr(published_metrics, "kept", lambda: {each.case: each for each in values})
    return choice


def test_rows_say_what_was_reached(kept):
    table = published_metrics.rows_table().set_index("row")
    assert [*table.index] == [case.row for case in ROWS]
    first, second, third = (table.loc[case.row] for case in ROWS[:3])
    assert first["measured"].mean == pytest.approx(40) and first["partitions"] == "3 published"
    assert (first["reached"], second["reached"], third["reached"]) == ("yes", "no, −11.3", "–")
    assert first["published"] == "40.0" and first["to reach"] == "± 1.5"
    assert "Retinex" in published_metrics.settings_table()["chosen by scores"][0]
    assert published_metrics.summary() == (
        "**Reached:** LOMO + XQDA, VIPeR (40.0: 40.0). **Missed:** LOMO + NFST, VIPeR (42.3: 31.0)."
    )


def test_choices_are_compared_on_the_same_partitions(kept):
    table = published_metrics.choices_table()
    assert len(table) == sum(case.row in {row.row for row in ROWS} for case in CASES)
    line = table[table["choice"] == kept.choice].iloc[0]
    assert line["difference"] == "+3.5"  # 45 and 44 against 40 and 42
    assert (line["measured"], line["partitions"]) == ("44.5", "2")
    assert (table["row"] != "").sum() == len(ROWS) and table.iloc[0]["choice"].startswith(
        "own: LOMO at 128×48"
    )


def test_metrics_stand_beside_each_other_on_a_descriptor(kept, monkeypatch):
    empty = published_metrics.comparison_table()
    assert [*empty["feature"] + " on " + empty["set"]] == ["LOMO on VIPeR"]  # the only one with numbers
    named = {case.row: case for case in CASES if not case.choice}
    fresh = [
        measured(named["LOMO + CRAFT, VIPeR"], 12, 14),
        measured(named["GOG + L2, CUHK01 multi-shot"], 8),
        measured(named["LOMO + XQDA, Market-1501 500/251"], 70),
    ]
    table = published_metrics.comparison_table(fresh).set_index(["feature", "set"])
    assert [*table.columns] == ["L2", "KISSME", "XQDA", "NFST", "CRAFT"]
    line = table.loc["LOMO", "VIPeR"]
    assert (line["XQDA"].mean, line["NFST"].mean, line["CRAFT"].mean) == (40, 31, 13)
    assert line["L2"] == "–"
    assert str(table.loc["GOG", "CUHK01 multi-shot"]["L2"]) == "8.0"
    assert str(table.loc["LOMO", "Market-1501 500/251"]["XQDA"]) == "70.0"


def test_a_fresh_run_stands_beside(kept):
    refused = Measured(ROWS[1], "mine", {}, "too few images")
    table = published_metrics.rows_table([measured(ROWS[0], 50), refused]).set_index("row")
    assert (
        str(table.loc[ROWS[0].row, "this run"]) == "50.0"
        and table.loc[ROWS[1].row, "this run"] == "too few images"
    )
    assert table.loc[ROWS[0].row, "its partitions"] == "1 published"
    assert "its difference" in published_metrics.choices_table([measured(ROWS[0], 50)])


def test_the_papers_tables_show_what_was_measured(kept):
    lines = published_metrics.measured_rows("viper", "single-shot", ["R1", "R5", "mAP (step)"])
    assert [line["method"] for line in lines] == [
        "measured here: LOMO + XQDA (published: 40.0), gallery camera A, partitions: 3 published, "
        "settings partly chosen by these scores (notebook 40)",
        "measured here: LOMO + NFST (published: 42.3), gallery camera A, partitions: 3 published, "
        "settings partly chosen by these scores (notebook 40)",
    ]
    assert lines[0]["R5"].mean == pytest.approx(44) and lines[0].keys() == {"method", "R1", "R5"}
    assert not published_metrics.measured_rows("cuhk01,test_persons=100", "multi-shot", ["R1"])
    tables = {(table.specification, table.protocol): table for table in benchmark_tables.TABLES}
    methods = benchmark_runs.rows_with_own_runs(tables["viper", "single-shot"], ())["method"].tolist()
    assert methods[0] == "JLML" and methods[1:] == [line["method"] for line in lines]


@pytest.mark.parametrize("given", [{}, {"viper": "DIR"}], ids=["without folders", "with folders"])
def test_the_notebook_shows_both_tables(given, tmp_path, monkeypatch):
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    sources = [source for source in cells if "published_metrics." in source]
    fresh = [dataclasses.replace(case) for case in ROWS[:1]]
    monkeypatch.setattr(
        published,
        "measure",
        lambda folders, *_, **__: iter([measured(case, 77) for case in fresh if folders]),
    )
    shown = []
    variables = {
        "experiments": experiments, "display": str, "everything": False, "analysis": analysis,
        "published_metrics": published_metrics,
        "Markdown": lambda text: shown.append(text) or text, "folders": given, "descriptors": ("lomo",),
        "choices": False, "trials": 0, "setup": SimpleNamespace(execution=None),
        "result": SimpleNamespace(out=tmp_path),
    }  # fmt: skip
    for source in sources:
        *before, last = source.rstrip().split("\n")
        exec("\n".join([*before, f"shown_last = {last}"]), variables)
        shown.append(getattr(variables["shown_last"], "to_html", str)())
    rows, _, compared, settings, summary, _, choices = (text.replace("\u00a0", " ") for text in shown)
    assert all(case.row in rows and case.row in choices and case.settings in settings for case in ROWS)
    kept = published.kept()
    for case in ROWS:
        if case in kept:
            mean = f"{sum(kept[case].scores[1]) / len(kept[case].scores[1]):.1f}"
            assert mean in rows and mean in choices and f"{case.row} ({case.published}: {mean})" in summary
    assert ("77.0" in rows and "77.0" in choices and "77.0" in compared) == bool(given)
    assert (tmp_path / "measured.csv").exists() == bool(given)
