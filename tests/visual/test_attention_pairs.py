"""Which images of a run are looked into, and what is said of them."""

import numpy as np
import pytest
import torch
from untrained import JLML, PYRAMID, QUIET, untrained

from reidlib.data import load
from reidlib.data.images import decode
from reidlib.errors import InputError
from reidlib.experiments.evaluate import evaluate_run
from reidlib.visual.attention.maps import attention_grids
from reidlib.visual.attention.pairs import (
    accounted,
    answer_pairs,
    comparison_rows,
    first_answers,
    part_similarities,
    preference,
    training_pairs,
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture(params=[JLML, PYRAMID], ids=["jlml", "pyramid"])
def evaluated(request, market, tmp_path):
    benchmark = load("market1501", market)
    run = untrained(benchmark, tmp_path / "runs", request.param)
    evaluate_run(run, benchmark, execution=QUIET)
    return run, benchmark


def test_first_answers_are_the_first_right_and_the_first_wrong_ones():
    lists = {
        "query_indices": np.array([7, 8, 9, 10]),
        "gallery_indices": np.array([[1, 2, 3], [4, 5, 6], [7, 8, -1], [1, 2, 3]]),
        "statuses": np.array([[0, 0, 2], [1, 0, 1], [0, 0, 4], [3, 2, 0]], np.int8),
    }
    found = first_answers(lists, 4)
    assert found["query"].tolist() == [7, 8, 10]  # 9 has no wrong one
    assert found["match"].tolist() == [1, 5, 3]
    assert found["other"].tolist() == [3, 4, 2]
    assert found["wrong_first"].tolist() == [False, True, True]
    assert first_answers(lists, 2)["query"].tolist() == [7, 10]
    with pytest.raises(InputError, match="a right and a wrong answer"):
        first_answers({**lists, "statuses": np.zeros((4, 3), np.int8)}, 4)


def test_pairs_show_a_query_its_match_and_somebody_else(evaluated):
    run, benchmark = evaluated
    found = answer_pairs(run, benchmark, 5, QUIET)
    assert sorted(found.persons_n) == [1, 3]
    gallery = [decode(path, (32, 16)) for path in benchmark.gallery.paths]
    by_person = {
        person: [
            image for image, own in zip(gallery, benchmark.gallery.person_ids, strict=True) if own == person
        ]
        for person in (0, 1, 3)
    }
    for place, person in enumerate(found.persons_n):
        query = decode(benchmark.query.paths[list(benchmark.query.person_ids).index(person)], (32, 16))
        assert (found.array("query")[place] == query).all()
        match, other = found.array("match")[place], found.array("other")[place]
        assert any((match == image).all() for image in by_person[person])
        others = [image for own, images in by_person.items() if own != person for image in images]
        assert any((other == image).all() for image in others)
    distances = {
        role: (found.features["query"] - found.features[role]).norm(dim=1).numpy()
        for role in ("match", "other")
    }
    assert (found.wrong_first == (distances["other"] < distances["match"])).all()
    assert len(answer_pairs(run, benchmark, 1, QUIET).persons_n) == 1


def test_maps_of_one_pair_are_those_of_all(evaluated):
    run, benchmark = evaluated
    found = answer_pairs(run, benchmark, 5, QUIET)
    maps_nphw = found.maps("query", "match")
    assert maps_nphw.shape == (2, len(found.parts), 32, 16)
    assert maps_nphw.min() >= 0
    assert found.maps("query", "match", at=1) == pytest.approx(maps_nphw[1:], abs=1e-5)


def test_training_pairs_are_of_one_person_and_two_cameras(evaluated):
    run, benchmark = evaluated
    found = training_pairs(run, benchmark, 5, QUIET)
    train = benchmark.train
    images = [decode(path, (32, 16)) for path in train.paths]
    assert sorted(found.persons_n) == [2, 7]
    for place, person in enumerate(found.persons_n):
        cameras = set()
        for role in ("query", "match"):
            shown = found.array(role)[place]
            (index,) = [n for n, image in enumerate(images) if (image == shown).all()]
            assert train.person_ids[index] == person
            cameras.add(int(train.camera_ids[index]))
        assert len(cameras) == 2
    again = training_pairs(run, benchmark, 5, QUIET)
    assert all((again.images[role] == found.images[role]).all() for role in ("query", "match"))


def test_rows_and_words_follow_the_similarities(evaluated):
    run, benchmark = evaluated
    found = answer_pairs(run, benchmark, 5, QUIET)
    right_nphw = found.maps("query", "match")
    rows = comparison_rows("net", found, right_nphw, right_nphw)
    kinds = [part.kind for part in found.parts]
    assert [row["parts"] for row in rows] == list(dict.fromkeys(kinds))
    similarities_np = found.similarities("query", "match")
    for row in rows:
        own = [place for place, kind in enumerate(kinds) if kind == row["parts"]]
        assert row["similarity, right"] == f"{similarities_np[:, own].mean():.3f}"
        alive = right_nphw[:, own].any(axis=(2, 3)).mean()  # a map with itself, or nothing with nothing
        assert row["overlap of the two maps"] == f"{alive:.2f}"
        sums = found.sums_of_shares("query", "match")[:, own].mean()
        assert row["sum of the shares, right"] == f"{sums:.3f}".replace("-", "−")
        assert set(row) >= {"right − wrong, × 100", "similarity, wrong"}
    gaps_p = (found.similarities("query", "other") - similarities_np)[0]
    text = preference("net", found, 0)
    assert text.startswith(
        f"net: {(gaps_p > 0).sum()} of {len(kinds)} parts find the wrong answer more similar"
    )
    assert f"**{found.parts[gaps_p.argmax()].name}** by most" in text


def test_similarities_are_the_cosines_of_the_parts_columns(evaluated):
    run, benchmark = evaluated
    found = answer_pairs(run, benchmark, 5, QUIET)
    torch.manual_seed(0)
    one, two = torch.randn(2, 4, found.features["query"].shape[1])
    values_np = part_similarities(one, two, found.parts)
    for place, part in enumerate(found.parts):
        a, b = one[2, part.columns], two[2, part.columns]
        assert values_np[2, place] == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-6)


def test_the_shares_and_their_part_of_the_similarity(evaluated):
    run, benchmark = evaluated
    found = answer_pairs(run, benchmark, 5, QUIET)
    sums_np = found.sums_of_shares("query", "match")
    grids = attention_grids(found.model, found.images["query"][1:], found.features["match"][1:])
    assert sums_np.shape == (2, len(found.parts))
    assert sums_np[1] == pytest.approx([grid.shares_bhw.sum() for grid in grids], abs=1e-5)
    cells = found.cells()
    assert cells == {part.kind: grid.cell for part, grid in zip(found.parts, grids, strict=True)}
    similarities_np = found.similarities("query", "match")
    first = [place for place, part in enumerate(found.parts) if part.kind == found.parts[0].kind]
    ratios = [
        sums_np[pair, place] / similarities_np[pair, place]
        for pair in range(2)
        for place in first
        if similarities_np[pair, place] != 0
    ]
    median = f"{100 * np.median(ratios):.0f} %".replace("-", "−") if ratios else "–"
    assert f"{found.parts[0].kind} {median}" in accounted("net", found)


@pytest.mark.parametrize("pairs", [answer_pairs, training_pairs])
@pytest.mark.parametrize("count", [0, -1])
def test_less_than_a_pair_is_refused_in_a_line(pairs, count, market, tmp_path):
    with pytest.raises(InputError, match=f"one pair or more.*pairs = {count}") as error:
        pairs(None, load("market1501", market), count, QUIET)
    assert "\n" not in str(error.value)
