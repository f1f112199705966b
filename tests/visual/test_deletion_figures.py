"""Figures of the deletion test, checked by what their axes contain."""

import numpy as np
import pytest

from reidlib.visual.attention import figures
from reidlib.visual.attention.deletion import Deletion

pytestmark = pytest.mark.usefixtures("styled_figures")

RANDOM = np.random.default_rng(0)


def deletions_of(kinds):
    shares_s = np.linspace(0, 1, 5)
    random_ns = np.tile(1 - shares_s, (6, 1))
    attended_ns = random_ns**2 + 0.01 * RANDOM.random((6, 5))
    foreign_ns = 0.5 * (attended_ns + random_ns)
    return {kind: Deletion(shares_s, attended_ns, random_ns, np.arange(6), foreign_ns) for kind in kinds}


@pytest.mark.parametrize("kinds", [["global", "local"], [f"level {n}" for n in range(1, 7)], ["level 1"]])
def test_deletion_panels_have_all_curves_with_their_areas(kinds):
    deletions = deletions_of(kinds)
    figure = figures.deletion_figure(deletions, title="Deletion")
    assert [axes.get_title(loc="left") for axes in figure.axes] == kinds
    for axes, deletion in zip(figure.axes, deletions.values(), strict=True):
        random, foreign, attended = axes.lines
        assert foreign.get_ydata() == pytest.approx(deletion.foreign_ns.mean(0))
        assert random.get_ydata() == pytest.approx(deletion.random_ns.mean(0))
        assert attended.get_ydata() == pytest.approx(deletion.attended_ns.mean(0))
        assert attended.get_xdata().tolist() == [0, 25, 50, 75, 100]
        texts = [text.get_text() for text in axes.get_legend().get_texts()]
        assert texts[0] == f"random order: area {deletion.areas[1]:.2f}"
        assert texts[1].startswith("another query's map: area")
        assert texts[2] == f"attention: area {deletion.areas[0]:.2f}"


def test_areas_have_intervals_and_hollow_markers_if_unclear():
    networks = {"JLML": deletions_of(["global", "local"]), "Pyramid": deletions_of(["level 1"])}
    even = networks["Pyramid"]["level 1"]
    noise_ns = even.random_ns + np.array([0.1, -0.1] * 3)[:, None]
    networks["Pyramid"]["level 2"] = even._replace(attended_ns=noise_ns)
    figure = figures.area_figure(networks)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["JLML, global", "JLML, local", "Pyramid, level 1", "Pyramid, level 2"]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    gains = [deletion.gain for kinds in networks.values() for deletion in kinds.values()]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([gain.mean for gain in gains])
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [
        not gain.excludes_zero for gain in gains
    ]
    assert [text.get_text() for text in axes.texts] == [str(gain) for gain in gains]
    figure.canvas.draw()
    edge = axes.get_window_extent().x1
    assert all(text.get_window_extent().x1 <= edge + 1 for text in axes.texts)
