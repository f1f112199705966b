"""What is trained and tested: from a row of ``EXPERIMENTS`` or a notebook's parameters to runs with scores.

``rows`` what is trained, how large, under what it is tested, as literal rows · ``setup`` from parameters to
runs · ``obtain`` a run, found or trained · ``features`` from a run to features · ``evaluate`` scores of a run
· ``perturbations`` scores under changed images
"""

from reidlib.experiments.rows import EXPERIMENTS
from reidlib.experiments.setup import Runs, Setup

__all__ = ["EXPERIMENTS", "Runs", "Setup"]
