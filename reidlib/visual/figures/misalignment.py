"""Images of one person under worse boxes and more occlusion."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from reidlib.analysis.misalignment import TITLES, marked
from reidlib.data.synthetic.render import preview
from reidlib.experiments.rows import CONDITIONS, Condition
from reidlib.visual.figures import plots


def contact_sheet(*, identity: int = 2, cameras: Sequence[int] = (4, 2, 3)) -> Figure:
    """The same images of one person, a row for each factor and a block for each of its values."""
    images, titles = [], []
    for factor, values in CONDITIONS.items():
        line = []
        for value in values:
            factors = Condition(factor, value).factors
            line += [preview(identity, camera, factors)[0].transpose(1, 2, 0) for camera in cameras]
        images.append(line)
        marks = [marked(factor, value) for value in values]
        titles.append([text for mark in marks for text in (mark, *[""] * (len(cameras) - 1))])
    blocks = len(next(iter(CONDITIONS.values())))
    return plots.image_grid(images, rows=list(TITLES.values()), titles=titles, blocks=blocks)
