"""Searching own images: lists by a plain loop, verdicts, what is written, and what is refused."""

import csv
import json
import math
import os
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import write_image
from PIL import Image
from untrained_runs import PYRAMID, untrained_run

from reidlib.data import load
from reidlib.data.names import doubt_key, name_key, special_person
from reidlib.errors import InputError
from reidlib.ranking import distances
from reidlib.search import nearest_images, same_images, search
from reidlib.search.features import FeatureSet, save_features, write_features
from reidlib.search.figures import RankedImage, SheetRow, _font, _wrapped, contact_sheet, distance_figure
from reidlib.search.verification import PairHistogram, threshold_for

QUIET = {"device": "cpu", "progress": False}
INFORMATION = {"format": 1, "network": "abc", "run": "name"}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture
def benchmark(market):
    return load("market1501", market)


@pytest.fixture
def run(benchmark, tmp_path):
    return untrained_run(benchmark, tmp_path / "runs").folder


def people(root, persons=4, cameras=2, seed=0):
    """A folder per person with one image from each camera."""
    for person in range(1, persons + 1):
        for camera in range(1, cameras + 1):
            path = root / f"{person:04}" / f"{person:04}_c{camera}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, seed=seed + 10 * person + camera)
    return root


def saved(path, features, persons=None, cameras=None, root=None, **information):
    """Write a file of features of images that do not exist."""
    features = np.array(features, np.float32).reshape(len(features), -1)
    count = len(features)
    names = tuple(f"{path.stem}{index}.jpg" for index in range(count))
    labels = tuple(persons or [""] * count), tuple(cameras or [""] * count)
    save_features(FeatureSet(features, names, *labels, INFORMATION | information, root), path)
    return path


def table(out):
    with (out / "ranked.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# --- the nearest images -------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [1, 4, 30])
def test_ranked_lists_equal_a_naive_loop_for_any_block_size(monkeypatch, top):
    monkeypatch.setattr("reidlib.ranking.nearest._QUERIES", 3)
    monkeypatch.setattr("reidlib.ranking.nearest.TILE", {"cpu": 4, "cuda": 4})
    monkeypatch.setattr("reidlib.ranking.nearest._MEASURED", 5)
    random = np.random.default_rng(0)
    query, gallery = (random.normal(size=(count, 5)).astype(np.float32) for count in (8, 21))
    gallery[17] = gallery[2]  # copies: the lower index first
    excluded_pairs = (np.array([0, 0, 7]), np.array([3, 20, 2]))
    nearest = nearest_images(query, gallery, top=top, excluded_pairs=excluded_pairs)
    for q in range(8):
        order = sorted(
            (math.dist(query[q].tolist(), gallery[g].tolist()) if g not in (2, 17) else
             math.dist(query[q].tolist(), gallery[2].tolist()), g)
            for g in range(21) if (q, g) not in {(0, 3), (0, 20), (7, 2)}
        )[:top]  # fmt: skip
        assert nearest.gallery_indices[q, : len(order)].tolist() == [g for _, g in order]
        np.testing.assert_allclose(nearest.distances[q, : len(order)], [d for d, _ in order], rtol=1e-5)
        assert (nearest.gallery_indices[q, len(order) :] == -1).all()
        assert np.isnan(nearest.distances[q, len(order) :]).all()


def test_copies_are_ranked_by_index():
    features = np.tile(np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32), (12, 1))
    nearest = nearest_images(features[:2] + 1, features, top=5)
    assert nearest.gallery_indices.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize(("kinds", "copies"), [(1, 5000), (100, 50)])
def test_any_number_of_copies_is_ranked_by_index(monkeypatch, kinds, copies):
    """Also where a product is rounded by an image's place in its block, as it is on some machines."""
    random, original = np.random.default_rng(2), distances.float32_products

    def rounding(*arguments):
        products_qg = original(*arguments)
        return products_qg * (1 + 1e-7 * torch.from_numpy(random.normal(size=products_qg.shape)).float())

    kind_of = random.permutation(np.repeat(np.arange(kinds), copies))
    features = random.normal(size=(kinds, 33)).astype(np.float32)
    query = features[:3] + random.normal(size=(min(kinds, 3), 33)).astype(np.float32) / 50
    for product in (original, rounding):
        monkeypatch.setattr("reidlib.ranking.nearest.float32_products", product)
        nearest = nearest_images(query, features[kind_of], top=10)
        for row in range(len(query)):
            assert nearest.gallery_indices[row].tolist() == np.flatnonzero(kind_of == row)[:10].tolist()
            assert len(set(nearest.distances[row].tolist())) == 1


def test_the_same_file_is_found_by_path_and_by_link(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "c.jpg").symlink_to(tmp_path / "b.jpg")
    write_image(tmp_path / "other" / "a.jpg")  # the same name and content, another file

    def of(root, *names):
        features = np.ones((len(names), 2), np.float32)
        return FeatureSet(features, names, ("",) * len(names), ("",) * len(names), INFORMATION, root)

    first, second = of(tmp_path, "a.jpg", "b.jpg"), of(tmp_path / "other", "a.jpg", "c.jpg")
    pairs = same_images(first, second)
    assert [indices.tolist() for indices in pairs] == [[1], [1]]
    gone = of(tmp_path / "gone", "a.jpg")
    assert [indices.tolist() for indices in same_images(gone, gone)] == [[0], [0]]
    assert same_images(of(None, "a.jpg"), of(None, "a.jpg"))[0].size == 0


# --- a search as its user sees it ---------------------------------------------------------------------------


def test_a_search_of_folders_writes_lists_sheet_and_threshold(run, tmp_path):
    query, gallery = people(tmp_path / "query"), people(tmp_path / "gallery", persons=5, seed=3)
    result = search(query, gallery, run=run, out=tmp_path / "out", top=3, false_match_rate=0.2, **QUIET)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["ranked.csv", "contact_sheet.jpg", "distances.png", "threshold.json"]
    )
    rows = table(tmp_path / "out")
    assert len(rows) == 8 * 3
    assert [row["rank"] for row in rows[:4]] == ["1", "2", "3", "1"]
    threshold = json.loads((tmp_path / "out" / "threshold.json").read_text())
    for row in rows:
        assert row["match"] == ("yes" if row["query_person"] == row["person"] else "no")
        assert row["within_threshold"] == (
            "yes" if float(row["distance"]) <= threshold["threshold"] else "no"
        )
        assert row["image"].startswith(f"{row['person']}/{row['person']}_c{row['camera']}")
    # 8 queries of 4 persons in 2 cameras; each has one image from the other camera, and 8 of others.
    assert threshold["pairs"] == {"same_person": 8, "different_people": 64}
    assert threshold["false_matches"] == 12  # a fifth of 64, rounded down
    assert threshold["false_match_rate"] == {"asked": 0.2, "reached": 12 / 64}
    assert threshold["calibrated_on"]["persons"] == 5
    assert threshold["calibrated_on"]["cameras"] == 2
    assert "other cameras" in threshold["note"]
    with Image.open(tmp_path / "out" / "contact_sheet.jpg") as sheet:
        assert sheet.height > 8 * 200
    assert "8 query images, 10 gallery images" in result.text
    assert "12 of 64 pairs of different people" in result.text
    assert "measure it again for other cameras" in result.text


def test_an_image_is_not_listed_for_itself(run, tmp_path):
    root = people(tmp_path / "all")
    result = search(root, root, run=run, out=tmp_path / "out", top=50, false_match_rate=0.2, **QUIET)
    rows = table(tmp_path / "out")
    assert len(rows) == 8 * 7
    assert all(row["query"] != row["image"] for row in rows)
    assert "ranked lists end after 7 images" in result.text
    # Within one set each pair counts once: 8·7/2, of which 4 show one person.
    threshold = json.loads((tmp_path / "out" / "threshold.json").read_text())
    assert threshold["pairs"] == {"same_person": 4, "different_people": 24}
    # One image of it, searched for in all of them.
    image = root / "0001" / "0001_c1.jpg"
    search(image, root, run=run, out=tmp_path / "one", top=50, **QUIET)
    assert len(table(tmp_path / "one")) == 7


def test_features_give_the_same_results_as_their_images(run, tmp_path):
    query, gallery = people(tmp_path / "query"), people(tmp_path / "gallery", seed=3)
    search(query, gallery, run=run, out=tmp_path / "a", **QUIET)
    for name in ("query.npz", "gallery.parquet"):
        write_features(run, tmp_path / name.split(".")[0], tmp_path / name, **QUIET)
    features = tmp_path / "query.npz", tmp_path / "gallery.parquet"
    search(*features, out=tmp_path / "b", **QUIET)
    for name in ("ranked.csv", "contact_sheet.jpg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    search(query, features[1], run=run, out=tmp_path / "c", **QUIET)
    assert table(tmp_path / "c") == table(tmp_path / "a")


def test_unlabelled_images_need_calibration_images_for_a_threshold(run, tmp_path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for seed in range(5):
        write_image(flat / f"{seed}.jpg", seed=seed)
    result = search(flat / "0.jpg", flat, run=run, out=tmp_path / "out", **QUIET)
    assert "no threshold: " in result.text
    assert "--calibrate" in result.text
    assert {path.name for path in result.files} == {"ranked.csv", "contact_sheet.jpg"}
    assert {row["within_threshold"] for row in table(tmp_path / "out")} == {""}
    labelled = people(tmp_path / "labelled")
    options = {"run": run, "out": tmp_path / "out", "calibrate": labelled, "false_match_rate": 0.1}
    result = search(flat / "0.jpg", flat, **options, **QUIET)
    threshold = json.loads((tmp_path / "out" / "threshold.json").read_text())
    assert threshold["pairs"] == {"same_person": 4, "different_people": 24}
    assert threshold["calibrated_on"]["images_from"] == str(labelled)
    assert {row["within_threshold"] for row in table(tmp_path / "out")} <= {"yes", "no"}
    assert {row["match"] for row in table(tmp_path / "out")} == {""}
    # Files of the earlier search do not remain beside the new lists.
    search(flat / "0.jpg", flat, run=run, out=tmp_path / "out", sheet=0, **QUIET)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ranked.csv"]


def test_verdicts_by_hand(tmp_path):
    """Ten strangers 10, 20 … away from person a; another image of a is 12 away."""
    query = saved(tmp_path / "q.npz", [0.0], persons=["a"], cameras=["1"])
    strangers = [10.0 * step for step in range(1, 11)]
    gallery = saved(tmp_path / "g.npz", [12.0, *strangers], persons=["a", *"bcdefghijk"], cameras=["2"] * 11)
    result = search(query, gallery, out=tmp_path / "out", top=3, false_match_rate=0.1, **QUIET)
    threshold = result.ranking.calibration.threshold
    assert (threshold.num_false_matches, threshold.num_different, threshold.num_same) == (1, 10, 1)
    assert 19.9 < threshold.distance < 20
    rows = table(tmp_path / "out")
    assert [(row["image"], row["distance"], row["within_threshold"], row["match"]) for row in rows] == [
        ("g1.jpg", "10.000000", "yes", "no"),
        ("g0.jpg", "12.000000", "yes", "yes"),
        ("g2.jpg", "20.000000", "no", "no"),
    ]
    assert (
        "few pairs for this rate: even without a false match, a rate of up to 30 % is possible" in result.text
    )
    assert "no contact sheet: it lacks 4 images, such as g1.jpg" in result.text
    assert "the nearest image shows the query's person for 0 of 1 query image for which" in result.text
    assert "both persons are known (images of the same camera included)" in result.text
    assert f"up to distance {threshold.distance:.3f}:" in result.text
    # One of ten strangers matches, and ten of the eleven images are of strangers.
    summary = "a query is compared with 10 gallery images of other people on average: expect about 1 false"
    assert summary in result.text
    assert "the false matches come from 2 persons, in 1 of 10 pairs of people; these are few" in result.text
    content = json.loads((tmp_path / "out" / "threshold.json").read_text())
    assert content["false_matches_per_query"] == {
        "images_of_other_people": 10, "expected": pytest.approx(1), "upper_bound": False
    }  # fmt: skip
    assert content["false_matches_from"] == {"persons": 2, "pairs_of_persons": 1, "of_pairs_of_persons": 10}


def per_query(out):
    return json.loads((out / "threshold.json").read_text())["false_matches_per_query"]


def test_a_querys_own_images_are_not_counted_as_other_peoples(tmp_path):
    """Three images of a, two of b, one of c: a query meets 3, 4 or 5 of others, 22 of 6 on average."""
    images = saved(tmp_path / "f.npz", [0.0, 1, 2, 10, 11, 30], persons=[*"aaabbc"])
    options = {"out": tmp_path / "out", "false_match_rate": 0.5, **QUIET}
    threshold = search(images, images, **options).ranking.calibration.threshold
    # As often as a query really meets a false one: each false pair is met from both sides.
    assert per_query(tmp_path / "out") == {
        "images_of_other_people": pytest.approx(22 / 6),
        "expected": pytest.approx(2 * threshold.num_false_matches / 6),
        "upper_bound": False,
    }


def test_images_of_unknown_persons_make_the_number_of_other_peoples_an_upper_bound(tmp_path):
    labelled = saved(tmp_path / "known.npz", [0.0, 1, 10, 11], persons=[*"aabb"])
    mixed = saved(tmp_path / "mixed.npz", [0.0, 10, 50, 60, 70], persons=["a", "b", "", "", ""])
    unknown = saved(tmp_path / "unknown.npz", [0.0, 50, 60])
    options = {"out": tmp_path / "out", "false_match_rate": 0.5, "calibrate": labelled, **QUIET}
    for query, gallery, others in (
        (labelled, mixed, 4),  # one image is the query's own, three may be anybody's
        (mixed, labelled, (2 + 2 + 4 + 4 + 4) / 5),
        (unknown, unknown, 3),
        (unknown, labelled, 4),
    ):
        text = search(query, gallery, **options).text
        others_per_query = per_query(tmp_path / "out")
        assert others_per_query["images_of_other_people"] == pytest.approx(others)
        assert others_per_query["upper_bound"] is True
        average = (
            f"a query is compared with at most {round(others)} gallery images of other people on average"
        )
        assert f"{average}: expect at most" in text


def test_many_expected_false_matches_are_a_plain_number(tmp_path):
    query = saved(tmp_path / "q.npz", [0.0], persons=["a"])
    gallery = saved(tmp_path / "g.npz", [1.0, *range(2, 3002)], persons=["a", *["b"] * 3000])
    result = search(query, gallery, out=tmp_path / "out", top=1, false_match_rate=0.5, **QUIET)
    assert "compared with 3,000 gallery images of other people on average: expect about 1,500 " in result.text


def test_a_single_item_has_no_plural(tmp_path):
    query = saved(tmp_path / "q.npz", [0.0], persons=["a"], cameras=["1"])
    gallery = saved(tmp_path / "g.npz", [1.0, 9.0], persons=["a", "b"], cameras=["1", "1"])
    options = {"out": tmp_path / "out", "same_camera": True, **QUIET}
    text = search(query, gallery, false_match_rate=0.9999999999, top=1, **options).text
    for words in (
        "1 query image, 2 gallery images", "accepts 1 of 1 pair of different people",
        "100.0 % of 1 pair of one person", "compared with 1 gallery image of other people", "1 camera\n",
    ):  # fmt: skip
        assert words in text
    text = search(query, saved(tmp_path / "one.npz", [1.0]), **options).text
    assert "1 query image, 1 gallery image" in text
    assert "ranked lists end after 1 image: the gallery has no more" in text


def test_many_pairs_of_people_get_no_warning(tmp_path):
    """Twelve people whose images lie one beside the other: each is near the next one's."""
    features = [float(place) for place in range(12)] + [place + 0.1 for place in range(12)]
    cameras = ["1"] * 12 + ["2"] * 12
    images = saved(tmp_path / "f.npz", features, persons=[*"abcdefghijkl"] * 2, cameras=cameras)
    result = search(images, images, out=tmp_path / "out", false_match_rate=0.17, **QUIET)
    assert "come from 12 persons, in 11 of 66 pairs of people" in result.text
    assert "calibrate on more persons" not in result.text


def test_unknown_cameras_are_not_mentioned(tmp_path):
    images = saved(tmp_path / "f.npz", [0.0, 1.0, 5.0], persons=[*"aab"])
    assert "camera included" not in search(images, images, out=tmp_path / "out", **QUIET).text


@pytest.mark.parametrize("labelled_queries", [True, False])
def test_the_threshold_is_measured_within_the_side_with_known_persons(tmp_path, labelled_queries):
    labelled = saved(tmp_path / "own.npz", [0.0, 1.0, 5.0, 7.0], persons=[*"aabb"])
    flat = saved(tmp_path / "flat.npz", [0.5, 6.0])
    sides = (labelled, flat) if labelled_queries else (flat, labelled)
    result = search(*sides, out=tmp_path / "out", false_match_rate=0.3, **QUIET)
    assert f"{flat} has no known persons: the threshold is measured within {labelled}\n" in result.text
    assert result.ranking.calibration.source == str(labelled)
    assert result.ranking.calibration.num_images == 4
    threshold = result.ranking.calibration.threshold
    assert (threshold.num_same, threshold.num_different) == (2, 4)
    with pytest.raises(InputError, match=r"none known in .*flat\.npz; give some with --calibrate"):
        search(flat, flat, out=tmp_path / "new", false_match_rate=0.3, **QUIET)


@pytest.mark.parametrize("how", ["folder", "link", "elsewhere"])
def test_a_threshold_on_training_people_gets_a_remark(run, tmp_path, how):
    images = people(tmp_path / "data" / "images")
    trained_on = tmp_path / ("data" if how != "elsewhere" else "dat")
    (run / "run.json").write_text(json.dumps({"data_root": str(trained_on)}))
    folder = images
    if how == "link":
        (tmp_path / "linked").symlink_to(images)
        folder = tmp_path / "linked"
    result = search(folder, folder, run=run, out=tmp_path / "out", false_match_rate=0.2, **QUIET)
    assert ("people of the training is too high for other people" in result.text) == (how != "elsewhere")


def test_an_image_of_both_sets_counts_once(run, tmp_path):
    """Queries that lie in the gallery, too, give the threshold that the gallery gives alone."""
    gallery = people(tmp_path / "all", persons=5)
    queries = tmp_path / "some"
    for person in ("0001", "0002", "0003"):
        (queries / person).mkdir(parents=True)
        for image in sorted((gallery / person).iterdir()):
            (queries / person / image.name).symlink_to(image)
    options = {"run": run, "false_match_rate": 0.2, "sheet": 0, **QUIET}
    calibration = search(queries, gallery, out=tmp_path / "out", **options).ranking.calibration
    assert calibration.num_images == 10
    # Pairs of the six queries: 3 of one person and 12 of two. With the four other images 24 of two.
    assert (calibration.threshold.num_same, calibration.threshold.num_different) == (3, 36)
    assert calibration.false_matches.num_possible_pairs == 3 + 6


def test_leading_zeros_do_not_separate_persons(tmp_path):
    query = saved(tmp_path / "q.npz", [0.0], persons=["0002"], cameras=["c"])
    gallery = saved(tmp_path / "g.npz", [1.0, 2.0], persons=["2", "x"], cameras=["d", "d"])
    search(query, gallery, out=tmp_path / "out", **QUIET)
    assert [row["match"] for row in table(tmp_path / "out")] == ["yes", "no"]


def test_a_spelling_in_doubt_makes_no_pair_of_different_people(tmp_path):
    """Bob stands at 5 and bob at 5.1: their pair is no false match, and no verdict is given on it."""
    query = saved(
        tmp_path / "q.npz", [0.0, 5.0, 9.0], persons=["Anna", "Bob", "7"], cameras=["Door", "1", "1"]
    )
    persons, cameras = ["anna", "bob", "7.0", "Anna"], ["2", "2", "2", "door"]
    gallery = saved(tmp_path / "g.npz", [0.1, 5.1, 9.4, 0.3], persons=persons, cameras=cameras)
    result = search(query, gallery, out=tmp_path / "out", false_match_rate=0.15, **QUIET)
    threshold = result.ranking.calibration.threshold
    # Of 12 pairs, 7 = 7.0 is one person; Anna's is in one camera if Door is door; Anna-anna and Bob-bob are
    # in doubt. The eight others are different people, at least 3.9 and then 4.4 apart; one may be accepted.
    assert (threshold.num_same, threshold.num_different, threshold.num_false_matches) == (1, 8, 1)
    assert threshold.distance == pytest.approx(4.4, abs=0.001)
    matches = {(row["query_person"], row["person"]): row["match"] for row in table(tmp_path / "out")}
    assert matches["Anna", "anna"] == matches["Bob", "bob"] == ""
    assert matches["Anna", "bob"] == "no" and matches["7", "7.0"] == matches["Anna", "Anna"] == "yes"
    for line in (
        "spellings taken for one person: 7 = 7.0",
        "spellings taken for several persons, which may be one: Anna and anna, Bob and bob",
        "spellings taken for several cameras, which may be one: Door and door",
    ):
        assert result.text.splitlines().count(line) == 1
    only_doubts = [
        saved(tmp_path / f"{name}.npz", [0.0, 5.0], persons=[name, "x"]) for name in ("Zoe", "zoe")
    ]
    with pytest.raises(InputError, match="of different people; got 2 pairs"):
        search(*only_doubts, out=tmp_path / "new", false_match_rate=0.3, **QUIET)


def test_a_name_that_may_mean_unknown_makes_no_pair(tmp_path):
    """Images of N/A may show anybody: two of them need not be one person, nor one and Anna two."""
    people = saved(
        tmp_path / "f.npz",
        [0.0, 0.1, 5.0, 5.1, 0.2, 9.0, 0.3],
        persons=["Anna", "Anna", "Bob", "Bob", "N/A", "N/A", "none"],
        cameras=[*"1212123"],
    )
    result = search(people, people, out=tmp_path / "out", false_match_rate=0.3, **QUIET)
    threshold = result.ranking.calibration.threshold
    assert (threshold.num_same, threshold.num_different) == (2, 4)
    assert result.ranking.calibration.num_persons == 2 and result.ranking.calibration.num_images == 4
    assert all(
        (row["match"] == "") == bool({row["query_person"], row["person"]} & {"N/A", "none"})
        for row in table(tmp_path / "out")
    )
    assert "names taken for a person (by search for nobody), which may mean unknown: N/A, none" in result.text


def test_unicode_forms_are_one_person_between_two_sets(run, tmp_path):
    for form, folder in (("NFC", "one"), ("NFD", "two")):
        for camera in "12":
            path = tmp_path / folder / unicodedata.normalize(form, "Zo\xeb") / camera / "x.jpg"
            path.parent.mkdir(parents=True)
            write_image(path)
    search(tmp_path / "one", tmp_path / "two", run=run, out=tmp_path / "out", sheet=0, **QUIET)
    assert {row["match"] for row in table(tmp_path / "out")} == {"yes"}


SPELLINGS = (
    "7",
    "007",
    "7.0",
    "\uff17",
    "7,0",
    "p7",
    "Zo\xeb",
    "Zoe\u0308",
    "zo\xeb",
    " Zo\xeb",
    "nan",
    "N/A",
    "",
    "-1.0",
    "0",
    "junk",
)


@given(
    st.lists(st.sampled_from(SPELLINGS), min_size=1, max_size=6),
    st.lists(st.sampled_from(SPELLINGS), min_size=1),
)
@settings(max_examples=40, deadline=None)
def test_files_of_features_have_the_persons_of_the_rule(tmp_path_factory, first, second):
    """Within one file and between two, images match if and only if their names are spellings of one."""
    folder = tmp_path_factory.mktemp("files")
    query = saved(folder / "q.npz", [*range(len(first))], persons=first)
    gallery = saved(folder / "g.npz", [*range(len(second))], persons=second)
    search(query, gallery, out=folder / "out", sheet=0, top=len(second), **QUIET)
    rows = table(folder / "out")
    assert len(rows) == len(first) * len(second)
    for row in rows:
        names = (first[int(row["query"][1:-4])], second[int(row["image"][1:-4])])
        if any(special_person(name) is not None or not doubt_key(name) for name in names):
            assert row["match"] == ""
        elif name_key(names[0]) == name_key(names[1]):
            assert row["match"] == "yes"
        else:
            assert row["match"] == ("" if doubt_key(names[0]) == doubt_key(names[1]) else "no")


def test_a_single_camera_needs_same_camera(tmp_path):
    features = saved(tmp_path / "f.npz", [0.0, 1, 10, 11, 30], persons=[*"aabbc"], cameras=["1"] * 5)
    result = search(features, features, out=tmp_path / "out", **QUIET)
    assert "no threshold: a threshold is measured on pairs of one person in two cameras" in result.text
    assert "--same-camera" in result.text
    with pytest.raises(InputError, match="two cameras; got none in"):
        search(features, features, out=tmp_path / "new", false_match_rate=0.5, **QUIET)
    options = {"out": tmp_path / "new", "false_match_rate": 0.5, "same_camera": True}
    calibration = search(features, features, **options, **QUIET).ranking.calibration
    assert calibration.threshold.num_same == 2
    assert json.loads((tmp_path / "new" / "threshold.json").read_text())["calibrated_on"][
        "same_person_pairs_within_a_camera"
    ]


def test_an_unmeasurable_rate_is_refused_only_if_requested(tmp_path):
    query = saved(tmp_path / "q.npz", [0.0], persons=["a"])
    gallery = saved(tmp_path / "g.npz", [1.0, 2.0], persons=["a", "b"])
    pairs = saved(tmp_path / "p.npz", [1.0, 2.0, 3.0], persons=["a", "b", "a"])
    assert "no threshold: a false-match rate" in search(query, gallery, out=tmp_path / "out", **QUIET).text
    with pytest.raises(InputError, match="needs at least 1,000 pairs"):
        search(query, gallery, out=tmp_path / "new", false_match_rate=0.001, **QUIET)
    with pytest.raises(InputError, match="needs at least 1,000 pairs"):
        search(query, gallery, out=tmp_path / "new", calibrate=pairs, **QUIET)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"top": 0}, "at least one image"),
        ({"false_match_rate": 0.0}, "between 0 and 1"),
        ({"sheet": 1000}, "at most 200"),
        ({"device": "abacus"}, "device"),
        ({"calibrate": "unlabelled.npz"}, "persons are known; got none known"),
        ({"out": "q.npz"}, "writes to a folder"),
        ({"query": "gone"}, "run"),
        ({"query": "gone.npz"}, r"no file .*gone\.npz"),
        ({"gallery": "long.npz"}, "one trained run computed them; got .*other of long"),
    ],
)
def test_bad_input_gets_one_line_and_writes_nothing(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "q.npz", [0.0], persons=["a"])
    saved(tmp_path / "g.npz", [1.0, 2.0], persons=["a", "b"])
    saved(tmp_path / "unlabelled.npz", [1.0, 2.0])
    saved(tmp_path / "long.npz", [[1.0, 2.0]], network="other")
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(InputError, match=words) as refused:
        search(**{"query": "q.npz", "gallery": "g.npz", "out": "out", **QUIET, **options})
    assert "\n" not in str(refused.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_bad_images_and_runs_get_one_line(run, benchmark, tmp_path):
    images, empty = people(tmp_path / "images"), tmp_path / "empty"
    empty.mkdir()
    options = {"out": tmp_path / "out", **QUIET}
    for query, gallery, words in (
        (empty, images, "no image"),
        (images, empty, "no image"),
        (tmp_path / "gone", images, "gone"),
        (images / "0001" / "gone.jpg", images, "gone.jpg"),
    ):
        with pytest.raises(InputError, match=words):
            search(query, gallery, run=run, **options)
    other = untrained_run(benchmark, tmp_path / "runs", PYRAMID, (64, 16)).folder
    write_features(other, images, tmp_path / "other.npz", **QUIET)
    with pytest.raises(InputError, match="one trained run computed them"):
        search(images, tmp_path / "other.npz", run=run, **options)
    (run / "weights.pt").unlink()
    with pytest.raises(InputError, match="needs the run's weights"):
        search(images, images, run=run, **options)
    assert not (tmp_path / "out").exists()


def test_a_run_whose_features_are_not_finite_is_refused(tmp_path):
    query = saved(tmp_path / "q.npz", [math.nan])
    with pytest.raises(InputError, match="finite"):
        search(query, query, out=tmp_path / "out", **QUIET)


# --- pictures -----------------------------------------------------------------------------------------------


def test_the_sheet_explains_its_words(run, tmp_path, monkeypatch):
    from reidlib.search import figures

    text_lines, original = [], figures.contact_sheet

    def recording(rows, *, lines):
        text_lines.extend(lines)
        return original(rows, lines=lines)

    texts, centred = [], figures._centred
    monkeypatch.setattr(figures, "contact_sheet", recording)
    monkeypatch.setattr(
        figures, "_centred", lambda *arguments: (texts.append(arguments[3]), centred(*arguments))[1]
    )
    root = people(tmp_path / "all")
    ranking = search(root, root, run=run, out=tmp_path / "out", false_match_rate=0.2, **QUIET).ranking
    threshold = ranking.calibration.threshold
    assert f"same: distance at most {threshold.distance:.3f}, accepted as the same person." in text_lines[-1]
    missed = 100 - 100 * threshold.true_match_rate
    assert f"not sure: larger distance, as for {missed:.1f} % of the pairs of one person." in text_lines[-1]
    is_listed = ranking.nearest.gallery_indices >= 0
    within = ranking.nearest.distances <= threshold.distance
    assert texts.count("same") == within.sum()
    assert texts.count("not sure") == is_listed.sum() - within.sum() > 0
    assert "different" not in texts
    assert {f"{distance:.3f}" for distance in ranking.nearest.distances[is_listed]} <= set(texts)


@pytest.mark.parametrize(
    ("count", "sheet", "title"),
    [
        (3, 3, "All 3 query images, in the order of their names and"),
        (3, 2, "The first 2 of 3 query images, in the order of their names and"),
        (3, 1, "The first of 3 query images, in the order of their names and"),
        (1, 3, "The query image"),
    ],
)
def test_the_sheets_title_names_its_queries(tmp_path, monkeypatch, count, sheet, title):
    from reidlib.search import figures

    text_lines, original = [], figures.contact_sheet
    monkeypatch.setattr(
        figures,
        "contact_sheet",
        lambda rows, lines: (text_lines.extend(lines), original(rows, lines=lines))[1],
    )
    for index in range(count):
        write_image(tmp_path / f"q{index}.jpg", seed=index)
    query = saved(tmp_path / "q.npz", [float(index) for index in range(count)], root=tmp_path)
    search(query, query, out=tmp_path / "out", sheet=sheet, **QUIET)
    assert text_lines[0].startswith(title)


@pytest.mark.parametrize(
    ("label", "lines"),
    [
        ("img0.JPG", ["img0.JPG"]),
        ("a/b/c.jpg", ["a/b/c.jpg"]),
        ("person00/camA/img0.JPG", ["person00/", "camA/img0.JPG"]),
        ("0001/0001_c1s1_001051_00.jpg", ["0001/", "0001_c1s1_001", "051_00.jpg"]),
        ("folder/with/many/parts/person00/camA/img0.JPG", ["…any/parts/", "person00/", "camA/img0.JPG"]),
    ],
)
def test_a_label_breaks_after_slashes(label, lines):
    assert _wrapped(label, _font("normal")) == lines


def coloured(colour, size=(40, 20)):
    return np.full((*size, 3), colour, np.uint8)


@pytest.mark.parametrize("name", ["J\udcfcrgen/1.jpg", "a\nb.jpg", "\r", "\0", "张/😀.jpg"], ids=ascii)
def test_the_sheet_shows_any_name(name):
    image_hwc = np.zeros((8, 4, 3), np.uint8)
    sheet = contact_sheet(
        [SheetRow(image_hwc, name, [RankedImage(image_hwc, 0.5)])], lines=[f"1 query image of {name}"]
    )
    assert sheet.height > 200


def test_the_sheet_shows_each_image_with_its_frame():
    results = [
        RankedImage(coloured((0, 0, 200)), 0.5, True, False),
        RankedImage(coloured((0, 200, 0), (10, 90)), 1.5),
    ]
    sheet = contact_sheet(
        [SheetRow(coloured((200, 0, 0)), "a/long/name/of/a/file/000123.jpg", results)] * 2,
        lines=["one", "two"],
    )
    pixels = np.asarray(sheet).astype(int)

    def places(colour):
        rows, columns = np.nonzero((abs(pixels - np.array(colour)) <= 2).all(-1))
        return rows.min(), rows.max(), columns.min(), columns.max(), len(rows)

    red, blue, green = (places(colour) for colour in ((200, 0, 0), (0, 0, 200), (0, 200, 0)))
    assert red[3] < blue[2] < blue[3] < green[2]
    assert blue[4] == 2 * 94 * 188  # in two rows, enlarged with its proportions
    assert green[4] == 2 * 94 * 10
    # The frame of a match in its colour, 5 pixels wide, around both blue images and nothing else.
    frame = places((0, 0x72, 0xB2))
    assert (frame[2], frame[3]) == (blue[2] - 5, blue[3] + 5)
    assert sheet.width > green[3]


def test_the_distances_are_drawn_with_their_threshold():
    same, different = np.zeros((2, 101), int)
    same[[20, 30, 50]] = 5, 10, 5
    different[[40, 60, 90]] = 10, 400, 590
    histogram = PairHistogram(0.02, same, different)
    figure = distance_figure(histogram, threshold_for(histogram, 0.01), bars=10)
    spread, shares = figure.axes
    heights = [patch.get_data().values for patch in spread.patches if patch.get_fill()]
    assert [float(values.sum()) for values in heights] == pytest.approx([100, 100])
    assert spread.lines[0].get_xdata()[0] == pytest.approx(1.18)
    assert "1.18" in spread.texts[0].get_text()
    assert [text.get_text().strip() for text in shares.texts] == ["1 %", "100 %"]
    edges = spread.patches[0].get_data().edges
    assert len(np.unique(np.diff(edges).round(9))) == 1
    assert edges[0] < 0.4 <= edges[1]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["same person: 20 pairs", "different people: 1,000 pairs"]


def test_a_search_leaves_the_style_of_other_figures_alone(tmp_path):
    import matplotlib.pyplot as plt

    plt.close("all")
    before = dict(plt.rcParams)
    features = saved(tmp_path / "f.npz", [0.0, 1, 10, 11, 30], persons=[*"aabbc"])
    search(features, features, out=tmp_path / "out", false_match_rate=0.5, **QUIET)
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == []


def test_features_of_different_lengths_are_refused(tmp_path):
    for name, length in (("a", 3), ("b", 4)):
        information = {"format": 1, "network": "abc", "run": "name"}
        names = ("1.jpg", "2.jpg")
        features = FeatureSet(np.ones((2, length), np.float32), names, ("", ""), ("", ""), information)
        save_features(features, tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match=r"same number of values; got 3 of a\.npz, 4 of b\.npz"):
        search(tmp_path / "a.npz", tmp_path / "b.npz", out=tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


DAMAGE = {
    "not UTF-8": b"font.family: J\xfcrgen\n",
    "unreadable": None,  # a file that opens and cannot be read, also by root
    "wrong values": b"font.size: huge\nlines.linewidth 3\nnonsense: 1\naxes.grid: perhaps\n",
    "unfit values": b"text.usetex: True\nsavefig.dpi: 100000\nfigure.figsize: 900, 900\nbackend: TkAgg\n",
}


@pytest.fixture(scope="module")
def sound_picture(tmp_path_factory):
    """Features to search, and the picture that a search draws of them."""
    folder = tmp_path_factory.mktemp("sound")
    features = saved(folder / "f.npz", range(8), list("aabbccdd"), list("12121212"))
    search(features, features, out=folder / "out", false_match_rate=0.2, **QUIET)
    return features, (folder / "out" / "distances.png").read_bytes()


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("not UTF-8", "."),
        ("not UTF-8", "MPLCONFIGDIR"),
        ("unreadable", "MATPLOTLIBRC"),
        ("wrong values", "."),
        ("unfit values", "MATPLOTLIBRC"),
    ],
)
def test_a_damaged_matplotlibrc_does_not_end_a_search(sound_picture, tmp_path, kind, place):
    features, picture = sound_picture
    file = tmp_path / "matplotlibrc"
    file.symlink_to("/proc/self/mem") if DAMAGE[kind] is None else file.write_bytes(DAMAGE[kind])
    environment = {**os.environ, place: str(tmp_path)} if place != "." else None
    words = ["search", features, features, "--out", tmp_path / "out", "--false-match-rate", "0.2"]
    command = [sys.executable, "-m", "reidlib", *map(str, words), "--device", "cpu"]
    folder = tmp_path if place == "." else None
    completed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=600)
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "out" / "distances.png").read_bytes() == picture  # the suite's own style
    is_told = b"note: matplotlib's defaults are used" in completed.stderr
    assert is_told == (kind in ("not UTF-8", "unreadable"))
