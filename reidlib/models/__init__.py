"""The two papers' networks, one module each.

``jlml`` and ``pyramid`` hold the networks. ``residual`` holds the layers that both use and loads ImageNet
weights. ``parts`` describes body parts and works without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reidlib.models.jlml import JLML
    from reidlib.models.pyramid import Pyramid

__all__ = ["JLML", "Pyramid"]


def __getattr__(name: str):
    """Import a network on first use, so that ``parts`` can be imported without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.lower()}"), name)
