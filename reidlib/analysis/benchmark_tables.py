"""The papers' tables of whole benchmarks: what is printed, and how this suite would score the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from reidlib.analysis import published
from reidlib.data.registry import parse


@dataclass(frozen=True)
class Table:
    """One of the papers' tables, or the half of it that one protocol fills.

    specification: what to read, without a trial, such as ``cuhk03,boxes=detected``. file: in
    ``analysis.published``. keys: columns that choose rows of it, with their values. name: its column with the
    rows' names. columns: measure -> its column. protocol: a title among ``Benchmark.protocols``; None for
    Market-1501's way, with the measures of ``tables.MEASURES``. renamed: rows whose printed names say
    nothing outside their table.
    """

    title: str
    specification: str
    file: str
    columns: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)
    name: str = "method"
    protocol: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def benchmark(self) -> str:
        """The benchmark's name alone."""
        return parse(self.specification)[0]

    def printed(self) -> list[dict[str, str]]:
        """The table's rows as printed; those with nothing in these columns are left out."""
        return [
            {
                "method": self.renamed.get(line[self.name], line[self.name]),
                **{own: line[column] for own, column in self.columns.items()},
            }
            for line in self.lines()
        ]

    def lines(self) -> list[dict[str, str]]:
        """The lines of its file that the table shows, with all that stands in them."""
        return [
            line
            for line in published.table(self.file)
            if all(line[key] == value for key, value in self.keys.items())
            and any(line[column] for column in self.columns.values())
        ]


def notes(tables: Sequence[Table]) -> tuple[str, ...]:
    """What is odd about the rows that these tables show, all of one file."""
    return published.notes(
        tables[0].file, {cell for table in tables for line in table.lines() for cell in line.values()}
    )


def _ranks(prefix: str = "") -> dict[str, str]:
    return {f"R{rank}": f"{prefix}R{rank}" for rank in (1, 5, 10, 20)}


def _cuhk01(test_persons: int, shots: str) -> Table:
    split = {486: "485/486", 100: "871/100"}[test_persons]
    return Table(
        f"CUHK01, {split} identities, {shots} (JLML, Table 7)",
        "cuhk01" if test_persons == 486 else f"cuhk01,test_persons={test_persons}",
        "cuhk01",
        _ranks(f"s{test_persons}_"),
        keys={"setting": shots},
        protocol=shots,
    )


def _pyramid(title: str, specification: str, name: str) -> Table:
    columns = {"R1": "R1", "R5": "R5", "R10": "R10", "mAP (step)": "mAP"}
    return Table(
        f"{title} (Pyramid, Tables 1 to 3)",
        specification,
        "pyramid_details",
        columns,
        keys={"benchmark": name},
        name="source",
        renamed={"paper": "Pyramid", "YouReID": "Pyramid, the authors' second code"},
    )


TABLES = (
    _cuhk01(486, "single-shot"),
    _cuhk01(486, "multi-shot"),
    _cuhk01(100, "single-shot"),
    _cuhk01(100, "multi-shot"),
    Table(
        "CUHK03, 1367/100 identities, labelled boxes, single-shot (JLML, Table 5)",
        "cuhk03", "cuhk03", _ranks("lab_"), protocol="single-shot",
    ),
    Table(
        "CUHK03, 1367/100 identities, detected boxes, single-shot (JLML, Table 5)",
        "cuhk03,boxes=detected", "cuhk03", _ranks("det_"), protocol="single-shot",
    ),
    _pyramid(
        "CUHK03, 767/700 identities, labelled boxes",
        "cuhk03,split=new",
        "CUHK03 (new protocol, labelled)",
    ),
    _pyramid(
        "CUHK03, 767/700 identities, detected boxes",
        "cuhk03,boxes=detected,split=new",
        "CUHK03 (new protocol, detected)",
    ),
    Table(
        "GRID, 125/125 identities and 775 distractors (JLML, Table 9)",
        "grid", "grid", _ranks(), protocol="single-shot",
    ),
    Table(
        "VIPeR, 316/316 identities (JLML, as a survey quotes it)",
        "viper", "viper", _ranks(), protocol="single-shot",
    ),
    Table(
        "Market-1501, single query and multi-query (JLML, Table 6)",
        "market1501",
        "market1501",
        {
            "R1": "SQ_R1",
            "mAP (trapezoid)": "SQ_mAP",
            "MQ R1": "MQ_R1",
            "MQ mAP (trapezoid)": "MQ_mAP",
        },
    ),
    _pyramid("Market-1501, single query", "market1501", "Market-1501"),
    _pyramid("DukeMTMC-reID, single query", "dukemtmc", "DukeMTMC-reID"),
)  # fmt: skip
