"""Features are in the order of the images; a file has the same bytes after any number of interruptions."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from miniature import write_image
from torch import nn
from untrained_runs import QUIET

from reidlib.data import images
from reidlib.data.images import ImageStore, decode
from reidlib.data.splits import Split
from reidlib.errors import InputError
from reidlib.experiments import features
from reidlib.experiments.features import embed, embed_to_disk
from reidlib.models.jlml import JLML
from reidlib.ranking.metrics import Embeddings, evaluate

SIZE = (16, 8)


class Tiny(nn.Module):
    """A network with features of seven numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 * SIZE[0] * SIZE[1], 7, bias=False)
        nn.init.normal_(self.layer.weight, generator=torch.Generator().manual_seed(0))

    def embed(self, images_bchw):
        return self.layer(images_bchw.flatten(1))


class Killed(BaseException):
    """An exception that, like Ctrl-C, no handler for Exception catches."""


@pytest.fixture
def split(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{index:02}.jpg" for index in range(23)]
    for index, path in enumerate(paths):
        write_image(path, SIZE, seed=index)
    return Split(paths, np.arange(1, 24), np.ones(23, int))


@pytest.fixture(autouse=True)
def blocks_of_four(monkeypatch):
    monkeypatch.setattr(images, "IMAGES_PER_BLOCK", 4)
    monkeypatch.setattr(features, "IMAGES_PER_BLOCK", 4)


def to_disk(split, file, *, model=None, key="key"):
    return embed_to_disk(model or Tiny(), split.paths, SIZE, QUIET, file, key=key)


def killed_in_block(number, model=None):
    """A model that dies in its n-th block."""
    model, calls = model or Tiny(), []
    whole = model.embed

    def dying(images_bchw):
        calls.append(1)
        if len(calls) == number:
            raise Killed
        return whole(images_bchw)

    model.embed = dying
    return model


def test_features_are_those_of_the_images_in_their_order(split, tmp_path):
    features_nd = to_disk(split, tmp_path / "f.npy")
    pixels = np.stack([decode(path, SIZE) for path in split.paths])
    expected = [embed(Tiny(), ImageStore(pixels[i : i + 4], torch.device("cpu"))) for i in range(0, 23, 4)]
    assert np.array_equal(features_nd, torch.cat(expected).numpy())
    assert isinstance(features_nd, np.memmap)
    assert features_nd.dtype == np.float32
    assert not features_nd.flags.writeable


def test_ranking_streams_from_the_file(split, tmp_path):
    features_nd = to_disk(split, tmp_path / "f.npy")
    gallery = Embeddings(features_nd, split.person_ids, split.camera_ids)
    query = Embeddings(np.array(features_nd), split.person_ids, split.camera_ids + 1)
    assert gallery.features is features_nd
    assert evaluate(query, gallery).cmc[1] == 1  # every image finds itself


@pytest.mark.parametrize("stops", [(1,), (2,), (6,), (3, 2), (2, 2, 1, 2)])
def test_an_interrupted_computation_continues_to_the_same_bytes(split, tmp_path, stops, decoded):
    whole, file = tmp_path / "whole.npy", tmp_path / "f.npy"
    to_disk(split, whole)
    decoded.clear()
    for stop in stops:
        with pytest.raises(Killed):
            to_disk(split, file, model=killed_in_block(stop))
        assert not file.exists()
    to_disk(split, file)
    assert file.read_bytes() == whole.read_bytes()
    assert not file.with_suffix(".partial").exists()
    # Nothing that had been written was computed again: each stop costs the block that it hit.
    assert len(decoded) == 23 + sum(3 if block == 6 else 4 for block in np.cumsum([s - 1 for s in stops]) + 1)


def test_incomplete_rows_are_written_again(split, tmp_path):
    whole, file = tmp_path / "whole.npy", tmp_path / "f.npy"
    to_disk(split, whole)
    with pytest.raises(Killed):
        to_disk(split, file, model=killed_in_block(3))
    with file.with_suffix(".partial").open("ab") as stream:
        stream.write(b"\xff" * (2 * 28 + 5))  # two rows and a bit of a block that did not get to its end
    to_disk(split, file)
    assert file.read_bytes() == whole.read_bytes()


def test_a_finished_file_is_reused(split, tmp_path, decoded):
    first = np.array(to_disk(split, tmp_path / "f.npy"))
    decoded.clear()
    assert np.array_equal(to_disk(split, tmp_path / "f.npy"), first)
    assert decoded == []


def test_killed_between_the_last_row_and_the_end(split, tmp_path, decoded):
    file = tmp_path / "f.npy"
    to_disk(split, file)
    whole = file.read_bytes()
    file.rename(file.with_suffix(".partial"))
    decoded.clear()
    to_disk(split, file)
    assert decoded == []
    assert file.read_bytes() == whole


def test_another_network_or_size_is_computed_again(split, tmp_path, decoded):
    file = tmp_path / "f.npy"
    to_disk(split, file)
    decoded.clear()
    to_disk(split, file, key="another")
    assert len(decoded) == 23
    with pytest.raises(Killed):
        to_disk(split, file, key="third", model=killed_in_block(4))
    decoded.clear()
    to_disk(split, file, key="another")
    assert len(decoded) == 23


def test_killed_before_the_first_row_of_another_network(split, tmp_path, monkeypatch):
    """The description is that of the new network, so rows of the old network must be gone."""
    file, whole = tmp_path / "f.npy", tmp_path / "whole.npy"
    other = Tiny()
    other.layer.weight.data.neg_()
    with pytest.raises(Killed):
        to_disk(split, file, model=killed_in_block(4))
    original = features.write_json

    def dying(path, content):
        original(path, content)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(features, "write_json", dying)
        with pytest.raises(Killed):
            to_disk(split, file, model=other, key="another")
    to_disk(split, file, model=other, key="another")
    to_disk(split, whole, model=other, key="another")
    assert file.read_bytes() == whole.read_bytes()


def test_features_are_reused_if_images_are_added(split, tmp_path, decoded):
    file, whole = tmp_path / "f.npy", tmp_path / "whole.npy"
    shorter = split.select(np.arange(18))
    with pytest.raises(Killed):
        to_disk(shorter, file, model=killed_in_block(5))
    decoded.clear()
    to_disk(split, file)
    assert sorted(decoded) == [f"{index:02}.jpg" for index in range(16, 23)]
    to_disk(split, whole)
    assert file.read_bytes() == whole.read_bytes()


def test_a_changed_image_is_embedded_again(split, tmp_path, decoded):
    file = tmp_path / "f.npy"
    before = np.array(to_disk(split, file))
    write_image(split.paths[9], SIZE, seed=77)
    features_after = to_disk(split, file)
    assert [row for row in range(23) if not np.array_equal(before[row], features_after[row])] == [9]


def test_all_unreadable_images_are_named_and_finished_features_are_kept(split, tmp_path, decoded):
    file, whole = tmp_path / "f.npy", tmp_path / "whole.npy"
    to_disk(split, whole)
    good = {index: split.paths[index].read_bytes() for index in (9, 10, 21)}
    times = {index: os.stat(split.paths[index]).st_mtime_ns for index in good}  # noqa: PTH116
    for index in good:
        split.paths[index].write_bytes(b"no image")
    with pytest.raises(InputError, match="3 unreadable") as refused:
        to_disk(split, file)
    assert all(f"{index:02}.jpg" in str(refused.value) for index in good)
    assert not file.exists()
    for index, content in good.items():
        split.paths[index].write_bytes(content)
        os.utime(split.paths[index], ns=(times[index], times[index]))
    decoded.clear()
    to_disk(split, file)
    assert min(decoded) == "08.jpg"  # the block of the first of them
    assert file.read_bytes() == whole.read_bytes()


def test_missing_images_are_all_named(split, tmp_path):
    for index in (3, 20):
        split.paths[index].unlink()
    with pytest.raises(InputError, match=r"2 unreadable: .*03\.jpg .*20\.jpg"):
        to_disk(split, tmp_path / "f.npy")


def test_a_damaged_file_is_written_again(split, tmp_path):
    file = tmp_path / "f.npy"
    to_disk(split, file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    to_disk(split, file)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("name", ["f.npy", "f.json"])
def test_a_foreign_file_is_not_overwritten(split, tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(InputError, match=f"another file in .*{name}"):
        to_disk(split, tmp_path / "f.npy")
    assert (tmp_path / name).read_text() == '{"mine": 1}'


def test_no_images_and_an_unwritable_folder_are_refused(split, tmp_path):
    with pytest.raises(InputError, match="at least one image"):
        to_disk(split.select(np.arange(0)), tmp_path / "f.npy")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be written"):
        to_disk(split, tmp_path / "file" / "f.npy")


def test_two_processes_compute_features_once(split, tmp_path, decoded):
    file, results = tmp_path / "f.npy", []
    threads = [threading.Thread(target=lambda: results.append(to_disk(split, file))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert len(decoded) == 23
    assert len(results) == 3
    assert all(np.array_equal(features_nd, results[0]) for features_nd in results)


def test_a_process_that_is_killed_leaves_whole_blocks(split, tmp_path):
    """SIGKILL, after which no handler and no destructor runs."""
    whole, file = tmp_path / "whole.npy", tmp_path / "f.npy"
    to_disk(split, whole)
    program = f"""
        import os, signal, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
        import numpy as np
        from reidlib.data import images
        from reidlib.experiments import features
        images.IMAGES_PER_BLOCK = features.IMAGES_PER_BLOCK = 4
        from pathlib import Path
        from test_feature_files import Tiny, to_disk
        from reidlib.data.splits import Split
        model, calls = Tiny(), []
        whole = model.embed
        def dying(images_bchw):
            calls.append(1)
            if len(calls) == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(images_bchw)
        model.embed = dying
        paths = sorted(Path({str(split.paths[0].parent)!r}).iterdir())
        to_disk(Split(paths, np.arange(1, 24), np.ones(23, int)), Path({str(file)!r}), model=model)
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=environment, timeout=600)
    assert process.returncode == -9
    header = len(whole.read_bytes()) - 23 * 28
    assert file.with_suffix(".partial").stat().st_size == header + 12 * 28
    to_disk(split, file)
    assert file.read_bytes() == whole.read_bytes()
    assert json.loads(file.with_suffix(".json").read_text()).keys() == {"key", "blocks"}


# --- in memory --------------------------------------------------------------------------------------------


def store(count=7) -> ImageStore:
    pixels = np.random.default_rng(0).integers(0, 255, (count, 32, 16, 3), dtype=np.uint8)
    return ImageStore(pixels, torch.device("cpu"))


def test_features_come_in_the_order_of_the_images_whatever_the_batch():
    torch.manual_seed(0)  # with some weights, all features of a branch are 0
    model = JLML(3, width=0.125, parts=2)
    whole = embed(model, store())
    torch.testing.assert_close(embed(model, store(), batch_size=2), whole)
    assert whole.shape == (7, 1024)
    assert whole.dtype == torch.float32
    assert whole.norm(dim=1).sub(2**0.5).abs().max() < 1e-5  # two branches of unit length


def test_the_models_mode_is_restored():
    model = JLML(3, width=0.125, parts=2).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    embed(model, store())
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_autocast_and_training_mode_around_it_change_nothing():
    model = JLML(3, width=0.125, parts=2).eval()
    expected = embed(model, store())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(embed(model.train(), store()), expected)
