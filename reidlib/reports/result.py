"""What a notebook hands to the report: its figures, scores and circumstances."""

from __future__ import annotations

import io
import json
import logging
import math
import tempfile
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
from IPython.display import Image
from matplotlib.figure import Figure

from reidlib import files
from reidlib.errors import InputError
from reidlib.files import write_atomically, write_error, write_json
from reidlib.reports.parameters import check_parameters

logger = logging.getLogger("reidlib")

# Wide figures still fit a report that is kept in git: under 300 kB each.
_DOTS_PER_INCH = 110


class Result:
    """Collects a notebook's figures while it runs and writes ``result.json`` at its end.

    It holds neither title nor question: the report reads both from the notebook's first cell.

    Args:
        name: The notebook's file name without its ending.
        out: The folder to write to; "" chooses one under ``files.home()``.
        profile: The name of the profile, as in ``smoke``.
    """

    def __init__(self, name: str, *, out: str | Path = "", profile: str):
        self.name, self.profile = name, profile
        self.out = Path(out).expanduser() if out else files.home() / "explored" / name
        self._figures: list[dict] = []
        self._started = time.perf_counter()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            files.use_home()
            with tempfile.TemporaryFile(dir=self.out):
                pass  # before the notebook's work
            # A result of an earlier execution must not be mistaken for the result of this one.
            (self.out / "result.json").unlink(missing_ok=True)
        except OSError as error:
            if out:
                raise write_error(self.out / "result.json", error) from error
            # Runs and data may be those of a shared home that only its owner can write to.
            self.out = Path(tempfile.mkdtemp(prefix=f"reidlib-{name}-"))
            logger.warning(
                f"note: figures and result.json are written to {self.out}, because {files.home()} cannot be "
                "written; the parameter out names another folder"
            )

    @classmethod
    def from_parameters(cls, name: str, variables: dict[str, Any], **types: Any) -> Result:
        """Check a notebook's parameters, convert them to their types, and return its result.

        Args:
            name: The notebook's file name without its ending.
            variables: The notebook's ``globals()``, with the parameters.
            types: Types of the notebook's own parameters. Those in ``reports.parameters.SHARED`` have theirs.

        Returns:
            An empty result in the folder ``out``.

        Raises:
            InputError: If a parameter is unknown, is missing, or its value is neither of its type nor
                certainly means one that is; see ``values.read_value``.
        """
        check_parameters(name, variables, types)
        return cls(name, out=variables["out"], profile=variables["profile"])

    def figure(
        self,
        figure: Figure | tuple[Figure, str, str],
        name: str,
        *,
        caption: str = "",
        alt: str = "",
        lead: bool = False,
        summary: bool = False,
    ) -> Image:
        """Save a figure for the report and return the saved picture, which the cell displays.

        Args:
            figure: A figure, or a figure with its caption and its alternative text, as the functions of
                ``visual.figures.ablations`` return it.
            name: The file's name without its ending, which is ``.jpg`` if the figure shows photographs, else
                ``.png``.
            caption: The text below the figure in the report.
            alt: The text for readers who cannot see the figure.
            lead: Whether the report's index shows the figure.
            summary: Whether the summary in ``reports`` shows the figure.

        Returns:
            The picture of the file, with ``alt``.

        Raises:
            InputError: If the notebook has a figure of this name already, or the caption or ``alt`` is empty.
        """
        if isinstance(figure, tuple):
            figure, own_caption, own_alt = figure
            caption, alt = caption or own_caption, alt or own_alt
        if not (caption and alt):
            raise InputError(
                "a figure has a caption and an alternative text", repr(name), "give caption= and alt="
            )
        photographs = any(
            np.asarray(image.get_array()).ndim == 3 for axes in figure.axes for image in axes.images
        )
        kind = "jpeg" if photographs else "png"
        path = self.out / f"{name}.{'jpg' if photographs else 'png'}"
        if path.name in {entry["file"] for entry in self._figures}:
            raise InputError(
                "the names of a notebook's figures differ", repr(name), "give this figure another name"
            )
        with io.BytesIO() as buffer:
            figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight", facecolor="white")
            # Without the channel of transparency, opaque everywhere, a plot's file is a tenth smaller.
            with PIL.Image.open(buffer) as image:
                picture = image.convert("RGB")
        options = {"quality": 85, "progressive": True} if photographs else {"optimize": True}
        dots = (_DOTS_PER_INCH, _DOTS_PER_INCH)
        write_atomically(path, lambda partial: picture.save(partial, format=kind, dpi=dots, **options))
        self._figures.append(
            {"file": path.name, "caption": caption, "alt": alt, "lead": lead, "summary": summary}
        )
        plt.close(figure)  # Jupyter would display an open figure a second time at the end of the cell
        return Image(path.read_bytes(), format=kind, alt=alt)

    def finish(
        self,
        *,
        headline: dict[str, str] | None = None,
        scores: list[dict] | None = None,
        configuration: object = None,
        seeds: tuple[int, ...] = (),
        device: str = "",
        data: str = "",
        runs: list[dict] | None = None,
        ledger: list[dict] | None = None,
        photographs: dict | None = None,
        lesson: dict | None = None,
    ) -> None:
        """Write ``result.json``, from which the report's index and summary are made.

        Args:
            headline: The few results that the index shows, already formatted, by their label.
            scores: Rows of the notebook's table of scores.
            configuration: What was computed: a dataclass or a JSON object.
            seeds: The seeds of the trainings.
            device: The device of the computation, in words.
            data: The fingerprint of the benchmark.
            runs: The trainings behind the scores, as ``Runs.records`` returns them.
            ledger: Rows of the ledger of claims.
            photographs: Scores on photographs, which a summary shows before the report: "about" and "rows".
            lesson: What a summary opens with: "title", "text" in Markdown, and "figure", the file of one of
                the notebook's figures.
        """
        if is_dataclass(configuration) and not isinstance(configuration, type):
            configuration = asdict(configuration)
        content = {
            "notebook": self.name,
            "profile": self.profile,
            "headline": headline or {},
            "scores": scores or [],
            "figures": sorted(self._figures, key=lambda figure: not figure["lead"]),
            "configuration": configuration,
            "seeds": list(seeds),
            "data": data,
            "runs": runs or [],
            "ledger": ledger or [],
            "photographs": photographs or {},
            "lesson": lesson or {},
            "versions": files.versions(),
            "commit": files.commit(),
            "device": device,
            "duration": round(time.perf_counter() - self._started, 1),
        }
        write_json(self.out / "result.json", json.loads(json.dumps(content, default=_plain)))


def _plain(value: object) -> object:
    """Convert numbers and arrays of numpy to JSON types, and other objects to text."""
    if isinstance(value, np.generic):
        number = value.item()
        return None if isinstance(number, float) and not math.isfinite(number) else number
    if isinstance(value, np.ndarray):
        return value.tolist()
    return str(value)
