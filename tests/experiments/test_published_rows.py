"""The papers' rows of learnt metrics: measured on miniatures of VIPeR and CUHK01; what is kept of them."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from miniature import write_image
from untrained_runs import QUIET

from reidlib.data import load
from reidlib.data.images import ImageStore
from reidlib.descriptors import lomo
from reidlib.errors import InputError
from reidlib.experiments.metric_study import Learnt, published
from reidlib.experiments.metric_study.published import CASES, kept, measure, specifications_of, write_measured
from reidlib.metric_learning import XQDA, NullSpace
from reidlib.ranking.metrics import Embeddings, evaluate
from reidlib.ranking.protocols import evaluate_protocol

PERSONS, TESTED = 12, (1, 3, 4, 6, 8, 10, 12)


def case(row, choice=""):
    (found,) = (case for case in CASES if (case.row, case.choice) == (row, choice))
    return found


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Twelve persons in the layouts of both sets, whose images differ within a person, and two partitions."""
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    (tmp_path / "cuhk01" / "campus").mkdir(parents=True)
    for person in range(1, PERSONS + 1):
        for image in range(1, 5):
            path = tmp_path / "cuhk01" / "campus" / f"{person:04}{image:03}.png"
            write_image(path, (160, 60), seed=person if image == 3 else 100 * image + person)
        for camera in ("cam_a", "cam_b"):
            (tmp_path / "viper" / camera).mkdir(parents=True, exist_ok=True)
            seed = person if person % 2 else len(camera + "a" * person) + 50 * (camera == "cam_a")
            write_image(tmp_path / "viper" / camera / f"{person:03}_0.bmp", (128, 48), seed=seed)
    tested = [TESTED, tuple(range(1, 8))]
    for name in ("viper", "cuhk01"):
        content = {"benchmark": name, "persons": PERSONS, "test": tested}
        (tmp_path / f"{name}_mine.json").write_text(json.dumps(content))
    return {f"{name},partitions=../{name}_mine.json": tmp_path / name for name in ("viper", "cuhk01")}


def test_scores_are_those_of_the_descriptors_themselves(folders):
    """Coordinates in the images' span, a camera as gallery and means of squares: against the plain way."""
    results = {each.case: each for each in measure(folders, execution=QUIET)}
    own = [case for case in CASES if case.descriptor == "lomo" and not case.choice]
    assert {*results} == {case for case in own if case.benchmark in ("viper", "cuhk01")}
    (text, root) = [*folders.items()][1]
    for trial in (0, 1):
        data = load("cuhk01", root, trial=trial, partitions=text.partition("partitions=")[2])
        sides = [
            Embeddings(
                lomo(ImageStore.open(split.paths, (160, 60), progress=False).array_nhwc),
                split.person_ids,
                split.camera_ids,
            )
            for split in (data.train, data.query, data.gallery)
        ]
        for name, metric in (("L2", None), ("XQDA", XQDA()), ("NFST", NullSpace())):
            if name == "NFST":  # two images of a person in each camera follow each other
                sides = [
                    Embeddings(
                        np.reshape(side.features, (len(side) // 2, 2, -1)).mean(1),
                        side.person_ids[::2],
                        side.camera_ids[::2],
                    )
                    for side in sides
                ]
            training, query, gallery = sides
            tested = query, gallery
            if metric:
                metric.fit(training.features, training.person_ids, training.camera_ids)
                tested = metric.embeddings(query, gallery)
            expected = evaluate_protocol(*tested, data.protocols["multi-shot"], average_of="squared")
            measured = results[case(f"LOMO + {name}, CUHK01 multi-shot")]
            assert measured.partitions == "cuhk01_mine" and len(measured.scores[1]) == 2
            for rank, share in expected.cmc.items():
                assert measured.scores[rank][trial] == pytest.approx(100 * share), (name, rank)
    refused = results[case("LOMO + KISSME, VIPeR")]
    assert "principal components" in refused.refused and not refused.scores  # 100 of ten images


@pytest.mark.filterwarnings("error")
def test_what_a_metric_tells_is_logged_without_a_line_of_this_package(folders, monkeypatch, caplog):
    monkeypatch.setattr(published, "CASES", (case("LOMO + XQDA, VIPeR"),))
    monkeypatch.setattr(published, "fit", lambda *_: Learnt(XQDA(), 0.0, ("a ridge was added",)))
    monkeypatch.setattr(published, "_score", lambda *_: dict.fromkeys(published.RANKS, 0.5))
    assert [*measure(folders, trials=1, execution=QUIET)]
    (line,) = [record.message for record in caplog.records if "ridge" in record.message]
    assert re.fullmatch(r"LOMO \+ XQDA, VIPeR, viper,partitions=.*viper_mine.json: a ridge was added", line)


def test_other_choices_change_what_they_say(folders, monkeypatch):
    folders = {name: root for name, root in folders.items() if name.startswith("cuhk01")}
    wanted = [case for case in CASES if case.row == "LOMO + NFST, CUHK01 multi-shot" and not case.size]
    monkeypatch.setattr(published, "CASES", tuple(wanted))
    results = {each.case.choice: each for each in measure(folders, choices=True, trials=1, execution=QUIET)}
    assert {*results} == {case.choice for case in wanted}
    assert all(len(each.scores[1]) == 1 for each in results.values())
    own = results[""].scores[1]
    assert any(each.scores[1] != own for each in results.values())


def test_the_least_distance_is_that_of_the_nearest_images():
    ids = np.array([2, 1, 2, 1])
    query = Embeddings(np.array([[0.0], [10.0], [1.0], [30.0]]), ids, np.ones(4, int))
    gallery = Embeddings(np.array([[10.5], [31.0], [50.0], [11.0]]), ids, np.full(4, 2))

    class Metric:
        def distances(self, query, gallery):
            return np.abs(query - gallery.T)

    least = case("LOMO + NFST, CUHK01 multi-shot", "each image for itself, least distance")
    # Person 1 (10, 30) is 1 from herself (31) and 0.5 from person 2 (10.5); person 2 (0, 1) is 9.5 from
    # herself and 10 from person 1.
    assert published._score(least, Metric(), query, gallery, None)[1] == 0.5


def test_exchanged_halves_and_first_images(folders):
    (text, root) = [*folders.items()][1]
    data = load("cuhk01", root, partitions=text.partition("partitions=")[2])
    images = [*data.train.paths, *data.query.paths, *data.gallery.paths]
    rows = {path: row for row, path in enumerate(images)}
    features = np.random.default_rng(0).normal(size=(len(images), 60))
    own = case("LOMO + XQDA, CUHK01 multi-shot")
    exchanged = dataclasses.replace(own, training="halves exchanged")
    _, first, second = published._learn(exchanged, data, features, rows)
    assert {*first.person_ids.tolist()} == {*second.person_ids.tolist()} == {*data.train.person_ids.tolist()}
    assert {*first.camera_ids.tolist()} == {1} and {*second.camera_ids.tolist()} == {2}
    metric, *_ = published._learn(dataclasses.replace(own, training="first"), data, features, rows)
    means, first, _ = published._learn(dataclasses.replace(own, training="means"), data, features, rows)
    person, *_ = first.person_ids
    of_person = [features[rows[path]] for path in data.query.paths if int(path.stem[:4]) == person]
    assert len(of_person) == 2 and np.allclose(np.mean(of_person, axis=0), first.features[0])
    assert len(first) == len(TESTED) and means._projection.length == 60
    training = data.train.select([path.stem[-1] in "13" for path in data.train.paths])
    direct = XQDA().fit(
        features[[rows[path] for path in training.paths]], training.person_ids, training.camera_ids
    )
    assert np.allclose(metric.distances(features, features), direct.distances(features, features))


def test_gog_is_normalised_by_each_partitions_training_images(folders):
    (text, root) = next(iter(folders.items()))
    results = {each.case.row: each for each in measure({text: root}, ["gog"], trials=2, execution=QUIET)}
    assert [*results] == [f"GOG + {name}, VIPeR" for name in ("XQDA", "L2", "KISSME", "NFST", "CRAFT")]
    assert len(results["GOG + XQDA, VIPeR"].scores[20]) == 2


def test_market1501_has_its_own_rule_and_the_descriptors_themselves(tmp_path, monkeypatch):
    """Six persons of two cameras, two images in each: no partitions, and queries as the set says."""
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    for person, camera, image in itertools.product(range(1, 13), (1, 2), (1, 2)):
        name = f"{person:04}_c{camera}s1_{image:06}_00.jpg"
        path = tmp_path / "market" / "bounding_box_train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, (128, 64), seed=person + 40 * (camera == 2) * (person % 3 == 0) + 20 * image)
    (result,) = [
        each
        for each in measure({"market1501,validation=true": tmp_path / "market"}, execution=QUIET)
        if each.case.metric == "L2"
    ]
    data = load("market1501", tmp_path / "market", validation=True)
    query, gallery = (
        Embeddings(
            lomo(ImageStore.open(split.paths, (128, 64), progress=False).array_nhwc, size=(128, 48)),
            split.person_ids,
            split.camera_ids,
        )
        for split in (data.query, data.gallery)
    )
    expected = evaluate(query, gallery, ranks=published.RANKS).cmc
    assert {rank: shares for rank, (shares,) in result.scores.items()} == pytest.approx(
        {rank: 100 * share for rank, share in expected.items()}
    )
    assert result.case.settings == "LOMO at 128×48, our Retinex; L2"


def test_kept_numbers_are_of_todays_cases(tmp_path):
    lines = published._lines("measured.csv")
    assert len(kept()) == len(lines)  # each with the settings that the case has today
    assert len({(case.row, case.choice) for case in CASES}) == len(CASES)
    rows = [case for case in CASES if not case.choice]
    assert {case.row for case in CASES} == {case.row for case in rows} and len(rows) > 30
    for row in (row for row in rows if row.published):
        assert row.protocol in ("single-shot", "multi-shot") and bool(row.average) == (
            row.protocol == "multi-shot" and row.training != "means"
        )
        assert float(row.published) > 30 and float(row.tolerance) > 0 and row.source
        assert row.source.startswith(("read", "recalled"))
    for each in kept().values():
        assert 1 <= len(each.scores[1]) <= 10 and {*map(len, each.scores.values())} == {len(each.scores[1])}
        curves = np.array([*each.scores.values()])
        assert (np.diff(curves, axis=0) >= 0).all() and (curves <= 100).all() and each.date


def test_fresh_numbers_take_the_place_of_kept_ones(tmp_path):
    own = case("LOMO + XQDA, VIPeR")
    scores = {rank: (10.0 + rank, *[20.125] * 9) for rank in published.RANKS}
    fresh = published.Measured(own, "mine", scores, date="2026-11-28")
    few = published.Measured(own, "few", dict.fromkeys(published.RANKS, (1.0,)), date="2026-11-29")
    refused = published.Measured(case("LOMO + NFST, VIPeR"), "mine", {}, "too few images")
    write_measured(tmp_path / "measured.csv", [fresh, refused, few])
    text = (tmp_path / "measured.csv").read_text().splitlines()
    assert text[0] == "row,choice,settings,partitions,R1,R5,R10,R20,date"
    (line,) = [line for line in text if line.startswith('"LOMO + XQDA, VIPeR",,')]
    assert ",mine,11.00 20.12 20.12" in line and line.endswith(",2026-11-28")
    assert len(text) == 1 + len({own, *kept()})


def test_which_folders_are_read(folders):
    given = {
        "viper": "a",
        "viper,partitions=x.json": "b",
        "cuhk01,test_persons=100": "c",
        "market1501": "d",
        "market1501,validation=true": "d",
        "grid": "",
    }
    assert specifications_of(given) == {
        "viper": "viper,partitions=x.json",
        "market1501,validation=true": "market1501,validation=true",
    }
    assert not [*measure({"market1501": "nowhere"}, execution=QUIET)]


def test_what_is_refused(folders, tmp_path):
    (viper, root), (_, other) = folders.items()
    with pytest.raises(InputError, match="lomo and gog; got 'hog'"):
        [*measure(folders, ["hog"], execution=QUIET)]
    with pytest.raises(InputError, match="cam_a"):
        [*measure({viper: other}, execution=QUIET)]
    with pytest.raises(InputError, match="readable"):
        [*measure({"viper,partitions=none.json": root}, execution=QUIET)]
    with pytest.raises(InputError, match="for cuhk01 with 12"):
        [*measure({"viper,partitions=../cuhk01_mine.json": root}, execution=QUIET)]
