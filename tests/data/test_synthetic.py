"""The embedded benchmark: exact rays, equal bytes on every machine, correct counts, no partial folders."""

import csv
import dataclasses
import errno
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from reidlib.data import load
from reidlib.data.decoding import decode
from reidlib.data.synthetic import render as synthetic
from reidlib.data.synthetic.bodies import CapsuleGroup, Surface, join
from reidlib.data.synthetic.factors import (
    GALLERY,
    PERSON,
    QUERY,
    SIZES,
    TRAIN,
    BenchmarkSize,
    Factors,
    Orders,
    largest_value,
    plan,
)
from reidlib.data.synthetic.photographs import Studio, cast_rays, cloth, photograph
from reidlib.data.synthetic.raycasting import Views, axes, square_root
from reidlib.data.synthetic.render import fingerprint, preview, render, render_in_memory
from reidlib.data.synthetic.repeatable import RandomStreams, cosine, fold, palettes, sine
from reidlib.data.synthetic.scenes import compose
from reidlib.errors import InputError

TINY = BenchmarkSize(4, 4, 16, 16, 12, 14, 4, 4, 0.0)
# Hash of the pixels below; it changes only with the benchmark's design.
EXPECTED_HASH = "81d855c9e8a190a1e2cc153981cad452f9d968465e9958a3cc810bddc85becc2"
RENDER_AND_HASH = """
import hashlib, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from reidlib.data.synthetic.factors import Factors, largest_value
from reidlib.data.synthetic.render import preview
pictures = [preview(1, camera, Factors(num_cameras=2), count=8) for camera in (1, 2)]
print(hashlib.sha256(b"".join(p.tobytes() for p in pictures)).hexdigest())
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Use one thread, because short operations on busy cores wait for each other; the bytes are equal."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def studio():
    return Studio.build(Factors(num_cameras=2), 0, "cpu")


def orders_of(identity, shots, camera=0):
    ones = np.ones(len(shots), np.int64)
    return Orders(ones * identity, ones * camera, np.asarray(shots), ones * PERSON)


def frontal_view(pitch=0.0, size=2.0):
    one = np.ones(1)
    return Views(
        sine=sine(pitch) * one,
        cosine=cosine(pitch) * one,
        left=-0.5 * size * one,
        top=0.5 * size * one,
        width=size * one,
        height=size * one,
        light=np.asarray([[0.0, 0.6, 0.8]]),
        sun=0.5 * one,
        shadow=0 * one,
    )


def one_capsule(start, end, radius, *, flatness=1.0, front=(0.0, 0.0, 1.0), **surface):
    group = CapsuleGroup(np.zeros(1, np.int64))
    material = Surface(np.asarray([[1.0, 0.2, 0.2]]), **surface)
    group.add(np.asarray([start]), np.asarray([end]), radius, material, flatness=flatness, front=front)
    return join([group])


# --- numbers that are the same on every machine ---------------------------------------------------------


def test_sine_and_cosine_agree_with_the_library():
    angles = np.linspace(-20, 20, 10_001)
    np.testing.assert_allclose(sine(angles), np.sin(angles), atol=1e-9)
    np.testing.assert_allclose(cosine(angles), np.cos(angles), atol=1e-9)


def test_draws_depend_on_name_key_and_seed_only():
    keys = fold(np.arange(20_000))
    draws = RandomStreams(3, keys)
    values = draws.uniform("yaw")
    np.testing.assert_array_equal(RandomStreams(3, keys[::-1]).uniform("yaw"), values[::-1])
    for other in (draws.uniform("pitch"), RandomStreams(4, keys).uniform("yaw"), np.roll(values, 1)):
        assert abs(np.corrcoef(values, other)[0, 1]) < 0.03
    counts = np.histogram(values, 10, (0, 1))[0]
    assert counts.sum() == 20_000 and counts.min() > 1_850 and counts.max() < 2_150
    assert abs(draws.bell("b").mean()) < 0.03 and abs(draws.bell("b").std() - 1) < 0.02
    shares = np.bincount(draws.pick("kind", (1, 2, 7)), minlength=3) / 20_000
    np.testing.assert_allclose(shares, (0.1, 0.2, 0.7), atol=0.015)


def test_palettes_hold_colours_and_odds():
    for name, colours in palettes().items():
        assert len(np.unique(colours[:, :3], axis=0)) == len(colours) >= 3, name
        assert (colours > 0).all() and (colours[:, :3] < 1).all(), name
    drawn_colours = RandomStreams(0, fold(np.arange(9_000))).colour("top", "tops")
    black = (drawn_colours == palettes()["tops"][0, :3]).all(1).mean()
    np.testing.assert_allclose(black, 0.20, atol=0.015)  # 20 in 100


# --- rays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pitch", [0.0, 0.3])
@pytest.mark.parametrize(
    "start, end, radius, flatness",
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.4, 0.4), 1.0),
        ((-0.3, -0.4, 0.1), (0.2, 0.5, -0.2), (0.3, 0.1), 1.0),
        ((-0.3, -0.2, 0.4), (0.1, 0.1, -0.5), (0.12, 0.25), 1.0),
        ((0.0, -0.4, 0.0), (0.0, 0.4, 0.0), (0.3, 0.2), 0.5),
        ((0.0, 0.0, 0.4), (0.0, 0.02, -0.4), (0.15, 0.25), 1.0),
    ],
)
def test_outline_is_that_of_many_spheres(start, end, radius, flatness, pitch):
    """By definition, a capsule is the union of all spheres along its segment."""
    view = frontal_view(pitch)
    shape = (40, 40)
    _, covered = cast_rays(
        one_capsule(start, end, radius, flatness=flatness), view, torch.from_numpy(cloth(0)), shape
    )
    _, up, ray = (axis[0] for axis in axes(view.sine, view.cosine))
    samples = (np.arange(80) + 0.5) / 40 - 1
    inside = np.zeros((80, 80), bool)
    squeeze = np.asarray([1.0, 1.0, 1.0 / flatness])  # flattened along z, the direction of ``front``
    for part in np.linspace(0, 1, 400):
        centre = np.asarray(start) * (1 - part) + np.asarray(end) * part
        size = radius[0] * (1 - part) + radius[1] * part
        for row, y in enumerate(-samples):
            origin = np.stack([samples, y * up[1] + 0 * samples, y * up[2] + 0 * samples], 1) - centre
            origin, direction = origin * squeeze, ray * squeeze
            nearest = origin - np.outer(origin @ direction / (direction @ direction), direction)
            inside[row] |= (nearest * nearest).sum(1) < size * size
    expected = inside.reshape(40, 2, 40, 2).mean((1, 3))
    # A sample exactly on the edge may fall to either side of it.
    assert np.abs(covered[0, 0].numpy() - expected).sum() < 3
    assert expected.sum() > 20


def test_nearer_capsule_hides_the_farther():
    group = CapsuleGroup(np.zeros(1, np.int64))
    for colour, z in (((0.0, 1.0, 0.0), 0.5), ((1.0, 0.0, 0.0), -0.5)):
        point = np.asarray([[0.0, 0.0, z]])
        group.add(point, point, (0.3, 0.3), Surface(np.asarray([colour])))
    colour, _ = cast_rays(join([group]), frontal_view(), torch.from_numpy(cloth(0)), (16, 16))
    red, green, _ = colour[0, :, 8, 8]
    assert green > 0.3 and red == 0


@pytest.mark.parametrize("turned, visible", [(1.0, True), (-1.0, False)])
def test_print_is_seen_from_the_front_only(turned, visible):
    capsule = one_capsule(
        (0.0, 0.3, 0.0), (0.0, -0.3, 0.0), (0.3, 0.3), front=(0.0, 0.0, turned),
        second=np.asarray([[0.0, 0.0, 1.0]]), print_side=0.1, print_half=0.1, print_centre=0.3,
    )  # fmt: skip
    colour, _ = cast_rays(capsule, frontal_view(), torch.from_numpy(cloth(0)), (32, 32))
    assert bool(colour[0, 2, 16, 16] > colour[0, 0, 16, 16]) is visible


def test_culling_changes_no_byte(studio):
    scenes = compose(orders_of(5, range(6)), Factors(num_cameras=2, other_people_share=0.5), 0)
    culled = photograph(scenes, studio, (64, 32))
    assert torch.equal(culled, photograph(scenes, studio, (64, 32), culled=False))


def test_bytes_do_not_depend_on_the_batch(studio):
    factors = Factors(num_cameras=2)
    together = photograph(compose(orders_of(3, range(4)), factors, 0), studio, (64, 32))
    alone = [photograph(compose(orders_of(3, [i]), factors, 0), studio, (64, 32)) for i in range(4)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("capability, threads", [("default", 1), ("avx2", 2), (None, 1)])
def test_same_bytes_with_any_vector_width_and_threads(capability, threads):
    environment = {**os.environ}
    environment.pop("ATEN_CPU_CAPABILITY", None)
    if capability:
        environment["ATEN_CPU_CAPABILITY"] = capability
    command = [sys.executable, "-c", RENDER_AND_HASH, str(threads)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == EXPECTED_HASH


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_bytes_on_a_gpu():
    for camera in (1, 2):
        arguments = (7, camera, Factors(num_cameras=2, occlusion_share=0.5))
        np.testing.assert_array_equal(
            preview(*arguments, count=32), preview(*arguments, count=32, device="cuda")
        )


# --- factors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"box_jitter": -0.1},
        {"turned_share": 1.5},
        {"num_cameras": 1},
        {"gait": float("nan")},
        {"sun": "much"},
    ],
)
def test_factors_out_of_range_are_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        Factors(**changes)


def test_each_factor_changes_its_own_images_only():
    base = Factors(num_cameras=2)
    shots = 24
    before = preview(6, 1, base, count=shots)
    for name, column in (("occlusion_share", "occluded"), ("other_people_share", "accompanied")):
        more = replace(base, **{name: 0.6})
        after = preview(6, 1, more, count=shots)
        truths = [compose(orders_of(6, range(shots)), factors, 0).truth[column] for factors in (base, more)]
        changed = (before != after).any((1, 2, 3))
        np.testing.assert_array_equal(changed, truths[0] != truths[1])
        assert 0 < changed.sum() < shots


def test_box_jitter_moves_the_box_and_nothing_else():
    truths = [
        compose(orders_of(6, range(40)), Factors(num_cameras=2, box_jitter=jitter), 0).truth
        for jitter in (0.0, 0.1)
    ]
    for name in ("yaw", "distance", "box_height", "occluded"):
        np.testing.assert_array_equal(truths[0][name], truths[1][name])
    moved = (truths[1]["box_left"] - truths[0]["box_left"]) / truths[0]["box_height"]
    assert 0.03 < moved.std() < 0.08


def test_people_stand_on_the_ground_and_fill_their_box():
    factors = Factors(
        num_cameras=2, box_jitter=0, box_scale_error=0, occlusion_share=0, other_people_share=0, clutter=0
    )
    identities = np.arange(1, 61)
    zeros = np.zeros_like(identities)
    scenes = compose(Orders(identities, zeros, zeros, zeros + PERSON), factors, 0)
    capsules = scenes.capsules
    low = np.minimum(capsules.start[:, 1] - capsules.radius[:, 0], capsules.end[:, 1] - capsules.radius[:, 1])
    lowest = np.asarray([low[capsules.image == i].min() for i in range(60)])
    assert np.abs(lowest).max() < 0.03
    _, covered = cast_rays(capsules, scenes.views, torch.from_numpy(cloth(0)), (128, 64))
    rows = (covered[:, 0] > 0).any(2).float().argmax(1), (covered[:, 0].flip(1) > 0).any(2).float().argmax(1)
    for margin in rows:
        assert margin.min() >= 1 and margin.max() <= 12


# --- labels and counts --------------------------------------------------------------------------------------


def check_labels(images):
    person, camera, split = images.person, images.camera, images.split
    train, query, gallery = (split == name for name in (TRAIN, QUERY, GALLERY))
    assert not set(person[train]) & set(person[query | gallery])
    assert len(np.unique(images.name)) == len(images)
    pairs = list(zip(person[query].tolist(), camera[query].tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    cameras = {}
    for label, number in zip(person[gallery].tolist(), camera[gallery].tolist(), strict=True):
        cameras.setdefault(label, set()).add(number)
    assert all(cameras[label] - {number} for label, number in pairs)
    key = np.stack([images.identity, camera, images.shot, images.kind])
    assert len(np.unique(key, axis=1).T) == len(images)


def test_full_has_the_counts_of_market1501():
    images = plan(SIZES["full"], 6, 0)
    counts = synthetic._counts(images)
    assert counts[TRAIN] == {"images": 12936, "identities": 751, "cameras": 6}
    assert counts[QUERY] == {"images": 3368, "identities": 750, "cameras": 6}
    assert counts[GALLERY] == {
        "images": 19732 + 0, "identities": 750, "cameras": 6, "junk": 3819, "distractors": 2798,
    }  # fmt: skip
    check_labels(images)


@pytest.mark.parametrize("name, cameras", [("smoke", 6), ("quick", 6), ("quick", 2), ("quick", 9)])
def test_labels_of_the_smaller_sizes(name, cameras):
    images = plan(SIZES[name], cameras, 1)
    check_labels(images)
    assert set(images.camera) == set(range(cameras))


def test_the_training_split_of_quick_is_that_of_the_first_version():
    # The digests were computed when the test split had 130 persons.
    images = plan(SIZES["quick"], 6, 0)
    train = images[images.split == TRAIN]
    columns = (train.name, train.identity, train.camera, train.shot)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    text = "".join(f"{name} {identity} {camera} {shot}\n" for name, identity, camera, shot in rows)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "69b5442aa50b5ec9"
    factors = Factors()
    scenes = compose(train[::24], factors, 0)
    pictures = photograph(scenes, Studio.build(factors, 0, "cpu"), synthetic.SHAPE).numpy()
    assert hashlib.sha256(pictures.tobytes()).hexdigest()[:16] == "813f42b61e610f77"


def test_images_do_not_depend_on_how_a_processor_rounds_square_roots():
    """Images in which MKL's square roots of another processor changed pixels, by up to 8 levels."""
    program = (
        "import hashlib\n"
        "from reidlib.data.synthetic.factors import Factors, plan\n"
        "from reidlib.data.synthetic.photographs import Studio, photograph\n"
        "from reidlib.data.synthetic.render import SHAPE, SIZES\n"
        "from reidlib.data.synthetic.scenes import compose\n"
        "scenes = compose(plan(SIZES['quick'], 6, 0)[[118, 156, 574, 716]], Factors(), 0)\n"
        "pictures = photograph(scenes, Studio.build(Factors(), 0, 'cpu'), SHAPE)\n"
        "print(hashlib.sha256(pictures.numpy().tobytes()).hexdigest()[:16])\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "OMP_NUM_THREADS": "1", **kernels},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for kernels in ({}, {"MKL_CBWR": "COMPATIBLE"})
    }
    assert digests == {"de17d35249752634"}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_square_roots_are_rounded_correctly(kind):
    values = (np.random.default_rng(0).random(1_000_000) * 4).astype(kind)
    assert np.array_equal(square_root(torch.from_numpy(values)).numpy(), np.sqrt(values))


def test_quick_tests_on_400_other_persons():
    images = plan(SIZES["quick"], 6, 0)
    persons = {split: set(images.person[images.split == split].tolist()) for split in (TRAIN, QUERY, GALLERY)}
    assert len(persons[QUERY]) == 400 and persons[QUERY] == persons[GALLERY] - {-1, 0}
    assert not persons[TRAIN] & persons[QUERY]


def test_contradictory_sizes_are_refused():
    with pytest.raises(InputError, match="two to six cameras"):
        BenchmarkSize(10, 10, 10, 40, 20, 20, 0, 0, 0.0)
    for drawn in (3, 9):
        with pytest.raises(InputError, match=f"drawn_identities {drawn} for 4 of 8"):
            replace(TINY, drawn_identities=drawn)


# --- the folder ---------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", TINY)
    return Factors(num_cameras=3)


def test_rendered_folder_reads_as_market1501(tiny, tmp_path):
    folder = render("tiny", tmp_path / "t", factors=tiny, progress=False)
    record = json.loads((folder / "rendering.json").read_text())
    for split in (TRAIN, QUERY, GALLERY):
        assert len(list((folder / split).iterdir())) == record["counts"][split]["images"]
    benchmark = load("synthetic", folder)
    assert len(benchmark.query.paths) == record["counts"][QUERY]["images"]
    assert (benchmark.gallery.person_ids == 0).sum() == record["counts"][GALLERY]["distractors"]
    with Image.open(benchmark.query.paths[0]) as picture:
        assert picture.format == "JPEG" and picture.size == (64, 128)
    with (folder / "factors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {f"{row['split']}/{row['file']}" for row in rows} == {
        f"{path.parent.name}/{path.name}" for path in folder.glob("*/*.jpg")
    }
    assert {row["kind"] for row in rows} == {"person", "junk", "background"}


def test_written_pictures_are_the_previewed_ones(tiny, tmp_path):
    folder = render("tiny", tmp_path / "t", factors=tiny, progress=False)
    path = sorted((folder / QUERY).iterdir())[0]
    picture = preview(int(path.name[:4]), int(path.name[6]), tiny)[0].transpose(1, 2, 0)
    Image.fromarray(picture).save(tmp_path / "preview.jpg", quality=95)
    assert path.read_bytes() == (tmp_path / "preview.jpg").read_bytes()


def test_a_second_call_reuses_the_folder(tiny, tmp_path, monkeypatch):
    folder = render("tiny", tmp_path / "t", factors=tiny, progress=False)
    hashes = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*/*.jpg")}
    again = render("tiny", tmp_path / "u", factors=tiny, progress=False)
    assert {
        path.relative_to(again): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in again.glob("*/*.jpg")
    } == {path.relative_to(folder): value for path, value in hashes.items()}
    monkeypatch.setattr(synthetic, "_write", None)  # would fail if called
    assert render("tiny", folder, factors=tiny) == folder


def test_images_in_memory_are_those_of_the_files(tiny, tmp_path):
    folder = render("tiny", tmp_path / "t", factors=tiny, progress=False)
    images = plan(TINY, tiny.num_cameras, 0)[::5]
    pictures_nhwc = render_in_memory(images, tiny)
    assert pictures_nhwc.dtype == np.uint8 and len(pictures_nhwc) == len(images) > 5
    for picture, split, name in zip(pictures_nhwc, images.split, images.name, strict=True):
        np.testing.assert_array_equal(picture, decode(folder / split / name))
    assert render_in_memory(images[:0], tiny).shape == (0, 128, 64, 3)


def test_a_folder_of_an_earlier_version_with_test_images_alone_is_refused(tiny, tmp_path):
    folder = render("tiny", tmp_path / "t", factors=tiny, progress=False)
    record = json.loads((folder / "rendering.json").read_text())
    del record["counts"][TRAIN]
    (folder / "rendering.json").write_text(json.dumps(record | {"splits": ["query", "bounding_box_test"]}))
    with pytest.raises(InputError, match=r"one rendering.*bounding_box_train None"):
        render("tiny", folder, factors=tiny, progress=False)
    with pytest.raises(InputError, match="render the folder"):
        load("synthetic", folder)


def test_a_fingerprint_names_a_rendering(tiny, monkeypatch):
    first = fingerprint("tiny", tiny)
    assert first == fingerprint("tiny", Factors(num_cameras=3)) and len(first) == 16
    others = {
        fingerprint("smoke", tiny),
        fingerprint("tiny", tiny, seed=1),
        fingerprint("tiny", replace(tiny, gait=0.5)),
    }
    monkeypatch.setitem(SIZES, "tiny", replace(TINY, junk=5))
    others.add(fingerprint("tiny", tiny))
    monkeypatch.setitem(SIZES, "tiny", TINY)
    monkeypatch.setattr(synthetic, "_FORMAT", synthetic._FORMAT + 1)
    others.add(fingerprint("tiny", tiny))
    assert len({first, *others}) == 6


@pytest.mark.parametrize("change", [{"seed": 1}, {"factors": Factors(num_cameras=3, gait=0.5)}])
def test_other_arguments_on_the_same_folder_are_refused(tiny, tmp_path, change):
    folder = render("tiny", tmp_path / "t", factors=tiny, progress=False)
    with pytest.raises(InputError, match=r"one rendering.*(seed 0 where 1|gait 1.0 where 0.5)"):
        render("tiny", folder, **{"factors": tiny, **change}, progress=False)


def test_a_rendering_with_the_counts_of_an_earlier_version_is_refused(tiny, tmp_path, monkeypatch):
    folder = render("tiny", tmp_path / "t", factors=tiny, progress=False)
    monkeypatch.setitem(SIZES, "tiny", replace(TINY, gallery_images=20))
    with pytest.raises(InputError, match=r"one rendering.*images \d+ where \d+ was.*remove this one"):
        render("tiny", folder, factors=tiny, progress=False)


def test_a_folder_with_other_files_is_refused_and_unchanged(tiny, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="other files"):
        render("tiny", tmp_path, factors=tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    "failure, raised",
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), InputError),
    ],
)
def test_interruption_and_full_disk_leave_nothing(tiny, tmp_path, monkeypatch, failure, raised):
    (tmp_path / ".t.partial-old").mkdir()  # from a process that was killed
    save, calls = Image.Image.save, []

    def failing(self, *arguments, **options):
        calls.append(1)
        if len(calls) > 5:
            raise failure
        save(self, *arguments, **options)

    monkeypatch.setattr(Image.Image, "save", failing)
    with pytest.raises(raised):
        render("tiny", tmp_path / "t", factors=tiny, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [".t.lock"]
    monkeypatch.undo()
    monkeypatch.setitem(SIZES, "tiny", TINY)
    assert (render("tiny", tmp_path / "t", factors=tiny, progress=False) / "rendering.json").exists()


def test_bad_arguments_are_refused(tiny, tmp_path):
    with pytest.raises(InputError, match="did you mean quick"):
        render("quik", tmp_path / "t")
    with pytest.raises(InputError, match="seed"):
        render("tiny", tmp_path / "t", seed=-1)
    with pytest.raises(InputError, match="device"):
        render("tiny", tmp_path / "t", device="nonsense")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="writable"):
        render("tiny", tmp_path / "file" / "t", factors=tiny)
    with pytest.raises(InputError, match="camera"):
        preview(1, 7)
    assert not (tmp_path / "t").exists()


# --- difficulty ---------------------------------------------------------------------------------------------


def stripe_histograms(pictures, stripes=6, bins=16):
    """Compute colour histograms of horizontal stripes, (N, stripes · 3 · bins), of unit length."""
    features = []
    for picture in pictures:
        counts = [
            np.bincount(stripe[channel].ravel() // (256 // bins), minlength=bins)
            for stripe in np.array_split(picture, stripes, 1)
            for channel in range(3)
        ]
        feature = np.concatenate(counts).astype(np.float64)
        features.append(feature / np.sqrt((feature * feature).sum()))
    return np.stack(features)


def rank_one(factors, identities):
    """Return the share of queries whose nearest box shows the same person in another camera."""
    person = np.repeat(np.arange(1, identities + 1), factors.num_cameras)
    camera = np.tile(np.arange(factors.num_cameras), identities)
    studio = Studio.build(factors, 0, "cpu")
    features = []
    for shot in (0, 1):
        orders = Orders(person, camera, np.full_like(person, shot), np.zeros_like(person))
        features.append(
            stripe_histograms(photograph(compose(orders, factors, 0), studio, synthetic.SHAPE).numpy())
        )
    similar = features[0] @ features[1].T
    similar[(person[:, None] == person) & (camera[:, None] == camera)] = -1
    return (person[similar.argmax(1)] == person).mean()


def test_colour_histograms_do_not_solve_it():
    assert rank_one(Factors(num_cameras=4), 40) < 0.05


@pytest.mark.parametrize("extreme", ["least", "most"])
def test_every_factor_at_its_limit_still_renders(extreme):
    names = [field.name for field in dataclasses.fields(Factors) if field.name != "num_cameras"]
    limits = {name: 0.0 if extreme == "least" else largest_value(name) for name in names}
    pictures = preview(2, 2, Factors(num_cameras=2, **limits), count=4)
    assert pictures.std((1, 2, 3)).min() > 5  # no image is uniform
