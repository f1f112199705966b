"""All that a training is between two steps, and how a checkpoint holds it."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reidlib.data.images import ImageStore
from reidlib.data.samplers import Epochs, Feeds, IdentityBatches, RandomBatches
from reidlib.errors import InputError
from reidlib.files import unwritable, write_whole
from reidlib.training import distributed
from reidlib.training.dynamic import Balance
from reidlib.training.losses import Terms
from reidlib.training.recipe import Recipe
from reidlib.training.runs import load_tensors, save_tensors

Objective = Callable[[nn.Module, object, Tensor, Balance | None], tuple[Terms, Balance | None]]


class TrainingState:
    """All that a training is between two steps: what a checkpoint holds."""

    def __init__(
        self,
        model: nn.Module,
        images: ImageStore,
        labels_n: Tensor,
        recipe: Recipe,
        seed: int,
        balance: Balance | None,
    ):
        if len(images) != len(labels_n):
            raise InputError(
                "every training image has a label",
                f"{len(images)} images, {len(labels_n)} labels",
                "pair them",
            )
        self.model = model
        self.device = next(model.parameters()).device
        self.world = distributed.world()
        samplers = _samplers(recipe, labels_n, seed)
        self.feeds = Feeds(images, samplers, self.world)
        self.balance = balance
        self.can_balance = "identity" in samplers
        if self.sampler not in samplers:
            raise InputError(
                "a triplet loss needs identity-balanced batches",
                f"images_per_identity={recipe.images_per_identity}",
                "set it to 2 or more in the recipe, or train with the identity loss alone",
            )
        self.augmentation_generator = torch.Generator().manual_seed(seed + 1)
        # For dropout, which takes no generator; every process drops units of its own.
        torch.manual_seed(seed + 2 + 1_000_003 * self.world.rank)
        self.optimiser = torch.optim.SGD(
            _parameter_groups(model, recipe.trunk_rate),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            foreach=True,  # torch's default on a CPU loops in Python: 6 % of a small network's step
        )
        self.recipe = recipe
        self.steps_per_epoch = len(samplers["random"])
        self.steps = recipe.length(self.steps_per_epoch)
        self.batch_size = recipe.batch_size
        self.step = self.epoch = self.step_of_epoch = 0
        self.seconds = 0.0
        # Of each quantity in this epoch, its sum and how many steps measured it.
        self.totals: dict[str, list[float]] = {}
        # Of each step: what was measured.
        self.trace: list[dict[str, float]] = []
        self._pending: list[tuple[Terms, Tensor, str, Balance | None]] = []
        self._since = time.perf_counter()
        self._epoch_seconds = 0.0

    @property
    def sampler(self) -> str:
        """Who draws the next batch."""
        return "random" if self.balance is None else self.balance.sampler

    def ask(self, objective: Objective, output: object, labels_b: Tensor) -> Terms:
        """This step's terms, and with them the balance of the next step."""
        try:
            terms, self.balance = objective(self.model, output, labels_b, self.balance)
        except InputError as error:
            raise InputError(error.rule, f"{error.value} at step {self.step + 1}", error.mend) from error
        return terms

    def note(self, terms: Terms, logits_bpk: Tensor, labels_b: Tensor, drawn_by: str) -> None:
        """Keep a step's losses on the device, and count it."""
        with torch.no_grad():
            right = (logits_bpk.argmax(2) == labels_b[:, None]).float().mean()
        detached = Terms(terms.names, tuple(value.detach() for value in terms.values), terms.weights)
        self._pending.append((detached, right, drawn_by, self.balance))
        self.step += 1
        self.step_of_epoch += 1

    def look(self) -> None:
        """Fetch the noted losses from the device and add them up; stop at the first that is not finite."""
        if self._pending:
            values = [value for terms, right, *_ in self._pending for value in (*terms.values, right)]
            fetched = iter(distributed.mean(torch.stack(values)).tolist())
            first = self.step - len(self._pending)
            pending, self._pending = self._pending, []
            for offset, (terms, _, drawn_by, balance) in enumerate(pending):
                row = {name: next(fetched) for name in (*terms.names, "accuracy")}
                for name, value in row.items():
                    if not math.isfinite(value):
                        raise FloatingPointError(
                            f"every loss term must be finite; got {name} = {value} at step "
                            f"{first + offset + 1}; lower the learning rate or look at that batch"
                        )
                if balance is not None:
                    weights = terms.weights or (1.0,) * len(terms.names)
                    row |= {f"weight_{name}": w for name, w in zip(terms.names, weights, strict=True)}
                    if balance.identity is not None:  # not in mode "off", which follows nothing
                        row |= {
                            "focal_identity": balance.focal_identity,
                            "focal_triplet": balance.focal_triplet,
                        }
                if self.can_balance:
                    row["balanced_batches"] = float(drawn_by == "identity")
                self.trace.append(row)
                for name, value in row.items():
                    entry = self.totals.setdefault(name, [0.0, 0])
                    entry[0] += value
                    entry[1] += 1
        now = time.perf_counter()
        self._epoch_seconds += now - self._since
        self.seconds += now - self._since
        self._since = now

    @property
    def mean_loss(self) -> float:
        kinds = ("identity", "triplet", "sparsity")
        return sum(self._means()[name] for name in self.totals if name.startswith(kinds))

    @property
    def images_per_second(self) -> float:
        return self.step_of_epoch * self.batch_size / max(self._epoch_seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """By this epoch's speed."""
        return (self.steps - self.step) * self.batch_size / max(self.images_per_second, 1e-9)

    def _means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.totals.items()}

    def end_epoch(self, history: Path) -> None:
        """Append the epoch's means to the history and start the next one."""
        self.look()
        self.epoch += 1
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            **self._means(),
            "images_per_second": round(self.images_per_second, 1),
        }
        self.totals = {}
        self.step_of_epoch = 0
        self._epoch_seconds = 0.0
        if self.world.rank > 0:
            return
        try:
            with history.open("a") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise unwritable(history, error) from error

    def save(self, path: Path) -> None:
        random = distributed.of_all(torch.get_rng_state())
        random_cuda = []
        if self.device.type == "cuda":
            random_cuda = distributed.of_all(torch.cuda.get_rng_state(self.device))
        if self.world.rank > 0:
            return
        content = {
            "recipe": repr(self.recipe),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "samplers": self.feeds.state_dict(),
            "augmentation": self.augmentation_generator.get_state(),
            "random": random,  # of every process
            "random_cuda": random_cuda,
            "balance": None if self.balance is None else self.balance._asdict(),
            "progress": [self.step, self.epoch, self.step_of_epoch],
            "seconds": [self.seconds, self._epoch_seconds],
            "totals": self.totals,
            "trace": self.trace,
        }
        save_tensors(path, content)

    def restore(self, path: Path) -> None:
        if not path.is_file():
            return
        mend = "remove this file to train the run from its beginning"
        content = load_tensors(path, mend)
        try:
            if content["recipe"] != repr(self.recipe):
                raise ValueError("written with another recipe")
            self.model.load_state_dict(content["model"])
            self.optimiser.load_state_dict(content["optimiser"])
            self.feeds.load_state_dict(content["samplers"])
            self.augmentation_generator.set_state(content["augmentation"])
            # As many processes as before go on exactly; others drop units of their own choice.
            if len(content["random"]) == self.world.size:
                torch.set_rng_state(content["random"][self.world.rank])
                if self.device.type == "cuda" and len(content["random_cuda"]) == self.world.size:
                    torch.cuda.set_rng_state(content["random_cuda"][self.world.rank], self.device)
            if (content["balance"] is None) != (self.balance is None):
                raise ValueError("one of them balances its losses")
            if self.balance is not None:
                self.balance = Balance(**content["balance"])
            self.step, self.epoch, self.step_of_epoch = content["progress"]
            self.seconds, self._epoch_seconds = content["seconds"]
            self.totals, self.trace = content["totals"], content["trace"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                "a checkpoint belongs to the model and recipe that it resumes",
                f"{path}: {str(error).splitlines()[0][:120]}",
                mend,
            ) from error

    def save_trace(self, path: Path) -> None:
        """One array a quantity over all steps; not a number where a step did not measure it."""
        names = dict.fromkeys(name for row in self.trace for name in row)
        columns = {
            name: np.array([row.get(name, math.nan) for row in self.trace], np.float32) for name in names
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **columns)
        write_whole(path, lambda partial: partial.write_bytes(buffer.getbuffer()))

    def keep_history(self, path: Path) -> None:
        """Drop the rows after the checkpoint: a kill may have come between the two files."""
        rows = path.read_text().splitlines()[: self.epoch] if path.is_file() else []
        write_whole(path, lambda partial: partial.write_text("".join(f"{row}\n" for row in rows)))


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
