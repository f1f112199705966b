import numpy as np
import pytest
from miniature import write_image
from small_miniatures import CUHK01_NAMES, write_cuhk01

from reidlib.data.benchmark import Protocol
from reidlib.data.check import compare_counts
from reidlib.data.readers import load, read
from reidlib.data.readers.partitions import Partitions, write_partitions
from reidlib.errors import InputError


@pytest.fixture
def root(tmp_path):
    return write_cuhk01(tmp_path / "CUHK01")


def refusal(root, **options):
    with pytest.raises(InputError) as caught:
        load("cuhk01", root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(split):
    return [path.name for path in split.paths]


def test_the_miniature_is_read_as_worked_by_hand(root):
    # Trial 0 tests the second and third of the sorted persons 1, 2, 5, 970: see test_partitions.
    benchmark = load("cuhk01", root, test_persons=2)
    assert names(benchmark.train) == [
        *(f"000100{index}.png" for index in (1, 2, 3, 4)),
        *(f"097000{index}.png" for index in (1, 2, 3, 4)),
    ]
    assert benchmark.train.person_ids.tolist() == [1] * 4 + [970] * 4
    assert benchmark.train.camera_ids.tolist() == [1, 1, 2, 2] * 2
    assert names(benchmark.query) == ["0002001.png", "0002002.png", "0005001.png", "0005002.png"]
    assert benchmark.query.person_ids.tolist() == [2, 2, 5, 5]
    assert set(benchmark.query.camera_ids.tolist()) == {1}
    assert names(benchmark.gallery) == ["0002003.png", "0002004.png", "0005004.png"]
    assert benchmark.gallery.person_ids.tolist() == [2, 2, 5]
    assert set(benchmark.gallery.camera_ids.tolist()) == {2}
    assert benchmark.num_trials == 10 and benchmark.num_queries_without_match == 0
    assert benchmark.protocols == {
        "single-shot": Protocol("single", draws=10),
        "multi-shot": Protocol("multi"),
    }


def test_trials_part_the_persons_differently(root):
    tested = []
    for trial in range(10):
        benchmark = load("cuhk01", root, trial=trial, test_persons=2)
        persons = set(benchmark.query.person_ids.tolist())
        assert persons == set(benchmark.gallery.person_ids.tolist())
        assert persons | set(benchmark.train.person_ids.tolist()) == {1, 2, 5, 970}
        parts = (benchmark.train, benchmark.query, benchmark.gallery)
        assert sorted(name for part in parts for name in names(part)) == sorted(CUHK01_NAMES)
        tested.append(tuple(sorted(persons)))
    assert tested[:4] == [(2, 5), (1, 970), (2, 970), (1, 2)]
    assert load("cuhk01", root, trial=3, test_persons=2).specification == "cuhk01,test_persons=2,trial=3"
    assert "trials 0 to 9" in refusal(root, trial=10, test_persons=2)
    assert "trial -1" in refusal(root, trial=-1, test_persons=2)


def test_the_number_of_test_persons_must_leave_some(root):
    text = refusal(root)
    assert "test_persons=486 of 4 persons in the folder" in text
    assert "unpack the archive completely, or choose test_persons from 1 to 3" in text
    assert len(load("cuhk01", root, test_persons=1).query) == 2
    assert "test_persons=0" in refusal(root, test_persons=0)


def test_own_partitions(root):
    write_partitions(root / "mine.json", Partitions("cuhk01", 4, ((1, 4), (2, 3), (1, 2))))
    benchmark = load("cuhk01", root, trial=0, partitions="mine.json")
    assert sorted(set(benchmark.query.person_ids.tolist())) == [1, 970]
    assert benchmark.num_trials == 3
    assert benchmark.specification == "cuhk01,partitions=mine.json"
    absolute = load("cuhk01", root, partitions=str(root / "mine.json"))
    assert absolute.fingerprint == benchmark.fingerprint
    assert "trials 0 to 2" in refusal(root, trial=3, partitions="mine.json")
    assert "leave out one of the two" in refusal(root, test_persons=3, partitions="mine.json")
    assert len(load("cuhk01", root, test_persons=2, partitions="mine.json").query) == 4
    assert "has no comma" in refusal(root, partitions="a,b.json")
    write_image(root / "campus" / "0971001.png")
    write_image(root / "campus" / "0971003.png")
    assert "for cuhk01 with 5 persons" in refusal(root, partitions="mine.json")


def test_folders_above_and_below_are_found(root, tmp_path):
    assert f"one level too low: give {root}" in refusal(root / "campus")
    assert f"one level too high: give {root}" in refusal(tmp_path)
    nested = write_cuhk01(tmp_path / "downloads" / "CUHK01" / "CUHK01")
    assert f"two levels too high: give {nested}" in refusal(tmp_path / "downloads")


def test_the_survey_of_a_folder_one_level_off_says_that_alone(root, tmp_path):
    for place in (root / "campus", tmp_path):
        reading = read("cuhk01", place)
        assert reading.all_problems == [reading.misplaced] == [refusal(place)]
    assert not read("cuhk01", root).misplaced


def test_images_outside_campus_are_found(root, tmp_path):
    (root / "campus").rename(tmp_path / "images")
    root.rmdir()
    text = refusal(tmp_path / "images")
    assert "got 15 images in" in text and f"move them into a new folder {tmp_path / 'images/campus'}" in text
    assert [text] == read("cuhk01", tmp_path / "images").all_problems


def test_a_misspelt_folder_is_found(root):
    (root / "campus").rename(root / "Campuss")
    assert "rename Campuss to campus" in refusal(root)


def test_names_in_upper_case_and_other_files(root):
    campus = root / "campus"
    before = load("cuhk01", root, test_persons=2).train.person_ids.tolist()
    (campus / "0001001.png").rename(campus / "0001001.PNG")
    assert load("cuhk01", root, test_persons=2).train.person_ids.tolist() == before


def test_every_strange_name_is_listed(root):
    strange = ["0000001.png", "0001005.png", "0001000.png", "0001001 (1).png", "00010011.png", "me.jpg"]
    for name in strange:
        write_image(root / "campus" / name)
    text = refusal(root, test_persons=2)
    assert "6 other names" in text
    assert all(str(root / "campus" / name) in text for name in strange)
    assert read("cuhk01", root, test_persons=2).all_problems == [text]


def test_a_person_of_one_camera_only_is_refused(root):
    (root / "campus" / "0005004.png").unlink()
    text = refusal(root, test_persons=2)
    assert "2 images of persons who are in only one of them" in text and "0005001.png" in text
    assert read("cuhk01", root, test_persons=2).all_problems == [text]


def test_an_empty_folder_is_refused(root):
    for name in CUHK01_NAMES:
        (root / "campus" / name).unlink()
    assert f"none in {root / 'campus'}" in refusal(root)


def test_the_survey_counts_against_the_whole_set(root):
    reading = read("cuhk01", root, test_persons=2)
    assert reading.all_problems == []
    counts = {count.quantity: (count.actual, count.expected) for count in compare_counts(reading)}
    assert counts == {"images": (15, 3884), "identities": (4, 971), "cameras": (2, 2)}
    assert "test_persons=486 of 4" in read("cuhk01", root).all_problems[0]
    assert "No such file" in read("cuhk01", root, partitions="no.json").all_problems[0]
    with pytest.raises(InputError, match="there is no nowhere"):
        read("cuhk01", root / "nowhere")


def test_a_whole_set_has_the_papers_sizes(tmp_path):
    campus = tmp_path / "campus"
    campus.mkdir()
    for person in range(1, 972):
        for index in (1, 2, 3, 4):
            (campus / f"{person:04}{index:03}.png").touch()
    for test_persons in (486, 100):
        benchmark = load("cuhk01", tmp_path, trial=4, test_persons=test_persons)
        assert len(np.unique(benchmark.train.person_ids)) == 971 - test_persons
        assert len(benchmark.query) == len(benchmark.gallery) == 2 * test_persons
    assert load("cuhk01", tmp_path).specification == "cuhk01"
    # The same persons on every machine, for ever.
    assert np.unique(load("cuhk01", tmp_path).query.person_ids)[:6].tolist() == [1, 2, 3, 4, 5, 7]
