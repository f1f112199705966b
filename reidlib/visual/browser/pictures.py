"""The cards, captions, bars, comparisons and saved files of the ranking browser.

The template ``cards.html`` escapes all text from files and users: names, ids and messages.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from reidlib.analysis.statistics import format_percent
from reidlib.data.decoding import UnreadableImage, UnreadableImagesError, decode, fit_image, thumbnail
from reidlib.data.images import ImageStore
from reidlib.errors import InputError
from reidlib.files import write_atomically
from reidlib.models.parts import FeaturePart
from reidlib.visual import GREY, INK, STATUS
from reidlib.visual.attention.figures import pair_figure
from reidlib.visual.attention.maps import PartModel, indices_by_kind, part_attention
from reidlib.visual.attention.pairs import part_similarities
from reidlib.visual.browser.collection import BenchmarkFeatures
from reidlib.visual.browser.views import Entry, Options, View, bar_colours, write_csv
from reidlib.visual.figures.images import ranked_lists

_IMAGES_PER_ROW = 10
# Largest height and width of a thumbnail, and width of the bar chart of a card, in pixels.
THUMBNAIL = (176, 112)
_BARS_WIDTH = 108
# Largest height and width of an image in a figure, in pixels.
_LARGEST = (512, 512)
# Number of thumbnails in memory, about 5 kB each.
_CACHE_SIZE = 4096

_COLOURS = {"ink": INK} | {status: colour for status, (colour, _) in STATUS.items()}
_TEMPLATES = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
_HTML: Any = _TEMPLATES.get_template("cards.html").module
STYLE = f"<style>\n{_TEMPLATES.get_template('style.css').render(_COLOURS)}\n</style>"


class Card(widgets.VBox):
    """An image with a caption, which the user can select."""

    def __init__(self, on_select: Callable[[], None] | None = None):
        size = {"width": "112px", "height": "176px"}
        self.image = widgets.Image(format="jpeg", layout=size)
        # A button over the image: unlike the image, the keyboard can reach it.
        self.button = widgets.Button(layout=size, disabled=on_select is None)
        self.button.add_class("reid-pick")
        self.button.on_click(lambda _: on_select and on_select())
        self.caption = widgets.HTML()
        self._status = ""
        super().__init__(
            [self.image, self.button, self.caption], layout={"width": "120px", "flex": "0 0 auto"}
        )

    def show(self, jpeg: bytes, caption: str, status: str, description: str) -> None:
        """Show an image with its caption and status; screen readers read the description."""
        self.image.value, self.caption.value, self._status = jpeg, caption, status
        self.button.description = description
        self.mark(False)

    def mark(self, selected: bool) -> None:
        """Mark the card as selected or not selected."""
        classes = ("reid-card", f"reid-{self._status}", *(["reid-selected"] if selected else []))
        if self._dom_classes != classes:
            self._dom_classes = classes


class Thumbnails:
    """Small JPEGs of images by index, which are read on demand and cached."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths
        self._cached = lru_cache(_CACHE_SIZE)(self._create)

    def __call__(self, index: int, unreadable: list[str]) -> bytes:
        """Return an image as JPEG; if its file cannot be read, a grey image, and add its name to the list."""
        try:
            return self._cached(index)
        except OSError:
            unreadable.append(self._paths[index].name)
            return blank()

    def _create(self, index: int) -> bytes:
        image = thumbnail(self._paths[index], *THUMBNAIL)
        if isinstance(image, UnreadableImage):
            raise OSError(image.reason)
        buffer = io.BytesIO()
        fit_image(image, *THUMBNAIL).save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


@lru_cache(1)
def blank() -> bytes:
    """Return a grey JPEG, which replaces an image whose file cannot be read."""
    buffer = io.BytesIO()
    Image.new("RGB", (THUMBNAIL[0] // 2, THUMBNAIL[0]), "#d0d0d0").save(buffer, "JPEG")
    return buffer.getvalue()


def error_line(error: BaseException) -> str:
    """Return the first line of an error; all errors but ``InputError`` also name their type."""
    line = str(error).partition("\n")[0]
    return line if isinstance(error, InputError) else f"{type(error).__name__}: {line}"


def message_html(text: str) -> str:
    """Return a warning as HTML; empty if there is no text."""
    return str(_HTML.message(text))


def note_html(text: str) -> str:
    """Return a line of information as HTML."""
    return str(_HTML.note(text))


def query_caption(query_view: View, collection: BenchmarkFeatures) -> str:
    """Return the caption of a query as HTML: its person, its camera and the scores of its list."""
    name = collection.query_paths[query_view.query_index].name
    return str(_HTML.query_caption(query_view, format_percent(query_view.average_precision), name))


def _rank(entry: Entry) -> str:
    return "no rank" if entry.rank is None else f"rank {entry.rank}"


def describe_entry(entry: Entry) -> str:
    """Describe a gallery image for screen readers."""
    image = f"{_rank(entry)}, {entry.status.name.lower()}, {entry.person_prefix}camera {entry.camera}"
    return f"{image}: compare its parts with the query's parts"


def entry_caption(entry: Entry, query_view: View, collection: BenchmarkFeatures, *, longest: float) -> str:
    """Return the caption of a gallery image as HTML, with bars whose full width stands for ``longest``."""
    name = collection.gallery_paths[entry.gallery_index].name
    status = STATUS[entry.status.name.lower()]
    chart = Markup(bars(query_view.parts, entry.contributions, longest=longest))
    return str(_HTML.entry_caption(entry, _rank(entry) + entry.rank_suffix, status, name, chart))


def bars(parts: Sequence[FeaturePart], contributions_p: np.ndarray, *, longest: float) -> str:
    """Return a bar chart of the parts' contributions as SVG; the full width stands for ``longest``."""
    if not len(contributions_p):  # a learnt metric is no sum over parts
        return ""
    rows, largest = _contributions(parts, contributions_p), parts[int(np.argmax(contributions_p))].name
    return str(_HTML.bars(rows, bar_colours(parts), longest, largest, _BARS_WIDTH, INK, GREY))


def contribution_table(entry: Entry, parts: Sequence[FeaturePart]) -> str:
    """Return a table of each part's contribution to the squared distance as HTML; empty without any."""
    if not len(entry.contributions):
        return ""
    return str(_HTML.contribution_table(_contributions(parts, entry.contributions)))


def _contributions(
    parts: Sequence[FeaturePart], contributions_p: np.ndarray
) -> list[tuple[FeaturePart, float, float]]:
    """Return each part with its contribution, absolute and in per cent of all parts."""
    shares_p = 100 * contributions_p / max(float(contributions_p.sum()), 1e-12)
    return list(zip(parts, contributions_p.tolist(), shares_p.tolist(), strict=True))


def view_figure(views: Sequence[View], collection: BenchmarkFeatures, *, title: str = "") -> Figure:
    """Draw several views below each other.

    Args:
        views: Views of the same parts; a list of more than ten images continues in the next row.
        collection: Their features and files.
        title: Title of the figure.

    Returns:
        The figure: queries, and ranked images with rank, distance and camera, and bars of the parts'
        contributions to the squared distance before re-ranking, all on one scale, unless a metric is no sum
        over parts. If the views are by several distances, each query names its own. An image whose file
        cannot be read is grey.
    """
    queries, labels, rows = [], [], []
    several = len({query_view.options for query_view in views}) > 1
    for query_view in views:
        score = f"AP {format_percent(query_view.average_precision)}" if query_view.num_matches else "no match"
        for start in range(0, max(1, len(query_view.entries)), _IMAGES_PER_ROW):
            rows.append(query_view.entries[start : start + _IMAGES_PER_ROW])
            queries.append(None if start else _image(collection.query_paths[query_view.query_index]))
            name = f"query {query_view.query_index}, c{query_view.camera}\n{score}"
            labels.append("" if start else name + (f"\n{query_view.options.name}" if several else ""))
    parts = views[0].parts
    has_bars = all(len(entry.contributions) for row in rows for entry in row)
    return ranked_lists(
        queries,
        [[_image(collection.gallery_paths[entry.gallery_index]) for entry in row] for row in rows],
        [[entry.status.name.lower() for entry in row] for row in rows],
        labels=labels,
        captions=[[f"{e.distance:.3f}\n{e.person_prefix}c{e.camera}" for e in row] for row in rows],
        ranks=[[f"{e.rank or '–'}{e.rank_suffix}" for e in row] for row in rows],
        bars=[[entry.contributions for entry in row] for row in rows] if has_bars else None,
        bar_names=_bar_names(parts),
        bar_colours=bar_colours(parts),
        title=title,
    )


def _bar_names(parts: Sequence[FeaturePart]) -> list[str]:
    """Return a name per bar: the part's name or, for more than eight parts, each kind once."""
    if len(parts) <= 8:
        return [part.name for part in parts]
    groups = indices_by_kind(parts).items()
    middles = {indices[(len(indices) - 1) // 2]: kind for kind, indices in groups}
    return [middles.get(index, "") for index in range(len(parts))]


def _image(path: Path) -> np.ndarray:
    image = thumbnail(path, *_LARGEST)
    return image if isinstance(image, np.ndarray) else np.full((128, 64, 3), 208, np.uint8)


class Comparison(widgets.VBox):
    """Part attention of a pair and the contribution of each part to its distance; hidden at first."""

    def __init__(self):
        self._note, self._picture, self._table = widgets.HTML(), widgets.Image(format="png"), widgets.HTML()
        self._picture.layout.max_width = "900px"
        pictures = widgets.HBox([self._picture, self._table], layout={"flex_flow": "row wrap"})
        super().__init__([self._note, pictures])
        self.add_class("reid-comparison")
        self.hide()

    def hide(self) -> None:
        """Hide the comparison."""
        self.layout.display = "none"

    def show(
        self, collection: BenchmarkFeatures, model: PartModel | None, query_view: View, entry: Entry
    ) -> None:
        """Compare a view's query with one of its images; the maps need the network, the table does not."""
        self._note.value = note_html(
            f"Query {query_view.query_index} and gallery image {entry.gallery_index}. The maps show what in "
            f"each image supports the similarity of each part. {_table_note(query_view.options, entry)}"
        )
        self._table.value = contribution_table(entry, query_view.parts)
        self._picture.layout.display = "none"
        self.layout.display = ""
        if model is None:
            rule = "part attention needs the network"
            raise InputError(rule, "features without a network", "open a run that has weights")
        self._picture.value = png(_attention(collection, model, query_view, entry.gallery_index), 90)
        self._picture.layout.display = ""


def _table_note(options: Options, entry: Entry) -> str:
    if len(entry.contributions):
        return "The table shows how much each part adds to the squared distance."
    return f"The similarities are those of L2: {options.metric} is no sum over parts."


def _attention(collection: BenchmarkFeatures, model: PartModel, query_view: View, image: int) -> Figure:
    query, size = query_view.query_index, collection.input_size
    paths = (collection.query_paths[query], collection.gallery_paths[image])
    results = [decode(path, size, collection.resize) for path in paths]
    if unreadable := [result for result in results if isinstance(result, UnreadableImage)]:
        raise UnreadableImagesError(unreadable)
    query_hwc, gallery_hwc = (np.asarray(result) for result in results)
    images = ImageStore(np.stack([query_hwc, gallery_hwc]), next(model.parameters()).device)
    features_2d = torch.stack([collection.query.features[query], collection.gallery.features[image]])
    # The maps of each image explain its similarity to the other image.
    query_maps_phw, gallery_maps_phw = part_attention(
        model, images.batch([0, 1]), features_2d.flip(0), parts=query_view.parts
    )
    similarities_p = part_similarities(features_2d[:1], features_2d[1:], query_view.parts)[0]
    maps = query_maps_phw, gallery_maps_phw
    return pair_figure(query_hwc, gallery_hwc, *maps, query_view.parts, similarities_p=similarities_p)


class SaveButtons(widgets.HBox):
    """Two buttons that save the displayed list to ``out``, and the name of the saved file."""

    # File names contain the query, the ranking, and eight digits for run, benchmark and filters, so that
    # different lists are different files. Saving raises InputError if no list is displayed or the folder
    # cannot be written.

    def __init__(self, out: Path, *, save_picture: Callable[[], object], save_list: Callable[[], object]):
        self._out, self._note = out, widgets.HTML()
        picture_button = widgets.Button(description="save picture (PNG)")
        list_button = widgets.Button(description="save list (CSV)")
        picture_button.on_click(lambda _: save_picture())
        list_button.on_click(lambda _: save_list())
        super().__init__([picture_button, list_button, self._note])

    def clear(self) -> None:
        """Remove the name of the saved file."""
        self._note.value = ""

    def save_picture(self, collection: BenchmarkFeatures | None, query_view: View | None) -> Path:
        """Write a view as PNG, and return the file."""
        collection, query_view, path = self._check(collection, query_view, ".png")
        title = [collection.title, query_view.options.description, query_view.options.filters]
        figure = view_figure([query_view], collection, title="\n".join(filter(None, title)))
        return self._write(path, png(figure, 110))

    def save_list(self, collection: BenchmarkFeatures | None, query_view: View | None) -> Path:
        """Write a view as CSV, and return the file."""
        collection, query_view, path = self._check(collection, query_view, ".csv")
        # File names need not be valid Unicode.
        return self._write(path, write_csv(query_view, collection).encode("utf-8", "surrogateescape"))

    def _check(
        self, collection: BenchmarkFeatures | None, query_view: View | None, suffix: str
    ) -> tuple[BenchmarkFeatures, View, Path]:
        """Check that there is a list to save, and return it with the path of its file."""
        self.clear()
        if collection is None or query_view is None or not query_view.entries:
            raise InputError("a saved list has at least one image", "none", "choose a query first")
        options = query_view.options
        words = [f"query{query_view.query_index}", options.feature.replace(" ", "-"), options.metric]
        words += ["reranked"] if options.reranked else []
        digest = hashlib.sha256(f"{collection.title} {options}".encode(errors="replace")).hexdigest()
        return collection, query_view, self._out / f"{'-'.join([*words, digest[:8]])}{suffix}"

    def _write(self, path: Path, content: bytes) -> Path:
        write_atomically(path, lambda partial: partial.write_bytes(content))
        self._note.value = note_html(f"saved to {path}")
        return path


def png(figure: Figure, dots_per_inch: int) -> bytes:
    """Return a figure as the content of a PNG file, and close it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return buffer.getvalue()
