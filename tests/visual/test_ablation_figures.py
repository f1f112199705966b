"""Figures of the ablations: what is drawn comes from the scores of the rows, and the caption says which."""

import numpy as np
import pytest
from scored_runs import write_scored_runs

from reidlib.analysis import ablations
from reidlib.training.config import JLMLConfiguration, PyramidConfiguration
from reidlib.visual.figures import ablations as figures

pytestmark = pytest.mark.usefixtures("styled_figures")

SHARED, COUNTS = ablations.SHARED_FEATURES, ablations.PART_COUNTS


@pytest.fixture
def scores(tmp_path):
    runs = {name: [{"full": 0.6}] for name in COUNTS.experiments} | {"jlml-separate": [{"full": 0.5}]}
    return write_scored_runs(tmp_path, runs)


def test_bars_and_differences_bring_their_captions(scores):
    figure, caption, alt = figures.ablation_score_bars(SHARED, scores, "tiny")
    assert [axes.get_title() for axes in figure.axes] == ["R1", "mAP (trapezoid)"]
    assert caption == "R1 and mAP (trapezoid) of each row, on tiny; dashed: without shared features."
    assert alt.startswith("Two panels of horizontal bars")
    figure, caption, _ = figures.ablation_difference_plot(SHARED, scores, "tiny")
    assert [text.get_text() for text in figure.axes[1].texts] == ["+10.0 [+10.0, +10.0]"]
    assert caption == (
        "Differences to without shared features in points with 95 % intervals, on tiny, one seed; "
        "diamonds: the paper's on Market-1501."
    )


def test_the_papers_numbers_are_named_only_where_they_are_known(tmp_path):
    dynamic = ablations.DYNAMIC_TRAINING
    runs = write_scored_runs(tmp_path, {name: [{"full": 0.6}] for name in dynamic.experiments})
    assert figures.ablation_difference_plot(dynamic, runs, "tiny").caption.endswith("on tiny, one seed.")


def test_diagrams_count_what_they_draw(monkeypatch):
    monkeypatch.setattr(figures, "_training_image", lambda *_: np.zeros((64, 32, 3), np.uint8))
    jlml = {f"{parts} parts": JLMLConfiguration(parts=parts) for parts in (3, 8)}
    monkeypatch.setattr(figures, "_networks", lambda *_: jlml)
    alt = figures.local_stream_diagrams(COUNTS, None).alt
    assert alt == "The same pedestrian 2 times with bars beside it for 3 to 8 stripes."
    monkeypatch.setattr(figures, "_networks", lambda *_: {"all": PyramidConfiguration()})
    alt = figures.pyramid_part_diagrams(COUNTS, None).alt
    assert alt.startswith("The same pedestrian 1 time, cut into stripes")


def test_a_pair_is_the_first_row_minus_the_second(scores):
    pairs = {"shared": ("with shared features", "without shared features")}
    figure = figures.pair_plot(pairs, SHARED.cells, scores, ["mAP (trapezoid)"])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == ["+10.0 [+10.0, +10.0]"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["shared"]


def test_a_setting_is_drawn_with_the_papers_line(scores):
    lines = {"here": {2: "2 parts", 4: "4 parts"}}
    figure = figures.setting_plot(COUNTS, scores, lines, xlabel="parts", default=4, printed="the paper")
    labels = [line.get_label() for line in figure.axes[1].containers]
    assert labels == ["here", "the paper"]
    measured, paper = (container[0].get_ydata() for container in figure.axes[1].containers)
    assert list(measured) == pytest.approx([60, 60])
    assert list(paper) == list(COUNTS.printed_scores.loc[["2 parts", "4 parts"], "mAP (trapezoid)"])
    assert "the paper" not in [
        container.get_label()
        for container in figures.setting_plot(COUNTS, scores, lines, xlabel="parts").axes[0].containers
    ]


def test_parameters_stand_below_the_values_of_a_setting(scores):
    lines = {"here": {2: "2 parts", 4: "4 parts"}, "narrow": {8: "8 narrow parts"}}
    figure = figures.setting_plot(COUNTS, scores, lines, xlabel="parts", notes={2: "1.46 M", 4: "1.89 M"})
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == ["2\n1.46 M", "4\n1.89 M", "8"]
