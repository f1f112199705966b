"""The two papers' networks, one module each.

``jlml`` and ``pyramid`` hold the networks. ``residual`` holds the layers that both use and loads ImageNet
weights. ``parts`` describes body parts and works without torch.
"""

from importlib import import_module

__all__ = ["JLML", "Pyramid"]

_MODULES = {"JLML": "jlml", "Pyramid": "pyramid"}


def __getattr__(name: str):
    """Import a network on first use, so that ``parts`` can be imported without torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
