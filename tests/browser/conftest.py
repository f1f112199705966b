"""One Chromium and one JupyterLab serve all of these tests."""

import os
from pathlib import Path

import pytest
from screens import CHROMIUM, WITHOUT_CHROMIUM, chromium, home, lab, served  # noqa: F401 (fixtures)


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.browser)
            if CHROMIUM is None and not os.environ.get("REIDLIB_NEEDS_BROWSER"):
                item.add_marker(pytest.mark.skip(reason=WITHOUT_CHROMIUM))
