"""The papers' printed numbers, their tables and notes."""

import pytest

from reidlib.analysis.benchmark_tables import (
    TABLES,
    lines_of,
    methods_table,
    notes,
    published,
    published_row,
)
from reidlib.analysis.scores import MEASURES
from reidlib.errors import InputError

ROWS = {
    "complexity": 5, "cuhk01": 11, "cuhk03": 9, "grid": 5, "jlml_ablations": 19, "market1501": 5,
    "methods": 11, "pyramid": 2, "pyramid_details": 18, "viper": 1,
}  # fmt: skip


def tables_of(file, *columns):
    """The tables of a file, or those that show one of these columns."""
    return [table for table in TABLES if table.file == file and not {*columns} - {*table.columns.values()}]


def ablation(table, row):
    """A printed row of JLML's ablations in numbers."""
    printed = published_row("jlml_ablations", table=table, row=row)
    return [float(printed[column] or "nan") for column in ("SQ_R1", "SQ_mAP", "MQ_R1", "MQ_mAP")]


@pytest.mark.parametrize(("name", "rows"), ROWS.items())
def test_every_file_is_complete(name, rows):
    lines = published(name)
    assert len(lines) == rows
    assert not any("Unnamed" in column for column in lines)
    assert lines.map(lambda cell: isinstance(cell, str)).all(axis=None)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_every_table_of_a_benchmark_names_columns_of_its_file(table):
    assert {"method", *table.keys, *table.columns.values()} <= set(published(table.file))
    assert set(table.columns) <= set(MEASURES)
    assert len(table.lines)


def test_the_list_of_the_tables_has_a_column_for_each_measure_and_no_other():
    fixed_columns = {"title", "specification", "protocol", "file", "key", "value"}
    assert set(lines_of("benchmark_tables/tables")) - fixed_columns <= set(MEASURES)
    assert fixed_columns <= set(lines_of("benchmark_tables/tables"))


def test_a_row_of_the_ablations():
    assert ablation("loss", "UniLoss full") == [76.1, 52.2, 83.7, 62.8]
    assert ablation("metric", "CRAFT") == pytest.approx([77.9, 56.4, float("nan"), float("nan")], nan_ok=True)


def test_a_row_has_the_same_numbers_in_all_tables():
    full = ablation("loss", "MultiLoss full")
    for table, row in (
        ("shared", "with shared feature"),
        ("sfl", "with SFL"),
        ("metric", "L2"),
        ("parts", "4"),
    ):
        assert ablation(table, row) == full
    main = published_row("market1501", method="JLML")
    assert [float(main[column]) for column in ("SQ_R1", "SQ_mAP", "MQ_R1", "MQ_mAP")] == full
    details = published_row("pyramid_details", source="paper", benchmark="Market-1501")
    short = published_row("pyramid", source="paper")
    assert (details["R1"], details["mAP"]) == (short["market_R1"], short["market_mAP"])


def test_notes_name_misprints():
    texts = notes(tables_of("cuhk03"))
    assert any("impossible for a CMC" in note and note.startswith("XQDA") for note in texts)
    assert any("multi-query result" in note for note in texts)
    assert any("1260/100" in note for note in texts)
    assert texts[-2:] == (
        "DCNN+, S-CNN, X-Corr: Decimals are truncated, not rounded.",
        "XQDA: Decimals are rounded.",
    )
    printed = published_row("cuhk03", method="XQDA")  # kept as printed, without a silent correction
    assert float(printed["lab_R10"]) > float(printed["lab_R20"])
    for line in published("notes").to_dict("records"):
        for row in line["row"].split("; ") if line["table"] and line["row"] else ():
            assert (published(line["table"]) == row).any(axis=None), line


def test_notes_are_about_rows_that_are_shown():
    general = published("notes", table="cuhk03", row="")["note"]
    assert notes(tables_of("cuhk03", "lab_R1")) == (
        *(note for note in notes(tables_of("cuhk03")) if note.startswith("XQDA: As printed")),
        "DCNN+, XQDA: Detected R10 83.5 and R20 93.2 are printed alike for both; "
        "the authors' own curves of XQDA have other numbers.",
        "X-Corr: Detected R5 96.0 is above labelled 95.5, although detected boxes are the harder task.",
        "DGD: 75.3 is for labelled and detected boxes merged.",
        "NSFT: The same method as NFST in other tables. Detected R10 94.8 repeats the labelled R10.",
        *general,
        "DCNN+, X-Corr: Decimals are truncated, not rounded.",
        "XQDA: Decimals are rounded.",
    )
    detected = notes(tables_of("cuhk03", "det_R1"))
    assert not any(note.startswith("DGD") for note in detected)  # printed for labelled boxes alone
    assert set(general) < set(detected)
    assert not any("S-CNN" in note for note in notes(tables_of("grid")))  # which has no row of it


def test_what_is_built_of_each_method_is_looked_up(monkeypatch):
    built = dict(methods_table()[["method", "built here"]].to_numpy())
    assert built["JLML"] == "JLML (models.JLML), L2 (ranking.evaluate)"
    assert built["Pyramid (not on the slide)"].startswith("Pyramid (models.Pyramid)")
    assert built["DGD"] == "L2 (ranking.evaluate); not DGD"
    assert {built[name] for name in ("SCS", "DCNN+", "X-Corr")} == {"not built here"}
    assert built["XQDA"] == "LOMO (descriptors.lomo), XQDA (metric_learning.XQDA)"
    assert built["GOG"] == "GOG (descriptors.gog), XQDA (metric_learning.XQDA)"
    assert built["NFST"] == "LOMO (descriptors.lomo), NSFT (metric_learning.NullSpace); not KCCA"
    # A metric or feature that is added appears by itself.
    monkeypatch.setattr("reidlib.metric_learning.__all__", ["KCCA", "NullSpace"])
    built = dict(methods_table()[["method", "built here"]].to_numpy())
    assert built["XQDA"] == "LOMO (descriptors.lomo); not XQDA"
    assert "KCCA (metric_learning.KCCA)" in built["NFST"]


def test_every_method_of_the_slides_has_what_is_known_of_it():
    assert [*published("notes", table="methods")["row"]] == [*published("methods")["method"]]
    for note in published("notes", table="methods")["note"]:
        assert "Read in" in note or "recalled" in note.lower(), note  # not "the paper says"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: published("prid"), "one of the package's.*'prid'.*cuhk01"),
        (lambda: published_row("grid", method="JLM"), "fits 0 rows"),
        (lambda: published_row("cuhk01", method="JLML"), "fits 2 rows.*setting"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
