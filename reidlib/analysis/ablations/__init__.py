"""The papers' ablations: the rows of each table, its baseline, and the paper's printed numbers.

``ablations.csv`` holds the rows. Its columns are the ablation, the row's label, experiment and branch, the
name of the paper's row (empty if none is at hand), and what differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from reidlib.analysis.ablations.traces import trace, triplet_in_use
from reidlib.analysis.benchmark_tables import lines_of, published_row
from reidlib.analysis.scores import Cell, ExperimentScores
from reidlib.analysis.statistics import format_difference
from reidlib.errors import check_choice
from reidlib.experiments.setup import MissingRun, Setup
from reidlib.training.config import RunConfiguration
from reidlib.training.runs import Run


@dataclass(frozen=True, eq=False)
class Ablation:
    """One ablation table: its rows, and the baseline to which the other rows are compared.

    Attributes:
        heading: Name of the column of labels.
        rows: Lines of ``ablations.csv``, indexed by label.
        baseline: Label of the baseline row.
        average_precision: Rule of mAP: "trapezoid" (recalled of JLML) or "step" (Pyramid's released code).
        table: The paper's table in ``published/jlml_ablations.csv``; empty if none is at hand.

    Raises:
        InputError: If the baseline is not the label of a row.
    """

    heading: str
    rows: pd.DataFrame
    baseline: str
    average_precision: Literal["step", "trapezoid"]
    table: str = ""

    def __post_init__(self):
        check_choice("the baseline is one of the rows", self.baseline, self.rows.index)

    @property
    def experiments(self) -> tuple[str, ...]:
        """The experiments behind the rows, each once."""
        return tuple(self.rows["experiment"].unique())

    @property
    def cells(self) -> dict[str, Cell]:
        """Label -> experiment and branch of the row."""
        addresses = self.rows[["experiment", "branch"]].itertuples(name=None)
        return {label: Cell(experiment, branch) for label, experiment, branch in addresses}

    def configurations(self, setup: Setup) -> dict[str, RunConfiguration]:
        """Return the configuration of each row's training, by its label."""
        return {label: setup.configuration(cell.experiment) for label, cell in self.cells.items()}

    def with_sizes(self, parameters: Mapping[str, int]) -> Ablation:
        """Return the same table with each row's number of parameters in its label, in millions."""
        labels = {row: f"{row} ({number / 1e6:.2f} M)" for row, number in parameters.items()}
        return replace(self, rows=self.rows.rename(index=labels), baseline=labels[self.baseline])

    @property
    def compared_measures(self) -> tuple[str, str]:
        """The measures whose differences to the baseline are estimated: rank-1 and mAP."""
        return ("R1", f"mAP ({self.average_precision})")

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures of the score table: rank-1 and mAP, single query and multi-query."""
        return (*self.compared_measures, *(f"MQ {name}" for name in self.compared_measures))

    @property
    def printed_scores(self) -> pd.DataFrame:
        """The paper's numbers in per cent: a line per row, a column per measure; NaN if not known."""
        columns = ["SQ_R1", "SQ_mAP", "MQ_R1", "MQ_mAP"]
        lines = [
            published_row("jlml_ablations", table=self.table, row=row) if row else {}
            for row in self.rows["printed"]
        ]
        scores = pd.DataFrame(lines, self.rows.index, columns).replace("", "nan").astype(float)
        return scores.set_axis(list(self.measures), axis="columns")

    @property
    def printed_differences(self) -> pd.DataFrame:
        """The paper's rows minus its baseline, in points, for the compared measures."""
        printed = self.printed_scores[list(self.compared_measures)]
        return (printed - printed.loc[self.baseline]).drop(self.baseline)


def _ablation(name: str, heading: str, baseline: str, table: str = "") -> Ablation:
    """Read an ablation's rows from ``ablations.csv``."""
    lines = lines_of("ablations/ablations")
    rows = lines[lines["ablation"] == name].set_index("row")
    # We recall that JLML prints mAP by Market-1501's official rule (trapezoid).
    return Ablation(heading, rows, baseline, "trapezoid" if table else "step", table)


LOSSES = _ablation("losses", "training and feature", "UniLoss, full", "loss")
SHARED_FEATURES = _ablation("shared features", "low-level layers", "without shared features", "shared")
FEATURE_SELECTION = _ablation("feature selection", "selective feature learning", "without", "sfl")
PART_COUNTS = _ablation("part counts", "parts", "4 parts", "parts")
# Those whose numbers JLML prints.
PRINTED = (LOSSES, SHARED_FEATURES, FEATURE_SELECTION, PART_COUNTS)
DYNAMIC_TRAINING = _ablation("dynamic training", "training", "plain sum")
PYRAMID_LEVELS = _ablation("pyramid levels", "parts", "6 stripes, all levels")
PYRAMID_LEVELS_SAME_RATE = _ablation("pyramid levels, same rate", "parts", "6 stripes, all levels")

# Networks whose parts share less and less image content as the boxes get worse. All compare the full feature.
MISALIGNMENT = {
    "JLML": Cell("jlml"),
    "Pyramid": Cell("pyramid"),
    "Pyramid, single stripes alone": Cell("pyramid-stripes"),
    "Pyramid, whole body alone": Cell("pyramid-global"),
}


def description_table(ablation: Ablation) -> pd.DataFrame:
    """Describe an ablation's rows before anything is trained.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.

    Returns:
        A table with a line for each row: label, "experiment", "feature" (the branch) and "what differs".
    """
    rows = ablation.rows[["experiment", "branch", "about"]].reset_index()
    return rows.set_axis([ablation.heading, "experiment", "feature", "what differs"], axis="columns")


def score_table(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Return the scores of all rows, with the paper's numbers beside them.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.
        scores: Scores of the ablation's experiments.

    Returns:
        A table with a line for each row. Rank-1 and mAP are a ``Spread`` in per cent: the mean, and half its
        95 % interval over the seeds. Multi-query columns (boxes pooled by their mean) appear if the benchmark
        has boxes for it, and the paper's columns if it prints this table.
    """
    table = scores.table(ablation.cells, ablation.measures, heading=ablation.heading)
    if ablation.table:
        table["paper: R1 / mAP"] = _pair_texts(ablation.printed_scores.iloc[:, :2], "{:.1f}".format)
        table["paper: MQ"] = _pair_texts(ablation.printed_scores.iloc[:, 2:], "{:.1f}".format)
    return table


def _pair_texts(printed: pd.DataFrame, write: Callable[[float], str]) -> list[str]:
    """Write rank-1 and mAP of each row into one cell; the cell is empty if one of them is not known."""
    pairs = printed.itertuples(index=False, name=None)
    return ["" if math.isnan(sum(pair)) else " / ".join(map(write, pair)) for pair in pairs]


def baseline_differences(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Return the difference of each row to the baseline.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.
        scores: Scores of the ablation's experiments.

    Returns:
        A table with a line for each row except the baseline and a column for each compared measure; each
        entry is an ``Interval`` in points, or None if a run is missing.
    """
    return scores.differences(ablation.cells, ablation.baseline, ablation.compared_measures)


def difference_table(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Return the differences to the baseline as a table to show, with the paper's beside them.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.
        scores: Scores of the ablation's experiments.

    Returns:
        The table of ``baseline_differences`` with the labels in its first column.
    """
    table = _differences_beside_printed(ablation, scores)
    return table.rename_axis(f"{ablation.heading}, against {ablation.baseline}").reset_index()


def report_table(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Return scores and differences to the baseline in one table, for the report.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.
        scores: Scores of the ablation's experiments.

    Returns:
        ``score_table`` with the columns of ``difference_table``.
    """
    differences = _differences_beside_printed(ablation, scores)
    baseline_line = ["" if name.startswith("paper") else "baseline" for name in differences]
    differences.loc[ablation.baseline] = baseline_line
    return score_table(ablation, scores).join(differences, on=ablation.heading)


def _differences_beside_printed(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    table = baseline_differences(ablation, scores).rename(columns="Δ {} [95 %]".format)
    if ablation.table:
        table["paper: Δ R1 / Δ mAP"] = _pair_texts(ablation.printed_differences, format_difference)
    return table


def difference_panels(ablation: Ablation, scores: ExperimentScores) -> tuple[dict, dict]:
    """Return the arguments of ``visual.figures.scores.difference_plot``.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.
        scores: Scores of the ablation's experiments.

    Returns:
        Two mappings from measure to row: to the measured ``Interval`` (None if a run is missing), and to the
        paper's difference, if it is known. All differences are to the baseline, in points.
    """
    printed = {name: column.dropna().to_dict() for name, column in ablation.printed_differences.items()}
    return baseline_differences(ablation, scores).to_dict(), printed


def difference_sentences(ablation: Ablation, scores: ExperimentScores) -> list[str]:
    """Say for each row how it compares to the baseline, and whether that agrees with the paper.

    The direction is that of mAP. It counts only if the interval excludes zero.

    Args:
        ablation: The ablation, such as ``ablations.LOSSES``.
        scores: Scores of the ablation's experiments.

    Returns:
        A sentence in Markdown for each row except the baseline.
    """
    sentences = []
    printed = ablation.printed_differences
    for label, rank1, precision in baseline_differences(ablation, scores).itertuples(name=None):
        if precision is None:
            sentences.append(f"**{label}**: no run is available.")
            continue
        verb = "does not differ clearly from"
        if precision.excludes_zero:
            verb = "is above" if precision.mean > 0 else "is below"
        sentence = f"**{label}** {verb} *{ablation.baseline}*: mAP {precision}, R1 {rank1} points"
        printed_rank1, printed_precision = printed.loc[label]
        if not math.isnan(printed_precision):
            paper = f"mAP {format_difference(printed_precision)}, R1 {format_difference(printed_rank1)}"
            sentence += f". In the paper: {paper}"
            agreement = "these runs do not decide its direction"
            if precision.excludes_zero:
                same = precision.mean * printed_precision > 0
                agreement = "these runs confirm its direction" if same else "these runs reverse its direction"
            sentence += f"; **{agreement}**"
        sentences.append(sentence + ".")
    return sentences


def size_sentences(
    ablation: Ablation,
    scores: ExperimentScores,
    parameters: Mapping[str, int],
    pairs: Sequence[tuple[str, str]],
) -> list[str]:
    """Say how pairs of rows differ in mAP and in parameters: a sentence in Markdown for each pair.

    Args:
        ablation: The ablation, such as ``ablations.PART_COUNTS``.
        scores: Scores of the ablation's experiments.
        parameters: Number of parameters of each row.
        pairs: For each sentence a row and the row to which it is compared.

    Returns:
        The sentences.
    """
    sentences = []
    for row, other in pairs:
        difference = scores.difference(
            [ablation.cells[row]], [ablation.cells[other]], ablation.compared_measures[1]
        )
        share = f"{100 * parameters[row] / parameters[other]:.0f} % of its parameters"
        result = "no run is available" if difference is None else f"mAP {difference} points"
        sentences.append(f"**{row}** against *{other}*: {result}, with {share}.")
    return sentences


def runs_by_row(ablation: Ablation, scores: ExperimentScores) -> dict[str, tuple[Run | MissingRun, ...]]:
    """Return the runs of each row, one for each seed, by the row's label."""
    return {label: scores.runs.runs[cell.experiment] for label, cell in ablation.cells.items()}


def first_traces(runs: Mapping[str, Sequence[Run | MissingRun]]) -> dict[str, tuple[dict, np.ndarray]]:
    """Return each row's ``trace`` and ``triplet_in_use`` of seed 0; rows without a run are left out."""
    traces = {row: trace(of_row[0]) for row, of_row in runs.items() if isinstance(of_row[0], Run)}
    return {row: (steps, triplet_in_use(steps)) for row, steps in traces.items()}
