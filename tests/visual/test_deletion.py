"""The deletion test on similarities whose cause is known, and on a network."""

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
    """A similarity that falls with what was changed in the one patch, from 1 to 0, and nowhere else."""
    fill_nc11 = images_nchw.float().mean((2, 3), keepdim=True).round()

    def similarity(images_bchw, which_b):
        patch_bchw = images_bchw[:, :, *PATCH].float()
        blank_b = (patch_bchw == fill_nc11[which_b]).all(1).float().mean((1, 2))
        return 1 - blank_b

    return similarity


def pointing(*place):
    maps_nhw = np.zeros((PAIRS, HEIGHT, WIDTH), np.float32)
    maps_nhw[:, *place] = 1
    return maps_nhw


def test_attention_on_the_cause_beats_random_and_attention_elsewhere_does_not():
    images = pictures()
    found = deletion_curves(oracle(images), images, pointing(*PATCH), ROWS, PERSONS)
    # 2 × 4 patches of 4 pixels hold the cause, of 16 × 8: an eighth, 16 patches, is the first step.
    assert found.attended_ns[:, 0] == pytest.approx(1)
    assert found.attended_ns[:, 1:] == pytest.approx(0)
    assert found.areas[0] == pytest.approx(1 / 16)
    assert found.areas[1] == pytest.approx(0.5, abs=0.06)
    assert found.gain.low > 30
    elsewhere = deletion_curves(oracle(images), images, -pointing(*PATCH), ROWS, PERSONS)
    assert elsewhere.areas[0] == pytest.approx(1 - 1 / 16)
    assert elsewhere.gain.high < -30


def test_random_attention_is_no_better_than_random():
    images = pictures()
    maps_nhw = np.random.default_rng(3).random((PAIRS, HEIGHT, WIDTH)).astype(np.float32)
    found = deletion_curves(oracle(images), images, maps_nhw, ROWS, PERSONS, orders=20)
    assert abs(found.gain.mean) < 6
    assert not found.gain.clear
    nothing = deletion_curves(oracle(images), images, np.zeros_like(maps_nhw), ROWS, PERSONS, orders=20)
    assert not nothing.gain.clear  # ties are broken at random, not from the top


def test_attention_that_saw_another_image_is_told_from_attention_that_saw_this_one():
    images = pictures()
    own, elsewhere = pointing(*PATCH), pointing(slice(40, 56), slice(8, 16))
    same = deletion_curves(oracle(images), images, own, ROWS, PERSONS, foreign_nhw=own)
    assert (same.foreign_ns == same.attended_ns).all()
    assert same.gain_over_foreign.mean == 0
    found = deletion_curves(oracle(images), images, own, ROWS, PERSONS, foreign_nhw=elsewhere)
    assert found.gain_over_foreign.low > 30
    alone = deletion_curves(oracle(images), images, own, ROWS, PERSONS)
    assert alone.gain_over_foreign is alone.foreign_ns is None
    assert (alone.random_ns == found.random_ns).all()
    text = deletion.deletion_sentence("net", {"a": same})
    assert "beat random ones for every kind of parts (a); the maps beat another query's for no kind" in text


def test_only_the_parts_rows_are_blanked_and_by_the_images_mean_colour():
    images = pictures()
    seen = []

    def similarity(images_bchw, which_b):
        for image_chw, pair in zip(images_bchw, which_b.tolist(), strict=True):
            changed_hw = (image_chw != images[pair]).any(0)
            fill_c = images[pair].float().mean((1, 2)).round().to(torch.uint8)
            assert not changed_hw[:20].any()
            assert not changed_hw[44:].any()
            assert (image_chw[:, changed_hw] == fill_c[:, None]).all()
            seen.append((pair, float(changed_hw[20:44].float().mean())))
        return torch.zeros(len(which_b))

    found = deletion_curves(
        similarity, images, pointing(*PATCH), [(20, 44)] * PAIRS, PERSONS, steps=4, orders=2
    )
    assert found.shares_s.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert len(seen) == PAIRS * (2 + 3 * 3)  # the stated cost
    of_first = [share for pair, share in seen if pair == 0]
    # A random pixel of noise may have the mean colour already.
    assert of_first == pytest.approx([0, 0.25, 0.5, 0.75, 1, *[0.25, 0.5, 0.75] * 2], abs=0.01)


def test_patches_cover_the_rows_evenly_whatever_their_number():
    for rows in ((0, 64), (5, 16), (40, 41), (0, 30)):
        patches_hw = deletion._patches((64, 30), rows)
        inside = patches_hw[slice(*rows)]
        counts = np.bincount(inside.ravel())
        assert counts.min() > 0
        assert (np.delete(patches_hw, np.r_[slice(*rows)], axis=0) == len(counts)).all()
        assert counts.max() <= 4 * counts.min()


def test_the_same_seed_gives_the_same_and_another_seed_another():
    images = pictures()
    arguments = (oracle(images), images, pointing(*PATCH), ROWS, PERSONS)
    first, again, other = (deletion_curves(*arguments, seed=seed) for seed in (1, 1, 2))
    assert (first.random_ns == again.random_ns).all()
    assert (first.random_ns != other.random_ns).any()
    assert (first.attended_ns == other.attended_ns).all()


def test_the_interval_draws_whole_persons():
    shares_s, flat_ns = np.linspace(0, 1, 3), np.ones((8, 3))
    random_ns = flat_ns + np.repeat([0.1, 0.3], 4)[:, None]
    one_each = Deletion(shares_s, flat_ns, random_ns, np.arange(8)).gain
    of_two = Deletion(shares_s, flat_ns, random_ns, np.repeat([1, 2], 4)).gain
    assert one_each.mean == pytest.approx(20)
    assert of_two[:3] == pytest.approx((20, 10, 30))
    assert 10 < one_each.low < one_each.high < 30


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
def test_a_networks_kinds_are_tested_each_with_its_own_parts(name, monkeypatch):
    model, images = network(name), pictures()
    others_nd = torch.randn(PAIRS, model.branches["full"].stop)
    asked = []
    curves = deletion.deletion_curves

    def spy(similarity, images_nchw, maps_nhw, rows_n, persons_n, **settings):
        asked.append((maps_nhw, rows_n))
        return curves(similarity, images_nchw, maps_nhw, rows_n, persons_n, **settings)

    monkeypatch.setattr(deletion, "deletion_curves", spy)
    found = deletion_by_kind(model, images, others_nd, PERSONS, steps=2, orders=1)
    parts = model.feature_parts(HEIGHT)
    assert list(found) == list(dict.fromkeys(part.kind for part in parts))
    maps_nphw = part_attention(model, images, others_nd, signed=True)
    with torch.inference_mode():
        similarities_np = part_similarities(model.embed(normalise_images(images)), others_nd, parts)
    for (kind, one), (maps_nhw, rows_n) in zip(found.items(), asked, strict=True):
        places = [place for place, part in enumerate(parts) if part.kind == kind]
        for pair in range(PAIRS):
            place = places[pair % len(places)]
            assert rows_n[pair] == pixel_rows(parts[place], HEIGHT)
            assert maps_nhw[pair] == pytest.approx(maps_nphw[pair, place], abs=1e-5)
            assert one.attended_ns[pair, 0] == pytest.approx(similarities_np[pair, place], abs=1e-4)
    again = deletion_by_kind(model, images, others_nd, PERSONS, steps=2, orders=1)
    assert all((again[kind].random_ns == one.random_ns).all() for kind, one in found.items())
    similarity = part_similarity(model, others_nd, [parts[-1]] * PAIRS)
    which_b = torch.tensor([3, 0])
    assert similarity(images[which_b], which_b).numpy() == pytest.approx(
        similarities_np[[3, 0], -1], abs=1e-5
    )


def test_what_is_said_follows_the_intervals():
    shares_s, ones_ns = np.linspace(0, 1, 3), np.ones((4, 3))
    better = Deletion(shares_s, ones_ns - 0.5, ones_ns, np.arange(4))
    even = Deletion(shares_s, ones_ns + np.array([[-0.1], [0.1], [-0.1], [0.1]]), ones_ns, np.arange(4))
    assert (
        deletion.deletion_sentence("net", {"a": better})
        == "net: one pair has no other query's map to compare with; "
        "the maps beat random ones for every kind of parts (a)."
    )
    text = deletion.deletion_sentence("net", {"a": better, "b": even})
    assert "the maps beat random ones for a, **not clearly for b (0.0 [" in text
    assert "for no kind of parts" in deletion.deletion_sentence("net", {"b": even})
    assert deletion.better_than_random({"a": better, "b": even}) == "1 of 2"
    rows = deletion.score_rows("net", {"a": better, "b": even})
    assert [row["better than random"] for row in rows] == ["yes", "not clearly"]
    assert rows[0]["area, attended"] == "0.500"


def test_the_strides_that_win_are_named():
    shares_s, ones_ns = np.linspace(0, 1, 3), np.ones((4, 3))
    noise_n1 = np.array([[-0.1], [0.1], [-0.1], [0.1]])

    def kinds(gain, foreign_gain):
        attended_ns = ones_ns - gain + noise_n1
        return {"a": Deletion(shares_s, attended_ns, ones_ns, np.arange(4), ones_ns - gain + foreign_gain)}

    by_stride = {4: kinds(0.1, 0.3), 8: kinds(0.5, 0.1), 16: kinds(0.48, 0.2)}
    text = deletion.stride_sentence("net", by_stride)
    assert text == (
        "net, stride of the largest difference to random orders: "
        "a: **8** (not told apart from 16), against another query's map 4."
    )
    rows = deletion.stride_rows("net", by_stride)
    assert [row["stride"] for row in rows] == [4, 8, 16]
    assert rows[1]["a"].startswith("+50.0 [")
    assert " · +10.0 [" in rows[1]["a"]
    alone = {8: {"a": Deletion(shares_s, ones_ns, ones_ns, np.arange(4))}}
    assert "against another" not in deletion.stride_sentence("net", alone)
    assert deletion.stride_rows("net", alone)[0]["a"].endswith("· –")


def test_the_foreign_map_is_of_another_person_where_there_is_one():
    assert deletion._another(np.array([1])) is None
    assert deletion._another(np.array([1, 1])).tolist() == [1, 0]
    assert deletion._another(np.array([1, 1, 2, 2, 3])).tolist() == [4, 4, 1, 1, 3]


def test_one_pair_has_no_foreign_map():
    model = network("jlml")
    others_nd = torch.randn(1, model.branches["full"].stop)
    found = deletion_by_kind(model, pictures()[:1], others_nd, PERSONS[:1], steps=2, orders=1)
    assert all(one.foreign_ns is None for one in found.values())
    assert "one pair has no other query's map" in deletion.deletion_sentence("net", found)
    assert deletion.score_rows("net", found)[0]["another query's − attended, × 100 [95 %]"] == "–"


def test_bad_input_is_refused():
    images, maps_nhw = pictures(), pointing(*PATCH)
    similarity = oracle(images)
    for arguments, settings, rule in (
        ((images, maps_nhw[:2], ROWS, PERSONS), {}, "each of one or more pairs"),
        ((images[:0], maps_nhw[:0], [], PERSONS[:0]), {}, "each of one or more pairs"),
        ((images, maps_nhw[:, 1:], ROWS, PERSONS), {}, "its image's size"),
        ((images, maps_nhw, ROWS, PERSONS), {"steps": 0}, "one step"),
        ((images, maps_nhw, ROWS, PERSONS), {"orders": 0}, "one random order"),
    ):
        with pytest.raises(InputError, match=rule):
            deletion_curves(similarity, *arguments, **settings)
