"""What a reader found in a folder against what belongs there, problems listed and not raised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from reidlib.data.readers.layout import Misplaced
from reidlib.data.rules import DISTRACTOR, JUNK
from reidlib.data.splits import Split
from reidlib.errors import InputError

# Of each part of a benchmark: what is counted -> how many belong there.
Counts = Mapping[str, Mapping[str, int]]


@dataclass
class Survey:
    """What is in a folder.

    ``parts``: images found, by folder or list; all of them are to be decoded. ``expected``: the official
    counts of these and other parts ("images", "identities", "cameras", "junk", "distractors"). ``problems``
    make a check fail, ``remarks`` do not. ``misplaced``: the problem that another folder was meant, beside
    which nothing else is worth saying; empty where there is none. ``again``: the mend where something lacks.
    """

    parts: dict[str, Split] = field(default_factory=dict)
    expected: Counts = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    misplaced: str = ""
    again: str = "unpack or copy the archive again, completely"

    def add(self, *problems: InputError) -> None:
        """Note what a reader would raise, each message once."""
        for problem in problems:
            if isinstance(problem, Misplaced):
                self.misplaced = str(problem)
            if str(problem) not in self.problems:
                self.problems.append(str(problem))


@dataclass(frozen=True)
class Count:
    """How many of something a part holds, and how many belong there (None found: the part is missing)."""

    folder: str
    what: str
    found: int | None
    expected: int

    @property
    def agrees(self) -> bool:
        """Is there exactly what belongs there?"""
        return self.found == self.expected


def counts_of(survey: Survey) -> tuple[Count, ...]:
    """Every expected count beside what was found."""
    return tuple(
        Count(part, what, _count(survey.parts[part], what) if part in survey.parts else None, number)
        for part, row in survey.expected.items()
        for what, number in row.items()
    )


def _count(split: Split, what: str) -> int:
    ids = split.person_ids
    match what:
        case "images":
            return len(split)
        case "identities":
            return len(np.unique(ids[ids > 0]))
        case "cameras":
            return len(np.unique(split.camera_ids))
        case "junk":
            return int(np.count_nonzero(ids == JUNK))
        case "distractors":
            return int(np.count_nonzero(ids == DISTRACTOR))
    raise InputError(
        "a rendering counts images, identities, cameras, junk and distractors",
        what,
        "render the folder again",
    )
