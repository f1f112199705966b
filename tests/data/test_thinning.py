"""Fewer training persons or images: nested, the same on every machine, and the test is unchanged."""

from itertools import pairwise, product

import numpy as np
import pytest
from miniature import write_image

from reidlib.data import Benchmark, Split
from reidlib.data.check import check
from reidlib.data.readers import load_specified
from reidlib.data.readers.thinning import thin, thinning_of, without_thinning
from reidlib.errors import InputError

PERSONS = 24


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """24 training persons; person p has p images of camera 1, and from person 3 on two of camera 2."""
    root = tmp_path_factory.mktemp("made")

    def split(rows):
        paths = [root / f"{'_'.join(map(str, row))}.jpg" for row in rows]
        for path in paths:
            path.touch()
        return Split(paths, np.array([p for p, *_ in rows]), np.array([camera for _, camera, _ in rows]))

    counts = [(p, camera, n) for p in range(1, PERSONS + 1) for camera, n in ((1, p), (2, 2 * (p > 2)))]
    train = [(p, camera, image) for p, camera, number in counts for image in range(number)]
    return Benchmark("market1501", root, split(train), split([(99, 1, 0)]), split([(99, 2, 0)]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of own images: 24 persons, six images of each of two cameras; 8 are trained on."""
    root = tmp_path_factory.mktemp("own")
    for person, camera, number in product(range(24), (1, 2), range(6)):
        path = root / f"p{person}" / f"c{camera}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, seed=100 * person + 10 * camera + number)
    return root


def images(benchmark, person):
    chosen = benchmark.train.person_ids == person
    return {path for path, is_chosen in zip(benchmark.train.paths, chosen, strict=True) if is_chosen}


def test_fewer_persons_are_among_more_and_keep_all_their_images(benchmark):
    sets = [
        set(thin(benchmark, {"train_persons": n}).train.person_ids.tolist()) for n in (2, 3, 6, 12, PERSONS)
    ]
    assert [len(persons) for persons in sets] == [2, 3, 6, 12, PERSONS]
    assert all(small < large for small, large in pairwise(sets))
    thinned = thin(benchmark, {"train_persons": 6})
    for person in sets[2]:
        assert images(thinned, person) == images(benchmark, person)
    assert thinned.query is benchmark.query and thinned.gallery is benchmark.gallery
    assert sorted(sets[1]) == [14, 15, 18]  # the same on every machine and in later versions


def test_fewer_images_are_among_more_and_of_two_cameras_if_there_are(benchmark):
    sets = [thin(benchmark, {"images_per_person": n}) for n in (1, 2, 3, 8)]
    for person in range(1, PERSONS + 1):
        all_images = images(benchmark, person)
        of_sizes = [images(thinned, person) for thinned in sets]
        assert [len(chosen) for chosen in of_sizes] == [min(n, len(all_images)) for n in (1, 2, 3, 8)]
        assert of_sizes[0] <= of_sizes[1] <= of_sizes[2] <= of_sizes[3] <= all_images
        cameras = {path.name.split("_")[1] for path in of_sizes[1]}
        assert len(cameras) == (2 if person > 2 else 1)
    firsts = [min(images(sets[0], person)).name.split("_")[1] for person in range(3, PERSONS + 1)]
    assert {"1", "2"} == set(firsts)  # not always the first camera


def test_the_images_of_a_person_do_not_depend_on_the_number_of_persons(benchmark):
    both = thin(benchmark, {"train_persons": 5, "images_per_person": 3})
    alone = thin(benchmark, {"images_per_person": 3})
    assert all(images(both, person) == images(alone, person) for person in set(both.train.person_ids))
    assert both.specification == "market1501,train_persons=5,images_per_person=3"
    assert thinning_of(both.specification) == (5, 3)
    assert without_thinning(f"{both.specification},trial=2") == "market1501,trial=2"
    assert thinning_of("viper,test_persons=316") == (0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "train_persons=3000",
            "persons of folder,validation=true, 8; got 3,000; use 8 or fewer",
        ),
        ("train_persons=1", "train_persons is a whole number of at least 2; got '1'"),
        ("train_persons=0", "train_persons is a whole number of at least 2; got '0'"),
        ("images_per_person=0", "images_per_person is a whole number of at least 1; got '0'"),
        ("train_person=5", "did you mean train_persons"),
    ],
)
def test_bad_values(folder, options, message):
    with pytest.raises(InputError, match=message):
        load_specified(f"folder,validation=true,{options}", folder)


def test_a_folder_is_read_thinned_under_another_fingerprint(folder):
    whole = load_specified("folder,validation=true", folder)
    thinned = load_specified("folder,validation=true,train_persons=3,images_per_person=2", folder)
    assert thinned.query.paths == whole.query.paths and thinned.gallery.paths == whole.gallery.paths
    assert len(thinned.train) == 6 and thinned.fingerprint != whole.fingerprint
    again = load_specified(thinned.specification, folder)
    assert again.fingerprint == thinned.fingerprint


def test_a_check_counts_what_is_left_and_names_too_many(folder):
    options = {"progress": False, "validation": True}
    report = check("folder", folder, train_persons=3, images_per_person=2, **options)
    assert report.ok and "thinned for a learning curve: 3 persons in 6 training images" in report.remarks
    report = check("folder", folder, train_persons=9, **options)
    assert [problem.partition(";")[0] for problem in report.problems] == [
        "train_persons is at most the number of training persons of folder,validation=true, 8"
    ]
