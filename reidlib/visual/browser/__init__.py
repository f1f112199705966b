"""The ranking browser: ipywidgets controls for ``views``, in JupyterLab or voila.

    from reidlib.browser import RankingBrowser
    RankingBrowser("reports/runs/NAME")

Every control is a trait of the browser (``order``, ``top``, ``feature`` …), so a program can set it as well
as a user. ``current_view`` is the displayed view and ``message`` the message above it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import traitlets
from IPython import get_ipython

from reidlib import files
from reidlib.errors import InputError, shorten
from reidlib.experiments.rows import LEARNT_METRICS
from reidlib.reranking import KReciprocal
from reidlib.visual.attention.maps import PartModel
from reidlib.visual.browser import pictures
from reidlib.visual.browser.collection import BenchmarkFeatures
from reidlib.visual.browser.controls import ALL, MAX_TOP, Controls, RunChooser
from reidlib.visual.browser.pictures import Card, Comparison, SaveButtons, error_line
from reidlib.visual.browser.views import METRICS, ORDERS, Options, View, query_order, reranker, view

_COMPUTING = pictures.note_html("computing …")
_LEARNING = pictures.note_html("learning the metric from the run's training images (only once) …")


def has_front_end() -> bool:
    """Return whether a front end with controls runs this cell: JupyterLab or voila, but not papermill."""
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    metadata = kernel.get_parent("shell").get("metadata", {}) if kernel is not None else {}
    return "cellId" in metadata  # sent by front ends with cells, but not by papermill


class RankingBrowser(widgets.VBox):
    """A browser of the ranked galleries of a run, with controls for queries, features and filters.

    Invalid input never raises an exception. It sets ``message``, which is displayed above the list.

    Args:
        run: Folder of a run; by default the user chooses one in the browser.
        benchmark: Specification of the benchmark to search; by default the one of the run's training.
        data_root: Folder of the benchmark; by default the one of the run's training.
        collection: Features to browse instead of a run.
        model: Network of ``collection``; without it there is no part attention.
        runs: Folder of the runs to choose from; by default ``files.runs()``.
        out: Folder of saved pictures and lists.
        device: Device of the network: "auto", "cuda", "mps" or "cpu".

    Attributes:
        order: Order of the queries, one of ``views.ORDERS``.
        position: Position in the ordered queries, from 0.
        query_person: Person ids of the queries, separated by commas; empty for all.
        query_camera: Camera id of the queries, or "all".
        feature: Branch of the feature, such as "full".
        metric: "euclidean", "cosine" or a learnt metric, one of ``views.METRICS``.
        reranked: Whether the list is re-ranked by k-reciprocal neighbours.
        top: Number of gallery images in the list, from 1 to 50.
        cameras: Camera ids of the gallery images in the list; empty for all.
        persons: Person ids of the gallery images in the list, separated by commas; empty for all.
        show_ignored: Whether the list includes ignored images.
        selection: Index of the gallery image that is compared with the query; −1 for none.
        current_view: The displayed ``views.View``; None before a run is open.
        message: The message above the list; empty if there is none.
    """

    order = traitlets.Enum(list(ORDERS), "worst")
    position = traitlets.Int(0)
    query_person = traitlets.Unicode("")
    query_camera = traitlets.Any(ALL)
    feature = traitlets.Unicode("full")
    metric = traitlets.Enum(list(METRICS), "euclidean")
    reranked = traitlets.Bool(False)
    top = traitlets.Int(10)
    cameras = traitlets.Tuple()
    persons = traitlets.Unicode("")
    show_ignored = traitlets.Bool(False)
    selection = traitlets.Int(-1)
    current_view = traitlets.Any(None)
    message = traitlets.Unicode("")

    def __init__(
        self,
        run: str | Path | None = None,
        *,
        benchmark: str | None = None,
        data_root: str | Path | None = None,
        collection: BenchmarkFeatures | None = None,
        model: PartModel | None = None,
        runs: str | Path | None = None,
        out: str | Path | None = None,
        device: str = "auto",
    ):
        self._collection: BenchmarkFeatures | None = None
        self._model: PartModel | None = None
        self._reranking: tuple[tuple[str, str], KReciprocal] | None = None
        self._updates_paused = False
        self._cards: list[Card] = []
        super().__init__()
        self._controls = Controls(self, go_to=self._go_to, on_change=self._set_trait)
        folder = Path(runs).expanduser() if runs else files.runs()
        self._chooser = RunChooser(folder, device, on_open=self.browse, show_message=self._show_message)
        self._message_box, self._summary = widgets.HTML(), widgets.HTML()
        self._query = Card()
        self._gallery = widgets.HBox(layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        self._lists = widgets.HBox([self._query, self._gallery], layout={"align_items": "flex-start"})
        self._comparison = Comparison()
        folder = Path(out).expanduser() if out else files.home() / "explored" / "50_ranking_browser"
        self._saving = SaveButtons(folder, save_picture=self.save_picture, save_list=self.save_list)
        self.children = [
            widgets.HTML(pictures.STYLE),
            self._chooser,
            self._controls,
            self._message_box,
            self._summary,
            self._lists,
            self._comparison,
            self._saving,
        ]
        self._clear()
        self.add_class("reid-browser")
        if collection is not None:
            self.browse(collection, model)
        else:
            self._chooser.start(run, benchmark, data_root)

    def browse(self, collection: BenchmarkFeatures, model: PartModel | None = None) -> None:
        """Show another collection and reset all filters.

        Args:
            collection: The features to browse.
            model: Network of the collection; without it there is no part attention.
        """
        self._collection, self._model, self._reranking = collection, model, None
        self._query_thumbnails = pictures.Thumbnails(collection.query_paths)
        self._gallery_thumbnails = pictures.Thumbnails(collection.gallery_paths)
        self._clear()
        with self._errors_as_messages():
            with self._no_updates():
                self._controls.fit(collection)
                self.query_person, self.query_camera, self.persons, self.cameras = "", ALL, "", ()
                if self.feature not in collection.branches:
                    self.feature = "full"
            self._chooser.set_title(collection.title)
            self._update_queries()

    def _clear(self) -> None:
        """Hide everything that belongs to the previous collection, so that it cannot be saved either."""
        self._queries, self.current_view = np.empty(0, np.int64), None
        self._persons: tuple[int, ...] = ()
        self._filter_errors: dict[str, str] = {}  # the last valid value of such a filter stays in use
        self._comparison.hide()
        self._lists.layout.display = self._saving.layout.display = "none"
        self._summary.value = ""
        self._saving.clear()

    def save_picture(self) -> Path | None:
        """Save the displayed list as a PNG file.

        Returns:
            The file; None if it cannot be saved, which ``message`` then explains.
        """
        with self._errors_as_messages():
            return self._saving.save_picture(self._collection, self.current_view)

    def save_list(self) -> Path | None:
        """Save the displayed list as a CSV file.

        Returns:
            The file; None if it cannot be saved, which ``message`` then explains.
        """
        with self._errors_as_messages():
            return self._saving.save_list(self._collection, self.current_view)

    # Reactions to changed traits.

    @traitlets.validate("position")
    def _clip_position(self, proposal) -> int:
        return min(max(proposal.value, 0), max(len(self._queries) - 1, 0))

    @traitlets.validate("top")
    def _clip_top(self, proposal) -> int:
        return min(max(proposal.value, 1), MAX_TOP)

    def _set_trait(self, name: str, value: object) -> None:
        if not self._updates_paused:
            setattr(self, name, value)

    def _go_to(self, query: int) -> None:
        if self._updates_paused or self._collection is None:
            return
        with self._errors_as_messages():
            positions = np.flatnonzero(self._queries == query)
            if not len(positions):
                rule = "the query passes the query filters"
                raise InputError(rule, f"query {query}", "relax the query filters")
            self.position = int(positions[0])

    @traitlets.observe("order", "query_person", "query_camera")
    def _update_queries(self, _=None) -> None:
        """Filter and sort the queries, and show the first one."""
        if self._collection is None or self._updates_paused:
            return
        self._summary.value = _COMPUTING
        with self._errors_as_messages("queries"):
            persons = _parse_persons(self.query_person)
            cameras: tuple[Any, ...] = () if self.query_camera == ALL else (self.query_camera,)
            queries = query_order(self._collection, self.order, persons=persons, cameras=cameras)
            if not len(queries):
                filters = [f"person {shorten(persons)}"] if persons else []
                filters += [f"camera {self.query_camera}"] if cameras else []
                value = f"no query of {' and '.join(filters)}"
                raise InputError("at least one query passes the filters", value, "relax the query filters")
            self._queries = queries
            with self._no_updates():
                self.position = 0
                self._controls.position.value, self._controls.position.max = 1, len(queries)
        self._update_view()

    @traitlets.observe("persons")
    def _update_persons(self, _=None) -> None:
        """Filter the gallery images by person, and update the list."""
        if not self._updates_paused:
            with self._errors_as_messages("persons"):
                self._persons = _parse_persons(self.persons)
            self._update_view()

    @traitlets.observe("position", "feature", "metric", "reranked", "top", "cameras", "show_ignored")
    def _update_view(self, change: traitlets.Bunch | None = None) -> None:
        """Rank the gallery for the current query, and display the list."""
        if self._collection is None or self._updates_paused or not len(self._queries):
            return
        if change is not None and change.name in ("feature", "metric", "reranked"):
            self._summary.value = _LEARNING if self.metric in LEARNT_METRICS else _COMPUTING
        before = self.current_view  # the first ranking of its kind takes seconds
        with self._errors_as_messages():
            with self._no_updates():
                self._controls.follow(self)
            settings: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(Options)}
            settings["persons"] = self._persons
            options = Options(**settings)
            query = int(self._queries[self.position])
            reranking = self._fit_reranking(self._collection, options) if options.reranked else None
            self.current_view = view(self._collection, query, options, reranking=reranking)
            with self._no_updates():
                self._controls.position.value, self._controls.index.value = self.position + 1, query
                self.selection = -1
            self._comparison.hide()
            self._saving.clear()
            self._display(self._collection, self.current_view)
        if before is not None and self.current_view is before:  # refused: the list is still the earlier one
            self._summary.value = pictures.note_html(self._summarise(before))

    def _fit_reranking(self, collection: BenchmarkFeatures, options: Options) -> KReciprocal:
        """Return the re-ranking of a feature and a metric; the last one is cached, since it takes a while."""
        key = options.feature, options.metric
        if self._reranking is None or self._reranking[0] != key:
            images = len(collection.query) + len(collection.gallery)
            text = f"computing the neighbours of {images:,} images (only once) …"
            self._summary.value = pictures.note_html(text)
            self._reranking = key, reranker(collection, options)
        return self._reranking[1]

    def _display(self, collection: BenchmarkFeatures, query_view: View) -> None:
        unreadable: list[str] = []  # names of files
        jpeg = self._query_thumbnails(query_view.query_index, unreadable)
        caption = pictures.query_caption(query_view, collection)
        self._query.show(jpeg, caption, "query", f"query {query_view.query_index}")
        while len(self._cards) < len(query_view.entries):
            index = len(self._cards)
            self._cards.append(Card(lambda index=index: self._select(index)))
        longest = max(
            (float(entry.contributions.max(initial=0)) for entry in query_view.entries), default=0.0
        )
        for card, entry in zip(self._cards, query_view.entries, strict=False):
            jpeg = self._gallery_thumbnails(entry.gallery_index, unreadable)
            caption = pictures.entry_caption(entry, query_view, collection, longest=longest)
            card.show(jpeg, caption, entry.status.name.lower(), pictures.describe_entry(entry))
        if len(self._gallery.children) != len(query_view.entries):
            self._gallery.children = self._cards[: len(query_view.entries)]
        self._lists.layout.display = self._saving.layout.display = ""
        self._summary.value = pictures.note_html(self._summarise(query_view))
        messages = [*self._filter_errors.values(), *([query_view.message] if query_view.message else [])]
        if unreadable:
            value = f"unreadable files {shorten(unreadable, 3)}"
            messages.append(
                str(InputError("every image of the list can be read", value, "restore the files"))
            )
        self._show_message(" · ".join(messages))

    def _summarise(self, query_view: View) -> str:
        basis = "" if self.order in ("index", "random") else " (full feature, Euclidean distance)"
        options, num_images = query_view.options, len(query_view.entries)
        mixed, before, arrows = "", "", ""
        if options.reranked:
            mixed, before = ", mixed by re-ranking", " before re-ranking"
            arrows = " ▲ ▼: ranks gained or lost by re-ranking."
        numbers = "distance"
        bars = f"Bars: contribution of each part to the squared distance{before}, all on one scale. "
        if options.metric in LEARNT_METRICS and self._collection is not None:
            learnt = self._collection.learnt_distance(options.feature, options.metric)
            sign = ", which may be negative" if learnt.offsets.any() else ""
            numbers = f"squared distance by {options.metric}{sign}"
            arrows = arrows or " ▲ ▼: ranks gained or lost against cosine distance."
            bars = f"{learnt.note}. No bars: it also weighs pairs of two parts, so it is no sum over parts. "
        return (
            f"Query {self.position + 1:,} of {len(self._queries):,}, order: {ORDERS[self.order]}{basis}. "
            f"List: {num_images:,} of {query_view.num_candidates:,} images, {options.description}.{arrows} "
            f"Numbers: {numbers}{mixed}. {bars}"
            "Click an image to see below the list what supports the similarity of each part."
        )

    def _select(self, index: int) -> None:
        if self.current_view is not None and index < len(self.current_view.entries):
            self.selection = self.current_view.entries[index].gallery_index

    @traitlets.observe("selection")
    def _update_comparison(self, _=None) -> None:
        """Compare the selected image with the query, or hide the comparison if none is selected."""
        if self._updates_paused or self._collection is None or self.current_view is None:
            return
        self._comparison.hide()
        with self._errors_as_messages():
            for card, entry in zip(self._cards, self.current_view.entries, strict=False):
                card.mark(entry.gallery_index == self.selection)
                if entry.gallery_index == self.selection:
                    self._comparison.show(self._collection, self._model, self.current_view, entry)

    def _show_message(self, text: str) -> None:
        self.message = text
        self._message_box.value = pictures.message_html(text)

    @contextmanager
    def _errors_as_messages(self, filters: str = "") -> Iterator[None]:
        """Show exceptions above the list; those of ``filters`` stay until these filters are valid."""
        # JupyterLab hides what a callback raises.
        try:
            yield
            self._filter_errors.pop(filters, None)
        except Exception as error:
            text = error_line(error)
            if filters:
                text += " (the last valid filter stays)"
                self._filter_errors[filters] = text
            self._show_message(text)

    @contextmanager
    def _no_updates(self) -> Iterator[None]:
        """Set traits and controls without any reaction."""
        before, self._updates_paused = self._updates_paused, True
        try:
            yield
        finally:
            self._updates_paused = before


def _parse_persons(text: str) -> tuple[int, ...]:
    """Parse person ids that a user has typed."""
    words = text.replace(",", " ").split()
    if not all(re.fullmatch(r"-?[0-9]{1,18}", word) for word in words):
        rule = "person ids are whole numbers, separated by commas"
        raise InputError(rule, repr(text), "type for example 12, 57, or nothing for all persons")
    return tuple(map(int, words))
