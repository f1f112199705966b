"""Figures of attention, checked by what their axes and pixels contain."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.transforms import Bbox

from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart, pyramid_parts
from reidlib.visual.attention import figures
from reidlib.visual.attention.figures import MapRow, average_figure, pair_figure, sheet

pytestmark = pytest.mark.usefixtures("styled_figures")

HEIGHT, WIDTH = 96, 32
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (3, HEIGHT, WIDTH, 3), dtype=np.uint8)
STREAMS = (
    FeaturePart("global", "global", slice(0, 4), (0.0, 1.0)),
    *(FeaturePart(f"local {i + 1}", "local", slice(4 + i, 5 + i), (i / 4, (i + 1) / 4)) for i in range(4)),
)
PYRAMID = tuple(
    FeaturePart(
        f"stripe {first + 1}" if stop == first + 1 else f"stripes {first + 1}–{stop}",
        f"level {stop - first}", slice(i, i + 1), (first / 6, stop / 6),
    )
    for i, (first, stop) in enumerate(pyramid_parts(6))
)  # fmt: skip
BOTH = pytest.mark.parametrize("parts", [STREAMS, PYRAMID], ids=["streams", "pyramid"])


def maps_of(parts, value=1.0):
    maps_phw = np.zeros((len(parts), HEIGHT, WIDTH), np.float32)
    for map_hw, part in zip(maps_phw, parts, strict=True):
        first, stop = (round(edge * HEIGHT) for edge in part.rows)
        map_hw[first:stop] = value * RANDOM.random((stop - first, WIDTH))
    return maps_phw


def texts_of(figure):
    return [text for axes in figure.axes for text in axes.texts if text.get_text()]


def check_nothing_is_clipped(figure):
    """Check that every text is within the figure and that no two texts overlap."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = Bbox.from_bounds(-0.5, -0.5, figure.bbox.width + 1, figure.bbox.height + 1)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts_of(figure)]
    bar = figure.axes[1]
    boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts]
    boxes += [(bar.get_xlabel(), bar.xaxis.label.get_window_extent(renderer))]
    boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in bar.get_xticklabels()]
    for text, box in boxes:
        assert page.contains(box.x0, box.y0), text
        assert page.contains(box.x1, box.y1), text
    for index, (text, box) in enumerate(boxes):
        for other_text, other in boxes[:index]:
            assert not box.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9)), (text, other_text)


@BOTH
def test_every_part_has_its_name_kind_and_similarity(parts):
    numbers = np.linspace(-0.5, 0.99, len(parts))
    figure = pair_figure(
        IMAGES[0], IMAGES[1], maps_of(parts), maps_of(parts), parts, similarities_p=numbers, title="A title"
    )
    words = [text.get_text() for text in texts_of(figure)]
    blocks = 1 if parts is STREAMS else 2
    for part in parts:
        assert part.name in words
        assert part.kind in words
    assert words.count("image") == words.count("query") == words.count("gallery") == blocks
    assert f"−{0.5:.2f}" in words
    assert "0.99" in words
    assert [text.get_text() for text in figure.texts] == ["A title"]
    assert len(figure.axes) == 2  # the image and the colour bar
    check_nothing_is_clipped(figure)


def test_square_images_are_as_high_as_upright_ones():
    square = np.zeros((64, 64, 3), np.uint8)
    maps_phw = np.ones((5, 64, 64), np.float32)
    figure = pair_figure(square, square, maps_phw, maps_phw, STREAMS)
    axes = figure.axes[0]
    pixels_per_inch = axes.images[0].get_array().shape[0] / (
        axes.get_position().height * figure.get_figheight()
    )
    assert 64 / pixels_per_inch == pytest.approx(1.3)
    check_nothing_is_clipped(figure)


def test_rows_outside_a_part_are_pale_and_all_maps_share_a_scale():
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    low, high = maps_of(STREAMS, 0), maps_of(STREAMS, 0)
    low[1, :24], high[1, :24], high[3, 48:72] = 0.25, 1.0, 4.0
    overlays = [
        figures._overlay_maps(MapRow("", black, maps_phw), STREAMS, scale=4.0) for maps_phw in (low, high)
    ]
    for images in overlays:
        assert (images[1][24:] == 178).all()  # white with 30 % of the image's black
        assert (images[4][:72] == 178).all()
        assert images[1][:24].max() < 178
    expected = [
        np.trunc(255 * figures._HEAT * mpl.colormaps["magma"](round(255 * share**0.5))[:3][0])
        for share in (0.25 / 4, 1 / 4, 1)
    ]
    pixels = [overlays[0][1][0, 0, 0], overlays[1][1][0, 0, 0], overlays[1][3][50, 0, 0]]
    assert pixels == pytest.approx(expected, abs=1)
    figure = pair_figure(black, black, low, high, STREAMS)
    ticks = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    assert ticks[0] == "0"
    assert ticks[-1] == "4"  # the largest of all parts and both images
    assert "same for all maps" in figure.axes[1].get_xlabel()


def test_the_plain_image_is_drawn_once_without_changes():
    figure = sheet([MapRow("image", IMAGES[0], maps_of(STREAMS))], STREAMS)
    canvas = figure.axes[0].images[0].get_array()
    positions = [
        (y, x)
        for y in range(canvas.shape[0] - HEIGHT + 1)
        for x in range(canvas.shape[1] - WIDTH + 1)
        if (canvas[y, x] == IMAGES[0][0, 0]).all()
        and (canvas[y : y + HEIGHT, x : x + WIDTH] == IMAGES[0]).all()
    ]
    assert len(positions) == 1


def test_maps_without_positive_values_can_be_drawn():
    figure = pair_figure(IMAGES[0], IMAGES[1], maps_of(PYRAMID, 0), -maps_of(PYRAMID), PYRAMID)
    figure.canvas.draw()


def test_a_figure_can_be_saved_repeatedly(recwarn, tmp_path):
    figure = pair_figure(IMAGES[0], IMAGES[1], maps_of(STREAMS), maps_of(STREAMS), STREAMS)
    bounds = figure.axes[0].get_position().bounds
    for _ in range(3):
        figure.savefig(tmp_path / "again.png", bbox_inches="tight")
    assert figure.axes[0].get_position().bounds == bounds
    assert not recwarn.list


def test_averages_show_the_mean_of_positive_contributions():
    maps_nphw = np.stack([maps_of(STREAMS), -maps_of(STREAMS)])
    groups = {"right\nanswers": (IMAGES[:2], maps_nphw), "wrong\nanswers": (IMAGES[1:], maps_nphw)}
    numbers = {name: [0.5] * 5 for name in groups}
    figure = average_figure(groups, STREAMS, similarities=numbers, title="Average")
    assert float(figure.axes[1].get_xticks()[-1]) == pytest.approx(
        np.quantile(maps_nphw[0][maps_nphw[0] > 0] / 2, 0.99), rel=1e-3
    )
    words = [text.get_text() for text in texts_of(figure)]
    assert words.count("0.50") == 10
    assert set(groups) <= set(words)
    check_nothing_is_clipped(figure)


def test_bad_input_is_refused():
    maps_phw = maps_of(STREAMS)
    for arguments, settings in (
        ((IMAGES[0], IMAGES[1], maps_phw[1:], maps_phw, STREAMS), {}),
        ((IMAGES[0], IMAGES[1, 1:], maps_phw, maps_phw, STREAMS), {}),
        ((IMAGES[0], IMAGES[1], maps_phw[:0], maps_phw[:0], ()), {}),
        ((IMAGES[0], IMAGES[1], maps_phw, maps_phw, STREAMS), {"similarities_p": [0.5]}),
    ):
        with pytest.raises(InputError):
            pair_figure(*arguments, **settings)
