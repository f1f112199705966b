"""What a notebook hands to the report: its figures, scores and circumstances."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image
from matplotlib.figure import Figure

from reidlib import files
from reidlib.errors import InputError
from reidlib.files import write_json, write_whole

# Wide figures still fit a report that is kept in git: under 300 kB each.
_DOTS_PER_INCH = 110


class Result:
    """Collects a notebook's figures while it runs and writes ``result.json`` at its end.

    name: the notebook's file name without its ending. out: the folder to write to; "" chooses one under
    ``files.home()``. question: what the notebook asks, in one sentence.
    """

    def __init__(self, name: str, *, out: str | Path = "", question: str, profile: str):
        self.name, self.question, self.profile = name, question, profile
        self.out = Path(out) if out else files.home() / "explored" / name
        self._figures: list[dict] = []
        self._started = time.perf_counter()
        # Nothing of an earlier execution may pass for this one's.
        (self.out / "result.json").unlink(missing_ok=True)

    def figure(
        self, figure: Figure, name: str, *, caption: str, alt: str, lead: bool = False, summary: bool = False
    ) -> Image:
        """Keep a figure as ``name.png``, or as ``name.jpg`` if it shows photographs; return it for display.

        What the cell shows is the very file of the report, with ``alt`` for those who cannot see it.
        lead: one of the few that stand for the notebook in the index. summary: one of the few that stand for
        the whole suite in ``reports/README.md``.
        """
        photographs = any(shown.get_array().ndim == 3 for axes in figure.axes for shown in axes.images)
        kind = "jpeg" if photographs else "png"
        path = self.out / f"{name}.{'jpg' if photographs else 'png'}"
        if path.name in {entry["file"] for entry in self._figures}:
            raise InputError("every figure of a notebook has its own name", repr(name), "rename one")
        write_whole(
            path,
            lambda partial: figure.savefig(
                partial,
                format=kind,
                dpi=_DOTS_PER_INCH,
                bbox_inches="tight",
                facecolor="white",
                pil_kwargs={"quality": 85, "progressive": True} if photographs else {"optimize": True},
            ),
        )
        self._figures.append(
            {"file": path.name, "caption": caption, "alt": alt, "lead": lead, "summary": summary}
        )
        plt.close(figure)  # an open figure would be shown a second time at the end of the cell
        return Image(path.read_bytes(), format=kind, alt=alt)

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
        runs: list[dict] | None = None,
        ledger: list[dict] | None = None,
    ) -> None:
        """Write ``result.json``.

        headline: the few numbers worth the index, already formatted. scores: rows of a table. runs: the
        trainings behind them (``Runs.records``). ledger: rows of the ledger of claims, for the summary.
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
            "figures": sorted(self._figures, key=lambda figure: not figure["lead"]),
            "configuration": configuration,
            "seeds": list(seeds),
            "data": data,
            "runs": runs or [],
            "ledger": ledger or [],
            "versions": files.versions(),
            "commit": files.commit(),
            "device": device,
            "duration": round(time.perf_counter() - self._started, 1),
        }
        write_json(self.out / "result.json", json.loads(json.dumps(content, default=_plain)))


def _plain(value: object) -> object:
    """Numbers of numpy and paths as JSON types."""
    if isinstance(value, np.generic):
        number = value.item()
        return None if isinstance(number, float) and not math.isfinite(number) else number
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
