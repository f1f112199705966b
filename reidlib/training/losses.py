"""Losses as pure functions of tensors; they return a scalar, one value per part, or named terms."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from reidlib.errors import InputError, check_choice


class Terms(NamedTuple):
    """The named terms of a training objective.

    Attributes:
        names, values: Name and value of each term; a value is a scalar tensor on the device.
        weights: Weight of each term in the total; None means 1 for each.
    """

    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    weights: tuple[float, ...] | None = None

    @property
    def total(self) -> Tensor:
        """The weighted sum of the terms, which training minimises."""
        if self.weights is None:
            return torch.stack(self.values).sum()
        # A term of weight 0 is multiplied, not omitted: without it, its own layers would get no gradient,
        # and in distributed training every layer must get one in every step.
        pairs = zip(self.values, self.weights, strict=True)
        return torch.stack([value * weight for value, weight in pairs]).sum()


def multi_branch_cross_entropy(logits_bpk: Tensor, labels_b: Tensor) -> Tensor:
    """Compute the softmax cross-entropy of each classifier, averaged over the batch.

    Args:
        logits_bpk: Logits of P classifiers, (B, P, K).
        labels_b: Class of each image, (B,), int64 from 0 to K - 1.

    Returns:
        The loss of each classifier, (P,), float32. Pyramid's identity loss is their sum.

    Source: slides on JLML, which were read (a loss per branch; with a single classifier it is UniLoss).
    """
    batch, parts, _ = logits_bpk.shape
    labels_bp = labels_b[:, None].expand(batch, parts)
    losses = F.cross_entropy(logits_bpk.flatten(0, 1).float(), labels_bp.flatten(), reduction="none")
    return losses.view(batch, parts).mean(0)


def batch_hard_triplet(
    embeddings_bpd: Tensor, labels_b: Tensor, *, margin: float = 1.4, normalise: bool = False
) -> Tensor:
    """Compute the batch-hard triplet loss of each part, averaged over the anchors.

    The farthest image of an anchor's identity must be nearer, by the margin, than the nearest of another.
    The mean omits anchors that are the only image of their identity (the official code pairs them with
    themselves, at distance 0).

    Args:
        embeddings_bpd: Embeddings of P parts, (B, P, D).
        labels_b: Identity of each image, (B,).
        margin: Margin in Euclidean distance; 1.4 in the official code.
        normalise: Whether to scale embeddings to unit length first: in YouReID, not in the official code.

    Returns:
        The loss of each part, (P,), float32. On an accelerator it is NaN for a batch without triplets.

    Raises:
        InputError: If labels on the CPU allow no triplet; on an accelerator the check would wait for it.

    Source: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, eq. 5;
    for each part in the official code of Zheng et al., CVPR 2019.
    """
    if len(embeddings_bpd) != len(labels_b):
        value = f"{len(embeddings_bpd)} images, {len(labels_b)} labels"
        raise InputError("every image of a batch has a label", value, "pass one label for each image")
    if labels_b.device.type == "cpu":
        identities, counts = labels_b.unique(return_counts=True)
        if len(identities) < 2 or counts.max() < 2:
            value = f"a batch of {len(labels_b)} images of {len(identities)} identities"
            mend = "draw P×K batches of at least two identities with at least two images each"
            raise InputError("a triplet needs two images of one identity and one of another", value, mend)
    embeddings_pbd = embeddings_bpd.transpose(0, 1).float()
    if normalise:
        embeddings_pbd = F.normalize(embeddings_pbd, dim=2)
    with torch.no_grad():  # selects the hardest images only; their distances are computed exactly below
        # Centred on the batch's mean: far from the origin the products would lose significant digits.
        centred_pbd = embeddings_pbd - embeddings_pbd.mean(1, keepdim=True)
        lengths_pb = centred_pbd.square().sum(2)
        products_pbb = centred_pbd @ centred_pbd.mT
        # Squared distances without the anchor's own length, which does not change the order in its row.
        order_pbb = lengths_pb[:, None, :] - 2 * products_pbb
        same_bb = labels_b[:, None] == labels_b
        others_bb = same_bb & ~torch.eye(len(labels_b), dtype=torch.bool, device=labels_b.device)
        infinity = float("inf")
        positive_pb = order_pbb.masked_fill(~others_bb, -infinity).argmax(2)
        negative_pb = order_pbb.masked_fill(same_bb, infinity).argmin(2)
        valid_b = others_bb.any(1) & ~same_bb.all(1)
    # The length of the difference: an expanded square would suffer cancellation for similar images.
    hardest_pbd = (embeddings_pbd.take_along_dim(i[:, :, None], 1) for i in (positive_pb, negative_pb))
    distances_pb = [(embeddings_pbd - x).square().sum(2).clamp_min(1e-12).sqrt() for x in hardest_pbd]
    hinges_pb = F.relu(distances_pb[0] - distances_pb[1] + margin)
    return (hinges_pb * valid_b).sum(1) / valid_b.sum()


def group_sparsity(weight_dc: Tensor) -> Tensor:
    """Compute the ℓ2,1 norm (group LASSO) of a feature layer: the sum of its columns' ℓ2 norms, a scalar.

    Args:
        weight_dc: Weights of D outputs and C input units, (D, C). A column of zeros switches a unit off.

    Source: JLML's selective feature learning of the global branch; the norm was read in notes on the paper,
    that its groups belong to input units is recalled.
    """
    # linalg.vector_norm has subgradient 0 at a column of zeros, where sqrt(sum) would give NaN.
    return torch.linalg.vector_norm(weight_dc.float(), dim=0).sum()


def exclusive_sparsity(weight_pdc: Tensor, over: Literal["output", "input"] = "output") -> Tensor:
    """Compute the ℓ1,2 norm (exclusive group LASSO): the sum of the groups' squared ℓ1 norms, a scalar.

    The square makes the weights inside a group compete: each group keeps a few and none is switched off.

    Args:
        weight_pdc: Feature layer of each of P stripes, (P, D/P, C).
        over: The unit whose weights form a group: "output" (those from one stripe's C inputs) or "input"
            (those to its stripe's outputs). Our choice is "output", because only a vector over input units
            can have several stripes as its groups.

    Source: JLML's selective feature learning of the local branch; the norm was read in notes on the paper. It
    is that of Kong et al., "Exclusive Feature Learning on Arbitrary Structures via ℓ1,2-norm", NIPS 2014.
    """
    check_choice("a group belongs to an output or an input unit", over, ("output", "input"))
    group_dim = 2 if over == "output" else 1
    return weight_pdc.float().abs().sum(dim=group_dim).square().sum()


def jlml_objective(
    logits_bpk: Tensor,
    labels_b: Tensor,
    feature_weights: tuple[Tensor, Tensor],
    *,
    sparsity_global: float = 5e-4,
    sparsity_local: float = 5e-4,
    exclusive_over: Literal["output", "input"] = "output",
) -> Terms:
    """Compute JLML's training objective: one cross-entropy per classifier and two sparsity terms.

    Args:
        logits_bpk: Logits of the classifiers, (B, P, K): P = 2 with one per branch, P = 1 for UniLoss.
        labels_b: Class of each image, (B,), int64 from 0 to K - 1.
        feature_weights: Weights of the feature layers: global (D, C) and local (P, D/P, C).
        sparsity_global, sparsity_local: Strengths λ_g and λ_l of the two terms; 0 omits one. 5e-4: recalled.
        exclusive_over: ``over`` of ``exclusive_sparsity``, our choice.

    Returns:
        The terms, scaled by their strengths.
    """
    values = tuple(multi_branch_cross_entropy(logits_bpk, labels_b).unbind())
    names = ("identity_global", "identity_local") if len(values) == 2 else ("identity_joint",)
    weight_global, weight_local = feature_weights
    if sparsity_global:
        names += ("sparsity_global",)
        values += (sparsity_global * group_sparsity(weight_global),)
    if sparsity_local:
        names += ("sparsity_local",)
        values += (sparsity_local * exclusive_sparsity(weight_local, exclusive_over),)
    return Terms(names, values)
