import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniature import write_image

from reidlib.data import load, load_specified
from reidlib.data.check import check
from reidlib.data.readers.layout import seeded_order
from reidlib.data.readers.own import list_own_images
from reidlib.data.readers.own.division import number_names, number_persons
from reidlib.errors import InputError
from reidlib.ranking.metrics import Embeddings, evaluate

# Four persons before two cameras; the first image of each camera is the query.
PERSONS = tuple(
    f"{person}/{camera}/{name}"
    for person in ("anna", "bob", "çelik", "dora")
    for camera in ("door", "yard")
    for name in ("1.jpg", "2.JPG")
)


def put(root, *names):
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, size=(8 + index, 4), seed=index)
    return root


def listed(tmp_path, text, *names, encoding="utf-8"):
    root = put(tmp_path / "set", *names)
    (root / "list.csv").write_text(text, encoding=encoding)
    return root / "list.csv"


def refusal(name, root, **protocol):
    with pytest.raises(InputError) as caught:
        load(name, root, **protocol)
    return one_line(caught)


def one_line(caught):
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


def names_of(benchmark, split):
    base = benchmark.root.parent if benchmark.root.is_file() else benchmark.root
    return [path.relative_to(base).as_posix() for path in split.paths]


@pytest.fixture
def own_folder(tmp_path):
    root = put(tmp_path / "own", *PERSONS)
    (root / "anna" / "Thumbs.db").write_bytes(b"no image")
    (root / "anna" / "door" / "._1.jpg").write_bytes(b"no image either")
    put(root, ".trash/eve/door/1.jpg", "__MACOSX/eve/door/1.jpg", "anna/@eaDir/1.jpg/thumb.jpg")
    return root


def test_a_folder_per_person_and_camera_is_split_by_a_fixed_rule(own_folder):
    benchmark = load("folder", own_folder)
    assert (benchmark.num_trials, benchmark.trial, benchmark.options) == (10, 0, {})
    # Of 1 to 4, ordered by the SHA-256 of "own images 4 persons, 2 for testing, trial 0: PLACE".
    order = seeded_order("own images 4 persons, 2 for testing, trial 0", 4)
    tested = sorted(order[:2])
    assert np.unique(benchmark.query.person_ids).tolist() == tested
    assert np.unique(benchmark.train.person_ids).tolist() == sorted(order[2:])
    assert (len(benchmark.train), len(benchmark.query), len(benchmark.gallery)) == (8, 4, 4)
    assert benchmark.query.camera_ids.tolist() == [1, 2, 1, 2]
    assert {path.name for path in benchmark.query.paths} == {"1.jpg"}
    assert {path.name for path in benchmark.gallery.paths} == {"2.JPG"}
    assert benchmark.num_queries_without_match == 0


def test_the_division_never_changes():
    # Written down once: another order would make every score of before another benchmark's.
    assert seeded_order("own images 8 persons, 4 for testing, trial 0", 8) == [8, 6, 4, 1, 7, 5, 2, 3]
    assert sorted(seeded_order("any", 100)) == list(range(1, 101))


def test_trials_differ_and_test_persons_are_counted(own_folder):
    tested = {
        tuple(np.unique(load("folder", own_folder, trial=trial).query.person_ids)) for trial in range(10)
    }
    assert len(tested) > 1
    three = load("folder", own_folder, test_persons=3, trial=2)
    assert len(np.unique(three.query.person_ids)) == 3
    assert three.specification == "folder,test_persons=3,trial=2"
    assert load_specified(three.specification, own_folder).fingerprint == three.fingerprint
    assert "folder has trials 0 to 9; got trial 10" in refusal("folder", own_folder, trial=10)
    assert "4 of 4 such persons, 4 persons in total; use test_persons=3 or fewer" in refusal(
        "folder", own_folder, test_persons=4
    )
    assert "test_persons is a whole number of at least 0; got -1" in refusal(
        "folder", own_folder, test_persons=-1
    )


def test_the_division_does_not_depend_on_the_folders_place(own_folder, tmp_path, monkeypatch):
    before = load("folder", own_folder)
    shutil.copytree(own_folder, tmp_path / "elsewhere" / "moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    after = load("folder", "moved")
    assert after.fingerprint == before.fingerprint
    assert after.query.paths != before.query.paths


def test_names_of_one_spelling_have_one_order(own_folder):
    # macOS writes ç as two characters, c first, which would sort before d; as one it sorts after z.
    (own_folder / "çelik").rename(own_folder / unicodedata.normalize("NFD", "çelik"))
    images = list_own_images(own_folder)
    assert images.split.person_ids.tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert [person[0] for person in images.persons[::4]] == ["a", "b", "d", "c"]
    assert number_names(["é", "f", "z"]) == {"": 0, "f": 1, "z": 2, "é": 3}
    assert number_names(["e\u0301", "f", "z"]) == {"": 0, "f": 1, "z": 2, "e\u0301": 3}


def test_whole_numbers_are_the_ids(tmp_path):
    assert number_persons(["0007", "12", "-1", "0000"]) == {"": 0, "0007": 7, "12": 12, "-1": -1, "0000": 0}
    assert number_persons(["anna", "12", "Junk", "distractors"]) == {
        "": 0,
        "12": 1,
        "anna": 2,
        "Junk": -1,
        "distractors": 0,
    }
    assert number_names(["3", "0"]) == {"": 0, "3": 3, "0": 0}
    assert number_persons(["7", "007", "7.0", "12"]) == {"": 0, "7": 7, "007": 7, "7.0": 7, "12": 12}


def test_junk_and_distractors_are_in_the_gallery(own_folder):
    put(own_folder, "junk/door/a.jpg", "distractors/yard/b.jpg", "-1/yard/c.jpg")
    benchmark = load("folder", own_folder)
    assert sorted(benchmark.gallery.person_ids.tolist())[:3] == [-1, -1, 0]
    assert benchmark.train.person_ids.min() == 1
    remarks = "\n".join(check("folder", own_folder, progress=False).remarks)
    assert "2 images of junk" in remarks and "1 image of distractors" in remarks


def test_cameras_in_names_are_used_if_all_names_have_one(tmp_path):
    root = put(
        tmp_path / "named", *(f"{p}/{p}_c{c}s1_{i}.png" for p in "ab" for c in (2, 11) for i in (0, 1))
    )
    benchmark = load("folder", root)
    assert benchmark.query.camera_ids.tolist() == [11, 2]  # by name
    put(root, "b/portrait.jpg")
    text = refusal("folder", root)
    assert "no camera is known" in text and "_c1, _c2" in text and "folder,same_camera=true" in text
    put(root, "b/3/more.jpg")
    text = refusal("folder", root)
    assert "got 9 images without a camera in" in text and "a/a_c11s1_0.png" in text
    assert len(load("folder", root, same_camera=True).train)


def test_a_camera_with_one_image_is_query_and_gallery(tmp_path):
    root = put(tmp_path / "pairs", *(f"{person}/{camera}/x.jpg" for person in "ab" for camera in "12"))
    benchmark = load("folder", root)
    assert benchmark.query.paths == benchmark.gallery.paths
    assert len(benchmark.query) == 2 and benchmark.num_queries_without_match == 0
    # Each query finds the other camera's image only: its own is ignored.
    features = np.eye(2, dtype=np.float32)
    query = Embeddings(features, benchmark.query.person_ids, benchmark.query.camera_ids)
    assert evaluate(query, query).mean_average_precision == 1.0


def test_persons_who_cannot_be_searched_for_are_for_training(own_folder):
    put(own_folder, "zoe/door/1.jpg", "zoe/door/2.jpg", "zara/yard/1.jpg")
    for trial in range(10):
        assert {4, 5} < set(load("folder", own_folder, trial=trial).train.person_ids.tolist())
    remarks = check("folder", own_folder, progress=False).remarks
    assert remarks[0] == "6 persons, 2 cameras, 19 images"
    assert "2 persons with only one camera, who cannot be searched for: zara, zoe" in remarks
    assert any(
        "by a fixed rule, trial 0 of 10: 4 persons in 11 training images, 2 in 4" in r for r in remarks
    )


def test_one_camera_is_explained_and_can_be_allowed(tmp_path):
    root = put(tmp_path / "one", *(f"{person}/front/{name}.jpg" for person in "abcd" for name in "xyz"))
    text = refusal("folder", root)
    assert "images of the query's person from the query's camera are ignored" in text
    assert "none of 4 persons (1 camera, 12 images)" in text
    assert "folder,same_camera=true (same_camera=True in a notebook)" in text
    benchmark = load_specified("folder,same_camera=true", root)
    assert benchmark.options == {"same_camera": True}
    assert {path.name for path in benchmark.query.paths} == {"x.jpg"}
    assert (len(benchmark.query), len(benchmark.gallery), len(benchmark.train)) == (2, 4, 6)
    cameras = [*benchmark.query.camera_ids.tolist(), *benchmark.gallery.camera_ids.tolist()]
    assert len(set(cameras)) == 6
    assert set(benchmark.train.camera_ids.tolist()) == {1}
    assert benchmark.num_queries_without_match == 0
    assert "neighbouring frames" in check("folder", root, same_camera=True, progress=False).text()


def test_without_cameras_training_images_have_camera_1(tmp_path):
    root = put(tmp_path / "none", *(f"{person}/{name}.jpg" for person in "ab" for name in "xy"))
    assert load("folder", root, same_camera=True).train.camera_ids.tolist() == [1, 1]
    put(tmp_path / "single", *(f"{person}/x.jpg" for person in "ab"))
    text = refusal("folder", tmp_path / "single", same_camera=True)
    assert "test persons are persons with two images" in text and "none of 2 persons" in text
    text = refusal("folder", put(tmp_path / "lonely", "a/x.jpg", "a/y.jpg"), same_camera=True)
    assert "at least one person is left for training" in text and "add images of other persons" in text


PARTED = (
    "train/7/a_c1.jpg",
    "train/7/b_c2.jpg",
    "query/3/a_c1.jpg",
    "query/5/a_c1.jpg",
    "gallery/3/b_c2.jpg",
    "gallery/3/c_c1.jpg",
    "gallery/-1/d_c2.jpg",
    "gallery/0/e_c1.jpg",
)


def test_a_folder_with_splits_keeps_them(tmp_path):
    root = put(tmp_path / "parted", *PARTED)
    benchmark = load("folder", root)
    assert benchmark.num_trials == 1
    assert benchmark.train.person_ids.tolist() == [7, 7]
    assert benchmark.train.camera_ids.tolist() == [1, 2]
    assert benchmark.query.person_ids.tolist() == [3, 5]
    assert names_of(benchmark, benchmark.gallery) == sorted(PARTED[4:])
    assert benchmark.gallery.person_ids.tolist() == [-1, 0, 3, 3]
    assert benchmark.num_queries_without_match == 1  # person 5, counted and not refused
    report = check("folder", root, progress=False)
    assert report.ok
    assert any(
        remark.startswith("1 of 2 queries have no match: query/5/a_c1.jpg") for remark in report.remarks
    )
    assert "leave test_persons out" in refusal("folder", root, test_persons=1)
    assert "folder has trial 0 only; got trial 1" in refusal("folder", root, trial=1)


def test_a_folder_with_splits_but_no_match_is_refused(tmp_path):
    root = put(tmp_path / "parted", *(name for name in PARTED if name != "gallery/3/b_c2.jpg"))
    text = refusal("folder", root)
    assert "none of 2 queries; 1 of their 2 persons in the gallery; put images from other cameras" in text
    assert "folder,same_camera=true" in text
    assert load("folder", root, same_camera=True).num_queries_without_match == 1
    (root / "gallery/3/c_c1.jpg").unlink()
    text = refusal("folder", root, same_camera=True)
    assert (
        "0 of their 2 persons in the gallery; put images of the same persons into query and gallery" in text
    )
    (root / "gallery/-1/d_c2.jpg").unlink()
    report = check("folder", root, progress=False)
    assert len(report.problems) == 1 and "with one camera no query has a match" in report.problems[0]
    assert "folder,same_camera=true" in report.problems[0]


def test_overlapping_splits_are_refused(tmp_path):
    root = put(tmp_path / "parted", *PARTED, "train/3/x_c1.jpg")
    assert "no person is in both training and test; got 1 in both: 3" in refusal("folder", root)
    assert not check("folder", root, progress=False).ok


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_persons_in_training_and_test_are_named(tmp_path, kind):
    names = [f"{part}/{person}/{camera}/1.png" for part, person, camera in (
        ("train", "zoe", "1"), ("train", "bob", "1"), ("query", "zoe", "1"), ("gallery", "zoe", "2"),
        ("gallery", "amy", "1"),
    )]  # fmt: skip
    lines = [",".join([name, *(name.split("/")[place] for place in (1, 2, 0))]) for name in names]
    file = listed(tmp_path, "\n".join(["path,person,camera,split", *lines]), *names)
    if kind == "folder":
        file.unlink()
    root = file if kind == "csv" else file.parent
    assert "no person is in both training and test; got 1 in both: zoe; " in refusal(kind, root)
    problems = check(kind, root, progress=False).problems
    assert len(problems) == 1 and "1 in both: zoe; " in problems[0]


def test_images_without_persons_are_refused_as_a_benchmark(tmp_path):
    flat = put(tmp_path / "far" / "flat", "1.jpg", "2.jpg")
    text = refusal("folder", flat)
    assert (
        "; sort them into a folder per person; for images without person labels, use `reidlib search`" in text
    )
    assert "too low" not in text


def test_unknown_cameras_are_not_counted_as_one(tmp_path):
    root = put(tmp_path / "set", *(f"{person}/{name}.jpg" for person in "ab" for name in "xy"))
    remarks = check("folder", root, progress=False).remarks
    assert remarks[0] == "2 persons, cameras unknown, 4 images"
    assert not any("cannot be searched for" in remark for remark in remarks)


def test_incomplete_splits_are_not_read_as_persons(tmp_path):
    root = put(tmp_path / "half", *(name for name in PARTED if "query" not in name))
    text = refusal("folder", root)
    assert "which lacks query and contains gallery, train" in text
    (root / "gallery").rename(root / "Test")
    assert "which lacks query, gallery and contains Test, train" in refusal("folder", root)
    put(root, *PARTED)
    (root / "Test").rename(root / "more")
    assert "all images of a set with splits are in" in refusal("folder", root)


def test_one_level_too_high_or_too_low_or_too_deep(own_folder, tmp_path):
    high = tmp_path / "high"
    high.mkdir()
    own_folder = own_folder.rename(high / "own")
    assert f"one level too high: give {own_folder}" in refusal("folder", high)
    assert f"too low: give {own_folder / 'anna'}, or {own_folder} if anna is a person" in refusal(
        "folder", own_folder / "anna/door"
    )
    box = put(tmp_path / "box", "crops/anna/1.jpg", "crops/bob/1.jpg")
    assert f"one level too high: give {box / 'crops'}" in refusal("folder", box)
    put(tmp_path / "deep", "anna/door/monday/1.jpg", "bob/yard/1.jpg")
    text = refusal("folder", tmp_path / "deep")
    assert f"such as {tmp_path / 'deep/anna/door/monday/1.jpg'}" in text and "remove the folders" in text
    put(tmp_path / "zip", "a/b/anna/1.jpg", "a/b/bob/1.jpg")
    assert f"two levels too high: give {tmp_path / 'zip/a/b'}" in refusal("folder", tmp_path / "zip")
    put(tmp_path / "flat", "anna/1.jpg", "bob/1.jpg")
    assert f"one level too low: give {tmp_path / 'flat'}" in refusal("folder", tmp_path / "flat" / "anna")


def test_cameras_read_as_persons_suggest_the_parent_folder(own_folder, tmp_path):
    up = f"or give {own_folder} if the folders in anna are cameras of one person"
    assert up in refusal("folder", own_folder / "anna")
    alone = put(tmp_path / "far" / "anna", "door/1.jpg", "yard/1.jpg")
    assert "cameras of one person" not in refusal("folder", alone)


def test_the_parent_is_suggested_only_if_most_of_its_folders_have_images(tmp_path):
    home = put(tmp_path / "home", "flat/1.jpg", "shots/1.jpg", "more/1.jpg")
    assert f"too low: give {home}" in refusal("folder", home / "flat")
    for name in ("code", "notes", "music"):
        (home / name).mkdir()
    assert "too low" not in refusal("folder", home / "flat")


def test_loose_images_and_empty_folders_are_refused(own_folder, tmp_path):
    put(own_folder, "stray.jpg")
    text = refusal("folder", own_folder)
    assert "1 image in" in text and "stray.jpg" in text and "move each into the folder of its person" in text
    (tmp_path / "far" / "empty").mkdir(parents=True)
    assert "no image (.jpg, .jpeg, .png, .bmp, .webp" in refusal("folder", tmp_path / "far" / "empty")
    assert "did you mean" in refusal("folder", tmp_path / "owm")
    assert "the file" in refusal("folder", own_folder / "stray.jpg")


def test_market1501_is_read_by_its_own_reader(market):
    assert f"read it with market1501 instead: `reidlib check market1501 {market}`" in refusal(
        "folder", market
    )
    with pytest.raises(InputError, match="give one of its folders") as caught:
        list_own_images(market)
    one_line(caught)


@pytest.mark.parametrize(
    ("names", "command"),
    [
        (["set/bounding_box_train/1.jpg"], "market1501 {}/set"),
        (["set/cam_a/000_45.bmp", "set/cam_b/000_90.bmp"], "viper {}/set"),
        (["set/campus/0001001.png"], "cuhk01 {}/set"),
        (["set/labelled/bounding_box_train/1.jpg", "set/detected/query/1.jpg"], "cuhk03 {}/set"),
        (["set/labeled/bounding_box_test/1.jpg"], "cuhk03 {}/set"),
        (["set/mine/bounding_box_train/1.jpg", "set/other/1.jpg"], "market1501 {}/set/mine"),
        (["set/first/cam_a/1.jpg", "set/other/1.jpg"], "viper {}/set/first"),
    ],
)
def test_folders_of_public_benchmarks_are_no_persons(tmp_path, names, command):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / name)
    for options in ({}, {"training_only": True}, {"validation": True}, {"same_camera": True}):
        assert f"`reidlib check {command.format(tmp_path)}`" in refusal("folder", tmp_path / "set", **options)
    with pytest.raises(InputError, match="give one of its folders, such as ") as caught:
        list_own_images(tmp_path / "set")
    one_line(caught)


def test_the_check_lists_all_unreadable_files_at_once(own_folder):
    (own_folder / "anna/door/1.jpg").write_bytes(b"")
    (own_folder / "bob/yard/2.JPG").write_bytes((own_folder / "bob/yard/2.JPG").read_bytes()[:-20])
    (own_folder / "eve").mkdir()
    report = check("folder", own_folder, progress=False)
    assert len(report.problems) == 1 and "2 unreadable" in report.problems[0]
    assert str(own_folder / "anna/door/1.jpg") in report.problems[0] and "2.JPG" in report.problems[0]
    assert any("1 folder in" in remark and "eve" in remark for remark in report.remarks)
    # Also where the folders are wrong.
    put(own_folder, "stray.jpg")
    assert len(check("folder", own_folder, progress=False).problems) == 2


CSV = """Path;Person;camera;note
anna/door/1.jpg;Anna;door;"tall; hat"
anna/yard/1.jpg;Anna;yard;
.\\bob\\door\\1.jpg; Bob ;door;

"bob/yard/1.jpg";Bob;yard;
"""
FOUR = tuple(f"{person}/{camera}/1.jpg" for person in ("anna", "bob") for camera in ("door", "yard"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_is_read_from_its_own_folder(tmp_path, monkeypatch, encoding):
    file = listed(tmp_path, CSV, *FOUR, encoding=encoding)
    monkeypatch.chdir(tmp_path / "set" / "anna")
    benchmark = load("csv", "../list.csv")
    assert len(benchmark.train) == 2 and benchmark.num_trials == 10
    by_folder = load("csv", file.parent)
    assert benchmark.fingerprint == by_folder.fingerprint
    assert benchmark.fingerprint == load("folder", put(tmp_path / "plain", *FOUR)).fingerprint
    shutil.copytree(file.parent, tmp_path / "moved")
    assert load("csv", tmp_path / "moved" / "list.csv").fingerprint == benchmark.fingerprint
    report = check("csv", file, progress=False)
    assert report.ok and "columns that are not read: note" in report.remarks
    assert "2 persons, 2 cameras, 4 images" in report.remarks


def test_rows_have_any_order(tmp_path):
    file = listed(tmp_path, CSV, *FOUR)
    before = load("csv", file)
    header, *rows = CSV.strip().split("\n")
    file.write_text("\n".join([header, *reversed(rows)]))
    assert load("csv", file).fingerprint == before.fingerprint


def test_a_csv_may_have_splits_and_tabs_and_an_image_twice(tmp_path):
    rows = ["a 1 x train", "b 2 x query", "b 2 x gallery", "c 2 y gallery", "d -1 y Gallery"]
    text = "path person camera split\n" + "\n".join(f"{row[0]}.png{row[1:]}" for row in rows)
    file = listed(tmp_path, text.replace(" ", "\t"), "a.png", "b.png", "c.png", "d.png")
    benchmark = load("csv", file)
    assert names_of(benchmark, benchmark.gallery) == ["b.png", "c.png", "d.png"]
    assert benchmark.gallery.person_ids.tolist() == [2, 2, -1]
    assert benchmark.gallery.camera_ids.tolist() == [1, 2, 2]
    assert list_own_images(file).names == ("a.png", "b.png", "c.png", "d.png")
    assert "4 images" in check("csv", file, progress=False).text()


@pytest.fixture(scope="module")
def four_images(tmp_path_factory):
    root = put(tmp_path_factory.mktemp("four"), *FOUR)
    (root / "plain.csv").write_text(CSV, encoding="utf-8")
    return root


@given(
    separator=st.sampled_from([";", ",", "\t", "|", "~", "\\t"]),
    word=st.sampled_from(["sep=", "SEP=", "Sep="]),
    quote=st.sampled_from(["", '"']),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
    blank=st.integers(0, 2),
)
def test_excels_line_of_the_separator(four_images, separator, word, quote, end, mark, blank):
    character = "\t" if separator == "\\t" else separator
    lines = [f"{mark}{quote}{word}{separator}{quote}", *[""] * blank, *CSV.strip().split("\n")]
    file = four_images / "list.csv"

    def write(lines):
        text = end.join([lines[0], *(line.replace(";", character) for line in lines[1:])])
        file.write_bytes(text.encode())

    write(lines)
    plain = load("csv", four_images / "plain.csv")
    assert load("csv", file).fingerprint == plain.fingerprint
    write([*lines, "", "gone.jpg;x;1;"])
    assert f"line {len(lines) + 2}: gone.jpg" in refusal("csv", file)
    write([*lines[: blank + 1], lines[blank + 1] + ";path", *lines[blank + 2 :]])
    assert f"path twice in line {blank + 2}" in refusal("csv", file)
    write(lines[:1])
    assert "add them in line 2" in refusal("csv", file)


def test_the_line_of_the_separator_is_obeyed(tmp_path):
    file = listed(tmp_path, "sep=,\npath;person\na.png;1\n", "a.png")
    assert "has 'path;person'" in refusal("csv", file)
    file = listed(tmp_path, "sep=,path,person\nx,a.png,1\nx,b.png,2\n", "a.png", "b.png")
    assert list_own_images(file).persons == ("1", "2")  # a column of this name is no such line


def test_an_image_never_matches_itself(tmp_path):
    text = "path,person,split\nt.png,1,train\n" + "".join(
        f"{name}.png,{person},{part}\n"
        for part in ("query", "gallery")
        for name, person in (("a", 2), ("b", 2), ("c", 3), ("d", 3))
    )
    file = listed(tmp_path, text, *(f"{name}.png" for name in "tabcd"))
    assert "no camera is known" in refusal("csv", file) and "column camera" in refusal("csv", file)
    benchmark = load("csv", file, same_camera=True)
    assert benchmark.query.camera_ids.tolist() == benchmark.gallery.camera_ids.tolist()
    assert len(set(benchmark.query.camera_ids.tolist())) == 4
    file.write_text("path,person,split\nt.png,1,train\na.png,2,query\na.png,2,gallery\nc.png,3,gallery\n")
    assert "an image does not match itself" in refusal("csv", file, same_camera=True)
    # On a line a=0, c=1, b=3, d=9: nearest to a is c (another), then b (the match at rank 2); b has c
    # before a; c has a and b before d; d has b before c. An image that matched itself would give 1.
    features = np.array([[0.0], [3.0], [1.0], [9.0]], dtype=np.float32)
    embeddings = Embeddings(features, benchmark.query.person_ids, benchmark.query.camera_ids)
    scores = evaluate(embeddings, embeddings)
    assert scores.first_match_rank.tolist() == [2, 2, 3, 2]
    np.testing.assert_allclose(scores.average_precision, [1 / 2, 1 / 2, 1 / 3, 1 / 2])


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("", ["starts with its column names"]),
        ("path,person\n", ["lists images; got only column names"]),
        ("paths,person\na.png,1\n", ["lacks path", "'paths', 'person'", "rename paths to path"]),
        ("who;paths\na.png;1\n", ["'who', 'paths'", "rename paths to path"]),
        ("a.png,1\n", ["lacks path, person", "'a.png', '1'", "in the first line"]),
        ("path,person,path\na.png,1,b.png\n", ["path twice in line 1"]),
        ("path,person\na.png\nb.png,1,2\n", ["line 2 has 1 of 2, line 3 has 3 of 2"]),
        ("path,person\na.png,\n ,1\n", ["line 2 (person), line 3 (path)", "fill in"]),
        ("path,person,camera\na.png,1, \n", ["line 2 (camera)"]),
        (
            "path,person\na.png,1\n/etc/b.png,1\nC:b.png,1\n",
            ["line 3: /etc/b.png, line 4: C:b.png", "relative"],
        ),
        (
            "path,person\na.png,1\n../b.png,1\na/../../b.png,1\n",
            ["line 3: ../b.png, line 4: a/../../b.png", "or below"],
        ),
        ("path,person\na.png,1\n\nb.png,1\n./a.png,1\n", ["lines 2 and 5: a.png", "listed once"]),
        ("path,person,split\na.png,1,train\na.png,1,query\n", ["lines 2 and 3: a.png"]),
        ("path,person,split\na.png,1,query\na.png,2,gallery\n", ["has one person", "lines 2 and 3: a.png"]),
        (
            "path,person,split\na.png,1,query\na.png,1,gallery\na.png,1,query\n",
            ["1 faulty row in ", "lines 2 and 4: a.png"],
        ),
        ("path,person,split\na.png,1,test\n", ["split is one of: train, query, gallery", "line 2: test"]),
        ('path,person\n"a.png,1\nb.png,2\n', ["unexpected end of data from line 2"]),
        (
            "path,person\nA.png,1\nb.png,2\n",
            ["1 of 2 missing", "line 2: A.png", "capital letters: the file is a.png"],
        ),
        ("path,person\nset/a.png,1\n", ["1 of 1 missing", "a.png is in", "write the paths relative to"]),
        ("path,person\nin/z.png,1\n", ["line 2: in/z.png", "put the files back"]),
        ('path,person\n"in\nz.png",1\n', ["line 2: 'in\\nz.png'"]),
        ("path,person,camera\na.png,nan,7\nb.png,01,<NA>\n", ["line 2 (person nan), line 3 (camera <NA>)"]),
    ],
)
def test_a_wrong_csv_says_file_line_and_mend(tmp_path, text, phrases):
    file = listed(tmp_path, text, "a.png", "b.png")
    message = refusal("csv", file)
    for words in phrases:
        assert words in message
    assert not check("csv", file, progress=False).ok


def test_queries_of_a_list_are_named_by_their_paths(tmp_path):
    lines = ["a/1.png,1,1,query", "b/1.png,2,1,query", "c/1.png,1,2,gallery", "d/1.png,9,1,train"]
    text = "\n".join(["path,person,camera,split", *lines])
    file = listed(tmp_path, text, *(line.split(",")[0] for line in lines))
    report = check("csv", file, progress=False)
    assert "1 of 2 queries have no match: b/1.png" in report.remarks
    assert any(
        "1 person in 1 training image, 2 in 2 queries, 1 in 1 gallery image" in r for r in report.remarks
    )


def test_all_kinds_of_fault_are_checked_at_once(tmp_path):
    text = (
        "path,person,camera\na.png,1,1\na.png,1,1\n../b.png,1,2\n/c.png,1,2\nd.png,,1\ne.png,1,1\nb.png,1,2\n"
    )
    file = listed(tmp_path, text, "a.png", "b.png")
    (file.parent / "b.png").write_bytes(b"")
    report = check("csv", file, progress=False)
    assert len(report.problems) == 6
    assert all("list.csv" in problem for problem in report.problems[:5])
    assert "1 unreadable" in report.problems[5]


def test_a_csv_of_another_encoding_and_many_faults(tmp_path):
    file = listed(tmp_path, "path,person\na.png,1\né.png,2\n", "a.png", encoding="latin-1")
    text = refusal("csv", file)
    assert "byte 0xe9 in line 3" in text and "CSV UTF-8" in text
    file.write_text("path,person\n" + "".join(f"{n}.png,1\n" for n in range(1000)))
    text = refusal("csv", file)
    assert "1000 of 1000 missing" in text and "and 995 more" in text


def test_unusual_line_ends_are_part_of_names_or_end_lines(tmp_path):
    file = listed(tmp_path, "path,person\r\na\u2028.png,1\rb.png,2\n", "a\u2028.png", "b.png")
    assert list_own_images(file).names == ("a\u2028.png", "b.png")


def test_the_only_csv_of_a_folder_is_read(tmp_path):
    file = listed(tmp_path, CSV, *FOUR)
    shutil.copy(file, file.parent / "other.CSV")
    assert "2 in " in refusal("csv", file.parent) and "list.csv, other.CSV" in refusal("csv", file.parent)
    assert "0 in " in refusal("csv", file.parent / "anna")
    assert "exists" in refusal("csv", file.parent / "nothing")


def test_a_check_refuses_a_source_that_cannot_be_opened(own_folder, tmp_path, monkeypatch):
    file = listed(tmp_path, CSV, *FOUR)
    with pytest.raises(InputError, match="exists"):
        check("csv", file.parent / "nothing.csv", progress=False)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    # Rights alone would not do: tests may run as a user who may read everything.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"a CSV can be read; got .*Permission denied"):
        check("csv", file, progress=False)
    monkeypatch.setattr("reidlib.data.readers.listing.os.scandir", refuse)
    with pytest.raises(InputError, match="can be listed; got Permission denied"):
        check("folder", own_folder, progress=False)


def test_a_file_is_found_in_either_spelling(tmp_path):
    name = unicodedata.normalize("NFD", "ç") + ".png"
    file = listed(tmp_path, "path,person\nç.png,1\na.png,2\n", name, "a.png")
    assert list_own_images(file).split.paths[1].name == name


def test_own_images_for_searching(own_folder, tmp_path, monkeypatch):
    images = list_own_images(own_folder)
    assert images.root == own_folder and images.names == tuple(sorted(PERSONS))
    assert images.persons[:5] == ("anna",) * 4 + ("bob",)
    assert images.cameras[:4] == ("door", "door", "yard", "yard")
    assert images.split.camera_ids.tolist()[:4] == [1, 1, 2, 2]
    monkeypatch.chdir(own_folder)
    single = list_own_images("anna/door/2.JPG")
    assert single.names == ("2.JPG",) and single.persons == single.cameras == ("",)
    assert (single.split.person_ids.tolist(), single.split.camera_ids.tolist()) == ([0], [0])
    flat = list_own_images(put(tmp_path / "flat", "b_c2.jpg", "a_c1.jpg"))
    assert flat.names == ("a_c1.jpg", "b_c2.jpg")
    assert (flat.persons, flat.cameras) == (("", ""), ("1", "2"))
    one_person = list_own_images(put(tmp_path / "one", "anna/door/1.jpg", "anna/yard/1.jpg"))
    assert one_person.persons == ("anna", "anna") and one_person.cameras == ("door", "yard")
    place = tmp_path / "one" / "anna"
    assert one_person.warnings == (
        f"all images are taken for one person, anna; give {place} if this is no person",
    )
    assert not (images.warnings or single.warnings or flat.warnings)


def test_a_csv_for_searching_needs_no_persons(tmp_path):
    file = listed(tmp_path, "path\nb.png\na.png\n", "a.png", "b.png")
    assert list_own_images(file).persons == ("", "")
    file.write_text("path,person,camera\nb.png,Anna,\na.png,,2\n")
    images = list_own_images(file)
    assert (images.persons, images.cameras) == (("", "Anna"), ("2", ""))
    assert (images.split.person_ids.tolist(), images.split.camera_ids.tolist()) == ([0, 1], [2, 0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing", "there is no nothing in"),
        ("readme.txt", "an image file, a folder of them, or a CSV"),
        ("deep", "deeper folders"),
        ("mixed", "1 image in"),
        ("empty", "no image"),
        ("parted", "give one of them, such as"),
        ("wrong.csv", "lacks path"),
    ],
)
def test_sources_that_cannot_be_searched(tmp_path, source, message):
    put(tmp_path, "deep/a/b/c/1.jpg", "mixed/a/1.jpg", "mixed/2.jpg", *(f"parted/{name}" for name in PARTED))
    (tmp_path / "empty").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "wrong.csv").write_text("person\n1\n")
    with pytest.raises(InputError) as caught:
        list_own_images(tmp_path / source)
    assert message in one_line(caught)


def test_a_missing_source_suggests_its_neighbour(own_folder):
    for missing, near in (
        (own_folder / "ana", f"did you mean {own_folder / 'anna'}?"),
        (own_folder / "anna" / "door" / "1.jpeg", f"did you mean {own_folder / 'anna' / 'door' / '1.jpg'}?"),
        (
            own_folder / "qqq" / "1.jpg",
            f"there is no qqq in {own_folder}: give an image, a folder of images or a CSV file",
        ),
    ):
        with pytest.raises(InputError) as caught:
            list_own_images(missing)
        assert one_line(caught) == f"the images to search or embed exist; got {missing}; {near}"


def test_nothing_imports_torch():
    import subprocess
    import sys

    code = "import sys, reidlib.data.readers.own; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path.cwd()).returncode == 0
