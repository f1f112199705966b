"""A real JupyterLab and a real Chromium on this machine, with screenshots.

Screenshots are kept in ``$REIDLIB_SCREENSHOTS``, by default ``reports/screenshots`` of the clone.
"""

import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

PROJECT = Path(__file__).resolve().parents[1]
TOKEN = "reidlib"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WITHOUT_CHROMIUM = "needs Chromium (on Debian: apt-get install chromium)"


@pytest.fixture(scope="module")  # ended before other tests need the memory
def chromium(tmp_path_factory):
    """A browser context with a new profile."""
    from playwright.sync_api import sync_playwright  # needed by nothing else in the tests

    assert CHROMIUM is not None, WITHOUT_CHROMIUM
    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            viewport={"width": 1500, "height": 1100},
        )
        context.set_default_timeout(600_000)
        yield context
        context.close()


@pytest.fixture(scope="module")  # ended before other tests need the memory
def home(tmp_path_factory):
    """The folder of everything generated."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")  # ended before other tests need the memory
def served(home, tmp_path_factory):
    """The folder that JupyterLab and voila serve; ``put`` copies notebooks there."""
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")  # ended before other tests need the memory
def lab(home, served):
    """The address of a JupyterLab that serves this folder."""
    disable = ["labextension", "disable", "@jupyterlab/apputils-extension:announcements", "--level=user"]
    subprocess.run(
        [sys.executable, "-m", "jupyter", *disable], env=environment(home), check=True, capture_output=True
    )
    port = free_port()
    settings = [
        "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={served}", f"--IdentityProvider.token={TOKEN}", "--allow-root",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    with server(["jupyterlab", *settings], home, f"{address}/api?token={TOKEN}", home / "lab.log"):
        yield address


def environment(home: Path) -> dict[str, str]:
    return os.environ | {
        "REIDLIB_HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "jupyter"),
        "JUPYTER_DATA_DIR": str(home / "jupyter-data"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
    }


@contextmanager
def server(arguments: list[str], home: Path, ready: str, log: Path):
    """Run a server; end it afterwards with all processes that it started."""
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment(home),
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 600
        while True:
            try:
                urllib.request.urlopen(ready, timeout=60).read()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, log.read_text(encoding="utf-8")[
                    -3000:
                ]
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def free_port() -> int:
    """A port below those that programs get which ask for any, such as the kernels of another test."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def put(notebook: str, served: Path, **parameters) -> str:
    """Copy a notebook of the suite to the served folder, with other parameters; return its file name."""
    content = nbformat.read(PROJECT / "notebooks" / f"{notebook}.ipynb", as_version=4)
    (cell,) = (cell for cell in content.cells if "parameters" in cell.metadata.get("tags", []))
    cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    nbformat.write(content, served / f"{notebook}.ipynb")
    return f"{notebook}.ipynb"


class Notebook:
    """A notebook that is open in JupyterLab."""

    def __init__(self, context, address: str, name: str):
        self.address, self.name, self.errors = address, name, []
        self.page = context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{address}/lab/tree/{name}?token={TOKEN}&reset")
        self.page.wait_for_selector(".jp-Notebook")
        self._until_idle()

    def _until_idle(self):
        # The page shows an idle kernel too early.
        end = time.monotonic() + 900
        while time.monotonic() < end:
            with urllib.request.urlopen(f"{self.address}/api/sessions?token={TOKEN}") as answer:
                sessions = [session for session in json.load(answer) if session["path"] == self.name]
            if sessions and sessions[0]["kernel"]["execution_state"] == "idle":
                time.sleep(0.5)
                return
            time.sleep(0.2)
        raise AssertionError(f"no idle kernel for {self.name}: {sessions}")

    def run_all(self, seconds: float) -> dict:
        """Run all cells, wait for the last one and return the notebook as the page holds it."""
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(1)
            # Not the saved file: who asks the server for it at the moment of a save meets half a file, and
            # the server then answers that it cannot read the notebook, or restores the one before.
            content = self.page.evaluate("jupyterapp.shell.currentWidget.content.model.toJSON()")
            codes = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
            for output in (output for cell in codes for output in cell["outputs"]):
                assert output["output_type"] != "error", output["traceback"]
            if all(cell["execution_count"] for cell in codes):
                self._until_idle()
                return content
        raise AssertionError(f"{self.name} did not finish within {seconds} s")

    def check_sound(self):
        """Assert that neither a cell nor the page has an error."""
        failed = self.page.locator('[data-mime-type="application/vnd.jupyter.error"]')
        assert failed.count() == 0, failed.first.inner_text()
        assert not self.errors, self.errors

    def picture(self, name: str, selector: str | None = None):
        screenshot(self.page, name, selector)


def screenshot(page, name: str, selector: str | None = None):
    folder = Path(os.environ.get("REIDLIB_SCREENSHOTS") or PROJECT / "reports" / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    target = page.locator(selector).first if selector else page
    target.screenshot(path=folder / f"{name}.png")
