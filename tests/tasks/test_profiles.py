"""Profiles of time to target, against areas that are summed by hand."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tasks.profiles import integrated, profile, time_ratios

INF, NAN = np.inf, np.nan
time = st.sampled_from([1.0, 2.0, 3.0, 5.0, 12.0, INF, NAN])
times = st.lists(st.lists(time, min_size=3, max_size=3), min_size=1, max_size=4)


def test_ratios_are_to_the_fastest_that_was_run():
    found = time_ratios([[10, INF, 5, INF], [20, 30, NAN, INF], [15, 60, 5, NAN]])
    np.testing.assert_array_equal(
        found, [[1, INF, 1, INF], [2, 1, NAN, INF], [1.5, 2, 1, NAN]]
    )


def test_a_target_that_is_reached_at_once_has_no_division_by_zero():
    np.testing.assert_array_equal(time_ratios([[0], [0], [5]]), [[1], [1], [INF]])


def test_the_profile_and_its_area_by_hand():
    ratios = [1, 2, 3, INF, NAN]
    shares = profile(ratios, [1, 1.5, 3, 99])
    np.testing.assert_array_equal(shares, [1 / 4, 1 / 4, 3 / 4, 3 / 4])
    # 1/4 on [1, 2], 2/4 on [2, 3], 3/4 on [3, 4], over a width of 3.
    assert integrated(ratios) == pytest.approx((1 / 4 + 2 / 4 + 3 / 4) / 3)
    assert integrated([1, 1]) == 1
    assert integrated([4, INF]) == 0
    assert np.isnan(integrated([NAN]))


@given(times)
def test_someone_is_fastest_on_every_task_that_was_solved(table):
    table = np.array(table)
    ratios = time_ratios(table)
    solved = np.isfinite(table).any(axis=0)
    assert np.all((ratios == 1).any(axis=0) == solved)
    assert np.all((ratios >= 1) | np.isnan(table))


@given(st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.5, 8.0, INF]), min_size=1))
def test_the_integrated_score_is_the_area_under_the_profile(ratios):
    width = 1 / 64
    middles = np.arange(1 + width / 2, 4, width)
    assert integrated(ratios) == pytest.approx(profile(ratios, middles).mean())
    assert np.all(np.diff(profile(ratios, middles)) >= 0)
