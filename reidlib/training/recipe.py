"""How long, how fast and on what a model is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from reidlib.data.augmentation import Augmentation
from reidlib.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and on what a model is trained. Contradictory values are refused."""

    epochs: int | None = None  # passes over the training images; or
    steps: int | None = None  # mini-batches, where a paper states iterations
    batch_size: int = 32  # JLML's; the one-cycle peak below belongs to it. Over all processes together
    images_per_identity: int = 0  # K of the P×K batches that triplets need; 0: random batches only
    learning_rate: float = 0.1  # the highest value of the schedule
    trunk_rate: float = 1.0  # factor on it for the trunk: pretrained layers need less than new ones
    schedule: Literal["one-cycle", "steps"] = "one-cycle"  # the latter: the papers' drops at milestones
    warm_up: float = 0.2  # share of a one-cycle training in which the rate rises; networks start untrained
    milestones: tuple[float, ...] = ()  # shares of the training after which the rate is multiplied by decay
    decay: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                "a recipe states its length once, in epochs or in steps",
                f"epochs={self.epochs}, steps={self.steps}",
                "give one of them",
            )
        length = self.steps if self.epochs is None else self.epochs
        if length < 1 or self.batch_size < 2 or self.learning_rate <= 0:
            raise InputError(
                "a training has a positive length and learning rate and at least two images a batch",
                f"epochs={self.epochs}, steps={self.steps}, learning_rate={self.learning_rate}, "
                f"batch_size={self.batch_size}",
                "raise the value that is too small",
            )
        if self.images_per_identity and (
            self.images_per_identity < 2
            or self.batch_size % self.images_per_identity
            or self.batch_size // self.images_per_identity < 2
        ):
            raise InputError(
                "an identity-balanced batch holds at least two identities with at least two images each",
                f"batch_size={self.batch_size}, images_per_identity={self.images_per_identity}",
                "choose 2 or more images per identity that divide the batch at least twice",
            )
        if self.trunk_rate <= 0:
            raise InputError(
                "the trunk's share of the learning rate is positive",
                f"trunk_rate={self.trunk_rate}",
                "use 1 for equal rates",
            )
        if self.schedule not in ("one-cycle", "steps"):
            raise InputError("a schedule is one-cycle or steps", repr(self.schedule), "name one of them")
        if (self.schedule == "steps") != bool(self.milestones):
            raise InputError(
                "milestones belong to the schedule 'steps', and it needs them",
                f"schedule={self.schedule!r}, milestones={self.milestones}",
                "change one of the two",
            )

    def check_set(self, person_ids: np.ndarray, name: str) -> None:
        """Raise InputError where a training set fills no batch; ``name`` is what the set is called."""
        images, persons = len(person_ids), len(np.unique(person_ids))
        least = self.batch_size // self.images_per_identity if self.images_per_identity else 1
        if images < self.batch_size or persons < least:
            raise InputError(
                f"a training needs the images of one batch, {self.batch_size}"
                + (f", and {least} persons" if least > 1 else ""),
                f"{images} images of {persons} persons in {name}",
                "add images of further persons, or train on another set",
            )

    def length(self, batches_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.steps or self.epochs * batches_per_epoch

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, as a function of its place in the training alone."""
        share = step / steps
        if self.schedule == "steps":
            return self.learning_rate * self.decay ** sum(share >= mark for mark in self.milestones)
        if share < self.warm_up:
            return self.learning_rate * (0.05 + 0.95 * share / self.warm_up)
        rest = (share - self.warm_up) / (1 - self.warm_up)
        return self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * rest))
