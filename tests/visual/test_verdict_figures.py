"""The figure of verdicts by seeds: divided bars, honest gaps, no clipped text."""

import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Rectangle

from reidlib.analysis.claims import CLAIMS as ALL_CLAIMS
from reidlib.analysis.claims import (
    FAILS,
    HOLDS,
    NO_DIFFERENCE,
    NO_EXPERIMENT,
    SIGNS,
    UNDECIDED,
    Claim,
    Contrast,
)
from reidlib.analysis.scores import Cell
from reidlib.reports.pages.summary import _LARGEST_FIGURE
from reidlib.reports.result import Result
from reidlib.visual import BLUE, RED
from reidlib.visual.figures.verdicts import _LOOKS, verdict_bars

pytestmark = pytest.mark.usefixtures("styled_figures")

COLUMNS = ["benchmark", "paper", "claim", "size", "seeds", "whole", "outcome", "sign"]


def lines(benchmark, claim, one, three, whole, signs=()):
    """Lines of a frame with these outcomes from one seed and from three; ``whole``: number and outcome."""
    signs = signs or [HOLDS] * len(one)
    parts = [
        *((1, False, *pair) for pair in zip(one, signs, strict=True)),
        *((3, False, o, None) for o in three),
    ]
    parts.append((whole[0], True, whole[1], HOLDS if whole[0] == 1 else None))
    return [(benchmark, "JLML", claim, size, (), is_whole, o, sign) for size, is_whole, o, sign in parts]


CLAIMS = [
    Claim(
        name,
        "JLML",
        "A claim in a sentence that is long enough for more than one line beside its bars.",
        "",
        "",
        tuple(
            Contrast(f"{n}", (Cell("jlml"),), (Cell("jlml-2"),), printed=value)
            for n, value in enumerate(printed)
        ),
    )
    for name, printed in {"ten seeds": (1.1, None, 5.1), "three seeds": (13.3,), "no runs": (None,)}.items()
]
LINES = [
    *lines("rendered people", "ten seeds", [HOLDS] * 4 + [UNDECIDED] * 3 + [FAILS] * 2 + [NO_DIFFERENCE],
           [HOLDS] * 30 + [UNDECIDED] * 89 + [FAILS], (10, NO_DIFFERENCE), [HOLDS] * 7 + [FAILS] * 3),
    *lines("rendered people", "three seeds", [FAILS] * 3, [], (3, UNDECIDED), [FAILS] * 3),
    *lines("rendered people", "no runs", [], [], (0, UNDECIDED)),
    *lines("photographs", "ten seeds", [HOLDS] * 3, [], (3, HOLDS)),
    *lines("photographs", "three seeds", [], [], (1, HOLDS)),
    *lines("photographs", "no runs", [], [], (0, NO_EXPERIMENT)),
    *lines("one seed alone", "ten seeds", [], [], (1, HOLDS)),
]  # fmt: skip
FRAME = pd.DataFrame(LINES, columns=COLUMNS)
TITLE = "One training of each network gives another verdict than all trainings in 37 % of cases"


def bars(axes, y):
    """Face and width of each part of the bar at a height, from left to right."""
    parts = [
        p for p in axes.patches if isinstance(p, Rectangle) and abs(p.get_y() + p.get_height() / 2 - y) < 0.1
    ]
    return [(to_hex(p.get_facecolor()).upper(), round(p.get_width(), 3)) for p in parts]


def texts(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_bars_are_divided_by_the_outcomes_of_the_choices():
    rendered, photographs = verdict_bars(
        FRAME, CLAIMS, TITLE
    ).axes  # a benchmark without a choice is left out
    assert (rendered.get_title(), photographs.get_title()) == ("rendered people", "photographs")
    white, grey = "#FFFFFF", "#D9D9D9"
    assert bars(rendered, 0) == [(BLUE, 0.4), (white, 0.1), (grey, 0.3), (RED, 0.2)]
    assert bars(rendered, 1) == [(BLUE, 0.25), (grey, 0.742), (RED, 0.008)]
    assert bars(rendered, 2) == [(white, 1.0)]
    assert bars(photographs, 0) == [(BLUE, 1.0)]
    assert bars(photographs, 1) == []


def test_numbers_of_choices_and_of_signs_are_written_beside_the_bars():
    rendered, photographs = verdict_bars(FRAME, CLAIMS, TITLE).axes
    shown = texts(rendered)
    assert {"✓ 4", "= 1", "? 3", "✗ 2", "✓ 30", "? 89", "= no difference with 10 seeds"} <= set(shown)
    assert "✗ 1" not in shown  # of 120, too narrow
    assert {"yes 7  no 3", "no 3"} <= set(shown)
    assert "? undecided with 3 seeds" in shown
    assert shown.count("no choice: 3 seeds in all") == 1 and shown.count("no seed in all rows") == 1
    assert texts(photographs).count("no choice: 1 seed in all") == 2
    assert NO_EXPERIMENT in texts(photographs) and "✓ holds with 1 seed" in texts(photographs)


def test_claims_are_named_with_their_statement_and_the_papers_differences():
    figure = verdict_bars(FRAME, CLAIMS, TITLE)
    shown = [text.replace("\n", " ").replace("\u00a0", " ") for text in texts(figure.axes[0])]
    statement = CLAIMS[0].statement
    assert {"ten seeds", "three seeds", "no runs"} <= set(shown)
    notes = [text for text in shown if text.startswith(statement)]
    assert notes == [
        f"{statement} The paper: +1.1 to +5.1 points.",
        f"{statement} The paper: +13.3 points.",
        statement,
    ]
    assert figure.get_suptitle() == TITLE
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"{SIGNS[word]} {word}" for word in (HOLDS, NO_DIFFERENCE, UNDECIDED, FAILS)
    ]


def test_no_text_is_clipped_or_lies_on_another():
    for lines_shown in (
        LINES,
        [line for line in LINES if line[0] == "rendered people"],
    ):  # both benchmarks, rendered people
        figure = verdict_bars(pd.DataFrame(lines_shown, columns=COLUMNS), CLAIMS, TITLE)
        figure.canvas.draw()
        for axes in figure.axes:
            boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
            boxes += [tick.get_window_extent() for tick in axes.get_yticklabels() if tick.get_visible()]
            boxes.append(axes.title.get_window_extent())
            boxes = [box.shrunk(0.98, 0.9) for box in boxes if box.width > 1]
            for one, box in enumerate(boxes):
                assert not any(box.overlaps(other) for other in boxes[:one]), (one, box)
                assert box.x0 >= -1 and box.y0 >= -1, box
                assert box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1, box


def test_outcomes_differ_without_colours():
    looks = [(sum(to_rgb(face)) / 3, hatch) for face, hatch, _ in _LOOKS.values()]
    for one, (brightness, hatch) in enumerate(looks):
        for other_brightness, other_hatch in looks[:one]:
            assert hatch != other_hatch or abs(brightness - other_brightness) > 0.1


def test_the_largest_figure_is_small_enough_for_the_summary(tmp_path):
    """With ten seeds and every outcome in every bar; a larger file would silently not be shown."""
    words = [HOLDS, NO_DIFFERENCE, UNDECIDED, FAILS]
    decidable = [claim for claim in ALL_CLAIMS if claim.contrasts]
    many = [
        line
        for benchmark in ("rendered people", "photographs")
        for claim in decidable
        for line in lines(
            benchmark, claim.name, [*words, *words, HOLDS, FAILS], words * 30, (10, FAILS), [HOLDS, FAILS] * 5
        )
    ]
    figure = verdict_bars(pd.DataFrame(many, columns=COLUMNS), decidable, TITLE)
    Result("large", out=tmp_path, profile="quick").figure(figure, "seeds", caption="c", alt="a")
    assert (tmp_path / "seeds.png").stat().st_size < _LARGEST_FIGURE
