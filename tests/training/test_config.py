"""Configurations refuse contradictory values when they are created, with an InputError."""

import inspect
import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from reidlib import models
from reidlib.errors import InputError
from reidlib.models.pyramid import PyramidOutput
from reidlib.training.config import (
    Augmentation,
    JLMLConfiguration,
    PyramidConfiguration,
    Recipe,
    RunConfiguration,
)
from reidlib.training.dynamic import Balance, Balancing
from reidlib.training.runs import configuration_hash


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"stripes": 0}, "at least one whole stripe, at most 256; got stripes=0"),
        ({"stripes": 2.5}, "stripes is a whole number; got 2.5"),
        ({"stripes": 10**9}, "at most 256; got stripes=1000000000"),
        ({"levels": ()}, "select at least one part"),
        ({"levels": (7,)}, "levels of 6 stripes are 1 to 6"),
        ({"levels": (1, 1)}, "each level counts once"),
        ({"levels": 5}, "sequence of whole numbers"),
        ({"levels": "(1, 6)"}, "sequence of whole numbers"),
        ({"levels": (1.5,)}, r"levels\[0\] is a whole number; got 1.5"),
        ({"trunk": "resnet18"}, "trunk is one of"),
        ({"width": math.nan, "trunk": "resnet39"}, "width is a finite number; got nan"),
        ({"embedding_size": 0}, "at least one number"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"dropout": math.nan}, "dropout is a finite number"),
        ({"normalisation": "prat"}, "one of none, part, whole; got 'prat'; did you mean part"),
        ({"margin": math.nan}, "margin is a finite number"),
    ],
)
def test_contradictory_pyramids_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        PyramidConfiguration(**arguments)


def run(model, recipe, size=(192, 64)):
    return RunConfiguration(model, recipe, size, "synthetic", "fingerprint")


@pytest.mark.parametrize("settings", [JLMLConfiguration(), PyramidConfiguration()])
def test_a_network_has_no_keyword_that_its_configuration_lacks(settings, monkeypatch):
    built, name = {}, type(settings).__name__.removesuffix("Configuration")
    network = getattr(models, name)

    def building(num_classes, **keywords):
        built.update(keywords, num_classes=num_classes)

    building.__signature__ = inspect.signature(network)
    monkeypatch.setattr(models, name, building, raising=False)
    settings.build(7, seed=3)
    assert built.keys() == inspect.signature(network).parameters.keys()
    assert built["num_classes"] == 7 and built["generator"].initial_seed() == 3
    assert all(getattr(settings, key) == built[key] for key in built.keys() - {"num_classes", "generator"})


def test_triplets_need_balanced_batches():
    recipe = Recipe(epochs=1)
    with pytest.raises(InputError, match="identity-balanced batches; got images_per_identity=0"):
        run(PyramidConfiguration(), recipe)
    run(PyramidConfiguration(triplet=False), recipe)


def test_stripes_divide_the_map():
    recipe = Recipe(epochs=1, images_per_identity=4)
    with pytest.raises(InputError, match="use a height of 160 or 240"):
        run(PyramidConfiguration(stripes=5), recipe)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"parts": 0}, "each part has at least one value"),
        ({"parts": 600}, "each part has at least one value .*; got parts=600, feature_size=512"),
        ({"feature_size": 0}, "each part has at least one value"),
        ({"trunk": "resnet50", "local_width": 0.5}, "local_width is"),
        ({"sparsity_local": -1e-4}, "sparsity_local are at least 0; got .0.0005, -0.0001"),
    ],
)
def test_contradictory_jlmls_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        JLMLConfiguration(**arguments)


@pytest.mark.parametrize(
    "change", [{"flip": 1.1}, {"erase": -0.1}, {"pad": -1}, {"pad": 1.5}, {"colour_jitter": 1.0}]
)
def test_contradictory_augmentations_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change))):
        Augmentation(**change)


QUICK_JLML = RunConfiguration(
    JLMLConfiguration(width=0.5), Recipe(epochs=20), (128, 64), "synthetic", "0123456789abcdef"
)
QUICK_PYRAMID = RunConfiguration(
    PyramidConfiguration(
        weights=None, normalise_triplet=True, normalisation="part", trunk="resnet39", width=0.5
    ),
    Recipe(epochs=14, batch_size=32, images_per_identity=4, learning_rate=0.08, trunk_rate=0.25),
    (192, 64),
    "synthetic",
    "0123456789abcdef",
)


@pytest.mark.parametrize(
    "configuration, digest",
    [
        (QUICK_JLML, "8932e9ea951d"),
        (QUICK_PYRAMID, "5feddf0b5105"),
        (replace(QUICK_JLML, seed=2, start="0123456789ab"), "bf5055792ad5"),
    ],
)
def test_hashes_of_known_configurations_are_unchanged(configuration, digest):
    """A configuration's hash identifies its run's folder; if it changed, trained runs would not be found."""
    assert configuration_hash(configuration.to_json()) == digest
    assert RunConfiguration.from_json(configuration.to_json()) == configuration


LATER = [
    replace(QUICK_JLML, model=replace(QUICK_JLML.model, local_width=0.7)),
    replace(QUICK_JLML, recipe=replace(QUICK_JLML.recipe, augmentation=Augmentation(erasing="zhong"))),
    replace(QUICK_JLML, resize="bicubic"),
    replace(QUICK_JLML, recipe=None, imported="0" * 64),
    replace(QUICK_JLML, validation_persons=30),
    replace(QUICK_PYRAMID, recipe=replace(QUICK_PYRAMID.recipe, epoch_of="identities")),
    replace(QUICK_PYRAMID, model=replace(QUICK_PYRAMID.model, triplet_on="whole")),
    replace(QUICK_PYRAMID, model=replace(QUICK_PYRAMID.model, balancing=Balancing(weights="sum-2"))),
]


@pytest.mark.parametrize("configuration", LATER)
def test_a_later_field_is_part_of_the_hash_unless_it_is_at_its_default(configuration):
    older = QUICK_JLML if isinstance(configuration.model, JLMLConfiguration) else QUICK_PYRAMID
    content = configuration.to_json()
    assert configuration_hash(content) != configuration_hash(older.to_json())
    assert RunConfiguration.from_json(json.loads(json.dumps(content))) == configuration


def test_a_run_has_a_recipe_or_is_imported():
    for recipe, imported in ((None, ""), (Recipe(epochs=1), "0" * 64)):
        with pytest.raises(InputError, match="has a recipe, or is imported"):
            replace(QUICK_JLML, recipe=recipe, imported=imported)


def test_an_epoch_of_identities_is_the_released_codes():
    recipe = Recipe(epochs=120, batch_size=64, images_per_identity=8, epoch_of="identities")
    assert recipe.steps_per_epoch(12_936, 751) == 94  # of Market-1501: 751 identities, 8 in a batch
    assert replace(recipe, epoch_of="images").steps_per_epoch(12_936, 751) == 202
    with pytest.raises(InputError, match="needs identity-balanced batches; got identities"):
        Recipe(epochs=1, epoch_of="identities")


def test_a_triplet_loss_on_the_whole_feature_compares_all_parts_joined():
    generator = torch.Generator().manual_seed(0)
    embeddings_bpd = torch.rand((8, 3, 4), generator=generator)
    output = PyramidOutput(torch.zeros(8, 3, 2), embeddings_bpd, torch.zeros(()))
    labels_b = torch.arange(8) // 4
    for normalise in (False, True):
        model = PyramidConfiguration(
            triplet_on="whole", normalise_triplet=normalise, balancing=Balancing("off")
        )
        terms, _ = model.objective(None, output, labels_b, Balance())
        features_bd = embeddings_bpd.flatten(1)
        if normalise:
            features_bd = features_bd / features_bd.norm(dim=1, keepdim=True)
        distances_bb = torch.cdist(features_bd, features_bd)
        same_bb = labels_b[:, None] == labels_b
        hardest_b = distances_bb.masked_fill(~same_bb, -1).amax(1)
        nearest_b = distances_bb.masked_fill(same_bb, math.inf).amin(1)
        expected = (hardest_b - nearest_b + 1.4).clamp_min(0).mean()
        assert terms.names == ("identity", "triplet")
        torch.testing.assert_close(terms.values[1], expected)


def test_configurations_and_runs_load_no_torch():
    program = (
        "import sys\n"
        "from reidlib.training import config, dynamic, runs\n"
        "config.PyramidConfiguration(levels=(1, 6)).check_input((384, 128))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
