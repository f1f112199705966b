"""Figures, part attention and the ranking browser, with the colours and the style that they share.

All colours can be told apart by colour-blind readers.
"""

from __future__ import annotations

from pathlib import Path

# Okabe and Ito's palette. A colour has the same meaning in every figure, and a symbol or a word repeats it.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#777777",
)  # fmt: skip
INK = "#222222"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, GREY)
STATUS = {
    "match": (BLUE, "✓ match"),
    "other": (RED, "✗ other"),
    "distractor": (PURPLE, "– distractor"),
    "ignored": (GREY, "○ ignored"),
}


def set_style() -> None:
    """Set the defaults of seaborn and matplotlib, for the whole process, to the style of this suite."""
    # A light grid, no frame, the colours of PALETTE, and text that stays readable in a report's column.
    import matplotlib.pyplot as plt  # imported here: it takes half a second, and only drawing needs it
    import seaborn as sns

    plt.style.use("default")  # whatever the user's matplotlibrc says
    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    plt.style.use(Path(__file__).with_name("look.mplstyle"))
