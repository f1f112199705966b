"""The papers' ablations: which rows stand in a table, against which baseline, and what the paper printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reidlib.analysis import published
from reidlib.analysis import scores as tables
from reidlib.analysis.evidence import Cell, Evidence
from reidlib.analysis.statistics import Interval, signed
from reidlib.errors import InputError


class Row(NamedTuple):
    """A row of an ablation's table."""

    cell: Cell
    printed: str = ""  # its name in the paper's table; "": the paper's number is not known
    about: str = ""  # what differs, in words


@dataclass(frozen=True)
class Ablation:
    """One table: rows by label, and the row to which the others are compared.

    table: the paper's, in ``published/jlml_ablations.csv``. average_precision: the rule of the paper's
    numbers. Raises InputError for a baseline that is no row.
    """

    heading: str
    rows: Mapping[str, Row]
    baseline: str
    average_precision: Literal["step", "trapezoid"]
    table: str = ""

    def __post_init__(self):
        if self.baseline not in self.rows:
            raise InputError("the baseline is one of the rows", repr(self.baseline), "name one of them")

    @property
    def experiments(self) -> tuple[str, ...]:
        """The trainings behind the rows, each once."""
        return tuple(dict.fromkeys(row.cell.experiment for row in self.rows.values()))

    @property
    def cells(self) -> dict[str, Cell]:
        return {label: row.cell for label, row in self.rows.items()}

    @property
    def compared(self) -> tuple[str, str]:
        """The measures of the differences."""
        return ("R1", f"mAP ({self.average_precision})")

    @property
    def measures(self) -> tuple[str, ...]:
        return (*self.compared, *(f"MQ {name}" for name in self.compared))

    def printed(self, label: str) -> published.Scores | None:
        """The paper's numbers for a row."""
        name = self.rows[label].printed
        return published.market1501(self.table, name) if name else None

    def printed_difference(self, label: str) -> tuple[float, float] | None:
        """What the paper's row has more than its baseline in rank-1 and mAP (single query), in points."""
        row, base = self.printed(label), self.printed(self.baseline)
        if row is None or base is None or None in (*row[:2], *base[:2]):
            return None
        return row.rank1 - base.rank1, row.mean_average_precision - base.mean_average_precision


def _jlml(rows: dict[str, tuple], **settings) -> Ablation:
    return Ablation(
        rows={label: Row(Cell(*cell), printed, about) for label, (cell, printed, about) in rows.items()},
        average_precision="trapezoid",
        **settings,
    )


LOSSES = _jlml(
    {
        "UniLoss, global": (
            ("jlml-uniloss", "global"),
            "UniLoss global",
            "tested by the global feature alone",
        ),
        "UniLoss, local": (("jlml-uniloss", "local"), "UniLoss local", "tested by the local feature alone"),
        "UniLoss, full": (("jlml-uniloss",), "UniLoss full", "one classifier on the joined feature"),
        "MultiLoss, global": (("jlml", "global"), "MultiLoss global", "tested by the global feature alone"),
        "MultiLoss, local": (("jlml", "local"), "MultiLoss local", "tested by the local feature alone"),
        "MultiLoss, full": (("jlml",), "MultiLoss full", "a classifier for each branch"),
    },
    heading="training and feature",
    baseline="UniLoss, full",
    table="loss",
)
SHARED_FEATURES = _jlml(
    {
        "without shared features": (
            ("jlml-separate",), "without shared feature", "each branch has low-level layers of its own"),
        "with shared features": (
            ("jlml",), "with shared feature", "both branches on the same low-level layers"),
    },
    heading="low-level layers",
    baseline="without shared features",
    table="shared",
)  # fmt: skip
FEATURE_SELECTION = _jlml(
    {
        "without": (("jlml-sfl-off",), "without SFL", "λ = 0"),
        "with": (("jlml",), "with SFL", "λ = 0.0005, the paper's"),
        "with, λ × 10": (("jlml-sfl-x10",), "", "λ = 0.005"),
        "with, λ × 100": (("jlml-sfl-x100",), "", "λ = 0.05"),
        "without, no batch norm": (("jlml-no-norm-sfl-off",), "", "λ = 0, no norm behind the features"),
        "with, no batch norm": (("jlml-no-norm",), "", "λ = 0.0005, no norm behind the features"),
    },
    heading="selective feature learning",
    baseline="without",
    table="sfl",
)
PART_COUNTS = _jlml(
    {
        f"{parts} parts": ((f"jlml-{parts}" if parts != 4 else "jlml",), str(parts), f"{parts} local streams")
        for parts in (2, 4, 6, 8, 10)
    },
    heading="parts",
    baseline="4 parts",
    table="parts",
)
DYNAMIC_TRAINING = Ablation(
    "training",
    {
        "plain sum": Row(Cell("pyramid-off"), about="identity + triplet, always balanced batches"),
        "paper": Row(
            Cell("pyramid"), about="identity + triplet × weight up to 1, or identity on random batches"
        ),
        "paper, literal": Row(Cell("pyramid-literal"), about="as paper, both losses × their focal weights"),
        "official": Row(Cell("pyramid-official"), about="identity + triplet, or identity; balanced batches"),
        "identity alone": Row(Cell("pyramid-identity"), about="identity, always random batches"),
    },
    "plain sum",
    "step",
)
_STRIPES, _BODY, _ALL = "6 stripes, level 1 only", "whole body only", "6 stripes, all levels"
PYRAMID_LEVELS = Ablation(
    "parts",
    {
        _BODY: Row(Cell("pyramid-global")),
        _STRIPES: Row(Cell("pyramid-stripes")),
        "2 stripes, all levels": Row(Cell("pyramid-2")),
        "3 stripes, all levels": Row(Cell("pyramid-3")),
        "4 stripes, all levels": Row(Cell("pyramid-4")),
        _ALL: Row(Cell("pyramid")),
    },
    _ALL,
    "step",
)
PYRAMID_LEVELS_SAME_RATE = Ablation(
    "parts",
    {
        f"{_BODY}, same rate": Row(Cell("pyramid-global-same-rate")),
        f"{_STRIPES}, same rate": Row(Cell("pyramid-stripes-same-rate")),
        _ALL: Row(Cell("pyramid")),
    },
    _ALL,
    "step",
)


# Models whose parts see ever less of what the others see as the boxes get worse. All compare by one feature.
MISALIGNMENT = {
    "JLML": Cell("jlml"),
    "Pyramid": Cell("pyramid"),
    "Pyramid, single stripes alone": Cell("pyramid-stripes"),
    "Pyramid, whole body alone": Cell("pyramid-global"),
}


def description_rows(ablation: Ablation) -> list[dict[str, str]]:
    """The rows before anything is trained: label, experiment, branch, what differs."""
    return [
        {
            ablation.heading: label,
            "experiment": row.cell.experiment,
            "feature": row.cell.branch,
            "what differs": row.about,
        }
        for label, row in ablation.rows.items()
    ]


def score_rows(ablation: Ablation, evidence: Evidence) -> list[dict[str, str]]:
    """Scores of all rows, single query and, where the benchmark has boxes for it, multi-query (by the mean).

    Mean ± half the 95 % interval over the seeds; the paper's row beside, where it is known.
    """
    found = tables.score_rows(
        evidence.groups(ablation.cells), heading=ablation.heading, measures=ablation.measures
    )
    for line in found:
        if ablation.table:
            printed = ablation.printed(line[ablation.heading]) or (None,) * 4
            line["paper: R1 / mAP"], line["paper: MQ"] = _pair(*printed[:2]), _pair(*printed[2:])
    return found


def _pair(rank1: float | None, precision: float | None) -> str:
    return "" if rank1 is None or precision is None else f"{rank1:.1f} / {precision:.1f}"


def differences(ablation: Ablation, evidence: Evidence) -> dict[str, dict[str, Interval | None]]:
    """Row -> measure -> difference to the baseline row, with its interval (see ``tables.difference``)."""
    return tables.differences(evidence.groups(ablation.cells), ablation.baseline, ablation.compared)


def difference_rows(ablation: Ablation, evidence: Evidence) -> list[dict[str, str]]:
    """The differences as a table, the paper's beside."""
    found = []
    for label, cells in differences(ablation, evidence).items():
        line = {f"{ablation.heading}, against {ablation.baseline}": label}
        line |= {f"Δ {name} [95 %]": str(cell or tables.MISSING) for name, cell in cells.items()}
        if ablation.table:
            printed = ablation.printed_difference(label)
            line["paper: Δ R1 / Δ mAP"] = " / ".join(map(signed, printed)) if printed else ""
        found.append(line)
    return found


def report_rows(ablation: Ablation, evidence: Evidence) -> list[dict[str, str]]:
    """Scores and differences in one table, for the report."""
    heading = f"{ablation.heading}, against {ablation.baseline}"
    apart = {line.pop(heading): line for line in difference_rows(ablation, evidence)}
    baseline = dict.fromkeys(next(iter(apart.values())), "") | dict.fromkeys(
        [f"Δ {name} [95 %]" for name in ablation.compared], "baseline"
    )
    rows = score_rows(ablation, evidence)
    return [line | apart.get(line[ablation.heading], baseline) for line in rows]


def panels(ablation: Ablation, evidence: Evidence) -> tuple[dict, dict]:
    """For ``figures.scores.differences``: measure -> row -> interval here, and the paper's difference."""
    found = differences(ablation, evidence)
    here = {name: {label: cells[name] for label, cells in found.items()} for name in ablation.compared}
    printed = {label: ablation.printed_difference(label) for label in found}
    beside = {
        name: {label: values[place] for label, values in printed.items() if values}
        for place, name in enumerate(ablation.compared)
    }
    return here, beside


def readings(ablation: Ablation, evidence: Evidence) -> list[str]:
    """A sentence for each row: which way it differs from the baseline here, and whether the paper agrees.

    The direction is that of mAP, and it counts only where its interval is clear of nought.
    """
    sentences = []
    for label, cells in differences(ablation, evidence).items():
        rank1, precision = cells.values()
        if precision is None:
            sentences.append(f"**{label}**: missing here.")
            continue
        verb = (
            "cannot be told from" if not precision.clear else "is above" if precision.mean > 0 else "is below"
        )
        sentence = f"**{label}** {verb} *{ablation.baseline}*: mAP {precision}, rank-1 {rank1} points"
        if printed := ablation.printed_difference(label):
            sentence += f"; the paper: mAP {signed(printed[1])}, rank-1 {signed(printed[0])}"
            agree = (
                "the paper's direction holds here"
                if precision.mean * printed[1] > 0
                else "it is reversed here"
            )
            sentence += f", so **{agree if precision.clear else 'its direction is not decided here'}**"
        sentences.append(sentence + ".")
    return sentences


def seeds_in_words(evidence: Evidence) -> str:
    """How many seeds there are of the rows: "one seed", "3 seeds", "1 to 3 seeds" or "no runs"."""
    counts = sorted(evidence.counts)
    if counts[-1] == 0:
        return "no runs"
    if counts[0] != counts[-1]:
        return f"{counts[0]} to {counts[-1]} seeds"
    return "one seed" if counts[0] == 1 else f"{counts[0]} seeds"


def basis(evidence: Evidence) -> str:
    """On what the intervals of a page stand, in words."""
    words, alone = seeds_in_words(evidence), "over queries alone, and say nothing about other trainings"
    most = max(evidence.counts)
    if most == 0:
        return words
    if most == 1:
        return f"{words}: the intervals are {alone} of the same rows"
    if min(evidence.counts) < most:
        return (
            f"{words}: an interval is over the seeds that both rows have and over queries; from one, {alone}"
        )
    few = "; two seeds tell almost nothing, three or more are wanted" if most == 2 else ""
    return f"{words}: the intervals are over seeds and queries{few}"
