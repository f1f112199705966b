"""What supports the similarity of two images, part by part, and whether maps of it mean anything."""

from reidlib.visual.attention import deletion, figures, maps, pairs

__all__ = ["deletion", "figures", "maps", "pairs"]
