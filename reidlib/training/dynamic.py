"""Dynamic balancing of Pyramid's two losses: a state and a step's losses in, weights and a state out.

Three different things are called the paper's dynamic training; each is a mode here. With L_t the loss of
task t (identity, triplet), all three modes keep what the formulae need:

    k_t  ← α·L_t + (1 − α)·k_t                 running average
    p_t  = min(k_t new, k_t old) / k_t old     1 where the average did not fall
    FL_t = −(1 − p_t)^γ · ln p_t               focal weight: large where a loss falls fast, 0 where it rises

``paper``: an iteration either minimises FL_identity·L_identity + FL_triplet·L_triplet on an
identity-balanced batch, or, after FL_triplet / FL_identity < δ, L_identity alone on a random batch.
``official``: the gate of the released code: balanced batches always, L_identity + L_triplet, and the
second term is left out in a step where the ratio is below δ. ``off``: their sum, always.

Sources: Zheng et al., CVPR 2019 ("multi-loss dynamic training"); the authors' code, which holds the gate
but neither weights nor sampler switch; issue 5 there, which says so. α, γ and δ are that code's.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Literal, NamedTuple

from reidlib.errors import InputError, check_choice

MODES = ("paper", "official", "off")


@dataclass(frozen=True)
class Balancing:
    """How the two losses are balanced. Contradictory values are refused."""

    mode: Literal["paper", "official", "off"] = "paper"
    rate: float = 0.25  # α: weight of the newest loss in the running average
    focus: float = 2.0  # γ
    threshold: float = 0.16  # δ: below this ratio of focal weights only the identity loss is minimised
    # How the focal weights multiply the losses in mode "paper". Both are of the order of a loss's relative
    # fall in one step, cubed: as they stand ("literal") they all but stop the learning in a balanced step.
    # "relative" gives identity the weight 1 and the triplet their ratio, at most 1 as in the other modes.
    # We assume "relative": no source says how the authors scaled theirs.
    weights: Literal["relative", "literal"] = "relative"
    first_share: float = 0.5  # p_t of the first step, which has no average to compare with

    def __post_init__(self):
        check_choice(f"a balancing mode is one of {', '.join(MODES)}", self.mode, MODES, "name one")
        check_choice("focal weights are relative or literal", self.weights, ("relative", "literal"))
        if not (0 < self.rate <= 1 and self.focus >= 0 and self.threshold >= 0 and 0 < self.first_share < 1):
            raise InputError(
                "balancing needs 0 < rate <= 1, focus >= 0, threshold >= 0 and 0 < first_share < 1",
                f"rate={self.rate}, focus={self.focus}, threshold={self.threshold}, "
                f"first_share={self.first_share}",
                "change the value that lies outside",
            )


class Balance(NamedTuple):
    """All that balancing remembers between two steps: plain numbers, the same in every process."""

    identity: float | None = None  # running average k; None before the first step
    triplet: float | None = None
    focal_identity: float = 0.0  # focal weights of the latest step that measured each loss
    focal_triplet: float = 0.0
    balanced: bool = True  # whether the next batch is identity-balanced, and the triplet loss in use

    @property
    def sampler(self) -> str:
        """The sampler of the next batch: "identity" or "random"."""
        return "identity" if self.balanced else "random"


class Weights(NamedTuple):
    """What the two losses are multiplied by in a step; 0 leaves the loss out."""

    identity: float
    triplet: float


def balance_losses(
    state: Balance, identity: float, triplet: float | None, settings: Balancing
) -> tuple[Weights, Balance]:
    """Weights of this step's losses, and the state for the next step.

    identity, triplet: this step's losses, finite and not negative; ``triplet`` is None exactly where
    ``state.balanced`` is False: a random batch has no triplets to speak of.

    Mode "paper": the state says which losses this step minimises, and its ratio decides the next step's
    losses and sampler, so that a loss always meets its batch. In a step on a random batch the triplet's
    average and focal weight stay as they are (we assume; measuring them on what pairs such a batch holds
    by chance would follow the batch and not the training). The identity average runs over both kinds of
    batches, as the formula has it, and so follows the sampler a little: where balanced batches are the
    harder ones it rises behind a switch to them, which keeps the gate open for some steps. Where the
    identity loss does not fall, the ratio is +∞, or 0/0 where neither does: both losses are used then.

    Mode "official" reproduces the released arithmetic with its negative zeros. There a rising average
    gives FL = −0.0, so that the ratio is −∞ where identity rises and triplet falls, and the gate closes
    although the formula's limit is +∞; it is −0.0 where triplet rises and identity falls (closed), and
    not a number where both rise, which compares as false: open. That code starts its averages at 0, which
    opens the gate for about ten steps, and divides by zero where a loss is exactly 0 from the first step
    on; we take p = 1 there.

    Raises InputError for losses that are not finite or negative: no NaN passes silently.
    """
    _check(state, identity, triplet, settings)
    if settings.mode == "off":
        return Weights(1.0, 1.0), state
    if settings.mode == "official":
        return _official(state, identity, triplet, settings)
    return _paper(state, identity, triplet, settings)


def _paper(
    state: Balance, identity: float, triplet: float | None, settings: Balancing
) -> tuple[Weights, Balance]:
    average_identity, focal_identity = _followed(state.identity, identity, settings, start=identity)
    average_triplet, focal_triplet = state.triplet, state.focal_triplet
    if triplet is not None:
        average_triplet, focal_triplet = _followed(state.triplet, triplet, settings, start=triplet)
    # Products instead of the quotient: no division by zero, and 0 < 0 is false as 0/0 must count as open.
    closed = focal_triplet < settings.threshold * focal_identity
    after = Balance(average_identity, average_triplet, focal_identity, focal_triplet, not closed)
    if triplet is None:
        return Weights(1.0, 0.0), after
    if settings.weights == "literal":
        return Weights(focal_identity, focal_triplet), after
    return Weights(1.0, 1.0 if focal_triplet >= focal_identity else focal_triplet / focal_identity), after


def _official(
    state: Balance, identity: float, triplet: float, settings: Balancing
) -> tuple[Weights, Balance]:
    average_identity, focal_identity = _followed(state.identity, identity, settings, start=0.0)
    average_triplet, focal_triplet = _followed(state.triplet, triplet, settings, start=0.0)
    # Where identity does not fall, the released code divides by −0.0: −∞ where the triplet falls, which
    # closes the gate, and not a number where it does not, which opens it.
    quotient = focal_triplet / focal_identity if focal_identity > 0 else math.nan
    closed = quotient < settings.threshold or (focal_identity == 0 and focal_triplet > 0)
    after = Balance(average_identity, average_triplet, focal_identity, focal_triplet, balanced=True)
    return Weights(1.0, 0.0 if closed else 1.0), after


def _followed(
    average: float | None, loss: float, settings: Balancing, *, start: float
) -> tuple[float, float]:
    """Running average after ``loss``, and its focal weight. ``start``: the average before the first step."""
    before = start if average is None else average
    after = settings.rate * loss + (1 - settings.rate) * before
    if average is None:
        share = settings.first_share
    else:
        # A loss of exactly 0 has nowhere to fall; an average that underflows has fallen as far as it can.
        share = max(min(after, before) / before, sys.float_info.min) if before > 0 else 1.0
    return after, -((1 - share) ** settings.focus) * math.log(share) + 0.0  # no −0.0


def _check(state: Balance, identity: float, triplet: float | None, settings: Balancing) -> None:
    remembered = {f"the state's {name}": getattr(state, name) for name in Balance._fields[:4]}
    for name, number in {"identity": identity, "triplet": triplet, **remembered}.items():
        if number is not None and not (math.isfinite(number) and number >= 0):
            raise InputError(
                "losses that are balanced are finite and not negative",
                f"{name} = {number}",
                "lower the learning rate, or look at that batch",
            )
    if (triplet is None) == state.balanced or (triplet is None and settings.mode != "paper"):
        raise InputError(
            "a triplet loss is measured on identity-balanced batches, and only there",
            f"triplet = {triplet} for a {state.sampler} batch in mode {settings.mode}",
            "draw the batch with the sampler that the state names",
        )
