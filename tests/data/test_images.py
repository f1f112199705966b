import errno
import os
import resource
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from miniature import write_image
from PIL import Image
from torchvision.transforms import InterpolationMode, Resize

from reidlib.data import images
from reidlib.data.images import ImageStore
from reidlib.errors import InputError

SIZE = (16, 8)


@pytest.fixture
def paths(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{index}.jpg" for index in range(7)]
    for index, path in enumerate(paths):
        write_image(path, SIZE, seed=index)
    return paths


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def open_store(paths, cache, size=SIZE, **options):
    return ImageStore.open(paths, size, cache_folder=cache, progress=False, **options)


def expected(paths):
    return np.stack([np.asarray(Image.open(path)) for path in paths])


def contents(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_batches_are_the_files_channels_last(paths, cache):
    store = open_store(paths, cache)
    assert (len(store), store.array_nhwc.shape[1:3]) == (7, SIZE)
    batch = store.batch([5, 0, 5])
    assert (batch.shape, batch.dtype) == ((3, 3, *SIZE), torch.uint8)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), expected(paths)[[5, 0, 5]])
    batch.zero_()  # a batch is the caller's own
    assert store.batch([5]).any()


@pytest.mark.parametrize("resident", [True, False, "auto"])
def test_every_way_of_keeping_images_gives_the_same_batches(paths, cache, resident):
    store = open_store(paths, cache, resident=resident)
    assert (store.resident_nhwc is not None) == (resident is True)
    orders = [torch.tensor([6, 1]), np.array([2, 2, 2]), [0], torch.arange(7)]
    batches = list(store.batches(orders))
    assert len(batches) == 4
    for order, batch in zip(orders, batches, strict=True):
        np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).numpy(), expected(paths)[np.asarray(order)])


def test_the_array_is_mapped_and_not_loaded(paths, cache):
    assert isinstance(open_store(paths, cache).array_nhwc, np.memmap)
    assert not open_store(paths, cache).array_nhwc.flags.writeable


@pytest.mark.parametrize("wrong", [[7], [-1], [0, 99]])
def test_an_index_outside_is_refused(paths, cache, wrong):
    store = open_store(paths, cache)
    with pytest.raises(IndexError, match=r"0\.\.6"):
        store.batch(wrong)
    with pytest.raises(IndexError):
        list(store.batches([[0], wrong]))


def test_prefetching_runs_ahead_and_stops_when_left(paths, cache):
    requested_blocks = []

    def order():
        for index in range(7):
            requested_blocks.append(index)
            yield [index]

    batches = open_store(paths, cache).batches(order(), ahead=2)
    next(batches)
    assert requested_blocks == [0, 1, 2]  # the batch in use and two ahead
    next(batches)
    assert requested_blocks == [0, 1, 2, 3]
    batches.close()
    assert "batches_0" not in [thread.name for thread in threading.enumerate()]


def test_the_second_opening_decodes_nothing(paths, cache, decoded):
    open_store(paths, cache)
    assert sorted(decoded) == [path.name for path in paths]
    decoded.clear()
    store = open_store(paths, cache)
    assert decoded == []
    np.testing.assert_array_equal(store.array_nhwc, expected(paths))
    assert len(contents(cache)) == 1


def test_another_size_order_or_file_is_another_entry(paths, cache, decoded):
    open_store(paths, cache)
    decoded.clear()
    open_store(paths, cache, size=(8, 8))
    assert len(decoded) == 7
    turned = open_store(paths[::-1], cache)
    assert len(decoded) == 14
    np.testing.assert_array_equal(turned.array_nhwc, expected(paths[::-1]))


def test_a_file_of_the_same_size_but_another_time_is_decoded_again(tmp_path, cache):
    path = tmp_path / "plain.bmp"
    Image.new("RGB", SIZE[::-1], "red").save(path)
    before = path.stat()
    open_store([path], cache)
    Image.new("RGB", SIZE[::-1], "blue").save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert path.stat().st_size == before.st_size
    np.testing.assert_array_equal(open_store([path], cache).array_nhwc, expected([path]))


def test_a_moved_folder_keeps_its_entry(paths, cache, decoded):
    open_store(paths, cache)
    decoded.clear()
    elsewhere = paths[0].parent.rename(paths[0].parent.with_name("elsewhere"))
    open_store([elsewhere / path.name for path in paths], cache)
    assert decoded == []


def test_a_damaged_entry_is_made_again(paths, cache):
    open_store(paths, cache)
    (entry,) = [cache / name for name in contents(cache)]
    for damage in (entry.read_bytes()[:-100], b"", b"no array"):
        entry.write_bytes(damage)
        np.testing.assert_array_equal(open_store(paths, cache).array_nhwc, expected(paths))


def test_resizing_is_bilinear_and_antialiased(tmp_path, cache):
    path = tmp_path / "stripes.png"
    stripes = np.zeros((64, 32, 3), dtype=np.uint8)
    stripes[::2] = 255  # without antialiasing every second row would be black or white
    Image.fromarray(stripes).save(path)
    small = open_store([path], cache, size=(16, 8)).array_nhwc
    assert small.shape == (1, 16, 8, 3)
    assert abs(small.astype(int) - 127.5).max() < 20


def test_grey_palette_and_transparent_files_become_rgb(tmp_path, cache):
    rgb = np.full((*SIZE, 3), 204, dtype=np.uint8)  # a colour of the web palette
    paths = []
    for mode in ("L", "P", "RGBA"):
        paths.append(tmp_path / f"{mode}.png")
        Image.fromarray(rgb).convert(mode).save(paths[-1])
    assert (open_store(paths, cache).array_nhwc == 204).all()


def test_every_unreadable_file_is_named_and_nothing_is_kept(paths, cache):
    paths[2].write_bytes(paths[2].read_bytes()[:-30])  # truncated
    paths[4].write_bytes(b"")
    paths[5].write_text("<html>not found</html>")
    with pytest.raises(InputError) as caught:
        open_store(paths, cache)
    text = str(caught.value)
    assert "3 unreadable" in text and "truncated" in text and "\n" not in text
    assert all(str(paths[index]) in text for index in (2, 4, 5))
    assert str(paths[3]) not in text
    assert contents(cache) == []


@pytest.mark.parametrize("cut", [1, 2, 10, 200])
def test_a_jpeg_that_lacks_its_last_bytes_is_refused(tmp_path, cut):
    path = tmp_path / "cut.jpg"
    write_image(path, (64, 32))
    path.write_bytes(path.read_bytes()[:-cut])
    assert isinstance(images.decode(path), images.UnreadableImage)


def test_a_missing_file_is_named(paths, cache):
    paths[1].unlink()
    with pytest.raises(InputError, match=r"1\.jpg \(No such file"):
        open_store(paths, cache)


def test_an_interruption_leaves_nothing(paths, cache, monkeypatch):
    decode = images.decode

    def interrupted(path, **options):
        if path.name == "5.jpg":
            raise KeyboardInterrupt
        return decode(path, **options)

    monkeypatch.setattr(images, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_store(paths, cache)
    assert contents(cache) == []


def test_the_file_of_a_killed_process_is_replaced(paths, cache):
    open_store(paths, cache)
    (entry,) = [cache / name for name in contents(cache)]
    entry.unlink()
    entry.with_suffix(".partial").write_bytes(b"half")
    open_store(paths, cache)
    assert contents(cache) == [entry.name]


def test_a_full_disk_is_reported_in_one_line(tmp_path, cache):
    paths = [tmp_path / f"{index}.jpg" for index in range(20)]
    for path in paths:
        write_image(path, (64, 32))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:  # the system itself refuses to write on, as it does on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        with pytest.raises(InputError) as caught:
            open_store(paths, cache, size=(64, 32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.strerror(errno.EFBIG) in str(caught.value) and "free space" in str(caught.value)
    assert contents(cache) == []
    assert len(open_store(paths, cache, size=(64, 32))) == 20


def test_a_set_larger_than_the_disk_stops_before_decoding(paths, cache, decoded):
    with pytest.raises(InputError, match="No space left"):
        open_store(paths, cache, size=(10_000_000, 10_000_000))
    assert decoded == [] and contents(cache) == []


def test_a_folder_that_cannot_be_written_is_reported_in_one_line(paths, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="REIDLIB_HOME"):
        open_store(paths, tmp_path / "file" / "cache")


def test_nothing_to_open_is_refused(paths, cache):
    with pytest.raises(InputError, match="0 images"):
        open_store([], cache)
    with pytest.raises(InputError, match="0 by 8"):
        open_store(paths, cache, size=(0, 8))


def test_two_processes_decode_once(paths, cache):
    script = """
import sys, time
from pathlib import Path
from reidlib.data import images
decode, count = images.decode, 0
def slow(path, **options):
    global count
    count += 1
    time.sleep(0.05)
    return decode(path, **options)
images.decode = slow
print("ready", flush=True)
sys.stdin.readline()
store = images.ImageStore.open(
    [Path(path) for path in sys.argv[2:]], (16, 8), cache_folder=Path(sys.argv[1]), progress=False
)
print(count, int(store.array_nhwc.sum()))
"""
    command = [sys.executable, "-c", script, str(cache), *map(str, paths)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=600)[0].split() for process in processes]
    assert sorted(int(count) for count, _ in answers) == [0, 7]
    assert {int(total) for _, total in answers} == {int(expected(paths).sum())}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", ["auto", True, False])
def test_batches_on_a_gpu_equal_those_on_the_cpu(paths, cache, resident):
    store = open_store(paths, cache, device="cuda", resident=resident)
    assert (store.resident_nhwc is not None) == bool(resident)
    orders = [torch.randint(0, 7, (5,), generator=torch.Generator().manual_seed(i)) for i in range(50)]
    for order, batch in zip(orders, store.batches(orders), strict=True):
        assert batch.is_cuda and batch.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_array_equal(batch.permute(0, 2, 3, 1).cpu().numpy(), expected(paths)[order])


def test_bicubic_images_have_their_own_cache_and_equal_torchvisions(paths, cache):
    plain = open_store(paths, cache, (10, 9))
    bicubic = open_store(paths, cache, (10, 9), resize="bicubic")
    assert len(contents(cache)) == 2
    assert not np.array_equal(plain.array_nhwc, bicubic.array_nhwc)
    for path, found in zip(paths, bicubic.array_nhwc, strict=True):
        resized = Resize(found.shape[:2], InterpolationMode.BICUBIC)(Image.open(path).convert("RGB"))
        np.testing.assert_array_equal(found, np.asarray(resized))
