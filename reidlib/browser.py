"""The ranking browser under a short name; ``reidlib.visual.browser`` implements it."""

from reidlib.visual.browser import RankingBrowser, has_front_end

__all__ = ["RankingBrowser", "has_front_end"]
