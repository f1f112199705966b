"""Fixtures that the tests of benchmark folders share."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from miniature import MINIATURE, write_image

# Whether this is one of the processes of `pytest -n 3`. With more threads than cores, threads wait for each
# other: small trainings then take more than four times as long.
IN_PARALLEL = "PYTEST_XDIST_WORKER" in os.environ
if IN_PARALLEL:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that starts the tests in the background makes them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)
# An example may take long on a busy machine: speed is measured in tests/benchmarks.
settings.register_profile("no bound on time", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no bound on time")

# The files that take minutes, in the order in which processes take them: one makes the report, for which the
# documented commands would wait, and the longest of the others begin early. xdist's own order is by number of
# tests, so that these come last and one process works alone for minutes.
LONG = (
    "test_notebooks.py",
    "test_validation.py",
    "test_evidence_report.py",
    "test_search.py",
    "test_cluster.py",
    "test_jupyterlab.py",
    "test_documented_notebook_commands.py",
    "test_documented_commands.py",
    "test_tasks.py",
    "test_reproduce.py",
    "test_command_line.py",
    "test_benchmark_runs.py",
    "test_loop.py",
    "test_distributed.py",
)
REPORT = [sys.executable, "-m", "reidlib", "reproduce", "--profile", "smoke", "--device", "cpu"]


def pytest_configure(config: pytest.Config) -> None:
    if gone := [name for name in LONG if not any(Path(__file__).parent.rglob(name))]:
        raise pytest.UsageError(f"LONG in tests/conftest.py names files that are not there: {gone}")
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if IN_PARALLEL:
        places = {name: place for place, name in enumerate(LONG)}
        items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture
def market(tmp_path):
    """A miniature benchmark folder, with the foreign files that real folders contain."""
    root = tmp_path / "market"
    for number, (folder, names) in enumerate(MINIATURE.items()):
        (root / folder).mkdir(parents=True)
        (root / folder / "Thumbs.db").write_bytes(b"not an image")
        (root / folder / "._0002_c1s1_000451_03.jpg").write_bytes(b"not an image either")
        for index, name in enumerate(names):
            write_image(root / folder / name, seed=100 * number + index)
    (root / "readme.txt").write_text("hello")
    return root


@pytest.fixture
def decoded(monkeypatch):
    """The names of files in the order in which they were decoded."""
    from reidlib.data import images

    names, decode = [], images.decode

    def counting(path, **options):
        names.append(path.name)
        return decode(path, **options)

    monkeypatch.setattr(images, "decode", counting)
    return names


@pytest.fixture(autouse=True)
def no_figures_left():
    """Close what a test left open, so that no test meets another's figures."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def no_recipes_kept():
    """Forget the rows' configurations, which some tests change."""

    def forget():
        if lines := sys.modules.get("reidlib.experiments.evidence.lines"):
            lines._rows.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture
def styled_figures():
    """Draw figures in the suite's style without a screen."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    from reidlib.visual import set_style

    with mpl.rc_context(), plt.ioff():
        plt.switch_backend("agg")
        set_style()
        yield


@pytest.fixture(scope="session")
def made_report(tmp_path_factory):
    """The home of a report, made once for all processes of the tests, and an untouched copy of it."""
    folder = tmp_path_factory.getbasetemp()
    if IN_PARALLEL:  # then it is in the one that all processes share
        folder = folder.parent
    home, untouched = folder / "report", folder / "untouched"
    with FileLock(folder / "report.lock"):
        if not untouched.exists():
            home.mkdir()  # fails where another process has failed
            environment = {**os.environ, "REIDLIB_HOME": str(home)}
            completed = subprocess.run(REPORT, env=environment, capture_output=True, text=True)
            assert completed.returncode == 0, completed.stdout + completed.stderr
            shutil.copytree(home, folder / "copying")
            (folder / "copying").rename(untouched)
    return home, untouched


@pytest.fixture(scope="session")
def report(made_report):
    """All notebooks, run once with the smallest profile as a user would: report, environment, command."""
    home, _ = made_report
    return home / "smoke", {**os.environ, "REIDLIB_HOME": str(home)}, REPORT


@pytest.fixture(scope="session")
def untouched_report(made_report):
    """The home of that report as it was made, only to be read."""
    return made_report[1]
