"""The training loop: schedule, batch, forward, objective, backward, step, history, checkpoint."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from reidlib import files
from reidlib.data.augmentation import augment
from reidlib.data.images import ImageStore, to_device
from reidlib.data.samplers import PKSampler, Prefetcher, RandomBatchSampler, ResumableSampler
from reidlib.errors import InputError
from reidlib.files import write_buffered, write_error, write_text
from reidlib.progress import progress_bar
from reidlib.training import distributed
from reidlib.training.checkpoint import TrainingState, restore_checkpoint, save_checkpoint, save_tensors
from reidlib.training.config import Recipe
from reidlib.training.device import Execution
from reidlib.training.dynamic import Balance
from reidlib.training.losses import Terms
from reidlib.training.runs import CHECKPOINT

Objective = Callable[[nn.Module, object, Tensor, Balance | None], tuple[Terms, Balance | None]]
Validate = Callable[[nn.Module, int], dict[str, float]]
# Steps between two copies of the losses from the device. A copy waits for the device, so it is not made after
# every step (an objective that balances its losses must wait in every step).
_FETCH_EVERY = 20


def train(
    model: nn.Module,
    objective: Objective,
    images: ImageStore,
    labels_n: Tensor,
    recipe: Recipe,
    *,
    folder: Path,
    seed: int,
    execution: Execution,
    title: str = "training",
    balance: Balance | None = None,
    validate: Validate | None = None,
) -> dict:
    """Train a model in place and write ``history.jsonl``, ``steps.npz`` and ``weights.pt`` to a folder.

    A checkpoint is written after each epoch and on Ctrl-C; a later call continues from it. On a CPU the
    result is bit for bit that of an uninterrupted training. In a ``distributed.process_group`` every process
    calls this with the same arguments and gets the same model; the first process writes.

    Args:
        model: The network with its initial weights.
        objective: Function of model, output of its forward, labels and balance; returns the terms to minimise
            and the balance for the next step.
        images, labels_n: N training images, and their classes, (N,), int64 from 0 to K - 1.
        recipe: Length, batches, optimiser and augmentation.
        folder: The run's folder.
        seed: Seed of the order of images, the augmentation and dropout.
        execution: Device, precision and progress.
        title: Text before the progress bar.
        balance: Balance for the first step. It names each step's sampler; with None all batches are random.
        validate: Function of the model and the epoch's number, called after each epoch in the first process.
            It returns further entries of the history's row and must change neither model nor random state.

    Returns:
        Device, precision, number of processes and steps, the duration in seconds, the largest memory in MiB.

    Raises:
        InputError: If the checkpoint is damaged or belongs to another training.
        FloatingPointError: If a loss is not finite.
    """
    if len(images) != len(labels_n):
        value = f"{len(images)} images, {len(labels_n)} labels"
        raise InputError("every training image has a label", value, "pass one label for each image")
    device, world = execution.torch_device, distributed.world()
    if world.size > 1:
        distributed.synchronise_batch_norm(model, device)
    model.to(device).to(memory_format=torch.channels_last).train()
    samplers = _samplers(recipe, labels_n, seed)
    if balance is not None and balance.sampler not in samplers:
        mend = "set images_per_identity to at least 2 in the recipe, or train without the triplet loss"
        raise InputError("a triplet loss needs identity-balanced batches", "images_per_identity=0", mend)
    feeds = Prefetcher(images, samplers, world)
    augmentation = asdict(recipe.augmentation)
    augmentation_generator = torch.Generator().manual_seed(seed + 1)
    # For dropout, which takes no generator; every process drops other units.
    torch.manual_seed(seed + 2 + 1_000_003 * world.rank)
    optimiser = torch.optim.SGD(
        _parameter_groups(model, recipe),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,  # torch's default on a CPU loops in Python: 6 % of a small network's step
    )
    steps_per_epoch = recipe.steps_per_epoch(len(labels_n), len(labels_n.unique()))
    steps = recipe.num_steps(steps_per_epoch)
    meter = Meter(recipe.batch_size)

    checkpoint, history = folder / CHECKPOINT, folder / "history.jsonl"
    state = TrainingState(recipe, model, optimiser, feeds, meter, augmentation_generator)
    step, balance = restore_checkpoint(checkpoint, state, balance)
    validation = ""  # in the progress
    if world.rank == 0:
        # Rows after the checkpoint are dropped: the process may have been killed between the two files.
        finished_epochs = math.ceil(step / steps_per_epoch) if step == steps else step // steps_per_epoch
        rows = history.read_text(encoding="utf-8").splitlines() if history.is_file() else []
        write_text(history, "".join(f"{row}\n" for row in rows[:finished_epochs]))
        for row in map(json.loads, rows[:finished_epochs]):
            validation = _describe_validation(row) or validation
    forward = distributed.parallel(model, device)
    if execution.compile:
        forward = torch.compile(forward)
    autocast = execution.autocast()

    bar = progress_bar(
        total=steps, initial=step, desc=title, unit="step",
        disable=not execution.progress or world.rank > 0, mininterval=0.5, dynamic_ncols=True,
    )  # fmt: skip
    with bar, feeds, _interruptions() as signals:
        while step < steps:
            for group in optimiser.param_groups:
                group["lr"] = group["factor"] * recipe.learning_rate_at(step, steps)
            if step < recipe.frozen * steps:
                optimiser.param_groups[-1]["lr"] = 0.0
            sampler = "random" if balance is None else balance.sampler
            indices_b, images_bchw = feeds.next(sampler)
            inputs_bchw = augment(images_bchw, augmentation_generator, share=world, **augmentation)
            labels_b = to_device(labels_n[indices_b], device)
            with autocast:
                output = forward(inputs_bchw)
            try:
                terms, balance = objective(model, output, labels_b, balance)
            except InputError as error:
                raise InputError(error.rule, f"{error.value} at step {step + 1}", error.mend) from error
            optimiser.zero_grad(set_to_none=True)
            terms.total.backward()
            optimiser.step()
            step += 1
            quantities = _balancing_quantities(terms, balance)
            if "identity" in samplers:
                quantities["balanced_batches"] = float(sampler == "identity")
            meter.add(terms, output.logits, labels_b, quantities)
            bar.update()

            end_of_epoch = step == steps or step % steps_per_epoch == 0
            if step % _FETCH_EVERY == 0 or end_of_epoch:
                meter.fetch()
                progress = f"loss {meter.mean_loss:.2f}, {meter.images_per_second:.0f} images/s"
                seconds_left = (steps - step) * recipe.batch_size / max(meter.images_per_second, 1e-9)
                if end_of_epoch:
                    rate = optimiser.param_groups[0]["lr"]
                    row = {"epoch": math.ceil(step / steps_per_epoch), "step": step, "learning_rate": rate}
                    row |= meter.end_epoch()
                    if world.rank == 0:
                        row |= validate(model, row["epoch"]) if validate else {}
                        _append(history, row)
                    meter.skip()  # an epoch's speed is that of its training alone
                    validation = _describe_validation(row) or validation
                bar.set_postfix_str(progress + validation, refresh=False)
                if world.rank == 0:
                    _write_progress(f"step {step}/{steps}, {progress}{validation}, {seconds_left:.0f} s left")
            stopping = distributed.any_process(bool(signals))  # all stop after the same step
            if end_of_epoch or stopping:
                meter.fetch()
                save_checkpoint(checkpoint, state, step, balance)
            if stopping:
                raise KeyboardInterrupt(f"stopped after step {step} of {steps}; the same command continues")

    if world.rank == 0:
        meter.save_trace(folder / "steps.npz")
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_tensors(folder / "weights.pt", weights)
    return {
        "device": execution.describe(),
        "precision": str(execution.dtype).removeprefix("torch."),
        "processes": world.size,
        "steps": steps,
        "seconds": round(meter.seconds, 1),
        **execution.peak_memory(),
    }


class Meter:
    """Losses, accuracy and speed of a training; values stay on the device until ``fetch`` copies them."""

    def __init__(self, batch_size: int):
        self.seconds = 0.0  # duration of the whole training up to the latest ``fetch``
        self._batch_size = batch_size
        self._trace: list[dict[str, float]] = []  # a step's quantities
        # Each quantity's sum in this epoch, and the number of steps that measured it.
        self._totals: dict[str, list[float]] = {}
        self._pending: list[tuple[Terms, Tensor, dict[str, float]]] = []
        self._fetch_time = time.perf_counter()
        self._epoch_seconds = 0.0

    def add(self, terms: Terms, logits_bpk: Tensor, labels_b: Tensor, quantities: dict[str, float]) -> None:
        """Store a step's losses and accuracy on the device, with further ``quantities`` of the step."""
        with torch.no_grad():
            accuracy = (logits_bpk.argmax(2) == labels_b[:, None]).float().mean()
        detached = terms._replace(values=tuple(value.detach() for value in terms.values))
        self._pending.append((detached, accuracy, quantities))

    def fetch(self) -> None:
        """Copy the stored values from the device; FloatingPointError if a loss is not finite."""
        if self._pending:
            values = [value for terms, accuracy, _ in self._pending for value in (*terms.values, accuracy)]
            fetched = iter(distributed.mean(torch.stack(values)).tolist())
            for terms, _, quantities in self._pending:
                row = {name: next(fetched) for name in (*terms.names, "accuracy")}
                for name, value in row.items():
                    if not math.isfinite(value):
                        raise FloatingPointError(
                            f"every loss term must be finite; got {name} = {value} at step "
                            f"{len(self._trace) + 1}; lower the learning rate or look at that batch"
                        )
                self._trace.append(row | quantities)
                for name, value in self._trace[-1].items():
                    total = self._totals.setdefault(name, [0.0, 0])
                    total[0] += value
                    total[1] += 1
            self._pending = []
        self._epoch_seconds += self.skip()

    def skip(self) -> float:
        """Count the time since the latest ``fetch`` in no epoch, but in the training; return the seconds."""
        now = time.perf_counter()
        seconds, self._fetch_time = now - self._fetch_time, now
        self.seconds += seconds
        return seconds

    def _means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self._totals.items()}

    @property
    def mean_loss(self) -> float:
        """Sum of the mean loss terms of this epoch's steps."""
        prefixes = ("identity", "triplet", "sparsity")
        return sum(mean for name, mean in self._means().items() if name.startswith(prefixes))

    @property
    def images_per_second(self) -> float:
        """Training speed in this epoch, of all processes together."""
        steps = self._totals["accuracy"][1]  # which every step measures
        return steps * self._batch_size / max(self._epoch_seconds, 1e-9)

    def end_epoch(self) -> dict[str, float]:
        """Return the epoch's means and speed, and start the next epoch."""
        row = {**self._means(), "images_per_second": round(self.images_per_second, 1)}
        self._totals, self._epoch_seconds = {}, 0.0
        return row

    def state_dict(self) -> dict:
        """Return the state for a checkpoint; call ``fetch`` first."""
        return {"seconds": [self.seconds, self._epoch_seconds], "totals": self._totals, "trace": self._trace}

    def load_state_dict(self, state: dict) -> None:
        """Restore what ``state_dict`` returned."""
        self.seconds, self._epoch_seconds = state["seconds"]
        self._totals, self._trace = state["totals"], state["trace"]

    def save_trace(self, path: Path) -> None:
        """Write one array over all steps for each quantity; NaN in steps that did not measure it."""
        names = dict.fromkeys(name for row in self._trace for name in row)
        columns: dict[str, Any] = {
            name: np.array([row.get(name, math.nan) for row in self._trace], np.float32) for name in names
        }
        write_buffered(path, lambda buffer: np.savez_compressed(buffer, **columns))


def _balancing_quantities(terms: Terms, balance: Balance | None) -> dict[str, float]:
    if balance is None:
        return {}
    weights = terms.weights or (1.0,) * len(terms.names)
    quantities = {f"weight_{name}": weight for name, weight in zip(terms.names, weights, strict=True)}
    if balance.identity is not None:  # mode "off" has no running averages
        quantities |= {"focal_identity": balance.focal_identity, "focal_triplet": balance.focal_triplet}
    return quantities


def _samplers(recipe: Recipe, labels_n: Tensor, seed: int) -> dict[str, ResumableSampler]:
    size, per_identity = recipe.batch_size, recipe.images_per_identity
    generator = torch.Generator().manual_seed(seed)
    samplers: dict[str, ResumableSampler] = {"random": RandomBatchSampler(len(labels_n), size, generator)}
    if per_identity:
        generator = torch.Generator().manual_seed(seed + 3)
        samplers["identity"] = PKSampler(labels_n, size // per_identity, per_identity, generator)
    return samplers


def _parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Return parameters with the factor on their rate, the trunk's last; one group if all rates are equal."""
    if recipe.trunk_rate == 1 and not recipe.frozen:
        return [{"params": list(model.parameters()), "factor": 1.0}]
    trunk = model.trunk_parameters()  # pyright: ignore[reportCallIssue]
    trunk_ids = set(map(id, trunk))
    new = [parameter for parameter in model.parameters() if id(parameter) not in trunk_ids]
    return [{"params": new, "factor": 1.0}, {"params": trunk, "factor": recipe.trunk_rate}]


def _describe_validation(row: dict) -> str:
    return f", validation mAP {100 * row['validation_map']:.1f}" if "validation_map" in row else ""


def _append(history: Path, row: dict) -> None:
    try:
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise write_error(history, error) from error


def _write_progress(progress: str) -> None:
    if (file := files.progress_file()) is not None:
        with contextlib.suppress(OSError):  # a full disk must not stop a training because of it
            file.write_text(progress, encoding="utf-8")


@contextlib.contextmanager
def _interruptions() -> Iterator[list[int]]:
    """Collect signals of Ctrl-C, so that the loop stops between two steps; the second one stops at once."""
    signals: list[int] = []

    def handle(number: int, _) -> None:
        if signals:
            raise KeyboardInterrupt
        signals.append(number)

    if threading.current_thread() is not threading.main_thread():  # only there can signals be handled
        yield signals
        return
    previous = signal.signal(signal.SIGINT, handle)
    try:
        yield signals
    finally:
        signal.signal(signal.SIGINT, previous)
