"""Training persons among those of a test: by number with one reader, by files with others, through chains."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from miniature import MINIATURE, write_image
from small_miniatures import write_viper
from untrained_runs import JLML, untrained_run

from reidlib.data import load_specified
from reidlib.data.benchmark import combine
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments.evaluate import is_own
from reidlib.experiments.overlap import check_persons, describe_overlap
from reidlib.training.runs import configuration_hash

TRAIN = "bounding_box_train"
WHOLE, VALIDATION = "market1501,training_only=true", "market1501,validation=true"
DETECTED = "cuhk03,split=new,boxes=detected,validation=true"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


def write_training_folder(root, persons, seed=0):
    """A folder of Market-1501's training images: two cameras show each person."""
    (root / TRAIN).mkdir(parents=True)
    for person in persons:
        for camera in (1, 2):
            name = f"{person:04}_c{camera}s1_000001_00.jpg"
            write_image(root / TRAIN / name, size=(16, 8 + person % 3), seed=seed + 2 * person + camera)
    return root


@pytest.fixture
def folder(tmp_path):
    return write_training_folder(tmp_path / "set", range(2, 14))


def trained(specification, root, runs, *, start=None, **information):
    """The run of a training, as ``obtain`` describes it, without the training."""
    benchmark = load_specified(specification, root)
    hashed = {"start": configuration_hash(start.configuration)} if start else {}
    run = untrained_run(benchmark, runs, JLML, **hashed)
    return describe(run, benchmark, **information)


def describe(run, benchmark, **information):
    configuration = {**run.configuration, "benchmark": benchmark.specification}
    folder = run.folder.with_name(f"run-{configuration_hash(configuration)}")
    shutil.rmtree(folder, ignore_errors=True)
    run.folder.rename(folder)
    (folder / "config.json").write_text(json.dumps(configuration))
    information = {"data_root": str(benchmark.root), **information}
    (folder / "run.json").write_text(json.dumps(information))
    return type(run)(folder)


def refusal(run, tested):
    with pytest.raises(InputError) as caught:
        check_persons(run, tested)
    message = str(caught.value)
    assert message.count("\n") == 0 and message.startswith("a run is scored on persons that")
    return message


# --- one folder, reached in several ways --------------------------------------------------------------------


def same(folder, tmp_path):
    return VALIDATION, folder


def another_path(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    return VALIDATION, tmp_path / "link"


def copy(folder, tmp_path):
    return VALIDATION, shutil.copytree(folder, tmp_path / "copy")


def person_folders(folder, tmp_path):
    """A copy in which persons have names, and so numbers that are not the benchmark's."""
    for path in (folder / TRAIN).glob("*.jpg"):
        target = tmp_path / "own" / f"person {path.name[:4]}" / path.name[5:7] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return "folder,validation=true", tmp_path / "own"


def list_in_place(folder, tmp_path):
    rows = [f"{TRAIN}/{path.name},p{path.name[:4]},{path.name[5:7]}" for path in (folder / TRAIN).iterdir()]
    (folder / "images.csv").write_text("\n".join(["path,person,camera", *rows]))
    return "csv", folder / "images.csv"


@pytest.mark.parametrize("reach", [same, another_path, copy, person_folders, list_in_place])
def test_training_persons_are_refused_wherever_their_images_are(folder, tmp_path, reach):
    specification, root = reach(folder, tmp_path)
    tested = load_specified(specification, root)
    run = trained(WHOLE, folder, tmp_path / "runs")
    message = refusal(run, tested)
    assert f"of {tested.specification}: " in message and WHOLE in message
    assert ("persons of" if specification == VALIDATION else "images of") in message
    # The run on one part of these persons is scored on the other: the same division in each.
    part = trained(VALIDATION, folder, tmp_path / "runs")
    if specification == VALIDATION:
        assert check_persons(part, tested) == [] and is_own(part, tested)
    assert not is_own(run, tested)


def test_images_that_agree_in_size_alone_are_of_other_persons(folder, tmp_path):
    other = write_training_folder(tmp_path / "other", range(2, 14), seed=900)
    for path in (other / TRAIN).iterdir():  # nothing of its content is the same, and its sizes are
        size = (folder / TRAIN / path.name).stat().st_size
        path.write_bytes(path.read_bytes()[:size].ljust(size, b"\0"))
    specification, root = person_folders(other, tmp_path)
    assert check_persons(trained(WHOLE, folder, tmp_path / "runs"), load_specified(specification, root)) == []


def test_another_way_of_boxing_shows_the_same_persons(tmp_path):
    for number, boxes in enumerate(("labelled", "detected")):
        write_training_folder(tmp_path / "set" / boxes, range(1, 13), seed=100 * number)
    tested = load_specified(DETECTED, tmp_path / "set")
    tested_persons = np.unique(tested.query.person_ids)
    whole = trained("cuhk03,training_only=true,boxes=labelled", tmp_path / "set", tmp_path / "runs")
    assert f"{len(tested_persons)} persons of cuhk03" in refusal(whole, tested)
    part = trained(DETECTED.replace("detected", "labelled"), tmp_path / "set", tmp_path / "runs")
    assert check_persons(part, tested) == []  # the same persons are held out of both


def test_another_partition_tests_training_persons(tmp_path):
    root = write_viper(tmp_path / "set")
    trials = [load_specified(f"viper,test_persons=2,trial={trial}", root) for trial in range(10)]
    run = trained(trials[0].specification, root, tmp_path / "runs")
    results = set()
    for trial in trials:
        shared = np.intersect1d(trials[0].train.person_ids, trial.query.person_ids)
        results.add(len(shared))
        if len(shared):
            assert f"got {len(shared)} person" in refusal(run, trial)
        else:
            assert check_persons(run, trial) == []
    assert len(results) > 1


def test_rendered_persons_depend_on_the_seed_of_a_rendering(tmp_path):
    def rendering(name, seed):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rendering.json").write_text(json.dumps({"seed": seed}))
        split = Split([tmp_path / name / "rendering.json"], [1], [1])
        return SimpleNamespace(
            name="synthetic", specification="synthetic", root=tmp_path / name, members=(), train=split,
            query=split, gallery=split,
        )  # fmt: skip

    quick, full, other = (rendering(*words) for words in (("quick", 0), ("full", 0), ("other", 1)))
    assert describe_overlap(quick, quick.train, full) == "1 person of synthetic: 1"
    assert describe_overlap(quick, quick.train, other) == ""


# --- what a run started from --------------------------------------------------------------------------------


def test_the_persons_of_earlier_trainings_count(folder, tmp_path):
    viper = load_specified("viper,test_persons=2", write_viper(tmp_path / "viper"))
    first = trained(WHOLE, folder, tmp_path / "runs")
    second = trained(viper.specification, viper.root, tmp_path / "runs", start=first)
    tested = load_specified(VALIDATION, folder)
    message = refusal(second, tested)
    assert f"on which {first.folder.name} was trained ({WHOLE})" in message
    assert check_persons(second, viper) == []
    shutil.rmtree(first.folder)
    message = refusal(second, tested)
    assert "which needs these runs" in message and "copy that run's folder there" in message


def test_several_sets_are_compared_one_by_one(folder, tmp_path):
    other = load_specified("market1501,training_only=true", write_training_folder(tmp_path / "b", (90, 91)))
    both = combine([other, load_specified(WHOLE, folder)])
    run = describe(untrained_run(both, tmp_path / "runs"), both, data_roots=[str(other.root), str(folder)])
    assert "persons of market1501,validation=true" in refusal(run, load_specified(VALIDATION, folder))
    # Older runs name the first folder alone; the benchmark's reader is known all the same.
    (run.folder / "run.json").write_text(json.dumps({"data_root": str(other.root)}))
    run = type(run)(run.folder)
    assert "whose images are not in" in refusal(run, load_specified(VALIDATION, folder))


# --- images that are not at hand ----------------------------------------------------------------------------


def test_a_benchmark_whose_training_images_are_gone(folder, tmp_path):
    viper = load_specified("viper,test_persons=2", write_viper(tmp_path / "viper"))
    run = trained(WHOLE, folder, tmp_path / "runs")
    tested = load_specified(VALIDATION, shutil.copytree(folder, tmp_path / "copy"))
    folder.rename(tmp_path / "away")
    (remark,) = check_persons(run, viper)
    assert str(folder) in remark and "was not compared" in remark
    assert "persons of market1501" in refusal(run, tested)  # the copy holds the training images, too
    next((tested.root / TRAIN).glob("*.jpg")).unlink()
    message = refusal(run, load_specified(VALIDATION, tested.root))
    assert "whose images are not in" in message and "put the images back there" in message


def test_rendered_people_are_found_in_the_home_of_this_machine(market, tmp_path):
    counts = {name: {"images": len(list((market / name).glob("[-0]*.jpg")))} for name in MINIATURE}
    (market / "rendering.json").write_text(json.dumps({"seed": 0, "counts": counts}))
    run = trained("synthetic", market, tmp_path / "runs", data_root="/another/machine")
    tested = load_specified("viper,test_persons=2", write_viper(tmp_path / "viper"))
    assert len(check_persons(run, tested)) == 1
    (tmp_path / "home" / "data").mkdir(parents=True)
    market.rename(tmp_path / "home" / "data" / "synthetic-smoke")
    assert check_persons(run, tested) == []


def test_what_an_imported_checkpoint_has_seen_is_not_known(folder, tmp_path):
    viper = load_specified("viper,test_persons=2", write_viper(tmp_path / "viper"))
    (remark,) = check_persons(trained(WHOLE, folder, tmp_path / "runs", imported="a.pth"), viper)
    assert "is imported" in remark


def test_held_out_persons_of_a_training_are_no_training_persons(folder, tmp_path):
    whole, validation = (load_specified(name, folder) for name in (WHOLE, VALIDATION))
    held_out = np.isin(whole.train.person_ids, validation.query.person_ids)
    assert describe_overlap(whole, whole.train, validation)
    assert describe_overlap(whole, whole.train.select(~held_out), validation) == ""


# --- properties ---------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=2)), max_size=8),
    st.lists(st.tuples(st.integers(-1, 5), st.binary(max_size=2)), max_size=8),
    st.booleans(),
)
def test_overlap_is_that_of_a_plain_loop(tmp_path_factory, training, test, same_reader):
    folder = tmp_path_factory.mktemp("overlap")

    def split(title, rows):
        paths = [folder / f"{title}{number}" for number in range(len(rows))]
        for path, (_, content) in zip(paths, rows, strict=True):
            path.write_bytes(content)
        return Split(paths, np.array([person for person, _ in rows], int), np.zeros(len(rows), int))

    def benchmark(name, train, tested):
        empty = split("", [])
        return SimpleNamespace(
            name=name, specification=name, members=(), train=train, query=tested, gallery=empty, root=folder
        )

    train, tested = split("a", training), split("b", test)
    text = describe_overlap(
        benchmark("viper", train, tested), train, benchmark("viper" if same_reader else "csv", train, tested)
    )
    if same_reader:
        shared = {person for person, _ in training if person > 0} & {person for person, _ in test}
    else:
        shared = [content for _, content in test if content in {content for _, content in training}]
    assert (f"{len(shared)} {'person' if same_reader else 'image'}" in text) if shared else text == ""
