"""Counts of ``check`` against hand-counted miniatures."""

import numpy as np
import pytest
from PIL import Image

from reidlib.data import Benchmark, Split
from reidlib.data.check import (
    counts_by_camera,
    counts_by_identity,
    image_sizes,
    rendered_truth,
    shared_images,
)


@pytest.fixture
def benchmark(tmp_path):
    def split(folder, entries):
        (tmp_path / folder).mkdir()
        paths = []
        for number, (_, camera, value) in enumerate(entries):
            path = tmp_path / folder / f"{number}.png"
            Image.new("RGB", (4 + camera, 8), (value, 0, 0)).save(path)
            paths.append(path)
        return Split(paths, [e[0] for e in entries], [e[1] for e in entries])

    return Benchmark(
        "miniature",
        tmp_path,
        split("train", [(1, 1, 1), (1, 1, 2), (1, 2, 3), (2, 2, 4)]),
        split("query", [(3, 1, 5)]),
        split("gallery", [(3, 2, 6), (-1, 2, 4), (0, 1, 8)]),
    )


def test_images_and_cameras_of_each_identity(benchmark):
    images, cameras = counts_by_identity(benchmark.train)
    assert images.tolist() == [3, 1]
    assert cameras.tolist() == [2, 1]
    assert counts_by_identity(benchmark.gallery)[0].tolist() == [1]  # junk and distractor are nobody


def test_images_of_each_split_and_camera(benchmark):
    counts, cameras = counts_by_camera(benchmark)
    assert cameras == [1, 2]
    assert counts.tolist() == [[2, 2], [1, 0], [1, 2]]


def test_sizes_are_height_and_width(benchmark):
    assert image_sizes(benchmark.train).tolist() == [[8, 5], [8, 5], [8, 6], [8, 6]]
    assert image_sizes(benchmark.train, most=2).shape == (2, 2)


def test_an_image_in_training_and_test_is_found(benchmark):
    (group,) = shared_images(benchmark)
    assert {path.parent.name for path in group} == {"train", "gallery"}


def test_truth_of_a_rendering(tmp_path):
    (tmp_path / "factors.csv").write_text("file,yaw\na.jpg,0.5\nb.jpg,-1\n")
    truth = rendered_truth(tmp_path)
    np.testing.assert_array_equal(truth["yaw"], [0.5, -1])
    assert truth["file"].tolist() == ["a.jpg", "b.jpg"]
