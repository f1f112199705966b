"""The figure of a learnt metric."""

import numpy as np
import pytest

from reidlib.visual.figures.metrics import learnt_metric


@pytest.mark.usefixtures("styled_figures")
def test_directions_fall_and_parts_stand_from_the_top():
    weights = np.diag([1.0, 3.0, 2.0])
    shares = {"L2": {"head": 0.5, "legs": 0.5}, "XQDA": {"head": 0.2, "legs": 0.8}}
    figure = learnt_metric(weights, np.array([1, -1, 1]), shares, part="stripe")
    left, right = figure.axes
    added, subtracted = left.get_lines()
    assert added.get_xydata().tolist() == [[2, 4], [3, 1]] and subtracted.get_xydata().tolist() == [[1, 9]]
    assert right.yaxis_inverted() and [label.get_text() for label in right.get_yticklabels()] == [
        "head",
        "legs",
    ]
    plain, learnt = right.get_lines()
    assert plain.get_xdata().tolist() == [50, 50]
    assert learnt.get_xdata() == pytest.approx([20, 80])
