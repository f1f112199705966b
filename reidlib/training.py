"""The one training loop: schedule, precision, checkpoint, resume, history."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from reidlib import locations
from reidlib.data.augmentation import Augmentation, augment
from reidlib.data.images import ImageStore, to_device
from reidlib.data.sampling import RandomBatches
from reidlib.errors import InputError
from reidlib.execution import Execution
from reidlib.files import unwritable, write_whole
from reidlib.losses import Terms
from reidlib.runs import CHECKPOINT, load_tensors, save_tensors

# Steps between two looks at the device's losses: a look waits for the device, so not after every step.
_LOOK_EVERY = 20


@dataclass(frozen=True)
class Recipe:
    """How long, how fast and on what a model is trained. Contradictory values are refused."""

    epochs: int | None = None  # passes over the training images; or
    steps: int | None = None  # mini-batches, where a paper states iterations
    batch_size: int = 32  # JLML's; the one-cycle peak below belongs to it
    learning_rate: float = 0.1  # the highest value of the schedule
    schedule: Literal["one-cycle", "steps"] = "one-cycle"  # the latter: the papers' drops at milestones
    warm_up: float = 0.2  # share of a one-cycle training in which the rate rises; networks start untrained
    milestones: tuple[float, ...] = ()  # shares of the training after which the rate is multiplied by decay
    decay: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self):
        if (self.epochs is None) == (self.steps is None):
            raise InputError(
                "a recipe states its length once, in epochs or in steps",
                f"epochs={self.epochs}, steps={self.steps}",
                "give one of them",
            )
        length = self.steps if self.epochs is None else self.epochs
        if length < 1 or self.batch_size < 2 or self.learning_rate <= 0:
            raise InputError(
                "a training has a positive length and learning rate and at least two images a batch",
                f"epochs={self.epochs}, steps={self.steps}, learning_rate={self.learning_rate}, "
                f"batch_size={self.batch_size}",
                "raise the value that is too small",
            )
        if self.schedule not in ("one-cycle", "steps"):
            raise InputError("a schedule is one-cycle or steps", repr(self.schedule), "name one of them")
        if (self.schedule == "steps") != bool(self.milestones):
            raise InputError(
                "milestones belong to the schedule 'steps', and it needs them",
                f"schedule={self.schedule!r}, milestones={self.milestones}",
                "change one of the two",
            )

    def length(self, batches_per_epoch: int) -> int:
        """Steps of the whole training."""
        return self.steps or self.epochs * batches_per_epoch

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, as a function of its place in the training alone."""
        share = step / steps
        if self.schedule == "steps":
            return self.learning_rate * self.decay ** sum(share >= mark for mark in self.milestones)
        if share < self.warm_up:
            return self.learning_rate * (0.05 + 0.95 * share / self.warm_up)
        rest = (share - self.warm_up) / (1 - self.warm_up)
        return self.learning_rate * (0.5 + 0.5 * math.cos(math.pi * rest))


Objective = Callable[[nn.Module, object, Tensor], Terms]


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
) -> dict:
    """Train ``model`` in place and leave ``history.jsonl`` and ``weights.pt`` in ``folder``.

    objective: (model, output of its forward, labels) -> the terms to be minimised.
    images, labels_n: N training images and their classes 0..K-1, int64.
    seed: of the order of images and of augmentation; the weights come with the model.

    A checkpoint is written after each epoch and on Ctrl-C, and a later call goes on from it: on a CPU
    the result is bit for bit that of an uninterrupted training. Returns device, precision, steps and
    seconds spent. Raises InputError for a damaged checkpoint, FloatingPointError for a non-finite loss.
    """
    device = execution.torch_device
    model.to(device, memory_format=torch.channels_last).train()
    state = _State(model, images, labels_n, recipe, seed)
    checkpoint, history = folder / CHECKPOINT, folder / "history.jsonl"
    state.restore(checkpoint)
    state.keep_history(history)
    forward = torch.compile(model) if execution.compile else model
    autocast = execution.autocast()
    augmentation = recipe.augmentation

    bar = tqdm(
        total=state.steps, initial=state.step, desc=title, unit="step", disable=not execution.progress,
        mininterval=0.5, dynamic_ncols=True,
    )  # fmt: skip
    with bar, _Interruption() as interruption:
        while state.step < state.steps:
            batches = list(state.sampler)
            for indices_b, images_bchw in zip(batches, images.batches(batches), strict=True):
                for group in state.optimiser.param_groups:
                    group["lr"] = recipe.rate(state.step, state.steps)
                inputs_bchw = augment(images_bchw, augmentation, state.augmentation_generator)
                labels_b = to_device(labels_n[indices_b], device)
                with autocast:
                    output = forward(inputs_bchw)
                terms = objective(model, output, labels_b)
                state.optimiser.zero_grad(set_to_none=True)
                terms.total.backward()
                state.optimiser.step()
                state.note(terms, output.logits, labels_b)
                bar.update()
                if state.step % _LOOK_EVERY == 0 or state.step_of_epoch == len(state.sampler):
                    state.look()
                    rate = f"loss {state.mean_loss:.2f}, {state.images_per_second:.0f} images/s"
                    bar.set_postfix_str(rate)
                    _tell(f"step {state.step}/{state.steps}, {rate}, {state.seconds_left:.0f} s left")
                if interruption.asked or state.step == state.steps:
                    break
            if state.step == state.steps or state.step_of_epoch == len(state.sampler):
                state.end_epoch(history)
            state.look()
            state.save(checkpoint)
            if interruption.asked and state.step < state.steps:
                raise KeyboardInterrupt(
                    f"stopped after step {state.step} of {state.steps}; the same command goes on from there"
                )

    save_tensors(folder / "weights.pt", _on_cpu(model.state_dict()))
    return {
        "device": execution.describe(),
        "precision": str(execution.dtype).removeprefix("torch."),
        "steps": state.steps,
        "seconds": round(state.seconds, 1),
    }


def _tell(progress: str) -> None:
    """Leave a line for whoever started this process. A full disk must not stop a training over it."""
    if (file := locations.progress_file()) is not None:
        with contextlib.suppress(OSError):
            file.write_text(progress)


class _State:
    """All that a training is between two steps: what a checkpoint holds."""

    def __init__(self, model: nn.Module, images: ImageStore, labels_n: Tensor, recipe: Recipe, seed: int):
        if len(images) != len(labels_n):
            raise InputError(
                "every training image has a label",
                f"{len(images)} images, {len(labels_n)} labels",
                "pair them",
            )
        self.model = model
        self.device = next(model.parameters()).device
        self.sampler = RandomBatches(len(images), recipe.batch_size, torch.Generator().manual_seed(seed))
        self.augmentation_generator = torch.Generator().manual_seed(seed + 1)
        torch.manual_seed(seed + 2)  # for dropout, which takes no generator
        self.optimiser = torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            foreach=True,  # torch's default on a CPU loops in Python: 6 % of a small network's step
        )
        self.steps = recipe.length(len(self.sampler))
        self.batch_size = recipe.batch_size
        self.step = self.epoch = self.step_of_epoch = 0
        self.seconds = 0.0
        self.totals: dict[str, float] = {}
        self._pending: list[tuple[Terms, Tensor]] = []
        self._since = time.perf_counter()
        self._epoch_seconds = 0.0

    def note(self, terms: Terms, logits: tuple[Tensor, ...], labels_b: Tensor) -> None:
        """Keep a step's losses on the device, and count it."""
        with torch.no_grad():
            right = torch.stack([(x.argmax(1) == labels_b).float().mean() for x in logits]).mean()
        detached = Terms(terms.names, tuple(value.detach() for value in terms.values))
        self._pending.append((detached, right))
        self.step += 1
        self.step_of_epoch += 1

    def look(self) -> None:
        """Fetch the noted losses from the device and add them up; stop at the first that is not finite."""
        if self._pending:
            rows = torch.stack([torch.stack((*terms.values, right)) for terms, right in self._pending])
            names = (*self._pending[0][0].names, "accuracy")
            first = self.step - len(self._pending)
            self._pending = []
            for offset, row in enumerate(rows.tolist()):
                for name, value in zip(names, row, strict=True):
                    if not math.isfinite(value):
                        raise FloatingPointError(
                            f"every loss term must be finite; got {name} = {value} at step "
                            f"{first + offset + 1}; lower the learning rate or look at that batch"
                        )
                    self.totals[name] = self.totals.get(name, 0.0) + value
        now = time.perf_counter()
        self._epoch_seconds += now - self._since
        self.seconds += now - self._since
        self._since = now

    @property
    def mean_loss(self) -> float:
        losses = [value for name, value in self.totals.items() if name != "accuracy"]
        return sum(losses) / max(self.step_of_epoch, 1)

    @property
    def images_per_second(self) -> float:
        return self.step_of_epoch * self.batch_size / max(self._epoch_seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """By this epoch's speed."""
        return (self.steps - self.step) * self.batch_size / max(self.images_per_second, 1e-9)

    def end_epoch(self, history: Path) -> None:
        """Append the epoch's means to the history and start the next one."""
        self.look()
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            **{name: value / self.step_of_epoch for name, value in self.totals.items()},
            "images_per_second": round(self.images_per_second, 1),
        }
        try:
            with history.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise unwritable(history, error) from error
        self.totals = {}
        self.step_of_epoch = 0
        self._epoch_seconds = 0.0

    def save(self, path: Path) -> None:
        # The sampler handed out its whole epoch at once, and a part of it was trained on.
        used = self.step_of_epoch or len(self.sampler)
        content = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "sampler": self.sampler.state_dict(used=used),
            "augmentation": self.augmentation_generator.get_state(),
            "random": torch.get_rng_state(),
            "progress": [self.step, self.epoch, self.step_of_epoch],
            "seconds": [self.seconds, self._epoch_seconds],
            "totals": dict(self.totals),
        }
        if self.device.type == "cuda":
            content["random_cuda"] = torch.cuda.get_rng_state(self.device)
        save_tensors(path, content)

    def restore(self, path: Path) -> None:
        if not path.is_file():
            return
        mend = "remove this file to train the run from its beginning"
        content = load_tensors(path, mend)
        try:
            self.model.load_state_dict(content["model"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.sampler.load_state_dict(content["sampler"])
            self.augmentation_generator.set_state(content["augmentation"])
            torch.set_rng_state(content["random"])
            if "random_cuda" in content and self.device.type == "cuda":
                torch.cuda.set_rng_state(content["random_cuda"], self.device)
            self.step, self.epoch, self.step_of_epoch = content["progress"]
            self.seconds, self._epoch_seconds = content["seconds"]
            self.totals = content["totals"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                "a checkpoint belongs to the model and recipe that it resumes",
                f"{path}: {str(error).splitlines()[0][:120]}",
                mend,
            ) from error

    def keep_history(self, path: Path) -> None:
        """Drop the rows after the checkpoint: a kill may have come between the two files."""
        rows = path.read_text().splitlines()[: self.epoch] if path.is_file() else []
        write_whole(path, lambda partial: partial.write_text("".join(f"{row}\n" for row in rows)))


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


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
