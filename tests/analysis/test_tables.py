"""``reidlib tables``: numbers of the CSV files are those of the ledger, and LaTeX can read the others."""

import contextlib
import re
from pathlib import Path

import pandas as pd
import pytest
from rows_with_scores import BENCHMARK, write_run

from reidlib import files
from reidlib.analysis import Cell, ExperimentScores, claims
from reidlib.analysis.tables import latex_text, write_tables
from reidlib.cli import main
from reidlib.errors import InputError
from reidlib.experiments import evidence
from reidlib.experiments.evidence import BY_PERSON, NAMES, Evidence

ENDS = ["mean", "low end of 95 %", "high end of 95 %"]
# The only other letters than ASCII's that the standard fonts have by their names here.
READABLE = set("éöüä")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The files of the evidence in git."""
    folder = tmp_path_factory.mktemp("tables") / "new" / "folder"
    assert main(["tables", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def sets():
    names, _ = claims.required_experiments()
    kept = [Evidence.read("quick", benchmark) for benchmark in NAMES]
    return {each.name: ExperimentScores(each.gather([*names, *each.rows])) for each in kept}


def numbers(path):
    table = pd.read_csv(path, dtype=str)
    for name, column in table.items():
        with contextlib.suppress(ValueError):  # a column of text
            table[name] = column.map(float, na_action="ignore")
    return table


def test_the_files(written):
    sets = ("rendered-people", "photographs")
    names = {
        "ledger",
        "agreement",
        *(f"{kind}-{name}" for kind in ("scores", "differences") for name in sets),
    }
    assert {path.name for path in written.iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("csv", "tex")
    }


def test_the_ledger_has_each_claim_on_each_set(written, sets):
    table = numbers(written / "ledger.csv")
    expected = [
        (name, claim.name, verdict.outcome, verdict.reason)
        for name, scores in sets.items()
        for claim in claims.CLAIMS
        for verdict in [claims.decide(claim, scores)]
    ]
    columns = ["benchmark", "claim", "outcome", "reason"]
    assert [*table[columns].itertuples(index=False, name=None)] == expected
    older = claims.older_than_tests(sets)
    for line in table.to_dict("records"):
        claim = next(claim for claim in claims.CLAIMS if claim.name == line["claim"])
        if line["outcome"] == claims.NO_EXPERIMENT:
            assert pd.isna(line["seeds added before the test"])
        else:
            assert line["seeds added before the test"] == older[line["benchmark"]][claim.name]
            assert line["digest of the test"] == claims.digest(claim)
    assert set(table["set"]) == {
        "400 test persons of the embedded benchmark (rendered people)",
        "Market-1501, 500 training / 251 validation persons",
    }


@pytest.mark.parametrize("name", NAMES.values())
def test_differences_are_those_of_the_ledger_in_full_precision(written, sets, name):
    table = numbers(written / f"differences-{name.replace(' ', '-')}.csv").set_index(["claim", "difference"])
    count = 0
    for claim in claims.CLAIMS:
        for label, interval in claims.decide(claim, sets[name]).intervals.items():
            line, count = table.loc[(claim.name, label)], count + 1
            assert [line[f"{end} (points)"] for end in ENDS] == [*interval[:3]]
            assert line["standard error (points)"] == interval.error
            assert [line[key] for key in ("degrees of freedom", "seeds", "persons", "queries")] == [
                interval.freedom, interval.seeds, interval.persons, interval.queries,
            ]  # fmt: skip
            if interval.seeds < 6:
                assert pd.isna(line["two-sided p by signs of seeds"])
            else:
                assert 0 < line["two-sided p by signs of seeds"] <= 1
    assert count == len(table)


@pytest.mark.parametrize("name", NAMES.values())
def test_scores_are_those_of_every_row_and_feature(written, sets, name):
    table = numbers(written / f"scores-{name.replace(' ', '-')}.csv")
    chosen = table.groupby("row").head(12)  # the first two features
    assert set(table["row"]) == set(sets[name].runs.runs) and set(table["measure"]) == set(BY_PERSON)
    for line in chosen.to_dict("records"):
        interval = sets[name].difference([Cell(line["row"], line["feature"])], [], line["measure"])
        assert [line[f"{end} (per cent)"] for end in ENDS] == [*interval[:3]], line
        assert (line["seeds"], line["queries"]) == (interval.seeds, interval.queries)
    printed = (written / f"scores-{name.replace(' ', '-')}.tex").read_text(encoding="utf-8")
    text = claims.score_text(sets[name], Cell("jlml"), "mAP (trapezoid)", note=False)
    assert latex_text(text) in printed


def test_the_agreement_is_that_of_the_notebook(written, sets):
    table = numbers(written / "agreement.csv")
    pairs = claims.agreement(*sets.values())
    assert [*table["difference"]] == [pair.label for pair in pairs]
    assert [*table["first mean (points)"]] == [pair.first.mean for pair in pairs]
    assert [*table["second high end of 95 % (points)"]] == [pair.second.high for pair in pairs]


def rows_of(text):
    """Rows of a longtable's body as lists of cells."""
    body = text.partition("\\endlastfoot\n")[2].partition("\\end{longtable}")[0]
    return [re.split(r"(?<!\\)&", row) for row in body.split("\\\\\n") if row.strip()]


def test_latex_can_read_each_file(written):
    for path in written.glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        comments, code = text.splitlines()[:2], "\n".join(text.splitlines()[2:])
        assert all(line.startswith("% ") for line in comments) and "reidlib tables " in comments[0]
        assert set(re.findall(r"\\begin\{(\w+)\}", code)) == {"longtable"} and code.count("\\begin") == 1
        assert code.count("\\end{longtable}") == 1
        bare = re.sub(r"\\[\\{}$&%#_]", "", code)  # without what is escaped
        assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0, path.name
        depth = 0
        for letter in bare:
            depth += {"{": 1, "}": -1}.get(letter, 0)
            assert depth >= 0
        assert not re.search('[%#_^~"]', bare.replace("\\textasciitilde{}", "")), path.name
        strange = {letter for letter in code if not letter.isascii()} - READABLE
        assert not strange, (path.name, strange)
        layout = re.search(r"\\begin\{longtable\}\{(.*)\}\n", code)[1]
        columns = len(re.findall(r"[lrp]", re.sub(r">\{[^}]*\}|\{[^}]*\}", "", layout)))
        rows = rows_of(code)
        assert rows and {len(row) for row in rows} == {columns}, path.name
        assert not any(row[0].lstrip().startswith("[") for row in rows)
        for rule in ("\\toprule", "\\midrule", "\\bottomrule", "\\caption{", "\\label{tab:"):
            assert rule in code, (path.name, rule)


def test_captions_name_set_split_protocol_profile_seeds_and_commit(written):
    for path in written.glob("*.tex"):
        caption = re.search(r"\\caption\{(.*)\} \\label", path.read_text(encoding="utf-8"))[1]
        words = ["profile quick", "seeds (0, 1, 2", "commit ", "single query"]
        words += ["Market-1501, 500 training / 251 validation persons"] * ("rendered" not in path.name)
        words += ["not the benchmark's own test"] * ("rendered" not in path.name)
        assert [word for word in words if word not in caption] == [], path.name
        assert not re.search("Market-1501(?!, 500 training)", path.read_text(encoding="utf-8").replace(
            "State of the art on Market-1501", "")), path.name  # fmt: skip


def test_text_is_escaped():
    assert latex_text(r"a_b & 5 % of {x} #1 ~ ^ \n <") == (
        r"a\_b \& 5 \% of \{x\} \#1 \textasciitilde{} \textasciicircum{} \textbackslash{}n $<$"
    )
    assert latex_text("−1 [λ]") == r"$-$1 {[}$\lambda${]}"


def test_the_same_evidence_gives_the_same_files(tmp_path, monkeypatch):
    for row, seed in (("jlml", 0), ("jlml", 1), ("jlml-2", 1)):
        evidence.add(write_run(tmp_path / "runs", row, seed).folder, tmp_path / "evidence")
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "evidence")
    kept = [Evidence.read("quick", BENCHMARK)]
    for name in ("a", "b"):
        paths = write_tables(tmp_path / name, kept, "reidlib tables DIR")
        assert {path.stem for path in paths} == {"ledger", "scores-photographs", "differences-photographs"}
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    table = numbers(tmp_path / "a" / "differences-photographs.csv").set_index("difference")
    assert table.loc["4 − 2 parts", "seeds"] == 1  # the one that both have
    missing = table.loc["4 − 6 parts"]
    assert missing["seeds"] == 0 and pd.isna(missing["mean (points)"])


def test_tables_of_a_folder_of_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "evidence", lambda: tmp_path / "no evidence")
    for seed in (0, 1):
        for row in ("jlml", "jlml-2"):
            write_run(tmp_path / "runs", row, seed)
    write_run(tmp_path / "runs", "jlml", 2, settings={"recipe.epochs": "3"})  # not the row's own
    assert main(["tables", str(tmp_path / "out"), "--runs", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr()
    assert [Path(line).name for line in printed.out.splitlines()][:2] == ["ledger.csv", "ledger.tex"]
    assert "not used: jlml-2-" in printed.err and "another configuration" in printed.err
    table = numbers(tmp_path / "out" / "scores-photographs.csv")
    assert set(table["row"]) == {"jlml", "jlml-2"} and set(table["seeds"]) == {2}
    assert str(tmp_path) not in (tmp_path / "out" / "ledger.tex").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["DIR", "--profile", "full"],
            "tables are of the runs of a profile and a benchmark; got none of full",
        ),
        (["DIR", "--profile", "large"], "profile"),
        (["DIR", "--benchmark", "viper"], "got none of quick on viper"),
        (["DIR", "--runs", "nothing"], "none in nothing"),
        (["FILE"], "tables are written to a folder; got the file .*FILE; name a folder"),
        (["FILE/below"], "must be written to .*FILE/below; got Not a directory"),
        ([], "DIR"),
    ],
)
def test_bad_input_is_told_in_a_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("", encoding="utf-8")
    try:
        status = main(["tables", *words])
    except SystemExit as end:
        status = end.code
    assert status == 2 and not Path("DIR").exists()
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search(message, error), error


def test_a_folder_that_cannot_be_written(tmp_path):
    evidence.add(write_run(tmp_path / "runs").folder, tmp_path / "evidence")
    kept = [Evidence.read("quick", BENCHMARK, tmp_path / "evidence")]
    (tmp_path / "out" / "ledger.csv").mkdir(parents=True)
    with pytest.raises(InputError, match=r"ledger\.csv must be written to"):
        write_tables(tmp_path / "out", kept, "a command")
