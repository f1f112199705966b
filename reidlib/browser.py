"""The ranking browser by its short name; it lives in ``reidlib.visual.browser``."""

from reidlib.visual.browser import RankingBrowser, front_end_present

__all__ = ["RankingBrowser", "front_end_present"]
