"""Benchmarks in full and in a small form.

A file that the command line names runs in full: `pytest tests/benchmarks/test_ranking_speed.py -s`. In any
other run, such as `pytest`, `pytest tests/benchmarks` or that with `-k ranking`, its small form shows that
every line of it runs: the module's ``SMALL`` says which of its constants have which values then, sizes that
take seconds and bounds that no machine breaks. Tests marked ``full`` have no small form.
"""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def in_full(path: Path, config: pytest.Config) -> bool:
    """Whether the command line names this file."""
    folder = config.invocation_params.dir
    return path in {(folder / word.partition("::")[0]).resolve() for word in config.args}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    small = [item for item in items if item.path.parent == FOLDER and not in_full(item.path, config)]
    for item in small:
        if item.get_closest_marker("full"):
            items.remove(item)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    # From reports, not from collected tests, which another process may hold (pytest -n 2).
    nodes = (report.nodeid.partition("::")[0] for report in terminalreporter.stats.get("passed", ()))
    paths = {config.rootpath / node for node in nodes}
    if small := {path for path in paths if path.parent == FOLDER and not in_full(path, config)}:
        terminalreporter.write_line(f"{len(small)} benchmarks in their small form, which measures nothing")


@pytest.fixture(autouse=True, scope="module")
def small(request):
    """Give the module's constants the values of its small form, unless the command line names its file."""
    values = request.module.SMALL  # every benchmark has it, an empty one if it takes seconds anyway
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {} if in_full(request.path, request.config) else values.items():
            patch.setattr(request.module, name, value)
        yield


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """What the commands read that are killed or find a full disk."""
    from test_kills import make_inputs

    return make_inputs(tmp_path_factory.mktemp("inputs"))
