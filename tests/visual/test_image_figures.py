"""Figures of images, checked by the images that their axes contain."""

import matplotlib as mpl
import numpy as np
import pytest

from reidlib.analysis.misalignment import usual
from reidlib.experiments.rows import PERTURBATIONS
from reidlib.visual.figures import images

pytestmark = pytest.mark.usefixtures("styled_figures")

IMAGE = np.random.default_rng(0).integers(0, 256, (96, 32, 3), dtype=np.uint8)


def test_ranked_lists_end_at_invalid_gallery_indices():
    lists = {
        "query_indices": np.array([1, 0]),
        "gallery_indices": np.array([[2, 0, -1], [1, -1, -1]]),
        "statuses": np.array([[1, 0, 4], [3, 4, 4]], np.int8),
    }
    gallery = np.stack([IMAGE, IMAGE // 2, IMAGE // 3])
    figure = images.ranked_lists_at(range(2), lists, gallery[:2], gallery, [0.25, 0.75])
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert len(visible) == 5  # two queries with two and one gallery images
    assert [axes.get_ylabel() for axes in visible if axes.get_ylabel()] == ["AP 75", "AP 25"]
    words = [axes.get_xlabel() for axes in visible if axes.get_xlabel()]
    assert words == ["✗ other", "✓ match", "○ ignored"]
    assert (visible[1].images[0].get_array() == gallery[2]).all()


def test_each_row_of_the_factor_sheet_varies_one_factor():
    figure = images.factor_sheet(cameras=(1,))
    grid = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(grid) == 12
    defaults = [
        grid[4 * row + values.index(usual(f))] for row, (f, values) in enumerate(PERTURBATIONS.items())
    ]
    assert (defaults[0] == defaults[1]).all() and (defaults[1] == defaults[2]).all()
    assert (grid[0] != grid[3]).any()


def test_figures_have_the_style_of_the_style_sheet():
    assert not mpl.rcParams["axes.spines.top"]
    assert mpl.rcParams["figure.constrained_layout.use"]
    assert (mpl.rcParams["axes.titlesize"], mpl.rcParams["grid.color"]) == (11, "#E5E5E5")
    assert mpl.rcParams["axes.axisbelow"]  # from seaborn's style
