"""Data: from a benchmark's folder to batches of images.

- ``splits``, ``benchmark``: what a reader returns.
- ``rules``: the rules of a benchmark, and which images a query matches or ignores.
- ``names``: which spellings of a person or a camera are one name.
- ``readers``: a reader for each benchmark, and how to obtain the public ones.
- ``check``: comparison of a folder with the official counts.
- ``images``: decoding with a cache, and batches on the device.
- ``augmentation``: random variations of whole batches.
- ``samplers``: batch samplers and the prefetcher.
- ``synthetic``: the rendered benchmark.

The names imported here need no torch, so that reading a folder is quick. Import the other modules by name.
"""

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import BENCHMARKS, load, load_specified
from reidlib.data.splits import Split

__all__ = ["BENCHMARKS", "Benchmark", "Split", "load", "load_specified"]
