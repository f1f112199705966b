"""One training over several processes, as ``torchrun`` starts them; with one process all of this is nothing.

Every process holds the whole model and trains on its part of each batch. Gradients are averaged by
DistributedDataParallel, batch statistics are those of the whole batch, and what is compared across a batch
(triplets) is gathered first: the result is that of one process with the same batch, to rounding.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reidlib.errors import InputError
from reidlib.training.device import Execution

# The first process may train for days, or wait for a run that others train, before the rest hear from it.
_PATIENCE = timedelta(days=30)
_REFUSED = "refused"


class World(NamedTuple):
    """A process's place among all of them."""

    rank: int = 0
    size: int = 1


def world() -> World:
    """This process's place; rank 0 of 1 outside of ``process_group``."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def process_group(execution: Execution) -> Iterator[Execution]:
    """Join the processes that ``torchrun`` started, if it did; yields the execution for this process.

    On CUDA each process of a machine takes the GPU of its number there. Only the first process shows
    progress. Raises InputError where a machine has fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size == 1:
        yield execution
        return
    device = execution.torch_device
    if device.type not in ("cpu", "cuda"):
        raise InputError("several processes train on CUDA or a CPU", device.type, "use --device cpu")
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InputError(
                "every process has a GPU of its own",
                f"process {local + 1} of this machine and {torch.cuda.device_count()} GPUs",
                "start at most as many processes as GPUs, or use --device cpu",
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    # Numbers travel by the device's own means, messages between processes by the CPU's.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_PATIENCE)
    try:
        progress = execution.progress and world().rank == 0
        yield Execution(str(device), execution.precision, execution.compile, progress)
    finally:
        dist.destroy_process_group()


def check_share(batch_size: int) -> None:
    """Raise InputError where the processes do not divide a batch: every one takes an equal part."""
    if batch_size % world().size:
        raise InputError(
            "the number of processes divides the batch",
            f"a batch of {batch_size} images for {world().size} processes",
            "start as many processes as divide the batch size",
        )


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model whose backward averages gradients over the processes; itself where there is only one."""
    if world().size == 1:
        return model
    wrapper = nn.parallel.DistributedDataParallel
    # Batch statistics are synchronised where they are computed, so that no buffer needs to be sent. The
    # argument that says so has had another name since torch 2.15.
    renamed = "forward_sync_buffers" in inspect.signature(wrapper).parameters
    return wrapper(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{"forward_sync_buffers" if renamed else "broadcast_buffers": False},
    )


@contextlib.contextmanager
def refusing_together() -> Iterator[None]:
    """Around what the first process does while the others wait in ``from_first``: its refusal ends them, too.

    Without it they would lose their connection, and report that above the one line that matters.
    """
    try:
        yield
    except InputError:
        if world().size > 1:
            with contextlib.suppress(RuntimeError):  # they may have refused the same, and be gone
                from_first(_REFUSED)
        raise


def from_first(message: Any = None) -> Any:
    """What the first process says, in every process. Messages are plain Python values.

    Where it says that it refused its input, the others exit without a word: it has the word.
    """
    if world().size == 1:
        return message
    box = [message]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    if box[0] == _REFUSED and world().rank > 0:
        sys.exit(2)
    return box[0]


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block before the others enter it."""
    if world().rank > 0:
        from_first()
        yield
        return
    with refusing_together():
        yield
    from_first()


def of_all(value: Tensor) -> list[Tensor]:
    """A tensor of every process, in the order of their ranks; equal shapes. Not differentiable."""
    if world().size == 1:
        return [value]
    values = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(world().size)]
    dist.all_gather(values, value.contiguous())
    return values


def mean(values: Tensor) -> Tensor:
    """The mean of the processes' values, the same bits in each; not differentiable."""
    if world().size == 1:
        return values.detach()
    return _total(values.detach()) / world().size


def _total(values: Tensor) -> Tensor:
    """The sum of the processes' values, beside them."""
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    return any(map(bool, of_all(torch.tensor(float(flag)))))


def all_gather(values_b: Tensor) -> Tensor:
    """A whole batch's rows from the processes' parts of it, in their order.

    Differentiable under one condition: every process computes the same loss of the gathered rows, and
    DistributedDataParallel averages the parameters' gradients.
    """
    return values_b if world().size == 1 else _Gather.apply(values_b)


class _Gather(torch.autograd.Function):
    """all_gather whose gradient is complete without asking anyone, under the condition of ``all_gather``.

    It is scaled because the mean over processes divides it again.
    """

    @staticmethod
    def forward(ctx, values_b: Tensor) -> Tensor:
        return torch.cat(of_all(values_b))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        rank, size = world()
        return gradient.chunk(size)[rank] * size


class _Sum(torch.autograd.Function):
    """Sum over the processes; the gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return _total(values)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _total(gradient)


class _BatchNormOverProcesses(_BatchNorm):
    """Batch norm with the statistics of the whole batch, on devices that torch.nn.SyncBatchNorm refuses."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        size = world().size
        others = [axis for axis in range(input.dim()) if axis != 1]
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        # Variance around the common mean: a difference of large sums would lose its digits.
        mean_c = _Sum.apply(values.mean(others)) / size
        shape = [1, -1, *[1] * (input.dim() - 2)]
        centred = values - mean_c.view(shape)
        variance_c = _Sum.apply(centred.square().mean(others)) / size
        with torch.no_grad():
            count = size * input.numel() // input.shape[1]
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_c, self.momentum)
            self.running_var.lerp_(variance_c * count / (count - 1), self.momentum)
        scale_c = self.weight * torch.rsqrt(variance_c + self.eps)
        return (centred * scale_c.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Turn every batch norm inside ``model``, in place, into one over all processes."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            # Another class with the same state: the optimiser may hold the weights already.
            layer.__class__ = _BatchNormOverProcesses
