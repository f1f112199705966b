"""Whether persons that a run was trained on, or that its earlier runs were, are among those of a test."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from reidlib import files
from reidlib.data.benchmark import Benchmark, combine
from reidlib.data.readers import load_specified
from reidlib.data.readers.market import RENDERING_FILE
from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun, shorten
from reidlib.experiments.validation import hold_out
from reidlib.training.runs import Run, find_by_hash

# Readers that number the persons of whatever folder they are given: their numbers compare with no others.
_OWN_IMAGES = ("folder", "csv")
_RULE = "a run is scored on persons that it and the runs before it were not trained on"
# A set of other persons may be in this benchmark's layout.
NUMBERS_MEND = "; other persons that have the same numbers are read by the reader folder or csv"


def describe_overlap(trained: Benchmark, train: Split, tested: Benchmark, *more: Split) -> str:
    """Describe training persons or images among query, gallery and ``more`` of a test; empty if none are."""
    # ``train`` are the images of ``trained`` that are trained on; of combined benchmarks all of them are.
    parts = [(member, member.train) for member in trained.members] or [(trained, train)]
    splits = (tested.query, tested.gallery, *more)
    for part, images in parts:
        # The same reader gives the same person the same number, whatever shows the person: another way of
        # boxing, another partition, a copy. Other readers can show that a file is the same, and no more.
        if _have_same_numbers(part, tested):
            persons = np.unique(np.concatenate([split.person_ids for split in splits]))
            persons = np.intersect1d(persons[persons > 0], images.person_ids).tolist()
            if persons:
                return f"{count_noun(len(persons), 'persons')} of {tested.specification}: {shorten(persons)}"
        elif same := sorted({path for split in splits for path in _same_files(images, split)}):
            return f"{count_noun(len(same), 'images')} of {tested.specification}: {shorten(same)}"
    return ""


def _have_same_numbers(one: Benchmark, other: Benchmark) -> bool:
    """Return whether a number is the same person in both benchmarks."""
    if one.name == "synthetic" == other.name:  # a rendered person depends on number and seed alone
        seeds = [
            (files.find_json(root / RENDERING_FILE) or {}).get("seed") for root in (one.root, other.root)
        ]
        return seeds[0] == seeds[1]
    return one.name == other.name and one.name not in _OWN_IMAGES


@lru_cache(maxsize=64)  # notebook 42 asks for each row and seed
def _same_files(train: Split, tested: Split) -> tuple[str, ...]:
    """Return the names of tested images whose files have the content of a training image."""
    sizes_of_both = [[os.stat(path).st_size for path in split.paths] for split in (train, tested)]  # noqa: PTH116
    common = set(sizes_of_both[0]) & set(sizes_of_both[1])
    trained, others = (
        {path: _digest(path) for path, size in zip(split.paths, sizes, strict=True) if size in common}
        for split, sizes in zip((train, tested), sizes_of_both, strict=True)
    )
    contents = set(trained.values())
    return tuple(path.name for path, content in others.items() if content in contents)


@lru_cache(maxsize=2**17)
def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        rule, mend = "images of a training and of a test are compared by content", "check the access rights"
        raise InputError(rule, f"{path}: {error.strerror or error}", mend) from error


def check_persons(run: Run, tested: Benchmark) -> list[str]:
    """Return what could not be compared; InputError if training persons are tested, or might well be."""
    # The runs that it started from are in the folder beside it. Of another benchmark, whose images are not at
    # hand, it is unlikely that it shows the same persons; of the same one, it is not.
    remarks = []
    for link in _chain(run):
        specification, name = link.configuration["benchmark"], link.folder.name
        trained = _load_trained(link, tested)
        if trained is not None:
            persons = link.configuration.get("validation_persons", 0)
            train, _ = hold_out(trained, persons, link.configuration.get("seed", 0))
            if overlap := describe_overlap(trained, train, tested):
                value = f"{overlap}, on which {name} was trained ({specification})"
                mend = f"test it on other persons, or a run that was trained without these{NUMBERS_MEND}"
                raise InputError(_RULE, value, mend)
        else:
            place = link.information.get("data_root") or "a folder that it does not name"
            if tested.name in _names(specification):
                value = f"{name}, trained on {specification}, whose images are not in {place} any more"
                mend = f"put the images back there, or test it on another benchmark than {tested.name}"
                raise InputError(f"{_RULE}, which its images show", value, mend)
            remarks.append(
                f"the training images of {name} ({specification}) are not in {place}: whether"
                f" {tested.specification} shows the same persons was not compared"
            )
        if "imported" in link.information:
            remarks.append(f"{name} is imported: on which persons its checkpoint was trained is not known")
    return remarks


def _chain(run: Run) -> Iterator[Run]:
    """Yield a run and all runs that it started from."""
    yield run
    while start := run.configuration.get("start"):
        earlier = find_by_hash(start, run.folder.parent)
        if earlier is None:
            value = f"{run.folder.name}, which starts from a run …-{start} that is not in {run.folder.parent}"
            mend = "copy that run's folder there; its small files are enough"
            raise InputError(f"{_RULE}, which needs these runs", value, mend)
        yield (run := earlier)


def _names(specification: str) -> list[str]:
    return [part.partition(",")[0] for part in specification.split("+")]


def _load_trained(run: Run, tested: Benchmark) -> Benchmark | None:
    """Return the benchmark that a run was trained on; None if its images are nowhere at hand."""
    # A folder may have moved, so that of the test is tried as well, and the rendered ones of this machine.
    # The fingerprint tells which one it is.
    information, parts = run.information, run.configuration["benchmark"].split("+")
    roots = information.get("data_roots") or [information.get("data_root", "")]
    roots = [*roots, *[""] * (len(parts) - len(roots))]  # older runs on several benchmarks name one folder
    moved = [
        tested.root if name == tested.name else root
        for name, root in zip(_names(run.configuration["benchmark"]), roots, strict=True)
    ]
    rendered = [[path] for path in sorted(files.data().glob("synthetic-*"))] if parts == ["synthetic"] else []
    for places in (roots, moved, *rendered):
        with suppress(InputError, OSError):
            members = [load_specified(part, root) for part, root in zip(parts, places, strict=True)]
            benchmark = members[0] if len(members) == 1 else combine(members)
            if benchmark.fingerprint == run.configuration["data"]:
                return benchmark
    return None
