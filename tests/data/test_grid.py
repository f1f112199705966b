import numpy as np
import pytest
from miniature import write_image
from scipy.io import savemat
from small_miniatures import GRID_TRAINING, write_grid, write_grid_mat

from reidlib.data.benchmark import Protocol
from reidlib.data.check import check, compare_counts
from reidlib.data.readers import load, read
from reidlib.data.readers.partitions import training_persons
from reidlib.errors import InputError

MAT = "features_and_partitions.mat"
THREE = f"{MAT} contains 3 partitions of 2 training persons; 10 of 125 are expected"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path):
    return write_grid(tmp_path / "underground_reid")


def refusal(root, **options):
    with pytest.raises(InputError) as caught:
        load("grid", root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def persons_and_cameras(split):
    return list(zip(split.person_ids.tolist(), split.camera_ids.tolist(), strict=True))


def test_the_miniature_is_read_as_worked_by_hand(root):
    benchmark = load("grid", root)  # persons 1 and 3 are trained on
    assert persons_and_cameras(benchmark.train) == [(1, 2), (3, 6), (1, 1), (3, 2)]
    assert [path.parent.name for path in benchmark.train.paths] == ["gallery", "gallery", "probe", "probe"]
    assert persons_and_cameras(benchmark.query) == [(2, 5), (4, 8)]
    assert [path.name for path in benchmark.query.paths] == [
        "0002_5_25005_12_30_100_220.jpeg",
        "0004_8_25007_14_30_102_215.jpeg",
    ]
    assert persons_and_cameras(benchmark.gallery) == [(0, 1), (0, 3), (2, 4), (4, 7)]
    assert benchmark.num_trials == 3 and benchmark.num_queries_without_match == 0
    assert benchmark.protocols == {"single-shot": Protocol("single", across_cameras=False)}


def test_every_distractor_is_in_every_trial(root):
    for trial, training in enumerate(GRID_TRAINING):
        benchmark = load("grid", root, trial=trial)
        assert np.unique(benchmark.train.person_ids).tolist() == list(training)
        test = sorted({1, 2, 3, 4} - set(training))
        assert benchmark.query.person_ids.tolist() == test
        assert benchmark.gallery.person_ids.tolist() == [0, 0, *test]
        assert len(benchmark.train) + len(benchmark.query) + len(benchmark.gallery) == 10
    assert "trials 0 to 2" in refusal(root, trial=3)
    assert load("grid", root, trial=2).specification == "grid,trial=2"


@pytest.mark.parametrize("compressed", [False, True])
def test_the_mat_is_read_in_the_way_of_the_peers(root, compressed):
    write_grid_mat(root / MAT, GRID_TRAINING, do_compression=compressed)
    assert [persons.tolist() for persons in training_persons(root / MAT)] == [[1, 3], [2, 4], [3, 4]]
    # A peer takes the third field by its place.
    write_grid_mat(root / MAT, GRID_TRAINING, fields=("a", "b", "c"), do_compression=compressed)
    assert [persons.tolist() for persons in training_persons(root / MAT)] == [[1, 3], [2, 4], [3, 4]]


def test_the_order_in_the_mat_says_nothing(root):
    before = load("grid", root).fingerprint
    write_grid_mat(root / MAT, ((3, 1), (4, 2), (4, 3)))
    assert load("grid", root).fingerprint == before


def test_a_mat_of_version_73_is_named(root):
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512)
    for content in (head, head + b"\x89HDF\r\n\x1a\n" + bytes(64), b"\x89HDF\r\n\x1a\n" + bytes(600)):
        (root / MAT).write_bytes(content)
        text = refusal(root)
        assert "version 7.3 (HDF5)" in text and "save(…, '-v7')" in text and str(root / MAT) in text


@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_cut_off_anywhere_is_refused(root, compressed):
    path = root / MAT
    write_grid_mat(path, GRID_TRAINING, do_compression=compressed)
    content = path.read_bytes()
    assert len(content) > 1000
    for size in range(0, len(content), 17):
        path.write_bytes(content[:size])
        text = refusal(root)
        assert str(path) in text and "archive" in text


def test_an_absent_mat_is_asked_for(root):
    (root / MAT).unlink()
    text = refusal(root)
    assert "are in features_and_partitions.mat" in text and "copy it there" in text
    assert read("grid", root).all_problems == [text]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ftrset": np.eye(3)}, "no trainIdxAll"),
        ({"trainIdxAll": np.eye(3)}, "not a cell array"),
        ({"trainIdxAll": np.empty((1, 0), dtype=object)}, "is empty"),
        ({"trainIdxAll": [{"personIdx": [1.0]}]}, "with the fields personIdx"),
        ({"trainIdxAll": [{"a": 1, "b": 2, "personIdx": [1.5, 2.0]}]}, "not positive whole numbers"),
        ({"trainIdxAll": [{"a": 1, "b": 2, "personIdx": [0.0, 2.0]}]}, "not positive whole numbers"),
        ({"trainIdxAll": [{"a": 1, "b": 2, "personIdx": [2.0, 2.0]}]}, "repeated"),
        ({"trainIdxAll": [{"a": 1, "b": 2, "personIdx": [np.nan, 2.0]}]}, "not positive whole numbers"),
        ({"trainIdxAll": [{"a": 1, "b": 2, "personIdx": "two"}]}, "without persons"),
        ({"trainIdxAll": [{"a": 1, "b": 2, "personIdx": []}]}, "without persons"),
    ],
)
def test_a_mat_of_another_structure_is_refused(root, variables, words):
    if isinstance(cells := variables.get("trainIdxAll"), list):
        variables = {"trainIdxAll": np.empty((1, len(cells)), dtype=object)}
        variables["trainIdxAll"][0, :] = cells
    savemat(root / MAT, variables)
    assert words in refusal(root)
    assert any(words in problem for problem in read("grid", root).all_problems)


def test_partitions_of_persons_who_are_not_there(root):
    write_grid_mat(root / MAT, ((1, 3), (2, 250)))
    text = refusal(root)
    assert "1 person without images: 250" in text and "unpack the archive completely" in text
    assert text in read("grid", root).all_problems


def test_a_person_in_one_folder_only_is_refused(root):
    lost_image = root / "gallery" / "0003_6_25010_17_30_100_224.jpeg"
    lost_image.unlink()
    text = refusal(root)
    assert "probe and in gallery; got 1 image of" in text and "0003_2_25006_13_31_101_210.jpeg" in text
    assert read("grid", root).all_problems == [text, THREE]


def test_a_distractor_among_the_probes_is_refused(root):
    write_image(root / "probe" / "0000_1_1_1_1_1_1.jpeg")
    assert "person ids of the query split are at least 1" in refusal(root)


def test_folders_above_and_below_are_found(root, tmp_path):
    assert f"one level too low: give {root}" in refusal(root / "probe")
    assert f"one level too high: give {root}" in refusal(tmp_path)
    nested = write_grid(tmp_path / "zip" / "grid" / "underground_reid")
    assert f"two levels too high: give {nested}" in refusal(tmp_path / "zip")
    (root / "gallery").rename(root / "galery")
    assert "lacks gallery" in refusal(root) and "rename galery to gallery" in refusal(root)


def test_the_check_of_a_folder_one_level_off_says_that_alone(root, tmp_path):
    for place in (root / "probe", tmp_path):
        report = check("grid", place, progress=False)
        assert report.problems == (refusal(place),) and not report.counts


def test_a_trial_of_the_check_is_one_that_is_there(root):
    whole = check("grid", root, progress=False)
    assert check("grid", root, progress=False, trial=2).problems == whole.problems
    refused = "grid has trials 0 to 2; got trial 3; choose one of these"
    assert set(check("grid", root, progress=False, trial=3).problems) - set(whole.problems) == {refused}


def test_names_in_upper_case_and_strange_ones(root):
    before = load("grid", root).query.person_ids.tolist()
    (root / "probe" / "0002_5_25005_12_30_100_220.jpeg").rename(root / "probe" / "0002_5_25005.JPEG")
    assert load("grid", root).query.person_ids.tolist() == before
    for name in ("0001_9_25004.jpeg", "001_1_25004.jpeg", "cover.jpeg"):
        write_image(root / "gallery" / name)
    text = refusal(root)
    assert "3 other names" in text and all(name in text for name in ("0001_9", "001_1", "cover.jpeg"))


def test_the_survey_counts_against_the_official_package(root):
    reading = read("grid", root)
    assert reading.all_problems == [THREE] and not reading.remarks
    assert {
        (count.folder, count.quantity): (count.actual, count.expected) for count in compare_counts(reading)
    } == {
        ("probe", "images"): (4, 250),
        ("probe", "identities"): (4, 250),
        ("gallery", "images"): (6, 1025),
        ("gallery", "identities"): (4, 250),
        ("gallery", "distractors"): (2, 775),
    }


def test_a_probe_without_a_match_is_a_remark(root):
    gallery = root / "gallery"
    (gallery / "0002_4_25009_16_30_100_223.jpeg").rename(gallery / "0002_5_25009_16_30_100_223.jpeg")
    assert list(check("grid", root, progress=False).remarks) == [
        "1 of 4 probes have no match: 0002_5_25005_12_30_100_220.jpeg"
    ]
    assert load("grid", root).num_queries_without_match == 1


def test_a_whole_package_has_the_papers_sizes(tmp_path):
    for folder, camera in (("probe", 1), ("gallery", 2)):
        (tmp_path / folder).mkdir()
        for person in range(1, 251):
            (tmp_path / folder / f"{person:04}_{camera}_{person}.jpeg").touch()
    for number in range(775):
        (tmp_path / "gallery" / f"0000_{number % 8 + 1}_{number}.jpeg").touch()
    halves = [[(7 * place + trial) % 250 + 1 for place in range(125)] for trial in range(10)]
    write_grid_mat(tmp_path / MAT, halves)
    reading = read("grid", tmp_path)
    assert reading.all_problems == [] and all(count.agrees for count in compare_counts(reading))
    for trial in range(10):
        benchmark = load("grid", tmp_path, trial=trial)
        assert (len(benchmark.train), len(benchmark.query), len(benchmark.gallery)) == (250, 125, 900)
