"""What a Pyramid training measured at each step: its batches, and the weight of its triplet loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reidlib.analysis.scores import Spread
from reidlib.training.runs import Run


def batch_table(groups: Mapping[str, Sequence[object]], *, heading: str = "row") -> pd.DataFrame:
    """Return how Pyramid trainings used balanced batches and the triplet loss, and with which weight.

    Args:
        groups: Label -> runs of a row, one per seed; anything but a ``Run`` counts as missing.
        heading: Name of the column of labels.

    Returns:
        A table with the columns heading, "steps" and, in per cent: "balanced batches" and "triplet loss in
        use" of all steps, "its mean weight" and "weight exactly 1" of the steps that use it, and "ratio above
        1" of the balanced steps: the triplet loss's focal weight exceeds the identity loss's. A training
        without such steps has a dash.
    """
    columns = [
        "balanced batches",
        "triplet loss in use",
        "its mean weight",
        "weight exactly 1",
        "ratio above 1",
    ]
    lines = []
    for label, seed_runs in groups.items():
        runs = [run for run in seed_runs if isinstance(run, Run)]
        shares = pd.DataFrame([_batch_shares(trace(run)) for run in runs], columns=columns)
        steps = f"{runs[0].information['steps']:,}" if runs else None
        spreads = {name: Spread.of(values.tolist()) for name, values in shares.items()}
        lines.append({heading: label, "steps": steps} | spreads)
    return pd.DataFrame(lines, dtype=object)


def _batch_shares(steps: Mapping[str, np.ndarray]) -> list[float]:
    """Return the columns of ``batch_table`` for one trace; NaN where there is no step to count."""
    balanced, in_use = steps["balanced_batches"] > 0, triplet_in_use(steps) > 0
    weights = steps["weight_triplet"][in_use] if in_use.any() else np.zeros(0)
    above = np.zeros(0)
    if "focal_triplet" in steps:
        above = (steps["focal_triplet"] > steps["focal_identity"])[balanced]
    shares = (balanced, in_use, weights, weights == 1, above)
    return [100 * float(share.mean()) if len(share) else math.nan for share in shares]


def trace(run: Run) -> dict[str, np.ndarray]:
    """Return a Pyramid training's measurements at each step, with ``step`` from 1 (see ``Run.steps``)."""
    return {"step": np.arange(1, len(run.steps["identity"]) + 1), **run.steps}


def triplet_in_use(steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return 1 for each step of a ``trace`` with a triplet loss whose weight is above 0, else 0."""
    if "triplet" not in steps:
        return np.zeros(len(steps["step"]))
    return (np.nan_to_num(steps["weight_triplet"]) > 0).astype(float)
