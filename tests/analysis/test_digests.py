"""The digest of a claim's test: what changes it, and of which runs the ledger says that they are older."""

import re
from dataclasses import replace

import pytest
from rows_with_scores import BENCHMARK, write_run

from reidlib import files
from reidlib.analysis import ExperimentScores, claims
from reidlib.analysis.claims import CLAIMS, Claim, Contrast, digests
from reidlib.analysis.scores import Cell
from reidlib.cli import main
from reidlib.experiments import evidence
from reidlib.experiments.evidence import Evidence
from reidlib.experiments.rows import Perturbation

FOUR, TWO, SIX = Cell("jlml"), Cell("jlml-2"), Cell("jlml-6")
ABOVE, ALSO = Contrast("4 − 2", (FOUR,), (TWO,)), Contrast("4 − 6", (FOUR,), (SIX,))
CLAIM = Claim("parts", "JLML", "Four are best.", "33_ablation_part_counts", "4 above 2 and 6", (ABOVE, ALSO))


def test_words_and_orders_do_not_change_a_digest():
    twice = Contrast("x", (FOUR, SIX), (TWO, TWO))
    for same, other in (
        (CLAIM, replace(CLAIM, contrasts=(ABOVE._replace(label="other words", printed=4.0), ALSO))),
        (CLAIM, replace(CLAIM, name="b", statement="c", notebook="", test="d", known_results="e")),
        (CLAIM, replace(CLAIM, contrasts=(ALSO, ABOVE))),
        (replace(CLAIM, contrasts=(twice,)), replace(CLAIM, contrasts=(twice._replace(plus=(SIX, FOUR)),))),
    ):
        assert claims.digest(same) == claims.digest(other)
    assert re.fullmatch("[0-9a-f]{12}", claims.digest(CLAIM))


def test_what_decides_changes_a_digest(monkeypatch):
    perturbed = [TWO._replace(perturbation=Perturbation("box_jitter", value)) for value in (0.12, 0.24)]
    others = [
        replace(CLAIM, paper="Pyramid"),  # another measure
        replace(CLAIM, contrasts=(ABOVE,)),
        replace(CLAIM, contrasts=(ABOVE, ALSO._replace(relative=True))),
        *(
            replace(CLAIM, contrasts=(Contrast("a", shares, (TWO, TWO), relative=True),))
            for shares in ((FOUR, SIX), (SIX, FOUR))
        ),
        replace(CLAIM, contrasts=(ABOVE, Contrast("2 − 4", (SIX,), (FOUR,)))),  # another sign
        replace(CLAIM, contrasts=(ABOVE, Contrast("a", (FOUR,), (SIX._replace(branch="global"),)))),
        *(replace(CLAIM, contrasts=(ABOVE, Contrast("a", (FOUR,), (cell,)))) for cell in perturbed),
        replace(CLAIM, contrasts=(ABOVE, Contrast("a", (FOUR,), (SIX._replace(metric="XQDA"),)))),
    ]
    found = [claims.digest(CLAIM), *map(claims.digest, others)]
    for name, value in (("VERSION", 99), ("SMALLEST_DIFFERENCE", 0.4), ("LEVEL", 0.9)):
        with monkeypatch.context() as context:
            context.setattr(digests, name, value)
            found.append(claims.digest(CLAIM))
    assert len(set(found)) == len(found)
    assert len({claims.digest(claim) for claim in CLAIMS if claim.contrasts}) == sum(
        bool(claim.contrasts) for claim in CLAIMS
    )


def test_each_row_has_the_digests_of_the_claims_that_compare_it():
    rows = claims.digests_by_row([CLAIM, replace(CLAIM, name="two", contrasts=(ABOVE,))])
    assert {row: list(tests) for row, tests in rows.items()} == {
        "jlml": ["parts", "two"], "jlml-2": ["parts", "two"], "jlml-6": ["parts"],
    }  # fmt: skip
    assert set(claims.digests_by_row()) == set(claims.required_experiments()[0])


@pytest.fixture
def kept(tmp_path):
    """Seed 0 without digests, 1 with those of an earlier test, 2 and 3 with today's, 3 without a row."""
    earlier = claims.digests_by_row([replace(CLAIM, contrasts=(ABOVE,))])
    tests = [None, earlier | {"jlml-6": {}}, *2 * [claims.digests_by_row([CLAIM])]]
    for seed, of_seed in enumerate(tests):
        for row in ("jlml", "jlml-2", "jlml-6"):
            if (row, seed) != ("jlml-6", 3):
                run = write_run(tmp_path / "runs", row, seed)
                assert evidence.add(run.folder, tmp_path / "evidence", of_seed).added
    return Evidence.read("quick", BENCHMARK, tmp_path / "evidence")


def test_seeds_whose_runs_are_older_are_counted_with_the_reason(kept, tmp_path):
    scores = ExperimentScores(kept.gather(["jlml", "jlml-2", "jlml-6"]))
    # Seed 3 counts, because one of the two differences uses it.
    assert claims.older_seeds(CLAIM, scores, kept) == "2 of 4 (1 no digest, 1 test is newer)"
    renamed = replace(CLAIM, name="other", contrasts=(ALSO._replace(label="x"), ABOVE))
    assert claims.older_seeds(renamed, scores, kept) == "2 of 4 (1 no digest, 1 test is newer)"
    later = replace(CLAIM, contrasts=(ALSO,))
    assert claims.older_seeds(later, scores, kept) == "3 of 3 (1 no digest, 2 test is newer)"
    assert claims.older_seeds(replace(CLAIM, contrasts=()), scores, kept) == "–"
    assert claims.older_seeds(replace(CLAIM, contrasts=(ABOVE,)), scores, kept) == (
        "3 of 4 (1 no digest, 2 test is newer)"
    )
    # The runs themselves have no digest, but their lines of evidence have.
    runs = {
        row: tuple(write_run(tmp_path / "again", row, seed) for seed in (2, 7))
        for row in ("jlml", "jlml-2", "jlml-6")
    }
    machine = ExperimentScores(replace(scores.runs, runs=runs, seeds=2))
    assert claims.older_seeds(CLAIM, machine, kept) == "1 of 2 (no digest)"


def test_the_ledger_tells_of_older_runs(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "evidence")
    monkeypatch.setattr(digests, "CLAIMS", (CLAIM,))
    scores = ExperimentScores(kept.gather(["jlml", "jlml-2", "jlml-6"]))
    other = ExperimentScores(replace(scores.runs, benchmark="synthetic"))  # no evidence of it
    sets = {"photographs": scores, "rendered people": other}
    older = claims.older_than_tests(sets)
    assert older == {"photographs": {"parts": "2 of 4 (1 no digest, 1 test is newer)"}}
    verdicts = {name: [claims.decide(CLAIM, each)] for name, each in sets.items()}
    (line,) = claims.ledger(verdicts, older).to_dict("records")
    column = "seeds added before the test (photographs; rendered people)"
    assert line[column] == "2 of 4 (1 no digest, 1 test is newer); –"
    (line,) = claims.ledger({"photographs": verdicts["photographs"]}, older).to_dict("records")
    assert line["seeds added before the test"] == "2 of 4 (1 no digest, 1 test is newer)"
    assert not any("older" in column for column in claims.ledger(verdicts))


def test_the_command_keeps_the_digests_of_today(tmp_path):
    write_run(tmp_path / "runs", "jlml-10")
    assert main(["evidence", "add", str(tmp_path / "runs"), "--to", str(tmp_path / "evidence")]) == 0
    (four,) = [claim for claim in CLAIMS if claim.name == "four parts"]
    read = Evidence.read("quick", BENCHMARK, tmp_path / "evidence")
    assert read.runs["jlml-10", 0].tests == {"four parts": claims.digest(four)}
