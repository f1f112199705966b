"""Single-shot and multi-shot scores against plain loops and hand-worked cases; what a draw depends on."""

import hashlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.data.benchmark import Protocol
from reidlib.errors import InputError
from reidlib.ranking.metrics import Embeddings, evaluate
from reidlib.ranking.protocols import ProtocolScores, evaluate_protocol

SINGLE, MULTI = Protocol("single"), Protocol("multi")


def embeddings(features, person_ids, camera_ids, dtype=np.float32):
    return Embeddings(np.asarray(features, dtype), np.asarray(person_ids), np.asarray(camera_ids))


def on_a_line(*entries):
    """Return images on a line, from entries (place, person, camera)."""
    places, persons, cameras = zip(*entries, strict=True)
    return embeddings(np.array(places)[:, None], persons, cameras)


QUERY = on_a_line((0, 1, 1))


def match_rank(gallery, protocol, query=QUERY, **options):
    """Return the rank of the only query's match."""
    scores = evaluate_protocol(query, gallery, protocol, ranks=range(1, 50), **options)
    return next(rank for rank, share in scores.cmc.items() if share == 1)


# The plain loops.


def drawn_first(gallery, indices, seed, draw):
    """Return the image that the draw's hash puts first, from some images of one person."""

    def number(index):
        person, camera = int(gallery.person_ids[index]), int(gallery.camera_ids[index])
        same = (gallery.person_ids[:index] == person) & (gallery.camera_ids[:index] == camera)
        return hashlib.sha256(f"{seed} {draw} {person} {camera} {same.sum()}".encode()).digest()

    return min(indices, key=number)


def entries_of(gallery, camera, person, across):
    """Return the images of each person with which a query may be compared, and such distractors."""
    entries, distractors = {}, []
    for index, (other, place) in enumerate(zip(gallery.person_ids, gallery.camera_ids, strict=True)):
        if other == -1 or (place == camera and (across or other == person)):
            continue
        if other == 0:
            distractors.append(index)
        else:
            entries.setdefault(int(other), []).append(index)
    return entries, distractors


def distance(query, gallery, row, index):
    return math.dist(query.features[row].tolist(), gallery.features[index].tolist())


def plain_single_shot(query, gallery, protocol, seed):
    """Return each query's rank of its match in each draw (0 without a match), and gallery size."""
    rows = []
    for row in range(len(query)):
        person, camera = int(query.person_ids[row]), int(query.camera_ids[row])
        if protocol.query_cameras is not None and camera not in protocol.query_cameras:
            continue
        entries, distractors = entries_of(gallery, camera, person, protocol.across_cameras)
        ranks = []
        for draw in range(protocol.draws):
            first_images = {
                other: drawn_first(gallery, images, seed, draw) for other, images in entries.items()
            }
            if person not in first_images:
                ranks.append(0)
                continue
            match = distance(query, gallery, row, first_images.pop(person))
            others = [*first_images.values(), *distractors]
            ranks.append(1 + sum(distance(query, gallery, row, index) <= match for index in others))
        rows.append((ranks, len(entries) + len(distractors)))
    return rows


def plain_multi_shot(query, gallery, protocol, power):
    rows = []
    sightings = set(zip(query.camera_ids.tolist(), query.person_ids.tolist(), strict=True))
    for camera, person in sorted(sightings):
        if protocol.query_cameras is not None and camera not in protocol.query_cameras:
            continue
        images = np.flatnonzero((query.person_ids == person) & (query.camera_ids == camera))
        entries, distractors = entries_of(gallery, camera, person, protocol.across_cameras)

        def mean(indices, images=images):
            pairs = list(itertools.product(images, indices))
            return math.fsum(distance(query, gallery, *pair) ** power for pair in pairs) / len(pairs)

        if person in entries:
            match = mean(entries[person])
            others = [indices for other, indices in entries.items() if other != person]
            others += [[index] for index in distractors]
            rank = 1 + sum(mean(indices) <= match * (1 + 1e-9) for indices in others)
        else:
            rank = 0
        rows.append(([rank], len(entries) + len(distractors)))
    return rows


@st.composite
def cases(draw):
    """Draw small sets with copies of images, junk, distractors, queries without a match; any protocol."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_queries, num_gallery = draw(st.integers(1, 6)), draw(st.integers(1, 30))
    # Few different features, so that many distances and many means are equal.
    pool = generator.random((draw(st.integers(1, 5)), draw(st.integers(1, 4))))

    def images(number, lowest):
        persons, cameras = generator.integers(lowest, 5, number), generator.integers(1, 4, number)
        return embeddings(pool[generator.integers(0, len(pool), number)], persons, cameras, np.float64)

    shots = draw(st.sampled_from(["single", "multi"]))
    protocol = Protocol(
        shots,
        draws=draw(st.integers(1, 3)) if shots == "single" else 1,
        across_cameras=draw(st.booleans()),
        query_cameras=draw(st.sampled_from([None, None, (1,), (3, 2)])),
    )
    return images(num_queries, 1), images(num_gallery, -1), protocol


@settings(max_examples=200, deadline=None)
@given(cases(), st.integers(0, 5), st.sampled_from([None, (1, 1), (2, 3)]), st.booleans())
def test_equals_a_plain_loop(case, seed, block_sizes, squared):
    query, gallery, protocol = case
    if protocol.shots == "single":
        rows = plain_single_shot(query, gallery, protocol, seed)
    else:
        rows = plain_multi_shot(query, gallery, protocol, 2 if squared else 1)
    options = {"seed": seed, "block_sizes": block_sizes, "average_of": "squared" if squared else "distance"}
    valid = [(ranks, size) for ranks, size in rows if ranks[0]]
    if not valid:
        with pytest.raises(InputError, match=r"from another camera|query_cameras"):
            evaluate_protocol(query, gallery, protocol, **options)
        return
    scores = evaluate_protocol(query, gallery, protocol, ranks=(1, 2, 3, 100), **options)
    ranks_qr = np.array([ranks for ranks, _ in valid])
    for rank in (1, 2, 3, 100):
        assert scores.cmc[rank] == pytest.approx((ranks_qr <= rank).mean())
        assert scores.cmc_per_draw[rank] == pytest.approx((ranks_qr <= rank).mean(0))
    assert (scores.num_queries, scores.num_valid_queries) == (len(rows), len(valid))
    assert scores.gallery_size == (min(size for _, size in valid), max(size for _, size in valid))
    hits = [np.mean(np.array(ranks) == 1) if ranks[0] else math.nan for ranks, _ in rows]
    np.testing.assert_allclose(scores.rank1_per_query, hits)


# Cases worked by hand.


@pytest.mark.parametrize("protocol", [SINGLE, MULTI])
def test_junk_and_own_camera_do_not_count_and_distractors_each_do(protocol):
    gallery = on_a_line(
        (1, -1, 2), (2, 1, 1), (3, 0, 2), (4, 0, 2), (5, 0, 1), (6, 7, 2), (7, 1, 2), (8, 8, 2)
    )
    assert match_rank(gallery, protocol) == 4  # two distractors and person 7, no distractor of camera 1
    scores = evaluate_protocol(QUERY, gallery, protocol, ranks=(1, 3, 4, 500))
    assert scores.cmc == {1: 0.0, 3: 0.0, 4: 1.0, 500: 1.0}
    assert scores.gallery_size == (5, 5)
    anywhere = Protocol(protocol.shots, across_cameras=False)
    assert match_rank(gallery, anywhere) == 5
    assert evaluate_protocol(QUERY, gallery, anywhere).gallery_size == (6, 6)


@pytest.mark.parametrize("protocol", [SINGLE, MULTI])
def test_a_wrong_entry_as_near_as_the_match_stands_before_it(protocol):
    assert match_rank(on_a_line((3, 1, 2), (-3, 2, 2), (3, 0, 3), (4, 4, 2)), protocol) == 3


@pytest.mark.parametrize("average_of", ["distance", "squared"])
def test_a_collapsed_model_has_its_matches_last(average_of):
    # Means of equal numbers differ by rounding where entries have 1, 3 and 7 images.
    persons = np.repeat([1, 2, 3, 4], [1, 3, 3, 7])
    gallery = embeddings(np.full((14, 3), 0.1), persons, np.full(14, 2))
    query = embeddings(np.full((4, 3), 0.7), [1, 2, 3, 4], np.full(4, 1))
    scores = evaluate_protocol(query, gallery, MULTI, ranks=(3, 4), average_of=average_of)
    assert scores.cmc == {3: 0.0, 4: 1.0}


def test_multi_shot_by_hand():
    # Person 1 is at 1 and 5 (mean 3, mean square 13), person 2 only at −3.2 (3.2 and 10.24).
    gallery = on_a_line((1, 1, 2), (5, 1, 3), (-3.2, 2, 2))
    assert match_rank(gallery, MULTI) == 1
    assert match_rank(gallery, MULTI, average_of="squared") == 2
    # Two images of the query, at 0 and 2: 1, 5, 1, 3 (mean 2.5) against 3.2 and 5.2.
    both = on_a_line((0, 1, 1), (2, 1, 1))
    assert evaluate_protocol(both, gallery, MULTI).num_queries == 1
    assert match_rank(gallery, MULTI, both) == 1
    # Person 2 at −3 and 2 has the nearest image, and a mean of 2.5.
    for place, rank in ((2.25, 1), (2.5, 2), (2.75, 2)):
        assert match_rank(on_a_line((place, 1, 2), (-3, 2, 2), (2, 2, 2)), MULTI) == rank


def test_queries_without_a_match_are_counted_and_left_out_of_the_means():
    query = on_a_line((0, 1, 1), (0, 2, 1), (0, 3, 1), (9, 3, 1))
    gallery = on_a_line((1, 1, 2), (2, 2, 1), (3, 9, 2))  # person 2 only in the query's camera, 3 absent
    for protocol, num_queries in ((SINGLE, 4), (MULTI, 3)):
        scores = evaluate_protocol(query, gallery, protocol)
        assert (scores.num_queries, scores.num_valid_queries) == (num_queries, 1)
        assert scores.cmc[1] == 1.0
        np.testing.assert_array_equal(scores.rank1_per_query, [1.0] + [math.nan] * (num_queries - 1))
        assert scores.person_ids.tolist() == [1, 2, 3, 3][:num_queries]


def test_only_images_of_the_query_cameras_are_queries():
    images = on_a_line((0, 1, 1), (1, 1, 2), (1.4, 2, 2), (4, 2, 1))
    # From camera 1: 0 is nearer 1 than 1.4, 4 nearer 1.4. From camera 2: 1 and 1.4 are both nearer 0.
    for protocol, expected in (((1,), 1.0), ((2,), 0.5), (None, 0.75)):
        for shots in ("single", "multi"):
            scores = evaluate_protocol(images, images, Protocol(shots, query_cameras=protocol))
            assert (scores.cmc[1], scores.num_queries) == (expected, 4 if protocol is None else 2)


def test_the_two_ways_of_scoring_cuhk03():
    # Person 2 looks like the query in the query's camera and like no other person in the other camera.
    gallery = on_a_line((2, 1, 2), (1, 2, 1), (100, 2, 2))
    across = evaluate_protocol(QUERY, gallery, Protocol("single", draws=400))
    assert across.cmc[1] == 1.0
    anywhere = evaluate_protocol(QUERY, gallery, Protocol("single", draws=400, across_cameras=False))
    assert anywhere.cmc[1] == pytest.approx(1 / 2, abs=0.1)  # four standard deviations
    assert across.gallery_size == anywhere.gallery_size == (2, 2)
    # The image of the query's person from the query's camera is never drawn.
    alone = on_a_line((5, 1, 1), (2, 1, 2), (3, 2, 2))
    assert match_rank(alone, Protocol("single", draws=50, across_cameras=False)) == 1


def test_the_mean_over_many_draws_is_the_expectation():
    # The match is at 1 or 3, other persons at 2 or 4 and at 0.5, 3.5 or 5: 12 equally likely galleries.
    gallery = on_a_line((1, 1, 2), (3, 1, 3), (2, 2, 2), (4, 2, 2), (0.5, 3, 2), (3.5, 3, 3), (5, 3, 2))
    ranks = [
        1 + sum(other < match for other in others)
        for match, *others in itertools.product((1, 3), (2, 4), (0.5, 3.5, 5))
    ]
    draws = 2000
    scores = evaluate_protocol(QUERY, gallery, Protocol("single", draws=draws), ranks=(1, 2, 3))
    for rank in (1, 2, 3):
        expected = np.mean(np.array(ranks) <= rank)
        deviation = math.sqrt(expected * (1 - expected) / draws)
        assert scores.cmc[rank] == pytest.approx(expected, abs=4 * deviation)
        assert len(scores.cmc_per_draw[rank]) == draws
        assert np.mean(scores.cmc_per_draw[rank]) == pytest.approx(scores.cmc[rank])
    assert scores.rank1_per_query == pytest.approx([scores.cmc[1]])


def some_images(seed, num_persons=20, per_camera=3):
    generator = np.random.default_rng(seed)
    persons = np.repeat(np.arange(num_persons), 3 * per_camera)  # person 0: distractors
    features = generator.normal(size=(num_persons, 8))[persons] + 2 * generator.normal(size=(len(persons), 8))
    return embeddings(features, persons, np.tile(np.repeat([1, 2, 3], per_camera), num_persons))


def subset(images, indices):
    return Embeddings(images.features[indices], images.person_ids[indices], images.camera_ids[indices])


def test_one_image_a_person_is_scored_as_evaluate_does():
    images = some_images(0, per_camera=1)
    query, gallery = (
        subset(images, np.flatnonzero((images.camera_ids == camera) & (images.person_ids >= lowest)))
        for camera, lowest in ((1, 1), (2, 0))
    )
    expected = evaluate(query, gallery)
    for protocol in (Protocol("single", draws=2), Protocol("single", across_cameras=False), MULTI):
        scores = evaluate_protocol(query, gallery, protocol)
        assert scores.cmc == pytest.approx(expected.cmc) and 0 < scores.cmc[1] < 1
        assert scores.rank1_per_query.tolist() == (expected.first_match_rank == 1).tolist()


@pytest.mark.parametrize("protocol", [Protocol("single", 4), Protocol("single", 4, False), MULTI])
def test_what_a_score_depends_on(protocol):
    images = some_images(1)
    query = subset(images, np.flatnonzero(images.person_ids > 0))
    before = evaluate_protocol(query, images, protocol).to_dict()
    assert 0 < before["cmc"]["1"] < 1
    # Not on the order of persons and cameras, if the images of a person in a camera keep their order.
    by_camera = np.argsort(-images.camera_ids, kind="stable")
    by_camera = by_camera[np.argsort(-images.person_ids[by_camera] % 7, kind="stable")]
    assert evaluate_protocol(query, subset(images, by_camera), protocol).to_dict() == before
    # Not on the type of the features or the sizes of blocks.
    tensors = Embeddings(torch.from_numpy(images.features), images.person_ids, images.camera_ids)
    assert evaluate_protocol(query, tensors, protocol, block_sizes=(3, 5)).to_dict() == before
    others = [evaluate_protocol(query, images, protocol, seed=seed).to_dict() for seed in (1, 2)]
    assert all((other == before) == (protocol.shots == "multi") for other in others)


def test_draws_are_the_same_on_every_machine_and_in_every_release():
    for seed, expected in ((0, [4, 1, 1, 0, 5, 4, 1, 1]), (7, [1, 3, 3, 3, 2, 4, 3, 2])):
        draws = []
        for near in range(6):  # the match is first where its nearest image is the one drawn
            places = np.where(np.arange(6) == near, 1, 5)
            gallery = on_a_line(*zip(places, [1] * 6, [2, 2, 2, 3, 3, 3], strict=True), (2, 2, 2))
            scores = evaluate_protocol(QUERY, gallery, Protocol("single", draws=8), seed=seed)
            draws.append(scores.cmc_per_draw[1])
        assert np.argmax(draws, axis=0).tolist() == expected
        assert np.sum(draws, axis=0).tolist() == [1.0] * 8


def test_scores_survive_json():
    query = on_a_line((0, 1, 1), (1, 2, 1), (1, 3, 1))
    gallery = on_a_line((0, 1, 2), (0, 2, 2), (1, 2, 3))
    scores = evaluate_protocol(query, gallery, Protocol("single", draws=3))
    again = ProtocolScores.from_dict(json.loads(json.dumps(scores.to_dict(), allow_nan=False)))
    for name in ProtocolScores._fields:
        np.testing.assert_equal(getattr(again, name), getattr(scores, name))
    with pytest.raises(InputError, match="no cmc"):
        ProtocolScores.from_dict({key: value for key, value in scores.to_dict().items() if key != "cmc"})


GALLERY = on_a_line((0, 1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": (0, 1)}, "counted from 1"),
        ({"ranks": ()}, "counted from 1"),
        ({"average_of": "root"}, 'average_of is "distance" or "squared"; got \'root\''),
        ({"block_sizes": (0, 5)}, "blocks have"),
        ({"query": on_a_line((0, 0, 1))}, "a query shows a person"),
        ({"query": embeddings([[0.0, 1.0]], [1], [1])}, "equally long; got 2 and 1"),
        ({"query": on_a_line((0, 5, 1))}, "none for any of 1 queries"),
        ({"protocol": Protocol("multi", query_cameras=(4,))}, r"got \(4,\), with queries from 1"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = {"query": QUERY, "gallery": GALLERY, "protocol": SINGLE} | change
    with pytest.raises(InputError, match=message):
        evaluate_protocol(**arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_scores_on_a_gpu():
    images = some_images(3)
    query = subset(images, np.flatnonzero(images.person_ids > 0))
    for protocol in (Protocol("single", 4), Protocol("single", 4, False), MULTI):
        expected = evaluate_protocol(query, images, protocol).to_dict()
        assert evaluate_protocol(query, images, protocol, device="cuda").to_dict() == expected
