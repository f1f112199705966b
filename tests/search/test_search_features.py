"""Files of features: reading returns what was written, and bad files are refused in one line."""

import io
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from miniature import write_image
from strategies import FILE_NAMES
from untrained_runs import QUIET, untrained_run

from reidlib.data import load
from reidlib.data.images import decode
from reidlib.data.names import known_names
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork
from reidlib.search import search
from reidlib.search.features import FeatureSet, embed_own_images, read_features, save_features, write_features
from reidlib.training.runs import Run

ENDINGS = (".npz", ".parquet")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def run(market, tmp_path):
    return untrained_run(load("market1501", market), tmp_path / "runs").folder


@pytest.fixture
def crops(tmp_path):
    """Three persons, one of them junk, and a camera folder each."""
    root = tmp_path / "crops"
    for seed, name in enumerate(("ann/a/1.jpg", "ann/b/2.JPG", "bérénice/a/3.jpg", "junk/b/4.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(root / name, seed=seed)
    return root


def test_features_name_the_interpolation_of_their_run(market, crops, tmp_path):
    run = untrained_run(load("market1501", market), tmp_path / "runs", resize="bicubic")
    features = embed_own_images(TrainedNetwork(run, QUIET), crops)
    assert features.information["resize"] == "Pillow bicubic, antialiased, aspect not kept"


def made(count=5, length=3, **changed):
    names = [f"{index}.jpg" for index in range(count)]
    content = {
        "features": np.random.default_rng(0).normal(size=(count, length)).astype(np.float32),
        "names": tuple(names),
        "persons": tuple("ab"[index % 2] for index in range(count)),
        "cameras": ("",) * count,
        "information": {"format": 1, "network": "abc", "run": "name"},
    }
    return FeatureSet(**{**content, **changed})


@pytest.mark.parametrize("ending", ENDINGS)
def test_written_features_are_read_with_persons_and_cameras(run, crops, tmp_path, ending):
    out = tmp_path / "new" / f"features{ending}"
    write_features(run, crops, out, device="cpu", progress=False)
    features = read_features(out)
    assert features.names == ("ann/a/1.jpg", "ann/b/2.JPG", "bérénice/a/3.jpg", "junk/b/4.png")
    assert features.persons == ("ann", "ann", "bérénice", "")  # junk is an unknown person
    assert features.cameras == ("a", "b", "a", "b")
    assert features.root == crops
    assert decode(features.root / features.names[3]).shape == (16, 8, 3)
    assert features.information["model"] == "jlml"
    assert features.information["input_size"] == [32, 16]
    network = TrainedNetwork(Run.open(run), QUIET)
    expected = network.embed(split_of(crops, features.names), keep="nothing")
    assert np.array_equal(features.features, expected.features.numpy())
    assert features.information["network"] == network.key


def split_of(root, names):
    from reidlib.data.splits import Split

    return Split([root / name for name in names], np.ones(len(names), int), np.ones(len(names), int))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_is_written_and_read_in_blocks(tmp_path, monkeypatch, ending):
    monkeypatch.setattr("reidlib.search.features._ROWS", 4)
    original = made(11, persons=("é",) * 11)
    save_features(original, tmp_path / f"f{ending}")
    features = read_features(tmp_path / f"f{ending}")
    assert np.array_equal(features.features, original.features)
    assert (features.names, features.persons, features.cameras) == (
        original.names,
        original.persons,
        original.cameras,
    )
    assert features.information == original.information
    assert features.root is None


def test_npz_is_readable_with_numpy_and_memory_mapped(tmp_path):
    original = made()
    save_features(original, tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as content:
        assert np.array_equal(content["features"], original.features)
        assert content["names"].tolist() == list(original.names)
        assert json.loads(str(content["information"]))["network"] == "abc"
    assert isinstance(read_features(tmp_path / "f.npz").features, np.memmap)


def test_features_shorter_than_their_header_says_are_refused(tmp_path):
    """A header of ten times as many rows: a memory map would end in another member, or in a bus error."""
    save_features(made(), tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as content:
        arrays = dict(content)
    shape = (10 * len(arrays["features"]), arrays["features"].shape[1])
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    features = buffer.getvalue() + arrays.pop("features").tobytes()
    np.savez(tmp_path / "f.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "f.npz", "a") as archive:
        archive.writestr("features.npy", features)
    with pytest.raises(InputError, match=r"as long as its header says, [\d,]+ bytes; .*copy it again"):
        read_features(tmp_path / "f.npz")


def test_parquet_is_readable_with_pandas(tmp_path):
    original = made()
    save_features(original, tmp_path / "f.parquet")
    table = pd.read_parquet(tmp_path / "f.parquet")
    assert list(table) == ["name", "person", "camera", "feature"]
    assert table.name.tolist() == list(original.names)
    assert np.array_equal(np.stack(table.feature), original.features)


@pytest.mark.parametrize("ending", ENDINGS)
def test_features_and_images_may_move_together(run, crops, tmp_path, ending):
    out = tmp_path / f"f{ending}"
    write_features(run, crops, out, device="cpu", progress=False)
    assert str(tmp_path).encode() not in out.read_bytes()
    (tmp_path / "moved").mkdir()
    shutil.move(out, tmp_path / "moved" / out.name)
    shutil.move(crops, tmp_path / "moved" / "crops")
    assert read_features(tmp_path / "moved" / out.name).root == tmp_path / "moved" / "crops"


def test_images_are_embedded_once(run, crops, tmp_path, monkeypatch):
    first = write_features(run, crops, tmp_path / "a.npz", device="cpu", progress=False)
    monkeypatch.setattr("reidlib.data.images.decode", None)  # would fail if it were called
    again = write_features(run, crops, tmp_path / "b.npz", device="cpu", progress=False)
    assert np.array_equal(first.features, again.features)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("name", ["f.csv", "f", "f.npy"])
def test_another_ending_is_refused_before_any_work(tmp_path, name):
    with pytest.raises(InputError, match=r"\.npz or \.parquet; got .*; choose one of these endings"):
        write_features(tmp_path / "no run", tmp_path / "no images", tmp_path / name)
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=r"\.npz or \.parquet"):
        read_features(tmp_path / name)


def test_an_existing_file_is_not_overwritten(run, crops, tmp_path):
    (tmp_path / "f.npz").write_text("mine")
    with pytest.raises(InputError, match="which exists; name another, or remove it"):
        write_features(run, crops, tmp_path / "f.npz")
    assert (tmp_path / "f.npz").read_text() == "mine"


def test_a_run_needs_weights_and_a_configuration(run, crops, tmp_path):
    with pytest.raises(InputError, match=r"config\.json"):
        write_features(tmp_path, crops, tmp_path / "f.npz")
    (run / "weights.pt").unlink()
    with pytest.raises(InputError, match="needs the run's weights"):
        write_features(run, crops, tmp_path / "f.npz")
    assert not (tmp_path / "f.npz").exists()


def test_unreadable_images_are_all_named_and_nothing_is_written(run, crops, tmp_path):
    for name in ("ann/a/1.jpg", "junk/b/4.png"):
        (crops / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"2 unreadable: .*1\.jpg .*4\.png"):
        write_features(run, crops, tmp_path / "f.npz", device="cpu", progress=False)
    assert not (tmp_path / "f.npz").exists()
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("ending", ENDINGS)
def test_damaged_files_are_refused_in_one_line(tmp_path, ending):
    file = tmp_path / f"f{ending}"
    with pytest.raises(InputError, match="no file"):
        read_features(file)
    save_features(made(), file)
    whole = file.read_bytes()
    for content in (b"", b"not such a file", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(InputError, match="complete file from `reidlib embed`; got") as refused:
            read_features(file)
        assert "\n" not in str(refused.value)


def test_other_files_with_these_endings_are_refused(tmp_path):
    np.savez(tmp_path / "f.npz", features=np.zeros((2, 2), np.float32))
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "f.parquet")
    np.savez_compressed(tmp_path / "g.npz", **{name: np.zeros((2, 2), np.float32) for name in "ab"})
    for name in ("f.npz", "f.parquet", "g.npz"):
        with pytest.raises(InputError, match="complete file from `reidlib embed`"):
            read_features(tmp_path / name)
    save_features(made(), tmp_path / "h.npz")
    with zipfile.ZipFile(tmp_path / "h.npz") as archive, zipfile.ZipFile(tmp_path / "i.npz", "w", 8) as other:
        for name in archive.namelist():
            other.writestr(name, archive.read(name))
    with pytest.raises(InputError, match="compressed"):
        read_features(tmp_path / "i.npz")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"names": ("a",)}, "5 features, 1 names"),
        ({"features": np.zeros((5, 3))}, "float64"),
        ({"features": np.zeros((0, 3), np.float32)}, "non-empty"),
        ({"information": {}}, "name the network"),
        ({"persons": (None,) * 5}, "texts.*None of 5"),
        ({"names": tuple(["a"] for _ in range(5))}, r"texts.*\['a'\] of 5"),
    ],
)
def test_contradictions_are_refused(changed, words):
    with pytest.raises(InputError, match=words):
        made(**changed)


@pytest.mark.parametrize(
    ("persons", "expected"),
    [
        (np.array([7, 12, -1, 0]), ("7", "12", "", "")),
        (np.array([7.0, np.nan, -1.0, 0.0]), ("7", "", "", "")),
        (np.array(["007", "nan", "7.0", "junk"]), ("007", "", "7.0", "")),
        (np.array([b"Zo\xc3\xab", b"", b"-1", b"7"]), ("Zo\xeb", "", "", "7")),
        (np.float32([7, 12, 13, 14]), ("7", "12", "13", "14")),
    ],
)
def test_persons_may_be_stored_as_numbers_or_bytes(tmp_path, persons, expected):
    file = tmp_path / "f.npz"
    information = json.dumps({"format": 1, "network": "abc", "run": "name"})
    columns = {"names": np.array([*"abcd"]), "cameras": persons, "information": np.array(information)}
    np.savez(file, features=np.zeros((4, 2), np.float32), persons=persons, **columns)
    content = read_features(file)
    assert content.persons == expected
    assert any("unknown person: " in line for line in content.warnings) == ("" in expected)


def test_persons_as_python_objects_are_refused_with_a_mend(tmp_path):
    content = {
        "features": np.zeros((2, 2), np.float32),
        "names": np.array(["a", "b"]),
        "cameras": np.array(["", ""]),
    }
    content["information"] = np.array(json.dumps({"format": 1, "network": "abc", "run": "name"}))
    np.savez(tmp_path / "f.npz", persons=np.array(["a", None], object), **content)
    with pytest.raises(
        InputError, match=r"arrays of texts or numbers; got .*; store them with \.astype\(str\)"
    ):
        read_features(tmp_path / "f.npz")
    np.savez(tmp_path / "g.npz", persons=np.array([["a"], ["b"]]), **content)
    with pytest.raises(InputError, match=r"texts or numbers; got \['a'\]"):
        read_features(tmp_path / "g.npz")


@pytest.mark.parametrize("column", ["names", "persons", "cameras"])
def test_a_name_that_is_not_unicode_is_refused_by_parquet(tmp_path, column):
    with pytest.raises(InputError) as error:
        save_features(made(1, **{column: ("x\udcff.jpg",)}), tmp_path / "f.parquet")
    assert error.value.value == "x\udcff.jpg"  # the whole name, wherever the byte is
    assert "npz" in error.value.mend
    assert list(tmp_path.iterdir()) == []


@given(names=st.lists(FILE_NAMES, min_size=1, max_size=4))
def test_an_npz_file_holds_any_name(tmp_path_factory, names):
    file = tmp_path_factory.mktemp("any name") / "f.npz"
    features = made(len(names), names=tuple(names), persons=tuple(names), cameras=tuple(reversed(names)))
    save_features(features, file)
    again = read_features(file)
    assert again.names == features.names
    assert again.persons == tuple(known_names("person", names)[0])  # "nan", for example, is no name
    assert again.cameras == tuple(known_names("camera", names[::-1])[0])


def test_pyarrow_is_imported_only_for_parquet():
    program = "import sys, reidlib.search; sys.exit('pyarrow' in sys.modules or 'IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=600).returncode == 0


@pytest.mark.parametrize("ending", ENDINGS)
@given(
    row=st.integers(0, 4), column=st.integers(0, 2), number=st.sampled_from([np.nan, np.inf, -np.inf, 2e15])
)
def test_a_file_whose_features_are_not_finite_names_the_image(tmp_path_factory, ending, row, column, number):
    file = tmp_path_factory.mktemp("not finite") / f"f{ending}"
    features = made()
    features.features[row, column] = number
    save_features(features, file)
    with pytest.raises(InputError, match="finite") as error:
        read_features(file)
    assert f" in {row}.jpg of {file}" in error.value.value and "reidlib embed" in error.value.mend


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["weight", "running_var", "classifiers"])
def test_weights_that_are_not_finite_are_refused(run, crops, tmp_path, number, kind):
    weights = torch.load(run / "weights.pt")
    name = next(name for name in weights if kind in name)
    weights[name].view(-1)[-1] = number
    torch.save(weights, run / "weights.pt")
    with pytest.raises(InputError, match="weights are finite") as error:
        write_features(run, crops, tmp_path / "f.npz", device="cpu", progress=False)
    assert name in error.value.value and "train or import again" in error.value.mend
    with pytest.raises(InputError, match="weights are finite"):
        search(crops, crops, run=run, out=tmp_path / "out", device="cpu", progress=False)
    assert not (tmp_path / "out").exists() and not (tmp_path / "f.npz").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda features: np.asfortranarray(features), "columns and no rows"),
        (lambda features: np.full(len(features), Path("x"), dtype=object), "objects"),
        (lambda features: features.astype(object), "objects"),
    ],
)
def test_features_of_another_order_or_of_objects_are_refused(tmp_path, change, words):
    file = tmp_path / "f.npz"
    save_features(made(), file)
    with np.load(file) as content:
        arrays = dict(content)
    np.savez(file, **arrays | {"features": change(arrays["features"])})
    with pytest.raises(InputError, match=words):
        read_features(file)


@pytest.mark.parametrize("value", [torch.zeros(8, dtype=torch.complex64), "text", torch.tensor(3.0)])
def test_weights_that_are_no_real_tensors_are_refused(run, crops, tmp_path, value):
    weights = torch.load(run / "weights.pt")
    for name in [name for name in weights if re.fullmatch(r"classifiers\.(\d+\.)?bias", name)]:
        weights[name] = value
    torch.save(weights, run / "weights.pt")
    with pytest.raises(InputError, match=r"weights\.pt"):
        write_features(run, crops, tmp_path / "f.npz", device="cpu", progress=False)


def test_finite_weights_of_infinite_features_name_an_image(run, crops, tmp_path):
    """The mend works: other weights are another network, whose features are computed anew."""
    sound = torch.load(run / "weights.pt")
    torch.save({n: t * 1e30 if n.endswith("weight") else t for n, t in sound.items()}, run / "weights.pt")
    with pytest.raises(InputError, match="finite") as error:
        write_features(run, crops, tmp_path / "f.npz", device="cpu", progress=False)
    assert str(crops / "ann/a/1.jpg") in error.value.value and "train the run again" in error.value.mend
    torch.save(sound, run / "weights.pt")
    assert len(write_features(run, crops, tmp_path / "f.npz", device="cpu", progress=False)) == 4


def test_damaged_features_in_the_home_name_the_file_to_remove(run, crops, tmp_path, home):
    write_features(run, crops, tmp_path / "f.npz", device="cpu", progress=False)
    (cached,) = (home / "features").glob("*.npy")
    features_nd = np.load(cached, mmap_mode="r+")
    features_nd[2, 3] = np.nan
    features_nd.flush()
    with pytest.raises(InputError, match="finite") as error:
        search(crops, crops, run=run, out=tmp_path / "out", device="cpu", progress=False)
    assert str(crops / "bérénice/a/3.jpg") in error.value.value
    assert f"remove {cached}" in error.value.mend
    cached.unlink()
    write_features(run, crops, tmp_path / "g.npz", device="cpu", progress=False)
    assert np.array_equal(
        read_features(tmp_path / "g.npz").features, read_features(tmp_path / "f.npz").features
    )
