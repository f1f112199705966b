"""The figures of the notebooks: every function takes arrays or tables and returns a matplotlib figure."""

from reidlib.visual.figures import (
    ablations,
    benchmarks,
    images,
    metrics,
    models,
    performance,
    scores,
    training,
    verdicts,
)

__all__ = [
    "ablations",
    "benchmarks",
    "images",
    "metrics",
    "models",
    "performance",
    "scores",
    "training",
    "verdicts",
]
