"""What a benchmark looks like in numbers: tables and checks for the inspection notebook."""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from reidlib.data.benchmark import Benchmark
from reidlib.data.splits import Split


def counts_by_identity(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Images and cameras of each identity of a split, junk and distractors left out: two int64 (K,)."""
    known = split.person_ids > 0
    persons, cameras = split.person_ids[known], split.camera_ids[known]
    images_k = np.unique(persons, return_counts=True)[1]
    sightings = np.unique(np.stack([persons, cameras]), axis=1)
    return images_k, np.unique(sightings[0], return_counts=True)[1]


def counts_by_camera(benchmark: Benchmark) -> tuple[np.ndarray, list[int]]:
    """Images of each split and camera, int64 (3, cameras) in the order train, query, gallery; the cameras."""
    splits = (benchmark.train, benchmark.query, benchmark.gallery)
    cameras = np.unique(np.concatenate([split.camera_ids for split in splits])).tolist()
    counts = [[np.count_nonzero(split.camera_ids == camera) for camera in cameras] for split in splits]
    return np.array(counts), cameras


def image_sizes(split: Split, *, most: int = 2000, seed: int = 0) -> np.ndarray:
    """Height and width in pixels of a split's files, int64 (N, 2); of ``most`` drawn ones if there are more.

    Only the headers are read.
    """
    chosen = np.random.default_rng(seed).permutation(len(split))[:most]
    sizes = []
    for index in np.sort(chosen):
        with Image.open(split.paths[index]) as image:
            sizes.append((image.height, image.width))
    return np.array(sizes)


def shared_images(benchmark: Benchmark) -> list[tuple[Path, ...]]:
    """Groups of files with the very same bytes, of which one is a training and another a test image.

    The query's own copy in the gallery, which some sets have, is no leak and not listed.
    """
    groups: dict[bytes, list[tuple[bool, Path]]] = defaultdict(list)
    for split, training in ((benchmark.train, True), (benchmark.query, False), (benchmark.gallery, False)):
        for path in split.paths:
            groups[hashlib.sha256(path.read_bytes()).digest()].append((training, path))
    return [
        tuple(path for _, path in group)
        for group in groups.values()
        if {training for training, _ in group} == {True, False}
    ]


def rendered_truth(root: Path) -> dict[str, np.ndarray]:
    """The columns of a rendered benchmark's ``factors.csv``: text as it stands, numbers as float64.

    Angles are in radians, lengths in metres; one row for each image.
    """
    with (root / "factors.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        try:
            columns[name] = np.array(values, dtype=float)
        except ValueError:
            columns[name] = np.array(values)
    return columns
