"""Dynamic balancing: steps of every mode worked by hand, and a comparison with the released arithmetic."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reidlib.errors import InputError
from reidlib.training.dynamic import Balance, Balancing, Weights, balance_losses

PAPER, OFFICIAL = Balancing("paper"), Balancing("official")
LITERAL, SUM_2 = Balancing("paper", weights="literal"), Balancing("paper", weights="sum-2")
losses = st.floats(0, 1e3)


def focal(before, after):
    """The focal weight by the formula, for an average that fell."""
    return (1 - after / before) ** 2 * -math.log(after / before)


def before_step(**changes):
    return Balance(identity=10.0, triplet=5.0)._replace(**changes)


# What the released code does with the triplet term, by hand: averages stand at 10 and 5, and a loss of x
# moves them to 0.25 x + 7.5 and 0.25 x + 3.75.
GATE = [
    # identity, triplet, open?, why
    (6.0, 3.0, True, "both fall by a tenth: ratio 1"),
    (6.0, 3.88, True, "r = 0.1 and 0.056: ratio 0.17"),
    (6.0, 3.92, False, "r = 0.1 and 0.054: ratio 0.154, a little below 0.54 cubed"),
    (12.0, 3.0, False, "identity rises, triplet falls: ratio is -inf, though the limit is +inf"),
    (6.0, 6.0, False, "triplet rises, identity falls: ratio is -0.0"),
    (12.0, 6.0, True, "both rise: 0/0 is not a number, and compares as false"),
    (10.0, 5.0, True, "neither moves: the same"),
    (10.0, 3.0, False, "identity does not move, triplet falls: -inf again"),
]


@pytest.mark.parametrize("identity, triplet, is_open, why", GATE)
def test_the_released_gate_step_by_step(identity, triplet, is_open, why):
    weights, new_state = balance_losses(before_step(), identity, triplet, OFFICIAL)
    assert weights == Weights(1.0, float(is_open)), why
    assert new_state.identity == pytest.approx(0.25 * identity + 7.5)
    assert new_state.triplet == pytest.approx(0.25 * triplet + 3.75)
    assert new_state.balanced


def released(identities, triplets, rate=0.25, focus=2.0, threshold=0.16):
    """The gate as the released code computes it, with numpy's infinities and negative zeros."""
    averages, first, gates = np.zeros(2), True, []
    with np.errstate(all="ignore"):
        for step in zip(identities, triplets, strict=True):
            new = rate * np.array(step) + (1 - rate) * averages
            share = np.full(2, 0.5) if first else np.minimum(new, averages) / averages
            focal_weights = -((1 - share) ** focus) * np.log(share)
            averages, first = new, False
            gates.append(not focal_weights[1] / focal_weights[0] < threshold)
    return gates


def test_the_gate_equals_the_released_arithmetic_over_a_whole_training():
    generator = np.random.default_rng(0)
    fall = np.exp(-np.arange(2000) / 400)
    identities, triplets = (scale * fall * (1 + 0.1 * generator.standard_normal(2000)) for scale in (60, 20))
    state, gates = Balance(), []
    for identity, triplet in zip(identities.tolist(), triplets.tolist(), strict=True):
        weights, state = balance_losses(state, identity, triplet, OFFICIAL)
        gates.append(weights.triplet == 1)
    assert gates == released(identities, triplets)
    assert all(gates[:5])  # averages that start at 0 rise at first: both losses
    assert 0.3 < np.mean(gates) < 0.6  # facts: noise alone closes it in somewhat more than half of the steps


def test_the_gate_if_the_released_code_divides_by_zero():
    state = Balance()
    for triplet in (0.0, 0.0, 1.0, 0.0):
        weights, state = balance_losses(state, 5.0, triplet, OFFICIAL)
        assert all(map(math.isfinite, (*weights, state.identity, state.triplet)))
    for _ in range(5000):  # until the average is the smallest positive number
        weights, state = balance_losses(state, 5.0, 0.0, OFFICIAL)
    assert state.triplet < 1e-300
    assert math.isfinite(state.focal_triplet)
    _, state = balance_losses(state._replace(triplet=5e-324), 5.0, 0.0, Balancing("official", rate=0.9))
    assert state.triplet == 0  # it cannot fall further
    assert math.isfinite(state.focal_triplet)


def test_the_papers_first_step_uses_both_losses_equally():
    weights, new_state = balance_losses(Balance(), 4.0, 2.0, PAPER)
    assert weights == Weights(1.0, 1.0)
    assert (new_state.identity, new_state.triplet) == (4.0, 2.0)
    assert new_state.focal_identity == new_state.focal_triplet == pytest.approx(0.25 * math.log(2))
    assert new_state.sampler == "identity"


def test_the_papers_weights_by_hand():
    # 10 -> 9 and 5 -> 4.8
    expected = focal(10, 9), focal(5, 4.8)
    literal, new_state = balance_losses(before_step(), 6.0, 4.2, Balancing("paper", weights="literal"))
    assert literal == pytest.approx(expected)
    assert (new_state.focal_identity, new_state.focal_triplet) == pytest.approx(expected)
    relative, _ = balance_losses(before_step(), 6.0, 4.2, PAPER)
    assert relative == pytest.approx((1, expected[1] / expected[0]))
    assert new_state.balanced == (expected[1] / expected[0] >= 0.16)
    scaled, state = balance_losses(before_step(), 6.0, 4.2, SUM_2)
    assert scaled == pytest.approx([2 * weight / sum(expected) for weight in expected])
    assert state == new_state  # the scale changes no decision


def test_weights_of_a_constant_sum_are_equal_if_no_loss_falls():
    assert balance_losses(before_step(), 12.0, 6.0, SUM_2)[0] == Weights(1.0, 1.0)
    assert balance_losses(before_step(), 12.0, 3.0, SUM_2)[0] == Weights(0.0, 2.0)


PAPER_GATE = [
    (6.0, 3.0, True, "both fall alike"),
    (6.0, 4.0, False, "the triplet falls by half as much: ratio 0.12"),
    (6.0, 6.0, False, "the triplet rises: ratio 0"),
    (12.0, 3.0, True, "identity rises, triplet falls: ratio +inf, where the released code has -inf"),
    (12.0, 6.0, True, "both rise: 0/0 leaves both in use"),
]


@pytest.mark.parametrize("identity, triplet, both, why", PAPER_GATE)
def test_the_papers_ratio_decides_the_next_steps_losses_and_sampler(identity, triplet, both, why):
    _, new_state = balance_losses(before_step(), identity, triplet, PAPER)
    assert new_state.balanced == both, why
    assert new_state.sampler == ("identity" if both else "random")


def test_on_a_random_batch_only_identity_is_minimised_and_the_triplet_waits():
    state = before_step(focal_triplet=0.02, balanced=False)
    weights, new_state = balance_losses(state, 6.0, None, PAPER)
    assert weights == Weights(1.0, 0.0)
    assert (new_state.triplet, new_state.focal_triplet) == (5.0, 0.02)
    assert new_state.focal_identity == pytest.approx(focal(10, 9))
    assert new_state.balanced  # 0.02 is far above 0.16 times that
    _, new_state = balance_losses(state._replace(focal_triplet=1e-9), 6.0, None, PAPER)
    assert not new_state.balanced


def test_if_identity_does_not_fall_both_losses_weigh_the_same():
    assert balance_losses(before_step(), 12.0, 6.0, PAPER)[0] == Weights(1.0, 1.0)
    assert balance_losses(before_step(), 12.0, 3.0, PAPER)[0] == Weights(1.0, 1.0)
    assert balance_losses(before_step(), 6.0, 6.0, PAPER)[0] == Weights(1.0, 0.0)


def test_off_is_the_sum_and_decides_nothing():
    assert balance_losses(before_step(), 6.0, 9.0, Balancing("off")) == (Weights(1.0, 1.0), before_step())


@given(
    steps=st.lists(st.tuples(losses, losses), min_size=1, max_size=40),
    mode=st.sampled_from([PAPER, OFFICIAL, LITERAL, SUM_2]),
)
def test_results_are_finite(steps, mode):
    state = Balance()
    for identity, triplet in steps:
        weights, state = balance_losses(state, identity, triplet if state.balanced else None, mode)
        assert all(math.isfinite(number) and number >= 0 for number in (*weights, *state[:4]))
        assert weights.identity == 1 or mode in (LITERAL, SUM_2)
        assert weights.triplet <= 1 or mode in (LITERAL, SUM_2)
        assert mode is not SUM_2 or weights.triplet == 0 or sum(weights) == pytest.approx(2)


def test_resuming_from_the_state_gives_the_same_results():
    """A training that stops at any step and resumes from the checkpoint's numbers gives the same results."""
    generator = np.random.default_rng(1)
    pairs = generator.uniform(1, 3, (50, 2)).tolist()

    def go_on(state, pairs):
        decisions = []
        for identity, triplet in pairs:
            weights, state = balance_losses(state, identity, triplet if state.balanced else None, PAPER)
            decisions.append(weights)
        return decisions, state

    whole, _ = go_on(Balance(), pairs)
    first, state = go_on(Balance(), pairs[:20])
    second, _ = go_on(Balance(**state._asdict()), pairs[20:])
    assert first + second == whole


@pytest.mark.parametrize("mode", ["paper", "official", "off"])
@pytest.mark.parametrize(
    "identity, triplet", [(math.nan, 1.0), (1.0, math.inf), (1.0, math.nan), (-1.0, 1.0)]
)
def test_losses_without_a_ratio_are_refused_by_name(mode, identity, triplet):
    bad = "triplet" if identity == 1.0 else "identity"
    with pytest.raises(InputError, match=f"finite and not negative; got {bad} = (nan|inf|-1.0); lower the"):
        balance_losses(before_step(), identity, triplet, Balancing(mode))


@pytest.mark.parametrize("mode", ["paper", "official", "off"])
@pytest.mark.parametrize("name", ["identity", "triplet", "focal_identity", "focal_triplet"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_without_a_ratio_is_refused_by_name(mode, name, value):
    with pytest.raises(InputError, match=f"finite and not negative; got the state's {name} = (nan|inf)"):
        balance_losses(before_step(**{name: value}), 1.0, 1.0, Balancing(mode))


def test_a_triplet_loss_of_a_random_batch_is_refused():
    with pytest.raises(InputError, match="identity-balanced batches only"):
        balance_losses(before_step(balanced=False), 1.0, 1.0, PAPER)
    with pytest.raises(InputError, match="identity-balanced batches only"):
        balance_losses(before_step(), 1.0, None, PAPER)
    with pytest.raises(InputError, match="for a random batch in mode official"):
        balance_losses(before_step(balanced=False), 1.0, None, OFFICIAL)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"mode": "dynamic"}, "one of paper, official, off; got 'dynamic'"),
        ({"weights": "both"}, "one of relative, literal, sum-2; got 'both'"),
        ({"rate": 0}, "0 < rate <= 1"),
        ({"rate": math.nan}, "rate is a finite number"),
        ({"threshold": -1}, "threshold >= 0"),
        ({"first_share": 1}, "first_share < 1"),
    ],
)
def test_contradictory_settings_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        Balancing(**arguments)
