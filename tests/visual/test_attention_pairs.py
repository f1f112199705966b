"""Pairs of images for the analysis of a run, and the tables and sentences about them."""

import numpy as np
import pytest
import torch
from untrained_runs import JLML, PYRAMID, QUIET, untrained_run

from reidlib.data import load
from reidlib.data.images import decode
from reidlib.errors import InputError
from reidlib.experiments.evaluate import evaluate_run
from reidlib.visual.attention.maps import attention_grids
from reidlib.visual.attention.pairs import (
    answer_pairs,
    attribution_sentence,
    comparison_rows,
    first_answers,
    part_similarities,
    preference_sentence,
    training_pairs,
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


@pytest.fixture(params=[JLML, PYRAMID], ids=["jlml", "pyramid"])
def evaluated(request, market, tmp_path):
    benchmark = load("market1501", market)
    run = untrained_run(benchmark, tmp_path / "runs", request.param)
    evaluate_run(run, benchmark, execution=QUIET)
    return run, benchmark


def test_first_answers_are_the_first_right_and_wrong_images():
    lists = {
        "query_indices": np.array([7, 8, 9, 10]),
        "gallery_indices": np.array([[1, 2, 3], [4, 5, 6], [7, 8, -1], [1, 2, 3]]),
        "statuses": np.array([[0, 0, 2], [1, 0, 1], [0, 0, 4], [3, 2, 0]], np.int8),
    }
    answers = first_answers(lists, 4)
    assert answers["query"].tolist() == [7, 8, 10]  # query 9 has no wrong answer
    assert answers["match"].tolist() == [1, 5, 3]
    assert answers["other"].tolist() == [3, 4, 2]
    assert answers["wrong_first"].tolist() == [False, True, True]
    assert first_answers(lists, 2)["query"].tolist() == [7, 10]
    with pytest.raises(InputError, match="a right and a wrong answer"):
        first_answers({**lists, "statuses": np.zeros((4, 3), np.int8)}, 4)


def test_pairs_have_a_query_its_match_and_another_person(evaluated):
    run, benchmark = evaluated
    pairs = answer_pairs(run, benchmark, 5, QUIET)
    assert sorted(pairs.persons_n) == [1, 3]
    gallery = [decode(path, (32, 16)) for path in benchmark.gallery.paths]
    by_person = {
        person: [
            image
            for image, image_person in zip(gallery, benchmark.gallery.person_ids, strict=True)
            if image_person == person
        ]
        for person in (0, 1, 3)
    }
    for index, person in enumerate(pairs.persons_n):
        query = decode(benchmark.query.paths[list(benchmark.query.person_ids).index(person)], (32, 16))
        assert (pairs.image_array("query")[index] == query).all()
        match, other = pairs.image_array("match")[index], pairs.image_array("other")[index]
        assert any((match == image).all() for image in by_person[person])
        others = [
            image for image_person, images in by_person.items() if image_person != person for image in images
        ]
        assert any((other == image).all() for image in others)
    distances = {
        role: (pairs.features["query"] - pairs.features[role]).norm(dim=1).numpy()
        for role in ("match", "other")
    }
    assert (pairs.wrong_first == (distances["other"] < distances["match"])).all()
    assert len(answer_pairs(run, benchmark, 1, QUIET).persons_n) == 1


def test_maps_of_a_single_pair_equal_those_of_all_pairs(evaluated):
    run, benchmark = evaluated
    pairs = answer_pairs(run, benchmark, 5, QUIET)
    maps_nphw = pairs.maps("query", "match")
    assert maps_nphw.shape == (2, len(pairs.parts), 32, 16)
    assert maps_nphw.min() >= 0
    assert pairs.maps("query", "match", at=1) == pytest.approx(maps_nphw[1:], abs=1e-5)


def test_training_pairs_show_one_person_from_two_cameras(evaluated):
    run, benchmark = evaluated
    pairs = training_pairs(run, benchmark, 5, QUIET)
    train = benchmark.train
    images = [decode(path, (32, 16)) for path in train.paths]
    assert sorted(pairs.persons_n) == [2, 7]
    for index, person in enumerate(pairs.persons_n):
        cameras = set()
        for role in ("query", "match"):
            selected = pairs.image_array(role)[index]
            (source,) = [n for n, image in enumerate(images) if (image == selected).all()]
            assert train.person_ids[source] == person
            cameras.add(int(train.camera_ids[source]))
        assert len(cameras) == 2
    again = training_pairs(run, benchmark, 5, QUIET)
    assert all((again.images[role] == pairs.images[role]).all() for role in ("query", "match"))


def test_tables_and_sentences_follow_the_similarities(evaluated):
    run, benchmark = evaluated
    pairs = answer_pairs(run, benchmark, 5, QUIET)
    right_nphw = pairs.maps("query", "match")
    rows = comparison_rows("net", pairs, right_nphw, right_nphw)
    kinds = [part.kind for part in pairs.parts]
    assert [row["parts"] for row in rows] == list(dict.fromkeys(kinds))
    similarities_np = pairs.similarities("query", "match")
    for row in rows:
        indices = [index for index, kind in enumerate(kinds) if kind == row["parts"]]
        assert row["similarity, right"] == f"{similarities_np[:, indices].mean():.3f}"
        # The overlap of a map with itself is 1, or 0 for a map of zeros.
        nonzero = right_nphw[:, indices].any(axis=(2, 3)).mean()
        assert row["overlap of the two maps"] == f"{nonzero:.2f}"
        sums = pairs.sums_of_shares("query", "match")[:, indices].mean()
        assert row["sum of the shares, right"] == f"{sums:.3f}".replace("-", "−")
        assert set(row) >= {"right − wrong, × 100", "similarity, wrong"}
    gaps_p = (pairs.similarities("query", "other") - similarities_np)[0]
    text = preference_sentence("net", pairs, 0)
    assert text.startswith(
        f"net: {(gaps_p > 0).sum()} of {len(kinds)} parts find the wrong answer more similar"
    )
    assert f"largest for **{pairs.parts[gaps_p.argmax()].name}**" in text
    assert f"smallest for **{pairs.parts[gaps_p.argmin()].name}**" in text


def test_similarities_are_the_cosines_of_the_parts_columns(evaluated):
    run, benchmark = evaluated
    pairs = answer_pairs(run, benchmark, 5, QUIET)
    torch.manual_seed(0)
    features, others = torch.randn(2, 4, pairs.features["query"].shape[1])
    values_np = part_similarities(features, others, pairs.parts)
    for index, part in enumerate(pairs.parts):
        a, b = features[2, part.columns], others[2, part.columns]
        assert values_np[2, index] == pytest.approx(float(a @ b / (a.norm() * b.norm())), abs=1e-6)


def test_sums_of_shares_and_their_ratio_to_the_similarity(evaluated):
    run, benchmark = evaluated
    pairs = answer_pairs(run, benchmark, 5, QUIET)
    sums_np = pairs.sums_of_shares("query", "match")
    grids = attention_grids(pairs.model, pairs.images["query"][1:], pairs.features["match"][1:])
    assert sums_np.shape == (2, len(pairs.parts))
    assert sums_np[1] == pytest.approx([grid.shares_bhw.sum() for grid in grids], abs=1e-5)
    cells = pairs.cell_sizes()
    assert cells == {part.kind: grid.cell for part, grid in zip(pairs.parts, grids, strict=True)}
    similarities_np = pairs.similarities("query", "match")
    first_kind = [index for index, part in enumerate(pairs.parts) if part.kind == pairs.parts[0].kind]
    ratios = [
        sums_np[pair, index] / similarities_np[pair, index]
        for pair in range(2)
        for index in first_kind
        if similarities_np[pair, index] != 0
    ]
    median = f"{100 * np.median(ratios):.0f} %".replace("-", "−") if ratios else "–"
    assert f"{pairs.parts[0].kind} {median}" in attribution_sentence("net", pairs)


@pytest.mark.parametrize("select", [answer_pairs, training_pairs])
@pytest.mark.parametrize("count", [0, -1])
def test_less_than_one_pair_is_refused_with_one_line(select, count, market, tmp_path):
    with pytest.raises(InputError, match=f"at least one pair.*pairs = {count}") as error:
        select(None, load("market1501", market), count, QUIET)
    assert "\n" not in str(error.value)
