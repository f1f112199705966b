"""Metrics learnt on a benchmark's training images: features, scores, and the parts' shares of a distance."""

import json
from itertools import product

import numpy as np
import pytest
from miniature import write_image
from untrained_runs import JLML, QUIET, untrained_run

from reidlib.data import load
from reidlib.errors import InputError
from reidlib.experiments import metric_study
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.metric_study import METRICS, Features, score_metrics, shares_of_distance
from reidlib.experiments.validation import hold_out
from reidlib.metric_learning import XQDA
from reidlib.ranking.metrics import Embeddings, evaluate_distances
from reidlib.training.runs import Run

PARTS = {"first": np.arange(4), "second": np.arange(4, 12)}


def side(generator, persons, cameras=2):
    """Images of persons: 12 numbers around a person's, with a strong disturbance in the first four."""
    ids = np.repeat(np.arange(1, persons + 1), 2 * cameras)
    features = np.random.default_rng(7).normal(size=(persons + 1, 12))[ids]
    features += 0.1 * generator.normal(size=features.shape)
    features[:, :4] += 4 * generator.normal(size=(len(ids), 4))
    return Embeddings(features, ids, np.tile(np.repeat(np.arange(1, cameras + 1), 2), persons))


@pytest.fixture
def features():
    generator = np.random.default_rng(0)
    training, test = side(generator, 60), side(generator, 30)
    queries, gallery = (np.asarray(test.camera_ids) == camera for camera in (1, 2))
    sides = (
        Embeddings(test.features[rows], test.person_ids[rows], test.camera_ids[rows])
        for rows in (queries, gallery)
    )
    return Features(training, *sides, PARTS, 0.0)


def test_each_metric_is_scored_by_its_own_distances(features):
    results = dict(score_metrics(features))
    assert list(results) == ["L2", *METRICS]
    assert results["L2"].metric is None and results["L2"].directions == 12
    for name, result in results.items():
        if result.metric is None:
            continue
        query, gallery = features.query, features.gallery
        distances = result.metric.distances(
            query.features, gallery.features, query.camera_ids, gallery.camera_ids
        )
        direct = evaluate_distances(distances, query, gallery)
        assert result.scores.mean_average_precision == pytest.approx(direct.mean_average_precision), name
        assert result.directions == len(result.metric.signs) and result.seconds > 0


def test_a_learnt_metric_does_not_look_where_persons_cannot_be_told_apart(features):
    results = dict(score_metrics(features, ["XQDA"]))
    before, after = (results[name].scores.mean_average_precision for name in ("L2", "XQDA"))
    assert after > before + 0.2
    plain = shares_of_distance(features, None)
    learnt = shares_of_distance(features, results["XQDA"].metric)
    assert sum(plain.values()) == pytest.approx(1) and sum(learnt.values()) == pytest.approx(1)
    assert plain["first"] > 0.5 > 0.1 > learnt["first"]


def test_shares_are_those_of_all_pairs(features):
    metric = XQDA().fit(*(getattr(features.training, n) for n in ("features", "person_ids", "camera_ids")))
    gallery = np.asarray(features.gallery.features)
    weights = metric.weights
    assert weights is not None
    matrix = (weights * metric.signs) @ weights.T
    pairs = (gallery[:, None] - gallery).reshape(-1, 12)
    by_column = ((pairs @ matrix) * pairs).mean(0)
    expected = {part: by_column[columns].sum() / by_column.sum() for part, columns in PARTS.items()}
    assert shares_of_distance(features, metric) == pytest.approx(expected)


def test_what_is_refused(features):
    with pytest.raises(InputError, match="metrics are named"):
        dict(score_metrics(features, ["XQDB"]))
    one_camera = Embeddings(
        features.training.features, features.training.person_ids, np.ones(len(features.training), int)
    )
    results = dict(score_metrics(features._replace(training=one_camera), ["XQDA"]))
    assert results["L2"].scores.num_queries and "at least two cameras" in str(results["XQDA"])
    kernel = dict(score_metrics(features, ["NFST"]))["NFST"].metric
    with pytest.raises(InputError, match="NullSpace without weights"):
        shares_of_distance(features, kernel)


def test_descriptors_and_a_networks_features_of_a_folder(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    for person, camera in product((30, 31), (1, 2)):  # four persons, of whom two can be held out
        name = f"{person:04}_c{camera}s1_000001_00.jpg"
        write_image(market / "bounding_box_train" / name, seed=person + 10 * camera)
    data = load("market1501", market)
    described = metric_study.describe(data, "lomo", QUIET)
    assert described.training.features.shape == (len(data.train), 26_960)
    assert np.linalg.norm(described.query.features, axis=1) == pytest.approx(np.sqrt(3), rel=1e-5)
    columns = np.concatenate([*described.parts.values()])
    assert len(described.parts) == 24 and (columns == np.arange(24 * 512)).all()
    fused = metric_study.describe(data, "gog", QUIET)
    assert fused.gallery.features.shape == (len(data.gallery), 27_622) and not fused.parts
    with pytest.raises(InputError, match="lomo and gog"):
        metric_study.describe(data, "hog", QUIET)
    run = untrained_run(data, tmp_path / "runs", JLML)
    embedded = metric_study.embed(data, TrainedNetwork(run, QUIET))
    assert np.linalg.norm(embedded.gallery.features, axis=1) == pytest.approx(1, rel=1e-5)
    assert list(embedded.parts) == ["global", "local 1", "local 2"]
    # A metric learns from the images that the network was trained on.
    content = json.loads((run.folder / "config.json").read_text()) | {"validation_persons": 2}
    (run.folder / "config.json").write_text(json.dumps(content))
    seen, held_out = hold_out(data, 2, content["seed"])
    few = metric_study.embed(data, TrainedNetwork(Run(run.folder), QUIET)).training
    assert len(few.person_ids) == len(seen) == len(data.train) - len(held_out)
    length = embedded.training.features.shape[1]
    assert (np.sort(np.concatenate([*embedded.parts.values()])) == np.arange(length)).all()
