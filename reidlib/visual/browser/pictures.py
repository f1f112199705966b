"""What the ranking browser draws and keeps: a pair part by part, and the list that is shown."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from reidlib.analysis.statistics import percent
from reidlib.data.images import ImageStore, Unreadable, UnreadableError, decode
from reidlib.errors import InputError
from reidlib.experiments.features import Collection
from reidlib.files import write_whole
from reidlib.models.parts import FeaturePart
from reidlib.visual.attention.figures import pair_figure
from reidlib.visual.attention.maps import part_attention, places_by_kind
from reidlib.visual.attention.pairs import part_similarities
from reidlib.visual.browser import cards
from reidlib.visual.browser.views import Entry, View, bar_colours, write_csv
from reidlib.visual.figures.images import ranked_lists

_WIDE = 10  # images of a row


def view_figure(views: Sequence[View], collection: Collection, *, title: str = "") -> Figure:
    """Some views below each other: query, ranked images with rank, distance and camera, bars of the parts.

    All bars have one scale: squared distance, before any re-ranking. An image whose file cannot be read is
    grey. Views differ in query or options, but compare the same parts; a long list goes on in the next row.
    """
    queries, labels, rows = [], [], []
    for shown in views:
        scored = f"AP {percent(shown.average_precision)}" if shown.num_matches else "no match"
        for start in range(0, max(1, len(shown.entries)), _WIDE):
            rows.append(shown.entries[start : start + _WIDE])
            queries.append(None if start else _image(collection.query_paths[shown.query_index]))
            labels.append("" if start else f"query {shown.query_index}, c{shown.camera}\n{scored}")
    parts = views[0].parts
    return ranked_lists(
        queries,
        [[_image(collection.gallery_paths[entry.gallery_index]) for entry in row] for row in rows],
        [[entry.status.name.lower() for entry in row] for row in rows],
        labels=labels,
        captions=[[f"{one.distance:.3f}\n{one.who}c{one.camera}" for one in row] for row in rows],
        ranks=[[f"{one.rank or '–'}{one.shift}" for one in row] for row in rows],
        bars=[[entry.contributions for entry in row] for row in rows],
        bar_names=_bar_names(parts),
        bar_colours=bar_colours(parts),
        title=title,
    )


def _bar_names(parts: Sequence[FeaturePart]) -> list[str]:
    """The parts' names, or where they are too many for that their kinds', each once."""
    if len(parts) <= 8:
        return [part.name for part in parts]
    middles = {places[(len(places) - 1) // 2]: kind for kind, places in places_by_kind(parts).items()}
    return [middles.get(place, "") for place in range(len(parts))]


def _image(path: Path) -> np.ndarray:
    image = decode(path)
    return image if isinstance(image, np.ndarray) else np.full((128, 64, 3), 208, np.uint8)


class Comparison(widgets.VBox):
    """Part attention of a pair, and what each part adds to its distance; hidden until a pair is shown."""

    def __init__(self):
        self._told, self._picture, self._table = widgets.HTML(), widgets.Image(format="png"), widgets.HTML()
        self._picture.layout.max_width = "900px"
        pictures = widgets.HBox([self._picture, self._table], layout={"flex_flow": "row wrap"})
        super().__init__([self._told, pictures])
        self.add_class("reid-comparison")
        self.hide()

    def hide(self) -> None:
        self.layout.display = "none"

    def show(self, collection: Collection, model: torch.nn.Module | None, shown: View, entry: Entry) -> None:
        """Compare a view's query with one of its images.

        Raises InputError without a network, which the maps need, and for files that cannot be decoded.
        """
        self._told.value = cards.note(
            f"Query {shown.query_index} and gallery image {entry.gallery_index}: what in each of the two "
            "supports their similarity, part by part. The table: what each part adds to the squared distance."
        )
        self._table.value = cards.contribution_table(entry, shown.parts)
        self._picture.layout.display = "none"
        self.layout.display = ""
        if model is None:
            raise InputError(
                "part attention needs the network", "features alone", "open a run with its weights"
            )
        self._picture.value = png(_attention(collection, model, shown, entry.gallery_index), 90)
        self._picture.layout.display = ""


def _attention(collection: Collection, model: torch.nn.Module, shown: View, image: int) -> Figure:
    query, size = shown.query_index, collection.input_size
    paths = (collection.query_paths[query], collection.gallery_paths[image])
    decoded = [decode(path, size) for path in paths]
    if unreadable := [found for found in decoded if isinstance(found, Unreadable)]:
        raise UnreadableError(unreadable)
    images = ImageStore(np.stack(decoded), next(model.parameters()).device)
    features_2d = torch.stack([collection.query.features[query], collection.gallery.features[image]])
    # Each image's maps are of its similarity to the other one.
    maps_2phw = part_attention(model, images.batch([0, 1]), features_2d.flip(0), parts=shown.parts)
    similarities_p = part_similarities(features_2d[:1], features_2d[1:], shown.parts)[0]
    return pair_figure(*decoded, *maps_2phw, shown.parts, similarities_p=similarities_p)


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
        self._told.value = cards.note(f"written to {path}")
        return path


def png(figure: Figure, dots_per_inch: int) -> bytes:
    """A figure as a PNG file's content; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return buffer.getvalue()
