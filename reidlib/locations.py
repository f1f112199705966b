"""Where the suite keeps what it generates: rendered data, image caches, trained runs, reports."""

from __future__ import annotations

import os
from pathlib import Path

_PROJECT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Folder of everything generated: ``$REIDLIB_HOME``, else ``reports/`` of the clone.

    It does not depend on the working directory, because JupyterLab starts a notebook in ``notebooks/``
    and papermill starts the same notebook wherever it was called. Outside a clone (an installed wheel)
    it is ``~/.cache/reidlib``.
    """
    if chosen := os.environ.get("REIDLIB_HOME"):
        return Path(chosen).expanduser().resolve()
    if (_PROJECT / "notebooks").is_dir():
        return _PROJECT / "reports"
    return Path.home() / ".cache" / "reidlib"


def project() -> Path:
    """The clone's folder."""
    return _PROJECT


def notebooks() -> Path:
    """Folder of the numbered notebooks: that of the clone."""
    return _PROJECT / "notebooks"


def data() -> Path:
    """Folder of rendered benchmarks."""
    return home() / "data"


def image_cache() -> Path:
    """Folder of decoded images."""
    return home() / "cache"


def feature_cache() -> Path:
    """Folder of features of own images."""
    return home() / "features"


def progress_file() -> Path | None:
    """Where long work leaves a line on how far it is, for whoever started this process and shows it."""
    return Path(chosen) if (chosen := os.environ.get("REIDLIB_PROGRESS")) else None


def runs() -> Path:
    """Folder of trained runs."""
    return home() / "runs"
