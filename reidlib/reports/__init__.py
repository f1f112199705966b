"""Reports: the notebooks executed in separate processes, their pages and an index.

``result``      what a notebook writes for the report
``parameters``  the parameters of a running notebook
``reproduce``   the whole report in one call
``notebook``    one notebook, read and executed
``tasks``       the trainings that come before the notebooks
``scheduler``   the order of the work and the record of its states
``processes``   work in processes on this machine
``cluster``     work on other machines
``pages``       the index, the page of each notebook, the summary, and their templates
"""

from __future__ import annotations


def __getattr__(name: str) -> object:
    """Import ``Result`` on its first use: it imports matplotlib, which an unchanged report does not need."""
    if name == "Result":
        from reidlib.reports.result import Result

        return Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
