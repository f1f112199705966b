"""Figures of images, checked by the images that their axes contain."""

import matplotlib as mpl
import numpy as np
import pytest
from untrained_runs import QUIET, untrained_run

from reidlib.analysis.misalignment import default_value
from reidlib.data import load
from reidlib.data.synthetic.factors import Factors
from reidlib.data.synthetic.render import preview
from reidlib.errors import InputError
from reidlib.experiments.evaluate import evaluate_run
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
        grid[4 * row + values.index(default_value(f))]
        for row, (f, values) in enumerate(PERTURBATIONS.items())
    ]
    assert (defaults[0] == defaults[1]).all() and (defaults[1] == defaults[2]).all()
    assert (grid[0] != grid[3]).any()


def test_a_factor_is_shown_off_as_usual_and_strong():
    figure = images.factor_strengths(["camera_gain", "occlusion_share"], identity=3, cameras=(1, 2))
    panels = [axes for axes in figure.axes if axes.images]
    pictures = np.array([axes.images[0].get_array() for axes in panels]).reshape(2, 3, 2, 128, 64, 3)
    assert [axes.get_ylabel() for axes in panels if axes.get_ylabel()] == ["camera gain", "occlusion share"]
    for row, values in enumerate(((0, 1, 2), (0, Factors().occlusion_share, 1))):
        for column, value in enumerate(values):
            factors = Factors(**{("camera_gain", "occlusion_share")[row]: value})
            expected = [preview(3, camera, factors)[0].transpose(1, 2, 0) for camera in (1, 2)]
            assert (pictures[row, column] == expected).all()


def test_the_stored_lists_of_a_run(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    benchmark = load("market1501", market)
    run = untrained_run(benchmark, tmp_path / "runs")
    scores = evaluate_run(run, benchmark, execution=QUIET)["branches"]["full"]["step"]
    precision = sorted(round(100 * value) for value in scores["average_precision"] if value is not None)
    labels = {}
    for order in ("hardest", "median", "easiest"):
        figure = images.stored_ranked_lists(run, benchmark, order)
        assert order in figure.get_suptitle().lower()
        labels[order] = [int(a.get_ylabel()[3:]) for a in figure.axes if a.get_ylabel().startswith("AP ")]
    middle = len(precision) // 2
    assert labels["hardest"] == precision[:4]
    assert labels["median"] == precision[middle : middle + 3]
    assert labels["easiest"] == precision[-3:]
    with pytest.raises(InputError, match="one of hardest, median, easiest"):
        images.stored_ranked_lists(run, benchmark, "worst")


def test_figures_have_the_style_of_the_style_sheet():
    assert not mpl.rcParams["axes.spines.top"]
    assert mpl.rcParams["figure.constrained_layout.use"]
    assert (mpl.rcParams["axes.titlesize"], mpl.rcParams["grid.color"]) == (11, "#E5E5E5")
    assert mpl.rcParams["axes.axisbelow"]  # from seaborn's style
