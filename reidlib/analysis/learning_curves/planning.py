"""The trainings of a learning curve: a benchmark's training images thinned, from each start."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers.thinning import THINNING, thin, thinning_of, without_thinning
from reidlib.errors import InputError
from reidlib.experiments.obtain import TrainingPlan, plan_chain
from reidlib.experiments.rows import RENDERED
from reidlib.experiments.setup import Setup

# Our choice: halves of the training persons, down to a sixteenth, and images of each of all persons.
HALVINGS, IMAGES = 4, (2, 4, 8)


class Point(NamedTuple):
    """A training of a learning curve, whatever its seed.

    Attributes:
        start: Specifications of the sets that it was trained on before; empty from random weights.
        persons: Number of training persons; 0 for all.
        images: Largest number of images of a person; 0 for all.
    """

    start: str = ""
    persons: int = 0
    images: int = 0

    @classmethod
    def of(cls, specification: str, start: str = "") -> Point:
        """Return the point of a run by its benchmark and the sets that it was trained on before."""
        return cls(start, *thinning_of(specification))

    @property
    def options(self) -> dict[str, int]:
        """Options of the benchmark, as in ``readers.thinning``."""
        return {key: number for key, number in zip(THINNING, self[1:], strict=True) if number}


def sizes(num_persons: int) -> list[tuple[int, int]]:
    """Return persons and images a person of a curve's points, small sets first, 0 for all."""
    halves = [num_persons // 2**n for n in range(HALVINGS, 0, -1)]
    return [*((n, 0) for n in halves if n > 1), *((0, images) for images in IMAGES), (0, 0)]


def starts(setup: Setup, others: Benchmark | None) -> dict[str, tuple[Benchmark, ...]]:
    """Return the starts of a curve by their names in ``Point``.

    Args:
        setup: The benchmark of the curve.
        others: Training images of other photographs; None for no such start.

    Returns:
        From random weights; from rendered people, unless the curve is about them or the profile renders none;
        and from ``others``.
    """
    found: dict[str, tuple[Benchmark, ...]] = {"": ()}
    if setup.profile.rendered_size and setup.specification[0] != RENDERED:
        found[RENDERED] = (replace(setup, benchmark=RENDERED, data_root=None).data,)
    if others is not None:
        found[others.specification] = (others,)
    return found


def curve_chains(
    row: str, setup: Setup, others: Benchmark | None = None, *, refused: dict[str, str] | None = None
) -> dict[tuple[Point, int], tuple[TrainingPlan, ...]]:
    """Return the trainings of a learning curve.

    Args:
        row: Name of an experiment.
        setup: Profile, benchmark and number of seeds.
        others: Training images of other photographs to start from; None for no such start.
        refused: Gets the specification of each thinned set that fills no batch, and the reason.

    Returns:
        (Point, seed) -> its trainings in order, the last one on the thinned benchmark. Seed 0 comes before
        seed 1, small sets before large ones, and fewer persons before fewer images.

    Raises:
        InputError: If the benchmark is thinned already or cannot be read, if a start shows its test persons,
            or if the images of the whole benchmark fill no batch.
    """
    if without_thinning(setup.benchmark) != setup.benchmark:
        rule = "a learning curve thins the training images of a whole benchmark itself"
        raise InputError(rule, setup.benchmark, f"give {without_thinning(setup.benchmark)}")
    before = starts(setup, others)
    chains: dict[tuple[Point, int], tuple[TrainingPlan, ...]] = {}
    every = sizes(len(np.unique(setup.data.train.person_ids)))
    thinned = {size: thin(setup.data, options) for size in every if (options := Point("", *size).options)}
    for seed, size, start in product(range(setup.seeds), every, before):
        benchmark = thinned.get(size, setup.data)
        links = plan_chain(row, setup.profile, benchmark, before=before[start], seed=seed)
        try:
            links[-1].check_set()
        except InputError as error:
            if size not in thinned:
                raise
            if refused is not None:
                refused[benchmark.specification] = str(error)
        else:
            chains[Point(start, *size), seed] = links
    return chains
