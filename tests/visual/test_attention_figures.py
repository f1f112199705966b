"""What the figures of attention show, read back from their axes and pixels."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.transforms import Bbox

from reidlib.errors import InputError
from reidlib.models.parts import FeaturePart, pyramid_parts
from reidlib.visual.attention import figures
from reidlib.visual.attention.figures import MapRow, averages, pair_figure, sheet

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
    """Every word lies within the figure, and no two words of one picture lie on each other."""
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    page = Bbox.from_bounds(-0.5, -0.5, figure.bbox.width + 1, figure.bbox.height + 1)
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts_of(figure)]
    bar = figure.axes[1]
    boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in figure.texts]
    boxes += [(bar.get_xlabel(), bar.xaxis.label.get_window_extent(renderer))]
    boxes += [(text.get_text(), text.get_window_extent(renderer)) for text in bar.get_xticklabels()]
    for words, box in boxes:
        assert page.contains(box.x0, box.y0), words
        assert page.contains(box.x1, box.y1), words
    for place, (words, box) in enumerate(boxes):
        for other_words, other in boxes[:place]:
            assert not box.shrunk(0.9, 0.9).overlaps(other.shrunk(0.9, 0.9)), (words, other_words)


@BOTH
def test_every_part_has_its_name_its_kind_and_its_similarity(parts):
    numbers = np.linspace(-0.5, 0.99, len(parts))
    figure = pair_figure(
        IMAGES[0], IMAGES[1], maps_of(parts), maps_of(parts), parts, similarities_p=numbers, title="A title"
    )
    words = [text.get_text() for text in texts_of(figure)]
    lines = 1 if parts is STREAMS else 2
    for part in parts:
        assert part.name in words
        assert part.kind in words
    assert words.count("image") == words.count("query") == words.count("gallery") == lines
    assert f"−{0.5:.2f}" in words
    assert "0.99" in words
    assert [text.get_text() for text in figure.texts] == ["A title"]
    assert len(figure.axes) == 2  # one picture and the bar that explains it
    check_nothing_is_clipped(figure)


def test_square_images_are_not_drawn_smaller_than_upright_ones():
    square = np.zeros((64, 64, 3), np.uint8)
    maps_phw = np.ones((5, 64, 64), np.float32)
    figure = pair_figure(square, square, maps_phw, maps_phw, STREAMS)
    axes = figure.axes[0]
    pixels_per_inch = axes.images[0].get_array().shape[0] / (
        axes.get_position().height * figure.get_figheight()
    )
    assert 64 / pixels_per_inch == pytest.approx(1.3)
    check_nothing_is_clipped(figure)


def test_what_a_part_does_not_see_is_pale_and_the_scale_is_common():
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    low, high = maps_of(STREAMS, 0), maps_of(STREAMS, 0)
    low[1, :24], high[1, :24], high[3, 48:72] = 0.25, 1.0, 4.0
    painted = [figures._painted(MapRow("", black, maps_phw), STREAMS, scale=4.0) for maps_phw in (low, high)]
    for of_parts in painted:
        assert (of_parts[1][24:] == 178).all()  # 30 % of the image's black on white
        assert (of_parts[4][:72] == 178).all()
        assert of_parts[1][:24].max() < 178
    expected = [
        np.trunc(255 * figures._HEAT * mpl.colormaps["magma"](round(255 * share**0.5))[:3][0])
        for share in (0.25 / 4, 1 / 4, 1)
    ]
    found = [painted[0][1][0, 0, 0], painted[1][1][0, 0, 0], painted[1][3][50, 0, 0]]
    assert found == pytest.approx(expected, abs=1)
    figure = pair_figure(black, black, low, high, STREAMS)
    ticks = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    assert ticks[0] == "0"
    assert ticks[-1] == "4"  # the largest of all parts and both images
    assert "same for all maps" in figure.axes[1].get_xlabel()


def test_the_images_stand_in_the_picture_as_they_are():
    figure = sheet([MapRow("one", IMAGES[0], maps_of(STREAMS))], STREAMS)
    canvas = figure.axes[0].images[0].get_array()
    whole = [
        (y, x)
        for y in range(canvas.shape[0] - HEIGHT + 1)
        for x in range(canvas.shape[1] - WIDTH + 1)
        if (canvas[y, x] == IMAGES[0][0, 0]).all()
        and (canvas[y : y + HEIGHT, x : x + WIDTH] == IMAGES[0]).all()
    ]
    assert len(whole) == 1


def test_maps_of_nothing_are_drawn_too():
    figure = pair_figure(IMAGES[0], IMAGES[1], maps_of(PYRAMID, 0), -maps_of(PYRAMID), PYRAMID)
    figure.canvas.draw()


def test_a_figure_may_be_saved_again_and_again(recwarn, tmp_path):
    figure = pair_figure(IMAGES[0], IMAGES[1], maps_of(STREAMS), maps_of(STREAMS), STREAMS)
    place = figure.axes[0].get_position().bounds
    for _ in range(3):
        figure.savefig(tmp_path / "again.png", bbox_inches="tight")
    assert figure.axes[0].get_position().bounds == place
    assert not recwarn.list


def test_averages_show_the_mean_of_what_supports():
    maps_nphw = np.stack([maps_of(STREAMS), -maps_of(STREAMS)])
    groups = {"right\nanswers": (IMAGES[:2], maps_nphw), "wrong\nanswers": (IMAGES[1:], maps_nphw)}
    numbers = {name: [0.5] * 5 for name in groups}
    figure = averages(groups, STREAMS, similarities=numbers, title="Average")
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
