"""Output of a search: ranked lists, contact sheet, threshold, and a summary in a few sentences."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from reidlib.data.decoding import thumbnail
from reidlib.data.rules import JUNK
from reidlib.errors import count_noun
from reidlib.files import load_matplotlib, write_atomically, write_json
from reidlib.ranking.metrics import Embeddings
from reidlib.ranking.nearest import Nearest
from reidlib.search.features import FeatureSet
from reidlib.search.verification import UNKNOWN_CAMERA, Calibration, Doubts
from reidlib.text import KEEP_BYTES

OUTPUTS = ("ranked.csv", "contact_sheet.jpg", "distances.png", "threshold.json")
# Images in a row of the sheet, and rows of a sheet: a JPEG has at most 65,535 lines of pixels.
SHEET_WIDE, SHEET_ROWS = 20, 200
_COLUMNS = (
    "query", "rank", "image", "distance", "within_threshold",
    "query_person", "query_camera", "person", "camera", "match",
)  # fmt: skip
_WORDS = {True: "yes", False: "no", None: ""}
# Fewer pairs of people than this are too small a sample of people, however many images they have.
_FEW_PERSON_PAIRS = 10
_NOTE = (
    "The threshold is valid for the people and cameras that it was measured on; measure it again for other "
    "cameras, other light or another run."
)


@dataclass(frozen=True, eq=False)
class SearchRanking:
    """Query and gallery sets with the ranked lists.

    Attributes:
        query: Features and names of the query images.
        gallery: Features and names of the gallery images.
        queries: Features of the query images, with persons and cameras as numbers that mean the same in both
            sets. Unknown persons are junk.
        images: The same of the gallery images.
        nearest: The ranked lists.
        calibration: The threshold; None if there is none.
        doubts: Which persons may be one; None if all names are certain.
    """

    query: FeatureSet
    gallery: FeatureSet
    queries: Embeddings
    images: Embeddings
    nearest: Nearest
    calibration: Calibration | None
    doubts: Doubts | None = None

    def ranked_images(self, row: int) -> Iterator[tuple[int, float, bool | None, bool | None]]:
        """Yield a query's ranked images.

        Args:
            row: Index of the query.

        Yields:
            Gallery index; distance; whether it is the query's person, None if unknown; whether the distance
            is within the threshold, None if there is no threshold.
        """
        person = self.queries.person_ids[row]
        for index, distance in zip(
            self.nearest.gallery_indices[row].tolist(), self.nearest.distances[row].tolist(), strict=True
        ):
            if index < 0:
                return
            other = self.images.person_ids[index]
            match = None if JUNK in (person, other) else bool(person == other)
            if match is False and self.doubts and self.doubts.persons[person] == self.doubts.persons[other]:
                match = None
            within = None if self.calibration is None else distance <= self.calibration.threshold.distance
            yield index, distance, match, within

    def count_other_images(self) -> tuple[float, bool]:
        """Count the gallery images of other people that a query is compared with.

        Returns:
            The mean number over the queries, and whether it is an upper bound. It is one if a person is
            unknown or in doubt: an image counts unless it is known to show the query's person.
        """
        query_ids, gallery_ids = self.queries.person_ids, self.images.person_ids
        images_of_person = np.bincount(gallery_ids + 1, minlength=query_ids.max() + 2)
        images_of_person[JUNK + 1] = 0
        is_bound = bool(JUNK in query_ids or JUNK in gallery_ids or self.doubts)
        return len(gallery_ids) - float(images_of_person[query_ids + 1].mean()), is_bound


def draw_sheet(ranking: SearchRanking, count: int) -> tuple[Image.Image | None, str]:
    """Draw the contact sheet of the first queries.

    Args:
        ranking: The ranked lists.
        count: Number of queries; 0 for no sheet.

    Returns:
        The sheet and "". If images are missing, None and a sentence that says so.
    """
    if not count:
        return None, ""
    load_matplotlib()
    from reidlib.search.figures import SPACE, RankedImage, SheetRow, contact_sheet

    rows, missing = [], []
    cached = lru_cache(maxsize=None)(thumbnail)  # many queries have the same images in their lists

    def load(images: FeatureSet, index: int) -> np.ndarray:
        image = None if images.root is None else cached(images.root / images.names[index], *SPACE)
        if isinstance(image, np.ndarray):
            return image
        missing.append(images.names[index] if images.root is None else images.root / images.names[index])
        return np.zeros((1, 1, 3), np.uint8)  # the sheet is not drawn then

    query, gallery = ranking.query, ranking.gallery
    for row in range(min(count, len(query))):
        results = [
            RankedImage(load(gallery, index), distance, match, within)
            for index, distance, match, within in list(ranking.ranked_images(row))[:SHEET_WIDE]
        ]
        rows.append(SheetRow(load(query, row), query.names[row], results))
    if missing:
        reason = f"no contact sheet: it lacks {count_noun(len(missing), 'images')}, such as {missing[0]}"
        return None, f"{reason}; search with the images instead of their features"
    return contact_sheet(rows, lines=_sheet_lines(ranking, len(rows))), ""


def write_search(ranking: SearchRanking, out: Path, sheet: Image.Image | None) -> tuple[Path, ...]:
    """Write the files of a search, each completely or not at all; those of an earlier search are removed.

    Args:
        ranking: The ranked lists and the threshold.
        out: Output folder.
        sheet: The contact sheet; None for no sheet.

    Returns:
        Paths of the files.

    Raises:
        InputError: If the disk is full, or the folder cannot be written.
    """
    calibration = ranking.calibration
    for name in OUTPUTS:
        (out / name).unlink(missing_ok=True)  # an earlier threshold would not belong to the new lists
    if sheet is not None:
        write_atomically(out / "contact_sheet.jpg", lambda path: sheet.save(path, "JPEG", quality=90))
    if calibration is not None:
        _write_figure(out / "distances.png", calibration)
        write_json(out / "threshold.json", _threshold_content(calibration, ranking))
    write_atomically(out / "ranked.csv", lambda path: _write_lists(path, ranking))
    return tuple(out / name for name in OUTPUTS if (out / name).exists())


def describe_search(ranking: SearchRanking, top: int) -> list[str]:
    """Summarise a search in a few sentences.

    Args:
        ranking: The ranked lists and the threshold.
        top: Requested length of a ranked list.

    Returns:
        The sentences, one per line of output.
    """
    query, gallery = ranking.query, ranking.gallery
    sizes = f"{count_noun(len(query), 'query images')}, {count_noun(len(gallery), 'gallery images')}"
    sentences = [f"{sizes}, run {query.information['run']}"]
    lengths = (ranking.nearest.gallery_indices >= 0).sum(1)
    if lengths.min() < top:
        shortest = count_noun(int(lengths.min()), "images")
        sentences.append(
            f"ranked lists end after {shortest}: the gallery has no more, and no image is listed for itself"
        )
    first = [match for row in range(len(query)) for _, _, match, _ in list(ranking.ranked_images(row))[:1]]
    if matches := [match for match in first if match is not None]:
        sides = ranking.queries, ranking.images
        cameras_known = all((side.camera_ids != UNKNOWN_CAMERA).any() for side in sides)
        sentences.append(
            f"the nearest image shows the query's person for {sum(matches):,} of "
            f"{count_noun(len(matches), 'query images')} for which both persons are known"
            + " (images of the same camera included)"
            * cameras_known
        )
    return sentences + _describe_threshold(ranking)


def _sheet_lines(ranking: SearchRanking, num_rows: int) -> list[str]:
    total = len(ranking.query)
    if total == 1:
        lines = ["The query image"]
    else:
        first = "The first" if num_rows == 1 else f"The first {num_rows:,}"
        part = f"All {total:,}" if num_rows == total else f"{first} of {total:,}"
        lines = [f"{part} query images, in the order of their names and not selected by their results"]
    lines.append("Nearest image first; the number below an image is its distance from the query.")
    if all((side.person_ids != JUNK).any() for side in (ranking.queries, ranking.images)):
        lines.append("✓ match: the query's person.  ✗ other: another person.")
    if ranking.calibration is not None:
        from reidlib.search.figures import VERDICTS

        threshold = ranking.calibration.threshold
        missed = 100 * (1 - threshold.true_match_rate)
        lines.append(
            f"{VERDICTS[True]}: distance at most {threshold.distance:.3f}, accepted as the same person. "
            f"{VERDICTS[False]}: larger distance, as for {missed:.1f} % of the pairs of one person."
        )
    return lines


def _write_lists(path: Path, ranking: SearchRanking) -> None:
    query, gallery = ranking.query, ranking.gallery
    with path.open("w", newline="", encoding="utf-8", errors=KEEP_BYTES) as stream:
        table = csv.writer(stream)
        table.writerow(_COLUMNS)
        for row, name in enumerate(query.names):
            query_cells = query.persons[row], query.cameras[row]
            for rank, (index, distance, match, within) in enumerate(ranking.ranked_images(row), 1):
                gallery_cells = gallery.persons[index], gallery.cameras[index]
                first_cells = name, rank, gallery.names[index], f"{distance:.6f}"
                table.writerow((*first_cells, _WORDS[within], *query_cells, *gallery_cells, _WORDS[match]))


def _write_figure(path: Path, calibration: Calibration) -> None:
    load_matplotlib()
    from matplotlib import rc_context

    from reidlib.search.figures import distance_figure
    from reidlib.visual import set_style

    with rc_context():
        set_style()
        figure = distance_figure(calibration.histogram, calibration.threshold)
        write_atomically(path, lambda partial: figure.savefig(partial, format="png", dpi=150))


def _threshold_content(calibration: Calibration, ranking: SearchRanking) -> dict:
    threshold, people = calibration.threshold, calibration.false_matches
    others, upper_bound = ranking.count_other_images()
    return {
        "threshold": threshold.distance,
        "distance": "Euclidean",
        "false_match_rate": {"asked": threshold.requested_rate, "reached": threshold.false_match_rate},
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
            "images_from": calibration.source,
            "images": calibration.num_images,
            "persons": calibration.num_persons,
            "cameras": calibration.num_cameras or None,
            "same_person_pairs_within_a_camera": calibration.same_camera,
        },
        "network": ranking.query.information["network"],
        "run": ranking.query.information["run"],
        "note": _NOTE,
    }


def _describe_threshold(ranking: SearchRanking) -> list[str]:
    calibration = ranking.calibration
    if calibration is None:
        return []
    threshold, people = calibration.threshold, calibration.false_matches
    others, upper_bound = ranking.count_other_images()
    expected, at_most = others * threshold.false_match_rate, "at most " if upper_bound else ""
    expected = f"{expected:,.0f}" if expected >= 10 else f"{expected:.2g}"
    cameras = count_noun(calibration.num_cameras, "cameras") if calibration.num_cameras else "cameras unknown"
    sentences = [
        f"same person up to distance {threshold.distance:.3f}: this accepts {threshold.num_false_matches:,} "
        f"of {count_noun(threshold.num_different, 'pairs')} of different people "
        f"({100 * threshold.false_match_rate:.3g} %, requested {100 * threshold.requested_rate:.3g} %) and "
        f"{100 * threshold.true_match_rate:.1f} % of {count_noun(threshold.num_same, 'pairs')} of one person",
        f"a query is compared with {at_most}{count_noun(round(others), 'gallery images')} of other people on "
        f"average: expect {at_most}about {expected} false matches",
        f"threshold measured on {calibration.source}: {count_noun(calibration.num_persons, 'persons')}, "
        f"{count_noun(calibration.num_images, 'images')}, {cameras}",
        _NOTE,
    ]
    if threshold.num_false_matches:
        too_few = people.num_person_pairs < _FEW_PERSON_PAIRS
        sentences.append(
            f"the false matches come from {people.num_persons:,} persons, in {people.num_person_pairs:,} of "
            f"{count_noun(people.num_possible_pairs, 'pairs')} of people"
            + ("; these are few, calibrate on more persons" if too_few else "")
        )
    if threshold.num_different * threshold.requested_rate < 3:
        # By the rule of three, zero among n pairs is compatible with a rate of up to 3/n (95 per cent).
        sentences.append(
            "few pairs for this rate: even without a false match, a rate of up to "
            f"{300 / threshold.num_different:.2g} % is possible elsewhere; calibrate on more persons"
        )
    return sentences
