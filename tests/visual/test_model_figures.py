"""What the figures of models and trainings draw, read back from their axes."""

import numpy as np
import pytest
from matplotlib.colors import to_hex

from reidlib.analysis.scores import Spread, triplet_in_use
from reidlib.models.parts import pyramid_parts
from reidlib.visual.figures import dynamic as balancing_plots
from reidlib.visual.figures import models as model_plots
from reidlib.visual.figures import plots

pytestmark = pytest.mark.usefixtures("styled_figures")

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 32, 3), dtype=np.uint8)


def steps_of(count, balanced=None, weight=1.0):
    balanced = np.ones(count) if balanced is None else np.array(balanced, float)
    triplet = np.where(balanced > 0, 20.0, np.nan)
    return {
        "step": np.arange(1, count + 1),
        "identity": np.linspace(100, 50, count),
        "triplet": triplet,
        "weight_identity": np.ones(count),
        "weight_triplet": np.where(balanced > 0, weight, np.nan),
        "balanced_batches": balanced,
    }


@pytest.mark.parametrize("levels", [None, (6,), (1, 6)])
def test_each_part_is_drawn_where_it_lies(levels):
    parts = pyramid_parts(6, levels)
    figure = model_plots.part_pictures(IMAGE, parts, 6)
    assert len(figure.axes) == len(parts)
    for axes, part in zip(figure.axes, parts, strict=True):
        (frame,) = axes.patches
        assert frame.get_y() == 16 * part.first - 0.5
        assert frame.get_height() == 16 * part.level
        shown = axes.images[0].get_array()
        inside = slice(16 * part.first, 16 * part.stop)
        assert (shown[inside] == IMAGE[inside]).all()
        outside = np.delete(shown, np.r_[inside], axis=0)
        assert outside.size == 0 or outside.min() > 180  # pale
        edges = axes.get_position().extents
        assert (edges >= 0).all()
        assert (edges <= 1).all()
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [title for title in titles if title] == [f"level {level}" for level in levels or range(1, 7)]


def test_bars_of_one_level_never_cover_each_other():
    figure = model_plots.part_diagrams(IMAGE, {"six": (pyramid_parts(6), 6), "whole": (pyramid_parts(1), 1)})
    six, whole = (axes.patches for axes in figure.axes)
    assert (len(six), len(whole)) == (21, 1)
    boxes = [bar.get_bbox() for bar in six]
    for index, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[index + 1 :])
    assert boxes[-1].xmax <= figure.axes[0].get_xlim()[1]


def test_pyramids_stand_three_in_a_line_and_are_cut_only_where_a_part_ends():
    pyramids = {"six": (pyramid_parts(6), 6), "whole": (pyramid_parts(6, (6,)), 6)}
    pyramids |= {f"{count}": (pyramid_parts(count), count) for count in (2, 3)}
    axes = model_plots.part_diagrams(IMAGE, pyramids).axes
    assert len(axes) == 4
    assert [one.get_subplotspec().rowspan.start for one in axes] == [0, 0, 0, 1]
    cuts = [[path[0, 1] for path in one.collections[0].get_segments()] for one in axes]
    assert cuts == [[15.5, 31.5, 47.5, 63.5, 79.5], [], [47.5], [31.5, 63.5]]


def test_an_identity_loss_that_is_a_sum_is_called_one():
    row = {"epoch": 1, "accuracy": 0.1, "learning_rate": 0.1}
    for name, label in (("identity", "sum over the parts"), ("identity_global", "cross-entropy (nats)")):
        assert model_plots.training_curves([{**row, name: 5.0}]).axes[0].get_ylabel() == label


def test_curves_have_a_sparsity_panel_only_where_there_is_sparsity():
    row = {"epoch": 1, "identity_global": 5.0, "accuracy": 0.1, "learning_rate": 0.1}
    assert len(model_plots.training_curves([row]).axes) == 3  # losses, accuracy and its second scale
    assert len(model_plots.training_curves([{**row, "sparsity_global": 0.2}]).axes) == 4


def test_an_epoch_without_triplets_leaves_a_gap():
    row = {"identity": 5.0, "accuracy": 0.1, "learning_rate": 0.1}
    history = [{"epoch": 1, **row, "triplet": 3.0}, {"epoch": 2, **row}, {"epoch": 3, **row, "triplet": 2.0}]
    lines = {
        line.get_label(): line.get_ydata() for line in model_plots.training_curves(history).axes[0].lines
    }
    np.testing.assert_array_equal(lines["triplet"], [3, np.nan, 2])


def test_running_mean_leaves_out_what_was_not_measured():
    values = np.array([1, np.nan, 3, 5, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(balancing_plots.running_mean(values, 3), [1, 2, 4, 4, 5, np.nan, np.nan])
    np.testing.assert_array_equal(balancing_plots.running_mean(values, 1), values)


@pytest.mark.parametrize("count", [1, 2, 12, 500, 24_000])
def test_balancing_of_any_length(count):
    steps = steps_of(count, balanced=np.arange(count) % 2 == 0)
    figure = balancing_plots.balancing_steps(steps, triplet_in_use(steps), 0.16)
    figure.canvas.draw()
    losses, _, weights, batches = figure.axes
    assert losses.get_xlim() == weights.get_xlim() == (0.5, count + 0.5)
    (strip,) = batches.images
    assert strip.get_extent()[:2] == [0.5, count + 0.5]
    assert strip.get_array().shape == (1, min(count, 600))
    assert strip.get_array().mean() == pytest.approx(steps["balanced_batches"].mean(), abs=0.02)


def test_tiny_weights_get_a_logarithmic_scale_and_ordinary_ones_do_not():
    for weight, scale in ((1e-6, "log"), (0.5, "linear"), (0.0, "linear")):
        steps = steps_of(60, weight=weight)
        steps["weight_identity"] = np.full(60, weight)
        assert (
            balancing_plots.balancing_steps(steps, triplet_in_use(steps), 0.16).axes[2].get_yscale() == scale
        )


def test_a_training_without_triplets_says_so():
    steps = {name: steps_of(3)[name] for name in ("step", "identity")} | {"balanced_batches": np.zeros(3)}
    figure = balancing_plots.balancing_steps(steps, triplet_in_use(steps), 0.16)
    assert "the identity loss alone" in figure.axes[1].texts[0].get_text()
    assert "no triplet loss" in figure.axes[2].texts[0].get_text()


def test_a_plain_sum_has_no_ratio_and_says_so():
    steps = steps_of(3)
    axes = balancing_plots.balancing_steps(steps, triplet_in_use(steps), 0.16).axes[1]
    assert "the plain sum" in axes.texts[0].get_text()
    assert not axes.lines


@pytest.mark.parametrize("repeats", [1, 4_000])
def test_every_ratio_of_focal_weights_stands_at_its_place(repeats):
    identity = np.tile([1.0, 0.0, 1.0, 2.0, 0.0, 1.0], repeats)
    triplet = np.tile([1.0, 1.0, 0.0, 0.1, 0.0, 2.0], repeats)  # ratios 1, ∞, 0, 0.05, 0/0 and 2
    steps = steps_of(6 * repeats, balanced=np.tile([1, 1, 1, 1, 1, 0], repeats))
    steps |= {"focal_identity": identity, "focal_triplet": triplet}
    figure = balancing_plots.balancing_steps(steps, triplet_in_use(steps), 0.16)
    figure.canvas.draw()
    axes = figure.axes[1]
    balanced, random, line, endless, nought = axes.lines
    np.testing.assert_allclose(balanced.get_ydata(), np.tile([1, 0.05], repeats))
    np.testing.assert_allclose(random.get_ydata(), np.full(repeats, 2))
    assert random.get_xdata()[0] == 6
    assert (line.get_label(), line.get_ydata()[0]) == ("δ = 0.16", 0.16)
    assert endless.get_xdata()[:2].tolist() == [2, 5]  # where neither falls the gate is open, too
    assert nought.get_xdata()[0] == 3
    low, high = axes.get_ylim()
    assert low < nought.get_ydata()[0] < 0.05 < 2 < endless.get_ydata()[0] < high


@pytest.mark.parametrize("identity", [0.0, 1.0])
def test_a_ratio_that_is_never_finite_is_drawn(identity):
    focal = {"focal_identity": np.full(4, identity), "focal_triplet": np.zeros(4)}
    steps = steps_of(4) | focal
    _, endless, nought = balancing_plots.balancing_steps(steps, triplet_in_use(steps), 0.16).axes[1].lines
    assert (len(endless.get_xdata()), len(nought.get_xdata())) == ((4, 0) if identity == 0 else (0, 4))


def test_modes_stand_side_by_side_on_one_scale():
    long, short = steps_of(40, balanced=np.arange(40) < 10), steps_of(20)
    figure = balancing_plots.balancing_modes(
        {name: (s, triplet_in_use(s)) for name, s in (("a", long), ("b", short))}
    )
    above = figure.axes[:2]
    assert [axes.get_title() for axes in above] == ["a", "b"]
    assert above[0].get_ylim() == above[1].get_ylim()
    assert above[0].get_xlim() == above[1].get_xlim() == (0.5, 40.5)
    assert figure.axes[3].images[0].get_extent()[:2] == [0.5, 20.5]


def test_bars_carry_values_and_differences():
    spreads = {"plain": Spread(60.0, 1.0), "paper": Spread(57.5), "lost": Spread.of([], 1)}
    (axes,) = plots.score_bars({row: {"R1": of} for row, of in spreads.items()}, baseline="plain").axes
    assert [text.get_text() for text in axes.texts] == ["60.0", "57.5 (−2.5)", "missing"]
    assert [bar.get_width() for bar in axes.patches] == [60.0, 57.5]
    assert axes.lines[-1].get_xdata() == [60.0, 60.0]


def test_a_bar_for_each_stripe_beside_the_image():
    stripes = {"2 parts": ((0, 16), (16, 32)), "3 parts": ((0, 11), (10, 21), (21, 32))}
    panels = model_plots.stripe_diagrams(IMAGE, stripes, 32).axes
    assert [len(axes.patches) for axes in panels] == [2, 3]
    # Neighbours that share rows stand side by side.
    first, second, third = (bar.get_x() for bar in panels[1].patches)
    assert first == third != second
    height = IMAGE.shape[0]
    assert panels[0].patches[1].get_y() == height / 2


def test_levels_keep_their_colours():
    colours = model_plots.level_colours(range(1, 7))
    assert len(set(colours.values())) == 7
    curves = {name: {1: 0.0, 5: 0.5} for name in colours}
    drawn = plots.cmc_curves(curves, colours).axes[0].lines
    assert {line.get_label(): to_hex(line.get_color()) for line in drawn} == {
        name: colour.lower() for name, colour in colours.items()
    }


def test_ranked_lists_end_where_the_gallery_does():
    lists = {
        "query_indices": np.array([1, 0]),
        "gallery_indices": np.array([[2, 0, -1], [1, -1, -1]]),
        "statuses": np.array([[1, 0, 4], [3, 4, 4]], np.int8),
    }
    gallery = np.stack([IMAGE, IMAGE // 2, IMAGE // 3])
    figure = plots.ranked_lists_at(range(2), lists, gallery[:2], gallery, [0.25, 0.75])
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 5  # two queries, two answers and one
    assert [axes.get_ylabel() for axes in shown if axes.get_ylabel()] == ["AP 75", "AP 25"]
    words = [axes.get_xlabel() for axes in shown if axes.get_xlabel()]
    assert words == ["✗ other", "✓ match", "○ ignored"]
    assert (shown[1].images[0].get_array() == gallery[2]).all()
