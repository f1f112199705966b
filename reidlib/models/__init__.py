"""The papers' networks, each whole in a module of its own."""

from reidlib.models.jlml import JLML
from reidlib.models.pyramid import Pyramid

__all__ = ["JLML", "Pyramid"]
