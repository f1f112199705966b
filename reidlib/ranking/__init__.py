"""Features to ranked lists and scores; it never sees a model.

``metrics`` CMC, mAP, mINP of features or of any distances, ranked lists, multi-query · ``distances`` the same
on every device, and how many lie within them · ``protocols`` single-shot and multi-shot scores ·
``neighbours`` every image's nearest, for re-ranking.
"""

from reidlib.ranking.metrics import Embeddings, Scores, evaluate, pool_multi_query

__all__ = ["Embeddings", "Scores", "evaluate", "pool_multi_query"]
