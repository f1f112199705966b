"""Losses as pure functions: numbers in, named terms out. No loss knows a model."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from reidlib.errors import InputError


class Terms(NamedTuple):
    """The terms of one objective, all scalars on the device; ``total`` is what is minimised."""

    names: tuple[str, ...]
    values: tuple[Tensor, ...]

    @property
    def total(self) -> Tensor:
        return torch.stack(self.values).sum()


def multi_branch_cross_entropy(logits: tuple[Tensor, ...], labels_b: Tensor) -> tuple[Tensor, ...]:
    """Softmax cross-entropy of each classifier, averaged over the batch.

    logits: one ``(B, K)`` for each branch; labels_b: ``(B,)`` int64 in 0..K-1.
    Source: JLML §3 (a separate classification loss for each branch); with one entry it is UniLoss.
    """
    return tuple(F.cross_entropy(logits_bk.float(), labels_b) for logits_bk in logits)


def group_sparsity(weight_dc: Tensor) -> Tensor:
    """ℓ2,1 norm (group LASSO): the sum over input units of the ℓ2 norm of the weights that leave each.

    weight_dc: ``(D, C)``, C input units. Driving a group to zero switches that input unit off for all
    outputs. Source: JLML §3, selective feature learning of the global branch.
    """
    # linalg.vector_norm has the subgradient 0 at an all-zero column, where sqrt(sum) would give NaN.
    return torch.linalg.vector_norm(weight_dc.float(), dim=0).sum()


def exclusive_sparsity(weight_pdc: Tensor, over: Literal["output", "input"] = "output") -> Tensor:
    """ℓ1,2 norm (exclusive group LASSO): squared ℓ1 norms, summed over units and stripes.

    weight_pdc: ``(P, D/P, C)``, the feature layer of each stripe. Squaring makes the weights inside a
    group compete, so that each keeps a few, while no group is switched off as a whole.

    over: the unit whose weights form a group. With "output", a group is what one output unit takes from
    one stripe's C inputs; with "input", what one input unit gives to its stripe's outputs.
    We assume "output": the paper's groups are the stripes inside one weight vector, and only a vector
    that runs over input units holds several stripes.
    Source: JLML §3, selective feature learning of the local branch; the norm as in Kong et al.,
    "Exclusive Feature Learning on Arbitrary Structures via ℓ1,2-norm", NIPS 2014.
    """
    if over not in ("output", "input"):
        raise InputError("a group belongs to an output or an input unit", repr(over), "name one of them")
    inside = 2 if over == "output" else 1
    return weight_pdc.float().abs().sum(dim=inside).square().sum()


def jlml_objective(
    logits: tuple[Tensor, ...],
    labels_b: Tensor,
    feature_weights: tuple[Tensor, Tensor],
    *,
    sparsity_global: float = 5e-4,
    sparsity_local: float = 5e-4,
    exclusive_over: Literal["output", "input"] = "output",
) -> Terms:
    """JLML's training objective: a cross-entropy for each classifier and the two sparsity terms.

    feature_weights: global ``(D, C)`` and local ``(P, D/P, C)``. A strength of 0 leaves its term out,
    which is the ablation without selective feature learning. Source: JLML §3, λ_g = λ_l = 5e-4.
    """
    names = ("identity_global", "identity_local") if len(logits) == 2 else ("identity_joint",)
    values = multi_branch_cross_entropy(logits, labels_b)
    weight_global, weight_local = feature_weights
    if sparsity_global:
        names += ("sparsity_global",)
        values += (sparsity_global * group_sparsity(weight_global),)
    if sparsity_local:
        names += ("sparsity_local",)
        values += (sparsity_local * exclusive_sparsity(weight_local, exclusive_over),)
    return Terms(names, values)
