"""Each loss against a naive loop written from its definition."""

import math

import pytest
import torch

from reidlib.errors import InputError
from reidlib.training.losses import (
    Terms,
    batch_hard_triplet,
    exclusive_sparsity,
    group_sparsity,
    jlml_objective,
    multi_branch_cross_entropy,
)


def naive_cross_entropy(logits, labels):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[label]
    return total / len(labels)


def test_cross_entropy_of_each_branch():
    logits = torch.randn(5, 3, 4)
    labels = torch.tensor([0, 3, 1, 1, 2])
    actual = multi_branch_cross_entropy(logits, labels)
    assert actual.tolist() == pytest.approx([naive_cross_entropy(x, labels) for x in logits.unbind(1)])


def naive_triplet(embeddings, labels, margin, normalise=False):
    """The batch-hard loss by its definition, anchor by anchor, in double precision."""
    rows = [torch.nn.functional.normalize(row, dim=0) if normalise else row for row in embeddings.double()]
    hinges = []
    for anchor, label in enumerate(labels):
        distances = [(rows[anchor] - row).norm() for row in rows]
        positives = [d for i, d in enumerate(distances) if labels[i] == label and i != anchor]
        negatives = [d for i, d in enumerate(distances) if labels[i] != label]
        if positives and negatives:
            hinges.append((max(positives) - min(negatives) + margin).clamp_min(0))
    return torch.stack(hinges).mean()


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 0, 1, 1, 1, 2, 2, 2],
        [3, 1, 3, 1, 3, 5, 3, 1, 1],  # unsorted, uneven; identity 5 stands alone
        [0, 1, 2, 3, 4, 5, 6, 7, 0],  # one pair, as in a random batch
    ],
)
def test_triplet_loss_of_each_part(labels, normalise):
    generator = torch.Generator().manual_seed(len(set(labels)))
    embeddings = torch.randn(9, 4, 6, generator=generator).requires_grad_()
    naive_embeddings = embeddings.detach().clone().requires_grad_()
    actual = batch_hard_triplet(embeddings, torch.tensor(labels), margin=0.7, normalise=normalise)
    expected = torch.stack([naive_triplet(x, labels, 0.7, normalise) for x in naive_embeddings.unbind(1)])
    torch.testing.assert_close(actual, expected.float())
    actual.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(embeddings.grad, naive_embeddings.grad)


def test_triplet_loss_by_hand():
    """Points on a line: 0 and 3 are one person, 4 and 5 another, 9 a third, who is only a negative."""
    embeddings = torch.tensor([0.0, 3.0, 4.0, 5.0, 9.0]).view(5, 1, 1)
    labels = torch.tensor([0, 0, 1, 1, 2])
    # Farthest own and nearest other of each anchor: 3-4, 3-1, 1-1, 1-2 (and none for the last).
    assert batch_hard_triplet(embeddings, labels, margin=1.0).item() == pytest.approx((0 + 3 + 1 + 0) / 4)


def test_triplet_distances_of_nearly_equal_images_are_exact():
    """Far from the origin the expanded square of a difference loses all significant digits."""
    embeddings = 1000 + torch.tensor([0.0, 1e-2, 2e-2, 4e-2]).view(4, 1, 1).expand(4, 1, 16)
    labels = torch.tensor([0, 0, 1, 1])
    expected = naive_triplet(embeddings[:, 0], labels.tolist(), 1.4)
    assert batch_hard_triplet(embeddings, labels).item() == pytest.approx(expected.item(), abs=1e-3)


def test_triplet_gradient_is_finite_if_images_coincide():
    embeddings = torch.zeros(4, 2, 3, requires_grad=True)
    loss = batch_hard_triplet(embeddings, torch.tensor([0, 0, 1, 1]))
    assert loss.tolist() == pytest.approx([1.4, 1.4])
    loss.sum().backward()
    assert torch.equal(embeddings.grad, torch.zeros(4, 2, 3))


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [5, 5, 5, 5], [1]])
def test_a_batch_without_positives_or_with_one_identity_is_refused(labels):
    with pytest.raises(InputError, match="two images of one identity and one of another; got a batch of"):
        batch_hard_triplet(torch.randn(len(labels), 2, 3), torch.tensor(labels))


def test_labels_of_another_batch_are_refused():
    with pytest.raises(InputError, match="4 images, 3 labels"):
        batch_hard_triplet(torch.randn(4, 2, 3), torch.tensor([0, 0, 1]))


def test_weighted_terms_keep_a_gradient_at_weight_zero():
    value, other = torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    total = Terms(("identity", "triplet"), (value, other), (0.0, 0.5)).total
    assert total.item() == 1.5
    total.backward()
    assert (value.grad, other.grad) == (0, 0.5)  # 0 and not None: distributed training waits for each


def test_group_sparsity_is_a_sum_of_column_norms():
    weight = torch.randn(3, 5)
    expected = sum(math.sqrt(sum(weight[d, c].item() ** 2 for d in range(3))) for c in range(5))
    assert group_sparsity(weight).item() == pytest.approx(expected)


@pytest.mark.parametrize("over", ["output", "input"])
def test_exclusive_sparsity_is_a_sum_of_squared_l1_norms(over):
    weight = torch.randn(2, 3, 4)
    expected = 0.0
    for part in range(2):
        if over == "output":
            expected += sum(sum(abs(weight[part, d, c].item()) for c in range(4)) ** 2 for d in range(3))
        else:
            expected += sum(sum(abs(weight[part, d, c].item()) for d in range(3)) ** 2 for c in range(4))
    assert exclusive_sparsity(weight, over).item() == pytest.approx(expected, rel=1e-5)


def test_sparsity_has_a_finite_gradient_if_a_unit_is_switched_off():
    weight = torch.zeros(3, 4, requires_grad=True)
    group_sparsity(weight).backward()
    assert torch.equal(weight.grad, torch.zeros(3, 4))


def test_group_sparsity_switches_whole_units_off_and_exclusive_does_not():
    """Minimised together with a fit, one norm empties columns and the other thins every group."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=generator)
    target = inputs[:, :3] @ torch.randn(3, 3, generator=generator)  # only three of six units matter

    def fit(penalty):
        weight = torch.zeros(3, 6).normal_(generator=generator).requires_grad_()
        optimiser = torch.optim.SGD([weight], lr=0.02)
        for _ in range(800):
            optimiser.zero_grad()
            ((inputs @ weight.T - target).square().mean() + penalty(weight)).backward()
            optimiser.step()
        return weight.detach()

    norms = fit(lambda weight: 0.2 * group_sparsity(weight)).norm(dim=0)
    assert norms[3:].max() < 0.02 * norms[:3].min()
    weight = fit(lambda weight: 0.05 * exclusive_sparsity(weight.unsqueeze(0)))
    assert (weight.abs().amax(dim=1) > 0.1).all()


def test_objective_names_its_terms_and_adds_them():
    torch.manual_seed(0)
    labels = torch.tensor([0, 1, 1])
    weights = (torch.randn(6, 5), torch.randn(2, 3, 4))
    multi = jlml_objective(torch.randn(3, 2, 2), labels, weights)
    assert multi.names == ("identity_global", "identity_local", "sparsity_global", "sparsity_local")
    assert multi.total.item() == pytest.approx(sum(value.item() for value in multi.values))
    assert multi.values[2].item() == pytest.approx(5e-4 * group_sparsity(weights[0]).item())
    uni = jlml_objective(torch.randn(3, 1, 2), labels, weights, sparsity_global=0, sparsity_local=0)
    assert uni.names == ("identity_joint",)


def test_objective_is_float32_under_bfloat16():
    logits, labels = torch.randn(3, 1, 2, dtype=torch.bfloat16), torch.tensor([0, 1, 1])
    weights = (torch.randn(6, 5, dtype=torch.bfloat16), torch.randn(2, 3, 4, dtype=torch.bfloat16))
    assert jlml_objective(logits, labels, weights).total.dtype == torch.float32
    assert batch_hard_triplet(torch.randn(3, 2, 4, dtype=torch.bfloat16), labels).dtype == torch.float32


def test_unknown_groups_are_refused():
    with pytest.raises(InputError, match="output or an input"):
        exclusive_sparsity(torch.zeros(1, 1, 1), "rows")
