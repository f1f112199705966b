"""CUHK01: four images of each of 971 persons, two from either of two cameras, all in one folder."""

from __future__ import annotations

import re
from pathlib import Path

from reidlib.data.benchmark import Benchmark, Protocol
from reidlib.data.readers.layout import list_images
from reidlib.data.readers.survey import Counts, Survey
from reidlib.data.readers.two_view import Found, Naming, find, partitioned, survey_of, unpaired_error
from reidlib.data.splits import Split
from reidlib.errors import InputError, counted

FOLDER = "campus"
TEST_PERSONS = 486
# The whole set (Li, Zhao, Wang 2012), as torchreid and open-reid count it.
COUNTS: Counts = {FOLDER: {"images": 3_884, "identities": 971, "cameras": 2}}
PROTOCOLS = {"single-shot": Protocol("single", draws=10), "multi-shot": Protocol("multi")}

# `0001001.png`: four digits of the person (from 1), three of the image: 1 and 2 by camera 1, 3 and 4 by 2.
_FORM = "CUHK01's images are named by 4 digits of the person and 001 to 004, as in 0001001.png"
_NAME = re.compile(r"(?!0000)(\d{4})00([1-4])\.[A-Za-z]+")


def cuhk01(
    root: Path, *, trial: int = 0, test_persons: int = TEST_PERSONS, partitions: str = ""
) -> Benchmark:
    """CUHK01 (Li, Zhao, Wang 2012). ``root`` holds ``campus``.

    Query are the camera-1 images of the test persons, gallery those of camera 2; everybody else is for
    training. There is no official partition: of the persons that are there, ``test_persons`` are drawn in
    ten ways (``trial``), the same on every machine; the papers test 486 or 100 of 971. ``partitions`` is a
    file of other ones (see ``reidlib.data.readers.partitions``), its path relative to ``root``.

    Protocols: ``single-shot`` (a random camera-2 image of each person, ten draws) and ``multi-shot`` (one
    entry a person and camera, the mean over pairs of images).

    Raises ``InputError`` for a folder one level too high or too low, names of another form, persons whom
    only one camera shows, and partitions that do not fit.
    """
    images = _find(root).images()
    return partitioned(cuhk01, root, images, PROTOCOLS, trial, test_persons, partitions)


def survey_cuhk01(root: Path, *, test_persons: int = TEST_PERSONS, partitions: str = "") -> Survey:
    """CUHK01's folder against the whole set, and whether every trial keeps the rules."""
    return survey_of(
        _find(root),
        COUNTS,
        lambda trial: cuhk01(root, trial=trial, test_persons=test_persons, partitions=partitions),
    )


def _find(root: Path) -> Found:
    found = find(root, (FOLDER,), "CUHK01", Naming(_FORM, _read))
    beside = FOLDER in found.parts or (root.parent / FOLDER).is_dir()
    if not beside and (names := [name for name in list_images(root) if _read("", name)]):
        mend = f"move them into a folder {FOLDER} in there"
        return Found(
            {},
            [
                InputError(
                    f"CUHK01's images lie in {FOLDER}", f"{counted(len(names), 'images')} in {root}", mend
                )
            ],
        )
    if FOLDER in found.parts:
        by_camera = [_of_camera(found.parts[FOLDER], camera) for camera in (1, 2)]
        if error := unpaired_error(*by_camera, "both cameras (001 or 002, and 003 or 004)"):
            found.problems.append(error)
    return found


def _read(folder: str, name: str) -> tuple[int, int] | None:
    match = _NAME.fullmatch(name)
    return match and (int(match[1]), (int(match[2]) + 1) // 2)


def _of_camera(images: Split, camera: int) -> Split:
    return images.select(images.camera_ids == camera)
