"""The benchmarks of the papers' tables in the folders that the user gives, and what is pre-trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from reidlib.analysis.benchmark_tables.printed import TABLES, specifications
from reidlib.data import load
from reidlib.data.benchmark import Benchmark, combine
from reidlib.data.readers import GUIDES, defaults, parse
from reidlib.errors import InputError
from reidlib.experiments.rows import get_profile

# The sets on which JLML was pre-trained before it was trained on a small set, as we recall it. Which boxes
# and which of CUHK03's partitions it used, nobody here knows: these are the defaults.
PRETRAINING_SETS = ("cuhk03", "market1501")
SMALL_BENCHMARKS = ("cuhk01", "grid", "viper")  # recalled, too


def folder_of(specification: str, folders: Mapping[str, str | Path]) -> Path | None:
    """Return the folder of a benchmark.

    Args:
        specification: The benchmark with its options.
        folders: Name or specification of a benchmark -> folder; an empty folder counts as not given.

    Returns:
        The absolute folder that is given for the whole specification, rather with ``partitions=FILE`` than
        without, or else for the benchmark's name. None if there is none of them.
    """
    given = given_as(specification, folders)
    return given and given[1]


def given_as(specification: str, folders: Mapping[str, str | Path]) -> tuple[str, Path] | None:
    """Return the specification under which a benchmark's folder is given, perhaps with partitions, and it."""
    wanted, names = parse(specification), [name for name, folder in folders.items() if folder]
    fitting = [(name, name) for name in names if wanted in (_without_partitions(name), parse(name))]
    fitting.sort(key=lambda pair: "partitions" not in parse(pair[0])[1])
    fitting += [(specification, name) for name in names if name == wanted[0]]
    if not fitting:
        return None
    given, name = fitting[0]
    return given, Path(folders[name]).expanduser().absolute()


def _without_partitions(specification: str) -> tuple[str, dict[str, Any]]:
    name, options = parse(specification)
    return name, {key: value for key, value in options.items() if key != "partitions"}


def folders_of(benchmark: str, folders: Mapping[str, str | Path]) -> list[str]:
    """Return all folders that are given for a benchmark, with whatever options.

    Args:
        benchmark: The benchmark's name without options.
        folders: Name or specification of a benchmark -> folder.

    Returns:
        The folders, each once.
    """
    matches = [str(folder) for name, folder in folders.items() if folder and parse(name)[0] == benchmark]
    return list(dict.fromkeys(matches))


def add_data_root(
    folders: Mapping[str, str | Path], benchmark: str = "synthetic", data_root: str | Path | None = None
) -> dict[str, str | Path]:
    """Return the folders for the tables, with a run's own benchmark added if a table is about it.

    Args:
        folders: Name or specification of a benchmark -> folder.
        benchmark: Specification of the benchmark that the notebook or command runs on.
        data_root: Folder of that benchmark; empty or None for the embedded benchmark.

    Returns:
        Name or specification of a benchmark -> folder. An entry of ``folders`` takes precedence. A benchmark
        with ``validation`` is not added: the tables would score runs on its test images.
    """
    name, options = parse(benchmark)
    if not data_root or "validation" in options or name not in {table.benchmark for table in TABLES}:
        return dict(folders)
    return {name: str(data_root), **folders}


def choose_protocol_benchmark(
    profile: str, folders: Mapping[str, str | Path], benchmark: str = "synthetic", data_root: str = ""
) -> tuple[str, str] | None:
    """Choose the benchmark on which the last section of notebook 42 compares protocols.

    Args:
        profile: Name of the profile.
        folders: Name or specification of a benchmark -> folder, for the tables.
        benchmark: Specification of the benchmark that the notebook runs on.
        data_root: Folder of that benchmark; empty for the embedded benchmark.

    Returns:
        Specification and folder. If the profile needs a real benchmark and the notebook has none, Market-1501
        or else DukeMTMC-reID from ``folders``. None if there is neither.
    """
    if data_root or get_profile(profile).rendered_size is not None:
        return benchmark, str(data_root)
    choices = [(name, str(folders[name])) for name in ("market1501", "dukemtmc") if folders.get(name)]
    return choices[0] if choices else None


def check_folders(folders: Mapping[str, str | Path]) -> None:
    """Check the folders that are given for the tables.

    Args:
        folders: Name or specification of a benchmark -> folder.

    Raises:
        InputError: If no table is about a benchmark, if a benchmark is given twice, or if a folder does not
            exist.
    """
    benchmarks = sorted({table.benchmark for table in TABLES})
    for position, (name, folder) in enumerate(folders.items()):
        benchmark, options = parse(name)
        if benchmark not in benchmarks:
            raise InputError(
                f"the papers' tables are about {', '.join(benchmarks)}", repr(name), "name one of them"
            )
        of_tables = [text for text in specifications() if parse(text)[0] == benchmark]
        pretraining = name in _given_for_pretraining(folders)
        exact = _without_partitions(name) in map(parse, of_tables)
        if options and not pretraining and not exact:
            raise InputError(
                "a folder is given for a benchmark, or for the exact options of one of its tables, "
                "with partitions=FILE or without",
                repr(name),
                f"write {' or '.join(dict.fromkeys([benchmark, *of_tables]))}",
            )
        earlier = [*folders][:position]
        if equal := [other for other in earlier if _without_partitions(other) == _without_partitions(name)]:
            raise InputError("a benchmark's folder is given once", f"{equal[0]} and {name}", "leave one out")
        if folder and not Path(folder).expanduser().is_dir():
            raise InputError(f"the folder of {name} exists", folder, "check the path")


def folder_states(folders: Mapping[str, str | Path], trials: int = 0) -> dict[str, list[str]]:
    """Describe the content of the given folders on which the tables depend.

    Args:
        folders: Name or specification of a benchmark -> folder.
        trials: Number of partitions to describe; 0 for all.

    Returns:
        Specification of each benchmark with a folder -> fingerprints of its partitions, number of multi-query
        boxes, protocols and deviations from the official counts; or the error, if it cannot be read.
    """
    states = {}
    for specification in (*specifications(), *_given_for_pretraining(folders)):
        if folder_of(specification, folders) is not None:
            try:
                benchmarks = trials_of(specification, folders, trials)
            except InputError as error:
                states[specification] = [str(error)]
                continue
            boxes = benchmarks[0].boxes
            states[specification] = [
                *(benchmark.fingerprint for benchmark in benchmarks),
                f"{0 if boxes is None else len(boxes)} boxes",
                repr(benchmarks[0].protocols),
                *folder_deviations(specification, folders),
            ]
    return states


def unreadable_benchmarks(folders: Mapping[str, str | Path]) -> dict[str, str]:
    """Return the tables' benchmarks that cannot be read from their folders.

    Args:
        folders: Name or specification of a benchmark -> folder.

    Returns:
        Specification -> reason.

    Raises:
        InputError: If none of the tables' benchmarks can be read from one of the folders.
    """
    reasons = {}
    for name in folders:
        exact = _without_partitions(name)
        candidates = [text for text in specifications() if exact == parse(text) or name == parse(text)[0]]
        candidates = candidates or [name]  # one that is given for pre-training
        errors = {}
        for specification in candidates:
            try:
                load_trial(specification, folders)
            except InputError as error:
                errors[specification] = error
        if len(errors) == len(candidates):
            raise errors[candidates[0]]
        reasons |= {specification: str(error) for specification, error in errors.items()}
    return reasons


def pretraining_benchmark(folders: Mapping[str, str | Path]) -> Benchmark | None:
    """Combine CUHK03 and Market-1501 into one benchmark; None if the folder of either is not given."""
    alone = {parse(text)[0]: text for text in _given_for_pretraining(folders)}
    texts = [name if folder_of(name, folders) else alone.get(name, "") for name in PRETRAINING_SETS]
    return combine([load_trial(text, folders) for text in texts]) if all(texts) else None


def _given_for_pretraining(folders: Mapping[str, str | Path]) -> list[str]:
    """Return the specifications of folders whose training images alone are given, to pre-train on."""
    return [
        text
        for text, folder in folders.items()
        if folder and parse(text)[0] in PRETRAINING_SETS and parse(text)[1].get("training_only")
    ]


def pretraining_stages(specification: str, folders: Mapping[str, str | Path]) -> tuple[Benchmark, ...]:
    """Return the benchmarks to pre-train on: ``pretraining_benchmark`` if small, otherwise none."""
    if parse(specification)[0] not in SMALL_BENCHMARKS:
        return ()
    try:
        combined = pretraining_benchmark(folders)
    except InputError as error:
        raise InputError(f"pre-training: {error.rule}", error.value, error.mend) from error
    return () if combined is None else (combined,)


def _required(specification: str, folders: Mapping[str, str | Path]) -> tuple[str, Path, dict[str, Any]]:
    """Return name, folder and options of a benchmark that is given."""
    given = given_as(specification, folders)
    assert given is not None, f"no folder is given for {specification}"
    name, options = parse(given[0])
    return name, given[1], options


def load_trial(specification: str, folders: Mapping[str, str | Path], trial: int = 0) -> Benchmark:
    """Load a partition of a benchmark from its folder; raises InputError like ``load``."""
    name, folder, options = _required(specification, folders)
    benchmark = load(name, folder, trial=trial, **options)
    if "partitions" in options:
        persons = len(np.unique(benchmark.query.person_ids))
        expected = options.get("test_persons", defaults(name)["test_persons"])
        if persons != expected and not folder_deviations(specification, folders):
            others = [text for text in specifications() if parse(text)[0] == name and text != specification]
            raise InputError(
                f"partitions for the table {specification} test {expected} persons",
                f"{options['partitions']} with {persons}",
                f"give a file for this table{''.join(f', or this one for {text}' for text in others)}",
            )
    return benchmark


def trials_of(specification: str, folders: Mapping[str, str | Path], trials: int) -> list[Benchmark]:
    """Load a benchmark's partitions, all (0) or the first ``trials``; raises InputError like ``load``."""
    first = load_trial(specification, folders)
    count = min(trials, first.num_trials) if trials else first.num_trials
    return [first, *(load_trial(specification, folders, trial) for trial in range(1, count))]


def folder_deviations(specification: str, folders: Mapping[str, str | Path]) -> list[str]:
    """Describe how a benchmark's folder deviates from the official counts; empty if it does not."""
    from reidlib.data.check import count_deviations  # imports torch, to read images

    name, folder, options = _required(specification, folders)
    return count_deviations(name, folder, **options)


def overview(folders: Mapping[str, str | Path]) -> pd.DataFrame:
    """Return the public benchmarks with the folders that are given and what such a folder contains."""
    rows = [
        (guide.title, "; ".join(folders_of(name, folders)) or "not given", guide.layout)
        for name, guide in GUIDES.items()
    ]
    return pd.DataFrame(rows, columns=["benchmark", "folder", "what the folder holds"])


def guidance(benchmark: str) -> str:
    """Explain in Markdown how to get a public benchmark and where to give its folder."""
    guide = GUIDES[benchmark]
    return (
        f"*{guide.title} is not given here.* {guide.source} **Place:** {guide.layout}. {guide.know} "
        f"Then `{guide.command}`, and give the folder above."
    )
