"""This suite's rows in the papers' tables of whole benchmarks, and on sets that they were not trained on.

``own`` runs on the tables' benchmarks · ``rows`` those runs as rows below the printed ones (both notebook
42) · ``across`` scores of rows by what they were trained on and tested on (notebook 43)
"""

from reidlib.analysis.benchmark_runs.across import ACROSS, NO_SCORE, REFUSED, AcrossScores, gather_across
from reidlib.analysis.benchmark_runs.own import (
    BESIDE,
    OWN_ROWS,
    OwnRuns,
    gather_own_runs,
    kept_runs,
    own_rows,
    training_chains,
)
from reidlib.analysis.benchmark_runs.rows import (
    measured_tables,
    rank1_scores,
    rows_with_own_runs,
    sections,
    spreads_by_row,
)

__all__ = [
    "ACROSS",
    "BESIDE",
    "NO_SCORE",
    "OWN_ROWS",
    "REFUSED",
    "AcrossScores",
    "OwnRuns",
    "gather_across",
    "gather_own_runs",
    "kept_runs",
    "measured_tables",
    "own_rows",
    "rank1_scores",
    "rows_with_own_runs",
    "sections",
    "spreads_by_row",
    "training_chains",
]
