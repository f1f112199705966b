"""Printed numbers: one reader, and the tables as they are printed."""

import pytest

from reidlib.analysis import published
from reidlib.errors import InputError

TABLES = {
    "complexity": 5, "cuhk01": 11, "cuhk03": 9, "grid": 5, "jlml_ablations": 19, "market1501": 5,
    "methods": 11, "pyramid": 2, "pyramid_details": 6, "viper": 1,
}  # fmt: skip


@pytest.mark.parametrize(("name", "rows"), TABLES.items())
def test_every_table_is_whole(name, rows):
    lines = published.table(name)
    assert len(lines) == rows
    assert not any("Unnamed" in column for column in lines)
    assert lines.map(lambda cell: isinstance(cell, str)).all(axis=None)


def test_a_row_of_the_ablations():
    assert published.ablation("loss").loc["UniLoss full"].tolist() == [76.1, 52.2, 83.7, 62.8]
    craft = published.ablation("metric").loc["CRAFT"]
    assert craft.tolist()[:2] == [77.9, 56.4]
    assert craft[2:].isna().all()


def test_the_same_row_is_printed_alike_everywhere():
    full = published.ablation("loss").loc["MultiLoss full"].tolist()
    for table, row in (
        ("shared", "with shared feature"),
        ("sfl", "with SFL"),
        ("metric", "L2"),
        ("parts", "4"),
    ):
        assert published.ablation(table).loc[row].tolist() == full
    main = published.row("market1501", method="JLML")
    assert [float(main[column]) for column in ("SQ_R1", "SQ_mAP", "MQ_R1", "MQ_mAP")] == full
    details = published.row("pyramid_details", source="paper", benchmark="Market-1501")
    short = published.row("pyramid", source="paper")
    assert (details["R1"], details["mAP"]) == (short["market_R1"], short["market_mAP"])


def test_oddities_stand_beside():
    notes = published.notes("cuhk03")
    assert any("impossible for a CMC" in note and note.startswith("XQDA") for note in notes)
    assert any("multi-query result" in note for note in notes)
    assert any("1260/100" in note for note in notes)
    assert notes[-2:] == (
        "DCNN+, S-CNN, X-Corr: Decimals are truncated, not rounded.",
        "XQDA: Decimals are rounded.",
    )
    printed = published.row("cuhk03", method="XQDA")  # as printed, not mended in silence
    assert float(printed["lab_R10"]) > float(printed["lab_R20"])
    for line in published.table("notes").to_dict("records"):
        for shown in line["row"].split("; ") if line["table"] and line["row"] else ():
            assert (published.table(line["table"]) == shown).any(axis=None), line


def test_notes_are_about_rows_that_are_shown():
    lines = published.table("notes")
    general = lines["note"][(lines["table"] == "cuhk03") & (lines["row"] == "")]
    assert published.notes("cuhk03", ["DGD", "X-Corr"]) == (
        "DGD: 75.3 is for labelled and detected boxes merged.",
        *general,
        "X-Corr: Decimals are truncated, not rounded.",
    )
    assert not any("S-CNN" in note for note in published.notes("grid"))  # which has no row of it


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: published.table("prid"), "one of the package's.*'prid'.*cuhk01"),
        (lambda: published.row("grid", method="JLM"), "fits 0 rows"),
        (lambda: published.row("cuhk01", method="JLML"), "fits 2 rows.*setting"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
