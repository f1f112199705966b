"""Checkpoints of a training, and tensors on disk in general."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from reidlib.errors import InputError
from reidlib.files import write_buffered
from reidlib.training import distributed
from reidlib.training.config import Recipe
from reidlib.training.dynamic import Balance

if TYPE_CHECKING:
    from reidlib.data.samplers import Prefetcher


class TrainingState(NamedTuple):
    """The objects whose state a checkpoint holds, and the recipe, which must equal the checkpoint's."""

    recipe: Recipe
    model: nn.Module
    optimiser: torch.optim.Optimizer
    feeds: Prefetcher
    meter: Any  # ``loop.Meter``, whose module imports this one
    generator: torch.Generator  # of the augmentation, the same in every process


_STATEFUL = ("model", "optimiser", "feeds", "meter")


def save_checkpoint(path: Path, state: TrainingState, step: int, balance: Balance | None) -> None:
    """Write a checkpoint; every process must call this, and the first one writes.

    Args:
        path: The file.
        state: The training's objects.
        step, balance: Number of steps done, and balance for the next step.
    """
    device = next(state.model.parameters()).device
    random_states, random_states_cuda = distributed.all_gather_list(torch.get_rng_state()), []
    if device.type == "cuda":
        random_states_cuda = distributed.all_gather_list(torch.cuda.get_rng_state(device))
    if distributed.world().rank > 0:
        return
    content = {
        "recipe": state.recipe.to_json(),
        **{name: getattr(state, name).state_dict() for name in _STATEFUL},
        "generator": state.generator.get_state(),
        "random": random_states,  # of every process
        "random_cuda": random_states_cuda,
        "balance": None if balance is None else balance._asdict(),
        "step": step,
    }
    save_tensors(path, content)


def restore_checkpoint(
    path: Path, state: TrainingState, balance: Balance | None
) -> tuple[int, Balance | None]:
    """Restore the state that ``save_checkpoint`` wrote; without a file nothing changes.

    Args:
        path: The file.
        state: The training's objects, changed in place.
        balance: Balance for the first step, returned if there is no file.

    Returns:
        The number of steps done, and the balance for the next step.

    Raises:
        InputError: If the file is damaged or belongs to another training.
    """
    if not path.is_file():
        return 0, balance
    device, world = next(state.model.parameters()).device, distributed.world()
    mend = "remove this file to train the run from its beginning"
    content = load_tensors(path, mend)
    try:
        if content["recipe"] != state.recipe.to_json():
            raise ValueError("written with another recipe")
        for name in _STATEFUL:
            getattr(state, name).load_state_dict(content[name])
        state.generator.set_state(content["generator"])
        # The same number of processes continues exactly; another number drops other units (dropout).
        if len(content["random"]) == world.size:
            torch.set_rng_state(content["random"][world.rank])
            if device.type == "cuda" and len(content["random_cuda"]) == world.size:
                torch.cuda.set_rng_state(content["random_cuda"][world.rank], device)
        if (content["balance"] is None) != (balance is None):
            raise ValueError("one of them balances its losses")
        return content["step"], None if balance is None else Balance(**content["balance"])
    except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        value = f"{path}: {str(error).partition(chr(10))[0][:120] or type(error).__name__}"
        rule = "a checkpoint belongs to the model and recipe that it resumes"
        raise InputError(rule, value, mend) from error


def save_tensors(path: Path, content: dict) -> None:
    """Write a file of tensors completely or not at all."""
    # By a buffer in memory: torch.save to a file reports a full disk as an internal error of its archive.
    write_buffered(path, lambda buffer: torch.save(content, buffer))


def load_tensors(path: Path, mend: str) -> dict:
    """Read a file of tensors without running code in it; InputError with ``mend`` if it is damaged."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damage, of which the error tells
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            raise ValueError(f"{type(content).__name__} instead of a dictionary of names")
        return content
    except Exception as error:  # torch reports damage as one of many types
        reason = f"{type(error).__name__} {str(error).partition(chr(10))[0][:100]}"
        if foreign := re.search(r"GLOBAL (\S+)", str(error)):  # torch's first line advises to run its code
            reason = f"an object of {foreign[1]}, which only running its code would load"
        rule = "a checkpoint is readable by torch.load(weights_only=True)"
        raise InputError(rule, f"{path}: {reason}", mend) from error
