"""This suite's rows in the papers' tables of whole benchmarks, below the printed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import pandas as pd

from reidlib.analysis.benchmark_runs.own import OwnRuns, own_rows
from reidlib.analysis.benchmark_tables import TABLES, Table, folders_of, guidance, notes
from reidlib.analysis.claims.published_metrics import measured_rows
from reidlib.analysis.scores import ExperimentScores, Spread, table_records


def spreads_by_row(table: Table, own_runs: OwnRuns) -> dict[str, dict[str, Spread]]:
    """Return the scores of this suite's rows of a table.

    Args:
        table: The table.
        own_runs: This suite's runs on the table's benchmark.

    Returns:
        Row -> measure -> mean and half its 95 % interval, in per cent. If the benchmark has several trials, a
        trial's value is the mean over its seeds, and the interval is over the trials. Trials share
        identities, which makes that interval somewhat too narrow. Otherwise the interval is over the seeds.
    """
    rows = own_rows([table])
    if own_runs.read_error:
        return {row: dict.fromkeys(table.columns, Spread.of([])) for row in rows}
    cells = {key: cell for key, cell in own_runs.cells.items() if key[0] in rows}
    if not cells:
        return {}
    scores = ExperimentScores(own_runs.experiment_runs, table.protocol).spreads(cells, tuple(table.columns))
    return {
        str(row): {name: _over_trials(list(trials[name])) for name in table.columns}
        for row, trials in scores.groupby(lambda row_and_trial: row_and_trial[0], sort=False)
    }


def _over_trials(trials: Sequence[Spread]) -> Spread:
    if len(trials) == 1:
        return trials[0]
    return Spread.of([trial.mean for trial in trials if trial.num_values], len(trials), over="trials")


def rows_with_own_runs(table: Table, own: Sequence[OwnRuns]) -> pd.DataFrame:
    """Return a printed table with this suite's rows below it.

    Args:
        table: The table.
        own: This suite's runs on the table's benchmark: its own folder's, and those of the evidence.

    Returns:
        The printed rows as text; learnt metrics that notebook 40 measured by this protocol, and this suite's
        rows, with a ``Spread`` in per cent for each measure.
    """
    lines = measured_rows(table.specification, table.protocol, table.columns)
    lines += [
        {"method": own_runs.title(row), **cells}
        for own_runs in own
        for row, cells in spreads_by_row(table, own_runs).items()
    ]
    if not lines:
        return table.printed()
    return pd.concat([table.printed(), pd.DataFrame(lines, dtype=object)], ignore_index=True)


def rank1_scores(table: Table, own: Sequence[OwnRuns]) -> dict[str, tuple[float, str]]:
    """Return the rank-1 scores of a table, for ``visual.figures.benchmarks.published_rank1``.

    Args:
        table: The table.
        own: This suite's runs on the table's benchmark.

    Returns:
        Method -> rank-1 in per cent and its source. The source is "paper" for the method of the paper that
        prints the table, "other" for other printed methods, "measured" for learnt metrics that notebook 40
        measured, and the row's name for this suite's rows, with "(not comparable)" unless they use
        the paper profile on the complete benchmark. Methods without a number are left out.
    """
    sources = {"JLML": "paper", "Pyramid": "paper"}
    scores = {
        name: (float(value), sources.get(name, "other"))
        for name, value in table.printed()[["method", "R1"]].to_numpy()
        if value
    }
    for line in measured_rows(table.specification, table.protocol, ("R1",)):
        if isinstance(spread := line.get("R1"), Spread):
            scores[str(line["method"])] = (spread.mean, "measured")
    for own_runs in (each for each in own if not each.read_error):
        remark = "" if own_runs.profile == "paper" and not own_runs.deviations else " (not comparable)"
        for row, spread_by_measure in spreads_by_row(table, own_runs).items():
            if spread_by_measure["R1"].num_values:
                scores[own_runs.title(row)] = (spread_by_measure["R1"].mean, row + remark)
    return scores


def measured_tables(own: Mapping[str, Sequence[OwnRuns]]) -> list[dict[str, object]]:
    """Return the papers' tables in which this suite has a score, for the report.

    Args:
        own: Specification of a table's benchmark -> this suite's runs on it.

    Returns:
        A line for each method of each such table, in the tables' order: table (at its first line), method,
        and the measures as text. A measure that one of the tables lacks is empty there.
    """
    lines = []
    for table in TABLES:
        of_table = own.get(table.specification, ())
        rows_of_runs = [row for each in of_table for row in spreads_by_row(table, each).values()]
        if any(spread.num_values for row in rows_of_runs for spread in row.values()):
            rows = table_records(rows_with_own_runs(table, of_table))
            lines += [{"table": "" if number else table.title} | row for number, row in enumerate(rows)]
    return lines


def sections(
    benchmarks: Sequence[str], own: Mapping[str, Sequence[OwnRuns]], folders: Mapping[str, str | Path]
) -> Iterator[str | pd.DataFrame]:
    """Yield the printed tables on some benchmarks with this suite's rows, in reading order.

    Args:
        benchmarks: Names of benchmarks.
        own: Specification of a table's benchmark -> this suite's runs on it.
        folders: Name or specification of a benchmark -> folder.

    Yields:
        Each table's title as Markdown and its rows as a frame; after the tables of a file their notes as
        Markdown; finally, how to obtain each benchmark without a folder.
    """
    tables = [table for table in TABLES if table.benchmark in benchmarks]
    for _, group in groupby(tables, key=lambda table: table.file):
        tables_of_file = list(group)
        for table in tables_of_file:
            yield f"**{table.title}**"
            yield rows_with_own_runs(table, own[table.specification])
        of_file = [
            each for name in {table.specification: 0 for table in tables_of_file} for each in own[name]
        ]
        lines = [*notes(tables_of_file), *dict.fromkeys(note for each in of_file for note in each.notes())]
        yield "\n".join(f"- {note}" for note in lines)
    yield from (guidance(name) for name in benchmarks if not folders_of(name, folders))
