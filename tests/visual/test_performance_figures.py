"""Figures of speed, checked by what their axes contain."""

import pandas as pd
import pytest

from reidlib.visual.figures import performance


@pytest.mark.usefixtures("styled_figures")
def test_a_point_of_the_roofline_says_its_share():
    figure = performance.roofline((1e12, 5e10), {"slow": (10, 1e11), "fast": (40, 5e11)})
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["slow: 100 GFLOP/s, 20 % of the roof", "fast: 500 GFLOP/s, 50 % of the roof"]
    (x, y) = axes.lines[0].get_data()
    assert list(x)[1] == 20 and list(y)[1:] == [1000, 1000]  # the bend


@pytest.mark.usefixtures("styled_figures")
def test_growth_has_a_line_for_each_action_and_one_in_proportion():
    figure = performance.growth_plot(pd.DataFrame({"a": [1.0, 4.0], "b": [2.0, 3.0]}, index=[10, 40]))
    *lines, proportion = figure.axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[1, 4], [2, 3]]
    low, high = proportion.get_ydata()
    assert high == pytest.approx(4 * low) and low < 1


@pytest.mark.usefixtures("styled_figures")
def test_ratios_are_bars_from_one():
    figure = performance.ratio_bars({"time": [("x", 10.0), ("y", 0.5)], "memory": [("x", 2.0)]})
    time, memory = figure.axes
    assert [bar.get_width() for bar in time.patches] == [9, -0.5]
    assert all(bar.get_x() == 1 for bar in (*time.patches, *memory.patches))
    assert [text.get_text() for text in time.get_yticklabels()] == ["x", "y"]
    assert {text.get_text() for text in time.texts} == {"10 ×", "0.5 ×"}
    low, high = time.get_xlim()
    assert low < 0.5 and high > 10
