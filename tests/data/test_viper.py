import shutil

import numpy as np
import pytest
from miniature import write_image
from small_miniatures import VIPER_NAMES, write_viper

from reidlib.data.benchmark import Protocol
from reidlib.data.check import compare_counts
from reidlib.data.readers import load, read
from reidlib.data.readers.partitions import Partitions, write_partitions
from reidlib.errors import InputError


@pytest.fixture
def root(tmp_path):
    return write_viper(tmp_path / "VIPeR")


def refusal(root, **options):
    with pytest.raises(InputError) as caught:
        load("viper", root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(split):
    return [f"{path.parent.name}/{path.name}" for path in split.paths]


def test_the_miniature_is_read_as_worked_by_hand(root):
    # Trial 0 tests the second and fourth of the sorted persons 1, 4, 5, 874: see test_partitions.
    benchmark = load("viper", root, test_persons=2)
    assert names(benchmark.train) == [
        "cam_a/000_45.bmp",
        "cam_a/004_180.bmp",
        "cam_b/000_90.bmp",
        "cam_b/004_0.bmp",
    ]
    assert benchmark.train.person_ids.tolist() == [1, 5, 1, 5]
    assert benchmark.train.camera_ids.tolist() == [1, 1, 2, 2]
    assert names(benchmark.query) == ["cam_a/003_0.bmp", "cam_a/873_90.bmp"]
    assert names(benchmark.gallery) == ["cam_b/003_135.bmp", "cam_b/873_45.bmp"]
    assert benchmark.query.person_ids.tolist() == benchmark.gallery.person_ids.tolist() == [4, 874]
    assert benchmark.query.camera_ids.tolist() == [1, 1] and benchmark.gallery.camera_ids.tolist() == [2, 2]
    assert benchmark.num_trials == 10 and benchmark.num_queries_without_match == 0
    assert benchmark.protocols == {"single-shot": Protocol("single")}


def test_trials_part_the_persons_differently(root):
    tested = []
    for trial in range(10):
        benchmark = load("viper", root, trial=trial, test_persons=2)
        persons = set(benchmark.query.person_ids.tolist())
        assert persons | set(benchmark.train.person_ids.tolist()) == {1, 4, 5, 874}
        assert not persons & set(benchmark.train.person_ids.tolist())
        tested.append(tuple(sorted(persons)))
    assert tested[:6] == [(4, 874), (5, 874), (4, 874), (1, 874), (5, 874), (1, 4)]
    assert (
        load("viper", root, trial=2, test_persons=2).fingerprint
        == load("viper", root, test_persons=2).fingerprint
    )
    assert (
        load("viper", root, trial=1, test_persons=2).fingerprint
        != load("viper", root, test_persons=2).fingerprint
    )
    assert "trials 0 to 9" in refusal(root, trial=10, test_persons=2)


def test_the_split_is_the_same_wherever_the_folder_lies(root, tmp_path):
    other = tmp_path / "elsewhere" / "copy"
    shutil.copytree(root, other)
    assert load("viper", other, test_persons=2).fingerprint == load("viper", root, test_persons=2).fingerprint


def test_own_partitions(root):
    write_partitions(root / "craft.json", Partitions("viper", 4, ((1, 3), (4, 2))))
    benchmark = load("viper", root, trial=1, partitions="craft.json")
    assert benchmark.query.person_ids.tolist() == [4, 874]
    assert benchmark.num_trials == 2
    assert benchmark.specification == "viper,partitions=craft.json,trial=1"
    assert "did you mean" in refusal(root, partitions="draft.json")


def test_a_person_in_one_folder_only_is_refused(root):
    (root / "cam_b" / "003_135.bmp").unlink()
    write_image(root / "cam_b" / "005_0.bmp")
    text = refusal(root, test_persons=2)
    assert "an image in cam_a and in cam_b; got 2 images" in text
    assert str(root / "cam_a" / "003_0.bmp") in text and str(root / "cam_b" / "005_0.bmp") in text
    assert read("viper", root, test_persons=2).all_problems == [text]


def test_names_in_upper_case_and_with_a_camera(root):
    before = load("viper", root, test_persons=2)
    (root / "cam_a" / "003_0.bmp").rename(root / "cam_a" / "003_0_a.BMP")
    after = load("viper", root, test_persons=2)
    assert names(after.query) == ["cam_a/003_0_a.BMP", "cam_a/873_90.bmp"]
    assert after.query.person_ids.tolist() == before.query.person_ids.tolist()


def test_every_strange_name_is_listed(root):
    for folder, name in (("cam_a", "3_0.bmp"), ("cam_a", "003_0 (1).bmp"), ("cam_b", "cover.jpg")):
        write_image(root / folder / name)
    text = refusal(root, test_persons=2)
    assert "3 other names" in text
    assert all(name in text for name in ("3_0.bmp", "003_0 (1).bmp", "cam_b/cover.jpg"))
    assert read("viper", root, test_persons=2).all_problems == [text]


def test_folders_above_and_below_are_found(root, tmp_path):
    assert f"one level too low: give {root}" in refusal(root / "cam_a")
    assert f"one level too high: give {root}" in refusal(tmp_path)
    nested = write_viper(tmp_path / "zip" / "VIPeR.v1.0" / "VIPeR")
    assert f"two levels too high: give {nested}" in refusal(tmp_path / "zip")


def test_the_survey_of_a_folder_one_level_off_says_that_alone(root, tmp_path):
    for place in (root / "cam_a", tmp_path):
        reading = read("viper", place)
        assert reading.all_problems == [reading.misplaced] == [refusal(place)]


def test_half_an_archive(root):
    (root / "cam_b").rename(root.parent / "away")
    text = refusal(root, test_persons=2)
    assert "lacks cam_b and contains cam_a" in text
    reading = read("viper", root, test_persons=2)
    assert reading.all_problems == [text] and not reading.misplaced
    counts = {(count.folder, count.quantity): count.actual for count in compare_counts(reading)}
    assert counts[("cam_a", "images")] == 4 and counts[("cam_b", "images")] is None


def test_the_survey_counts_against_the_whole_set(root):
    reading = read("viper", root, test_persons=2)
    assert reading.all_problems == []
    assert {
        (count.folder, count.quantity, count.actual, count.expected) for count in compare_counts(reading)
    } == {
        (folder, quantity, actual, expected)
        for folder in VIPER_NAMES
        for quantity, actual, expected in (("images", 4, 632), ("identities", 4, 632), ("cameras", 1, 1))
    }
    assert "test_persons=316 of 4 persons" in read("viper", root).all_problems[0]


def test_a_whole_set_has_the_papers_sizes(tmp_path):
    numbers = [number for number in range(874) if number % 4 != 1][:632]
    for folder in VIPER_NAMES:
        (tmp_path / folder).mkdir()
        for number in numbers:
            (tmp_path / folder / f"{number:03}_0.bmp").touch()
    benchmark = load("viper", tmp_path)
    assert len(np.unique(benchmark.train.person_ids)) == 316 and len(benchmark.train) == 632
    assert len(benchmark.query) == len(benchmark.gallery) == 316
    # Places 1, 4, 5, 6, 7 and 10 among the numbers 0, 2, 3, 4, 6, 7, 8, 10, 11, 12: the same for ever.
    assert benchmark.query.person_ids[:6].tolist() == [1, 5, 7, 8, 9, 13]
