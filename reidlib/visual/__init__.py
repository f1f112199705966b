"""What is seen: figures, part attention, the ranking browser. Here is the look that they share.

Colours are safe for colour-blind readers.
"""

from __future__ import annotations

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
    import seaborn as sns  # takes half a second, and only who draws needs it

    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette=PALETTE,
        rc={
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "axes.titleweight": "bold",
            "axes.labelsize": 10,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.fontsize": 9,
            "legend.frameon": False,
            "grid.color": "#E5E5E5",
            "figure.constrained_layout.use": True,
        },
    )
