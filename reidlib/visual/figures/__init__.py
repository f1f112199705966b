"""Arrays in, figure out: every picture of the notebooks."""

from reidlib.visual.figures import images, models, scores, training

__all__ = ["images", "models", "scores", "training"]
