"""Evidence that travels in git: the small files of runs, from which a clone makes tables without training.

``reports/evidence`` has a folder for each set, a profile and a benchmark such as
``quick-market1501,validation=true``, and in it a file for each row, ROW.jsonl. A line is a run:
configuration, scores, device, seconds, versions and commit, and the last line of the history. Values by query
are summed by person, which is all that an interval needs (``analysis.statistics``). Lines are only added.

A line is not taken on trust: its format, data and configuration are compared with the set's and with the
row's today, and its sums with its means.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from reidlib import files
from reidlib.errors import InputError, count_noun, shorten
from reidlib.experiments.rows import EXPERIMENTS, PROFILES, configure, get_profile
from reidlib.experiments.setup import MissingRun, Runs
from reidlib.files import write_text
from reidlib.training.runs import Run, configuration_hash

FORMAT = 1
# How the sets behind the README are called in tables, by the fingerprint of their data.
TITLES = {
    "3497ebe48a4b1ab3": "400 test persons of the embedded benchmark (rendered people)",
    "21263c5260ea0f20": "Market-1501, 500 training / 251 validation persons",
}
# Short names of the benchmarks that reports compare.
NAMES = {"synthetic": "rendered people", "market1501,validation=true": "photographs"}
_RANKS, _KINDS = (1, 5, 10, 20), ("step", "trapezoid")
# Measures whose sums are kept by person.
BY_PERSON = (*(f"R{rank}" for rank in _RANKS), "mAP (step)", "mAP (trapezoid)")
# Scores under perturbations, and on other benchmarks.
_FOLDERS = ("conditions", "across")
_BY_QUERY = ("average_precision", "first_match_rank")
_WITH_PATHS = ("data_root", "data_roots", "not_compared")
_CONFLICT = ("<<<<<<<", "|||||||", "=======", ">>>>>>>")
_GIT_MEND = "restore it with `git checkout`, or copy it again"


@dataclass(frozen=True)
class EvidenceRun(Run):
    """A run without a folder: its small files are in a line of a file of evidence.

    Attributes:
        contents: Name of each file -> the object in it; ``history.jsonl`` -> its last line.
    """

    contents: Mapping[str, dict] = field(default_factory=dict, hash=False, compare=False, repr=False)

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
    def scores(self) -> dict | None:
        """Scores with ``by_person`` in each branch instead of values by query; see ``sums_by_person``."""
        return self.find("scores.json")


@dataclass(frozen=True)
class Evidence:
    """The evidence of a profile and a benchmark.

    Attributes:
        profile: Name of the profile.
        benchmark: Name and options of the benchmark.
        data: Fingerprint of its images' names and persons; empty without any evidence.
        runs: (Row, seed) -> the run.
        notes: What a reader must know: runs that are not used, and results that differ.
    """

    profile: str
    benchmark: str
    data: str = ""
    runs: Mapping[tuple[str, int], EvidenceRun] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, profile: str, benchmark: str, folder: str | Path | None = None) -> Evidence:
        """Read the evidence of a profile and a benchmark.

        Args:
            profile: Name of the profile.
            benchmark: Name and options of the benchmark.
            folder: The folder of all sets; by default ``reports/evidence`` of the clone.

        Returns:
            The evidence, with no runs if there is none.

        Raises:
            InputError: If a file is damaged, has another format or is of other data; the message names it.
        """
        get_profile(profile)
        records = [*_records(set_folder(profile, benchmark, folder), (profile, benchmark))]
        if not records:
            return cls(profile, benchmark)
        runs: dict[tuple[str, int], EvidenceRun] = {}
        notes: list[str] = []
        outdated: list[str] = []
        for record in records:
            key = record.row, record.seed
            if record.today[1] != record.row:
                outdated.append(f"{record.row}, seed {record.seed}")
            elif key not in runs:
                runs[key] = record.run
            elif difference := _difference(runs[key], record.run):
                notes.append(
                    f"two results for {record.row}, seed {record.seed}: {difference}; the first is used"
                )
            else:  # the same result with more files
                runs[key] = EvidenceRun(runs[key].folder, {**record.run.contents, **runs[key].contents})
        if outdated:
            notes.append(f"not used, because the row has another configuration today: {shorten(outdated)}")
        commits = dict.fromkeys(str(run.information.get("commit")) for run in runs.values())
        if others := [commit for commit in commits if commit != files.commit()]:
            notes.append(f"trained with another version of the code: commit {shorten(others)}")
        return cls(profile, benchmark, records[0].data, runs, tuple(notes))

    @classmethod
    def read_existing(cls, profile: str, benchmark: str, folder: str | Path | None = None) -> Evidence:
        """Read the evidence of a profile and a benchmark; InputError if there is none."""
        evidence = cls.read(profile, benchmark, folder)
        if not evidence.runs:
            raise InputError(
                "the evidence of a profile and a benchmark holds runs",
                f"none in {set_folder(profile, benchmark, folder)}",
                "see `reidlib evidence` for what there is, or add runs with `reidlib evidence add FOLDER`",
            )
        return evidence

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows with runs, in the order of ``EXPERIMENTS``."""
        return tuple(name for name in EXPERIMENTS if any(row == name for row, _ in self.runs))

    def summary(self) -> list[str]:
        """Say in lines of text what the evidence is and what a reader must know of it."""
        runs = f"{count_noun(len(self.rows), 'rows')}, {count_noun(len(self.runs), 'runs')}"
        notes = [f"{self.name}: {note}" for note in self.notes]
        return [f"{self.name}, from `reports/evidence`: {self.title}; {runs}", *notes]

    @property
    def title(self) -> str:
        """The set in words, such as "Market-1501, 500 training / 251 validation persons"."""
        return TITLES.get(self.data, self.benchmark)

    @property
    def name(self) -> str:
        """A short name of the benchmark, such as "photographs"."""
        return short_name(self.benchmark)

    def gather(self, experiments: Iterable[str]) -> Runs:
        """Return runs of several rows, as ``Setup.gather`` does.

        Args:
            experiments: Names of rows of ``EXPERIMENTS``.

        Returns:
            The runs of all seeds that any of the rows has, ascending; a seed that a row lacks is missing.
        """
        names = tuple(dict.fromkeys(experiments))
        seeds = sorted({seed for name, seed in self.runs if name in names}) or [0]
        runs = {
            name: tuple(
                self.runs.get((name, seed)) or MissingRun("no evidence", name, seed) for seed in seeds
            )
            for name in names
        }
        missing = tuple(run for of_row in runs.values() for run in of_row if isinstance(run, MissingRun))
        return Runs(runs, len(seeds), missing, self.profile, benchmark=self.benchmark)


def short_name(benchmark: str) -> str:
    """Return a short name of a benchmark for columns, such as "photographs"."""
    return NAMES.get(benchmark, benchmark)


def set_folder(profile: str, benchmark: str, folder: str | Path | None = None) -> Path:
    """Return the folder of a set within a folder of evidence."""
    name = files.safe_name(f"{profile}-{benchmark}")
    return (Path(folder).expanduser() if folder else files.evidence()) / name


@dataclass(frozen=True)
class _Record:
    """A line of a file of evidence, whose format, data and sums have been checked."""

    row: str
    seed: int
    run: EvidenceRun

    @property
    def data(self) -> str:
        return str(self.run.configuration["data"])

    @cached_property
    def today(self) -> tuple[str, str]:
        """Profile and row whose configuration the run has in today's code; empty if none has it."""
        return _row_of(self.run.configuration)


def _records(folder: Path, expected: tuple[str, str] | None = None) -> Iterator[_Record]:
    """Yield the lines of a set's files, in order; InputError for a line that cannot be used."""
    # ``expected``: profile and benchmark of the set. A profile cannot be told from an earlier recipe.
    data = ""
    for path in sorted(folder.glob("[!.]*.jsonl")):  # macOS copies hidden files beside them
        for number, record in _records_of(path):
            data = data or record.data
            actual = record.today[0], str(record.run.configuration["benchmark"])
            if expected and (actual[0] not in ("", expected[0]) or actual[1] != expected[1]):
                raise InputError(
                    f"evidence in {folder.name} is of the profile {expected[0]} and of {expected[1]}",
                    f"{' on '.join(filter(None, actual))} in {path}, line {number}",
                    "move the file out, and add its folder with `reidlib evidence add FOLDER`",
                )
            if record.data != data:
                raise InputError(
                    "the evidence of a set is of the same images and persons",
                    f"data {record.data} in {path}, line {number}, where the set has {data}",
                    "remove the line; evidence of other data is a set of its own, in another folder",
                )
            yield record


def _records_of(path: Path) -> Iterator[tuple[int, _Record]]:
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        except (OSError, ValueError) as error:
            raise InputError("evidence is readable text", f"{path}: {error}", _GIT_MEND) from error
        for number, line in enumerate(lines, 1):
            yield number, _parse(line, f"{path}, line {number}", path.stem)


def _parse(line: str, place: str, row: str) -> _Record:
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
        if content.get("format") != FORMAT:
            raise InputError(
                f"evidence has format {FORMAT}",
                f"format {content.get('format')} in {place}",
                "use the version of the code that wrote it, or add the runs again",
            )
        contents, seed = content["files"], content["files"]["config.json"]["seed"]
        name = f"{row}-seed{seed}-{configuration_hash(contents['config.json'])}"
        run = EvidenceRun(Path(name), contents)
        if (content["row"], content["seed"]) != (row, seed):
            raise ValueError(f"row {content['row']}, seed {content['seed']}, of {name}")
        _check_sums(run)
        _ = run.information["device"], run.information["seconds"], run.configuration["benchmark"]
        if "full" not in contents["scores.json"]["branches"]:
            raise ValueError("no scores of the whole feature")
        if contents["scores.json"]["data"] != run.configuration["data"]:
            raise ValueError("scores on other data than the run's")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        value = f"{place}: {type(error).__name__}: {error}"
        raise InputError("a line of evidence is a complete run", value, _GIT_MEND) from error
    return _Record(row, seed, run)


def _check_sums(run: EvidenceRun) -> None:
    """Raise ValueError if sums by person do not give the means beside them."""
    for name, scores in run.contents.items():
        for branch, values in scores.get("branches", {}).items():
            sums = sums_by_person(values)
            queries = sums["queries"].sum()
            means = {f"R{rank}": values["step"]["cmc"][str(rank)] for rank in _RANKS}
            means |= {
                f"mAP ({kind})": values[kind]["mean_average_precision"] for kind in ("step", "trapezoid")
            }
            for measure, mean in means.items():
                if not abs(sums[measure].sum() / queries - mean) <= 1e-6:  # NaN is none
                    raise ValueError(f"{name}: the {measure} of branch {branch} is not that of its persons")


def sums_by_person(branch: Mapping) -> dict[str, np.ndarray]:
    """Return a branch's sums over the queries of each person.

    Args:
        branch: A branch's scores: with "by_person", or with values by query and "query_person_ids".

    Returns:
        "persons", their ids (P,), "queries", their numbers of queries with a match, and for each measure of
        ``BY_PERSON`` the sums of these queries' shares.

    Raises:
        InputError: If values, ids and ranks are not of equally many queries.
    """
    if "by_person" in branch:
        return {name: _unpack(text) for name, text in branch["by_person"].items()}
    first_q = np.array(branch["step"]["first_match_rank"])
    values = {f"R{rank}": (first_q <= rank).astype(float) for rank in _RANKS}
    values |= {f"mAP ({kind})": np.array(branch[kind]["average_precision"], dtype=float) for kind in _KINDS}
    ids_q = np.array(branch.get("query_person_ids") or range(len(first_q)))
    counts = dict.fromkeys(len(row) for row in (ids_q, *values.values()))
    if len(counts) > 1:
        value = f"{', '.join(map(str, counts))} queries"
        raise InputError("all scores of a branch are over the same queries", value, "evaluate the run again")
    valid_q = first_q > 0
    persons, person_q = np.unique(ids_q[valid_q], return_inverse=True)
    sums = {name: np.bincount(person_q, row[valid_q], len(persons)) for name, row in values.items()}
    return {"persons": persons, "queries": np.bincount(person_q, minlength=len(persons)), **sums}


def _pack(values: np.ndarray) -> str:
    """Return an array as text: its type, and its bytes, compressed."""
    if not np.array_equal(values, values.astype(np.int32)):
        kind = "<f4"
    else:
        kind = "<u2" if values.min(initial=0) >= 0 and values.max(initial=0) < 2**16 else "<i4"
    return f"{kind}:{base64.b64encode(zlib.compress(values.astype(kind).tobytes(), 9)).decode()}"


def _unpack(text: str) -> np.ndarray:
    kind, _, data = text.partition(":")
    if kind not in ("<u2", "<i4", "<f4"):
        raise ValueError(f"numbers of the kind {kind[:9]}")
    try:
        content = zlib.decompress(base64.b64decode(data, validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    return np.frombuffer(content, kind).astype(float if kind == "<f4" else np.int64)


def _without_queries(scores: dict) -> dict:
    """Return scores whose branches hold sums by person instead of values by query."""
    branches = {}
    for name, branch in scores["branches"].items():
        by_person = sums_by_person({**branch, "query_person_ids": scores.get("query_person_ids")})
        small = _drop(branch)
        small["trapezoid"].pop("cmc", None)  # that of "step"
        branches[name] = small | {"by_person": {key: _pack(value) for key, value in by_person.items()}}
    return {key: value for key, value in scores.items() if key != "query_person_ids"} | {"branches": branches}


def _drop(value: dict, names: tuple[str, ...] = _BY_QUERY) -> dict:
    return {k: _drop(v, names) if isinstance(v, dict) else v for k, v in value.items() if k not in names}


@cache
def _rows(benchmark: str, data: str, seed: int) -> dict[str, tuple[str, str]]:
    """Return profile and row of every configuration of today's code, by the configuration's hash."""
    return {
        configuration_hash(
            configure(name, profile, benchmark=benchmark, data=data, seed=seed)[0].to_json()
        ): (
            profile.name,
            name,
        )
        for profile in PROFILES.values()
        for name in EXPERIMENTS
    }


def _row_of(configuration: Mapping) -> tuple[str, str]:
    """Return profile and row of a configuration, two empty texts if it is not that of a row."""
    identity = (str(configuration.get(name)) for name in ("benchmark", "data"))
    try:
        rows = _rows(*identity, configuration["seed"])
    except (InputError, KeyError, TypeError):  # no row has such a seed
        return "", ""
    return rows.get(configuration_hash(dict(configuration)), ("", ""))


def _difference(first: EvidenceRun, second: EvidenceRun) -> str:
    """Say how two results of one configuration differ; empty if those that both have are equal."""
    for name in [name for name in first.contents if name in second.contents]:
        both = [(run, run.contents[name].get("branches", {})) for run in (first, second)]
        # Sums follow from the same queries as the means; their compressed text depends on zlib's version.
        if _drop(both[0][1], ("by_person",)) != _drop(both[1][1], ("by_person",)):
            texts = []
            for run, branches in both:
                share = next(iter(reversed(branches.values())))["step"]["mean_average_precision"]
                texts.append(f"mAP (step) {100 * share:.3f} on {run.information['device']}")
            return f"{'' if name == 'scores.json' else f'{name}, '}{' and '.join(texts)}"
    return ""


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


def add(source: str | Path, folder: str | Path | None = None) -> Addition:
    """Add runs to the evidence.

    Args:
        source: A run's folder, a folder of runs, or a folder of evidence, such as another clone's.
        folder: The folder of all sets; by default ``reports/evidence`` of the clone.

    Returns:
        What was added. A run is refused if it has no scores, is not a row's own training with its values of
        today, is of other data than its set, or has another result than the set has for its row and seed.

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
    for path in paths:
        if not configurations and not (path.parent / "run.json").is_file():
            addition.unfinished += 1
            continue
        _add_if_valid(path.parent.name, lambda path=path: _contents(Run(path.parent)), folder, addition)
    for parent in dict.fromkeys(path.parent for path in lines):
        for record in _records(parent):
            contents = dict(record.run.contents)
            _add_if_valid(record.run.folder.name, lambda contents=contents: contents, folder, addition)
    return addition


class _Refusal(InputError):
    """A run does not belong to the evidence that is there."""


def _add_if_valid(name: str, read: Callable[[], dict], folder: str | Path | None, addition: Addition) -> None:
    try:
        contents = read()
        profile, row = _row_of(contents["config.json"])
        if not row:
            rule = "evidence is of a row's own training, with the values that the row has today"
            raise InputError(rule, "another configuration", "train the row again")
        line = {"format": FORMAT, "row": row, "seed": contents["config.json"]["seed"], "files": contents}
        text = json.dumps(line, separators=(",", ":")) + "\n"
        _parse(text, name, row)  # a line that nobody could read again would spoil its set
    except InputError as error:
        addition.refused.append(f"{name}: {error}")
        return
    try:
        if _append(profile, row, contents, text, folder):
            addition.added.append(name)
        else:
            addition.present += 1
    except _Refusal as error:
        addition.refused.append(f"{name}: {error}")


def _contents(run: Run) -> dict[str, dict]:
    """Return what evidence keeps of a run; InputError if the run is not finished or not scored."""
    run = Run.open(run.folder.absolute())
    if "partitions=" in (benchmark := str(run.configuration.get("benchmark"))):
        rule = "evidence holds no paths, so it is of the suite's own partitions"
        raise InputError(rule, benchmark, "leave the option partitions out")
    scores = run.scores
    if scores is None or scores.get("data") != run.configuration["data"]:
        raise InputError("evidence is of runs with scores", "none", "score it with `reidlib evaluate`")
    contents = {"config.json": run.configuration, "run.json": run.information}
    try:
        contents["scores.json"] = _without_queries(scores)
        if (run.folder / "history.jsonl").is_file() and run.history:
            contents["history.jsonl"] = run.history[-1]
        for path in sorted(path for name in _FOLDERS for path in run.folder.glob(f"{name}/*.json")):
            name = f"{path.parent.name}/{path.name}"
            contents[name] = _without_queries(run.read(name))
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        value = f"{type(error).__name__}: {error}"
        raise InputError("a run's scores are complete", value, "score it with `reidlib evaluate`") from error
    return json.loads(json.dumps(_drop(contents, _WITH_PATHS)))


def _append(profile: str, row: str, contents: dict[str, dict], line: str, folder: str | Path | None) -> bool:
    """Append a run to its row's file unless it is there; InputError if it does not fit to what is there."""
    configuration = contents["config.json"]
    path = set_folder(profile, configuration["benchmark"], folder) / f"{row}.jsonl"
    run = EvidenceRun(Path(row), contents)
    with files.exclusive_lock(
        path.with_name(".lock"), make_error=lambda error: files.write_error(path, error)
    ):
        first = next(_records(path.parent, (profile, configuration["benchmark"])), None)
        if first and first.data != configuration["data"]:
            raise _Refusal(
                "the evidence of a set is of the same images and persons",
                f"data {configuration['data']}, where {path.parent} has {first.data}",
                "compare the benchmark's folder with `reidlib check`, or use another folder of evidence",
            )
        for _, record in _records_of(path):
            if record.run.configuration != configuration:
                continue  # another seed, or an earlier recipe
            if difference := _difference(record.run, run):
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


def references(profile: str, benchmark: str, folder: str | Path | None = None) -> list[Evidence]:
    """Read the evidence that a result on a benchmark stands beside.

    Args:
        profile: Name of the profile.
        benchmark: Name and options of the result's benchmark.
        folder: The folder of all sets; by default ``reports/evidence`` of the clone.

    Returns:
        The evidence on the other benchmarks of ``NAMES``, without those that have none.

    Raises:
        InputError: If evidence is damaged.
    """
    others = (Evidence.read(profile, name, folder) for name in NAMES if name != benchmark)
    return [each for each in others if each.runs]


def state(folder: str | Path | None = None) -> str:
    """Return a fingerprint of all evidence in a folder, by default ``reports/evidence`` of the clone."""
    root = Path(folder).expanduser() if folder else files.evidence()
    digest = hashlib.sha256()
    for path in sorted(root.glob("*/*.jsonl")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def describe(folder: str | Path | None = None) -> list[str]:
    """Return a line for each set of a folder of evidence: its rows, runs and seeds, and its size.

    Args:
        folder: The folder of all sets; by default ``reports/evidence`` of the clone.

    Returns:
        The lines, those of notes after their set's.

    Raises:
        InputError: If evidence is damaged.
    """
    root, lines = Path(folder).expanduser() if folder else files.evidence(), []
    for path in sorted(path for path in root.glob("*") if path.is_dir()):
        records = [*_records(path)]
        if not records:
            continue
        benchmark = str(records[0].run.configuration["benchmark"])
        profile = next((name for name in PROFILES if set_folder(name, benchmark, root) == path), None)
        if profile is None:
            rule = "a set's folder is named PROFILE-BENCHMARK, as `reidlib evidence add` does"
            raise InputError(rule, f"{path}, of {benchmark}", "add it to a folder of sets, or move it out")
        evidence = Evidence.read(profile, benchmark, root)
        rows = list(dict.fromkeys(row for row, _ in evidence.runs))
        size = sum(file.stat().st_size for file in path.glob("*.jsonl")) / 2**20
        lines.append(
            f"{path.name}: {evidence.title}; {count_noun(len(rows), 'rows')}, "
            f"{count_noun(len(evidence.runs), 'runs')}, {size:.1f} MiB"
        )
        lines += [f"  {note}" for note in evidence.notes]
    return lines
