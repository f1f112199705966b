"""From a benchmark folder to batches of images.

``splits`` and ``benchmark`` what is read · ``rules`` what a benchmark keeps and a query ignores ·
``registry`` every benchmark by name, and how it is got · ``readers`` their layouts · ``check`` what is there
against what belongs there · ``images`` decoded once, batches on the device · ``augmentation`` of whole
batches · ``samplers`` which images make a batch · ``synthetic`` the rendered benchmark.

What is imported here needs no torch, so that reading a folder stays quick; the other modules are imported
by their names.
"""

from reidlib.data.benchmark import Benchmark
from reidlib.data.registry import BENCHMARKS, load, load_specified
from reidlib.data.splits import Split

__all__ = ["BENCHMARKS", "Benchmark", "Split", "load", "load_specified"]
