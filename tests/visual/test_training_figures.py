"""Figures of trainings, checked by what their axes contain."""

import numpy as np
import pytest

from reidlib.analysis.ablations.traces import triplet_in_use
from reidlib.visual.figures import training

pytestmark = pytest.mark.usefixtures("styled_figures")


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


def test_the_loss_axis_names_a_sum_over_parts_or_cross_entropy():
    row = {"epoch": 1, "accuracy": 0.1, "learning_rate": 0.1}
    for name, label in (("identity", "sum over the parts"), ("identity_global", "cross-entropy (nats)")):
        assert training.training_curves([{**row, name: 5.0}]).axes[0].get_ylabel() == label


def test_curves_have_a_sparsity_panel_only_with_sparsity_terms():
    row = {"epoch": 1, "identity_global": 5.0, "accuracy": 0.1, "learning_rate": 0.1}
    assert len(training.training_curves([row]).axes) == 3  # losses, accuracy and its second y axis
    assert len(training.training_curves([{**row, "sparsity_global": 0.2}]).axes) == 4


def test_curves_have_a_panel_of_validation_scores_only_with_such_scores():
    row = {"identity": 5.0, "sparsity_global": 0.2, "accuracy": 0.1, "learning_rate": 0.1}
    looked = {"validation_r1": 0.5, "validation_map": 0.25}
    history = [{"epoch": 1, **row}, {"epoch": 2, **row, **looked}, {"epoch": 3, **row}]
    history += [{"epoch": 4, **row, **looked, "validation_map": 0.5}]
    figure = training.training_curves(history)
    assert len(figure.axes) == 5 and len(training.training_curves(history[:1]).axes) == 4
    panel = next(axes for axes in figure.axes if "validation" in axes.get_title())
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines}
    assert lines == {"R1": ([2, 4], [50, 50]), "mAP": ([2, 4], [25, 50])}  # a line over the epochs between
    (accuracy,) = (axes for axes in figure.axes if "accuracy" in axes.get_title())
    assert list(accuracy.lines[0].get_ydata()) == [10] * 4


def test_an_epoch_without_triplets_leaves_a_gap():
    row = {"identity": 5.0, "accuracy": 0.1, "learning_rate": 0.1}
    history = [{"epoch": 1, **row, "triplet": 3.0}, {"epoch": 2, **row}, {"epoch": 3, **row, "triplet": 2.0}]
    lines = {line.get_label(): line.get_ydata() for line in training.training_curves(history).axes[0].lines}
    np.testing.assert_array_equal(lines["triplet"], [3, np.nan, 2])


def test_running_mean_ignores_missing_values():
    values = np.array([1, np.nan, 3, 5, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(training.running_mean(values, 3), [1, 2, 4, 4, 5, np.nan, np.nan])
    np.testing.assert_array_equal(training.running_mean(values, 1), values)


@pytest.mark.parametrize("count", [1, 2, 12, 500, 24_000])
def test_balancing_is_drawn_for_any_number_of_steps(count):
    steps = steps_of(count, balanced=np.arange(count) % 2 == 0)
    figure = training.balancing_steps(steps, triplet_in_use(steps), 0.16)
    figure.canvas.draw()
    losses, _, weights, batches = figure.axes
    assert losses.get_xlim() == weights.get_xlim() == (0.5, count + 0.5)
    (strip,) = batches.images
    assert strip.get_extent()[:2] == [0.5, count + 0.5]
    assert strip.get_array().shape == (1, min(count, 600))
    assert strip.get_array().mean() == pytest.approx(steps["balanced_batches"].mean(), abs=0.02)


def test_only_tiny_weights_get_a_logarithmic_scale():
    for weight, scale in ((1e-6, "log"), (0.5, "linear"), (0.0, "linear")):
        steps = steps_of(60, weight=weight)
        steps["weight_identity"] = np.full(60, weight)
        assert training.balancing_steps(steps, triplet_in_use(steps), 0.16).axes[2].get_yscale() == scale


def test_a_training_without_triplet_loss_has_a_note():
    steps = {name: steps_of(3)[name] for name in ("step", "identity")} | {"balanced_batches": np.zeros(3)}
    figure = training.balancing_steps(steps, triplet_in_use(steps), 0.16)
    assert "the identity loss alone" in figure.axes[1].texts[0].get_text()
    assert "no triplet loss" in figure.axes[2].texts[0].get_text()


def test_a_plain_sum_has_a_note_instead_of_a_ratio():
    steps = steps_of(3)
    axes = training.balancing_steps(steps, triplet_in_use(steps), 0.16).axes[1]
    assert "the plain sum" in axes.texts[0].get_text()
    assert not axes.lines


@pytest.mark.parametrize("repeats", [1, 4_000])
def test_every_ratio_of_focal_weights_is_drawn(repeats):
    identity = np.tile([1.0, 0.0, 1.0, 2.0, 0.0, 1.0], repeats)
    triplet = np.tile([1.0, 1.0, 0.0, 0.1, 0.0, 2.0], repeats)  # ratios 1, ∞, 0, 0.05, 0/0 and 2
    steps = steps_of(6 * repeats, balanced=np.tile([1, 1, 1, 1, 1, 0], repeats))
    steps |= {"focal_identity": identity, "focal_triplet": triplet}
    figure = training.balancing_steps(steps, triplet_in_use(steps), 0.16)
    figure.canvas.draw()
    axes = figure.axes[1]
    balanced, random, line, infinite, zero = axes.lines
    np.testing.assert_allclose(balanced.get_ydata(), np.tile([1, 0.05], repeats))
    np.testing.assert_allclose(random.get_ydata(), np.full(repeats, 2))
    assert random.get_xdata()[0] == 6
    assert (line.get_label(), line.get_ydata()[0]) == ("δ = 0.16", 0.16)
    assert infinite.get_xdata()[:2].tolist() == [2, 5]  # the gate is also open if neither loss falls
    assert zero.get_xdata()[0] == 3
    low, high = axes.get_ylim()
    assert low < zero.get_ydata()[0] < 0.05 < 2 < infinite.get_ydata()[0] < high


@pytest.mark.parametrize("identity", [0.0, 1.0])
def test_a_ratio_that_is_never_finite_is_drawn(identity):
    focal = {"focal_identity": np.full(4, identity), "focal_triplet": np.zeros(4)}
    steps = steps_of(4) | focal
    _, infinite, zero = training.balancing_steps(steps, triplet_in_use(steps), 0.16).axes[1].lines
    assert (len(infinite.get_xdata()), len(zero.get_xdata())) == ((4, 0) if identity == 0 else (0, 4))


@pytest.mark.parametrize("count", [2, 4, 6])
def test_modes_share_their_scales(count):
    """At most four trainings stand in a row; the lower panel of each is that of its own batches."""
    traces = {
        f"mode {length}": steps_of(length, balanced=np.arange(length) < 10)
        for length in range(40, 40 - count, -1)
    }
    figure = training.balancing_modes(
        {name: (steps, triplet_in_use(steps)) for name, steps in traces.items()}
    )
    above = [axes for axes in figure.axes if axes.get_title()]
    below = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in above] == list(traces)
    assert {axes.get_ylim() for axes in above} == {above[0].get_ylim()}
    assert {axes.get_xlim() for axes in above + below} == {(0.5, 40.5)}
    assert [axes.images[0].get_extent()[1] for axes in below] == [40.5 - number for number in range(count)]
    columns = [axes.get_subplotspec().colspan.start for axes in above]
    assert columns == [axes.get_subplotspec().colspan.start for axes in below] == [0, 1, 2, 3, 0, 1][:count]
    assert len(figure.axes) == 2 * count
