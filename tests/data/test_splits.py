import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reidlib.data import load
from reidlib.data.benchmark import Benchmark, Protocol, combine
from reidlib.data.rules import is_ignored, is_match, queries_with_match, rule_violations
from reidlib.data.splits import Split, training_labels
from reidlib.errors import InputError


@pytest.fixture
def make(tmp_path):
    """Build a split of files that exist, from (person, camera) pairs."""

    def make(title, *rows):
        paths = []
        for index, (person, camera) in enumerate(rows):
            path = tmp_path / title / f"{index}_{person}_{camera}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x" * (index + 1))
            paths.append(path)
        persons, cameras = zip(*rows, strict=True) if rows else ((), ())
        return Split(tuple(paths), np.array(persons, dtype=int), np.array(cameras, dtype=int))

    return make


def sound(make):
    return {
        "train": make("train", (1, 1), (1, 2), (2, 1)),
        "query": make("query", (3, 1), (4, 2)),
        "gallery": make("gallery", (3, 2), (4, 2), (-1, 1), (0, 1)),
    }


def test_a_split_copies_and_freezes_its_ids(make):
    ids = np.array([5, 6])
    split = Split(("a.jpg", "b.jpg"), ids, np.array([1, 2], dtype=np.int8))
    ids[0] = 9
    assert split.person_ids.tolist() == [5, 6]
    assert split.camera_ids.dtype == np.int64
    with pytest.raises(ValueError, match="read-only"):
        split.person_ids[0] = 1
    ids[1] = 7  # the caller's array stays writable


def test_select_takes_masks_and_orders(make):
    split = make("train", (1, 1), (1, 2), (2, 1))
    assert split.select(split.camera_ids == 1).person_ids.tolist() == [1, 2]
    turned = split.select(np.array([2, 0]))
    assert turned.paths == (split.paths[2], split.paths[0])
    assert len(split.select(np.zeros(3, dtype=bool))) == 0


@pytest.mark.parametrize(
    "paths, persons, cameras, words",
    [
        (("a",), [1, 2], [1], "1 paths, 2 person ids, 1 camera ids"),
        (("a",), [1.0], [1], "whole numbers"),
        (("a",), [[1]], [1], "one-dimensional"),
    ],
)
def test_a_contradictory_split_is_refused(paths, persons, cameras, words):
    with pytest.raises(InputError, match=words):
        Split(paths, np.array(persons), np.array(cameras))


def test_labels_are_positions_among_the_sorted_persons():
    labels, identities = training_labels(np.array([30, 7, 30, 12]))
    assert labels.tolist() == [2, 0, 2, 1]
    assert identities.tolist() == [7, 12, 30]


def test_a_sound_benchmark_counts_queries_without_match(make, tmp_path):
    benchmark = Benchmark("own", tmp_path, **sound(make))
    assert benchmark.num_queries_without_match == 1  # person 4 is seen by camera 2 alone
    assert (benchmark.num_trials, benchmark.trial) == (1, 0)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"train": [(3, 1), (1, 2)]}, "no person is in both training and test; got 1 in both: 3"),
        ({"query": [(3, 1)], "gallery": [(3, 1), (4, 1)]}, "with one camera no query has a match"),
        ({"query": [(4, 2)]}, "1 query, none with a match"),
        ({"gallery": []}, "an empty gallery split"),
        ({"train": []}, "an empty train split"),
        ({"train": [(0, 1), (1, 1)]}, "train split are at least 1; got 0"),
        ({"query": [(-1, 1), (3, 1)]}, "query split are at least 1; got -1"),
        ({"gallery": [(3, 2), (-2, 1)]}, "gallery split are at least -1; got -2"),
    ],
)
def test_each_rule_is_refused_by_its_name(make, tmp_path, change, words):
    splits = sound(make) | {title: make(f"other-{title}", *rows) for title, rows in change.items()}
    with pytest.raises(InputError, match=words) as caught:
        Benchmark("own", tmp_path, **splits)
    assert "\n" not in str(caught.value)


def test_boxes_may_be_images_of_query_and_gallery(make, tmp_path):
    splits = sound(make)
    query, gallery = splits["query"], splits["gallery"]
    boxes = Split(
        (*query.paths, gallery.paths[1]),
        np.append(query.person_ids, gallery.person_ids[1]),
        np.append(query.camera_ids, gallery.camera_ids[1]),
    )
    benchmark = Benchmark("own", tmp_path, **splits, boxes=boxes)
    assert benchmark.fingerprint == Benchmark("own", tmp_path, **splits).fingerprint


@pytest.mark.parametrize(
    "rows, words",
    [
        (
            [(3, 1)],
            "each query has a box of its person in its camera; got 1 query without a box: .*1_4_2.jpg",
        ),
        ([], "each query has a box of its person in its camera; got 2 queries without a box"),
        (
            [(3, 1), (4, 2), (4, 1)],
            "shows a query's person in that query's camera; got 1 other box: .*2_4_1.jpg",
        ),
        ([(3, 1), (4, 2), (-1, 1)], "shows a query's person in that query's camera; got 1 other box"),
    ],
)
def test_boxes_fit_the_queries(make, tmp_path, rows, words):
    with pytest.raises(InputError, match=words) as caught:
        Benchmark("own", tmp_path, **sound(make), boxes=make("boxes", *rows))
    assert "\n" not in str(caught.value)


def test_missing_and_unrelated_boxes_are_named(make):
    splits = sound(make)
    boxes = make("boxes", (3, 1), (4, 2))
    boxes.paths[0].unlink()
    (error,) = rule_violations(**splits, boxes=boxes)
    assert "1 missing in boxes" in str(error)
    smuggled = Split((*splits["query"].paths, splits["train"].paths[0]), [3, 4, 3], [1, 2, 1])
    (error,) = rule_violations(**splits, boxes=smuggled)
    assert "no image is in both training and test" in str(error)


def test_missing_and_repeated_files_are_named(make):
    splits = sound(make)
    splits["query"].paths[0].unlink()
    train = splits["train"].select(np.array([0, 1, 1]))
    texts = [str(error) for error in rule_violations(train, splits["query"], splits["gallery"])]
    assert len(texts) == 2
    assert any("1 missing in query" in text and str(splits["query"].paths[0]) in text for text in texts)
    assert any("1 listed twice in train" in text and str(train.paths[1]) in text for text in texts)


def test_an_image_in_training_and_test_is_refused(make):
    splits = sound(make)
    gallery = splits["gallery"]
    smuggled = Split(
        (*gallery.paths, splits["train"].paths[0]),
        np.append(gallery.person_ids, -1),
        np.append(gallery.camera_ids, 1),
    )
    (error,) = rule_violations(splits["train"], splits["query"], smuggled)
    assert "no image is in both training and test" in str(error)


def test_all_violations_are_listed(make):
    train, query = make("train", (3, 1)), make("one", (3, 1))
    texts = " ".join(map(str, rule_violations(train, query, make("gallery", (3, 1), (-5, 1)))))
    assert "both training and test" in texts and "at least -1" in texts and "one camera" in texts


def test_a_trial_outside_the_protocol_is_refused(make, tmp_path):
    with pytest.raises(InputError, match="trial 0 only; got trial 3"):
        Benchmark("own", tmp_path, **sound(make), trial=3)


def test_the_fingerprint_depends_on_content_and_not_on_the_folder(make, tmp_path):
    splits = sound(make)
    first = Benchmark("own", tmp_path, **splits).fingerprint
    elsewhere = tmp_path.parent / f"{tmp_path.name}-moved"
    tmp_path.rename(elsewhere)
    try:
        moved = {
            title: Split(
                tuple(elsewhere / path.relative_to(tmp_path) for path in split.paths),
                split.person_ids,
                split.camera_ids,
            )
            for title, split in splits.items()
        }
        assert Benchmark("own", elsewhere, **moved).fingerprint == first
        gallery = moved["gallery"]
        other_camera = Split(
            gallery.paths, gallery.person_ids, gallery.camera_ids + (gallery.person_ids == 0)
        )
        changed = [Benchmark("own", elsewhere, **(moved | {"gallery": other_camera})).fingerprint]
        gallery.paths[0].write_bytes(b"another size")
        changed.append(Benchmark("own", elsewhere, **moved).fingerprint)
        assert len({first, *changed}) == 3
    finally:
        elsewhere.rename(tmp_path)


@pytest.mark.parametrize("ids", [np.array, torch.tensor])
def test_what_a_query_ignores_and_what_matches_it(ids):
    # A query of person 3 in camera 1; junk in either camera, a distractor, itself, its match, another.
    query_ids = ids([[3]]), ids([[1]])
    gallery_ids = ids([-1, -1, 0, 3, 3, 4]), ids([1, 2, 1, 1, 2, 1])
    assert is_ignored(*query_ids, *gallery_ids).tolist() == [[True, True, False, True, False, False]]
    assert is_match(*query_ids, *gallery_ids).tolist() == [[False, False, False, False, True, False]]
    assert is_match(3, 1, *gallery_ids).tolist() == [False, False, False, False, True, False]


ROWS = st.lists(st.tuples(st.integers(-1, 4), st.integers(1, 3)), max_size=12)


@given(query=ROWS, gallery=ROWS)
def test_matches_agree_with_a_plain_search(query, gallery):
    def split(rows):
        table = np.array(rows, dtype=int).reshape(-1, 2)
        return Split(("x.jpg",) * len(rows), table[:, 0], table[:, 1])

    expected = [any(is_match(*query_ids, *gallery_ids) for gallery_ids in gallery) for query_ids in query]
    assert queries_with_match(split(query), split(gallery)).tolist() == expected


def test_combined_benchmarks_keep_persons_and_cameras_apart(market, tmp_path):
    copies = [shutil.copytree(market, tmp_path / name) for name in ("second", "third")]
    first, second, third = (load("market1501", root) for root in (market, *copies))
    combined = combine((first, second))
    assert combined.specification == combined.name == "market1501+market1501"
    assert combined.train.person_ids.tolist() == [2, 2, 2, 7, 7, 9, 9, 9, 14, 14]
    assert combined.train.camera_ids.tolist() == [1, 2, 2, 1, 3, 5, 6, 6, 5, 7]
    # Nobody stays nobody; in the other camera's numbers, so that it is no match by chance.
    assert combined.gallery.person_ids.tolist() == [-1, -1, 0, 1, 1, 3, 3, -1, -1, 0, 8, 8, 10, 10]
    assert combined.query.camera_ids.tolist() == [1, 2, 5, 6]
    assert combined.fingerprint not in (first.fingerprint, combine((first, second, third)).fingerprint)
    with pytest.raises(InputError, match="at least two benchmarks"):
        combine((first,))


def test_extracted_images_count_without_their_sizes(market):
    benchmark = load("market1501", market)
    extracted = replace(benchmark, extracted="0123456789ab")
    before, other = benchmark.fingerprint, extracted.fingerprint
    path = benchmark.train.paths[0]
    path.write_bytes(path.read_bytes() + b" ")
    assert load("market1501", market).fingerprint != before
    assert replace(benchmark, extracted="0123456789ab").fingerprint == other
    assert replace(benchmark, extracted="another").fingerprint != other
    assert replace(benchmark, root=market.parent, extracted="0123456789ab").fingerprint == other


def test_both_unicode_forms_of_a_name_have_one_fingerprint(make, tmp_path):
    splits = sound(make)
    train = splits["train"]
    fingerprints = []
    for form in ("NFC", "NFD"):
        root = tmp_path / form
        root.mkdir()
        path = root / unicodedata.normalize(form, "Jürgen.jpg")
        path.write_bytes(b"x")
        changed = Split((path, *train.paths[1:]), train.person_ids, train.camera_ids)
        fingerprints.append(Benchmark("own", root, **splits | {"train": changed}).fingerprint)
    assert fingerprints[0] == fingerprints[1]


def test_a_specification_has_the_requested_options(market):
    benchmark = load("market1501", market)
    assert benchmark.specification == "market1501"
    with_options = replace(
        benchmark, num_trials=4, trial=3, options={"boxes": "detected", "same_camera": True, "n": 5}
    )
    assert with_options.specification == "market1501,boxes=detected,same_camera=true,n=5,trial=3"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shots": "some"}, "single or multi"),
        ({"shots": "single", "draws": 0}, "at least one draw"),
        ({"shots": "multi", "draws": 2}, "multi-shot scores have exactly one"),
    ],
)
def test_contradictory_protocols_are_refused(changed, words):
    with pytest.raises(InputError, match=words):
        Protocol(**changed)
