"""The papers' ablations: which rows stand in a table, against which baseline, and what the paper printed.

The rows stand in ``ablations.csv``: label, experiment and branch, the name of the paper's row (empty where
the paper's number is not known), and what differs.

At the end: what JLML's structured sparsity does to the feature layers, which input units it switches off.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from reidlib.analysis.benchmark_tables import lines_of, published_row
from reidlib.analysis.scores import Cell, ExperimentScores, trace, triplet_in_use
from reidlib.analysis.statistics import signed
from reidlib.errors import check_choice
from reidlib.experiments.setup import Missing, Setup
from reidlib.training.config import RunConfiguration
from reidlib.training.runs import Run

# An input unit, or a weight, counts as switched off below this share of the layer's largest. Gradient steps
# reach nought only in the limit.
OFF_BELOW = 0.01


@dataclass(frozen=True, eq=False)
class Ablation:
    """One table: rows by label, and the row to which the others are compared.

    rows: lines of ``ablations.csv`` by their labels. table: the paper's, in ``published/jlml_ablations.csv``.
    average_precision: the rule of the paper's numbers. Raises InputError for a baseline that is no row.
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
        """The trainings behind the rows, each once."""
        return tuple(self.rows["experiment"].unique())

    @property
    def cells(self) -> dict[str, Cell]:
        places = self.rows[["experiment", "branch"]].itertuples(name=None)
        return {label: Cell(experiment, branch) for label, experiment, branch in places}

    def configurations(self, setup: Setup) -> dict[str, RunConfiguration]:
        """Return the configuration of each row's training, by its label."""
        return {label: setup.configuration(cell.experiment) for label, cell in self.cells.items()}

    @property
    def compared(self) -> tuple[str, str]:
        """The measures of the differences."""
        return ("R1", f"mAP ({self.average_precision})")

    @property
    def measures(self) -> tuple[str, ...]:
        return (*self.compared, *(f"MQ {name}" for name in self.compared))

    @property
    def printed(self) -> pd.DataFrame:
        """The paper's numbers, a line for each row and a column for each measure; not a number: not known.

        Raises InputError for a row that its table does not have.
        """
        columns = ["SQ_R1", "SQ_mAP", "MQ_R1", "MQ_mAP"]
        lines = [
            published_row("jlml_ablations", table=self.table, row=row) if row else {}
            for row in self.rows["printed"]
        ]
        found = pd.DataFrame(lines, self.rows.index, columns).replace("", "nan").astype(float)
        return found.set_axis(list(self.measures), axis="columns")

    @property
    def printed_differences(self) -> pd.DataFrame:
        """What the paper's rows have more than its baseline, in points, in the compared measures."""
        printed = self.printed[list(self.compared)]
        return (printed - printed.loc[self.baseline]).drop(self.baseline)


def _ablation(name: str, heading: str, baseline: str, table: str = "") -> Ablation:
    """The rows that ``ablations.csv`` has under a name. JLML prints mAP by the official rule."""
    lines = lines_of("ablations")
    rows = lines[lines["ablation"] == name].set_index("row")
    return Ablation(heading, rows, baseline, "trapezoid" if table else "step", table)


LOSSES = _ablation("losses", "training and feature", "UniLoss, full", "loss")
SHARED_FEATURES = _ablation("shared features", "low-level layers", "without shared features", "shared")
FEATURE_SELECTION = _ablation("feature selection", "selective feature learning", "without", "sfl")
PART_COUNTS = _ablation("part counts", "parts", "4 parts", "parts")
DYNAMIC_TRAINING = _ablation("dynamic training", "training", "plain sum")
PYRAMID_LEVELS = _ablation("pyramid levels", "parts", "6 stripes, all levels")
PYRAMID_LEVELS_SAME_RATE = _ablation("pyramid levels, same rate", "parts", "6 stripes, all levels")

# Models whose parts see ever less of what the others see as the boxes get worse. All compare by one feature.
MISALIGNMENT = {
    "JLML": Cell("jlml"),
    "Pyramid": Cell("pyramid"),
    "Pyramid, single stripes alone": Cell("pyramid-stripes"),
    "Pyramid, whole body alone": Cell("pyramid-global"),
}


def description_table(ablation: Ablation) -> pd.DataFrame:
    """The rows before anything is trained: label, experiment, branch, what differs."""
    shown = ablation.rows[["experiment", "branch", "about"]].reset_index()
    return shown.set_axis([ablation.heading, "experiment", "feature", "what differs"], axis="columns")


def score_table(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Scores of all rows, single query and, where the benchmark has boxes for it, multi-query (by the mean).

    Mean ± half the 95 % interval over the seeds; the paper's row beside, where it is known.
    """
    table = scores.table(ablation.cells, ablation.measures, heading=ablation.heading)
    if ablation.table:
        table["paper: R1 / mAP"] = _pairs(ablation.printed.iloc[:, :2], "{:.1f}".format)
        table["paper: MQ"] = _pairs(ablation.printed.iloc[:, 2:], "{:.1f}".format)
    return table


def _pairs(printed: pd.DataFrame, write: Callable[[float], str]) -> list[str]:
    """Rank-1 and mAP of each row in one cell, empty where one is not known."""
    pairs = printed.itertuples(index=False, name=None)
    return ["" if math.isnan(sum(pair)) else " / ".join(map(write, pair)) for pair in pairs]


def baseline_differences(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Each row's differences to the baseline row, with their intervals."""
    return scores.differences(ablation.cells, ablation.baseline, ablation.compared)


def difference_table(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """The differences as a table, the paper's beside."""
    table = _differences_beside_printed(ablation, scores)
    return table.rename_axis(f"{ablation.heading}, against {ablation.baseline}").reset_index()


def report_table(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Scores and differences in one table, for the report."""
    apart = _differences_beside_printed(ablation, scores)
    apart.loc[ablation.baseline] = ["" if name.startswith("paper") else "baseline" for name in apart]
    return score_table(ablation, scores).join(apart, on=ablation.heading)


def _differences_beside_printed(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    table = baseline_differences(ablation, scores).rename(columns="Δ {} [95 %]".format)
    if ablation.table:
        table["paper: Δ R1 / Δ mAP"] = _pairs(ablation.printed_differences, signed)
    return table


def panels(ablation: Ablation, scores: ExperimentScores) -> tuple[dict, dict]:
    """For ``figures.scores.differences``: measure -> row -> interval here, and the paper's difference."""
    printed = {name: known.dropna().to_dict() for name, known in ablation.printed_differences.items()}
    return baseline_differences(ablation, scores).to_dict(), printed


def readings(ablation: Ablation, scores: ExperimentScores) -> list[str]:
    """A sentence for each row: which way it differs from the baseline here, and whether the paper agrees.

    The direction is that of mAP, and it counts only where its interval is clear of nought.
    """
    sentences = []
    printed = ablation.printed_differences
    for label, rank1, precision in baseline_differences(ablation, scores).itertuples(name=None):
        if precision is None:
            sentences.append(f"**{label}**: missing here.")
            continue
        verb = "cannot be told from"
        if precision.clear:
            verb = "is above" if precision.mean > 0 else "is below"
        sentence = f"**{label}** {verb} *{ablation.baseline}*: mAP {precision}, rank-1 {rank1} points"
        printed_rank1, printed_precision = printed.loc[label]
        if not math.isnan(printed_precision):
            sentence += f"; the paper: mAP {signed(printed_precision)}, rank-1 {signed(printed_rank1)}"
            agreement = "its direction is not decided here"
            if precision.clear:
                same = precision.mean * printed_precision > 0
                agreement = "the paper's direction holds here" if same else "it is reversed here"
            sentence += f", so **{agreement}**"
        sentences.append(sentence + ".")
    return sentences


def runs_by_row(ablation: Ablation, scores: ExperimentScores) -> dict[str, tuple[Run | Missing, ...]]:
    """Return the runs of each row, one for each seed, by the row's label."""
    return {label: scores.runs.runs[cell.experiment] for label, cell in ablation.cells.items()}


def first_traces(runs: Mapping[str, Sequence[Run | Missing]]) -> dict[str, tuple[dict, np.ndarray]]:
    """Return each row's ``trace`` and ``triplet_in_use`` of seed 0; rows without a run are left out."""
    traces = {row: trace(of_row[0]) for row, of_row in runs.items() if isinstance(of_row[0], Run)}
    return {row: (steps, triplet_in_use(steps)) for row, steps in traces.items()}


class InputNorms(NamedTuple):
    """Euclidean norms of the weights that leave each input unit of the feature layers.

    ``local_weights_off``: the share of single weights of the local layers below ``OFF_BELOW`` of the largest
    that their output unit has, which is what an exclusive norm over output units makes sparse.
    """

    global_c: np.ndarray  # (C,)
    local_pc: np.ndarray  # (P, C)
    local_weights_off: float


def has_weights(run: object) -> bool:
    """Whether there is a run, and its weights with it."""
    return isinstance(run, Run) and run.has_weights


def input_norms(run: Run) -> InputNorms:
    """The norms of a JLML run's feature layers. Raises InputError where its weights are not there."""
    state = run.weights()
    weight_dc, weight_pdc = (state[f"{name}_feature.weight"].float().numpy() for name in ("global", "local"))
    largest_pd = np.abs(weight_pdc).max(axis=2, keepdims=True)
    return InputNorms(
        np.linalg.norm(weight_dc, axis=0),
        np.linalg.norm(weight_pdc, axis=1),
        float((np.abs(weight_pdc) < OFF_BELOW * largest_pd).mean()),
    )


def norms_by_row(ablation: Ablation, scores: ExperimentScores) -> dict[str, InputNorms]:
    """Return the norms of each row's run with seed 0; a row whose weights are missing is left out."""
    first = {label: runs[0] for label, runs in runs_by_row(ablation, scores).items()}
    return {
        label: input_norms(run) for label, run in first.items() if isinstance(run, Run) and run.has_weights
    }


def norm_table(norms: Mapping[str, InputNorms]) -> pd.DataFrame:
    """Return how many input units are switched off in each row, as a table."""
    return pd.DataFrame([{"row": label, **norm_cells(of_row)} for label, of_row in norms.items()])


def norm_cells(norms: InputNorms) -> dict[str, str]:
    """The same as cells of a table."""
    return {
        "global units off": _share_off(norms.global_c),
        "local units off": _share_off(norms.local_pc),
        "local weights off": f"{100 * norms.local_weights_off:.1f} %",
        "mean norm, global": f"{norms.global_c.mean():.3g}",
        "mean norm, local": f"{norms.local_pc.mean():.3g}",
    }


def switched_off_sentence(norms: Mapping[str, InputNorms]) -> str:
    """Where units are switched off, in a sentence on the global and one on the local layers."""
    if not norms:
        return "No run with its weights is here."
    sentences = []
    for name, field in (("global", "global_c"), ("local", "local_pc")):
        off = {label: _off(getattr(found, field)) for label, found in norms.items()}
        some = [f"*{label}* {100 * share:.0f} %" for label, share in off.items() if share > 0]
        what = f"switched off in {', '.join(some)}, in no other row" if some else "switched off in no row"
        sentences.append(f"Input units of the {name} layer: {what}.")
    return "\n\n".join(sentences)


def _off(norms: np.ndarray) -> float:
    return float((norms < OFF_BELOW * norms.max()).mean())


def _share_off(norms: np.ndarray) -> str:
    return f"{100 * _off(norms):.1f} % of {norms.size}"
