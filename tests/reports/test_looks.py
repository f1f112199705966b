"""`reidlib reproduce --until-decided`: which runs are trained, in which order, and what its options mean."""

import contextlib
import json
import re
from pathlib import Path

import pytest
from rows_with_scores import write_metrics, write_run

from reidlib import files
from reidlib.analysis.claims import required_experiments, sequential
from reidlib.analysis.claims.sequential import Look
from reidlib.cli import main
from reidlib.errors import InputError
from reidlib.experiments import Setup, evidence
from reidlib.experiments.evidence import Evidence
from reidlib.experiments.rows import PROFILES, Profile
from reidlib.reports import looks, reproduce
from reidlib.reports.looks import train_until_decided
from reidlib.reports.tasks import METRIC_TASK
from reidlib.training.runs import Run

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "90_claims.ipynb"
ROWS = required_experiments()[0]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "evidence")
    return tmp_path


@pytest.fixture
def trained(home, market, monkeypatch):
    """Lists of the (row, seed) of each look that are trained; a training writes random scores.

    Those in ``trained.fail`` fail. After ``trained.interrupt`` trainings, Ctrl-C is pressed.
    """

    class Trained(list):
        fail, interrupt, clusters = (), None, ()

        @property
        def all(self):
            return [each for of_look in self for each in of_look]

    trained = Trained()

    def run_tasks(make_tasks, out, *, jobs, device, memory, cluster):
        trained.append([])
        trained.clusters += (cluster,)
        states = {}
        for task in make_tasks():
            if task.kind == "perturbed":
                continue
            if task.kind == METRIC_TASK:
                setup, row, seed, metrics, _ = task.arguments
                for run in setup.runs.glob(f"{row}-{seed}-*"):
                    write_metrics(Run(run), ("L2", *metrics), draw=50 * seed)
                continue
            setup, row, seed = task.arguments
            if trained.interrupt is not None and sum(map(len, trained)) == trained.interrupt:
                raise KeyboardInterrupt("interrupted")
            trained[-1].append((row, seed))
            states[task.name] = "failed" if (row, seed) in trained.fail else "done"
            if states[task.name] == "done":
                write_run(setup.runs, row, seed, benchmark="market1501", data=setup.data.fingerprint)
        return states

    monkeypatch.setattr(looks, "run_tasks", run_tasks)
    trained.setup = Setup("quick", "market1501", market, runs=home / "runs", device="cpu", progress=False)
    return trained


def train(trained, **keywords):
    out = trained.setup.runs.parent / "out"
    return train_until_decided(NOTEBOOK, trained.setup, out, prepare=lambda: None, **keywords)


def test_all_looks_of_a_new_machine(trained, capsys):
    assert train(trained) == []
    assert trained[0] == [(row, seed) for seed in range(3) for row in ROWS]
    assert {seed for _, seed in trained[1]} == {3, 4} and {seed for _, seed in trained[2]} == {*range(5, 10)}
    assert len(trained) == 3 and len(set(trained.all)) == sum(map(len, trained))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{sum(map(len, trained))} runs of this machine, 0 of reports/evidence"
    assert any(re.fullmatch(r"\? two losses: undecided here \(look 3 of 3, 98 %\)", line) for line in lines)
    assert not any("relaxed alignment" in line for line in lines)  # nothing is rendered of photographs
    assert train(trained) == [] and len(trained) == 3  # the same command again


def test_what_was_interrupted_is_not_trained_twice(trained):
    for number in (10, 50):
        trained.interrupt = number
        with pytest.raises(KeyboardInterrupt):
            train(trained)
    trained.interrupt = None
    assert train(trained) == []
    everything = trained.all
    assert len(everything) == len(set(everything))


def test_where_a_training_fails_the_others_go_on(trained, capsys):
    trained.fail = (("pyramid-identity", 1),)
    assert train(trained) == ["pyramid-identity-quick-market1501-seed1"]
    everything = trained.all
    assert everything.count(("pyramid-identity", 1)) == 1 and ("pyramid-identity", 3) not in everything
    assert ("pyramid-off", 9) in everything
    text = capsys.readouterr().out
    assert (
        "? two losses: undecided here (look 1 of 3, 99.75 %); "
        "look 1 of 3 waits for seed 1 of pyramid-identity" in text
    )


def test_evidence_counts_as_finished(trained, monkeypatch):
    for row in ROWS:
        for seed in range(10):
            made = trained.setup.runs.parent / "made"
            run = write_run(made, row, seed, benchmark="market1501", data=trained.setup.data.fingerprint)
            if row == "jlml":
                write_metrics(run, draw=50 * seed)
            if (row, seed) not in (("jlml-8", 1), ("pyramid", 7)):
                evidence.add(run.folder)
    assert train(trained) == []
    assert trained.all == [("jlml-8", 1), ("pyramid", 7)]


def test_evidence_of_other_images_does_not_count(trained, capsys, caplog):
    for row in ROWS:
        evidence.add(write_run(trained.setup.runs.parent / "made", row, benchmark="market1501").folder)
    caplog.set_level("INFO", "reidlib")
    train(trained)
    assert (ROWS[0], 0) in trained[0]
    first, second = (record.getMessage() for record in caplog.records[:2])
    assert "it is of other images" in first and "the next look is at 3 seeds of 15 rows" in second  # in time
    assert caplog.text.count("it is of other images") == 1


def test_a_cluster_is_connected_anew_for_each_look(trained):
    made = iter("abc")
    train(trained, cluster=lambda: contextlib.nullcontext(next(made)))
    assert [pool.enter_result for pool in trained.clusters] == ["a", "b", "c"]


def test_without_training_nothing_is_trained(trained, capsys):
    object.__setattr__(trained.setup, "may_train", False)
    assert train(trained) == [] and trained == []
    assert "waits for seeds 0, 1, 2 of" in capsys.readouterr().out
    object.__setattr__(trained.setup, "may_train", True)
    assert train(trained, evidence_alone=True) == [] and trained == []


def test_images_are_needed_only_for_trainings(home, monkeypatch):
    setup = Setup("quick", "market1501,validation=true", runs=home / "runs")
    assert train_until_decided(NOTEBOOK, setup, home, prepare=lambda: None, evidence_alone=True) == []
    with pytest.raises(InputError, match="read from a folder"):
        train_until_decided(NOTEBOOK, setup, home, prepare=lambda: None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--profile", "smoke"], "can decide a claim; got the profile smoke"),
        (["--seeds", "3"], "chooses the number of seeds; got --seeds 3; leave one of the two out"),
        (["20"], "makes notebook 90, the ledger; got 20_train_jlml; leave the numbers out"),
        (["90", "30"], "makes notebook 90"),
        (["--evidence", "--summary"], "ledger of all seeds.*got --until-decided; leave --summary out"),
        (["--evidence", "--scheduler", "tcp://x:1"], "got --scheduler"),
        (["--evidence", "--profile", "full"], "holds runs; got none in"),
        (["--folder", "grid=x"], "grid"),
        (["--suite", "all"], "how much of notebook 40 is made; got 90_claims; give 40"),
    ],
)
def test_what_contradicts_is_refused_before_work(home, capsys, words, message):
    assert main(["reproduce", "--until-decided", *words, "--out", str(home / "out")]) == 2
    assert re.search(message, capsys.readouterr().err) and not (home / "out").exists()


@pytest.mark.parametrize("words", [[], ["--no-train"], ["--evidence"], ["--scheduler", "tcp://h:1"]])
def test_the_ledger_is_made_after_the_trainings(home, monkeypatch, capsys, words):
    """What the notebook gets, and the exit status if a training failed."""
    given = {}

    def train(notebook, setup, out, **keywords):
        given.update(keywords, notebook=notebook, setup=setup, cluster=keywords["cluster"]())
        return ["a task"]

    def run(plan, *, prepare, cluster):
        given.update(plan=plan, tasks=prepare(()), second=cluster)
        return reproduce.Outcome(("90_claims",), (), (), ())

    monkeypatch.setattr(looks, "train_until_decided", train)
    monkeypatch.setattr(reproduce, "reproduce", run)
    monkeypatch.setattr("reidlib.reports.cluster.dask_pool", lambda address, **more: object())
    for row in ("jlml", "jlml-2") if "--evidence" in words else ():
        evidence.add(write_run(home / "made", row, benchmark="synthetic").folder)
    assert main(["reproduce", "--until-decided", *words]) == 1
    plan = given["plan"]
    assert [path.stem for path in plan.notebooks] == ["90_claims"] == [given["notebook"].stem]
    assert plan.parameters.get("until_decided") is True and plan.neutral_parameters == {"may_train": False}
    assert given["tasks"] == []
    assert given["setup"].may_train == ("--no-train" not in words)
    assert given["evidence_alone"] == ("--evidence" in words) == bool(plan.parameters.get("evidence"))
    assert ("runs" in plan.inputs) == ("--evidence" not in words)
    different = given["cluster"] is not given["second"]
    assert different if "--scheduler" in words else given["cluster"] is given["second"] is None


def execute(**given):
    """Run the notebook's code cells with parameters in place of those of its parameters cell."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    codes = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    namespace = {}
    exec(codes[0], namespace)  # the parameters
    for number, code in enumerate(codes[1:]):
        exec(code, namespace := namespace | (given if not number else {}))
    return json.loads((Path(given["out"]) / "result.json").read_text())


def test_the_notebook_shows_each_claims_look(tmp_path):
    """From the evidence of the clone."""
    result = execute(evidence=True, until_decided=True, out=str(tmp_path / "out"))
    column = "measured (points, intervals of the look), rendered people"
    seeds = {seed for _, seed in Evidence.read("quick", "synthetic").runs}
    for line in result["ledger"]:
        verdict = line["verdict, rendered people"]
        assert "no experiment" in verdict or "at look " in verdict, verdict
        assert "waits for" not in verdict  # every row has ten seeds
        assert column in line
    # Of learnt metrics the first three seeds have no scores: that claim's looks are at 3 to 12.
    used = range(3 + sequential.LOOKS[-1].seeds)
    assert set(used) <= seeds and result["seeds"] == list(used)
    assert all("missing" not in run for run in result["runs"])


def test_small_trainings_until_two_looks(home, monkeypatch, capsys):
    """The real way, with trainings of the profile smoke and two looks at one claim."""
    (claim,) = [claim for claim in sequential.CLAIMS if claim.name == "shared low-level features"]
    monkeypatch.setitem(PROFILES, "quick", Profile("quick", "smoke", PROFILES["smoke"].sizes))
    monkeypatch.setattr(sequential, "LOOKS", (Look(2, 0.01), Look(3, 0.04)))
    monkeypatch.setattr(sequential, "required_experiments", lambda: required_experiments([claim]))
    for module in (sequential, looks):
        monkeypatch.setattr(module, "CLAIMS", (claim,))
    defaults = ((claim,), *sequential.until_decided.__defaults__[1:])
    monkeypatch.setattr(sequential.until_decided, "__defaults__", defaults)
    done = []

    def run_tasks(make_tasks, out, **keywords):
        for task in make_tasks():
            done.append(task.name)
            task.function(*task.arguments)
        return dict.fromkeys(done, "done")

    monkeypatch.setattr(looks, "run_tasks", run_tasks)
    setup = Setup("quick", runs=home / "runs", device="cpu", progress=False)
    for _ in range(2):
        assert train_until_decided(NOTEBOOK, setup, home, prepare=lambda: setup.data) == []
        assert sorted(name for name in done if METRIC_TASK not in name) == [
            f"{row}-quick-synthetic-seed{n}" for row in claim_rows(claim) for n in range(3)
        ]
    assert "look 2 of 2, 96 %" in capsys.readouterr().out


def claim_rows(claim):
    return sorted({cell.experiment for cell in claim.cells})


def test_seeds_and_looks_exclude_each_other_in_the_notebook_too(home):
    with pytest.raises(InputError, match="looks choose the number of seeds; got seeds 3"):
        sequential.gather_until_decided(Setup("quick", seeds=3))
    with pytest.raises(InputError, match="got the profile smoke"):
        sequential.gather_until_decided(Setup("smoke"))
