"""Scores against a plain loop and against cases worked by hand; ties, blocks and bad input."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reidlib.errors import InputError
from reidlib.ranking.metrics import Embeddings, Status, evaluate, pool_multi_query, ranked_list


def embeddings(features, person_ids, camera_ids):
    return Embeddings(np.asarray(features, np.float32), np.asarray(person_ids), np.asarray(camera_ids))


def ordered_gallery(query, gallery, row):
    """Sort the images that are not ignored by distance, as (distance, is match, index)."""
    order = []
    for index in range(len(gallery)):
        person, camera = gallery.person_ids[index], gallery.camera_ids[index]
        same_person = person == query.person_ids[row]
        if person == -1 or (same_person and camera == query.camera_ids[row]):
            continue
        difference = np.float64(query.features[row]) - np.float64(gallery.features[index])
        order.append((math.sqrt((difference**2).sum()), bool(same_person), index))
    return sorted(order)  # False sorts before True: wrong images come first


def oracle(query, gallery, trapezoid):
    """Return each query's average precision, inverse negative penalty and rank of the first match."""
    rows = []
    for row in range(len(query)):
        hits = [place for place, entry in enumerate(ordered_gallery(query, gallery, row), 1) if entry[1]]
        if not hits:
            rows.append((math.nan, math.nan, 0))
            continue
        total = 0.0
        for count, rank in enumerate(hits, 1):
            before = 1.0 if rank == 1 else (count - 1) / (rank - 1)
            total += (before + count / rank) / 2 if trapezoid else count / rank
        rows.append((total / len(hits), len(hits) / hits[-1], hits[0]))
    return (np.array(column) for column in zip(*rows, strict=True))


@st.composite
def cases(draw):
    """Small sets on a coarse grid: many equal distances, junk, distractors, queries without a match."""
    length = draw(st.integers(1, 5))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    grid = draw(st.integers(1, 6))
    num_queries, num_gallery = draw(st.integers(1, 7)), draw(st.integers(1, 40))

    def features(rows):
        return generator.integers(0, grid, (rows, length)) / 4

    query = embeddings(
        features(num_queries), generator.integers(1, 4, num_queries), generator.integers(1, 3, num_queries)
    )
    gallery = embeddings(
        features(num_gallery), generator.integers(-1, 4, num_gallery), generator.integers(1, 3, num_gallery)
    )
    return query, gallery


def assert_equals_oracle(query, gallery, **options):
    for kind in ("step", "trapezoid"):
        average, penalty, first = oracle(query, gallery, kind == "trapezoid")
        valid = first > 0
        if not valid.any():
            with pytest.raises(InputError, match="from another camera"):
                evaluate(query, gallery, average_precision=kind, **options)
            continue
        scores = evaluate(query, gallery, average_precision=kind, ranks=(1, 2, 7, 1000), **options)
        np.testing.assert_allclose(scores.average_precision, average, rtol=1e-12)
        np.testing.assert_array_equal(scores.first_match_rank, first)
        assert scores.mean_average_precision == pytest.approx(average[valid].mean(), rel=1e-12)
        assert scores.mean_inp == pytest.approx(penalty[valid].mean(), rel=1e-12)
        assert scores.cmc == {rank: pytest.approx((first[valid] <= rank).mean()) for rank in (1, 2, 7, 1000)}
        assert (scores.num_queries, scores.num_valid_queries) == (len(query), valid.sum())


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 8), st.integers(1, 20))
def test_equals_a_plain_loop(case, query_block, gallery_block):
    assert_equals_oracle(*case, block_sizes=(query_block, gallery_block))


@pytest.mark.parametrize("shift", [0.0, 3.0, 1000.0])
def test_equals_a_plain_loop_where_the_matrix_product_is_too_coarse(shift):
    # Far from the origin, ½‖g‖² − q·g has few digits of the distance. At 1000 all images are doubtful.
    generator = np.random.default_rng(1)
    features = generator.normal(size=(120, 37)).astype(np.float32) + np.float32(shift)
    persons, cameras = generator.integers(-1, 8, 120), generator.integers(1, 4, 120)
    persons[:15] = generator.integers(1, 8, 15)
    query = embeddings(features[:15], persons[:15], cameras[:15])
    assert_equals_oracle(query, embeddings(features[15:], persons[15:], cameras[15:]))


def query_and_line(*entries):
    """Return a query (person 1, camera 1) at 0, and gallery entries (person, camera) at 1, 2, …"""
    persons, cameras = zip(*entries, strict=True)
    query = embeddings([[0.0]], [1], [1])
    return query, embeddings(np.arange(1, len(entries) + 1)[:, None], persons, cameras)


def test_matches_at_ranks_2_and_4_by_hand():
    query, gallery = query_and_line((5, 2), (1, 2), (6, 2), (1, 3))
    step = evaluate(query, gallery, ranks=(1, 2, 50))
    assert step.mean_average_precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert step.cmc == {1: 0.0, 2: 1.0, 50: 1.0}
    assert step.mean_inp == pytest.approx(2 / 4)
    trapezoid = evaluate(query, gallery, average_precision="trapezoid")
    expected = ((0 / 1 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2
    assert trapezoid.mean_average_precision == pytest.approx(expected) == pytest.approx(1 / 3)


def test_junk_and_own_camera_do_not_count_and_distractors_do():
    query, gallery = query_and_line((-1, 2), (1, 1), (0, 2), (-1, 1), (1, 2))
    scores = evaluate(query, gallery, average_precision="trapezoid", ranks=(1, 2))
    assert scores.first_match_rank.tolist() == [2]
    assert scores.mean_average_precision == pytest.approx((0 / 1 + 1 / 2) / 2)


def test_first_match_at_rank_1_has_precision_1_before_it():
    query, gallery = query_and_line((1, 2), (0, 2))
    assert evaluate(query, gallery, average_precision="trapezoid").mean_average_precision == 1.0


def test_queries_without_a_match_are_counted_and_left_out_of_the_means():
    query = embeddings([[0.0], [0.0], [0.0]], [1, 2, 3], [1, 1, 1])
    gallery = embeddings([[1.0], [1.0]], [1, 2], [2, 1])  # person 2 only in the query's camera, 3 absent
    scores = evaluate(query, gallery, ranks=(1, 2))
    assert (scores.num_queries, scores.num_valid_queries) == (3, 1)
    assert scores.first_match_rank.tolist() == [2, 0, 0]  # at equal distance the wrong image comes first
    assert np.isnan(scores.average_precision).tolist() == [False, True, True]
    assert (scores.mean_average_precision, scores.cmc) == (0.5, {1: 0.0, 2: 1.0})
    as_json = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert as_json["average_precision"] == [0.5, None, None]
    assert as_json["cmc"] == {"1": 0.0, "2": 1.0}


def near_copies(num_persons=9, copies=40, length=131):
    """Return unit features with exact copies of images in random places under other persons' ids."""
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(num_persons, length, generator=generator)
    persons = torch.arange(num_persons * copies) % num_persons
    features = centres[persons] + 0.8 * torch.randn(len(persons), length, generator=generator)
    features = torch.nn.functional.normalize(features)
    order = torch.randperm(len(persons), generator=generator)
    features = torch.cat([features, features[order]])
    persons = torch.cat([persons, persons[order].roll(1)]) + 1
    cameras = torch.arange(len(persons)) // num_persons % 3
    query = Embeddings(features[:50].clone(), persons[:50], cameras[:50])
    return query, Embeddings(features, persons, cameras)


def test_copies_of_an_image_tie_exactly_wherever_they_stand():
    query, gallery = near_copies()
    assert_equals_oracle(
        Embeddings(query.features.numpy(), query.person_ids, query.camera_ids),
        Embeddings(gallery.features.numpy(), gallery.person_ids, gallery.camera_ids),
    )


@pytest.mark.parametrize("block_sizes", [(1, 1), (1, 2048), (7, 13), (50, 64), (1000, 300)])
def test_block_sizes_never_change_a_score(block_sizes):
    query, gallery = near_copies(copies=40 if min(block_sizes) > 20 else 6)
    expected = evaluate(query, gallery)
    scores = evaluate(query, gallery, block_sizes=block_sizes)
    np.testing.assert_array_equal(scores.average_precision, expected.average_precision)
    assert scores.to_dict() == expected.to_dict()


def test_order_of_the_gallery_never_changes_a_score():
    query, gallery = near_copies()
    order = np.random.default_rng(0).permutation(len(gallery))
    shuffled = Embeddings(gallery.features[order], gallery.person_ids[order], gallery.camera_ids[order])
    assert evaluate(query, shuffled).to_dict() == evaluate(query, gallery).to_dict()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_gives_the_scores_of_its_values(dtype):
    query, gallery = near_copies()

    def converted(side):
        features = side.features.to(dtype)
        return (
            Embeddings(features, side.person_ids, side.camera_ids),
            embeddings(features.double().numpy(), side.person_ids, side.camera_ids),
        )

    (query, exact_query), (gallery, exact_gallery) = converted(query), converted(gallery)
    expected = evaluate(exact_query, exact_gallery)
    assert evaluate(query, gallery).to_dict() == expected.to_dict()


def test_float64_tells_apart_what_float32_cannot():
    query = Embeddings(np.array([[1.0, 1.0]]), np.array([1]), np.array([1]))
    features = np.array([[1.0, 1.0 + 1e-12], [1.0, 1.0 + 2e-12], [1.0, 1.0 + 3e-12]])
    scores = evaluate(query, Embeddings(features, np.array([2, 1, 3]), np.array([2, 2, 2])))
    assert scores.first_match_rank.tolist() == [2]


@pytest.mark.parametrize("value", [0.0, 0.3, 1e14, 1e-22])
def test_equal_features_put_every_wrong_image_first(value):
    generator = np.random.default_rng(0)
    persons = np.concatenate([np.arange(1, 9), generator.integers(0, 9, 60)])
    cameras = np.array([1] * 8 + [2] * 60)
    features = np.full((68, 10), value)
    query, gallery = (embeddings(features[s], persons[s], cameras[s]) for s in (slice(8), slice(8, None)))
    assert_equals_oracle(query, gallery)


def test_a_coarse_matrix_product_and_autocast_change_nothing_and_are_restored():
    query, gallery = near_copies()
    expected = evaluate(query, gallery).to_dict()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert evaluate(query, gallery).to_dict() == expected
            assert torch.is_autocast_enabled("cpu")
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_memory_maps_and_tensors_give_the_same_scores_and_stay_as_they_were(tmp_path):
    query, gallery = near_copies()
    stored = np.lib.format.open_memmap(
        tmp_path / "gallery.npy", "w+", np.float32, tuple(gallery.features.shape)
    )
    stored[:] = gallery.features
    stored.flush()
    on_disk = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    before = gallery.features.clone()
    mapped = Embeddings(on_disk, gallery.person_ids, gallery.camera_ids)
    assert evaluate(query, mapped).to_dict() == evaluate(query, gallery).to_dict()
    assert torch.equal(gallery.features, before)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory use from /proc")
def test_a_large_gallery_is_streamed_from_disk(tmp_path):
    program = """
        import sys, threading
        from pathlib import Path
        import numpy as np
        from reidlib.ranking.metrics import Embeddings, evaluate

        def own_memory():  # in MiB, without the mapped file's cached pages
            lines = Path("/proc/self/status").read_text().splitlines()
            return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

        size = 120_000
        stored = np.memmap(sys.argv[1], np.float32, "w+", shape=(size, 128))
        generator = np.random.default_rng(0)
        for start in range(0, size, 4000):
            stored[start:start + 4000] = generator.standard_normal((4000, 128), np.float32)
        persons = np.arange(size) % 24_000 + 1
        gallery = Embeddings(stored, persons, np.arange(size) % 5)
        query = Embeddings(stored[:500].copy(), persons[:500], np.full(500, 9))
        evaluate(query, Embeddings(stored[:20_000], persons[:20_000], gallery.camera_ids[:20_000]))
        before, peak, done = own_memory(), [0.0], threading.Event()

        def watch():
            while not done.wait(0.001):
                peak[0] = max(peak[0], own_memory())

        watcher = threading.Thread(target=watch)
        watcher.start()
        scores = evaluate(query, gallery)
        done.set()
        watcher.join()
        print(scores.num_valid_queries, peak[0] - before)
    """
    program = textwrap.dedent(program)
    command = [sys.executable, "-c", program, str(tmp_path / "gallery")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    num_valid, extra = output.split()
    assert int(num_valid) == 500
    # A copy of the gallery alone would take 59 MiB, the matrix of distances 229.
    assert float(extra) < 40


def test_pooled_queries_by_hand():
    query = embeddings([[9.0, 9.0], [9.0, 9.0]], [2, 1], [1, 1])
    boxes = embeddings(
        [[2.0, 0.0], [0.0, 5.0], [-3.0, 4.0], [1.0, 0.0]],
        [1, 1, 2, 1],
        [1, 1, 1, 2],  # the last box is another camera's
    )
    half = math.sqrt(0.5)
    mean = pool_multi_query(query, boxes, how="mean")
    np.testing.assert_allclose(mean.features, [[-0.6, 0.8], [half, half]], rtol=1e-6)
    assert (mean.person_ids.tolist(), mean.camera_ids.tolist()) == ([2, 1], [1, 1])
    boxes = embeddings([[3.0, 4.0], [8.0, -6.0], [-3.0, 4.0]], [1, 1, 2], [1, 1, 1])
    pooled = pool_multi_query(query, boxes, how="max").features
    np.testing.assert_allclose(pooled, [[-0.6, 0.8], [half, half]], rtol=1e-6)
    pooled = pool_multi_query(query, boxes).features  # (0.6, 0.8) and (0.8, −0.6) add up to (1.4, 0.2)
    np.testing.assert_allclose(pooled[1], np.array([1.4, 0.2]) / math.sqrt(2), rtol=1e-6)
    with pytest.raises(InputError, match="person 2, camera 1"):
        pool_multi_query(query, embeddings([[1.0, 0.0]], [1], [1]))
    with pytest.raises(InputError, match="median"):
        pool_multi_query(query, boxes, how="median")


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(1, 50))
def test_ranked_lists_have_the_order_that_is_scored(case, top):
    query, gallery = case
    lists = ranked_list(range(len(query)), query, gallery, top=top)
    for row in range(len(query)):
        expected = ordered_gallery(query, gallery, row)[:top]
        indices = lists.gallery_indices[row]
        assert indices[: len(expected)].tolist() == [index for _, _, index in expected]
        np.testing.assert_allclose(lists.distances[row, : len(expected)], [e[0] for e in expected], rtol=1e-6)
        for (_, is_match, index), status in zip(expected, lists.statuses[row], strict=False):
            wrong = Status.DISTRACTOR if gallery.person_ids[index] == 0 else Status.OTHER
            assert status == (Status.MATCH if is_match else wrong)
        assert (indices[len(expected) :] == -1).all()
        assert (lists.statuses[row, len(expected) :] == Status.NONE).all()
        assert np.isnan(lists.distances[row, len(expected) :]).all()


def test_ranked_list_shows_ignored_images_on_request():
    query, gallery = query_and_line((-1, 2), (1, 1), (0, 2), (7, 1), (1, 2))
    lists = ranked_list(0, query, gallery, top=5, show_ignored=True)
    ignored, distractor, other, match = Status.IGNORED, Status.DISTRACTOR, Status.OTHER, Status.MATCH
    assert lists.statuses.tolist() == [[ignored, ignored, distractor, other, match]]
    assert lists.distances.tolist() == [[1, 2, 3, 4, 5]]
    assert ranked_list([0], query, gallery, top=2).gallery_indices.tolist() == [[2, 3]]
    for wrong in ({"top": 0}, {"top": 1, "query_indices": [1]}, {"top": 1, "query_indices": -1}):
        with pytest.raises(InputError):
            ranked_list(**{"query_indices": 0, "query": query, "gallery": gallery} | wrong)


FEATURES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("features", "person_ids", "camera_ids", "message"),
    [
        (np.ones(2, np.float32), [1, 2], [1, 1], r"\(2,\)"),
        (np.ones((2, 3), int), [1, 2], [1, 1], "int64"),
        (np.ones((0, 3)), [], [], r"\(0, 3\)"),
        ([[1.0], [2.0]], [1, 2], [1, 1], "list"),
        (FEATURES, [1, 2, 3], [1, 1], "person_ids"),
        (FEATURES, [1, 2], [1.0, 2.0], "camera_ids"),
        (FEATURES, [1, -2], [1, 1], "-2"),
        (FEATURES * [[1], [np.nan]], [1, 2], [1, 1], "nan in row 1"),
        (FEATURES * [[np.inf], [1]], [1, 2], [1, 1], "inf in row 0"),
        (torch.full((2, 3), -1e20), [1, 2], [1, 1], "1e\\+20 in row 0"),
    ],
)
def test_bad_embeddings_are_refused(features, person_ids, camera_ids, message):
    with pytest.raises(InputError, match=message):
        Embeddings(features, person_ids, camera_ids)


def test_bad_arguments_are_refused():
    query, gallery = query_and_line((1, 2), (2, 2))
    for wrong in ({"average_precision": "area"}, {"ranks": ()}, {"ranks": (0, 1)}, {"block_sizes": (1, 0)}):
        with pytest.raises(InputError, match=str(next(iter(wrong))).split("_")[0]):
            evaluate(query, gallery, **wrong)
    with pytest.raises(InputError, match="1 and 3"):
        evaluate(query, Embeddings(FEATURES, [1, 2], [1, 2]))
    for person in (0, -1):
        with pytest.raises(InputError, match=f"{person} in row 1"):
            evaluate(Embeddings(FEATURES, [1, person], [1, 1]), Embeddings(FEATURES, [1, 2], [2, 2]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_scores_bit_for_bit():
    query, gallery = near_copies()
    expected = evaluate(query, gallery)
    moved = [Embeddings(s.features.cuda(), s.person_ids, s.camera_ids) for s in (query, gallery)]
    assert evaluate(*moved).to_dict() == expected.to_dict()
    assert evaluate(query, gallery, device="cuda").to_dict() == expected.to_dict()
    torch.backends.cuda.matmul.fp32_precision, before = "tf32", torch.backends.cuda.matmul.fp32_precision
    try:
        assert evaluate(*moved).to_dict() == expected.to_dict()
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
