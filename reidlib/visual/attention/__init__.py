"""Maps of what supports the similarity of two images, part by part, and a test of these maps."""

from reidlib.visual.attention import deletion, figures, maps, pairs

__all__ = ["deletion", "figures", "maps", "pairs"]
