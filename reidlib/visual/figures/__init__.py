"""Arrays in, figure out: every picture of the notebooks."""

from reidlib.visual.figures import ablations, images, models, scores, training

__all__ = ["ablations", "images", "models", "scores", "training"]
