"""The ranking browser's rows of controls: which query, and how its gallery is ranked and shown."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np
import traitlets

from reidlib.errors import InputError, shorten
from reidlib.experiments.features import Collection
from reidlib.visual.browser.views import METRICS, ORDERS

MOST_SHOWN = 50
# The choice of every camera; None would show as no choice at all.
ALL = "all"
# The controls whose choices depend on nothing that is opened, by the browser's trait that they turn.
_LINKED = ("order", "query_person", "metric", "reranked", "top", "persons", "show_ignored")


class Controls(widgets.VBox):
    """Two rows of controls, bound to a browser's traits.

    step: called with −1 or 1 by the buttons. go_to: called with a query's index. turned: called with a
    trait's name and value by controls whose choices may be changed under them.
    """

    def __init__(
        self,
        browser: traitlets.HasTraits,
        *,
        step: Callable[[int], None],
        go_to: Callable[[int], None],
        turned: Callable[[str, object], None],
    ):
        def style(width: int, description: int = 70) -> dict:
            return {"layout": {"width": f"{width}px"}, "style": {"description_width": f"{description}px"}}

        typed = {"placeholder": "all", "continuous_update": False, **style(180, 80)}
        orders = [(told, name) for name, told in ORDERS.items()]
        metrics = [(told, name) for name, told in METRICS.items()]
        self.order = widgets.Dropdown(description="queries", options=orders, **style(370))
        self.query_person = widgets.Text(description="of person", **typed)
        self.query_camera = widgets.Dropdown(description="of camera", options=[ALL], **style(150))
        self.previous = widgets.Button(description="◀ previous", layout={"width": "100px"})
        self.next = widgets.Button(description="next ▶", layout={"width": "100px"})
        self.place = widgets.IntSlider(1, 1, 1, description="place", continuous_update=False, **style(320))
        self.index = widgets.BoundedIntText(0, 0, 0, description="query", **style(150))
        self.feature = widgets.Dropdown(description="feature", options=["full"], **style(180))
        self.metric = widgets.Dropdown(description="distance", options=metrics, **style(180))
        self.reranked = widgets.Checkbox(description="re-rank by k-reciprocal neighbours", indent=False)
        self.top = widgets.IntSlider(
            10, 1, MOST_SHOWN, description="images", continuous_update=False, **style(300)
        )
        self.cameras = widgets.SelectMultiple(description="only cameras", rows=3, **style(190, 105))
        self.cameras.tooltip = "gallery images of these cameras; none chosen: all"
        self.persons = widgets.Text(description="only person", **typed)
        self.show_ignored = widgets.Checkbox(description="show ignored images", indent=False)
        self.reranked.layout.width, self.show_ignored.layout.width = "260px", "180px"
        for name in _LINKED:
            traitlets.link((browser, name), (getattr(self, name), "value"))
        for name in ("feature", "cameras", "query_camera"):
            getattr(self, name).observe(lambda change, name=name: turned(name, change.new), "value")
        self.place.observe(lambda change: turned("position", change.new - 1), "value")
        self.index.observe(lambda change: go_to(change.new), "value")
        self.previous.on_click(lambda _: step(-1))
        self.next.on_click(lambda _: step(1))
        wrapped = {"flex_flow": "row wrap", "align_items": "center"}
        query_row = [self.order, self.query_person, self.query_camera]
        query_row += [self.previous, self.next, self.place, self.index]
        list_row = [self.feature, self.metric, self.reranked, self.top]
        list_row += [self.cameras, self.persons, self.show_ignored]
        self._all = (*query_row, *list_row)
        super().__init__([widgets.HBox(row, layout=wrapped) for row in (query_row, list_row)])
        self.enable(False)

    def enable(self, enabled: bool) -> None:
        """Let the controls be turned, or grey them out."""
        for control in self._all:
            control.disabled = not enabled

    def fit(self, collection: Collection) -> None:
        """Offer what a collection has."""
        self.feature.options = sorted(collection.branches, key=lambda name: name != "full")
        there = np.unique(collection.gallery.camera_ids).tolist()
        self.cameras.options = [(str(camera), camera) for camera in there]
        there = np.unique(collection.query.camera_ids).tolist()
        self.query_camera.options = [(ALL, ALL), *((str(camera), camera) for camera in there)]
        self.index.max = len(collection.query) - 1
        self.enable(True)

    def follow(self, browser: traitlets.HasTraits) -> None:
        """Show what the browser's traits say. Raises InputError for what the collection does not have."""
        for name in ("feature", "query_camera"):
            control, value = getattr(self, name), getattr(browser, name)
            choices = [choice[1] if isinstance(choice, tuple) else choice for choice in control.options]
            if value not in choices:
                rule = f"{name} is one of {shorten(choices, 12)}"
                raise InputError(rule, repr(value), "choose one of those")
            control.value = value
        choices = [camera for _, camera in self.cameras.options]
        if unknown := [camera for camera in browser.cameras if camera not in choices]:
            rule = f"the cameras of gallery images are {shorten(choices, 12)}"
            raise InputError(rule, shorten(unknown), "choose some of those")
        self.cameras.value = browser.cameras
