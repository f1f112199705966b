"""Hand-crafted image descriptors, which need no training."""

from reidlib.descriptors.occurrence import lomo
from reidlib.descriptors.stripes import stripe_histograms

__all__ = ["lomo", "stripe_histograms"]
