"""Runs are added to the evidence, or refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reidlib import files
from reidlib.errors import InputError
from reidlib.experiments.evidence.lines import (
    START,
    EvidenceRun,
    contents_of,
    difference_text,
    format_line,
    lines_of,
    parse_line,
    row_of,
)
from reidlib.experiments.evidence.sets import lines_of_set, same_images, set_folder
from reidlib.experiments.rows import EXPERIMENTS
from reidlib.files import write_text
from reidlib.training.runs import Run, configuration_hash

# Row -> digests of the tests of claims that compare it, by the claim's name; None: not known.
_Tests = Mapping[str, Mapping[str, str]] | None


@dataclass
class Addition:
    """What ``add`` has done.

    Attributes:
        added: Names of the runs that were added.
        present: Number of runs that were evidence already.
        unfinished: Number of trainings that have not finished.
        refused: A line for each run that was not added, with the reason.
    """

    added: list[str] = field(default_factory=list)
    present: int = 0
    unfinished: int = 0
    refused: list[str] = field(default_factory=list)


def add(source: str | Path, folder: str | Path | None = None, tests: _Tests = None) -> Addition:
    """Add runs to the evidence.

    Args:
        source: A run's folder, a folder of runs, or a folder of evidence, such as another clone's.
        folder: The folder of all sets; by default ``reports/evidence`` of the clone.
        tests: Row -> digests of the tests of claims that compare it, by the claim's name
            (``analysis.claims.digests_by_row``); kept in each new line of a run. A line of other evidence
            keeps those that it has. None keeps none.

    Returns:
        What was added. A run from which others in ``source`` started is kept with these. A run is refused if
        it has no scores, is not a row's own training with its values of today, is of other data than its set,
        or has another result than the set has for its row and seed.

    Raises:
        InputError: If there is no run in ``source``, evidence is damaged, or it cannot be written.
    """
    source = Path(source).expanduser()
    configurations = [source / "config.json"] if (source / "config.json").is_file() else None
    paths = configurations or sorted(source.glob("*/config.json"))
    lines = [path for pattern in ("*.jsonl", "*/*.jsonl") for path in sorted(source.glob(pattern))]
    lines = [path for path in lines if path.stem in EXPERIMENTS and not paths]
    if not (paths or lines):
        rule = "evidence is added from a run, a folder of runs or a folder of evidence"
        raise InputError(rule, f"none in {source}", "name a folder such as reports/runs")
    addition = Addition()
    others = (files.find_json(path) or {} for path in paths)
    starts = {content.get("start") for content in others}
    for path in paths:
        name = path.parent.name
        if not configurations and not (path.parent / "run.json").is_file():
            addition.unfinished += 1
            continue
        try:
            run = Run(path.parent)
            is_start = configuration_hash(run.configuration) in starts
            if is_start and (run.scores is None or not row_of(run.configuration)[1]):
                continue  # pre-training, which is kept with the runs that started from it
            contents = contents_of(run)
        except InputError as error:
            addition.refused.append(f"{name}: {error}")
        else:
            _add(name, contents, tests, folder, addition)
    for parent in dict.fromkeys(path.parent for path in lines):
        for line in lines_of_set(parent):
            own = None if line.run.tests is None else {line.row: line.run.tests}
            _add(line.run.folder.name, dict(line.run.contents), own, folder, addition)
    return addition


class _Refusal(InputError):
    """A run does not belong to the evidence that is there."""


def _add(
    name: str, contents: dict[str, dict], tests: _Tests, folder: str | Path | None, addition: Addition
) -> None:
    """Add a run, or note why it is refused; InputError if evidence is damaged or cannot be written."""
    try:
        profile, row, text = _written(name, contents, tests)
        added = _append(profile, row, contents, text, folder)
    except _Refusal as refusal:
        addition.refused.append(f"{name}: {refusal}")
    else:
        addition.added += [name] if added else []
        addition.present += not added


def _written(name: str, contents: dict[str, dict], tests: _Tests) -> tuple[str, str, str]:
    """Return profile and row of a run and its line."""
    profile, row = row_of(contents["config.json"], contents.get(START))
    if not row:
        rule = "evidence is of a row's own training, with the values that the row has today"
        raise _Refusal(rule, "another configuration", "train the row again")
    try:
        text = format_line(row, contents, None if tests is None else tests.get(row, {}))
        parse_line(text, name, row)  # a line that nobody could read again would spoil its set
    except InputError as error:
        raise _Refusal(error.rule, error.value, error.mend) from error
    return profile, row, text


def _append(profile: str, row: str, contents: dict[str, dict], line: str, folder: str | Path | None) -> bool:
    """Append a run to its row's file unless it is there; InputError if it does not fit to what is there."""
    configuration, benchmark = contents["config.json"], contents["config.json"]["benchmark"]
    run = EvidenceRun(Path(row), contents)
    pretrained = bool(run.start)
    path = set_folder(profile, benchmark, folder, pretrained=pretrained) / f"{row}.jsonl"
    with files.exclusive_lock(
        path.with_name(".lock"), make_error=lambda error: files.write_error(path, error)
    ):
        records = lines_of_set(path.parent, (profile, benchmark, pretrained))
        first = next((record for record in records if record.benchmark == benchmark), None)
        if first and not same_images(first.data, configuration["data"]):
            raise _Refusal(
                "the evidence of a set is of the same images and persons",
                f"data {configuration['data']}, where {path.parent} has {first.data}",
                "compare the benchmark's folder with `reidlib check`, or use another folder of evidence",
            )
        for _, record in lines_of(path):
            if record.run.configuration | {"data": configuration["data"]} != configuration:
                continue  # another seed, or an earlier recipe
            if difference := difference_text(record.run, run):
                raise _Refusal(
                    "a row and a seed have one result",
                    f"a clash: {difference}",
                    "keep the first, which is there: devices round differently; add other seeds",
                )
            if contents.keys() <= record.run.contents.keys():
                return False
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_text(path, text + line)
    return True
