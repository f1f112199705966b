"""What is trained, how large, and under what it is tested: literal rows of names and values.

Their product is a ``RunConfiguration`` (``experiments.obtain``). Nothing here loads torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from reidlib.data.synthetic.factors import Factors
from reidlib.errors import check_choice
from reidlib.training.config import Augmentation, Recipe
from reidlib.training.dynamic import Balancing

NamedRow = TypeVar("Row")


@dataclass(frozen=True)
class Experiment:
    """One training: a model, and what it changes of the paper's defaults (fields of its configuration)."""

    model: str  # of training.config.MODELS
    changed: Mapping[str, object] = field(default_factory=dict)
    trunk_rate: float = 1.0  # factor on the recipe's, for a trunk that starts from random weights


EXPERIMENTS = {
    "jlml": Experiment("jlml"),
    "jlml-uniloss": Experiment("jlml", {"multi_loss": False}),
    "jlml-separate": Experiment("jlml", {"shared_stem": False}),
    # Selective feature learning: off, and ten and a hundred times the paper's strength. Without the batch
    # norm behind the feature layers, which undoes a change of scale, sparsity may do something else.
    "jlml-sfl-off": Experiment("jlml", {"sparsity_global": 0.0, "sparsity_local": 0.0}),
    "jlml-sfl-x10": Experiment("jlml", {"sparsity_global": 5e-3, "sparsity_local": 5e-3}),
    "jlml-sfl-x100": Experiment("jlml", {"sparsity_global": 5e-2, "sparsity_local": 5e-2}),
    "jlml-no-norm": Experiment("jlml", {"feature_norm": False}),
    "jlml-no-norm-sfl-off": Experiment(
        "jlml", {"feature_norm": False, "sparsity_global": 0.0, "sparsity_local": 0.0}
    ),
    "jlml-2": Experiment("jlml", {"parts": 2}),
    "jlml-6": Experiment("jlml", {"parts": 6}),
    "jlml-8": Experiment("jlml", {"parts": 8}),
    "jlml-10": Experiment("jlml", {"parts": 10}),
    "pyramid": Experiment("pyramid"),
    # Dynamic training: the other modes, the paper's weights unscaled, and the identity loss alone.
    "pyramid-literal": Experiment("pyramid", {"balancing": Balancing("paper", weights="literal")}),
    "pyramid-official": Experiment("pyramid", {"balancing": Balancing("official")}),
    "pyramid-off": Experiment("pyramid", {"balancing": Balancing("off")}),
    "pyramid-identity": Experiment("pyramid", {"triplet": False}),
    # Levels of the pyramid over six stripes, and pyramids over fewer. The losses are sums over the parts, so
    # that the trunk of a network with fewer parts would learn from a smaller gradient, and the row would show
    # that instead: its rate makes up for it.
    "pyramid-global": Experiment("pyramid", {"levels": (6,)}, trunk_rate=21 / 1),
    "pyramid-stripes": Experiment("pyramid", {"levels": (1,)}, trunk_rate=21 / 6),
    "pyramid-2": Experiment("pyramid", {"stripes": 2}, trunk_rate=21 / 3),
    "pyramid-3": Experiment("pyramid", {"stripes": 3}, trunk_rate=21 / 6),
    "pyramid-4": Experiment("pyramid", {"stripes": 4}, trunk_rate=21 / 10),
    # The other reading of "the same training": the same rate, whatever the parts.
    "pyramid-global-same-rate": Experiment("pyramid", {"levels": (6,)}),
    "pyramid-stripes-same-rate": Experiment("pyramid", {"levels": (1,)}),
}


@dataclass(frozen=True)
class ModelSize:
    """How large a model is in a profile: the network's input, what is scaled, and the recipe."""

    input_size: tuple[int, int]  # height, width in pixels
    scaled: Mapping[str, object]  # fields of the model's configuration and their values in this profile
    recipe: Recipe


@dataclass(frozen=True)
class Profile:
    """How large all runs are."""

    name: str
    rendered: str | None  # size of the embedded benchmark; None wants a real benchmark's folder
    sizes: Mapping[str, ModelSize]  # by the model's name


# From random weights, unscaled triplets with a margin of 1.4 pull everything together before identities come
# apart. With embeddings of unit length, in the triplets and in matching (as YouReID has it), they do not.
_UNIT_LENGTH = {"weights": None, "normalise_triplet": True, "normalisation": "part"}
_SMALL_PYRAMID = {**_UNIT_LENGTH, "trunk": "resnet39"}
# Seconds: does everything run? Its scores mean nothing.
_SMOKE = {
    "jlml": ModelSize((64, 32), {"width": 0.25}, Recipe(epochs=2, batch_size=16)),
    # 192 rows: a map of 12, which 2, 3, 4 and 6 stripes divide.
    "pyramid": ModelSize(
        (192, 32),
        {**_SMALL_PYRAMID, "width": 0.25, "embedding_size": 16},
        Recipe(epochs=2, batch_size=16, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
}
# Two CPU cores: the smallest networks and inputs at which the papers' effects show.
_QUICK = {
    "jlml": ModelSize((128, 64), {"width": 0.5}, Recipe(epochs=20)),
    "pyramid": ModelSize(
        (192, 64),
        {**_SMALL_PYRAMID, "width": 0.5},
        Recipe(epochs=14, batch_size=32, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
}
# One GPU: the papers' networks and inputs at Market-1501's size, trained from random weights, with a trunk
# for which these are enough.
_FULL = {
    "jlml": ModelSize((224, 224), {}, Recipe(epochs=60, augmentation=Augmentation(pad=10))),
    "pyramid": ModelSize(
        (384, 128),
        {**_UNIT_LENGTH, "trunk": "resnet50"},
        Recipe(
            epochs=60,
            batch_size=64,
            images_per_identity=8,
            learning_rate=0.08,
            trunk_rate=0.25,
            augmentation=Augmentation(pad=10, erase=0.2),
        ),
    ),
}
_PAPER = {
    # JLML §4: 50,000 iterations of 32 images, rate 0.01, divided by ten every 20,000; we assume no
    # augmentation and Caffe's usual weight decay. Without the paper's ImageNet pre-training.
    "jlml": ModelSize(
        (224, 224),
        {},
        Recipe(
            steps=50_000,
            learning_rate=0.01,
            schedule="steps",
            milestones=(0.4, 0.8),
            nesterov=False,
            augmentation=Augmentation(flip=0, pad=0),
        ),
    ),
    # Zheng et al. and their released code: 120 epochs, rates halved behind the epochs 60, 70, 80, 90 and 100.
    # An epoch is as many batches as fit into the images (theirs of balanced batches is half as long).
    "pyramid": ModelSize(
        (384, 128),
        {"weights": "imagenet"},
        Recipe(
            epochs=120,
            batch_size=64,
            images_per_identity=8,
            learning_rate=0.1,
            trunk_rate=0.1,
            schedule="steps",
            milestones=(60 / 120, 70 / 120, 80 / 120, 90 / 120, 100 / 120),
            decay=0.5,
            nesterov=False,
            augmentation=Augmentation(pad=0, erase=0.2),
        ),
    ),
}
PROFILES = {
    "smoke": Profile("smoke", "smoke", _SMOKE),
    "quick": Profile("quick", "quick", _QUICK),
    "full": Profile("full", "full", _FULL),
    "paper": Profile("paper", None, _PAPER),
}

# The factors that a condition may turn, and the values that are compared; one of each is the benchmark's own.
PERTURBATIONS: dict[str, tuple[float, ...]] = {
    "box_jitter": (0.0, 0.06, 0.12, 0.24),
    "box_scale_error": (0.0, 0.06, 0.12, 0.24),
    "occlusion_share": (0.0, 0.15, 0.4, 0.8),
}


@dataclass(frozen=True)
class Perturbation:
    """One factor of the embedded benchmark at one value, the others as they are by default.

    Raises InputError for a factor that is not in ``PERTURBATIONS`` and a value out of the factor's range.
    """

    factor: str
    value: float

    def __post_init__(self) -> None:
        check_choice(f"a condition turns one of {', '.join(PERTURBATIONS)}", self.factor, PERTURBATIONS)
        Factors(**{self.factor: self.value})  # refuses a value out of range
        object.__setattr__(self, "value", float(self.value))

    @property
    def name(self) -> str:
        """As in "box_jitter 0.12"."""
        return f"{self.factor} {self.value:g}"

    @property
    def factors(self) -> Factors:
        return Factors(**{self.factor: self.value})

    @property
    def is_default(self) -> bool:
        """Is this the benchmark as it is?"""
        return self.factors == Factors()


def all_perturbations() -> tuple[Perturbation, ...]:
    """Every value of every factor in ``PERTURBATIONS``."""
    return tuple(Perturbation(factor, value) for factor, values in PERTURBATIONS.items() for value in values)


def experiment_named(name: str) -> Experiment:
    """A row of ``EXPERIMENTS`` by its name. Raises InputError for an unknown one."""
    return _named(name, "model", EXPERIMENTS, usual="jlml")


def profile_named(name: str) -> Profile:
    """A profile by its name. Raises InputError for an unknown one."""
    return _named(name, "profile", PROFILES, usual="quick")


def _named(name: str, kind: str, rows: Mapping[str, NamedRow], *, usual: str) -> NamedRow:
    near = difflib.get_close_matches(str(name), rows, 1) or [usual]
    check_choice(f"a {kind} is one of {', '.join(rows)}", name, rows, f"try {near[0]!r}")
    return rows[name]
