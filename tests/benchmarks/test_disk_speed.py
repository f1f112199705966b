"""A home of 100,000 files: the time that `reidlib disk` and `reidlib clean` take.

Run with: pytest tests/benchmarks/test_disk_speed.py -s
"""

import subprocess
import sys
import time
from math import inf

FILES, SECONDS = 100_000, 30
SMALL = {"FILES": 1000, "SECONDS": inf}


def test_a_hundred_thousand_files_are_listed_in_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("REIDLIB_HOME", str(tmp_path))
    for number in range(FILES // 100):  # half of them foreign, an eighth of them in entries of their own
        for folder, names in (
            (f"data/synthetic-{number}", ["rendering.json", *(f"query/{i}.jpg" for i in range(37))]),
            ("cache", [f"{number:029}{i:03}.npy" for i in range(12)]),
            (f"mine/{number}", map(str, range(50))),
        ):
            (tmp_path / folder / "query").mkdir(parents=True, exist_ok=True)
            for name in names:
                (tmp_path / folder / name).touch()
    for words, what in (
        (["disk"], f"{12 * FILES // 100:,}"),
        (["clean"], "may go"),
        (["clean", "--yes"], "removed"),
    ):
        start = time.perf_counter()
        command = [sys.executable, "-m", "reidlib", *words]
        completed = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        print(f"reidlib {' '.join(words)}: {seconds:.1f} s for {FILES:,} files")
        assert completed.returncode == 1 and what in completed.stdout, completed.stderr
        assert completed.stderr.count("\n") == 1  # the folder of foreign files
        assert seconds < SECONDS
    assert not list(tmp_path.glob("cache/*.npy"))
