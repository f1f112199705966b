"""`reidlib plan`: a table of seeds and minutes on a terminal, and its refusals."""

import re

import pytest
from rows_with_scores import BENCHMARK, write_run

from reidlib import files
from reidlib.analysis.claims import CLAIMS
from reidlib.cli import main
from reidlib.experiments import evidence
from reidlib.reports import processes

OPEN = [claim for claim in CLAIMS if claim.contrasts]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, beside the evidence of the clone; two pieces of work run at a time."""
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path))
    monkeypatch.setattr(processes, "_cores", lambda: 2)
    return tmp_path


def lines_of(capsys, *words):
    assert main(["plan", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_clones_evidence_gives_a_plan_of_every_claim(home, capsys):
    lines = lines_of(capsys)
    assert max(map(len, lines)) <= 100
    for claim in OPEN:
        assert any(re.match(rf"{claim.name} +[✓✗=?] ", line) for line in lines), claim.name
    text = " ".join(" ".join(lines).split())
    assert "2 at a time; durations are another machine's" in text and "0 runs of this machine" in text
    assert re.search(r"no experiment: classification without pairs, small for", text)
    assert "state of the art (8 tables)" in text and "undecided, shared rows once" in text
    assert not list(home.iterdir())  # nothing is rendered, and nothing written


def test_one_claim_and_its_effect(home, capsys):
    lines = lines_of(capsys, "selective feature learning", "--effect", "2.5", "--power", "0.9")
    assert "for 90 % power" in lines[0] and any("2.5 points" in line for line in lines)
    assert sum(bool(re.match(r"[\w ]+ [✓✗=?] ", line)) for line in lines) == 1
    assert not any("together" in line for line in lines)


def test_minutes_are_of_what_is_missing_at_this_machines_durations(tmp_path, monkeypatch, home, capsys):
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "evidence")
    for row, seconds in (("jlml", 600), ("jlml-sfl-off", 60)):
        for seed in range(3):
            run = write_run(tmp_path / "made", row, seed)
            text = (
                (run.folder / "run.json")
                .read_text()
                .replace("9.5", str(seconds))
                .replace('"cpu"', '"cpu, x"')
            )
            (run.folder / "run.json").write_text(text)
            if row == "jlml":
                evidence.add(run.folder)
            else:
                name = run.folder.name.rpartition("-")[2]
                target = tmp_path / "runs" / f"{row}-quick-{files.safe_name(BENCHMARK)}-seed{seed}-{name}"
                target.parent.mkdir(exist_ok=True)
                run.folder.rename(target)
    words = ["selective feature learning", "--benchmark", BENCHMARK, "--runs", str(tmp_path / "runs")]
    lines = lines_of(capsys, *words, "--effect", "30")
    assert "from 3 runs of this machine, 3 of reports/evidence" in lines[0]
    text = " ".join(" ".join(lines).split())
    assert "durations of 1 row are another machine's, from reports/evidence (cpu, x)" in text
    (line,) = (line for line in lines if line.startswith("selective"))
    seeds, minutes = line.split()[-4:-2]
    assert int(minutes) == round((int(seeds) - 3) * (600 + 60) / 60 / 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["small for its strength"],
            "claim that has an experiment; got 'small for its strength': no general-purpose",
        ),
        (["four part"], "got 'four part'; did you mean four parts"),
        (["--effect", "0"], "a number of points above zero.*not '0'"),
        (["--effect", "-1"], "a number of points above zero.*not '-1'"),
        (["--effect", "nan"], "above zero.*not 'nan'"),
        (["--power", "80"], "a share between 0 and 1.*not '80'"),
        (["--profile", "smoke"], "can decide a claim; got the profile smoke"),
        (["--profile", "full"], "made from finished runs.*got none of full on synthetic"),
        (["--benchmark", "nothing"], "nothing"),
    ],
)
def test_bad_input_gets_one_line(home, capsys, words, message):
    try:
        status = main(["plan", *words])
    except SystemExit as stop:  # the parser's
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and re.search(message, error) and error.count("\n") == 1


def test_one_seed_is_said_to_tell_nothing(tmp_path, monkeypatch, home, capsys):
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "evidence")
    for row in ("jlml", "jlml-uniloss"):
        evidence.add(write_run(tmp_path / "made", row).folder)
    text = " ".join(lines_of(capsys, "--benchmark", BENCHMARK))
    assert re.search(r"branch independence: one seed: how much trainings\s+differ is not known", text)
    assert "dynamic training: no seed has all rows of" in text
    assert "relaxed alignment: boxes can be made worse" in text
