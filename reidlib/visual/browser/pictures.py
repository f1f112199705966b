"""What the ranking browser draws: cards with pictures, captions and bars; a pair part by part; what is saved.

Whatever comes from files or users (names, ids, messages) is escaped by the template ``cards.html``.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from reidlib.analysis.statistics import percent
from reidlib.data.images import ImageStore, Unreadable, UnreadableError, decode, fitted
from reidlib.errors import InputError
from reidlib.files import write_whole
from reidlib.models.parts import FeaturePart
from reidlib.visual import GREY, INK, STATUS
from reidlib.visual.attention.figures import pair_figure
from reidlib.visual.attention.maps import indices_by_kind, part_attention
from reidlib.visual.attention.pairs import part_similarities
from reidlib.visual.browser.collection import Collection
from reidlib.visual.browser.views import Entry, View, bar_colours, write_csv
from reidlib.visual.figures.images import ranked_lists

_WIDE = 10  # images of a row
# Pixels: of a thumbnail at most, and of a bar chart in a card.
THUMBNAIL = (176, 112)
_BARS_WIDTH = 108
# Thumbnails in memory, about 5 kB each.
_KEPT = 4096

_COLOURS = {"ink": INK} | {status: colour for status, (colour, _) in STATUS.items()}
_TEMPLATES = Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
_HTML = _TEMPLATES.get_template("cards.html").module
STYLE = f"<style>\n{_TEMPLATES.get_template('style.css').render(_COLOURS)}\n</style>"


class Card(widgets.VBox):
    """A picture that can be picked, with a caption."""

    def __init__(self, picked: Callable[[], None] | None = None):
        size = {"width": "112px", "height": "176px"}
        self.image = widgets.Image(format="jpeg", layout=size)
        # A button over the picture: it can be reached by keyboard, which a picture cannot.
        self.button = widgets.Button(layout=size, disabled=picked is None)
        self.button.add_class("reid-pick")
        self.button.on_click(lambda _: picked and picked())
        self.caption = widgets.HTML()
        self._status = ""
        super().__init__(
            [self.image, self.button, self.caption], layout={"width": "120px", "flex": "0 0 auto"}
        )

    def show(self, jpeg: bytes, caption: str, status: str, told: str) -> None:
        """``told`` is what the picture is, for those who hear it and do not see it."""
        self.image.value, self.caption.value, self._status = jpeg, caption, status
        self.button.description = told
        self.mark(False)

    def mark(self, chosen: bool) -> None:
        """Show that this is the picture that is compared, or that it is not."""
        classes = ("reid-card", f"reid-{self._status}", *(["reid-chosen"] if chosen else []))
        if self._dom_classes != classes:
            self._dom_classes = classes


class Thumbnails:
    """Small JPEGs of images by index, read when first wanted and kept, the latest few thousand."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths
        self._kept = lru_cache(_KEPT)(self._made)

    def __call__(self, index: int, missing: list[str]) -> bytes:
        """An image's JPEG; grey, and its name added to ``missing``, where its file cannot be read now."""
        try:
            return self._kept(index)
        except OSError:
            missing.append(self._paths[index].name)
            return blank()

    def _made(self, index: int) -> bytes:
        image = decode(self._paths[index])
        if isinstance(image, Unreadable):
            raise OSError(image.reason)
        buffer = io.BytesIO()
        fitted(image, *THUMBNAIL).save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


@lru_cache(1)
def blank() -> bytes:
    """What stands in for an image whose file cannot be read: a grey field."""
    buffer = io.BytesIO()
    Image.new("RGB", (THUMBNAIL[0] // 2, THUMBNAIL[0]), "#d0d0d0").save(buffer, "JPEG")
    return buffer.getvalue()


def error_line(error: BaseException) -> str:
    """An error as one line; with its type where it is no ``InputError``, whose text alone says little."""
    told = str(error).partition("\n")[0]
    return told if isinstance(error, InputError) else f"{type(error).__name__}: {told}"


def message(text: str) -> str:
    """A message in the form of an error; nothing for no text."""
    return str(_HTML.message(text))


def note(text: str) -> str:
    """A line that states something."""
    return str(_HTML.note(text))


def query_caption(shown: View, collection: Collection) -> str:
    """Who the query is and how its list did."""
    name = collection.query_paths[shown.query_index].name
    return str(_HTML.query_caption(shown, percent(shown.average_precision), name))


def _rank(entry: Entry) -> str:
    return "no rank" if entry.rank is None else f"rank {entry.rank}"


def entry_words(entry: Entry) -> str:
    """What an image is, in words alone."""
    told = f"{_rank(entry)}, {entry.status.name.lower()}, {entry.who}camera {entry.camera}"
    return f"{told}: compare its parts with the query's"


def entry_caption(entry: Entry, shown: View, collection: Collection, *, longest: float) -> str:
    """What an image is, its distance, and the bars of its parts; ``longest`` is the bars' common scale."""
    name = collection.gallery_paths[entry.gallery_index].name
    status = STATUS[entry.status.name.lower()]
    drawn = Markup(bars(shown.parts, entry.contributions, longest=longest))
    return str(_HTML.entry_caption(entry, _rank(entry) + entry.shift, status, name, drawn))


def bars(parts: Sequence[FeaturePart], contributions_p: np.ndarray, *, longest: float) -> str:
    """A bar for each part, what it contributes to the squared distance; SVG, ``longest`` its full width."""
    if not parts:
        return ""
    told, most = _told(parts, contributions_p), parts[int(np.argmax(contributions_p))].name
    return str(_HTML.bars(told, bar_colours(parts), longest, most, _BARS_WIDTH, INK, GREY))


def contribution_table(entry: Entry, parts: Sequence[FeaturePart]) -> str:
    """Each part's contribution to a pair's squared distance, in numbers."""
    return str(_HTML.contribution_table(_told(parts, entry.contributions)))


def _told(
    parts: Sequence[FeaturePart], contributions_p: np.ndarray
) -> list[tuple[FeaturePart, float, float]]:
    """Each part with its contribution, in absolute numbers and in per cent of all parts'."""
    shares_p = 100 * contributions_p / max(float(contributions_p.sum()), 1e-12)
    return list(zip(parts, contributions_p.tolist(), shares_p.tolist(), strict=True))


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
    middles = {places[(len(places) - 1) // 2]: kind for kind, places in indices_by_kind(parts).items()}
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
        self._told.value = note(
            f"Query {shown.query_index} and gallery image {entry.gallery_index}: what in each of the two "
            "supports their similarity, part by part. The table: what each part adds to the squared distance."
        )
        self._table.value = contribution_table(entry, shown.parts)
        self._picture.layout.display = "none"
        self.layout.display = ""
        if model is None:
            rule = "part attention needs the network"
            raise InputError(rule, "features alone", "open a run with its weights")
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
        self._told.value = note(f"written to {path}")
        return path


def png(figure: Figure, dots_per_inch: int) -> bytes:
    """A figure as a PNG file's content; the figure is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return buffer.getvalue()
