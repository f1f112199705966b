"""Axes of the figures of rank-1, with made-up scores."""

import matplotlib.pyplot as plt
import pytest

from reidlib.experiments.protocol_study import Way
from reidlib.visual.figures import benchmarks as benchmark_plots
from reidlib.visual.figures.plots import set_style


@pytest.fixture(autouse=True)
def style():
    with plt.rc_context():
        set_style()
        yield
    plt.close("all")


def studies(*shares):
    jlml = [Way(f"way {place}", share / 100, (90, 90)) for place, share in enumerate(shares)]
    pyramid = [Way(way.name, min(way.rank1 + 0.01, 1), way.gallery) for way in jlml]
    return {"jlml": jlml, "pyramid": pyramid}


@pytest.mark.parametrize("smallest", [0.0, 1.7, 3.1, 3.9, 4.1, 5.0, 19.9, 20.0, 55.0, 94.0, 100.0])
def test_no_label_touches_the_axis_of_the_protocols(smallest):
    figure = benchmark_plots.protocols(studies(smallest, min(smallest + 15, 100.0)))
    figure.canvas.draw()
    (axes,) = figure.axes
    line = axes.spines["left"].get_window_extent().x1
    assert len(axes.texts) == 4
    assert min(text.get_window_extent().x0 for text in axes.texts) >= line + 2
    assert axes.texts[0].get_text() == f"{smallest:.1f}"
    # Nor does one touch another, although both rows' scores are nearly equal.
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(boxes[one].overlaps(boxes[other]) for one in range(4) for other in range(one))


@pytest.mark.parametrize(("smallest", "left"), [(0.0, 0), (5.0, 0), (19.9, 0), (20.0, 14), (90.0, 87.5)])
def test_rank1_begins_at_0_or_well_above_it(smallest, left):
    tables = {"one": {"row": (smallest, "paper"), "other": (95.0, "other")}, "two": {"jlml": (97.0, "jlml")}}
    for figure in (
        benchmark_plots.protocols(studies(smallest, 95.0)), benchmark_plots.printed_rank1(tables)
    ):  # fmt: skip
        assert figure.axes[0].get_xlim() == (left, 100)
