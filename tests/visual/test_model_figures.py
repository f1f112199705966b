"""Figures of models, checked by what their axes contain."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from reidlib.models.parts import pyramid_parts
from reidlib.visual.figures import models, scores

pytestmark = pytest.mark.usefixtures("styled_figures")

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("levels", [None, (6,), (1, 6)])
def test_each_part_is_framed_at_its_position(levels):
    parts = pyramid_parts(6, levels)
    figure = models.part_pictures(IMAGE, parts, 6)
    assert len(figure.axes) == len(parts)
    for axes, part in zip(figure.axes, parts, strict=True):
        (frame,) = axes.patches
        assert frame.get_y() == 16 * part.first - 0.5
        assert frame.get_height() == 16 * part.level
        image = axes.images[0].get_array()
        inside = slice(16 * part.first, 16 * part.stop)
        assert (image[inside] == IMAGE[inside]).all()
        outside = np.delete(image, np.r_[inside], axis=0)
        assert outside.size == 0 or outside.min() > 180  # pale
        edges = axes.get_position().extents
        assert (edges >= 0).all()
        assert (edges <= 1).all()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == [f"level {level}" for level in levels or range(1, 7)]


def test_each_local_stream_is_drawn_where_it_lies():
    (axes,) = models.local_stream_stripes(IMAGE, 4).axes
    assert [text.get_text() for text in axes.texts] == [f"local stream {part}" for part in (1, 2, 3, 4)]
    assert [(box.get_y(), box.get_height()) for box in axes.patches] == [
        (24 * part - 0.5, 24) for part in range(4)
    ]


def test_bars_do_not_overlap():
    figure = models.part_diagrams(IMAGE, {"six": (pyramid_parts(6), 6), "whole": (pyramid_parts(1), 1)})
    six, whole = (axes.patches for axes in figure.axes)
    assert (len(six), len(whole)) == (21, 1)
    boxes = [bar.get_bbox() for bar in six]
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])
    assert boxes[-1].xmax <= figure.axes[0].get_xlim()[1]


def test_pyramids_are_three_per_row_with_lines_only_at_the_ends_of_parts():
    pyramids = {"six": (pyramid_parts(6), 6), "whole": (pyramid_parts(6, (6,)), 6)}
    pyramids |= {f"{count}": (pyramid_parts(count), count) for count in (2, 3)}
    axes = models.part_diagrams(IMAGE, pyramids).axes
    assert len(axes) == 4
    assert [panel.get_subplotspec().rowspan.start for panel in axes] == [0, 0, 0, 1]
    cuts = [[path[0, 1] for path in panel.collections[0].get_segments()] for panel in axes]
    assert cuts == [[15.5, 31.5, 47.5, 63.5, 79.5], [], [47.5], [31.5, 63.5]]


def test_every_stripe_has_a_bar_beside_the_image():
    stripes = {"2 parts": ((0, 16), (16, 32)), "3 parts": ((0, 11), (10, 21), (21, 32))}
    panels = models.stripe_diagrams(IMAGE, stripes, 32).axes
    assert [len(axes.patches) for axes in panels] == [2, 3]
    # Bars of neighbouring stripes, which may share rows, are in different columns.
    first, second, third = (bar.get_x() for bar in panels[1].patches)
    assert first == third != second
    height = IMAGE.shape[0]
    assert panels[0].patches[1].get_y() == height / 2


def test_levels_have_the_same_colours_in_all_figures():
    colours = {name: models.kind_colour(name) for name in ("full", *(f"level {n}" for n in range(1, 7)))}
    assert len(set(colours.values())) == 7
    curves = {name: {1: 0.0, 5: 0.5} for name in colours}
    lines = scores.cmc_curves(curves, colours).axes[0].lines
    assert {line.get_label(): to_hex(line.get_color()) for line in lines} == {
        name: colour.lower() for name, colour in colours.items()
    }


def test_operations_are_drawn_in_both_conventions_with_the_printed_points():
    counts = {"small": (7.1e6, 0.77e9), "large": (134e6, 15.5e9)}
    figure = models.operations_plot(counts, {"small": (7.2e6, 1.54e9)})
    (axes,) = figure.axes
    points = {scatter.get_label(): scatter.get_offsets().tolist() for scatter in axes.collections}
    assert points == {
        "counted, multiply-adds": [[7.1, 0.77], [134, 15.5]],
        "counted, two operations each": [[7.1, 1.54], [134, 31]],
        "printed": [[7.2, 1.54]],
    }
    figure.canvas.draw()
    inside = axes.get_window_extent()
    for text in axes.texts:
        extent = text.get_window_extent()
        assert text.get_text() in counts
        assert inside.contains(*extent.p0)
        assert inside.contains(*extent.p1)


@pytest.mark.parametrize("rows", [1, 6])
def test_names_of_stripes_stay_below_the_title_however_many_rows_there_are(rows):
    norms = np.linspace(0.1, 1, 8).reshape(4, 2)
    figure = models.input_unit_norms(
        {"local layers, all stripes (exclusive)": {f"row {n}": norms for n in range(rows)}}, threshold=0.01
    )
    figure.canvas.draw()
    axes = figure.axes[0]
    title = next(
        text for text in axes.get_children() if getattr(text, "get_text", str)() == axes.get_title("left")
    )
    top = max(text.get_window_extent().y1 for text in axes.texts)
    assert axes.get_window_extent().y1 <= min(text.get_window_extent().y0 for text in axes.texts)
    assert top <= title.get_window_extent().y0
