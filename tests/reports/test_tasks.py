"""The trainings that come before the notebooks; finished work is not repeated."""

import re
from pathlib import Path

import nbformat
import pytest

from reidlib import files
from reidlib.analysis import ablations, benchmark_runs, benchmark_tables, claims
from reidlib.experiments import EXPERIMENTS, Setup
from reidlib.experiments.rows import PERTURBATIONS
from reidlib.reports.notebook import read_source
from reidlib.reports.tasks import tasks
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
        assert bool(SOURCES[path.stem].trainings) == bool(re.search(r"gather\(|obtain\(", code)), path.stem
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
        "42_benchmarks": benchmark_runs.own_rows(benchmark_tables.TABLES),
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


def test_perturbed_images_are_rendered_before_the_trainings(home):
    missing = missing_tasks("36_box_misalignment")
    num_renderings = sum(len(values) - 1 for values in PERTURBATIONS.values())
    assert all(name.startswith("rendering ") for name in names(missing)[:num_renderings])
    assert len(missing) == num_renderings + 5


def test_a_notebook_without_trainings_waits_for_nothing(home):
    assert missing_tasks("00_start_here", "10_data_inspection") == []


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
    (jlml,) = [task for task in missing if task.name.startswith("jlml")]
    for task in [*missing[:-5], jlml]:
        task.function(*task.arguments)
    # Rendered images are no task any more, although the other networks are not evaluated on them yet.
    remaining = names(missing_tasks("36_box_misalignment"))
    assert [name.partition("-smoke")[0] for name in remaining] == [
        "pyramid", "pyramid-global", "pyramid-stripes", "pyramid-stripes-same-rate",
    ]  # fmt: skip
    (folder,) = files.runs().glob("jlml-smoke*")
    assert len(list((folder / "conditions").iterdir())) == 9
    # A run that was copied from another machine without its weights needs no task.
    (folder / "weights.pt").unlink()
    assert not [name for name in names(missing_tasks("36_box_misalignment")) if name.startswith("jlml")]
