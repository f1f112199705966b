"""Decoded pixels against independent expectations: modes, endings, orientations, and what is refused."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from miniature import MINIATURE
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from reidlib.data import decoding, load
from reidlib.data.check import check, image_sizes
from reidlib.data.decoding import UnreadableImage, decode, file_states, thumbnail, treatments
from reidlib.data.images import ImageStore
from reidlib.data.splits import Split
from reidlib.experiments.features import _block_digests

HEIGHT, WIDTH = 12, 7
# Row and column of the shown picture, as functions of those of the stored one: the text of the EXIF standard
# ("the 0th row is at the visual right-hand side, the 0th column at the visual top", …), by loops below.
SHOWN = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip
LOSSLESS = ("png", "bmp", "tif", "webp", "ppm")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "home"))


def colours(height=HEIGHT, width=WIDTH, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def by_the_standard(stored_hwc, orientation):
    """Place each stored pixel where the standard says that its row and column are seen."""
    row_side, column_side = SHOWN[orientation]
    height, width = stored_hwc.shape[:2]
    swapped = row_side in ("left", "right")
    shown = np.empty((width, height, 3) if swapped else (height, width, 3), np.uint8)
    for row in range(height):
        for column in range(width):
            place = {}
            place["y" if row_side in ("top", "bottom") else "x"] = (
                row if row_side in ("top", "left") else height - 1 - row
            )
            place["y" if column_side in ("top", "bottom") else "x"] = (
                column if column_side in ("top", "left") else width - 1 - column
            )
            shown[place["y"], place["x"]] = stored_hwc[row, column]
    return shown


def exif(orientation):
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def saved(path, picture, **options):
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if path.suffix == ".webp":
        options["lossless"], options["exact"] = True, True
    if path.suffix == ".jpg":
        options |= {"quality": 100, "subsampling": 0}
    image.save(path, **options)
    return path


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_start(width, height, depth, colour_type):
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)


def png(rows, depth, colour_type, *chunks):
    """Return a PNG, made by hand of rows of packed bytes."""
    width = len(rows[0]) * 8 // depth if colour_type == 0 else 1
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [*chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return png_start(width, len(rows), depth, colour_type) + b"".join(parts)


def large_png(path, width, height):
    """Write a PNG whose header tells this size, without pixels."""
    path.write_bytes(png_start(width, height, 8, 2) + chunk(b"IDAT", b""))
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_every_orientation_is_shown_as_the_standard_says(tmp_path, ending, orientation, mode):
    if (ending, mode) == ("jpg", "RGBA"):
        pytest.skip("JPEG has no transparency")
    stored = np.kron(colours(3, 2), np.ones((4, 4, 1), np.uint8))  # blocks that survive JPEG
    image = Image.fromarray(stored).convert(mode)
    path = saved(tmp_path / f"image.{ending}", image, exif=exif(orientation))
    expected = by_the_standard(np.asarray(image.convert("RGB")), orientation)
    found = decode(path)
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (12 if ending == "jpg" else 0)
    small = decode(path, (6, 4))  # resized after it is turned
    resized = Image.fromarray(found).resize((4, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(small, resized)
    split = Split([path], np.ones(1, np.int64), np.ones(1, np.int64))
    assert image_sizes(split).tolist() == [list(expected.shape[:2])]
    # Pillow turns TIFFs, but wrongly if it maps a file of one of these modes to memory.
    is_new = ending != "tif" or (mode != "RGB" and orientation >= 5)
    words = [] if orientation == 1 else ["turned" if is_new else "turned TIFF"]
    assert [word for found in treatments([path]).values() for word in found] == words
    same_pixels_as_before = orientation == 1 or not is_new
    assert (file_states([path])[0].count("|") == 2) == same_pixels_as_before


@pytest.mark.parametrize("value", [0, 9, 65_535])
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path, ending, value):
    plain = saved(tmp_path / f"plain.{ending}", colours())
    odd = saved(tmp_path / f"odd.{ending}", colours(), exif=exif(value))
    np.testing.assert_array_equal(decode(odd), decode(plain))
    assert treatments([odd]) == {}


@given(st.binary(min_size=0, max_size=60), st.sampled_from(["png", "jpg", "webp"]), st.booleans())
def test_a_damaged_exif_block_does_not_make_an_image_unreadable(tmp_path_factory, block, ending, with_head):
    folder = tmp_path_factory.mktemp("damaged")
    head = exif(6).tobytes()[:14] if with_head else b"Exif\0\0"
    plain = saved(folder / f"plain.{ending}", colours())
    path = saved(folder / f"damaged.{ending}", colours(), exif=head + block)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as decoding does; a test begins without it
        found = decode(path)
    assert isinstance(found, np.ndarray), found
    assert sorted(found.shape) == sorted(decode(plain).shape)


def test_an_orientation_behind_the_pixels_of_a_png_is_seen(tmp_path):
    path = saved(tmp_path / "late.png", colours())
    content = path.read_bytes()
    end = content.index(b"IEND") - 4
    path.write_bytes(content[:end] + chunk(b"eXIf", exif(3).tobytes()[6:]) + content[end:])
    np.testing.assert_array_equal(decode(path), colours()[::-1, ::-1])
    assert treatments([path]) == {0: ["turned"]}


@pytest.mark.parametrize("ending", ["png", "tif"])
@given(data=st.data())
def test_16_bit_grey_is_the_grey_of_its_high_byte(tmp_path_factory, ending, data):
    values = data.draw(st.lists(st.integers(0, 65_535), min_size=1, max_size=20))
    image = Image.fromarray(np.array([values], np.uint16))
    path = saved(tmp_path_factory.mktemp("grey") / f"grey.{ending}", image)
    found = decode(path)
    assert found.shape == (1, len(values), 3)
    for value, (red, green, blue) in zip(values, found[0].tolist(), strict=True):
        assert red == green == blue and abs(red - value / 257) < 1
        assert value % 257 or red == value // 257


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_every_integer_mode_with_16_bit_values_is_the_same_grey(tmp_path, mode):
    grey = np.arange(0, 256, 3, dtype=np.uint8)[None]
    if mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    else:
        dtype = "<u2" if mode == "I;16" else ">u2"
        values = (grey.astype(np.uint16) * 257).astype(dtype)
        image = Image.frombytes(mode, grey.shape[::-1], values.tobytes())
    path = saved(tmp_path / "grey.tif", image)
    np.testing.assert_array_equal(decode(path), np.repeat(grey[:, :, None], 3, 2))
    assert treatments([path]) == {0: ["16 bits"]}


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_0_is_white_is_inverted(tmp_path, dtype, compression):
    grey = np.arange(0, 256, 5, dtype=np.uint8)[None]
    stored = grey if dtype == np.uint8 else (grey * np.uint16(257)).astype(np.uint16)
    path = saved(tmp_path / "grey.tif", stored, compression=compression, tiffinfo={262: 0})
    if dtype == np.uint8:  # Pillow inverts what it writes; nothing else is said in the file
        assert Image.open(path).tag_v2[262] == 0
    np.testing.assert_array_equal(decode(path)[..., 0], grey if dtype == np.uint8 else 255 - grey)


@pytest.mark.parametrize("alpha", [0, 1])
def test_a_bmp_whose_alpha_is_0_everywhere_is_opaque(tmp_path, alpha):
    """Windows' programs write such files; one pixel that is not transparent makes the others so."""
    bgra = colours(2, 3, channels=4)
    bgra[..., 3] = 0
    bgra[0, 0, 3] = 255 * alpha
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = struct.pack("<IiiHHIIiiII", 108, 3, -2, 1, 32, 3, 24, 0, 0, 0, 0) + masks + bytes(52)
    path = tmp_path / "windows.bmp"
    path.write_bytes(b"BM" + struct.pack("<IHHI", 14 + 108 + 24, 0, 0, 14 + 108) + head + bgra.tobytes())
    shown = bgra[..., 2::-1].copy()
    if alpha:
        shown[bgra[..., 3] == 0] = 255
    np.testing.assert_array_equal(decode(path), shown)
    assert treatments([path]) == ({0: ["transparent"]} if alpha else {})


def test_a_16_bit_pgm_is_grey(tmp_path):
    path = tmp_path / "grey.pgm"
    path.write_bytes(b"P5 2 1 65535\n" + np.array([257 * 7, 257 * 200], ">u2").tobytes())
    assert decode(path)[0, :, 0].tolist() == [7, 200]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 65_536]], np.int32), "grey values from 0 to 65,536"),
        (np.array([[-1, 5]], np.int32), "grey values from -1 to 5"),
        (np.array([[0.0, 1.0]], np.float32), "floating-point"),
    ],
)
def test_values_without_a_known_white_are_refused(tmp_path, values, reason):
    found = decode(saved(tmp_path / "values.tif", values))
    assert isinstance(found, UnreadableImage) and reason in found.reason and "\n" not in found.reason


def composited(rgba):
    """Composite on white by the definition, in floating point."""
    alpha = rgba[..., 3:] / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@given(seed=st.integers(0, 1000))
def test_transparency_is_composited_on_white(tmp_path_factory, ending, seed):
    rgba = colours(channels=4, seed=seed)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    found = decode(saved(tmp_path_factory.mktemp("alpha") / f"alpha.{ending}", rgba))
    assert np.abs(found - composited(rgba)).max() <= 0.51
    assert (found[0] == 255).all()  # no hidden colour
    np.testing.assert_array_equal(found[1], rgba[1, :, :3])


def test_transparent_grey_palette_and_colour(tmp_path):
    rgba = colours(channels=4)
    grey_alpha = np.stack([rgba[..., 0], rgba[..., 3]], -1)
    found = decode(saved(tmp_path / "la.png", Image.fromarray(grey_alpha, "LA")))
    assert np.abs(found - composited(rgba[..., [0, 0, 0, 3]])).max() <= 0.51

    indices = np.arange(4, dtype=np.uint8)[None]
    palette = Image.fromarray(indices, "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    one = decode(saved(tmp_path / "one.png", palette, transparency=1))
    assert one[0].tolist() == [[10, 20, 30], [255] * 3, [70, 80, 90], [1, 2, 3]]
    assert decode(saved(tmp_path / "one.gif", palette, transparency=1)).tolist() == one.tolist()
    several = decode(saved(tmp_path / "several.png", palette, transparency=bytes([0, 51, 255, 255])))
    assert several[0].tolist() == [[255] * 3, [212, 214, 216], [70, 80, 90], [1, 2, 3]]

    rgb = colours()
    key = tuple(map(int, rgb[2, 3]))
    shown = rgb.copy()
    shown[(rgb == key).all(-1)] = 255
    np.testing.assert_array_equal(decode(saved(tmp_path / "key.png", rgb, transparency=key)), shown)


@pytest.mark.parametrize(("depth", "packed"), [(1, 0b01010000), (2, 0b00011011), (4, 0x3F), (8, 200)])
def test_the_transparent_grey_of_a_png_of_any_depth(tmp_path, depth, packed):
    values = [packed >> shift & (2**depth - 1) for shift in range(8 - depth, -1, -depth)]
    path = tmp_path / "grey.png"
    for value in set(values):
        expected = [255 if v == value else v * 255 // (2**depth - 1) for v in values]
        for higher_bits in (0, 2**depth, 2**14) if depth > 1 else (0,):  # which do not count
            block = chunk(b"tRNS", struct.pack(">H", value | higher_bits))
            path.write_bytes(png([bytes([packed])], depth, 0, block))
            assert decode(path)[0, :, 0].tolist() == expected


def test_the_transparent_grey_of_a_16_bit_png(tmp_path):
    path = tmp_path / "grey.png"
    row = np.array([100, 101, 257 * 9], ">u2").tobytes()
    path.write_bytes(png([row], 16, 0, chunk(b"tRNS", struct.pack(">H", 101))))
    assert decode(path)[0, :, 0].tolist() == [0, 255, 9]


def test_16_bit_colours_are_those_of_the_high_bytes(tmp_path):
    path = tmp_path / "colours.png"
    row = np.array([257 * 7, 257 * 8, 257 * 9 + 200], ">u2").tobytes()
    path.write_bytes(png([row], 16, 2))
    assert decode(path)[0, 0].tolist() == [7, 8, 9]
    # Of a transparent colour Pillow keeps no low bytes, so similar colours would vanish with it.
    path.write_bytes(png([row], 16, 2, chunk(b"tRNS", row)))
    assert "transparent colour of 16 bits" in decode(path).reason


def test_an_opaque_picture_keeps_its_colours_whatever_its_mode(tmp_path):
    rgba = colours(channels=4)
    rgba[..., 3] = 255
    path = saved(tmp_path / "opaque.png", rgba)
    np.testing.assert_array_equal(decode(path), rgba[..., :3])
    assert treatments([path]) == {}


def old_decode(path, size=None):
    """The decoder before pictures were shown as viewers show them."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(image)


ORDINARY = [
    *((mode, "jpg") for mode in ("RGB", "L", "CMYK", "YCbCr")),
    *((mode, "tif") for mode in ("CMYK", "LAB")),
    *((mode, ending) for mode in ("RGB", "L", "P", "1") for ending in LOSSLESS),
]


@pytest.mark.parametrize(("mode", "ending"), ORDINARY)
@pytest.mark.parametrize("size", [None, (HEIGHT, WIDTH), (5, 9), (24, 14)])
def test_ordinary_pixels_are_what_they_were(tmp_path, mode, ending, size):
    if (mode, ending) in {("P", "ppm"), ("1", "webp"), ("P", "webp")}:
        mode = "RGB"
    image = Image.fromarray(colours())
    path = tmp_path / f"image.{ending}"
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, colours().tobytes())
    image = image if mode == "LAB" else image.convert(mode)
    saved(path, image, **({"exif": exif(1)} if ending == "jpg" else {}))
    np.testing.assert_array_equal(decode(path, size), old_decode(path, size))
    assert treatments([path]) == {}


def test_of_several_frames_the_first_is_read(tmp_path):
    frames = [Image.fromarray(colours(seed=seed)) for seed in (1, 2)]
    for ending in ("png", "tif", "webp", "gif"):
        path = saved(tmp_path / f"frames.{ending}", frames[0], save_all=True, append_images=frames[1:])
        single = saved(tmp_path / f"single.{ending}", frames[0])
        np.testing.assert_array_equal(decode(path), decode(single))
        assert treatments([path]) == {0: ["frames"]}
        assert file_states([path])[0].count("|") == 2  # the same pixels as before


# That no command shows Pillow's warning is the next test: pytest has filters of its own.
@pytest.mark.filterwarnings("ignore:Image size")
def test_a_larger_picture_is_refused_by_its_header(tmp_path):
    side = 7_072  # a little more than 50 megapixels
    for width, height in ((side, side), (10_000, 10_000), (60_000, 60_000)):
        path = large_png(tmp_path / "large.png", width, height)
        for found in (decode(path), thumbnail(path, 100, 100)):
            assert isinstance(found, UnreadableImage) and "more than 50 megapixels" in found.reason
        assert treatments([path]) == {}


def test_warnings_of_the_decoder_are_not_shown(tmp_path):
    # pytest begins each test with its own filters, so another interpreter decodes.
    path = large_png(tmp_path / "large.png", 10_000, 10_000)
    program = (
        "import sys; from pathlib import Path; from reidlib.data.decoding import decode; "
        "print(decode(Path(sys.argv[1])).reason)"
    )
    process = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert (process.stdout, process.stderr) == ("10,000 by 10,000 pixels, more than 50 megapixels\n", "")


def test_a_thumbnail_is_the_reduced_picture(tmp_path):
    y, x = np.mgrid[0:640, 0:320]
    smooth = np.stack([x % 256, y % 256, (x + y) // 4 % 256], -1).astype(np.uint8)
    large = saved(tmp_path / "large.jpg", smooth, exif=exif(6))
    found = thumbnail(large, 80, 100)
    assert found.shape == (50, 100, 3)  # turned to 320 by 640, with its proportions
    exact = np.asarray(decoding.fit_image(decode(large), 80, 100))
    assert np.abs(found.astype(int) - exact).mean() < 2
    small = saved(tmp_path / "small.jpg", colours())
    np.testing.assert_array_equal(thumbnail(small, 80, 100), decode(small))  # never enlarged


def test_only_display_skips_pixels_of_a_jpeg(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.jpg", np.zeros((400, 400, 3), np.uint8))
    sizes, load_pixels = [], JpegImageFile.load

    def recorded(self):
        sizes.append(self.size)
        return load_pixels(self)

    monkeypatch.setattr(JpegImageFile, "load", recorded)
    decode(path, (40, 40))
    thumbnail(path, 40, 40)
    assert sizes == [(400, 400), (100, 100)]


def test_threads_wait_until_their_bytes_are_free():
    memory, order = decoding._Memory(100), []

    def take(name, amount, started, finish):
        with memory.take(amount):
            order.append(name)
            started.set()
            assert finish.wait(60)

    events = [(threading.Event(), threading.Event()) for _ in range(3)]
    amounts = (60, 500, 30)  # more than all means all
    threads = [
        threading.Thread(target=take, args=(index, amount, *pair))
        for index, (amount, pair) in enumerate(zip(amounts, events, strict=True))
    ]
    threads[0].start()
    assert events[0][0].wait(60)
    threads[1].start()
    threads[2].start()
    assert events[2][0].wait(60)  # 60 and 30 fit together
    assert not events[1][0].is_set()
    events[0][1].set()
    events[2][1].set()
    assert events[1][0].wait(60)
    events[1][1].set()
    for thread in threads:
        thread.join()
    assert order == [0, 2, 1]


def test_bytes_are_free_again_after_an_error():
    memory = decoding._Memory(10)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), memory.take(10):
            raise ZeroDivisionError


# Made with the code before treatments existed, from the files of ``fixed_market``.
OLD_FINGERPRINT, OLD_CACHE, OLD_BLOCK = (
    "9871f4e83cdbee2b",
    "1fbc05c94f054796644695942664a7fc",
    "101433650d6788ba",
)


def fixed_market(root):
    """A miniature whose files have the same bytes and times with every version of every library."""
    for folder, names in MINIATURE.items():
        (root / folder).mkdir(parents=True)
        for index, name in enumerate(names):
            Image.fromarray(colours(16, 8, seed=index)).save(root / folder / name, "BMP")
            os.utime(root / folder / name, ns=(0, 10**18 + index))
    return root


def identity(root, cache):
    """Fingerprint of the benchmark, and names of the cache of its training images."""
    benchmark = load("market1501", root)
    store = ImageStore.open(benchmark.train.paths, (8, 4), cache_folder=cache, progress=False)
    names = {path.name.partition(".")[0] for path in cache.glob("*.npy")}
    return benchmark.fingerprint, names, store.array_nhwc, _block_digests(file_states(benchmark.train.paths))


def replace(path, image, **options):
    """Write another image with the size and the time of the file that it replaces."""
    status = path.stat()
    buffer = io.BytesIO()
    image.save(buffer, **options)
    assert buffer.tell() <= status.st_size
    path.write_bytes(buffer.getvalue().ljust(status.st_size, b"\0"))
    os.utime(path, ns=(0, status.st_mtime_ns))


def test_an_ordinary_set_keeps_its_fingerprint_and_its_caches(tmp_path):
    fingerprint, names, _, blocks = identity(fixed_market(tmp_path / "market"), tmp_path / "cache")
    assert (fingerprint, names, blocks) == (OLD_FINGERPRINT, {OLD_CACHE}, [OLD_BLOCK])


def pictures():
    """Images of at most 438 bytes that need a treatment, with the way to write them."""
    plain = Image.fromarray(np.full((16, 8, 3), 90, np.uint8))
    transparent = plain.copy()
    transparent.putalpha(100)
    grey = Image.fromarray(np.full((16, 8), 257 * 90, np.uint16))
    plain.putpixel((0, 0), (1, 2, 3))
    return {
        "turned": (plain, {"format": "PNG", "exif": exif(3)}),
        "transparent": (transparent, {"format": "PNG"}),
        "16 bits": (grey, {"format": "PNG"}),
    }


@pytest.mark.parametrize("treatment", ["turned", "transparent", "16 bits"])
@pytest.mark.parametrize("folder", list(MINIATURE))
def test_a_set_whose_pixels_change_has_another_fingerprint_and_cache(tmp_path, treatment, folder):
    root, cache = fixed_market(tmp_path / "market"), tmp_path / "cache"
    path = root / folder / MINIATURE[folder][1]
    image, options = pictures()[treatment]
    replace(path, image, **options)
    cache.mkdir()
    wrong = np.zeros((5, 8, 4, 3), np.uint8)
    np.save(cache / f"{OLD_CACHE}.npy", wrong)  # made by the old code: names, sizes and times are the same
    fingerprint, names, array, blocks = identity(root, cache)
    assert fingerprint != OLD_FINGERPRINT
    is_training = folder == "bounding_box_train"
    assert (names == {OLD_CACHE}) == (not is_training)
    assert (blocks == [OLD_BLOCK]) == (not is_training)
    if is_training:
        np.testing.assert_array_equal(array[1], decode(path, (8, 4)))


def test_an_opaque_alpha_channel_or_a_normal_orientation_changes_no_fingerprint(tmp_path):
    root = fixed_market(tmp_path / "market")
    opaque = Image.new("RGBA", (8, 16), (9, 8, 7, 255))
    hidden = Image.new("RGBA", (8, 16), (255, 255, 255, 0))  # white on white
    replace(root / "query" / MINIATURE["query"][0], opaque, format="PNG")
    replace(root / "query" / MINIATURE["query"][1], hidden, format="PNG", exif=exif(1))
    assert identity(root, tmp_path / "cache")[0] == OLD_FINGERPRINT


def test_treatments_are_found_once(tmp_path, monkeypatch):
    root = fixed_market(tmp_path / "market")
    image, options = pictures()["transparent"]
    path = root / "query" / MINIATURE["query"][0]
    replace(path, image, **options)
    examined = []
    examine = decoding._treatment
    monkeypatch.setattr(decoding, "_treatment", lambda path: examined.append(path) or examine(path))
    first = load("market1501", root).fingerprint
    assert len(examined) == 14
    assert load("market1501", root).fingerprint == first
    assert len(examined) == 14
    ImageStore.open(load("market1501", root).query.paths, (8, 4), progress=False)
    assert len(examined) == 14  # the cache of images uses the same record
    os.utime(path)  # its split is examined again, and the same
    assert load("market1501", root).fingerprint == first
    assert len(examined) == 14 + 2


def test_a_file_that_cannot_be_opened_for_a_moment_is_examined_again(tmp_path, monkeypatch):
    path = saved(tmp_path / "turned.png", colours(), exif=exif(3))

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_is_plain", refuse)
        assert treatments([path]) == {}
    assert treatments([path]) == {0: ["turned"]}


def test_the_size_of_a_tiff_with_an_orientation_in_xmp(tmp_path):
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
        "</rdf:RDF></x:xmpmeta>"
    )
    path = saved(tmp_path / "a.tif", colours(20, 40), tiffinfo={0x0112: 6, 700: packet.encode()})
    assert decoding.shown_size(path) == decode(path).shape[:2]


def test_treatments_need_no_writable_home(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path / "file"))
    path = saved(tmp_path / "turned.png", colours(), exif=exif(3))
    assert treatments([path, path]) == {0: ["turned"], 1: ["turned"]}


def test_a_check_counts_the_images_that_need_a_treatment(tmp_path):
    people = tmp_path / "people"
    for person in ("1", "2"):
        (people / person).mkdir(parents=True)
        for camera in (1, 2):
            saved(people / person / f"a_c{camera}.png", colours(seed=camera))
            saved(people / person / f"turned_c{camera}.png", colours(), exif=exif(6))
    saved(people / "1" / "alpha_c1.png", colours(channels=4), exif=exif(3))
    frames = [Image.fromarray(colours(seed=seed)) for seed in (1, 2)]
    saved(people / "2" / "frames_c1.png", frames[0], save_all=True, append_images=frames[1:])
    for _ in range(2):  # the second check reads no pixel
        report = check("folder", people, progress=False)
        assert report.ok, report.text()
        assert "5 images turned or mirrored by the orientation in EXIF" in report.remarks
        assert "1 image with transparent parts, shown on white" in report.remarks
        assert "1 image with several frames, of which only the first is read" in report.remarks
        assert not any("16-bit" in remark for remark in report.remarks)
    (people / "1" / "a_c1.png").write_bytes(b"no image")
    assert not check("folder", people, progress=False).ok
