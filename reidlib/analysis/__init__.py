"""What scores of runs say: the papers' ablations and tables, differences with their intervals, and verdicts.

Nothing here loads torch but ``analysis.benchmark_runs``, which trains, and ``analysis.complexity``, which
measures a network; both are imported by their own names.
"""

from reidlib.analysis import ablations, benchmark_tables, claims, misalignment
from reidlib.analysis.scores import Cell, ExperimentScores, bullet_list, style_table, table_records

__all__ = [
    "Cell",
    "ExperimentScores",
    "ablations",
    "benchmark_tables",
    "bullet_list",
    "claims",
    "misalignment",
    "style_table",
    "table_records",
]
