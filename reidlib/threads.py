"""Run work in threads: ahead of its use, or in parallel on the CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in order, with at most ``window`` results computed ahead."""
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
def parallel_map(device: torch.device) -> Iterator[Callable]:
    """Provide a ``map``, in order, whose calls run in as many threads as torch uses, one core for each."""
    # Threads that share one operation wait for the slowest at its end. If another program uses one of the
    # cores, that happens a thousand times, and two threads become slower than one.
    # Threads start in torch's default modes, so the mapped function sets ``inference_mode`` itself.
    count = torch.get_num_threads()
    if count == 1 or device.type != "cpu":
        yield map
        return
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(count)  # a thread's setting applies to all threads that start later
