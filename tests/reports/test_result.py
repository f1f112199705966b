"""What a notebook saves for the report."""

import json

import matplotlib.pyplot as plt
import pytest

from reidlib.errors import InputError
from reidlib.reports import Result


@pytest.fixture
def result(tmp_path):
    return Result("30_one", out=tmp_path, profile="smoke")


def test_a_figure_may_bring_its_caption_and_its_alternative_text(result, tmp_path):
    picture = result.figure((plt.figure(), "A caption.", "An empty picture."), "one", lead=True)
    assert picture.alt == "An empty picture."
    result.figure((plt.figure(), "A caption.", "An empty picture."), "two", caption="Another.")
    result.figure(plt.figure(), "three", caption="A third.", alt="Empty, too.")
    result.finish(headline={"R1": "80.0"})
    content = json.loads((tmp_path / "result.json").read_text())
    assert [(figure["file"], figure["caption"], figure["alt"]) for figure in content["figures"]] == [
        ("one.png", "A caption.", "An empty picture."),
        ("two.png", "Another.", "An empty picture."),
        ("three.png", "A third.", "Empty, too."),
    ]
    assert not {"title", "question"} & content.keys()  # the report reads them from the notebook


@pytest.mark.parametrize("texts", [{}, {"caption": "A caption."}, {"alt": "An empty picture."}])
def test_a_figure_without_its_texts_is_refused(result, texts):
    with pytest.raises(InputError, match=r"caption and an alternative text.*'one'"):
        result.figure(plt.figure(), "one", **texts)


def test_two_figures_of_one_name_are_refused(result):
    result.figure((plt.figure(), "A caption.", "An empty picture."), "one")
    with pytest.raises(InputError, match=r"names of a notebook's figures differ.*'one'"):
        result.figure((plt.figure(), "A caption.", "An empty picture."), "one")
