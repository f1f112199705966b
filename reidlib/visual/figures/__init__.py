"""The figures of the notebooks: every function takes arrays or tables and returns a matplotlib figure."""

from reidlib.visual.figures import images, models, scores, training

__all__ = ["images", "models", "scores", "training"]
