"""Ranked lists and scores from features; no code here depends on a model.

``metrics``: CMC, mAP and mINP of features or of any distances, ranked lists, multi-query. ``distances``:
distances that are equal on every device. ``protocols``: single-shot and multi-shot scores. ``neighbours``:
the nearest neighbours of every image, for re-ranking.
"""

from reidlib.ranking.metrics import Embeddings, Scores, evaluate, pool_multi_query

__all__ = ["Embeddings", "Scores", "evaluate", "pool_multi_query"]
