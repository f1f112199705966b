"""Device, precision and compilation."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from reidlib.errors import InputError, count_noun
from reidlib.values import check_fields


@dataclass(frozen=True)
class Execution:
    """How a training or an evaluation runs; recorded with a run, but not part of its identity.

    Attributes:
        device: "cuda", "cuda:1", "mps" or "cpu"; "auto" is the first of cuda, mps and cpu on this machine.
        precision: Precision of convolutions and matrix products; "auto" is bfloat16 if the hardware has it.
        compile: Whether to use torch.compile, which takes minutes at the start; steps are faster afterwards.
        progress: Whether to show progress bars.
    """

    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    progress: bool = True

    def __post_init__(self):
        check_fields(self)

    @property
    def torch_device(self) -> torch.device:
        """The device; InputError if this machine does not have it."""
        available = [name for name, is_available in _DEVICES.items() if is_available()]
        if self.device == "auto":
            return torch.device(available[0])
        kind, _, index = self.device.partition(":")
        count = torch.cuda.device_count() if kind == "cuda" else 1
        if kind not in available or (index and not (index.isdecimal() and int(index) < count)):
            rule = f"the device is one of this machine's ({', '.join(available)}) or auto"
            mend = f"use device={available[0]!r}, or install a driver and a torch build for the other device"
            raise InputError(rule, repr(self.device), mend)
        return torch.device(self.device)

    @property
    def rendering_device(self) -> torch.device:
        """The renderer's device: the CPU instead of Metal, which lacks the 64-bit integers it needs."""
        device = self.torch_device
        return torch.device("cpu") if device.type == "mps" else device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of convolutions and matrix products; weights and losses stay float32."""
        if self.precision == "auto":
            return torch.bfloat16 if _has_bfloat16(self.torch_device) else torch.float32
        return getattr(torch, self.precision)

    def autocast(self) -> torch.autocast:
        """Return the context of mixed precision; it is disabled for float32."""
        dtype = self.dtype
        return torch.autocast(self.torch_device.type, dtype=dtype, enabled=dtype != torch.float32)

    def describe(self) -> str:
        """Return the device's name, for a run's record."""
        device = self.torch_device
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        threads = count_noun(torch.get_num_threads(), "threads")
        return f"{device.type}, {threads}, {torch.backends.cpu.get_cpu_capability()}"

    def peak_memory(self) -> dict[str, int]:
        """Return the largest memory of this process so far, and of its work on a GPU, in MiB, if known."""
        peaks = {}
        with contextlib.suppress(OSError, StopIteration):  # Linux only
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            line = next(line for line in lines if line.startswith("VmHWM:"))
            peaks["memory"] = int(line.split()[1]) // 2**10
        if (device := self.torch_device).type == "cuda":
            peaks["gpu_memory"] = torch.cuda.max_memory_reserved(device) // 2**20
        return peaks


_DEVICES = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # A CPU without these instructions emulates bfloat16, several times slower than float32.
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
