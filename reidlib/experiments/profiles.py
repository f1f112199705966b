"""How large a run is, profile by profile: the network's input, what is scaled, the recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reidlib.training.config import Augmentation, JLMLConfiguration, PyramidConfiguration, Recipe


@dataclass(frozen=True)
class Profile:
    """How large a run is: the network's input, what of its configuration is scaled, and the recipe."""

    input_size: tuple[int, int]  # height, width in pixels
    scaled: Mapping[str, object]  # fields of the model's configuration and their values in this profile
    recipe: Recipe


JLML_PROFILES = {
    # Seconds: does everything run? Its scores mean nothing.
    "smoke": Profile((64, 32), {"width": 0.25}, Recipe(epochs=2, batch_size=16)),
    # Two CPU cores: the smallest network and input at which the papers' effects show.
    "quick": Profile((128, 64), {"width": 0.5}, Recipe(epochs=20)),
    # One GPU: the paper's network and input at Market-1501's size, trained from random weights.
    "full": Profile((224, 224), {}, Recipe(epochs=60, augmentation=Augmentation(pad=10))),
    # JLML §4: 50,000 iterations of 32 images, rate 0.01, divided by ten every 20,000; we assume no
    # augmentation and Caffe's usual weight decay. Without the paper's ImageNet pre-training.
    "paper": Profile(
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
}

# From random weights, unscaled triplets with a margin of 1.4 pull everything together before identities come
# apart. With embeddings of unit length, in the triplets and in matching (as YouReID has it), they do not.
_UNIT_LENGTH = {"weights": None, "normalise_triplet": True, "normalisation": "part"}
_SMALL_PYRAMID = {**_UNIT_LENGTH, "trunk": "resnet39"}
PYRAMID_PROFILES = {
    # 192 rows: a map of 12, which 2, 3, 4 and 6 stripes divide.
    "smoke": Profile(
        (192, 32),
        {**_SMALL_PYRAMID, "width": 0.25, "embedding_size": 16},
        Recipe(epochs=2, batch_size=16, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
    "quick": Profile(
        (192, 64),
        {**_SMALL_PYRAMID, "width": 0.5},
        Recipe(epochs=14, batch_size=32, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    ),
    # The paper's input, at Market-1501's size, with a trunk for which random weights are enough.
    "full": Profile(
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
    # Zheng et al. and their released code: 120 epochs, rates halved behind the epochs 60, 70, 80, 90 and 100.
    # An epoch is as many batches as fit into the images (theirs of balanced batches is half as long).
    "paper": Profile(
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
# By the type of the model's configuration.
PROFILES = {JLMLConfiguration: JLML_PROFILES, PyramidConfiguration: PYRAMID_PROFILES}
