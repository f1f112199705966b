"""Tensors on disk: weights, and all that a training goes on from."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from reidlib.errors import InputError
from reidlib.files import write_whole


def save_tensors(path: Path, content: dict) -> None:
    """Write tensors whole or not at all; takes their size in memory once more.

    torch.save into a file reports a full disk as an internal error of its archive, so it fills a buffer.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, lambda partial: partial.write_bytes(buffer.getbuffer()))


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
