"""Half a million distractors, embedded and ranked: the memory that takes, as whole processes.

Run with: pytest tests/benchmarks/test_distractors_memory.py -s
About a quarter of an hour on two cores; REIDLIB_DISTRACTORS=50000 takes a tenth of it.
"""

import json
import os
import subprocess
import sys
from math import inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from miniature import MINIATURE, write_image

COUNT = int(os.environ.get("REIDLIB_DISTRACTORS", 500_000))
BYTES = 2000  # that the memory may grow by with each
SMALL = {"COUNT": 500, "BYTES": inf}
PROGRAM = """
import json, sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from untrained_runs import JLMLConfiguration, untrained_run
from reidlib.data import load
from reidlib.experiments.evaluate import evaluate_with_distractors
from reidlib.training.device import Execution

held = []

def watch():
    # Anonymous memory: pages of the mapped features are the system's to drop.
    while True:
        status = Path("/proc/self/status").read_text()
        held.append(int(status.split("RssAnon:")[1].split()[0]) / 1024)
        time.sleep(0.05)

threading.Thread(target=watch, daemon=True).start()
benchmark = load("market1501", sys.argv[1], distractors=True)
run = untrained_run(benchmark, Path(sys.argv[2]), JLMLConfiguration(width=0.25), (64, 32))
begin = time.perf_counter()
scores = evaluate_with_distractors(run, benchmark, execution=Execution(device="cpu", progress=False))
print(json.dumps({
    "seconds": time.perf_counter() - begin,
    "MiB": max(held),
    "distractors": scores["num_distractors"],
}))
"""


def crowded(root, count):
    pictures = root / "pictures"
    pictures.mkdir(parents=True)
    for index in range(50):
        write_image(pictures / f"{index}.jpg", size=(128, 64), seed=index)
    for number, (folder, names) in enumerate(MINIATURE.items()):
        (root / folder).mkdir()
        for index, name in enumerate(names):
            write_image(root / folder / name, size=(128, 64), seed=100 * number + index)
    folder = root / "distractors_500k"
    folder.mkdir()
    for index in range(count):
        # A few names a picture: file systems limit the links of one file.
        source = pictures / f"{index % 50}-{index // 50_000}.jpg"
        if not source.exists():
            source.write_bytes((pictures / f"{index % 50}.jpg").read_bytes())
        os.link(source, folder / f"0000_c{1 + index % 6}s1_{index:06}_00.jpg")
    return root


def measured(tmp_path, count):
    root = crowded(tmp_path / f"market-{count}", count)
    tests = str(Path(__file__).parent.parent)
    environment = {**os.environ, "REIDLIB_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", PROGRAM, str(root), str(tmp_path / f"runs-{count}"), tests]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_the_gallery(tmp_path):
    few, many = measured(tmp_path, COUNT // 10), measured(tmp_path, COUNT)
    features = COUNT * 1024 * 4 / 2**20
    growth = (many["MiB"] - few["MiB"]) * 2**20 / (many["distractors"] - few["distractors"])
    print(
        f"\n{few['distractors']:,} distractors: {few['MiB']:.0f} MiB at most; {many['distractors']:,}: "
        f"{many['MiB']:.0f} MiB ({features:.0f} MiB of features on disk), {many['seconds']:.0f} s; "
        f"{growth:.0f} bytes a distractor"
    )
    # Names and ids stay in memory; of 4,096 bytes of features, or 6,144 of an image's pixels, nothing does.
    assert growth < BYTES
