"""What a search writes and says: ranked lists, contact sheet, threshold, and a few sentences."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from reidlib.data.images import decode
from reidlib.data.rules import JUNK
from reidlib.errors import counted
from reidlib.files import write_json, write_whole
from reidlib.ranking.metrics import Embeddings
from reidlib.search.features import FeatureSet
from reidlib.search.verification import UNKNOWN_CAMERA, Calibration

OUTPUTS = ("ranked.csv", "contact_sheet.jpg", "distances.png", "threshold.json")
# Images of a row of the sheet, and rows of a sheet: a JPEG has at most 65,535 lines.
SHEET_WIDE, SHEET_ROWS = 20, 200
_COLUMNS = (
    "query", "rank", "image", "distance", "within_threshold",
    "query_person", "query_camera", "person", "camera", "match",
)  # fmt: skip
_WORDS = {True: "yes", False: "no", None: ""}
# Fewer pairs of people than this are no sample of people, however many their images are.
_FEW_PERSON_PAIRS = 10
_NOTE = (
    "The threshold holds for the people and cameras that it was measured on; other cameras, other light "
    "or another run need one of their own."
)


class Nearest(NamedTuple):
    """The nearest gallery images of each query, both fields (Q, places)."""

    gallery_indices: np.ndarray  # int64, −1 where the list ended
    distances: np.ndarray  # float64, Euclidean, NaN where the list ended


@dataclass(frozen=True, eq=False)
class SearchRanking:
    """Queries, the images that were searched, and what was found.

    queries, images: the features of ``query`` and ``gallery`` with persons and cameras as numbers that mean
        the same in both; unknown persons are junk. calibration: None where there is no threshold.
    """

    query: FeatureSet
    gallery: FeatureSet
    queries: Embeddings
    images: Embeddings
    nearest: Nearest
    calibration: Calibration | None

    def ranked_list(self, row: int) -> Iterator[tuple[int, float, bool | None, bool | None]]:
        """A query's list: gallery index, distance, is it the query's person, is it within the threshold.

        None is unknown, or no threshold.
        """
        person = self.queries.person_ids[row]
        for index, distance in zip(
            self.nearest.gallery_indices[row].tolist(), self.nearest.distances[row].tolist(), strict=True
        ):
            if index < 0:
                return
            found = self.images.person_ids[index]
            match = None if JUNK in (person, found) else bool(person == found)
            within = None if self.calibration is None else distance <= self.calibration.threshold.distance
            yield index, distance, match, within

    def count_other_images(self) -> tuple[float, bool]:
        """How many images of other people there are for a query, on average, and is that an upper bound?

        It is where some person is unknown: whoever is not known to be the query's person counts.
        """
        asked, there = self.queries.person_ids, self.images.person_ids
        own = np.bincount(there + 1, minlength=asked.max() + 2)
        own[JUNK + 1] = 0
        return len(there) - float(own[asked + 1].mean()), bool(JUNK in asked or JUNK in there)


def draw_contact_sheet(searched: SearchRanking, count: int) -> tuple[Image.Image | None, str]:
    """The contact sheet of the first ``count`` queries; where images are missing none, and why."""
    if not count:
        return None, ""
    from reidlib.search.figures import RankedImage, SheetRow, contact_sheet

    rows, missing = [], []

    def picture(one: FeatureSet, index: int) -> np.ndarray | None:
        image = None if one.root is None else decode(one.root / one.names[index])
        if isinstance(image, np.ndarray):
            return image
        missing.append(one.names[index] if one.root is None else one.root / one.names[index])
        return None

    query, gallery = searched.query, searched.gallery
    for row in range(min(count, len(query))):
        listed = list(searched.ranked_list(row))[:SHEET_WIDE]
        found = [
            RankedImage(picture(gallery, index), distance, match, within)
            for index, distance, match, within in listed
        ]
        rows.append(SheetRow(picture(query, row), query.names[row], found))
    if missing:
        why = f"no contact sheet: it lacks {counted(len(missing), 'images')}, such as {missing[0]}"
        return None, f"{why}; search with the images instead of their features"
    return contact_sheet(rows, lines=_sheet_lines(searched, len(rows))), ""


def write_search(searched: SearchRanking, out: Path, sheet: Image.Image | None) -> tuple[Path, ...]:
    """Write what a search found to a folder, each file whole; what an earlier one left there is replaced.

    Raises InputError when the disk is full or the folder cannot be written.
    """
    calibration = searched.calibration
    for name in OUTPUTS:
        (out / name).unlink(missing_ok=True)  # an earlier threshold would speak of other lists
    if sheet is not None:
        write_whole(out / "contact_sheet.jpg", lambda path: sheet.save(path, "JPEG", quality=90))
    if calibration is not None:
        _write_figure(out / "distances.png", calibration)
        write_json(out / "threshold.json", _threshold_content(calibration, searched))
    write_whole(out / "ranked.csv", lambda path: _write_lists(path, searched))
    return tuple(out / name for name in OUTPUTS if (out / name).exists())


def describe_search(searched: SearchRanking, top: int) -> list[str]:
    """What was searched and found, in a few sentences, one a line."""
    query, gallery = searched.query, searched.gallery
    sizes = f"{counted(len(query), 'query images')}, {counted(len(gallery), 'images')} to search"
    said = [f"{sizes}, run {query.information['run']}"]
    lengths = (searched.nearest.gallery_indices >= 0).sum(1)
    if lengths.min() < top:
        shortest = counted(lengths.min(), "images")
        said.append(f"lists end after {shortest}: there are no more, and none finds itself")
    first = [match for row in range(len(query)) for _, _, match, _ in list(searched.ranked_list(row))[:1]]
    if known := [match for match in first if match is not None]:
        sides = searched.queries, searched.images
        cameras_known = all((side.camera_ids != UNKNOWN_CAMERA).any() for side in sides)
        said.append(
            f"nearest image: the query's person for {sum(known):,} of {counted(len(known), 'query images')} "
            "where both persons are known" + " (images of the same camera included)" * cameras_known
        )
    return said + _threshold_described(searched)


def _sheet_lines(searched: SearchRanking, shown: int) -> list[str]:
    total = len(searched.query)
    if total == 1:
        lines = ["The one query image"]
    else:
        first = "The first" if shown == 1 else f"The first {shown:,}"
        part = f"All {total:,}" if shown == total else f"{first} of {total:,}"
        lines = [f"{part} query images, in the order of their names and not chosen by how well they went"]
    lines.append("Nearest image first; the number below an image is its distance from the query.")
    if all((side.person_ids != JUNK).any() for side in (searched.queries, searched.images)):
        lines.append("✓ match: the query's person.  ✗ other: somebody else.")
    if searched.calibration is not None:
        from reidlib.search.figures import VERDICTS

        threshold = searched.calibration.threshold
        missed = 100 * (1 - threshold.true_match_rate)
        lines.append(
            f"{VERDICTS[True]}: at most {threshold.distance:.3f} away, so taken for the same person. "
            f"{VERDICTS[False]}: farther; {missed:.1f} % of one person's pairs are, too."
        )
    return lines


def _write_lists(path: Path, searched: SearchRanking) -> None:
    query, gallery = searched.query, searched.gallery
    # A file's name may hold bytes that are no UTF-8; they come out as they went in.
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        table = csv.writer(stream)
        table.writerow(_COLUMNS)
        for row, name in enumerate(query.names):
            asked = query.persons[row], query.cameras[row]
            for rank, (index, distance, match, within) in enumerate(searched.list_of(row), 1):
                found = gallery.persons[index], gallery.cameras[index]
                place = name, rank, gallery.names[index], f"{distance:.6f}"
                table.writerow((*place, _WORDS[within], *asked, *found, _WORDS[match]))


def _write_figure(path: Path, calibration: Calibration) -> None:
    import matplotlib.pyplot as plt

    from reidlib.search.figures import distance_figure
    from reidlib.visual import set_style

    with plt.rc_context():
        set_style()
        figure = distance_figure(calibration.histogram, calibration.threshold)
        write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=150))
        plt.close(figure)


def _threshold_content(calibration: Calibration, searched: SearchRanking) -> dict:
    threshold, people = calibration.threshold, calibration.false_matches
    others, upper_bound = searched.images_of_others()
    return {
        "threshold": threshold.distance,
        "distance": "Euclidean",
        "false_match_rate": {"asked": threshold.asked_rate, "reached": threshold.false_match_rate},
        "true_match_rate": threshold.true_match_rate,
        "pairs": {"same_person": threshold.num_same, "different_people": threshold.num_different},
        "false_matches": threshold.num_false_matches,
        "false_matches_from": {
            "persons": people.num_persons,
            "pairs_of_persons": people.num_person_pairs,
            "of_pairs_of_persons": people.num_possible_pairs,
        },
        "false_matches_per_query": {
            "images_of_other_people": others,
            "expected": others * threshold.false_match_rate,
            "upper_bound": upper_bound,
        },
        "calibrated_on": {
            "images_from": calibration.where,
            "images": calibration.num_images,
            "persons": calibration.num_persons,
            "cameras": calibration.num_cameras or None,
            "same_person_pairs_within_a_camera": calibration.same_camera,
        },
        "network": searched.query.information["network"],
        "run": searched.query.information["run"],
        "note": _NOTE,
    }


def _threshold_described(searched: SearchRanking) -> list[str]:
    calibration = searched.calibration
    if calibration is None:
        return []
    threshold, people = calibration.threshold, calibration.false_matches
    others, upper_bound = searched.images_of_others()
    expected, at_most = others * threshold.false_match_rate, "at most " if upper_bound else ""
    expected = f"{expected:,.0f}" if expected >= 10 else f"{expected:.2g}"
    cameras = counted(calibration.num_cameras, "cameras") if calibration.num_cameras else "cameras unknown"
    said = [
        f"same person up to distance {threshold.distance:.3f}: that takes {threshold.num_false_matches:,} of "
        f"{counted(threshold.num_different, 'pairs')} of different people for one "
        f"({100 * threshold.false_match_rate:.3g} %, asked {100 * threshold.asked_rate:.3g} %) and finds "
        f"{100 * threshold.true_match_rate:.1f} % of {counted(threshold.num_same, 'pairs')} of one person",
        f"a query meets {at_most}{counted(round(others), 'gallery images')} of other people on average: "
        f"expect {at_most}about {expected} false ones among them",
        f"measured on {calibration.where}: {counted(calibration.num_persons, 'persons')}, "
        f"{counted(calibration.num_images, 'images')}, {cameras}",
        _NOTE,
    ]
    if threshold.num_false_matches:
        rests = people.num_person_pairs < _FEW_PERSON_PAIRS
        said.append(
            f"the false matches are of {people.num_persons:,} persons: the threshold "
            + ("rests on" if rests else "is measured on")
            + f" {people.num_person_pairs:,} of {counted(people.num_possible_pairs, 'pairs')} of people"
            + ("; calibrate on more persons" if rests else "")
        )
    if threshold.num_different * threshold.asked_rate < 3:
        # By the rule of three, none among n pairs leaves up to 3/n possible (95 per cent).
        said.append(
            f"few pairs for this rate: had none matched, up to {300 / threshold.num_different:.2g} % could"
            " be expected elsewhere; calibrate on more persons"
        )
    return said
