"""Evaluators and re-rankers of other projects beside this suite's: one environment each, one CSV.

Run with: python tests/benchmarks/peers.py FOLDER [--only NAME …] [--what TASK …]
[--source NAME=PATH …] [--repetitions 3]

FOLDER gets the environments and the features. Nothing of a peer is imported here, copied or needed by the
suite: `reidlib/analysis/complexity/peers.csv` keeps what was measured, and notebook 60 reads it. An
environment has the peer's packages, and this one's below them, so that all compute with the same torch.
Every call is a process of its own, in turn with this suite's on the same features and threads; a ratio is the
median over the turns. `--source` names a clone where a repository cannot be reached.

Evaluation is at Market-1501's size. The dense re-rankers need 12 GB and more there: both sides are a quarter.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from reidlib.analysis.complexity.performance import random_embeddings
from reidlib.ranking.metrics import Embeddings, evaluate_distances

CSV = Path(__file__).parents[2] / "reidlib" / "analysis" / "complexity" / "peers.csv"
THREADS, LENGTH, QUERIES, GALLERY, SHARE = 2, 512, 3368, 19732, 4


class Peer(NamedTuple):
    """How a project is installed, and what is measured.

    A program gets features ``query`` and ``gallery``, and ``persons`` and ``cameras`` of both sides. It
    leaves in ``result`` what it computed: mAP, or distances.
    """

    name: str
    packages: str  # for pip; the first one has the version
    programs: dict[str, str]
    repository: str = ""
    compile: str = ""  # folder of the clone in which setup.py builds the fast evaluator


_TORCHREID = """
import torch
from torchreid.metrics import compute_distance_matrix, evaluate_rank
from torchreid.utils.rerank import re_ranking
def distances(first, second):
    return compute_distance_matrix(torch.from_numpy(first), torch.from_numpy(second)).numpy()
"""
# Without the first line it cannot be imported since Python 3.10.
_FASTREID = """
import collections.abc; collections.Mapping = collections.abc.Mapping
import torch
from fastreid.evaluation.rank import evaluate_rank
from fastreid.evaluation.rerank import re_ranking
from fastreid.utils.compute_dist import build_dist
def distances(first, second):
    return build_dist(torch.from_numpy(first), torch.from_numpy(second), "euclidean")
"""
_SCORE = "result = evaluate_rank(distances(query, gallery), *persons, *cameras, use_cython={})[1]"
_RERANK = (
    "result = re_ranking(distances(query, gallery), distances(query, query), distances(gallery, gallery))"
)
PEERS = (
    Peer(
        "torchreid",
        "Cython setuptools scipy h5py opencv-python-headless tensorboard yacs gdown imageio six",
        {
            "evaluation, compiled": _TORCHREID + _SCORE.format(True),
            "evaluation, Python": _TORCHREID + _SCORE.format(False),
            "re-ranking": _TORCHREID + _RERANK,
        },
        repository="https://github.com/KaiyangZhou/deep-person-reid.git",
        compile=".",
    ),
    Peer(
        "fast-reid",
        # PyPI's fastreid wants torch 1.13: the repository runs with this one's.
        "Cython setuptools faiss-cpu opencv-python-headless scikit-learn tabulate tensorboard termcolor yacs",
        {
            "evaluation, compiled": f"{_FASTREID}{_SCORE.format(True)}\nresult = np.mean(result)",
            "evaluation, Python": f"{_FASTREID}{_SCORE.format(False)}\nresult = np.mean(result)",
            "re-ranking": _FASTREID + _RERANK,
        },
        repository="https://github.com/JDAI-CV/fast-reid.git",
        compile="fastreid/evaluation/rank_cylib",
    ),
    Peer(
        "reid-strong-baseline",
        "",
        {
            "evaluation, Python": """
import torch
from data.datasets.eval_reid import eval_func
first, second = torch.from_numpy(query), torch.from_numpy(gallery)
squared = first.pow(2).sum(1, keepdim=True) + second.pow(2).sum(1) - 2 * first @ second.T
result = eval_func(squared.numpy(), *persons, *cameras)[1]
""",
            "re-ranking": """
import torch
from utils.re_ranking import re_ranking
result = re_ranking(torch.from_numpy(query), torch.from_numpy(gallery), 20, 6, 0.3)
""",
        },
        repository="https://github.com/michuanhaohao/reid-strong-baseline.git",
    ),
    Peer(
        "person-re-ranking",
        "",
        {
            "re-ranking": """
sys.path.insert(0, str(clone / "python-version"))
from re_ranking_ranklist import re_ranking
def distances(first, second):  # it takes plain ones
    squared = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squared, 0))
"""
            + _RERANK
        },
        repository="https://github.com/zhunzhong07/person-re-ranking.git",
    ),
    Peer(
        "reid",
        "reid==0.1.0rc1",
        {
            "evaluation, Python": """
from reid.eval.metrics import _compute_reid_metrics, distance_matrix
scores = _compute_reid_metrics(distance_matrix(query, gallery, distance="euclidean"), *persons, *cameras)
result = scores.mean_average_precision / 100
"""
        },
    ),
    Peer(
        "boxmot",
        "boxmot==25.0.0",
        {
            "evaluation, Python": """
from boxmot.reid.training.evaluator import compute_distance_matrix, evaluate_ranking
result = evaluate_ranking(compute_distance_matrix(query, gallery), *persons, *cameras)[1]
""",
            "re-ranking": """
from boxmot.reid.training.evaluator import re_ranking
result = re_ranking(query, gallery)
""",
        },
    ),
)
OURS = {
    "evaluation": """
from reidlib.ranking import Embeddings, evaluate
sides = (Embeddings(*side) for side in zip((query, gallery), persons, cameras))
result = evaluate(*sides).mean_average_precision
""",
    "re-ranking": """
from reidlib.reranking import k_reciprocal
result = k_reciprocal(query, gallery).numpy()
""",
}
# Imports are not timed: the program's import lines run once before.
_PROGRAM = """
import sys, time, json
from pathlib import Path
import numpy as np
def memory(which):
    return int(Path("/proc/self/status").read_text().split(which + ":")[1].split()[0]) / 1024
folder, clone, program = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sys.path.insert(0, str(clone))
arrays = np.load(folder / "features.npz")
query, gallery = arrays["query"], arrays["gallery"]
persons = [arrays["query_persons"], arrays["gallery_persons"]]
cameras = [arrays["query_cameras"], arrays["gallery_cameras"]]
lines = program.strip().splitlines()
for line in lines:
    if line.startswith(("import ", "from ", "sys.path")):
        exec(line)
try:
    import torch
    torch.ones(8, 8) @ torch.ones(8, 8)
except ImportError:
    pass
before, begin = memory("VmRSS"), time.perf_counter()
exec(program)
seconds = time.perf_counter() - begin
np.save(folder / "result.npy", result)
print(json.dumps({"seconds": seconds, "MiB": memory("VmHWM") - before}))
"""


def run(python: Path, words: list, environment: dict | None = None) -> str:
    """Run a Python; RuntimeError with the last line that it wrote if it fails."""
    process = subprocess.run([python, *map(str, words)], env=environment, capture_output=True, text=True)
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
        raise RuntimeError(lines[-1])
    return process.stdout


def install(peer: Peer, folder: Path, sources: dict[str, Path]) -> tuple[Path, Path]:
    """Make a peer's environment, once; return its Python and its clone."""
    place = folder / peer.name
    python, clone = place / "bin" / "python", place / "clone"
    if not (place / "installed").is_file():
        venv.create(place, with_pip=True, clear=True)
        own = Path(run(python, ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip())
        (own / "below.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        if peer.packages:
            run(python, ["-m", "pip", "install", "--quiet", *peer.packages.split()])
        if peer.repository:
            source = sources.get(peer.name, peer.repository)
            subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"{source}", clone], check=True)
        if peer.compile:
            subprocess.run(
                [python, "setup.py", "build_ext", "--inplace"],
                cwd=clone / peer.compile,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        (place / "installed").touch()
    return python, clone


def version(peer: Peer, python: Path, clone: Path) -> str:
    """A package's version, or a clone's commit and its date."""
    if peer.repository:
        words = ["git", "-C", str(clone), "log", "-1", "--format=%h %as"]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    package = peer.packages.split("==")[0]
    return run(python, ["-c", f"import importlib.metadata as m; print(m.version({package!r}))"]).strip()


def write_features(folder: Path, queries: int, gallery: int) -> None:
    """Write unit features of both sides."""
    folder.mkdir(parents=True, exist_ok=True)
    sides = {
        "query": random_embeddings(queries, LENGTH),
        "gallery": random_embeddings(gallery, LENGTH, seed=1),
    }
    arrays = {name: side.features for name, side in sides.items()}
    arrays |= {f"{name}_persons": side.person_ids for name, side in sides.items()}
    arrays |= {f"{name}_cameras": side.camera_ids for name, side in sides.items()}
    np.savez(folder / "features.npz", **arrays)


def score(result: np.ndarray, folder: Path) -> float:
    """The mAP in per cent that a program computed, or this suite's of its distances."""
    if result.ndim == 0:
        return 100 * float(result)
    arrays = np.load(folder / "features.npz")
    query, gallery = (
        Embeddings(arrays[side], arrays[f"{side}_persons"], arrays[f"{side}_cameras"])
        for side in ("query", "gallery")
    )
    return (
        100
        * evaluate_distances(
            torch.from_numpy(result.astype(np.float32)), query, gallery
        ).mean_average_precision
    )


def measure(python: Path, clone: Path, folder: Path, program: str) -> dict:
    """Run a program once, alone."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threads, str(THREADS))
    output = run(python, ["-c", _PROGRAM, folder, clone, program], environment)
    measured = json.loads(output.splitlines()[-1])
    return measured | {"mAP": score(np.load(folder / "result.npy"), folder)}


def compare(peer: Peer, what: str, python: Path, clone: Path, folder: Path, repetitions: int) -> dict:
    """Measure a peer's program and this suite's in turn."""
    task, ours, theirs = what.partition(",")[0], [], []
    for _ in range(repetitions):
        ours.append(measure(Path(sys.executable), clone, folder / task, OURS[task]))
        theirs.append(measure(python, clone, folder / task, peer.programs[what]))
    row: dict[str, float] = {"turns": repetitions}
    for name in ("seconds", "MiB", "mAP"):
        pairs = [(their[name], our[name]) for their, our in zip(theirs, ours, strict=True)]
        row |= {name: statistics.median(their for their, _ in pairs)}
        row |= {f"reidlib's {name}": statistics.median(our for _, our in pairs)}
        if name != "mAP":
            row |= {f"times the {name}": statistics.median(their / our for their, our in pairs)}
    return row


def keep(row: dict, csv: Path) -> None:
    """Print a row, and write it in place of an earlier one of the same project and program."""
    print(json.dumps(row), flush=True)
    table, keys = pd.DataFrame([row]), ["project", "what"]
    if csv.is_file():
        table = pd.concat([pd.read_csv(csv), table]).drop_duplicates(keys, keep="last")
    order = [(peer.name, what) for peer in PEERS for what in peer.programs]
    place = [order.index(key) for key in zip(table["project"], table["what"], strict=True)]
    table.iloc[np.argsort(place)].to_csv(csv, index=False, float_format="%.4g")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=[peer.name for peer in PEERS])
    parser.add_argument(
        "--what", nargs="+", choices=sorted({what for peer in PEERS for what in peer.programs})
    )
    parser.add_argument("--source", nargs="+", default=[], metavar="NAME=PATH")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--divide", type=int, default=1, help="divide all sizes, for a trial")
    parser.add_argument("--csv", type=Path, default=CSV)
    arguments = parser.parse_args()
    sources = {name: Path(path) for name, _, path in (text.partition("=") for text in arguments.source)}
    folder, sizes = arguments.folder.resolve(), {}
    for task, share in (("evaluation", 1), ("re-ranking", SHARE)):
        sizes[task] = QUERIES // share // arguments.divide, GALLERY // share // arguments.divide
        write_features(folder / task, *sizes[task])
    machine = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    machine |= {"Python": platform.python_version(), "machine": f"{THREADS} threads, {platform.machine()}"}
    for peer in PEERS:
        if arguments.only and peer.name not in arguments.only:
            continue
        for what in peer.programs:
            if arguments.what and what not in arguments.what:
                continue
            queries, gallery = sizes[what.partition(",")[0]]
            row = {"project": peer.name, "version": "", "what": what, "queries": queries, "gallery": gallery}
            try:
                python, clone = install(peer, folder, sources)
                row["version"] = version(peer, python, clone)
                row |= compare(peer, what, python, clone, folder, arguments.repetitions)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                row["fails"] = " ".join(str(error).split())
            keep(row | machine, arguments.csv)


if __name__ == "__main__":
    main()
