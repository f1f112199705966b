"""Which images make a batch: samplers that a checkpoint can hold, and batches of several read ahead."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping

import torch
from torch import Tensor

from reidlib.data.images import ImageStore
from reidlib.errors import InputError


def epoch_length(num_images: int, batch_size: int) -> int:
    """Batches of an epoch, whichever sampler draws it: as many whole ones as fit, and at least one."""
    return max(1, num_images // batch_size)


class Epochs(ABC):
    """An endless sequence of epochs; iterating yields one epoch's batches, or the rest of a begun one.

    A batch is int64 indices (B,) into the training images. An epoch is drawn whole when it begins, so its
    state is the generator's at that moment and the number of batches used since.
    """

    def __init__(self, generator: torch.Generator):
        self._generator = generator
        self._before_epoch = generator.get_state()
        self._epoch: list[Tensor] = []
        self.used = 0  # batches of the current epoch that were handed out

    @abstractmethod
    def __len__(self) -> int:
        """Batches an epoch."""

    @abstractmethod
    def _draw_epoch(self) -> list[Tensor]:
        """All batches of the next epoch."""

    def __iter__(self) -> Iterator[Tensor]:
        if self.used == len(self._epoch):
            self._before_epoch = self._generator.get_state()
            self._epoch, self.used = self._draw_epoch(), 0
        while self.used < len(self._epoch):
            self.used += 1
            yield self._epoch[self.used - 1]

    def state_dict(self, *, used: int | None = None) -> dict:
        """What resumes this sampler exactly: tensors and numbers, for ``torch.save``.

        ``used`` counts the batches of the current epoch, from its first, that were trained on; without it,
        all that were handed out. They differ where batches are prefetched.
        """
        used = self.used if used is None else used
        if not 0 <= used <= len(self._epoch):
            raise InputError(
                f"the batches used lie within the epoch's {len(self._epoch)} drawn ones",
                used,
                "count from the epoch's first batch",
            )
        return {"before_epoch": self._before_epoch, "drawn": len(self._epoch), "used": used}

    def load_state_dict(self, state: dict) -> None:
        """Go on where ``state_dict`` was taken; ``InputError`` if it belongs to other epochs than these."""
        if state["drawn"] not in (0, len(self)):
            raise InputError(
                "a sampler's state belongs to the same images and batch size",
                f"epochs of {state['drawn']} batches instead of {len(self)}",
                "resume with the configuration that wrote the checkpoint",
            )
        self._generator.set_state(state["before_epoch"])
        self._before_epoch = state["before_epoch"].clone()
        self._epoch = self._draw_epoch() if state["drawn"] else []
        self.used = state["used"]


class RandomBatches(Epochs):
    """Every image once an epoch, shuffled, in batches of ``batch_size``.

    With ``drop_last`` the images that fill no batch are left out, others in each epoch. Raises
    ``InputError`` for a batch larger than the set, or empty.
    """

    def __init__(
        self, num_images: int, batch_size: int, generator: torch.Generator, *, drop_last: bool = True
    ):
        if not 1 <= batch_size <= num_images:
            raise InputError(
                f"a batch holds at least one and at most all {num_images} images",
                f"batch size {batch_size}",
                "choose a size in between, or a larger set",
            )
        super().__init__(generator)
        self.num_images, self.batch_size, self.drop_last = num_images, batch_size, drop_last

    def __len__(self) -> int:
        incomplete = self.num_images % self.batch_size > 0 and not self.drop_last
        return epoch_length(self.num_images, self.batch_size) + incomplete

    def _draw_epoch(self) -> list[Tensor]:
        order_n = torch.randperm(self.num_images, generator=self._generator)
        return list(order_n.split(self.batch_size))[: len(self)]


class IdentityBatches(Epochs):
    """P identities times K images of each, for losses that compare images (Hermans et al. 2017).

    ``labels_n`` int64 (N,). An epoch is as long as that of ``RandomBatches`` of P·K (``epoch_length``): the
    same amount of training whichever sampler draws it. Identities come in shuffled rounds, so none comes
    twice before nearly all came once; those that fill no batch at a round's end wait for a later one. An
    identity with fewer than K images repeats them as evenly as possible. A batch lists identity after
    identity, K images each.

    Raises ``InputError`` where P exceeds the number of identities or K is below 1.
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
                f"a batch holds at least one and at most all {len(identities_k)} identities",
                f"{identities_per_batch} identities a batch",
                "choose fewer identities a batch",
            )
        if images_per_identity < 1:
            raise InputError(
                "a batch holds at least one image of each identity", images_per_identity, "choose 1 or more"
            )
        super().__init__(generator)
        self.identities_per_batch, self.images_per_identity = identities_per_batch, images_per_identity
        self._num_images = len(labels_n)
        # Stable, so that the same labels give the same order on every machine.
        self._images_of = labels_n.argsort(stable=True).split(counts_k.tolist())

    def __len__(self) -> int:
        return epoch_length(self._num_images, self.identities_per_batch * self.images_per_identity)

    def _draw_epoch(self) -> list[Tensor]:
        per_batch, batches = self.identities_per_batch, []
        while len(batches) < len(self):
            round_k = torch.randperm(len(self._images_of), generator=self._generator)
            whole = len(round_k) // per_batch * per_batch
            for identities_p in round_k[:whole].split(per_batch)[: len(self) - len(batches)]:
                batches.append(torch.cat([self._draw_images(identity) for identity in identities_p.tolist()]))
        return batches

    def _draw_images(self, identity: int) -> Tensor:
        images = self._images_of[identity]
        rounds = -(-self.images_per_identity // len(images))
        orders = [torch.randperm(len(images), generator=self._generator) for _ in range(rounds)]
        return images[torch.cat(orders)[: self.images_per_identity]]


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
