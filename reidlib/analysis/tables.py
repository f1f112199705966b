"""The ledger, scores and differences as CSV, to compute with, and as LaTeX, to cite.

A CSV has one value a cell in full precision. A LaTeX file has the same as a report prints it, in a longtable
whose caption names set, protocol, profile, seeds and commits; it needs the packages array, booktabs and
longtable.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from reidlib import __version__, files
from reidlib.analysis import ExperimentScores, claims
from reidlib.analysis.claims import CLAIMS, Verdict
from reidlib.analysis.claims.verdicts import claim_pairs
from reidlib.analysis.scores import Cell
from reidlib.analysis.statistics import Pairs, sign_flip
from reidlib.errors import InputError
from reidlib.experiments.evidence import BY_PERSON, Evidence
from reidlib.files import write_text

_PROTOCOL = "single query, in which images of the query's person from its camera are ignored"
_VALIDATION = "validation persons, drawn from the training persons: not the benchmark's own test"
# Letters that LaTeX reads as something else, and those that its fonts lack.
_LATEX = str.maketrans(
    {
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
        **{letter: f"{{{letter}}}" for letter in "[]"},  # after a line's end a bracket is an option
        **{letter: f"${letter}$" for letter in "<>|"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", '"': "''"},
        **{"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "λ": r"$\lambda$", "–": "--", "\u00a0": "~"},
    }
)
_TEXT = r">{\raggedright\arraybackslash}p{%scm}"


class Table(NamedTuple):
    """A table to write.

    Attributes:
        name: Name of its files, without an ending.
        numbers: Its values, one a cell; columns name their units.
        printed: The same as text, for LaTeX.
        columns: LaTeX's format of the columns of ``printed``.
        caption: What was measured, in words.
    """

    name: str
    numbers: pd.DataFrame
    printed: pd.DataFrame
    columns: str
    caption: str


def write_tables(folder: str | Path, kept: Sequence[Evidence], command: str) -> list[Path]:
    """Write the tables of evidence as CSV and LaTeX.

    Args:
        folder: Folder of the files; made if it does not exist.
        kept: Evidence of a profile on one or more benchmarks.
        command: The command that is given with each table.

    Returns:
        The files.

    Raises:
        InputError: If ``folder`` is empty or a file, or cannot be written.
    """
    if not str(folder):
        raise InputError("tables are written to a folder", "an empty name", "name a folder, such as tables")
    folder, paths = Path(folder).expanduser(), []
    if folder.exists() and not folder.is_dir():
        raise InputError("tables are written to a folder", f"the file {folder}", "name a folder")
    made = f"reidlib {__version__}, commit {files.commit() or 'unknown'}: {' '.join(command.split())}"
    for table in _tables(kept):
        for ending, text in (
            ("csv", table.numbers.to_csv(index=False, lineterminator="\n")),
            ("tex", _latex(table, made)),
        ):
            paths.append(folder / f"{table.name}.{ending}")
            write_text(paths[-1], text)
    return paths


def latex_text(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return text.translate(_LATEX)


def _latex(table: Table, made: str) -> str:
    styler = table.printed.fillna("–").astype(str).rename(columns=latex_text).style
    styler.hide(axis="index").format(latex_text)
    text = styler.to_latex(
        environment="longtable",
        column_format=table.columns,
        hrules=True,
        caption=latex_text(table.caption),
        label=f"tab:{table.name}",
    )
    head = f"% {made}\n% Packages: array, booktabs, longtable. Wide tables fit on a page in landscape.\n"
    return f"{head}{{\\scriptsize\\setlength{{\\tabcolsep}}{{3pt}}\n{text}}}\n"


def _tables(kept: Sequence[Evidence]) -> Iterator[Table]:
    names, _ = claims.required_experiments()
    sets = {each.name: ExperimentScores(each.gather([*names, *each.rows])) for each in kept}
    verdicts = {name: [claims.decide(claim, each) for claim in CLAIMS] for name, each in sets.items()}
    about = {each.name: _about(each, sets[each.name]) for each in kept}
    yield _ledger(kept, verdicts, claims.older_than_tests(sets), about)
    for each in kept:
        yield _scores(each, sets[each.name], about[each.name])
        yield _differences(each, sets[each.name], about[each.name])
    if len(kept) > 1:
        yield _agreement(kept, sets, about)


def _about(kept: Evidence, scores: ExperimentScores) -> str:
    """Say of what the numbers are: set, split, protocol, profile, seeds and commits."""
    split = [_VALIDATION] if "validation=true" in kept.benchmark else []
    commits = dict.fromkeys(str(run.information.get("commit")) for run in kept.runs.values())
    seeds = f"{scores.seed_count()} ({', '.join(map(str, sorted({seed for _, seed in kept.runs})))})"
    words = [kept.title, *split, f"profile {kept.profile}", seeds, f"commit {', '.join(commits)}"]
    return f"{kept.name[0].upper()}{kept.name[1:]}: {'; '.join(words)}"


def _of_set(kept: Evidence) -> dict[str, str]:
    return {"benchmark": kept.name, "set": kept.title, "profile": kept.profile}


def _ledger(
    kept: Sequence[Evidence],
    verdicts: Mapping[str, Sequence[Verdict]],
    older: Mapping[str, Mapping[str, str]],
    about: Mapping[str, str],
) -> Table:
    lines = [
        {
            **{"claim": claim.name, "paper": claim.paper, "statement": claim.statement, "test": claim.test},
            "digest of the test": claims.digest(claim) if claim.contrasts else None,
            **_of_set(each),
            **{"outcome": verdict.outcome, "reason": verdict.reason},
            "seeds added before the test": older.get(each.name, {}).get(claim.name)
            if verdict.intervals
            else None,
            "notebook": claim.notebook or None,
        }
        for each in kept
        for claim, verdict in zip(CLAIMS, verdicts[each.name], strict=True)
    ]
    printed = claims.ledger(verdicts, older).drop(columns=["decided by", "notebook"])
    widths = {"claim": 4.2, "measured": 4.5, "verdict": 3.6, "seeds": 2.4}
    for name in printed.filter(regex="^verdict"):
        printed[name] = printed[name].str[2:]  # its first character is a sign that no font has
    columns = "".join(_TEXT % widths[name.split()[0].strip(",")] for name in printed)
    caption = (
        "The papers' claims: differences in points with their 95 % intervals, and verdicts. The tests and "
        "their digests are in ledger.csv. "
        f"{'. '.join(about.values())}. Protocol: {_PROTOCOL}."
    )
    return Table("ledger", pd.DataFrame(lines), printed, columns, caption)


def _interval_columns(pairs: Pairs | None, unit: str) -> dict[str, float | int | None]:
    interval = pairs.interval() if pairs else None
    return {
        f"mean ({unit})": interval and interval.mean,
        f"low end of 95 % ({unit})": interval and interval.low,
        f"high end of 95 % ({unit})": interval and interval.high,
        f"standard error ({unit})": interval and interval.error,
        "degrees of freedom": interval and interval.freedom,
        "seeds": interval.seeds if interval else 0,
        "persons": interval.persons if interval else 0,
        "queries": interval.queries if interval else 0,
    }


def _cells(kept: Evidence) -> Iterator[Cell]:
    """Yield every branch of every row with runs, the whole feature first."""
    for row in kept.rows:
        first = next(run for (name, _), run in kept.runs.items() if name == row)
        branches = first.read("scores.json")["branches"]
        yield from (Cell(row, branch) for branch in sorted(branches, key=lambda name: name != "full"))


def _scores(kept: Evidence, scores: ExperimentScores, about: str) -> Table:
    lines, printed = [], []
    for cell in _cells(kept):
        address = {"row": cell.experiment, "feature": cell.branch}
        seeds = 0
        for measure in BY_PERSON:
            pairs = scores.pairs([cell], [], measure)
            seeds = len(pairs.seeds) if pairs else 0
            values = _interval_columns(pairs, "per cent")
            lines.append(_of_set(kept) | address | {"measure": measure} | values)
        texts = {measure: claims.score_text(scores, cell, measure, note=False) for measure in BY_PERSON}
        printed.append(address | texts | {"seeds": seeds})
    caption = f"Scores in per cent with their 95 % intervals. {about}. Protocol: {_PROTOCOL}."
    name = f"scores-{_file_name(kept)}"
    return Table(name, pd.DataFrame(lines), pd.DataFrame(printed), "ll" + "r" * 7, caption)


def _differences(kept: Evidence, scores: ExperimentScores, about: str) -> Table:
    lines, printed = [], []
    for claim in CLAIMS:
        contrasts = {contrast.label: contrast for contrast in claim.contrasts}
        for label, pairs in claim_pairs(claim, scores).items():
            contrast, values = contrasts[label], _interval_columns(pairs, "points")
            measure = f"share of {claim.measure} kept" if contrast.relative else claim.measure
            share = sign_flip(pairs.sums_sp, pairs.queries_p) if pairs else None
            lines.append(
                _of_set(kept)
                | {"claim": claim.name, "difference": label, "measure": measure}
                | values
                | {
                    "two-sided p by signs of seeds": share,
                    "paper's difference (points)": contrast.printed,
                }
            )
            printed.append(
                {
                    "claim": claim.name,
                    "difference": f"{label}, {measure}",
                    "points [95 %]": str(pairs.interval()) if pairs else None,
                    "standard error": _text(values["standard error (points)"], ".2f"),
                    "d.f.": _text(values["degrees of freedom"], ".1f"),
                    "seeds": values["seeds"],
                    "persons": values["persons"],
                    "p by signs": _text(share, ".3g"),
                }
            )
    caption = (
        "Differences that decide the claims, with 95 % intervals over seeds and persons; p by signs of the "
        f"seeds' means, from six seeds on. {about}. Protocol: {_PROTOCOL}."
    )
    columns = f"{_TEXT % 2.8}{_TEXT % 5}" + "r" * 6
    name = f"differences-{_file_name(kept)}"
    return Table(name, pd.DataFrame(lines), pd.DataFrame(printed), columns, caption)


def _agreement(
    kept: Sequence[Evidence], sets: Mapping[str, ExperimentScores], about: Mapping[str, str]
) -> Table:
    first, lines, printed, sentences = kept[0], [], [], []
    for other in kept[1:]:
        pairs = claims.agreement(sets[first.name], sets[other.name])
        sentences.append(claims.rate_agreement(pairs).sentence(first.name, other.name).replace("**", ""))
        for pair in pairs:
            line = {"difference": pair.label, "paper": pair.paper, "profile": first.profile}
            for place, each, interval in (("first", first, pair.first), ("second", other, pair.second)):
                line |= {f"{place} benchmark": each.name, f"{place} set": each.title}
                line |= {f"{place} mean (points)": interval.mean}
                line |= {f"{place} low end of 95 % (points)": interval.low}
                line |= {
                    f"{place} high end of 95 % (points)": interval.high,
                    f"{place} seeds": interval.seeds,
                }
            lines.append(line)
            texts = {first.name: str(pair.first), other.name: str(pair.second)}
            printed.append({"difference in mAP (points, 95 %)": pair.label} | texts)
    caption = (
        f"Differences to baselines on both benchmarks. {' '.join(sentences)} {'. '.join(about.values())}. "
        f"Protocol: {_PROTOCOL}."
    )
    columns = _TEXT % 6 + "r" * len(kept)
    return Table("agreement", pd.DataFrame(lines), pd.DataFrame(printed), columns, caption)


def _text(value: float | None, form: str) -> str | None:
    return None if value is None or value != value else f"{value:{form}}"


def _file_name(kept: Evidence) -> str:
    return files.safe_name(kept.name.replace(" ", "-"))
