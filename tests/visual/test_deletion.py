"""The deletion test with similarities of known cause, and with networks."""

import numpy as np
import pytest
import torch
from torch import nn

from reidlib.data.augmentation import normalise_images
from reidlib.errors import InputError
from reidlib.models import JLML, Pyramid
from reidlib.visual.attention import deletion
from reidlib.visual.attention.deletion import Deletion, deletion_by_kind, deletion_curves, part_similarity
from reidlib.visual.attention.maps import part_attention, pixel_rows
from reidlib.visual.attention.pairs import part_similarities

PAIRS, HEIGHT, WIDTH = 12, 64, 32
PERSONS = np.repeat(np.arange(1, 7), 2)
ROWS = [(0, HEIGHT)] * PAIRS
PATCH = (slice(16, 32), slice(8, 16))


def pictures(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (PAIRS, 3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)


def oracle(images_nchw):
    """Create a similarity that falls from 1 to 0 with the blanked share of a patch and ignores the rest."""
    fill_nc11 = images_nchw.float().mean((2, 3), keepdim=True).round()

    def similarity(images_bchw, pairs_b):
        patch_bchw = images_bchw[:, :, *PATCH].float()
        blank_b = (patch_bchw == fill_nc11[pairs_b]).all(1).float().mean((1, 2))
        return 1 - blank_b

    return similarity


def maps_of_ones_at(*area):
    maps_nhw = np.zeros((PAIRS, HEIGHT, WIDTH), np.float32)
    maps_nhw[:, *area] = 1
    return maps_nhw


def test_only_attention_to_the_cause_beats_random_orders():
    images = pictures()
    result = deletion_curves(oracle(images), images, maps_of_ones_at(*PATCH), ROWS, PERSONS)
    # The cause covers 2 × 4 of 8 × 16 patches. The first step blanks an eighth of them, 16 patches.
    assert result.attended_ns[:, 0] == pytest.approx(1)
    assert result.attended_ns[:, 1:] == pytest.approx(0)
    assert result.areas[0] == pytest.approx(1 / 16)
    assert result.areas[1] == pytest.approx(0.5, abs=0.06)
    assert result.gain.low > 30
    opposite = deletion_curves(oracle(images), images, -maps_of_ones_at(*PATCH), ROWS, PERSONS)
    assert opposite.areas[0] == pytest.approx(1 - 1 / 16)
    assert opposite.gain.high < -30


def test_random_attention_does_not_beat_random_orders():
    images = pictures()
    maps_nhw = np.random.default_rng(3).random((PAIRS, HEIGHT, WIDTH)).astype(np.float32)
    result = deletion_curves(oracle(images), images, maps_nhw, ROWS, PERSONS, orders=20)
    assert abs(result.gain.mean) < 6
    assert not result.gain.excludes_zero
    constant = deletion_curves(oracle(images), images, np.zeros_like(maps_nhw), ROWS, PERSONS, orders=20)
    assert not constant.gain.excludes_zero  # ties are broken at random, not from the top


def test_foreign_maps_are_distinguished_from_own_maps():
    images = pictures()
    own, foreign = maps_of_ones_at(*PATCH), maps_of_ones_at(slice(40, 56), slice(8, 16))
    same = deletion_curves(oracle(images), images, own, ROWS, PERSONS, foreign_nhw=own)
    assert (same.foreign_ns == same.attended_ns).all()
    assert same.gain_over_foreign.mean == 0
    different = deletion_curves(oracle(images), images, own, ROWS, PERSONS, foreign_nhw=foreign)
    assert different.gain_over_foreign.low > 30
    alone = deletion_curves(oracle(images), images, own, ROWS, PERSONS)
    assert alone.gain_over_foreign is alone.foreign_ns is None
    assert (alone.random_ns == different.random_ns).all()
    text = deletion.deletion_sentence("net", {"a": same})
    assert (
        "beat random orders for every kind of parts (a); the maps beat another query's map for no kind"
        in text
    )


def test_only_the_parts_rows_get_the_mean_colour_of_the_image():
    images = pictures()
    blanked = []

    def similarity(images_bchw, pairs_b):
        for image_chw, pair in zip(images_bchw, pairs_b.tolist(), strict=True):
            changed_hw = (image_chw != images[pair]).any(0)
            fill_c = images[pair].float().mean((1, 2)).round().to(torch.uint8)
            assert not changed_hw[:20].any()
            assert not changed_hw[44:].any()
            assert (image_chw[:, changed_hw] == fill_c[:, None]).all()
            blanked.append((pair, float(changed_hw[20:44].float().mean())))
        return torch.zeros(len(pairs_b))

    result = deletion_curves(
        similarity, images, maps_of_ones_at(*PATCH), [(20, 44)] * PAIRS, PERSONS, steps=4, orders=2
    )
    assert result.shares_s.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert len(blanked) == PAIRS * (2 + 3 * 3)  # the documented cost
    shares = [share for pair, share in blanked if pair == 0]
    # A random pixel may have had the mean colour before.
    assert shares == pytest.approx([0, 0.25, 0.5, 0.75, 1, *[0.25, 0.5, 0.75] * 2], abs=0.01)


def test_patches_cover_any_number_of_rows_evenly():
    for rows in ((0, 64), (5, 16), (40, 41), (0, 30)):
        patches_hw = deletion._patches((64, 30), rows)
        inside = patches_hw[slice(*rows)]
        counts = np.bincount(inside.ravel())
        assert counts.min() > 0
        assert (np.delete(patches_hw, np.r_[slice(*rows)], axis=0) == len(counts)).all()
        assert counts.max() <= 4 * counts.min()


def test_random_orders_depend_on_the_seed():
    images = pictures()
    arguments = (oracle(images), images, maps_of_ones_at(*PATCH), ROWS, PERSONS)
    first, again, other = (deletion_curves(*arguments, seed=seed) for seed in (1, 1, 2))
    assert (first.random_ns == again.random_ns).all()
    assert (first.random_ns != other.random_ns).any()
    assert (first.attended_ns == other.attended_ns).all()


def test_the_interval_is_one_over_whole_persons():
    shares_s, flat_ns = np.linspace(0, 1, 3), np.ones((8, 3))
    random_ns = flat_ns + np.repeat([0.1, 0.3], 4)[:, None]
    separate = Deletion(shares_s, flat_ns, random_ns, np.arange(8)).gain
    grouped = Deletion(shares_s, flat_ns, random_ns, np.repeat([1, 2], 4)).gain
    assert separate.mean == pytest.approx(20)
    # Two persons, 10 and 30: a standard error of 10, and Student's t with one degree of freedom at 97.5 %.
    assert grouped[:3] == pytest.approx((20, 20 - 127.062, 20 + 127.062), abs=1e-3)
    assert 10 < separate.low < separate.high < 30


def network(name):
    torch.manual_seed(0)
    if name == "jlml":
        model = JLML(5, parts=2, width=0.125, feature_size=32)
    else:
        model = Pyramid(5, stripes=2, trunk="resnet39", weights=None, width=0.125, embedding_size=8)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("name", ["jlml", "pyramid"])
def test_every_kind_is_tested_with_its_own_parts(name, monkeypatch):
    model, images = network(name), pictures()
    others_nd = torch.randn(PAIRS, model.branches["full"].stop)
    calls = []
    curves = deletion.deletion_curves

    def spy(similarity, images_nchw, maps_nhw, rows_n, persons_n, **settings):
        calls.append((maps_nhw, rows_n))
        return curves(similarity, images_nchw, maps_nhw, rows_n, persons_n, **settings)

    monkeypatch.setattr(deletion, "deletion_curves", spy)
    deletions = deletion_by_kind(model, images, others_nd, PERSONS, steps=2, orders=1)
    parts = model.feature_parts(HEIGHT)
    assert list(deletions) == list(dict.fromkeys(part.kind for part in parts))
    maps_nphw = part_attention(model, images, others_nd, signed=True)
    with torch.inference_mode():
        similarities_np = part_similarities(model.embed(normalise_images(images)), others_nd, parts)
    for (kind, result), (maps_nhw, rows_n) in zip(deletions.items(), calls, strict=True):
        indices = [index for index, part in enumerate(parts) if part.kind == kind]
        for pair in range(PAIRS):
            index = indices[pair % len(indices)]
            assert rows_n[pair] == pixel_rows(parts[index], HEIGHT)
            assert maps_nhw[pair] == pytest.approx(maps_nphw[pair, index], abs=1e-5)
            assert result.attended_ns[pair, 0] == pytest.approx(similarities_np[pair, index], abs=1e-4)
    again = deletion_by_kind(model, images, others_nd, PERSONS, steps=2, orders=1)
    assert all((again[kind].random_ns == result.random_ns).all() for kind, result in deletions.items())
    similarity = part_similarity(model, others_nd, [parts[-1]] * PAIRS)
    pairs_b = torch.tensor([3, 0])
    assert similarity(images[pairs_b], pairs_b).numpy() == pytest.approx(
        similarities_np[[3, 0], -1], abs=1e-5
    )


def test_sentences_and_tables_follow_the_intervals():
    shares_s, ones_ns = np.linspace(0, 1, 3), np.ones((4, 3))
    better = Deletion(shares_s, ones_ns - 0.5, ones_ns, np.arange(4))
    unclear = Deletion(shares_s, ones_ns + np.array([[-0.1], [0.1], [-0.1], [0.1]]), ones_ns, np.arange(4))
    assert (
        deletion.deletion_sentence("net", {"a": better})
        == "net: a single pair has no other query's map to compare with; "
        "the maps beat random orders for every kind of parts (a)."
    )
    text = deletion.deletion_sentence("net", {"a": better, "b": unclear})
    assert "the maps beat random orders for a, **not clearly for b (0.0 [" in text
    assert "for no kind of parts" in deletion.deletion_sentence("net", {"b": unclear})
    assert deletion.count_better_than_random({"a": better, "b": unclear}) == "1 of 2"
    rows = deletion.score_rows("net", {"a": better, "b": unclear})
    assert [row["better than random"] for row in rows] == ["yes", "not clearly"]
    assert rows[0]["area, attended"] == "0.500"


def test_stride_sentences_name_the_best_strides():
    shares_s, ones_ns = np.linspace(0, 1, 3), np.ones((4, 3))
    noise_n1 = np.array([[-0.1], [0.1], [-0.1], [0.1]])

    def kinds(gain, foreign_gain):
        attended_ns = ones_ns - gain + noise_n1
        return {"a": Deletion(shares_s, attended_ns, ones_ns, np.arange(4), ones_ns - gain + foreign_gain)}

    by_stride = {4: kinds(0.1, 0.3), 8: kinds(0.5, 0.1), 16: kinds(0.48, 0.2)}
    text = deletion.stride_sentence("net", by_stride)
    assert text == (
        "net, stride with the largest gain over random orders: "
        "a: **8** (not clearly better than 16), over another query's map 4."
    )
    rows = deletion.stride_rows("net", by_stride)
    assert [row["stride"] for row in rows] == [4, 8, 16]
    assert rows[1]["parts"] == "a"
    assert rows[1]["against random"].startswith("+50.0 [")
    assert rows[1]["against another query's map"].startswith("+10.0 [")
    alone = {8: {"a": Deletion(shares_s, ones_ns, ones_ns, np.arange(4))}}
    assert "over another" not in deletion.stride_sentence("net", alone)
    assert deletion.stride_rows("net", alone)[0]["against another query's map"] == "–"


def test_the_foreign_map_shows_another_person_if_possible():
    assert deletion._foreign_pairs(np.array([1])) is None
    assert deletion._foreign_pairs(np.array([1, 1])).tolist() == [1, 0]
    assert deletion._foreign_pairs(np.array([1, 1, 2, 2, 3])).tolist() == [4, 4, 1, 1, 3]


def test_one_pair_has_no_foreign_map():
    model = network("jlml")
    others_nd = torch.randn(1, model.branches["full"].stop)
    deletions = deletion_by_kind(model, pictures()[:1], others_nd, PERSONS[:1], steps=2, orders=1)
    assert all(result.foreign_ns is None for result in deletions.values())
    assert "a single pair has no other query's map" in deletion.deletion_sentence("net", deletions)
    assert deletion.score_rows("net", deletions)[0]["another query's − attended, × 100 [95 %]"] == "–"


def test_bad_input_is_refused():
    images, maps_nhw = pictures(), maps_of_ones_at(*PATCH)
    similarity = oracle(images)
    for arguments, settings, rule in (
        ((images, maps_nhw[:2], ROWS, PERSONS), {}, "every pair has an image"),
        ((images[:0], maps_nhw[:0], [], PERSONS[:0]), {}, "every pair has an image"),
        ((images, maps_nhw[:, 1:], ROWS, PERSONS), {}, "the size of its image"),
        ((images, maps_nhw, ROWS, PERSONS), {"steps": 0}, "at least one step"),
        ((images, maps_nhw, ROWS, PERSONS), {"orders": 0}, "one random order"),
    ):
        with pytest.raises(InputError, match=rule):
            deletion_curves(similarity, *arguments, **settings)
