"""What a notebook hands to the report: its figures, scores and circumstances."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from reidlib import locations
from reidlib.errors import InputError
from reidlib.files import write_json, write_whole
from reidlib.runs import commit, versions

# Wide figures still fit a report that is kept in git: under 300 kB each.
_DOTS_PER_INCH = 110


class Result:
    """Collects a notebook's figures while it runs and writes ``result.json`` at its end.

    name: the notebook's file name without its ending. out: the folder to write to; "" chooses one under
    ``locations.home()``. question: what the notebook asks, in one sentence.
    """

    def __init__(self, name: str, *, out: str | Path = "", question: str, profile: str):
        self.name, self.question, self.profile = name, question, profile
        self.out = Path(out) if out else locations.home() / "explored" / name
        self._figures: list[dict] = []
        self._started = time.perf_counter()
        # Nothing of an earlier execution may pass for this one's.
        (self.out / "result.json").unlink(missing_ok=True)

    def figure(self, figure: Figure, name: str, *, caption: str, alt: str) -> Figure:
        """Keep a figure as ``name.png`` and return it, for the cell to show."""
        file = f"{name}.png"
        if file in {entry["file"] for entry in self._figures}:
            raise InputError("every figure of a notebook has its own name", repr(name), "rename one")
        write_whole(
            self.out / file,
            lambda partial: figure.savefig(
                partial, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", facecolor="white"
            ),
        )
        self._figures.append({"file": file, "caption": caption, "alt": alt})
        plt.close(figure)  # the cell's value shows it once; an open figure would be shown twice
        return figure

    def finish(
        self,
        *,
        title: str,
        headline: dict[str, str] | None = None,
        scores: list[dict] | None = None,
        configuration: object = None,
        seeds: tuple[int, ...] = (),
        device: str = "",
        data: str = "",
    ) -> Path:
        """Write ``result.json`` and return its path.

        headline: the few numbers worth the index, already formatted. scores: rows of a table.
        """
        if is_dataclass(configuration):
            configuration = asdict(configuration)
        content = {
            "notebook": self.name,
            "title": title,
            "question": self.question,
            "profile": self.profile,
            "headline": headline or {},
            "scores": scores or [],
            "figures": self._figures,
            "configuration": configuration,
            "seeds": list(seeds),
            "data": data,
            "versions": versions(),
            "commit": commit(),
            "device": device,
            "duration": round(time.perf_counter() - self._started, 1),
        }
        path = self.out / "result.json"
        write_json(path, json.loads(json.dumps(content, default=_plain)))
        return path


def _plain(value: object) -> object:
    """Numbers of numpy and paths as JSON types."""
    if isinstance(value, np.generic):
        number = value.item()
        return None if isinstance(number, float) and not math.isfinite(number) else number
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)


def percent(share: float) -> str:
    """A share as per cent with one decimal, as the papers print scores."""
    return f"{100 * share:.1f}"
