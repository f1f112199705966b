"""Scores by learnt metrics that are kept with a run: computed once, read without weights, never mistaken."""

import json
import os

import numpy as np
import pytest
from rows_with_scores import BENCHMARK, DATA, write_metrics, write_run
from untrained_runs import JLML, QUIET, untrained_run

from reidlib.analysis.scores import Cell, ExperimentScores
from reidlib.cli import main
from reidlib.data import load
from reidlib.errors import InputError
from reidlib.experiments import evidence, metric_study
from reidlib.experiments.evidence import Evidence
from reidlib.experiments.features import TrainedNetwork
from reidlib.experiments.metric_study import METRICS, kept
from reidlib.experiments.metric_study.kept import FORMAT, as_metric_scores, kept_scores, score_run
from reidlib.experiments.rows import L2, LEARNT_METRICS
from reidlib.experiments.setup import Runs
from reidlib.training.runs import Run


@pytest.fixture
def data(market, tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    return load("market1501", market)


@pytest.fixture
def run(data, tmp_path):
    return untrained_run(data, tmp_path / "runs", JLML)


def test_scores_are_computed_once_and_read_without_weights(data, run, monkeypatch):
    features = metric_study.embed(data, TrainedNetwork(run, QUIET))
    direct = dict(metric_study.score_metrics(features))
    results = score_run(run, data, execution=QUIET)
    assert list(results) == [L2, *LEARNT_METRICS] == ["L2", *METRICS]
    for name, content in results.items():
        assert not isinstance(direct[name], InputError) and not isinstance(content, InputError), name
        read = as_metric_scores(kept_scores(run, name))
        for kind in ("scores", "trapezoid"):
            expected, found = getattr(direct[name], kind), getattr(read, kind)
            assert (
                found.cmc == expected.cmc and found.mean_average_precision == expected.mean_average_precision
            )
            np.testing.assert_array_equal(found.average_precision, expected.average_precision)
            np.testing.assert_array_equal(found.first_match_rank, expected.first_match_rank)
        assert read.directions == direct[name].directions
    monkeypatch.setattr(kept, "embed", None)  # never again
    assert score_run(run, data, ["XQDA"], execution=QUIET) == {n: results[n] for n in (L2, "XQDA")}
    (run.folder / "weights.pt").unlink()
    assert score_run(Run(run.folder), data, execution=QUIET) == results


def test_only_what_is_missing_or_of_other_weights_is_computed(data, run, tmp_path):
    score_run(run, data, ["XQDA"], execution=QUIET)
    file = run.folder / "metrics" / "XQDA.json"
    os.utime(file, (1, 1))
    score_run(run, data, ["XQDA", "KISSME"], execution=QUIET)
    assert file.stat().st_mtime == 1 and kept_scores(run, "KISSME")
    content = json.loads(file.read_text())
    for damaged in (
        {"format": FORMAT + 1}, {"data": "other"}, {"metric": "CRAFT"}, {"network": "other"}, {"branches": {}}
    ):  # fmt: skip
        file.write_text(json.dumps(content | damaged))
        assert kept_scores(run, "XQDA") is None, damaged
    file.write_text("{")
    assert kept_scores(run, "XQDA") is None
    assert score_run(run, data, ["XQDA"], execution=QUIET)["XQDA"]["seconds"] >= 0
    assert json.loads(file.read_text())["branches"] == content["branches"]


def test_what_was_told_while_learning_is_kept_and_carried(data, run, tmp_path, recwarn):
    results = score_run(run, data, ["KISSME"], execution=QUIET)
    (note,) = results["KISSME"]["notes"]
    assert note.startswith("the covariance of similar pairs is singular: a ridge of") and not recwarn.list
    assert as_metric_scores(kept_scores(run, "KISSME")).notes == (note,)
    file = run.folder / "metrics" / "KISSME.json"
    older = {key: value for key, value in results["KISSME"].items() if key != "notes"}
    file.write_text(json.dumps(older))  # from before notes were kept
    assert as_metric_scores(kept_scores(run, "KISSME")).notes == ()
    made = write_metrics(write_run(tmp_path / "runs"), ["L2", "XQDA"])
    file = made.folder / "metrics" / "XQDA.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"notes": [note]}))
    assert evidence.add(made.folder, tmp_path / "evidence").added
    travelled = Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs["jlml", 0]
    assert [travelled.read(f"metrics/{n}.json").get("notes") for n in ("L2", "XQDA")] == [None, [note]]


def test_without_weights_or_pairs_there_is_a_reason_for_each_metric(data, run, monkeypatch):
    with pytest.raises(
        InputError, match=r"learnt metric is one of KISSME, XQDA.*got 'XQDB'; did you mean XQDA"
    ):
        score_run(run, data, ["XQDB"], execution=QUIET)

    def one_camera(benchmark, network):
        features = metric_study.embed(benchmark, network)
        training = features.training
        training = type(training)(training.features, training.person_ids, np.ones(len(training), int))
        return features._replace(training=training)

    with monkeypatch.context() as context:
        context.setattr(kept, "embed", one_camera)
        results = score_run(run, data, ["XQDA"], execution=QUIET)
    assert isinstance(results[L2], dict) and "at least two cameras" in str(results["XQDA"])
    (run.folder / "weights.pt").unlink()
    results = score_run(Run(run.folder), data, ["XQDA"], execution=QUIET)
    assert isinstance(results[L2], dict) and "needs the run's weights" in str(results["XQDA"])


def test_the_command_keeps_scores_and_says_what_has_none(data, run, market, capsys):
    words = ["evaluate", str(run.folder), "--data-root", str(market), "--device", "cpu", "--metrics"]
    assert main([*words, "KISSME,XQDA"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["L2", "KISSME", "XQDA"]
    content = kept_scores(run, "KISSME")
    assert f"R1 {100 * content['branches']['full']['step']['cmc']['1']:.1f}, mAP " in lines[1]
    assert not (run.folder / "scores.json").exists()  # the run's own scores are another command
    (run.folder / "weights.pt").unlink()
    assert main([*words, "all"]) == 1
    assert "needs the run's weights" in capsys.readouterr().out.splitlines()[-1]
    for wrong in (["XQDB"], ["XQDA", "--distractors"], ["all", "--benchmark", "viper"], [""]):
        assert main([*words, *wrong]) == 2, wrong
        (line,) = capsys.readouterr().err.splitlines()
        assert "--metrics" in line


def test_scores_by_metrics_come_from_evidence(tmp_path):
    run = write_metrics(write_run(tmp_path / "runs"), ["L2", "XQDA"])
    earlier = tmp_path / "evidence" / f"quick-{BENCHMARK}"
    bare = write_run(tmp_path / "bare")
    assert evidence.add(bare.folder, tmp_path / "evidence").added
    assert evidence.add(run.folder, tmp_path / "evidence").added  # the same run with more files
    assert not evidence.add(run.folder, tmp_path / "evidence").added
    assert len((earlier / "jlml.jsonl").read_text().splitlines()) == 2
    travelled = Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs["jlml", 0]
    assert travelled.configuration["data"] == DATA
    cells = [Cell("jlml", metric=name) for name in ("L2", "XQDA")]
    pairs = [
        ExperimentScores(Runs({"jlml": (each,)}, 1)).pairs([cells[0]], [cells[1]], "mAP (trapezoid)")
        for each in (run, travelled)
    ]
    np.testing.assert_allclose(pairs[0].sums_sp, pairs[1].sums_sp, rtol=1e-5, atol=1e-4)
    assert ExperimentScores(Runs({"jlml": (travelled,)}, 1)).branch_scores(Cell("jlml", metric="CRAFT")) == [
        None
    ]
