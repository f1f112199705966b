"""From a benchmark folder to batches of images.

``records`` what a benchmark is · ``benchmarks`` readers of public layouts · ``checking`` what is there
against what belongs there · ``images`` decoded once, batches on the device · ``augmentation`` of whole
batches · ``sampling`` which images make a batch · ``synthetic`` the rendered benchmark.

What is imported here needs no torch, so that reading a folder stays quick; the other modules are imported
by their names.
"""

from reidlib.data.benchmark import Benchmark
from reidlib.data.registry import BENCHMARKS, load, load_specified
from reidlib.data.splits import Split

__all__ = ["BENCHMARKS", "Benchmark", "Split", "load", "load_specified"]
