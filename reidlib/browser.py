"""The ranking browser under a short name; ``reidlib.visual.browser`` implements it."""

from reidlib.visual.browser import RankingBrowser, front_end_present

__all__ = ["RankingBrowser", "front_end_present"]
