"""The ranking browser: controls of ipywidgets over ``views``, for JupyterLab and voila.

    from reidlib.browser import RankingBrowser
    RankingBrowser("reports/runs/NAME")

Every control is a trait of the browser (``order``, ``top``, ``feature`` …), so that a program can turn it as
a hand does; ``shown`` is the view that is displayed and ``said`` the message above it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
import traitlets
from IPython import get_ipython

from reidlib import files
from reidlib.errors import InputError, shorten
from reidlib.reranking import KReciprocal
from reidlib.visual.browser import pictures
from reidlib.visual.browser.collection import Collection
from reidlib.visual.browser.controls import ALL, MOST_SHOWN, Controls, RunChooser
from reidlib.visual.browser.pictures import Card, Comparison, Saving, error_line
from reidlib.visual.browser.views import METRICS, ORDERS, Options, View, query_order, reranker, view


def front_end_present() -> bool:
    """Is there somebody to turn controls: does JupyterLab or voila run this cell, and not papermill?"""
    if os.environ.get("SERVER_SOFTWARE", "").startswith("voila"):
        return True
    kernel = getattr(get_ipython(), "kernel", None)
    metadata = kernel.get_parent("shell").get("metadata", {}) if kernel is not None else {}
    return "cellId" in metadata  # which front ends with cells send, and papermill does not


class RankingBrowser(widgets.VBox):
    """Looks through the ranked galleries of a run.

    run: a run's folder, or None to choose one in the browser. benchmark, data_root: what is searched, by
    default what the run was trained on. collection, model: opened already, instead of a run; without the
    model there is no part attention. runs: the folder of runs to choose from. out: where pictures and lists
    are saved. device: of the network.

    Bad input becomes ``said``, a line above the list, and never an exception.
    """

    order = traitlets.Enum(list(ORDERS), "worst")
    position = traitlets.Int(0)  # in the list of queries, from 0
    query_person = traitlets.Unicode("")  # person ids, separated by commas; empty for all
    query_camera = traitlets.Any(ALL)  # a camera id, or "all"
    feature = traitlets.Unicode("full")
    metric = traitlets.Enum(list(METRICS), "euclidean")
    reranked = traitlets.Bool(False)
    top = traitlets.Int(10)
    cameras = traitlets.Tuple()  # of the gallery images that are shown; empty for all
    persons = traitlets.Unicode("")  # of these, as query_person
    show_ignored = traitlets.Bool(False)
    chosen = traitlets.Int(-1)  # the gallery image that is compared with the query; −1 for none
    shown = traitlets.Any(None)  # a View, or None
    said = traitlets.Unicode("")

    def __init__(
        self,
        run: str | Path | None = None,
        *,
        benchmark: str | None = None,
        data_root: str | Path | None = None,
        collection: Collection | None = None,
        model: torch.nn.Module | None = None,
        runs: str | Path | None = None,
        out: str | Path | None = None,
        device: str = "auto",
    ):
        self._collection: Collection | None = None
        self._model: torch.nn.Module | None = None
        self._reranking: tuple[tuple[str, str], KReciprocal] | None = None
        self._quiet = False
        self._cards: list[Card] = []
        super().__init__()
        self._controls = Controls(self, go_to=self._go_to, turned=self._turned)
        folder = Path(runs) if runs else files.runs()
        self._chooser = RunChooser(folder, device, opened=self.browse, say=self._say)
        self._message, self._statement = widgets.HTML(), widgets.HTML()
        self._query = Card()
        self._gallery = widgets.HBox(layout={"flex_flow": "row wrap", "align_items": "flex-start"})
        self._lists = widgets.HBox([self._query, self._gallery], layout={"align_items": "flex-start"})
        self._comparison = Comparison()
        folder = Path(out) if out else files.home() / "explored" / "50_ranking_browser"
        self._saving = Saving(folder, save_picture=self.save_picture, save_list=self.save_list)
        self.children = [
            widgets.HTML(pictures.STYLE),
            self._chooser,
            self._controls,
            self._message,
            self._statement,
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

    def browse(self, collection: Collection, model: torch.nn.Module | None = None) -> None:
        """Show another collection, without any filter: its persons and cameras are others."""
        self._collection, self._model, self._reranking = collection, model, None
        self._query_thumbnails = pictures.Thumbnails(collection.query_paths)
        self._gallery_thumbnails = pictures.Thumbnails(collection.gallery_paths)
        self._clear()
        with self._telling():
            with self._quietly():
                self._controls.fit(collection)
                self.query_person, self.query_camera, self.persons, self.cameras = "", ALL, "", ()
                if self.feature not in collection.branches:
                    self.feature = "full"
            self._chooser.named(collection.title)
            self._queries_wanted()

    def _clear(self) -> None:
        """Nothing of one collection is shown, or saved, under the name of another."""
        self._queries, self.shown = np.empty(0, np.int64), None
        self._persons: tuple[int, ...] = ()
        self._refused: dict[str, str] = {}  # what is wrong with a filter; the last good one holds meanwhile
        self._comparison.hide()
        self._lists.layout.display = self._saving.layout.display = "none"
        self._statement.value = ""
        self._saving.forget()

    def save_picture(self) -> Path | None:
        """Write the list that is shown as PNG to ``out``, and return the file; None if that is impossible."""
        with self._telling():
            return self._saving.picture(self._collection, self.shown)

    def save_list(self) -> Path | None:
        """Write the list that is shown as CSV to ``out``, and return the file; None if that is impossible."""
        with self._telling():
            return self._saving.listing(self._collection, self.shown)

    # What follows when a control is turned.

    @traitlets.validate("position")
    def _existing(self, proposal) -> int:
        return min(max(proposal.value, 0), max(len(self._queries) - 1, 0))

    @traitlets.validate("top")
    def _showable(self, proposal) -> int:
        return min(max(proposal.value, 1), MOST_SHOWN)

    def _turned(self, name: str, value: object) -> None:
        if not self._quiet:
            setattr(self, name, value)

    def _go_to(self, query: int) -> None:
        if self._quiet or self._collection is None:
            return
        with self._telling():
            found = np.flatnonzero(self._queries == query)
            if not len(found):
                rule = "a query is chosen among those that the filters let through"
                raise InputError(rule, f"query {query}", "widen the filters of the queries")
            self.position = int(found[0])

    @traitlets.observe("order", "query_person", "query_camera")
    def _queries_wanted(self, _=None) -> None:
        """The queries are others, or in another order: begin with the first."""
        if self._collection is None or self._quiet:
            return
        self._statement.value = pictures.note("working …")
        with self._telling("queries"):
            persons = _numbers(self.query_person)
            camera = () if self.query_camera == ALL else (self.query_camera,)
            queries = query_order(self._collection, self.order, persons=persons, cameras=camera)
            if not len(queries):
                asked = [f"person {shorten(persons)}"] if persons else []
                asked += [f"camera {self.query_camera}"] if camera else []
                rule = "a query is among those that the filters let through"
                raise InputError(rule, f"none of {' and '.join(asked)}", "widen the filters of the queries")
            self._queries = queries
            with self._quietly():
                self.position = 0
                self._controls.place.value, self._controls.place.max = 1, len(queries)
        self._view_wanted()

    @traitlets.observe("persons")
    def _persons_wanted(self, _=None) -> None:
        """Other persons of the gallery are wanted."""
        if not self._quiet:
            with self._telling("persons"):
                self._persons = _numbers(self.persons)
            self._view_wanted()

    @traitlets.observe("position", "feature", "metric", "reranked", "top", "cameras", "show_ignored")
    def _view_wanted(self, change: traitlets.Bunch | None = None) -> None:
        """Rank, and show what is found."""
        if self._collection is None or self._quiet or not len(self._queries):
            return
        if change is not None and change.name in ("feature", "metric", "reranked"):
            self._statement.value = pictures.note("working …")  # the first of its kind takes seconds
        with self._telling():
            with self._quietly():
                self._controls.follow(self)
            turned = {field.name: getattr(self, field.name) for field in fields(Options)}
            options = Options(**turned | {"persons": self._persons})
            query = int(self._queries[self.position])
            ranking = self._fitted(options) if options.reranked else None
            self.shown = view(self._collection, query, options, reranking=ranking)
            with self._quietly():
                self._controls.place.value, self._controls.index.value = self.position + 1, query
                self.chosen = -1
            self._comparison.hide()
            self._saving.forget()
            self._display(self.shown)

    def _fitted(self, options: Options) -> KReciprocal:
        """The re-ranking of what is compared; the last one is kept, because it takes a while."""
        wanted = options.feature, options.metric
        if self._reranking is None or self._reranking[0] != wanted:
            images = len(self._collection.query) + len(self._collection.gallery)
            self._statement.value = pictures.note(f"comparing the neighbours of {images:,} images, once …")
            self._reranking = wanted, reranker(self._collection, options)
        return self._reranking[1]

    def _display(self, shown: View) -> None:
        collection = self._collection
        missing: list[str] = []  # names of files
        jpeg = self._query_thumbnails(shown.query_index, missing)
        caption = pictures.query_caption(shown, collection)
        self._query.show(jpeg, caption, "query", f"query {shown.query_index}")
        while len(self._cards) < len(shown.entries):
            place = len(self._cards)
            self._cards.append(Card(lambda place=place: self._pick(place)))
        longest = max((float(entry.contributions.max()) for entry in shown.entries), default=0.0)
        for card, entry in zip(self._cards, shown.entries, strict=False):
            jpeg = self._gallery_thumbnails(entry.gallery_index, missing)
            caption = pictures.entry_caption(entry, shown, collection, longest=longest)
            card.show(jpeg, caption, entry.status.name.lower(), pictures.entry_words(entry))
        if len(self._gallery.children) != len(shown.entries):
            self._gallery.children = self._cards[: len(shown.entries)]
        self._lists.layout.display = self._saving.layout.display = ""
        self._statement.value = pictures.note(self._stated(shown))
        faults = [*self._refused.values(), *([shown.message] if shown.message else [])]
        if missing:
            rule = "an image that is shown is a file that can be decoded"
            faults.append(str(InputError(rule, f"none in {shorten(missing, 3)}", "put the files back")))
        self._say(" · ".join(faults))

    def _stated(self, shown: View) -> str:
        by = "" if self.order in ("index", "random") else " (of the full feature, Euclidean distance)"
        moves = "; ▲ ▼ places that re-ranking moved an image" if shown.options.reranked else ""
        return (
            f"Query {self.position + 1:,} of {len(self._queries):,}, {ORDERS[self.order]}{by}. "
            f"{len(shown.entries):,} of {shown.num_fitting:,} images by {shown.options.described}{moves}. "
            "Bars: what each part adds to the squared distance, on one scale; a click on an image shows "
            "below the list what supports each part."
        )

    def _pick(self, place: int) -> None:
        if self.shown is not None and place < len(self.shown.entries):
            self.chosen = self.shown.entries[place].gallery_index

    @traitlets.observe("chosen")
    def _comparison_wanted(self, _=None) -> None:
        """Show the chosen image beside the query, or put that away."""
        if self._quiet or self.shown is None:
            return
        self._comparison.hide()
        with self._telling():
            for card, entry in zip(self._cards, self.shown.entries, strict=False):
                card.mark(entry.gallery_index == self.chosen)
                if entry.gallery_index == self.chosen:
                    self._comparison.show(self._collection, self._model, self.shown, entry)

    def _say(self, text: str) -> None:
        self.said = text
        self._message.value = pictures.message(text)

    @contextmanager
    def _telling(self, filters: str = "") -> Iterator[None]:
        """What goes wrong becomes a line above the list, since JupyterLab hides what a callback raises.

        filters: whose; then the line stays until these are right.
        """
        try:
            yield
            self._refused.pop(filters, None)
        except Exception as error:
            if filters:
                self._refused[filters] = error_line(error)
            self._say(error_line(error))

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Controls are set here, and nothing follows from it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def _numbers(text: str) -> tuple[int, ...]:
    """Person ids from what somebody typed. Raises InputError for anything else."""
    words = text.replace(",", " ").split()
    if not all(re.fullmatch(r"-?[0-9]{1,18}", word) for word in words):
        rule = "persons are whole numbers, separated by commas"
        raise InputError(rule, repr(text), "write 12, 57, or nothing for all")
    return tuple(map(int, words))
