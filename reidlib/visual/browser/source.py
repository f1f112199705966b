"""Where the ranking browser gets what it shows: a run that is chosen, named, or trained on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import torch

from reidlib.errors import InputError
from reidlib.experiments.evaluate import benchmark_of
from reidlib.experiments.features import Collection, open_collection
from reidlib.experiments.setup import Setup
from reidlib.training.device import Execution
from reidlib.training.runs import Run
from reidlib.visual.browser.cards import in_a_line

# What is trained where there is no run yet: two minutes on two cores.
_PROFILE = "quick"
_NO_RUN = InputError(
    "a ranking is that of a trained run",
    "none",
    "choose one above and press load, or press train: about two minutes on two cores",
)


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
        self._unfolded.observe(lambda change: self._fold(not change.new), "value")
        # Of the two ways to name a run the last one that was used holds.
        self._known.observe(lambda change: change.new and setattr(self._folder, "value", ""), "value")
        super().__init__([self._unfolded, self._controls, self._output])
        self._fold(True)
        self._list_runs()

    def _fold(self, folded: bool) -> None:
        self._unfolded.value = not folded
        self._controls.layout.display = "none" if folded else ""

    def _list_runs(self) -> None:
        found = sorted(
            path.parent for path in self._runs.glob("*/weights.pt") if (path.parent / "run.json").is_file()
        )
        self._known.options = [("", None)] + [(folder.name, folder) for folder in found]

    def start(self, run: str | Path | None, benchmark: str | None, data_root: str | Path | None) -> None:
        """Load a run at once, or ask for one."""
        self._benchmark.value, self._data_root.value = benchmark or "", str(data_root or "")
        if run is None:
            self._fold(False)
            self._say(str(_NO_RUN))
        else:
            self._folder.value = str(run)
            self.load()

    def named(self, title: str) -> None:
        """Say what is open, and fold the controls away."""
        self._unfolded.description = f"Run: {title}"
        self._fold(True)

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
            self._show(run, setup.data)

        self._work(train)

    def _open(self, folder: str | Path | None) -> None:
        if not folder:
            raise _NO_RUN
        run = Run.open(folder)
        run.weights()  # before any image is read: says so where they are missing
        root, benchmark = self._data_root.value.strip(), self._benchmark.value.strip()
        self._show(run, benchmark_of(run, root, benchmark=benchmark))

    def _show(self, run: Run, benchmark) -> None:
        collection, model = open_collection(run, benchmark, execution=self._execution)
        self._opened(collection, model)

    def _work(self, task: Callable[[], None]) -> None:
        """Do what takes long, under a bar; what goes wrong is said."""
        self._say("")
        self._load.disabled = True
        self._output.clear_output()
        try:
            with self._output:
                print("loading …")
                try:
                    task()
                except (Exception, KeyboardInterrupt) as error:  # JupyterLab hides what a callback raises
                    self._fold(False)
                    self._say(in_a_line(error))
            self._output.clear_output()
        finally:
            self._load.disabled = False
