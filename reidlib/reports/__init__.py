"""How notebooks become a report: executed in processes of their own, then pages and an index.

``result`` what a notebook hands over · ``reproduce`` all of it, by one command · ``notebook`` one notebook
read and executed · ``tasks`` trainings done first · ``scheduler`` what waits and what runs · ``processes``
where it runs · ``cluster`` the same on other machines · ``page`` a notebook's page · ``index`` the page over
all · ``summary`` the report in short · ``templates`` their text and look
"""

from __future__ import annotations


def __getattr__(name: str) -> object:
    """``Result`` loads matplotlib, which whoever decides that nothing is to be run does not need."""
    if name == "Result":
        from reidlib.reports.result import Result

        return Result
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
