"""Tensors on disk: weights, and all that a training goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from reidlib.errors import InputError
from reidlib.files import write_filled
from reidlib.training import distributed
from reidlib.training.config import Recipe
from reidlib.training.dynamic import Balance

if TYPE_CHECKING:
    from torch.distributed.checkpoint.stateful import Stateful


class TrainingState(NamedTuple):
    """What a training works with; a checkpoint holds the state of each."""

    recipe: Recipe  # which a checkpoint must have been written with
    model: nn.Module
    optimiser: torch.optim.Optimizer
    feeds: Stateful  # which batches come next
    meter: Stateful  # what the training has measured
    generator: torch.Generator  # of the augmentation, the same in every process


_STATEFUL = ("model", "optimiser", "feeds", "meter")


def save_checkpoint(path: Path, parts: TrainingState, step: int, balance: Balance | None) -> None:
    """Write all that a training is behind ``step`` steps; every process calls this, the first one writes."""
    device = next(parts.model.parameters()).device
    random = distributed.of_all(torch.get_rng_state())
    random_cuda = []
    if device.type == "cuda":
        random_cuda = distributed.of_all(torch.cuda.get_rng_state(device))
    if distributed.world().rank > 0:
        return
    content = {
        "recipe": repr(parts.recipe),
        **{name: getattr(parts, name).state_dict() for name in _STATEFUL},
        "generator": parts.generator.get_state(),
        "random": random,  # of every process
        "random_cuda": random_cuda,
        "balance": None if balance is None else balance._asdict(),
        "step": step,
    }
    save_tensors(path, content)


def restore_checkpoint(
    path: Path, parts: TrainingState, balance: Balance | None
) -> tuple[int, Balance | None]:
    """Put back what ``save_checkpoint`` wrote; the steps behind it, and the balance for the next one.

    Without a file nothing changes. Raises InputError for one that is damaged or of another training.
    """
    if not path.is_file():
        return 0, balance
    device, world = next(parts.model.parameters()).device, distributed.world()
    mend = "remove this file to train the run from its beginning"
    content = load_tensors(path, mend)
    try:
        if content["recipe"] != repr(parts.recipe):
            raise ValueError("written with another recipe")
        for name in _STATEFUL:
            getattr(parts, name).load_state_dict(content[name])
        parts.generator.set_state(content["generator"])
        # As many processes as before go on exactly; others drop units of their own choice.
        if len(content["random"]) == world.size:
            torch.set_rng_state(content["random"][world.rank])
            if device.type == "cuda" and len(content["random_cuda"]) == world.size:
                torch.cuda.set_rng_state(content["random_cuda"][world.rank], device)
        if (content["balance"] is None) != (balance is None):
            raise ValueError("one of them balances its losses")
        return content["step"], None if balance is None else Balance(**content["balance"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            "a checkpoint belongs to the model and recipe that it resumes",
            f"{path}: {str(error).splitlines()[0][:120]}",
            mend,
        ) from error


def save_tensors(path: Path, content: dict) -> None:
    """Write tensors whole or not at all; takes their size in memory once more.

    torch.save into a file reports a full disk as an internal error of its archive, so it fills a buffer.
    """
    write_filled(path, lambda buffer: torch.save(content, buffer))


def load_tensors(path: Path, mend: str) -> dict:
    """A file of tensors, read without running any code in it. A damaged one is an InputError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch reports damage as any of half a dozen types
        raise InputError(
            "a checkpoint is readable by torch.load(weights_only=True)",
            f"{path}: {type(error).__name__} {str(error).partition(chr(10))[0][:100]}",
            mend,
        ) from error
