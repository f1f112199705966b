"""A folder of Market-1501's size: indexed and checked, as whole processes.

Run with: pytest tests/benchmarks/test_checking_speed.py -s
"""

import os
import subprocess
import sys
import time
from math import inf
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from miniature import write_image

# Images, persons and cameras of each folder as they are in the official package.
FOLDERS = {
    "bounding_box_train": (12_936, range(751, 1502)),
    "query": (3_368, range(1, 751)),
    "bounding_box_test": (13_115, range(1, 751)),
}
JUNK, DISTRACTORS, ROUNDS, SECONDS = 3_819, 2_798, 5, 3
REMARKS = ("query holds 5 cameras, 1 fewer", "1 problem")  # and nothing else is wrong
SMALL = {
    "FOLDERS": {name: (40, range(persons[0], persons[10])) for name, (_, persons) in FOLDERS.items()},
    "JUNK": 7,
    "DISTRACTORS": 7,
    "ROUNDS": 1,
    "SECONDS": inf,
    "REMARKS": ("fewer",),
}


def market_size(root):
    """Links to a few images under as many names as Market-1501 has, junk and distractors among them."""
    pictures = [root / f"{index}.jpg" for index in range(20)]
    root.mkdir()
    for index, picture in enumerate(pictures):
        write_image(picture, size=(128, 64), seed=index)
    for folder, (count, persons) in FOLDERS.items():
        names = [
            f"{persons[index % len(persons)]:04}_c{1 + index // len(persons) % 6}s1_{index:06}_01.jpg"
            for index in range(count)
        ]
        if folder == "bounding_box_test":
            names += [f"-1_c{1 + index % 6}s1_{index:06}_01.jpg" for index in range(JUNK)]
            names += [f"0000_c{1 + index % 6}s1_{index:06}_01.jpg" for index in range(DISTRACTORS)]
        (root / folder).mkdir()
        for index, name in enumerate(names):
            os.link(pictures[index % len(pictures)], root / folder / name)
    return root


def seconds(command, environment):
    begin = time.perf_counter()
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    duration = time.perf_counter() - begin
    return duration, process.stdout + process.stderr


def test_a_folder_of_markets_size(tmp_path):
    root = market_size(tmp_path / "market")
    environment = {**os.environ, "REIDLIB_HOME": str(tmp_path / "home")}
    check = [sys.executable, "-m", "reidlib", "check", "market1501", str(root)]
    load = [
        sys.executable,
        "-c",
        f"from reidlib.data import load; print(load('market1501', {str(root)!r}).fingerprint)",
    ]
    first, output = seconds(check, environment)
    assert all(remark in output for remark in REMARKS)
    again = median(seconds(check, environment)[0] for _ in range(ROUNDS))
    indexed = median(seconds(load, environment)[0] for _ in range(ROUNDS))
    print(
        f"\n36,036 images: read and checked for the first time {first:.1f} s, checked again {again:.1f} s, "
        f"indexed {indexed:.1f} s (medians of {ROUNDS}, whole processes)"
    )
    assert again <= SECONDS
    assert indexed <= SECONDS
