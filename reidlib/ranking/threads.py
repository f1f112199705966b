"""Several threads that each compute alone, instead of one operation spread over all of them.

Threads that share an operation wait for the slowest at its end. Where another program uses one of the
cores, that happens a thousand times, and two threads become slower than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


@contextmanager
def side_by_side(device: torch.device) -> Iterator[Callable]:
    """Gives a ``map`` whose calls run in as many threads as torch uses, each with operations of one thread.

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
