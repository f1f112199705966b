"""The ranking browser without a web page: tests set its traits and controls."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from miniature import write_image
from PIL import Image
from test_browser_views import make_collection, with_training
from untrained_runs import JLML, PYRAMID, QUIET, untrained_run

from reidlib.data import load
from reidlib.ranking.metrics import Embeddings
from reidlib.visual.browser import RankingBrowser, has_front_end, pictures
from reidlib.visual.browser.collection import embed_benchmark
from reidlib.visual.browser.views import Options, view


@pytest.fixture
def image_collection(tmp_path):
    """Create a collection with an image file for every path."""
    collection = make_collection()
    sides = {}
    for name in ("query_paths", "gallery_paths"):
        sides[name] = tuple(tmp_path / "images" / path for path in getattr(collection, name))
        (tmp_path / "images").mkdir(exist_ok=True)
        for seed, path in enumerate(sides[name]):
            write_image(path, seed=seed)
    return replace(collection, **sides)


@pytest.fixture
def browser(image_collection, tmp_path):
    return RankingBrowser(collection=image_collection, out=tmp_path / "out", runs=tmp_path / "runs")


@pytest.fixture(params=[JLML, PYRAMID], ids=["jlml", "pyramid"])
def with_network(request, market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    benchmark = load("market1501", market)
    run = untrained_run(benchmark, tmp_path / "runs", request.param)
    collection, model = embed_benchmark(run, benchmark, execution=QUIET)
    return RankingBrowser(collection=collection, model=model, out=tmp_path / "out", runs=tmp_path / "runs")


def gallery(browser) -> list:
    return list(browser._gallery.children)


def ranks(browser) -> list[str]:
    return [re.search(r"<b>(.*?)</b>", card.caption.value).group(1) for card in gallery(browser)]


def test_the_summary_names_the_order(browser):
    assert ranks(browser) == [f"rank {rank}" for rank in range(1, 11)]
    summary = browser._summary.value
    assert (
        "Query 1 of 12, order: lowest average precision first (full feature, Euclidean distance)" in summary
    )
    assert "Numbers: distance. Bars" in summary
    assert browser.message == ""
    picture = Image.open(io.BytesIO(gallery(browser)[0].image.value))
    assert picture.format == "JPEG"
    browser.reranked = True
    assert "Numbers: distance, mixed by re-ranking. Bars" in browser._summary.value
    assert "squared distance before re-ranking, all on one scale" in browser._summary.value


def test_a_learnt_metric_is_one_more_distance(image_collection, tmp_path):
    collection, _ = with_training(image_collection, persons=4)
    browser = RankingBrowser(collection=collection, out=tmp_path / "out", runs=tmp_path / "runs")
    assert "<svg" in gallery(browser)[0].caption.value
    browser._controls.metric.value = "XQDA"
    assert browser.metric == "XQDA" and browser.message == ""
    summary = browser._summary.value
    assert "XQDA was learnt from 24 training images of 4 persons of a set, in " in summary
    assert "Numbers: squared distance by XQDA, which may be negative." in summary
    assert "No bars: it also weighs pairs of two parts" in summary
    assert " ▲ ▼: ranks gained or lost against cosine distance. Numbers" in summary
    assert not any("<svg" in card.caption.value for card in gallery(browser))
    gallery(browser)[0].button.click()
    assert "XQDA is no sum over parts" in browser._comparison._note.value
    assert browser._comparison._table.value == ""
    assert browser.save_picture().is_file() and browser.save_list().is_file()
    earlier = browser.current_view
    browser.reranked = True
    assert "got XQDA, which subtracts in some directions" in browser.message
    assert browser.current_view is earlier and "No bars" in browser._summary.value
    browser.metric = "euclidean"
    assert browser.message == "" and "<svg" in gallery(browser)[0].caption.value


def test_rows_of_a_figure_name_their_distance_if_there_are_several(image_collection):
    collection, _ = with_training(image_collection, persons=4)
    lists = [view(collection, 0, Options(metric=metric)) for metric in ("cosine", "XQDA")]
    for views, expected in ((lists, [["cosine"], ["XQDA (learnt)"]]), (lists[:1], [[]])):
        figure = pictures.view_figure(views, collection)
        labels = [text.get_text() for text in figure.findobj(Text) if text.get_text().startswith("query 0")]
        assert [label.split("\n")[2:] for label in labels] == expected


def test_without_training_images_a_learnt_metric_is_a_message(browser):
    before = browser.current_view
    browser.metric = "CRAFT"
    assert browser.message == (
        "a metric is learnt from the images that a run was trained on; got features without a run; "
        "open a run that has weights"
    )
    assert browser.current_view is before and "Euclidean distance" in browser._summary.value


def test_every_trait_changes_the_view(browser):
    def changed(**traits):
        before = browser.current_view
        for name, value in traits.items():
            setattr(browser, name, value)
        assert browser.current_view is not before, traits
        return browser.current_view

    assert changed(position=3).query_index != changed(position=4).query_index
    assert len(changed(top=4).entries) == len(gallery(browser)) == 4
    assert changed(feature="local").options.feature == "local"
    assert changed(metric="cosine").options.metric == "cosine"
    assert all(entry.rank_gain is not None for entry in changed(reranked=True).entries)
    assert {entry.camera for entry in changed(cameras=(2,)).entries} == {2}
    assert {entry.person for entry in changed(persons="1, 2 3").entries} <= {1, 2, 3}
    assert changed(show_ignored=True).options.show_ignored
    assert changed(query_camera=1).camera == 1
    assert changed(order="random", query_camera="all").options.top == 4
    person = browser.current_view.person
    assert changed(query_person=str(person)).person == person


def test_controls_and_traits_are_synchronised(browser):
    controls = browser._controls
    controls.next.click()
    assert (browser.position, controls.position.value) == (1, 2)
    controls.previous.click()
    controls.previous.click()
    assert browser.position == 0
    controls.position.value = 5
    assert browser.position == 4
    controls.index.value = 7
    assert browser.current_view.query_index == 7
    controls.top.value = 3
    assert browser.top == 3
    browser.metric = "cosine"
    assert controls.metric.value == "cosine"
    controls.feature.value = "global"
    assert browser.current_view.options.feature == "global"
    controls.cameras.value = (1, 3)
    assert browser.cameras == (1, 3)
    browser.query_camera = 2
    assert controls.position.max < 12


def test_invalid_input_gives_a_message_and_keeps_the_list(browser):
    for trait, value, message in (
        ("persons", "four", "person ids are whole numbers, separated by commas; got 'four'"),
        ("query_person", "99", "got no query of person 99; relax the query filters"),
        ("query_person", "<b>", "whole numbers"),
    ):
        query_view = browser.current_view
        setattr(browser, trait, value)
        assert message in browser.message
        assert "the last valid filter stays" in browser.message
        assert browser.current_view.query_index == query_view.query_index
        assert browser._summary.value != pictures.note_html("computing …")
        assert "<b>" not in browser._message_box.value
        browser._controls.next.click()
        assert message in browser.message  # while the field is invalid
        assert browser.position == 1
        setattr(browser, trait, "")
        assert browser.message == ""
        browser.position = 0
    query_view = browser.current_view
    browser.query_camera = int(np.setdiff1d(browser._collection.query.camera_ids, [query_view.camera])[0])
    browser._controls.index.value = query_view.query_index
    assert f"got query {query_view.query_index}; relax" in browser.message


def test_an_empty_list_has_a_message(browser):
    browser.persons = "77"
    assert "got none of person 77; relax the filters" in browser.message
    assert gallery(browser) == []
    assert browser.save_picture() is None
    browser.persons = ""
    assert browser.message == ""
    assert len(gallery(browser)) == 10


def test_a_query_without_a_match_has_a_message(image_collection, tmp_path):
    unmatched = Embeddings(
        image_collection.query.features, np.full(12, 99), image_collection.query.camera_ids
    )
    browser = RankingBrowser(collection=replace(image_collection, query=unmatched), runs=tmp_path)
    assert "no such image for person 99" in browser.message
    assert "no match in the gallery" in browser._query.caption.value
    assert len(gallery(browser)) == 10


def test_a_gallery_of_one_image(image_collection, tmp_path):
    single_image = Embeddings(image_collection.gallery.features[:1], np.array([3]), np.array([1]))
    collection = replace(
        image_collection, gallery=single_image, gallery_paths=image_collection.gallery_paths[:1]
    )
    browser = RankingBrowser(collection=collection, runs=tmp_path)
    browser.show_ignored = True
    assert len(gallery(browser)) == 1
    assert "1 of 1 images" in browser._summary.value
    browser.reranked = True
    assert len(gallery(browser)) == 1


def test_a_deleted_image_is_named_and_the_others_are_displayed(browser):
    entry = browser.current_view.entries[2]
    deleted = browser._collection.gallery_paths[entry.gallery_index]
    browser.browse(browser._collection)  # clears the cache of thumbnails
    content = deleted.read_bytes()
    deleted.unlink()
    browser.browse(browser._collection)
    assert f"unreadable files {deleted.name}; restore the files" in browser.message
    assert gallery(browser)[2].image.value == pictures.blank()
    assert gallery(browser)[1].image.value != pictures.blank()
    deleted.write_bytes(content)
    browser.top = 9
    assert browser.message == ""
    assert gallery(browser)[2].image.value != pictures.blank()


def test_names_are_escaped(image_collection, tmp_path):
    name = "<img src=x onerror=alert(1)>.jpg"
    path = tmp_path / "images" / name
    write_image(path)
    collection = replace(
        image_collection,
        title="<script>alert(1)</script>",
        query_paths=(path,) * 12,
        gallery_paths=(path,) * 40,
    )
    browser = RankingBrowser(collection=collection, runs=tmp_path / "<i>runs")
    texts = [browser._query.caption.value, *(card.caption.value for card in gallery(browser))]
    for text in texts:
        assert "<img" not in text
        assert "&lt;img src=x onerror=alert(1)&gt;.jpg" in text
    path.unlink()
    browser.browse(collection)
    assert name in browser.message
    assert "<img" not in browser._message_box.value


def test_selecting_an_image_compares_it_with_the_query(with_network):
    browser = with_network
    assert browser._comparison.layout.display == "none"
    browser._cards[1].button.click()
    assert browser.selection == browser.current_view.entries[1].gallery_index
    assert browser._comparison.layout.display == ""
    picture = Image.open(io.BytesIO(browser._comparison._picture.value))
    assert picture.format == "PNG"
    assert "reid-selected" in browser._cards[1]._dom_classes
    assert "reid-selected" not in browser._cards[0]._dom_classes
    for part in browser.current_view.parts:
        assert part.name in browser._comparison._table.value
    browser.feature = next(name for name in browser._collection.branches if name != "full")
    assert browser._comparison.layout.display == "none"
    assert browser.selection == -1
    browser._cards[0].button.click()
    assert browser._comparison.layout.display == ""
    assert browser.message == browser.current_view.message


def test_without_a_network_there_are_a_table_and_a_message(browser):
    browser._cards[0].button.click()
    assert "part attention needs the network" in browser.message
    assert browser._comparison.layout.display == ""
    assert browser._comparison._picture.layout.display == "none"


def test_a_new_collection_replaces_everything_of_the_previous_one(browser, image_collection):
    browser.query_person, browser.persons = str(browser.current_view.person), "four"
    browser._cards[0].button.click()
    other_queries = Embeddings(
        image_collection.query.features[:4], np.full(4, 77), image_collection.query.camera_ids[:4]
    )
    other = replace(
        image_collection,
        title="other",
        query=other_queries,
        query_paths=image_collection.query_paths[:4],
    )
    browser.browse(other)
    assert (browser.current_view.person, browser.query_person, browser.persons) == (77, "", "")
    assert "Query 1 of 4" in browser._summary.value
    assert browser._comparison.layout.display == "none"
    lines = list(csv.DictReader(browser.save_list().open()))
    assert {line["of"] for line in lines} == {"other"}
    broken = replace(other, query=None)
    browser.browse(broken)
    assert browser.current_view is None
    assert browser._lists.layout.display == browser._saving.layout.display == "none"
    assert browser.save_list() is None


def test_trait_values_are_displayed_clipped_or_refused(browser):
    browser.feature, browser.cameras = "local", (2,)
    assert (browser._controls.feature.value, browser._controls.cameras.value) == ("local", (2,))
    browser.position = 500
    assert (browser.position, browser._controls.position.value) == (11, 12)
    browser.position = -5
    assert browser.position == 0
    browser.top = 1000
    assert browser.top == browser._controls.top.value == 50
    browser.top = 0
    assert browser.top == browser._controls.top.value == 1
    for trait, value in (("feature", "level 9"), ("cameras", (99,))):
        query_view, before = browser.current_view, getattr(browser, trait)
        setattr(browser, trait, value)
        assert "got" in browser.message
        assert browser.current_view is query_view
        setattr(browser, trait, before)
    browser.query_camera = 99
    assert "got 99; name one of them" in browser.message


def test_unexpected_errors_become_messages(browser, monkeypatch):
    def fail(*arguments, **settings):
        raise MemoryError("no room for\nthis")

    monkeypatch.setattr("reidlib.visual.browser.view", fail)
    browser.position = 3
    assert browser.message == "MemoryError: no room for"
    monkeypatch.setattr("reidlib.visual.browser.controls.Run.open", fail)
    browser._chooser._folder.value = "anything"
    browser._chooser.load()
    assert browser.message == "MemoryError: no room for"
    assert not browser._chooser._load.disabled


def test_different_lists_are_saved_to_different_files(browser):
    browser.cameras = (1,)
    first = browser.save_list()
    browser.cameras = (2,)
    second = browser.save_list()
    assert first != second
    assert {line["camera"] for line in csv.DictReader(first.open())} == {"1"}
    assert {line["filters"] for line in csv.DictReader(second.open())} == {"camera 2"}
    browser.position = 1
    assert browser._saving._note.value == ""


def test_a_title_is_not_parsed_as_a_formula(image_collection, tmp_path):
    browser = RankingBrowser(
        collection=replace(image_collection, title=r"cost$\alhpa$5"),
        out=tmp_path / "out",
        runs=tmp_path,
    )
    assert browser.save_picture().is_file()


def test_views_are_saved(browser, tmp_path):
    browser.top = 14
    picture, csv_file = browser.save_picture(), browser.save_list()
    assert picture.parent == csv_file.parent == tmp_path / "out"
    assert Image.open(picture).format == "PNG"
    lines = list(csv.DictReader(csv_file.open()))
    assert [Path(line["image"]).name for line in lines] == [
        f"g{entry.gallery_index}.jpg" for entry in browser.current_view.entries
    ]
    assert str(csv_file) in browser._saving._note.value


def test_an_unwritable_folder_gives_a_message(browser, tmp_path):
    (tmp_path / "out").write_text("a file")
    assert browser.save_list() is None
    assert "must be written" in browser.message


def test_without_a_run_the_browser_offers_to_choose_or_train(tmp_path):
    browser = RankingBrowser(runs=tmp_path / "runs")
    assert browser.message == (
        "a ranking needs a trained run; got none; choose a run above and press load, or press train, which "
        "takes about two minutes on two CPU cores"
    )
    assert browser._chooser._controls.layout.display == ""
    assert browser._controls.order.disabled
    browser._chooser.load()
    assert "got none; choose a run above" in browser.message
    browser.order, browser.position = "random", 4  # without a collection, this has no effect
    assert browser.current_view is None
    assert browser.save_picture() is None


def test_runs_are_loaded_or_refused(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    run = untrained_run(load("market1501", market), tmp_path / "runs")
    browser = RankingBrowser(tmp_path / "nowhere", runs=tmp_path / "runs")
    assert "a run's folder holds config.json" in browser.message
    chooser = browser._chooser
    chooser._run.value = run.folder  # clears the typed folder
    assert chooser._folder.value == ""
    chooser.load()
    assert "a run is evaluated on the folder it was trained on; got no folder" in browser.message
    chooser._data_root.value = str(market)
    chooser.load()
    assert browser.message == ""
    assert browser._chooser._unfolded.description == f"Run: {run.folder.name} on market1501"
    assert not browser._controls.order.disabled
    assert len(gallery(browser)) > 0
    (run.folder / "weights.pt").unlink()
    chooser.load()
    assert "this needs the run's weights" in browser.message


def test_another_benchmark_needs_its_folder(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    run = untrained_run(load("market1501", market), tmp_path / "runs")
    browser = RankingBrowser(run.folder, benchmark="dukemtmc", runs=tmp_path / "runs")
    assert "a benchmark that a run was not trained on is read from a folder" in browser.message


def test_bars_share_a_scale_and_name_every_part():
    parts = make_collection().parts
    chart = pictures.bars(parts, np.array([1.0, 2.0, 4.0]), longest=8.0)
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', chart)]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.11)
    assert widths[2] == pytest.approx(4 * widths[0], abs=0.25)
    assert widths[2] == pytest.approx(66 / 2, abs=0.1)
    assert "local 2: 4, 57 % of the squared distance" in chart
    assert "the largest is from local 2" in chart
    assert "nan" not in pictures.bars(parts, np.zeros(3), longest=0.0)


def test_papermill_is_not_a_front_end(monkeypatch):
    assert not has_front_end()
    monkeypatch.setenv("SERVER_SOFTWARE", "voila/0.5.13")
    assert has_front_end()
