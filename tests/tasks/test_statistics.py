"""Statistics against numbers worked out by hand, and against scipy."""

import numpy as np
import pytest
import scipy.stats

from tasks import statistics
from tasks.statistics import (
    Interval,
    bootstrap,
    default_target,
    interquartile_mean,
    interval,
    median,
    paired_difference,
    steps_to_target,
)

INF = np.inf


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 11])
def test_interquartile_mean_is_scipys_trimmed_mean(n):
    values = np.random.default_rng(n).normal(size=(3, n))
    expected = scipy.stats.trim_mean(values, 0.25, axis=1)
    np.testing.assert_allclose(interquartile_mean(values), expected)


def test_interquartile_mean_by_hand():
    assert interquartile_mean([8, 1, 2, 3, 4, 5, 6, 7]) == 4.5
    assert interquartile_mean([1, 2, 3, 4, INF]) == 3
    assert interquartile_mean([1, 2, 3, INF, INF]) == INF


def test_bootstrap_of_two_values_by_hand():
    # Means of resamples of (0, 1): 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert interval([0.0, 1.0], np.mean, confidence=0.95) == Interval(0.5, 0.0, 1.0)
    assert interval([0.0, 1.0], np.mean, confidence=0.40) == Interval(0.5, 0.5, 0.5)


def test_bootstrap_bounds_are_exact_quantiles_of_all_resamples():
    values = np.array([1.0, 2.0, 4.0])
    every = np.array(np.meshgrid(values, values, values)).reshape(3, -1)
    means = np.sort(every.mean(axis=0))
    low, high = np.quantile(means, [0.1, 0.9], method="inverted_cdf")
    estimate, *bounds = interval(values, np.mean, confidence=0.8)
    assert estimate == pytest.approx(7 / 3)
    np.testing.assert_allclose(bounds, [low, high])


def test_bootstrap_is_seeded_and_vectorised():
    values = np.random.default_rng(0).normal(size=(4, 5))
    estimate, low, high = bootstrap(values)
    assert estimate.shape == low.shape == high.shape == (4,)
    for i, row in enumerate(values):
        assert interval(row) == (estimate[i], low[i], high[i])


def test_the_interval_of_five_runs_covers_the_truth_about_nine_times_in_ten(
    monkeypatch,
):
    monkeypatch.setattr(statistics, "RESAMPLES", 400)
    values = np.random.default_rng(2).normal(size=(1000, 5))
    _, low, high = bootstrap(values)
    assert 0.87 < np.mean((low <= 0) & (high >= 0)) < 0.93


def test_one_run_has_no_interval():
    assert interval([3.0]) == Interval(3.0, 3.0, 3.0)


def test_diverged_runs_are_the_worst_and_not_left_out():
    few = interval([1.0, 1.0, 1.0, 1.0, INF])
    assert few == Interval(1.0, 1.0, INF)
    assert interval([1.0, INF, INF, INF, INF]).estimate == INF
    assert median([1.0, INF, 2.0]) == 2.0


def test_paired_difference_removes_what_seeds_share():
    baseline = np.array([1.0, 10.0, 100.0])
    assert paired_difference(baseline - 0.5, baseline) == Interval(-0.5, -0.5, -0.5)


def test_paired_difference_of_diverged_runs():
    assert paired_difference([INF] * 3, [INF] * 3) == Interval(0, 0, 0)
    assert paired_difference([INF] * 3, [1.0] * 3).low == INF
    assert paired_difference([1.0] * 3, [INF] * 3).high == -INF
    assert np.isnan(paired_difference([INF, 1.0], [1.0, INF]).estimate)


def test_steps_to_target_counts_the_first_time_and_censors():
    losses = [[3.0, 1.0, 5.0], [3.0, 2.0, 1.5], [3.0, 2.9, INF]]
    np.testing.assert_array_equal(
        steps_to_target([0, 5, 10], losses, 1.5), [5, 10, INF]
    )


def test_default_target_is_the_baselines_at_three_quarters():
    steps = [0, 25, 50, 75, 100]
    losses = [[9, 4, 1, 3, 0], [9, 5, 4, 2, 0], [9, 8, 7, 6, 0]]
    assert default_target(steps, losses) == 2.0
    assert default_target(steps, losses, fraction=0.25) == 5.0
