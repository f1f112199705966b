"""Finished runs of this machine and of the evidence, found without images."""

import pytest
from rows_with_scores import BENCHMARK, DATA, write_run

from reidlib import files
from reidlib.errors import InputError
from reidlib.experiments import Setup, evidence
from reidlib.experiments.evidence.finished import FAILED, Finished, images_at_hand
from reidlib.experiments.rows import Perturbation
from reidlib.experiments.setup import MissingRun
from reidlib.training.runs import Run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty home; evidence of the rows that a test adds goes into its folder."""
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "evidence")
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    return tmp_path


def read(folder, **keywords):
    return Finished.read(Setup("quick", BENCHMARK, runs=folder / "runs"), **keywords)


def test_runs_of_this_machine_come_before_those_of_the_evidence(folder):
    for seed in (0, 1):
        evidence.add(write_run(folder / "elsewhere", "jlml", seed).folder)
    own = write_run(folder / "runs", "jlml", 1, draw=7)
    write_run(folder / "runs", "jlml-2", 3)
    finished = read(folder)
    runs = finished.gather(["jlml", "jlml-2"], 4)
    assert [type(run) for run in runs.runs["jlml"]] == [
        evidence.EvidenceRun, Run, MissingRun, MissingRun,
    ]  # fmt: skip
    assert runs.runs["jlml"][1].folder == own.folder and finished.data == DATA
    assert finished.seeds("jlml") == {0, 1} and finished.seeds("jlml-2") == {3}
    assert finished.sources(runs) == "2 runs of this machine, 1 of reports/evidence"
    assert runs.missing[0] == MissingRun("not trained", "jlml", 2)
    alone = read(folder, evidence_alone=True)
    assert (
        alone.sources(alone.gather(["jlml", "jlml-2"], 4)) == "0 runs of this machine, 2 of reports/evidence"
    )


def test_runs_that_are_not_the_rows_are_left_out(folder):
    write_run(folder / "runs", "jlml", 0, settings={"recipe.epochs": "5"})
    write_run(folder / "runs", "jlml", 1, benchmark="market1501")
    (write_run(folder / "runs", "jlml", 2).folder / "run.json").unlink()  # unfinished
    (write_run(folder / "runs", "jlml", 3).folder / "scores.json").unlink()
    (write_run(folder / "runs", "jlml", 4).folder / "scores.json").write_text("{")
    write_run(folder / "runs", "jlml", 5)
    assert read(folder).own.keys() == {("jlml", 5)}


def test_runs_of_other_images_are_not_mixed(folder):
    evidence.add(write_run(folder / "elsewhere", "jlml", 0).folder)
    write_run(folder / "runs", "jlml-2", 0, data="f" * 16)
    finished = read(folder)
    assert finished.data == DATA and not finished.own and len(finished.kept) == 1
    assert finished.notes[-1].startswith("1 run not used: of other images, in ")


@pytest.mark.parametrize("before", ["0" * 16, "f" * 16])  # its folder's name is before, and after
def test_a_run_of_the_images_before_hides_no_other(folder, before):
    evidence.add(write_run(folder / "elsewhere", "jlml", 1).folder)
    here = write_run(folder / "runs", "jlml", 0)
    write_run(folder / "runs", "jlml", 0, data=before)
    finished = read(folder)
    assert finished.own["jlml", 0].folder == here.folder and len(finished.own) == 1
    assert finished.notes[-1].startswith("1 run not used: of other images, in ")


def test_the_images_at_hand_say_which_evidence_serves(folder, market):
    evidence.add(write_run(folder / "elsewhere", "jlml", 0, benchmark="market1501").folder)
    setup = Setup("quick", "market1501", market, runs=folder / "runs")
    assert images_at_hand(setup) and not images_at_hand(Setup("quick", "market1501"))
    write_run(folder / "runs", "jlml", 1, benchmark="market1501", data=setup.data.fingerprint)
    finished = Finished.read(setup)
    assert finished.own.keys() == {("jlml", 1)} and not finished.kept
    assert "the evidence is not used: it is of other images" in finished.notes[0]
    assert not images_at_hand(Setup("quick"))  # not rendered yet


def test_a_failed_training_says_why(folder):
    run = write_run(folder / "runs", "jlml", 0)
    write_run(folder / "runs", "jlml", 1)
    (run.folder / "run.json").unlink()
    (run.folder / "failure.txt").write_text("FloatingPointError: NaN at step 7")
    missing, there = read(folder).gather(["jlml"], 2).runs["jlml"]
    assert missing == MissingRun(f"{FAILED}FloatingPointError: NaN at step 7", "jlml", 0)
    assert isinstance(there, Run)


def test_a_run_with_scores_under_perturbations_is_preferred(folder, monkeypatch):
    evidence.add(write_run(folder / "elsewhere", "jlml", 0).folder)
    write_run(folder / "runs", "jlml", 0)
    finished = read(folder)
    under = [Perturbation("box_jitter", 0.24)]
    assert type(finished.run("jlml", 0)) is Run
    monkeypatch.setattr(
        "reidlib.experiments.perturbations.stored_scores",
        lambda run, perturbation: {} if isinstance(run, evidence.EvidenceRun) else None,
    )
    assert type(finished.run("jlml", 0, under)) is Run  # neither has any
    monkeypatch.setattr(
        "reidlib.experiments.perturbations.stored_scores",
        lambda run, perturbation: {"x": 1} if isinstance(run, evidence.EvidenceRun) else None,
    )
    assert isinstance(finished.run("jlml", 0, under), evidence.EvidenceRun)


def test_damaged_evidence_is_told(folder):
    file = evidence.set_folder("quick", BENCHMARK) / "jlml.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(InputError, match=r"jlml\.jsonl, line 1"):
        read(folder)
