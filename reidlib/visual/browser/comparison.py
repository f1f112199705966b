"""The ranking browser's lower half: a gallery image beside the query, part by part."""

from __future__ import annotations

import io

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from reidlib.data.images import ImageStore, Unreadable, UnreadableError, decode
from reidlib.errors import InputError
from reidlib.experiments.features import Collection
from reidlib.visual.attention.figures import pair_figure
from reidlib.visual.attention.maps import part_attention
from reidlib.visual.attention.pairs import part_similarities
from reidlib.visual.browser import cards as cards
from reidlib.visual.browser.views import Entry, View


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


def png(figure: Figure, dots_per_inch: int) -> bytes:
    """A figure as a PNG file's content; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return buffer.getvalue()
