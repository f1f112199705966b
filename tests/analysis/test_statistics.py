"""Intervals of differences: values computed by hand, and how often the intervals contain the truth."""

import math
import statistics

import numpy as np
import pytest

from reidlib.analysis.statistics import Interval, format_difference, half_width, keep_together, paired
from reidlib.errors import InputError


def test_half_width_follows_students_t():
    # Three values 1, 2, 3: deviation 1, t with two degrees of freedom 4.3027.
    assert half_width([1, 2, 3]) == pytest.approx(4.3027 / math.sqrt(3), abs=1e-4)
    assert half_width([5.0]) is None


def test_a_constant_difference_has_no_width():
    interval = paired(np.full((1, 6), 2.5))
    assert interval == Interval(2.5, 2.5, 2.5, 1, 6)
    assert interval.excludes_zero
    assert str(interval) == "+2.5 [+2.5, +2.5]"


def test_one_seed_resamples_queries_as_a_normal_approximation_would():
    values = np.random.default_rng(3).normal(1, 4, (1, 2000))
    interval = paired(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.06)


def test_queries_of_a_person_are_resampled_together():
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
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.1)


def test_the_same_arguments_give_the_same_interval():
    values = np.random.default_rng(0).normal(size=(3, 40))
    assert paired(values) == paired(values.copy())


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_interval_contains_the_true_difference(seeds):
    """With new trainings and persons the interval contains the true difference about 95 times in 100.

    With one seed the true difference is that between these two networks.
    """
    generator = np.random.default_rng(seeds)
    persons, each, trials = 60, 3, 200
    inside = 0
    for _ in range(trials):
        seed_s1 = generator.normal(0, 1, (seeds, 1))
        person_q = generator.normal(0, 4, persons).repeat(each)
        values = 1 + seed_s1 + person_q + generator.normal(0, 3, (seeds, persons * each))
        truth = 1 + (float(seed_s1.mean()) if seeds == 1 else 0)
        interval = paired(values, np.arange(persons).repeat(each))
        inside += interval.low <= truth <= interval.high
    assert inside / trials >= 0.91


def test_resampling_three_seeds_would_be_too_narrow():
    """The reason why ``paired`` does not resample seeds: resampled means of three seeds vary too little."""
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
