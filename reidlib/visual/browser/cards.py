"""What the ranking browser shows: pictures that can be picked, captions, bars and messages.

Whatever comes from files or users (names, ids, messages) passes through ``html.escape``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from string import Template

import ipywidgets as widgets
import numpy as np
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
    return f'<div class="reid-message" role="status">{escape(text)}</div>' if text else ""


def note(text: str) -> str:
    """A line that states something."""
    return f'<div class="reid-note">{escape(text)}</div>'


def query_caption(shown: View, collection: Collection) -> str:
    """Who the query is and how its list did."""
    name = collection.query_paths[shown.query_index].name
    scored = "no match in the gallery"
    if shown.num_matches:
        scored = f"AP {percent(shown.average_precision)} %, first match at rank {shown.first_match_rank}"
        scored += f", {shown.num_matches} in all"
    lines = [
        f"query {shown.query_index}",
        f"person {shown.person}, c{shown.camera}",
        scored,
        name,
    ]
    return f'<div class="reid-caption">{"<br>".join(map(escape, lines))}</div>'


def _rank(entry: Entry) -> str:
    return "no rank" if entry.rank is None else f"rank {entry.rank}"


def entry_words(entry: Entry) -> str:
    """What an image is, in words alone."""
    told = f"{_rank(entry)}, {entry.status.name.lower()}, {entry.who}camera {entry.camera}"
    return f"{told}: compare its parts with the query's"


def entry_caption(entry: Entry, shown: View, collection: Collection, *, longest: float) -> str:
    """What an image is, its distance, and the bars of its parts; ``longest`` is the bars' common scale."""
    status = entry.status.name.lower()
    colour, words = STATUS[status]
    name = collection.gallery_paths[entry.gallery_index].name
    lines = [
        f"<b>{escape(_rank(entry) + entry.shift)}</b>",
        f'<b style="color:{colour}">{escape(words)}</b>',
        f"{entry.distance:.3f}",
        escape(f"{entry.who}c{entry.camera}"),
    ]
    return (
        f'<div class="reid-caption" title="{escape(name)}">{"<br>".join(lines)}'
        f"{bars(shown.parts, entry.contributions, longest=longest)}</div>"
    )


def bars(parts: Sequence[FeaturePart], contributions_p: np.ndarray, *, longest: float) -> str:
    """A bar for each part, what it contributes to the squared distance; SVG, ``longest`` its full width."""
    few = len(parts) <= 8
    height, label = (13, 42) if few else (5, 14)
    room = _BARS_WIDTH - label
    total = max(float(contributions_p.sum()), 1e-12)
    shapes, y, kind = [], 2, None
    for part, value, colour in zip(parts, contributions_p.tolist(), bar_colours(parts), strict=True):
        if part.kind != kind:
            y += 0 if kind is None or few else 4
            if not few:  # a level has one label, before its first bar
                shapes.append(
                    f'<text x="0" y="{y + 5}" font-size="9" fill="{GREY}">'
                    f"{escape(part.kind.removeprefix('level '))}</text>"
                )
            kind = part.kind
        if few:
            shapes.append(f'<text x="0" y="{y + 9}" font-size="10" fill="{INK}">{escape(part.name)}</text>')
        told = f"{part.name}: {value:.3g}, {100 * value / total:.0f} % of the squared distance"
        width = room * min(1.0, value / longest) if longest > 0 else 0.0
        shapes.append(
            f'<rect x="{label}" y="{y}" width="{width:.1f}" height="{height - 2 if few else height - 1}" '
            f'fill="{colour}"><title>{escape(told)}</title></rect>'
        )
        y += height
    if not parts:
        return ""
    most = int(np.argmax(contributions_p))
    spoken = f"parts of the squared distance; most from {parts[most].name}"
    return (
        f'<svg role="img" aria-label="{escape(spoken)}" width="{_BARS_WIDTH}" height="{y + 2}" '
        f'style="display:block;margin:3px auto 0">{"".join(shapes)}</svg>'
    )


def contribution_table(entry: Entry, parts: Sequence[FeaturePart]) -> str:
    """Each part's contribution to a pair's squared distance, in numbers."""
    total = max(float(entry.contributions.sum()), 1e-12)
    rows = "".join(
        f"<tr><td>{escape(part.name)}</td><td>{value:.3g}</td><td>{100 * value / total:.0f} %</td></tr>"
        for part, value in zip(parts, entry.contributions.tolist(), strict=True)
    )
    return (
        '<div style="max-height:640px;overflow:auto">'
        '<table class="reid-caption" style="border-spacing:8px 0">'
        f"<tr><th>part</th><th>squared distance</th><th>share</th></tr>{rows}</table></div>"
    )
