"""From a benchmark folder to batches of images.

``splits`` and ``benchmark`` what is read · ``rules`` what a benchmark keeps and a query ignores · ``readers``
every benchmark by name, how it is got and its layout · ``check`` what is there against what belongs there ·
``images`` decoded once, batches on the device · ``augmentation`` of whole batches · ``samplers`` which images
make a batch · ``synthetic`` the rendered benchmark.

What is imported here needs no torch, so that reading a folder stays quick; the other modules are imported
by their names.
"""

from reidlib.data.benchmark import Benchmark
from reidlib.data.readers import BENCHMARKS, load, load_specified
from reidlib.data.splits import Split

__all__ = ["BENCHMARKS", "Benchmark", "Split", "load", "load_specified"]
