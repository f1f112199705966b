"""A line of evidence: what is kept of a run, and what is checked of a line before it is used."""

from __future__ import annotations

import base64
import json
import lzma
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

from reidlib.errors import InputError
from reidlib.experiments.evidence.sums import KINDS, RANKS, leave_out, sums_by_person, without_queries
from reidlib.experiments.rows import EXPERIMENTS, PROFILES, configure_stages, stages_of
from reidlib.training.runs import Run, configuration_hash, find_by_hash

# Lines of format 1, the first ones, have all files as they are, and no digests of tests.
FORMAT = 2
# Files of a line that anybody can read. The others, nearly all of its size, are packed.
_PLAIN = ("config.json", "run.json", "history.jsonl")
# Not a file of a run: config.json and run.json of the run that it started from, and that one's start.
START = "start.json"
# Scores under perturbations, on other benchmarks, and by learnt metrics.
_FOLDERS = ("conditions", "across", "metrics")
_WITH_PATHS = ("data_root", "data_roots", "not_compared")
_PARTITIONS_FOLDER = re.compile(r"(,partitions=)[^,\"]*[/\\]")
_CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
_GIT_MEND = "restore it with `git checkout`, or copy it again"


@dataclass(frozen=True)
class EvidenceRun(Run):
    """A run without a folder: its small files are in a line of a file of evidence.

    Attributes:
        contents: Name of each file -> the object in it; ``history.jsonl`` -> its last line.
        tests: Claim -> the digest that its test had when the line was made; None in a line from before
            digests were kept.
    """

    contents: Mapping[str, dict] = field(default_factory=dict, hash=False, compare=False, repr=False)
    tests: Mapping[str, str] | None = field(default=None, hash=False, compare=False, repr=False)

    def read(self, name: str) -> dict:
        """Return the object in a file; see ``Run.read``."""
        if name not in self.contents:
            mend = "use a run with all its files"
            raise InputError(
                "this needs a file that evidence holds", f"no {name} of {self.folder.name}", mend
            )
        return self.contents[name]

    @property
    def history(self) -> list[dict]:
        """The last line of the history."""
        return [self.read("history.jsonl")]

    @property
    def start(self) -> dict:
        """Configuration and information of the run that it started from, by file; empty if from none."""
        return self.find(START) or {}

    @property
    def scores(self) -> dict | None:
        """Scores with ``by_person`` in each branch instead of values by query; see ``sums_by_person``."""
        return self.find("scores.json")


@dataclass(frozen=True)
class Line:
    """A line of a file of evidence, whose format, data and sums have been checked."""

    row: str
    seed: int
    run: EvidenceRun

    @property
    def data(self) -> str:
        return str(self.run.configuration["data"])

    @property
    def benchmark(self) -> str:
        return str(self.run.configuration["benchmark"])

    @property
    def pretraining(self) -> str:
        """The sets that the run was trained on before; empty if it was trained on its own set alone."""
        return pretraining_of(self.run.configuration, self.run.start)

    @cached_property
    def today(self) -> tuple[str, str]:
        """Profile and row whose configuration the run has in today's code; empty if none has it."""
        return row_of(self.run.configuration, self.run.start)


def lines_of(path: Path) -> Iterator[tuple[int, Line]]:
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError) as error:
            raise InputError("evidence is readable text", f"{path}: {error}", _GIT_MEND) from error
        for number, line in enumerate(lines, 1):
            yield number, parse_line(line, f"{path}, line {number}", path.stem)


def format_line(row: str, contents: Mapping[str, dict], tests: Mapping[str, str] | None) -> str:
    """Return the line of a run, with the end of the line."""
    plain = {name: contents[name] for name in _PLAIN if name in contents}
    others = {name: content for name, content in contents.items() if name not in _PLAIN}
    packed = base64.b85encode(lzma.compress(_json(others).encode())).decode()
    line = {"format": FORMAT, "row": row, "seed": plain["config.json"]["seed"]}
    line |= {} if tests is None else {"tests": tests}
    return _json(line | {"files": plain, "packed": packed}) + "\n"


def _json(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))


def parse_line(line: str, place: str, row: str) -> Line:
    """Check a line; InputError with its place if it is not a complete run."""
    try:
        if line.startswith(_CONFLICT):
            raise InputError(
                "evidence is merged by keeping the lines of both sides",
                f"an unfinished merge in {place}",
                f"remove the lines that begin with {', '.join(_CONFLICT)}",
            )
        content = json.loads(line)
        if not isinstance(content, dict) or not line.endswith("\n"):
            raise ValueError("an unfinished line")
        if content.get("format") not in (1, FORMAT):
            raise InputError(
                f"evidence has format 1 or {FORMAT}",
                f"format {content.get('format')} in {place}",
                "use the version of the code that wrote it, or add the runs again",
            )
        contents, seed, tests = (
            content["files"],
            content["files"]["config.json"]["seed"],
            content.get("tests"),
        )
        if content["format"] == FORMAT:
            contents |= json.loads(lzma.decompress(base64.b85decode(content["packed"])))
        if tests is not None and not all(re.fullmatch("[0-9a-f]{12}", digest) for digest in tests.values()):
            raise ValueError(f"tests {tests}, where each claim has a digest of 12 hexadecimal digits")
        name = f"{row}-seed{seed}-{configuration_hash(contents['config.json'])}"
        run = EvidenceRun(Path(name), contents, tests)
        if (content["row"], content["seed"]) != (row, seed):
            raise ValueError(f"row {content['row']}, seed {content['seed']}, of {name}")
        _check_start(run.configuration, run.start)
        _check_sums(run)
        _ = run.information["device"], run.information["seconds"], run.configuration["benchmark"]
        if "full" not in contents["scores.json"]["branches"]:
            raise ValueError("no scores of the whole feature")
        if contents["scores.json"]["data"] != run.configuration["data"]:
            raise ValueError("scores on other data than the run's")
    except InputError:
        raise
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
        zlib.error,
        lzma.LZMAError,
    ) as error:
        value = f"{place}: {type(error).__name__}: {error}"
        raise InputError("a line of evidence is a complete run", value, _GIT_MEND) from error
    return Line(row, seed, run)


def _check_start(configuration: Mapping, start: Mapping) -> None:
    """Raise ValueError unless the run that a run started from is the one that its configuration names."""
    if digest := configuration.get("start", ""):
        if not start or configuration_hash(start["config.json"]) != digest:
            raise ValueError(f"it started from the run {digest}, which is not kept with it")
        _check_start(start["config.json"], start.get(START, {}))
    elif start:
        raise ValueError("a run is kept that it started from, which its configuration does not name")


def _check_sums(run: EvidenceRun) -> None:
    """Raise ValueError if sums by person do not give the means beside them."""
    for name, scores in run.contents.items():
        for branch, values in scores.get("branches", {}).items():
            sums = sums_by_person(values)
            queries = sums["queries"].sum()
            means = {f"R{rank}": values["step"]["cmc"][str(rank)] for rank in RANKS}
            means |= {f"mAP ({kind})": values[kind]["mean_average_precision"] for kind in KINDS}
            for measure, mean in means.items():
                if not abs(sums[measure].sum() / queries - mean) <= 1e-6:  # NaN is none
                    raise ValueError(f"{name}: the {measure} of branch {branch} is not that of its persons")


def contents_of(run: Run) -> dict[str, dict]:
    """Return what evidence keeps of a run; InputError if the run is not finished or not scored."""
    run = Run.open(run.folder.absolute())
    scores = run.scores
    if scores is None or scores.get("data") != run.configuration["data"]:
        raise InputError("evidence is of runs with scores", "none", "score it with `reidlib evaluate`")
    contents = {"config.json": run.configuration, "run.json": run.information}
    if run.configuration.get("start"):
        contents[START] = start_of(run)
    try:
        contents["scores.json"] = without_queries(scores)
        if (run.folder / "history.jsonl").is_file() and run.history:
            contents["history.jsonl"] = run.history[-1]
        for path in sorted(path for name in _FOLDERS for path in run.folder.glob(f"{name}/*.json")):
            name = f"{path.parent.name}/{path.name}"
            contents[name] = without_queries(run.read(name))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        value = f"{type(error).__name__}: {error}"
        raise InputError("a run's scores are complete", value, "score it with `reidlib evaluate`") from error
    # Of a file of partitions, the name is kept, and no path. What is in the file, ``data`` covers.
    return json.loads(_PARTITIONS_FOLDER.sub(r"\1", json.dumps(leave_out(contents, _WITH_PATHS))))


def start_of(run: Run) -> dict:
    """Return what is kept of the run that a run started from, which is in the same folder of runs."""
    start = find_by_hash(str(run.configuration["start"]), run.folder.parent)
    if start is None or "partitions=" in str(start.configuration["benchmark"]):
        rule = "evidence of a run that started from another keeps that one's configuration, without a path"
        missing = f"no finished run …-{run.configuration['start']} in {run.folder.parent}"
        value = missing if start is None else str(start.configuration["benchmark"])
        raise InputError(rule, value, "copy that run's folder there, or pre-train without partitions=FILE")
    kept = {"config.json": start.configuration, "run.json": start.information}
    return kept | ({START: start_of(start)} if start.configuration.get("start") else {})


@cache
def _rows(stages: tuple[tuple[str, bool], ...]) -> dict[str, tuple[str, str]]:
    """Return profile and row of each of today's configurations, which do not change, by ``_shared_hash``."""
    rows = {}
    for profile, name in product(PROFILES.values(), EXPERIMENTS):
        configuration = configure_stages(name, profile, dict(stages), benchmark="", data="")
        rows[_shared_hash(configuration.to_json())] = profile.name, name
    return rows


def _shared_hash(configuration: Mapping) -> str:
    """Return the hash of what the runs of a row share, whatever their images, seed and start."""
    own = ("benchmark", "data", "seed", "start")  # not "imported" and held-out persons: no row has these
    return configuration_hash({key: value for key, value in configuration.items() if key not in own})


def row_of(
    configuration: Mapping, start: Mapping | None = None, *, pretraining: bool = False
) -> tuple[str, str]:
    """Return profile and row of a configuration, two empty texts if it is not that of a row."""
    # ``start`` is what evidence keeps of the run that it started from, which must be the same row's.
    none = "", ""
    names = ("benchmark", "data", "start")
    identity: dict[str, Any] = {name: str(configuration.get(name, "")) for name in names}
    if identity["start"] and not start:
        return none
    stages = stages_of(identity["benchmark"], identity["start"], pretraining=pretraining)
    row = _rows(tuple(stages.items())).get(_shared_hash(configuration))
    if row is None:
        return none
    profile = PROFILES[row[0]]
    try:
        own = configure_stages(row[1], profile, stages, seed=configuration["seed"], **identity).to_json()
    except (InputError, KeyError):  # no row has such a seed
        return none
    if configuration_hash(own) != configuration_hash(dict(configuration)):
        return none
    if start and row_of(start["config.json"], start.get(START), pretraining=True) != row:
        return none
    return row


def pretraining_of(configuration: Mapping, start: Mapping) -> str:
    """Return the specifications of the sets that a run was trained on before, the first one first."""
    if not configuration.get("start"):
        return ""
    config = start["config.json"]
    before = pretraining_of(config, start.get(START, {}))
    return f"{before}, then {config['benchmark']}" if before else str(config["benchmark"])


def difference_text(first: EvidenceRun, second: EvidenceRun) -> str:
    """Say how two results of one configuration differ; empty if those that both have are equal."""
    for name in [name for name in first.contents if name in second.contents]:
        both = [(run, run.contents[name].get("branches", {})) for run in (first, second)]
        # Sums follow from the same queries as the means; their compressed text depends on zlib's version.
        if leave_out(both[0][1], ("by_person",)) != leave_out(both[1][1], ("by_person",)):
            texts = []
            for run, branches in both:
                share = next(iter(reversed(branches.values())))["step"]["mean_average_precision"]
                texts.append(f"mAP (step) {100 * share:.3f} on {run.information['device']}")
            return f"{'' if name == 'scores.json' else f'{name}, '}{' and '.join(texts)}"
    return ""
