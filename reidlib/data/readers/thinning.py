"""Fewer persons, or fewer images of each, to train on, for learning curves; test images stay as they are.

``train_persons=N`` keeps N training persons, the first ones in an order by hash of their places among the
sorted ids: those of a smaller number are among those of a larger one. ``images_per_person=K`` keeps at most K
images of each, in rounds over the person's cameras, so that with K of 2 and more a person keeps two cameras
if it has them. The order of the cameras, and of each camera's images, is by hash. Images of a smaller K are
among those of a larger one, and which ones they are does not depend on ``train_persons``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers.layout import seeded_order
from reidlib.data.readers.persons import draw_persons
from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun

# Options of every benchmark, with the least that each may be; without one, all persons or images are kept.
THINNING = {"train_persons": 2, "images_per_person": 1}
_OPTION = re.compile(rf",({'|'.join(THINNING)})=(\d+)")


def without_thinning(specification: str) -> str:
    """Return a benchmark's specification without the options that thin its training images."""
    return _OPTION.sub("", specification)


def thinning_of(specification: str) -> tuple[int, int]:
    """Return ``train_persons`` and ``images_per_person`` of a specification; 0 for all."""
    given = {name: int(number) for name, number in _OPTION.findall(specification)}
    return given.get("train_persons", 0), given.get("images_per_person", 0)


def thin(benchmark: Benchmark, options: Mapping[str, int]) -> Benchmark:
    """Return a benchmark with fewer training images; ``options`` are of ``THINNING``."""
    train = benchmark.train
    if "train_persons" in options:
        train = _fewer_persons(train, options["train_persons"], benchmark.specification)
    if "images_per_person" in options:
        train = train.select(_spread_rows(train, options["images_per_person"]))
    return replace(benchmark, train=train, options={**benchmark.options, **options})


def _fewer_persons(train: Split, count: int, name: str) -> Split:
    persons = np.unique(train.person_ids).tolist()
    if count > len(persons):
        rule = f"train_persons is at most the number of training persons of {name}, {len(persons):,}"
        raise InputError(rule, f"{count:,}", f"use {len(persons)} or fewer, or leave the option out")
    drawn = draw_persons(f"training persons of {len(persons)}", persons, count)
    return train.select(np.isin(train.person_ids, drawn))


def _spread_rows(train: Split, count: int) -> np.ndarray:
    """Return the rows of at most ``count`` images of each person, over its cameras in turns."""
    sightings: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, (person, camera) in enumerate(
        zip(train.person_ids.tolist(), train.camera_ids.tolist(), strict=True)
    ):
        sightings[person][camera].append(row)
    kept: list[int] = []
    for person, cameras in sightings.items():
        order = seeded_order(f"cameras of person {person}", len(cameras))
        turns = []  # (round, turn of the camera, row)
        for turn, camera in zip(order, sorted(cameras), strict=True):
            rows = cameras[camera]
            shuffled = seeded_order(f"images of person {person}, camera {camera}", len(rows))
            turns += [(number, turn, rows[place - 1]) for number, place in enumerate(shuffled)]
        kept += [row for *_, row in sorted(turns)[:count]]
    return np.array(sorted(kept))


def describe(benchmark: Benchmark) -> str:
    """Say how many training persons and images a thinned benchmark has."""
    persons = count_noun(len(np.unique(benchmark.train.person_ids)), "persons")
    return f"thinned for a learning curve: {persons} in {count_noun(len(benchmark.train), 'training images')}"
