"""One training over several processes started by ``torchrun``; with one process the functions do nothing.

Every process holds the whole model and trains on its part of each batch. DistributedDataParallel averages
the gradients, batch statistics cover the whole batch, and embeddings for triplets are gathered first: the
result equals that of one process with the same batch, up to rounding.
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

from reidlib.errors import InputError, count_noun
from reidlib.training.device import Execution

# The others may wait for days while the first process trains, or waits for a run that another command trains.
_TIMEOUT = timedelta(days=30)
_REFUSED = "refused"


class World(NamedTuple):
    """Rank of this process and number of processes."""

    rank: int = 0
    size: int = 1


def world() -> World:
    """Return this process's rank and the number of processes; 0 and 1 outside of ``process_group``."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextlib.contextmanager
def process_group(execution: Execution) -> Iterator[Execution]:
    """Join the processes of ``torchrun``, if it is used.

    Args:
        execution: Execution of the whole training.

    Yields:
        The execution of this process. On CUDA every process has its own GPU; only the first shows progress.

    Raises:
        InputError: If there are fewer GPUs than processes, or the device is neither CUDA nor a CPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1
    if size == 1:
        yield execution
        return
    device = execution.torch_device
    if device.type not in ("cpu", "cuda"):
        raise InputError("several processes train on CUDA or a CPU", device.type, "use --device cpu")
    if device.type == "cuda":
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        if local_rank >= torch.cuda.device_count():
            value = f"process {local_rank + 1} and {count_noun(torch.cuda.device_count(), 'GPUs')}"
            raise InputError("every process has its own GPU", value, "start one per GPU, or use --device cpu")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    # Tensors of the device go through its own backend, messages between processes through the CPU's.
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT)
    try:
        progress = execution.progress and world().rank == 0
        yield Execution(str(device), execution.precision, execution.compile, progress)
    finally:
        dist.destroy_process_group()


def check_batch_size(batch_size: int) -> None:
    """Raise InputError if the number of processes does not divide the batch into equal parts."""
    if batch_size % world().size:
        value = f"a batch of {batch_size} images for {world().size} processes"
        sizes = " or ".join(str(size) for size in range(1, batch_size + 1) if batch_size % size == 0)
        raise InputError("the number of processes divides the batch", value, f"start {sizes} processes")


def parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model wrapped so that backward averages gradients over several processes."""
    if world().size == 1:
        return model
    wrapper = nn.parallel.DistributedDataParallel
    # Batch norm synchronises its statistics, so no buffer needs to be sent.
    new_name = "forward_sync_buffers" in inspect.signature(wrapper).parameters  # since torch 2.15
    sync: dict[str, Any] = {"forward_sync_buffers" if new_name else "broadcast_buffers": False}
    device_ids = [device.index] if device.type == "cuda" else None
    return wrapper(model, device_ids=device_ids, gradient_as_bucket_view=True, **sync)


@contextlib.contextmanager
def raise_on_all_processes() -> Iterator[None]:
    """End all processes if the first one raises InputError while they wait in ``broadcast_from_first``."""
    try:
        yield
    except InputError:
        if world().size > 1:  # else they would report a lost connection above the error that matters
            with contextlib.suppress(RuntimeError):  # they may have ended with the same error already
                broadcast_from_first(_REFUSED)
        raise


def broadcast_from_first(message: Any = None) -> Any:
    """Return the first process's message, a plain Python value, in every process."""
    if world().size == 1:
        return message
    messages = [message]
    dist.broadcast_object_list(messages, src=0, device=torch.device("cpu"))
    if messages[0] == _REFUSED and world().rank > 0:
        sys.exit(2)  # without a message: the first process prints the error
    return messages[0]


@contextlib.contextmanager
def first_process_first() -> Iterator[None]:
    """Let the first process run the block before the others enter it."""
    if world().rank == 0:
        with raise_on_all_processes():
            yield
        broadcast_from_first()
    else:
        broadcast_from_first()
        yield


def all_gather_list(value: Tensor) -> list[Tensor]:
    """Return every process's tensor by rank; shapes must be equal; not differentiable."""
    if world().size == 1:
        return [value]
    values = [torch.empty_like(value, memory_format=torch.contiguous_format) for _ in range(world().size)]
    dist.all_gather(values, value.contiguous())
    return values


def mean(values: Tensor) -> Tensor:
    """Return the mean of the processes' values, the same bits in each; not differentiable."""
    if world().size == 1:
        return values.detach()
    return _sum(values.detach()) / world().size


def _sum(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def any_process(flag: bool) -> bool:
    """Return whether the flag is set in any process."""
    return any(map(bool, all_gather_list(torch.tensor(float(flag)))))


def all_gather(values_b: Tensor) -> Tensor:
    """Return the whole batch's rows in the order of the processes; differentiable."""
    return values_b if world().size == 1 else _AllGather.apply(values_b)


# The gradient needs no communication, on one condition: every process computes the same loss of the gathered
# rows. It is multiplied by the number of processes because DistributedDataParallel divides by it.
class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values_b: Tensor) -> Tensor:
        return torch.cat(all_gather_list(values_b))

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> Tensor:
        rank, size = world()
        return grad_outputs[0].chunk(size)[rank] * size


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        return _sum(values)

    @staticmethod
    def backward(ctx, *grad_outputs: Tensor) -> Tensor:
        return _sum(grad_outputs[0])


class _BatchNormOverProcesses(_BatchNorm):
    """Batch norm with the statistics of the whole batch, for devices that torch.nn.SyncBatchNorm refuses."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        size = world().size
        other_dims = [dim for dim in range(input.dim()) if dim != 1]
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        # Variance around the common mean: a difference of large sums would lose significant digits.
        mean_c = _Sum.apply(values.mean(other_dims)) / size
        shape = [1, -1, *[1] * (input.dim() - 2)]
        centred = values - mean_c.view(shape)
        variance_c = _Sum.apply(centred.square().mean(other_dims)) / size
        with torch.no_grad():
            count = size * input.numel() // input.shape[1]
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean_c, self.momentum)
            self.running_var.lerp_(variance_c * count / (count - 1), self.momentum)
        scale_c = self.weight * torch.rsqrt(variance_c + self.eps)
        return (centred * scale_c.view(shape) + self.bias.view(shape)).to(input.dtype)


def synchronise_batch_norm(model: nn.Module, device: torch.device) -> None:
    """Make every batch norm of the model use the statistics of all processes, in place."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            # Only the class changes, not the state: the optimiser may hold the weights already.
            layer.__class__ = _BatchNormOverProcesses
