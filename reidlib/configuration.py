"""What a run depends on, as frozen dataclasses whose fields say why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from reidlib.data.augmentation import Augmentation
from reidlib.errors import InputError
from reidlib.losses import Terms, jlml_objective
from reidlib.models.jlml import JLML, Output
from reidlib.training import Recipe

# Raised when the same configuration starts to give another result, so that old runs are not mistaken for new.
_FORMAT = 1


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

    def objective(self, model: JLML, output: Output, labels_b: Tensor) -> Terms:
        """What training minimises."""
        return jlml_objective(
            output.logits,
            labels_b,
            model.feature_weights(),
            sparsity_global=self.sparsity_global,
            sparsity_local=self.sparsity_local,
            exclusive_over=self.exclusive_over,
        )


# A model's name on the command line and in config.json.
MODELS = {"jlml": JLMLConfiguration}


@dataclass(frozen=True)
class RunConfiguration:
    """Everything that a run's scores depend on; its hash is the run's identity."""

    model: JLMLConfiguration
    recipe: Recipe
    input_size: tuple[int, int]  # height, width of the network's input in pixels
    benchmark: str
    data: str  # Benchmark.fingerprint: names, ids and file sizes
    seed: int = 0

    def to_json(self) -> dict:
        """JSON types only, so that the same dict comes back from ``config.json``."""
        kind = next(name for name, of in MODELS.items() if isinstance(self.model, of))
        content = asdict(self)
        content["model"] = {"kind": kind, **content["model"]}
        return {"format": _FORMAT, **_listed(content)}

    @classmethod
    def from_json(cls, content: dict) -> RunConfiguration:
        """The configuration of a run's folder. Raises InputError for one that this version cannot read."""
        try:
            model = dict(content["model"])
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
