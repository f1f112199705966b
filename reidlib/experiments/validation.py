"""Scores on validation persons while a network trains, for the history, the progress and the curves.

Validation persons are held out of the training persons; they are never test persons. The scores choose
nothing: the network of the last epoch is the run, whatever the curve shows.
"""

from __future__ import annotations

import math

import numpy as np
from torch import nn

from reidlib.data.benchmark import Benchmark
from reidlib.data.images import ImageStore
from reidlib.data.readers.persons import draw_persons, one_query_per_camera, searchable_persons
from reidlib.data.splits import Split
from reidlib.errors import InputError, count_noun
from reidlib.experiments.features import embed
from reidlib.ranking.metrics import Embeddings, evaluate
from reidlib.training.config import Recipe

# Largest share of a training's time, and time of a step in that of its images' features: 2.1 (Pyramid) to 2.6
# (JLML) with the profile quick on one core.
_SHARE, _PASSES_PER_STEP = 0.05, 2


def hold_out(benchmark: Benchmark, persons: int, seed: int) -> tuple[Split, Split | None]:
    """Return the images to train on, and those of validation persons: ``persons`` of training, or none."""
    # Drawn by hashes, the same on every machine; of one seed, more persons include the fewer.
    if not persons:
        return benchmark.train, None
    train = benchmark.train
    candidates, count = searchable_persons(train, same_camera=False), len(np.unique(train.person_ids))
    largest = min(len(candidates), count - 2)
    if persons > largest:
        rule = "validation persons are training persons seen by two cameras, and leave two to train on"
        value = f"{persons} of {count_noun(count, 'persons')} of {benchmark.specification}"
        value += f", {len(candidates)} with two cameras" if len(candidates) < count else ""
        mend = f"use --validate {largest} or fewer" if largest > 1 else "train without validation persons"
        raise InputError(rule, value, mend)
    drawn = draw_persons(f"validation persons, seed {seed}", candidates, persons)
    held_out = np.isin(train.person_ids, drawn)
    return train.select(~held_out), train.select(held_out)


class Validation:
    """A function ``validate`` of ``training.loop.train``."""

    def __init__(self, split: Split, images: ImageStore, recipe: Recipe, train: Split):
        self._images, self._split = images, split
        self._sides = one_query_per_camera(split, range(len(split)))
        per_epoch = recipe.steps_per_epoch(len(train), len(np.unique(train.person_ids)))
        steps = recipe.num_steps(per_epoch)
        epochs = math.ceil(steps / per_epoch)
        training = _PASSES_PER_STEP * recipe.batch_size * steps
        count = min(max(int(_SHARE * training / len(split)), 1), epochs)
        self.epochs = frozenset(-(-epochs * number // count) for number in range(1, count + 1))

    def __call__(self, model: nn.Module, epoch: int) -> dict[str, float]:
        """Return R1 and mAP (step) on the validation persons as shares; nothing in other epochs."""
        if epoch not in self.epochs:
            return {}
        features = embed(model, self._images)
        if not features.isfinite().all():
            return {}  # the next step's loss, or the evaluation of the run, says so
        query, gallery = (
            Embeddings(features[rows], self._split.person_ids[rows], self._split.camera_ids[rows])
            for rows in self._sides
        )
        scores = evaluate(query, gallery, ranks=(1,))
        return {"validation_r1": scores.cmc[1], "validation_map": scores.mean_average_precision}
