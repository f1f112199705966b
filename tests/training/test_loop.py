"""The loop learns, resumes bit for bit, stops in a state that can be resumed, and refuses bad input."""

import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import textwrap
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reidlib.data.images import ImageStore
from reidlib.errors import InputError
from reidlib.training.config import Augmentation, JLMLConfiguration, PyramidConfiguration, Recipe
from reidlib.training.device import Execution
from reidlib.training.dynamic import Balancing
from reidlib.training.loop import train
from reidlib.training.losses import Terms

QUIET = Execution(device="cpu", precision="float32", progress=False)
SMALL = JLMLConfiguration(width=0.125, feature_size=32, parts=2)
RECIPE = Recipe(epochs=3, batch_size=6)
# With everything that a checkpoint must hold: two samplers, a balance, dropout, two learning rates, erasing.
PYRAMID = PyramidConfiguration(trunk="resnet39", width=0.125, stripes=2, embedding_size=8)
PYRAMID_RECIPE = Recipe(
    epochs=3,
    batch_size=6,
    images_per_identity=2,
    learning_rate=0.01,
    trunk_rate=0.5,
    augmentation=Augmentation(pad=2, erase=0.5),
)
BOTH = pytest.mark.parametrize("settings, recipe", [(SMALL, RECIPE), (PYRAMID, PYRAMID_RECIPE)])


def images(count=20, size=(32, 16)) -> ImageStore:
    generator = np.random.default_rng(0)
    return ImageStore(generator.integers(0, 255, (count, *size, 3), dtype=np.uint8), torch.device("cpu"))


LABELS = torch.arange(20) % 4


def run(folder, *, settings=SMALL, recipe=RECIPE, objective=None, execution=QUIET, seed=0, store=None):
    folder.mkdir(exist_ok=True)
    model = settings.build(4, seed)
    information = train(
        model,
        objective or settings.objective,
        store or images(),
        LABELS,
        recipe,
        folder=folder,
        seed=seed,
        execution=execution,
        balance=settings.balance,
    )
    return model, information


def history(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def same_weights(first, second) -> bool:
    state = second.state_dict()
    return all(torch.equal(tensor, state[name]) for name, tensor in first.state_dict().items())


@pytest.mark.parametrize("trunk_rate", [1.0, 0.5])
def test_a_frozen_trunk_stays_and_the_rest_learns(trunk_rate, tmp_path):
    recipe = replace(PYRAMID_RECIPE, frozen=1.0, trunk_rate=trunk_rate)
    model, _ = run(tmp_path / "frozen", settings=PYRAMID, recipe=recipe)
    start = dict(PYRAMID.build(4, 0).named_parameters())
    trunk = {id(parameter) for parameter in model.trunk_parameters()}
    stayed = [id(value) in trunk for name, value in model.named_parameters() if value.equal(start[name])]
    assert all(stayed) and len(stayed) == len(trunk)
    half, _ = run(tmp_path / "half", settings=PYRAMID, recipe=replace(recipe, frozen=0.5))
    assert not any(value.equal(start[name]) for name, value in half.named_parameters() if value.ndim > 1)


def test_one_batch_can_be_overfitted(tmp_path):
    recipe = Recipe(epochs=60, batch_size=20, learning_rate=0.1, augmentation=Augmentation(flip=0, pad=0))
    run(tmp_path, recipe=recipe)
    rows = history(tmp_path)
    assert rows[0]["accuracy"] < 0.7
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["identity_global"] < 0.2 * rows[0]["identity_global"]
    assert rows[-1]["identity_local"] < 0.2 * rows[0]["identity_local"]


class StopAt:
    """An objective that raises in a step, like a kill."""

    def __init__(self, step: int, settings=SMALL):
        self.step, self.count, self.settings = step, 0, settings

    def __call__(self, *arguments):
        self.count += 1
        if self.count == self.step:
            raise SystemError("killed")
        return self.settings.objective(*arguments)


def same_steps(folder: Path, other_folder: Path) -> bool:
    with np.load(folder / "steps.npz") as first, np.load(other_folder / "steps.npz") as second:
        return all(np.array_equal(first[name], second[name], equal_nan=True) for name in first.files)


@BOTH
@pytest.mark.parametrize("killed_at", [1, 4, 8])
def test_resume_equals_an_uninterrupted_training_bit_for_bit(tmp_path, killed_at, settings, recipe):
    whole, _ = run(tmp_path / "whole", settings=settings, recipe=recipe)
    halves = tmp_path / "halves"
    with pytest.raises(SystemError):
        run(halves, settings=settings, recipe=recipe, objective=StopAt(killed_at, settings))
    assert (halves / "checkpoint.pt").exists() == (killed_at > 3)
    resumed, information = run(halves, settings=settings, recipe=recipe)
    assert same_weights(whole, resumed)
    assert history(tmp_path / "whole") == history(halves)
    assert same_steps(tmp_path / "whole", halves)
    assert information["steps"] == 9


def test_a_checkpoint_outlives_fields_that_come_later(tmp_path):
    """It holds no later field at its default, so that one written before the field resumes; others do not."""
    with pytest.raises(SystemError):
        run(tmp_path, objective=StopAt(4))
    kept = torch.load(tmp_path / "checkpoint.pt")["recipe"]
    later = {each.name for each in fields(Recipe) if each.metadata.get("later")}
    assert later and not later & kept.keys()
    with pytest.raises(InputError, match="written with another recipe"):
        run(tmp_path, recipe=replace(RECIPE, frozen=0.5))
    run(tmp_path)


class InterruptAt(StopAt):
    """An objective that sends the signal of Ctrl-C in a step."""

    def __call__(self, *arguments):
        self.count += 1
        if self.count == self.step:
            signal.raise_signal(signal.SIGINT)
        return self.settings.objective(*arguments)


@BOTH
@pytest.mark.parametrize("interrupted_at", [2, 3, 5, 9])  # the last one, too: what follows is not begun
def test_ctrl_c_leaves_a_checkpoint_in_the_middle_of_an_epoch(tmp_path, interrupted_at, settings, recipe):
    whole, _ = run(tmp_path / "whole", settings=settings, recipe=recipe)
    halves = tmp_path / "halves"
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {interrupted_at} of 9.*continues"):
        run(halves, settings=settings, recipe=recipe, objective=InterruptAt(interrupted_at, settings))
    counting = StopAt(0, settings)
    resumed, _ = run(halves, settings=settings, recipe=recipe, objective=counting)
    assert counting.count == 9 - interrupted_at
    assert same_weights(whole, resumed)
    assert history(tmp_path / "whole") == history(halves)
    assert same_steps(tmp_path / "whole", halves)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_balance_chooses_losses_and_sampler_step_by_step(tmp_path):
    """Every step's batch is of the kind that the balance before it names, and the trace records it."""
    batches = []

    def watching(model, output, labels_b, balance):
        batches.append((balance.balanced, sorted(labels_b.unique(return_counts=True)[1].tolist())))
        return PYRAMID.objective(model, output, labels_b, balance)

    recipe = replace(PYRAMID_RECIPE, epochs=8)
    run(tmp_path, settings=PYRAMID, recipe=recipe, objective=watching)
    assert {balanced for balanced, _ in batches} == {True, False}
    assert all(counts == [2, 2, 2] for balanced, counts in batches if balanced)
    assert any(counts != [2, 2, 2] for balanced, counts in batches if not balanced)
    with np.load(tmp_path / "steps.npz") as steps:
        assert steps["balanced_batches"].tolist() == [float(balanced) for balanced, _ in batches]
        assert np.array_equal(np.isnan(steps["triplet"]), steps["balanced_batches"] == 0)
        assert np.isfinite([steps["identity"], steps["focal_identity"], steps["focal_triplet"]]).all()
        # A step's batch is balanced unless the ratio after the step before lay below the threshold.
        closed = steps["focal_triplet"] < 0.16 * steps["focal_identity"]
        assert steps["balanced_batches"][1:].tolist() == (~closed[:-1]).astype(float).tolist()
        balanced = steps["balanced_batches"][-3:]
        triplets = steps["triplet"][-3:][balanced == 1]
    last = history(tmp_path)[-1]
    assert last["balanced_batches"] == pytest.approx(balanced.mean())
    if len(triplets):
        assert last["triplet"] == pytest.approx(triplets.mean(), rel=1e-6)


def test_identity_alone_trains_on_random_batches(tmp_path):
    settings = replace(PYRAMID, triplet=False)
    run(tmp_path, settings=settings, recipe=PYRAMID_RECIPE)
    with np.load(tmp_path / "steps.npz") as steps:
        assert set(steps.files) == {"identity", "accuracy", "balanced_batches"}
        assert not steps["balanced_batches"].any()
    assert {"identity", "accuracy"} <= history(tmp_path)[0].keys()
    assert "triplet" not in history(tmp_path)[0]


def test_a_pyramid_overfits_one_batch(tmp_path):
    settings = replace(PYRAMID, balancing=Balancing("off"), dropout=0.0)
    recipe = Recipe(
        epochs=80,
        batch_size=20,
        images_per_identity=5,
        learning_rate=0.02,
        augmentation=Augmentation(flip=0, pad=0),
    )
    run(tmp_path, settings=settings, recipe=recipe)
    rows = history(tmp_path)
    assert rows[0]["accuracy"] < 0.7
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["identity"] < 0.2 * rows[0]["identity"]
    assert rows[-1]["triplet"] < 0.2 * rows[0]["triplet"]


def test_the_trunk_has_its_own_learning_rate(tmp_path):
    """With a very small trunk rate only the new layers change."""
    model, _ = run(tmp_path, settings=PYRAMID, recipe=replace(PYRAMID_RECIPE, trunk_rate=1e-12))
    trunk = {id(parameter) for parameter in model.trunk_parameters()}
    for (name, now), before in zip(model.named_parameters(), PYRAMID.build(4, 0).parameters(), strict=True):
        assert torch.allclose(now, before, atol=1e-7) == (id(now) in trunk), name


def test_triplets_without_balanced_batches_are_refused(tmp_path):
    with pytest.raises(InputError, match="identity-balanced batches; got images_per_identity=0"):
        run(tmp_path, settings=PYRAMID, recipe=RECIPE)


def test_a_loss_that_cannot_be_balanced_names_the_step(tmp_path):
    class Poisoned(StopAt):
        def __call__(self, model, output, labels_b, balance):
            self.count += 1
            if self.count == self.step:
                output = output._replace(embeddings=output.embeddings * float("nan"))
            return PYRAMID.objective(model, output, labels_b, balance)

    with pytest.raises(InputError, match="finite and not negative; got triplet = nan at step 2;"):
        run(tmp_path, settings=PYRAMID, recipe=PYRAMID_RECIPE, objective=Poisoned(2))
    assert not (tmp_path / "weights.pt").exists()


def test_a_killed_process_resumes(tmp_path):
    """A real kill -9 of a real process, after its first checkpoint."""
    script = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from tests.training.test_loop import SMALL, run
        folder = Path(sys.argv[1])
        def slow(*arguments):
            if (folder / "checkpoint.pt").exists():
                time.sleep(60)  # the kill comes here
            return SMALL.objective(*arguments)
        run(folder, objective=slow)
    """)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "halves"],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # its bits are those of below
    )
    while not (tmp_path / "halves" / "checkpoint.pt").exists():
        assert process.poll() is None
    process.kill()
    process.wait()
    whole, _ = run(tmp_path / "whole")
    resumed, _ = run(tmp_path / "halves")
    assert same_weights(whole, resumed)


def test_progress_reaches_the_parent_process(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_PROGRESS", str(tmp_path / "progress.txt"))
    run(tmp_path / "run")
    text = (tmp_path / "progress.txt").read_text()
    assert re.fullmatch(r"step 9/9, loss [\d.]+, \d+ images/s, 0 s left", text)


def test_seeds_differ_and_repeat(tmp_path):
    first, _ = run(tmp_path / "a")
    second, _ = run(tmp_path / "b")
    other, _ = run(tmp_path / "c", seed=1)
    assert same_weights(first, second)
    assert not same_weights(first, other)


@pytest.mark.parametrize("bad_step", [1, 5])
def test_a_non_finite_loss_names_term_and_step(tmp_path, bad_step):
    class Poisoned(StopAt):
        def __call__(self, *arguments):
            self.count += 1
            terms, balance = SMALL.objective(*arguments)
            if self.count < self.step:
                return terms, balance
            bad = terms.values[1] * float("nan")
            return Terms(terms.names, (terms.values[0], bad, *terms.values[2:])), balance

    with pytest.raises(FloatingPointError, match=f"identity_local = nan at step {bad_step};"):
        run(tmp_path, objective=Poisoned(bad_step))
    assert not (tmp_path / "weights.pt").exists()


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    with pytest.raises(SystemError):
        run(tmp_path, objective=StopAt(5))
    checkpoint = tmp_path / "checkpoint.pt"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2] if damage is None else damage)
    with pytest.raises(InputError, match=r"checkpoint\.pt.*remove this file"):
        run(tmp_path)


@pytest.mark.parametrize("content", [torch.zeros(3), [1], {3: 4}, {}, {"recipe": torch.zeros(3)}])
def test_tensors_of_another_form_are_refused(tmp_path, content, recwarn):
    with pytest.raises(SystemError):
        run(tmp_path, objective=StopAt(5))
    for save in (torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 4))):
        save(content, tmp_path / "checkpoint.pt")
        with pytest.raises(InputError, match=r"checkpoint\.pt.*remove this file"):
            run(tmp_path)
    # Garbage of other tests may warn, too.
    assert not [each for each in recwarn.list if not issubclass(each.category, ResourceWarning)]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    with pytest.raises(SystemError):
        run(tmp_path, objective=StopAt(5))
    with pytest.raises(InputError, match="remove this file"):
        run(tmp_path, recipe=Recipe(epochs=3, batch_size=10))


def test_checkpoints_hold_no_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "attacked",))

    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(InputError):
        run(tmp_path)
    assert not (tmp_path / "attacked").exists()


def test_a_full_disk_is_reported_with_the_mend(tmp_path):
    """A real write fails in the middle: no file of this process may exceed 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"checkpoint\.pt must be written.*free some disk space"):
            run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob(".*.partial"))
    whole, _ = run(tmp_path / "whole")
    resumed, _ = run(tmp_path)
    assert same_weights(whole, resumed)


def test_a_compiled_network_gives_the_same():
    model = SMALL.build(4, 0).eval()
    inputs = torch.randn(3, 3, 32, 16)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(inputs).logits, model(inputs).logits)


def test_bfloat16_trains_too(tmp_path):
    _, information = run(tmp_path, execution=Execution(device="cpu", precision="bfloat16", progress=False))
    assert information["precision"] == "bfloat16"
    assert all(np.isfinite(row["identity_global"]) for row in history(tmp_path))


def test_schedules():
    one_cycle = Recipe(epochs=10, learning_rate=1.0)
    rates = [one_cycle.learning_rate_at(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[20] == 1.0
    assert rates[-1] < 0.001
    assert rates[20:] == sorted(rates[20:], reverse=True)
    linear = replace(one_cycle, schedule="linear")
    rates = [linear.learning_rate_at(step, 100) for step in range(100)]
    assert rates[:21] == [one_cycle.learning_rate_at(step, 100) for step in range(21)]
    assert np.diff(rates[20:]) == pytest.approx(-1 / 80)  # to zero after the last step
    steps = Recipe(steps=50, learning_rate=1.0, schedule="steps", milestones=(0.4, 0.8))
    rates = [steps.learning_rate_at(step, 50) for step in range(50)]
    assert [rates[0], rates[19], rates[20], rates[39], rates[40]] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_an_epoch_of_identities_has_its_own_number_of_steps(tmp_path):
    recipe = Recipe(epochs=3, batch_size=4, images_per_identity=2, epoch_of="identities")
    _, information = run(tmp_path, recipe=recipe)
    identities = len(LABELS.unique())
    assert information["steps"] == 3 * -(-identities * 2 // 4) != 3 * (len(LABELS) // 4)
    assert [row["epoch"] for row in history(tmp_path)] == [1, 2, 3]


def test_a_length_in_steps_may_end_within_an_epoch(tmp_path):
    _, information = run(tmp_path, recipe=Recipe(steps=4, batch_size=6))
    assert information["steps"] == 4
    assert [row["step"] for row in history(tmp_path)] == [3, 4]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"epochs": 1, "steps": 1},
        {"epochs": 0},
        {"epochs": 1, "batch_size": 1},
        {"epochs": 1, "learning_rate": 0},
        {"epochs": 1, "schedule": "cosine"},
        {"epochs": 1, "schedule": "steps"},
        {"epochs": 1, "milestones": (0.5,)},
        {"epochs": 1, "batch_size": 16, "images_per_identity": 1},  # no positives
        {"epochs": 1, "batch_size": 16, "images_per_identity": 16},  # one identity
        {"epochs": 1, "batch_size": 16, "images_per_identity": 5},
        {"epochs": 1, "trunk_rate": 0},
    ],
)
def test_contradictory_recipes_are_refused(arguments):
    with pytest.raises(InputError):
        Recipe(**arguments)


def test_an_unavailable_device_is_refused():
    absent = next(name for name in ("mps", "cuda") if name != Execution().torch_device.type)
    with pytest.raises(InputError, match=f"device is one of this machine's.*{absent}"):
        _ = Execution(device=absent).torch_device
    with pytest.raises(InputError, match="precision is"):
        Execution(precision="float8")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_overfits_one_batch(tmp_path):
    recipe = Recipe(epochs=60, batch_size=20, learning_rate=0.1, augmentation=Augmentation(flip=0, pad=0))
    store = ImageStore(images().array_nhwc, torch.device("cuda"))
    _, information = run(tmp_path, recipe=recipe, store=store, execution=Execution("cuda", progress=False))
    assert information["precision"] == "bfloat16"
    assert history(tmp_path)[-1]["accuracy"] == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["paper", "official", "off"])
def test_cuda_trains_a_pyramid_and_resumes(tmp_path, mode):
    """Both samplers, each prefetched on its own stream, and a stop between two steps."""
    settings = replace(PYRAMID, balancing=Balancing(mode))
    recipe = replace(PYRAMID_RECIPE, epochs=10)
    store = ImageStore(images().array_nhwc, torch.device("cuda"))  # streamed, not resident
    arguments = {
        "settings": settings,
        "recipe": recipe,
        "store": store,
        "execution": Execution("cuda", progress=False),
    }
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, objective=InterruptAt(13, settings), **arguments)
    _, information = run(tmp_path, **arguments)
    assert information["steps"] == len(np.load(tmp_path / "steps.npz")["identity"]) == 30
    assert all(np.isfinite(row["identity"]) for row in history(tmp_path))
