"""Experiments, profiles and perturbations as literal rows of names and values.

``experiments.obtain`` combines an experiment and a profile to a ``RunConfiguration``. This module loads no
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from reidlib.data.readers.thinning import thinning_of
from reidlib.data.synthetic.factors import Factors
from reidlib.errors import InputError, check_choice, nearest, shown
from reidlib.training.config import MODELS, Augmentation, Recipe, RunConfiguration
from reidlib.training.dynamic import Balancing
from reidlib.values import dotted_fields, set_fields

NamedRow = TypeVar("NamedRow")
RENDERED = "synthetic"  # the embedded benchmark


@dataclass(frozen=True)
class Experiment:
    """A model with changes to the defaults of its configuration.

    Attributes:
        model: Name of the model, a key of ``training.config.MODELS``.
        overrides: Fields of the model's configuration with values that differ from the defaults.
        trunk_rate: Factor on the recipe's ``trunk_rate``, for a trunk that starts from random weights.
        recipe: Fields of the recipe that the row states itself, in every profile; "augmentation" is a mapping
            too. A profile may also have a size of its own for a row, by the row's name.
    """

    model: str
    overrides: Mapping[str, object] = field(default_factory=dict)
    trunk_rate: float = 1.0
    recipe: Mapping[str, Any] = field(default_factory=dict)


# The trainings that notebooks compare, by name. A row states only what differs from the model's defaults; the
# profile adds input size, width and recipe. To add an experiment, add a row; the name becomes part of the
# run's folder name, but not of its identity. `reidlib train NAME` trains a row.
EXPERIMENTS = {
    "jlml": Experiment("jlml"),
    "jlml-uniloss": Experiment("jlml", {"multi_loss": False}),
    "jlml-separate": Experiment("jlml", {"shared_stem": False}),
    # Selective feature learning: off, and ten and a hundred times the recalled strength. Batch norm after the
    # feature layers undoes a change of scale, so sparsity may have another effect without it.
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
    # Each part has its own stream, so networks grow with the parts. Eight narrower streams have as many
    # parameters as four: a stream's parameters grow with the square of its width, and 0.71² is a half.
    "jlml-8-equal": Experiment("jlml", {"parts": 8, "local_width": 0.71}),
    "pyramid": Experiment("pyramid"),
    # Dynamic training. The row above is our reading of the paper: we assume its weights. Two other readings
    # of them: unscaled, and scaled to a sum of 2.
    "pyramid-literal": Experiment("pyramid", {"balancing": Balancing("paper", weights="literal")}),
    "pyramid-sum-2": Experiment("pyramid", {"balancing": Balancing("paper", weights="sum-2")}),
    # One triplet loss of the joined feature, as two reading notes of the paper say (CSDN, article 100051720;
    # e-com-net, article 1294162816898506752). The default is the released code's: a sum over the parts.
    "pyramid-triplet-whole": Experiment("pyramid", {"triplet_on": "whole"}),
    # The released code's gate, the plain sum, and the identity loss alone.
    "pyramid-official": Experiment("pyramid", {"balancing": Balancing("official")}),
    "pyramid-off": Experiment("pyramid", {"balancing": Balancing("off")}),
    "pyramid-identity": Experiment("pyramid", {"triplet": False}),
    # The authors' second code, YouReID, which was read: its gate, scaled embeddings, one rate for all layers,
    # more erasing, in every profile. The rest of its recipe stands in "paper", beside what remains different.
    # The other profiles keep their shifts: 4 pixels of a small input, and 10 of the full size, as in YouReID.
    "pyramid-youreid": Experiment(
        "pyramid",
        {"balancing": Balancing("official"), "normalise_triplet": True, "normalisation": "part"},
        recipe={"learning_rate": 0.02, "trunk_rate": 1.0, "augmentation": {"erase": 0.5}},
    ),
    # Levels of the pyramid over six stripes, and pyramids over fewer stripes. The losses are sums over the
    # parts, so the trunk of a network with fewer parts gets a smaller gradient. A higher rate of the trunk
    # compensates for it; otherwise the row would show this effect.
    "pyramid-global": Experiment("pyramid", {"levels": (6,)}, trunk_rate=21 / 1),
    "pyramid-stripes": Experiment("pyramid", {"levels": (1,)}, trunk_rate=21 / 6),
    "pyramid-2": Experiment("pyramid", {"stripes": 2}, trunk_rate=21 / 3),
    "pyramid-3": Experiment("pyramid", {"stripes": 3}, trunk_rate=21 / 6),
    "pyramid-4": Experiment("pyramid", {"stripes": 4}, trunk_rate=21 / 10),
    # The other reading of "the same training": the same rate for any number of parts.
    "pyramid-global-same-rate": Experiment("pyramid", {"levels": (6,)}),
    "pyramid-stripes-same-rate": Experiment("pyramid", {"levels": (1,)}),
}


@dataclass(frozen=True)
class ModelSize:
    """Input, width and recipe of a model in a profile.

    Attributes:
        input_size: Height and width of the network's input, in pixels.
        overrides: Fields of the model's configuration and their values in this profile.
        recipe: Length, batches and learning rates of the training.
        resize: Interpolation; see ``RunConfiguration``.
    """

    input_size: tuple[int, int]
    overrides: Mapping[str, object]
    recipe: Recipe
    resize: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass(frozen=True)
class Profile:
    """The size of all runs: "smoke", "quick", "full", "photographs" or "paper".

    Attributes:
        name: Name of the profile.
        rendered_size: Size of the embedded benchmark; None if a real benchmark's folder is required.
        sizes: Size of each model, by the model's name, or of a single row of ``EXPERIMENTS`` by its name.
        fine_tuning: Fields of the recipe that differ in a training that starts from another run, by the
            model's name.
        pretraining: Those that differ in a training from which others start.
        thinned: Those that differ on fewer training images than a benchmark has (``readers.thinning``).
    """

    name: str
    rendered_size: str | None
    sizes: Mapping[str, ModelSize]
    fine_tuning: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pretraining: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    thinned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def size_of(
        self,
        experiment: str,
        *,
        pretraining: bool = False,
        fine_tuned: bool = False,
        thinned: bool = False,
    ) -> ModelSize:
        """Return the size of a row, with the fields of the recipe that the row states itself."""
        row = get_experiment(experiment)
        size = self.sizes.get(experiment) or self.sizes[row.model]
        recipe, changes = size.recipe, dict(row.recipe)
        stages = (
            (pretraining, self.pretraining),
            (fine_tuned, self.fine_tuning),
            (thinned, self.thinned),
        )
        for applies, of_stage in stages:
            recipe = replace(recipe, **of_stage.get(row.model, {})) if applies else recipe
        augmentation = replace(recipe.augmentation, **changes.pop("augmentation", {}))
        return replace(size, recipe=replace(recipe, augmentation=augmentation, **changes))


# From random weights, unscaled triplets with a margin of 1.4 pull all embeddings together before identities
# separate. Embeddings of unit length in triplets and matching, as in YouReID, avoid that.
_UNIT_LENGTH = {"weights": None, "normalise_triplet": True, "normalisation": "part"}
_SMALL_PYRAMID = {**_UNIT_LENGTH, "trunk": "resnet39"}
# Runs everything in seconds; the scores have no meaning.
_SMOKE = {
    "jlml": ModelSize((64, 32), {"width": 0.25}, Recipe(epochs=2, batch_size=16)),
    # 192 rows: a map of 12, which 2, 3, 4 and 6 stripes divide.
    "pyramid": ModelSize(
        (192, 32),
        {**_SMALL_PYRAMID, "width": 0.25, "embedding_size": 16},
        Recipe(epochs=2, batch_size=16, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
}
# Two CPU cores: the smallest networks and inputs that show the papers' effects. JLML's input and recipe were
# chosen on another rendered benchmark (`reidlib render quick DIR --seed 1`). Its classifiers take a lower
# rate than its trunk, which batch norm makes indifferent to the scale of its weights.
_QUICK = {
    "jlml": ModelSize(
        (112, 56),
        {"width": 0.5},
        Recipe(
            epochs=13,
            learning_rate=0.01,
            trunk_rate=30,
            schedule="linear",
            warm_up=0.1,
            weight_decay=1e-3,
        ),
    ),
    "pyramid": ModelSize(
        (192, 64),
        {**_SMALL_PYRAMID, "width": 0.5},
        Recipe(epochs=14, batch_size=32, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
}
# One GPU: the full widths, and the inputs of the profile "paper", at Market-1501's size; trained from random
# weights, with a trunk that needs no pretrained weights.
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
# What remains different in "pyramid" from Zheng et al.'s released code (PersonReID-Pyramid@63ffd64), whose
# balancing is that of the row `pyramid-official`:
# - The last epoch is scored. The code keeps the checkpoint that is best on the test set, from the 97th on.
# - An epoch's last batch is complete: on Market, seven identities wait for a later epoch, and eight of the
#   next round take their place. There, it has 56 images, and every identity is in every epoch.
# - Images of an identity with fewer than eight are repeated as evenly as possible, not drawn at random.
# - Rates fall after the epochs that are named. With torch from 1.1 on, that code halves one epoch earlier.
# - bfloat16 where the hardware has it (``training.device.Execution``); there float32.
_PAPER = {
    # JLML's text and code were not available. The rate is divided by ten every 20,000 steps.
    # Recalled: input_size, steps, batch_size, learning_rate, milestones, decay, momentum.
    # Our choice: nesterov, weight_decay, flip, pad. We differ: no ImageNet pre-training (read in a survey).
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
    # The released code of Zheng et al.: 120 epochs, each of the balanced batches that hold eight images of
    # every identity; rates halved after the epochs 60, 70, 80, 90 and 100.
    # Read there: weights, input_size, epochs, batch_size, images_per_identity, learning_rate, trunk_rate,
    # milestones, decay, momentum, nesterov, weight_decay, flip, pad, erase, erasing, epoch_of, resize.
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
            augmentation=Augmentation(pad=0, erase=0.2, erasing="zhong"),
            epoch_of="identities",
        ),
        resize="bicubic",
    ),
}
# The recipe of YouReID (read: example/Pyramid/Pyramid.yaml) beyond what the row states. What remains
# different:
# - One batch of 64 images, whose triplets and gate see all of them. YouReID trains two processes of 64 images
#   with triplets, gate and batch norm of their own; its rate 0.02 is 0.01 for each process.
# - A shifted image's border is repeated; there it is black.
# - An erased rectangle is 0 after normalisation, the mean colour; there it is 0.485, 0.456, 0.406.
# - An epoch has as many batches as fit into the images. There, groups of eight images of an identity are
#   drawn without replacement until fewer than eight identities are left.
# - bfloat16 where the hardware has it; there half precision with a scaled loss.
_PAPER["pyramid-youreid"] = replace(
    _PAPER["pyramid"],
    recipe=replace(
        _PAPER["pyramid"].recipe,
        milestones=(60 / 120, 70 / 120, 80 / 120, 90 / 120),
        augmentation=Augmentation(pad=10, erasing="zhong"),
        epoch_of="images",
    ),
    resize="bilinear",
)
# Photographs, on two CPU cores: the networks of "quick", the only ones that were measured on photographs, and
# longer trainings. Without a start they have twenty passes, which is our choice. A run tells its profile by
# its configuration, so that no two profiles may have equal rows.
_PHOTOGRAPHS = {
    model: replace(size, recipe=replace(size.recipe, epochs=20)) for model, size in _QUICK.items()
}
# Fine-tuning to other persons: the classifiers are new and keep their rate. The trunk has learnt already: it
# stays for a tenth of the training. In "quick" it then has a tenth of its rate (JLML) or two fifths (Pyramid,
# whose trunk has a quarter of the others' rate already): a choice made before others were compared, which its
# runs in reports/evidence keep.
_QUICK_FINE_TUNING = {
    "jlml": {"epochs": 12, "trunk_rate": 3.0, "frozen": 0.1},
    "pyramid": {"epochs": 12, "trunk_rate": 0.1, "frozen": 0.1},
}
# "quick" takes minutes: two passes over Market-1501's and CUHK03's training images are 1,712 steps, half of
# what its trainings on Market-1501 alone have.
_QUICK_PRETRAINING = {model: {"epochs": 2} for model in _QUICK}
# "photographs" is pre-trained for what two CPU cores do in about two hours, one model each. Full width
# has 3.4 (JLML) and 3.5 times (Pyramid) the multiplications.
_PRETRAINING = {"jlml": {"epochs": 30}, "pyramid": {"epochs": 20}}
# Its fine-tuning was chosen on validation persons of VIPeR and CUHK01: notebooks/README.md has the scores.
# Half of VIPeR has as many steps as half of CUHK01 has in twelve passes.
_LONG_FINE_TUNING = {
    "jlml": {"epochs": 12, "least_steps": 720, "trunk_rate": 9.0, "frozen": 0.1},
    "pyramid": {"epochs": 12, "least_steps": 720, "trunk_rate": 0.25, "frozen": 0.1},
}
# Learning curves: on a few persons the usual passes are few steps, and a start would win by its earlier ones.
# So a training on thinned images has at least the steps of 125 persons of Market-1501 with all their images,
# a quarter of 500 (13 passes are 871 steps, fine-tuning's 12 are 804). Our choice, made before any result.
_THINNED = {model: {"least_steps": 800} for model in _QUICK}
_LONG_THINNED = {model: {"least_steps": 720} for model in _QUICK}  # as its fine-tuning
PROFILES = {
    "smoke": Profile("smoke", "smoke", _SMOKE),
    "quick": Profile("quick", "quick", _QUICK, _QUICK_FINE_TUNING, _QUICK_PRETRAINING, _THINNED),
    "full": Profile("full", "full", _FULL, thinned=_THINNED),
    "photographs": Profile("photographs", None, _PHOTOGRAPHS, _LONG_FINE_TUNING, _PRETRAINING, _LONG_THINNED),
    "paper": Profile("paper", None, _PAPER),
}

# The perturbed factors and their compared values; one value of each factor is the benchmark's default.
PERTURBATIONS: dict[str, tuple[float, ...]] = {
    "box_jitter": (0.0, 0.06, 0.12, 0.24),
    "box_scale_error": (0.0, 0.06, 0.12, 0.24),
    "occlusion_share": (0.0, 0.15, 0.4, 0.8),
}


@dataclass(frozen=True)
class Perturbation:
    """One factor of the embedded benchmark's test images at one value, the others at their defaults.

    Attributes:
        factor: Name of the factor, a key of ``PERTURBATIONS``.
        value: Value of the factor; see ``data.synthetic.factors.Factors`` for its unit and range.

    Raises:
        InputError: If the factor is unknown or the value is out of its range.
    """

    factor: str
    value: float

    def __post_init__(self) -> None:
        check_choice(f"a perturbed factor is one of {', '.join(PERTURBATIONS)}", self.factor, PERTURBATIONS)
        replace(Factors(), **{self.factor: self.value})  # checks the range
        object.__setattr__(self, "value", float(self.value))

    @property
    def name(self) -> str:
        """Factor and value, as in "box_jitter 0.12"."""
        return f"{self.factor} {self.value:g}"

    @property
    def factors(self) -> Factors:
        """All factors of the renderer under this perturbation."""
        return replace(Factors(), **{self.factor: self.value})

    @property
    def is_default(self) -> bool:
        """Whether this is the unperturbed benchmark."""
        return self.factors == Factors()


# Metrics that are learnt on top of a network's feature, and the plain distance of the same feature.
LEARNT_METRICS = ("KISSME", "XQDA", "NFST", "CRAFT")
L2 = "L2"


def all_perturbations() -> tuple[Perturbation, ...]:
    """Return every value of every factor in ``PERTURBATIONS``."""
    return tuple(Perturbation(factor, value) for factor, values in PERTURBATIONS.items() for value in values)


def get_experiment(name: str) -> Experiment:
    """Return a row of ``EXPERIMENTS``; InputError for an unknown name."""
    return _get(name, "model", EXPERIMENTS)


# Fields that have options of their own.
_WITH_OPTIONS = ("benchmark", "data", "seed", "start", "imported", "validation_persons")


def settable_fields(configuration: RunConfiguration) -> dict[str, object]:
    """Return the values of the fields that may be set for a training, by names such as "recipe.epochs"."""
    values = dotted_fields(configuration)
    return {name: value for name, value in values.items() if name not in _WITH_OPTIONS}


def stages_of(benchmark: str, start: str = "", *, pretraining: bool = False) -> dict[str, bool]:
    """Return which stages a training is, by the names that ``Profile.size_of`` has for them."""
    return {
        # The row's own run on rendered people, which `reidlib reproduce` trains, is what others start from.
        "pretraining": pretraining and benchmark != RENDERED,
        "fine_tuned": bool(start),
        "thinned": thinning_of(benchmark) != (0, 0),
    }


def configure_stages(
    experiment: str,
    profile: Profile,
    stages: Mapping[str, bool],
    settings: Mapping[str, str] | None = None,
    **identity: Any,
) -> RunConfiguration:
    """Return the configuration of a row in a profile at some of the stages; see ``configure``."""
    row, settings = get_experiment(experiment), settings or {}
    size = profile.size_of(experiment, **stages)
    model = set_fields(MODELS[row.model](**{**row.overrides, **size.overrides}), settings, "model.")
    factor = row.trunk_rate if model.weights is None else 1
    recipe = replace(size.recipe, trunk_rate=factor * size.recipe.trunk_rate)
    own = set_fields(replace(size, recipe=recipe), settings)
    return RunConfiguration(model, own.recipe, own.input_size, resize=own.resize, **identity)


def configure(
    experiment: str,
    profile: Profile,
    settings: Mapping[str, str] | None = None,
    *,
    pretraining: bool = False,
    **identity: Any,
) -> tuple[RunConfiguration, dict[str, object]]:
    """Return the configuration of a row in a profile, and the set fields whose values are not the row's."""
    # ``settings`` has texts by the names of ``settable_fields``, ``identity`` the fields of the run.
    stages = stages_of(identity["benchmark"], identity.get("start", ""), pretraining=pretraining)
    configuration = configure_stages(experiment, profile, stages, **identity)
    if not settings:
        return configuration, {}
    known = settable_fields(configuration)
    for name in settings:
        if name not in known:
            raise InputError(
                "a field of the model or the recipe, input_size or resize can be set",
                shown(name),
                f"name {_similar_fields(name, known)}; --seed, --benchmark and --validate are other options",
            )
    configuration = configure_stages(experiment, profile, stages, settings, **identity)
    values = settable_fields(configuration)
    return configuration, {name: values[name] for name in sorted(settings) if values[name] != known[name]}


def _similar_fields(name: str, known: Mapping[str, object]) -> str:
    """Return the fields of the same part of the configuration whose last word is similar, or all of them."""
    part, _, word = name.rpartition(".")
    inside = [field for field in known if field.startswith(f"{name}.")]  # a part cannot be set as a whole
    same_part = inside or [field for field in known if part and field.startswith(f"{part}.")] or [*known]
    last_words = {field: field.rpartition(".")[2] for field in same_part}
    similar = "" if inside else nearest(word, last_words.values())
    names = [field for field, last in last_words.items() if last == similar]
    return " or ".join(names) or f"one of {', '.join(same_part)}"


def get_profile(name: str) -> Profile:
    """Return a profile; InputError for an unknown name."""
    return _get(name, "profile", PROFILES)


def _get(name: str, kind: str, rows: Mapping[str, NamedRow]) -> NamedRow:
    check_choice(f"a {kind} is one of {', '.join(rows)}", name, rows)
    return rows[name]
