"""What JLML's structured sparsity does to the feature layers: which input units it switches off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from reidlib.training.runs import Run

# An input unit, or a weight, counts as switched off below this share of the layer's largest. Gradient steps
# reach nought only in the limit.
THRESHOLD = 0.01


class InputNorms(NamedTuple):
    """Euclidean norms of the weights that leave each input unit of the feature layers.

    ``local_weights_off``: the share of single weights of the local layers below ``THRESHOLD`` of the largest
    that their output unit has, which is what an exclusive norm over output units makes sparse.
    """

    global_c: np.ndarray  # (C,)
    local_pc: np.ndarray  # (P, C)
    local_weights_off: float


def has_weights(run: object) -> bool:
    """Whether there is a run, and its weights with it."""
    return isinstance(run, Run) and run.has_weights


def input_norms(run: Run) -> InputNorms:
    """The norms of a JLML run's feature layers. Raises InputError where its weights are not there."""
    state = run.weights()
    weight_dc, weight_pdc = (state[f"{name}_feature.weight"].float().numpy() for name in ("global", "local"))
    largest_pd = np.abs(weight_pdc).max(axis=2, keepdims=True)
    return InputNorms(
        np.linalg.norm(weight_dc, axis=0),
        np.linalg.norm(weight_pdc, axis=1),
        float((np.abs(weight_pdc) < THRESHOLD * largest_pd).mean()),
    )


def described(norms: InputNorms) -> dict[str, str]:
    """The same as cells of a table."""
    return {
        "global units off": _share_off(norms.global_c),
        "local units off": _share_off(norms.local_pc),
        "local weights off": f"{100 * norms.local_weights_off:.1f} %",
        "mean norm, global": f"{norms.global_c.mean():.3g}",
        "mean norm, local": f"{norms.local_pc.mean():.3g}",
    }


def reading(norms: Mapping[str, InputNorms]) -> str:
    """Where units are switched off, in a sentence on the global and one on the local layers."""
    if not norms:
        return "No run with its weights is here."
    sentences = []
    for name, field in (("global", "global_c"), ("local", "local_pc")):
        off = {label: _off(getattr(found, field)) for label, found in norms.items()}
        some = [f"*{label}* {100 * share:.0f} %" for label, share in off.items() if share > 0]
        what = f"switched off in {', '.join(some)}, in no other row" if some else "switched off in no row"
        sentences.append(f"Input units of the {name} layer: {what}.")
    return "\n\n".join(sentences)


def _off(norms: np.ndarray) -> float:
    return float((norms < THRESHOLD * norms.max()).mean())


def _share_off(norms: np.ndarray) -> str:
    return f"{100 * _off(norms):.1f} % of {norms.size}"
