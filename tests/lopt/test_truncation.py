import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lopt.truncation import Constant, LogUniform, first_length, max_restarts, tick

RUN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "mulo" / "pes_run.npz")
KEYS = jax.random.split(jax.random.key(0), 20_000)


def test_lengths_are_log_uniform():
    lengths = np.asarray(jax.jit(jax.vmap(LogUniform(10, 1000).sample))(KEYS))
    assert lengths.dtype == np.int32
    assert lengths.min() == 10 and 950 < lengths.max() <= 1000
    # P(length < n) = ln(n / 10) / ln(100), exactly, because lengths are rounded down.
    bounds = np.array([11, 20, 50, 100, 300, 900])
    shares = (lengths[:, None] < bounds).mean(axis=0)
    expected = np.log(bounds / 10) / np.log(100)
    error = np.sqrt(expected * (1 - expected) / len(lengths))
    assert np.all(np.abs(shares - expected) < 4 * error)


@pytest.mark.parametrize("n", [1, 3, 7, 29, 1000])
def test_equal_bounds_give_that_length(n):
    assert np.all(jax.vmap(LogUniform(n, n).sample)(KEYS[:50]) == n)


def test_first_runs_are_shortened_by_less_than_the_stagger():
    schedule = Constant(20, stagger=8)
    first = np.asarray(jax.vmap(lambda k: first_length(schedule, k))(KEYS))
    values, counts = np.unique(first, return_counts=True)
    assert values.tolist() == list(range(13, 21))
    np.testing.assert_allclose(counts / len(first), 1 / 8, atol=0.01)
    assert int(schedule.sample(KEYS[0])) == 20


def test_a_first_run_has_a_step_however_large_the_stagger():
    schedule = Constant(3, stagger=1000)
    assert np.all(jax.vmap(lambda k: first_length(schedule, k))(KEYS[:500]) >= 1)


def test_the_clock_of_the_recorded_run():
    """Six truncations of five steps, all runs of length 7, staggered."""
    keys = jax.random.split(jax.random.key(0), RUN["mask"].shape[1])
    advance = jax.jit(
        jax.vmap(lambda s, n: tick(Constant(7), s, n, keys), out_axes=(0, 0, 1))
    )
    step = jnp.zeros(4, jnp.int32)
    length = 7 - jnp.asarray(RUN["init_inner_step"])
    episodes = np.zeros(4, int)
    for mask, done, inner_step in zip(
        RUN["mask"], RUN["is_done"], RUN["inner_step"], strict=True
    ):
        step, length, ticks = advance(step, length)
        np.testing.assert_array_equal(~ticks.restart, mask)
        np.testing.assert_array_equal(ticks.done, done)
        np.testing.assert_array_equal(ticks.episode, np.cumsum(~mask, axis=0))
        episodes += np.asarray(ticks.episode[-1])
        restarted = episodes > 0
        np.testing.assert_array_equal(step[restarted], inner_step[-1][restarted])
    assert episodes.tolist() == [3, 4, 4, 4]


def test_a_restarted_run_draws_a_length():
    schedule = LogUniform(2, 9)
    keys = jax.random.split(jax.random.key(1), (200, 40))
    start = jnp.zeros(200, jnp.int32), jnp.ones(200, jnp.int32)
    _, _, ticks = jax.vmap(lambda s, n, k: tick(schedule, s, n, k))(*start, keys)
    restarts = [np.flatnonzero(row) for row in np.asarray(ticks.restart)]
    lengths = np.concatenate([np.diff(row) - 1 for row in restarts])
    assert sorted(set(lengths)) == list(range(2, 9))
    assert ticks.episode[:, -1].max() <= max_restarts(schedule, 40)


def test_the_bound_of_restarts_is_reached():
    keys = jax.random.split(jax.random.key(0), 7)
    due = jnp.int32(2), jnp.int32(2)
    *_, ticks = tick(Constant(2), *due, keys)
    assert ticks.restart.sum() == max_restarts(Constant(2), 7) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogUniform(0, 10), "shortest must be an integer >= 1, got 0"),
        (lambda: LogUniform(20, 10), "longest must be at least shortest=20, got 10"),
        (lambda: LogUniform(1.5, 10), "shortest must be an integer >= 1, got 1.5"),
        (lambda: LogUniform(1, 10, stagger=-1), "stagger must be an integer >= 0"),
        (lambda: Constant(0), "length must be an integer >= 1, got 0"),
        (lambda: Constant(5, stagger=-2), "stagger must be an integer >= 0, got -2"),
    ],
)
def test_bad_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
