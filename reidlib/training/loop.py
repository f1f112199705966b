"""The one training loop: schedule, batch, forward, objective, backward, step, history, checkpoint."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reidlib import files
from reidlib.data.augmentation import augment
from reidlib.data.images import ImageStore, to_device
from reidlib.data.samplers import Epochs, Feeds, IdentityBatches, RandomBatches
from reidlib.errors import InputError
from reidlib.files import unwritable, write_filled, write_text
from reidlib.progress import progress_bar
from reidlib.training import distributed
from reidlib.training.checkpoint import TrainingState, restore_checkpoint, save_checkpoint, save_tensors
from reidlib.training.config import Recipe
from reidlib.training.device import Execution
from reidlib.training.dynamic import Balance
from reidlib.training.losses import Terms
from reidlib.training.runs import CHECKPOINT

Objective = Callable[[nn.Module, object, Tensor, Balance | None], tuple[Terms, Balance | None]]
# Steps between two looks at the device's losses: a look waits for the device, so not after every step (an
# objective that balances its losses has to wait in each).
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
) -> dict:
    """Train ``model`` in place and leave ``history.jsonl``, ``steps.npz`` and ``weights.pt`` in ``folder``.

    objective: (model, output of its forward, labels, balance) -> the terms to be minimised, and the
        balance that the next step gets.
    images, labels_n: N training images and their classes 0..K-1, int64.
    seed: of the order of images and of augmentation; the weights come with the model.
    balance: what the objective gets at the first step. It names the sampler of the next batch in every
        step; without one, all batches are random.

    A checkpoint is written after each epoch and on Ctrl-C, and a later call goes on from it: on a CPU
    the result is bit for bit that of an uninterrupted training. Where ``torchrun`` started several processes
    (``distributed.joined``), all of them call this with the same arguments and get the same model, and the
    first one writes. Returns device, precision, processes, steps and seconds spent. Raises InputError for
    a damaged checkpoint, FloatingPointError for a non-finite loss.
    """
    if len(images) != len(labels_n):
        raise InputError(
            "every training image has a label", f"{len(images)} images, {len(labels_n)} labels", "pair them"
        )
    device, world = execution.torch_device, distributed.world()
    if world.size > 1:
        distributed.synchronise_batch_norm(model, device)
    model.to(device, memory_format=torch.channels_last).train()
    samplers = _samplers(recipe, labels_n, seed)
    if balance is not None and balance.sampler not in samplers:
        raise InputError(
            "a triplet loss needs identity-balanced batches",
            f"images_per_identity={recipe.images_per_identity}",
            "set it to 2 or more in the recipe, or train with the identity loss alone",
        )
    feeds = Feeds(images, samplers, world)
    augmentation = asdict(recipe.augmentation)
    augmentation_generator = torch.Generator().manual_seed(seed + 1)
    # For dropout, which takes no generator; every process drops units of its own.
    torch.manual_seed(seed + 2 + 1_000_003 * world.rank)
    optimiser = torch.optim.SGD(
        _parameter_groups(model, recipe.trunk_rate),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        foreach=True,  # torch's default on a CPU loops in Python: 6 % of a small network's step
    )
    steps_per_epoch = len(samplers["random"])
    steps = recipe.length(steps_per_epoch)
    meter = Meter(recipe.batch_size)

    checkpoint, history = folder / CHECKPOINT, folder / "history.jsonl"
    parts = TrainingState(recipe, model, optimiser, feeds, meter, augmentation_generator)
    step, balance = restore_checkpoint(checkpoint, parts, balance)
    if world.rank == 0:
        # Rows after the checkpoint are dropped: a kill may have come between the two files.
        ended = math.ceil(step / steps_per_epoch) if step == steps else step // steps_per_epoch
        rows = history.read_text().splitlines()[:ended] if history.is_file() else []
        write_text(history, "".join(f"{row}\n" for row in rows))
    forward = distributed.parallel(model, device)
    if execution.compile:
        forward = torch.compile(forward)
    autocast = execution.autocast()

    bar = progress_bar(
        total=steps, initial=step, desc=title, unit="step",
        disable=not execution.progress or world.rank > 0, mininterval=0.5, dynamic_ncols=True,
    )  # fmt: skip
    with bar, feeds, _Interruption() as interruption:
        while step < steps:
            for group in optimiser.param_groups:
                group["lr"] = group["factor"] * recipe.rate(step, steps)
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
            known = _balancing(terms, balance)
            if "identity" in samplers:
                known["balanced_batches"] = float(sampler == "identity")
            meter.add(terms, output.logits, labels_b, known)
            bar.update()

            end_of_epoch = step == steps or step % steps_per_epoch == 0
            if step % _FETCH_EVERY == 0 or end_of_epoch:
                meter.fetch()
                rate = f"loss {meter.mean_loss:.2f}, {meter.images_per_second:.0f} images/s"
                bar.set_postfix_str(rate, refresh=False)
                if world.rank == 0:
                    left = (steps - step) * recipe.batch_size / max(meter.images_per_second, 1e-9)
                    _tell(f"step {step}/{steps}, {rate}, {left:.0f} s left")
            if end_of_epoch:
                row = {
                    "epoch": math.ceil(step / steps_per_epoch),
                    "step": step,
                    "learning_rate": optimiser.param_groups[0]["lr"],
                    **meter.end_epoch(),
                }
                if world.rank == 0:
                    _append(history, row)
            stopping = distributed.any_of(interruption.asked)  # all processes stop behind the same step
            if end_of_epoch or stopping:
                meter.fetch()
                save_checkpoint(checkpoint, parts, step, balance)
            if stopping and step < steps:
                raise KeyboardInterrupt(
                    f"stopped after step {step} of {steps}; the same command goes on from there"
                )

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
    }


class Meter:
    """What a training measures: a step's numbers wait on the device until ``fetch``, which waits for it."""

    def __init__(self, batch_size: int):
        self.seconds = 0.0  # of the whole training
        self._batch_size = batch_size
        # Of each step: what was measured.
        self._trace: list[dict[str, float]] = []
        # Of each quantity in this epoch, its sum and how many steps measured it.
        self._totals: dict[str, list[float]] = {}
        self._pending: list[tuple[Terms, Tensor, dict[str, float]]] = []
        self._since = time.perf_counter()
        self._epoch_seconds = 0.0

    def add(self, terms: Terms, logits_bpk: Tensor, labels_b: Tensor, known: dict[str, float]) -> None:
        """Keep a step's losses and accuracy on the device, and beside them numbers that are ``known``."""
        with torch.no_grad():
            right = (logits_bpk.argmax(2) == labels_b[:, None]).float().mean()
        detached = terms._replace(values=tuple(value.detach() for value in terms.values))
        self._pending.append((detached, right, known))

    def fetch(self) -> None:
        """Add up what was kept. Raises FloatingPointError for the first loss that is not finite."""
        if self._pending:
            values = [value for terms, right, _ in self._pending for value in (*terms.values, right)]
            fetched = iter(distributed.mean(torch.stack(values)).tolist())
            for terms, _, known in self._pending:
                row = {name: next(fetched) for name in (*terms.names, "accuracy")}
                for name, value in row.items():
                    if not math.isfinite(value):
                        raise FloatingPointError(
                            f"every loss term must be finite; got {name} = {value} at step "
                            f"{len(self._trace) + 1}; lower the learning rate or look at that batch"
                        )
                self._trace.append(row | known)
                for name, value in self._trace[-1].items():
                    entry = self._totals.setdefault(name, [0.0, 0])
                    entry[0] += value
                    entry[1] += 1
            self._pending = []
        now = time.perf_counter()
        self._epoch_seconds += now - self._since
        self.seconds += now - self._since
        self._since = now

    def _means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self._totals.items()}

    @property
    def mean_loss(self) -> float:
        """Of this epoch's steps."""
        kinds = ("identity", "triplet", "sparsity")
        return sum(mean for name, mean in self._means().items() if name.startswith(kinds))

    @property
    def images_per_second(self) -> float:
        """Of this epoch's steps, over all processes; every step measures its accuracy."""
        return self._totals["accuracy"][1] * self._batch_size / max(self._epoch_seconds, 1e-9)

    def end_epoch(self) -> dict[str, float]:
        """The epoch's means and speed; the next one starts."""
        row = {**self._means(), "images_per_second": round(self.images_per_second, 1)}
        self._totals, self._epoch_seconds = {}, 0.0
        return row

    def state_dict(self) -> dict:
        """What a checkpoint holds, behind ``fetch``."""
        return {"seconds": [self.seconds, self._epoch_seconds], "totals": self._totals, "trace": self._trace}

    def load_state_dict(self, state: dict) -> None:
        self.seconds, self._epoch_seconds = state["seconds"]
        self._totals, self._trace = state["totals"], state["trace"]

    def save_trace(self, path: Path) -> None:
        """One array a quantity over all steps; not a number where a step did not measure it."""
        names = dict.fromkeys(name for row in self._trace for name in row)
        columns = {
            name: np.array([row.get(name, math.nan) for row in self._trace], np.float32) for name in names
        }
        write_filled(path, lambda buffer: np.savez_compressed(buffer, **columns))


def _balancing(terms: Terms, balance: Balance | None) -> dict[str, float]:
    """What balancing did in a step: the losses' weights in it, their focal weights behind it."""
    if balance is None:
        return {}
    weights = terms.weights or (1.0,) * len(terms.names)
    known = {f"weight_{name}": weight for name, weight in zip(terms.names, weights, strict=True)}
    if balance.identity is not None:  # not in mode "off", which follows nothing
        known |= {"focal_identity": balance.focal_identity, "focal_triplet": balance.focal_triplet}
    return known


def _samplers(recipe: Recipe, labels_n: Tensor, seed: int) -> dict[str, Epochs]:
    """The samplers of a recipe, each with random numbers of its own."""
    count, size, each = len(labels_n), recipe.batch_size, recipe.images_per_identity
    samplers: dict[str, Epochs] = {"random": RandomBatches(count, size, torch.Generator().manual_seed(seed))}
    if each:
        generator = torch.Generator().manual_seed(seed + 3)
        samplers["identity"] = IdentityBatches(labels_n, size // each, each, generator)
    return samplers


def _parameter_groups(model: nn.Module, trunk_rate: float) -> list[dict]:
    """Parameters with the factor on their learning rate; one group where all rates are equal."""
    if trunk_rate == 1:
        return [{"params": list(model.parameters()), "factor": 1.0}]
    trunk = model.trunk_parameters()
    inside = set(map(id, trunk))
    new = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return [{"params": new, "factor": 1.0}, {"params": trunk, "factor": trunk_rate}]


def _append(history: Path, row: dict) -> None:
    try:
        with history.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise unwritable(history, error) from error


def _tell(progress: str) -> None:
    """Leave a line for whoever started this process. A full disk must not stop a training over it."""
    if (file := files.progress_file()) is not None:
        with contextlib.suppress(OSError):
            file.write_text(progress)


class _Interruption(contextlib.AbstractContextManager):
    """Ctrl-C asks the loop to stop between two steps, so that the checkpoint is whole.

    A second Ctrl-C stops at once. Outside the main thread signals stay as they are.
    """

    asked = False

    def __enter__(self) -> _Interruption:
        self._previous = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _ask(self, *_) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
