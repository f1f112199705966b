"""Dynamic balancing of Pyramid's two losses, as a pure function from state and losses to weights and state.

A mode says how the losses are balanced. With L_t the loss of task t (identity or triplet), the modes use:

    k_t  ← α·L_t + (1 − α)·k_t                 running average
    p_t  = min(k_t new, k_t old) / k_t old     1 if the average did not fall
    FL_t = −(1 − p_t)^γ · ln p_t               focal weight: large if the loss falls fast, 0 if it rises

``paper``: an iteration minimises FL_identity·L_identity + FL_triplet·L_triplet on an identity-balanced batch
or, after FL_triplet / FL_identity < δ, L_identity alone on a random batch. How the weights are scaled is not
known. By default they are 1 and the ratio, at most 1: we assume both, so pages call this mode our reading.
``official``: the gate of the released code. Batches are always balanced; the objective is
L_identity + L_triplet, without the second term in a step whose ratio is below δ. ``off``: always their sum.

Sources: Zheng et al., CVPR 2019 ("multi-loss dynamic training"), without its text. The formulas were read in
two implementations by others, the switch of samplers in issue 5 of the authors' code. That code has the gate,
but neither weights nor the switch. α, γ and δ are that code's; that the paper prints them is recalled.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reidlib.errors import InputError
from reidlib.values import check_fields


@dataclass(frozen=True)
class Balancing:
    """Settings of the balancing of the two losses; the numbers were read in the released code.

    Attributes:
        mode: "paper", "official" or "off"; see the module's description.
        rate: α, the weight of the newest loss in the running average.
        focus: γ, the exponent of the focal weight.
        threshold: δ. Below this ratio of focal weights only the identity loss is minimised.
        weights: How focal weights multiply the losses in mode "paper". "literal": unchanged. Each is of the
            order of a loss's relative fall in one step, cubed, which nearly stops the learning in a balanced
            step. "sum-2": scaled to a sum of 2, that of two weights of 1, which they are if no loss falls.
            "relative": 1 for the identity loss and their ratio for the triplet loss, at most 1 as in
            the other modes. We assume "relative": no source says how the authors scaled theirs.
        first_share: p_t of the first step, which has no earlier average.
    """

    mode: Literal["paper", "official", "off"] = "paper"
    rate: float = 0.25
    focus: float = 2.0
    threshold: float = 0.16
    weights: Literal["relative", "literal", "sum-2"] = "relative"
    first_share: float = 0.5

    def __post_init__(self):
        check_fields(self)
        if not (0 < self.rate <= 1 and self.focus >= 0 and self.threshold >= 0 and 0 < self.first_share < 1):
            rule = "balancing needs 0 < rate <= 1, focus >= 0, threshold >= 0 and 0 < first_share < 1"
            raise InputError(rule, self, "change the value that is out of range")


class Balance(NamedTuple):
    """The state of the balancing between two steps; it is the same in every process.

    Attributes:
        identity, triplet: Running averages k of the two losses; None before the first step. Our choice in
            mode "paper": they start with the first losses, and a random batch does not change the triplet's.
        focal_identity, focal_triplet: Focal weights of the latest step that measured each loss.
        balanced: Whether the next batch is identity-balanced and uses the triplet loss.
    """

    identity: float | None = None
    triplet: float | None = None
    focal_identity: float = 0.0
    focal_triplet: float = 0.0
    balanced: bool = True

    @property
    def sampler(self) -> str:
        """The sampler of the next batch: "identity" or "random"."""
        return "identity" if self.balanced else "random"


class Weights(NamedTuple):
    """Factors of the two losses in one step; 0 omits a loss."""

    identity: float
    triplet: float


def balance_losses(
    state: Balance, identity: float, triplet: float | None, settings: Balancing
) -> tuple[Weights, Balance]:
    """Compute the weights of this step's losses and the state for the next step.

    Mode "paper": if the triplet loss's focal weight / the identity loss's is below ``threshold``, the next
    step minimises the identity loss alone, on a random batch; otherwise both, on a balanced batch. Mode
    "official": batches are always balanced; in a step with such a ratio the triplet loss has weight 0. Mode
    "off": both weights are 1.

    Args:
        state: The state after the step before; ``Balance()`` at the start.
        identity, triplet: Losses of this step; ``triplet`` is None if and only if not ``state.balanced``.
        settings: Mode and constants.

    Returns:
        The weights of this step's losses and the next state.

    Raises:
        InputError: If a loss is negative or not finite, or is measured on the wrong kind of batch.
    """
    _check(state, identity, triplet, settings)
    if settings.mode == "off":
        return Weights(1.0, 1.0), state
    if settings.mode == "official":
        assert triplet is not None  # see _check
        return _balance_official(state, identity, triplet, settings)
    return _balance_paper(state, identity, triplet, settings)


# The ratio decides the next step's losses and sampler. A step on a random batch keeps the triplet's average
# and focal weight (we assume: such a batch holds its few pairs by chance). The identity average runs
# over both kinds of batches, as in the formula. If balanced batches are harder, it rises after a switch to
# them, which keeps the gate open for some steps.
def _balance_paper(
    state: Balance, identity: float, triplet: float | None, settings: Balancing
) -> tuple[Weights, Balance]:
    average_identity, focal_identity = _update(state.identity, identity, settings, start=identity)
    average_triplet, focal_triplet = state.triplet, state.focal_triplet
    if triplet is not None:
        average_triplet, focal_triplet = _update(state.triplet, triplet, settings, start=triplet)
    # Products avoid divisions by zero: +∞ (the identity loss does not fall) and 0/0 (neither falls) are open.
    closed = focal_triplet < settings.threshold * focal_identity
    new_state = Balance(average_identity, average_triplet, focal_identity, focal_triplet, not closed)
    if triplet is None:
        return Weights(1.0, 0.0), new_state
    if settings.weights == "literal":
        return Weights(focal_identity, focal_triplet), new_state
    if settings.weights == "sum-2":
        total = focal_identity + focal_triplet
        scale = 2 / total if total else math.inf
        if math.isinf(scale):  # neither loss falls, or by less than a float can tell
            return Weights(1.0, 1.0), new_state
        return Weights(scale * focal_identity, scale * focal_triplet), new_state
    ratio = 1.0 if focal_triplet >= focal_identity else focal_triplet / focal_identity
    return Weights(1.0, ratio), new_state


# The released arithmetic with its negative zeros: a rising average gives FL = −0.0. If identity rises and
# triplet falls, the ratio is −∞ and the gate closes, although the formula's limit is +∞. If triplet rises and
# identity falls, it is −0.0 (closed). If both rise, it is not a number, which compares as false (open).
# That code starts its averages at 0, which opens the gate for about ten steps, and divides by zero if a loss
# is exactly 0 from the first step on; we use p = 1 then.
def _balance_official(
    state: Balance, identity: float, triplet: float, settings: Balancing
) -> tuple[Weights, Balance]:
    average_identity, focal_identity = _update(state.identity, identity, settings, start=0.0)
    average_triplet, focal_triplet = _update(state.triplet, triplet, settings, start=0.0)
    ratio = focal_triplet / focal_identity if focal_identity > 0 else math.nan
    closed = ratio < settings.threshold or (focal_identity == 0 and focal_triplet > 0)
    new_state = Balance(average_identity, average_triplet, focal_identity, focal_triplet, balanced=True)
    return Weights(1.0, 0.0 if closed else 1.0), new_state


def _update(average: float | None, loss: float, settings: Balancing, *, start: float) -> tuple[float, float]:
    """Return a loss's new running average and focal weight; ``start``: the average before the first step."""
    old = start if average is None else average
    new = settings.rate * loss + (1 - settings.rate) * old
    if average is None:
        share = settings.first_share
    else:
        # A loss of exactly 0 cannot fall; an average that underflows counts as the largest possible fall.
        share = max(min(new, old) / old, sys.float_info.min) if old > 0 else 1.0
    return new, -((1 - share) ** settings.focus) * math.log(share) + 0.0  # no −0.0


def _check(state: Balance, identity: float, triplet: float | None, settings: Balancing) -> None:
    state_values = {f"the state's {name}": getattr(state, name) for name in Balance._fields[:4]}
    for name, number in {"identity": identity, "triplet": triplet, **state_values}.items():
        if number is not None and not (math.isfinite(number) and number >= 0):
            mend = "lower the learning rate, or look at that batch"
            raise InputError("balanced losses are finite and not negative", f"{name} = {number}", mend)
    if (triplet is None) == state.balanced or (triplet is None and settings.mode != "paper"):
        raise InputError(
            "a triplet loss is measured on identity-balanced batches only",
            f"triplet = {triplet} for a {state.sampler} batch in mode {settings.mode}",
            "draw the batch with the sampler that the state names",
        )
