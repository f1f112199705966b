"""Rows of scores read from gathered runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reidlib.analysis.scores import BranchScores, difference
from reidlib.analysis.statistics import Interval
from reidlib.experiments import perturbations
from reidlib.experiments.rows import Condition
from reidlib.experiments.setup import Missing, Runs
from reidlib.training.runs import Run


class Cell(NamedTuple):
    """A row of scores: a training, a branch of its feature, and the condition if it is not the usual one."""

    experiment: str  # a row of experiments.EXPERIMENTS
    branch: str = "full"
    condition: Condition | None = None


@dataclass(frozen=True)
class Evidence(Runs):
    """Gathered runs whose scores are read row by row."""

    @classmethod
    def of(cls, gathered: Runs) -> Evidence:
        """The scores of these runs."""
        return cls(**vars(gathered))

    _scores: dict = field(default_factory=dict, repr=False, compare=False)  # each file is read once

    def group(self, cell: Cell) -> list[BranchScores | None]:
        """A row's scores, one for each seed, None where its run is missing (``tables.Group``)."""
        if cell not in self._scores:
            self._scores[cell] = [self._of(run, cell) for run in self.runs[cell.experiment]]
        return self._scores[cell]

    def groups(self, cells: Mapping[str, Cell]) -> dict[str, list[BranchScores | None]]:
        """Several rows by their labels."""
        return {label: self.group(cell) for label, cell in cells.items()}

    def difference(self, plus: Sequence[Cell], minus: Sequence[Cell], measure: str) -> Interval | None:
        """See ``tables.difference``."""
        return difference([self.group(c) for c in plus], [self.group(c) for c in minus], measure)

    def _of(self, run: Run | Missing, cell: Cell) -> BranchScores | None:
        if isinstance(run, Missing):
            return None
        scores = run.scores if cell.condition is None else perturbations.found(run, cell.condition)
        if scores is None or cell.branch not in scores["branches"]:
            return None
        persons = scores.get("query_person_ids") or self.query_person_ids
        return {**scores["branches"][cell.branch], "query_person_ids": persons}
