"""The controls of the ranking browser: run, query, ranking and filters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import numpy as np
import traitlets

from reidlib.errors import InputError, check_choice, shorten
from reidlib.experiments.evaluate import load_benchmark
from reidlib.experiments.rows import get_profile
from reidlib.experiments.setup import Setup
from reidlib.training.device import Execution
from reidlib.training.runs import Run
from reidlib.visual.attention.maps import PartModel
from reidlib.visual.browser.collection import BenchmarkFeatures, embed_benchmark
from reidlib.visual.browser.pictures import error_line
from reidlib.visual.browser.views import METRICS, ORDERS

MAX_TOP = 50
# Selects all cameras; None would look like a missing selection.
ALL = "all"
# The traits whose controls have the same choices for every collection.
_LINKED = ("order", "query_person", "metric", "reranked", "top", "persons", "show_ignored")
# The profile of a training that the browser starts: two minutes on two cores.
_PROFILE = "quick"
_NO_RUN = InputError(
    "a ranking needs a trained run",
    "none",
    "choose a run above and press load, or press train, which takes about two minutes on two CPU cores",
)


class Controls(widgets.VBox):
    """Two rows of controls that are bound to the traits of a browser."""

    # go_to is called with a query's index. Controls with choices that depend on the collection call on_change
    # with a trait's name and value.

    def __init__(
        self,
        browser: Any,
        *,
        go_to: Callable[[int], None],
        on_change: Callable[[str, object], None],
    ):
        def style(width: int, description: int = 70) -> dict:
            return {"layout": {"width": f"{width}px"}, "style": {"description_width": f"{description}px"}}

        text_field = {"placeholder": "all", "continuous_update": False, **style(180, 105)}
        orders = [(text, name) for name, text in ORDERS.items()]
        metrics = [(text, name) for name, text in METRICS.items()]
        self.order = widgets.Dropdown(description="query order", options=orders, **style(380, 80))
        self.query_person = widgets.Text(description="query person", **text_field)
        self.query_camera = widgets.Dropdown(description="query camera", options=[ALL], **style(180, 95))
        self.previous = widgets.Button(description="◀ previous", layout={"width": "100px"})
        self.next = widgets.Button(description="next ▶", layout={"width": "100px"})
        self.position = widgets.IntSlider(
            1, 1, 1, description="position in the order", continuous_update=False, **style(385, 155)
        )
        self.index = widgets.BoundedIntText(0, 0, 0, description="query index", **style(170, 80))
        self.feature = widgets.Dropdown(description="feature", options=["full"], **style(180))
        self.metric = widgets.Dropdown(description="distance", options=metrics, **style(180))
        self.reranked = widgets.Checkbox(description="re-rank by k-reciprocal neighbours", indent=False)
        self.top = widgets.IntSlider(
            10, 1, MAX_TOP, description="images shown", continuous_update=False, **style(300, 95)
        )
        self.cameras = widgets.SelectMultiple(description="gallery cameras", rows=3, **style(190, 105))
        self.cameras.tooltip = "show only gallery images of the selected cameras; without a selection, of all"
        self.persons = widgets.Text(description="gallery persons", **text_field)
        self.show_ignored = widgets.Checkbox(description="show ignored images", indent=False)
        self.reranked.layout.width, self.show_ignored.layout.width = "260px", "165px"
        for name in _LINKED:
            traitlets.link((browser, name), (getattr(self, name), "value"))
        for name in ("feature", "cameras", "query_camera"):
            getattr(self, name).observe(lambda change, name=name: on_change(name, change.new), "value")
        self.position.observe(lambda change: on_change("position", change.new - 1), "value")
        self.index.observe(lambda change: go_to(change.new), "value")
        for button, step in ((self.previous, -1), (self.next, 1)):
            button.on_click(lambda _, step=step: setattr(browser, "position", browser.position + step))
        wrapped = {"flex_flow": "row wrap", "align_items": "center"}
        query_row = [self.order, self.query_person, self.query_camera]
        steps = widgets.HBox([self.previous, self.next])  # never on two lines
        query_row += [steps, self.position, self.index]
        list_row = [self.feature, self.metric, self.reranked, self.top]
        list_row += [self.cameras, self.persons, self.show_ignored]
        self._all = (*query_row[:3], self.previous, self.next, self.position, self.index, *list_row)
        super().__init__([widgets.HBox(row, layout=wrapped) for row in (query_row, list_row)])
        for control in self._all:
            control.disabled = True  # until a collection is open

    def fit(self, collection: BenchmarkFeatures) -> None:
        """Offer the branches, cameras and queries of a collection."""
        self.feature.options = sorted(collection.branches, key=lambda name: name != "full")
        cameras = np.unique(collection.gallery.camera_ids).tolist()
        self.cameras.options = [(str(camera), camera) for camera in cameras]
        cameras = np.unique(collection.query.camera_ids).tolist()
        self.query_camera.options = [(ALL, ALL), *((str(camera), camera) for camera in cameras)]
        self.index.max = len(collection.query) - 1
        for control in self._all:
            control.disabled = False

    def follow(self, browser: Any) -> None:
        """Show the values of the browser's traits; raise InputError if the collection does not have them."""
        for name in ("feature", "query_camera"):
            control, value = getattr(self, name), getattr(browser, name)
            choices = [choice[1] if isinstance(choice, tuple) else choice for choice in control.options]
            rule = f"{name} is one of {shorten(choices, 12)}"
            check_choice(rule, value, choices)
            control.value = value
        choices = [camera for _, camera in self.cameras.options]
        if unknown := [camera for camera in browser.cameras if camera not in choices]:
            rule = f"the cameras of the gallery images are {shorten(choices, 12)}"
            raise InputError(rule, shorten(unknown), "choose from these")
        self.cameras.value = browser.cameras


class RunChooser(widgets.VBox):
    """Controls that open a run and the benchmark to search, or train a run."""

    # on_open is called with a collection and its network, show_message with a message, or "" to remove it.

    def __init__(
        self,
        runs: Path,
        device: str,
        *,
        on_open: Callable[[BenchmarkFeatures, PartModel], None],
        show_message: Callable[[str], None],
    ):
        self._runs, self._on_open, self._show_message = runs, on_open, show_message
        self._execution = Execution(device=device)
        wide = {"layout": {"width": "520px"}, "style": {"description_width": "90px"}}
        self._run = widgets.Dropdown(description="run", **wide)
        self._folder = widgets.Text(description="or run folder", placeholder="folder of another run", **wide)
        self._benchmark = widgets.Text(
            description="benchmark", placeholder="default: the benchmark of the training", **wide
        )
        self._data_root = widgets.Text(
            description="data folder", placeholder="default: the folder of the training", **wide
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
        controls = [self._run, self._folder, self._benchmark, self._data_root, widgets.HBox(buttons)]
        # A button, which the keyboard can reach, hides the controls.
        self._unfolded = widgets.ToggleButton(description="Run", layout={"width": "auto"})
        self._controls = widgets.VBox(controls)
        folded = (self._unfolded, "value"), (self._controls.layout, "display")
        traitlets.dlink(*folded, lambda unfolded: "" if unfolded else "none")
        # A run that is chosen from the list replaces a folder that was typed.
        self._run.observe(lambda change: change.new and setattr(self._folder, "value", ""), "value")
        super().__init__([self._unfolded, self._controls, self._output])
        self._list_runs()

    def _list_runs(self) -> None:
        weights = self._runs.glob("*/weights.pt")
        folders = sorted(path.parent for path in weights if (path.parent / "run.json").is_file())
        self._run.options = [("", None)] + [(folder.name, folder) for folder in folders]

    def start(self, run: str | Path | None, benchmark: str | None, data_root: str | Path | None) -> None:
        """Open a run, or ask the user to choose one."""
        self._benchmark.value, self._data_root.value = benchmark or "", str(data_root or "")
        if run is None:
            self._unfolded.value = True
            self._show_message(str(_NO_RUN))
        else:
            self._folder.value = str(run)
            self.load()

    def set_title(self, title: str) -> None:
        """Show which run and benchmark are open, and hide the controls."""
        self._unfolded.description = f"Run: {title}"
        self._unfolded.value = False

    def load(self) -> None:
        """Open the run whose folder is typed or, without one, the run that is chosen from the list."""
        folder = self._folder.value.strip() or self._run.value
        self._show_progress(lambda: self._open(folder))

    def train(self, name: str) -> None:
        """Open a run of the embedded benchmark, which is trained first if it does not exist."""

        def train() -> None:
            setup = Setup(get_profile(_PROFILE), device=self._execution.device, runs=self._runs)
            run = setup.obtain(name)
            self._list_runs()
            self._folder.value, self._run.value = "", run.folder
            self._on_open(*embed_benchmark(run, setup.data, execution=self._execution))

        self._show_progress(train)

    def _open(self, folder: str | Path | None) -> None:
        if not folder:
            raise _NO_RUN
        run = Run.open(folder)
        run.weights()  # raises an error for missing weights before any image is read
        root, specification = self._data_root.value.strip(), self._benchmark.value.strip()
        benchmark = load_benchmark(run, root, benchmark=specification)
        self._on_open(*embed_benchmark(run, benchmark, execution=self._execution))

    def _show_progress(self, task: Callable[[], None]) -> None:
        """Run a task with its progress output, and show its exceptions as messages."""
        self._show_message("")
        self._load.disabled = True
        self._output.clear_output()
        with self._output:
            print("loading …")
            try:
                task()
            except (Exception, KeyboardInterrupt) as error:  # JupyterLab hides what a callback raises
                self._unfolded.value = True
                self._show_message(error_line(error))
            finally:
                self._load.disabled = False
        self._output.clear_output()
