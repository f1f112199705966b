"""Learning curves: scores over the number of training persons, and of images of each, for several starts.

``planning`` their trainings (``reidlib train ROW --curve``)
"""

from reidlib.analysis.learning_curves.planning import Point, curve_chains, sizes, starts

__all__ = ["Point", "curve_chains", "sizes", "starts"]
