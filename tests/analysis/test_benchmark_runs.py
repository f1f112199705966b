"""The papers' tables with this suite's rows: on miniatures of the public layouts, trained for two steps."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cuhk03_miniature import write_archive
from miniature import write_image
from rows_with_scores import write_run
from small_miniatures import write_cuhk01, write_grid, write_grid_mat, write_viper

from reidlib.analysis import benchmark_runs, benchmark_tables
from reidlib.analysis.benchmark_tables import TABLES, notes
from reidlib.analysis.scores import table_records
from reidlib.cli import main
from reidlib.cli.arguments import named_folder
from reidlib.data import BENCHMARKS, load
from reidlib.data.readers import GUIDES
from reidlib.data.readers.partitions import Partitions, write_partitions
from reidlib.errors import InputError
from reidlib.experiments import evidence
from reidlib.experiments.rows import PROFILES, ModelSize
from reidlib.experiments.setup import MissingRun, Setup
from reidlib.reports.tasks import benchmark_tasks
from reidlib.training.config import Augmentation, Recipe
from reidlib.training.runs import Run, configuration_hash

BY_TITLE = {table.title: table for table in TABLES}
GRID = next(table for table in TABLES if table.specification == "grid")
MARKET = next(table for table in TABLES if table.specification == "market1501")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    recipe = Recipe(steps=2, batch_size=4, augmentation=Augmentation(pad=1))
    smoke = PROFILES["smoke"].sizes
    monkeypatch.setitem(smoke, "jlml", ModelSize((32, 16), {"width": 0.125, "feature_size": 16}, recipe))
    scaled = {"trunk": "resnet39", "width": 0.125, "stripes": 2, "embedding_size": 8}
    recipe = Recipe(steps=2, batch_size=4, images_per_identity=2, augmentation=Augmentation(pad=1))
    monkeypatch.setitem(smoke, "pyramid", ModelSize((32, 16), scaled, recipe))


@pytest.fixture
def folders(market, tmp_path):
    grid = write_grid(tmp_path / "underground_reid")
    cuhk03 = tmp_path / "cuhk03_release"
    cuhk03.mkdir()
    write_archive(cuhk03 / "cuhk-03.mat")
    return {"grid": str(grid), "cuhk03": str(cuhk03), "market1501": str(market)}


def gather_runs(specification, folders, *, trials=0, **more):
    setup = Setup("smoke", device="cpu", progress=False, **more)
    return benchmark_runs.gather_own_runs(specification, folders, setup, trials=trials)


def own_rows(table, own_runs):
    return table_records(benchmark_runs.rows_with_own_runs(table, [own_runs]))[
        -len(benchmark_runs.OWN_ROWS) :
    ]


def test_every_table_has_rows_and_notes():
    for table in TABLES:
        rows = table_records(table.printed())
        assert rows, table.title
        assert all(row.keys() == {"method", *table.columns} for row in rows)
        assert table.benchmark in BENCHMARKS
        assert table.benchmark in GUIDES
        texts = notes([table])
        assert texts
        assert all(note[0].isalnum() for note in texts), texts  # an empty cell is no row's name
    printed_alike = "Rank-1 78.9 is printed for the labelled and for the detected boxes alike"
    with_note = {table.title for table in TABLES if printed_alike in " ".join(notes([table]))}
    assert with_note == {"CUHK03, 767/700 identities, detected boxes (Pyramid, Tables 1 to 3)"}
    assert len(BY_TITLE) == len(TABLES)
    assert {table.benchmark for table in TABLES} == set(GUIDES)
    jlml = table_records(BY_TITLE["CUHK01, 871/100 identities, multi-shot (JLML, Table 7)"].printed())
    assert jlml == [{"method": "JLML", "R1": "91.2", "R5": "98.4", "R10": "99.2", "R20": "99.8"}]
    title = "CUHK03, 767/700 identities, detected boxes (Pyramid, Tables 1 to 3)"
    new = table_records(BY_TITLE[title].printed())
    assert new[0] == {"method": "Pyramid", "R1": "78.9", "R5": "90.7", "R10": "94.5", "mAP (step)": "74.8"}
    assert [row["mAP (step)"] for row in new[1:]] == ["73.78", "74.77", "73.14"]  # of others; none corrupted


def test_a_benchmark_without_a_folder_has_no_own_rows():
    assert benchmark_runs.gather_own_runs("grid", {}, Setup("smoke")) is None
    assert table_records(benchmark_runs.rows_with_own_runs(GRID, [])) == table_records(GRID.printed())


def test_sections_hold_tables_notes_and_guidance(folders):
    grid_only = {"grid": folders["grid"]}
    overview = benchmark_tables.overview(grid_only).set_index("benchmark")["folder"]
    assert overview[GUIDES["grid"].title] == str(folders["grid"])
    assert overview[GUIDES["viper"].title] == "not given"
    nothing = dict.fromkeys(benchmark_tables.specifications(), ())
    sections = list(benchmark_runs.sections(("grid", "viper"), nothing, grid_only))
    texts = [section for section in sections if isinstance(section, str)]
    tables = [table for table in TABLES if table.benchmark in ("grid", "viper")]
    assert texts[0] == f"**{tables[0].title}**"
    frames = [table_records(section) for section in sections if not isinstance(section, str)]
    for frame, table in zip(frames, tables, strict=True):  # below, what notebook 40 measured
        printed = len(table.printed())
        assert frame[:printed] == table_records(table.printed())
        assert all(line["method"].startswith("measured here: ") for line in frame[printed:])
    assert set(notes(tables[:1])) <= {line[2:] for text in texts for line in text.splitlines()}
    assert [GUIDES[name].title in texts[-1] for name in ("grid", "viper")] == [False, True]


def test_rows_are_means_over_the_partitions(folders):
    own_runs = gather_runs("grid", {"grid": folders["grid"]})
    assert own_runs.num_trials == 3
    assert own_runs.pretraining == ""
    assert own_runs.missing() == []
    assert own_runs.deviation_summary.startswith("probe has 4 images, 246 fewer than expected")
    rows = own_rows(GRID, own_runs)
    assert [row["method"] for row in rows] == [
        "this suite: jlml, profile smoke, 32×16, width 0.125, no ImageNet, incomplete benchmark",
        "this suite: pyramid, profile smoke, 32×16, width 0.125, no ImageNet, incomplete benchmark",
    ]
    for name, row in zip(benchmark_runs.OWN_ROWS, rows, strict=True):
        runs = [own_runs.runs[name, trial][0] for trial in range(3)]
        shares = [run.scores["branches"]["full"]["protocols"]["single-shot"]["cmc"]["1"] for run in runs]
        assert len({run.folder for run in runs}) == 3
        mean = 100 * sum(shares) / 3
        spread = math.sqrt(sum((100 * share - mean) ** 2 for share in shares) / 2)
        # Student's t of two degrees of freedom, 4.303, over the root of three.
        assert row["R1"] == f"{mean:.1f} ± {4.302653 * spread / math.sqrt(3):.1f}"
    # All partitions, or the first ones; and the runs of those are found again.
    loaded_runs = gather_runs("grid", folders | {"cuhk03": ""}, trials=2, may_train=False)
    assert [*loaded_runs.runs] == [("jlml", 0), ("jlml", 1), ("pyramid", 0), ("pyramid", 1)]


def test_small_sets_start_from_cuhk03_and_market(folders, monkeypatch):
    own_runs = gather_runs("grid", folders, trials=1)
    assert own_runs.pretraining == "part of CUHK03 + part of Market-1501"
    (run,) = own_runs.runs["jlml", 0]
    before = benchmark_tables.pretraining_benchmark(folders)
    assert before.specification == "cuhk03+market1501"
    assert before.train.person_ids.min() > 0
    parts = [load("cuhk03", folders["cuhk03"]), load("market1501", folders["market1501"])]
    assert len(before.train) == sum(len(part.train) for part in parts)
    start = run.configuration["start"]
    assert start
    (first,) = run.folder.parent.glob(f"jlml-*-{start}")
    assert configuration_hash(Run(first).configuration) == start
    assert Run(first).configuration["benchmark"] == "cuhk03+market1501"
    rows = own_rows(GRID, own_runs)
    assert rows[0]["method"] == (
        "this suite: jlml, profile smoke, 32×16, width 0.125, no ImageNet, incomplete benchmark, "
        "pre-trained on part of CUHK03 + part of Market-1501, 1 of 3 partitions"
    )
    # Their training images alone serve, too: whole folders are preferred, and a table is about neither.
    alone = {f"{name},training_only=true": folders[name] for name in ("cuhk03", "market1501")}
    benchmark_tables.check_folders(alone | folders)
    assert benchmark_tables.pretraining_benchmark(alone | folders).specification == "cuhk03+market1501"
    shutil.rmtree(Path(folders["market1501"]) / "query")
    assert not benchmark_tables.unreadable_benchmarks(alone)
    assert benchmark_tables.folder_states(alone).keys() == alone.keys()
    before = benchmark_tables.pretraining_benchmark(alone)
    assert before.specification == "+".join(alone) and before.training_only
    assert benchmark_tables.pretraining_stages("grid", alone)
    shutil.rmtree(Path(folders["market1501"]) / "bounding_box_train")
    with pytest.raises(InputError, match="lacks bounding_box_train"):
        benchmark_tables.unreadable_benchmarks(alone)
    with pytest.raises(InputError, match="pre-training: a folder in Market-1501's layout"):
        benchmark_tables.pretraining_stages("grid", alone)
    # The large sets do not, and neither do the small ones without both folders.
    assert benchmark_tables.pretraining_stages("market1501", folders) == ()
    assert benchmark_tables.pretraining_stages("grid", {**folders, "cuhk03": ""}) == ()


def test_published_partitions_are_given_with_the_folder(tmp_path, monkeypatch):
    """The table of their size is filled with them, and its row says so; others of the set are not."""
    root, file = write_cuhk01(tmp_path / "CUHK01"), tmp_path / "ten.json"
    write_partitions(file, Partitions("cuhk01", 4, ((1, 4), (2, 3), (1, 2))))
    given = {f"cuhk01,partitions={file}": str(root)}
    benchmark_tables.check_folders(given)
    assert not benchmark_tables.unreadable_benchmarks(given)
    assert benchmark_tables.folder_of("cuhk01", given) == root
    assert benchmark_tables.folder_of("cuhk01,test_persons=100", given) is None
    assert gather_runs("cuhk01,test_persons=100", given) is None
    assert benchmark_tables.given_as("cuhk01", {"cuhk01": "other"} | given) == (*given, root)
    tasks = benchmark_tasks(given, Setup("smoke", device="cpu"), trials=2)
    assert len(tasks) == 4 and all(",partitions=" in task.name for task in tasks)
    own_runs = gather_runs("cuhk01", given, trials=2)
    assert [row["method"] for row in own_rows(TABLES[0], own_runs)] == [
        f"this suite: {row}, profile smoke, 32×16, width 0.125, no ImageNet, incomplete benchmark, "
        "2 of 3 partitions of ten"
        for row in ("jlml", "pyramid")
    ]
    assert own_rows(TABLES[0], own_runs)[0]["R1"] not in ("missing", "–")
    ours = gather_runs("cuhk01,test_persons=100", {"cuhk01": root})  # too few persons for these
    assert ours.read_error and gather_runs("viper", given) is None
    for both in ({"cuhk01": str(root)} | given, given | {"cuhk01": str(root)}):
        with pytest.raises(InputError, match="is given once"):
            benchmark_tables.check_folders(both)
    # In a whole set, they are of the table's size.
    monkeypatch.setattr(benchmark_tables.folders, "folder_deviations", lambda *_: [])
    refused = r"cuhk01 test 486 persons; got .*ten\.json with 2; .*test_persons=100"
    with pytest.raises(InputError, match=refused):
        benchmark_tables.unreadable_benchmarks(given)


def test_partitions_of_absent_persons_are_refused_in_one_line(tmp_path, capsys):
    root, file = write_viper(tmp_path / "VIPeR"), tmp_path / "ten.json"
    file.write_text('{"benchmark": "viper", "persons": 4, "test": [[1, 2], [3, 874]]}')
    command = ["--profile", "smoke", "--folder", f"viper,partitions={file}={root}"]
    for words in (["train", "all", "--device", "cpu"], ["reproduce", "42"]):
        assert main([*words, *command]) == 2
        error = capsys.readouterr().err
        assert "among the 4 sorted person ids, counted from 1; got 874, in" in error
        assert error.count("\n") == 1


def test_a_start_from_rendered_people_or_own_images_has_a_name(tmp_path, monkeypatch):
    monkeypatch.undo()  # evidence is of the profiles' own sizes
    for number, sets in enumerate(("synthetic", "folder,training_only=true")):
        start = write_run(tmp_path / sets, benchmark=sets, data="c" * 16, pretraining=bool(number))
        write_run(tmp_path / sets, benchmark="viper", start=configuration_hash(start.configuration))
        assert evidence.add(tmp_path / sets, tmp_path / "evidence").added
    kept = benchmark_runs.kept_runs("viper", tmp_path / "evidence")
    assert {each.pretraining for each in kept} == {"rendered people", "own images"}
    assert any("pre-trained on rendered people" in each.title("jlml") for each in kept)


def test_rows_from_evidence_need_no_folder(tmp_path, monkeypatch):
    """Mean and interval over the partitions, with what they started from; other sets are other rows."""
    monkeypatch.undo()  # evidence is of the profiles' own sizes
    sets, runs, target = "cuhk03,boxes=both+market1501", tmp_path / "runs", tmp_path / "evidence"
    start = write_run(runs, benchmark=sets, data="c" * 16, pretraining=True)
    digest = configuration_hash(start.configuration)
    for trial, data in enumerate(("a" * 16, "b" * 16)):
        benchmark = f"viper,partitions={tmp_path}/ten.json" + (f",trial={trial}" if trial else "")
        run = write_run(runs, benchmark=benchmark, data=data, draw=trial, start=digest)
        scores = json.loads((run.folder / "scores.json").read_text())
        cmc = {str(rank): share for rank, share in ((1, 0.2 + 0.1 * trial), (5, 0.5), (10, 0.6), (20, 0.7))}
        scores["branches"]["full"]["protocols"] = {"single-shot": {"cmc": cmc}}
        (run.folder / "scores.json").write_text(json.dumps(scores))
    write_run(runs, benchmark="viper,validation=true")  # never in a table
    assert len(evidence.add(runs, target).added) == 3
    (own_runs,) = kept = benchmark_runs.kept_runs("viper", target)
    (table,) = (table for table in TABLES if table.specification == "viper")
    *above, row = table_records(benchmark_runs.rows_with_own_runs(table, kept))
    assert above == table_records(benchmark_runs.rows_with_own_runs(table, []))
    assert row["method"] == (
        "this suite: jlml, profile quick, 112×56, width 0.5, no ImageNet, "
        "pre-trained on CUHK03 + Market-1501, 2 partitions of ten, from evidence"
    )
    assert row["R1"] == f"25.0 ± {12.706205 * 5:.1f}"  # Student's t of one degree of freedom
    (note,) = own_runs.notes()
    assert note.startswith("This suite's rows, profile quick: jlml 2 passes, then 12 passes. Pre-trained on")
    (longer,) = replace(own_runs, profile="photographs").notes()
    assert "jlml 30 passes, then 12 passes or 720 steps, whichever is more. Pre-trained" in longer
    assert "over 2 partitions of ten. From `reports/evidence`: 2 runs, commit abc." in note
    assert not own_runs.missing()
    assert benchmark_runs.kept_runs("cuhk01", target) == ()
    hundred = replace(own_runs, profile="photographs", specification="cuhk01,test_persons=100")
    assert "a tenth of them" in hundred.notes()[0] and "about half of them" in longer
    texts = [
        text for text in benchmark_runs.sections(["viper"], {"viper": kept}, {}) if isinstance(text, str)
    ]
    assert any(note in text for text in texts)
    scores = list(benchmark_runs.rank1_scores(table, kept).values())
    assert scores[-1] == (pytest.approx(25.0), "jlml (not comparable)")
    assert [kind for _, kind in scores[:-1]] == ["paper", *["measured"] * 4]  # four metrics of notebook 40
    # In the report stand the tables with a score of this suite, whole.
    lines = benchmark_runs.measured_tables({"viper": kept})
    assert [line["table"] for line in lines] == [table.title, *[""] * len(above)]
    assert lines == [{"table": line["table"]} | row for line, row in zip(lines, [*above, row], strict=True)]
    unreadable = benchmark_runs.OwnRuns("viper", "quick", read_error="gone")
    assert benchmark_runs.measured_tables({"viper": [unreadable]}) == benchmark_runs.measured_tables({}) == []


def test_market_has_its_own_measures(folders):
    own_runs = gather_runs("market1501", folders)
    row = own_rows(MARKET, own_runs)[0]
    assert row["method"].startswith("this suite: jlml, ")  # the table is JLML's: two rows of this suite
    (run,) = own_runs.runs["jlml", 0]
    single = run.scores["branches"]["full"]["trapezoid"]
    assert row["R1"] == f"{100 * single['cmc']['1']:.1f}"
    assert row["mAP (trapezoid)"] == f"{100 * single['mean_average_precision']:.1f}"
    assert row["MQ R1"] == "–"  # the miniature has no gt_bbox


def test_rows_of_the_published_codes_stand_beside_pyramids_printed_rows(folders):
    tables = {table.specification: table for table in TABLES if table.file == "pyramid_details"}
    assert {name: benchmark_runs.own_rows([table]) for name, table in tables.items()} == {
        "cuhk03,split=new": ("jlml", "pyramid", "pyramid-official"),
        "cuhk03,boxes=detected,split=new": ("jlml", "pyramid", "pyramid-official"),
        "market1501": ("jlml", "pyramid", "pyramid-official", "pyramid-youreid"),
        "dukemtmc": ("jlml", "pyramid", "pyramid-official", "pyramid-youreid"),
    }  # YouReID prints no row on CUHK03
    own_runs = gather_runs("market1501", folders, may_train=False)
    rows = table_records(benchmark_runs.rows_with_own_runs(tables["market1501"], [own_runs]))
    assert [row["method"].split(", ")[0] for row in rows[-4:]] == [
        f"this suite: {name}" for name in benchmark_runs.own_rows([tables["market1501"]])
    ]
    assert rows[-1]["mAP (step)"] == "missing"
    assert "only rule with public code" in " ".join(notes([tables["market1501"]]))


def test_an_unreadable_folder_is_missing_with_its_reason(folders, tmp_path):
    root = write_cuhk01(tmp_path / "CUHK01")
    own_runs = gather_runs("cuhk01", {"cuhk01": root})
    assert "unpack" in own_runs.missing()[0]
    table = TABLES[0]
    assert table_records(benchmark_runs.rows_with_own_runs(table, [own_runs]))[-1] == {
        "method": "this suite: pyramid, profile smoke, 32×16, width 0.125, no ImageNet",
        **dict.fromkeys(table.columns, "missing"),
    }
    own_runs = gather_runs("grid", {"grid": folders["grid"]}, trials=1, may_train=False)
    assert [line.split(":")[0] for line in own_runs.missing()] == [
        "jlml, grid, trial 0, seed 0",
        "pyramid, grid, trial 0, seed 0",
    ]
    assert own_rows(GRID, own_runs)[0]["R1"] == "missing"


def test_one_missing_partition_is_counted(folders):
    own_runs = gather_runs("grid", {"grid": folders["grid"]}, trials=2)
    first = own_runs.runs["jlml", 0]
    missing_run = MissingRun("lost")
    own_runs = benchmark_runs.OwnRuns("grid", "smoke", 2, {("jlml", 0): first, ("jlml", 1): [missing_run]})
    assert own_rows(GRID, own_runs)[-1]["R1"].endswith("(1 of 2 trials)")


def test_rank1_of_a_figure(folders):
    own_runs = gather_runs("grid", {"grid": folders["grid"]}, trials=2)
    scores = benchmark_runs.rank1_scores(GRID, [own_runs])
    assert scores["JLML"] == (37.5, "paper")
    assert scores["GOG"] == (24.7, "other")
    assert [kind for name, (_, kind) in scores.items() if "2 of 3 partitions" in name] == [
        "jlml (not comparable)",
        "pyramid (not comparable)",
    ]
    whole = replace(own_runs, profile="paper", deviations=())
    assert [kind for _, kind in benchmark_runs.rank1_scores(GRID, [whole]).values()][-2:] == [
        "jlml",
        "pyramid",
    ]
    unreadable = benchmark_runs.rank1_scores(
        GRID, [benchmark_runs.OwnRuns("grid", "smoke", read_error="gone")]
    )
    assert unreadable.keys() == set(GRID.printed()["method"])


def test_trainings_are_separate_tasks(folders):
    setup = Setup("smoke", device="cpu", progress=False)
    tasks = benchmark_tasks(folders, setup, trials=1)
    names = [task.name for task in tasks]
    assert names[:2] == [
        "jlml-smoke-cuhk03+market1501-seed0",
        "pyramid-smoke-cuhk03+market1501-seed0",
    ]
    assert names[2:] == [
        f"{row}-smoke-{specification}-seed0{ending}"
        for specification, ending, beside in (
            ("cuhk03", "", ()),
            ("cuhk03,boxes=detected", "", ()),
            ("grid", "-pretrained", ()),
            ("market1501", "", ("pyramid-official", "pyramid-youreid")),
        )
        for row in ("jlml", "pyramid", *beside)
    ]
    for task in tasks:
        if "jlml" in task.name and ("grid" in task.name or "+" in task.name):
            task.function(*task.arguments)
    remaining = [task.name for task in benchmark_tasks(folders, setup, trials=1)]
    assert remaining == [name for name in names if not ("jlml" in name and ("grid" in name or "+" in name))]


def test_folders_are_checked(tmp_path):
    with pytest.raises(InputError, match=r"the papers' tables are about.*'folder'"):
        benchmark_tables.check_folders({"folder": str(tmp_path)})
    with pytest.raises(InputError, match="the folder of grid exists"):
        benchmark_tables.check_folders({"grid": str(tmp_path / "nowhere")})
    with pytest.raises(InputError, match="did you mean grid"):
        benchmark_tables.check_folders({"gird": str(tmp_path)})
    for name in ("viper,test_persons=20", "market1501,distractors=true", "cuhk03,trial=2", "grid,trial=0"):
        with pytest.raises(InputError, match=f"'{name}'; write {name.partition(',')[0]}"):
            benchmark_tables.check_folders({name: str(tmp_path)})
    with pytest.raises(InputError, match="is given once"):
        benchmark_tables.check_folders(
            dict.fromkeys(
                ("cuhk03,boxes=detected,split=new", "cuhk03,split=new,boxes=detected"), str(tmp_path)
            )
        )
    assert benchmark_tables.add_data_root({"grid": "a"}, "cuhk03,boxes=detected", "b") == {
        "cuhk03": "b",
        "grid": "a",
    }
    assert benchmark_tables.add_data_root({}, "synthetic", "b") == {}
    # Who trains on validation persons wants no score on the test images, which the folder may have.
    for name in ("market1501", "viper,test_persons=5", "cuhk03,split=new"):
        assert benchmark_tables.add_data_root({}, f"{name},validation=true", "b") == {}


def test_a_folder_is_found_however_its_options_are_ordered(folders):
    ordered = {"cuhk03,split=new,boxes=detected": folders["cuhk03"]}
    benchmark_tables.check_folders(ordered)
    folder = benchmark_tables.folder_of("cuhk03,boxes=detected,split=new", ordered)
    assert folder == Path(folders["cuhk03"])
    assert benchmark_tables.folder_of("cuhk03", ordered) is None
    assert benchmark_tables.folders_of("cuhk03", ordered) == [str(folders["cuhk03"])]
    assert benchmark_tables.folders_of("grid", ordered) == []
    with pytest.raises(InputError):  # this archive's new protocol lacks its files: asked for, so refused
        benchmark_tables.unreadable_benchmarks(ordered)


def test_the_command_trains_a_chain(folders, tmp_path, capsys):
    arguments = ["train", "jlml", "--profile", "smoke", "--device", "cpu", "--runs", str(tmp_path / "runs")]
    arguments += ["--benchmark", "grid,trial=2", "--data-root", folders["grid"]]
    for name in ("cuhk03", "market1501"):
        arguments += ["--pretrain", f"{name}={folders[name]}"]
    assert main(arguments) == 0
    printed, messages = capsys.readouterr()
    assert "training jlml on cuhk03+market1501" in messages
    assert "note: this is not the whole of grid" in messages
    assert "single-shot (the benchmark's own protocol): R1 " in printed
    (run,) = (tmp_path / "runs").glob("jlml-smoke-grid,trial=2-seed0-pretrained-*")
    configuration = json.loads((run / "config.json").read_text())
    assert configuration["benchmark"] == "grid,trial=2"
    # Evaluated again it is read with the same options; the run before it is on no single benchmark.
    (run / "scores.json").unlink()
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    assert "on grid,trial=2 in" in capsys.readouterr().err
    (before,) = (tmp_path / "runs").glob("jlml-smoke-cuhk03+market1501-*")
    assert main(["evaluate", str(before), "--device", "cpu"]) == 2
    # The same command finds the run, even if the one before it is gone.
    for path in before.iterdir():
        path.unlink()
    before.rmdir()
    assert main(arguments) == 0
    assert not before.exists()


def test_missing_runs_are_recorded(folders, tmp_path):
    own_runs = gather_runs("grid", {"grid": folders["grid"]}, trials=1)
    assert [set(row) >= {"run", "folder"} for row in own_runs.experiment_runs.records()] == [True, True]
    own_runs = gather_runs("grid", {"grid": folders["grid"]}, trials=2, may_train=False)
    records = own_runs.experiment_runs.records()
    assert [(row["experiment"], "missing" in row) for row in records] == [
        ("jlml, grid, trial 0", False),
        ("pyramid, grid, trial 0", False),
        ("jlml, grid, trial 1", True),
        ("pyramid, grid, trial 1", True),
    ]
    assert (
        "missing" in benchmark_runs.OwnRuns("grid", "smoke", read_error="gone").experiment_runs.records()[0]
    )


def test_the_state_changes_with_the_content_of_the_folders(folders, market):
    state = benchmark_tables.folder_states(folders)
    assert benchmark_tables.folder_states(folders) == state
    assert len(state["grid"]) > 3
    (market / "gt_bbox").mkdir()
    for name in ("0001_c1s1_001051_00.jpg", "0003_c2s1_000001_00.jpg"):
        write_image(market / "gt_bbox" / name)
    changed = benchmark_tables.folder_states(folders)
    assert changed["market1501"] != state["market1501"]
    write_grid_mat(Path(folders["grid"]) / "features_and_partitions.mat", ((1, 3), (2, 4), (1, 4)))
    assert benchmark_tables.folder_states(folders)["grid"] != changed["grid"]
    assert benchmark_tables.folder_states(folders, trials=1)["grid"][0] == changed["grid"][0]


def test_a_wrong_folder_is_refused_before_anything_is_trained(folders, capsys):
    market = folders["market1501"]
    command = ["reproduce", "42", "--profile", "smoke", "--folder", f"grid={folders['grid']}"]
    assert main([*command, "--folder", f"market1501={market}/query"]) == 2
    assert f"one level too low: give {market}" in capsys.readouterr().err
    assert main([*command, "--folder", f"grid={folders['grid']}"]) == 2
    assert "given once" in capsys.readouterr().err
    # Benchmarks of a folder that cannot be read are reported and left out; the others are used.
    assert benchmark_tables.unreadable_benchmarks({"cuhk03": folders["cuhk03"]}).keys() == {
        "cuhk03,split=new",
        "cuhk03,boxes=detected,split=new",
    }


def test_pre_training_that_cannot_be_read_is_named(folders):
    own_runs = gather_runs("grid", {**folders, "market1501": folders["market1501"] + "/query"})
    assert own_runs.read_error.startswith("pre-training: a folder in Market-1501's layout")


def test_the_notebooks_benchmark_may_be_one_of_the_tables(tmp_path, monkeypatch, capsys):
    """Both ask for its trainings, and the command does the one that is missing, once."""
    monkeypatch.undo()  # the command's other processes know only the profile's own sizes
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    root = str(tmp_path / "market")
    assert main(["render", "smoke", root]) == 0
    setup = Setup("smoke", "market1501", root, device="cpu", progress=False)
    first, *others = benchmark_tasks({"market1501": root}, setup)
    for task in others:  # here, where torch is imported already
        task.function(*task.arguments)
    capsys.readouterr()
    command = ["reproduce", "42", "--profile", "smoke", "--device", "cpu", "--jobs", "1"]
    assert main([*command, "--benchmark", "market1501", "--data-root", root]) == 0
    messages = capsys.readouterr().err
    assert first.name == "jlml-smoke-market1501-seed0"
    assert "tasks to be done: 1;" in messages
    assert messages.count(f"{first.name}  done") == 1
    page = (tmp_path / "home" / "smoke-market1501" / "42_benchmarks" / "index.html").read_text()
    assert "this suite: jlml, profile smoke, 64×32, width 0.25, no ImageNet, incomplete benchmark" in page
    assert "<strong>Missing:</strong>" not in page


@pytest.mark.parametrize(
    ("text", "name", "folder"),
    [
        ("grid=data", "grid", "data"),
        ("grid=data/a=b/grid", "grid", "data/a=b/grid"),
        ("cuhk03,boxes=detected,split=new=/data/x=y", "cuhk03,boxes=detected,split=new", "/data/x=y"),
    ],
)
def test_an_equals_sign_in_a_folder(text, name, folder):
    assert named_folder(text) == (name, folder)


def test_a_run_on_a_list_is_evaluated_again(tmp_path, market, capsys):
    listed = tmp_path / "own" / "list.csv"
    listed.parent.mkdir()
    lines = ["path,person,camera,split"]
    for split, of in (("train", "bounding_box_train"), ("query", "query"), ("gallery", "bounding_box_test")):
        for path in sorted((market / of).glob("[0-9]*.jpg")):
            person, camera = path.name.split("_c")[0], path.name.split("_c")[1][0]
            (listed.parent / f"{split}-{path.name}").write_bytes(path.read_bytes())
            lines.append(f"{split}-{path.name},{person},{camera},{split}")
    listed.write_text("\n".join(lines))
    arguments = ["train", "jlml", "--profile", "smoke", "--device", "cpu", "--runs", str(tmp_path / "runs")]
    assert main([*arguments, "--benchmark", "csv", "--data-root", str(listed)]) == 0
    (run,) = (tmp_path / "runs").glob("jlml-smoke-csv-*")
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    assert main(["evaluate", str(run), "--device", "cpu", "--distractors"]) == 2
    assert "--distractors is for runs on market1501" in capsys.readouterr().err


def test_the_papers_profile_needs_no_benchmark_besides_the_tables(folders, tmp_path, capsys):
    command = ["reproduce", "--profile", "paper", "--no-train"]
    folder_option = ["--folder", f"grid={folders['grid']}"]
    assert main([*command, "42", *folder_option]) == 0
    page = (tmp_path / "home" / "paper" / "42_benchmarks" / "index.html").read_text()
    assert "this suite: jlml, profile paper, 224×224, no ImageNet, incomplete benchmark" in page
    assert "<strong>Missing:</strong>" in page
    assert "this needs Market-1501 or DukeMTMC-reID" in page
    capsys.readouterr()
    for more in (["42"], ["30", "42", *folder_option]):  # other notebooks need a benchmark
        assert main([*command, *more]) == 2
        assert "give --benchmark and --data-root" in capsys.readouterr().err


def test_the_benchmark_for_comparing_protocols():
    at_hand = benchmark_tables.choose_protocol_benchmark
    assert at_hand("quick", {"market1501": "m"}) == ("synthetic", "")
    assert at_hand("paper", {"grid": "g"}, "cuhk03", "c") == ("cuhk03", "c")
    assert at_hand("paper", {"grid": "g", "dukemtmc": "d"}) == ("dukemtmc", "d")
    assert at_hand("paper", {"grid": "g"}) is None


def test_all_rows_of_the_tables_are_one_queue(folders, monkeypatch, capsys):
    """What is left, the order, and the duration by steps; a benchmark without a task has a reason."""
    captured = []
    monkeypatch.setattr(
        "reidlib.reports.reproduce.run_tasks", lambda make, *_, **__: captured.append(make()) or {}
    )
    command = ["train", "all", "--profile", "smoke", "--device", "cpu"]
    given = [word for name in folders for word in ("--folder", f"{name}={folders[name]}")]
    limits = ["--trials", "1", "--trials", "grid=2"]
    assert main([*command, *given, *limits]) == 1
    printed, messages = capsys.readouterr()
    assert "note: without cuhk03,split=new" in messages
    (tasks,) = captured
    assert f"the papers' tables, smoke: {len(tasks)} trainings left" in messages
    assert printed.startswith(f"{len(tasks)} trainings, 0 failed\n")
    by_name = {task.name: task for task in tasks}
    first, second = (by_name[f"jlml-smoke-grid{trial}-seed0-pretrained"] for trial in ("", ",trial=1"))
    assert "jlml-smoke-grid,trial=2-seed0-pretrained" not in by_name
    assert first.after == second.after == ("jlml-smoke-cuhk03+market1501-seed0",)
    assert tasks[0].name == first.after[0]
    assert {task.seconds for task in tasks} == {None}
    # One finished training tells the durations of the others of its row, by their steps.
    by_name["jlml-smoke-market1501-seed0"].function(*by_name["jlml-smoke-market1501-seed0"].arguments)
    assert main([*command, *given, *limits]) == 1
    left = {task.name: task for task in captured[-1]}
    assert by_name.keys() - left.keys() == {"jlml-smoke-market1501-seed0"}
    assert left[first.name].seconds > 0
    assert left["pyramid-smoke-market1501-seed0"].seconds is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jlml", "--folder", "grid=DIR"], "are for all rows, `reidlib train all`, or for --curve; got jlml"),
        (["all", "--trials", "3"], "got no --folder"),
        (["all", "--folder", "grid=GRID", "--trials", "gird=3"], "did you mean grid"),
        (["all", "--folder", "grid=GRID", "--benchmark", "viper"], "leave --benchmark"),
        (["all", "--folder", "grid=GRID", "--trials", "grid=0"], "[NAME=]N, is a whole number from 1"),
        (["all", "--folder", "grid=nowhere"], "the folder of grid exists"),
    ],
)
def test_a_queue_that_cannot_be_is_refused_in_one_line(words, message, folders, capsys):
    words = [word.replace("GRID", folders["grid"]) for word in words]
    try:
        status = main(["train", *words, "--profile", "smoke", "--device", "cpu"])
    except SystemExit as error:
        status = error.code
    assert status == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_training_folders_alone_are_pretrained_on_once(folders):
    """The training that others start from has no test images: it ends without scores, and is not repeated."""
    alone = {f"{name},training_only=true": folders[name] for name in ("cuhk03", "market1501")}
    given = {"grid": folders["grid"], **alone}
    setup = Setup("smoke", device="cpu", progress=False)
    first, *others = benchmark_tasks(given, setup, trials=1)
    assert first.name == "jlml-smoke-cuhk03,training_only=true+market1501,training_only=true-seed0"
    first.function(*first.arguments)
    left = benchmark_tasks(given, setup, trials=1)
    assert [task.name for task in left] == [task.name for task in others]
    (fine_tuned,) = (task for task in left if task.name.startswith("jlml-smoke-grid"))
    assert fine_tuned.after == () and fine_tuned.seconds > 0
