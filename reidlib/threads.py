"""Work in threads: ahead of its use, in order, and side by side without waiting for each other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch

Item, Result = TypeVar("Item"), TypeVar("Result")


def worked_ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    """What ``work`` makes of each item, in order; at most ``window`` results pile up."""
    items = iter(items)
    pending: deque[Future[Result]] = deque()
    try:
        while True:
            pending.extend(pool.submit(work, item) for item in islice(items, window - len(pending)))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Callable]:
    """Gives a ``map`` whose calls run in as many threads as torch uses, each with operations of one thread.

    Threads that share an operation wait for the slowest at its end. Where another program uses one of the
    cores, that happens a thousand times, and two threads become slower than one.

    Results come in order. Threads start in torch's default modes, so the function sets ``inference_mode``
    itself. On other devices than the CPU, and with one thread, it is Python's ``map``.
    """
    count = torch.get_num_threads()
    if count == 1 or device.type != "cpu":
        yield map
        return
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(count)  # what one thread sets holds for all that start later
