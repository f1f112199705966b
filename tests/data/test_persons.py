"""Validation splits and training folders alone: who is held out, which image is a query, what is refused."""

import shutil

import numpy as np
import pytest
from cuhk03_miniature import TEST_SETS, new_lists, write_archive
from hypothesis import given
from hypothesis import strategies as st
from miniature import write_image
from scipy.io import savemat
from small_miniatures import CUHK01_NAMES, VIPER_NAMES

from reidlib.data import load, load_specified
from reidlib.data.benchmark import combine
from reidlib.data.check import check, count_deviations
from reidlib.data.readers.persons import training_splits, validation_rows
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.ranking.metrics import Embeddings
from reidlib.ranking.protocols import evaluate_protocol

VALIDATION, TRAINING_ONLY = {"validation": True}, {"training_only": True}
TRAIN = "bounding_box_train"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


def put(folder, names, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        write_image(folder / name, size=(8 + index % 5, 4), seed=seed + index)
    return folder


def market_names(persons, cameras=(1, 1, 2, 3)):
    """Names of each person's images, one for each camera in the list."""
    return [
        f"{person:04}_c{camera}s1_{number:06}_00.jpg"
        for person in persons
        for number, camera in enumerate(cameras)
    ]


@pytest.fixture
def training_folder(tmp_path):
    """Seven persons with four images from three cameras, and one whom camera 1 alone shows; nothing else."""
    names = market_names((2, 7, 11, 12, 20, 33, 70)) + market_names((40,), (1, 1))
    put(tmp_path / "set" / TRAIN, names)
    return tmp_path / "set"


def persons(split):
    return set(split.person_ids.tolist())


def refusal(name, root, **options):
    with pytest.raises(InputError) as caught:
        load(name, root, **options)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


def random_split(sightings):
    """A split whose image names tell nothing; ``sightings`` are persons and cameras."""
    rows = sorted(sightings)
    paths = tuple(f"{index}.jpg" for index in range(len(rows)))
    return Split(paths, *np.array(rows, dtype=np.int64).reshape(-1, 2).T)


@given(st.lists(st.tuples(st.integers(1, 25), st.integers(1, 4)), min_size=30, max_size=120))
def test_a_third_of_the_persons_of_two_cameras_is_held_out(sightings):
    train = random_split(sightings)
    cameras_of = {person: {c for p, c in sightings if p == person} for person, _ in sightings}
    searchable = {person for person, cameras in cameras_of.items() if len(cameras) > 1}
    if len(searchable) < 4:
        with pytest.raises(InputError, match="at least 2 persons"):
            validation_rows(train)
        return
    rest, query, gallery = training_splits(train, VALIDATION)
    held_out = persons(query)
    assert held_out == persons(gallery) <= searchable and len(held_out) == -(-len(searchable) // 3)
    assert persons(rest) == cameras_of.keys() - held_out
    # Every image is in one place, but a camera's only image of a person is query and gallery.
    pairs = list(zip(query.person_ids.tolist(), query.camera_ids.tolist(), strict=True))
    assert sorted(pairs) == sorted((p, c) for p in held_out for c in cameras_of[p])
    single = {pair for pair in pairs if sightings.count(pair) == 1}
    shared = set(query.paths) & set(gallery.paths)
    assert len(shared) == len(single)
    assert set(rest.paths) | set(query.paths) | set(gallery.paths) == set(train.paths)
    assert len(rest) + len(query) + len(gallery) == len(train) + len(single)
    again = training_splits(train, VALIDATION)
    assert [split.paths for split in again] == [rest.paths, query.paths, gallery.paths]


def test_only_the_training_folder_is_needed_and_read(training_folder, market, tmp_path):
    benchmark = load("market1501", training_folder, validation=True)
    assert benchmark.specification == "market1501,validation=true"
    assert (len(persons(benchmark.train)), len(persons(benchmark.query))) == (5, 3)
    assert 40 in persons(benchmark.train)  # whom no query could find
    assert (len(benchmark.query), len(benchmark.gallery)) == (9, 9)
    assert benchmark.num_queries_without_match == 0
    # The draw is fixed: another one would be other runs.
    assert persons(benchmark.query) == {7, 12, 20}
    of_camera_1 = [path.name[:16] for path in benchmark.query.paths if "_c1s1_" in path.name]
    assert of_camera_1 == ["0007_c1s1_000001", "0012_c1s1_000000", "0020_c1s1_000000"]
    same = load_specified(benchmark.specification, training_folder)
    assert same.fingerprint == benchmark.fingerprint
    # With query and test folders, even unreadable ones, it is the same data.
    for name in ("query", "bounding_box_test"):
        put(training_folder / name, ["no name.jpg"])
    assert load("market1501", training_folder, validation=True).fingerprint == benchmark.fingerprint
    assert load("dukemtmc", training_folder, validation=True).query.paths == benchmark.query.paths


def test_queries_are_not_always_the_first_images(tmp_path):
    root = put(tmp_path / "set" / TRAIN, market_names(range(1, 31), (1, 1, 1, 2, 2, 2))).parent
    query = load("market1501", root, validation=True).query
    places = [int(path.name.split("_")[2]) % 3 for path in query.paths]
    assert len(places) == 20 and set(places) == {0, 1, 2}


def test_the_check_tells_what_a_training_folder_has(training_folder):
    report = check("market1501", training_folder, progress=False, **VALIDATION)
    assert (
        "split of the training persons by a fixed rule: 5 persons in 18 training images, 3 in 9 queries,"
        " 3 in 9 gallery images; 3 cameras" in report.remarks
    )
    # Only what is wanted is counted: the miniature is not the whole training folder.
    assert {count.folder for count in report.counts} == {TRAIN} and len(report.problems) == 3
    report = check("market1501", training_folder, progress=False, **TRAINING_ONLY)
    assert "training only: 8 persons in 30 training images; 3 cameras" in report.remarks
    assert count_deviations("dukemtmc", training_folder, **VALIDATION)[0].startswith(f"{TRAIN} has 30 images")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (market_names((1, 2, 3)), "3 training persons, 3 of them seen by 2 cameras"),
        (market_names(range(1, 9), (1, 1)), "8 training persons, 0 of them seen by 2 cameras (1 camera, 16"),
        (market_names((1, 2, 3)) + market_names((4, 5), (2,)), "5 training persons, 3 of them"),
        ([*market_names((1, 2, 3, 4)), "-1_c1s1_000001_00.jpg"], "keep junk (-1) and distractors (0) out"),
    ],
)
def test_too_few_persons_or_cameras_are_refused(tmp_path, names, words):
    root = put(tmp_path / "set" / TRAIN, names).parent
    assert words in refusal("market1501", root, **VALIDATION)
    report = check("market1501", root, progress=False, **VALIDATION)
    assert any(words in problem for problem in report.problems)


def test_a_problem_is_not_told_twice_by_its_consequences(tmp_path):
    (tmp_path / "set" / TRAIN).mkdir(parents=True)
    for use in (VALIDATION, TRAINING_ONLY):
        report = check("market1501", tmp_path / "set", progress=False, **use)
        assert [problem for problem in report.problems if "than expected" not in problem] == [
            refusal("market1501", tmp_path / "set", **use)
        ]
        assert not report.remarks
    # Which persons the missing folders would show is no further problem.
    put(tmp_path / "set" / TRAIN, market_names(range(1, 9)))
    problems = check("market1501", tmp_path / "set", progress=False).problems
    assert [problem for problem in problems if "than expected" not in problem] == [
        refusal("market1501", tmp_path / "set")
    ]


def test_contradictory_options_are_refused(training_folder):
    for name in ("market1501", "dukemtmc", "cuhk03", "folder", "csv"):
        text = refusal(name, training_folder, **VALIDATION, **TRAINING_ONLY)
        assert "got validation=true,training_only=true; leave out one" in text
    assert "distractors with training_only" in refusal(
        "market1501", training_folder, distractors=True, **TRAINING_ONLY
    )
    assert "test_persons with" in refusal("folder", training_folder, test_persons=3, **TRAINING_ONLY)
    assert "boxes=both is for pre-training" in refusal("cuhk03", training_folder, boxes="both")


def test_a_folder_one_level_off_is_suggested(training_folder):
    assert f"give {training_folder}" in refusal("market1501", training_folder / TRAIN, **VALIDATION)
    assert f"give {training_folder}" in refusal("market1501", training_folder.parent, **TRAINING_ONLY)
    text = refusal("market1501", put(training_folder.parent / "other", ["1.jpg"]), **VALIDATION)
    assert f"lacks {TRAIN}" in text and "query" not in text
    text = refusal("market1501", training_folder)
    assert f"or read {TRAIN} alone, with validation=true or training_only=true" in text


def test_a_training_folder_alone_is_no_test(training_folder, market):
    benchmark = load("market1501", training_folder, **TRAINING_ONLY)
    assert (len(benchmark.train), len(benchmark.query), len(benchmark.gallery)) == (30, 0, 0)
    assert benchmark.training_only and benchmark.specification == "market1501,training_only=true"
    with pytest.raises(InputError, match="validation=true"):
        benchmark.check_scorable()
    # Together with another training folder it is one; with a whole benchmark it is none.
    both = combine(
        [
            benchmark,
            load(
                "dukemtmc", shutil.copytree(training_folder, training_folder.parent / "copy"), **TRAINING_ONLY
            ),
        ]
    )
    assert both.training_only and len(persons(both.train)) == 16
    mixed = combine([benchmark, load("market1501", market)])
    assert not mixed.training_only and len(mixed.query) == 2
    mixed.check_scorable()
    assert not persons(mixed.train) & persons(mixed.query)


def own_names(split=""):
    return [f"{split}{person}/{camera}/{n}.jpg" for person in "abcdefgh" for camera in "xy" for n in (1, 2)]


def own_folder(root, *names):
    for index, name in enumerate(names):
        put((root / name).parent, [(root / name).name], seed=index)
    return root


def test_own_images_with_splits_need_train_alone(tmp_path):
    root = own_folder(tmp_path / "own", *own_names("train/"))
    assert "query, gallery" in refusal("folder", root)
    benchmark = load("folder", root, **VALIDATION)
    assert benchmark.num_trials == 1 and benchmark.specification == "folder,validation=true"
    assert (len(benchmark.train), len(benchmark.query), len(benchmark.gallery)) == (20, 6, 6)
    own_folder(root, "query/zz/1.jpg", "gallery/zz/x/1.jpg")
    assert load("folder", root, **VALIDATION).fingerprint == benchmark.fingerprint
    assert len(load("folder", root, **TRAINING_ONLY).train) == 32
    own_folder(root, "stray/1.jpg")
    assert "images in stray" in refusal("folder", root, **VALIDATION)
    report = check("folder", own_folder(tmp_path / "two", *own_names("train/")), progress=False, **VALIDATION)
    assert report.ok and "5 persons in 20 training images, 3 in 6 queries" in report.text()
    # Of a training folder alone, a mend says how it is read, and of other folders without one it does not.
    alone = "or read train alone, with validation=true or training_only=true"
    assert alone in refusal("folder", tmp_path / "two")
    other = own_folder(tmp_path / "other", "gallery/a/x/1.jpg", "val/a/x/1.jpg")
    text = refusal("folder", other, **VALIDATION)
    assert "has the folder train; got" in text and alone not in text


def test_own_images_without_splits_keep_their_test_persons_unseen(tmp_path):
    names = [f"{person:02}/{camera}/{n}.jpg" for person in range(1, 13) for camera in "xy" for n in (1, 2)]
    root = own_folder(tmp_path / "own", *names, "junk/x/1.jpg", "0/x/1.jpg")
    draws = set()
    for trial in (0, 1, 2):
        whole, validation = load("folder", root, trial=trial), load("folder", root, trial=trial, **VALIDATION)
        inner = persons(validation.train) | persons(validation.query)
        assert inner == persons(whole.train) and len(persons(validation.query)) == 2
        assert persons(validation.gallery) == persons(validation.query)
        draws.add(tuple(sorted(persons(validation.query))))
    assert len(draws) == 3
    every = load("folder", root, **TRAINING_ONLY)
    assert every.num_trials == 1 and persons(every.train) == set(range(1, 13))


def test_cameras_of_training_images_may_be_unknown_for_training_only(tmp_path):
    root = own_folder(tmp_path / "own", *(f"{person}/{n}.jpg" for person in "abcdefgh" for n in (1, 2)))
    assert len(load("folder", root, **TRAINING_ONLY).train) == 16
    assert "the camera of every image is known" in refusal("folder", root, **VALIDATION)
    benchmark = load("folder", root, same_camera=True, test_persons=1, **VALIDATION)
    assert len(persons(benchmark.query)) == 3 and benchmark.num_queries_without_match == 0
    assert not persons(benchmark.query) & persons(benchmark.train)


def test_a_list_of_training_images_needs_no_other_files(tmp_path):
    root = own_folder(tmp_path / "own", *own_names())
    lines = ["path,person,camera,split"]
    lines += [f"{name},{name[0]},{name[2]},train" for name in own_names()]
    (root / "list.csv").write_text("\n".join([*lines, "lost.jpg,zz,x,query", "lost.jpg,zz,x,gallery"]))
    assert "lost.jpg" in refusal("csv", root)
    assert len(load("csv", root, **TRAINING_ONLY).train) == 32
    benchmark = load("csv", root, **VALIDATION)
    assert (len(benchmark.train), len(benchmark.query)) == (20, 6)
    (root / "list.csv").write_text(f"{lines[0]}\n{lines[1].replace('train', 'query')}\n")
    assert "no row with split train" in refusal("csv", root, **VALIDATION)
    assert not check("csv", root, progress=False, **TRAINING_ONLY).ok
    (root / "list.csv").write_text("\n".join(lines))
    assert "got train alone in" in (text := refusal("csv", root)) and "with validation=true" in text
    assert any("got train alone in" in problem for problem in check("csv", root, progress=False).problems)


def test_viper_and_cuhk01_hold_out_training_persons_of_each_trial(tmp_path):
    numbers = range(0, 36, 3)
    for index, folder in enumerate(VIPER_NAMES):
        put(tmp_path / "viper" / folder, [f"{n:03}_0.bmp" for n in numbers], seed=100 * index)
    names = [f"{person:04}{image:03}.png" for person in range(1, 13) for image in (1, 2, 3, 4)]
    put(tmp_path / "cuhk01" / "campus", [*names, *CUHK01_NAMES[-4:]])
    for name in ("viper", "cuhk01"):
        draws = []
        for trial in (0, 9):
            options = {"test_persons": 4, "trial": trial}
            whole = load(name, tmp_path / name, **options)
            benchmark = load(name, tmp_path / name, **options, **VALIDATION)
            inner = persons(benchmark.train) | persons(benchmark.query)
            assert inner == persons(whole.train) and len(persons(benchmark.query)) == 3
            assert benchmark.num_trials == 10 and benchmark.num_queries_without_match == 0
            # One query of each person and camera; the papers' protocols ask with those of camera 1.
            assert len(benchmark.query) == 6
            # Of each person and camera one image is asked and one is found, so there is no second shot.
            assert list(benchmark.protocols) == ["single-shot"] == list(whole.protocols)[:1]
            assert {protocol.query_cameras for protocol in benchmark.protocols.values()} == {(1,)}
            draws.append(persons(benchmark.query))
            images = [
                Embeddings(np.eye(20)[split.person_ids % 20], split.person_ids, split.camera_ids)
                for split in (benchmark.query, benchmark.gallery)
            ]
            for protocol in benchmark.protocols.values():
                assert evaluate_protocol(*images, protocol).cmc[1] == 1
        assert draws[0] != draws[1]
        assert benchmark.specification == f"{name},test_persons=4,validation=true,trial=9"
    report = check("viper", tmp_path / "viper", progress=False, test_persons=4, **VALIDATION)
    assert "trial 0: split of the training persons" in report.text()
    text = refusal("viper", tmp_path / "viper", test_persons=9, **VALIDATION)
    assert "3 training persons, 3 of them seen by 2 cameras" in text


def cuhk03_folders(root, names=("labelled", "detected"), people=range(1, 8)):
    """The layout of the folders with one camera pair: training images of both kinds, tests of one."""
    for number, name in enumerate(names):
        images = [image.replace("s1", f"s{number + 1}") for image in market_names(people, (1, 1, 2, 2))]
        put(root / name / TRAIN, images, seed=100 * number)
    for folder in ("query", "bounding_box_test"):
        put(root / names[0] / folder, market_names((20,), (1, 2)))
    return root


def test_both_kinds_of_boxes_are_one_set_of_the_same_persons(tmp_path):
    root = cuhk03_folders(tmp_path / "pair")
    benchmark = load("cuhk03", root, boxes="both", **TRAINING_ONLY)
    assert benchmark.specification == "cuhk03,boxes=both,training_only=true"
    assert len(benchmark.train) == 56 and persons(benchmark.train) == set(range(1, 8))
    assert {path.parent.parent.name for path in benchmark.train.paths} == {"labelled", "detected"}
    one = load("cuhk03", root, boxes="detected", **TRAINING_ONLY)
    assert {path.parent.parent.name for path in one.train.paths} == {"detected"} and len(one.train) == 28
    report = check("cuhk03", root, progress=False, boxes="both", **TRAINING_ONLY)
    assert report.ok and "training only: 7 persons in 56 training images; 2 cameras" in report.remarks
    for options in ({}, {"split": "new"}):
        text = refusal("cuhk03", root, **options)
        assert "cuhk-03.mat" in text
        assert "alone, with validation=true or training_only=true and boxes=labelled or detected" in text
    # CUHK03-NP's folders are called labeled and detected.
    (root / "labelled").rename(root / "labeled")
    assert len(load("cuhk03", root, boxes="both", split="new", **TRAINING_ONLY).train) == 56
    # Only the new protocol says how many training images there are: the folders may have other persons.
    for options in ({}, {"split": "new"}):
        validation = load("cuhk03", root, **options, **VALIDATION)
        assert (len(persons(validation.query)), len(validation.query)) == (3, 6)
        report = check("cuhk03", root, progress=False, **options, **VALIDATION)
        assert len(report.problems) == 2 * len(options) and "4 persons in 16 training" in report.text()
    # A folder under the other name that has no training images hides none.
    (root / "labelled").mkdir()
    assert load("cuhk03", root, **VALIDATION).fingerprint == validation.fingerprint
    assert len(load("cuhk03", root, boxes="both", **TRAINING_ONLY).train) == 56
    (root / "labelled").rmdir()
    for path in (root / "detected" / TRAIN).glob("0007*"):
        path.unlink()
    text = refusal("cuhk03", root, boxes="both", **TRAINING_ONLY)
    assert "show the same persons; got 1 person in only one of them: 7" in text
    for path in (root / "detected" / TRAIN).iterdir():
        path.unlink()
    (root / "detected" / TRAIN).rmdir()
    assert f"lacks detected/{TRAIN}" in refusal("cuhk03", root, boxes="both", **TRAINING_ONLY)
    assert refusal("cuhk03", root, boxes="detected", **VALIDATION).endswith("boxes=labelled")


def test_the_archive_serves_for_training_too(tmp_path):
    write_archive(tmp_path / "cuhk-03.mat", test_sets=TEST_SETS)
    for kind in ("labeled", "detected"):
        savemat(tmp_path / f"cuhk03_new_protocol_config_{kind}.mat", new_lists(kind))
    for options in ({}, {"split": "new"}):
        whole = load("cuhk03", tmp_path, **options)
        alone = load("cuhk03", tmp_path, **options, **TRAINING_ONLY)
        assert alone.train.paths == whole.train.paths and not alone.query.paths and not alone.protocols
        both = load("cuhk03", tmp_path, **options, boxes="both", **TRAINING_ONLY)
        assert persons(both.train) == persons(whole.train) and len(both.train) > len(whole.train)
        validation = load("cuhk03", tmp_path, **options, **VALIDATION)
        assert persons(validation.train) | persons(validation.query) == persons(whole.train)
        assert persons(validation.query) and validation.protocols == whole.protocols
        for more in (VALIDATION, {"boxes": "both", **TRAINING_ONLY}):
            report = check("cuhk03", tmp_path, progress=False, **options, **more)
            problems = [p for p in report.problems if "than expected" not in p and "testsets has" not in p]
            assert not problems and "training images" in report.text()


def test_an_archive_without_test_sets_is_refused_in_one_line(tmp_path):
    write_archive(tmp_path / "cuhk-03.mat", test_sets=())
    for options in ({}, VALIDATION, TRAINING_ONLY, {"boxes": "both", **TRAINING_ONLY}):
        assert "cuhk03 has partitions; got none in its files" in refusal("cuhk03", tmp_path, **options)
        problems = check("cuhk03", tmp_path, progress=False, **options).problems
        assert problems[0].startswith("testsets has 20 sets of 100 persons; got 0 sets of no persons")
