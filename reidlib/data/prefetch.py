"""Prefetched batches from several samplers, of which every step may choose another."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

from torch import Tensor

from reidlib.data.images import ImageStore
from reidlib.data.samplers import Epochs
from reidlib.errors import InputError


class Feeds(contextlib.AbstractContextManager):
    """Batches of images by the name of the sampler that draws them; used as a context manager.

    images: the training images. samplers: by name; each is read through a stream of its own that
    assembles batches ahead of their use, and what one has ready waits while another is chosen: switching
    loses no batch and repeats none. share: (rank, processes); a process gets its contiguous part
    of every batch, whose size the number of processes must divide.

    The images of a batch on their way take memory once for each sampler.
    """

    def __init__(self, images: ImageStore, samplers: Mapping[str, Epochs], share: tuple[int, int] = (0, 1)):
        self._images, self._samplers, self._share = images, samplers, share
        self._epochs: dict[str, tuple[list[Tensor], Generator[Tensor, None, None]]] = {}
        # Batches of a sampler's epoch that were handed out here, from the epoch's first.
        self._used = {name: sampler.used for name, sampler in samplers.items()}

    def __exit__(self, *_) -> None:
        for _, stream in self._epochs.values():
            stream.close()
        self._epochs = {}

    def next(self, name: str) -> tuple[Tensor, Tensor]:
        """This process's share of a sampler's next batch: indices (B,), images uint8 (B, 3, H, W)."""
        sampler = self._samplers[name]
        if name not in self._epochs or self._used[name] == len(sampler):
            first = sampler.used % len(sampler)
            batches = [self._own(batch) for batch in sampler]
            self._used[name] = first
            self._epochs[name] = ([*[None] * first, *batches], self._images.batches(batches))
        batches, stream = self._epochs[name]
        self._used[name] += 1
        return batches[self._used[name] - 1], next(stream)

    def _own(self, indices_b: Tensor) -> Tensor:
        rank, processes = self._share
        own = len(indices_b) // processes
        return indices_b[rank * own : (rank + 1) * own]

    def state_dict(self) -> dict:
        """What resumes every sampler behind the batches that were handed out."""
        return {name: s.state_dict(used=self._used[name]) for name, s in self._samplers.items()}

    def load_state_dict(self, state: dict) -> None:
        """Go on where ``state_dict`` was taken. Raises InputError for the state of other samplers."""
        if state.keys() != self._samplers.keys():
            raise InputError(
                "a state names the same samplers",
                f"{', '.join(state)} instead of {', '.join(self._samplers)}",
                "resume with the configuration that wrote the checkpoint",
            )
        self.__exit__()
        for name, sampler in self._samplers.items():
            sampler.load_state_dict(state[name])
            self._used[name] = sampler.used
