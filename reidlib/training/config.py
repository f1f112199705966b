"""The configuration of a run: frozen dataclasses for network, objective, recipe and data.

Importing this module and creating a configuration load no torch: tables and figures read runs without it.
"""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from reidlib.errors import InputError, count_noun
from reidlib.models.parts import check_input_height, check_jlml, check_pyramid, pyramid_parts
from reidlib.training.dynamic import Balance, Balancing, balance_losses
from reidlib.values import check_fields, read_value

if TYPE_CHECKING:
    from torch import Tensor

    from reidlib.models import JLML, Pyramid, jlml, pyramid
    from reidlib.training.losses import Terms

# Increased when the same configuration starts to give another result, so that old runs are not reused.
_FORMAT = 2
_LARGEST_SIDE = 4096
# Marks a field that came later: at its default it is not in config.json, so that older runs keep their hash.
_LATER = {"later": True}


@dataclass(frozen=True)
class Augmentation:
    """Random changes of the training images; ``Augmentation(0, 0)`` changes nothing.

    Attributes:
        flip: Share of images mirrored left to right. People walk either way.
        pad: Largest shift on both axes, in pixels, because a detector's box is off by a few. The border is
            repeated and the image cropped again; unlike a black border, that does not show the shift.
        erase: Share of images with one rectangle set to the mean colour, so that no single region suffices.
        colour_jitter: Largest relative change of brightness, contrast and saturation, because cameras differ.
            It is 0 by default, because the colour of clothing is evidence and too much jitter unlearns it.
        erasing: Rule of the erased rectangle, a key of ``data.augmentation.ERASING_RULES``.
    """

    flip: float = 0.5
    pad: int = 4
    erase: float = 0.0
    colour_jitter: float = 0.0
    erasing: Literal["torchvision", "zhong"] = field(default="torchvision", metadata=_LATER)

    def __post_init__(self):
        check_fields(self)
        for name, share in (("flip", self.flip), ("erase", self.erase)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} is a share of the images, 0 to 1", share, "use a value in 0 to 1")
        if self.pad < 0:
            raise InputError("pad is a whole number of pixels, 0 or more", self.pad, "use 0 for no shift")
        if not 0 <= self.colour_jitter < 1:
            raise InputError("colour_jitter is at least 0 and below 1", self.colour_jitter, "use 0 for none")


@dataclass(frozen=True)
class Recipe:
    """Length, batches, optimiser (SGD), learning rate schedule and augmentation of a training.

    Attributes:
        epochs, steps: Length in passes over the training images or in mini-batches; exactly one is given.
        batch_size: Images per step, of all processes together. 32 is recalled of JLML; the default rate fits.
        images_per_identity: K of the P×K batches that triplets need; 0 for random batches only.
        learning_rate: Highest learning rate of the schedule.
        trunk_rate: Factor on the trunk's learning rate; pretrained layers need a lower rate than new ones.
        schedule: After the warm-up the rate falls along a cosine ("one-cycle") or evenly ("linear", for short
            trainings: Li et al., "Budgeted Training", ICLR 2020, recalled); "steps" drops it at milestones.
        warm_up: Share of the training in which the rate first rises, because networks start untrained.
        milestones, decay: Shares of the training after which "steps" multiplies the rate by ``decay``.
        momentum, nesterov, weight_decay: As in ``torch.optim.SGD``.
        augmentation: Random changes of the training images.
        epoch_of: Length of an epoch: as many batches as all "images" fill, or, as in Pyramid's released code,
            as hold ``images_per_identity`` images of all "identities". The last batch is complete.
        frozen: Share of the training at whose beginning the trunk's weights stay, so that new classifiers
            learn before they change layers that other persons have taught; our choice. Batch norm's
            statistics follow the images all the time.
        least_steps: Where ``epochs`` are fewer mini-batches than this, the training is this long: few images
            are then no short training.
    """

    epochs: int | None = None
    steps: int | None = None
    batch_size: int = 32
    images_per_identity: int = 0
    learning_rate: float = 0.1
    trunk_rate: float = 1.0
    schedule: Literal["one-cycle", "linear", "steps"] = "one-cycle"
    warm_up: float = 0.2
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    augmentation: Augmentation = field(default_factory=Augmentation)
    epoch_of: Literal["images", "identities"] = field(default="images", metadata=_LATER)
    frozen: float = field(default=0.0, metadata=_LATER)
    least_steps: int = field(default=0, metadata=_LATER)

    def __post_init__(self):
        check_fields(self)
        length = f"epochs={self.epochs}, steps={self.steps}"
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                "a recipe's length is stated in epochs or in steps",
                length,
                "give one, and none for the other",
            )
        if (self.epochs or self.steps or 0) < 1 or self.batch_size < 2 or self.learning_rate <= 0:
            rule = "a training has a positive length and learning rate and at least two images per batch"
            value = f"{length}, learning_rate={self.learning_rate}, batch_size={self.batch_size}"
            raise InputError(rule, value, "increase the value that is too small")
        size, per_identity = self.batch_size, self.images_per_identity
        if per_identity and (per_identity < 2 or size % per_identity or size // per_identity < 2):
            raise InputError(
                "an identity-balanced batch holds at least two identities with at least two images each",
                f"batch_size={size}, images_per_identity={per_identity}",
                "choose at least 2 images per identity, a divisor of the batch size and at most half of it",
            )
        if self.epoch_of == "identities" and not per_identity:
            mend = "set images_per_identity to at least 2, or epoch_of to 'images'"
            raise InputError("an epoch of identities needs identity-balanced batches", self.epoch_of, mend)
        if self.least_steps < 0:
            raise InputError(
                "least_steps is a number of steps, 0 or more", self.least_steps, "use 0 for none"
            )
        if self.trunk_rate <= 0:
            raise InputError("trunk_rate is a positive factor", self.trunk_rate, "use 1 for equal rates")
        if max(self.learning_rate, self.trunk_rate) > 1e6:
            value = f"learning_rate={self.learning_rate}, trunk_rate={self.trunk_rate}"
            raise InputError("rates are at most a million", value, "use a lower rate, such as 0.1")
        shares = {
            name: getattr(self, name) for name in ("warm_up", "decay", "momentum", "weight_decay", "frozen")
        }
        for name, share in (*shares.items(), *(("milestones", share) for share in self.milestones)):
            if not 0 <= share <= 1:
                raise InputError(f"{name} is from 0 to 1", share, "use a value in 0 to 1")
        if self.nesterov and not self.momentum:
            mend = "use a momentum above 0, or set nesterov to False"
            raise InputError("Nesterov's method needs a momentum", "momentum=0", mend)
        if (self.schedule == "steps") != bool(self.milestones):
            value = f"schedule={self.schedule!r}, milestones={self.milestones}"
            raise InputError("schedule 'steps', and no other, has milestones", value, "give both or neither")

    def check_training_set(self, person_ids: np.ndarray, name: str) -> None:
        """Raise InputError if a training set fills no batch; ``name`` identifies the set in the message."""
        images, persons = len(person_ids), len(np.unique(person_ids))
        least_persons = self.batch_size // self.images_per_identity if self.images_per_identity else 2
        if images < self.batch_size or persons < least_persons:
            raise InputError(
                f"a training needs the images of one batch, {self.batch_size}, and {least_persons} persons",
                f"{images} images of {count_noun(persons, 'persons')} in {name}",
                "add images of further persons, or set a smaller recipe.batch_size",
            )

    def steps_per_epoch(self, num_images: int, num_identities: int) -> int:
        """Return the number of mini-batches in an epoch, at least one."""
        if self.epoch_of == "identities":
            return math.ceil(num_identities * self.images_per_identity / self.batch_size)
        return max(1, num_images // self.batch_size)

    def to_json(self) -> dict:
        """Return the recipe as in ``config.json``: without later fields at their defaults."""
        return _content(self)

    def num_steps(self, batches_per_epoch: int) -> int:
        """Return the number of steps of the whole training."""
        return self.steps or max((self.epochs or 0) * batches_per_epoch, self.least_steps)

    def learning_rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of a step; it depends only on the share of steps before it."""
        share = step / steps
        if self.schedule == "steps":
            return self.learning_rate * self.decay ** sum(share >= mark for mark in self.milestones)
        if share < self.warm_up:
            return self.learning_rate * (0.05 + 0.95 * share / self.warm_up)
        cooling = (share - self.warm_up) / (1 - self.warm_up)
        if self.schedule == "linear":
            return self.learning_rate * (1 - cooling)
        return self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * cooling))


class _Model:
    network: ClassVar[str]  # its name in reidlib.models

    def build(self, num_classes: int, seed: int) -> JLML | Pyramid:
        """Return the network with the initial weights of ``seed``."""
        import torch

        from reidlib import models

        network = getattr(models, self.network)
        # The fields without a keyword of the network belong to the objective.
        keywords = inspect.signature(network).parameters.keys() & vars(self)
        generator = torch.Generator().manual_seed(seed)
        return network(num_classes, generator=generator, **{name: vars(self)[name] for name in keywords})

    def check_input(self, size: tuple[int, int]) -> None:
        """Raise InputError for a size that the network cannot take; JLML checks it itself."""


@dataclass(frozen=True)
class JLMLConfiguration(_Model):
    """The JLML network and its objective; its defaults were read on slides unless the field says otherwise.

    Attributes:
        parts: Stripes of the local branch; 4 are head and shoulders, upper body, upper legs, lower legs.
        multi_loss: Whether each branch has its own classifier; False is UniLoss.
        shared_stem: Whether both branches share the low-level layers.
        trunk, weights: Layers of the branches; "imagenet" for torchvision's weights, None (ours) for random.
        width: Factor on the number of all channels, for small machines.
        local_width: Further factor on the channels of the local streams (resnet39 only).
        feature_size: Length D of each branch's feature; 512 is recalled.
        feature_norm: Whether batch norm follows the feature layers; our choice, the paper's is not known.
        sparsity_global, sparsity_local: Strengths λ_g, λ_l of feature selection; 5e-4 is recalled, 0 is off.
        exclusive_over: Groups of the local term, our choice; see ``losses.exclusive_sparsity``.
    """

    parts: int = 4
    multi_loss: bool = True
    shared_stem: bool = True
    trunk: Literal["resnet39", "resnet50"] = "resnet39"
    weights: Literal["imagenet"] | None = None
    width: float = 1.0
    feature_size: int = 512
    feature_norm: bool = True
    sparsity_global: float = 5e-4
    sparsity_local: float = 5e-4
    exclusive_over: Literal["output", "input"] = "output"
    local_width: float = field(default=1.0, metadata=_LATER)
    network: ClassVar[str] = "JLML"
    balance: ClassVar[None] = None  # JLML balances no losses

    def __post_init__(self):
        check_fields(self)
        check_jlml(self.trunk, self.weights, self.width, self.local_width, self.parts, self.feature_size)
        if min(strengths := (self.sparsity_global, self.sparsity_local)) < 0:
            rule = "sparsity_global and sparsity_local are at least 0"
            raise InputError(rule, strengths, "use 5e-4, or 0 for no selection")

    def objective(
        self, model: JLML, output: jlml.JLMLOutput, labels_b: Tensor, balance: None = None
    ) -> tuple[Terms, None]:
        """Return the terms that training minimises."""
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


@dataclass(frozen=True)
class PyramidConfiguration(_Model):
    """The Pyramid network and its objective; defaults but for weights and balancing are the released code's.

    Attributes:
        stripes: Horizontal stripes of the feature map.
        levels: Numbers of stripes that a part covers; None for 1 up to all stripes.
        trunk, weights: Layers before the parts, and "imagenet" for torchvision's weights or None for random.
        width: Factor on resnet39's number of channels, for small machines.
        embedding_size: Length of each part's embedding.
        dropout: Share of units dropped before each part's classifier.
        normalisation: Scaling to unit length of the feature compared at test: of each "part", of the "whole".
        triplet: Whether the triplet loss is used; False for the identity loss on random batches.
        margin: Margin of the triplet loss, in Euclidean distance.
        normalise_triplet: Whether triplets compare vectors of unit length.
        balancing: Balancing of the two losses.
        triplet_on: Vectors that triplets compare: the embeddings of each of the "parts", whose losses are
            added as in the released code, or the "whole" feature, the embeddings of all parts joined.
    """

    stripes: int = 6
    levels: tuple[int, ...] | None = None
    trunk: Literal["resnet39", "resnet50", "resnet101"] = "resnet101"
    weights: Literal["imagenet"] | None = None
    width: float = 1.0
    embedding_size: int = 128
    dropout: float = 0.2
    normalisation: Literal["none", "part", "whole"] = "none"
    triplet: bool = True
    margin: float = 1.4
    normalise_triplet: bool = False
    balancing: Balancing = field(default_factory=Balancing)
    triplet_on: Literal["parts", "whole"] = field(default="parts", metadata=_LATER)
    network: ClassVar[str] = "Pyramid"

    def __post_init__(self):
        check_fields(self)
        pyramid_parts(self.stripes, self.levels)
        check_pyramid(
            self.trunk, self.weights, self.width, self.embedding_size, self.dropout, self.normalisation
        )
        if self.margin < 0:
            raise InputError("the triplets' margin is a distance, 0 or more", self.margin, "use 1.4")

    def objective(
        self, model: Pyramid, output: pyramid.PyramidOutput, labels_b: Tensor, balance: Balance | None
    ) -> tuple[Terms, Balance | None]:
        """Return the terms that training minimises, and the balance for the next step."""
        import torch

        from reidlib.training import distributed
        from reidlib.training.losses import Terms, batch_hard_triplet, multi_branch_cross_entropy

        identity = multi_branch_cross_entropy(output.logits, labels_b).sum()
        terms = Terms(("identity",), (identity,))
        if balance is not None and balance.balanced:
            # Triplets come from the whole batch, of all processes of a distributed training.
            embeddings, labels = distributed.all_gather(output.embeddings), distributed.all_gather(labels_b)
            if self.triplet_on == "whole":
                embeddings = embeddings.flatten(1).unsqueeze(1)  # one vector of all parts
            settings = {"margin": self.margin, "normalise": self.normalise_triplet}
            triplet = batch_hard_triplet(embeddings, labels, **settings).sum()
            terms = Terms(("identity", "triplet"), (identity, triplet))
        if balance is None or self.balancing.mode == "off":
            return terms, balance  # without copying the losses from the device
        # One copy from the device per step; the rest of the step needs to know whether the gate is open.
        identity, *triplet = distributed.mean(torch.stack(terms.values)).tolist()
        weights, balance = balance_losses(balance, identity, triplet[0] if triplet else None, self.balancing)
        return terms._replace(weights=weights[: len(terms.names)]), balance

    @property
    def balance(self) -> Balance | None:
        """The balance before the first step; it needs identity-balanced batches."""
        return Balance() if self.triplet else None

    def check_input(self, size: tuple[int, int]) -> None:
        """Raise InputError for a height whose feature map the stripes do not divide."""
        check_input_height(size[0], self.stripes)


ModelConfiguration = JLMLConfiguration | PyramidConfiguration
# By the model's name in config.json.
MODELS = {"jlml": JLMLConfiguration, "pyramid": PyramidConfiguration}


@dataclass(frozen=True)
class RunConfiguration:
    """Everything that the scores of a run depend on; its hash identifies the run.

    Attributes:
        model: Network and objective.
        recipe: Length, optimiser and augmentation of the training.
        input_size: Height and width of the network's input, in pixels.
        benchmark, data: ``Benchmark.specification`` (name and options) and ``Benchmark.fingerprint`` (a hash
            of the images' names, ids and file sizes).
        seed: Seed of the initial weights, the order of images and the augmentation.
        start: Hash of the configuration of the run whose weights, except the classifiers', are the initial
            weights; empty for a new network.
        resize: Interpolation with which training and test images are brought to the input's size.
        imported: SHA-256 of the file from which a network that was trained elsewhere was imported; such a run
            has no recipe. Empty for a training.
        validation_persons: Number of training persons that are held out, drawn by the seed, to score the
            network on them while it trains; see ``experiments.validation``.
    """

    model: ModelConfiguration
    recipe: Recipe | None
    input_size: tuple[int, int]
    benchmark: str
    data: str
    seed: int = 0
    start: str = field(default="", metadata=_LATER)
    resize: Literal["bilinear", "bicubic"] = field(default="bilinear", metadata=_LATER)
    imported: str = field(default="", metadata=_LATER)
    validation_persons: int = field(default=0, metadata=_LATER)

    def __post_init__(self):
        check_fields(self)
        if not 1 <= min(self.input_size) <= max(self.input_size) <= _LARGEST_SIDE:
            rule = f"an input is 1 to {_LARGEST_SIDE:,} pixels high and wide"
            raise InputError(rule, f"input_size={self.input_size}", "use 256 and 128, or less")
        self.model.check_input(self.input_size)
        if (self.recipe is None) != bool(self.imported):
            value = f"recipe={self.recipe}, imported={self.imported!r}"
            raise InputError("a run has a recipe, or is imported", value, "give one of them")
        if self.validation_persons and (self.validation_persons < 2 or self.recipe is None):
            mend = "hold out 2 or more persons, or 0"
            rule = "validation persons are two or more, held out of a training"
            raise InputError(rule, self.validation_persons, mend)
        if self.recipe and self.model.balance is not None and not self.recipe.images_per_identity:
            mend = "set images_per_identity to at least 2 in the recipe, or train with triplet=False"
            raise InputError("a triplet loss needs identity-balanced batches", "images_per_identity=0", mend)

    def to_json(self) -> dict:
        """Return the content of ``config.json``, as JSON types only."""
        kind = next(name for name, model_class in MODELS.items() if isinstance(self.model, model_class))
        content = _content(self)
        content["model"] = {"kind": kind, **content["model"]}
        return {"format": _FORMAT, **json.loads(json.dumps(content))}

    @classmethod
    def from_json(cls, content: dict) -> RunConfiguration:
        """Return the configuration in ``config.json``; InputError if this version cannot read it."""
        try:
            values, model = dict(content), dict(content["model"])
            if (version := values.pop("format")) != _FORMAT:
                raise ValueError(f"format {version} instead of {_FORMAT}")
            values["model"] = read_value("model", model, MODELS[model.pop("kind")])
            # Every config.json has these two: a file that lacks one is damaged, and gets no default.
            if (recipe := content["recipe"]) is not None:
                values["recipe"] = recipe | {"augmentation": recipe["augmentation"]}
            values["seed"] = content["seed"]
            return read_value("config.json", values, cls)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                "config.json describes a run of this version of reidlib",
                f"{type(error).__name__}: {error}",
                "use the version that made it, or train the run again",
            ) from error


def _content(value: object) -> Any:
    """Return a configuration as a dictionary, without later fields at their defaults."""
    if not is_dataclass(value):
        return value
    pairs = ((each, getattr(value, each.name)) for each in fields(value))
    return {
        each.name: _content(entry)
        for each, entry in pairs
        if not (each.metadata.get("later") and entry == each.default)
    }
