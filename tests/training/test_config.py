"""Configurations refuse what contradicts itself when they are built, in the one form of an error."""

import math

import pytest

from reidlib.errors import InputError
from reidlib.training.config import PyramidConfiguration, RunConfiguration
from reidlib.training.recipe import Recipe


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"stripes": 0}, "at least one whole stripe; got stripes=0"),
        ({"stripes": 2.5}, "at least one whole stripe; got stripes=2.5"),
        ({"levels": ()}, "select at least one part"),
        ({"levels": (7,)}, "levels of 6 stripes are 1 to 6"),
        ({"levels": (1, 1)}, "each level counts once"),
        ({"levels": 5}, "sequence of whole numbers"),
        ({"levels": "(1, 6)"}, "sequence of whole numbers"),
        ({"levels": (1.5,)}, "sequence of whole numbers"),
        ({"trunk": "resnet18"}, "trunk is one of"),
        ({"width": math.nan, "trunk": "resnet39"}, "width is a positive factor"),
        ({"embedding_size": 0}, "at least one number"),
        ({"dropout": 1.0}, "dropout is a share"),
        ({"dropout": math.nan}, "dropout is a share"),
        ({"normalisation": "x"}, "none, part or whole"),
        ({"margin": math.nan}, "margin is a distance"),
    ],
)
def test_contradictory_pyramids_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        PyramidConfiguration(**arguments)


def run(model, recipe, size=(192, 64)):
    return RunConfiguration(model, recipe, size, "synthetic", "fingerprint")


def test_triplets_need_balanced_batches():
    recipe = Recipe(epochs=1)
    with pytest.raises(InputError, match="identity-balanced batches; got images_per_identity=0"):
        run(PyramidConfiguration(), recipe)
    run(PyramidConfiguration(triplet=False), recipe)


def test_stripes_divide_the_map():
    recipe = Recipe(epochs=1, images_per_identity=4)
    with pytest.raises(InputError, match="use a height of 160 or 240"):
        run(PyramidConfiguration(stripes=5), recipe)
