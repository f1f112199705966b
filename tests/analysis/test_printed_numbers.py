"""The printed numbers obey what every score obeys; where one does not, a note says so.

Each check yields oddities: (table, row, name of the check). The column ``check`` of ``published/notes.csv``
has the same ones. Notes without a check are about what numbers alone do not show, such as a lost header.
"""

import re
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from itertools import combinations, pairwise
from typing import NamedTuple

from reidlib.analysis.benchmark_tables import published

SLIDES = ("cuhk01", "cuhk03", "grid", "market1501", "viper", "jlml_ablations", "pyramid")
TABLES = (*SLIDES, "pyramid_details")
# Of two columns or rows that differ in this alone, the first is the easier task.
EASIER = (
    ("MQ", "SQ"),  # several images of a query, or one
    ("multi-shot", "single-shot"),
    ("s100", "s486"),  # persons in the gallery
    ("lab", "det"),  # boxes drawn by hand, or by a detector
    ("CUHK03 (new protocol, labelled)", "CUHK03 (new protocol, detected)"),
)
# The same numbers with two decimals, or of the right protocol: the authors' own curves of XQDA; for the
# others a survey of January 2018; for Pyramid weights whose file carries the score of the released code.
XQDA_CURVES = {
    ("cuhk03", "lab"): ("52.20", "82.23", "92.14", "96.25"),
    ("cuhk03", "det"): ("46.25", "78.90", "88.55", "94.25"),
    ("grid", ""): ("16.56", "33.84", "41.84", "52.40"),
}
SECOND = [
    *(
        (table, "XQDA", task, f"R{rank}", value)
        for (table, task), values in XQDA_CURVES.items()
        for rank, value in zip((1, 5, 10, 20), values, strict=True)
    ),
    ("cuhk01", "XQDA", "multi-shot s486", "R1", "63.21"),
    ("cuhk03", "DCNN+", "lab", "R1", "54.74"),
    ("cuhk03", "DCNN+", "det", "R1", "44.96"),
    ("cuhk01", "DCNN+", "single-shot s486", "R1", "47.53"),
    ("cuhk03", "X-Corr", "lab", "R1", "72.43"),
    ("cuhk03", "X-Corr", "det", "R1", "72.04"),
    ("cuhk03", "X-Corr", "det", "R20", "98.26"),
    ("cuhk01", "X-Corr", "single-shot s100", "R1", "81.23"),
    ("cuhk01", "X-Corr", "single-shot s486", "R1", "65.04"),
    ("grid", "X-Corr", "", "R1", "19.20"),
    ("market1501", "S-CNN", "SQ", "R1", "65.88"),
    ("cuhk03", "S-CNN", "det", "R1", "61.8"),
    *(
        ("pyramid_details", line["benchmark"], f"{line['benchmark']} paper", "mAP", line["mAP"])
        for line in published("pyramid_details", method="Pyramid, Klitter's weights").to_dict("records")
    ),
]


class Score(NamedTuple):
    table: str
    row: str  # as a note names it
    method: str
    task: str  # protocol and other words that set a number apart from those of the same method
    measure: str
    text: str

    @property
    def value(self):
        return Decimal(self.text)


def scores():
    for table in TABLES:
        for line in published(table).to_dict("records"):
            method = line.get("method") or line.get("row") or line["source"]
            words = [line.get(name, "") for name in ("table", "setting", "benchmark")]
            words += [line.get("source", "")] if table == "pyramid_details" else []
            row = line["benchmark"] if line.get("source") == "paper" and "benchmark" in line else method
            for column, text in line.items():
                name = re.fullmatch(r"(?:(\w+)_)?(R\d+|mAP)", column)
                if name and text:
                    task = " ".join(filter(None, [*words, name[1]]))
                    yield Score(table, row, method, task, name[2], text)


SCORES = list(scores())
BY_PLACE = {(s.table, s.row, s.task, s.measure): s for s in SCORES}


def columns_of(score):
    """What a row prints for one task: measure -> score."""
    place = score.table, score.method, score.task
    return {other.measure: other for other in SCORES if (other.table, other.method, other.task) == place}


GROUPS = list({tuple(columns_of(score).values()): columns_of(score) for score in SCORES}.values())


def not_a_cmc():
    for group in GROUPS:
        ranked = sorted((s for s in group.values() if s.measure != "mAP"), key=lambda s: int(s.measure[1:]))
        yield from (b for a, b in pairwise(ranked) if a.value > b.value)


def map_above_rank1():
    """No law: a query whose match is second scores 0 and ½. It is rare where a query has several matches."""
    yield from (g["mAP"] for g in GROUPS if {"mAP", "R1"} <= g.keys() and g["mAP"].value > g["R1"].value)


def decimals():
    """One, in what the papers print; elsewhere as many as in the rest of the row."""
    for group in GROUPS:
        numbers = {-s.value.as_tuple().exponent for s in group.values()}
        score = next(iter(group.values()))
        if len(numbers) > 1 or (numbers != {1} and (score.table in SLIDES or score.row != score.method)):
            yield score


def twins():
    """Pairs of an easier and a harder task of a method."""
    for score in SCORES:
        for easy, hard in EASIER:
            if hard in score.task:
                row = easy if score.row == hard else score.row
                other = BY_PLACE.get((score.table, row, score.task.replace(hard, easy), score.measure))
                if other is not None and other.method == score.method:
                    yield other, score


def harder_above_easier():
    yield from (hard for easy, hard in twins() if hard.value > easy.value)


def repeated():
    """A task's number stands for another task, too; or two methods share several numbers, and not all."""
    yield from (hard for easy, hard in twins() if hard.value == easy.value)
    for one, two in combinations(GROUPS, 2):
        a, b = next(iter(one.values())), next(iter(two.values()))
        if (a.table, a.task) == (b.table, b.task):
            equal = {m for m in one.keys() & two.keys() if one[m].value == two[m].value}
            if 1 < len(equal) < len(one):
                yield from (a, b)


def last_decimals():
    """How a number with two decimals became the printed one: truncated, rounded, or neither."""
    for table, row, task, measure, text in SECOND:
        printed = BY_PLACE[table, row, task, measure]
        down, up = (Decimal(text).quantize(Decimal("0.1"), way) for way in (ROUND_DOWN, ROUND_HALF_UP))
        if printed.value not in (down, up):
            yield "second source", printed
        elif down != up:
            yield "truncated" if printed.value == down else "rounded", printed


CHECKS = {
    "cmc": not_a_cmc,
    "mAP above rank-1": map_above_rank1,
    "decimals": decimals,
    "easier": harder_above_easier,
    "repeated": repeated,
}


def oddities():
    for check, find in CHECKS.items():
        yield from ((score.table, score.row, check) for score in find())
    for check, score in last_decimals():
        yield score.table if check == "second source" else "", score.row, check


def test_the_oddities_of_the_printed_numbers_are_those_of_the_notes():
    noted = {
        ("" if check in ("truncated", "rounded") else line["table"], row, check)
        for line in published("notes").to_dict("records")
        for row in line["row"].split("; ")
        for check in line["check"].split("; ")
        if check
    }
    assert set(oddities()) == noted


def test_every_score_is_a_percentage():
    assert len(SCORES) > 200
    assert all(0 < score.value < 100 for score in SCORES)


def test_scores_by_others_are_as_in_their_sources_and_as_pages_say():
    """mAP and rank-1, copied again from issue 1 of PersonReID-Pyramid and the readme of CIL-ReID."""
    lines = published("pyramid_details").to_dict("records")
    by_source = {
        word: [(float(line["mAP"]), float(line["R1"])) for line in lines if line["source"].endswith(word)]
        for word in ("issue 1", "CIL-ReID")
    }
    assert by_source["issue 1"] == [(87.92, 95.3), (78.78, 89.4), (76.64, 88.28), (73.78, 77.36)]
    assert by_source["CIL-ReID"] == [(87.5, 94.86), (12.75, 35.72), (73.14, 79.54), (8.03, 10.42)]
    # Notebooks 21 and 42 say in words how far the user's scores are below the printed ones.
    printed = {line["benchmark"]: Decimal(line["mAP"]) for line in lines if line["source"] == "paper"}
    below = [printed[x["benchmark"]] - Decimal(x["mAP"]) for x in lines if x["source"].endswith("issue 1")]
    assert [round(float(gap), 1) for gap in below] == [0.3, 0.2, 2.4, 1.0]
