"""Every metric equals its authors' public code, run in GNU Octave on made-up features.

``official_distances.csv`` holds what that code gave (Octave 7.3) for the first four queries and six gallery
images of ``made.images``: XQDA.m and MahDist.m, LearnAlgoKISSME.m of github.com/liangzheng06/MARS-evaluation
(commit 3a91bbc); NFST.m of github.com/RSL-NEU/person-reid-benchmark (d09fa9c) with RBF_kernel.m and
kernel_expchi2.m of github.com/lzrobots/NullSpace_ReID (7b29175), the training's ω given for the test;
cameraCorrelation.m, CRAFT.m and MFA_class.m of github.com/yingcong/CRAFT (4b976b7). MATLAB's functions that
Octave lacks (pca, normc, cholcov) and SOPD.cpp were replaced by their definitions.
"""

import csv
from pathlib import Path

import made_persons as made
import numpy as np
import pytest

from reidlib.metric_learning import CRAFT, KISSME, XQDA, NullSpace

with (Path(__file__).parent / "official_distances.csv").open(encoding="utf-8", newline="") as stream:
    ROWS = list(csv.DictReader(stream))


def official(case: str) -> np.ndarray:
    distances = [float(row["distance"]) for row in ROWS if row["case"] == case]
    return np.array(distances).reshape(4, 6)


def both(length):
    """Training images, then queries and gallery (features and cameras) of other persons."""
    test, _, cameras = made.images(made.TEST_PERSONS, length, first=51)
    query, gallery = cameras == 1, cameras == 2
    sides = test[query][:4], test[gallery], cameras[query][:4], cameras[gallery]
    return made.images(made.PERSONS, length), sides


CASES = [
    *((f"xqda-{length}", XQDA(), length) for length in (30, 90)),
    *((f"xqda-{length}-five", XQDA(dimensions=5), length) for length in (30, 90)),
    *((f"rbf-{length}", NullSpace(), length) for length in (30, 90)),
    *((f"chi-square-{length}", NullSpace(kernel="chi-square"), length) for length in (30, 90)),
    *((f"linear-{length}", NullSpace(kernel="linear"), length) for length in (30, 90)),
    *(
        (
            f"craft-{kernel}-{ridge:g}",
            CRAFT(kernel=kernel, scatter_ridge=ridge, dimensions=20, neighbours=(1, 5)),
            90,
        )
        for kernel in ("bhattacharyya", "linear")
        for ridge in (1e-8, 1e-3)
    ),
]


@pytest.mark.parametrize("case, metric, length", CASES, ids=[case for case, *_ in CASES])
def test_distances_are_those_of_the_authors_code(case, metric, length):
    training, sides = both(length)
    np.testing.assert_allclose(metric.fit(*training).distances(*sides), official(case), rtol=1e-6)


@pytest.mark.parametrize("semidefinite", [True, False])
def test_kissme_is_that_of_the_authors_code(semidefinite):
    (features, *_), sides = both(8)
    first, second = np.arange(0, 48, 2), np.arange(1, 48, 2)
    metric = KISSME(semidefinite=semidefinite)
    metric.fit_pairs(features, (first, second), (first, np.roll(second, -1)))
    distances = metric.distances(*sides)
    np.testing.assert_allclose(distances, official(f"kissme-{int(semidefinite)}"), rtol=1e-6)
