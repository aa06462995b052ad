"""Statistics over tasks: the published definitions worked out by hand, and laws."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings

from tasks import aggregates
from tasks.aggregates import (
    interquartile_mean,
    optimality_gap,
    probability_of_improvement,
    score_profile,
)

# Two tasks by four runs; sorted together .1 .2 .3 .4 .6 .8 .9 1.3.
SCORES = [[0.1, 0.4, 0.9, 0.6], [0.2, 1.3, 0.3, 0.8]]
OTHERS = [[0.4, 0.5, 0.0, 0.9], [0.3, 0.3, 0.3, 0.3]]

runs = st.lists(
    st.lists(st.integers(0, 6).map(lambda x: x / 4), min_size=3, max_size=3),
    min_size=1,
    max_size=3,
)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(aggregates, "RESAMPLES", 200)


def test_the_interquartile_mean_is_over_all_runs_of_all_tasks():
    # (.3 + .4 + .6 + .8) / 4; the mean of the two tasks' own would be .5 + .55 over 2.
    assert interquartile_mean(SCORES).estimate == pytest.approx(0.525)
    pooled = scipy.stats.trim_mean(SCORES, 0.25, axis=None)
    assert interquartile_mean(SCORES).estimate == pytest.approx(pooled)


def test_the_optimality_gap_by_hand():
    # Capped at 1: .1 .4 .9 .6 .2 1. .3 .8, of mean 4.3 / 8.
    assert optimality_gap(SCORES).estimate == pytest.approx(1 - 4.3 / 8)
    assert optimality_gap(SCORES, optimum=0.5).estimate == pytest.approx(
        0.5 - (0.1 + 0.4 + 0.5 + 0.5 + 0.2 + 0.5 + 0.3 + 0.5) / 8
    )


def test_the_probability_of_improvement_by_hand():
    # First task: .1 beats 1 of .4 .5 .0 .9; .4 beats 1 and ties 1; .9 beats 3 and
    # ties 1; .6 beats 3: (1 + 1.5 + 3.5 + 3) / 16. Second: .2 beats none of four .3;
    # 1.3 and .8 all; .3 ties all: (0 + 4 + 2 + 4) / 16.
    found = probability_of_improvement(SCORES, OTHERS).estimate
    assert found == pytest.approx((9 / 16 + 10 / 16) / 2)
    u = [scipy.stats.mannwhitneyu(x, y).statistic / 16 for x, y in zip(SCORES, OTHERS)]  # noqa: B905
    assert found == pytest.approx(np.mean(u))


def test_the_score_profile_counts_runs_strictly_above():
    found, low, high = score_profile(SCORES, [0.0, 0.3, 0.85, 1.3])
    np.testing.assert_allclose(found, [1, 5 / 8, 2 / 8, 0])
    assert np.all((low <= found) & (found <= high))


def test_runs_are_drawn_anew_within_their_task_only():
    # Whatever is drawn, each task keeps its own level, so that nothing varies.
    constant = [[0.0] * 4, [1.0] * 4]
    assert len(set(interquartile_mean(constant))) == 1
    # One varying run in each of two tasks: the mean of draws is 0, 1/2 or 1.
    levels = score_profile([[0.0, 1.0], [5.0, 5.0]], [0.5])
    np.testing.assert_allclose(np.ravel(levels), [0.75, 0.5, 1.0])


def test_the_interval_is_that_of_every_way_to_draw():
    values = [[0.0, 1.0, 5.0], [2.0, 3.0, 9.0]]
    draws = itertools.product(*(itertools.product(of, repeat=3) for of in values))
    every = [optimum_mean(np.ravel(d)) for d in draws]
    low, high = np.quantile(every, [0.025, 0.975])
    aggregates.RESAMPLES = 20000  # the fixture's monkeypatch puts it back
    found = optimality_gap(values, optimum=4.0)
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.1)


def optimum_mean(values):
    return 4 - np.minimum(values, 4).mean()


@settings(deadline=None, max_examples=25)
@given(runs, st.randoms())
def test_improvement_is_a_probability_that_its_opposite_completes(scores, random):
    others = [random.sample(of, len(of)) for of in scores]
    random.shuffle(others)
    there = probability_of_improvement(scores, others)
    back = probability_of_improvement(others, scores)
    assert there.estimate + back.estimate == pytest.approx(1)
    assert 0 <= there.low <= there.high <= 1
    assert probability_of_improvement(scores, scores).estimate == 0.5


@settings(deadline=None, max_examples=25)
@given(runs)
def test_aggregates_do_not_depend_on_the_order_and_stay_in_range(scores):
    reordered = [of[::-1] for of in scores[::-1]]
    for statistic in (interquartile_mean, optimality_gap):
        found = statistic(scores)
        assert found.estimate == pytest.approx(statistic(reordered).estimate)
        assert found.low <= found.high
    flat = np.ravel(scores)
    assert flat.min() <= interquartile_mean(scores).estimate <= flat.max()
    assert 0 <= optimality_gap(scores).estimate <= 1


@settings(deadline=None, max_examples=25)
@given(runs)
def test_the_area_under_the_score_profile_is_one_less_the_optimality_gap(scores):
    levels = np.linspace(0, 1, 8, endpoint=False)  # every score is a multiple of 1/4
    profile = score_profile(scores, levels)[0]
    assert np.all(np.diff(profile) <= 0)
    assert profile.mean() == pytest.approx(1 - optimality_gap(scores).estimate)
