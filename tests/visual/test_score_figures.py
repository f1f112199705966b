"""Figures of scores draw every interval, marker and missing row, and clip nothing."""

import math

import numpy as np
import pytest

from reidlib.analysis.claims.agreement import Difference
from reidlib.analysis.scores import Spread
from reidlib.analysis.statistics import Interval
from reidlib.experiments.evaluate import ProtocolRank1
from reidlib.visual import BLUE, GREY, RED
from reidlib.visual.figures import benchmarks, models, scores

pytestmark = pytest.mark.usefixtures("styled_figures")

UP, DOWN, BOTH = Interval(2, 1, 3, 1, 9), Interval(-2, -3, -1, 1, 9), Interval(0.5, -1, 2, 1, 9)


def texts(axes):
    return [text.get_text() for text in axes.texts]


def check_no_text_is_clipped(figure):
    """Check that every text is within the figure."""
    figure.canvas.draw()
    whole = figure.bbox
    for axes in figure.axes:
        (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
        # A locator also creates ticks beyond the axes, which are not drawn.
        ticks = [tick for tick in axes.get_xticklabels() if left <= tick.get_position()[0] <= right]
        ticks += [tick for tick in axes.get_yticklabels() if low <= tick.get_position()[1] <= high]
        for text in [*axes.texts, axes.title, *ticks]:
            if text.get_text():
                box = text.get_window_extent()
                assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1, text
                assert box.y0 >= whole.y0 - 1 and box.y1 <= whole.y1 + 1, text


def test_position_relative_to_zero_sets_colour_and_marker():
    rows = {"up": UP, "down": DOWN, "both": BOTH, "lost": None}
    figure = scores.difference_plot({"R1": rows, "mAP": rows}, published={"R1": {"up": 2.5}}, groups=(2,))
    axes = figure.axes[0]
    points = {line.get_ydata()[0]: line for line in axes.lines if line.get_marker() in ("o", "X")}
    assert [(points[row].get_color(), points[row].get_marker()) for row in range(3)] == [
        (BLUE, "o"),
        (RED, "X"),
        (GREY, "o"),
    ]
    diamonds = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == [2.5]
    assert "+2.0 [+1.0, +3.0]" in texts(axes)
    assert "missing" in texts(axes)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == list(rows)
    assert axes.yaxis_inverted()
    assert "published by the paper" in [text.get_text() for text in figure.legends[0].get_texts()]
    check_no_text_is_clipped(figure)


def test_numbers_do_not_overlap_intervals():
    figure = scores.difference_plot({"mAP": {"wide": Interval(0, -30, 30, 1, 9), "narrow": UP}})
    axes = figure.axes[0]
    figure.canvas.draw()
    (number,) = [text for text in axes.texts if text.get_text().startswith("0.0 [")]
    assert number.get_window_extent().x0 > axes.transData.transform((30, 0))[0]
    check_no_text_is_clipped(figure)


def test_a_panel_of_only_missing_rows_can_be_drawn():
    check_no_text_is_clipped(scores.difference_plot({"R1": {"lost": None}}))


def test_a_mean_without_an_interval_is_a_mark_alone():
    """One person and one seed say nothing of an error; the other rows keep their scale."""
    alone = Interval(9, -math.inf, math.inf, 1, 2, persons=1)
    figure = scores.difference_plot({"mAP": {"alone": alone, "up": UP}})
    check_no_text_is_clipped(figure)
    axes = figure.axes[0]
    first = next(line for line in axes.lines if line.get_marker() != "None")
    assert (first.get_xdata()[0], first.get_markerfacecolor()) == (9, "white")
    assert 9 < axes.get_xlim()[1] < 12
    assert "+9.0 [no interval]" in texts(axes)
    pair = Difference("row", "JLML", alone, UP)
    axes = scores.agreement_plot([pair], "rendered people", "photographs").axes[0]
    assert 9 < axes.get_xlim()[1] < 12


def test_scores_over_a_setting():
    line = [(2, Spread(60.0, 1.0, 3, 3)), (4, Spread(math.nan, None, 0, 3)), (8, Spread(70.0, 2.0, 3, 3))]
    published = [(2, Spread(50.0)), (4, Spread(55.0))]
    figure = scores.score_curves(
        {"R1": {"measured": line, "paper": published}, "mAP": {"measured": line}},
        xlabels="parts", ylabel="per cent", dashed=("paper",), default={"R1": 4, "mAP": 4},
        equal_spacing=True,
    )  # fmt: skip
    first, second = figure.axes
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["2", "4", "8"]
    measured = first.containers[0].lines[0]
    assert measured.get_xdata().tolist() == [0, 1, 2]  # at equal distances
    assert np.isnan(measured.get_ydata()[1])
    assert first.containers[1].lines[0].get_linestyle() == "--"
    assert second.containers[0].lines[0].get_color() == measured.get_color()
    assert len(figure.legends[0].get_texts()) == 2
    check_no_text_is_clipped(figure)


def test_input_norms_are_sorted_and_small_ones_counted():
    norms = {"strong": np.array([1.0, 0.5, 0.001, 0.0]), "weak": np.ones(4)}
    figure = models.input_norm_plot({"global": norms, "local": norms}, threshold=0.01)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["strong: 2 of 4 off", "weak: 0 of 4 off"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1.0, 0.5, 0.001, 1e-6]
    check_no_text_is_clipped(figure)


def test_input_units_are_drawn_in_their_order():
    layers = {
        "global": {"row": np.array([1.0, 0.001, 0.5])},
        "local": {"row": np.array([[1.0, 0.5], [0.25, 0.001]])},
    }
    figure = models.input_unit_norms(layers, threshold=0.01)
    shares = [axes.images[0].get_array() for axes in figure.axes[:2]]
    assert shares[0].tolist() == [[1.0, 0.001, 0.5]]
    assert shares[1].tolist() == [[1.0, 0.5, 0.25, 0.001]]
    assert texts(figure.axes[1]) == ["stripe 1", "stripe 2"]
    check_no_text_is_clipped(figure)


def test_bars_are_labelled_with_values_and_differences():
    spreads = {"plain": Spread(60.0, 1.0), "paper": Spread(57.5), "lost": Spread.of([], 1)}
    (axes,) = scores.score_bars({row: {"R1": of} for row, of in spreads.items()}, baseline="plain").axes
    assert [text.get_text() for text in axes.texts] == ["60.0", "57.5 (−2.5)", "missing"]
    assert [bar.get_width() for bar in axes.patches] == [60.0, 57.5]
    assert axes.lines[-1].get_xdata() == [60.0, 60.0]


def studies(*shares):
    jlml = [ProtocolRank1(f"way {place}", share / 100, (90, 90)) for place, share in enumerate(shares)]
    pyramid = [ProtocolRank1(score.name, min(score.rank1 + 0.01, 1), score.gallery_sizes) for score in jlml]
    return {"jlml": jlml, "pyramid": pyramid}


@pytest.mark.parametrize("smallest", [0.0, 1.7, 3.1, 3.9, 4.1, 5.0, 19.9, 20.0, 55.0, 94.0, 100.0])
def test_protocol_labels_do_not_touch_the_axis_or_each_other(smallest):
    figure = benchmarks.protocol_scores(studies(smallest, min(smallest + 15, 100.0)))
    figure.canvas.draw()
    (axes,) = figure.axes
    line = axes.spines["left"].get_window_extent().x1
    assert len(axes.texts) == 4
    assert min(text.get_window_extent().x0 for text in axes.texts) >= line + 2
    assert axes.texts[0].get_text() == f"{smallest:.1f}"
    # Labels do not touch each other either, although the scores of both rows are nearly equal.
    boxes = [text.get_window_extent() for text in axes.texts]
    assert not any(boxes[one].overlaps(boxes[other]) for one in range(4) for other in range(one))


@pytest.mark.parametrize(("smallest", "left"), [(0.0, 0), (5.0, 0), (19.9, 0), (20.0, 14), (90.0, 87.5)])
def test_rank1_axis_begins_at_zero_or_below_the_smallest_value(smallest, left):
    tables = {"one": {"row": (smallest, "paper"), "other": (95.0, "other")}, "two": {"jlml": (97.0, "jlml")}}
    for figure in (
        benchmarks.protocol_scores(studies(smallest, 95.0)), benchmarks.published_rank1(tables)
    ):  # fmt: skip
        assert figure.axes[0].get_xlim() == (left, 100)


def test_agreement_is_drawn_in_its_place_with_both_intervals():
    values = [("JLML", Interval(4, 3, 5, 3, 60), Interval(-20, -25, -15, 3, 60)),
              ("Pyramid", Interval(1, -1, 3, 3, 60), Interval(2, 1, 3, 3, 60))]  # fmt: skip
    differences = [Difference(f"row {n}", *value) for n, value in enumerate(values)]
    axes = scores.agreement_plot(differences, "rendered people", "photographs").axes[0]
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
    for _, x, y in values:
        assert ([x.low, x.high], [y.mean, y.mean]) in lines and ([x.mean] * 2, [y.low, y.high]) in lines
    assert {"1", "2", "1  row 0\n2  row 1"} <= set(texts(axes))
    (low, high), vertical = axes.get_xlim(), axes.get_ylim()
    assert low < -25 and high > 5 and vertical == (low, high)
    assert axes.get_xlabel().startswith("difference on rendered people")


def test_numbers_of_the_agreement_do_not_cover_neighbours():
    places = [(1.1, -0.1), (1.0, -0.5), (-0.4, -0.7), (-0.4, -1.0), (0.3, 0.3)]
    pairs = [[Interval(mean, mean - 1, mean + 1, 3, 60) for mean in place] for place in places]
    differences = [Difference(f"row {n}", "JLML", *pair) for n, pair in enumerate(pairs)]
    figure = scores.agreement_plot(differences, "rendered people", "photographs")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text().isdecimal()]
    assert len(boxes) == len(places)
    assert not any(boxes[one].overlaps(boxes[other]) for one in range(5) for other in range(one))
    points = axes.transData.transform(places)
    assert not any(box.contains(*point) for box in boxes for point in points)
