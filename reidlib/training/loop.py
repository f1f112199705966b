"""The one training loop: schedule, precision, checkpoint, resume, history."""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from reidlib import files
from reidlib.data.augmentation import augment
from reidlib.data.images import ImageStore, to_device
from reidlib.training import distributed
from reidlib.training.checkpoint import save_tensors
from reidlib.training.config import Recipe
from reidlib.training.device import Execution
from reidlib.training.dynamic import Balance
from reidlib.training.runs import CHECKPOINT
from reidlib.training.state import Objective, TrainingState

# Steps between two looks at the device's losses: a look waits for the device, so not after every step (an
# objective that balances its losses has to wait in each).
_LOOK_EVERY = 20


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
    device, world = execution.torch_device, distributed.world()
    if world.size > 1:
        distributed.synchronise_batch_norm(model, device)
    model.to(device, memory_format=torch.channels_last).train()
    state = TrainingState(model, images, labels_n, recipe, seed, balance)
    checkpoint, history = folder / CHECKPOINT, folder / "history.jsonl"
    state.restore(checkpoint)
    if world.rank == 0:
        state.keep_history(history)
    forward = distributed.parallel(model, device)
    if execution.compile:
        forward = torch.compile(forward)
    autocast = execution.autocast()
    augmentation = asdict(recipe.augmentation)

    bar = tqdm(
        total=state.steps, initial=state.step, desc=title, unit="step",
        disable=not execution.progress or world.rank > 0, mininterval=0.5, dynamic_ncols=True,
    )  # fmt: skip
    with bar, state.feeds as feeds, _Interruption() as interruption:
        while state.step < state.steps:
            for group in state.optimiser.param_groups:
                group["lr"] = group["factor"] * recipe.rate(state.step, state.steps)
            drawn_by = state.sampler
            indices_b, images_bchw = feeds.next(drawn_by)
            inputs_bchw = augment(images_bchw, state.augmentation_generator, share=world, **augmentation)
            labels_b = to_device(labels_n[indices_b], device)
            with autocast:
                output = forward(inputs_bchw)
            terms = state.ask(objective, output, labels_b)
            state.optimiser.zero_grad(set_to_none=True)
            terms.total.backward()
            state.optimiser.step()
            state.note(terms, output.logits, labels_b, drawn_by)
            bar.update()
            end_of_epoch = state.step == state.steps or state.step_of_epoch == state.steps_per_epoch
            if state.step % _LOOK_EVERY == 0 or end_of_epoch:
                state.look()
                rate = f"loss {state.mean_loss:.2f}, {state.images_per_second:.0f} images/s"
                bar.set_postfix_str(rate)
                if world.rank == 0:
                    _tell(f"step {state.step}/{state.steps}, {rate}, {state.seconds_left:.0f} s left")
            if end_of_epoch:
                state.end_epoch(history)
            stopping = distributed.any_of(interruption.asked)  # all processes stop behind the same step
            if end_of_epoch or stopping:
                state.look()
                state.save(checkpoint)
            if stopping and state.step < state.steps:
                raise KeyboardInterrupt(
                    f"stopped after step {state.step} of {state.steps}; the same command goes on from there"
                )

    if world.rank == 0:
        state.save_trace(folder / "steps.npz")
        save_tensors(folder / "weights.pt", _on_cpu(model.state_dict()))
    return {
        "device": execution.describe(),
        "precision": str(execution.dtype).removeprefix("torch."),
        "processes": world.size,
        "steps": state.steps,
        "seconds": round(state.seconds, 1),
    }


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


def _on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
