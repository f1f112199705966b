"""Body parts, the part table of a pyramid and the checks of its settings; works without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from reidlib.errors import InputError, check_choice

PYRAMID_STRIDE = 16  # input rows per row of the map
_MOST_STRIPES = 256  # the number of parts grows with the square
JLML_TRUNKS = ("resnet39", "resnet50")
PYRAMID_TRUNKS = (*JLML_TRUNKS, "resnet101")


class FeaturePart(NamedTuple):
    """A body part and its columns of the matching feature."""

    # Each column belongs to exactly one part, so the squared distances of the parts add up to the squared
    # distance of the whole features.
    name: str  # "local 2", "stripes 2–4"
    kind: str  # parts of one kind differ only in their position: "local", "level 3"
    columns: slice
    rows: tuple[float, float]  # top and bottom of the part, as shares of the image's height


class Part(NamedTuple):
    """Neighbouring stripes of a pyramid, counted from the top: ``first`` to ``stop - 1``."""

    first: int
    stop: int

    @property
    def level(self) -> int:
        """Return the number of stripes in the part: 1 is the finest level, all stripes are the whole body."""
        return self.stop - self.first


def pyramid_parts(stripes: int, levels: Sequence[int] | None = None) -> tuple[Part, ...]:
    """List the parts of a pyramid, fine to coarse and top to bottom.

    Args:
        stripes: Number of horizontal stripes (n).
        levels: Levels to use, from 1 to n, without repetition. None means all, n(n+1)/2 parts. Level ℓ
            has n−ℓ+1 parts of ℓ neighbouring stripes.

    Raises:
        InputError: If there are no stripes or too many, or the levels are empty, outside 1 to n, or repeated.
    """
    if type(stripes) is not int or not 1 <= stripes <= _MOST_STRIPES:
        rule = f"a pyramid has at least one whole stripe, at most {_MOST_STRIPES}"
        raise InputError(rule, f"stripes={stripes!r}", "use 6, as the released code")
    if levels is None:
        levels = range(1, stripes + 1)
    if not (isinstance(levels, Sequence) and all(type(level) is int for level in levels)):
        rule = "levels are a sequence of whole numbers: the stripes per part"
        mend = "write [1, 6], on papermill's command line -y 'levels: [1, 6]'"
        raise InputError(rule, repr(levels), mend)
    requested = tuple(levels)
    if not requested:
        raise InputError("levels select at least one part", "levels=()", f"name some of 1 to {stripes}")
    if min(requested) < 1 or max(requested) > stripes:
        rule = f"the levels of {stripes} stripes are 1 to {stripes}"
        raise InputError(rule, f"levels={requested}", "remove the other levels, or use more stripes")
    if len(set(requested)) < len(requested):
        raise InputError("each level counts once", f"levels={requested}", "remove the repetition")
    return tuple(
        Part(first, first + level) for level in sorted(requested) for first in range(stripes - level + 1)
    )


def map_height(input_height: int) -> int:
    """Return the rows of the trunk's map for images of ``input_height`` rows; every stride rounds up."""
    return -(-input_height // PYRAMID_STRIDE)


def check_input_height(input_height: int, stripes: int) -> None:
    """Raise InputError, naming heights that fit, if the stripes do not divide the map of such images."""
    rows = map_height(input_height)
    if rows >= stripes and rows % stripes == 0:
        return
    below = rows - rows % stripes
    heights = [str(PYRAMID_STRIDE * height) for height in (below, below + stripes) if height > 0]
    raise InputError(
        f"stripes divide the map's height (input height / {PYRAMID_STRIDE})",
        f"an input height of {input_height}: {rows} rows for {stripes} stripes",
        f"use a height of {' or '.join(heights)}",
    )


def check_trunk(trunk: str, trunks: Sequence[str], weights: str | None, widths: Mapping[str, float]) -> None:
    """Raise InputError for an unknown trunk, or for weights or a width that do not exist for it."""
    check_choice(f"trunk is one of {', '.join(trunks)}", trunk, trunks)
    if weights is not None and (weights != "imagenet" or trunk == "resnet39"):
        rule = "pretrained weights exist only for torchvision's trunks, as weights='imagenet'"
        mend = f"write weights=None, or 'imagenet' with {' or '.join(trunks[1:])}"  # the first is resnet39
        raise InputError(rule, f"trunk={trunk!r}, weights={weights!r}", mend)
    for name, width in widths.items():
        if not 0 < width <= 64 or (trunk != "resnet39" and width != 1):
            rule = f"{name} is a positive factor on resnet39's channels, 64 or less, and 1 for other trunks"
            mend = f"use {name}=1, which fits every trunk"
            raise InputError(rule, f"{name}={width} with trunk={trunk!r}", mend)


def check_jlml(
    trunk: str, weights: str | None, width: float, local_width: float, parts: int, feature_size: int
) -> None:
    """Raise InputError if settings of a ``JLML`` are out of range or contradict each other."""
    check_trunk(trunk, JLML_TRUNKS, weights, {"width": width, "local_width": local_width})
    if not 1 <= parts <= feature_size:
        value = f"parts={parts}, feature_size={feature_size}"
        raise InputError("each part has at least one value of the local feature", value, "use 4 and 512")


def check_pyramid(
    trunk: str, weights: str | None, width: float, embedding_size: int, dropout: float, normalisation: str
) -> None:
    """Raise InputError if settings of a ``Pyramid`` are out of range or contradict each other."""
    check_trunk(trunk, PYRAMID_TRUNKS, weights, {"width": width})
    if embedding_size < 1:
        rule = "a part's feature has at least one number"
        raise InputError(rule, f"embedding_size={embedding_size}", "use 1 or more")
    if not 0 <= dropout < 1:
        raise InputError("dropout is a share from 0 to below 1", f"dropout={dropout}", "use 0.2 or 0")
    check_choice("normalisation is none, part or whole", normalisation, ("none", "part", "whole"))
