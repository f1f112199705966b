"""How often the intervals contain the truth, and how often a claim fails by chance: seeded simulations."""

import math

import numpy as np
import pytest

from reidlib.analysis.claims.power import power, power_of_no_difference
from reidlib.analysis.statistics import Components, kept_shares, paired_sums

TRIALS = 1200
# Three standard errors of each bound's share in so many trials.
LOW, HIGH = (
    bound + sign * 3 * math.sqrt(bound * (1 - bound) / TRIALS) for bound, sign in ((0.93, -1), (0.98, 1))
)


def differences(generator, components, queries_p, seeds, *, skewed):
    """Draw sums of differences with a true mean of zero, shape (S, P)."""
    persons = len(queries_p)
    seed_s1 = generator.normal(0, math.sqrt(components.seeds), (seeds, 1))
    if skewed:  # few persons on whom much changes, as average precisions do
        person_p = (generator.exponential(1, persons) - 1) * math.sqrt(components.persons)
        rest_sp = generator.standard_t(5, (seeds, persons)) * math.sqrt(components.rest * 3 / 5)
    else:
        person_p = generator.normal(0, math.sqrt(components.persons), persons)
        rest_sp = generator.normal(0, math.sqrt(components.rest), (seeds, persons))
    return (seed_s1 + person_p + rest_sp) * queries_p


def with_seed_share(share, seeds, queries_p, rest):
    """Return components of which the seeds have this share of the mean's variance."""
    weights = float((queries_p**2).mean() / queries_p.mean() ** 2)
    others = weights * (1 + rest / seeds) / len(queries_p)
    return Components(share / (1 - share) * others * seeds, 1.0, rest)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("persons", [130, 400])
@pytest.mark.parametrize("share", [0, 0.1, 0.25, 0.5])
def test_an_interval_contains_the_true_difference_in_93_to_98_of_100_cases(seeds, persons, share):
    """For differences that persons share among seeds, and for those that each training makes anew."""
    generator = np.random.default_rng([seeds, persons, int(100 * share)])
    for rest, skewed in ((1.0, False), (1.0, True), (6.0, False), (6.0, True)):
        queries_p = generator.integers(1, 13, persons)
        components = with_seed_share(share, seeds, queries_p, rest)
        inside = 0
        for _ in range(TRIALS):
            sums_sp = differences(generator, components, queries_p, seeds, skewed=skewed)
            interval = paired_sums(sums_sp, queries_p)
            inside += interval.low <= 0 <= interval.high
        assert LOW <= inside / TRIALS <= HIGH, (rest, skewed)


@pytest.mark.parametrize("persons", [130, 400])
@pytest.mark.parametrize("share", [0.75, 0.9])
def test_three_seeds_that_make_most_of_the_difference_contain_it_in_92_of_100_cases(persons, share):
    """Photographs' claims have shares up to 0.72 with three seeds."""
    generator = np.random.default_rng([persons, int(100 * share)])
    inside = 0
    for _ in range(4 * TRIALS):
        components = with_seed_share(share, 3, queries_p := generator.integers(1, 13, persons), 1.0)
        interval = paired_sums(differences(generator, components, queries_p, 3, skewed=True), queries_p)
        inside += interval.low <= 0 <= interval.high
    margin = 3 * math.sqrt(0.92 * 0.08 / (4 * TRIALS))
    assert 0.92 - margin <= inside / (4 * TRIALS) <= HIGH


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_interval_of_a_difference_of_kept_shares_contains_it(seeds):
    """Shares are ratios of means: each person's part of their difference is only its linear part."""
    generator = np.random.default_rng([seeds, 7])
    persons, inside, queries_p = 170, 0, np.full(170, 4)
    means_r = np.array([45.0, 60.0, 30.0, 50.0])  # of two networks, each perturbed and usual, in points
    truth = 100 * (45 / 60 - 30 / 50)
    for _ in range(TRIALS):
        noise_rsp = generator.normal(0, 1, (4, seeds, 1)) + generator.normal(0, 15, (4, seeds, persons))
        values_rsp = means_r[:, None, None] + noise_rsp + generator.normal(0, 20, persons)
        interval = kept_shares(values_rsp * queries_p, queries_p, tuple(range(seeds))).interval()
        inside += interval.low <= truth <= interval.high
    assert LOW <= inside / TRIALS <= HIGH


@pytest.mark.parametrize("seeds", [5, 60])
def test_the_power_to_show_no_difference_is_the_share_of_intervals_within_the_margin(seeds):
    generator = np.random.default_rng(seeds)
    components, persons, margin = Components(0.3, 20.0, 40.0), 400, 1.0
    queries_p, within = np.ones(persons), 0
    for _ in range(TRIALS):
        interval = paired_sums(differences(generator, components, queries_p, seeds, skewed=False), queries_p)
        within += max(-interval.low, interval.high) <= margin
    expected = power_of_no_difference(components, margin, seeds, persons)
    assert abs(within / TRIALS - expected) < 3 * math.sqrt(0.25 / TRIALS) + 0.03
    assert 0.1 < expected < 0.99


@pytest.mark.parametrize("seeds", [3, 10])
def test_the_power_is_the_share_of_intervals_above_zero(seeds):
    generator = np.random.default_rng(seeds)
    components, persons, effect = Components(1.0, 120.0, 200.0), 200, 2.5
    queries_p = np.ones(persons)
    above = 0
    for _ in range(TRIALS):
        sums_sp = differences(generator, components, queries_p, seeds, skewed=False) + effect
        above += paired_sums(sums_sp, queries_p).low > 0
    expected = power(components, effect, seeds, persons)
    # Degrees of freedom are estimated in each trial: with three seeds that takes a few points off.
    assert abs(above / TRIALS - expected) < 3 * math.sqrt(0.25 / TRIALS) + 0.03
    assert 0.2 < expected < 0.99
