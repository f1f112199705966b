"""Rows: what identifies their runs, and what a step of each Pyramid row minimises."""

import hashlib
import json
import math
from itertools import product
from types import SimpleNamespace

import pytest
import torch

from reidlib.errors import InputError
from reidlib.experiments.obtain import plan_training
from reidlib.experiments.rows import EXPERIMENTS, PROFILES, configure, settable_fields
from reidlib.models.pyramid import PyramidOutput
from reidlib.training.dynamic import Balance
from reidlib.training.runs import configuration_hash

BENCHMARK = SimpleNamespace(specification="synthetic", fingerprint="0123456789abcdef")
LATER_ROWS = {"jlml-8-equal", "pyramid-sum-2", "pyramid-triplet-whole", "pyramid-youreid"}


def configuration(row, profile="quick"):
    return plan_training(row, PROFILES[profile], BENCHMARK).configuration


@pytest.mark.parametrize(
    ("profile", "digest"), [("smoke", "ddc988ea7c58"), ("quick", "7b578b51c403"), ("full", "441e776ca012")]
)
def test_runs_of_the_first_24_rows_keep_their_identity(profile, digest):
    """Another digest would train old runs again; JLML's in quick are new since its shorter recipe."""
    hashes = {name: configuration_hash(configuration(name, profile).to_json()) for name in EXPERIMENTS}
    lines = [f"{name} {hashes[name]}" for name in sorted(EXPERIMENTS.keys() - LATER_ROWS)]
    assert len(lines) == 24
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12] == digest
    assert len(set(hashes.values())) == len(hashes)  # no row is another one under a second name


@pytest.mark.parametrize("before", [{}, {"pretraining": True}, {"start": "0123456789ab"}])
@pytest.mark.parametrize("thinned", ["", ",train_persons=100"])
def test_a_configuration_is_of_one_profile(before, thinned):
    """A run tells its profile by it, and evidence where it belongs."""
    of_hash = {}
    for name, profile in product(EXPERIMENTS, PROFILES.values()):
        identity = {"benchmark": f"market1501{thinned}", "data": "0" * 16, **before}
        content = configure(name, profile, **identity)[0].to_json()
        of_hash.setdefault(configuration_hash(content), set()).add(profile.name)
    assert [profiles for profiles in of_hash.values() if len(profiles) > 1] == []


def planned(row, profile="quick", **settings):
    """The folder's name and the hash of a training with set fields; "__" stands for a dot."""
    settings = {name.replace("__", "."): text for name, text in settings.items()}
    plan = plan_training(row, PROFILES[profile], BENCHMARK, seed=1, settings=settings)
    return plan.name, configuration_hash(plan.configuration.to_json())


def test_set_fields_are_in_the_name_and_the_configuration():
    name, digest = planned("jlml", recipe__epochs="40", model__parts="6")
    assert name == "jlml-quick-synthetic-seed1-model.parts=6,recipe.epochs=40"
    settings = {"recipe.epochs": "40", "model.parts": "6", "recipe.augmentation.pad": "2"}
    plan = plan_training("jlml", PROFILES["quick"], BENCHMARK, seed=1, settings=settings)
    recipe = plan.configuration.recipe
    assert (recipe.epochs, recipe.augmentation.pad, plan.configuration.model.parts) == (40, 2, 6)
    assert plan.configuration.seed == 1
    # The same fields give the run of the row that has them.
    assert planned("jlml", model__parts="6")[1] == planned("jlml-6")[1] != digest
    name, _ = planned(
        "pyramid", model__levels="[1, 6]", model__balancing__mode="off", model__triplet_on="whole"
    )
    assert name.endswith("seed1-model.balancing.mode=off,model.levels=1,6,model.triplet_on=whole")
    name, _ = planned(
        "jlml",
        **{f"recipe__augmentation__{each}": "0.25" for each in ("flip", "erase")},
        input_size="[256,128]",
        recipe__milestones="[0.4, 0.8]",
        recipe__schedule="steps",
    )
    assert len(name) < 120 and "seed1-input_size=256,128,recipe.augmentation.erase=0.25" in name


@pytest.mark.parametrize("row", EXPERIMENTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_setting_every_field_to_the_rows_own_value_gives_the_rows_run(row, profile):
    known = settable_fields(configuration(row, profile))
    settings = {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}
    plan = plan_training(row, PROFILES[profile], BENCHMARK, settings=settings)
    assert plan == plan_training(row, PROFILES[profile], BENCHMARK)
    own = configuration(row, profile).to_json()
    assert configuration_hash(plan.configuration.to_json()) == configuration_hash(own)  # 0 is 0.0 above


def test_the_trunks_rate_follows_set_weights():
    """A factor on the rate is for random weights, as in the profile paper."""
    changed = configure(
        "pyramid-global",
        PROFILES["quick"],
        {"model.trunk": "resnet50", "model.weights": "imagenet", "model.width": "1"},
        benchmark="",
        data="",
    )[0]
    assert changed.recipe.trunk_rate == 0.25
    assert configuration("pyramid-global").recipe.trunk_rate == 21 * 0.25


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"recipe.epoch": "4"}, "got 'recipe.epoch'; name recipe.epochs;"),
        ({"epochs": "4"}, "name recipe.epochs;"),
        ({"wights": "4"}, "name model.weights or model.balancing.weights;"),
        ({"model.parts": "4"}, "name one of model.stripes, model.levels, .*model.triplet_on; --seed"),
        ({"model.balancing.mod": "off"}, "name model.balancing.mode;"),
        ({"recipe.augmentation": "{}"}, "name one of recipe.augmentation.flip, .*erasing; --seed"),
        ({"seed": "4"}, "--seed, --benchmark and --validate are other options"),
        ({"model.balancing.rate": "2"}, "balancing needs 0 < rate <= 1"),
        ({"model.stripes": "5"}, "stripes divide the map's height"),
        ({"recipe.images_per_identity": "0"}, "a triplet loss needs identity-balanced batches"),
        ({"recipe.steps": "9"}, "stated in epochs or in steps; got epochs=14, steps=9"),
        ({"recipe.momentum": "-1"}, "momentum is from 0 to 1"),
        ({"recipe.momentum": "0"}, "Nesterov's method needs a momentum"),
        ({"recipe.milestones": "[2]", "recipe.schedule": "steps"}, "milestones is from 0 to 1"),
        ({"recipe.learning_rate": "1e300"}, "rates are at most a million"),
        ({"model.margin": "-1"}, "margin is a distance"),
        ({"model.width": "1e9"}, "width is a positive factor"),
        ({"input_size": "256x128"}, r"got '256x128'; write a list such as \[192, 64\]"),
        ({"input_size": "[0, 64]"}, "1 to 4,096 pixels"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_in_one_line(settings, words):
    with pytest.raises(InputError, match=words) as refusal:
        configure("pyramid", PROFILES["quick"], settings, benchmark="", data="")
    assert "\n" not in str(refusal.value)


def focal(before, after):
    """The focal weight by the formula, for an average that fell."""
    return (1 - after / before) ** 2 * -math.log(after / before)


def triplet_loss(vectors_bd, labels):
    """Batch-hard triplets of unit length with margin 1.4, anchor by anchor."""
    vectors = [vector / vector.norm() for vector in vectors_bd]
    hinges = []
    for anchor, label in zip(vectors, labels, strict=True):
        distances = [(anchor - other).norm() for other in vectors]
        pairs = list(zip(distances, labels, strict=True))
        farthest = max(distance for distance, other_label in pairs if other_label == label)
        nearest = min(distance for distance, other_label in pairs if other_label != label)
        hinges.append(max(farthest - nearest + 1.4, torch.zeros(())))
    return sum(hinges) / len(hinges)


@pytest.mark.parametrize(
    ("row", "weights"),
    [
        ("pyramid", lambda identity, triplet: (1, min(triplet / identity, 1))),
        ("pyramid-literal", lambda identity, triplet: (identity, triplet)),
        ("pyramid-sum-2", lambda *both: tuple(2 * weight / sum(both) for weight in both)),
        ("pyramid-triplet-whole", lambda identity, triplet: (1, min(triplet / identity, 1))),
        ("pyramid-official", lambda *_: (1, 1)),
        ("pyramid-youreid", lambda *_: (1, 1)),
        ("pyramid-off", lambda *_: (1, 1)),
    ],
)
def test_a_balanced_step_by_hand(row, weights):
    """Both losses fall; the running averages before the step are a little above the new ones."""
    generator = torch.Generator().manual_seed(0)
    logits_bpk, embeddings_bpd = (
        torch.rand(shape, generator=generator) for shape in ((8, 21, 2), (8, 21, 5))
    )
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    identity = sum(
        -torch.log_softmax(logits_bpk[image, part], 0)[label] / 8
        for image, label in enumerate(labels)
        for part in range(21)
    )
    vectors = embeddings_bpd.transpose(0, 1)
    if row == "pyramid-triplet-whole":
        vectors = embeddings_bpd.reshape(1, 8, 105)
    triplet = sum(triplet_loss(vectors_bd, labels) for vectors_bd in vectors)
    before = Balance(identity=1.2 * float(identity), triplet=1.15 * float(triplet))
    falls = [0.25 / 1.2 + 0.75, 0.25 / 1.15 + 0.75]  # new average / old one
    identity_weight, triplet_weight = weights(*(focal(1, fall) for fall in falls))
    expected = identity_weight * identity + triplet_weight * triplet
    output = PyramidOutput(logits_bpk, embeddings_bpd, torch.zeros(()))
    terms, _ = configuration(row).model.objective(None, output, torch.tensor(labels), before)
    torch.testing.assert_close(terms.total, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(torch.stack(terms.values), torch.stack([identity, triplet]))


@pytest.mark.parametrize("profile", ["smoke", "quick", "full"])
def test_youreids_one_rate_is_the_other_rows_trunk_rate(profile):
    """Notebook 34 says so, and that the others' new layers learn four times as fast."""
    usual, one_rate = (PROFILES[profile].size_of(row).recipe for row in ("pyramid", "pyramid-youreid"))
    assert (one_rate.learning_rate, one_rate.trunk_rate) == (0.02, 1)
    assert usual.learning_rate * usual.trunk_rate == pytest.approx(0.02)
    assert usual.learning_rate == pytest.approx(4 * 0.02)


@pytest.mark.parametrize("model", ["jlml", "pyramid"])
def test_photographs_are_fine_tuned_by_the_recipe_that_was_chosen(model):
    """The trunk that has learnt changes later, JLML's less; the new classifiers keep their rate."""
    profile = PROFILES["photographs"]
    first, tuned = (profile.size_of(model, fine_tuned=fine).recipe for fine in (False, True))
    assert (first.frozen, tuned.frozen) == (0, 0.1)
    assert tuned.trunk_rate / first.trunk_rate == pytest.approx({"jlml": 0.3, "pyramid": 1}[model])
    assert (tuned.epochs, tuned.least_steps) == (12, 720)
    assert tuned.learning_rate == first.learning_rate
    assert profile.sizes[model].overrides.get("weights") is None
    assert profile.sizes[model].overrides == PROFILES["quick"].sizes[model].overrides  # what was measured
    assert profile.size_of(model, pretraining=True).recipe.epochs > 2  # than that of "quick"
