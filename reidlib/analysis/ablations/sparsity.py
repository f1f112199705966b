"""What JLML's structured sparsity does to the feature layers.

How strong it is beside weight decay, and which input units it switches off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import pandas as pd

from reidlib.analysis.ablations import Ablation, runs_by_row
from reidlib.analysis.scores import ExperimentScores
from reidlib.training.config import JLMLConfiguration, Recipe, RunConfiguration
from reidlib.training.runs import Run

if TYPE_CHECKING:
    from torch import Tensor

# An input unit or a weight counts as switched off below this share of the layer's largest one. Gradient steps
# reach zero only in the limit.
OFF_BELOW = 0.01


class InputNorms(NamedTuple):
    """Norms of the weights that leave each input unit of JLML's feature layers.

    Attributes:
        global_c: Euclidean norms of the global layer, shape (C,).
        local_pc: Euclidean norms of the local layers, shape (P, C).
        local_weights_off: Share of single weights of the local layers that are below ``OFF_BELOW`` of the
            largest weight of their output unit. An exclusive norm over output units makes these sparse.
    """

    global_c: np.ndarray
    local_pc: np.ndarray
    local_weights_off: float


def _runs_with_weights(ablation: Ablation, scores: ExperimentScores) -> dict[str, Run]:
    """Return each row's run of seed 0; a row without it or without its weights is left out."""
    first = {label: runs[0] for label, runs in runs_by_row(ablation, scores).items()}
    return {label: run for label, run in first.items() if isinstance(run, Run) and run.has_weights}


def gradient_sizes(
    configuration: RunConfiguration, weights: Mapping[str, Tensor]
) -> dict[str, tuple[float, float]]:
    """Return rms gradients of sparsity and of weight decay in JLML's "global" and "local" feature layer."""
    import torch

    from reidlib.training.losses import exclusive_sparsity, group_sparsity

    model, sizes = cast(JLMLConfiguration, configuration.model), {}
    norms = {"global": group_sparsity, "local": partial(exclusive_sparsity, over=model.exclusive_over)}
    for layer, norm in norms.items():
        weight = weights[f"{layer}_feature.weight"].detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(getattr(model, f"sparsity_{layer}") * norm(weight), weight)
        decay = cast(Recipe, configuration.recipe).weight_decay * weight.detach()
        sizes[layer] = (float(gradient.square().mean().sqrt()), float(decay.square().mean().sqrt()))
    return sizes


def sparsity_gradients(ablation: Ablation, scores: ExperimentScores) -> pd.DataFrame:
    """Return how strong selective feature learning is beside weight decay, at the start and at the end.

    Args:
        ablation: The ablation, such as ``ablations.FEATURE_SELECTION``.
        scores: Scores of the ablation's experiments.

    Returns:
        A line for each row, layer and time, with the root mean squares of both gradients in the run of seed 0
        and their ratio. Rows with λ = 0 or without weights are left out.
    """
    lines = []
    for row, run in _runs_with_weights(ablation, scores).items():
        configuration = RunConfiguration.from_json(run.configuration)
        network = cast(JLMLConfiguration, configuration.model)
        if not (network.sparsity_global or network.sparsity_local):
            continue
        # The seed gives the initial feature layers, whatever the classes and a pretrained trunk.
        initial = replace(network, weights=None).build(2, configuration.seed).state_dict()
        sizes = [gradient_sizes(configuration, weights) for weights in (initial, run.weights())]
        for layer in ("global", "local"):
            for time, of_layers in zip(("start", "end"), sizes, strict=True):
                sparsity, decay = of_layers[layer]
                lines.append((row, layer, time, sparsity, decay, sparsity / decay if decay else math.inf))
    return pd.DataFrame(lines, columns=["row", "layer", "time", "sparsity", "weight decay", "ratio"])


def gradient_table(gradients: pd.DataFrame) -> pd.DataFrame:
    """Return ``sparsity_gradients`` as a table to show."""
    formats = {"sparsity": "{:.1e}", "weight decay": "{:.1e}", "ratio": "{:,.1f}"}
    return gradients.assign(**{name: gradients[name].map(text.format) for name, text in formats.items()})


def gradient_sentences(gradients: pd.DataFrame) -> list[str]:
    """Say for each row how strong its λ is beside weight decay: a sentence in Markdown for each."""
    sentences = []
    for row, lines in gradients.groupby("row", sort=False):
        ratio = lines.set_index(["layer", "time"])["ratio"].map("{:,.1f}".format)
        sentences.append(
            f"**{row}**: sparsity's gradient is {ratio['global', 'start']} times weight decay's in the "
            f"global layer at the start and {ratio['global', 'end']} times at the end, in the local layers "
            f"{ratio['local', 'start']} and {ratio['local', 'end']} times."
        )
    return sentences or ["No run with weights is available."]


def input_norms(run: Run) -> InputNorms:
    """Compute the input norms of a JLML run's feature layers.

    Args:
        run: A JLML run with its weights.

    Returns:
        The norms of the global and the local layers.

    Raises:
        InputError: If the run's weights are missing.
    """
    state = run.weights()
    weight_dc, weight_pdc = (state[f"{name}_feature.weight"].float().numpy() for name in ("global", "local"))
    largest_pd = np.abs(weight_pdc).max(axis=2, keepdims=True)
    return InputNorms(
        np.linalg.norm(weight_dc, axis=0),
        np.linalg.norm(weight_pdc, axis=1),
        float((np.abs(weight_pdc) < OFF_BELOW * largest_pd).mean()),
    )


def norms_by_row(ablation: Ablation, scores: ExperimentScores) -> dict[str, InputNorms]:
    """Return the norms of each row's run with seed 0; a row whose weights are missing is left out."""
    return {label: input_norms(run) for label, run in _runs_with_weights(ablation, scores).items()}


def norm_table(norms: Mapping[str, InputNorms]) -> pd.DataFrame:
    """Return how many input units are switched off in each row, as a table."""
    return pd.DataFrame([{"row": label, **norm_cells(of_row)} for label, of_row in norms.items()])


def norm_cells(norms: InputNorms) -> dict[str, str]:
    """Return the norms as text, column -> cell of a table."""
    return {
        "global units off": _share_off_text(norms.global_c),
        "local units off": _share_off_text(norms.local_pc),
        "local weights off": f"{100 * norms.local_weights_off:.1f} %",
        "mean norm, global": f"{norms.global_c.mean():.3g}",
        "mean norm, local": f"{norms.local_pc.mean():.3g}",
    }


def switched_off_sentence(norms: Mapping[str, InputNorms]) -> str:
    """Say in which rows input units are switched off: a sentence each on the global and the local layers."""
    if not norms:
        return "No run with weights is available."
    sentences = []
    for name, field in (("global", "global_c"), ("local", "local_pc")):
        shares = {label: _share_off(getattr(row_norms, field)) for label, row_norms in norms.items()}
        rows = [f"*{label}* ({100 * share:.0f} %)" for label, share in shares.items() if share > 0]
        if rows:
            places = f"in {', '.join(rows)}, and in no other row"
            sentences.append(f"Input units of the {name} layer are switched off {places}.")
        else:
            sentences.append(f"No row switches off units of the {name} layer.")
    return "\n\n".join(sentences)


def _share_off(norms: np.ndarray) -> float:
    return float((norms < OFF_BELOW * norms.max()).mean())


def _share_off_text(norms: np.ndarray) -> str:
    return f"{100 * _share_off(norms):.1f} % of {norms.size}"
