"""Git holds no picture but the figures of the report on rendered people, wherever a picture may hide."""

import base64
import bz2
import contextlib
import gzip
import io
import json
import lzma
import re
import subprocess
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
FIGURES = "reports/figures/"
# Long base64, in one line or with the line breaks of MIME and JSON.
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/_-]{40,}(?:\\n|\s)*)+[A-Za-z0-9+/_-]*")
_UNPACKERS = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}


def is_picture(data):
    """Whether Pillow identifies these bytes as a picture of at least 8×8 pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return min(image.size) >= 8
    except Exception:  # whatever a decoder raises for bytes that are no picture
        return False


def members(data):
    """What an archive or a compressed file holds; empty for any other."""
    if zipfile.is_zipfile(io.BytesIO(data)):  # also .npz, .whl and office documents
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [archive.read(name) for name in archive.namelist()]
    for start, unpack in _UNPACKERS.items():
        if data.startswith(start):
            with contextlib.suppress(OSError, EOFError, ValueError, lzma.LZMAError):
                return [unpack(data)]
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return [archive.extractfile(member).read() for member in archive if member.isfile()]
    except tarfile.TarError:
        return []


def decoded(data):
    """What the stretches of base64 in a text stand for, as in ``data:`` URIs and outputs of notebooks."""
    for match in _BASE64.finditer(data):
        text = re.sub(rb"\\n|\s", b"", match[0]).translate(bytes.maketrans(b"-_", b"+/"))
        yield base64.b64decode(text[: len(text) - (len(text) % 4 == 1)] + b"==")


def may_show(data):
    """Whether bytes are a picture, hold one, or are neither text nor an archive that can be looked into."""
    if is_picture(data):
        return True
    if inner := members(data):
        return any(map(may_show, inner))
    if b"\0" not in data:
        try:
            data.decode()
        except UnicodeDecodeError:
            return True
        return any(is_picture(part) or any(map(may_show, members(part))) for part in decoded(data))
    return True


def notebook_parts(data):
    """The outputs and attachments of a notebook, which git must not hold at all."""
    cells = json.loads(data)["cells"]
    return [part for cell in cells for part in (cell.get("outputs"), cell.get("attachments")) if part]


@pytest.fixture(scope="module")
def tracked():
    """The files that git holds, by their path."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("this is no clone")
    names = listed.stdout.decode().split("\0")
    return {name: (ROOT / name).read_bytes() for name in names if name and (ROOT / name).is_file()}


def test_git_holds_no_picture_but_the_figures_of_the_report(tracked):
    assert len(tracked) > 200
    others = {name: data for name, data in tracked.items() if not name.startswith(FIGURES)}
    assert [name for name, data in others.items() if may_show(data)] == []
    notebooks = {name: data for name, data in others.items() if name.endswith(".ipynb")}
    assert notebooks and not [name for name, data in notebooks.items() if notebook_parts(data)]


def test_figures_are_those_of_notebooks_on_the_rendered_benchmark(tracked):
    # ``write_summary`` refuses a report on other images; see tests/reports/test_summary.py.
    summaries = [tracked[f"reports/{name}.md"].decode() for name in ("README", "notebooks")]
    assert all("- Benchmark: synthetic\n" in summary for summary in summaries)
    summary = "\n".join(summaries)
    stems = {Path(name).stem for name in tracked if name.startswith("notebooks/")}
    for name in (name for name in tracked if name.startswith(FIGURES)):
        figure = name.removeprefix(FIGURES)
        if figure == "browser.jpg":  # of tests/browser, which render their own people
            continue
        assert figure.split("-")[0] in stems and f"](figures/{figure})" in summary, name


def picture(kind="png", size=(16, 8)):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def zipped(content, name="notes.txt"):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def tarred(content):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("notes.txt")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def array(compressed):
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, x=np.zeros((9, 9, 3), np.uint8))
    return buffer.getvalue()


def in_text(form, content):
    return form.replace("X", base64.b64encode(content).decode()).encode()


HIDING_PLACES = {
    "under another name": picture(),
    "as JPEG": picture("jpeg"),
    "as BMP": picture("bmp"),
    "as TIFF": picture("tiff"),
    "as WebP": picture("webp"),
    "in a zip": zipped(picture()),
    "in a zip in a zip": zipped(zipped(picture())),
    "in a tar": tarred(picture()),
    "in a tar.gz": gzip.compress(tarred(picture())),
    "in bz2": bz2.compress(picture()),
    "in xz": lzma.compress(picture()),
    "as an array": array(False),
    "as a compressed array": array(True),
    "in a page": in_text('<img src="data:image/png;base64,X">', picture()),
    "in a text": in_text("![person](data:image/webp;base64,X)", picture("webp")),
    "in a table": in_text("person,picture\n7,X\n", picture()),
    "in MIME lines": base64.encodebytes(picture()),
    "URL-safe": base64.urlsafe_b64encode(picture()),
    "zipped in a text": in_text('{"archive": "X"}', zipped(picture())),
    "in an unknown format": b"\x00unknown" + bytes(range(256)),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_a_picture_is_seen_wherever_it_hides(place):
    assert may_show(HIDING_PLACES[place])


def test_a_notebook_with_pictures_is_seen():
    code = base64.encodebytes(picture()).decode()
    output = {"output_type": "display_data", "data": {"image/png": code}, "metadata": {}}
    for cell in ({"outputs": [output]}, {"attachments": {"a.png": {"image/png": code}}}):
        data = json.dumps({"cells": [{"cell_type": "code", "source": "", **cell}]}).encode()
        assert may_show(data) and notebook_parts(data)
    assert not notebook_parts(b'{"cells": [{"cell_type": "code", "outputs": []}]}')


@pytest.mark.parametrize("text", ["", "plain text", "é", "0" * 5000, '{"digest": "' + "ab12" * 40 + '"}'])
def test_text_and_archives_of_text_are_no_pictures(text):
    assert not may_show(text.encode())
    assert not may_show(zipped(text.encode())) and not may_show(in_text("X", text.encode()))
