"""The evidence of a profile and a benchmark, read from its files, and what a clone holds."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from reidlib import files
from reidlib.data.readers import canonical
from reidlib.data.readers.thinning import thinning_of, without_thinning
from reidlib.errors import InputError, count_noun, shorten
from reidlib.experiments.evidence.lines import EvidenceRun, Line, difference_text, lines_of
from reidlib.experiments.rows import EXPERIMENTS, PROFILES, get_profile
from reidlib.experiments.setup import MissingRun, Runs

# Fingerprints of one rendering, whose images differ by a few levels in about one of 200: until November 2026
# the last bit of square roots depended on the processor. The second is that of all processors since then.
_SAME_IMAGES = ({"3497ebe48a4b1ab3", "1084af2019312dee"},)
# How the sets behind the README are called in tables, by the fingerprint of their data.
TITLES = {
    "3497ebe48a4b1ab3": "400 test persons of the embedded benchmark (rendered people)",
    "21263c5260ea0f20": "Market-1501, 500 training / 251 validation persons",
}
# Short names of the benchmarks that reports compare.
NAMES = {"synthetic": "rendered people", "market1501,validation=true": "photographs"}


@dataclass(frozen=True)
class Evidence:
    """The evidence of a profile and a benchmark.

    Attributes:
        profile: Name of the profile.
        benchmark: Name and options of the benchmark; of a file of partitions only the file's name.
        data: Fingerprint of its images' names and persons; empty without any evidence.
        runs: (Row, seed) -> the run.
        notes: What a reader must know: runs that are not used, and results that differ.
        pretraining: The sets that the runs were trained on before; empty if on ``benchmark`` alone.
    """

    profile: str
    benchmark: str
    data: str = ""
    runs: Mapping[tuple[str, int], EvidenceRun] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pretraining: str = ""

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
        expected = (profile, benchmark, False)
        records = lines_of_set(set_folder(profile, benchmark, folder), expected)
        return cls._of(profile, benchmark, [each for each in records if each.benchmark == benchmark])

    @classmethod
    def read_all(
        cls, profile: str, folder: str | Path | None = None, *, benchmark: str = ""
    ) -> list[Evidence]:
        """Read all evidence of a profile.

        Args:
            profile: Name of the profile.
            benchmark: The name, without options, of the only benchmark to read; empty for all.
            folder: The folder of all sets; by default ``reports/evidence`` of the clone.

        Returns:
            The evidence of each benchmark, partition and pre-training, ordered by these.

        Raises:
            InputError: If a file is damaged, has another format or is of other data; the message names it.
        """
        get_profile(profile)
        root = Path(folder).expanduser() if folder else files.evidence()
        paths = sorted(path for path in root.glob(f"{profile}-{benchmark}*") if path.is_dir())
        return [each for path in paths for each in cls.of_set(profile, path)]

    @classmethod
    def of_set(cls, profile: str, path: Path) -> list[Evidence]:
        """Return the evidence in a set's folder, by partition and pre-training."""
        first = next(lines_of_set(path), None)
        expected = first and (profile, first.benchmark, bool(first.pretraining))
        records = sorted(lines_of_set(path, expected), key=_set_of)
        return [cls._of(profile, key[0], [*lines]) for key, lines in groupby(records, key=_set_of)]

    @classmethod
    def _of(cls, profile: str, benchmark: str, records: Sequence[Line]) -> Evidence:
        """Return the evidence in lines of one set."""
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
            elif difference := difference_text(runs[key], record.run):
                notes.append(
                    f"two results for {record.row}, seed {record.seed}: {difference}; the first is used"
                )
            else:  # the same result with more files
                first = runs[key]  # its tests are those that stood when the training was added
                runs[key] = EvidenceRun(first.folder, {**record.run.contents, **first.contents}, first.tests)
        if outdated:
            notes.append(f"not used, because the row has another configuration today: {shorten(outdated)}")
        commits = dict.fromkeys(str(run.information.get("commit")) for run in runs.values())
        if others := [commit for commit in commits if commit != files.commit()]:
            notes.append(f"trained with another version of the code: commit {shorten(others)}")
        precisions: dict[str, set[int]] = {}
        for (_, seed), run in runs.items():
            precisions.setdefault(str(run.information.get("precision", "unknown precision")), set()).add(seed)
        if len(precisions) > 1:
            texts = (f"{name}: seeds {', '.join(map(str, sorted(of)))}" for name, of in precisions.items())
            notes.append(f"trained with several precisions: {'; '.join(texts)}")
        if len({run.configuration["data"] for run in runs.values()}) > 1:
            notes.append(
                "the images of some runs differ by a few levels, because processors rounded differently"
            )
        return cls(profile, benchmark, records[0].data, runs, tuple(notes), records[0].pretraining)

    @classmethod
    def read_existing(cls, profile: str, benchmark: str, folder: str | Path | None = None) -> Evidence:
        """Read the evidence of a profile and a benchmark; InputError if there is none."""
        benchmark = canonical(benchmark)
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
        titles = (title for data, title in TITLES.items() if same_images(data, self.data))
        return next(titles, self.benchmark)

    @property
    def name(self) -> str:
        """A short name of the benchmark, such as "photographs"."""
        return short_name(self.benchmark)

    def gather(self, experiments: Iterable[str]) -> Runs:
        """Return runs of several rows, as ``Setup.gather`` does.

        Args:
            experiments: Names of rows of ``EXPERIMENTS``.

        Returns:
            The runs of all seeds that any of the rows has, ascending. Rows without any run are missing.
        """
        names = tuple(dict.fromkeys(experiments))
        seeds = sorted({seed for name, seed in self.runs if name in names}) or [0]
        runs = {
            name: tuple(
                self.runs.get((name, seed)) or MissingRun("no evidence", name, seed) for seed in seeds
            )
            for name in names
        }
        missing = tuple(
            run
            for of_row in runs.values()
            for run in of_row
            if isinstance(run, MissingRun) and not any(isinstance(other, EvidenceRun) for other in of_row)
        )
        return Runs(
            runs, len(seeds), missing, self.profile, benchmark=self.benchmark, seed_numbers=tuple(seeds)
        )


def same_images(first: str, second: str) -> bool:
    """Return whether two fingerprints of data are of the same images and persons, up to rounding."""
    return first == second or any({first, second} <= equal for equal in _SAME_IMAGES)


def short_name(benchmark: str) -> str:
    """Return a short name of a benchmark for columns, such as "photographs"."""
    return NAMES.get(benchmark, benchmark)


def in_one_set(benchmark: str) -> str:
    """Return what the partitions of a benchmark, and its thinned training images, have in common."""
    return re.sub(r",trial=\d+", "", without_thinning(benchmark))


def _set_of(line: Line) -> tuple[str, str]:
    return line.benchmark, line.pretraining


def set_folder(
    profile: str, benchmark: str, folder: str | Path | None = None, *, pretrained: bool = False
) -> Path:
    """Return the folder of a set, of all its partitions and sizes, within a folder of evidence."""
    name = files.safe_name(f"{profile}-{in_one_set(benchmark)}{'-pretrained' if pretrained else ''}")
    return (Path(folder).expanduser() if folder else files.evidence()) / name


def lines_of_set(folder: Path, expected: tuple[str, str, bool] | None = None) -> Iterator[Line]:
    """Yield the lines of a set's files, in order; InputError for a line that cannot be used."""
    # ``expected``: profile and benchmark of the set, and whether its runs are pre-trained. A profile cannot
    # be told from an earlier recipe.
    data: dict[str, str] = {}  # by partition
    for path in sorted(folder.glob("[!.]*.jsonl")):  # macOS copies hidden files beside them
        for number, record in lines_of(path):
            first = data.setdefault(record.benchmark, record.data)
            actual = record.today[0], record.benchmark
            if expected and (
                actual[0] not in ("", expected[0])
                or in_one_set(actual[1]) != in_one_set(expected[1])
                or bool(record.pretraining) != expected[2]
            ):
                raise InputError(
                    f"evidence in {folder.name} is of the profile {expected[0]} and of {expected[1]}",
                    f"{' on '.join(filter(None, actual))} in {path}, line {number}",
                    "move the file out, and add its folder with `reidlib evidence add FOLDER`",
                )
            if not same_images(record.data, first):
                raise InputError(
                    "the evidence of a set is of the same images and persons",
                    f"data {record.data} in {path}, line {number}, where the set has {first}",
                    "remove the line; evidence of other data is a set of its own, in another folder",
                )
            yield record


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
    others = (Evidence.read(profile, name, folder) for name in NAMES if name != canonical(benchmark))
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
        record = next(lines_of_set(path), None)
        if record is None:
            continue
        first, pretrained = record.benchmark, bool(record.pretraining)
        folders = {name: set_folder(name, first, root, pretrained=pretrained) for name in PROFILES}
        profile = next((name for name, folder_of in folders.items() if folder_of == path), None)
        if profile is None:
            rule = "a set's folder is named PROFILE-BENCHMARK, as `reidlib evidence add` does"
            raise InputError(rule, f"{path}, of {first}", "add it to a folder of sets, or move it out")
        of_set = Evidence.of_set(profile, path)
        rows = {row for each in of_set for row, _ in each.runs}
        runs = sum(len(each.runs) for each in of_set)
        size = sum(file.stat().st_size for file in path.glob("*.jsonl")) / 2**20
        whole = {without_thinning(each.benchmark) for each in of_set}
        thinned = {each.benchmark for each in of_set if thinning_of(each.benchmark) != (0, 0)}
        parts = {"partitions": len(whole) if len(whole) > 1 else 0, "thinned training sets": len(thinned)}
        partitions = "".join(f"{count_noun(number, noun)}, " for noun, number in parts.items() if number)
        lines.append(
            f"{path.name}: {without_thinning(of_set[0].title)}; {count_noun(len(rows), 'rows')}, {partitions}"
            f"{count_noun(runs, 'runs')}, {size:.1f} MiB"
        )
        lines += [f"  {note}" for note in dict.fromkeys(note for each in of_set for note in each.notes)]
    return lines
