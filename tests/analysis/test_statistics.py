"""Intervals of differences: values computed by hand, and how often the intervals contain the truth."""

import math
import statistics

import numpy as np
import pytest
from scipy.special import stdtrit
from scored_runs import seeds_wanted

from reidlib.analysis.claims.power import power
from reidlib.analysis.statistics import (
    Components,
    Interval,
    Pairs,
    format_difference,
    half_width,
    keep_together,
    paired,
    paired_sums,
    sign_flip,
    variance_components,
)
from reidlib.errors import InputError


def test_an_end_that_excludes_zero_does_not_read_zero():
    assert str(Interval(-0.7, -1.4, -0.04, 6, 9)) == "−0.7 [−1.4, −0.04]"
    assert str(Interval(0.2, 0.0004, 0.4, 6, 9)) == "+0.2 [+0.0004, +0.4]"
    assert str(Interval(0.2, -0.04, 0.4, 6, 9)) == "+0.2 [0.0, +0.4]"
    assert str(Interval(0.0, 0.0, 0.0, 6, 9)) == "0.0 [0.0, 0.0]"


def test_half_width_follows_students_t():
    # Three values 1, 2, 3: deviation 1, t with two degrees of freedom 4.3027.
    assert half_width([1, 2, 3]) == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert half_width([5.0]) is None


def test_a_constant_difference_has_no_width():
    interval = paired(np.full((1, 6), 2.5))
    assert interval == Interval(2.5, 2.5, 2.5, 1, 6, error=0.0, freedom=5.0, persons=6)
    assert interval.excludes_zero
    assert str(interval) == "+2.5 [+2.5, +2.5]"


def test_one_seed_is_as_uncertain_as_a_mean_over_many_persons():
    values = np.random.default_rng(3).normal(1, 4, (1, 2000))
    interval = paired(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.01)


def test_queries_of_a_person_are_one_observation():
    """Ten copies of each query are no more evidence than one."""
    single = np.random.default_rng(4).normal(0, 1, (1, 100))
    copied = np.repeat(single, 10, axis=1)
    persons = np.repeat(np.arange(100), 10)
    alone, together, blind = paired(single), paired(copied, persons), paired(copied)
    width = alone.high - alone.low
    assert together.high - together.low == pytest.approx(width, rel=0.05)
    assert blind.high - blind.low == pytest.approx(width / math.sqrt(10), rel=0.1)


def test_persons_with_more_queries_weigh_more():
    values = np.array([[1.0, 1.0, 1.0, 0.0]])
    assert paired(values, np.array([7, 7, 7, 9])).mean == 0.75


def test_a_query_without_a_match_is_left_out():
    values = np.array([[1.0, math.nan, 3.0], [1.0, math.nan, 3.0]])
    interval = paired(values)
    assert (interval.mean, interval.queries, interval.seeds) == (2.0, 2, 2)


def test_a_query_needs_a_match_in_every_seed():
    """A query counts if all seeds have a value for it."""
    interval = paired(np.array([[1.0, 5.0, 3.0], [1.0, math.nan, 3.0]]))
    assert (interval.mean, interval.queries) == (2.0, 2)


def test_without_variation_over_queries_the_interval_is_students():
    """If all queries agree, only the seeds are uncertain."""
    values = np.array([1.0, 2.0, 4.0])[:, None].repeat(50, axis=1)
    interval = paired(values)
    half = half_width([1, 2, 4])
    assert interval.mean == pytest.approx(7 / 3)
    assert (interval.high - interval.low) / 2 == pytest.approx(half)


def test_the_crossed_model_by_hand():
    """Two seeds, two persons: every mean square has one degree of freedom and can be worked out on paper."""
    # Mean 4. Seeds' means 3 and 5, persons' means 2 and 6, rest ±1: mean squares 4, 16 and 4.
    sums_sp = np.array([[2.0, 4.0], [2.0, 8.0]])
    interval = paired_sums(sums_sp, np.ones(2))
    variance = 16 + (4 - 4)
    assert interval.mean == 4
    assert interval.error == pytest.approx(math.sqrt(variance / 4))
    assert interval.freedom == 1  # 16² / (4² + 16² + 4²) is below the fewest, one
    assert interval.high - 4 == pytest.approx(12.7062 * 2, rel=1e-5)
    assert variance_components(sums_sp, np.ones(2)) == Components(0, 6, 4)


def test_seeds_that_differ_little_cost_little():
    """With three nearly equal seeds the interval is that of the persons, not four times a standard error."""
    generator = np.random.default_rng(2)
    values = generator.normal(0, 4, 400) + generator.normal(0, 0.01, (3, 1))
    alone, crossed = paired(values[:1]), paired(values)
    assert crossed.high - crossed.low == pytest.approx(alone.high - alone.low, rel=0.02)


def test_what_one_person_or_one_seed_can_say():
    """One seed: about persons. One person: about seeds. One of both: a mean without an interval."""
    values = np.array([[1.0, 3.0, 8.0], [2.0, 3.0, 4.0], [6.0, 6.0, 0.0]])
    one_person = paired_sums(values[:, :1], np.ones(1))
    assert one_person.high - one_person.mean == pytest.approx(half_width([1, 2, 6]))
    one_seed = paired_sums(values[:1], np.ones(3))
    assert one_seed.high - one_seed.mean == pytest.approx(half_width([1, 3, 8]))
    neither = paired_sums(values[:1, :1], np.ones(1))
    assert (neither.mean, neither.low, neither.high) == (1, -math.inf, math.inf)
    assert not neither.excludes_zero
    assert neither.below_zero_p == 1
    assert str(neither) == "+1.0 [no interval]"
    assert variance_components(values[:1], np.ones(3)) is None


def test_a_person_with_many_queries_is_not_many_persons():
    """Sums weigh persons by their queries, in the mean and in its error."""
    values = np.array([[4.0, 0.0, 2.0]])
    queries = np.array([9, 1, 2])
    interval = paired_sums(values * queries, queries)
    assert interval.mean == pytest.approx(40 / 12)
    deviations = queries * (values[0] - 40 / 12)
    assert interval.error == pytest.approx(math.sqrt((deviations**2).sum() / 2 * 3) / 12)


def test_another_level_changes_the_quantile_alone():
    values = np.random.default_rng(6).normal(size=(3, 20))
    usual, wider = paired(values), paired(values, level=0.99)
    assert wider.error == usual.error
    ratio = stdtrit(usual.freedom, 0.995) / stdtrit(usual.freedom, 0.975)
    assert wider.high - wider.mean == pytest.approx(ratio * (usual.high - usual.mean))


def test_the_p_value_agrees_with_the_interval():
    values = np.random.default_rng(8).normal(-0.5, 1, size=(4, 30))
    interval = paired(values)
    assert stdtrit(interval.freedom, interval.below_zero_p) == pytest.approx(interval.mean / interval.error)
    for level in (1 - 2 * interval.below_zero_p - 1e-9, 1 - 2 * interval.below_zero_p + 1e-9):
        assert (paired(values, level=level).high < 0) == (level < 1 - 2 * interval.below_zero_p)


def test_signs_cannot_speak_below_six_seeds():
    ones = np.ones((6, 1))
    assert sign_flip(ones[:5], np.ones(1)) is None
    assert sign_flip(ones, np.ones(1)) == 2 / 64
    assert sign_flip(np.array([[3.0], [-1.0], [-1.0], [-1.0], [0.0], [0.0]]), np.ones(1)) == 1.0


def test_signs_of_many_seeds_are_drawn():
    means = np.full((20, 1), 0.3)
    assert 0 < sign_flip(means, np.ones(1)) < 1e-3
    assert sign_flip(means, np.ones(1)) == sign_flip(means, np.ones(1))


def test_a_subset_of_seeds_is_chosen_by_number():
    pairs = Pairs(np.arange(6.0).reshape(3, 2), np.array([1, 2]), (0, 4, 7))
    chosen = pairs.of({7, 0, 3})
    assert chosen.seeds == (0, 7)
    assert chosen.sums_sp.tolist() == [[0, 1], [4, 5]]
    assert chosen.interval() == paired_sums(pairs.sums_sp[[0, 2]], pairs.queries_p)


def test_fewer_seeds_are_wanted_for_a_larger_effect():
    components = Components(1.0, 100.0, 200.0)
    numbers = [seeds_wanted(components, effect, 400) for effect in (5, 2.4, 1.8)]
    assert numbers == sorted(numbers)
    for effect, number in zip((5, 2.4, 1.8), numbers, strict=True):
        assert power(components, effect, number, 400) >= 0.8
        assert number == 2 or power(components, effect, number - 1, 400) < 0.8


def test_no_number_of_seeds_makes_up_for_too_few_persons():
    assert seeds_wanted(Components(0.1, 400.0, 10.0), 1.0, 100) is None
    assert seeds_wanted(Components(0.1, 400.0, 10.0), 1.0, 10_000) is not None


def test_the_same_arguments_give_the_same_interval():
    values = np.random.default_rng(0).normal(size=(3, 40))
    assert paired(values) == paired(values.copy())


def test_resampling_three_seeds_would_be_too_narrow():
    """Why seeds are not resampled: resampled means of three seeds vary too little."""
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        seeds = generator.normal(0, 1, 3)
        means = generator.choice(seeds, (500, 3)).mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        inside += low <= 0 <= high
    assert 0.65 < inside / 400 < 0.85


@pytest.mark.parametrize(
    ("points", "text"), [(3.25, "+3.2"), (-0.04, "0.0"), (0.04, "0.0"), (-1.26, "−1.3"), (math.nan, "–")]
)
def test_a_difference_has_a_sign_unless_it_is_zero(points, text):
    assert format_difference(points) == text


@pytest.mark.parametrize(
    ("values", "persons", "words"),
    [
        (np.zeros(3), None, r"\(seeds, queries\)"),
        (np.zeros((0, 3)), None, r"\(seeds, queries\)"),
        (np.zeros((1, 3)), np.arange(2), "one person"),
        (np.full((1, 3), math.nan), None, "with a match"),
    ],
)
def test_bad_input_is_named(values, persons, words):
    with pytest.raises(InputError, match=words):
        paired(values, persons)


def test_the_mean_is_the_mean_of_the_seeds_means():
    values = np.random.default_rng(5).normal(size=(3, 7))
    assert paired(values).mean == pytest.approx(statistics.fmean(values.mean(1).tolist()))


def test_a_table_does_not_break_intervals_and_short_texts():
    assert keep_together("+1.2 [−0.3, +2.1] (2 of 3 seeds)") == "+1.2 [−0.3,\u00a0+2.1] (2 of 3 seeds)"
    assert keep_together("a: 72.4 ± 1.1; b: 71.0 ± 0.2") == "a: 72.4\u00a0±\u00a01.1; b: 71.0\u00a0±\u00a00.2"
    assert keep_together("level 1") == "level\u00a01"
    assert keep_together("a text of more than twenty letters") == "a text of more than twenty letters"
