"""Speed and memory of the hand-crafted descriptors, with two threads of one process.

Run with: pytest tests/benchmarks/test_descriptor_speed.py -s
"""

import json
import os
import subprocess
import sys

import pytest

IMAGES, THREADS = {"lomo": 1000, "gog": 200}, "2"
RATES, MEBIBYTES = {"lomo": 100, "gog": 20}, 300
SMALL = {"IMAGES": {"lomo": 6, "gog": 4}, "RATES": {"lomo": 0, "gog": 0}}
PROGRAM = """
import json, sys, time
from pathlib import Path
import numpy as np
import torch
from reidlib import descriptors

def memory(which):  # MiB, of this process: VmRSS now, VmHWM at most
    return int(Path("/proc/self/status").read_text().split(which + ":")[1].split()[0]) / 1024

name, count = sys.argv[1], int(sys.argv[2])
describe = getattr(descriptors, name)
images = np.random.default_rng(0).integers(0, 256, (count, 128, 48, 3), np.uint8)
describe(images[:2])
before, begin = memory("VmRSS"), time.perf_counter()
features = describe(images)
seconds = time.perf_counter() - begin
used = memory("VmHWM") - before - features.nbytes / 2**20
print(json.dumps({"rate": count / seconds, "MiB": used, "threads": torch.get_num_threads()}))
"""


@pytest.mark.parametrize("name", IMAGES)
def test_images_a_second(name):
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, THREADS)
    command = [sys.executable, "-c", PROGRAM, name, str(IMAGES[name])]
    process = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    print(
        f"\n{name}: {IMAGES[name]:,} images of 128×48, {result['threads']} threads: {result['rate']:.0f} "
        f"images/s, {result['MiB']:.0f} MiB beyond images and features"
    )
    assert result["MiB"] < MEBIBYTES
    assert result["rate"] >= RATES[name]
