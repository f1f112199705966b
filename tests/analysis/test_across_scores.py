"""Trained on × tested on: means over partitions and seeds, stored scores without a folder, refused pairs."""

import json
import shutil
from pathlib import Path

import pytest
from miniature import write_image
from small_miniatures import write_cuhk01, write_viper
from test_benchmark_runs import home  # noqa: F401 (a fixture: networks of a few steps)

from reidlib.analysis import benchmark_runs
from reidlib.analysis.benchmark_runs import NO_SCORE, REFUSED, gather_across
from reidlib.analysis.scores import Spread
from reidlib.cli import main
from reidlib.data import load_specified
from reidlib.errors import InputError
from reidlib.experiments.evaluate import evaluate_across
from reidlib.experiments.setup import Setup
from reidlib.visual.figures.benchmarks import across_scores

VALIDATION, VIPER, CUHK01 = "market1501,validation=true", "viper,test_persons=2", "cuhk01,test_persons=2"


@pytest.fixture
def folders(market, tmp_path, monkeypatch):
    """A training folder of Market-1501 and two small sets; rendered people are left out."""
    for person in range(30, 36):
        for camera in (1, 2):
            name = f"{person:04}_c{camera}s1_000001_00.jpg"
            write_image(market / "bounding_box_train" / name, seed=person + 10 * camera)
    monkeypatch.setattr(benchmark_runs.across, "ACROSS", (VALIDATION, VIPER, CUHK01))
    roots = {"market1501": market, VIPER: write_viper(tmp_path / "v"), CUHK01: write_cuhk01(tmp_path / "c")}
    return {name: str(root) for name, root in roots.items()}


@pytest.fixture
def setup(monkeypatch):
    setup = Setup("smoke", device="cpu", progress=False)
    object.__setattr__(setup.profile, "rendered_size", None)
    yield setup
    object.__setattr__(setup.profile, "rendered_size", "smoke")


def values(across, row, trained, tested):
    return across.values[row, trained, tested]


def test_cells_are_means_over_partitions_and_own_scores(folders, setup):
    across = gather_across(("jlml",), setup, folders, trials=3)
    assert across.refused == {} and across.runs.missing == ()
    assert set(across.titles) == {VALIDATION, VIPER, CUHK01}
    assert across.titles[VALIDATION] == "Market-1501, 5 training / 3 validation persons"
    assert across.trainings[VALIDATION] == across.titles[VALIDATION]
    assert across.titles[VIPER] == "VIPeR, test_persons=2, 2 test persons, single-shot"
    assert across.trainings[VIPER] == "VIPeR, test_persons=2, 2 training persons"
    (run,) = across.runs.runs[f"jlml on {VALIDATION}"]
    full = run.scores["branches"]["full"]["step"]
    own = (100 * full["cmc"]["1"], 100 * full["mean_average_precision"])
    assert values(across, "jlml", VALIDATION, VALIDATION) == [pytest.approx(own)]
    features = []
    for trial in range(3):
        tested = load_specified(f"{CUHK01},trial={trial}", folders[CUHK01])
        features.append(evaluate_across(run, tested)["branches"]["full"])
    expected = (
        sum(full["protocols"]["single-shot"]["cmc"]["1"] for full in features) * 100 / 3,
        sum(full["step"]["mean_average_precision"] for full in features) * 100 / 3,
    )
    assert values(across, "jlml", VALIDATION, CUHK01) == [pytest.approx(expected)]
    assert len(across.table()) == 3 and len(across.sentences()) == 3
    # A run of another recipe has the same name but for its hash.
    other = run.folder.with_name(run.folder.name[:-12] + "0" * 12)
    shutil.copytree(run.folder, other)
    content = json.loads((other / "config.json").read_text())
    content["recipe"]["steps"] += 1
    (other / "config.json").write_text(json.dumps(content))
    # Without folders, all that is stored is shown, and only that.
    stored = gather_across(("jlml",), setup, {}, trials=3)
    assert stored.values == across.values
    assert gather_across(("jlml",), setup, {}, trials=1).values != across.values
    assert stored.titles[CUHK01] == across.titles[CUHK01]


def test_what_is_not_there_has_a_dash_and_a_command(folders, setup, tmp_path, monkeypatch):
    across = gather_across(("jlml", "pyramid"), setup, {})
    assert (across.values, across.titles, across.sentences()) == ({}, {}, [])
    assert len(across.table()) == 0 and len(across.lacking("smoke")) == 9
    assert (
        f"`reidlib train jlml --profile smoke --benchmark {VIPER} --data-root DIR`"
        in across.lacking("smoke")[3]
    )
    with monkeypatch.context() as patch:
        patch.setattr(benchmark_runs.across, "ACROSS", ("synthetic", VIPER))
        # A profile that renders nothing has no rendered people to train on, and no command to do so.
        assert [len(across.lacking(profile)) for profile in ("quick", "photographs")] == [6, 3]
    untrained = Setup("smoke", device="cpu", progress=False, may_train=False)
    object.__setattr__(untrained.profile, "rendered_size", None)
    across = gather_across(("jlml",), untrained, {VIPER: folders[VIPER]})
    assert len(across.runs.missing) == 1 and across.values == {}
    gather_across(("jlml",), setup, {VIPER: folders[VIPER]})
    across = gather_across(("jlml",), untrained, {VIPER: folders[VIPER], CUHK01: folders[CUHK01]})
    cells = across.spreads().loc["jlml"]
    assert isinstance(cells.iloc[0, 0], Spread) and isinstance(cells.iloc[0, 1], Spread)
    assert len(across.runs.missing) == 1
    # A damaged file of scores is as good as none.
    (run,) = across.runs.runs[f"jlml on {VIPER}"]
    (file,) = (run.folder / "across").iterdir()
    file.write_text(json.dumps({"benchmark": 3}))
    assert gather_across(("jlml",), untrained, {VIPER: folders[VIPER]}).spreads().shape == (1, 1)
    with pytest.raises(InputError, match="did you mean viper"):
        gather_across(("jlml",), setup, {"vipr": "x"})


def test_the_page_needs_no_run_and_a_training_folder_alone(folders, tmp_path, capsys):
    for name in ("query", "bounding_box_test"):
        shutil.rmtree(Path(folders["market1501"]) / name)
    words = ["reproduce", "43", "--profile", "smoke", "--no-train", "--device", "cpu"]
    assert main([*words, "--folder", f"market1501={folders['market1501']}"]) == 0
    page = (tmp_path / "home" / "smoke" / "43_across_benchmarks" / "index.html").read_text()
    assert "train it, or copy it there" in page
    command = "reidlib train jlml --profile smoke --benchmark market1501,validation=true --data-root DIR"
    assert command in page
    assert main([*words, "--folder", f"market1501={tmp_path}"]) == 2
    assert "bounding_box_train" in capsys.readouterr().err.splitlines()[-1]


def test_tests_on_training_persons_are_refused_and_the_figure_says_so(folders, setup, styled_figures):
    trials = [load_specified(f"{VIPER},trial={trial}", folders[VIPER]) for trial in range(10)]
    trained = set(trials[0].train.person_ids.tolist())
    leaking = next(t.specification for t in trials if trained & set(t.query.person_ids.tolist()))
    names = {VIPER: folders[VIPER], leaking: folders[VIPER], CUHK01: folders[CUHK01]}
    across = gather_across(("jlml", "pyramid"), setup, names)
    key = "jlml", VIPER, leaking
    assert "not trained on" in across.refused[key] and key not in across.values
    rank1 = across.spreads()
    assert rank1.loc[("jlml", across.trainings[VIPER]), across.titles[leaking]] == REFUSED
    figure = across_scores(rank1, across.spreads(1))
    figure.canvas.draw()
    assert [axes.get_title() for axes in figure.axes] == ["JLML", "Pyramid"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == rank1.loc["jlml"].size and texts.count(REFUSED) >= 1
    assert all(text.startswith("R1 ") or text in (REFUSED, NO_SCORE) for text in texts)
