"""A curve from made-up evidence, whose differences and numbers of persons are worked out by hand."""

import json
import math
import shutil
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from rows_with_scores import PERSONS, write_run

from reidlib.analysis.learning_curves import Curve, Point, sizes
from reidlib.cli.suite import _curve_state, _runs_state
from reidlib.data.readers.thinning import THINNING
from reidlib.errors import InputError
from reidlib.experiments import evidence
from reidlib.experiments.rows import PROFILES
from reidlib.reports.notebook import read_source
from reidlib.visual import figures

TARGET = "market1501,validation=true"
# mAP in per cent from random weights and from rendered people; the seeds' means differ by twice SEED.
SCRATCH = {31: 10.0, 62: 20.0, 125: 30.0, 250: 40.0, 500: 50.0}
RENDERED = {31: 25.0, 62: 25.0, 125: 35.0, 250: 40.0, 500: 50.0}
SEED = 0.5


def set_scores(run, mean, seed, tilt=0.0):
    """Give every query the mean, but for a shift by seed, the same of all rows, and one by person."""
    path = run.folder / "scores.json"
    scores = json.loads(path.read_text())
    values = [mean + SEED * (2 * seed - 1) + tilt * (-1) ** int(person) for person in PERSONS]
    for kind in scores["branches"]["full"].values():
        valid = [first > 0 for first in kind["first_match_rank"]]
        kind["average_precision"] = [v / 100 if ok else None for v, ok in zip(values, valid, strict=True)]
        known = [v for v in kind["average_precision"] if v is not None]
        kind["mean_average_precision"] = sum(known) / len(known)
    path.write_text(json.dumps(scores))
    path = run.folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"training_persons": 500}))


def write_curve(folder, seeds=(0, 1), rendered=RENDERED, tilt=0.0):
    for seed in seeds:
        start = write_run(folder, benchmark="synthetic", data="a" * 16, seed=seed)
        digest = start.folder.name.rpartition("-")[2]
        for number, persons in enumerate(SCRATCH):
            name = TARGET + (f",train_persons={persons}" if persons < 500 else "")
            data = f"{number}" * 16
            set_scores(write_run(folder, benchmark=name, data=data, seed=seed), SCRATCH[persons], seed)
            run = write_run(folder, benchmark=name, data=data, seed=seed, start=digest)
            set_scores(run, rendered[persons], seed, tilt)
        for images, mean in ((2, 12.0), (4, 24.0)):
            name, data = f"{TARGET},images_per_person={images}", f"{images}{'b' * 15}"
            set_scores(write_run(folder, benchmark=name, data=data, seed=seed), mean, seed)
    return folder


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    """The curve from evidence, which the runs were added to."""
    folder = tmp_path_factory.mktemp("curve")
    addition = evidence.add(write_curve(folder / "runs"), folder / "evidence")
    assert addition.refused == [] and len(addition.added) == 26
    assert sorted(path.name for path in (folder / "evidence").iterdir()) == [
        "quick-market1501,validation=true",
        "quick-market1501,validation=true-pretrained",
        "quick-synthetic",
    ]
    described = "\n".join(evidence.describe(folder / "evidence"))
    assert "quick-market1501,validation=true: market1501,validation=true; 1 row, 6 thinned" in described
    return Curve.read("jlml", "quick", TARGET, evidence_alone=True, evidence=folder / "evidence")


def test_sizes_are_halves_and_images_of_each():
    assert sizes(500) == [(31, 0), (62, 0), (125, 0), (250, 0), (0, 2), (0, 4), (0, 8), (0, 0)]
    assert sizes(8) == [(2, 0), (4, 0), (0, 2), (0, 4), (0, 8), (0, 0)]


def test_points_are_found_with_their_persons(curve):
    assert curve.starts == ["", "synthetic"] and curve.all_persons == 500
    assert [curve.persons(point) for point in curve.points("synthetic")] == [31, 62, 125, 250, 500]
    assert curve.points("")[-1] == Point()
    assert all(sorted(runs) == [0, 1] for runs in curve.found.values())


def test_gains_are_the_differences_at_equal_images(curve):
    for persons in RENDERED:
        point = Point("synthetic", persons if persons < 500 else 0)
        gain = curve.gain(point)
        assert gain.mean == pytest.approx(RENDERED[persons] - SCRATCH[persons], abs=1e-4)
        assert (gain.low, gain.high) == pytest.approx((gain.mean, gain.mean), abs=1e-3)  # same seeds
    assert curve.gain(Point("", 31)) is None and curve.gain(Point("grid", 31)) is None
    score = curve.score(Point("", 62))
    # Two seeds, half a point above and below, and no difference between persons: Student's t, one degree.
    assert score.mean == pytest.approx(20, abs=1e-4)
    assert score.high - score.mean == pytest.approx(12.706 * 0.5, abs=0.01)


def test_persons_saved_are_on_the_line_over_the_logarithm(curve):
    worth = curve.equivalent(Point("synthetic", 62))  # 25: between 20 with 62 persons and 30 with 125
    assert worth.persons == pytest.approx(math.sqrt(62 * 125), rel=1e-3)
    assert (worth.low, worth.high) == pytest.approx((88, 88), rel=0.03)
    assert (worth.smallest, worth.largest, worth.seeds) == (31, 500, 2)
    assert curve.equivalent(Point("synthetic", 125)).persons == pytest.approx(math.sqrt(125 * 250), rel=1e-3)
    assert "62 persons are worth 88 [" in " ".join(curve.sentences())


def test_ends_of_the_line_and_wide_intervals_are_open(tmp_path):
    rendered = dict.fromkeys(SCRATCH, 70.0) | {31: 1.0, 62: 48.0}
    folder = write_curve(tmp_path, rendered=rendered, tilt=8.0)
    curve = Curve.read("jlml", "quick", TARGET, runs=folder, evidence=tmp_path / "none")
    worth = [str(curve.equivalent(Point("synthetic", persons))) for persons in (31, 62, 125)]
    assert worth[0] == "fewer than 31"
    assert worth[2] == "more than 500"
    assert worth[1].endswith(", 500 or more]"), worth
    assert 400 < float(worth[1].split()[0]) < 500


def test_one_seed_speaks_of_persons_only_and_two_points_are_needed(tmp_path):
    folder = write_curve(tmp_path, seeds=(0,))
    curve = Curve.read("jlml", "quick", TARGET, runs=folder, evidence=tmp_path / "none")
    caveat, *sentences = curve.sentences()
    assert "one seed" in caveat
    about = "mAP (step) in points less that of all 500 persons and all their images: "
    assert sentences[0].startswith(f"**From random weights**, {about}−40.0 [")
    assert "−10.0 [" in sentences[0].partition(" with 125 persons, ")[2]
    assert "with 2 images of each, −26.0 [" in sentences[0]
    assert sentences[1].startswith(f"**From rendered people**, {about}−25.0 [")
    gains = "people**, mAP (step) in points on the same images: above random weights with 31 persons (+15.0 ["
    assert gains in sentences[2]
    alone = {
        point: runs for point, runs in curve.found.items() if point in (Point("", 31), Point("synthetic", 31))
    }
    few = Curve("jlml", "quick", TARGET, TARGET, alone)
    assert few.equivalent(Point("synthetic", 31)) is None and few.all_persons == 0
    assert any("no run of" in line for line in few.missing())
    # A profile without a rendered benchmark trains no start on rendered people.
    starts = {profile: "".join(Curve("jlml", profile, TARGET, TARGET, {}).missing()) for profile in PROFILES}
    assert "from rendered people" in starts["quick"]
    assert "from rendered people" not in starts["photographs"] and "from random" in starts["photographs"]


def test_a_part_that_was_trained_for_longer_is_told(tmp_path):
    """A set of few images is trained for fewer steps than the least of its parts."""
    write_curve(tmp_path, seeds=(0,))
    read = partial(Curve.read, "jlml", "quick", TARGET, runs=tmp_path, evidence=tmp_path / "none")
    assert "up to" not in "".join(read().sentences())
    for path in tmp_path.glob("*/run.json"):
        if "persons" in json.loads((path.parent / "config.json").read_text())["benchmark"]:
            path.write_text(json.dumps(json.loads(path.read_text()) | {"steps": 800}))
    sentences = read().sentences()
    told = "**, a training on all images has 5 steps and one on a part of them up to 800: "
    assert [text.partition(told)[0] for text in sentences if told in text] == [
        "**From random weights",
        "**From rendered people",
    ]


def test_a_new_point_makes_the_page_again(tmp_path):
    """Its runs are trained by no report; those of a report leave the page as it is."""
    states = [_curve_state(tmp_path)]
    (tmp_path / "jlml-quick-viper-seed0-0" / "run.json").mkdir(parents=True)
    assert states == [_curve_state(tmp_path)] != [_runs_state(tmp_path)]
    for name in (*(f"viper,{name}=9-seed0" for name in THINNING), "viper-seed0-pretrained"):
        (tmp_path / f"jlml-quick-{name}-0" / "run.json").mkdir(parents=True)
        states.append(_curve_state(tmp_path))
    assert len(set(states)) == 4
    sources = [read_source(path) for path in (Path(__file__).parents[2] / "notebooks").glob("*.ipynb")]
    assert [source.name for source in sources if "target" in source.parameters] == ["44_learning_curves"]


def test_points_are_compared_on_the_seeds_that_all_have(tmp_path):
    write_curve(tmp_path)
    for path in tmp_path.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config["seed"] == 1 and "train_persons=31" in config["benchmark"]:
            shutil.rmtree(path.parent)
    curve = Curve.read("jlml", "quick", TARGET, runs=tmp_path, evidence=tmp_path / "none")
    assert {tuple(runs) for runs in curve.found.values()} == {(0,)}
    assert curve.notes == ("10 runs not used: all points share only seed 0",)


def test_own_runs_come_first_and_other_images_are_not_mixed(tmp_path):
    write_curve(tmp_path / "kept", seeds=(0,))
    evidence.add(tmp_path / "kept", tmp_path / "evidence")
    name = f"{TARGET},train_persons=31"
    own = write_run(tmp_path / "runs", benchmark=name, data="f" * 16, seed=0)
    curve = Curve.read("jlml", "quick", TARGET, runs=tmp_path / "runs", evidence=tmp_path / "evidence")
    assert curve.found[Point("", 31)][0].folder == own.folder
    assert Point("synthetic", 31) not in curve.found and curve.notes == ("2 runs not used: of other images",)
    (own.folder / "config.json").write_text("{")  # damaged: what is kept remains
    curve = Curve.read("jlml", "quick", TARGET, runs=tmp_path / "runs", evidence=tmp_path / "evidence")
    assert isinstance(curve.found[Point("", 31)][0], evidence.EvidenceRun) and curve.notes == ()


def test_a_target_may_be_written_in_another_way():
    read = partial(Curve.read, "jlml", "quick", evidence_alone=True)
    curve, other = (read(target) for target in (TARGET, TARGET.replace("true", "Yes")))  # of the clone
    assert curve.found.keys() == other.found.keys() != set() and other.target == TARGET


def test_without_runs_there_are_commands_and_a_thinned_target_is_refused(tmp_path):
    curve = Curve.read("jlml", "quick", TARGET, runs=tmp_path, evidence=tmp_path)
    assert curve.sentences() == [] and curve.table().empty and curve.starts == []
    assert (
        f"reidlib train jlml --curve --profile quick --benchmark {TARGET} --data-root DIR"
        in curve.missing()[-1]
    )
    with pytest.raises(InputError, match=r"whole benchmark.*give market1501"):
        Curve.read("jlml", "quick", "market1501,train_persons=5", runs=tmp_path)


def test_table_and_figure(curve):
    table = curve.table()
    assert len(table) == 12 and list(table.columns)[:4] == ["start", "persons", "images of each", "seeds"]
    line = table[(table["start"] == "rendered people") & (table["persons"] == 62)].iloc[0]
    assert line["mAP (step)"].startswith("25.0 [") and str(line["Δ mAP (step)"]).startswith("+5.0 [")
    assert line["persons from random weights"].startswith("88 [")
    figure = figures.benchmarks.learning_curves(curve)
    left, right = figure.axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["31", "62", "125", "250", "500"]
    assert [text.get_text() for text in right.get_xticklabels()] == ["2", "4", "all"]
    assert len(left.containers) == 2
    plt.close(figure)
