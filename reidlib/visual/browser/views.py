"""One query's ranked gallery, with what explains each place: what the ranking browser and its reports show.

No widget and no figure is made here: a collection of features, a query and some options give a view.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from reidlib.errors import InputError, check_choice
from reidlib.models.parts import FeaturePart
from reidlib.ranking.distances import squared_distances_to_all
from reidlib.ranking.metrics import Embeddings, Scores, Status, evaluate, evaluate_distances, statuses
from reidlib.reranking import KReciprocal, k_reciprocal
from reidlib.visual.browser.collection import Collection

METRICS = {"euclidean": "Euclidean", "cosine": "cosine"}
ORDERS = {
    "index": "in the benchmark's order",
    "worst": "lowest average precision first",
    "median": "nearest to the median average precision first",
    "best": "highest average precision first",
    "random": "in a random order, drawn once",
}


@dataclass(frozen=True)
class Options:
    """How a gallery is ranked and what of the list is shown.

    feature: a branch's name. metric: of ``METRICS``. reranked: by k-reciprocal neighbours.
    top: how many images are shown. cameras, persons: only gallery images of these; empty for all.
    show_ignored: junk, and the query's own person in its own camera, too; they have no rank.
    Raises InputError for a metric that is not there and a ``top`` below 1.
    """

    feature: str = "full"
    metric: Literal["euclidean", "cosine"] = "euclidean"
    reranked: bool = False
    top: int = 10
    cameras: tuple[int, ...] = ()
    persons: tuple[int, ...] = ()
    show_ignored: bool = False

    def __post_init__(self):
        check_choice(f"the metric is {' or '.join(METRICS)}", self.metric, METRICS)
        if self.top < 1:
            raise InputError("a ranked list shows at least one image", f"top={self.top}", "ask for more")

    @property
    def filters(self) -> str:
        """What of the list is shown, in words; empty for all that has a rank."""
        chosen = [
            f"{name} {', '.join(map(str, wanted))}"
            for name, wanted in (("camera", self.cameras), ("person", self.persons))
            if wanted
        ]
        return "; ".join([*chosen, *(["ignored images too"] if self.show_ignored else [])])

    @property
    def described(self) -> str:
        """The ranking in words, as in "full feature, Euclidean distance, re-ranked"."""
        words = f"{self.feature} feature, {METRICS[self.metric]} distance"
        return words + (", re-ranked by k-reciprocal neighbours" if self.reranked else "")


class Entry(NamedTuple):
    """One gallery image at its place."""

    gallery_index: int
    rank: int | None  # in the whole list, from 1, whatever is filtered; None for an ignored image
    distance: float  # Euclidean, or 1 − cosine; re-ranked the mixed one, which has no unit
    status: Status
    person: int
    camera: int
    moved: int | None  # places towards the top that re-ranking moved it; None without
    contributions: np.ndarray  # (P,) of each part to the squared distance before any re-ranking

    @property
    def who(self) -> str:
        """Whom the image shows, as the beginning of a line; empty for nobody known."""
        return f"person {self.person}, " if self.person > 0 else ""

    @property
    def shift(self) -> str:
        """How far re-ranking moved the image, as the end of a rank; empty without re-ranking."""
        return "" if self.moved is None else f" {moved(self.moved)}"


class View(NamedTuple):
    """A query and the head of its list."""

    query_index: int
    person: int
    camera: int
    average_precision: float  # of the whole list as it is ranked here, step rule; NaN without a match
    num_matches: int
    first_match_rank: int  # 0 without a match
    entries: tuple[Entry, ...]
    parts: tuple[FeaturePart, ...]  # of the feature that is compared
    num_fitting: int  # images of the list that the filters let through
    message: str  # what is worth knowing of this list, in the form of an error; empty if nothing
    options: Options


def reranker(collection: Collection, options: Options) -> KReciprocal:
    """What re-ranks a collection's queries, for a feature and a metric; see ``reranking``.

    All gallery images take part, junk too, because a method that uses no label cannot know it.
    """
    return KReciprocal.fit(*collection.compared(options.feature, options.metric))


def view_scores(collection: Collection, options: Options) -> Scores:
    """The scores of a feature, a metric and perhaps re-ranking over all queries, with the step rule.

    Distances of all pairs are held for re-ranking, 4·Q·G bytes. Raises InputError where no query has a match.
    """
    compared = collection.compared(options.feature, options.metric)
    sides = zip((collection.query, collection.gallery), compared, strict=True)
    query, gallery = (replace(side, features=features) for side, features in sides)
    if not options.reranked:
        return evaluate(query, gallery)
    return evaluate_distances(k_reciprocal(query.features, gallery.features), query, gallery)


def view(
    collection: Collection,
    query_index: int,
    options: Options,
    *,
    reranking: KReciprocal | None = None,
) -> View:
    """The list of one query; every gallery image is measured, in some tens of milliseconds for 20,000.

    reranking: ``reranker`` of the same feature and metric, where ``options.reranked``. Raises InputError for
    a query, feature or filter that is not there.
    """
    query, gallery = collection.query, collection.gallery
    if not 0 <= query_index < len(query):
        raise InputError(f"queries are counted from 0 to {len(query) - 1}", query_index, "choose another")
    columns = collection.columns(options.feature)
    parts = tuple(part for part in collection.parts if _within(part.columns, columns))
    within_p = [slice(p.columns.start - columns.start, p.columns.stop - columns.start) for p in parts]
    queries_qd, gallery_gd = collection.compared(options.feature, options.metric)
    query_d = queries_qd[query_index]
    squared_g = squared_distances_to_all(query_d[None], gallery_gd)[0].numpy()
    person, camera = int(query.person_ids[query_index]), int(query.camera_ids[query_index])
    status_g = statuses(person, camera, gallery.person_ids, gallery.camera_ids)
    distances_g = squared_g / 2 if options.metric == "cosine" else np.sqrt(squared_g)
    order_g = _ranked(squared_g, status_g)
    moved_g = None
    if options.reranked:
        plain_g = _ranks(order_g, status_g)
        distances_g = reranking.distances(np.array([query_index]))[0].double().numpy()
        order_g = _ranked(distances_g, status_g)
        moved_g = plain_g - _ranks(order_g, status_g)
    rank_g = _ranks(order_g, status_g)
    ranks_m = np.sort(rank_g[status_g == Status.MATCH])
    shown_g = order_g if options.show_ignored else order_g[status_g[order_g] != Status.IGNORED]
    shown_g = shown_g[_chosen(gallery, options.persons, options.cameras)[shown_g]]
    entries = []
    for index in shown_g[: options.top].tolist():
        counted = status_g[index] != Status.IGNORED
        differences_d = (query_d - gallery_gd[index]).double().square()
        entries.append(
            Entry(
                index,
                int(rank_g[index]) if counted else None,
                float(distances_g[index]),
                Status(status_g[index]),
                int(gallery.person_ids[index]),
                int(gallery.camera_ids[index]),
                int(moved_g[index]) if options.reranked and counted else None,
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
        len(shown_g),
        _message(len(ranks_m), len(shown_g), person, camera, options),
        options,
    )


def _within(inner: slice, outer: slice) -> bool:
    return outer.start <= inner.start and inner.stop <= outer.stop


def _ranked(distances_g: np.ndarray, status_g: np.ndarray) -> np.ndarray:
    """Gallery indices in the order that is scored: among equal distances the wrong image before a match."""
    return np.lexsort((np.arange(len(distances_g)), status_g == Status.MATCH, distances_g))


def _ranks(order_g: np.ndarray, status_g: np.ndarray) -> np.ndarray:
    """The rank of each gallery image from 1; that of an ignored one means nothing."""
    rank_g = np.empty(len(order_g), np.int64)
    rank_g[order_g] = np.cumsum(status_g[order_g] != Status.IGNORED)
    return rank_g


def _chosen(images: Embeddings, persons: Sequence[int], cameras: Sequence[int]) -> np.ndarray:
    """Boolean (N,): which images are of some persons and cameras; empty for all."""
    chosen_n = np.ones(len(images), bool)
    for wanted, ids_n in ((persons, images.person_ids), (cameras, images.camera_ids)):
        if len(wanted):
            chosen_n &= np.isin(ids_n, wanted)
    return chosen_n


def _message(num_matches: int, num_fitting: int, person: int, camera: int, options: Options) -> str:
    if not num_fitting:
        asked = replace(options, show_ignored=False).filters.replace("; ", " and ")
        found = f"none of {asked}" if asked else "a gallery of ignored images only"
        rule = "a list shows gallery images that the filters let through"
        return str(InputError(rule, found, "widen the filters, or show the ignored ones"))
    if not num_matches:
        found = f"no such image for person {person} of camera {camera}"
        rule = "a query is scored where its person is in the gallery from another camera"
        return str(InputError(rule, found, "look at the list, or choose another query"))
    return ""


def query_order(
    collection: Collection,
    order: str = "index",
    *,
    persons: Sequence[int] = (),
    cameras: Sequence[int] = (),
    seed: int = 0,
) -> np.ndarray:
    """Indices of the queries of some persons and cameras (empty for all), in one of ``ORDERS``.

    Where the order is one of average precision, queries without a match come last. It is that of the full
    feature's Euclidean distance, whatever is shown, so that the order stays while features are compared.
    """
    check_choice(f"queries are ordered by one of {', '.join(ORDERS)}", order, ORDERS, "name one")
    query = collection.query
    indices = np.flatnonzero(_chosen(query, persons, cameras))
    if order == "index":
        return indices
    if order == "random":
        # Drawn for all queries, so that a filter takes some away and leaves the others' order.
        place_q = np.random.default_rng(seed).permutation(len(query))
        return indices[np.argsort(place_q[indices])]
    precision_q = collection.average_precision
    middle = np.nanmedian(precision_q) if np.isfinite(precision_q).any() else 0.0
    keys = {"worst": precision_q, "best": -precision_q, "median": np.abs(precision_q - middle)}
    return indices[np.argsort(keys[order][indices], kind="stable")]  # NaN last


def bar_colours(parts: Sequence[FeaturePart]) -> list[str]:
    """Two dark tones in turn, kind by kind: a frame's colours have a meaning that no part has."""
    kinds = list(dict.fromkeys(part.kind for part in parts))
    return [("#333333", "#8C8C8C")[kinds.index(part.kind) % 2] for part in parts]


def moved(places: int) -> str:
    """How far re-ranking moved an image: a sign and the number of places."""
    return "=" if places == 0 else f"{'▲' if places > 0 else '▼'}{abs(places)}"


def write_csv(shown: View, collection: Collection) -> str:
    """A view as CSV, one line for each image, with each part's contribution to the squared distance."""
    columns = {
        "query": collection.query_paths[shown.query_index],
        "rank": [entry.rank for entry in shown.entries],
        "image": [collection.gallery_paths[entry.gallery_index] for entry in shown.entries],
        "status": [entry.status.name.lower() for entry in shown.entries],
        "distance": [f"{entry.distance:.6g}" for entry in shown.entries],
        "person": [entry.person for entry in shown.entries],
        "camera": [entry.camera for entry in shown.entries],
        "moved": [entry.moved for entry in shown.entries],
        "ranking": shown.options.described,
        "filters": shown.options.filters,
        "of": collection.title,
    }
    for place, part in enumerate(shown.parts):
        name = f"squared distance of {part.name}"
        columns[name] = [f"{entry.contributions[place]:.6g}" for entry in shown.entries]
    table = pd.DataFrame(columns, index=range(len(shown.entries)), dtype=object)
    return table.to_csv(index=False, lineterminator="\r\n")
