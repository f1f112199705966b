import json
import os
import re
import shutil

import pytest
from miniature import MINIATURE, write_image

from reidlib.data import BENCHMARKS, load, load_specified
from reidlib.data import check as checking
from reidlib.data.check import check, count_deviations
from reidlib.data.readers import GUIDES, canonical, parse
from reidlib.data.readers.layout import official_counts
from reidlib.errors import InputError, count_noun
from reidlib.experiments import Setup

COUNTS = {
    "bounding_box_train": {"images": 5, "identities": 2, "cameras": 3},
    "query": {"images": 2, "identities": 2, "cameras": 2},
    "bounding_box_test": {"images": 7, "identities": 2, "cameras": 3, "junk": 2, "distractors": 1},
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture
def rendered(market):
    (market / "rendering.json").write_text(json.dumps({"size": "smoke", "counts": COUNTS}))
    return market


def refusal(name, root, **protocol):
    with pytest.raises(InputError) as caught:
        load(name, root, **protocol)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_miniature_is_read_as_counted_by_hand(market):
    benchmark = load("market1501", market)
    assert [path.name for path in benchmark.train.paths] == sorted(MINIATURE["bounding_box_train"])
    assert benchmark.train.person_ids.tolist() == [2, 2, 2, 7, 7]
    assert benchmark.train.camera_ids.tolist() == [1, 2, 2, 1, 3]
    assert benchmark.query.person_ids.tolist() == [1, 3]
    assert benchmark.gallery.person_ids.tolist() == [-1, -1, 0, 1, 1, 3, 3]
    assert benchmark.gallery.camera_ids.tolist() == [1, 2, 1, 1, 2, 1, 3]
    assert benchmark.num_queries_without_match == 0
    assert benchmark.num_trials == 1


def test_a_relative_folder_and_other_endings_are_read(market, monkeypatch):
    train = market / "bounding_box_train"
    (train / "0007_c1s6_028546_01.jpg").rename(train / "0007_c1s6_028546_01.JPG")
    write_image(train / "0007_c12s6_028546_01.png")
    monkeypatch.chdir(market.parent)
    benchmark = load("market1501", "market")
    assert benchmark.train.camera_ids.tolist() == [1, 2, 2, 12, 1, 3]
    assert benchmark.train.paths[0].is_absolute()


def test_a_name_that_does_not_parse_is_named(market):
    stray = market / "query" / "IMG_2041.jpg"
    write_image(stray)
    assert str(stray) in refusal("market1501", market)


@pytest.mark.parametrize("name", ["0001c1s1_000151_01.jpg", "-2_c1s1_000151_01.jpg", "0001_cx_01.jpeg"])
def test_similar_names_do_not_parse(market, name):
    write_image(market / "bounding_box_test" / name)
    assert "PERSON_cCAMERA" in refusal("market1501", market)


def test_a_missing_root_suggests_its_neighbour(market):
    assert f"did you mean {market}?" in refusal("market1501", market.parent / "marked")
    assert "there is no zzz in" in refusal("market1501", market.parent / "zzz" / "deeper")


def test_an_archive_is_refused_as_a_folder(market):
    archive = market.parent / "market.zip"
    archive.write_bytes(b"PK")
    assert "unpack it" in refusal("market1501", archive)
    image = market / "query" / MINIATURE["query"][0]
    assert f"the file {image}; give the folder it is in: {market / 'query'}" in refusal("market1501", image)


def test_missing_and_misspelt_folders(market):
    (market / "query").rename(market / "Querry")
    text = refusal("market1501", market)
    assert "lacks query" in text and "rename Querry to query" in text
    (market / "Querry").rename(market.parent / "away")
    text = refusal("market1501", market)
    assert "lacks query and contains bounding_box_test, bounding_box_train" in text
    assert "rename" not in text


def test_one_level_too_high_or_too_low(market):
    assert f"one level too high: give {market}" in refusal("market1501", market.parent)
    assert f"one level too low: give {market}" in refusal("market1501", market / "query")


def test_an_empty_folder_is_an_empty_split(market):
    for name in MINIATURE["query"]:
        (market / "query" / name).unlink()
    assert f"none in {market / 'query'}" in refusal("market1501", market)


def test_overlap_and_a_single_camera_are_refused(market):
    write_image(market / "bounding_box_train" / "0003_c1s1_000051_09.jpg")
    assert "no person is in both training and test; got 1 in both: 3" in refusal("market1501", market)
    (market / "bounding_box_train" / "0003_c1s1_000051_09.jpg").unlink()
    for folder in ("query", "bounding_box_test"):
        for path in (market / folder).glob("[0-9-]*.jpg"):
            if "_c1" not in path.name:
                path.unlink()
    assert "with one camera no query has a match" in refusal("market1501", market)


def test_unknown_names_trials_and_keywords(market):
    text = refusal("market1505", market)
    assert "market1501" in text and "synthetic" in text and "did you mean market1501?" in text
    assert "got trial 1" in refusal("market1501", market, trial=1)
    assert "got labelled" in refusal("market1501", market, labelled=True)


def test_the_rendered_folder_is_the_same_reader_with_a_count(rendered):
    synthetic, real = load("synthetic", rendered), load("market1501", rendered)
    assert synthetic.fingerprint == real.fingerprint
    (rendered / "query" / MINIATURE["query"][0]).unlink()
    assert "1 image instead of 2" in refusal("synthetic", rendered)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", 9**6 * "[", '{"counts": {"query": 1}}'])
def test_a_folder_without_rendering_file_is_refused(market, content):
    if content is not None:
        (market / "rendering.json").write_text(content)
    assert "reidlib render SIZE FOLDER" in refusal("synthetic", market)


def test_a_rendered_folder_one_level_off_is_suggested(rendered):
    assert f"one level too high: give {rendered}" in refusal("synthetic", rendered.parent)
    assert f"one level too low: give {rendered}" in refusal("synthetic", rendered / "query")


def test_a_sound_rendering_passes_the_check(rendered):
    report = check("synthetic", rendered, progress=False)
    assert report.ok and not report.remarks
    actual_counts = {(count.folder, count.quantity): count.actual for count in report.counts}
    assert actual_counts == {
        (folder, quantity): n for folder, row in COUNTS.items() for quantity, n in row.items()
    }
    assert "complete and readable" in report.text()


def test_the_check_lists_everything_at_once(rendered):
    test = rendered / "bounding_box_test"
    for name in ("0003_c1s1_000051_01.jpg", "0001_c2s1_000801_01.jpg"):
        (test / name).write_bytes((test / name).read_bytes()[:-20])  # truncated
    (test / "0003_c3s1_000076_02.jpg").unlink()
    (test / "-1_c1s1_000401_03.jpg").write_bytes(b"")
    write_image(test / "portrait.jpg")
    write_image(test / "0002_c1s1_000051_01.jpg")  # a training person
    report = check("synthetic", rendered, progress=False)
    text = report.text()
    assert not report.ok
    assert "3 unreadable" in text and str(test / "0003_c1s1_000051_01.jpg") in text
    assert "portrait.jpg" in text
    assert "no person is in both training and test; got 1 in both: 2" in text
    assert "bounding_box_test has 3 identities, 1 more than expected" in text
    assert "differs" in text


def test_the_check_goes_on_past_a_missing_folder(rendered):
    (rendered / "query").rename(rendered.parent / "away")
    (rendered / "bounding_box_train" / MINIATURE["bounding_box_train"][0]).write_bytes(b"no image")
    report = check("synthetic", rendered, progress=False)
    assert not report.ok
    assert "lacks query" in report.text() and "1 unreadable" in report.text()
    assert [count.actual for count in report.counts if count.folder == "query"] == [None] * 3


def test_an_incomplete_market1501_fails_the_check(market):
    report = check("market1501", market, progress=False)
    assert not report.ok
    text = report.text()
    assert "query has 2 images, 3,366 fewer than expected" in text
    assert "identities from 1 to 1501 without any image: 4, 5, 6, 8" in text


@pytest.mark.parametrize("name", ["market1501", "dukemtmc", "synthetic"])
def test_a_folder_one_level_off_is_the_only_problem(rendered, name):
    for root, way in ((rendered.parent, "high"), (rendered / "query", "low")):
        report = check(name, root, progress=False)
        (problem,) = report.problems
        assert f"one level too {way}: give {rendered}" in problem
        assert not report.counts and not report.remarks
        assert report.text().splitlines()[2:] == [f"problem: {problem}", "1 problem"]
        assert count_deviations(name, root) == [problem]
    # Where some of the layout is there, what is there is counted.
    for folder in ("query", "bounding_box_train"):
        (rendered / folder).rename(rendered.parent / folder)
    assert check(name, rendered, progress=False).counts


def test_a_trial_that_cannot_be_loaded_is_a_problem(rendered):
    assert check("synthetic", rendered, progress=False, trial=0).ok
    assert count_deviations("synthetic", rendered, trial=0) == []
    refused = "synthetic has trial 0 only; got trial 3; choose one of these"
    assert check("synthetic", rendered, progress=False, trial=3).problems == (refused,)
    assert count_deviations("synthetic", rendered, trial=3) == [refused]
    # What the survey says already is said once, and a trial is no excuse for another keyword.
    write_image(rendered / "bounding_box_test" / "portrait.jpg")
    assert check("synthetic", rendered, progress=False, trial=0).text().count("portrait.jpg") == 1
    with pytest.raises(
        InputError, match="protocol keywords of synthetic are: train_persons, images_per_person; got boxes"
    ):
        check("synthetic", rendered, progress=False, trial=0, boxes="detected")


def test_counts_of_one_are_singular(rendered):
    assert [count_noun(1, quantity) for quantity in ("identities", "boxes", "images", "junk")] == [
        "1 identity",
        "1 box",
        "1 image",
        "1 junk",
    ]
    assert [count_noun(1, quantity) for quantity in ("queries", "other boxes", "such persons")] == [
        "1 query",
        "1 other box",
        "1 such person",
    ]
    assert count_noun(1_000, "identities") == "1,000 identities" and count_noun(0, "cameras") == "0 cameras"
    (rendered / "query" / "0003_c2s1_000001_00.jpg").unlink()
    text = check("synthetic", rendered, progress=False).text()
    assert "query has 1 image, 1 fewer than expected" in text
    assert "query has 1 identity, 1 fewer" in text and "query has 1 camera, 1 fewer" in text


def test_queries_without_match_are_a_remark(rendered):
    (rendered / "bounding_box_test" / "0001_c2s1_000801_01.jpg").rename(
        rendered / "bounding_box_test" / "0001_c1s1_000801_01.jpg"
    )
    report = check("synthetic", rendered, progress=False)
    assert report.ok
    assert report.remarks == ("1 of 2 queries have no match: 0001_c1s1_001051_00.jpg",)


def test_the_check_of_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="exists"):
        check("market1501", tmp_path / "nowhere", progress=False)
    with pytest.raises(InputError, match="is one of"):
        check("nothing", tmp_path, progress=False)


def test_official_counts_add_up():
    counts = official_counts("market1501")
    test = counts["bounding_box_test"]
    assert test["images"] - test["junk"] == 15_913  # the gallery's usual size
    assert sum(counts[f]["identities"] for f in ("bounding_box_train", "query")) == 1501


# Hand-drawn boxes: those of the queries (0001 by camera 1, 0003 by camera 2), and some that no query needs.
BOXES = {
    "0001_c1s1_001051_00.jpg": True,
    "0001_c1s2_038021_00.jpg": True,
    "0001_c2s1_000801_00.jpg": False,  # the query's person by another camera
    "0002_c1s1_000451_00.jpg": False,  # a training person
    "0003_c2s1_000001_00.jpg": True,
    "0003_c12s1_000001_00.jpg": False,  # camera 12 is not camera 1 or 2
}


@pytest.fixture
def boxed(market):
    (market / "gt_bbox").mkdir()
    (market / "gt_bbox" / "Thumbs.db").write_bytes(b"not an image")
    for index, name in enumerate(BOXES):
        write_image(market / "gt_bbox" / name, seed=900 + index)
    return market


def test_boxes_are_those_of_the_queries_cameras(boxed):
    benchmark = load("market1501", boxed)
    assert [path.name for path in benchmark.boxes.paths] == [name for name, is_box in BOXES.items() if is_box]
    assert benchmark.boxes.person_ids.tolist() == [1, 1, 3]
    assert benchmark.boxes.camera_ids.tolist() == [1, 1, 2]
    assert all(path.parent.name == "gt_bbox" for path in benchmark.boxes.paths)


def test_the_fingerprint_ignores_boxes(boxed):
    with_boxes = load("market1501", boxed)
    (boxed / "gt_bbox").rename(boxed.parent / "away")
    without = load("market1501", boxed)
    assert without.boxes is None
    assert with_boxes.fingerprint == without.fingerprint


def test_a_query_without_a_box_is_named(boxed):
    (boxed / "gt_bbox" / "0003_c2s1_000001_00.jpg").unlink()
    text = refusal("market1501", boxed)
    assert "1 query without a box: " in text and "0003_c2s1_000001_00.jpg" in text
    (boxed / "gt_bbox" / "0001.jpg").write_bytes(b"")
    assert "PERSON_cCAMERA" in refusal("market1501", boxed)


def test_the_check_counts_and_reads_the_boxes(boxed):
    report = check("market1501", boxed, progress=False)
    assert (
        "gt_bbox contains 3 boxes of the queries, for multi-query, among 6 images; about 25,259"
        in report.text()
    )
    (boxed / "gt_bbox" / "0001_c1s2_038021_00.jpg").write_bytes(b"")
    (boxed / "gt_bbox" / "0003_c2s1_000001_00.jpg").unlink()
    text = check("market1501", boxed, progress=False).text()
    assert "1 unreadable" in text and "0001_c1s2_038021_00.jpg" in text
    assert "each query has a box of its person in its camera; got 1 query" in text
    (boxed / "gt_bbox" / "0001.jpg").write_bytes(b"")
    assert "PERSON_cCAMERA" in check("market1501", boxed, progress=False).text()


def test_the_embedded_benchmark_pools_over_its_own_images(rendered):
    write_image(rendered / "bounding_box_test" / "0001_c1s1_001060_02.jpg")
    counts = json.loads((rendered / "rendering.json").read_text())
    counts["counts"]["bounding_box_test"]["images"] += 1
    (rendered / "rendering.json").write_text(json.dumps(counts))
    benchmark = load("synthetic", rendered)
    assert [f"{path.parent.name}/{path.name}" for path in benchmark.boxes.paths] == [
        "query/0001_c1s1_001051_00.jpg",
        "query/0003_c2s1_000001_00.jpg",
        "bounding_box_test/0001_c1s1_001051_02.jpg",
        "bounding_box_test/0001_c1s1_001060_02.jpg",
    ]
    assert benchmark.boxes.person_ids.tolist() == [1, 3, 1, 1]
    assert benchmark.boxes.camera_ids.tolist() == [1, 2, 1, 1]


def test_readable_images_are_not_read_again(rendered, tmp_path, monkeypatch):
    read = []
    decoder = checking.decode_blocks

    def counted(paths, *rest, **more):
        read.append([path.name for path in paths])
        return decoder(paths, *rest, **more)

    monkeypatch.setattr(checking, "decode_blocks", counted)
    assert check("synthetic", rendered, progress=False).remarks == ()
    report = check("synthetic", rendered, progress=False)
    assert report.ok
    assert report.remarks == ("14 images read by an earlier check and not changed since",)
    # Damaged without changing its size: the time tells; and it is found again while it stays damaged.
    name = "0003_c1s1_000051_01.jpg"
    damaged = rendered / "bounding_box_test" / name
    content = damaged.read_bytes()
    damaged.write_bytes(bytes(len(content)))
    os.utime(damaged, ns=(1, 1))
    for _ in range(2):
        assert (
            f"{name} (not an image, or of an unknown kind)"
            in check("synthetic", rendered, progress=False).text()
        )
    assert [len(names) for names in read] == [14, 0, 1, 1]
    damaged.write_bytes(content)
    assert check("synthetic", rendered, progress=False, reread=True).ok
    assert len(read[-1]) == 14
    # A lost record costs time alone, and one that cannot be written is done without.
    record = next((tmp_path / "home" / "checked").iterdir())
    record.write_text("{")
    assert check("synthetic", rendered, progress=False).ok
    shutil.rmtree(tmp_path / "home")
    (tmp_path / "home").write_text("a file in its place")
    assert check("synthetic", rendered, progress=False).ok


def test_damage_that_leaves_size_and_time_is_found(rendered):
    assert check("synthetic", rendered, progress=False).ok
    image = rendered / "query" / MINIATURE["query"][0]
    before = image.stat()
    image.write_bytes(bytes(before.st_size))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (image.stat().st_size, image.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert (
        f"{image.name} (not an image, or of an unknown kind)"
        in check("synthetic", rendered, progress=False).text()
    )


def test_a_specification_is_parsed():
    assert parse("market1501") == ("market1501", {})
    assert parse("market1501,distractors=true") == ("market1501", {"distractors": True})
    assert parse("market1501,distractors=No") == ("market1501", {"distractors": False})
    assert parse("cuhk03,boxes=detected,split=new,trial=0") == (
        "cuhk03",
        {"boxes": "detected", "split": "new", "trial": 0},
    )
    assert parse("cuhk01,test_persons=100,trial=3") == ("cuhk01", {"test_persons": 100, "trial": 3})


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("cuhk03,boxes=labelled,trial=0", "cuhk03"),
        ("market1501,validation=Yes", "market1501,validation=true"),
        ("viper,trial=2,validation=true,test_persons=100", "viper,test_persons=100,validation=true,trial=2"),
        ("grid,images_per_person=2,train_persons=10", "grid,train_persons=10,images_per_person=2"),
        ("market1501,distractors=true", "market1501,distractors=true"),
    ],
)
def test_a_specification_is_written_in_one_way(text, written):
    assert canonical(text) == canonical(written) == written
    assert Setup("smoke", text).benchmark == written  # runs are found by it


def test_that_way_is_the_benchmarks_own(market):
    options = {"images_per_person": 2, "train_persons": 2, "validation": False}
    loaded = load("market1501", market, **options)
    text = ",".join(["market1501", *(f"{name}={value}" for name, value in options.items())])
    assert loaded.specification == canonical(text) == "market1501,train_persons=2,images_per_person=2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("market1505", "did you mean market1501?"),
        ("market1501,distractors", "write each option as KEYWORD=VALUE"),
        ("folder,test_persons=1,test_persons=2", "write test_persons once"),
        ("market1501,distractors=some", "distractors is True or False; got 'some'"),
        ("cuhk01,test_persons=many", "test_persons is a whole number"),
        ("cuhk01,trial=-1", "trial is a whole number"),
        ("cuhk03,box=detected", "did you mean boxes?"),
        ("dukemtmc,boxes=detected", "protocol keywords of dukemtmc are: validation, training_only"),
        ("", "a benchmark is one of"),
    ],
)
def test_a_wrong_specification_is_refused(text, words):
    with pytest.raises(InputError) as caught:
        parse(text)
    assert words in str(caught.value)


def test_a_specification_loads_the_same_benchmark(market):
    benchmark = load_specified("market1501,trial=0", market)
    assert benchmark.specification == "market1501"
    assert load_specified(benchmark.specification, benchmark.root).fingerprint == benchmark.fingerprint


@pytest.mark.parametrize("text", ["false", "No", "0", 0])
def test_an_option_in_words_is_a_truth_value(market, text):
    assert load("market1501", market, distractors=text).specification == "market1501"
    with pytest.raises(InputError, match="distractors is True or False; got 'nein'"):
        load("market1501", market, distractors="nein")


def test_each_guide_is_complete_and_names_existing_options():
    assert set(GUIDES) <= set(BENCHMARKS)
    for name, guide in GUIDES.items():
        text = " ".join((guide.source, guide.layout, guide.know))
        assert "same laboratory" not in text
        for word in re.findall(r"\b[a-z0-9]+(?:,[a-z_]+=[a-z0-9]+)+", f"{text} {guide.command}"):
            assert parse(word)[0] == name
    assert "Chinese University" in GUIDES["cuhk03"].source
    assert "market1501,distractors=true" in GUIDES["market1501"].layout


def test_dukemtmc_is_read(tmp_path):
    names = {
        "bounding_box_train": ("0001_c1_f0044158.jpg", "0001_c8_f0044278.jpg", "0007_c2_f0046182.jpg"),
        "query": ("0005_c2_f0046985.jpg",),
        "bounding_box_test": ("0005_c5_f0047000.jpg", "0006_c1_f0047001.JPG", "0005_c2_f0046990.jpg"),
    }
    root = tmp_path / "DukeMTMC-reID"
    for folder, listed in names.items():
        (root / folder).mkdir(parents=True)
        for index, name in enumerate(listed):
            write_image(root / folder / name, seed=index)
    benchmark = load("dukemtmc", root)
    assert benchmark.train.person_ids.tolist() == [1, 1, 7]
    assert benchmark.train.camera_ids.tolist() == [1, 8, 2]
    assert benchmark.gallery.person_ids.tolist() == [5, 5, 6]
    assert benchmark.boxes is None and benchmark.protocols == {}
    report = check("dukemtmc", root, progress=False)
    assert "bounding_box_train has 3 images, 16,519 fewer than expected" in report.text()
    assert f"one level too high: give {root}" in refusal("dukemtmc", root.parent)


def test_a_nested_extra_folder_is_found(market):
    outer = market.parent / "archive"
    (outer / "Market-1501").mkdir(parents=True)
    moved = outer / "Market-1501" / "Market-1501-v15.09.15"
    market.rename(moved)
    assert f"two levels too high: give {moved}" in refusal("market1501", outer)


def test_all_candidate_folders_are_named(rendered, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(rendered, both / "rendered")
    shutil.copytree(rendered, both / "DukeMTMC-reID")
    (both / "DukeMTMC-reID" / "rendering.json").unlink()
    one_of = f"one level too high: give one of {both / 'DukeMTMC-reID'}, {both / 'rendered'}"
    assert check("market1501", both, progress=False).text().count(one_of) == 1
    # A rendering is known by its own file.
    (problem,) = check("synthetic", both, progress=False).problems
    assert problem.endswith(f"one level too high: give {both / 'rendered'}")
    shutil.rmtree(both / "rendered")
    (problem,) = check("synthetic", both, progress=False).problems
    assert "reidlib render SIZE FOLDER" in problem and "DukeMTMC" not in problem
    with pytest.raises(InputError, match="exists"):
        check("synthetic", tmp_path / "nowhere", progress=False)
    for number in range(7):
        shutil.copytree(both / "DukeMTMC-reID", both / f"copy{number}")
    assert "copy3 and 3 more" in refusal("market1501", both)


def test_the_mend_for_missing_images_is_given_once(market, rendered):
    whole = "unpack or copy the archive again, completely"
    problems = check("market1501", market, progress=False).problems
    assert [problem for problem in problems if whole in problem] == [
        f"bounding_box_train has 5 images, 12,931 fewer than expected; {whole}"
    ]
    assert not any(whole in difference for difference in count_deviations("market1501", market))
    write_image(rendered / "query" / "0003_c2s1_000002_00.jpg")
    write_image(rendered / "query" / "0001_c3s1_000002_00.jpg")
    (rendered / "bounding_box_train" / MINIATURE["bounding_box_train"][0]).unlink()
    assert check("synthetic", rendered, progress=False).problems == (
        "bounding_box_train has 4 images, 1 fewer than expected; remove the folder and render it again:"
        " reidlib render SIZE FOLDER",
        "query has 4 images, 2 more than expected; remove the files that do not belong there",
        "query has 3 cameras, 1 more than expected",
    )


def test_an_emptied_folder_is_named_by_the_check(market):
    for path in (market / "bounding_box_test").iterdir():
        path.unlink()
    text = check("market1501", market, progress=False).text()
    assert text.count(f"got none in {market / 'bounding_box_test'}; unpack the archive completely") == 1
    assert "an empty gallery split" not in text
    write_image(market / "bounding_box_test" / "portrait.jpg")
    text = check("market1501", market, progress=False).text()
    assert "portrait.jpg" in text and "got none in" not in text


@pytest.mark.parametrize("name", ["market1501", "dukemtmc", "cuhk01", "cuhk03", "grid", "viper", "folder"])
def test_an_archive_in_the_folder_is_named(tmp_path, name):
    root = tmp_path / "far" / "packed"
    root.mkdir(parents=True)
    (root / "some.tar.gz").write_bytes(b"")
    (root / "._some.zip").write_bytes(b"")
    report = check(name, root, progress=False)
    assert "; unpack some.tar.gz" in report.problems[0]
    # Nothing is there to be counted.
    assert not report.counts and "identities" not in report.text()
    (root / "other.ZIP").write_bytes(b"")
    assert "; unpack the right one of: other.ZIP, some.tar.gz" in check(name, root, progress=False).text()


def test_a_check_lists_missing_images_before_other_problems(boxed):
    (boxed / "gt_bbox" / "nobody.jpg").write_bytes(b"")
    problems = check("market1501", boxed, progress=False, distractors=True).problems
    beginnings = ("identities from 1 to 1501", "an image's name starts", "further distractors are in")
    places = [
        place for words in beginnings for place, problem in enumerate(problems) if problem.startswith(words)
    ]
    assert places == sorted(places) and len(places) == len(beginnings)


def test_distractors_and_boxes_are_compared_with_expected_numbers(boxed):
    folder = boxed / "distractors_500k"
    folder.mkdir()
    for index in range(2):
        write_image(folder / f"{index}.jpg", seed=index)
    remarks = check("market1501", boxed, progress=False, distractors=True).remarks
    assert "2 further distractors; about 500,000 are expected" in remarks
    assert (
        "gt_bbox contains 3 boxes of the queries, for multi-query, among 6 images; about 25,259 are expected"
        in remarks
    )


def test_a_complete_number_needs_no_remark(boxed, monkeypatch):
    monkeypatch.setattr("reidlib.data.readers.market.APPROXIMATE_BOXES", len(BOXES))
    remarks = check("market1501", boxed, progress=False).remarks
    assert "gt_bbox contains 3 boxes of the queries, for multi-query, among 6 images" in remarks


def test_parsed_options_belong_to_the_caller():
    name, options = parse("cuhk03,boxes=detected")
    options["trial"] = 3
    assert parse("cuhk03,boxes=detected") == (name, {"boxes": "detected"})
