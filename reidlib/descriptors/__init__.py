"""Hand-crafted image descriptors, which need no training."""

from reidlib.descriptors.gaussians import gog, normalise_gog
from reidlib.descriptors.occurrence import lomo
from reidlib.descriptors.stripes import stripe_histograms

__all__ = ["gog", "lomo", "normalise_gog", "stripe_histograms"]
