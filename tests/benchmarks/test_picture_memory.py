"""Memory of check, embed, search and train over pictures of 50 megapixels in many formats.

Run with: pytest tests/benchmarks/test_picture_memory.py -s
About ten minutes on two cores, and 2 GB of disk.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from miniature import MINIATURE, write_image
from untrained_runs import untrained_run

from reidlib.data import load

SIDE = 7_071  # 49,999,041 pixels
CASES = [
    ("check", 16),
    ("search", 16),
    *(pytest.param(*case, marks=pytest.mark.full) for case in [("check", 1), ("embed", 16), ("train", 16)]),
]
BOUND = 1024  # MiB above ``import reidlib.search``
SMALL = {"SIDE": 700}
PROGRAM = """
import os, sys
from pathlib import Path
os.cpu_count = lambda: int(sys.argv[1])  # as many decoding threads as on a machine with so many cores
import reidlib.search
from reidlib.cli import main

def most():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024

imported = most()
status = main(sys.argv[2:])
print("MEMORY", imported, most() - imported, status)
"""


def formats():
    """Yield name, picture and options of each file: every decoder and every conversion."""
    small = np.random.default_rng(0).integers(0, 256, (300, 300, 4), dtype=np.uint8)
    rgb = Image.fromarray(small[..., :3]).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    turned = Image.Exif()
    turned[0x0112] = 6
    yield "plain.jpg", rgb, {}
    yield "progressive.jpg", rgb, {"progressive": True, "subsampling": 0, "exif": turned}
    yield "cmyk.jpg", rgb.convert("CMYK"), {"exif": turned}
    yield "lossy.webp", rgb, {"method": 0, "exif": turned}
    yield "rates.jp2", rgb, {"quality_mode": "rates", "quality_layers": [40]}
    grey = np.asarray(rgb.convert("L"))
    yield "sixteen.png", Image.fromarray(grey.astype(np.uint16) * 257), {"compress_level": 1, "exif": turned}
    yield "integers.tif", Image.fromarray(grey.astype(np.int32) * 257), {}
    yield "palette.png", rgb.quantize(32), {"transparency": 3, "compress_level": 1, "exif": turned}
    rgb.putalpha(Image.fromarray(small[..., 3]).resize((SIDE, SIDE)))
    yield "alpha.png", rgb, {"compress_level": 1, "exif": turned}
    yield "alpha.tif", rgb, {"compression": "tiff_deflate"}
    yield "alpha.webp", rgb, {"method": 0, "lossless": True, "quality": 0, "exif": turned}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures of four persons from two cameras, two files for each format, and a run."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (name, picture, options) in enumerate(formats()):
        folder = root / "people" / f"p{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"c_c1_0_{name}", **options)
        (folder / f"c_c2_0_{name}").hardlink_to(folder / f"c_c1_0_{name}")
    for index in range(32):  # a training needs a batch
        write_image(
            root / "people" / f"p{index % 4}" / f"c_c{1 + index // 4 % 2}_small{index}.jpg", seed=index
        )
    for split, names in MINIATURE.items():
        (root / "market" / split).mkdir(parents=True)
        for index, name in enumerate(names):
            write_image(root / "market" / split / name, seed=index)
    run = untrained_run(load("market1501", root / "market"), root / "runs")
    return root, run.folder


@pytest.mark.parametrize(("command", "cores"), CASES)
def test_pictures_of_fifty_megapixels(place, command, cores, tmp_path):
    root, run = place
    people, out = str(root / "people"), str(tmp_path / "out")
    arguments = {
        "check": ["check", "folder", people],
        "embed": ["embed", str(run), people, out + ".npz"],
        "search": ["search", people, people, "--run", str(run), "--out", out, "--sheet", "20", "--top", "20"],
        "train": ["train", "jlml", "--profile", "smoke", "--benchmark", "folder", "--data-root", people],
    }[command]
    environment = {**os.environ, "REIDLIB_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cores), *arguments],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    line = next((line for line in process.stdout.splitlines() if line.startswith("MEMORY")), "")
    assert line, process.stdout + process.stderr
    imported, more, status = map(int, line.split()[1:])
    print(f"\n{command}, {cores} cores: {imported} MiB imported, {more:,} MiB more")
    assert status == 0, process.stdout + process.stderr
    assert "Warning" not in process.stderr
    assert more <= BOUND
