"""VIPeR: one image of each of 632 persons in either of two folders, one a camera."""

from __future__ import annotations

import re
from pathlib import Path

from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.data.readers.survey import Counts, Survey
from reidlib.data.readers.two_view import Found, Naming, find, partitioned, survey_of, unpaired_error

CAMERAS = {"cam_a": 1, "cam_b": 2}
TEST_PERSONS = 316
# The whole set (Gray, Brennan, Tao 2007).
COUNTS: Counts = {folder: {"images": 632, "identities": 632, "cameras": 1} for folder in CAMERAS}
PROTOCOLS = {"single-shot": Protocol("single")}

_FORM = "VIPeR's images are named by 3 digits of the person and the angle, as in 000_45.bmp"
# Some copies name the camera once more, as in `000_45_a.bmp`.
_NAME = re.compile(r"(\d{3})_\d{1,3}(_[ab])?\.[A-Za-z]+")


def viper(root: Path, *, trial: int = 0, test_persons: int = TEST_PERSONS, partitions: str = "") -> Benchmark:
    """VIPeR (Gray, Brennan, Tao 2007). ``root`` holds ``cam_a`` and ``cam_b``.

    A person's id is the number in the name plus one (the numbers begin with 0 and have gaps). Query are the
    images of ``cam_a`` (camera 1) that show test persons, gallery those of ``cam_b`` (camera 2); everybody
    else is for training. There is no official partition: of the persons that are there, ``test_persons``
    are drawn in ten ways (``trial``), the same on every machine; the papers test 316 of 632. ``partitions``
    is a file of other ones (see ``reidlib.data.readers.partitions``), its path relative to ``root``.

    Protocol: ``single-shot``. Raises ``InputError`` for a folder one level too high or too low, names of
    another form, persons whom only one camera shows, and partitions that do not fit.
    """
    images = _find(root).images()
    return partitioned(viper, root, images, PROTOCOLS, trial, test_persons, partitions)


def survey_viper(root: Path, *, test_persons: int = TEST_PERSONS, partitions: str = "") -> Survey:
    """VIPeR's folders against the whole set, and whether every trial keeps the rules."""
    return survey_of(
        _find(root),
        COUNTS,
        lambda trial: viper(root, trial=trial, test_persons=test_persons, partitions=partitions),
    )


def _find(root: Path) -> Found:
    found = find(root, tuple(CAMERAS), "VIPeR", Naming(_FORM, _read))
    if len(found.parts) == 2 and (error := unpaired_error(*found.parts.values(), "cam_a and in cam_b")):
        found.problems.append(error)
    return found


def _read(folder: str, name: str) -> tuple[int, int] | None:
    match = _NAME.fullmatch(name)
    return match and (int(match[1]) + 1, CAMERAS[folder])
