"""What the ranking browser shows: pictures that can be picked, captions, bars and messages.

Whatever comes from files or users (names, ids, messages) is escaped by the template ``cards.html``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from string import Template

import ipywidgets as widgets
import numpy as np
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

from reidlib.analysis.statistics import percent
from reidlib.data.images import Unreadable, decode
from reidlib.errors import InputError
from reidlib.experiments.features import Collection
from reidlib.models.parts import FeaturePart
from reidlib.visual import GREY, INK, STATUS
from reidlib.visual.browser.views import Entry, View, bar_colours

# Pixels: of a thumbnail at most, and of a bar chart in a card.
THUMBNAIL = (176, 112)
_BARS_WIDTH = 108
# Thumbnails in memory, about 5 kB each.
_KEPT = 4096

_COLOURS = {"ink": INK} | {status: colour for status, (colour, _) in STATUS.items()}
_STYLESHEET = Template(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))
_HTML = (
    Environment(autoescape=True, loader=FileSystemLoader(Path(__file__).parent))
    .get_template("cards.html")
    .module
)
STYLE = f"<style>\n{_STYLESHEET.substitute(_COLOURS)}</style>"


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

    def __call__(self, index: int) -> bytes | None:
        """An image's JPEG; None where its file cannot be read, which is tried again the next time."""
        try:
            return self._kept(index)
        except OSError:
            return None

    def _made(self, index: int) -> bytes:
        image = decode(self._paths[index])
        if isinstance(image, Unreadable):
            raise OSError(image.reason)
        height, width = image.shape[:2]
        scale = min(THUMBNAIL[0] / height, THUMBNAIL[1] / width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        buffer = io.BytesIO()
        Image.fromarray(image).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


@lru_cache(1)
def blank() -> bytes:
    """What stands in for an image whose file cannot be read: a grey field."""
    buffer = io.BytesIO()
    Image.new("RGB", (THUMBNAIL[0] // 2, THUMBNAIL[0]), "#d0d0d0").save(buffer, "JPEG")
    return buffer.getvalue()


def in_a_line(error: BaseException) -> str:
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
    told = _told(parts, contributions_p)
    for part, value, colour in zip(told, contributions_p.tolist(), bar_colours(parts), strict=True):
        part |= {"colour": colour, "length": min(1.0, value / longest) if longest > 0 else 0.0}
    return str(_HTML.bars(told, parts[int(np.argmax(contributions_p))].name, _BARS_WIDTH, INK, GREY))


def contribution_table(entry: Entry, parts: Sequence[FeaturePart]) -> str:
    """Each part's contribution to a pair's squared distance, in numbers."""
    return str(_HTML.contribution_table(_told(parts, entry.contributions)))


def _told(parts: Sequence[FeaturePart], contributions_p: np.ndarray) -> list[dict]:
    """Each part's name, kind and contribution, in absolute numbers and as a share, as texts."""
    total = max(float(contributions_p.sum()), 1e-12)
    return [
        {
            "name": part.name,
            "kind": part.kind,
            "value": f"{value:.3g}",
            "share": f"{100 * value / total:.0f} %",
        }
        for part, value in zip(parts, contributions_p.tolist(), strict=True)
    ]
