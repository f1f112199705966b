"""Published scores of learnt metrics on LOMO and GOG, beside what was measured here by the same protocol.

Loads torch, so it is imported by its own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from reidlib.analysis.scores import Spread
from reidlib.analysis.statistics import format_difference
from reidlib.experiments.metric_study.published import CASES, Case, Measured, kept
from reidlib.experiments.rows import L2, LEARNT_METRICS

_RANKS = (1, 5, 10, 20)
_ROWS = tuple(case for case in CASES if case.published)
_METRICS = (L2, *LEARNT_METRICS)


def rows_table(fresh: Iterable[Measured] = ()) -> pd.DataFrame:
    """Return the published rows, what this package keeps of them, and what was measured now.

    Args:
        fresh: What was measured now.

    Returns:
        A line for each row: R1 as published and to reach, and as measured: mean and half the 95 % interval
        over the partitions.
    """
    measured, now = kept(), {each.case: each for each in fresh}
    lines = []
    for case in _ROWS:
        line = {"row": case.row, "published": case.published, "to reach": f"± {case.tolerance}"}
        line |= {"measured": _cell(measured.get(case)), "partitions": _partitions(measured.get(case))}
        line["reached"] = _reached(case, measured.get(case))
        if now:
            line |= {"this run": _cell(now.get(case)), "its partitions": _partitions(now.get(case))}
        lines.append(line)
    return pd.DataFrame(lines)


def comparison_table(fresh: Iterable[Measured] = ()) -> pd.DataFrame:
    """Return which metric is worth how much on which descriptor.

    Args:
        fresh: What was measured now, in place of what this package keeps.

    Returns:
        A line for each descriptor and set, a column for each metric: R1 with half the 95 % interval over
        partitions, if there are several, by the settings of the rows.
    """
    measured = kept() | {each.case: each for each in fresh}
    lines: dict[tuple[str, ...], dict[str, object]] = {}
    for case in (case for case in CASES if not case.choice):
        _, _, title = case.row.partition(", ")
        empty: dict[str, object] = {"feature": case.descriptor.upper(), "set": title}
        empty |= dict.fromkeys(_METRICS, "–")
        line = lines.setdefault((case.benchmark, case.protocol, case.descriptor), empty)
        line[case.metric] = _cell(measured.get(case))
    return pd.DataFrame([line for line in lines.values() if any(line[name] != "–" for name in _METRICS)])


def settings_table() -> pd.DataFrame:
    """Return by which settings each row is measured.

    Returns:
        A line for each row: its settings, which of them were chosen by scores, and where the number is from.
    """
    return pd.DataFrame(
        {
            "row": case.row,
            "settings": case.settings,
            "chosen by scores": case.from_scores,
            "published number": case.source,
        }
        for case in _ROWS
    )


def choices_table(fresh: Iterable[Measured] = ()) -> pd.DataFrame:
    """Return what each other choice gives, below the row's own settings.

    Args:
        fresh: What was measured now.

    Returns:
        A line for each case: its R1, without an interval, which two partitions do not give; from how many
        partitions; and the difference from the row's own settings, in points, on the partitions of both.
    """
    measured, now = kept(), {each.case: each for each in fresh}
    own = {case.row: case for case in _ROWS}
    lines = []
    cases = [case for case in CASES if case.row in own]
    for case in sorted(cases, key=lambda case: [*own].index(case.row)):
        line = {"row": "" if case.choice else case.row, "choice": case.choice or f"own: {case.settings}"}
        line |= {"published": case.published, "measured": _mean(measured.get(case))}
        line["partitions"] = _partitions(measured.get(case)).partition(" ")[0]
        line["difference"] = _difference(case, own[case.row], measured)
        if now:
            line |= {
                "this run": _mean(now.get(case)),
                "its difference": _difference(case, own[case.row], now),
            }
        lines.append(line)
    return pd.DataFrame(lines)


def summary() -> str:
    """Say which rows are near enough to the published number, and which are not, by what is kept."""
    measured, reached, missed = kept(), [], []
    for case in _ROWS:
        if each := measured.get(case):
            near = _reached(case, each) == "yes"
            mean = Spread.of(each.scores[1]).mean
            (reached if near else missed).append(f"{case.row} ({case.published}: {mean:.1f})")
    texts = [
        f"**{title}:** {'; '.join(rows)}."
        for title, rows in (("Reached", reached), ("Missed", missed))
        if rows
    ]
    return " ".join(texts) or "Nothing is measured yet."


def measured_rows(benchmark: str, protocol: str, measures: Iterable[str]) -> list[dict[str, object]]:
    """Return rows for one of the papers' tables: what was measured here of their methods.

    Args:
        benchmark: The benchmark with its options.
        protocol: The table's protocol.
        measures: The table's columns: R1, R5, R10, R20, others stay empty.

    Returns:
        A line for each measured row with its own settings: method, and a ``Spread`` for each measure.
    """
    lines = []
    for case, each in kept().items():
        if case.published and (case.benchmark, case.protocol) == (benchmark, protocol):
            known = "recalled" if case.source.startswith("recalled") else "published"
            parts = [f"measured here: {case.row.partition(',')[0]} ({known}: {case.published})"]
            parts += [f"gallery camera {case.gallery}"]
            parts += [case.training] if case.training != "all" else []
            parts.append(f"partitions: {_partitions(each)}")
            parts += ["settings partly chosen by these scores (notebook 40)"] if case.from_scores else []
            scores = {f"R{rank}": Spread.of(each.scores[rank], over="trials") for rank in _RANKS}
            lines.append(
                {"method": ", ".join(parts)} | {name: scores[name] for name in measures if name in scores}
            )
    return lines


def _cell(measured: Measured | None) -> Spread | str:
    """Return R1 over partitions, or why there is none."""
    if measured is None:
        return "–"
    return measured.refused or Spread.of(measured.scores[1], over="trials")


def _mean(measured: Measured | None) -> str:
    """Return mean R1, or why there is none."""
    cell = _cell(measured)
    return cell if isinstance(cell, str) else f"{cell.mean:.1f}"


def _reached(case: Case, measured: Measured | None) -> str:
    if measured is None or measured.refused:
        return "–"
    miss = Spread.of(measured.scores[1]).mean - float(case.published)
    return "yes" if abs(miss) <= float(case.tolerance) else f"no, {format_difference(miss)}"


def _partitions(measured: Measured | None) -> str:
    if measured is None or measured.refused:
        return ""
    return f"{len(measured.scores[1])} {'published' if measured.partitions else 'of this suite'}"


def _difference(case: Case, own: Case, measured: Mapping[Case, Measured]) -> str:
    """Return the difference of R1 from the row's own settings, on the first partitions, which both have."""
    both = [measured.get(each) for each in (case, own)]
    if not case.choice or any(each is None or each.refused for each in both):
        return ""
    differences = [
        one - other for one, other in zip(*(each.scores[1] for each in both if each), strict=False)
    ]
    return format_difference(Spread.of(differences).mean)
