"""The figure of verdicts by seeds: what any one seed, any three and all seeds say of each claim."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from reidlib.analysis.claims import FAILS, HOLDS, NO_DIFFERENCE, NO_EXPERIMENT, SIGNS, UNDECIDED, Claim
from reidlib.analysis.claims.seed_subsets import lines_by_claim
from reidlib.analysis.statistics import NO_BREAK_SPACE, format_difference
from reidlib.errors import count_noun
from reidlib.visual import BLUE, GREY, INK, RED

# Face, pattern and colour of the text of each outcome, from "holds" to "does not hold". Without colours they
# are dark, white, light and hatched.
_LOOKS = {
    HOLDS: (BLUE, "", "white"),
    NO_DIFFERENCE: ("white", "", INK),
    UNDECIDED: ("#D9D9D9", "", INK),
    FAILS: (RED, "////", INK),
}
_BRIEF = {NO_DIFFERENCE: "no difference", UNDECIDED: "undecided"}  # on a bar, beside the legend
_NUMBERS = {1: "any one seed", 3: "any three seeds"}
_WHOLE = "all seeds"
_HEIGHT = 0.86  # of a bar
_GROUP = len(_NUMBERS) + 1  # bars of a claim
_STEP = _GROUP + 0.7  # from the first bar of a claim to that of the next
_MARGIN = -88  # where the names of claims end, in points from the bars
_NARROWEST = 0.09  # share of a bar's width that holds a sign and a number


def verdict_bars(frame: pd.DataFrame, claims: Iterable[Claim], title: str) -> Figure:
    """Draw for each claim how its verdict depends on the number of seeds, with a panel for each benchmark.

    Of a claim's three bars, the first is divided by the verdicts from each single seed, the second by those
    from each three seeds; the third is the verdict from all. Beside the first stands for how many single
    seeds all differences are above zero, whatever their intervals, and for how many not.

    Args:
        frame: What ``analysis.claims.verdicts_by_seeds`` returns, with a choice of seeds for some claim.
            Benchmarks without any choice are left out.
        claims: The claims of the frame; their statements and the papers' differences stand beside the bars.
        title: The finding, above the figure.

    Returns:
        The figure.
    """
    groups = lines_by_claim(frame)
    benchmarks = dict.fromkeys(
        benchmark for (benchmark, _), lines in groups.items() if any(line["size"] > 1 for line in lines)
    )
    names = list(dict.fromkeys(name for benchmark, name in groups if benchmark in benchmarks))
    notes = {claim.name: _note(claim) for claim in claims}
    size = 3.6 + 3.3 * len(benchmarks), 0.18 * _STEP * len(names) + 1.5
    figure, grid = plt.subplots(1, len(benchmarks), figsize=size, squeeze=False, sharey=True)
    for axes, benchmark in zip(grid[0], benchmarks, strict=True):
        for place, name in enumerate(names):
            if (benchmark, name) in groups:
                _draw_claim(axes, place * _STEP, groups[benchmark, name])
            if place:
                axes.axhline(place * _STEP - (_STEP - _GROUP + 1) / 2, color="#CCCCCC", linewidth=0.8)
        axes.set(title=benchmark, xlabel="share of the choices of seeds (%)", xlim=(0, 1))
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
        axes.grid(visible=False)
        axes.annotate(
            "all differences\nabove zero,\none seed", (1.03, -0.75), xycoords=("axes fraction", "data"),
            va="bottom", fontsize=8, annotation_clip=False,
        )  # fmt: skip
    axes = grid[0][0]
    places = [place * _STEP + bar for place in range(len(names)) for bar in range(_GROUP)]
    axes.set_yticks(places, [*_NUMBERS.values(), _WHOLE] * len(names), fontsize=8)
    axes.set_ylim(places[-1] + 0.7, -0.7)
    for place, name in enumerate(names):
        _name_claim(axes, place * _STEP, name, notes[name])
    handles = [
        Patch(facecolor=face, hatch=hatch, edgecolor=INK, linewidth=0.6, label=f"{SIGNS[word]} {word}")
        for word, (face, hatch, _) in _LOOKS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    figure.suptitle(textwrap.fill(title, round(9 * size[0])), fontsize=12, fontweight="bold")
    return figure


def _draw_claim(axes: Axes, top: float, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draw the bars of a claim on a benchmark, the first of them at ``top``."""
    (whole,) = (line for line in lines if line["whole"])
    if not whole["size"]:
        text = NO_EXPERIMENT if whole["outcome"] == NO_EXPERIMENT else "no seed in all rows"
        axes.text(0.02, top + 1, text, va="center", fontsize=8, color=INK)
        return
    seeds = count_noun(whole["size"], "seeds")
    for bar, size in enumerate(_NUMBERS):
        outcomes = [line["outcome"] for line in lines if line["size"] == size and not line["whole"]]
        if outcomes:
            _draw_bar(axes, top + bar, outcomes)
        else:
            text = f"no choice: {seeds} in all"
            axes.text(0.02, top + bar, text, va="center", fontsize=7.5, color=GREY)
    _draw_bar(axes, top + _GROUP - 1, [whole["outcome"]], f" with {seeds}")
    signs = [line["sign"] for line in lines if line["size"] == 1]
    counts = {word: signs.count(word) for word in (HOLDS, FAILS)}
    words = zip(("yes", "no"), counts.values(), strict=True)
    text = "  ".join(f"{word} {count}" for word, count in words if count)
    axes.annotate(
        text, (1.03, top),
        xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False,
    )  # fmt: skip


def _draw_bar(axes: Axes, y: float, outcomes: Sequence[str], seeds: str = "") -> None:
    """Draw a bar, divided by the outcomes; ``seeds`` is written on that of all seeds."""
    left = 0.0
    for word, (face, hatch, ink) in _LOOKS.items():
        if not (count := outcomes.count(word)):
            continue
        share = count / len(outcomes)
        edge = INK if word == NO_DIFFERENCE else "white"
        axes.barh(y, share, _HEIGHT, left, color=face, hatch=hatch, edgecolor=edge, linewidth=0.6)
        if share > _NARROWEST:
            text = f"{SIGNS[word]} {_BRIEF.get(word, word) + seeds if seeds else count}"
            axes.text(
                left + share / 2, y, text, ha="center", va="center", fontsize=8, color=ink,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5} if hatch else None,
            )  # fmt: skip
        left += share


def _name_claim(axes: Axes, top: float, name: str, note: str) -> None:
    """Write a claim's name and note left of the labels of its bars."""
    place: dict[str, Any] = {
        "xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right",
        "annotation_clip": False,
    }  # fmt: skip
    axes.annotate(name, (0, top), (_MARGIN, 0), va="center", fontsize=9, fontweight="bold", **place)
    axes.annotate(note, (0, top + 0.5), (_MARGIN, 0), va="top", fontsize=7.5, linespacing=1.15, **place)


def _note(claim: Claim) -> str:
    """Return a claim's statement and the differences that the paper prints for it, over several lines."""
    printed = [contrast.printed for contrast in claim.contrasts if contrast.printed is not None]
    ends = dict.fromkeys(format_difference(end) for end in (min(printed), max(printed))) if printed else ()
    paper = f"The paper: {' to '.join(ends)} points.".replace(" ", NO_BREAK_SPACE) if ends else ""
    return textwrap.fill(f"{claim.statement} {paper}", 44)
