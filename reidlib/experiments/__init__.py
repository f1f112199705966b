"""Experiments: from a row of ``EXPERIMENTS`` or a notebook's parameters to runs with scores.

``rows`` experiments, profiles and perturbations as literal rows · ``setup`` from parameters to runs ·
``obtain`` a run, loaded or trained · ``features`` from a run to features · ``evaluate`` scores of a run ·
``perturbations`` scores on perturbed test images
"""

from reidlib.experiments.rows import EXPERIMENTS
from reidlib.experiments.setup import Runs, Setup

__all__ = ["EXPERIMENTS", "Runs", "Setup"]
