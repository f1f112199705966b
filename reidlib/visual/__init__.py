"""What is seen: figures, part attention, the ranking browser. Here is the look that they share.

Colours are safe for colour-blind readers.
"""

from __future__ import annotations

from pathlib import Path

# Okabe and Ito's palette. A meaning keeps its colour in every figure; a sign or word always stands beside it.
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
    """The suite's look: a light grid, no box, text sizes that survive a report's column."""
    import matplotlib.pyplot as plt  # they take half a second, and only who draws needs them
    import seaborn as sns

    sns.set_theme(context="notebook", style="whitegrid", palette=PALETTE)
    plt.style.use(Path(__file__).with_name("look.mplstyle"))
