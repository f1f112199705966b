"""What a part of the body is, which parts a pyramid has and which settings fit them; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from reidlib.errors import InputError, check_choice

PYRAMID_STRIDE = 16  # input rows for a row of the map
PYRAMID_TRUNKS = ("resnet39", "resnet50", "resnet101")


class FeaturePart(NamedTuple):
    """A part of the body and its columns of the matching feature.

    The parts of a network share out the columns, so that the squared distances of two images' parts add up
    to that of their whole features.
    """

    name: str  # "local 2", "stripes 2–4"
    kind: str  # parts of one kind are alike but for their place: "local", "level 3"
    columns: slice
    rows: tuple[float, float]  # where the part begins and ends, as shares of the image's height


class Part(NamedTuple):
    """A stretch of neighbouring stripes, counted from the top: ``first`` to ``stop - 1``."""

    first: int
    stop: int

    @property
    def level(self) -> int:
        """Stripes that the part covers: 1 is the finest level, all stripes are the whole body."""
        return self.stop - self.first


def pyramid_parts(stripes: int, levels: Sequence[int] | None = None) -> tuple[Part, ...]:
    """The parts of a pyramid over ``stripes`` stripes, fine to coarse and top to bottom.

    levels: the levels to take (1 to ``stripes``), or None for all, which are n(n+1)/2 parts. Level ℓ has
    the n−ℓ+1 parts of ℓ neighbouring stripes.
    Raises InputError for levels that select nothing, lie outside the pyramid or repeat.
    """
    if type(stripes) is not int or stripes < 1:
        raise InputError(
            "a pyramid stands on at least one whole stripe", f"stripes={stripes!r}", "use 1 or more"
        )
    if levels is not None and not (
        isinstance(levels, Sequence) and all(type(level) is int for level in levels)
    ):
        raise InputError(
            "levels are a sequence of whole numbers, how many stripes the parts cover",
            repr(levels),
            "write (1, 6), on papermill's command line -y 'levels: [1, 6]'",
        )
    chosen = range(1, stripes + 1) if levels is None else sorted(levels)
    if not chosen:
        raise InputError(
            "levels select at least one part", f"levels={levels}", f"name some of 1 to {stripes}"
        )
    if chosen[0] < 1 or chosen[-1] > stripes:
        raise InputError(
            f"the levels of {stripes} stripes are 1 to {stripes}",
            f"levels={tuple(levels)}",
            "leave out those beyond, or use more stripes",
        )
    if len(set(chosen)) < len(chosen):
        raise InputError("each level counts once", f"levels={tuple(levels)}", "leave out the repetition")
    return tuple(Part(first, first + level) for level in chosen for first in range(stripes - level + 1))


def map_height(input_height: int) -> int:
    """Rows of the trunk's map for images of ``input_height`` rows: every stride rounds up."""
    return -(-input_height // PYRAMID_STRIDE)


def check_input_height(input_height: int, stripes: int) -> None:
    """Raise InputError where ``stripes`` do not divide the map of images of ``input_height`` rows.

    The message names the nearest heights that fit.
    """
    rows = map_height(input_height)
    if rows >= stripes and rows % stripes == 0:
        return
    below = rows - rows % stripes
    fitting = [str(PYRAMID_STRIDE * height) for height in (below, below + stripes) if height > 0]
    raise InputError(
        f"stripes divide the map's height (input height / {PYRAMID_STRIDE})",
        f"an input height of {input_height}: {rows} rows for {stripes} stripes",
        f"use a height of {' or '.join(fitting)}",
    )


def check_settings(
    trunk: str, weights: str | None, width: float, embedding_size: int, dropout: float, normalisation: str
) -> None:
    """Raise InputError where settings of a ``Pyramid`` contradict each other or make no sense."""
    check_choice(f"trunk is one of {', '.join(PYRAMID_TRUNKS)}", trunk, PYRAMID_TRUNKS)
    if weights is not None and (weights != "imagenet" or trunk == "resnet39"):
        raise InputError(
            "pretrained weights exist for torchvision's trunks as weights='imagenet'",
            f"trunk={trunk!r}, weights={weights!r}",
            "use resnet50 or resnet101 with 'imagenet', or weights=None",
        )
    if not width > 0 or (trunk != "resnet39" and width != 1):
        raise InputError(
            "width is a positive factor on resnet39's channels, and 1 for torchvision's trunks",
            f"width={width} with trunk={trunk!r}",
            "change width or trunk",
        )
    if embedding_size < 1:
        raise InputError(
            "a part's feature has at least one number", f"embedding_size={embedding_size}", "use 1 or more"
        )
    if not 0 <= dropout < 1:
        raise InputError(
            "dropout is a share from 0 to below 1", f"dropout={dropout}", "use 0.2, or 0 for none"
        )
    check_choice("normalisation is none, part or whole", normalisation, ("none", "part", "whole"))
