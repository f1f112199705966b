"""Scores of each benchmark's protocol, from its public layout, worked by hand on features along a line."""

import numpy as np
import pytest
from cuhk03_miniature import write_archive
from small_miniatures import write_cuhk01, write_grid, write_viper

from reidlib.data import load
from reidlib.ranking.metrics import Embeddings, evaluate
from reidlib.ranking.protocols import evaluate_protocol


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


def embeddings(split, places):
    """Embeddings of one number, looked up by (person, camera) or by file name."""
    values = [
        places[path.name] if path.name in places else places[person, camera]
        for path, person, camera in zip(
            split.paths, split.person_ids.tolist(), split.camera_ids.tolist(), strict=True
        )
    ]
    features = np.array(values, dtype=np.float32)[:, None]
    return Embeddings(features, split.person_ids, split.camera_ids)


def protocol_scores(benchmark, places, title):
    sides = (embeddings(split, places) for split in (benchmark.query, benchmark.gallery))
    return evaluate_protocol(*sides, benchmark.protocols[title], ranks=(1, 2, 3))


def test_grid_ranks_against_all_distractors(tmp_path):
    benchmark = load("grid", write_grid(tmp_path / "underground_reid"))
    assert set(benchmark.query.person_ids.tolist()) == {2, 4}  # 1 and 3 are trained on
    places = {
        (2, 5): 0.0,  # the probe of person 2
        (2, 4): 1.0,  # its match, between the two distractors
        (0, 1): 0.5,
        (0, 3): 2.0,
        (4, 8): 10.0,
        (4, 7): 10.1,  # nearest
    }
    scores = protocol_scores(benchmark, places, "single-shot")
    assert scores.gallery_size == (4, 4)  # two persons and both distractors
    assert scores.cmc == {1: 0.5, 2: 1.0, 3: 1.0}


def test_grid_keeps_the_distractors_of_the_probes_own_camera(tmp_path):
    root = write_grid(tmp_path / "underground_reid")
    benchmark = load("grid", root, trial=1)  # 2 and 4 are trained on; probe 1 and a distractor share camera 1
    assert set(benchmark.query.person_ids.tolist()) == {1, 3}
    places = {(1, 1): 0.0, (1, 2): 1.0, (0, 1): 0.9, (0, 3): 5.0, (3, 2): 20.0, (3, 6): 20.0}
    assert protocol_scores(benchmark, places, "single-shot").cmc == {1: 0.5, 2: 1.0, 3: 1.0}


def test_cuhk01_single_shot_and_multi_shot_differ(tmp_path):
    benchmark = load("cuhk01", write_cuhk01(tmp_path / "CUHK01"), test_persons=3)
    persons = sorted(set(benchmark.query.person_ids.tolist()))
    other = next(person for person in persons if person != 5)
    third = next(person for person in persons if person not in (5, other))
    places = {}
    for person, base in ((other, 0.0), (third, 100.0), (5, 200.0)):
        for index, place in enumerate((base, base, base + 1, base + 1), 1):
            places[f"{person:04}{index:03}.png"] = place
    # One of the other person's two gallery images looks like the third person, nearer than its own.
    places[f"{other:04}004.png"] = 100.5
    several = protocol_scores(benchmark, places, "multi-shot")
    # Means: the other person's entry lies at (1 + 100.5) / 2 from its query, before the others' 101 and 201;
    # from the third's, it is (99 + 0.5) / 2, behind its own 1.
    assert several.num_queries == 3
    assert several.cmc[1] == 1.0
    single = protocol_scores(benchmark, places, "single-shot")
    assert single.num_queries == 6
    # In draws with that image, the third person's queries find it first (0.5 against 1), and the other's own
    # queries still find their person first (100.5 against 101): only the third person's are lost.
    per_draw = {round(share, 6) for share in single.cmc_per_draw[1]}
    assert per_draw == {1.0, round(4 / 6, 6)}
    assert min(single.cmc_per_draw[2]) == 1.0
    assert single.gallery_size == (3, 3)


def test_viper_has_one_image_of_each_side(tmp_path):
    benchmark = load("viper", write_viper(tmp_path / "VIPeR"), test_persons=2)
    first, second = sorted(set(benchmark.query.person_ids.tolist()))
    places = {(first, 1): 0.0, (first, 2): 3.0, (second, 1): 9.0, (second, 2): 1.0}
    # From 0, the other person at 1 is nearer than the match at 3. From 9, the other person at 3 (distance 6)
    # is nearer than the match at 1 (distance 8).
    assert protocol_scores(benchmark, places, "single-shot").cmc == {1: 0.0, 2: 1.0, 3: 1.0}


def test_cuhk03_compares_only_with_the_other_camera(tmp_path):
    root = tmp_path / "cuhk03_release"
    root.mkdir()
    write_archive(root / "cuhk-03.mat")
    benchmark = load("cuhk03", root, boxes="detected")
    first, second, third = sorted(set(benchmark.query.person_ids.tolist()))
    # Other persons of the query's own camera are nearest, but are not in its gallery.
    places = {
        (first, 1): 0.0,
        (second, 1): 0.1,
        (third, 1): 0.2,
        (first, 2): 5.0,
        (second, 2): 6.1,
        (third, 2): 7.2,
    }
    forward = protocol_scores(benchmark, places, "single-shot, view 1 to 2")
    assert forward.gallery_size == (3, 3)
    # From camera 1, the nearest to every query in camera 2 is the first person.
    valid = forward.num_valid_queries
    assert all(person in (first, second, third) for person in forward.person_ids)
    assert forward.cmc[1] == np.mean(forward.person_ids == first)
    assert forward.cmc[2] == np.mean(np.isin(forward.person_ids, (first, second)))
    both = protocol_scores(benchmark, places, "single-shot")
    assert both.num_queries == len(benchmark.query) > valid
    # From camera 2, the nearest to every query in camera 1 is the third.
    back = both.person_ids[embeddings(benchmark.query, places).camera_ids == 2]
    right = forward.cmc[1] * len(forward.person_ids) + np.count_nonzero(back == third)
    assert both.cmc[1] == pytest.approx(right / len(both.person_ids))


def test_market_by_both_rules_and_with_a_distractor_before_the_match(market):
    benchmark = load("market1501", market)
    places = {
        (1, 1): 0.0,  # the query; of the same person and camera in the gallery, ignored
        (1, 2): 2.0,
        (-1, 1): 0.5,  # junk
        (-1, 2): 0.6,
        (0, 1): 1.0,  # a distractor before the match
        (3, 2): 50.0,
        (3, 1): 51.0,
        (3, 3): 52.0,
    }
    sides = [embeddings(split, places) for split in (benchmark.query, benchmark.gallery)]
    step = evaluate(*sides)
    trapezoid = evaluate(*sides, average_precision="trapezoid")
    # Person 1: its one match at rank 2. Person 3: both matches first.
    assert step.first_match_rank.tolist() == [2, 1]
    assert step.average_precision.tolist() == [0.5, 1.0]
    # Half of (0 of 1 before the match, 1 of 2 at it).
    assert trapezoid.average_precision.tolist() == [0.25, 1.0]
