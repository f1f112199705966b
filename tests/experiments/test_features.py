"""Features of a run are the same for every kind of cache."""

import numpy as np
import pytest
import torch
from untrained_runs import QUIET, untrained_run

from reidlib.data import load
from reidlib.errors import InputError
from reidlib.experiments.features import TrainedNetwork


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


def test_features_are_the_same_whatever_is_kept(market, tmp_path):
    benchmark = load("market1501", market)
    network = TrainedNetwork(untrained_run(benchmark, tmp_path / "runs"), QUIET)
    stored = network.embed(benchmark.gallery)
    existing = list((tmp_path / "home").rglob("*.npy"))
    streamed = network.embed(benchmark.gallery, keep="nothing")
    assert torch.equal(streamed.features, stored.features)
    assert streamed.camera_ids.tolist() == stored.camera_ids.tolist() == benchmark.gallery.camera_ids.tolist()
    assert streamed.person_ids.tolist() == stored.person_ids.tolist() == benchmark.gallery.person_ids.tolist()
    assert list((tmp_path / "home").rglob("*.npy")) == existing
    mapped = network.embed(benchmark.gallery, keep="features")
    assert isinstance(mapped.features, np.memmap)
    assert np.array_equal(mapped.features, stored.features.numpy())
    (file,) = set((tmp_path / "home").rglob("*.npy")) - set(existing)
    assert file.parent == tmp_path / "home" / "features"
    benchmark.gallery.paths[2].write_bytes(b"")
    for keep in ("images", "features", "nothing"):
        with pytest.raises(InputError, match=benchmark.gallery.paths[2].name):
            network.embed(benchmark.gallery, keep=keep)


def test_the_key_tells_trainings_of_one_configuration_apart(market, tmp_path):
    benchmark = load("market1501", market)
    first, second = (untrained_run(benchmark, tmp_path / place) for place in ("a", "b"))
    assert TrainedNetwork(first, QUIET).key == TrainedNetwork(second, QUIET).key
    weights = second.weights()
    weights["global_feature.weight"] += 1
    torch.save(weights, second.folder / "weights.pt")
    assert TrainedNetwork(first, QUIET).key != TrainedNetwork(second, QUIET).key
    (second.folder / "weights.pt").unlink()
    with pytest.raises(InputError, match="needs the run's weights"):
        _ = TrainedNetwork(second, QUIET).key
