"""The ranking browser without a page: its traits are turned as hands turn its controls."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from miniature import write_image
from PIL import Image
from test_browser_views import collection
from untrained import JLML, PYRAMID, QUIET, untrained

from reidlib.data import load
from reidlib.ranking.metrics import Embeddings
from reidlib.visual.browser import RankingBrowser, front_end_present, pictures
from reidlib.visual.browser.collection import open_collection


@pytest.fixture
def pictured(tmp_path):
    """A collection with an image file for every path."""
    made = collection()
    sides = {}
    for name in ("query_paths", "gallery_paths"):
        sides[name] = tuple(tmp_path / "images" / path for path in getattr(made, name))
        (tmp_path / "images").mkdir(exist_ok=True)
        for seed, path in enumerate(sides[name]):
            write_image(path, seed=seed)
    return replace(made, **sides)


@pytest.fixture
def browser(pictured, tmp_path):
    return RankingBrowser(collection=pictured, out=tmp_path / "out", runs=tmp_path / "runs")


@pytest.fixture(params=[JLML, PYRAMID], ids=["jlml", "pyramid"])
def with_network(request, market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    benchmark = load("market1501", market)
    run = untrained(benchmark, tmp_path / "runs", request.param)
    made, model = open_collection(run, benchmark, execution=QUIET)
    return RankingBrowser(collection=made, model=model, out=tmp_path / "out", runs=tmp_path / "runs")


def gallery(browser) -> list:
    return list(browser._gallery.children)


def ranks(browser) -> list[str]:
    return [re.search(r"<b>(.*?)</b>", card.caption.value).group(1) for card in gallery(browser)]


def test_the_first_view_states_its_order(browser):
    assert ranks(browser) == [f"rank {rank}" for rank in range(1, 11)]
    words = browser._statement.value
    assert "Query 1 of 12, lowest average precision first (of the full feature, Euclidean distance)" in words
    assert browser.said == ""
    picture = Image.open(io.BytesIO(gallery(browser)[0].image.value))
    assert picture.format == "JPEG"


def test_every_trait_changes_what_is_shown(browser):
    def changed(**traits):
        before = browser.shown
        for name, value in traits.items():
            setattr(browser, name, value)
        assert browser.shown is not before, traits
        return browser.shown

    assert changed(position=3).query_index != changed(position=4).query_index
    assert len(changed(top=4).entries) == len(gallery(browser)) == 4
    assert changed(feature="local").options.feature == "local"
    assert changed(metric="cosine").options.metric == "cosine"
    assert all(entry.moved is not None for entry in changed(reranked=True).entries)
    assert {entry.camera for entry in changed(cameras=(2,)).entries} == {2}
    assert {entry.person for entry in changed(persons="1, 2 3").entries} <= {1, 2, 3}
    assert changed(show_ignored=True).options.show_ignored
    assert changed(query_camera=1).camera == 1
    assert changed(order="random", query_camera="all").options.top == 4
    person = browser.shown.person
    assert changed(query_person=str(person)).person == person


def test_controls_and_traits_follow_each_other(browser):
    controls = browser._controls
    controls.next.click()
    assert (browser.position, controls.place.value) == (1, 2)
    controls.previous.click()
    controls.previous.click()
    assert browser.position == 0
    controls.place.value = 5
    assert browser.position == 4
    controls.index.value = 7
    assert browser.shown.query_index == 7
    controls.top.value = 3
    assert browser.top == 3
    browser.metric = "cosine"
    assert controls.metric.value == "cosine"
    controls.feature.value = "global"
    assert browser.shown.options.feature == "global"
    controls.cameras.value = (1, 3)
    assert browser.cameras == (1, 3)
    browser.query_camera = 2
    assert controls.place.max < 12


def test_bad_input_becomes_a_line_and_leaves_the_list(browser):
    for trait, value, words in (
        ("persons", "four", "persons are whole numbers, separated by commas; got 'four'"),
        ("query_person", "99", "got none of person 99; widen the filters of the queries"),
        ("query_person", "<b>", "whole numbers"),
    ):
        shown = browser.shown
        setattr(browser, trait, value)
        assert words in browser.said
        assert browser.shown.query_index == shown.query_index
        assert browser._statement.value != pictures.note("working …")
        assert "<b>" not in browser._message.value
        browser._controls.next.click()
        assert words in browser.said  # as long as it stands there
        assert browser.position == 1
        setattr(browser, trait, "")
        assert browser.said == ""
        browser.position = 0
    shown = browser.shown
    browser.query_camera = int(np.setdiff1d(browser._collection.query.camera_ids, [shown.camera])[0])
    browser._controls.index.value = shown.query_index
    assert f"got query {shown.query_index}; widen" in browser.said


def test_an_empty_filter_result_is_said(browser):
    browser.persons = "77"
    assert "got none of person 77; widen the filters" in browser.said
    assert gallery(browser) == []
    assert browser.save_picture() is None
    browser.persons = ""
    assert browser.said == ""
    assert len(gallery(browser)) == 10


def test_a_query_without_a_match_is_said(pictured, tmp_path):
    alone = Embeddings(pictured.query.features, np.full(12, 99), pictured.query.camera_ids)
    browser = RankingBrowser(collection=replace(pictured, query=alone), runs=tmp_path)
    assert "no such image for person 99" in browser.said
    assert "no match in the gallery" in browser._query.caption.value
    assert len(gallery(browser)) == 10


def test_a_gallery_of_one(pictured, tmp_path):
    one = Embeddings(pictured.gallery.features[:1], np.array([3]), np.array([1]))
    made = replace(pictured, gallery=one, gallery_paths=pictured.gallery_paths[:1])
    browser = RankingBrowser(collection=made, runs=tmp_path)
    browser.show_ignored = True
    assert len(gallery(browser)) == 1
    assert "1 of 1 images" in browser._statement.value
    browser.reranked = True
    assert len(gallery(browser)) == 1


def test_a_deleted_image_is_said_and_the_others_are_shown(browser):
    entry = browser.shown.entries[2]
    lost = browser._collection.gallery_paths[entry.gallery_index]
    browser.browse(browser._collection)  # forgets its thumbnails
    content = lost.read_bytes()
    lost.unlink()
    browser.browse(browser._collection)
    assert f"none in {lost.name}; put the files back" in browser.said
    assert gallery(browser)[2].image.value == pictures.blank()
    assert gallery(browser)[1].image.value != pictures.blank()
    lost.write_bytes(content)
    browser.top = 9
    assert browser.said == ""
    assert gallery(browser)[2].image.value != pictures.blank()


def test_names_are_shown_as_text(pictured, tmp_path):
    name = "<img src=x onerror=alert(1)>.jpg"
    path = tmp_path / "images" / name
    write_image(path)
    made = replace(
        pictured,
        title="<script>alert(1)</script>",
        query_paths=(path,) * 12,
        gallery_paths=(path,) * 40,
    )
    browser = RankingBrowser(collection=made, runs=tmp_path / "<i>runs")
    texts = [browser._query.caption.value, *(card.caption.value for card in gallery(browser))]
    for text in texts:
        assert "<img" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in text
    path.unlink()
    browser.browse(made)
    assert name in browser.said
    assert "<img" not in browser._message.value


def test_an_image_beside_the_query(with_network):
    browser = with_network
    assert browser._comparison.layout.display == "none"
    browser._cards[1].button.click()
    assert browser.chosen == browser.shown.entries[1].gallery_index
    assert browser._comparison.layout.display == ""
    picture = Image.open(io.BytesIO(browser._comparison._picture.value))
    assert picture.format == "PNG"
    assert "reid-chosen" in browser._cards[1]._dom_classes
    assert "reid-chosen" not in browser._cards[0]._dom_classes
    for part in browser.shown.parts:
        assert part.name in browser._comparison._table.value
    browser.feature = next(name for name in browser._collection.branches if name != "full")
    assert browser._comparison.layout.display == "none"
    assert browser.chosen == -1
    browser._cards[0].button.click()
    assert browser._comparison.layout.display == ""
    assert browser.said == browser.shown.message


def test_without_a_network_there_is_a_table_and_a_word(browser):
    browser._cards[0].button.click()
    assert "part attention needs the network" in browser.said
    assert browser._comparison.layout.display == ""
    assert browser._comparison._picture.layout.display == "none"


def test_nothing_of_one_run_is_shown_under_the_name_of_another(browser, pictured):
    browser.query_person, browser.persons = str(browser.shown.person), "four"
    browser._cards[0].button.click()
    strangers = Embeddings(pictured.query.features[:4], np.full(4, 77), pictured.query.camera_ids[:4])
    other = replace(pictured, title="other", query=strangers, query_paths=pictured.query_paths[:4])
    browser.browse(other)
    assert (browser.shown.person, browser.query_person, browser.persons) == (77, "", "")
    assert "Query 1 of 4" in browser._statement.value
    assert browser._comparison.layout.display == "none"
    lines = list(csv.DictReader(browser.save_list().open()))
    assert {line["of"] for line in lines} == {"other"}
    broken = replace(other, query=None)
    browser.browse(broken)
    assert browser.shown is None
    assert browser._lists.layout.display == browser._saving.layout.display == "none"
    assert browser.save_list() is None


def test_what_a_program_sets_is_shown_or_refused(browser):
    browser.feature, browser.cameras = "local", (2,)
    assert (browser._controls.feature.value, browser._controls.cameras.value) == ("local", (2,))
    browser.position = 500
    assert (browser.position, browser._controls.place.value) == (11, 12)
    browser.position = -5
    assert browser.position == 0
    browser.top = 1000
    assert browser.top == browser._controls.top.value == 50
    browser.top = 0
    assert browser.top == browser._controls.top.value == 1
    for trait, value in (("feature", "level 9"), ("cameras", (99,))):
        shown, before = browser.shown, getattr(browser, trait)
        setattr(browser, trait, value)
        assert "got" in browser.said
        assert browser.shown is shown
        setattr(browser, trait, before)
    browser.query_camera = 99
    assert "got 99; choose one of those" in browser.said


def test_any_error_is_told(browser, monkeypatch):
    def fail(*arguments, **settings):
        raise MemoryError("no room for\nthis")

    monkeypatch.setattr("reidlib.visual.browser.view", fail)
    browser.position = 3
    assert browser.said == "MemoryError: no room for"
    monkeypatch.setattr("reidlib.visual.browser.controls.Run.open", fail)
    browser._chooser._folder.value = "anything"
    browser._chooser.load()
    assert browser.said == "MemoryError: no room for"
    assert not browser._chooser._load.disabled


def test_lists_that_differ_are_other_files(browser):
    browser.cameras = (1,)
    first = browser.save_list()
    browser.cameras = (2,)
    second = browser.save_list()
    assert first != second
    assert {line["camera"] for line in csv.DictReader(first.open())} == {"1"}
    assert {line["filters"] for line in csv.DictReader(second.open())} == {"camera 2"}
    browser.position = 1
    assert browser._saving._told.value == ""


def test_a_title_is_no_formula(pictured, tmp_path):
    browser = RankingBrowser(
        collection=replace(pictured, title=r"cost$\alhpa$5"), out=tmp_path / "out", runs=tmp_path
    )
    assert browser.save_picture().is_file()


def test_saved_views(browser, tmp_path):
    browser.top = 14
    picture, listed = browser.save_picture(), browser.save_list()
    assert picture.parent == listed.parent == tmp_path / "out"
    assert Image.open(picture).format == "PNG"
    lines = list(csv.DictReader(listed.open()))
    assert [Path(line["image"]).name for line in lines] == [
        f"g{entry.gallery_index}.jpg" for entry in browser.shown.entries
    ]
    assert str(listed) in browser._saving._told.value


def test_a_folder_that_cannot_be_written_is_said(browser, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert browser.save_list() is None
    assert "must be written" in browser.said


def test_no_run_yet_offers_to_choose_or_train(tmp_path):
    browser = RankingBrowser(runs=tmp_path / "runs")
    assert browser.said == (
        "a ranking is that of a trained run; got none; choose one above and press load, or press train: "
        "about two minutes on two cores"
    )
    assert browser._chooser._controls.layout.display == ""
    assert browser._controls.order.disabled
    browser._chooser.load()
    assert "got none; choose one" in browser.said
    browser.order, browser.position = "random", 4  # nothing to show, and nothing goes wrong
    assert browser.shown is None
    assert browser.save_picture() is None


def test_a_run_is_loaded_and_refused(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    run = untrained(load("market1501", market), tmp_path / "runs")
    browser = RankingBrowser(tmp_path / "nowhere", runs=tmp_path / "runs")
    assert "a run's folder holds config.json" in browser.said
    chooser = browser._chooser
    chooser._known.value = run.folder  # empties what was typed
    assert chooser._folder.value == ""
    chooser.load()
    assert "a run is evaluated on the folder it was trained on; got no folder" in browser.said
    chooser._data_root.value = str(market)
    chooser.load()
    assert browser.said == ""
    assert browser._chooser._unfolded.description == f"Run: {run.folder.name} on market1501"
    assert not browser._controls.order.disabled
    assert len(gallery(browser)) > 0
    (run.folder / "weights.pt").unlink()
    chooser.load()
    assert "this needs the run's weights" in browser.said


def test_another_benchmark_than_the_runs_own(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    run = untrained(load("market1501", market), tmp_path / "runs")
    browser = RankingBrowser(run.folder, benchmark="dukemtmc", runs=tmp_path / "runs")
    assert "a benchmark that a run was not trained on is read from a folder" in browser.said


def test_bars_have_one_scale_and_name_every_part():
    parts = collection().parts
    drawn = pictures.bars(parts, np.array([1.0, 2.0, 4.0]), longest=8.0)
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.11)
    assert widths[2] == pytest.approx(4 * widths[0], abs=0.25)
    assert widths[2] == pytest.approx(66 / 2, abs=0.1)
    assert "local 2: 4, 57 % of the squared distance" in drawn
    assert "most from local 2" in drawn
    assert "nan" not in pictures.bars(parts, np.zeros(3), longest=0.0)


def test_papermill_is_no_front_end(monkeypatch):
    assert not front_end_present()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5.13")
    assert front_end_present()
