"""What a run depends on, as frozen dataclasses whose fields say why."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Literal

import torch
from torch import Tensor

from reidlib.data.augmentation import Augmentation
from reidlib.errors import InputError
from reidlib.models import jlml, pyramid
from reidlib.models.jlml import JLML
from reidlib.models.pyramid import Pyramid
from reidlib.training import distributed
from reidlib.training.dynamic import Balance, Balancing, balance_losses
from reidlib.training.losses import Terms, batch_hard_triplet, jlml_objective, multi_branch_cross_entropy
from reidlib.training.recipe import Recipe

# Raised when the same configuration starts to give another result, so that old runs are not mistaken for new.
_FORMAT = 2


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

    def build(self, num_classes: int, seed: int) -> JLML:
        """The network with the initial weights that belong to ``seed``."""
        return JLML(
            num_classes,
            parts=self.parts,
            multi_loss=self.multi_loss,
            shared_stem=self.shared_stem,
            trunk=self.trunk,
            weights=self.weights,
            width=self.width,
            feature_size=self.feature_size,
            feature_norm=self.feature_norm,
            generator=torch.Generator().manual_seed(seed),
        )

    def objective(
        self, model: JLML, output: jlml.Output, labels_b: Tensor, balance: None = None
    ) -> tuple[Terms, None]:
        """What training minimises."""
        terms = jlml_objective(
            output.logits,
            labels_b,
            model.feature_weights(),
            sparsity_global=self.sparsity_global,
            sparsity_local=self.sparsity_local,
            exclusive_over=self.exclusive_over,
        )
        return terms, None

    @property
    def balance(self) -> None:
        """No losses are balanced while training."""
        return None

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
        pyramid.pyramid_parts(self.stripes, self.levels)
        pyramid.check_settings(
            self.trunk, self.weights, self.width, self.embedding_size, self.dropout, self.normalisation
        )
        if not math.isfinite(self.margin):
            raise InputError("a triplet's margin is a distance", f"margin={self.margin}", "use 1.4")

    def build(self, num_classes: int, seed: int) -> Pyramid:
        """The network with the initial weights that belong to ``seed``."""
        return Pyramid(
            num_classes,
            stripes=self.stripes,
            levels=self.levels,
            trunk=self.trunk,
            weights=self.weights,
            width=self.width,
            embedding_size=self.embedding_size,
            dropout=self.dropout,
            normalisation=self.normalisation,
            generator=torch.Generator().manual_seed(seed),
        )

    def objective(
        self, model: Pyramid, output: pyramid.Output, labels_b: Tensor, balance: Balance | None
    ) -> tuple[Terms, Balance | None]:
        """What training minimises, and the balance for the next step.

        Triplets are looked for in the whole batch, over all processes of a distributed training.
        """
        identity = multi_branch_cross_entropy(output.logits, labels_b).sum()
        if balance is None or not balance.balanced:
            terms = Terms(("identity",), (identity,))
        else:
            embeddings, labels = distributed.gather(output.embeddings), distributed.gather(labels_b)
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
        pyramid.check_input_height(size[0], self.stripes)


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
        return {"format": _FORMAT, **_listed(content)}

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


def _listed(value):
    if isinstance(value, dict):
        return {key: _listed(entry) for key, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _tupled(values: dict) -> dict:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
