import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from cuhk03_miniature import (
    NEW_TEST,
    filled,
    new_lists,
    official_name,
    picture,
    write_archive,
    write_lists,
)
from miniature import write_image
from PIL import Image
from scipy.io import savemat

from reidlib import files
from reidlib.data.benchmark import Protocol
from reidlib.data.check import check, compare_counts
from reidlib.data.readers import load, read
from reidlib.data.readers.cuhk03 import archive
from reidlib.data.readers.cuhk03.archive import archive_identity, extract
from reidlib.data.readers.layout import official_counts
from reidlib.errors import InputError

# By hand: 8 persons of 10 slots, less 3 + 4 + 5 empty cells, and less 2 + 7.
NUM_LABELLED, NUM_DETECTED = 68, 71


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """All generated files go to a folder of this test."""
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def written_release(tmp_path_factory):
    """The miniature, written once."""
    root = tmp_path_factory.mktemp("written") / "cuhk03_release"
    root.mkdir()
    write_archive(root / "cuhk-03.mat")
    (root / "README.md").write_text("CUHK03")
    for kind in ("labeled", "detected"):
        write_lists(root, kind)
    return root


@pytest.fixture
def release(written_release, tmp_path):
    """A copy of the miniature that a test may damage."""
    shutil.copytree(written_release, tmp_path / "data" / "cuhk03_release")
    return tmp_path / "data" / "cuhk03_release"


@pytest.fixture
def ready_made(tmp_path):
    """CUHK03-NP: person 9 is for training, person 3 is a query of both cameras."""
    root = tmp_path / "data" / "cuhk03-np"
    for number, kind in enumerate(("labeled", "detected")):
        for folder, names in {
            "bounding_box_train": ("0009_c1_1.png", "0009_c2_6.png"),
            "query": ("0003_c1_21.png", "0003_c2_27.png"),
            "bounding_box_test": ("0003_c1_22.png", "0003_c2_28.png", "0003_c2_29.png")[: 3 - number],
        }.items():
            (root / kind / folder).mkdir(parents=True)
            for name in names:
                write_jpeg_as(root / kind / folder / name)
    return root


def write_jpeg_as(path):
    write_image(path.with_suffix(".jpg"))
    Image.open(path.with_suffix(".jpg")).save(path)
    path.with_suffix(".jpg").unlink()


def refusal(root, **options):
    with pytest.raises(InputError) as caught:
        load("cuhk03", root, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def images_of(boxes="labelled"):
    (folder,) = files.data().glob(f"cuhk03-*/{boxes}")
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}, folder


def test_the_first_trial_is_as_counted_by_hand(release):
    benchmark = load("cuhk03", release)
    # Test set 1: persons 1, 5 (the second of pair 2) and 7 (the only one of pair 4).
    assert np.unique(benchmark.query.person_ids).tolist() == [1, 5, 7]
    assert np.unique(benchmark.train.person_ids).tolist() == [2, 3, 4, 6, 8]
    assert len(benchmark.query) == 7 + 10 + 10
    assert len(benchmark.train) == NUM_LABELLED - 27
    assert benchmark.query is benchmark.gallery
    first = benchmark.query.select(benchmark.query.person_ids == 1)
    assert [path.name for path in first.paths] == [
        "labelled_1_001_1_01.png",
        "labelled_1_001_1_03.png",
        "labelled_1_001_1_04.png",
        "labelled_1_001_2_07.png",
        "labelled_1_001_2_08.png",
        "labelled_1_001_2_09.png",
        "labelled_1_001_2_10.png",
    ]
    assert first.camera_ids.tolist() == [1, 1, 1, 2, 2, 2, 2]
    assert (benchmark.num_trials, benchmark.trial, benchmark.specification) == (3, 0, "cuhk03")
    assert benchmark.protocols == {
        "single-shot": Protocol("single", draws=10),
        "single-shot, view 1 to 2": Protocol("single", draws=10, query_cameras=(1,)),
    }
    assert benchmark.extracted == archive_identity(release / "cuhk-03.mat") and benchmark.root == release
    for split in (benchmark.train, benchmark.query):
        assert list(split.paths) == sorted(split.paths)


@pytest.mark.parametrize(("boxes", "kind"), [("labelled", "labeled"), ("detected", "detected")])
def test_pixels_are_those_that_were_put_in(release, boxes, kind):
    load("cuhk03", release, boxes=boxes)
    _, folder = images_of(boxes)
    expected = {f"{boxes}_{official_name(*slot)}": picture(kind, *slot) for slot in filled(kind)}
    assert {path.name for path in folder.iterdir()} == set(expected)
    for name, image_hwc in expected.items():
        with Image.open(folder / name) as file:
            assert file.mode == "RGB"
            np.testing.assert_array_equal(np.asarray(file), image_hwc)


def test_only_the_kind_that_was_asked_for_is_extracted(release):
    assert len(load("cuhk03", release, boxes="detected").train) == NUM_DETECTED - 8 - 3 - 10
    assert not list(files.data().glob("cuhk03-*/labelled"))
    assert load("cuhk03", release, boxes="detected", trial=2).specification == "cuhk03,boxes=detected,trial=2"


def test_every_trial_tests_its_own_persons(release):
    tested = [[1, 5, 7], [1, 3, 6], [2, 4, 8]]
    everyone = set(range(1, 9))
    for trial, persons in enumerate(tested):
        benchmark = load("cuhk03", release, trial=trial)
        assert np.unique(benchmark.query.person_ids).tolist() == persons
        assert set(benchmark.train.person_ids.tolist()) == everyone - set(persons)
        assert not set(benchmark.train.paths) & set(benchmark.query.paths)
        assert len(benchmark.train) + len(benchmark.query) == NUM_LABELLED
    # Person 6 has no image of view 1: its five images of view 2 find nobody.
    assert load("cuhk03", release, trial=1).num_queries_without_match == 5
    assert load("cuhk03", release, trial=1).fingerprint != benchmark.fingerprint


def test_a_copy_elsewhere_is_the_same_data_and_not_extracted_again(release, tmp_path, monkeypatch):
    first = load("cuhk03", release)
    monkeypatch.setattr(archive, "_extract", None)  # would be called
    shutil.copytree(release, tmp_path / "elsewhere")  # with other times
    os.utime(tmp_path / "elsewhere" / "cuhk-03.mat")
    again = load("cuhk03", tmp_path / "elsewhere")
    assert again.fingerprint == first.fingerprint and again.train.paths == first.train.paths


def test_the_same_fingerprint_in_another_home(release, tmp_path, monkeypatch):
    first = load("cuhk03", release)
    for home in (tmp_path / "other", release / "home"):  # outside the benchmark's folder and inside
        monkeypatch.setenv("REIDLIB_HOME", str(home))
        again = load("cuhk03", release)
        assert home in again.train.paths[0].parents
        assert again.fingerprint == first.fingerprint


@pytest.mark.parametrize("split", ["classic", "new"])
def test_other_pixels_are_other_data(release, split):
    first = load("cuhk03", release, split=split)
    write_archive(release / "cuhk-03.mat", show=lambda *place: 255 - picture(*place))
    other = load("cuhk03", release, split=split)
    assert [path.name for path in other.train.paths] == [path.name for path in first.train.paths]
    assert other.fingerprint != first.fingerprint


def test_other_content_is_another_extraction(release):
    before = archive_identity(release / "cuhk-03.mat")
    load("cuhk03", release)
    write_archive(release / "cuhk-03.mat", test_sets=(((1, 2),),))
    assert archive_identity(release / "cuhk-03.mat") != before
    assert load("cuhk03", release).query.person_ids.tolist() == [2] * 6


def test_the_new_protocol_is_that_of_the_lists(release):
    for boxes, kind, count in (("labelled", "labeled", NUM_LABELLED), ("detected", "detected", NUM_DETECTED)):
        benchmark = load("cuhk03", release, split="new", boxes=boxes)
        lists = new_lists(kind)
        names = lists["filelist"].ravel()
        for split, key in (
            (benchmark.train, "train_idx"),
            (benchmark.query, "query_idx"),
            (benchmark.gallery, "gallery_idx"),
        ):
            rows = lists[key].ravel() - 1
            assert [path.name for path in split.paths] == [f"{boxes}_{name}" for name in names[rows]]
            assert split.person_ids.tolist() == lists["labels"].ravel()[rows].tolist()
            assert split.camera_ids.tolist() == lists["camId"].ravel()[rows].tolist()
        assert np.unique(benchmark.query.person_ids).tolist() == list(NEW_TEST)
        assert len(benchmark.query) == 6
        assert len(benchmark.train) + len(benchmark.query) + len(benchmark.gallery) == count
        assert benchmark.num_trials == 1 and not benchmark.protocols
        assert benchmark.extracted == archive_identity(release / "cuhk-03.mat")
        assert benchmark.options["split"] == "new"
    assert "cuhk03 with split=new has trial 0 only" in refusal(release, split="new", trial=1)


def test_the_lists_may_lie_one_level_above(release):
    for path in release.glob("cuhk03_new_protocol_config_*.mat"):
        path.rename(release.parent / path.name)
    assert len(load("cuhk03", release, split="new").query) == 6


def test_the_ready_made_folders_need_no_archive(ready_made):
    labelled = load("cuhk03", ready_made, split="new")
    assert [path.name for path in labelled.gallery.paths] == [
        "0003_c1_22.png",
        "0003_c2_28.png",
        "0003_c2_29.png",
    ]
    assert labelled.gallery.camera_ids.tolist() == [1, 2, 2]
    assert labelled.query.person_ids.tolist() == [3, 3] and labelled.train.person_ids.tolist() == [9, 9]
    assert labelled.extracted == "" and not labelled.protocols
    assert len(load("cuhk03", ready_made, split="new", boxes="detected").gallery) == 2
    assert "with split=new" in refusal(ready_made)
    assert f"one level too low: give {ready_made}" in refusal(ready_made / "labeled", split="new")
    assert f"one level too high: give {ready_made}" in refusal(ready_made.parent, split="new")
    shutil.rmtree(ready_made / "detected" / "query")
    assert "lacks query" in refusal(ready_made, split="new", boxes="detected")
    shutil.rmtree(ready_made / "detected")
    assert "unpack CUHK03-NP's folder detected too" in refusal(ready_made, split="new", boxes="detected")


_DYING = """
import os, signal, sys
from pathlib import Path
from reidlib.data.readers.cuhk03 import archive
replace, moved = Path.replace, []
def dying(self, target):
    if len(moved) == 20:
        os.kill(os.getpid(), signal.SIGKILL)
    moved.append(target)
    return replace(self, target)
Path.replace = dying
archive.extract(Path(sys.argv[1]), "labelled", progress=False)
"""


def test_a_killed_extraction_goes_on_where_it_stopped(release):
    mat = release / "cuhk-03.mat"
    child = subprocess.run([sys.executable, "-c", _DYING, str(mat)], capture_output=True)
    assert child.returncode == -signal.SIGKILL
    before, folder = images_of()
    assert 15 <= len(before) <= 25
    assert list(folder.glob(".*.partial")), "it died while it was writing"
    assert not (folder.parent / "labelled.json").exists()
    benchmark = load("cuhk03", release)
    after, _ = images_of()
    assert {name: after[name] for name in before} == before
    assert len(after) == NUM_LABELLED == len(list(folder.iterdir()))
    with Image.open(benchmark.query.paths[0]) as file:
        np.testing.assert_array_equal(np.asarray(file), picture("labeled", 1, 1, 1))
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder.parent)
    load("cuhk03", release)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


def test_an_interrupted_extraction_goes_on_too(release, monkeypatch):
    read, images = archive.read_image, []

    def interrupted(*arguments):
        images.append(arguments)
        if len(images) == 10:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(archive, "read_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load("cuhk03", release)
    monkeypatch.undo()
    monkeypatch.setenv("REIDLIB_HOME", str(release.parent.parent / "home"))
    assert len(load("cuhk03", release).train) == NUM_LABELLED - 27


def test_a_lost_image_is_written_again_and_nothing_else(release):
    benchmark = load("cuhk03", release)
    before, _ = images_of()
    lost_image = benchmark.train.paths[3]
    lost_image.unlink()
    assert load("cuhk03", release).train.paths == benchmark.train.paths
    after, _ = images_of()
    assert {name for name in after if after[name] != before[name]} == {lost_image.name}


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": ["portrait.png"]}'])
def test_a_damaged_index_is_written_again(release, content):
    whole = load("cuhk03", release)
    before, folder = images_of()
    index = folder.parent / "labelled.json"
    index.write_text(content or index.read_text()[:-100])
    assert load("cuhk03", release).train.paths == whole.train.paths
    assert images_of()[0] == before
    assert len(json.loads(index.read_text())["images"]) == NUM_LABELLED


def test_two_at_once_extract_once(release, monkeypatch):
    write, written_names = archive._write, []

    def counted(path, image_hwc):
        written_names.append(path.name)
        write(path, image_hwc)

    monkeypatch.setattr(archive, "_write", counted)
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(extract(release / "cuhk-03.mat", "labelled", progress=False))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] == results[1]
    assert len(written_names) == len(set(written_names)) == NUM_LABELLED


@contextmanager
def file_size_limit(limit):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_one_line_and_is_made_good(release):
    with file_size_limit(400):  # some images are smaller
        text = refusal(release)
    assert "labelled_" in text and "free some disk space and run again" in text
    _, folder = images_of()
    assert not list(folder.glob(".*")), "no half image is left"
    assert not (folder.parent / "labelled.json").exists()
    assert len(load("cuhk03", release).train) == NUM_LABELLED - 27


def test_a_folder_that_cannot_be_made_is_named(release, home):
    home.mkdir()
    (home / "data").write_text("a file in the way")
    assert "set REIDLIB_HOME to a folder you can write to" in refusal(release)


def test_one_level_off_is_said(release, tmp_path):
    assert f"one level too high: give {release}" in refusal(release.parent)
    assert f"two levels too high: give {release}" in refusal(release.parent.parent)
    (release / "images").mkdir()
    assert f"one level too low: give {release}" in refusal(release / "images")
    assert f"cuhk-03.mat; give the folder it is in: {release}" in refusal(release / "cuhk-03.mat")
    assert f"did you mean {release}?" in refusal(release.with_name("cuhk03_relaese"))
    (release / "cuhk-03.mat").rename(release / "cuhk03.mat")
    text = refusal(release)
    assert "contains images, README.md" in text and "rename cuhk03.mat to cuhk-03.mat" in text
    (tmp_path / "zipped").mkdir()
    (tmp_path / "zipped" / "cuhk03_release.zip").write_bytes(b"PK")
    assert "unpack cuhk03_release.zip" in refusal(tmp_path / "zipped")


def test_the_check_of_a_folder_one_level_off_says_that_alone(release, ready_made):
    (release / "images").mkdir()
    for root, right, split in (
        (release.parent, release, "classic"),
        (release / "images", release, "new"),
        (ready_made / "labeled", ready_made, "new"),
    ):
        report = check("cuhk03", root, progress=False, split=split)
        (problem,) = report.problems
        assert problem.endswith(f": give {right}") and not report.counts
    with pytest.raises(InputError, match=f"give the folder it is in: {release}$"):
        check("cuhk03", release / "cuhk-03.mat", progress=False)


def test_nothing_is_counted_where_there_is_no_archive(tmp_path):
    (tmp_path / "far" / "campus").mkdir(parents=True)
    report = check("cuhk03", tmp_path / "far", progress=False, split="new")
    assert report.counts == ()
    (problem,) = report.problems
    assert report.text().splitlines()[2:] == [f"problem: {problem}", "1 problem"]


def test_the_check_takes_a_trial(release):
    whole = check("cuhk03", release, progress=False)
    assert check("cuhk03", release, progress=False, trial=2).problems == whole.problems
    refused = "cuhk03 has trials 0 to 2; got trial 3; choose one of these"
    assert set(check("cuhk03", release, progress=False, trial=3).problems) - set(whole.problems) == {refused}


def test_the_check_remembers_either_kind(release):
    for boxes, count in (("labelled", NUM_LABELLED), ("detected", NUM_DETECTED)):
        assert not any(
            "earlier" in remark for remark in check("cuhk03", release, boxes=boxes, progress=False).remarks
        )
        assert len(images_of(boxes)[0]) == count
    for boxes, count in (("labelled", NUM_LABELLED), ("detected", NUM_DETECTED)):
        remarks = check("cuhk03", release, boxes=boxes, progress=False).remarks
        assert f"{count} images read by an earlier check and not changed since" in remarks


def test_unknown_options(release):
    assert "did you mean labelled?" in refusal(release, boxes="labeled")
    assert "the split of cuhk03 is one of: classic, new" in refusal(release, split="old")
    assert "cuhk03 with split=classic has trials 0 to 19; got trial 20" in refusal(release, trial=20)
    assert not files.data().exists(), "nothing was extracted for it"
    assert "cuhk03 has trials 0 to 2; got trial 3" in refusal(release, trial=3)
    with pytest.raises(InputError, match="did you mean labelled"):
        read("cuhk03", release, boxes="labeled")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MATLAB 5.0 MAT-file, Platform: PCWIN64".ljust(600), "version 5 to 7; use the original"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\n<!DOCTYPE html><html><head>", "a web page"),
        (b"PK\x03\x04" + bytes(900), "a ZIP archive"),
        (b"", "an empty file"),
        (bytes(2000), "not a MATLAB 7.3 file (damaged, or of another version); download or copy"),
    ],
)
def test_a_file_that_is_no_such_archive(release, content, message):
    (release / "cuhk-03.mat").write_bytes(content)
    assert message in refusal(release)
    assert not list(files.data().glob("cuhk03-*/*.json"))


def test_a_truncated_archive(release):
    mat = release / "cuhk-03.mat"
    mat.write_bytes(mat.read_bytes()[:-5000])
    text = refusal(release)
    assert "is readable to its end" in text and "truncated file" in text and "copy the file again" in text


def test_a_damaged_image_names_its_cell(release):
    mat = release / "cuhk-03.mat"
    with h5py.File(mat) as file:
        image = file[file[file["labeled"][0, 1]][4, 1]]  # pair 2, person 2, slot 5
        chunk = image.id.get_chunk_info(0)
    with mat.open("r+b") as stream:
        # From the file's beginning or from the end of MATLAB's header, as the version of HDF5 has it.
        for start in {chunk.byte_offset, chunk.byte_offset + 512}:
            stream.seek(start)
            if stream.read(2)[:1] == b"\x78":  # zlib
                stream.seek(start)
                stream.write(bytes(chunk.size))
    text = refusal(release)
    assert "labeled{2}{2,5}" in text and "copy the file again" in text
    before, _ = images_of()
    assert 0 < len(before) < NUM_LABELLED


def edited(release, edit):
    with h5py.File(release / "cuhk-03.mat", "r+") as file:
        edit(file)


def pointed_at(file, key, content):
    """Let the third cell of a row refer to another array, or to a group if it is None."""
    references = (
        file.create_group("#refs#/new")
        if content is None
        else file.create_dataset("#refs#/new", data=content)
    )
    file[key][0, 2] = references.ref


def replaced(file, key, content):
    del file[key]
    file.create_dataset(key, data=content)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda file: file.__delitem__("labeled"), "no labeled; it contains detected, testsets"),
        (
            lambda file: replaced(file, "labeled", np.zeros((1, 5))),
            "/labeled is float64 and not a cell array",
        ),
        (
            lambda file: pointed_at(file, "labeled", np.full((5, 1), file.ref, h5py.ref_dtype)),
            "pair 3 of labeled is 1 by 5 instead of persons by 10",
        ),
        (
            lambda file: pointed_at(file, "labeled", None),
            "labeled{3} is a group and not an array",
        ),
        (
            lambda file: pointed_at(file, "testsets", None),
            "testsets{3} is a group and not an array",
        ),
        (
            lambda file: file[file["testsets"][0, 1]].__setitem__((1, 0), 4),
            "test set 2 has (1, 4), not in the archive",
        ),
        (
            lambda file: file[file["testsets"][0, 0]].__setitem__((0, 0), 1.5),
            "test set 1 is not a list of pair and person",
        ),
    ],
)
def test_what_the_archive_lacks_is_named(release, edit, message):
    edited(release, edit)
    assert message in refusal(release)


def test_a_cell_that_is_no_colour_image_is_named(release):
    write_archive(
        release / "cuhk-03.mat",
        show=lambda *place: picture(*place)[:, :, 0] if place[1:] == (4, 1, 7) else picture(*place),
    )
    assert "labeled{4}{1,7} is 19 by 6 of uint8 and not a colour image" in refusal(release)


def test_an_archive_without_images(release, tmp_path):
    nobody = {kind: {(1, 1): range(1, 11)} for kind in ("labeled", "detected")}
    write_archive(release / "cuhk-03.mat", persons=(1,), test_sets=(((1, 1),),), empty=nobody)
    assert "no labeled image;" in refusal(release)
    with pytest.raises(InputError, match=r"cuhk-03.mat is readable; .*; check its access rights"):
        archive_identity(tmp_path)  # a folder cannot be opened, nor can a file without rights


def test_the_lists_missing_or_damaged(release):
    lists = release / "cuhk03_new_protocol_config_labeled.mat"
    write_lists(release, "labeled", query_idx=np.array([[1], [900]]))
    assert "query_idx names rows 900 of 68" in refusal(release, split="new")
    for strange in (1j, np.nan, 1e30, 1.5):
        write_lists(release, "labeled", query_idx=np.array([[1], [strange]]))
        assert "instead of a list of whole numbers" in refusal(release, split="new")
    write_lists(release, "labeled", labels=np.ones((5, 1)))
    assert "68 names, 5 labels, 68 cameras" in refusal(release, split="new")
    write_lists(release, "labeled", labels=new_lists("labeled")["labels"][::-1])
    assert "numbers persons and views like cuhk-03.mat; got person 8" in refusal(release, split="new")
    shutil.copy(release / "cuhk03_new_protocol_config_detected.mat", lists)
    text = refusal(release, split="new")
    assert "12 missing: 1_001_1_02.png" in text and "for the same boxes" in text
    savemat(lists, {"labels": 1})
    assert "lacks filelist, camId, train_idx" in refusal(release, split="new")
    lists.write_bytes(lists.read_bytes()[:60])
    assert "contains the new protocol's lists" in refusal(release, split="new")
    with h5py.File(lists, "w", userblock_size=512):
        pass
    with lists.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    text = refusal(release, split="new")
    assert "in version 7.3; get it from zhunzhong07/person-re-ranking" in text and "'-v7'" in text
    lists.unlink()
    text = refusal(release, split="new")
    assert "no such file" in text and "evaluation/data/CUHK03" in text


def found_counts(reading):
    return {(count.folder, count.quantity): count.actual for count in compare_counts(reading)}


def test_the_survey_counts_every_pair(release):
    reading = read("cuhk03", release)
    counts = found_counts(reading)
    assert (counts["labelled", "images"], counts["labelled", "identities"]) == (NUM_LABELLED, 8)
    assert [counts[f"pair {pair}", "identities"] for pair in range(1, 6)] == [3, 2, 1, 1, 1]
    assert [counts[f"pair {pair}", "images"] for pair in range(1, 6)] == [23, 20, 5, 10, 10]
    assert reading.all_problems == [
        "testsets has 20 sets of 100 persons; got 3 sets of 3 persons; download or copy the file again"
    ]
    assert "1 person with images from only one view: 6" in reading.remarks
    assert "trial 1: 5 of 22 queries have no match" in reading.remarks
    reading = read("cuhk03", release, split="new", boxes="detected")
    counts = found_counts(reading)
    assert not reading.all_problems
    assert (counts["query", "images"], counts["train", "identities"]) == (6, 5)
    assert counts["detected", "images"] == NUM_DETECTED


def test_the_survey_lists_what_reading_refuses(release, ready_made, tmp_path):
    (release / "cuhk03_new_protocol_config_labeled.mat").unlink()
    reading = read("cuhk03", release, split="new")
    assert found_counts(reading)["labelled", "images"] == NUM_LABELLED
    assert (
        len(reading.all_problems) == 1
        and "needs cuhk03_new_protocol_config_labeled.mat" in reading.all_problems[0]
    )
    (release / "cuhk-03.mat").write_bytes(b"<html>")
    reading = read("cuhk03", release)
    assert len(reading.all_problems) == 1 and "a web page" in reading.all_problems[0]
    assert found_counts(reading)["pair 1", "images"] is None
    with pytest.raises(InputError, match="exists"):
        read("cuhk03", tmp_path / "nowhere")
    reading = read("cuhk03", ready_made, split="new")
    assert found_counts(reading)["bounding_box_test", "images"] == 3 and not reading.all_problems


def test_official_counts_add_up():
    for boxes, total in (("labelled", 14_096), ("detected", 14_097)):
        whole, *pairs = official_counts(f"cuhk03,boxes={boxes}").values()
        assert whole == {"images": total, "identities": 1_467, "cameras": 2}
        for quantity in ("images", "identities"):
            assert sum(pair[quantity] for pair in pairs) == whole[quantity]
        new = official_counts(f"cuhk03,boxes={boxes},split=new")
        assert sum(row["images"] for row in new.values()) == total
        assert new["train"]["identities"] + new["query"]["identities"] == 1_467
