"""The trainings that come before the notebooks; finished work is not repeated."""

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import nbformat
import pytest
import torch
from miniature import write_image

from reidlib import files
from reidlib.analysis import ablations, benchmark_runs, benchmark_tables, claims
from reidlib.cli import main
from reidlib.experiments import EXPERIMENTS, Setup
from reidlib.experiments.rows import LEARNT_METRICS, PERTURBATIONS
from reidlib.reports.notebook import read_source
from reidlib.reports.tasks import curve_tasks, measured, tasks, training_memory
from reidlib.training.device import Execution
from reidlib.training.runs import Run

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
SOURCES = {path.stem: read_source(path) for path in NOTEBOOKS}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REIDLIB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def missing_tasks(*notebooks, **keywords):
    return tasks(
        (SOURCES[name] for name in notebooks), Setup("smoke", device="cpu", progress=False, **keywords)
    )


def names(tasks):
    return [task.name for task in tasks]


def test_notebooks_that_train_say_so_in_their_metadata():
    for path in NOTEBOOKS:
        code = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
        assert bool(SOURCES[path.stem].trainings) == bool(
            re.search(r"(gather|gather_across|obtain)\(", code)
        ), path.stem
    for source in SOURCES.values():
        assert set(source.trainings) <= set(EXPERIMENTS)


def test_metadata_agree_with_ablations_and_claims():
    """Rows and perturbations in a notebook's metadata are those of its ablation and of its claims."""
    ablation = {
        "30_ablation_losses": ablations.LOSSES.experiments,
        "31_ablation_shared_features": ablations.SHARED_FEATURES.experiments,
        "32_ablation_feature_selection": ablations.FEATURE_SELECTION.experiments,
        "33_ablation_part_counts": ablations.PART_COUNTS.experiments,
        "34_ablation_dynamic_training": ablations.DYNAMIC_TRAINING.experiments,
        "35_ablation_pyramid_levels": (
            *ablations.PYRAMID_LEVELS.experiments,
            *ablations.PYRAMID_LEVELS_SAME_RATE.experiments,
        ),
        "40_metric_learning": ("jlml", "pyramid"),
        "42_benchmarks": benchmark_runs.own_rows(benchmark_tables.TABLES),
        "43_across_benchmarks": benchmark_runs.OWN_ROWS,
        "90_claims": claims.required_experiments()[0],
    }
    for name, rows in ablation.items():
        assert set(SOURCES[name].trainings) == set(rows), name
    misaligned = {cell.experiment for cell in ablations.MISALIGNMENT.values()}
    claimed, under = claims.required_experiments(claims.claims_of_notebook("36_box_misalignment"))
    assert set(SOURCES["36_box_misalignment"].trainings) == misaligned | set(claimed)
    short = {
        name: [perturbation.name for perturbation in perturbations] for name, perturbations in under.items()
    }
    assert SOURCES["36_box_misalignment"].perturbations == short | dict.fromkeys(misaligned, "all")
    short = {
        name: [perturbation.name for perturbation in perturbations]
        for name, perturbations in claims.required_experiments()[1].items()
    }
    assert SOURCES["90_claims"].perturbations == short
    required = {row: [*metrics] for row, metrics in claims.required_metrics().items()}
    assert SOURCES["90_claims"].metrics == required
    assert SOURCES["40_metric_learning"].metrics == {row: [*LEARNT_METRICS] for row in ("jlml", "pyramid")}


def test_a_notebook_shows_every_experiment():
    rows = {name for source in SOURCES.values() for name in source.trainings}
    assert rows == set(EXPERIMENTS)


def test_a_training_that_several_notebooks_want_is_one_task(home):
    missing = missing_tasks("20_train_jlml", "30_ablation_losses", "31_ablation_shared_features", seeds=2)
    assert names(missing) == [
        f"{name}-smoke-synthetic-seed{seed}"
        for seed in (0, 1)
        for name in ("jlml", "jlml-uniloss", "jlml-separate")
    ]
    assert missing[0].notebooks == ("20_train_jlml", "30_ablation_losses", "31_ablation_shared_features")
    assert missing[1].notebooks == ("30_ablation_losses",)


def test_perturbed_images_are_a_task_for_each_factor_after_the_trainings(home):
    missing = missing_tasks("36_box_misalignment", "90_claims", seeds=2)
    factors = [f"perturbed {factor}" for factor in PERTURBATIONS]
    assert sorted(names(missing)[-3:]) == sorted(factors) and not set(factors) & set(names(missing)[:-3])
    requests = {task.name.split()[1]: task.arguments[1] for task in missing[-3:]}
    for factor, rows in requests.items():
        for row in ("jlml", "pyramid", "pyramid-global", "pyramid-stripes"):
            # Three values of four; the usual one, which the factors have in common, is in one task.
            number = 6 if factor == "occlusion_share" else 3
            assert len(set(rows[row, 1])) == len(rows[row, 1]) == number
    assert all(task.notebooks == ("36_box_misalignment", "90_claims") for task in missing[-3:])


def test_a_notebook_without_trainings_waits_for_nothing(home):
    assert missing_tasks("00_start_here", "10_data_inspection") == []


def test_a_training_does_not_wait_for_what_it_does_not_use():
    unused = {"pandas", "scipy.stats", "torchvision"}
    code = f"import sys, reidlib.reports.tasks; print({unused} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "set()\n"


def test_finished_work_is_no_task(home):
    (task,) = missing_tasks("20_train_jlml")
    task.function(*task.arguments)
    assert missing_tasks("20_train_jlml") == []
    (folder,) = files.runs().glob("jlml-smoke*")
    assert names(missing_tasks("30_ablation_losses")) == ["jlml-uniloss-smoke-synthetic-seed0"]
    trained = (folder / "weights.pt").stat().st_mtime_ns
    (folder / "scores.json").unlink()  # evaluated again, not trained again
    (task,) = missing_tasks("20_train_jlml")
    task.function(*task.arguments)
    assert (folder / "weights.pt").stat().st_mtime_ns == trained
    assert Run(folder).scores is not None


def test_missing_perturbations_of_a_trained_run_are_a_task(home):
    for task in missing_tasks("20_train_jlml"):
        task.function(*task.arguments)
    missing = missing_tasks("36_box_misalignment")
    assert not [name for name in names(missing) if name.startswith("jlml")]
    for task in missing[-3:]:
        setup, rows, since = task.arguments
        task.function(setup, {row: under for row, under in rows.items() if row[0] == "jlml"}, since)
    (folder,) = files.runs().glob("jlml-smoke*")
    assert len(list((folder / "conditions").iterdir())) == 10  # nine and the usual one
    missing = missing_tasks("36_box_misalignment")
    assert "jlml" not in {row for task in missing[-3:] for row, _ in task.arguments[1]}
    # A run that was copied from another machine without its weights needs no task.
    (folder / "weights.pt").unlink()
    (folder / "conditions" / "usual.json").unlink()
    missing = missing_tasks("36_box_misalignment")
    assert "jlml" not in {row for task in missing[-3:] for row, _ in task.arguments[1]}


def test_learnt_metrics_of_a_run_are_a_task_until_it_has_their_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path))
    training, metrics = missing_tasks("20_train_jlml", "40_metric_learning")[::2]
    assert (training.name, metrics.name) == (
        "jlml-smoke-synthetic-seed0",
        f"learnt metrics of {training.name}",
    )
    assert metrics.after == (training.name,) and metrics.notebooks == ("40_metric_learning",)
    metrics.function(*metrics.arguments)  # trains first
    (folder,) = files.runs().glob("jlml-smoke*")
    assert {path.stem for path in (folder / "metrics").iterdir()} == {"L2", *LEARNT_METRICS}
    assert not [task for task in missing_tasks("40_metric_learning") if "jlml" in task.name]
    (folder / "metrics" / "CRAFT.json").unlink()
    (again,) = [task for task in missing_tasks("40_metric_learning") if "jlml" in task.name]
    assert again.arguments[3] == ["CRAFT"]
    (folder / "weights.pt").unlink()  # copied from another machine: nothing can be computed here
    assert not [task for task in missing_tasks("40_metric_learning") if "jlml" in task.name]


def test_all_rows_are_trained_without_notebooks(home, monkeypatch, capsys):
    """A notebook's row with two seeds, of which the first is there already, then once more."""
    for task in missing_tasks("20_train_jlml"):
        task.function(*task.arguments)
    chosen = tuple(path for path in NOTEBOOKS if path.stem == "20_train_jlml")
    monkeypatch.setattr("reidlib.reports.reproduce.select", lambda *_: chosen)
    words = ["train", "all", "--profile", "smoke", "--device", "cpu", "--seeds", "2", "--jobs", "2"]
    assert main(words) == 0
    printed, messages = capsys.readouterr()
    assert printed == f"2 trainings, 0 failed\nruns: {files.runs()}\n"
    lines = messages.splitlines()
    assert lines[0] == "1 row, 2 seeds, smoke: 1 of 2 trainings are finished, 1 left"
    assert re.fullmatch(r"tasks to be done: 1; at a time: 1, about 0:\d\d left", lines[1])
    assert lines[2] == "jlml-smoke-synthetic-seed1  running"
    (second,) = files.runs().glob("jlml-smoke-synthetic-seed1-*")
    assert Run(second).scores is not None
    assert not list((files.home() / "smoke").glob("*.html"))
    state = {path: path.stat().st_mtime_ns for path in files.runs().rglob("*")}
    assert main(words) == 0
    assert capsys.readouterr().err == "1 row, 2 seeds, smoke: 2 of 2 trainings are finished, 0 left\n"
    assert state == {path: path.stat().st_mtime_ns for path in files.runs().rglob("*")}


def test_a_learning_curve_is_one_queue_from_each_start(tmp_path, monkeypatch, capsys):
    """Own images, of which some are held out; rendered people and another folder are trained on before."""
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path))
    for name, persons in (("own", 24), ("others", 5)):
        for person, camera, number in product(range(persons), (1, 2), range(5)):
            path = tmp_path / name / f"{name}{person}" / f"c{camera}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, seed=1000 * persons + 100 * person + 10 * camera + number)
    own, others = "folder,validation=true", "folder,training_only=true"
    words = ["train", "jlml", "--curve", "--profile", "smoke", "--device", "cpu", "--jobs", "1"]
    words += ["--benchmark", own, "--data-root", f"{tmp_path / 'own'}"]
    setup = Setup("smoke", own, tmp_path / "own", device="cpu", progress=False, seeds=2)
    before = [(others, str(tmp_path / "others"))]
    found = curve_tasks("jlml", setup, before)
    # Halves of eight persons, 2, 4 and 8 images of each, and all; each from three starts.
    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    assert names(second) == [name.replace("seed0", "seed1") for name in names(first)]
    assert names(first)[:2] == ["jlml-smoke-synthetic-seed0", f"jlml-smoke-{others}-seed0"]
    ends = [f",train_persons={n}" for n in (2, 4)] + [f",images_per_person={n}" for n in (2, 4, 8)] + [""]
    starts = ["", "-pretrained from synthetic", f"-pretrained from {others}"]
    assert names(first)[2:] == [f"jlml-smoke-{own}{end}-seed0{start}" for end in ends for start in starts]
    assert [task.after for task in first[2:5]] == [(), (first[0].name,), (first[1].name,)]
    for task in (first[1], first[4]):  # the folder of others, and two persons from there
        task.function(*task.arguments)
    assert [task.name for task in found if task.name not in names(curve_tasks("jlml", setup, before))] == [
        first[1].name,
        first[4].name,
    ]
    monkeypatch.setattr("reidlib.analysis.learning_curves.planning.IMAGES", (1,))
    assert main(words) == 0
    printed, messages = capsys.readouterr()
    assert printed == f"7 trainings, 0 failed\nruns: {files.runs()}\n"
    rule = f"note: without {own},images_per_person=1: a training needs the images of one batch, 16, and 2 "
    assert rule in messages
    assert main(words) == 0 and capsys.readouterr().out.startswith("0 trainings, 0 failed")
    # The curve's largest set from rendered people is what --pretrain alone gives.
    before = sorted(files.runs().iterdir())
    words = [word for word in words if word != "--curve"][:-6]
    words += ["--benchmark", own, "--data-root", f"{tmp_path / 'own'}", "--pretrain", "synthetic"]
    assert main(words) == 0 and sorted(files.runs().iterdir()) == before
    assert f"{own}-seed0-pretrained-" in capsys.readouterr().out
    thinned = Run(next(files.runs().glob("*persons=2-seed0-*")))
    assert (thinned.information["training_persons"], thinned.information["training_images"]) == (2, 20)


def test_perturbed_factors_are_counted_apart_from_trainings(home, tmp_path, monkeypatch, capsys):
    chosen = tuple(path for path in NOTEBOOKS if path.stem == "36_box_misalignment")
    monkeypatch.setattr("reidlib.reports.reproduce.select", lambda *_: chosen)
    monkeypatch.setattr("reidlib.reports.reproduce.run_tasks", lambda make, *_, **__: make() and {})
    assert main(["train", "all", "--profile", "smoke", "--device", "cpu", "--runs", f"{tmp_path}"]) == 0
    counts = "5 rows, 1 seed, smoke: 0 of 5 trainings are finished, 5 left, then 3 perturbed factors\n"
    assert capsys.readouterr().err == counts


def test_what_trainings_need_is_measured(tmp_path):
    setup = Setup("quick", device="cpu", runs=tmp_path)

    def need() -> tuple[float, str]:
        memory = training_memory(setup)
        return round(memory.needed / 2**20), memory.source

    def write(name: str, **information) -> None:
        (tmp_path / f"{name}-0123456789ab").mkdir()
        content = {"device": "cpu, 2 threads", **information}
        (tmp_path / f"{name}-0123456789ab" / "run.json").write_text(json.dumps(content))

    assert need() == (1126, "estimated for quick")
    write("jlml-quick-synthetic-seed0", seconds=40.5, memory=2000)
    write("jlml-quick-synthetic-seed11", seconds=50.5, memory=1500)
    write("jlml-quick-synthetic-seed12", seconds=999, memory=1500)  # beside other work
    write("jlml-2-quick-synthetic-seed0", seconds=60)
    write("jlml-quick-synthetic-seed0-model.parts=6", seconds=99, memory=9999)
    write("jlml-full-synthetic-seed0", seconds=99, memory=9999)
    write("jlml-6-quick-synthetic-seed0", seconds=99, memory=9999, device="NVIDIA H100", gpu_memory=9)
    write("jlml-8-quick-synthetic-seed0", seconds="99", memory=None)
    (tmp_path / "jlml-10-quick-synthetic-seed0-0123456789ab").mkdir()
    (tmp_path / "jlml-10-quick-synthetic-seed0-0123456789ab" / "run.json").write_text("{")
    assert measured(setup, "seconds") == {"jlml": 50.5, "jlml-2": 60}
    assert measured(setup, "memory") == {"jlml": 2000}
    assert need() == (2000, "estimated for quick")
    write("pyramid-2-quick-synthetic-seed0", seconds=9, memory=2500)
    assert need() == (2500, "measured")


def test_memory_of_a_gpu_is_that_of_the_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(Execution, "torch_device", property(lambda self: torch.device("cuda")))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20 * 2**30, 80 * 2**30))
    setup = Setup("full", runs=tmp_path)
    assert training_memory(setup).jobs == 2
    for model in ("jlml", "pyramid"):
        (folder := tmp_path / f"{model}-full-synthetic-seed0-0123456789ab").mkdir()
        content = {"device": "NVIDIA H100", "seconds": 600, "memory": 3000, "gpu_memory": 5000}
        (folder / "run.json").write_text(json.dumps(content))
    assert (training_memory(setup).jobs, training_memory(setup).source) == (4, "measured")
