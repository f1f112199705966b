"""Which trainings wait before the notebooks, and that what is done is not done again."""

import re
from pathlib import Path

import nbformat
import pytest

from reidlib import files
from reidlib.analysis import ablations, benchmark_runs, claims
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


def wanted(*notebooks, **keywords):
    return tasks(
        (SOURCES[name] for name in notebooks), Setup("smoke", device="cpu", progress=False, **keywords)
    )


def names(found):
    return [task.name for task in found]


def test_every_notebook_that_trains_is_known():
    for path in NOTEBOOKS:
        code = "\n".join(c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code")
        assert bool(SOURCES[path.stem].trainings) == bool(re.search(r"gather\(|obtain\(", code)), path.stem
    for source in SOURCES.values():
        assert set(source.trainings) <= set(EXPERIMENTS)


def test_the_metadata_name_what_is_gathered():
    """Rows and conditions in a notebook's metadata are those of its ablation and of its claims."""
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
        "42_benchmarks": benchmark_runs.OWN,
        "90_claims": claims.required_experiments()[0],
    }
    for name, rows in ablation.items():
        assert set(SOURCES[name].trainings) == set(rows), name
    misaligned = {cell.experiment for cell in ablations.MISALIGNMENT.values()}
    claimed, under = claims.required_experiments(claims.of_notebook("36_box_misalignment"))
    assert set(SOURCES["36_box_misalignment"].trainings) == misaligned | set(claimed)
    short = {name: [c.name for c in conditions] for name, conditions in under.items()}
    assert SOURCES["36_box_misalignment"].perturbations == short | dict.fromkeys(misaligned, "all")
    short = {
        name: [c.name for c in conditions] for name, conditions in claims.required_experiments()[1].items()
    }
    assert SOURCES["90_claims"].perturbations == short


def test_every_experiment_is_shown_somewhere():
    shown = {name for source in SOURCES.values() for name in source.trainings}
    assert shown == set(EXPERIMENTS)


def test_a_training_that_several_notebooks_want_is_one_task(home):
    found = wanted("20_train_jlml", "30_ablation_losses", "31_ablation_shared_features", seeds=2)
    assert names(found) == [
        f"{name}-smoke-synthetic-seed{seed}"
        for seed in (0, 1)
        for name in ("jlml", "jlml-uniloss", "jlml-separate")
    ]
    assert found[0].notebooks == ("20_train_jlml", "30_ablation_losses", "31_ablation_shared_features")
    assert found[1].notebooks == ("30_ablation_losses",)


def test_conditions_are_rendered_before_the_trainings(home):
    found = wanted("36_box_misalignment")
    turned = sum(len(values) - 1 for values in PERTURBATIONS.values())
    assert all(name.startswith("rendering ") for name in names(found)[:turned])
    assert len(found) == turned + 5


def test_a_notebook_without_trainings_waits_for_nothing(home):
    assert wanted("00_start_here", "10_data_inspection") == []


def test_what_is_done_is_no_task(home):
    (task,) = wanted("20_train_jlml")
    task.function(*task.arguments)
    assert wanted("20_train_jlml") == []
    (folder,) = files.runs().glob("jlml-smoke*")
    assert names(wanted("30_ablation_losses")) == ["jlml-uniloss-smoke-synthetic-seed0"]
    trained = (folder / "weights.pt").stat().st_mtime_ns
    (folder / "scores.json").unlink()  # evaluated again, not trained again
    (task,) = wanted("20_train_jlml")
    task.function(*task.arguments)
    assert (folder / "weights.pt").stat().st_mtime_ns == trained
    assert Run(folder).scores is not None


def test_conditions_of_a_trained_run_are_a_task_of_their_own(home):
    for task in wanted("20_train_jlml"):
        task.function(*task.arguments)
    found = wanted("36_box_misalignment")
    (jlml,) = [task for task in found if task.name.startswith("jlml")]
    for task in [*found[:-5], jlml]:
        task.function(*task.arguments)
    # What is rendered is no task any more, though the other networks still wait for it.
    left = names(wanted("36_box_misalignment"))
    assert [name.partition("-smoke")[0] for name in left] == [
        "pyramid", "pyramid-global", "pyramid-stripes", "pyramid-stripes-same-rate",
    ]  # fmt: skip
    (folder,) = files.runs().glob("jlml-smoke*")
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "conditions").iterdir()}
    assert len(kept) == 9
    # Carried to a machine without its weights it is as good as ever.
    (folder / "weights.pt").unlink()
    assert not [name for name in names(wanted("36_box_misalignment")) if name.startswith("jlml")]
