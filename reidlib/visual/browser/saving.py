"""The ranking browser's last row: keep the list that is shown, as a picture or as a table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets

from reidlib.errors import InputError
from reidlib.experiments.features import Collection
from reidlib.files import write_whole
from reidlib.visual.browser.cards import note
from reidlib.visual.browser.comparison import png
from reidlib.visual.browser.figures import view_figure
from reidlib.visual.browser.views import View, write_csv


class Saving(widgets.HBox):
    """Two buttons and a word on what they wrote to ``out``.

    Files are named by query, ranking and, in eight digits, by run, benchmark and filters: lists that differ
    are other files. Raises InputError where nothing is shown, and where the folder cannot be written.
    """

    def __init__(self, out: Path, *, save_picture: Callable[[], object], save_list: Callable[[], object]):
        self._out, self._told = out, widgets.HTML()
        picture = widgets.Button(description="save picture (PNG)")
        listed = widgets.Button(description="save list (CSV)")
        picture.on_click(lambda _: save_picture())
        listed.on_click(lambda _: save_list())
        super().__init__([picture, listed, self._told])

    def forget(self) -> None:
        """Say nothing of what was saved before."""
        self._told.value = ""

    def picture(self, collection: Collection | None, shown: View | None) -> Path:
        """Write a view as PNG, and return the file."""
        path = self._path(collection, shown, ".png")
        title = [collection.title, shown.options.described, shown.options.filters]
        figure = view_figure([shown], collection, title="\n".join(filter(None, title)))
        return self._write(path, png(figure, 110))

    def listing(self, collection: Collection | None, shown: View | None) -> Path:
        """Write a view as CSV, and return the file."""
        path = self._path(collection, shown, ".csv")
        # A file's name need not be Unicode.
        return self._write(path, write_csv(shown, collection).encode("utf-8", "surrogateescape"))

    def _path(self, collection: Collection | None, shown: View | None, ending: str) -> Path:
        self.forget()
        if shown is None or not shown.entries:
            raise InputError("a list is saved that shows some image", "none", "choose a query first")
        options = shown.options
        words = [f"query{shown.query_index}", options.feature.replace(" ", "-"), options.metric]
        words += ["reranked"] if options.reranked else []
        digest = hashlib.sha256(f"{collection.title} {options}".encode(errors="replace")).hexdigest()
        return self._out / f"{'-'.join([*words, digest[:8]])}{ending}"

    def _write(self, path: Path, content: bytes) -> Path:
        write_whole(path, lambda partial: partial.write_bytes(content))
        self._told.value = note(f"written to {path}")
        return path
