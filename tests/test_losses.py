"""Each loss against a naive loop written from its definition."""

import math

import pytest
import torch

from reidlib.errors import InputError
from reidlib.losses import exclusive_sparsity, group_sparsity, jlml_objective, multi_branch_cross_entropy


def naive_cross_entropy(logits, labels):
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total += math.log(sum(math.exp(value) for value in row)) - row[label]
    return total / len(labels)


def test_cross_entropy_of_each_branch():
    logits = (torch.randn(5, 4), torch.randn(5, 4))
    labels = torch.tensor([0, 3, 1, 1, 2])
    actual = multi_branch_cross_entropy(logits, labels)
    assert [x.item() for x in actual] == pytest.approx([naive_cross_entropy(x, labels) for x in logits])


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


def test_sparsity_has_a_finite_gradient_where_a_unit_is_switched_off():
    weight = torch.zeros(3, 4, requires_grad=True)
    group_sparsity(weight).backward()
    assert torch.equal(weight.grad, torch.zeros(3, 4))


def test_group_sparsity_switches_whole_units_off_and_exclusive_does_not():
    """What the norms are for: minimised beside a fit, one empties columns, the other thins every group."""
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
    multi = jlml_objective((torch.randn(3, 2), torch.randn(3, 2)), labels, weights)
    assert multi.names == ("identity_global", "identity_local", "sparsity_global", "sparsity_local")
    assert multi.total.item() == pytest.approx(sum(value.item() for value in multi.values))
    assert multi.values[2].item() == pytest.approx(5e-4 * group_sparsity(weights[0]).item())
    uni = jlml_objective((torch.randn(3, 2),), labels, weights, sparsity_global=0, sparsity_local=0)
    assert uni.names == ("identity_joint",)


def test_objective_is_float32_under_bfloat16():
    logits = (torch.randn(3, 2, dtype=torch.bfloat16),)
    weights = (torch.randn(6, 5, dtype=torch.bfloat16), torch.randn(2, 3, 4, dtype=torch.bfloat16))
    assert jlml_objective(logits, torch.tensor([0, 1, 1]), weights).total.dtype == torch.float32


def test_unknown_groups_are_refused():
    with pytest.raises(InputError, match="output or an input"):
        exclusive_sparsity(torch.zeros(1, 1, 1), "rows")
