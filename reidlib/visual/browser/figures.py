"""Views of ranked galleries as figures, for reports and for what the browser saves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reidlib.analysis.statistics import percent
from reidlib.data.images import decode
from reidlib.experiments.features import Collection
from reidlib.models.parts import FeaturePart
from reidlib.visual.browser.views import Entry, View, bar_colours, moved
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
        captions=[[_caption(entry) for entry in row] for row in rows],
        ranks=[[_place(entry) for entry in row] for row in rows],
        bars=[[entry.contributions for entry in row] for row in rows],
        bar_names=_bar_names(parts),
        bar_colours=bar_colours(parts),
        title=title,
    )


def _caption(entry: Entry) -> str:
    person = f"person {entry.person}, " if entry.person > 0 else ""
    return f"{entry.distance:.3f}\n{person}c{entry.camera}"


def _place(entry: Entry) -> str:
    rank = "–" if entry.rank is None else str(entry.rank)
    return rank if entry.moved is None else f"{rank} {moved(entry.moved)}"


def _bar_names(parts: Sequence[FeaturePart]) -> list[str]:
    """The parts' names, or where they are too many for that their kinds', each once."""
    if len(parts) <= 8:
        return [part.name for part in parts]
    kinds = [part.kind for part in parts]
    middles = {kind: kinds.index(kind) + (kinds.count(kind) - 1) // 2 for kind in kinds}
    return [kind if middles[kind] == place else "" for place, kind in enumerate(kinds)]


def _image(path: Path) -> np.ndarray:
    image = decode(path)
    return image if isinstance(image, np.ndarray) else np.full((128, 64, 3), 208, np.uint8)
