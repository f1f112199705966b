"""The ranking browser's controls: which run is open, which query, how its gallery is ranked and shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import torch
import traitlets

from reidlib.errors import InputError, check_choice, shorten
from reidlib.experiments.evaluate import benchmark_of
from reidlib.experiments.setup import Setup
from reidlib.training.device import Execution
from reidlib.training.runs import Run
from reidlib.visual.browser.collection import Collection, open_collection
from reidlib.visual.browser.pictures import error_line
from reidlib.visual.browser.views import METRICS, ORDERS

MOST_SHOWN = 50
# The choice of every camera; None would show as no choice at all.
ALL = "all"
# The controls whose choices depend on nothing that is opened, by the browser's trait that they turn.
_LINKED = ("order", "query_person", "metric", "reranked", "top", "persons", "show_ignored")
# What is trained where there is no run yet: two minutes on two cores.
_PROFILE = "quick"
_NO_RUN = InputError(
    "a ranking is that of a trained run",
    "none",
    "choose one above and press load, or press train: about two minutes on two cores",
)


class Controls(widgets.VBox):
    """Two rows of controls, bound to a browser's traits.

    go_to: called with a query's index. turned: called with a
    trait's name and value by controls whose choices may be changed under them.
    """

    def __init__(
        self,
        browser: traitlets.HasTraits,
        *,
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
        for button, by in ((self.previous, -1), (self.next, 1)):
            button.on_click(lambda _, by=by: setattr(browser, "position", browser.position + by))
        wrapped = {"flex_flow": "row wrap", "align_items": "center"}
        query_row = [self.order, self.query_person, self.query_camera]
        query_row += [self.previous, self.next, self.place, self.index]
        list_row = [self.feature, self.metric, self.reranked, self.top]
        list_row += [self.cameras, self.persons, self.show_ignored]
        self._all = (*query_row, *list_row)
        super().__init__([widgets.HBox(row, layout=wrapped) for row in (query_row, list_row)])
        for control in self._all:
            control.disabled = True  # until there is something to show

    def fit(self, collection: Collection) -> None:
        """Offer what a collection has."""
        self.feature.options = sorted(collection.branches, key=lambda name: name != "full")
        there = np.unique(collection.gallery.camera_ids).tolist()
        self.cameras.options = [(str(camera), camera) for camera in there]
        there = np.unique(collection.query.camera_ids).tolist()
        self.query_camera.options = [(ALL, ALL), *((str(camera), camera) for camera in there)]
        self.index.max = len(collection.query) - 1
        for control in self._all:
            control.disabled = False

    def follow(self, browser: traitlets.HasTraits) -> None:
        """Show what the browser's traits say. Raises InputError for what the collection does not have."""
        for name in ("feature", "query_camera"):
            control, value = getattr(self, name), getattr(browser, name)
            choices = [choice[1] if isinstance(choice, tuple) else choice for choice in control.options]
            rule = f"{name} is one of {shorten(choices, 12)}"
            check_choice(rule, value, choices, "choose one of those")
            control.value = value
        choices = [camera for _, camera in self.cameras.options]
        if unknown := [camera for camera in browser.cameras if camera not in choices]:
            rule = f"the cameras of gallery images are {shorten(choices, 12)}"
            raise InputError(rule, shorten(unknown), "choose some of those")
        self.cameras.value = browser.cameras


class RunChooser(widgets.VBox):
    """Controls that choose a run and what it searches, or train one.

    runs: the folder of runs. device: of the network. opened: called with a collection and the network.
    say: called with a message; with "" when all is well.
    """

    def __init__(
        self,
        runs: Path,
        device: str,
        *,
        opened: Callable[[Collection, torch.nn.Module], None],
        say: Callable[[str], None],
    ):
        self._runs, self._opened, self._say = runs, opened, say
        self._execution = Execution(device=device)
        wide = {"layout": {"width": "520px"}, "style": {"description_width": "90px"}}
        self._known = widgets.Dropdown(description="run", **wide)
        self._folder = widgets.Text(description="or a folder", placeholder="of a run elsewhere", **wide)
        self._benchmark = widgets.Text(
            description="benchmark", placeholder="the one it was trained on", **wide
        )
        self._data_root = widgets.Text(
            description="data folder", placeholder="as when it was trained", **wide
        )
        self._load = widgets.Button(description="load", button_style="primary")
        self._load.add_class("reid-load")
        self._load.on_click(lambda _: self.load())
        buttons = [self._load]
        for name in ("jlml", "pyramid"):
            button = widgets.Button(description=f"train {name}", tooltip=f"profile {_PROFILE}")
            button.on_click(lambda _, name=name: self.train(name))
            buttons.append(button)
        self._output = widgets.Output()
        controls = [self._known, self._folder, self._benchmark, self._data_root, widgets.HBox(buttons)]
        # A button, which a keyboard reaches, folds the controls away.
        self._unfolded = widgets.ToggleButton(description="Run", layout={"width": "auto"})
        self._controls = widgets.VBox(controls)
        folded = (self._unfolded, "value"), (self._controls.layout, "display")
        traitlets.dlink(*folded, lambda unfolded: "" if unfolded else "none")
        # Of the two ways to name a run the last one that was used holds.
        self._known.observe(lambda change: change.new and setattr(self._folder, "value", ""), "value")
        super().__init__([self._unfolded, self._controls, self._output])
        self._list_runs()

    def _list_runs(self) -> None:
        weights = self._runs.glob("*/weights.pt")
        found = sorted(path.parent for path in weights if (path.parent / "run.json").is_file())
        self._known.options = [("", None)] + [(folder.name, folder) for folder in found]

    def start(self, run: str | Path | None, benchmark: str | None, data_root: str | Path | None) -> None:
        """Load a run at once, or ask for one."""
        self._benchmark.value, self._data_root.value = benchmark or "", str(data_root or "")
        if run is None:
            self._unfolded.value = True
            self._say(str(_NO_RUN))
        else:
            self._folder.value = str(run)
            self.load()

    def named(self, title: str) -> None:
        """Say what is open, and fold the controls away."""
        self._unfolded.description = f"Run: {title}"
        self._unfolded.value = False

    def load(self) -> None:
        """Open the run that the controls name; a folder that was typed comes before one of the list."""
        folder = self._folder.value.strip() or self._known.value
        self._work(lambda: self._open(folder))

    def train(self, name: str) -> None:
        """Train a network on the embedded benchmark, or find it trained, and open it."""

        def train() -> None:
            setup = Setup(_PROFILE, device=self._execution.device, runs=self._runs)
            run = setup.obtain(name)
            self._list_runs()
            self._folder.value, self._known.value = "", run.folder
            self._opened(*open_collection(run, setup.data, execution=self._execution))

        self._work(train)

    def _open(self, folder: str | Path | None) -> None:
        if not folder:
            raise _NO_RUN
        run = Run.open(folder)
        run.weights()  # before any image is read: says so where they are missing
        root, benchmark = self._data_root.value.strip(), self._benchmark.value.strip()
        searched = benchmark_of(run, root, benchmark=benchmark)
        self._opened(*open_collection(run, searched, execution=self._execution))

    def _work(self, task: Callable[[], None]) -> None:
        """Do what takes long, under a bar; what goes wrong is said."""
        self._say("")
        self._load.disabled = True
        self._output.clear_output()
        with self._output:
            print("loading …")
            try:
                task()
            except (Exception, KeyboardInterrupt) as error:  # JupyterLab hides what a callback raises
                self._unfolded.value = True
                self._say(error_line(error))
            finally:
                self._load.disabled = False
        self._output.clear_output()
