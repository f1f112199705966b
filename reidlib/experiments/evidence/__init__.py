"""Evidence that travels in git: the small files of runs, from which a clone makes tables without training.

``reports/evidence`` has a folder for each set, a profile and a benchmark such as
``quick-market1501,validation=true``, and in it a file for each row, ROW.jsonl. A benchmark's partitions are
one set, and so are its thinned training images (``data.readers.thinning``). Runs that started from another
are a set of their own, ``…-pretrained``, and each keeps what that one was. A line is a run: configuration,
scores, device, seconds, versions and commit, and the last line of the history. Values by query are summed by
person, which is all that an interval needs (``analysis.statistics``). Lines are only added.
Each has the digests that the tests of its row's claims had when it was made (``analysis.claims.digests``).

A line is not taken on trust: its format, data and configuration are compared with the set's and with the
row's today, and its sums with its means.

``sums`` values by query as sums by person · ``lines`` a line: what is kept of a run, and what is checked ·
``sets`` the evidence of a profile and a benchmark · ``adding`` runs become lines
"""

from reidlib.experiments.evidence.adding import Addition, add
from reidlib.experiments.evidence.lines import EvidenceRun
from reidlib.experiments.evidence.sets import (
    NAMES,
    Evidence,
    describe,
    references,
    set_folder,
    short_name,
    state,
)
from reidlib.experiments.evidence.sums import BY_PERSON, sums_by_person

__all__ = [
    "BY_PERSON",
    "NAMES",
    "Addition",
    "Evidence",
    "EvidenceRun",
    "add",
    "describe",
    "references",
    "set_folder",
    "short_name",
    "state",
    "sums_by_person",
]
