"""What a run depends on, as frozen dataclasses whose fields say why.

Importing this, and building a configuration, loads no torch: tables and figures read runs without it.
"""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar

import numpy as np

from reidlib.errors import InputError, check_choice
from reidlib.models.parts import check_input_height, check_settings, pyramid_parts
from reidlib.training.dynamic import Balance, Balancing, balance_losses

if TYPE_CHECKING:
    from torch import Tensor

    from reidlib.models import JLML, Pyramid, jlml, pyramid
    from reidlib.training.losses import Terms

NetworkType = TypeVar("Network", "JLML", "Pyramid")
# Raised when the same configuration starts to give another result, so that old runs are not mistaken for new.
_FORMAT = 2


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; ``Augmentation(0, 0)`` leaves them as they are."""

    # Share of images mirrored left to right: a person walks either way, no camera sees mirrored text alone.
    flip: float = 0.5
    # Largest shift in pixels, both axes: pad by repeating the border and crop again. A detector's box is off
    # by a few pixels; repeated borders, unlike black ones, show the network no edge that tells the shift.
    pad: int = 4
    # Share of images with one rectangle set to the mean colour: the network must not lean on one region.
    erase: float = 0.0
    # Largest relative change of brightness, contrast and saturation: cameras differ in exposure and colour.
    # Off by default, because clothing's colour is evidence and too much jitter unlearns it.
    colour_jitter: float = 0.0

    def __post_init__(self):
        for name, share in (("flip", self.flip), ("erase", self.erase)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} is a share of the images, 0 to 1", share, "choose one")
        if not (isinstance(self.pad, int) and self.pad >= 0):
            raise InputError("pad is a whole number of pixels, 0 or more", self.pad, "0 shifts nothing")
        if not 0 <= self.colour_jitter < 1:
            raise InputError(
                "colour_jitter is at least 0 and below 1", self.colour_jitter, "0 changes nothing"
            )


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
        check_choice("a schedule is one-cycle or steps", self.schedule, ("one-cycle", "steps"))
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


@dataclass(frozen=True)
class JLMLConfiguration:
    """The JLML network and its objective. Defaults are the paper's."""

    parts: int = 4  # head and shoulders, upper body, upper legs, lower legs
    multi_loss: bool = True  # a classifier for each branch; False is the paper's UniLoss
    shared_stem: bool = True  # both branches on the same low-level layers
    trunk: Literal["resnet39", "resnet50"] = "resnet39"
    weights: Literal["imagenet"] | None = None
    width: float = 1.0  # factor on all channels, for small machines
    feature_size: int = 512  # of each branch
    feature_norm: bool = True  # batch norm behind the feature layers; the paper's choice is unknown
    sparsity_global: float = 5e-4  # λ_g of selective feature learning; 0 turns it off
    sparsity_local: float = 5e-4  # λ_l
    exclusive_over: Literal["output", "input"] = "output"  # see losses.exclusive_sparsity
    balance: ClassVar[None] = None  # no losses are balanced while training

    def build(self, num_classes: int, seed: int) -> JLML:
        """The network with the initial weights that belong to ``seed``."""
        from reidlib.models import JLML

        return _built(JLML, self, num_classes, seed)

    def objective(
        self, model: JLML, output: jlml.JLMLOutput, labels_b: Tensor, balance: None = None
    ) -> tuple[Terms, None]:
        """What training minimises."""
        from reidlib.training.losses import jlml_objective

        terms = jlml_objective(
            output.logits,
            labels_b,
            model.feature_weights(),
            sparsity_global=self.sparsity_global,
            sparsity_local=self.sparsity_local,
            exclusive_over=self.exclusive_over,
        )
        return terms, None

    def check_input(self, size: tuple[int, int]) -> None:
        """Every input size that leaves a row for each stripe will do; the network looks at it itself."""


@dataclass(frozen=True)
class PyramidConfiguration:
    """The Pyramid network and its objective. Defaults are the paper's, or its released code's."""

    stripes: int = 6  # the map's horizontal stripes
    levels: tuple[int, ...] | None = None  # how many stripes the parts cover; None: 1 to all of them
    trunk: Literal["resnet39", "resnet50", "resnet101"] = "resnet101"
    weights: Literal["imagenet"] | None = None
    width: float = 1.0  # factor on resnet39's channels, for small machines
    embedding_size: int = 128  # of each part
    dropout: float = 0.2  # before each part's classifier
    normalisation: Literal["none", "part", "whole"] = "none"  # of the feature that is compared at test
    triplet: bool = True  # identity and triplet losses; False: the identity loss alone, on random batches
    margin: float = 1.4
    normalise_triplet: bool = False  # whether triplets compare embeddings of unit length
    balancing: Balancing = field(default_factory=Balancing)  # of the two losses while training

    def __post_init__(self):
        pyramid_parts(self.stripes, self.levels)
        check_settings(
            self.trunk, self.weights, self.width, self.embedding_size, self.dropout, self.normalisation
        )
        if not math.isfinite(self.margin):
            raise InputError("a triplet's margin is a distance", f"margin={self.margin}", "use 1.4")

    def build(self, num_classes: int, seed: int) -> Pyramid:
        """The network with the initial weights that belong to ``seed``."""
        from reidlib.models import Pyramid

        return _built(Pyramid, self, num_classes, seed)

    def objective(
        self, model: Pyramid, output: pyramid.PyramidOutput, labels_b: Tensor, balance: Balance | None
    ) -> tuple[Terms, Balance | None]:
        """What training minimises, and the balance for the next step.

        Triplets are looked for in the whole batch, over all processes of a distributed training.
        """
        import torch

        from reidlib.training import distributed
        from reidlib.training.losses import Terms, batch_hard_triplet, multi_branch_cross_entropy

        identity = multi_branch_cross_entropy(output.logits, labels_b).sum()
        if balance is None or not balance.balanced:
            terms = Terms(("identity",), (identity,))
        else:
            embeddings, labels = distributed.all_gather(output.embeddings), distributed.all_gather(labels_b)
            triplet = batch_hard_triplet(
                embeddings, labels, margin=self.margin, normalise=self.normalise_triplet
            ).sum()
            terms = Terms(("identity", "triplet"), (identity, triplet))
        if balance is None or self.balancing.mode == "off":
            return terms, balance  # nothing to decide, so no waiting for the device
        # One copy from the device a step: the gate is open or closed for all that follows.
        measured = dict(zip(terms.names, distributed.mean(torch.stack(terms.values)).tolist(), strict=True))
        weights, after = balance_losses(
            balance, measured["identity"], measured.get("triplet"), self.balancing
        )
        return terms._replace(weights=weights[: len(terms.names)]), after

    @property
    def balance(self) -> Balance | None:
        """The balance before the first step; it asks for identity-balanced batches."""
        return Balance() if self.triplet else None

    def check_input(self, size: tuple[int, int]) -> None:
        """Raise InputError for a height whose map the stripes do not divide."""
        check_input_height(size[0], self.stripes)


def _built(
    network: type[NetworkType], settings: ModelConfiguration, num_classes: int, seed: int
) -> NetworkType:
    """A network with the settings that it has a keyword for; the others belong to the objective."""
    import torch

    keywords = inspect.signature(network).parameters.keys() & vars(settings)
    generator = torch.Generator().manual_seed(seed)
    return network(num_classes, generator=generator, **{name: vars(settings)[name] for name in keywords})


ModelConfiguration = JLMLConfiguration | PyramidConfiguration
# A model's name in config.json.
MODELS = {"jlml": JLMLConfiguration, "pyramid": PyramidConfiguration}


@dataclass(frozen=True)
class RunConfiguration:
    """Everything that a run's scores depend on; its hash is the run's identity."""

    model: ModelConfiguration
    recipe: Recipe
    input_size: tuple[int, int]  # height, width of the network's input in pixels
    benchmark: str  # Benchmark.specification: its name and what its reader was asked for
    data: str  # Benchmark.fingerprint: names, ids and file sizes
    seed: int = 0
    start: str = ""  # hash of the configuration of the run whose weights, but for the classifiers, come first

    def __post_init__(self):
        self.model.check_input(self.input_size)
        if self.model.balance is not None and not self.recipe.images_per_identity:
            raise InputError(
                "a triplet loss needs identity-balanced batches",
                f"images_per_identity={self.recipe.images_per_identity}",
                "set it to 2 or more in the recipe, or train with triplet=False",
            )

    def to_json(self) -> dict:
        """JSON types only, so that the same dict comes back from ``config.json``."""
        kind = next(name for name, of in MODELS.items() if isinstance(self.model, of))
        content = asdict(self)
        content["model"] = {"kind": kind, **content["model"]}
        if not self.start:
            del content["start"]  # so that runs are found that were trained before there was one
        return {"format": _FORMAT, **json.loads(json.dumps(content))}

    @classmethod
    def from_json(cls, content: dict) -> RunConfiguration:
        """The configuration of a run's folder. Raises InputError for one that this version cannot read."""
        try:
            model = dict(content["model"])
            if "balancing" in model:
                model["balancing"] = Balancing(**model["balancing"])
            recipe = dict(content["recipe"])
            augmentation = Augmentation(**_tupled(recipe.pop("augmentation")))
            if content["format"] != _FORMAT:
                raise ValueError(f"format {content['format']} instead of {_FORMAT}")
            return cls(
                model=MODELS[model.pop("kind")](**_tupled(model)),
                recipe=Recipe(**_tupled(recipe), augmentation=augmentation),
                input_size=tuple(content["input_size"]),
                benchmark=content["benchmark"],
                data=content["data"],
                seed=content["seed"],
                start=content.get("start", ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "config.json describes a run of this version of reidlib",
                f"{type(error).__name__}: {error}",
                "use the version that made it, or train the run again",
            ) from error


def _tupled(values: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
