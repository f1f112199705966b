"""Batch samplers whose state a checkpoint can hold, and a prefetcher of image batches."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping

import torch
from torch import Tensor

from reidlib.data.images import ImageStore
from reidlib.errors import InputError


def epoch_length(num_images: int, batch_size: int) -> int:
    """Return the number of batches in an epoch of any sampler: all complete batches, and at least one."""
    return max(1, num_images // batch_size)


class ResumableSampler(ABC):
    """Resumable batch sampler: each iteration yields one epoch's batches, or the rest of an unfinished epoch.

    A batch is a tensor of indices of training images, int64 (B,). An epoch is drawn completely when it
    starts. The state is therefore the generator's state before the epoch and the number of batches used
    since.

    Args:
        generator: Generator on the CPU that draws the epochs.
    """

    def __init__(self, generator: torch.Generator):
        self._generator = generator
        self._before_epoch = generator.get_state()
        self._epoch: list[Tensor] = []
        self.num_used = 0  # batches of the current epoch that were yielded

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches in an epoch."""

    @abstractmethod
    def _draw_epoch(self) -> list[Tensor]:
        """Draw all batches of the next epoch."""

    def __iter__(self) -> Iterator[Tensor]:
        if self.num_used == len(self._epoch):
            self._before_epoch = self._generator.get_state()
            self._epoch, self.num_used = self._draw_epoch(), 0
        while self.num_used < len(self._epoch):
            self.num_used += 1
            yield self._epoch[self.num_used - 1]

    def state_dict(self, *, num_used: int | None = None) -> dict:
        """Return the state from which ``load_state_dict`` resumes exactly.

        Args:
            num_used: Number of the current epoch's batches that were trained on; default: all that were
                yielded. They differ if batches are prefetched.

        Returns:
            Tensors and numbers for ``torch.save``.

        Raises:
            InputError: If the epoch has fewer batches.
        """
        num_used = self.num_used if num_used is None else num_used
        if not 0 <= num_used <= len(self._epoch):
            raise InputError(
                f"the number of used batches is between 0 and the epoch's {len(self._epoch)}",
                num_used,
                "count from the epoch's first batch",
            )
        return {"before_epoch": self._before_epoch, "drawn": len(self._epoch), "used": num_used}

    def load_state_dict(self, state: dict) -> None:
        """Resume from a state of ``state_dict``.

        Args:
            state: The state of a sampler of the same images and batch size.

        Raises:
            InputError: If the epochs of the state have another number of batches.
        """
        if state["drawn"] not in (0, len(self)):
            raise InputError(
                "a sampler's state belongs to the same images and batch size",
                f"epochs of {state['drawn']} batches instead of {len(self)}",
                "resume with the configuration that wrote the checkpoint",
            )
        self._generator.set_state(state["before_epoch"])
        self._before_epoch = state["before_epoch"].clone()
        self._epoch = self._draw_epoch() if state["drawn"] else []
        self.num_used = state["used"]


class RandomBatchSampler(ResumableSampler):
    """Random batch sampler: every image once in an epoch, in random order.

    Args:
        num_images: Number of training images, N.
        batch_size: Number of images in a batch.
        generator: Generator on the CPU.
        drop_last: Whether to drop an incomplete last batch; the dropped images differ between epochs.

    Raises:
        InputError: If the batch size is below 1 or above N.
    """

    def __init__(
        self, num_images: int, batch_size: int, generator: torch.Generator, *, drop_last: bool = True
    ):
        if not 1 <= batch_size <= num_images:
            raise InputError(
                f"a batch has at least one and at most all {num_images} images",
                f"batch size {batch_size}",
                "choose a batch size in this range, or a larger set",
            )
        super().__init__(generator)
        self.num_images, self.batch_size, self.drop_last = num_images, batch_size, drop_last

    def __len__(self) -> int:
        incomplete = self.num_images % self.batch_size > 0 and not self.drop_last
        return epoch_length(self.num_images, self.batch_size) + incomplete

    def _draw_epoch(self) -> list[Tensor]:
        order_n = torch.randperm(self.num_images, generator=self._generator)
        return list(order_n.split(self.batch_size))[: len(self)]


class PKSampler(ResumableSampler):
    """P×K sampler: batches of P identities with K images each, for losses that compare images.

    An epoch is as long as that of random batches of P·K images, so that both samplers train equally long.
    Identities are drawn in shuffled rounds, so that none is drawn twice before nearly all are drawn once;
    identities that do not fill a batch at the end of a round wait for a later round. An identity with fewer
    than K images repeats them as evenly as possible. A batch lists the K images of one identity after
    another.

    Args:
        labels_n: Class labels of the N training images, int64 (N,).
        identities_per_batch: Number of identities in a batch, P.
        images_per_identity: Number of images of each identity, K.
        generator: Generator on the CPU.

    Raises:
        InputError: If P is below 1 or above the number of identities, or K is below 1.

    Source: Hermans et al., In Defense of the Triplet Loss, 2017.
    """

    def __init__(
        self,
        labels_n: Tensor,
        identities_per_batch: int,
        images_per_identity: int,
        generator: torch.Generator,
    ):
        labels_n = torch.as_tensor(labels_n)
        identities_k, counts_k = labels_n.unique(return_counts=True)
        if not 1 <= identities_per_batch <= len(identities_k):
            raise InputError(
                f"a batch has at least one and at most all {len(identities_k)} identities",
                f"{identities_per_batch} identities in a batch",
                "choose a number in this range",
            )
        if images_per_identity < 1:
            raise InputError(
                "a batch has at least one image of each identity", images_per_identity, "choose at least 1"
            )
        super().__init__(generator)
        self.identities_per_batch, self.images_per_identity = identities_per_batch, images_per_identity
        self._num_images = len(labels_n)
        # A stable sort gives the same order of the same labels on every machine.
        self._images_by_identity = labels_n.argsort(stable=True).split(counts_k.tolist())

    def __len__(self) -> int:
        return epoch_length(self._num_images, self.identities_per_batch * self.images_per_identity)

    def _draw_epoch(self) -> list[Tensor]:
        per_batch, batches = self.identities_per_batch, []
        while len(batches) < len(self):
            round_k = torch.randperm(len(self._images_by_identity), generator=self._generator)
            complete = len(round_k) // per_batch * per_batch
            for identities_p in round_k[:complete].split(per_batch)[: len(self) - len(batches)]:
                batches.append(torch.cat([self._draw_images(identity) for identity in identities_p.tolist()]))
        return batches

    def _draw_images(self, identity: int) -> Tensor:
        images = self._images_by_identity[identity]
        rounds = -(-self.images_per_identity // len(images))
        orders = [torch.randperm(len(images), generator=self._generator) for _ in range(rounds)]
        return images[torch.cat(orders)[: self.images_per_identity]]


class Prefetcher(contextlib.AbstractContextManager):
    """Prefetcher: assembles the image batches of several samplers ahead of their use; a context manager.

    Each sampler has its own stream of batches. Prepared batches wait while another sampler is used, so that
    switching loses and repeats no batch. Prefetched images take memory for each sampler.

    Args:
        images: The training images.
        samplers: Samplers by name.
        share: (rank, processes); each process gets its contiguous share of every batch, whose size the number
            of processes must divide.
    """

    def __init__(
        self, images: ImageStore, samplers: Mapping[str, ResumableSampler], share: tuple[int, int] = (0, 1)
    ):
        self._images, self._samplers, self._share = images, samplers, share
        self._epochs: dict[str, tuple[list[Tensor], Generator[Tensor, None, None]]] = {}
        # Number of batches of each sampler's current epoch that were returned.
        self._num_used = {name: sampler.num_used for name, sampler in samplers.items()}

    def __exit__(self, *_) -> None:
        for _, stream in self._epochs.values():
            stream.close()
        self._epochs = {}

    def next(self, name: str) -> tuple[Tensor, Tensor]:
        """Return this process's share of a sampler's next batch.

        Args:
            name: Name of the sampler.

        Returns:
            Indices of the training images, int64 (B,), and the images, uint8 (B, 3, H, W), on the device.
        """
        sampler = self._samplers[name]
        if name not in self._epochs or self._num_used[name] == len(sampler):
            first = sampler.num_used % len(sampler)
            batches = [self._take_share(batch) for batch in sampler]
            self._num_used[name] = first
            placeholders = [torch.empty(0)] * first  # for the batches that were used before
            self._epochs[name] = ([*placeholders, *batches], self._images.batches(batches))
        batches, stream = self._epochs[name]
        self._num_used[name] += 1
        return batches[self._num_used[name] - 1], next(stream)

    def _take_share(self, indices_b: Tensor) -> Tensor:
        rank, processes = self._share
        size = len(indices_b) // processes
        return indices_b[rank * size : (rank + 1) * size]

    def state_dict(self) -> dict:
        """Return the states of all samplers after the batches that were returned."""
        return {name: s.state_dict(num_used=self._num_used[name]) for name, s in self._samplers.items()}

    def load_state_dict(self, state: dict) -> None:
        """Resume all samplers from a state of ``state_dict``; raise InputError if it has other samplers."""
        if state.keys() != self._samplers.keys():
            raise InputError(
                "the state and the prefetcher have the same samplers",
                f"{', '.join(state)} instead of {', '.join(self._samplers)}",
                "resume with the configuration that wrote the checkpoint",
            )
        self.__exit__()
        for name, sampler in self._samplers.items():
            sampler.load_state_dict(state[name])
            self._num_used[name] = sampler.num_used
