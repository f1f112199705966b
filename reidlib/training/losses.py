"""Losses as pure functions: numbers in, named terms out. No loss knows a model."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from reidlib.errors import InputError, check_choice


class Terms(NamedTuple):
    """The terms of one objective, all scalars on the device; ``total`` is what is minimised."""

    names: tuple[str, ...]
    values: tuple[Tensor, ...]
    weights: tuple[float, ...] | None = None  # of each term in the total; None: 1 each

    @property
    def total(self) -> Tensor:
        if self.weights is None:
            return torch.stack(self.values).sum()
        # A weight of 0 multiplies too: a term left out would leave its own layers without a gradient, and
        # those of a distributed training must have one in every step.
        pairs = zip(self.values, self.weights, strict=True)
        return torch.stack([value * weight for value, weight in pairs]).sum()


def multi_branch_cross_entropy(logits_bpk: Tensor, labels_b: Tensor) -> Tensor:
    """Softmax cross-entropy of each classifier, averaged over the batch: ``(P,)``, float32.

    logits_bpk: ``(B, P, K)``, P classifiers; labels_b: ``(B,)`` int64 in 0..K-1.
    Source: JLML §3 (a separate classification loss for each branch; with one classifier it is UniLoss);
    Pyramid's identity loss is the sum of the result.
    """
    batch, parts, _ = logits_bpk.shape
    labels_bp = labels_b[:, None].expand(batch, parts)
    losses = F.cross_entropy(logits_bpk.flatten(0, 1).float(), labels_bp.flatten(), reduction="none")
    return losses.view(batch, parts).mean(0)


def batch_hard_triplet(
    embeddings_bpd: Tensor, labels_b: Tensor, *, margin: float = 1.4, normalise: bool = False
) -> Tensor:
    """Batch-hard triplet loss of each part, averaged over the anchors: ``(P,)``, float32.

    embeddings_bpd: ``(B, P, D)``; labels_b: ``(B,)``. Each image is an anchor; its farthest image of the
    same identity must be nearer, by ``margin`` in Euclidean distance, than its nearest image of another.
    An anchor without a second image of its identity has no triplet and is left out of the mean (the
    official code pairs it with itself, at distance 0). normalise: to unit length first, as YouReID does.

    Raises InputError for labels on the CPU among which no identity has two images, or only one
    identity occurs; on an accelerator the check would wait for the device, and the loss is then NaN.
    Source: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, eq. 5;
    per part with margin 1.4 in the official code of Zheng et al., CVPR 2019.
    """
    if len(embeddings_bpd) != len(labels_b):
        raise InputError(
            "every image of a batch has a label",
            f"{len(embeddings_bpd)} images, {len(labels_b)} labels",
            "pair them",
        )
    if labels_b.device.type == "cpu":
        identities, counts = labels_b.unique(return_counts=True)
        if len(identities) < 2 or counts.max() < 2:
            raise InputError(
                "a triplet needs two images of one identity and one of another",
                f"a batch of {len(labels_b)} images of {len(identities)} identities",
                "draw batches with IdentityBatches, of at least two identities and two images each",
            )
    embeddings_pbd = embeddings_bpd.transpose(0, 1).float()
    if normalise:
        embeddings_pbd = F.normalize(embeddings_pbd, dim=2)
    with torch.no_grad():  # only which images are the hardest; their distances are computed exactly below
        # Around the batch's mean: far from the origin the products would lose the digits that differ.
        centred_pbd = embeddings_pbd - embeddings_pbd.mean(1, keepdim=True)
        lengths_pb = centred_pbd.square().sum(2)
        products_pbb = centred_pbd @ centred_pbd.mT
        # Squared distances but for the anchor's own length, which does not change the order in its row.
        nearness_pbb = lengths_pb[:, None, :] - 2 * products_pbb
        same_bb = labels_b[:, None] == labels_b
        others_bb = same_bb & ~torch.eye(len(labels_b), dtype=torch.bool, device=labels_b.device)
        infinity = float("inf")
        positive_pb = nearness_pbb.masked_fill(~others_bb, -infinity).argmax(2)
        negative_pb = nearness_pbb.masked_fill(same_bb, infinity).argmin(2)
        valid_b = others_bb.any(1) & ~same_bb.all(1)
    distances_pb = [
        # The difference's own length: expanding the square would cancel for images that are alike.
        (embeddings_pbd - _rows(embeddings_pbd, other_pb)).square().sum(2).clamp_min(1e-12).sqrt()
        for other_pb in (positive_pb, negative_pb)
    ]
    hinges_pb = F.relu(distances_pb[0] - distances_pb[1] + margin)
    return (hinges_pb * valid_b).sum(1) / valid_b.sum()


def _rows(values_pbd: Tensor, indices_pb: Tensor) -> Tensor:
    return values_pbd.gather(1, indices_pb[:, :, None].expand(-1, -1, values_pbd.shape[2]))


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
    check_choice("a group belongs to an output or an input unit", over, ("output", "input"))
    inside = 2 if over == "output" else 1
    return weight_pdc.float().abs().sum(dim=inside).square().sum()


def jlml_objective(
    logits_bpk: Tensor,
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
