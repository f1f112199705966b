"""Two processes train like one: same losses and weights, also after Ctrl-C and a kill.

The tests start this file with ``torchrun``; it then runs a training.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reidlib.data.images import ImageStore
from reidlib.errors import InputError
from reidlib.training import distributed
from reidlib.training.config import Augmentation, JLMLConfiguration, PyramidConfiguration, Recipe
from reidlib.training.device import Execution
from reidlib.training.dynamic import Balancing
from reidlib.training.loop import train

ROOT = Path(__file__).parents[2]
EPOCHS, STEPS = 4, 12
# Without dropout: every process drops units of its own, so that only networks without it can be compared.
PYRAMID = PyramidConfiguration(trunk="resnet39", width=0.125, stripes=2, embedding_size=8, dropout=0.0)
MODELS = {
    "jlml": JLMLConfiguration(width=0.125, feature_size=32, parts=2),
    "pyramid": PYRAMID,
    "official": replace(PYRAMID, balancing=Balancing("official")),
    "dropout": replace(PYRAMID, dropout=0.2),
}
LABELS = torch.arange(24) % 6


def recipe(name: str) -> Recipe:
    return Recipe(
        epochs=EPOCHS,
        batch_size=8,
        learning_rate=0.001,  # slow: fast training blows roundings up to whole other choices of triplets
        trunk_rate=0.5,
        images_per_identity=0 if name == "jlml" else 2,
        augmentation=Augmentation(pad=2, erase=0.3, colour_jitter=0.1),
    )


def run(name: str, folder: Path, objective=None) -> torch.nn.Module:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (len(LABELS), 64, 16, 3), dtype=np.uint8)
    settings = MODELS[name]
    model = settings.build(6, seed=0)
    with distributed.process_group(Execution(device="cpu", precision="float32", progress=False)) as execution:
        folder.mkdir(exist_ok=True, parents=True)
        train(
            model,
            objective or settings.objective,
            ImageStore(images, torch.device("cpu")),
            LABELS,
            recipe(name),
            folder=folder,
            seed=0,
            execution=execution,
            balance=settings.balance,
        )
    return model


def slowly(name: str, folder: Path):
    """The model's objective, with slow steps after the first checkpoint, in which a test interrupts it."""

    def objective(*arguments):
        if (folder / "checkpoint.pt").exists():
            time.sleep(5)
        return MODELS[name].objective(*arguments)

    return objective


def start(name: str, folder: Path, *how: str, processes: int = 2) -> subprocess.Popen:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes))
    command = (sys.executable, *(torchrun if processes > 1 else ()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*command, __file__, name, folder, *how],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, output
    return output


def history(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "images_per_second"} for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "weights.pt", weights_only=True)


@pytest.mark.parametrize("name", ["jlml", "pyramid", "official"])
def test_two_processes_train_as_one(name, tmp_path):
    """Equal up to rounding: the sums of two halves differ from the whole sum in the last digits."""
    one, two = tmp_path / "one", tmp_path / "two"
    processes = start(name, one, processes=1), start(name, two)
    for process in processes:
        finished(process)

    assert len(history(two)) == EPOCHS  # one history, not one of each process
    for row, expected in zip(history(two), history(one), strict=True):
        # Focal weights are cubes of small differences: they show a rounding much enlarged.
        names = [name for name in row if not name.startswith("weight_")]
        assert [row[name] for name in names] == pytest.approx([expected[name] for name in names], rel=2e-4)
    start_weights = MODELS[name].build(6, seed=0).state_dict()
    actual, expected = weights(two), weights(one)
    assert actual.keys() == expected.keys() == start_weights.keys()
    for key, tensor in actual.items():
        moved = (expected[key] - start_weights[key]).abs().max()
        assert moved > 0, key
        assert (tensor - expected[key]).abs().max() <= 0.015 * moved + 1e-8, key
    if name == "jlml":
        return
    with np.load(one / "steps.npz") as expected, np.load(two / "steps.npz") as steps:
        assert steps.files == expected.files
        assert np.array_equal(steps["balanced_batches"], expected["balanced_batches"])
        assert len(steps["identity"]) == STEPS
        for key in ("identity", "triplet"):
            np.testing.assert_allclose(steps[key][:4], expected[key][:4], rtol=2e-6)
            np.testing.assert_allclose(steps[key], expected[key], rtol=2e-4)
        assert len(set(expected["weight_triplet"].tolist())) > 1  # the balance was at work


@pytest.mark.parametrize("how", ["kill", "interrupt"])
def test_two_processes_resume_as_if_never_stopped(how, tmp_path):
    whole = start("dropout", tmp_path / "whole")
    halves = tmp_path / "halves"
    process = start("dropout", halves, "slowly")
    while not (halves / "checkpoint.pt").exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    if how == "kill":  # a worker; torchrun then ends the others
        children = (
            Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        )
        os.kill(int(children[0]), signal.SIGKILL)
    else:  # torchrun passes it on
        process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=1200)
    assert process.returncode != 0
    stopped = re.search(r"stopped after step (\d+) of 12; the same command continues", output)
    if how == "kill":
        assert not stopped
    else:  # in the middle of an epoch of three steps, not at its end
        assert int(stopped[1]) % 3, output
    assert not (halves / "weights.pt").exists(), output
    finished(whole)
    finished(start("dropout", halves))
    assert history(halves) == history(tmp_path / "whole")
    actual, expected = weights(halves), weights(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[key]) for key, tensor in actual.items())


def test_processes_that_do_not_divide_the_batch_are_told_which_do(monkeypatch):
    monkeypatch.setattr(distributed, "world", lambda: distributed.World(0, 3))
    distributed.check_batch_size(12)
    with pytest.raises(InputError, match="a batch of 8 images for 3 processes; start 1 or 2 or 4 or 8 proc"):
        distributed.check_batch_size(8)


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    run(name, folder, slowly(name, folder) if "slowly" in sys.argv else None)
