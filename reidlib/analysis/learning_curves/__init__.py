"""Learning curves: scores over the number of training persons, and of images of each, for several starts.

``planning`` their trainings (``reidlib train ROW --curve``) · ``curve`` what finished runs say (notebook 44)
"""

from reidlib.analysis.learning_curves.curve import MEASURE, Curve, Equivalent
from reidlib.analysis.learning_curves.planning import Point, curve_chains, sizes, starts

__all__ = ["MEASURE", "Curve", "Equivalent", "Point", "curve_chains", "sizes", "starts"]
