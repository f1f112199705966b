"""On what a model runs: device, precision, compilation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from reidlib.errors import InputError, check_choice, counted


@dataclass(frozen=True)
class Execution:
    """On what a training runs. It is recorded with a run but does not identify it."""

    device: str = "auto"  # cuda, mps or cpu, the first that is there; or one of them by name
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # bfloat16 where the hardware has it
    compile: bool = False  # torch.compile: minutes at the start, faster steps afterwards
    progress: bool = True

    def __post_init__(self):
        known = ("auto", "float32", "bfloat16")
        check_choice("precision is auto, float32 or bfloat16", self.precision, known)

    @property
    def torch_device(self) -> torch.device:
        """The device. Raises InputError when one is demanded that this machine lacks."""
        there = [name for name, is_there in _DEVICES.items() if is_there()]
        if self.device == "auto":
            return torch.device(there[0])
        kind, _, index = self.device.partition(":")
        count = torch.cuda.device_count() if kind == "cuda" else 1
        if kind not in there or (index and not (index.isdecimal() and int(index) < count)):
            raise InputError(
                f"the device is one of this machine's ({', '.join(there)}) or auto",
                repr(self.device),
                f"use device={there[0]!r}, or install a driver and torch build for what you asked",
            )
        return torch.device(self.device)

    @property
    def rendering_device(self) -> torch.device:
        """Where to render: the CPU instead of Metal, which lacks the renderer's 64-bit integers."""
        device = self.torch_device
        return torch.device("cpu") if device.type == "mps" else device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of convolutions and matrix products; weights and losses stay float32."""
        if self.precision == "auto":
            return torch.bfloat16 if _has_bfloat16(self.torch_device) else torch.float32
        return getattr(torch, self.precision)

    def autocast(self) -> torch.autocast:
        dtype = self.dtype
        return torch.autocast(self.torch_device.type, dtype=dtype, enabled=dtype != torch.float32)

    def describe(self) -> str:
        """The device in words, for records."""
        device = self.torch_device
        if device.type == "cuda":
            return torch.cuda.get_device_name(device)
        threads = counted(torch.get_num_threads(), "threads")
        return f"{device.type}, {threads}, {torch.backends.cpu.get_cpu_capability()}"


_DEVICES = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # A CPU without these instructions emulates bfloat16, several times slower than float32.
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
