"""From an image file to the picture that a viewer shows, in bounded memory."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from reidlib import files
from reidlib.errors import InputError, shorten
from reidlib.files import find_json, write_json

Value = TypeVar("Value")
# Largest number of pixels of an image; and bytes that images take together while they are decoded. Formats
# whose decoders hold a picture several times take the larger number of bytes for each pixel.
MEGAPIXELS = 50
_MEMORY_BYTES, _SMALL = 512 * 2**20, 6 * 2**20  # smaller images are not counted
_BYTES_PER_PIXEL, _BYTES_OF_FORMAT = 12, {"WEBP": 20, "JPEG2000": 20}
# White, the page on which browsers and printers show a picture.
BACKGROUND = (255, 255, 255)
# What an image needs beyond its stored pixels, and how a check tells it. Fingerprints and cache keys contain
# the keys that changed pixels; images without keep the fingerprints that they had before there were any.
TREATMENTS = {
    "turned": "turned or mirrored by the orientation in EXIF",
    "16 bits": "with 16-bit grey values, reduced to 8 bits",
    "transparent": "with transparent parts, shown on white",
    "turned TIFF": "in TIFF, turned or mirrored by their orientation",
    "frames": "with several frames, of which only the first is read",
}
_SAME_PIXELS = ("turned TIFF", "frames")
_RECORD = "treatments 1\n"
_ORIENTATION, _PHOTOMETRIC = 0x0112, 0x0106
_ORIENTATION_KEYS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Largest value of grey PNGs with fewer than 8 bits, whose transparent value Pillow does not convert.
_FEW_BITS = {"1": 1, "L;2": 3, "L;4": 15}
_STRIP_PIXELS = 2**22

# Pillow warns of large pictures, which are refused here, and of damaged EXIF blocks, which viewers ignore.
warnings.filterwarnings("ignore", module=r"PIL\.")


class UnreadableImage(NamedTuple):
    """A file that cannot be decoded completely, and the decoder's message."""

    path: Path
    reason: str


class UnreadableImagesError(InputError):
    """Error for files that could not be decoded; the attribute ``images`` has each file with its reason."""

    def __init__(self, images: Sequence[UnreadableImage]):
        self.images = tuple(images)
        descriptions = shorten([f"{path} ({reason})" for path, reason in images], 20)
        super().__init__(
            "every image can be decoded completely",
            f"{len(images)} unreadable: {descriptions}",
            "unpack or copy these files again, convert those that are refused, or remove them",
        )


def _trim() -> None:
    """Return freed memory to the system: the C library of Linux keeps it, for each thread its own."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


class _Memory:
    """Bytes that threads take while they decode; a thread waits until its bytes are free."""

    def __init__(self, total: int):
        self._total = self._free = total
        self._freed = 0
        self._change = threading.Condition()

    @contextlib.contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Take bytes for the duration of the block; more than there are means all of them."""
        amount = min(amount, self._total)
        with self._change:
            self._change.wait_for(lambda: self._free >= amount)
            self._free -= amount
            if amount == self._total:
                _trim()
        try:
            yield
        finally:
            with self._change:
                self._freed += amount
                if self._freed > self._total // 2:
                    _trim()
                    self._freed = 0
                self._free += amount
                self._change.notify_all()


_MEMORY = _Memory(_MEMORY_BYTES)


def _taken(amount: int) -> contextlib.AbstractContextManager[None]:
    return _MEMORY.take(amount) if amount > _SMALL else contextlib.nullcontext()


INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode(
    path: Path, size: tuple[int, int] | None = None, resize: str = "bilinear"
) -> np.ndarray | UnreadableImage:
    """Decode an image file to the picture that a viewer shows, and resize it.

    - The orientation in EXIF turns or mirrors the image; a damaged EXIF block does not.
    - Integer grey values are 16-bit values, of which the high byte is kept, as Pillow does for colours of 16
      bits. Values beyond 65,535 and floating-point values, whose white is unknown, are refused.
    - Transparent parts are composited on white (``BACKGROUND``), so that no hidden colour appears.
    - CMYK, palettes, one bit and other colours are converted by Pillow's rules. Of several frames, the first
      one is read.
    - Images of more than ``MEGAPIXELS`` are refused. Threads wait for each other if their images together
      need too much memory.

    Args:
        path: The file.
        size: Height and width (H, W) in pixels; None to keep the image's own size.
        resize: Interpolation, a key of ``INTERPOLATIONS``.

    Returns:
        The image, uint8 RGB of shape (H, W, 3), or the reason why the file is unreadable. A truncated file is
        unreadable.
    """

    def fit(image: Image.Image, _: list[str]) -> np.ndarray:
        return np.array(image if size is None else resized(image, size, resize))

    return _decode(path, fit)


def resized(image: Image.Image, size: tuple[int, int], resize: str) -> Image.Image:
    """Resize an image to height and width ``size`` as ``decode`` does."""
    if image.size == (size[1], size[0]):
        return image
    # Antialiased when it shrinks. Pillow resizes in integer arithmetic: the same on every machine.
    return image.resize((size[1], size[0]), INTERPOLATIONS[resize])


def thumbnail(path: Path, height: int, width: int) -> np.ndarray | UnreadableImage:
    """Decode an image for display; a larger one is reduced to fit, for which JPEG decoders skip pixels."""

    def fit(image: Image.Image, _: list[str]) -> np.ndarray:
        is_larger = image.height > height or image.width > width
        return np.array(_fit(image, height, width) if is_larger else image)

    # At least twice as many pixels are decoded, in each direction, as are shown.
    return _decode(path, fit, draft=2 * max(height, width))


def fit_image(image_hwc: np.ndarray, height: int, width: int) -> Image.Image:
    """Resize an image (H, W, 3) for display, to the largest size that fits, and keep its proportions."""
    return _fit(Image.fromarray(image_hwc), height, width)


def shown_size(path: Path) -> tuple[int, int]:
    """Return height and width in pixels as a viewer shows them, from the file's header."""
    with Image.open(path) as file:
        width, height = file.size
        # Pillow gives the size of a turned TIFF as it is shown.
        is_turned = file.format != "TIFF" and _orientation(file) >= 5
        return (width, height) if is_turned else (height, width)


def _fit(image: Image.Image, height: int, width: int) -> Image.Image:
    scale = min(height / image.height, width / image.width)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _decode(
    path: Path, fit: Callable[[Image.Image, list[str]], np.ndarray], draft: int = 0
) -> np.ndarray | UnreadableImage:
    try:
        return _show(path, fit, draft)
    except Exception as error:  # for damaged files, decoders raise one of half a dozen types
        reason = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image, or of an unknown kind"
        if isinstance(error, Image.DecompressionBombError):
            reason = f"more than {MEGAPIXELS} megapixels"
        return UnreadableImage(path, reason)


def _show(path: Path, use: Callable[[Image.Image, list[str]], Value], draft: int = 0) -> Value:
    """Call ``use`` with an image in RGB as a viewer shows it, and with its treatments."""
    # Pillow decodes and resizes: torchvision's decoders will be removed.
    # Some formats are read completely when they are opened.
    with _taken(3 * os.stat(path).st_size), Image.open(path) as file:  # noqa: PTH116
        width, height = file.size
        if width * height > MEGAPIXELS * 10**6:
            raise ValueError(f"{width:,} by {height:,} pixels, more than {MEGAPIXELS} megapixels")
        needed = width * height * _BYTES_OF_FORMAT.get(file.format or "", _BYTES_PER_PIXEL)
        if needed <= _SMALL:
            return use(*_turn_and_flatten(*_load(file, draft)))
    del file  # the decoders of some formats have buffers already
    with _taken(needed):
        return use(*_turn_and_flatten(*_open_and_load(path, draft)))


def _open_and_load(path: Path, draft: int) -> tuple[Image.Image, list[str]]:
    with Image.open(path) as file:
        return _load(file, draft)


def _load(file: ImageFile, draft: int) -> tuple[Image.Image, list[str]]:
    """Decode an image, and return it without the decoder's own buffers, and with what its format needs."""
    if "transparency" in file.info:
        _correct_transparency(file)
    if draft:
        file.draft("RGB", (draft, draft))
    words = _prepare_tiff(file) if file.format == "TIFF" else []
    # The second frame of a camera's JPEG is a preview.
    if file.format != "MPO" and getattr(file, "is_animated", False):
        words.append("frames")
    file.load()
    image = file._new(file.im)
    # Pillow inverts TIFFs whose 0 is white, except of 16 bits.
    if image.mode == "I;16" and getattr(file, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        image = image.point(lambda value: 65_535 - value)
    # Many programs leave the fourth byte of a BMP's pixels 0, and viewers show such a picture opaque.
    if file.format in ("BMP", "DIB") and image.mode == "RGBA" and not image.getchannel("A").getbbox():
        image = image.convert("RGB")
    return image, words


def _turn_and_flatten(image: Image.Image, words: list[str]) -> tuple[Image.Image, list[str]]:
    method = _METHODS.get(_orientation(image))
    image, further_words = _flatten(image)
    if method is not None:
        image = image.transpose(method)
        further_words.append("turned")
    return image, further_words + words


def _prepare_tiff(file: ImageFile) -> list[str]:
    """Return the treatment of a TIFF, which Pillow turns itself, and mend the way in which it does so."""
    # It maps uncompressed files of some modes to memory, by their names, in rows of the turned picture.
    file.filename = ""
    orientation = _orientation_of(file)
    if orientation == 1:
        return []
    is_mapped = file.tile[0][0] == "raw" and file.mode in ("L", "P", "RGBA", "RGBX", "CMYK")
    return ["turned" if is_mapped and orientation >= 5 else "turned TIFF"]


def _orientation(image: Image.Image) -> int:
    """Return the number of the orientation, 1 to 8; 1 if there is none or it is damaged. TIFFs are turned."""
    return _orientation_of(image) if image.info.keys() & _ORIENTATION_KEYS else 1


def _orientation_of(image: Image.Image) -> int:
    with contextlib.suppress(Exception):  # the reader raises many types for damaged blocks
        orientation = image.getexif().get(_ORIENTATION)
        return orientation if orientation in _METHODS else 1
    return 1


def _correct_transparency(file: Image.Image) -> None:
    """Give the transparent grey of a PNG the bits that its pixels will have; refuse what Pillow confuses."""
    rawmode, value = next((tile[3] for tile in getattr(file, "tile", ())), None), file.info["transparency"]
    if rawmode == "RGB;16B":
        raise ValueError("a transparent colour of 16 bits, whose pixels cannot be told from similar ones")
    if isinstance(rawmode, str) and rawmode in _FEW_BITS and isinstance(value, int):
        largest = _FEW_BITS[rawmode]
        file.info["transparency"] = (value & largest) * (255 // largest)  # libpng ignores higher bits, too


def _flatten(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Convert an image to RGB, with its treatments."""
    if image.mode == "F":
        raise ValueError("floating-point grey values, whose black and white are unknown")
    if image.mode == "I":
        low, high = image.getextrema()
        if low < 0 or high > 65_535:  # type: ignore[operator]
            raise ValueError(f"grey values from {low:,} to {high:,}, which are not 16-bit values")
    if image.mode.startswith("I"):
        convert, treatment = _high_byte, "16 bits"
    elif image.has_transparency_data:
        convert, treatment = _on_background, "transparent"
    else:
        return image if image.mode == "RGB" else image.convert("RGB"), []
    # In strips: the steps between would take the memory of several pictures.
    result, changes = Image.new("RGB", image.size), False
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip, is_changed = convert(image.crop(box))
        result.paste(strip, box)
        changes |= is_changed
    return result, [treatment] * changes


def _high_byte(image: Image.Image) -> tuple[Image.Image, bool]:
    """Reduce 16-bit grey values to 8 bits."""
    values_hw = np.asarray(image)
    grey_hwc = np.repeat((values_hw >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if (transparency := image.info.get("transparency")) is not None:
        grey_hwc[values_hw == transparency] = BACKGROUND
    return Image.fromarray(grey_hwc), bool(values_hw.any())


def _on_background(image: Image.Image) -> tuple[Image.Image, bool]:
    """Composite an image on the background; also return whether that changes a pixel."""
    rgba = image.convert("RGBA")
    colours, result = rgba.convert("RGB"), Image.new("RGB", image.size, BACKGROUND)
    result.paste(colours, mask=rgba)
    return result, result.tobytes() != colours.tobytes()


def treatments(paths: Sequence[Path]) -> dict[int, list[str]]:
    """Find images that need more than their stored pixels.

    The result is remembered until a file changes. Otherwise the headers of all files are read, and files that
    may be transparent or have 16 bits are decoded.

    Args:
        paths: Image files.

    Returns:
        Index of the path -> keys of ``TREATMENTS``; other images and unreadable ones are left out.

    Raises:
        UnreadableImagesError: If files are missing.
    """
    return _treatments(paths, _states(paths)) if len(paths) else {}


def _treatments(paths: Sequence[Path], states: Sequence[str]) -> dict[int, list[str]]:
    digest = hashlib.sha256((_RECORD + "".join(states)).encode("utf-8", "surrogateescape")).hexdigest()
    record = files.home() / "checked" / f"{digest[:32]}.json"
    if (content := find_json(record)) is None:
        chunks = [paths[start : start + 64] for start in range(0, len(paths), 64)]
        with ThreadPoolExecutor(min(16, os.cpu_count() or 1), "headers") as threads:
            parts = threads.map(lambda chunk: list(map(_treatment, chunk)), chunks)
            words_by_index = dict(enumerate(chain.from_iterable(parts)))
        content = {str(index): words for index, words in words_by_index.items() if words}
        # A file that cannot be opened now may be the next time, with the same size and time.
        if None not in words_by_index.values():
            with contextlib.suppress(InputError):  # reading needs no writable folder
                write_json(record, content)
    return {int(index): words for index, words in content.items()}


def _treatment(path: Path) -> list[str] | None:
    """Return what an image needs; None if its file cannot be opened now."""
    try:
        if _is_plain(path):
            return []
        with path.open("rb") as stream:
            is_jpeg = stream.read(2) == b"\xff\xd8"
        if is_jpeg:  # the header has everything
            with Image.open(path) as file:
                return ["turned"] if _orientation(file) > 1 else []
        return _show(path, lambda _, words: words)
    except (UnidentifiedImageError, FileNotFoundError):
        return []
    except OSError as error:
        return None if error.errno else []  # Pillow's own errors of damaged images have no number
    except MemoryError:
        return None
    except Exception:
        return []  # decoding reports it


def _is_plain(path: Path) -> bool:
    """Return whether the first bytes of a JPEG or the chunks of a PNG exclude every treatment."""
    with path.open("rb") as stream:
        head = stream.read(2**16)
        if head.startswith(b"\xff\xd8"):
            return len(head) < 2**16 and b"Exif" not in head and b"Orientation" not in head
        if not head.startswith(b"\x89PNG\r\n\x1a\n") or len(head) < 33:
            return False
        depth, colours = head[24:26]
        if colours >= 4 or (depth == 16 and not colours):
            return False
        stream.seek(33)
        while len(header := stream.read(8)) == 8:
            length, name = struct.unpack(">I4s", header)
            if name in (b"tRNS", b"eXIf", b"acTL"):
                return False
            if name in (b"tEXt", b"zTXt", b"iTXt"):
                if stream.read(length).startswith((b"Raw profile type exif", b"XML:com.adobe.xmp")):
                    return False
                length = 0
            stream.seek(length + 4, os.SEEK_CUR)
    return True


def file_states(paths: Sequence[Path]) -> list[str]:
    """Describe each file by relative name, size, time and treatments; UnreadableImagesError if missing."""
    states = _states(paths)
    for index, words in _treatments(paths, states).items():
        states[index] = f"{states[index][:-1]}{pixel_treatments(words)}\n"
    return states


def pixel_treatments(words: Sequence[str]) -> str:
    """Return what a fingerprint or cache key adds to an image with these treatments."""
    return "".join(f"|{word}" for word in words if word not in _SAME_PIXELS)


def _states(paths: Sequence[Path]) -> list[str]:
    # Names are relative, so that caches of a folder stay valid if the folder is moved with its times.
    common = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    lines, missing = [], []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 (half the time of Path.stat, for half a million)
            lines.append(f"{str(path)[len(common) :]}|{status.st_size}|{status.st_mtime_ns}\n")
        except OSError as error:
            missing.append(UnreadableImage(path, error.strerror or str(error)))
    if missing:
        raise UnreadableImagesError(missing)
    return lines
