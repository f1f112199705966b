"""The ranked gallery of a query, with the contribution of each part to each distance.

This module creates no widgets and no figures. A collection of features, a query and options give a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from reidlib.errors import InputError, check_choice
from reidlib.experiments.rows import LEARNT_METRICS
from reidlib.models.parts import FeaturePart
from reidlib.ranking.distances import squared_distances_to_all
from reidlib.ranking.metrics import Embeddings, Scores, Status, evaluate, evaluate_distances, statuses
from reidlib.reranking import KReciprocal, k_reciprocal
from reidlib.visual.browser.collection import BenchmarkFeatures

METRICS = {"euclidean": "Euclidean", "cosine": "cosine"}
METRICS |= {name: f"{name} (learnt)" for name in LEARNT_METRICS}
ORDERS = {
    "index": "as in the benchmark",
    "worst": "lowest average precision first",
    "median": "closest to the median average precision first",
    "best": "highest average precision first",
    "random": "random (same every time)",
}


@dataclass(frozen=True)
class Options:
    """How a gallery is ranked, and which images of the list are shown.

    Args:
        feature: Name of a branch.
        metric: One of ``METRICS``.
        reranked: Whether the list is re-ranked by k-reciprocal neighbours.
        top: Number of images.
        cameras: Show only gallery images of these cameras; empty for all.
        persons: Show only gallery images of these persons; empty for all.
        show_ignored: Whether to show junk images and images of the query's person from its own camera. They
            have no rank.

    Raises:
        InputError: If the metric is unknown or ``top`` is less than 1.
    """

    feature: str = "full"
    metric: str = "euclidean"
    reranked: bool = False
    top: int = 10
    cameras: tuple[int, ...] = ()
    persons: tuple[int, ...] = ()
    show_ignored: bool = False

    def __post_init__(self):
        check_choice(f"the metric is one of {', '.join(METRICS)}", self.metric, METRICS)
        if self.top < 1:
            raise InputError(
                "a ranked list shows at least one image", f"top={self.top}", "use a larger number"
            )

    @property
    def filters(self) -> str:
        """A description of the filters of the list; empty if all images with a rank are shown."""
        filters = [
            f"{name} {', '.join(map(str, ids))}"
            for name, ids in (("camera", self.cameras), ("person", self.persons))
            if ids
        ]
        return "; ".join([*filters, *(["with ignored images"] if self.show_ignored else [])])

    @property
    def name(self) -> str:
        """The distance in a word or two, such as "Euclidean" or "re-ranked"."""
        return "re-ranked" if self.reranked else METRICS[self.metric]

    @property
    def description(self) -> str:
        """A description of the ranking, such as "full feature, Euclidean distance"."""
        words = f"{self.feature} feature, {METRICS[self.metric]} distance"
        return words + (", re-ranked by k-reciprocal neighbours" if self.reranked else "")


class Entry(NamedTuple):
    """A gallery image of a ranked list.

    Attributes:
        gallery_index: Index of the image in the gallery.
        rank: Rank in the whole unfiltered list, from 1; None for an ignored image.
        distance: Euclidean distance or 1 − cosine; by a learnt metric the squared distance, which may be
            negative; after re-ranking the mixed distance, which has no unit.
        status: Whether it is a match, another person, a distractor or ignored.
        person: Person id.
        camera: Camera id.
        rank_gain: Number of ranks gained by re-ranking, or by a learnt metric against cosine (which is what
            it learns on: features of unit length by L2), negative if lost; else None.
        contributions: Contribution of each part to the squared distance before re-ranking, of shape (P,). A
            learnt metric is no sum over parts, because it weighs pairs of numbers, also of two parts: empty.
    """

    gallery_index: int
    rank: int | None
    distance: float
    status: Status
    person: int
    camera: int
    rank_gain: int | None
    contributions: np.ndarray

    @property
    def person_prefix(self) -> str:
        """The person id as the beginning of a line; empty for junk and distractors."""
        return f"person {self.person}, " if self.person > 0 else ""

    @property
    def rank_suffix(self) -> str:
        """The ranks gained or lost as the end of a line; empty if nothing is compared."""
        return "" if self.rank_gain is None else f" {format_rank_gain(self.rank_gain)}"


class View(NamedTuple):
    """A query and the first images of its ranked list.

    Attributes:
        query_index: Index of the query.
        person: Person id of the query.
        camera: Camera id of the query.
        average_precision: Average precision of the whole list, step rule; NaN without a match.
        num_matches: Number of matches in the gallery.
        first_match_rank: Rank of the first match; 0 without a match.
        entries: The images.
        parts: The P parts of the compared feature.
        num_candidates: Number of gallery images that pass the filters.
        message: A warning in the form of an error message, such as a list without matches; else empty.
        options: The options of the list.
    """

    query_index: int
    person: int
    camera: int
    average_precision: float
    num_matches: int
    first_match_rank: int
    entries: tuple[Entry, ...]
    parts: tuple[FeaturePart, ...]
    num_candidates: int
    message: str
    options: Options


def reranker(collection: BenchmarkFeatures, options: Options) -> KReciprocal:
    """Fit the re-ranking of a collection's queries.

    Junk images take part, because a method without labels cannot recognise them.

    Args:
        collection: The features.
        options: The compared feature and metric; other options have no influence.

    Returns:
        The fitted re-ranking, for ``view``.

    Raises:
        InputError: If the feature does not exist, or the metric cannot be learnt or subtracts in some
            directions.
    """
    return KReciprocal.fit(*_for_reranking(collection, options))


def _for_reranking(collection: BenchmarkFeatures, options: Options) -> tuple[Tensor, Tensor]:
    """Return the features to re-rank, or refuse those whose distances compare a query and an image only."""
    if options.metric in LEARNT_METRICS:
        learnt = collection.learnt_distance(options.feature, options.metric)
        if learnt.offsets.any():
            rule = "re-ranking compares all images with each other, by distances of zero or more"
            value = f"{options.metric}, which subtracts in some directions"
            raise InputError(rule, value, "choose another distance, or leave re-ranking out")
    return collection.compared_features(options.feature, options.metric)


def view_scores(collection: BenchmarkFeatures, options: Options) -> Scores:
    """Compute the scores of all queries for the ranking that the options describe.

    Re-ranking holds the distances of all pairs in memory, 4·Q·G bytes.

    Args:
        collection: The features.
        options: The compared feature and metric, and whether to re-rank; filters have no influence.

    Returns:
        The scores; average precision by the step rule.

    Raises:
        InputError: If the feature does not exist or no query has a match.
    """
    features_of_sides = collection.compared_features(options.feature, options.metric)
    sides = zip((collection.query, collection.gallery), features_of_sides, strict=True)
    query, gallery = (replace(side, features=features) for side, features in sides)
    if not options.reranked:
        return evaluate(query, gallery)
    return evaluate_distances(k_reciprocal(*_for_reranking(collection, options)), query, gallery)


def most_changed(collection: BenchmarkFeatures, before: Options, after: Options) -> list[View]:
    """Return the lists, before and after, of the query that gains most and of the one that loses most.

    Args:
        collection: The features.
        before: A ranking without re-ranking.
        after: Another one.

    Returns:
        Four views; gains are those of average precision (step rule).

    Raises:
        InputError: If the feature does not exist, a metric cannot be learnt, or no query has a match.
    """
    gain_q = np.subtract(*(view_scores(collection, each).average_precision for each in (after, before)))
    queries = int(np.nanargmax(gain_q)), int(np.nanargmin(gain_q))
    return [view(collection, query, each) for query in queries for each in (before, after)]


def view(
    collection: BenchmarkFeatures,
    query_index: int,
    options: Options,
    *,
    reranking: KReciprocal | None = None,
) -> View:
    """Rank the gallery for one query, which takes some tens of milliseconds for 20,000 images.

    Args:
        collection: The features.
        query_index: Index of the query.
        options: The ranking, the number of images and the filters.
        reranking: The result of ``reranker`` for the same feature and metric, if ``options.reranked``.

    Returns:
        The view.

    Raises:
        InputError: If the query or the feature does not exist, or a metric cannot be learnt.
    """
    query, gallery = collection.query, collection.gallery
    if not 0 <= query_index < len(query):
        raise InputError(f"query indices are from 0 to {len(query) - 1}", query_index, "choose another query")
    columns = collection.columns(options.feature)
    parts = tuple(part for part in collection.parts if _within(part.columns, columns))
    within_p = [slice(p.columns.start - columns.start, p.columns.stop - columns.start) for p in parts]
    names = options.feature, options.metric
    queries_qd, gallery_gd = collection.compared_features(*names)
    query_d = queries_qd[query_index]
    squared_g = squared_distances_to_all(query_d[None], gallery_gd)[0].numpy()
    person, camera = int(query.person_ids[query_index]), int(query.camera_ids[query_index])
    status_g = statuses(person, camera, gallery.person_ids, gallery.camera_ids)
    if options.metric in LEARNT_METRICS:
        distances_g = squared_g - collection.learnt_distance(*names).offsets[query_index]
        within_p = []
    else:
        distances_g = squared_g / 2 if options.metric == "cosine" else np.sqrt(squared_g)
    order_g = _sorted_indices(squared_g, status_g)
    rank_g = _ranks(order_g, status_g)
    gain_g = None
    if options.metric in LEARNT_METRICS and not options.reranked:
        sides = collection.compared_features(options.feature, "cosine")
        plain_g = squared_distances_to_all(sides[0][query_index][None], sides[1])[0].numpy()
        gain_g = _ranks(_sorted_indices(plain_g, status_g), status_g) - rank_g
    if options.reranked:
        assert reranking is not None, "pass reranker(collection, options)"
        distances_g = reranking.distances(np.array([query_index]))[0].double().numpy()
        order_g = _sorted_indices(distances_g, status_g)
        gain_g = rank_g - _ranks(order_g, status_g)
        rank_g = _ranks(order_g, status_g)
    ranks_m = np.sort(rank_g[status_g == Status.MATCH])
    candidates_g = order_g if options.show_ignored else order_g[status_g[order_g] != Status.IGNORED]
    candidates_g = candidates_g[_filter_mask(gallery, options.persons, options.cameras)[candidates_g]]
    entries = []
    for index in candidates_g[: options.top].tolist():
        has_rank = status_g[index] != Status.IGNORED
        differences_d = (query_d - gallery_gd[index]).double().square()
        entries.append(
            Entry(
                index,
                int(rank_g[index]) if has_rank else None,
                float(distances_g[index]),
                Status(status_g[index]),
                int(gallery.person_ids[index]),
                int(gallery.camera_ids[index]),
                int(gain_g[index]) if gain_g is not None and has_rank else None,
                np.array([float(differences_d[within].sum()) for within in within_p]),
            )
        )
    return View(
        query_index,
        person,
        camera,
        float((np.arange(1, len(ranks_m) + 1) / ranks_m).mean()) if len(ranks_m) else float("nan"),
        len(ranks_m),
        int(ranks_m[0]) if len(ranks_m) else 0,
        tuple(entries),
        parts,
        len(candidates_g),
        _message(len(ranks_m), len(candidates_g), person, camera, options),
        options,
    )


def _within(inner: slice, outer: slice) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop


def _sorted_indices(distances_g: np.ndarray, status_g: np.ndarray) -> np.ndarray:
    """Sort gallery indices as for scores: among equal distances, wrong images come before matches."""
    return np.lexsort((np.arange(len(distances_g)), status_g == Status.MATCH, distances_g))


def _ranks(order_g: np.ndarray, status_g: np.ndarray) -> np.ndarray:
    """Return the rank of each gallery image, from 1; the value of an ignored image has no meaning."""
    rank_g = np.empty(len(order_g), np.int64)
    rank_g[order_g] = np.cumsum(status_g[order_g] != Status.IGNORED)
    return rank_g


def _filter_mask(images: Embeddings, persons: Sequence[int], cameras: Sequence[int]) -> np.ndarray:
    """Return which images show the given persons and cameras, bool (N,); an empty filter passes all."""
    mask_n = np.ones(len(images), bool)
    for filter_ids, ids_n in ((persons, images.person_ids), (cameras, images.camera_ids)):
        if len(filter_ids):
            mask_n &= np.isin(ids_n, filter_ids)
    return mask_n


def _message(num_matches: int, num_candidates: int, person: int, camera: int, options: Options) -> str:
    if not num_candidates:
        filters = replace(options, show_ignored=False).filters.replace("; ", " and ")
        value = f"none of {filters}" if filters else "only ignored images"
        rule = "at least one gallery image passes the filters"
        return str(InputError(rule, value, "relax the filters, or show ignored images"))
    if not num_matches:
        rule = "a query has scores only if another camera shows its person in the gallery"
        value = f"no such image for person {person} of camera {camera}"
        return str(InputError(rule, value, "use the list without scores, or choose another query"))
    return ""


def query_order(
    collection: BenchmarkFeatures,
    order: str = "index",
    *,
    persons: Sequence[int] = (),
    cameras: Sequence[int] = (),
    seed: int = 0,
) -> np.ndarray:
    """Filter and sort the queries.

    Args:
        collection: The features.
        order: One of ``ORDERS``. Average precision is always that of the full feature's Euclidean distance,
            so that the order does not change with the displayed feature. Queries without a match come last.
        persons: Person ids of the queries; empty for all.
        cameras: Camera ids of the queries; empty for all.
        seed: Seed of the random order.

    Returns:
        Indices of the queries.

    Raises:
        InputError: If the order is unknown.
    """
    check_choice(f"queries are ordered by one of {', '.join(ORDERS)}", order, ORDERS)
    query = collection.query
    indices = np.flatnonzero(_filter_mask(query, persons, cameras))
    if order == "index":
        return indices
    if order == "random":
        # The order is drawn for all queries, so that filters do not change it.
        place_q = np.random.default_rng(seed).permutation(len(query))
        return indices[np.argsort(place_q[indices])]
    precision_q = collection.average_precision
    middle = np.nanmedian(precision_q) if np.isfinite(precision_q).any() else 0.0
    keys = {"worst": precision_q, "best": -precision_q, "median": np.abs(precision_q - middle)}
    return indices[np.argsort(keys[order][indices], kind="stable")]  # NaN is last


def bar_colours(parts: Sequence[FeaturePart]) -> list[str]:
    """Return a colour per part: two dark tones that alternate between kinds, unlike the colours of frames."""
    kinds = list(dict.fromkeys(part.kind for part in parts))
    return [("#333333", "#8C8C8C")[kinds.index(part.kind) % 2] for part in parts]


def format_rank_gain(ranks: int) -> str:
    """Format the ranks that an image gained or lost, such as "▲3"."""
    return "=" if ranks == 0 else f"{'▲' if ranks > 0 else '▼'}{abs(ranks)}"


def write_csv(query_view: View, collection: BenchmarkFeatures) -> str:
    """Return a view as CSV: a line per image, with each part's contribution to the squared distance."""
    columns = {
        "query": collection.query_paths[query_view.query_index],
        "rank": [entry.rank for entry in query_view.entries],
        "image": [collection.gallery_paths[entry.gallery_index] for entry in query_view.entries],
        "status": [entry.status.name.lower() for entry in query_view.entries],
        "distance": [f"{entry.distance:.6g}" for entry in query_view.entries],
        "person": [entry.person for entry in query_view.entries],
        "camera": [entry.camera for entry in query_view.entries],
        "moved": [entry.rank_gain for entry in query_view.entries],
        "ranking": query_view.options.description,
        "filters": query_view.options.filters,
        "of": collection.title,
    }
    has_parts = any(len(entry.contributions) for entry in query_view.entries)
    for index, part in enumerate(query_view.parts if has_parts else ()):
        name = f"squared distance of {part.name}"
        columns[name] = [f"{entry.contributions[index]:.6g}" for entry in query_view.entries]
    table = pd.DataFrame(columns, index=range(len(query_view.entries)), dtype=object)
    return table.to_csv(index=False, lineterminator="\r\n")
