"""Evidence: runs become lines of text and come back with the same scores; what does not fit is refused."""

import base64
import json
import lzma
import re
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from rows_with_scores import BENCHMARK, DATA, PERSONS, QUERIES, branch, scores, write_run

from reidlib import files
from reidlib.analysis.scores import Cell, ExperimentScores
from reidlib.cli import main
from reidlib.errors import InputError
from reidlib.experiments import evidence
from reidlib.experiments.evidence import BY_PERSON, Evidence, EvidenceRun, sets, sums, sums_by_person
from reidlib.experiments.evidence import lines as evidence_lines
from reidlib.experiments.rows import Perturbation
from reidlib.experiments.setup import MissingRun, Runs
from reidlib.training.runs import configuration_hash

DIGEST = "0123456789ab"


@pytest.fixture
def runs(tmp_path):
    written = {
        (row, seed): write_run(tmp_path / "runs", row, seed) for row in ("jlml", "jlml-2") for seed in (0, 2)
    }
    return tmp_path / "runs", written


def lines(folder):
    return {path.name: path.read_text().splitlines() for path in folder.glob("*/*.jsonl")}


def first_format(text):
    """The same lines as those of format 1: all files as they are."""
    contents = [json.loads(line) for line in text.splitlines()]
    for content in contents:
        packed = content.pop("packed")
        content |= {"format": 1}
        content["files"] |= json.loads(lzma.decompress(base64.b85decode(packed)))
    return "".join(f"{json.dumps(content, separators=(',', ':'))}\n" for content in contents)


def test_differences_from_evidence_are_those_of_the_runs(runs, tmp_path):
    folder, written = runs
    assert len(evidence.add(folder, tmp_path / "evidence").added) == 4
    read = Evidence.read("quick", BENCHMARK, tmp_path / "evidence")
    assert read.runs.keys() == written.keys() and read.data == DATA
    gathered = read.gather(["jlml", "jlml-2"])
    rows = {name: tuple(written[name, seed] for seed in (0, 2)) for name in ("jlml", "jlml-2")}
    original, travelled = ExperimentScores(Runs(rows, 2)), ExperimentScores(gathered)
    for measure in BY_PERSON:
        for part in ("full", "local"):
            pair = [Cell("jlml", part)], [Cell("jlml-2", part)]
            expected, got = (each.difference(*pair, measure) for each in (original, travelled))
            assert (got.seeds, got.queries) == (2, QUERIES - 2)
            assert got[:3] == pytest.approx(expected[:3], abs=1e-4), measure
    cells = {"a": Cell("jlml"), "b": Cell("jlml-2", "global")}
    pd_testing(original.spreads(cells), travelled.spreads(cells))
    assert [record["seed"] for record in gathered.records()] == [0, 2, 0, 2]
    assert gathered.device == "cpu" and "4 runs" in gathered.summary()


def pd_testing(left, right):
    assert left.map(str).equals(right.map(str))


def test_a_line_holds_small_files_and_no_path_of_the_machine(runs, tmp_path):
    folder, written = runs
    of_first = written["jlml", 0]
    (of_first.folder / "across").mkdir()
    remark = f"the training images are not in {tmp_path}"
    content = json.dumps(scores(5) | {"not_compared": [remark]})
    (of_first.folder / "across" / "viper-0.json").write_text(content)
    content = json.dumps(of_first.information | {"data_roots": [str(tmp_path)]})
    (of_first.folder / "run.json").write_text(content)
    evidence.add(folder, tmp_path / "evidence")
    text = (tmp_path / "evidence" / f"quick-{BENCHMARK}" / "jlml.jsonl").read_text()
    assert str(tmp_path) not in text and '"average_precision"' not in text
    run = Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs["jlml", 0]
    assert run.history == [{"epoch": 2, "loss": 1.0}]
    assert run.configuration == written["jlml", 0].configuration
    assert run.information["seconds"] == 9.5 and "data_root" not in run.information
    assert run.find("conditions/usual.json")["condition"] is None
    assert run.find("steps.npz") is None and not run.has_weights
    with pytest.raises(InputError, match=r"evidence holds.*distractors\.json"):
        run.read("distractors.json")


def test_adding_twice_adds_nothing_and_new_files_are_appended(runs, tmp_path):
    folder, written = runs
    target = tmp_path / "evidence"
    evidence.add(folder, target)
    before = lines(target)
    again = evidence.add(folder, target)
    assert (again.added, again.present, again.refused) == ([], 4, []) and lines(target) == before
    (written["jlml", 0].folder / "conditions" / "blur-2.json").write_text(json.dumps(scores(3, ("full",))))
    (written["jlml", 0].folder / "across").mkdir()
    (written["jlml", 0].folder / "across" / "viper-0.json").write_text(json.dumps(scores(5)))
    assert len(evidence.add(written["jlml", 0].folder, target).added) == 1
    assert lines(target)["jlml.jsonl"][:2] == before["jlml.jsonl"]  # lines are only added
    run = Evidence.read("quick", BENCHMARK, target).runs["jlml", 0]
    assert all(map(run.find, ("conditions/blur-2.json", "conditions/usual.json", "across/viper-0.json")))


def test_seeds_of_two_machines_are_pooled(runs, tmp_path):
    folder, _ = runs
    write_run(tmp_path / "other", "jlml", 5)
    first, second = tmp_path / "evidence", tmp_path / "there"
    evidence.add(folder, first)
    evidence.add(tmp_path / "other", second)
    assert evidence.add(second, first).added and evidence.add(second, first).present == 1
    gathered = Evidence.read("quick", BENCHMARK, first).gather(["jlml", "jlml-2"])
    assert [run.configuration["seed"] for run in gathered.runs["jlml"]] == [0, 2, 5]
    assert gathered.runs["jlml-2"][2] == MissingRun("no evidence", "jlml-2", 5)


def test_what_does_not_fit_is_refused_by_name(runs, tmp_path):
    folder, _ = runs
    target = tmp_path / "evidence"
    evidence.add(folder, target)
    before = lines(target)
    cases = {
        "another result": (
            write_run(tmp_path / "a", draw=77),
            r"one result.*clash: mAP \(step\).* on cpu and mAP",
        ),
        "other data": (write_run(tmp_path / "b", seed=4, data="f" * 16), f"same images.*{'f' * 16}.*{DATA}"),
        "own values": (
            write_run(tmp_path / "c", settings={"recipe.epochs": "3"}),
            "row's own training.*another configuration",
        ),
        "no scores": (write_run(tmp_path / "d", seed=6), "runs with scores.*none"),
        "damaged": (write_run(tmp_path / "e", seed=7), "scores are complete.*KeyError"),
    }
    (cases["no scores"][0].folder / "scores.json").unlink()
    content = cases["damaged"][0].scores
    del content["branches"]["full"]["trapezoid"]
    (cases["damaged"][0].folder / "scores.json").write_text(json.dumps(content))
    for name, (run, words) in cases.items():
        (line,) = evidence.add(run.folder, target).refused
        assert run.folder.name in line and "\n" not in line, name
        with pytest.raises(InputError, match=words):
            raise InputError(line, "", "")
    assert lines(target) == before
    unfinished = write_run(tmp_path / "f", seed=8)
    (unfinished.folder / "run.json").unlink()
    assert evidence.add(tmp_path / "f", target).unfinished == 1
    with pytest.raises(InputError, match="none in"):
        evidence.add(tmp_path / "nothing", target)


def test_one_rendering_by_two_processors_is_one_set(runs, tmp_path, monkeypatch):
    """Seeds are pooled and the reader is told; a row and a seed still have one result."""
    folder, _ = runs
    target, other = tmp_path / "evidence", "e" * 16
    monkeypatch.setattr(sets, "_SAME_IMAGES", ({DATA, other},))
    monkeypatch.setitem(sets.TITLES, DATA, "the title")
    evidence.add(folder, target)
    assert evidence.add(write_run(tmp_path / "more", seed=1, data=other).folder, target).added
    (refusal,) = evidence.add(write_run(tmp_path / "same", draw=77, data=other).folder, target).refused
    assert "a row and a seed have one result" in refusal
    read = Evidence.read("quick", BENCHMARK, target)
    assert [seed for row, seed in sorted(read.runs) if row == "jlml"] == [0, 1, 2]
    assert read.title == "the title"
    assert any("differ by a few levels" in note for note in read.notes)
    monkeypatch.setattr(sets, "_SAME_IMAGES", ())
    with pytest.raises(InputError, match="same images and persons"):
        Evidence.read("quick", BENCHMARK, target)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-500], "jlml.jsonl, line 2: .*git checkout"),
        (lambda text: text.rstrip("\n"), "line 2: ValueError: an unfinished line"),
        (lambda text: text.replace('"format":1', '"format":7', 1), "format 1 or 2; got format 7 in .*line 1"),
        (
            lambda text: text.replace(DATA, "e" * 16, 2),
            f"same images.*data {'e' * 16} in .*, line 1.*has {DATA}",
        ),
        (lambda text: text.replace('"1":0.', '"1":0.9', 1), "line 1: ValueError: .*R1 of branch"),
        (
            lambda text: text.replace('"queries":"<u2.', '"queries":"<u2.aaaa', 1),
            "line 1: error|line 1: ValueError",
        ),
        (lambda text: text.replace('"seed":0', '"seed":3', 1), "line 1: ValueError: row jlml, seed 3"),
        (lambda text: "[]\n" + text, "line 1: ValueError"),
        (lambda text: "[" * 100_000 + "\n", "line 1: RecursionError"),
        (lambda text: text.replace('"device"', '"machine"', 1), "line 1: KeyError: 'device'"),
        (
            lambda text: re.sub(r'("1":)[0-9.]+', r"\1NaN", text, count=1),
            "line 1: ValueError: .*R1 of branch",
        ),
        (lambda text: re.sub(r'("20":)[0-9.]+', r"\g<1>0.1", text, count=1), "the R20 of branch"),
        (lambda text: text.replace('"scores.json"', '"other.json"', 1), "line 1: KeyError: 'scores.json'"),
        (
            lambda text: f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> other\n",
            "unfinished merge in .*line 1; remove the lines that begin with <<<<<<<",
        ),
        (lambda text: text.replace(DATA, "e" * 16, 1), "line 1: ValueError: scores on other data"),
    ],
)
def test_damaged_evidence_is_refused_with_its_place(runs, tmp_path, change, words):
    folder, _ = runs
    evidence.add(folder, tmp_path / "evidence")
    file = tmp_path / "evidence" / f"quick-{BENCHMARK}" / "jlml.jsonl"
    file.write_text(change(first_format(file.read_text())))
    with pytest.raises(InputError, match=words):
        Evidence.read("quick", BENCHMARK, tmp_path / "evidence")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text[:-500] + text[-3:], "line 2: .*git checkout"),
        (lambda text: text[:-500] + text[-400:], "line 2: (LZMAError|ValueError)"),
        (lambda text: text.replace('"packed":"', '"packed":" ', 1), "line 1: ValueError: bad base85"),
        (
            lambda text: re.sub('"packed":"[^"]*"', '"packed":""', text, count=1),
            "line 1: (LZMAError|ValueErr)",
        ),
        (lambda text: text.replace('"packed"', '"other"', 1), "line 1: KeyError: 'packed'"),
        (lambda text: text.replace(DIGEST, "12345", 1), "line 1: ValueError: .*digest of 12 hexadecimal"),
        (lambda text: text.replace(DIGEST, DIGEST.upper(), 1), "line 1: ValueError: .*digest of 12 hex"),
        (lambda text: text.replace(f'"{DIGEST}"', "5", 1), "line 1: TypeError"),
        (lambda text: text.replace(f'{{"a":"{DIGEST}"}}', "[]", 1), "line 1: AttributeError"),
    ],
)
def test_damaged_packed_files_and_digests_are_refused(runs, tmp_path, change, words):
    evidence.add(runs[0], tmp_path / "evidence", {"jlml": {"a": DIGEST}})
    file = tmp_path / "evidence" / f"quick-{BENCHMARK}" / "jlml.jsonl"
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match=words):
        Evidence.read("quick", BENCHMARK, tmp_path / "evidence")


def test_lines_of_the_first_format_remain_valid_beside_new_ones(runs, tmp_path):
    folder, written = runs
    evidence.add(folder, tmp_path / "evidence")
    before = Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs
    file = tmp_path / "evidence" / f"quick-{BENCHMARK}" / "jlml.jsonl"
    old = first_format(file.read_text())
    # Arrays of format 1: compressed one by one.
    old = re.sub(r'"(<..)\.([0-9a-f]*)"', lambda match: f'"{packed_at_first(match[0][1:-1])}"', old)
    file.write_text(old)
    assert ":eN" in old
    evidence.add(write_run(tmp_path / "more", seed=7).folder, tmp_path / "evidence", {"jlml": {"a": DIGEST}})
    assert file.read_text().startswith(old)
    read = Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs
    assert {seed: read["jlml", seed].tests for seed in (0, 2, 7)} == {0: None, 2: None, 7: {"a": DIGEST}}
    for key in written:
        for name, part in before[key].scores["branches"].items():
            for measure, values in sums_by_person(part).items():
                again = sums_by_person(read[key].scores["branches"][name])[measure]
                np.testing.assert_array_equal(values, again)
    # Another clone's lines keep their digests, or that they have none, whatever the tests are today.
    evidence.add(tmp_path / "evidence", tmp_path / "there", {"jlml": {"a": "f" * 12}})
    there = Evidence.read("quick", BENCHMARK, tmp_path / "there").runs
    assert {key: run.tests for key, run in there.items()} == {key: run.tests for key, run in read.items()}


def packed_at_first(text):
    values = sums.unpack(text).astype(text[:3])
    return f"{text[:3]}:{base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()}"


def test_the_digest_of_a_run_is_that_of_its_first_line(runs, tmp_path):
    folder, written = runs
    target, more = tmp_path / "evidence", written["jlml", 0].folder / "conditions" / "blur-2.json"
    evidence.add(folder, target, {"jlml": {"a": DIGEST}})
    more.write_text(json.dumps(scores(3, ("full",))))
    assert evidence.add(folder, target, {"jlml": {"a": "f" * 12}}).added  # new scores of the same training
    run = Evidence.read("quick", BENCHMARK, target).runs["jlml", 0]
    assert run.tests == {"a": DIGEST} and run.find("conditions/blur-2.json")
    assert Evidence.read("quick", BENCHMARK, target).runs["jlml-2", 0].tests == {}  # no claim compares it


def test_packed_lines_are_two_fifths_smaller(tmp_path):
    """The first lines in git, written again: 28 rows and ten seeds stay below the bound on evidence."""
    source = files.project() / "reports" / "evidence" / "quick-synthetic" / "pyramid.jsonl"
    first = source.read_text(encoding="utf-8").splitlines(keepends=True)[0]
    line = evidence_lines.parse_line(first, "", "pyramid")
    contents = json.loads(
        re.sub(
            r'"<..:[^"]*"',
            lambda match: f'"{sums.pack(sums.unpack(match[0][1:-1]))}"',
            json.dumps(dict(line.run.contents)),
        )
    )
    again = evidence_lines.format_line("pyramid", contents, None)
    assert len(again) < 0.62 * len(first)
    run = evidence_lines.parse_line(again, "", "pyramid").run
    for name in ("scores.json", "conditions/usual.json"):
        old, new = (each.read(name)["branches"]["full"] for each in (line.run, run))
        assert all(np.array_equal(a, sums_by_person(new)[key]) for key, a in sums_by_person(old).items())


@pytest.mark.parametrize(
    ("profile", "benchmark"), [("full", BENCHMARK), ("quick", "synthetic"), ("quick", "other name")]
)
def test_lines_in_the_folder_of_another_set_are_refused(runs, tmp_path, capsys, profile, benchmark):
    target = tmp_path / "evidence"
    evidence.add(runs[0], target)
    before = lines(target)
    folder = evidence.set_folder(profile, benchmark, target)
    (target / f"quick-{BENCHMARK}").rename(folder)
    if benchmark != "other name":
        with pytest.raises(
            InputError, match=rf"{profile} and of {benchmark}; got quick on {BENCHMARK} in .*line 1; move"
        ):
            Evidence.read(profile, benchmark, target)
    assert main(["evidence", "--to", str(target)]) == 2
    assert folder.name in capsys.readouterr().err
    added = evidence.add(folder, tmp_path / "another")  # what the lines say counts
    assert len(added.added) == 4 and lines(tmp_path / "another") == before


def test_lines_come_back_from_windows_and_from_a_disk_of_macos(runs, tmp_path):
    evidence.add(runs[0], tmp_path / "evidence")
    file = tmp_path / "evidence" / f"quick-{BENCHMARK}" / "jlml.jsonl"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    file.with_name("._jlml.jsonl").write_bytes(b"\xff\xfe")
    assert len(Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs) == 4
    assert evidence.add(runs[0], tmp_path / "evidence").present == 4


def test_a_result_is_the_same_with_another_version_of_the_compression(runs, tmp_path, monkeypatch):
    evidence.add(runs[0], tmp_path / "evidence")
    before, compress = lines(tmp_path / "evidence"), lzma.compress
    monkeypatch.setattr(evidence_lines.lzma, "compress", lambda data: compress(data, preset=0))
    again = evidence.add(runs[0], tmp_path / "evidence")
    assert (again.present, again.refused) == (4, []) and lines(tmp_path / "evidence") == before


def test_other_scores_in_a_side_file_are_a_clash(runs, tmp_path):
    folder, written = runs
    evidence.add(folder, tmp_path / "evidence")
    usual = written["jlml", 0].folder / "conditions" / "usual.json"
    usual.write_text(json.dumps({"condition": None, **scores(3, ("full",))}))
    (line,) = evidence.add(usual.parents[1], tmp_path / "evidence").refused
    assert "a clash: conditions/usual.json, mAP (step)" in line


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", {}),
        ("run.json", {"device": "cpu"}),
        ("history.jsonl", [1]),
        ("conditions/usual.json", {"branches": {"full": {}}}),
    ],
)
def test_a_run_whose_line_nobody_could_read_is_refused(runs, tmp_path, name, content):
    folder, written = runs
    (written["jlml", 0].folder / name).write_text(json.dumps(content))
    addition = evidence.add(folder, tmp_path / "evidence")
    assert len(addition.added) == 3 and written["jlml", 0].folder.name in addition.refused[0]
    assert len(Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs) == 3


def test_of_a_file_of_partitions_the_name_is_kept(tmp_path):
    """Partitions are evidence of one set, each with its own data; no path of this machine is in it."""
    for trial, data in enumerate(("a" * 16, "b" * 16)):
        benchmark = f"viper,partitions={tmp_path}/ten.json" + (f",trial={trial}" if trial else "")
        write_run(tmp_path / "runs", benchmark=benchmark, data=data, draw=trial)
    target = tmp_path / "evidence"
    addition = evidence.add(tmp_path / "runs", target)
    assert (len(addition.added), addition.refused) == (2, [])
    assert evidence.add(tmp_path / "runs", target).present == 2
    (file,) = target.glob("*/*.jsonl")
    assert file.parent.name == "quick-viper,partitions=ten.json" and str(tmp_path) not in file.read_text()
    first, second = Evidence.read_all("quick", target)
    assert (first.benchmark, first.data) == ("viper,partitions=ten.json", "a" * 16)
    assert (second.benchmark, second.data) == ("viper,partitions=ten.json,trial=1", "b" * 16)
    assert Evidence.read("quick", second.benchmark, target).runs.keys() == {("jlml", 0)}
    (line,) = [line for line in evidence.describe(target) if not line.startswith(" ")]
    assert ", 2 partitions, 2 runs, " in line


def test_evidence_keeps_what_a_run_started_from(tmp_path):
    sets = "cuhk03,training_only=true+market1501,training_only=true"
    first = write_run(tmp_path / "runs", benchmark=sets, data="c" * 16, pretraining=True)
    digest = configuration_hash(first.configuration)
    tuned = write_run(tmp_path / "runs", benchmark="viper", start=digest)
    write_run(tmp_path / "runs", benchmark="viper", draw=7)  # from random weights: another set
    target = tmp_path / "evidence"
    addition = evidence.add(tmp_path / "runs", target)
    assert (len(addition.added), addition.refused) == (2, [])
    alone, pretrained = Evidence.read_all("quick", target)
    assert (alone.pretraining, pretrained.pretraining) == ("", sets)
    start = pretrained.runs["jlml", 0].start
    assert start["config.json"] == first.configuration and "data_root" not in start["run.json"]
    assert Evidence.read("quick", "viper", target).runs["jlml", 0].start == {}
    assert (target / "quick-viper-pretrained" / "jlml.jsonl").is_file()
    # A line without its start, or with another one, is damaged; a run whose start is gone is refused.
    content = json.loads((target / "quick-viper-pretrained" / "jlml.jsonl").read_text())
    packed = json.loads(lzma.decompress(base64.b85decode(content["packed"])))
    packed["start.json"]["config.json"]["seed"] = 1
    content["packed"] = base64.b85encode(lzma.compress(json.dumps(packed).encode())).decode()
    (target / "quick-viper-pretrained" / "jlml.jsonl").write_text(json.dumps(content) + "\n")
    with pytest.raises(InputError, match=f"started from the run {digest}, which is not kept"):
        Evidence.read_all("quick", target)
    shutil.rmtree(first.folder)
    (line,) = evidence.add(tuned.folder, tmp_path / "other").refused
    assert f"no finished run …-{digest}" in line
    # Pre-trained by another recipe than the row's, it is no row's run.
    other = write_run(tmp_path / "runs", benchmark=sets, data="c" * 16)  # as a training of its own
    tuned = write_run(tmp_path / "runs", benchmark="viper", start=configuration_hash(other.configuration))
    (line,) = evidence.add(tuned.folder, tmp_path / "other").refused
    assert "a row's own training" in line


def test_two_clones_that_added_seeds_merge_without_a_conflict(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "core.autocrlf=true")
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "one")
    shutil.copy(files.project() / ".gitattributes", tmp_path)
    kept = tmp_path / "reports" / "evidence"
    for seed, branch_name in enumerate(("one", "two", "one")):
        git("checkout", *(["-B", branch_name] if seed < 2 else [branch_name]))
        evidence.add(write_run(tmp_path / f"of-{seed}" / "runs", seed=seed).folder, kept)
        git("add", ".gitattributes", "reports")
        git("commit", "-m", f"seed {seed}")
    git("merge", "two")
    assert {seed for _, seed in Evidence.read("quick", BENCHMARK, kept).runs} == {0, 1, 2}


def test_a_clash_within_the_files_and_other_versions_are_told(runs, tmp_path):
    folder, _ = runs
    evidence.add(folder, tmp_path / "evidence")
    evidence.add(write_run(tmp_path / "other", draw=77).folder, tmp_path / "there")
    file = tmp_path / "evidence" / f"quick-{BENCHMARK}" / "jlml.jsonl"
    file.write_text(file.read_text() + (tmp_path / "there" / file.parent.name / file.name).read_text())
    read = Evidence.read("quick", BENCHMARK, tmp_path / "evidence")
    clash, version = read.notes
    assert clash.startswith("two results for jlml, seed 0: mAP (step)") and clash.endswith(
        "the first is used"
    )
    assert version == "trained with another version of the code: commit abc"
    assert (
        read.runs["jlml", 0].scores
        == Evidence.read("quick", BENCHMARK, tmp_path / "evidence").runs["jlml", 0].scores
    )


def test_an_earlier_recipe_is_told_and_not_used(runs, tmp_path, monkeypatch):
    folder, _ = runs
    evidence.add(folder, tmp_path / "evidence")
    monkeypatch.setattr(evidence_lines, "row_of", lambda *_: ("", ""))
    read = Evidence.read("quick", BENCHMARK, tmp_path / "evidence")
    assert not read.runs and read.notes == (
        "not used, because the row has another configuration today: "
        "jlml-2, seed 0, jlml-2, seed 2, jlml, seed 0, jlml, seed 2",
    )


def test_scores_under_perturbations_come_from_evidence(tmp_path, monkeypatch):
    from reidlib.experiments import perturbations

    run = write_run(tmp_path / "runs", "pyramid", benchmark="synthetic")
    factor = Perturbation("box_jitter", 0.24)
    content = perturbations._header(run, factor, "smoke") | scores(4, ("full",)) | {"data": None}
    content |= {"data": perturbations._header(run, factor, "smoke")["data"]}
    (run.folder / "conditions" / "box_jitter-0.24.json").write_text(json.dumps(content))
    shared = run.scores | {"benchmark": "synthetic"}
    (run.folder / "scores.json").write_text(json.dumps(shared))
    evidence.add(run.folder, tmp_path / "evidence")
    travelled = Evidence.read("quick", "synthetic", tmp_path / "evidence").runs["pyramid", 0]
    for each in (run, travelled):
        found = ExperimentScores(Runs({"pyramid": (each,)}, 1)).branch_scores(
            Cell("pyramid", perturbation=factor)
        )
        assert found[0]["step"]["cmc"]["1"] == content["branches"]["full"]["step"]["cmc"]["1"]


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.int64, st.integers(0, 30), elements=st.integers(-(2**31), 2**31 - 1))
    | arrays.arrays(np.float32, st.integers(0, 30), elements=st.floats(0, 1e4, width=32))
)
def test_arrays_survive_as_text(values):
    text = sums.pack(values)
    assert text.isascii() and '"' not in text
    np.testing.assert_array_equal(sums.unpack(text), values)


def test_sums_are_those_of_the_queries_with_a_match():
    values = branch(np.random.default_rng(1)) | {"query_person_ids": PERSONS.tolist()}
    sums = sums_by_person(values)
    assert (
        sums["queries"].sum() == QUERIES - 2 and len(sums["persons"]) == 13
    )  # the last one's query has none
    of_second = [query for query in range(QUERIES) if PERSONS[query] == 1 and query != 4]
    ranks = np.array(values["step"]["first_match_rank"])[of_second]
    assert sums["R5"][1] == (ranks <= 5).sum() and sums["queries"][1] == 2


def test_the_command_lists_adds_and_refuses(runs, tmp_path, capsys):
    folder, _ = runs
    target = str(tmp_path / "evidence")
    assert main(["evidence", "--to", target]) == 0
    assert capsys.readouterr().out == f"no evidence in {target}\n"
    assert main(["evidence", "add", str(folder), "--to", target]) == 0
    assert capsys.readouterr().out.endswith("4 runs added, 0 there already, 0 refused\n")
    clash = write_run(tmp_path / "other", draw=77)
    assert main(["evidence", "add", str(clash.folder), "--to", target]) == 1
    assert "refused: jlml-0" in capsys.readouterr().out
    assert main(["evidence", "--to", target]) == 0
    listed = capsys.readouterr().out
    assert listed.startswith(f"quick-{BENCHMARK}: {BENCHMARK}; 2 rows, 4 runs, 0.0 MiB\n")
    for words in (["show"], ["add"], ["delete", "x"]):
        assert main(["evidence", *words]) == 2
        assert "`reidlib evidence add FOLDER`" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told_once(runs, tmp_path):
    folder, _ = runs
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        evidence.add(folder, tmp_path / "file")


def test_a_killed_writer_leaves_complete_lines(runs, tmp_path, monkeypatch):
    folder, _ = runs
    evidence.add(next(folder.iterdir()), tmp_path / "evidence")
    before = lines(tmp_path / "evidence")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        evidence.add(folder, tmp_path / "evidence")
    assert lines(tmp_path / "evidence") == before


def test_a_copied_run_keeps_its_type():
    run = EvidenceRun(Path("x"), {"config.json": {"seed": 1}})
    assert run == EvidenceRun(Path("x"), {}) and hash(run) == hash(EvidenceRun(Path("x"), {}))
    assert run.configuration == {"seed": 1}


def test_a_benchmark_may_be_written_in_another_way():
    """From the evidence of the clone."""
    found = [Evidence.read_existing("quick", f"market1501,validation={text}") for text in ("true", "Yes")]
    assert found[0].runs.keys() == found[1].runs.keys() and found[0].benchmark == found[1].benchmark
    assert [each.benchmark for each in evidence.references("quick", "market1501,validation=Yes")] == [
        "synthetic"
    ]
