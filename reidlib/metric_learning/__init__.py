"""Learnt metrics: KISSME, XQDA, NFST and CRAFT, after whose projection ranking costs what L2 costs.

``metric``: what they share; ``coordinates``: images in the space that they span; ``pairs``: covariances of
pairs; ``kernels``; ``fisher``: CRAFT's marginal Fisher analysis; one module for each metric.
"""

from reidlib.metric_learning.craft import CRAFT
from reidlib.metric_learning.kissme import KISSME
from reidlib.metric_learning.metric import Metric
from reidlib.metric_learning.null_space import NullSpace
from reidlib.metric_learning.xqda import XQDA

__all__ = ["CRAFT", "KISSME", "XQDA", "Metric", "NullSpace"]
