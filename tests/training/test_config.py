"""Configurations refuse contradictory values when they are created, with an InputError."""

import inspect
import math
import subprocess
import sys
from dataclasses import replace

import pytest

from reidlib import models
from reidlib.errors import InputError
from reidlib.training.config import (
    Augmentation,
    JLMLConfiguration,
    PyramidConfiguration,
    Recipe,
    RunConfiguration,
)
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


def test_configurations_and_runs_load_no_torch():
    program = (
        "import sys\n"
        "from reidlib.training import config, dynamic, runs\n"
        "config.PyramidConfiguration(levels=(1, 6)).check_input((384, 128))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
