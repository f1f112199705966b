"""The papers' networks, each whole in a module of its own.

``jlml`` and ``pyramid`` the networks · ``residual`` the layers that both are built from, ImageNet's weights
included · ``parts`` what a part of the body is, without torch.
"""

from importlib import import_module

__all__ = ["JLML", "Pyramid"]

_MODULES = {"JLML": "jlml", "Pyramid": "pyramid"}


def __getattr__(name: str):
    """A network, loaded with its first use: ``parts`` is looked at where torch is not."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
